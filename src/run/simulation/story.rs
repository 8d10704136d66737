//! One story: a world, some nights, and what people and the program do in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Duration;
use parking_lot::Mutex;

use super::database::DatabaseFault;
use super::director::{Cut, direct};
use super::stage::Stage;
use super::undo::Undo;
use super::world::{KnownPlan, RowState, Steering, World, prefix};
use crate::clock::ManualClock;
use crate::config::{self, Config, Variables};
use crate::decide::breakers::Allowances;
use crate::exit::Exit;
use crate::model::{DatasetId, Mode, Timestamp};
use crate::plan::Backfill;
use crate::record::{self, Ledger, PlanState};
use crate::run::apply::find_plan;
use crate::run::{ApplyJob, Job, Keyring, RestoreJob, ScopeEnd, Services, Stop, run_scope};
use crate::telemetry::Progress;

pub const SCOPE: &str = "synthetic";

/// The steps of the journal at which a process may be killed.
const STEPS: [&str; 14] = [
    "before_sightings",
    "plan_started",
    "before_intent",
    "after_intent",
    "before_copy",
    "after_copy",
    "after_verify",
    "held",
    "before_send",
    "after_send",
    "after_outcome",
    "before_verify",
    "disposed",
    "before_report",
];

/// What became of a story, or of many.
#[derive(Debug, Default)]
pub struct Ending {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub stories: u64,
    pub runs: u64,
    pub killed: u64,
    pub calls: u64,
    pub deleted: u64,
    pub reaped: u64,
    pub restored: u64,
    pub backfilled: u64,
    pub lost_in_window: usize,
}

impl Ending {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Self) {
        self.stories += 1;
        self.runs += other.runs;
        self.killed += other.killed;
        self.calls += other.calls;
        self.deleted += other.deleted;
        self.reaped += other.reaped;
        self.restored += other.restored;
        self.backfilled += other.backfilled;
        self.lost_in_window += other.lost_in_window;
    }
}

/// A story in progress.
pub struct Story {
    world: Arc<Mutex<World>>,
    rng: fastrand::Rng,
    services: Services,
    _folder: tempfile::TempDir,
    runs: usize,
    killed: u64,
    /// The runs by their ids, and the plans by their hashes.
    run_ids: BTreeMap<String, usize>,
    plans: BTreeMap<String, KnownPlan>,
    /// Whether a good scan came after everything was mended, so that a person who looks finds nothing wrong.
    is_quiet: bool,
    jumps: u8,
    /// Whether its people clear years of leaks by backfills.
    backfills: bool,
    backfilled: u64,
    /// The plan that a killed run was at, where the story wants it applied again at once.
    goes_on_with: Option<String>,
}

impl Story {
    /// A world of this seed: fourteen live datasets and ten orphans.
    pub async fn begin(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let begun: Timestamp = "2026-03-01T03:00:00Z".parse().expect("a time");
        let clock = ManualClock::at(begun);
        let folder = crate::failpoint::folder_in_memory();
        let steering = match rng.u8(0..12) {
            0 => Steering::RowsComeAndGo,
            1 => Steering::WrongDatabase,
            2 => Steering::WritersFollow,
            3 => Steering::OthersLook,
            _ => Steering::Chance,
        };
        let is_quarantine = rng.u8(0..3) == 0;
        let config = config_of(&folder, rng.u8(0..4) > 0, is_quarantine);
        let scope = &config.scopes[0];
        let rates = [0.0, 0.005, 0.02, 0.06];
        let mut rate = || rates[rng.usize(0..rates.len())];
        let (store_faults, acts) = (rate(), rate() * 2.0);
        let (stale_listings, faults) = (rate() / 5.0, rate() / 20.0);
        let world = World {
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            step: 0,
            trace: Vec::new(),
            waiting: Vec::new(),
            begun,
            now: begun,
            ahead: Duration::zero(),
            host_ahead: Duration::zero(),
            store_ahead: Duration::zero(),
            database_ahead: Duration::zero(),
            has_jumped: false,
            clock: clock.clone(),
            grace: scope.policy.grace.span(),
            span: Duration::from_std(scope.policy.min_sighting_span).expect("short"),
            small: usize::try_from(scope.limits.small).expect("few"),
            datasets: BTreeMap::new(),
            objects: BTreeMap::new(),
            versions: 0,
            hot: std::collections::BTreeSet::new(),
            store_faults,
            stale_listings,
            acts,
            faults,
            page_size: rng.usize(2..8),
            is_strict: rng.bool(),
            late: Vec::new(),
            table: scope.live[0].identity(),
            table_name: scope.live[0].table.clone(),
            database_fault: DatabaseFault::None,
            other_databases: 0,
            hidden_row: None,
            hides_transactions: false,
            steering,
            group_listings: 0,
            live_answers: 0,
            undo: Undo {
                is_quarantine,
                honours_conditions: rng.bool(),
                keep: Duration::from_std(scope.quarantine.keep).expect("short"),
                ..Undo::default()
            },
            read_at: BTreeMap::new(),
            listed: BTreeMap::new(),
            first_listed: BTreeMap::new(),
            modified: BTreeMap::new(),
            checks: BTreeMap::new(),
            sentinels: BTreeMap::new(),
            rows_read: 0,
            requested: Vec::new(),
            lost_in_window: std::collections::BTreeSet::new(),
            deleted: 0,
            violations: Vec::new(),
        };
        let world = populate(world, &mut rng);
        let backfills = rng.u8(0..4) == 0;
        let path = folder.path().join("reports/ledger.sqlite3");
        let ledger = Ledger::open_or_create(&path, begun).await.expect("a ledger");
        let services =
            Services { config, clock: Arc::new(clock), ledger, stop: Stop::default(), progress: Progress::new(false) };
        Self {
            world: Arc::new(Mutex::new(world)),
            rng,
            services,
            _folder: folder,
            runs: 0,
            killed: 0,
            run_ids: BTreeMap::new(),
            plans: BTreeMap::new(),
            is_quiet: false,
            jumps: 0,
            backfills,
            backfilled: 0,
            goes_on_with: None,
        }
    }

