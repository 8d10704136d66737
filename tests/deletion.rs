//! Deleting: what a plan names and nothing besides, counted to the last object, and refused where a guard says no.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::types::BucketVersioningStatus;
use orphan_sweeper::embedded::Operation;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::memory::{BUCKET, an_hour_ago};
use crate::support::program::breaker;
use crate::support::sts::Temporary;
use crate::support::{MemoryWorld, Ran, World, prefix, without};

/// The rows of deletions.csv of a group: how many, by outcome and reason.
fn outcomes(world: &World, group: &str) -> BTreeMap<(String, String), usize> {
    let mut outcomes = BTreeMap::new();
    for row in world.program.csv("deletions.csv").iter().filter(|row| row["group"] == group) {
        *outcomes.entry((row["outcome"].clone(), row["reason"].clone())).or_default() += 1;
    }
    outcomes
}

fn all(count: usize, outcome: &str, reason: &str) -> BTreeMap<(String, String), usize> {
    [((outcome.to_owned(), reason.to_owned()), count)].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_five_hundred_objects_go_in_three_batches_and_every_one_is_told() {
    let world = World::new().await;
    let live = world.live(1).await;
    let id = Uuid::new_v4();
    let keys: BTreeSet<String> = (0..2500).map(|n| format!("{}sample-{n:05}/rx_0.npy", prefix(1, id))).collect();
    world.bucket.put_many(keys.iter().cloned()).await;
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!((&summary["eligible_objects"], &summary["eligible_bytes"]), (&2500.into(), &2500.into()));
    let ran = world.apply().await;
    let deletion = &ran.summary(0)["deletion"];
    let expected = json!({
        "requested": 2500, "deleted": 2500, "already_gone": 0, "skipped": 0, "failed": 0, "unconfirmed": 0, "bytes_deleted": 2500, "bytes_marked": 0,
        "bytes_quarantined": 0
    });
    assert_eq!(*deletion, expected);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));
    assert!(world.contents().await.keys().any(|key| key.contains(&live.to_string())));
    let rows = world.program.csv("deletions.csv");
    assert_eq!(rows.len(), 2500);
    assert_eq!(rows.iter().map(|row| row["key"].clone()).collect::<BTreeSet<_>>(), keys);
    let mut batches: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        assert_eq!(
            (row["outcome"].as_str(), row["bytes"].as_str(), row["group"].as_str()),
            ("deleted", "1", prefix(1, id).as_str())
        );
        *batches.entry(&row["batch"]).or_default() += 1;
    }
    assert_eq!(batches, [("1", 1000), ("2", 1000), ("3", 500)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_groups_are_listed_in_pages_and_only_the_orphans_among_them_go() {
    let world = World::new().await;
    let ids: Vec<Uuid> = (0..3000).map(|_| Uuid::new_v4()).collect();
    world.bucket.put_many(ids.iter().enumerate().map(|(n, id)| format!("{}rx.npy", prefix(n % 2, *id)))).await;
    // Every 300th is an orphan, and has a neighbour on either side in the listing that is none of its.
    let orphans: Vec<(usize, Uuid)> =
        ids.iter().copied().enumerate().filter(|(n, _)| n % 300 == 0).map(|(n, id)| (n % 2, id)).collect();
    let neighbours =
        orphans.iter().flat_map(|(_, id)| [format!("synthetic/{id}-x/rx.npy"), format!("synthetic/{id}0/rx.npy")]);
    world.bucket.put_many(neighbours).await;
    let live: Vec<String> = ids
        .iter()
        .filter(|id| !orphans.iter().any(|(_, orphan)| orphan == *id))
        .map(|id| format!("('{id}')"))
        .collect();
    world.database.execute(&format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES {}", live.join(","))).await;
    let before = world.contents().await;
    assert_eq!(before.len(), 3020);

    let summary = world.audit().await;
    assert_eq!(
        (
            &summary["groups"]["listed"],
            &summary["groups"]["live"],
            &summary["groups"]["orphan"],
            &summary["groups"]["foreign"]
        ),
        (&3000.into(), &2990.into(), &10.into(), &20.into())
    );
    // 3,020 prefixes are four pages, or a few more where the store gives short ones; each orphan adds one of its own.
    let lists = summary["coverage"]["list_requests"].as_u64().expect("a count");
    assert!((14..=18).contains(&lists), "{lists}");
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 10);
    let gone: Vec<String> = orphans.iter().map(|(pattern, id)| prefix(*pattern, *id)).collect();
    assert_eq!(world.contents().await, without(&before, &gone));
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["listed"], &summary["groups"]["orphan"]), (&2990.into(), &0.into()));
    assert!(summary["coverage"]["list_requests"].as_u64().is_some_and(|lists| lists <= 8));
}

