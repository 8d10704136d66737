//! report: what a run saw, decided and did, for a person and for a machine. Pure, into `io::Write`.
//!
//! Takes the one model below; gives JSON, CSV, HTML and text. Invariant: planned is told apart from deleted, marked
//! apart from freed, and what was not read is never shown as nothing.

pub mod csv;
pub mod figures;
pub mod folder;
pub mod html;
pub mod leaks;
pub mod notice;
pub mod text;
pub mod undo;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decide::Verdict;
use crate::decide::breakers::Reading;
use crate::decide::holds::HoldSource;
use crate::model::{Group, Timestamp, Versioning};
use crate::parse::{Pattern, prefix_of};
use crate::plan::Backfill;
use figures::{SkipCount, StageTime, VerdictCount};
use leaks::{LeakCounts, UploadCounts, VersionCounts};
use notice::NoticeReport;

/// Version of `summary.json`.
pub const SUMMARY_VERSION: u32 = 1;

/// What `summary.json` holds. Times are RFC 3339 in UTC, sizes bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this format.
    pub schema_version: u32,
    /// Version of the program.
    pub tool_version: String,
    /// The run: a `UUIDv7`.
    pub run_id: Uuid,
    /// The scope.
    pub scope: String,
    /// `audit`, `backfill`, `apply`, `sweep`, `restore` or `purge`.
    pub command: String,
    /// Whether nothing could be deleted.
    pub dry_run: bool,
    /// What became of the run.
    pub outcome: Outcome,
    /// Why, where it is not `complete`.
    pub reason: Option<String>,
    /// When it began, by the host's clock.
    pub started_at: Timestamp,
    /// When it ended, by the host's clock.
    pub finished_at: Timestamp,
    /// The time that ages were judged at: the earlier of the store's and the database's clock.
    pub as_of: Option<Timestamp>,
    /// What was audited.
    pub target: Target,
    /// The ledger.
    pub ledger: LedgerInfo,
    /// Where this report lies.
    pub report_dir: String,
    /// The hash of the plan that was made or applied.
    pub plan_hash: Option<String>,
    /// The backfill that the plan belongs to; null where every rule counted.
    #[serde(default)]
    pub backfill: Option<Backfill>,
    /// Groups by what they are.
    pub groups: GroupCounts,
    /// Rows that should have objects and have none.
    pub missing: u64,
    /// Objects under orphans.
    pub orphan_objects: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Objects under eligible orphans.
    pub eligible_objects: u64,
    /// Their bytes.
    pub eligible_bytes: u64,
    /// The earliest time at which an orphan that is kept for now could become eligible.
    pub next_eligible_at: Option<Timestamp>,
    /// The ids that persons protect.
    #[serde(default)]
    pub holds: HoldsReport,
    /// Every breaker.
    pub breakers: Vec<Reading>,
    /// How much was read.
    pub coverage: Coverage,
    /// What was deleted; null where nothing was asked for.
    pub deletion: Option<Deletion>,
    /// Multipart uploads in progress.
    #[serde(default)]
    pub uploads: UploadCounts,
    /// Old versions and delete markers beneath what has no row.
    #[serde(default)]
    pub versions: VersionCounts,
    /// What the store shows in spite of its deletion.
    #[serde(default)]
    pub leaks: LeakCounts,
    /// What all runs of the plan came to; null where nothing was begun.
    #[serde(default)]
    pub steps: Option<Steps>,
    /// What was removed because it was older than `reports.keep`; null where the run is not complete.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// How it compares with the last complete run; null on a first run.
    pub trend: Option<Trend>,
    /// Where the ledger's chain ended when this was written; null where it could not be read.
    #[serde(default)]
    pub journal: Option<JournalHead>,
    /// Where objects are copied to before they are deleted; null where they are not.
    #[serde(default)]
    pub quarantine: Option<QuarantineFolder>,
    /// What was freed of quarantines whose time is over; null where none was looked at.
    #[serde(default)]
    pub reaped: Option<Reaped>,
    /// What was brought back; null where nothing was asked for.
    #[serde(default)]
    pub restore: Option<Restored>,
    /// What a person had removed from the platform; null where nothing was.
    #[serde(default)]
    pub purge: Option<PurgeReport>,
    /// How long each stage took, but for the last lines of the report itself.
    #[serde(default)]
    pub stages: Vec<StageTime>,
    /// The orphan groups that this run opened, or those of its plan, by verdict and reason.
    #[serde(default)]
    pub verdicts: Vec<VerdictCount>,
    /// The keys that were kept after all, by reason; they add up to `deletion.skipped`.
    #[serde(default)]
    pub skips: Vec<SkipCount>,
    /// Who was told of the run; null where nobody wants to be.
    #[serde(default)]
    pub notice: Option<NoticeReport>,
}

