//! The purge's role: whether every statement of `[scope.purge]` fits the schema and its rights, in the database that says what
//! is live. Planned, never run.

use super::Examination;
use super::board::Check;
use crate::config::{Purge, Scope, secrets};
use crate::list::references;
use crate::model::DatabaseIdentity;
use crate::platform::Platform;
use crate::run::failure::chain;

const NAME: &str = "purge";

/// Looks at what a purge of a scope needs, where it has one.
pub(super) async fn look(examination: &Examination<'_>, scope: &Scope) -> Vec<Check> {
    let Some(purge) = &scope.purge else { return Vec::new() };
    let url = match secrets::purge(purge, examination.variables) {
        Ok(Some(url)) => url,
        Ok(None) => {
            let hint = "set ORPHAN_SWEEPER_PURGE_DATABASE_URL, or `scope.purge.url_file`, or remove the section";
            return vec![Check::warn(
                NAME,
                "`[scope.purge]` is there, and no address of its role: nothing can be purged",
                hint,
            )];
        }
        Err(error) => return vec![Check::misconfigured(NAME, chain(&error), "correct the address")],
    };
    let mut checks = vec![webhook(purge)];
    match Platform::new(url, purge).check(live(examination, scope).await.as_ref()).await {
        Ok(()) => checks.push(Check::ok(NAME, "every statement fits the schema and the rights of its role")),
        Err(errors) => {
            checks.extend(errors.iter().map(|error| Check::misconfigured(NAME, chain(error), error.hint())));
        }
    }
    checks
}

/// The database that says what is live. Why it cannot be asked was told where it was looked at.
async fn live(examination: &Examination<'_>, scope: &Scope) -> Option<DatabaseIdentity> {
    let url = secrets::database(examination.config, examination.variables).ok()?;
    let look = references::open(&url, scope, examination.clock.clone()).look(&[]).await.ok()?;
    Some(look.anchor.identity)
}

fn webhook(purge: &Purge) -> Check {
    match &purge.cancel_webhook {
        Some(url) => {
            let host = url.host_str().unwrap_or_default();
            Check::ok("purge_webhook", format!("a job that is cancelled is told to `{host}`, which is not asked now"))
        }
        None => {
            Check::ok("purge_webhook", "nobody is told of a job that is cancelled; `cancel_webhook` names whom to tell")
        }
    }
}
