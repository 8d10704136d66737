//! Other leaks than orphans: uploads never completed, old versions, and what a store shows in spite of its deletion. Pure.
//!
//! Invariant: what the store did not tell is called not known, and uploads are called what they are, best effort.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Summary;
use super::text::words::{self, counted};
use crate::decide::Uploading;
use crate::model::{Group, Timestamp, human_bytes, visible};

/// Multipart uploads in progress under the scope's prefix. Best effort: a store may forget some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadCounts {
    /// Whether the store told of all that it knows; `coverage.unknown` says why not.
    pub known: bool,
    /// All of them.
    pub in_progress: u64,
    /// Those under ids without a row: each keeps its id.
    pub under_orphans: u64,
    /// Of those, the ones in the canonical spelling that are older than `scope.uploads.abort_after`, or than seven days where
    /// that is not set.
    pub stale: u64,
    /// Those that this run aborted.
    pub aborted: u64,
    /// When the oldest of all was begun.
    pub oldest: Option<Timestamp>,
    /// Why no stale one was aborted, where the scope asks for it and something forbids it.
    #[serde(default)]
    pub held_by: Option<String>,
}

/// What lies beneath prefixes without a row, in a bucket that keeps versions. It is never deleted by this program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionCounts {
    /// Whether all of them were counted; `coverage.unknown` says why not.
    pub known: bool,
    /// Versions that are not current.
    pub noncurrent: u64,
    /// Delete markers.
    pub markers: u64,
    /// Bytes of the noncurrent versions.
    pub noncurrent_bytes: u64,
    /// Prefixes without a current object, and with versions or markers: among the empty ones.
    pub versions_only: u64,
}

/// What a store shows in spite of its deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakCounts {
    /// Objects of this run that the store deleted, has no more, and lists all the same.
    pub ghosts: u64,
    /// Objects of this run that a retention or a legal hold keeps.
    pub object_lock: u64,
    /// Orphan groups that are not asked for again yet, because an earlier run met one of both.
    pub undeletable: u64,
}

/// What becomes of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadVerdict {
    /// Its id has a row.
    Live,
    /// No pattern reads its key.
    Foreign,
    /// It keeps an id without a row.
    Blocks,
    /// So it does, and it is stale.
    Stale,
    /// This run aborted it.
    Aborted,
    /// It was gone when this run came to abort it.
    AlreadyGone,
    /// A re-check saw a row of its id: it was left alone.
    LiveAgain,
    /// A person protects its id, or rejected its deletion: it was left alone.
    Protected,
    /// The store refused to abort it.
    AbortFailed,
    /// The store did not answer.
    Unconfirmed,
}

impl UploadVerdict {
    /// The word in `uploads.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Foreign => "foreign",
            Self::Blocks => "blocks",
            Self::Stale => "stale",
            Self::Aborted => "aborted",
            Self::AlreadyGone => "already_gone",
            Self::LiveAgain => "live_again",
            Self::Protected => "protected",
            Self::AbortFailed => "abort_failed",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// A line of `uploads.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// The key that it would write.
    pub key: String,
    /// Which of the uploads to that key.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Option<Timestamp>,
    /// The dataset; empty for a foreign key.
    pub id: String,
    /// What becomes of it.
    pub verdict: UploadVerdict,
}

/// A prefix without a row that shows no current object, and holds versions or delete markers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionsOnly(pub Group);

impl VersionsOnly {
    /// The reason in `orphans.csv`.
    pub const REASON: &'static str = "versions_only";
}

impl From<bool> for Uploading {
    fn from(is_told: bool) -> Self {
        if is_told { Self::InProgress } else { Self::NoneTold }
    }
}

/// One of the other leaks, as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What it counts.
    pub(crate) label: &'static str,
    /// The same, as a heading.
    pub(crate) title: &'static str,
    /// How many; `None` where the store did not tell.
    pub(crate) count: Option<u64>,
    /// What is said of it.
    pub(crate) note: String,
}

/// What there is to say of the other leaks; nothing where there are none.
pub(crate) fn lines(summary: &Summary) -> Vec<Line> {
    [uploads(summary), versions(summary), refused(summary)].into_iter().flatten().collect()
}

fn uploads(summary: &Summary) -> Option<Line> {
    let uploads = &summary.uploads;
    if !uploads.known && uploads.in_progress == 0 {
        // A run that never came to it says so by its own outcome.
        let is_asked = summary.coverage.unknown.iter().any(|what| what.starts_with(UPLOADS));
        let note = "the store does not list uploads in progress".to_owned();
        return is_asked.then_some(Line { label: "uploads", title: "Uploads", count: None, note });
    }
    if uploads.in_progress == 0 {
        return None;
    }
    let mut parts = vec![format!("in progress, of which {} under orphans and kept", uploads.under_orphans)];
    if uploads.stale > 0 {
        parts.push(format!("{} stale", uploads.stale));
    }
    if uploads.aborted > 0 {
        parts.push(format!("{} aborted", uploads.aborted));
    }
    if let Some(age) = summary.as_of.zip(uploads.oldest).map(|(as_of, oldest)| as_of - oldest) {
        parts.push(format!("the oldest {} old", words::span(age.max(chrono::Duration::zero()))));
    }
    if let Some(why) = &uploads.held_by {
        parts.push(format!("none aborted: {}", visible(why)));
    }
    let is_all = if uploads.known { "as far as the store remembers" } else { "and the list is not whole" };
    let note = format!("{}, {is_all}: uploads.csv", parts.join(", "));
    Some(Line { label: "uploads", title: "Uploads", count: Some(uploads.in_progress), note })
}

