//! One id: verified as a whole, then deleted group by group, chunk by chunk.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use parking_lot::Mutex;

use super::batch::{self, Batch, BatchTask, Guard};
use super::{Candidate, Disposal, Halt};
use crate::clock::Stopwatch;
use crate::decide::Orphan;
use crate::list::content::{self, Chunks, ContentError};
use crate::list::pages::Pages;
use crate::model::{Group, GroupContent, Object, Sha256Hash};
use crate::parse::prefix_of;
use crate::plan::PlanGroup;
use crate::record::REFUSED;

/// Batches of one group that may be on their way while its listing goes on.
const BATCHES_IN_FLIGHT: usize = 4;

/// Why a group of a plan is not deleted after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// A re-check saw a row with its id.
    LiveAgain,
    /// It is not what the plan says.
    ChangedSincePlan,
    /// A person protects it.
    Held,
    /// A person rejected it.
    Rejected,
    /// Nobody approved it, where a person must.
    NotApproved,
    /// Somebody has begun a multipart upload under its id.
    UploadInProgress,
    /// The run ended first.
    RunEnded,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::LiveAgain,
        Self::ChangedSincePlan,
        Self::Held,
        Self::Rejected,
        Self::NotApproved,
        Self::UploadInProgress,
        Self::RunEnded,
    ];

    /// The word in `deletions.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LiveAgain => "live_again",
            Self::ChangedSincePlan => "changed_since_plan",
            Self::Held => "held",
            Self::Rejected => "rejected",
            Self::NotApproved => "not_approved",
            Self::UploadInProgress => "upload_in_progress",
            Self::RunEnded => "run_ended",
        }
    }
}

/// What ended the work on a group.
pub(super) enum Ended {
    /// Every chunk was asked for.
    Done,
    /// It is left for a reason that is final for this plan.
    Skipped(SkipReason),
    /// The store did not answer; the rest is left for another run.
    Unread,
}

/// A group whose intents are settled.
struct Closed<'c> {
    group: &'c PlanGroup,
    /// Whether the store lists nothing of it.
    is_gone: bool,
    /// Whether it is kept for a reason that is final for this run.
    is_kept: bool,
}