    /// Plays it to its end.
    pub async fn play(mut self) -> Ending {
        let swapped_at = self.rng.usize(2..5);
        for night in 0..self.rng.usize(9..15) {
            self.day_passes();
            if night >= swapped_at {
                self.swap_database().await;
            }
            self.people_act().await;
            self.night().await;
        }
        self.finish()
    }

    fn finish(self) -> Ending {
        let mut world = self.world.lock();
        let late = std::mem::take(&mut world.late);
        late.iter().for_each(|late| world.carry_out(late));
        world.judge_end();
        Ending {
            violations: std::mem::take(&mut world.violations),
            trace: std::mem::take(&mut world.trace),
            stories: 1,
            runs: self.runs as u64,
            killed: self.killed,
            calls: world.step,
            deleted: world.deleted,
            reaped: world.undo.reaped,
            restored: world.undo.restored(),
            backfilled: self.backfilled,
            lost_in_window: world.lost_in_window.len(),
        }
    }

    /// Four quiet nights of audits, then the application of their plan, in which another process sees every orphan live for a
    /// moment at turn `turn`; gives how many turns the application took, and what was wrong.
    pub async fn rehearse(mut self, turn: usize) -> Ending {
        {
            let mut world = self.world.lock();
            (world.store_faults, world.stale_listings, world.acts, world.faults) = (0.0, 0.0, 0.0, 0.0);
        }
        for _ in 0..4 {
            self.world.lock().now += Duration::days(3);
            self.run(vec![Job::Audit { fail_on_orphans: false }], Cut::Never).await;
        }
        let hash = self.open_plans().await.pop().expect("a plan");
        let job = self.apply(&hash).await;
        self.run(vec![job], Cut::LookAtTurn(turn)).await;
        self.finish()
    }

    /// Hours pass; writers act; something breaks or is mended; the clocks may jump, once forward and once back.
    fn day_passes(&mut self) {
        let mut world = self.world.lock();
        world.now += Duration::minutes(self.rng.i64(60..70 * 60));
        let jump = Duration::hours(self.rng.i64(1..1000));
        if self.rng.u8(0..25) == 0 && self.jumps < 2 {
            if self.jumps == 0 {
                world.ahead += jump;
            } else {
                world.ahead -= jump;
            }
            (self.jumps, world.has_jumped) = (self.jumps + 1, true);
            world.tell(&format!("every clock jumps, by {jump}"));
        }
        world.set_clock();
        if self.rng.u8(0..4) > 0 {
            world.end_transactions();
        }
        if self.goes_on_with.is_some() {
            world.drop_what_came_back();
        }
        if world.acts > 0.0 {
            (0..self.rng.u8(0..3)).for_each(|_| world.act());
        }
        if world.faults > 0.0 && (!world.is_whole() || self.rng.u8(0..6) == 0) {
            world.break_or_mend();
            self.is_quiet = false;
        }
        if world.hidden_row.is_none() && self.rng.u8(0..6) == 0 {
            let live = world.datasets.iter().find(|(_, dataset)| dataset.row == RowState::Live).map(|(id, _)| *id);
            world.hidden_row = live.map(|id| (id, self.rng.u8(1..=2)));
            let told = format!("a row is hidden for some scans: {:?}", world.hidden_row);
            world.tell(&told);
        }
    }

