//! The checks over a whole run. Pure: what was observed and what is known in, one reading per breaker out.
//!
//! Invariant: all are evaluated before the first deletion and reported together; any one of them refuses all of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use super::baseline::{Baseline, Observation, PurgedRows, TargetFingerprint};
use crate::config::Limits;
use crate::diff::Overlap;
use crate::model::{Grace, OpenTransactions, TableIdentity, Timestamp, human_bytes, human_count};

/// The clocks may differ by this much.
pub const MAX_SKEW: chrono::Duration = chrono::Duration::minutes(5);
/// A store's `Date` has whole seconds, so time may seem to go back by less than two of them.
const TIME_STEP_BACK: chrono::Duration = chrono::Duration::seconds(2);
/// A transaction younger than this is everyday work, whatever the grace.
const YOUNG_TRANSACTION: chrono::Duration = chrono::Duration::minutes(1);

/// Every breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Breaker {
    /// A live table has no rows while the listing has groups.
    NoReferences,
    /// Too few of the rows that should have objects were seen in the listing.
    NoOverlap,
    /// Too many rows of a live table vanished since its baseline.
    LiveDrop,
    /// The clocks disagree, or time went back.
    ClockSkew,
    /// It is not the database of the baseline.
    DatabaseIdentity,
    /// It is not the bucket, prefix or patterns of the baseline.
    TargetChanged,
    /// Not everything could be read.
    Incomplete,
    /// A transaction may hold rows that nobody sees yet.
    OpenTransaction,
    /// Too large a share of the groups would go.
    OrphanShare,
    /// Too many groups would go.
    OrphanGroups,
    /// Too many objects would go.
    Objects,
    /// Too many bytes would go.
    Bytes,
    /// Too much of what is listed belongs to no dataset.
    ForeignShare,
}

/// What a breaker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What was seen cannot be trusted.
    Evidence,
    /// More would go than was expected.
    Size,
}

impl Breaker {
    /// Every breaker, in the order of the reports.
    pub const ALL: [Self; 13] = [
        Self::NoReferences,
        Self::NoOverlap,
        Self::LiveDrop,
        Self::ClockSkew,
        Self::DatabaseIdentity,
        Self::TargetChanged,
        Self::Incomplete,
        Self::OpenTransaction,
        Self::OrphanShare,
        Self::OrphanGroups,
        Self::Objects,
        Self::Bytes,
        Self::ForeignShare,
    ];

    /// The name in reports and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoReferences => "no_references",
            Self::NoOverlap => "no_overlap",
            Self::LiveDrop => "live_drop",
            Self::ClockSkew => "clock_skew",
            Self::DatabaseIdentity => "database_identity",
            Self::TargetChanged => "target_changed",
            Self::Incomplete => "incomplete",
            Self::OpenTransaction => "open_transaction",
            Self::OrphanShare => "orphan_share",
            Self::OrphanGroups => "orphan_groups",
            Self::Objects => "objects",
            Self::Bytes => "bytes",
            Self::ForeignShare => "foreign_share",
        }
    }

    /// The breaker of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|breaker| breaker.as_str() == name)
    }

    /// What it is about.
    pub fn kind(self) -> Kind {
        match self {
            Self::NoReferences
            | Self::NoOverlap
            | Self::LiveDrop
            | Self::ClockSkew
            | Self::DatabaseIdentity
            | Self::TargetChanged
            | Self::Incomplete
            | Self::OpenTransaction => Kind::Evidence,
            Self::OrphanShare | Self::OrphanGroups | Self::Objects | Self::Bytes | Self::ForeignShare => Kind::Size,
        }
    }

    /// Whether it stays tripped until a person acknowledges it.
    pub fn latches(self) -> bool {
        self.kind() == Kind::Evidence && !matches!(self, Self::Incomplete | Self::OpenTransaction)
    }
}

