//! Least privilege: the policies and the role of README.md suffice for what each is for, and for nothing more.

use std::borrow::Cow;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::BucketVersioningStatus;
use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::sts::Temporary;
use crate::support::treasure::put_in_parts;
use crate::support::{World, prefix, readme_block, without};

/// Temporary credentials with a policy of README.md, for this world's bucket.
async fn pair(world: &World, heading: &str) -> Temporary {
    let policy = readme_block(heading, "json");
    assert!(policy.contains("heimdall-synthetic-iq"));
    Temporary::with_policy(&world.bucket, &policy.replace("heimdall-synthetic-iq", &world.bucket.name)).await
}

async fn looking(world: &World) -> Temporary {
    pair(world, "The pair that looks").await
}

async fn deleting(world: &World) -> Temporary {
    pair(world, "The pair that deletes").await
}

/// A world with two live datasets and an orphan with a key that XML cannot carry.
async fn world() -> (World, Uuid) {
    let world = World::new().await;
    world.live(0).await;
    world.live(1).await;
    let id = world.orphan(1).await;
    world.put_group(&prefix(1, id), &["\u{1}"]).await;
    world.put_group("elsewhere/", &["a.npy"]).await;
    world.settle().await;
    (world, id)
}

#[track_caller]
fn assert_denied<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    what: &str,
    result: Result<T, SdkError<E, HttpResponse>>,
) {
    match result {
        Err(SdkError::ServiceError(error)) => assert_eq!(error.err().code(), Some("AccessDenied"), "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pair_that_looks_audits_and_can_do_nothing_else() {
    let (mut world, id) = world().await;
    let looking = looking(&world).await;
    looking.read_with(&mut world.program);
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["live"], &summary["groups"]["eligible"]), (&2.into(), &1.into()));
    assert_eq!(summary["target"]["versioning"], "unversioned");
    assert_eq!(world.program.run(&["explain", &id.to_string()]).await.code, 0);
    assert_eq!(world.program.run(&["sweep"]).await.code, 0);

    // Without a second pair, `apply` deletes with the first: nothing goes, and every key is told.
    let summary = world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes", "--json"]).await.summary(5);
    assert_eq!(
        (&summary["deletion"]["requested"], &summary["deletion"]["failed"]),
        (&3.into(), &3.into()),
        "{summary:#}"
    );
    assert_eq!(world.contents().await, before);

    let (client, bucket) = (looking.client(&world.bucket), &world.bucket.name);
    let key = format!("{}a.npy", prefix(1, id));
    assert_denied("delete", client.delete_object().bucket(bucket).key(&key).send().await);
    assert_denied("read", client.get_object().bucket(bucket).key(&key).send().await);
    assert_denied("write", client.put_object().bucket(bucket).key(&key).send().await);
    assert_denied("list the whole bucket", client.list_objects_v2().bucket(bucket).send().await);
    assert_denied("list elsewhere", client.list_objects_v2().bucket(bucket).prefix("elsewhere/").send().await);
    assert_denied("remove the bucket", client.delete_bucket().bucket(bucket).send().await);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pair_that_deletes_deletes_what_the_other_found_and_can_do_nothing_else() {
    let (mut world, id) = world().await;
    let (looking, deleting) = (looking(&world).await, deleting(&world).await);
    looking.read_with(&mut world.program);
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let before = world.contents().await;
    let (client, bucket): (Client, &str) = (deleting.client(&world.bucket), &world.bucket.name);
    let key = format!("{}a.npy", prefix(1, id));
    assert_denied("list", client.list_objects_v2().bucket(bucket).prefix("synthetic/").send().await);
    assert_denied("read", client.get_object().bucket(bucket).key(&key).send().await);
    assert_denied("write", client.put_object().bucket(bucket).key(&key).send().await);
    assert_denied("delete elsewhere", client.delete_object().bucket(bucket).key("elsewhere/a.npy").send().await);
    assert_denied("switch versioning", client.get_bucket_versioning().bucket(bucket).send().await);
    assert_eq!(world.contents().await, before);

    deleting.delete_with(&mut world.program);
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 3, "{summary:#}");
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));

    // The pair that deletes cannot audit: it may not look.
    deleting.read_with(&mut world.program);
    let summary = world.program.run(&["audit", "--json"]).await.summary(1);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("AccessDenied")), "{summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_needs_no_pair_that_deletes_and_does_not_look_for_one() {
    let (mut world, id) = world().await;
    looking(&world).await.read_with(&mut world.program);
    let before = world.contents().await;
    for name in ["ACCESS_KEY_FILE", "SECRET_KEY_FILE"] {
        world.program.set(&format!("ORPHAN_SWEEPER__STORE__DELETE__{name}"), "/nowhere/secret");
    }
    for command in ["audit", "sweep"] {
        assert_eq!(world.program.run(&[command, "--json"]).await.summary(0)["groups"]["eligible"], 1);
    }
    let plan = world.plan_of_newest_audit();
    assert_eq!(world.program.run(&["apply", &plan, "--dry-run"]).await.code, 0);
    let ran = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("store.delete.access_key_file"), "{}", ran.stderr);
    assert_eq!(world.contents().await, before);
    // It is read anew for each run: once it is there, the same plan goes on.
    let deleting = deleting(&world).await;
    for name in ["ACCESS_KEY_FILE", "SECRET_KEY_FILE"] {
        world.program.unset(&format!("ORPHAN_SWEEPER__STORE__DELETE__{name}"));
    }
    deleting.delete_with(&mut world.program);
    assert_eq!(world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0)["deletion"]["deleted"], 3);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_from_files_is_read_without_its_line_break() {
    let (mut world, id) = world().await;
    let before = world.contents().await;
    let secrets = tempfile::tempdir().expect("a folder");
    for (name, text) in [("access", &world.bucket.access_key), ("secret", &world.bucket.secret_key)] {
        std::fs::write(secrets.path().join(name), format!("{text}\n")).expect("written");
    }
    let path = |name: &str| secrets.path().join(name).display().to_string();
    for (variable, name) in [
        ("STORE__ACCESS_KEY_FILE", "access"),
        ("STORE__SECRET_KEY_FILE", "secret"),
        ("STORE__DELETE__ACCESS_KEY_FILE", "access"),
        ("STORE__DELETE__SECRET_KEY_FILE", "secret"),
    ] {
        world.program.set(&format!("ORPHAN_SWEEPER__{variable}"), &path(name));
    }
    std::fs::write(secrets.path().join("url"), format!("{}\n", world.database.reader_url())).expect("written");
    world.program.set("ORPHAN_SWEEPER__DATABASE__URL_FILE", &path("url"));
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ORPHAN_SWEEPER_DATABASE_URL"] {
        world.program.unset(variable);
    }
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 3);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_readme_reads_and_can_write_nothing() {
    let (world, _) = world().await;
    world.audit().await;
    let mut connection = sqlx::PgConnection::connect(&world.database.reader_url()).await.expect("connected");
    let id = Uuid::new_v4();
    let statements = [
        format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')"),
        "UPDATE heimdall.synthetic_datasets SET name = 'x'".to_owned(),
        "DELETE FROM heimdall.synthetic_datasets".to_owned(),
        "TRUNCATE heimdall.synthetic_datasets".to_owned(),
        "DROP TABLE heimdall.synthetic_datasets".to_owned(),
        "ALTER TABLE heimdall.synthetic_datasets DISABLE ROW LEVEL SECURITY".to_owned(),
        "LOCK TABLE heimdall.synthetic_datasets IN ACCESS EXCLUSIVE MODE".to_owned(),
        "CREATE TABLE heimdall.mine (id uuid)".to_owned(),
        "CREATE SCHEMA mine".to_owned(),
        "CREATE ROLE mine".to_owned(),
    ];
    // That it reads only is a default, which anybody may change; its rights are what holds.
    for (begin, allowed) in [("BEGIN", &["25006", "42501"][..]), ("BEGIN READ WRITE", &["42501"])] {
        for statement in &statements {
            for (text, must_fail) in [(begin, false), (statement.as_str(), true), ("ROLLBACK", false)] {
                let done = sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(&mut connection).await;
                let code = done.as_ref().err().and_then(|error| error.as_database_error()?.code().map(Cow::into_owned));
                let is_right =
                    if must_fail { code.as_deref().is_some_and(|code| allowed.contains(&code)) } else { done.is_ok() };
                assert!(is_right, "{begin}; {statement}: {text}: {code:?}");
            }
        }
    }
    assert_eq!(world.database.count().await, 2);
}

