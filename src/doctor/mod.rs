//! doctor: whether an audit and a deletion would work here, asked of everything that they depend on.
//!
//! Takes the configuration; gives one line a check, all of them whatever fails. Invariant: it changes nothing in store
//! and database and makes no ledger; only `--probe` writes, to a scratch prefix of its own that lies outside every
//! scope.

mod board;
mod clocks;
mod database;
mod files;
mod probe;
mod purge;
mod quarantine;
mod setup;
mod store;

use std::io::IsTerminal as _;
use std::sync::Arc;

use crate::cli::Global;
use crate::clock::Clock;
use crate::command::{CommandError, Host, load, scopes};
use crate::config::{Config, Scope, Variables};
use crate::exit::Exit;
use crate::model::Versioning;
use crate::run::Stop;
use crate::serve::signals;
use board::{Board, Show};

/// What every check may look at.
struct Examination<'e> {
    config: &'e Config,
    variables: &'e Variables,
    clock: Arc<dyn Clock>,
}

/// Checks everything that an audit and a deletion depend on.
///
/// Exit: 0 where nothing failed, 1 where something did, 2 where the configuration or a secret is at fault.
///
/// - Errors: where there is no configuration to check by.
pub async fn doctor(global: &Global, host: &Host, probe: bool) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let chosen = scopes(&config, global)?;
    let show = if global.json {
        Show::Json
    } else {
        Show::Lines { coloured: std::io::stdout().is_terminal(), names_scopes: chosen.len() > 1 }
    };
    let mut board = Board::new(show);
    let examination = Examination { config: &config, variables: &host.variables, clock: Arc::clone(&host.clock) };
    let versioning = examine(&examination, &chosen, &mut board).await;
    let stop = Stop::default();
    if probe {
        // Whoever interrupts finds nothing left of the probe all the same.
        signals::listen(stop.clone());
        probe::probe(&examination, &chosen, &versioning, &stop, &mut board).await;
    }
    let exit = board.finish();
    Ok(if stop.token.is_cancelled() { stop.exit() } else { exit })
}

/// Every check that only reads; gives what a deletion means in the bucket of each scope.
async fn examine(examination: &Examination<'_>, chosen: &[&Scope], board: &mut Board) -> Vec<Option<Versioning>> {
    let (config, variables) = (examination.config, examination.variables);
    board.add(setup::configuration(config, chosen));
    board.extend(setup::credentials(config, variables));
    let (database_url, checks) = setup::database(config, variables);
    board.extend(checks);
    board.add(setup::endpoint(&config.store.endpoint));
    board.extend(setup::notifications(config, variables));
    let mut seen_by_scope = Vec::with_capacity(chosen.len());
    for scope in chosen {
        let (seen, checks) = store::look(examination, scope).await;
        board.extend(checks.into_iter().map(|check| check.of(&scope.name)));
        let checks = quarantine::look(examination, scope).await;
        board.extend(checks.into_iter().map(|check| check.of(&scope.name)));
        seen_by_scope.push((*scope, seen));
    }
    let mut clocks = Vec::new();
    clocks.extend(seen_by_scope.iter().find_map(|(_, seen)| seen.clock.clone()));
    if let Some(url) = &database_url {
        clocks.extend(database::look(examination, url, &seen_by_scope, board).await);
    }
    for scope in chosen {
        let checks = purge::look(examination, scope).await;
        board.extend(checks.into_iter().map(|check| check.of(&scope.name)));
    }
    board.add(clocks::compare(&clocks));
    board.extend(files::look(examination, chosen).await);
    let now = examination.clock.now();
    board.extend(chosen.iter().map(|scope| setup::schedule(scope, now).of(&scope.name)));
    seen_by_scope.into_iter().map(|(_, seen)| seen.versioning).collect()
}

#[cfg(test)]
mod tests;
