//! The command line as typed. No logic.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::telemetry::LogFormat;

/// Finds the objects of datasets that no longer exist, reports them, and deletes what policy or a person lets go.
#[derive(Debug, Parser)]
#[command(
    name = "orphan-sweeper",
    version,
    propagate_version = true,
    after_help = "Examples:\n  orphan-sweeper doctor                       check configuration, rights and clocks\n  orphan-sweeper audit                        look, compare and report; cannot delete\n  orphan-sweeper apply reports/synthetic/latest/plan.json\n  orphan-sweeper demo                         the whole story on embedded servers\n\nExit codes: 0 done, 1 failed, 2 usage or configuration, 3 orphans found (--fail-on-orphans),\n4 refused, 5 some deletions failed, 6 another run holds the lock, 130/143 interrupted."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file [default: `$ORPHAN_SWEEPER_CONFIG`, ./config.toml, /etc/orphan-sweeper/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Only this scope [default: all]
    #[arg(long, global = true, value_name = "NAME")]
    pub scope: Option<String>,
    /// Print one JSON document to stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// How logs are written to stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Draw no progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Log more; twice for most
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List, compare, decide, report and plan; cannot delete
    #[command(after_help = "Example:\n  orphan-sweeper audit --fail-on-orphans || echo \"orphans, or worse\"")]
    Audit {
        /// Exit with 3 when there are orphans
        #[arg(long)]
        fail_on_orphans: bool,
    },
    /// Audit once for historical leaks: plan what is older than a date, without grace since the first sighting
    #[command(
        after_help = "The plan has the groups whose every object is older than DATE. Sightings, their span and every other rule count;\nthe plan waits for a person's `apply`, whatever the policy.\n\nExamples:\n  orphan-sweeper backfill --created-before 2024-01-01\n  orphan-sweeper apply reports/synthetic/latest/plan.json --objects-per-second 500 --max-runtime 2h"
    )]
    Backfill {
        /// A date (midnight UTC) or an RFC 3339 time, past by the grace at least
        #[arg(long, value_name = "DATE")]
        created_before: String,
    },
    /// Delete what a plan says and the checks still allow
    #[command(
        after_help = "Examples:\n  orphan-sweeper apply reports/synthetic/latest/plan.json --dry-run\n  orphan-sweeper apply reports/synthetic/latest/plan.json --yes\n  orphan-sweeper apply 3f9c2a… --yes --allow objects=2500000\n  orphan-sweeper apply 3f9c2a… --yes --objects-per-second 500 --max-runtime 2h --pause-window 08:00-18:00 --pause-timezone Europe/Berlin"
    )]
    Apply {
        /// The path of a plan.json, or a plan's hash; one that was interrupted resumes
        plan: String,
        /// Go the whole way up to the first request and send none
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Do not ask on the terminal
        #[arg(short, long)]
        yes: bool,
        /// Lift a size breaker for this plan, on record, such as `objects=2500000`
        #[arg(long, value_name = "NAME=VALUE")]
        allow: Vec<String>,
        /// Delete although a live table is empty, because it really is: the whole hash of this plan
        #[arg(long, value_name = "HASH")]
        accept_empty_references: Option<String>,
        /// How fast, how long and when
        #[command(flatten)]
        pace: PaceFlags,
    },
    /// Audit, then apply what the policy allows or a person has approved since, unattended
    #[command(after_help = "Example:\n  orphan-sweeper sweep --scope synthetic --json > summary.json")]
    Sweep {
        /// Audit only
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Bring back what a run deleted, from its quarantine or from the bucket's old versions
    #[command(
        after_help = "What lies at a key now is never overwritten, and each dataset is held, so that the next sweep does not take it again.\n\nExamples:\n  orphan-sweeper restore --run 0190f5fe-7c1a-7b5e-9b5e-2f60a1b2c3d4 --dry-run\n  orphan-sweeper restore --run 0190f5fe-7c1a-7b5e-9b5e-2f60a1b2c3d4 --dataset 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --yes"
    )]
    Restore {
        /// The run that deleted it, as its report and `orphan-sweeper history` name it
        #[arg(long, value_name = "RUN")]
        run: String,
        /// Only this dataset [default: all that the run deleted]
        #[arg(long, value_name = "ID")]
        dataset: Option<String>,
        /// Say what can be brought back, and write nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Do not ask on the terminal
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove a dataset or a job from the platform: its rows first, in one transaction, then its objects
    Purge {
        /// What goes
        #[command(subcommand)]
        target: PurgeTarget,
        /// Say what would go, and change nothing
        #[arg(short = 'n', long, global = true)]
        dry_run: bool,
        /// Do not ask on the terminal
        #[arg(short, long, global = true)]
        yes: bool,
    },
    /// Run every scope on its schedule, and answer the HTTP API, until stopped
    #[command(
        after_help = "The API listens at [serve] listen, 127.0.0.1:8080 by default; its description is at /api/v1/openapi.json.\n\nExamples:\n  orphan-sweeper serve --log-format json\n  curl http://127.0.0.1:8080/readyz\n  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/api/v1/scopes"
    )]
    Serve,
    /// Show what happened
    #[command(
        after_help = "Examples:\n  orphan-sweeper history                 the last runs\n  orphan-sweeper history 0190f5fe-…      one run\n  orphan-sweeper history --healthy=26h   exit 1 when no run succeeded for that long\n  orphan-sweeper history verify          exit 1 when what was recorded was changed since",
        args_conflicts_with_subcommands = true,
        subcommand_precedence_over_arg = true
    )]
    History {
        /// What else to do with it
        #[command(subcommand)]
        action: Option<HistoryAction>,
        /// A run's id
        run: Option<String>,
        /// Exit 1 when no run succeeded within this time [default: one interval of the schedule plus 2 h]
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        healthy: Option<String>,
    },
    /// Say why an id is kept or goes, rule by rule
    #[command(after_help = "Example:\n  orphan-sweeper explain 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10")]
    Explain {
        /// The dataset's id
        id: String,
    },
    /// Review a plan before it is applied
    Plan {
        /// What to do
        #[command(subcommand)]
        action: PlanAction,
    },
    /// Protect ids by name and reason, whatever every other rule says
    Hold {
        /// What to do
        #[command(subcommand)]
        action: HoldAction,
    },
    /// Acknowledge a latched breaker, once its cause is found
    #[command(
        after_help = "Example:\n  orphan-sweeper ack live_drop --by ada --reason \"old datasets removed, ticket 4711\""
    )]
    Ack {
        /// The breaker
        breaker: String,
        /// Who acknowledges
        #[arg(long, value_name = "NAME")]
        by: String,
        /// Why it may go on
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Make, list and revoke what callers of the HTTP API show
    Token {
        /// What to do
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Check configuration, rights, clocks and server behaviour, read-only
    #[command(
        after_help = "Examples:\n  orphan-sweeper doctor\n  orphan-sweeper doctor --probe    also writes to and deletes from a scratch prefix outside every scope"
    )]
    Doctor {
        /// Write to a scratch prefix outside every scope, to learn what the store really does
        #[arg(long)]
        probe: bool,
    },
    /// Try the whole of it on the configured services, with rows and objects of its own that it removes again
    #[command(
        after_help = "Makes a dataset and a job, deletes both by the API, leaks a dataset on purpose, audits the scope once, and looks that a dry run\nof the plan leaves the leak alone. What it writes is noted in the ledger first; whatever ends it, exactly that is removed, by the\nnext selftest at the latest. It needs `[scope.purge]`, and the rights that config.toml shows at `[scope.selftest]`; `doctor` only reads.\nA target that is not on this host, or that has more live rows than a trial, needs --yes.\n\nExamples:\n  orphan-sweeper selftest\n  orphan-sweeper selftest --scope synthetic --yes --json > selftest.json\n  orphan-sweeper selftest --clean-up    only remove what earlier ones left\n\nExit codes: 0 every step passed, 1 a step failed, 2 usage or configuration, 4 refused (stop file or a latched breaker),\n6 another run holds the lock, 130/143 interrupted and cleaned up."
    )]
    Selftest {
        /// Also on a target that may be production
        #[arg(short, long)]
        yes: bool,
        /// Only remove what earlier self-tests left
        #[arg(long, conflicts_with = "yes")]
        clean_up: bool,
    },
    /// Tell the whole story on an embedded store and SQLite; nothing to install
    #[command(after_help = "Example:\n  orphan-sweeper demo --dir /tmp/orphan-sweeper-demo")]
    Demo {
        /// Where to leave its files [default: a new folder for temporary files]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the JSON Schema of a report
    #[command(after_help = "Example:\n  orphan-sweeper schema summary > summary.schema.json")]
    Schema {
        /// Which
        #[arg(value_enum)]
        report: SchemaOf,
    },
    /// Look after the ledger
    Ledger {
        /// What to do
        #[command(subcommand)]
        action: LedgerAction,
    },
}

