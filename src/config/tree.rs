//! A configuration as typed: values with the place each was written at, from the file and from the environment.
//!
//! Takes text and variables; gives a [`Node`]. Invariant: a value never leaves here without its place, so that every
//! problem found later can point at a line or a variable.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the configuration file, counted from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
    /// The configuration as a whole.
    Whole,
}

/// One thing wrong with the configuration, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The dotted key, empty for the whole.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(line) => write!(f, "line {line}: ")?,
            Place::Variable(name) => write!(f, "variable {name}: ")?,
            Place::Whole => {}
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it was written.
    pub place: Place,
    /// What was written.
    pub value: Value,
    /// What a variable says letter by letter, where it also reads as a number, a date or the like.
    pub letters: Option<String>,
}

impl Node {
    /// A value of the file.
    fn new(place: Place, value: Value) -> Self {
        Self { place, value, letters: None }
    }

    /// A table without keys.
    pub fn empty_table(place: Place) -> Self {
        Self::new(place, Value::Table(BTreeMap::new()))
    }

    /// The value as a text, where it is one. A bucket may be called `0x12`, and a variable has no other way to say it.
    pub fn as_text(&self) -> Option<&str> {
        match (&self.value, &self.letters) {
            (Value::Text(text), _)
            | (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Date, Some(text)) => Some(text),
            _ => None,
        }
    }
}

/// A value as typed.
#[derive(Debug, Clone)]
pub enum Value {
    /// `[table]` or `{ inline = "table" }`.
    Table(BTreeMap<String, Node>),
    /// `[1, 2]` or `[[array.of.tables]]`.
    List(Vec<Node>),
    /// `"text"`.
    Text(String),
    /// `10_000`.
    Integer(i64),
    /// `0.1`.
    Float(f64),
    /// `true`.
    Boolean(bool),
    /// A date, which no key takes.
    Date,
}

impl Value {
    /// The kind of value, as a person would call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Date => "a date",
        }
    }
}

/// Reads TOML, with every syntax error at once.
pub fn parse(text: &str) -> (Node, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| Problem {
            place: error.span().map_or(Place::Whole, |span| Place::Line(line_of(text, span.start))),
            key: String::new(),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })
        .collect();
    let place = |offset| Place::Line(line_of(text, offset));
    (Node::new(Place::Whole, table_value(table.get_ref(), &place)), problems)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A table, each of whose entries stands where `place` says that its key's offset lies.
fn table_value(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    let entry = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        (key.get_ref().to_string(), Node::new(place(key.span().start), plain_value(value.get_ref(), place)))
    };
    Value::Table(table.iter().map(entry).collect())
}

fn plain_value(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(string) => Value::Text(string.to_string()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            i64::from_str_radix(&digits, integer.radix()).map_or(Value::Text(digits), Value::Integer)
        }
        DeValue::Float(float) => {
            let digits = float.as_str().replace('_', "");
            digits.parse().map_or(Value::Text(digits), Value::Float)
        }
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(array) => {
            let node = |element: &toml::Spanned<DeValue<'_>>| {
                Node::new(place(element.span().start), plain_value(element.get_ref(), place))
            };
            Value::List(array.iter().map(node).collect())
        }
        DeValue::Table(table) => table_value(table, place),
    }
}

/// The prefix of variables that override keys.
pub const OVERRIDE_PREFIX: &str = "ORPHAN_SWEEPER__";

/// Lays the variables `ORPHAN_SWEEPER__SECTION__KEY` over what the file says.
///
/// A scope is named, not counted: `ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRACE`; a live table is counted from 0.
/// A name that no key takes is found when the tree is read, like a misspelled key in the file.
pub fn apply_overrides(root: &mut Node, variables: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(OVERRIDE_PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        let steps: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        let value = Node { value: variable_value(text, &place), letters: Some(text.clone()), place: place.clone() };
        if let Err(message) = set(root, &steps, value) {
            problems.push(Problem { place, key: String::new(), message });
        }
    }
    problems
}

/// A variable's text as TOML would read it, else as plain text.
fn variable_value(text: &str, place: &Place) -> Value {
    DeValue::parse(text)
        .map_or_else(|_| Value::Text(text.to_owned()), |value| plain_value(value.get_ref(), &|_| place.clone()))
}

fn set(node: &mut Node, steps: &[String], value: Node) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = value;
        return Ok(());
    };
    match &mut node.value {
        Value::Table(table) => {
            let place = value.place.clone();
            set(table.entry(step.clone()).or_insert_with(|| Node::empty_table(place)), rest, value)
        }
        Value::List(list) => {
            let named: Vec<usize> = (0..list.len()).filter(|position| is_named(&list[*position], step)).collect();
            let position = match named[..] {
                // A name counts before a number: a scope may be called `2024`.
                [] => step.parse().ok(),
                [position] => Some(position),
                _ => return Err(format!("several entries are called `{step}` here; rename all but one")),
            };
            match position.and_then(|position: usize| list.get_mut(position)) {
                Some(child) => set(child, rest, value),
                None => Err(format!("no entry is called `{step}`; write the name of one that the file has")),
            }
        }
        other => Err(format!("`{step}` stands below {}, which has no keys; check the name", other.kind())),
    }
}

/// Whether a list's entry has this name, as a variable would spell it.
fn is_named(entry: &Node, step: &str) -> bool {
    let Value::Table(table) = &entry.value else { return false };
    matches!(table.get("name"), Some(Node { value: Value::Text(name), .. })
        if name.to_lowercase().replace('-', "_") == step)
}
