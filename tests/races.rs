//! Writers that move while we look: no object goes whose id was live at its last check.

use std::sync::Arc;

use sqlx::Connection;
use uuid::Uuid;

use crate::support::gate::{Gate, Passing};
use crate::support::{World, prefix, without};

/// Runs a statement when a request of the wanted kind and number passes.
async fn at(world: &World, wanted: fn(&Passing) -> bool, number: usize, statement: String) -> Gate {
    let pool = world.database.pool.clone();
    Gate::open(&world.bucket.endpoint, move |passing| {
        let (pool, statement) = (pool.clone(), statement.clone());
        async move {
            if wanted(&passing) && passing.number == number {
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("executed");
            }
        }
    })
    .await
}

fn insert(id: Uuid) -> String {
    format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_inserted_while_the_bucket_is_listed_protects() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = world.orphan(1).await;
    world.settle().await;
    let gate = at(&world, Passing::is_prefix_listing, 1, insert(id)).await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let summary = world.program.run(&["audit", "--json"]).await.summary(0);
    assert_eq!((&summary["groups"]["live"], &summary["groups"]["orphan"]), (&2.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_of_another_process_while_the_bucket_is_listed_lets_no_sighting_begin() {
    let mut world = World::new().await;
    world.live(0).await;
    let ledger = world.program.path("reports/ledger.sqlite3").display().to_string();
    let gate = Gate::open(&world.bucket.endpoint, move |passing| {
        let ledger = ledger.clone();
        async move {
            if passing.is_prefix_listing() && passing.number == 2 {
                let mut file = sqlx::SqliteConnection::connect(&ledger).await.expect("opened");
                sqlx::raw_sql("UPDATE looks SET number = number + 1").execute(&mut file).await.expect("counted");
                file.close().await.expect("closed");
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let known = world.orphan(1).await;
    world.audit().await;
    let new = world.orphan(1).await;
    let audited = world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    let sightings = async |id: Uuid| {
        let explained = world.program.run(&["explain", &id.to_string(), "--json"]).await;
        explained.json()[0]["sightings"].clone()
    };
    assert_eq!((sightings(known).await, sightings(new).await), (2.into(), 0.into()), "{audited:?}");
    assert!(audited.stderr.contains("no sighting begins yet"), "{audited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_inserted_between_plan_and_apply_protects_and_leaves_the_plan_for_good() {
    let world = World::new().await;
    world.live(0).await;
    let (id, other) = (world.orphan(1).await, world.orphan(0).await);
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    world.database.insert(id).await;
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&2.into(), &2.into()));
    let rows = world.program.csv("deletions.csv");
    assert!(
        rows.iter()
            .filter(|row| row["group"] == prefix(1, id))
            .all(|row| row["outcome"] == "skipped" && row["reason"] == "live_again")
    );
    assert_eq!(world.contents().await, without(&before, &[prefix(0, other)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_an_audit_in_between_saw_live_is_off_the_plan_though_its_row_is_gone_again() {
    let world = World::new().await;
    world.live(0).await;
    let id = world.orphan(1).await;
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    world.database.insert(id).await;
    world.audit().await;
    world.database.delete(id).await;
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 0);
    assert_eq!(summary["deletion"]["skipped"], 2);
    assert_eq!(world.contents().await, before);
}

/// A world with one orphan of 2,500 objects, planned, that is about to be deleted in three batches.
async fn three_batches() -> (World, Uuid, String) {
    let world = World::new().await;
    for _ in 0..4 {
        world.live(0).await;
    }
    let id = Uuid::new_v4();
    world.bucket.put_many((0..2500).map(|n| format!("{}{n:05}", prefix(1, id)))).await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    (world, id, plan)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_inserted_between_two_batches_ends_the_group_there() {
    let (world, id) = planned_through_gate("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('$id')").await;
    let plan = world.plan_of_newest_audit();
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&1000.into(), &1500.into()),
        "{summary:#}"
    );
    assert_eq!(world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 1500);
    // Off for good, also when the row goes again.
    world.database.delete(id).await;
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4);
}

/// The plan of `three_batches`, made through a gate that runs `statement` before the first batch passes.
async fn planned_through_gate(statement: &str) -> (World, Uuid) {
    let (mut world, id, _) = three_batches().await;
    let gate = at(
        &world,
        Passing::is_batch_delete,
        1,
        statement.replace("$role", &world.database.role).replace("$id", &id.to_string()),
    )
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    assert_eq!(world.program.run(&["audit"]).await.code, 4);
    assert_eq!(world.program.run(&["ack", "target_changed", "--by", "ada", "--reason", "a gate"]).await.code, 0);
    world.audit().await;
    (world, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_and_goes_during_the_run_keeps_the_rest_of_its_id() {
    let mut world = World::new().await;
    for _ in 0..4 {
        world.live(0).await;
    }
    // The plan's order: this id's group under the first pattern, then the one under the second.
    let id: Uuid = "0a000000-0000-4000-8000-000000000001".parse().expect("an id");
    world.bucket.put_many((0..1500).map(|n| format!("{}{n:05}", prefix(0, id)))).await;
    world.put_group(&prefix(1, id), &["twin"]).await;
    let pool = world.database.pool.clone();
    let listings = Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
    let gate = Gate::open(&world.bucket.endpoint, move |passing| {
        let (pool, listings) = (pool.clone(), listings.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            let statement = if passing.is_batch_delete() && passing.number == 1 {
                listings.store(0, SeqCst);
                insert(id)
                // The first listing after it is the second batch's, which then sees the row; at the next one the row goes again.
            } else if passing.target.contains("list-type=2") && listings.fetch_add(1, SeqCst) == 1 {
                format!("DELETE FROM heimdall.synthetic_datasets WHERE id = '{id}'")
            } else {
                return;
            };
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("executed");
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    let summary = world.apply().await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 1000, "{summary:#}");
    let contents = world.contents().await;
    assert!(contents.contains_key(&format!("{}twin", prefix(1, id))));
    assert_eq!(contents.keys().filter(|key| key.starts_with(&prefix(0, id))).count(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_emptied_between_two_batches_ends_the_run() {
    let (world, id) = planned_through_gate("TRUNCATE heimdall.synthetic_datasets").await;
    let live: Vec<String> = world.contents().await.into_keys().filter(|key| !key.starts_with(&prefix(1, id))).collect();
    let summary = world.apply().await.summary(4);
    assert_eq!(summary["outcome"], "refused");
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("known ids")), "{summary:#}");
    assert_eq!(summary["deletion"]["deleted"], 1000);
    let contents = world.contents().await;
    assert!(live.iter().all(|key| contents.contains_key(key)));
    assert_eq!(contents.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 1500);
    assert_eq!(world.program.run(&["audit"]).await.code, 4, "it latched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_swapped_between_two_batches_ends_the_run() {
    let swap = "CREATE TABLE heimdall.fresh (LIKE heimdall.synthetic_datasets INCLUDING ALL);
                ALTER TABLE heimdall.synthetic_datasets RENAME TO old;
                ALTER TABLE heimdall.fresh RENAME TO synthetic_datasets;
                GRANT SELECT ON heimdall.synthetic_datasets TO $role";
    let (world, id) = planned_through_gate(swap).await;
    let summary = world.apply().await.summary(4);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("changed while")), "{summary:#}");
    assert_eq!(summary["deletion"]["deleted"], 1000);
    assert_eq!(world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_written_between_verification_and_deletion_keeps_the_group() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = world.orphan(1).await;
    let bucket = world.bucket.clone();
    let is_armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let armed = is_armed.clone();
    let wanted = prefix(1, id);
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let gate = Gate::open(&world.bucket.endpoint, move |passing| {
        let (bucket, armed, wanted, seen) = (bucket.clone(), armed.clone(), wanted.clone(), seen.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            let is_ours = passing.is_group_listing() && passing.target.contains("dataset-") && armed.load(SeqCst);
            // The first listing of the group verifies it, the second deletes it.
            if is_ours && seen.fetch_add(1, SeqCst) == 1 {
                bucket.put(&format!("{wanted}late.npy"), b"late").await;
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    is_armed.store(true, std::sync::atomic::Ordering::SeqCst);
    let summary = world.apply().await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 0, "{summary:#}");
    assert_eq!(world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_uploaded_before_its_row_survives_because_of_grace() {
    let mut world = World::new().await;
    world.program.set_scope("POLICY__GRACE", "1h");
    world.live(0).await;
    let uploading = world.orphan(0).await;
    world.settle().await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(0);
    assert_eq!((&summary["groups"]["in_grace"], &summary["groups"]["eligible"]), (&1.into(), &0.into()));
    assert_eq!(world.apply().await.code, 0, "an empty plan is applied and nothing happens");
    world.database.insert(uploading).await;
    assert_eq!(world.program.run(&["audit", "--json"]).await.summary(0)["groups"]["orphan"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_are_one_run_and_exit_6() {
    let world = World::new().await;
    world.live(0).await;
    world.audit().await;
    // The lock is a lock on a file: whoever holds it, a test too.
    let lock = std::fs::File::open(world.program.path("reports/ledger.sqlite3.lock")).expect("a lock file");
    lock.lock().expect("locked");
    for arguments in [&["audit"][..], &["sweep"], &["apply", &world.plan_of_newest_audit(), "--yes"]] {
        assert_eq!(world.program.run(arguments).await.code, 6);
    }
    drop(lock);
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_into_one_group_keeps_its_twin_too() {
    let mut world = World::new().await;
    for _ in 0..4 {
        world.live(0).await;
    }
    let id: Uuid = "0c000000-0000-4000-8000-000000000003".parse().expect("an id");
    world.put_group(&prefix(0, id), &["a"]).await;
    world.put_group(&prefix(1, id), &["twin"]).await;
    let bucket = world.bucket.clone();
    let gate = Gate::open(&world.bucket.endpoint, move |passing| {
        let bucket = bucket.clone();
        async move {
            // While the first group is deleted, a writer begins anew under it; its row is not committed yet.
            if passing.is_batch_delete() && passing.number == 1 {
                bucket.put(&format!("{}fresh", prefix(0, id)), b"fresh").await;
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    let summary = world.apply().await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&1.into(), &1.into()),
        "{summary:#}"
    );
    let contents = world.contents().await;
    assert!(
        contents.contains_key(&format!("{}twin", prefix(1, id)))
            && contents.contains_key(&format!("{}fresh", prefix(0, id)))
    );
}
