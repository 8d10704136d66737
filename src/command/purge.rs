//! purge: the command that removes a dataset or a job from the platform, rows first, and then its objects.

use serde_json::json;

use super::runs::{check_secrets, stop_on_signals};
use super::{CommandError, Host, ledger_place, load, print_json, print_text};
use crate::cli::{Global, PurgeTarget};
use crate::config::Scope;
use crate::exit::Exit;
use crate::model::{DatasetId, RunId, human_bytes, human_count, visible};
use crate::platform::PlatformError;
use crate::record::{Absence, Ledger, LockError, PurgeState};
use crate::run::confirm::{ask_about, can_ask};
use crate::run::failure::chain;
use crate::run::purge::{self, CleanUp, CleanUpError, JobDatasets, Order, Preview, Refusal};
use crate::run::{Keyring, Services};
use crate::telemetry::Progress;

/// `purge` as typed.
pub(super) struct PurgeArguments {
    pub(super) target: PurgeTarget,
    pub(super) dry_run: bool,
    pub(super) yes: bool,
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        let exit = match &refusal {
            Refusal::NotConfigured { .. }
            | Refusal::WhichScope { .. }
            | Refusal::Statements(_)
            | Refusal::Platform(PlatformError::Elsewhere { .. } | PlatformError::Standby) => Exit::Usage,
            Refusal::NotFound(_)
            | Refusal::NotSynthetic { .. }
            | Refusal::InUse { .. }
            | Refusal::Held { .. }
            | Refusal::Stopped { .. }
            | Refusal::Latched { .. }
            | Refusal::NotLive(_) => Exit::Refused,
            Refusal::Run(failure) => failure.exit(),
            Refusal::InDoubt { .. }
            | Refusal::Platform(_)
            | Refusal::References(_)
            | Refusal::Holds(_)
            | Refusal::Record(_)
            | Refusal::Lock(_)
            | Refusal::Store(_) => Exit::Failed,
        };
        Self { message: chain(&refusal), hint: refusal.hint(), exit }
    }
}

impl From<CleanUpError> for CommandError {
    fn from(error: CleanUpError) -> Self {
        match error {
            CleanUpError::Lock(error) => error.into(),
            CleanUpError::Run(failure) => failure.into(),
        }
    }
}

pub(super) async fn purge(
    global: &Global,
    host: &Host,
    progress: Progress,
    arguments: PurgeArguments,
) -> Result<Exit, CommandError> {
    let PurgeArguments { target, dry_run, yes } = arguments;
    let config = load(global, host)?;
    if !yes && !dry_run && !can_ask() {
        return Err(CommandError::usage(
            "nobody can be asked here whether to purge",
            "add --yes, or --dry-run to look first",
        ));
    }
    let order = read_order(target, purge::scope_of(&config, global.scope.as_deref())?)?;
    check_secrets(&config, host)?;
    let keyring = Keyring::new(host.variables.clone());
    // A purge runs beside every other run: it takes no run lock, and makes no ledger, which would know of no hold and no latch.
    let ledger = Ledger::open(&ledger_place(&config, host)?, Absence::Refuse, host.clock.now()).await?;
    let services = Services { config, clock: host.clock.clone(), ledger, stop: stop_on_signals(), progress };
    let scope = purge::scope_of(&services.config, global.scope.as_deref())?;
    if dry_run {
        let preview = purge::preview(&services, &keyring, scope, order).await?;
        show(global, order, &preview);
        return Ok(Exit::Done);
    }
    let pending = services.ledger.pending_purges(Some(&scope.name)).await?;
    if let Some(begun) = pending.iter().find(|purge| purge.subject == order.subject()) {
        match purge::resume(&services, &keyring, begun.run).await {
            // Nothing was changed by it: this is the first that does.
            Ok(cleaned) if cleaned.state == PurgeState::Aborted => {}
            Ok(cleaned) => return Ok(tell(global, &cleaned)),
            Err(CleanUpError::Lock(LockError::Held(_) | LockError::Leased { .. })) => {
                return Err(being_purged(order, begun.run));
            }
            Err(error) => return Err(error.into()),
        }
    }
    purge::check(&services, &keyring, scope).await?;
    if !yes {
        ask(&services, &keyring, scope, order).await?;
    }
    let removed = purge::remove(&services, &keyring, scope, order).await?;
    crate::failpoint::reach("purge_rows_gone");
    let cleaned = purge::clean_up(&services, &keyring, removed).await?;
    Ok(tell(global, &cleaned))
}