/// What one breaker saw in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Its name.
    pub name: Breaker,
    /// What it is about.
    pub kind: Kind,
    /// Whether this run tripped it.
    pub tripped: bool,
    /// Whether it waits for an acknowledgement, from this run or an earlier one.
    pub latched: bool,
    /// What was observed; null where it was not judged.
    pub observed: Value,
    /// What is allowed.
    pub allowed: Value,
    /// What that means, and what to do.
    pub message: String,
}

impl Reading {
    /// Whether it refuses deletion.
    pub fn refuses(&self) -> bool {
        self.tripped || self.latched
    }

    fn new(name: Breaker, tripped: bool, observed: Value, allowed: Value, message: impl Into<String>) -> Self {
        Self { name, kind: name.kind(), tripped, latched: false, observed, allowed, message: message.into() }
    }

    /// A breaker that had nothing to judge.
    pub fn not_judged(name: Breaker, why: &str) -> Self {
        Self::new(name, false, Value::Null, Value::Null, format!("not judged: {why}"))
    }
}

/// What a complete scan gives the evidence breakers to judge.
#[derive(Debug)]
pub struct Evidence<'e> {
    /// What was observed.
    pub observation: &'e Observation,
    /// How much of what the database expects was listed.
    pub overlap: Overlap,
    /// Groups in the listing.
    pub listed_groups: u64,
    /// Open transactions of the database.
    pub open_transactions: OpenTransactions,
    /// The role that asked for them.
    pub role: &'e str,
    /// The database's clock.
    pub database_time: Timestamp,
    /// What could not be read.
    pub errors: &'e [String],
    /// What our own purges removed since about the baseline.
    pub purges: &'e [PurgedRows],
}

/// Reads every evidence breaker.
#[must_use]
pub fn judge_evidence(
    evidence: &Evidence<'_>,
    baseline: Option<&Baseline>,
    limits: &Limits,
    grace: Grace,
) -> Vec<Reading> {
    vec![
        no_references(evidence, baseline),
        no_overlap(evidence, baseline, limits),
        live_drop(evidence, baseline, limits),
        clock_skew(evidence, baseline),
        database_identity(evidence, baseline),
        target_changed(evidence, baseline),
        incomplete(evidence.errors),
        open_transaction(evidence, grace),
    ]
}

/// The reading of [`Breaker::Incomplete`] over what could not be read.
#[must_use]
pub fn incomplete(errors: &[String]) -> Reading {
    let message = match errors {
        [] => "everything was read".to_owned(),
        errors => format!(
            "not everything could be read, so nothing more is deleted and nothing counts as seen: {}",
            errors.join("; ")
        ),
    };
    Reading::new(Breaker::Incomplete, !errors.is_empty(), json!(errors.len()), json!(0), message)
}

fn no_references(evidence: &Evidence<'_>, baseline: Option<&Baseline>) -> Reading {
    let is_accepted =
        |table: &str| baseline.is_some_and(|baseline| baseline.accepted_empty.iter().any(|accepted| accepted == table));
    let rows = &evidence.observation.rows;
    let empty: Vec<&str> = rows
        .iter()
        .filter(|(table, rows)| **rows == 0 && !is_accepted(table))
        .map(|(table, _)| table.as_str())
        .collect();
    let tripped = !empty.is_empty() && evidence.listed_groups > 0;
    let message = if tripped {
        format!(
            "{} has no rows, yet the bucket has {} groups: a wrong database or an emptied table makes every dataset look orphaned",
            empty.join(", "),
            human_count(evidence.listed_groups)
        )
    } else {
        "every live table has rows, or there is nothing to lose, or its emptiness was acknowledged".to_owned()
    };
    let fewest = rows.values().min().copied().unwrap_or(0);
    Reading::new(Breaker::NoReferences, tripped, json!(fewest), json!(1), message)
}

