//! Live ids from Postgres: the primary, one snapshot, tables locked before it, count and XOR proven.
//!
//! The race this closes: a TRUNCATE with reload, a rewriting ALTER or a table swap shows an empty table to a snapshot
//! that was taken without the lock, and without any error.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use uuid::Uuid;

use super::{
    Anchor, DatabaseIdentity, LiveRow, Look, OpenTransactions, ProvenReferences, ProvenTable, Recognised, References,
    ReferencesError, RowsOf, SENTINELS, SentinelSample, Snapshot, TableIdentity, Tables, WithoutSentinels,
    check_anchor, holds, read_id,
};
use crate::config::secrets::DatabaseUrl;
use crate::config::{LiveTable, TableName, quote};
use crate::decide::holds::Hold;
use crate::model::{DatasetId, Timestamp};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Live ids from Postgres.
#[derive(Debug)]
pub struct PostgresReferences {
    url: DatabaseUrl,
    tables: Tables,
    /// The connection of the last re-check, kept for the next one.
    idle: tokio::sync::Mutex<Vec<PgConnection>>,
}

/// One live table as the server knows it.
struct Table<'c> {
    config: &'c LiveTable,
    oid: i64,
    has_uuid_ids: bool,
}

impl PostgresReferences {
    /// References of `tables` in the database at `url`. Nothing is connected yet.
    pub(super) fn new(url: DatabaseUrl, tables: Tables) -> Self {
        Self { url, tables, idle: tokio::sync::Mutex::new(Vec::new()) }
    }

    async fn connect(&self) -> Result<PgConnection, ReferencesError> {
        let failed = |source| ReferencesError::Connect { shown: self.url.shown.clone(), source };
        let options = PgConnectOptions::from_str(self.url.url.expose_secret())
            .map_err(failed)?
            .application_name("orphan-sweeper")
            // Named statements of an earlier client are a pooler's trap.
            .statement_cache_capacity(0);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
        let timed_out = || failed(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)));
        connecting.await.map_err(|_| timed_out())?.map_err(failed)
    }

    /// Opens the read-only transaction: tables locked, then the snapshot. A waiting ALTER queues behind our lock, and
    /// every reader behind it, so the wait for the lock and every statement are bounded.
    async fn begin<'c>(&'c self, connection: &mut PgConnection) -> Result<Vec<Table<'c>>, ReferencesError> {
        let version: i32 =
            one(connection, "read the server's version", "SELECT current_setting('server_version_num')::int").await?;
        if version < 140_000 {
            return Err(ReferencesError::TooOld(format!("{}", version / 10_000)));
        }
        // The settings belong to the transaction: behind a pooler, a session's would reach other clients, and not us.
        execute(
            connection,
            "begin a read-only transaction",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = ''; SET LOCAL row_security = off; \
             SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '2s'; \
             SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL timezone = 'UTC'",
        )
        .await?;
        // LOCK TABLE takes no snapshot; the first query after it does.
        let live = self.tables.live.iter().map(|live| (format!("{}.table", live.key), &live.table));
        let held = self.tables.holds.iter().map(|table| (holds::KEY.to_owned(), table));
        for (key, table) in live.chain(held) {
            let statement = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table.quoted());
            if let Err(error) = execute(connection, &format!("lock `{table}`"), &statement).await {
                return Err(self.explain_lock(error, key, table).await);
            }
        }
        let mut tables = Vec::with_capacity(self.tables.live.len());
        for live in &self.tables.live {
            tables.push(describe(connection, live).await?);
        }
        Ok(tables)
    }

    async fn recheck_on(
        &self,
        mut connection: PgConnection,
        ids: &[DatasetId],
        anchor: &Anchor,
    ) -> Result<Vec<DatasetId>, ReferencesError> {
        let tables = self.begin(&mut connection).await?;
        let (identity, _, _) = identify(&mut connection, &tables).await?;
        let mut live = Vec::new();
        let mut recognised = Vec::with_capacity(tables.len());
        for (table, sentinels) in tables.iter().zip(&anchor.sentinels) {
            let asked: Vec<DatasetId> = ids.iter().chain(sentinels).copied().collect();
            let found = find_in_table(&mut connection, table, &asked).await?;
            let sentinels_found = sentinels.iter().filter(|sentinel| found.contains(sentinel)).count();
            let has_rows =
                if sentinels.is_empty() { has_rows(&mut connection, table).await? } else { sentinels_found > 0 };
            recognised.push(Recognised { sentinels: sentinels_found, has_rows });
            live.extend(ids.iter().filter(|id| found.contains(id)));
        }
        execute(&mut connection, "end the transaction", "COMMIT").await?;
        check_anchor(&identity, &recognised, anchor)?;
        self.idle.lock().await.push(connection);
        Ok(live)
    }

    async fn look_on(&self, mut connection: PgConnection, ids: &[DatasetId]) -> Result<Look, ReferencesError> {
        let tables = self.begin(&mut connection).await?;
        let (identity, database_time, _) = identify(&mut connection, &tables).await?;
        let snapshot = snapshot(&mut connection).await?;
        let (mut sentinels, mut rows) = (Vec::with_capacity(tables.len()), Vec::with_capacity(tables.len()));
        for table in &tables {
            let (of_table, of_ids) = sample(&mut connection, table, ids).await?;
            sentinels.push(of_table);
            rows.push(of_ids);
        }
        execute(&mut connection, "end the transaction", "COMMIT").await?;
        self.idle.lock().await.push(connection);
        let anchor = Anchor { identity, sentinels, without_sentinels: WithoutSentinels::MayFill, snapshot };
        Ok(Look { anchor, database_time, rows })
    }

    async fn holds_on(&self, mut connection: PgConnection, table: &TableName) -> Result<Vec<Hold>, ReferencesError> {
        let tables = self.begin(&mut connection).await?;
        // A standby may not have the newest hold yet.
        identify(&mut connection, &tables).await?;
        let holds = holds::read_postgres(&mut connection, table).await?;
        execute(&mut connection, "end the transaction", "COMMIT").await?;
        self.idle.lock().await.push(connection);
        Ok(holds)
    }

    /// A lock fails with a general message where the relation is of the wrong kind: look at what it is.
    async fn explain_lock(&self, error: ReferencesError, key: String, table: &TableName) -> ReferencesError {
        let Ok(mut connection) = self.connect().await else { return error };
        let kind: Result<Option<String>, _> = sqlx::query_scalar(
            "SELECT c.relkind::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2",
        )
        .bind(&table.schema)
        .bind(&table.table)
        .fetch_optional(&mut connection)
        .await;
        let table = table.clone();
        match kind {
            Ok(None) => ReferencesError::NoTable { key, table },
            Ok(Some(kind)) => match kind_name(&kind) {
                Some(kind) => ReferencesError::Unsuitable { key, table, kind },
                None => error,
            },
            Err(_) => error,
        }
    }
}

