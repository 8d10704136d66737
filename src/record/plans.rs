//! The plans that this ledger issued: `open`, then `applying`, then `closed`.

use std::path::Path;

use super::chain::tracked::{ALLOWANCES, PLANS, note};
use super::journal;
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement};
use crate::decide::breakers::{Allowance, Allowances, Breaker};
use crate::model::{RunId, Sha256Hash, Timestamp};
use crate::plan::{DeletePlan, PlanTotals};

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanState {
    /// Nobody applied it yet.
    Open,
    /// It was begun and not finished: applying it resumes.
    Applying,
    /// It is done with.
    Closed,
}

impl PlanState {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Applying => "applying",
            Self::Closed => "closed",
        }
    }

    /// The one of that word.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Open, Self::Applying, Self::Closed].into_iter().find(|state| state.as_str() == name)
    }
}

/// A plan as the ledger remembers it.
#[derive(Debug, Clone)]
pub struct PlanRow {
    /// Its hash.
    pub hash: String,
    /// Its scope.
    pub scope: String,
    /// Where it stands.
    pub state: PlanState,
    /// Where its file was written.
    pub path: String,
}

/// A plan among others, with how much it lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanListing {
    /// Its hash.
    pub hash: String,
    /// Its scope.
    pub scope: String,
    /// The run that made it.
    pub run_id: String,
    /// When.
    pub created_at: Timestamp,
    /// When it can no longer be applied.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: PlanState,
    /// How much it lets go.
    pub totals: PlanTotals,
}

impl Ledger {
    /// Issues a plan: from now on `apply` accepts its hash.
    pub async fn issue_plan(&self, plan: &DeletePlan, hash: Sha256Hash, path: &Path) -> Result<(), RecordError> {
        const STEP: &str = "issue the plan";
        let mut transaction = self.begin(STEP).await?;
        let insert = "INSERT INTO plans (hash, scope, run_id, created_at, expires_at, state, path, group_count, object_count, size_bytes) \
                      VALUES ($1, $2, $3, $4, $5, 'open', $6, $7, $8, $9) ON CONFLICT DO NOTHING";
        let issued = statement(STEP, insert)
            .bind(hash)
            .bind(&plan.scope)
            .bind(plan.run_id)
            .bind(plan.created_at)
            .bind(plan.expires_at)
            .bind(path.to_string_lossy())
            .bind(plan.totals.groups)
            .bind(plan.totals.objects)
            .bind(plan.totals.bytes)
            .run(&mut transaction)
            .await?;
        if issued > 0 {
            note(&mut transaction, &PLANS, "issued", &hash.to_string()).await?;
        }
        transaction.commit(STEP).await
    }

    /// The plan of that hash, or of the one hash that begins so.
    pub async fn plan(&self, hash: &str) -> Result<Option<PlanRow>, RecordError> {
        let select = "SELECT * FROM plans WHERE substr(hash, 1, length($1)) = $1 LIMIT 2";
        let rows = statement("read a plan", select).bind(hash).all(&self.database).await?;
        let [row] = rows.as_slice() else { return Ok(None) };
        read_plan(row).map(Some)
    }

