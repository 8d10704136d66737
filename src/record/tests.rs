use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use proptest::prelude::*;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use uuid::Uuid;

use super::sql::{Database, Row, statement};
use super::*;
use crate::config::secrets::{Backend, DatabaseUrl, LedgerPlace};
use crate::decide::breakers::{Allowance, Allowances, Baseline, Breaker, Observation, TargetFingerprint};
use crate::decide::sightings::Sighting;
use crate::model::{DatabaseIdentity, DatasetId, Object, ObjectKey, RunId, Sha256Hash, Timestamp};
use crate::plan::{DeletePlan, PLAN_VERSION, PlanLedger, PlanPolicy, PlanTarget, PlanTotals};

const SCOPE: &str = "synthetic";
const OTHER: &str = "other";

fn at(seconds: i64) -> Timestamp {
    // Postgres counts whole microseconds.
    Timestamp::from_timestamp(1_800_000_000 + seconds, 123_456_000).expect("in range")
}

fn run(n: u128) -> RunId {
    RunId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + n))
}

fn id(n: u128) -> DatasetId {
    DatasetId(Uuid::from_u128(0xd000_0000_0000_0000_0000_0000_0000_0000 + n))
}

fn hash(n: u8) -> Sha256Hash {
    Sha256Hash([n; 32])
}

/// A kind of ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Schema,
}

impl Kind {
    /// The kind that a reading of the suite is about, by the module's path.
    const fn of(module: &str) -> Self {
        let (module, name) = (module.as_bytes(), b"::on_postgres");
        let mut position = 0;
        while position + name.len() <= module.len() {
            let mut matching = 0;
            while matching < name.len() && module[position + matching] == name[matching] {
                matching += 1;
            }
            if matching == name.len() {
                return Self::Schema;
            }
            position += 1;
        }
        Self::File
    }
}

/// A ledger in a folder or a database of its own.
struct Book {
    folder: TempDir,
    ledger: Ledger,
    place: LedgerPlace,
}

/// Databases that no test uses just now.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl std::ops::Deref for Book {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        if let LedgerPlace::Database(url) = &self.place {
            FREE.lock().push(url.shown.clone());
        }
    }
}

/// A database without a row of a ledger; none where no server is there, which `tests/run` never lets happen.
async fn empty_database() -> Option<LedgerPlace> {
    let Ok(server) = std::env::var("ORPHAN_SWEEPER_TEST_POSTGRES_URL") else {
        let is_required = std::env::var_os("ORPHAN_SWEEPER_TEST_REQUIRE_SERVERS").is_some();
        assert!(!is_required, "ORPHAN_SWEEPER_TEST_POSTGRES_URL is not set: run these tests with `tests/run`");
        eprintln!("not run on Postgres, which only `tests/run` starts");
        return None;
    };
    let execute = async |url: &str, sql: String| {
        use sqlx::Connection;
        let mut connection = sqlx::PgConnection::connect(url).await.expect("Postgres is up");
        sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await.expect(&sql);
        connection.close().await.expect("closed");
    };
    let free = FREE.lock().pop();
    let url = if let Some(url) = free {
        url
    } else {
        let name = format!("l_{}", Uuid::new_v4().simple());
        execute(&server, format!("CREATE DATABASE {name}")).await;
        let mut url: url::Url = server.parse().expect("an address");
        url.set_path(&name);
        url.to_string()
    };
    // What a test before this one left. Its schema stays, which is made in no time the less.
    let empty = "DO $$ DECLARE name text; BEGIN \
                   FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'orphan_sweeper' AND tablename <> '_sqlx_migrations' \
                   LOOP EXECUTE format('DELETE FROM orphan_sweeper.%I', name); END LOOP; END $$; \
                 SET client_min_messages = warning; DROP FUNCTION IF EXISTS orphan_sweeper.refuse CASCADE";
    execute(&url, empty.into()).await;
    Some(LedgerPlace::Database(DatabaseUrl {
        shown: url.clone(),
        url: url.into(),
        backend: Backend::Postgres,
        warning: None,
    }))
}