/// What can be removed from the platform.
#[derive(Debug, Subcommand)]
pub enum PurgeTarget {
    /// A dataset: its row, what falls with it, and the objects under every pattern
    #[command(
        after_help = "Refused while an active model uses it, and while it is held. Needs `[scope.purge]` and its own database role.\nOne that was interrupted goes on with the same command.\n\nExamples:\n  orphan-sweeper purge dataset 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --dry-run\n  orphan-sweeper purge dataset 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --yes"
    )]
    Dataset {
        /// The dataset's id
        id: String,
    },
    /// A job, which is cancelled if it still runs, with the datasets that it made
    #[command(
        after_help = "Examples:\n  orphan-sweeper purge job 6f9619ff-8b86-4d01-b42d-00cf4fc964ff --dry-run\n  orphan-sweeper purge job 6f9619ff-8b86-4d01-b42d-00cf4fc964ff --keep-datasets --yes"
    )]
    Job {
        /// The job's id
        id: String,
        /// Leave its datasets, without a job
        #[arg(long, conflicts_with = "delete_datasets")]
        keep_datasets: bool,
        /// Delete its datasets as well [default: as `scope.purge.delete_dataset` says]
        #[arg(long)]
        delete_datasets: bool,
    },
}

/// How fast, how long and when a plan is worked through.
#[derive(Debug, Clone, Args)]
pub struct PaceFlags {
    /// Ask for at most this many objects a second, over all requests
    #[arg(long, value_name = "N")]
    pub objects_per_second: Option<std::num::NonZeroU32>,
    /// End at a batch's end after this time; the plan stays begun, and the report says how to go on
    #[arg(long, value_name = "DURATION")]
    pub max_runtime: Option<String>,
    /// Send no batch between these times of every day, such as `08:00-18:00`
    #[arg(long, value_name = "FROM-TO")]
    pub pause_window: Option<String>,
    /// The time zone of the pause
    #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "pause_window")]
    pub pause_timezone: String,
}

