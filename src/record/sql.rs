//! Statements that read the same on both kinds of ledger: `SQLite` on one machine, Postgres where several share it.
//!
//! Takes a statement with `$1` placeholders and typed values; gives rows that are read by column. Invariant: no statement
//! of the ledger is written twice, so that what one kind proves holds for the other.

use std::borrow::Cow;

use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, FromRow, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use super::ledger::{RecordError, failed};
use crate::model::{DatasetId, RunId, Sha256Hash, Timestamp};

/// Where the ledger lives.
#[derive(Debug, Clone)]
pub enum Database {
    /// In a file of its own.
    Sqlite(SqlitePool),
    /// In a schema of its own.
    Postgres(PgPool),
}

/// A transaction that shuts out every other writer of the ledger. Dropped without a commit, it changes nothing.
#[derive(Debug)]
pub enum Transaction {
    /// Of a file.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    /// Of a schema.
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Begins a writing transaction on Postgres. Every setting belongs to the transaction: behind a pooler, a session's would
/// reach other clients, and not us. The advisory lock, whose number spells `orphans`, is released with it, so that no
/// pooler can strand it; it makes writers follow one another, as `BEGIN IMMEDIATE` does.
const BEGIN_WRITING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = orphan_sweeper; \
     SET LOCAL synchronous_commit = on; SET LOCAL timezone = 'UTC'; SET LOCAL lock_timeout = '20s'; SET LOCAL idle_in_transaction_session_timeout = '5min'; \
     SELECT pg_catalog.pg_advisory_xact_lock(8030604679168553729)";

/// Begins a reading transaction on Postgres, which sees one snapshot.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = orphan_sweeper; \
     SET LOCAL timezone = 'UTC'; SET LOCAL idle_in_transaction_session_timeout = '5min'";

/// Begins a transaction on Postgres that waits for no other writer: a lease is renewed while a long one goes on.
const BEGIN_BESIDE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = orphan_sweeper; \
     SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '1min'";

/// The SQL that the two kinds do not share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Of a file.
    Sqlite,
    /// Of a schema.
    Postgres,
}

impl Database {
    /// Begins a transaction that shuts out every other writer.
    pub async fn begin(&self, step: &'static str) -> Result<Transaction, RecordError> {
        match self {
            // A deferred transaction that turns writer while another writes would fail at once.
            Self::Sqlite(pool) => pool.begin_with("BEGIN IMMEDIATE").await.map(Transaction::Sqlite),
            Self::Postgres(pool) => pool.begin_with(BEGIN_WRITING).await.map(Transaction::Postgres),
        }
        .map_err(failed(step))
    }

    /// Begins a transaction that writes beside every other writer, where the kind has such.
    pub async fn begin_beside(&self, step: &'static str) -> Result<Transaction, RecordError> {
        match self {
            Self::Sqlite(_) => self.begin(step).await,
            Self::Postgres(pool) => {
                pool.begin_with(BEGIN_BESIDE).await.map(Transaction::Postgres).map_err(failed(step))
            }
        }
    }

    /// Begins a transaction that only reads, and sees one snapshot.
    pub async fn begin_reading(&self, step: &'static str) -> Result<Transaction, RecordError> {
        match self {
            Self::Sqlite(pool) => pool.begin().await.map(Transaction::Sqlite),
            Self::Postgres(pool) => pool.begin_with(BEGIN_READING).await.map(Transaction::Postgres),
        }
        .map_err(failed(step))
    }
}

impl Transaction {
    /// Which of the two it speaks.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Makes its changes durable.
    pub async fn commit(self, step: &'static str) -> Result<(), RecordError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
        .map_err(failed(step))
    }
}

/// What a statement runs on: the ledger, or a transaction of it.
#[derive(Debug)]
pub enum On<'o> {
    /// The ledger.
    Database(&'o Database),
    /// A transaction.
    Transaction(&'o mut Transaction),
}

impl<'o> From<&'o Database> for On<'o> {
    fn from(database: &'o Database) -> Self {
        Self::Database(database)
    }
}

impl<'o> From<&'o mut Transaction> for On<'o> {
    fn from(transaction: &'o mut Transaction) -> Self {
        Self::Transaction(transaction)
    }
}

/// A value that a statement is given.
#[derive(Debug, Clone)]
pub enum Value {
    /// `TEXT`.
    Text(Option<String>),
    /// `BLOB`, `BYTEA`.
    Bytes(Option<Vec<u8>>),
    /// `INTEGER`, `BIGINT`.
    Integer(Option<i64>),
    /// `INTEGER`, `BOOLEAN`.
    Boolean(bool),
    /// `TEXT` in RFC 3339, `TIMESTAMPTZ`.
    Time(Option<Timestamp>),
    /// A dataset's id: `BLOB` of sixteen bytes, `UUID`.
    Id(Option<Uuid>),
}

