//! From arguments to exit code: each command as one short path.
//!
//! Invariant: data goes to stdout, everything else to stderr; with `--json`, stdout is exactly one JSON document.

mod explain;
mod history;
pub(crate) mod hold;
pub(crate) mod plan;
mod purge;
mod restore;
mod runs;
mod selftest;
mod token;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use serde_json::json;

use crate::cli::{Cli, Command, Global, HistoryAction, LedgerAction, SchemaOf};
use crate::clock::{Clock, SystemClock};
use crate::config::secrets::{self, LedgerPlace};
use crate::config::{self, Config, ConfigError, Scope, Variables};
use crate::exit::Exit;
use crate::model::Timestamp;
use crate::record::{Absence, Ledger, LockError, RecordError, RunLock};
use crate::run::failure::chain;
use crate::run::{RunFailure, Services, Stop};
use crate::telemetry::{self, Progress};
use crate::{demo, doctor, report, serve};

/// What the program gets from its host: variables and a clock, which a test or the demo replaces.
#[derive(Debug, Clone)]
pub struct Host {
    /// The environment variables.
    pub variables: Variables,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Host {
    /// The host of this process.
    #[must_use]
    pub fn of_process() -> Self {
        // A variable that is not Unicode is none of ours.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: variables.collect(), clock: Arc::new(SystemClock) }
    }
}

/// Why a command ended without a run's report.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) exit: Exit,
}

impl CommandError {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), exit: Exit::Usage }
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::NotFound(_) => "copy the example config.toml, or name a file with --config",
            ConfigError::Unreadable { .. } => "check the path and the rights of the file",
            ConfigError::Wrong { .. } => "correct the lines above; config.toml of the project shows every key",
        };
        Self { message: chain(&error), hint: Some(hint.to_owned()), exit: Exit::Usage }
    }
}

impl From<RecordError> for CommandError {
    fn from(error: RecordError) -> Self {
        match &error {
            RecordError::Absent(_) => Self {
                message: chain(&error),
                hint: Some(
                    "an `audit` makes one; if there was one, restore its backup: sightings and plans are in it".into(),
                ),
                exit: Exit::Failed,
            },
            RecordError::BackupOfDatabase { hint } => {
                let hint = hint.clone();
                Self::usage(chain(&error), hint)
            }
            RecordError::BackupExists(_) => Self::usage(chain(&error), "name a file that is not there yet"),
            _ => RunFailure::Record(error).into(),
        }
    }
}

impl From<RunFailure> for CommandError {
    fn from(failure: RunFailure) -> Self {
        Self { message: failure.chain(), hint: failure.hint(), exit: failure.exit() }
    }
}

impl From<LockError> for CommandError {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held(_) => Self {
                message: chain(&error),
                hint: Some("wait for it to end; the lock of a run that died is free".into()),
                exit: Exit::Locked,
            },
            LockError::Leased { .. } => Self {
                message: chain(&error),
                hint: Some("wait for it to end; the lock of a run that died is free when its time is over".into()),
                exit: Exit::Locked,
            },
            LockError::Io { .. } => Self {
                message: chain(&error),
                hint: Some("check the rights of the ledger's folder".into()),
                exit: Exit::Failed,
            },
            LockError::Lease(_) => Self {
                message: chain(&error),
                hint: Some("check that the ledger's database answers".into()),
                exit: Exit::Failed,
            },
        }
    }
}

