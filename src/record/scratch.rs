//! What self-tests write: noted before it is written, so that whatever ends one, exactly that is removed.
//!
//! Invariant: nothing is written for a self-test that is not here as `intended` first; what is `removed` was looked for
//! afterwards, and what is `left` was found to be another's.

use uuid::Uuid;

use super::chain::tracked::{SCRATCH, note};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement};
use crate::model::{DatasetId, RunId, Timestamp};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScratchKind {
    /// The row of a dataset, with whatever falls with it.
    Dataset,
    /// The row of a job.
    Job,
    /// An object.
    Object,
    /// A token of the API.
    Token,
}

impl ScratchKind {
    const ALL: [Self; 4] = [Self::Dataset, Self::Job, Self::Object, Self::Token];

    fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Job => "job",
            Self::Object => "object",
            Self::Token => "token",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScratchState {
    /// It may have been written, or not.
    Intended,
    /// It was written.
    Written,
    /// It is gone.
    Removed,
    /// What is there by now is another's, and stays.
    Left,
}

impl ScratchState {
    const ALL: [Self; 4] = [Self::Intended, Self::Written, Self::Removed, Self::Left];

    fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Written => "written",
            Self::Removed => "removed",
            Self::Left => "left",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What is about to be written.
#[derive(Debug, Clone)]
pub struct NewScratch {
    /// What it is.
    pub kind: ScratchKind,
    /// Its key, its id or its name.
    pub name: String,
    /// The dataset that an object belongs to.
    pub dataset: Option<DatasetId>,
    /// The size of an object.
    pub size_bytes: u64,
}

/// What a self-test wrote, or was about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// Its number.
    pub number: u64,
    /// The self-test.
    pub run: RunId,
    /// What it is.
    pub kind: ScratchKind,
    /// Its key, its id or its name.
    pub name: String,
    /// The dataset that an object belongs to.
    pub dataset: Option<DatasetId>,
    /// The size of an object.
    pub size_bytes: u64,
    /// The entity tag that the store gave an object, once it answered.
    pub etag: Option<String>,
    /// Where it stands.
    pub state: ScratchState,
}

impl Ledger {
    /// Notes what is about to be written. When this returns, it is on the disk.
    pub async fn intend_scratch(
        &self,
        (scope, run): (&str, RunId),
        new: &[NewScratch],
        at: Timestamp,
    ) -> Result<Vec<Scratch>, RecordError> {
        const STEP: &str = "note what a self-test is about to write";
        let mut transaction = self.begin(STEP).await?;
        let mut noted = Vec::with_capacity(new.len());
        for new in new {
            let insert = "INSERT INTO scratch (run_id, scope, kind, name, dataset, size_bytes, state, began_at) \
                          VALUES ($1, $2, $3, $4, $5, $6, 'intended', $7) RETURNING *";
            let row = statement(STEP, insert)
                .bind(run)
                .bind(scope)
                .bind(new.kind.as_str())
                .bind(&new.name)
                .bind(new.dataset.map(|id| id.to_string()))
                .bind(new.size_bytes)
                .bind(at)
                .one(&mut transaction)
                .await?;
            let scratch = read(&row)?;
            note(&mut transaction, &SCRATCH, "intended", &scratch.number.to_string()).await?;
            noted.push(scratch);
        }
        transaction.commit(STEP).await?;
        Ok(noted)
    }

    /// Notes where they stand now, with the entity tags that are known.
    pub async fn settle_scratch(
        &self,
        scratch: impl IntoIterator<Item = &Scratch>,
        state: ScratchState,
    ) -> Result<(), RecordError> {
        const STEP: &str = "note what became of what a self-test wrote";
        let mut transaction = self.begin(STEP).await?;
        for scratch in scratch {
            let update = "UPDATE scratch SET state = $2, etag = $3 WHERE number = $1";
            let update =
                statement(STEP, update).bind(scratch.number).bind(state.as_str()).bind(scratch.etag.as_deref());
            update.run(&mut transaction).await?;
            note(&mut transaction, &SCRATCH, state.as_str(), &scratch.number.to_string()).await?;
        }
        transaction.commit(STEP).await
    }

    /// What self-tests of a scope wrote and nobody removed yet, in the order in which it was written.
    pub async fn scratch_to_remove(&self, scope: &str) -> Result<Vec<Scratch>, RecordError> {
        let select = "SELECT * FROM scratch WHERE scope = $1 AND state IN ('intended', 'written') ORDER BY number";
        let rows = statement("read what self-tests wrote", select).bind(scope).all(&self.database).await?;
        rows.iter().map(read).collect()
    }

    /// Forgets what earlier self-tests of a scope wrote and is gone; what was left stays on record.
    pub async fn forget_removed_scratch(&self, scope: &str) -> Result<(), RecordError> {
        const STEP: &str = "forget what self-tests removed";
        let mut transaction = self.begin(STEP).await?;
        let delete = "DELETE FROM scratch WHERE scope = $1 AND state = 'removed' RETURNING number";
        for row in statement(STEP, delete).bind(scope).all(&mut transaction).await? {
            note(&mut transaction, &SCRATCH, "forgotten", &row.count("number")?.to_string()).await?;
        }
        transaction.commit(STEP).await
    }
}

fn read(row: &Row) -> Result<Scratch, RecordError> {
    let unreadable = || RecordError::Unreadable("what a self-test wrote");
    let (run, kind, state): (String, String, String) = (row.get("run_id")?, row.get("kind")?, row.get("state")?);
    let dataset: Option<String> = row.get("dataset")?;
    let id = |text: String| Uuid::parse_str(&text).map_err(|_| unreadable());
    Ok(Scratch {
        number: row.count("number")?,
        run: RunId(id(run)?),
        kind: ScratchKind::named(&kind).ok_or_else(unreadable)?,
        name: row.get("name")?,
        dataset: dataset.map(id).transpose()?.map(DatasetId),
        size_bytes: row.count("size_bytes")?,
        etag: row.get("etag")?,
        state: ScratchState::named(&state).ok_or_else(unreadable)?,
    })
}
