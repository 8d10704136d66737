//! The objects of a purge, also after a restart: is its transaction known to be committed, are its rows still gone, and then
//! batch by batch.
//!
//! Invariant: one process at a time works on a purge, by its own lock; whoever goes on with it writes into the same run, so that
//! each key is told once.

use std::collections::BTreeMap;

use super::beside::{check_latches, readings_beside};
use super::rows::{fate_of, rows_by_table};
use super::{Refusal, Removed, events};
use crate::clock::Stopwatch;
use crate::config::Scope;
use crate::decide::breakers::{SET_BACK, TargetFingerprint};
use crate::dispose::pace::{Pace, Pacer};
use crate::dispose::purge::Cleared;
use crate::dispose::{Aside, Consent, Disposal, Halt, Tools, Unnoted};
use crate::exit::Exit;
use crate::list::pages::Pages;
use crate::list::references::ReferencesError;
use crate::list::uploads::{Uploads, Watch};
use crate::metrics::{self, PurgeOutcome};
use crate::model::{DatasetId, RunId, Timestamp, Versioning};
use crate::platform::Fate;
use crate::record::{LockError, PurgeRow, PurgeState, PurgeSubject, Undo, UndoKind};
use crate::report::{Deletion, PurgeReport, PurgedDatasetReport, PurgedJobReport, QuarantineFolder, folder, undo};
use crate::run::telling::tell_deletions;
use crate::run::{Keyring, Reading, RunFailure, ScopeEnd, Services, Session, SetupError};
use crate::s3::{StoreFault, retry};

/// The command of its runs.
pub(super) const COMMAND: &str = "purge";

/// What became of the objects of a purge.
#[derive(Debug)]
pub struct CleanUp {
    /// Where it stands now.
    pub state: PurgeState,
    /// What became of each key; nothing where nothing was asked for.
    pub deletion: Deletion,
    /// Datasets of which the store still lists something: orphans for the next sweep.
    pub left: Vec<DatasetId>,
    /// The end of its run, with its report.
    pub end: ScopeEnd,
}

/// Why a purge could not be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum CleanUpError {
    /// Another process works on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not even a report could be begun.
    #[error(transparent)]
    Run(#[from] RunFailure),
}

/// Removes the objects of a purge whose rows are gone, and writes its report.
///
/// - Errors: [`RunFailure`] where not even a report could be begun; the purge is still pending then.
pub async fn clean_up(services: &Services, keyring: &Keyring, removed: Removed) -> Result<CleanUp, RunFailure> {
    let Removed { purge, stop, lock } = removed;
    let cleaned = Box::pin(go_on(&services.with_stop(stop), keyring, purge.run)).await;
    drop(lock);
    cleaned
}

/// Goes on with a pending purge, which its process left.
///
/// - Errors: [`CleanUpError`], as where another process works on it; the purge is still pending then.
pub async fn resume(services: &Services, keyring: &Keyring, run: RunId) -> Result<CleanUp, CleanUpError> {
    let stop = services.stop.of_one_run();
    let lock = services.ledger.lock_purge(run, stop.when_lock_is_lost()).await?;
    let cleaned = Box::pin(go_on(&services.with_stop(stop), keyring, run)).await;
    drop(lock);
    Ok(cleaned?)
}

