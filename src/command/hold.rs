//! hold: protecting ids by name and reason, and showing who is protected.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{CommandError, Host, ledger_place, load, only_scope, open_ledger, print_json, print_text, scopes};
use crate::cli::{Global, HoldAction};
use crate::config::secrets::LedgerPlace;
use crate::config::{Config, HoldsSource, Scope};
use crate::decide::holds::{Hold, HoldSource, read_until};
use crate::exit::Exit;
use crate::list::holds::HoldsFile;
use crate::model::{DatasetId, Timestamp, visible};
use crate::record::{Absence, HoldRow, Ledger, RecordError};
use crate::report::csv::time;
use crate::run::{Keyring, RunFailure};

pub(super) async fn hold(global: &Global, host: &Host, action: HoldAction) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    match action {
        HoldAction::Add { id, by, reason, until } => {
            let placed = Placed { id: read_id(&id)?, by, reason, until };
            add(global, host, &config, placed).await
        }
        HoldAction::Remove { id, by, reason } => {
            remove(global, host, &config, read_id(&id)?, (by.as_deref(), reason.as_deref())).await
        }
        HoldAction::List => list(global, host, &config).await,
    }
}

/// Reads an id in any spelling.
pub(crate) fn read_id(text: &str) -> Result<DatasetId, CommandError> {
    DatasetId::parse_lenient(text).ok_or_else(|| {
        CommandError::usage(
            format!("`{}` is no UUID", visible(text)),
            "write the dataset's id, such as 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10",
        )
    })
}

/// A name and a reason must say something.
pub(super) fn check_named(what: &str, by: &str, reason: &str) -> Result<(), CommandError> {
    if by.trim().is_empty() || reason.trim().is_empty() {
        return Err(CommandError::usage(format!("{what} needs a name and a reason"), "write --by NAME --reason TEXT"));
    }
    Ok(())
}

/// A hold as typed.
struct Placed {
    id: DatasetId,
    by: String,
    reason: String,
    until: Option<String>,
}

async fn add(global: &Global, host: &Host, config: &Config, placed: Placed) -> Result<Exit, CommandError> {
    let Placed { id, by, reason, until } = placed;
    check_named("a hold", &by, &reason)?;
    let now = host.clock.now();
    let until = until.map(|text| read_end(&text, now)).transpose()?;
    let scope = only_scope(config, global)?;
    // A hold may come before the first audit.
    let place = ledger_place(config, host)?;
    if let LedgerPlace::File(path) = &place {
        Ledger::prepare_folder(path)?;
    }
    let ledger = Ledger::open(&place, Absence::Make, now).await?;
    ledger.place_hold(&scope.name, id, until, &by, &reason, now).await?;
    if global.json {
        let hold =
            json!({ "id": id.to_string(), "until": until, "by": by, "reason": reason, "source": HoldSource::Ledger });
        print_json(&json!({ "scope": scope.name, "held": hold }));
    } else {
        let end = until.map_or_else(|| "until it is removed".to_owned(), |until| format!("until {}", time(until)));
        print_text(&format!(
            "{id} of scope {} is held {end}, by {}: {}\nTo take the hold off: orphan-sweeper hold remove {id} --scope {}\n",
            scope.name,
            visible(&by),
            visible(&reason),
            scope.name
        ));
    }
    Ok(Exit::Done)
}

/// Reads when a hold ends, which must lie ahead.
pub(crate) fn read_end(text: &str, now: Timestamp) -> Result<Timestamp, CommandError> {
    let hint = "write a date such as 2027-01-31, which is held to its end, or a time such as 2027-01-31T12:00:00Z";
    let until = read_until(text)
        .ok_or_else(|| CommandError::usage(format!("`{}` is neither a date nor a time", visible(text)), hint))?;
    if until <= now {
        return Err(CommandError::usage(format!("`{text}` is past: the hold would protect nothing"), hint));
    }
    Ok(until)
}

