//! The reaper: empties quarantines whose time is over, by the path of every other deletion.
//!
//! Takes the folder of one earlier run; gives what was asked for, what waits, and when the next may go. Invariant: only keys
//! that are listed in that folder are asked for, each after its own time, which counts from when its id was last wanted; a copy
//! whose id is wanted goes only where the same object lies at the original's key, because otherwise it may be the last that is
//! left of it. The race this closes: a row that goes and comes again in two transactions is not there in between.

use std::collections::{BTreeMap, HashMap};

use futures::StreamExt;
use parking_lot::Mutex;

use super::batch::{BatchTask, Guard};
use super::group::{SkipReason, split};
use super::{Disposal, Halt, Purpose, Tools};
use crate::clock::Stopwatch;
use crate::config::Scope;
use crate::decide::holds::Holds;
use crate::list::content::ContentError;
use crate::list::pages::Pages;
use crate::list::references::Anchor;
use crate::model::{CHUNK_OBJECTS, DatasetId, Object, ObjectKey, RunId, Timestamp};
use crate::parse::group_of_key;
use crate::record::Undo;
use crate::s3::{CopyStore, Head, Place, retry};

/// Originals that are looked for at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// By what a copy is judged.
pub struct Rules<'r> {
    /// A copy last written after this is too young.
    pub written_until: Timestamp,
    /// Ids that somebody holds.
    pub held: &'r Holds,
    /// When ids were last wanted.
    pub wanted: &'r HashMap<DatasetId, Timestamp>,
    /// The run's time.
    pub as_of: Timestamp,
}

impl Rules<'_> {
    /// Whether the time of a copy is over: its own, also where its quarantine was begun long before.
    fn is_due(&self, written: Option<Timestamp>) -> bool {
        written.is_some_and(|time| time <= self.written_until)
    }

    /// Whether somebody wants an id, or did so little before, or in this very run.
    fn is_wanted(&self, id: DatasetId) -> bool {
        let was_wanted = |at: &Timestamp| *at > self.written_until || *at >= self.as_of;
        self.held.on(id).is_some() || self.wanted.get(&id).is_some_and(was_wanted)
    }
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
    /// Its id is wanted.
    Wanted(DatasetId),
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
    pub fn halt(&self) -> Option<Halt> {
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
            let mut due: BTreeMap<(DatasetId, bool), Vec<Object>> = BTreeMap::new();
            for object in page.objects {
                match self.fate_of(&object, rules) {
                    Fate::Goes(id) => due.entry((id, false)).or_default().push(object),
                    Fate::Wanted(id) => due.entry((id, true)).or_default().push(object),
                    Fate::Young(time) => {
                        let times = emptied.oldest_young.into_iter().chain(time);
                        emptied.oldest_young = times.min();
                    }
                    Fate::Unknown => emptied.waiting += 1,
                }
            }
            for ((id, is_wanted), copies) in due {
                if disposal.is_halted() {
                    break;
                }
                let is_wanted = is_wanted || !self.send_unwanted(id, &copies, listed, rules).await;
                if is_wanted {
                    emptied.waiting += self.reap_spare(id, copies, listed).await;
                }
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
        let written = object.credible_last_modified();
        if !rules.is_due(written) {
            return Fate::Young(written);
        }
        if rules.is_wanted(id) { Fate::Wanted(id) } else { Fate::Goes(id) }
    }

    /// The id of the group that a copy was taken from; `None` where no pattern reads it.
    fn id_of(&self, copy: &ObjectKey) -> Option<DatasetId> {
        let original = copy.as_str().strip_prefix(self.quarantine.prefix.as_str())?;
        let scope = self.disposal.scope;
        group_of_key(original, &scope.prefix, &scope.patterns).map(|(id, _)| id)
    }

    /// Asks for copies of an id that nobody wants; says whether that is so. That it is wanted is on the disk before anything else
    /// is asked of it.
    async fn send_unwanted(&self, id: DatasetId, copies: &[Object], listed: Stopwatch, rules: &Rules<'_>) -> bool {
        match self.send(id, copies.to_vec(), listed, Guard::NoRow).await.map_err(|(reason, _)| reason) {
            Err(SkipReason::LiveAgain | SkipReason::Held | SkipReason::Rejected) => {
                let disposal = &self.disposal;
                if let Err(error) = disposal.ledger.want(&disposal.scope.name, &[id], rules.as_of).await {
                    disposal.halt(Halt::Record(error));
                }
                false
            }
            Ok(())
            | Err(
                SkipReason::ChangedSincePlan
                | SkipReason::NotApproved
                | SkipReason::UploadInProgress
                | SkipReason::RunEnded,
            ) => true,
        }
    }

    /// Asks for those copies of an id that are not the last of what they are; gives how many of them wait, because its data may be
    /// wanted back.
    async fn reap_spare(&self, id: DatasetId, copies: Vec<Object>, listed: Stopwatch) -> u64 {
        let all = copies.len() as u64;
        let looks = futures::stream::iter(copies).map(|copy| async move {
            let is_spare = self.disposal.has_original(self.copier, &copy).await;
            is_spare.then_some((copy.key.clone(), copy))
        });
        let spare: BTreeMap<ObjectKey, Object> =
            looks.buffered(LOOKS_AT_ONCE).filter_map(futures::future::ready).collect().await;
        let waiting = all - spare.len() as u64;
        if spare.is_empty() {
            return waiting;
        }
        match self.send(id, spare.values().cloned().collect(), listed, Guard::SameOriginal(&spare)).await {
            // At the last look its original was another, or not there.
            Err((SkipReason::LiveAgain, left)) => waiting + left,
            Ok(()) | Err(_) => waiting,
        }
    }

    /// Asks for copies, batch by batch.
    ///
    /// - Errors: why the rest was left, and how many copies that is.
    async fn send(
        &self,
        id: DatasetId,
        copies: Vec<Object>,
        listed: Stopwatch,
        guard: Guard<'_>,
    ) -> Result<(), (SkipReason, u64)> {
        let left = Mutex::new(None);
        let mut unsent = copies.len() as u64;
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
                let objects = batch.objects.len() as u64;
                self.disposal.delete_batch(&task, batch).await.map_err(|reason| (reason, unsent))?;
                unsent -= objects;
            }
        }
    }
}

