//! A world whose store is the program's own in-memory one, served by the test: for keys that MinIO refuses, for faults,
//! and for looking at every request. The rows are in the real Postgres.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use orphan_sweeper::clock::{Clock, SystemClock};
use orphan_sweeper::embedded::{MemoryStore, Operation, Serving};
use serde_json::Value;
use uuid::Uuid;

use super::{Database, Program, Ran, prefix};

pub const BUCKET: &str = "heimdall-synthetic-iq";
pub const ACCESS_KEY: &str = "memory-access-key";
pub const SECRET_KEY: &str = "memory-secret-key";

/// A served in-memory store, a real database and the program.
pub struct MemoryWorld {
    pub store: MemoryStore,
    pub database: Database,
    pub program: Program,
    _serving: Serving,
}

impl MemoryWorld {
    /// Everything empty, with the policy of [`Program::new`].
    pub async fn new() -> Self {
        let store = MemoryStore::new(Arc::new(SystemClock));
        store.create_bucket(BUCKET);
        let serving = store.serve(ACCESS_KEY, SECRET_KEY).await.expect("served");
        let database = Database::create().await;
        let program = Program::at(serving.endpoint(), BUCKET, (ACCESS_KEY, SECRET_KEY), &database.reader_url());
        Self { store, database, program, _serving: serving }
    }

    /// Puts an object that is an hour old, so that its age is never in doubt.
    pub fn put(&self, key: &str) {
        self.store.put_at(BUCKET, key, "0123456789", Some(an_hour_ago()));
    }

    /// A live dataset with one object under the given pattern.
    pub async fn live(&self, pattern: usize) -> Uuid {
        let id = Uuid::new_v4();
        self.put(&format!("{}sample/rx.npy", prefix(pattern, id)));
        self.database.insert(id).await;
        id
    }

    /// An orphan with two objects under the given pattern.
    pub fn orphan(&self, pattern: usize) -> Uuid {
        let id = Uuid::new_v4();
        for name in ["a.npy", "b.npy"] {
            self.put(&format!("{}{name}", prefix(pattern, id)));
        }
        id
    }

    /// Audits; gives the summary, which must be of a complete run.
    pub async fn audit(&self) -> Value {
        let ran = self.program.run(&["audit", "--json"]).await;
        let summary = ran.summary(0);
        assert_eq!(summary["outcome"], "complete", "{ran:?}");
        summary
    }

    /// Applies the plan of the newest report.
    pub async fn apply(&self) -> Ran {
        self.program.run(&["apply", &self.program.latest("plan.json"), "--yes", "--json"]).await
    }

    /// Every key that the store lists now.
    pub fn keys(&self) -> BTreeSet<String> {
        self.store.keys(BUCKET).into_iter().collect()
    }

    /// Every key that any delete request named, however it ended.
    pub fn asked_to_delete(&self) -> BTreeSet<String> {
        let is_delete = |operation| matches!(operation, Operation::DeleteObject | Operation::DeleteObjects);
        self.store
            .requests()
            .into_iter()
            .filter(|request| is_delete(request.operation))
            .flat_map(|request| request.keys)
            .collect()
    }
}

pub fn an_hour_ago() -> DateTime<Utc> {
    SystemClock.now() - chrono::Duration::hours(1)
}
