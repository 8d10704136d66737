//! Every end of the process, `kill -9`, `SIGTERM` and a panic, at every step of a deletion, of a quarantine, of a restore and of the
//! reaper: the next run comes to the state of one that was not ended, tells every key once, and everything can be brought back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use crate::support::{DELETION_STEPS, Ran, World, prefix};

/// How a process can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Term,
    Panic,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Term => "SIGTERM",
            Self::Panic => "panic",
        }
    }

    fn allows(self, code: i32) -> bool {
        match self {
            Self::Kill => code == -9,
            Self::Panic => code == 101,
            // It stops in order, or was done already.
            Self::Term => matches!(code, 0 | 143),
        }
    }
}

const COPYING: [&str; 6] =
    ["before_copy", "before_copy:2", "after_copy", "after_copy:3", "after_verify", "after_verify:3"];
const RESTORE: [&str; 7] =
    ["held", "before_copy", "after_copy", "after_copy:3", "after_verify:2", "before_report", "after_report"];

const REAPING: [&str; 7] =
    ["before_intent", "after_intent", "before_send", "after_send", "after_outcome", "before_verify", "before_report"];

/// No step at all.
const NEVER: &str = "never";

/// Objects of the orphan that each step has of its own.
const NAMES: [&str; 4] = ["a.npy", "b/c.npy", "\u{1}", "d e+f"];

struct Bench {
    world: World,
    end: End,
}

impl Bench {
    async fn new(end: End, disposal: &str) -> Self {
        let mut world = World::new().await;
        world.program.set_scope("POLICY__DISPOSAL", disposal);
        world.program.set("ORPHAN_SWEEPER_TEST_KILL_BY", end.name());
        for _ in 0..3 {
            world.live(0).await;
        }
        Self { world, end }
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        self.world.program.run(arguments).await
    }

    async fn ended_at(&self, step: &str, arguments: &[&str]) {
        let ran = self.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, arguments).await;
        assert!(self.end.allows(ran.code), "{:?} at {step}: {ran:?}", self.end);
    }

    /// What lies outside the quarantine.
    async fn data(&self) -> BTreeMap<String, String> {
        let all = self.world.contents().await;
        all.into_iter().filter(|(key, _)| !key.starts_with("quarantine/")).collect()
    }

    fn summaries(&self) -> Vec<Value> {
        let folders = self.world.program.run_folders();
        let texts = folders.iter().filter_map(|folder| std::fs::read_to_string(folder.join("summary.json")).ok());
        texts.map(|text| serde_json::from_str(&text).expect("a summary")).collect()
    }

    /// The runs that told deletions, and how many they told together.
    fn told(&self) -> (Vec<String>, u64) {
        let deleted = |summary: &Value| summary["deletion"]["deleted"].as_u64().unwrap_or(0);
        let all: Vec<Value> = self.summaries().into_iter().filter(|summary| deleted(summary) > 0).collect();
        let runs = all.iter().map(|summary| summary["run_id"].as_str().expect("an id").to_owned()).collect();
        (runs, all.iter().map(deleted).sum())
    }

    /// One orphan, deleted by a run that is ended at `step` and by one that is not; gives what it was.
    async fn deleted_through(&self, step: &str) -> BTreeMap<String, String> {
        let kept = self.data().await;
        let id = Uuid::new_v4();
        self.world.put_group(&prefix(1, id), &NAMES).await;
        let before = self.data().await;
        let told_before = self.told().1;
        self.world.audit().await;
        let plan = self.world.plan_of_newest_audit();
        let apply = ["apply", plan.as_str(), "--yes", "--json"];
        if step != NEVER {
            self.ended_at(step, &apply).await;
        }
        let between = self.data().await;
        assert!(kept.iter().all(|(key, etag)| between.get(key) == Some(etag)), "{:?} at {step}", self.end);
        let ran = self.run(&apply).await;
        assert!(ran.code == 0 || ran.code == 4 && self.end == End::Term, "{:?} at {step}: {ran:?}", self.end);
        assert_eq!(self.data().await, kept, "{:?} at {step}", self.end);
        assert_eq!(self.told().1 - told_before, NAMES.len() as u64, "{:?} at {step}: each key is told once", self.end);
        let group = prefix(1, id);
        before.into_iter().filter(|(key, _)| key.starts_with(&group)).collect()
    }
}

