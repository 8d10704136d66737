//! Tells what became of every key: from the journal into `deletions.csv`, and of large plans part by part while they are
//! worked through, so that the journal does not fill the disk that the run came to free.
//!
//! Invariant: every key is told by exactly one report, also when a process dies around its own: what a dead run told in a
//! part, or left in the journal, is told by the next run of the plan.

use std::io::Write;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{RunFailure, Session};
use crate::config::Scope;
use crate::dispose::space::row_limits;
use crate::dispose::{Closing, Halt};
use crate::model::{RunId, Sha256Hash, Versioning};
use crate::plan::PlanGroup;
use crate::record::{DeletionTotals, Ledger, Part, PartOf, StepTotals, UndoKind};
use crate::report::csv::CsvFile;
use crate::report::folder::{self, ReportFile, ReportFolder, part_name};
use crate::report::{Deletion, Steps};

/// Begins a run's work on a plan: from now on it tells what dead runs of the plan left untold.
///
/// - Errors: the ledger's, and the report's.
pub async fn begin_plan(session: &mut Session<'_>, plan: Sha256Hash) -> Result<(), RunFailure> {
    // Before the ledger gives this run anything to tell: whatever fails from here on, no report may pass it over.
    session.untold.plans.push(plan);
    let ledger = &session.services.ledger;
    let dead = unreported_runs(session, plan).await?;
    let mut number = ledger.parts_of(&session.run.to_string()).await?.len() as u64;
    let mut taken_over = Vec::new();
    for run in &dead {
        for part in ledger.parts_of(run).await? {
            if part.number == 0 {
                taken_over.push((part, 0));
                continue;
            }
            number += 1;
            if !session.folder.adopt_part(run, part.number, number)? {
                tracing::warn!(run_id = %run, part = part_name(part.number), "a part of deletions.csv is gone; its keys are counted all the same");
            }
            taken_over.push((part, number));
        }
    }
    ledger.take_over_undos(session.run, &dead).await?;
    ledger.begin_step(plan, session.run, session.draft.started_at, &dead, &taken_over).await?;
    ledger.start_plan(plan, session.run, &dead).await?;
    Ok(())
}

/// Dead runs of this plan that left no report: their keys are told by this one.
async fn unreported_runs(session: &Session<'_>, plan: Sha256Hash) -> Result<Vec<String>, RunFailure> {
    let (ledger, reports) = (&session.services.ledger, &session.services.config.reports_directory);
    let mut dead = Vec::new();
    for run in ledger.runs_of_plan(plan).await? {
        // A report may be removed later; the ledger knows that it was there.
        let has_ended = ledger.run(&run).await?.is_some_and(|run| run.exit_code.is_some());
        if !has_ended && run != session.run.to_string() && !folder::has_summary(reports, &session.scope.name, &run) {
            dead.push(run);
        }
    }
    Ok(dead)
}

/// Writes the totals, and `deletions.csv`, of what this run has to tell.
///
/// - Errors: the ledger's, and the report's. The plan stays untold then, and the run's end tries again.
pub async fn tell_deletions(session: &mut Session<'_>, plan: Sha256Hash) -> Result<Deletion, RunFailure> {
    let deletion = tell(session, plan).await?;
    session.untold.plans.retain(|untold| *untold != plan);
    Ok(deletion)
}

async fn tell(session: &mut Session<'_>, plan: Sha256Hash) -> Result<Deletion, RunFailure> {
    let ledger = &session.services.ledger;
    let in_journal = ledger.deletion_totals(session.run).await?;
    let parts = ledger.parts_of(&session.run.to_string()).await?;
    session.folder.settle_parts(&parts.iter().map(|part| part.number).collect())?;
    let totals = parts.iter().fold(in_journal, |totals, part| totals.plus(&part.totals));
    let undos = ledger.undos_of(&session.run.to_string()).await?;
    let is_aside = undos.iter().any(|undo| undo.kind == UndoKind::Quarantine);
    let versioning = session.draft.target.versioning;
    let deletion = as_told(versioning, is_aside, &totals);
    let of_plan = as_told(versioning, is_aside, &ledger.told_of_plan(plan, session.run).await?);
    ledger.note_step(plan, session.run, &step_of(&of_plan)).await?;
    session.draft.steps = ledger.steps(plan).await?.map(|steps| Steps::new(&steps));
    if deletion.requested == 0 {
        return Ok(deletion);
    }
    session.draft.deletion = Some(deletion);
    let refused = ledger.refused_keys(session.run).await?;
    (session.draft.leaks.ghosts, session.draft.leaks.object_lock) = (refused.ghosts, refused.locked);
    let last = parts.iter().map(|part| part.number).max().unwrap_or(0);
    write_rest(session, in_journal.requested, last).await?;
    Ok(deletion)
}

