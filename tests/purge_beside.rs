//! Purges beside everything else that works on the same rows: other scopes, sweeps, applies, and other purges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use uuid::Uuid;

use crate::support::Ran;
use crate::support::gate::Gate;
use crate::support::platform::Platform;
use crate::support::program::breaker;

/// A sweep that waits in its listing until it is told to go on.
async fn beside_a_sweep(mut platform: Platform) {
    let [gone, orphan] = [platform.dataset("iq_raw", 3).await, platform.world.orphan(0).await];
    let store = platform.world.bucket.endpoint.clone();
    let (listing, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let gate = {
        let (listing, go_on) = (listing.clone(), go_on.clone());
        Gate::open(&store, move |passing| {
            let (listing, go_on) = (listing.clone(), go_on.clone());
            async move {
                if passing.is_prefix_listing() && passing.number == 1 {
                    listing.notify_one();
                    go_on.notified().await;
                }
            }
        })
        .await
    };
    platform.world.program.set_scope("POLICY__APPROVAL", "automatic");
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    platform.world.settle().await;
    let sweep = platform.world.program.start(&["sweep", "--json"]);
    listing.notified().await;
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &store);
    platform.purge_dataset(gone).await;
    assert_eq!(platform.objects(gone).await, [0, 0], "it did not wait for the sweep");
    go_on.notify_one();
    let swept = Ran::wait(sweep).await;
    let summary = swept.summary(0);
    assert_eq!(summary["outcome"], "complete", "{swept:?}");
    assert_eq!(summary["deletion"]["deleted"], 2, "{summary}");
    assert_eq!(platform.objects(orphan).await, [0, 0]);
    let history = platform.world.program.run(&["history", "--json"]).await;
    assert!(!history.stdout.contains("its process died"), "{history:?}");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[tokio::test]
async fn a_purge_runs_beside_a_sweep_and_breaks_no_account() {
    let platform = Platform::without_ledger().await;
    for _ in 0..3 {
        platform.world.live(0).await;
    }
    beside_a_sweep(with_first_ledger(platform).await).await;
}

#[tokio::test]
async fn a_purge_runs_beside_a_sweep_on_a_ledger_in_postgres() {
    let mut platform = Platform::without_ledger().await;
    platform.keep_ledger_in_postgres();
    platform.world.program.set("ORPHAN_SWEEPER_TEST_LEASE_MS", "60000");
    for _ in 0..3 {
        platform.world.live(0).await;
    }
    beside_a_sweep(with_first_ledger(platform).await).await;
}

/// A ledger that knows no baseline, so that an endpoint through a gate is no change of target.
async fn with_first_ledger(platform: Platform) -> Platform {
    let id = Uuid::new_v4();
    let held =
        platform.world.program.run(&["hold", "add", &id.to_string(), "--by", "ada", "--reason", "a ledger"]).await;
    assert_eq!(held.code, 0, "{held:?}");
    platform
}

#[tokio::test]
async fn a_purge_of_most_rows_is_no_swapped_table_to_a_running_apply() {
    let mut platform = Platform::without_ledger().await;
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(platform.dataset("iq_raw", 1).await);
    }
    platform.world.live(0).await;
    let job = platform.job("completed", "synthetic_generation", &made).await;
    let orphan = platform.world.orphan(0).await;
    let store = platform.world.bucket.endpoint.clone();
    let (at_uploads, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let is_open = Arc::new(AtomicBool::new(true));
    let gate = {
        let (at_uploads, go_on, is_open) = (at_uploads.clone(), go_on.clone(), is_open.clone());
        Gate::open(&store, move |passing| {
            let (at_uploads, go_on, is_open) = (at_uploads.clone(), go_on.clone(), is_open.clone());
            async move {
                // The first group that the apply lists: its own read of the rows is over.
                if passing.is_group_listing() && !is_open.swap(true, Ordering::SeqCst) {
                    at_uploads.notify_one();
                    go_on.notified().await;
                }
            }
        })
        .await
    };
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    platform.world.audit().await;
    is_open.store(false, Ordering::SeqCst);
    let plan = platform.world.plan_of_newest_audit();
    let apply = platform.world.program.start(&["apply", &plan, "--yes", "--json"]);
    at_uploads.notified().await;
    let purged = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(purged.code, 0, "{purged:?}");
    go_on.notify_one();
    let applied = Ran::wait(apply).await;
    let summary = applied.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 2, "{applied:?}");
    assert_eq!(platform.objects(orphan).await, [0, 0]);
    let audited = platform.world.audit().await;
    assert_eq!(audited["outcome"], "complete", "{audited}");
}

