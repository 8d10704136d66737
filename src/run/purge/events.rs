//! The events of the platform's delete operations, by which a person's logs are searched: rows gone, objects gone, objects left.

use super::webhook;
use crate::clock::Stopwatch;
use crate::config::Purge;
use crate::model::DatasetId;
use crate::record::{PurgeRow, PurgeState, PurgeSubject};
use crate::report::{Outcome, Summary};
use crate::run::Services;
use crate::run::failure::chain;

/// Tells that the rows are gone, where nobody did: in the log, and the platform, of a job that was cancelled. A process that dies
/// in between tells it again.
pub(super) async fn tell_rows(services: &Services, configured: &Purge, purge: &mut PurgeRow) {
    if purge.is_told {
        return;
    }
    for dataset in &purge.evidence.datasets {
        tracing::info!(
            target: "deletions",
            event = "synthetic_dataset_deleted",
            run_id = %purge.run,
            scope = %purge.scope,
            dataset_id = %dataset.id,
            dataset_type = %dataset.kind,
            "the rows of a dataset are gone"
        );
    }
    if let Some(job) = &purge.evidence.job {
        tracing::info!(
            target: "deletions",
            event = "synthetic_job_deleted",
            run_id = %purge.run,
            scope = %purge.scope,
            job_id = %purge.subject.id(),
            datasets = purge.evidence.datasets.len(),
            detached = job.detached,
            was_cancelled = job.was_cancelled,
            "the rows of a job are gone"
        );
        if job.was_cancelled {
            webhook::tell_cancelled(configured, purge.subject.id(), job, &purge.evidence.datasets).await;
        }
    }
    crate::failpoint::reach("purge_told");
    purge.is_told = true;
    if let Err(error) = services.ledger.note_purge_told(purge.run).await {
        tracing::warn!(run_id = %purge.run, error = %chain(&error), "the ledger could not note that a purge was told; it may be told again");
    }
}

/// Tells what became of the objects, each time that the work on them ends.
pub(super) fn tell_objects(purge: &PurgeRow, summary: &Summary, left: &[DatasetId], watch: Stopwatch) {
    if purge.state != PurgeState::Committed {
        return;
    }
    let deletion = summary.deletion.unwrap_or_default();
    let size_bytes = deletion.bytes_deleted.max(deletion.bytes_marked).max(deletion.bytes_quarantined);
    let duration_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (kind, id) = match purge.subject {
        PurgeSubject::Dataset(id) => ("dataset", id.0),
        PurgeSubject::Job(id) => ("job", id),
    };
    let is_whole = left.is_empty() && summary.outcome == Outcome::Complete;
    if is_whole {
        tracing::info!(
            target: "deletions",
            event = "minio_cleanup_complete",
            run_id = %purge.run,
            scope = %purge.scope,
            kind,
            id = %id,
            datasets = purge.evidence.datasets.len(),
            object_count = deletion.deleted,
            already_gone = deletion.already_gone,
            size_bytes,
            duration_ms,
            "the objects of a purge are gone"
        );
        return;
    }
    let ids: Vec<String> = left.iter().map(ToString::to_string).collect();
    tracing::error!(
        target: "deletions",
        event = "minio_cleanup_failed",
        run_id = %purge.run,
        scope = %purge.scope,
        kind,
        id = %id,
        datasets = purge.evidence.datasets.len(),
        left = ids.join(" "),
        object_count = deletion.deleted,
        skipped = deletion.skipped,
        failed = deletion.failed,
        unconfirmed = deletion.unconfirmed,
        size_bytes,
        duration_ms,
        reason = summary.reason.as_deref().unwrap_or_default(),
        "not all objects of a purge are gone; the rest are orphans for the next sweep"
    );
}
