//! purge: rows first, in one transaction of the platform; then the objects under every pattern. A person asked for it.
//!
//! Grace, sightings and plans do not apply. The proof is the row that our own committed transaction removed: it was seen live by
//! whoever says what is live, and is asked for again before each batch. Invariant: no object is asked for whose row did not
//! fall by that transaction; what cannot be told is left to the next sweep, as an orphan.
//!
//! A purge takes no run lock: it would wait for a sweep of hours, and safety never rests on that lock. Its run, its folder and its
//! rows in the journal are its own, and its sightings begin anew.

mod beside;
mod clean;
mod events;
mod preview;
mod rows;
mod webhook;

use uuid::Uuid;

pub use clean::{CleanUp, CleanUpError, clean_up, resume};
pub use preview::{Preview, preview};
pub use rows::remove;

use super::failure::chain;
use super::{Keyring, RunFailure, Services, Stop};
use crate::config::{Config, Scope};
use crate::list::holds::HoldsError;
use crate::list::references::ReferencesError;
use crate::metrics::{PurgeKind, PurgeOutcome};
use crate::model::{DatasetId, RunId};
use crate::platform::PlatformError;
use crate::record::{DeletionTotals, LockError, PurgeRow, PurgeState, PurgeSubject, RecordError, RunLock};
use crate::report::HeldId;

/// What a person wants to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A dataset.
    Dataset(DatasetId),
    /// A job.
    Job {
        /// The job.
        id: Uuid,
        /// What becomes of the datasets that it made.
        datasets: JobDatasets,
    },
}

/// What becomes of the datasets of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobDatasets {
    /// They go with it.
    Go,
    /// They stay, without a job.
    Stay,
}

impl Order {
    /// What the ledger calls it.
    pub fn subject(self) -> PurgeSubject {
        match self {
            Self::Dataset(id) => PurgeSubject::Dataset(id),
            Self::Job { id, .. } => PurgeSubject::Job(id),
        }
    }
}

