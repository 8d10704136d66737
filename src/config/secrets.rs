//! Credentials: read from files or the environment anew for each run, and shown to nobody.
//!
//! Invariant: a secret is held in a [`SecretString`], whose `Debug` hides it, and no message repeats one.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::{Config, CredentialFiles, LedgerSource, Purge, Scope, Selftest, Variables};

/// The variable with the address of the ledger's database.
pub const LEDGER_VARIABLE: &str = "ORPHAN_SWEEPER_LEDGER_URL";

/// The variable with the address of the role that removes rows of the platform.
pub const PURGE_VARIABLE: &str = "ORPHAN_SWEEPER_PURGE_DATABASE_URL";

/// The variable with the address of the role that inserts the rows of a self-test.
pub const SELFTEST_VARIABLE: &str = "ORPHAN_SWEEPER_SELFTEST_DATABASE_URL";

/// A pair of store credentials.
#[derive(Debug, Clone)]
pub struct StoreCredentials {
    /// The access key.
    pub access_key: SecretString,
    /// The secret key.
    pub secret_key: SecretString,
    /// The session token of temporary credentials.
    pub session_token: Option<SecretString>,
}

/// Where the ledger is kept, with the secret that leads there.
#[derive(Debug, Clone)]
pub enum LedgerPlace {
    /// A file.
    File(PathBuf),
    /// A Postgres database.
    Database(DatabaseUrl),
}

impl LedgerPlace {
    /// The place, to show: no user, no password.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Database(url) => url.shown.clone(),
        }
    }
}

/// The database's address, with its password.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    /// The address as given.
    pub url: SecretString,
    /// Which of the two backends it names.
    pub backend: Backend,
    /// The address without user, password and options, to show.
    pub shown: String,
    /// What an operator should set, where the connection could be read or redirected on its way.
    pub warning: Option<String>,
}

impl DatabaseUrl {
    /// Whether the database is on this host by its address alone: no name is looked up.
    pub fn is_on_this_host(&self) -> bool {
        match self.backend {
            Backend::Sqlite => true,
            Backend::Postgres => PgConnectOptions::from_str(self.url.expose_secret())
                .is_ok_and(|options| options.get_socket().is_some() || is_this_host(options.get_host())),
        }
    }

    /// The role that connects.
    pub fn role(&self) -> String {
        let options = PgConnectOptions::from_str(self.url.expose_secret()).ok();
        options.map(|options| options.get_username().to_owned()).unwrap_or_default()
    }
}

/// The kinds of database that can hold the live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `postgres://…`
    Postgres,
    /// `sqlite://…`
    Sqlite,
}

/// Why a secret is not to be had. Every message says what to set.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nothing has it.
    #[error("{0}")]
    Missing(&'static str),
    /// The file cannot be read. It is named by its key: a secret that was written where its path belongs is not repeated.
    #[error("failed to read the file that `{key}` names")]
    Unreadable {
        /// The configuration's key.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the file that `{0}` names is empty; write the secret into it")]
    Empty(&'static str),
    /// Two places differ.
    #[error("{0} and {1} name different addresses; keep one")]
    Differ(&'static str, &'static str),
    /// The address is none.
    #[error("the database's address from {0} {1}; write `postgres://user:password@host:5432/name` or `sqlite:///path`")]
    BadUrl(&'static str, &'static str),
    /// The address of the ledger's database is none.
    #[error(
        "the ledger's address from {0} {1}; write `postgres://user:password@host:5432/name`, or a file into `ledger.path`"
    )]
    BadLedgerUrl(&'static str, &'static str),
    /// The address of a webhook is none.
    #[error("the address from {0} {1}; write `https://host/path`")]
    BadWebhook(&'static str, &'static str),
}

/// The credentials that list and read.
///
/// - Source: `store.access_key_file` and `store.secret_key_file`, else `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`
///   and `AWS_SESSION_TOKEN`.
pub fn store(config: &Config, variables: &Variables) -> Result<StoreCredentials, SecretError> {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let keys = ["store.access_key_file", "store.secret_key_file"];
    credentials(&config.store.credentials, keys, variables, names)?.ok_or(SecretError::Missing(
        "no credentials for the store; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `store.access_key_file` and `store.secret_key_file`",
    ))
}

