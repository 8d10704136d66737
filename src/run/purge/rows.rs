//! The rows: everything that could forbid a purge is looked at, and then they go, in one transaction or not at all.
//!
//! The races this closes: two callers lock the same row, and the second finds it gone; a model that is activated meanwhile waits
//! for the lock, or is seen; a process that dies around the commit finds in the ledger by which number to ask whether it came.

use std::collections::BTreeMap;

use super::beside::{check_latches, readings_beside};
use super::{JobDatasets, Order, Refusal, Removed, events};
use crate::config::{Purge, Scope};
use crate::decide::breakers::{Baseline, Breaker, SET_BACK, TargetFingerprint};
use crate::dispose::is_there;
use crate::list::references::{Look, RowsOf};
use crate::metrics;
use crate::model::{DatasetId, RunId, Timestamp};
use crate::platform::{Change, DatasetRow, Fate, Platform, PlatformError};
use crate::record::{PurgeEvidence, PurgeRow, PurgeState, PurgedDataset, PurgedJob, RunStart};
use crate::run::{Keyring, Reading, RunFailure, Services, holds};

/// How often a transaction that lost against another one is tried.
const TRIES: u32 = 3;
/// How often a transaction is asked about whose session may not have ended yet, and how long between.
const FATE_TRIES: u32 = 25;
const FATE_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Removes the rows that `order` names from the platform. Their objects are still there: [`super::clean_up`] comes next.
///
/// - Errors: [`Refusal`]; nothing was changed then, but where it says that it is in doubt.
pub async fn remove(services: &Services, keyring: &Keyring, scope: &Scope, order: Order) -> Result<Removed, Refusal> {
    let removed = remove_rows(services, keyring, scope, order).await;
    if let Some(outcome) = removed.as_ref().err().and_then(Refusal::outcome) {
        metrics::purge_ended(super::kind_of(order.subject()), outcome);
    }
    removed
}

async fn remove_rows(services: &Services, keyring: &Keyring, scope: &Scope, order: Order) -> Result<Removed, Refusal> {
    let door = Door::open(services, keyring, scope)?;
    door.check_stops().await?;
    let mut tries = 1;
    let run = RunId::new(services.clock.now());
    let stop = services.stop.of_one_run();
    // Before anybody can find it pending.
    let lock = services.ledger.lock_purge(run, stop.when_lock_is_lost()).await?;
    let removed = loop {
        match door.remove(run, order).await {
            Err(Refusal::Platform(error)) if error.is_worth_another_try() && tries < TRIES => tries += 1,
            ended => break ended,
        }
    };
    let purge = removed.inspect_err(|refusal| {
        if !matches!(refusal, Refusal::InDoubt { .. }) {
            services.ledger.forget_purge_lock(run);
        }
    })?;
    let mut purge = purge;
    crate::failpoint::reach("purge_noted");
    if purge.state == PurgeState::Committed {
        events::tell_rows(services, door.purge, &mut purge).await;
    }
    Ok(Removed { purge, stop, lock })
}

/// What the rows of a platform are removed with.
pub(super) struct Door<'d> {
    services: &'d Services,
    scope: &'d Scope,
    pub(super) purge: &'d Purge,
    pub(super) platform: Platform<'d>,
    pub(super) reading: Reading,
    /// The other scopes that the same rows keep objects alive in, and what each reads from.
    others: Vec<(&'d Scope, Reading)>,
}

/// What stands in the rows that would go.
pub(super) struct Found {
    /// The datasets that would go.
    pub(super) datasets: Vec<PurgedDataset>,
    /// The job.
    pub(super) job: Option<PurgedJob>,
    look: Look,
    as_of: Timestamp,
}

impl<'d> Door<'d> {
    /// Nothing is sent yet.
    pub(super) fn open(services: &'d Services, keyring: &Keyring, scope: &'d Scope) -> Result<Self, Refusal> {
        let missing = |setting: &str| Refusal::NotConfigured { setting: setting.to_owned() };
        let purge = scope.purge.as_ref().ok_or_else(|| missing("`[scope.purge]`"))?;
        let platform =
            keyring.platform(purge).map_err(|error| RunFailure::from(crate::run::SetupError::Secret(error)))?;
        let platform =
            platform.ok_or_else(|| missing("ORPHAN_SWEEPER_PURGE_DATABASE_URL (or `scope.purge.url_file`)"))?;
        let reading = keyring.reading(services, scope).map_err(RunFailure::from)?;
        let others = readings_beside(services, keyring, scope)?;
        Ok(Self { services, scope, purge, platform, reading, others })
    }

    /// Every scope that the rows keep objects alive in, and what each reads from.
    fn scopes(&self) -> impl Iterator<Item = (&Scope, &Reading)> {
        let others = self.others.iter().map(|(scope, reading)| (*scope, reading));
        std::iter::once((self.scope, &self.reading)).chain(others)
    }

