//! Secrets are shown to nobody: canaries stand in every one of them, and whatever the program says or writes is searched.

use futures::StreamExt;

use crate::support::sts::Temporary;
use crate::support::{Program, Ran, World, readme_block};

/// A secret, under the name that a failure tells.
type Canary = (&'static str, String);

/// What a text must not hold, in any of these spellings.
fn spellings(canary: &str) -> Vec<String> {
    use base64::Engine as _;
    let encoded: String = url::form_urlencoded::byte_serialize(canary.as_bytes()).collect();
    // A URL-encoded or quoted session token is still the token.
    let mut spellings = vec![canary.to_owned(), encoded, base64::engine::general_purpose::STANDARD.encode(canary)];
    spellings.dedup();
    spellings
}

#[track_caller]
fn search(canaries: &[Canary], place: &str, bytes: &[u8]) {
    for (name, canary) in canaries {
        assert!(canary.len() >= 12, "{name} is too short to be told from anything else");
        for spelling in spellings(canary) {
            let needle = spelling.as_bytes();
            let found = bytes.windows(needle.len()).position(|window| window == needle);
            if let Some(found) = found {
                let around = &bytes[found.saturating_sub(120)..(found + needle.len() + 60).min(bytes.len())];
                panic!("{name} stands in {place}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }
}

/// Searches what a command said, and every file under the folder: reports, ledger, its log and its lock.
#[track_caller]
fn search_everything(canaries: &[Canary], program: &Program, what: &str, ran: &Ran) {
    search(canaries, &format!("{what}: stdout"), ran.stdout.as_bytes());
    search(canaries, &format!("{what}: stderr"), ran.stderr.as_bytes());
    for (path, bytes) in program.files() {
        search(canaries, &format!("{what}: {}", path.display()), &bytes);
    }
}

/// The most talkative manners.
const TALKATIVE: [&[&str]; 2] = [&["-vv", "--log-format", "json", "--json"], &["-vv"]];

/// Runs a command and searches everything.
async fn run(canaries: &[Canary], program: &Program, what: &str, arguments: &[&str]) -> Ran {
    let ran = program.run(arguments).await;
    search_everything(canaries, program, &format!("{what} {arguments:?}"), &ran);
    ran
}

/// Runs the commands that use secrets; none may show one, and at least one must fail with this in its words.
async fn run_failing(canaries: &[Canary], program: &Program, plan: &str, what: &str, says: &str) {
    let mut said = String::new();
    let commands = [
        vec!["audit"],
        vec!["apply", plan, "--yes"],
        vec!["explain", "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10"],
        vec!["doctor"],
    ];
    for (command, manner) in commands.iter().zip(TALKATIVE.iter().cycle()) {
        let arguments: Vec<&str> = command.iter().chain(*manner).copied().collect();
        let ran = run(canaries, program, what, &arguments).await;
        if ran.code != 0 {
            said.push_str(&ran.stderr);
        }
    }
    assert!(said.contains(says), "{what}: no command failed with `{says}`: {said}");
}

/// A world whose every secret is a canary: temporary pairs for looking and deleting, and a password of the role.
async fn world() -> (World, Vec<Canary>) {
    let mut world = World::new().await;
    let password = "CanaryDatabasePassword";
    let role = world.database.role.clone();
    world.database.execute(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await;
    let url = world.database.reader_url().replace("change-me", password);
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", &url);
    let policy = |heading: &str| readme_block(heading, "json").replace("heimdall-synthetic-iq", &world.bucket.name);
    let looking = Temporary::with_policy(&world.bucket, &policy("The pair that looks")).await;
    let deleting = Temporary::with_policy(&world.bucket, &policy("The pair that deletes")).await;
    looking.read_with(&mut world.program);
    deleting.delete_with(&mut world.program);
    let canaries = vec![
        ("the access key", looking.access_key),
        ("the secret key", looking.secret_key),
        ("the session token", looking.session_token),
        ("the deleting access key", deleting.access_key),
        ("the deleting secret key", deleting.secret_key),
        ("the deleting session token", deleting.session_token),
        ("the database password", password.to_owned()),
        ("the database address", url),
    ];
    (world, canaries)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_what_it_looks_for() {
    let program = Program::bare("http://127.0.0.1:9", "bucket", "postgres://x@127.0.0.1:9/x");
    let canaries = [("a canary", "CanaryThatIsThere==".to_owned())];
    for (place, text) in [
        ("plain", "xx CanaryThatIsThere== xx"),
        ("encoded", "a=CanaryThatIsThere%3D%3D&b"),
        ("base64", "Q2FuYXJ5VGhhdElzVGhlcmU9PQ=="),
    ] {
        let found = std::panic::catch_unwind(|| search(&canaries, place, text.as_bytes()));
        assert!(found.is_err(), "{place}");
    }
    std::fs::create_dir_all(program.path("reports/deep/er")).expect("made");
    std::fs::write(program.path("reports/deep/er/.hidden"), "CanaryThatIsThere==").expect("written");
    let ran = Ran { code: 0, stdout: String::new(), stderr: String::new() };
    let found = std::panic::catch_unwind(|| search_everything(&canaries, &program, "a file", &ran));
    assert!(found.is_err(), "every file is searched");
}

#[tokio::test(flavor = "multi_thread")]
async fn right_secrets_are_used_and_never_shown() {
    let (world, canaries) = world().await;
    world.live(0).await;
    world.orphan(0).await;
    world.settle().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    let plan = world.plan_of_newest_audit();
    let commands = [
        vec!["audit"],
        vec!["sweep"],
        vec!["doctor"],
        vec!["explain", "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10"],
        vec!["apply", &plan, "--dry-run"],
        vec!["apply", &plan, "--yes"],
        vec!["history"],
        vec!["plan", "show", &plan],
        vec!["hold", "list"],
        vec!["ledger", "backup", "copy.sqlite3"],
    ];
    for (position, command) in commands.iter().enumerate() {
        let arguments: Vec<&str> = command.iter().chain(TALKATIVE[position % 2]).copied().collect();
        let ran = run(&canaries, &world.program, "right secrets", &arguments).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(world.contents().await.len(), 1, "the plan was applied");
    assert!(
        world.program.files().iter().any(|(path, _)| path.ends_with("ledger.sqlite3")),
        "the ledger was searched too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secrets_fail_and_are_not_shown_either() {
    let (world, mut canaries) = world().await;
    world.live(0).await;
    world.orphan(0).await;
    world.settle().await;
    let before = world.contents().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    let url = world.program.variables["ORPHAN_SWEEPER_DATABASE_URL"].clone();
    let wrong = "CanaryThatIsWrong";
    canaries.push(("what is wrong", wrong.to_owned()));
    let cases = [
        ("AWS_ACCESS_KEY_ID", wrong.to_owned(), "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", wrong.to_owned(), "SignatureDoesNotMatch"),
        ("AWS_SESSION_TOKEN", wrong.to_owned(), "InvalidToken"),
        ("AWS_SECRET_ACCESS_KEY", format!("{wrong}\u{1}\n"), "error"),
        ("AWS_SESSION_TOKEN", format!("{wrong}\u{1}\n"), "error"),
        ("AWS_ACCESS_KEY_ID", String::new(), "credential"),
        ("ORPHAN_SWEEPER_DATABASE_URL", url.replace("CanaryDatabasePassword", wrong), "password authentication failed"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{wrong}@127.0.0.1:1/d"), "failed to connect"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u@127.0.0.1:1/d?password={wrong}"), "failed to connect"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{wrong}@no.such.host.invalid/d"), "failed to connect"),
        (
            "ORPHAN_SWEEPER_DATABASE_URL",
            format!("postgres://u:{wrong}@127.0.0.1:1/d?sslmode={wrong}"),
            "an option that cannot be read",
        ),
        (
            "ORPHAN_SWEEPER_DATABASE_URL",
            format!("postgres://u:{wrong}@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nowhere"),
            "failed to connect",
        ),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{wrong}@127.0.0.1:port/d"), "cannot be read"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{wrong}@[::1/d"), "cannot be read"),
        // A password that was not percent-encoded: what follows its slash reads as a path, or its hash sign as the end.
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:1/{wrong}@127.0.0.1:1/d"), "error"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:1?{wrong}@127.0.0.1:1/d"), "error"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:1#{wrong}@127.0.0.1:1/d"), "error"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{wrong}#x@127.0.0.1:1/d"), "error"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("mysql://u:{wrong}@127.0.0.1:1/d"), "neither postgres nor sqlite"),
        ("ORPHAN_SWEEPER_DATABASE_URL", format!("u:{wrong}@127.0.0.1:1/d"), "neither postgres nor sqlite"),
        ("ORPHAN_SWEEPER_DATABASE_URL", wrong.to_owned(), "has no scheme"),
        ("DATABASE_URL", format!("postgres://u:{wrong}@127.0.0.1:1/d"), "name different addresses"),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT", format!("http://u:{wrong}@127.0.0.1:1"), "holds credentials"),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT", format!("http://127.0.0.1:1/?key={wrong}"), "more than scheme"),
        ("ORPHAN_SWEEPER__STORE__ENDPOINT", format!("http://u:{wrong}@[::1"), "is no address"),
        // Where it does not belong.
        ("ORPHAN_SWEEPER__STORE__SECRET_KEY", wrong.to_owned(), "no known key"),
        ("ORPHAN_SWEEPER__STORE", wrong.to_owned(), "is a text"),
        ("ORPHAN_SWEEPER__DATABASE__URL", format!("postgres://u:{wrong}@127.0.0.1:1/d"), "no known key"),
        ("ORPHAN_SWEEPER__DATABASE_URL", format!("postgres://u:{wrong}@127.0.0.1:1/d"), "no known key"),
        ("ORPHAN_SWEEPER__DATABASE__URL_FILE", format!("postgres://u:{wrong}@127.0.0.1:1/d"), "database.url_file"),
        ("ORPHAN_SWEEPER__STORE__DELETE__SECRET_KEY_FILE", wrong.to_owned(), "stands alone"),
    ];
    // Each in a folder of its own, with the ledger and the plan, so that every command comes as far as it can.
    let (world, canaries) = (&world, &canaries);
    let runs = cases.into_iter().map(|(variable, value, says)| async move {
        let mut program = copy_of(&world.program);
        program.set(variable, &value);
        let plan = program.run_folders()[0].join("plan.json").display().to_string();
        run_failing(canaries, &program, &plan, &format!("{variable}={}", value.escape_debug()), says).await;
    });
    futures::stream::iter(runs).buffer_unordered(4).collect::<()>().await;
    assert_eq!(world.contents().await, before);
}

fn copy_of(program: &Program) -> Program {
    let copy = Program { folder: tempfile::tempdir().expect("a folder"), variables: program.variables.clone() };
    for (path, bytes) in program.files() {
        let target = copy.folder.path().join(path.strip_prefix(program.folder.path()).expect("inside"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        std::fs::write(target, bytes).expect("written");
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_files_that_are_wrong_or_misplaced_are_not_shown() {
    let (mut world, mut canaries) = world().await;
    world.live(0).await;
    world.orphan(0).await;
    world.settle().await;
    assert_eq!(world.program.run(&["audit"]).await.code, 0);
    let plan = world.plan_of_newest_audit();
    let wrong = "CanaryInAFile";
    canaries.push(("what is wrong", wrong.to_owned()));
    let secrets = tempfile::tempdir().expect("a folder");
    let file = secrets.path().join("secret");
    let path = file.display().to_string();
    for (content, says) in [
        (format!("postgres://u:{wrong}@127.0.0.1:port/d"), "cannot be read"),
        (format!("{wrong}\npostgres://u:{wrong}@127.0.0.1:1/d"), "error"),
        (format!("postgres://u:{wrong}@127.0.0.1:1/d\n"), "name different addresses"),
    ] {
        std::fs::write(&file, content).expect("written");
        world.program.set("ORPHAN_SWEEPER__DATABASE__URL_FILE", &path);
        world.program.unset("ORPHAN_SWEEPER_DATABASE_URL");
        if says == "name different addresses" {
            let (_, url) = canaries.iter().find(|(name, _)| *name == "the database address").expect("there");
            world.program.set("ORPHAN_SWEEPER_DATABASE_URL", url);
        }
        run_failing(&canaries, &world.program, &plan, says, says).await;
    }
    world.program.unset("ORPHAN_SWEEPER__DATABASE__URL_FILE");
    // The secret itself where a path belongs.
    for name in ["ACCESS_KEY_FILE", "SECRET_KEY_FILE"] {
        world.program.set(&format!("ORPHAN_SWEEPER__STORE__{name}"), wrong);
    }
    run_failing(&canaries, &world.program, &plan, "a secret for a path", "store.access_key_file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_written_into_the_configuration_are_refused_and_not_repeated() {
    let (world, _) = world().await;
    let wrong = "CanaryInTheConfiguration";
    let canaries = [("what is written there", wrong.to_owned())];
    for (from, to) in [
        ("[database]", format!("[database]\nurl = \"postgres://u:{wrong}@127.0.0.1/d\"")),
        ("[store]", format!("[store]\nsecret_key = \"{wrong}\"")),
        ("[store]", format!("[store]\nsecret_key = {wrong}")),
        ("[store]", format!("[store]\nsecret_key = \"{wrong}")),
        ("[store]", format!("[store]\nsecret_key : {wrong}")),
        ("[store]", format!("{wrong}\n[store]")),
        ("[store]", format!("[store]\nca_file = [\"{wrong}\"]")),
        ("endpoint   = \"http://127.0.0.1:9000\"", format!("endpoint = \"http://u:{wrong}@127.0.0.1:9000\"")),
    ] {
        let mut program =
            Program { folder: tempfile::tempdir().expect("a folder"), variables: world.program.variables.clone() };
        program.unset("ORPHAN_SWEEPER__STORE__ENDPOINT");
        std::fs::copy(world.program.path("config.toml"), program.path("config.toml")).expect("copied");
        program.edit_config(|text| text.replacen(from, &to, 1));
        for arguments in [vec!["audit", "-vv", "--json"], vec!["audit"], vec!["doctor", "--json"], vec!["history"]] {
            let ran = program.run(&arguments).await;
            assert_ne!(ran.code, 0, "{to}: {ran:?}");
            search(&canaries, &format!("{to}: stdout"), ran.stdout.as_bytes());
            search(&canaries, &format!("{to}: stderr"), ran.stderr.as_bytes());
            assert!(!program.path("reports").exists(), "no run began");
        }
    }
}
