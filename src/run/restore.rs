//! restore: hold, copy back, prove, report.
//!
//! Takes a run that deleted; brings its objects back from its quarantine, or from beneath the markers that it made. Invariant:
//! each id of which something comes back is held before its first object is, so that no sweep takes it again; what lies at a
//! key now is never overwritten; an object counts as brought back only after it was compared with its source byte by byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Keyring, Reading, RunFailure, Services, Session, Undoing, confirm};
use crate::dispose::transfer::{TransferError, Transferred, compare, transfer};
use crate::exit::Exit;
use crate::list::pages::Pages;
use crate::list::undeleted::Undeleted;
use crate::model::{DatasetId, Mode, Object, ObjectKey, RunId, Timestamp, human_bytes, human_count};
use crate::parse::group_of_key;
use crate::record::{RecordError, Undo, UndoKind};
use crate::report::Restored;
use crate::report::csv::CsvFile;
use crate::report::figures::Stage;
use crate::s3::{CopyStore, Place, StoreError, WriteWhen, retry};

/// Objects that are brought back at the same time.
const RESTORES_AT_ONCE: usize = 8;
/// How long after its last look a run's markers may still appear: requests that were sent are executed.
const MARKERS_APPEAR_FOR: chrono::Duration = chrono::Duration::seconds(90);

/// What a person wants back.
pub struct RestoreJob {
    /// The run that deleted it.
    pub run: String,
    /// Only this dataset.
    pub dataset: Option<DatasetId>,
    /// Whether to write at all.
    pub mode: Mode,
    /// Whether to ask on the terminal first.
    pub asks_first: bool,
}

