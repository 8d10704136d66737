//! The ids that rows keep alive, with the proof that every one of them was read.
//!
//! Invariant: a fault in the listing deletes too little; a fault here would delete everything. So a read either
//! carries its proof or is an error that ends the run.

mod holds;
mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use postgres::PostgresReferences;
pub use sqlite::SqliteReferences;

use crate::clock::Clock;
use crate::config::secrets::{Backend, DatabaseUrl};
use crate::config::{HoldsSource, LiveTable, Scope, TableName};
use crate::decide::holds::Hold;
pub use crate::model::{DatabaseIdentity, LiveRow, OpenTransactions, Snapshot, TableIdentity};
use crate::model::{DatasetId, Timestamp};

/// Ids of each table that a re-check expects to find again.
pub const SENTINELS: usize = 16;

/// What was proven of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenTable {
    /// Its label in the configuration.
    pub name: String,
    /// Its rows with an id.
    pub rows: u64,
    /// Up to [`SENTINELS`] ids that it holds.
    pub sentinels: Vec<DatasetId>,
}

/// A complete read of every live table, in one snapshot of the primary.
#[derive(Debug, Clone)]
pub struct ProvenReferences {
    /// Which database it was.
    pub identity: DatabaseIdentity,
    /// The database's clock.
    pub database_time: Timestamp,
    /// Each table, in the order of the configuration.
    pub tables: Vec<ProvenTable>,
    /// What the table of protected ids says, where one is configured.
    pub holds: Vec<Hold>,
    /// Open transactions.
    pub open_transactions: OpenTransactions,
    /// Which transactions the read saw, where the database tells it.
    pub snapshot: Option<Snapshot>,
    /// The role that read, for messages.
    pub role: String,
}

/// What a re-check is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The database that the run read.
    pub identity: DatabaseIdentity,
    /// The sentinel ids of each table.
    pub sentinels: Vec<Vec<DatasetId>>,
    /// What a table without sentinels must be.
    pub without_sentinels: WithoutSentinels,
    /// Which transactions the run's read saw, where the database tells it.
    #[serde(default)]
    pub snapshot: Option<Snapshot>,
}

/// What a re-check expects of a table in which the run found nothing to recognise it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutSentinels {
    /// It was empty, and its emptiness is what it is recognised by.
    StaysEmpty,
    /// It had no other rows than those that a purge removed; others may come.
    MayFill,
}

/// A look at the live tables for a few ids, without reading every row: what a purge begins with, and is compared with.
#[derive(Debug, Clone)]
pub struct Look {
    /// What re-checks are compared with: none of the ids is a sentinel.
    pub anchor: Anchor,
    /// The database's clock.
    pub database_time: Timestamp,
    /// What rows each of the ids has, by table, in the order of the configuration.
    pub rows: Vec<BTreeMap<DatasetId, RowsOf>>,
}

/// The rows of one id in one table: at least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowsOf {
    /// How many.
    pub count: u64,
    /// When the newest of them was made, where the table tells it.
    pub newest: Option<Timestamp>,
}

impl Look {
    /// Whether any live table has a row of `id`.
    pub fn is_live(&self, id: DatasetId) -> bool {
        self.rows.iter().any(|rows| rows.get(&id).is_some_and(|rows| rows.count > 0))
    }
}

impl ProvenReferences {
    /// What later re-checks of this run are compared with.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            identity: self.identity.clone(),
            sentinels: self.tables.iter().map(|table| table.sentinels.clone()).collect(),
            without_sentinels: WithoutSentinels::StaysEmpty,
            snapshot: self.snapshot.clone(),
        }
    }
}

