//! run: each command as one readable path through the rooms.
//!
//! Invariant: a run that began leaves a report, whatever became of it; `audit` is handed nothing that can delete.

pub mod apply;
pub mod audit;
pub mod confirm;
pub mod failure;
mod forecast;
pub mod health;
pub mod holds;
mod notices;
mod one_plan;
pub mod purge;
mod reap;
mod restore;
mod retention;
pub mod review;
mod scan;
pub mod selftest;
mod session;
#[cfg(test)]
mod simulation;
mod telling;
mod trend;
mod uploads;
mod versions;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

pub use apply::PlanSource;
pub use failure::RunFailure;
pub use restore::RestoreJob;
pub use session::{ScopeEnd, Session};

use crate::clock::Clock;
use crate::config::secrets::{self, DatabaseUrl, SecretError};
use crate::config::{Config, Purge, Scope, Variables};
use crate::decide::breakers::Allowances;
use crate::dispose::pace::Pace;
use crate::exit::Exit;
use crate::list::references::{self, References};
use crate::model::Mode;
use crate::notify::{Address, Notifier};
use crate::plan::Backfill;
use crate::platform::Platform;
use crate::record::Ledger;
use crate::s3::{ConnectError, Connection, CopyStore, DeleteStore, ReadStore, S3Copy, S3Delete, S3Put};
use crate::telemetry::Progress;

/// What every run of a command shares.
pub struct Services {
    /// The configuration.
    pub config: Config,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// The ledger.
    pub ledger: Ledger,
    /// Told when a person or the system asks to stop.
    pub stop: Stop,
    /// The bars.
    pub progress: Progress,
}

/// A request to stop, and who asked.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Cancelled when the run should finish what it has in flight and end.
    pub token: CancellationToken,
    signal: Arc<AtomicU8>,
    /// The signal of the process, where this is the stop of one of its runs.
    process: Option<Arc<AtomicU8>>,
}

impl Stop {
    /// Asks to stop, with the exit that tells why.
    pub fn ask(&self, exit: Exit) {
        self.signal.store(exit.code(), Ordering::SeqCst);
        self.token.cancel();
    }

    /// The exit of a run that was stopped.
    pub fn exit(&self) -> Exit {
        let asked = |signal: &Arc<AtomicU8>| signal.load(Ordering::SeqCst);
        let code = self.process.as_ref().map(asked).filter(|code| *code != 0).unwrap_or_else(|| asked(&self.signal));
        [Exit::Terminated, Exit::Locked].into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Interrupted)
    }

    /// The stop of one run of this process: it stops with the process, and may stop alone.
    #[must_use]
    pub fn of_one_run(&self) -> Self {
        let signal = Arc::default();
        Self { token: self.token.child_token(), signal, process: Some(Arc::clone(&self.signal)) }
    }

    /// What to do when the lock of the run is lost: end it after what it has in flight.
    pub fn when_lock_is_lost(&self) -> impl FnOnce() + Send + 'static + use<> {
        let stop = self.clone();
        move || stop.ask(Exit::Locked)
    }
}

impl Services {
    /// The same services for a run that is stopped by `stop`.
    #[must_use]
    pub fn with_stop(&self, stop: Stop) -> Self {
        Self {
            config: self.config.clone(),
            clock: Arc::clone(&self.clock),
            ledger: self.ledger.clone(),
            stop,
            progress: self.progress.clone(),
        }
    }
}

/// What a run reads. It holds nothing that can change the store or the database.
pub struct Reading {
    /// The store.
    pub store: Box<dyn ReadStore>,
    /// The database.
    pub references: Box<dyn References>,
    /// The database's address, to show.
    pub database: String,
}

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A secret is missing.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The store's client cannot be built.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The way to the secrets, which are read anew for each run. `audit` is not handed it, so it can build nothing that deletes.
#[derive(Debug, Clone)]
pub struct Keyring {
    variables: Variables,
    /// A world that a test plays instead of the store and the database.
    #[cfg(test)]
    stage: Option<simulation::Stage>,
}

impl Keyring {
    /// The secrets that these variables hold or name.
    pub fn new(variables: Variables) -> Self {
        Self {
            variables,
            #[cfg(test)]
            stage: None,
        }
    }