/// One object that may come back.
struct Found {
    id: DatasetId,
    group: String,
    original: ObjectKey,
    size_bytes: u64,
    /// Where it comes from, or why it does not.
    source: Result<Place, &'static str>,
    /// Where other runs of the plan copied it to.
    others: Vec<Place>,
    /// Whether what comes back may be older than what was deleted.
    may_be_older: bool,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Restored,
    Skipped(&'static str),
    Failed(String),
}

/// Brings back what a run deleted.
///
/// - Errors: [`RunFailure::Refused`] where nothing of it can be brought back, or the person says no.
pub async fn restore(
    session: &mut Session<'_>,
    reading: &Reading,
    keyring: &Keyring,
    job: &RestoreJob,
) -> Result<(), RunFailure> {
    let stop = session.services.stop.token.clone();
    session.draft.target.versioning = retry::read_with_retries(&stop, || reading.store.versioning()).await?;
    let undos = restorable(session, job).await?;
    session.enter(Stage::Dispose);
    session.draft.plan_hash = undos.first().map(|undo| undo.plan.to_string());
    let mut undoings = BTreeMap::new();
    for undo in &undos {
        if !undoings.contains_key(&undo.bucket) {
            undoings.insert(undo.bucket.clone(), keyring.undoing(session.services, &undo.bucket)?);
        }
    }
    let wish =
        Wish { session_scope: session.scope, undos: &undos, dataset: job.dataset, undoings: &undoings, stop: &stop };
    let groups = groups_of(session, &undos).await?;
    let (ids, totals) = count(&wish, &groups).await?;
    let of_run = uuid::Uuid::parse_str(&job.run).unwrap_or_default();
    let mut restored =
        Restored { of_run, objects: totals.0, bytes: totals.1, restored: 0, skipped: 0, failed: 0, perhaps_older: 0 };
    session.draft.restore = Some(restored.clone());
    session.check_stop()?;
    if totals.0 == 0 {
        return Err(refused(
            format!("nothing that run {} deleted is there to be brought back", job.run),
            "see its report; what its quarantine or the bucket's lifecycle removed is gone",
        ));
    }
    if job.mode == Mode::DryRun {
        session.draft.coverage.complete = true;
        return Ok(());
    }
    ask_person(session, job, totals, ids.len())?;
    let copier = keyring.copying(session.services)?;
    let holder = Holder { session, of_run: &job.run, held: tokio::sync::Mutex::default() };
    let ended = bring_back(&holder, &wish, &groups, (&*copier, &mut restored)).await;
    let is_whole = restored.restored + restored.skipped + restored.failed == restored.objects;
    session.draft.restore = Some(restored.clone());
    let told = json!({ "of_run": job.run, "restored": restored.restored, "skipped": restored.skipped, "failed": restored.failed });
    session.services.ledger.note_undone("restored", session.run, &told).await?;
    ended?;
    session.check_stop()?;
    session.draft.coverage.complete = is_whole;
    if restored.failed > 0 {
        session.exit = Exit::SomeFailed;
        session.draft.reason =
            Some(format!("{} objects could not be brought back (restored.csv)", human_count(restored.failed)));
    }
    tracing::info!(run_id = %session.run, object_count = restored.restored, skipped = restored.skipped, failed = restored.failed, "restore ended");
    Ok(())
}

fn refused(reason: String, hint: &str) -> RunFailure {
    RunFailure::Refused { reason, hint: hint.to_owned() }
}

/// What the run left that can be brought back.
async fn restorable(session: &Session<'_>, job: &RestoreJob) -> Result<Vec<Undo>, RunFailure> {
    let undos = session.services.ledger.undos_of(&job.run).await?;
    if undos.is_empty() {
        return Err(refused(
            format!(
                "nothing that run {} deleted can be brought back: the bucket kept no versions, and nothing was copied aside",
                job.run
            ),
            "restore it from a backup of the store; `disposal = \"quarantine\"` or a versioned bucket makes the next deletion one that can be undone",
        ));
    }
    let kept: Vec<Undo> = undos.into_iter().filter(|undo| undo.is_kept).collect();
    let Some(kind) = kept.first().map(|undo| undo.kind) else {
        return Err(refused(
            format!("the quarantine of run {} was emptied: its time is over", job.run),
            "restore it from a backup of the store",
        ));
    };
    // Runs of one plan share their policy; should they not, the run's own way is taken.
    Ok(kept.into_iter().filter(|undo| undo.kind == kind).collect())
}

/// The groups of the runs' plans, where versions are looked for: the time of a marker says which run made it. A quarantine has its
/// own list.
async fn groups_of(session: &Session<'_>, undos: &[Undo]) -> Result<Vec<(DatasetId, String)>, RunFailure> {
    if undos[0].kind == UndoKind::Quarantine {
        return Ok(Vec::new());
    }
    let runs: Vec<RunId> = undos.iter().map(|undo| undo.run).collect();
    Ok(session.services.ledger.disposed_groups(&session.scope.name, &runs).await?)
}

/// What is looked for, and with what.
struct Wish<'w> {
    session_scope: &'w crate::config::Scope,
    undos: &'w [Undo],
    dataset: Option<DatasetId>,
    /// What reads each bucket that something comes back from.
    undoings: &'w BTreeMap<String, Undoing>,
    stop: &'w CancellationToken,
}

impl<'w> Wish<'w> {
    fn wants(&self, id: DatasetId) -> bool {
        self.dataset.is_none_or(|wanted| wanted == id)
    }

    fn undoing_of(&self, undo: &Undo) -> &'w Undoing {
        &self.undoings[&undo.bucket]
    }

    /// Everything that may come back, in the order of the keys.
    fn sources(&'w self, groups: &'w [(DatasetId, String)]) -> Sources<'w> {
        let folders = match self.undos[0].kind {
            UndoKind::Quarantine => self.undos.iter().map(|undo| CopyFolder::new(self, undo)).collect(),
            UndoKind::Versions => Vec::new(),
        };
        let groups = groups.iter().filter(|(id, _)| self.wants(*id)).cloned().collect();
        Sources { wish: self, folders, groups, open: None }
    }

    /// Whether a marker of that time was made by one of the runs.
    fn is_ours(&self, made: Timestamp) -> bool {
        self.undos.iter().any(|undo| {
            // A run that died made markers until another took over.
            let later = self.undos.iter().map(|other| other.began_at).filter(|began| *began > undo.began_at).min();
            let end = undo.ended_at.or(later).and_then(|end| end.checked_add_signed(MARKERS_APPEAR_FOR));
            made >= undo.began_at && end.is_none_or(|end| made <= end)
        })
    }
}

