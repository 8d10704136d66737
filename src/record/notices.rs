//! Messages that nobody took, kept until a report has told them.

use sqlx::FromRow;

use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement};
use crate::model::{RunId, Timestamp};

/// A message that nobody took.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UndeliveredRow {
    /// Its place.
    #[serde(skip)]
    pub number: i64,
    /// The scope of the run.
    pub scope: String,
    /// The run that it was about.
    pub run_id: String,
    /// `webhook` or `heartbeat`.
    pub channel: String,
    /// When it was given up.
    pub at: Timestamp,
    /// Why.
    pub error: String,
}

/// Rows that a report or the history shows.
const MOST_SHOWN: u32 = 20;

const COLUMNS: &str = "number, scope, run_id, channel, at, error";

impl Ledger {
    /// Notes a message that nobody took; `told_by` is the run whose report tells it already.
    pub async fn note_undelivered(&self, row: &UndeliveredRow, told_by: Option<RunId>) -> Result<(), RecordError> {
        let insert =
            "INSERT INTO undelivered (scope, run_id, channel, at, error, told_by) VALUES ($1, $2, $3, $4, $5, $6)";
        let insert = statement("note an undelivered message", insert).bind(&row.scope).bind(&row.run_id);
        let insert = insert.bind(&row.channel).bind(row.at).bind(&row.error).bind(told_by);
        insert.run(&self.database).await.map(drop)
    }

    /// The newest messages of a scope that nobody took and no report has told.
    pub async fn untold_messages(&self, scope: &str) -> Result<Vec<UndeliveredRow>, RecordError> {
        let select = format!(
            "SELECT {COLUMNS} FROM undelivered WHERE scope = $1 AND told_by IS NULL ORDER BY number DESC LIMIT $2"
        );
        let select = statement("read the undelivered messages", select).bind(scope).bind(MOST_SHOWN);
        select.all(&self.database).await?.iter().map(Row::read).collect()
    }

    /// Notes that the report of `run` told the messages of a scope up to `number`.
    pub async fn mark_told(&self, scope: &str, number: i64, run: RunId) -> Result<(), RecordError> {
        let update = "UPDATE undelivered SET told_by = $3 WHERE scope = $1 AND number <= $2 AND told_by IS NULL";
        let update = statement("mark the messages as told", update).bind(scope).bind(number).bind(run);
        update.run(&self.database).await.map(drop)
    }

    /// The newest messages that nobody took, of one scope or of all.
    pub async fn undelivered(&self, scope: Option<&str>) -> Result<Vec<UndeliveredRow>, RecordError> {
        let select =
            format!("SELECT {COLUMNS} FROM undelivered WHERE $1 IS NULL OR scope = $1 ORDER BY number DESC LIMIT $2");
        let select = statement("read the undelivered messages", select).bind(scope).bind(MOST_SHOWN);
        select.all(&self.database).await?.iter().map(Row::read).collect()
    }

    /// Forgets the messages from before `before`; says how many there were.
    pub async fn forget_undelivered(&self, scope: &str, before: Timestamp) -> Result<u64, RecordError> {
        let delete = "DELETE FROM undelivered WHERE scope = $1 AND at < $2";
        statement("forget old messages", delete).bind(scope).bind(before).run(&self.database).await
    }
}