impl Disposal<'_> {
    /// Whether what lies at the key that `copy` was taken from is the same object. What cannot be asked is not there.
    async fn has_original(&self, copier: &dyn CopyStore, copy: &Object) -> bool {
        let Some((_, folder)) = &self.originals else { return false };
        let Some(original) = copy.key.as_str().strip_prefix(folder.as_str()) else { return false };
        let place = Place::current(&self.scope.bucket, ObjectKey::new(original));
        match retry::read_with_retries(&self.stop, || copier.head(&place)).await {
            Ok(found) => found.is_some_and(|original| is_same(&original, copy)),
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
        copies: &BTreeMap<ObjectKey, Object>,
        asked: &[(ObjectKey, String)],
    ) -> Result<Stopwatch, SkipReason> {
        self.may_send(task)?;
        let Some((copier, _)) = &self.originals else { return Err(SkipReason::LiveAgain) };
        let proof = Stopwatch::start();
        let looks = futures::stream::iter(asked).map(|(key, _)| async {
            match copies.get(key) {
                Some(copy) => self.has_original(*copier, copy).await,
                None => false,
            }
        });
        let is_there: Vec<bool> = looks.buffered(LOOKS_AT_ONCE).collect().await;
        if is_there.contains(&false) {
            return Err(SkipReason::LiveAgain);
        }
        self.may_send(task).map(|()| proof)
    }
}

/// Whether what lies at the original's key is what `copy` was made of: by its size and its entity tag. One that was written in
/// another number of parts may be the same, and may not: its copy waits.
fn is_same(original: &Head, copy: &Object) -> bool {
    original.size_bytes == copy.size_bytes && original.etag.trim_matches('"') == copy.etag.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Carried;

    fn head(size_bytes: u64, etag: &str) -> Head {
        Head { size_bytes, etag: etag.into(), last_modified: None, carried: Carried::default() }
    }

    fn copy(size_bytes: u64, etag: &str) -> Object {
        Object { key: ObjectKey::new("q/a"), size_bytes, etag: etag.into(), last_modified: None }
    }

    #[test]
    fn an_original_is_the_same_by_its_size_and_its_tag() {
        assert!(is_same(&head(7, "\"ab\""), &copy(7, "ab")));
        assert!(!is_same(&head(8, "ab"), &copy(7, "ab")), "another size");
        assert!(!is_same(&head(7, "ab"), &copy(7, "cd")), "other bytes");
        assert!(!is_same(&head(7, "ab-2"), &copy(7, "cd-2")), "other bytes, in as many parts");
        assert!(!is_same(&head(7, "ab-2"), &copy(7, "cd-3")), "cut in another way, so nobody can tell");
        assert!(!is_same(&head(7, "ab"), &copy(7, "cd-1")), "one was written in parts, so nobody can tell");
    }

    #[test]
    fn a_copy_is_due_when_its_own_time_is_over_and_never_where_that_is_not_known() {
        let at = |seconds: i64| Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range");
        let (wanted, held) = (HashMap::new(), Holds::default());
        let rules = Rules { written_until: at(60), held: &held, wanted: &wanted, as_of: at(100) };
        for (written, is_due) in [(Some(at(59)), true), (Some(at(60)), true), (Some(at(61)), false), (None, false)] {
            assert_eq!(rules.is_due(written), is_due, "{written:?}");
        }
    }

    #[test]
    fn an_id_is_wanted_until_its_time_is_over_and_in_the_very_run_that_saw_it() {
        let at = |seconds: i64| Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range");
        let id = DatasetId(uuid::Uuid::from_u128(1));
        for (seen, keep, is_wanted) in [(0, 0, false), (99, 0, false), (100, 0, true), (60, 40, false), (61, 40, true)]
        {
            let wanted = HashMap::from([(id, at(seen))]);
            let rules =
                Rules { written_until: at(100 - keep), held: &Holds::default(), wanted: &wanted, as_of: at(100) };
            assert_eq!(rules.is_wanted(id), is_wanted, "seen at {seen}, kept for {keep}");
        }
    }
}