/// What a relation is, where it cannot be proven.
fn kind_name(relkind: &str) -> Option<&'static str> {
    match relkind {
        "r" | "p" | "v" => None,
        "m" => Some("a materialized view, which is as old as its last refresh"),
        "f" => Some("a foreign table, which cannot be locked"),
        _ => Some("no table"),
    }
}

async fn describe<'c>(connection: &mut PgConnection, live: &'c LiveTable) -> Result<Table<'c>, ReferencesError> {
    let row: Option<PgRow> = sqlx::query(
        "SELECT c.oid::bigint, a.atttypid = 'uuid'::pg_catalog.regtype, c.relkind::text FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE n.nspname = $1 AND c.relname = $2",
    )
    .bind(&live.table.schema)
    .bind(&live.table.table)
    .bind(&live.id_column)
    .fetch_optional(connection)
    .await
    .map_err(|source| statement(&format!("describe `{}`", live.table), source))?;
    let (key, table) = (format!("{}.table", live.key), live.table.clone());
    let Some(row) = row else { return Err(ReferencesError::NoTable { key, table }) };
    if let Some(kind) = kind_name(row.get::<&str, _>(2)) {
        return Err(ReferencesError::Unsuitable { key, table, kind });
    }
    let Some(has_uuid_ids) = row.get::<Option<bool>, _>(1) else {
        return Err(ReferencesError::Unsuitable {
            key: format!("{}.id_column", live.key),
            table,
            kind: "without that column",
        });
    };
    Ok(Table { config: live, oid: row.get(0), has_uuid_ids })
}

