//! audit, backfill, apply, sweep: the commands that begin runs.

use super::{CommandError, Host, OpenError, ledger_place, load, open_locked, print_json, print_text, scopes, services};
use crate::cli::{Global, PaceFlags};
use crate::config::secrets;
use crate::config::{Config, Scope};
use crate::decide::breakers::Allowances;
use crate::dispose::pace::{Pace, PauseWindow};
use crate::exit::Exit;
use crate::model::{Mode, Timestamp};
use crate::plan::{Backfill, VerifiedPlan};
use crate::record::{Absence, RecordError, RunLock};
use crate::run::apply::find_plan;
use crate::run::confirm::can_ask;
use crate::run::{ApplyJob, Job, Keyring, RunFailure, ScopeEnd, Services, Stop, run_scope};
use crate::serve::signals;
use crate::telemetry::Progress;

/// `apply` as typed.
pub(super) struct ApplyArguments {
    pub(super) plan: String,
    pub(super) dry_run: bool,
    pub(super) yes: bool,
    pub(super) allow: Vec<String>,
    pub(super) accept_empty_references: Option<String>,
    pub(super) pace: PaceFlags,
}

/// Reads how fast, how long and when.
fn read_pace(flags: &PaceFlags) -> Result<Pace, CommandError> {
    let max_runtime = match &flags.max_runtime {
        None => None,
        Some(text) => Some(humantime::parse_duration(text).map_err(|error| {
            CommandError::usage(
                format!("`{text}` is no duration: {error}"),
                "write a duration such as --max-runtime 2h",
            )
        })?),
    };
    let pause = match &flags.pause_window {
        None => None,
        Some(window) => Some(PauseWindow::parse(window, &flags.pause_timezone).map_err(|error| {
            let hint = "write --pause-window 08:00-18:00, and a zone such as --pause-timezone Europe/Berlin";
            CommandError::usage(error.to_string(), hint)
        })?),
    };
    Ok(Pace { objects_per_second: flags.objects_per_second, max_runtime, pause })
}

pub(super) fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Live }
}

pub(super) async fn audit(
    global: &Global,
    host: &Host,
    progress: Progress,
    fail_on_orphans: bool,
) -> Result<Exit, CommandError> {
    run_scopes(global, host, progress, &Job::Audit { fail_on_orphans }).await
}

pub(super) async fn backfill(
    global: &Global,
    host: &Host,
    progress: Progress,
    created_before: &str,
) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let backfill = Backfill { created_before: read_date(created_before)? };
    for scope in scopes(&config, global)? {
        check_date(backfill.created_before, scope, host.clock.now())?;
    }
    run_scopes(global, host, progress, &Job::Backfill(backfill)).await
}

const DATE_HINT: &str = "write a date such as 2024-01-01, or an RFC 3339 time such as 2024-01-01T12:00:00Z";

/// Reads a date, which means its midnight in UTC, or a time with its offset.
fn read_date(text: &str) -> Result<Timestamp, CommandError> {
    let date = text.parse::<chrono::NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    let moment = date.map(|midnight| midnight.and_utc());
    let moment = moment.or_else(|| chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()));
    moment.ok_or_else(|| CommandError::usage(format!("`{text}` is no date"), DATE_HINT))
}

/// A backfill is for what is old: its date must be past by the grace of the scope.
fn check_date(created_before: Timestamp, scope: &Scope, now: Timestamp) -> Result<(), CommandError> {
    let shown = crate::report::csv::time(created_before);
    if created_before > now {
        let hint = "a backfill is for historical leaks; write a date that is past";
        return Err(CommandError::usage(format!("--created-before {shown} lies in the future"), hint));
    }
    let grace = scope.policy.grace;
    if now - created_before < grace.span() {
        let (name, grace) = (&scope.name, humantime::format_duration(grace.0));
        return Err(CommandError::usage(
            format!("--created-before {shown} is not past by the grace of scope `{name}`, {grace}"),
            "objects younger than grace are never deleted; write an earlier date",
        ));
    }
    Ok(())
}

pub(super) async fn sweep(
    global: &Global,
    host: &Host,
    progress: Progress,
    dry_run: bool,
) -> Result<Exit, CommandError> {
    run_scopes(global, host, progress, &Job::Sweep { mode: mode(dry_run) }).await
}

async fn run_scopes(global: &Global, host: &Host, progress: Progress, job: &Job) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let names: Vec<String> = scopes(&config, global)?.iter().map(|scope| scope.name.clone()).collect();
    check_secrets(&config, host)?;
    let keyring = Keyring::new(host.variables.clone());
    let (services, _lock) = services(config, host, progress, stop_on_signals()).await?;
    let (mut ends, mut failures) = (Vec::new(), Vec::new());
    for scope in services.config.scopes.iter().filter(|scope| names.contains(&scope.name)) {
        match run_scope(&services, &keyring, scope, job).await {
            Ok(end) => ends.push(end),
            // Scopes run independently: one that could not even begin is no reason to leave out the next.
            Err(failure) => failures.push((scope.name.clone(), failure)),
        }
        if services.stop.token.is_cancelled() {
            break;
        }
    }
    if ends.is_empty()
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure.into());
    }
    let told = tell(&ends, global);
    for (scope, failure) in &failures {
        eprintln!("error: scope {scope}: {}", failure.chain());
    }
    Ok(Exit::of_all(failures.iter().map(|(_, failure)| failure.exit()).chain([told])))
}