    /// From now on another database answers, where the story is about one: it is like ours, but for so few rows that no other
    /// breaker tells. Nobody mends it. One that was there before the first good scan is what is expected.
    async fn swap_database(&mut self) {
        if self.services.ledger.baseline(SCOPE).await.expect("read").is_none() {
            return;
        }
        let mut world = self.world.lock();
        if world.steering != Steering::WrongDatabase || world.faults < 0.0 {
            return;
        }
        // Drawn once: from now on no fault comes or goes.
        world.mend();
        world.faults = -1.0;
        let live = world.datasets.iter().filter(|(_, dataset)| dataset.row == RowState::Live).map(|(id, _)| *id);
        let missing = self.rng.usize(1..=5);
        let held = live.skip(missing).collect();
        world.database_fault = match self.rng.u8(0..3) {
            0 => DatabaseFault::Swapped(held),
            1 => DatabaseFault::OtherTimeline(held),
            _ => DatabaseFault::Elsewhere(held),
        };
        world.other_databases += 1;
        world.tell(&format!("another database answers, without {missing} of the rows"));
        self.is_quiet = false;
    }

    /// A person acknowledges what latched, once all is mended and a good scan has said so.
    async fn people_act(&mut self) {
        if !self.is_quiet || !self.world.lock().is_whole() {
            return;
        }
        for latch in self.services.ledger.latches(SCOPE).await.expect("latches") {
            let now = self.services.clock.now();
            self.services.ledger.acknowledge(SCOPE, &latch, "ada", "it is mended", now).await.expect("acknowledged");
            self.world.lock().tell(&format!("ada acknowledges {}", latch.breaker.as_str()));
        }
    }

    /// One run, or two at once.
    async fn night(&mut self) {
        self.services.stop = Stop::default();
        let first = self.job().await;
        let second = if self.rng.u8(0..6) == 0 { Some(self.job().await) } else { None };
        let steering = self.world.lock().steering;
        let cut = match self.rng.u8(0..10) {
            _ if second.is_some() => Cut::Never,
            0..7 if steering == Steering::RowsComeAndGo => Cut::KillWhenSeenLive(self.rng.u32(0..3)),
            0..7 if steering == Steering::OthersLook => Cut::LookAfterListing(self.rng.u32(1..24)),
            0 | 1 => Cut::KillAtTurn(self.rng.usize(1..60)),
            2 | 3 => Cut::KillAtStep(STEPS[self.rng.usize(0..STEPS.len())], self.rng.u32(1..4)),
            4 => Cut::StopAtTurn(self.rng.usize(1..60)),
            5 => Cut::LookAtTurn(self.rng.usize(1..60)),
            _ => Cut::Never,
        };
        self.run(std::iter::once(first).chain(second).collect(), cut).await;
    }

    /// Plays these runs at once, and judges them.
    async fn run(&mut self, jobs: Vec<Job>, cut: Cut) {
        let numbers: Vec<usize> = (self.runs..).take(jobs.len()).collect();
        self.runs += numbers.len();
        for (number, job) in numbers.iter().zip(&jobs) {
            let what = match job {
                Job::Restore(job) => format!("restore of run {:?}", self.run_of(&job.run)),
                Job::Apply(job) => {
                    format!("apply of the plan of run {:?}", self.run_of(&job.source.verified.plan.run_id.to_string()))
                }
                other => other.command().to_owned(),
            };
            self.world.lock().tell(&format!("run {number} is {what}, {cut:?}"));
        }
        let world = Arc::clone(&self.world);
        let services = &self.services;
        let runs = numbers.iter().zip(&jobs).map(|(number, job)| {
            let keyring =
                Keyring { variables: Variables::new(), stage: Some(Stage { world: Arc::clone(&world), run: *number }) };
            async move { run_scope(services, &keyring, &services.config.scopes[0], job).await }
        });
        let stop = || services.stop.ask(Exit::Terminated);
        let ends = direct(&world, &services.ledger, &cut, stop, futures::future::join_all(runs)).await;
        match ends {
            Some(ends) => {
                // One of two may have gone on with the other's plan.
                for (number, end) in numbers.iter().zip(&ends) {
                    if let Ok(end) = end {
                        self.run_ids.insert(end.summary.run_id.to_string(), *number);
                    }
                }
                for (number, end) in numbers.into_iter().zip(ends) {
                    match end {
                        Ok(end) => self.end(number, &end).await,
                        Err(failure) => {
                            self.world.lock().tell(&format!("run {number} could not begin: {}", failure.chain()));
                        }
                    }
                }
            }
            None => self.end_killed(numbers[0]).await,
        }
        let holds = self.services.ledger.holds(SCOPE, None).await.expect("holds");
        let mut world = self.world.lock();
        let step = world.step;
        holds.iter().for_each(|hold| _ = world.undo.held.entry(hold.id).or_insert(step));
        (world.group_listings, world.live_answers) = (0, 0);
        world.waiting.clear();
        world.checks.clear();
        world.sentinels.clear();
    }

