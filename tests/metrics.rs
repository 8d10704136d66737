//! What a real daemon exports after real runs, and that alerts, dashboard and deployment use nothing else.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use orphan_sweeper::embedded::{Action, Fault, Operation, When};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{MemoryWorld, Program, World};

/// A running `serve`, and where it answers. It is ended with the test, however that ends.
struct Daemon {
    child: Child,
    address: String,
    lines: Receiver<String>,
}

impl Daemon {
    async fn start(program: &Program) -> Self {
        let mut child = program.start(&["serve"]);
        let stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        let (address, lines) = tokio::task::spawn_blocking(move || {
            loop {
                let line =
                    lines.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}: {said:?}"));
                if let Some((_, address)) = line.split_once("the API listens address=") {
                    return (address.trim().to_owned(), lines);
                }
                said.push(line);
            }
        })
        .await
        .expect("an address");
        Self { child, address, lines }
    }

    async fn metrics(&self) -> String {
        let response = reqwest::get(format!("http://{}/metrics", self.address)).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        response.text().await.expect("text")
    }

    /// The metrics, once a series has a value that is wanted.
    async fn metrics_when(&self, series: &str, is_wanted: impl Fn(f64) -> bool) -> String {
        let mut text = String::new();
        for _ in 0..1200 {
            text = self.metrics().await;
            if value(&text, series).is_some_and(&is_wanted) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {series} in\n{text}\n{:?}", self.lines.try_iter().collect::<Vec<_>>());
    }

    async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, Signal::TERM).expect("signalled");
        let code = tokio::task::spawn_blocking(move || self.child.wait().expect("waited for")).await.expect("joined");
        assert_eq!(code.code(), Some(0));
    }
}

