//! `[scope.selftest]`: with what `selftest` writes its scratch rows and objects.
//!
//! Invariant: each statement inserts rows of the one `$1` that it is given, so that what is written can be removed by it.

use std::path::PathBuf;

use super::reader::Reader;
use super::{CredentialFiles, Folder, read_credential_files};

/// What `selftest` writes with. Source: `[scope.selftest]`.
#[derive(Debug, Clone, Default)]
pub struct Selftest {
    /// A file with the address of the role that inserts; where nothing gives one, the role of the purge inserts. Source:
    /// `url_file`.
    pub url_file: Option<PathBuf>,
    /// Files with the pair that puts objects; where nothing gives one, the pair that deletes does.
    pub credentials: CredentialFiles,
    /// The statements. Source: `[scope.selftest.statements]`.
    pub statements: ScratchStatements,
}

/// The statements that insert scratch rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the configuration")]
pub struct ScratchStatements {
    /// Inserts a dataset: `$1` its id, `$2` its name, `$3` the job that made it, or NULL.
    pub insert_dataset: String,
    /// Insert rows that fall with a dataset: `$1` its id.
    pub insert_children: Vec<String>,
    /// Inserts a job that has ended: `$1` its id, `$2` its type.
    pub insert_job: String,
}

const INSERT_DATASET: &str =
    "INSERT INTO heimdall.synthetic_datasets (id, name, dataset_type, created_by_job_id) VALUES ($1, $2, 'iq_raw', $3)";
const INSERT_CHILDREN: [&str; 2] = [
    "INSERT INTO heimdall.synthetic_iq_samples (dataset_id) VALUES ($1)",
    "INSERT INTO heimdall.synthetic_training_samples (dataset_id) VALUES ($1)",
];
const INSERT_JOB: &str = "INSERT INTO heimdall.training_jobs (id, status, job_type) VALUES ($1, 'completed', $2)";

impl Default for ScratchStatements {
    fn default() -> Self {
        Self {
            insert_dataset: INSERT_DATASET.into(),
            insert_children: INSERT_CHILDREN.map(Into::into).to_vec(),
            insert_job: INSERT_JOB.into(),
        }
    }
}

/// Reads `[scope.selftest]`; what is not written is the platform's.
pub(super) fn read(reader: &mut Reader<'_>, folder: &Folder) -> Selftest {
    let mut table = reader.table("selftest");
    let url_file = folder.file(table.text("url_file", "the path of a file with the address"));
    let credentials = read_credential_files(&mut table, folder);
    let statements = read_statements(table.table("statements"));
    table.finish();
    Selftest { url_file, credentials, statements }
}

fn read_statements(mut table: Reader<'_>) -> ScratchStatements {
    let mut statement = |key: &'static str, default: &str, places: &[&str]| {
        let expected = format!("a statement with {}, such as \"{default}\"", in_words(places));
        let Some(placed) = table.text(key, &expected) else { return default.to_owned() };
        if let Some(missing) = missing(&placed.value, places) {
            table.wrong(&placed, format!("names no `{missing}`; write {expected}"));
        }
        placed.value
    };
    let insert_dataset = statement("insert_dataset", INSERT_DATASET, &["$1", "$2", "$3"]);
    let insert_job = statement("insert_job", INSERT_JOB, &["$1", "$2"]);
    let insert_children = match table.texts("insert_children") {
        None => INSERT_CHILDREN.map(Into::into).to_vec(),
        Some(texts) => {
            for text in &texts.value {
                if missing(&text.value, &["$1"]).is_some() {
                    table.wrong(
                        text,
                        format!("names no `$1`; write statements with `$1`, such as \"{}\"", INSERT_CHILDREN[0]),
                    );
                }
            }
            texts.value.into_iter().map(|text| text.value).collect()
        }
    };
    table.finish();
    ScratchStatements { insert_dataset, insert_children, insert_job }
}

fn missing<'p>(statement: &str, places: &[&'p str]) -> Option<&'p str> {
    places.iter().copied().find(|place| !statement.contains(place))
}

fn in_words(places: &[&str]) -> String {
    places.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(", ")
}
