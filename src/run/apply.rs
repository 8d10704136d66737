//! apply and sweep: verify, re-check, dispose, record. What goes is chosen by a plan, never by a fresh scan.

use std::path::{Path, PathBuf};

use super::audit::{audit, describe, totals_of};
use super::scan::{Scan, scan};
use super::{ApplyJob, Keyring, Reading, RunFailure, Session, confirm};
use crate::config::Approval;
use crate::decide::breakers::{Allowances, Breaker, Kind, Listed, WouldGo, judge_size};
use crate::decide::{KeepReason, Verdict};
use crate::dispose::{Candidate, Disposal, Halt, SkipReason, Tools, is_there, space};
use crate::exit::Exit;
use crate::list::references::ReferencesError;
use crate::model::{Group, Mode, Sha256Hash, Versioning, human_bytes, human_count};
use crate::plan::{PlanGroup, PlanPolicy, PlanTarget, VerifiedPlan};
use crate::record::{Ledger, PlanRow, PlanState, RecordError};
use crate::report::csv::CsvFile;
use crate::report::text::words;
use crate::report::{Deletion, OrphanRecord, Outcome, folder};
use crate::s3::DeleteStore;

/// A plan that was named on the command line.
pub struct PlanSource {
    /// The plan.
    pub verified: VerifiedPlan,
}

/// Who approved a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approved {
    /// A person, who may be asked on the terminal.
    ByPerson {
        /// Whether to ask.
        asks_first: bool,
    },
    /// The policy.
    ByPolicy,
}

/// Applies a plan as a person asked.
///
/// - Errors: [`RunFailure::Refused`] where the plan, a breaker or the person says no.
pub async fn apply(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    job: &ApplyJob,
) -> Result<(), RunFailure> {
    session.draft.plan_hash = Some(job.source.verified.hash.to_string());
    let approved = Approved::ByPerson { asks_first: job.asks_first };
    let order = Order { plan: &job.source.verified, lifted: &job.allowances, mode: job.mode, approved };
    apply_plan(session, reading, keyring, order).await
}

/// Audits, then applies what the policy allows.
///
/// - Errors: [`RunFailure`].
pub async fn sweep(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    mode: Mode,
) -> Result<(), RunFailure> {
    let Some(plan) = audit(session, reading).await? else { return Ok(()) };
    if session.scope.policy.approval == Approval::Required || mode == Mode::DryRun {
        return Ok(());
    }
    let plan = match interrupted_plan(session, &plan).await? {
        Some(interrupted) => interrupted,
        None => plan,
    };
    if plan.plan.groups.is_empty() {
        return Ok(());
    }
    session.draft.plan_hash = Some(plan.hash.to_string());
    session.next_command = None;
    let order = Order { plan: &plan, lifted: &Allowances::default(), mode, approved: Approved::ByPolicy };
    apply_plan(session, reading, keyring, order).await
}

/// The plan that an earlier run began and did not finish, if it can still be finished.
///
/// One that is past its time, or was made for another target or by another policy than `fresh`, is given up: this run
/// tells what it did, and closes it.
async fn interrupted_plan(session: &mut Session<'_>, fresh: &VerifiedPlan) -> Result<Option<VerifiedPlan>, RunFailure> {
    let ledger = &session.services.ledger;
    let Some(row) = ledger.interrupted_plan(&session.scope.name).await? else { return Ok(None) };
    let plan = std::fs::read(&row.path)
        .ok()
        .and_then(|bytes| crate::plan::verify(&bytes).ok())
        .filter(|plan| plan.hash.to_string() == row.hash);
    let is_current = |plan: &VerifiedPlan| {
        plan.plan.expires_at > fresh.plan.created_at
            && plan.plan.target == fresh.plan.target
            && plan.plan.policy == fresh.plan.policy
    };
    if let Some(plan) = plan.filter(is_current) {
        return Ok(Some(plan));
    }
    tracing::warn!(plan = %row.hash, "an interrupted plan is past its time, for another target or policy, or its file is gone; it is closed");
    if let Some(hash) = Sha256Hash::parse(&row.hash) {
        let unreported = unreported_runs(session, hash).await?;
        ledger.start_plan(hash, session.run, &unreported).await?;
        session.finished_plans.push(hash);
        tell_deletions(session).await?;
    }
    Ok(None)
}

