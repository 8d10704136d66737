//! The scopes that the platform's rows keep objects alive in beside the one whose purge it is: what a person protects or doubts in
//! any of them forbids it.

use super::Refusal;
use crate::config::{Config, Scope, TableName};
use crate::run::{Keyring, Reading, RunFailure, Services};

/// The other scopes that the rows of `scope` keep objects alive in: those that read one of its live tables, or a table whose rows
/// fall with them.
fn others_of<'c>(config: &'c Config, scope: &'c Scope) -> impl Iterator<Item = &'c Scope> {
    let fall = scope.purge.iter().flat_map(|purge| &purge.dependents).map(|dependent| &dependent.table);
    let tables: Vec<&TableName> = scope.live.iter().map(|live| &live.table).chain(fall).collect();
    let reads_one = move |other: &&Scope| other.live.iter().any(|live| tables.contains(&&live.table));
    config.scopes.iter().filter(|other| other.name != scope.name).filter(reads_one)
}

/// The other scopes of the rows of `scope`, and what each reads from.
pub(super) fn readings_beside<'c>(
    services: &'c Services,
    keyring: &Keyring,
    scope: &'c Scope,
) -> Result<Vec<(&'c Scope, Reading)>, RunFailure> {
    others_of(&services.config, scope).map(|other| Ok((other, keyring.reading(services, other)?))).collect()
}

/// Refuses where a breaker of `scope`, or of another scope of its rows, waits for a person.
pub(super) async fn check_latches(services: &Services, scope: &Scope) -> Result<(), Refusal> {
    for scope in std::iter::once(scope).chain(others_of(&services.config, scope)) {
        let latches = services.ledger.latches(&scope.name).await?;
        let Some(first) = latches.first() else { continue };
        let breakers = latches.iter().map(|latch| latch.breaker.as_str()).collect();
        return Err(Refusal::Latched { breakers, reason: first.message.clone() });
    }
    Ok(())
}
