//! The journal of deletion: intents before the request, one outcome per key after it.
//!
//! Invariant: a key is asked for only after its intent is on the disk; an intent without an outcome is settled by
//! looking whether the key is still there. Every change of a row is chained in its transaction.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use chrono::SecondsFormat;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::chain;
use super::chain::tally::{Tallies, Tally};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Statement, Transaction, statement, tuples};
use crate::list::content::SentIntents;
use crate::model::{ChunkDigest, DatasetId, DeletionRow, Object, ObjectKey, RunId, Sha256Hash, Timestamp};

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

/// What became of one group of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisposalRow {
    /// The run that last worked on it.
    pub run_id: String,
    /// The plan.
    pub plan_hash: String,
    /// The group's prefix.
    pub prefix: String,
    /// `gone`, or why not.
    pub outcome: String,
    /// When.
    pub at: Timestamp,
    /// How many objects of it the plan deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
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

impl DeletionTotals {
    /// Adds `keys` of `bytes` with this outcome; without one, nobody knows what became of them.
    pub fn add(&mut self, outcome: &str, keys: u64, bytes: u64) {
        self.requested += keys;
        match outcome {
            "deleted" => {
                self.deleted += keys;
                self.bytes = self.bytes.saturating_add(bytes);
            }
            "already_gone" => self.already_gone += keys,
            "skipped" => self.skipped += keys,
            "failed" => self.failed += keys,
            _ => self.unconfirmed += keys,
        }
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.requested += other.requested;
        self.deleted += other.deleted;
        self.already_gone += other.already_gone;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.unconfirmed += other.unconfirmed;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self
    }
}

/// Rows that one statement reads or writes.
const ROWS_AT_ONCE: usize = 500;
/// Rows that are counted or compacted at a time.
const ROWS_PER_PAGE: i64 = 1000;

/// A row of the journal.
#[derive(Debug, Clone)]
struct JournalRow {
    scope: String,
    key: Vec<u8>,
    plan_hash: String,
    run_id: String,
    id: Uuid,
    prefix: Vec<u8>,
    batch: i64,
    size_bytes: i64,
    etag: String,
    last_modified: Option<String>,
    outcome: Option<String>,
    reason: String,
}

/// The rows of plan `$1` that nobody needs any more once it is closed.
pub(super) const DONE_WITH: &str = "plan_hash = $1 AND run_id NOT IN (SELECT run_id FROM runs WHERE exit_code IS NULL) AND (outcome = 'skipped' OR (\
     id IN (SELECT id FROM disposals WHERE plan_hash = $1 AND outcome = 'gone') AND \
     id NOT IN (SELECT id FROM disposals WHERE plan_hash = $1 AND outcome <> 'gone')))";

const COLUMNS: &str =
    "scope, key, plan_hash, run_id, id, prefix, batch, size_bytes, etag, last_modified, outcome, reason";

impl JournalRow {
    fn new(intent: &Intent<'_>, object: &Object, skipped: Option<&str>) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            scope: intent.scope.to_owned(),
            key: object.key.as_str().as_bytes().to_vec(),
            plan_hash: intent.plan.to_string(),
            run_id: intent.run.to_string(),
            id: intent.id.0,
            prefix: intent.prefix.as_bytes().to_vec(),
            batch: signed(intent.batch),
            size_bytes: signed(object.size_bytes),
            etag: object.etag.clone(),
            last_modified: object.last_modified.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, false)),
            outcome: skipped.map(|_| KeyOutcome::Skipped.as_str().to_owned()),
            reason: skipped.unwrap_or_default().to_owned(),
        }
    }

    fn read(row: &Row) -> Result<Self, RecordError> {
        Ok(Self {
            scope: row.get("scope")?,
            key: row.get("key")?,
            plan_hash: row.get("plan_hash")?,
            run_id: row.get("run_id")?,
            id: row.get("id")?,
            prefix: row.get("prefix")?,
            batch: row.get("batch")?,
            size_bytes: row.get("size_bytes")?,
            etag: row.get("etag")?,
            last_modified: row.get("last_modified")?,
            outcome: row.get("outcome")?,
            reason: row.get("reason")?,
        })
    }

    fn bind(self, statement: Statement) -> Statement {
        statement
            .bind(self.scope)
            .bind(self.key)
            .bind(self.plan_hash)
            .bind(self.run_id)
            .bind(self.id)
            .bind(self.prefix)
            .bind(self.batch)
            .bind(self.size_bytes)
            .bind(self.etag)
            .bind(self.last_modified)
            .bind(self.outcome)
            .bind(self.reason)
    }

    /// The group that it counts in.
    fn group(&self) -> String {
        format!("{} {}", self.scope, String::from_utf8_lossy(&self.prefix))
    }

    /// What the chain knows of it: everything but who tells it.
    fn tally(&self) -> Tally {
        let (batch, size_bytes) = (self.batch.to_be_bytes(), self.size_bytes.to_be_bytes());
        let optional = |text: &Option<String>| text.as_ref().map_or(vec![0], |text| [&[1], text.as_bytes()].concat());
        Tally::of_row(&[
            self.scope.as_bytes(),
            &self.key,
            self.plan_hash.as_bytes(),
            self.id.as_bytes(),
            &self.prefix,
            &batch,
            &size_bytes,
            self.etag.as_bytes(),
            &optional(&self.last_modified),
            &optional(&self.outcome),
            self.reason.as_bytes(),
        ])
    }

    /// Whether a skip may stand in its place: what may have been sent by the same plan stays as it is.
    fn yields_to_a_skip(&self, plan_hash: &str) -> bool {
        self.outcome.as_deref() == Some(KeyOutcome::Skipped.as_str()) || self.plan_hash != plan_hash
    }

    /// Whether the run that settles it is the first to know what became of it.
    fn is_untold(&self) -> bool {
        self.outcome.as_deref().is_none_or(|outcome| outcome == KeyOutcome::Unconfirmed.as_str())
    }
}

