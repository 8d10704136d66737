//! The database: whether it answers, is the primary, shows us what a proof needs, and holds the live tables; then the
//! same read that every run makes. Read only.

use std::str::FromStr as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Examination;
use super::board::{Board, Check};
use super::clocks::Reading;
use super::store::Seen;
use crate::clock::Stopwatch;
use crate::config::secrets::{Backend, DatabaseUrl};
use crate::config::{LiveTable, Scope, quote};
use crate::list::references::{self, OpenTransactions, ProvenReferences, ReferencesError};
use crate::model::{DatasetId, Timestamp, human_count};
use crate::run::failure::chain;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A transaction younger than this is everyday work, whatever the grace.
const YOUNG_TRANSACTION: chrono::Duration = chrono::Duration::minutes(1);
/// With so few ids on the first page it says nothing that none of them has a row.
const FEW_IDS: usize = 5;

/// Looks at the database for every chosen scope; gives its clock, where it has one.
pub(super) async fn look(
    examination: &Examination<'_>,
    url: &DatabaseUrl,
    scopes: &[(&Scope, Seen)],
    board: &mut Board,
) -> Option<Reading> {
    let mut server = None;
    if url.backend == Backend::Postgres {
        let (found, checks) = Server::meet(examination, url).await;
        board.extend(checks);
        // Without it, no table can be read either.
        server = Some(found?);
    }
    let mut writable = Vec::new();
    for (scope, seen) in scopes {
        // What a standby is refused for, and its missing rows, are told already.
        let mut is_readable = server.as_ref().is_none_or(|server| !server.is_standby);
        if let Some(server) = &mut server {
            for live in &scope.live {
                let (table, check) = server.table(live).await;
                is_readable &= table.is_some();
                writable.extend(table.filter(|table| table.is_writable).map(|_| live.table.to_string()));
                board.add(check.of(&scope.name));
            }
        }
        if is_readable {
            board.extend(read(examination, url, scope, seen).await.into_iter().map(|check| check.of(&scope.name)));
        }
    }
    let server = server?;
    board.add(server.rights(&writable));
    let clock = server.clock.clone();
    server.connection.close().await.ok();
    Some(clock)
}

/// A Postgres server, and what it says of itself and of our role.
struct Server {
    connection: PgConnection,
    role: String,
    is_standby: bool,
    is_superuser: bool,
    is_read_only_by_default: bool,
    clock: Reading,
}

/// What is known of a live table that can be read.
struct Table {
    is_writable: bool,
}

impl Server {
    /// Connects and asks who is there. Nothing but a session is made.
    async fn meet(examination: &Examination<'_>, url: &DatabaseUrl) -> (Option<Self>, Vec<Check>) {
        const NAME: &str = "database";
        let hint = "check ORPHAN_SWEEPER_DATABASE_URL, the password, and that the database is up and lets this host in";
        let mut connection = match connect(url).await {
            Ok(connection) => connection,
            Err(error) => return (None, vec![Check::fail(NAME, format!("{}: {}", url.shown, chain(&error)), hint)]),
        };
        let before = examination.clock.now();
        let facts = match facts(&mut connection).await {
            Ok(facts) => facts,
            Err(error) => return (None, vec![Check::fail(NAME, chain(&error), hint)]),
        };
        let clock = Reading::new("database", before, facts.time, examination.clock.now());
        let encryption = if facts.is_encrypted { "over TLS" } else { "without TLS" };
        let mut checks = vec![
            Check::ok(NAME, format!("{} answers the role `{}`, {encryption}", url.shown, facts.role)),
            of_version(facts.version, &facts.version_text),
            of_recovery(facts.is_standby),
        ];
        if facts.version < OLDEST_VERSION {
            return (None, checks);
        }
        checks.push(of_statistics(facts.sees_statistics, &facts.role));
        let server = Self {
            connection,
            role: facts.role,
            is_standby: facts.is_standby,
            is_superuser: facts.is_superuser,
            is_read_only_by_default: facts.is_read_only_by_default,
            clock,
        };
        (Some(server), checks)
    }