fn as_told(versioning: Versioning, is_aside: bool, totals: &DeletionTotals) -> Deletion {
    let is_marking = matches!(versioning, Versioning::Enabled | Versioning::Suspended);
    Deletion {
        requested: totals.requested,
        deleted: totals.deleted,
        already_gone: totals.already_gone,
        skipped: totals.skipped,
        failed: totals.failed,
        unconfirmed: totals.unconfirmed,
        bytes_deleted: if is_marking || is_aside { 0 } else { totals.bytes },
        bytes_marked: if is_marking { totals.bytes } else { 0 },
        bytes_quarantined: if is_aside { totals.bytes } else { 0 },
    }
}

fn step_of(deletion: &Deletion) -> StepTotals {
    StepTotals {
        deleted: deletion.deleted,
        already_gone: deletion.already_gone,
        skipped: deletion.skipped,
        failed: deletion.failed,
        unconfirmed: deletion.unconfirmed,
        bytes_freed: deletion.bytes_deleted,
        bytes_marked: deletion.bytes_marked,
        bytes_aside: deletion.bytes_quarantined,
    }
}

/// Writes what is still in the journal: one plain file, or parts after the `last` one where there is too much of it.
async fn write_rest(session: &Session<'_>, rows: u64, last: u64) -> Result<(), RunFailure> {
    let (most_plain, per_part) = row_limits();
    let is_plain = last == 0 && rows <= most_plain;
    if !is_plain {
        // What an earlier plan of the same run was told in is told again, in parts.
        std::fs::remove_file(session.folder.path().join("deletions.csv")).ok();
    }
    let (mut after, mut number, mut left) = (None, last, rows);
    while left > 0 {
        number += 1;
        let (mut file, most) = if is_plain {
            (TellingFile::plain(session.folder.file("deletions.csv")?)?, u64::MAX)
        } else {
            (TellingFile::compressed(session.folder.file(&part_name(number))?)?, per_part)
        };
        while file.totals.requested < most {
            let rows =
                session.services.ledger.deletion_rows(&session.scope.name, session.run, after.as_deref()).await?;
            let Some(row) = rows.last() else { break };
            after = Some(row.key.clone());
            file.write(&rows)?;
        }
        if file.totals.requested == 0 {
            break;
        }
        left = left.saturating_sub(file.totals.requested);
        file.finish()?.publish()?;
    }
    Ok(())
}

/// `deletions.csv`, or a part of it, while it is written.
struct TellingFile {
    csv: CsvFile<Box<dyn Finish + Send>>,
    totals: DeletionTotals,
}

impl TellingFile {
    fn plain(file: ReportFile) -> Result<Self, RunFailure> {
        Self::new(Box::new(file))
    }

    fn compressed(file: ReportFile) -> Result<Self, RunFailure> {
        Self::new(Box::new(zstd::Encoder::new(file, 3).map_err(RunFailure::ReportRow)?))
    }

    fn new(target: Box<dyn Finish + Send>) -> Result<Self, RunFailure> {
        let csv = CsvFile::deletions(target).map_err(RunFailure::ReportRow)?;
        Ok(Self { csv, totals: DeletionTotals::default() })
    }

    fn write(&mut self, rows: &[crate::model::DeletionRow]) -> Result<(), RunFailure> {
        for row in rows {
            self.csv.deletion(row).map_err(RunFailure::ReportRow)?;
            self.totals.add(&row.outcome, 1, row.bytes);
        }
        Ok(())
    }

    fn finish(self) -> Result<ReportFile, RunFailure> {
        self.csv.finish().and_then(Finish::finish).map_err(RunFailure::ReportRow)
    }
}

/// What a CSV file is written into, plain or compressed.
trait Finish: Write {
    /// Writes what is buffered and gives the file back.
    fn finish(self: Box<Self>) -> std::io::Result<ReportFile>;
}

