//! Other leaks than orphans, told apart: uploads never completed, old versions, ghosts, locks, and empty folders.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use aws_sdk_s3::types::{
    BucketVersioningStatus, MultipartUpload, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode,
};
use chrono::Duration;
use orphan_sweeper::embedded::{Action, Fault, Operation, VersioningState, When};
use orphan_sweeper::{Host, main_with};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::support::memory::{ACCESS_KEY, BUCKET, an_hour_ago};
use crate::support::nights::Nights;
use crate::support::{MemoryWorld, Ran, World, odd_spellings, prefix, without};

const DAY: i64 = 24;

/// Nights until an orphan of the first one is eligible.
async fn mature(nights: &Nights) -> Value {
    let mut summary = nights.night(0).await;
    for _ in 0..7 {
        summary = nights.night(DAY).await;
    }
    summary
}

fn reason(nights: &Nights, id: Uuid) -> String {
    nights.reason(id).expect("an orphan")
}

async fn apply(nights: &Nights) -> ExitCode {
    nights.run(&["apply", &nights.program.latest("plan.json"), "--yes"]).await
}

fn is_there(nights: &Nights, id: Uuid) -> bool {
    nights.store.keys(BUCKET).iter().any(|key| key.contains(&id.to_string()))
}

/// The verdict on each upload of the newest report, by key.
fn upload_verdicts(nights: &Nights) -> BTreeMap<String, String> {
    nights.program.csv("uploads.csv").into_iter().map(|row| (row["key"].clone(), row["verdict"].clone())).collect()
}

/// Outcome and reason of each key of the newest deletions.csv.
fn outcomes(rows: &[BTreeMap<String, String>]) -> BTreeMap<String, (String, String)> {
    rows.iter().map(|row| (row["key"].clone(), (row["outcome"].clone(), row["reason"].clone()))).collect()
}