/// What a person had removed from the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeReport {
    /// The dataset that was asked for.
    pub dataset_id: Option<Uuid>,
    /// The job that was asked for.
    pub job_id: Option<Uuid>,
    /// The datasets whose rows are gone.
    pub datasets: Vec<PurgedDatasetReport>,
    /// What the job's row said; null where no job was asked for.
    pub job: Option<PurgedJobReport>,
    /// Rows of each live table that are gone.
    pub rows_removed: BTreeMap<String, u64>,
}

/// A dataset whose row is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgedDatasetReport {
    /// Its id.
    pub id: Uuid,
    /// Its type, as the platform calls it.
    pub dataset_type: String,
    /// Its name.
    pub name: Option<String>,
    /// Whether such datasets have objects.
    pub has_objects: bool,
}

/// A job whose row is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgedJobReport {
    /// The status that it had.
    pub status: String,
    /// Whether it still ran, and was cancelled.
    pub was_cancelled: bool,
    /// Datasets that stay without it.
    pub detached: u64,
}

/// Where a run copies objects to before it deletes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineFolder {
    /// The bucket.
    pub bucket: String,
    /// The run's own prefix in it; the original key follows it.
    pub prefix: String,
    /// How long the copies stay, in seconds.
    pub keep_s: u64,
}

/// What became of copies in quarantine whose time is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reaped {
    /// Copies that were deleted.
    pub objects: u64,
    /// Their bytes, which are free now.
    pub bytes: u64,
    /// Copies that are still there although they were asked for.
    pub failed: u64,
    /// Copies past their time that stay: their id has a row again or is held, so they wait for `restore`; or nobody knows
    /// what they are.
    pub waiting: u64,
    /// When the next copies may go.
    pub next_at: Option<Timestamp>,
    /// Why nothing was looked at, where something forbids it.
    pub held_by: Option<String>,
}

/// What was brought back: `objects` is the sum of the three outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "each outcome has its name in restored.csv")]
pub struct Restored {
    /// The run that had deleted it.
    pub of_run: Uuid,
    /// Objects that can be brought back.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Brought back and proven.
    pub restored: u64,
    /// Left alone, with a reason.
    pub skipped: u64,
    /// Not brought back.
    pub failed: u64,
    /// Of those brought back, how many may be older than what was deleted: versioning of the bucket was suspended then.
    #[serde(default)]
    pub perhaps_older: u64,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did all it was asked for.
    Complete,
    /// A breaker, a plan check or approval refused it.
    Refused,
    /// Not everything could be read.
    Incomplete,
    /// It broke off.
    Failed,
    /// It was told to stop.
    Interrupted,
}

impl Outcome {
    /// The word in the reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused => "refused",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What was audited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The store's address.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
    /// Whether the bucket keeps old versions.
    pub versioning: Versioning,
    /// The database's address, without user, password and options.
    pub database: String,
}

/// The ledger that remembers the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerInfo {
    /// Its id.
    pub id: Uuid,
    /// When it was made.
    pub created_at: Timestamp,
    /// Runs that it remembers.
    pub runs: u64,
}

/// Where the ledger's chain ended: `history verify --head` looks for it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalHead {
    /// How many entries it had.
    pub entries: u64,
    /// The hash of the last.
    pub head: String,
}

/// Groups by what they are: `listed` = `live` + `orphan` + `empty`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupCounts {
    /// All dataset prefixes.
    pub listed: u64,
    /// Those whose id has a row.
    pub live: u64,
    /// Those without, that hold objects.
    pub orphan: u64,
    /// Orphans that every rule lets go.
    pub eligible: u64,
    /// Orphans kept as `within_grace`.
    pub in_grace: u64,
    /// Prefixes without a row that show no current object.
    pub empty: u64,
    /// Keys and prefixes that no pattern reads.
    pub foreign: u64,
}

/// The ids that persons protect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldsReport {
    /// Ids with a hold that counts, whether they are orphans or not.
    pub total: u64,
    /// Those of them that kept something in this run.
    pub protecting: Vec<HeldId>,
}

/// A protected id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldId {
    /// The id.
    pub id: Uuid,
    /// When the hold ends; null where only a person ends it.
    pub until: Option<Timestamp>,
    /// Who placed it; null where that is not known.
    pub by: Option<String>,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub source: HoldSource,
}

