//! The ledger's schema in Postgres: connected to, made where the role may, brought forward.
//!
//! Every step is a transaction with unnamed statements, so that it works behind a pooler too. Invariant: where a ledger must be
//! there already, nothing is made.

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};

use super::ledger::{Absence, RecordError};
use super::sql::{Database, Transaction, statement};
use crate::config::secrets::DatabaseUrl;

static MIGRATOR: Migrator = sqlx::migrate!("src/record/migrations/postgres");

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections of one process: the run's, its readers', and the one that renews its lease.
const CONNECTIONS: u32 = 4;

const STEP: &str = "migrate";

/// Connects to the ledger at `url`, and makes or migrates its schema.
///
/// - Errors: [`RecordError::Absent`] where there is none and none is to be made.
pub(super) async fn open(url: &DatabaseUrl, absence: Absence) -> Result<PgPool, RecordError> {
    let failed = |source| RecordError::Open { place: url.shown.clone(), source };
    let options = PgConnectOptions::from_str(url.url.expose_secret())
        .map_err(failed)?
        .application_name("orphan-sweeper ledger")
        .statement_cache_capacity(0);
    // Once without the pool, which would try again and again and then tell of the time only.
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
    let timed_out = |_| failed(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)));
    let first = connecting.await.map_err(timed_out)?.map_err(failed)?;
    first.close().await.ok();
    let role = options.get_username().to_owned();
    let pool =
        PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options);
    migrate(&Database::Postgres(pool.clone()), url, absence, &role).await?;
    Ok(pool)
}

async fn migrate(database: &Database, url: &DatabaseUrl, absence: Absence, role: &str) -> Result<(), RecordError> {
    let place = || url.shown.clone();
    let found = "SELECT CAST(current_setting('server_version_num') AS BIGINT) / 10000 AS version, \
                 to_regnamespace('orphan_sweeper') IS NOT NULL AS has_schema, \
                 to_regclass('orphan_sweeper.meta') IS NOT NULL AS is_there";
    let row = statement(STEP, found).one(database).await?;
    let version: i64 = row.get("version")?;
    if version < 14 {
        return Err(RecordError::TooOld { place: place(), version });
    }
    let is_there: bool = row.get("is_there")?;
    if !is_there && absence == Absence::Refuse {
        return Err(RecordError::Absent(place()));
    }
    if is_there && applied(&mut database.begin_reading(STEP).await?, url).await? == MIGRATOR.iter().count() {
        return Ok(());
    }
    let mut transaction = database.begin(STEP).await?;
    let has_schema: bool = row.get("has_schema")?;
    if !has_schema {
        // Another process may have made it since.
        run(&mut transaction, "CREATE SCHEMA IF NOT EXISTS orphan_sweeper")
            .await
            .map_err(|source| RecordError::Schema { place: place(), role: role.to_owned(), source })?;
    }
    let failed = |source| RecordError::Migrate { place: place(), source: MigrateError::Execute(source) };
    run(
        &mut transaction,
        "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)",
    )
    .await
    .map_err(failed)?;
    let applied = applied(&mut transaction, url).await?;
    for migration in MIGRATOR.iter().skip(applied) {
        let failed = |source| RecordError::Migrate {
            place: place(),
            source: MigrateError::ExecuteMigration(source, migration.version),
        };
        run(&mut transaction, migration.sql.as_str()).await.map_err(failed)?;
        let note = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                    VALUES ($1, $2, true, $3, 0)";
        statement(STEP, note)
            .bind(migration.version)
            .bind(migration.description.clone())
            .bind(&*migration.checksum)
            .run(&mut transaction)
            .await?;
    }
    transaction.commit(STEP).await
}

/// How many of our migrations were applied, which are the first ones.
///
/// - Errors: [`RecordError::Newer`] where others were.
async fn applied(transaction: &mut Transaction, url: &DatabaseUrl) -> Result<usize, RecordError> {
    let rows =
        statement(STEP, "SELECT version, checksum FROM _sqlx_migrations ORDER BY version").all(transaction).await?;
    let mut ours = MIGRATOR.iter();
    for row in &rows {
        let (version, checksum): (i64, Vec<u8>) = (row.get("version")?, row.get("checksum")?);
        let is_ours = ours.next().is_some_and(|ours| ours.version == version && *ours.checksum == *checksum);
        if !is_ours {
            return Err(RecordError::Newer(url.shown.clone()));
        }
    }
    Ok(rows.len())
}

/// Runs a script.
async fn run(transaction: &mut Transaction, script: &str) -> Result<(), sqlx::Error> {
    match transaction {
        Transaction::Postgres(transaction) => {
            sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut **transaction).await.map(drop)
        }
        Transaction::Sqlite(_) => Err(sqlx::Error::InvalidArgument("a schema is of Postgres".into())),
    }
}
