//! selftest: the command that tries the whole of it on the configured services, with rows and objects of its own.

use std::io::IsTerminal as _;

use serde_json::json;

use super::runs::{check_secrets, existing_ledger, stop_on_signals};
use super::{CommandError, Host, ledger_place, load, print_json, print_text, services, token};
use crate::cli::Global;
use crate::exit::Exit;
use crate::model::{RunId, visible};
use crate::run::selftest::{self, Api, Bench, Board, Step, StepState};
use crate::run::{Keyring, RunFailure, Services, purge};
use crate::serve::Here;
use crate::telemetry::Progress;

/// Width of the column with the names of the steps.
const LABEL: usize = 8;

pub(super) async fn selftest(
    global: &Global,
    host: &Host,
    progress: Progress,
    yes: bool,
    only_cleans: bool,
) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let scope = purge::scope_of(&config, global.scope.as_deref())?.clone();
    check_secrets(&config, host)?;
    let keyring = Keyring::new(host.variables.clone());
    if only_cleans {
        let hint = "where there is no ledger, no self-test wrote anything";
        let (services, _lock) = existing_ledger(config, host, progress, (String::new, hint)).await?;
        return clean_up(global, &services, &keyring, &scope.name).await;
    }
    if !yes {
        refuse_production(&config, &scope, &keyring, host).await?;
    }
    let place = ledger_place(&config, host)?;
    let (services, _lock) = services(config, host, progress, stop_on_signals()).await?;
    selftest::check_stops(&services, &scope).await?;
    let token = token::new_token().map_err(|error| CommandError {
        message: format!("no token could be made: {error}"),
        hint: None,
        exit: Exit::Failed,
    })?;
    let bench = Bench::set_up(&services, &keyring, &scope)?;
    let here = Here::open(host, &services, &place).await?;
    let api = Api::new(here.address, token.into()).map_err(|error| CommandError {
        message: format!("no client of the API could be made: {error}"),
        hint: None,
        exit: Exit::Failed,
    })?;
    let mut tell = teller(global);
    let mut board = Board::new(&mut tell);
    Box::pin(selftest::walk(&bench, &api, &mut board)).await;
    // Nothing may still be at work on what is cleaned up next.
    here.close().await;
    Box::pin(selftest::clean_up(&bench, &mut board)).await;
    Ok(finish(global, &services, bench.run, &scope.name, &board))
}

/// Removes what earlier self-tests left, and nothing else.
async fn clean_up(global: &Global, services: &Services, keyring: &Keyring, scope: &str) -> Result<Exit, CommandError> {
    let scope = purge::scope_of(&services.config, Some(scope))?;
    let bench = Bench::set_up(services, keyring, scope)?;
    let mut tell = teller(global);
    let mut board = Board::new(&mut tell);
    Box::pin(selftest::clean_up(&bench, &mut board)).await;
    Ok(finish(global, services, bench.run, &scope.name, &board))
}

async fn refuse_production(
    config: &crate::config::Config,
    scope: &crate::config::Scope,
    keyring: &Keyring,
    host: &Host,
) -> Result<(), CommandError> {
    let Some(purge) = &scope.purge else { return Ok(()) };
    let reasons = selftest::why_production(config, scope, purge, keyring, &host.clock).await;
    let reasons = reasons.map_err(RunFailure::from)?;
    if reasons.is_empty() {
        return Ok(());
    }
    Err(CommandError::usage(
        format!("the target may be production: {}; {}", reasons.join(", "), selftest::plan_of_action(scope)),
        "add --yes if that may be done there",
    ))
}

/// Shows each step as it ends, but where one document is asked for.
fn teller(global: &Global) -> impl FnMut(&Step) + Send + use<> {
    let is_json = global.json;
    let is_terminal = std::io::stdout().is_terminal();
    move |step| {
        if !is_json {
            print_text(&line(step, is_terminal));
        }
    }
}

/// One step in a line; what to do in another.
fn line(step: &Step, is_terminal: bool) -> String {
    let state = match (step.state, is_terminal) {
        (StepState::Passed, true) => "\u{1b}[32m\u{2714}\u{1b}[0m",
        (StepState::Failed, true) => "\u{1b}[1;31m\u{2718}\u{1b}[0m",
        (StepState::NotTaken, true) => "-",
        (StepState::Passed, false) => "passed  ",
        (StepState::Failed, false) => "failed  ",
        (StepState::NotTaken, false) => "not run ",
    };
    let name = step.name.replace('_', " ");
    let hint = step.hint.as_ref().map(|hint| format!("    hint: {hint}\n")).unwrap_or_default();
    let took = match step.state {
        StepState::Passed | StepState::Failed => format!(" ({} ms)", step.duration_ms),
        StepState::NotTaken => String::new(),
    };
    format!("{state} {name:<LABEL$}  {}{took}\n{hint}", step.detail)
}

fn finish(global: &Global, services: &Services, run: RunId, scope: &str, board: &Board<'_>) -> Exit {
    let count = |state| board.steps().iter().filter(|step| step.state == state).count();
    let (passed, failed, left_out) = (count(StepState::Passed), count(StepState::Failed), count(StepState::NotTaken));
    let has_passed = failed + left_out == 0;
    if global.json {
        let target = &services.config.store.endpoint;
        print_json(&json!({
            "run_id": run.0, "scope": scope, "endpoint": target.to_string(), "passed": has_passed, "steps": board.steps()
        }));
    } else {
        let end = if has_passed { "All is well." } else { "Follow the hint of what failed, then run selftest again." };
        print_text(&format!("\n{passed} passed, {failed} failed, {left_out} not run. {end}\n"));
    }
    if let Some(step) = board.steps().iter().find(|step| step.state == StepState::Failed) {
        eprintln!("error: selftest of scope {}: {}: {}", visible(scope), step.name, step.detail);
    }
    if services.stop.token.is_cancelled() { services.stop.exit() } else { board.exit() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_sign_on_a_terminal_and_a_word_in_a_pipe() {
        let mut step = Step {
            name: "dry_run",
            state: StepState::Passed,
            detail: "left alone".into(),
            hint: None,
            duration_ms: 12,
            exit: Exit::Done,
        };
        assert_eq!(line(&step, false), "passed   dry run   left alone (12 ms)\n");
        assert!(line(&step, true).contains('\u{2714}'));
        (step.state, step.hint) = (StepState::Failed, Some("mend it".into()));
        assert_eq!(line(&step, false), "failed   dry run   left alone (12 ms)\n    hint: mend it\n");
        assert!(line(&step, true).contains('\u{2718}'));
        step.state = StepState::NotTaken;
        assert!(line(&step, false).starts_with("not run  dry run   left alone\n"));
    }
}