    /// What forbids every purge: asked before any row is looked at.
    pub(super) async fn check_stops(&self) -> Result<(), Refusal> {
        let file = &self.services.config.stop_file;
        if is_there(file) {
            return Err(Refusal::Stopped { file: file.display().to_string() });
        }
        check_latches(self.services, self.scope).await
    }

    async fn remove(&self, run: RunId, order: Order) -> Result<PurgeRow, Refusal> {
        let mut change = self.platform.begin().await?;
        let found = self.examine(&mut change, order).await?;
        for dataset in &found.datasets {
            change.delete_dataset(dataset.id).await?;
        }
        if let (Order::Job { id, .. }, Some(job)) = (order, &found.job) {
            if job.was_cancelled {
                change.cancel_job(id).await?;
            }
            if job.detached > 0 {
                change.detach_datasets(id, job.detached).await?;
            }
            change.delete_job(id).await?;
        }
        let mut purge = self.intent(run, order, found, change.xid().await?);
        let start = RunStart {
            run_id: purge.run,
            scope: self.scope.name.clone(),
            command: super::clean::COMMAND.to_owned(),
            is_dry_run: false,
            started_at: purge.began_at,
        };
        crate::failpoint::reach("purge_before_intent");
        self.services.ledger.intend_purge(&start, &purge).await?;
        crate::failpoint::reach("purge_intended");
        if let Err(error) = change.commit().await {
            tracing::warn!(run_id = %purge.run, error = %crate::run::failure::chain(&error), "the end of a purge's transaction is not known; it is asked for");
            self.settle(&purge, error).await?;
        }
        crate::failpoint::reach("purge_committed");
        // The rows are gone, whatever the ledger says: who goes on with the purge asks again what became of its transaction.
        match self.services.ledger.commit_purge(purge.run, &purge.evidence.rows).await {
            Ok(()) => purge.state = PurgeState::Committed,
            Err(error) => {
                tracing::error!(run_id = %purge.run, error = %crate::run::failure::chain(&error), "the ledger could not note that the rows of a purge are gone");
            }
        }
        Ok(purge)
    }

    /// Locks the rows, and looks at everything that could keep them.
    pub(super) async fn examine(&self, change: &mut Change<'_>, order: Order) -> Result<Found, Refusal> {
        let (going, job) = match order {
            Order::Dataset(id) => (vec![change.dataset(id).await?.ok_or(Refusal::NotFound("dataset"))?], None),
            Order::Job { id, datasets } => {
                let job = change.job(id).await?.ok_or(Refusal::NotFound("job"))?;
                if job.job_type != self.purge.job_type {
                    let expected = self.purge.job_type.clone();
                    return Err(Refusal::NotSynthetic { job_type: job.job_type, expected });
                }
                let made = change.datasets_of_job(id).await?;
                let was_cancelled = !self.purge.ended_statuses.contains(&job.status);
                let (going, detached) = match datasets {
                    JobDatasets::Go => (made, 0),
                    JobDatasets::Stay => (Vec::new(), made.len() as u64),
                };
                (going, Some(PurgedJob { status: job.status, was_cancelled, detached }))
            }
        };
        let ids: Vec<DatasetId> = going.iter().map(|dataset| dataset.id).collect();
        let datasets: Vec<PurgedDataset> = going.into_iter().map(|row| self.as_purged(row)).collect();
        // Before the look: a scan that comes between the two would know more transactions than it.
        let baseline = self.services.ledger.baseline(&self.scope.name).await?;
        // Before anything is removed: whoever says what is live must have seen the row whose end is the proof later.
        let look = self.reading.references.look(&ids).await?;
        change.check_place(&look.anchor.identity).await?;
        // Their rows are locked here, so no earlier purge of them is about to end: it must leave them alone.
        let live: Vec<DatasetId> = ids.iter().copied().filter(|id| look.is_live(*id)).collect();
        self.services.ledger.keep_from_purges(&self.scope.name, &look.anchor.identity, &live).await?;
        self.services.ledger.end_sightings_of(&live).await?;
        self.check_baseline(baseline.as_ref(), &look)?;
        if let Some(unseen) = datasets.iter().find(|dataset| dataset.has_objects && !look.is_live(dataset.id)) {
            return Err(Refusal::NotLive(unseen.id));
        }
        let as_of = look.database_time.min(self.services.clock.now());
        self.check_holds(&ids, as_of).await?;
        let mut models = Vec::new();
        for id in &ids {
            models.extend(change.active_models(*id).await?);
        }
        if !models.is_empty() {
            models.sort_unstable();
            models.dedup();
            return Err(Refusal::InUse { models });
        }
        Ok(Found { datasets, job, look, as_of })
    }

