//! reap: a sweep empties quarantines whose time is over.
//!
//! Invariant: it is held by whatever would hold a deletion: an evidence breaker, tripped or latched, an empty live table, the
//! stop file; and where time went on so far since the last good scan that every clock may have jumped. Times are the store's:
//! a run's own, and each copy's `LastModified`.

use std::collections::HashSet;

use serde_json::json;

use super::one_plan::trip_on_recheck;
use super::scan::Scan;
use super::{Keyring, Reading, RunFailure, Session, Undoing};
use crate::decide::breakers::Kind;
use crate::dispose::pace::{Pace, Pacer};
use crate::dispose::reap::{Emptied, Reaper, Rules};
use crate::dispose::{Consent, Halt, Tools, Unnoted, is_there};
use crate::exit::Exit;
use crate::list::uploads::Watch;
use crate::model::{RunId, Timestamp};
use crate::record::Undo;
use crate::report::{Reaped, folder};

/// Empties the quarantines of the scope whose time is over, where nothing holds it.
///
/// - Errors: [`RunFailure`] where a re-check failed, the ledger failed, or it was told to stop. A quarantine that cannot be
///   listed is told in the report and left for another run.
pub async fn reap(
    session: &mut Session<'_>,
    keyring: &Keyring,
    (reading, scan): (&Reading, &Scan),
) -> Result<(), RunFailure> {
    let mut quarantines = session.services.ledger.kept_quarantines(&session.scope.name).await?;
    // A purge that goes on writes into the folder that it began, over copies that it made before.
    let filled: HashSet<RunId> = session.services.ledger.pending_purges(None).await?.iter().map(|it| it.run).collect();
    quarantines.retain(|quarantine| !filled.contains(&quarantine.run));
    let untold = untold_runs(session).await?;
    if quarantines.is_empty() && untold.is_empty() {
        return Ok(());
    }
    if let Some(why) = held_by(session, scan) {
        session.draft.reaped = Some(Reaped { held_by: Some(why), ..Reaped::default() });
        return Ok(());
    }
    // Whatever fails from here on, no report may pass over what was asked for.
    session.untold.is_reaping = true;
    for run in &untold {
        session.services.ledger.take_over_reapings(run, session.run).await?;
    }
    let mut reaped = Reaped::default();
    let ended = empty_all(session, keyring, (reading, scan), (&quarantines, &mut reaped)).await;
    session.draft.reaped = Some(reaped);
    let told = tell_reaping(session).await;
    ended.and(told)
}

/// Tells what this run asked of quarantines.
///
/// - Errors: the ledger's. It stays untold then, and the run's end tries again.
pub(super) async fn tell_reaping(session: &mut Session<'_>) -> Result<(), RunFailure> {
    let totals = session.services.ledger.reaping_totals(session.run).await?;
    if totals.objects + totals.failed > 0 {
        let told = json!({ "copies": totals.objects, "bytes": totals.bytes, "failed": totals.failed });
        session.services.ledger.note_undone("reaped", session.run, &told).await?;
    }
    let reaped = session.draft.reaped.get_or_insert_default();
    (reaped.objects, reaped.bytes, reaped.failed) = (totals.objects, totals.bytes, totals.failed);
    if totals.failed > 0 && session.exit == Exit::Done {
        session.exit = Exit::SomeFailed;
    }
    tracing::info!(
        target: "deletions",
        run_id = %session.run,
        object_count = totals.objects,
        size_bytes = totals.bytes,
        waiting = reaped.waiting,
        "quarantine emptied of what is past its time"
    );
    session.untold.is_reaping = false;
    Ok(())
}

/// For how long a quarantine is kept: as long as was said when it was filled, and as is said now.
fn keep_of(session: &Session<'_>, quarantine: &Undo) -> chrono::Duration {
    let keep = session.scope.quarantine.keep.max(quarantine.keep.unwrap_or_default());
    chrono::Duration::from_std(keep).unwrap_or(chrono::Duration::MAX)
}

