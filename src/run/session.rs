//! One run of one scope, from its first line in the ledger to its report.

use std::collections::{BTreeMap, HashSet};

use super::{Reading, RunFailure, Services, notices, reap, retention, telling};
use crate::clock::Stopwatch;
use crate::config::{Disposal, Scope};
use crate::decide::Waiver;
use crate::decide::breakers::{Breaker, Kind, Reading as BreakerReading};
use crate::exit::Exit;
use crate::model::{Mode, RunId, Sha256Hash, Timestamp, Versioning};
use crate::notify::Notifier;
use crate::plan::VerifiedPlan;
use crate::record::{RunEnd, RunStart};
use crate::report::csv::CsvFile;
use crate::report::figures::{self, Stage};
use crate::report::folder::{self, ReportFolder};
use crate::report::leaks::{LeakCounts, UploadCounts, UploadRecord, VersionCounts, VersionsOnly};
use crate::report::{
    Coverage, GroupCounts, HoldsReport, JournalHead, LedgerInfo, OrphanRecord, Outcome, QuarantineFolder, Report,
    SUMMARY_VERSION, Summary, Target, html, text,
};
use crate::s3::retry;

/// A run in progress: what it works on, and the report that it fills.
pub struct Session<'s> {
    /// What the command's runs share.
    pub services: &'s Services,
    /// The scope.
    pub scope: &'s Scope,
    /// The run.
    pub run: RunId,
    /// Its folder.
    pub folder: ReportFolder,
    /// The summary so far.
    pub draft: Summary,
    /// The orphans so far.
    pub orphans: Vec<OrphanRecord>,
    /// Prefixes that show no current object, and hold versions.
    pub versions_only: Vec<VersionsOnly>,
    /// The uploads in progress.
    pub uploads: Vec<UploadRecord>,
    /// What to type next.
    pub next_command: Option<String>,
    /// The exit code so far.
    pub exit: Exit,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// When it began.
    pub began: Stopwatch,
    /// Which rule the run was told to waive.
    pub waiver: Waiver,
    /// The plans that this run worked through to their end. They are closed, and their keys compacted, once the report tells
    /// them.
    pub finished_plans: Vec<Sha256Hash>,
    /// Who is told what the run came to; `None`: nobody.
    pub notifier: Option<Notifier>,
    /// Groups of the run's own plan that wait for a person.
    pub awaiting_review: u64,
    /// What it is at, and since when.
    stage: Option<(Stage, Stopwatch)>,
    /// What it may have asked the store for and has not told yet.
    pub untold: Untold,
    /// Why nothing may be ended by its age alone, where time went on too far since the last good scan before this run.
    pub leap: Option<String>,
}

/// What a run may have asked the store for and has not told yet. While there is any, it has no report: the next run that could
/// tell it takes a run with a report for one that told it all.
#[derive(Debug, Default)]
pub struct Untold {
    /// Plans that it works on.
    pub plans: Vec<Sha256Hash>,
    /// Whether it empties quarantines.
    pub is_reaping: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct ScopeEnd {
    /// Its `summary.json`.
    pub summary: Summary,
    /// The terminal summary.
    pub text: String,
    /// The exit code.
    pub exit: Exit,
    /// What to do about a failure.
    pub hint: Option<String>,
}

/// Where a run of `scope` copies objects to before it deletes them.
fn quarantine_of(scope: &Scope, run: RunId) -> Option<QuarantineFolder> {
    let quarantine = &scope.quarantine;
    (scope.policy.disposal == Disposal::Quarantine).then(|| QuarantineFolder {
        bucket: quarantine.bucket.clone(),
        prefix: format!("{}{run}/", quarantine.prefix),
        keep_s: quarantine.keep.as_secs(),
    })
}

impl<'s> Session<'s> {
    /// Begins a run: it is in the ledger before it has a folder, so that a folder without a line in the ledger means an
    /// older ledger, whose sightings count for nothing.
    pub async fn begin(
        services: &'s Services,
        scope: &'s Scope,
        reading: &Reading,
        command: &'static str,
        mode: Mode,
    ) -> Result<Self, RunFailure> {
        let started_at = services.clock.now();
        let run = RunId::new(started_at);
        let ledger = &services.ledger;
        let reports = &services.config.reports_directory;
        for newest in folder::newest_runs(reports, &scope.name) {
            if ledger.knows_run(&newest.to_string()).await? {
                continue;
            }
            let forgotten = ledger.forget_all(&scope.name).await?;
            let given_up = ledger.give_up_purges(&scope.name).await?;
            tracing::warn!(newest = %newest, forgotten, purges_given_up = given_up, "the ledger does not know the newest report beside it: it is older or another; all sightings start again");
        }
        let start = RunStart {
            run_id: run,
            scope: scope.name.clone(),
            command: command.to_owned(),
            is_dry_run: mode == Mode::DryRun,
            started_at,
        };
        ledger.begin_run(&start).await?;
        let folder = ReportFolder::create(reports, &scope.name, run)?;
        tracing::info!(run_id = %run, command, scope = %scope.name, "run began");
        Self::in_folder(services, scope, reading, (run, started_at, folder), (command, mode)).await
    }

