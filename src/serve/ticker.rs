//! The daemon: a ticker that only rings, and one runner that looks at the calendar and runs one scope at a time.
//!
//! The scheduler library starts overlapping runs and waits for nothing at shutdown, so no work is done in its jobs.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_cron_scheduler::{Job as Ring, JobScheduler};

use super::desk::Desk;
use super::due::{Due, due};
use super::exporter::Exporter;
use super::health::Health;
use super::notify_systemd::{self, State};
use super::triggers::{TriggerCommand, TriggerEnd, Triggers};
use super::{App, http, purges, router, signals};
use crate::cli::Global;
use crate::command::{CommandError, Host, ledger_place, load, scopes};
use crate::config::secrets::LedgerPlace;
use crate::config::{ScheduledCommand, Scope, Variables};
use crate::exit::Exit;
use crate::model::{Mode, Timestamp};
use crate::record::{Absence, Ledger, LockError, RecordError, RunLock};
use crate::run::{Job, Keyring, Services, Stop, run_scope};
use crate::telemetry::Progress;

/// How often the calendar is looked at.
const EVERY_15_SECONDS: &str = "*/15 * * * * *";
/// Reports that callers of the API read at a time.
const MOST_READERS: usize = 4;
/// Purges whose objects are removed at a time.
const MOST_CLEANERS: usize = 4;

/// Runs the schedule, and what callers of the API ask for, until SIGINT or SIGTERM.
///
/// - Errors: configuration, a ledger that cannot be used, or an address that is taken.
pub async fn serve(global: &Global, host: &Host, progress: Progress) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let scheduled: Vec<String> = scopes(&config, global)?
        .iter()
        .filter(|scope| scope.schedule.is_some())
        .map(|scope| scope.name.clone())
        .collect();
    if scheduled.is_empty() && config.serve.listen.is_none() {
        return Err(CommandError::usage(
            "no scope has a schedule, and the API is off",
            "add [scope.schedule] with cron = \"0 3 * * *\" to config.toml, or an address as [serve] listen",
        ));
    }
    let place = ledger_place(&config, host)?;
    let ledger = Ledger::open(&place, Absence::Make, host.clock.now()).await?;
    let listener = match config.serve.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let stop = Stop::default();
    signals::listen(stop.clone());
    let services = Services { config, clock: host.clock.clone(), ledger, stop: stop.clone(), progress };
    let keyring = Keyring::new(host.variables.clone());
    purges::check(&services, &keyring).await?;
    let exporter = Exporter::install();
    for name in &scheduled {
        services.ledger.schedule_checked_until(name, host.clock.now()).await?;
    }
    let (triggers, desk): (Arc<Triggers>, _) = (Arc::default(), Desk::open()?);
    let api = match listener {
        Some(listener) => Some(start_api(host, &services, &place, listener, (&triggers, &desk, &exporter)).await?),
        None => None,
    };
    let (ring, mut rings) = mpsc::channel(1);
    // The first look is at once: what was missed while nothing ran is caught up.
    ring.try_send(()).ok();
    let mut ticker = start_ticker(ring).await?;
    tracing::info!(scopes = scheduled.join(" "), "serving the schedule");
    notify_systemd::tell(&host.variables, State::Ready);
    let stopping = tokio::spawn(tell_when_stopping(host.variables.clone(), stop.clone()));
    let own = (services.with_stop(stop.clone()), keyring.clone());
    desk.give(move || purges::go_on(own.0, own.1));
    loop {
        tokio::select! {
            biased;
            () = stop.token.cancelled() => break,
            () = triggers.bell.notified() => {}
            rung = rings.recv() => if rung.is_none() { break },
        }
        let scopes = services.config.scopes.iter().filter(|scope| scheduled.contains(&scope.name));
        look(&services, &keyring, scopes).await;
        run_triggers(&services, &keyring, &triggers).await;
        exporter.look_again();
    }
    stop.token.cancel();
    ticker.shutdown().await.ok();
    let ledger_of_api = match api {
        Some((serving, ledger)) => serving.await.ok().map(|()| ledger),
        None => None,
    };
    desk.finish().await;
    if let Some(ledger) = ledger_of_api {
        ledger.close().await;
    }
    stopping.await.ok();
    services.ledger.close().await;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

async fn tell_when_stopping(variables: Variables, stop: Stop) {
    stop.token.cancelled().await;
    notify_systemd::tell(&variables, State::Stopping);
}

/// Answers requests from now on until the stop; gives the task, and the ledger that it works with.
pub(super) async fn start_api(
    host: &Host,
    services: &Services,
    place: &LedgerPlace,
    listener: TcpListener,
    (triggers, desk, exporter): (&Arc<Triggers>, &Desk, &Exporter),
) -> Result<(JoinHandle<()>, Ledger), CommandError> {
    let ledger = Ledger::open(place, Absence::Refuse, host.clock.now()).await?;
    let own = Services { ledger: ledger.clone(), ..services.with_stop(services.stop.clone()) };
    tokio::spawn(exporter.clone().keep(own.with_stop(services.stop.clone())));
    let app = Arc::new(App {
        services: own,
        keyring: Keyring::new(host.variables.clone()),
        host: host.clone(),
        triggers: Arc::clone(triggers),
        health: Health::default(),
        exporter: exporter.clone(),
        readers: Arc::new(Semaphore::new(MOST_READERS)),
        cleaners: Semaphore::new(MOST_CLEANERS),
        desk: desk.clone(),
    });
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "the API listens");
    }
    let routes = router::router(&app);
    Ok((tokio::spawn(http::run(listener, routes, services.stop.token.clone())), ledger))
}

