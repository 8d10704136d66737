//! What was deleted comes back: from the quarantine and from beneath markers, byte for byte, with all that it carried; and
//! nothing that lies there now is ever overwritten.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::types::BucketVersioningStatus;
use orphan_sweeper::embedded::{Action, Damage, Fault, Operation, When};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::memory::{BUCKET, an_hour_ago};
use crate::support::minio::Bucket;
use crate::support::treasure::{AWKWARD, Seen, look, look_at_all, put_all};
use crate::support::{MemoryWorld, World, prefix, without};

/// A world with live datasets and an orphan that is hard to move.
async fn world(disposal: &str) -> (World, Uuid) {
    let mut world = World::new().await;
    world.program.set_scope("POLICY__DISPOSAL", disposal);
    for _ in 0..3 {
        world.live(0).await;
    }
    let id = Uuid::new_v4();
    put_all(&world.bucket, &prefix(1, id)).await;
    (world, id)
}

/// The newest plan, applied; the summary.
async fn delete(world: &World) -> Value {
    world.audit().await;
    world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes", "--json"]).await.summary(0)
}

async fn restore(world: &World, run: &Value, more: &[&str]) -> Value {
    let run = run["run_id"].as_str().expect("a run id");
    let arguments = [&["restore", "--run", run, "--yes", "--json"], more].concat();
    let ran = world.program.run(&arguments).await;
    assert!(matches!(ran.code, 0 | 5), "{ran:?}");
    ran.json()[0].clone()
}

fn counts(summary: &Value) -> [u64; 3] {
    ["restored", "skipped", "failed"].map(|name| summary["restore"][name].as_u64().expect("a count"))
}