fn said(outcome: &str, reason: &str) -> (String, String) {
    (outcome.to_owned(), reason.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_any_prefix_of_an_orphan_keeps_it() {
    let nights = Nights::begin().await;
    let age = Duration::days(90);
    let [free, same, other, odd, own] = [(); 5].map(|()| nights.orphan(0, age));
    let live = nights.live().await;
    let begun = nights.now();
    let odd_key = format!("synthetic/dataset-{}/x", odd_spellings(odd)[0]);
    let keys = [
        format!("{}y", prefix(0, same)),
        format!("{}deep/er y", prefix(1, other)),
        odd_key,
        format!("{}z", prefix(0, live)),
        format!("{}z", prefix(1, Uuid::new_v4())),
        "synthetic/notes.txt".to_owned(),
    ];
    for key in &keys {
        nights.store.begin_upload(BUCKET, key, begun);
    }
    nights.store.begin_upload(BUCKET, &format!("elsewhere/{own}/y"), begun - Duration::days(30));
    nights.store.set_uploads_a_page(2);
    let summary = mature(&nights).await;
    for id in [same, other, odd] {
        assert_eq!(reason(&nights, id), "upload_in_progress");
    }
    for id in [free, own] {
        assert_eq!(reason(&nights, id), "eligible");
    }
    let expected = json!({
        "known": true, "in_progress": 6, "under_orphans": 4, "stale": 3, "aborted": 0, "oldest": begun, "held_by": null
    });
    assert_eq!(summary["uploads"], expected);
    assert_eq!(summary["coverage"]["unknown"], json!([]));
    let verdicts = ["stale", "stale", "blocks", "live", "stale", "foreign"];
    let expected = keys.iter().cloned().zip(verdicts.map(ToOwned::to_owned)).collect();
    assert_eq!(upload_verdicts(&nights), expected);
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    assert!([same, other, odd].iter().all(|id| is_there(&nights, *id)));
    assert!(![free, own].iter().any(|id| is_there(&nights, *id)));
    assert_eq!(nights.store.count(Operation::AbortMultipartUpload), 0);
    let page = nights.program.read("report.html");
    assert!(page.contains("of which 4 under orphans"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_begun_after_the_plan_keeps_its_group_and_the_others_go() {
    let nights = Nights::begin().await;
    let [early, free] = [(); 2].map(|()| nights.orphan(1, Duration::days(90)));
    mature(&nights).await;
    assert_eq!((reason(&nights, early), reason(&nights, free)), ("eligible".into(), "eligible".into()));
    nights.store.begin_upload(BUCKET, &format!("{}y", prefix(0, early)), nights.now());
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    assert_eq!((is_there(&nights, early), is_there(&nights, free)), (true, false));
    let told = outcomes(&nights.program.csv("deletions.csv"));
    assert_eq!(told[&format!("{}x", prefix(1, early))], said("skipped", "upload_in_progress"));
    assert_eq!(reason(&nights, early), "upload_in_progress");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_begun_while_a_run_deletes_keeps_what_was_not_asked_for_yet() {
    let nights = Nights::begin().await;
    for _ in 0..40 {
        nights.orphan(1, Duration::days(90));
    }
    nights.program.edit_config(|text| text.replace("max_orphan_share  = 0.10", "max_orphan_share  = 1.0"));
    mature(&nights).await;
    let orphans: Vec<Uuid> =
        nights.program.csv("orphans.csv").iter().map(|row| row["id"].parse().expect("an id")).collect();
    nights.store.clear_requests();
    let begun_for = orphans.clone();
    let now = nights.now();
    nights.store.on_request(move |request, store| {
        if request.operation == Operation::DeleteObjects && store.uploads(BUCKET).is_empty() {
            for id in &begun_for {
                store.begin_upload(BUCKET, &format!("{}y", prefix(0, *id)), now);
            }
        }
    });
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    nights.store.clear_hooks();
    let told = outcomes(&nights.program.csv("deletions.csv"));
    let kept = told.values().filter(|said_of| **said_of == said("skipped", "upload_in_progress")).count();
    let gone = orphans.iter().filter(|id| !is_there(&nights, **id)).count();
    // Those that were on their way already may go: at most the ids that are worked on at once.
    assert!((1..=12).contains(&gone) && kept + gone == 40, "{gone} gone, {kept} kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_list_uploads_stops_no_night_and_says_so() {
    let nights = Nights::begin().await;
    let orphan = nights.orphan(0, Duration::days(90));
    mature(&nights).await;
    let cut = Action::CutBody { keep_bytes: 120, framing: orphan_sweeper::embedded::Framing::CloseDelimited };
    for action in [
        Action::Status { code: 403, s3_code: "AccessDenied" },
        Action::Status { code: 501, s3_code: "NotImplemented" },
        cut,
    ] {
        nights.store.inject(Fault { operation: Operation::ListMultipartUploads, when: When::Always, action });
        let summary = nights.night(DAY).await;
        assert_eq!((&summary["outcome"], &summary["uploads"]["known"]), (&"complete".into(), &false.into()));
        let unknown = summary["coverage"]["unknown"][0].as_str().expect("a reason");
        assert!(unknown.starts_with("uploads in progress: ListMultipartUploads failed"), "{unknown}");
        assert_eq!(summary["coverage"]["errors"], json!([]));
        assert_eq!(reason(&nights, orphan), "eligible");
        nights.store.clear_faults();
    }
    nights.store.begin_upload(BUCKET, &format!("{}y", prefix(0, orphan)), nights.now());
    let summary = nights.night(DAY).await;
    assert_eq!((&summary["uploads"]["known"], reason(&nights, orphan).as_str()), (&true.into(), "upload_in_progress"));
}

/// An orphan with a stale upload, one with a young one, one with a stale one in an odd spelling, and stale ones elsewhere.
struct Stale {
    nights: Nights,
    old: String,
    kept: Vec<String>,
    orphan: Uuid,
}

impl Stale {
    async fn new() -> Self {
        let mut nights = Nights::begin().await;
        nights.program.set_scope("UPLOADS__ABORT_AFTER", "2d");
        let [orphan, young, odd] = [(); 3].map(|()| nights.orphan(0, Duration::days(90)));
        let live = nights.live().await;
        mature(&nights).await;
        let stale = format!("{}y", prefix(1, orphan));
        let old = [
            format!("synthetic/{}/y", odd_spellings(odd)[0]),
            format!("{}y", prefix(0, live)),
            "synthetic/notes.txt".to_owned(),
            format!("elsewhere/{orphan}/y"),
        ];
        let now = nights.now();
        nights.store.begin_upload(BUCKET, &stale, now - Duration::days(2));
        let young_key = format!("{}y", prefix(0, young));
        nights.store.begin_upload(BUCKET, &young_key, now - Duration::days(2) + Duration::seconds(1));
        for key in &old {
            nights.store.begin_upload(BUCKET, key, now - Duration::days(90));
        }
        let kept = [young_key].into_iter().chain(old).collect();
        Self { nights, old: stale, kept, orphan }
    }

    fn uploads(&self) -> Vec<String> {
        self.nights.store.uploads(BUCKET)
    }

    fn assert_nothing_aborted(&self, what: &str) {
        assert_eq!(self.nights.store.count(Operation::AbortMultipartUpload), 0, "{what}");
        assert!(self.uploads().contains(&self.old), "{what}");
    }
}

/// What the ledger has on record about uploads, in order.
async fn chained(nights: &Nights) -> Vec<(String, Value)> {
    let path = nights.program.path("reports/ledger.sqlite3");
    let ledger = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("the ledger");
    let select = "SELECT kind, payload FROM chain WHERE kind LIKE 'upload.%' ORDER BY number";
    let rows: Vec<(String, String)> = sqlx::query_as(select).fetch_all(&ledger).await.expect("readable");
    rows.into_iter().map(|(kind, payload)| (kind, serde_json::from_str(&payload).expect("JSON"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_uploads_under_orphans_are_aborted_where_the_scope_asks_for_it_and_no_others() {
    let mut stale = Stale::new().await;
    stale.nights.night(0).await;
    stale.assert_nothing_aborted("an audit");
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a sweep that only plans");
    stale.nights.program.set_scope("POLICY__APPROVAL", "automatic");
    assert_eq!(stale.nights.run(&["sweep", "--dry-run"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a dry run");
    std::fs::write(stale.nights.program.path("reports/STOP"), "").expect("written");
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::from(4));
    stale.assert_nothing_aborted("a stop file");
    std::fs::remove_file(stale.nights.program.path("reports/STOP")).expect("removed");
    stale.nights.program.unset("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__UPLOADS__ABORT_AFTER");
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("no word of the scope");

    stale.nights.program.set_scope("UPLOADS__ABORT_AFTER", "2d");
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert_eq!(stale.uploads(), stale.kept);
    let summary = stale.nights.summary();
    assert_eq!(
        (&summary["uploads"]["aborted"], &summary["uploads"]["stale"], &summary["uploads"]["under_orphans"]),
        (&1.into(), &1.into(), &3.into()),
        "{summary:#}"
    );
    let verdicts = upload_verdicts(&stale.nights);
    assert_eq!(verdicts[&stale.old], "aborted");
    assert_eq!(
        stale.kept[..4].iter().map(|key| verdicts[key].as_str()).collect::<Vec<_>>(),
        ["blocks", "blocks", "live", "foreign"]
    );
    let told = chained(&stale.nights).await;
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["upload.abort_intended", "upload.abort_settled"], "the intent, then the outcome");
    let of_it = |payload: &Value| payload["key"] == stale.old && payload["dataset_id"] == stale.orphan.to_string();
    assert!(told.iter().all(|(_, payload)| of_it(payload)), "{told:?}");
    assert_eq!(told[1].1["outcome"], "aborted");
    assert!(is_there(&stale.nights, stale.orphan), "it waits for the next plan");
    stale.nights.night(0).await;
    assert_eq!(reason(&stale.nights, stale.orphan), "eligible");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_applies_a_plan_of_nothing_aborts_what_is_stale() {
    let stale = Stale::new().await;
    stale.nights.night(0).await;
    assert_eq!(stale.nights.summary()["groups"]["eligible"], 0);
    let plan = stale.nights.program.latest("plan.json");
    assert_eq!(stale.nights.run(&["apply", &plan, "--dry-run"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a dry run");
    assert_eq!(stale.nights.run(&["apply", &plan, "--yes"]).await, ExitCode::SUCCESS);
    assert_eq!(stale.uploads(), stale.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_id_has_a_row_again_right_before_is_left_alone() {
    let mut stale = Stale::new().await;
    stale.nights.program.set_scope("POLICY__APPROVAL", "automatic");
    stale.nights.store.clear_requests();
    let (handle, catalogue, orphan) = (Handle::current(), stale.nights.catalogue.clone(), stale.orphan);
    stale.nights.store.on_request(move |request, store| {
        // The audit's listing, the apply's, and the one right before the abort.
        if request.operation == Operation::ListMultipartUploads && store.count(request.operation) == 3 {
            handle.block_on(async {
                let row =
                    format!("INSERT INTO synthetic_datasets VALUES ('{orphan}', 'iq_raw', '2026-03-08T03:00:00Z')");
                sqlx::raw_sql(sqlx::AssertSqlSafe(row)).execute(&catalogue).await.expect("inserted");
            });
        }
    });
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a row");
    assert_eq!(upload_verdicts(&stale.nights)[&stale.old], "live_again");
    stale.nights.store.clear_hooks();
    // A row that the scan sees protects as well.
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a row that the scan saw");
    assert_eq!(upload_verdicts(&stale.nights)[&stale.old], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_id_is_held_or_rejected_by_then_is_left_alone() {
    for words in [vec!["hold", "add"], vec!["plan", "reject"]] {
        let mut stale = Stale::new().await;
        let plan = stale.nights.program.latest("plan.json");
        let id = stale.orphan.to_string();
        let object = if words[0] == "hold" { vec![id.as_str()] } else { vec![plan.as_str(), "--id", &id] };
        let command: Vec<String> = ["orphan-sweeper", "--quiet"]
            .into_iter()
            .chain(words.clone())
            .chain(object)
            .chain(["--by", "somebody", "--reason", "it is needed"])
            .map(ToOwned::to_owned)
            .collect();
        stale.nights.program.set_scope("POLICY__APPROVAL", "automatic");
        stale.nights.store.clear_requests();
        let variables = stale.nights.program.variables.clone();
        let clock = stale.nights.clock.clone();
        stale.nights.store.on_request(move |request, store| {
            if request.operation == Operation::ListMultipartUploads && store.count(request.operation) == 3 {
                let host = Host { variables: variables.clone(), clock: Arc::new(clock.clone()) };
                assert_eq!(main_with(command.clone(), &host), ExitCode::SUCCESS, "{command:?}");
            }
        });
        assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
        stale.assert_nothing_aborted(words[0]);
        assert_eq!(upload_verdicts(&stale.nights)[&stale.old], "protected");
        assert!(chained(&stale.nights).await.is_empty(), "nothing was about to be asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_has_only_an_upload_is_live_by_its_row_all_the_same() {
    let mut nights = Nights::begin().await;
    nights.program.set_scope("UPLOADS__ABORT_AFTER", "2d");
    nights.program.set_scope("POLICY__APPROVAL", "automatic");
    let [live, orphan] = [Uuid::new_v4(), Uuid::new_v4()];
    nights.insert(live).await;
    // The first scan of all says what the next ones are measured by.
    nights.night(0).await;
    let keys = [live, orphan].map(|id| format!("{}x", prefix(0, id)));
    for key in &keys {
        nights.store.begin_upload(BUCKET, key, nights.now() - Duration::days(3));
    }
    assert_eq!(nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert_eq!(nights.store.uploads(BUCKET), [keys[0].clone()]);
    assert_eq!(upload_verdicts(&nights)[&keys[0]], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leap_of_every_clock_aborts_no_upload_and_the_next_run_goes_on() {
    let mut stale = Stale::new().await;
    stale.nights.program.set_scope("POLICY__APPROVAL", "automatic");
    stale.nights.clock.advance(Duration::days(30));
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    stale.assert_nothing_aborted("a leap");
    let held_by = stale.nights.summary()["uploads"]["held_by"].clone();
    assert!(held_by.as_str().is_some_and(|why| why.starts_with("30days went by")), "{held_by}");
    stale.nights.clock.advance(Duration::days(1));
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::SUCCESS);
    assert!(!stale.uploads().contains(&stale.old));
    assert!(stale.nights.summary()["uploads"]["held_by"].is_null());
}

/// Applies a plan on a terminal, where a person types `answer`.
async fn apply_and_answer(world: &MemoryWorld, plan: &str, answer: &str) -> Ran {
    use std::io::Write as _;
    let apply = world.program.command(&[]);
    let program = apply.get_program().to_string_lossy();
    let mut terminal = std::process::Command::new("/usr/bin/script");
    terminal.args(["-qec", &format!("{program} apply {plan}"), "/dev/null"]).current_dir(world.program.folder.path());
    terminal.env_clear().env("PATH", "/usr/bin:/bin").envs(&world.program.variables);
    terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = terminal.stderr(std::process::Stdio::piped()).spawn().expect("a terminal");
    let mut input = child.stdin.take().expect("a keyboard");
    writeln!(input, "{answer}").expect("typed");
    let ran = Ran::wait(child).await;
    drop(input);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_before_uploads_are_aborted_also_where_nothing_else_goes() {
    let mut world = MemoryWorld::new().await;
    world.program.set_scope("UPLOADS__ABORT_AFTER", "0s");
    world.live(0).await;
    let id = world.orphan(0);
    world.store.begin_upload(BUCKET, &format!("{}x", prefix(0, id)), an_hour_ago());
    world.audit().await;
    let plan = world.program.latest("plan.json");
    let ran = apply_and_answer(&world, &plan, "no").await;
    assert_eq!((ran.code, world.store.uploads(BUCKET).len()), (4, 1), "{ran:?}");
    assert!(ran.stdout.contains("1 stale upload under orphans will be aborted"), "{ran:?}");
    let ran = apply_and_answer(&world, &plan, BUCKET).await;
    assert_eq!((ran.code, world.store.uploads(BUCKET).len()), (0, 0), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_that_the_store_denies_is_told_and_exits_5() {
    let mut stale = Stale::new().await;
    stale.nights.program.set_scope("POLICY__APPROVAL", "automatic");
    stale.nights.store.forbid("key", Operation::AbortMultipartUpload);
    assert_eq!(stale.nights.run(&["sweep"]).await, ExitCode::from(5));
    assert!(stale.uploads().contains(&stale.old));
    assert_eq!(upload_verdicts(&stale.nights)[&stale.old], "abort_failed");
    let reason = stale.nights.summary()["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("AccessDenied")), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_beneath_a_versioned_bucket_is_counted_in_pages_and_never_touched() {
    let world = MemoryWorld::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    for n in 0..1300 {
        let key = format!("{}a b+{n:04}", prefix(0, id));
        world.put(&key);
        world.store.remove(BUCKET, &key);
    }
    let summary = world.audit().await;
    let expected = json!({
        "known": true, "noncurrent": 1300, "markers": 1300, "noncurrent_bytes": 13_000, "versions_only": 1
    });
    assert_eq!(summary["versions"], expected);
    assert_eq!((&summary["groups"]["empty"], &summary["groups"]["orphan"]), (&1.into(), &0.into()));
    assert_eq!(world.store.count(Operation::ListObjectVersions), 3, "a prefix that is live is not asked about");
    let rows = world.program.csv("orphans.csv");
    let row: Vec<&str> = ["prefix", "objects", "bytes", "first_seen", "sightings", "verdict", "reason"]
        .iter()
        .map(|name| rows[0][*name].as_str())
        .collect();
    assert_eq!(row, [prefix(0, id).as_str(), "0", "0", "", "0", "keep", "versions_only"]);
    assert_eq!(rows.len(), 1);
    assert!(world.program.read("report.html").contains("only the bucket&#39;s lifecycle frees them"));
    let before = world.store.stored_bytes(BUCKET);
    assert_eq!(world.apply().await.summary(0)["deletion"], Value::Null);
    assert_eq!(world.store.stored_bytes(BUCKET), before);

    world.store.forbid(ACCESS_KEY, Operation::ListObjectVersions);
    let other = world.orphan(1);
    let summary = world.audit().await;
    assert_eq!((&summary["versions"]["known"], &summary["groups"]["empty"]), (&false.into(), &1.into()));
    assert!(summary["coverage"]["unknown"][0].as_str().is_some_and(|what| what.starts_with("old versions: ")));
    assert_eq!(
        world.program.csv("orphans.csv").iter().map(|row| row["id"].clone()).collect::<Vec<_>>(),
        [other.to_string()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_versions_is_not_asked_for_them() {
    let world = MemoryWorld::new().await;
    world.live(0).await;
    world.orphan(0);
    let summary = world.audit().await;
    assert_eq!((&summary["versions"]["known"], &summary["versions"]["noncurrent"]), (&true.into(), &0.into()));
    assert_eq!(world.store.count(Operation::ListObjectVersions), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_is_told_is_no_failure_and_rests_for_a_grace_period() {
    let nights = Nights::begin().await;
    let orphan = nights.orphan(0, Duration::days(90));
    mature(&nights).await;
    let key = format!("{}x", prefix(0, orphan));
    let ghost = Action::GhostDelete { keys_containing: String::new() };
    nights.store.inject(Fault { operation: Operation::DeleteObjects, when: When::Always, action: ghost });
    let absent = Action::Status { code: 404, s3_code: "NoSuchKey" };
    nights.store.inject(Fault { operation: Operation::HeadObject, when: When::Always, action: absent });
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS, "{:#}", nights.summary());
    let summary = nights.summary();
    assert_eq!(summary["leaks"], json!({ "ghosts": 1, "object_lock": 0, "undeletable": 0 }));
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["already_gone"]), (&0.into(), &1.into()));
    assert_eq!(outcomes(&nights.program.csv("deletions.csv"))[&key], said("already_gone", "ghost"));
    let sent = nights.delete_requests();
    for night in 0..6 {
        let summary = nights.night(DAY).await;
        assert_eq!(reason(&nights, orphan), "undeletable", "night {night}");
        assert_eq!(
            (&summary["leaks"]["undeletable"], &summary["trend"]["new"], &summary["groups"]["eligible"]),
            (&1.into(), &0.into(), &0.into())
        );
        assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    }
    assert_eq!(nights.delete_requests(), sent, "it is not asked for every night");
    nights.night(DAY).await;
    assert_eq!(reason(&nights, orphan), "eligible", "a week later it is tried once more");
    nights.store.clear_faults();
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    assert!(!is_there(&nights, orphan));
    assert_eq!(nights.summary()["leaks"]["ghosts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_there_is_no_ghost_whoever_may_not_look_says_so_and_neither_rests() {
    for denied in [false, true] {
        let nights = Nights::begin().await;
        let orphan = nights.orphan(0, Duration::days(90));
        mature(&nights).await;
        let ghost = Action::GhostDelete { keys_containing: String::new() };
        nights.store.inject(Fault { operation: Operation::DeleteObjects, when: When::Always, action: ghost });
        if denied {
            nights.store.forbid("key", Operation::HeadObject);
        }
        assert_eq!(apply(&nights).await, ExitCode::from(5));
        let told = outcomes(&nights.program.csv("deletions.csv"));
        assert_eq!(told[&format!("{}x", prefix(0, orphan))], said("failed", "still_listed"));
        nights.night(DAY).await;
        assert_eq!(reason(&nights, orphan), "eligible");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_object_lock_holds_is_told_is_no_failure_and_rests_for_a_grace_period() {
    let nights = Nights::begin().await;
    let [held, mixed] = [(); 2].map(|()| nights.orphan(1, Duration::days(90)));
    nights.put_at(&format!("{}locked", prefix(1, mixed)), Duration::days(-90));
    mature(&nights).await;
    for keys_containing in [held.to_string(), "locked".into()] {
        let action = Action::Locked { keys_containing };
        nights.store.inject(Fault { operation: Operation::DeleteObjects, when: When::Always, action });
    }
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS, "{:#}", nights.summary());
    let summary = nights.summary();
    assert_eq!(summary["leaks"], json!({ "ghosts": 0, "object_lock": 2, "undeletable": 0 }));
    assert_eq!(
        (&summary["deletion"]["requested"], &summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
        (&3.into(), &1.into(), &2.into())
    );
    let told = outcomes(&nights.program.csv("deletions.csv"));
    assert_eq!(told[&format!("{}x", prefix(1, held))], said("skipped", "object_lock"));
    assert_eq!(told[&format!("{}locked", prefix(1, mixed))], said("skipped", "object_lock"));
    assert_eq!(told[&format!("{}x", prefix(1, mixed))], said("deleted", ""));
    nights.night(DAY).await;
    assert_eq!(reason(&nights, held), "undeletable");
    assert_eq!(reason(&nights, mixed), "undeletable");
    // A right that is missing is a failure, and is tried every night.
    nights.store.clear_faults();
    for _ in 0..6 {
        nights.night(DAY).await;
    }
    assert_eq!((reason(&nights, held), reason(&nights, mixed)), ("eligible".into(), "eligible".into()));
    assert_eq!(apply(&nights).await, ExitCode::SUCCESS);
    assert!(!is_there(&nights, held) && !is_there(&nights, mixed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_a_store_goes_on_listing_is_empty_and_no_alarm() {
    let world = MemoryWorld::new().await;
    world.live(0).await;
    let id = world.orphan(0);
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    let emptied = Action::EmptiedPrefix(prefix(0, id));
    world.store.inject(Fault { operation: Operation::ListObjectsV2, when: When::Always, action: emptied });
    world.store.clear_requests();
    for _ in 0..2 {
        let ran = world.program.run(&["audit", "--json", "--fail-on-orphans"]).await;
        let groups = &ran.summary(0)["groups"];
        assert_eq!(
            (&groups["listed"], &groups["orphan"], &groups["empty"], &groups["eligible"]),
            (&2.into(), &0.into(), &1.into(), &0.into())
        );
        assert!(world.program.csv("orphans.csv").is_empty());
        assert_eq!(world.apply().await.summary(0)["deletion"], Value::Null);
    }
    assert!(world.asked_to_delete().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_a_gateway_leaves_behind_go_with_the_second_pass() {
    let world = MemoryWorld::new().await;
    let live = world.live(0).await;
    world.store.set_leaves_folders(true);
    let id = Uuid::new_v4();
    let group = prefix(1, id);
    for key in ["sample-1/rx_0.npy", "sample-1/rx_1.npy", "sample-2/rx_0.npy"] {
        world.put(&format!("{group}{key}"));
    }
    world.audit().await;
    let summary = world.apply().await.summary(0);
    assert_eq!((&summary["deletion"]["deleted"], &summary["deletion"]["failed"]), (&3.into(), &0.into()));
    let left: Vec<String> = world.keys().into_iter().filter(|key| key.starts_with(&group)).collect();
    assert_eq!(left, [format!("{group}sample-1/"), format!("{group}sample-2/")]);
    // They are as new as the deletion, and an object of this second is newer than the store's clock, which counts whole ones.
    for key in &left {
        world.store.put_at(BUCKET, key, "", Some(an_hour_ago()));
    }
    // What is new in a group starts its sightings again.
    world.audit().await;
    assert_eq!(world.program.csv("orphans.csv")[0]["reason"], "changed_since_seen");
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["eligible"], &summary["eligible_bytes"]), (&1.into(), &0.into()));
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.keys().into_iter().filter(|key| !key.contains(&live.to_string())).count(), 0);
    assert_eq!(world.audit().await["groups"]["listed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_lists_uploads_of_the_whole_bucket_and_they_keep_and_can_be_aborted() {
    let mut world = World::new().await;
    world.live(0).await;
    let [free, busy] = [world.orphan(1).await, world.orphan(0).await];
    let key = format!("{}deep er/ü+&.npy", prefix(1, busy));
    let begin = |key: String| {
        let (client, bucket) = (world.bucket.client.clone(), world.bucket.name.clone());
        async move { client.create_multipart_upload().bucket(bucket).key(key).send().await.expect("begun") }
    };
    begin(key.clone()).await;
    begin("elsewhere/x".into()).await;
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!(
        (&summary["uploads"]["known"], &summary["uploads"]["in_progress"], &summary["uploads"]["under_orphans"]),
        (&true.into(), &1.into(), &1.into()),
        "{summary:#}"
    );
    assert_eq!((&summary["groups"]["orphan"], &summary["groups"]["eligible"]), (&2.into(), &1.into()));
    let rows = world.program.csv("orphans.csv");
    let of_busy = rows.iter().find(|row| row["id"] == busy.to_string()).expect("a row");
    assert_eq!(of_busy["reason"], "upload_in_progress");
    let explained = world.program.run(&["explain", &busy.to_string(), "--json"]).await.json()[0].clone();
    let why = explained["summary"].as_str().unwrap_or_default();
    assert!(explained["verdict"] == "keep" && why.starts_with("upload_in_progress: "), "{explained:#}");
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, free)]));

    // Below the floor only where the scope says that its data may be lost, as that of these tests.
    world.program.set_scope("UPLOADS__ABORT_AFTER", "0s");
    world.settle().await;
    world.audit().await;
    let summary = world.apply().await.summary(0);
    assert_eq!(summary["uploads"]["aborted"], 1, "{summary:#}");
    let left = world.bucket.client.list_multipart_uploads().bucket(&world.bucket.name).send().await.expect("listed");
    assert_eq!(left.uploads().iter().map(MultipartUpload::key).collect::<Vec<_>>(), [Some("elsewhere/x")]);
    assert_eq!(world.audit().await["groups"]["eligible"], 1);
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_under_retention_and_legal_hold_on_minio_are_marked_and_every_version_stays() {
    let mut world = World::new().await;
    let locked = format!("{}-locked", world.bucket.name);
    let client = world.bucket.client.clone();
    client.create_bucket().bucket(&locked).object_lock_enabled_for_bucket(true).send().await.expect("a bucket is made");
    world.bucket.name.clone_from(&locked);
    world.program.set_scope("BUCKET", &locked);
    world.live(0).await;
    let id = world.orphan(1).await;
    let [retained, on_hold] = ["a.npy", "b.npy"].map(|name| format!("{}{name}", prefix(1, id)));
    let until = aws_sdk_s3::primitives::DateTime::from_secs(an_hour_ago().timestamp() + 7200);
    let retention = ObjectLockRetention::builder().mode(ObjectLockRetentionMode::Compliance).retain_until_date(until);
    client
        .put_object_retention()
        .bucket(&locked)
        .key(&retained)
        .retention(retention.build())
        .send()
        .await
        .expect("kept");
    client
        .put_object_legal_hold()
        .bucket(&locked)
        .key(&on_hold)
        .legal_hold(aws_sdk_s3::types::ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On).build())
        .send()
        .await
        .expect("held");
    world.audit().await;
    let summary = world.apply().await.summary(0);
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["deleted"], &deletion["bytes_marked"], &deletion["bytes_deleted"], &deletion["failed"]),
        (&2.into(), &20.into(), &0.into(), &0.into()),
        "{summary:#}"
    );
    assert_eq!(summary["leaks"], json!({ "ghosts": 0, "object_lock": 0, "undeletable": 0 }));
    let summary = world.audit().await;
    let versions = json!({ "known": true, "noncurrent": 2, "markers": 2, "noncurrent_bytes": 20, "versions_only": 1 });
    assert_eq!((&summary["versions"], &summary["groups"]["empty"]), (&versions, &1.into()));
    // Only whoever names a version meets the lock, and this program names none.
    let listed = client.list_object_versions().bucket(&locked).prefix(prefix(1, id)).send().await.expect("listed");
    for version in listed.versions() {
        let (key, id) = (version.key().expect("a key"), version.version_id().expect("an id"));
        let refused = client.delete_object().bucket(&locked).key(key).version_id(id).send().await;
        assert!(refused.is_err(), "{key} is not locked");
    }
    let ran = world.program.run(&["doctor"]).await;
    assert!(ran.stdout.contains("object lock is on, without a retention by default"), "{}", ran.stdout);
    assert!(ran.stdout.contains("old versions") && ran.stdout.contains("uploads"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_on_minio_are_counted_in_pages() {
    let world = World::new().await;
    world.bucket.set_versioning(BucketVersioningStatus::Enabled).await;
    world.live(0).await;
    let id = Uuid::new_v4();
    let keys: Vec<String> = (0..520).map(|n| format!("{}a b/{n:04}", prefix(0, id))).collect();
    for _ in 0..3 {
        world.bucket.put_many(keys.clone()).await;
    }
    let summary = world.audit().await;
    let versions =
        json!({ "known": true, "noncurrent": 1040, "markers": 0, "noncurrent_bytes": 1040, "versions_only": 0 });
    assert_eq!(summary["versions"], versions);
    assert_eq!((&summary["orphan_objects"], &summary["groups"]["orphan"]), (&520.into(), &1.into()));
}
