//! What every run does first: list the bucket to its end, then read the live ids, then compare.
//!
//! The race this closes: a row committed while the listing runs is seen by the read that follows it, and protects.

use std::collections::HashSet;

use crate::decide::breakers::{Evidence, Observation, Reading as BreakerReading, TargetFingerprint, judge_evidence};
use crate::decide::holds::Holds;
use crate::decide::sightings;
use crate::diff::{Diff, Findings};
use crate::list::census;
use crate::list::references::ProvenReferences;
use crate::list::uploads::{self, Found, Uploads};
use crate::model::{DatasetId, Timestamp};
use crate::record::{PurgeRow, PurgeState};
use crate::report::csv::CsvFile;
use crate::report::figures::Stage;
use crate::report::leaks::{self, UploadCounts, UploadRecord, UploadVerdict};
use crate::s3::retry;

use super::{Reading, RunFailure, Session, holds};

/// A listing and a read of the live ids, both complete and compared.
pub struct Scan {
    /// Who is live, who is an orphan.
    pub findings: Findings,
    /// What was proven of the database.
    pub references: ProvenReferences,
    /// Who is protected by a person.
    pub holds: Holds,
    /// The time that ages are judged at: the earlier of the store's and the database's clock.
    pub as_of: Timestamp,
    /// Foreign keys and prefixes.
    pub foreign: u64,
    /// What the next scan is compared with, if this one is good.
    pub observation: Observation,
    /// The uploads in progress.
    pub uploads: Uploads,
    /// The number of its look at the rows, where nobody else looked since the scan began.
    pub alone: Option<u64>,
}

/// Scans the scope of `session`. `foreign.csv` and `missing.csv` are written on the way.
///
/// - Errors: [`RunFailure`]. Ids that were seen live before it broke off lose their sightings all the same.
pub async fn scan(session: &mut Session<'_>, reading: &Reading) -> Result<Scan, RunFailure> {
    let stop = session.services.stop.token.clone();
    let clock = session.services.clock.clone();
    // Before anything is seen: the time of a first sighting is that of the listing's first page.
    let last_look = session.services.ledger.last_look(&session.scope.name).await?;
    session.enter(Stage::List);
    session.draft.target.versioning = retry::read_with_retries(&stop, || reading.store.versioning()).await?;

    let bar = session.services.progress.counter("listing dataset prefixes");
    let mut host_at_first_page = None;
    let mut foreign_file = CsvFile::foreign(session.folder.file("foreign.csv")?).map_err(RunFailure::ReportRow)?;
    let mut failed_row = None;
    let listing = census::take(
        &*reading.store,
        session.scope,
        &stop,
        |foreign| {
            let written = foreign_file.foreign_row(foreign.prefix_or_key, foreign.kind, foreign.reason.as_str());
            failed_row = failed_row.take().or(written.err());
        },
        |groups| {
            host_at_first_page.get_or_insert_with(|| clock.now());
            bar.set_position(groups as u64);
        },
    )
    .await;
    bar.finish_and_clear();
    if let Some(error) = failed_row {
        return Err(RunFailure::ReportRow(error));
    }
    foreign_file.finish().map_err(RunFailure::ReportRow)?.publish()?;
    session.check_stop()?;
    let listing = listing?;
    session.draft.groups.listed = listing.groups.len() as u64;
    session.draft.groups.foreign = listing.foreign;
    tracing::info!(stage = "list", groups = listing.groups.len(), foreign = listing.foreign, "listing finished");

    let mut uploads = uploads::take(&*reading.store, session.scope, session.scope.uploads.stale_after(), &stop).await;
    session.check_stop()?;

    session.enter(Stage::References);
    // Only now are the rows read: one that was committed meanwhile protects its objects.
    let bar = session.services.progress.counter("reading live ids");
    let host_before_reading = clock.now();
    let mut missing_file = CsvFile::missing(session.folder.file("missing.csv")?).map_err(RunFailure::ReportRow)?;
    let mut failed_row = None;
    let mut diff = Diff::new(listing.groups, listing.store_time, session.scope.policy.grace.span());
    let live_tables = &session.scope.live;
    let mut watched = Watched::of(session, last_look).await?;
    let read = reading
        .references
        .read(&mut |row| {
            watched.note_live(row.id);
            uploads.note_live(row.id);
            let table = &live_tables[row.table];
            let missing_after = chrono::Duration::from_std(table.missing_after).unwrap_or(chrono::Duration::MAX);
            if diff.visit(&row, missing_after) {
                let written = missing_file.missing_row(&row.id.to_string(), &table.table.to_string(), row.created_at);
                failed_row = failed_row.take().or(written.err());
            }
            bar.inc(1);
        })
        .await;
    bar.finish_and_clear();
    let seen_at = read.as_ref().map_or(listing.store_time, |read| listing.store_time.min(read.database_time));
    let alone = Box::pin(watched.remember_live(session, seen_at, read.as_ref().ok())).await?;
    let references = read?;
    if let Some(error) = failed_row {
        return Err(RunFailure::ReportRow(error));
    }
    missing_file.finish().map_err(RunFailure::ReportRow)?.publish()?;
    session.check_stop()?;
    let findings = diff.finish();
    let as_of = listing.store_time.min(references.database_time);
    note_leap(session, as_of).await?;
    session.draft.as_of = Some(as_of);
    // After the listing, like the rows: a hold that was placed meanwhile protects.
    let holds = holds::gather(session.services, session.scope, &references.holds, as_of).await?;
    session.draft.holds.total = holds.ids();
    watched.remember_held(session, &holds, as_of).await?;
    session.draft.groups.live = findings.live() as u64;
    session.draft.missing = findings.missing;
    session.draft.coverage.references = findings.rows;
    tell_uploads(session, &uploads);
    tracing::info!(
        stage = "references",
        rows = findings.rows,
        live = findings.live(),
        missing = findings.missing,
        "live ids read"
    );

    let offsets = [
        chrono::Duration::zero(),
        // Not from before the request: a store that is slow to answer has no wrong clock.
        host_at_first_page.map_or(chrono::Duration::zero(), |host| listing.store_time - host),
        references.database_time - host_before_reading,
    ];
    let observation = observation(session, &references, &findings, (as_of, largest_difference_s(&offsets)));
    Ok(Scan { findings, references, holds, as_of, foreign: listing.foreign, observation, uploads, alone })
}

