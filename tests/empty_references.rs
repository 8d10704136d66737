//! A live table that is really empty: only a person deletes by it, one plan at a time, while it stays empty.

use serde_json::Value;
use uuid::Uuid;

use crate::support::gate::{Gate, Passing};
use crate::support::program::breaker;
use crate::support::{World, prefix};

/// A world whose last datasets were deleted, which a person has acknowledged, with what is left in the bucket.
async fn emptied() -> (World, Uuid) {
    let world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let orphan = world.orphan(1).await;
    world.audit().await;
    world.database.execute("DELETE FROM heimdall.synthetic_datasets").await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_eq!(breaker(&summary, "no_references")["latched"], true, "{summary:#}");
    for reading in summary["breakers"].as_array().expect("breakers").iter().filter(|reading| reading["latched"] == true)
    {
        let name = reading["name"].as_str().expect("a name");
        let ran = world.program.run(&["ack", name, "--by", "ada", "--reason", "the platform was emptied"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    (world, orphan)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_emptiness_leaves_plans_that_only_a_person_applies_by_the_plans_hash() {
    let (mut world, _) = emptied().await;
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["groups"]["live"]), (&4.into(), &0.into()), "{summary:#}");
    let before = world.contents().await;
    let hash = summary["plan_hash"].as_str().expect("a plan").to_owned();
    let ran = world.program.run(&["apply", &hash, "--yes", "--json"]).await;
    let refused = ran.summary(4);
    assert!(refused["reason"].as_str().expect("a reason").contains("synthetic_datasets has no rows"), "{refused:#}");
    let typed = format!("orphan-sweeper apply {hash} --accept-empty-references {hash}");
    assert!(ran.stderr.contains(&typed), "exactly what to type: {}", ran.stderr);
    for wrong in [&hash[..20], &"0".repeat(64), ""] {
        let ran = world.program.run(&["apply", &hash, "--yes", "--accept-empty-references", wrong]).await;
        assert_eq!(ran.code, 4, "{ran:?}");
    }
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert!(summary["deletion"].is_null(), "a schedule never does: {summary:#}");
    world.program.set_scope("POLICY__APPROVAL", "required");
    let decision = ["plan", "approve", &hash, "--by", "ada", "--reason", "x"];
    assert_eq!(world.program.run(&decision).await.code, 0);
    world.program.run(&["sweep", "--json"]).await.summary(4);
    assert_eq!(world.contents().await, before);
    let ran = world.program.run(&["apply", &hash, "--yes", "--json", "--accept-empty-references", &hash]).await;
    assert_eq!(ran.summary(0)["deletion"]["deleted"], 5, "{ran:?}");
    assert!(world.contents().await.is_empty());
}

/// A run by an emptied table into which a row of `id` comes with a batch of that number, and which deletes so many objects
/// at most; the gate that saw it, and the plan. Of its ids, `large` has five batches and four others have one each.
async fn stopped_by_a_row_of(id: Uuid, large: Uuid, at_batch: usize, at_most: u64) -> (World, Gate, String) {
    let (mut world, _) = emptied().await;
    world.bucket.put_many((0..4500).map(|n| format!("{}{n:05}", prefix(1, large)))).await;
    let pool = world.database.pool.clone();
    let gate = Gate::open(&world.bucket.endpoint, move |passing: Passing| {
        let pool = pool.clone();
        async move {
            if passing.is_batch_delete() && passing.number == at_batch {
                let insert = format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')");
                sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.expect("inserted");
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    assert_eq!(world.program.run(&["audit"]).await.code, 4);
    assert_eq!(world.program.run(&["ack", "target_changed", "--by", "ada", "--reason", "a gate"]).await.code, 0);
    let hash = world.audit().await["plan_hash"].as_str().expect("a plan").to_owned();
    let held = world.contents().await.len();
    let apply = ["apply", &hash, "--yes", "--json", "--accept-empty-references", &hash];
    let summary = world.program.run(&apply).await.summary(4);
    assert!(summary["reason"].as_str().expect("a reason").contains("was empty when the run read it"), "{summary:#}");
    let deleted = summary["deletion"]["deleted"].as_u64().expect("a count");
    assert!((1..=at_most).contains(&deleted), "{summary:#}");
    assert_eq!(world.contents().await.len() as u64, held as u64 - deleted);
    // Empty again, and the person says so again.
    world.database.execute("DELETE FROM heimdall.synthetic_datasets").await;
    (world, gate, hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_appears_in_the_empty_table_stops_the_run() {
    // One batch was on its way when the row came, beside at most one of each other id.
    let (world, _gate, hash) = stopped_by_a_row_of(Uuid::new_v4(), Uuid::new_v4(), 1, 1010).await;
    let ran = world.program.run(&["apply", &hash, "--yes", "--json", "--accept-empty-references", &hash]).await;
    assert_eq!((ran.code, &ran.json()[0]["deletion"]["failed"]), (0, &Value::from(0)), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_live_when_its_row_ended_the_run_stays_although_the_row_goes_again() {
    let id = Uuid::new_v4();
    // The fifth batch is of the large one, or of the last other: whatever is asked next is asked for the large one.
    let (world, _gate, hash) = stopped_by_a_row_of(id, id, 5, 4508).await;
    let of_id = async || world.contents().await.into_keys().filter(|key| key.contains(&id.to_string())).count();
    let left = of_id().await;
    assert!(left >= 500, "{left}");
    let ran = world.program.run(&["apply", &hash, "--yes", "--json", "--accept-empty-references", &hash]).await;
    assert_eq!((ran.code, of_id().await), (0, left), "{ran:?}");
}
