use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusRecorder;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::secrets::LedgerPlace;
use crate::config::{self, Variables};
use crate::decide::breakers::{Observation, TargetFingerprint};
use crate::list::references::{Anchor, WithoutSentinels};
use crate::model::{DatabaseIdentity, Mode, RunId};
use crate::record::{Absence, Ledger, PurgeRow, PurgeState, RunEnd, RunStart};
use crate::report::figures::{SkipCount, StageTime, VerdictCount};
use crate::report::text::samples::audit;
use crate::report::{GroupCounts, Trend, figures};
use crate::run::Stop;
use crate::telemetry::Progress;

/// A ledger of its own, and the services of a daemon that uses it.
struct Daemon {
    services: Services,
    clock: ManualClock,
    recorder: PrometheusRecorder,
    folder: tempfile::TempDir,
    runs: u128,
}

impl Daemon {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().expect("a time"));
        let place = LedgerPlace::File(folder.path().join("ledger.sqlite3"));
        let ledger = Ledger::open(&place, Absence::Make, clock.now()).await.expect("a ledger");
        let path = folder.path().join("config.toml");
        let config = config::parse(include_str!("../../config.toml"), &path, &Variables::new()).expect("well formed");
        let services = Services {
            config,
            clock: Arc::new(clock.clone()),
            ledger,
            stop: Stop::default(),
            progress: Progress::new(false),
        };
        Self { services, clock, recorder: PrometheusBuilder::new().build_recorder(), folder, runs: 0 }
    }

    /// A run that ended with this summary, by whichever process.
    async fn ends(&mut self, summary: Summary) -> RunId {
        self.runs += 1;
        let run = RunId(uuid::Uuid::from_u128(self.runs));
        let (ledger, now) = (&self.services.ledger, self.clock.now());
        let mode = if summary.dry_run { Mode::DryRun } else { Mode::Live };
        let start = RunStart {
            run_id: run,
            scope: "synthetic".into(),
            command: summary.command.clone(),
            is_dry_run: mode == Mode::DryRun,
            started_at: now,
        };
        ledger.begin_run(&start).await.expect("begun");
        let summary = Summary { finished_at: now, ..summary };
        let end = RunEnd {
            finished_at: now,
            outcome: summary.outcome.as_str(),
            reason: None,
            exit_code: 0,
            plan_hash: None,
            orphan_bytes: counts_orphans(&summary).then_some(summary.orphan_bytes),
            summary: serde_json::to_string(&summary).expect("serializable"),
        };
        ledger.finish_run(run, &end).await.expect("ended");
        run
    }

    /// What is exported after a look.
    async fn look(&self, watch: &mut Watch) -> String {
        let _recording = ::metrics::set_default_local_recorder(&self.recorder);
        begin();
        watch.look(&self.services).await;
        self.recorder.handle().render()
    }
}

/// The value of a series.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
}

fn seen(orphan: u64) -> Summary {
    let sample = audit(&[]);
    let one = |verdict: &str, reason: &str, groups| VerdictCount {
        verdict: verdict.into(),
        reason: reason.into(),
        groups,
        objects: groups * 10,
        bytes: groups * 100,
    };
    Summary {
        groups: GroupCounts { live: 80, orphan, empty: 2, foreign: 3, ..sample.groups },
        orphan_objects: orphan * 10,
        orphan_bytes: orphan * 100,
        missing: 4,
        verdicts: vec![one("eligible", "eligible", orphan - 1), one("keep", "within_grace", 1)],
        stages: vec![StageTime { stage: figures::Stage::List, duration_ms: 1500 }],
        trend: sample.trend.clone().map(|trend| Trend { bytes_per_day: Some(2.5e9), days_to_full: None, ..trend }),
        ..sample
    }
}

fn deleted() -> Summary {
    let deletion =
        Deletion { requested: 12, deleted: 7, skipped: 4, failed: 1, bytes_deleted: 700, ..Deletion::default() };
    Summary {
        command: "apply".into(),
        dry_run: false,
        deletion: Some(deletion),
        skips: vec![
            SkipCount { reason: "held".into(), objects: 3 },
            SkipCount { reason: "a reason of tomorrow".into(), objects: 1 },
        ],
        ..audit(&[])
    }
}

