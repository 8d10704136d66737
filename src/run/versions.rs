//! Old versions and delete markers beneath the prefixes of an audit, in a bucket that keeps versions.
//!
//! Invariant: what one prefix could not tell makes the whole count unknown, and nothing of it decides what may go.

use parking_lot::Mutex;

use super::{Reading, Session};
use crate::config::Scope;
use crate::decide::Orphan;
use crate::list::versions::{self, Beneath};
use crate::model::{Group, Versioning};
use crate::parse::prefix_of;
use crate::report::leaks::{self, VersionsOnly};
use crate::s3::StoreError;
use tokio_util::sync::CancellationToken;

/// Counts beneath several prefixes at once, until the store refuses.
pub(super) struct VersionCounter {
    versioning: Versioning,
    failed: Mutex<Option<StoreError>>,
}

impl VersionCounter {
    /// Counts nothing in a bucket that keeps no versions.
    pub(super) fn new(versioning: Versioning) -> Self {
        Self { versioning, failed: Mutex::default() }
    }

    /// What lies beneath each of the groups; empty where that is not known, or where there is nothing to ask for.
    pub(super) async fn count(
        &self,
        reading: &Reading,
        scope: &Scope,
        groups: &[Group],
        stop: &CancellationToken,
    ) -> Vec<Beneath> {
        let mut counted = Vec::new();
        match self.versioning {
            Versioning::Enabled | Versioning::Suspended => {}
            Versioning::Unversioned | Versioning::Unknown => return counted,
        }
        for group in groups {
            // Whoever was refused once would be refused for every prefix.
            if self.failed.lock().is_some() {
                return Vec::new();
            }
            match versions::count(&*reading.store, &prefix_of(group, &scope.patterns), stop).await {
                Ok(beneath) => counted.push(beneath),
                Err(error) => {
                    self.failed.lock().get_or_insert(error);
                    return Vec::new();
                }
            }
        }
        counted
    }

    /// Says whether the counts of the report are whole.
    pub(super) fn finish(&self, session: &mut Session<'_>) {
        let draft = &mut session.draft;
        let why = match (self.versioning, self.failed.lock().take()) {
            (Versioning::Unknown, _) => Some("the store does not say whether it keeps any".to_owned()),
            (_, Some(error)) => {
                tracing::debug!(error = %error, "old versions are not known");
                Some(error.to_string())
            }
            (Versioning::Unversioned | Versioning::Enabled | Versioning::Suspended, None) => None,
        };
        draft.versions.known = why.is_none();
        draft.coverage.unknown.extend(why.map(|why| format!("{}: {why}", leaks::VERSIONS)));
    }
}

/// Adds what lies beneath the groups of one id to the report.
pub(super) fn note_versions(session: &mut Session<'_>, groups: &[Group], orphan: &Orphan, beneath: &[Beneath]) {
    for (group, beneath) in groups.iter().zip(beneath) {
        let counts = &mut session.draft.versions;
        counts.noncurrent += beneath.noncurrent;
        counts.markers += beneath.markers;
        counts.noncurrent_bytes = counts.noncurrent_bytes.saturating_add(beneath.noncurrent_bytes);
        let shows_objects = orphan.groups.iter().any(|(opened, content)| opened == group && content.objects > 0);
        if !shows_objects && !beneath.is_empty() {
            counts.versions_only += 1;
            session.versions_only.push(VersionsOnly(group.clone()));
        }
    }
}
