//! The sightings: who was seen as an orphan, since when, and unchanged.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::chain::tracked::{BASELINES, note};
use super::journal;
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Statement, Transaction, statement, tuples};
use super::wanted::QUARANTINED_PLANS;
use crate::decide::breakers::Baseline;
use crate::decide::sightings::Sighting;
use crate::model::{DatasetId, RunId, Sha256Hash};

/// How a scan differs from the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanDelta {
    /// Orphans that the scan before did not have.
    pub new: u64,
    /// Orphans that both had.
    pub persisting: u64,
    /// Orphans that only the scan before had.
    pub resolved: u64,
    /// Orphans of which no sighting could begin, because somebody else looked meanwhile.
    pub not_begun: u64,
}

/// Whose scan is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    /// The run.
    pub run: RunId,
    /// The number of its look at the rows, by [`Ledger::note_look`], if nobody else looked since it began.
    pub alone: Option<u64>,
}

/// Rows that one statement writes.
const ROWS_AT_ONCE: usize = 500;

impl Ledger {
    /// The sightings of an id so far.
    pub async fn sighting(&self, scope: &str, id: DatasetId) -> Result<Option<Sighting>, RecordError> {
        let select = statement("read the sightings of an id", "SELECT * FROM sightings WHERE scope = $1 AND id = $2");
        let row = select.bind(scope).bind(id).optional(&self.database).await?;
        row.map(|row| read_sighting(&row)).transpose()
    }

    /// Takes in a good scan, as a whole or not at all: the sightings of its orphans, the end of all others, and the new
    /// baseline. Sightings that another process has ended or changed since the scan read them start again with this run; where
    /// somebody else looked at the rows since this scan began, none starts, because the other may have seen its id live. Nor does one
    /// of what was purged since this run began: it was live then.
    pub async fn record_scan(
        &self,
        scope: &str,
        Looked { run, alone }: Looked,
        orphans: &[(DatasetId, Sighting)],
        baseline: &Baseline,
    ) -> Result<ScanDelta, RecordError> {
        const STEP: &str = "record the scan";
        let mut transaction = self.begin(STEP).await?;
        let before = statement(STEP, "SELECT count(*) AS ids FROM sightings WHERE scope = $1").bind(scope);
        let before = before.one(&mut transaction).await?.count("ids")?;
        let is_alone = alone.is_some() && number_of(&mut transaction, scope).await? == alone;
        let purged = purged_since(&mut transaction, run).await?;
        let mut not_begun = 0_u64;
        for orphans in orphans.chunks(ROWS_AT_ONCE) {
            let mut orphans = as_they_go_on(&mut transaction, scope, run, orphans).await?;
            let all = orphans.len();
            orphans.retain(|(id, sighting)| sighting.first_run != run || is_alone && !purged.contains(id));
            not_begun += (all - orphans.len()) as u64;
            if orphans.is_empty() {
                continue;
            }
            write_sightings(&mut transaction, scope, run, &orphans).await?;
        }
        let resolved =
            statement(STEP, "DELETE FROM sightings WHERE scope = $1 AND last_run <> $2").bind(scope).bind(run);
        let resolved = resolved.run(&mut transaction).await?;
        // What a closed plan, or a purge, asked for and nobody sees any more is done with, but for what alone says whose copies lie
        // in a quarantine.
        let done_with = format!(
            "scope = $1 AND (plan_hash IN (SELECT hash FROM plans WHERE state = 'closed') \
             OR plan_hash IN (SELECT plan_hash FROM purges WHERE state = 'done')) \
             AND id NOT IN (SELECT id FROM sightings WHERE scope = $1) \
             AND (EXISTS (SELECT 1 FROM disposals AS d WHERE d.plan_hash = intents.plan_hash AND d.id = intents.id) \
             OR plan_hash NOT IN {QUARANTINED_PLANS})"
        );
        journal::compact(&mut transaction, &run.to_string(), &done_with, scope).await?;
        write_baseline(&mut transaction, scope, run, baseline).await?;
        transaction.commit(STEP).await?;
        let persisting = before.saturating_sub(resolved);
        let new = (orphans.len() as u64).saturating_sub(persisting + not_begun);
        Ok(ScanDelta { new, persisting, resolved, not_begun })
    }

    /// Starts the sightings of these ids again: they were seen live, so whatever was planned for them is off for good.
    pub async fn forget(&self, scope: &str, ids: &[DatasetId]) -> Result<(), RecordError> {
        const STEP: &str = "start sightings again";
        if ids.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin(STEP).await?;
        count_look(&mut transaction, scope).await?;
        end_sightings(&mut transaction, scope, ids).await?;
        transaction.commit(STEP).await
    }