    /// Looks at one live table; gives it where a run could read it.
    async fn table(&mut self, live: &LiveTable) -> (Option<Table>, Check) {
        const NAME: &str = "live_table";
        let row = match describe(&mut self.connection, live).await {
            Ok(Some(row)) => row,
            Ok(None) => {
                let detail = format!("there is no table `{}`", live.table);
                let hint =
                    format!("correct `{}.table`; names are matched exactly as the database spells them", live.key);
                return (None, Check::misconfigured(NAME, detail, hint));
            }
            Err(error) => return (None, Check::fail(NAME, chain(&error), "see whether the database is well")),
        };
        if let Some(check) = self.unreadable(live, &row) {
            return (None, check);
        }
        let statement = format!("BEGIN READ ONLY; LOCK TABLE {} IN ACCESS SHARE MODE; ROLLBACK", live.table.quoted());
        if let Err(error) = execute(&mut self.connection, &statement).await {
            execute(&mut self.connection, "ROLLBACK").await.ok();
            let detail = format!("`{}` could not be locked for reading: {}", live.table, chain(&error));
            return (
                None,
                Check::fail(
                    NAME,
                    detail,
                    "see who holds it: an ALTER, TRUNCATE or VACUUM FULL may be running or waiting",
                ),
            );
        }
        let id_type: &str = row.get("id_type");
        let detail = if id_type == "uuid" {
            format!("`{}` is there and can be locked; `{}` is uuid, asked again id by id", live.table, live.id_column)
        } else {
            let how = "before each deletion the whole column is read and parsed";
            format!("`{}` is there and can be locked; `{}` is {id_type}: {how}", live.table, live.id_column)
        };
        (Some(Table { is_writable: row.get("is_writable") }), Check::ok(NAME, detail))
    }

    /// Why a run could not read the table, if it could not.
    fn unreadable(&self, live: &LiveTable, row: &PgRow) -> Option<Check> {
        const NAME: &str = "live_table";
        let (table, role) = (&live.table, quote(&self.role));
        let kind = match row.get("kind") {
            "r" | "p" | "v" => None,
            "m" => Some("a materialized view, which is as old as its last refresh"),
            "f" => Some("a foreign table, which cannot be locked"),
            _ => Some("no table"),
        };
        if let Some(kind) = kind {
            let hint = format!("write the table or view that holds the rows themselves into `{}.table`", live.key);
            return Some(Check::misconfigured(NAME, format!("`{table}` is {kind}"), hint));
        }
        if !row.get::<bool, _>("has_usage") || !row.get::<bool, _>("has_select") {
            let detail = format!("the role `{}` may not read `{table}`", self.role);
            let schema = quote(&table.schema);
            let hint =
                format!("GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {} TO {role};", table.quoted());
            return Some(Check::fail(NAME, detail, hint));
        }
        let missing: Vec<String> = row.get("missing");
        if !missing.is_empty() {
            let detail = format!("`{table}` has no column `{}`", missing.join("`, `"));
            return Some(Check::misconfigured(NAME, detail, format!("correct the columns of `{}`", live.key)));
        }
        if row.get("has_row_security") {
            let detail = format!("row security hides rows of `{table}` from the role `{}`", self.role);
            let hint = format!(
                "ALTER ROLE {role} BYPASSRLS; a row that is hidden cannot protect, so every run refuses such a table"
            );
            return Some(Check::fail(NAME, detail, hint));
        }
        None
    }

    /// Whether our role could do more than it needs.
    fn rights(&self, writable: &[String]) -> Check {
        const NAME: &str = "read_only_role";
        let hint = "give orphan-sweeper a role that can only read (README.md, \"Least privilege\")";
        if self.is_superuser {
            return Check::warn(NAME, format!("the role `{}` is a superuser", self.role), hint);
        }
        if !writable.is_empty() {
            return Check::warn(NAME, format!("the role `{}` may write {}", self.role, writable.join(", ")), hint);
        }
        let default = if self.is_read_only_by_default { ", and its sessions are read-only by default" } else { "" };
        Check::ok(NAME, format!("the role `{}` may not write the live tables{default}", self.role))
    }
}

async fn connect(url: &DatabaseUrl) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::from_str(url.url.expose_secret())?
        .application_name("orphan-sweeper doctor")
        .statement_cache_capacity(0);
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
    connecting.await.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?
}

