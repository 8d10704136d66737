//! The purges: what a person had removed from the platform, and whether the platform's own transaction did it.
//!
//! Invariant: a purge is noted before its transaction commits, with all that tells later whether it did, and whose rows they
//! were; no object is asked for before its state says `committed`.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::chain::tracked::{PURGES, note};
use super::journal;
use super::ledger::{Ledger, RecordError};
use super::runs::{RunStart, insert_run};
use super::sql::{Row, Transaction, statement};
use crate::decide::breakers::{PurgedRows, TargetFingerprint};
use crate::list::references::Anchor;
use crate::model::{DatabaseIdentity, DatasetId, RunId, Sha256Hash, Timestamp};

/// Where a purge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeState {
    /// Its transaction may have committed, or not.
    Intended,
    /// Its rows are gone; its objects are being removed.
    Committed,
    /// It is over; what is left is an orphan.
    Done,
    /// Its transaction did not commit: nothing was changed.
    Aborted,
    /// Nobody can tell whether its transaction committed; what is left is an orphan, if it is one.
    Unknown,
}

impl PurgeState {
    const ALL: [Self; 5] = [Self::Intended, Self::Committed, Self::Done, Self::Aborted, Self::Unknown];

    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Committed => "committed",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something is still to be done.
    pub fn is_pending(self) -> bool {
        match self {
            Self::Intended | Self::Committed => true,
            Self::Done | Self::Aborted | Self::Unknown => false,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What a purge is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeSubject {
    /// A dataset.
    Dataset(DatasetId),
    /// A job.
    Job(Uuid),
}

impl PurgeSubject {
    fn kind(self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Job(_) => "job",
        }
    }

    /// Its id.
    pub fn id(self) -> Uuid {
        match self {
            Self::Dataset(id) => id.0,
            Self::Job(id) => id,
        }
    }
}

/// A dataset whose row is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgedDataset {
    /// Its id.
    pub id: DatasetId,
    /// Its type, as the platform calls it.
    pub kind: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Whether such datasets have objects.
    pub has_objects: bool,
}

/// What the row of a job said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgedJob {
    /// The status that it had.
    pub status: String,
    /// Whether it still ran, and was cancelled.
    pub was_cancelled: bool,
    /// Datasets that stay without it.
    pub detached: u64,
}

/// What was known when the rows were removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeEvidence {
    /// What every later look at the database is compared with.
    pub anchor: Anchor,
    /// The time that holds are judged at.
    pub as_of: Timestamp,
    /// The datasets that go.
    pub datasets: Vec<PurgedDataset>,
    /// The job, where it is one's.
    pub job: Option<PurgedJob>,
    /// Rows of the datasets in each live table, before.
    pub rows: BTreeMap<String, u64>,
    /// When those rows were made, by table, where it tells: how many for each time.
    #[serde(default)]
    pub made: BTreeMap<String, BTreeMap<Timestamp, u64>>,
    /// Where the objects of the datasets lie. One that an earlier version began does not say.
    #[serde(default)]
    pub target: Option<TargetFingerprint>,
}

/// A purge as the ledger remembers it.
#[derive(Debug, Clone, PartialEq)]
pub struct PurgeRow {
    /// Its run.
    pub run: RunId,
    /// Its scope.
    pub scope: String,
    /// What it is about.
    pub subject: PurgeSubject,
    /// Where it stands.
    pub state: PurgeState,
    /// The platform's transaction.
    pub xid: u64,
    /// What was known.
    pub evidence: PurgeEvidence,
    /// Rows of each live table that it removed, once that is known.
    pub removed: Option<BTreeMap<String, u64>>,
    /// Whether it was told, in the log and to the platform, that they are gone.
    pub is_told: bool,
    /// When it began, by the host's clock.
    pub began_at: Timestamp,
}

impl PurgeRow {
    /// Whether it removed rows of this scope, or of a table that the scope reads from the same database.
    pub fn is_of_rows(&self, scope: &str, identity: &DatabaseIdentity) -> bool {
        let own = &self.evidence.anchor.identity;
        let shares_table = own.tables.iter().any(|table| identity.tables.contains(table));
        self.scope == scope || own.is_same_database(identity) && shares_table
    }

    /// What stands in the journal in the place of a plan's hash.
    pub fn plan_hash(&self) -> Sha256Hash {
        plan_hash(self.run)
    }
}