    /// Starts the sightings of these ids again in every scope, where a purge saw them live. It is no look at a whole scope, and is
    /// counted as none.
    pub async fn end_sightings_of(&self, ids: &[DatasetId]) -> Result<(), RecordError> {
        const STEP: &str = "start the sightings of live datasets again";
        let mut transaction = self.begin(STEP).await?;
        for id in ids {
            statement(STEP, "DELETE FROM sightings WHERE id = $1").bind(*id).run(&mut transaction).await?;
        }
        transaction.commit(STEP).await
    }

    /// The number of the last look at the rows of a scope: what a scan asks for before its own.
    pub async fn last_look(&self, scope: &str) -> Result<u64, RecordError> {
        const STEP: &str = "read the number of the last look";
        let mut transaction = self.begin(STEP).await?;
        let insert = "INSERT INTO looks (scope, number) VALUES ($1, 0) ON CONFLICT (scope) DO NOTHING";
        statement(STEP, insert).bind(scope).run(&mut transaction).await?;
        let number = number_of(&mut transaction, scope).await?;
        transaction.commit(STEP).await?;
        Ok(number.unwrap_or(0))
    }

    /// Notes a look at all rows of a scope, which saw `live` of the ids that had sightings `before` it. Their sightings start again;
    /// those that began meanwhile do too, because nobody knows whether this look saw them live. Gives its number.
    pub async fn note_look(
        &self,
        scope: &str,
        live: &[DatasetId],
        before: &HashSet<DatasetId>,
    ) -> Result<u64, RecordError> {
        const STEP: &str = "note a look at the rows";
        let mut transaction = self.begin(STEP).await?;
        count_look(&mut transaction, scope).await?;
        let select = statement(STEP, "SELECT id FROM sightings WHERE scope = $1").bind(scope);
        let mut over = live.to_vec();
        for row in select.all(&mut transaction).await? {
            let id = DatasetId(row.get("id")?);
            if !before.contains(&id) {
                over.push(id);
            }
        }
        end_sightings(&mut transaction, scope, &over).await?;
        let number = number_of(&mut transaction, scope).await?;
        transaction.commit(STEP).await?;
        Ok(number.unwrap_or(0))
    }

    /// Makes the next scan take an id for changed, whatever it sees: a look in between saw something else.
    pub async fn spoil(&self, scope: &str, id: DatasetId) -> Result<(), RecordError> {
        const STEP: &str = "spoil the sightings of an id";
        let mut transaction = self.begin(STEP).await?;
        let update = "UPDATE sightings SET digest = $3 WHERE scope = $1 AND id = $2";
        statement(STEP, update).bind(scope).bind(id).bind(&[0; 32][..]).run(&mut transaction).await?;
        transaction.commit(STEP).await
    }

    /// The ids that have sightings.
    pub async fn sighted_ids(&self, scope: &str) -> Result<Vec<DatasetId>, RecordError> {
        let select = statement("read the sighted ids", "SELECT id FROM sightings WHERE scope = $1").bind(scope);
        select.all(&self.database).await?.iter().map(|row| row.get("id").map(DatasetId)).collect()
    }

    /// Starts all sightings of a scope again; says how many there were.
    pub async fn forget_all(&self, scope: &str) -> Result<u64, RecordError> {
        let delete = statement("start all sightings again", "DELETE FROM sightings WHERE scope = $1").bind(scope);
        delete.run(&self.database).await
    }
}

#[cfg(test)]
impl Ledger {
    /// Takes in a scan beside which nobody else looked.
    pub async fn record_lone_scan(
        &self,
        scope: &str,
        run: RunId,
        orphans: &[(DatasetId, Sighting)],
        baseline: &Baseline,
    ) -> Result<ScanDelta, RecordError> {
        let alone = Some(self.last_look(scope).await?);
        self.record_scan(scope, Looked { run, alone }, orphans, baseline).await
    }
}

async fn count_look(transaction: &mut Transaction, scope: &str) -> Result<(), RecordError> {
    let update = "UPDATE looks SET number = number + 1 WHERE scope = $1";
    statement("count a look", update).bind(scope).run(transaction).await.map(drop)
}

async fn number_of(transaction: &mut Transaction, scope: &str) -> Result<Option<u64>, RecordError> {
    let select = statement("read the number of the last look", "SELECT number FROM looks WHERE scope = $1");
    select.bind(scope).optional(transaction).await?.map(|row| row.count("number")).transpose()
}

/// What was purged, in any scope, since this run began.
async fn purged_since(transaction: &mut Transaction, run: RunId) -> Result<HashSet<DatasetId>, RecordError> {
    let select = "SELECT id FROM purged_ids WHERE run_id IN \
                  (SELECT run_id FROM runs WHERE number > (SELECT number FROM runs WHERE run_id = $1))";
    let rows = statement("look for what was purged since", select).bind(run).all(transaction).await?;
    rows.iter().map(|row| Ok(DatasetId(row.get("id")?))).collect()
}

