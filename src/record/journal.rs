//! The journal of deletion: intents before the request, one outcome per key after it.
//!
//! Invariant: a key is asked for only after its intent is on the disk; an intent without an outcome is settled by
//! looking whether the key is still there.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::ledger::{Ledger, RecordError, failed};
use crate::list::content::SentIntents;
use crate::model::{DatasetId, DeletionRow, Object, ObjectKey, RunId, Sha256Hash, Timestamp};

/// What became of a key that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOutcome {
    /// It is deleted, or marked on a versioned bucket.
    Deleted,
    /// It was gone before.
    AlreadyGone,
    /// It was not asked for after all.
    Skipped,
    /// It is still there.
    Failed,
    /// Nobody knows.
    Unconfirmed,
}

impl KeyOutcome {
    /// The word in `deletions.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::AlreadyGone => "already_gone",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// What a run is about to ask for.
#[derive(Debug, Clone)]
pub struct Intent<'i> {
    /// The scope.
    pub scope: &'i str,
    /// The plan.
    pub plan: Sha256Hash,
    /// The run.
    pub run: RunId,
    /// The dataset.
    pub id: DatasetId,
    /// The group's prefix.
    pub prefix: &'i str,
    /// Number of the batch within the run.
    pub batch: u64,
}

/// How many keys of a run ended in each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletionTotals {
    /// All keys asked for.
    pub requested: u64,
    /// Deleted.
    pub deleted: u64,
    /// Gone before.
    pub already_gone: u64,
    /// Not asked for after all.
    pub skipped: u64,
    /// Still there.
    pub failed: u64,
    /// Unknown.
    pub unconfirmed: u64,
    /// Bytes of the deleted.
    pub bytes: u64,
}

impl Ledger {
    /// Writes the intent to delete `objects`, as a whole or not at all. When this returns, it is on the disk.
    pub async fn intend(&self, intent: &Intent<'_>, objects: &[Object]) -> Result<(), RecordError> {
        self.write_rows(intent, objects, None).await
    }

    /// Notes objects of a plan that are not asked for, with the reason. An intent that may have been sent stays as it is.
    pub async fn skip(&self, intent: &Intent<'_>, objects: &[Object], reason: &str) -> Result<(), RecordError> {
        self.write_rows(intent, objects, Some(reason)).await
    }

    async fn write_rows(
        &self,
        intent: &Intent<'_>,
        objects: &[Object],
        skipped: Option<&str>,
    ) -> Result<(), RecordError> {
        let step = failed("write an intent");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        for object in objects {
            let insert = match skipped {
                None => {
                    "INSERT INTO intents (scope, key, plan_hash, run_id, id, prefix, batch, size_bytes, etag, last_modified, outcome, reason) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, '') ON CONFLICT (scope, key) DO UPDATE SET plan_hash = ?3, \
                     run_id = ?4, prefix = ?6, batch = ?7, size_bytes = ?8, etag = ?9, last_modified = ?10, outcome = NULL, reason = ''"
                }
                Some(_) => {
                    "INSERT INTO intents (scope, key, plan_hash, run_id, id, prefix, batch, size_bytes, etag, last_modified, outcome, reason) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'skipped', ?11) ON CONFLICT (scope, key) DO UPDATE SET plan_hash = ?3, \
                     run_id = ?4, prefix = ?6, batch = ?7, size_bytes = ?8, etag = ?9, last_modified = ?10, outcome = 'skipped', \
                     reason = ?11 WHERE outcome = 'skipped' OR plan_hash <> ?3"
                }
            };
            let query = sqlx::query(insert)
                .bind(intent.scope)
                .bind(object.key.as_str().as_bytes())
                .bind(intent.plan.to_string())
                .bind(intent.run.to_string())
                .bind(intent.id.0)
                .bind(intent.prefix.as_bytes())
                .bind(i64::try_from(intent.batch).unwrap_or(i64::MAX))
                .bind(i64::try_from(object.size_bytes).unwrap_or(i64::MAX))
                .bind(&object.etag)
                .bind(object.last_modified);
            let query = match skipped {
                Some(reason) => query.bind(reason),
                None => query,
            };
            query.execute(&mut *transaction).await.map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)
    }