/// The identity of what this transaction reads, and the database's clock.
async fn identify(
    connection: &mut PgConnection,
    tables: &[Table<'_>],
) -> Result<(DatabaseIdentity, Timestamp, String), ReferencesError> {
    let step = "identify the database";
    let shows_every_row: bool =
        one(connection, step, "SELECT pg_catalog.current_setting('row_security') = 'off'").await?;
    if !shows_every_row {
        return Err(ReferencesError::SettingLost);
    }
    let in_recovery: bool = one(connection, step, "SELECT pg_catalog.pg_is_in_recovery()").await?;
    if in_recovery {
        return Err(ReferencesError::Standby);
    }
    // The control file's timeline lags for minutes behind a promotion; the write position's does not.
    let row = sqlx::query(
        "SELECT system_identifier::text, pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8), \
         pg_catalog.current_database()::text, pg_catalog.clock_timestamp(), current_user::text FROM pg_catalog.pg_control_system()",
    )
    .fetch_one(connection)
    .await
    .map_err(|source| statement(step, source))?;
    let identity = DatabaseIdentity {
        system: row.get(0),
        timeline: row.get(1),
        database: row.get(2),
        tables: tables.iter().map(|table| TableIdentity { name: table.config.identity(), oid: table.oid }).collect(),
    };
    Ok((identity, row.get(3), row.get(4)))
}

async fn open_transactions(connection: &mut PgConnection) -> Result<OpenTransactions, ReferencesError> {
    let step = "look for open transactions";
    let may_see: bool =
        one(connection, step, "SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')").await?;
    if !may_see {
        return Ok(OpenTransactions::Hidden);
    }
    let oldest: Option<Timestamp> = one(
        connection,
        step,
        "SELECT pg_catalog.min(since) FROM (\
           SELECT xact_start AS since FROM pg_catalog.pg_stat_activity \
             WHERE backend_xid IS NOT NULL AND datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() \
           UNION ALL SELECT prepared FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()) AS open",
    )
    .await?;
    Ok(OpenTransactions::Since(oldest))
}

/// The expression that gives when a row was made; NULL where that is not known.
fn created_at(live: &LiveTable) -> String {
    live.created_at_column.as_ref().map_or("NULL::timestamptz".to_owned(), |column| {
        let column = quote(column);
        format!("CASE WHEN pg_catalog.isfinite({column}::timestamptz) THEN {column}::timestamptz END")
    })
}

/// Streams one table and proves that what arrived is what is there.
async fn read_table(
    connection: &mut PgConnection,
    table: &Table<'_>,
    index: usize,
    visit: &mut (dyn FnMut(LiveRow) + Send),
) -> Result<ProvenTable, ReferencesError> {
    let LiveTable { table: name, id_column, expects_objects, .. } = table.config;
    let (from, id) = (name.quoted(), quote(id_column));
    let step = format!("read `{name}`");
    let failed = |source| statement(&step, source);
    let proof = format!(
        "SELECT pg_catalog.count({id}), pg_catalog.coalesce(pg_catalog.bit_xor(pg_catalog.hashtextextended({id}::text, 0)), 0) FROM {from}"
    )
    .replace("pg_catalog.coalesce", "coalesce");
    let (expected, expected_xor): (i64, i64) =
        sqlx::query_as(AssertSqlSafe(proof)).persistent(false).fetch_one(&mut *connection).await.map_err(failed)?;

    let created = created_at(table.config);
    let expects = expects_objects.as_ref().map_or("true".to_owned(), |expects| {
        format!("coalesce({}::text = ANY($1::text[]), false)", quote(&expects.column))
    });
    let unused = if expects_objects.is_none() { " AND $1::text[] IS NOT NULL" } else { "" };
    let shown_id = if table.has_uuid_ids { id.clone() } else { format!("{id}::text") };
    let select = format!(
        "SELECT {shown_id}, pg_catalog.hashtextextended({id}::text, 0), {created}, {expects} FROM {from} WHERE {id} IS NOT NULL{unused}"
    );
    let values: Vec<String> = expects_objects.as_ref().map_or(Vec::new(), |expects| expects.values.clone());
    let (mut arrived, mut xor, mut sentinels) = (0_u64, 0_i64, SentinelSample::default());
    let query = sqlx::query(AssertSqlSafe(select)).persistent(false).bind(values);
    let mut rows = query.fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let id = if table.has_uuid_ids {
            DatasetId(row.try_get::<Uuid, _>(0).map_err(failed)?)
        } else {
            read_id(row.try_get(0).map_err(failed)?, name)?
        };
        xor ^= row.try_get::<i64, _>(1).map_err(failed)?;
        arrived += 1;
        sentinels.add(id);
        visit(LiveRow {
            id,
            table: index,
            created_at: row.try_get(2).map_err(failed)?,
            expects_objects: row.try_get(3).map_err(failed)?,
        });
    }
    drop(rows);
    let expected = u64::try_from(expected).unwrap_or(0);
    if arrived != expected || xor != expected_xor {
        return Err(ReferencesError::Unproven { table: name.clone(), expected, arrived });
    }
    Ok(ProvenTable { name: table.config.label.clone(), rows: arrived, sentinels: sentinels.into_ids() })
}