    fn as_purged(&self, row: DatasetRow) -> PurgedDataset {
        let has_objects = self.purge.types_with_objects.contains(&row.kind);
        PurgedDataset { id: row.id, kind: row.kind, name: row.name, has_objects }
    }

    /// Another database, bucket or pattern than the last good scan's is a breaker of evidence, which the next scan latches.
    fn check_baseline(&self, baseline: Option<&Baseline>, look: &Look) -> Result<(), Refusal> {
        let Some(baseline) = baseline else { return Ok(()) };
        let refused =
            |breaker: Breaker, reason: String| Err(Refusal::Latched { breakers: vec![breaker.as_str()], reason });
        let (expected, found) = (&baseline.observation.identity, &look.anchor.identity);
        if expected != found {
            return refused(Breaker::DatabaseIdentity, format!("expected {expected}; found {found}"));
        }
        if baseline.observation.was_set_back(look.anchor.snapshot.as_ref()) {
            return refused(Breaker::DatabaseIdentity, SET_BACK.to_owned());
        }
        let expected = &baseline.observation.target;
        if self.target() != *expected {
            let reason = "endpoint, bucket, prefix or patterns are not those of the last good scan".to_owned();
            return refused(Breaker::TargetChanged, reason);
        }
        Ok(())
    }

    fn target(&self) -> TargetFingerprint {
        TargetFingerprint::of(self.scope, &self.services.config.store.endpoint)
    }

    async fn check_holds(&self, ids: &[DatasetId], as_of: Timestamp) -> Result<(), Refusal> {
        let mut held = Vec::new();
        for (scope, reading) in self.scopes() {
            let in_table = reading.references.holds().await?;
            let holds = holds::gather(self.services, scope, &in_table, as_of).await?;
            held.extend(ids.iter().filter_map(|id| holds.on(*id)).map(holds::shown));
        }
        if held.is_empty() { Ok(()) } else { Err(Refusal::Held { ids: held }) }
    }

    fn intent(&self, run: RunId, order: Order, found: Found, xid: u64) -> PurgeRow {
        let began_at = self.services.clock.now();
        let (rows, made) = (rows_by_table(self.scope, &found.look), made_by_table(self.scope, &found.look));
        let target = Some(self.target());
        let Found { datasets, job, look, as_of } = found;
        PurgeRow {
            run,
            scope: self.scope.name.clone(),
            subject: order.subject(),
            state: PurgeState::Intended,
            xid,
            evidence: PurgeEvidence { anchor: look.anchor, as_of, datasets, job, rows, made, target },
            removed: None,
            is_told: false,
            began_at,
        }
    }

    /// A commit that was not answered: asks what became of it.
    async fn settle(&self, purge: &PurgeRow, error: PlatformError) -> Result<(), Refusal> {
        match fate_of(&self.platform, purge).await {
            Ok(Fate::Committed) => Ok(()),
            Ok(Fate::Aborted) => {
                super::clean::close_unchanged(self.services, self.scope, &self.reading, purge).await?;
                Err(Refusal::Platform(error))
            }
            Ok(Fate::InProgress | Fate::Unknown) | Err(_) => Err(Refusal::InDoubt { run: purge.run, source: error }),
        }
    }
}

/// What became of the transaction of a purge. One whose session has not ended yet is asked about for a while.
pub(super) async fn fate_of(platform: &Platform<'_>, purge: &PurgeRow) -> Result<Fate, PlatformError> {
    let mut tries = 1;
    loop {
        match platform.fate_of(purge.xid, &purge.evidence.anchor.identity).await? {
            Fate::InProgress if tries < FATE_TRIES => tokio::time::sleep(FATE_PAUSE).await,
            fate => return Ok(fate),
        }
        tries += 1;
    }
}

/// Rows of each live table, as its breakers name it.
pub(super) fn rows_by_table(scope: &Scope, look: &Look) -> BTreeMap<String, u64> {
    let tables = scope.live.iter().map(|live| live.label.clone());
    tables.zip(look.rows.iter().map(|rows| rows.values().map(|of| of.count).sum())).collect()
}

/// When those rows were made, where their table tells it; the rows of one id by the newest of them.
fn made_by_table(scope: &Scope, look: &Look) -> BTreeMap<String, BTreeMap<Timestamp, u64>> {
    let of_table = |rows: &BTreeMap<DatasetId, RowsOf>| {
        let mut made = BTreeMap::new();
        for of in rows.values() {
            if let Some(newest) = of.newest {
                *made.entry(newest).or_default() += of.count;
            }
        }
        made
    };
    scope.live.iter().map(|live| live.label.clone()).zip(look.rows.iter().map(of_table)).collect()
}