/// Rows as they stand and as they will, by key, so that one statement writes many and the chain knows what changed.
#[derive(Debug, Default)]
struct Change {
    before: BTreeMap<Vec<u8>, JournalRow>,
    after: BTreeMap<Vec<u8>, JournalRow>,
}

impl Change {
    /// Reads what the journal has of these keys.
    async fn of<'k>(
        transaction: &mut Transaction,
        scope: &str,
        keys: impl Iterator<Item = &'k ObjectKey>,
        step: &'static str,
    ) -> Result<Self, RecordError> {
        let mut change = Self::default();
        let keys: Vec<&[u8]> = keys.map(|key| key.as_str().as_bytes()).collect();
        for keys in keys.chunks(ROWS_AT_ONCE) {
            let places: Vec<String> = (0..keys.len()).map(|place| format!("${}", place + 2)).collect();
            let select = format!("SELECT {COLUMNS} FROM intents WHERE scope = $1 AND key IN ({})", places.join(", "));
            let select = keys.iter().fold(statement(step, select).bind(scope), |select, key| select.bind(*key));
            for row in select.all(&mut *transaction).await? {
                let row = JournalRow::read(&row)?;
                change.before.insert(row.key.clone(), row);
            }
        }
        Ok(change)
    }

    /// The row of a key, as it will stand.
    fn row(&self, key: &[u8]) -> Option<&JournalRow> {
        self.after.get(key).or_else(|| self.before.get(key))
    }

    fn set(&mut self, row: JournalRow) {
        self.after.insert(row.key.clone(), row);
    }

    fn tallies(&self) -> Tallies {
        let mut tallies = Tallies::default();
        for (key, row) in &self.after {
            if let Some(before) = self.before.get(key) {
                tallies.add(&before.group(), before.tally().negated());
            }
            tallies.add(&row.group(), row.tally());
        }
        tallies
    }

    /// Writes the rows that change.
    async fn write(self, transaction: &mut Transaction, step: &'static str) -> Result<(), RecordError> {
        let rows: Vec<JournalRow> = self.after.into_values().collect();
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let upsert = format!(
                "INSERT INTO intents ({COLUMNS}) VALUES {} ON CONFLICT (scope, key) DO UPDATE SET plan_hash = excluded.plan_hash, \
                 run_id = excluded.run_id, id = excluded.id, prefix = excluded.prefix, batch = excluded.batch, \
                 size_bytes = excluded.size_bytes, etag = excluded.etag, last_modified = excluded.last_modified, \
                 outcome = excluded.outcome, reason = excluded.reason",
                tuples(rows.len(), 12)
            );
            let upsert = rows.iter().cloned().fold(statement(step, upsert), |upsert, row| row.bind(upsert));
            upsert.run(&mut *transaction).await?;
        }
        Ok(())
    }
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
        const STEP: &str = "write an intent";
        let mut transaction = self.begin(STEP).await?;
        let keys = objects.iter().map(|object| &object.key);
        let mut change = Change::of(&mut transaction, intent.scope, keys, STEP).await?;
        let mut written = ChunkDigest::default();
        for object in objects {
            let row = JournalRow::new(intent, object, skipped);
            let stays = |before: &JournalRow| skipped.is_some() && !before.yields_to_a_skip(&row.plan_hash);
            if !change.row(&row.key).is_some_and(stays) {
                written.add(object);
                change.set(row);
            }
        }
        if !change.after.is_empty() {
            let payload = json!({
                "scope": intent.scope, "run": intent.run.to_string(), "id": intent.id.0, "prefix": intent.prefix,
                "batch": intent.batch, "count": change.after.len(), "digest": written.finish(), "reason": skipped,
                "change": change.tallies().to_json(),
            });
            let kind = if skipped.is_some() { "intents.skipped" } else { "intents.written" };
            change.write(&mut transaction, STEP).await?;
            chain::append(&mut transaction, kind, &intent.plan.to_string(), &payload).await?;
        }
        transaction.commit(STEP).await
    }

    /// Writes the outcome of keys that were asked for. The run that first knows it tells it; what has one was not skipped.
    pub async fn settle(
        &self,
        scope: &str,
        run: RunId,
        outcomes: &[(ObjectKey, KeyOutcome, String)],
    ) -> Result<(), RecordError> {
        const STEP: &str = "write an outcome";
        if outcomes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin(STEP).await?;
        let keys = outcomes.iter().map(|(key, ..)| key);
        let mut change = Change::of(&mut transaction, scope, keys, STEP).await?;
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut settled = Sha256::new();
        for (key, outcome, reason) in outcomes {
            let Some(before) = change.row(key.as_str().as_bytes()) else { continue };
            if *outcome == KeyOutcome::Skipped && before.outcome.is_some() {
                continue;
            }
            let run_id = if before.is_untold() { run.to_string() } else { before.run_id.clone() };
            let row = JournalRow {
                run_id,
                outcome: Some(outcome.as_str().to_owned()),
                reason: reason.clone(),
                ..before.clone()
            };
            for field in [&row.key, outcome.as_str().as_bytes(), reason.as_bytes()] {
                settled.update((field.len() as u64).to_be_bytes());
                settled.update(field);
            }
            *counts.entry(outcome.as_str()).or_default() += 1;
            change.set(row);
        }
        if !change.after.is_empty() {
            let digest = Sha256Hash(settled.finalize().into());
            let payload = json!({
                "scope": scope, "counts": counts, "digest": digest, "change": change.tallies().to_json(),
            });
            change.write(&mut transaction, STEP).await?;
            chain::append(&mut transaction, "intents.settled", &run.to_string(), &payload).await?;
        }
        transaction.commit(STEP).await
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
        let select = "SELECT key, size_bytes, etag, last_modified, outcome FROM intents \
                      WHERE scope = $1 AND key >= $2 AND key < $3 AND key > $4 AND prefix = $2 AND plan_hash = $5 \
                      AND (outcome IS NULL OR outcome <> 'skipped') ORDER BY key LIMIT 1000";
        let select = statement("read the intents of a group", select)
            .bind(scope)
            .bind(prefix.as_bytes())
            .bind(end_of(prefix))
            .bind(after.map_or(&b""[..], |key| key.as_str().as_bytes()))
            .bind(plan);
        let rows = select.all(&self.database).await?;
        rows.iter().map(|row| Ok((read_object(row)?, row.get("outcome")?))).collect()
    }

    /// At which keys of `objects` lies another object than the plan asked for there, and whether it is known what became of that one:
    /// it must stand.
    pub async fn written_anew(
        &self,
        scope: &str,
        plan: Sha256Hash,
        objects: &[Object],
    ) -> Result<HashMap<ObjectKey, bool>, RecordError> {
        let mut anew = HashMap::new();
        for objects in objects.chunks(ROWS_AT_ONCE) {
            let places: Vec<String> = (0..objects.len()).map(|place| format!("${}", place + 3)).collect();
            let select = format!(
                "SELECT key, size_bytes, etag, last_modified, outcome FROM intents WHERE scope = $1 AND plan_hash = $2 \
                 AND (outcome IS NULL OR outcome <> 'skipped') AND key IN ({})",
                places.join(", ")
            );
            let select = statement("look for keys that were written anew", select).bind(scope).bind(plan);
            let select = objects.iter().fold(select, |select, object| select.bind(object.key.as_str().as_bytes()));
            let by_key: BTreeMap<&ObjectKey, &Object> = objects.iter().map(|object| (&object.key, object)).collect();
            for row in select.all(&self.database).await? {
                let (asked_for, outcome) = (read_object(&row)?, row.get::<Option<String>>("outcome")?);
                if by_key.get(&asked_for.key) != Some(&&asked_for) {
                    anew.insert(asked_for.key, outcome.is_some());
                }
            }
        }
        Ok(anew)
    }

    /// Notes what became of a group of a plan, `gone` or why not, and how much of it the plan deleted.
    pub async fn note_disposal(&self, intent: &Intent<'_>, outcome: &str, at: Timestamp) -> Result<(), RecordError> {
        const STEP: &str = "note what became of a group";
        let select = "SELECT count(*) AS objects, CAST(coalesce(sum(size_bytes), 0) AS BIGINT) AS size_bytes FROM intents \
                      WHERE scope = $1 AND key >= $2 AND key < $3 AND plan_hash = $4 AND outcome = 'deleted'";
        let deleted = statement(STEP, select)
            .bind(intent.scope)
            .bind(intent.prefix.as_bytes())
            .bind(end_of(intent.prefix))
            .bind(intent.plan)
            .one(&self.database)
            .await?;
        let upsert = "INSERT INTO disposals (plan_hash, prefix, run_id, scope, id, outcome, at, objects, size_bytes) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (plan_hash, prefix) DO UPDATE SET \
                      run_id = $3, outcome = $6, at = $7, objects = $8, size_bytes = $9";
        statement(STEP, upsert)
            .bind(intent.plan)
            .bind(intent.prefix.as_bytes())
            .bind(intent.run)
            .bind(intent.scope)
            .bind(intent.id)
            .bind(outcome)
            .bind(at)
            .bind(deleted.count("objects")?)
            .bind(deleted.count("size_bytes")?)
            .run(&self.database)
            .await
            .map(drop)
    }

    /// What became of an id's groups, the oldest first.
    pub async fn disposals(&self, scope: &str, id: DatasetId) -> Result<Vec<DisposalRow>, RecordError> {
        let select = "SELECT * FROM disposals WHERE scope = $1 AND id = $2 ORDER BY at, prefix";
        let rows = statement("read what became of an id", select).bind(scope).bind(id).all(&self.database).await?;
        rows.iter()
            .map(|row| {
                Ok(DisposalRow {
                    run_id: row.get("run_id")?,
                    plan_hash: row.get("plan_hash")?,
                    prefix: text(row, "prefix")?,
                    outcome: row.get("outcome")?,
                    at: row.get("at")?,
                    objects: row.count("objects")?,
                    bytes: row.count("size_bytes")?,
                })
            })
            .collect()
    }

    /// How the keys of a run ended.
    pub async fn deletion_totals(&self, run: RunId) -> Result<DeletionTotals, RecordError> {
        let select = "SELECT outcome, count(*) AS keys, CAST(coalesce(sum(size_bytes), 0) AS BIGINT) AS bytes \
                      FROM intents WHERE run_id = $1 GROUP BY outcome";
        let mut totals = DeletionTotals::default();
        for row in statement("count the outcomes", select).bind(run).all(&self.database).await? {
            let outcome: Option<String> = row.get("outcome")?;
            totals.add(outcome.as_deref().unwrap_or_default(), row.count("keys")?, row.count("bytes")?);
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
        let select = "SELECT * FROM intents WHERE scope = $1 AND key > $2 AND run_id = $3 ORDER BY key LIMIT 1000";
        let select =
            statement("read the outcomes", select).bind(scope).bind(after.unwrap_or_default().as_bytes()).bind(run);
        let read = |row: &Row| {
            let object = read_object(row)?;
            let outcome: Option<String> = row.get("outcome")?;
            Ok(DeletionRow {
                key: object.key.as_str().to_owned(),
                group: text(row, "prefix")?,
                bytes: object.size_bytes,
                outcome: outcome.unwrap_or_else(|| KeyOutcome::Unconfirmed.as_str().into()),
                reason: row.get("reason")?,
                batch: row.count("batch")?,
            })
        };
        select.all(&self.database).await?.iter().map(read).collect()
    }

    /// Whether the journal has sent intents under any prefix of the scope, so that listings must be merged with them.
    pub async fn has_sent_intents(&self, scope: &str) -> Result<bool, RecordError> {
        let select = "SELECT 1 FROM intents WHERE scope = $1 AND (outcome IS NULL OR outcome <> 'skipped') LIMIT 1";
        Ok(statement("look for intents", select).bind(scope).optional(&self.database).await?.is_some())
    }

    /// The sent intents of one scope, for merging with its listings.
    pub fn sent_intents<'l>(&'l self, scope: &'l str) -> ScopeIntents<'l> {
        ScopeIntents { ledger: self, scope }
    }
}

