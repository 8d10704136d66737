//! Every rule of one id in the order they are judged: what was found, what is needed, and what would have to change.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::is_approved;
use crate::config::{Approval, Policy};
use crate::decide::approval::{Decision, Ruling};
use crate::decide::holds::Hold;
use crate::decide::sightings::Sighting;
use crate::decide::{KeepReason, Orphan, Uploading, Verdict, decide, unless_refused, unless_uploading};
use crate::model::{Timestamp, human_bytes, human_count, visible};
use crate::record::{Latch, PlanRow};
use crate::report::csv::time;
use crate::s3::StoreError;

/// What a fresh look at one id saw.
pub(super) struct View {
    pub(super) orphan: Orphan,
    pub(super) before: Option<Sighting>,
    pub(super) next: Sighting,
    /// Tables with rows of the id, and how many.
    pub(super) live_in: BTreeMap<String, u64>,
    pub(super) hold: Option<Hold>,
    pub(super) plans: Vec<Planned>,
    pub(super) latched: Vec<Latch>,
    /// Whether the policy leaves it alone, because a person rejected it.
    pub(super) is_rejected: bool,
    pub(super) uploads: Uploads,
    /// When the store last showed what was left of it in spite of its deletion.
    pub(super) refused_at: Option<Timestamp>,
    pub(super) as_of: Timestamp,
}

/// What the store tells of multipart uploads.
pub(super) struct Uploads {
    pub(super) under_it: Uploading,
    /// Why it does not tell of all, if so.
    pub(super) unknown: Option<StoreError>,
}

/// A plan that names the id.
pub(super) struct Planned {
    pub(super) row: PlanRow,
    pub(super) expires_at: Timestamp,
    pub(super) objects: u64,
    pub(super) decision: Option<Decision>,
}

impl Planned {
    pub(super) fn document(&self) -> Value {
        let decision = self.decision.as_ref();
        json!({
            "plan_hash": self.row.hash, "state": self.row.state.as_str(), "expires_at": self.expires_at,
            "objects": self.objects, "decision": decision.map(|decision| decision.ruling.as_str()),
            "by": decision.map(|decision| &decision.by), "reason": decision.map(|decision| &decision.reason)
        })
    }
}

/// One rule.
struct Rule {
    name: &'static str,
    passes: bool,
    found: String,
    needed: String,
    /// What would have to change, where it does not pass.
    change: String,
}

impl Rule {
    fn document(self) -> Value {
        let change = (!self.passes).then_some(self.change);
        json!({ "rule": self.name, "passes": self.passes, "found": self.found, "needed": self.needed, "to_change": change })
    }
}

fn length(span: chrono::Duration) -> String {
    humantime::format_duration(std::time::Duration::from_secs(span.num_seconds().unsigned_abs())).to_string()
}

impl View {
    /// What the next scan would say, and why.
    pub(super) fn verdict(&self, policy: &Policy) -> (&'static str, String) {
        if !self.live_in.is_empty() {
            let tables: Vec<&str> = self.live_in.keys().map(String::as_str).collect();
            return ("keep", format!("a row in {} keeps it alive", tables.join(", ")));
        }
        if self.orphan.is_empty() {
            return ("none", "the store lists no object of it".to_owned());
        }
        let keep = |reason: KeepReason| ("keep", format!("{}: {}", reason.as_str(), reason.meaning()));
        if self.hold.is_some() {
            return keep(KeepReason::Held);
        }
        if !self.has_canonical() {
            return keep(KeepReason::NotCanonical);
        }
        let decided = decide(&self.orphan, &self.next, policy, self.as_of);
        let rested = unless_refused(decided, self.refused_at, policy, self.as_of);
        match unless_uploading(rested, self.uploads.under_it) {
            Verdict::Eligible => ("eligible", "every rule lets it go; the next audit plans it".to_owned()),
            Verdict::Keep(reason) => keep(reason),
        }
    }

    fn has_canonical(&self) -> bool {
        self.orphan.groups.iter().any(|(group, content)| group.is_canonical() && content.objects > 0)
    }

    /// Every rule: what it found, what it needs, and what would have to change.
    pub(super) fn rules(&self, policy: &Policy) -> Vec<Value> {
        let rules = [
            self.rules_of_persons_and_rows(),
            self.rules_of_objects(policy),
            self.rules_of_sightings(policy),
            self.rules_of_the_store(policy),
            self.rules_of_plans(policy),
        ];
        rules.into_iter().flatten().map(Rule::document).collect()
    }

