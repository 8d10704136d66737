//! `[scope.purge]`: how the platform's own rows are removed, where a person asks for it.
//!
//! Invariant: without the section there is no way to change a row of the platform at all; each statement is about the one
//! `$1` that it is given.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::Folder;
use super::reader::{Problems, Reader};
use super::scope::TableName;

/// How rows of the platform are removed. Source: `[scope.purge]`.
#[derive(Debug, Clone)]
pub struct Purge {
    /// A file with the address of the role that removes; where absent, the environment has it. Source: `url_file`.
    pub url_file: Option<PathBuf>,
    /// The type of the jobs that can be purged. Source: `job_type`.
    pub job_type: String,
    /// Statuses of jobs that run no more; any other is cancelled first. Source: `ended_statuses`.
    pub ended_statuses: Vec<String>,
    /// Types of datasets that have objects. Source: `types_with_objects`.
    pub types_with_objects: Vec<String>,
    /// Whether a job takes its datasets with it where the caller does not say. Source: `delete_dataset`.
    pub deletes_datasets: bool,
    /// Told of a job that was cancelled. Source: `cancel_webhook`.
    pub cancel_webhook: Option<Url>,
    /// How long that may take. Source: `webhook_timeout`.
    pub webhook_timeout: Duration,
    /// What falls with a dataset's row, for `--dry-run` to count. Source: `dependents`.
    pub dependents: Vec<Dependent>,
    /// The statements. Source: `[scope.purge.statements]`.
    pub statements: Statements,
}

/// A table whose rows fall with their dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// The table.
    pub table: TableName,
    /// Its column with the dataset's id.
    pub column: String,
}

/// The statements of a purge, each with `$1`, a UUID. Columns are read by their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statements {
    /// Locks a dataset's row: its type, the job that made it, its name.
    pub find_dataset: String,
    /// The names of the active models that use a dataset.
    pub active_models: String,
    /// Removes a dataset's row.
    pub delete_dataset: String,
    /// Locks a job's row: its status and its type.
    pub find_job: String,
    /// Locks the rows of the datasets that a job made: id, type, name.
    pub job_datasets: String,
    /// Sets a job to cancelled.
    pub cancel_job: String,
    /// Lets a job's datasets stay without it.
    pub detach_datasets: String,
    /// Removes a job's row.
    pub delete_job: String,
}

