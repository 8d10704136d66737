//! The pure rooms stay pure: values in, values out, time as an argument.

use std::path::{Path, PathBuf};

/// What a pure room never names: clients, runtimes, files, clocks, and the rooms that hold them.
const IMPURE: [&str; 13] = [
    "tokio",
    "aws_",
    "sqlx",
    "axum",
    "reqwest",
    "std::fs",
    "std::env",
    "std::net",
    "Utc::now",
    "SystemTime",
    "Instant",
    "async fn",
    "crate::s3",
];

fn files_of(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| files_of(&entry.expect("an entry").path())).collect()
}

#[test]
fn pure_rooms_name_no_client_no_runtime_no_file_and_no_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let pure = [
        "model.rs",
        "parse.rs",
        "diff.rs",
        "decide",
        "plan.rs",
        "report/csv.rs",
        "notify/message.rs",
        "report/figures.rs",
        "report/html.rs",
        "report/leaks.rs",
        "report/notice.rs",
        "report/text.rs",
        "serve/due.rs",
    ];
    for file in pure.iter().flat_map(|room| files_of(&source.join(room))) {
        let text = std::fs::read_to_string(&file).expect("readable");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in IMPURE {
                assert!(!line.contains(word), "{}:{}: a pure room names `{word}`", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn the_audit_names_nothing_that_deletes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in ["run/audit.rs", "run/scan.rs"] {
        let text = std::fs::read_to_string(source.join(file)).expect("readable");
        for word in ["DeleteStore", "S3Delete", "Keyring", "dispose", "deleting"] {
            assert!(!text.contains(word), "{file} names `{word}`");
        }
    }
}