/// Its rows are gone, or about to be, and another process removes its objects.
fn being_purged(order: Order, run: RunId) -> CommandError {
    let what = match order {
        Order::Dataset(_) => "dataset",
        Order::Job { .. } => "job",
    };
    CommandError {
        message: chain(&Refusal::NotFound(what)),
        hint: Some(format!("another process is purging it, as run {run}")),
        exit: Exit::Refused,
    }
}

fn read_order(target: PurgeTarget, scope: &Scope) -> Result<Order, CommandError> {
    let read = |text: &str| {
        DatasetId::parse_lenient(text)
            .ok_or_else(|| CommandError::usage(format!("`{}` is no UUID", visible(text)), "write the id of a row"))
    };
    Ok(match target {
        PurgeTarget::Dataset { id } => Order::Dataset(read(&id)?),
        PurgeTarget::Job { id, keep_datasets, delete_datasets } => {
            let goes_by_default = scope.purge.as_ref().is_some_and(|purge| purge.deletes_datasets);
            let goes = delete_datasets || !keep_datasets && goes_by_default;
            let datasets = if goes { JobDatasets::Go } else { JobDatasets::Stay };
            Order::Job { id: read(&id)?.0, datasets }
        }
    })
}

/// Shows a person what would go, and asks for the bucket's name.
async fn ask(services: &Services, keyring: &Keyring, scope: &Scope, order: Order) -> Result<(), CommandError> {
    let preview = purge::preview(services, keyring, scope, order).await?;
    let what = sentence(order, &preview);
    let answer = services.progress.suspend(|| ask_about(&scope.bucket, &what));
    if answer.unwrap_or(false) {
        return Ok(());
    }
    Err(CommandError {
        message: "the bucket's name was not typed".into(),
        hint: Some("nothing was removed; purge it again when you are sure".into()),
        exit: Exit::Refused,
    })
}

/// What would go, in one sentence.
fn sentence(order: Order, preview: &Preview) -> String {
    let datasets = match preview.datasets.len() {
        1 => "1 dataset".to_owned(),
        several => format!("{several} datasets"),
    };
    let rows = match (order, &preview.job) {
        (Order::Job { id, .. }, Some(job)) => {
            let cancelled = if job.was_cancelled { ", which is cancelled first," } else { "" };
            let staying =
                if job.detached > 0 { format!("; {} datasets stay without it", job.detached) } else { String::new() };
            format!(
                "The rows of job {id} (status {}){cancelled} and of {datasets} would go{staying}",
                visible(&job.status)
            )
        }
        (Order::Dataset(id), _) => format!("The rows of dataset {id} would go"),
        (Order::Job { id, .. }, None) => format!("The rows of job {id} would go"),
    };
    let (objects, bytes) = preview.objects();
    format!("{rows}, then {} objects ({}).", human_count(objects), human_bytes(bytes))
}

fn show(global: &Global, order: Order, preview: &Preview) {
    if global.json {
        let (objects, bytes) = preview.objects();
        let document = json!({
            "dry_run": true, "id": order.subject().id(), "datasets": preview.datasets, "job": preview.job,
            "dependent_rows": preview.dependent_rows, "groups": preview.groups, "objects": objects, "bytes": bytes
        });
        print_json(&document);
        return;
    }
    let mut text = format!("{} Nothing was changed.\n", sentence(order, preview));
    for dataset in &preview.datasets {
        let name = dataset.name.as_deref().map(|name| format!(" `{}`", visible(name))).unwrap_or_default();
        text.push_str(&format!("  dataset {}{name}, type {}\n", dataset.id, visible(&dataset.kind)));
    }
    for (table, rows) in &preview.dependent_rows {
        text.push_str(&format!("  {} rows of {table}\n", human_count(*rows)));
    }
    for group in &preview.groups {
        let (objects, bytes) = (human_count(group.objects), human_bytes(group.bytes));
        text.push_str(&format!("  {objects} objects ({bytes}) under {}\n", visible(&group.prefix)));
    }
    print_text(&text);
}

fn tell(global: &Global, cleaned: &CleanUp) -> Exit {
    let end = &cleaned.end;
    if global.json {
        print_json(&serde_json::to_value(&end.summary).expect("a summary is serializable"));
    } else {
        print_text(&format!("{}\n", end.text.trim_end()));
    }
    if end.exit != Exit::Done {
        if let Some(reason) = &end.summary.reason {
            eprintln!("error: scope {}: {reason}", end.summary.scope);
        }
        if let Some(hint) = &end.hint {
            eprintln!("hint: {hint}");
        }
        if matches!(cleaned.state, PurgeState::Intended | PurgeState::Committed) {
            eprintln!(
                "hint: the purge is not over; the same command goes on with it, and so does `serve` when it starts"
            );
        }
    }
    end.exit
}