fn no_overlap(evidence: &Evidence<'_>, baseline: Option<&Baseline>, limits: &Limits) -> Reading {
    let overlap = evidence.overlap;
    let accepted = baseline.and_then(|baseline| baseline.accepted_overlap);
    let allowed = accepted.map_or(limits.min_overlap, |accepted| accepted.min(limits.min_overlap));
    let Some(share) = overlap.share() else {
        return Reading::not_judged(Breaker::NoOverlap, "no row older than the grace period expects objects");
    };
    let unseen = overlap.expected - overlap.seen;
    let tripped = unseen > limits.small && share < allowed;
    let message = format!(
        "of {} rows older than the grace period that expect objects, {} have some in this bucket{}",
        human_count(overlap.expected),
        human_count(overlap.seen),
        if tripped { ": database and bucket may not belong together" } else { "" }
    );
    Reading::new(Breaker::NoOverlap, tripped, json!(share), json!(allowed), message)
}

/// The rows that `now` has of what `earlier` calls `table`, whatever it is called since; none where an earlier version called several
/// columns of it so.
fn rows_now(table: &str, earlier: &Observation, now: &Observation) -> Option<u64> {
    if let Some(rows) = now.rows.get(table) {
        return Some(*rows);
    }
    let read: Vec<&TableIdentity> = earlier.identity.tables.iter().filter(|found| found.is_of(table)).collect();
    match read.as_slice() {
        [] => Some(0),
        [one] => {
            Some([one.name.as_str(), one.table()].into_iter().find_map(|it| now.rows.get(it)).copied().unwrap_or(0))
        }
        [_, _, ..] => None,
    }
}

fn live_drop(evidence: &Evidence<'_>, baseline: Option<&Baseline>, limits: &Limits) -> Reading {
    let Some(baseline) = baseline else {
        return Reading::not_judged(Breaker::LiveDrop, "no earlier scan to compare with");
    };
    let mut worst: Option<(f64, u64, String)> = None;
    for (table, before) in &baseline.observation.rows {
        let Some(now) = rows_now(table, &baseline.observation, evidence.observation) else { continue };
        let fell = |purge: &PurgedRows| purge.fell_between(&baseline.observation, evidence.observation, table);
        let purged: u64 = evidence.purges.iter().map(fell).sum();
        let expected = before.saturating_sub(purged);
        let fallen = expected.saturating_sub(now);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let share = if expected == 0 { 0.0 } else { fallen as f64 / expected as f64 };
        if worst.as_ref().is_none_or(|(worst_share, worst_fallen, _)| {
            let is_judged = |fallen: u64| fallen > limits.small;
            (is_judged(fallen), share) > (is_judged(*worst_fallen), *worst_share)
        }) {
            worst = Some((
                share,
                fallen,
                match purged {
                    0 => format!("{table} had {} rows and has {}", human_count(*before), human_count(now)),
                    _ => format!(
                        "{table} had {} rows, of which `purge` removed {}, and has {}",
                        human_count(*before),
                        human_count(purged),
                        human_count(now)
                    ),
                },
            ));
        }
    }
    let Some((share, fallen, message)) = worst else {
        return Reading::not_judged(Breaker::LiveDrop, "no earlier table");
    };
    let tripped = fallen > limits.small && share > limits.max_live_drop;
    Reading::new(Breaker::LiveDrop, tripped, json!(share), json!(limits.max_live_drop), message)
}

fn clock_skew(evidence: &Evidence<'_>, baseline: Option<&Baseline>) -> Reading {
    let skew_s = evidence.observation.skew_s;
    let accepted = baseline.and_then(|baseline| baseline.accepted_skew_s).unwrap_or(0);
    let allowed = MAX_SKEW.num_seconds().max(accepted);
    let gone_back = baseline
        .map(|baseline| baseline.observation.as_of - evidence.observation.as_of)
        .filter(|back| *back >= TIME_STEP_BACK);
    let tripped = skew_s > allowed || gone_back.is_some();
    let message = match gone_back {
        Some(back) => format!("the time went back by {} s since the last good scan", back.num_seconds()),
        None => format!("the clocks of this host, the store and the database lie {skew_s} s apart"),
    };
    Reading::new(
        Breaker::ClockSkew,
        tripped,
        json!(gone_back.map_or(skew_s, |back| -back.num_seconds())),
        json!(allowed),
        message,
    )
}

