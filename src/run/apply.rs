//! apply and sweep: which plans are applied, and by whose word. What goes is chosen by a plan, never by a fresh scan.

use std::path::{Path, PathBuf};

use super::audit::{Audited, audit};
use super::one_plan::{Order, apply_plan};
use super::reap::reap;
use super::review::Approved;
use super::telling::{begin_plan, tell_deletions};
use super::{ApplyJob, Keyring, Reading, RunFailure, Session, uploads};
use crate::config::Approval;
use crate::decide::approval::Decisions;
use crate::decide::breakers::{Allowances, Kind};
use crate::dispose::pace::Pace;
use crate::model::{Mode, Sha256Hash};
use crate::plan::VerifiedPlan;
use crate::record::{Ledger, PlanRow, PlanState};

/// A plan that was named on the command line.
pub struct PlanSource {
    /// The plan.
    pub verified: VerifiedPlan,
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
    let order = Order {
        plan: &job.source.verified,
        lifted: &job.allowances,
        mode: job.mode,
        approved,
        accepts_empty: job.accepts_empty_references,
        pace: &job.pace,
    };
    apply_plan(session, reading, keyring, order).await
}

/// Audits, then applies what the policy allows, or what a person has approved since.
///
/// - Errors: [`RunFailure`].
pub async fn sweep(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    mode: Mode,
) -> Result<(), RunFailure> {
    let Audited { plan, scan } = audit(session, reading).await?;
    if mode == Mode::Live {
        reap(session, keyring, (reading, &scan)).await?;
    }
    let Some(plan) = plan else { return Ok(()) };
    if mode == Mode::DryRun {
        return Ok(());
    }
    if session.scope.policy.approval == Approval::Required {
        return Box::pin(sweep_approved(session, reading, keyring, &plan)).await;
    }
    let plan = match interrupted_plan(session, &plan).await? {
        Some(interrupted) => interrupted,
        None => plan,
    };
    if plan.plan.groups.is_empty() && !uploads::would_abort(session) {
        return Ok(());
    }
    count_eligible_anew(session);
    Box::pin(apply_unattended(session, reading, keyring, &plan, Approved::ByPolicy)).await
}

/// Applies the plans that a person has approved since, each by its own checks, and no other. One that is refused is no
/// reason to leave the next.
async fn sweep_approved(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    fresh: &VerifiedPlan,
) -> Result<(), RunFailure> {
    let plans = approved_plans(session, fresh).await?;
    session.take_from_review(fresh, &plans);
    if !plans.is_empty() {
        count_eligible_anew(session);
    }
    let mut refusal = None;
    for plan in &plans {
        match Box::pin(apply_unattended(session, reading, keyring, plan, Approved::ByDecision)).await {
            // What was seen holds for every plan.
            Err(failure @ RunFailure::Refused { .. }) if session.refusing(Some(Kind::Evidence)).is_empty() => {
                refusal.get_or_insert(failure);
            }
            ended => ended?,
        }
    }
    refusal.map_or(Ok(()), Err)
}

async fn apply_unattended(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    plan: &VerifiedPlan,
    approved: Approved,
) -> Result<(), RunFailure> {
    session.draft.plan_hash = Some(plan.hash.to_string());
    session.next_command = None;
    let (lifted, pace) = (Allowances::default(), Pace::default());
    let order = Order { plan, lifted: &lifted, mode: Mode::Live, approved, accepts_empty: false, pace: &pace };
    apply_plan(session, reading, keyring, order).await
}

/// From here on, what is eligible is what the plans that are applied let go.
fn count_eligible_anew(session: &mut Session<'_>) {
    let draft = &mut session.draft;
    (draft.groups.eligible, draft.eligible_objects, draft.eligible_bytes) = (0, 0, 0);
}

/// The plans of which a person approved something and that can still be applied, the oldest first.
async fn approved_plans(session: &mut Session<'_>, fresh: &VerifiedPlan) -> Result<Vec<VerifiedPlan>, RunFailure> {
    let ledger = &session.services.ledger;
    let mut plans = Vec::new();
    for hash in ledger.reviewed_plans(&session.scope.name).await? {
        let (Some(parsed), Some(row)) = (Sha256Hash::parse(&hash), ledger.plan(&hash).await?) else { continue };
        if !Decisions::of(ledger.decisions_on(parsed).await?).has_approval() {
            continue;
        }
        match read_plan(&row).filter(|plan| is_current(plan, fresh)) {
            Some(plan) => plans.push(plan),
            // A backfill that a person works through in steps takes as long as it takes.
            None if read_plan(&row).is_some_and(|plan| plan.plan.backfill.is_some()) => {}
            None if row.state == PlanState::Applying => give_up(session, &row).await?,
            None => {
                tracing::warn!(plan = %hash, "an approved plan is past its time, for another target or policy, or its file is gone; it is not applied");
            }
        }
    }
    Ok(plans)
}

/// The plan that an earlier run began and did not finish, if it can still be finished.
///
/// One that is past its time, that a person rejected, or that was made for another target or by another policy than `fresh`,
/// is given up: this run tells what it did, and closes it.
async fn interrupted_plan(session: &mut Session<'_>, fresh: &VerifiedPlan) -> Result<Option<VerifiedPlan>, RunFailure> {
    let ledger = &session.services.ledger;
    let Some(row) = ledger.interrupted_plan(&session.scope.name).await? else { return Ok(None) };
    let plan = read_plan(&row).filter(|plan| is_current(plan, fresh));
    if let Some(plan) = plan
        && Decisions::of(ledger.decisions_on(plan.hash).await?).rejection().is_none()
    {
        return Ok(Some(plan));
    }
    give_up(session, &row).await?;
    Ok(None)
}

/// The plan that the ledger issued, if its file still holds it.
fn read_plan(row: &PlanRow) -> Option<VerifiedPlan> {
    let plan = std::fs::read(&row.path).ok().and_then(|bytes| crate::plan::verify(&bytes).ok());
    plan.filter(|plan| plan.hash.to_string() == row.hash)
}

/// Whether a plan is about the same target by the same policy as `fresh`, and not past its time.
fn is_current(plan: &VerifiedPlan, fresh: &VerifiedPlan) -> bool {
    plan.plan.expires_at > fresh.plan.created_at
        && plan.plan.target == fresh.plan.target
        && plan.plan.policy == fresh.plan.policy
}

/// Closes a plan that was begun and cannot be finished; this run tells what it did.
async fn give_up(session: &mut Session<'_>, row: &PlanRow) -> Result<(), RunFailure> {
    tracing::warn!(plan = %row.hash, "an interrupted plan is past its time, rejected, for another target or policy, or its file is gone; it is closed");
    if let Some(hash) = Sha256Hash::parse(&row.hash) {
        begin_plan(session, hash).await?;
        session.finished_plans.push(hash);
        tell_deletions(session, hash).await?;
    }
    Ok(())
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