/// What the next scan is compared with.
fn observation(
    session: &Session<'_>,
    references: &ProvenReferences,
    findings: &Findings,
    (as_of, skew_s): (Timestamp, i64),
) -> Observation {
    Observation {
        as_of,
        rows: references.tables.iter().map(|table| (table.name.clone(), table.rows)).collect(),
        identity: references.identity.clone(),
        target: TargetFingerprint::of(session.scope, &session.services.config.store.endpoint),
        overlap_share: findings.overlap.share(),
        skew_s,
        snapshot: references.snapshot.clone(),
        rows_as_of: None,
    }
}

/// Ids of which the ledger must know when they are live, or held.
struct Watched {
    /// The number of the last look before this scan.
    last_look: u64,
    /// Those that were seen as orphans.
    sighted: HashSet<DatasetId>,
    /// Those of which copies may lie in quarantine.
    quarantined: HashSet<DatasetId>,
    /// Those whose rows were removed by purges that are not over.
    purges: Vec<PurgeRow>,
    purged: HashSet<DatasetId>,
    live: Vec<DatasetId>,
}

impl Watched {
    async fn of(session: &Session<'_>, last_look: u64) -> Result<Self, RunFailure> {
        let (ledger, scope) = (&session.services.ledger, &session.scope.name);
        let sighted = ledger.sighted_ids(scope).await?.into_iter().collect();
        let quarantined = ledger.quarantined_ids(scope).await?.into_iter().collect();
        let purges = ledger.pending_purges(None).await?;
        let purged = purges.iter().flat_map(|purge| &purge.evidence.datasets).map(|dataset| dataset.id).collect();
        Ok(Self { last_look, sighted, quarantined, purges, purged, live: Vec::new() })
    }

    fn note_live(&mut self, id: DatasetId) {
        if self.sighted.contains(&id) || self.quarantined.contains(&id) || self.purged.contains(&id) {
            self.live.push(id);
        }
    }

    /// Whatever becomes of this run, an id that it saw live leaves every plan for good, and its copies wait. Gives the number of the
    /// look, where it was the only one.
    async fn remember_live(
        &self,
        session: &Session<'_>,
        at: Timestamp,
        read: Option<&ProvenReferences>,
    ) -> Result<Option<u64>, RunFailure> {
        if let Some(read) = read {
            self.keep_from_purges(session, read).await?;
        }
        let (ledger, scope) = (&session.services.ledger, &session.scope.name);
        let of = |ids: &HashSet<DatasetId>| self.live.iter().copied().filter(|id| ids.contains(id)).collect::<Vec<_>>();
        let number = ledger.note_look(scope, &of(&self.sighted), &self.sighted).await?;
        ledger.want(scope, &of(&self.quarantined), at).await?;
        Ok((number == self.last_look + 1).then_some(number))
    }

    /// A row that is there after the end of the transaction that removed it is another one: nothing more of its dataset goes by that
    /// purge, should it be gone again when the purge goes on. A read that began before that end says nothing.
    async fn keep_from_purges(&self, session: &Session<'_>, read: &ProvenReferences) -> Result<(), RunFailure> {
        for purge in self.purges.iter().filter(|purge| purge.is_of_rows(&session.scope.name, &read.identity)) {
            let PurgeRow { run, state, xid, evidence, .. } = purge;
            // One that was known to be committed before this read began is before it, though the database may have been set back.
            let is_after = evidence.anchor.identity.is_same_database(&read.identity)
                && (*state == PurgeState::Committed
                    || read.snapshot.as_ref().is_some_and(|snapshot| snapshot.saw(*xid)));
            let of_purge = |id: &DatasetId| evidence.datasets.iter().any(|dataset| dataset.id == *id);
            let live: Vec<DatasetId> = self.live.iter().copied().filter(of_purge).collect();
            if is_after && !live.is_empty() {
                tracing::warn!(run_id = %run, datasets = live.len(), "datasets of a purge that waits have rows again; it leaves them alone");
                session.services.ledger.note_live_again(*run, &live).await?;
            }
        }
        Ok(())
    }

