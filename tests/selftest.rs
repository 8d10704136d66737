//! The self-test on the platform's own schema: every step on real servers, whatever goes wrong is told, and nothing of it is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::platform::Platform;
use crate::support::program::breaker;
use crate::support::sts::Temporary;
use crate::support::{Ran, prefix};

const STEPS: [&str; 10] =
    ["earlier", "ways", "write", "dataset", "job", "leak", "audit", "dry_run", "witness", "clean_up"];

/// Gives a platform the policy of a week, and the role that config.toml tells to make for a self-test.
async fn prepared(mut platform: Platform) -> Platform {
    let role = role_of(&platform);
    let lines = include_str!("../config.toml").lines().filter_map(|line| line.strip_prefix("#   "));
    let grants: Vec<&str> = lines.filter(|line| line.contains("orphan_sweeper_selftest")).collect();
    assert_eq!(grants.len(), 3, "{grants:?}");
    platform.world.database.execute(&grants.join("\n").replace("orphan_sweeper_selftest", &role)).await;
    let mut url: url::Url = platform.world.database.admin_url().parse().expect("an address");
    url.set_username(&role).expect("a host");
    url.set_password(Some("change-me")).expect("a host");
    platform.world.program.set("ORPHAN_SWEEPER_SELFTEST_DATABASE_URL", url.as_str());
    platform.world.program.set_scope("POLICY__GRACE", "7d");
    platform
}

fn role_of(platform: &Platform) -> String {
    format!("selftest_{}", platform.world.database.name)
}

/// What the store and the database hold.
struct Before {
    contents: BTreeMap<String, String>,
    rows: Vec<String>,
}

impl Before {
    async fn of(platform: &Platform) -> Self {
        Self { contents: platform.world.contents().await, rows: platform.all_rows().await }
    }

    /// Nothing may have been added or taken.
    #[track_caller]
    fn check(&self, now: &Self, what: &str) {
        assert_eq!(now.contents, self.contents, "{what}");
        assert_eq!(now.rows, self.rows, "{what}");
    }
}

async fn selftest(platform: &Platform, arguments: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["selftest", "--json"].iter().chain(arguments).copied().collect();
    platform.world.program.run(&arguments).await
}

#[track_caller]
fn document(ran: &Ran, code: i32) -> Value {
    assert_eq!(ran.code, code, "{ran:?}");
    ran.json()
}

/// The step of that name.
#[track_caller]
fn step<'d>(document: &'d Value, name: &str) -> &'d Value {
    let steps = document["steps"].as_array().unwrap_or_else(|| panic!("no steps: {document:#}"));
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"))
}

/// What a failed step says, with its hint.
#[track_caller]
fn failed(document: &Value, name: &str) -> String {
    let step = step(document, name);
    assert_eq!(step["state"], "failed", "{document:#}");
    assert_eq!(document["passed"], false);
    format!("{} / {}", step["detail"].as_str().expect("told"), step["hint"].as_str().expect("a hint"))
}