/// The reports with a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum SchemaOf {
    /// `summary.json`
    Summary,
    /// `plan.json`
    Plan,
}

/// What can be done with a plan.
#[derive(Debug, Subcommand)]
pub enum PlanAction {
    /// Show what a plan would delete, what was decided on it, and what comes next
    #[command(
        after_help = "Examples:\n  orphan-sweeper plan show reports/synthetic/latest\n  orphan-sweeper plan show 3f9c2a… --all --json > plan.json"
    )]
    Show {
        /// The path of a plan.json, or a plan's hash
        plan: String,
        /// Every group instead of the largest
        #[arg(long)]
        all: bool,
    },
    /// Approve a plan, or ids of it, on record: the next sweep applies what is approved
    #[command(
        after_help = "Examples:\n  orphan-sweeper plan approve 3f9c2a… --by ada --reason \"reviewed, ticket 4711\"\n  orphan-sweeper plan approve 3f9c2a… --id 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --by ada --reason \"old test data\""
    )]
    Approve(DecisionArguments),
    /// Reject a plan, or ids of it, on record: it does not go, also where an apply is running
    #[command(
        after_help = "Examples:\n  orphan-sweeper plan reject 3f9c2a… --by ada --reason \"the import is not finished\"\n  orphan-sweeper plan reject 3f9c2a… --id 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --by ada --reason \"needed for the paper\""
    )]
    Reject(DecisionArguments),
}

