//! The platform's delete operations on its own schema: rows first, in one transaction, then every object, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::types::BucketVersioningStatus;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::platform::Platform;
use crate::support::{Ran, prefix, without};

pub fn prefixes(id: Uuid) -> [String; 2] {
    [prefix(0, id), prefix(1, id)]
}

pub fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// The structured events of a run's log, by name.
pub fn events(ran: &Ran) -> Vec<Value> {
    let lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line.to_string().contains("\"event\"")).collect()
}

#[tokio::test]
async fn a_dataset_goes_with_its_rows_and_its_objects_under_both_patterns() {
    let platform = Platform::new().await;
    let (gone, stays) = (platform.dataset("iq_raw", 3).await, platform.dataset("iq_raw", 3).await);
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let arguments = ["purge", "dataset", &gone.to_string(), "--yes", "--json", "--log-format", "json"];
    let ran = platform.world.program.run(&arguments).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = document(&ran);
    assert_eq!(summary["command"], "purge");
    assert_eq!(summary["outcome"], "complete");
    assert_eq!((&summary["deletion"]["requested"], &summary["deletion"]["deleted"]), (&json!(6), &json!(6)));
    assert_eq!(summary["purge"]["dataset_id"], json!(gone));
    assert_eq!(summary["purge"]["rows_removed"], json!({ "heimdall.synthetic_datasets": 1 }));
    assert_eq!(platform.world.contents().await, without(&before, &prefixes(gone)), "and nothing else");
    let kept: Vec<String> = rows.into_iter().filter(|row| !row.contains(&gone.to_string())).collect();
    assert_eq!(platform.all_rows().await, kept, "its rows fell with their cascade, and no other");
    assert_eq!(platform.objects(stays).await, [3, 3]);
    let told = platform.world.program.csv("deletions.csv");
    assert!(told.len() == 6 && told.iter().all(|row| row["outcome"] == "deleted"), "{told:?}");
    let events = events(&ran);
    for event in ["synthetic_dataset_deleted", "minio_cleanup_complete"] {
        assert!(events.iter().any(|line| line.to_string().contains(event)), "{event}: {ran:?}");
    }
    let again = platform.purge(&["dataset", &gone.to_string()]).await;
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("there is no such dataset"), "{again:?}");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    // The next audit sees neither an orphan nor a drop.
    let audited = platform.world.audit().await;
    assert_eq!(audited["groups"]["orphan"], 0, "{audited}");
}

