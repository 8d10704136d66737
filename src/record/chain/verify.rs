//! Reads the chain anew, then the rows, and finds where the two tell different stories.
//!
//! Invariant: the whole verification sees one snapshot, so that a run which writes meanwhile is no fault.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::entry::{Entry, genesis};
use super::tally::Tallies;
use super::tracked::TABLES;
use super::{ChainHead, entries_after};
use crate::model::{Sha256Hash, Timestamp};
use crate::record::ledger::{Ledger, RecordError};
use crate::record::sql::{Transaction, statement};

/// The kind of an entry that stands for those before it.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// A head that was noted outside the ledger: it must be in the chain.
#[derive(Debug, Clone)]
pub struct KnownHead {
    /// The hash.
    pub hash: Sha256Hash,
    /// How many entries there were, where that was noted too.
    pub entries: Option<u64>,
    /// Where it was noted, as in "the head … `that was given`".
    pub noted: String,
}

/// What a chain that verifies holds.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Where it ends.
    pub head: ChainHead,
    /// How many of its first entries a checkpoint stands for.
    pub compacted: u64,
    /// How many rows were compared with it.
    pub rows: u64,
    /// For each known head, how many entries came after it; `None` where it is older than the checkpoint.
    pub since: Vec<Option<u64>>,
    /// The SHA-256 of each run's `summary.json`, by run, as it was chained.
    pub summaries: BTreeMap<String, String>,
}

/// The first place where the chain, or a row, is not what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainFault {
    /// The entry, where it is one.
    pub entry: Option<u64>,
    /// What is wrong there.
    pub what: String,
}

impl std::fmt::Display for ChainFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "entry {entry}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What verification came to.
pub type ChainReport = Result<Verified, ChainFault>;

/// What the entries so far say of the rows.
#[derive(Debug, Default)]
struct Known {
    /// The last word on each row, by table and subject.
    rows: BTreeMap<&'static str, BTreeMap<String, Value>>,
    intents: Tallies,
}

/// The chain up to an entry.
#[derive(Debug)]
pub(super) struct Fold {
    number: i64,
    hash: Sha256Hash,
    /// How many entries a checkpoint stands for, and the head that they led to.
    compacted: i64,
    begun: Sha256Hash,
    known: Known,
}

fn entry_fault(number: i64, what: impl Into<String>) -> ChainFault {
    ChainFault { entry: u64::try_from(number).ok(), what: what.into() }
}

fn row_fault(what: String) -> ChainFault {
    ChainFault { entry: None, what }
}

impl Known {
    fn take(&mut self, entry: &Entry) -> Option<()> {
        let payload: Value = serde_json::from_str(&entry.payload).ok()?;
        let Some((row, _)) = entry.kind.split_once('.') else { return Some(()) };
        if row == "intents" {
            self.intents.add_all(&Tallies::from_json(&payload["change"])?);
        } else if let Some(table) = TABLES.into_iter().find(|table| table.row == row) {
            let rows = self.rows.entry(table.row).or_default();
            if payload.is_null() {
                rows.remove(&entry.subject);
            } else {
                rows.insert(entry.subject.clone(), payload);
            }
        }
        Some(())
    }

    fn to_json(&self) -> (Value, Value) {
        let rows = self.rows.iter().map(|(row, rows)| {
            let rows = rows.iter().map(|(subject, payload)| (subject.clone(), payload.clone()));
            ((*row).to_owned(), Value::Object(rows.collect()))
        });
        (Value::Object(rows.collect()), self.intents.to_json())
    }

    fn from_json(rows: &Value, intents: &Value) -> Option<Self> {
        let mut known = Self { rows: BTreeMap::new(), intents: Tallies::from_json(intents)? };
        for table in TABLES {
            let none = Map::new();
            let rows = rows.get(table.row).map_or(Some(&none), Value::as_object)?;
            known.rows.insert(table.row, rows.clone().into_iter().collect());
        }
        Some(known)
    }
}

impl Fold {
    /// Number and hash of the last entry taken.
    pub(super) fn end(&self) -> (i64, Sha256Hash) {
        (self.number, self.hash)
    }

    /// How many entries were taken since it began.
    pub(super) fn taken(&self) -> u64 {
        u64::try_from(self.number - self.compacted).unwrap_or(0)
    }

    /// As a checkpoint carries it.
    pub(super) fn to_json(&self) -> Value {
        let (rows, intents) = self.known.to_json();
        json!({ "through": self.number, "head": self.hash, "rows": rows, "intents": intents })
    }

