//! `[scope.holds]`: where the ids stand that a person protects.

use std::path::PathBuf;

use super::Folder;
use super::reader::Reader;
use super::scope::TableName;

/// Where holds stand beside those in the ledger. Source: `[scope.holds]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldsSource {
    /// A CSV file with the header `id,until,by,reason`, of which `by` may be left out. Source: `holds.file`.
    File(PathBuf),
    /// A table of the database with the columns `id`, `until`, `by` and `reason`. Source: `holds.table`.
    Table(TableName),
}

/// Reads `[scope.holds]`, which names one of the two.
pub(super) fn read(reader: &mut Reader<'_>, folder: &Folder) -> Option<HoldsSource> {
    const FILE: &str = "the path of a CSV file with the header `id,until,by,reason`";
    const TABLE: &str = "schema and table, such as \"heimdall.dataset_holds\"";
    if !reader.has("holds") {
        // Known all the same, so that a misspelled key is answered with it.
        reader.take("holds");
        return None;
    }
    let mut table = reader.table("holds");
    let is_named = table.has("file") || table.has("table");
    let file = table.text("file", FILE);
    let named = table.text("table", TABLE);
    if !is_named {
        table.problem("file", format!("is missing; write {FILE}, or `table`, or remove the section"));
    }
    if let (Some(_), Some(named)) = (&file, &named) {
        table.wrong(named, "stands beside `file`; keep one of the two");
    }
    let read = named.as_ref().map(|placed| {
        let parsed = TableName::parse(&placed.value);
        if parsed.is_none() {
            table.wrong(placed, format!("`{}` is not qualified by its schema; write {TABLE}", placed.value));
        }
        parsed
    });
    table.finish();
    match (folder.file(file), read) {
        (Some(path), _) => Some(HoldsSource::File(path)),
        (None, Some(parsed)) => parsed.map(HoldsSource::Table),
        (None, None) => None,
    }
}
