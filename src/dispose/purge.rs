//! The objects of purged datasets: every canonical group of an id, by the path of every other deletion.
//!
//! Takes an id whose row our own committed transaction removed; gives one outcome for each key that was listed. There is no plan to
//! compare with: what lay under the id goes, because a person asked for it. Invariant: the row is asked for again before each
//! attempt, with proof; an id that is live again loses nothing more. What was written long after the row went is nothing that
//! the person knew of, and stays.

use std::collections::HashSet;

use futures::StreamExt;
use parking_lot::Mutex;

use super::batch::{BatchTask, Guard};
use super::group::{Ended, SkipReason, split};
use super::settle::WRITTEN_ANEW;
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::config::Scope;
use crate::list::content::ContentError;
use crate::list::pages::Pages;
use crate::list::references::References;
use crate::model::{DatasetId, Object, Timestamp};
use crate::record::{KeyOutcome, REFUSED, RecordError};

/// Batches of one group that may be on their way while its listing goes on.
const BATCHES_IN_FLIGHT: usize = 4;

/// How long after its row went a dataset's writer may still have been at work, beside what the clocks differ: what is newer is
/// none of what the person meant.
const WRITTEN_WITHIN: chrono::Duration = chrono::Duration::hours(1);

/// What became of the objects of one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// The store lists nothing of it.
    Whole,
    /// Something is left.
    Partly,
}

impl<'d> Disposal<'d> {
    /// Leaves these ids alone, which an earlier process saw live again.
    #[must_use]
    pub fn without(self, live_again: HashSet<DatasetId>) -> Self {
        *self.seen_live.lock() = live_again;
        self
    }

    /// Keeps also what is held in these scopes, whose objects the same rows keep alive.
    #[must_use]
    pub fn beside(mut self, others: impl IntoIterator<Item = (&'d Scope, &'d dyn References)>) -> Self {
        others.into_iter().for_each(|(scope, references)| self.objections.heed(scope, references));
        self
    }

    /// Deletes what lies under these ids, whose rows went at `purged_at`, several at once. Says why it ended early, if it did; the
    /// journal has every outcome.
    pub async fn clear(&self, ids: &[DatasetId], purged_at: Timestamp) -> (Vec<(DatasetId, Cleared)>, Option<Halt>) {
        let until = purged_at + WRITTEN_WITHIN;
        let work = futures::stream::iter(ids).map(|id| async move { (*id, self.clear_id(*id, until).await) });
        let cleared = work.buffer_unordered(super::IDS_IN_FLIGHT).collect().await;
        self.is_halted();
        (cleared, self.halt.lock().take())
    }

    async fn clear_id(&self, id: DatasetId, until: Timestamp) -> Cleared {
        let mut is_whole = true;
        for pattern in &self.scope.patterns {
            is_whole &= self.clear_group(id, &pattern.prefix_of(id), until).await;
        }
        if is_whole { Cleared::Whole } else { Cleared::Partly }
    }

