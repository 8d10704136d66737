//! Figures of the ledger for the metrics and the reports: which runs ended, why keys were kept, how large it is.

use super::ledger::{Ledger, RecordError};
use super::sql::{Database, Row, statement};
use crate::model::RunId;

impl Ledger {
    /// The newest `limit` runs of a scope that ended, the newest first.
    pub async fn ended_runs(&self, scope: &str, limit: u32) -> Result<Vec<String>, RecordError> {
        let select = "SELECT run_id FROM runs WHERE scope = $1 AND finished_at IS NOT NULL \
             AND run_id NOT IN (SELECT run_id FROM purges WHERE state IN ('intended', 'committed')) ORDER BY number DESC LIMIT $2";
        let rows = statement("read the ended runs", select).bind(scope).bind(limit).all(&self.database).await?;
        rows.iter().map(|row| row.get("run_id")).collect()
    }

    /// How many keys of a run were kept after all, by reason, as far as they are in the journal.
    pub async fn skipped_by_reason(&self, run: RunId) -> Result<Vec<(String, u64)>, RecordError> {
        let select = "SELECT reason, count(*) AS keys FROM intents WHERE run_id = $1 AND outcome = 'skipped' \
                      GROUP BY reason ORDER BY reason";
        let rows = statement("count the kept keys", select).bind(run).all(&self.database).await?;
        let read = |row: &Row| Ok((row.get("reason")?, row.count("keys")?));
        rows.iter().map(read).collect()
    }

    /// How many bytes it takes on its disk.
    pub async fn size_bytes(&self) -> Result<u64, RecordError> {
        let select = match &self.database {
            Database::Sqlite(_) => {
                "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()"
            }
            Database::Postgres(_) => {
                "SELECT CAST(coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0) AS BIGINT) AS bytes \
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE n.nspname = 'orphan_sweeper' AND c.relkind = 'r'"
            }
        };
        statement("measure it", select).one(&self.database).await?.count("bytes")
    }
}
