//! The file of protected ids: read whole, or the run ends.
//!
//! Invariant: a row that cannot be read is a protection that somebody meant, so no row is ever left out; any spelling of a
//! UUID protects.

use std::path::{Path, PathBuf};

use crate::decide::holds::{Hold, HoldSource, read_until};
use crate::model::{DatasetId, Sha256Hash, visible};

/// What the header may name.
const COLUMNS: [&str; 4] = ["id", "until", "by", "reason"];

/// Why the file does not say who is protected. Each ends the run.
#[derive(Debug, thiserror::Error)]
pub enum HoldsError {
    /// It cannot be read.
    #[error("failed to read the holds `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that cannot be meant.
    #[error("`{path}`, line {line}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// The file of `scope.holds.file`, as it was last read.
#[derive(Debug)]
pub struct HoldsFile {
    path: PathBuf,
    last: Option<(Sha256Hash, Vec<Hold>)>,
}

impl HoldsFile {
    /// The file at `path`. Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// The holds that stand in the file now. It is read anew each time, and parsed where it differs from the last time.
    ///
    /// - Errors: [`HoldsError`].
    pub fn read(&mut self) -> Result<&[Hold], HoldsError> {
        let bytes =
            std::fs::read(&self.path).map_err(|source| HoldsError::Unreadable { path: self.path.clone(), source })?;
        let hash = Sha256Hash::of(&bytes);
        if self.last.as_ref().is_none_or(|(last, _)| *last != hash) {
            self.last = Some((hash, parse(&bytes, &self.path)?));
        }
        Ok(self.last.as_ref().map_or(&[][..], |(_, holds)| holds))
    }
}

/// Reads the rows of `bytes`, which stand in the file at `path`.
fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Hold>, HoldsError> {
    let malformed = |line: u64, problem: String| HoldsError::Malformed { path: path.to_path_buf(), line, problem };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        malformed(line, "is no UTF-8 text".into())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut columns: Option<Vec<String>> = None;
    let mut holds = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            malformed(line, "has another number of fields than the header, or cannot be read".into())
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        match &columns {
            None => {
                columns = Some(read_header(&record).map_err(|problem| malformed(line, problem))?);
            }
            Some(columns) => holds.push(read_row(&record, columns).map_err(|problem| malformed(line, problem))?),
        }
    }
    match columns {
        Some(_) => Ok(holds),
        None => Err(malformed(1, "is empty; its first line is the header `id,until,by,reason`".into())),
    }
}

fn read_header(record: &csv::StringRecord) -> Result<Vec<String>, String> {
    let names: Vec<String> = record.iter().map(str::to_lowercase).collect();
    let is_known = names.iter().all(|name| COLUMNS.contains(&name.as_str()));
    let stands_once = |column: &str| names.iter().filter(|name| *name == column).count() == 1;
    let is_whole = ["id", "until", "reason"].into_iter().all(stands_once) && names.iter().all(|name| stands_once(name));
    if is_known && is_whole {
        return Ok(names);
    }
    let found: Vec<String> = names.iter().map(|name| visible(name)).collect();
    Err(format!("the header is `{}`; write `id,until,by,reason` (`by` may be left out)", found.join(",")))
}

fn read_row(record: &csv::StringRecord, columns: &[String]) -> Result<Hold, String> {
    let field = |column: &str| {
        let position = columns.iter().position(|name| name == column)?;
        record.get(position).filter(|field| !field.is_empty())
    };
    let id = field("id").unwrap_or_default();
    let Some(parsed) = DatasetId::parse_lenient(id) else {
        return Err(format!("`{}` is no UUID, so nobody knows what is to be protected", visible(id)));
    };
    let until = match field("until") {
        None => None,
        Some(text) => Some(read_until(text).ok_or_else(|| {
            format!(
                "`{}` is no end; write a date such as 2027-01-31, a time such as 2027-01-31T12:00:00Z, or nothing",
                visible(text)
            )
        })?),
    };
    let text = |column| field(column).map(ToOwned::to_owned);
    Ok(Hold { id: parsed, until, by: text("by"), reason: text("reason").unwrap_or_default(), source: HoldSource::File })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10";

    fn read(text: &str) -> Result<Vec<Hold>, String> {
        parse(text.as_bytes(), Path::new("holds.csv")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_row_protects_in_any_spelling_of_its_id() {
        let id = DatasetId::parse_lenient(ID).expect("a UUID");
        for spelling in
            [ID.to_owned(), ID.to_uppercase(), format!("{{{ID}}}"), format!("urn:uuid:{ID}"), ID.replace('-', "")]
        {
            let holds = read(&format!("id,until,by,reason\n{spelling},2027-01-31,ada,\"a paper, under review\"\n"))
                .expect("readable");
            let [hold] = &holds[..] else { panic!("{holds:?}") };
            assert_eq!((hold.id, hold.by.as_deref(), hold.reason.as_str()), (id, Some("ada"), "a paper, under review"));
            assert_eq!(hold.until, read_until("2027-01-31"));
        }
    }

    #[test]
    fn the_columns_may_stand_in_any_order_and_by_may_be_left_out() {
        let without = read(&format!("id,until,reason\n{ID},,x\n")).expect("readable");
        assert_eq!((without[0].until, without[0].by.as_deref(), without[0].reason.as_str()), (None, None, "x"));
        let turned = read(&format!("\u{feff}Reason, by ,ID,until\r\nx,ada,{ID},\r\n\r\n")).expect("readable");
        assert_eq!((turned[0].until, turned[0].by.as_deref(), turned[0].reason.as_str()), (None, Some("ada"), "x"));
        assert!(read("id,until,by,reason\n").expect("readable").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, says) in [
            ("", 1, "is empty"),
            ("\n\n", 1, "is empty"),
            ("id,reason\n", 1, "the header is `id,reason`"),
            ("id,until,by,reason,more\n", 1, "the header is"),
            ("id,id,until,reason\n", 1, "the header is"),
            (&format!("{ID},2027-01-31,ada,x\n"), 1, "the header is"),
            ("id,until,by,reason\nx,,ada,y\n", 2, "`x` is no UUID"),
            (&format!("id,until,by,reason\n{ID},,ada,y\n,,ada,y\n"), 3, "`` is no UUID"),
            (&format!("id,until,by,reason\n{ID},soon,ada,y\n"), 2, "`soon` is no end"),
            (&format!("id,until,by,reason\n{ID},,ada\n"), 2, "another number of fields"),
            (&format!("id,until,by,reason\n{ID},,ada,x,y\n"), 2, "another number of fields"),
        ] {
            let error = read(text).expect_err(text);
            assert!(
                error.contains(&format!("`holds.csv`, line {line}: ")) && error.contains(says),
                "{text:?}: {error}"
            );
        }
        let error = parse(b"id,until,by,reason\n\xff\n", Path::new("x")).expect_err("no text").to_string();
        assert!(error.contains("line 2: is no UTF-8"), "{error}");
    }

    #[test]
    fn the_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("holds.csv");
        let mut file = HoldsFile::new(path.clone());
        assert!(matches!(file.read(), Err(HoldsError::Unreadable { .. })));
        std::fs::write(&path, "id,until,by,reason\n").expect("written");
        assert_eq!(file.read().expect("readable").len(), 0);
        std::fs::write(&path, format!("id,until,by,reason\n{ID},,ada,x\n")).expect("written");
        assert_eq!(file.read().expect("readable").len(), 1);
        std::fs::write(&path, "nonsense").expect("written");
        assert!(matches!(file.read(), Err(HoldsError::Malformed { .. })));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(file.read(), Err(HoldsError::Unreadable { .. })));
    }
}
