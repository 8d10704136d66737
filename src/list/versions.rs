//! What lies beneath a prefix of a bucket that keeps versions: old versions and delete markers, read page by page.
//!
//! Invariant: every page is checked against the one before it, and nothing is kept of it; a count is of a whole listing or an
//! error. Nothing here is ever deleted by this program: the bucket's lifecycle frees it.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use crate::model::ObjectKey;
use crate::s3::{Marker, ReadStore, StoreError, VersionsPage, retry};

const LIST: &str = "ListObjectVersions";

/// What a plain listing does not show of a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beneath {
    /// Versions that are not the current one.
    pub noncurrent: u64,
    /// Delete markers.
    pub markers: u64,
    /// Bytes of the noncurrent versions.
    pub noncurrent_bytes: u64,
}

impl Beneath {
    /// Whether there is nothing.
    pub fn is_empty(self) -> bool {
        self.noncurrent == 0 && self.markers == 0
    }
}

/// Reads the pages of a listing of versions, in order. Keys may repeat, once for each version and marker, and never go back.
pub struct VersionPages<'s> {
    store: &'s dyn ReadStore,
    stop: &'s CancellationToken,
    prefix: String,
    after: Option<Marker>,
    /// The markers that pages of the same key ended with.
    ended_with: HashSet<Marker>,
    last: Option<ObjectKey>,
    is_finished: bool,
}

impl<'s> VersionPages<'s> {
    /// Starts a listing of `prefix`.
    pub fn new(store: &'s dyn ReadStore, prefix: &str, stop: &'s CancellationToken) -> Self {
        let prefix = prefix.to_owned();
        Self { store, stop, prefix, after: None, ended_with: HashSet::new(), last: None, is_finished: false }
    }

    /// The next page, or `None` after the last.
    ///
    /// - Errors: [`StoreError`]; the listing is then void as a whole.
    pub async fn next(&mut self) -> Result<Option<VersionsPage>, StoreError> {
        if self.is_finished {
            return Ok(None);
        }
        let page = retry::read_with_retries(self.stop, || async {
            let page = self.store.versions(&self.prefix, self.after.as_ref()).await?;
            self.check(&page).map_err(|what| StoreError::malformed(LIST, what))?;
            Ok(page)
        })
        .await?;
        let last_of_page = page.versions.last().map(|version| &version.key);
        let last_of_page = last_of_page.into_iter().chain(page.markers.last().map(|marker| &marker.key)).max();
        self.last = last_of_page.cloned().or(self.last.take());
        if page.is_truncated {
            self.go_on_after(page.next.clone());
        } else {
            self.is_finished = true;
        }
        Ok(Some(page))
    }

    fn go_on_after(&mut self, next: Option<Marker>) {
        if next.as_ref().map(|next| &next.key) != self.after.as_ref().map(|after| &after.key) {
            self.ended_with.clear();
        }
        self.ended_with.extend(next.clone());
        self.after = next;
    }

    fn check(&self, page: &VersionsPage) -> Result<(), String> {
        let versions: Vec<&ObjectKey> = page.versions.iter().map(|version| &version.key).collect();
        let markers: Vec<&ObjectKey> = page.markers.iter().map(|marker| &marker.key).collect();
        for keys in [versions, markers] {
            if keys.iter().any(|key| !key.as_str().starts_with(&self.prefix)) {
                return Err("it lists a key outside the prefix that was asked for".into());
            }
            if !keys.is_sorted()
                || keys.first().is_some_and(|first| self.last.as_ref().is_some_and(|last| *first < last))
            {
                return Err("its keys are not in ascending order".into());
            }
        }
        if !page.is_truncated {
            return Ok(());
        }
        let Some(next) = &page.next else {
            return Err("it is truncated and does not say where the next page begins".into());
        };
        let goes_back = self.after.as_ref().is_some_and(|after| next.key < after.key);
        if goes_back || self.ended_with.contains(next) {
            return Err("it repeats a marker, so its pages would never end".into());
        }
        Ok(())
    }
}

/// Counts what lies beneath `prefix`.
///
/// - Errors: [`StoreError`]; nothing is known then.
pub async fn count(store: &dyn ReadStore, prefix: &str, stop: &CancellationToken) -> Result<Beneath, StoreError> {
    let mut beneath = Beneath::default();
    let mut pages = VersionPages::new(store, prefix, stop);
    while let Some(page) = pages.next().await? {
        for version in page.versions.iter().filter(|version| !version.is_latest) {
            beneath.noncurrent += 1;
            beneath.noncurrent_bytes = beneath.noncurrent_bytes.saturating_add(version.size_bytes);
        }
        beneath.markers += page.markers.len() as u64;
    }
    Ok(beneath)
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
