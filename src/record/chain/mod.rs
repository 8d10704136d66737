//! The chain: what was recorded, each entry bound to the one before by its hash, so that tampering shows.
//!
//! Takes what a transaction of the ledger writes; gives entries in the same transaction, so that a kill leaves both or none.
//! Runs, plans, allowances, acknowledgements, latches and baselines are chained row by row as they stand; the intents and outcomes
//! of single keys, which are many, as a digest of each batch and a tally of each group. [`verify`](Ledger::verify_chain)
//! reads all of it anew, and finds an edit, a removal, a reordering, and, by a head that was noted elsewhere, a truncation.
//!
//! What it cannot show: somebody who may write the ledger, and every report beside it, can chain another story from the first entry
//! on. Only a head that lies where they cannot write says otherwise: each `summary.json` and the last log line of each
//! run carry it, so keep either on another machine, or in a bucket with object lock. Nor does it show that what was
//! chained was true when it was written.

mod entry;
pub(super) mod tally;
pub(super) mod tracked;
mod verify;

pub use verify::{ChainFault, KnownHead, Verified};

use serde_json::{Value, json};

use self::entry::{Entry, genesis};
use self::tracked::TABLES;
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Transaction, statement};
use crate::clock::{Clock as _, SystemClock};
use crate::model::{Sha256Hash, Timestamp};

/// Where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// How many entries it has had, those that a checkpoint stands for included.
    pub entries: u64,
    /// The hash of the last.
    pub hash: Sha256Hash,
}

/// A checkpoint carries what is known of every row, so it must stand for more than it weighs.
const WORTH_A_CHECKPOINT: u64 = 2000;

/// Entries that are read at a time.
const PAGE: i64 = 500;

/// Appends an entry in the transaction that it tells of.
///
/// `kind` says what happened, `subject` to what, and `payload` the details. A row of a table that verification should
/// compare is chained by [`tracked::note`] instead.
pub(super) async fn append(
    transaction: &mut Transaction,
    kind: &str,
    subject: &str,
    payload: &Value,
) -> Result<(), RecordError> {
    let last = last_entry(transaction).await?.ok_or(RecordError::Tampered("it is empty".into()))?;
    insert(transaction, &Entry::after(last, SystemClock.now(), kind, subject, payload)).await
}

async fn insert(transaction: &mut Transaction, entry: &Entry) -> Result<(), RecordError> {
    let insert =
        "INSERT INTO chain (number, at, kind, subject, payload, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    statement("append to the chain", insert)
        .bind(entry.number)
        .bind(&entry.at)
        .bind(&entry.kind)
        .bind(&entry.subject)
        .bind(&entry.payload)
        .bind(&entry.previous.0[..])
        .bind(&entry.hash.0[..])
        .run(transaction)
        .await
        .map(drop)
}

/// Number and hash of the last entry.
async fn last_entry(transaction: &mut Transaction) -> Result<Option<(i64, Sha256Hash)>, RecordError> {
    let select = "SELECT number, hash FROM chain ORDER BY number DESC LIMIT 1";
    let row = statement("read the head of the chain", select).optional(transaction).await?;
    row.map(|row| Ok((row.get("number")?, read_hash(&row, "hash")?))).transpose()
}

/// The entries after `number`, up to [`PAGE`] of them.
async fn entries_after(transaction: &mut Transaction, number: i64) -> Result<Vec<Entry>, RecordError> {
    let select = "SELECT number, at, kind, subject, payload, previous, hash FROM chain WHERE number > $1 ORDER BY number LIMIT $2";
    let rows = statement("read the chain", select).bind(number).bind(PAGE).all(transaction).await?;
    let read = |row: &Row| {
        Ok(Entry {
            number: row.get("number")?,
            at: row.get("at")?,
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            payload: row.get("payload")?,
            previous: read_hash(row, "previous")?,
            hash: read_hash(row, "hash")?,
        })
    };
    rows.iter().map(read).collect()
}