fn plan_hash(run: RunId) -> Sha256Hash {
    Sha256Hash::of(format!("purge {run}").as_bytes())
}

fn json(value: &impl Serialize) -> Result<String, RecordError> {
    serde_json::to_string(value).map_err(|_| RecordError::Unreadable("a purge"))
}

impl Ledger {
    /// Notes that the platform's transaction `xid` is about to commit. When this returns, it is on the disk, as a run of its own.
    pub async fn intend_purge(&self, start: &RunStart, purge: &PurgeRow) -> Result<(), RecordError> {
        const STEP: &str = "note a purge";
        let mut transaction = self.begin(STEP).await?;
        insert_run(&mut transaction, start).await?;
        let insert = "INSERT INTO purges (run_id, scope, plan_hash, kind, subject, state, xid, evidence, began_at) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        statement(STEP, insert)
            .bind(purge.run)
            .bind(&purge.scope)
            .bind(purge.plan_hash())
            .bind(purge.subject.kind())
            .bind(purge.subject.id())
            .bind(purge.state.as_str())
            .bind(purge.xid)
            .bind(json(&purge.evidence)?)
            .bind(purge.began_at)
            .run(&mut transaction)
            .await?;
        for dataset in &purge.evidence.datasets {
            let insert = "INSERT INTO purged_ids (scope, id, run_id) VALUES ($1, $2, $3)";
            let insert = statement(STEP, insert).bind(&purge.scope).bind(dataset.id).bind(purge.run);
            insert.run(&mut transaction).await?;
            // It was seen live: whatever an older plan of any scope says of it is off for good.
            let forget = statement(STEP, "DELETE FROM sightings WHERE id = $1").bind(dataset.id);
            forget.run(&mut transaction).await?;
        }
        note(&mut transaction, &PURGES, "intended", &purge.run.to_string()).await?;
        transaction.commit(STEP).await
    }

    /// Notes that the platform's transaction committed, and what it removed.
    pub async fn commit_purge(&self, run: RunId, removed: &BTreeMap<String, u64>) -> Result<(), RecordError> {
        const STEP: &str = "note that a purge committed";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE purges SET state = 'committed', removed = $2 WHERE run_id = $1";
        statement(STEP, update).bind(run).bind(json(removed)?).run(&mut transaction).await?;
        note(&mut transaction, &PURGES, "committed", &run.to_string()).await?;
        transaction.commit(STEP).await
    }

    /// Notes how a purge ended. The keys of ids that are gone leave the journal; those of others stay, so that what we deleted
    /// of them is never taken for somebody's change.
    pub async fn end_purge(&self, run: RunId, state: PurgeState) -> Result<(), RecordError> {
        const STEP: &str = "note the end of a purge";
        let mut transaction = self.begin(STEP).await?;
        let update = statement(STEP, "UPDATE purges SET state = $2 WHERE run_id = $1").bind(run).bind(state.as_str());
        update.run(&mut transaction).await?;
        note(&mut transaction, &PURGES, state.as_str(), &run.to_string()).await?;
        let plan = plan_hash(run).to_string();
        journal::compact(&mut transaction, &run.to_string(), journal::DONE_WITH, &plan).await?;
        transaction.commit(STEP).await
    }

    /// One purge.
    pub async fn purge(&self, run: RunId) -> Result<Option<PurgeRow>, RecordError> {
        let select = statement("read a purge", "SELECT * FROM purges WHERE run_id = $1").bind(run);
        select.optional(&self.database).await?.map(|row| read(&row)).transpose()
    }

    /// The purges of a scope, or of all, that are not over, the oldest first.
    pub async fn pending_purges(&self, scope: Option<&str>) -> Result<Vec<PurgeRow>, RecordError> {
        let select = "SELECT * FROM purges WHERE ($1 IS NULL OR scope = $1) AND state IN ('intended', 'committed') ORDER BY run_id";
        let rows = statement("read the purges that are not over", select).bind(scope).all(&self.database).await?;
        rows.iter().map(read).collect()
    }

