//! The plans that this ledger issued: `open`, then `applying`, then `closed`.

use std::path::Path;

use sqlx::Row;

use super::ledger::{Ledger, RecordError, failed};
use crate::decide::breakers::{Allowance, Allowances, Breaker};
use crate::model::{RunId, Sha256Hash, Timestamp};
use crate::plan::DeletePlan;

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

    fn named(name: &str) -> Option<Self> {
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

impl Ledger {
    /// Issues a plan: from now on `apply` accepts its hash.
    pub async fn issue_plan(&self, plan: &DeletePlan, hash: Sha256Hash, path: &Path) -> Result<(), RecordError> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO plans (hash, scope, run_id, created_at, expires_at, state, path, group_count, object_count, size_bytes) \
             VALUES (?1, ?2, ?3, ?4, ?5, 'open', ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )
        .bind(hash.to_string())
        .bind(&plan.scope)
        .bind(plan.run_id.to_string())
        .bind(plan.created_at)
        .bind(plan.expires_at)
        .bind(path.to_string_lossy())
        .bind(signed(plan.totals.groups))
        .bind(signed(plan.totals.objects))
        .bind(signed(plan.totals.bytes))
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed("issue the plan"))
    }

    /// The plan of that hash, or of the one hash that begins so.
    pub async fn plan(&self, hash: &str) -> Result<Option<PlanRow>, RecordError> {
        let step = failed("read a plan");
        let rows = sqlx::query("SELECT * FROM plans WHERE substr(hash, 1, length(?1)) = ?1 LIMIT 2")
            .bind(hash)
            .fetch_all(&self.pool)
            .await
            .map_err(&step)?;
        let [row] = rows.as_slice() else { return Ok(None) };
        let state: String = row.try_get("state").map_err(&step)?;
        Ok(Some(PlanRow {
            hash: row.try_get("hash").map_err(&step)?,
            scope: row.try_get("scope").map_err(&step)?,
            state: PlanState::named(&state).ok_or(RecordError::Unreadable("a plan's state"))?,
            path: row.try_get("path").map_err(&step)?,
        }))
    }

    /// The plan of a scope that was begun and not finished.
    pub async fn interrupted_plan(&self, scope: &str) -> Result<Option<PlanRow>, RecordError> {
        let hash: Option<String> = sqlx::query_scalar(
            "SELECT hash FROM plans WHERE scope = ?1 AND state = 'applying' ORDER BY run_id LIMIT 1",
        )
        .bind(scope)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("look for an interrupted plan"))?;
        match hash {
            Some(hash) => self.plan(&hash).await,
            None => Ok(None),
        }
    }

    /// Notes that a plan is being applied, and takes over what dead runs of it left without a report.
    pub async fn start_plan(&self, hash: Sha256Hash, run: RunId, unreported: &[String]) -> Result<(), RecordError> {
        let step = failed("start the plan");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        sqlx::query("UPDATE plans SET state = 'applying' WHERE hash = ?1")
            .bind(hash.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        for dead in unreported {
            sqlx::query("UPDATE intents SET run_id = ?3 WHERE plan_hash = ?1 AND run_id = ?2")
                .bind(hash.to_string())
                .bind(dead)
                .bind(run.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)
    }

    /// The runs that wrote intents for a plan.
    pub async fn runs_of_plan(&self, hash: Sha256Hash) -> Result<Vec<String>, RecordError> {
        sqlx::query_scalar("SELECT DISTINCT run_id FROM intents WHERE plan_hash = ?1")
            .bind(hash.to_string())
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the runs of a plan"))
    }

    /// Closes a plan. The keys of ids that are gone are compacted; those of others stay, so that what we deleted of
    /// them is never taken for somebody's change.
    pub async fn close_plan(&self, hash: Sha256Hash) -> Result<(), RecordError> {
        let step = failed("close the plan");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        sqlx::query("UPDATE plans SET state = 'closed' WHERE hash = ?1")
            .bind(hash.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        sqlx::query(
            "DELETE FROM intents WHERE plan_hash = ?1 AND (outcome = 'skipped' OR (\
               id IN (SELECT id FROM disposals WHERE plan_hash = ?1 AND outcome = 'gone') AND \
               id NOT IN (SELECT id FROM disposals WHERE plan_hash = ?1 AND outcome <> 'gone')))",
        )
        .bind(hash.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(&step)?;
        transaction.commit().await.map_err(&step)
    }

    /// Puts on record that a person lifted limits for a plan.
    pub async fn allow(
        &self,
        hash: Sha256Hash,
        run: RunId,
        allowances: &Allowances,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        for (breaker, allowance) in &allowances.0 {
            let value = serde_json::to_string(allowance).map_err(|_| RecordError::Unreadable("an allowance"))?;
            sqlx::query(
                "INSERT INTO allowances (plan_hash, breaker, value, run_id, allowed_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (plan_hash, breaker) DO UPDATE SET value = ?3, run_id = ?4, allowed_at = ?5",
            )
            .bind(hash.to_string())
            .bind(breaker.as_str())
            .bind(value)
            .bind(run.to_string())
            .bind(at)
            .execute(&self.pool)
            .await
            .map_err(failed("record an allowance"))?;
        }
        Ok(())
    }

    /// The limits that were lifted for a plan: an interrupted one resumes with them.
    pub async fn allowances(&self, hash: Sha256Hash) -> Result<Allowances, RecordError> {
        let step = failed("read the allowances");
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT breaker, value FROM allowances WHERE plan_hash = ?1")
            .bind(hash.to_string())
            .fetch_all(&self.pool)
            .await
            .map_err(&step)?;
        let read = |(name, value): (String, String)| {
            let breaker = Breaker::named(&name)?;
            let allowance: Allowance = serde_json::from_str(&value).ok()?;
            Some((breaker, allowance))
        };
        rows.into_iter()
            .map(|row| read(row).ok_or(RecordError::Unreadable("an allowance")))
            .collect::<Result<_, _>>()
            .map(Allowances)
    }
}
