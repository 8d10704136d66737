//! What the operator wrote: secrets, addresses, schedules. Nothing is sent.
//!
//! Invariant: a check says where a secret comes from and never what it is.

use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::board::Check;
use crate::config::secrets::{self, DatabaseUrl, SecretError};
use crate::config::{Approval, Config, CredentialFiles, ScheduledCommand, Scope, Variables};
use crate::model::Timestamp;
use crate::run::failure::chain;

/// What is said of a configuration that could be loaded.
pub(super) fn configuration(config: &Config, chosen: &[&Scope]) -> Check {
    let names: Vec<&str> = chosen.iter().map(|scope| scope.name.as_str()).collect();
    let others = config.scopes.len() - chosen.len();
    let others = if others == 0 { String::new() } else { format!(", and {others} more not looked at") };
    Check::ok("configuration", format!("without a problem; scope {}{others}", names.join(", ")))
}

/// The credentials of the store.
pub(super) fn credentials(config: &Config, variables: &Variables) -> Vec<Check> {
    let read = match secrets::store(config, variables) {
        Ok(pair) => {
            let session = if pair.session_token.is_some() { ", temporary" } else { "" };
            let source = source_of(&config.store.credentials, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
            Check::ok("store_credentials", format!("present, from {source}{session}"))
        }
        Err(error) => missing("store_credentials", &error),
    };
    let delete = match secrets::store_for_deletion(config, variables) {
        Err(_) if secrets::store(config, variables).is_err() => return vec![read],
        Err(error) => missing("delete_credentials", &error),
        Ok(_) if !has_second_pair(config, variables) => {
            Check::ok("delete_credentials", "none of their own: the same pair reads and deletes")
        }
        Ok(_) => {
            let names = "ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID and ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY";
            let source = source_of(&config.store.delete_credentials, names);
            Check::ok("delete_credentials", format!("a pair of their own, from {source}"))
        }
    };
    vec![read, delete]
}

fn has_second_pair(config: &Config, variables: &Variables) -> bool {
    let is_set = |name: &str| variables.get(name).is_some_and(|value| !value.is_empty());
    config.store.delete_credentials.access_key.is_some() || is_set("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID")
}

fn source_of(files: &CredentialFiles, variables: &str) -> String {
    match (&files.access_key, &files.secret_key) {
        (Some(access_key), Some(secret_key)) => format!("`{}` and `{}`", access_key.display(), secret_key.display()),
        _ => variables.to_owned(),
    }
}

/// Every message of a [`SecretError`] says what to set, after a semicolon where it says what is wrong first.
pub(super) fn missing(name: &'static str, error: &SecretError) -> Check {
    let said = chain(error);
    match said.split_once("; ") {
        Some((wrong, set)) => Check::misconfigured(name, wrong, set),
        None => Check::misconfigured(name, said, "check the file and its rights"),
    }
}

/// A warning about an address says what is wrong, and after a semicolon what to set.
pub(super) fn warned(name: &'static str, warning: &str) -> Check {
    let (wrong, set) = warning.split_once("; ").unwrap_or((warning, "verify its certificate"));
    Check::warn(name, wrong, set)
}

/// The database's address, with the check on it.
pub(super) fn database(config: &Config, variables: &Variables) -> (Option<DatabaseUrl>, Vec<Check>) {
    let url = match secrets::database(config, variables) {
        Ok(url) => url,
        Err(error) => return (None, vec![missing("database_address", &error)]),
    };
    let password = Url::parse(url.url.expose_secret()).ok().and_then(|url| url.password().map(|_| ", with a password"));
    let mut checks = vec![Check::ok("database_address", format!("{}{}", url.shown, password.unwrap_or_default()))];
    checks.extend(url.warning.as_deref().map(|warning| warned("database_tls", warning)));
    (Some(url), checks)
}

/// Whether the way to the store can be read along.
pub(super) fn endpoint(endpoint: &Url) -> Check {
    const NAME: &str = "store_endpoint";
    let is_here = match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if endpoint.scheme() == "https" {
        return Check::ok(NAME, format!("{endpoint}, over TLS"));
    }
    if is_here {
        return Check::ok(NAME, format!("{endpoint}, on this host"));
    }
    Check::warn(
        NAME,
        format!("{endpoint} is plain http: keys and listings can be read and changed on their way"),
        "use https, with `store.ca_file` for a private certificate authority",
    )
}

/// Who is told of runs. Nobody is told now.
pub(super) fn notifications(config: &Config, variables: &Variables) -> Vec<Check> {
    let addresses = [
        ("notify_webhook", secrets::webhook(config, variables)),
        ("notify_heartbeat", secrets::heartbeat(config, variables)),
    ];
    let check = |(name, address): (&'static str, Result<Option<_>, SecretError>)| match address {
        Ok(Some(_)) => Check::ok(name, "an address is set; it is not called now"),
        Ok(None) => Check::ok(name, "none: nobody is told"),
        Err(error) => missing(name, &error),
    };
    addresses.map(check).into()
}

/// When `serve` runs a scope next.
pub(super) fn schedule(scope: &Scope, now: Timestamp) -> Check {
    const NAME: &str = "schedule";
    let Some(schedule) = &scope.schedule else {
        return Check::ok(NAME, "none: it runs when somebody types a command");
    };
    let zone = schedule.timezone;
    let next: Vec<String> = schedule
        .cron
        .iter_after(now.with_timezone(&zone))
        .take(3)
        .map(|occurrence| occurrence.format("%Y-%m-%d %H:%M %Z").to_string())
        .collect();
    if next.is_empty() {
        return Check::warn(NAME, "its cron expression never comes", "correct `scope.schedule.cron`");
    }
    let what = match (schedule.command, scope.policy.approval) {
        (ScheduledCommand::Audit, _) => "audit",
        (ScheduledCommand::Sweep, Approval::Required) => "sweep, which only plans: approval is required",
        (ScheduledCommand::Sweep, Approval::Automatic) => "sweep, which deletes: approval is automatic",
    };
    Check::ok(NAME, format!("{what}; next {}", next.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::board::State;
    use super::*;
    use crate::config::parse;

    fn example(extra: &str) -> Config {
        let text = format!(
            "[store]\nendpoint = \"http://127.0.0.1:9000\"\n[[scope]]\nname = \"a\"\nbucket = \"b\"\nprefix = \"p/\"\npatterns = [\"p/{{id}}/\"]\n\
             [[scope.live]]\ntable = \"s.t\"\n{extra}"
        );
        parse(&text, Path::new("/nowhere/config.toml"), &Variables::new()).expect("a configuration")
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn plain_http_is_a_warning_off_this_host_only() {
        for (address, state) in [
            ("https://store.example", State::Ok),
            ("http://127.0.0.1:9000", State::Ok),
            ("http://[::1]:9000", State::Ok),
            ("http://localhost:9000", State::Ok),
            ("http://localhost.example", State::Warn),
            ("http://10.0.0.1:9000", State::Warn),
        ] {
            assert_eq!(endpoint(&Url::parse(address).expect("a url")).state, state, "{address}");
        }
    }

    #[test]
    fn secrets_are_told_by_their_source_and_never_shown() {
        let config = example("");
        let set = variables(&[
            ("AWS_ACCESS_KEY_ID", "canary-1"),
            ("AWS_SECRET_ACCESS_KEY", "canary-2"),
            ("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", "canary-3"),
            ("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", "canary-4"),
            ("ORPHAN_SWEEPER_DATABASE_URL", "postgres://canary-5:canary-6@db.example/name?options=canary-7"),
        ]);
        let mut checks = credentials(&config, &set);
        checks.extend(database(&config, &set).1);
        let shown = format!("{checks:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("a pair of their own"), "{shown}");
        assert_eq!(checks.iter().filter(|check| check.state == State::Warn).count(), 1, "TLS is not verified: {shown}");
    }

    #[test]
    fn a_missing_secret_says_what_to_set() {
        let config = example("");
        let checks = credentials(&config, &Variables::new());
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert_eq!(checks[0].state, State::Fail);
        assert!(checks[0].hint.as_deref().is_some_and(|hint| hint.contains("AWS_ACCESS_KEY_ID")), "{checks:?}");
        let (url, checks) = database(&config, &Variables::new());
        assert!(url.is_none());
        assert!(
            checks[0].hint.as_deref().is_some_and(|hint| hint.contains("ORPHAN_SWEEPER_DATABASE_URL")),
            "{checks:?}"
        );
    }

    #[test]
    fn the_next_occurrences_stand_in_the_zone_of_the_schedule() {
        let config =
            example("[scope.schedule]\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\ncommand = \"sweep\"\n");
        let check = schedule(&config.scopes[0], "2026-03-28T00:00:00Z".parse().expect("a time"));
        assert_eq!(
            check.detail,
            "sweep, which only plans: approval is required; next 2026-03-28 02:30 CET, 2026-03-29 03:00 CEST, 2026-03-30 02:30 CEST"
        );
        assert_eq!(schedule(&example("").scopes[0], Timestamp::UNIX_EPOCH).state, State::Ok);
    }
}