/// What the pair that deletes needs besides, where objects are copied aside first.
const QUARANTINE: &str = "What quarantine adds";

/// What it needs besides for `restore`.
const RESTORE: &str = "What a restore from quarantine adds";

/// What it needs besides for `restore` on a bucket that keeps versions.
const RESTORE_VERSIONS: &str = "What a restore of versions adds";

/// The pair that deletes, with the statements under more headings of README.md; one action of them may be left out.
async fn deleting_with(world: &World, headings: &[&str], without: &str) -> Temporary {
    let mut policy: serde_json::Value =
        serde_json::from_str(&readme_block("The pair that deletes", "json")).expect("JSON");
    let all = policy["Statement"].as_array_mut().expect("statements");
    for heading in headings {
        let more: Vec<serde_json::Value> = serde_json::from_str(&readme_block(heading, "json")).expect("JSON");
        for mut statement in more {
            let actions = statement["Action"].as_array_mut().expect("actions");
            actions.retain(|action| action != without);
            if !actions.is_empty() {
                all.push(statement);
            }
        }
    }
    let policy = policy.to_string().replace("heimdall-synthetic-iq", &world.bucket.name);
    Temporary::with_policy(&world.bucket, &policy).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_and_a_restore_need_what_is_documented_and_nothing_else() {
    let (mut world, id) = world().await;
    put_in_parts(&world.bucket, &format!("{}parts.npy", prefix(1, id))).await;
    world.program.set_scope("POLICY__DISPOSAL", "quarantine");
    world.program.set_scope("QUARANTINE__KEEP", "0s");
    looking(&world).await.read_with(&mut world.program);
    for without in ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObject"] {
        // What moved although something was missing is not there again: each turn has an orphan of its own.
        let other = world.orphan(0).await;
        put_in_parts(&world.bucket, &format!("{}parts.npy", prefix(0, other))).await;
        world.settle().await;
        world.audit().await;
        let before = world.contents().await;
        deleting_with(&world, &[QUARANTINE], without).await.delete_with(&mut world.program);
        let summary = world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes", "--json"]).await.summary(5);
        assert_ne!(summary["deletion"]["failed"], 0, "without {without}: {summary:#}");
        let now = world.contents().await;
        let is_there = |key: &String| now.contains_key(key) || now.keys().any(|copy| copy.ends_with(key.as_str()));
        assert!(before.keys().all(is_there), "without {without} something is gone");
        assert!(now.contains_key(&format!("{}parts.npy", prefix(0, other))), "without {without}");
    }
    // An orphan of its own, which nobody has touched yet.
    let id = world.orphan(1).await;
    world.put_group(&prefix(1, id), &["\u{1}"]).await;
    put_in_parts(&world.bucket, &format!("{}parts.npy", prefix(1, id))).await;
    world.settle().await;
    world.audit().await;
    let quarantining = deleting_with(&world, &[QUARANTINE], "").await;
    quarantining.delete_with(&mut world.program);
    let applied = world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes", "--json"]).await.summary(0);
    assert_eq!(applied["deletion"]["failed"], 0, "{applied:#}");
    assert!(!world.contents().await.keys().any(|key| key.starts_with(&prefix(1, id))), "{applied:#}");
    let (client, bucket) = (quarantining.client(&world.bucket), &world.bucket.name);
    assert_denied("write", client.put_object().bucket(bucket).key(format!("{}x", prefix(1, id))).send().await);
    assert_denied("list", client.list_objects_v2().bucket(bucket).prefix("synthetic/").send().await);
    assert_denied("read elsewhere", client.get_object().bucket(bucket).key("elsewhere/a.npy").send().await);
    assert_denied("delete elsewhere", client.delete_object().bucket(bucket).key("elsewhere/a.npy").send().await);

    let run = applied["run_id"].as_str().expect("an id");
    for without in ["s3:PutObject", "s3:GetObjectTagging"] {
        deleting_with(&world, &[QUARANTINE, RESTORE], without).await.delete_with(&mut world.program);
        let summary = world.program.run(&["restore", "--run", run, "-y", "--json"]).await.json()[0].clone();
        assert_ne!(summary["restore"]["failed"], 0, "without {without}: {summary:#}");
    }
    deleting_with(&world, &[QUARANTINE, RESTORE], "").await.delete_with(&mut world.program);
    let restored = world.program.run(&["restore", "--run", run, "-y", "--json"]).await.summary(0);
    assert_eq!(restored["restore"]["failed"], 0, "{restored:#}");
    assert_eq!(world.contents().await.keys().filter(|key| key.starts_with(&prefix(1, id))).count(), 4);

    quarantining.delete_with(&mut world.program);
    world.settle().await;
    let swept = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert!(swept["reaped"]["objects"].as_u64().is_some_and(|count| count >= 4), "{swept:#}");
    assert_eq!(swept["reaped"]["failed"], 0, "{swept:#}");
    // What was restored is held, and its copies are spare; those of what was never restored wait.
    let restored = |key: &String| key.starts_with("quarantine/") && key.contains(&prefix(1, id));
    assert_eq!(world.contents().await.into_keys().find(restored), None, "{swept:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_versions_needs_what_is_documented_and_nothing_else() {
    let (mut world, id) = world().await;
    put_in_parts(&world.bucket, &format!("{}parts.npy", prefix(1, id))).await;
    world.bucket.set_versioning(aws_sdk_s3::types::BucketVersioningStatus::Enabled).await;
    looking(&world).await.read_with(&mut world.program);
    deleting(&world).await.delete_with(&mut world.program);
    world.settle().await;
    world.audit().await;
    let applied = world.program.run(&["apply", &world.plan_of_newest_audit(), "--yes", "--json"]).await.summary(0);
    assert_eq!(applied["deletion"]["deleted"], 4, "{applied:#}");
    let run = applied["run_id"].as_str().expect("an id");
    for without in ["s3:PutObject", "s3:GetObjectTagging", "s3:ListBucketVersions"] {
        deleting_with(&world, &[RESTORE_VERSIONS], without).await.delete_with(&mut world.program);
        let ran = world.program.run(&["restore", "--run", run, "-y", "--json"]).await;
        let summary = ran.json()[0].clone();
        let is_whole = ran.code == 0 && summary["restore"]["failed"] == 0;
        assert!(!is_whole, "without {without}: {summary:#}");
        // What came back and could not be proven is taken away again.
        for key in
            world.contents().await.into_keys().filter(|key| key.starts_with(&prefix(1, id)) && !key.ends_with('/'))
        {
            world.bucket.delete(&key).await;
        }
    }
    deleting_with(&world, &[RESTORE_VERSIONS], "").await.delete_with(&mut world.program);
    let restored = world.program.run(&["restore", "--run", run, "-y", "--json"]).await.summary(0);
    assert_eq!(restored["restore"]["restored"], 4, "{restored:#}");
}

/// A policy of README.md without the rights that only reports and aborts need, and with these statements besides.
fn with_rights(world: &World, heading: &str, more: &[Value]) -> String {
    let policy = readme_block(heading, "json").replace("heimdall-synthetic-iq", &world.bucket.name);
    let mut policy: Value = serde_json::from_str(&policy).expect("JSON");
    let optional = ["s3:ListBucketMultipartUploads", "s3:ListBucketVersions", "s3:AbortMultipartUpload"];
    for statement in policy["Statement"].as_array_mut().expect("statements") {
        let actions = statement["Action"].as_array_mut().expect("actions");
        actions.retain(|action| !optional.iter().any(|right| action == right));
    }
    let statements = policy["Statement"].as_array_mut().expect("statements");
    statements.retain(|statement| statement["Action"].as_array().is_some_and(|actions| !actions.is_empty()));
    statements.extend(more.iter().cloned());
    policy.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_old_versions_are_seen_with_one_right_each_and_nothing_else_needs_them() {
    let (mut world, id) = world().await;
    world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    world.bucket.put(&format!("{}a.npy", prefix(1, id)), b"again").await;
    let (client, bucket) = (world.bucket.client.clone(), world.bucket.name.clone());
    client
        .create_multipart_upload()
        .bucket(&bucket)
        .key(format!("{}c.npy", prefix(0, id)))
        .send()
        .await
        .expect("begun");
    let resource = format!("arn:aws:s3:::{bucket}");
    let uploads = json!({ "Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": [resource] });
    let versions = json!({
        "Effect": "Allow", "Action": ["s3:ListBucketVersions"], "Resource": [resource],
        "Condition": { "StringLike": { "s3:prefix": ["synthetic/*"] } }
    });
    // MinIO takes the right to list for the right to list versions; other stores ask for it by its name.
    for (rights, sees_uploads) in [(vec![versions.clone()], false), (vec![uploads, versions], true)] {
        let policy = with_rights(&world, "The pair that looks", &rights);
        Temporary::with_policy(&world.bucket, &policy).await.read_with(&mut world.program);
        let summary = world.audit().await;
        let coverage = &summary["coverage"];
        assert_eq!((&summary["uploads"]["known"], &summary["versions"]["known"]), (&sees_uploads.into(), &true.into()));
        assert_eq!(coverage["unknown"].as_array().map(Vec::len), Some(usize::from(!sees_uploads)), "{coverage:#}");
        let reason = world.program.csv("orphans.csv")[0]["reason"].clone();
        assert_eq!(reason == "upload_in_progress", sees_uploads, "{reason}");
        assert_eq!(summary["versions"]["noncurrent"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pair_that_deletes_aborts_with_one_right_and_only_under_the_scope() {
    let (mut world, id) = world().await;
    world.program.set_scope("UPLOADS__ABORT_AFTER", "0s");
    let (client, bucket) = (world.bucket.client.clone(), world.bucket.name.clone());
    let begin = |key: String| client.create_multipart_upload().bucket(&bucket).key(key).send();
    begin(format!("{}c.npy", prefix(0, id))).await.expect("begun");
    let elsewhere = begin("elsewhere/x".into()).await.expect("begun");
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let policy = with_rights(&world, "The pair that deletes", &[]);
    Temporary::with_policy(&world.bucket, &policy).await.delete_with(&mut world.program);
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(5);
    assert_eq!(summary["uploads"]["aborted"], 0);
    assert_eq!(world.program.csv("uploads.csv")[0]["verdict"], "abort_failed");

    let right = json!({
        "Effect": "Allow", "Action": ["s3:AbortMultipartUpload"], "Resource": [format!("arn:aws:s3:::{bucket}/synthetic/*")]
    });
    let policy = with_rights(&world, "The pair that deletes", &[right]);
    let deleting = Temporary::with_policy(&world.bucket, &policy).await;
    let abort = deleting.client(&world.bucket).abort_multipart_upload().bucket(&bucket).key("elsewhere/x");
    let denied = abort.upload_id(elsewhere.upload_id().expect("an id")).send().await;
    assert_denied("abort elsewhere", denied);
    deleting.delete_with(&mut world.program);
    world.audit().await;
    let summary = world.apply().await.summary(0);
    assert_eq!(summary["uploads"]["aborted"], 1, "{summary:#}");
}
