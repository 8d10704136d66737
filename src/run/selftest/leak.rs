//! A leak on purpose: objects without a row, which an audit must find and keep, and a dry run must leave alone.
//!
//! Invariant: the plan is looked at and never applied, because it may hold other people's orphans.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::scratch::{self, Rows, ScratchDataset};
use super::{Bench, Broken};
use crate::config::Scope;
use crate::decide::breakers::Allowances;
use crate::decide::{KeepReason, Verdict};
use crate::dispose::pace::Pace;
use crate::exit::Exit;
use crate::model::{DatasetId, Mode, visible};
use crate::run::apply::find_plan;
use crate::run::{ApplyJob, Job, PlanSource, ScopeEnd, run_scope};

/// How often, and how long apart, the clocks of store and database are looked at until they are past the newest object.
const CLOCK_LOOKS: u32 = 60;
const CLOCK_PAUSE: Duration = Duration::from_millis(250);

/// What is leaked, and what stays live beside it.
pub(super) struct Leak {
    /// Objects without a row.
    leaked: ScratchDataset,
    /// A live dataset: without any, a platform that has none yet would look emptied.
    pub(super) witness: ScratchDataset,
}

/// Leaks a dataset, with a live one beside it.
pub(super) async fn leak(bench: &Bench<'_>) -> Result<(Leak, String), Broken> {
    let witness = scratch::write(bench, Rows::Live(None)).await?;
    let leaked = scratch::write(bench, Rows::Leaked).await?;
    crate::failpoint::reach("selftest_leaked");
    scratch::see(bench, &witness).await?;
    scratch::see_objects(bench, &leaked).await?;
    wait_for_clocks(bench, &leaked).await?;
    let detail = format!("{} objects of {} have no row, on purpose", leaked.objects.len(), leaked.id);
    Ok((Leak { leaked, witness }, detail))
}

/// A scan keeps what is newer than itself for that reason. Stores count whole seconds, so it may begin too early.
async fn wait_for_clocks(bench: &Bench<'_>, dataset: &ScratchDataset) -> Result<(), Broken> {
    for look in 1.. {
        let (listed, date) = scratch::list(bench, dataset.id).await?;
        let newest = listed.iter().filter_map(|object| object.last_modified).max();
        let database = bench.reading.references.look(&[]).await?.database_time;
        match (newest, date) {
            (Some(newest), Some(date)) if date.min(database) >= newest => break,
            _ if look == CLOCK_LOOKS => {
                return Err(Broken::new(
                    "the clocks of the store and the database stay before the times of fresh objects",
                    "set the clocks: `orphan-sweeper doctor` compares them",
                ));
            }
            _ => tokio::time::sleep(CLOCK_PAUSE).await,
        }
    }
    Ok(())
}

/// A row of `orphans.csv`, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct OrphanRow {
    id: String,
    prefix: String,
    objects: usize,
    verdict: String,
    reason: String,
}

/// Audits the scope as any audit does; gives the plan, in which the leak must not be.
pub(super) async fn audit(bench: &Bench<'_>, leak: &Leak) -> Result<(PlanSource, String), Broken> {
    let job = Job::Audit { fail_on_orphans: false };
    let end = Box::pin(run_scope(bench.services, bench.keyring, bench.scope, &job)).await?;
    crate::failpoint::reach("selftest_audited");
    if end.exit != Exit::Done {
        return Err(of_end("the audit", &end));
    }
    let folder = Path::new(&end.summary.report_dir);
    let rows = read_orphans(&folder.join("orphans.csv"))?;
    let of = |id: DatasetId| rows.iter().filter(move |row| row.id == id.to_string()).collect::<Vec<_>>();
    if !of(leak.witness.id).is_empty() {
        return Err(Broken::new(
            format!("the audit takes the live dataset {} for an orphan", leak.witness.id),
            "delete nothing, and find out which rows `[[scope.live]]` reads",
        ));
    }
    check_kept(bench.scope, leak, &of(leak.leaked.id))?;
    let plan = find_plan(&bench.services.ledger, &folder.display().to_string()).await?;
    let (groups, id, run) = (bench.scope.patterns.len(), leak.leaked.id, end.summary.run_id);
    let detail =
        format!("run {run}: the {groups} groups of {id} are kept as within_grace, the live dataset is no orphan");
    Ok((plan, detail))
}