    async fn remember_held(&self, session: &Session<'_>, holds: &Holds, at: Timestamp) -> Result<(), RunFailure> {
        let held: Vec<DatasetId> = self.quarantined.iter().copied().filter(|id| holds.on(*id).is_some()).collect();
        Ok(session.services.ledger.want(&session.scope.name, &held, at).await?)
    }
}

/// Looks how far time went on since the last good scan, once in a run: its own scan is the last one by the next.
async fn note_leap(session: &mut Session<'_>, as_of: Timestamp) -> Result<(), RunFailure> {
    if session.draft.as_of.is_none() {
        let before = session.services.ledger.baseline(&session.scope.name).await?;
        let last_good_scan = before.map(|before| before.observation.as_of);
        let interval = session.scope.schedule.as_ref().map(|schedule| schedule.longest_interval(as_of));
        session.leap = sightings::leap(last_good_scan, as_of, &session.scope.policy, interval);
    }
    Ok(())
}

/// Puts the uploads into the report. What the store does not tell of them is no error: grace and digest are what proves
/// that nobody writes.
fn tell_uploads(session: &mut Session<'_>, uploads: &Uploads) {
    let (under_orphans, stale) = uploads.under_orphans();
    session.draft.uploads = UploadCounts {
        known: uploads.unknown.is_none(),
        in_progress: uploads.in_progress,
        under_orphans,
        stale,
        aborted: 0,
        oldest: uploads.oldest,
        held_by: None,
    };
    session.draft.coverage.unknown.retain(|what| !what.starts_with(leaks::UPLOADS));
    if let Some(error) = &uploads.unknown {
        tracing::debug!(error = %error, "uploads in progress are not known");
        session.draft.coverage.unknown.push(format!("{}: {error}", leaks::UPLOADS));
    }
    session.uploads = uploads.told.iter().map(|found| record(found, uploads)).collect();
}

fn record(found: &Found, uploads: &Uploads) -> UploadRecord {
    let verdict = match found.owner.id() {
        None => UploadVerdict::Foreign,
        Some(id) if !uploads.is_under_orphan(id) => UploadVerdict::Live,
        Some(_) if found.is_stale => UploadVerdict::Stale,
        Some(_) => UploadVerdict::Blocks,
    };
    UploadRecord {
        key: found.upload.key.as_str().to_owned(),
        upload_id: found.upload.upload_id.clone(),
        initiated: found.upload.initiated,
        id: found.owner.id().map(|id| id.to_string()).unwrap_or_default(),
        verdict,
    }
}

/// The largest difference between two of the clocks' offsets, in whole seconds.
fn largest_difference_s(offsets: &[chrono::Duration]) -> i64 {
    let seconds = offsets.iter().map(chrono::Duration::num_seconds);
    seconds.clone().max().unwrap_or(0) - seconds.min().unwrap_or(0)
}

impl Scan {
    /// Reads the evidence breakers of this scan, and latches what trips.
    ///
    /// - Errors: the ledger's.
    pub async fn judge(&self, session: &Session<'_>, errors: &[String]) -> Result<Vec<BreakerReading>, RunFailure> {
        let (ledger, scope) = (&session.services.ledger, session.scope);
        let baseline = ledger.baseline(&scope.name).await?;
        let purges = ledger.purged_rows(&scope.name).await?;
        let evidence = Evidence {
            observation: &self.observation,
            overlap: self.findings.overlap,
            listed_groups: self.findings.listed() as u64,
            open_transactions: self.references.open_transactions,
            role: &self.references.role,
            database_time: self.references.database_time,
            errors,
            purges: &purges,
        };
        let mut readings = judge_evidence(&evidence, baseline.as_ref(), &scope.limits, scope.policy.grace);
        let tripped: Vec<_> = readings
            .iter()
            .filter(|reading| reading.tripped && reading.name.latches())
            .map(|reading| (reading.name, reading.message.clone()))
            .collect();
        if !tripped.is_empty() {
            ledger.latch(&scope.name, session.run, session.services.clock.now(), &tripped, &self.observation).await?;
        }
        for latch in ledger.latches(&scope.name).await? {
            if let Some(reading) = readings.iter_mut().find(|reading| reading.name == latch.breaker) {
                reading.latched = true;
                if !reading.tripped {
                    reading.message =
                        format!("waits for an acknowledgement since run {}: {}", latch.run_id, latch.message);
                }
            }
        }
        Ok(readings)
    }
}
