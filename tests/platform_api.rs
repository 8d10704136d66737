//! The platform's delete operations over HTTP, on its own schema: paths, statuses, counts, and work that outlives its caller.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::platform::Platform;
use crate::support::{Api, prefix, without};

fn dataset(id: Uuid) -> String {
    format!("/api/v1/jobs/synthetic/datasets/{id}")
}

fn job(id: Uuid) -> String {
    format!("/api/v1/jobs/synthetic/{id}")
}

async fn open() -> (Platform, String) {
    let platform = Platform::new().await;
    let token = platform.world.program.token("delete").await;
    (platform, token)
}

/// A platform whose store holds each batch to delete back until there is a permit for it, and gives one when a batch comes.
struct HeldBack {
    platform: Platform,
    token: String,
    /// Permits for batches to pass.
    free: Arc<Semaphore>,
    /// A permit for each batch that came.
    came: Arc<Semaphore>,
    _gate: Gate,
}

async fn held_back(free: usize) -> HeldBack {
    let mut platform = Platform::without_ledger().await;
    let (free, came) = (Arc::new(Semaphore::new(free)), Arc::new(Semaphore::new(0)));
    let (held, told) = (free.clone(), came.clone());
    let gate = Gate::open(&platform.world.bucket.endpoint, move |passing| {
        let (held, told) = (held.clone(), told.clone());
        async move {
            if passing.is_batch_delete() {
                told.add_permits(1);
                held.acquire().await.expect("open").forget();
            }
        }
    })
    .await;
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    platform.settle_in().await;
    let token = platform.world.program.token("delete").await;
    HeldBack { platform, token, free, came, _gate: gate }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_goes_and_the_headers_count_what_went() {
    let (platform, token) = open().await;
    let (gone, stays) = (platform.dataset("iq_raw", 3).await, platform.dataset("iq_raw", 2).await);
    let before = platform.world.contents().await;
    let api = Api::start(&platform.world.program).await;
    api.delete("/api/v1/jobs/synthetic/datasets/no-uuid", &token).await.problem(422);
    api.delete(&dataset(Uuid::new_v4()), &token).await.problem(404);
    let answer = api.delete(&dataset(gone), &token).await;
    assert_eq!((answer.status, answer.bytes.len()), (204, 0), "{answer:?}");
    assert_eq!((answer.header("x-objects-deleted"), answer.header("x-objects-left")), ("6", "0"));
    assert_eq!(platform.world.contents().await, without(&before, &[prefix(0, gone), prefix(1, gone)]));
    assert!(!platform.names(gone).await && platform.names(stays).await);
    api.delete(&dataset(gone), &token).await.problem(404);
    let run = api.get(&format!("/api/v1/runs/{}", answer.header("x-purge-id")), &token).await.with(200);
    assert_eq!(run["summary"]["purge"]["dataset_id"], json!(gone));
    let log = api.log();
    assert!(log.contains("synthetic_dataset_deleted") && log.contains("minio_cleanup_complete"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forbids_a_deletion_is_answered_and_changes_nothing() {
    let (mut platform, token) = open().await;
    let [used, held, free] =
        [platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await, platform.dataset("iq_raw", 1).await];
    platform.model("detector-7", true, used).await;
    platform.hold(held).await;
    let training = platform.job("completed", "training", &[]).await;
    let made = platform.job("running", "synthetic_generation", &[free, used]).await;
    let (before, rows) = (platform.world.contents().await, platform.all_rows().await);
    let api = Api::start(&platform.world.program).await;
    let refused = api.delete(&dataset(used), &token).await.problem(409);
    assert_eq!(refused["names"], json!(["detector-7"]), "{refused:#}");
    assert_eq!(api.delete(&dataset(held), &token).await.problem(409)["names"], json!([held]));
    api.delete(&job(training), &token).await.problem(400);
    api.delete(&job(Uuid::new_v4()), &token).await.problem(404);
    api.delete("/api/v1/jobs/synthetic/no-uuid", &token).await.problem(422);
    api.delete(&format!("{}?delete_dataset=perhaps", job(made)), &token).await.problem(422);
    assert_eq!(api.delete(&job(made), &token).await.problem(409)["names"], json!(["detector-7"]));
    let stop = platform.world.program.path("reports/STOP");
    std::fs::write(&stop, "").expect("written");
    api.delete(&dataset(free), &token).await.problem(503);
    std::fs::remove_file(&stop).expect("removed");
    assert_eq!((platform.world.contents().await, platform.all_rows().await), (before.clone(), rows.clone()));
    assert_eq!(api.stop().await, 0);

    platform.world.program.unset("ORPHAN_SWEEPER_PURGE_DATABASE_URL");
    let api = Api::start(&platform.world.program).await;
    let missing = api.delete(&dataset(free), &token).await.problem(503);
    assert!(missing["detail"].as_str().expect("a detail").contains("ORPHAN_SWEEPER_PURGE_DATABASE_URL"), "{missing:#}");
    assert_eq!(api.stop().await, 0);
    platform.world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PURGE__JOB_TYPE");
    let api = Api::start(&platform.world.program).await;
    let missing = api.delete(&dataset(free), &token).await.problem(503);
    assert!(missing["detail"].as_str().expect("a detail").contains("[scope.purge]"), "{missing:#}");
    assert_eq!((platform.world.contents().await, platform.all_rows().await), (before, rows));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_with_its_datasets_or_leaves_them() {
    let (platform, token) = open().await;
    let [first, second, left] = [
        platform.dataset("iq_raw", 2).await,
        platform.dataset("feature_based", 0).await,
        platform.dataset("iq_raw", 1).await,
    ];
    let (with, without_datasets) = (
        platform.job("running", "synthetic_generation", &[first, second]).await,
        platform.job("completed", "synthetic_generation", &[left]).await,
    );
    let api = Api::start(&platform.world.program).await;
    let rows = platform.all_rows().await;
    for misspelled in ["delete_datasets=false", "keep_datasets=true", "dry_run=true"] {
        api.delete(&format!("{}?{misspelled}", job(with)), &token).await.problem(422);
        api.delete(&format!("{}?{misspelled}", dataset(left)), &token).await.problem(422);
    }
    assert_eq!(platform.all_rows().await, rows, "a misspelled wish removes nothing");
    let document = api.delete(&job(with), &token).await.with(200);
    assert_eq!(
        (&document["job_id"], &document["datasets_deleted"], &document["minio_files_deleted"]),
        (&json!(with), &json!(2), &json!(4)),
        "{document:#}"
    );
    assert!(document["message"].is_string());
    let document = api.delete(&format!("{}?delete_dataset=false", job(without_datasets)), &token).await.with(200);
    assert_eq!((&document["datasets_deleted"], &document["minio_files_deleted"]), (&json!(0), &json!(0)));
    assert!(!platform.names(with).await && !platform.names(first).await && !platform.names(second).await);
    assert!(platform.names(left).await && !platform.names(without_datasets).await);
    assert_eq!(platform.objects(left).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_callers_at_once_one_deletes_and_the_other_finds_nothing() {
    let (platform, token) = open().await;
    let api = Api::start(&platform.world.program).await;
    for kind in ["dataset", "job"] {
        let id = platform.dataset("iq_raw", 5).await;
        let (path, done) = match kind {
            "dataset" => (dataset(id), 204),
            _ => (job(platform.job("completed", "synthetic_generation", &[id]).await), 200),
        };
        let answers = tokio::join!(api.delete(&path, &token), api.delete(&path, &token), api.delete(&path, &token));
        let mut statuses = [answers.0.status, answers.1.status, answers.2.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [done, 404, 404], "{kind}\n{}", api.log());
        assert_eq!(platform.objects(id).await, [0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_dataset_goes_in_the_background_and_a_restart_goes_on_with_it() {
    let HeldBack { platform, token, free, came, _gate } = held_back(1).await;
    let id = Uuid::new_v4();
    platform.world.bucket.put_many((0..2500).map(|number| format!("{}{number:05}", prefix(1, id)))).await;
    platform.rows(id, "iq_raw").await;
    let api = Api::start(&platform.world.program).await;
    let answer =
        api.send(api.request("DELETE", &dataset(id)).bearer_auth(&token).header("prefer", "respond-async")).await;
    let view = answer.with(202);
    assert_eq!((&view["state"], &view["kind"], &view["id"]), (&json!("committed"), &json!("dataset"), &json!(id)));
    assert_eq!(answer.header("preference-applied"), "respond-async");
    let at = answer.header("location").to_owned();
    assert!(!platform.names(id).await, "the rows are gone by then");
    // One batch goes; the next waits at the gate, and there the process dies.
    came.acquire_many(2).await.expect("open").forget();
    assert_eq!(api.get("/api/v1/purges", &token).await.with(200)[0]["id"], json!(id));
    api.kill();
    free.add_permits(100);

    let api = Api::start(&platform.world.program).await;
    let mut view = Value::Null;
    for _ in 0..600 {
        view = api.get(&at, &token).await.with(200);
        if view["state"] == "done" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(view["state"], "done", "{view:#}\n{}", api.log());
    let gone =
        view["objects_deleted"].as_u64().expect("a count") + view["objects_already_gone"].as_u64().expect("a count");
    assert_eq!((gone, &view["objects_left"]), (2500, &json!(0)), "{view:#}");
    assert_eq!(platform.objects(id).await, [0, 0]);
    assert_eq!(api.get("/api/v1/purges", &token).await.with(200), json!([]));
    assert_eq!(api.stop().await, 0);
    assert_eq!(platform.world.program.run(&["history", "verify"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_ends_nothing() {
    let HeldBack { platform, token, free, came, _gate } = held_back(0).await;
    let id = platform.dataset("iq_raw", 4).await;
    let api = Api::start(&platform.world.program).await;
    let waiting = api.request("DELETE", &dataset(id)).bearer_auth(&token).send();
    tokio::select! {
        answer = waiting => panic!("it answered before its objects were gone: {answer:?}"),
        held = came.acquire() => held.expect("open").forget(),
    }
    free.add_permits(100);
    for _ in 0..600 {
        if api.get("/api/v1/purges", &token).await.with(200) == json!([]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(platform.objects(id).await, [0, 0], "{}", api.log());
    assert!(!platform.names(id).await);
    assert_eq!(api.stop().await, 0);
}
