//! The ledger, as its users meet it: a file, or a schema in Postgres that several machines share; and a history that shows
//! tampering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::{DELETION_STEPS, Database, Ran, World, prefix, without};

const SIGKILL: i32 = -9;

/// Where a world keeps its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Schema,
}

/// A world with its ledger, and the database of that, where it has one.
struct Kept {
    world: World,
    ledger: Option<Database>,
}

impl Kept {
    async fn new(kind: Kind) -> Self {
        let mut world = World::new().await;
        let ledger = match kind {
            Kind::File => None,
            Kind::Schema => {
                let ledger = Database::create().await;
                world.program.edit_config(|text| text.replace("path = \"reports/ledger.sqlite3\"", "# path"));
                world.program.set("ORPHAN_SWEEPER_LEDGER_URL", &ledger.admin_url());
                Some(ledger)
            }
        };
        Self { world, ledger }
    }

    fn database(&self) -> &Database {
        self.ledger.as_ref().expect("a ledger in Postgres")
    }

    async fn verify(&self, arguments: &[&str]) -> Ran {
        self.world.program.run(&[&["history", "verify", "--json"], arguments].concat()).await
    }

    #[track_caller]
    fn assert_verified(ran: &Ran) -> Value {
        assert_eq!(ran.code, 0, "{ran:?}");
        let document = ran.json();
        assert_eq!(document["verified"], true, "{document:#}");
        document
    }

    #[track_caller]
    fn assert_fault(ran: &Ran, says: &str) {
        assert_eq!(ran.code, 1, "{ran:?}");
        let message = ran.json()["fault"]["message"].as_str().expect("a fault").to_owned();
        assert!(message.contains(says), "{message}");
    }

