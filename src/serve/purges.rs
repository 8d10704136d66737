//! The purges of the platform's rows: checked before anything is answered, and gone on with where a process left them.

use std::time::Duration;

use crate::command::CommandError;
use crate::run::failure::chain;
use crate::run::purge::{self, Refusal};
use crate::run::{Keyring, Services};

/// How often is looked for a purge that nobody works on.
const EVERY: Duration = Duration::from_secs(60);

/// Has the database plan the statements of every scope that has some.
///
/// - Errors: statements that do not fit the schema, or the rights of their role. A database that does not answer now may later.
pub async fn check(services: &Services, keyring: &Keyring) -> Result<(), CommandError> {
    for scope in services.config.scopes.iter().filter(|scope| scope.purge.is_some()) {
        match purge::check(services, keyring, scope).await {
            Ok(()) => {}
            Err(wrong @ Refusal::Statements(_)) => return Err(wrong.into()),
            Err(refusal) => {
                tracing::warn!(scope = %scope.name, error = %chain(&refusal), "the platform's delete operations cannot be used now");
            }
        }
    }
    Ok(())
}

/// Goes on with what a process left, at once and then again and again, until the stop.
pub async fn go_on(services: Services, keyring: Keyring) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stop = services.stop.token.clone();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        purge::resume_pending(&services, &keyring).await;
    }
}