/// The credentials that delete: the second pair where one is given, else the first.
///
/// - Source: `[store.delete]`, else `ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID` and `ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY`.
pub fn store_for_deletion(config: &Config, variables: &Variables) -> Result<StoreCredentials, SecretError> {
    let names = [
        "ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID",
        "ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY",
        "ORPHAN_SWEEPER_DELETE_SESSION_TOKEN",
    ];
    let keys = ["store.delete.access_key_file", "store.delete.secret_key_file"];
    match credentials(&config.store.delete_credentials, keys, variables, names)? {
        Some(pair) => Ok(pair),
        None => store(config, variables),
    }
}

/// The credentials that put the objects of a self-test: a pair of their own where one is given, else the pair that deletes.
///
/// - Source: `[scope.selftest]`, else `ORPHAN_SWEEPER_SELFTEST_ACCESS_KEY_ID` and `ORPHAN_SWEEPER_SELFTEST_SECRET_ACCESS_KEY`.
pub fn store_for_selftest(
    config: &Config,
    scope: &Scope,
    variables: &Variables,
) -> Result<StoreCredentials, SecretError> {
    let names = [
        "ORPHAN_SWEEPER_SELFTEST_ACCESS_KEY_ID",
        "ORPHAN_SWEEPER_SELFTEST_SECRET_ACCESS_KEY",
        "ORPHAN_SWEEPER_SELFTEST_SESSION_TOKEN",
    ];
    let keys = ["scope.selftest.access_key_file", "scope.selftest.secret_key_file"];
    match credentials(&scope.selftest.credentials, keys, variables, names)? {
        Some(pair) => Ok(pair),
        None => store_for_deletion(config, variables),
    }
}