#[tokio::test]
async fn a_daemon_that_begins_knows_what_the_ledger_knows_and_counts_nothing_twice() {
    let mut daemon = Daemon::new().await;
    daemon.services.ledger.schedule_checked_until("synthetic", daemon.clock.now()).await.expect("marked");
    daemon.ends(seen(6)).await;
    daemon.ends(deleted()).await;
    daemon.clock.advance(chrono::Duration::hours(1));
    let mut watch = Watch::default();
    let text = daemon.look(&mut watch).await;
    let of_scope = |name: &str| value(&text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\"}}"));
    assert!((of_scope("orphan_bytes") - 600.0).abs() < 1e-9, "an apply counts no orphans: the audit before it did");
    assert!((of_scope("missing_datasets") - 4.0).abs() < 1e-9);
    assert!((of_scope("foreign_keys") - 3.0).abs() < 1e-9);
    assert!((of_scope("leak_bytes_per_day") - 2.5e9).abs() < 1.0);
    assert!(of_scope("days_to_full").is_nan(), "not known is not none");
    let ended: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    assert!((of_scope("last_run_timestamp_seconds") - seconds(ended)).abs() < 1e-3);
    assert!((of_scope("last_success_timestamp_seconds") - seconds(ended)).abs() < 1e-3);
    let due: Timestamp = "2026-03-02T14:00:00Z".parse().expect("a time");
    assert!((of_scope("success_due_timestamp_seconds") - seconds(due)).abs() < 1e-3, "a day and two hours later");
    let next: Timestamp = "2026-03-02T03:00:00Z".parse().expect("a time");
    assert!((of_scope("next_run_timestamp_seconds") - seconds(next)).abs() < 1e-3);
    let labelled =
        |name: &str, labels: &str| value(&text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\",{labels}}}"));
    let is = |name: &str, labels: &str, expected: f64| {
        let found = labelled(name, labels);
        assert!((found - expected).abs() < 1e-9, "{name} {labels}: {found}");
    };
    is("orphan_groups", "verdict=\"eligible\",reason=\"eligible\"", 5.0);
    is("orphan_groups", "verdict=\"keep\",reason=\"within_grace\"", 1.0);
    is("orphan_groups", "verdict=\"keep\",reason=\"held\"", 0.0);
    is("groups", "state=\"live\"", 80.0);
    is("stage_duration_seconds", "stage=\"list\"", 1.5);
    is("last_deletion_objects", "outcome=\"failed\"", 1.0);
    is("last_run_outcome", "outcome=\"complete\"", 1.0);
    is("last_run_outcome", "outcome=\"failed\"", 0.0);
    is("runs_total", "command=\"audit\",outcome=\"complete\"", 0.0);
    is("deletion_objects_total", "outcome=\"deleted\"", 0.0);
    assert!(value(&text, "orphan_sweeper_ledger_size_bytes") > 4096.0);

    // Another process deletes, and this one counts it, once.
    daemon.ends(deleted()).await;
    daemon.look(&mut watch).await;
    let text = daemon.look(&mut watch).await;
    let is = |name: &str, labels: &str, expected: f64| {
        let found = value(&text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\",{labels}}}"));
        assert!((found - expected).abs() < 1e-9, "{name} {labels}: {found}");
    };
    is("runs_total", "command=\"apply\",outcome=\"complete\"", 1.0);
    is("deletion_objects_total", "outcome=\"deleted\"", 7.0);
    is("deletion_bytes_total", "how=\"freed\"", 700.0);
    is("skipped_objects_total", "reason=\"held\"", 3.0);
    is("skipped_objects_total", "reason=\"other\"", 1.0);
    assert!(!text.contains("tomorrow"), "a reason from elsewhere makes no label");

    // One whose process died is noted by the next that begins.
    let (dead, next) = (RunId(uuid::Uuid::from_u128(100)), RunId(uuid::Uuid::from_u128(101)));
    for run in [dead, next] {
        let start = RunStart {
            run_id: run,
            scope: "synthetic".into(),
            command: "sweep".into(),
            is_dry_run: false,
            started_at: daemon.clock.now(),
        };
        daemon.services.ledger.begin_run(&start).await.expect("begun");
    }
    let text = daemon.look(&mut watch).await;
    let died = value(&text, "orphan_sweeper_runs_total{scope=\"synthetic\",command=\"sweep\",outcome=\"failed\"}");
    assert!((died - 1.0).abs() < 1e-9, "{died}");
    drop(daemon.folder);
}

