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
    /// Delete what a plan says and the checks still allow
    #[command(
        after_help = "Examples:\n  orphan-sweeper apply reports/synthetic/latest/plan.json --dry-run\n  orphan-sweeper apply reports/synthetic/latest/plan.json --yes\n  orphan-sweeper apply 3f9c2a… --yes --allow objects=2500000"
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
    },
    /// Audit, then apply what policy allows, unattended
    #[command(after_help = "Example:\n  orphan-sweeper sweep --scope synthetic --json > summary.json")]
    Sweep {
        /// Audit only
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Run every scope on its schedule until stopped
    #[command(after_help = "Example:\n  orphan-sweeper serve --log-format json")]
    Serve,
    /// Show what happened
    #[command(
        after_help = "Examples:\n  orphan-sweeper history                 the last runs\n  orphan-sweeper history 0190f5fe-…      one run\n  orphan-sweeper history --healthy=26h   exit 1 when no run succeeded for that long"
    )]
    History {
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
    /// Check configuration, rights, clocks and server behaviour, read-only
    #[command(
        after_help = "Examples:\n  orphan-sweeper doctor\n  orphan-sweeper doctor --probe    also writes to and deletes from a scratch prefix outside every scope"
    )]
    Doctor {
        /// Write to a scratch prefix outside every scope, to learn what the store really does
        #[arg(long)]
        probe: bool,
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

/// The reports with a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum SchemaOf {
    /// `summary.json`
    Summary,
    /// `plan.json`
    Plan,
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