    fn from_json(payload: &Value) -> Option<Self> {
        let number = payload["through"].as_i64()?;
        let hash = Sha256Hash::parse(payload["head"].as_str()?)?;
        Some(Self {
            number,
            hash,
            compacted: number,
            begun: hash,
            known: Known::from_json(&payload["rows"], &payload["intents"])?,
        })
    }

    /// Where the chain begins: at its first entry, or at what a checkpoint stands for.
    async fn begin(transaction: &mut Transaction, ledger: &Ledger) -> Result<Result<Self, ChainFault>, RecordError> {
        const STEP: &str = "read the beginning of the chain";
        let first = statement(STEP, "SELECT number FROM chain ORDER BY number LIMIT 1");
        let Some(first) = first.optional(&mut *transaction).await? else {
            return Ok(Err(row_fault("the chain is empty: all of it was removed".into())));
        };
        let first: i64 = first.get("number")?;
        if first == 1 {
            let hash = genesis(ledger.id(), ledger.created_at());
            return Ok(Ok(Self { number: 0, hash, compacted: 0, begun: hash, known: Known::default() }));
        }
        let checkpoints = statement(STEP, "SELECT payload FROM chain WHERE kind = $1 ORDER BY number DESC");
        for row in checkpoints.bind(CHECKPOINT).all(transaction).await? {
            let payload: String = row.get("payload")?;
            let payload: Option<Value> = serde_json::from_str(&payload).ok();
            match payload.as_ref().and_then(Self::from_json) {
                Some(fold) if fold.number + 1 == first => return Ok(Ok(fold)),
                _ => {}
            }
        }
        let what = format!("the chain begins here, and no checkpoint stands for the {} entries before it", first - 1);
        Ok(Err(entry_fault(first, what)))
    }

    /// Takes the next entry in.
    fn take(&mut self, entry: &Entry) -> Result<(), ChainFault> {
        let fault = |what: &str| Err(entry_fault(entry.number, what));
        if entry.number != self.number + 1 {
            let what = format!("it is gone: entry {} is followed by entry {}", self.number, entry.number);
            return Err(entry_fault(self.number + 1, what));
        }
        if entry.previous != self.hash {
            return fault(
                "it does not follow the entry before it: one of the two was replaced, or their order changed",
            );
        }
        if entry.seal() != entry.hash {
            return fault("it was edited: its hash does not fit what it says");
        }
        if self.known.take(entry).is_none() {
            return fault("it cannot be read");
        }
        (self.number, self.hash) = (entry.number, entry.hash);
        Ok(())
    }

    /// Compares what the entries say with the rows; says how many were compared.
    async fn compare(&self, transaction: &mut Transaction) -> Result<Result<u64, ChainFault>, RecordError> {
        let mut compared = 0;
        let none = BTreeMap::new();
        for table in TABLES {
            let chained = self.known.rows.get(table.row).unwrap_or(&none);
            let (mut after, mut seen) = (String::new(), 0);
            loop {
                let rows = table.rows_after(transaction, &after).await?;
                let Some((last, _)) = rows.last() else { break };
                after.clone_from(last);
                for (subject, row) in &rows {
                    match chained.get(subject) {
                        None => {
                            let what = format!("{} `{subject}` was added to `{}` by hand", table.row, table.name);
                            return Ok(Err(row_fault(what)));
                        }
                        Some(chained) if differing_field(chained, row).is_some() => {
                            let what = format!("{} `{subject}` was edited: {}", table.row, difference(chained, row));
                            return Ok(Err(row_fault(what)));
                        }
                        Some(_) => seen += 1,
                    }
                }
                compared += rows.len() as u64;
            }
            if seen < chained.len() {
                let missing = find_missing(transaction, table, chained).await?;
                return Ok(Err(row_fault(format!("{} `{missing}` was removed from `{}`", table.row, table.name))));
            }
        }
        let found = crate::record::journal::tally_intents(transaction).await?;
        if let Some((group, chained, found)) = self.known.intents.first_difference(&found) {
            let what = if chained.rows == found.rows {
                format!("of the {} intents of group `{group}` at least one was edited", found.rows)
            } else {
                format!("group `{group}` has {} intents, and {} were written", found.rows, chained.rows)
            };
            return Ok(Err(row_fault(what)));
        }
        Ok(Ok(compared))
    }
}

/// The first chained row that is not there.
async fn find_missing(
    transaction: &mut Transaction,
    table: &super::tracked::Table,
    chained: &BTreeMap<String, Value>,
) -> Result<String, RecordError> {
    let mut there = std::collections::BTreeSet::new();
    let mut after = String::new();
    loop {
        let rows = table.rows_after(transaction, &after).await?;
        let Some((last, _)) = rows.last() else { break };
        after.clone_from(last);
        there.extend(rows.into_iter().map(|(subject, _)| subject));
    }
    Ok(chained.keys().find(|subject| !there.contains(*subject)).cloned().unwrap_or_default())
}