/// Why the rows could not be read. Each ends the run.
#[derive(Debug, thiserror::Error)]
pub enum ReferencesError {
    /// No connection.
    #[error("failed to connect to the database {shown}")]
    Connect {
        /// The address, without secrets.
        shown: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement failed.
    #[error("failed to {step}")]
    Statement {
        /// What it was for.
        step: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Something on the way dropped a setting of our transaction.
    #[error("the transaction lost `row_security = off`, so rows may be hidden")]
    SettingLost,
    /// Replays another server's changes, possibly late.
    #[error("the database is a standby: it may lack rows that the primary has")]
    Standby,
    /// A live table is of a kind that cannot be proven.
    #[error("`{key}`: `{table}` is {kind}; write the table or view that holds the rows themselves")]
    Unsuitable {
        /// The configuration's key.
        key: String,
        /// The table.
        table: TableName,
        /// What it is.
        kind: &'static str,
    },
    /// A live table is not there.
    #[error("`{key}`: there is no table `{table}` that this role can see")]
    NoTable {
        /// The configuration's key.
        key: String,
        /// The table.
        table: TableName,
    },
    /// A live id is no UUID, so nobody knows what it keeps alive.
    #[error("an id in `{table}` is no UUID: `{text}`")]
    UnreadableId {
        /// The table.
        table: TableName,
        /// The id, shortened.
        text: String,
    },
    /// A hold's end cannot be read, so nobody knows how long it protects.
    #[error("the end of a hold in `{table}` is no time: `{text}`")]
    UnreadableHold {
        /// The table.
        table: TableName,
        /// The end, shortened.
        text: String,
    },
    /// The rows that arrived are not the rows that are there.
    #[error("`{table}` has {expected} rows in this snapshot and {arrived} arrived, or others than it has")]
    Unproven {
        /// The table.
        table: TableName,
        /// Rows that the proof counted.
        expected: u64,
        /// Rows that arrived.
        arrived: u64,
    },
    /// The server is too old.
    #[error("PostgreSQL {0} is older than 14, the first that can prove a read")]
    TooOld(String),
    /// A re-check found another database or table than the run read.
    #[error("the database changed while the run was deleting: {0}")]
    Moved(String),
    /// A re-check found a row in a table that the run had found empty.
    #[error("`{table}` was empty when the run read it and has rows now")]
    NoLongerEmpty {
        /// The table.
        table: String,
    },
    /// A re-check found too few of the ids that were there.
    #[error(
        "only {found} of {asked} known ids of `{table}` are still there: the table may have been emptied or swapped"
    )]
    SentinelsGone {
        /// The table.
        table: String,
        /// Sentinels found.
        found: usize,
        /// Sentinels asked for.
        asked: usize,
    },
}

impl ReferencesError {
    /// Whether the configuration is at fault.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Unsuitable { .. } | Self::NoTable { .. } | Self::TooOld(_))
    }

    /// Whether a re-check saw another database or table than the run had read, so that its rows were not judged.
    pub fn is_another_picture(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::NoLongerEmpty { .. } | Self::SentinelsGone { .. })
    }

    /// What an operator should do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } => {
                "check ORPHAN_SWEEPER_DATABASE_URL and that the database is up: `orphan-sweeper doctor`"
            }
            Self::Statement { .. } => {
                "check the role's rights (README.md, \"Least privilege\"): `orphan-sweeper doctor`"
            }
            Self::SettingLost => "connect to the primary without a pooler in between",
            Self::Standby => "point ORPHAN_SWEEPER_DATABASE_URL at the primary",
            Self::Unsuitable { .. } | Self::NoTable { .. } => {
                "correct `scope.live.table` and `id_column`; names are matched exactly as the database spells them"
            }
            Self::UnreadableId { .. } => "correct `scope.live.id_column`, or the row",
            Self::UnreadableHold { .. } => "correct the row: a date, a time, or NULL where only a person ends the hold",
            Self::NoLongerEmpty { .. } => {
                "nothing more was deleted; make a new plan with `orphan-sweeper audit`, which compares with the new rows"
            }
            Self::Unproven { .. } => "run again; if it happens again, something filters or cuts the connection",
            Self::TooOld(_) => "use PostgreSQL 14 or newer",
            Self::Moved(_) | Self::SentinelsGone { .. } => {
                "find out what happened to the database before anything else is deleted"
            }
        }
    }
}

/// Reads the live ids, and asks again for a few of them. It has no way to write.
#[async_trait]
pub trait References: Send + Sync {
    /// Reads every live table in one snapshot and gives each row to `visit`.
    ///
    /// - Errors: [`ReferencesError`]; nothing that was visited then counts, except as a reason to keep.
    async fn read(&self, visit: &mut (dyn FnMut(LiveRow) + Send)) -> Result<ProvenReferences, ReferencesError>;

