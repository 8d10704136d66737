//! A store that fails in every way it can: too little goes, never too much, and the report says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use orphan_sweeper::clock::SystemClock;
use orphan_sweeper::embedded::{Action, Fault, Framing, MemoryStore, Operation, Serving, When};
use serde_json::Value;
use uuid::Uuid;

use crate::support::program::breaker;
use crate::support::{Database, Program, Ran, prefix};

const BUCKET: &str = "faulty-bucket";

/// The in-memory store, whose every request is recorded, beside the real Postgres.
struct Faulty {
    store: MemoryStore,
    database: Database,
    program: Program,
    live: Vec<Uuid>,
    orphan: Uuid,
    _serving: Serving,
}

impl Faulty {
    /// Four live datasets and one orphan of `objects` objects.
    async fn with_orphan_of(objects: usize) -> Self {
        let store = MemoryStore::new(Arc::new(SystemClock));
        store.create_bucket(BUCKET);
        let serving = store.serve("key", "secret").await.expect("serving");
        let database = Database::create().await;
        let mut program = Program::bare(serving.endpoint(), BUCKET, &database.reader_url());
        program.set("AWS_ACCESS_KEY_ID", "key");
        program.set("AWS_SECRET_ACCESS_KEY", "secret");
        for (key, value) in
            [("UNSAFE_SHORT_GRACE", "true"), ("GRACE", "0s"), ("MIN_SIGHTINGS", "1"), ("MIN_SIGHTING_SPAN", "0s")]
        {
            program.set_scope(&format!("POLICY__{key}"), value);
        }
        let long_ago = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut live = Vec::new();
        for n in 0..4 {
            let id = Uuid::new_v4();
            store.put_at(BUCKET, &format!("{}x", prefix(n % 2, id)), "live", Some(long_ago));
            database.insert(id).await;
            live.push(id);
        }
        let orphan = Uuid::new_v4();
        for n in 0..objects {
            store.put_at(BUCKET, &format!("{}{n:05}", prefix(1, orphan)), "0123456789", Some(long_ago));
        }
        Self { store, database, program, live, orphan, _serving: serving }
    }

    fn inject(&self, operation: Operation, when: When, action: Action) {
        self.store.inject(Fault { operation, when, action });
    }

    async fn audit(&self) -> Ran {
        self.program.run(&["audit", "--json"]).await
    }

    async fn planned(&self) -> String {
        assert_eq!(self.audit().await.summary(0)["groups"]["eligible"], 1);
        self.program.latest("plan.json")
    }

    async fn apply(&self, plan: &str) -> Ran {
        self.program.run(&["apply", plan, "--yes", "--json"]).await
    }

    fn left(&self) -> usize {
        self.store.keys(BUCKET).iter().filter(|key| key.contains(&self.orphan.to_string())).count()
    }

    /// Nothing live is gone, and nothing live was ever named in a delete request.
    fn assert_nothing_lost(&self) {
        let keys = self.store.keys(BUCKET);
        for id in &self.live {
            assert!(keys.iter().any(|key| key.contains(&id.to_string())), "{id} is gone");
        }
        let orphan = prefix(1, self.orphan);
        for request in self.store.requests() {
            if matches!(request.operation, Operation::DeleteObjects | Operation::DeleteObject) {
                assert!(request.keys.iter().all(|key| key.starts_with(&orphan)), "{request:?}");
                assert_ne!(request.is_content_md5_right, Some(false), "{request:?}");
            }
        }
    }
}