#[tokio::test]
async fn rows_that_were_purged_are_no_drop_and_others_are() {
    let platform = Platform::without_ledger().await;
    let mut made = Vec::new();
    for _ in 0..8 {
        made.push(platform.dataset("iq_raw", 1).await);
    }
    let mut others = Vec::new();
    for _ in 0..14 {
        others.push(platform.world.live(0).await);
    }
    let job = platform.job("completed", "synthetic_generation", &made).await;
    platform.world.audit().await;
    let purged = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(purged.code, 0, "{purged:?}");
    let audited = platform.world.audit().await;
    let reading = breaker(&audited, "live_drop");
    assert!(!reading["tripped"].as_bool().expect("told"), "{reading}");
    assert!(reading["message"].as_str().expect("told").contains("of which `purge` removed 8"), "{reading}");
    // A purge before the baseline vouches for nothing after it.
    for id in &others[..7] {
        platform.world.database.delete(*id).await;
    }
    platform.world.settle().await;
    let ran = platform.world.program.run(&["audit", "--json"]).await;
    assert!(breaker(&ran.summary(4), "live_drop")["tripped"].as_bool().expect("told"), "{ran:?}");
}

#[tokio::test]
async fn rows_that_came_and_were_purged_since_the_last_good_scan_vouch_for_no_drop() {
    let platform = Platform::without_ledger().await;
    let mut others = Vec::new();
    for _ in 0..14 {
        others.push(platform.world.live(0).await);
    }
    platform.world.settle().await;
    platform.world.audit().await;
    platform.world.settle().await;
    let mut made = Vec::new();
    for _ in 0..8 {
        let id = platform.dataset("iq_raw", 1).await;
        let young = format!("UPDATE heimdall.synthetic_datasets SET created_at = now() WHERE id = '{id}'");
        platform.world.database.execute(&young).await;
        made.push(id);
    }
    let job = platform.job("completed", "synthetic_generation", &made).await;
    let purged = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(purged.code, 0, "{purged:?}");
    for id in &others[..7] {
        platform.world.database.delete(*id).await;
    }
    platform.world.settle().await;
    let ran = platform.world.program.run(&["audit", "--json"]).await;
    assert!(breaker(&ran.summary(4), "live_drop")["tripped"].as_bool().expect("told"), "{ran:?}");
}

#[tokio::test]
async fn datasets_that_go_one_after_the_other_go_whole_though_each_was_what_another_was_recognised_by() {
    let platform = Platform::without_ledger().await;
    let (first, second) = (platform.dataset("iq_raw", 2).await, platform.dataset("iq_raw", 2).await);
    platform.world.audit().await;
    let arguments = ["purge", "dataset", &first.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_committed", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    platform.purge_dataset(second).await;
    let summary = platform.purge_dataset(first).await;
    assert_eq!(summary["deletion"]["deleted"], 4, "{summary}");
    assert_eq!((platform.objects(first).await, platform.objects(second).await), ([0, 0], [0, 0]));
}

/// Adds the scope `other`: what lies under `copies/` is kept by the same rows.
fn with_another_scope(platform: &mut Platform) {
    platform.world.program.edit_config(|text| {
        let scope = text.split_once("[[scope]]\n").expect("a scope").1;
        let other = scope
            .replace("\"synthetic\"", "\"other\"")
            .replace("synthetic/", "copies/")
            .replace("quarantine/", "aside/");
        format!("{text}\n[[scope]]\n{other}")
    });
    let variables: Vec<(String, String)> = platform
        .world
        .program
        .variables
        .iter()
        .filter(|(name, _)| !name.contains("__PURGE__"))
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__")?;
            Some((format!("ORPHAN_SWEEPER__SCOPE__OTHER__{key}"), value.clone()))
        })
        .collect();
    for (name, value) in variables {
        platform.world.program.set(&name, &value);
    }
    platform.world.program.set("ORPHAN_SWEEPER__SCOPE__OTHER__LIMITS__MIN_OVERLAP", "0.0");
}

