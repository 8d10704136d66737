//! decide: what becomes of each orphan, and whether the run may delete at all. Pure.
//!
//! Takes an orphan, its history and the policy; gives a [`Verdict`]. Invariant: every early return keeps, and time
//! alone lets nothing go: it takes several complete scans that saw the same objects.

pub mod approval;
mod baseline;
pub mod breakers;
pub mod holds;
pub mod sightings;

use crate::config::Policy;
use crate::model::{Group, GroupContent, Sha256Hash, Timestamp};
use sightings::Sighting;

/// An id without a row, with everything that the store holds under it.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// Its groups, in all patterns and spellings, each with its content.
    pub groups: Vec<(Group, GroupContent)>,
}

impl Orphan {
    /// The newest object of all groups: `<id>/` is not old while `dataset-<id>/` is being written.
    pub fn newest(&self) -> Option<Timestamp> {
        self.groups.iter().filter_map(|(_, content)| content.newest).max()
    }

    /// Whether some object's age is unknown.
    pub fn has_unknown_age(&self) -> bool {
        self.groups.iter().any(|(_, content)| content.has_unknown_age)
    }

    /// A digest over the content of every group that has any.
    pub fn digest(&self) -> Sha256Hash {
        let mut fields = Vec::new();
        for (group, content) in self.groups.iter().filter(|(_, content)| !content.chunks.is_empty()) {
            fields.push(group.pattern);
            let spelling = group.odd_spelling.as_deref().unwrap_or_default();
            fields.extend((spelling.len() as u64).to_be_bytes());
            fields.extend(spelling.as_bytes());
            fields.extend(content.digest.0);
        }
        Sha256Hash::of(&fields)
    }

    /// Whether the store lists no object under any group.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|(_, content)| content.objects == 0)
    }
}

/// What becomes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every rule lets it go.
    Eligible,
    /// It stays, and why.
    Keep(KeepReason),
}

/// Why a group stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReason {
    /// Its newest object or its first sighting is younger than the grace period, or the time between its sightings
    /// does not add up to one.
    WithinGrace,
    /// Too few complete scans saw it.
    TooFewSightings,
    /// They lie too close together.
    SightingSpanTooShort,
    /// An object is newer than the scan, or its age is unknown.
    NewerThanScan,
    /// It is not what the scan before saw.
    ChangedSinceSeen,
    /// Its prefix spells the id in an odd way.
    NotCanonical,
    /// A backfill leaves it to the ordinary runs: an object is not older than the date that it was given.
    NewerThanBackfill,
    /// A person protects it.
    Held,
    /// Somebody has begun a multipart upload under it.
    UploadInProgress,
    /// An earlier run asked for it, and the store shows it still: a ghost, or held by object lock.
    Undeletable,
}

/// What a run was told to waive, and for which orphans. Nothing else is ever waived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiver {
    /// Nothing: every rule counts.
    Nothing,
    /// `backfill`: grace is not counted from the first sighting, nor by the time between the sightings, for orphans whose
    /// every object was written before `created_before`. The others are not the backfill's, and stay.
    FirstSighting {
        /// Source: `--created-before`.
        created_before: Timestamp,
    },
}

impl Verdict {
    /// The word in `orphans.csv`: `eligible` or `keep`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Keep(_) => "keep",
        }
    }

    /// The reason in `orphans.csv`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Keep(reason) => reason.as_str(),
        }
    }
}

impl KeepReason {
    /// Every reason, in the order of the reports.
    pub const ALL: [Self; 10] = [
        Self::WithinGrace,
        Self::TooFewSightings,
        Self::SightingSpanTooShort,
        Self::NewerThanScan,
        Self::ChangedSinceSeen,
        Self::NotCanonical,
        Self::NewerThanBackfill,
        Self::Held,
        Self::UploadInProgress,
        Self::Undeletable,
    ];

    /// The word in `orphans.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WithinGrace => "within_grace",
            Self::TooFewSightings => "too_few_sightings",
            Self::SightingSpanTooShort => "sighting_span_too_short",
            Self::NewerThanScan => "newer_than_scan",
            Self::ChangedSinceSeen => "changed_since_seen",
            Self::NotCanonical => "not_canonical",
            Self::NewerThanBackfill => "newer_than_backfill",
            Self::Held => "held",
            Self::UploadInProgress => "upload_in_progress",
            Self::Undeletable => "undeletable",
        }
    }

    /// What it means, for a person.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::WithinGrace => "younger than the grace period, by its newest object or by its first sighting",
            Self::TooFewSightings => "seen by too few complete scans",
            Self::SightingSpanTooShort => "its sightings lie too close together",
            Self::NewerThanScan => "an object is newer than the scan, or its age is unknown",
            Self::ChangedSinceSeen => "its objects changed since the scan before; its sightings start again",
            Self::NotCanonical => "its prefix spells the id in an odd way; only a person can remove it",
            Self::NewerThanBackfill => "an object is not older than the date of the backfill; the ordinary runs decide",
            Self::Held => "a person protects it by name and reason; it stays as long as the hold does",
            Self::UploadInProgress => "a multipart upload under it is in progress",
            Self::Undeletable => {
                "an earlier run asked for it and the store still shows it, as a ghost or under object lock; it is asked for \
                 again once another grace period has passed"
            }
        }
    }
}

