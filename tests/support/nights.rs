//! Nights in a row on the in-memory store and a `SQLite` catalogue, under the default policy: every clock is ours.

use std::process::ExitCode;
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use orphan_sweeper::clock::ManualClock;
use orphan_sweeper::embedded::{MemoryStore, Operation, Serving};
use orphan_sweeper::{Host, main_with};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

use super::{Program, prefix};

pub const BUCKET: &str = "heimdall-synthetic-iq";

pub struct Nights {
    pub clock: ManualClock,
    pub store: MemoryStore,
    pub program: Program,
    pub catalogue: SqlitePool,
    _serving: Serving,
}

impl Nights {
    /// Ten live datasets, each with one object; the first night is 2026-03-01, 03:00.
    pub async fn begin() -> Self {
        let clock = ManualClock::at("2026-03-01T03:00:00Z".parse().expect("a time"));
        let store = MemoryStore::new(Arc::new(clock.clone()));
        store.create_bucket(BUCKET);
        let serving = store.serve("key", "secret").await.expect("serving");
        let mut program = Program::bare(serving.endpoint(), BUCKET, "");
        let path = program.path("catalogue.sqlite3");
        program.set("ORPHAN_SWEEPER_DATABASE_URL", &format!("sqlite://{}", path.display()));
        program.set("AWS_ACCESS_KEY_ID", "key");
        program.set("AWS_SECRET_ACCESS_KEY", "secret");
        program.set("ORPHAN_SWEEPER_CONFIG", &program.path("config.toml").display().to_string());
        program.set_scope("LIVE__0__TABLE", "main.synthetic_datasets");
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let catalogue = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("a catalogue");
        catalogue
            .execute("CREATE TABLE synthetic_datasets (id TEXT PRIMARY KEY, dataset_type TEXT, created_at TEXT)")
            .await
            .expect("a table");
        let nights = Self { clock, store, program, catalogue, _serving: serving };
        for _ in 0..10 {
            nights.live().await;
        }
        nights
    }

    pub fn now(&self) -> DateTime<Utc> {
        orphan_sweeper::clock::Clock::now(&self.clock)
    }

    pub async fn live(&self) -> Uuid {
        let id = Uuid::new_v4();
        self.put_at(&format!("{}x", prefix(0, id)), Duration::days(-30));
        self.insert(id).await;
        id
    }

    /// An orphan under the given pattern, written `age` before now.
    pub fn orphan(&self, pattern: usize, age: Duration) -> Uuid {
        let id = Uuid::new_v4();
        self.put_at(&format!("{}x", prefix(pattern, id)), -age);
        id
    }

    pub fn put_at(&self, key: &str, offset: Duration) {
        self.store.put_at(BUCKET, key, "0123456789", Some(self.now() + offset));
    }

    pub async fn insert(&self, id: Uuid) {
        let created = (self.now() - Duration::days(30)).to_rfc3339();
        self.catalogue
            .execute(AssertSqlSafe(format!("INSERT INTO synthetic_datasets VALUES ('{id}', 'iq_raw', '{created}')")))
            .await
            .expect("inserted");
    }

    pub async fn delete(&self, id: Uuid) {
        self.catalogue
            .execute(AssertSqlSafe(format!("DELETE FROM synthetic_datasets WHERE id = '{id}'")))
            .await
            .expect("deleted");
    }

    /// Runs a command in this process, so that it reads our clock.
    pub async fn run(&self, arguments: &[&str]) -> ExitCode {
        let host = Host { variables: self.program.variables.clone(), clock: Arc::new(self.clock.clone()) };
        let arguments: Vec<String> =
            ["orphan-sweeper", "--quiet"].iter().chain(arguments).map(ToString::to_string).collect();
        tokio::task::spawn_blocking(move || main_with(arguments, &host)).await.expect("joined")
    }

    /// Audits `hours` after the last night; gives the summary of a complete run.
    pub async fn night(&self, hours: i64) -> Value {
        self.night_after(Duration::hours(hours)).await
    }

    pub async fn night_after(&self, step: Duration) -> Value {
        self.clock.advance(step);
        assert_eq!(self.run(&["audit"]).await, ExitCode::SUCCESS, "{:#}", self.summary());
        self.summary()
    }

    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.program.read("summary.json")).expect("a summary")
    }

    /// The reason of an orphan in the newest report; none where it is no orphan.
    pub fn reason(&self, id: Uuid) -> Option<String> {
        let rows = self.program.csv("orphans.csv");
        rows.iter().find(|row| row["id"] == id.to_string()).map(|row| row["reason"].clone())
    }

    /// How many delete requests the store has seen.
    pub fn delete_requests(&self) -> usize {
        self.store.count(Operation::DeleteObjects) + self.store.count(Operation::DeleteObject)
    }
}