async fn empty_all(
    session: &mut Session<'_>,
    keyring: &Keyring,
    (reading, scan): (&Reading, &Scan),
    (quarantines, reaped): (&[Undo], &mut Reaped),
) -> Result<(), RunFailure> {
    let mut next: Option<Timestamp> = None;
    let mut ended = Ok(());
    for quarantine in quarantines {
        let keep = keep_of(session, quarantine);
        let written_until = scan.as_of.checked_sub_signed(keep).unwrap_or(Timestamp::MIN_UTC);
        let over_at = |time: Timestamp| time.checked_add_signed(keep);
        if quarantine.began_at > written_until {
            next = next.into_iter().chain(over_at(quarantine.began_at)).min();
            continue;
        }
        let undoing = keyring.undoing(session.services, &quarantine.bucket)?;
        // Read anew for each: what one found wanted keeps the copies in the next.
        let wanted = session.services.ledger.wanted_ids(&session.scope.name).await?;
        let rules = Rules { written_until, held: &scan.holds, wanted: &wanted, as_of: scan.as_of };
        match empty(session, (reading, scan), (&undoing, quarantine), &rules).await {
            Ok((emptied, halt)) => {
                reaped.waiting += emptied.waiting;
                next = next.into_iter().chain(emptied.oldest_young.and_then(over_at)).min();
                if emptied.is_empty {
                    let (ledger, now) = (&session.services.ledger, session.services.clock.now());
                    ledger.close_quarantine(quarantine.run, session.run, now).await?;
                }
                if let Some(halt) = halt {
                    ended = end_by(session, scan, reaped, halt).await;
                    break;
                }
            }
            Err(RunFailure::Store(error)) => {
                session.check_stop()?;
                tracing::warn!(error = %error, quarantine = %quarantine.run, "a quarantine could not be read; it is left for another run");
                reaped.held_by.get_or_insert(format!("it could not be read: {error}"));
                session.exit = Exit::SomeFailed;
            }
            Err(failure) => return Err(failure),
        }
    }
    reaped.next_at = next;
    ended
}

/// What keeps the reaper from beginning.
fn held_by(session: &Session<'_>, scan: &Scan) -> Option<String> {
    let refusing: Vec<&str> =
        session.refusing(Some(Kind::Evidence)).iter().map(|reading| reading.name.as_str()).collect();
    if !refusing.is_empty() {
        return Some(format!("what was seen is in doubt ({})", refusing.join(", ")));
    }
    if let Some(table) = scan.references.tables.iter().find(|table| table.rows == 0) {
        return Some(format!("{} has no rows: no re-check could tell it from an emptied table", table.name));
    }
    if let Some(why) = &session.leap {
        return Some(why.clone());
    }
    let stop_file = &session.services.config.stop_file;
    is_there(stop_file).then(|| format!("the stop file `{}` exists", stop_file.display()))
}

/// Runs of the reaper that ended without a report: what they reaped is told by this one.
async fn untold_runs(session: &Session<'_>) -> Result<Vec<String>, RunFailure> {
    let (reports, scope) = (&session.services.config.reports_directory, &session.scope.name);
    let mut runs = session.services.ledger.unfinished_reapers(scope).await?;
    runs.retain(|run| !folder::has_summary(reports, scope, run));
    Ok(runs)
}

async fn empty(
    session: &Session<'_>,
    (reading, scan): (&Reading, &Scan),
    (undoing, quarantine): (&Undoing, &Undo),
    rules: &Rules<'_>,
) -> Result<(Emptied, Option<Halt>), RunFailure> {
    let services = session.services;
    let pacer = Pacer::new(Pace::default(), services.clock.clone(), session.began);
    let tools = Tools {
        store: &*undoing.store,
        deleter: &*undoing.deleter,
        aside: None,
        references: &*reading.references,
        ledger: &services.ledger,
        clock: services.clock.clone(),
        stop: services.stop.token.clone(),
        stop_file: services.config.stop_file.clone(),
        consent: Consent::Given,
        as_of: scan.as_of,
        progress: &|_| {},
        pacer: &pacer,
        closing: &Unnoted,
        uploads: Watch::new(&*reading.store, session.scope, &services.stop.token, &scan.uploads),
    };
    let anchor = scan.references.anchor();
    let reaper = Reaper::new(session.scope, quarantine, session.run, anchor, (tools, &*undoing.copier));
    let emptied = reaper.empty(rules).await;
    let halt = reaper.halt();
    Ok((emptied?, halt))
}

/// What a reaper that was halted means for its run.
async fn end_by(session: &mut Session<'_>, scan: &Scan, reaped: &mut Reaped, halt: Halt) -> Result<(), RunFailure> {
    match halt {
        // The reaper has no time of its own, and nothing to tell before the end.
        Halt::Interrupted | Halt::OutOfTime | Halt::Untold => {
            Err(RunFailure::Interrupted(session.services.stop.exit()))
        }
        Halt::StopFile => {
            reaped.held_by = Some(format!("the stop file `{}` exists", session.services.config.stop_file.display()));
            Ok(())
        }
        Halt::Record(error) => Err(RunFailure::Record(error)),
        Halt::Holds(error) => Err(error.into()),
        Halt::References(error) => Err(trip_on_recheck(session, scan, error).await?),
    }
}