#[tokio::test]
async fn a_dry_run_lists_what_would_go_and_changes_nothing() {
    let platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 2).await;
    let job = platform.job("completed", "synthetic_generation", &[id]).await;
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let folders = platform.world.program.run_folders().len();
    for target in [["dataset", &id.to_string()], ["job", &job.to_string()]] {
        let ran = platform.world.program.run(&["purge", target[0], target[1], "--dry-run", "--json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let preview = document(&ran);
        let dependent = json!({ "heimdall.synthetic_iq_samples": 2, "heimdall.synthetic_training_samples": 2 });
        assert_eq!(preview["dependent_rows"], dependent, "{preview}");
        assert_eq!((&preview["objects"], &preview["bytes"]), (&json!(4), &json!(4)));
        assert_eq!(preview["groups"][1], json!({ "prefix": prefix(1, id), "objects": 2, "bytes": 2 }));
        let told = platform.world.program.run(&["purge", target[0], target[1], "-n"]).await;
        assert!(told.stdout.contains(&format!("2 objects (2 B) under {}", prefix(0, id))), "{told:?}");
    }
    assert_eq!(platform.world.contents().await, before);
    assert_eq!(platform.all_rows().await, rows);
    assert_eq!(platform.world.program.run_folders().len(), folders, "a preview is no run");
}

#[tokio::test]
async fn what_forbids_it_forbids_it_before_any_row() {
    let mut platform = Platform::new().await;
    let [held, used, free] =
        [platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await];
    platform.hold(held).await;
    platform.model("detector-7", true, used).await;
    platform.model("detector-6", false, free).await;
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let refused = async |platform: &Platform, arguments: &[&str], code: i32, word: &str| {
        for flag in ["--yes", "--dry-run"] {
            let arguments: Vec<&str> = ["purge"].iter().chain(arguments).chain(&[flag]).copied().collect();
            let ran = platform.world.program.run(&arguments).await;
            assert_eq!(ran.code, code, "{ran:?}");
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
        assert_eq!(platform.world.contents().await, before);
        assert_eq!(platform.all_rows().await, rows);
    };
    refused(&platform, &["dataset", &held.to_string()], 4, "a paper").await;
    refused(&platform, &["dataset", &used.to_string()], 4, "detector-7").await;
    refused(&platform, &["dataset", &Uuid::new_v4().to_string()], 4, "there is no such dataset").await;
    refused(&platform, &["dataset", "no-uuid"], 2, "is no UUID").await;
    let stop = platform.world.program.path("reports/STOP");
    std::fs::write(&stop, "").expect("written");
    refused(&platform, &["dataset", &free.to_string()], 4, "the stop file").await;
    std::fs::remove_file(&stop).expect("removed");
    platform
        .edit_ledger(
            "INSERT INTO latches SELECT 'synthetic', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' FROM baselines",
        )
        .await;
    refused(&platform, &["dataset", &free.to_string()], 4, "live_drop").await;
    platform.edit_ledger("DELETE FROM latches").await;
    let url = platform.world.program.variables["ORPHAN_SWEEPER_PURGE_DATABASE_URL"].clone();
    platform.world.program.unset("ORPHAN_SWEEPER_PURGE_DATABASE_URL");
    refused(&platform, &["dataset", &free.to_string()], 2, "ORPHAN_SWEEPER_PURGE_DATABASE_URL").await;
    platform.world.program.set("ORPHAN_SWEEPER_PURGE_DATABASE_URL", &url);
    platform.world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PURGE__JOB_TYPE");
    refused(&platform, &["dataset", &free.to_string()], 2, "`[scope.purge]`").await;
    platform.world.program.set_scope("PURGE__JOB_TYPE", "synthetic_generation");
    // Nobody is asked here, so nothing goes without a yes.
    let silent = platform.world.program.run(&["purge", "dataset", &free.to_string()]).await;
    assert_eq!(silent.code, 2, "{silent:?}");
    platform.purge_dataset(free).await;
    assert!(!platform.names(free).await);
}

#[tokio::test]
async fn a_dataset_whose_type_has_no_objects_loses_rows_only() {
    let platform = Platform::new().await;
    let id = platform.dataset("feature_based", 1).await;
    let summary = platform.purge_dataset(id).await;
    assert_eq!(summary["deletion"], Value::Null, "{summary}");
    assert!(!platform.names(id).await);
    assert_eq!(platform.objects(id).await, [1, 1], "what lies there all the same is an orphan for the next sweep");
}

#[tokio::test]
async fn the_last_dataset_of_the_platform_goes_too() {
    let platform = Platform::without_ledger().await;
    let id = platform.dataset("iq_raw", 1).await;
    platform.world.audit().await;
    platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
}

#[tokio::test]
async fn a_dataset_that_the_live_tables_do_not_have_stays() {
    let mut platform = Platform::new().await;
    platform
        .world
        .database
        .execute(&format!(
            "CREATE TABLE heimdall.others AS SELECT * FROM heimdall.synthetic_datasets;
             GRANT SELECT ON heimdall.others TO {}",
            platform.world.database.role
        ))
        .await;
    let id = platform.dataset("iq_raw", 1).await;
    platform.world.program.set_scope("LIVE__0__TABLE", "heimdall.others");
    // Another table is another picture, which a person has to acknowledge first.
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("database_identity"), "{ran:?}");
    platform.edit_ledger("DELETE FROM baselines").await;
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("none in the live tables"), "{ran:?}");
    assert!(platform.names(id).await && platform.objects(id).await == [1, 1]);
}

