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

/// How late a scheduled run may be.
const LATE: std::time::Duration = std::time::Duration::from_secs(2 * 3600);

/// The most that the time between two sightings counts: one jump of every clock then matures nothing.
fn longest_counted_gap(policy: &Policy) -> chrono::Duration {
    if policy.unsafe_short_grace {
        return chrono::Duration::MAX;
    }
    let gaps = i32::try_from(policy.min_sightings.saturating_sub(1).max(1)).unwrap_or(i32::MAX);
    policy.grace.span() / gaps
}

/// Why nothing may be ended by its age alone in this run; `None`: nothing speaks against it. More time has gone by since the last
/// good scan than a gap between two sightings counts for, and than the schedule has between two runs, `interval`: this may be a
/// jump of every clock. One scan later it is none.
#[must_use]
pub fn leap(
    last_good_scan: Option<Timestamp>,
    as_of: Timestamp,
    policy: &Policy,
    interval: Option<std::time::Duration>,
) -> Option<String> {
    let interval = interval.and_then(|interval| chrono::Duration::from_std(interval + LATE).ok());
    let counted = longest_counted_gap(policy).max(interval.unwrap_or_default());
    let next = "the next run goes on";
    match last_good_scan {
        _ if policy.unsafe_short_grace => None,
        None => Some(format!("no earlier good scan says how much time went by; {next}")),
        Some(last) if as_of - last <= counted => None,
        Some(last) => Some(format!(
            "{} went by since the last good scan, and {} count at once, because every clock may have jumped; {next}",
            words(as_of - last),
            words(counted)
        )),
    }
}

/// A span in whole seconds, as the configuration writes it.
fn words(span: chrono::Duration) -> humantime::FormattedDuration {
    humantime::format_duration(std::time::Duration::from_secs(span.num_seconds().unsigned_abs()))
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
