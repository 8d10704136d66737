//! A purge that its process left: who goes on with it asks again for everything that could forbid it, and tells what nobody did.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use crate::purge::{document, events, prefixes, webhook};
use crate::support::minio::Bucket;
use crate::support::platform::Platform;
use crate::support::{Ran, without};

/// Purges a dataset until `step`, where the process is killed.
async fn killed_at(platform: &Platform, id: Uuid, step: &str) -> Ran {
    let arguments = ["purge", "dataset", &id.to_string(), "--yes", "--log-format", "json"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &arguments).await;
    assert_eq!(killed.code, -9, "{step}: {killed:?}");
    killed
}

#[tokio::test]
async fn a_killed_purge_goes_on_with_the_same_command() {
    let steps = [
        "purge_before_intent",
        "purge_intended",
        "purge_committed",
        "purge_rows_gone",
        "before_intent",
        "after_intent",
        "before_send",
        "after_send",
        "after_outcome",
        "before_verify",
        "before_report",
        "after_report",
    ];
    for step in steps {
        let platform = Platform::without_ledger().await;
        platform.world.live(0).await;
        let id = platform.dataset("iq_raw", 2).await;
        platform.world.audit().await;
        killed_and_done_again(&platform, id, step).await;
    }
}

#[tokio::test]
async fn a_killed_purge_goes_on_with_a_ledger_in_postgres() {
    for step in ["purge_intended", "purge_committed", "after_send"] {
        let mut platform = Platform::without_ledger().await;
        platform.keep_ledger_in_postgres();
        platform.world.live(0).await;
        let id = platform.dataset("iq_raw", 2).await;
        platform.world.audit().await;
        killed_and_done_again(&platform, id, step).await;
    }
}

async fn killed_and_done_again(platform: &Platform, id: Uuid, step: &str) {
    let before = platform.world.contents().await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes", "--json"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &arguments).await;
    assert_eq!(killed.code, -9, "{step}: {killed:?}");
    let has_rows = platform.names(id).await;
    assert_eq!(has_rows, matches!(step, "purge_before_intent" | "purge_intended"), "{step}");
    if has_rows {
        assert_eq!(platform.world.contents().await, before, "{step}: rows first");
    }
    // A lease ends by itself.
    let mut again = platform.purge(&["dataset", &id.to_string()]).await;
    for _ in 0..200 {
        if !again.stderr.contains("another process is purging it") {
            break;
        }
        again = platform.purge(&["dataset", &id.to_string()]).await;
    }
    assert_eq!(again.code, 0, "{step}: {again:?}");
    assert!(!platform.names(id).await, "{step}");
    assert_eq!(platform.world.contents().await, without(&before, &prefixes(id)), "{step}");
    let deletion = &document(&again)["deletion"];
    assert_eq!((&deletion["requested"], &deletion["deleted"]), (&json!(4), &json!(4)), "{step}: {again:?}");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{step}: {verified:?}");
    let over = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(over.code, 4, "{step}: {over:?}");
}

