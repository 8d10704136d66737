//! The daemon: a ticker that only rings, and one runner that looks at the calendar and runs one scope at a time.
//!
//! The scheduler library starts overlapping runs and waits for nothing at shutdown, so no work is done in its jobs.

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job as Ring, JobScheduler};

use super::due::{Due, due};
use super::signals;
use crate::cli::Global;
use crate::command::{CommandError, Host, ledger_place, load, scopes};
use crate::config::{ScheduledCommand, Scope};
use crate::exit::Exit;
use crate::model::{Mode, Timestamp};
use crate::record::{Absence, Ledger, LockError, RecordError};
use crate::run::purge;
use crate::run::{Job, Keyring, Services, Stop, run_scope};
use crate::telemetry::Progress;

/// How often the calendar is looked at.
const EVERY_15_SECONDS: &str = "*/15 * * * * *";

/// Runs the schedule until SIGINT or SIGTERM.
///
/// - Errors: configuration, or a ledger that cannot be used.
pub async fn serve(global: &Global, host: &Host, progress: Progress) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let scheduled: Vec<String> = scopes(&config, global)?
        .iter()
        .filter(|scope| scope.schedule.is_some())
        .map(|scope| scope.name.clone())
        .collect();
    if scheduled.is_empty() {
        return Err(CommandError::usage(
            "no scope has a schedule",
            "add [scope.schedule] with cron = \"0 3 * * *\" to config.toml",
        ));
    }
    let ledger = Ledger::open(&ledger_place(&config, host)?, Absence::Make, host.clock.now()).await?;
    let stop = Stop::default();
    signals::listen(stop.clone());
    let services = Services { config, clock: host.clock.clone(), ledger, stop: stop.clone(), progress };
    let keyring = Keyring::new(host.variables.clone());
    for name in &scheduled {
        services.ledger.schedule_checked_until(name, host.clock.now()).await?;
    }
    let (ring, mut rings) = mpsc::channel(1);
    // The first look is at once: what was missed while nothing ran is caught up.
    ring.try_send(()).ok();
    let mut ticker = start_ticker(ring).await?;
    tracing::info!(scopes = scheduled.join(" "), "serving the schedule");
    purge::resume_pending(&services, &keyring).await;
    loop {
        tokio::select! {
            biased;
            () = stop.token.cancelled() => break,
            rung = rings.recv() => if rung.is_none() { break },
        }
        let scopes = services.config.scopes.iter().filter(|scope| scheduled.contains(&scope.name));
        look(&services, &keyring, scopes).await;
    }
    ticker.shutdown().await.ok();
    services.ledger.close().await;
    tracing::info!("stopped");
    Ok(Exit::Done)
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
    let _lock = match services.ledger.lock(services.stop.when_lock_is_lost()).await {
        Ok(lock) => lock,
        Err(held @ (LockError::Held(_) | LockError::Leased { .. })) => {
            tracing::warn!(lock = %held, "another run is going on; what is due waits for it");
            return;
        }
        Err(error) => {
            tracing::error!(error = %error, "the lock cannot be taken");
            return;
        }
    };
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
        match run_scope(services, keyring, scope, job).await {
            Ok(end) => {
                tracing::info!(scope = %scope.name, outcome = end.summary.outcome.as_str(), exit = end.exit.code(), "scheduled run ended");
            }
            Err(error) => {
                tracing::error!(scope = %scope.name, error = %error.chain(), "scheduled run could not begin or report");
            }
        }
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
