//! The way from a listing to a deletion, and what is left.

use uuid::Uuid;

use crate::support::{World, prefix, without};

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_both_patterns_go_and_live_datasets_stay() {
    let world = World::new().await;
    let live = [world.live(0).await, world.live(1).await];
    let both = world.live(0).await;
    world.put_group(&prefix(1, both), &["x"]).await;
    let orphans = [world.orphan(0).await, world.orphan(1).await];
    let twin = world.orphan(0).await;
    world.put_group(&prefix(1, twin), &["y"]).await;
    let before = world.contents().await;

    let summary = world.audit().await;
    assert_eq!(summary["groups"]["listed"], 8);
    assert_eq!(summary["groups"]["live"], 4);
    assert_eq!(summary["groups"]["orphan"], 4);
    assert_eq!(summary["groups"]["eligible"], 4);
    assert_eq!(summary["orphan_objects"], 7);
    assert_eq!(summary["orphan_bytes"], 70);
    assert_eq!(summary["coverage"]["references"], live.len() + 1);
    assert!(summary["deletion"].is_null());
    assert_eq!(world.contents().await, before, "an audit changes nothing");

    let applied = world.apply().await.summary(0);
    assert_eq!(applied["outcome"], "complete");
    assert_eq!(applied["deletion"]["requested"], 7);
    assert_eq!(applied["deletion"]["deleted"], 7);
    assert_eq!(applied["deletion"]["bytes_deleted"], 70);
    let gone = [prefix(0, orphans[0]), prefix(1, orphans[1]), prefix(0, twin), prefix(1, twin)];
    assert_eq!(world.contents().await, without(&before, &gone));

    let after = world.audit().await;
    assert_eq!(after["groups"]["orphan"], 0);
    assert_eq!(after["trend"]["resolved"], 3);
    assert_eq!(world.program.run(&["audit", "--fail-on-orphans"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_writes_every_report_and_says_what_to_type_next() {
    let world = World::new().await;
    world.live(0).await;
    let orphan = world.orphan(1).await;
    world.bucket.put("synthetic/notes.txt", b"mine").await;
    let missing = Uuid::new_v4();
    world.database.insert(missing).await;
    world.settle().await;
    let ran = world.program.run(&["audit"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("orphan-sweeper apply"), "{}", ran.stdout);
    let orphans = world.program.csv("orphans.csv");
    assert_eq!(orphans.len(), 1);
    assert_eq!(orphans[0]["id"], orphan.to_string());
    assert_eq!(orphans[0]["pattern"], "synthetic/dataset-{id}/");
    assert_eq!((orphans[0]["objects"].as_str(), orphans[0]["verdict"].as_str()), ("2", "eligible"));
    assert_eq!(world.program.csv("missing.csv")[0]["id"], missing.to_string());
    assert_eq!(world.program.csv("foreign.csv")[0]["prefix_or_key"], "synthetic/notes.txt");
    assert!(world.program.read("report.html").contains(&orphan.to_string()));
    assert_eq!(world.program.run(&["audit", "--fail-on-orphans"]).await.code, 3);
}