/// Whether the table has a row with an id.
async fn has_rows(connection: &mut PgConnection, table: &Table<'_>) -> Result<bool, ReferencesError> {
    let (name, id) = (&table.config.table, quote(&table.config.id_column));
    let select = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {id} IS NOT NULL)", name.quoted());
    sqlx::query_scalar(AssertSqlSafe(select))
        .persistent(false)
        .fetch_one(connection)
        .await
        .map_err(|source| statement(&format!("ask `{name}` again"), source))
}

/// Which of `asked` the table holds now.
async fn find_in_table(
    connection: &mut PgConnection,
    table: &Table<'_>,
    asked: &[DatasetId],
) -> Result<Vec<DatasetId>, ReferencesError> {
    let (name, id) = (&table.config.table, quote(&table.config.id_column));
    let step = format!("ask `{name}` again");
    let failed = |source| statement(&step, source);
    if table.has_uuid_ids {
        let asked: Vec<Uuid> = asked.iter().map(|id| id.0).collect();
        let select = format!("SELECT DISTINCT {id} FROM {} WHERE {id} = ANY($1)", name.quoted());
        let found: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(select))
            .persistent(false)
            .bind(asked)
            .fetch_all(connection)
            .await
            .map_err(failed)?;
        return Ok(found.into_iter().map(DatasetId).collect());
    }
    // Another type may spell an id in many ways, which no comparison in the database covers.
    let select = format!("SELECT {id}::text FROM {} WHERE {id} IS NOT NULL", name.quoted());
    let wanted: std::collections::HashSet<DatasetId> = asked.iter().copied().collect();
    let mut found = std::collections::HashSet::new();
    let mut rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(select)).persistent(false).fetch(connection);
    while let Some(text) = rows.try_next().await.map_err(failed)? {
        let id = read_id(&text, name)?;
        if wanted.contains(&id) {
            found.insert(id);
        }
    }
    Ok(found.into_iter().collect())
}

/// Up to [`SENTINELS`] ids of the table that are none of `ids`, and what rows each of `ids` has.
async fn sample(
    connection: &mut PgConnection,
    table: &Table<'_>,
    ids: &[DatasetId],
) -> Result<(Vec<DatasetId>, BTreeMap<DatasetId, RowsOf>), ReferencesError> {
    let (name, id) = (&table.config.table, quote(&table.config.id_column));
    let step = format!("look into `{name}`");
    let failed = |source| statement(&step, source);
    let (from, created) = (name.quoted(), created_at(table.config));
    let (mut sentinels, mut rows) = (Vec::new(), BTreeMap::new());
    if table.has_uuid_ids {
        let asked: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let others = format!("SELECT {id} FROM {from} WHERE {id} <> ALL($1) LIMIT {SENTINELS}");
        let others = sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(others)).persistent(false).bind(&asked);
        sentinels.extend(others.fetch_all(&mut *connection).await.map_err(failed)?.into_iter().map(DatasetId));
        let counts = format!(
            "SELECT {id}, pg_catalog.count(*), pg_catalog.max({created}) FROM {from} WHERE {id} = ANY($1) GROUP BY {id}"
        );
        let counts = sqlx::query_as::<_, (Uuid, i64, Option<Timestamp>)>(AssertSqlSafe(counts));
        for (id, count, newest) in counts.persistent(false).bind(&asked).fetch_all(connection).await.map_err(failed)? {
            rows.insert(DatasetId(id), RowsOf { count: u64::try_from(count).unwrap_or(0), newest });
        }
        return Ok((sentinels, rows));
    }
    // Another type may spell an id in many ways, which no comparison in the database covers.
    let select = format!("SELECT {id}::text, {created} FROM {from} WHERE {id} IS NOT NULL");
    let select = sqlx::query_as::<_, (String, Option<Timestamp>)>(AssertSqlSafe(select));
    let mut found = select.persistent(false).fetch(connection);
    while let Some((text, created)) = found.try_next().await.map_err(failed)? {
        let id = read_id(&text, name)?;
        if ids.contains(&id) {
            let of: &mut RowsOf = rows.entry(id).or_default();
            of.count += 1;
            of.newest = of.newest.max(created);
        } else if sentinels.len() < SENTINELS {
            sentinels.push(id);
        }
    }
    Ok((sentinels, rows))
}