const OBJECTS: u64 = 3 + AWKWARD.len() as u64;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_quarantined_comes_back_byte_for_byte() {
    let (mut world, id) = world("quarantine").await;
    let (before, group) = (world.contents().await, prefix(1, id));
    let treasure = look_at_all(&world.bucket, &group).await;
    let bytes: usize = treasure.values().map(|seen| seen.bytes.len()).sum();
    let applied = delete(&world).await;
    let deletion = &applied["deletion"];
    assert_eq!((&deletion["deleted"], &deletion["failed"]), (&json!(OBJECTS), &json!(0)), "{applied:#}");
    assert_eq!(
        (&deletion["bytes_deleted"], &deletion["bytes_marked"], &deletion["bytes_quarantined"]),
        (&json!(0), &json!(0), &json!(bytes))
    );
    let folder = applied["quarantine"]["prefix"].as_str().expect("a folder");
    assert_eq!(folder, format!("quarantine/{}/", applied["run_id"].as_str().expect("an id")));
    let copies = look_at_all(&world.bucket, &format!("{folder}{group}")).await;
    assert_eq!(copies, treasure, "every copy is the object, with all that it carries");
    let live: Vec<String> = world.contents().await.into_keys().filter(|key| !key.starts_with("quarantine/")).collect();
    assert_eq!(live, without(&before, std::slice::from_ref(&group)).into_keys().collect::<Vec<_>>());

    let page = world.program.read("report.html");
    let ran =
        world.program.run(&["restore", "--run", applied["run_id"].as_str().expect("an id"), "-n", "--json"]).await;
    assert_eq!(ran.summary(0)["restore"]["objects"], OBJECTS);
    assert!(page.contains("freed after the reaper") && page.contains("orphan-sweeper restore --run"), "{page}");
    let restored = restore(&world, &applied, &[]).await;
    assert_eq!(counts(&restored), [OBJECTS, 0, 0], "{restored:#}");
    assert_eq!(restored["restore"]["bytes"], bytes);
    assert_eq!(look_at_all(&world.bucket, &group).await, treasure);
    assert_eq!(world.program.csv("restored.csv").len() as u64, OBJECTS);
    assert!(world.program.csv("restored.csv").iter().all(|row| row["outcome"] == "restored" && row["group"] == group));

    // It is held: no sweep takes it again, although nothing else has changed.
    let held = world.program.run(&["hold", "list", "--json"]).await.json();
    assert!(held.to_string().contains(&id.to_string()), "{held:#}");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let swept = sweep(&world).await;
    assert_eq!((&swept["groups"]["orphan"], &swept["groups"]["eligible"]), (&json!(1), &json!(0)), "{swept:#}");
    assert_eq!(world.program.csv("orphans.csv")[0]["reason"], "held");
    assert_eq!(look_at_all(&world.bucket, &group).await, treasure);

    // Once more: nothing is left to do, and nothing is written.
    let again = restore(&world, &applied, &[]).await;
    assert_eq!(counts(&again), [0, OBJECTS, 0], "{again:#}");
    assert!(world.program.csv("restored.csv").iter().all(|row| row["reason"] == "already_there"));
    assert_eq!(look_at_all(&world.bucket, &group).await, treasure);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_quarantined_in_another_bucket_comes_back_from_there_and_is_freed_there() {
    let (mut world, id) = world("quarantine").await;
    let aside = Bucket::create().await;
    world.program.set_scope("QUARANTINE__BUCKET", &aside.name);
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    let (before, group) = (world.contents().await, prefix(1, id));
    let treasure = look_at_all(&world.bucket, &group).await;
    let applied = delete(&world).await;
    assert_eq!(applied["deletion"]["deleted"], json!(OBJECTS), "{applied:#}");
    assert_eq!(applied["quarantine"]["bucket"], json!(aside.name));
    assert_eq!(world.contents().await, without(&before, std::slice::from_ref(&group)), "no copy lies beside them");
    let folder = applied["quarantine"]["prefix"].as_str().expect("a folder");
    assert_eq!(look_at_all(&aside, &format!("{folder}{group}")).await, treasure);
    // What is configured since is for what goes since.
    world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__QUARANTINE__BUCKET");
    let restored = restore(&world, &applied, &[]).await;
    assert_eq!(counts(&restored), [OBJECTS, 0, 0], "{restored:#}");
    assert_eq!(look_at_all(&world.bucket, &group).await, treasure);
    aside.put("somebody's", b"mine").await;
    let summary = sweep(&world).await;
    assert_eq!(summary["reaped"]["objects"], json!(OBJECTS), "{summary:#}");
    assert_eq!(aside.contents().await.into_keys().collect::<Vec<_>>(), ["somebody's"]);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_marked_comes_back_byte_for_byte() {
    let (world, id) = world("delete").await;
    world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    let group = prefix(1, id);
    put_all(&world.bucket, &group).await;
    let treasure = look_at_all(&world.bucket, &group).await;
    // Somebody deleted this one before; it is not for us to bring back.
    world.bucket.put(&format!("{group}theirs"), b"x").await;
    world.bucket.delete(&format!("{group}theirs")).await;
    let applied = delete(&world).await;
    assert_eq!(applied["deletion"]["deleted"], OBJECTS, "{applied:#}");
    assert!(look_at_all(&world.bucket, &group).await.is_empty());
    let restored = restore(&world, &applied, &[]).await;
    assert_eq!(counts(&restored), [OBJECTS, 1, 0], "{restored:#}");
    assert_eq!(restored["restore"]["perhaps_older"], 0);
    assert_eq!(look_at_all(&world.bucket, &group).await, treasure);
    let rows = world.program.csv("restored.csv");
    let theirs = rows.iter().find(|row| row["outcome"] == "skipped").expect("theirs");
    assert_eq!((theirs["key"].as_str(), theirs["reason"].as_str()), (&*format!("{group}theirs"), "not_deleted_by_run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_data_is_never_overwritten() {
    for (disposal, versioning) in [("quarantine", None), ("delete", Some(BucketVersioningStatus::Enabled))] {
        let (world, id) = world(disposal).await;
        let group = prefix(1, id);
        if let Some(status) = versioning {
            world.bucket.set_versioning(status).await;
        }
        let applied = delete(&world).await;
        let newer = format!("{group}plain.npy");
        world.bucket.put(&newer, b"newer").await;
        let kept: Seen = look(&world.bucket, &newer).await;
        let restored = restore(&world, &applied, &[]).await;
        assert_eq!(counts(&restored), [OBJECTS - 1, 1, 0], "{disposal}: {restored:#}");
        assert_eq!(look(&world.bucket, &newer).await, kept);
        let rows = world.program.csv("restored.csv");
        let row = rows.iter().find(|row| row["key"] == newer).expect("told");
        assert_eq!((row["outcome"].as_str(), row["reason"].as_str()), ("skipped", "newer_data"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_older_than_what_was_deleted_is_called_so() {
    let (world, id) = world("delete").await;
    let group = prefix(1, id);
    world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    let key = format!("{group}plain.npy");
    world.bucket.put(&key, b"older").await;
    world.bucket.set_versioning(BucketVersioningStatus::Suspended).await;
    world.bucket.put(&key, b"what was deleted").await;
    let applied = delete(&world).await;
    assert_eq!(applied["deletion"]["deleted"], OBJECTS, "{applied:#}");
    let restored = restore(&world, &applied, &[]).await;
    let rows = world.program.csv("restored.csv");
    let row = rows.iter().find(|row| row["key"] == key).expect("told");
    assert_eq!((row["outcome"].as_str(), row["reason"].as_str()), ("restored", "perhaps_older"), "{restored:#}");
    assert_eq!(look(&world.bucket, &key).await.bytes, b"older");
    let counted = rows.iter().filter(|row| row["reason"] == "perhaps_older").count();
    assert_eq!(restored["restore"]["perhaps_older"], counted, "{restored:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_steps_of_a_plan_marked_comes_back_whichever_finished_the_group() {
    let world = World::new().await;
    world.live(0).await;
    world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    let group = prefix(0, Uuid::new_v4());
    world.bucket.put_many((0..12).map(|n| format!("{group}{n}"))).await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let left = async || world.contents().await.keys().filter(|key| key.starts_with(&group)).count() as u64;
    let step = ["apply", plan.as_str(), "--yes", "--json", "--objects-per-second", "8"];
    let first = world.program.run(&[&step[..], &["--max-runtime", "1ms"]].concat()).await.summary(0);
    let marked = first["deletion"]["deleted"].as_u64().expect("a count");
    assert!((1..12).contains(&marked), "{first:#}");
    let second = world.program.run(&step).await.summary(0);
    assert_eq!(second["deletion"]["deleted"], 12 - marked, "{second:#}");
    assert_eq!(left().await, 0);
    let restored = restore(&world, &first, &[]).await;
    assert!(left().await >= marked, "what the first step marked is back: {restored:#}");
    restore(&world, &second, &[]).await;
    assert_eq!(left().await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_which_nothing_comes_back_is_not_held() {
    for disposal in ["quarantine", "delete"] {
        let mut world = World::new().await;
        world.program.set_scope("POLICY__DISPOSAL", disposal);
        world.live(0).await;
        if disposal == "delete" {
            world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
        }
        let (back, newer) = (world.orphan(0).await, world.orphan(0).await);
        let applied = delete(&world).await;
        for name in ["a.npy", "b.npy"] {
            world.bucket.put(&format!("{}{name}", prefix(0, newer)), b"newer").await;
        }
        let restored = restore(&world, &applied, &[]).await;
        assert_eq!(counts(&restored), [2, 2, 0], "{disposal}: {restored:#}");
        let held = world.program.run(&["hold", "list", "--json"]).await.json().to_string();
        assert!(held.contains(&back.to_string()) && !held.contains(&newer.to_string()), "{disposal}: {held}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dataset_comes_back_alone() {
    let (world, id) = world("quarantine").await;
    let other = world.orphan(0).await;
    let applied = delete(&world).await;
    assert_eq!(applied["deletion"]["deleted"], OBJECTS + 2);
    let restored = restore(&world, &applied, &["--dataset", &other.to_string()]).await;
    assert_eq!(counts(&restored), [2, 0, 0]);
    assert!(look_at_all(&world.bucket, &prefix(1, id)).await.is_empty());
    assert_eq!(look_at_all(&world.bucket, &prefix(0, other)).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_be_is_refused_and_says_why() {
    let (world, _) = world("delete").await;
    let applied = delete(&world).await;
    let run = applied["run_id"].as_str().expect("an id");
    let ran = world.program.run(&["restore", "--run", run, "--yes", "--json"]).await;
    let summary = ran.summary(4);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("kept no versions")), "{summary:#}");
    let ran = world.program.run(&["restore", "--run", &Uuid::new_v4().to_string(), "--yes"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(world.program.run(&["restore", "--run", run]).await.code, 2, "nobody can be asked");
    assert_eq!(world.program.run(&["restore", "--run", run, "--dataset", "x", "-y"]).await.code, 2);
}

async fn sweep(world: &World) -> Value {
    world.settle().await;
    world.program.run(&["sweep", "--json"]).await.summary(0)
}

async fn quarantined(world: &World) -> usize {
    world.contents().await.keys().filter(|key| key.starts_with("quarantine/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_frees_what_is_past_its_time_and_nothing_else() {
    let (mut world, id) = world("quarantine").await;
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    let applied = delete(&world).await;
    let kept = quarantined(&world).await;
    assert_eq!(kept as u64, OBJECTS);
    // Somebody else's object in our folder is not ours to free.
    let folder = applied["quarantine"]["prefix"].as_str().expect("a folder").to_owned();
    world.bucket.put(&format!("{folder}notes.txt"), b"mine").await;
    // An audit never frees anything.
    world.settle().await;
    world.audit().await;
    assert_eq!(quarantined(&world).await, kept + 1);
    // Its row is back: the copies wait.
    world.database.insert(id).await;
    let summary = sweep(&world).await;
    assert_eq!(
        (&summary["reaped"]["objects"], &summary["reaped"]["waiting"]),
        (&json!(0), &json!(kept + 1)),
        "{summary:#}"
    );
    assert_eq!(quarantined(&world).await, kept + 1);
    // Something else in the original's place is not what the copy was made of.
    world.bucket.put(&format!("{}plain.npy", prefix(1, id)), b"THE BYTES OF A RECORDING").await;
    let summary = sweep(&world).await;
    assert_eq!(
        (&summary["reaped"]["objects"], &summary["reaped"]["waiting"]),
        (&json!(0), &json!(kept + 1)),
        "{summary:#}"
    );
    // Where the original is there, its copy is not the last one, row or not.
    world.bucket.put(&format!("{}plain.npy", prefix(1, id)), b"the bytes of a recording").await;
    let summary = sweep(&world).await;
    assert_eq!(
        (&summary["reaped"]["objects"], &summary["reaped"]["waiting"]),
        (&json!(1), &json!(kept)),
        "{summary:#}"
    );
    // Its row is gone again.
    world.database.delete(id).await;
    world.bucket.delete(&format!("{}plain.npy", prefix(1, id))).await;
    let summary = sweep(&world).await;
    assert_eq!(
        (&summary["reaped"]["objects"], &summary["reaped"]["waiting"]),
        (&json!(kept - 1), &json!(1)),
        "{summary:#}"
    );
    assert_eq!(quarantined(&world).await, 1, "the notes");
    world.bucket.delete(&format!("{folder}notes.txt")).await;
    sweep(&world).await;
    let ran = world.program.run(&["restore", "--run", applied["run_id"].as_str().expect("an id"), "-y"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(sweep(&world).await["reaped"].is_null(), "nothing is left to look at");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_holds_a_deletion_holds_the_reaper() {
    let (mut world, _) = world("quarantine").await;
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    delete(&world).await;
    let kept = quarantined(&world).await;
    world.settle().await;
    std::fs::write(world.program.path("reports/STOP"), "").expect("written");
    let summary = sweep(&world).await;
    assert!(summary["reaped"]["held_by"].as_str().is_some_and(|why| why.contains("stop file")), "{summary:#}");
    std::fs::remove_file(world.program.path("reports/STOP")).expect("removed");
    // All rows but one are gone: a breaker trips and latches.
    world.database.execute("DELETE FROM heimdall.synthetic_datasets WHERE id <> (SELECT min(id::text)::uuid FROM heimdall.synthetic_datasets)").await;
    world.program.set_scope("LIMITS__SMALL", "0");
    for _ in 0..2 {
        world.settle().await;
        let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
        assert!(summary["reaped"]["held_by"].as_str().is_some_and(|why| why.contains("live_drop")), "{summary:#}");
    }
    assert_eq!(quarantined(&world).await, kept);
}

fn fault(action: Action) -> Fault {
    Fault { operation: Operation::CopyObject, when: When::Nth(2), action }
}

async fn memory_world() -> MemoryWorld {
    let mut world = MemoryWorld::new().await;
    world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    for _ in 0..3 {
        world.live(0).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_proven_copy_is_never_deleted() {
    for damage in [Damage::AlteredByte, Damage::CutByte, Damage::LostMetadata, Damage::NotWritten] {
        let world = memory_world().await;
        let id = world.orphan(0);
        // Metadata can only be lost where there are any.
        if damage == Damage::LostMetadata {
            for name in ["a.npy", "b.npy"] {
                let metadata = [("station".to_owned(), "north".to_owned())].into_iter().collect();
                let key = format!("{}{name}", prefix(0, id));
                world.store.put_with_metadata(BUCKET, &key, "0123456789", metadata, an_hour_ago());
            }
        }
        world.audit().await;
        world.store.inject(fault(Action::DamageCopy(damage)));
        let ran = world.apply().await;
        let summary = ran.summary(5);
        assert_eq!(
            (&summary["deletion"]["deleted"], &summary["deletion"]["failed"]),
            (&json!(1), &json!(1)),
            "{damage:?}: {summary:#}"
        );
        let asked = world.asked_to_delete();
        let kept = ["a.npy", "b.npy"]
            .map(|name| format!("{}{name}", prefix(0, id)))
            .into_iter()
            .filter(|key| !asked.contains(key));
        let kept: Vec<String> = kept.collect();
        assert_eq!(kept.len(), 1, "{damage:?}");
        assert!(world.keys().contains(&kept[0]), "{damage:?}");
        let rows = world.program.csv("deletions.csv");
        let row = rows.iter().find(|row| row["key"] == kept[0]).expect("told");
        assert!(row["reason"].starts_with("quarantine_failed"), "{damage:?}: {row:?}");
        // Nothing is ever restored from it.
        world.store.clear_faults();
        world.store.remove(BUCKET, &kept[0]);
        let run = summary["run_id"].as_str().expect("an id");
        let restored = world.program.run(&["restore", "--run", run, "-y", "--json"]).await.json()[0].clone();
        assert_eq!(restored["restore"]["restored"], 1, "{damage:?}: {restored:#}");
        assert!(!world.keys().contains(&kept[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_store_does_not_make_deletes_nothing() {
    let world = memory_world().await;
    let id = world.orphan(0);
    world.audit().await;
    let before = world.keys();
    world.store.inject(Fault {
        operation: Operation::CopyObject,
        when: When::Always,
        action: Action::Status { code: 403, s3_code: "AccessDenied" },
    });
    let summary = world.apply().await.summary(5);
    assert_eq!(summary["deletion"]["failed"], 2, "{summary:#}");
    assert!(world.asked_to_delete().is_empty());
    assert_eq!(world.keys(), before);
    assert!(before.contains(&format!("{}a.npy", prefix(0, id))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_live_again_between_copy_and_deletion_stays() {
    let world = memory_world().await;
    let id = world.orphan(0);
    world.audit().await;
    let (pool, handle) = (world.database.pool.clone(), tokio::runtime::Handle::current());
    world.store.on_request(move |request, _| {
        if request.operation == Operation::CopyObject {
            let insert = sqlx::query("INSERT INTO heimdall.synthetic_datasets (id) VALUES ($1) ON CONFLICT DO NOTHING");
            handle.block_on(async { insert.bind(id).execute(&pool).await }).expect("inserted");
        }
    });
    let summary = world.apply().await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&json!(0), &json!(2)),
        "{summary:#}"
    );
    assert!(world.asked_to_delete().is_empty());
    assert!(world.program.csv("deletions.csv").iter().all(|row| row["reason"] == "live_again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_its_batch_is_copied_stays() {
    let world = memory_world().await;
    let id = world.orphan(0);
    world.audit().await;
    let key = format!("{}a.npy", prefix(0, id));
    let (written, looks) = (key.clone(), AtomicUsize::new(0));
    // After every copy was proven: the second look at the source is the one directly before the deletion.
    world.store.on_request(move |request, store| {
        let is_look = request.operation == Operation::HeadObject && request.keys == [written.as_str()];
        if is_look && looks.fetch_add(1, Ordering::SeqCst) == 1 {
            store.put(BUCKET, &written, "newer");
        }
    });
    let summary = world.apply().await.summary(0);
    assert_eq!(summary["deletion"]["skipped"], 2, "{summary:#}");
    assert!(world.asked_to_delete().is_empty());
    assert!(world.keys().contains(&key));
    assert!(world.program.csv("deletions.csv").iter().all(|row| row["reason"] == "changed_since_plan"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_copy_would_be_too_long_stays() {
    let world = memory_world().await;
    let id = Uuid::new_v4();
    let long = format!(
        "{}{}",
        prefix(0, id),
        ["x".repeat(200), "y".repeat(200), "z".repeat(200), "w".repeat(200), "v".repeat(150)].join("/")
    );
    let short = format!("{}short", prefix(0, id));
    world.put(&long);
    world.put(&short);
    assert!(long.len() <= 1024);
    world.audit().await;
    let summary = world.apply().await.summary(5);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["failed"]),
        (&json!(1), &json!(1)),
        "{summary:#}"
    );
    assert!(world.keys().contains(&long) && !world.keys().contains(&short));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_not_applied_by_another_disposal_than_it_was_made_for() {
    let (mut world, _) = world("delete").await;
    world.audit().await;
    let before = world.contents().await;
    let plan = world.plan_of_newest_audit();
    world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4);
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    world.program.set_scope("POLICY__DISPOSAL", "delete");
    let ran = world.program.run(&["apply", &plan, "--yes"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(world.contents().await, before);
}
