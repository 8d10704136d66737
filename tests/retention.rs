//! Retention of our own output: old reports go, and nothing that any later run needs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::Duration;
use serde_json::Value;
use sqlx::Executor;
use uuid::Uuid;

use crate::support::nights::Nights;

async fn begin(keep: &str) -> Nights {
    let mut nights = Nights::begin().await;
    nights.program.set("ORPHAN_SWEEPER__REPORTS__KEEP", keep);
    nights
}

/// The names in the scope's folder.
fn names(nights: &Nights) -> BTreeSet<String> {
    let entries = std::fs::read_dir(nights.program.reports()).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

fn newest(nights: &Nights) -> String {
    nights.summary()["run_id"].as_str().expect("an id").to_owned()
}

async fn ledger(nights: &Nights) -> sqlx::SqlitePool {
    let path = nights.program.path("reports/ledger.sqlite3");
    sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("the ledger")
}

async fn count(nights: &Nights, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&ledger(nights).await).await.expect("counted")
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_older_than_configured_go_and_the_runs_stay_known() {
    let nights = begin("10d").await;
    let mut runs = Vec::new();
    for _ in 0..10 {
        let summary = nights.night(24).await;
        assert_eq!(
            summary["retention"],
            serde_json::json!({ "reports_removed": 0, "rows_compacted": 0, "error": null })
        );
        runs.push(newest(&nights));
    }
    for night in 10..15_usize {
        let summary = nights.night(24).await;
        runs.push(newest(&nights));
        // Ten days and the night itself; to the second.
        let expected: BTreeSet<String> = runs[night - 10..].iter().cloned().chain(["latest".to_owned()]).collect();
        assert_eq!(names(&nights), expected, "night {night}");
        let removed = u64::from(night > 10);
        assert_eq!(summary["retention"]["reports_removed"], removed, "night {night}: {summary:#}");
        // The summary's text, and the plan that has long expired.
        assert_eq!(summary["retention"]["rows_compacted"], removed * 2, "night {night}");
        assert_eq!(summary["ledger"]["runs"], runs.len(), "every run stays known");
    }
    assert_eq!(count(&nights, "SELECT count(*) FROM runs WHERE summary IS NULL").await, 4);
    assert_eq!(count(&nights, "SELECT count(*) FROM plans").await, 11);
    assert!(nights.program.read("report.html").contains("older than `reports.keep` removed"));
    assert_eq!(nights.run(&["history", &runs[0]]).await, ExitCode::SUCCESS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_of_this_ledger_is_never_touched() {
    let nights = begin("2d").await;
    nights.night(24).await;
    let noted = newest(&nights);
    nights.night(1).await;
    let linked_in = newest(&nights);
    nights.night(1).await;
    let nested = newest(&nights);
    let reports = nights.program.reports();
    std::fs::write(reports.join(&noted).join("notes.txt"), "mine").expect("written");
    let elsewhere = nights.program.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    std::fs::write(elsewhere.join("summary.json"), "{}").expect("written");
    std::fs::remove_file(reports.join(&linked_in).join("orphans.csv")).expect("removed");
    std::os::unix::fs::symlink(elsewhere.join("summary.json"), reports.join(&linked_in).join("orphans.csv"))
        .expect("linked");
    std::fs::create_dir(reports.join(&nested).join("deletions.csv")).expect("made");
    // A run's folder that was moved away, with a link in its place.
    nights.night(1).await;
    let moved = newest(&nights);
    std::fs::rename(reports.join(&moved), nights.program.path("moved")).expect("moved");
    std::os::unix::fs::symlink(nights.program.path("moved"), reports.join(&moved)).expect("linked");
    // Names that this ledger never gave: of another ledger, of another kind, of a person.
    let foreign = ["01890000-0000-7000-8000-000000000001".to_owned(), Uuid::new_v4().to_string(), "old".to_owned()];
    for name in &foreign {
        std::fs::create_dir(reports.join(name)).expect("made");
        std::fs::write(reports.join(name).join("summary.json"), "{}").expect("written");
    }
    std::fs::write(reports.join("README"), "mine").expect("written");
    nights.night(1).await;
    let plain = newest(&nights);
    for _ in 0..5 {
        nights.night(24).await;
    }
    let left = names(&nights);
    assert!(!left.contains(&plain), "{left:?}");
    for kept in [&noted, &linked_in, &nested, &moved].into_iter().chain(&foreign) {
        assert!(left.contains(kept), "{kept} of {left:?}");
    }
    assert!(left.contains("README"));
    assert!(reports.join(&noted).join("summary.json").exists() && reports.join(&noted).join("notes.txt").exists());
    assert!(elsewhere.join("summary.json").exists() && nights.program.path("moved/summary.json").exists());
    assert_eq!(nights.summary()["retention"]["error"], Value::Null, "none of this is a fault");
}

/// The folders of all runs, by their command and in their order.
fn folder_of(nights: &Nights, command: &str, outcome: &str) -> PathBuf {
    let mut folders = nights.program.run_folders();
    folders.retain(|folder| {
        let Ok(text) = std::fs::read_to_string(folder.join("summary.json")) else { return false };
        let summary: Value = serde_json::from_str(&text).expect("JSON");
        summary["command"] == command && summary["outcome"] == outcome
    });
    folders.pop().expect("such a run")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_begun_keeps_its_reports_and_its_rows_until_it_is_closed() {
    let mut nights = begin("3d").await;
    for n in 0..3 {
        nights.orphan(n % 2, Duration::days(90));
    }
    for _ in 0..8 {
        nights.night(24).await;
    }
    let plan = nights.program.latest("plan.json");
    let maker = PathBuf::from(&plan).parent().expect("a folder").to_path_buf();
    assert_eq!(nights.run(&["apply", &plan, "--yes", "--max-runtime", "1ms"]).await, ExitCode::SUCCESS);
    assert_eq!(nights.summary()["outcome"], "interrupted");
    let begun = folder_of(&nights, "apply", "interrupted");
    let first = nights.summary()["deletion"]["deleted"].as_u64().expect("a count");
    for _ in 0..6 {
        nights.night(24).await;
    }
    assert!(maker.join("plan.json").exists() && begun.join("summary.json").exists(), "{:?}", names(&nights));
    assert_eq!(nights.run(&["apply", &plan, "--yes"]).await, ExitCode::SUCCESS, "{:#}", nights.summary());
    let steps = nights.summary()["steps"].clone();
    assert_eq!(
        (&steps["runs"], &steps["deleted"], &steps["closed"]),
        (&2.into(), &3.into(), &true.into()),
        "{steps:#}"
    );
    assert!(first < 3);
    // Once it is closed and its keys are forgotten, they go like any other.
    for _ in 0..5 {
        nights.night(24).await;
    }
    assert!(!maker.exists() && !begun.exists(), "{:?}", names(&nights));
    assert_eq!(count(&nights, "SELECT count(*) FROM plan_steps").await, 0);
    assert_eq!(count(&nights, "SELECT count(*) FROM disposals").await, 0);
    nights.program.set("ORPHAN_SWEEPER__REPORTS__KEEP", "400d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_can_still_be_applied_and_what_scans_are_compared_with_stay() {
    let mut nights = begin("1d").await;
    nights.program.set_scope("POLICY__PLAN_EXPIRES", "30d");
    nights.orphan(0, Duration::days(90));
    let first = nights.night(24).await;
    for _ in 0..4 {
        nights.night(24).await;
    }
    let left = names(&nights);
    assert!(left.contains(first["run_id"].as_str().expect("an id")), "its plan is open: {left:?}");
    // A scan that trips is no baseline: the last good one stays, however old.
    nights.program.set_scope("POLICY__PLAN_EXPIRES", "1h");
    let baseline = nights.night(24).await["run_id"].as_str().expect("an id").to_owned();
    nights.catalogue.execute("DELETE FROM synthetic_datasets").await.expect("emptied");
    for _ in 0..4 {
        nights.clock.advance(Duration::hours(24));
        assert_eq!(nights.run(&["audit"]).await, ExitCode::from(4));
        assert_eq!(nights.summary()["retention"], Value::Null, "a run that is refused removes nothing");
    }
    assert!(names(&nights).contains(&baseline));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_it_is_told_and_changes_no_verdict_and_no_exit_code() {
    let nights = begin("2d").await;
    let orphan = nights.orphan(0, Duration::days(90));
    for _ in 0..3 {
        nights.night(24).await;
    }
    ledger(&nights)
        .await
        .execute("CREATE TRIGGER broken BEFORE DELETE ON plans BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END")
        .await
        .expect("made");
    // `night` asserts exit code 0 and a complete run.
    for _ in 0..6 {
        nights.night(24).await;
    }
    let summary = nights.summary();
    let error = summary["retention"]["error"].as_str().expect("an error");
    assert!(error.contains("the disk is broken"), "{error}");
    assert_eq!((&summary["retention"]["rows_compacted"], &summary["groups"]["eligible"]), (&0.into(), &1.into()));
    assert_eq!(nights.reason(orphan).as_deref(), Some("eligible"));
    assert!(nights.program.read("report.html").contains("Old reports could not all be removed"));
    ledger(&nights).await.execute("DROP TRIGGER broken").await.expect("dropped");
    let mended = nights.night(24).await;
    assert!(mended["retention"]["rows_compacted"].as_u64().is_some_and(|rows| rows > 6), "{mended:#}");
    assert_eq!(mended["retention"]["error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_clock_that_runs_ahead_removes_nothing() {
    use std::sync::Arc;

    use orphan_sweeper::clock::ManualClock;
    use orphan_sweeper::{Host, main_with};
    let nights = begin("10d").await;
    for _ in 0..4 {
        nights.night(24).await;
    }
    let before = names(&nights);
    let ahead = ManualClock::at(nights.now() + Duration::days(4000));
    let host = Host { variables: nights.program.variables.clone(), clock: Arc::new(ahead) };
    let arguments = ["orphan-sweeper", "--quiet", "audit"].map(str::to_owned);
    tokio::task::spawn_blocking(move || main_with(arguments, &host)).await.expect("joined");
    assert!(before.is_subset(&names(&nights)));
}
