//! restore: the command that brings back what a run deleted.

use super::runs::{check_secrets, existing_ledger, mode, tell};
use super::{CommandError, Host, load};
use crate::cli::Global;
use crate::exit::Exit;
use crate::model::DatasetId;
use crate::run::confirm::can_ask;
use crate::run::{Job, Keyring, RestoreJob, run_scope};
use crate::telemetry::Progress;

/// `restore` as typed.
pub(super) struct RestoreArguments {
    pub(super) run: String,
    pub(super) dataset: Option<String>,
    pub(super) dry_run: bool,
    pub(super) yes: bool,
}

pub(super) async fn restore(
    global: &Global,
    host: &Host,
    progress: Progress,
    arguments: RestoreArguments,
) -> Result<Exit, CommandError> {
    let dataset = arguments.dataset.as_deref().map(read_id).transpose()?;
    let config = load(global, host)?;
    if !arguments.yes && !arguments.dry_run && !can_ask() {
        return Err(CommandError::usage(
            "nobody can be asked here whether to restore",
            "add --yes, or --dry-run to look first",
        ));
    }
    check_secrets(&config, host)?;
    let keyring = Keyring::new(host.variables.clone());
    let missing = "restore where the run was made, with the ledger that knows it";
    let (services, _lock) = existing_ledger(config, host, progress, (String::new, missing)).await?;
    let refused = |message: String, hint: &str| CommandError { message, hint: Some(hint.into()), exit: Exit::Refused };
    let row = services.ledger.run(&arguments.run.to_lowercase()).await?;
    let row = row.ok_or_else(|| {
        refused(
            format!("this ledger knows no run `{}`", arguments.run),
            "list the runs that it knows with `orphan-sweeper history`",
        )
    })?;
    if let Some(wanted) = global.scope.as_deref().filter(|wanted| **wanted != row.scope) {
        return Err(refused(format!("the run is of the scope `{}`, not `{wanted}`", row.scope), "check --scope"));
    }
    let scope = services.config.scopes.iter().find(|scope| scope.name == row.scope);
    let scope = scope.ok_or_else(|| {
        refused(
            format!("the run is of the scope `{}`, which the configuration does not have", row.scope),
            "check --config",
        )
    })?;
    let job = Job::Restore(Box::new(RestoreJob {
        run: row.run_id,
        dataset,
        mode: mode(arguments.dry_run),
        asks_first: !arguments.yes,
    }));
    let end = run_scope(&services, &keyring, scope, &job).await?;
    Ok(tell(&[end], global))
}

fn read_id(text: &str) -> Result<DatasetId, CommandError> {
    DatasetId::parse_lenient(text)
        .ok_or_else(|| CommandError::usage(format!("`{text}` is no UUID"), "name a dataset's id"))
}
