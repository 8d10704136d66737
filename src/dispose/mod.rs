//! dispose: verify, re-check, delete, record; one outcome per key.
//!
//! Takes the groups of a verified plan that are still orphans. Invariant, per batch: its objects are byte for byte
//! those of the plan, its intent is on the disk, and its id was asked of the primary, with proof, after that. The race
//! that remains is the time between that answer and the store's own reading of the request.

mod aside;
mod batch;
mod group;
mod journal;
mod limiter;
mod objection;
pub mod pace;
pub mod purge;
pub mod reap;
mod settle;
pub mod space;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Scope;
use crate::list::holds::HoldsError;
use crate::list::references::{Anchor, References, ReferencesError};
use crate::list::uploads::Watch;
use crate::model::{DatasetId, Group, RunId, Sha256Hash, Timestamp};
use crate::plan::PlanGroup;
use crate::record::{Ledger, RecordError};
use crate::s3::{CopyStore, DeleteStore, ReadStore};
pub use aside::Aside;
pub use group::SkipReason;
use limiter::Limiter;
pub use objection::Consent;
use objection::Objections;
use pace::{Over, Pacer};

/// Ids whose groups are verified or deleted at the same time: one is listed while others are deleted.
const IDS_IN_FLIGHT: usize = 6;

/// One id of a plan, with what may go of it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The id.
    pub id: DatasetId,
    /// Its groups in the plan.
    pub planned: Vec<PlanGroup>,
    /// Its groups in odd spellings, which the run's own listing saw. They are never deleted, and a change in them keeps
    /// the others.
    pub odd: Vec<Group>,
}

/// Everything that deletion needs.
pub struct Disposal<'d> {
    /// The scope.
    pub scope: &'d Scope,
    /// What is deleted, and in which journal it is written.
    purpose: Purpose,
    /// The run.
    pub run: RunId,
    /// Reads the store.
    pub store: &'d dyn ReadStore,
    /// Deletes from it.
    pub deleter: &'d dyn DeleteStore,
    /// Where objects are copied to before they are deleted, if the scope has it so.
    pub aside: Option<Aside<'d>>,
    /// Asks the database.
    pub references: &'d dyn References,
    /// What each answer is compared with.
    pub anchor: Anchor,
    /// The journal.
    pub ledger: &'d Ledger,
    /// The host's clock, for the journal.
    pub clock: Arc<dyn Clock>,
    /// Told when a person or the system asks to stop: the batches in flight are finished.
    pub stop: CancellationToken,
    /// While this file exists, no batch is sent.
    pub stop_file: PathBuf,
    /// Told how many objects are done.
    pub progress: &'d (dyn Fn(u64) + Send + Sync),
    /// Where the originals of copies are looked for, and the folder of the copies: for the reaper.
    originals: Option<(&'d dyn CopyStore, String)>,
    objections: Objections<'d>,
    /// Says when the next batch may leave.
    pub pacer: &'d Pacer,
    /// Told what is over.
    pub closing: &'d dyn Closing,
    /// Asks again for uploads in progress.
    uploads: Watch<'d>,
    limiter: Limiter,
    batches: AtomicU64,
    finished_batches: AtomicU64,
    unread: AtomicU64,
    /// Keys that were looked at one by one, because the store says deleted and shows them still.
    looked_at: AtomicU64,
    /// Ids that a re-check of this run saw live: nothing more of them is asked for, whatever a later answer says.
    seen_live: Mutex<HashSet<DatasetId>>,
    /// The store's clock when a group was last verified.
    last_seen_at: Mutex<Option<Timestamp>>,
    halt: Mutex<Option<Halt>>,
}

/// What is deleted, and in which journal it is written.
#[derive(Debug, Clone)]
enum Purpose {
    /// The groups of this plan.
    Plan(Sha256Hash),
    /// The copies in the quarantine of this run, made for this plan.
    Quarantine(RunId, Sha256Hash),
}

/// Why deletion ended before its end.
#[derive(Debug)]
pub enum Halt {
    /// A re-check failed: nothing that it would have protected can be deleted.
    References(ReferencesError),
    /// The protected ids cannot be read any more.
    Holds(HoldsError),
    /// The journal failed: an intent that cannot be written sends nothing.
    Record(RecordError),
    /// The stop file appeared.
    StopFile,
    /// It was told to stop.
    Interrupted,
    /// The time of `--max-runtime` is over.
    OutOfTime,
    /// What was over could not be told.
    Untold,
}

/// What a [`Disposal`] is made of.
pub struct Tools<'d> {
    /// Reads the store.
    pub store: &'d dyn ReadStore,
    /// Deletes from it.
    pub deleter: &'d dyn DeleteStore,
    /// Where objects are copied to before they are deleted, if the scope has it so.
    pub aside: Option<Aside<'d>>,
    /// Asks the database.
    pub references: &'d dyn References,
    /// The journal.
    pub ledger: &'d Ledger,
    /// The host's clock, for the journal.
    pub clock: Arc<dyn Clock>,
    /// Told when a person or the system asks to stop.
    pub stop: CancellationToken,
    /// While this file exists, no batch is sent.
    pub stop_file: PathBuf,
    /// Whose word lets the plan go.
    pub consent: Consent,
    /// The run's time, at which holds are judged.
    pub as_of: Timestamp,
    /// Told how many objects are done.
    pub progress: &'d (dyn Fn(u64) + Send + Sync),
    /// Says when the next batch may leave.
    pub pacer: &'d Pacer,
    /// Told what is over.
    pub closing: &'d dyn Closing,
    /// Asks again for uploads in progress.
    pub uploads: Watch<'d>,
}