#[tokio::test]
async fn a_job_goes_with_the_datasets_that_it_made() {
    let platform = Platform::new().await;
    let (first, second) = (platform.dataset("iq_raw", 2).await, platform.dataset("feature_based", 0).await);
    let other = platform.dataset("iq_raw", 1).await;
    let job = platform.job("completed", "synthetic_generation", &[first, second]).await;
    let before = platform.world.contents().await;
    let ran = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = document(&ran);
    assert_eq!(summary["purge"]["job_id"], json!(job));
    assert_eq!(summary["purge"]["rows_removed"], json!({ "heimdall.synthetic_datasets": 2 }));
    assert_eq!(summary["deletion"]["deleted"], 4);
    for id in [job, first, second] {
        assert!(!platform.names(id).await);
    }
    assert!(platform.names(other).await);
    assert_eq!(platform.world.contents().await, without(&before, &prefixes(first)));
    let again = platform.purge(&["job", &job.to_string()]).await;
    assert_eq!(again.code, 4, "{again:?}");
}

#[tokio::test]
async fn a_job_leaves_its_datasets_where_they_are_kept() {
    let platform = Platform::new().await;
    let dataset = platform.dataset("iq_raw", 2).await;
    let job = platform.job("failed", "synthetic_generation", &[dataset]).await;
    let before = platform.world.contents().await;
    let ran = platform.world.program.run(&["purge", "job", &job.to_string(), "--keep-datasets", "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let sentence = "Purge complete: the rows of the job are gone, 1 dataset stays without it; no object was there.";
    let told = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(sentence), "{ran:?}");
    assert!(!platform.names(job).await && platform.names(dataset).await);
    assert_eq!(platform.world.contents().await, before);
}

#[tokio::test]
async fn a_job_that_cannot_go_whole_changes_nothing() {
    let platform = Platform::new().await;
    let [free, held, used] =
        [platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await];
    let of_held = platform.job("running", "synthetic_generation", &[free, held]).await;
    let of_used = platform.job("running", "synthetic_generation", &[used]).await;
    let of_other = platform.job("completed", "training", &[]).await;
    platform.hold(held).await;
    platform.model("detector-7", true, used).await;
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    for (job, word) in [(of_held, "a paper"), (of_used, "detector-7"), (of_other, "`training`")] {
        let ran = platform.purge(&["job", &job.to_string()]).await;
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
    }
    assert_eq!(platform.world.contents().await, before);
    assert_eq!(platform.all_rows().await, rows);
    // Kept datasets may be held and in use.
    let mut platform = platform;
    platform.world.program.set_scope("PURGE__DELETE_DATASET", "false");
    let refused = platform.purge(&["job", &of_held.to_string(), "--delete-datasets"]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    let kept = platform.purge(&["job", &of_held.to_string()]).await;
    assert_eq!(kept.code, 0, "{kept:?}");
    assert!(platform.names(free).await && platform.names(held).await);
}

#[tokio::test]
async fn a_job_that_still_runs_is_cancelled_and_a_failing_webhook_stops_nothing() {
    let mut platform = Platform::new().await;
    platform
        .world
        .database
        .execute(
            "CREATE TABLE heimdall.seen (status text);
             CREATE FUNCTION heimdall.see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN INSERT INTO heimdall.seen VALUES (OLD.status); RETURN OLD; END $$;
             CREATE TRIGGER see BEFORE DELETE ON heimdall.training_jobs FOR EACH ROW EXECUTE FUNCTION heimdall.see()",
        )
        .await;
    let told: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let hook = {
        let told = told.clone();
        webhook(told).await
    };
    for (url, is_told) in [(hook.as_str(), true), ("http://127.0.0.1:1/", false)] {
        platform.world.program.set_scope("PURGE__CANCEL_WEBHOOK", url);
        let dataset = platform.dataset("iq_raw", 1).await;
        let job = platform.job("running", "synthetic_generation", &[dataset]).await;
        let ran = platform.purge(&["job", &job.to_string()]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            document(&ran)["purge"]["job"],
            json!({ "status": "running", "was_cancelled": true, "detached": 0 })
        );
        assert!(!platform.names(job).await);
        assert_eq!(platform.objects(dataset).await, [0, 0]);
        let bodies = std::mem::take(&mut *told.lock());
        assert_eq!(
            bodies.iter().filter(|body| body.contains(&job.to_string())).count(),
            usize::from(is_told),
            "{bodies:?}"
        );
        assert_eq!(ran.stderr.contains("could not be told"), !is_told, "{ran:?}");
    }
    let seen: Vec<String> = sqlx::query_scalar("SELECT status FROM heimdall.seen")
        .fetch_all(&platform.world.database.pool)
        .await
        .expect("read");
    assert_eq!(seen, ["cancelled", "cancelled"], "in the transaction that removed it");
}

/// Something that takes POST requests; gives its address.
pub async fn webhook(told: Arc<parking_lot::Mutex<Vec<String>>>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            loop {
                let read = stream.read_buf(&mut request).await.unwrap_or(0);
                if read == 0 || String::from_utf8_lossy(&request).contains("\r\n\r\n{") && request.ends_with(b"}") {
                    break;
                }
            }
            told.lock().push(String::from_utf8_lossy(&request).into_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.ok();
        }
    });
    format!("http://{address}/cancelled")
}

