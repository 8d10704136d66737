//! What goes is what an issued plan says: any other is refused with exit 4 and a reason, and deletes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Duration, Utc};
use orphan_sweeper::embedded::Operation;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::nights::Nights;
use crate::support::{Bucket, Database, Program, Ran, World, prefix, without};

/// A world with two live datasets and an orphan, planned.
struct Planned {
    world: World,
    live: Uuid,
    orphan: Uuid,
    before: BTreeMap<String, String>,
    plan: String,
}

impl Planned {
    async fn new() -> Self {
        let world = World::new().await;
        world.live(1).await;
        let (live, orphan) = (world.live(0).await, world.orphan(0).await);
        let before = world.contents().await;
        assert_eq!(world.audit().await["groups"]["eligible"], 1);
        let plan = world.plan_of_newest_audit();
        Self { world, live, orphan, before, plan }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.plan).expect("a plan")
    }

    fn hash(&self) -> String {
        let plan: Value = serde_json::from_str(&self.text()).expect("JSON");
        plan["sha256"].as_str().expect("a hash").to_owned()
    }

    /// Applies what is named; it must be refused with this reason, and nothing may be gone.
    async fn assert_refused(&self, named: &str, says: &str) {
        let ran = self.world.program.run(&["apply", named, "--yes", "--json"]).await;
        assert_refused(&ran, says);
        assert_eq!(self.world.contents().await, self.before);
    }

    /// Applies what is named; exactly the orphan goes.
    async fn assert_applies(&self, named: &str) {
        let ran = self.world.program.run(&["apply", named, "--yes", "--json"]).await;
        assert_eq!(ran.summary(0)["deletion"]["deleted"], 2, "{ran:?}");
        assert_eq!(self.world.contents().await, without(&self.before, &[prefix(0, self.orphan)]));
    }

    /// Writes another plan beside this one.
    fn write(&self, text: &str) -> String {
        let path = self.world.program.path("edited.json");
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

/// The run says why it was refused, in its report where it began one, else as an error; both on stderr too.
#[track_caller]
fn assert_refused(ran: &Ran, says: &str) {
    assert_eq!(ran.code, 4, "{ran:?}");
    let document = ran.json();
    let reason = if let Some(error) = document.get("error") {
        error["message"].clone()
    } else {
        assert_eq!(
            (&document[0]["outcome"], &document[0]["deletion"]),
            (&"refused".into(), &Value::Null),
            "{document:#}"
        );
        document[0]["reason"].clone()
    };
    assert!(reason.as_str().is_some_and(|reason| reason.contains(says)), "`{says}` is not in {reason}");
    assert!(ran.stderr.contains(says) && ran.stderr.contains("hint:"), "{}", ran.stderr);
}

/// JSON without the white space between its tokens, in its own order.
fn compact(json: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let keep = |c: &char| {
        if is_text {
            is_text = *c != '"' || is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            return true;
        }
        is_text = *c == '"';
        !c.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

/// A plan file with the hash that its content has.
fn rehashed(file: &str) -> String {
    let file = compact(file);
    let plan = file.split_once("\"plan\":").expect("a plan").1.strip_suffix('}').expect("the end of the file");
    let hash = Sha256::digest(plan.as_bytes()).iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
    format!("{{\"sha256\":\"{hash}\",\"plan\":{plan}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_edited_is_refused_with_its_old_hash_and_with_a_new_one() {
    let planned = Planned::new().await;
    let text = planned.text();
    assert_eq!(rehashed(&text), compact(&text), "the test hashes as the program does");
    let (live, orphan) = (planned.live.to_string(), planned.orphan.to_string());
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    let field = |value: &Value| value.as_str().expect("a text").to_owned();
    let expires = field(&plan["plan"]["expires_at"]);
    let later = DateTime::parse_from_rfc3339(&expires).expect("a time").to_utc() + Duration::days(365);
    let digest = field(&plan["plan"]["groups"][0]["digest"]);
    let edits = [
        ("another id", text.replace(&orphan, &live)),
        ("another prefix", text.replace(&format!("synthetic/{orphan}/"), "synthetic/")),
        ("a later end", text.replace(&expires, &later.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))),
        ("another digest", text.replace(&digest, &"0".repeat(64))),
        ("fewer objects", text.replace("\"objects\": 2", "\"objects\": 1")),
        ("a younger sighting", text.replace("\"sightings\": 1", "\"sightings\": 9")),
        ("another grace", text.replace("\"grace_s\": 0", "\"grace_s\": 604800")),
    ];
    for (what, edited) in edits {
        assert_ne!(edited, text, "{what}");
        planned.assert_refused(&planned.write(&edited), "its hash does not match its content").await;
        planned.assert_refused(&planned.write(&rehashed(&edited)), "this ledger did not issue the plan").await;
        // In the place of the plan itself, named by its path, its folder and its hash.
        let folder = PathBuf::from(&planned.plan).parent().expect("a folder").display().to_string();
        for file in [edited.clone(), rehashed(&edited)] {
            std::fs::write(&planned.plan, &file).expect("written");
            for named in [&planned.plan, &folder, &plan["sha256"].as_str().expect("a hash").to_owned()] {
                let ran = planned.world.program.run(&["apply", named, "--yes", "--json"]).await;
                assert_eq!(ran.code, 4, "{what}: {ran:?}");
            }
        }
        std::fs::write(&planned.plan, &text).expect("written");
    }
    for (broken, says) in [
        (text.replace("\"plan_version\": 1", "\"plan_version\": 2"), "version 2"),
        (text.replace("\"plan_version\": 1", "\"plan_version\": 1, \"more\": 1"), "cannot be read as a plan"),
        (text[..text.len() / 2].to_owned(), "cannot be read as a plan"),
        (String::new(), "cannot be read as a plan"),
        ("{}".to_owned(), "cannot be read as a plan"),
        (planned.world.program.read("summary.json"), "cannot be read as a plan"),
    ] {
        planned.assert_refused(&planned.write(&broken), says).await;
    }
    assert_eq!(planned.world.contents().await, planned.before);
    // White space is not content: the same plan, by the same hash.
    planned.assert_applies(&planned.write(&compact(&text))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_named_by_path_by_folder_by_hash_or_by_the_start_of_its_hash() {
    let planned = Planned::new().await;
    let hash = planned.hash();
    let folder = PathBuf::from(&planned.plan).parent().expect("a folder").display().to_string();
    let names = [
        planned.plan.as_str(),
        &folder,
        "reports/synthetic/latest",
        "./reports/synthetic/latest/plan.json",
        &hash,
        &hash[..8],
        &hash[..20],
        &hash.to_uppercase(),
    ];
    // `latest` is the report of the newest run: an apply that ran makes it another one, which has no plan.
    let (latest, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| name.contains("latest"));
    for name in latest {
        assert!(planned.world.program.path(name).exists(), "{name}");
        let ran = planned.world.program.run(&["apply", name, "--json"]).await;
        assert_eq!(ran.code, 2, "found, and nobody can be asked: {ran:?}");
    }
    for name in &others {
        let summary = planned.world.program.run(&["apply", name, "--dry-run", "--json"]).await.summary(0);
        assert_eq!(
            (&summary["plan_hash"], &summary["groups"]["eligible"]),
            (&hash.as_str().into(), &1.into()),
            "{name}"
        );
    }
    let mut other = hash.clone();
    other.replace_range(..1, if hash.starts_with('0') { "1" } else { "0" });
    for unknown in [other.as_str(), &other[..12], &"0".repeat(64)] {
        planned.assert_refused(unknown, "this ledger issued no plan").await;
    }
    for nothing in [&hash[..7], "reports", "nowhere/plan.json", "", "/"] {
        planned.assert_refused(nothing, "cannot be read").await;
    }
    planned.assert_applies(&hash[..8]).await;
    let closed = planned.world.program.run(&["apply", &hash, "--yes", "--json"]).await;
    assert_refused(&closed, "was applied already");
    let closed = planned.world.program.run(&["apply", &planned.plan, "--dry-run", "--json"]).await;
    assert_refused(&closed, "was applied already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_finds_its_plan_from_any_folder_and_the_plan_says_where_its_ledger_lies() {
    let planned = Planned::new().await;
    let (program, hash) = (&planned.world.program, planned.hash());
    let config = program.path("config.toml").display().to_string();
    let plan: Value = serde_json::from_str(&planned.text()).expect("JSON");
    let ledger = std::fs::canonicalize(program.path("reports/ledger.sqlite3")).expect("a ledger");
    assert_eq!(plan["plan"]["ledger"]["path"], ledger.display().to_string());
    // As cron does, which starts elsewhere than the person who audited.
    let mut command = program.command(&["apply", &hash, "--yes", "--json", "--config", &config]);
    let ran = Ran::wait(command.current_dir("/").spawn().expect("started")).await;
    assert_eq!(ran.summary(0)["deletion"]["deleted"], 2, "{ran:?}");
    assert_eq!(planned.world.contents().await, without(&planned.before, &[prefix(0, planned.orphan)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_means_that_plan_and_no_other_that_lies_in_its_place() {
    let planned = Planned::new().await;
    let second = planned.world.orphan(1).await;
    let before = planned.world.contents().await;
    planned.world.audit().await;
    std::fs::copy(planned.world.plan_of_newest_audit(), &planned.plan).expect("copied");
    // Whoever approved the first plan by its hash did not approve the second.
    let first = planned.hash_of_first_plan();
    let ran = planned.world.program.run(&["apply", &first, "--yes", "--json"]).await;
    assert_refused(&ran, "another plan");
    assert_eq!(planned.world.contents().await, before);
    assert!(before.keys().any(|key| key.starts_with(&prefix(1, second))));
}

impl Planned {
    fn hash_of_first_plan(&self) -> String {
        let folder = &self.world.program.run_folders()[0];
        let summary: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("summary.json")).expect("read")).expect("JSON");
        summary["plan_hash"].as_str().expect("a hash").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_past_its_time_is_refused() {
    let mut world = World::new().await;
    world.live(0).await;
    world.orphan(0).await;
    let lifetime = |program: &Program| {
        let plan: Value = serde_json::from_str(&program.read("plan.json")).expect("JSON");
        let at = |name: &str| plan["plan"][name].as_str().expect("a time").parse::<DateTime<Utc>>().expect("a time");
        at("expires_at") - at("created_at")
    };
    let before = world.contents().await;
    world.audit().await;
    assert_eq!(lifetime(&world.program), Duration::hours(72));
    world.program.set_scope("POLICY__PLAN_EXPIRES", "0s");
    world.audit().await;
    assert_eq!(lifetime(&world.program), Duration::hours(48), "two intervals of a nightly schedule are longer");
    world.program.remove_schedule();
    world.audit().await;
    assert_eq!(lifetime(&world.program), Duration::zero());
    let expired = world.plan_of_newest_audit();
    for arguments in [vec!["apply", &expired, "--yes", "--json"], vec!["apply", &expired, "--dry-run", "--json"]] {
        assert_refused(&world.program.run(&arguments).await, "the plan expired at");
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_begun_in_time_may_be_finished_and_one_that_was_not_may_not() {
    let nights = Nights::begin().await;
    let id = Uuid::new_v4();
    for n in 0..1500 {
        nights.put_at(&format!("{}{n:05}", prefix(0, id)), Duration::days(-30));
    }
    for _ in 0..9 {
        nights.night(24).await;
    }
    assert_eq!(nights.reason(id).as_deref(), Some("eligible"));
    let plan = nights.program.latest("plan.json");
    let apply = ["apply", plan.as_str(), "--yes"];
    nights.clock.advance(Duration::hours(72));
    assert_eq!(nights.run(&apply).await, ExitCode::from(4));
    assert!(
        nights.summary()["reason"].as_str().is_some_and(|reason| reason.contains("the plan expired at")),
        "{:#}",
        nights.summary()
    );
    nights.clock.advance(-Duration::seconds(1));
    let stop_file = nights.program.path("reports/STOP");
    let written = stop_file.clone();
    nights.store.on_request(move |request, _| {
        if request.operation == Operation::DeleteObjects {
            std::fs::write(&written, "").expect("written");
        }
    });
    assert_eq!(nights.run(&apply).await, ExitCode::from(4));
    assert_eq!(nights.summary()["deletion"]["deleted"], 1000, "{:#}", nights.summary());
    nights.store.clear_hooks();
    std::fs::remove_file(stop_file).expect("removed");
    nights.clock.advance(Duration::hours(300));
    assert_eq!(nights.run(&apply).await, ExitCode::SUCCESS, "{:#}", nights.summary());
    assert_eq!(nights.summary()["deletion"]["deleted"], 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_another_target_or_by_another_policy_is_refused_and_not_used_up() {
    let mut planned = Planned::new().await;
    let world = &planned.world;
    let (other_bucket, other_database) = tokio::join!(Bucket::create(), Database::create());
    other_database.insert(planned.live).await;
    for key in planned.before.keys() {
        other_bucket.put(key, b"0123456789").await;
    }
    let other_before = other_bucket.contents().await;
    let localhost = world.bucket.endpoint.replace("127.0.0.1", "localhost");
    assert_ne!(localhost, world.bucket.endpoint);
    let plan = planned.plan.clone();
    let scope = |name: &str| format!("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__{name}");
    let for_another = "made for another endpoint, bucket, prefix or patterns";
    for (variable, value, says) in [
        (scope("BUCKET"), other_bucket.name.clone(), for_another),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT".to_owned(), localhost, for_another),
        (scope("PATTERNS"), "[\"synthetic/{id}/\"]".to_owned(), for_another),
        (scope("PATTERNS"), "[\"synthetic/dataset-{id}/\", \"synthetic/{id}/\"]".to_owned(), for_another),
        (scope("POLICY__GRACE"), "1s".to_owned(), "by another policy"),
        (scope("POLICY__MIN_SIGHTINGS"), "2".to_owned(), "by another policy"),
        (scope("POLICY__MIN_SIGHTING_SPAN"), "1s".to_owned(), "by another policy"),
        ("ORPHAN_SWEEPER_DATABASE_URL".to_owned(), other_database.reader_url(), "the plan was made with database"),
    ] {
        let before = planned.world.program.variables.clone();
        planned.world.program.set(&variable, &value);
        planned.assert_refused(&plan, says).await;
        planned.world.program.variables = before;
    }
    assert_eq!(other_bucket.contents().await, other_before);
    let ran = planned.world.program.run(&["apply", &plan, "--yes", "--json", "--scope", "others"]).await;
    assert_refused(&ran, "the plan is for the scope `synthetic`");
    planned.assert_applies(&plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_another_ledger_is_refused_and_says_where_it_was_made() {
    let planned = Planned::new().await;
    let elsewhere = Program::new(&planned.world.bucket, &planned.world.database.reader_url());
    let copy = elsewhere.path("plan.json").display().to_string();
    std::fs::copy(&planned.plan, &copy).expect("copied");
    let text: Value = serde_json::from_str(&planned.text()).expect("JSON");
    let (id, path) = (text["plan"]["ledger"]["id"].as_str().expect("an id"), "reports/ledger.sqlite3");
    // No ledger there: none is made.
    for arguments in [vec!["apply", &copy, "--yes", "--json"], vec!["apply", &copy, "--dry-run", "--json"]] {
        let ran = elsewhere.run(&arguments).await;
        assert_refused(&ran, "there is no ledger at");
        let message = ran.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(id) && message.contains(path), "{message}");
        assert!(!elsewhere.path("reports").exists(), "an apply makes nothing");
    }
    // A ledger of its own, which knows the same orphan.
    assert_eq!(elsewhere.run(&["audit", "--json"]).await.summary(0)["groups"]["eligible"], 1);
    let ran = elsewhere.run(&["apply", &copy, "--yes", "--json"]).await;
    assert_refused(&ran, "the plan was made with another ledger");
    assert!(
        ran.summary(4)["reason"].as_str().is_some_and(|reason| reason.contains(id) && reason.contains(path)),
        "{ran:?}"
    );
    // Re-hashed for that ledger, it is one that it did not issue.
    let theirs: Value = serde_json::from_str(&elsewhere.read("summary.json")).expect("JSON");
    let moved = planned.text().replace(id, theirs["ledger"]["id"].as_str().expect("an id"));
    std::fs::write(&copy, rehashed(&moved)).expect("written");
    assert_refused(&elsewhere.run(&["apply", &copy, "--yes", "--json"]).await, "this ledger did not issue the plan");
    assert_eq!(planned.world.contents().await, planned.before);
    planned.assert_applies(&planned.plan).await;
}

/// Removes the ledger, with what SQLite keeps beside it.
fn remove_ledger(program: &Program) {
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"] {
        std::fs::remove_file(program.path(&format!("reports/{name}"))).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_is_not_made_by_apply_and_makes_nothing_eligible_sooner() {
    let mut planned = Planned::new().await;
    remove_ledger(&planned.world.program);
    planned.assert_refused(&planned.plan, "there is no ledger at").await;
    assert!(!planned.world.program.path("reports/ledger.sqlite3").exists());
    planned.assert_refused(&planned.hash(), "there is no ledger at").await;
    // An audit makes another, which does not know the plan.
    planned.world.program.set_scope("POLICY__MIN_SIGHTINGS", "2");
    let summary = planned.world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["ledger"]["runs"]), (&0.into(), &1.into()), "{summary:#}");
    planned.assert_refused(&planned.plan, "the plan was made with another ledger").await;
    assert_eq!(planned.world.program.csv("orphans.csv").len(), 0, "the report of the refused run");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledger_in_its_place_starts_all_sightings_again() {
    let mut world = World::new().await;
    world.program.set_scope("POLICY__MIN_SIGHTINGS", "3");
    world.live(0).await;
    let id = world.orphan(0).await;
    let before = world.contents().await;
    for _ in 0..3 {
        world.audit().await;
    }
    let older_plan = world.plan_of_newest_audit();
    let backup = world.program.path("backup.sqlite3").display().to_string();
    let ran = world.program.run(&["ledger", "backup", &backup, "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        world.program.run(&["ledger", "backup", &backup, "--json"]).await.code,
        2,
        "a backup overwrites nothing"
    );
    assert_eq!(world.audit().await["groups"]["eligible"], 1);
    let newer_plan = world.plan_of_newest_audit();
    remove_ledger(&world.program);
    std::fs::copy(&backup, world.program.path("reports/ledger.sqlite3")).expect("restored");

    let ran = world.program.run(&["apply", &newer_plan, "--yes", "--json"]).await;
    assert_refused(&ran, "this ledger did not issue the plan");
    // The plan that it did issue rests on sightings that no longer count.
    let summary = world.program.run(&["apply", &older_plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(
        (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&0.into(), &2.into()),
        "{summary:#}"
    );
    assert!(world.program.csv("deletions.csv").iter().all(|row| row["reason"] == "changed_since_plan"));
    assert_eq!(world.contents().await, before);
    for sightings in ["1", "2"] {
        assert_eq!(world.audit().await["groups"]["eligible"], 0);
        let orphans = world.program.csv("orphans.csv");
        assert_eq!((orphans[0]["sightings"].as_str(), orphans[0]["reason"].as_str()), (sightings, "too_few_sightings"));
    }
    assert_eq!(world.audit().await["groups"]["eligible"], 1);
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_backup_in_its_place_loses_nothing_either() {
    let mut world = World::new().await;
    world.program.set_scope("POLICY__MIN_SIGHTINGS", "3");
    world.live(0).await;
    world.orphan(0).await;
    world.audit().await;
    world.audit().await;
    let backup = world.program.path("backup.sqlite3").display().to_string();
    assert_eq!(world.program.run(&["ledger", "backup", &backup]).await.code, 0);
    remove_ledger(&world.program);
    std::fs::copy(&backup, world.program.path("reports/ledger.sqlite3")).expect("restored");
    assert_eq!(world.audit().await["groups"]["eligible"], 1, "it knows the newest report: its sightings count");
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
}