async fn remove(
    global: &Global,
    host: &Host,
    config: &Config,
    id: DatasetId,
    (by, reason): (Option<&str>, Option<&str>),
) -> Result<Exit, CommandError> {
    let now = host.clock.now();
    let scope = only_scope(config, global)?;
    let ledger = open_ledger(config, host).await?;
    let removed = ledger.remove_holds(&scope.name, id, by, reason, now).await?;
    let elsewhere = match &scope.holds {
        Some(HoldsSource::File(path)) => format!("; what stands in `{}` is taken off there", path.display()),
        Some(HoldsSource::Table(table)) => format!("; what stands in `{table}` is taken off there"),
        None => String::new(),
    };
    if removed == 0 {
        return Err(CommandError::usage(
            format!("the ledger holds no hold on {id} in the scope `{}`{elsewhere}", scope.name),
            "`orphan-sweeper hold list` shows what is held, and where",
        ));
    }
    if global.json {
        print_json(
            &json!({ "scope": scope.name, "id": id.to_string(), "removed": removed, "by": by, "reason": reason }),
        );
    } else {
        print_text(&format!("{id} of scope {} is held by the ledger no more{elsewhere}.\n", scope.name));
    }
    Ok(Exit::Done)
}

/// A hold and, for the ledger's, when it was placed.
pub(crate) struct Shown {
    pub(crate) hold: Hold,
    pub(crate) placed_at: Option<Timestamp>,
}

async fn list(global: &Global, host: &Host, config: &Config) -> Result<Exit, CommandError> {
    let now = host.clock.now();
    let mut documents = Vec::new();
    let mut text = String::new();
    for scope in scopes(config, global)? {
        let mut holds = gather(host, config, scope, now).await?;
        holds.sort_by_key(|shown| (!shown.hold.counts_at(now), shown.hold.id, shown.hold.source));
        text.push_str(&tell(scope, &holds, now));
        documents.push(
            json!({ "scope": scope.name, "holds": holds.iter().map(|shown| document(shown, now)).collect::<Vec<_>>() }),
        );
    }
    if global.json {
        print_json(&Value::Array(documents));
    } else {
        print_text(&text);
    }
    Ok(Exit::Done)
}

/// The holds of every source; the ended ones too, but for those that a person removed.
async fn gather(host: &Host, config: &Config, scope: &Scope, now: Timestamp) -> Result<Vec<Shown>, CommandError> {
    // Without a ledger nothing is held by it.
    let ledger = match Ledger::open(&ledger_place(config, host)?, Absence::Refuse, now).await {
        Ok(ledger) => Some(ledger),
        Err(RecordError::Absent(_)) => None,
        Err(error) => return Err(error.into()),
    };
    gather_with(ledger.as_ref(), host, config, scope).await
}

/// The holds of every source, the ledger's too where there is one.
pub(crate) async fn gather_with(
    ledger: Option<&Ledger>,
    host: &Host,
    config: &Config,
    scope: &Scope,
) -> Result<Vec<Shown>, CommandError> {
    let elsewhere = |hold: Hold| Shown { hold, placed_at: None };
    let mut holds = Vec::new();
    if let Some(ledger) = ledger {
        let rows: Vec<HoldRow> = ledger.hold_rows(&scope.name, None).await?;
        let kept = rows.into_iter().filter(|row| row.removed_at.is_none());
        holds.extend(kept.map(|row| Shown { hold: row.hold, placed_at: Some(row.placed_at) }));
    }
    match &scope.holds {
        Some(HoldsSource::File(path)) => {
            let mut file = HoldsFile::new(path.clone());
            holds.extend(file.read().map_err(RunFailure::Holds)?.iter().cloned().map(elsewhere));
        }
        Some(HoldsSource::Table(_)) => {
            let references = Keyring::new(host.variables.clone())
                .references(config, scope, &host.clock)
                .map_err(RunFailure::from)?;
            holds.extend(references.holds().await.map_err(RunFailure::References)?.into_iter().map(elsewhere));
        }
        None => {}
    }
    Ok(holds)
}

fn document(shown: &Shown, now: Timestamp) -> Value {
    let Hold { id, until, by, reason, source } = &shown.hold;
    json!({
        "id": id.to_string(), "until": until, "by": by, "reason": reason, "source": source,
        "counts": shown.hold.counts_at(now), "placed_at": shown.placed_at
    })
}

fn tell(scope: &Scope, holds: &[Shown], now: Timestamp) -> String {
    if holds.is_empty() {
        return format!("Nothing is held in scope {}.\n", scope.name);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["id", "until", "by", "in", "reason"]);
    for Shown { hold, .. } in holds {
        let until = match hold.until {
            None => "it is removed".to_owned(),
            Some(until) if hold.counts_at(now) => time(until),
            Some(until) => format!("{} (over)", time(until)),
        };
        table.add_row([
            hold.id.to_string(),
            until,
            hold.by.as_deref().map(visible).unwrap_or_default(),
            hold.source.as_str().to_owned(),
            visible(&hold.reason),
        ]);
    }
    format!("Held in scope {}:\n{table}\n", scope.name)
}