/// The value of a series, or the sum of all whose beginning is so.
fn value(text: &str, series: &str) -> Option<f64> {
    let values =
        text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every metric of ours that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.split(|c| !is_part(c)).filter(|word| word.starts_with("orphan_sweeper_"));
    names.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_run_exports_every_name_that_alerts_and_dashboard_use() {
    let mut world = World::new().await;
    world.program.set_scope("SCHEDULE__CRON", "* * * * * *");
    world.program.set_scope("SCHEDULE__COMMAND", "sweep");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    world.program.set_scope("LIVE__0__MISSING_AFTER", "0s");
    world.live(0).await;
    world.orphan(1).await;
    world.put_group("synthetic/no-dataset/", &["x"]).await;
    world.database.insert(uuid::Uuid::new_v4()).await;
    world.settle().await;
    let daemon = Daemon::start(&world.program).await;
    let swept = "orphan_sweeper_runs_total{scope=\"synthetic\",command=\"sweep\",outcome=\"complete\"}";
    let text = daemon.metrics_when(swept, |runs| runs >= 1.0).await;
    let of_scope = |name: &str| value(&text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\"}}"));
    assert_eq!((of_scope("missing_datasets"), of_scope("foreign_keys")), (Some(1.0), Some(1.0)), "{text}");
    let is = |series: &str, least: f64| {
        let found = value(&text, &format!("orphan_sweeper_{series}"));
        assert!(found.is_some_and(|found| found >= least), "{series} {found:?} in\n{text}");
    };
    is("deletion_objects_total{scope=\"synthetic\",outcome=\"deleted\"}", 2.0);
    is("deletion_bytes_total{scope=\"synthetic\",how=\"freed\"}", 20.0);
    is("requests_total{operation=\"ListObjectsV2\",code=\"200\"}", 2.0);
    is("requests_total{operation=\"DeleteObjects\",code=\"200\"}", 1.0);
    is("last_success_timestamp_seconds{scope=\"synthetic\"}", 1.7e9);
    for stage in ["list", "references", "decide", "plan", "report"] {
        is(&format!("stage_duration_seconds{{scope=\"synthetic\",stage=\"{stage}\"}}"), 0.0);
    }
    let exported = named(&text);
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/dashboard.json", "README.md"] {
        let used = named(&read(file));
        assert!(used.len() >= 10, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&exported).collect();
        assert!(unknown.is_empty(), "{file} uses what nobody exports: {unknown:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_run_of_another_process_leave_no_alert_blank() {
    let mut world = World::new().await;
    world.program.set_scope("SCHEDULE__CRON", "0 3 1 1 *");
    world.live(0).await;
    world.orphan(1).await;
    world.audit().await;
    let daemon = Daemon::start(&world.program).await;
    let success = "orphan_sweeper_last_success_timestamp_seconds{scope=\"synthetic\"}";
    let text = daemon.metrics_when(success, |at| at > 1.7e9).await;
    let of_scope = |name: &str| value(&text, &format!("orphan_sweeper_{name}{{scope=\"synthetic\"}}"));
    assert_eq!(of_scope("orphan_objects"), Some(2.0), "{text}");
    assert_eq!(value(&text, "orphan_sweeper_runs_total{"), Some(0.0), "what was before is counted by nobody twice");
    assert!(of_scope("success_due_timestamp_seconds") > of_scope("last_success_timestamp_seconds"));
    assert!(of_scope("next_run_timestamp_seconds") > of_scope("last_run_timestamp_seconds"));

    // The table is emptied, another process latches it, and a person acknowledges it: the daemon tells both.
    world.database.execute("TRUNCATE heimdall.synthetic_datasets CASCADE").await;
    world.program.run(&["audit", "--json"]).await.summary(4);
    let latched = "orphan_sweeper_breaker_latched{scope=\"synthetic\",breaker=\"no_references\",kind=\"evidence\"}";
    let text = daemon.metrics_when(latched, |is_latched| is_latched > 0.5).await;
    let refused = "orphan_sweeper_runs_total{scope=\"synthetic\",command=\"audit\",outcome=\"refused\"}";
    assert_eq!(value(&text, refused), Some(1.0));
    let acknowledge = ["ack", "no_references", "--by", "ada", "--reason", "meant"];
    assert_eq!(world.program.run(&acknowledge).await.code, 0);
    daemon.metrics_when(latched, |is_latched| is_latched < 0.5).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_tried_again_are_counted_by_what_was_wrong() {
    let mut world = MemoryWorld::new().await;
    world.program.set_scope("SCHEDULE__CRON", "* * * * * *");
    world.live(0).await;
    let slow_down = Action::Status { code: 503, s3_code: "SlowDown" };
    world.store.inject(Fault { operation: Operation::ListObjectsV2, when: When::Times(2), action: slow_down });
    let daemon = Daemon::start(&world.program).await;
    let throttled = "orphan_sweeper_request_retries_total{operation=\"ListObjectsV2\",fault=\"throttled\"}";
    let text = daemon.metrics_when(throttled, |retries| retries >= 2.0).await;
    let failed = "orphan_sweeper_requests_total{operation=\"ListObjectsV2\",code=\"503\"}";
    assert_eq!(value(&text, failed), Some(2.0), "{text}");
    daemon.stop().await;
}

/// What a deployment sets is understood: a name that is not would be an error of the configuration, exit 2.
#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_every_deployment_are_known() {
    let mut found = 0;
    for file in ["compose.yaml", "kubernetes/common.yaml", "systemd/environment", "systemd/orphan-sweeper.service"] {
        let mut program = Program::bare("http://127.0.0.1:9000", "heimdall-synthetic-iq", "postgres://u@127.0.0.1/d");
        for line in read(file).lines().filter(|line| !line.trim_start().starts_with('#')) {
            let line = line.trim().trim_start_matches("Environment=");
            let assigned = line.split_once('=').or_else(|| line.split_once(": "));
            if let Some((name, value)) = assigned.filter(|(name, _)| name.starts_with("ORPHAN_SWEEPER__")) {
                // A ledger that is not there: nothing is written outside of the test.
                let value = if name.contains("LEDGER") { "/nowhere/ledger.sqlite3" } else { value };
                program.set(name, value.trim_matches('\''));
                found += 1;
            }
        }
        let ran = program.run(&["history"]).await;
        assert_eq!(ran.code, 1, "{file}: {ran:?}");
        assert!(ran.stderr.contains("there is no ledger"), "{file}: {ran:?}");
    }
    assert!(found >= 12, "{found}");
}