#[tokio::test]
async fn a_transaction_that_nobody_can_vouch_for_removes_no_object() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_committed", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    // As after a recovery to a point in time: the number is one that the server has not given out.
    platform.edit_ledger("UPDATE purges SET xid = 4000000000000").await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2], "doubt keeps");
    // The same of a recorded database that is another one.
    let other = platform.dataset("iq_raw", 2).await;
    let arguments = ["purge", "dataset", &other.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let edit = "UPDATE purges SET evidence = json_set(evidence, '$.anchor.identity.timeline', '0000000F') WHERE state = 'committed'";
    platform.edit_ledger(edit).await;
    let ran = platform.purge(&["dataset", &other.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(platform.objects(other).await, [2, 2], "doubt keeps");
}

#[tokio::test]
async fn a_database_that_does_not_know_its_transaction_any_more_ends_it() {
    let platform = Platform::new().await;
    let [id, next] = [platform.dataset("iq_raw", 2).await, platform.dataset("iq_raw", 2).await];
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    // As after a snapshot of its volume was put back, which had the number still to give out.
    platform.edit_ledger("UPDATE purges SET xid = 4000000000000").await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("it was set back"), "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2], "doubt keeps");
    // Nor does a new one begin on such a database.
    platform
        .edit_ledger(
            "UPDATE baselines SET baseline = json_set(baseline, '$.observation.snapshot', '4000000000000:4000000000000:')",
        )
        .await;
    let rows = platform.all_rows().await;
    let ran = platform.purge(&["dataset", &next.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("it was set back"), "{ran:?}");
    assert_eq!((platform.all_rows().await, platform.objects(next).await), (rows, [2, 2]));
}

#[tokio::test]
async fn a_row_that_is_seen_in_a_database_that_was_set_back_keeps_everything_though_it_is_gone_again() {
    // By the purge itself, though a latch holds it, and by an audit.
    for by_audit in [false, true] {
        let platform = Platform::new().await;
        let id = platform.dataset("iq_raw", 2).await;
        killed_at(&platform, id, "purge_rows_gone").await;
        platform.edit_ledger("UPDATE purges SET xid = xid + 4000000000000").await;
        platform.rows(id, "iq_raw").await;
        if by_audit {
            platform.world.audit().await;
        } else {
            platform
                .edit_ledger(
                    "INSERT INTO latches SELECT 'synthetic', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' \
                     FROM baselines WHERE scope = 'synthetic'",
                )
                .await;
            assert_eq!(platform.purge(&["dataset", &id.to_string()]).await.code, 4);
            platform.edit_ledger("DELETE FROM latches").await;
        }
        platform.edit_ledger("UPDATE purges SET xid = xid - 4000000000000").await;
        platform.world.database.delete(id).await;
        let ran = platform.purge(&["dataset", &id.to_string()]).await;
        // One that saw it itself is over.
        assert_eq!(ran.code, if by_audit { 5 } else { 4 }, "{by_audit}: {ran:?}");
        assert_eq!(platform.objects(id).await, [2, 2], "{by_audit}");
    }
}

#[tokio::test]
async fn a_row_that_another_purge_saw_keeps_everything_though_it_is_gone_again() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_committed").await;
    platform.rows(id, "iq_raw").await;
    let job = platform.job("completed", "synthetic_generation", &[id]).await;
    platform.model("in use", true, id).await;
    let refused = platform.purge(&["job", &job.to_string()]).await;
    assert!(refused.code != 0 && refused.stderr.contains("in use"), "{refused:?}");
    platform.world.database.execute("DELETE FROM heimdall.models").await;
    platform.world.database.delete(id).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn a_row_that_a_refused_purge_saw_is_off_every_plan() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    platform.world.database.delete(id).await;
    platform.world.audit().await;
    let plan = platform.world.plan_of_newest_audit();
    platform.rows(id, "iq_raw").await;
    platform.model("in use", true, id).await;
    let refused = platform.purge(&["dataset", &id.to_string()]).await;
    assert!(refused.code != 0 && refused.stderr.contains("in use"), "{refused:?}");
    platform.world.database.execute("DELETE FROM heimdall.models").await;
    platform.world.database.delete(id).await;
    let applied = platform.world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(platform.objects(id).await, [2, 2], "{applied:?}");
}

#[tokio::test]
async fn a_database_that_was_set_back_since_the_last_scan_ends_what_waits() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_rows_gone").await;
    // It knows the purge, and lacks what came after it.
    platform
        .edit_ledger(
            "UPDATE baselines SET baseline = json_set(baseline, '$.observation.snapshot', '4000000000000:4000000000000:')",
        )
        .await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("it was set back"), "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn what_a_process_that_goes_on_marks_is_brought_back_though_an_earlier_one_ended() {
    let platform = Platform::new().await;
    platform.world.bucket.set_versioning(aws_sdk_s3::types::BucketVersioningStatus::Enabled).await;
    let id = platform.dataset("iq_raw", 1).await;
    killed_at(&platform, id, "before_intent").await;
    // The earlier process came to an end of its own, a day ago.
    platform.edit_ledger("UPDATE undos SET ended_at = '2026-01-01T00:00:00Z'").await;
    killed_at(&platform, id, "after_outcome").await;
    let ended: Vec<String> = platform.world.program.run_folders().iter().map(|it| it.display().to_string()).collect();
    let run = ended.last().and_then(|it| it.rsplit('/').next()).expect("a run").to_owned();
    platform.edit_ledger("UPDATE purges SET state = 'done'").await;
    let restored = platform.world.program.run(&["restore", "--run", &run, "--yes", "--json"]).await;
    assert_eq!(
        restored.json()["restore"]["restored"].as_u64().or(restored.json()[0]["restore"]["restored"].as_u64()),
        Some(1),
        "{restored:?}"
    );
}

#[tokio::test]
async fn a_run_that_finds_the_ledger_older_than_a_report_ends_what_waits() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_committed").await;
    platform.world.audit().await;
    platform.edit_ledger("DELETE FROM runs WHERE command = 'audit'").await;
    platform.world.program.run(&["audit"]).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2], "the ledger looks whole again, and the purge is over");
}