/// The first field in which two differ. A column that a row was chained without, and that says nothing, is no difference: it came
/// with a newer version of the ledger.
fn differing_field<'v>(chained: &'v Value, row: &'v Value) -> Option<&'v String> {
    let mut fields = chained.as_object().into_iter().chain(row.as_object()).flat_map(Map::keys);
    fields.find(|field| chained[field.as_str()] != row[field.as_str()])
}

/// How two differ.
fn difference(chained: &Value, row: &Value) -> String {
    differing_field(chained, row).map_or_else(
        || "it is no row any more".to_owned(),
        |field| {
            let shown = |value: &Value| crate::model::visible(&value[field].to_string());
            format!("`{field}` is {}, and was {}", shown(row), shown(chained))
        },
    )
}

/// The chain up to the first entry that was not written before `before`; `None` where there is none.
pub(super) async fn fold_before(
    transaction: &mut Transaction,
    ledger: &Ledger,
    before: Timestamp,
) -> Result<Option<Fold>, RecordError> {
    let tampered = |fault: ChainFault| RecordError::Tampered(fault.to_string());
    let mut fold = Fold::begin(transaction, ledger).await?.map_err(tampered)?;
    let start = fold.number;
    loop {
        let entries = entries_after(transaction, fold.number).await?;
        let is_old = |entry: &Entry| entry.at.parse::<Timestamp>().is_ok_and(|at| at < before);
        for entry in &entries {
            if !is_old(entry) {
                return Ok((fold.number > start).then_some(fold));
            }
            fold.take(entry).map_err(tampered)?;
        }
        if entries.is_empty() {
            return Ok((fold.number > start).then_some(fold));
        }
    }
}

impl Ledger {
    /// Reads the chain from its start, or from its checkpoint, compares it with the rows, and looks for heads that were noted
    /// elsewhere.
    pub async fn verify_chain(&self, heads: &[KnownHead]) -> Result<ChainReport, RecordError> {
        let mut transaction = self.database.begin_reading("verify the chain").await?;
        let mut fold = match Fold::begin(&mut transaction, self).await? {
            Ok(fold) => fold,
            Err(fault) => return Ok(Err(fault)),
        };
        loop {
            let entries = entries_after(&mut transaction, fold.number).await?;
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                if let Err(fault) = fold.take(entry) {
                    return Ok(Err(fault));
                }
            }
        }
        let mut since = Vec::with_capacity(heads.len());
        for head in heads {
            match find_head(&mut transaction, &fold, head).await? {
                Ok(count) => since.push(count),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let rows = match fold.compare(&mut transaction).await? {
            Ok(rows) => rows,
            Err(fault) => return Ok(Err(fault)),
        };
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let summary_of = |(run, row): (&String, &Value)| Some((run.clone(), row["summary"].as_str()?.to_owned()));
        Ok(Ok(Verified {
            head: ChainHead { entries: unsigned(fold.number), hash: fold.hash },
            compacted: unsigned(fold.compacted),
            rows,
            since,
            summaries: fold.known.rows.get("run").into_iter().flatten().filter_map(summary_of).collect(),
        }))
    }
}

/// How many entries came after a head that was noted elsewhere.
async fn find_head(
    transaction: &mut Transaction,
    fold: &Fold,
    head: &KnownHead,
) -> Result<Result<Option<u64>, ChainFault>, RecordError> {
    let select = statement("look for a head in the chain", "SELECT number FROM chain WHERE hash = $1");
    if let Some(row) = select.bind(&head.hash.0[..]).optional(transaction).await? {
        let number: i64 = row.get("number")?;
        return Ok(Ok(u64::try_from(fold.number - number).ok()));
    }
    if head.hash == fold.begun {
        return Ok(Ok(u64::try_from(fold.number - fold.compacted).ok()));
    }
    let is_compacted = head.entries.is_some_and(|entries| i64::try_from(entries).is_ok_and(|n| n <= fold.compacted));
    if is_compacted {
        return Ok(Ok(None));
    }
    let older = match fold.compacted {
        0 => String::new(),
        compacted => format!(", unless it is one of the {compacted} entries that a checkpoint stands for"),
    };
    let what = format!(
        "the head {} {} is not in the chain, which has {} entries: what came up to it was cut off or written anew{older}",
        head.hash, head.noted, fold.number
    );
    Ok(Err(row_fault(what)))
}
