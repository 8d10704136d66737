//! A plan in steps: what was told before it closed, which keys then left the journal, and what each run came to.
//!
//! Invariant: a key leaves the journal only in the transaction that notes the finished file which tells it, and only where
//! nothing can need it any more: its group is gone, or it was never asked for. The race this closes: a process that dies
//! around its report has told every key in a noted part, or has it in the journal, and never both.

use std::collections::HashMap;

use serde_json::json;

use super::chain;
use super::journal::{self, DeletionTotals};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Transaction, statement};
use crate::model::{DatasetId, DeletionRow, RunId, Sha256Hash, Timestamp};

/// A finished file of a run's report whose keys left the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its place among the parts of its plan.
    pub place: u64,
    /// The number in its file's name; 0 where nothing was left to tell, so that it has no file.
    pub number: u64,
    /// What it tells.
    pub totals: DeletionTotals,
}

/// Which rows of the journal a part is about.
#[derive(Debug, Clone, Copy)]
pub struct PartOf<'p> {
    /// The scope.
    pub scope: &'p str,
    /// The plan.
    pub plan: Sha256Hash,
    /// The run that tells them.
    pub run: RunId,
    /// The part's place among those of its plan.
    pub part: u64,
}

/// What the runs of a plan told together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// How many runs worked on it.
    pub runs: u64,
    /// When the first of them began.
    pub first_started_at: Timestamp,
    /// What was deleted and was already gone over all runs, and what the newest left as skipped, failed or unconfirmed: a
    /// key that is kept, or fails, is told by every run that meets it.
    pub totals: StepTotals,
}

/// What one run of a plan told, or all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTotals {
    /// Deleted, or marked on a versioned bucket.
    pub deleted: u64,
    /// Gone before.
    pub already_gone: u64,
    /// Kept after all.
    pub skipped: u64,
    /// Still there.
    pub failed: u64,
    /// Unknown.
    pub unconfirmed: u64,
    /// Bytes freed.
    pub bytes_freed: u64,
    /// Bytes marked as deleted and not freed.
    pub bytes_marked: u64,
    /// Bytes of which a copy lies in quarantine.
    pub bytes_aside: u64,
}

/// The rows of `intents` that a part of plan `$1` may compact. Those that were sent stay until their whole group is gone; those
/// that are unconfirmed or failed stay in any case.
fn compactable(part: u64) -> String {
    format!(
        "plan_hash = $1 AND outcome IN ('deleted', 'already_gone', 'skipped') \
         AND EXISTS (SELECT 1 FROM disposals AS d WHERE d.plan_hash = $1 AND d.prefix = intents.prefix AND d.part = {part} \
         AND (d.outcome = 'gone' OR intents.outcome = 'skipped'))"
    )
}