#[tokio::test]
async fn the_copies_of_a_purge_that_waits_are_not_reaped() {
    let mut platform = Platform::new().await;
    platform.world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    platform.world.program.set_scope("QUARANTINE__KEEP", "0s");
    let id = platform.dataset("iq_raw", 1).await;
    killed_at(&platform, id, "after_send").await;
    let copies = async || {
        let contents = platform.world.contents().await;
        contents.keys().filter(|key| key.starts_with("quarantine/") && key.contains(&id.to_string())).count()
    };
    let before = copies().await;
    assert!(before > 0);
    platform.world.settle().await;
    let swept = platform.world.program.run(&["sweep", "--json"]).await;
    assert_eq!(swept.code, 0, "{swept:?}");
    assert_eq!(copies().await, before);
    let done = platform.purge_dataset(id).await;
    let run = done["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(platform.objects(id).await, [0, 0]);
    let restored = platform.world.program.run(&["restore", "--run", &run, "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(platform.objects(id).await, [1, 1]);
}

#[tokio::test]
async fn an_undo_whose_end_cannot_be_noted_leaves_the_purge_to_be_gone_on_with() {
    let mut platform = Platform::new().await;
    platform.world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    let id = platform.dataset("iq_raw", 1).await;
    platform
        .edit_ledger(
            "CREATE TRIGGER full BEFORE UPDATE OF ended_at ON undos BEGIN SELECT RAISE(ABORT, 'disk full'); END",
        )
        .await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("disk full"), "{ran:?}");
    assert_eq!(platform.objects(id).await, [0, 0], "they were deleted");
    platform.edit_ledger("DROP TRIGGER full").await;
    let done = document(&platform.purge(&["dataset", &id.to_string()]).await);
    assert_eq!(done["deletion"]["deleted"], 2, "{done}");
    let run = done["run_id"].as_str().expect("an id").to_owned();
    let restored = platform.world.program.run(&["restore", "--run", &run, "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(platform.objects(id).await, [1, 1]);
}

#[tokio::test]
async fn what_is_written_long_after_a_purge_is_none_of_it() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    // It waited for a day, and what lies there now was written since.
    let day_before = "UPDATE purges SET evidence = json_set(evidence, '$.as_of', \
                      strftime('%Y-%m-%dT%H:%M:%SZ', json_extract(evidence, '$.as_of'), '-1 day'))";
    platform.edit_ledger(day_before).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    let summary = document(&ran);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]), (&json!(0), &json!(4)), "{summary}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn a_stop_file_or_a_hold_that_appears_keeps_what_is_left() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 1).await;
    let stop = platform.world.program.path("reports/STOP");
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    std::fs::write(&stop, "").expect("written");
    let stopped = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(stopped.code, 4, "{stopped:?}");
    assert_eq!(platform.objects(id).await, [1, 1]);
    std::fs::remove_file(&stop).expect("removed");
    let url = platform.world.program.variables["ORPHAN_SWEEPER_PURGE_DATABASE_URL"].clone();
    platform.world.program.unset("ORPHAN_SWEEPER_PURGE_DATABASE_URL");
    let done = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(done.code, 0, "its rows are gone already: {done:?}");
    assert_eq!(platform.objects(id).await, [0, 0]);
    platform.world.program.set("ORPHAN_SWEEPER_PURGE_DATABASE_URL", &url);
    let held = platform.dataset("iq_raw", 1).await;
    let arguments = ["purge", "dataset", &held.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    platform.hold(held).await;
    let told: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    platform.world.program.set("ORPHAN_SWEEPER_NOTIFY_URL", &webhook(told.clone()).await);
    let kept = platform.purge(&["dataset", &held.to_string()]).await;
    assert_eq!(kept.code, 5, "{kept:?}");
    let told = told.lock().join("\n");
    assert!(told.contains("\"failure\"") && told.contains("\"command\":\"purge\""), "somebody is told: {told}");
    assert_eq!(platform.objects(held).await, [1, 1]);
    let over = platform.purge(&["dataset", &held.to_string()]).await;
    assert_eq!(over.code, 4, "what is left is an orphan: {over:?}");
}

#[tokio::test]
async fn a_database_that_is_down_leaves_a_purge_to_be_gone_on_with() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let url = platform.world.program.variables["ORPHAN_SWEEPER_DATABASE_URL"].clone();
    platform.world.program.set("ORPHAN_SWEEPER_DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    let down = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(down.code, 1, "{down:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
    platform.world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &url);
    platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
}

#[tokio::test]
async fn serve_goes_on_with_a_purge_that_was_left() {
    let mut platform = Platform::without_ledger().await;
    platform.world.live(0).await;
    let id = platform.dataset("iq_raw", 2).await;
    platform.world.audit().await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_committed", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    // The daemon ends by itself after the one thing that it had to do.
    platform.world.program.set("ORPHAN_SWEEPER_TEST_KILL_BY", "SIGTERM");
    let served = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_report", &["serve"]).await;
    assert_eq!(served.code, 0, "{served:?}");
    assert!(!platform.names(id).await);
    assert_eq!(platform.objects(id).await, [0, 0]);
}

#[tokio::test]
async fn who_goes_on_with_a_purge_that_died_at_its_commit_tells_what_it_could_not() {
    let mut platform = Platform::new().await;
    let told: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let hook = webhook(told.clone()).await;
    platform.world.program.set_scope("PURGE__CANCEL_WEBHOOK", &hook);
    let dataset = platform.dataset("iq_raw", 1).await;
    let job = platform.job("running", "synthetic_generation", &[dataset]).await.to_string();
    let arguments = ["purge", "job", &job, "--yes", "--json", "--log-format", "json"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_committed", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    assert!(told.lock().is_empty() && events(&killed).is_empty(), "{killed:?}");
    let ran = platform.world.program.run(&arguments).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let events: Vec<String> = events(&ran).iter().map(ToString::to_string).collect();
    for (event, id) in [("synthetic_dataset_deleted", dataset.to_string()), ("synthetic_job_deleted", job.clone())] {
        assert!(events.iter().any(|line| line.contains(event) && line.contains(&id)), "{event}: {ran:?}");
    }
    assert_eq!(told.lock().iter().filter(|body| body.contains(&job)).count(), 1, "{told:?}");
}

#[tokio::test]
async fn a_purge_that_goes_on_copies_to_where_it_began() {
    let mut platform = Platform::new().await;
    platform.world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    let id = platform.dataset("iq_raw", 600).await;
    let before = platform.world.contents().await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_send", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    assert_ne!(platform.objects(id).await, [600, 600], "something went");
    // What is configured since is for what begins since.
    platform.world.program.set_scope("QUARANTINE__PREFIX", "elsewhere/");
    let summary = platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
    assert!(!platform.world.contents().await.keys().any(|key| key.starts_with("elsewhere/")));
    let run = summary["run_id"].as_str().expect("a run");
    let restored = platform.world.program.run(&["restore", "--run", run, "--yes", "--json"]).await;
    assert_eq!(restored.summary(0)["restore"]["restored"], 1200, "{restored:?}");
    let after = platform.world.contents().await;
    assert!(before.iter().all(|(key, tag)| after.get(key) == Some(tag)));
}

#[tokio::test]
async fn another_target_than_where_its_objects_lie_is_not_touched_and_it_goes_on_where_they_do() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    let elsewhere = Bucket::create().await;
    let keys: Vec<String> = platform.world.contents().await.into_keys().collect();
    elsewhere.put_many(keys).await;
    let copies = elsewhere.contents().await;
    let own = |key: &str| platform.world.program.variables.get(key).cloned().expect("set");
    let (bucket, endpoint) = (own("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__BUCKET"), own("ORPHAN_SWEEPER__STORE__ENDPOINT"));
    let by_name = endpoint.replace("127.0.0.1", "localhost");
    assert_ne!(by_name, endpoint);
    // Also with a request that nobody knows the end of: nothing is settled by what another bucket lists.
    killed_at(&platform, id, "after_intent").await;
    for (variable, other, right) in [
        ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__BUCKET", elsewhere.name.as_str(), bucket.as_str()),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT", by_name.as_str(), endpoint.as_str()),
        ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PATTERNS", r#"["synthetic/{id}/"]"#, ""),
    ] {
        platform.world.program.set(variable, other);
        let refused = platform.purge(&["dataset", &id.to_string()]).await;
        assert_eq!(refused.code, 4, "{variable}: {refused:?}");
        assert!(refused.stderr.contains("the configuration says"), "{variable}: {refused:?}");
        match right {
            "" => platform.world.program.unset(variable),
            right => platform.world.program.set(variable, right),
        }
    }
    assert_eq!(elsewhere.contents().await, copies);
    assert_eq!(platform.objects(id).await, [2, 2]);
    let summary = platform.purge_dataset(id).await;
    assert_eq!(summary["deletion"]["deleted"], 4, "{summary}");
    assert_eq!(platform.objects(id).await, [0, 0]);
    assert_eq!(elsewhere.contents().await, copies);
}

#[tokio::test]
async fn a_target_that_a_scan_took_for_good_ends_it_and_what_is_left_is_an_orphan() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 1).await;
    killed_at(&platform, id, "purge_rows_gone").await;
    let elsewhere = Bucket::create().await;
    elsewhere.put_many(platform.world.contents().await.into_keys()).await;
    platform.world.program.set_scope("BUCKET", &elsewhere.name);
    platform.world.settle().await;
    assert_eq!(platform.world.program.run(&["audit"]).await.code, 4, "the target changed");
    let ack = ["ack", "target_changed", "--by", "ada", "--reason", "we moved"];
    assert_eq!(platform.world.program.run(&ack).await.code, 0);
    let over = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(over.code, 4, "{over:?}");
    assert_eq!(platform.objects(id).await, [1, 1]);
    assert_eq!(elsewhere.contents().await.len(), 12);
    let nothing = platform.purge(&["dataset", &id.to_string()]).await;
    assert!(nothing.stderr.contains("there is no such dataset"), "it is over: {nothing:?}");
}

