//! Backfill: historical leaks are planned without grace since the first sighting, and worked through in bounded steps.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use orphan_sweeper::clock::Clock;
use orphan_sweeper::embedded::Operation;
use orphan_sweeper::{Host, main_with};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::memory::{BUCKET, an_hour_ago};
use crate::support::nights::{BUCKET as BUCKET_OF_NIGHTS, Nights};
use crate::support::{MemoryWorld, Ran, prefix, read_csv};

/// Three nights that see orphans of several ages; then the date of a backfill that lies 60 days back.
struct Leaks {
    nights: Nights,
    old: Uuid,
    torn: Uuid,
    younger: Uuid,
    late: Uuid,
    before: BTreeSet<String>,
    date: String,
}

impl Leaks {
    async fn begin() -> Self {
        let nights = Nights::begin().await;
        let date = (nights.now() - Duration::days(60)).format("%Y-%m-%d").to_string();
        let old = nights.orphan(0, Duration::days(90));
        nights.put_at(&format!("{}y", prefix(1, old)), -Duration::days(80));
        let torn = nights.orphan(0, Duration::days(90));
        nights.put_at(&format!("{}y", prefix(1, torn)), -Duration::days(30));
        let younger = nights.orphan(1, Duration::days(30));
        nights.night(0).await;
        let late = nights.orphan(1, Duration::days(90));
        nights.night(24).await;
        let before = nights.store.keys(BUCKET_OF_NIGHTS).into_iter().collect();
        Self { nights, old, torn, younger, late, before, date }
    }

    async fn backfill(&self) -> Value {
        self.nights.clock.advance(Duration::hours(24));
        let arguments = ["backfill", "--created-before", &self.date];
        assert_eq!(self.nights.run(&arguments).await, ExitCode::SUCCESS, "{:#}", self.nights.summary());
        self.nights.summary()
    }

    fn keys(&self) -> BTreeSet<String> {
        self.nights.store.keys(BUCKET_OF_NIGHTS).into_iter().collect()
    }