macro_rules! values {
    ($($type:ty => $variant:ident($convert:expr)),+ $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                let convert = $convert;
                Self::$variant(Some(convert(value)))
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )+};
}

values! {
    &str => Text(|text: &str| text.to_owned()),
    String => Text(|text| text),
    &String => Text(|text: &String| text.clone()),
    Cow<'_, str> => Text(|text: Cow<'_, str>| text.into_owned()),
    RunId => Text(|run: RunId| run.to_string()),
    Sha256Hash => Text(|hash: Sha256Hash| hash.to_string()),
    &[u8] => Bytes(|bytes: &[u8]| bytes.to_vec()),
    Vec<u8> => Bytes(|bytes| bytes),
    i64 => Integer(|number| number),
    u32 => Integer(|number: u32| i64::from(number)),
    u8 => Integer(|number: u8| i64::from(number)),
    u64 => Integer(|number: u64| i64::try_from(number).unwrap_or(i64::MAX)),
    Timestamp => Time(|time| time),
    Uuid => Id(|id| id),
    DatasetId => Id(|id: DatasetId| id.0),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

/// A statement with the step that it takes, named in its error.
#[derive(Debug)]
pub struct Statement {
    step: &'static str,
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

/// The placeholders of `rows` tuples of as many values as `columns` says: `($1, $2), ($3, $4)`.
pub fn tuples(rows: usize, columns: usize) -> String {
    let tuple = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(tuple).collect::<Vec<_>>().join(", ")
}

/// A statement with `$1` placeholders, in the SQL that both kinds share.
pub fn statement(step: &'static str, sql: impl Into<Cow<'static, str>>) -> Statement {
    Statement { step, sql: sql.into(), values: Vec::new() }
}

macro_rules! bind_all {
    ($self:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($self.sql.into_owned()));
        for value in $self.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Integer(value) => query.bind(value),
                Value::Boolean(value) => query.bind(value),
                Value::Time(value) => query.bind(value),
                Value::Id(value) => query.bind(value),
            };
        }
        query
    }};
}

type SqliteQuery = sqlx::query::Query<'static, Sqlite, SqliteArguments>;
type PostgresQuery = sqlx::query::Query<'static, Postgres, PgArguments>;