impl Statements {
    /// Each with its key.
    pub fn named(&self) -> [(&'static str, &str); 8] {
        [
            ("find_dataset", &self.find_dataset),
            ("active_models", &self.active_models),
            ("delete_dataset", &self.delete_dataset),
            ("find_job", &self.find_job),
            ("job_datasets", &self.job_datasets),
            ("cancel_job", &self.cancel_job),
            ("detach_datasets", &self.detach_datasets),
            ("delete_job", &self.delete_job),
        ]
    }
}

/// The default of `webhook_timeout`.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);

const FIND_DATASET: &str = "SELECT dataset_type::text, created_by_job_id::text, name::text FROM heimdall.synthetic_datasets WHERE id = $1 FOR UPDATE";
/// The models are locked as well: one that is activated meanwhile is seen, or waits.
const ACTIVE_MODELS: &str = "WITH used AS MATERIALIZED (SELECT model_name::text, is_active FROM heimdall.models WHERE synthetic_dataset_id = $1 FOR SHARE) SELECT model_name FROM used WHERE is_active ORDER BY model_name";
const DELETE_DATASET: &str = "DELETE FROM heimdall.synthetic_datasets WHERE id = $1";
const FIND_JOB: &str = "SELECT status::text, job_type::text FROM heimdall.training_jobs WHERE id = $1 FOR UPDATE";
/// In the order of the ids, so that two that lock several never wait for each other.
const JOB_DATASETS: &str = "SELECT id, dataset_type::text, name::text FROM heimdall.synthetic_datasets WHERE created_by_job_id = $1 ORDER BY id FOR UPDATE";
const CANCEL_JOB: &str = "UPDATE heimdall.training_jobs SET status = 'cancelled' WHERE id = $1";
const DETACH_DATASETS: &str =
    "UPDATE heimdall.synthetic_datasets SET created_by_job_id = NULL WHERE created_by_job_id = $1";
const DELETE_JOB: &str = "DELETE FROM heimdall.training_jobs WHERE id = $1";
const DEPENDENTS: [&str; 2] =
    ["heimdall.synthetic_iq_samples.dataset_id", "heimdall.synthetic_training_samples.dataset_id"];

/// Reads `[scope.purge]`; `None` where it is not written.
pub(super) fn read(reader: &mut Reader<'_>, folder: &Folder, problems: &Problems) -> Option<Purge> {
    if !reader.has("purge") {
        // Known all the same, so that a misspelled key is answered with it.
        reader.take("purge");
        return None;
    }
    let mut table = reader.table("purge");
    let url_file = folder.file(table.text("url_file", "the path of a file with the address"));
    let job_type = table.text("job_type", "the type of the jobs that can be purged, such as \"synthetic_generation\"");
    let ended_statuses = read_list(&mut table, "ended_statuses", &["completed", "failed", "cancelled"]);
    let types_with_objects = read_list(&mut table, "types_with_objects", &["iq_raw"]);
    let deletes_datasets = table.boolean("delete_dataset", true);
    let cancel_webhook = read_webhook(&mut table);
    let webhook_timeout = table.duration("webhook_timeout", WEBHOOK_TIMEOUT).value;
    let dependents = read_dependents(&mut table, problems);
    let statements = read_statements(table.table("statements"));
    table.finish();
    Some(Purge {
        url_file,
        job_type: job_type.map_or("synthetic_generation".into(), |placed| placed.value),
        ended_statuses,
        types_with_objects,
        deletes_datasets,
        cancel_webhook,
        webhook_timeout,
        dependents,
        statements,
    })
}

fn read_list(table: &mut Reader<'_>, key: &'static str, default: &[&str]) -> Vec<String> {
    match table.texts(key) {
        Some(texts) => texts.value.into_iter().map(|text| text.value).collect(),
        None => default.iter().map(ToString::to_string).collect(),
    }
}

fn read_webhook(table: &mut Reader<'_>) -> Option<Url> {
    const EXPECTED: &str = "an address, such as \"https://platform.example/hooks/job-cancelled\"";
    let placed = table.text("cancel_webhook", EXPECTED)?;
    let url = Url::parse(&placed.value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        // Not repeated: it may hold a secret.
        table.wrong(&placed, format!("is no http or https address; write {EXPECTED}"));
    }
    url
}

fn read_dependents(table: &mut Reader<'_>, problems: &Problems) -> Vec<Dependent> {
    let parse = |text: &str| {
        let (table, column) = text.rsplit_once('.')?;
        let table = TableName::parse(table)?;
        (!column.trim().is_empty()).then(|| Dependent { table, column: column.to_owned() })
    };
    let Some(texts) = table.texts("dependents") else { return DEPENDENTS.into_iter().filter_map(parse).collect() };
    let mut dependents = Vec::new();
    for text in texts.value {
        match parse(&text.value) {
            Some(dependent) => dependents.push(dependent),
            None => problems.add(
                &text.place,
                text.key,
                format!("`{}` is no column; write schema, table and column, such as \"{}\"", text.value, DEPENDENTS[0]),
            ),
        }
    }
    dependents
}

fn read_statements(mut table: Reader<'_>) -> Statements {
    let mut statement = |key: &'static str, default: &str| {
        let expected = format!("a statement with `$1`, such as \"{default}\"");
        let Some(placed) = table.text(key, &expected) else { return default.to_owned() };
        // Without its id it would be about every row.
        if !placed.value.contains("$1") {
            table.wrong(&placed, format!("names no `$1`, so it would be about every row; write {expected}"));
        }
        placed.value
    };
    let statements = Statements {
        find_dataset: statement("find_dataset", FIND_DATASET),
        active_models: statement("active_models", ACTIVE_MODELS),
        delete_dataset: statement("delete_dataset", DELETE_DATASET),
        find_job: statement("find_job", FIND_JOB),
        job_datasets: statement("job_datasets", JOB_DATASETS),
        cancel_job: statement("cancel_job", CANCEL_JOB),
        detach_datasets: statement("detach_datasets", DETACH_DATASETS),
        delete_job: statement("delete_job", DELETE_JOB),
    };
    table.finish();
    statements
}
