//! The schedule, signals, the health check, and databases that are not the primary.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::support::gate::{Gate, Passing};
use crate::support::program::breaker;
use crate::support::{Program, Ran, World, prefix, setting, without};

fn signal(child: &std::process::Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("signalled");
}

/// Waits for a fact, with a bound.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// Sets when the schedule of `synthetic` was last looked at, as if the daemon had been down since.
async fn set_checked_until(program: &Program, ago: &str) {
    let url = format!("sqlite://{}", program.path("reports/ledger.sqlite3").display());
    let mut ledger = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.expect("the ledger");
    let moment = (orphan_sweeper::clock::Clock::now(&orphan_sweeper::clock::SystemClock) - humantime(ago)).to_rfc3339();
    let statement = format!(
        "INSERT INTO schedules VALUES ('synthetic', '{moment}', '{moment}') ON CONFLICT DO UPDATE SET checked_until = '{moment}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut ledger).await.expect("set");
    sqlx::Connection::close(ledger).await.expect("closed");
}

fn humantime(text: &str) -> chrono::Duration {
    chrono::Duration::seconds(text.parse().expect("seconds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_sweep_is_caught_up_once_by_an_audit_and_sigterm_ends_with_0() {
    let mut world = World::new().await;
    world.program.set_scope("SCHEDULE__CRON", "0 * * * *");
    world.program.set_scope("SCHEDULE__COMMAND", "sweep");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    world.live(0).await;
    world.orphan(1).await;
    world.audit().await;
    let before = world.contents().await;
    set_checked_until(&world.program, "864000").await;
    let runs = world.program.run_folders().len();
    let daemon = world.program.start(&["serve"]);
    until("the catch-up", || {
        world.program.run_folders().len() == runs + 1 && world.program.run_folders()[runs].join("summary.json").exists()
    })
    .await;
    signal(&daemon, Signal::TERM);
    let ran = Ran::wait(daemon).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let is_on_the_hour = ran.stderr.contains("scheduled run ended") && !ran.stderr.contains("one audit catches up");
    if !is_on_the_hour {
        assert_eq!(
            world.program.read("summary.json").parse::<serde_json::Value>().expect("a summary")["command"],
            "audit"
        );
        assert_eq!(world.contents().await, before, "what was missed deletes nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occurrence_on_time_runs_the_sweep_and_is_marked_before_it_runs() {
    let mut world = World::new().await;
    world.program.set_scope("SCHEDULE__CRON", "* * * * * *");
    world.program.set_scope("SCHEDULE__COMMAND", "sweep");
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    world.live(0).await;
    let orphan = world.orphan(1).await;
    world.settle().await;
    let before = world.contents().await;
    let daemon = world.program.start(&["serve"]);
    until("a sweep", || world.program.run_folders().first().is_some_and(|folder| folder.join("summary.json").exists()))
        .await;
    signal(&daemon, Signal::TERM);
    assert_eq!(Ran::wait(daemon).await.code, 0);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, orphan)]));
    // The health check counts from the success.
    assert_eq!(world.program.run(&["history", "--healthy"]).await.code, 0);
    assert_eq!(world.program.run(&["history", "--healthy=1h"]).await.code, 0);
    assert_eq!(world.program.run(&["history", "--healthy=nonsense"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_counts_from_the_first_start_and_ends_with_the_limit() {
    let mut world = World::new().await;
    assert_eq!(world.program.run(&["history", "--healthy"]).await.code, 1, "no ledger, no health");
    world.program.set_scope("SCHEDULE__CRON", "0 3 1 1 *");
    let daemon = world.program.start(&["serve"]);
    until("the ledger", || world.program.path("reports/ledger.sqlite3").exists()).await;
    for _ in 0..100 {
        if world.program.run(&["history", "--healthy"]).await.code == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.program.run(&["history", "--healthy"]).await.code, 0, "it has only just begun");
    assert_eq!(world.program.run(&["history", "--healthy=26h"]).await.code, 1, "no run succeeded yet");
    signal(&daemon, Signal::INT);
    assert_eq!(Ran::wait(daemon).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_without_a_schedule_and_without_the_api_says_what_to_write() {
    let mut world = World::new().await;
    world.program.set("ORPHAN_SWEEPER__SERVE__LISTEN", "off");
    let config = world.program.path("config.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    std::fs::write(&config, text.split("[scope.schedule]").next().expect("a part")).expect("written");
    let ran = world.program.run(&["serve"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("[scope.schedule]") && ran.stderr.contains("[serve] listen"), "{ran:?}");
}

/// A planned group of 3,500 objects behind a gate that tells when the first batch passes, and holds it until told.
async fn interrupted_by(first: Signal) -> (World, Uuid, Ran) {
    let mut world = World::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    world.bucket.put_many((0..3500).map(|n| format!("{}{n:05}", prefix(1, id)))).await;
    let (passed, mut is_passed) = tokio::sync::mpsc::channel(1);
    let release = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = release.clone();
    let gate = Gate::open(&world.bucket.endpoint, move |passing: Passing| {
        let (passed, held) = (passed.clone(), held.clone());
        async move {
            if passing.is_batch_delete() && passing.number == 1 {
                passed.send(()).await.ok();
                drop(held.acquire().await);
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let child = world.program.start(&["apply", &plan, "--yes", "--json"]);
    is_passed.recv().await.expect("the first batch");
    signal(&child, first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    release.add_permits(1);
    let ran = Ran::wait(child).await;
    // The gate closes with this function's runtime, not with its end: the plan can be resumed through it.
    std::mem::forget(gate);
    (world, id, ran)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_batch_in_flight_reports_and_the_plan_resumes() {
    for (first, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (world, id, ran) = interrupted_by(first).await;
        let summary = ran.summary(code);
        assert_eq!(summary["outcome"], "interrupted");
        assert_eq!(summary["deletion"]["deleted"], 1000, "{summary:#}");
        let count = |keys: &std::collections::BTreeMap<String, String>| {
            keys.keys().filter(|key| key.starts_with(&prefix(1, id))).count()
        };
        assert_eq!(count(&world.contents().await), 2500);
        let plan = world.plan_of_newest_audit();
        let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
        assert_eq!(summary["deletion"]["deleted"], 2500, "{summary:#}");
        assert_eq!(count(&world.contents().await), 0);
        assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4, "closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once_with_the_journal_intact() {
    let mut world = World::new().await;
    world.live(0).await;
    let id = Uuid::new_v4();
    world.bucket.put_many((0..1500).map(|n| format!("{}{n:05}", prefix(1, id)))).await;
    let (passed, mut is_passed) = tokio::sync::mpsc::channel(1);
    let is_holding = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let holding = is_holding.clone();
    let gate = Gate::open(&world.bucket.endpoint, move |passing: Passing| {
        let (passed, holding) = (passed.clone(), holding.clone());
        async move {
            if passing.is_batch_delete() && holding.load(std::sync::atomic::Ordering::SeqCst) {
                passed.send(()).await.ok();
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let child = world.program.start(&["apply", &plan, "--yes"]);
    is_passed.recv().await.expect("the first batch");
    signal(&child, Signal::TERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(&child, Signal::TERM);
    assert_eq!(Ran::wait(child).await.code, 143);
    is_holding.store(false, std::sync::atomic::Ordering::SeqCst);
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 1500, "{summary:#}");
}

/// A Postgres cluster of its own, for what cannot be done to the shared one.
struct Cluster {
    folder: std::path::PathBuf,
    port: u16,
}

impl Cluster {
    fn command(program: &str) -> Command {
        let run_as = setting("PG_RUN_AS");
        let path = format!("{}/{program}", setting("PG_BIN"));
        let mut words = run_as.split_whitespace();
        match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(path);
                command
            }
            None => Command::new(path),
        }
    }

    fn run(command: &mut Command) {
        let output = command.output().expect("started");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn folder() -> std::path::PathBuf {
        std::path::Path::new(&setting("SCRATCH")).join(format!("pg-{}", Uuid::new_v4().simple()))
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port()
    }

    fn start(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c wal_level=replica",
            self.port
        );
        let log = self.folder.with_extension("log");
        Self::run(
            Self::command("pg_ctl")
                .args(["-w", "-D"])
                .arg(&self.folder)
                .arg("-o")
                .arg(options)
                .arg("-l")
                .arg(log)
                .arg("start"),
        );
    }

    fn primary() -> Self {
        let cluster = Self { folder: Self::folder(), port: Self::free_port() };
        Self::run(Self::command("initdb").args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&cluster.folder));
        cluster.start();
        cluster
    }

    fn standby_of(primary: &Self) -> Self {
        let cluster = Self { folder: Self::folder(), port: Self::free_port() };
        let port = primary.port.to_string();
        let mut command = Self::command("pg_basebackup");
        Self::run(
            command
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-c", "fast", "-D"])
                .arg(&cluster.folder),
        );
        cluster.start();
        cluster
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    async fn execute(&self, sql: &str) {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.url()).await.expect("connected");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("executed");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Self::command("pg_ctl").args(["-m", "immediate", "-D"]).arg(&self.folder).arg("stop").output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_and_a_promoted_one_waits_for_a_person() {
    let mut world = World::new().await;
    let primary = Cluster::primary();
    primary
        .execute(
            "CREATE SCHEMA heimdall; CREATE TABLE heimdall.synthetic_datasets (id uuid PRIMARY KEY, dataset_type text DEFAULT 'iq_raw', created_at timestamptz DEFAULT now())",
        )
        .await;
    let live = Uuid::new_v4();
    world.put_group(&prefix(0, live), &["x"]).await;
    primary.execute(&format!("INSERT INTO heimdall.synthetic_datasets (id) VALUES ('{live}')")).await;
    world.orphan(1).await;
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &primary.url());
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let before = world.contents().await;

    let standby = Cluster::standby_of(&primary);
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &standby.url());
    let summary = world.program.run(&["audit", "--json"]).await.summary(1);
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("standby")), "{summary:#}");
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 1);

    Cluster::run(Cluster::command("pg_ctl").args(["-w", "-D"]).arg(&standby.folder).arg("promote"));
    let summary = world.program.run(&["audit", "--json"]).await.summary(4);
    let reading = breaker(&summary, "database_identity");
    assert_eq!(
        (&reading["tripped"], &reading["observed"]["timeline"]),
        (&true.into(), &"00000002".into()),
        "{reading:#}"
    );
    assert_eq!(world.program.run(&["apply", &plan, "--yes"]).await.code, 4);
    assert_eq!(world.contents().await, before);
    // After the acknowledged failover the nights go on.
    assert_eq!(world.program.run(&["ack", "database_identity", "--by", "ada", "--reason", "failover"]).await.code, 0);
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
}
