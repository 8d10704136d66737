//! What waits in quarantine: for how long, and for whom.

use std::process::ExitCode;

use chrono::Duration;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::memory::{BUCKET, an_hour_ago};
use crate::support::nights::Nights;
use crate::support::{MemoryWorld, prefix};

const DAY: i64 = 24;

/// Nights in which an orphan came into quarantine; the id.
async fn quarantined() -> (Nights, Uuid) {
    let mut nights = Nights::begin().await;
    nights.program.set_scope("POLICY__DISPOSAL", "quarantine");
    nights.program.set_scope("POLICY__APPROVAL", "automatic");
    let id = nights.orphan(0, Duration::days(90));
    for night in 0..8 {
        nights.night(if night == 0 { 0 } else { DAY }).await;
    }
    sweep(&nights, 0).await;
    assert_eq!(copies(&nights), 1);
    (nights, id)
}

fn copies(nights: &Nights) -> usize {
    nights.store.keys(BUCKET).iter().filter(|key| key.starts_with("quarantine/")).count()
}

/// Sweeps `days` after the last night.
async fn sweep(nights: &Nights, days: i64) -> Value {
    nights.clock.advance(Duration::days(days));
    assert_eq!(nights.run(&["sweep"]).await, ExitCode::SUCCESS, "{:#}", nights.summary());
    nights.summary()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_copy_counts_from_when_its_id_was_last_wanted() {
    let (nights, id) = quarantined().await;
    for _ in 0..9 {
        sweep(&nights, 3).await;
    }
    // Its row is back, and gone again a few days later. An audit sees it, and no sweep ever does.
    nights.insert(id).await;
    nights.night(2 * DAY).await;
    nights.delete(id).await;
    for _ in 0..9 {
        let summary = sweep(&nights, 3).await;
        assert_eq!(copies(&nights), 1, "{summary:#}");
    }
    let summary = sweep(&nights, 2).await;
    assert_eq!((&summary["reaped"]["waiting"], copies(&nights)), (&json!(1), 1), "29 days after: {summary:#}");
    let summary = sweep(&nights, 1).await;
    assert_eq!((&summary["reaped"]["objects"], copies(&nights)), (&json!(1), 0), "30 days after: {summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_counts_like_a_row_until_its_time_after_is_over() {
    let (nights, id) = quarantined().await;
    let (id, why) = (id.to_string(), ["--by", "ada", "--reason", "why"]);
    assert_eq!(nights.run(&[&["hold", "add", &id], &why[..]].concat()).await, ExitCode::SUCCESS);
    for _ in 0..10 {
        sweep(&nights, 3).await;
    }
    assert_eq!((copies(&nights), &nights.summary()["reaped"]["waiting"]), (1, &json!(1)));
    assert_eq!(nights.run(&[&["hold", "remove", &id], &why[..]].concat()).await, ExitCode::SUCCESS);
    for _ in 0..9 {
        sweep(&nights, 3).await;
        assert_eq!(copies(&nights), 1);
    }
    sweep(&nights, 3).await;
    assert_eq!(copies(&nights), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_stay_as_long_as_was_said_when_they_were_made_or_longer() {
    let (mut nights, _) = quarantined().await;
    nights.program.set_scope("QUARANTINE__KEEP", "1d");
    for _ in 0..9 {
        sweep(&nights, 3).await;
        assert_eq!(copies(&nights), 1);
    }
    let next = nights.summary()["reaped"]["next_at"].clone();
    assert_eq!(next, "2026-04-07T03:00:00Z", "thirty days after they were made");
    nights.program.set_scope("QUARANTINE__KEEP", "35d");
    for _ in 0..2 {
        sweep(&nights, 3).await;
        assert_eq!(copies(&nights), 1, "longer than was said");
    }
    sweep(&nights, 2).await;
    assert_eq!(copies(&nights), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leap_of_every_clock_empties_no_quarantine_and_the_next_run_goes_on() {
    let (nights, _) = quarantined().await;
    let summary = sweep(&nights, 365).await;
    let why = summary["reaped"]["held_by"].as_str().expect("it says why").to_owned();
    assert!(why.starts_with("1year 5h 45m 36s went by since the last good scan") || why.contains("went by"), "{why}");
    assert_eq!(copies(&nights), 1);
    let summary = sweep(&nights, 1).await;
    assert_eq!((&summary["reaped"]["objects"], copies(&nights)), (&json!(1), 0), "{summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_gone_for_a_moment_takes_no_copy_with_it() {
    let mut world = MemoryWorld::new().await;
    world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    for _ in 0..3 {
        world.live(0).await;
    }
    let id = world.orphan(0);
    world.audit().await;
    world.apply().await.summary(0);
    let aside: Vec<String> = world.keys().into_iter().filter(|key| key.starts_with("quarantine/")).collect();
    aside.iter().for_each(|key| world.store.put_at(BUCKET, key, "0123456789", Some(an_hour_ago())));
    // The sweep reads the row. Then the platform deletes it, to write it again in its next transaction.
    world.database.insert(id).await;
    let (pool, handle) = (world.database.pool.clone(), tokio::runtime::Handle::current());
    world.store.on_request(move |request, _| {
        if request.prefix.as_deref().is_some_and(|prefix| prefix.starts_with("quarantine/")) {
            let delete = sqlx::query("DELETE FROM heimdall.synthetic_datasets WHERE id = $1").bind(id);
            handle.block_on(async { delete.execute(&pool).await }).expect("deleted");
        }
    });
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    let reaped = &summary["reaped"];
    assert_eq!((&reaped["objects"], &reaped["waiting"]), (&json!(0), &json!(2)), "{summary:#}");
    assert!(aside.iter().all(|key| world.keys().contains(key)));
    assert!(!world.keys().contains(&format!("{}a.npy", prefix(0, id))));
}
