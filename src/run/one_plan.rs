//! One plan: verified, compared with a complete scan, chosen from, disposed of, told.
//!
//! Invariant: what goes is in the plan, still an orphan, unchanged, and let go by every breaker, judged over the run's own
//! scan before the first request; whatever ends the work, what was asked for is told.

use super::audit::{describe, totals_of};
use super::review::{Approved, Review, check_issued, is_past};
use super::scan::{Scan, scan};
use super::telling::{Teller, begin_plan, tell_deletions};
use super::watch::StepWatch;
use super::{Keyring, Reading, RunFailure, Session, confirm, holds, uploads};
use crate::decide::breakers::{Allowances, Breaker, Kind, Listed, WouldGo, judge_size};
use crate::decide::{KeepReason, Verdict};
use crate::dispose::pace::{Pace, Pacer};
use crate::dispose::{Aside, Candidate, Disposal, Halt, SkipReason, Tools, is_there, space};
use crate::exit::Exit;
use crate::list::references::ReferencesError;
use crate::list::uploads::Watch;
use crate::model::{Group, Mode, Versioning, human_bytes, human_count};
use crate::plan::{PlanGroup, PlanPolicy, PlanTarget, PlanTotals, VerifiedPlan};
use crate::record::{PlanRow, RecordError, Undo, UndoKind};
use crate::report::figures::Stage;
use crate::report::text::words;
use crate::report::{Deletion, OrphanRecord, Outcome, undo};
use crate::s3::{CopyStore, DeleteStore};

/// What is to be deleted, and by whose word.
#[derive(Clone, Copy)]
pub(super) struct Order<'o> {
    /// The plan.
    pub(super) plan: &'o VerifiedPlan,
    /// The limits that the person lifts.
    pub(super) lifted: &'o Allowances,
    /// Whether to delete at all.
    pub(super) mode: Mode,
    /// By whose word.
    pub(super) approved: Approved,
    /// Whether a person said that the empty live tables are really empty, for this plan.
    pub(super) accepts_empty: bool,
    /// How fast, how long and when.
    pub(super) pace: &'o Pace,
}

/// Applies one plan.
///
/// - Errors: [`RunFailure::Refused`] where the plan, a breaker or the person says no.
pub(super) async fn apply_plan(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    order: Order<'_>,
) -> Result<(), RunFailure> {
    let Order { plan, lifted, mode, approved, .. } = order;
    session.draft.backfill = plan.plan.backfill;
    let row = check_issued(&session.services.ledger, plan).await?;
    let review = Review::of(session, plan, approved).await?;
    let scan = scan(session, reading).await?;
    session.enter(Stage::Plan);
    check_current(session, plan, &row, &scan)?;
    let Choice { candidates, kept, gone } = choose(session, plan, &scan, &review).await?;
    let planned: Vec<PlanGroup> = candidates.iter().flat_map(|candidate| candidate.planned.iter().cloned()).collect();
    let totals = totals_of(&planned);
    session.draft.coverage.complete = true;
    show_plan(session, &scan, &planned, &kept);

    let allowances = allowances(session, order).await?;
    session.draft.breakers = scan.judge(session, &[]).await?;
    let would = WouldGo { groups: totals.groups, objects: totals.objects, bytes: totals.bytes };
    let listed = Listed { groups: scan.findings.listed() as u64, foreign: scan.foreign };
    session.draft.breakers.extend(judge_size(would, listed, &session.scope.limits, &allowances));
    refuse_if_tripped(session, plan)?;
    refuse_empty_references(&scan, order)?;
    if mode == Mode::DryRun {
        return Ok(());
    }
    if is_there(&session.services.config.stop_file) {
        return Err(stop_file_refusal(session));
    }
    check_space(session, &candidates, &kept)?;
    let would_abort = uploads::would_abort(session);
    if totals.groups > 0 || would_abort {
        ask_person(session, approved, totals, would_abort)?;
    }
    if plan.plan.groups.is_empty() {
        session.finished_plans.push(plan.hash);
        return abort_stale_uploads(session, reading, keyring, &scan).await;
    }
    let deleter = keyring.deleter(session.services, session.scope)?;
    let is_aside = session.draft.quarantine.is_some();
    let copier = if is_aside { Some(keyring.copying(session.services)?) } else { None };
    tracing::warn!(
        target: "deletions",
        run_id = %session.run,
        plan = %plan.hash,
        object_count = totals.objects,
        size_bytes = totals.bytes,
        "deletion begins; {}",
        undo_note(session)
    );
    session.services.ledger.allow(plan.hash, session.run, lifted, session.services.clock.now()).await?;
    // Before anything is copied or marked: what a run leaves is never lost sight of. What a second plan leaves belongs to it.
    if let Some(undo) = undo_of(session, plan, &scan) {
        session.services.ledger.begin_undo(&undo).await?;
    }
    begin_plan(session, plan.hash).await?;
    crate::failpoint::reach("plan_started");
    let copier = copier.as_deref();
    let chosen = Chosen { order, copier, scan: &scan, candidates: &candidates, kept: &kept, gone: &gone };
    dispose(session, reading, &*deleter, chosen).await?;
    if session.draft.outcome == Outcome::Interrupted {
        return Ok(());
    }
    abort_stale_uploads(session, reading, keyring, &scan).await
}

