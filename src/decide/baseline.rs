//! What a scan observed, and what the next one of its scope is compared with.
//!
//! Invariant: an acknowledgement moves only what its breaker is about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::breakers::Breaker;
use crate::config::Scope;
use crate::model::{DatabaseIdentity, Snapshot, TableIdentity, Timestamp};

/// Where a scope's objects are: what must stay the same between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetFingerprint {
    /// The store's address.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
    /// The templates.
    pub patterns: Vec<String>,
}

impl TargetFingerprint {
    /// The target of `scope` at `endpoint`.
    pub fn of(scope: &Scope, endpoint: &url::Url) -> Self {
        Self {
            endpoint: endpoint.to_string(),
            bucket: scope.bucket.clone(),
            prefix: scope.prefix.clone(),
            patterns: scope.templates(),
        }
    }
}

impl std::fmt::Display for TargetFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, bucket, prefix, patterns } = self;
        write!(f, "bucket `{bucket}` at {endpoint}, prefix `{prefix}`, patterns `{}`", patterns.join("`, `"))
    }
}

/// What one complete scan observed: a good one's, or an acknowledged one's, is the baseline of the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The run's time.
    pub as_of: Timestamp,
    /// Rows of each live table.
    pub rows: BTreeMap<String, u64>,
    /// Which database it was.
    pub identity: DatabaseIdentity,
    /// Which target it was.
    pub target: TargetFingerprint,
    /// The share of the rows that should have objects and were seen.
    #[serde(with = "exact")]
    pub overlap_share: Option<f64>,
    /// The largest difference between two clocks, in seconds.
    pub skew_s: i64,
    /// Which transactions of the database it saw, where that is known.
    #[serde(default)]
    pub snapshot: Option<Snapshot>,
    /// The time of `rows` and `snapshot`, where `as_of` was acknowledged alone.
    #[serde(default)]
    pub rows_as_of: Option<Timestamp>,
}

impl Observation {
    /// The time of its rows and snapshot.
    fn counted_at(&self) -> Timestamp {
        self.rows_as_of.unwrap_or(self.as_of)
    }

    /// Whether a later look at the same database, which saw `snapshot`, saw fewer transactions: it was set back to an earlier
    /// state, though nothing else tells.
    #[must_use]
    pub fn was_set_back(&self, snapshot: Option<&Snapshot>) -> bool {
        self.snapshot.as_ref().zip(snapshot).is_some_and(|(earlier, later)| later.end() < earlier.end())
    }
}

/// Rows that one committed transaction of our own `purge` removed: a person asked for it, so they are no drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgedRows {
    /// The transaction.
    pub xid: u64,
    /// The database that it ran in, with the live tables of its scope.
    pub identity: DatabaseIdentity,
    /// How many rows of each live table it removed.
    pub rows: BTreeMap<String, u64>,
    /// When rows that it was to remove were made, by table: how many for each time. Those of unknown age are not in it.
    pub made: BTreeMap<String, BTreeMap<Timestamp, u64>>,
}

impl PurgedRows {
    /// How many rows of `table` `earlier` counted and `later` did not, because of it. Where that cannot be told, nobody vouches
    /// for the drop.
    pub(super) fn fell_between(&self, earlier: &Observation, later: &Observation, table: &str) -> u64 {
        let reads = |observation: &Observation, found: &TableIdentity| {
            observation.identity.is_same_database(&self.identity) && observation.identity.tables.contains(found)
        };
        let is_read = |found: &TableIdentity| found.is_of(table) && reads(earlier, found) && reads(later, found);
        let saw = |observation: &Observation| observation.snapshot.as_ref().map(|snapshot| snapshot.saw(self.xid));
        let Some(read) = self.identity.tables.iter().find(|found| is_read(found)) else { return 0 };
        if saw(earlier) != Some(false) || saw(later) != Some(true) {
            return 0;
        }
        // Its own scope may call it otherwise.
        let table =
            [read.name.as_str(), read.table()].into_iter().find(|it| self.rows.contains_key(*it)).unwrap_or(table);
        // A row that came after the earlier scan is none that the scan counted.
        let made = self.made.get(table).into_iter().flatten();
        let later_made: u64 = made.filter(|(made, _)| **made > earlier.counted_at()).map(|(_, rows)| rows).sum();
        self.rows.get(table).copied().unwrap_or(0).saturating_sub(later_made)
    }
}

/// What a scope's next scan is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The last good or acknowledged observation.
    pub observation: Observation,
    /// An acknowledged share of seen rows, below the configured one.
    #[serde(with = "exact")]
    pub accepted_overlap: Option<f64>,
    /// An acknowledged difference of the clocks, in seconds.
    pub accepted_skew_s: Option<i64>,
    /// Live tables that a person says are really empty.
    pub accepted_empty: Vec<String>,
}

/// A share as text. A JSON number can come back with another last digit, and then a share that was acknowledged would be
/// found worse than itself.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde hands the field over like this")]
    pub fn serialize<S: Serializer>(share: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        share.map(|share| share.to_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(Error::custom)).transpose()
    }
}

impl Baseline {
    /// The baseline after a good scan: what a person accepted before stays accepted, but for a table that has rows again.
    #[must_use]
    pub fn after_good_scan(before: Option<Self>, observation: Observation) -> Self {
        let (accepted_overlap, accepted_skew_s, mut accepted_empty) = match before {
            Some(before) => (before.accepted_overlap, before.accepted_skew_s, before.accepted_empty),
            None => (None, None, Vec::new()),
        };
        accepted_empty.retain(|table| observation.rows.get(table) == Some(&0));
        Self { observation, accepted_overlap, accepted_skew_s, accepted_empty }
    }

    /// The baseline after a person acknowledged `breaker` on what `observed` saw: only what that breaker is about moves.
    #[must_use]
    pub fn after_acknowledgement(self, breaker: Breaker, observed: &Observation) -> Self {
        let mut baseline = self;
        match breaker {
            Breaker::NoReferences => {
                let empty = observed.rows.iter().filter(|(_, rows)| **rows == 0);
                baseline.observation.rows.extend(empty.clone().map(|(table, rows)| (table.clone(), *rows)));
                baseline.accepted_empty = empty.map(|(table, _)| table.clone()).collect();
            }
            Breaker::LiveDrop => {
                baseline.observation.rows.clone_from(&observed.rows);
                baseline.observation.snapshot.clone_from(&observed.snapshot);
                // The time stays, or goes back: what came after it is taken for none of these rows.
                let earlier = baseline.observation.counted_at().min(observed.counted_at());
                baseline.observation.rows_as_of = (earlier != baseline.observation.as_of).then_some(earlier);
            }
            Breaker::NoOverlap => baseline.accepted_overlap = observed.overlap_share,
            Breaker::ClockSkew => {
                baseline.accepted_skew_s = Some(observed.skew_s);
                let counted_at = baseline.observation.counted_at();
                baseline.observation.as_of = observed.as_of;
                baseline.observation.rows_as_of = (counted_at != observed.as_of).then_some(counted_at);
            }
            Breaker::DatabaseIdentity => {
                baseline.observation.identity.clone_from(&observed.identity);
                // Transactions of another database have other numbers.
                baseline.observation.snapshot = None;
            }
            Breaker::TargetChanged => baseline.observation.target.clone_from(&observed.target),
            Breaker::Incomplete
            | Breaker::OpenTransaction
            | Breaker::OrphanShare
            | Breaker::OrphanGroups
            | Breaker::Objects
            | Breaker::Bytes
            | Breaker::ForeignShare => {}
        }
        baseline
    }
}