/// Every group of the leak must be kept, because it is young.
fn check_kept(scope: &Scope, leak: &Leak, rows: &[&OrphanRow]) -> Result<(), Broken> {
    let (keep, young) = (Verdict::Keep(KeepReason::WithinGrace).as_str(), KeepReason::WithinGrace.as_str());
    for pattern in &scope.patterns {
        let prefix = pattern.prefix_of(leak.leaked.id);
        let objects = leak.leaked.objects.iter().filter(|object| object.name.starts_with(&prefix)).count();
        let Some(row) = rows.iter().find(|row| row.prefix == prefix) else {
            return Err(Broken::new(
                format!("the audit does not see the leak under `{}`", visible(&prefix)),
                "an orphan that no audit sees is never swept: check `scope.prefix` and `scope.patterns`",
            ));
        };
        if (row.verdict.as_str(), row.reason.as_str()) != (keep, young) {
            return Err(Broken::new(
                format!(
                    "the leak under `{}` is `{},{}`, not `{keep},{young}`",
                    visible(&prefix),
                    row.verdict,
                    row.reason
                ),
                "a fresh orphan must be kept by the grace: check `scope.policy.grace`, and that nothing else writes there",
            ));
        }
        if row.objects != objects {
            let (found, path) = (row.objects, visible(&prefix));
            return Err(Broken::new(
                format!("the audit sees {found} objects under `{path}`, where {objects} are"),
                "check what stands between this host and the store: `orphan-sweeper doctor --probe`",
            ));
        }
    }
    Ok(())
}

fn read_orphans(path: &Path) -> Result<Vec<OrphanRow>, Broken> {
    let unreadable = |error: csv::Error| {
        Broken::new(format!("`{}` cannot be read: {error}", path.display()), "check the folder of `reports.directory`")
    };
    let mut reader = csv::Reader::from_path(path).map_err(unreadable)?;
    reader.deserialize().collect::<Result<_, _>>().map_err(unreadable)
}

/// Goes the whole way of an apply but for the requests; the leak must not be in the plan, and must still be there.
pub(super) async fn apply_dry(bench: &Bench<'_>, leak: &Leak, plan: PlanSource) -> Result<((), String), Broken> {
    let (hash, groups) = (plan.verified.hash, &plan.verified.plan.groups);
    if groups.iter().any(|group| group.id == leak.leaked.id || group.id == leak.witness.id) {
        return Err(Broken::new(
            format!("the plan {hash} would delete what this self-test just wrote"),
            format!("do not apply it: orphan-sweeper plan reject {hash} --by NAME --reason TEXT"),
        ));
    }
    let others = groups.len();
    let job = Job::Apply(Box::new(ApplyJob {
        source: plan,
        mode: Mode::DryRun,
        allowances: Allowances::default(),
        asks_first: false,
        accepts_empty_references: false,
        pace: Pace::default(),
    }));
    let end = Box::pin(run_scope(bench.services, bench.keyring, bench.scope, &job)).await?;
    let refused = match end.exit {
        Exit::Done => String::new(),
        // That other people's orphans are too many at once is theirs to judge.
        Exit::Refused if !end.summary.breakers.iter().any(is_tripped_evidence) => {
            format!(" (refused for others: {})", end.summary.reason.as_deref().unwrap_or_default())
        }
        _ => return Err(of_end("the dry run", &end)),
    };
    scratch::see_objects(bench, &leak.leaked).await?;
    scratch::see(bench, &leak.witness).await?;
    let detail = format!(
        "the plan has {others} groups, and the leak is none of them; `apply --dry-run` left all its objects{refused}"
    );
    Ok(((), detail))
}

fn is_tripped_evidence(reading: &crate::decide::breakers::Reading) -> bool {
    reading.tripped && reading.kind == crate::decide::breakers::Kind::Evidence
}

/// A run that did not end well.
fn of_end(what: &str, end: &ScopeEnd) -> Broken {
    let reason = end.summary.reason.as_deref().unwrap_or("no reason was told");
    let detail = format!("{what}, run {}, ended as {}: {reason}", end.summary.run_id, end.summary.outcome.as_str());
    let hint = end.hint.clone().or_else(|| Some(format!("see {}/report.html", end.summary.report_dir)));
    Broken::new(detail, "").with_hint(hint).with_exit(end.exit)
}
