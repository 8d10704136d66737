//! Each report compares itself with the last complete run: what leaked, and when that fills the store.

use std::process::ExitCode;

use chrono::Duration;
use serde_json::Value;

use crate::support::nights::Nights;

fn numbers(summary: &Value) -> (u64, u64, u64) {
    let count = |name: &str| summary["trend"][name].as_u64().expect("a count");
    (count("new"), count("persisting"), count("resolved"))
}

#[track_caller]
fn assert_near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!((value - expected).abs() < 0.01, "{value} is not {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaks_is_told_a_day_and_fills_the_store_at_that_rate_at_the_latest() {
    let mut nights = Nights::begin().await;
    nights.program.set_scope("CAPACITY", "1000B");
    nights.orphan(0, Duration::days(40));
    assert_eq!(nights.night(0).await["trend"], Value::Null, "nothing to compare with");
    nights.orphan(1, Duration::days(40));
    nights.orphan(1, Duration::days(40));
    let summary = nights.night(48).await;
    assert_eq!(numbers(&summary), (2, 1, 0));
    assert_near(&summary["trend"]["bytes_per_day"], 10.0);
    assert_near(&summary["trend"]["days_to_full"], 97.0);
    let page = nights.program.read("report.html");
    assert!(page.contains("Filled by the leak alone in at most") && page.contains("97 days"), "{page}");
    let calm = nights.night(24).await;
    assert_eq!(numbers(&calm), (0, 3, 0));
    assert_near(&calm["trend"]["bytes_per_day"], 0.0);
    assert_eq!(calm["trend"]["days_to_full"], Value::Null, "nothing grows");
    nights.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__CAPACITY");
    nights.orphan(0, Duration::days(40));
    let summary = nights.night(24).await;
    assert_near(&summary["trend"]["bytes_per_day"], 10.0);
    assert_eq!(summary["trend"]["days_to_full"], Value::Null, "nobody knows how large the store is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_deleted_is_no_shrinking_of_the_leak() {
    let nights = Nights::begin().await;
    nights.orphan(0, Duration::days(40));
    for _ in 0..10 {
        nights.night(24).await;
    }
    let plan = nights.program.latest("plan.json");
    assert_eq!(nights.run(&["apply", &plan, "--yes"]).await, ExitCode::SUCCESS);
    assert_eq!(nights.summary()["deletion"]["bytes_deleted"], 10);
    nights.orphan(1, Duration::days(40));
    let summary = nights.night(24).await;
    assert_eq!(numbers(&summary), (1, 0, 1));
    assert_near(&summary["trend"]["bytes_per_day"], 10.0);
}
