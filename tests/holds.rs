//! Protected ids: a hold of any source wins over every other rule, until its end, also while a deletion is running.

use std::process::ExitCode;
use std::sync::Arc;

use chrono::Duration;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::gate::{Gate, Passing};
use crate::support::nights::Nights;
use crate::support::{World, odd_spellings, prefix, without};

/// A world that reads its holds from a file beside its configuration.
fn with_file(world: &mut World, rows: &str) {
    world.program.set_scope("HOLDS__FILE", "holds.csv");
    write_holds(world, rows);
}

fn write_holds(world: &World, rows: &str) {
    std::fs::write(world.program.path("holds.csv"), format!("id,until,by,reason\n{rows}")).expect("written");
}

fn reason_of(world: &World, id: Uuid) -> Option<String> {
    let rows = world.program.csv("orphans.csv");
    rows.iter().find(|row| row["id"] == id.to_string()).map(|row| row["reason"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_an_orphan_that_every_other_rule_lets_go_and_shows_in_every_report() {
    let world = World::new().await;
    world.live(0).await;
    let (held, other) = (world.orphan(0).await, world.orphan(1).await);
    world.put_group(&prefix(1, held), &["twin"]).await;
    let before = world.contents().await;
    let early = world.audit().await["plan_hash"].as_str().expect("a plan").to_owned();
    let added = ["hold", "add", &held.to_string().to_uppercase(), "--by", "ada", "--reason", "evidence <b>", "--json"];
    let ran = world.program.run(&added).await;
    assert_eq!((ran.code, &ran.json()["held"]["id"]), (0, &held.to_string().into()), "{ran:?}");
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["orphan"], &summary["groups"]["eligible"]), (&3.into(), &1.into()), "{summary:#}");
    let shown = json!({ "total": 1, "protecting": [
        { "id": held.to_string(), "until": null, "by": "ada", "reason": "evidence <b>", "source": "ledger" }
    ]});
    assert_eq!(summary["holds"], shown);
    let rows = world.program.csv("orphans.csv");
    let reasons: Vec<(&str, &str)> = rows
        .iter()
        .filter(|row| row["id"] == held.to_string())
        .map(|row| (row["verdict"].as_str(), row["reason"].as_str()))
        .collect();
    assert_eq!(reasons, [("keep", "held"); 2], "both its groups");
    let page = world.program.read("report.html");
    assert!(page.contains("Held by persons") && page.contains("evidence &#60;b&#62;"), "escaped, with its reason");
    let text = world.program.run(&["audit"]).await.stdout;
    assert!(
        text.contains("1 id is held; 1 of them kept an orphan") && text.contains("by ada (ledger): evidence <b>"),
        "{text}"
    );
    // The plan that was made before the hold.
    let summary = world.program.run(&["apply", &early, "--yes", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&2.into(), &3.into()));
    assert_eq!(summary["holds"], shown);
    assert_eq!(reason_of(&world, held).as_deref(), Some("held"));
    let skipped = world.program.csv("deletions.csv");
    assert!(skipped.iter().filter(|row| row["outcome"] == "skipped").all(|row| row["reason"] == "held"), "{skipped:?}");
    assert_eq!(world.contents().await, without(&before, &[prefix(1, other)]));
    let removed = world.program.run(&["hold", "remove", &held.to_string(), "--json"]).await;
    assert_eq!((removed.code, &removed.json()["removed"]), (0, &1.into()), "{removed:?}");
    assert_eq!(world.program.run(&["hold", "remove", &held.to_string()]).await.code, 2, "none is left");
    assert_eq!(world.audit().await["groups"]["eligible"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_orphan_goes_on_being_sighted_and_a_hold_ends_at_its_time() {
    let nights = Nights::begin().await;
    let id = nights.orphan(0, Duration::days(40));
    let day = (nights.now() + Duration::days(20)).format("%Y-%m-%d").to_string();
    let add = ["hold", "add", &id.to_string(), "--by", "ada", "--reason", "x", "--until", &day];
    assert_eq!(nights.run(&add).await, ExitCode::SUCCESS, "before the first audit");
    for _ in 0..20 {
        nights.night(24).await;
        assert_eq!(nights.reason(id).as_deref(), Some("held"));
    }
    let rows = nights.program.csv("orphans.csv");
    assert_eq!(rows[0]["sightings"], "20", "its sightings go on");
    // Midnight after the last day of the hold is 21 hours away; then it is eligible at once.
    let next = nights.summary()["next_eligible_at"].as_str().expect("a time").to_owned();
    assert_eq!(next[..10], (nights.now() + Duration::days(1)).format("%Y-%m-%d").to_string());
    nights.night(20).await;
    assert_eq!(nights.reason(id).as_deref(), Some("held"), "an hour before its end");
    nights.night(1).await;
    assert_eq!(nights.reason(id).as_deref(), Some("eligible"), "{:#}", nights.summary());
    assert_eq!(nights.summary()["holds"], json!({ "total": 0, "protecting": [] }));
    let past = ["hold", "add", &id.to_string(), "--by", "ada", "--reason", "x", "--until", "2026-01-01"];
    assert_eq!(nights.run(&past).await, ExitCode::from(2), "it would protect nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_protects_in_any_spelling_and_unreadable_it_ends_the_run() {
    let mut world = World::new().await;
    world.live(0).await;
    let ids = [world.orphan(0).await, world.orphan(1).await, world.orphan(0).await];
    let [upper, braced, ..] = odd_spellings(ids[0]);
    let simple = ids[1].simple();
    with_file(&mut world, &format!("{upper},,ada,x\n{braced},2020-01-01,ada,over\n{simple},2999-12-31,,y\n"));
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["holds"]["total"]), (&1.into(), &2.into()), "{summary:#}");
    let plan = world.plan_of_newest_audit();
    let list = world.program.run(&["hold", "list", "--json"]).await.json();
    let counting: Vec<&Value> =
        list[0]["holds"].as_array().expect("holds").iter().map(|hold| &hold["counts"]).collect();
    assert_eq!(counting, [true, true, false], "{list:#}");
    let newcomer = world.orphan(1).await;
    for (rows, says) in [
        (format!("{},,ada,x\nnot-an-id,,ada,y\n", ids[0]), "line 3: `not-an-id` is no UUID"),
        (format!("{},soon,ada,x\n", ids[0]), "line 2: `soon` is no end"),
        (format!("{}\n", ids[0]), "line 2: has another number of fields"),
    ] {
        write_holds(&world, &rows);
        for command in [vec!["audit", "--json"], vec!["apply", &plan, "--yes", "--json"]] {
            let summary = world.program.run(&command).await.summary(1);
            let reason = summary["reason"].as_str().expect("a reason");
            assert!(reason.contains("holds.csv") && reason.contains(says), "{reason}");
            assert_eq!((&summary["outcome"], &summary["deletion"]), (&"failed".into(), &Value::Null));
        }
    }
    std::fs::remove_file(world.program.path("holds.csv")).expect("removed");
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(1);
    assert!(summary["reason"].as_str().expect("a reason").contains("holds.csv"), "{summary:#}");
    let kept = without(&world.contents().await, &[prefix(1, newcomer)]);
    assert_eq!(kept, before, "doubt keeps");
    write_holds(&world, &format!("{},,ada,x\n", ids[2]));
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&0.into(), &2.into()),
        "{summary:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_read_with_the_live_ids_and_a_row_that_cannot_be_read_ends_the_run() {
    let mut world = World::new().await;
    world.live(0).await;
    let ids = [world.orphan(0).await, world.orphan(1).await, world.orphan(0).await, world.orphan(1).await];
    let role = world.database.role.clone();
    world.database.execute("CREATE TABLE heimdall.dataset_holds (id text, until date, \"by\" text, reason text)").await;
    world.program.set_scope("HOLDS__TABLE", "heimdall.dataset_holds");
    let summary = world.program.run(&["audit", "--json"]).await.summary(1);
    assert!(
        summary["reason"].as_str().expect("a reason").contains("dataset_holds"),
        "no right to read it: {summary:#}"
    );
    world.database.execute(&format!("GRANT SELECT ON heimdall.dataset_holds TO {role}")).await;
    let insert = format!(
        "INSERT INTO heimdall.dataset_holds VALUES ('{}', NULL, 'ada', 'x'), ('{{{}}}', (now() AT TIME ZONE 'UTC')::date, NULL, NULL), \
         ('{}', 'infinity', 'ada', 'y'), ('{}', '2020-01-01', 'ada', 'over')",
        ids[0].simple(),
        ids[1],
        ids[2],
        ids[3]
    );
    world.database.execute(&insert).await;
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["holds"]["total"]), (&1.into(), &3.into()), "{summary:#}");
    let protecting = summary["holds"]["protecting"].as_array().expect("holds");
    assert!(protecting.iter().all(|held| held["source"] == "table"), "{protecting:?}");
    assert_eq!(reason_of(&world, ids[3]).as_deref(), Some("eligible"));
    let list = world.program.run(&["hold", "list"]).await.stdout;
    assert!(list.contains(&ids[0].to_string()) && list.contains("(over)") && list.contains("table"), "{list}");
    world.database.execute("INSERT INTO heimdall.dataset_holds VALUES ('nobody', NULL, 'ada', 'z')").await;
    let summary = world.apply().await.summary(1);
    assert!(summary["reason"].as_str().expect("a reason").contains("`nobody`"), "{summary:#}");
    assert!(summary["deletion"].is_null());
    // Without the column `by`.
    world.database.execute("DELETE FROM heimdall.dataset_holds WHERE id = 'nobody'").await;
    world.database.execute("ALTER TABLE heimdall.dataset_holds DROP COLUMN \"by\"").await;
    assert_eq!(world.audit().await["holds"]["total"], 3);
}