/// Told of groups that nothing more is asked of in this run, so that what became of their keys can be told at once.
#[async_trait]
pub trait Closing: Send + Sync {
    /// Either every group of an id, all gone, or groups that are kept.
    ///
    /// - Errors: what ends the run.
    async fn over(&self, groups: &[&PlanGroup]) -> Result<(), Halt>;
}

/// Nobody who is told: where nothing is compacted before the end.
pub struct Unnoted;

#[async_trait]
impl Closing for Unnoted {
    async fn over(&self, _groups: &[&PlanGroup]) -> Result<(), Halt> {
        Ok(())
    }
}

impl<'d> Disposal<'d> {
    /// Prepares to delete for `plan`. `anchor` is what the run itself read completely.
    pub fn new(scope: &'d Scope, plan: Sha256Hash, run: RunId, anchor: Anchor, tools: Tools<'d>) -> Self {
        Self::with(scope, Purpose::Plan(plan), run, anchor, tools)
    }

    fn with(scope: &'d Scope, purpose: Purpose, run: RunId, anchor: Anchor, tools: Tools<'d>) -> Self {
        let Tools { store, deleter, aside, references, ledger, .. } = tools;
        let Tools { clock, stop, stop_file, consent, as_of, progress, uploads, pacer, closing, .. } = tools;
        let (Purpose::Plan(plan) | Purpose::Quarantine(_, plan)) = purpose;
        Self {
            scope,
            purpose,
            run,
            store,
            deleter,
            aside,
            references,
            anchor,
            ledger,
            clock,
            stop,
            stop_file,
            progress,
            pacer,
            closing,
            originals: None,
            objections: Objections::new(scope, plan, (consent, as_of), ledger, references),
            uploads,
            limiter: Limiter::new(pacer.pace().most_in_flight()),
            batches: AtomicU64::new(0),
            finished_batches: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            seen_live: Mutex::default(),
            last_seen_at: Mutex::default(),
            halt: Mutex::new(None),
        }
    }

    /// Works through the candidates. Says why it ended early, if it did; the journal has every outcome.
    pub async fn run(&self, candidates: &[Candidate]) -> Option<Halt> {
        let work = futures::stream::iter(candidates).map(|candidate| self.dispose_of(candidate));
        work.buffer_unordered(IDS_IN_FLIGHT).collect::<()>().await;
        // A stop that cut a read short is the reason, not the store.
        self.is_halted();
        self.halt.lock().take()
    }

    /// Tells groups that an earlier run of the plan deleted and nobody told.
    pub async fn note_gone(&self, gone: &[PlanGroup]) {
        for groups in gone.chunk_by(|a, b| a.id == b.id) {
            self.note_over(&groups.iter().collect::<Vec<_>>()).await;
        }
    }

    /// Notes the objects of groups that the plan names and this run keeps, each with the reason; settles what a run that
    /// died may have asked of them.
    pub async fn keep(&self, kept: &[(PlanGroup, SkipReason)]) {
        for (planned, reason) in kept {
            let candidate = Candidate { id: planned.id, planned: vec![planned.clone()], odd: Vec::new() };
            self.keep_group(&candidate, planned, *reason).await;
        }
    }

    /// Ids that could not be read to their end, and are left for another run.
    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// The store's clock when a group was last verified.
    pub fn last_seen_at(&self) -> Option<Timestamp> {
        *self.last_seen_at.lock()
    }

    /// Whether nothing more may be sent. Asked before every batch.
    fn is_halted(&self) -> bool {
        let mut halt = self.halt.lock();
        if halt.is_none() {
            if self.stop.is_cancelled() {
                *halt = Some(Halt::Interrupted);
            } else if is_there(&self.stop_file) {
                *halt = Some(Halt::StopFile);
            } else if self.pacer.is_out_of_time(self.has_sent()) {
                *halt = Some(Halt::OutOfTime);
            }
        }
        halt.is_some()
    }

    /// Whether a batch of this run came to its end.
    fn has_sent(&self) -> bool {
        self.finished_batches.load(Ordering::Relaxed) > 0
    }

    /// Waits until a batch may leave: of `objects`, which are then taken from the budget, or of as many as will be listed.
    async fn wait_for_budget(&self, objects: Option<usize>) -> Result<(), SkipReason> {
        let has_sent = || self.has_sent();
        let waited = match objects {
            Some(objects) => self.pacer.take(objects, &self.stop, has_sent).await,
            None => self.pacer.wait(&self.stop, has_sent).await,
        };
        waited.map_err(|over| {
            self.halt(match over {
                Over::Stopped => Halt::Interrupted,
                Over::OutOfTime => Halt::OutOfTime,
            });
            SkipReason::RunEnded
        })
    }

    /// Ends the run; the first reason is kept.
    fn halt(&self, reason: Halt) {
        self.halt.lock().get_or_insert(reason);
    }
}

/// Whether the stop file is there. One that cannot be looked at stops as well.
pub fn is_there(stop_file: &std::path::Path) -> bool {
    stop_file.try_exists().unwrap_or(true)
}