    /// Writes the outcome of keys that were asked for. The run that first knows it tells it.
    pub async fn settle(
        &self,
        scope: &str,
        run: RunId,
        outcomes: &[(ObjectKey, KeyOutcome, String)],
    ) -> Result<(), RecordError> {
        let step = failed("write an outcome");
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&step)?;
        for (key, outcome, reason) in outcomes {
            sqlx::query(
                "UPDATE intents SET outcome = ?3, reason = ?4, \
                 run_id = CASE WHEN outcome IS NULL OR outcome = 'unconfirmed' THEN ?5 ELSE run_id END WHERE scope = ?1 AND key = ?2",
            )
                .bind(scope)
                .bind(key.as_str().as_bytes())
                .bind(outcome.as_str())
                .bind(reason)
                .bind(run.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(&step)?;
        }
        transaction.commit().await.map_err(&step)
    }

    /// Up to 1000 of a group's keys after `after` whose outcome needs a look: those without one, and those that are
    /// said to be gone.
    pub async fn to_verify(
        &self,
        scope: &str,
        plan: Sha256Hash,
        prefix: &str,
        after: Option<&ObjectKey>,
    ) -> Result<Vec<(Object, Option<String>)>, RecordError> {
        let step = failed("read the intents of a group");
        let rows = sqlx::query(
            "SELECT key, size_bytes, etag, last_modified, outcome FROM intents \
             WHERE scope = ?1 AND key >= ?2 AND key < ?3 AND key > ?4 AND prefix = ?2 AND plan_hash = ?5 \
             AND (outcome IS NULL OR outcome <> 'skipped') ORDER BY key LIMIT 1000",
        )
        .bind(scope)
        .bind(prefix.as_bytes())
        .bind(end_of(prefix))
        .bind(after.map_or(&b""[..], |key| key.as_str().as_bytes()))
        .bind(plan.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(&step)?;
        rows.iter().map(|row| Ok((read_object(row)?, row.try_get("outcome").map_err(&step)?))).collect()
    }

    /// Notes what became of a group of a plan: `gone`, or why not.
    pub async fn note_disposal(&self, intent: &Intent<'_>, outcome: &str, at: Timestamp) -> Result<(), RecordError> {
        sqlx::query(
            "INSERT INTO disposals (plan_hash, prefix, run_id, scope, id, outcome, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (plan_hash, prefix) DO UPDATE SET run_id = ?3, outcome = ?6, at = ?7",
        )
        .bind(intent.plan.to_string())
        .bind(intent.prefix.as_bytes())
        .bind(intent.run.to_string())
        .bind(intent.scope)
        .bind(intent.id.0)
        .bind(outcome)
        .bind(at)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed("note what became of a group"))
    }

    /// What became of an id's groups: run, plan, prefix, outcome, time.
    pub async fn disposals(
        &self,
        scope: &str,
        id: DatasetId,
    ) -> Result<Vec<(String, String, String, Timestamp)>, RecordError> {
        sqlx::query_as("SELECT run_id, plan_hash, outcome, at FROM disposals WHERE scope = ?1 AND id = ?2 ORDER BY at")
            .bind(scope)
            .bind(id.0)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read what became of an id"))
    }

