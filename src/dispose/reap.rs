//! The reaper: empties quarantines whose time is over, by the path of every other deletion.
//!
//! Takes the folder of one earlier run; gives what was asked for, what waits, and when the next may go. Invariant: only keys
//! that are listed in that folder are asked for, each after its own time; a copy whose id has a row or is held goes only
//! where something lies at the original's key, because otherwise it may be the last that is left of it.

use std::collections::HashMap;

use futures::StreamExt;
use parking_lot::Mutex;

use super::batch::{BatchTask, Guard};
use super::group::{SkipReason, split};
use super::{Disposal, Purpose, Tools};
use crate::clock::Stopwatch;
use crate::config::Scope;
use crate::decide::holds::Holds;
use crate::list::content::ContentError;
use crate::list::pages::Pages;
use crate::list::references::Anchor;
use crate::model::{CHUNK_OBJECTS, DatasetId, Object, ObjectKey, RunId, Timestamp};
use crate::parse::group_of_key;
use crate::record::Undo;
use crate::s3::{CopyStore, Place, retry};

/// Originals that are looked for at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// By what a copy is judged.
pub struct Rules<'r> {
    /// A copy last written after this is too young.
    pub written_until: Timestamp,
    /// Ids that somebody holds.
    pub held: &'r Holds,
}

/// What became of one quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Copies that stay past their time.
    pub waiting: u64,
    /// Whether nothing lies in the folder any more.
    pub is_empty: bool,
    /// The oldest copy that is too young.
    pub oldest_young: Option<Timestamp>,
}

/// Empties the folder of one run.
pub struct Reaper<'d> {
    disposal: Disposal<'d>,
    quarantine: &'d Undo,
    copier: &'d dyn CopyStore,
}

/// What is to be done with a copy.
enum Fate {
    Goes(DatasetId),
    /// Its id is held.
    Held(DatasetId),
    Young(Option<Timestamp>),
    /// Nobody knows what it is.
    Unknown,
}

impl<'d> Reaper<'d> {
    /// Prepares to empty `quarantine`. The tools read and delete where its copies lie; `copier` looks for the originals.
    pub fn new(
        scope: &'d Scope,
        quarantine: &'d Undo,
        run: RunId,
        anchor: Anchor,
        (tools, copier): (Tools<'d>, &'d dyn CopyStore),
    ) -> Self {
        let purpose = Purpose::Quarantine(quarantine.run, quarantine.plan);
        let mut disposal = Disposal::with(scope, purpose, run, anchor, tools);
        disposal.originals = Some((copier, quarantine.prefix.clone()));
        Self { disposal, quarantine, copier }
    }

    /// The disposal, which says why it ended early.
    pub fn halt(&self) -> Option<super::Halt> {
        self.disposal.is_halted();
        self.disposal.halt.lock().take()
    }

    /// Works through the folder.
    ///
    /// - Errors: [`ContentError`] where it could not be listed; what was asked for is settled by the next run.
    pub async fn empty(&self, rules: &Rules<'_>) -> Result<Emptied, ContentError> {
        let disposal = &self.disposal;
        let mut emptied = Emptied::default();
        let mut pages = Pages::new(disposal.store, &self.quarantine.prefix, false, &disposal.stop);
        while let Some(page) = pages.next().await? {
            let listed = Stopwatch::start();
            // By id: one question to the database for all copies of an id on a page.
            let mut due: HashMap<(DatasetId, bool), Vec<Object>> = HashMap::new();
            for object in page.objects {
                match self.fate_of(&object, rules) {
                    Fate::Goes(id) => due.entry((id, false)).or_default().push(object),
                    Fate::Held(id) => due.entry((id, true)).or_default().push(object),
                    Fate::Young(time) => {
                        let times = emptied.oldest_young.into_iter().chain(time);
                        emptied.oldest_young = times.min();
                    }
                    Fate::Unknown => emptied.waiting += 1,
                }
            }
            for ((id, is_held), copies) in due {
                if disposal.is_halted() {
                    break;
                }
                emptied.waiting += self.reap(id, is_held, copies, listed).await;
            }
            if disposal.is_halted() {
                break;
            }
        }
        let nobody = DatasetId(uuid::Uuid::nil());
        emptied.is_empty = disposal.settle_group(nobody, &self.quarantine.prefix, "interrupted").await?;
        Ok(emptied)
    }