impl Book {
    /// A new ledger of that kind; none where the server that it needs is not there.
    async fn open(kind: Kind) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = match kind {
            Kind::File => LedgerPlace::File(folder.path().join("ledger.sqlite3")),
            Kind::Schema => empty_database().await?,
        };
        let ledger = Ledger::open(&place, Absence::Make, at(0)).await.expect("a new ledger");
        Some(Self { folder, ledger, place })
    }

    /// A new ledger in a file.
    async fn file() -> Self {
        Self::open(Kind::File).await.expect("a file needs no server")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.sqlite3")
    }

    async fn begin_writing(&self) -> super::sql::Transaction {
        self.ledger.database.begin("write").await.expect("begun")
    }

    /// Runs a script, in which `x'00'` is written as `SQLite` does.
    async fn execute(&self, script: &str) {
        match &self.ledger.database {
            Database::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(script)).execute(pool).await.map(drop),
            Database::Postgres(pool) => {
                let script = script.replace("x'00'", "'\\x00'::bytea");
                let script = format!("SET search_path = orphan_sweeper; SET timezone = 'UTC'; {script}");
                sqlx::raw_sql(AssertSqlSafe(script)).execute(pool).await.map(drop)
            }
        }
        .expect(script);
    }

    /// Makes a table refuse what a full disk would.
    async fn refuse(&self, operation: &str, table: &str, key: Option<&str>) {
        let when = key.map(|key| match &self.ledger.database {
            Database::Sqlite(_) => format!("WHEN NEW.key = CAST('{key}' AS BLOB)"),
            Database::Postgres(_) => format!("WHEN (NEW.key = convert_to('{key}', 'UTF8'))"),
        });
        let when = when.unwrap_or_default();
        let script = match &self.ledger.database {
            Database::Sqlite(_) => {
                format!(
                    "CREATE TRIGGER full BEFORE {operation} ON {table} {when} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
                )
            }
            Database::Postgres(_) => format!(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$; \
                 CREATE TRIGGER full_disk BEFORE {operation} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION refuse()"
            ),
        };
        self.execute(&script).await;
    }

    /// The only row that a query gives.
    async fn row(&self, sql: &str) -> Row {
        statement("look", sql.to_owned()).one(&self.ledger.database).await.expect(sql)
    }

    async fn count(&self, table: &str) -> i64 {
        self.row(&format!("SELECT count(*) AS count FROM {table}")).await.get("count").expect("a count")
    }

    async fn begin(&self, n: u128) {
        let start = RunStart {
            run_id: run(n),
            scope: SCOPE.into(),
            command: "audit".into(),
            is_dry_run: false,
            started_at: at(0),
        };
        self.begin_run(&start).await.expect("begun");
    }

    /// Ends a run well.
    async fn end(&self, n: u128) {
        let end = RunEnd {
            finished_at: at(9),
            outcome: "complete",
            reason: None,
            exit_code: 0,
            plan_hash: None,
            orphan_bytes: None,
            summary: "{}".into(),
        };
        self.finish_run(run(n), &end).await.expect("ended");
    }

    async fn issue(&self, n: u8) {
        self.issue_plan(&plan(u128::from(n)), hash(n), Path::new("/reports/plan.json")).await.expect("issued");
    }

    /// Every intent: key, run, plan, outcome, reason.
    async fn intents(&self) -> Vec<(String, String, String, Option<String>, String)> {
        let select = "SELECT key, run_id, plan_hash, outcome, reason FROM intents ORDER BY scope, key";
        let rows = statement("look", select).all(&self.ledger.database).await.expect("intents");
        let read = |row: &Row| {
            let key = String::from_utf8(row.get("key").expect("bytes")).expect("UTF-8");
            let text = |column| row.get::<String>(column).expect("a text");
            (key, text("run_id"), text("plan_hash"), row.get("outcome").expect("a text or none"), text("reason"))
        };
        rows.iter().map(read).collect()
    }

    async fn keys(&self) -> Vec<String> {
        self.intents().await.into_iter().map(|(key, ..)| key).collect()
    }
}

fn observed(rows: u64) -> Observation {
    Observation {
        as_of: at(0),
        rows: BTreeMap::from([("s.t".to_owned(), rows)]),
        identity: DatabaseIdentity {
            system: "1".into(),
            timeline: "1".into(),
            database: "d".into(),
            tables: Vec::new(),
        },
        target: TargetFingerprint {
            endpoint: "http://s/".into(),
            bucket: "b".into(),
            prefix: "p/".into(),
            patterns: Vec::new(),
        },
        overlap_share: Some(1.0 / 11.0),
        skew_s: 0,
        snapshot: None,
        rows_as_of: None,
    }
}

fn good(rows: u64) -> Baseline {
    Baseline::after_good_scan(None, observed(rows))
}

fn sighting(first: u128, seconds: i64) -> Sighting {
    Sighting {
        first_run: run(first),
        first_seen: at(seconds),
        last_seen: at(seconds + 7),
        sightings: 3,
        witnessed: chrono::Duration::milliseconds(604_800_001),
        digest: hash(9),
        is_changed: false,
    }
}

fn object(key: &str) -> Object {
    Object {
        key: ObjectKey::new(key),
        size_bytes: key.len() as u64,
        // XML, which brings it, has no NUL, and a text of Postgres neither.
        etag: format!("\"{}\"", key.replace('\0', "NUL")),
        last_modified: Some(at(-5)),
    }
}

fn objects(keys: &[&str]) -> Vec<Object> {
    keys.iter().map(|key| object(key)).collect()
}

fn intent(plan: u8, by: u128) -> Intent<'static> {
    Intent { scope: SCOPE, plan: hash(plan), run: run(by), id: id(1), prefix: "p/a/", batch: 4 }
}

fn plan(n: u128) -> DeletePlan {
    DeletePlan {
        plan_version: PLAN_VERSION,
        scope: SCOPE.into(),
        run_id: run(n),
        created_at: at(0),
        expires_at: at(100),
        ledger: PlanLedger { id: Uuid::nil(), path: String::new() },
        target: PlanTarget::new(&observed(0).target, &observed(0).identity),
        policy: PlanPolicy { grace_s: 1, min_sightings: 1, min_sighting_span_s: 1, disposal: None },
        backfill: None,
        totals: PlanTotals { groups: 1, objects: 2, bytes: u64::MAX },
        groups: Vec::new(),
    }
}

mod file;
#[allow(clippy::duplicate_mod, reason = "one suite for both kinds of ledger")]
#[path = "tests/suite.rs"]
mod on_postgres;
#[allow(clippy::duplicate_mod, reason = "one suite for both kinds of ledger")]
#[path = "tests/suite.rs"]
mod on_sqlite;