    /// How the keys of a run ended.
    pub async fn deletion_totals(&self, run: RunId) -> Result<DeletionTotals, RecordError> {
        let step = failed("count the outcomes");
        let rows: Vec<(Option<String>, i64, i64)> = sqlx::query_as(
            "SELECT outcome, count(*), coalesce(sum(size_bytes), 0) FROM intents WHERE run_id = ?1 GROUP BY outcome",
        )
        .bind(run.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(&step)?;
        let mut totals = DeletionTotals::default();
        for (outcome, keys, bytes) in rows {
            let (keys, bytes) = (u64::try_from(keys).unwrap_or(0), u64::try_from(bytes).unwrap_or(0));
            totals.requested += keys;
            match outcome.as_deref() {
                Some("deleted") => {
                    totals.deleted += keys;
                    totals.bytes += bytes;
                }
                Some("already_gone") => totals.already_gone += keys,
                Some("skipped") => totals.skipped += keys,
                Some("failed") => totals.failed += keys,
                _ => totals.unconfirmed += keys,
            }
        }
        Ok(totals)
    }

    /// Up to 1000 lines of a run's `deletions.csv` after `after`.
    pub async fn deletion_rows(
        &self,
        scope: &str,
        run: RunId,
        after: Option<&str>,
    ) -> Result<Vec<DeletionRow>, RecordError> {
        let step = failed("read the outcomes");
        let rows =
            sqlx::query("SELECT * FROM intents WHERE scope = ?1 AND key > ?2 AND run_id = ?3 ORDER BY key LIMIT 1000")
                .bind(scope)
                .bind(after.unwrap_or_default().as_bytes())
                .bind(run.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(&step)?;
        rows.iter()
            .map(|row| {
                let object = read_object(row)?;
                let outcome: Option<String> = row.try_get("outcome").map_err(&step)?;
                let batch: i64 = row.try_get("batch").map_err(&step)?;
                Ok(DeletionRow {
                    key: object.key.as_str().to_owned(),
                    group: text(row, "prefix")?,
                    bytes: object.size_bytes,
                    outcome: outcome.unwrap_or_else(|| KeyOutcome::Unconfirmed.as_str().into()),
                    reason: row.try_get("reason").map_err(&step)?,
                    batch: u64::try_from(batch).unwrap_or(0),
                })
            })
            .collect()
    }

    /// Whether the journal has sent intents under any prefix of the scope, so that listings must be merged with them.
    pub async fn has_sent_intents(&self, scope: &str) -> Result<bool, RecordError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM intents WHERE scope = ?1 AND (outcome IS NULL OR outcome <> 'skipped'))",
        )
        .bind(scope)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("look for intents"))
    }

    /// The sent intents of one scope, for merging with its listings.
    pub fn sent_intents<'l>(&'l self, scope: &'l str) -> ScopeIntents<'l> {
        ScopeIntents { ledger: self, scope }
    }
}

/// The sent intents of one scope.
#[derive(Debug)]
pub struct ScopeIntents<'l> {
    ledger: &'l Ledger,
    scope: &'l str,
}

#[async_trait]
impl SentIntents for ScopeIntents<'_> {
    async fn sent_after(&self, prefix: &str, key: Option<&ObjectKey>) -> Result<Vec<Object>, RecordError> {
        let rows = sqlx::query(
            "SELECT key, size_bytes, etag, last_modified FROM intents WHERE scope = ?1 AND key >= ?2 AND key < ?3 AND key > ?4 \
             AND (outcome IS NULL OR outcome <> 'skipped') ORDER BY key LIMIT 1000",
        )
        .bind(self.scope)
        .bind(prefix.as_bytes())
        .bind(end_of(prefix))
        .bind(key.map_or(&b""[..], |key| key.as_str().as_bytes()))
        .fetch_all(&self.ledger.pool)
        .await
        .map_err(failed("read the intents of a group"))?;
        rows.iter().map(read_object).collect()
    }
}

/// The first key after every key that begins with `prefix`, which ends in `/`.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn text(row: &SqliteRow, column: &str) -> Result<String, RecordError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(failed("read a key"))?;
    String::from_utf8(bytes).map_err(|_| RecordError::Unreadable("a key"))
}

fn read_object(row: &SqliteRow) -> Result<Object, RecordError> {
    let step = failed("read an intent");
    let size: i64 = row.try_get("size_bytes").map_err(&step)?;
    Ok(Object {
        key: ObjectKey::new(text(row, "key")?),
        size_bytes: u64::try_from(size).unwrap_or(0),
        etag: row.try_get("etag").map_err(&step)?,
        last_modified: row.try_get("last_modified").map_err(&step)?,
    })
}
