//! One batch: intent, re-check, request, outcome. Every attempt has its own re-check.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::group::{Ended, SkipReason};
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::list::references::{ReferencesError, WithoutSentinels};
use crate::metrics;
use crate::model::{DatasetId, Object, ObjectKey, RunId};
use crate::record::{KeyOutcome, OBJECT_LOCK, RecordError};
use crate::s3::{KeyReply, StoreError, StoreFault, retry};

/// Up to 1000 objects of one group.
pub(super) struct Batch {
    pub(super) objects: Vec<Object>,
    /// Whether XML cannot carry the keys, so that each needs a request of its own.
    pub(super) singly: bool,
}

/// What a batch belongs to.
#[derive(Clone, Copy)]
pub(super) struct BatchTask<'b> {
    pub(super) id: DatasetId,
    /// The scan that saw it first, where a plan lets it go: its sightings must go on.
    pub(super) first_run: Option<RunId>,
    pub(super) prefix: &'b str,
    /// When its objects were listed, or looked at again.
    pub(super) listed: Stopwatch,
    /// Why the group was given up, if it was.
    pub(super) left: &'b Mutex<Option<Ended>>,
    /// What must hold for its keys to go.
    pub(super) guard: Guard<'b>,
}

/// What must hold for keys to go, asked anew before each attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guard<'b> {
    /// Their id has no row, by the primary and with proof.
    NoRow,
    /// They are copies in quarantine, and what lies at the key of each one's original is the same object.
    SameOriginal(&'b BTreeMap<ObjectKey, Object>),
}

/// A listing older than this is no ground for an attempt: somebody may have written since.
const LISTING_LIVES: Duration = Duration::from_secs(60);

/// The reason of a key that no attempt was made for, because its listing had become too old by then.
const LISTING_TOO_OLD: &str = "listing_too_old";

/// Whether a listing is too old for an attempt.
pub(super) fn is_stale(listed: Stopwatch) -> bool {
    listed.elapsed() >= crate::failpoint::listing_lives().unwrap_or(LISTING_LIVES)
}

/// What one attempt left to be tried again.
struct Attempt {
    settled: Vec<(ObjectKey, KeyOutcome, String)>,
    again: Vec<(ObjectKey, String)>,
    /// Whether the store may still be working on it.
    is_in_flight: bool,
}