#[tokio::test]
async fn a_latch_is_shown_until_it_is_acknowledged_by_whichever_process() {
    let mut daemon = Daemon::new().await;
    let mut tripping = seen(6);
    tripping.outcome = Outcome::Refused;
    tripping.breakers.iter_mut().filter(|reading| reading.name == Breaker::LiveDrop).for_each(|reading| {
        (reading.tripped, reading.latched) = (true, true);
    });
    let run = daemon.ends(tripping).await;
    let ledger = daemon.services.ledger.clone();
    let observation = Observation {
        as_of: daemon.clock.now(),
        rows: BTreeMap::new(),
        identity: DatabaseIdentity {
            system: "1".into(),
            timeline: "1".into(),
            database: "platform".into(),
            tables: Vec::new(),
        },
        target: TargetFingerprint::of(&daemon.services.config.scopes[0], &daemon.services.config.store.endpoint),
        overlap_share: None,
        skew_s: 0,
        snapshot: None,
        rows_as_of: None,
    };
    let tripped = [(Breaker::LiveDrop, "fell".to_owned())];
    ledger.latch("synthetic", run, daemon.clock.now(), &tripped, &observation).await.expect("latched");
    let mut watch = Watch::default();
    let text = daemon.look(&mut watch).await;
    let of = |text: &str, name: &str, breaker: &str| {
        value(text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\",breaker=\"{breaker}\",kind=\"evidence\"}}"))
    };
    assert!(of(&text, "breaker_latched", "live_drop") > 0.5);
    assert!(of(&text, "breaker_tripped", "live_drop") > 0.5);
    assert!(of(&text, "breaker_latched", "no_references") < 0.5);
    assert!(!text.contains("orphan_sweeper_orphan_bytes{"), "what a refused run saw is no state to show");
    let latch = ledger.latches("synthetic").await.expect("read").remove(0);
    ledger.acknowledge("synthetic", &latch, "ada", "meant", daemon.clock.now()).await.expect("acknowledged");
    let mut broken_off = seen(6);
    (broken_off.outcome, broken_off.coverage.complete) = (Outcome::Failed, false);
    daemon.ends(broken_off).await;
    let text = daemon.look(&mut watch).await;
    assert!(of(&text, "breaker_latched", "live_drop") < 0.5);
    assert!(of(&text, "breaker_tripped", "live_drop") > 0.5, "until the next run judges it, and this one did not");
    daemon.ends(seen(6)).await;
    assert!(of(&daemon.look(&mut watch).await, "breaker_tripped", "live_drop") < 0.5);
}

#[tokio::test]
async fn everything_that_is_exported_is_in_the_table_with_its_labels() {
    let mut daemon = Daemon::new().await;
    daemon.ends(seen(6)).await;
    let _recording = ::metrics::set_default_local_recorder(&daemon.recorder);
    names::request_ended("ListObjectsV2", Some(200));
    names::purge_ended(names::PurgeKind::Dataset, names::PurgeOutcome::Removed);
    let text = daemon.look(&mut Watch::default()).await;
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let metric = names::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| Some(label.split_once('=')?.0));
        assert!(labels.eq(metric.labels.iter().copied()), "{line}");
        found.insert(name.to_owned());
    }
    let absent: Vec<&str> = names::ALL.iter().map(|metric| metric.name).filter(|name| !found.contains(*name)).collect();
    // Without a start of the schedule nothing is due before the first success, and here there is one.
    assert!(absent.is_empty(), "{absent:?}");
}

#[tokio::test]
async fn a_purge_is_counted_until_it_is_over() {
    let daemon = Daemon::new().await;
    let (ledger, mut watch, now) = (&daemon.services.ledger, Watch::default(), daemon.clock.now());
    let pending = async |watch: &mut Watch| {
        value(&daemon.look(watch).await, r#"orphan_sweeper_pending_purges{scope="synthetic"}"#).to_string()
    };
    assert_eq!(pending(&mut watch).await, "0");
    let run = RunId::new(now);
    let anchor = Anchor {
        identity: DatabaseIdentity {
            system: "1".into(),
            timeline: "1".into(),
            database: "d".into(),
            tables: Vec::new(),
        },
        sentinels: Vec::new(),
        without_sentinels: WithoutSentinels::MayFill,
        snapshot: None,
    };
    let purge = PurgeRow::sample(run, "synthetic", anchor, []);
    ledger.intend_purge(&purge.start(), &purge).await.expect("intended");
    assert_eq!(pending(&mut watch).await, "1");
    ledger.commit_purge(run, &BTreeMap::new()).await.expect("committed");
    assert_eq!(pending(&mut watch).await, "1");
    ledger.end_purge(run, PurgeState::Done).await.expect("ended");
    assert_eq!(pending(&mut watch).await, "0");
}
