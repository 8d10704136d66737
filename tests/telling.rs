//! What a run asked for is told once, also where the ledger fails when it comes to telling it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::Connection;

use crate::backfill::told_rows;
use crate::support::{Database, MemoryWorld, Ran};

/// Changes the ledger behind the program's back, as a full disk does.
async fn tamper(world: &MemoryWorld, sql: &str) {
    let path = world.program.path("reports/ledger.sqlite3");
    let mut file = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("opened");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut file).await.expect("changed");
    file.close().await.expect("closed");
}

/// A statement that the ledger refuses from now on.
async fn refuse(world: &MemoryWorld, what: &str) {
    tamper(world, &format!("CREATE TRIGGER full BEFORE {what} BEGIN SELECT RAISE(ABORT, 'disk full'); END")).await;
}

async fn allow(world: &MemoryWorld) {
    tamper(world, "DROP TRIGGER full").await;
}

/// What the reports tell together of one count of one section.
fn told(world: &MemoryWorld, section: &str, count: &str) -> u64 {
    let summaries = world.program.run_folders().into_iter().map(|folder| folder.join("summary.json"));
    let texts = summaries.filter_map(|summary| std::fs::read_to_string(summary).ok());
    let values = texts.map(|text| serde_json::from_str::<Value>(&text).expect("a summary"));
    values.filter_map(|summary| summary[section][count].as_u64()).sum()
}

fn reports(world: &MemoryWorld) -> usize {
    world.program.run_folders().iter().filter(|folder| folder.join("summary.json").exists()).count()
}

async fn planned() -> (MemoryWorld, String) {
    let world = MemoryWorld::new().await;
    world.live(0).await;
    world.orphan(0);
    world.audit().await;
    let plan = world.program.latest("plan.json");
    (world, plan)
}

async fn apply(world: &MemoryWorld, plan: &str) -> Ran {
    world.program.run(&["apply", plan, "--yes", "--json"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_could_not_tell_is_told_by_the_next_run_of_its_plan() {
    // The first when it tells, the second when it settles what it asked for, the third at the end of its undo.
    for what in ["UPDATE ON plan_steps", "INSERT ON disposals", "INSERT ON intents WHEN NEW.outcome IS NOT NULL"] {
        let (world, plan) = planned().await;
        refuse(&world, what).await;
        let ran = apply(&world, &plan).await;
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(ran.stderr.contains("disk full"), "{what}: {ran:?}");
        assert_eq!(world.keys().len(), 1, "{what}: it was deleted");
        allow(&world).await;
        let ran = apply(&world, &plan).await;
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        assert_eq!(told(&world, "deletion", "deleted"), 2, "{what}: {ran:?}");
        assert_eq!(apply(&world, &plan).await.code, 4, "{what}: the plan is closed");
        let verified = world.program.run(&["history", "verify"]).await;
        assert_eq!(verified.code, 0, "{what}: {verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_tell_what_it_asked_for_leaves_no_report() {
    let (world, plan) = planned().await;
    refuse(&world, "UPDATE ON plan_steps").await;
    assert_eq!(apply(&world, &plan).await.code, 1);
    assert_eq!(reports(&world), 1, "the audit's");
    allow(&world).await;
    // Another command in between tells nothing of it.
    world.audit().await;
    let summary = apply(&world, &plan).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["steps"]["runs"]), (&json!(2), &json!(2)), "{summary:#}");
    assert_eq!(world.program.csv("deletions.csv").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_comes_back_is_told_by_the_same_run() {
    let (mut world, _) = planned().await;
    let ledger = Database::create().await;
    world.program.edit_config(|text| text.replace("path = \"reports/ledger.sqlite3\"", "# path"));
    world.program.set("ORPHAN_SWEEPER_LEDGER_URL", &ledger.admin_url());
    world.audit().await;
    let plan = world.program.latest("plan.json");
    // Two statements fail, as if the server restarted: a sequence is the one thing that no transaction takes back.
    ledger
        .execute(
            "CREATE SEQUENCE orphan_sweeper.tries; \
             CREATE FUNCTION orphan_sweeper.restart() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF nextval('orphan_sweeper.tries') < 3 THEN RAISE 'terminating connection'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER restart BEFORE UPDATE ON orphan_sweeper.plan_steps FOR EACH ROW EXECUTE FUNCTION orphan_sweeper.restart()",
        )
        .await;
    let summary = apply(&world, &plan).await.summary(1);
    assert_eq!((&summary["outcome"], &summary["deletion"]["deleted"]), (&json!("failed"), &json!(2)), "{summary:#}");
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("terminating connection")), "{summary:#}");
    let summary = apply(&world, &plan).await.summary(0);
    assert_eq!((&summary["deletion"], &summary["steps"]["deleted"]), (&Value::Null, &json!(2)), "{summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_the_ledger_did_not_take_is_told_all_the_same() {
    let mut world = MemoryWorld::new().await;
    world.program.set("ORPHAN_SWEEPER_TEST_PART_ROWS", "3");
    world.live(0).await;
    for pattern in 0..4 {
        world.orphan(pattern % 2);
    }
    world.audit().await;
    let plan = world.program.latest("plan.json");
    refuse(&world, "INSERT ON deletion_parts").await;
    let first = apply(&world, &plan).await.summary(1);
    allow(&world).await;
    let deleted = first["deletion"]["deleted"].as_u64().expect("a count");
    assert!(deleted >= 4, "a part was full: {first:#}");
    assert_eq!(first["deletion"]["requested"], told_rows(&world).len(), "no row is missing: {first:#}");
    let last = apply(&world, &plan).await.summary(0);
    assert_eq!(told(&world, "deletion", "deleted"), 8, "{last:#}");
    assert_eq!(last["steps"]["deleted"], 8, "{last:#}");
    assert_eq!(told_rows(&world).into_iter().collect::<BTreeSet<_>>().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reaper_could_not_tell_is_told_by_the_next() {
    let mut world = MemoryWorld::new().await;
    world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    world.live(0).await;
    world.orphan(0);
    world.audit().await;
    world.apply().await.summary(0);
    let aside = || world.keys().iter().filter(|key| key.starts_with("quarantine/")).count();
    assert_eq!(aside(), 2);
    // Old enough to be sure of their age.
    for key in world.keys().into_iter().filter(|key| key.starts_with("quarantine/")) {
        world.put(&key);
    }
    refuse(&world, "INSERT ON chain WHEN NEW.kind = 'reaped'").await;
    let before = reports(&world);
    let ran = world.program.run(&["sweep", "--json"]).await;
    assert_eq!((ran.code, reports(&world), aside()), (1, before, 0), "{ran:?}");
    allow(&world).await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["reaped"]["objects"], 2, "{summary:#}");
    assert_eq!(told(&world, "reaped", "objects"), 2);
}
