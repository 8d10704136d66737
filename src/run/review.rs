//! What persons decided on a plan: who may go of it, and which plans a sweep applies because they were approved.
//!
//! Invariant: where a person must approve, nothing goes that nobody approved; what a person rejected never goes
//! unattended, whatever plan names it.

use std::collections::HashSet;

use super::{RunFailure, Session};
use crate::decide::approval::{Decision, Decisions, Ruling};
use crate::dispose::{Consent, SkipReason};
use crate::model::{DatasetId, Timestamp};
use crate::plan::VerifiedPlan;
use crate::record::{Ledger, PlanRow, PlanState};
use crate::report::csv::time;

/// Who approved a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "each says by whose word")]
pub enum Approved {
    /// A person who applies it, and may be asked on the terminal.
    ByPerson {
        /// Whether to ask.
        asks_first: bool,
    },
    /// A person, by a decision on record: nothing else of the plan goes.
    ByDecision,
    /// The policy.
    ByPolicy,
}

impl Approved {
    /// What later objections are weighed against.
    pub fn consent(self) -> Consent {
        match self {
            Self::ByPerson { .. } => Consent::Given,
            Self::ByDecision | Self::ByPolicy => Consent::Unattended,
        }
    }
}

/// What was decided on the ids of a plan when its application begins.
#[derive(Debug)]
pub struct Review {
    decisions: Decisions,
    rejected_before: HashSet<DatasetId>,
    approved: Approved,
}

impl Review {
    /// Reads what was decided on `plan`.
    ///
    /// - Errors: [`RunFailure::Refused`] where the whole plan was rejected.
    pub async fn of(session: &Session<'_>, plan: &VerifiedPlan, approved: Approved) -> Result<Self, RunFailure> {
        let ledger = &session.services.ledger;
        let decisions = Decisions::of(ledger.decisions_on(plan.hash).await?);
        if let Some(rejection) = decisions.rejection() {
            return Err(refused(rejection, &session.scope.name));
        }
        let rejected_before = match approved {
            Approved::ByDecision | Approved::ByPolicy => {
                ledger.rejected_ids(&session.scope.name).await?.into_iter().collect()
            }
            Approved::ByPerson { .. } => HashSet::new(),
        };
        Ok(Self { decisions, rejected_before, approved })
    }

    /// Why an id of the plan does not go, by what persons decided; `None`: nobody objects.
    pub fn objection(&self, id: DatasetId) -> Option<SkipReason> {
        match (self.decisions.ruling(id), self.approved) {
            (Some(Ruling::Rejected), _) => Some(SkipReason::Rejected),
            (None, Approved::ByDecision) => Some(SkipReason::NotApproved),
            // Approved in an older plan and rejected in a newer one: the rejection is what a person said last.
            (_, Approved::ByDecision | Approved::ByPolicy) if self.rejected_before.contains(&id) => {
                Some(SkipReason::Rejected)
            }
            (Some(Ruling::Approved) | None, _) => None,
        }
    }
}

/// Says who rejected a plan as a whole, and why.
fn refused(rejection: &Decision, scope: &str) -> RunFailure {
    RunFailure::Refused {
        reason: format!(
            "the plan {} was rejected by {} at {}: {}",
            rejection.plan_hash,
            rejection.by,
            time(rejection.at),
            rejection.reason
        ),
        hint: format!(
            "make a new plan with `orphan-sweeper audit --scope {scope}`, or approve this one with `orphan-sweeper plan approve {} --by NAME --reason TEXT`",
            rejection.plan_hash
        ),
    }
}

/// The ledger must have issued exactly this plan, and not be done with it.
///
/// - Errors: [`RunFailure::Refused`].
pub async fn check_issued(ledger: &Ledger, plan: &VerifiedPlan) -> Result<PlanRow, RunFailure> {
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
    match row.state {
        PlanState::Open | PlanState::Applying => Ok(row),
        PlanState::Closed => refused(format!("the plan {} was applied already", plan.hash)),
    }
}

/// Whether a plan may still be decided on, and applied, at `now`. One that was begun in time may be finished.
pub fn is_past(plan: &VerifiedPlan, state: PlanState, now: Timestamp) -> bool {
    state == PlanState::Open && now >= plan.plan.expires_at
}