    /// Changes the ledger behind the program's back.
    async fn tamper(&self, sql: &str) {
        use sqlx::Connection;
        if let Some(database) = &self.ledger {
            return database.execute(&sql.replace(" runs ", " orphan_sweeper.runs ")).await;
        }
        let path = self.world.program.path("reports/ledger.sqlite3");
        let mut file = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("opened");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut file).await.expect("changed");
        file.close().await.expect("closed");
    }

    /// A large orphan and a small one, planned: the plan, what is there, and what shall be left.
    async fn planned(&self, objects: usize) -> (String, BTreeMap<String, String>) {
        let world = &self.world;
        for _ in 0..2 {
            world.live(0).await;
        }
        let large = Uuid::new_v4();
        world.bucket.put_many((0..objects).map(|n| format!("{}{n:05}", prefix(1, large)))).await;
        let small = world.orphan(0).await;
        let expected = without(&world.contents().await, &[prefix(1, large), prefix(0, small)]);
        world.audit().await;
        (world.plan_of_newest_audit(), expected)
    }

    /// What every report together tells of each key.
    fn told(&self) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for folder in self.world.program.run_folders() {
            // What a process that died left is no report yet.
            if !folder.join("summary.json").exists() {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(folder.join("deletions.csv")) else { continue };
            for row in crate::support::read_csv(&text) {
                told.entry(row["key"].clone()).or_default().push(row["outcome"].clone());
            }
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_in_postgres_does_what_one_in_a_file_does() {
    let kept = Kept::new(Kind::Schema).await;
    let (plan, expected) = kept.planned(3).await;
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let made: Value = serde_json::from_str(&text).expect("JSON");
    let shown =
        made["plan"]["ledger"]["path"].as_str().or(made["ledger"]["path"].as_str()).expect("a place").to_owned();
    assert!(shown.starts_with("postgres://") && shown.ends_with(&kept.database().name), "{shown}");
    assert!(!shown.contains('@'), "{shown}");
    let program = &kept.world.program;
    assert_eq!(program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0)["deletion"]["deleted"], 5);
    assert_eq!(kept.world.contents().await, expected);
    assert_eq!(program.run(&["apply", &plan, "--yes"]).await.code, 4, "the plan is closed");
    let history = program.run(&["history", "--json"]).await.json();
    assert_eq!(history["runs"].as_array().expect("runs").len(), 3);
    Kept::assert_verified(&kept.verify(&[]).await);
    assert!(!program.path("reports/ledger.sqlite3").exists(), "and no file is made");

    let doctor = program.run(&["doctor", "--json"]).await.json().to_string();
    assert!(doctor.contains(&shown) && doctor.contains("no run is going on"), "{doctor}");
    let backup = program.run(&["ledger", "backup", "copy"]).await;
    assert_eq!(backup.code, 2, "{backup:?}");
    assert!(backup.stderr.contains("pg_dump --format=custom --schema=orphan_sweeper --file='copy'"), "{backup:?}");
    assert!(!program.path("copy").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_a_schema_of_its_own_is_enough_and_one_without_is_told_what_it_lacks() {
    let mut kept = Kept::new(Kind::Schema).await;
    kept.world.live(0).await;
    let role = format!("ledger_{}", Uuid::new_v4().simple());
    let database = kept.database();
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'canary-of-the-ledger'")).await;
    let mut url: url::Url = database.admin_url().parse().expect("an address");
    url.set_username(&role).expect("a host");
    url.set_password(Some("canary-of-the-ledger")).expect("a host");
    kept.world.program.set("ORPHAN_SWEEPER_LEDGER_URL", url.as_str());
    let refused = kept.world.program.run(&["audit", "-vv"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    let hint = format!("let its owner run: CREATE SCHEMA orphan_sweeper AUTHORIZATION {role}");
    assert!(refused.stderr.contains(&hint), "{refused:?}");
    kept.database().execute(&format!("CREATE SCHEMA orphan_sweeper AUTHORIZATION {role}")).await;
    kept.world.audit().await;
    Kept::assert_verified(&kept.verify(&[]).await);
    url.set_password(Some("canary-that-is-wrong")).expect("a host");
    kept.world.program.set("ORPHAN_SWEEPER_LEDGER_URL", url.as_str());
    let wrong = kept.world.program.run(&["audit", "-vv", "--log-format", "json"]).await;
    assert_eq!(wrong.code, 1, "{wrong:?}");
    for said in [&refused.stdout, &refused.stderr, &wrong.stdout, &wrong.stderr] {
        assert!(!said.contains("canary"), "{said}");
    }
    for (path, bytes) in kept.world.program.files() {
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_makes_no_ledger_and_a_newer_one_is_left_alone() {
    let kept = Kept::new(Kind::Schema).await;
    let (plan, _) = kept.planned(1).await;
    let database = kept.database();
    database.execute("INSERT INTO orphan_sweeper._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', true, '', 0)").await;
    for command in [vec!["audit"], vec!["apply", &plan, "--yes"], vec!["history"]] {
        let ran = kept.world.program.run(&command).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("was written by a newer version of this program"), "{ran:?}");
    }
    database.execute("DROP SCHEMA orphan_sweeper CASCADE").await;
    let ran = kept.world.program.run(&["apply", &plan, "--yes"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("there is no ledger at `postgres://"), "{ran:?}");
    assert!(ran.stderr.contains("the plan was made with the ledger"), "{ran:?}");
    let made: bool = sqlx::query_scalar("SELECT to_regnamespace('orphan_sweeper') IS NOT NULL")
        .fetch_one(&database.pool)
        .await
        .expect("looked");
    assert!(!made);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_holds_the_lease_and_one_whose_time_is_over_is_free() {
    let kept = Kept::new(Kind::Schema).await;
    kept.world.live(0).await;
    kept.world.audit().await;
    let database = kept.database();
    let leases = async || {
        let count = "SELECT count(*) FROM orphan_sweeper.lease";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&database.pool).await.expect("counted")
    };
    assert_eq!(leases().await, 0, "a run that ends gives it back");
    database.execute("INSERT INTO orphan_sweeper.lease VALUES ('run', gen_random_uuid(), 'process 1 on moon', now() + interval '1 hour')").await;
    let ran = kept.world.program.run(&["audit"]).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("another run holds the ledger: process 1 on moon, for 3"), "{ran:?}");
    let doctor = kept.world.program.run(&["doctor", "--json"]).await.json().to_string();
    assert!(doctor.contains("held by process 1 on moon"), "{doctor}");
    database.execute("UPDATE orphan_sweeper.lease SET expires_at = now()").await;
    kept.world.audit().await;
    assert_eq!(leases().await, 0);
}

/// Another process takes the lease, and the one that had it has asked for it since.
async fn take_the_lease(pool: &sqlx::PgPool) {
    let steal = "UPDATE orphan_sweeper.lease SET holder = gen_random_uuid(), who = 'another', expires_at = now() + interval '1 hour'; \
                 DELETE FROM public.renewals";
    sqlx::raw_sql(steal).execute(pool).await.expect("taken");
    for _ in 0..400 {
        let count = "SELECT count(*) FROM public.renewals";
        if sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.expect("counted") > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nobody renews the lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_loses_its_lease_stops_at_its_batch_and_is_resumed() {
    let mut kept = Kept::new(Kind::Schema).await;
    kept.world.live(0).await;
    kept.world.program.set("ORPHAN_SWEEPER_TEST_LEASE_MS", "3000");
    let pool = kept.database().pool.clone();
    let gate = Gate::open(&kept.world.bucket.endpoint, move |passing| {
        let pool = pool.clone();
        async move {
            if passing.is_batch_delete() && passing.number == 1 {
                take_the_lease(&pool).await;
            }
        }
    })
    .await;
    kept.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let (plan, expected) = kept.planned(2100).await;
    // Whoever asks to renew a lease that is no longer theirs changes no row, and is counted all the same.
    kept.database()
        .execute(
            "CREATE TABLE public.renewals (at timestamptz);
             CREATE FUNCTION public.count_renewal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO public.renewals VALUES (now()); RETURN NULL; END $$;
             CREATE TRIGGER counted AFTER UPDATE ON orphan_sweeper.lease FOR EACH STATEMENT EXECUTE FUNCTION public.count_renewal()",
        )
        .await;
    let ran = kept.world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    let summary = ran.json()[0].clone();
    assert_eq!(summary["outcome"], "interrupted", "{summary:#}");
    assert!(summary["reason"].as_str().expect("a reason").contains("lost the lock of the ledger"), "{summary:#}");
    assert!(kept.world.contents().await.len() > expected.len() + 1000, "it did not go on");
    assert_eq!(kept.world.program.run(&["apply", &plan, "--yes"]).await.code, 6, "another has it");
    kept.database().execute("DELETE FROM orphan_sweeper.lease").await;
    let ran = kept.world.program.run(&["apply", &plan, "--yes", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(kept.world.contents().await, expected);
    Kept::assert_verified(&kept.verify(&[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_process_that_died_is_free_when_its_time_is_over() {
    let mut kept = Kept::new(Kind::Schema).await;
    let (plan, expected) = kept.planned(10).await;
    kept.world.program.set("ORPHAN_SWEEPER_TEST_LEASE_MS", "1000");
    let arguments = ["apply", &plan, "--yes", "--json"];
    let ran = kept.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", "after_send", &arguments).await;
    assert_eq!(ran.code, SIGKILL);
    for attempt in 0.. {
        let ran = kept.world.program.run(&arguments).await;
        if ran.code != 6 {
            assert_eq!(ran.code, 0, "{ran:?}");
            break;
        }
        assert!(attempt < 200, "the lease never ends");
    }
    assert_eq!(kept.world.contents().await, expected);
}

/// Two processes apply one plan at once, and the lock is taken away: every check that counts is another one.
async fn two_at_once(kind: Kind) {
    let mut kept = Kept::new(kind).await;
    let barrier = Arc::new(Barrier::new(2));
    let both = Arc::clone(&barrier);
    // The first two batches wait for one another, so that both processes are in the middle of it.
    let gate = Gate::open(&kept.world.bucket.endpoint, move |passing| {
        let both = Arc::clone(&both);
        async move {
            if passing.is_batch_delete() && passing.number <= 2 {
                tokio::time::timeout(Duration::from_secs(5), both.wait()).await.ok();
            }
        }
    })
    .await;
    kept.world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    kept.world.program.set("ORPHAN_SWEEPER_TEST_NO_LOCK", "1");
    let (plan, expected) = kept.planned(2100).await;
    let before: BTreeSet<String> = kept.world.contents().await.into_keys().collect();
    let arguments = ["apply", plan.as_str(), "--yes", "--json"];
    let (one, two) = tokio::join!(kept.world.program.run(&arguments), kept.world.program.run(&arguments));
    for ran in [&one, &two] {
        assert!([0, 4, 5].contains(&ran.code), "{kind:?}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{kind:?}: {ran:?}");
    }
    assert!([one.code, two.code].contains(&0), "{kind:?}: one did it all: {one:?} {two:?}");
    assert_eq!(kept.world.contents().await, expected, "{kind:?}: what was planned is gone, and nothing else");
    // Each key is told as gone, by whichever asked for it last, or by both.
    let told = kept.told();
    let gone: BTreeSet<String> = before.into_iter().filter(|key| !expected.contains_key(key)).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), gone, "{kind:?}");
    for (key, outcomes) in &told {
        let is_gone = |outcome: &String| ["deleted", "already_gone"].contains(&outcome.as_str());
        assert!(outcomes.iter().any(is_gone), "{kind:?}: {key} {outcomes:?}");
        assert!(!outcomes.iter().any(|outcome| outcome == "unconfirmed"), "{kind:?}: {key} {outcomes:?}");
    }
    let after = kept.world.program.run(&arguments).await;
    assert_eq!(after.code, 4, "{kind:?}: the plan is closed: {after:?}");
    Kept::assert_verified(&kept.verify(&[]).await);
    let audit = kept.world.audit().await;
    assert_eq!(audit["groups"]["orphan"], 0, "{kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn safety_rests_on_no_lock_of_a_file() {
    two_at_once(Kind::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safety_rests_on_no_lock_of_a_schema() {
    two_at_once(Kind::Schema).await;
}

/// Whatever the process was doing when it died, its history verifies.
async fn a_kill_leaves_a_whole_chain(kind: Kind) {
    let mut kept = Kept::new(kind).await;
    let (plan, expected) = kept.planned(1100).await;
    kept.world.program.set("ORPHAN_SWEEPER_TEST_NO_LOCK", "1");
    let arguments = ["apply", plan.as_str(), "--yes", "--json"];
    for step in DELETION_STEPS {
        let ran = kept.world.program.run_with("ORPHAN_SWEEPER_TEST_KILL_AT", step, &arguments).await;
        assert_eq!(ran.code, SIGKILL, "{kind:?} {step}: {ran:?}");
        Kept::assert_verified(&kept.verify(&[]).await);
    }
    let ran = kept.world.program.run(&arguments).await;
    assert_eq!(ran.code, 0, "{kind:?}: {ran:?}");
    assert_eq!(kept.world.contents().await, expected, "{kind:?}");
    assert!(kept.told().values().all(|outcomes| outcomes == &["deleted"]), "{kind:?}: each key is told once");
    Kept::assert_verified(&kept.verify(&[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_leaves_a_chain_that_verifies_in_a_file() {
    a_kill_leaves_a_whole_chain(Kind::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_leaves_a_chain_that_verifies_in_a_schema() {
    a_kill_leaves_a_whole_chain(Kind::Schema).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_changed_is_told_with_its_place() {
    for kind in [Kind::File, Kind::Schema] {
        let kept = Kept::new(kind).await;
        let (plan, _) = kept.planned(2).await;
        let first = kept.world.program.read("summary.json");
        let applied = kept.world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
        let verified = Kept::assert_verified(&kept.verify(&[]).await);
        assert_eq!(verified["reports"], 2, "{verified:#}");
        assert!(verified["entries"].as_u64() > applied["journal"]["entries"].as_u64(), "{verified:#}");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        let head = first["journal"]["head"].as_str().expect("a head").to_owned();
        let verified = Kept::assert_verified(&kept.verify(&["--head", &head]).await);
        assert!(verified["given"]["entries_since"].as_u64() > Some(5), "{verified:#}");
        let shown = kept.world.program.run(&["history", "verify", "--head", &head]).await;
        assert!(shown.stdout.starts_with("verified: ") && shown.stdout.contains("entries came since"), "{shown:?}");
        assert_eq!(kept.verify(&["--head", "abc"]).await.code, 2);
        Kept::assert_fault(&kept.verify(&["--head", &"ab".repeat(32)]).await, "that was given is not in the chain");

        let path = kept.world.program.latest("summary.json");
        let text = std::fs::read_to_string(&path).expect("a report");
        std::fs::write(&path, text.replace("\"deleted\": 4", "\"deleted\": 3")).expect("written");
        Kept::assert_fault(&kept.verify(&[]).await, "summary.json` was edited");
        std::fs::write(&path, &text).expect("written");
        Kept::assert_verified(&kept.verify(&[]).await);
        let edited = json!(applied["journal"]["head"]).to_string();
        std::fs::write(&path, text.replace(&edited, &json!("cd".repeat(32)).to_string())).expect("written");
        Kept::assert_fault(&kept.verify(&[]).await, "is not in the chain");
        std::fs::write(&path, &text).expect("written");

        kept.tamper("UPDATE runs SET outcome = 'failed' WHERE command = 'apply'").await;
        let ran = kept.verify(&[]).await;
        Kept::assert_fault(&ran, "was edited: `outcome` is \"failed\", and was \"complete\"");
        let shown = kept.world.program.run(&["history", "verify"]).await;
        assert!(shown.code == 1 && shown.stdout.starts_with("not verified: run `"), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_ledger_is_told_by_the_reports_beside_it() {
    let kept = Kept::new(Kind::File).await;
    kept.world.live(0).await;
    kept.world.audit().await;
    let program = &kept.world.program;
    assert_eq!(program.run(&["ledger", "backup", "copy.sqlite3"]).await.code, 0);
    kept.world.audit().await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(program.path(&format!("reports/ledger.sqlite3{suffix}"))).ok();
    }
    std::fs::copy(program.path("copy.sqlite3"), program.path("reports/ledger.sqlite3")).expect("put in its place");
    let ran = kept.verify(&[]).await;
    Kept::assert_fault(&ran, "is not in the chain");
    assert!(ran.json()["fault"]["message"].as_str().expect("a message").contains("summary.json"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_stands_in_the_log_and_only_grows() {
    let kept = Kept::new(Kind::File).await;
    kept.world.live(0).await;
    let mut last = 0;
    for _ in 0..2 {
        let ran = kept.world.program.run(&["audit", "--json", "--log-format", "json"]).await;
        let summary = ran.summary(0);
        let mut lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ended = lines.rfind(|line| line["message"] == "run ended").expect("a last line");
        let entries = ended["journal_entries"].as_u64().expect("a number");
        assert!(entries > summary["journal"]["entries"].as_u64().expect("a number"), "{ended}");
        assert!(entries > last);
        last = entries;
        let head = ended["journal_head"].as_str().expect("a head").to_owned();
        let verified = Kept::assert_verified(&kept.verify(&["--head", &head]).await);
        assert_eq!((&verified["head"], &verified["given"]["entries_since"]), (&json!(head), &json!(0)));
    }
}