async fn end_sightings(transaction: &mut Transaction, scope: &str, ids: &[DatasetId]) -> Result<(), RecordError> {
    for ids in ids.chunks(ROWS_AT_ONCE) {
        let places: Vec<String> = (0..ids.len()).map(|place| format!("${}", place + 2)).collect();
        let delete = format!("DELETE FROM sightings WHERE scope = $1 AND id IN ({})", places.join(", "));
        let delete = statement("start sightings again", delete).bind(scope);
        ids.iter().fold(delete, |delete, id| delete.bind(*id)).run(&mut *transaction).await?;
    }
    Ok(())
}

/// The sightings as they can be written: those that go on must go on from what is there. Where another process forgot,
/// spoiled or continued them since this scan read them, writing them as they were computed would undo that, and bring a
/// plan back that is off for good.
async fn as_they_go_on(
    transaction: &mut Transaction,
    scope: &str,
    run: RunId,
    orphans: &[(DatasetId, Sighting)],
) -> Result<Vec<(DatasetId, Sighting)>, RecordError> {
    let places: Vec<String> = (0..orphans.len()).map(|place| format!("${}", place + 2)).collect();
    let select = format!("SELECT * FROM sightings WHERE scope = $1 AND id IN ({})", places.join(", "));
    let select = statement("record the scan", select).bind(scope);
    let rows = orphans.iter().fold(select, |select, (id, _)| select.bind(*id)).all(&mut *transaction).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert(DatasetId(row.get("id")?), read_sighting(row)?);
    }
    let goes_on = |id: &DatasetId, sighting: &Sighting| {
        let is_next = |before: &Sighting| {
            before.first_run == sighting.first_run
                && before.digest == sighting.digest
                && before.sightings.saturating_add(1) == sighting.sightings
        };
        sighting.first_run == run || found.get(id).is_some_and(is_next)
    };
    let written = |(id, sighting): &(DatasetId, Sighting)| {
        let sighting = if goes_on(id, sighting) {
            sighting.clone()
        } else {
            Sighting::first(run, sighting.last_seen, sighting.digest)
        };
        (*id, sighting)
    };
    Ok(orphans.iter().map(written).collect())
}

async fn write_sightings(
    transaction: &mut Transaction,
    scope: &str,
    run: RunId,
    orphans: &[(DatasetId, Sighting)],
) -> Result<(), RecordError> {
    // One id stands in a statement once: Postgres takes no row twice.
    let orphans: BTreeMap<DatasetId, &Sighting> = orphans.iter().map(|(id, sighting)| (*id, sighting)).collect();
    let upsert = format!(
        "INSERT INTO sightings (scope, id, first_run, first_seen, last_run, last_seen, sightings, witnessed_ms, digest) VALUES {} \
         ON CONFLICT (scope, id) DO UPDATE SET first_run = excluded.first_run, first_seen = excluded.first_seen, \
         last_run = excluded.last_run, last_seen = excluded.last_seen, sightings = excluded.sightings, \
         witnessed_ms = excluded.witnessed_ms, digest = excluded.digest",
        tuples(orphans.len(), 9)
    );
    let bind = |upsert: Statement, (id, sighting): (DatasetId, &Sighting)| {
        upsert
            .bind(scope)
            .bind(id)
            .bind(sighting.first_run)
            .bind(sighting.first_seen)
            .bind(run)
            .bind(sighting.last_seen)
            .bind(sighting.sightings)
            .bind(sighting.witnessed.num_milliseconds())
            .bind(&sighting.digest.0[..])
    };
    let upsert = orphans.into_iter().fold(statement("record the scan", upsert), bind);
    upsert.run(transaction).await.map(drop)
}

fn read_sighting(row: &Row) -> Result<Sighting, RecordError> {
    let unreadable = || RecordError::Unreadable("a sighting");
    let (first_run, digest): (String, Vec<u8>) = (row.get("first_run")?, row.get("digest")?);
    Ok(Sighting {
        first_run: RunId(Uuid::parse_str(&first_run).map_err(|_| unreadable())?),
        first_seen: row.get("first_seen")?,
        last_seen: row.get("last_seen")?,
        sightings: u32::try_from(row.get::<i64>("sightings")?).map_err(|_| unreadable())?,
        witnessed: chrono::Duration::milliseconds(row.get("witnessed_ms")?),
        digest: Sha256Hash(digest.try_into().map_err(|_| unreadable())?),
        is_changed: false,
    })
}

/// Sets the baseline of a scope inside a transaction.
pub(super) async fn write_baseline(
    transaction: &mut Transaction,
    scope: &str,
    run: RunId,
    baseline: &Baseline,
) -> Result<(), RecordError> {
    let baseline = serde_json::to_string(baseline).map_err(|_| RecordError::Unreadable("a baseline"))?;
    let upsert = "INSERT INTO baselines (scope, baseline, run_id) VALUES ($1, $2, $3) \
                  ON CONFLICT (scope) DO UPDATE SET baseline = $2, run_id = $3";
    statement("set the baseline", upsert).bind(scope).bind(baseline).bind(run).run(&mut *transaction).await?;
    note(transaction, &BASELINES, "set", scope).await
}