    /// What a run of `scope` reads from. Nothing is sent yet.
    pub fn reading(&self, services: &Services, scope: &Scope) -> Result<Reading, SetupError> {
        #[cfg(test)]
        if let Some(stage) = &self.stage {
            return Ok(stage.reading());
        }
        let credentials = secrets::store(&services.config, &self.variables)?;
        let connection = Connection::new(&services.config.store, &credentials, Arc::clone(&services.clock))?;
        let url = secrets::database(&services.config, &self.variables)?;
        if let Some(warning) = &url.warning {
            tracing::warn!("{warning}");
        }
        let references = references::open(&url, scope, Arc::clone(&services.clock));
        Ok(Reading { store: Box::new(connection.reading(&scope.bucket)), references, database: url.shown })
    }

    /// The database that says who is live and who is protected in `scope`. Nothing is sent yet.
    pub fn references(
        &self,
        config: &Config,
        scope: &Scope,
        clock: &Arc<dyn Clock>,
    ) -> Result<Box<dyn References>, SetupError> {
        let url = secrets::database(config, &self.variables)?;
        Ok(references::open(&url, scope, Arc::clone(clock)))
    }

    /// The address of the database that says who is live.
    pub fn live_url(&self, config: &Config) -> Result<DatabaseUrl, SecretError> {
        secrets::database(config, &self.variables)
    }

    /// The platform's database by the role of `purge`; `None` where nothing gives its address. Nothing is sent yet.
    pub fn platform<'p>(&self, purge: &'p Purge) -> Result<Option<Platform<'p>>, SecretError> {
        let url = secrets::purge(purge, &self.variables)?;
        if let Some(warning) = url.as_ref().and_then(|url| url.warning.as_ref()) {
            tracing::warn!("{warning}");
        }
        Ok(url.map(|url| Platform::new(url, purge)))
    }

    /// Who is told of runs. An address that cannot be read is told instead of sent to: it fails no run.
    pub fn notifier(&self, config: &Config) -> Notifier {
        let wanted = |address: Result<Option<SecretString>, SecretError>| -> Option<Address> {
            address.map_err(|error| failure::chain(&error)).transpose()
        };
        let webhook = wanted(secrets::webhook(config, &self.variables));
        let heartbeat = wanted(secrets::heartbeat(config, &self.variables));
        Notifier::new(&config.notify, webhook, heartbeat)
    }

    /// What a run of `scope` deletes with: the only place where the second pair of credentials is read.
    pub fn deleting(&self, services: &Services, scope: &Scope) -> Result<S3Delete, SetupError> {
        let credentials = secrets::store_for_deletion(&services.config, &self.variables)?;
        let connection = Connection::new(&services.config.store, &credentials, Arc::clone(&services.clock))?;
        Ok(connection.deleting(&scope.bucket))
    }

    /// What a plan of `scope` is disposed of with.
    pub fn deleter(&self, services: &Services, scope: &Scope) -> Result<Box<dyn DeleteStore>, SetupError> {
        #[cfg(test)]
        if let Some(stage) = &self.stage {
            return Ok(Box::new(stage.clone()));
        }
        Ok(Box::new(self.deleting(services, scope)?))
    }

    /// What a self-test of `scope` puts its objects with, and what looks at single ones by the same pair.
    pub fn putting(&self, services: &Services, scope: &Scope) -> Result<(S3Put, S3Copy), SetupError> {
        let credentials = secrets::store_for_selftest(&services.config, scope, &self.variables)?;
        let connection = Connection::new(&services.config.store, &credentials, Arc::clone(&services.clock))?;
        Ok((connection.putting(&scope.bucket), connection.copying()))
    }

    /// The addresses of the platform's database by the role of `purge`, and by the one that inserts the rows of a self-test.
    pub fn scratching(&self, scope: &Scope, purge: &Purge) -> Result<Option<(DatabaseUrl, DatabaseUrl)>, SecretError> {
        let Some(removing) = secrets::purge(purge, &self.variables)? else { return Ok(None) };
        let inserting = secrets::selftest(&scope.selftest, &self.variables)?.unwrap_or_else(|| removing.clone());
        Ok(Some((removing, inserting)))
    }

    /// What a command that deletes or restores copies with.
    pub fn copying(&self, services: &Services) -> Result<Box<dyn CopyStore>, SetupError> {
        #[cfg(test)]
        if let Some(stage) = &self.stage {
            return Ok(Box::new(stage.clone()));
        }
        let credentials = secrets::store_for_deletion(&services.config, &self.variables)?;
        let connection = Connection::new(&services.config.store, &credentials, Arc::clone(&services.clock))?;
        Ok(Box::new(connection.copying()))
    }

    /// What reads, copies from and empties a quarantine in `bucket`, and what reads versions there.
    pub fn undoing(&self, services: &Services, bucket: &str) -> Result<Undoing, SetupError> {
        #[cfg(test)]
        if let Some(stage) = &self.stage {
            return Ok(stage.undoing());
        }
        let credentials = secrets::store_for_deletion(&services.config, &self.variables)?;
        let connection = Connection::new(&services.config.store, &credentials, Arc::clone(&services.clock))?;
        Ok(Undoing {
            store: Box::new(connection.reading(bucket)),
            deleter: Box::new(connection.deleting(bucket)),
            copier: Box::new(connection.copying()),
        })
    }
}