/// The uploads of a run come last: they are no part of a plan, and what it deletes does not wait for them.
async fn abort_stale_uploads(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    scan: &Scan,
) -> Result<(), RunFailure> {
    if !uploads::would_abort(session) {
        return Ok(());
    }
    let aborter = keyring.deleting(session.services, session.scope)?;
    uploads::abort_stale(session, reading, &aborter, scan).await
}

/// The limits that are lifted. Only a person passes a size breaker: who goes on with what a person began and left does not.
async fn allowances(session: &Session<'_>, order: Order<'_>) -> Result<Allowances, RunFailure> {
    match order.approved {
        Approved::ByPerson { .. } => {
            let mut allowances = session.services.ledger.allowances(order.plan.hash).await?;
            allowances.0.extend(order.lifted.0.clone());
            Ok(allowances)
        }
        Approved::ByDecision | Approved::ByPolicy => Ok(Allowances::default()),
    }
}

/// Whether what is deleted can come back.
fn undo_note(session: &Session<'_>) -> String {
    undo::before(session.draft.quarantine.as_ref(), session.draft.target.versioning)
}

/// What this run leaves that can be brought back.
fn undo_of(session: &Session<'_>, plan: &VerifiedPlan, scan: &Scan) -> Option<Undo> {
    let (kind, bucket, prefix, keep) = match (&session.draft.quarantine, session.draft.target.versioning) {
        (Some(folder), _) => {
            (UndoKind::Quarantine, &folder.bucket, &folder.prefix, Some(session.scope.quarantine.keep))
        }
        (None, Versioning::Enabled | Versioning::Suspended) => {
            (UndoKind::Versions, &session.scope.bucket, &session.scope.prefix, None)
        }
        (None, Versioning::Unversioned | Versioning::Unknown) => return None,
    };
    Some(Undo {
        run: session.run,
        scope: session.scope.name.clone(),
        plan: plan.hash,
        kind,
        bucket: bucket.clone(),
        prefix: prefix.clone(),
        began_at: scan.as_of,
        ended_at: None,
        keep,
        is_kept: true,
    })
}

/// Why nothing is sent while the stop file is there.
pub(super) fn stop_file_refusal(session: &Session<'_>) -> RunFailure {
    RunFailure::Refused {
        reason: format!("the stop file `{}` exists", session.services.config.stop_file.display()),
        hint: "remove it when deletion may go on, then apply the plan again: it resumes".into(),
    }
}

