//! Removes what is older than `reports.keep`: reports first, then what the ledger remembers of them.
//!
//! Invariant: it runs only at the end of a complete run and changes neither its verdicts nor its exit code; what any later
//! run could need stays, and so does everything in the folder that is not surely a report of this ledger.

use std::collections::BTreeSet;
use std::path::Path;

use super::failure::chain;
use super::{RunFailure, Session};
use crate::model::Timestamp;
use crate::report::Retention;
use crate::report::folder::{self, Removed};

/// Removes what is too old; says what was removed, and why it could not be, where it could not.
pub async fn retain(session: &Session<'_>) -> Retention {
    let mut retention = Retention::default();
    let result = remove(session, &mut retention).await;
    if let Err(failure) = result {
        let error = failure.chain();
        tracing::warn!(run_id = %session.run, error = %error, "old reports could not all be removed");
        retention.error.get_or_insert(error);
    }
    if retention.reports_removed + retention.rows_compacted > 0 {
        tracing::info!(
            run_id = %session.run,
            reports = retention.reports_removed,
            rows = retention.rows_compacted,
            "reports older than `reports.keep` removed, and their rows compacted"
        );
    }
    retention
}

async fn remove(session: &Session<'_>, retention: &mut Retention) -> Result<(), RunFailure> {
    let (services, scope) = (session.services, &session.scope.name);
    let Some(before) = oldest_kept(session) else { return Ok(()) };
    let (ledger, reports) = (&services.ledger, &services.config.reports_directory);
    let mut needed = ledger.needed_runs(scope, before.now).await?;
    needed.extend(folder::newest_runs(reports, scope).iter().map(ToString::to_string));
    needed.insert(session.run.to_string());
    retention.rows_compacted = ledger.forget_undelivered(scope, before.kept_from).await?;
    let old: Vec<String> =
        ledger.runs_before(scope, before.kept_from).await?.into_iter().filter(|run| !needed.contains(run)).collect();
    let gone = remove_folders(reports, scope, &old, retention);
    let compactable: Vec<String> = old.into_iter().filter(|run| gone.contains(run)).collect();
    retention.rows_compacted += ledger.compact_runs(&compactable).await?;
    // A checkpoint holds what is known of every row, so it pays for many entries only.
    let is_worth_it = |begins_at: Timestamp| before.kept_from - begins_at >= (before.now - before.kept_from) / 10;
    if ledger.chain_begins_at().await?.is_some_and(is_worth_it) {
        retention.rows_compacted += ledger.checkpoint_chain(before.kept_from).await?;
    }
    Ok(())
}

/// The times that decide what is old.
struct Kept {
    now: Timestamp,
    kept_from: Timestamp,
}

/// From when on reports are kept. "Now" is the earliest of all clocks, so that one that runs ahead removes nothing.
fn oldest_kept(session: &Session<'_>) -> Option<Kept> {
    let now = session.services.clock.now().min(session.draft.as_of?);
    let keep = chrono::Duration::from_std(session.services.config.reports_keep).ok()?;
    Some(Kept { now, kept_from: now.checked_sub_signed(keep)? })
}

/// Removes the folders of these runs; gives the runs that have none any more.
fn remove_folders(reports: &Path, scope: &str, runs: &[String], retention: &mut Retention) -> BTreeSet<String> {
    let mut gone = BTreeSet::new();
    for run in runs {
        match folder::remove_run(reports, scope, run) {
            Ok(Removed::Whole) => retention.reports_removed += 1,
            Ok(Removed::Nothing) => {}
            Ok(Removed::Foreign) => continue,
            Err(error) => {
                tracing::warn!(run_id = %run, error = %chain(&error), "an old report could not be removed");
                retention.error.get_or_insert_with(|| chain(&error));
                continue;
            }
        }
        gone.insert(run.clone());
    }
    gone
}
