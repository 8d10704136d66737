//! The platform's own rows: found, locked and removed in one transaction, where a person asks for it.
//!
//! Takes the statements of `[scope.purge]` and the address of their role; gives what stood in the rows, and whether the
//! transaction committed. Invariant: each statement changes exactly the rows that were locked and counted before, or the
//! transaction is rolled back; what is dropped without a commit changes nothing.

mod check;
pub mod scratch;

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use uuid::Uuid;

use crate::config::secrets::DatabaseUrl;
use crate::config::{Purge, quote};
use crate::model::{DatabaseIdentity, DatasetId};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The platform's database, by the role that may remove rows.
pub struct Platform<'p> {
    url: DatabaseUrl,
    purge: &'p Purge,
}

/// Why rows could not be removed. Nothing was changed then, but where the end of the transaction is not known.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No connection.
    #[error("failed to connect to the platform's database {shown}")]
    Connect {
        /// The address, without secrets.
        shown: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement of the configuration failed.
    #[error("`scope.purge.statements.{key}` failed")]
    Configured {
        /// The statement's key.
        key: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement of our own failed.
    #[error("failed to {step} in the platform's database")]
    Statement {
        /// What it was for.
        step: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement gave other columns than it must.
    #[error("`scope.purge.statements.{key}` gives no {column} as its column {place}")]
    Column {
        /// The statement's key.
        key: &'static str,
        /// What the column is.
        column: &'static str,
        /// Its place, counted from 1.
        place: usize,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement changed other rows than were locked before it.
    #[error("`scope.purge.statements.{key}` changed {changed} rows where {expected} were found; nothing was changed")]
    OtherRows {
        /// The statement's key.
        key: &'static str,
        /// Rows that it changed.
        changed: u64,
        /// Rows that it was to change.
        expected: u64,
    },
    /// A statement of a self-test failed.
    #[error("`scope.selftest.statements.{key}` failed")]
    Scratch {
        /// The statement's key.
        key: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement of a self-test inserted other than one row.
    #[error("`scope.selftest.statements.{key}` inserted {inserted} rows where one was meant; nothing was changed")]
    NotOneRow {
        /// The statement's key.
        key: &'static str,
        /// Rows that it inserted.
        inserted: u64,
    },
    /// It is not the database that says what is live.
    #[error("the purge's role is connected to {found}, the live ids are read from {expected}")]
    Elsewhere {
        /// Where the role is.
        found: String,
        /// Where the live ids are.
        expected: String,
    },
    /// Replays another server's changes.
    #[error("the platform's database is a standby")]
    Standby,
}

impl PlatformError {
    /// Whether the transaction lost against another one and may be tried again.
    pub fn is_worth_another_try(&self) -> bool {
        let (Self::Configured { source, .. } | Self::Statement { source, .. }) = self else { return false };
        let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // A deadlock, or a serialization failure.
        matches!(code.as_deref(), Some("40P01" | "40001"))
    }

    /// What an operator should do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } => {
                "check ORPHAN_SWEEPER_PURGE_DATABASE_URL and that the database is up: `orphan-sweeper doctor`"
            }
            Self::Configured { .. } | Self::Column { .. } | Self::OtherRows { .. } => {
                "correct the statement in `[scope.purge.statements]`, or the rights of its role: `orphan-sweeper doctor`"
            }
            Self::Scratch { .. } | Self::NotOneRow { .. } => {
                "correct the statement in `[scope.selftest.statements]`, or the rights of its role (config.toml of the project)"
            }
            Self::Statement { .. } => "check the rights of the purge's role: `orphan-sweeper doctor`",
            Self::Elsewhere { .. } => {
                "point ORPHAN_SWEEPER_PURGE_DATABASE_URL and ORPHAN_SWEEPER_DATABASE_URL at the same database"
            }
            Self::Standby => "point ORPHAN_SWEEPER_PURGE_DATABASE_URL at the primary",
        }
    }
}

/// The row of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetRow {
    /// Its id.
    pub id: DatasetId,
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
}

/// The row of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its status.
    pub status: String,
    /// Its type.
    pub job_type: String,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It committed.
    Committed,
    /// It did not.
    Aborted,
    /// Its session may still be there.
    InProgress,
    /// Nobody can tell any more: the number is too old, or of another database.
    Unknown,
}

/// A table and how many rows of it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependentRows {
    /// The table.
    pub table: String,
    /// Its rows.
    pub rows: u64,
}

impl<'p> Platform<'p> {
    /// The platform at `url`, with the statements of `purge`. Nothing is connected yet.
    pub fn new(url: DatabaseUrl, purge: &'p Purge) -> Self {
        Self { url, purge }
    }