#[tokio::test]
async fn what_a_scan_doubts_meanwhile_keeps_what_is_left_and_is_told_once() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_rows_gone").await;
    platform
        .edit_ledger(
            "INSERT INTO latches SELECT 'synthetic', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' \
             FROM baselines WHERE scope = 'synthetic'",
        )
        .await;
    let told: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    platform.world.program.set("ORPHAN_SWEEPER_NOTIFY_URL", &webhook(told.clone()).await);
    for _ in 0..3 {
        let refused = platform.purge(&["dataset", &id.to_string()]).await;
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("live_drop") && refused.stderr.contains("orphan-sweeper ack"), "{refused:?}");
    }
    assert_eq!(platform.objects(id).await, [2, 2]);
    let told = told.lock().clone();
    assert!(told.len() == 1 && told[0].contains("live_drop"), "once, however often it is tried: {told:?}");
    platform.edit_ledger("DELETE FROM latches").await;
    platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
}

#[tokio::test]
async fn a_row_that_was_seen_again_keeps_everything_though_its_process_died_and_it_is_gone_again() {
    for step in ["purge_looked", "before_verify", "before_report"] {
        let platform = Platform::new().await;
        let id = platform.dataset("iq_raw", 2).await;
        killed_at(&platform, id, "purge_committed").await;
        platform.rows(id, "iq_raw").await;
        killed_at(&platform, id, step).await;
        platform.world.database.delete(id).await;
        let ran = platform.purge(&["dataset", &id.to_string()]).await;
        assert_eq!(ran.code, 5, "{step}: {ran:?}");
        assert_eq!(platform.objects(id).await, [2, 2], "{step}");
        assert_eq!(platform.world.audit().await["groups"]["orphan"], 2, "{step}: they are orphans now");
    }
}