    /// What the program is told to do tonight.
    async fn job(&mut self) -> Job {
        if let Some(hash) = self.goes_on_with.take() {
            return self.apply(&hash).await;
        }
        let open = self.open_plans().await;
        let mut quarantines = self.services.ledger.kept_quarantines(SCOPE).await.expect("quarantines");
        // Of two that began at once, chance says which run's id is the smaller.
        quarantines.sort_by_key(|undo| self.run_of(&undo.run.to_string()));
        match self.rng.u8(0..10) {
            0 | 1 if !quarantines.is_empty() => self.restore(&quarantines),
            0..=2 if self.backfills => self.backfill(),
            0..=2 => Job::Audit { fail_on_orphans: false },
            3..=5 if !open.is_empty() => {
                let hash = &open[self.rng.usize(0..open.len())];
                self.apply(hash).await
            }
            _ => Job::Sweep { mode: Mode::Live },
        }
    }

    /// A person wants back what a run deleted: all of it, or one dataset.
    fn restore(&mut self, quarantines: &[record::Undo]) -> Job {
        let ids: Vec<DatasetId> = self.world.lock().hot.iter().copied().collect();
        let is_one = !ids.is_empty() && self.rng.bool();
        let dataset = is_one.then(|| ids[self.rng.usize(0..ids.len())]);
        let run = quarantines[self.rng.usize(0..quarantines.len())].run.to_string();
        Job::Restore(Box::new(RestoreJob { run, dataset, mode: Mode::Live, asks_first: false }))
    }

    /// A person clears what is older than some date.
    fn backfill(&mut self) -> Job {
        self.backfilled += 1;
        let now = self.world.lock().store_time();
        Job::Backfill(Backfill { created_before: now - Duration::hours(self.rng.i64(1..60 * 24)) })
    }

    async fn apply(&self, hash: &str) -> Job {
        let source = find_plan(&self.services.ledger, hash).await.expect("a plan");
        Job::Apply(Box::new(ApplyJob {
            source,
            mode: Mode::Live,
            allowances: Allowances::default(),
            asks_first: false,
            pace: crate::dispose::pace::Pace::default(),
            accepts_empty_references: false,
        }))
    }

    /// The plans that are not closed and name something, the oldest first.
    async fn open_plans(&self) -> Vec<String> {
        let mut open: Vec<(Timestamp, usize, String)> = Vec::new();
        for (hash, known) in &self.plans {
            let row = self.services.ledger.plan(hash).await.expect("read").expect("issued");
            if row.state != PlanState::Closed && !known.plan.groups.is_empty() {
                open.push((known.plan.created_at, known.run, hash.clone()));
            }
        }
        open.sort();
        open.into_iter().map(|(_, _, hash)| hash).collect()
    }

    fn run_of(&self, run_id: &str) -> Option<usize> {
        self.run_ids.get(run_id).copied()
    }

    /// Learns what a plan says.
    async fn learn(&mut self, hash: &str) {
        if self.plans.contains_key(hash) {
            return;
        }
        let Ok(source) = find_plan(&self.services.ledger, hash).await else { return };
        let plan = source.verified.plan;
        let Some(run) = self.run_of(&plan.run_id.to_string()) else { return };
        self.world.lock().hot.extend(plan.groups.iter().map(|group| group.id));
        self.plans.insert(hash.to_owned(), KnownPlan { plan, run });
    }

    /// The plans that a run worked on, of those that are known and still have keys of it in the journal.
    async fn plans_of(&self, run_id: &str) -> Vec<KnownPlan> {
        let mut plans = Vec::new();
        for (hash, known) in &self.plans {
            let hash = crate::model::Sha256Hash::parse(hash).expect("a hash");
            if self.services.ledger.runs_of_plan(hash).await.expect("runs").iter().any(|run| run == run_id) {
                plans.push(known.clone());
            }
        }
        plans
    }