    /// Which of `ids` have a row now, asked of the primary with the proof of `anchor`.
    ///
    /// - Errors: [`ReferencesError`]; a run that gets one deletes nothing more.
    async fn recheck(&self, ids: &[DatasetId], anchor: &Anchor) -> Result<Vec<DatasetId>, ReferencesError>;

    /// Whether the primary answers at all. It reads no table.
    ///
    /// - Errors: [`ReferencesError`].
    async fn answers(&self) -> Result<(), ReferencesError> {
        Ok(())
    }

    /// Looks for the rows of `ids` in every live table, and takes what later re-checks for them are compared with.
    ///
    /// - Errors: [`ReferencesError`]; a purge that gets one removes nothing.
    async fn look(&self, ids: &[DatasetId]) -> Result<Look, ReferencesError> {
        let mut rows: Vec<BTreeMap<DatasetId, RowsOf>> = Vec::new();
        let proven = self
            .read(&mut |row| {
                rows.resize_with(rows.len().max(row.table + 1), BTreeMap::new);
                if ids.contains(&row.id) {
                    let of = rows[row.table].entry(row.id).or_default();
                    of.count += 1;
                    of.newest = of.newest.max(row.created_at);
                }
            })
            .await?;
        rows.resize_with(proven.tables.len(), BTreeMap::new);
        let mut anchor = proven.anchor();
        anchor.sentinels.iter_mut().for_each(|sentinels| sentinels.retain(|id| !ids.contains(id)));
        anchor.without_sentinels = WithoutSentinels::MayFill;
        Ok(Look { anchor, database_time: proven.database_time, rows })
    }

    /// What the table of protected ids says now; nothing where none is configured.
    ///
    /// - Errors: [`ReferencesError`]; a run that gets one deletes nothing more.
    async fn holds(&self) -> Result<Vec<Hold>, ReferencesError> {
        Ok(Vec::new())
    }
}

/// The tables that a scope reads from the database.
#[derive(Debug, Clone)]
struct Tables {
    /// Those whose rows keep ids alive.
    live: Vec<LiveTable>,
    /// The one whose rows protect ids.
    holds: Option<TableName>,
}

/// The references of `scope` in the database that an address names.
pub fn open(url: &DatabaseUrl, scope: &Scope, clock: Arc<dyn Clock>) -> Box<dyn References> {
    let holds = match &scope.holds {
        Some(HoldsSource::Table(table)) => Some(table.clone()),
        Some(HoldsSource::File(_)) | None => None,
    };
    let tables = Tables { live: scope.live.clone(), holds };
    match url.backend {
        Backend::Postgres => Box::new(PostgresReferences::new(url.clone(), tables)),
        Backend::Sqlite => Box::new(SqliteReferences::new(url.clone(), tables, clock)),
    }
}

/// Keeps the sentinels of a table: ids of the rows with the smallest hashes, which are spread over the whole table.
#[derive(Debug, Default)]
struct SentinelSample(std::collections::BTreeMap<u64, DatasetId>);

impl SentinelSample {
    fn add(&mut self, id: DatasetId) {
        // Fibonacci hashing over both halves: cheap, and neither time-ordered nor random ids bias it.
        let (high, low) = id.0.as_u64_pair();
        let hash = (high ^ low.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.0.len() == SENTINELS && self.0.last_key_value().is_some_and(|(largest, _)| hash >= *largest) {
            return;
        }
        self.0.insert(hash, id);
        if self.0.len() > SENTINELS {
            self.0.pop_last();
        }
    }

    fn into_ids(self) -> Vec<DatasetId> {
        self.0.into_values().collect()
    }
}

/// What a re-check found of one table that is to be recognised again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// Sentinels found.
    pub(crate) sentinels: usize,
    /// Whether it has a row with an id at all. Asked where the run found none; else what the sentinels say.
    pub(crate) has_rows: bool,
}