/// How much was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Whether everything was.
    pub complete: bool,
    /// `ListObjectsV2` requests sent.
    pub list_requests: u64,
    /// Live rows read.
    pub references: u64,
    /// What could not be read.
    pub errors: Vec<String>,
    /// What the store would not tell of uploads and versions, and why. The run is complete without it.
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// What was deleted: `requested` is the sum of the five outcomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// Keys that the plan asked for.
    pub requested: u64,
    /// Deleted, or marked on a versioned bucket.
    pub deleted: u64,
    /// Gone before.
    pub already_gone: u64,
    /// Kept after all, with a reason.
    pub skipped: u64,
    /// Still there.
    pub failed: u64,
    /// Unknown.
    pub unconfirmed: u64,
    /// Bytes freed.
    pub bytes_deleted: u64,
    /// Bytes marked as deleted on a versioned bucket, and not freed.
    pub bytes_marked: u64,
    /// Bytes of which a copy lies in quarantine: freed after the reaper.
    #[serde(default)]
    pub bytes_quarantined: u64,
}

/// What was removed of our own output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Folders of runs.
    pub reports_removed: u64,
    /// Rows of the ledger that were removed or shortened.
    pub rows_compacted: u64,
    /// Why not all could be removed; null where all could.
    pub error: Option<String>,
}

/// What all runs of a plan came to together, this one included: `requested` is the sum of the five outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// Runs that worked on it.
    pub runs: u64,
    /// When the first of them began.
    pub first_started_at: Timestamp,
    /// Whether the plan is worked through.
    pub closed: bool,
    /// Keys that the plan asked for.
    pub requested: u64,
    /// Deleted, or marked on a versioned bucket, over all runs.
    pub deleted: u64,
    /// Gone before, over all runs.
    pub already_gone: u64,
    /// Kept after all, as this run leaves them.
    pub skipped: u64,
    /// Still there, as this run leaves them.
    pub failed: u64,
    /// Unknown, as this run leaves them.
    pub unconfirmed: u64,
    /// Bytes freed, over all runs.
    pub bytes_deleted: u64,
    /// Bytes marked as deleted and not freed, over all runs.
    pub bytes_marked: u64,
    /// Bytes of which a copy lies in quarantine, over all runs.
    pub bytes_quarantined: u64,
}

impl Steps {
    /// The steps of a plan that is not worked through yet.
    pub fn new(steps: &crate::record::Steps) -> Self {
        let totals = steps.totals;
        Self {
            runs: steps.runs,
            first_started_at: steps.first_started_at,
            closed: false,
            requested: totals.deleted + totals.already_gone + totals.skipped + totals.failed + totals.unconfirmed,
            deleted: totals.deleted,
            already_gone: totals.already_gone,
            skipped: totals.skipped,
            failed: totals.failed,
            unconfirmed: totals.unconfirmed,
            bytes_deleted: totals.bytes_freed,
            bytes_marked: totals.bytes_marked,
            bytes_quarantined: totals.bytes_aside,
        }
    }
}

/// How a run compares with the last complete one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trend {
    /// That run.
    pub since_run: Uuid,
    /// Orphans that it did not have.
    pub new: u64,
    /// Orphans that both have.
    pub persisting: u64,
    /// Orphans that only it had.
    pub resolved: u64,
    /// Growth of the bytes under orphans, a day, not counting what we deleted ourselves; negative where they shrink.
    pub bytes_per_day: Option<f64>,
    /// Days until this leak alone fills what the orphans leave of `scope.capacity`, at that rate. An upper bound: live data
    /// is not opened, so not counted, and fills the store as well. Null without a capacity and where nothing grows.
    pub days_to_full: Option<f64>,
}

/// One orphan group, as judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanRecord {
    /// The group.
    pub group: Group,
    /// Its objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest `LastModified`.
    pub oldest: Option<Timestamp>,
    /// The newest `LastModified`.
    pub newest: Option<Timestamp>,
    /// When it was first seen as an orphan.
    pub first_seen: Timestamp,
    /// How many scans saw it.
    pub sightings: u32,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl OrphanRecord {
    /// Its prefix, as listed.
    pub fn prefix(&self, patterns: &[Pattern]) -> String {
        prefix_of(&self.group, patterns)
    }
}

/// Everything that a report shows.
#[derive(Debug, Clone, Copy)]
pub struct Report<'r> {
    /// The numbers.
    pub summary: &'r Summary,
    /// Every orphan group; empty where none could be judged.
    pub orphans: &'r [OrphanRecord],
    /// The scope's patterns, which spell the prefixes.
    pub patterns: &'r [Pattern],
    /// The command to type next, where there is one.
    pub next_command: Option<&'r str>,
}

/// The JSON Schema of `summary.json`.
pub fn summary_schema() -> schemars::Schema {
    schemars::schema_for!(Summary)
}

/// The JSON Schema of `plan.json`.
pub fn plan_schema() -> schemars::Schema {
    schemars::schema_for!(crate::plan::PlanFile)
}
