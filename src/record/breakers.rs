//! Latched breakers, the baseline that scans are compared with, and who acknowledged what.

use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::ledger::{Ledger, RecordError, failed};
use super::sightings::write_baseline;
use crate::decide::breakers::{Baseline, Breaker, Observation};
use crate::model::{RunId, Timestamp};

/// A breaker that waits for an acknowledgement.
#[derive(Debug, Clone)]
pub struct Latch {
    /// Which.
    pub breaker: Breaker,
    /// The last run that tripped it.
    pub run_id: String,
    /// When that was.
    pub latched_at: Timestamp,
    /// What that run observed.
    pub observation: Observation,
    /// What it said.
    pub message: String,
}

/// An acknowledgement, as kept.
#[derive(Debug, Clone, FromRow, serde::Serialize)]
pub struct Acknowledgement {
    /// The scope.
    pub scope: String,
    /// The breaker.
    pub breaker: String,
    /// Who.
    pub acknowledged_by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub acknowledged_at: Timestamp,
    /// The run that had tripped it.
    pub run_id: String,
    /// What it had said.
    pub message: String,
}

impl Ledger {
    /// The breakers of a scope that wait for an acknowledgement.
    pub async fn latches(&self, scope: &str) -> Result<Vec<Latch>, RecordError> {
        let step = failed("read the latched breakers");
        let rows = sqlx::query("SELECT * FROM latches WHERE scope = ?1 ORDER BY breaker")
            .bind(scope)
            .fetch_all(&self.pool)
            .await
            .map_err(&step)?;
        rows.iter()
            .map(|row| {
                let breaker = Breaker::named(row.try_get("breaker").map_err(&step)?)
                    .ok_or(RecordError::Unreadable("a breaker"))?;
                let observation: String = row.try_get("observation").map_err(&step)?;
                Ok(Latch {
                    breaker,
                    run_id: row.try_get("run_id").map_err(&step)?,
                    latched_at: row.try_get("latched_at").map_err(&step)?,
                    observation: serde_json::from_str(&observation)
                        .map_err(|_| RecordError::Unreadable("an observation"))?,
                    message: row.try_get("message").map_err(&step)?,
                })
            })
            .collect()
    }

    /// Latches what a run tripped; a breaker that is latched already shows the newer observation.
    pub async fn latch(
        &self,
        scope: &str,
        run: RunId,
        at: Timestamp,
        tripped: &[(Breaker, String)],
        observation: &Observation,
    ) -> Result<(), RecordError> {
        let step = failed("latch a breaker");
        let observation = serde_json::to_string(observation).map_err(|_| RecordError::Unreadable("an observation"))?;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        for (breaker, message) in tripped {
            sqlx::query(
                "INSERT INTO latches (scope, breaker, run_id, latched_at, observation, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (scope, breaker) DO UPDATE SET run_id = ?3, observation = ?5, message = ?6",
            )
            .bind(scope)
            .bind(breaker.as_str())
            .bind(run.to_string())
            .bind(at)
            .bind(&observation)
            .bind(message)
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)
    }

    /// What the next scan of a scope is compared with; none before the first good one.
    pub async fn baseline(&self, scope: &str) -> Result<Option<Baseline>, RecordError> {
        let baseline: Option<String> = sqlx::query_scalar("SELECT baseline FROM baselines WHERE scope = ?1")
            .bind(scope)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the baseline"))?;
        baseline.map(|text| serde_json::from_str(&text).map_err(|_| RecordError::Unreadable("a baseline"))).transpose()
    }

    /// Acknowledges a latch, on record: what it observed becomes the baseline, unless a good scan came after it, whose
    /// observation then already is.
    pub async fn acknowledge(
        &self,
        scope: &str,
        latch: &Latch,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        let step = failed("acknowledge a breaker");
        let before = self.baseline(scope).await?;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        let is_overtaken: Option<bool> = sqlx::query_scalar(
            "SELECT good.number > tripped.number FROM baselines JOIN runs AS good ON good.run_id = baselines.run_id \
             JOIN runs AS tripped ON tripped.run_id = ?2 WHERE baselines.scope = ?1",
        )
        .bind(scope)
        .bind(&latch.run_id)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&step)?;
        let is_overtaken = is_overtaken.unwrap_or(false);
        if !is_overtaken {
            let before = before.unwrap_or_else(|| Baseline::after_good_scan(None, latch.observation.clone()));
            let baseline = before.after_acknowledgement(latch.breaker, &latch.observation);
            let run = RunId(Uuid::parse_str(&latch.run_id).map_err(|_| RecordError::Unreadable("a run id"))?);
            write_baseline(&mut transaction, scope, run, &baseline).await?;
            if latch.breaker == Breaker::TargetChanged {
                // What was seen in another bucket says nothing of this one.
                sqlx::query("DELETE FROM sightings WHERE scope = ?1")
                    .bind(scope)
                    .execute(&mut *transaction)
                    .await
                    .map_err(&step)?;
            }
        }
        sqlx::query(
            "INSERT INTO acknowledgements (scope, breaker, acknowledged_by, reason, acknowledged_at, run_id, message) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(scope)
        .bind(latch.breaker.as_str())
        .bind(by)
        .bind(reason)
        .bind(at)
        .bind(&latch.run_id)
        .bind(&latch.message)
        .execute(&mut *transaction)
        .await
        .map_err(&step)?;
        sqlx::query("DELETE FROM latches WHERE scope = ?1 AND breaker = ?2")
            .bind(scope)
            .bind(latch.breaker.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        transaction.commit().await.map_err(&step)
    }

    /// Every acknowledgement, the newest first.
    pub async fn acknowledgements(&self) -> Result<Vec<Acknowledgement>, RecordError> {
        sqlx::query_as("SELECT scope, breaker, acknowledged_by, reason, acknowledged_at, run_id, message FROM acknowledgements ORDER BY number DESC")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the acknowledgements"))
    }
}
