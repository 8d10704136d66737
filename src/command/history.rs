//! history and ack: what happened, whether all is well, and acknowledging a latched breaker.

use comfy_table::{Table, presets};
use serde_json::json;

use super::{CommandError, Host, load, only_scope, open_ledger, print_json, print_text, scopes};
use crate::cli::Global;
use crate::config::Config;
use crate::decide::breakers::Breaker;
use crate::exit::Exit;
use crate::model::{human_bytes, visible};
use crate::record::{Ledger, RunRow};
use crate::run::health::ScopeHealth;

/// Decisions that the history shows.
const MOST_DECISIONS: u32 = 30;

pub(super) async fn history(
    global: &Global,
    host: &Host,
    run: Option<String>,
    healthy: Option<String>,
) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    if let Some(within) = healthy {
        return health(global, host, &config, &within).await;
    }
    let ledger = open_ledger(&config, host).await?;
    match run {
        Some(run) => show_run(global, &ledger, &run).await,
        None => show_runs(global, &config, &ledger).await,
    }
}

async fn show_run(global: &Global, ledger: &Ledger, run: &str) -> Result<Exit, CommandError> {
    let row = ledger.run(run).await?;
    let row = row.ok_or_else(|| {
        CommandError::usage(format!("the ledger knows no run `{run}`"), "`orphan-sweeper history` lists them")
    })?;
    let summary: Option<serde_json::Value> = row.summary.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if global.json {
        print_json(&json!({ "run": row, "summary": summary }));
        return Ok(Exit::Done);
    }
    let text = summary.map_or_else(
        || "It left no summary: its process died, or it is still running.".to_owned(),
        |summary| format!("{summary:#}"),
    );
    print_text(&format!("{}\n{text}\n", runs_table(std::slice::from_ref(&row))));
    Ok(Exit::Done)
}

async fn show_runs(global: &Global, config: &Config, ledger: &Ledger) -> Result<Exit, CommandError> {
    let runs = ledger.runs(global.scope.as_deref(), 30).await?;
    let mut latched = Vec::new();
    for scope in scopes(config, global)? {
        for latch in ledger.latches(&scope.name).await? {
            latched.push(json!({
                "scope": scope.name, "breaker": latch.breaker, "since": latch.latched_at, "run_id": latch.run_id, "message": latch.message
            }));
        }
    }
    let acknowledgements = ledger.acknowledgements().await?;
    let decisions = ledger.newest_decisions(global.scope.as_deref(), MOST_DECISIONS).await?;
    let undelivered = ledger.undelivered(global.scope.as_deref()).await?;
    if global.json {
        let decisions: Vec<_> = decisions.iter().map(super::plan::decision_document).collect();
        print_json(
            &json!({ "runs": runs, "latched": latched, "acknowledgements": acknowledgements, "decisions": decisions, "undelivered": undelivered }),
        );
        return Ok(Exit::Done);
    }
    let mut text = if runs.is_empty() {
        "No run yet. Begin with: orphan-sweeper audit\n".to_owned()
    } else {
        format!("{}\n", runs_table(&runs))
    };
    for latch in &latched {
        let field = |name: &str| latch[name].as_str().unwrap_or_default();
        text.push_str(&format!(
            "\nlatched: {} (scope {}, run {}): {}\n",
            field("breaker"),
            field("scope"),
            field("run_id"),
            field("message")
        ));
        text.push_str(&format!(
            "  once its cause is found: orphan-sweeper ack {} --scope {} --by NAME --reason TEXT\n",
            field("breaker"),
            field("scope")
        ));
    }
    for ack in &acknowledgements {
        let at = crate::report::csv::time(ack.acknowledged_at);
        text.push_str(&format!(
            "\nacknowledged: {} (scope {}) by {} at {at}: {}\n",
            ack.breaker, ack.scope, ack.acknowledged_by, ack.reason
        ));
    }
    for decision in &decisions {
        let about = decision.id.map_or_else(|| "plan".to_owned(), |id| format!("{id} of plan"));
        let at = crate::report::csv::time(decision.at);
        text.push_str(&format!(
            "\n{}: {about} {} (scope {}) by {} at {at}: {}\n",
            decision.ruling.as_str(),
            decision.plan_hash,
            decision.scope,
            visible(&decision.by),
            visible(&decision.reason)
        ));
    }
    for message in &undelivered {
        let at = crate::report::csv::time(message.at);
        text.push_str(&format!(
            "\nundelivered: {} of run {} (scope {}) at {at}: {}\n",
            message.channel,
            message.run_id,
            message.scope,
            visible(&message.error)
        ));
    }
    print_text(&text);
    Ok(Exit::Done)
}