    async fn end(&mut self, number: usize, end: &ScopeEnd) {
        if let Some(hash) = &end.summary.plan_hash {
            self.learn(hash).await;
        }
        let mut plans = self.plans_of(&end.summary.run_id.to_string()).await;
        plans.extend(end.summary.plan_hash.as_ref().and_then(|hash| self.plans.get(hash)).cloned());
        let tripped: Vec<&str> = end
            .summary
            .breakers
            .iter()
            .filter(|breaker| breaker.tripped)
            .map(|breaker| breaker.name.as_str())
            .collect();
        let mut world = self.world.lock();
        world.tell(&format!(
            "run {number} ends: {:?} {:?} eligible {} deletion {:?} tripped {tripped:?}",
            end.exit, end.summary.outcome, end.summary.groups.eligible, end.summary.deletion
        ));
        world.judge_run(number, &plans);
        if let Some(restored) = end.summary.restore.as_ref().filter(|restored| restored.failed == 0) {
            world.judge_restore(number, restored.restored);
        }
        self.is_quiet = world.is_whole() && tripped.is_empty() && end.summary.coverage.complete;
        if let Some(deletion) = end.summary.deletion {
            let sum =
                deletion.deleted + deletion.already_gone + deletion.skipped + deletion.failed + deletion.unconfirmed;
            if sum != deletion.requested {
                world.violations.push(format!("run {number} requested {} and accounts for {sum}", deletion.requested));
            }
        }
    }

    async fn end_killed(&mut self, number: usize) {
        self.killed += 1;
        let ledger = &self.services.ledger;
        let newest = ledger.runs(Some(SCOPE), 1).await.expect("runs").pop();
        let row = newest.filter(|row| !self.run_ids.contains_key(&row.run_id));
        // It may have gone on with an older plan and begun its own.
        let began_at = self.world.lock().begun;
        let begun = ledger.applicable_plans(SCOPE, began_at).await.expect("read");
        let mut plans = Vec::new();
        if let Some(row) = row {
            self.run_ids.insert(row.run_id.clone(), number);
            for begun in begun {
                self.learn(&begun.hash).await;
            }
            plans = self.plans_of(&row.run_id).await;
        }
        let mut world = self.world.lock();
        world.tell(&format!("run {number} is killed"));
        world.judge_run(number, &plans);
        if world.steering == Steering::RowsComeAndGo && world.live_answers > 0 {
            self.goes_on_with = plans.pop().map(|plan| plan.plan.hash().to_string());
        }
        self.is_quiet = false;
    }
}

/// Where copies are kept, every time is shorter, so that one story holds a deletion, its undo, and the next deletion.
fn config_of(folder: &tempfile::TempDir, is_automatic: bool, is_quarantine: bool) -> Config {
    let shorter = [
        ("POLICY__DISPOSAL", "quarantine"),
        ("POLICY__GRACE", "48h"),
        ("POLICY__MIN_SIGHTING_SPAN", "24h"),
        ("QUARANTINE__KEEP", "72h"),
    ];
    let variables = [
        ("POLICY__APPROVAL", if is_automatic { "automatic" } else { "required" }),
        ("LIMITS__MAX_ORPHAN_SHARE", "1.0"),
        ("LIMITS__MAX_FOREIGN_SHARE", "1.0"),
        ("POLICY__PLAN_EXPIRES", "240h"),
    ];
    let variables: Variables = variables
        .into_iter()
        .chain(shorter.into_iter().filter(|_| is_quarantine))
        .map(|(key, value)| (format!("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__{key}"), value.to_owned()))
        .collect();
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"));
    config::parse(text, &folder.path().join("config.toml"), &variables).expect("the committed configuration")
}

/// Fourteen live datasets and ten orphans, under both patterns, with keys that XML cannot carry, and sometimes a large one.
fn populate(mut world: World, rng: &mut fastrand::Rng) -> World {
    let old = Duration::days(90);
    for number in 0..24 {
        let id = DatasetId(uuid::Uuid::from_u128(rng.u128(..)));
        let mut keys: Vec<String> = (0..rng.u8(1..4)).map(|n| format!("{}{n}", prefix(number % 2, id))).collect();
        if rng.u8(0..3) == 0 {
            keys.push(format!("{}twin", prefix(1 - number % 2, id)));
        }
        if rng.u8(0..4) == 0 {
            keys.push(format!("{}a\rb", prefix(number % 2, id)));
        }
        if number == 14 && rng.u8(0..16) == 0 {
            keys.extend((0..2100).map(|n| format!("{}{n:05}", prefix(0, id))));
            world.page_size = 1000;
        }
        let row = if number < 14 { RowState::Live } else { RowState::Absent };
        world.add(id, row, keys, old);
    }
    world.put("synthetic/.keep", old);
    world.put("synthetic/foreign/x", old);
    world
}
