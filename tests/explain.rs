//! Why one id is kept or goes: every rule with what it found, what it needs and what would have to change; and what became of it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, odd_spellings, prefix};

async fn explain(world: &World, id: &str) -> Value {
    let ran = world.program.run(&["explain", id, "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()[0].clone()
}

#[track_caller]
fn rule<'d>(document: &'d Value, name: &str) -> &'d Value {
    let rules = document["rules"].as_array().expect("rules");
    rules.iter().find(|rule| rule["rule"] == name).unwrap_or_else(|| panic!("no rule `{name}` in {document:#}"))
}

/// The names of the rules that do not pass.
fn failing(document: &Value) -> Vec<&str> {
    let rules = document["rules"].as_array().expect("rules");
    assert!(
        rules.iter().all(|rule| (rule["passes"] == true) == rule["to_change"].is_null()),
        "each that fails says what would have to change: {document:#}"
    );
    rules.iter().filter(|rule| rule["passes"] == false).filter_map(|rule| rule["rule"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_id_and_an_unknown_one_say_why_they_stay() {
    let world = World::new().await;
    let live = world.live(0).await;
    world.audit().await;
    let document = explain(&world, &live.to_string().to_uppercase()).await;
    assert_eq!((&document["verdict"], &document["id"]), (&"keep".into(), &live.to_string().into()));
    assert_eq!(document["rows"], json!([{ "table": "heimdall.synthetic_datasets", "rows": 1 }]));
    assert_eq!(rule(&document, "no row in any live table")["found"], "1 in heimdall.synthetic_datasets");
    assert_eq!(document["eligible_at"], Value::Null);
    let document = explain(&world, &Uuid::new_v4().to_string()).await;
    assert_eq!(document["verdict"], "none");
    assert!(failing(&document).contains(&"the store lists objects"));
    assert_eq!(world.program.run(&["explain", "nonsense"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_in_the_way_is_named_with_what_would_have_to_change() {
    let mut world = World::new().await;
    for _ in 0..8 {
        world.live(0).await;
    }
    let id = world.orphan(1).await;
    let named = id.to_string();
    let hash = world.audit().await["plan_hash"].as_str().expect("a plan").to_owned();
    let document = explain(&world, &named).await;
    assert_eq!(document["verdict"], "eligible", "{document:#}");
    assert_eq!(failing(&document), ["a person or the policy lets it go"]);
    assert_eq!(
        (&document["plans"][0]["plan_hash"], &document["plans"][0]["objects"]),
        (&hash.as_str().into(), &2.into())
    );
    let decision = ["plan", "approve", &hash, "--id", &named, "--by", "ada", "--reason", "old"];
    assert_eq!(world.program.run(&decision).await.code, 0);
    let document = explain(&world, &named).await;
    assert_eq!(failing(&document), Vec::<&str>::new(), "{document:#}");
    assert_eq!((&document["plans"][0]["decision"], &document["plans"][0]["by"]), (&"approved".into(), &"ada".into()));
    let decision = ["plan", "reject", &hash, "--id", &named, "--by", "bob", "--reason", "not yet"];
    assert_eq!(world.program.run(&decision).await.code, 0);
    let hold = ["hold", "add", &named, "--by", "eve", "--reason", "a paper", "--until", "2999-12-31"];
    assert_eq!(world.program.run(&hold).await.code, 0);
    let document = explain(&world, &named).await;
    assert_eq!(failing(&document), ["no hold", "a person or the policy lets it go"]);
    assert_eq!(document["verdict"], "keep");
    assert!(document["summary"].as_str().expect("a summary").starts_with("held: "), "{document:#}");
    assert_eq!((&document["hold"]["by"], &document["eligible_at"]), (&"eve".into(), &"3000-01-01T00:00:00Z".into()));
    assert_eq!(rule(&document, "a person or the policy lets it go")["found"], "rejected by bob: not yet");
    world.put_group(&prefix(1, id), &["later"]).await;
    world.database.execute("TRUNCATE heimdall.synthetic_datasets").await;
    assert_eq!(world.program.run(&["audit"]).await.code, 4);
    world.program.set_scope("POLICY__MIN_SIGHTINGS", "3");
    let text = world.program.run(&["explain", &named]).await.stdout;
    for part in [
        "no   no hold  ",
        "held by eve (ledger) until 3000-01-01T00:00:00Z: a paper (needed: none)",
        "no   unchanged since the scan before",
        "to change: nobody writes to it any more",
        "to change: 2 more complete scans see it",
        "no   no breaker waits for a person",
        "latched: no_references: ",
        &format!("plan {hash} (open, expires "),
        "rejected by bob: not yet",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_spelling_beside_a_canonical_prefix_is_no_change() {
    let world = World::new().await;
    world.live(0).await;
    let id = world.orphan(0).await;
    let [upper, ..] = odd_spellings(id);
    world.put_group(&format!("synthetic/{upper}/"), &["odd"]).await;
    let lone = Uuid::new_v4();
    world.put_group(&format!("synthetic/dataset-{}/", lone.simple()), &["odd"]).await;
    world.audit().await;
    let document = explain(&world, &id.to_string()).await;
    assert_eq!(rule(&document, "unchanged since the scan before")["passes"], true, "{document:#}");
    assert_eq!(document["verdict"], "eligible");
    let spellings: Vec<&Value> =
        document["groups"].as_array().expect("groups").iter().map(|group| &group["canonical"]).collect();
    assert_eq!(spellings, [true, false]);
    let document = explain(&world, &lone.to_string()).await;
    assert!(document["summary"].as_str().expect("a summary").starts_with("not_canonical: "), "{document:#}");
    assert!(failing(&document).contains(&"some prefix is spelled as the pattern writes it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_id_says_by_which_run_plan_and_word_it_went() {
    let mut world = World::new().await;
    for _ in 0..3 {
        world.live(0).await;
    }
    let (approved, applied) = (world.orphan(0).await, world.orphan(1).await);
    let hash = world.audit().await["plan_hash"].as_str().expect("a plan").to_owned();
    let decision = ["plan", "approve", &hash, "--id", &approved.to_string(), "--by", "ada", "--reason", "old data"];
    assert_eq!(world.program.run(&decision).await.code, 0);
    let sweep = world.program.run(&["sweep", "--json"]).await.summary(0);
    world.settle().await;
    world.audit().await;
    world.apply().await.summary(0);
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let swept = world.orphan(0).await;
    world.settle().await;
    world.program.run(&["sweep", "--json"]).await.summary(0);
    let document = explain(&world, &approved.to_string()).await;
    assert_eq!(document["verdict"], "none");
    let disposal = &document["disposals"][0];
    assert_eq!(
        (&disposal["run_id"], &disposal["plan_hash"], &disposal["outcome"], &disposal["objects"], &disposal["bytes"]),
        (&sweep["run_id"], &hash.as_str().into(), &"gone".into(), &2.into(), &20.into()),
        "{document:#}"
    );
    assert_eq!(disposal["prefix"], prefix(0, approved));
    assert_eq!(
        (&disposal["let_go_by"]["kind"], &disposal["let_go_by"]["by"], &disposal["let_go_by"]["reason"]),
        (&"approval".into(), &"ada".into(), &"old data".into())
    );
    assert_eq!(disposal["undo"], "cannot be brought back: the bucket keeps no versions");
    // First kept because nobody had approved it, then applied by a person.
    let document = explain(&world, &applied.to_string()).await;
    let kinds: Vec<(&Value, &Value)> = document["disposals"]
        .as_array()
        .expect("disposals")
        .iter()
        .map(|disposal| (&disposal["outcome"], &disposal["objects"]))
        .collect();
    assert_eq!(kinds, [(&json!("not_approved"), &json!(0)), (&json!("gone"), &json!(2))]);
    assert_eq!(document["disposals"][1]["let_go_by"]["kind"], "person");
    let document = explain(&world, &swept.to_string()).await;
    assert_eq!(document["disposals"][0]["let_go_by"]["kind"], "policy");
    let text = world.program.run(&["explain", &approved.to_string()]).await.stdout;
    assert!(text.contains("2 objects, 20 B deleted; cannot be brought back"), "{text}");
    assert!(text.contains("let go by ada at ") && text.contains(": old data"), "{text}");
}