    /// Goes on with a run that the ledger knows, and whose process may have died: in the same folder, where it made one.
    pub async fn go_on(
        services: &'s Services,
        scope: &'s Scope,
        reading: &Reading,
        (run, started_at): (RunId, Timestamp),
        command: &'static str,
    ) -> Result<Self, RunFailure> {
        let folder = ReportFolder::open(&services.config.reports_directory, &scope.name, run)?;
        Self::in_folder(services, scope, reading, (run, started_at, folder), (command, Mode::Live)).await
    }

    async fn in_folder(
        services: &'s Services,
        scope: &'s Scope,
        reading: &Reading,
        (run, started_at, folder): (RunId, Timestamp, ReportFolder),
        (command, mode): (&'static str, Mode),
    ) -> Result<Self, RunFailure> {
        let ledger = &services.ledger;
        let draft = Summary {
            schema_version: SUMMARY_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: run.0,
            scope: scope.name.clone(),
            command: command.to_owned(),
            dry_run: mode == Mode::DryRun,
            outcome: Outcome::Complete,
            reason: None,
            started_at,
            finished_at: started_at,
            as_of: None,
            target: Target {
                endpoint: services.config.store.endpoint.to_string(),
                bucket: scope.bucket.clone(),
                prefix: scope.prefix.clone(),
                versioning: Versioning::Unknown,
                database: reading.database.clone(),
            },
            ledger: LedgerInfo { id: ledger.id(), created_at: ledger.created_at(), runs: ledger.run_count().await? },
            report_dir: folder.path().display().to_string(),
            plan_hash: None,
            backfill: None,
            groups: GroupCounts::default(),
            missing: 0,
            orphan_objects: 0,
            orphan_bytes: 0,
            eligible_objects: 0,
            eligible_bytes: 0,
            next_eligible_at: None,
            holds: HoldsReport::default(),
            breakers: Vec::new(),
            coverage: Coverage::default(),
            deletion: None,
            steps: None,
            retention: None,
            uploads: UploadCounts::default(),
            versions: VersionCounts::default(),
            leaks: LeakCounts::default(),
            trend: None,
            quarantine: quarantine_of(scope, run),
            reaped: None,
            restore: None,
            purge: None,
            journal: None,
            stages: Vec::new(),
            verdicts: Vec::new(),
            skips: Vec::new(),
            notice: None,
        };
        Ok(Self {
            services,
            scope,
            run,
            folder,
            draft,
            orphans: Vec::new(),
            versions_only: Vec::new(),
            uploads: Vec::new(),
            next_command: None,
            exit: Exit::Done,
            hint: None,
            began: Stopwatch::start(),
            waiver: Waiver::Nothing,
            finished_plans: Vec::new(),
            notifier: None,
            awaiting_review: 0,
            stage: None,
            untold: Untold::default(),
            leap: None,
        })
    }

    /// Begins a stage, which ends the one before.
    pub fn enter(&mut self, stage: Stage) {
        self.leave_stage();
        self.stage = Some((stage, Stopwatch::start()));
    }

    fn leave_stage(&mut self) {
        if let Some((stage, since)) = self.stage.take() {
            figures::add_stage(&mut self.draft.stages, stage, since.elapsed());
        }
    }

    /// What a person approved of earlier plans, and this run applies, waits for nobody in the plan that it made.
    pub fn take_from_review(&mut self, fresh: &VerifiedPlan, approved: &[VerifiedPlan]) {
        let applied: HashSet<&str> =
            approved.iter().flat_map(|plan| &plan.plan.groups).map(|group| group.prefix.as_str()).collect();
        let covered = fresh.plan.groups.iter().filter(|group| applied.contains(group.prefix.as_str())).count();
        self.awaiting_review = self.awaiting_review.saturating_sub(covered as u64);
    }

    /// Ends the run early where it was told to stop.
    pub fn check_stop(&self) -> Result<(), RunFailure> {
        if self.services.stop.token.is_cancelled() {
            return Err(RunFailure::Interrupted(self.services.stop.exit()));
        }
        Ok(())
    }

    /// Takes a failure into the report.
    pub fn absorb(&mut self, failure: RunFailure) {
        // A request that a stop cut short is not the store's fault.
        let failure = match failure {
            RunFailure::Store(_) if self.services.stop.token.is_cancelled() => {
                RunFailure::Interrupted(self.services.stop.exit())
            }
            failure => failure,
        };
        let chain = failure.chain();
        match &failure {
            RunFailure::Refused { .. } | RunFailure::Interrupted(_) => {
                tracing::warn!(run_id = %self.run, reason = %chain, "run ended early");
            }
            _ => tracing::error!(run_id = %self.run, error = %chain, "run ended early"),
        }
        self.draft.outcome = failure.outcome();
        self.draft.reason = Some(chain.clone());
        self.exit = failure.exit();
        self.hint = failure.hint();
        if failure.outcome() != Outcome::Refused {
            self.draft.coverage.complete = false;
            self.draft.coverage.errors.push(chain);
        }
    }

    /// Orphans are exit 3 where nothing graver is.
    pub fn fail_on_orphans(&mut self) {
        if self.exit == Exit::Done && self.draft.groups.orphan > 0 {
            self.exit = Exit::OrphansFound;
        }
    }

    /// Every breaker in the order of the interface; those that had nothing to judge say so.
    fn complete_breakers(&mut self) {
        if !self.draft.coverage.errors.is_empty() {
            self.draft.breakers.retain(|reading| reading.name != Breaker::Incomplete);
            self.draft.breakers.push(crate::decide::breakers::incomplete(&self.draft.coverage.errors));
        }
        let mut known: BTreeMap<Breaker, BreakerReading> =
            self.draft.breakers.drain(..).map(|reading| (reading.name, reading)).collect();
        let why = "the run ended before it could be";
        self.draft.breakers = Breaker::ALL
            .into_iter()
            .map(|name| known.remove(&name).unwrap_or_else(|| BreakerReading::not_judged(name, why)))
            .collect();
    }

    /// Tells what the run could not tell when it came to it, because the ledger or the report failed. A ledger that restarts is
    /// back in a moment.
    async fn tell_rest(&mut self) -> Result<(), RunFailure> {
        let patience = tokio_util::sync::CancellationToken::new();
        let mut failed_attempts = 0;
        loop {
            let Err(failure) = self.try_to_tell_rest().await else { return Ok(()) };
            failed_attempts += 1;
            let is_worth_it = matches!(failure, RunFailure::Record(_)) && failed_attempts < retry::MAX_ATTEMPTS;
            if !is_worth_it || !retry::wait_before_retry(failed_attempts, &patience).await {
                return Err(failure);
            }
        }
    }

    async fn try_to_tell_rest(&mut self) -> Result<(), RunFailure> {
        while let Some(plan) = self.untold.plans.last().copied() {
            telling::tell_deletions(self, plan).await?;
        }
        if self.untold.is_reaping { reap::tell_reaping(self).await } else { Ok(()) }
    }

    /// Writes the report, points `latest` at it and closes the run in the ledger.
    ///
    /// - Errors: where the report or the ledger cannot be written; what was written by then stays. Where what the run asked for
    ///   cannot be told, there is no report, and a later run tells it.
    pub async fn finish(mut self, reading: &Reading) -> Result<ScopeEnd, RunFailure> {
        crate::failpoint::reach("before_report");
        self.enter(Stage::Report);
        if let Err(failure) = self.tell_rest().await {
            tracing::error!(run_id = %self.run, error = %failure.chain(), "what this run asked for cannot be told; it leaves no report, and the next run of its plan tells it");
            return Err(failure);
        }
        self.draft.coverage.list_requests = reading.store.list_requests();
        self.draft.finished_at = self.services.clock.now();
        self.draft.journal = match self.services.ledger.chain_head().await {
            Ok(head) => Some(JournalHead { entries: head.entries, head: head.hash.to_string() }),
            Err(error) => {
                tracing::error!(run_id = %self.run, error = %error, "the head of the ledger's chain cannot be read");
                None
            }
        };
        self.complete_breakers();
        // A purge answers somebody who waits; what is too old waits for the next audit.
        if self.draft.outcome == Outcome::Complete && self.draft.purge.is_none() {
            self.draft.retention = Some(retention::retain(&self).await);
        }
        self.write_missing_files()?;
        let mut file = CsvFile::orphans(self.folder.file("orphans.csv")?).map_err(RunFailure::ReportRow)?;
        for orphan in &self.orphans {
            file.orphan(orphan, &self.scope.patterns).map_err(RunFailure::ReportRow)?;
        }
        for prefix in &self.versions_only {
            file.versions_only(prefix, &self.scope.patterns).map_err(RunFailure::ReportRow)?;
        }
        file.finish().map_err(RunFailure::ReportRow)?.publish()?;
        self.write_uploads()?;
        self.draft.verdicts = figures::count_verdicts(&self.orphans);
        if let Some(deletion) = self.draft.deletion.filter(|deletion| deletion.skipped > 0) {
            let by_reason = self.services.ledger.skipped_by_reason(self.run).await?;
            self.draft.skips = figures::count_skips(by_reason, deletion.skipped);
        }
        self.leave_stage();
        // All that the run came to is known; what is left tells whether anybody took the message of it.
        let told = notices::tell(&self).await;
        self.draft.notice = told.as_ref().map(|told| told.report.clone());
        let mut report = Report {
            summary: &self.draft,
            orphans: &self.orphans,
            patterns: &self.scope.patterns,
            next_command: self.next_command.as_deref(),
        };
        // A plan that a size breaker refuses is applied with the flags that lift it, or not at all.
        let lifting =
            text::words::allow_command(&report).filter(|_| report.next_command.is_some() && self.exit != Exit::Refused);
        if lifting.is_some() {
            report.next_command = lifting.as_deref();
        }
        let page = html::render(&report).map_err(RunFailure::Render)?;
        self.folder.write("report.html", page.as_bytes())?;
        let style = if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            text::Style::Coloured
        } else {
            text::Style::Plain
        };
        let text = text::summary(&report, style);
        let mut json = serde_json::to_vec_pretty(&self.draft).expect("a summary has only serializable fields");
        json.push(b'\n');
        // The last file: a run without it did not finish.
        self.folder.write("summary.json", &json)?;
        self.folder.make_latest()?;
        crate::failpoint::reach("after_report");
        let end = RunEnd {
            finished_at: self.draft.finished_at,
            outcome: self.draft.outcome.as_str(),
            reason: self.draft.reason.as_deref(),
            exit_code: self.exit.code(),
            plan_hash: self.draft.plan_hash.clone(),
            // `apply` opens the orphans of its plan only, and `restore` and `purge` none.
            orphan_bytes: (self.draft.coverage.complete
                && !matches!(self.draft.command.as_str(), "apply" | "restore" | "purge"))
            .then_some(self.draft.orphan_bytes),
            summary: String::from_utf8_lossy(&json).into_owned(),
        };
        self.services.ledger.finish_run(self.run, &end).await?;
        if let Some(told) = &told {
            notices::note_told(self.services, self.scope, self.run, told).await;
        }
        for plan in self.finished_plans {
            self.services.ledger.close_plan(plan).await?;
        }
        if self.draft.reaped.is_some() {
            self.services.ledger.compact_reapings().await?;
        }
        let head = self.services.ledger.chain_head().await?;
        tracing::info!(run_id = %self.run, outcome = self.draft.outcome.as_str(), exit = self.exit.code(), journal_entries = head.entries, journal_head = %head.hash, "run ended");
        Ok(ScopeEnd { summary: self.draft, text, exit: self.exit, hint: self.hint })
    }