/// Lets a run tell what a dead one of the same plan left without a report.
pub(super) async fn take_over(
    transaction: &mut Transaction,
    plan: Sha256Hash,
    dead: &str,
    run: RunId,
) -> Result<(), RecordError> {
    let update = "UPDATE intents SET run_id = $3 WHERE plan_hash = $1 AND run_id = $2";
    statement("take over the intents of a dead run", update)
        .bind(plan)
        .bind(dead)
        .bind(run)
        .run(transaction)
        .await
        .map(drop)
}

/// Removes the rows of the journal for which `condition` holds, with `value` as its `$1`, and chains that they are gone: a
/// row is never deleted in any other way. `subject` says for the sake of what.
pub(super) async fn compact(
    transaction: &mut Transaction,
    subject: &str,
    condition: &str,
    value: &str,
) -> Result<u64, RecordError> {
    const STEP: &str = "compact the journal";
    let mut compacted = 0;
    let mut last: (String, Vec<u8>) = Default::default();
    loop {
        let delete = format!(
            "DELETE FROM intents WHERE (scope, key) IN (SELECT scope, key FROM intents WHERE ({condition}) \
             AND (scope, key) > ($2, $3) ORDER BY scope, key LIMIT $4) RETURNING {COLUMNS}"
        );
        let delete = statement(STEP, delete).bind(value).bind(&last.0).bind(&last.1[..]).bind(ROWS_PER_PAGE);
        let rows = delete.all(&mut *transaction).await?;
        let mut change = Tallies::default();
        for row in &rows {
            let row = JournalRow::read(row)?;
            change.add(&row.group(), row.tally().negated());
            last = last.max((row.scope, row.key));
        }
        if rows.is_empty() {
            return Ok(compacted);
        }
        compacted += rows.len() as u64;
        let payload = json!({ "count": rows.len(), "change": change.to_json() });
        chain::append(transaction, "intents.compacted", subject, &payload).await?;
    }
}