/// Runs the program with `arguments` on `host`; gives its exit code.
#[must_use]
pub fn main_with(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>, host: &Host) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // What was typed cannot be read, but a script that asked for JSON is answered in it.
            if arguments.iter().any(|argument| argument == "--json") {
                let (message, hint) = (error.render().to_string(), "see `orphan-sweeper --help`");
                print_json(
                    &json!({ "error": { "message": message.trim().trim_start_matches("error: "), "hint": hint } }),
                );
            }
            let _ = error.print();
            return ExitCode::from(Exit::Usage.code());
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::from(Exit::Done.code());
        }
    };
    let progress = Progress::new(!cli.global.no_progress && !cli.global.quiet);
    let verbosity = if cli.global.quiet { -1 } else { i8::try_from(cli.global.verbose).unwrap_or(i8::MAX) };
    telemetry::start(cli.global.log_format, verbosity, &progress);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime could not be started: {error}");
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let is_json = cli.global.json;
    let exit = match runtime.block_on(run(cli, host, progress)) {
        Ok(exit) => exit,
        Err(error) => {
            print_error(&error, is_json);
            error.exit
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ExitCode::from(exit.code())
}

fn print_error(error: &CommandError, is_json: bool) {
    if is_json {
        print_json(&json!({ "error": { "message": error.message, "hint": error.hint } }));
    }
    eprintln!("error: {}", error.message);
    if let Some(hint) = &error.hint {
        eprintln!("hint: {hint}");
    }
}

/// Prints one JSON document. A reader that hung up is no failure of ours.
pub(crate) fn print_json(document: &serde_json::Value) {
    print_text(&format!("{document:#}\n"));
}

/// Prints data to stdout.
pub(crate) fn print_text(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn run(cli: Cli, host: &Host, progress: Progress) -> Result<Exit, CommandError> {
    let Cli { global, command } = cli;
    match command {
        Command::Schema { report } => {
            let schema = match report {
                SchemaOf::Summary => report::summary_schema(),
                SchemaOf::Plan => report::plan_schema(),
            };
            print_json(schema.as_value());
            Ok(Exit::Done)
        }
        Command::Demo { dir } => demo::run(dir, &global, progress).await,
        Command::Audit { fail_on_orphans } => runs::audit(&global, host, progress, fail_on_orphans).await,
        Command::Backfill { created_before } => runs::backfill(&global, host, progress, &created_before).await,
        Command::Apply { plan, dry_run, yes, allow, accept_empty_references, pace } => {
            let arguments = runs::ApplyArguments { plan, dry_run, yes, allow, accept_empty_references, pace };
            runs::apply(&global, host, progress, arguments).await
        }
        Command::Sweep { dry_run } => runs::sweep(&global, host, progress, dry_run).await,
        Command::Restore { run, dataset, dry_run, yes } => {
            let arguments = restore::RestoreArguments { run, dataset, dry_run, yes };
            restore::restore(&global, host, progress, arguments).await
        }
        Command::Purge { target, dry_run, yes } => {
            let arguments = purge::PurgeArguments { target, dry_run, yes };
            // Boxed, so that the other commands stay small.
            Box::pin(purge::purge(&global, host, progress, arguments)).await
        }
        Command::Serve => serve::serve(&global, host, progress).await,
        Command::History { action: Some(HistoryAction::Verify { head }), .. } => {
            verify::verify(&global, host, head).await
        }
        Command::History { action: None, run, healthy } => history::history(&global, host, run, healthy).await,
        Command::Explain { id } => explain::explain(&global, host, &id).await,
        Command::Plan { action } => plan::plan(&global, host, action).await,
        Command::Hold { action } => hold::hold(&global, host, action).await,
        Command::Ack { breaker, by, reason } => history::acknowledge(&global, host, &breaker, &by, &reason).await,
        Command::Token { action } => token::token(&global, host, action).await,
        Command::Selftest { yes, clean_up } => {
            Box::pin(selftest::selftest(&global, host, progress, yes, clean_up)).await
        }
        Command::Doctor { probe } => doctor::doctor(&global, host, probe).await,
        Command::Ledger { action: LedgerAction::Backup { file } } => {
            let config = load(&global, host)?;
            let ledger = open_ledger(&config, host).await?;
            ledger.backup(&file).await?;
            let shown = file.display().to_string();
            if global.json {
                print_json(&json!({ "backup": shown }));
            } else {
                print_text(&format!("ledger copied to {shown}\n"));
            }
            Ok(Exit::Done)
        }
    }
}

/// Loads the configuration.
pub(crate) fn load(global: &Global, host: &Host) -> Result<Config, CommandError> {
    Ok(config::load(global.config.as_deref(), &host.variables)?)
}

/// The scopes that a command is about.
pub(crate) fn scopes<'c>(config: &'c Config, global: &Global) -> Result<Vec<&'c Scope>, CommandError> {
    let Some(name) = &global.scope else { return Ok(config.scopes.iter().collect()) };
    if let Some(scope) = config.scopes.iter().find(|scope| scope.name == *name) {
        return Ok(vec![scope]);
    }
    let known: Vec<&str> = config.scopes.iter().map(|scope| scope.name.as_str()).collect();
    Err(CommandError::usage(
        format!("there is no scope `{name}`"),
        format!("the configuration has: {}", known.join(", ")),
    ))
}

