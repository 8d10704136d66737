//! Reads what lies beneath the delete markers of a group, key by key.
//!
//! Takes the pages of a listing of versions, which tell versions and markers apart but not their order; gives for each key what
//! is current and the newest version. Invariant: a listing goes on only forwards, and a key counts only when all of it was
//! read. Nothing is kept beyond one page and one key.

use std::collections::{BTreeMap, VecDeque};

use tokio_util::sync::CancellationToken;

use super::versions::VersionPages;
use crate::model::{ObjectKey, Timestamp};
use crate::s3::{ReadStore, StoreError, Version, VersionsPage};

/// What a key shows to whoever names no version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Current {
    /// An object.
    #[default]
    Object,
    /// A delete marker, and when it was made, where the store says.
    Marker(Option<Timestamp>),
}

/// What is known of one key of a versioned bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyVersions {
    /// The newest version, current or not.
    pub newest: Option<Version>,
    /// What is current.
    pub current: Current,
    /// When each marker was made.
    pub markers: Vec<Option<Timestamp>>,
    /// Whether the current marker was made while versioning was suspended. What had been written since then went with it, so the
    /// newest version may be older than what was deleted.
    pub may_be_older: bool,
}

/// Reads the keys of a group, in order.
pub struct Undeleted<'s> {
    pages: VersionPages<'s>,
    ready: VecDeque<(ObjectKey, KeyVersions)>,
    open: Option<(ObjectKey, KeyVersions)>,
}

impl<'s> Undeleted<'s> {
    /// Starts reading the group at `prefix`.
    pub fn new(store: &'s dyn ReadStore, prefix: &str, stop: &'s CancellationToken) -> Self {
        Self { pages: VersionPages::new(store, prefix, stop), ready: VecDeque::new(), open: None }
    }

    /// The next key, or `None` after the last.
    ///
    /// - Errors: [`StoreError`]; what was read so far stands, what comes after is unknown.
    pub async fn next(&mut self) -> Result<Option<(ObjectKey, KeyVersions)>, StoreError> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            match self.pages.next().await? {
                Some(page) => self.take_in(page),
                None => return Ok(self.open.take()),
            }
        }
    }

    fn take_in(&mut self, page: VersionsPage) {
        let mut keys: BTreeMap<ObjectKey, KeyVersions> = self.open.take().into_iter().collect();
        for version in page.versions {
            // Versions of a key come newest first.
            keys.entry(version.key.clone()).or_default().newest.get_or_insert(version);
        }
        for marker in page.markers {
            let is_null = marker.is_null();
            let known = keys.entry(marker.key).or_default();
            known.markers.push(marker.last_modified);
            if marker.is_latest {
                known.current = Current::Marker(marker.last_modified);
                known.may_be_older = is_null;
            }
        }
        // The last key may go on on the next page.
        self.open = keys.pop_last();
        self.ready.extend(keys);
    }
}

impl KeyVersions {
    /// The version to bring back, where the current one is a marker that `is_ours` says was made by us, and nothing but such
    /// markers lies over it.
    ///
    /// - Errors: why there is none, as the report says it.
    pub fn to_restore(&self, is_ours: impl Fn(Timestamp) -> bool) -> Result<&Version, &'static str> {
        let Current::Marker(current) = self.current else { return Err("newer_data") };
        let Some(newest) = &self.newest else { return Err("no_version") };
        let is_over = |time: &Option<Timestamp>| match (time, newest.last_modified) {
            (Some(time), Some(version)) => *time >= version,
            _ => true,
        };
        let are_ours = self.markers.iter().filter(|time| is_over(time)).all(|time| time.is_some_and(&is_ours));
        if current.is_some_and(&is_ours) && are_ours { Ok(newest) } else { Err("not_deleted_by_run") }
    }
}

#[cfg(test)]
#[path = "undeleted_tests.rs"]
mod tests;
