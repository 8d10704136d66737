//! The whole examination on the embedded store and a SQLite catalogue.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Executor as _};

use super::board::{Check, State};
use super::*;
use crate::clock::SystemClock;
use crate::config::parse;
use crate::embedded::{Action, Fault, MemoryStore, Operation, Serving, VersioningState, When};
use crate::record::{Ledger, RunLock};

const BUCKET: &str = "recordings";
const ID: &str = "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10";

/// A store, a catalogue and a configuration that fit together.
struct World {
    store: MemoryStore,
    serving: Serving,
    folder: tempfile::TempDir,
    variables: Variables,
    config: Config,
}

impl World {
    async fn new() -> Self {
        let store = MemoryStore::new(Arc::new(SystemClock));
        store.put(BUCKET, &format!("synthetic/{ID}/0/0.npy"), "x");
        let serving = store.serve("key", "secret").await.expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        let catalogue = folder.path().join("catalogue.sqlite3");
        let options = SqliteConnectOptions::new().filename(&catalogue).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("a catalogue");
        connection.execute("CREATE TABLE datasets (id TEXT PRIMARY KEY)").await.expect("a table");
        sqlx::query("INSERT INTO datasets VALUES (?1)").bind(ID).execute(&mut connection).await.expect("a row");
        connection.close().await.expect("closed");
        let variables = [
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("ORPHAN_SWEEPER_DATABASE_URL", format!("sqlite://{}", catalogue.display())),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let config = configure(serving.endpoint(), folder.path(), "synthetic/");
        Self { store, serving, folder, variables, config }
    }

    async fn examine(&self) -> Vec<Check> {
        let mut board = Board::new(Show::Nothing);
        let scopes: Vec<&Scope> = self.config.scopes.iter().collect();
        examine(&self.examination(), &scopes, &mut board).await;
        board.checks().to_vec()
    }

    async fn probe(&self, stop: &Stop) -> Vec<Check> {
        let mut board = Board::new(Show::Nothing);
        let scopes: Vec<&Scope> = self.config.scopes.iter().collect();
        let versioning = examine(&self.examination(), &scopes, &mut Board::new(Show::Nothing)).await;
        probe::probe(&self.examination(), &scopes, &versioning, stop, &mut board).await;
        board.checks().to_vec()
    }

    fn examination(&self) -> Examination<'_> {
        Examination { config: &self.config, variables: &self.variables, clock: Arc::new(SystemClock) }
    }
}

fn configure(endpoint: &str, folder: &Path, prefix: &str) -> Config {
    let text = format!(
        "[store]\nendpoint = \"{endpoint}\"\n[[scope]]\nname = \"synthetic\"\nbucket = \"{BUCKET}\"\nprefix = \"{prefix}\"\n\
         patterns = [\"{prefix}{{id}}/\"]\n[[scope.live]]\ntable = \"main.datasets\"\n[scope.schedule]\ncron = \"0 3 * * *\"\n"
    );
    parse(&text, &folder.join("config.toml"), &Variables::new()).expect("a configuration")
}