/// A decision on a plan.
#[derive(Debug, Args)]
pub struct DecisionArguments {
    /// The path of a plan.json, or a plan's hash
    pub plan: String,
    /// Only this id of the plan; may be given several times [default: the whole plan]
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// Who decides
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// What can be done with holds.
#[derive(Debug, Subcommand)]
pub enum HoldAction {
    /// Protect an id, on record
    #[command(
        after_help = "Example:\n  orphan-sweeper hold add 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --by ada --reason \"evidence for ticket 4711\" --until 2027-01-31"
    )]
    Add {
        /// The dataset's id, in any spelling
        id: String,
        /// Who protects it
        #[arg(long, value_name = "NAME")]
        by: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Until the end of this day in UTC, or until this time (RFC 3339) [default: until it is removed]
        #[arg(long, value_name = "DATE")]
        until: Option<String>,
    },
    /// Take the ledger's holds off an id; they stay on record
    #[command(
        after_help = "Example:\n  orphan-sweeper hold remove 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10 --by ada --reason \"ticket 4711 is closed\""
    )]
    Remove {
        /// The dataset's id, in any spelling
        id: String,
        /// Who takes it off
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show the protected ids of every source
    #[command(after_help = "Example:\n  orphan-sweeper hold list --json")]
    List,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token; stdout is the token alone, and it is shown this once
    #[command(
        after_help = "read     looks at scopes, runs, findings, plans and reports\napprove  also decides on plans, holds ids, acknowledges breakers and starts runs\ndelete   also deletes datasets and jobs of the platform, and decides on nothing\n\nExample:\n  TOKEN=$(orphan-sweeper token create --name ada --scope approve)"
    )]
    Create {
        /// Who or what uses it: decisions made with it bear this name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may be used for
        #[arg(long, value_name = "SCOPE", value_parser = ["read", "approve", "delete"])]
        scope: String,
    },
    /// Show whose tokens there are, and when each was last used
    #[command(after_help = "Example:\n  orphan-sweeper token list --json")]
    List,
    /// Let a token count no longer, from the next request on
    #[command(after_help = "Example:\n  orphan-sweeper token revoke ada")]
    Revoke {
        /// Its name
        name: String,
    },
}

/// What can be done with the history.
#[derive(Debug, Subcommand)]
pub enum HistoryAction {
    /// Prove that nothing recorded was edited, removed, reordered or cut off since
    #[command(
        after_help = "Examples:\n  orphan-sweeper history verify                  the chain, the rows, and every report beside the ledger\n  orphan-sweeper history verify --head 9f2c…     a head that was kept elsewhere must be in the chain\n\nWhoever can write the ledger and every report beside it can write another history: keep heads where they\ncannot write. Each summary.json has one (`journal.head`), and the last log line of each run (`journal_head`)."
    )]
    Verify {
        /// A head that was noted earlier, from a `summary.json` or a log
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

/// What can be done with the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerAction {
    /// Write a consistent copy, also while a run is going on
    #[command(after_help = "Example:\n  orphan-sweeper ledger backup /backup/ledger-$(date +%F).sqlite3")]
    Backup {
        /// A new file
        file: PathBuf,
    },
}
