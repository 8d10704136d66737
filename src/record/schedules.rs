//! Up to when the schedule was looked at, so that no occurrence runs twice and missed ones are seen.

use super::ledger::{Ledger, RecordError};
use super::sql::statement;
use crate::model::Timestamp;

impl Ledger {
    /// Up to when the schedule of a scope was looked at; the first call sets it to `now`.
    pub async fn schedule_checked_until(&self, scope: &str, now: Timestamp) -> Result<Timestamp, RecordError> {
        const STEP: &str = "read the schedule";
        let select = || statement(STEP, "SELECT checked_until FROM schedules WHERE scope = $1").bind(scope);
        if let Some(row) = select().optional(&self.database).await? {
            return row.get("checked_until");
        }
        let insert =
            "INSERT INTO schedules (scope, first_start, checked_until) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING";
        statement(STEP, insert).bind(scope).bind(now).run(&self.database).await?;
        select().one(&self.database).await?.get("checked_until")
    }

    /// Marks every occurrence up to `until` as seen. Called before the run that it starts.
    pub async fn mark_schedule(&self, scope: &str, until: Timestamp) -> Result<(), RecordError> {
        let update = statement("mark the schedule", "UPDATE schedules SET checked_until = $2 WHERE scope = $1");
        update.bind(scope).bind(until).run(&self.database).await.map(drop)
    }

    /// When `serve` first looked at the schedule of a scope.
    pub async fn first_start(&self, scope: &str) -> Result<Option<Timestamp>, RecordError> {
        let select = statement("read the schedule", "SELECT first_start FROM schedules WHERE scope = $1").bind(scope);
        select.optional(&self.database).await?.map(|row| row.get("first_start")).transpose()
    }
}