/// A world with one orphan of 2,500 objects, planned through a gate that acts before the first batch passes.
async fn three_batches<F>(mut world: World, id: Uuid, act: impl Fn() -> F + Send + Sync + 'static) -> Value
where
    F: Future<Output = ()> + Send + 'static,
{
    world.bucket.put_many((0..2500).map(|n| format!("{}{n:05}", prefix(1, id)))).await;
    let act = Arc::new(act);
    let gate = Gate::open(&world.bucket.endpoint, move |passing: Passing| {
        let act = act.clone();
        async move {
            if passing.is_batch_delete() && passing.number == 1 {
                act().await;
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    let summary = world.apply().await.summary(0);
    let left = world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count();
    assert_eq!(left, 1500, "{summary:#}");
    let rows = world.program.csv("deletions.csv");
    assert!(rows.iter().filter(|row| row["outcome"] == "skipped").all(|row| row["reason"] == "held"), "{summary:#}");
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_in_the_file_stops_a_deletion_that_is_running() {
    let mut world = World::new().await;
    world.live(0).await;
    with_file(&mut world, "");
    let (id, file) = (Uuid::new_v4(), world.program.path("holds.csv"));
    let summary = three_batches(world, id, move || {
        std::fs::write(&file, format!("id,until,reason\n{id},,x\n")).expect("written");
        std::future::ready(())
    })
    .await;
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&1000.into(), &1500.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_in_the_table_stops_a_deletion_that_is_running() {
    let mut world = World::new().await;
    world.live(0).await;
    world
        .database
        .execute("CREATE TABLE heimdall.dataset_holds (id uuid, until timestamptz, \"by\" text, reason text)")
        .await;
    world.database.execute(&format!("GRANT SELECT ON heimdall.dataset_holds TO {}", world.database.role.clone())).await;
    world.program.set_scope("HOLDS__TABLE", "heimdall.dataset_holds");
    let (id, pool) = (Uuid::new_v4(), world.database.pool.clone());
    three_batches(world, id, move || {
        let pool = pool.clone();
        async move {
            let insert = format!("INSERT INTO heimdall.dataset_holds VALUES ('{id}', NULL, 'ada', 'x')");
            sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.expect("inserted");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_in_the_ledger_stops_a_deletion_that_is_running() {
    let world = World::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    let add = ["hold", "add", &id.to_string(), "--by", "ada", "--reason", "x"];
    let command = Arc::new(parking_lot::Mutex::new(world.program.command(&add)));
    three_batches(world, id, move || {
        let command = command.clone();
        async move {
            let status = tokio::task::spawn_blocking(move || command.lock().status()).await.expect("joined");
            assert!(status.expect("it starts").success());
        }
    })
    .await;
}