    fn fate_of(&self, object: &Object, rules: &Rules<'_>) -> Fate {
        let Some(id) = self.id_of(&object.key) else { return Fate::Unknown };
        match object.credible_last_modified() {
            Some(time) if time <= rules.written_until => {}
            time => return Fate::Young(time),
        }
        if rules.held.on(id).is_some() { Fate::Held(id) } else { Fate::Goes(id) }
    }

    /// The id of the group that a copy was taken from; `None` where no pattern reads it.
    fn id_of(&self, copy: &ObjectKey) -> Option<DatasetId> {
        let original = copy.as_str().strip_prefix(self.quarantine.prefix.as_str())?;
        let scope = self.disposal.scope;
        group_of_key(original, &scope.prefix, &scope.patterns).map(|(id, _)| id)
    }

    /// Asks for copies of one id; gives how many of them wait.
    async fn reap(&self, id: DatasetId, is_held: bool, copies: Vec<Object>, listed: Stopwatch) -> u64 {
        if !is_held {
            match self.send(id, copies.clone(), listed, Guard::NoRow).await {
                Err(SkipReason::LiveAgain | SkipReason::Held | SkipReason::Rejected) => {}
                Ok(())
                | Err(
                    SkipReason::ChangedSincePlan
                    | SkipReason::NotApproved
                    | SkipReason::UploadInProgress
                    | SkipReason::RunEnded,
                ) => {
                    return 0;
                }
            }
        }
        // Its data may be wanted back. Where something lies at the original's key by now, this copy is not the last one.
        let all = copies.len() as u64;
        let looks = futures::stream::iter(copies).map(|copy| async move {
            let is_there = self.disposal.has_original(self.copier, &copy.key).await;
            is_there.then_some(copy)
        });
        let spare: Vec<Object> = looks.buffered(LOOKS_AT_ONCE).filter_map(futures::future::ready).collect().await;
        let waiting = all - spare.len() as u64;
        if spare.is_empty() {
            return waiting;
        }
        match self.send(id, spare, listed, Guard::OriginalThere).await {
            Ok(()) | Err(_) => waiting,
        }
    }

    async fn send(
        &self,
        id: DatasetId,
        copies: Vec<Object>,
        listed: Stopwatch,
        guard: Guard,
    ) -> Result<(), SkipReason> {
        let left = Mutex::new(None);
        let mut rest = copies.into_iter();
        loop {
            let chunk: Vec<Object> = rest.by_ref().take(CHUNK_OBJECTS).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            for batch in split(chunk, crate::model::CHUNK_OBJECTS) {
                let _permit = self.disposal.limiter.acquire().await;
                let task =
                    BatchTask { id, first_run: None, prefix: &self.quarantine.prefix, listed, left: &left, guard };
                self.disposal.delete_batch(&task, batch).await?;
            }
        }
    }
}

impl Disposal<'_> {
    /// Whether something lies at the key that `copy` was taken from. What cannot be asked is not there.
    async fn has_original(&self, copier: &dyn CopyStore, copy: &ObjectKey) -> bool {
        let Some((_, folder)) = &self.originals else { return false };
        let Some(original) = copy.as_str().strip_prefix(folder.as_str()) else { return false };
        let place = Place::current(&self.scope.bucket, ObjectKey::new(original));
        match retry::read_with_retries(&self.stop, || copier.head(&place)).await {
            Ok(found) => found.is_some(),
            Err(error) => {
                tracing::warn!(error = %error, "an original could not be looked for; its copy stays");
                false
            }
        }
    }

    /// Looks whether the original of each copy is there. The answer's age counts from before it was asked.
    pub(super) async fn look_for_originals(
        &self,
        task: &BatchTask<'_>,
        copies: &[(ObjectKey, String)],
    ) -> Result<Stopwatch, SkipReason> {
        self.may_send(task)?;
        let Some((copier, _)) = &self.originals else { return Err(SkipReason::LiveAgain) };
        let proof = Stopwatch::start();
        let looks = futures::stream::iter(copies).map(|(copy, _)| self.has_original(*copier, copy));
        let is_there: Vec<bool> = looks.buffered(LOOKS_AT_ONCE).collect().await;
        if is_there.contains(&false) {
            return Err(SkipReason::LiveAgain);
        }
        self.may_send(task).map(|()| proof)
    }
}
