//! kill -9 at every step of the journal, then a second run: the same end as without the kill, and nothing counted twice.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::support::{Ran, World, prefix, without};

const SIGKILL: i32 = -9;
const SIGTERM: i32 = 143;
const PANIC: i32 = 101;
/// 1,100 objects in two batches, one in a batch of its own because XML cannot carry its key, and two in another group.
const OBJECTS: u64 = 1103;

struct Planned {
    world: World,
    before: BTreeMap<String, String>,
    expected: BTreeMap<String, String>,
    plan: String,
}

async fn planned() -> Planned {
    planned_with(1100).await
}

/// A world whose large orphan has `objects` objects beside the one that XML cannot carry.
async fn planned_with(objects: usize) -> Planned {
    let world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let large = Uuid::new_v4();
    world.bucket.put_many((0..objects).map(|n| format!("{}{n:05}", prefix(1, large)))).await;
    world.bucket.put(&format!("{}\u{1}", prefix(1, large)), b"x").await;
    let small = world.orphan(0).await;
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let expected = without(&before, &[prefix(1, large), prefix(0, small)]);
    Planned { world, before, expected, plan }
}

impl Planned {
    async fn apply(&self) -> Ran {
        self.world.program.run(&["apply", &self.plan, "--yes", "--json"]).await
    }

    async fn killed_at(&self, step: &str) {
        let ran = self
            .world
            .program
            .run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &["apply", &self.plan, "--yes", "--json"])
            .await;
        assert_eq!(ran.code, SIGKILL, "{step}: {ran:?}");
    }

    /// The deletions that all reports of this world tell together.
    fn told(&self) -> (u64, u64) {
        let (mut deleted, mut others) = (0, 0);
        for folder in self.world.program.run_folders() {
            let Ok(text) = std::fs::read_to_string(folder.join("summary.json")) else { continue };
            let summary: Value = serde_json::from_str(&text).expect("a summary");
            let count = |name: &str| summary["deletion"][name].as_u64().unwrap_or(0);
            deleted += count("deleted");
            others += count("already_gone") + count("skipped") + count("failed") + count("unconfirmed");
        }
        (deleted, others)
    }
}