/// Counts every row of the journal, by group.
pub(super) async fn tally_intents(transaction: &mut Transaction) -> Result<Tallies, RecordError> {
    let mut tallies = Tallies::default();
    let mut last: (String, Vec<u8>) = Default::default();
    loop {
        let select = format!(
            "SELECT {COLUMNS} FROM intents WHERE (scope, key) > ($1, $2) ORDER BY scope, key LIMIT {ROWS_PER_PAGE}"
        );
        let select = statement("count the journal", select).bind(&last.0).bind(&last.1[..]);
        let rows = select.all(&mut *transaction).await?;
        for row in &rows {
            let row = JournalRow::read(row)?;
            tallies.add(&row.group(), row.tally());
            last = (row.scope, row.key);
        }
        if rows.is_empty() {
            return Ok(tallies);
        }
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
        let select = "SELECT key, size_bytes, etag, last_modified FROM intents WHERE scope = $1 AND key >= $2 AND key < $3 AND key > $4 \
                      AND (outcome IS NULL OR outcome <> 'skipped') ORDER BY key LIMIT 1000";
        let select = statement("read the intents of a group", select)
            .bind(self.scope)
            .bind(prefix.as_bytes())
            .bind(end_of(prefix))
            .bind(key.map_or(&b""[..], |key| key.as_str().as_bytes()));
        select.all(&self.ledger.database).await?.iter().map(read_object).collect()
    }
}

/// The first key after every key that begins with `prefix`, which ends in `/`.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn text(row: &Row, column: &str) -> Result<String, RecordError> {
    String::from_utf8(row.get(column)?).map_err(|_| RecordError::Unreadable("a key"))
}

fn read_object(row: &Row) -> Result<Object, RecordError> {
    let last_modified: Option<String> = row.get("last_modified")?;
    let read = |time: String| time.parse().map_err(|_| RecordError::Unreadable("an object's time"));
    Ok(Object {
        key: ObjectKey::new(text(row, "key")?),
        size_bytes: row.count("size_bytes")?,
        etag: row.get("etag")?,
        last_modified: last_modified.map(read).transpose()?,
    })
}
