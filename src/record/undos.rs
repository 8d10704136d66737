//! What deleting runs left that can be brought back, and the journal of its end.
//!
//! Invariant: a run is noted here before its first object is copied or marked, so that no copy is ever lost sight of; a copy
//! is asked to go only after its own intent is on the disk.

use std::time::Duration;

use serde_json::json;

use super::chain::{self, tracked};
use super::journal::KeyOutcome;
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement, tuples};
use crate::model::{ChunkDigest, DatasetId, Object, ObjectKey, RunId, Sha256Hash, Timestamp};

/// How what a run deleted can be brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoKind {
    /// Copies lie in a quarantine.
    Quarantine,
    /// The bucket keeps versions beneath markers.
    Versions,
}

impl UndoKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Versions => "versions",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Quarantine, Self::Versions].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What a deleting run leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// The run.
    pub run: RunId,
    /// Its scope.
    pub scope: String,
    /// The plan that it began with; a sweep may have applied others after it.
    pub plan: Sha256Hash,
    /// How it can be undone.
    pub kind: UndoKind,
    /// The bucket of the copies or of the versions.
    pub bucket: String,
    /// The prefix of the copies, or of the scope.
    pub prefix: String,
    /// When it began, by the store's clock.
    pub began_at: Timestamp,
    /// When it ended, by the store's clock; none where its process died.
    pub ended_at: Option<Timestamp>,
    /// How long it is kept at least: as it was configured when the run began.
    pub keep: Option<Duration>,
    /// Whether its copies are still there.
    pub is_kept: bool,
}

/// How the copies of a run of the reaper ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReapingTotals {
    /// Copies that are gone.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that are still there.
    pub failed: u64,
}

/// Rows of one statement: far below what either kind of ledger allows.
const ROWS_AT_ONCE: usize = 100;

impl Ledger {
    /// Notes what a run is about to leave; what it leaves by another plan is part of it.
    pub async fn begin_undo(&self, undo: &Undo) -> Result<(), RecordError> {
        let step = "note what can be undone";
        let mut transaction = self.begin(step).await?;
        let begun = statement(
            step,
            "INSERT INTO undos (run_id, scope, plan_hash, kind, bucket, prefix, began_at, keep_s, state) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'kept') ON CONFLICT (run_id) DO NOTHING",
        )
        .bind(undo.run)
        .bind(&undo.scope)
        .bind(undo.plan)
        .bind(undo.kind.as_str())
        .bind(&undo.bucket)
        .bind(undo.prefix.as_bytes())
        .bind(undo.began_at)
        .bind(undo.keep.map(|keep| keep.as_secs()))
        .run(&mut transaction)
        .await?;
        if begun > 0 {
            tracked::note(&mut transaction, &tracked::UNDOS, "began", &undo.run.to_string()).await?;
        }
        transaction.commit(step).await
    }

    /// Takes over what dead runs left without a report: the report of `run` tells it.
    pub async fn take_over_undos(&self, run: RunId, unreported: &[String]) -> Result<(), RecordError> {
        let step = "take over what dead runs left";
        let mut transaction = self.begin(step).await?;
        for dead in unreported.iter().filter(|dead| **dead != run.to_string()) {
            let sql = "SELECT run_id FROM undos WHERE run_id = $1 OR told_by = $1";
            for row in statement(step, sql).bind(dead).all(&mut transaction).await? {
                let left: String = row.get("run_id")?;
                let update = statement(step, "UPDATE undos SET told_by = $2 WHERE run_id = $1").bind(&left).bind(run);
                update.run(&mut transaction).await?;
                tracked::note(&mut transaction, &tracked::UNDOS, "taken_over", &left).await?;
            }
        }
        transaction.commit(step).await
    }

    /// Notes that a run which ended goes on.
    pub async fn go_on_with_undo(&self, run: RunId) -> Result<(), RecordError> {
        let step = "note that a deletion goes on";
        let mut transaction = self.begin(step).await?;
        let update = statement(step, "UPDATE undos SET ended_at = NULL WHERE run_id = $1").bind(run);
        if update.run(&mut transaction).await? > 0 {
            tracked::note(&mut transaction, &tracked::UNDOS, "goes_on", &run.to_string()).await?;
        }
        transaction.commit(step).await
    }