async fn deletions_converge(end: End) {
    let bench = Bench::new(end, "delete").await;
    for step in DELETION_STEPS {
        bench.deleted_through(step).await;
    }
}

async fn quarantines_converge(end: End) {
    let bench = Bench::new(end, "quarantine").await;
    let mut deleted = BTreeMap::new();
    for step in DELETION_STEPS.into_iter().chain(COPYING) {
        deleted.extend(bench.deleted_through(step).await);
    }
    // Whatever ended the runs, what their reports tell can be brought back.
    let kept = bench.data().await;
    for run in bench.told().0 {
        let ran = bench.run(&["restore", "--run", &run, "--yes", "--json"]).await;
        assert_eq!(ran.code, 0, "{end:?}: {ran:?}");
        assert_eq!(ran.summary(0)["restore"]["failed"], 0, "{ran:?}");
    }
    let expected: BTreeMap<_, _> = kept.into_iter().chain(deleted).collect();
    assert_eq!(bench.data().await, expected, "{end:?}");
}

async fn restores_converge(end: End) {
    let bench = Bench::new(end, "quarantine").await;
    let kept: BTreeSet<String> = bench.data().await.into_keys().collect();
    let deleted = bench.deleted_through(NEVER).await;
    let run = bench.told().0.pop().expect("a run");
    let expected: BTreeMap<_, _> = bench.data().await.into_iter().chain(deleted).collect();
    for step in RESTORE {
        let restore = ["restore", "--run", &run, "--yes", "--json"];
        bench.ended_at(step, &restore).await;
        let summary = bench.run(&restore).await.summary(0);
        assert_eq!(bench.data().await, expected, "{end:?} at {step}");
        let count = |name: &str| summary["restore"][name].as_u64().expect("a count");
        assert_eq!((count("restored") + count("skipped"), count("failed")), (NAMES.len() as u64, 0), "{summary:#}");
        for key in expected.keys().filter(|key| !kept.contains(*key)) {
            bench.world.bucket.delete(key).await;
        }
    }
}

async fn reapings_converge(end: End) {
    let mut bench = Bench::new(end, "quarantine").await;
    bench.world.program.set_scope("QUARANTINE__KEEP", "0s");
    let reaped = |bench: &Bench| -> u64 {
        bench.summaries().iter().map(|summary| summary["reaped"]["objects"].as_u64().unwrap_or(0)).sum()
    };
    for step in REAPING {
        bench.deleted_through(NEVER).await;
        let kept = bench.data().await;
        let told_before = reaped(&bench);
        bench.world.settle().await;
        bench.ended_at(step, &["sweep", "--json"]).await;
        bench.run(&["sweep", "--json"]).await.summary(0);
        // Nothing but the data is left, and every copy was told once.
        assert_eq!(bench.world.contents().await, kept, "{end:?} at {step}");
        assert_eq!(reaped(&bench) - told_before, NAMES.len() as u64, "{end:?} at {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_converges_after_a_kill() {
    reapings_converge(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_converges_after_a_sigterm() {
    reapings_converge(End::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_converges_after_a_panic() {
    reapings_converge(End::Panic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_converges_after_a_kill() {
    deletions_converge(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_converges_after_a_sigterm() {
    deletions_converge(End::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_converges_after_a_panic() {
    deletions_converge(End::Panic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_converges_after_a_kill() {
    quarantines_converge(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_converges_after_a_sigterm() {
    quarantines_converge(End::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_converges_after_a_panic() {
    quarantines_converge(End::Panic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_converges_after_a_kill() {
    restores_converge(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_converges_after_a_sigterm() {
    restores_converge(End::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_converges_after_a_panic() {
    restores_converge(End::Panic).await;
}