/// Reads the plan at a path, or of a hash that the ledger knows.
///
/// - Errors: [`RunFailure::Refused`] where it is no plan or was edited.
pub async fn find_plan(ledger: &Ledger, named: &str) -> Result<PlanSource, RunFailure> {
    let refused = |reason: String, hint: &str| RunFailure::Refused { reason, hint: hint.to_owned() };
    let looks_like_hash = named.len() >= 8 && named.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (path, wanted) = if !Path::new(named).exists() && looks_like_hash {
        let row = ledger.plan(&named.to_lowercase()).await?;
        let row = row.ok_or_else(|| {
            refused(format!("this ledger issued no plan `{named}`"), "list what it knows with `orphan-sweeper history`")
        })?;
        (PathBuf::from(row.path), Some(row.hash))
    } else {
        (PathBuf::from(named), None)
    };
    let path = if path.is_dir() { path.join("plan.json") } else { path };
    let bytes = std::fs::read(&path).map_err(|source| {
        refused(
            format!("the plan `{}` cannot be read: {source}", path.display()),
            "name the path or the hash of a plan.json that `audit` wrote",
        )
    })?;
    let verified = crate::plan::verify(&bytes).map_err(|error| {
        refused(
            format!("`{}`: {error}", path.display()),
            "make a new plan with `orphan-sweeper audit`; a plan is never edited",
        )
    })?;
    // Whoever names a hash means that plan, whatever lies in its place by now.
    if wanted.is_some_and(|wanted| wanted != verified.hash.to_string()) {
        let reason = format!("`{}` holds another plan, {}", path.display(), verified.hash);
        return Err(refused(reason, "restore the plan's own file, or make a new plan with `orphan-sweeper audit`"));
    }
    Ok(PlanSource { verified })
}

/// What is to be deleted, and by whose word.
#[derive(Clone, Copy)]
struct Order<'o> {
    plan: &'o VerifiedPlan,
    lifted: &'o Allowances,
    mode: Mode,
    approved: Approved,
}

async fn apply_plan(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    order: Order<'_>,
) -> Result<(), RunFailure> {
    let Order { plan, lifted, mode, approved } = order;
    let row = check_issued(session, plan).await?;
    let scan = scan(session, reading).await?;
    check_current(session, plan, &row, &scan)?;
    let (candidates, kept) = choose(session, plan, &scan).await?;
    let planned: Vec<PlanGroup> = candidates.iter().flat_map(|candidate| candidate.planned.iter().cloned()).collect();
    let totals = totals_of(&planned);
    session.draft.coverage.complete = true;
    show_plan(session, &scan, &planned, &kept);

    let mut allowances = session.services.ledger.allowances(plan.hash).await?;
    allowances.0.extend(lifted.0.clone());
    session.draft.breakers = scan.judge(session, &[]).await?;
    let would = WouldGo { groups: totals.groups, objects: totals.objects, bytes: totals.bytes };
    let listed = Listed { groups: scan.findings.listed() as u64, foreign: scan.foreign };
    session.draft.breakers.extend(judge_size(would, listed, &session.scope.limits, &allowances));
    refuse_if_tripped(session, plan)?;
    refuse_empty_references(&scan)?;
    if mode == Mode::DryRun {
        return Ok(());
    }
    if is_there(&session.services.config.stop_file) {
        return Err(stop_file_refusal(session));
    }
    space::check(session.folder.path(), totals.objects)?;
    if let Some(ledger_folder) = session.services.config.ledger.folder() {
        space::check(ledger_folder, totals.objects)?;
    }
    if plan.plan.groups.is_empty() {
        session.finished_plans.push(plan.hash);
        return Ok(());
    }
    if totals.groups > 0 {
        ask_person(session, approved, totals)?;
    }
    let deleter = keyring.deleting(session.services, session.scope)?;
    tracing::warn!(
        target: "deletions",
        run_id = %session.run,
        plan = %plan.hash,
        object_count = totals.objects,
        size_bytes = totals.bytes,
        "deletion begins; {}",
        undo_note(session.draft.target.versioning)
    );
    session.services.ledger.allow(plan.hash, session.run, lifted, session.services.clock.now()).await?;
    let unreported = unreported_runs(session, plan.hash).await?;
    session.services.ledger.start_plan(plan.hash, session.run, &unreported).await?;
    crate::failpoint::reach("plan_started");
    dispose(session, reading, &deleter, Chosen { plan, scan: &scan, candidates: &candidates, kept: &kept }).await
}