    fn rules_of_persons_and_rows(&self) -> Vec<Rule> {
        let rows: Vec<String> =
            self.live_in.iter().map(|(table, rows)| format!("{} in {table}", human_count(*rows))).collect();
        let held = self.hold.as_ref().map_or_else(
            || "nobody holds it".to_owned(),
            |hold| {
                let until = hold
                    .until
                    .map_or_else(|| "until it is removed".to_owned(), |until| format!("until {}", time(until)));
                let by = hold.by.as_deref().map_or_else(String::new, |by| format!(" by {}", visible(by)));
                format!("held{by} ({}) {until}: {}", hold.source.as_str(), visible(&hold.reason))
            },
        );
        vec![
            Rule {
                name: "no row in any live table",
                passes: self.live_in.is_empty(),
                found: if rows.is_empty() { "none".to_owned() } else { rows.join(", ") },
                needed: "none".into(),
                change: "the dataset's row is deleted; then it is left alone for the grace period from its first sighting on".into(),
            },
            Rule {
                name: "no hold",
                passes: self.hold.is_none(),
                found: held,
                needed: "none".into(),
                change: "the hold ends, or is taken off where it stands".into(),
            },
        ]
    }

    fn rules_of_objects(&self, policy: &Policy) -> Vec<Rule> {
        let Self { orphan, next, as_of, .. } = self;
        let newest = orphan.newest();
        let age = newest.map(|newest| *as_of - newest);
        let grace = policy.grace.span();
        let has_age = age.is_some_and(|age| age >= chrono::Duration::zero()) && !orphan.has_unknown_age();
        let (objects, bytes) = orphan.groups.iter().fold((0, 0_u64), |(objects, bytes), (_, content)| {
            (objects + content.objects, bytes.saturating_add(content.bytes))
        });
        let odd = orphan.groups.iter().filter(|(group, content)| !group.is_canonical() && content.objects > 0).count();
        vec![
            Rule {
                name: "the store lists objects",
                passes: !orphan.is_empty(),
                found: format!("{} ({})", human_count(objects), human_bytes(bytes)),
                needed: "at least one".into(),
                change: "there is nothing to delete".into(),
            },
            Rule {
                name: "some prefix is spelled as the pattern writes it",
                passes: self.has_canonical(),
                found: match odd {
                    0 => "no odd spelling".to_owned(),
                    odd => format!("{odd} in an odd spelling, which stays in any case"),
                },
                needed: "at least one".into(),
                change: "only a person can remove an oddly spelled prefix".into(),
            },
            Rule {
                name: "every age is known and not in the future",
                passes: has_age,
                found: newest.map_or("unknown".into(), time),
                needed: format!("at most {}", time(*as_of)),
                change: "the store says when each object was written".into(),
            },
            Rule {
                name: "unchanged since the scan before",
                passes: !next.is_changed,
                found: if next.is_changed { "changed" } else { "unchanged" }.into(),
                needed: "unchanged".into(),
                change: "nobody writes to it any more; its sightings start again with the next scan".into(),
            },
            Rule {
                name: "its newest object is older than grace",
                passes: age.is_some_and(|age| age >= grace),
                found: age.map_or("unknown".into(), length),
                needed: length(grace),
                change: newest.and_then(|newest| newest.checked_add_signed(grace)).map_or_else(
                    || "the store says when each object was written".to_owned(),
                    |at| format!("nothing is written until {}", time(at)),
                ),
            },
        ]
    }

