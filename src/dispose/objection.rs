//! What persons say while a plan is applied: a hold or a rejection placed meanwhile keeps the rest of its id, and so does a hold in
//! another scope that the same rows keep objects alive in, where a purge goes on.
//!
//! Asked again before each attempt, like the stop file. Invariant: an answer that cannot be had sends nothing more.

use parking_lot::Mutex;

use super::{Halt, SkipReason};
use crate::config::{HoldsSource, Scope};
use crate::decide::approval::Ruling;
use crate::decide::holds::Hold;
use crate::list::holds::HoldsFile;
use crate::list::references::References;
use crate::model::{DatasetId, Sha256Hash, Timestamp};
use crate::record::Ledger;

/// Whose word let a plan go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// A person's, who applies it: what is said of this plan counts.
    Given,
    /// The policy's or an approval's, with nobody at hand: it also leaves alone what a person rejected in any plan.
    Unattended,
}

/// Asks whether a person objects to the deletion of an id.
pub(super) struct Objections<'d> {
    plan: Sha256Hash,
    consent: Consent,
    as_of: Timestamp,
    ledger: &'d Ledger,
    /// The scope of the plan.
    own: Protected<'d>,
    /// Others whose holds count.
    others: Vec<Protected<'d>>,
}

/// Where holds stand of one scope.
struct Protected<'d> {
    scope: &'d Scope,
    references: &'d dyn References,
    file: Option<Mutex<HoldsFile>>,
}

impl<'d> Protected<'d> {
    fn of(scope: &'d Scope, references: &'d dyn References) -> Self {
        let file = match &scope.holds {
            Some(HoldsSource::File(path)) => Some(Mutex::new(HoldsFile::new(path.clone()))),
            Some(HoldsSource::Table(_)) | None => None,
        };
        Self { scope, references, file }
    }
}

impl<'d> Objections<'d> {
    /// Objections to `plan`; holds are judged at the run's time, `as_of`.
    pub(super) fn new(
        scope: &'d Scope,
        plan: Sha256Hash,
        (consent, as_of): (Consent, Timestamp),
        ledger: &'d Ledger,
        references: &'d dyn References,
    ) -> Self {
        Self { plan, consent, as_of, ledger, own: Protected::of(scope, references), others: Vec::new() }
    }

    /// Heeds the holds of another scope, too.
    pub(super) fn heed(&mut self, scope: &'d Scope, references: &'d dyn References) {
        self.others.push(Protected::of(scope, references));
    }

    /// Why nothing more of `id` may go; `None`: nobody objects.
    ///
    /// - Errors: why that cannot be known; the run ends.
    pub(super) async fn against(&self, id: DatasetId) -> Result<Option<SkipReason>, Halt> {
        for place in std::iter::once(&self.own).chain(&self.others) {
            if self.is_held(place, id).await? {
                return Ok(Some(SkipReason::Held));
            }
        }
        let ruling = self.ledger.decision_on_id(self.plan, id).await.map_err(Halt::Record)?.ruling(id);
        let is_rejected = match (ruling, self.consent) {
            (Some(Ruling::Rejected), _) => true,
            (Some(Ruling::Approved) | None, Consent::Given) => false,
            (Some(Ruling::Approved) | None, Consent::Unattended) => {
                self.ledger.is_rejected_id(&self.own.scope.name, id).await.map_err(Halt::Record)?
            }
        };
        Ok(is_rejected.then_some(SkipReason::Rejected))
    }

    async fn is_held(&self, place: &Protected<'_>, id: DatasetId) -> Result<bool, Halt> {
        let holds = |hold: &Hold| hold.id == id && hold.counts_at(self.as_of);
        if self.ledger.holds(&place.scope.name, Some(id)).await.map_err(Halt::Record)?.iter().any(holds) {
            return Ok(true);
        }
        if let Some(file) = &place.file
            && file.lock().read().map_err(Halt::Holds)?.iter().any(holds)
        {
            return Ok(true);
        }
        Ok(place.references.holds().await.map_err(Halt::References)?.iter().any(holds))
    }
}