    async fn connect(&self) -> Result<PgConnection, PlatformError> {
        let failed = |source| PlatformError::Connect { shown: self.url.shown.clone(), source };
        let options = PgConnectOptions::from_str(self.url.url.expose_secret())
            .map_err(failed)?
            .application_name("orphan-sweeper purge")
            // Named statements of an earlier client are a pooler's trap.
            .statement_cache_capacity(0);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
        let timed_out = || failed(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)));
        connecting.await.map_err(|_| timed_out())?.map_err(failed)
    }

    /// Begins a transaction on the primary. What it locks it holds until its end.
    pub async fn begin(&self) -> Result<Change<'p>, PlatformError> {
        let mut connection = self.connect().await?;
        // A caller who waits for another's lock finds the row gone then, so the wait is longer than a purge takes.
        sqlx::raw_sql(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = ''; SET LOCAL row_security = off; \
             SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '10min'; \
             SET LOCAL idle_in_transaction_session_timeout = '5min'",
        )
        .execute(&mut connection)
        .await
        .map_err(failed("begin a transaction"))?;
        Ok(Change { connection, purge: self.purge })
    }

    /// What became of transaction `xid` of the database `identity`.
    pub async fn fate_of(&self, xid: u64, identity: &DatabaseIdentity) -> Result<Fate, PlatformError> {
        const STEP: &str = "ask what became of a transaction";
        let mut change = self.begin().await?;
        match change.check_place(identity).await {
            // A number of another database, or of before a recovery, says nothing.
            Err(PlatformError::Elsewhere { .. }) => return Ok(Fate::Unknown),
            place => place?,
        }
        let fate = sqlx::query_scalar::<_, Option<String>>("SELECT pg_catalog.pg_xact_status($1::xid8)")
            .persistent(false)
            .bind(xid.to_string())
            .fetch_one(&mut change.connection)
            .await;
        match fate.as_ref().map(Option::as_deref) {
            Ok(Some("committed")) => Ok(Fate::Committed),
            Ok(Some("aborted")) => Ok(Fate::Aborted),
            Ok(Some("in progress")) => Ok(Fate::InProgress),
            Ok(_) => Ok(Fate::Unknown),
            // A number that is still to come: the database was set back.
            Err(error) if is_invalid_parameter(error) => Ok(Fate::Unknown),
            Err(_) => fate.map(|_| Fate::Unknown).map_err(failed(STEP)),
        }
    }
}

fn is_invalid_parameter(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("22023")
}

fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> PlatformError {
    move |source| PlatformError::Statement { step, source }
}

fn column<'r, T>(row: &'r PgRow, key: &'static str, place: usize, column: &'static str) -> Result<T, PlatformError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(place - 1).map_err(|source| PlatformError::Column { key, column, place, source })
}

/// A transaction of the platform. Dropped without a commit, it changes nothing.
pub struct Change<'p> {
    connection: PgConnection,
    purge: &'p Purge,
}

