//! Takes typed values out of a tree, collecting every problem instead of stopping at the first.
//!
//! Invariant: a key that nothing took is a problem, with the nearest known name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::tree::{Node, Place, Problem, Value};

/// Where problems are collected.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes a problem.
    pub fn add(&self, place: &Place, key: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem { place: place.clone(), key: key.into(), message: message.into() });
    }

    /// Notes problems found elsewhere.
    pub fn extend(&self, found: Vec<Problem>) {
        self.0.borrow_mut().extend(found);
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A value that was read, with its place for later checks.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it, or the table that lacks it, was written.
    pub place: Place,
    /// Its dotted key.
    pub key: String,
}

/// Reads one table.
pub struct Reader<'p> {
    table: BTreeMap<String, Node>,
    place: Place,
    path: String,
    known: Vec<&'static str>,
    /// Whether something else was written in the table's place: what it lacks is then no further problem.
    is_void: bool,
    problems: &'p Problems,
}

impl<'p> Reader<'p> {
    /// A reader of `node`, which must be a table; anything else is a problem and reads as an empty one.
    pub fn new(node: Node, path: String, problems: &'p Problems) -> Self {
        let (table, is_void) = match node.value {
            Value::Table(table) => (table, false),
            other => {
                let message = format!("is {}; write it as a table, `{}`", other.kind(), header(&path));
                problems.add(&node.place, &path, message);
                (BTreeMap::new(), true)
            }
        };
        Self { table, place: node.place, path, known: Vec::new(), is_void, problems }
    }