#[tokio::test]
async fn every_step_passes_and_nothing_is_left() {
    let platform = prepared(Platform::new().await).await;
    let other = platform.world.orphan(0).await;
    platform.world.settle().await;
    let before = Before::of(&platform).await;
    let told = document(&selftest(&platform, &[]).await, 0);
    let names: Vec<&str> =
        told["steps"].as_array().expect("steps").iter().map(|s| s["name"].as_str().expect("a name")).collect();
    assert_eq!(names, STEPS);
    for name in STEPS {
        assert_eq!(step(&told, name)["state"], "passed", "{told:#}");
        assert!(step(&told, name)["duration_ms"].is_u64());
    }
    assert_eq!(told["passed"], true);
    before.check(&Before::of(&platform).await, "after it");
    let tokens = platform.world.program.run(&["token", "list", "--json"]).await.json();
    assert!(tokens[0]["name"].as_str().expect("a name").starts_with("selftest "), "{tokens}");
    assert!(tokens[0]["revoked_at"].is_string(), "{tokens}");
    // In a pipe, plain words; and once more, because nothing is left in the way.
    let plain = platform.world.program.run(&["selftest"]).await;
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(plain.stdout.contains("passed   dataset   DELETE of "), "{plain:?}");
    assert!(plain.stdout.contains("10 passed, 0 failed, 0 not run. All is well."), "{plain:?}");
    assert!(!plain.stdout.contains('\u{2714}') && !plain.stdout.contains('\u{1b}'), "{plain:?}");
    before.check(&Before::of(&platform).await, "after the second");
    // Others' orphans were seen once more, and no row is missed.
    let audited = platform.world.audit().await;
    assert_eq!(audited["groups"]["orphan"], 1, "{audited}");
    assert!(!breaker(&audited, "live_drop")["tripped"].as_bool().expect("told"), "{audited}");
    let seen = platform.world.program.csv("orphans.csv");
    assert_eq!((seen[0]["id"].clone(), seen[0]["sightings"].as_str()), (other.to_string(), "3"), "{seen:?}");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[tokio::test]
async fn a_platform_without_any_dataset_and_a_ledger_in_postgres_pass_too() {
    let mut platform = Platform::without_ledger().await;
    platform.keep_ledger_in_postgres();
    platform.world.program.set("ORPHAN_SWEEPER_TEST_LEASE_MS", "4000");
    let platform = prepared(platform).await;
    let before = Before::of(&platform).await;
    document(&selftest(&platform, &[]).await, 0);
    before.check(&Before::of(&platform).await, "after it");
    // An empty table beside a leak would have latched.
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.summary(0)["groups"]["listed"], 0, "{audited:?}");
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "selftest_leaked", &["selftest"]).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    assert!(platform.world.contents().await.len() > before.contents.len());
    let mut again = selftest(&platform, &["--clean-up"]).await;
    // A lease ends by itself.
    for _ in 0..200 {
        if again.code != 6 {
            break;
        }
        again = selftest(&platform, &["--clean-up"]).await;
    }
    document(&again, 0);
    before.check(&Before::of(&platform).await, "after the clean-up");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[tokio::test]