fn credentials(
    files: &CredentialFiles,
    keys: [&'static str; 2],
    variables: &Variables,
    names: [&str; 3],
) -> Result<Option<StoreCredentials>, SecretError> {
    if let (Some(access_key), Some(secret_key)) = (&files.access_key, &files.secret_key) {
        let (access_key, secret_key) = (read_file(keys[0], access_key)?, read_file(keys[1], secret_key)?);
        return Ok(Some(StoreCredentials { access_key, secret_key, session_token: None }));
    }
    let variable = |name: &str| {
        variables.get(name).filter(|value| !value.is_empty()).map(|value| SecretString::from(value.as_str()))
    };
    let [access_key, secret_key, session_token] = names.map(variable);
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => Ok(Some(StoreCredentials { access_key, secret_key, session_token })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(SecretError::Missing(
            "only one of the two store credential variables is set; set the access key and the secret key",
        )),
    }
}

fn read_file(key: &'static str, path: &Path) -> Result<SecretString, SecretError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretError::Unreadable { key, source })?;
    match text.trim() {
        "" => Err(SecretError::Empty(key)),
        secret => Ok(SecretString::from(secret)),
    }
}

/// The database's address.
///
/// - Source: `ORPHAN_SWEEPER_DATABASE_URL`, `database.url_file`, `DATABASE_URL`. Two that differ are an error.
pub fn database(config: &Config, variables: &Variables) -> Result<DatabaseUrl, SecretError> {
    let url_file = config.database.url_file.as_deref();
    let candidates = [
        ("ORPHAN_SWEEPER_DATABASE_URL", variable(variables, "ORPHAN_SWEEPER_DATABASE_URL")),
        ("database.url_file", url_file.map(|path| read_file("database.url_file", path)).transpose()?),
        ("DATABASE_URL", variable(variables, "DATABASE_URL")),
    ];
    let (name, url) = only_one(candidates)?.ok_or(SecretError::Missing(
        "no database; set ORPHAN_SWEEPER_DATABASE_URL, or `database.url_file`, to `postgres://…` or `sqlite://…`",
    ))?;
    read_database_url(name, url)
}

/// The address of the role that removes rows of the platform; `None` where nothing gives it.
///
/// - Source: `ORPHAN_SWEEPER_PURGE_DATABASE_URL`, `scope.purge.url_file`. Two that differ are an error.
pub fn purge(purge: &Purge, variables: &Variables) -> Result<Option<DatabaseUrl>, SecretError> {
    let url_file = purge.url_file.as_deref();
    let candidates = [
        (PURGE_VARIABLE, variable(variables, PURGE_VARIABLE)),
        ("scope.purge.url_file", url_file.map(|path| read_file("scope.purge.url_file", path)).transpose()?),
        ("", None),
    ];
    let Some((name, url)) = only_one(candidates)? else { return Ok(None) };
    platform_url(name, url).map(Some)
}

/// The address of the role that inserts the rows of a self-test; `None` where nothing gives it, and the role of the purge inserts.
///
/// - Source: `ORPHAN_SWEEPER_SELFTEST_DATABASE_URL`, `scope.selftest.url_file`. Two that differ are an error.
pub fn selftest(selftest: &Selftest, variables: &Variables) -> Result<Option<DatabaseUrl>, SecretError> {
    let url_file = selftest.url_file.as_deref();
    let candidates = [
        (SELFTEST_VARIABLE, variable(variables, SELFTEST_VARIABLE)),
        ("scope.selftest.url_file", url_file.map(|path| read_file("scope.selftest.url_file", path)).transpose()?),
        ("", None),
    ];
    let Some((name, url)) = only_one(candidates)? else { return Ok(None) };
    platform_url(name, url).map(Some)
}

/// Reads an address of the platform's database by a role that changes it.
fn platform_url(name: &'static str, url: SecretString) -> Result<DatabaseUrl, SecretError> {
    let read = read_database_url(name, url)?;
    if read.backend != Backend::Postgres {
        return Err(SecretError::BadUrl(name, "is not postgres, whose rows alone can be purged"));
    }
    Ok(read)
}

/// Where the ledger is kept.
///
/// - Source: `ledger.path`; or `ORPHAN_SWEEPER_LEDGER_URL`, `ledger.url_file`, `ledger.url`. Two addresses that differ are an
///   error.
pub fn ledger(config: &Config, variables: &Variables) -> Result<LedgerPlace, SecretError> {
    let (url, url_file) = match &config.ledger {
        LedgerSource::File(path) => return Ok(LedgerPlace::File(path.clone())),
        LedgerSource::Database { url, url_file } => (url, url_file.as_deref()),
    };
    let candidates = [
        (LEDGER_VARIABLE, variable(variables, LEDGER_VARIABLE)),
        ("ledger.url_file", url_file.map(|path| read_file("ledger.url_file", path)).transpose()?),
        ("ledger.url", url.clone()),
    ];
    let (name, url) = only_one(candidates)?
        .ok_or(SecretError::Missing("no address of the ledger's database; set ORPHAN_SWEEPER_LEDGER_URL"))?;
    let read = read_database_url(name, url).map_err(|error| match error {
        SecretError::BadUrl(name, wrong) => SecretError::BadLedgerUrl(name, wrong),
        error => error,
    })?;
    if read.backend != Backend::Postgres {
        return Err(SecretError::BadLedgerUrl(name, "is not postgres"));
    }
    let warning = read.warning.as_ref().map(|_| {
        format!("the ledger at `{}` is reached without verified TLS: whoever answers in its place can forge plans and sightings; add `?sslmode=verify-full&sslrootcert=/path/ca.pem` to its address", read.shown)
    });
    Ok(LedgerPlace::Database(DatabaseUrl { warning, ..read }))
}

/// The address that messages about runs go to; `None`: nobody wants to be told.
///
/// - Source: `ORPHAN_SWEEPER_NOTIFY_URL`, `notify.url_file`. Two that differ are an error.
pub fn webhook(config: &Config, variables: &Variables) -> Result<Option<SecretString>, SecretError> {
    let names = ("ORPHAN_SWEEPER_NOTIFY_URL", "notify.url_file");
    web_address(variables, names, config.notify.url_file.as_deref())
}

/// The address that is called after every successful run; `None`: there is none.
///
/// - Source: `ORPHAN_SWEEPER_HEARTBEAT_URL`, `notify.heartbeat_url_file`. Two that differ are an error.
pub fn heartbeat(config: &Config, variables: &Variables) -> Result<Option<SecretString>, SecretError> {
    let names = ("ORPHAN_SWEEPER_HEARTBEAT_URL", "notify.heartbeat_url_file");
    web_address(variables, names, config.notify.heartbeat_url_file.as_deref())
}

fn web_address(
    variables: &Variables,
    (name, key): (&'static str, &'static str),
    file: Option<&Path>,
) -> Result<Option<SecretString>, SecretError> {
    let candidates =
        [(name, variable(variables, name)), (key, file.map(|path| read_file(key, path)).transpose()?), (key, None)];
    let Some((from, address)) = only_one(candidates)? else { return Ok(None) };
    let is_address = Url::parse(address.expose_secret())
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    if is_address { Ok(Some(address)) } else { Err(SecretError::BadWebhook(from, "is no http or https address")) }
}

fn variable(variables: &Variables, name: &str) -> Option<SecretString> {
    variables.get(name).filter(|value| !value.is_empty()).map(|value| SecretString::from(value.trim()))
}

/// The one address among several places.
fn only_one(
    candidates: [(&'static str, Option<SecretString>); 3],
) -> Result<Option<(&'static str, SecretString)>, SecretError> {
    let mut found: Option<(&'static str, SecretString)> = None;
    for (name, candidate) in candidates {
        let Some(url) = candidate else { continue };
        match &found {
            Some((earlier, first)) if first.expose_secret() != url.expose_secret() => {
                return Err(SecretError::Differ(earlier, name));
            }
            Some(_) => {}
            None => found = Some((name, url)),
        }
    }
    Ok(found)
}

fn read_database_url(name: &'static str, url: SecretString) -> Result<DatabaseUrl, SecretError> {
    let text = url.expose_secret();
    let Some((scheme, rest)) = text.split_once(':') else { return Err(SecretError::BadUrl(name, "has no scheme")) };
    match scheme {
        "sqlite" => {
            let path = rest.trim_start_matches("//").split('?').next().unwrap_or_default();
            let shown = format!("sqlite://{path}");
            Ok(DatabaseUrl { url, backend: Backend::Sqlite, shown, warning: None })
        }
        "postgres" | "postgresql" => {
            let parsed = Url::parse(text).map_err(|_| SecretError::BadUrl(name, "cannot be read"))?;
            if has_stray_password(&parsed) {
                return Err(SecretError::BadUrl(
                    name,
                    "has a `/`, `?`, `#` or `@` in its password that is not percent-encoded",
                ));
            }
            // What the client makes of it, options and PG* variables included: where it will really connect.
            let options = PgConnectOptions::from_str(text)
                .map_err(|_| SecretError::BadUrl(name, "has an option that cannot be read"))?;
            let socket = options.get_socket().map(|socket| socket.display().to_string());
            let is_here = socket.is_some() || is_this_host(options.get_host());
            let host = socket.unwrap_or_else(|| options.get_host().to_owned());
            let is_verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
            let warning = (!is_here && !is_verified).then(|| {
                format!("the database on `{host}` is reached without verified TLS: whoever answers in its place can make every dataset look orphaned; add `?sslmode=verify-full&sslrootcert=/path/ca.pem` to its address")
            });
            let database = options.get_database().map(|database| format!("/{database}")).unwrap_or_default();
            let shown = format!("postgres://{host}:{}{database}", options.get_port());
            Ok(DatabaseUrl { url, backend: Backend::Postgres, shown, warning })
        }
        _ => Err(SecretError::BadUrl(name, "is neither postgres nor sqlite")),
    }
}

/// What an operator should know where one role reads the live rows and writes the ledger.
pub fn shared_role(ledger: &DatabaseUrl, live: &DatabaseUrl) -> Option<String> {
    if live.backend != Backend::Postgres || ledger.shown != live.shown {
        return None;
    }
    (ledger.role() == live.role()).then(|| {
        format!("the ledger in `{}` is written by the role that reads the live rows there; give it a role of its own, so that the reading one can write nothing", ledger.shown)
    })
}

/// Whether an unescaped character cut the password, whose rest then reads as another part of the address.
fn has_stray_password(url: &Url) -> bool {
    url.path().contains('@') || url.fragment().is_some() || url.query_pairs().any(|(key, _)| key.contains('@'))
}

/// Whether a host is this one, so that nobody stands between.
pub fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.is_empty()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}
