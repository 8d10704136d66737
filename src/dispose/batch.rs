//! One batch: intent, re-check, request, outcome. Every attempt has its own re-check.

use std::sync::atomic::Ordering;

use super::group::SkipReason;
use super::{Disposal, Halt};
use crate::clock::Stopwatch;
use crate::model::{DatasetId, Object, ObjectKey};
use crate::record::KeyOutcome;
use crate::s3::{KeyReply, StoreError, StoreFault, retry};

/// Up to 1000 objects of one group.
pub(super) struct Batch {
    pub(super) objects: Vec<Object>,
    /// Whether XML cannot carry the keys, so that each needs a request of its own.
    pub(super) singly: bool,
}

/// What one attempt left to be tried again.
struct Attempt {
    settled: Vec<(ObjectKey, KeyOutcome, String)>,
    again: Vec<(ObjectKey, String)>,
}

impl Disposal<'_> {
    /// Deletes one batch, in as many attempts as it takes and is allowed.
    ///
    /// - Errors: why it was left; what was not sent is noted as skipped.
    pub(super) async fn delete_batch(&self, id: DatasetId, prefix: &str, batch: Batch) -> Result<(), SkipReason> {
        let permit = self.limiter.acquire().await;
        if self.is_halted() {
            return Err(SkipReason::RunEnded);
        }
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let intent = self.intent(id, prefix, number);
        crate::failpoint::reach("before_intent");
        if let Err(error) = self.ledger.intend(&intent, &batch.objects).await {
            self.halt(Halt::Record(error));
            return Err(SkipReason::RunEnded);
        }
        crate::failpoint::reach("after_intent");
        let sizes = batch.objects.len() as u64;
        let mut keys: Vec<ObjectKey> = batch.objects.into_iter().map(|object| object.key).collect();
        let (mut singly, mut failed_attempts, mut was_sent) = (batch.singly, 0, false);
        loop {
            let proof = match self.ask_again(id).await {
                Ok(proof) => proof,
                Err(reason) => {
                    // Keys of an earlier attempt may be gone: looking will tell. Others were never asked for.
                    if !was_sent {
                        self.settle(keys.into_iter().map(|key| (key, KeyOutcome::Skipped, reason.as_str().to_owned())).collect()).await;
                    }
                    return Err(reason);
                }
            };
            was_sent = true;
            crate::failpoint::reach("before_send");
            let attempt = if singly { self.send_singly(&keys, proof).await } else { self.send_together(&keys, proof).await };
            crate::failpoint::reach("after_send");
            let Attempt { settled, again } = match attempt {
                Ok(attempt) => attempt,
                Err(error) if is_malformed(&error) && !singly => {
                    // Some key among them cannot stand in XML after all, and spoils the others.
                    singly = true;
                    continue;
                }
                Err(error) => explain(&keys, &error),
            };
            let has_progressed = !settled.is_empty();
            self.settle(settled).await;
            crate::failpoint::reach("after_outcome");
            if again.is_empty() {
                break;
            }
            // Only attempts that brought nothing forward are counted: many single deletions outlast one proof.
            failed_attempts = if has_progressed { 0 } else { failed_attempts + 1 };
            let may_go_on = failed_attempts < retry::MAX_ATTEMPTS && retry::wait_before_retry(failed_attempts, &self.stop).await;
            if !may_go_on {
                let unconfirmed = again.into_iter().map(|(key, why)| (key, KeyOutcome::Unconfirmed, why));
                self.settle(unconfirmed.collect()).await;
                break;
            }
            keys = again.into_iter().map(|(key, _)| key).collect();
        }
        drop(permit);
        (self.progress)(sizes);
        tracing::info!(target: "deletions", dataset_id = %id, object_count = sizes, batch = number, "batch done");
        Ok(())
    }

    /// Asks the primary whether the id has a row, with proof. The answer's age counts from before it was asked.
    async fn ask_again(&self, id: DatasetId) -> Result<Stopwatch, SkipReason> {
        if self.is_halted() {
            return Err(SkipReason::RunEnded);
        }
        let proof = Stopwatch::start();
        match self.references.recheck(&[id], &self.anchor).await {
            Ok(live) if live.contains(&id) => {
                tracing::warn!(dataset_id = %id, "the dataset has a row again; nothing more of it is deleted");
                self.seen_live.lock().insert(id);
                // At once: should this process die next, the id must be off the plan all the same.
                if let Err(error) = self.ledger.forget(&self.scope.name, &[id]).await {
                    self.halt(Halt::Record(error));
                }
                Err(SkipReason::LiveAgain)
            }
            Ok(_) if self.is_halted() => Err(SkipReason::RunEnded),
            // A row that came and went between two answers was there.
            Ok(_) if self.seen_live.lock().contains(&id) => Err(SkipReason::LiveAgain),
            Ok(_) => Ok(proof),
            Err(error) => {
                self.halt(Halt::References(error));
                Err(SkipReason::RunEnded)
            }
        }
    }

    async fn send_together(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Attempt, StoreError> {
        let sent = self.deleter.delete_batch(keys, proof).await;
        match &sent {
            Ok(replies) if !replies.iter().any(|reply| matches!(reply, KeyReply::TryAgain(_))) => self.limiter.answered(),
            Ok(_) | Err(StoreError { fault: StoreFault::Throttled(_) | StoreFault::ServerFault(_), .. }) => self.limiter.throttled(),
            Err(_) => {}
        }
        Ok(read_replies(keys, sent?))
    }

    async fn send_singly(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Attempt, StoreError> {
        let mut replies = Vec::with_capacity(keys.len());
        for key in keys {
            let reply = match self.deleter.delete_one(key, proof).await {
                Ok(reply) => reply,
                Err(error) if error.fault.is_transient() => {
                    if let StoreFault::Throttled(_) = error.fault {
                        self.limiter.throttled();
                    }
                    KeyReply::TryAgain(error.fault.to_string())
                }
                Err(error) => KeyReply::Refused(error.fault.to_string()),
            };
            replies.push(reply);
        }
        Ok(read_replies(keys, replies))
    }

    async fn settle(&self, outcomes: Vec<(ObjectKey, KeyOutcome, String)>) {
        if let Err(error) = self.ledger.settle(&self.scope.name, &outcomes).await {
            self.halt(Halt::Record(error));
        }
    }
}

/// What a request without an answer means for its keys.
fn explain(keys: &[ObjectKey], error: &StoreError) -> Attempt {
    tracing::warn!(object_count = keys.len(), error = %error, "delete request failed");
    let why = error.fault.to_string();
    if error.fault.is_transient() {
        return Attempt { settled: Vec::new(), again: keys.iter().map(|key| (key.clone(), why.clone())).collect() };
    }
    let settled = keys.iter().map(|key| (key.clone(), KeyOutcome::Failed, why.clone())).collect();
    Attempt { settled, again: Vec::new() }
}

fn is_malformed(error: &StoreError) -> bool {
    matches!(&error.fault, StoreFault::Refused(what) if what.contains("MalformedXML"))
}

fn read_replies(keys: &[ObjectKey], replies: Vec<KeyReply>) -> Attempt {
    let mut attempt = Attempt { settled: Vec::new(), again: Vec::new() };
    for (key, reply) in keys.iter().zip(replies) {
        let key = key.clone();
        match reply {
            KeyReply::Deleted => attempt.settled.push((key, KeyOutcome::Deleted, String::new())),
            KeyReply::AlreadyGone => attempt.settled.push((key, KeyOutcome::AlreadyGone, "NoSuchKey".into())),
            KeyReply::Refused(code) => attempt.settled.push((key, KeyOutcome::Failed, code)),
            KeyReply::TryAgain(code) => attempt.again.push((key, code)),
            // Silence is no answer; the listing afterwards is.
            KeyReply::Unmentioned => attempt.settled.push((key, KeyOutcome::Unconfirmed, "not_in_reply".into())),
        }
    }
    attempt
}