/// What somebody does who knows how entries are sealed: says something else in one, and seals it anew.
#[cfg(test)]
pub(super) async fn forge(transaction: &mut Transaction, number: i64, kind: &str) -> Result<(), RecordError> {
    let mut entry = entries_after(transaction, number - 1).await?.remove(0);
    kind.clone_into(&mut entry.kind);
    let update = "UPDATE chain SET kind = $2, hash = $3 WHERE number = $1";
    statement("forge", update).bind(number).bind(kind).bind(&entry.seal().0[..]).run(transaction).await.map(drop)
}

fn read_hash(row: &Row, column: &'static str) -> Result<Sha256Hash, RecordError> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(Sha256Hash(bytes.try_into().map_err(|_| RecordError::Unreadable("a hash of the chain"))?))
}

impl Ledger {
    /// Begins the chain of a ledger that has none: whatever rows it has by then are taken as they are.
    pub(super) async fn begin_chain(&self) -> Result<(), RecordError> {
        const STEP: &str = "begin the chain";
        // Nearly always it has one, and a look takes no lock.
        if last_entry(&mut self.database.begin_reading(STEP).await?).await?.is_some() {
            return Ok(());
        }
        let mut transaction = self.begin(STEP).await?;
        // Once only: a chain that is gone is not begun anew, as if nothing had been in it.
        let begun = "INSERT INTO meta (key, value) VALUES ('chain', 'begun') ON CONFLICT DO NOTHING";
        if statement(STEP, begun).run(&mut transaction).await? == 0 {
            return Ok(());
        }
        let payload = json!({ "ledger": self.id(), "created_at": self.created_at() });
        let start = (0, genesis(self.id(), self.created_at()));
        let first = Entry::after(start, SystemClock.now(), "ledger", &self.id().to_string(), &payload);
        insert(&mut transaction, &first).await?;
        for table in TABLES {
            let mut after = String::new();
            loop {
                let rows = table.rows_after(&mut transaction, &after).await?;
                let Some((last, _)) = rows.last() else { break };
                after.clone_from(last);
                for (subject, payload) in &rows {
                    append(&mut transaction, &format!("{}.adopted", table.row), subject, payload).await?;
                }
            }
        }
        let intents = super::journal::tally_intents(&mut transaction).await?;
        if !intents.is_empty() {
            append(&mut transaction, "intents.adopted", "", &json!({ "change": intents.to_json() })).await?;
        }
        transaction.commit(STEP).await
    }

    /// Where the chain ends now.
    pub async fn chain_head(&self) -> Result<ChainHead, RecordError> {
        let mut transaction = self.database.begin_reading("read the head of the chain").await?;
        let (number, hash) = last_entry(&mut transaction).await?.ok_or(RecordError::Tampered("it is empty".into()))?;
        Ok(ChainHead { entries: u64::try_from(number).unwrap_or(0), hash })
    }

    /// Replaces the entries written before `before` by one that carries the head they led to, how many they were, and what they said
    /// of the rows. It is the last entry of the chain; says how many were replaced.
    ///
    /// - Errors: [`RecordError::Tampered`] where they do not verify: what is wrong would be gone with them.
    #[allow(dead_code, reason = "what removes old rows calls it")]
    pub async fn checkpoint_chain(&self, before: Timestamp) -> Result<u64, RecordError> {
        self.checkpoint(before, WORTH_A_CHECKPOINT).await
    }

    /// Does so where it replaces at least `worth` entries.
    pub(super) async fn checkpoint(&self, before: Timestamp, worth: u64) -> Result<u64, RecordError> {
        const STEP: &str = "compact the chain";
        let mut transaction = self.begin(STEP).await?;
        let kept = verify::fold_before(&mut transaction, self, before).await?;
        let Some(kept) = kept.filter(|kept| kept.taken() >= worth) else { return Ok(0) };
        let (through, head) = kept.end();
        append(&mut transaction, verify::CHECKPOINT, &head.to_string(), &kept.to_json()).await?;
        let deleted =
            statement(STEP, "DELETE FROM chain WHERE number <= $1").bind(through).run(&mut transaction).await?;
        transaction.commit(STEP).await?;
        Ok(deleted)
    }
}