    /// `uploads.csv`, where there is an upload to tell.
    fn write_uploads(&self) -> Result<(), RunFailure> {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let mut file = CsvFile::uploads(self.folder.file("uploads.csv")?).map_err(RunFailure::ReportRow)?;
        for upload in &self.uploads {
            file.upload(upload).map_err(RunFailure::ReportRow)?;
        }
        Ok(file.finish().map_err(RunFailure::ReportRow)?.publish()?)
    }

    /// Files that the run did not come to are there with their header, so that a reader of reports needs no special case.
    fn write_missing_files(&self) -> Result<(), RunFailure> {
        let is_there = |name: &str| self.folder.path().join(name).exists();
        if !is_there("foreign.csv") {
            CsvFile::foreign(self.folder.file("foreign.csv")?)
                .and_then(CsvFile::finish)
                .map_err(RunFailure::ReportRow)?
                .publish()?;
        }
        if !is_there("missing.csv") {
            CsvFile::missing(self.folder.file("missing.csv")?)
                .and_then(CsvFile::finish)
                .map_err(RunFailure::ReportRow)?
                .publish()?;
        }
        Ok(())
    }

    /// The breakers that refuse deletion, of one kind or of both.
    pub fn refusing(&self, kind: Option<Kind>) -> Vec<&BreakerReading> {
        self.draft
            .breakers
            .iter()
            .filter(|reading| reading.refuses() && kind.is_none_or(|kind| reading.kind == kind))
            .collect()
    }
}
