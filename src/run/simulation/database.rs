//! A database that keeps the contract of the real one: an error or a mismatch where Postgres gives one, and a lie where
//! Postgres itself would lie.

use std::collections::BTreeSet;

use super::world::{RowState, Steering, World};
use crate::list::references::{
    Anchor, DatabaseIdentity, LiveRow, OpenTransactions, ProvenReferences, ProvenTable, Recognised, ReferencesError,
    SENTINELS, TableIdentity, check_anchor,
};
use crate::model::{DatasetId, Timestamp};

/// What is wrong with the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseFault {
    /// Nothing.
    None,
    /// No connection.
    Down,
    /// Row-level security is on, and `row_security = off` turns that into an error.
    RowSecurity,
    /// It is a standby.
    Standby,
    /// The stream is cut: other rows arrive than the proof counted.
    Cut,
    /// Truncated and being loaded again, or half restored: these rows are not there, and nothing says so.
    Fewer(BTreeSet<DatasetId>),
    /// Another table was swapped in; it holds these rows.
    Swapped(BTreeSet<DatasetId>),
    /// A promotion or a point-in-time recovery; it holds these rows.
    OtherTimeline(BTreeSet<DatasetId>),
    /// The address leads to another cluster, which holds these rows.
    Elsewhere(BTreeSet<DatasetId>),
}

impl World {
    fn identity(&self) -> DatabaseIdentity {
        let (mut system, mut timeline, mut oid) = (7000, 1, 16_384);
        // Each time another one than before: a first good scan of one must not make the next the one that is expected.
        let other = i64::from(self.other_databases);
        match &self.database_fault {
            DatabaseFault::Swapped(_) => oid += other,
            DatabaseFault::OtherTimeline(_) => timeline += other,
            DatabaseFault::Elsewhere(_) => system += other,
            DatabaseFault::None
            | DatabaseFault::Down
            | DatabaseFault::RowSecurity
            | DatabaseFault::Standby
            | DatabaseFault::Cut
            | DatabaseFault::Fewer(_) => {}
        }
        DatabaseIdentity {
            system: system.to_string(),
            timeline: format!("{timeline:08X}"),
            database: "platform".into(),
            tables: vec![TableIdentity { name: self.table.clone(), oid }],
        }
    }

    /// The committed rows that a reader sees.
    fn visible(&self) -> Vec<DatasetId> {
        let live = self.datasets.iter().filter(|(_, dataset)| dataset.row == RowState::Live).map(|(id, _)| *id);
        match &self.database_fault {
            DatabaseFault::Fewer(missing) => live.filter(|id| !missing.contains(id)).collect(),
            DatabaseFault::Swapped(held) | DatabaseFault::OtherTimeline(held) | DatabaseFault::Elsewhere(held) => {
                held.iter().copied().collect()
            }
            DatabaseFault::None
            | DatabaseFault::Down
            | DatabaseFault::RowSecurity
            | DatabaseFault::Standby
            | DatabaseFault::Cut => live.collect(),
        }
    }

    fn refuse(&self) -> Result<(), ReferencesError> {
        match self.database_fault {
            DatabaseFault::Down => Err(ReferencesError::Connect {
                shown: "postgres://simulation".into(),
                source: sqlx::Error::PoolTimedOut,
            }),
            DatabaseFault::RowSecurity => Err(ReferencesError::Statement {
                step: "read: query would be affected by row-level security policy".into(),
                source: sqlx::Error::RowNotFound,
            }),
            DatabaseFault::Standby => Err(ReferencesError::Standby),
            DatabaseFault::None
            | DatabaseFault::Cut
            | DatabaseFault::Fewer(_)
            | DatabaseFault::Swapped(_)
            | DatabaseFault::OtherTimeline(_)
            | DatabaseFault::Elsewhere(_) => Ok(()),
        }
    }

    pub(super) fn database_time(&self) -> Timestamp {
        self.now + self.ahead + self.database_ahead
    }

    /// A complete read, as a run makes it once.
    pub(super) fn read(
        &mut self,
        run: usize,
        visit: &mut dyn FnMut(LiveRow),
    ) -> Result<ProvenReferences, ReferencesError> {
        self.refuse()?;
        let mut rows = self.visible();
        if let Some((hidden, reads)) = &mut self.hidden_row
            && *reads > 0
        {
            *reads -= 1;
            rows.retain(|id| id != hidden);
            if let Some(dataset) = self.datasets.get_mut(hidden) {
                dataset.hidden_since.get_or_insert(self.now);
            }
        }
        let expected = rows.len() as u64;
        if self.database_fault == DatabaseFault::Cut {
            rows.truncate(rows.len() / 2);
        }
        let identity = self.identity();
        for id in &rows {
            self.see_live(*id);
            let created_at = Some(self.begun - chrono::Duration::days(60));
            visit(LiveRow { id: *id, table: 0, created_at, expects_objects: true });
        }
        let arrived = rows.len() as u64;
        self.tell(&format!("run {run} reads {arrived} of {expected} rows"));
        if arrived != expected {
            return Err(ReferencesError::Unproven { table: self.table_name.clone(), expected, arrived });
        }
        self.read_at.insert(run, self.step);
        if self.steering == Steering::RowsComeAndGo {
            self.come_back_unseen();
        }
        let since = self.datasets.values().filter_map(|dataset| match dataset.row {
            RowState::Uncommitted(since) => Some(since + self.ahead + self.database_ahead),
            RowState::Absent | RowState::Live => None,
        });
        let open_transactions =
            if self.hides_transactions { OpenTransactions::Hidden } else { OpenTransactions::Since(since.min()) };
        let sentinels: Vec<DatasetId> = rows.iter().take(SENTINELS).copied().collect();
        self.sentinels.insert(run, sentinels.clone());
        if self.database_fault == DatabaseFault::None {
            self.rows_read = rows.len();
        }
        Ok(ProvenReferences {
            identity,
            database_time: self.database_time(),
            tables: vec![ProvenTable { name: self.table_name.to_string(), rows: expected, sentinels }],
            holds: Vec::new(),
            open_transactions,
            snapshot: None,
            role: "reader".into(),
        })
    }

    /// A re-check, with its proof.
    pub(super) fn recheck(
        &mut self,
        run: usize,
        ids: &[DatasetId],
        anchor: &Anchor,
    ) -> Result<Vec<DatasetId>, ReferencesError> {
        self.refuse()?;
        let visible = self.visible();
        let recognise = |sentinels: &Vec<DatasetId>| Recognised {
            sentinels: sentinels.iter().filter(|id| visible.contains(id)).count(),
            has_rows: !visible.is_empty(),
        };
        let found: Vec<Recognised> = anchor.sentinels.iter().map(recognise).collect();
        let answer = check_anchor(&self.identity(), &found, anchor);
        let live: Vec<DatasetId> = ids.iter().filter(|id| visible.contains(id)).copied().collect();
        self.tell(&format!("run {run} asks for {ids:?}: {} live, {}", live.len(), answer.is_ok()));
        answer?;
        for id in ids {
            self.note_check(run, *id);
        }
        live.iter().for_each(|id| self.see_live(*id));
        self.live_answers += u32::from(!live.is_empty());
        Ok(live)
    }
}
