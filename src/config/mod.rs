//! configure: the file and the environment in, a [`Config`] as meant out.
//!
//! Invariant: a [`Config`] exists only where nothing was wrong; otherwise every problem is reported at once, each with
//! its place and what to write instead.

mod holds;
mod notify;
mod purge;
mod quarantine;
mod reader;
mod scope;
pub mod secrets;
mod selftest;
mod serve;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

pub use holds::HoldsSource;
pub use notify::{Event, Format, Notify};
pub use purge::Purge;
pub use reader::parse_size;
use reader::{Placed, Problems, Reader};
use scope::Claim;
pub use scope::{Approval, Disposal, Limits, LiveTable, Policy, Schedule, ScheduledCommand, Scope, TableName, quote};
pub use selftest::{ScratchStatements, Selftest};
pub use serve::Serve;
pub use tree::Problem;

/// A second, in [`Duration`]s that are written in days.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The environment variables of the process, handed in so that a test or the demo can give its own.
pub type Variables = BTreeMap<String, String>;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The object store.
    pub store: Store,
    /// Where the database's address comes from.
    pub database: Database,
    /// Where the ledger is kept.
    pub ledger: LedgerSource,
    /// Folder of the reports. Source: `reports.directory`.
    pub reports_directory: PathBuf,
    /// How long reports, and what the ledger remembers of them, are kept. Source: `reports.keep`.
    pub reports_keep: Duration,
    /// While this file exists, no delete request is sent. Source: `deletion.stop_file`.
    pub stop_file: PathBuf,
    /// Who is told of runs.
    pub notify: Notify,
    /// The HTTP API of `serve`.
    pub serve: Serve,
    /// The audits, in the order of the file.
    pub scopes: Vec<Scope>,
}

/// The object store. Source: `[store]`.
#[derive(Debug, Clone)]
pub struct Store {
    /// The address; never taken from the ambient AWS configuration.
    pub endpoint: Url,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket stands in the path rather than in the host name.
    pub path_style: bool,
    /// A private certificate authority.
    pub ca_file: Option<PathBuf>,
    /// Files with the credentials; where absent, the environment has them.
    pub credentials: CredentialFiles,
    /// Files with the credentials that only deletion uses.
    pub delete_credentials: CredentialFiles,
}

/// Where a pair of credentials is kept.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    /// `access_key_file`.
    pub access_key: Option<PathBuf>,
    /// `secret_key_file`.
    pub secret_key: Option<PathBuf>,
}

/// Where the database's address comes from. Source: `[database]`.
#[derive(Debug, Clone, Default)]
pub struct Database {
    /// `url_file`; where absent, the environment has the address.
    pub url_file: Option<PathBuf>,
}

/// Where the ledger is kept. Source: `[ledger]` and `ORPHAN_SWEEPER_LEDGER_URL`.
#[derive(Debug, Clone)]
pub enum LedgerSource {
    /// A file, which one machine uses. Source: `ledger.path`.
    File(PathBuf),
    /// A Postgres database, which several machines share.
    Database {
        /// The address, where it stands in the file. Source: `ledger.url`.
        url: Option<SecretString>,
        /// A file with the address. Source: `ledger.url_file`.
        url_file: Option<PathBuf>,
    },
}

impl LedgerSource {
    /// The ledger's file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Database { .. } => None,
        }
    }

    /// The folder of the ledger's file, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        self.file().map(|path| path.parent().unwrap_or(Path::new(".")))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// None of the places has one.
    #[error("no configuration found at {0}")]
    NotFound(String),
    /// The file cannot be read.
    #[error("failed to read the configuration `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that cannot be meant.
    #[error("the configuration `{path}` has {} problem(s):\n{}", .problems.len(), list(.problems))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Each with its place.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// Finds and loads the configuration: `--config`, `ORPHAN_SWEEPER_CONFIG`, `./config.toml`,