/// One quarantine, listed in the order of its keys.
struct CopyFolder<'w> {
    undo: &'w Undo,
    pages: Pages<'w>,
    listed: VecDeque<Object>,
}

impl<'w> CopyFolder<'w> {
    fn new(wish: &'w Wish<'w>, undo: &'w Undo) -> Self {
        let pages = Pages::new(&*wish.undoing_of(undo).store, &undo.prefix, false, wish.stop);
        Self { undo, pages, listed: VecDeque::new() }
    }

    /// The key of the next copy's original.
    async fn peek(&mut self) -> Result<Option<ObjectKey>, StoreError> {
        while self.listed.is_empty() {
            match self.pages.next().await? {
                Some(page) => self.listed.extend(page.objects),
                None => return Ok(None),
            }
        }
        let key = self.listed.front().and_then(|copy| copy.key.as_str().strip_prefix(self.undo.prefix.as_str()));
        Ok(key.map(ObjectKey::new))
    }
}

/// What may come back.
struct Sources<'w> {
    wish: &'w Wish<'w>,
    folders: Vec<CopyFolder<'w>>,
    groups: VecDeque<(DatasetId, String)>,
    open: Option<(DatasetId, String, Undeleted<'w>)>,
}

impl Sources<'_> {
    async fn next(&mut self) -> Result<Option<Found>, StoreError> {
        if self.folders.is_empty() { self.next_version().await } else { self.next_copy().await }
    }

    /// The next copy: of those that several runs made of one object, the run's own, and the others of which one may be proven where
    /// it is not.
    async fn next_copy(&mut self) -> Result<Option<Found>, StoreError> {
        loop {
            let mut first: Option<(ObjectKey, usize)> = None;
            for (index, folder) in self.folders.iter_mut().enumerate() {
                if let Some(key) = folder.peek().await?
                    && first.as_ref().is_none_or(|(smallest, _)| key < *smallest)
                {
                    first = Some((key, index));
                }
            }
            let Some((original, chosen)) = first else { return Ok(None) };
            let (mut copy, mut others) = (None, Vec::new());
            for (index, folder) in self.folders.iter_mut().enumerate() {
                if folder.peek().await?.as_ref() == Some(&original)
                    && let Some(taken) = folder.listed.pop_front()
                {
                    if index == chosen {
                        copy = Some((taken, folder.undo));
                    } else {
                        others.push(Place::current(&folder.undo.bucket, taken.key));
                    }
                }
            }
            let Some((copy, undo)) = copy else { continue };
            // A key that no pattern reads was put there by somebody else.
            let scope = self.wish.session_scope;
            let group = group_of_key(original.as_str(), &scope.prefix, &scope.patterns);
            let Some((id, group)) = group.filter(|(id, _)| self.wish.wants(*id)) else { continue };
            let group = group.to_owned();
            let source = Ok(Place::current(&undo.bucket, copy.key));
            let size_bytes = copy.size_bytes;
            return Ok(Some(Found { id, group, original, size_bytes, source, others, may_be_older: false }));
        }
    }

    async fn next_version(&mut self) -> Result<Option<Found>, StoreError> {
        loop {
            if self.open.is_none() {
                let Some((id, group)) = self.groups.pop_front() else { return Ok(None) };
                let store = &*self.wish.undoing_of(&self.wish.undos[0]).store;
                let keys = Undeleted::new(store, &group, self.wish.stop);
                self.open = Some((id, group, keys));
            }
            let Some((id, group, keys)) = &mut self.open else { continue };
            let Some((original, known)) = keys.next().await? else {
                self.open = None;
                continue;
            };
            let bucket = &self.wish.undos[0].bucket;
            let place =
                |id: &str| Place { bucket: bucket.clone(), key: original.clone(), version: Some(id.to_owned()) };
            let source = known.to_restore(|made| self.wish.is_ours(made)).map(|version| place(&version.id));
            let size_bytes = known.newest.as_ref().map_or(0, |version| version.size_bytes);
            let may_be_older = known.may_be_older;
            let (id, group, others) = (*id, group.clone(), Vec::new());
            return Ok(Some(Found { id, group, original, size_bytes, source, others, may_be_older }));
        }
    }
}