/// The plan must be about this target by this policy, and not be past its time.
fn check_current(session: &Session<'_>, plan: &VerifiedPlan, row: &PlanRow, scan: &Scan) -> Result<(), RunFailure> {
    let refused = |reason: String| {
        Err(RunFailure::Refused { reason, hint: "make a new plan with `orphan-sweeper audit`".into() })
    };
    if row.scope != session.scope.name {
        return refused(format!("the plan is for the scope `{}`", row.scope));
    }
    let target = PlanTarget::new(&scan.observation.target, &scan.references.identity);
    if plan.plan.target.fingerprint() != target.fingerprint() {
        return refused("the plan was made for another endpoint, bucket, prefix or patterns".into());
    }
    if plan.plan.target != target {
        return refused(format!("the plan was made with {}; this is {}", plan.plan.target.database, target.database));
    }
    if plan.plan.policy != PlanPolicy::of(session.scope) {
        return refused("the plan was made by another policy than the configuration has now".into());
    }
    // A plan that was begun in time may be finished.
    if is_past(plan, row.state, scan.as_of) {
        return refused(format!("the plan expired at {}", plan.plan.expires_at.to_rfc3339()));
    }
    Ok(())
}

/// What is left of a plan.
#[derive(Default)]
struct Choice {
    /// What may go.
    candidates: Vec<Candidate>,
    /// What is kept, with its reason.
    kept: Vec<(PlanGroup, SkipReason)>,
    /// What an earlier run of the plan deleted whole, and nobody told yet.
    gone: Vec<PlanGroup>,
}

/// Plan ∩ still orphan ∩ seen without a break since, without what is gone already.
async fn choose(
    session: &Session<'_>,
    plan: &VerifiedPlan,
    scan: &Scan,
    review: &Review,
) -> Result<Choice, RunFailure> {
    let Choice { mut candidates, mut kept, mut gone } = Choice::default();
    let gone_ids = session.services.ledger.gone_ids(plan.hash).await?;
    let mut groups = plan.plan.groups.clone();
    groups.sort_by(|a, b| (a.id, &a.prefix).cmp(&(b.id, &b.prefix)));
    for planned in groups.chunk_by(|a, b| a.id == b.id) {
        let id = planned[0].id;
        if let Some((groups, is_waiting)) = gone_ids.get(&id)
            && *groups == planned.len() as u64
        {
            gone.extend(planned.iter().filter(|_| *is_waiting).cloned());
            continue;
        }
        let sighting = session.services.ledger.sighting(&session.scope.name, id).await?;
        let is_unbroken =
            sighting.is_some_and(|sighting| planned.iter().all(|group| group.first_run == sighting.first_run));
        let reason = if scan.findings.is_live(id) {
            Some(SkipReason::LiveAgain)
        } else if scan.holds.on(id).is_some() {
            Some(SkipReason::Held)
        } else if let Some(objection) = review.objection(id) {
            Some(objection)
        } else if scan.uploads.is_under(id) {
            Some(SkipReason::UploadInProgress)
        } else if !is_unbroken {
            Some(SkipReason::ChangedSincePlan)
        } else {
            None
        };
        if let Some(reason) = reason {
            kept.extend(planned.iter().cloned().map(|group| (group, reason)));
            continue;
        }
        let odd: Vec<Group> =
            scan.findings.groups_of(id).iter().filter(|group| !group.is_canonical()).cloned().collect();
        candidates.push(Candidate { id, planned: planned.to_vec(), odd });
    }
    Ok(Choice { candidates, kept, gone })
}