fn versions(summary: &Summary) -> Option<Line> {
    let versions = &summary.versions;
    if !words::marks(summary.target.versioning) {
        return None;
    }
    if !versions.known {
        let is_asked = summary.coverage.unknown.iter().any(|what| what.starts_with(VERSIONS));
        return is_asked.then(|| Line {
            label: "old versions",
            title: "Old versions",
            count: None,
            note: "the store does not list versions, so what they take up is not known".into(),
        });
    }
    if versions.noncurrent == 0 && versions.markers == 0 {
        return None;
    }
    let note = format!(
        "{} and {} beneath what has no row ({} of {} without a current object); only the bucket's lifecycle frees them",
        human_bytes(versions.noncurrent_bytes),
        counted(versions.markers, "delete marker", "delete markers"),
        versions.versions_only,
        counted(summary.groups.empty + summary.groups.orphan, "prefix", "prefixes"),
    );
    Some(Line { label: "old versions", title: "Old versions", count: Some(versions.noncurrent), note })
}

fn refused(summary: &Summary) -> Option<Line> {
    let leaks = summary.leaks;
    let objects = leaks.ghosts + leaks.object_lock;
    if objects == 0 {
        return None;
    }
    let note = format!(
        "objects that the store shows in spite of their deletion: {}, {} under object lock; deletions.csv",
        counted(leaks.ghosts, "ghost", "ghosts"),
        leaks.object_lock
    );
    Some(Line { label: "undeletable", title: "Undeletable", count: Some(objects), note })
}

/// How an unknown about uploads begins in `coverage.unknown`.
pub(crate) const UPLOADS: &str = "uploads in progress";
/// How an unknown about versions begins in `coverage.unknown`.
pub(crate) const VERSIONS: &str = "old versions";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Versioning;
    use crate::report::text::samples;

    fn said(change: impl FnOnce(&mut Summary)) -> Vec<(&'static str, Option<u64>, String)> {
        let mut summary = samples::audit(&[]);
        change(&mut summary);
        lines(&summary).into_iter().map(|line| (line.label, line.count, line.note)).collect()
    }

    #[test]
    fn nothing_is_said_where_there_is_nothing() {
        assert!(said(|summary| summary.uploads.known = true).is_empty());
        assert!(said(|_| {}).is_empty(), "a run that never asked has nothing to say of it");
    }

    #[test]
    fn uploads_are_told_with_what_the_list_is_worth() {
        let known = said(|summary| {
            let oldest = Some(samples::as_of() - chrono::Duration::days(9));
            summary.uploads = UploadCounts {
                known: true,
                in_progress: 5,
                under_orphans: 3,
                stale: 2,
                aborted: 1,
                oldest,
                held_by: None,
            };
        });
        let note = "in progress, of which 3 under orphans and kept, 2 stale, 1 aborted, the oldest 9 days old, \
                    as far as the store remembers: uploads.csv";
        assert_eq!(known, [("uploads", Some(5), note.to_owned())]);
        let held = said(|summary| {
            (summary.uploads.in_progress, summary.uploads.held_by) = (1, Some("time went on".into()));
        });
        assert!(held[0].2.contains("none aborted: time went on"), "{held:?}");
        let partial = said(|summary| summary.uploads.in_progress = 1);
        assert!(partial[0].2.contains("the list is not whole"), "{partial:?}");
        let denied = said(|summary| summary.coverage.unknown.push(format!("{UPLOADS}: denied")));
        assert_eq!((denied[0].0, denied[0].1), ("uploads", None));
    }

    #[test]
    fn versions_are_told_as_what_only_a_lifecycle_frees() {
        let counts = VersionCounts { known: true, noncurrent: 4, markers: 1, noncurrent_bytes: 2048, versions_only: 1 };
        let told = said(|summary| {
            summary.target.versioning = Versioning::Enabled;
            summary.versions = counts.clone();
        });
        assert_eq!((told[0].0, told[0].1), ("old versions", Some(4)));
        assert!(told[0].2.contains("2.0 KiB and 1 delete marker") && told[0].2.contains("lifecycle"), "{told:?}");
        let unknown = said(|summary| {
            summary.target.versioning = Versioning::Suspended;
            summary.coverage.unknown.push(format!("{VERSIONS}: denied"));
        });
        assert_eq!((unknown[0].0, unknown[0].1), ("old versions", None));
        assert!(said(|summary| summary.versions = counts).is_empty(), "a bucket without versions has none");
    }

    #[test]
    fn ghosts_and_locks_are_told_apart() {
        let told = said(|summary| summary.leaks = LeakCounts { ghosts: 1, object_lock: 2, undeletable: 9 });
        assert_eq!((told[0].0, told[0].1), ("undeletable", Some(3)));
        assert!(told[0].2.contains("1 ghost, 2 under object lock"), "{told:?}");
    }
}