impl Disposal<'_> {
    /// Deletes what the plan says of one id, if it is still what the plan says.
    ///
    /// The whole id is verified before each of its groups: what was written under one of them keeps the others.
    pub(super) async fn dispose_of(&self, candidate: &Candidate) {
        let mut closed = Vec::new();
        self.dispose_of_groups(candidate, &mut closed).await;
        let is_gone = closed.len() == candidate.planned.len() && closed.iter().all(|closed| closed.is_gone);
        // What is gone of an id that is kept in part is still needed: it must never be taken for somebody's change.
        let over: Vec<&PlanGroup> =
            closed.into_iter().filter(|closed| is_gone || closed.is_kept).map(|closed| closed.group).collect();
        self.note_over(&over).await;
    }

    /// Tells what is over.
    pub(super) async fn note_over(&self, groups: &[&PlanGroup]) {
        if !groups.is_empty()
            && let Err(halt) = self.closing.over(groups).await
        {
            self.halt(halt);
        }
    }

    async fn dispose_of_groups<'c>(&self, candidate: &'c Candidate, closed: &mut Vec<Closed<'c>>) {
        for (position, planned) in candidate.planned.iter().enumerate() {
            if self.is_halted() {
                return;
            }
            let ended = if self.uploads.is_under(candidate.id).await {
                Ended::Skipped(SkipReason::UploadInProgress)
            } else {
                match self.verify(candidate).await {
                    Ok(Some(contents)) => self.delete_group(candidate, planned, &contents[position]).await,
                    Ok(None) => Ended::Skipped(SkipReason::ChangedSincePlan),
                    Err(error) => return self.note_unread(candidate, error),
                }
            };
            if let Ended::Skipped(reason) = ended {
                self.skip_rest(candidate, planned, reason).await;
            }
            closed.extend(self.close_group(candidate, planned, &ended).await);
            match ended {
                Ended::Done => {}
                Ended::Unread | Ended::Skipped(SkipReason::RunEnded) => return,
                Ended::Skipped(reason) => {
                    for rest in &candidate.planned[position + 1..] {
                        closed.extend(self.skip_group(candidate, rest, reason).await);
                    }
                    return;
                }
            }
        }
    }

    /// Leaves a group for another run, because it or the journal could not be read.
    fn note_unread(&self, candidate: &Candidate, error: ContentError) {
        match error {
            ContentError::Record(error) => self.halt(Halt::Record(error)),
            ContentError::Store(error) => {
                tracing::warn!(dataset_id = %candidate.id, error = %error, "group could not be read; it is left for another run");
                self.unread.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Opens every group that the id can have. `None`: it is not what the plan and the sightings say.
    async fn verify(&self, candidate: &Candidate) -> Result<Option<Vec<GroupContent>>, ContentError> {
        let mut orphan = Orphan { groups: Vec::new() };
        let canonical = (0_u8..).take(self.scope.patterns.len()).map(|pattern| Group {
            id: candidate.id,
            pattern,
            odd_spelling: None,
        });
        let mut groups: Vec<Group> = canonical.chain(candidate.odd.iter().cloned()).collect();
        groups.sort_unstable();
        let intents = self.ledger.sent_intents(&self.scope.name);
        for group in groups {
            let prefix = prefix_of(&group, &self.scope.patterns);
            let content = content::open(self.store, &prefix, Some(&intents), &self.stop, |_| {}).await?;
            orphan.groups.push((group, content));
        }
        let sighting = self.ledger.sighting(&self.scope.name, candidate.id).await?;
        let expected = candidate.planned.first().map(|planned| planned.first_run);
        let is_unchanged = sighting.as_ref().is_some_and(|sighting| sighting.digest == orphan.digest());
        if sighting.is_some() && !is_unchanged {
            // Somebody writes here: should it look the same again tomorrow, its sightings start anew all the same.
            self.ledger.spoil(&self.scope.name, candidate.id).await?;
        }
        let is_as_seen = is_unchanged && sighting.is_some_and(|sighting| Some(sighting.first_run) == expected);
        let mut contents = Vec::with_capacity(candidate.planned.len());
        for planned in &candidate.planned {
            let found =
                orphan.groups.iter().find(|(group, _)| prefix_of(group, &self.scope.patterns) == planned.prefix);
            match found {
                Some((_, content)) if is_as_seen && content.digest == planned.digest => contents.push(content.clone()),
                _ => return Ok(None),
            }
        }
        Ok(Some(contents))
    }

    /// Deletes the group by as many listings as its pace takes: what waited too long for the budget is listed again.
    async fn delete_group(&self, candidate: &Candidate, planned: &PlanGroup, verified: &GroupContent) -> Ended {
        loop {
            if let Some(ended) = self.delete_listed(candidate, planned, verified).await {
                return ended;
            }
        }
    }

    /// Lists the group again and deletes it chunk by chunk; each chunk must be the one that was verified. `None`: the listing
    /// became too old before all of it was asked for.
    ///
    /// Listing and deleting are polled together: a batch that waited for the listing could hold the journal that the
    /// listing waits for.
    async fn delete_listed(
        &self,
        candidate: &Candidate,
        planned: &PlanGroup,
        verified: &GroupContent,
    ) -> Option<Ended> {
        let intents = self.ledger.sent_intents(&self.scope.name);
        let chunks = Chunks::new(self.store, &planned.prefix, Some(&intents), &self.stop);
        let left = Mutex::new(None);
        let is_stale = AtomicBool::new(false);
        let source = futures::stream::unfold((chunks, verified.chunks.iter()), |(mut chunks, mut expected)| {
            let (left, is_stale) = (&left, &is_stale);
            async move {
                // The right to send comes first: what waits for it after it was listed would be deleted by an old listing.
                let permit = self.limiter.acquire().await;
                if left.lock().is_some() || is_stale.load(Ordering::Relaxed) {
                    return None;
                }
                if let Err(reason) = self.wait_for_budget(None).await {
                    left.lock().get_or_insert(Ended::Skipped(reason));
                    return None;
                }
                match self.next_chunk(candidate, &mut chunks, expected.next()).await {
                    Ok((objects, asked)) => Some(((permit, objects, asked), (chunks, expected))),
                    Err(why) => {
                        left.lock().get_or_insert(why);
                        None
                    }
                }
            }
        });
        let deletions = source.map(|(permit, objects, listed)| {
            let (left, is_stale) = (&left, &is_stale);
            async move {
                for batch in split(objects, self.pacer.pace().largest_batch()) {
                    if let Err(reason) = self.wait_for_budget(Some(batch.objects.len())).await {
                        *left.lock() = Some(Ended::Skipped(reason));
                        break;
                    }
                    if batch::is_stale(listed) {
                        is_stale.store(true, Ordering::Relaxed);
                        break;
                    }
                    let task = BatchTask {
                        id: candidate.id,
                        first_run: Some(planned.first_run),
                        prefix: &planned.prefix,
                        listed,
                        left,
                        guard: Guard::NoRow,
                    };
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
        match why {
            Some(Ended::Done) | None if is_stale.load(Ordering::Relaxed) => None,
            why => Some(why.unwrap_or(Ended::Done)),
        }
    }

    /// The objects of the next chunk, if it is the one that was verified, and since when their listing ages.
    async fn next_chunk(
        &self,
        candidate: &Candidate,
        chunks: &mut Chunks<'_>,
        expected: Option<&Sha256Hash>,
    ) -> Result<(Vec<Object>, Stopwatch), Ended> {
        if self.is_halted() {
            return Err(Ended::Skipped(SkipReason::RunEnded));
        }
        let chunk = chunks.next().await.map_err(|error| {
            self.note_unread(candidate, error);
            Ended::Unread
        })?;
        match (chunk, expected) {
            (None, None) => Err(Ended::Done),
            (Some(chunk), Some(expected)) if chunk.digest == *expected => Ok((chunk.listed, chunk.asked)),
            (Some(_) | None, Some(_)) | (Some(_), None) => Err(Ended::Skipped(SkipReason::ChangedSincePlan)),
        }
    }

    /// Keeps a group that this run's own scan took out of the plan.
    pub(super) async fn keep_group(&self, candidate: &Candidate, planned: &PlanGroup, reason: SkipReason) {
        let closed = self.skip_group(candidate, planned, reason).await;
        if closed.is_some_and(|closed| closed.is_kept) {
            self.note_over(&[planned]).await;
        }
    }

    async fn skip_group<'c>(
        &self,
        candidate: &Candidate,
        planned: &'c PlanGroup,
        reason: SkipReason,
    ) -> Option<Closed<'c>> {
        self.skip_rest(candidate, planned, reason).await;
        self.close_group(candidate, planned, &Ended::Skipped(reason)).await
    }

    /// Notes every object that is still listed and was not asked for, with the reason.
    async fn skip_rest(&self, candidate: &Candidate, planned: &PlanGroup, reason: SkipReason) {
        if reason == SkipReason::RunEnded {
            return;
        }
        let intent = self.intent(candidate.id, &planned.prefix, 0);
        let mut pages = Pages::new(self.store, &planned.prefix, false, &self.stop);
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    if let Err(error) = self.ledger.skip(&intent, &page.objects, reason.as_str()).await {
                        return self.halt(Halt::Record(error));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(dataset_id = %candidate.id, error = %error, "skipped objects could not be listed for the report");
                    return;
                }
            }
        }
    }

    /// Looks at what is left of a group and settles every intent by it; none where that could not be done.
    async fn close_group<'c>(
        &self,
        candidate: &Candidate,
        planned: &'c PlanGroup,
        ended: &Ended,
    ) -> Option<Closed<'c>> {
        let left_because = match ended {
            Ended::Skipped(reason) => reason.as_str(),
            Ended::Done | Ended::Unread => "interrupted",
        };
        let is_gone = match self.settle_group(candidate.id, &planned.prefix, left_because).await {
            Ok(is_gone) => is_gone,
            Err(error) => {
                self.note_unread(candidate, error);
                return None;
            }
        };
        let intent = self.intent(candidate.id, &planned.prefix, 0);
        let outcome = match (is_gone, ended) {
            (true, _) => "gone",
            (false, Ended::Skipped(reason)) => reason.as_str(),
            (false, Ended::Done) => match self.ledger.is_refused(&intent).await {
                Ok(true) => REFUSED,
                Ok(false) => "remains",
                Err(error) => {
                    self.halt(Halt::Record(error));
                    return None;
                }
            },
            (false, Ended::Unread) => "unread",
        };
        if let Err(error) = self.ledger.note_disposal(&intent, outcome, self.clock.now()).await {
            self.halt(Halt::Record(error));
            return None;
        }
        let is_kept = !is_gone && matches!(ended, Ended::Skipped(reason) if *reason != SkipReason::RunEnded);
        Some(Closed { group: planned, is_gone, is_kept })
    }
}

/// Splits a chunk into batches of at most `largest` objects: what one request can name, and what needs a request each.
pub(super) fn split(objects: Vec<Object>, largest: usize) -> impl Iterator<Item = Batch> {
    let (together, singly): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.key.is_xml_safe());
    [(together, false), (singly, true)].into_iter().flat_map(move |(mut rest, singly)| {
        std::iter::from_fn(move || {
            let later = rest.split_off(largest.min(rest.len()));
            let objects = std::mem::replace(&mut rest, later);
            (!objects.is_empty()).then_some(Batch { objects, singly })
        })
    })
}