/// Puts what the plan lets go, and what it no longer does, into the report.
fn show_plan(session: &mut Session<'_>, scan: &Scan, planned: &[PlanGroup], kept: &[(PlanGroup, SkipReason)]) {
    // A sweep's own audit has said more already.
    let is_counted = !session.orphans.is_empty();
    let totals = totals_of(planned);
    session.draft.groups.eligible += totals.groups;
    session.draft.eligible_objects += totals.objects;
    session.draft.eligible_bytes = session.draft.eligible_bytes.saturating_add(totals.bytes);
    if is_counted {
        return;
    }
    session.draft.groups.orphan = (scan.findings.listed() - scan.findings.live()) as u64;
    let held = kept.chunk_by(|(a, _), (b, _)| a.id == b.id).filter(|groups| groups[0].1 == SkipReason::Held);
    session.draft.holds.protecting =
        held.filter_map(|groups| scan.holds.on(groups[0].0.id)).map(holds::shown).collect();
    let shown = planned.iter().map(|group| (group, Verdict::Eligible));
    let still_orphans = kept.iter().filter(|(group, _)| !scan.findings.is_live(group.id));
    let kept_by_rules = still_orphans.filter_map(|(group, reason)| Some((group, Verdict::Keep(rule_of(*reason)?))));
    for (group, verdict) in shown.chain(kept_by_rules) {
        let pattern = session.scope.patterns.iter().position(|pattern| pattern.template() == group.pattern);
        let Some(pattern) = pattern.and_then(|index| u8::try_from(index).ok()) else { continue };
        session.draft.orphan_objects += group.objects;
        session.draft.orphan_bytes = session.draft.orphan_bytes.saturating_add(group.bytes);
        session.orphans.push(OrphanRecord {
            group: Group { id: group.id, pattern, odd_spelling: None },
            objects: group.objects,
            bytes: group.bytes,
            oldest: group.oldest,
            newest: group.newest,
            first_seen: group.first_seen,
            sightings: group.sightings,
            verdict,
        });
    }
}

/// The rule that keeps a group of the plan, where it is one: what a person decided is told of its objects alone.
fn rule_of(reason: SkipReason) -> Option<KeepReason> {
    match reason {
        SkipReason::ChangedSincePlan => Some(KeepReason::ChangedSinceSeen),
        SkipReason::Held => Some(KeepReason::Held),
        SkipReason::UploadInProgress => Some(KeepReason::UploadInProgress),
        SkipReason::LiveAgain | SkipReason::Rejected | SkipReason::NotApproved | SkipReason::RunEnded => None,
    }
}

/// Any breaker refuses all of it.
fn refuse_if_tripped(session: &mut Session<'_>, plan: &VerifiedPlan) -> Result<(), RunFailure> {
    let refusing = session.refusing(None);
    if refusing.is_empty() {
        return Ok(());
    }
    let reason = describe(&refusing);
    let sizes: Vec<_> = refusing.iter().filter(|reading| reading.kind == Kind::Size).collect();
    let has_evidence = sizes.len() < refusing.len();
    let flags: Vec<String> = sizes.iter().filter_map(|reading| words::allow_flag(reading)).collect();
    if has_evidence {
        session.next_command = session.next_acknowledgement();
        let hint = "find the cause; what latched waits for `orphan-sweeper ack`".into();
        return Err(RunFailure::Refused { reason, hint });
    }
    let command = format!("orphan-sweeper apply {} {}", plan.hash, flags.join(" "));
    session.next_command = Some(command.clone());
    Err(RunFailure::Refused { reason, hint: format!("if this much is meant to go: {command}") })
}

/// A live table without rows has nothing that a re-check could recognise but its emptiness: only a person deletes by it,
/// one plan at a time.
fn refuse_empty_references(scan: &Scan, order: Order<'_>) -> Result<(), RunFailure> {
    let empty: Vec<&str> =
        scan.references.tables.iter().filter(|table| table.rows == 0).map(|table| table.name.as_str()).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let (tables, hash) = (empty.join(", "), order.plan.hash);
    if order.accepts_empty {
        tracing::warn!(target: "deletions", plan = %hash, "{tables} has no rows, and a person says that it is really empty");
        return Ok(());
    }
    Err(RunFailure::Refused {
        reason: format!("{tables} has no rows: no re-check could tell it from an emptied table"),
        hint: format!(
            "if it is really empty, a person can apply this plan: orphan-sweeper apply {hash} --accept-empty-references {hash}"
        ),
    })
}

