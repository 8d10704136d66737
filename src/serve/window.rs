//! A page of a long list, in any order: the list is read once from end to end, and only a page of it is kept.
//!
//! Takes records of a CSV file; gives those that come next after a cursor. Invariant: memory grows with the page, never with
//! the file. Synchronous: whoever calls it has a thread for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use csv::StringRecord;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// What a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// As it was written.
    Listed,
    /// A column of numbers.
    Number(&'static str),
    /// A column of times; where there is none, it comes first.
    Time(&'static str),
    /// A column of texts.
    Text(&'static str),
}

/// Which records, and in which order.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Columns with the text that each must have.
    pub equal: Vec<(&'static str, String)>,
    /// What they are ordered by.
    pub sort: SortBy,
    /// Whether the greatest comes first.
    pub is_descending: bool,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many at most.
    pub limit: usize,
}

/// A page.
#[derive(Debug)]
pub struct Found {
    /// The records, without the mark that keeps a spreadsheet from running a field.
    pub records: Vec<StringRecord>,
    /// How many records match in all.
    pub matched: u64,
    /// Where the next page begins, unless this was the last.
    pub next: Option<Cursor>,
    /// The names of the columns.
    pub header: StringRecord,
}

/// A record's place in the order: its value, then its place in the file, which is its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(Value, u64);

/// A value to order by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Value {
    #[serde(rename = "n")]
    Number(Option<i64>),
    #[serde(rename = "t")]
    Text(String),
}

/// The same, in the direction that is asked for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Directed {
    Up(Value),
    Down(Reverse<Value>),
}

impl Cursor {
    /// As a caller gets it.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what a caller got.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    fn directed(self, is_descending: bool) -> (Directed, u64) {
        let value = if is_descending { Directed::Down(Reverse(self.0)) } else { Directed::Up(self.0) };
        (value, self.1)
    }
}

/// Reads `list` from end to end; gives up where nobody waits any more.
///
/// - Errors: it cannot be read, is no CSV, or was given up.
pub fn page(list: impl io::Read, wanted: &Wanted, given_up: &AtomicBool) -> io::Result<Found> {
    const LOOK_EVERY: u64 = 1024;
    let mut reader = csv::ReaderBuilder::new().from_reader(list);
    let header = reader.headers()?.clone();
    let column = |name: &str| header.iter().position(|known| known == name);
    let equal: Vec<(Option<usize>, &str)> =
        wanted.equal.iter().map(|(name, text)| (column(name), text.as_str())).collect();
    let (kind, sorted) = match wanted.sort {
        SortBy::Listed => (wanted.sort, None),
        SortBy::Number(name) | SortBy::Time(name) | SortBy::Text(name) => (wanted.sort, column(name)),
    };
    let after = wanted.after.clone().map(|cursor| cursor.directed(wanted.is_descending));
    let mut kept: BTreeMap<(Directed, u64), (Cursor, StringRecord)> = BTreeMap::new();
    let (mut matched, mut number, mut record) = (0, 0_u64, StringRecord::new());
    while reader.read_record(&mut record)? {
        number += 1;
        if number % LOOK_EVERY == 0 && given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let field = |position: Option<usize>| plain(position.and_then(|position| record.get(position)).unwrap_or(""));
        if !equal.iter().all(|(position, text)| field(*position) == *text) {
            continue;
        }
        matched += 1;
        let cursor = Cursor(value(kind, field(sorted)), number);
        let place = cursor.clone().directed(wanted.is_descending);
        let is_before = after.as_ref().is_some_and(|after| place <= *after);
        let is_beyond = kept.len() > wanted.limit && kept.last_key_value().is_some_and(|(last, _)| place > *last);
        if is_before || is_beyond {
            continue;
        }
        kept.insert(place, (cursor, record.iter().map(plain).collect()));
        // One more than the page, to know whether there is a next one.
        if kept.len() > wanted.limit + 1 {
            kept.pop_last();
        }
    }
    let is_more = kept.len() > wanted.limit;
    let page: Vec<(Cursor, StringRecord)> = kept.into_values().take(wanted.limit).collect();
    let next = page.last().filter(|_| is_more).map(|(cursor, _)| cursor.clone());
    Ok(Found { records: page.into_iter().map(|(_, record)| record).collect(), matched, next, header })
}

