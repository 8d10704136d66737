//! The runs: when each began, what became of it, and which left a report.

use sqlx::FromRow;

use super::chain::tracked::{RUNS, note};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Transaction, statement};
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

/// Notes that a run begins, in a transaction that says more of it.
pub(super) async fn insert_run(transaction: &mut Transaction, start: &RunStart) -> Result<(), RecordError> {
    let insert = "INSERT INTO runs (run_id, scope, command, is_dry_run, started_at) VALUES ($1, $2, $3, $4, $5)";
    statement("note the start of the run", insert)
        .bind(start.run_id)
        .bind(&start.scope)
        .bind(&start.command)
        .bind(start.is_dry_run)
        .bind(start.started_at)
        .run(&mut *transaction)
        .await?;
    note(transaction, &RUNS, "begun", &start.run_id.to_string()).await
}

impl Ledger {
    /// Notes that a run begins. Under the run lock, any other run without an end is dead, and is noted as such; but for a
    /// purge, which takes no lock and is pending until it is over.
    pub async fn begin_run(&self, start: &RunStart) -> Result<(), RecordError> {
        const STEP: &str = "note the start of the run";
        let mut transaction = self.begin(STEP).await?;
        let unended = "SELECT run_id FROM runs WHERE finished_at IS NULL AND run_id <> $1 \
                       AND command <> 'purge' ORDER BY number";
        for dead in statement(STEP, unended).bind(start.run_id).all(&mut transaction).await? {
            let dead: String = dead.get("run_id")?;
            let died =
                "UPDATE runs SET finished_at = $1, outcome = 'failed', reason = 'its process died' WHERE run_id = $2";
            statement(STEP, died).bind(start.started_at).bind(&dead).run(&mut transaction).await?;
            note(&mut transaction, &RUNS, "died", &dead).await?;
        }
        insert_run(&mut transaction, start).await?;
        transaction.commit(STEP).await
    }

    /// Notes how a run ended.
    pub async fn finish_run(&self, run: RunId, end: &RunEnd<'_>) -> Result<(), RecordError> {
        const STEP: &str = "note the end of the run";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE runs SET finished_at = $2, outcome = $3, reason = $4, exit_code = $5, plan_hash = $6, orphan_bytes = $7, \
                      summary = $8 WHERE run_id = $1";
        statement(STEP, update)
            .bind(run)
            .bind(end.finished_at)
            .bind(end.outcome)
            .bind(end.reason)
            .bind(end.exit_code)
            .bind(end.plan_hash.clone())
            .bind(end.orphan_bytes)
            .bind(&end.summary)
            .run(&mut transaction)
            .await?;
        note(&mut transaction, &RUNS, "ended", &run.to_string()).await?;
        transaction.commit(STEP).await
    }

    /// How many runs it has seen.
    pub async fn run_count(&self) -> Result<u64, RecordError> {
        let count = statement("count its runs", "SELECT count(*) AS runs FROM runs");
        count.one(&self.database).await?.count("runs")
    }

    /// Whether it knows a run of that id.
    pub async fn knows_run(&self, run: &str) -> Result<bool, RecordError> {
        let found = statement("look for a run", "SELECT 1 FROM runs WHERE run_id = $1").bind(run);
        Ok(found.optional(&self.database).await?.is_some())
    }

    /// One run.
    pub async fn run(&self, run: &str) -> Result<Option<RunRow>, RecordError> {
        let select = statement("read a run", "SELECT * FROM runs WHERE run_id = $1").bind(run);
        select.optional(&self.database).await?.map(|row| row.read()).transpose()
    }

    /// The newest runs first, of one scope or of all.
    pub async fn runs(&self, scope: Option<&str>, limit: u32) -> Result<Vec<RunRow>, RecordError> {
        self.older_runs(scope, None, limit).await
    }

    /// The runs that were noted before `before`, or all, the newest first, of one scope or of all.
    pub async fn older_runs(
        &self,
        scope: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunRow>, RecordError> {
        let select = "SELECT * FROM runs WHERE ($1 IS NULL OR scope = $1) \
                      AND ($2 IS NULL OR number < (SELECT number FROM runs WHERE run_id = $2)) ORDER BY number DESC LIMIT $3";
        let rows = statement("read the runs", select).bind(scope).bind(before).bind(limit).all(&self.database).await?;
        rows.iter().map(Row::read).collect()
    }

    /// The newest complete run of a scope that counted every orphan: what a trend is measured against.
    pub async fn last_counted_run(&self, scope: &str) -> Result<Option<RunRow>, RecordError> {
        let select = "SELECT * FROM runs WHERE scope = $1 AND outcome = 'complete' AND orphan_bytes IS NOT NULL \
                      ORDER BY number DESC LIMIT 1";
        let row = statement("read the last counted run", select).bind(scope).optional(&self.database).await?;
        row.map(|row| row.read()).transpose()
    }

    /// Bytes that the runs of a scope deleted or marked from `run` on, by their summaries.
    pub async fn bytes_deleted_since(&self, scope: &str, run: &str) -> Result<u64, RecordError> {
        let rows = statement(
            "read what was deleted since a run",
            // What a purge deletes was live, and no orphan's.
            "SELECT summary FROM runs WHERE scope = $1 AND summary IS NOT NULL AND command <> 'purge' \
             AND number >= (SELECT number FROM runs WHERE run_id = $2)",
        );
        let rows = rows.bind(scope).bind(run).all(&self.database).await?;
        let mut deleted: u64 = 0;
        for row in rows {
            let summary: serde_json::Value = serde_json::from_str(&row.get::<String>("summary")?).unwrap_or_default();
            // Freed, marked, or moved: under the scope's prefix it is no orphan any more.
            let sizes =
                summary["deletion"].as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("bytes_"));
            deleted = sizes.filter_map(|(_, bytes)| bytes.as_u64()).fold(deleted, u64::saturating_add);
        }
        Ok(deleted)
    }

    /// The newest complete run of a scope.
    pub async fn last_complete_run(&self, scope: &str) -> Result<Option<RunRow>, RecordError> {
        // A restore looks at nothing but what it brings back, and a purge at what it removes.
        let select = "SELECT * FROM runs WHERE scope = $1 AND outcome = 'complete' AND command NOT IN ('restore', 'purge') \
                      ORDER BY number DESC LIMIT 1";
        let row = statement("read the last complete run", select).bind(scope).optional(&self.database).await?;
        row.map(|row| row.read()).transpose()
    }
}