/// What is said of a database that forgot transactions.
pub const SET_BACK: &str = "the database knows fewer transactions than at the last good scan: it was set back to an earlier state, as by a snapshot of its volume, and may lack rows that it had";

fn database_identity(evidence: &Evidence<'_>, baseline: Option<&Baseline>) -> Reading {
    let observed = &evidence.observation.identity;
    let Some(baseline) = baseline else {
        return Reading::new(
            Breaker::DatabaseIdentity,
            false,
            json!(observed),
            Value::Null,
            "the first scan sets what is expected",
        );
    };
    let expected = &baseline.observation.identity;
    let is_other = observed != expected;
    // A scan that another process's overtook saw fewer as well, and is the earlier one.
    let is_later = evidence.observation.as_of > baseline.observation.as_of;
    let was_set_back = is_later && baseline.observation.was_set_back(evidence.observation.snapshot.as_ref());
    let message = match (is_other, was_set_back) {
        (true, _) => format!("expected {expected}; found {observed}"),
        (false, true) => SET_BACK.to_owned(),
        (false, false) => "it is the same database".to_owned(),
    };
    let tripped = is_other || was_set_back;
    Reading::new(Breaker::DatabaseIdentity, tripped, json!(observed), json!(expected), message)
}

fn target_changed(evidence: &Evidence<'_>, baseline: Option<&Baseline>) -> Reading {
    let observed = &evidence.observation.target;
    let Some(baseline) = baseline else {
        return Reading::new(
            Breaker::TargetChanged,
            false,
            json!(observed),
            Value::Null,
            "the first scan sets what is expected",
        );
    };
    let expected = &baseline.observation.target;
    let tripped = observed != expected;
    let message = if tripped {
        "endpoint, bucket, prefix or patterns are not those of the last good scan"
    } else {
        "endpoint, bucket, prefix and patterns are the same"
    };
    Reading::new(Breaker::TargetChanged, tripped, json!(observed), json!(expected), message)
}

fn open_transaction(evidence: &Evidence<'_>, grace: Grace) -> Reading {
    let allowed = (grace.span() / 2).max(YOUNG_TRANSACTION);
    let allowed_s = json!(allowed.num_seconds());
    let since = match evidence.open_transactions {
        OpenTransactions::Hidden => {
            let message = format!(
                "this role may not see whether other transactions hold rows that are not committed yet; run: GRANT pg_read_all_stats TO \"{}\"",
                evidence.role.replace('"', "\"\"")
            );
            return Reading::new(Breaker::OpenTransaction, true, json!("hidden"), allowed_s, message);
        }
        OpenTransactions::Since(None) => {
            return Reading::new(
                Breaker::OpenTransaction,
                false,
                json!(0),
                allowed_s,
                "no transaction holds rows that nobody sees yet",
            );
        }
        OpenTransactions::Since(Some(since)) => since,
    };
    let age = evidence.database_time - since;
    let message =
        format!("a transaction that may hold rows which nobody sees yet has been open for {} s", age.num_seconds());
    Reading::new(Breaker::OpenTransaction, age > allowed, json!(age.num_seconds()), allowed_s, message)
}

/// What this run would delete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WouldGo {
    /// Groups.
    pub groups: u64,
    /// Their objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was listed, for the shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Groups.
    pub groups: u64,
    /// Foreign keys and prefixes.
    pub foreign: u64,
}

/// Limits that a person lifted for one plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allowances(pub BTreeMap<Breaker, Allowance>);

/// A lifted limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Allowance {
    /// For counts and sizes.
    Count(u64),
    /// For shares.
    Share(f64),
}

/// Why an `--allow` cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// No `=`.
    #[error("`{0}` is not of the form NAME=VALUE, such as `objects=2500000`")]
    Form(String),
    /// No such breaker.
    #[error(
        "`{0}` is no size breaker; the size breakers are orphan_share, orphan_groups, objects, bytes and foreign_share"
    )]
    Name(String),
    /// It is about evidence.
    #[error(
        "`{0}` is about evidence, which no flag lifts; find the cause, then `orphan-sweeper ack {0} --by NAME --reason TEXT`"
    )]
    Evidence(String),
    /// The value cannot be read.
    #[error("`{value}` is no value for `{name}`; write {expected}")]
    Value {
        /// The breaker.
        name: String,
        /// The value.
        value: String,
        /// What to write.
        expected: &'static str,
    },
}

