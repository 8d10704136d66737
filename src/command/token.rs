//! token: making, listing and revoking what callers of the HTTP API show.

use std::io::{self, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{CommandError, Host, ledger_place, load, open_ledger, print_json, print_text};
use crate::cli::{Global, TokenAction};
use crate::config::secrets::LedgerPlace;
use crate::exit::Exit;
use crate::model::{Sha256Hash, visible};
use crate::record::{Absence, Ledger, TokenRow, TokenScope};
use crate::report::csv::time;

/// Before every token, so that a scanner for leaked secrets knows one.
const MARK: &str = "osw_";
/// Where the operating system gives random bytes.
const RANDOM: &str = "/dev/urandom";
/// Longest name of a token.
const LONGEST_NAME: usize = 100;

pub(super) async fn token(global: &Global, host: &Host, action: TokenAction) -> Result<Exit, CommandError> {
    match action {
        TokenAction::Create { name, scope } => create(global, host, &name, &scope).await,
        TokenAction::List => list(global, host).await,
        TokenAction::Revoke { name } => revoke(global, host, &name).await,
    }
}

async fn create(global: &Global, host: &Host, name: &str, scope: &str) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let scope = TokenScope::named(scope).ok_or_else(|| {
        CommandError::usage(format!("`{}` is no scope of a token", visible(scope)), "write read, approve or delete")
    })?;
    if name.trim().is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(CommandError::usage(
            "a token needs a name of one line, of 100 bytes at most",
            "write who or what uses it: --name NAME",
        ));
    }
    let token = new_token().map_err(|error| CommandError {
        message: format!("`{RANDOM}` could not be read: {error}"),
        hint: None,
        exit: Exit::Failed,
    })?;
    let now = host.clock.now();
    // A token may come before the first audit.
    let place = ledger_place(&config, host)?;
    if let LedgerPlace::File(path) = &place {
        Ledger::prepare_folder(path)?;
    }
    let ledger = Ledger::open(&place, Absence::Make, now).await?;
    if !ledger.create_token(name, scope, Sha256Hash::of(token.as_bytes()), now).await? {
        return Err(CommandError::usage(
            format!("there is a token `{}` already", visible(name)),
            format!("write another name, or revoke it with `orphan-sweeper token revoke {}`", visible(name)),
        ));
    }
    if global.json {
        print_json(&json!({ "name": name, "scope": scope, "token": token }));
    } else {
        print_text(&format!("{token}\n"));
    }
    Ok(Exit::Done)
}

/// A new token: 256 bits of the operating system's.
pub(super) fn new_token() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

async fn list(global: &Global, host: &Host) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let tokens = open_ledger(&config, host).await?.tokens().await?;
    if global.json {
        print_json(&Value::Array(tokens.iter().map(document).collect()));
        return Ok(Exit::Done);
    }
    if tokens.is_empty() {
        print_text("No token yet. Make one: orphan-sweeper token create --name NAME --scope read\n");
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["name", "scope", "created", "last used", "revoked"]);
    let moment = |moment: Option<_>, never: &str| moment.map_or_else(|| never.to_owned(), time);
    for token in &tokens {
        table.add_row([
            visible(&token.name),
            token.scope.to_string(),
            time(token.created_at),
            moment(token.last_used_at, "never"),
            moment(token.revoked_at, ""),
        ]);
    }
    print_text(&format!("{table}\n"));
    Ok(Exit::Done)
}

fn document(token: &TokenRow) -> Value {
    json!({
        "name": token.name, "scope": token.scope, "created_at": token.created_at, "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at
    })
}

async fn revoke(global: &Global, host: &Host, name: &str) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let now = host.clock.now();
    if !open_ledger(&config, host).await?.revoke_token(name, now).await? {
        return Err(CommandError::usage(
            format!("there is no token `{}` to revoke", visible(name)),
            "`orphan-sweeper token list` shows them",
        ));
    }
    if global.json {
        print_json(&json!({ "name": name, "revoked_at": now }));
    } else {
        print_text(&format!("The token {} counts no longer.\n", visible(name)));
    }
    Ok(Exit::Done)
}