    fn without(&self, prefixes: &[String]) -> BTreeSet<String> {
        let is_gone = |key: &&String| prefixes.iter().any(|prefix| key.starts_with(prefix));
        self.before.iter().filter(|key| !is_gone(key)).cloned().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_plans_the_ids_whose_every_object_is_older_and_waives_nothing_else() {
    let leaks = Leaks::begin().await;
    let summary = leaks.backfill().await;
    assert_eq!(
        (&summary["command"], &summary["dry_run"], &summary["outcome"]),
        (&"backfill".into(), &true.into(), &"complete".into())
    );
    assert_eq!(summary["backfill"]["created_before"], format!("{}T00:00:00Z", leaks.date));
    assert_eq!((&summary["groups"]["eligible"], &summary["eligible_objects"]), (&2.into(), &2.into()), "{summary:#}");
    let reason = |id| leaks.nights.reason(id).expect("an orphan");
    assert_eq!(reason(leaks.old), "eligible");
    assert_eq!(reason(leaks.torn), "newer_than_backfill", "its other group is younger than the date");
    assert_eq!(reason(leaks.younger), "newer_than_backfill");
    assert_eq!(reason(leaks.late), "too_few_sightings", "sightings count");
    let plan: Value = serde_json::from_str(&leaks.nights.program.read("plan.json")).expect("a plan");
    assert_eq!(plan["plan"]["backfill"], json!({ "created_before": format!("{}T00:00:00Z", leaks.date) }));
    assert_eq!(plan["plan"]["groups"].as_array().map(Vec::len), Some(2));
    let page = leaks.nights.program.read("report.html");
    assert!(page.contains("grace is not counted from the first sighting"), "the report says what was waived");
    // It reads only, and an ordinary audit of the same night keeps them all.
    assert_eq!((leaks.nights.delete_requests(), leaks.keys()), (0, leaks.before.clone()));
    let audit = leaks.nights.night(0).await;
    assert_eq!((&audit["groups"]["eligible"], &audit["backfill"]), (&0.into(), &Value::Null));
    assert_eq!(leaks.nights.reason(leaks.old).as_deref(), Some("within_grace"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_applies_a_backfill_and_no_schedule_does() {
    let mut leaks = Leaks::begin().await;
    leaks.backfill().await;
    let plan = leaks.nights.program.latest("plan.json");
    leaks.nights.program.set_scope("POLICY__APPROVAL", "automatic");
    assert_eq!(leaks.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert_eq!((leaks.nights.delete_requests(), leaks.nights.summary()["deletion"].clone()), (0, Value::Null));
    // Begun by a person, and not finished.
    let stop = leaks.nights.program.path("reports/STOP");
    let written = stop.clone();
    leaks.nights.store.on_request(move |request, _| {
        if request.operation == Operation::DeleteObjects {
            std::fs::write(&written, "").expect("written");
        }
    });
    assert_eq!(leaks.nights.run(&["apply", &plan, "--yes"]).await, ExitCode::from(4), "the stop file");
    leaks.nights.store.clear_hooks();
    std::fs::remove_file(stop).expect("removed");
    let requests = leaks.nights.delete_requests();
    assert!((1..3).contains(&requests), "{requests}");
    for _ in 0..5 {
        // Long past the time at which a sweep gives up a plan of its own.
        leaks.nights.clock.advance(Duration::hours(24));
        assert_eq!(leaks.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
        if leaks.nights.summary()["deletion"] != Value::Null {
            break;
        }
        assert_eq!(leaks.nights.delete_requests(), requests, "a sweep resumes no backfill");
    }
    assert_eq!(leaks.nights.run(&["apply", &plan, "--yes"]).await, ExitCode::SUCCESS, "and the person still may");
    assert!(!leaks.keys().iter().any(|key| key.contains(&leaks.old.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_goes_by_apply_and_is_told_by_its_name() {
    let leaks = Leaks::begin().await;
    leaks.backfill().await;
    let plan = leaks.nights.program.latest("plan.json");
    assert_eq!(leaks.nights.run(&["apply", &plan, "--yes"]).await, ExitCode::SUCCESS, "{:#}", leaks.nights.summary());
    let summary = leaks.nights.summary();
    assert_eq!((&summary["deletion"]["deleted"], &summary["command"]), (&2.into(), &"apply".into()));
    assert_eq!(summary["backfill"]["created_before"], format!("{}T00:00:00Z", leaks.date));
    assert_eq!(leaks.keys(), leaks.without(&[prefix(0, leaks.old), prefix(1, leaks.old)]));
    let steps = &summary["steps"];
    assert_eq!(
        (&steps["runs"], &steps["closed"], &steps["deleted"], &steps["requested"]),
        (&1.into(), &true.into(), &2.into(), &2.into())
    );
    assert_eq!(leaks.nights.run(&["apply", &plan, "--yes"]).await, ExitCode::from(4), "the plan is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_cannot_be_meant_is_a_usage_error_that_says_why() {
    let world = MemoryWorld::new().await;
    let mut program = world.program;
    program.set_scope("POLICY__GRACE", "7d");
    let day = |days: i64| (an_hour_ago() - Duration::days(days)).format("%Y-%m-%d").to_string();
    for (date, says) in [
        (day(-2), "lies in the future"),
        (day(3), "not past by the grace"),
        ("yesterday".to_owned(), "is no date"),
        ("2024-13-01".to_owned(), "is no date"),
        (String::new(), "is no date"),
    ] {
        let ran = program.run(&["backfill", "--created-before", &date, "--json"]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.json()["error"]["message"].as_str().is_some_and(|message| message.contains(says)),
            "{date}: {ran:?}"
        );
    }
    assert!(!program.reports().exists(), "no run began");
    assert_eq!(program.run(&["backfill"]).await.code, 2);
    for date in [day(8), "2024-01-01T12:00:00+02:00".to_owned()] {
        let ran = program.run(&["backfill", "--created-before", &date, "--json"]).await;
        assert_eq!(ran.summary(0)["command"], "backfill", "{ran:?}");
    }
}

/// An in-memory world whose only orphan has `objects` objects, planned.
async fn planned(objects: usize) -> (MemoryWorld, String) {
    let world = MemoryWorld::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let id = Uuid::new_v4();
    for n in 0..objects {
        world.store.put_at(BUCKET, &format!("{}{n:05}", prefix(1, id)), "x", Some(an_hour_ago()));
    }
    world.audit().await;
    let plan = world.program.latest("plan.json");
    (world, plan)
}

async fn apply(world: &MemoryWorld, plan: &str, flags: &[&str]) -> Ran {
    world.program.run(&[&["apply", plan, "--yes", "--json"], flags].concat()).await
}

/// How many keys each delete request named.
fn batches(world: &MemoryWorld) -> Vec<usize> {
    let requests = world.store.requests();
    requests
        .iter()
        .filter(|request| request.operation == Operation::DeleteObjects)
        .map(|request| request.keys.len())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_makes_batches_small_and_is_kept() {
    let (world, plan) = planned(60).await;
    let began = orphan_sweeper::clock::Stopwatch::start();
    let ran = apply(&world, &plan, &["--objects-per-second", "20"]).await;
    assert_eq!(ran.summary(0)["deletion"]["deleted"], 60, "{ran:?}");
    assert_eq!(batches(&world), [20, 20, 20]);
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "the first goes at once, two wait for a second each");
    for wrong in [["--objects-per-second", "0"], ["--objects-per-second", "-1"], ["--objects-per-second", "fast"]] {
        assert_eq!(apply(&world, &plan, &wrong).await.code, 2, "{wrong:?}");
    }
    for wrong in [
        &["--max-runtime", "two hours"][..],
        &["--pause-window", "8-18"],
        &["--pause-window", "08:00-08:00"],
        &["--pause-window", "08:00-18:00", "--pause-timezone", "Berlin"],
        &["--pause-timezone", "Europe/Berlin"],
    ] {
        assert_eq!(apply(&world, &plan, wrong).await.code, 2, "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_ends_by_its_time_with_a_report_and_the_next_goes_on() {
    let (world, plan) = planned(2500).await;
    let before = world.keys();
    let flags = ["--max-runtime", "1ms"];
    let ran = apply(&world, &plan, &flags).await;
    let summary = ran.summary(0);
    assert_eq!((&summary["outcome"], &summary["coverage"]["complete"]), (&"interrupted".into(), &true.into()));
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("--max-runtime 1ms")), "{summary:#}");
    let first = summary["deletion"]["deleted"].as_u64().expect("a count");
    assert!((1000..2500).contains(&first), "progress, and an end at a batch's end: {first}");
    assert_eq!(before.len() as u64 - world.keys().len() as u64, first);
    assert_eq!(summary["steps"]["closed"], false);
    let text = world.program.run(&["apply", &plan, "--yes", "--max-runtime", "1ms"]).await;
    let hash = summary["plan_hash"].as_str().expect("a hash");
    assert!(
        text.code == 0 && text.stdout.contains(&format!("orphan-sweeper apply {hash} --max-runtime 1ms")),
        "the next command: {text:?}"
    );
    let last = apply(&world, &plan, &[]).await.summary(0);
    let steps = &last["steps"];
    assert_eq!(
        (&steps["runs"], &steps["closed"], &steps["deleted"], &steps["requested"], &steps["bytes_deleted"]),
        (&3.into(), &true.into(), &2500.into(), &2500.into(), &2500.into()),
        "{last:#}"
    );
    assert_eq!(steps["first_started_at"], summary["started_at"]);
    assert_eq!(world.keys().len(), before.len() - 2500);
    assert!(world.program.read("report.html").contains("All 3 runs of this plan"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifted_limit_stays_on_record_for_the_steps_that_follow_and_is_judged_over_what_is_left() {
    let (mut world, _) = planned(1500).await;
    for _ in 0..3 {
        world.orphan(0);
    }
    world.program.set_scope("LIMITS__MAX_OBJECTS", "1000");
    world.program.set_scope("LIMITS__MAX_ORPHAN_GROUPS", "1");
    world.audit().await;
    let plan = world.program.latest("plan.json");
    assert_eq!(apply(&world, &plan, &[]).await.code, 4);
    let lift = ["--allow", "objects=1506", "--allow", "orphan_groups=4", "--max-runtime", "1ms"];
    let first = apply(&world, &plan, &lift).await.summary(0);
    assert_eq!(first["outcome"], "interrupted");
    let observed = |summary: &Value, name: &str| {
        let breakers = summary["breakers"].as_array().expect("breakers");
        breakers.iter().find(|breaker| breaker["name"] == name).expect("it is there")["observed"].clone()
    };
    assert_eq!((observed(&first, "objects"), observed(&first, "orphan_groups")), (json!(1506), json!(4)));
    let (mut last, mut left) = (first, vec![4]);
    while last["outcome"] == "interrupted" {
        last = apply(&world, &plan, &["--max-runtime", "1ms"]).await.summary(0);
        left.push(observed(&last, "orphan_groups").as_u64().expect("a count"));
    }
    assert_eq!((&last["outcome"], &last["steps"]["deleted"]), (&"complete".into(), &1506.into()), "{last:#}");
    assert!(
        left.is_sorted_by(|a, b| a >= b) && left.last() < left.first(),
        "what is gone is not judged again: {left:?}"
    );
}

/// A clock that moves by a quarter of an hour whenever it is asked between two times: time passes for whoever waits.
#[derive(Debug)]
struct Hasty {
    now: Mutex<DateTime<Utc>>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Clock for Hasty {
    fn now(&self) -> DateTime<Utc> {
        let mut now = self.now.lock();
        if self.from <= *now && *now < self.to {
            *now += Duration::minutes(15);
        }
        *now
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_is_sent_in_the_pause_and_the_rest_goes_after_it() {
    let nights = Nights::begin().await;
    let id = Uuid::new_v4();
    for n in 0..2500 {
        nights.put_at(&format!("{}{n:05}", prefix(0, id)), -Duration::days(90));
    }
    for _ in 0..9 {
        nights.night(24).await;
    }
    let plan = nights.program.latest("plan.json");
    // The pause begins as soon as the first batch is sent.
    let (from, to) = (nights.now() + Duration::minutes(60), nights.now() + Duration::minutes(300));
    let hasty = Arc::new(Hasty { now: Mutex::new(nights.now()), from, to });
    let sent_at: Arc<Mutex<Vec<DateTime<Utc>>>> = Arc::default();
    let (hand, seen) = (Arc::clone(&hasty), Arc::clone(&sent_at));
    nights.store.on_request(move |request, _| {
        if request.operation == Operation::DeleteObjects {
            let mut now = hand.now.lock();
            seen.lock().push(*now);
            *now = (*now).max(hand.from);
        }
    });
    let window = format!("{}-{}", from.format("%H:%M"), to.format("%H:%M"));
    let host = Host { variables: nights.program.variables.clone(), clock: hasty.clone() };
    let arguments =
        ["orphan-sweeper", "--quiet", "apply", &plan, "--yes", "--pause-window", &window].map(str::to_owned);
    let code = tokio::task::spawn_blocking(move || main_with(arguments, &host)).await.expect("joined");
    assert_eq!(code, ExitCode::SUCCESS, "{:#}", nights.summary());
    let sent_at = sent_at.lock().clone();
    assert_eq!(sent_at.len(), 3, "{sent_at:?}");
    assert!(sent_at[0] < from && sent_at[1..].iter().all(|sent| *sent >= to), "{sent_at:?}");
    assert_eq!(nights.summary()["deletion"]["deleted"], 2500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_pause_is_obeyed_at_once_and_leaves_a_report() {
    let (world, plan) = planned(10).await;
    let now = an_hour_ago();
    let window =
        format!("{}-{}", (now - Duration::hours(1)).format("%H:%M"), (now + Duration::hours(9)).format("%H:%M"));
    let mut child = world.program.start(&["apply", &plan, "--yes", "--json", "--pause-window", &window]);
    // It says that it pauses; then it is told to stop.
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("pause: no batch is sent") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut stderr, &mut line).expect("read") > 0, "it ended without a pause");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("small")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("joined").expect("ended");
    assert_eq!(output.status.code(), Some(143));
    let summaries: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&summaries[0]["outcome"], &summaries[0]["deletion"]), (&"interrupted".into(), &Value::Null));
    assert_eq!(world.store.count(Operation::DeleteObjects), 0);
    assert_eq!(apply(&world, &plan, &[]).await.summary(0)["deletion"]["deleted"], 10);
}

/// Every row of every `deletions.csv` and its parts, of reports that have a summary.
pub(crate) fn told_rows(world: &MemoryWorld) -> Vec<String> {
    let mut keys = Vec::new();
    for folder in world.program.run_folders().into_iter().filter(|folder| folder.join("summary.json").exists()) {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            assert!(!name.ends_with(".partial"), "{name}");
            let text = match name.as_str() {
                "deletions.csv" => std::fs::read_to_string(&path).expect("read"),
                name if name.starts_with("deletions.") => {
                    let bytes = zstd::decode_all(std::fs::File::open(&path).expect("opened")).expect("whole");
                    String::from_utf8(bytes).expect("UTF-8")
                }
                _ => continue,
            };
            keys.extend(read_csv(&text).into_iter().map(|row| row["key"].clone()));
        }
    }
    keys
}

/// Rows of the journal.
async fn journal_rows(world: &MemoryWorld) -> i64 {
    let path = world.program.path("reports/ledger.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("the ledger");
    sqlx::query_scalar("SELECT count(*) FROM intents").fetch_one(&pool).await.expect("counted")
}

/// A world of several orphans, told in parts of ten rows.
async fn in_parts() -> (MemoryWorld, String, BTreeSet<String>) {
    let mut world = MemoryWorld::new().await;
    world.program.set("ORPHAN_SWEEPER_TEST_PART_ROWS", "10");
    world.live(0).await;
    let mut keys = BTreeSet::new();
    for group in 0..14 {
        let id = Uuid::new_v4();
        for n in 0..(3 + group) {
            let key = format!("{}{n:05}", prefix(group % 2, id));
            world.put(&key);
            keys.insert(key);
        }
    }
    world.audit().await;
    let plan = world.program.latest("plan.json");
    (world, plan, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_plan_is_told_in_parts_while_it_is_worked_through_and_its_journal_stays_small() {
    let (world, plan, keys) = in_parts().await;
    let summary = apply(&world, &plan, &[]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["requested"]),
        (&keys.len().into(), &keys.len().into())
    );
    let rows = told_rows(&world);
    assert_eq!((rows.len(), rows.into_iter().collect::<BTreeSet<_>>()), (keys.len(), keys));
    let folder = std::path::PathBuf::from(world.program.latest("deletions.0001.csv.zst"));
    assert!(folder.exists() && !folder.with_file_name("deletions.csv").exists());
    assert_eq!(journal_rows(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_a_dead_run_noted_is_told_by_the_next_and_one_that_it_did_not_note_is_written_again() {
    for step in ["part_written", "part_noted", "part_published", "part_written:2", "part_noted:2", "part_published:3"] {
        let (world, plan, keys) = in_parts().await;
        for killed_at in [step, "part_noted"] {
            let ran =
                world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", killed_at, &["apply", &plan, "--yes"]).await;
            assert_eq!(ran.code, -9, "{step}: {ran:?}");
        }
        assert_eq!(told_rows(&world).len(), 0, "{step}: no report yet");
        if step == "part_published:3" {
            let left = usize::try_from(journal_rows(&world).await).expect("a count");
            assert!(left + 40 <= keys.len(), "four parts have left the journal: {left} of {} rows", keys.len());
        }
        world.audit().await;
        let summary = apply(&world, &plan, &[]).await.summary(0);
        let steps = &summary["steps"];
        assert_eq!(summary["deletion"]["deleted"], keys.len(), "{step}: {summary:#}");
        assert_eq!((&steps["runs"], &steps["deleted"]), (&3.into(), &keys.len().into()), "{step}");
        let rows = told_rows(&world);
        assert_eq!(rows.len(), keys.len(), "{step}: every key once");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), keys, "{step}");
        assert_eq!(world.keys().len(), 1, "{step}: the live one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_in_part_stays_in_the_journal_and_is_told_once() {
    let (world, plan, keys) = in_parts().await;
    // A group that changes keeps its id; its objects are skipped, and the others go in parts.
    let changed = keys.iter().next().expect("a key").rsplit_once('/').expect("a group").0.to_owned();
    world.put(&format!("{changed}/new.npy"));
    let summary = apply(&world, &plan, &[]).await.summary(0);
    let skipped = keys.iter().filter(|key| key.starts_with(&changed)).count() + 1;
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["skipped"], &deletion["deleted"]),
        (&skipped.into(), &(keys.len() + 1 - skipped).into()),
        "{summary:#}"
    );
    let rows = told_rows(&world);
    assert_eq!(rows.len(), keys.len() + 1);
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), keys.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_two_groups_is_finished_by_later_steps_though_its_first_group_was_told() {
    let mut world = MemoryWorld::new().await;
    world.program.set("ORPHAN_SWEEPER_TEST_PART_ROWS", "1");
    world.live(0).await;
    let mut keys = BTreeSet::new();
    for _ in 0..3 {
        let id = Uuid::new_v4();
        keys.extend((0..4).map(|n| format!("{}{n}", prefix(n % 2, id))));
    }
    keys.iter().for_each(|key| world.put(key));
    world.audit().await;
    let plan = world.program.latest("plan.json");
    let (mut summary, mut steps) = (Value::Null, 0);
    while summary["outcome"] != "complete" {
        summary = apply(&world, &plan, &["--max-runtime", "1ms"]).await.summary(0);
        steps += 1;
        // What is gone of an id is no change of it.
        world.audit().await;
    }
    assert!(steps > 1, "it took several");
    assert_eq!((&summary["steps"]["deleted"], &summary["steps"]["skipped"]), (&12.into(), &0.into()), "{summary:#}");
    let rows = told_rows(&world);
    assert_eq!((rows.len(), rows.into_iter().collect::<BTreeSet<_>>()), (12, keys));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_report_told_is_not_told_again() {
    let (world, plan) = planned(2500).await;
    let first = apply(&world, &plan, &["--max-runtime", "1ms"]).await.summary(0);
    let deleted = first["deletion"]["deleted"].as_u64().expect("a count");
    std::fs::remove_dir_all(first["report_dir"].as_str().expect("a folder")).expect("removed");
    let last = apply(&world, &plan, &[]).await.summary(0);
    assert_eq!(last["deletion"]["deleted"], 2500 - deleted, "{last:#}");
    assert_eq!(last["steps"]["deleted"], 2500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_the_budget_until_its_listing_is_old_is_listed_again() {
    let (mut world, plan) = planned(12).await;
    world.program.set("ORPHAN_SWEEPER_TEST_LISTING_LIVES_MS", "1500");
    let last = world.keys().into_iter().rfind(|key| key.contains("dataset-")).expect("a key");
    let written = last.clone();
    world.store.on_request(move |request, store| {
        // Somebody writes to what was listed and not asked for yet.
        if request.operation == Operation::DeleteObjects {
            store.put_at(BUCKET, &written, "another", Some(an_hour_ago()));
        }
    });
    let ran = apply(&world, &plan, &["--objects-per-second", "2"]).await;
    let summary = ran.summary(0);
    assert!(world.keys().contains(&last), "what was written meanwhile is kept: {summary:#}");
    assert!(world.store.count(Operation::DeleteObjects) >= 2);
    assert_eq!(summary["deletion"]["failed"], 0);
    let rows = world.program.csv("deletions.csv");
    let kept = rows.iter().find(|row| row["key"] == last).expect("it is told");
    assert_eq!((kept["outcome"].as_str(), kept["reason"].as_str()), ("skipped", "changed_since_plan"));
}
