//! Persons decide on plans, on record: what is approved goes with the next sweep and nothing else; what is rejected stays.

use std::process::ExitCode;
use std::sync::Arc;

use aws_sdk_s3::types::BucketVersioningStatus;
use chrono::Duration;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::gate::{Gate, Passing};
use crate::support::nights::Nights;
use crate::support::{Program, Ran, World, prefix, without};

const BY: [&str; 4] = ["--by", "ada", "--reason", "looked at each of them"];

/// Runs `plan approve` or `plan reject`; it must succeed.
async fn decide(program: &Program, decision: &str, plan: &str, ids: &[Uuid]) -> Value {
    let ran = decided(program, decision, plan, ids).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()
}

async fn decided(program: &Program, decision: &str, plan: &str, ids: &[Uuid]) -> Ran {
    let ids: Vec<String> = ids.iter().map(|id| format!("--id={id}")).collect();
    let mut arguments = vec!["plan", decision, plan, "--json"];
    arguments.extend(ids.iter().map(String::as_str));
    arguments.extend(BY);
    program.run(&arguments).await
}

/// A world with live datasets and three orphans, planned.
async fn planned() -> (World, [Uuid; 3], String) {
    let world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let orphans = [world.orphan(0).await, world.orphan(1).await, world.orphan(0).await];
    assert_eq!(world.audit().await["groups"]["eligible"], 3);
    let plan = world.plan_of_newest_audit();
    (world, orphans, plan)
}

fn reasons(world: &World, id: Uuid) -> Vec<(String, String)> {
    let rows = world.program.csv("deletions.csv");
    let of_id = rows.iter().filter(|row| row["group"].contains(&id.to_string()));
    of_id.map(|row| (row["outcome"].clone(), row["reason"].clone())).collect()
}

