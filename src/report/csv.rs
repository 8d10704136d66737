//! The CSV files, safe to open in a spreadsheet.
//!
//! A field that a spreadsheet would run gets a leading `'`; control and bidirectional characters are shown as
//! `\u{…}`. The JSON files hold the exact keys.

use std::io;

use super::OrphanRecord;
use super::leaks::{UploadRecord, VersionsOnly};
use crate::model::{DeletionRow, Timestamp, visible};
use crate::parse::{Pattern, prefix_of};

/// Writes one CSV file, its header first.
pub struct CsvFile<W: io::Write>(csv::Writer<W>);

/// A time as the files show it.
pub fn time(time: Timestamp) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn optional_time(moment: Option<Timestamp>) -> String {
    moment.map(time).unwrap_or_default()
}

/// A field that neither a spreadsheet runs nor a terminal obeys.
fn safe(field: &str) -> String {
    let shown = visible(field);
    // The original decides too: a tab or carriage return at the start is escaped above and still counts. A leading `'` gets
    // another, so that taking one off gives every field back.
    let runs = |text: &str| text.starts_with(['=', '+', '-', '@', '\t', '\r', '\0', '＝', '＋', '－', '＠', '\'']);
    if runs(field) || runs(&shown) { format!("'{shown}") } else { shown }
}

impl<W: io::Write> CsvFile<W> {
    fn new(target: W, header: &[&str]) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(target);
        writer.write_record(header)?;
        Ok(Self(writer))
    }

    fn row(&mut self, fields: &[&str]) -> io::Result<()> {
        Ok(self.0.write_record(fields.iter().map(|field| safe(field)))?)
    }

    /// Writes what is buffered and gives the target back.
    pub fn finish(self) -> io::Result<W> {
        self.0.into_inner().map_err(|error| io::Error::other(error.to_string()))
    }

    /// `orphans.csv`.
    pub fn orphans(target: W) -> io::Result<Self> {
        let header = [
            "id",
            "pattern",
            "prefix",
            "objects",
            "bytes",
            "oldest",
            "newest",
            "first_seen",
            "sightings",
            "verdict",
            "reason",
        ];
        Self::new(target, &header)
    }

    /// A line of `orphans.csv`.
    pub fn orphan(&mut self, orphan: &OrphanRecord, patterns: &[Pattern]) -> io::Result<()> {
        self.row(&[
            &orphan.group.id.to_string(),
            patterns[usize::from(orphan.group.pattern)].template(),
            &orphan.prefix(patterns),
            &orphan.objects.to_string(),
            &orphan.bytes.to_string(),
            &optional_time(orphan.oldest),
            &optional_time(orphan.newest),
            &time(orphan.first_seen),
            &orphan.sightings.to_string(),
            orphan.verdict.as_str(),
            orphan.verdict.reason(),
        ])
    }

    /// A line of `orphans.csv` for a prefix that shows no current object: it holds nothing that could go.
    pub fn versions_only(&mut self, prefix: &VersionsOnly, patterns: &[Pattern]) -> io::Result<()> {
        let group = &prefix.0;
        let template = patterns[usize::from(group.pattern)].template();
        let listed = prefix_of(group, patterns);
        let reason = VersionsOnly::REASON;
        self.row(&[&group.id.to_string(), template, &listed, "0", "0", "", "", "", "0", "keep", reason])
    }

    /// `uploads.csv`.
    pub fn uploads(target: W) -> io::Result<Self> {
        Self::new(target, &["key", "upload_id", "initiated", "id", "verdict"])
    }

    /// A line of `uploads.csv`.
    pub fn upload(&mut self, upload: &UploadRecord) -> io::Result<()> {
        let initiated = optional_time(upload.initiated);
        self.row(&[&upload.key, &upload.upload_id, &initiated, &upload.id, upload.verdict.as_str()])
    }

    /// `missing.csv`.
    pub fn missing(target: W) -> io::Result<Self> {
        Self::new(target, &["id", "table", "created_at"])
    }

    /// A line of `missing.csv`.
    pub fn missing_row(&mut self, id: &str, table: &str, created_at: Option<Timestamp>) -> io::Result<()> {
        self.row(&[id, table, &optional_time(created_at)])
    }

    /// `foreign.csv`.
    pub fn foreign(target: W) -> io::Result<Self> {
        Self::new(target, &["prefix_or_key", "kind", "reason"])
    }

    /// A line of `foreign.csv`.
    pub fn foreign_row(&mut self, prefix_or_key: &str, kind: &str, reason: &str) -> io::Result<()> {
        self.row(&[prefix_or_key, kind, reason])
    }

    /// `deletions.csv`.
    pub fn deletions(target: W) -> io::Result<Self> {
        Self::new(target, &["key", "group", "bytes", "outcome", "reason", "batch"])
    }

    /// `restored.csv`.
    pub fn restored(target: W) -> io::Result<Self> {
        Self::new(target, &["key", "group", "bytes", "outcome", "reason"])
    }

    /// A line of `restored.csv`.
    pub fn restored_row(&mut self, [key, group, outcome, reason]: [&str; 4], bytes: u64) -> io::Result<()> {
        self.row(&[key, group, &bytes.to_string(), outcome, reason])
    }

    /// A line of `deletions.csv`.
    pub fn deletion(&mut self, row: &DeletionRow) -> io::Result<()> {
        self.row(&[&row.key, &row.group, &row.bytes.to_string(), &row.outcome, &row.reason, &row.batch.to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_a_spreadsheet_would_run_is_quoted() {
        for (field, shown) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@sum", "'@sum"),
            ("＝1", "'＝1"),
            ("\t=1", "'\\u{9}=1"),
            ("\r=1", "'\\u{d}=1"),
            ("\0", "'\\u{0}"),
            ("synthetic/=1", "synthetic/=1"),
            ("'=1", "''=1"),
            ("a\u{202e}b\n", "a\\u{202e}b\\u{a}"),
            ("", ""),
        ] {
            assert_eq!(safe(field), shown, "{field:?}");
        }
    }

    #[test]
    fn separators_and_quotes_are_read_back() {
        let mut file = CsvFile::foreign(Vec::new()).expect("header");
        file.foreign_row("a,\"b\" c", "key", "no_pattern").expect("row");
        let bytes = file.finish().expect("flushed");
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let row = reader.records().next().expect("one row").expect("readable");
        assert_eq!(row.iter().collect::<Vec<_>>(), ["a,\"b\" c", "key", "no_pattern"]);
    }
}
