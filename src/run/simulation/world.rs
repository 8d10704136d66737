//! The simulated world: the truth, what acts in it, and the oracle that looks at every request.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;

use super::database::DatabaseFault;
use super::stage::Waiting;
use super::store::Late;
use super::undo::{QUARANTINE, Undo};
use crate::clock::ManualClock;
use crate::config::TableName;
use crate::model::{DatasetId, ObjectKey, Timestamp};
use crate::plan::DeletePlan;

/// The row of a dataset, in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Absent,
    /// Inserted by a transaction that is open since then.
    Uncommitted(Timestamp),
    Live,
}

/// A dataset as its application knows it.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub row: RowState,
    /// The step that made the row visible.
    pub live_since: u64,
    /// Whether any look has seen that row. One that came and went between two looks is as if it had never been.
    pub is_row_seen: bool,
    /// Since when, in true time, it has no row.
    pub gone_at: Timestamp,
    /// Since when, in true time, nothing but answers without its row was given to anybody.
    pub hidden_since: Option<Timestamp>,
    /// The keys that its application wrote.
    pub keys: BTreeSet<String>,
    /// The step of the last look that saw it live.
    pub seen_live: u64,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Stored {
    pub version: u64,
    pub etag: u64,
    /// What it holds: a good copy holds what its source does.
    pub bytes: u64,
    /// Whether it carries what belongs to it.
    pub is_labelled: bool,
    /// When it was written, by the store's clock, in truth, and at which step.
    pub modified: Timestamp,
    pub written: Timestamp,
    pub step: u64,
}

/// What a re-check of a run said of an id, and what was true then.
#[derive(Debug, Clone)]
pub struct Check {
    pub step: u64,
    pub was_live: bool,
    pub seen_live: u64,
    pub gone_at: Timestamp,
}

/// A key of a delete request, as it arrived.
#[derive(Debug, Clone)]
pub struct Requested {
    pub run: usize,
    pub key: String,
    pub id: DatasetId,
    /// The version that the run listed last.
    pub listed: u64,
    pub check: Check,
    /// When it arrived, in truth.
    pub at: Timestamp,
}

/// What a story makes more of than chance would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Nothing.
    Chance,
    /// Rows come back while their objects are deleted, the process dies when it has seen one, the row goes again, and the
    /// plan is applied again.
    RowsComeAndGo,
    /// For nights, another database answers, which is like ours but for a few rows.
    WrongDatabase,
    /// Whenever a group was listed, somebody may write into it.
    WritersFollow,
    /// Another process sees orphans live right after a group was listed.
    OthersLook,
}

/// What is known of a plan.
#[derive(Debug, Clone)]
pub struct KnownPlan {
    pub plan: DeletePlan,
    /// The run that made it.
    pub run: usize,
}

/// Everything but the program.
pub struct World {
    pub rng: fastrand::Rng,
    pub step: u64,
    pub trace: Vec<String>,
    pub waiting: Vec<Waiting>,
    /// When the story begins, and true time.
    pub begun: Timestamp,
    pub now: Timestamp,
    /// By how much every clock, and each alone, is ahead.
    pub ahead: Duration,
    pub host_ahead: Duration,
    pub store_ahead: Duration,
    pub database_ahead: Duration,
    pub has_jumped: bool,
    pub clock: ManualClock,
    pub grace: Duration,
    pub span: Duration,
    /// Rows that may be lost without a word.
    pub small: usize,
    pub datasets: BTreeMap<DatasetId, Dataset>,
    pub objects: BTreeMap<String, Stored>,
    pub versions: u64,
    /// The ids that plans name: while they are deleted, writers come back to them.
    pub hot: BTreeSet<DatasetId>,
    /// Probabilities: of a store's fault for each request, of a stale listing, of a writer's act at each turn, of a fault of
    /// the database at each turn.
    pub store_faults: f64,
    pub stale_listings: f64,
    pub acts: f64,
    pub faults: f64,
    pub page_size: usize,
    /// Whether writers keep out of the window between the last check and the request.
    pub is_strict: bool,
    pub late: Vec<Late>,
    pub table: String,
    pub table_name: TableName,
    pub database_fault: DatabaseFault,
    /// How many other databases have answered so far.
    pub other_databases: u32,
    pub hidden_row: Option<(DatasetId, u8)>,
    pub hides_transactions: bool,
    /// What is made of chance where the story has a point to make.
    pub steering: Steering,
    /// Group listings of the runs in progress, and re-checks of theirs that saw a row.
    pub group_listings: u32,
    pub live_answers: u32,
    pub undo: Undo,
    // The oracle's memory.
    pub read_at: BTreeMap<usize, u64>,
    pub listed: BTreeMap<(usize, String), u64>,
    pub first_listed: BTreeMap<(usize, String), u64>,
    /// When each version that was listed was written, by the store's clock.
    pub modified: BTreeMap<u64, Timestamp>,
    /// The answers that a run has and no request stands on yet, the oldest first.
    pub checks: BTreeMap<(usize, DatasetId), Vec<Check>>,
    /// What each run recognises the table by.
    pub sentinels: BTreeMap<usize, Vec<DatasetId>>,
    /// Rows of the last read that was whole.
    pub rows_read: usize,
    pub requested: Vec<Requested>,
    pub lost_in_window: BTreeSet<String>,
    pub deleted: u64,
    pub violations: Vec<String>,
}