/// Under the lock of the purge.
async fn go_on(services: &Services, keyring: &Keyring, run: RunId) -> Result<CleanUp, RunFailure> {
    // Only now: whoever had the lock may have come further.
    let purge = services.ledger.purge(run).await?.filter(|purge| purge.state.is_pending());
    let purge =
        purge.ok_or_else(|| refused(format!("there is no pending purge {run}"), "it is over: see its report"))?;
    let scope = services.config.scopes.iter().find(|scope| scope.name == purge.scope);
    let scope = scope.ok_or_else(|| {
        refused(
            format!("the purge is of the scope `{}`, which the configuration does not have", purge.scope),
            "check --config",
        )
    })?;
    // Before its folder is touched: a report that it wrote once may lie there.
    for newest in folder::newest_runs(&services.config.reports_directory, &scope.name) {
        if !services.ledger.knows_run(&newest.to_string()).await? {
            services.ledger.give_up_purges(&scope.name).await?;
            let reason = format!(
                "the ledger does not know the newest report beside it, {newest}: it is older or another, and this purge may be over"
            );
            return Err(refused(reason, "what is left of it is an orphan: `orphan-sweeper audit` shows it"));
        }
    }
    let reading = keyring.reading(services, scope).map_err(RunFailure::from)?;
    let mut session = begin(services, scope, &reading, &purge).await?;
    let has_report = services.ledger.run(&run.to_string()).await?.is_some_and(|run| run.summary.is_some());
    let watch = Stopwatch::start();
    let mut work = Work { keyring, reading: &reading, purge, left: Vec::new() };
    let ended = work.run(&mut session).await;
    let state = match &ended {
        Ok(()) => PurgeState::Done,
        Err(Broken { is_over: Some(state), .. }) => *state,
        Err(Broken { is_over: None, .. }) => work.purge.state,
    };
    let is_whole = ended.is_ok();
    if let Err(broken) = ended {
        session.absorb(broken.failure);
    }
    let Work { purge, left, .. } = work;
    // One that stays pending is tried again and again: a person is told of the first time, and of the end.
    if !state.is_pending() || !has_report {
        session.notifier = Some(keyring.notifier(&services.config));
    }
    let so_far = session.draft.clone();
    let end = session.finish(&reading).await;
    // The report has told what could not be told before it.
    events::tell_objects(&purge, end.as_ref().map_or(&so_far, |end| &end.summary), &left, watch);
    let end = end?;
    let deletion = end.summary.deletion.unwrap_or_default();
    if !state.is_pending() {
        services.ledger.end_purge(run, state).await?;
        services.ledger.forget_purge_lock(run);
        metrics::purge_ended(super::kind_of(purge.subject), outcome_of(state, is_whole && left.is_empty()));
    }
    Ok(CleanUp { state, deletion, left, end })
}

/// What a purge that is over counts as.
fn outcome_of(state: PurgeState, is_everything_gone: bool) -> PurgeOutcome {
    match state {
        PurgeState::Intended | PurgeState::Aborted | PurgeState::Unknown => PurgeOutcome::Failed,
        PurgeState::Committed | PurgeState::Done if is_everything_gone => PurgeOutcome::Removed,
        PurgeState::Committed | PurgeState::Done => PurgeOutcome::ObjectsLeft,
    }
}

/// Ends a purge whose transaction changed nothing, with its report.
pub(super) async fn close_unchanged(
    services: &Services,
    scope: &Scope,
    reading: &Reading,
    purge: &PurgeRow,
) -> Result<(), RunFailure> {
    let mut session = begin(services, scope, reading, purge).await?;
    session.absorb(unchanged());
    session.finish(reading).await?;
    Ok(services.ledger.end_purge(purge.run, PurgeState::Aborted).await?)
}

fn refused(reason: String, hint: &str) -> RunFailure {
    RunFailure::Refused { reason, hint: hint.to_owned() }
}

fn unchanged() -> RunFailure {
    refused("its transaction did not commit: nothing was changed".into(), "purge it again")
}

async fn begin<'s>(
    services: &'s Services,
    scope: &'s Scope,
    reading: &Reading,
    purge: &PurgeRow,
) -> Result<Session<'s>, RunFailure> {
    let mut session = Session::go_on(services, scope, reading, (purge.run, purge.began_at), COMMAND).await?;
    session.draft.purge = Some(report_of(purge));
    // What was begun in one way goes on in it, whatever is configured now: `restore` looks where it began.
    let begun = services.ledger.undos_of(&purge.run.to_string()).await?;
    if let Some(undo) = begun.into_iter().find(|undo| undo.run == purge.run) {
        session.draft.quarantine = match undo.kind {
            UndoKind::Quarantine => {
                let keep_s = undo.keep.unwrap_or(scope.quarantine.keep).as_secs();
                Some(QuarantineFolder { bucket: undo.bucket, prefix: undo.prefix, keep_s })
            }
            UndoKind::Versions => None,
        };
        if undo.kind == UndoKind::Versions {
            session.draft.target.versioning = Versioning::Enabled;
        }
    } else if services.ledger.deletion_totals(purge.run).await?.requested > 0 {
        // It deletes plainly; a copy of the rest would have the report say that all of it can be brought back.
        session.draft.quarantine = None;
    }
    Ok(session)
}