#[tokio::test]
async fn a_row_that_comes_back_keeps_what_is_left() {
    let mut platform = Platform::without_ledger().await;
    let id = platform.dataset("iq_raw", 1500).await;
    let store = platform.world.bucket.endpoint.clone();
    let pool = platform.world.database.pool.clone();
    let is_back = Arc::new(AtomicBool::new(false));
    let gate = {
        let is_back = is_back.clone();
        Gate::open(&store, move |passing| {
            let (pool, is_back) = (pool.clone(), is_back.clone());
            async move {
                if passing.is_batch_delete() && !is_back.swap(true, Ordering::SeqCst) {
                    let insert = format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')");
                    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.expect("inserted");
                }
            }
        })
        .await
    };
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    platform.settle_in().await;
    let before = platform.world.contents().await.len();
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert!(is_back.load(Ordering::SeqCst), "{ran:?}");
    assert_eq!(ran.code, 5, "{ran:?}");
    let left = platform.world.contents().await.len();
    assert!(before - left <= 1000, "the one batch that was on its way: {} are gone", before - left);
    let summary = document(&ran);
    assert_eq!(summary["deletion"]["deleted"], json!(before - left), "{summary}");
    // Every key that is not left is told.
    let told = platform.world.program.csv("deletions.csv");
    assert_eq!(told.iter().filter(|row| row["outcome"] == "deleted").count(), before - left);
}

#[tokio::test]
async fn of_two_callers_one_wins_and_the_other_finds_nothing() {
    let platform = Platform::new().await;
    let dataset = platform.dataset("iq_raw", 50).await;
    let made = platform.dataset("iq_raw", 50).await;
    let job = platform.job("running", "synthetic_generation", &[made]).await;
    let before = platform.world.contents().await;
    for (kind, id, ids) in [("dataset", dataset, dataset), ("job", job, made)] {
        let id = id.to_string();
        let arguments = [kind, id.as_str()];
        let (first, second, third) =
            tokio::join!(platform.purge(&arguments), platform.purge(&arguments), platform.purge(&arguments));
        let mut codes = [first.code, second.code, third.code];
        codes.sort_unstable();
        assert_eq!(codes, [0, 4, 4], "{first:?} {second:?} {third:?}");
        for ran in [first, second, third].iter().filter(|ran| ran.code == 4) {
            assert!(ran.stderr.contains(&format!("there is no such {kind}")), "{ran:?}");
        }
        assert_eq!(platform.objects(ids).await, [0, 0]);
    }
    let expected = without(&before, &[prefixes(dataset), prefixes(made)].concat());
    assert_eq!(platform.world.contents().await, expected);
}

#[tokio::test]
async fn a_purge_into_quarantine_is_brought_back_by_restore() {
    let mut platform = Platform::new().await;
    platform.world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    let id = platform.dataset("iq_raw", 3).await;
    let before = platform.world.contents().await;
    let summary = platform.purge_dataset(id).await;
    assert_eq!(platform.objects(id).await, [0, 0]);
    assert_eq!(summary["deletion"]["bytes_quarantined"], 6, "{summary}");
    assert_eq!(summary["deletion"]["bytes_deleted"], 0);
    let run = summary["run_id"].as_str().expect("a run");
    let restored = platform.world.program.run(&["restore", "--run", run, "--yes", "--json"]).await;
    assert_eq!(restored.summary(0)["restore"]["restored"], 6, "{restored:?}");
    let after = platform.world.contents().await;
    assert!(before.iter().all(|(key, tag)| after.get(key) == Some(tag)), "{after:?}");
}