/// What works on copies and versions.
pub struct Undoing {
    /// Lists copies and versions.
    pub store: Box<dyn ReadStore>,
    /// Deletes copies whose time is over.
    pub deleter: Box<dyn DeleteStore>,
    /// Copies back, and looks for originals.
    pub copier: Box<dyn CopyStore>,
}

/// What a run is asked to do.
pub enum Job {
    /// List, compare, report.
    Audit {
        /// Whether orphans are exit 3.
        fail_on_orphans: bool,
    },
    /// Audit, and plan what is older than a date without waiting for grace since its first sighting.
    Backfill(Backfill),
    /// Delete what a plan says and the checks still allow.
    Apply(Box<ApplyJob>),
    /// Audit, then apply what policy allows.
    Sweep {
        /// Whether to delete at all.
        mode: Mode,
    },
    /// Bring back what a run deleted.
    Restore(Box<RestoreJob>),
}

/// How a person applies a plan.
pub struct ApplyJob {
    /// The plan.
    pub source: PlanSource,
    /// Whether to delete at all.
    pub mode: Mode,
    /// Limits that the person lifts.
    pub allowances: Allowances,
    /// Whether to ask on the terminal first.
    pub asks_first: bool,
    /// Whether the person says that the empty live tables are really empty.
    pub accepts_empty_references: bool,
    /// How fast, how long and when.
    pub pace: Pace,
}

impl Job {
    fn command(&self) -> &'static str {
        match self {
            Self::Audit { .. } => "audit",
            Self::Backfill(_) => "backfill",
            Self::Apply(_) => "apply",
            Self::Sweep { .. } => "sweep",
            Self::Restore(_) => "restore",
        }
    }

    fn mode(&self) -> Mode {
        match self {
            Self::Audit { .. } | Self::Backfill(_) => Mode::DryRun,
            Self::Apply(job) => job.mode,
            Self::Sweep { mode } => *mode,
            Self::Restore(job) => job.mode,
        }
    }
}

/// Runs one scope from its start to its report.
///
/// - Errors: only where not even a report could be begun.
pub async fn run_scope(
    services: &Services,
    keyring: &Keyring,
    scope: &Scope,
    job: &Job,
) -> Result<ScopeEnd, RunFailure> {
    let notifier = keyring.notifier(&services.config);
    // Boxed, so that the commands that run a scope stay small.
    match Box::pin(run_and_report(services, keyring, (scope, job), &notifier)).await {
        Ok(end) => {
            notices::beat(services, scope, &notifier, (&end.summary, end.exit)).await;
            Ok(end)
        }
        Err(failure) => {
            notices::tell_failure(services, scope, &notifier, (job.command(), &failure)).await;
            Err(failure)
        }
    }
}

async fn run_and_report(
    services: &Services,
    keyring: &Keyring,
    (scope, job): (&Scope, &Job),
    notifier: &Notifier,
) -> Result<ScopeEnd, RunFailure> {
    let reading = keyring.reading(services, scope)?;
    let mut session = Session::begin(services, scope, &reading, job.command(), job.mode()).await?;
    session.notifier = Some(notifier.clone());
    let result = match job {
        Job::Audit { .. } => audit::audit(&mut session, &reading).await.map(drop),
        Job::Backfill(backfill) => audit::backfill(&mut session, &reading, *backfill).await,
        // Boxed, so that the commands that reach them stay small.
        Job::Apply(job) => Box::pin(apply::apply(&mut session, &reading, keyring, job)).await,
        Job::Sweep { mode } => Box::pin(apply::sweep(&mut session, &reading, keyring, *mode)).await,
        Job::Restore(job) => Box::pin(restore::restore(&mut session, &reading, keyring, job)).await,
    };
    if let Err(failure) = result {
        session.absorb(failure);
    }
    if let Job::Audit { fail_on_orphans: true } = job {
        session.fail_on_orphans();
    }
    session.finish(&reading).await
}
