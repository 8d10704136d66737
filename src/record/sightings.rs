//! The sightings: who was seen as an orphan, since when, and unchanged.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::ledger::{Ledger, RecordError, failed};
use crate::decide::breakers::Baseline;
use crate::decide::sightings::Sighting;
use crate::model::{DatasetId, RunId, Sha256Hash};

/// How a scan differs from the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanDelta {
    /// Orphans that the scan before did not have.
    pub new: u64,
    /// Orphans that both had.
    pub persisting: u64,
    /// Orphans that only the scan before had.
    pub resolved: u64,
}

impl Ledger {
    /// The sightings of an id so far.
    pub async fn sighting(&self, scope: &str, id: DatasetId) -> Result<Option<Sighting>, RecordError> {
        let row = sqlx::query("SELECT * FROM sightings WHERE scope = ?1 AND id = ?2")
            .bind(scope)
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the sightings of an id"))?;
        row.map(|row| read_sighting(&row)).transpose()
    }

    /// Takes in a good scan, as a whole or not at all: the sightings of its orphans, the end of all others, and the new
    /// baseline.
    pub async fn record_scan(
        &self,
        scope: &str,
        run: RunId,
        orphans: &[(DatasetId, Sighting)],
        baseline: &Baseline,
    ) -> Result<ScanDelta, RecordError> {
        let step = failed("record the scan");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        let before: i64 = sqlx::query_scalar("SELECT count(*) FROM sightings WHERE scope = ?1")
            .bind(scope)
            .fetch_one(&mut *transaction)
            .await
            .map_err(&step)?;
        for (id, sighting) in orphans {
            sqlx::query(
                "INSERT INTO sightings (scope, id, first_run, first_seen, last_run, last_seen, sightings, witnessed_ms, digest) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (scope, id) DO UPDATE SET first_run = ?3, first_seen = ?4, \
                 last_run = ?5, last_seen = ?6, sightings = ?7, witnessed_ms = ?8, digest = ?9",
            )
            .bind(scope)
            .bind(id.0)
            .bind(sighting.first_run.to_string())
            .bind(sighting.first_seen)
            .bind(run.to_string())
            .bind(sighting.last_seen)
            .bind(sighting.sightings)
            .bind(sighting.witnessed.num_milliseconds())
            .bind(&sighting.digest.0[..])
            .execute(&mut *transaction)
            .await
            .map_err(&step)?;
        }
        let resolved = sqlx::query("DELETE FROM sightings WHERE scope = ?1 AND last_run <> ?2")
            .bind(scope)
            .bind(run.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(&step)?
            .rows_affected();
        // What a closed plan asked for and nobody sees any more is done with.
        sqlx::query(
            "DELETE FROM intents WHERE scope = ?1 AND plan_hash IN (SELECT hash FROM plans WHERE state = 'closed') \
             AND id NOT IN (SELECT id FROM sightings WHERE scope = ?1)",
        )
        .bind(scope)
        .execute(&mut *transaction)
        .await
        .map_err(&step)?;
        write_baseline(&mut transaction, scope, run, baseline).await?;
        transaction.commit().await.map_err(&step)?;
        let persisting = u64::try_from(before).unwrap_or(0).saturating_sub(resolved);
        Ok(ScanDelta { new: (orphans.len() as u64).saturating_sub(persisting), persisting, resolved })
    }

    /// Starts the sightings of these ids again: they were seen live, so whatever was planned for them is off for good.
    pub async fn forget(&self, scope: &str, ids: &[DatasetId]) -> Result<(), RecordError> {
        let step = failed("start sightings again");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        for id in ids {
            sqlx::query("DELETE FROM sightings WHERE scope = ?1 AND id = ?2")
                .bind(scope)
                .bind(id.0)
                .execute(&mut *transaction)
                .await
                .map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)
    }

    /// Makes the next scan take an id for changed, whatever it sees: a look in between saw something else.
    pub async fn spoil(&self, scope: &str, id: DatasetId) -> Result<(), RecordError> {
        sqlx::query("UPDATE sightings SET digest = zeroblob(32) WHERE scope = ?1 AND id = ?2")
            .bind(scope)
            .bind(id.0)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("spoil the sightings of an id"))
    }

    /// The ids that have sightings.
    pub async fn sighted_ids(&self, scope: &str) -> Result<Vec<DatasetId>, RecordError> {
        let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM sightings WHERE scope = ?1")
            .bind(scope)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the sighted ids"))?;
        Ok(ids.into_iter().map(DatasetId).collect())
    }

    /// Starts all sightings of a scope again; says how many there were.
    pub async fn forget_all(&self, scope: &str) -> Result<u64, RecordError> {
        sqlx::query("DELETE FROM sightings WHERE scope = ?1")
            .bind(scope)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed("start all sightings again"))
    }
}

fn read_sighting(row: &SqliteRow) -> Result<Sighting, RecordError> {
    let unreadable = || RecordError::Unreadable("a sighting");
    let step = failed("read a sighting");
    let first_run: String = row.try_get("first_run").map_err(&step)?;
    let digest: Vec<u8> = row.try_get("digest").map_err(&step)?;
    Ok(Sighting {
        first_run: RunId(Uuid::parse_str(&first_run).map_err(|_| unreadable())?),
        first_seen: row.try_get("first_seen").map_err(&step)?,
        last_seen: row.try_get("last_seen").map_err(&step)?,
        sightings: row.try_get("sightings").map_err(&step)?,
        witnessed: chrono::Duration::milliseconds(row.try_get("witnessed_ms").map_err(&step)?),
        digest: Sha256Hash(digest.try_into().map_err(|_| unreadable())?),
        is_changed: false,
    })
}

/// Sets the baseline of a scope inside a transaction.
pub(super) async fn write_baseline(
    transaction: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    scope: &str,
    run: RunId,
    baseline: &Baseline,
) -> Result<(), RecordError> {
    let baseline = serde_json::to_string(baseline).map_err(|_| RecordError::Unreadable("a baseline"))?;
    sqlx::query("INSERT INTO baselines (scope, baseline, run_id) VALUES (?1, ?2, ?3) ON CONFLICT (scope) DO UPDATE SET baseline = ?2, run_id = ?3")
        .bind(scope)
        .bind(baseline)
        .bind(run.to_string())
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("set the baseline"))
}
