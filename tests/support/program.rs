//! The program as its users run it: a process, its arguments, its environment, its exit code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::Bucket;

/// A folder with a configuration, and the environment to run the program in.
pub struct Program {
    pub folder: TempDir,
    pub variables: BTreeMap<String, String>,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// The platform's defaults on this bucket and database, with a policy for tests: an orphan may go at its first sighting.
    pub fn new(bucket: &Bucket, database_url: &str) -> Self {
        Self::at(&bucket.endpoint, &bucket.name, (&bucket.access_key, &bucket.secret_key), database_url)
    }

    /// Like [`Program::new`], on any store: an address, a bucket and a pair of keys.
    pub fn at(endpoint: &str, bucket: &str, keys: (&str, &str), database_url: &str) -> Self {
        let mut program = Self::bare(endpoint, bucket, database_url);
        program.set("AWS_ACCESS_KEY_ID", keys.0);
        program.set("AWS_SECRET_ACCESS_KEY", keys.1);
        for (key, value) in [
            ("POLICY__UNSAFE_SHORT_GRACE", "true"),
            ("POLICY__GRACE", "0s"),
            ("POLICY__MIN_SIGHTINGS", "1"),
            ("POLICY__MIN_SIGHTING_SPAN", "0s"),
            ("LIMITS__MAX_ORPHAN_SHARE", "1.0"),
            ("LIMITS__MAX_FOREIGN_SHARE", "1.0"),
        ] {
            program.set_scope(key, value);
        }
        program
    }

    /// The committed config.toml, pointed at this bucket by variables.
    pub fn bare(endpoint: &str, bucket: &str, database_url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"), folder.path().join("config.toml"))
            .expect("copied");
        let mut program = Self { folder, variables: BTreeMap::new() };
        program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", endpoint);
        program.set("ORPHAN_SWEEPER_DATABASE_URL", database_url);
        program.set("ORPHAN_SWEEPER_TEST_HURRY", "20");
        program.set("ORPHAN_SWEEPER__SERVE__LISTEN", "127.0.0.1:0");
        program.set_scope("BUCKET", bucket);
        program
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Overrides a key of the scope `synthetic`.
    pub fn set_scope(&mut self, key: &str, value: &str) {
        self.set(&format!("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__{key}"), value);
    }

    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// The program, ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // Another build of it, such as a release build, where one is named.
        let built = std::env::var("ORPHAN_SWEEPER_TEST_PROGRAM")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_orphan-sweeper").into());
        let mut command = Command::new(built);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the program and lets it run.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("the program starts")
    }

    /// Runs the program to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let child = self.start(arguments);
        Ran::wait(child).await
    }

    /// Runs the program with one more variable.
    pub async fn run_with(&self, name: &str, value: &str, arguments: &[&str]) -> Ran {
        let child = self.command(arguments).env(name, value).spawn().expect("the program starts");
        Ran::wait(child).await
    }

    pub fn reports(&self) -> PathBuf {
        self.folder.path().join("reports/synthetic")
    }

    /// The path of a file of the newest report.
    pub fn latest(&self, name: &str) -> String {
        let run = std::fs::read_link(self.reports().join("latest")).expect("a newest report");
        self.reports().join(run).join(name).display().to_string()
    }

    /// The text of a file of the newest report.
    pub fn read(&self, name: &str) -> String {
        let path = self.latest(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Rows of a CSV file of the newest report.
    pub fn csv(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        super::read_csv(&self.read(name))
    }

    /// How many runs left a folder.
    pub fn run_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.reports()).into_iter().flatten().map(|entry| entry.expect("an entry"));
        let mut folders: Vec<_> =
            entries.filter(|entry| entry.file_type().expect("a type").is_dir()).map(|entry| entry.path()).collect();
        folders.sort();
        folders
    }

    /// Rewrites config.toml.
    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) {
        let path = self.path("config.toml");
        let text = std::fs::read_to_string(&path).expect("read");
        let edited = edit(text.clone());
        assert_ne!(edited, text, "the edit changes something");
        std::fs::write(&path, edited).expect("written");
    }

    /// A configuration without `[scope.schedule]`.
    pub fn remove_schedule(&self) {
        self.edit_config(|text| text.split_once("[scope.schedule]").expect("a schedule").0.to_owned());
    }

    /// Every regular file under the folder, with its bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("read").map(|entry| entry.expect("an entry")) {
                let kind = entry.file_type().expect("a type");
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.push((entry.path(), std::fs::read(entry.path()).expect("read")));
                }
            }
        }
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

impl Ran {
    pub async fn wait(child: Child) -> Self {
        let output =
            tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("joined").expect("waited for");
        Self::of(&output)
    }

    fn of(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
        Self {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is no JSON ({error}): {self:?}"))
    }

    /// The summary of the only scope; the exit code must be `code`.
    #[track_caller]
    pub fn summary(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        self.json()[0].clone()
    }
}

/// A breaker of a summary.
#[track_caller]
pub fn breaker<'s>(summary: &'s Value, name: &str) -> &'s Value {
    let all = summary["breakers"].as_array().expect("breakers");
    all.iter().find(|breaker| breaker["name"] == name).unwrap_or_else(|| panic!("no breaker {name}"))
}