    /// What committed purges, of whichever scope, removed since about the baseline of `scope`: none that the baseline surely saw.
    pub async fn purged_rows(&self, scope: &str) -> Result<Vec<PurgedRows>, RecordError> {
        let Some(baseline) = self.baseline(scope).await? else { return Ok(Vec::new()) };
        let Some(snapshot) = baseline.observation.snapshot else { return Ok(Vec::new()) };
        let select = "SELECT * FROM purges WHERE state IN ('committed', 'done') AND xid >= $1 ORDER BY xid";
        let select = statement("read what purges removed", select).bind(snapshot.first_unseen());
        let of = |row: &Row| {
            let PurgeRow { xid, removed, evidence: PurgeEvidence { anchor, made, .. }, .. } = read(row)?;
            Ok(PurgedRows { xid, identity: anchor.identity, rows: removed.unwrap_or_default(), made })
        };
        select.all(&self.database).await?.iter().map(of).collect()
    }

    /// Which sentinels of each table of `anchor` committed purges, of whichever scope, removed since it was taken.
    pub async fn purged_since(&self, anchor: &Anchor) -> Result<Vec<HashSet<DatasetId>>, RecordError> {
        let mut purged = vec![HashSet::new(); anchor.sentinels.len()];
        let ids: Vec<DatasetId> = anchor.sentinels.iter().flatten().copied().collect();
        // Where nobody can tell what the anchor saw, nobody vouches for what it misses.
        let Some(snapshot) = anchor.snapshot.as_ref().filter(|_| !ids.is_empty()) else { return Ok(purged) };
        let places: Vec<String> = (0..ids.len()).map(|place| format!("${}", place + 1)).collect();
        let select = format!(
            "SELECT i.id AS id, p.xid AS xid, p.evidence AS evidence FROM purged_ids AS i JOIN purges AS p ON p.run_id = i.run_id \
             WHERE i.id IN ({}) AND p.state IN ('committed', 'done')",
            places.join(", ")
        );
        let select = statement("look for purged ids", select);
        let rows = ids.iter().fold(select, |select, id| select.bind(*id)).all(&self.database).await?;
        for row in &rows {
            let (id, of) = (DatasetId(row.get("id")?), read_evidence(row)?.anchor.identity);
            if !of.is_same_database(&anchor.identity) || snapshot.saw(row.count("xid")?) {
                continue;
            }
            for (table, purged) in anchor.identity.tables.iter().zip(&mut purged) {
                if of.tables.contains(table) {
                    purged.insert(id);
                }
            }
        }
        Ok(purged)
    }

    /// Notes that it was told that the rows of a purge are gone.
    pub async fn note_purge_told(&self, run: RunId) -> Result<(), RecordError> {
        let update = "UPDATE purges SET is_told = TRUE WHERE run_id = $1";
        statement("note that a purge was told", update).bind(run).run(&self.database).await.map(drop)
    }

    /// Notes that a dataset whose row a purge removed has one again: nothing more of it goes by that purge, whatever a later
    /// answer says. When this returns, it is on the disk.
    pub async fn note_live_again(&self, run: RunId, ids: &[DatasetId]) -> Result<(), RecordError> {
        const STEP: &str = "note that a purged dataset is live again";
        let mut transaction = self.begin(STEP).await?;
        for id in ids {
            let update = "UPDATE purged_ids SET is_live_again = TRUE WHERE run_id = $1 AND id = $2";
            statement(STEP, update).bind(run).bind(*id).run(&mut transaction).await?;
        }
        transaction.commit(STEP).await
    }

    /// Notes that somebody saw these datasets live in `scope`, which reads the tables of `identity`: nothing more of them goes by
    /// purges of the same rows that are not over, as by [`Self::note_live_again`]. For whoever saw a row that no such purge can
    /// still be about to remove.
    pub async fn keep_from_purges(
        &self,
        scope: &str,
        identity: &DatabaseIdentity,
        ids: &[DatasetId],
    ) -> Result<(), RecordError> {
        for purge in self.pending_purges(None).await? {
            if purge.is_of_rows(scope, identity) {
                self.note_live_again(purge.run, ids).await?;
            }
        }
        Ok(())
    }

    /// Ends every purge of `scope` that is not over, because the ledger is older than what it once knew: it may have ended, and its
    /// datasets may have been wanted since. What is left of them is an orphan. Says how many that were.
    pub async fn give_up_purges(&self, scope: &str) -> Result<usize, RecordError> {
        let pending = self.pending_purges(Some(scope)).await?;
        for purge in &pending {
            self.end_purge(purge.run, PurgeState::Unknown).await?;
        }
        Ok(pending.len())
    }