impl Change<'_> {
    /// The transaction must run on the primary of the database that says what is live.
    ///
    /// - Errors: [`PlatformError::Elsewhere`], [`PlatformError::Standby`].
    pub async fn check_place(&mut self, live: &DatabaseIdentity) -> Result<(), PlatformError> {
        const STEP: &str = "identify the database";
        let is_standby: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()")
            .persistent(false)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed(STEP))?;
        if is_standby {
            return Err(PlatformError::Standby);
        }
        let (system, timeline, database): (String, String, String) = sqlx::query_as(
            "SELECT system_identifier::text, pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8), \
             pg_catalog.current_database()::text FROM pg_catalog.pg_control_system()",
        )
        .persistent(false)
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed(STEP))?;
        if (&system, &timeline, &database) == (&live.system, &live.timeline, &live.database) {
            return Ok(());
        }
        let found = DatabaseIdentity { system, timeline, database, tables: Vec::new() };
        Err(PlatformError::Elsewhere { found: found.to_string(), expected: live.to_string() })
    }

    async fn rows(&mut self, key: &'static str, sql: &str, id: Uuid) -> Result<Vec<PgRow>, PlatformError> {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .persistent(false)
            .bind(id)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| PlatformError::Configured { key, source })
    }

    /// Runs a statement that must change `expected` rows.
    async fn change(&mut self, key: &'static str, sql: &str, id: Uuid, expected: u64) -> Result<(), PlatformError> {
        let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .persistent(false)
            .bind(id)
            .execute(&mut self.connection)
            .await
            .map_err(|source| PlatformError::Configured { key, source })?;
        let changed = done.rows_affected();
        if changed == expected { Ok(()) } else { Err(PlatformError::OtherRows { key, changed, expected }) }
    }

    /// Locks the row of a dataset; none where it is gone.
    pub async fn dataset(&mut self, id: DatasetId) -> Result<Option<DatasetRow>, PlatformError> {
        const KEY: &str = "find_dataset";
        let rows = self.rows(KEY, &self.purge.statements.find_dataset, id.0).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let kind: Option<String> = column(row, KEY, 1, "type")?;
        let name: Option<String> = column(row, KEY, 3, "name")?;
        Ok(Some(DatasetRow { id, kind: kind.unwrap_or_default(), name }))
    }

    /// The names of the active models that use a dataset. The names are locked where the statement locks them.
    pub async fn active_models(&mut self, id: DatasetId) -> Result<Vec<String>, PlatformError> {
        const KEY: &str = "active_models";
        let rows = self.rows(KEY, &self.purge.statements.active_models, id.0).await?;
        let name = |row| Ok(column::<Option<String>>(row, KEY, 1, "name")?.unwrap_or_default());
        rows.iter().map(name).collect()
    }

    /// Removes the row of a dataset, and with it whatever falls with it.
    pub async fn delete_dataset(&mut self, id: DatasetId) -> Result<(), PlatformError> {
        self.change("delete_dataset", &self.purge.statements.delete_dataset, id.0, 1).await
    }

    /// Locks the row of a job; none where it is gone.
    pub async fn job(&mut self, id: Uuid) -> Result<Option<JobRow>, PlatformError> {
        const KEY: &str = "find_job";
        let rows = self.rows(KEY, &self.purge.statements.find_job, id).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let text = |place, name| Ok(column::<Option<String>>(row, KEY, place, name)?.unwrap_or_default());
        Ok(Some(JobRow { status: text(1, "status")?, job_type: text(2, "type")? }))
    }

    /// Locks the rows of the datasets that a job made.
    pub async fn datasets_of_job(&mut self, job: Uuid) -> Result<Vec<DatasetRow>, PlatformError> {
        const KEY: &str = "job_datasets";
        let rows = self.rows(KEY, &self.purge.statements.job_datasets, job).await?;
        let read = |row| {
            let kind: Option<String> = column(row, KEY, 2, "type")?;
            let id = DatasetId(column(row, KEY, 1, "UUID")?);
            Ok(DatasetRow { id, kind: kind.unwrap_or_default(), name: column(row, KEY, 3, "name")? })
        };
        rows.iter().map(read).collect()
    }

    /// Sets a job to cancelled.
    pub async fn cancel_job(&mut self, job: Uuid) -> Result<(), PlatformError> {
        self.change("cancel_job", &self.purge.statements.cancel_job, job, 1).await
    }

    /// Lets the `datasets` of a job, which were locked, stay without it.
    pub async fn detach_datasets(&mut self, job: Uuid, datasets: u64) -> Result<(), PlatformError> {
        self.change("detach_datasets", &self.purge.statements.detach_datasets, job, datasets).await
    }

    /// Removes the row of a job.
    pub async fn delete_job(&mut self, job: Uuid) -> Result<(), PlatformError> {
        self.change("delete_job", &self.purge.statements.delete_job, job, 1).await
    }

    /// How many rows fall with a dataset, by table.
    pub async fn dependent_rows(&mut self, id: DatasetId) -> Result<Vec<DependentRows>, PlatformError> {
        let mut counted = Vec::with_capacity(self.purge.dependents.len());
        for dependent in &self.purge.dependents {
            let (table, column) = (dependent.table.quoted(), quote(&dependent.column));
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
                "SELECT pg_catalog.count(*) FROM {table} WHERE {column} = $1"
            )))
            .persistent(false)
            .bind(id.0)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("count what falls with a dataset"))?;
            counted.push(DependentRows { table: dependent.table.to_string(), rows: u64::try_from(rows).unwrap_or(0) });
        }
        Ok(counted)
    }

    /// The number of this transaction, which tells later whether it committed.
    pub async fn xid(&mut self) -> Result<u64, PlatformError> {
        const STEP: &str = "number the transaction";
        let text: String = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::text")
            .persistent(false)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed(STEP))?;
        text.parse().map_err(|_| failed(STEP)(sqlx::Error::Decode("a transaction's number is none".into())))
    }

    /// Commits.
    ///
    /// - Errors: [`PlatformError`]; whether it committed is not known then.
    pub async fn commit(mut self) -> Result<(), PlatformError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(failed("commit"))?;
        self.connection.close().await.ok();
        Ok(())
    }

    /// Gives everything back unchanged.
    pub async fn roll_back(mut self) {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.ok();
        self.connection.close().await.ok();
    }
}
