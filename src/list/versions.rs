//! What lies beneath a prefix of a bucket that keeps versions: old versions and delete markers, counted page by page.
//!
//! Invariant: a count is of a whole listing or an error, and nothing is kept of it but the count. Nothing here is ever
//! deleted by this program: the bucket's lifecycle frees it.

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

/// Counts what lies beneath `prefix`.
///
/// - Errors: [`StoreError`]; nothing is known then.
pub async fn count(store: &dyn ReadStore, prefix: &str, stop: &CancellationToken) -> Result<Beneath, StoreError> {
    let mut beneath = Beneath::default();
    let (mut after, mut last): (Option<Marker>, Option<ObjectKey>) = (None, None);
    let mut markers = HashSet::new();
    loop {
        let page = retry::read_with_retries(stop, || async {
            let page = store.versions(prefix, after.as_ref()).await?;
            check(&page, prefix, last.as_ref()).map_err(|what| StoreError::malformed(LIST, what))?;
            Ok(page)
        })
        .await?;
        for version in page.versions.iter().filter(|version| !version.is_current) {
            beneath.noncurrent += 1;
            beneath.noncurrent_bytes = beneath.noncurrent_bytes.saturating_add(version.size_bytes);
        }
        beneath.markers += page.markers.len() as u64;
        if !page.is_truncated {
            return Ok(beneath);
        }
        let Some(next) = page.next else {
            return Err(StoreError::malformed(LIST, "it is truncated and does not say where the next page begins"));
        };
        let last_of_page =
            page.versions.last().map(|version| &version.key).into_iter().chain(page.markers.last()).max();
        last = last_of_page.cloned().or(last);
        if !markers.insert(next.clone()) {
            return Err(StoreError::malformed(LIST, "it repeats a marker, so its pages would never end"));
        }
        after = Some(next);
    }
}

/// Keys may repeat here, once for each version, and never go back.
fn check(page: &VersionsPage, prefix: &str, last: Option<&ObjectKey>) -> Result<(), String> {
    let versions: Vec<&ObjectKey> = page.versions.iter().map(|version| &version.key).collect();
    let markers: Vec<&ObjectKey> = page.markers.iter().collect();
    for keys in [versions, markers] {
        if keys.iter().any(|key| !key.as_str().starts_with(prefix)) {
            return Err("it lists a key outside the prefix that was asked for".into());
        }
        if !keys.is_sorted() || keys.first().is_some_and(|first| last.is_some_and(|last| *first < last)) {
            return Err("its keys are not in ascending order".into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
