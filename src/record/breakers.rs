//! Latched breakers, the baseline that scans are compared with, and who acknowledged what.

use sqlx::FromRow;
use uuid::Uuid;

use super::chain::tracked::{ACKNOWLEDGEMENTS, LATCHES, note};
use super::ledger::{Ledger, RecordError};
use super::sightings::write_baseline;
use super::sql::{Row, statement};
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
        let select = statement("read the latched breakers", "SELECT * FROM latches WHERE scope = $1 ORDER BY breaker")
            .bind(scope);
        let read = |row: &Row| {
            let breaker = Breaker::named(&row.get::<String>("breaker")?).ok_or(RecordError::Unreadable("a breaker"))?;
            let observation: String = row.get("observation")?;
            Ok(Latch {
                breaker,
                run_id: row.get("run_id")?,
                latched_at: row.get("latched_at")?,
                observation: serde_json::from_str(&observation)
                    .map_err(|_| RecordError::Unreadable("an observation"))?,
                message: row.get("message")?,
            })
        };
        select.all(&self.database).await?.iter().map(read).collect()
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
        const STEP: &str = "latch a breaker";
        let observation = serde_json::to_string(observation).map_err(|_| RecordError::Unreadable("an observation"))?;
        let mut transaction = self.begin(STEP).await?;
        for (breaker, message) in tripped {
            let upsert = "INSERT INTO latches (scope, breaker, run_id, latched_at, observation, message) VALUES ($1, $2, $3, $4, $5, $6) \
                          ON CONFLICT (scope, breaker) DO UPDATE SET run_id = $3, observation = $5, message = $6";
            statement(STEP, upsert)
                .bind(scope)
                .bind(breaker.as_str())
                .bind(run)
                .bind(at)
                .bind(&observation)
                .bind(message)
                .run(&mut transaction)
                .await?;
            note(&mut transaction, &LATCHES, "latched", &subject(scope, *breaker)).await?;
        }
        transaction.commit(STEP).await
    }

    /// What the next scan of a scope is compared with; none before the first good one.
    pub async fn baseline(&self, scope: &str) -> Result<Option<Baseline>, RecordError> {
        let select = statement("read the baseline", "SELECT baseline FROM baselines WHERE scope = $1").bind(scope);
        let Some(row) = select.optional(&self.database).await? else { return Ok(None) };
        let baseline: String = row.get("baseline")?;
        serde_json::from_str(&baseline).map(Some).map_err(|_| RecordError::Unreadable("a baseline"))
    }

    /// Acknowledges a latch, on record: what it observed becomes the baseline, unless a good scan came after it, whose
    /// observation then already is. Says whether the latch still was what was acknowledged: where another run tripped it since,
    /// or another person acknowledged it, nothing is changed.
    pub async fn acknowledge(
        &self,
        scope: &str,
        latch: &Latch,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<bool, RecordError> {
        const STEP: &str = "acknowledge a breaker";
        let before = self.baseline(scope).await?;
        let mut transaction = self.begin(STEP).await?;
        let delete = "DELETE FROM latches WHERE scope = $1 AND breaker = $2 AND run_id = $3";
        let delete = statement(STEP, delete).bind(scope).bind(latch.breaker.as_str()).bind(&latch.run_id);
        if delete.run(&mut transaction).await? == 0 {
            return Ok(false);
        }
        let overtaken = "SELECT good.number > tripped.number AS is_overtaken FROM baselines \
                         JOIN runs AS good ON good.run_id = baselines.run_id \
                         JOIN runs AS tripped ON tripped.run_id = $2 WHERE baselines.scope = $1";
        let overtaken = statement(STEP, overtaken).bind(scope).bind(&latch.run_id).optional(&mut transaction).await?;
        let is_overtaken = overtaken.map(|row| row.get::<bool>("is_overtaken")).transpose()?.unwrap_or(false);
        if !is_overtaken {
            let before = before.unwrap_or_else(|| Baseline::after_good_scan(None, latch.observation.clone()));
            let baseline = before.after_acknowledgement(latch.breaker, &latch.observation);
            let run = RunId(Uuid::parse_str(&latch.run_id).map_err(|_| RecordError::Unreadable("a run id"))?);
            write_baseline(&mut transaction, scope, run, &baseline).await?;
            if latch.breaker == Breaker::TargetChanged {
                // What was seen in another bucket says nothing of this one.
                statement(STEP, "DELETE FROM sightings WHERE scope = $1").bind(scope).run(&mut transaction).await?;
            }
        }
        let insert = "INSERT INTO acknowledgements (scope, breaker, acknowledged_by, reason, acknowledged_at, run_id, message) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number";
        let number: i64 = statement(STEP, insert)
            .bind(scope)
            .bind(latch.breaker.as_str())
            .bind(by)
            .bind(reason)
            .bind(at)
            .bind(&latch.run_id)
            .bind(&latch.message)
            .one(&mut transaction)
            .await?
            .get("number")?;
        note(&mut transaction, &ACKNOWLEDGEMENTS, "given", &number.to_string()).await?;
        note(&mut transaction, &LATCHES, "cleared", &subject(scope, latch.breaker)).await?;
        transaction.commit(STEP).await?;
        Ok(true)
    }

    /// Every acknowledgement, the newest first.
    pub async fn acknowledgements(&self) -> Result<Vec<Acknowledgement>, RecordError> {
        let select = "SELECT scope, breaker, acknowledged_by, reason, acknowledged_at, run_id, message \
                      FROM acknowledgements ORDER BY number DESC";
        let rows = statement("read the acknowledgements", select).all(&self.database).await?;
        rows.iter().map(Row::read).collect()
    }
}

/// How the chain names a latch.
fn subject(scope: &str, breaker: Breaker) -> String {
    format!("{scope} {}", breaker.as_str())
}
