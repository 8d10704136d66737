//! The whole scope prefix in one delimiter listing: a request for a thousand datasets, whatever they hold.

use tokio_util::sync::CancellationToken;

use super::pages::Pages;
use crate::config::Scope;
use crate::model::{Group, Timestamp};
use crate::parse::{ForeignReason, KeyReading, read_prefix};
use crate::s3::{ReadStore, StoreError};

/// Every dataset prefix of a scope, read to its end.
#[derive(Debug)]
pub struct CompleteListing {
    /// The groups, sorted by id, then by pattern.
    pub groups: Vec<Group>,
    /// How many foreign keys and prefixes there were.
    pub foreign: u64,
    /// The store's clock when the listing began.
    pub store_time: Timestamp,
}

/// A prefix or key that belongs to no dataset.
#[derive(Debug, Clone, Copy)]
pub struct Foreign<'l> {
    /// It, as listed.
    pub prefix_or_key: &'l str,
    /// `prefix` or `key`.
    pub kind: &'static str,
    /// Why.
    pub reason: ForeignReason,
}

/// Lists the scope's prefix. Foreign keys and prefixes are given to `foreign` and not kept.
///
/// - Errors: [`StoreError`] of the page that failed; nothing of the listing counts then.
pub async fn take(
    store: &dyn ReadStore,
    scope: &Scope,
    stop: &CancellationToken,
    mut foreign: impl FnMut(Foreign<'_>),
    mut progress: impl FnMut(usize),
) -> Result<CompleteListing, StoreError> {
    let mut pages = Pages::new(store, &scope.prefix, true, stop);
    let mut groups = Vec::new();
    let mut foreign_count = 0;
    while let Some(page) = pages.next().await? {
        for object in page.objects.iter().filter(|object| !scope.ignore.contains(object.key.as_str())) {
            foreign_count += 1;
            foreign(Foreign {
                prefix_or_key: object.key.as_str(),
                kind: "key",
                reason: ForeignReason::KeyOutsideGroups,
            });
        }
        for prefix in page.prefixes.iter().filter(|prefix| !scope.ignore.contains(prefix.as_str())) {
            match read_prefix(prefix, &scope.patterns) {
                KeyReading::Group(group) => groups.push(group),
                KeyReading::Foreign(reason) => {
                    foreign_count += 1;
                    foreign(Foreign { prefix_or_key: prefix, kind: "prefix", reason });
                }
            }
        }
        progress(groups.len());
    }
    groups.sort_unstable();
    groups.shrink_to_fit();
    let store_time = pages.first_date().expect("a listing that ended had a first page");
    Ok(CompleteListing { groups, foreign: foreign_count, store_time })
}

#[cfg(test)]
#[path = "census_tests.rs"]
mod tests;
