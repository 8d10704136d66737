//! Quarantine: before a batch is deleted, each of its objects is copied aside and the copy is proven.
//!
//! Takes a batch whose intent is on the disk; gives the objects that may go. Invariant: an object goes only if a proven
//! copy of it lies in this run's own folder of the quarantine, and if it was still the listed object after every copy of its
//! batch was proven. The race that this closes: somebody writes to a key while the copies are made, which may take long.

use futures::StreamExt;
use tokio::sync::Semaphore;

use super::batch::BatchTask;
use super::group::SkipReason;
use super::transfer::{TransferError, Transferred, compare, transfer};
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::model::{Object, ObjectKey};
use crate::record::{KeyOutcome, RecordError};
use crate::s3::{CopyStore, Head, Place, WriteWhen, retry};

/// Copies that a run makes at the same time.
const COPIES_AT_ONCE: usize = 8;
/// Sources that a batch looks at at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// The longest key that stores take.
const LONGEST_KEY_BYTES: usize = 1024;

/// The run's own folder of the quarantine.
pub struct Aside<'d> {
    /// Makes and reads the copies.
    copier: &'d dyn CopyStore,
    /// The bucket of the copies.
    bucket: String,
    /// The prefix of the copies, ending in `/`; the original key follows it, byte for byte.
    prefix: String,
    /// Whether an earlier process of this run may have copied into it.
    is_begun: bool,
    at_once: Semaphore,
}

/// An object that is there to be copied.
struct Source {
    object: Object,
    /// What was seen at its key.
    seen: Head,
    /// Where its copy goes.
    target: Place,
}

/// Why one object does not go on its way.
enum Stays {
    /// It was gone before.
    Gone(ObjectKey),
    /// It is another object than the listed one.
    Changed(ObjectKey),
    /// There is no proven copy of it.
    Failed(ObjectKey, String),
    /// The run was told to stop first.
    Stopped,
}

impl<'d> Aside<'d> {
    /// The folder at `prefix` of `bucket`.
    pub fn new(copier: &'d dyn CopyStore, bucket: &str, prefix: &str) -> Self {
        let at_once = Semaphore::new(COPIES_AT_ONCE);
        Self { copier, bucket: bucket.to_owned(), prefix: prefix.to_owned(), is_begun: false, at_once }
    }

    /// Expects copies that an earlier process of this run made and proved.
    #[must_use]
    pub fn begun(self) -> Self {
        Self { is_begun: true, ..self }
    }

    fn place_of(&self, key: &ObjectKey) -> Result<Place, String> {
        let name = format!("{}{}", self.prefix, key.as_str());
        if name.len() > LONGEST_KEY_BYTES {
            return Err(format!("the copy's key would have {} bytes, {LONGEST_KEY_BYTES} are allowed", name.len()));
        }
        Ok(Place::current(&self.bucket, ObjectKey::new(name)))
    }
}

