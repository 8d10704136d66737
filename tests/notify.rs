//! Who is told when a run needs a person, who is told that all is well, and that neither changes what a run does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::listener::{Answer, Listener};
use crate::support::{MemoryWorld, Ran};

/// The part of the addresses that must never be shown.
const CANARY: &str = "canary-7f3a9c";

/// A world with three live datasets, whose webhook is the listener.
async fn world(listener: &Listener) -> MemoryWorld {
    let mut world = MemoryWorld::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    world.program.set("ORPHAN_SWEEPER_NOTIFY_URL", &format!("{}/hook/{CANARY}", listener.address));
    world
}

async fn audit(world: &MemoryWorld) -> Ran {
    world.program.run(&["audit", "--json"]).await
}

#[track_caller]
fn assert_hidden(world: &MemoryWorld, ran: &Ran) {
    assert!(!ran.stdout.contains(CANARY) && !ran.stderr.contains(CANARY), "{ran:?}");
    for (path, bytes) in world.program.files() {
        let has_it = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!has_it, "{} holds the address", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_needs_a_person_says_so_once_and_a_quiet_one_says_nothing() {
    let listener = Listener::open().await;
    let mut world = world(&listener).await;
    let summary = audit(&world).await.summary(0);
    assert_eq!(summary["notice"], json!({ "events": [], "webhook": null, "undelivered_before": [] }));
    assert!(listener.take().is_empty(), "nothing to tell");

    world.orphan(1);
    let ran = audit(&world).await;
    let summary = ran.summary(0);
    let message = listener.only_message();
    assert_eq!(message["events"], json!(["review_needed", "first_orphans"]));
    assert_eq!((&message["run_id"], &message["scope"]), (&summary["run_id"], &json!("synthetic")));
    assert_eq!((&message["groups"], &message["awaiting_review"]), (&summary["groups"], &json!(1)));
    assert_eq!(message["next_command"], format!("orphan-sweeper apply {}", world.program.latest("plan.json")));
    assert_eq!(
        summary["notice"]["webhook"],
        json!({ "delivered": true, "attempts": 1, "error": null }),
        "and the report says that it was taken"
    );
    assert_hidden(&world, &ran);
    audit(&world).await.summary(0);
    assert_eq!(listener.only_message()["events"], json!(["review_needed"]), "they are no first ones any more");

    world.program.set_scope("BUCKET", "there-is-no-such-bucket");
    audit(&world).await.summary(1);
    let message = listener.only_message();
    assert_eq!((&message["events"], &message["exit_code"]), (&json!(["failure"]), &json!(1)));
    assert!(message["text"].as_str().expect("text").contains("the bucket does not exist"), "{message:#}");
    world.program.set_scope("BUCKET", crate::support::memory::BUCKET);

    world.database.execute("TRUNCATE heimdall.synthetic_datasets CASCADE").await;
    audit(&world).await.summary(4);
    let message = listener.only_message();
    assert_eq!((&message["events"], &message["exit_code"]), (&json!(["trip"]), &json!(4)));
    let names: Vec<&Value> = message["breakers"].as_array().expect("breakers").iter().map(|one| &one["name"]).collect();
    assert!(names.contains(&&json!("no_references")), "{message:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_even_begin_its_report_is_told() {
    let listener = Listener::open().await;
    let world = world(&listener).await;
    audit(&world).await.summary(0);
    std::fs::rename(world.program.reports(), world.program.path("elsewhere")).expect("moved");
    std::fs::write(world.program.reports(), "in the way").expect("written");
    let ran = audit(&world).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let message = listener.only_message();
    assert_eq!((&message["events"], &message["exit_code"]), (&json!(["failure"]), &json!(1)));
    assert_eq!((&message["command"], &message["scope"]), (&json!("audit"), &json!("synthetic")));
    assert!(message["text"].as_str().expect("text").contains("It left no report."), "{message:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_changes_nothing_and_is_seen_in_the_report() {
    let listener = Listener::open().await;
    let mut world = world(&listener).await;
    world.orphan(1);
    let refused = |attempts: u32, error: &str| json!({ "delivered": false, "attempts": attempts, "error": error });

    listener.answer_next(&[Answer::Status(500), Answer::Status(503), Answer::Status(429)]);
    let ran = audit(&world).await;
    let summary = ran.summary(0);
    assert_eq!((&summary["outcome"], &summary["groups"]["eligible"]), (&json!("complete"), &json!(1)));
    assert_eq!(summary["notice"]["webhook"], refused(3, "it answered with status 429"));
    assert_eq!(listener.take().len(), 3);
    assert!(world.program.read("report.html").contains("it answered with status 429"));
    assert_hidden(&world, &ran);
    let history = world.program.run(&["history", "--json"]).await.json();
    assert_eq!(history["undelivered"][0]["run_id"], summary["run_id"]);
    assert_eq!(history["undelivered"][0]["error"], "it answered with status 429");

    // What will not change is not asked again, and nobody is sent elsewhere.
    for (answer, error) in
        [(Answer::Status(404), "it answered with status 404"), (Answer::Redirect, "it answered with status 302")]
    {
        listener.answer_next(&[answer]);
        assert_eq!(audit(&world).await.summary(0)["notice"]["webhook"], refused(1, error));
        assert_eq!(listener.take().len(), 1);
    }
    // It is told by the report of its own run, so by no later one.
    assert_eq!(audit(&world).await.summary(0)["notice"]["undelivered_before"], json!([]));
    listener.take();

    listener.answer_next(&[Answer::Status(500), Answer::Status(200)]);
    assert_eq!(
        audit(&world).await.summary(0)["notice"]["webhook"],
        json!({ "delivered": true, "attempts": 2, "error": null })
    );
    listener.take();

    world.program.set("ORPHAN_SWEEPER__NOTIFY__TIMEOUT", "1s");
    listener.answer_next(&[Answer::Hang, Answer::Hang, Answer::Hang]);
    let before = orphan_sweeper::clock::Stopwatch::start();
    let summary = audit(&world).await.summary(0);
    assert_eq!(summary["notice"]["webhook"], refused(3, "it did not answer in time"));
    assert!(before.elapsed() < Duration::from_secs(30), "a run waits for nobody: {:?}", before.elapsed());

    world.program.set("ORPHAN_SWEEPER_NOTIFY_URL", &format!("http://127.0.0.1:1/{CANARY}"));
    let ran = world.program.run(&["audit"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("The webhook did not take the message"), "{ran:?}");
    assert_hidden(&world, &ran);

    world.program.set("ORPHAN_SWEEPER_NOTIFY_URL", &format!("no address {CANARY}"));
    let ran = audit(&world).await;
    let error = ran.summary(0)["notice"]["webhook"]["error"].clone();
    assert!(error.as_str().expect("an error").contains("is no http or https address"), "{error}");
    assert_hidden(&world, &ran);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_is_told_and_slack_gets_its_own_words() {
    let listener = Listener::open().await;
    let mut world = world(&listener).await;
    std::fs::write(world.program.path("hook"), format!("{}/slack/{CANARY}\n", listener.address)).expect("written");
    world.program.unset("ORPHAN_SWEEPER_NOTIFY_URL");
    world.program.edit_config(|text| {
        let notify = "[notify]\nurl_file = \"hook\"\nformat = \"slack\"\nevents = [\"first_orphans\"]\n\n[[scope]]\n";
        text.replacen("[[scope]]\n", notify, 1)
    });
    audit(&world).await.summary(0);
    world.orphan(0);
    let summary = audit(&world).await.summary(0);
    assert_eq!(summary["notice"]["events"], json!(["first_orphans"]), "a review is not wanted here");
    let message = listener.only_message();
    let text = message["text"].as_str().expect("text");
    assert!(text.starts_with("orphan-sweeper: there are orphans again (audit of scope synthetic)\n"), "{text}");
    assert_eq!(message.as_object().map(serde_json::Map::len), Some(1), "{message}");
    audit(&world).await.summary(0);
    assert!(listener.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_approved_and_a_sweep_deletes_waits_for_nobody() {
    let listener = Listener::open().await;
    let world = world(&listener).await;
    world.orphan(1);
    audit(&world).await.summary(0);
    listener.take();
    let approve = ["plan", "approve", &world.program.latest("plan.json"), "--by", "ada", "--reason", "reviewed"];
    assert_eq!(world.program.run(&approve).await.code, 0);
    let summary = world.program.run(&["sweep", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 2, "{summary:#}");
    assert_eq!(summary["notice"]["events"], json!([]), "the plan that the sweep made holds nothing else");
    assert!(listener.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_follows_a_success_alone_and_one_that_fails_is_told_by_the_next_report_once() {
    let (listener, monitor) = (Listener::open().await, Listener::open().await);
    let mut world = world(&listener).await;
    world.program.set("ORPHAN_SWEEPER_HEARTBEAT_URL", &format!("{}/beat/{CANARY}", monitor.address));
    let ran = audit(&world).await;
    ran.summary(0);
    let beats = monitor.take();
    assert_eq!(beats.len(), 1, "{beats:#?}");
    assert_eq!((beats[0].method.as_str(), beats[0].path.as_str()), ("GET", &*format!("/beat/{CANARY}")));
    assert_hidden(&world, &ran);

    world.program.set_scope("BUCKET", "there-is-no-such-bucket");
    audit(&world).await.summary(1);
    assert!(monitor.take().is_empty(), "no success, no heartbeat");
    world.program.set_scope("BUCKET", crate::support::memory::BUCKET);

    monitor.answer_next(&[Answer::Status(500); 3]);
    let failed = audit(&world).await.summary(0);
    assert_eq!(monitor.take().len(), 3);
    let summary = audit(&world).await.summary(0);
    let told = &summary["notice"]["undelivered_before"];
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!((&told[0]["run_id"], &told[0]["channel"]), (&failed["run_id"], &json!("heartbeat")));
    assert_eq!(audit(&world).await.summary(0)["notice"]["undelivered_before"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_heartbeat_watches_every_scope_of_the_schedule() {
    let (listener, monitor) = (Listener::open().await, Listener::open().await);
    let mut world = world(&listener).await;
    world.program.set("ORPHAN_SWEEPER_HEARTBEAT_URL", &monitor.address);
    world.program.edit_config(|text| {
        let scope = text.split_once("[[scope]]\n").expect("a scope").1;
        let second = scope.replacen("\"synthetic\"", "\"second\"", 1).replace("synthetic/", "second/");
        format!("{text}\n[[scope]]\n{second}")
    });
    world.program.set("ORPHAN_SWEEPER__SCOPE__SECOND__BUCKET", crate::support::memory::BUCKET);
    world.put(&format!("second/{}/x", uuid::Uuid::new_v4()));
    let first = world.program.run(&["audit", "--scope", "synthetic"]).await;
    assert_eq!(first.code, 0, "{first:?}");
    assert!(monitor.take().is_empty(), "the other scope never had a success");
    assert!(first.stderr.contains("no heartbeat"), "{first:?}");
    world.program.set("ORPHAN_SWEEPER__SCOPE__SECOND__LIMITS__MIN_OVERLAP", "0.0");
    let both = world.program.run(&["audit", "--json"]).await;
    assert_eq!(both.code, 0, "{both:?}");
    assert_eq!(monitor.take().len(), 1, "the second scope's success completes them; the first had to wait for it");
}