    /// Notes when a deleting run ended.
    pub async fn end_undo(&self, run: RunId, at: Timestamp) -> Result<(), RecordError> {
        let step = "note the end of a deletion";
        let mut transaction = self.begin(step).await?;
        let update = statement(step, "UPDATE undos SET ended_at = $2 WHERE run_id = $1").bind(run).bind(at);
        if update.run(&mut transaction).await? > 0 {
            tracked::note(&mut transaction, &tracked::UNDOS, "ended", &run.to_string()).await?;
        }
        transaction.commit(step).await
    }

    /// What a run left, and what the dead runs left that its report tells; its own first.
    pub async fn undos_of(&self, run: &str) -> Result<Vec<Undo>, RecordError> {
        let sql = "SELECT * FROM undos WHERE run_id = $1 OR told_by = $1 ORDER BY CASE WHEN run_id = $1 THEN 0 ELSE 1 END, began_at DESC";
        let rows = statement("read what can be undone", sql).bind(run).all(&self.database).await?;
        rows.iter().map(read_undo).collect()
    }

    /// The quarantines of a scope that were not emptied yet, the oldest first.
    pub async fn kept_quarantines(&self, scope: &str) -> Result<Vec<Undo>, RecordError> {
        let sql =
            "SELECT * FROM undos WHERE scope = $1 AND state = 'kept' AND kind = 'quarantine' ORDER BY began_at, run_id";
        let rows = statement("read the quarantines", sql).bind(scope).all(&self.database).await?;
        rows.iter().map(read_undo).collect()
    }

    /// The groups of the plans that these runs worked on: id and prefix. Which run disposed of a group, it does not tell: the last
    /// that worked on it stands for all.
    pub async fn disposed_groups(&self, scope: &str, runs: &[RunId]) -> Result<Vec<(DatasetId, String)>, RecordError> {
        let mut groups = Vec::new();
        let plans =
            "(SELECT plan_hash FROM undos WHERE run_id = $2 UNION SELECT plan_hash FROM plan_steps WHERE run_id = $2)";
        let sql = format!(
            "SELECT id, prefix FROM disposals WHERE scope = $1 AND plan_hash IN {plans} \
             UNION SELECT id, prefix FROM intents WHERE scope = $1 AND plan_hash IN {plans}"
        );
        for run in runs {
            let rows = statement("read what was disposed of", sql.clone()).bind(scope).bind(*run);
            for row in rows.all(&self.database).await? {
                groups.push((DatasetId(row.get("id")?), text(row.get("prefix")?)?));
            }
        }
        groups.sort_by(|a, b| a.1.cmp(&b.1));
        groups.dedup_by(|a, b| a.1 == b.1);
        Ok(groups)
    }

    /// Notes that copies in the quarantine of `run` are not proven: `keys` are the originals'. When this returns, it is on the disk.
    pub async fn doubt_copies(&self, run: RunId, keys: &[&ObjectKey]) -> Result<(), RecordError> {
        let step = "note copies that are not proven";
        let mut transaction = self.begin(step).await?;
        for keys in keys.chunks(ROWS_AT_ONCE) {
            let sql = format!(
                "INSERT INTO doubted_copies (run_id, key) VALUES {} ON CONFLICT DO NOTHING",
                tuples(keys.len(), 2)
            );
            let insert = keys.iter().fold(statement(step, sql), |sql, key| sql.bind(run).bind(key.as_str().as_bytes()));
            insert.run(&mut transaction).await?;
        }
        transaction.commit(step).await
    }

    /// Notes that these copies are proven.
    pub async fn trust_copies(&self, run: RunId, keys: &[&ObjectKey]) -> Result<(), RecordError> {
        let step = "note copies that are proven";
        let mut transaction = self.begin(step).await?;
        for keys in keys.chunks(ROWS_AT_ONCE) {
            let places: Vec<String> = (0..keys.len()).map(|place| format!("${}", place + 2)).collect();
            let sql = format!("DELETE FROM doubted_copies WHERE run_id = $1 AND key IN ({})", places.join(", "));
            let delete = statement(step, sql).bind(run);
            keys.iter().fold(delete, |sql, key| sql.bind(key.as_str().as_bytes())).run(&mut transaction).await?;
        }
        transaction.commit(step).await
    }

    /// Whether the copy of `key` in the quarantine of `run` was not proven.
    pub async fn is_copy_doubted(&self, run: RunId, key: &ObjectKey) -> Result<bool, RecordError> {
        let sql = "SELECT 1 FROM doubted_copies WHERE run_id = $1 AND key = $2";
        let read = statement("look for a copy that is not proven", sql).bind(run).bind(key.as_str().as_bytes());
        Ok(read.optional(&self.database).await?.is_some())
    }

