//! Approval: what persons decided on a plan and on single ids of it. Pure.
//!
//! Takes the decisions in the order they were made; gives the one that counts for an id. Invariant: where two decisions
//! could be read in two ways, the one that keeps is taken: an explicit rejection of an id is undone only by approving that
//! id, and a rejection of the whole plan covers what was approved of it before.

use std::collections::BTreeMap;

use crate::model::{DatasetId, Timestamp};

/// What a person decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It may go.
    Approved,
    /// It stays.
    Rejected,
}

impl Ruling {
    /// The word in the ledger and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }

    /// The ruling of that word.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Approved, Self::Rejected].into_iter().find(|ruling| ruling.as_str() == name)
    }
}

/// One decision, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its number: decisions are numbered in the order they were made.
    pub number: u64,
    /// The scope of the plan.
    pub scope: String,
    /// The plan's hash.
    pub plan_hash: String,
    /// The id that it is about; `None`: the whole plan.
    pub id: Option<DatasetId>,
    /// What was decided.
    pub ruling: Ruling,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// The decisions on one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    whole: Option<Decision>,
    by_id: BTreeMap<DatasetId, Decision>,
}

impl Decisions {
    /// The newest decision on the whole plan and on each id, of `decisions` in any order.
    pub fn of(decisions: impl IntoIterator<Item = Decision>) -> Self {
        let mut newest = Self::default();
        for decision in decisions {
            let is_newer = |before: Option<&Decision>| before.is_none_or(|before| before.number < decision.number);
            match decision.id {
                None if is_newer(newest.whole.as_ref()) => newest.whole = Some(decision),
                Some(id) if is_newer(newest.by_id.get(&id)) => {
                    newest.by_id.insert(id, decision);
                }
                None | Some(_) => {}
            }
        }
        newest
    }

    /// The decision that counts for an id of the plan; `None`: nobody decided.
    pub fn on(&self, id: DatasetId) -> Option<&Decision> {
        let Some(own) = self.by_id.get(&id) else { return self.whole.as_ref() };
        let later_rejection =
            self.whole.as_ref().filter(|whole| whole.ruling == Ruling::Rejected && whole.number > own.number);
        match own.ruling {
            Ruling::Rejected => Some(own),
            Ruling::Approved => Some(later_rejection.unwrap_or(own)),
        }
    }

    /// What counts for an id of the plan.
    pub fn ruling(&self, id: DatasetId) -> Option<Ruling> {
        self.on(id).map(|decision| decision.ruling)
    }

    /// The rejection of the plan as a whole, where nothing of it was approved since.
    pub fn rejection(&self) -> Option<&Decision> {
        let whole = self.whole.as_ref().filter(|whole| whole.ruling == Ruling::Rejected)?;
        (!self.has_approval()).then_some(whole)
    }

    /// Whether anything of the plan is approved.
    pub fn has_approval(&self) -> bool {
        let is_approved = |decision: &Decision| decision.ruling == Ruling::Approved;
        self.whole.as_ref().is_some_and(is_approved)
            || self.by_id.keys().any(|id| self.on(*id).is_some_and(is_approved))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> DatasetId {
        DatasetId(Uuid::from_u128(n))
    }

    /// Decisions in order: on which id, and whether it was approved.
    fn decisions(made: &[(Option<u128>, bool)]) -> Decisions {
        let decision = |(position, (about, is_approved)): (usize, &(Option<u128>, bool))| Decision {
            number: position as u64 + 1,
            scope: "s".into(),
            plan_hash: "h".into(),
            id: about.map(id),
            ruling: if *is_approved { Ruling::Approved } else { Ruling::Rejected },
            by: "ada".into(),
            reason: format!("decision {}", position + 1),
            at: Timestamp::UNIX_EPOCH,
        };
        // The order of the rows is no order of the decisions.
        let backwards = Decisions::of(made.iter().enumerate().rev().map(decision));
        assert_eq!(Decisions::of(made.iter().enumerate().map(decision)), backwards);
        backwards
    }

    #[test]
    fn an_ids_own_decision_wins_over_the_whole_plan() {
        use Ruling::{Approved, Rejected};
        for (made, expected) in [
            (vec![], None),
            (vec![(None, true)], Some(Approved)),
            (vec![(None, false)], Some(Rejected)),
            (vec![(None, false), (None, true)], Some(Approved)),
            (vec![(None, true), (Some(1), false)], Some(Rejected)),
            (vec![(Some(1), false), (None, true)], Some(Rejected)),
            (vec![(Some(1), false), (None, true), (None, true)], Some(Rejected)),
            (vec![(Some(1), false), (None, true), (Some(1), true)], Some(Approved)),
            (vec![(None, false), (Some(1), true)], Some(Approved)),
            (vec![(Some(1), true), (None, false)], Some(Rejected)),
            (vec![(Some(1), true), (None, false), (None, true)], Some(Approved)),
            (vec![(Some(2), true)], None),
            (vec![(Some(1), true), (Some(1), false)], Some(Rejected)),
        ] {
            assert_eq!(decisions(&made).ruling(id(1)), expected, "{made:?}");
        }
    }

    #[test]
    fn a_plan_is_rejected_as_a_whole_until_something_of_it_is_approved() {
        for (made, is_rejected, has_approval) in [
            (vec![], false, false),
            (vec![(None, false)], true, false),
            (vec![(None, true)], false, true),
            (vec![(None, false), (Some(1), true)], false, true),
            (vec![(Some(1), true), (None, false)], true, false),
            (vec![(None, false), (None, true)], false, true),
            (vec![(Some(1), false)], false, false),
        ] {
            let decisions = decisions(&made);
            assert_eq!(decisions.rejection().is_some(), is_rejected, "{made:?}");
            assert_eq!(decisions.has_approval(), has_approval, "{made:?}");
        }
    }

    #[test]
    fn the_word_of_each_ruling_is_read_back() {
        for ruling in [Ruling::Approved, Ruling::Rejected] {
            assert_eq!(Ruling::named(ruling.as_str()), Some(ruling));
        }
        assert_eq!(Ruling::named("maybe"), None);
    }

    proptest! {
        #[test]
        fn one_more_rejection_never_approves(
            made in proptest::collection::vec((proptest::option::of(0..4_u128), any::<bool>()), 0..12),
            about in proptest::option::of(0..4_u128),
        ) {
            let before = decisions(&made);
            let mut more = made;
            more.push((about, false));
            let after = decisions(&more);
            for n in 0..4 {
                let is_approved = |decisions: &Decisions| decisions.ruling(id(n)) == Some(Ruling::Approved);
                prop_assert!(!is_approved(&after) || is_approved(&before));
            }
            if let Some(n) = about {
                prop_assert_eq!(after.ruling(id(n)), Some(Ruling::Rejected));
            } else {
                prop_assert!(!after.has_approval());
            }
        }
    }
}
