//! Holds: ids that a person protects by name and reason, whatever every other rule says. Pure.
//!
//! Takes the holds of every source; gives the one that protects an id at a time. Invariant: a hold wins over every other
//! verdict until its end, and one without an end never ends by itself.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate, NaiveTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepReason, Verdict};
use crate::model::{DatasetId, Timestamp};

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HoldSource {
    /// In the ledger: `hold add`, or a restore.
    Ledger,
    /// In the file of `scope.holds.file`.
    File,
    /// In the table of `scope.holds.table`.
    Table,
}

impl HoldSource {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::File => "file",
            Self::Table => "table",
        }
    }
}

/// One protected id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The id, whatever its spelling was.
    pub id: DatasetId,
    /// When it ends; `None`: only a person ends it.
    pub until: Option<Timestamp>,
    /// Who placed it, where that is known.
    pub by: Option<String>,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub source: HoldSource,
}

impl Hold {
    /// Whether it still protects at `as_of`.
    pub fn counts_at(&self, as_of: Timestamp) -> bool {
        self.until.is_none_or(|until| as_of < until)
    }
}

/// The holds of one scope, from every source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds(BTreeMap<DatasetId, Vec<Hold>>);

impl Holds {
    /// The holds that count at `as_of`; what ended by then is none any more.
    pub fn at(as_of: Timestamp, holds: impl IntoIterator<Item = Hold>) -> Self {
        let mut by_id: BTreeMap<DatasetId, Vec<Hold>> = BTreeMap::new();
        for hold in holds.into_iter().filter(|hold| hold.counts_at(as_of)) {
            by_id.entry(hold.id).or_default().push(hold);
        }
        Self(by_id)
    }

    /// The hold that protects an id for longest.
    pub fn on(&self, id: DatasetId) -> Option<&Hold> {
        self.0.get(&id)?.iter().max_by_key(|hold| (hold.until.is_none(), hold.until))
    }

    /// How many ids are held.
    pub fn ids(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The verdict on a group whose id `hold` protects, if any does: it wins over every other.
#[must_use]
pub fn verdict_under(hold: Option<&Hold>, verdict: Verdict) -> Verdict {
    match hold {
        Some(_) => Verdict::Keep(KeepReason::Held),
        None => verdict,
    }
}

/// When an orphan that could become eligible at `eligible_at` really could, under `hold`; `None`: only a person ends it.
#[must_use]
pub fn eligible_under(hold: Option<&Hold>, eligible_at: Timestamp) -> Option<Timestamp> {
    match hold {
        None => Some(eligible_at),
        Some(hold) => hold.until.map(|until| until.max(eligible_at)),
    }
}

/// Reads the end of a hold: a time as RFC 3339 writes it, or a date, which is protected to its end in UTC.
#[must_use]
pub fn read_until(text: &str) -> Option<Timestamp> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let date: NaiveDate = text.parse().ok()?;
    Some(date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn hold(n: u128, until: Option<&str>, reason: &str) -> Hold {
        Hold {
            id: DatasetId(Uuid::from_u128(n)),
            until: until.map(at),
            by: None,
            reason: reason.into(),
            source: HoldSource::File,
        }
    }

    #[test]
    fn a_hold_ends_at_its_time_and_not_a_moment_before() {
        let ending = hold(1, Some("2026-03-01T00:00:00Z"), "x");
        assert!(ending.counts_at(at("2026-02-28T23:59:59.999Z")));
        assert!(!ending.counts_at(at("2026-03-01T00:00:00Z")));
        assert!(hold(1, None, "x").counts_at(Timestamp::MAX_UTC));
    }

    #[test]
    fn the_longest_hold_of_an_id_protects_it() {
        let all = [
            hold(1, Some("2026-03-01T00:00:00Z"), "short"),
            hold(1, Some("2026-05-01T00:00:00Z"), "long"),
            hold(2, Some("2026-05-01T00:00:00Z"), "long"),
            hold(2, None, "endless"),
            hold(3, Some("2026-01-01T00:00:00Z"), "over"),
        ];
        let holds = Holds::at(at("2026-02-01T00:00:00Z"), all);
        let reason = |n| holds.on(DatasetId(Uuid::from_u128(n))).map(|hold| hold.reason.as_str());
        assert_eq!((reason(1), reason(2), reason(3), reason(4)), (Some("long"), Some("endless"), None, None));
        assert_eq!(holds.ids(), 2);
    }

    #[test]
    fn a_hold_wins_over_every_other_verdict() {
        let held = hold(1, None, "x");
        let others = KeepReason::ALL.map(Verdict::Keep).into_iter().chain([Verdict::Eligible]);
        for verdict in others {
            assert_eq!(verdict_under(Some(&held), verdict), Verdict::Keep(KeepReason::Held));
            assert_eq!(verdict_under(None, verdict), verdict);
        }
    }

    #[test]
    fn what_is_held_becomes_eligible_only_after_its_hold() {
        let eligible = at("2026-03-01T00:00:00Z");
        assert_eq!(eligible_under(None, eligible), Some(eligible));
        assert_eq!(eligible_under(Some(&hold(1, None, "x")), eligible), None);
        for (until, expected) in
            [("2026-02-01T00:00:00Z", eligible), ("2026-04-01T00:00:00Z", at("2026-04-01T00:00:00Z"))]
        {
            assert_eq!(eligible_under(Some(&hold(1, Some(until), "x")), eligible), Some(expected));
        }
    }

    #[test]
    fn an_end_is_a_time_or_the_end_of_a_day() {
        for (text, expected) in [
            ("2026-03-01", Some("2026-03-02T00:00:00Z")),
            ("2026-12-31", Some("2027-01-01T00:00:00Z")),
            ("2026-03-01T12:00:00Z", Some("2026-03-01T12:00:00Z")),
            ("2026-03-01T12:00:00+02:00", Some("2026-03-01T10:00:00Z")),
            ("2026-03-01 12:00", None),
            ("2026-02-30", None),
            ("31.12.2026", None),
            ("", None),
            ("tomorrow", None),
        ] {
            assert_eq!(read_until(text), expected.map(at), "{text:?}");
        }
    }
}