/// Whether what is deleted can come back.
fn undo_note(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Unversioned | Versioning::Unknown => "the bucket keeps no old versions: nothing can be undone",
        Versioning::Enabled => "the bucket keeps old versions: objects are marked, and nothing is freed",
        Versioning::Suspended => {
            "versioning is suspended: older versions stay, and what was written since cannot be brought back"
        }
    }
}

fn stop_file_refusal(session: &Session<'_>) -> RunFailure {
    RunFailure::Refused {
        reason: format!("the stop file `{}` exists", session.services.config.stop_file.display()),
        hint: "remove it when deletion may go on, then apply the plan again: it resumes".into(),
    }
}

/// The ledger must have issued exactly this plan, and not be done with it.
async fn check_issued(session: &Session<'_>, plan: &VerifiedPlan) -> Result<PlanRow, RunFailure> {
    let ledger = &session.services.ledger;
    let made = &plan.plan.ledger;
    let hint = "make a new plan with `orphan-sweeper audit`";
    let refused = |reason: String| Err(RunFailure::Refused { reason, hint: hint.into() });
    if made.id != ledger.id() {
        return refused(format!(
            "the plan was made with another ledger: {} at `{}`; this one is {}",
            made.id,
            made.path,
            ledger.id()
        ));
    }
    let Some(row) = ledger.plan(&plan.hash.to_string()).await? else {
        return refused(format!(
            "this ledger did not issue the plan {}: it was edited, or the ledger is older than the plan",
            plan.hash
        ));
    };
    if row.scope != session.scope.name {
        return refused(format!("the plan is for the scope `{}`", row.scope));
    }
    match row.state {
        PlanState::Open | PlanState::Applying => Ok(row),
        PlanState::Closed => refused(format!("the plan {} was applied already", plan.hash)),
    }
}

/// The plan must be about this target by this policy, and not be past its time.
fn check_current(session: &Session<'_>, plan: &VerifiedPlan, row: &PlanRow, scan: &Scan) -> Result<(), RunFailure> {
    let refused = |reason: String| {
        Err(RunFailure::Refused { reason, hint: "make a new plan with `orphan-sweeper audit`".into() })
    };
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
    if row.state == PlanState::Open && scan.as_of >= plan.plan.expires_at {
        return refused(format!("the plan expired at {}", plan.plan.expires_at.to_rfc3339()));
    }
    Ok(())
}