async fn execute(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

/// The first version that can prove a read.
const OLDEST_VERSION: i32 = 140_000;

/// What a server says of itself and of our role.
#[expect(clippy::struct_excessive_bools, reason = "a row of independent answers, as the server gives them")]
struct Facts {
    version: i32,
    version_text: String,
    is_standby: bool,
    role: String,
    is_superuser: bool,
    is_read_only_by_default: bool,
    sees_statistics: bool,
    is_encrypted: bool,
    time: Timestamp,
}

async fn facts(connection: &mut PgConnection) -> Result<Facts, sqlx::Error> {
    // Asked before the session is made read-only, which would hide what the role's default is.
    let row = sqlx::query(
        "SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'), \
         pg_catalog.pg_is_in_recovery(), current_user::text, role.rolsuper, \
         pg_catalog.current_setting('default_transaction_read_only') = 'on', \
         pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
         coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false), \
         pg_catalog.clock_timestamp() \
         FROM pg_catalog.pg_roles role WHERE role.rolname = current_user",
    )
    .fetch_one(&mut *connection)
    .await?;
    execute(
        connection,
        "SET search_path = ''; SET row_security = off; SET statement_timeout = '60s'; SET lock_timeout = '2s'; \
         SET default_transaction_read_only = on",
    )
    .await?;
    Ok(Facts {
        version: row.try_get(0)?,
        version_text: row.try_get(1)?,
        is_standby: row.try_get(2)?,
        role: row.try_get(3)?,
        is_superuser: row.try_get(4)?,
        is_read_only_by_default: row.try_get(5)?,
        sees_statistics: row.try_get(6)?,
        is_encrypted: row.try_get(7)?,
        time: row.try_get(8)?,
    })
}

/// The table, its columns and our rights, as the catalogue has them; this needs no right on the table itself.
async fn describe(connection: &mut PgConnection, live: &LiveTable) -> Result<Option<PgRow>, sqlx::Error> {
    let expects = live.expects_objects.iter().map(|expects| &expects.column);
    let columns: Vec<&String> =
        std::iter::once(&live.id_column).chain(&live.created_at_column).chain(expects).collect();
    sqlx::query(
        "SELECT c.relkind::text AS kind, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS has_usage, \
         pg_catalog.has_table_privilege(c.oid, 'SELECT') AS has_select, \
         pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS is_writable, \
         pg_catalog.row_security_active(c.oid) AS has_row_security, \
         coalesce((SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a \
           WHERE a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped), '') AS id_type, \
         ARRAY(SELECT wanted FROM pg_catalog.unnest($4::text[]) wanted WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a \
           WHERE a.attrelid = c.oid AND a.attname = wanted AND a.attnum > 0 AND NOT a.attisdropped)) AS missing \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2",
    )
    .bind(&live.table.schema)
    .bind(&live.table.table)
    .bind(&live.id_column)
    .bind(columns)
    .fetch_optional(connection)
    .await
}

fn of_version(version: i32, text: &str) -> Check {
    const NAME: &str = "postgres_version";
    if version < OLDEST_VERSION {
        let detail = format!("PostgreSQL {text} is older than 14, the first that can prove a read");
        return Check::misconfigured(NAME, detail, "use PostgreSQL 14 or newer");
    }
    Check::ok(NAME, format!("PostgreSQL {text}"))
}

fn of_recovery(is_standby: bool) -> Check {
    const NAME: &str = "primary";
    if is_standby {
        let detail = "this is a standby: it may lack rows that the primary has";
        return Check::fail(NAME, detail, "point ORPHAN_SWEEPER_DATABASE_URL at the primary");
    }
    Check::ok(NAME, "this is the primary, not a standby")
}

fn of_statistics(sees_statistics: bool, role: &str) -> Check {
    const NAME: &str = "pg_read_all_stats";
    if sees_statistics {
        return Check::ok(NAME, "granted: transactions with rows that nobody sees yet are visible");
    }
    Check::fail(
        NAME,
        "not granted: an open transaction could hold rows that nobody sees yet, so every run is refused (open_transaction)",
        format!("GRANT pg_read_all_stats TO {};", quote(role)),
    )
}

/// Reads the live ids as every run does.
async fn read(examination: &Examination<'_>, url: &DatabaseUrl, scope: &Scope, seen: &Seen) -> Vec<Check> {
    let references = references::open(url, scope, examination.clock.clone());
    let listed: std::collections::HashSet<DatasetId> = seen.ids.iter().copied().collect();
    let mut live_listed = std::collections::HashSet::new();
    let stopwatch = Stopwatch::start();
    let result = references
        .read(&mut |row| {
            if listed.contains(&row.id) {
                live_listed.insert(row.id);
            }
        })
        .await;
    let proven = match result {
        Ok(proven) => proven,
        Err(error) => return vec![of_failed_read(&error)],
    };
    let mut checks = vec![of_rows(&proven, stopwatch.elapsed(), !listed.is_empty())];
    checks.extend(of_overlap(listed.len(), live_listed.len()));
    checks.extend(of_transactions(&proven, scope));
    checks
}