impl Disposal<'_> {
    /// Deletes one batch, in as many attempts as it takes and is allowed.
    ///
    /// - Errors: why it was left. Keys that were not sent stay without an outcome, and end as skipped when the group is
    ///   settled; those that the store may still be working on are unconfirmed.
    pub(super) async fn delete_batch(&self, task: &BatchTask<'_>, batch: Batch) -> Result<(), SkipReason> {
        self.may_send(task)?;
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let intent = self.intent(task.id, task.prefix, number);
        crate::failpoint::reach("before_intent");
        if let Err(error) = self.write_intent(&intent, &batch.objects).await {
            self.halt(Halt::Record(error));
            return Err(SkipReason::RunEnded);
        }
        crate::failpoint::reach("after_intent");
        let sizes = batch.objects.len() as u64;
        let (objects, listed) = Box::pin(self.set_aside(task, batch.objects)).await?;
        let task = &BatchTask { listed, ..*task };
        let mut again: Vec<(ObjectKey, String)> =
            objects.into_iter().map(|object| (object.key, String::new())).collect();
        let (mut singly, mut failed_attempts, mut is_in_flight) = (batch.singly, 0, false);
        while !again.is_empty() {
            let asked = match task.guard {
                Guard::NoRow => self.ask_again(task).await,
                Guard::SameOriginal(copies) => self.look_for_originals(task, copies, &again).await,
            };
            let proof = match asked {
                Ok(proof) => proof,
                Err(reason) => {
                    if is_in_flight {
                        self.settle(with_outcome(again, KeyOutcome::Unconfirmed, reason.as_str())).await;
                    }
                    return Err(reason);
                }
            };
            // Writing the intent and asking may have taken long: what was listed by then may be another object by now. Copies in
            // quarantine are written by nobody else, so their listing may age; of a purged dataset what is written meanwhile goes too.
            if task.first_run.is_some() && is_stale(task.listed) {
                self.give_up(std::mem::take(&mut again), is_in_flight, LISTING_TOO_OLD).await;
                break;
            }
            crate::failpoint::reach("before_send");
            let keys: Vec<ObjectKey> = again.into_iter().map(|(key, _)| key).collect();
            let attempt =
                if singly { self.send_singly(&keys, proof).await } else { self.send_together(&keys, proof).await };
            crate::failpoint::reach("after_send");
            let fault = attempt.as_ref().err().map(|error| error.fault.clone());
            let attempt = match attempt {
                Ok(attempt) => attempt,
                Err(error) if is_malformed(&error) && !singly => {
                    // Some key among them cannot stand in XML after all, and spoils the others.
                    singly = true;
                    again = keys.into_iter().map(|key| (key, String::new())).collect();
                    continue;
                }
                Err(error) => explain(&keys, &error),
            };
            is_in_flight |= attempt.is_in_flight;
            // Only attempts that brought nothing forward are counted: many single deletions outlast one proof.
            failed_attempts = if attempt.settled.is_empty() { failed_attempts + 1 } else { 0 };
            self.settle(attempt.settled).await;
            crate::failpoint::reach("after_outcome");
            again = attempt.again;
            let may_go_on = again.is_empty()
                || failed_attempts < retry::MAX_ATTEMPTS
                    && !is_stale(task.listed)
                    && retry::wait_before_retry(failed_attempts, &self.stop).await;
            if !may_go_on {
                self.give_up(std::mem::take(&mut again), is_in_flight, "").await;
            } else if !again.is_empty() {
                // A reply that asks to try keys later is a throttle.
                let fault = fault.unwrap_or_else(|| StoreFault::Throttled(String::new()));
                metrics::request_retried(if singly { "DeleteObject" } else { "DeleteObjects" }, &fault);
            }
        }
        self.finished_batches.fetch_add(1, Ordering::Relaxed);
        (self.progress)(sizes);
        tracing::info!(target: "deletions", dataset_id = %task.id, object_count = sizes, batch = number, "batch done");
        Ok(())
    }

    /// Ends keys that no attempt brought to an end: each with what the store said of it last, else with `because`.
    async fn give_up(&self, keys: Vec<(ObjectKey, String)>, is_in_flight: bool, because: &str) {
        if is_in_flight {
            return self.settle(with_last_word(keys, KeyOutcome::Unconfirmed, because)).await;
        }
        // Told to stop between two attempts: they stay without an outcome and are skipped.
        if !self.stop.is_cancelled() {
            self.settle(with_last_word(keys, KeyOutcome::Failed, because)).await;
        }
    }

    /// Whether another request of this group may leave.
    pub(super) fn may_send(&self, task: &BatchTask<'_>) -> Result<(), SkipReason> {
        if self.is_halted() {
            return Err(SkipReason::RunEnded);
        }
        match &*task.left.lock() {
            Some(Ended::Skipped(reason)) => Err(*reason),
            // The end of the listing, and a fault in it, are no word against what was listed before.
            Some(Ended::Done | Ended::Unread) | None => Ok(()),
        }
    }

    /// Asks the primary whether the id has a row, with proof. The answer's age counts from before it was asked.
    async fn ask_again(&self, task: &BatchTask<'_>) -> Result<Stopwatch, SkipReason> {
        self.may_send(task)?;
        let id = task.id;
        match self.objections.against(id).await {
            Ok(None) => {}
            Ok(Some(reason)) => {
                tracing::warn!(dataset_id = %id, reason = reason.as_str(), "a person objects; nothing more of it is deleted");
                return Err(reason);
            }
            Err(why) => {
                self.halt(why);
                return Err(SkipReason::RunEnded);
            }
        }
        let proof = Stopwatch::start();
        match self.recheck(id).await {
            Ok(live) if live.contains(&id) => {
                tracing::warn!(dataset_id = %id, "the dataset has a row again; nothing more of it is deleted");
                self.seen_live.lock().insert(id);
                // At once: should this process die next, the id must be off the plan, or the purge, all the same.
                if let Err(error) = self.note_live(task).await {
                    self.halt(Halt::Record(error));
                }
                Err(SkipReason::LiveAgain)
            }
            // A row that came and went between two answers was there.
            Ok(_) if self.seen_live.lock().contains(&id) => Err(SkipReason::LiveAgain),
            Ok(_) => {
                self.ask_whether_sightings_go_on(task).await?;
                self.may_send(task).map(|()| proof)
            }
            Err(error) => {
                // The same answer may have held its row: what cannot be told apart starts its sightings again.
                if error.is_another_picture()
                    && let Err(error) = self.ledger.forget(&self.scope.name, &[id]).await
                {
                    self.halt(Halt::Record(error));
                }
                self.halt(Halt::References(error));
                Err(SkipReason::RunEnded)
            }
        }
    }

    /// Notes that the id was seen live, for every process that may go on.
    async fn note_live(&self, task: &BatchTask<'_>) -> Result<(), RecordError> {
        if task.first_run.is_none() {
            self.ledger.note_live_again(self.run, &[task.id]).await?;
        }
        self.ledger.keep_from_purges(&self.scope.name, &self.anchor.identity, &[task.id]).await?;
        self.ledger.forget(&self.scope.name, &[task.id]).await.map(drop)
    }

    /// Asks for the row. Rows that our own purges removed since the run read them are no sign that the table is another.
    async fn recheck(&self, id: DatasetId) -> Result<Vec<DatasetId>, ReferencesError> {
        let gone = match self.references.recheck(&[id], &self.anchor).await {
            Err(gone @ ReferencesError::SentinelsGone { .. }) => gone,
            answer => return answer,
        };
        let purged = match self.ledger.purged_since(&self.anchor).await {
            Ok(purged) => purged,
            Err(error) => {
                self.halt(Halt::Record(error));
                return Err(gone);
            }
        };
        let mut anchor = self.anchor.clone();
        for (sentinels, purged) in anchor.sentinels.iter_mut().zip(&purged) {
            sentinels.retain(|id| !purged.contains(id));
        }
        // A table of which nothing else is known has nothing to be recognised by; a purge has the row that it removed itself.
        let is_purge = self.anchor.without_sentinels == WithoutSentinels::MayFill;
        let is_recognisable =
            anchor.sentinels.iter().zip(&self.anchor.sentinels).all(|(left, all)| all.is_empty() || !left.is_empty());
        if anchor == self.anchor || !(is_recognisable || is_purge) {
            return Err(gone);
        }
        self.references.recheck(&[id], &anchor).await
    }

    /// Asks the ledger whether the sightings that the plan was made from go on. Another process may have seen the id live
    /// since, though its row is gone again: it is off the plan then, whatever the primary says now.
    async fn ask_whether_sightings_go_on(&self, task: &BatchTask<'_>) -> Result<(), SkipReason> {
        let Some(first_run) = task.first_run else { return Ok(()) };
        match self.ledger.sighting(&self.scope.name, task.id).await {
            Ok(Some(sighting)) if sighting.first_run == first_run => Ok(()),
            Ok(Some(_) | None) => Err(SkipReason::ChangedSincePlan),
            Err(error) => {
                self.halt(Halt::Record(error));
                Err(SkipReason::RunEnded)
            }
        }
    }

    async fn send_together(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Attempt, StoreError> {
        let sent = self.deleter.delete_batch(keys, proof).await;
        match &sent {
            Ok(replies) if !replies.iter().any(|reply| matches!(reply, KeyReply::TryAgain(_))) => {
                self.limiter.answered();
            }
            Ok(_) | Err(StoreError { fault: StoreFault::Throttled(_) | StoreFault::ServerFault(_), .. }) => {
                self.limiter.throttled();
            }
            Err(_) => {}
        }
        Ok(read_replies(keys, sent?))
    }

    async fn send_singly(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Attempt, StoreError> {
        let mut replies = Vec::with_capacity(keys.len());
        let mut is_in_flight = false;
        for key in keys {
            let reply = match self.deleter.delete_one(key, proof).await {
                Ok(reply) => reply,
                Err(error) if error.fault.is_transient() => {
                    if let StoreFault::Throttled(_) = error.fault {
                        self.limiter.throttled();
                    }
                    is_in_flight |= may_be_in_flight(&error.fault);
                    KeyReply::TryAgain(error.fault.to_string())
                }
                Err(error) => KeyReply::Refused(error.fault.to_string()),
            };
            replies.push(reply);
        }
        Ok(Attempt { is_in_flight, ..read_replies(keys, replies) })
    }

    pub(super) async fn settle(&self, outcomes: Vec<(ObjectKey, KeyOutcome, String)>) {
        if let Err(error) = self.write_outcomes(&outcomes).await {
            self.halt(Halt::Record(error));
        }
    }
}

/// What a request without an answer means for its keys.
fn explain(keys: &[ObjectKey], error: &StoreError) -> Attempt {
    tracing::warn!(object_count = keys.len(), error = %error, "delete request failed");
    let why = error.fault.to_string();
    if error.fault.is_transient() {
        let again = keys.iter().map(|key| (key.clone(), why.clone())).collect();
        return Attempt { settled: Vec::new(), again, is_in_flight: may_be_in_flight(&error.fault) };
    }
    let settled = keys.iter().map(|key| (key.clone(), KeyOutcome::Failed, why.clone())).collect();
    Attempt { settled, again: Vec::new(), is_in_flight: false }
}

/// Whether the store may carry out a request that it did not answer well. One that it throttled was not begun.
fn may_be_in_flight(fault: &StoreFault) -> bool {
    matches!(fault, StoreFault::NoReply(_) | StoreFault::ServerFault(_) | StoreFault::Malformed(_))
}

fn with_outcome(
    keys: Vec<(ObjectKey, String)>,
    outcome: KeyOutcome,
    reason: &str,
) -> Vec<(ObjectKey, KeyOutcome, String)> {
    keys.into_iter().map(|(key, _)| (key, outcome, reason.to_owned())).collect()
}

/// Each key with what the store said of it last; `because` where it said nothing.
fn with_last_word(
    keys: Vec<(ObjectKey, String)>,
    outcome: KeyOutcome,
    because: &str,
) -> Vec<(ObjectKey, KeyOutcome, String)> {
    let last_word = |said: String| if said.is_empty() { because.to_owned() } else { said };
    keys.into_iter().map(|(key, said)| (key, outcome, last_word(said))).collect()
}

fn is_malformed(error: &StoreError) -> bool {
    matches!(&error.fault, StoreFault::Refused(what) if what.contains("MalformedXML"))
}

fn read_replies(keys: &[ObjectKey], replies: Vec<KeyReply>) -> Attempt {
    let mut attempt = Attempt { settled: Vec::new(), again: Vec::new(), is_in_flight: false };
    for (key, reply) in keys.iter().zip(replies) {
        let key = key.clone();
        match reply {
            KeyReply::Deleted => attempt.settled.push((key, KeyOutcome::Deleted, String::new())),
            KeyReply::AlreadyGone => attempt.settled.push((key, KeyOutcome::AlreadyGone, "NoSuchKey".into())),
            KeyReply::Refused(code) => attempt.settled.push((key, KeyOutcome::Failed, code)),
            KeyReply::TryAgain(code) => attempt.again.push((key, code)),
            // The store keeps it by a rule of its own: a finding, and no failure that another night would mend.
            KeyReply::Locked => attempt.settled.push((key, KeyOutcome::Skipped, OBJECT_LOCK.into())),
            // Silence is no success; the listing afterwards tells.
            KeyReply::Unmentioned => attempt.settled.push((key, KeyOutcome::Failed, "not_in_reply".into())),
        }
    }
    attempt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_given_up_says_why() {
        let keys = vec![(ObjectKey::new("a"), String::new()), (ObjectKey::new("b"), "SlowDown".to_owned())];
        let ended = with_last_word(keys, KeyOutcome::Failed, LISTING_TOO_OLD);
        let reasons: Vec<&str> = ended.iter().map(|(_, _, reason)| reason.as_str()).collect();
        assert_eq!(reasons, ["listing_too_old", "SlowDown"]);
    }
}