fn status(code: u16, s3_code: &'static str) -> Action {
    Action::Status { code, s3_code }
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_503_and_429_while_listing_pass() {
    let faulty = Faulty::with_orphan_of(3).await;
    faulty.inject(Operation::ListObjectsV2, When::Times(2), status(503, "SlowDown"));
    faulty.inject(Operation::ListObjectsV2, When::Times(2), status(429, "TooManyRequests"));
    assert_eq!(faulty.audit().await.summary(0)["groups"]["eligible"], 1);
    faulty.inject(Operation::ListObjectsV2, When::Always, status(503, "SlowDown"));
    let summary = faulty.audit().await.summary(1);
    assert_eq!(
        (&summary["outcome"], &breaker(&summary, "incomplete")["tripped"]),
        (&"incomplete".into(), &true.into())
    );
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_while_deleting_pass_or_end_as_failures() {
    let faulty = Faulty::with_orphan_of(1500).await;
    let plan = faulty.planned().await;
    faulty.inject(Operation::DeleteObjects, When::Times(2), status(503, "SlowDown"));
    faulty.inject(Operation::DeleteObjects, When::Times(2), status(429, "TooManyRequests"));
    let summary = faulty.apply(&plan).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], faulty.left()), (&1500.into(), 0));
    faulty.assert_nothing_lost();

    let faulty = Faulty::with_orphan_of(10).await;
    let plan = faulty.planned().await;
    faulty.inject(Operation::DeleteObjects, When::Always, status(503, "SlowDown"));
    let summary = faulty.apply(&plan).await.summary(5);
    assert_eq!((&summary["deletion"]["failed"], faulty.left()), (&10.into(), 10));
    faulty.store.clear_faults();
    // The next night cleans up what failed: our own attempts are no change of the group.
    let plan = faulty.planned().await;
    assert_eq!(faulty.apply(&plan).await.summary(0)["deletion"]["deleted"], 10);
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_single_keys_inside_a_200_are_retried_or_told() {
    let faulty = Faulty::with_orphan_of(20).await;
    let plan = faulty.planned().await;
    let of_key = |code, key: &str| Action::PerKeyError { code, keys_containing: key.to_owned() };
    faulty.inject(Operation::DeleteObjects, When::Times(1), of_key("SlowDown", "/0000"));
    faulty.inject(Operation::DeleteObjects, When::Always, of_key("AccessDenied", "/00015"));
    let summary = faulty.apply(&plan).await.summary(5);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["failed"]),
        (&19.into(), &1.into()),
        "{summary:#}"
    );
    let rows = faulty.program.csv("deletions.csv");
    let failed: Vec<_> = rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert_eq!((failed.len(), failed[0]["reason"].as_str()), (1, "AccessDenied"));
    assert_eq!(rows.iter().map(|row| &row["key"]).collect::<BTreeSet<_>>().len(), 20, "each key has one line");
    faulty.store.clear_faults();
    let plan = faulty.planned().await;
    assert_eq!(faulty.apply(&plan).await.summary(0)["deletion"]["deleted"], 1);
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_deleted_and_keeps_is_found_out() {
    let faulty = Faulty::with_orphan_of(20).await;
    let plan = faulty.planned().await;
    faulty.inject(Operation::DeleteObjects, When::Always, Action::GhostDelete { keys_containing: "/00003".into() });
    faulty.inject(Operation::DeleteObjects, When::Always, Action::OmitFromReply { keys_containing: "/00004".into() });
    let summary = faulty.apply(&plan).await.summary(5);
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["requested"], &deletion["deleted"], &deletion["failed"]),
        (&20.into(), &19.into(), &1.into()),
        "{summary:#}"
    );
    let rows = faulty.program.csv("deletions.csv");
    let of = |key: &str| {
        rows.iter()
            .find(|row| row["key"].ends_with(key))
            .map(|row| (row["outcome"].clone(), row["reason"].clone()))
            .expect("a row")
    };
    assert_eq!(of("/00003"), ("failed".into(), "still_listed".into()));
    assert_eq!(of("/00004"), ("deleted".into(), "absent_when_verified".into()));
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_carried_out_without_a_reply_ends_as_deleted() {
    for action in
        [Action::DropAfter, Action::StatusAfter { code: 500, s3_code: "InternalError" }, Action::DropConnection]
    {
        let faulty = Faulty::with_orphan_of(1200).await;
        let plan = faulty.planned().await;
        faulty.inject(Operation::DeleteObjects, When::Nth(1), action);
        let summary = faulty.apply(&plan).await.summary(0);
        let deletion = &summary["deletion"];
        assert_eq!(
            (&deletion["requested"], &deletion["deleted"], faulty.left()),
            (&1200.into(), &1200.into(), 0),
            "{summary:#}"
        );
        faulty.assert_nothing_lost();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_anywhere_is_never_taken_for_an_answer() {
    let faulty = Faulty::with_orphan_of(3).await;
    let whole: Value = faulty.audit().await.summary(0);
    for framing in [Framing::CloseDelimited, Framing::ContentLength] {
        for keep_bytes in [0, 1, 60, 200, 333, 500, 700, 900, 1100, 1300] {
            // The first listing is the scope's, the second the orphan's; every attempt is cut.
            for operation in [When::ForPrefix("synthetic/".into()), When::ForPrefix(prefix(1, faulty.orphan))] {
                faulty.inject(Operation::ListObjectsV2, operation, Action::CutBody { keep_bytes, framing });
                let ran = faulty.audit().await;
                faulty.store.clear_faults();
                if ran.code == 0 {
                    // The cut lay behind the end: then the answer was whole.
                    assert_eq!(ran.summary(0)["groups"], whole["groups"], "cut at {keep_bytes}");
                } else {
                    assert_eq!(ran.summary(1)["outcome"], "incomplete", "cut at {keep_bytes}");
                }
            }
        }
    }
    let plan = faulty.planned().await;
    faulty.inject(
        Operation::DeleteObjects,
        When::Nth(1),
        Action::CutBody { keep_bytes: 90, framing: Framing::CloseDelimited },
    );
    let summary = faulty.apply(&plan).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], faulty.left()), (&3.into(), 0));
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_the_protocol_voids_the_run() {
    let faulty = Faulty::with_orphan_of(3).await;
    for action in [
        Action::OmitIsTruncated,
        Action::TruncatedWithoutToken,
        Action::UnorderedKeys,
        Action::ForeignKey("other/key".into()),
        Action::WrongKeyCount,
        Action::IgnoreEncodingType,
    ] {
        faulty.inject(Operation::ListObjectsV2, When::Always, action.clone());
        let summary = faulty.audit().await.summary(1);
        assert_eq!(summary["outcome"], "incomplete", "{action:?}");
        faulty.store.clear_faults();
    }
    assert_eq!(faulty.audit().await.summary(0)["groups"]["eligible"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_empty_listing_before_deletion_deletes_nothing() {
    let faulty = Faulty::with_orphan_of(5).await;
    let plan = faulty.planned().await;
    faulty.inject(Operation::ListObjectsV2, When::ForPrefix(prefix(1, faulty.orphan)), Action::StaleEmpty);
    let ran = faulty.apply(&plan).await;
    assert_eq!((ran.code, faulty.left()), (0, 5), "{ran:?}");
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_minio_that_demands_content_md5_is_served() {
    let faulty = Faulty::with_orphan_of(5).await;
    faulty.store.set_requires_content_md5(true);
    let plan = faulty.planned().await;
    assert_eq!(faulty.apply(&plan).await.summary(0)["deletion"]["deleted"], 5);
    faulty.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_preceded_by_a_fresh_answer_of_the_primary() {
    let faulty = Faulty::with_orphan_of(10).await;
    let plan = faulty.planned().await;
    let (pool, id) = (faulty.database.pool.clone(), faulty.orphan);
    let runtime = tokio::runtime::Handle::current();
    // The row comes back while the first attempt is answered with a throttle: the second attempt must not be made.
    faulty.inject(Operation::DeleteObjects, When::Always, status(503, "SlowDown"));
    faulty.store.on_request(move |request, _| {
        if request.operation == Operation::DeleteObjects {
            let insert = format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}') ON CONFLICT DO NOTHING");
            runtime.block_on(sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool)).expect("inserted");
        }
    });
    let summary = faulty.apply(&plan).await.summary(0);
    assert_eq!(faulty.store.count(Operation::DeleteObjects), 1);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"], faulty.left()),
        (&0.into(), &10.into(), 10)
    );
    assert!(faulty.program.csv("deletions.csv").iter().all(|row| row["reason"] == "live_again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_requests_are_not_needed_an_audit_without_orphans_lists_once_per_thousand_datasets() {
    let faulty = Faulty::with_orphan_of(0).await;
    let long_ago = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut rows = Vec::new();
    for _ in 0..996 {
        let id = Uuid::new_v4();
        for n in 0..20 {
            faulty.store.put_sized(BUCKET, &format!("{}{n}", prefix(0, id)), 10, long_ago);
        }
        rows.push(format!("('{id}')"));
    }
    faulty.database.execute(&format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES {}", rows.join(","))).await;
    faulty.store.clear_requests();
    let summary = faulty.audit().await.summary(0);
    assert_eq!((&summary["groups"]["listed"], &summary["groups"]["live"]), (&1000.into(), &1000.into()));
    let requests = faulty.store.count(Operation::ListObjectsV2);
    assert!(requests <= 5, "{requests} LIST requests");
    assert_eq!(summary["coverage"]["list_requests"], requests);
    // Each orphan adds its own pages and no more.
    let orphan = Uuid::new_v4();
    for n in 0..2500 {
        faulty.store.put_sized(BUCKET, &format!("{}{n:05}", prefix(1, orphan)), 10, long_ago);
    }
    faulty.store.clear_requests();
    assert_eq!(faulty.audit().await.summary(0)["groups"]["eligible"], 1);
    let with_orphan = faulty.store.count(Operation::ListObjectsV2);
    assert_eq!(with_orphan - requests, 3 + 1, "three pages of the orphan, and a second one of the prefixes: 1,001");
}
