//! The runs: when each began, what became of it, and which left a report.

use sqlx::FromRow;

use super::ledger::{Ledger, RecordError, failed};
use crate::model::{RunId, Timestamp};

/// What is known of a run when it begins.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// Its id.
    pub run_id: RunId,
    /// Its scope.
    pub scope: String,
    /// `audit`, `apply` or `sweep`.
    pub command: String,
    /// Whether it deletes nothing.
    pub is_dry_run: bool,
    /// When it began.
    pub started_at: Timestamp,
}

/// A run as the ledger remembers it.
#[derive(Debug, Clone, FromRow, serde::Serialize)]
pub struct RunRow {
    /// Its id.
    pub run_id: String,
    /// Its scope.
    pub scope: String,
    /// `audit`, `apply` or `sweep`.
    pub command: String,
    /// Whether it deleted nothing.
    pub is_dry_run: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; none while it runs, or where its process died.
    pub finished_at: Option<Timestamp>,
    /// What became of it.
    pub outcome: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The exit code.
    pub exit_code: Option<i64>,
    /// The plan that it made or applied.
    pub plan_hash: Option<String>,
    /// Bytes under orphans.
    pub orphan_bytes: Option<i64>,
    /// Its `summary.json`.
    #[serde(skip)]
    pub summary: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunEnd<'r> {
    /// When.
    pub finished_at: Timestamp,
    /// What became of it.
    pub outcome: &'r str,
    /// Why.
    pub reason: Option<&'r str>,
    /// The exit code.
    pub exit_code: u8,
    /// The plan that it made or applied.
    pub plan_hash: Option<String>,
    /// Bytes under orphans, where they were all counted.
    pub orphan_bytes: Option<u64>,
    /// Its `summary.json`.
    pub summary: String,
}

impl Ledger {
    /// Notes that a run begins. Under the run lock, any other run without an end is dead, and is noted as such.
    pub async fn begin_run(&self, start: &RunStart) -> Result<(), RecordError> {
        let step = failed("note the start of the run");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        sqlx::query(
            "UPDATE runs SET finished_at = ?1, outcome = 'failed', reason = 'its process died' WHERE finished_at IS NULL AND run_id <> ?2",
        )
        .bind(start.started_at)
        .bind(start.run_id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(&step)?;
        sqlx::query("INSERT INTO runs (run_id, scope, command, is_dry_run, started_at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(start.run_id.to_string())
            .bind(&start.scope)
            .bind(&start.command)
            .bind(start.is_dry_run)
            .bind(start.started_at)
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        transaction.commit().await.map_err(&step)
    }

    /// Notes how a run ended.
    pub async fn finish_run(&self, run: RunId, end: &RunEnd<'_>) -> Result<(), RecordError> {
        sqlx::query(
            "UPDATE runs SET finished_at = ?2, outcome = ?3, reason = ?4, exit_code = ?5, plan_hash = ?6, orphan_bytes = ?7, summary = ?8 \
             WHERE run_id = ?1",
        )
        .bind(run.to_string())
        .bind(end.finished_at)
        .bind(end.outcome)
        .bind(end.reason)
        .bind(end.exit_code)
        .bind(&end.plan_hash)
        .bind(end.orphan_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind(&end.summary)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed("note the end of the run"))
    }

    /// How many runs it has seen.
    pub async fn run_count(&self) -> Result<u64, RecordError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM runs")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count its runs"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Whether it knows a run of that id.
    pub async fn knows_run(&self, run: &str) -> Result<bool, RecordError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE run_id = ?1)")
            .bind(run)
            .fetch_one(&self.pool)
            .await
            .map_err(failed("look for a run"))
    }

    /// One run.
    pub async fn run(&self, run: &str) -> Result<Option<RunRow>, RecordError> {
        sqlx::query_as("SELECT * FROM runs WHERE run_id = ?1")
            .bind(run)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a run"))
    }

    /// The newest runs first, of one scope or of all.
    pub async fn runs(&self, scope: Option<&str>, limit: u32) -> Result<Vec<RunRow>, RecordError> {
        sqlx::query_as("SELECT * FROM runs WHERE ?1 IS NULL OR scope = ?1 ORDER BY number DESC LIMIT ?2")
            .bind(scope)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the runs"))
    }

    /// The newest complete run of a scope that counted every orphan: what a trend is measured against.
    pub async fn last_counted_run(&self, scope: &str) -> Result<Option<RunRow>, RecordError> {
        sqlx::query_as("SELECT * FROM runs WHERE scope = ?1 AND outcome = 'complete' AND orphan_bytes IS NOT NULL ORDER BY number DESC LIMIT 1")
            .bind(scope)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the last counted run"))
    }

    /// The newest complete run of a scope.
    pub async fn last_complete_run(&self, scope: &str) -> Result<Option<RunRow>, RecordError> {
        sqlx::query_as("SELECT * FROM runs WHERE scope = ?1 AND outcome = 'complete' ORDER BY number DESC LIMIT 1")
            .bind(scope)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the last complete run"))
    }
}