    /// The plans that were made before the one of the hash `before`, or all, the newest first; of one scope and in one state, or
    /// of all.
    pub async fn plans_before(
        &self,
        scope: Option<&str>,
        state: Option<PlanState>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<PlanListing>, RecordError> {
        let select = "SELECT * FROM plans WHERE ($1 IS NULL OR scope = $1) AND ($2 IS NULL OR state = $2) \
                      AND ($3 IS NULL OR (run_id, hash) < (SELECT run_id, hash FROM plans WHERE hash = $3)) \
                      ORDER BY run_id DESC, hash DESC LIMIT $4";
        let rows = statement("list the plans", select)
            .bind(scope)
            .bind(state.map(PlanState::as_str))
            .bind(before)
            .bind(limit)
            .all(&self.database)
            .await?;
        let read = |row: &Row| {
            let plan = read_plan(row)?;
            Ok(PlanListing {
                hash: plan.hash,
                scope: plan.scope,
                run_id: row.get("run_id")?,
                created_at: row.get("created_at")?,
                expires_at: row.get("expires_at")?,
                state: plan.state,
                totals: PlanTotals {
                    groups: row.count("group_count")?,
                    objects: row.count("object_count")?,
                    bytes: row.count("size_bytes")?,
                },
            })
        };
        rows.iter().map(read).collect()
    }

    /// The plans of a scope that can still be applied at `now`, the oldest first.
    pub async fn applicable_plans(&self, scope: &str, now: Timestamp) -> Result<Vec<PlanRow>, RecordError> {
        let select = "SELECT * FROM plans WHERE scope = $1 AND (state = 'applying' OR (state = 'open' AND expires_at > $2)) \
                      ORDER BY run_id";
        let rows = statement("read the plans that can be applied", select).bind(scope).bind(now);
        rows.all(&self.database).await?.iter().map(read_plan).collect()
    }

    /// The plan of a scope that was begun and not finished. A backfill is not among them: it is worked through in the steps of
    /// the person who began it, and no schedule takes it up.
    pub async fn interrupted_plan(&self, scope: &str) -> Result<Option<PlanRow>, RecordError> {
        let select = "SELECT hash FROM plans WHERE scope = $1 AND state = 'applying' \
                      AND run_id NOT IN (SELECT run_id FROM runs WHERE command = 'backfill') ORDER BY run_id LIMIT 1";
        let row = statement("look for an interrupted plan", select).bind(scope).optional(&self.database).await?;
        match row {
            Some(row) => self.plan(&row.get::<String>("hash")?).await,
            None => Ok(None),
        }
    }

    /// Notes that a plan is being applied, and takes over what dead runs of it left without a report.
    pub async fn start_plan(&self, hash: Sha256Hash, run: RunId, unreported: &[String]) -> Result<(), RecordError> {
        const STEP: &str = "start the plan";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE plans SET state = 'applying' WHERE hash = $1";
        statement(STEP, update).bind(hash).run(&mut transaction).await?;
        note(&mut transaction, &PLANS, "started", &hash.to_string()).await?;
        for dead in unreported {
            journal::take_over(&mut transaction, hash, dead, run).await?;
        }
        transaction.commit(STEP).await
    }

    /// The runs that wrote intents for a plan, or told parts of it.
    pub async fn runs_of_plan(&self, hash: Sha256Hash) -> Result<Vec<String>, RecordError> {
        let select = "SELECT run_id FROM intents WHERE plan_hash = $1 UNION SELECT run_id FROM deletion_parts WHERE plan_hash = $1";
        let rows = statement("read the runs of a plan", select).bind(hash).all(&self.database).await?;
        rows.iter().map(|row| row.get("run_id")).collect()
    }

    /// Closes a plan. The keys of ids that are gone are compacted; those of others stay, so that what we deleted of
    /// them is never taken for somebody's change; and so do those of another run that has not told them yet.
    pub async fn close_plan(&self, hash: Sha256Hash) -> Result<(), RecordError> {
        const STEP: &str = "close the plan";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE plans SET state = 'closed' WHERE hash = $1";
        statement(STEP, update).bind(hash).run(&mut transaction).await?;
        note(&mut transaction, &PLANS, "closed", &hash.to_string()).await?;
        journal::compact(&mut transaction, &hash.to_string(), journal::DONE_WITH, &hash.to_string()).await?;
        transaction.commit(STEP).await
    }

    /// Puts on record that a person lifted limits for a plan.
    pub async fn allow(
        &self,
        hash: Sha256Hash,
        run: RunId,
        allowances: &Allowances,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        const STEP: &str = "record an allowance";
        let mut transaction = self.begin(STEP).await?;
        for (breaker, allowance) in &allowances.0 {
            let value = serde_json::to_string(allowance).map_err(|_| RecordError::Unreadable("an allowance"))?;
            let upsert = "INSERT INTO allowances (plan_hash, breaker, value, run_id, allowed_at) VALUES ($1, $2, $3, $4, $5) \
                          ON CONFLICT (plan_hash, breaker) DO UPDATE SET value = $3, run_id = $4, allowed_at = $5";
            statement(STEP, upsert)
                .bind(hash)
                .bind(breaker.as_str())
                .bind(value)
                .bind(run)
                .bind(at)
                .run(&mut transaction)
                .await?;
            note(&mut transaction, &ALLOWANCES, "given", &format!("{hash} {}", breaker.as_str())).await?;
        }
        transaction.commit(STEP).await
    }

    /// The limits that were lifted for a plan: an interrupted one resumes with them.
    pub async fn allowances(&self, hash: Sha256Hash) -> Result<Allowances, RecordError> {
        let select = statement("read the allowances", "SELECT breaker, value FROM allowances WHERE plan_hash = $1");
        let read = |row: &Row| {
            let (name, value): (String, String) = (row.get("breaker")?, row.get("value")?);
            let breaker = Breaker::named(&name);
            let allowance: Option<Allowance> = serde_json::from_str(&value).ok();
            breaker.zip(allowance).ok_or(RecordError::Unreadable("an allowance"))
        };
        let rows = select.bind(hash).all(&self.database).await?;
        rows.iter().map(read).collect::<Result<_, _>>().map(Allowances)
    }
}

fn read_plan(row: &Row) -> Result<PlanRow, RecordError> {
    let state: String = row.get("state")?;
    Ok(PlanRow {
        hash: row.get("hash")?,
        scope: row.get("scope")?,
        state: PlanState::named(&state).ok_or(RecordError::Unreadable("a plan's state"))?,
        path: row.get("path")?,
    })
}