impl Disposal<'_> {
    /// Copies the objects of a batch aside, where the scope has a quarantine; gives those that may go, and since when they
    /// are known to be the listed ones.
    ///
    /// - Errors: why the batch is left. Objects without a proven copy end as failed and stay.
    pub(super) async fn set_aside(
        &self,
        task: &BatchTask<'_>,
        objects: Vec<Object>,
    ) -> Result<(Vec<Object>, Stopwatch), SkipReason> {
        let Some(aside) = &self.aside else { return Ok((objects, task.listed)) };
        // First of all: of what is gone or another object by now, the copy that an earlier process of this run proved stays proven.
        let sources = futures::stream::iter(objects).map(|object| self.look_before(aside, object));
        let sources = self.sort_out(sources.buffered(LOOKS_AT_ONCE).collect().await).await?;
        let (mut copied, missing) = self.find_copies(aside, sources).await?;
        // Before any is made: a process that dies between a copy and its proof leaves one that nobody may ever bring back.
        let keys = keys_of(missing.iter().map(|source| &source.object));
        self.note(self.ledger.doubt_copies(self.run, &keys).await)?;
        let copies = futures::stream::iter(missing).map(|source| self.copy_aside(aside, source));
        let made: Vec<Result<Object, Stays>> = copies.buffered(COPIES_AT_ONCE).collect().await;
        // Whatever becomes of the others of the batch.
        self.note(self.ledger.trust_copies(self.run, &keys_of(made.iter().flatten())).await)?;
        copied.extend(self.sort_out(made).await?);
        // Copying may take long: what was written meanwhile is another object, and stays.
        let confirmed = Stopwatch::start();
        let looks = futures::stream::iter(copied).map(async |object| {
            self.look_at(aside, &object).await?;
            Ok(object)
        });
        let unchanged = self.sort_out(looks.buffered(LOOKS_AT_ONCE).collect().await).await?;
        Ok((unchanged, confirmed))
    }

    /// Ends the run where the ledger could not note something.
    fn note(&self, noted: Result<(), RecordError>) -> Result<(), SkipReason> {
        noted.map_err(|error| {
            self.halt(Halt::Record(error));
            SkipReason::RunEnded
        })
    }

    /// What lies at the key of an object, if it is the object.
    async fn look_at(&self, aside: &Aside<'_>, object: &Object) -> Result<Head, Stays> {
        let source = Place::current(&self.scope.bucket, object.key.clone());
        match retry::read_with_retries(&self.stop, || aside.copier.head(&source)).await {
            Ok(Some(seen)) if seen.is_of(object) => Ok(seen),
            Ok(Some(_)) => Err(Stays::Changed(object.key.clone())),
            Ok(None) => Err(Stays::Gone(object.key.clone())),
            Err(_) if self.is_halted() => Err(Stays::Stopped),
            Err(error) => Err(failed(&object.key, error)),
        }
    }

    async fn look_before(&self, aside: &Aside<'_>, object: Object) -> Result<Source, Stays> {
        let target = aside.place_of(&object.key).map_err(|why| failed(&object.key, why))?;
        let seen = self.look_at(aside, &object).await?;
        Ok(Source { object, seen, target })
    }

    /// Tells the objects of which an earlier process of this run proved a copy, which lies there still, from the others: it must not
    /// be made again, because it would be in doubt until it is proven anew, and its object may go meanwhile.
    async fn find_copies(
        &self,
        aside: &Aside<'_>,
        sources: Vec<Source>,
    ) -> Result<(Vec<Object>, Vec<Source>), SkipReason> {
        if !aside.is_begun {
            return Ok((Vec::new(), sources));
        }
        let found = futures::stream::iter(sources).map(async |source| {
            let is_proven = self.has_copy(aside, &source).await?;
            Ok((source, is_proven))
        });
        let found = self.sort_out(found.buffered(COPIES_AT_ONCE).collect().await).await?;
        let (proven, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_proven)| *is_proven);
        let missing = missing.into_iter().map(|(source, _)| source).collect();
        Ok((proven.into_iter().map(|(source, _)| source.object).collect(), missing))
    }

    async fn has_copy(&self, aside: &Aside<'_>, source: &Source) -> Result<bool, Stays> {
        let Source { object, seen, target } = source;
        match self.ledger.is_copy_doubted(self.run, &object.key).await {
            Ok(false) => {}
            Ok(true) => return Ok(false),
            Err(error) => {
                self.halt(Halt::Record(error));
                return Err(Stays::Stopped);
            }
        }
        let Ok(_permit) = aside.at_once.acquire().await else { return Err(Stays::Stopped) };
        match retry::read_with_retries(&self.stop, || aside.copier.head(target)).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(_) if self.is_halted() => return Err(Stays::Stopped),
            Err(error) => return Err(failed(&object.key, error)),
        }
        let place = Place::current(&self.scope.bucket, object.key.clone());
        match compare(aside.copier, &self.stop, (&place, seen), target).await {
            Ok(Transferred::Done) => Ok(true),
            // The object went, or changed, while it was read.
            Ok(Transferred::Refused) => {
                self.look_at(aside, object).await?;
                Err(failed(&object.key, "it could not be compared with the copy that an earlier process made"))
            }
            Err(TransferError::Store(_)) if self.is_halted() => Err(Stays::Stopped),
            // One that was proven once, and is of another object: it may be all that is left of that one.
            Err(error) => Err(failed(&object.key, error)),
        }
    }

    async fn copy_aside(&self, aside: &Aside<'_>, source: Source) -> Result<Object, Stays> {
        let Ok(_permit) = aside.at_once.acquire().await else { return Err(Stays::Stopped) };
        if self.is_halted() {
            return Err(Stays::Stopped);
        }
        let Source { object, seen, target } = source;
        let place = Place::current(&self.scope.bucket, object.key.clone());
        match transfer(aside.copier, &self.stop, (&place, &seen), (&target, WriteWhen::Always)).await {
            Ok(Transferred::Done) => Ok(object),
            Ok(Transferred::Refused) => Err(Stays::Changed(object.key)),
            Err(TransferError::Store(_)) if self.is_halted() => Err(Stays::Stopped),
            Err(error) => {
                tracing::warn!(key = %crate::model::visible(object.key.as_str()), error = %error, "an object could not be copied aside; it stays");
                Err(failed(&object.key, error))
            }
        }
    }

    /// Settles what is decided already; gives what goes on.
    async fn sort_out<T>(&self, looked: Vec<Result<T, Stays>>) -> Result<Vec<T>, SkipReason> {
        let (mut on, mut settled) = (Vec::with_capacity(looked.len()), Vec::new());
        let (mut is_changed, mut is_stopped) = (false, false);
        for object in looked {
            match object {
                Ok(object) => on.push(object),
                Err(Stays::Gone(key)) => settled.push((key, KeyOutcome::AlreadyGone, "NoSuchKey".to_owned())),
                Err(Stays::Failed(key, why)) => settled.push((key, KeyOutcome::Failed, why)),
                // Known to be another one by this process, which asked for nothing of it.
                Err(Stays::Changed(key)) => {
                    is_changed = true;
                    settled.push((key, KeyOutcome::Skipped, SkipReason::ChangedSincePlan.as_str().to_owned()));
                }
                Err(Stays::Stopped) => is_stopped = true,
            }
        }
        self.settle(settled).await;
        if is_changed {
            return Err(SkipReason::ChangedSincePlan);
        }
        if is_stopped || self.is_halted() {
            return Err(SkipReason::RunEnded);
        }
        Ok(on)
    }
}

fn failed(key: &ObjectKey, why: impl std::fmt::Display) -> Stays {
    Stays::Failed(key.clone(), format!("quarantine_failed: {why}"))
}

fn keys_of<'o>(objects: impl IntoIterator<Item = &'o Object>) -> Vec<&'o ObjectKey> {
    objects.into_iter().map(|object| &object.key).collect()
}
