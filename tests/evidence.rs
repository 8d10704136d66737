//! What was seen cannot be trusted: every such run refuses, says so, and loses nothing.

use serde_json::Value;
use sqlx::Connection;

use crate::support::program::breaker;
use crate::support::{Database, World};

/// A world with live datasets, orphans and one good audit.
async fn world_with_history(live: usize, orphans: usize) -> World {
    let world = World::new().await;
    for _ in 0..live {
        world.live(0).await;
    }
    for _ in 0..orphans {
        world.orphan(1).await;
    }
    world.audit().await;
    world
}

#[track_caller]
fn assert_refused(summary: &Value, name: &str) {
    assert_eq!(summary["outcome"], "refused", "{summary:#}");
    let reading = breaker(summary, name);
    assert_eq!((&reading["tripped"], &reading["latched"]), (&Value::Bool(true), &Value::Bool(true)), "{reading:#}");
}

async fn ack(world: &World, name: &str) {
    let ran = world.program.run(&["ack", name, "--by", "ada", "--reason", "looked into it"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_database_is_refused_twice_in_a_row_and_the_second_is_no_more_trusted() {
    let mut world = world_with_history(8, 2).await;
    let before = world.contents().await;
    let other = Database::create().await;
    for _ in 0..8 {
        other.insert(uuid::Uuid::new_v4()).await;
    }
    let right = world.database.reader_url();
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &other.reader_url());
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    for command in ["audit", "sweep", "sweep"] {
        let summary = world.program.run(&[command, "--json"]).await.summary(4);
        assert_refused(&summary, "database_identity");
        assert_refused(&summary, "no_overlap");
        assert!(summary["deletion"].is_null());
    }
    // The right database again: nothing trips, and the latches still wait.
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &right);
    world.settle().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert_eq!(breaker(&summary, "database_identity")["tripped"], false);
    assert_eq!(breaker(&summary, "database_identity")["latched"], true);
    assert_eq!(world.contents().await, before);
    ack(&world, "database_identity").await;
    ack(&world, "no_overlap").await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 4, "after the acknowledgement the nights go on: {summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_is_refused() {
    let world = world_with_history(8, 1).await;
    let before = world.contents().await;
    world.database.execute("TRUNCATE heimdall.synthetic_datasets").await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "no_references");
    assert_refused(&summary, "live_drop");
    assert_eq!(world.apply_of(1).await.code, 4);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_live_tables_emptied_is_refused() {
    let mut world = World::new().await;
    world.database.execute("CREATE TABLE heimdall.archived (id uuid PRIMARY KEY)").await;
    let role = world.database.role.clone();
    world.database.execute(&format!("GRANT SELECT ON heimdall.archived TO {role}")).await;
    let config = world.program.path("config.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    let second = "[[scope.live]]\ntable = \"heimdall.archived\"\nexpects_objects = { column = \"id\", values = [\"none\"] }\n\n[scope.policy]";
    std::fs::write(&config, text.replace("[scope.policy]", second)).expect("written");
    let archived = uuid::Uuid::new_v4();
    world.put_group(&crate::support::prefix(0, archived), &["x"]).await;
    world.database.execute(&format!("INSERT INTO heimdall.archived VALUES ('{archived}')")).await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let summary = world.audit().await;
    assert_eq!(summary["groups"]["live"], 4, "a row in either table keeps alive: {summary:#}");
    let before = world.contents().await;
    world.database.execute("TRUNCATE heimdall.archived").await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert_refused(&summary, "no_references");
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fall_of_one_of_two_columns_of_a_table_is_refused() {
    let world = World::new().await;
    world.database.execute("CREATE TABLE heimdall.uses (trained_on uuid, tested_on uuid)").await;
    let role = world.database.role.clone();
    world.database.execute(&format!("GRANT SELECT ON heimdall.uses TO {role}")).await;
    let live = |column: &str| {
        let expects = "expects_objects = { column = \"trained_on\", values = [\"none\"] }";
        format!("[[scope.live]]\ntable = \"heimdall.uses\"\nid_column = \"{column}\"\n{expects}\n\n")
    };
    let both = live("trained_on") + &live("tested_on") + "[scope.policy]";
    world.program.edit_config(|text| text.replace("[scope.policy]", &both));
    for _ in 0..3 {
        world.live(0).await;
    }
    let rows = "INSERT INTO heimdall.uses SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 20)";
    world.database.execute(rows).await;
    world.audit().await;
    world
        .database
        .execute("UPDATE heimdall.uses SET trained_on = NULL WHERE ctid IN (SELECT ctid FROM heimdall.uses LIMIT 12)")
        .await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "live_drop");
    let message = breaker(&summary, "live_drop")["message"].as_str().expect("a text").to_owned();
    assert!(message.contains("heimdall.uses (trained_on) had 20 rows and has 8"), "{message}");
    world.database.execute("UPDATE heimdall.uses SET trained_on = NULL").await;
    assert_refused(&world.program.run(&["audit", "--json"]).await.summary(4), "no_references");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_set_back_to_an_earlier_state_is_refused() {
    let world = world_with_history(8, 1).await;
    let before = world.contents().await;
    world.settle().await;
    // As after a snapshot of its volume was put back: everything is the same, but for the transactions since.
    world
        .edit_ledger(
            "UPDATE baselines SET baseline = json_set(baseline, '$.observation.snapshot', '4000000000000:4000000000000:')",
        )
        .await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "database_identity");
    assert_eq!(world.apply_of(1).await.code, 4);
    assert_eq!(world.contents().await, before);
    ack(&world, "database_identity").await;
    world.program.run(&["audit", "--json"]).await.summary(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_mass_deletion_goes_on_after_an_acknowledgement_and_anything_worse_trips_anew() {
    let mut world = world_with_history(40, 0).await;
    world.program.set_scope("LIMITS__MIN_OVERLAP", "0.0");
    world
        .database
        .execute(
            "DELETE FROM heimdall.synthetic_datasets WHERE id IN (SELECT id FROM heimdall.synthetic_datasets LIMIT 12)",
        )
        .await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "live_drop");
    ack(&world, "live_drop").await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(0);
    assert_eq!(summary["groups"]["eligible"], 12);
    world
        .database
        .execute(
            "DELETE FROM heimdall.synthetic_datasets WHERE id IN (SELECT id FROM heimdall.synthetic_datasets LIMIT 12)",
        )
        .await;
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "live_drop");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_security_ends_the_run_with_a_report() {
    let world = world_with_history(8, 1).await;
    let before = world.contents().await;
    world.database.execute("ALTER TABLE heimdall.synthetic_datasets ENABLE ROW LEVEL SECURITY").await;
    let ran = world.program.run(&["audit", "--json"]).await;
    let summary = ran.summary(1);
    assert_eq!(summary["outcome"], "failed");
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("row-level security")), "{summary:#}");
    assert_eq!(world.apply_of(1).await.code, 1);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_table_is_another_table() {
    let world = world_with_history(8, 1).await;
    let before = world.contents().await;
    world
        .database
        .execute(
            "CREATE TABLE heimdall.fresh (LIKE heimdall.synthetic_datasets INCLUDING ALL);
             INSERT INTO heimdall.fresh SELECT * FROM heimdall.synthetic_datasets;
             ALTER TABLE heimdall.synthetic_datasets RENAME TO old;
             ALTER TABLE heimdall.fresh RENAME TO synthetic_datasets",
        )
        .await;
    let role = &world.database.role;
    world.database.execute(&format!("GRANT SELECT ON heimdall.synthetic_datasets TO {role}")).await;
    assert_refused(&world.program.run(&["audit", "--json"]).await.summary(4), "database_identity");
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_table_of_a_wrong_kind_is_a_configuration_error() {
    let mut world = world_with_history(2, 0).await;
    world
        .database
        .execute("CREATE MATERIALIZED VIEW heimdall.stale AS SELECT * FROM heimdall.synthetic_datasets")
        .await;
    let role = &world.database.role;
    world.database.execute(&format!("GRANT SELECT ON heimdall.stale TO {role}")).await;
    for (table, says) in [("heimdall.stale", "materialized view"), ("heimdall.nowhere", "no table")] {
        world.program.set_scope("LIVE__0__TABLE", table);
        let ran = world.program.run(&["audit"]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(says) && ran.stderr.contains("scope[0].live[0].table"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_and_a_prepared_one_refuse_while_they_last() {
    let mut world = world_with_history(3, 1).await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    // A young transaction is everyday work.
    let mut open = sqlx::PgConnection::connect(&world.database.admin_url()).await.expect("connected");
    let id = uuid::Uuid::new_v4();
    for statement in ["BEGIN".to_owned(), format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{id}')")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut open).await.expect("executed");
    }
    let summary = world.program.run(&["audit", "--json"]).await.summary(0);
    assert_eq!(breaker(&summary, "open_transaction")["tripped"], false);
    open.close().await.expect("closed");
    // A role that may not see them cannot know.
    let role = world.database.role.clone();
    world.database.execute(&format!("REVOKE pg_read_all_stats FROM {role}")).await;
    let before = world.contents().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    let reading = breaker(&summary, "open_transaction");
    assert_eq!((&reading["tripped"], &reading["latched"]), (&Value::Bool(true), &Value::Bool(false)));
    assert!(
        reading["message"]
            .as_str()
            .is_some_and(|message| message.contains(&format!("GRANT pg_read_all_stats TO \"{role}\"")))
    );
    assert_eq!(world.contents().await, before);
    // It does not latch.
    world.database.execute(&format!("GRANT pg_read_all_stats TO {role}")).await;
    assert_eq!(world.program.run(&["sweep", "--json"]).await.summary(0)["deletion"]["deleted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_night_of_a_store_that_is_down_needs_no_acknowledgement() {
    let mut world = world_with_history(3, 1).await;
    let endpoint = world.bucket.endpoint.clone();
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &format!("http://{free}"));
    let summary = world.program.run(&["audit", "--json"]).await.summary(1);
    assert_eq!(summary["outcome"], "incomplete");
    assert_eq!(breaker(&summary, "incomplete")["tripped"], true);
    assert_eq!(summary["coverage"]["complete"], false);
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &endpoint);
    assert_eq!(world.program.run(&["audit", "--json"]).await.summary(0)["groups"]["eligible"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
    let mut world = world_with_history(1, 0).await;
    let secret = world.bucket.secret_key.clone();
    world.program.set("AWS_SECRET_ACCESS_KEY", "wrong-secret-key");
    let ran = world.program.run(&["audit", "--json"]).await;
    let summary = ran.summary(1);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("SignatureDoesNotMatch")), "{summary:#}");
    world.program.set("AWS_SECRET_ACCESS_KEY", &secret);
    world.program.set_scope("BUCKET", "no-such-bucket-here");
    let ran = world.program.run(&["audit", "--json"]).await;
    assert!(
        ran.summary(1)["reason"].as_str().is_some_and(|reason| reason.contains("bucket does not exist")),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bucket_under_the_same_scope_is_refused() {
    let mut world = world_with_history(1, 1).await;
    let other = crate::support::Bucket::create().await;
    other.put("synthetic/x", b"").await;
    world.program.set_scope("BUCKET", &other.name);
    assert_refused(&world.program.run(&["audit", "--json"]).await.summary(4), "target_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_belongs_to_no_row_is_refused_at_its_first_scan() {
    let world = World::new().await;
    for _ in 0..7 {
        world.orphan(0).await;
        world.database.insert(uuid::Uuid::new_v4()).await;
    }
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    assert_refused(&summary, "no_overlap");
    assert_eq!(breaker(&summary, "no_overlap")["observed"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_mostly_orphans_is_cleaned_by_a_person_and_by_no_schedule() {
    let mut world = World::new().await;
    world.program.set_scope("LIMITS__MAX_ORPHAN_SHARE", "0.10");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    for _ in 0..2 {
        world.live(0).await;
    }
    let mut gone = Vec::new();
    for _ in 0..8 {
        gone.push(crate::support::prefix(1, world.orphan(1).await));
    }
    world.settle().await;
    let before = world.contents().await;
    let summary = world.program.run(&["sweep", "--json"]).await.summary(4);
    assert_eq!(breaker(&summary, "orphan_share")["tripped"], true);
    assert_eq!(breaker(&summary, "orphan_share")["latched"], false);
    assert_eq!(world.contents().await, before);
    assert_eq!(
        world.program.run(&["audit", "--json"]).await.code,
        0,
        "an audit where only size breakers would trip is done"
    );
    assert_eq!(world.apply().await.code, 4);
    let plan = world.plan_of_newest_audit();
    let ran = world.program.run(&["apply", &plan, "--yes", "--json", "--allow", "orphan_share=0.8"]).await;
    assert_eq!(ran.summary(0)["deletion"]["deleted"], 16);
    assert_eq!(world.contents().await, crate::support::without(&before, &gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_orphan_among_eight_datasets_goes_with_the_default_limits() {
    let mut world = World::new().await;
    for key in ["LIMITS__MAX_ORPHAN_SHARE", "LIMITS__MAX_FOREIGN_SHARE"] {
        world.program.unset(&format!("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__{key}"));
    }
    for _ in 0..7 {
        world.live(0).await;
    }
    world.orphan(0).await;
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_being_rewritten_ends_the_run_instead_of_reading_it_empty() {
    let world = world_with_history(8, 1).await;
    let before = world.contents().await;
    let mut rewriting = sqlx::PgConnection::connect(&world.database.admin_url()).await.expect("connected");
    let begin = "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM heimdall.synthetic_datasets; TRUNCATE heimdall.synthetic_datasets";
    sqlx::raw_sql(begin).execute(&mut rewriting).await.expect("begun");
    let summary = world.program.run(&["audit", "--json"]).await.summary(1);
    assert_eq!(summary["outcome"], "failed");
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("lock")), "{summary:#}");
    assert_eq!(world.apply_of(1).await.code, 1);
    sqlx::raw_sql("INSERT INTO heimdall.synthetic_datasets SELECT * FROM kept; COMMIT")
        .execute(&mut rewriting)
        .await
        .expect("reloaded");
    assert_eq!(world.audit().await["groups"]["live"], 8, "reloaded rows are seen");
    assert_eq!(world.contents().await, before);
}