/// Versions and markers that a bucket still holds under a prefix.
async fn versions(world: &World, prefix: &str) -> (usize, usize) {
    let listed = world
        .bucket
        .client
        .list_object_versions()
        .bucket(&world.bucket.name)
        .prefix(prefix)
        .send()
        .await
        .expect("listed");
    (listed.versions().len(), listed.delete_markers().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_keeps_versions_is_marked_and_nothing_is_called_freed() {
    for status in [BucketVersioningStatus::Enabled, BucketVersioningStatus::Suspended] {
        let world = World::new().await;
        world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
        world.live(0).await;
        let id = world.orphan(1).await;
        let group = prefix(1, id);
        world.bucket.set_versioning(status.clone()).await;
        let before = world.contents().await;
        let summary = world.audit().await;
        assert_eq!(summary["target"]["versioning"], status.as_str().to_lowercase());
        let plan = world.plan_of_newest_audit();
        let ran = world.program.run(&["apply", &plan, "--yes"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("20 B marked and not freed"), "{}", ran.stdout);
        assert!(!ran.stdout.contains(" 0 B freed") && !ran.stdout.contains("20 B freed"), "{}", ran.stdout);
        assert!(
            ran.stderr.contains("the bucket keeps old versions") == (status == BucketVersioningStatus::Enabled),
            "{}",
            ran.stderr
        );
        let summary: Value = serde_json::from_str(&world.program.read("summary.json")).expect("JSON");
        let deletion = &summary["deletion"];
        assert_eq!(
            (&deletion["deleted"], &deletion["bytes_marked"], &deletion["bytes_deleted"]),
            (&2.into(), &20.into(), &0.into())
        );
        assert_eq!(world.contents().await, without(&before, std::slice::from_ref(&group)));
        assert_eq!(versions(&world, &group).await, (2, 2), "{status}: no version is ever removed");
        // The prefix still shows; it is empty, and neither an orphan nor new work.
        let ran = world.program.run(&["audit", "--json", "--fail-on-orphans"]).await;
        let groups = &ran.summary(0)["groups"];
        assert_eq!(
            (&groups["listed"], &groups["live"], &groups["orphan"], &groups["empty"]),
            (&2.into(), &1.into(), &0.into(), &1.into()),
            "{status}"
        );
        let told = world.program.csv("orphans.csv");
        assert_eq!((told.len(), told[0]["objects"].as_str(), told[0]["reason"].as_str()), (1, "0", "versions_only"));
        assert_eq!(world.apply().await.summary(0)["deletion"], Value::Null);
        assert_eq!(versions(&world, &group).await, (2, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_versioning_was_suspended_cannot_come_back_and_the_run_says_so() {
    let world = World::new().await;
    for status in [BucketVersioningStatus::Enabled, BucketVersioningStatus::Suspended] {
        world.bucket.set_versioning(status).await;
    }
    world.live(0).await;
    let group = prefix(1, world.orphan(1).await);
    assert_eq!(versions(&world, &group).await, (2, 0));
    world.audit().await;
    let ran = world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(versions(&world, &group).await, (0, 2), "the marker takes the place of the only version");
    for text in [ran.stdout, ran.stderr] {
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains("what was written since cannot be brought back"), "{text}");
    }
    let groups = &world.audit().await["groups"];
    assert_eq!((&groups["orphan"], &groups["empty"]), (&0.into(), &1.into()));
}

/// Lets the program list with rights of its own and delete under the scope, but for keys that contain `locked`.
async fn restrict_deletion(world: &mut World, effect_on_delete: &str, resource: &str) {
    let bucket = &world.bucket.name;
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [format!("arn:aws:s3:::{bucket}/synthetic/*")] },
            { "Effect": effect_on_delete, "Action": ["s3:DeleteObject"], "Resource": [format!("arn:aws:s3:::{bucket}/{resource}")] }
        ]
    });
    let pair = Temporary::with_policy(&world.bucket, &policy.to_string()).await;
    pair.delete_with(&mut world.program);
}

fn lift_restriction(world: &mut World) {
    for name in ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"] {
        world.program.unset(&format!("ORPHAN_SWEEPER_DELETE_{name}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_may_not_be_deleted_are_failed_and_go_once_the_right_is_there() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    let group = prefix(0, id);
    world.put_group(&group, &["a.npy", "b.npy", "locked/a.npy", "locked/b.npy", "locked/c\u{1}.npy", "z.npy"]).await;
    let before = world.contents().await;
    restrict_deletion(&mut world, "Deny", "*/locked/*").await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let summary = world.apply().await.summary(5);
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["requested"], &deletion["deleted"], &deletion["failed"]),
        (&6.into(), &3.into(), &3.into()),
        "{deletion:#}"
    );
    assert_eq!(deletion["bytes_deleted"], 30);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("3 deletions failed")), "{summary:#}");
    for row in world.program.csv("deletions.csv") {
        let expected = if row["key"].contains("/locked/") { "failed" } else { "deleted" };
        assert_eq!(row["outcome"], expected);
        assert_eq!(row["reason"].contains("AccessDenied"), expected == "failed", "{row:?}");
    }
    let gone: Vec<String> = ["a.npy", "b.npy", "z.npy"].iter().map(|name| format!("{group}{name}")).collect();
    assert_eq!(world.contents().await, without(&before, &gone));
    let again = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(again.code, 4, "the plan is closed: {again:?}");
    lift_restriction(&mut world);
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["eligible_objects"]), (&1.into(), &3.into()), "{summary:#}");
    let deletion = &world.apply().await.summary(0)["deletion"];
    assert_eq!((&deletion["requested"], &deletion["deleted"]), (&3.into(), &3.into()), "nothing is counted twice");
    assert_eq!(world.contents().await, without(&before, &[group]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_list_and_not_to_delete_loses_nothing() {
    let mut world = World::new().await;
    world.live(0).await;
    let (first, second) = (world.orphan(0).await, world.orphan(1).await);
    let before = world.contents().await;
    restrict_deletion(&mut world, "Deny", "*").await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let summary = world.apply().await.summary(5);
    assert_eq!(
        (&summary["deletion"]["requested"], &summary["deletion"]["failed"]),
        (&4.into(), &4.into()),
        "{summary:#}"
    );
    assert_eq!((&summary["deletion"]["bytes_deleted"], &summary["deletion"]["deleted"]), (&0.into(), &0.into()));
    assert_eq!(world.contents().await, before);
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4);
    lift_restriction(&mut world);
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 4);
    assert_eq!(world.contents().await, without(&before, &[prefix(0, first), prefix(1, second)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_stop_file_exists_nothing_is_sent_and_the_plan_waits() {
    let world = World::new().await;
    world.live(0).await;
    let id = world.orphan(0).await;
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    std::fs::write(world.program.path("reports/STOP"), "").expect("written");
    let ran = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    let summary = ran.summary(4);
    assert_eq!((&summary["outcome"], &summary["deletion"]), (&"refused".into(), &Value::Null));
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("reports/STOP")), "{summary:#}");
    assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
    assert_eq!(world.contents().await, before);
    assert_eq!(plan_states(&world).await, ["open"], "it was not begun");
    world.audit().await;
    std::fs::remove_file(world.program.path("reports/STOP")).expect("removed");
    assert_eq!(world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_file_that_appears_between_two_batches_ends_the_run_there_and_the_plan_resumes() {
    let world = MemoryWorld::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    for n in 0..2500 {
        world.store.put_at(BUCKET, &format!("{}{n:05}", prefix(1, id)), "x", Some(an_hour_ago()));
    }
    let before = world.keys();
    world.audit().await;
    let plan = world.program.latest("plan.json");
    let stop_file = world.program.path("reports/STOP");
    let written = stop_file.clone();
    world.store.on_request(move |request, _| {
        if request.operation == Operation::DeleteObjects {
            std::fs::write(&written, "").expect("written");
        }
    });
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(4);
    let first = summary["deletion"]["deleted"].as_u64().expect("a count");
    assert!(first == 1000 && world.store.count(Operation::DeleteObjects) == 1, "{summary:#}");
    assert_eq!(before.len() - world.keys().len(), 1000);
    world.store.clear_hooks();
    std::fs::remove_file(stop_file).expect("removed");
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["requested"], &summary["deletion"]["deleted"]),
        (&1500.into(), &1500.into()),
        "{summary:#}"
    );
    assert_eq!(world.keys(), before.into_iter().filter(|key| !key.starts_with(&prefix(1, id))).collect());
    assert_eq!(world.asked_to_delete().len(), 2500);
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4, "done with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_nothing_applies_and_is_then_done_with() {
    let world = World::new().await;
    world.live(0).await;
    let before = world.contents().await;
    let summary = world.audit().await;
    assert!(summary["plan_hash"].is_string());
    let plan: Value = serde_json::from_str(&world.program.read("plan.json")).expect("JSON");
    assert_eq!(plan["plan"]["groups"], json!([]));
    let path = world.plan_of_newest_audit();
    let summary = world.program.run(&["apply", &path, "--yes", "--json"]).await.summary(0);
    assert_eq!((&summary["outcome"], &summary["deletion"]), (&"complete".into(), &Value::Null));
    assert_eq!(world.program.run(&["apply", &path, "--yes"]).await.code, 4);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_an_apply_that_nobody_confirmed_use_nothing_up() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = world.orphan(1).await;
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    for _ in 0..2 {
        let summary = world.program.run(&["apply", &plan, "--dry-run", "--json"]).await.summary(0);
        assert_eq!(
            (&summary["dry_run"], &summary["outcome"], &summary["deletion"]),
            (&true.into(), &"complete".into(), &Value::Null)
        );
        assert_eq!((&summary["groups"]["eligible"], &summary["eligible_objects"]), (&1.into(), &2.into()));
        // `--yes` does not turn a dry run into another.
        assert_eq!(world.program.run(&["apply", &plan, "-n", "-y"]).await.code, 0);
        assert_eq!(world.contents().await, before);
        let reports = world.program.run_folders().len();
        let ran = world.program.run(&["apply", &plan, "--json"]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.json()["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--yes")), "{ran:?}");
        assert_eq!(world.program.run_folders().len(), reports, "no run began");
        assert_eq!(world.contents().await, before);
        assert_eq!(plan_states(&world).await, ["open"]);
    }
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let summary = world.program.run(&["sweep", "--dry-run", "--json"]).await.summary(0);
    assert_eq!((&summary["dry_run"], &summary["deletion"]), (&true.into(), &Value::Null));
    assert_eq!(world.contents().await, before);
    assert_eq!(plan_states(&world).await, ["open", "open"]);
    assert_eq!(world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));
}

