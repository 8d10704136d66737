//! Both clocks of grace, sightings and their span, gaps and jumps, under the default policy.

use std::process::ExitCode;

use chrono::Duration;

use crate::support::nights::{BUCKET, Nights};
use crate::support::prefix;

const DAY: i64 = 24;

fn reason(nights: &Nights, id: uuid::Uuid) -> String {
    nights.reason(id).expect("an orphan")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_orphan_matures_a_week_after_its_first_sighting_to_the_second() {
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(90));
    nights.night(0).await;
    assert_eq!(reason(&nights, old), "within_grace");
    let first = nights.summary();
    assert_eq!(first["next_eligible_at"], "2026-03-08T03:00:00Z");
    for _ in 0..6 {
        nights.night(DAY).await;
        assert_eq!(reason(&nights, old), "within_grace");
    }
    nights.night_after(Duration::hours(DAY) - Duration::seconds(1)).await;
    assert_eq!(reason(&nights, old), "within_grace", "one second short");
    nights.night_after(Duration::seconds(1)).await;
    assert_eq!(reason(&nights, old), "eligible");
    assert_eq!(nights.run(&["apply", &nights.program.latest("plan.json"), "--yes"]).await, ExitCode::SUCCESS);
    assert!(!nights.store.keys(BUCKET).iter().any(|key| key.contains(&old.to_string())));
    assert_eq!(nights.store.keys(BUCKET).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_object_must_be_a_week_old_to_the_second() {
    let nights = Nights::begin().await;
    // Written so that on the last night they are a week old, but for one second.
    let last_night = Duration::days(10);
    let [short, exact, over] = [1, 0, -1].map(|seconds| {
        let written_in = last_night - Duration::days(7) + Duration::seconds(seconds);
        nights.orphan(1, -written_in)
    });
    for night in 0..=10 {
        nights.night(if night == 0 { 0 } else { DAY }).await;
        assert!(night == 10 || reason(&nights, exact) != "eligible");
    }
    assert_eq!(reason(&nights, short), "within_grace");
    assert_eq!((reason(&nights, exact), reason(&nights, over)), ("eligible".into(), "eligible".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_between_scans_and_one_jump_of_every_clock_mature_nothing() {
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(900));
    nights.night(0).await;
    nights.night(DAY).await;
    // Every clock jumps a year: store, catalogue and host agree, so no breaker sees it.
    let jumped = nights.night(365 * DAY).await;
    assert_eq!(jumped["outcome"], "complete");
    assert_eq!(reason(&nights, old), "within_grace");
    for _ in 0..2 {
        nights.night(DAY).await;
        assert_eq!(reason(&nights, old), "within_grace");
    }
    nights.night(DAY).await;
    assert_eq!(reason(&nights, old), "eligible", "one day, the jump worth three and a half, and three days more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weekly_schedule_matures_at_its_third_scan_and_applies() {
    let mut nights = Nights::begin().await;
    nights.program.set_scope("POLICY__APPROVAL", "automatic");
    nights.program.set_scope("SCHEDULE__CRON", "0 3 * * SUN");
    let old = nights.orphan(0, Duration::days(90));
    let mut seen = Vec::new();
    for _ in 0..3 {
        assert_eq!(nights.run(&["sweep"]).await, ExitCode::SUCCESS);
        seen.push(reason(&nights, old));
        let plan: serde_json::Value = serde_json::from_str(&nights.program.read("plan.json")).expect("a plan");
        let created: chrono::DateTime<chrono::Utc> =
            plan["plan"]["created_at"].as_str().expect("a time").parse().expect("a time");
        let expires: chrono::DateTime<chrono::Utc> =
            plan["plan"]["expires_at"].as_str().expect("a time").parse().expect("a time");
        assert_eq!(expires - created, Duration::weeks(2), "two intervals");
        nights.clock.advance(Duration::weeks(1));
    }
    assert_eq!(seen, ["within_grace", "too_few_sightings", "eligible"]);
    assert!(!nights.store.keys(BUCKET).iter().any(|key| key.contains(&old.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_upload_into_an_orphan_or_its_twin_starts_its_sightings_again() {
    let nights = Nights::begin().await;
    let (same, twin, untouched) = (
        nights.orphan(0, Duration::days(90)),
        nights.orphan(0, Duration::days(90)),
        nights.orphan(1, Duration::days(90)),
    );
    for night in 0..8 {
        if night == 5 {
            nights.put_at(&format!("{}late", prefix(0, same)), Duration::days(-80));
            nights.put_at(&format!("{}late", prefix(1, twin)), Duration::days(-80));
        }
        nights.night(if night == 0 { 0 } else { DAY }).await;
        if night == 5 {
            assert_eq!(
                (reason(&nights, same), reason(&nights, twin)),
                ("changed_since_seen".into(), "changed_since_seen".into())
            );
        }
    }
    assert_eq!((reason(&nights, same), reason(&nights, twin)), ("within_grace".into(), "within_grace".into()));
    assert_eq!(reason(&nights, untouched), "eligible");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_back_for_one_night_starts_its_sightings_again() {
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(90));
    for night in 0..8 {
        if night == 5 {
            nights.insert(old).await;
        }
        nights.night(if night == 0 { 0 } else { DAY }).await;
        if night == 5 {
            assert_eq!(nights.reason(old), None, "it is live");
            nights.delete(old).await;
        }
    }
    assert_eq!(reason(&nights, old), "within_grace");
    let rows = nights.program.csv("orphans.csv");
    assert_eq!(rows[0]["sightings"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_fails_counts_for_nothing_and_breaks_no_streak() {
    use orphan_sweeper::embedded::{Action, Fault, Operation, When};
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(90));
    for night in 0..8 {
        if night == 4 {
            let down = Action::Status { code: 403, s3_code: "AccessDenied" };
            nights.store.inject(Fault { operation: Operation::ListObjectsV2, when: When::Always, action: down });
            nights.clock.advance(Duration::hours(DAY));
            assert_eq!(nights.run(&["audit"]).await, ExitCode::from(1));
            assert_eq!(nights.summary()["outcome"], "incomplete");
            nights.store.clear_faults();
            continue;
        }
        nights.night(if night == 0 { 0 } else { DAY }).await;
    }
    assert_eq!(reason(&nights, old), "eligible");
    assert_eq!(nights.program.csv("orphans.csv")[0]["sightings"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_goes_back_is_refused_until_acknowledged() {
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(90));
    for _ in 0..8 {
        nights.night(DAY).await;
    }
    assert_eq!(reason(&nights, old), "eligible");
    nights.clock.advance(Duration::days(-3));
    assert_eq!(nights.run(&["sweep"]).await, ExitCode::from(4));
    assert!(
        nights.summary()["reason"].as_str().is_some_and(|reason| reason.contains("time went back by 259200 s")),
        "{:#}",
        nights.summary()
    );
    assert_eq!(
        nights.run(&["ack", "clock_skew", "--by", "ada", "--reason", "the clock was wrong"]).await,
        ExitCode::SUCCESS
    );
    nights.night(0).await;
    assert_eq!(reason(&nights, old), "within_grace", "its sightings lie in the future, so they start again");
    assert_eq!(nights.delete_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_disagree_by_more_than_five_minutes_are_refused() {
    use orphan_sweeper::embedded::{Action, Fault, Operation, When};
    let nights = Nights::begin().await;
    for (seconds, code) in [(299, 0), (301, 4), (-301, 4)] {
        let date = Action::Date(nights.now() + Duration::seconds(seconds));
        nights.store.inject(Fault { operation: Operation::ListObjectsV2, when: When::Always, action: date });
        assert_eq!(nights.run(&["audit"]).await, ExitCode::from(code), "{seconds}: {:#}", nights.summary());
        nights.store.clear_faults();
        if code == 4 {
            assert_eq!(nights.run(&["ack", "clock_skew", "--by", "ada", "--reason", "test"]).await, ExitCode::SUCCESS);
            // What was accepted is the new normal only as far as it went; the table begins anew each time.
            std::fs::remove_file(nights.program.path("reports/ledger.sqlite3")).expect("removed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_unknown_or_future_age_keep_their_group() {
    use orphan_sweeper::embedded::{Action, Fault, Operation, When};
    let nights = Nights::begin().await;
    let future = nights.orphan(0, Duration::days(-400));
    let ancient = nights.orphan(1, Duration::days(90));
    nights.store.put_at(
        BUCKET,
        &format!("{}y", prefix(1, ancient)),
        "x",
        Some("1999-12-31T00:00:00Z".parse().expect("a time")),
    );
    let unknown = nights.orphan(0, Duration::days(90));
    nights.store.inject(Fault {
        operation: Operation::ListObjectsV2,
        when: When::ForPrefix(prefix(0, unknown)),
        action: Action::LastModified(None),
    });
    for night in 0..9 {
        nights.night(if night == 0 { 0 } else { DAY }).await;
    }
    for id in [future, ancient, unknown] {
        assert_eq!(reason(&nights, id), "newer_than_scan");
    }
}

/// Waits until the runs of this process have let go of the ledger, as those of another have when it ends: the last to close it
/// folds its log in.
async fn closed(ledger: &std::path::Path) {
    let log = std::path::PathBuf::from(format!("{}-wal", ledger.display()));
    for _ in 0..1000 {
        if !log.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} is still there", log.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_new_or_older_than_its_reports_makes_nothing_eligible_sooner() {
    let nights = Nights::begin().await;
    let old = nights.orphan(0, Duration::days(90));
    nights.night(0).await;
    let backup = nights.program.path("backup.sqlite3");
    for _ in 0..6 {
        nights.night(DAY).await;
    }
    assert_eq!(nights.run(&["ledger", "backup", &backup.display().to_string()]).await, ExitCode::SUCCESS);
    nights.night(DAY).await;
    assert_eq!(reason(&nights, old), "eligible");
    let newer_plan = nights.program.latest("plan.json");
    let ledger = nights.program.path("reports/ledger.sqlite3");
    closed(&ledger).await;
    std::fs::copy(&backup, &ledger).expect("restored");
    assert_eq!(nights.run(&["apply", &newer_plan, "--yes"]).await, ExitCode::from(4), "this ledger never issued it");
    nights.night(DAY).await;
    assert_eq!(reason(&nights, old), "within_grace");
    assert_eq!(nights.program.csv("orphans.csv")[0]["sightings"], "1");
    closed(&ledger).await;
    std::fs::remove_file(&ledger).expect("lost");
    nights.night(DAY).await;
    assert_eq!(nights.program.csv("orphans.csv")[0]["sightings"], "1", "a new ledger knows nothing");
    assert_eq!(nights.delete_requests(), 0);
}
