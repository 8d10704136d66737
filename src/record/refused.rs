//! What the store shows in spite of its deletion: ghosts, and what object lock holds.
//!
//! Invariant: only a group of which nothing else is left counts as refused, so that a failure is never put to rest.

use super::journal::{Intent, end_of};
use super::ledger::{Ledger, RecordError};
use super::sql::statement;
use crate::model::{DatasetId, RunId, Timestamp};

/// The reason of a key that the store deleted, has no more, and lists all the same.
pub const GHOST: &str = "ghost";
/// The reason of a key that a retention or a legal hold keeps.
pub const OBJECT_LOCK: &str = "object_lock";
/// What became of a group of which only ghosts and locked objects are left.
pub const REFUSED: &str = "refused";

/// Keys that a run asked for and the store shows still, by their kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedKeys {
    /// Deleted, and listed all the same.
    pub ghosts: u64,
    /// Held by object lock.
    pub locked: u64,
}

impl Ledger {
    /// Whether every key of the intent's group that was asked for and is not gone is a ghost or locked, and there is one.
    pub async fn is_refused(&self, intent: &Intent<'_>) -> Result<bool, RecordError> {
        let row = statement(
            "look what is left of a group",
            "SELECT coalesce(sum(CASE WHEN reason IN ('ghost', 'object_lock') THEN 1 ELSE 0 END), 0) AS refused, \
             coalesce(sum(CASE WHEN outcome IN ('deleted', 'already_gone') OR reason = 'object_lock' THEN 0 ELSE 1 END), 0) AS others \
             FROM intents WHERE scope = $1 AND key >= $2 AND key < $3 AND prefix = $2 AND plan_hash = $4",
        )
        .bind(intent.scope)
        .bind(intent.prefix.as_bytes())
        .bind(end_of(intent.prefix))
        .bind(intent.plan)
        .one(&self.database)
        .await?;
        Ok(row.count("refused")? > 0 && row.count("others")? == 0)
    }

    /// How many keys of a run are of either kind.
    pub async fn refused_keys(&self, run: RunId) -> Result<RefusedKeys, RecordError> {
        let rows = statement(
            "count what the store would not delete",
            "SELECT reason, count(*) AS keys FROM intents WHERE run_id = $1 AND reason IN ('ghost', 'object_lock') GROUP BY reason",
        )
        .bind(run)
        .all(&self.database)
        .await?;
        let mut keys = RefusedKeys::default();
        for row in rows {
            match row.get::<String>("reason")?.as_str() {
                GHOST => keys.ghosts = row.count("keys")?,
                _ => keys.locked = row.count("keys")?,
            }
        }
        Ok(keys)
    }

    /// When the store last refused what was left of an id, if no later disposal of it ended otherwise.
    pub async fn refused_at(&self, scope: &str, id: DatasetId) -> Result<Option<Timestamp>, RecordError> {
        let row = statement(
            "read what became of an id",
            "SELECT outcome, at FROM disposals WHERE scope = $1 AND id = $2 AND outcome <> 'gone' ORDER BY at DESC LIMIT 1",
        )
        .bind(scope)
        .bind(id)
        .optional(&self.database)
        .await?;
        let Some(row) = row else { return Ok(None) };
        (row.get::<String>("outcome")? == REFUSED).then(|| row.get("at")).transpose()
    }
}