/// Which ids may come back, and how many objects and bytes are looked at.
async fn count(
    wish: &Wish<'_>,
    groups: &[(DatasetId, String)],
) -> Result<(BTreeSet<DatasetId>, (u64, u64)), RunFailure> {
    let (mut ids, mut objects, mut bytes) = (BTreeSet::new(), 0_u64, 0_u64);
    let mut sources = wish.sources(groups);
    while let Some(found) = sources.next().await? {
        objects += 1;
        bytes = bytes.saturating_add(found.size_bytes);
        if found.source.is_ok() {
            ids.insert(found.id);
        }
    }
    Ok((ids, (objects, bytes)))
}

fn ask_person(
    session: &Session<'_>,
    job: &RestoreJob,
    (objects, bytes): (u64, u64),
    datasets: usize,
) -> Result<(), RunFailure> {
    if !job.asks_first {
        return Ok(());
    }
    let bucket = &session.scope.bucket;
    let what = format!(
        "{} objects ({}) of {} datasets will be copied back into the bucket `{bucket}` and held; what lies at a key now is left alone.",
        human_count(objects),
        human_bytes(bytes),
        human_count(datasets as u64)
    );
    let answer = session.services.progress.suspend(|| confirm::ask_about(bucket, &what));
    if answer.unwrap_or(false) {
        return Ok(());
    }
    Err(refused("the bucket's name was not typed".into(), "nothing was written; restore again when you are sure"))
}

/// Holds ids.
struct Holder<'h> {
    session: &'h Session<'h>,
    of_run: &'h str,
    held: tokio::sync::Mutex<BTreeSet<DatasetId>>,
}

impl Holder<'_> {
    /// Holds an id, before its first object is back. Who comes second waits until it is held.
    async fn hold(&self, id: DatasetId) -> Result<(), RecordError> {
        let mut held = self.held.lock().await;
        if held.contains(&id) {
            return Ok(());
        }
        let Services { ledger, clock, .. } = self.session.services;
        let reason = format!("restored from run {}", self.of_run);
        ledger.place_hold(&self.session.scope.name, id, None, "restore", &reason, clock.now()).await?;
        held.insert(id);
        crate::failpoint::reach("held");
        Ok(())
    }
}

