//! Multipart uploads of a run: told with whose they are and, where the scope asks for it, aborted once they are stale.
//!
//! Invariant, per abort: the run's own listing and a second one just before show the upload, under the canonical prefix of
//! an id that neither the run's read of the rows nor a re-check, with proof, right before the request found alive.

use std::collections::HashSet;

use super::one_plan::{stop_file_refusal, trip_on_recheck};
use super::scan::Scan;
use super::{Reading, RunFailure, Session, holds};
use crate::clock::Stopwatch;
use crate::dispose::is_there;
use crate::exit::Exit;
use crate::list::uploads::{self, Found, Owner};
use crate::model::{DatasetId, Timestamp, visible};
use crate::record::AbortIntent;
use crate::report::Outcome;
use crate::report::leaks::UploadVerdict;
use crate::s3::{AbortReply, AbortStore};

/// Whether this run may abort something: the scope asks for it, the listing that says what is stale is whole, and time has not
/// gone on too far at once. What forbids it is told.
pub(super) fn would_abort(session: &mut Session<'_>) -> bool {
    let uploads = &mut session.draft.uploads;
    let is_whole = uploads.known && session.draft.outcome == Outcome::Complete;
    if session.scope.uploads.abort_after.is_none() || !is_whole || uploads.stale == 0 {
        return false;
    }
    uploads.held_by.clone_from(&session.leap);
    session.leap.is_none()
}

/// Aborts the stale uploads under orphans.
///
/// - Errors: a re-check that proves nothing ends the run, as it ends a deletion.
pub(super) async fn abort_stale(
    session: &mut Session<'_>,
    reading: &Reading,
    aborter: &dyn AbortStore,
    scan: &Scan,
) -> Result<(), RunFailure> {
    let stop = session.services.stop.token.clone();
    let fresh = uploads::take(&*reading.store, session.scope, session.scope.uploads.stale_after(), &stop).await;
    session.check_stop()?;
    if let Some(error) = &fresh.unknown {
        tracing::warn!(error = %error, "uploads can no longer be listed; none is aborted");
        return Ok(());
    }
    let mut seen_live = HashSet::new();
    for found in &fresh.told {
        let Some(id) = abortable(found, scan, session) else { continue };
        // A row that came and went between two answers was there.
        if seen_live.contains(&id) {
            note(session, found, UploadVerdict::LiveAgain);
            continue;
        }
        session.check_stop()?;
        if is_there(&session.services.config.stop_file) {
            return Err(stop_file_refusal(session));
        }
        let verdict = abort_one(session, reading, aborter, scan, (id, found)).await?;
        if verdict == UploadVerdict::LiveAgain {
            seen_live.insert(id);
        }
        note(session, found, verdict);
    }
    Ok(())
}

/// The id of an upload that may be aborted, as far as listings and rows tell.
fn abortable(found: &Found, scan: &Scan, session: &Session<'_>) -> Option<DatasetId> {
    let Owner::Dataset(id) = found.owner else { return None };
    // An id that the run's own listing did not show was not compared with the rows.
    let is_orphan = scan.uploads.is_under_orphan(id) && !scan.findings.is_live(id);
    let is_agreed = found.is_stale && is_orphan && is_stale_by(scan.as_of, found, session);
    (is_agreed && scan.uploads.told_of(&found.upload)).then_some(id)
}

/// The earlier of the clocks must agree that it is stale.
fn is_stale_by(as_of: Timestamp, found: &Found, session: &Session<'_>) -> bool {
    let stale_after = chrono::Duration::from_std(session.scope.uploads.stale_after()).unwrap_or(chrono::Duration::MAX);
    found.upload.initiated.is_some_and(|initiated| as_of - initiated >= stale_after)
}

async fn abort_one(
    session: &mut Session<'_>,
    reading: &Reading,
    aborter: &dyn AbortStore,
    scan: &Scan,
    (id, found): (DatasetId, &Found),
) -> Result<UploadVerdict, RunFailure> {
    if is_protected(session, reading, scan, id).await? {
        return Ok(UploadVerdict::Protected);
    }
    let (key, upload) = (visible(found.upload.key.as_str()), &found.upload.upload_id);
    let intent = AbortIntent { scope: &session.scope.name, run: session.run, id, upload: &found.upload };
    session.services.ledger.intend_abort(&intent).await?;
    crate::failpoint::reach("abort_intended");
    let proof = Stopwatch::start();
    let live = match reading.references.recheck(&[id], &scan.references.anchor()).await {
        Ok(live) => live,
        Err(error) => return Err(trip_on_recheck(session, scan, error).await?),
    };
    if live.contains(&id) {
        tracing::warn!(dataset_id = %id, "the dataset has a row again; its upload is left alone");
        session.services.ledger.forget(&session.scope.name, &[id]).await?;
        session.services.ledger.settle_abort(&intent, UploadVerdict::LiveAgain.as_str()).await?;
        return Ok(UploadVerdict::LiveAgain);
    }
    tracing::info!(target: "deletions", run_id = %session.run, dataset_id = %id, key = %key, upload = %visible(upload), "aborting a stale upload");
    let verdict = match aborter.abort_upload(&found.upload, proof).await {
        Ok(AbortReply::Aborted) => UploadVerdict::Aborted,
        Ok(AbortReply::AlreadyGone) => UploadVerdict::AlreadyGone,
        Err(error) => {
            tracing::warn!(dataset_id = %id, key = %key, error = %error, "upload was not aborted");
            if session.exit == Exit::Done {
                session.exit = Exit::SomeFailed;
                session.draft.reason = Some(format!("an upload was not aborted (uploads.csv): {error}"));
            }
            if error.fault.is_transient() { UploadVerdict::Unconfirmed } else { UploadVerdict::AbortFailed }
        }
    };
    session.services.ledger.settle_abort(&intent, verdict.as_str()).await?;
    tracing::info!(target: "deletions", run_id = %session.run, dataset_id = %id, key = %key, verdict = verdict.as_str(), "upload done");
    Ok(verdict)
}

/// Whether a person protects the id, or rejected its deletion, by now. Asked again before each abort, as before each batch.
async fn is_protected(
    session: &Session<'_>,
    reading: &Reading,
    scan: &Scan,
    id: DatasetId,
) -> Result<bool, RunFailure> {
    let in_table = reading.references.holds().await?;
    let holds = holds::gather(session.services, session.scope, &in_table, scan.as_of).await?;
    let is_held = scan.holds.on(id).is_some() || holds.on(id).is_some();
    Ok(is_held || session.services.ledger.is_rejected_id(&session.scope.name, id).await?)
}

/// Puts what became of an upload into the report.
fn note(session: &mut Session<'_>, found: &Found, verdict: UploadVerdict) {
    session.draft.uploads.aborted += u64::from(verdict == UploadVerdict::Aborted);
    let upload = (found.upload.key.as_str(), found.upload.upload_id.as_str());
    let position = session.uploads.binary_search_by(|record| (&*record.key, &*record.upload_id).cmp(&upload));
    if let Ok(position) = position {
        session.uploads[position].verdict = verdict;
    }
}
