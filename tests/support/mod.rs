//! A world of its own for each test: a bucket, a database, a folder, and the program as its users run it.

pub mod api;
pub mod database;
pub mod gate;
pub mod listener;
pub mod memory;
pub mod minio;
pub mod nights;
pub mod platform;
pub mod program;
pub mod sts;
pub mod treasure;

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

pub use api::Api;
pub use database::Database;
pub use memory::MemoryWorld;
pub use minio::Bucket;
pub use program::{Program, Ran};

/// Every step of a deletion at which a test can end the process.
pub const DELETION_STEPS: [&str; 10] = [
    "plan_started",
    "before_intent",
    "after_intent",
    "before_send",
    "after_send",
    "after_outcome",
    "before_verify",
    "disposed",
    "before_report",
    "after_report",
];

/// What `tests/run` tells.
pub fn setting(name: &str) -> String {
    let name = format!("ORPHAN_SWEEPER_TEST_{name}");
    std::env::var(&name)
        .unwrap_or_else(|_| panic!("{name} is not set: run these tests with `tests/run`, which starts real servers"))
}

/// A real bucket, a real database and the program.
pub struct World {
    pub bucket: Bucket,
    pub database: Database,
    pub program: Program,
}

impl World {
    /// Everything empty; the policy lets an orphan go at its first sighting, and no share trips.
    pub async fn new() -> Self {
        let (bucket, database) = tokio::join!(Bucket::create(), Database::create());
        let program = Program::new(&bucket, &database.reader_url());
        Self { bucket, database, program }
    }

    /// Puts objects under `prefix`, as many as there are names.
    pub async fn put_group(&self, prefix: &str, names: &[&str]) {
        for name in names {
            self.bucket.put(&format!("{prefix}{name}"), b"0123456789").await;
        }
    }

    /// A live dataset with one object under the given pattern.
    pub async fn live(&self, pattern: usize) -> Uuid {
        let id = Uuid::new_v4();
        self.put_group(&prefix(pattern, id), &["sample/rx.npy"]).await;
        self.database.insert(id).await;
        id
    }

    /// An orphan with two objects under the given pattern.
    pub async fn orphan(&self, pattern: usize) -> Uuid {
        let id = Uuid::new_v4();
        self.put_group(&prefix(pattern, id), &["a.npy", "b.npy"]).await;
        id
    }

    /// Waits until no object is newer than the store's own clock, which counts whole seconds.
    pub async fn settle(&self) {
        self.bucket.settle().await;
    }

    /// Audits; gives the summary, which must be of a complete run.
    pub async fn audit(&self) -> Value {
        self.settle().await;
        let ran = self.program.run(&["audit", "--json"]).await;
        let summary = ran.summary(0);
        assert_eq!(summary["outcome"], "complete", "{ran:?}");
        summary
    }

    /// Makes a backfill of everything older than a moment ago; gives its report's folder.
    pub async fn backfill(&self) -> std::path::PathBuf {
        self.settle().await;
        // The store counts whole seconds, and the date must be past.
        let date = minio::http_date(&self.bucket.endpoint).await.to_rfc3339();
        let ran = self.program.run(&["backfill", "--created-before", &date, "--json"]).await;
        assert_eq!(ran.summary(0)["outcome"], "complete", "{ran:?}");
        self.program.run_folders().pop().expect("a report")
    }

    /// What the newest summary says of the steps of its plan.
    pub fn newest_steps(&self) -> Value {
        let mut summaries = self.program.run_folders().into_iter().map(|folder| folder.join("summary.json"));
        let newest = summaries.rfind(|summary| summary.exists()).expect("a summary");
        let summary: Value = serde_json::from_str(&std::fs::read_to_string(newest).expect("read")).expect("JSON");
        summary["steps"].clone()
    }

    /// Applies the plan of the newest report.
    pub async fn apply(&self) -> Ran {
        self.program.run(&["apply", &self.program.latest("plan.json"), "--yes", "--json"]).await
    }

    /// Runs SQL on the ledger's file.
    pub async fn edit_ledger(&self, sql: &str) {
        let path = self.program.path("reports/ledger.sqlite3");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
        sqlx::Executor::execute(&pool, sqlx::AssertSqlSafe(sql.to_owned())).await.expect("edited");
        pool.close().await;
    }

    /// Applies the plan of the n-th report, counted from 1.
    pub async fn apply_of(&self, number: usize) -> Ran {
        let plan = self.program.run_folders()[number - 1].join("plan.json").display().to_string();
        self.program.run(&["apply", &plan, "--yes", "--json"]).await
    }

    /// The path of the newest plan that any report has.
    pub fn plan_of_newest_audit(&self) -> String {
        let mut plans = self.program.run_folders().into_iter().map(|folder| folder.join("plan.json"));
        plans.rfind(|plan| plan.exists()).expect("a plan").display().to_string()
    }

    /// What the bucket holds, to compare with later.
    pub async fn contents(&self) -> BTreeMap<String, String> {
        self.bucket.contents().await
    }
}

/// The prefix of an id's group, by the platform's two patterns.
pub fn prefix(pattern: usize, id: Uuid) -> String {
    match pattern {
        0 => format!("synthetic/{id}/"),
        _ => format!("synthetic/dataset-{id}/"),
    }
}

/// The contents without everything under the given prefixes.
pub fn without(contents: &BTreeMap<String, String>, prefixes: &[String]) -> BTreeMap<String, String> {
    contents
        .iter()
        .filter(|(key, _)| !prefixes.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The other spellings of an id that still parse as a UUID.
pub fn odd_spellings(id: Uuid) -> [String; 5] {
    [
        id.to_string().to_uppercase(),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        id.simple().to_string(),
        id.simple().to_string().to_uppercase(),
    ]
}

/// A code block of README.md: the first one in `language` after `heading`.
pub fn readme_block(heading: &str, language: &str) -> String {
    let readme = include_str!("../../README.md");
    let after = readme.split_once(heading).unwrap_or_else(|| panic!("README.md has no `{heading}`")).1;
    let block = after.split_once(&format!("```{language}\n")).expect("a code block").1;
    block.split_once("```").expect("a closed code block").0.to_owned()
}

/// Rows of a CSV file, each as a map from header to field.
pub fn read_csv(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().expect("a header").iter().map(ToOwned::to_owned).collect();
    let row = |record: csv::StringRecord| header.iter().cloned().zip(record.iter().map(ToOwned::to_owned)).collect();
    reader.records().map(|record| row(record.expect("a row"))).collect()
}