fn skipped(reason: &str) -> Vec<(String, String)> {
    vec![("skipped".into(), reason.into()); 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_applies_what_was_approved_since_and_nothing_else() {
    let (world, orphans, plan) = planned().await;
    let before = world.contents().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["outcome"], &summary["deletion"]), (&"complete".into(), &Value::Null), "nobody approved");
    let shown = decide(&world.program, "approve", &plan, &orphans[..2]).await;
    assert_eq!((&shown["approved"]["groups"], &shown["undecided"]["groups"]), (&2.into(), &1.into()), "{shown:#}");
    let dry = world.program.run(&["sweep", "--dry-run", "--json"]).await.summary(0);
    assert_eq!(dry["deletion"], Value::Null);
    assert_eq!(world.contents().await, before);
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"], &summary["plan_hash"]),
        (&4.into(), &2.into(), &shown["plan_hash"]),
        "{summary:#}"
    );
    assert_eq!(reasons(&world, orphans[2]), skipped("not_approved"));
    assert_eq!(world.contents().await, without(&before, &[prefix(0, orphans[0]), prefix(1, orphans[1])]));
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"], Value::Null, "it is done with: {summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_what_was_approved_in_one_plan_and_rejected_in_a_later_one() {
    let (world, orphans, plan) = planned().await;
    let before = world.contents().await;
    decide(&world.program, "approve", &plan, &[]).await;
    world.audit().await;
    decide(&world.program, "reject", &world.plan_of_newest_audit(), &orphans[..1]).await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&4.into(), &2.into()));
    assert_eq!(reasons(&world, orphans[0]), skipped("rejected"));
    let gone = [prefix(1, orphans[1]), prefix(0, orphans[2])];
    assert_eq!(world.contents().await, without(&before, &gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_id_stays_until_that_id_is_approved() {
    let (world, orphans, plan) = planned().await;
    let before = world.contents().await;
    decide(&world.program, "reject", &plan, &orphans[..1]).await;
    let shown = decide(&world.program, "approve", &plan, &[]).await;
    assert_eq!((&shown["approved"]["groups"], &shown["rejected"]["groups"]), (&2.into(), &1.into()), "{shown:#}");
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&4.into(), &2.into()));
    assert_eq!(summary["groups"]["eligible"], 2, "nobody is asked about it any more: {summary:#}");
    assert_eq!(reasons(&world, orphans[0]), skipped("rejected"));
    assert_eq!(world.contents().await, without(&before, &[prefix(1, orphans[1]), prefix(0, orphans[2])]));
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    decide(&world.program, "reject", &plan, &orphans[..1]).await;
    decide(&world.program, "approve", &plan, &orphans[..1]).await;
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 2, "{summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_rejected_as_a_whole_is_refused_with_who_and_why() {
    let (world, orphans, plan) = planned().await;
    let before = world.contents().await;
    decide(&world.program, "approve", &plan, &orphans[..1]).await;
    decide(&world.program, "reject", &plan, &[]).await;
    let ran = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    let summary = ran.summary(4);
    let reason = summary["reason"].as_str().expect("a reason");
    assert!(reason.contains("was rejected by ada at ") && reason.ends_with("looked at each of them"), "{reason}");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"], Value::Null, "{summary:#}");
    assert_eq!(world.contents().await, before);
    // One id of it is approved after all: that one goes, and nothing else.
    decide(&world.program, "approve", &plan, &orphans[2..]).await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&2.into(), &4.into()));
    assert_eq!(world.contents().await, without(&before, &[prefix(0, orphans[2])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_approved_plan_is_applied_and_one_that_is_refused_leaves_the_others() {
    let (mut world, orphans, first) = planned().await;
    let late = world.orphan(1).await;
    world.audit().await;
    let second = world.plan_of_newest_audit();
    let before = world.contents().await;
    decide(&world.program, "approve", &first, &[]).await;
    decide(&world.program, "approve", &second, &[late]).await;
    world.program.set_scope("LIMITS__MAX_OBJECTS", "5");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert!(summary["reason"].as_str().expect("a reason").contains("objects: "), "{summary:#}");
    assert_eq!(summary["deletion"]["deleted"], 2, "the second plan is small enough: {summary:#}");
    assert_eq!(world.contents().await, without(&before, &[prefix(1, late)]));
    world.program.set_scope("LIMITS__MAX_OBJECTS", "6");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 6, "{summary:#}");
    let gone = [prefix(0, orphans[0]), prefix(1, orphans[1]), prefix(0, orphans[2]), prefix(1, late)];
    assert_eq!(world.contents().await, without(&before, &gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_approved_plans_of_one_sweep_deleted_can_all_be_brought_back() {
    for is_versioned in [false, true] {
        let mut world = World::new().await;
        if is_versioned {
            world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
        } else {
            world.program.set_scope("POLICY__DISPOSAL", "quarantine");
        }
        world.live(0).await;
        for _ in 0..2 {
            let id = world.orphan(0).await;
            world.audit().await;
            decide(&world.program, "approve", &world.plan_of_newest_audit(), &[id]).await;
        }
        let keys = async || world.contents().await.into_keys().filter(|key| key.starts_with("synthetic/")).count();
        assert_eq!(keys().await, 5);
        let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
        assert_eq!((&summary["deletion"]["deleted"], keys().await), (&json!(4), 1), "{is_versioned}: {summary:#}");
        let run = summary["run_id"].as_str().expect("an id");
        let ran = world.program.run(&["restore", "--run", run, "--yes", "--json"]).await;
        assert_eq!((&ran.summary(0)["restore"]["restored"], keys().await), (&json!(4), 5), "{is_versioned}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_meant_is_refused() {
    let (world, orphans, plan) = planned().await;
    let stranger = Uuid::new_v4();
    let ran = decided(&world.program, "approve", &plan, &[orphans[0], stranger]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains(&format!("does not name {stranger}")), "{ran:?}");
    let history = world.program.run(&["history", "--json"]).await.json();
    assert_eq!(history["decisions"], Value::Array(Vec::new()), "nothing of it is recorded");
    for (arguments, code, says) in [
        (
            vec!["plan", "approve", &plan, "--id", "nonsense", "--by", "ada", "--reason", "x"],
            2,
            "`nonsense` is no UUID",
        ),
        (vec!["plan", "approve", &plan, "--by", " ", "--reason", "x"], 2, "needs a name and a reason"),
        (vec!["plan", "reject", &plan, "--by", "ada", "--reason", ""], 2, "needs a name and a reason"),
        (vec!["plan", "reject", &plan, "--by", "ada"], 2, "--reason"),
        (vec!["plan", "approve", "0123456789abcdef", "--by", "ada", "--reason", "x"], 4, "this ledger issued no plan"),
        (vec!["plan", "show", "nowhere.json"], 4, "cannot be read"),
    ] {
        let ran = world.program.run(&arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {ran:?}");
    }
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 0);
    let ran = decided(&world.program, "reject", &plan, &[]).await;
    assert!(ran.code == 4 && ran.stderr.contains("was applied already"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_past_its_time_can_neither_be_decided_on_nor_swept() {
    let nights = Nights::begin().await;
    nights.orphan(0, Duration::days(40));
    for _ in 0..12 {
        nights.night(24).await;
    }
    assert_eq!(nights.summary()["groups"]["eligible"], 1);
    let approved = nights.summary()["plan_hash"].as_str().expect("a plan").to_owned();
    assert_eq!(nights.run(&["plan", "approve", &approved, BY[0], BY[1], BY[2], BY[3]]).await, ExitCode::SUCCESS);
    nights.night(73).await;
    assert_eq!(nights.run(&["plan", "reject", &approved, BY[0], BY[1], BY[2], BY[3]]).await, ExitCode::from(4));
    assert_eq!(nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert_eq!(nights.delete_requests(), 0, "{:#}", nights.summary());
    let fresh = nights.summary()["plan_hash"].as_str().expect("a plan").to_owned();
    assert_ne!(fresh, approved);
    assert_eq!(nights.run(&["plan", "approve", &fresh, BY[0], BY[1], BY[2], BY[3]]).await, ExitCode::SUCCESS);
    nights.clock.advance(Duration::hours(24));
    assert_eq!(nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert_eq!(nights.summary()["deletion"]["deleted"], 1, "{:#}", nights.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_leaves_alone_what_a_person_rejected_in_any_plan() {
    let (mut world, orphans, plan) = planned().await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let before = world.contents().await;
    decide(&world.program, "reject", &plan, &[]).await;
    let late = world.orphan(1).await;
    world.settle().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&2.into(), &6.into()));
    assert_eq!(reasons(&world, orphans[0]), skipped("rejected"));
    assert_eq!(world.contents().await, before, "only what came later went: {late}");
    // An approval of the whole plan takes back what was rejected with it, but for what was rejected by itself.
    decide(&world.program, "reject", &plan, &orphans[1..2]).await;
    decide(&world.program, "approve", &plan, &[]).await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&4.into(), &2.into()));
    assert_eq!(world.contents().await, without(&before, &[prefix(0, orphans[0]), prefix(0, orphans[2])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_placed_while_an_apply_is_running_stops_further_batches_of_that_id() {
    let mut world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let id = Uuid::new_v4();
    world.bucket.put_many((0..2500).map(|n| format!("{}{n:05}", prefix(1, id)))).await;
    let direct = Arc::new(Program::at(
        &world.bucket.endpoint,
        &world.bucket.name,
        (&world.bucket.access_key, &world.bucket.secret_key),
        &world.database.reader_url(),
    ));
    let plan = Arc::new(parking_lot::Mutex::new(String::new()));
    let (config, named) = (world.program.path("config.toml").display().to_string(), plan.clone());
    let gate = Gate::open(&world.bucket.endpoint, move |passing: Passing| {
        let (direct, config, plan) = (direct.clone(), config.clone(), named.lock().clone());
        async move {
            if passing.is_batch_delete() && passing.number == 1 {
                let ran = direct
                    .run(&[
                        "plan",
                        "reject",
                        &plan,
                        "--id",
                        &id.to_string(),
                        "--by",
                        "ada",
                        "--reason",
                        "wait",
                        "--config",
                        &config,
                    ])
                    .await;
                assert_eq!(ran.code, 0, "{ran:?}");
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    *plan.lock() = world.plan_of_newest_audit();
    let summary = world.apply().await.summary(0);
    let (deleted, skipped) = (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]);
    assert_eq!((deleted, skipped), (&1000.into(), &1500.into()), "{summary:#}");
    let rows = world.program.csv("deletions.csv");
    assert!(rows.iter().filter(|row| row["outcome"] == "skipped").all(|row| row["reason"] == "rejected"));
    assert_eq!(world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_does_not_go_on_with_limits_that_a_person_lifted() {
    let (mut world, orphans, plan) = planned().await;
    world.program.set_scope("LIMITS__MAX_OBJECTS", "1");
    let before = world.contents().await;
    let apply = ["apply", &plan, "--yes", "--json", "--allow", "objects=6"];
    let killed = world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_intent", &apply).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert!(summary["reason"].as_str().expect("a reason").contains("objects: "), "{summary:#}");
    assert_eq!(world.contents().await, before);
    // The person who lifted them goes on.
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 6, "{summary:#}");
    let gone = [prefix(0, orphans[0]), prefix(1, orphans[1]), prefix(0, orphans[2])];
    assert_eq!(world.contents().await, without(&before, &gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_was_killed_in_an_approved_plan_goes_on_with_it() {
    let (world, orphans, plan) = planned().await;
    let before = world.contents().await;
    decide(&world.program, "approve", &plan, &orphans[..2]).await;
    let killed = world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_send", &["sweep"]).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let shown = world.program.run(&["plan", "show", &plan, "--json"]).await.json();
    assert_eq!(shown["state"], "applying");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&4.into(), &2.into()),
        "{summary:#}"
    );
    assert_eq!(world.contents().await, without(&before, &[prefix(0, orphans[0]), prefix(1, orphans[1])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_shown_with_what_was_decided_and_what_comes_next() {
    let (world, orphans, plan) = planned().await;
    let shown = world.program.run(&["plan", "show", &plan, "--json"]).await.json();
    let hash = shown["plan_hash"].as_str().expect("a hash").to_owned();
    assert_eq!(
        (&shown["state"], &shown["totals"]["objects"], &shown["ids"], &shown["expired"], &shown["groups_left_out"]),
        (&"open".into(), &6.into(), &3.into(), &false.into(), &0.into()),
        "{shown:#}"
    );
    assert!(shown["next"]["command"].as_str().expect("a command").starts_with("orphan-sweeper plan approve "));
    decide(&world.program, "approve", &hash, &[]).await;
    decide(&world.program, "reject", &hash[..10], &orphans[..1]).await;
    let text = world.program.run(&["plan", "show", "reports/synthetic/latest"]).await;
    assert_eq!(text.code, 0, "{text:?}");
    for part in [
        &format!("Plan {hash} of scope synthetic: open"),
        "all        3 groups, 6 objects, 60 B of 3 ids",
        "approved   2 groups, 4 objects, 40 B",
        "rejected   1 group, 2 objects, 20 B",
        "approved the whole plan by ada: looked at each of them",
        &format!("rejected {} by ada: looked at each of them", orphans[0]),
        &prefix(1, orphans[1]),
        "orphan-sweeper sweep --scope synthetic",
    ] {
        assert!(text.stdout.contains(part), "`{part}` is not in\n{}", text.stdout);
    }
    let history = world.program.run(&["history"]).await.stdout;
    assert!(
        history.contains(&format!("rejected: {} of plan {hash} (scope synthetic) by ada", orphans[0])),
        "{history}"
    );
    let history = world.program.run(&["history", "--json"]).await.json();
    let newest = &history["decisions"][0];
    assert_eq!(
        (&newest["decision"], &newest["by"], &newest["id"]),
        (&"rejected".into(), &"ada".into(), &orphans[0].to_string().into())
    );
    assert_eq!(history["decisions"][1]["id"], Value::Null);
    let elsewhere = world.program.run(&["plan", "show", &hash, "--scope", "other"]).await;
    assert_eq!(elsewhere.code, 4, "{elsewhere:?}");
}