fn with_state(checks: &[Check], state: State) -> Vec<&'static str> {
    checks.iter().filter(|check| check.state == state).map(|check| check.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_installation_passes_and_nothing_is_made() {
    let world = World::new().await;
    let checks = world.examine().await;
    assert_eq!(with_state(&checks, State::Fail), [""; 0], "{checks:?}");
    assert_eq!(with_state(&checks, State::Warn), ["versioning"], "{checks:?}");
    let left: Vec<_> =
        std::fs::read_dir(world.folder.path()).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["catalogue.sqlite3"], "no ledger, lock or report was made");
    let writes = [Operation::PutObject, Operation::DeleteObject, Operation::DeleteObjects]
        .map(|operation| world.store.count(operation));
    assert_eq!(writes, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_one_failed_check_and_the_others_go_on() {
    let mut world = World::new().await;
    world.variables.insert("AWS_SECRET_ACCESS_KEY".into(), "wrong".into());
    let checks = world.examine().await;
    assert_eq!(with_state(&checks, State::Fail), ["store_credentials_accepted"]);
    assert!(with_state(&checks, State::Ok).contains(&"live_rows"), "{checks:?}");

    let mut world = World::new().await;
    world.variables.remove("ORPHAN_SWEEPER_DATABASE_URL");
    let checks = world.examine().await;
    assert_eq!(with_state(&checks, State::Fail), ["database_address"]);
    assert!(with_state(&checks, State::Ok).contains(&"listing"), "{checks:?}");

    let mut world = World::new().await;
    world.config.scopes[0].bucket = "nobody".into();
    assert_eq!(with_state(&world.examine().await, State::Fail), ["bucket"]);

    let mut world = World::new().await;
    world.config.scopes[0].live[0].table.table = "nothing".into();
    assert_eq!(with_state(&world.examine().await, State::Fail), ["live_rows"]);

    let world = World::new().await;
    world.store.forbid("key", Operation::ListObjectsV2);
    assert_eq!(with_state(&world.examine().await, State::Fail), ["listing"]);
    world.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ten_minutes_off_fails() {
    let world = World::new().await;
    let date = SystemClock.now() + chrono::Duration::minutes(10);
    world.store.inject(Fault { operation: Operation::ListObjectsV2, when: When::Always, action: Action::Date(date) });
    assert_eq!(with_state(&world.examine().await, State::Fail), ["clocks"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_file_a_held_lock_and_a_ledger_are_told() {
    let world = World::new().await;
    let path = world.config.ledger.file().expect("a file");
    let ledger = Ledger::open_or_create(path, SystemClock.now()).await.expect("a ledger");
    let _lock = RunLock::take(path).expect("free");
    std::fs::write(&world.config.stop_file, "").expect("written");
    let checks = world.examine().await;
    assert_eq!(with_state(&checks, State::Fail), [""; 0], "{checks:?}");
    assert_eq!(with_state(&checks, State::Warn), ["versioning", "stop_file", "run_lock"]);
    let told = checks.iter().find(|check| check.name == "ledger").expect("a check");
    assert!(told.detail.contains(&ledger.id().to_string()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_passes_and_leaves_exactly_what_was_there() {
    for versioning in [VersioningState::Unversioned, VersioningState::Suspended] {
        let world = World::new().await;
        world.store.set_versioning(BUCKET, versioning);
        let before = world.store.keys(BUCKET);
        let checks = world.probe(&Stop::default()).await;
        assert_eq!(with_state(&checks, State::Fail), [""; 0], "{checks:?}");
        assert_eq!(world.store.keys(BUCKET), before);
        let named: Vec<String> =
            world.store.requests().into_iter().filter(is_write).flat_map(|request| request.keys).collect();
        assert!(named.len() > 30, "{named:?}");
        assert!(named.iter().all(|key| key.starts_with("orphan-sweeper-probe/")), "{named:?}");
    }
}

fn is_write(request: &crate::embedded::RecordedRequest) -> bool {
    let kind = request.operation;
    matches!(kind, Operation::PutObject | Operation::CopyObject | Operation::DeleteObject | Operation::DeleteObjects)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_fails_half_way_cleans_up() {
    let world = World::new().await;
    let before = world.store.keys(BUCKET);
    world.store.inject(Fault {
        operation: Operation::DeleteObjects,
        when: When::Always,
        action: Action::Status { code: 501, s3_code: "NotImplemented" },
    });
    let checks = world.probe(&Stop::default()).await;
    let failed = with_state(&checks, State::Fail);
    assert!(failed.contains(&"probe_batch_delete"), "{checks:?}");
    assert!(!failed.contains(&"probe_clean_up"), "{checks:?}");
    assert_eq!(world.store.keys(BUCKET), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_probe_cleans_up() {
    let world = World::new().await;
    let before = world.store.keys(BUCKET);
    let stop = Stop::default();
    let asked = stop.clone();
    world.store.on_request(move |request, _| {
        if request.operation == Operation::PutObject {
            asked.ask(Exit::Interrupted);
        }
    });
    let checks = world.probe(&stop).await;
    assert!(with_state(&checks, State::Ok).contains(&"probe_clean_up"), "{checks:?}");
    assert_eq!(world.store.keys(BUCKET), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_a_scope_would_see_writes_nothing() {
    let mut world = World::new().await;
    world.config = configure(world.serving.endpoint(), world.folder.path(), "orphan-sweeper-probe/");
    let checks = world.probe(&Stop::default()).await;
    assert_eq!(with_state(&checks, State::Fail), ["probe"]);
    assert_eq!(world.store.requests().iter().filter(|request| is_write(request)).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_is_looked_at_where_there_is_one() {
    let names = |checks: &[Check]| checks.iter().map(|check| check.name).collect::<Vec<_>>();
    let mut world = World::new().await;
    assert!(!names(&world.examine().await).contains(&"quarantine_listing"));
    world.config.scopes[0].policy.disposal = crate::config::Disposal::Quarantine;
    let checks = world.examine().await;
    assert_eq!(with_state(&checks, State::Fail), [""; 0], "{checks:?}");
    assert_eq!(with_state(&checks, State::Warn), [""; 0], "nothing is lost by a deletion: {checks:?}");
    for name in ["quarantine_listing", "quarantine_reading", "quarantine_versioning"] {
        assert!(with_state(&checks, State::Ok).contains(&name), "{name}: {checks:?}");
    }
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    assert!(with_state(&world.examine().await, State::Warn).contains(&"quarantine_versioning"));
    world.store.forbid("key", Operation::HeadObject);
    assert_eq!(with_state(&world.examine().await, State::Fail), ["quarantine_reading"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_finds_a_store_whose_copies_are_not_whole() {
    let mut world = World::new().await;
    let before = world.store.keys(BUCKET);
    let damage = Action::DamageCopy(crate::embedded::Damage::LostMetadata);
    world.store.inject(Fault { operation: Operation::CopyObject, when: When::Always, action: damage });
    let checks = world.probe(&Stop::default()).await;
    assert!(with_state(&checks, State::Warn).contains(&"probe_copy"), "{checks:?}");
    world.config.scopes[0].policy.disposal = crate::config::Disposal::Quarantine;
    let checks = world.probe(&Stop::default()).await;
    assert_eq!(with_state(&checks, State::Fail), ["probe_copy"], "{checks:?}");
    assert_eq!(world.store.keys(BUCKET), before);
}
