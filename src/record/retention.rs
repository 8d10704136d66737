//! What the ledger still needs of old runs, and what it may forget.
//!
//! Invariant: a run keeps its line for good, so that an old report is never taken for one of another ledger; what goes is the
//! text of its summary, and the plans that nobody can apply any more with all that was noted of them.

use std::collections::BTreeSet;

use super::chain::tracked::{ALLOWANCES, PLANS, RUNS, note};
use super::ledger::{Ledger, RecordError};
use super::purges;
use super::sql::statement;
use crate::model::Timestamp;

impl Ledger {
    /// The runs of a scope that began before `before`, the oldest first.
    pub async fn runs_before(&self, scope: &str, before: Timestamp) -> Result<Vec<String>, RecordError> {
        let sql = "SELECT run_id FROM runs WHERE scope = $1 AND started_at < $2 ORDER BY number";
        let rows = statement("read the old runs", sql).bind(scope).bind(before).all(&self.database).await?;
        rows.iter().map(|row| row.get("run_id")).collect()
    }

    /// The runs of a scope whose reports are needed at `now`: of plans that can still be applied, with keys in the journal,
    /// with copies in quarantine, that are what the next scan is compared with, or that tripped what waits for an acknowledgement.
    pub async fn needed_runs(&self, scope: &str, now: Timestamp) -> Result<BTreeSet<String>, RecordError> {
        const STEP: &str = "read which reports are needed";
        let mut needed = BTreeSet::new();
        let plans = "SELECT run_id, state, expires_at FROM plans WHERE scope = $1 AND state <> 'closed'";
        for row in statement(STEP, plans).bind(scope).all(&self.database).await? {
            // A plan that was begun in time may be finished whenever.
            if row.get::<String>("state")? == "applying" || row.get::<Timestamp>("expires_at")? > now {
                needed.insert(row.get("run_id")?);
            }
        }
        let others = "SELECT run_id FROM intents WHERE scope = $1 \
             UNION SELECT s.run_id FROM plan_steps AS s JOIN plans AS p ON p.hash = s.plan_hash WHERE p.scope = $1 AND p.state = 'applying' \
             UNION SELECT d.run_id FROM deletion_parts AS d JOIN plans AS p ON p.hash = d.plan_hash WHERE p.scope = $1 AND p.state = 'applying' \
             UNION SELECT run_id FROM baselines WHERE scope = $1 \
             UNION SELECT run_id FROM purges WHERE scope = $1 AND state IN ('intended', 'committed') \
             UNION SELECT run_id FROM latches WHERE scope = $1 \
             UNION SELECT run_id FROM undos WHERE scope = $1 AND kind = 'quarantine' AND state = 'kept' \
             UNION SELECT p.run_id FROM undos AS u JOIN plans AS p ON p.hash = u.plan_hash \
             WHERE u.scope = $1 AND u.kind = 'quarantine' AND u.state = 'kept' \
             UNION SELECT p.run_id FROM undos AS u JOIN plan_steps AS s ON s.run_id = u.run_id JOIN plans AS p ON p.hash = s.plan_hash \
             WHERE u.scope = $1 AND u.kind = 'quarantine' AND u.state = 'kept'";
        for row in statement(STEP, others).bind(scope).all(&self.database).await? {
            needed.insert(row.get("run_id")?);
        }
        let newest = [self.last_counted_run(scope).await?, self.last_complete_run(scope).await?];
        needed.extend(newest.into_iter().flatten().map(|run| run.run_id));
        Ok(needed)
    }

    /// When the oldest entry of the chain was written.
    pub async fn chain_begins_at(&self) -> Result<Option<Timestamp>, RecordError> {
        let select = statement("read the chain", "SELECT at FROM chain ORDER BY number LIMIT 1");
        let Some(row) = select.optional(&self.database).await? else { return Ok(None) };
        Ok(row.get::<String>("at")?.parse().ok())
    }

    /// Forgets the summaries of these runs, whose reports are gone, the plans that they made, and the purges that they were, but for
    /// those whose keys are still in the journal. Says how many rows that were.
    pub async fn compact_runs(&self, runs: &[String]) -> Result<u64, RecordError> {
        const STEP: &str = "compact old runs";
        let mut compacted = 0;
        let mut transaction = self.begin(STEP).await?;
        for run in runs {
            let forget = "UPDATE runs SET summary = NULL WHERE run_id = $1 AND summary IS NOT NULL";
            if statement(STEP, forget).bind(run).run(&mut transaction).await? > 0 {
                compacted += 1;
                note(&mut transaction, &RUNS, "compacted", run).await?;
            }
            compacted += purges::forget(&mut transaction, run).await?;
            let made = "SELECT hash FROM plans WHERE run_id = $1 AND NOT EXISTS (SELECT 1 FROM intents WHERE plan_hash = plans.hash)";
            for row in statement(STEP, made).bind(run).all(&mut transaction).await? {
                let hash: String = row.get("hash")?;
                let lifted = "SELECT breaker FROM allowances WHERE plan_hash = $1";
                let lifted = statement(STEP, lifted).bind(&hash).all(&mut transaction).await?;
                for table in ["allowances", "deletion_parts", "plan_steps", "disposals"] {
                    let sql = format!("DELETE FROM {table} WHERE plan_hash = $1");
                    compacted += statement(STEP, sql).bind(&hash).run(&mut transaction).await?;
                }
                compacted +=
                    statement(STEP, "DELETE FROM plans WHERE hash = $1").bind(&hash).run(&mut transaction).await?;
                note(&mut transaction, &PLANS, "compacted", &hash).await?;
                for allowance in lifted {
                    let subject = format!("{hash} {}", allowance.get::<String>("breaker")?);
                    note(&mut transaction, &ALLOWANCES, "compacted", &subject).await?;
                }
            }
        }
        transaction.commit(STEP).await?;
        Ok(compacted)
    }
}
