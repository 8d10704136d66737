//! Ids of which copies may lie in quarantine, and when each was last wanted.
//!
//! Invariant: that an id was wanted is noted before anything of its copies is asked for, and outlives the process: one answer
//! without its row, between two transactions of the platform, is then not the last word on the only copies that are left.

use std::collections::HashMap;

use super::ledger::{Ledger, RecordError};
use super::sql::{Row, statement, tuples};
use crate::model::{DatasetId, Timestamp};

/// Ids of one statement: far below what either kind of ledger allows.
const IDS_AT_ONCE: usize = 500;

/// The plans that filled a quarantine of scope `$1` which is not emptied yet.
pub(super) const QUARANTINED_PLANS: &str = "(SELECT plan_hash FROM undos WHERE scope = $1 AND kind = 'quarantine' AND state = 'kept' \
     UNION SELECT s.plan_hash FROM plan_steps AS s JOIN undos AS u ON u.run_id = s.run_id \
     WHERE u.scope = $1 AND u.kind = 'quarantine' AND u.state = 'kept')";

impl Ledger {
    /// The ids of which copies may lie in a quarantine of the scope.
    pub async fn quarantined_ids(&self, scope: &str) -> Result<Vec<DatasetId>, RecordError> {
        const STEP: &str = "read whose copies lie in quarantine";
        let kept = "SELECT 1 FROM undos WHERE scope = $1 AND kind = 'quarantine' AND state = 'kept' LIMIT 1";
        let kept = statement(STEP, kept);
        if kept.bind(scope).optional(&self.database).await?.is_none() {
            return Ok(Vec::new());
        }
        let select = format!(
            "SELECT id FROM disposals WHERE scope = $1 AND plan_hash IN {QUARANTINED_PLANS} \
             UNION SELECT id FROM intents WHERE scope = $1 AND plan_hash IN {QUARANTINED_PLANS}"
        );
        let rows = statement(STEP, select).bind(scope).all(&self.database).await?;
        rows.iter().map(|row| row.get("id").map(DatasetId)).collect()
    }

    /// Notes that these ids were wanted at `at`. What was noted of a later time stays.
    pub async fn want(&self, scope: &str, ids: &[DatasetId], at: Timestamp) -> Result<(), RecordError> {
        const STEP: &str = "note who is wanted";
        if ids.is_empty() {
            return Ok(());
        }
        let known = self.wanted_ids(scope).await?;
        let mut later: Vec<DatasetId> =
            ids.iter().copied().filter(|id| known.get(id).is_none_or(|known| *known < at)).collect();
        later.sort_unstable();
        later.dedup();
        let mut transaction = self.begin(STEP).await?;
        for ids in later.chunks(IDS_AT_ONCE) {
            let upsert = format!(
                "INSERT INTO wanted_ids (scope, id, wanted_at) VALUES {} ON CONFLICT (scope, id) DO UPDATE SET wanted_at = excluded.wanted_at",
                tuples(ids.len(), 3)
            );
            let upsert = ids.iter().fold(statement(STEP, upsert), |upsert, id| upsert.bind(scope).bind(*id).bind(at));
            upsert.run(&mut transaction).await?;
        }
        transaction.commit(STEP).await
    }

    /// When each id was last wanted.
    pub async fn wanted_ids(&self, scope: &str) -> Result<HashMap<DatasetId, Timestamp>, RecordError> {
        let select = statement("read who was wanted", "SELECT id, wanted_at FROM wanted_ids WHERE scope = $1");
        let rows = select.bind(scope).all(&self.database).await?;
        let read = |row: &Row| Ok((DatasetId(row.get("id")?), row.get("wanted_at")?));
        rows.iter().map(read).collect()
    }
}