/// The prefix of an id's group by one of the two patterns.
pub fn prefix(pattern: usize, id: DatasetId) -> String {
    if pattern == 0 { format!("synthetic/{id}/") } else { format!("synthetic/dataset-{id}/") }
}

/// The id that a key belongs to.
pub(super) fn id_of(key: &str) -> Option<DatasetId> {
    let group = key.strip_prefix("synthetic/")?.split('/').next()?;
    DatasetId::parse_lenient(group.strip_prefix("dataset-").unwrap_or(group))
}

impl World {
    /// Whether something of this probability happens now.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    pub(super) fn tell(&mut self, event: &str) {
        self.trace.push(format!("{:5} {}", self.step, without_runs(event)));
    }

    pub(super) fn violate(&mut self, what: String) {
        self.tell(&format!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    /// Writes an object.
    pub(super) fn put(&mut self, key: &str, age: Duration) {
        self.versions += 1;
        let stored = Stored {
            version: self.versions,
            etag: self.versions,
            bytes: self.versions,
            is_labelled: true,
            modified: self.store_time() - age,
            written: self.now - age,
            step: self.step,
        };
        self.undo.written.insert(stored.bytes);
        self.objects.insert(key.to_owned(), stored);
    }

    /// Adds a dataset with these keys, live or an orphan.
    pub(super) fn add(&mut self, id: DatasetId, row: RowState, keys: impl IntoIterator<Item = String>, age: Duration) {
        let keys: BTreeSet<String> = keys.into_iter().collect();
        keys.iter().for_each(|key| self.put(key, age));
        let gone_at = self.now - age;
        let dataset =
            Dataset { row, live_since: 0, is_row_seen: true, gone_at, hidden_since: None, keys, seen_live: 0 };
        self.datasets.insert(id, dataset);
    }

    /// A look saw the id live.
    pub(super) fn see_live(&mut self, id: DatasetId) {
        let step = self.step;
        if let Some(dataset) = self.datasets.get_mut(&id) {
            dataset.is_row_seen |= dataset.row == RowState::Live;
            dataset.seen_live = step;
            dataset.hidden_since = None;
        }
    }

    /// A re-check of an id is answered.
    pub(super) fn note_check(&mut self, run: usize, id: DatasetId) {
        let step = self.step;
        let Some(dataset) = self.datasets.get(&id) else { return };
        let (was_live, seen_live) = (dataset.row == RowState::Live, dataset.seen_live);
        // Nobody can know of a row that every answer hid.
        let gone_at = dataset.hidden_since.map_or(dataset.gone_at, |hidden| hidden.min(dataset.gone_at));
        self.checks.entry((run, id)).or_default().push(Check { step, was_live, seen_live, gone_at });
    }

    /// Whether writers keep away from an id, of which a run has an answer that no request stands on yet.
    fn is_blocked(&self, id: DatasetId) -> bool {
        self.is_strict && self.checks.iter().any(|((_, asked), checks)| *asked == id && !checks.is_empty())
    }

    /// The oracle at the arrival of a delete request.
    pub(super) fn judge_request(&mut self, run: usize, keys: &[ObjectKey]) {
        let first = keys[0].as_str();
        if first.starts_with(QUARANTINE) {
            return self.judge_reaping(run, keys);
        }
        let Some(id) = id_of(first) else { return self.violate(format!("`{first}` belongs to no dataset")) };
        let Some(checks) = self.checks.get_mut(&(run, id)).filter(|checks| !checks.is_empty()) else {
            return self.violate(format!("{id}: an attempt without a re-check of its own"));
        };
        // Several batches of an id are on their way at once, each with its answer: the oldest that may stand behind one does. Keys
        // that need a request each share one.
        let place = checks.iter().position(|check| !check.was_live).unwrap_or(0);
        let check = if keys.len() > 1 { checks.remove(place) } else { checks[place].clone() };
        if check.was_live {
            self.violate(format!("{id} was live when it was asked for last"));
        }
        if self.undo.held.get(&id).is_some_and(|since| *since <= check.step) {
            self.violate(format!("{id} is held"));
        }
        for key in keys {
            if id_of(key.as_str()) != Some(id) {
                self.violate(format!("`{}` is requested with the check of {id}", key.as_str()));
            }
            let Some(listed) = self.listed.get(&(run, key.as_str().to_owned())).copied() else {
                self.violate(format!("`{}` was never listed by run {run}", key.as_str()));
                continue;
            };
            let key = key.as_str().to_owned();
            self.requested.push(Requested { run, key, id, listed, check: check.clone(), at: self.now });
        }
    }

    /// An object is gone by our request: of a live dataset only in the window between check and request.
    pub(super) fn judge_removal(&mut self, run: usize, key: &ObjectKey, gone: &Stored) {
        self.deleted += 1;
        let Some(id) = id_of(key.as_str()) else { return };
        let asked = self.requested.iter().rev().find(|asked| asked.run == run && asked.key == key.as_str());
        let (checked, listed) = asked.map_or((0, 0), |asked| (asked.check.step, asked.listed));
        if self.undo.is_quarantine {
            self.judge_copy(run, key, gone, listed);
        }
        let Some(since) = self.wanted_since(id) else { return };
        if since > checked {
            self.lost_in_window.insert(key.as_str().to_owned());
        } else {
            self.violate(format!("`{}` of a live dataset is gone", key.as_str()));
        }
    }

    /// Since which step somebody wants the objects of an id: it has a row, or a person holds it.
    pub(super) fn wanted_since(&self, id: DatasetId) -> Option<u64> {
        let dataset = self.datasets.get(&id).filter(|dataset| dataset.row == RowState::Live);
        let live = dataset.map(|dataset| dataset.live_since);
        live.into_iter().chain(self.undo.held.get(&id).copied()).min()
    }

    /// The oracle at the end of a run: what it asked for stands in one of its plans, as that plan saw it, and was not seen live
    /// since.
    pub(super) fn judge_run(&mut self, run: usize, plans: &[KnownPlan]) {
        let asked: Vec<Requested> = self.requested.iter().filter(|asked| asked.run == run).cloned().collect();
        if plans.is_empty() && !asked.is_empty() {
            return self.violate(format!("run {run} deletes by no plan"));
        }
        for asked in asked {
            let of_id = |plan: &&KnownPlan| {
                let mut groups = plan.plan.groups.iter();
                groups.any(|group| group.id == asked.id && asked.key.starts_with(&group.prefix))
            };
            let faults = plans.iter().filter(of_id).map(|plan| self.faults_of(&asked, plan));
            match faults.min_by_key(Vec::len) {
                Some(faults) => faults.into_iter().for_each(|fault| self.violate(fault)),
                None => self.violate(format!("`{}` is in no plan", asked.key)),
            }
        }
    }

    /// What is wrong with a request, by the plan that names its group.
    fn faults_of(&self, asked: &Requested, plan: &KnownPlan) -> Vec<String> {
        let Requested { key, id, listed, check, at, .. } = asked;
        // A backfill waives the time since the first sighting; the span of the sightings stays. One jump of every clock may
        // be half of the one, and all of the other.
        let waived = plan.plan.backfill.map(|backfill| backfill.created_before);
        let least = match (waived, self.has_jumped) {
            (None, false) => self.grace,
            (None, true) => self.grace / 2,
            (Some(_), false) => self.span,
            (Some(_), true) => Duration::zero(),
        };
        let mut faults = Vec::new();
        if *at - check.gone_at < least - Duration::minutes(30) {
            faults.push(format!("{id} lost its row only {} h before", (*at - check.gone_at).num_hours()));
        }
        if waived.is_some_and(|date| self.modified.get(listed).is_none_or(|modified| *modified >= date)) {
            faults.push(format!("`{key}` is not older than the date of the backfill"));
        }
        if self.first_listed.get(&(plan.run, key.clone())) != Some(listed) {
            faults.push(format!("`{key}` is not what the plan saw"));
        }
        if check.seen_live > self.read_at.get(&plan.run).copied().unwrap_or(0) {
            faults.push(format!("{id} was seen live since its plan was made"));
        }
        faults
    }

    /// The oracle at the end of the story: live data is whole, but for the window.
    pub(super) fn judge_end(&mut self) {
        let live = self.datasets.values().filter(|dataset| dataset.row == RowState::Live);
        let gone = live.flat_map(|dataset| &dataset.keys).filter(|key| !self.objects.contains_key(*key));
        let lost: Vec<String> = gone.filter(|key| !self.lost_in_window.contains(*key)).cloned().collect();
        lost.into_iter().for_each(|key| self.violate(format!("at the end `{key}` of a live dataset is gone")));
        if self.is_strict && !self.lost_in_window.is_empty() {
            self.violate("something was lost in a window that nobody stepped into".into());
        }
        self.judge_copies();
    }

    /// Time passes, and others act, before the next call has its turn.
    pub(super) fn pass(&mut self) {
        self.step += 1;
        self.now += Duration::milliseconds(self.rng.i64(1..400));
        self.set_clock();
        if self.chance(self.acts) {
            self.act();
        }
        if self.chance(self.acts) {
            self.come_back();
        }
        if self.chance(self.faults) {
            self.break_or_mend();
        }
        if !self.is_strict && self.chance(0.1) && !self.late.is_empty() {
            let late = self.late.remove(0);
            self.tell(&format!("the store carries out a request of run {}", late.run));
            self.carry_out(&late);
        }
    }

    pub(super) fn set_clock(&self) {
        self.clock.set(self.now + self.ahead + self.host_ahead);
    }

    fn pick(&mut self, wanted: impl Fn(&RowState) -> bool) -> Option<DatasetId> {
        let only_hot = !self.checks.is_empty() && self.rng.u8(0..4) > 0;
        let fits =
            |(id, dataset): &(&DatasetId, &Dataset)| wanted(&dataset.row) && (!only_hot || self.hot.contains(id));
        let ids: Vec<DatasetId> = self.datasets.iter().filter(fits).map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| ids[self.rng.usize(0..ids.len())])
    }

    /// A writer does something.
    pub(super) fn act(&mut self) {
        match self.rng.u8(0..9) {
            0 | 1 => self.insert(),
            2 => self.forget_row(),
            3 | 4 => self.write_into_orphan(),
            5 => self.begin(),
            6 => self.commit(),
            7 => self.new_dataset(),
            _ => self.write_into_live(),
        }
    }

    fn insert(&mut self) {
        let Some(id) = self.pick(|row| *row == RowState::Absent).filter(|id| !self.is_blocked(*id)) else {
            return;
        };
        self.make_live(id, "inserted");
    }

    /// The row of an id that is being deleted comes back.
    fn come_back(&mut self) {
        let asked: Vec<DatasetId> = self.checks.keys().map(|(_, id)| *id).filter(|id| !self.is_blocked(*id)).collect();
        if asked.is_empty() {
            return;
        }
        let id = asked[self.rng.usize(0..asked.len())];
        if self.datasets[&id].row == RowState::Absent {
            self.make_live(id, "inserted again");
        }
    }

    fn commit(&mut self) {
        let open = self.pick(|row| matches!(row, RowState::Uncommitted(_)));
        let Some(id) = open.filter(|id| !self.is_blocked(*id)) else { return };
        self.make_live(id, "committed");
    }

    /// The row is there. Its application looks whether its objects are, and writes what is not.
    fn make_live(&mut self, id: DatasetId, how: &str) {
        let step = self.step;
        let dataset = self.datasets.get_mut(&id).expect("picked");
        (dataset.row, dataset.live_since, dataset.is_row_seen) = (RowState::Live, step, false);
        let missing: Vec<String> =
            dataset.keys.iter().filter(|key| !self.objects.contains_key(*key)).cloned().collect();
        self.tell(&format!("{id} is {how}; {} objects are written again", missing.len()));
        missing.iter().for_each(|key| self.put(key, Duration::zero()));
    }

    /// Every transaction that is open is committed or rolled back.
    pub(super) fn end_transactions(&mut self) {
        let open = |dataset: &Dataset| matches!(dataset.row, RowState::Uncommitted(_));
        let open: Vec<DatasetId> =
            self.datasets.iter().filter(|(_, dataset)| open(dataset)).map(|(id, _)| *id).collect();
        for id in open {
            if self.rng.bool() {
                self.make_live(id, "committed");
            } else {
                self.datasets.get_mut(&id).expect("open").row = RowState::Absent;
            }
        }
    }

    /// Some orphans, or all that are being deleted, have a row for a moment, and another process sees it.
    pub(super) fn come_and_go(&mut self) -> Vec<DatasetId> {
        let (step, now) = (self.step, self.now);
        let asked: BTreeSet<DatasetId> = self.checks.keys().map(|(_, id)| *id).collect();
        let rng = &mut self.rng;
        let orphans = self.datasets.iter_mut().filter(|(_, dataset)| dataset.row == RowState::Absent);
        let seen: Vec<DatasetId> = orphans
            .filter(|(id, _)| asked.contains(id) || rng.u8(0..4) == 0)
            .map(|(id, dataset)| {
                (dataset.seen_live, dataset.gone_at, dataset.hidden_since) = (step, now, None);
                *id
            })
            .collect();
        self.tell(&format!("another process sees {} orphans live for a moment", seen.len()));
        seen
    }

    /// The rows that came back go again.
    pub(super) fn drop_what_came_back(&mut self) {
        let now = self.now;
        for id in self.hot.clone() {
            let dataset = self.datasets.get_mut(&id).expect("known");
            if dataset.row == RowState::Live {
                dataset.row = RowState::Absent;
                if dataset.is_row_seen {
                    dataset.gone_at = now;
                }
                self.tell(&format!("{id} is deleted again"));
            }
        }
    }

    /// After a complete read, and before anything is asked again, the row of an orphan of a plan comes back.
    pub(super) fn come_back_unseen(&mut self) {
        let absent = |id: &&DatasetId| self.datasets[*id].row == RowState::Absent && !self.is_blocked(**id);
        let ids: Vec<DatasetId> = self.hot.iter().filter(absent).copied().collect();
        if !ids.is_empty() && self.chance(0.5) {
            let id = ids[self.rng.usize(0..ids.len())];
            self.make_live(id, "inserted");
        }
    }

    /// A group was listed: somebody may write into it.
    pub(super) fn follow(&mut self, group: &str) {
        self.group_listings += 1;
        let Some(id) = id_of(group).filter(|_| self.steering == Steering::WritersFollow) else { return };
        if self.datasets.get(&id).is_some_and(|dataset| dataset.row == RowState::Absent) && self.chance(0.1) {
            self.write_into(id);
        }
    }

    fn begin(&mut self) {
        let now = self.now;
        let Some(id) = self.pick(|row| *row == RowState::Absent) else { return };
        self.datasets.get_mut(&id).expect("picked").row = RowState::Uncommitted(now);
        self.tell(&format!("a transaction inserts {id}"));
    }

    /// A dataset is deleted, and its objects are forgotten. Enough rows stay for the breakers to judge.
    fn forget_row(&mut self) {
        let now = self.now;
        let live = self.datasets.values().filter(|dataset| dataset.row == RowState::Live).count();
        if live <= 13 {
            return;
        }
        // A row that came back is soon gone again.
        let back: Vec<DatasetId> =
            self.hot.iter().filter(|id| self.datasets[*id].row == RowState::Live).copied().collect();
        let chosen = if !back.is_empty() && self.rng.u8(0..4) > 0 {
            Some(back[self.rng.usize(0..back.len())])
        } else {
            self.pick(|row| *row == RowState::Live)
        };
        let Some(id) = chosen else { return };
        let dataset = self.datasets.get_mut(&id).expect("picked");
        dataset.row = RowState::Absent;
        if dataset.is_row_seen {
            dataset.gone_at = now;
        }
        self.tell(&format!("{id} is deleted and leaks"));
    }

    fn write_into_orphan(&mut self) {
        let Some(id) = self.pick(|row| *row == RowState::Absent) else { return };
        self.write_into(id);
    }

    fn write_into_live(&mut self) {
        let Some(id) = self.pick(|row| *row == RowState::Live) else { return };
        self.write_into(id);
    }

    fn write_into(&mut self, id: DatasetId) {
        let pattern = self.rng.usize(0..2);
        let key = format!("{}{}", prefix(pattern, id), self.rng.u8(0..4));
        self.put(&key, Duration::zero());
        self.tell(&format!("`{key}` is written"));
        self.datasets.get_mut(&id).expect("picked").keys.insert(key);
    }

    fn new_dataset(&mut self) {
        let id = DatasetId(uuid::Uuid::from_u128(self.rng.u128(..)));
        let row = if self.rng.bool() { RowState::Live } else { RowState::Absent };
        self.add(id, row, [format!("{}x", prefix(0, id))], Duration::zero());
        let dataset = self.datasets.get_mut(&id).expect("added");
        (dataset.live_since, dataset.is_row_seen) = (self.step, false);
        self.tell(&format!("{id} is new, {row:?}"));
    }

    /// Something breaks; or, if anything is broken, is mended.
    pub(super) fn break_or_mend(&mut self) {
        let is_whole = self.is_whole();
        self.mend();
        if !is_whole {
            return self.tell("everything is mended");
        }
        let live: Vec<DatasetId> =
            self.datasets.iter().filter(|(_, dataset)| dataset.row == RowState::Live).map(|(id, _)| *id).collect();
        let kind = self.rng.u8(0..13);
        let mut some = live.clone();
        self.rng.shuffle(&mut some);
        let gone = self.enough_to_tell(&some);
        let held: BTreeSet<DatasetId> = some.iter().skip(self.rng.usize(0..some.len())).copied().collect();
        let far = Duration::minutes(self.rng.i64(6..10_000)) * if self.rng.bool() { 1 } else { -1 };
        match kind {
            0 => self.database_fault = DatabaseFault::Down,
            1 => self.database_fault = DatabaseFault::RowSecurity,
            2 => self.database_fault = DatabaseFault::Standby,
            3 => self.database_fault = DatabaseFault::Cut,
            4 | 5 => self.database_fault = gone.map_or(DatabaseFault::Down, DatabaseFault::Fewer),
            6 => self.database_fault = DatabaseFault::Swapped(held),
            7 => self.database_fault = DatabaseFault::OtherTimeline(held),
            8 => self.database_fault = DatabaseFault::Elsewhere(held),
            9 => self.store_ahead = far,
            10 => self.database_ahead = far,
            11 => self.host_ahead = far,
            _ => self.hides_transactions = true,
        }
        self.other_databases += u32::from(matches!(kind, 6..=8));
        self.tell(&format!("fault {kind}: {:?}", std::mem::discriminant(&self.database_fault)));
    }

    /// So many of these rows that `live_drop` can tell, and of what any run recognises the table by more than half; none where
    /// there are not enough. A table that lost less than that answers like a whole one.
    fn enough_to_tell(&mut self, rows: &[DatasetId]) -> Option<BTreeSet<DatasetId>> {
        // Rows that writers add meanwhile do not make up for them.
        const MARGIN: usize = 4;
        let most_left = self.rows_read.checked_sub(self.small + 1 + MARGIN)?;
        let least = (rows.len() / 2 + 1).max(rows.len().saturating_sub(most_left));
        let count = least + self.rng.usize(0..=rows.len().checked_sub(least)?);
        let mut gone: BTreeSet<DatasetId> = rows.iter().take(count).copied().collect();
        for sentinels in self.sentinels.values() {
            let most_found = sentinels.len().saturating_sub(1) / 2;
            let found = sentinels.iter().filter(|id| !gone.contains(id)).copied().skip(most_found);
            gone.extend(found.collect::<Vec<_>>());
        }
        Some(gone)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.database_fault == DatabaseFault::None
            && [self.store_ahead, self.database_ahead, self.host_ahead].iter().all(Duration::is_zero)
            && !self.hides_transactions
    }

    pub(super) fn mend(&mut self) {
        self.database_fault = DatabaseFault::None;
        (self.store_ahead, self.database_ahead, self.host_ahead) =
            (Duration::zero(), Duration::zero(), Duration::zero());
        self.hides_transactions = false;
    }
}

/// The words of an event without the folders of runs, whose ids are drawn at random: nothing else differs when a story is told
/// again.
fn without_runs(event: &str) -> String {
    let mut parts = event.split(QUARANTINE);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let in_folder = part.split_once('/').map_or(part, |(_, in_folder)| in_folder);
        told.extend([QUARANTINE, "\u{2026}/", in_folder]);
    }
    told
}