impl Statement {
    /// Gives it the next value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    fn for_sqlite(self) -> SqliteQuery {
        bind_all!(self)
    }

    /// Unnamed: named statements of an earlier client are a pooler's trap.
    fn for_postgres(self) -> PostgresQuery {
        bind_all!(self).persistent(false)
    }

    /// Runs it; says how many rows it changed.
    pub async fn run(self, on: impl Into<On<'_>>) -> Result<u64, RecordError> {
        let step = self.step;
        match on.into() {
            On::Transaction(transaction) => self.run_in(transaction).await,
            On::Database(Database::Sqlite(pool)) => {
                self.for_sqlite().execute(pool).await.map(|done| done.rows_affected()).map_err(failed(step))
            }
            On::Database(database @ Database::Postgres(_)) => {
                let mut transaction = database.begin(step).await?;
                let changed = self.run_in(&mut transaction).await?;
                transaction.commit(step).await?;
                Ok(changed)
            }
        }
    }

    async fn run_in(self, transaction: &mut Transaction) -> Result<u64, RecordError> {
        let step = self.step;
        match transaction {
            Transaction::Sqlite(transaction) => {
                self.for_sqlite().execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
            Transaction::Postgres(transaction) => {
                self.for_postgres().execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
        }
        .map_err(failed(step))
    }

    /// Its rows.
    pub async fn all(self, on: impl Into<On<'_>>) -> Result<Vec<Row>, RecordError> {
        let step = self.step;
        match on.into() {
            On::Transaction(transaction) => self.all_in(transaction).await,
            On::Database(Database::Sqlite(pool)) => {
                self.for_sqlite().fetch_all(pool).await.map(sqlite_rows).map_err(failed(step))
            }
            // A transaction also for one look: its settings, and its place behind a pooler, are the transaction's.
            On::Database(database @ Database::Postgres(_)) => {
                let mut transaction = database.begin_reading(step).await?;
                let rows = self.all_in(&mut transaction).await?;
                transaction.commit(step).await?;
                Ok(rows)
            }
        }
    }

    async fn all_in(self, transaction: &mut Transaction) -> Result<Vec<Row>, RecordError> {
        let step = self.step;
        match transaction {
            Transaction::Sqlite(transaction) => self.for_sqlite().fetch_all(&mut **transaction).await.map(sqlite_rows),
            Transaction::Postgres(transaction) => {
                self.for_postgres().fetch_all(&mut **transaction).await.map(postgres_rows)
            }
        }
        .map_err(failed(step))
    }

    /// Its first row, if it has any.
    pub async fn optional(self, on: impl Into<On<'_>>) -> Result<Option<Row>, RecordError> {
        Ok(self.all(on).await?.into_iter().next())
    }

    /// Its first row.
    ///
    /// - Errors: also where it has none.
    pub async fn one(self, on: impl Into<On<'_>>) -> Result<Row, RecordError> {
        let step = self.step;
        self.optional(on).await?.ok_or_else(|| failed(step)(sqlx::Error::RowNotFound))
    }
}

fn sqlite_rows(rows: Vec<SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

fn postgres_rows(rows: Vec<PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
}

/// A type that a column of either kind is read as.
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

impl<T> Column for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

/// A row that a statement gave.
#[derive(Debug)]
pub enum Row {
    /// Of a file.
    Sqlite(SqliteRow),
    /// Of a schema.
    Postgres(PgRow),
}

impl Row {
    /// The column of that name: `String`, `i64`, `bool`, `Vec<u8>`, [`Timestamp`], [`Uuid`], or an `Option` of one.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, RecordError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(failed("read a row"))
    }

    /// The column at that position, counted from 0.
    #[allow(dead_code, reason = "for a row whose columns have no names")]
    pub fn at<T: Column>(&self, position: usize) -> Result<T, RecordError> {
        match self {
            Self::Sqlite(row) => row.try_get(position),
            Self::Postgres(row) => row.try_get(position),
        }
        .map_err(failed("read a row"))
    }

    /// A count or a size, which is never negative.
    pub fn count(&self, column: &str) -> Result<u64, RecordError> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }

    /// The whole row, where its columns bear the names of the fields.
    pub fn read<T>(&self) -> Result<T, RecordError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        match self {
            Self::Sqlite(row) => T::from_row(row),
            Self::Postgres(row) => T::from_row(row),
        }
        .map_err(failed("read a row"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn database() -> Database {
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await;
        let database = Database::Sqlite(pool.expect("a database in memory"));
        let table = "CREATE TABLE t (a TEXT, b BLOB, c INTEGER, d INTEGER, e TEXT, f BLOB) STRICT";
        statement("make a table", table).run(&database).await.expect("a table");
        database
    }

    #[tokio::test]
    async fn every_kind_of_value_is_read_back_as_it_was_bound() {
        let database = database().await;
        let time = Timestamp::from_timestamp(1_800_000_000, 5_000).expect("in range");
        let id = Uuid::from_u128(7);
        let insert = "INSERT INTO t (a, b, c, d, e, f) VALUES ($1, $2, $3, $4, $5, $6)";
        let mut transaction = database.begin("begin").await.expect("begun");
        let insert =
            statement("insert", insert).bind("x").bind(&b"\xff"[..]).bind(3_u64).bind(true).bind(time).bind(id);
        assert_eq!(insert.run(&mut transaction).await.expect("inserted"), 1);
        transaction.commit("commit").await.expect("committed");
        let row = statement("read", "SELECT * FROM t WHERE a = $1").bind("x").one(&database).await.expect("a row");
        assert_eq!(row.get::<String>("a").expect("text"), "x");
        assert_eq!(row.get::<Vec<u8>>("b").expect("bytes"), b"\xff");
        assert_eq!(row.count("c").expect("a count"), 3);
        assert!(row.get::<bool>("d").expect("a boolean"));
        assert_eq!(row.get::<Timestamp>("e").expect("a time"), time);
        assert_eq!(row.at::<Uuid>(5).expect("an id"), id);
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_changes_nothing() {
        let database = database().await;
        let mut transaction = database.begin("begin").await.expect("begun");
        statement("insert", "INSERT INTO t (c) VALUES ($1)").bind(1_i64).run(&mut transaction).await.expect("inserted");
        drop(transaction);
        let rows = statement("read", "SELECT c FROM t").all(&database).await.expect("read");
        assert!(rows.is_empty());
        let missing = statement("read", "SELECT c FROM t").one(&database).await;
        assert!(matches!(missing, Err(RecordError::Statement { step: "read", .. })));
    }
}