    /// Deletes what lies under one prefix; says whether nothing is left of it.
    async fn clear_group(&self, id: DatasetId, prefix: &str, until: Timestamp) -> bool {
        let ended = self.clear_listed(id, prefix, until).await;
        let left_because = match ended {
            Ended::Skipped(reason) => reason.as_str(),
            Ended::Done | Ended::Unread => "interrupted",
        };
        let is_gone = match self.settle_group(id, prefix, left_because).await {
            Ok(is_gone) => is_gone,
            Err(error) => {
                self.note_uncleared(id, error);
                return false;
            }
        };
        let intent = self.intent(id, prefix, 0);
        let outcome = match (is_gone, &ended) {
            (true, _) => Ok("gone"),
            (false, Ended::Skipped(reason)) => Ok(reason.as_str()),
            (false, Ended::Unread) => Ok("unread"),
            (false, Ended::Done) => {
                self.ledger.is_refused(&intent).await.map(|is_refused| if is_refused { REFUSED } else { "remains" })
            }
        };
        let noted = match outcome {
            Ok(outcome) => self.ledger.note_disposal(&intent, outcome, self.clock.now()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            self.halt(Halt::Record(error));
        }
        is_gone
    }

    /// Lists the group and deletes it page by page, several batches at once.
    async fn clear_listed(&self, id: DatasetId, prefix: &str, until: Timestamp) -> Ended {
        if self.seen_live.lock().contains(&id) {
            return Ended::Skipped(SkipReason::LiveAgain);
        }
        let left = Mutex::new(None);
        let pages = Pages::new(self.store, prefix, false, &self.stop);
        let source = futures::stream::unfold(pages, |mut pages| {
            let left = &left;
            async move {
                let permit = self.limiter.acquire().await;
                if left.lock().is_some() || self.is_halted() {
                    return None;
                }
                let listed = Stopwatch::start();
                match pages.next().await {
                    Ok(Some(page)) => Some(((permit, page.objects, listed), pages)),
                    Ok(None) => None,
                    Err(error) => {
                        self.note_uncleared(id, ContentError::Store(error));
                        left.lock().get_or_insert(Ended::Unread);
                        None
                    }
                }
            }
        });
        let deletions = source.map(|(permit, objects, listed)| {
            let left = &left;
            async move {
                let objects = match self.meant(id, prefix, objects, until).await {
                    Ok(objects) => objects,
                    Err(error) => {
                        self.halt(Halt::Record(error));
                        return;
                    }
                };
                for batch in split(objects, crate::model::CHUNK_OBJECTS) {
                    let task = BatchTask { id, first_run: None, prefix, listed, left, guard: Guard::NoRow };
                    if let Err(reason) = self.delete_batch(&task, batch).await {
                        *left.lock() = Some(Ended::Skipped(reason));
                        break;
                    }
                }
                drop(permit);
            }
        });
        // What is in flight is always finished: a request that was sent needs its outcome.
        deletions.buffer_unordered(BATCHES_IN_FLIGHT).collect::<()>().await;
        let why = left.lock().take();
        why.unwrap_or(if self.is_halted() { Ended::Skipped(SkipReason::RunEnded) } else { Ended::Done })
    }

    /// The objects that were meant when the row went; those that came later are noted as kept.
    async fn meant(
        &self,
        id: DatasetId,
        prefix: &str,
        objects: Vec<Object>,
        until: Timestamp,
    ) -> Result<Vec<Object>, RecordError> {
        // A process before this one may have copied and deleted what lay there first: its copy and its outcome stay what they are.
        let intent = self.intent(id, prefix, 0);
        let anew = self.ledger.written_anew(intent.scope, intent.plan, &objects).await?;
        let unknown = anew.iter().filter(|(_, is_known)| !**is_known);
        let unknown = unknown.map(|(key, _)| (key.clone(), KeyOutcome::Unconfirmed, WRITTEN_ANEW.to_owned()));
        self.settle(unknown.collect()).await;
        let is_meant = |object: &Object| {
            object.credible_last_modified().is_some_and(|written| written <= until) && !anew.contains_key(&object.key)
        };
        let (meant, later): (Vec<Object>, Vec<Object>) = objects.into_iter().partition(is_meant);
        if !later.is_empty() {
            tracing::warn!(dataset_id = %id, objects = later.len(), "objects were written after the dataset was purged; they are an orphan for the next sweep");
            self.ledger.skip(&intent, &later, SkipReason::ChangedSincePlan.as_str()).await?;
        }
        Ok(meant)
    }

    /// Leaves the rest of an id, because it or the journal could not be read.
    fn note_uncleared(&self, id: DatasetId, error: ContentError) {
        match error {
            ContentError::Record(error) => self.halt(Halt::Record(error)),
            ContentError::Store(error) => {
                tracing::warn!(dataset_id = %id, error = %error, "the objects of a purged dataset could not be read; what is left is an orphan");
            }
        }
    }
}