/// `/etc/orphan-sweeper/config.toml`, in this order.
///
/// - Errors: [`ConfigError`]; a place that was named must exist.
pub fn load(flag: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let variable = variables.get("ORPHAN_SWEEPER_CONFIG").filter(|path| !path.is_empty());
    let named = flag.map(Path::to_path_buf).or_else(|| variable.map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None => ["config.toml", "/etc/orphan-sweeper/config.toml"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| ConfigError::NotFound("`./config.toml` or `/etc/orphan-sweeper/config.toml`".into()))?,
    };
    let text =
        std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    // The ledger remembers where plans lie, and the next command may start in another folder.
    let path = std::path::absolute(&path).unwrap_or(path);
    parse(&text, &path, variables)
}

/// Reads a configuration from its text; relative paths in it resolve against the folder of `path`.
///
/// - Errors: [`ConfigError::Wrong`] with every problem.
pub fn parse(text: &str, path: &Path, variables: &Variables) -> Result<Config, ConfigError> {
    let (mut root, syntax) = tree::parse(text);
    let wrong = |problems| ConfigError::Wrong { path: path.to_path_buf(), problems };
    if !syntax.is_empty() {
        return Err(wrong(syntax));
    }
    let problems = Problems::default();
    problems.extend(tree::apply_overrides(&mut root, variables));
    let config = read(Reader::new(root, String::new(), &problems), path, variables, &problems);
    let problems = problems.into_vec();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(wrong(problems)),
    }
}

fn read(mut root: Reader<'_>, path: &Path, variables: &Variables, problems: &Problems) -> Option<Config> {
    let parent = path.parent().unwrap_or(Path::new("")).to_path_buf();
    // Absolute, so that a plan or a report is found from any other working directory.
    let folder = Folder(
        std::path::absolute(if parent.as_os_str().is_empty() { Path::new(".") } else { &parent })
            .unwrap_or(parent.clone()),
    );
    let store = read_store(root.table("store"), &folder);

    let mut table = root.table("database");
    let database = Database { url_file: folder.file(table.text("url_file", "the path of a file with the address")) };
    table.finish();

    let ledger = read_ledger(root.table("ledger"), &folder, variables);

    let mut table = root.table("reports");
    let reports_directory = folder.file_or(table.text("directory", "the path of a folder"), "reports");
    let reports_keep = table.duration("keep", DAY * 400).value;
    table.finish();

    let mut table = root.table("deletion");
    let stop_file = folder.file_or(table.text("stop_file", "the path of a file"), "reports/STOP");
    table.finish();

    let notify = notify::read(root.table("notify"), &folder, problems);
    let serve = serve::read(root.table("serve"));
    let scopes = read_scopes(&mut root, &folder, problems);
    root.finish();
    Some(Config {
        store: store?,
        database,
        ledger,
        reports_directory,
        reports_keep,
        stop_file,
        notify,
        serve,
        scopes: scopes?,
    })
}

/// The folder of the configuration file, which relative paths resolve against.
struct Folder(PathBuf);

impl Folder {
    fn file(&self, written: Option<Placed<String>>) -> Option<PathBuf> {
        written.map(|placed| self.0.join(placed.value))
    }

    fn file_or(&self, written: Option<Placed<String>>, default: &str) -> PathBuf {
        self.file(written).unwrap_or_else(|| self.0.join(default))
    }
}

/// Reads where the ledger is kept. An address may hold a password, so nothing that is said repeats one.
fn read_ledger(mut table: Reader<'_>, folder: &Folder, variables: &Variables) -> LedgerSource {
    let path = table.text("path", "the path of a file");
    let url = table.text("url", "an address, `postgres://user@host:5432/name`");
    let url_file = table.text("url_file", "the path of a file with the address");
    let variable = variables.get(secrets::LEDGER_VARIABLE).filter(|value| !value.trim().is_empty());
    let named = url.as_ref().map(|_| "`ledger.url`").or(url_file.as_ref().map(|_| "`ledger.url_file`"));
    let other = named.or(variable.map(|_| secrets::LEDGER_VARIABLE));
    if let (Some(path), Some(other)) = (&path, other) {
        let message = format!(
            "names a file, and {other} a database; remove `path` where several machines share a ledger, or the address where one has its own"
        );
        table.wrong(path, message);
    }
    if let (Some(url), Some(_)) = (&url, &url_file) {
        table.wrong(url, "stands beside `url_file`; keep one");
    }
    table.finish();
    if other.is_some() {
        let url = url.map(|placed| SecretString::from(placed.value));
        return LedgerSource::Database { url, url_file: folder.file(url_file) };
    }
    LedgerSource::File(folder.file_or(path, "reports/ledger.sqlite3"))
}