/// The ledger, to look into.
async fn ledger(world: &World) -> sqlx::SqlitePool {
    let path = world.program.path("reports/ledger.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    sqlx::SqlitePool::connect_with(options).await.expect("the ledger")
}

/// Where every plan of the ledger stands.
async fn plan_states(world: &World) -> Vec<String> {
    let states = sqlx::query_scalar("SELECT state FROM plans ORDER BY run_id");
    states.fetch_all(&ledger(world).await).await.expect("read")
}

/// What `apply --allow` put on record for a plan.
async fn recorded_allowances(world: &World, plan_hash: &Value) -> BTreeMap<String, String> {
    let rows = sqlx::query_as("SELECT breaker, value FROM allowances WHERE plan_hash = ?1").bind(plan_hash.as_str());
    let rows: Vec<(String, String)> = rows.fetch_all(&ledger(world).await).await.expect("read");
    rows.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_size_breaker_refuses_and_is_lifted_by_name_for_one_plan_on_record() {
    let breakers = [
        ("orphan_groups", ("MAX_ORPHAN_GROUPS", "2"), "2", "3", json!(3)),
        ("objects", ("MAX_OBJECTS", "5"), "5", "6", json!(6)),
        ("bytes", ("MAX_BYTES", "59"), "59", "60", json!(60)),
        ("orphan_share", ("MAX_ORPHAN_SHARE", "0.5"), "0.59", "0.6", json!(0.6)),
        ("foreign_share", ("MAX_FOREIGN_SHARE", "0.1"), "0.16", "0.17", json!(1.0 / 6.0)),
    ];
    let tests = breakers
        .map(|(name, limit, too_little, enough, observed)| size_breaker(name, limit, too_little, enough, observed));
    futures::future::join_all(tests).await;
}

/// Three orphans of two objects and 20 bytes each among five groups, and one foreign key: one more than `limit` lets go.
async fn size_breaker(name: &str, limit: (&str, &str), too_little: &str, enough: &str, observed: Value) {
    let mut world = World::new().await;
    world.program.set_scope("LIMITS__SMALL", "0");
    world.program.set_scope(&format!("LIMITS__{}", limit.0), limit.1);
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    world.bucket.put("synthetic/notes.txt", b"mine").await;
    for _ in 0..2 {
        world.live(1).await;
    }
    let mut gone = Vec::new();
    for _ in 0..3 {
        gone.push(prefix(0, world.orphan(0).await));
    }
    let before = world.contents().await;
    // An audit says so and is done.
    let summary = world.audit().await;
    assert_eq!(
        (&breaker(&summary, name)["tripped"], &breaker(&summary, name)["observed"]),
        (&true.into(), &observed),
        "{name}"
    );
    let plan = world.plan_of_newest_audit();
    let others =
        summary["breakers"].as_array().expect("breakers").iter().filter(|reading| reading["tripped"] == true).count();
    assert_eq!(others, 1, "{name}: only that one");
    for arguments in [
        vec!["sweep", "--json"],
        vec!["apply", &plan, "--yes", "--json"],
        vec!["apply", &plan, "--dry-run", "--json"],
        vec!["apply", &plan, "--yes", "--json", "--allow", &format!("{name}={too_little}")],
    ] {
        let ran: Ran = world.program.run(&arguments).await;
        let summary = ran.summary(4);
        assert_eq!((&summary["outcome"], &summary["deletion"]), (&"refused".into(), &Value::Null), "{arguments:?}");
        assert_eq!(
            (&breaker(&summary, name)["tripped"], &breaker(&summary, name)["latched"]),
            (&true.into(), &false.into())
        );
        assert!(ran.stderr.contains(&format!("--allow {name}=")), "the next command: {}", ran.stderr);
    }
    assert_eq!(world.contents().await, before);
    assert_eq!(
        recorded_allowances(&world, &summary["plan_hash"]).await,
        BTreeMap::new(),
        "what was refused lifts nothing"
    );
    let lift = format!("{name}={enough}");
    let summary = world.program.run(&["apply", &plan, "--yes", "--json", "--allow", &lift]).await.summary(0);
    assert_eq!(breaker(&summary, name)["tripped"], false);
    assert_eq!(summary["deletion"]["deleted"], 6);
    assert_eq!(world.contents().await, without(&before, &gone));
    let recorded = recorded_allowances(&world, &summary["plan_hash"]).await;
    assert_eq!(recorded.keys().collect::<Vec<_>>(), [name]);
    assert!(recorded[name].contains(enough), "{recorded:?}");
    // For that plan only.
    for _ in 0..3 {
        world.orphan(0).await;
    }
    world.audit().await;
    assert_eq!(world.apply().await.code, 4, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tripped_size_breaker_is_reported_at_once_and_all_must_be_lifted() {
    let mut world = World::new().await;
    for (limit, value) in [("MAX_ORPHAN_GROUPS", "0"), ("MAX_OBJECTS", "0"), ("MAX_BYTES", "0")] {
        world.program.set_scope(&format!("LIMITS__{limit}"), value);
    }
    world.live(0).await;
    world.orphan(0).await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let before = world.contents().await;
    let summary = world
        .program
        .run(&["apply", &plan, "--yes", "--json", "--allow", "objects=10", "--allow", "bytes=1MiB"])
        .await
        .summary(4);
    let tripped = |name: &str| breaker(&summary, name)["tripped"].clone();
    assert_eq!(
        (tripped("orphan_groups"), tripped("objects"), tripped("bytes")),
        (true.into(), false.into(), false.into())
    );
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(4);
    assert!(
        ["orphan_groups", "objects", "bytes"]
            .iter()
            .all(|name| summary["reason"].as_str().is_some_and(|reason| reason.contains(name)))
    );
    for wrong in
        ["objects", "objects=many", "orphan_share=2", "nothing=1", "no_overlap=0", "live_drop=1.0", "incomplete=1"]
    {
        let ran = world.program.run(&["apply", &plan, "--yes", "--json", "--allow", wrong]).await;
        assert_eq!(ran.code, 2, "{wrong}: {ran:?}");
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_deletes_under_automatic_approval_and_only_plans_where_a_person_approves() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = world.orphan(0).await;
    world.settle().await;
    let before = world.contents().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["outcome"], &summary["deletion"], &summary["groups"]["eligible"]),
        (&"complete".into(), &Value::Null, &1.into())
    );
    assert_eq!(world.contents().await, before, "approval = \"required\" is the default");
    assert!(world.program.read("plan.json").contains(&id.to_string()));
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["command"], &summary["deletion"]["deleted"]), (&"sweep".into(), &2.into()));
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id)]));
    // Every night from now on there is nothing to do.
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["outcome"], &summary["deletion"]), (&"complete".into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_changed_since_the_plan_is_skipped_with_its_reason_and_the_others_go() {
    let world = World::new().await;
    world.live(0).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(world.orphan(0).await);
    }
    let [grown, overwritten, rewritten_alike, shrunk, twin, odd_twin, unchanged] = ids[..] else {
        unreachable!("seven")
    };
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    world.put_group(&prefix(0, grown), &["new.npy"]).await;
    world.bucket.put(&format!("{}a.npy", prefix(0, overwritten)), b"9876543210").await;
    world.bucket.put(&format!("{}a.npy", prefix(0, rewritten_alike)), b"0123456789").await;
    world.bucket.delete(&format!("{}a.npy", prefix(0, shrunk))).await;
    world.put_group(&prefix(1, twin), &["new.npy"]).await;
    world.put_group(&format!("synthetic/{}/", odd_twin.to_string().to_uppercase()), &["new.npy"]).await;
    world.settle().await;
    let before = world.contents().await;
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["outcome"], "complete");
    for (id, objects, what) in [
        (grown, 3, "new object"),
        (overwritten, 2, "overwritten"),
        (rewritten_alike, 2, "written again"),
        (shrunk, 1, "removed"),
        (twin, 2, "twin"),
        (odd_twin, 2, "odd twin"),
    ] {
        assert_eq!(outcomes(&world, &prefix(0, id)), all(objects, "skipped", "changed_since_plan"), "{what}");
    }
    assert_eq!(outcomes(&world, &prefix(0, unchanged)), all(2, "deleted", ""));
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["requested"], &deletion["deleted"], &deletion["skipped"]),
        (&14.into(), &2.into(), &12.into()),
        "{deletion:#}"
    );
    assert_eq!(world.contents().await, without(&before, &[prefix(0, unchanged)]));
    // They begin anew: the next scan sees each of them changed, and the one after that lets them go.
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["groups"]["orphan"]), (&0.into(), &8.into()), "{summary:#}");
    assert!(
        world
            .program
            .csv("orphans.csv")
            .iter()
            .all(|row| row["reason"] == "changed_since_seen" || row["reason"] == "not_canonical")
    );
}
