//! The protected ids that the ledger itself remembers: placed, and removed, by persons and on record.

use uuid::Uuid;

use super::chain::tracked::{HOLDS, note};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement};
use crate::decide::holds::{Hold, HoldSource};
use crate::model::{DatasetId, Timestamp};

/// A hold as the ledger remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// The hold.
    pub hold: Hold,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When a person removed it, if one did.
    pub removed_at: Option<Timestamp>,
    /// Who removed it, where that was told.
    pub removed_by: Option<String>,
    /// Why, where that was told.
    pub removed_reason: Option<String>,
}

impl Ledger {
    /// Protects an id, on record, until `until` or until a person removes the hold.
    pub async fn place_hold(
        &self,
        scope: &str,
        id: DatasetId,
        until: Option<Timestamp>,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        let step = "place a hold";
        let mut transaction = self.begin(step).await?;
        let row = statement(
            step,
            "INSERT INTO holds (scope, id, held_until, placed_by, reason, placed_at) VALUES ($1, $2, $3, $4, $5, $6) \
             RETURNING number",
        )
        .bind(scope)
        .bind(id)
        .bind(until)
        .bind(by)
        .bind(reason)
        .bind(at)
        .one(&mut transaction)
        .await?;
        note(&mut transaction, &HOLDS, "placed", &row.count("number")?.to_string()).await?;
        transaction.commit(step).await
    }

    /// Removes every hold on an id that still counts at `at`; says how many there were.
    pub async fn remove_holds(
        &self,
        scope: &str,
        id: DatasetId,
        by: Option<&str>,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<u64, RecordError> {
        let step = "remove a hold";
        let mut transaction = self.begin(step).await?;
        let removed = statement(
            step,
            "UPDATE holds SET removed_at = $3, removed_by = $4, removed_reason = $5 \
             WHERE scope = $1 AND id = $2 AND removed_at IS NULL AND (held_until IS NULL OR held_until > $3) RETURNING number",
        )
        .bind(scope)
        .bind(id)
        .bind(at)
        .bind(by)
        .bind(reason)
        .all(&mut transaction)
        .await?;
        for row in &removed {
            note(&mut transaction, &HOLDS, "removed", &row.count("number")?.to_string()).await?;
        }
        transaction.commit(step).await?;
        Ok(removed.len() as u64)
    }

    /// The holds of a scope that nobody removed, on one id or on all. Whether each has ended is for the reader to judge.
    pub async fn holds(&self, scope: &str, id: Option<DatasetId>) -> Result<Vec<Hold>, RecordError> {
        let rows = self.hold_rows(scope, id).await?;
        Ok(rows.into_iter().filter(|row| row.removed_at.is_none()).map(|row| row.hold).collect())
    }

    /// Every hold that was ever placed in a scope, on one id or on all, the oldest first.
    pub async fn hold_rows(&self, scope: &str, id: Option<DatasetId>) -> Result<Vec<HoldRow>, RecordError> {
        let step = "read the holds";
        let rows = match id {
            Some(id) => {
                statement(step, "SELECT * FROM holds WHERE scope = $1 AND id = $2 ORDER BY number").bind(scope).bind(id)
            }
            None => statement(step, "SELECT * FROM holds WHERE scope = $1 ORDER BY number").bind(scope),
        };
        rows.all(&self.database).await?.iter().map(read_hold).collect()
    }
}

fn read_hold(row: &Row) -> Result<HoldRow, RecordError> {
    Ok(HoldRow {
        hold: Hold {
            id: DatasetId(row.get::<Uuid>("id")?),
            until: row.get("held_until")?,
            by: Some(row.get("placed_by")?),
            reason: row.get("reason")?,
            source: HoldSource::Ledger,
        },
        placed_at: row.get("placed_at")?,
        removed_at: row.get("removed_at")?,
        removed_by: row.get("removed_by")?,
        removed_reason: row.get("removed_reason")?,
    })
}