async fn what_a_role_or_a_pair_lacks_is_named() {
    let mut platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    let (testing, purging) = (role_of(&platform), format!("purge_{}", platform.world.database.name));
    for (revoke, grant, says) in [
        (
            format!("REVOKE INSERT ON heimdall.training_jobs FROM {testing}"),
            format!("GRANT INSERT ON heimdall.training_jobs TO {testing}"),
            format!("GRANT INSERT ON heimdall.training_jobs TO {testing};"),
        ),
        (
            format!("REVOKE DELETE ON heimdall.synthetic_datasets FROM {purging}"),
            format!("GRANT DELETE ON heimdall.synthetic_datasets TO {purging}"),
            "`scope.purge.statements.delete_dataset` failed: ".to_owned(),
        ),
    ] {
        platform.world.database.execute(&revoke).await;
        let told = document(&selftest(&platform, &[]).await, 1);
        let said = failed(&told, "ways");
        assert!(said.contains(&says), "{said}");
        assert_eq!(step(&told, "write")["state"], "not_taken");
        assert_eq!(step(&told, "clean_up")["state"], "passed");
        before.check(&Before::of(&platform).await, &revoke);
        platform.world.database.execute(&grant).await;
    }
    // A pair that may look and delete, and not put.
    let arn = format!("arn:aws:s3:::{}", platform.world.bucket.name);
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": [arn, format!("{arn}/*")] }
    ] });
    let pair = Temporary::with_policy(&platform.world.bucket, &policy.to_string()).await;
    platform.world.program.set("ORPHAN_SWEEPER_SELFTEST_ACCESS_KEY_ID", &pair.access_key);
    platform.world.program.set("ORPHAN_SWEEPER_SELFTEST_SECRET_ACCESS_KEY", &pair.secret_key);
    platform.world.program.set("ORPHAN_SWEEPER_SELFTEST_SESSION_TOKEN", &pair.session_token);
    let told = document(&selftest(&platform, &[]).await, 1);
    assert!(failed(&told, "write").contains("allow s3:PutObject on arn:aws:s3:::"), "{told:#}");
    assert_eq!(step(&told, "clean_up")["detail"], "1 rows and 0 objects removed; nothing of the self-test is left");
    before.check(&Before::of(&platform).await, "without a right to put");
}

#[tokio::test]
async fn a_platform_that_refuses_to_delete_is_seen_and_what_is_stuck_goes_later() {
    let platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    platform
        .world
        .database
        .execute(
            "CREATE FUNCTION heimdall.refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON heimdall.synthetic_datasets FOR EACH ROW EXECUTE FUNCTION heimdall.refuse()",
        )
        .await;
    let told = document(&selftest(&platform, &[]).await, 1);
    assert!(failed(&told, "dataset").contains("with the token, the API answered 503 instead of 204"), "{told:#}");
    assert!(failed(&told, "clean_up").contains("not today"), "{told:#}");
    assert_eq!(platform.world.contents().await.len(), before.contents.len() + 4, "a live row keeps its objects");
    platform.world.database.execute("DROP TRIGGER refuse ON heimdall.synthetic_datasets").await;
    let told = document(&selftest(&platform, &["--clean-up"]).await, 0);
    assert_eq!(told["steps"].as_array().expect("steps").len(), 1, "{told:#}");
    before.check(&Before::of(&platform).await, "after the clean-up");
}

#[tokio::test]
async fn a_stop_file_a_latch_and_a_foreign_target_let_nothing_begin() {
    let mut platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    let runs = platform.world.program.run_folders().len();
    let refused = async |platform: &Platform, arguments: &[&str], code: i32, word: &str| {
        let ran = selftest(platform, arguments).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        before.check(&Before::of(platform).await, word);
        assert_eq!(platform.world.program.run_folders().len(), runs, "no run began");
    };
    let stop = platform.world.program.path("reports/STOP");
    std::fs::write(&stop, "").expect("written");
    refused(&platform, &["--yes"], 4, "the stop file").await;
    std::fs::remove_file(&stop).expect("removed");
    platform
        .edit_ledger(
            "INSERT INTO latches SELECT 'synthetic', 'live_drop', run_id, '2026-01-01T00:00:00Z', json_extract(baseline, '$.observation'), 'rows fell' FROM baselines",
        )
        .await;
    refused(&platform, &[], 4, "live_drop").await;
    platform.edit_ledger("DELETE FROM latches").await;
    // What a name resolves to is not looked up: it may be another host tomorrow.
    for (name, value, word) in [
        (
            "ORPHAN_SWEEPER__STORE__ENDPOINT",
            "http://localhost.internal:9000".to_owned(),
            "the store is on `localhost.internal`",
        ),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT", "http://10.0.0.7:9000".to_owned(), "the store is on `10.0.0.7`"),
        ("ORPHAN_SWEEPER_DATABASE_URL", "postgres://u:p@db.internal/d".to_owned(), "db.internal:5432/d"),
        ("ORPHAN_SWEEPER_PURGE_DATABASE_URL", "postgres://u:p@10.0.0.7/d".to_owned(), "10.0.0.7:5432/d"),
        ("ORPHAN_SWEEPER_SELFTEST_DATABASE_URL", "postgres://u:p@db.internal/d".to_owned(), "db.internal:5432/d"),
    ] {
        let kept = platform.world.program.variables[name].clone();
        platform.world.program.set(name, &value);
        refused(&platform, &[], 2, word).await;
        platform.world.program.set(name, &kept);
    }
    platform.world.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PURGE__JOB_TYPE");
    refused(&platform, &[], 2, "`[scope.purge]`").await;
    platform.world.program.set_scope("PURGE__JOB_TYPE", "synthetic_generation");
    // A tunnel makes anything look like this host.
    platform
        .world
        .database
        .execute("INSERT INTO heimdall.synthetic_datasets (id, created_at) SELECT gen_random_uuid(), now() FROM generate_series(1, 100)")
        .await;
    let ran = selftest(&platform, &[]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("the live tables have 110 rows") && ran.stderr.contains("20 objects"), "{ran:?}");
    document(&selftest(&platform, &["--yes"]).await, 0);
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_nothing_that_the_next_does_not_remove() {
    let platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    for at in [
        "selftest_row_intended",
        "selftest_row_written",
        "selftest_objects_intended",
        "selftest_object_put:2",
        "purge_intended",
        "purge_committed",
        "after_send",
        "selftest_dataset_deleted",
        "selftest_job_written",
        "selftest_leaked",
        "selftest_audited",
        "selftest_cleaning",
        "selftest_rows_removed",
        "selftest_objects_removed",
    ] {
        let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", at, &["selftest"]).await;
        assert_eq!(killed.code, -9, "{at}: {killed:?}");
        let cleaned = selftest(&platform, &["--clean-up"]).await;
        document(&cleaned, 0);
        before.check(&Before::of(&platform).await, at);
    }
    // The next self-test cleans up by itself, and its clean-up may be killed as well.
    for at in ["selftest_leaked", "selftest_rows_removed"] {
        let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", at, &["selftest"]).await;
        assert_eq!(killed.code, -9, "{at}: {killed:?}");
    }
    let told = document(&selftest(&platform, &[]).await, 0);
    let earlier = step(&told, "earlier")["detail"].as_str().expect("told");
    assert!(earlier.ends_with("objects of an earlier self-test are removed"), "{earlier}");
    before.check(&Before::of(&platform).await, "after the last");
    let tokens = platform.world.program.run(&["token", "list", "--json"]).await.json();
    assert!(tokens.as_array().expect("tokens").iter().all(|token| token["revoked_at"].is_string()), "{tokens}");
    let verified = platform.world.program.run(&["history", "verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    // The purges that died with their process were gone on with.
    let history = platform.world.program.run(&["history", "--json"]).await.json();
    let purges: Vec<&Value> =
        history["runs"].as_array().expect("runs").iter().filter(|run| run["command"] == "purge").collect();
    assert!(!purges.is_empty() && purges.iter().all(|run| run["finished_at"].is_string()), "{history:#}");
    let audited = platform.world.program.run(&["audit", "--json"]).await;
    assert_eq!(audited.summary(0)["outcome"], "complete", "{audited:?}");
}

#[tokio::test]
async fn who_interrupts_it_finds_nothing_of_it() {
    let mut platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    platform.world.program.set("ORPHAN_SWEEPER_TEST_KILL_BY", "SIGTERM");
    for (at, last) in [("selftest_object_put:2", "write"), ("selftest_leaked", "leak"), ("before_sightings", "audit")] {
        let ran = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", at, &["selftest", "--json"]).await;
        let told = document(&ran, 143);
        assert_ne!(step(&told, last)["state"], "not_taken", "{told:#}");
        assert_eq!(step(&told, "witness")["state"], "not_taken", "{told:#}");
        assert_eq!(step(&told, "clean_up")["state"], "passed", "{told:#}");
        assert_eq!(told["passed"], false);
        before.check(&Before::of(&platform).await, at);
    }
}

/// A self-test that was killed while its leak and a live dataset beside it were there; the ids of both.
async fn killed_with_a_leak(platform: &Platform) -> (Uuid, Uuid) {
    let before = platform.world.contents().await;
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "selftest_leaked", &["selftest"]).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let contents = platform.world.contents().await;
    let new = contents.keys().filter(|key| !before.contains_key(*key) && !key.contains("dataset-"));
    let mut ids: Vec<Uuid> = new.map(|key| key.split('/').nth(1).expect("an id").parse().expect("a UUID")).collect();
    ids.dedup();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let rows = platform.all_rows().await.join("\n");
    let (live, leaked): (Vec<Uuid>, Vec<Uuid>) = ids.into_iter().partition(|id| rows.contains(&id.to_string()));
    (leaked[0], live[0])
}

#[tokio::test]
async fn what_is_anothers_by_then_stays_and_is_told() {
    let platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    let (leaked, live) = killed_with_a_leak(&platform).await;
    // While deletion is stopped, ours stays too.
    let stop = platform.world.program.path("reports/STOP");
    std::fs::write(&stop, "").expect("written");
    let there = Before::of(&platform).await;
    let told = document(&selftest(&platform, &["--clean-up"]).await, 4);
    assert!(failed(&told, "clean_up").contains("the stop file"), "{told:#}");
    there.check(&Before::of(&platform).await, "while it is stopped");
    std::fs::remove_file(&stop).expect("removed");
    // Somebody writes beside ours, writes over one of ours with as many bytes, and makes a row theirs.
    let [theirs, over] =
        [format!("{}theirs.npy", prefix(0, leaked)), format!("{}sample-0/rx_0.npy", prefix(1, leaked))];
    platform.world.bucket.put(&theirs, b"theirs").await;
    let ours = platform.world.bucket.client.head_object().bucket(&platform.world.bucket.name).key(&over).send().await;
    let size = usize::try_from(ours.expect("there").content_length().expect("a size")).expect("small");
    platform.world.bucket.put(&over, &vec![b'x'; size]).await;
    let rename = format!("UPDATE heimdall.synthetic_datasets SET name = 'adopted' WHERE id = '{live}'");
    platform.world.database.execute(&rename).await;
    let told = document(&selftest(&platform, &["--clean-up"]).await, 1);
    let said = failed(&told, "clean_up");
    for word in [theirs.as_str(), over.as_str(), "which bears another name", "4 objects of"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let contents = platform.world.contents().await;
    assert!(contents.contains_key(&theirs) && contents.contains_key(&over), "{contents:?}");
    assert_eq!(platform.objects(leaked).await, [1, 1], "what is ours of the leak is gone");
    assert_eq!(platform.objects(live).await, [2, 2], "a live row keeps its objects");
    assert!(platform.names(live).await);
    // What was left is nobody's of ours any more; what a live row kept goes with it.
    platform.world.database.delete(live).await;
    let told = document(&selftest(&platform, &["--clean-up"]).await, 0);
    assert_eq!(step(&told, "clean_up")["detail"], "0 rows and 4 objects removed; nothing of the self-test is left");
    for key in [&theirs, &over] {
        platform.world.bucket.delete(key).await;
    }
    before.check(&Before::of(&platform).await, "but for what others wrote");
}

#[tokio::test]
async fn a_lost_answer_is_told_by_the_mark_and_a_hold_keeps() {
    let platform = prepared(Platform::new().await).await;
    let before = Before::of(&platform).await;
    // Killed between a PUT and the note of its answer: the journal has no entity tag of any.
    let at = "selftest_object_put:3";
    let killed = platform.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", at, &["selftest"]).await;
    assert_eq!(killed.code, -9, "{killed:?}");
    let contents = platform.world.contents().await;
    let written: Vec<&String> = contents.keys().filter(|key| !before.contents.contains_key(*key)).collect();
    assert_eq!(written.len(), 3, "{written:?}");
    let id = written[0].split('/').nth(1).expect("an id").trim_start_matches("dataset-").to_owned();
    // Of the same size, without the mark: another's.
    let head =
        platform.world.bucket.client.head_object().bucket(&platform.world.bucket.name).key(written[0]).send().await;
    let size = usize::try_from(head.expect("there").content_length().expect("a size")).expect("small");
    platform.world.bucket.put(written[0], &vec![b'x'; size]).await;
    let held = platform.world.program.run(&["hold", "add", &id, "--by", "ada", "--reason", "a look at it"]).await;
    assert_eq!(held.code, 0, "{held:?}");
    let told = document(&selftest(&platform, &["--clean-up"]).await, 1);
    assert!(failed(&told, "clean_up").contains(&format!("dataset {id}, which is held")), "{told:#}");
    assert_eq!(platform.world.contents().await.len(), before.contents.len() + 3, "a hold keeps");
    assert!(platform.names(id.parse().expect("a UUID")).await, "rows as well");
    assert_eq!(platform.world.program.run(&["hold", "remove", &id]).await.code, 0);
    let told = document(&selftest(&platform, &["--clean-up"]).await, 1);
    assert!(failed(&told, "clean_up").contains(written[0]), "{told:#}");
    platform.world.bucket.delete(written[0]).await;
    before.check(&Before::of(&platform).await, "but for what another wrote");
}

#[tokio::test]
async fn nothing_is_deleted_by_the_api_where_somebody_else_writes_too() {
    let mut platform = prepared(Platform::without_ledger().await).await;
    let (bucket, is_done) = (platform.world.bucket.clone(), Arc::new(AtomicBool::new(false)));
    let gate = Gate::open(&platform.world.bucket.endpoint, move |passing| {
        let (bucket, is_done) = (bucket.clone(), is_done.clone());
        async move {
            if passing.method != "PUT" || is_done.swap(true, Ordering::SeqCst) {
                return;
            }
            let id = passing.target.split('/').nth(3).expect("an id").to_owned();
            bucket.put(&format!("synthetic/{id}/theirs.npy"), b"theirs").await;
        }
    })
    .await;
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let told = document(&selftest(&platform, &[]).await, 1);
    assert!(failed(&told, "write").contains("somebody else writes under the scratch dataset"), "{told:#}");
    assert!(failed(&told, "clean_up").contains("theirs.npy"), "{told:#}");
    let contents = platform.world.contents().await;
    assert!(contents.len() == 1 && contents.keys().all(|key| key.ends_with("/theirs.npy")), "{contents:?}");
}

#[tokio::test]
async fn an_audit_that_takes_a_live_dataset_for_an_orphan_is_told() {
    let mut platform = prepared(Platform::without_ledger().await).await;
    platform.world.live(0).await;
    let before = Before::of(&platform).await;
    platform.world.database.execute("CREATE TABLE public.known AS SELECT id FROM heimdall.synthetic_datasets").await;
    let others = "DELETE FROM heimdall.synthetic_datasets WHERE id NOT IN (SELECT id FROM public.known)";
    let (url, is_done) = (platform.world.database.admin_url(), Arc::new(AtomicBool::new(false)));
    // The row of the live scratch dataset is not in what the audit reads, as where it reads another table.
    let gate = Gate::open(&platform.world.bucket.endpoint, move |passing| {
        let (url, is_done) = (url.clone(), is_done.clone());
        async move {
            if passing.is_prefix_listing() && !is_done.swap(true, Ordering::SeqCst) {
                let mut connection = sqlx::PgConnection::connect(&url).await.expect("connected");
                sqlx::raw_sql(others).execute(&mut connection).await.expect("removed");
                connection.close().await.expect("closed");
            }
        }
    })
    .await;
    platform.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let told = document(&selftest(&platform, &[]).await, 1);
    assert!(failed(&told, "audit").contains("takes the live dataset"), "{told:#}");
    assert_eq!(step(&told, "clean_up")["state"], "passed", "{told:#}");
    before.check(&Before::of(&platform).await, "what it wrote is gone");
}