/// The one scope that a command is about.
pub(crate) fn only_scope<'c>(config: &'c Config, global: &Global) -> Result<&'c Scope, CommandError> {
    match scopes(config, global)?.as_slice() {
        [scope] => Ok(scope),
        _ => Err(CommandError::usage("the configuration has several scopes", "name one with --scope")),
    }
}

/// Takes the lock and opens, or makes, the ledger.
pub(crate) async fn services(
    config: Config,
    host: &Host,
    progress: Progress,
    stop: Stop,
) -> Result<(Services, RunLock), CommandError> {
    let place = ledger_place(&config, host)?;
    let (ledger, lock) = open_locked(&place, Absence::Make, host.clock.now(), &stop).await?;
    Ok((Services { config, clock: host.clock.clone(), ledger, stop, progress }, lock))
}

/// Where the ledger is kept, with what an operator should know of it.
pub(crate) fn ledger_place(config: &Config, host: &Host) -> Result<LedgerPlace, CommandError> {
    let place = secrets::ledger(config, &host.variables).map_err(RunFailure::Secret)?;
    if let LedgerPlace::Database(url) = &place {
        let shared = secrets::database(config, &host.variables).ok().and_then(|live| secrets::shared_role(url, &live));
        url.warning.iter().chain(&shared).for_each(|warning| tracing::warn!("{warning}"));
    }
    Ok(place)
}

/// Opens the ledger, which must be there.
pub(crate) async fn open_ledger(config: &Config, host: &Host) -> Result<Ledger, CommandError> {
    let place = ledger_place(config, host)?;
    Ok(Ledger::open(&place, Absence::Refuse, host.clock.now()).await?)
}

/// Why there is no ledger to run with.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// It cannot be opened.
    Record(RecordError),
    /// Another run has it.
    Lock(LockError),
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Record(error) => error.into(),
            OpenError::Lock(error) => error.into(),
        }
    }
}

/// Takes the lock and opens the ledger. A run that loses the lock is asked to stop.
pub(crate) async fn open_locked(
    place: &LedgerPlace,
    absence: Absence,
    now: Timestamp,
    stop: &Stop,
) -> Result<(Ledger, RunLock), OpenError> {
    // The lock of a file comes first: a ledger that a run uses is not migrated below it, and a folder of none gets no lock.
    let early = match (place, absence) {
        (LedgerPlace::File(path), Absence::Refuse) if !path.exists() => None,
        (LedgerPlace::File(path), _) => {
            Ledger::prepare_folder(path).map_err(OpenError::Record)?;
            Some(RunLock::take(path).map_err(OpenError::Lock)?)
        }
        (LedgerPlace::Database(_), _) => None,
    };
    let ledger = Ledger::open(place, absence, now).await.map_err(OpenError::Record)?;
    let lock = match early {
        Some(lock) => lock,
        None => ledger.lock(stop.when_lock_is_lost()).await.map_err(OpenError::Lock)?,
    };
    Ok((ledger, lock))
}