    /// The dotted path of `key` in this table.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the table was written.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether `key` is written and was not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes that `key`, which the table lacks, is needed: `message` says what for.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        if !self.is_void {
            self.problems.add(&self.place, self.key(key), message);
        }
    }

    /// Notes what is wrong with a value that was read.
    pub fn wrong<T>(&self, placed: &Placed<T>, message: impl Into<String>) {
        self.problems.add(&placed.place, &placed.key, message);
    }

    /// Takes the raw value of `key`.
    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes the table `key`; an absent one reads as empty.
    pub fn table(&mut self, key: &'static str) -> Reader<'p> {
        let path = self.key(key);
        let node = self.take(key).unwrap_or_else(|| Node::empty_table(self.place.clone()));
        Reader::new(node, path, self.problems)
    }

    /// Takes the list of tables `key`, of which there must be one at least; `advice` says what to write.
    pub fn tables(&mut self, key: &'static str, advice: &str) -> Vec<Reader<'p>> {
        let path = self.key(key);
        match self.take(key) {
            None => {
                self.problem(key, format!("is missing; {advice}"));
                Vec::new()
            }
            Some(Node { value: Value::List(list), place, .. }) => {
                if list.is_empty() {
                    self.problems.add(&place, &path, format!("is empty; {advice}"));
                }
                let reader = |(index, node)| Reader::new(node, format!("{path}[{index}]"), self.problems);
                list.into_iter().enumerate().map(reader).collect()
            }
            Some(node) => {
                let message = format!("is {}; write it as `{}`", node.value.kind(), header(&format!("{path}[]")));
                self.problems.add(&node.place, &path, message);
                Vec::new()
            }
        }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        self.read_node(key, expected, |node| read(&node.value))
    }

    fn read_node<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let path = self.key(key);
        let node = self.take(key)?;
        match read(&node) {
            Ok(value) => Some(Placed { value, place: node.place, key: path }),
            Err(found) => {
                self.problems.add(&node.place, path, format!("{found}; write {expected}"));
                None
            }
        }
    }

    /// Takes a text; `expected` says what to write.
    pub fn text(&mut self, key: &'static str, expected: &str) -> Option<Placed<String>> {
        self.read_node(key, expected, |node| match node.as_text() {
            Some("") => Err("is empty".into()),
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("is {}", node.value.kind())),
        })
    }

    /// Takes a text that must be there.
    pub fn required_text(&mut self, key: &'static str, expected: &str) -> Option<Placed<String>> {
        if !self.has(key) {
            self.problem(key, format!("is missing; write {expected}"));
        }
        self.text(key, expected)
    }

    /// Takes true or false.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let read = |value: &Value| match value {
            Value::Boolean(boolean) => Ok(*boolean),
            other => Err(format!("is {}", other.kind())),
        };
        self.read(key, "true or false", read).map_or(default, |placed| placed.value)
    }

    /// Takes a duration such as `7d`.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Placed<Duration> {
        let fallback = Placed { value: default, place: self.place.clone(), key: self.key(key) };
        let read = |value: &Value| match value {
            Value::Text(text) if text.trim_start().starts_with('-') => Err(format!("`{text}` is negative")),
            Value::Text(text) => {
                humantime::parse_duration(text).map_err(|error| format!("`{text}` is no duration ({error})"))
            }
            Value::Integer(number) if *number < 0 => Err(format!("`{number}` is negative")),
            Value::Integer(number) => Err(format!("`{number}` has no unit")),
            other => Err(format!("is {}", other.kind())),
        };
        self.read(key, "a duration with its unit, such as \"7d\" or \"36h\"", read).unwrap_or(fallback)
    }

    /// Takes a size such as `1TiB`, in bytes.
    pub fn size(&mut self, key: &'static str) -> Option<u64> {
        let read = |value: &Value| match value {
            Value::Text(text) => parse_size(text).ok_or_else(|| format!("`{text}` is no size")),
            Value::Integer(number) => u64::try_from(*number).map_err(|_| format!("`{number}` is negative")),
            other => Err(format!("is {}", other.kind())),
        };
        self.read(key, "a size such as \"500GB\" or \"1TiB\"", read).map(|placed| placed.value)
    }

    /// Takes a whole number from `minimum` on.
    pub fn count(&mut self, key: &'static str, default: u64, minimum: u64) -> Placed<u64> {
        let fallback = Placed { value: default, place: self.place.clone(), key: self.key(key) };
        let read = |value: &Value| match value {
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(count) if count >= minimum => Ok(count),
                _ => Err(format!("`{number}` is below {minimum}")),
            },
            other => Err(format!("is {}", other.kind())),
        };
        self.read(key, &format!("a whole number from {minimum} on"), read).unwrap_or(fallback)
    }

    /// Takes a share from 0 to 1.
    pub fn share(&mut self, key: &'static str, default: f64) -> f64 {
        let check =
            |share: f64| if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("`{share}` is no share")) };
        let read = |value: &Value| match value {
            Value::Float(share) => check(*share),
            Value::Integer(0) => Ok(0.0),
            Value::Integer(1) => Ok(1.0),
            Value::Integer(number) => Err(format!("`{number}` is no share")),
            other => Err(format!("is {}", other.kind())),
        };
        self.read(key, "a share from 0.0 to 1.0", read).map_or(default, |placed| placed.value)
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, key: &'static str) -> Option<Placed<Vec<Placed<String>>>> {
        let path = self.key(key);
        let node = self.take(key)?;
        let wrong = |place: &Place| {
            self.problems.add(place, &path, "is no list of texts; write it as [\"one\", \"two\"]");
        };
        let Value::List(list) = node.value else {
            wrong(&node.place);
            return None;
        };
        let mut texts = Vec::new();
        for entry in list {
            match entry.as_text() {
                Some(text) => texts.push(Placed { value: text.to_owned(), place: entry.place, key: path.clone() }),
                None => wrong(&entry.place),
            }
        }
        Some(Placed { value: texts, place: node.place, key: path })
    }

    /// Reports every key that nothing took.
    pub fn finish(self) {
        for (key, node) in &self.table {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, key), known))
                .min()
                .filter(|(distance, known)| *distance <= 1 + known.len() / 3);
            let advice = match nearest {
                Some((_, known)) => format!("write `{known}`"),
                None if self.known.is_empty() => "remove it".to_owned(),
                None => format!("remove it, or use one of: {}", self.known.join(", ")),
            };
            self.problems.add(&node.place, self.key(key), format!("is no known key; {advice}"));
        }
    }
}

/// The header that a table at `path` has in the file: its lists are not counted there.
fn header(path: &str) -> String {
    let plain: String = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    if path.ends_with(']') { format!("[[{plain}]]") } else { format!("[{plain}]") }
}

/// Reads a size such as `500GB` or `1TiB`, in bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}
