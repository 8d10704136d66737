//! After the requests: the group is listed once more, and every intent ends by what is there.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use futures::StreamExt;

use super::Disposal;
use crate::list::content::ContentError;
use crate::list::pages::Pages;
use crate::model::{DatasetId, Object, ObjectKey};
use crate::record::{GHOST, KeyOutcome};
use crate::s3::retry;

impl Disposal<'_> {
    /// Settles the intents of a group; says whether the store lists nothing of it any more.
    ///
    /// An intended key that is absent ends as deleted, whatever was replied. One that is still listed unchanged was not
    /// deleted, whatever was replied. One that was written again since is another object. One that is left without a reply is
    /// skipped, with `left_because`.
    pub(super) async fn settle_group(
        &self,
        id: DatasetId,
        prefix: &str,
        left_because: &str,
    ) -> Result<bool, ContentError> {
        crate::failpoint::reach("before_verify");
        // A stop is no reason to leave an outcome open: this only reads.
        let never = tokio_util::sync::CancellationToken::new();
        let mut pages = Pages::new(self.store, prefix, false, &never);
        let mut listed: VecDeque<Object> = VecDeque::new();
        let (mut is_listed, mut is_gone) = (false, true);
        let mut after: Option<ObjectKey> = None;
        loop {
            let intents = self.intents_to_verify(prefix, after.as_ref()).await?;
            let Some((last, _)) = intents.last() else { break };
            after = Some(last.key.clone());
            let mut outcomes = Vec::new();
            for (intent, outcome) in intents {
                while !is_listed && listed.back().is_none_or(|object| object.key < intent.key) {
                    listed.clear();
                    match pages.next().await? {
                        Some(page) => {
                            is_gone &= page.objects.is_empty();
                            listed.extend(page.objects);
                        }
                        None => is_listed = true,
                    }
                }
                while listed.front().is_some_and(|object| object.key < intent.key) {
                    listed.pop_front();
                }
                let found = listed.front().filter(|object| object.key == intent.key);
                outcomes.extend(outcome_of(intent, outcome.as_deref(), found, left_because));
            }
            self.tell_ghosts(id, &mut outcomes).await;
            self.write_outcomes(&outcomes).await?;
        }
        while let Some(page) = if is_listed { None } else { pages.next().await? } {
            is_gone &= page.objects.is_empty();
        }
        let mut last = self.last_seen_at.lock();
        *last = last.max(pages.first_date());
        Ok(is_gone)
    }
}

/// Keys of one run that are looked at one by one: a store that lies about more of them is not worth more requests.
const MOST_LOOKED_AT: u64 = 10_000;
/// Keys that are looked at at the same time.
const LOOKS_IN_FLIGHT: usize = 8;
/// What is said of a key that the store says it deleted, and lists unchanged.
const STILL_LISTED: &str = "still_listed";
/// What is said of a key that a process asked for before it died, and where another object lies now.
pub(super) const WRITTEN_ANEW: &str = "written_anew";

impl Disposal<'_> {
    /// Tells the ghosts among what is still listed: the store deleted it, has it no more, and lists it all the same.
    ///
    /// Whoever may not read objects cannot ask; then it stays a failure.
    async fn tell_ghosts(&self, id: DatasetId, outcomes: &mut [(ObjectKey, KeyOutcome, String)]) {
        let never = tokio_util::sync::CancellationToken::new();
        let still_listed = outcomes.iter_mut().filter(|(_, _, reason)| reason == STILL_LISTED);
        let looks = futures::stream::iter(still_listed).map(|(key, outcome, reason)| {
            let never = &never;
            async move {
                let key_shown = crate::model::visible(key.as_str());
                tracing::warn!(dataset_id = %id, key = %key_shown, "the store said deleted and still lists it");
                if self.looked_at.fetch_add(1, Ordering::Relaxed) >= MOST_LOOKED_AT {
                    return;
                }
                match retry::read_with_retries(never, || self.store.has_object(key)).await {
                    Ok(false) => (*outcome, *reason) = (KeyOutcome::AlreadyGone, GHOST.to_owned()),
                    Ok(true) => {}
                    Err(error) => {
                        tracing::debug!(dataset_id = %id, error = %error, "whether it is a ghost cannot be told");
                    }
                }
            }
        });
        looks.buffer_unordered(LOOKS_IN_FLIGHT).collect::<()>().await;
    }
}

/// What an intent ends as; `None`: as it was noted.
pub(super) fn outcome_of(
    intent: Object,
    outcome: Option<&str>,
    found: Option<&Object>,
    left_because: &str,
) -> Option<(ObjectKey, KeyOutcome, String)> {
    match (found, outcome) {
        (None, Some("deleted" | "already_gone")) => None,
        (None, _) => Some((intent.key, KeyOutcome::Deleted, "absent_when_verified".into())),
        (Some(found), Some("deleted" | "already_gone")) if *found != intent => None,
        (Some(_), Some("deleted" | "already_gone")) => Some((intent.key, KeyOutcome::Failed, STILL_LISTED.into())),
        // It was not asked for, or not answered, and is left: by a process that died, or because the group was given up.
        (Some(found), None) if *found == intent => Some((intent.key, KeyOutcome::Skipped, left_because.to_owned())),
        // Whether the process that died deleted it before somebody wrote there anew, nobody can tell.
        (Some(_), None) => Some((intent.key, KeyOutcome::Unconfirmed, WRITTEN_ANEW.to_owned())),
        // A request that may still be in flight is not over because its key is still listed.
        (Some(_), Some(_)) => None,
    }
}