/// Asks a person before anything is deleted, or ended, that was shown.
fn ask_person(
    session: &Session<'_>,
    approved: Approved,
    totals: PlanTotals,
    would_abort: bool,
) -> Result<(), RunFailure> {
    let Approved::ByPerson { asks_first: true } = approved else { return Ok(()) };
    let bucket = &session.scope.bucket;
    let uploads = if would_abort { session.draft.uploads.stale } else { 0 };
    let what = confirm::what_goes(bucket, totals, &undo_note(session), uploads);
    let answer = session.services.progress.suspend(|| confirm::ask_about(bucket, &what));
    if answer.unwrap_or(false) {
        return Ok(());
    }
    Err(RunFailure::Refused {
        reason: "the bucket's name was not typed".into(),
        hint: "nothing was deleted; apply the plan again when you are sure".into(),
    })
}

/// What this run may delete of a plan, and what it keeps.
#[derive(Clone, Copy)]
struct Chosen<'c> {
    order: Order<'c>,
    copier: Option<&'c dyn CopyStore>,
    scan: &'c Scan,
    candidates: &'c [Candidate],
    kept: &'c [(PlanGroup, SkipReason)],
    gone: &'c [PlanGroup],
}

async fn dispose(
    session: &mut Session<'_>,
    reading: &Reading,
    deleter: &dyn DeleteStore,
    chosen: Chosen<'_>,
) -> Result<(), RunFailure> {
    let Chosen { order: Order { plan, approved, pace, .. }, copier, scan, candidates, kept, gone } = chosen;
    session.enter(Stage::Dispose);
    let services = session.services;
    let planned = candidates.iter().flat_map(|candidate| &candidate.planned);
    let objects: u64 = planned.clone().map(|group| group.objects).sum();
    let all_objects = objects + kept.iter().map(|(group, _)| group.objects).sum::<u64>();
    let teller =
        Teller::new(session, plan.hash, all_objects + gone.iter().map(|group| group.objects).sum::<u64>()).await?;
    let pacer = Pacer::new(pace.clone(), services.clock.clone(), session.began);
    let watch = StepWatch::new(&services.progress, &pacer, services.clock.clone(), objects);
    let progress = |done| watch.add(done);
    let aside = copier.zip(session.draft.quarantine.as_ref());
    let aside = aside.map(|(copier, folder)| Aside::new(copier, &folder.bucket, &folder.prefix));
    let tools = Tools {
        store: &*reading.store,
        deleter,
        aside,
        references: &*reading.references,
        ledger: &services.ledger,
        clock: services.clock.clone(),
        stop: services.stop.token.clone(),
        stop_file: services.config.stop_file.clone(),
        consent: approved.consent(),
        as_of: scan.as_of,
        progress: &progress,
        pacer: &pacer,
        closing: &teller,
        uploads: Watch::new(&*reading.store, session.scope, &services.stop.token, &scan.uploads),
    };
    let disposal = Disposal::new(session.scope, plan.hash, session.run, scan.references.anchor(), tools);
    let halt = watch
        .over(async {
            disposal.note_gone(gone).await;
            disposal.keep(kept).await;
            disposal.run(candidates).await
        })
        .await;
    let (unread, left, ended_at) = (disposal.unread(), watch.left(), disposal.last_seen_at());
    drop(disposal);
    let untold = teller.failure();
    drop(teller);
    if let Some(ended_at) = ended_at {
        services.ledger.end_undo(session.run, ended_at).await?;
    }
    crate::failpoint::reach("disposed");
    // Whatever ended it, what was asked for is told.
    let told = tell_deletions(session, plan.hash).await;
    let resume = format!("orphan-sweeper apply {}{pace}", plan.hash);
    match halt {
        None => {}
        Some(Halt::Interrupted) => {
            session.next_command = Some(resume);
            return Err(RunFailure::Interrupted(services.stop.exit()));
        }
        Some(Halt::OutOfTime) => {
            end_step(session, &told?, left, resume, pace);
            return Ok(());
        }
        Some(Halt::Untold) => return Err(untold.unwrap_or(RunFailure::Interrupted(services.stop.exit()))),
        Some(Halt::StopFile) => return Err(stop_file_refusal(session)),
        Some(Halt::Holds(error)) => return Err(RunFailure::Holds(error)),
        Some(Halt::Record(error)) => return Err(RunFailure::Record(error)),
        Some(Halt::References(error)) => return Err(trip_on_recheck(session, scan, error).await?),
    }
    let deletion = told?;
    if unread > 0 {
        session.draft.outcome = Outcome::Incomplete;
        session.draft.reason =
            Some(format!("{} ids could not be read to their end; apply the plan again to go on", human_count(unread)));
        session.exit = Exit::Failed;
        session.next_command = Some(resume);
        return Ok(());
    }
    session.finished_plans.push(plan.hash);
    if let Some(steps) = &mut session.draft.steps {
        steps.closed = true;
    }
    if deletion.failed + deletion.unconfirmed > 0 {
        session.exit = Exit::SomeFailed;
        session.draft.reason = Some(format!(
            "{} deletions failed, {} are unconfirmed (deletions.csv)",
            human_count(deletion.failed),
            human_count(deletion.unconfirmed)
        ));
    }
    tracing::info!(
        target: "deletions",
        run_id = %session.run,
        deleted = deletion.deleted,
        size_bytes = deletion.bytes_deleted + deletion.bytes_marked.max(deletion.bytes_quarantined),
        "deletion ended; {} freed",
        human_bytes(deletion.bytes_deleted)
    );
    Ok(())
}