#[tokio::test]
async fn a_row_that_a_scan_saw_while_the_purge_waited_keeps_everything_though_it_is_gone_again() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_committed").await;
    platform.rows(id, "iq_raw").await;
    platform.world.audit().await;
    platform.world.database.delete(id).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn a_row_that_a_purge_saw_while_it_waited_for_a_person_keeps_everything_though_it_is_gone_again() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_committed").await;
    platform
        .edit_ledger(
            "INSERT INTO latches SELECT 'synthetic', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' \
             FROM baselines WHERE scope = 'synthetic'",
        )
        .await;
    platform.rows(id, "iq_raw").await;
    let waits = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(waits.code, 4, "{waits:?}");
    platform.edit_ledger("DELETE FROM latches").await;
    platform.world.database.delete(id).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn a_ledger_that_is_older_than_a_report_beside_it_goes_on_with_no_purge() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    killed_at(&platform, id, "purge_committed").await;
    platform.world.audit().await;
    platform.edit_ledger("DELETE FROM baselines").await;
    platform.edit_ledger("DELETE FROM runs WHERE command = 'audit'").await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("it is older or another"), "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
    // Nor later, when a new run made the ledger look whole again.
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn what_was_told_is_not_told_again_and_what_was_not_is() {
    let platform = Platform::new().await;
    for (step, was_told) in [("purge_noted", false), ("before_intent", true)] {
        let id = platform.dataset("iq_raw", 1).await;
        let tells = |ran: &Ran| {
            let of_rows = |event: &&serde_json::Value| event.to_string().contains("synthetic_dataset_deleted");
            events(ran).iter().filter(of_rows).count()
        };
        let killed = killed_at(&platform, id, step).await;
        assert_eq!(tells(&killed), usize::from(was_told), "{step}: {killed:?}");
        let arguments = ["purge", "dataset", &id.to_string(), "--yes", "--log-format", "json"];
        let ran = platform.world.program.run(&arguments).await;
        assert_eq!(ran.code, 0, "{step}: {ran:?}");
        assert_eq!(tells(&ran), usize::from(!was_told), "{step}: {ran:?}");
    }
}

#[tokio::test]
async fn what_began_as_a_plain_deletion_goes_on_as_one() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 600).await;
    killed_at(&platform, id, "after_send").await;
    platform.world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    let summary = platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
    assert_eq!(summary["deletion"]["bytes_quarantined"], 0, "{summary}");
    assert_eq!(summary["deletion"]["bytes_deleted"], 1200, "{summary}");
    assert!(!platform.world.contents().await.keys().any(|key| key.starts_with("quarantine/")));
}