impl Ledger {
    /// Notes that `run` works on a plan from `at` on, and gives it what dead runs told in parts and no report says: each with
    /// the number that its file has in the new run's folder.
    pub async fn begin_step(
        &self,
        plan: Sha256Hash,
        run: RunId,
        at: Timestamp,
        dead: &[String],
        taken_over: &[(Part, u64)],
    ) -> Result<(), RecordError> {
        const STEP: &str = "begin a step of the plan";
        let mut transaction = self.begin(STEP).await?;
        statement(
            STEP,
            "INSERT INTO plan_steps (plan_hash, run_id, started_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(plan)
        .bind(run)
        .bind(at)
        .run(&mut transaction)
        .await?;
        for dead in dead {
            let zero = "UPDATE plan_steps SET deleted = 0, already_gone = 0, skipped = 0, failed = 0, unconfirmed = 0, \
                        bytes_freed = 0, bytes_marked = 0, bytes_aside = 0 WHERE plan_hash = $1 AND run_id = $2";
            statement(STEP, zero).bind(plan).bind(dead.as_str()).run(&mut transaction).await?;
        }
        for (part, number) in taken_over {
            let take = "UPDATE deletion_parts SET run_id = $3, number = $4 WHERE plan_hash = $1 AND part = $2";
            statement(STEP, take).bind(plan).bind(part.place).bind(run).bind(*number).run(&mut transaction).await?;
        }
        // What a run was over with and did not tell is told by this one.
        let reset = "UPDATE disposals SET part = NULL WHERE plan_hash = $1 AND part IS NOT NULL AND NOT EXISTS \
                     (SELECT 1 FROM deletion_parts AS p WHERE p.plan_hash = $1 AND p.part = disposals.part)";
        statement(STEP, reset).bind(plan).run(&mut transaction).await?;
        transaction.commit(STEP).await
    }

    /// Ids of a plan whose noted groups are all gone: how many there are of each, and whether some of them wait in the journal
    /// to be told or compacted.
    pub async fn gone_ids(&self, plan: Sha256Hash) -> Result<HashMap<DatasetId, (u64, bool)>, RecordError> {
        let sql = "SELECT d.id AS id, count(*) AS groups, sum(CASE WHEN p.part IS NULL THEN 1 ELSE 0 END) AS waiting FROM disposals AS d \
                   LEFT JOIN deletion_parts AS p ON p.plan_hash = d.plan_hash AND p.part = d.part WHERE d.plan_hash = $1 \
                   GROUP BY d.id HAVING sum(CASE WHEN d.outcome = 'gone' THEN 0 ELSE 1 END) = 0";
        let rows = statement("read which groups are gone", sql).bind(plan).all(&self.database).await?;
        let read = |row: Row| Ok((DatasetId(row.get("id")?), (row.count("groups")?, row.count("waiting")? > 0)));
        rows.into_iter().map(read).collect()
    }

    /// Notes that nothing more is asked of these groups: `part` will tell and compact them.
    pub async fn mark_over(&self, plan: Sha256Hash, part: u64, prefixes: &[&str]) -> Result<(), RecordError> {
        const STEP: &str = "note groups that are over";
        let mut transaction = self.begin(STEP).await?;
        for prefix in prefixes {
            statement(STEP, "UPDATE disposals SET part = $3 WHERE plan_hash = $1 AND prefix = $2")
                .bind(plan)
                .bind(prefix.as_bytes())
                .bind(part)
                .run(&mut transaction)
                .await?;
        }
        transaction.commit(STEP).await
    }

    /// The place of a plan's next part.
    pub async fn next_part(&self, plan: Sha256Hash) -> Result<u64, RecordError> {
        let sql = "SELECT coalesce(max(part), 0) + 1 AS next FROM deletion_parts WHERE plan_hash = $1";
        statement("number the next part", sql).bind(plan).one(&self.database).await?.count("next")
    }

    /// Up to 1000 lines that a part tells, after `after`.
    pub async fn part_rows(&self, of: &PartOf<'_>, after: Option<&str>) -> Result<Vec<DeletionRow>, RecordError> {
        let sql = format!(
            "SELECT key, prefix, size_bytes, outcome, reason, batch FROM intents WHERE {} AND run_id = $2 AND scope = $3 \
             AND key > $4 ORDER BY key LIMIT 1000",
            compactable(of.part)
        );
        let rows = statement("read what a part tells", sql)
            .bind(of.plan)
            .bind(of.run)
            .bind(of.scope)
            .bind(after.unwrap_or_default().as_bytes())
            .all(&self.database)
            .await?;
        rows.iter().map(read_deletion).collect()
    }

    /// Compacts what a part told, in the transaction that notes the part. What earlier runs of the plan have told of the same
    /// groups goes with it; what a run has not told yet stays, should another process have begun one meanwhile.
    ///
    /// - Errors: [`RecordError::Unreadable`] where the journal has something else to compact than the part told; nothing is
    ///   changed then.
    pub async fn compact(&self, of: &PartOf<'_>, told: Part) -> Result<(), RecordError> {
        const STEP: &str = "compact the journal";
        let mut transaction = self.begin(STEP).await?;
        if count(&mut transaction, of).await? != told.totals {
            return Err(RecordError::Unreadable("keys other than those of a part, which was to tell them all,"));
        }
        let insert = "INSERT INTO deletion_parts (plan_hash, part, run_id, number, deleted, already_gone, skipped, size_bytes) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        statement(STEP, insert)
            .bind(of.plan)
            .bind(of.part)
            .bind(of.run)
            .bind(told.number)
            .bind(told.totals.deleted)
            .bind(told.totals.already_gone)
            .bind(told.totals.skipped)
            .bind(told.totals.bytes)
            .run(&mut transaction)
            .await?;
        let plan = of.plan.to_string();
        let totals = told.totals;
        let payload = json!({
            "run": of.run.to_string(), "part": of.part, "number": told.number, "deleted": totals.deleted,
            "already_gone": totals.already_gone, "skipped": totals.skipped, "bytes": totals.bytes,
        });
        chain::append(&mut transaction, "part", &plan, &payload).await?;
        let told_by =
            format!("(run_id = '{}' OR run_id IN (SELECT run_id FROM runs WHERE exit_code IS NOT NULL))", of.run);
        let condition = format!("{} AND {told_by}", compactable(of.part));
        journal::compact(&mut transaction, &plan, &condition, &plan).await?;
        transaction.commit(STEP).await
    }

    /// The parts that the report of a run tells, in the order of their numbers.
    pub async fn parts_of(&self, run: &str) -> Result<Vec<Part>, RecordError> {
        let sql = "SELECT part, number, deleted, already_gone, skipped, size_bytes FROM deletion_parts WHERE run_id = $1 \
                   ORDER BY number, part";
        let rows = statement("read the parts of a run", sql).bind(run).all(&self.database).await?;
        rows.iter().map(read_part).collect()
    }

    /// What a run tells of one plan: from the journal, and in the parts that it told before.
    pub async fn told_of_plan(&self, plan: Sha256Hash, run: RunId) -> Result<DeletionTotals, RecordError> {
        let sql = "SELECT outcome, count(*) AS keys, CAST(coalesce(sum(size_bytes), 0) AS BIGINT) AS bytes FROM intents \
                   WHERE plan_hash = $1 AND run_id = $2 GROUP BY outcome";
        let step = "count what a run tells of a plan";
        let rows = statement(step, sql).bind(plan).bind(run).all(&self.database).await?;
        let mut totals = DeletionTotals::default();
        for row in rows {
            let outcome: Option<String> = row.get("outcome")?;
            totals.add(outcome.as_deref().unwrap_or_default(), row.count("keys")?, row.count("bytes")?);
        }
        let sql = "SELECT part, number, deleted, already_gone, skipped, size_bytes FROM deletion_parts \
                   WHERE plan_hash = $1 AND run_id = $2";
        for row in statement(step, sql).bind(plan).bind(run).all(&self.database).await? {
            totals = totals.plus(&read_part(&row)?.totals);
        }
        Ok(totals)
    }

    /// Sets what a run of a plan told.
    pub async fn note_step(&self, plan: Sha256Hash, run: RunId, told: &StepTotals) -> Result<(), RecordError> {
        let sql = "UPDATE plan_steps SET deleted = $3, already_gone = $4, skipped = $5, failed = $6, unconfirmed = $7, \
                   bytes_freed = $8, bytes_marked = $9, bytes_aside = $10 WHERE plan_hash = $1 AND run_id = $2";
        let update = statement("note what a run of the plan told", sql).bind(plan).bind(run);
        let counts = [told.deleted, told.already_gone, told.skipped, told.failed, told.unconfirmed];
        let update = counts.into_iter().fold(update, super::sql::Statement::bind);
        update.bind(told.bytes_freed).bind(told.bytes_marked).bind(told.bytes_aside).run(&self.database).await.map(drop)
    }

    /// What the runs of a plan told together; none where nobody began it.
    pub async fn steps(&self, plan: Sha256Hash) -> Result<Option<Steps>, RecordError> {
        // In the order of the runs: their ids are made from the host's clock, which may be set back.
        let sql = "SELECT s.* FROM plan_steps AS s LEFT JOIN runs AS r ON r.run_id = s.run_id WHERE s.plan_hash = $1 \
                   ORDER BY r.number, s.started_at";
        let rows = statement("read the steps of a plan", sql).bind(plan).all(&self.database).await?;
        let mut steps: Option<Steps> = None;
        for row in &rows {
            let started_at: Timestamp = row.get("started_at")?;
            let sum =
                steps.get_or_insert(Steps { runs: 0, first_started_at: started_at, totals: StepTotals::default() });
            sum.runs += 1;
            let totals = &mut sum.totals;
            totals.deleted += row.count("deleted")?;
            totals.already_gone += row.count("already_gone")?;
            totals.bytes_freed = totals.bytes_freed.saturating_add(row.count("bytes_freed")?);
            totals.bytes_marked = totals.bytes_marked.saturating_add(row.count("bytes_marked")?);
            totals.bytes_aside = totals.bytes_aside.saturating_add(row.count("bytes_aside")?);
            totals.skipped = row.count("skipped")?;
            totals.failed = row.count("failed")?;
            totals.unconfirmed = row.count("unconfirmed")?;
        }
        Ok(steps)
    }
}

/// What a part would tell and compact now.
async fn count(transaction: &mut Transaction, of: &PartOf<'_>) -> Result<DeletionTotals, RecordError> {
    let sql = format!(
        "SELECT outcome, count(*) AS keys, CAST(coalesce(sum(size_bytes), 0) AS BIGINT) AS bytes FROM intents WHERE {} \
         AND run_id = $2 GROUP BY outcome",
        compactable(of.part)
    );
    let rows = statement("compact the journal", sql).bind(of.plan).bind(of.run).all(transaction).await?;
    let mut totals = DeletionTotals::default();
    for row in rows {
        totals.add(&row.get::<String>("outcome")?, row.count("keys")?, row.count("bytes")?);
    }
    Ok(totals)
}

fn read_part(row: &Row) -> Result<Part, RecordError> {
    let mut totals = DeletionTotals::default();
    totals.add("deleted", row.count("deleted")?, row.count("size_bytes")?);
    totals.add("already_gone", row.count("already_gone")?, 0);
    totals.add("skipped", row.count("skipped")?, 0);
    Ok(Part { place: row.count("part")?, number: row.count("number")?, totals })
}

fn read_deletion(row: &Row) -> Result<DeletionRow, RecordError> {
    let text = |column: &str| String::from_utf8(row.get(column)?).map_err(|_| RecordError::Unreadable("a key"));
    Ok(DeletionRow {
        key: text("key")?,
        group: text("prefix")?,
        bytes: row.count("size_bytes")?,
        outcome: row.get("outcome")?,
        reason: row.get("reason")?,
        batch: row.count("batch")?,
    })
}