impl Finish for ReportFile {
    fn finish(self: Box<Self>) -> std::io::Result<ReportFile> {
        Ok(*self)
    }
}

impl Finish for zstd::Encoder<'static, ReportFile> {
    fn finish(self: Box<Self>) -> std::io::Result<ReportFile> {
        zstd::Encoder::finish(*self)
    }
}

/// Tells a large plan part by part, and compacts what it told.
pub struct Teller<'t> {
    ledger: &'t Ledger,
    scope: &'t Scope,
    folder: &'t ReportFolder,
    run: RunId,
    plan: Sha256Hash,
    /// `None` where the plan is small enough for one plain file: nothing is told before the end.
    open: Option<tokio::sync::Mutex<OpenPart>>,
    failure: Mutex<Option<RunFailure>>,
}

/// The part that groups are being noted for.
#[derive(Debug)]
struct OpenPart {
    part: u64,
    number: u64,
    rows: u64,
}

impl<'t> Teller<'t> {
    /// A teller for `objects` of a plan that this run has begun.
    pub async fn new(session: &'t Session<'_>, plan: Sha256Hash, objects: u64) -> Result<Teller<'t>, RunFailure> {
        let ledger = &session.services.ledger;
        let open = if objects > row_limits().0 {
            let parts = ledger.parts_of(&session.run.to_string()).await?;
            let number = parts.iter().map(|part| part.number).max().unwrap_or(0) + 1;
            Some(tokio::sync::Mutex::new(OpenPart { part: ledger.next_part(plan).await?, number, rows: 0 }))
        } else {
            None
        };
        Ok(Self {
            ledger,
            scope: session.scope,
            folder: &session.folder,
            run: session.run,
            plan,
            open,
            failure: Mutex::default(),
        })
    }

    /// Why a part could not be told, where that ended the run.
    pub fn failure(&self) -> Option<RunFailure> {
        self.failure.lock().take()
    }

    async fn note(&self, open: &mut OpenPart, groups: &[&PlanGroup]) -> Result<(), RunFailure> {
        let prefixes: Vec<&str> = groups.iter().map(|group| group.prefix.as_str()).collect();
        self.ledger.mark_over(self.plan, open.part, &prefixes).await?;
        open.rows += groups.iter().map(|group| group.objects).sum::<u64>();
        if open.rows < row_limits().1 {
            return Ok(());
        }
        if self.tell_part(open.part, open.number).await? {
            open.number += 1;
        }
        open.part += 1;
        open.rows = 0;
        Ok(())
    }

    /// Tells one part and compacts it; says whether there was something to tell.
    async fn tell_part(&self, part: u64, number: u64) -> Result<bool, RunFailure> {
        let of = PartOf { scope: &self.scope.name, plan: self.plan, run: self.run, part };
        let mut rows = self.ledger.part_rows(&of, None).await?;
        if rows.is_empty() {
            self.ledger.compact(&of, Part { place: part, number: 0, totals: DeletionTotals::default() }).await?;
            return Ok(false);
        }
        let mut file = TellingFile::compressed(self.folder.file(&part_name(number))?)?;
        while let Some(last) = rows.last() {
            let after = last.key.clone();
            file.write(&rows)?;
            rows = self.ledger.part_rows(&of, Some(&after)).await?;
        }
        let totals = file.totals;
        let synced = file.finish()?.sync()?;
        crate::failpoint::reach("part_written");
        self.ledger.compact(&of, Part { place: part, number, totals }).await?;
        crate::failpoint::reach("part_noted");
        synced.publish()?;
        crate::failpoint::reach("part_published");
        tracing::info!(run_id = %self.run, object_count = totals.requested, part = part_name(number), "part told and compacted");
        Ok(true)
    }
}

#[async_trait]
impl Closing for Teller<'_> {
    async fn over(&self, groups: &[&PlanGroup]) -> Result<(), Halt> {
        let Some(open) = &self.open else { return Ok(()) };
        // Whoever is over while a part is told waits for it: so the journal does not outgrow the telling.
        let mut open = open.lock().await;
        self.note(&mut open, groups).await.map_err(|failure| {
            self.failure.lock().get_or_insert(failure);
            Halt::Untold
        })
    }
}