    fn rules_of_sightings(&self, policy: &Policy) -> Vec<Rule> {
        let Self { next, as_of, .. } = self;
        let grace = policy.grace.span();
        let (seen_for, span) = (*as_of - next.first_seen, next.last_seen - next.first_seen);
        let least_span = chrono::Duration::from_std(policy.min_sighting_span).unwrap_or(chrono::Duration::MAX);
        let until = |from: Timestamp, span: chrono::Duration| {
            from.checked_add_signed(span)
                .map_or_else(|| "scans go on".to_owned(), |at| format!("scans go on until {}", time(at)))
        };
        vec![
            Rule {
                name: "its first sighting is older than grace",
                passes: seen_for >= grace,
                found: length(seen_for),
                needed: length(grace),
                change: until(next.first_seen, grace),
            },
            Rule {
                name: "enough scans saw it",
                passes: next.sightings >= policy.min_sightings,
                found: format!("{} with the next one", next.sightings),
                needed: policy.min_sightings.to_string(),
                change: format!("{} more complete scans see it", policy.min_sightings.saturating_sub(next.sightings)),
            },
            Rule {
                name: "they are spread",
                passes: span >= least_span,
                found: length(span),
                needed: length(least_span),
                change: until(next.first_seen, least_span),
            },
            Rule {
                name: "the time between them adds up to grace",
                passes: next.witnessed >= grace,
                found: length(next.witnessed),
                needed: length(grace),
                change: "scans go on more often: a long time without one counts only in part".into(),
            },
        ]
    }

    fn rules_of_the_store(&self, policy: &Policy) -> Vec<Rule> {
        let grace = policy.grace.span();
        let uploads = match (self.uploads.under_it, &self.uploads.unknown) {
            (Uploading::InProgress, _) => "in progress".to_owned(),
            (Uploading::NoneTold, None) => "none told".to_owned(),
            (Uploading::NoneTold, Some(error)) => format!("not known: {}", visible(&error.to_string())),
        };
        vec![
            Rule {
                name: "the store tells of no upload under it",
                passes: self.uploads.under_it == Uploading::NoneTold,
                found: uploads,
                needed: "none".into(),
                change: "the upload is completed or aborted".into(),
            },
            Rule {
                name: "what the store would not delete rested",
                passes: self.refused_at.is_none_or(|at| self.as_of - at >= grace),
                found: self.refused_at.map_or("nothing of it".into(), |at| format!("for {}", length(self.as_of - at))),
                needed: length(grace),
                change: self.refused_at.and_then(|at| at.checked_add_signed(grace)).map_or_else(
                    || "the grace period passes".to_owned(),
                    |at| format!("it is left alone until {}", time(at)),
                ),
            },
        ]
    }

    fn rules_of_plans(&self, policy: &Policy) -> Vec<Rule> {
        let latched: Vec<&str> = self.latched.iter().map(|latch| latch.breaker.as_str()).collect();
        let (approved, rejected) = (
            self.plans.iter().any(|planned| is_approved(planned.decision.as_ref())),
            self.plans
                .iter()
                .filter_map(|planned| planned.decision.as_ref())
                .find(|decision| decision.ruling == Ruling::Rejected),
        );
        let decided = match (rejected, approved) {
            (Some(decision), _) => format!("rejected by {}: {}", visible(&decision.by), visible(&decision.reason)),
            (None, true) => "approved".to_owned(),
            (None, false) if self.is_rejected => "rejected in an earlier plan".to_owned(),
            (None, false) => "nobody decided".to_owned(),
        };
        let named = match self.plans.len() {
            0 => "none".to_owned(),
            _ => self
                .plans
                .iter()
                .map(|planned| planned.row.hash.chars().take(12).collect::<String>())
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (passes, needed, change) = match policy.approval {
            Approval::Required => (
                approved && rejected.is_none(),
                "a person applies the plan, or approves it for the next sweep",
                "orphan-sweeper plan approve PLAN --by NAME --reason TEXT, or orphan-sweeper apply PLAN",
            ),
            Approval::Automatic => (
                rejected.is_none() && !self.is_rejected,
                "nobody rejected it",
                "the id itself is approved: orphan-sweeper plan approve PLAN --id ID --by NAME --reason TEXT",
            ),
        };
        vec![
            Rule {
                name: "no breaker waits for a person",
                passes: latched.is_empty(),
                found: if latched.is_empty() { "none".to_owned() } else { latched.join(", ") },
                needed: "none".into(),
                change: "its cause is found and acknowledged: orphan-sweeper ack BREAKER --by NAME --reason TEXT"
                    .into(),
            },
            Rule {
                name: "a plan names it",
                passes: !self.plans.is_empty(),
                found: named,
                needed: "one that is not past its time".into(),
                change: "every rule above lets it go; the next audit plans it".into(),
            },
            Rule {
                name: "a person or the policy lets it go",
                passes,
                found: decided,
                needed: needed.into(),
                change: change.into(),
            },
        ]
    }
}