/// The field as it was before it was marked for spreadsheets.
fn plain(field: &str) -> &str {
    field.strip_prefix('\'').unwrap_or(field)
}

fn value(kind: SortBy, field: &str) -> Value {
    match kind {
        SortBy::Listed => Value::Number(None),
        SortBy::Number(_) => Value::Number(field.parse().ok()),
        SortBy::Time(_) => {
            let time = field.parse::<Timestamp>().ok();
            Value::Number(time.and_then(|time| time.timestamp_nanos_opt()))
        }
        SortBy::Text(_) => Value::Text(field.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn wanted(sort: SortBy, limit: usize) -> Wanted {
        Wanted { equal: Vec::new(), sort, is_descending: false, after: None, limit }
    }

    /// Every page after the other, as a caller gets them.
    fn pages(list: &str, mut wanted: Wanted) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let found = page(list.as_bytes(), &wanted, &NEVER).expect("a list");
            assert!(found.records.len() <= wanted.limit);
            all.extend(found.records.iter().map(|record| record.iter().collect::<Vec<_>>().join(",")));
            let Some(next) = found.next else { return all };
            wanted.after = Some(Cursor::from_text(&next.to_text()).expect("a cursor"));
        }
    }

    #[test]
    fn a_list_is_filtered_sorted_and_paged() {
        let list = "id,bytes,newest,reason\na,10,2026-01-01T00:00:00Z,x\nb,9,2026-01-01T00:00:00.5Z,y\n'=c,100,,x\n";
        assert_eq!(pages(list, wanted(SortBy::Listed, 2)).len(), 3);
        let by_bytes = pages(list, Wanted { is_descending: true, ..wanted(SortBy::Number("bytes"), 1) });
        assert_eq!(by_bytes.iter().map(|row| &row[..2]).collect::<Vec<_>>(), ["=c", "a,", "b,"]);
        let by_time = pages(list, wanted(SortBy::Time("newest"), 2));
        assert_eq!(by_time.iter().map(|row| &row[..1]).collect::<Vec<_>>(), ["=", "a", "b"]);
        let only = Wanted { equal: vec![("reason", "x".into()), ("id", "=c".into())], ..wanted(SortBy::Listed, 9) };
        assert_eq!(page(list.as_bytes(), &only, &NEVER).expect("a list").matched, 1);
    }

    #[test]
    fn a_list_that_nobody_waits_for_is_given_up() {
        let list = format!("id\n{}", "a\n".repeat(5000));
        let given_up = AtomicBool::new(true);
        assert!(page(list.as_bytes(), &wanted(SortBy::Listed, 1), &given_up).is_err());
    }

    proptest! {
        #[test]
        fn pages_together_are_the_sorted_list(numbers in proptest::collection::vec(0_u8..5, 0..40), limit in 1_usize..7, is_descending: bool) {
            let list = numbers.iter().enumerate().fold("id,n\n".to_owned(), |list, (id, n)| format!("{list}{id},{n}\n"));
            let mut sorted: Vec<(usize, u8)> = numbers.iter().copied().enumerate().collect();
            sorted.sort_by_key(|(_, n)| if is_descending { u8::MAX - *n } else { *n });
            let expected: Vec<String> = sorted.iter().map(|(id, n)| format!("{id},{n}")).collect();
            let wanted = Wanted { is_descending, ..wanted(SortBy::Number("n"), limit) };
            prop_assert_eq!(pages(&list, wanted), expected);
        }

        #[test]
        fn what_is_no_cursor_is_refused_without_a_panic(text in "\\PC{0,60}") {
            let _ = Cursor::from_text(&text);
        }
    }
}