#[tokio::test]
async fn what_another_scope_of_the_same_rows_protects_or_doubts_stays() {
    let mut platform = Platform::without_ledger().await;
    with_another_scope(&mut platform);
    let [held, free] = [platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await];
    platform.world.bucket.put_many([held, free].map(|id| format!("copies/{id}/a.npy"))).await;
    platform.world.settle().await;
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let hold = ["--scope", "other", "hold", "add", &held.to_string(), "--by", "ada", "--reason", "a paper"];
    assert_eq!(platform.world.program.run(&hold).await.code, 0);
    let refused = platform.purge(&["dataset", &held.to_string()]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("a paper"), "{refused:?}");
    platform
        .edit_ledger(
            "INSERT INTO latches SELECT 'other', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' \
             FROM baselines WHERE scope = 'other'",
        )
        .await;
    let refused = platform.purge(&["dataset", &free.to_string()]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("live_drop"), "{refused:?}");
    assert_eq!((platform.world.contents().await, platform.all_rows().await), (before, rows));
    platform.edit_ledger("DELETE FROM latches").await;
    // Nor does a purge go on that died before the other scope protected what it is about.
    let arguments = ["purge", "dataset", &free.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let hold = ["--scope", "other", "hold", "add", &free.to_string(), "--by", "ada", "--reason", "a paper"];
    assert_eq!(platform.world.program.run(&hold).await.code, 0);
    let kept = platform.purge(&["dataset", &free.to_string()]).await;
    assert_eq!(kept.code, 5, "{kept:?}");
    assert!(!platform.names(free).await);
    assert_eq!(platform.objects(free).await, [1, 1]);
    let last = platform.dataset("iq_raw", 1).await;
    platform.purge_dataset(last).await;
    assert!(!platform.names(last).await);
}

#[tokio::test]
async fn a_row_that_another_scope_of_the_same_rows_saw_keeps_everything_though_it_is_gone_again() {
    let mut platform = Platform::without_ledger().await;
    with_another_scope(&mut platform);
    platform.settle_in().await;
    let id = platform.dataset("iq_raw", 1).await;
    let arguments = ["purge", "dataset", &id.to_string(), "--yes"];
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "purge_rows_gone", &arguments).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    platform.rows(id, "iq_raw").await;
    let audited = platform.world.program.run(&["--scope", "other", "audit"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    platform.world.database.delete(id).await;
    let kept = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(kept.code, 5, "{kept:?}");
    assert_eq!(platform.objects(id).await, [1, 1]);
}

#[tokio::test]
async fn what_a_scope_of_rows_that_fall_with_the_datasets_protects_or_doubts_stays() {
    let mut platform = Platform::without_ledger().await;
    with_another_scope(&mut platform);
    platform.world.program.edit_config(|text| {
        let (own, other) = text.rsplit_once("[[scope]]\n").expect("two scopes");
        let other = other.replace("heimdall.synthetic_datasets", "heimdall.synthetic_iq_samples");
        let other = other.replace("\"id\"", "\"dataset_id\"");
        let is_known = |line: &&str| !line.starts_with("created_at_column") && !line.starts_with("expects_objects");
        format!("{own}[[scope]]\n{}\n", other.lines().filter(is_known).collect::<Vec<_>>().join("\n"))
    });
    let (held, free) = (platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await);
    platform.world.bucket.put_many([held, free].map(|id| format!("copies/{id}/a.npy"))).await;
    let grant = format!("GRANT SELECT ON heimdall.synthetic_iq_samples TO {}", platform.world.database.role);
    platform.world.database.execute(&grant).await;
    platform.world.settle().await;
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    let hold = ["--scope", "other", "hold", "add", &held.to_string(), "--by", "ada", "--reason", "a paper"];
    assert_eq!(platform.world.program.run(&hold).await.code, 0);
    let refused = platform.purge(&["dataset", &held.to_string()]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("a paper"), "{refused:?}");
    platform.purge_dataset(free).await;
}

#[tokio::test]
async fn rows_that_were_purged_are_no_drop_to_another_scope_of_the_same_rows() {
    let mut platform = Platform::without_ledger().await;
    with_another_scope(&mut platform);
    let mut made = Vec::new();
    for _ in 0..8 {
        made.push(platform.dataset("iq_raw", 1).await);
    }
    for _ in 0..6 {
        platform.world.live(0).await;
    }
    platform.world.bucket.put_many(made.iter().map(|id| format!("copies/{id}/a.npy"))).await;
    let job = platform.job("completed", "synthetic_generation", &made).await;
    platform.world.settle().await;
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    let purged = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(purged.code, 0, "{purged:?}");
    platform.world.settle().await;
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
    for place in 0..2 {
        let summary = audited.json()[place].clone();
        let reading = breaker(&summary, "live_drop");
        assert_eq!(reading["tripped"], json!(false), "{reading}");
        assert!(reading["message"].as_str().expect("told").contains("of which `purge` removed 8"), "{reading}");
    }
}

#[tokio::test]
async fn a_purge_into_another_store_bucket_or_pattern_than_the_last_good_scans_removes_nothing() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 1).await;
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let bucket = platform.world.program.variables["ORPHAN_SWEEPER__SCOPE__SYNTHETIC__BUCKET"].clone();
    let endpoint = platform.world.bucket.endpoint.clone();
    // Another address may be another store, with the same names in it.
    let by_name = endpoint.replace("127.0.0.1", "localhost");
    for (key, other, own) in [
        ("SCOPE__SYNTHETIC__BUCKET", "another-bucket", bucket.as_str()),
        ("SCOPE__SYNTHETIC__PATTERNS", r#"["synthetic/{id}/"]"#, r#"["synthetic/{id}/", "synthetic/dataset-{id}/"]"#),
        ("STORE__ENDPOINT", &by_name, &endpoint),
    ] {
        let variable = format!("ORPHAN_SWEEPER__{key}");
        platform.world.program.set(&variable, other);
        let refused = platform.purge(&["dataset", &id.to_string()]).await;
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("target_changed"), "{refused:?}");
        platform.world.program.set(&variable, own);
    }
    assert_eq!((platform.world.contents().await, platform.all_rows().await), (before, rows));
    platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
}

#[tokio::test]
async fn of_several_scopes_that_could_purge_one_is_named() {
    let mut platform = Platform::new().await;
    with_another_scope(&mut platform);
    platform.world.program.set("ORPHAN_SWEEPER__SCOPE__OTHER__PURGE__JOB_TYPE", "synthetic_generation");
    let id = platform.dataset("iq_raw", 1).await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("synthetic, other") && ran.stderr.contains("--scope NAME"), "{ran:?}");
    let ran = platform.purge(&["dataset", &id.to_string(), "--scope", "synthetic"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(platform.objects(id).await, [0, 0]);
}