async fn start_ticker(ring: mpsc::Sender<()>) -> Result<JobScheduler, CommandError> {
    let failed = |error: tokio_cron_scheduler::JobSchedulerError| CommandError {
        message: format!("the ticker could not be started: {error}"),
        hint: None,
        exit: Exit::Failed,
    };
    let scheduler = JobScheduler::new().await.map_err(failed)?;
    let job = Ring::new(EVERY_15_SECONDS, move |_, _| {
        // A full channel has a look waiting already.
        ring.try_send(()).ok();
    })
    .map_err(failed)?;
    scheduler.add(job).await.map_err(failed)?;
    scheduler.start().await.map_err(failed)?;
    Ok(scheduler)
}

/// Looks at the calendar of every scope at one moment, then runs what is due, one scope after the other. A long run of the
/// first makes no later one late. No failure ends the daemon: the health check tells.
async fn look<'s>(services: &Services, keyring: &Keyring, scopes: impl Iterator<Item = &'s Scope>) {
    let now = services.clock.now();
    let mut jobs = Vec::new();
    for scope in scopes {
        match job_of(services, scope, now).await {
            Ok(Some(job)) => jobs.push((scope, job)),
            Ok(None) => {}
            Err(error) => note(&scope.name, &error),
        }
    }
    if jobs.is_empty() {
        return;
    }
    // The lock before the mark: an occurrence that finds it held is looked at again.
    // A run that loses the lock ends, and the daemon goes on.
    let services = &services.with_stop(services.stop.of_one_run());
    let Some(_lock) = lock(services).await else { return };
    // Marked before they run: a run that kills the process is not begun again and again.
    for (scope, _) in &jobs {
        if let Err(error) = services.ledger.mark_schedule(&scope.name, now).await {
            return note(&scope.name, &error);
        }
    }
    for (scope, job) in &jobs {
        if services.stop.token.is_cancelled() {
            return;
        }
        run(services, keyring, scope, job).await;
    }
}

/// Takes the lock of the ledger's runs, where it is free.
async fn lock(services: &Services) -> Option<RunLock> {
    match services.ledger.lock(services.stop.when_lock_is_lost()).await {
        Ok(lock) => Some(lock),
        Err(held @ (LockError::Held(_) | LockError::Leased { .. })) => {
            tracing::warn!(lock = %held, "another run is going on; what is due waits for it");
            None
        }
        Err(error) => {
            tracing::error!(error = %error, "the lock cannot be taken");
            None
        }
    }
}

/// Runs one scope; says how it ended, where it could begin and report.
async fn run(services: &Services, keyring: &Keyring, scope: &Scope, job: &Job) -> TriggerEnd {
    match run_scope(services, keyring, scope, job).await {
        Ok(end) => {
            tracing::info!(scope = %scope.name, outcome = end.summary.outcome.as_str(), exit = end.exit.code(), "scheduled run ended");
            Some((end.summary.run_id, end.summary.outcome.as_str(), end.exit.code()))
        }
        Err(error) => {
            tracing::error!(scope = %scope.name, error = %error.chain(), "scheduled run could not begin or report");
            None
        }
    }
}

/// Runs what callers asked for, one after the other. Where another process holds the lock, they wait for the next look.
async fn run_triggers(services: &Services, keyring: &Keyring, triggers: &Triggers) {
    while triggers.is_waiting() && !services.stop.token.is_cancelled() {
        let services = &services.with_stop(services.stop.of_one_run());
        let Some(_lock) = lock(services).await else { return };
        let Some(trigger) = triggers.start_next(services.clock.now()) else { return };
        let job = match trigger.command {
            TriggerCommand::Audit => Job::Audit { fail_on_orphans: false },
            TriggerCommand::Sweep => Job::Sweep { mode: Mode::Live },
        };
        let end = match services.config.scopes.iter().find(|scope| scope.name == trigger.scope) {
            Some(scope) => run(services, keyring, scope, &job).await,
            None => None,
        };
        triggers.end(trigger.id, end);
    }
}

/// What is due of one scope.
async fn job_of(services: &Services, scope: &Scope, now: Timestamp) -> Result<Option<Job>, RecordError> {
    let Some(schedule) = &scope.schedule else { return Ok(None) };
    let checked_until = services.ledger.schedule_checked_until(&scope.name, now).await?;
    if checked_until > now {
        // The host's clock was ahead once and is right again: nothing may wait until it gets there.
        services.ledger.mark_schedule(&scope.name, now).await?;
        return Ok(None);
    }
    Ok(match due(schedule, checked_until, now) {
        Due::Nothing => None,
        Due::OnTime(ScheduledCommand::Audit) => Some(Job::Audit { fail_on_orphans: false }),
        Due::OnTime(ScheduledCommand::Sweep) => Some(Job::Sweep { mode: Mode::Live }),
        Due::CatchUp => {
            tracing::warn!(scope = %scope.name, since = %checked_until, "scheduled runs were missed; one audit catches up");
            Some(Job::Audit { fail_on_orphans: false })
        }
    })
}

fn note(scope: &str, error: &RecordError) {
    tracing::error!(scope, error = %error, "the schedule could not be looked at");
}