    /// The datasets of a purge that were seen live since.
    pub async fn live_again(&self, run: RunId) -> Result<HashSet<DatasetId>, RecordError> {
        let select = "SELECT id FROM purged_ids WHERE run_id = $1 AND is_live_again";
        let rows = statement("read which purged datasets are live again", select).bind(run).all(&self.database).await?;
        rows.iter().map(|row| Ok(DatasetId(row.get("id")?))).collect()
    }
}

/// Forgets the purge that an old run was, if it was one, but for one whose keys are still in the journal. Says how many rows that
/// were.
pub(super) async fn forget(transaction: &mut Transaction, run: &str) -> Result<u64, RecordError> {
    const STEP: &str = "forget an old purge";
    let over = "SELECT plan_hash FROM purges WHERE run_id = $1 AND state NOT IN ('intended', 'committed') \
                AND NOT EXISTS (SELECT 1 FROM intents WHERE plan_hash = purges.plan_hash)";
    let Some(row) = statement(STEP, over).bind(run).optional(&mut *transaction).await? else { return Ok(0) };
    let plan: String = row.get("plan_hash")?;
    let mut forgotten = 0;
    for (sql, value) in [
        ("DELETE FROM disposals WHERE plan_hash = $1", plan.as_str()),
        ("DELETE FROM purged_ids WHERE run_id = $1", run),
        ("DELETE FROM purges WHERE run_id = $1", run),
    ] {
        forgotten += statement(STEP, sql).bind(value).run(&mut *transaction).await?;
    }
    note(transaction, &PURGES, "compacted", run).await?;
    Ok(forgotten)
}

fn read_evidence(row: &Row) -> Result<PurgeEvidence, RecordError> {
    serde_json::from_str(&row.get::<String>("evidence")?).map_err(|_| RecordError::Unreadable("a purge"))
}

fn read(row: &Row) -> Result<PurgeRow, RecordError> {
    let unreadable = || RecordError::Unreadable("a purge");
    let (run, kind, state): (String, String, String) = (row.get("run_id")?, row.get("kind")?, row.get("state")?);
    let subject: Uuid = row.get("subject")?;
    let removed: Option<String> = row.get("removed")?;
    Ok(PurgeRow {
        run: RunId(Uuid::parse_str(&run).map_err(|_| unreadable())?),
        scope: row.get("scope")?,
        subject: match kind.as_str() {
            "dataset" => PurgeSubject::Dataset(DatasetId(subject)),
            "job" => PurgeSubject::Job(subject),
            _ => return Err(unreadable()),
        },
        state: PurgeState::named(&state).ok_or_else(unreadable)?,
        xid: row.count("xid")?,
        evidence: read_evidence(row)?,
        removed: removed.map(|text| serde_json::from_str(&text).map_err(|_| unreadable())).transpose()?,
        is_told: row.get("is_told")?,
        began_at: row.get("began_at")?,
    })
}

#[cfg(test)]
impl PurgeRow {
    /// A purge of a job with these datasets that is about to begin, for tests.
    pub fn sample(run: RunId, scope: &str, anchor: Anchor, ids: impl IntoIterator<Item = DatasetId>) -> Self {
        let dataset = |id| PurgedDataset { id, kind: "iq_raw".into(), name: None, has_objects: true };
        let began_at = Timestamp::UNIX_EPOCH;
        let evidence = PurgeEvidence {
            anchor,
            as_of: began_at,
            datasets: ids.into_iter().map(dataset).collect(),
            job: None,
            rows: BTreeMap::new(),
            made: BTreeMap::new(),
            target: None,
        };
        Self {
            run,
            scope: scope.to_owned(),
            subject: PurgeSubject::Job(Uuid::from_u128(7)),
            state: PurgeState::Intended,
            xid: 5,
            evidence,
            removed: None,
            is_told: false,
            began_at,
        }
    }

    /// The beginning of its run.
    pub fn start(&self) -> RunStart {
        RunStart {
            run_id: self.run,
            scope: self.scope.clone(),
            command: "purge".into(),
            is_dry_run: false,
            started_at: self.began_at,
        }
    }
}