async fn converges_after(steps: &[&str]) {
    let planned = planned().await;
    for step in steps {
        planned.killed_at(step).await;
    }
    let contents = planned.world.contents().await;
    assert!(planned.expected.keys().all(|key| contents.contains_key(key)), "after {steps:?} something live is gone");
    let ran = planned.apply().await;
    assert_eq!(ran.code, 0, "after {steps:?}: {ran:?}");
    assert_eq!(planned.world.contents().await, planned.expected, "after {steps:?}");
    assert_eq!(planned.told(), (OBJECTS, 0), "after {steps:?}");
    assert_eq!(planned.apply().await.code, 4, "the plan is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_first_intent_converges() {
    converges_after(&["plan_started", "before_intent"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_intent_and_request_converges() {
    converges_after(&["after_intent", "before_send:2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_request_and_outcome_converges() {
    converges_after(&["after_send"]).await;
    converges_after(&["after_send:2", "after_send"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_an_outcome_converges() {
    converges_after(&["after_outcome:2"]).await;
    converges_after(&["before_verify", "before_verify:2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_the_last_deletion_converges() {
    converges_after(&["disposed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_around_the_report_tells_every_key_once() {
    let planned = planned().await;
    planned.killed_at("before_report").await;
    assert_eq!(planned.world.contents().await, planned.expected);
    assert_eq!(planned.apply().await.code, 0, "it tells what the dead run did");
    assert_eq!(planned.told(), (OBJECTS, 0));

    let planned = self::planned().await;
    planned.killed_at("after_report").await;
    assert_eq!(planned.told(), (OBJECTS, 0));
    planned.apply().await;
    assert_eq!(planned.told(), (OBJECTS, 0), "not told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_between_the_kill_and_the_resume_changes_nothing() {
    for step in ["after_send", "disposed"] {
        let planned = planned().await;
        planned.killed_at(step).await;
        let audit = planned.world.audit().await;
        assert_eq!(audit["outcome"], "complete");
        let ran = planned.apply().await;
        assert_eq!(ran.code, 0, "{step}: {ran:?}");
        assert_eq!(planned.world.contents().await, planned.expected, "{step}");
        assert_eq!(planned.told(), (OBJECTS, 0), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_an_audit_leaves_the_ledger_whole() {
    let planned = planned().await;
    for step in ["before_sightings", "before_report", "after_report"] {
        let ran = planned.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &["audit"]).await;
        assert_eq!(ran.code, SIGKILL, "{step}");
    }
    let history = planned.world.program.run(&["history", "--json"]).await.json();
    assert!(history["runs"].as_array().is_some_and(|runs| runs.len() >= 4));
    assert_eq!(planned.world.audit().await["groups"]["eligible"], 2);
    assert_eq!(planned.world.contents().await, planned.before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_sweep_is_finished_by_the_next_sweep() {
    let mut planned = planned().await;
    planned.world.program.set_scope("POLICY__APPROVAL", "automatic");
    let ran = planned.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_send", &["sweep"]).await;
    assert_eq!(ran.code, SIGKILL);
    let ran = planned.world.program.run(&["sweep", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(planned.world.contents().await, planned.expected);
    assert_eq!(planned.told(), (OBJECTS, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_two_groups_converges_also_with_an_audit_after_the_first_is_gone() {
    let world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let id: Uuid = "0b000000-0000-4000-8000-000000000002".parse().expect("an id");
    world.put_group(&prefix(0, id), &["a", "b"]).await;
    world.put_group(&prefix(1, id), &["c", "d", "e"]).await;
    let before = world.contents().await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    // The first group is gone and verified, the second not begun.
    let ran =
        world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "before_intent:2", &["apply", &plan, "--yes"]).await;
    assert_eq!(ran.code, SIGKILL, "{ran:?}");
    assert_eq!(world.contents().await.len(), before.len() - 2);
    let audit = world.audit().await;
    assert_eq!(
        (&audit["groups"]["eligible"], &audit["groups"]["empty"]),
        (&1.into(), &0.into()),
        "our own deletions are no change: {audit:#}"
    );
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 5, "{summary:#}");
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id), prefix(1, id)]));
}

/// A backfill of 133 objects in batches of at most a hundred, told in parts of fifty rows, that is ended in every way at every step; then its steps are
/// taken to their end.
async fn backfill_converges_after(step: &str, by: &str, code: i32) {
    const OBJECTS: u64 = 133;
    let mut planned = planned_with(130).await;
    let folder = planned.world.backfill().await;
    planned.plan = folder.join("plan.json").display().to_string();
    planned.world.program.set("ORPHAN_SWEEPER_TEST_PART_ROWS", "50");
    planned.world.program.set("ORPHAN_SWEEPER_TEST_KILL_BY", by);
    let flags = ["apply", &planned.plan, "--yes", "--json", "--objects-per-second", "100", "--max-runtime", "1h"];
    let ran = planned.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &flags).await;
    // Told to stop when nothing was left to do, it ends as if it were not.
    let is_late = by == "SIGTERM" && ran.code == 0;
    assert!(ran.code == code || is_late, "{step} by {by}: {ran:?}");
    let contents = planned.world.contents().await;
    assert!(planned.expected.keys().all(|key| contents.contains_key(key)), "{step} by {by}: something live is gone");
    if !is_late {
        let ran = planned.world.program.run(&flags).await;
        assert!(ran.code == 0 || step == "after_report" && ran.code == 4, "{step} by {by}: {ran:?}");
    }
    assert_eq!(planned.world.contents().await, planned.expected, "{step} by {by}");
    assert_eq!(planned.told().0, OBJECTS, "{step} by {by}: every deletion told once");
    let steps = planned.world.newest_steps();
    assert_eq!((&steps["deleted"], &steps["closed"]), (&OBJECTS.into(), &true.into()), "{step} by {by}: {steps:#}");
    assert_eq!(planned.apply().await.code, 4, "{step} by {by}: the plan is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_ended_in_any_way_at_any_step_converges() {
    use futures::StreamExt;
    let steps = [
        "plan_started",
        "before_intent",
        "after_intent:2",
        "before_send",
        "after_send:2",
        "after_outcome",
        "before_verify",
        "part_written",
        "part_noted",
        "part_published",
        "disposed",
        "before_report",
        "after_report",
    ];
    let ways = [("SIGKILL", SIGKILL), ("SIGTERM", SIGTERM), ("panic", PANIC)];
    let cases = steps.iter().flat_map(|step| ways.map(|(by, code)| backfill_converges_after(step, by, code)));
    Box::pin(futures::stream::iter(cases).buffer_unordered(4).collect::<()>()).await;
}