fn runs_table(runs: &[RunRow]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "run",
        "scope",
        "command",
        "started",
        "outcome",
        "exit",
        "orphans hold",
    ]);
    for run in runs {
        let command = if run.is_dry_run && !matches!(run.command.as_str(), "audit" | "backfill") {
            format!("{} --dry-run", run.command)
        } else {
            run.command.clone()
        };
        table.add_row([
            run.run_id.clone(),
            run.scope.clone(),
            command,
            run.started_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            run.outcome.clone().unwrap_or_else(|| "running".into()),
            run.exit_code.map_or(String::new(), |code| code.to_string()),
            run.orphan_bytes.and_then(|bytes| u64::try_from(bytes).ok()).map_or(String::new(), human_bytes),
        ]);
    }
    table
}

/// Whether every scope had a successful run lately.
async fn health(global: &Global, host: &Host, config: &Config, within: &str) -> Result<Exit, CommandError> {
    let given = match within {
        "" => None,
        text => Some(humantime::parse_duration(text).map_err(|error| {
            CommandError::usage(format!("`{text}` is no duration: {error}"), "write a duration such as --healthy=26h")
        })?),
    };
    let ledger = open_ledger(config, host).await?;
    let now = host.clock.now();
    let mut is_healthy = true;
    let mut report = Vec::new();
    for scope in scopes(config, global)? {
        let health = ScopeHealth::of(&ledger, scope, now, given).await?;
        let ScopeHealth { last_success, first_start, limit, .. } = health;
        let is_well = health.is_well(now);
        is_healthy &= is_well;
        report.push(json!({
            "scope": scope.name, "healthy": is_well, "last_success": last_success, "first_start": first_start, "limit_s": limit.as_secs()
        }));
    }
    if global.json {
        print_json(&json!({ "healthy": is_healthy, "scopes": report }));
    } else {
        for scope in &report {
            let state = if scope["healthy"] == json!(true) { "healthy" } else { "unhealthy" };
            let last = scope["last_success"].as_str().unwrap_or("never");
            print_text(&format!(
                "{state}: scope {}, last success {last}\n",
                scope["scope"].as_str().unwrap_or_default()
            ));
        }
    }
    Ok(if is_healthy { Exit::Done } else { Exit::Failed })
}

pub(super) async fn acknowledge(
    global: &Global,
    host: &Host,
    breaker: &str,
    by: &str,
    reason: &str,
) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let Some(named) = Breaker::named(breaker) else {
        let known: Vec<&str> =
            Breaker::ALL.into_iter().filter(|breaker| breaker.latches()).map(Breaker::as_str).collect();
        return Err(CommandError::usage(
            format!("there is no breaker `{breaker}`"),
            format!("those that latch: {}", known.join(", ")),
        ));
    };
    if by.trim().is_empty() || reason.trim().is_empty() {
        return Err(CommandError::usage(
            "an acknowledgement needs a name and a reason",
            "write --by NAME --reason TEXT",
        ));
    }
    let ledger = open_ledger(&config, host).await?;
    let mut found = Vec::new();
    for scope in scopes(&config, global)? {
        found.extend(
            ledger
                .latches(&scope.name)
                .await?
                .into_iter()
                .filter(|latch| latch.breaker == named)
                .map(|latch| (scope, latch)),
        );
    }
    if found.is_empty() {
        return Err(CommandError::usage(
            format!("`{breaker}` waits for no acknowledgement"),
            "`orphan-sweeper history` shows what does",
        ));
    }
    if found.len() > 1 {
        only_scope(&config, global)?;
    }
    for (scope, latch) in &found {
        if !ledger.acknowledge(&scope.name, latch, by, reason, host.clock.now()).await? {
            return Err(CommandError::usage(
                format!("`{breaker}` of the scope `{}` was tripped anew or acknowledged meanwhile", scope.name),
                "`orphan-sweeper history` shows what waits now",
            ));
        }
        if global.json {
            print_json(
                &json!({ "acknowledged": breaker, "scope": scope.name, "run_id": latch.run_id, "by": by, "reason": reason, "message": latch.message }),
            );
        } else {
            print_text(&format!(
                "{breaker} of scope {} is acknowledged by {by}.\nAccepted as the new normal, from run {}: {}\nThe next audit goes on from there: orphan-sweeper audit --scope {}\n",
                scope.name, latch.run_id, latch.message, scope.name
            ));
        }
    }
    Ok(Exit::Done)
}
