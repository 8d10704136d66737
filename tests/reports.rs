//! Reports: every file, whatever became of the run, as the schemas say, and safe to open.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Program, Ran, World, prefix, read_csv, without};

/// The schema of a report, as the program prints it.
async fn schema(program: &Program, name: &str) -> jsonschema::Validator {
    let ran = program.run(&["schema", name]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    jsonschema::validator_for(&ran.json()).expect("a schema")
}

#[track_caller]
fn assert_valid(validator: &jsonschema::Validator, document: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
}

/// A port that nobody listens on.
fn nowhere() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").to_string()
}

/// A world with one of everything: live, missing, foreign, an orphan that may go and one that may not.
async fn world() -> (World, Uuid) {
    let world = World::new().await;
    world.live(0).await;
    let id = world.orphan(1).await;
    world.put_group(&format!("synthetic/{}/", Uuid::new_v4().simple()), &["a"]).await;
    world.bucket.put("synthetic/notes.txt", b"mine").await;
    world.database.insert(Uuid::new_v4()).await;
    world.settle().await;
    (world, id)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

const ORPHANS: &str = "id,pattern,prefix,objects,bytes,oldest,newest,first_seen,sightings,verdict,reason";
const DELETIONS: &str = "key,group,bytes,outcome,reason,batch";

/// The newest report has exactly these files beside the five of every run, whole, with their headers; `latest` points at
/// it; its summary is what stdout said and fits the schema.
async fn assert_report(program: &Program, ran: &Ran, outcome: &str, more: &[&str]) -> Value {
    let folders = program.run_folders();
    let newest = folders.last().expect("a report");
    let link = std::fs::read_link(program.reports().join("latest")).expect("a link");
    assert!(
        link.is_relative() && link.components().count() == 1,
        "it can be moved with its folder: {}",
        link.display()
    );
    assert_eq!(&program.reports().join(&link), newest);
    let names = std::fs::read_dir(newest)
        .expect("read")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let names: BTreeSet<String> = names.collect();
    let expected = ["summary.json", "orphans.csv", "missing.csv", "foreign.csv", "report.html"].iter().chain(more);
    assert_eq!(names, expected.map(ToString::to_string).collect(), "{outcome}");
    for (name, header) in
        [("orphans.csv", ORPHANS), ("missing.csv", "id,table,created_at"), ("foreign.csv", "prefix_or_key,kind,reason")]
    {
        assert_eq!(program.read(name).lines().next(), Some(header));
    }
    if more.contains(&"deletions.csv") {
        assert_eq!(program.read("deletions.csv").lines().next(), Some(DELETIONS));
    }
    let summary = parse(&program.read("summary.json"));
    assert_eq!(summary["outcome"], outcome, "{summary:#}");
    assert_eq!(ran.json(), json!([summary]), "stdout is an array with the same summary");
    assert_eq!(summary["run_id"], link.to_str().expect("a name"));
    assert_valid(&schema(program, "summary").await, &summary);
    if more.contains(&"plan.json") {
        let plan = parse(&program.read("plan.json"));
        assert_valid(&schema(program, "plan").await, &plan);
        assert_eq!(plan["sha256"], summary["plan_hash"]);
    }
    assert_self_contained(&program.read("report.html"));
    assert_adds_up(&summary);
    summary
}

/// What the interface promises of the numbers.
fn assert_adds_up(summary: &Value) {
    let groups = |name: &str| summary["groups"][name].as_u64().expect("a count");
    if summary["coverage"]["complete"] == true && summary["command"] == "audit" {
        assert_eq!(groups("listed"), groups("live") + groups("orphan") + groups("empty"), "{summary:#}");
    }
    if let Some(deletion) = summary["deletion"].as_object() {
        let sum: u64 = ["deleted", "already_gone", "skipped", "failed", "unconfirmed"]
            .iter()
            .map(|name| deletion[*name].as_u64().expect("a count"))
            .sum();
        assert_eq!(deletion["requested"], sum);
    }
    for name in ["started_at", "finished_at"] {
        assert!(summary[name].as_str().is_some_and(|time| time.ends_with('Z')), "{name} is in UTC");
    }
}

/// Nothing in a page is fetched from anywhere.
fn assert_self_contained(page: &str) {
    let fetching = [
        r"<\s*(link|iframe|object|embed|base|img|video|audio|source)\b",
        r"\bsrc\s*=",
        r"@import",
        r#"url\(\s*['"]?[^d#'"\s]"#,
    ];
    for pattern in fetching {
        assert!(!Regex::new(&format!("(?i){pattern}")).expect("valid").is_match(page), "{pattern}");
    }
    let policy = Regex::new(r#"http-equiv="Content-Security-Policy" content="([^"]*)""#)
        .expect("valid")
        .captures(page)
        .expect("a policy");
    assert!(
        policy[1].contains("default-src &#39;none&#39;") || policy[1].contains("default-src 'none'"),
        "{}",
        &policy[1]
    );
    for found in Regex::new(r#"(?i)\b(?:href|xlink:href|action|srcset|poster|data)\s*=\s*["']?([^"'\s>]+)"#)
        .expect("valid")
        .captures_iter(page)
    {
        let address = &found[1];
        let is_beside = !address.contains(':') && !address.starts_with("//") && !address.starts_with('/');
        assert!(is_beside, "{address} is not beside the page");
    }
    assert!(!page.contains("fetch(") && !page.contains("XMLHttpRequest") && !page.contains("WebSocket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_apply_and_sweep_leave_whole_reports_that_fit_their_schemas() {
    let (mut world, id) = world().await;
    let before = world.contents().await;
    let ran = world.program.run(&["audit", "--json"]).await;
    assert_eq!(ran.code, 0);
    let audited = assert_report(&world.program, &ran, "complete", &["plan.json"]).await;
    assert_eq!(
        (&audited["missing"], &audited["groups"]["foreign"], &audited["trend"]),
        (&1.into(), &1.into(), &Value::Null)
    );
    let plan = world.plan_of_newest_audit();
    let ran = world.program.run(&["apply", &plan, "--dry-run", "--json"]).await;
    assert_eq!(assert_report(&world.program, &ran, "complete", &[]).await["plan_hash"], audited["plan_hash"]);
    let ran = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(ran.code, 0);
    let applied = assert_report(&world.program, &ran, "complete", &["deletions.csv"]).await;
    assert_eq!((&applied["deletion"]["deleted"], &applied["plan_hash"]), (&2.into(), &audited["plan_hash"]));
    assert_eq!(world.contents().await, without(&before, &[prefix(1, id)]));
    let ran = world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(ran.code, 4);
    assert_report(&world.program, &ran, "refused", &[]).await;
    world.orphan(0).await;
    world.settle().await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    let ran = world.program.run(&["sweep", "--json"]).await;
    assert_eq!(ran.code, 0);
    let swept = assert_report(&world.program, &ran, "complete", &["plan.json", "deletions.csv"]).await;
    assert_eq!((&swept["trend"]["new"], &swept["deletion"]["deleted"]), (&1.into(), &2.into()), "{swept:#}");
    let ran = world.program.run(&["sweep", "--json"]).await;
    assert_report(&world.program, &ran, "complete", &["plan.json"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_run_leaves_a_whole_report() {
    let (world, _) = world().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    world.database.execute("TRUNCATE heimdall.synthetic_datasets").await;
    let ran = world.program.run(&["audit", "--json"]).await;
    assert_eq!(ran.code, 4);
    assert_report(&world.program, &ran, "refused", &[]).await;
    let ran = world.apply_of(1).await;
    assert_eq!(ran.code, 4);
    assert_report(&world.program, &ran, "refused", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_or_a_store_that_is_down_or_says_no_leaves_a_whole_report() {
    let (mut world, _) = world().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    let plan = world.plan_of_newest_audit();
    let before = world.contents().await;
    let name = &world.database.name;
    let secret = world.bucket.secret_key.clone();
    let reader = world.database.reader_url();
    for (variable, wrong, right, outcome) in [
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://sweeper:x@{}/{name}", nowhere()), reader.clone(), "failed"),
        ("ORPHAN_SWEEPER_DATABASE_URL", reader.replace("change-me", "wrong"), reader.clone(), "failed"),
        ("ORPHAN_SWEEPER_DATABASE_URL", reader.replace(name.as_str(), "nowhere"), reader, "failed"),
        (
            "ORPHAN_SWEEPER__STORE__ENDPOINT",
            format!("http://{}", nowhere()),
            world.bucket.endpoint.clone(),
            "incomplete",
        ),
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-key".to_owned(), secret, "incomplete"),
    ] {
        world.program.set(variable, &wrong);
        for arguments in [vec!["audit", "--json"], vec!["apply", &plan, "--yes", "--json"]] {
            let ran = world.program.run(&arguments).await;
            assert_eq!(ran.code, 1, "{variable}: {ran:?}");
            let summary = assert_report(&world.program, &ran, outcome, &[]).await;
            assert!(
                summary["reason"].as_str().is_some_and(|reason| reason.len() > 20)
                    && summary["coverage"]["complete"] == false
            );
            assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
        }
        world.program.set(variable, &right);
    }
    assert_eq!(world.contents().await, before);
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 0, "none of them used the plan up");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_that_fail_leave_a_whole_report() {
    let (mut world, _) = world().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    world.program.set("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", "nobody");
    world.program.set("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", "nothing-at-all");
    let before = world.contents().await;
    let ran = world.apply().await;
    assert_eq!(ran.code, 5, "{ran:?}");
    let summary = assert_report(&world.program, &ran, "complete", &["deletions.csv"]).await;
    assert_eq!(summary["deletion"]["failed"], 2);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_leaves_a_whole_report() {
    let (world, _) = world().await;
    // A lock that the read waits for, two seconds at most: time for a signal.
    let mut lock = world.database.pool.begin().await.expect("begun");
    sqlx::query("LOCK TABLE heimdall.synthetic_datasets IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let child = world.program.start(&["audit", "--json"]);
    let foreign = || world.program.run_folders().last().is_some_and(|folder| folder.join("foreign.csv").exists());
    for _ in 0..400 {
        if foreign() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(foreign(), "the run has listed");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    lock.rollback().await.expect("released");
    let ran = Ran::wait(child).await;
    assert_eq!(ran.code, 130, "{ran:?}");
    assert_report(&world.program, &ran, "interrupted", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_a_spreadsheet_would_run_is_quoted_wherever_it_stands() {
    for first in ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\u{ff1d}1", "'=1"] {
        let world = World::new().await;
        let scope = format!("{first}/");
        world.program.edit_config(|text| {
            let quoted = |text: &str| text.replace("synthetic/{id}/", "$0").replace("synthetic/dataset-{id}/", "$1");
            let text = quoted(&text)
                .replace("$0", &format!("{scope}{{id}}/"))
                .replace("$1", &format!("{scope}dataset-{{id}}/"));
            text.replace("prefix   = \"synthetic/\"", &format!("prefix   = \"{scope}\""))
        });
        let (live, id) = (Uuid::new_v4(), Uuid::new_v4());
        world.database.insert(live).await;
        for key in [
            format!("{scope}{live}/x"),
            format!("{scope}{id}/=cmd|' /C calc'!A0"),
            format!("{scope}dataset-{id}/,\"\n=1"),
            format!("{scope}=1"),
        ] {
            world.bucket.put(&key, b"x").await;
        }
        world.audit().await;
        let starts_safe = |field: &str| !field.starts_with(['=', '+', '-', '@', '\t', '\r', '\u{ff1d}']);
        let shown = if starts_safe(first) && !first.starts_with('\'') { scope.clone() } else { format!("'{scope}") };
        let orphans = world.program.csv("orphans.csv");
        assert_eq!(orphans.len(), 2);
        assert!(
            orphans.iter().all(|row| row["prefix"].starts_with(&shown) && row["pattern"].starts_with(&shown)),
            "{orphans:?}"
        );
        assert_eq!(world.program.csv("foreign.csv")[0]["prefix_or_key"], format!("{shown}=1"));
        assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
        for folder in world.program.run_folders() {
            for name in ["orphans.csv", "foreign.csv", "missing.csv", "deletions.csv"] {
                let Ok(text) = std::fs::read_to_string(folder.join(name)) else { continue };
                let unsafe_field =
                    read_csv(&text).into_iter().flat_map(BTreeMapExt::into_fields).find(|field| !starts_safe(field));
                assert_eq!(unsafe_field, None, "{name}");
            }
        }
        let mut told: Vec<String> =
            world.program.csv("deletions.csv").into_iter().map(|row| row["key"].clone()).collect();
        told.sort();
        let mut expected =
            vec![format!("{shown}{id}/=cmd|' /C calc'!A0"), format!("{shown}dataset-{id}/,\"\\u{{a}}=1")];
        expected.sort();
        assert_eq!(told, expected);
        assert_eq!(world.contents().await.len(), 2, "the live one and the foreign one are left");
    }
}

trait BTreeMapExt {
    fn into_fields(self) -> Vec<String>;
}

impl BTreeMapExt for std::collections::BTreeMap<String, String> {
    fn into_fields(self) -> Vec<String> {
        self.into_values().collect()
    }
}

/// The run printed exactly one JSON document.
#[track_caller]
fn one_document(ran: &Ran) -> Value {
    let mut documents = serde_json::Deserializer::from_str(&ran.stdout).into_iter::<Value>();
    let first = documents
        .next()
        .unwrap_or_else(|| panic!("nothing on stdout: {ran:?}"))
        .unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    assert!(documents.next().is_none(), "more than one document: {ran:?}");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_every_command_prints_exactly_one_document() {
    let (mut world, id) = world().await;
    let summary = world.audit().await;
    let run = summary["run_id"].as_str().expect("an id").to_owned();
    let plan = world.plan_of_newest_audit();
    let backup = world.program.path("backup.sqlite3").display().to_string();
    let id = id.to_string();
    let commands: Vec<(Vec<&str>, i32)> = vec![
        (vec!["audit"], 0),
        (vec!["audit", "-vv"], 0),
        (vec!["audit", "-q"], 0),
        (vec!["audit", "--fail-on-orphans"], 3),
        (vec!["audit", "--log-format", "json", "--scope", "synthetic"], 0),
        (vec!["sweep"], 0),
        (vec!["sweep", "--dry-run"], 0),
        (vec!["plan", "show", &plan], 0),
        (vec!["plan", "reject", &plan, "--id", &id, "--by", "ada", "--reason", "x"], 0),
        (vec!["plan", "approve", &plan, "--id", &id, "--by", "ada", "--reason", "x"], 0),
        (vec!["hold", "add", &id, "--by", "ada", "--reason", "x"], 0),
        (vec!["hold", "list"], 0),
        (vec!["hold", "remove", &id], 0),
        (vec!["apply", &plan, "--dry-run"], 0),
        (vec!["apply", &plan, "--yes"], 0),
        (vec!["apply", &plan, "--yes"], 4),
        (vec!["history"], 0),
        (vec!["history", &run], 0),
        (vec!["history", "--healthy"], 0),
        (vec!["history", "--healthy=26h"], 0),
        (vec!["history", "--healthy=0s"], 1),
        (vec!["explain", &id], 0),
        (vec!["schema", "summary"], 0),
        (vec!["schema", "plan"], 0),
        (vec!["ledger", "backup", &backup], 0),
        (vec!["doctor"], 0),
    ];
    for (mut arguments, code) in commands {
        arguments.push("--json");
        let ran = world.program.run(&arguments).await;
        let document = one_document(&ran);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(document.get("error").is_none(), "{arguments:?}: {document:#}");
        let is_run = ["audit", "apply", "sweep"].contains(&arguments[0]);
        let is_by_scope = arguments[0] == "explain" || arguments[..2] == ["hold", "list"];
        assert_eq!(document.is_array(), is_run || is_by_scope, "{arguments:?}");
    }
    world.database.execute("TRUNCATE heimdall.synthetic_datasets").await;
    let ran = world.program.run(&["audit", "--json"]).await;
    assert_eq!((ran.code, one_document(&ran).is_array()), (4, true));
    let ran = world.program.run(&["ack", "no_references", "--by", "ada", "--reason", "so be it", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    one_document(&ran);

    let errors: Vec<Vec<&str>> = vec![
        vec!["apply", &plan],
        vec!["apply", "nowhere.json", "--yes"],
        vec!["apply", &plan, "--yes", "--allow", "objects"],
        vec!["audit", "--scope", "nobody"],
        vec!["audit", "--config", "nowhere.toml"],
        vec!["audit", "--no-such-flag"],
        vec!["no-such-command"],
        vec!["apply"],
        vec!["history", "no-such-run"],
        vec!["history", "--healthy=soon"],
        vec!["explain", "no-uuid"],
        vec!["plan", "show", "nowhere.json"],
        vec!["plan", "approve", &plan, "--by", "ada", "--reason", "applied already"],
        vec!["plan", "reject", &plan, "--by", "ada"],
        vec!["hold", "add", "no-uuid", "--by", "ada", "--reason", "x"],
        vec!["hold", "remove", &id],
        vec!["ack", "no_references", "--by", "ada", "--reason", "again"],
        vec!["ack", "no_such_breaker", "--by", "ada", "--reason", "x"],
        vec!["schema", "nothing"],
        vec!["ledger", "backup", &backup],
    ];
    for mut arguments in errors {
        arguments.push("--json");
        let ran = world.program.run(&arguments).await;
        assert_is_error(&ran);
        assert!(matches!(ran.code, 2 | 4), "{arguments:?}: {ran:?}");
    }
    world.program.set_scope("POLICY__GRACE", "-1s");
    assert_is_error(&world.program.run(&["--json", "audit"]).await);
    world.program.set_scope("POLICY__GRACE", "0s");
    world.program.unset("AWS_SECRET_ACCESS_KEY");
    let ran = world.program.run(&["audit", "--json"]).await;
    assert_is_error(&ran);
    assert_eq!(ran.code, 2);
}

/// `{"error": {"message", "hint"}}`, and the same for a person on stderr.
#[track_caller]
fn assert_is_error(ran: &Ran) {
    assert_ne!(ran.code, 0, "{ran:?}");
    let document = one_document(ran);
    let names: Vec<&String> = document.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["error"], "{document:#}");
    let error = &document["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{document:#}");
    assert!(error["hint"].is_string() || error["hint"].is_null(), "{document:#}");
    assert!(ran.stderr.contains("error:"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_told_so_while_the_first_holds_the_lock() {
    let (world, _) = world().await;
    let mut lock = world.database.pool.begin().await.expect("begun");
    sqlx::query("LOCK TABLE heimdall.synthetic_datasets IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let first = world.program.start(&["audit", "--json"]);
    for _ in 0..400 {
        if !world.program.run_folders().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let second = world.program.run(&["audit", "--json"]).await;
    assert_eq!(second.code, 6, "{second:?}");
    assert_is_error(&second);
    lock.rollback().await.expect("released");
    assert_eq!(Ran::wait(first).await.code, 0);
    assert_eq!(world.program.run_folders().len(), 1, "the second began no run");
    assert!(Path::new(&world.program.latest("summary.json")).exists());
}