/// Compares what a re-check found with what the run read.
pub(crate) fn check_anchor(
    found: &DatabaseIdentity,
    recognised: &[Recognised],
    anchor: &Anchor,
) -> Result<(), ReferencesError> {
    if *found != anchor.identity {
        return Err(ReferencesError::Moved(format!("it was {}, it is {found}", anchor.identity)));
    }
    for ((table, found), asked) in anchor.identity.tables.iter().zip(recognised).zip(&anchor.sentinels) {
        if found.sentinels * 2 < asked.len() {
            return Err(ReferencesError::SentinelsGone {
                table: table.name.clone(),
                found: found.sentinels,
                asked: asked.len(),
            });
        }
        // An empty table has nothing to be recognised by but its emptiness.
        if asked.is_empty() && found.has_rows && anchor.without_sentinels == WithoutSentinels::StaysEmpty {
            return Err(ReferencesError::NoLongerEmpty { table: table.name.clone() });
        }
    }
    Ok(())
}

/// Reads an id as it stands in a row.
fn read_id(text: &str, table: &TableName) -> Result<DatasetId, ReferencesError> {
    DatasetId::parse_lenient(text).ok_or_else(|| {
        let shortened: String = text.chars().take(60).collect();
        ReferencesError::UnreadableId { table: table.clone(), text: crate::model::visible(&shortened) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_are_spread_and_at_most_sixteen() {
        let mut sample = SentinelSample::default();
        (0..10_000_u128).for_each(|n| sample.add(DatasetId(uuid::Uuid::from_u128(n << 64 | n))));
        let ids = sample.into_ids();
        assert_eq!(ids.len(), SENTINELS);
        let upper_half = ids.iter().filter(|id| id.0.as_u128() & 0xffff_ffff >= 5000).count();
        assert!((3..=13).contains(&upper_half), "{upper_half} of 16 lie in the upper half");
    }

    #[test]
    fn fewer_than_half_the_sentinels_end_the_run() {
        let identity = DatabaseIdentity {
            system: "1".into(),
            timeline: "1".into(),
            database: "d".into(),
            tables: vec![TableIdentity { name: "s.a".into(), oid: 1 }, TableIdentity { name: "s.b".into(), oid: 2 }],
        };
        let ids = |count: u128| (0..count).map(|n| DatasetId(uuid::Uuid::from_u128(n))).collect::<Vec<_>>();
        let without_sentinels = WithoutSentinels::StaysEmpty;
        let anchor =
            Anchor { identity: identity.clone(), sentinels: vec![ids(16), ids(3)], without_sentinels, snapshot: None };
        let check_anchor = |found: &DatabaseIdentity, sentinels: &[usize], anchor: &Anchor| {
            let recognised: Vec<_> = sentinels
                .iter()
                .map(|sentinels| Recognised { sentinels: *sentinels, has_rows: *sentinels > 0 })
                .collect();
            check_anchor(found, &recognised, anchor)
        };
        assert!(check_anchor(&identity, &[8, 2], &anchor).is_ok());
        assert!(matches!(
            check_anchor(&identity, &[7, 3], &anchor),
            Err(ReferencesError::SentinelsGone { found: 7, .. })
        ));
        assert!(matches!(
            check_anchor(&identity, &[16, 1], &anchor),
            Err(ReferencesError::SentinelsGone { found: 1, .. })
        ));
        let mut other = identity;
        other.timeline = "2".into();
        assert!(matches!(check_anchor(&other, &[16, 3], &anchor), Err(ReferencesError::Moved(_))));
    }

    #[test]
    fn an_empty_table_is_recognised_by_its_emptiness_alone() {
        let tables = vec![TableIdentity { name: "s.a".into(), oid: 1 }];
        let identity = DatabaseIdentity { system: "1".into(), timeline: "1".into(), database: "d".into(), tables };
        let check = |has_rows, without_sentinels| {
            let anchor =
                Anchor { identity: identity.clone(), sentinels: vec![Vec::new()], without_sentinels, snapshot: None };
            check_anchor(&identity, &[Recognised { sentinels: 0, has_rows }], &anchor)
        };
        assert!(check(false, WithoutSentinels::StaysEmpty).is_ok());
        assert!(matches!(check(true, WithoutSentinels::StaysEmpty), Err(ReferencesError::NoLongerEmpty { .. })));
        assert!(check(true, WithoutSentinels::MayFill).is_ok(), "what a purge emptied may have rows again");
    }
}