/// Missing secrets are a mistake of the set-up, to be told before a run begins.
pub(super) fn check_secrets(config: &Config, host: &Host) -> Result<(), CommandError> {
    let store = secrets::store(config, &host.variables).map(drop);
    let database = secrets::database(config, &host.variables).map(drop);
    let ledger = secrets::ledger(config, &host.variables).map(drop);
    store.and(database).and(ledger).map_err(|error| RunFailure::Secret(error).into())
}

pub(super) fn stop_on_signals() -> Stop {
    let stop = Stop::default();
    signals::listen(stop.clone());
    stop
}

/// Prints what became of the runs; gives the one exit code.
pub(super) fn tell(ends: &[ScopeEnd], global: &Global) -> Exit {
    if global.json {
        let summaries: Vec<_> =
            ends.iter().map(|end| serde_json::to_value(&end.summary).expect("a summary is serializable")).collect();
        print_json(&serde_json::Value::Array(summaries));
    } else {
        let texts: Vec<&str> = ends.iter().map(|end| end.text.trim_end()).collect();
        print_text(&format!("{}\n", texts.join("\n\n")));
    }
    for end in ends {
        if end.exit == Exit::Done || end.exit == Exit::OrphansFound {
            continue;
        }
        if let Some(reason) = &end.summary.reason {
            eprintln!("error: scope {}: {reason}", end.summary.scope);
        }
        if let Some(hint) = &end.hint {
            eprintln!("hint: {hint}");
        }
    }
    Exit::of_all(ends.iter().map(|end| end.exit))
}

pub(super) async fn apply(
    global: &Global,
    host: &Host,
    progress: Progress,
    arguments: ApplyArguments,
) -> Result<Exit, CommandError> {
    let mut allowances = Allowances::default();
    for text in &arguments.allow {
        allowances
            .add(text)
            .map_err(|error| CommandError::usage(error.to_string(), "see `orphan-sweeper apply --help`"))?;
    }
    let pace = read_pace(&arguments.pace)?;
    let config = load(global, host)?;
    if !arguments.yes && !arguments.dry_run && !can_ask() {
        return Err(CommandError::usage(
            "nobody can be asked here whether to delete",
            "add --yes, or --dry-run to look first",
        ));
    }
    check_secrets(&config, host)?;
    let keyring = Keyring::new(host.variables.clone());
    let (services, _lock) = existing_services(config, host, progress, &arguments.plan).await?;
    let source = find_plan(&services.ledger, &arguments.plan).await?;
    check_accepted(arguments.accept_empty_references.as_deref(), &source.verified)?;
    let scope = scope_of_plan(&services, &source.verified.plan.scope, global)?;
    let job = Job::Apply(Box::new(ApplyJob {
        source,
        mode: mode(arguments.dry_run),
        allowances,
        asks_first: !arguments.yes,
        accepts_empty_references: arguments.accept_empty_references.is_some(),
        pace,
    }));
    let end = run_scope(&services, &keyring, scope, &job).await?;
    Ok(tell(&[end], global))
}

/// What a person accepts is accepted for one plan, named by its whole hash.
fn check_accepted(accepted: Option<&str>, plan: &VerifiedPlan) -> Result<(), CommandError> {
    let hash = plan.hash.to_string();
    match accepted.filter(|accepted| *accepted != hash) {
        None => Ok(()),
        Some(accepted) => Err(CommandError {
            message: format!("`--accept-empty-references {accepted}` does not name this plan, {hash}"),
            hint: Some("write the whole hash of the plan that is applied, once you know why the table is empty".into()),
            exit: Exit::Refused,
        }),
    }
}

fn scope_of_plan<'s>(services: &'s Services, name: &str, global: &Global) -> Result<&'s Scope, CommandError> {
    let wanted = global.scope.as_deref().unwrap_or(name);
    let refused = |message: String| CommandError {
        message,
        hint: Some("check --config and --scope".into()),
        exit: Exit::Refused,
    };
    if wanted != name {
        return Err(refused(format!("the plan is for the scope `{name}`, not `{wanted}`")));
    }
    let scope = services.config.scopes.iter().find(|scope| scope.name == name);
    scope.ok_or_else(|| refused(format!("the plan is for the scope `{name}`, which the configuration does not have")))
}

/// Takes the lock and opens the ledger, which `apply` never makes: a plan without the ledger that issued it is nothing.
async fn existing_services(
    config: Config,
    host: &Host,
    progress: Progress,
    plan: &str,
) -> Result<(Services, RunLock), CommandError> {
    let hint = "apply a plan where it was made, with the ledger that issued it";
    let origin = || {
        let made = std::fs::read(plan).ok().and_then(|bytes| crate::plan::verify(&bytes).ok());
        made.map_or(String::new(), |plan| {
            format!("; the plan was made with the ledger {} at `{}`", plan.plan.ledger.id, plan.plan.ledger.path)
        })
    };
    existing_ledger(config, host, progress, (origin, hint)).await
}

/// Takes the lock and opens the ledger, which must be there; `origin` and `hint` say more where it is not.
pub(super) async fn existing_ledger(
    config: Config,
    host: &Host,
    progress: Progress,
    (origin, hint): (impl Fn() -> String, &str),
) -> Result<(Services, RunLock), CommandError> {
    let (place, stop) = (ledger_place(&config, host)?, stop_on_signals());
    let (ledger, lock) = match open_locked(&place, Absence::Refuse, host.clock.now(), &stop).await {
        Err(OpenError::Record(absent @ RecordError::Absent(_))) => {
            let message = format!("{absent}{}", origin());
            return Err(CommandError { message, hint: Some(hint.into()), exit: Exit::Refused });
        }
        opened => opened?,
    };
    Ok((Services { config, clock: host.clock.clone(), ledger, stop, progress }, lock))
}