/// Ends a step whose time is over: the plan stays begun, and the next step goes on.
fn end_step(session: &mut Session<'_>, deletion: &Deletion, left: u64, resume: String, pace: &Pace) {
    let limit = humantime::format_duration(pace.max_runtime.unwrap_or_default());
    let left = words::counted(left, "object", "objects");
    session.draft.outcome = Outcome::Interrupted;
    session.draft.reason =
        Some(format!("the time of --max-runtime {limit} is over; about {left} of the plan are left"));
    session.next_command = Some(resume);
    if deletion.failed + deletion.unconfirmed > 0 {
        session.exit = Exit::SomeFailed;
    }
    tracing::info!(target: "deletions", run_id = %session.run, "step ended by its time; about {left} are left");
}

/// Looks whether what this run writes has room.
fn check_space(
    session: &Session<'_>,
    candidates: &[Candidate],
    kept: &[(PlanGroup, SkipReason)],
) -> Result<(), RunFailure> {
    let of_id = |candidate: &Candidate| candidate.planned.iter().map(|group| group.objects).sum::<u64>();
    let ids: Vec<u64> = candidates.iter().map(of_id).chain(kept.iter().map(|(group, _)| group.objects)).collect();
    let need = space::Need::of(&ids);
    Ok(space::check(session.services.config.ledger.folder(), session.folder.path(), &need)?)
}

/// A re-check that found another database or table is evidence, and latches like it.
pub(super) async fn trip_on_recheck(
    session: &mut Session<'_>,
    scan: &Scan,
    error: ReferencesError,
) -> Result<RunFailure, RecordError> {
    let breaker = match &error {
        ReferencesError::Moved(_) => Breaker::DatabaseIdentity,
        ReferencesError::SentinelsGone { .. } => Breaker::LiveDrop,
        // The next scan sees the rows, and takes the emptiness for accepted no more.
        ReferencesError::NoLongerEmpty { .. } => {
            return Ok(RunFailure::Refused { reason: error.to_string(), hint: error.hint().to_owned() });
        }
        _ => return Ok(RunFailure::References(error)),
    };
    let message = error.to_string();
    let tripped = [(breaker, message.clone())];
    let (ledger, now) = (&session.services.ledger, session.services.clock.now());
    ledger.latch(&session.scope.name, session.run, now, &tripped, &scan.observation).await?;
    if let Some(reading) = session.draft.breakers.iter_mut().find(|reading| reading.name == breaker) {
        (reading.tripped, reading.latched) = (true, true);
        reading.message.clone_from(&message);
    }
    session.next_command = session.next_acknowledgement();
    Ok(RunFailure::Refused { reason: message, hint: error.hint().to_owned() })
}