    /// Writes the intent of `run` to delete copies of a quarantine. When this returns, it is on the disk.
    pub async fn intend_reaping(&self, quarantine: RunId, run: RunId, copies: &[Object]) -> Result<(), RecordError> {
        let step = "write an intent of the reaper";
        let mut transaction = self.begin(step).await?;
        let mut digest = ChunkDigest::default();
        copies.iter().for_each(|copy| digest.add(copy));
        let bytes = copies.iter().fold(0_u64, |bytes, copy| bytes.saturating_add(copy.size_bytes));
        let batch =
            json!({ "run": run.to_string(), "copies": copies.len(), "bytes": bytes, "digest": digest.finish() });
        chain::append(&mut transaction, "reaping", &quarantine.to_string(), &batch).await?;
        for chunk in copies.chunks(ROWS_AT_ONCE) {
            let sql = format!(
                "INSERT INTO reapings (quarantine, key, run_id, size_bytes, etag, last_modified) VALUES {} \
                 ON CONFLICT (quarantine, key) DO UPDATE SET run_id = excluded.run_id, size_bytes = excluded.size_bytes, \
                 etag = excluded.etag, last_modified = excluded.last_modified, outcome = NULL, reason = ''",
                tuples(chunk.len(), 6)
            );
            let mut insert = statement(step, sql);
            for copy in chunk {
                insert = insert
                    .bind(quarantine)
                    .bind(copy.key.as_str().as_bytes())
                    .bind(run)
                    .bind(copy.size_bytes)
                    .bind(&copy.etag)
                    .bind(copy.last_modified);
            }
            insert.run(&mut transaction).await?;
        }
        transaction.commit(step).await
    }

    /// Writes the outcome of copies that were asked for. The run that first knows it tells it.
    pub async fn settle_reaping(
        &self,
        quarantine: RunId,
        run: RunId,
        outcomes: &[(ObjectKey, KeyOutcome, String)],
    ) -> Result<(), RecordError> {
        let step = "write an outcome of the reaper";
        let mut transaction = self.begin(step).await?;
        for (key, outcome, reason) in outcomes {
            statement(
                step,
                "UPDATE reapings SET outcome = $3, reason = $4, \
                 run_id = CASE WHEN outcome IS NULL OR outcome = 'unconfirmed' THEN $5 ELSE run_id END \
                 WHERE quarantine = $1 AND key = $2",
            )
            .bind(quarantine)
            .bind(key.as_str().as_bytes())
            .bind(outcome.as_str())
            .bind(reason)
            .bind(run)
            .run(&mut transaction)
            .await?;
        }
        transaction.commit(step).await
    }

    /// Up to 1000 copies of a quarantine after `after` that were asked for and whose outcome needs a look.
    pub async fn reapings_to_verify(
        &self,
        quarantine: RunId,
        after: Option<&ObjectKey>,
    ) -> Result<Vec<(Object, Option<String>)>, RecordError> {
        let sql = "SELECT key, size_bytes, etag, last_modified, outcome FROM reapings \
                   WHERE quarantine = $1 AND key > $2 AND (outcome IS NULL OR outcome <> 'skipped') ORDER BY key LIMIT 1000";
        let rows = statement("read the intents of the reaper", sql)
            .bind(quarantine)
            .bind(after.map_or(&b""[..], |key| key.as_str().as_bytes()))
            .all(&self.database)
            .await?;
        rows.iter().map(|row| Ok((read_object(row)?, row.get("outcome")?))).collect()
    }

    /// How the copies that a run of the reaper asked for ended.
    pub async fn reaping_totals(&self, run: RunId) -> Result<ReapingTotals, RecordError> {
        let sql = "SELECT outcome, count(*) AS copies, CAST(coalesce(sum(size_bytes), 0) AS BIGINT) AS bytes FROM reapings \
                   WHERE run_id = $1 GROUP BY outcome";
        let rows = statement("count the outcomes of the reaper", sql).bind(run).all(&self.database).await?;
        let mut totals = ReapingTotals::default();
        for row in rows {
            let (copies, bytes) = (row.count("copies")?, row.count("bytes")?);
            match row.get::<Option<String>>("outcome")?.as_deref() {
                Some("deleted" | "already_gone") => {
                    totals.objects += copies;
                    totals.bytes += bytes;
                }
                Some("skipped") => {}
                _ => totals.failed += copies,
            }
        }
        Ok(totals)
    }