fn of_failed_read(error: &ReferencesError) -> Check {
    const NAME: &str = "live_rows";
    let hint = error.hint().trim_end_matches(": `orphan-sweeper doctor`");
    if error.is_configuration() {
        Check::misconfigured(NAME, chain(error), hint)
    } else {
        Check::fail(NAME, chain(error), hint)
    }
}

fn of_rows(proven: &ProvenReferences, took: Duration, has_groups: bool) -> Check {
    const NAME: &str = "live_rows";
    let tables: Vec<String> =
        proven.tables.iter().map(|table| format!("{} has {} rows", table.name, human_count(table.rows))).collect();
    let detail = format!("{}; read whole and proven in one snapshot in {} ms", tables.join(", "), took.as_millis());
    let is_some_empty = proven.tables.iter().any(|table| table.rows == 0);
    match (is_some_empty, has_groups) {
        (true, true) => Check::fail(
            NAME,
            detail,
            "an empty live table makes every dataset look orphaned, so every run refuses it (no_references): find out why",
        ),
        (true, false) => Check::warn(NAME, detail, "check that this is the right database"),
        (false, _) => Check::ok(NAME, detail),
    }
}

/// Whether bucket and database know the same ids, as far as the first page tells.
fn of_overlap(listed: usize, live: usize) -> Option<Check> {
    const NAME: &str = "overlap";
    if listed == 0 {
        return None;
    }
    let (listed_shown, live_shown) = (human_count(listed as u64), human_count(live as u64));
    let detail = format!("{live_shown} of {listed_shown} dataset ids on the first page have a row");
    let is_suspicious = live == 0 && listed > FEW_IDS;
    let hint = "check that database and bucket belong together, and `scope.live.id_column`";
    Some(if is_suspicious { Check::warn(NAME, detail, hint) } else { Check::ok(NAME, detail) })
}

/// Whether a transaction is open so long that deletion would be refused. What is hidden is a check of its own.
fn of_transactions(proven: &ProvenReferences, scope: &Scope) -> Option<Check> {
    const NAME: &str = "open_transactions";
    let since = match proven.open_transactions {
        OpenTransactions::Hidden => return None,
        OpenTransactions::Since(None) => {
            return Some(Check::ok(NAME, "none that could hold rows which nobody sees yet"));
        }
        OpenTransactions::Since(Some(since)) => since,
    };
    let (age, allowed) = (proven.database_time - since, (scope.policy.grace.span() / 2).max(YOUNG_TRANSACTION));
    let detail = format!(
        "the oldest that could hold rows which nobody sees yet is {} s old; {} s are allowed",
        age.num_seconds(),
        allowed.num_seconds()
    );
    Some(if age > allowed {
        Check::fail(
            NAME,
            detail,
            "see pg_stat_activity and pg_prepared_xacts, and end it; until then every run is refused (open_transaction)",
        )
    } else {
        Check::ok(NAME, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::super::board::State;
    use super::*;

    #[test]
    fn a_database_that_knows_none_of_many_listed_ids_is_suspicious() {
        assert!(of_overlap(0, 0).is_none());
        assert_eq!(of_overlap(5, 0).map(|check| check.state), Some(State::Ok));
        assert_eq!(of_overlap(6, 0).map(|check| check.state), Some(State::Warn));
        assert_eq!(of_overlap(1000, 1).map(|check| check.state), Some(State::Ok));
    }

    #[test]
    fn what_a_run_would_be_refused_for_fails_with_the_statement_that_helps() {
        let check = of_statistics(false, "odd\"role");
        assert_eq!(check.state, State::Fail);
        assert_eq!(check.hint.as_deref(), Some("GRANT pg_read_all_stats TO \"odd\"\"role\";"));
        assert_eq!(of_recovery(true).state, State::Fail);
        assert_eq!(of_version(130_014, "13.14").state, State::Fail);
        assert_eq!(of_version(140_000, "14.0").state, State::Ok);
    }
}
