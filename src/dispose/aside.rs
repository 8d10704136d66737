//! Quarantine: before a batch is deleted, each of its objects is copied aside and the copy is proven.
//!
//! Takes a batch whose intent is on the disk; gives the objects that may go. Invariant: an object goes only if a proven
//! copy of it lies in this run's own folder of the quarantine, and if it was still the listed object after every copy of its
//! batch was proven. The race that this closes: somebody writes to a key while the copies are made, which may take long.

use futures::StreamExt;
use tokio::sync::Semaphore;

use super::batch::BatchTask;
use super::group::SkipReason;
use super::transfer::{TransferError, Transferred, transfer};
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::model::{Object, ObjectKey};
use crate::record::{KeyOutcome, RecordError};
use crate::s3::{CopyStore, Place, WriteWhen, retry};

/// Copies that a run makes at the same time.
const COPIES_AT_ONCE: usize = 8;
/// Sources that a batch looks at again at the same time.
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
    at_once: Semaphore,
}

/// What became of one object.
enum Moved {
    /// A proven copy of it lies aside.
    Copied(Object),
    /// It was gone before.
    Gone(ObjectKey),
    /// It is another object than the plan's.
    Changed,
    /// There is no proven copy, so it stays.
    Failed(ObjectKey, String),
    /// The run was told to stop first.
    Stopped,
}

impl<'d> Aside<'d> {
    /// The folder at `prefix` of `bucket`.
    pub fn new(copier: &'d dyn CopyStore, bucket: &str, prefix: &str) -> Self {
        let at_once = Semaphore::new(COPIES_AT_ONCE);
        Self { copier, bucket: bucket.to_owned(), prefix: prefix.to_owned(), at_once }
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
        // Before any is made: a process that dies between a copy and its proof leaves one that nobody may ever bring back.
        let keys: Vec<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
        self.note(self.ledger.doubt_copies(self.run, &keys).await)?;
        let copies = futures::stream::iter(objects).map(|object| self.copy_aside(aside, object));
        let copied = self.sort_out(copies.buffered(COPIES_AT_ONCE).collect().await).await?;
        let keys: Vec<&ObjectKey> = copied.iter().map(|object| &object.key).collect();
        self.note(self.ledger.trust_copies(self.run, &keys).await)?;
        // Copying may take long: what was written meanwhile is another object, and stays.
        let confirmed = Stopwatch::start();
        let looks = futures::stream::iter(copied).map(|object| self.look_again(aside, object));
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

    async fn copy_aside(&self, aside: &Aside<'_>, object: Object) -> Moved {
        let Ok(_permit) = aside.at_once.acquire().await else { return Moved::Stopped };
        if self.is_halted() {
            return Moved::Stopped;
        }
        let failed = |object: Object, why: String| Moved::Failed(object.key, format!("quarantine_failed: {why}"));
        let target = match aside.place_of(&object.key) {
            Ok(target) => target,
            Err(why) => return failed(object, why),
        };
        let source = Place::current(&self.scope.bucket, object.key.clone());
        let seen = match retry::read_with_retries(&self.stop, || aside.copier.head(&source)).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Moved::Gone(object.key),
            Err(_) if self.is_halted() => return Moved::Stopped,
            Err(error) => return failed(object, error.to_string()),
        };
        if !seen.is_of(&object) {
            return Moved::Changed;
        }
        match transfer(aside.copier, &self.stop, (&source, &seen), (&target, WriteWhen::Always)).await {
            Ok(Transferred::Done) => Moved::Copied(object),
            Ok(Transferred::Refused) => Moved::Changed,
            Err(TransferError::Store(_)) if self.is_halted() => Moved::Stopped,
            Err(error) => {
                tracing::warn!(key = %crate::model::visible(object.key.as_str()), error = %error, "an object could not be copied aside; it stays");
                failed(object, error.to_string())
            }
        }
    }

    async fn look_again(&self, aside: &Aside<'_>, object: Object) -> Moved {
        let source = Place::current(&self.scope.bucket, object.key.clone());
        match retry::read_with_retries(&self.stop, || aside.copier.head(&source)).await {
            Ok(Some(seen)) if seen.is_of(&object) => Moved::Copied(object),
            Ok(Some(_)) => Moved::Changed,
            Ok(None) => Moved::Gone(object.key),
            Err(_) if self.is_halted() => Moved::Stopped,
            Err(error) => Moved::Failed(object.key, format!("quarantine_failed: {error}")),
        }
    }

    /// Settles what is decided already; gives the objects that are still to go.
    async fn sort_out(&self, moved: Vec<Moved>) -> Result<Vec<Object>, SkipReason> {
        let (mut copied, mut settled) = (Vec::with_capacity(moved.len()), Vec::new());
        let (mut is_changed, mut is_stopped) = (false, false);
        for object in moved {
            match object {
                Moved::Copied(object) => copied.push(object),
                Moved::Gone(key) => settled.push((key, KeyOutcome::AlreadyGone, "NoSuchKey".to_owned())),
                Moved::Failed(key, why) => settled.push((key, KeyOutcome::Failed, why)),
                Moved::Changed => is_changed = true,
                Moved::Stopped => is_stopped = true,
            }
        }
        self.settle(settled).await;
        if is_changed {
            return Err(SkipReason::ChangedSincePlan);
        }
        if is_stopped || self.is_halted() {
            return Err(SkipReason::RunEnded);
        }
        Ok(copied)
    }
}
