//! Up to when the schedule was looked at, so that no occurrence runs twice and missed ones are seen.

use super::ledger::{Ledger, RecordError, failed};
use crate::model::Timestamp;

impl Ledger {
    /// Up to when the schedule of a scope was looked at; the first call sets it to `now`.
    pub async fn schedule_checked_until(&self, scope: &str, now: Timestamp) -> Result<Timestamp, RecordError> {
        let step = failed("read the schedule");
        sqlx::query(
            "INSERT INTO schedules (scope, first_start, checked_until) VALUES (?1, ?2, ?2) ON CONFLICT DO NOTHING",
        )
        .bind(scope)
        .bind(now)
        .execute(&self.pool)
        .await
        .map_err(&step)?;
        sqlx::query_scalar("SELECT checked_until FROM schedules WHERE scope = ?1")
            .bind(scope)
            .fetch_one(&self.pool)
            .await
            .map_err(&step)
    }

    /// Marks every occurrence up to `until` as seen. Called before the run that it starts.
    pub async fn mark_schedule(&self, scope: &str, until: Timestamp) -> Result<(), RecordError> {
        sqlx::query("UPDATE schedules SET checked_until = ?2 WHERE scope = ?1")
            .bind(scope)
            .bind(until)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("mark the schedule"))
    }

    /// When `serve` first looked at the schedule of a scope.
    pub async fn first_start(&self, scope: &str) -> Result<Option<Timestamp>, RecordError> {
        sqlx::query_scalar("SELECT first_start FROM schedules WHERE scope = ?1")
            .bind(scope)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the schedule"))
    }
}