async fn bring_back(
    holder: &Holder<'_>,
    wish: &Wish<'_>,
    groups: &[(DatasetId, String)],
    (copier, restored): (&dyn CopyStore, &mut Restored),
) -> Result<(), RunFailure> {
    let session = holder.session;
    let bar = session.services.progress.bar("restoring objects", restored.objects);
    let mut csv = CsvFile::restored(session.folder.file("restored.csv")?).map_err(RunFailure::ReportRow)?;
    let sources = futures::stream::unfold(Some(wish.sources(groups)), |sources| async move {
        let mut sources = sources?;
        if wish.stop.is_cancelled() {
            return None;
        }
        match sources.next().await {
            Ok(Some(found)) => Some((Ok(found), Some(sources))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let work = sources.map(|found| async move {
        match found {
            Ok(found) => Ok(restore_one(holder, wish, copier, found).await?),
            Err(error) => Err(RunFailure::Store(error)),
        }
    });
    let mut work = std::pin::pin!(work.buffered(RESTORES_AT_ONCE));
    let mut ended = Ok(());
    while let Some(done) = work.next().await {
        let (found, outcome) = match done {
            Ok(done) => done,
            // What is on its way is finished and told all the same.
            Err(failure) => {
                ended = ended.and(Err(failure));
                continue;
            }
        };
        let (word, reason) = match &outcome {
            Outcome::Restored if found.may_be_older => ("restored", PERHAPS_OLDER),
            Outcome::Restored => ("restored", ""),
            Outcome::Skipped(reason) => ("skipped", *reason),
            Outcome::Failed(reason) => ("failed", reason.as_str()),
        };
        *match &outcome {
            Outcome::Restored => &mut restored.restored,
            Outcome::Skipped(_) => &mut restored.skipped,
            Outcome::Failed(_) => &mut restored.failed,
        } += 1;
        restored.perhaps_older += u64::from(outcome == Outcome::Restored && found.may_be_older);
        let row = [found.original.as_str(), &found.group, word, reason];
        csv.restored_row(row, found.size_bytes).map_err(RunFailure::ReportRow)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    csv.finish().map_err(RunFailure::ReportRow)?.publish()?;
    ended
}

/// The reason of an object that was brought back where nobody can tell whether it is what was deleted: versioning was suspended
/// then, and what had been written since had no version of its own.
const PERHAPS_OLDER: &str = "perhaps_older";

async fn restore_one(
    holder: &Holder<'_>,
    wish: &Wish<'_>,
    copier: &dyn CopyStore,
    found: Found,
) -> Result<(Found, Outcome), RunFailure> {
    let session = holder.session;
    let chosen = match &found.source {
        Ok(chosen) => chosen,
        Err(reason) => {
            let outcome = Outcome::Skipped(reason);
            return Ok((found, outcome));
        }
    };
    let mut proven = None;
    for copy in std::iter::once(chosen).chain(&found.others) {
        if !is_doubted(session, wish, (copy, &found.original)).await? {
            proven = Some(copy);
            break;
        }
    }
    let source = proven.unwrap_or(chosen);
    let target = Place::current(&session.scope.bucket, found.original.clone());
    let hold = || holder.hold(found.id);
    let outcome = match copy_back(copier, wish.stop, (source, &target), (proven.is_some(), hold)).await {
        Ok(outcome) => outcome,
        Err(BackError::Record(error)) => return Err(error.into()),
        Err(BackError::Transfer(error)) => {
            tracing::warn!(key = %crate::model::visible(found.original.as_str()), error = %error, "an object could not be brought back");
            Outcome::Failed(error.to_string())
        }
    };
    Ok((found, outcome))
}

/// Whether a copy in a quarantine was never proven to be what `original` was.
async fn is_doubted(
    session: &Session<'_>,
    wish: &Wish<'_>,
    (copy, original): (&Place, &ObjectKey),
) -> Result<bool, RecordError> {
    for undo in wish.undos.iter().filter(|undo| undo.kind == UndoKind::Quarantine) {
        let is_of = copy.key.as_str().starts_with(&undo.prefix);
        if is_of && session.services.ledger.is_copy_doubted(undo.run, original).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why an object is not back.
#[derive(Debug, thiserror::Error)]
enum BackError {
    /// It could not be copied, or not proven.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Its id could not be held: nothing comes back then.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StoreError> for BackError {
    fn from(error: StoreError) -> Self {
        Self::Transfer(error.into())
    }
}

/// Copies one object back, where nothing is in its place and the copy `is_proven`; `hold` comes before the copy, and where nothing
/// comes back, not at all.
async fn copy_back<H: Future<Output = Result<(), RecordError>>>(
    copier: &dyn CopyStore,
    stop: &CancellationToken,
    (source, target): (&Place, &Place),
    (is_proven, hold): (bool, impl FnOnce() -> H),
) -> Result<Outcome, BackError> {
    let Some(seen) = retry::read_with_retries(stop, || copier.head(source)).await? else {
        return Ok(Outcome::Failed("the source is gone".into()));
    };
    if retry::read_with_retries(stop, || copier.head(target)).await?.is_none() {
        if !is_proven {
            return Ok(Outcome::Failed("the copy was never proven".into()));
        }
        hold().await?;
        match transfer(copier, stop, (source, &seen), (target, WriteWhen::Absent)).await? {
            Transferred::Done => return Ok(Outcome::Restored),
            Transferred::Refused => {}
        }
    }
    // Something is there: the same object, which an earlier attempt brought back, or newer data.
    match compare(copier, stop, (source, &seen), target).await {
        Ok(Transferred::Done) => Ok(Outcome::Skipped("already_there")),
        Ok(Transferred::Refused) => Ok(Outcome::Failed("the source changed".into())),
        Err(TransferError::Differs(_)) => Ok(Outcome::Skipped("newer_data")),
        Err(error) => Err(error.into()),
    }
}