    /// The runs of the reaper that wrote to the journal of a scope's quarantines and did not come to their end.
    pub async fn unfinished_reapers(&self, scope: &str) -> Result<Vec<String>, RecordError> {
        let sql = "SELECT DISTINCT reapings.run_id AS run_id FROM reapings JOIN undos ON undos.run_id = reapings.quarantine \
                   JOIN runs ON runs.run_id = reapings.run_id WHERE undos.scope = $1 AND runs.exit_code IS NULL";
        let rows = statement("read the runs of the reaper", sql).bind(scope).all(&self.database).await?;
        rows.iter().map(|row| row.get("run_id")).collect()
    }

    /// Takes over what a dead run of the reaper left without a report.
    pub async fn take_over_reapings(&self, dead: &str, run: RunId) -> Result<(), RecordError> {
        let sql = "UPDATE reapings SET run_id = $2 WHERE run_id = $1";
        let update = statement("take over what a dead run reaped", sql).bind(dead).bind(run);
        update.run(&self.database).await.map(drop)
    }

    /// Notes that a quarantine is empty; what is left of its journal is dropped once the run is told.
    pub async fn close_quarantine(&self, quarantine: RunId, by: RunId, at: Timestamp) -> Result<(), RecordError> {
        let step = "note that a quarantine is empty";
        let mut transaction = self.begin(step).await?;
        let sql = "UPDATE undos SET state = 'reaped', reaped_at = $2, reaped_by = $3 WHERE run_id = $1";
        statement(step, sql).bind(quarantine).bind(at).bind(by).run(&mut transaction).await?;
        tracked::note(&mut transaction, &tracked::UNDOS, "reaped", &quarantine.to_string()).await?;
        transaction.commit(step).await
    }

    /// Chains what a restore brought back, and what a sweep reaped.
    pub async fn note_undone(&self, what: &str, run: RunId, told: &serde_json::Value) -> Result<(), RecordError> {
        let step = "chain what was undone";
        let mut transaction = self.begin(step).await?;
        chain::append(&mut transaction, what, &run.to_string(), told).await?;
        transaction.commit(step).await
    }

    /// Drops the journal of quarantines that are empty, what was noted of their copies, and who was wanted where nothing lies in
    /// quarantine any more.
    pub async fn compact_reapings(&self) -> Result<(), RecordError> {
        let step = "compact the journal of the reaper";
        let mut transaction = self.begin(step).await?;
        for sql in [
            // What a run that died asked for waits for the report that tells it.
            "DELETE FROM reapings WHERE quarantine IN (SELECT run_id FROM undos WHERE state = 'reaped') \
             AND run_id NOT IN (SELECT run_id FROM runs WHERE exit_code IS NULL)",
            "DELETE FROM doubted_copies WHERE run_id IN (SELECT run_id FROM undos WHERE state = 'reaped')",
            "DELETE FROM wanted_ids WHERE scope NOT IN (SELECT scope FROM undos WHERE kind = 'quarantine' AND state = 'kept')",
        ] {
            statement(step, sql).run(&mut transaction).await?;
        }
        transaction.commit(step).await
    }
}

fn text(bytes: Vec<u8>) -> Result<String, RecordError> {
    String::from_utf8(bytes).map_err(|_| RecordError::Unreadable("a key"))
}

fn read_object(row: &Row) -> Result<Object, RecordError> {
    Ok(Object {
        key: ObjectKey::new(text(row.get("key")?)?),
        size_bytes: row.count("size_bytes")?,
        etag: row.get("etag")?,
        last_modified: row.get("last_modified")?,
    })
}

fn read_undo(row: &Row) -> Result<Undo, RecordError> {
    let run: String = row.get("run_id")?;
    let plan: String = row.get("plan_hash")?;
    let kind: String = row.get("kind")?;
    let state: String = row.get("state")?;
    let keep_s: Option<i64> = row.get("keep_s")?;
    Ok(Undo {
        run: RunId(uuid::Uuid::parse_str(&run).map_err(|_| RecordError::Unreadable("a run id"))?),
        scope: row.get("scope")?,
        plan: Sha256Hash::parse(&plan).ok_or(RecordError::Unreadable("a plan's hash"))?,
        kind: UndoKind::named(&kind).ok_or(RecordError::Unreadable("a way to undo"))?,
        bucket: row.get("bucket")?,
        prefix: text(row.get("prefix")?)?,
        began_at: row.get("began_at")?,
        ended_at: row.get("ended_at")?,
        keep: keep_s.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        is_kept: state == "kept",
    })
}