/// Rows that are gone: what [`clean_up`] goes on with. Nobody else does as long as this is there.
#[derive(Debug)]
pub struct Removed {
    /// The purge, which is a run.
    pub purge: PurgeRow,
    /// Stops the work on it with the process, or when its lock is lost.
    stop: Stop,
    lock: RunLock,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The operations are not set up.
    #[error("the platform's rows cannot be removed: {setting} is missing")]
    NotConfigured {
        /// What to set.
        setting: String,
    },
    /// Several scopes are set up, and none is named.
    #[error("several scopes have `[scope.purge]`: {}", .names.join(", "))]
    WhichScope {
        /// Their names.
        names: Vec<String>,
    },
    /// There is no such row.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The job is of another type.
    #[error("the job is of type `{job_type}`, not `{expected}`")]
    NotSynthetic {
        /// Its type.
        job_type: String,
        /// The type that can be purged.
        expected: String,
    },
    /// Active models use a dataset that would go.
    #[error("in use by the active models: {}", .models.join(", "))]
    InUse {
        /// Their names.
        models: Vec<String>,
    },
    /// A dataset that would go is protected.
    #[error("protected by a hold: {}", .ids.iter().map(held).collect::<Vec<_>>().join(", "))]
    Held {
        /// The holds.
        ids: Vec<HeldId>,
    },
    /// The stop file is there.
    #[error("the stop file `{file}` exists")]
    Stopped {
        /// The file.
        file: String,
    },
    /// What was seen is in doubt.
    #[error("what was seen is in doubt ({}): {reason}", .breakers.join(", "))]
    Latched {
        /// The evidence breakers.
        breakers: Vec<&'static str>,
        /// What the first of them says.
        reason: String,
    },
    /// The rows that keep the dataset alive are others than those that would go, so their end would prove nothing.
    #[error("the dataset {0} has a row that would go, and none in the live tables of its scope")]
    NotLive(DatasetId),
    /// The transaction was sent, and nobody can tell yet whether it committed. The purge is pending.
    #[error("it is not known yet whether the rows of purge {run} are gone")]
    InDoubt {
        /// The purge.
        run: RunId,
        /// Why.
        source: PlatformError,
    },
    /// The platform's database failed.
    #[error("the platform's rows could not be removed")]
    Platform(#[from] PlatformError),
    /// The live ids could not be asked for.
    #[error("the live ids could not be read")]
    References(#[from] ReferencesError),
    /// The protected ids could not be read.
    #[error("the protected ids could not be read")]
    Holds(#[from] HoldsError),
    /// The ledger failed.
    #[error("the ledger failed")]
    Record(#[from] RecordError),
    /// The lock of the purge cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Statements do not fit the schema, or the rights of their role.
    #[error("{} of `[scope.purge.statements]` cannot be used: {}", .0.len(), .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Statements(Vec<PlatformError>),
    /// Something else failed before anything was removed.
    #[error(transparent)]
    Run(#[from] RunFailure),
    /// The store could not be read, for a preview.
    #[error("the store could not be read")]
    Store(#[from] crate::s3::StoreError),
}

fn held(hold: &HeldId) -> String {
    format!("{} ({})", hold.id, crate::model::visible(&hold.reason))
}

impl Refusal {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotConfigured { .. } => {
                "config.toml of the project shows `[scope.purge]` and the rights of its role; `orphan-sweeper doctor` checks them".into()
            }
            Self::WhichScope { .. } => "name one: `--scope NAME`, or `?scope=NAME` over the API".into(),
            Self::NotFound(_) => "its objects, if it left any, are orphans for the next sweep: `orphan-sweeper audit`".into(),
            Self::NotSynthetic { .. } => "`scope.purge.job_type` says which jobs can be purged".into(),
            Self::InUse { .. } => "deactivate the models first".into(),
            Self::Held { .. } => "`orphan-sweeper hold list` shows who holds it, and where".into(),
            Self::Stopped { .. } => "remove it when deletion may go on".into(),
            Self::Latched { .. } => "find the cause; what latched waits for `orphan-sweeper ack`".into(),
            Self::NotLive(_) => "`[scope.purge.statements]` and `[[scope.live]]` must be about the same table".into(),
            Self::InDoubt { .. } => "purge it again once the database answers: it goes on where it was".into(),
            Self::Platform(error) => error.hint().into(),
            Self::References(error) => error.hint().into(),
            Self::Run(failure) => return failure.hint(),
            Self::Store(error) => error.fault.hint().to_owned(),
            Self::Statements(errors) => errors.first()?.hint().into(),
            Self::Holds(_) | Self::Record(_) | Self::Lock(_) => return None,
        })
    }
}

/// What a delete operation is called in the metrics.
fn kind_of(subject: PurgeSubject) -> PurgeKind {
    match subject {
        PurgeSubject::Dataset(_) => PurgeKind::Dataset,
        PurgeSubject::Job(_) => PurgeKind::Job,
    }
}

impl Refusal {
    /// What a purge that removed nothing counts as; nothing where its end is not known yet.
    fn outcome(&self) -> Option<PurgeOutcome> {
        match self {
            Self::NotFound(_)
            | Self::NotSynthetic { .. }
            | Self::InUse { .. }
            | Self::Held { .. }
            | Self::Stopped { .. }
            | Self::Latched { .. }
            | Self::NotLive(_) => Some(PurgeOutcome::Refused),
            Self::InDoubt { .. } => None,
            Self::NotConfigured { .. }
            | Self::WhichScope { .. }
            | Self::Platform(_)
            | Self::References(_)
            | Self::Holds(_)
            | Self::Record(_)
            | Self::Lock(_)
            | Self::Statements(_)
            | Self::Run(_)
            | Self::Store(_) => Some(PurgeOutcome::Failed),
        }
    }
}

/// The scope whose platform rows are purged: the one with `[scope.purge]`, or the one that is named.
///
/// - Errors: [`Refusal::NotConfigured`] where there is none, [`Refusal::WhichScope`] where there are several and none is named.
pub fn scope_of<'c>(config: &'c Config, named: Option<&str>) -> Result<&'c Scope, Refusal> {
    let can_purge = |scope: &&Scope| scope.purge.is_some() && named.is_none_or(|named| named == scope.name);
    let scopes: Vec<&Scope> = config.scopes.iter().filter(can_purge).collect();
    match scopes.as_slice() {
        [scope] => Ok(scope),
        [] => Err(Refusal::NotConfigured { setting: "`[scope.purge]`".into() }),
        _ => Err(Refusal::WhichScope { names: scopes.iter().map(|scope| scope.name.clone()).collect() }),
    }
}

/// Has the database plan every statement of `scope`, so that what does not fit is known before it is needed. Nothing is run.
///
/// - Errors: [`Refusal::NotConfigured`], [`Refusal::Statements`], or why the database could not be asked.
pub async fn check(services: &Services, keyring: &Keyring, scope: &Scope) -> Result<(), Refusal> {
    let door = rows::Door::open(services, keyring, scope)?;
    let look = door.reading.references.look(&[]).await?;
    door.platform.check(Some(&look.anchor.identity)).await.map_err(|mut errors| match errors.as_slice() {
        [PlatformError::Configured { .. }] | [_, _, ..] => Refusal::Statements(errors),
        // Why no statement could be looked at.
        _ => errors.pop().map_or(Refusal::Statements(Vec::new()), Refusal::Platform),
    })
}

/// The purges that are not over, the oldest first: what a restart goes on with.
///
/// - Errors: the ledger's.
pub async fn pending(services: &Services) -> Result<Vec<PurgeRow>, RecordError> {
    services.ledger.pending_purges(None).await
}

/// Goes on with every purge that a process left, one after the other. No failure ends it: each is told, and stays pending.
pub async fn resume_pending(services: &Services, keyring: &Keyring) {
    // Each would only report that it waits.
    if crate::dispose::is_there(&services.config.stop_file) {
        return;
    }
    let pending = match pending(services).await {
        Ok(pending) => pending,
        Err(error) => return tracing::error!(error = %chain(&error), "pending purges could not be looked for"),
    };
    for purge in pending {
        if services.stop.token.is_cancelled() {
            return;
        }
        match resume(services, keyring, purge.run).await {
            Ok(cleaned) => {
                tracing::info!(run_id = %purge.run, state = cleaned.state.as_str(), "a purge that was left went on");
            }
            Err(CleanUpError::Lock(held @ (LockError::Held(_) | LockError::Leased { .. }))) => {
                tracing::info!(run_id = %purge.run, lock = %held, "another process works on a purge that was left");
            }
            Err(error) => {
                tracing::error!(run_id = %purge.run, error = %chain(&error), "a purge that was left could not go on");
            }
        }
    }
}

/// How far a purge is.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The purge.
    pub purge: PurgeRow,
    /// What became of the keys that were asked for so far.
    pub totals: DeletionTotals,
}

/// How far a purge is; none where the ledger knows no such purge. Once it is over, its report says more.
///
/// - Errors: the ledger's.
pub async fn standing(services: &Services, run: RunId) -> Result<Option<Standing>, RecordError> {
    let Some(purge) = services.ledger.purge(run).await? else { return Ok(None) };
    let totals = match (purge.state, services.ledger.run(&run.to_string()).await?.and_then(|run| run.summary)) {
        // Its keys left the journal.
        (PurgeState::Done, Some(summary)) => told(&summary),
        _ => services.ledger.deletion_totals(run).await?,
    };
    Ok(Some(Standing { purge, totals }))
}

/// What a report tells of the keys.
fn told(summary: &str) -> DeletionTotals {
    let summary: Option<crate::report::Summary> = serde_json::from_str(summary).ok();
    summary.and_then(|summary| summary.deletion).map_or(DeletionTotals::default(), |told| DeletionTotals {
        requested: told.requested,
        deleted: told.deleted,
        already_gone: told.already_gone,
        skipped: told.skipped,
        failed: told.failed,
        unconfirmed: told.unconfirmed,
        bytes: told.bytes_deleted.max(told.bytes_marked).max(told.bytes_quarantined),
    })
}