impl Allowances {
    /// Reads `NAME=VALUE`.
    ///
    /// - Errors: [`AllowanceError`]; nothing lifts an evidence breaker.
    pub fn add(&mut self, text: &str) -> Result<(), AllowanceError> {
        let (name, value) = text.split_once('=').ok_or_else(|| AllowanceError::Form(text.to_owned()))?;
        let breaker = Breaker::named(name).ok_or_else(|| AllowanceError::Name(name.to_owned()))?;
        let wrong = |expected| AllowanceError::Value { name: name.to_owned(), value: value.to_owned(), expected };
        let count = || value.replace('_', "").parse().ok().map(Allowance::Count);
        let allowance = match breaker {
            Breaker::OrphanGroups | Breaker::Objects => count().ok_or_else(|| wrong("a whole number"))?,
            Breaker::Bytes => {
                crate::config::parse_size(value).map(Allowance::Count).ok_or_else(|| wrong("a size such as 2TiB"))?
            }
            Breaker::OrphanShare | Breaker::ForeignShare => {
                let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                share.map(Allowance::Share).ok_or_else(|| wrong("a share from 0.0 to 1.0"))?
            }
            Breaker::NoReferences
            | Breaker::NoOverlap
            | Breaker::LiveDrop
            | Breaker::ClockSkew
            | Breaker::DatabaseIdentity
            | Breaker::TargetChanged
            | Breaker::Incomplete
            | Breaker::OpenTransaction => return Err(AllowanceError::Evidence(name.to_owned())),
        };
        self.0.insert(breaker, allowance);
        Ok(())
    }

    fn count(&self, breaker: Breaker, configured: u64) -> u64 {
        match self.0.get(&breaker) {
            Some(Allowance::Count(count)) => configured.max(*count),
            Some(Allowance::Share(_)) | None => configured,
        }
    }

    fn share(&self, breaker: Breaker, configured: f64) -> f64 {
        match self.0.get(&breaker) {
            Some(Allowance::Share(share)) => configured.max(*share),
            Some(Allowance::Count(_)) | None => configured,
        }
    }
}

/// Reads every size breaker over what would go.
#[must_use]
pub fn judge_size(would: WouldGo, listed: Listed, limits: &Limits, allowances: &Allowances) -> Vec<Reading> {
    let count = |name, observed: u64, configured: u64, shown: fn(u64) -> String, what: &str| {
        let allowed = allowances.count(name, configured);
        let message = format!("{} {what} would go, {} may", shown(observed), shown(allowed));
        Reading::new(name, observed > allowed, json!(observed), json!(allowed), message)
    };
    let share = |name, part: u64, whole: u64, configured: f64, what: &str| {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let observed = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let allowed = allowances.share(name, configured);
        // A plan that was applied in part names more groups than are listed: their share may pass one, which allows all.
        let is_judged = would.groups > limits.small && allowed < 1.0;
        let tripped = is_judged && observed > allowed;
        let message = format!("{} of {} {what}", human_count(part), human_count(whole));
        Reading::new(name, tripped, json!(observed), json!(allowed), message)
    };
    vec![
        share(Breaker::OrphanShare, would.groups, listed.groups, limits.max_orphan_share, "listed groups would go"),
        count(Breaker::OrphanGroups, would.groups, limits.max_orphan_groups, human_count, "groups"),
        count(Breaker::Objects, would.objects, limits.max_objects, human_count, "objects"),
        count(Breaker::Bytes, would.bytes, limits.max_bytes, human_bytes, "of objects"),
        share(
            Breaker::ForeignShare,
            listed.foreign,
            listed.groups + listed.foreign,
            limits.max_foreign_share,
            "listed keys and prefixes belong to no dataset",
        ),
    ]
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