fn read_store(mut table: Reader<'_>, folder: &Folder) -> Option<Store> {
    const ENDPOINT: &str = "the store's address, such as \"http://127.0.0.1:9000\"";
    let endpoint = table.required_text("endpoint", ENDPOINT).and_then(|placed| match read_endpoint(&placed.value) {
        Ok(url) => Some(url),
        Err(wrong) => {
            table.wrong(&placed, format!("{wrong}; write {ENDPOINT}"));
            None
        }
    });
    let region =
        table.text("region", "a region, such as \"us-east-1\"").map_or("us-east-1".into(), |placed| placed.value);
    let path_style = table.boolean("path_style", true);
    let ca_file = folder.file(table.text("ca_file", "the path of a PEM file"));
    let credentials = read_credential_files(&mut table, folder);
    let mut delete = table.table("delete");
    let delete_credentials = read_credential_files(&mut delete, folder);
    delete.finish();
    table.finish();
    Some(Store { endpoint: endpoint?, region, path_style, ca_file, credentials, delete_credentials })
}

fn read_credential_files(table: &mut Reader<'_>, folder: &Folder) -> CredentialFiles {
    let is_whole = table.has("access_key_file") == table.has("secret_key_file");
    let access_key = table.text("access_key_file", "the path of a file with the access key");
    let secret_key = table.text("secret_key_file", "the path of a file with the secret key");
    if let Some(only) = access_key.as_ref().xor(secret_key.as_ref())
        && !is_whole
    {
        table.wrong(only, "stands alone; write both `access_key_file` and `secret_key_file`");
    }
    CredentialFiles { access_key: folder.file(access_key), secret_key: folder.file(secret_key) }
}

/// Reads the store's address. What is wrong is said without repeating it: it may hold a password.
fn read_endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no address ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("is no http or https address".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials, which belong into the environment or files".into());
    }
    if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return Err("has more than scheme, host and port".into());
    }
    Ok(url)
}

fn read_scopes(root: &mut Reader<'_>, folder: &Folder, problems: &Problems) -> Option<Vec<Scope>> {
    let readers = root.tables("scope", "write at least one `[[scope]]`");
    let expected = readers.len();
    let (claims, scopes): (Vec<_>, Vec<_>) =
        readers.into_iter().map(|reader| scope::read(reader, folder, problems)).unzip();
    for (index, later) in claims.iter().enumerate() {
        for earlier in &claims[..index] {
            check_pair(earlier, later, problems);
        }
    }
    for claim in &claims {
        quarantine::check(claim, &claims, problems);
    }
    let scopes: Vec<Scope> = scopes.into_iter().flatten().collect();
    (scopes.len() == expected && expected > 0).then_some(scopes)
}

fn check_pair(earlier: &Claim, later: &Claim, problems: &Problems) {
    if let (Some(first), Some(second)) = (&earlier.name, &later.name)
        && first.value.eq_ignore_ascii_case(&second.value)
    {
        problems.add(&second.place, &second.key, format!("`{}` names two scopes; write another", second.value));
    }
    let (Some(first_bucket), Some(second_bucket)) = (&earlier.bucket, &later.bucket) else { return };
    let (Some(first), Some(second)) = (&earlier.prefix, &later.prefix) else { return };
    let overlaps = first.value.starts_with(&second.value) || second.value.starts_with(&first.value);
    if first_bucket.value == second_bucket.value && overlaps {
        let whose = earlier.name.as_ref().map_or("another scope".into(), |name| format!("scope `{}`", name.value));
        let message = format!(
            "`{}` overlaps the prefix `{}` of {whose} in bucket `{}`; write prefixes of which none begins with another",
            second.value, first.value, first_bucket.value
        );
        problems.add(&second.place, &second.key, message);
    }
}

#[cfg(test)]
mod tests;