/// Decides what becomes of an orphan whose `sighting` includes this scan, by every rule. Pure; every early return keeps.
#[must_use]
pub fn decide(orphan: &Orphan, sighting: &Sighting, policy: &Policy, as_of: Timestamp) -> Verdict {
    decide_with(Waiver::Nothing, orphan, sighting, policy, as_of)
}

/// Decides like [`decide`], but for what `waiver` names.
#[must_use]
pub fn decide_with(waiver: Waiver, orphan: &Orphan, sighting: &Sighting, policy: &Policy, as_of: Timestamp) -> Verdict {
    let Some(newest) = orphan.newest() else { return Verdict::Keep(KeepReason::NewerThanScan) };
    if orphan.has_unknown_age() || newest > as_of {
        return Verdict::Keep(KeepReason::NewerThanScan);
    }
    if sighting.is_changed {
        return Verdict::Keep(KeepReason::ChangedSinceSeen);
    }
    let grace = policy.grace.span();
    if as_of - newest < grace {
        return Verdict::Keep(KeepReason::WithinGrace);
    }
    let counts_from_first_sighting = match waiver {
        Waiver::Nothing => true,
        Waiver::FirstSighting { created_before } if newest < created_before => false,
        Waiver::FirstSighting { .. } => return Verdict::Keep(KeepReason::NewerThanBackfill),
    };
    if counts_from_first_sighting && as_of - sighting.first_seen < grace {
        return Verdict::Keep(KeepReason::WithinGrace);
    }
    if sighting.sightings < policy.min_sightings {
        return Verdict::Keep(KeepReason::TooFewSightings);
    }
    let span = (sighting.last_seen - sighting.first_seen).to_std().unwrap_or_default();
    if span < policy.min_sighting_span {
        return Verdict::Keep(KeepReason::SightingSpanTooShort);
    }
    // The calendar says that grace has passed; the sightings must have witnessed it.
    if counts_from_first_sighting && sighting.witnessed < grace {
        return Verdict::Keep(KeepReason::WithinGrace);
    }
    Verdict::Eligible
}

/// Lets an id's verdict stand unless the store told of uploads under it: whoever uploads is not done with it.
#[must_use]
pub fn unless_uploading(verdict: Verdict, uploads: Uploading) -> Verdict {
    match uploads {
        Uploading::InProgress => Verdict::Keep(KeepReason::UploadInProgress),
        Uploading::NoneTold => verdict,
    }
}

/// What the store told of multipart uploads under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploading {
    /// There is at least one.
    InProgress,
    /// It told of none, which proves nothing.
    NoneTold,
}

/// Lets an id that every rule lets go rest for a grace period after the store showed it in spite of its deletion, at
/// `refused_at`: a ghost or a lock does not go away by being asked for every night.
#[must_use]
pub fn unless_refused(verdict: Verdict, refused_at: Option<Timestamp>, policy: &Policy, as_of: Timestamp) -> Verdict {
    let is_resting = refused_at.is_some_and(|at| as_of - at < policy.grace.span());
    if verdict == Verdict::Eligible && is_resting { Verdict::Keep(KeepReason::Undeletable) } else { verdict }
}

/// The verdict on one group of an orphan: its id's, unless its own spelling keeps it.
#[must_use]
pub fn verdict_of_group(group: &Group, verdict_of_id: Verdict) -> Verdict {
    if group.is_canonical() { verdict_of_id } else { Verdict::Keep(KeepReason::NotCanonical) }
}

/// The earliest time at which an orphan that time keeps could become eligible, if scans go on often enough.
#[must_use]
pub fn eligible_at(orphan: &Orphan, sighting: &Sighting, policy: &Policy, as_of: Timestamp) -> Option<Timestamp> {
    eligible_at_with(Waiver::Nothing, orphan, sighting, policy, as_of)
}

/// The time of [`eligible_at`], for runs that are told the same `waiver`.
#[must_use]
pub fn eligible_at_with(
    waiver: Waiver,
    orphan: &Orphan,
    sighting: &Sighting,
    policy: &Policy,
    as_of: Timestamp,
) -> Option<Timestamp> {
    let grace = policy.grace.span();
    let newest = orphan.newest().filter(|_| !orphan.has_unknown_age())?;
    let span = chrono::Duration::from_std(policy.min_sighting_span).ok()?;
    if let Waiver::FirstSighting { created_before } = waiver {
        let times = [newest.checked_add_signed(grace)?, sighting.first_seen.checked_add_signed(span)?];
        return times.into_iter().max().filter(|_| newest < created_before);
    }
    let witnessed_at = as_of.checked_add_signed(grace - sighting.witnessed)?;
    let times =
        [newest.checked_add_signed(grace)?, sighting.first_seen.checked_add_signed(grace.max(span))?, witnessed_at];
    times.into_iter().max()
}

#[cfg(test)]
mod tests;