/// Why the work on a purge ended early, and where that leaves it; without a state, it is pending.
struct Broken {
    failure: RunFailure,
    is_over: Option<PurgeState>,
}

impl Broken {
    /// A restart goes on with it.
    fn pending(failure: impl Into<RunFailure>) -> Self {
        Self { failure: failure.into(), is_over: None }
    }

    /// A database that does not answer is asked again; what it answers ends the work.
    fn by(error: ReferencesError) -> Self {
        match error {
            ReferencesError::Connect { .. } | ReferencesError::Statement { .. } => Self::pending(error),
            _ => Self::over(error),
        }
    }

    /// What is left is an orphan for the next sweep.
    fn over(failure: impl Into<RunFailure>) -> Self {
        Self { failure: failure.into(), is_over: Some(PurgeState::Done) }
    }
}

struct Work<'w> {
    keyring: &'w Keyring,
    reading: &'w Reading,
    purge: PurgeRow,
    left: Vec<DatasetId>,
}

impl Work<'_> {
    async fn run(&mut self, session: &mut Session<'_>) -> Result<(), Broken> {
        self.prove_committed(session).await?;
        if let Some(purge) = &session.scope.purge {
            // Nobody did where the process that removed them came to no word of it.
            events::tell_rows(session.services, purge, &mut self.purge).await;
        }
        let ids: Vec<DatasetId> =
            self.purge.evidence.datasets.iter().filter(|it| it.has_objects).map(|it| it.id).collect();
        self.left.clone_from(&ids);
        if !ids.is_empty() {
            // What an earlier process asked for is told, however this one ends.
            session.untold.plans.push(self.purge.plan_hash());
        }
        // Also where it must wait: a row that is there now makes any later one another.
        let looked = self.prove_removed(session).await;
        // Of a database that forgot it, nobody can tell later; anything else may wait for a person.
        let is_forgotten = looked.as_ref().is_err_and(|broken| broken.is_over == Some(PurgeState::Unknown));
        if !ids.is_empty() && !is_forgotten {
            self.check_place(session).await?;
        }
        let as_of = looked?;
        crate::failpoint::reach("purge_looked");
        let stop = session.services.stop.token.clone();
        session.draft.as_of = Some(as_of);
        session.draft.coverage.complete = true;
        if ids.is_empty() {
            return Ok(());
        }
        let versioning = retry::read_with_retries(&stop, || self.reading.store.versioning()).await;
        session.draft.target.versioning = versioning.map_err(|error| interrupted_or(session, error.into()))?;
        let is_begun = self.note_undo(session, &ids, as_of).await?;
        let (cleared, halt) = self.clear(session, &ids, (as_of, is_begun)).await?;
        self.left = cleared.iter().filter(|(_, cleared)| *cleared == Cleared::Partly).map(|(id, _)| *id).collect();
        self.left.sort_unstable();
        // Whatever ended it, what was asked for is told.
        let told = tell_deletions(session, self.purge.plan_hash()).await;
        match halt {
            None => {}
            Some(Halt::Interrupted | Halt::OutOfTime | Halt::Untold) => {
                return Err(Broken::pending(RunFailure::Interrupted(session.services.stop.exit())));
            }
            Some(Halt::StopFile) => return Err(Broken::pending(stop_file(session))),
            Some(Halt::Record(error)) => return Err(Broken::pending(error)),
            Some(Halt::Holds(error)) => return Err(Broken::over(error)),
            Some(Halt::References(error)) => return Err(Broken::by(error)),
        }
        told.map_err(Broken::pending)?;
        if !self.left.is_empty() {
            session.exit = Exit::SomeFailed;
            session.draft.reason =
                Some(format!("something is left of {} datasets: orphans for the next sweep", self.left.len()));
        }
        Ok(())
    }

    /// The transaction must be known to have committed.
    async fn prove_committed(&mut self, session: &Session<'_>) -> Result<(), Broken> {
        if self.purge.state == PurgeState::Committed {
            return Ok(());
        }
        let missing =
            || refused("its end cannot be asked for without `[scope.purge]` and its role".into(), "set them again");
        let purge = session.scope.purge.as_ref().ok_or_else(|| Broken::pending(missing()))?;
        let platform = self.keyring.platform(purge).map_err(|error| Broken::pending(SetupError::Secret(error)))?;
        let platform = platform.ok_or_else(|| Broken::pending(missing()))?;
        let fate = fate_of(&platform, &self.purge).await;
        let over = |state, failure| Err(Broken { failure, is_over: Some(state) });
        match fate {
            Ok(Fate::Committed) => {}
            Ok(Fate::Aborted) => return over(PurgeState::Aborted, unchanged()),
            Ok(Fate::Unknown) => {
                let reason = "nobody can tell any more whether its transaction committed; what is left is an orphan, if it is one";
                return over(PurgeState::Unknown, refused(reason.into(), "`orphan-sweeper audit` shows it"));
            }
            Ok(Fate::InProgress) => {
                return Err(Broken::pending(refused(
                    "its transaction has not ended yet".into(),
                    "purge it again later",
                )));
            }
            Err(error) => {
                let failure = refused(crate::run::failure::chain(&error), error.hint());
                return Err(Broken::pending(failure));
            }
        }
        let ledger = &session.services.ledger;
        ledger.commit_purge(self.purge.run, &self.purge.evidence.rows).await.map_err(Broken::pending)?;
        self.purge.state = PurgeState::Committed;
        Ok(())
    }

    /// The objects must lie where they lay when the rows went, and nobody may doubt what was seen since.
    async fn check_place(&self, session: &Session<'_>) -> Result<(), Broken> {
        let services = session.services;
        let Some(expected) = &self.purge.evidence.target else {
            let reason = "an earlier version began it, which did not note where its objects lie".to_owned();
            return Err(Broken::over(refused(reason, "what is left is an orphan: `orphan-sweeper audit` shows it")));
        };
        let found = TargetFingerprint::of(session.scope, &services.config.store.endpoint);
        if found != *expected {
            let reason = format!("its objects lie in {expected}; the configuration says {found} now");
            let baseline = services.ledger.baseline(&session.scope.name).await.map_err(Broken::pending)?;
            // What a good scan saw, or a person acknowledged, is no slip of the pen: there is nothing to wait for.
            if baseline.is_some_and(|baseline| baseline.observation.target == found) {
                return Err(Broken::over(refused(reason, "what is left is an orphan of the place where it lies")));
            }
            let hint = "it goes on when endpoint, bucket, prefix and patterns are as they were when its rows went";
            return Err(Broken::pending(refused(reason, hint)));
        }
        match check_latches(services, session.scope).await {
            Ok(()) => Ok(()),
            Err(Refusal::Record(error)) => Err(Broken::pending(error)),
            Err(refusal) => {
                let hint =
                    "find the cause, then `orphan-sweeper ack`; it goes on by itself under `serve`, or purge it again";
                Err(Broken::pending(refused(crate::run::failure::chain(&refusal), hint)))
            }
        }
    }

    /// The rows must be gone from the same database that had them. Gives the time that holds are judged at.
    async fn prove_removed(&mut self, session: &mut Session<'_>) -> Result<Timestamp, Broken> {
        let evidence = &self.purge.evidence;
        let ids: Vec<DatasetId> = evidence.datasets.iter().map(|dataset| dataset.id).collect();
        let ledger = &session.services.ledger;
        // Before the look: a scan that comes between the two would know more transactions than it.
        let baseline = ledger.baseline(&session.scope.name).await.map_err(Broken::pending)?;
        let look = self.reading.references.look(&ids).await.map_err(Broken::by)?;
        let live: Vec<DatasetId> = ids.iter().copied().filter(|id| look.is_live(*id)).collect();
        if !live.is_empty() {
            // Before anything else, whatever database it is: a row that goes again is none that this purge removed.
            let shown: Vec<String> = live.iter().map(ToString::to_string).collect();
            tracing::warn!(run_id = %self.purge.run, dataset_ids = shown.join(" "), "purged datasets have rows again; nothing more of them is deleted");
            ledger.note_live_again(self.purge.run, &live).await.map_err(Broken::pending)?;
            ledger.end_sightings_of(&live).await.map_err(Broken::pending)?;
        }
        let (expected, found) = (&evidence.anchor.identity, &look.anchor.identity);
        if expected != found {
            let reason = format!("its rows were removed from {expected}; this is {found}");
            return Err(Broken::over(refused(
                reason,
                "find out what happened to the database before anything else is deleted",
            )));
        }
        let snapshot = look.anchor.snapshot.as_ref();
        let forgot_it = snapshot.is_some_and(|snapshot| !snapshot.saw(self.purge.xid));
        if forgot_it || baseline.is_some_and(|baseline| baseline.observation.was_set_back(snapshot)) {
            let hint =
                "find out what happened to the database; what is left is an orphan: `orphan-sweeper audit` shows it";
            return Err(Broken { failure: refused(SET_BACK.to_owned(), hint), is_over: Some(PurgeState::Unknown) });
        }
        let after = rows_by_table(session.scope, &look);
        let left = |table: &str| after.get(table).copied().unwrap_or(0);
        let removed: BTreeMap<String, u64> =
            evidence.rows.iter().map(|(table, before)| (table.clone(), before.saturating_sub(left(table)))).collect();
        if self.purge.removed.as_ref() != Some(&removed) {
            let ledger = &session.services.ledger;
            ledger.commit_purge(self.purge.run, &removed).await.map_err(Broken::pending)?;
        }
        self.purge.removed = Some(removed);
        session.draft.purge = Some(report_of(&self.purge));
        Ok(look.database_time.min(session.services.clock.now()))
    }

    /// Before anything is copied or marked: what a run leaves is never lost sight of.
    /// Says whether an earlier process did.
    async fn note_undo(&self, session: &Session<'_>, ids: &[DatasetId], as_of: Timestamp) -> Result<bool, Broken> {
        let scope = session.scope;
        let (kind, bucket, prefix, keep) = match (&session.draft.quarantine, session.draft.target.versioning) {
            (Some(folder), _) => (UndoKind::Quarantine, &folder.bucket, &folder.prefix, Some(scope.quarantine.keep)),
            (None, Versioning::Enabled | Versioning::Suspended) => {
                (UndoKind::Versions, &scope.bucket, &scope.prefix, None)
            }
            (None, Versioning::Unversioned | Versioning::Unknown) => return Ok(false),
        };
        let ledger = &session.services.ledger;
        if !ledger.undos_of(&session.run.to_string()).await.map_err(Broken::pending)?.is_empty() {
            return Ok(true);
        }
        let stop = session.services.stop.token.clone();
        let first = scope.patterns[0].prefix_of(ids[0]);
        let mut pages = Pages::new(&*self.reading.store, &first, false, &stop);
        pages.next().await.map_err(|error| interrupted_or(session, error.into()))?;
        let began_at = pages.first_date().map_or(as_of, |date| date.min(as_of));
        let undo = Undo {
            run: session.run,
            scope: scope.name.clone(),
            plan: self.purge.plan_hash(),
            kind,
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            began_at,
            ended_at: None,
            keep,
            is_kept: true,
        };
        ledger.begin_undo(&undo).await.map_err(Broken::pending)?;
        Ok(false)
    }

    async fn clear(
        &self,
        session: &Session<'_>,
        ids: &[DatasetId],
        (as_of, is_begun): (Timestamp, bool),
    ) -> Result<(Vec<(DatasetId, Cleared)>, Option<Halt>), Broken> {
        let (services, scope) = (session.services, session.scope);
        let deleter = self.keyring.deleter(services, scope).map_err(Broken::pending)?;
        let copier = match &session.draft.quarantine {
            Some(_) => Some(self.keyring.copying(services).map_err(Broken::pending)?),
            None => None,
        };
        let aside = copier.as_deref().zip(session.draft.quarantine.as_ref());
        let aside = aside.map(|(copier, folder)| Aside::new(copier, &folder.bucket, &folder.prefix));
        let aside = aside.map(|aside| if is_begun { aside.begun() } else { aside });
        tracing::warn!(
            target: "deletions",
            run_id = %session.run,
            datasets = ids.len(),
            "the objects of purged datasets go; {}",
            undo::before(session.draft.quarantine.as_ref(), session.draft.target.versioning)
        );
        let pacer = Pacer::new(Pace::default(), services.clock.clone(), session.began);
        let tools = Tools {
            store: &*self.reading.store,
            deleter: &*deleter,
            aside,
            references: &*self.reading.references,
            ledger: &services.ledger,
            clock: services.clock.clone(),
            stop: services.stop.token.clone(),
            stop_file: services.config.stop_file.clone(),
            consent: Consent::Given,
            as_of,
            progress: &|_| {},
            pacer: &pacer,
            closing: &Unnoted,
            // A person asked: an upload that is still under way completes into an orphan.
            uploads: Watch::new(&*self.reading.store, scope, &services.stop.token, &Uploads::default()),
        };
        let anchor = self.purge.evidence.anchor.clone();
        let live_again = services.ledger.live_again(session.run).await.map_err(Broken::pending)?;
        let others = readings_beside(services, self.keyring, scope).map_err(Broken::pending)?;
        let others = others.iter().map(|(scope, reading)| (*scope, &*reading.references));
        let disposal = Disposal::new(scope, self.purge.plan_hash(), session.run, anchor, tools);
        let disposal = disposal.without(live_again).beside(others);
        if is_begun {
            // What comes now is part of the undo, however this process ends.
            services.ledger.go_on_with_undo(session.run).await.map_err(Broken::pending)?;
        }
        let (cleared, mut halt) = disposal.clear(ids, self.purge.evidence.as_of).await;
        if let Some(ended_at) = disposal.last_seen_at()
            && let Err(error) = services.ledger.end_undo(session.run, ended_at).await
        {
            halt.get_or_insert(Halt::Record(error));
        }
        Ok((cleared, halt))
    }
}