/// Plan ∩ still orphan ∩ seen without a break since: what may go, and what is kept with its reason.
async fn choose(
    session: &Session<'_>,
    plan: &VerifiedPlan,
    scan: &Scan,
) -> Result<(Vec<Candidate>, Vec<(PlanGroup, SkipReason)>), RunFailure> {
    let (mut candidates, mut kept): (Vec<Candidate>, Vec<_>) = (Vec::new(), Vec::new());
    let mut groups = plan.plan.groups.clone();
    groups.sort_by(|a, b| (a.id, &a.prefix).cmp(&(b.id, &b.prefix)));
    for planned in groups.chunk_by(|a, b| a.id == b.id) {
        let id = planned[0].id;
        let sighting = session.services.ledger.sighting(&session.scope.name, id).await?;
        let is_unbroken =
            sighting.is_some_and(|sighting| planned.iter().all(|group| group.first_run == sighting.first_run));
        let reason = if scan.findings.is_live(id) {
            Some(SkipReason::LiveAgain)
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
    Ok((candidates, kept))
}

/// Puts what the plan lets go, and what it no longer does, into the report.
fn show_plan(session: &mut Session<'_>, scan: &Scan, planned: &[PlanGroup], kept: &[(PlanGroup, SkipReason)]) {
    // A sweep's own audit has said more already.
    let is_counted = !session.orphans.is_empty();
    let totals = totals_of(planned);
    session.draft.groups.eligible = totals.groups;
    session.draft.eligible_objects = totals.objects;
    session.draft.eligible_bytes = totals.bytes;
    if is_counted {
        return;
    }
    session.draft.groups.orphan = (scan.findings.listed() - scan.findings.live()) as u64;
    let shown = planned.iter().map(|group| (group, Verdict::Eligible));
    let still_orphans = kept.iter().filter(|(group, _)| !scan.findings.is_live(group.id));
    let changed = still_orphans.map(|(group, _)| (group, Verdict::Keep(KeepReason::ChangedSinceSeen)));
    for (group, verdict) in shown.chain(changed) {
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

/// A scope whose live tables are all empty has nothing that a re-check could recognise.
fn refuse_empty_references(scan: &Scan) -> Result<(), RunFailure> {
    let empty: Vec<&str> =
        scan.references.tables.iter().filter(|table| table.rows == 0).map(|table| table.name.as_str()).collect();
    if empty.is_empty() {
        return Ok(());
    }
    Err(RunFailure::Refused {
        reason: format!("{} has no rows: no re-check could tell it from an emptied or swapped table", empty.join(", ")),
        hint: "a table that is really empty belongs out of `scope.live`, or needs a row".into(),
    })
}

fn ask_person(session: &Session<'_>, approved: Approved, totals: crate::plan::PlanTotals) -> Result<(), RunFailure> {
    let Approved::ByPerson { asks_first: true } = approved else { return Ok(()) };
    let (bucket, undo) = (&session.scope.bucket, undo_note(session.draft.target.versioning));
    let answer = session.services.progress.suspend(|| confirm::ask(bucket, totals, undo));
    if answer.unwrap_or(false) {
        return Ok(());
    }
    Err(RunFailure::Refused {
        reason: "the bucket's name was not typed".into(),
        hint: "nothing was deleted; apply the plan again when you are sure".into(),
    })
}

/// Dead runs of this plan that left no report: their keys are told by this one.
async fn unreported_runs(session: &Session<'_>, plan: Sha256Hash) -> Result<Vec<String>, RunFailure> {
    let reports = &session.services.config.reports_directory;
    let mut runs = session.services.ledger.runs_of_plan(plan).await?;
    runs.retain(|run| !folder::has_summary(reports, &session.scope.name, run));
    Ok(runs)
}

/// What this run may delete of a plan, and what it keeps.
#[derive(Clone, Copy)]
struct Chosen<'c> {
    plan: &'c VerifiedPlan,
    scan: &'c Scan,
    candidates: &'c [Candidate],
    kept: &'c [(PlanGroup, SkipReason)],
}

async fn dispose(
    session: &mut Session<'_>,
    reading: &Reading,
    deleter: &dyn DeleteStore,
    chosen: Chosen<'_>,
) -> Result<(), RunFailure> {
    let Chosen { plan, scan, candidates, kept } = chosen;
    let services = session.services;
    let objects = candidates.iter().flat_map(|candidate| &candidate.planned).map(|group| group.objects).sum();
    let bar = services.progress.bar("deleting objects", objects);
    let progress = |done| bar.inc(done);
    let tools = Tools {
        store: &*reading.store,
        deleter,
        references: &*reading.references,
        ledger: &services.ledger,
        clock: services.clock.clone(),
        stop: services.stop.token.clone(),
        stop_file: services.config.stop_file.clone(),
        progress: &progress,
    };
    let disposal = Disposal::new(session.scope, plan.hash, session.run, scan.references.anchor(), tools);
    disposal.keep(kept).await;
    let halt = disposal.run(candidates).await;
    bar.finish_and_clear();
    let unread = disposal.unread();
    crate::failpoint::reach("disposed");
    // Whatever ended it, what was asked for is told.
    let told = tell_deletions(session).await;
    match halt {
        None => {}
        Some(Halt::Interrupted) => return Err(RunFailure::Interrupted(services.stop.exit())),
        Some(Halt::StopFile) => return Err(stop_file_refusal(session)),
        Some(Halt::Record(error)) => return Err(RunFailure::Record(error)),
        Some(Halt::References(error)) => return Err(trip_on_recheck(session, scan, error).await?),
    }
    let deletion = told?;
    if unread > 0 {
        session.draft.outcome = Outcome::Incomplete;
        session.draft.reason =
            Some(format!("{} ids could not be read to their end; apply the plan again to go on", human_count(unread)));
        session.exit = Exit::Failed;
        session.next_command = Some(format!("orphan-sweeper apply {}", plan.hash));
        return Ok(());
    }
    session.finished_plans.push(plan.hash);
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
        size_bytes = deletion.bytes_deleted + deletion.bytes_marked,
        "deletion ended; {} freed",
        human_bytes(deletion.bytes_deleted)
    );
    Ok(())
}

/// A re-check that found another database or table is evidence, and latches like it.
async fn trip_on_recheck(
    session: &mut Session<'_>,
    scan: &Scan,
    error: ReferencesError,
) -> Result<RunFailure, RecordError> {
    let breaker = match &error {
        ReferencesError::Moved(_) => Breaker::DatabaseIdentity,
        ReferencesError::SentinelsGone { .. } => Breaker::LiveDrop,
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

/// Writes `deletions.csv` and the totals from the journal.
async fn tell_deletions(session: &mut Session<'_>) -> Result<Deletion, RunFailure> {
    let ledger = &session.services.ledger;
    let totals = ledger.deletion_totals(session.run).await?;
    let is_marking = matches!(session.draft.target.versioning, Versioning::Enabled | Versioning::Suspended);
    let deletion = Deletion {
        requested: totals.requested,
        deleted: totals.deleted,
        already_gone: totals.already_gone,
        skipped: totals.skipped,
        failed: totals.failed,
        unconfirmed: totals.unconfirmed,
        bytes_deleted: if is_marking { 0 } else { totals.bytes },
        bytes_marked: if is_marking { totals.bytes } else { 0 },
    };
    if deletion.requested == 0 {
        return Ok(deletion);
    }
    session.draft.deletion = Some(deletion);
    write_deletions(session, totals.requested).await?;
    Ok(deletion)
}

/// Rows of one part of `deletions.csv` above which it is compressed.
const ROWS_PER_PART: u64 = 1_000_000;

async fn write_deletions(session: &Session<'_>, rows: u64) -> Result<(), RunFailure> {
    let mut after: Option<String> = None;
    let mut part = 0;
    loop {
        part += 1;
        let (name, is_compressed) = if rows <= ROWS_PER_PART {
            ("deletions.csv".to_owned(), false)
        } else {
            (format!("deletions.{part:04}.csv.zst"), true)
        };
        let file = session.folder.file(&name)?;
        let target: Box<dyn PartWriter + Send> = if is_compressed {
            Box::new(zstd::Encoder::new(file, 3).map_err(RunFailure::ReportRow)?)
        } else {
            Box::new(file)
        };
        let mut csv = CsvFile::deletions(target).map_err(RunFailure::ReportRow)?;
        let mut written = 0;
        let is_finished = loop {
            let page =
                session.services.ledger.deletion_rows(&session.scope.name, session.run, after.as_deref()).await?;
            let Some(last) = page.last() else { break true };
            after = Some(last.key.clone());
            for row in &page {
                csv.deletion(row).map_err(RunFailure::ReportRow)?;
            }
            written += page.len() as u64;
            if is_compressed && written >= ROWS_PER_PART {
                break false;
            }
        };
        csv.finish().map_err(RunFailure::ReportRow)?.publish_part()?;
        if is_finished {
            return Ok(());
        }
    }
}

/// A part of a large CSV file, plain or compressed.
trait PartWriter: std::io::Write {
    fn publish_part(self: Box<Self>) -> Result<(), RunFailure>;
}

impl PartWriter for folder::ReportFile {
    fn publish_part(self: Box<Self>) -> Result<(), RunFailure> {
        Ok(self.publish()?)
    }
}

impl PartWriter for zstd::Encoder<'static, folder::ReportFile> {
    fn publish_part(self: Box<Self>) -> Result<(), RunFailure> {
        Ok(self.finish().map_err(RunFailure::ReportRow)?.publish()?)
    }
}