/// Which transactions this one sees.
async fn snapshot(connection: &mut PgConnection) -> Result<Option<Snapshot>, ReferencesError> {
    let text: String = one(connection, "read the snapshot", "SELECT pg_catalog.pg_current_snapshot()::text").await?;
    Ok(Snapshot::parse(&text))
}

#[async_trait]
impl References for PostgresReferences {
    async fn read(&self, visit: &mut (dyn FnMut(LiveRow) + Send)) -> Result<ProvenReferences, ReferencesError> {
        let mut connection = self.connect().await?;
        let tables = self.begin(&mut connection).await?;
        let (identity, database_time, role) = identify(&mut connection, &tables).await?;
        let open_transactions = open_transactions(&mut connection).await?;
        let snapshot = snapshot(&mut connection).await?;
        let mut proven = Vec::with_capacity(tables.len());
        for (index, table) in tables.iter().enumerate() {
            proven.push(read_table(&mut connection, table, index, visit).await?);
        }
        let holds = match &self.tables.holds {
            Some(table) => holds::read_postgres(&mut connection, table).await?,
            None => Vec::new(),
        };
        execute(&mut connection, "end the transaction", "COMMIT").await?;
        connection.close().await.ok();
        Ok(ProvenReferences { identity, database_time, tables: proven, holds, open_transactions, snapshot, role })
    }

    async fn recheck(&self, ids: &[DatasetId], anchor: &Anchor) -> Result<Vec<DatasetId>, ReferencesError> {
        let idle = self.idle.lock().await.pop();
        if let Some(connection) = idle {
            match self.recheck_on(connection, ids, anchor).await {
                // An idle connection may have been ended by the server: that says nothing about the rows.
                Err(ReferencesError::Statement { .. }) => {}
                answer => return answer,
            }
        }
        let connection = self.connect().await?;
        self.recheck_on(connection, ids, anchor).await
    }

    async fn answers(&self) -> Result<(), ReferencesError> {
        let mut connection = self.connect().await?;
        let is_standby: bool =
            one(&mut connection, "ask whether it is a standby", "SELECT pg_catalog.pg_is_in_recovery()").await?;
        connection.close().await.ok();
        if is_standby { Err(ReferencesError::Standby) } else { Ok(()) }
    }

    async fn look(&self, ids: &[DatasetId]) -> Result<Look, ReferencesError> {
        let idle = self.idle.lock().await.pop();
        if let Some(connection) = idle {
            match self.look_on(connection, ids).await {
                // As for a re-check: an idle connection may have been ended by the server.
                Err(ReferencesError::Statement { .. }) => {}
                answer => return answer,
            }
        }
        let connection = self.connect().await?;
        self.look_on(connection, ids).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, ReferencesError> {
        let Some(table) = &self.tables.holds else { return Ok(Vec::new()) };
        let idle = self.idle.lock().await.pop();
        if let Some(connection) = idle {
            match self.holds_on(connection, table).await {
                // As for a re-check: an idle connection may have been ended by the server.
                Err(ReferencesError::Statement { .. }) => {}
                answer => return answer,
            }
        }
        let connection = self.connect().await?;
        self.holds_on(connection, table).await
    }
}

async fn execute(connection: &mut PgConnection, step: &str, sql: &str) -> Result<(), ReferencesError> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|source| statement(step, source))
}

async fn one<T>(connection: &mut PgConnection, step: &str, sql: &'static str) -> Result<T, ReferencesError>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sql).persistent(false).fetch_one(connection).await.map_err(|source| statement(step, source))
}

fn statement(step: &str, source: sqlx::Error) -> ReferencesError {
    ReferencesError::Statement { step: step.to_owned(), source }
}