/// A store that does not answer leaves the rest to the next sweep; a request that a stop cut short, to a restart.
fn interrupted_or(session: &Session<'_>, failure: RunFailure) -> Broken {
    if session.services.stop.token.is_cancelled() {
        return Broken::pending(RunFailure::Interrupted(session.services.stop.exit()));
    }
    match &failure {
        // A store that does not answer is asked again.
        RunFailure::Store(error)
            if matches!(
                error.fault,
                StoreFault::NoReply(_) | StoreFault::ServerFault(_) | StoreFault::Throttled(_)
            ) =>
        {
            Broken::pending(failure)
        }
        _ => Broken::over(failure),
    }
}

fn stop_file(session: &Session<'_>) -> RunFailure {
    let reason = format!("the stop file `{}` exists", session.services.config.stop_file.display());
    refused(reason, "remove it when deletion may go on, then purge it again: it goes on where it was")
}

fn report_of(purge: &PurgeRow) -> PurgeReport {
    let dataset = |dataset: &crate::record::PurgedDataset| PurgedDatasetReport {
        id: dataset.id.0,
        dataset_type: dataset.kind.clone(),
        name: dataset.name.clone(),
        has_objects: dataset.has_objects,
    };
    let (dataset_id, job_id) = match purge.subject {
        PurgeSubject::Dataset(id) => (Some(id.0), None),
        PurgeSubject::Job(id) => (None, Some(id)),
    };
    let job = purge.evidence.job.as_ref().map(|job| PurgedJobReport {
        status: job.status.clone(),
        was_cancelled: job.was_cancelled,
        detached: job.detached,
    });
    PurgeReport {
        dataset_id,
        job_id,
        datasets: purge.evidence.datasets.iter().map(dataset).collect(),
        job,
        rows_removed: purge.removed.clone().unwrap_or_default(),
    }
}
