//! The history of an orphan: how often, how long and unchanged it was seen. Pure.
//!
//! The race this closes: an object's own age protects nothing old. A live dataset of three months whose row is hidden
//! for one scan is long past any grace, so grace is also counted from our own first sighting.

use crate::config::Policy;
use crate::model::{RunId, Sha256Hash, Timestamp};

/// What complete scans saw of one orphan since its sightings last started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The scan that saw it first: names this row of sightings, which a plan refers to.
    pub first_run: RunId,
    /// When that was.
    pub first_seen: Timestamp,
    /// The last scan that saw it.
    pub last_seen: Timestamp,
    /// How many scans saw it.
    pub sightings: u32,
    /// How much time between the scans counts towards grace.
    pub witnessed: chrono::Duration,
    /// What it held.
    pub digest: Sha256Hash,
    /// Whether this scan saw something else than the one before, so that the sightings started again.
    pub is_changed: bool,
}

impl Sighting {
    /// The first sighting of an orphan, by the scan `run`.
    #[must_use]
    pub fn first(run: RunId, as_of: Timestamp, digest: Sha256Hash) -> Self {
        Self {
            first_run: run,
            first_seen: as_of,
            last_seen: as_of,
            sightings: 1,
            witnessed: chrono::Duration::zero(),
            digest,
            is_changed: false,
        }
    }
}

/// The most that the time between two sightings counts: one jump of every clock then matures nothing.
fn longest_counted_gap(policy: &Policy) -> chrono::Duration {
    if policy.unsafe_short_grace {
        return chrono::Duration::MAX;
    }
    let gaps = i32::try_from(policy.min_sightings.saturating_sub(1).max(1)).unwrap_or(i32::MAX);
    policy.grace.span() / gaps
}

/// Adds the sighting of this scan to the history. Anything but the same objects at a later time starts it again.
#[must_use]
pub fn sight(before: Option<&Sighting>, digest: Sha256Hash, run: RunId, as_of: Timestamp, policy: &Policy) -> Sighting {
    let started_again = |is_changed| Sighting { is_changed, ..Sighting::first(run, as_of, digest) };
    let Some(before) = before else { return started_again(false) };
    if before.digest != digest {
        return started_again(true);
    }
    if as_of < before.last_seen {
        return started_again(false);
    }
    let gap = (as_of - before.last_seen).min(longest_counted_gap(policy));
    Sighting {
        last_seen: as_of,
        sightings: before.sightings.saturating_add(1),
        witnessed: before.witnessed.checked_add(&gap).unwrap_or(chrono::Duration::MAX),
        is_changed: false,
        ..before.clone()
    }
}
