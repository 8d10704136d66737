//! The objects of purged datasets: every canonical group of an id, by the path of every other deletion.
//!
//! Takes an id whose row our own committed transaction removed; gives one outcome for each key that was listed. There is no plan to
//! compare with: what lies under the id goes, because a person asked for it. Invariant: the row is asked for again before each
//! attempt, with proof; an id that is live again loses nothing more.

use std::collections::HashSet;

use futures::StreamExt;
use parking_lot::Mutex;

use super::batch::{BatchTask, Guard};
use super::group::{Ended, SkipReason, split};
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::list::content::ContentError;
use crate::list::pages::Pages;
use crate::model::DatasetId;
use crate::record::REFUSED;

/// Batches of one group that may be on their way while its listing goes on.
const BATCHES_IN_FLIGHT: usize = 4;

/// What became of the objects of one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// The store lists nothing of it.
    Whole,
    /// Something is left.
    Partly,
}

impl Disposal<'_> {
    /// Leaves these ids alone, which an earlier process saw live again.
    #[must_use]
    pub fn without(self, live_again: HashSet<DatasetId>) -> Self {
        *self.seen_live.lock() = live_again;
        self
    }

    /// Deletes what lies under these ids, several at once. Says why it ended early, if it did; the journal has every outcome.
    pub async fn clear(&self, ids: &[DatasetId]) -> (Vec<(DatasetId, Cleared)>, Option<Halt>) {
        let work = futures::stream::iter(ids).map(|id| async move { (*id, self.clear_id(*id).await) });
        let cleared = work.buffer_unordered(super::IDS_IN_FLIGHT).collect().await;
        self.is_halted();
        (cleared, self.halt.lock().take())
    }

    async fn clear_id(&self, id: DatasetId) -> Cleared {
        let mut is_whole = true;
        for pattern in &self.scope.patterns {
            is_whole &= self.clear_group(id, &pattern.prefix_of(id)).await;
        }
        if is_whole { Cleared::Whole } else { Cleared::Partly }
    }

    /// Deletes what lies under one prefix; says whether nothing is left of it.
    async fn clear_group(&self, id: DatasetId, prefix: &str) -> bool {
        let ended = self.clear_listed(id, prefix).await;
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
    async fn clear_listed(&self, id: DatasetId, prefix: &str) -> Ended {
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