#[tokio::test]
async fn a_purge_of_a_versioned_bucket_marks_and_is_brought_back() {
    let platform = Platform::new().await;
    platform.world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    let id = platform.dataset("iq_raw", 2).await;
    let summary = platform.purge_dataset(id).await;
    assert_eq!((&summary["deletion"]["bytes_marked"], &summary["deletion"]["bytes_deleted"]), (&json!(4), &json!(0)));
    assert_eq!(platform.objects(id).await, [0, 0]);
    let run = summary["run_id"].as_str().expect("a run");
    let restored = platform.world.program.run(&["restore", "--run", run, "--yes", "--json"]).await;
    assert_eq!(restored.summary(0)["restore"]["restored"], 4, "{restored:?}");
    assert_eq!(platform.objects(id).await, [2, 2]);
}

#[tokio::test]
async fn a_statement_that_does_not_fit_is_named_before_anything_is_changed() {
    let mut platform = Platform::new().await;
    let id = platform.dataset("iq_raw", 1).await;
    let rows = platform.all_rows().await;
    let statement = |platform: &mut Platform, key: &str, sql: &str| {
        platform.world.program.set_scope(&format!("PURGE__STATEMENTS__{key}"), sql);
    };
    statement(&mut platform, "DELETE_JOB", "DELETE FROM heimdall.jobs WHERE id = $1");
    statement(
        &mut platform,
        "CANCEL_JOB",
        "UPDATE heimdall.synthetic_iq_samples SET dataset_id = dataset_id WHERE dataset_id = $1",
    );
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for word in ["statements.delete_job", "statements.cancel_job", "permission denied"] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    assert_eq!(platform.all_rows().await, rows);
    platform.world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PURGE__STATEMENTS__DELETE_JOB");
    platform.world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PURGE__STATEMENTS__CANCEL_JOB");
    // One that removes more than the row that was locked is rolled back.
    statement(&mut platform, "DELETE_DATASET", "DELETE FROM heimdall.synthetic_datasets WHERE id = $1 OR name IS NULL");
    let ran = platform.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("changed 11 rows where 1 were found"), "{ran:?}");
    assert_eq!(platform.all_rows().await, rows);
    assert_eq!(platform.objects(id).await, [1, 1]);
}

#[tokio::test]
async fn doctor_has_every_statement_planned_and_explain_tells_who_purged() {
    let mut platform = Platform::new().await;
    let doctor = platform.world.program.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("every statement fits the schema and the rights of its role"), "{doctor:?}");
    let id = platform.dataset("iq_raw", 1).await;
    platform.purge_dataset(id).await;
    let explained = platform.world.program.run(&["explain", &id.to_string(), "--json"]).await;
    assert!(explained.stdout.contains("a person had it purged with its rows"), "{explained:?}");
    platform.world.program.set_scope("PURGE__STATEMENTS__DELETE_JOB", "DELETE FROM training_jobs WHERE id = $1");
    let doctor = platform.world.program.run(&["doctor"]).await;
    assert_eq!(doctor.code, 2, "{doctor:?}");
    assert!(doctor.stdout.contains("statements.delete_job"), "unqualified: {doctor:?}");
}

#[tokio::test]
async fn a_role_in_another_database_than_the_live_ids_removes_nothing() {
    let (mut here, there) = tokio::join!(Platform::new(), Platform::without_ledger());
    let id = here.dataset("iq_raw", 1).await;
    there.rows(id, "iq_raw").await;
    let rows = (here.all_rows().await, there.all_rows().await);
    let elsewhere = there.world.program.variables["ORPHAN_SWEEPER_PURGE_DATABASE_URL"].clone();
    here.world.program.set("ORPHAN_SWEEPER_PURGE_DATABASE_URL", &elsewhere);
    let ran = here.purge(&["dataset", &id.to_string()]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("the live ids are read from"), "{ran:?}");
    assert_eq!((here.all_rows().await, there.all_rows().await), rows);
    assert_eq!(here.objects(id).await, [1, 1]);
}
