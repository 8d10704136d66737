//! The transitions: what the world, a person and the two sweepers may do next.

use stateright::{Model, Property};

use crate::guards::{Guard, Guards};
use crate::world::{
    Budget, GRACE, JUMP, KEYS, LONG_AGO, Ledger, Loss, MIN_SIGHTINGS, MIN_SPAN, Plan, Row, Sighting, State, Step,
    Sweeper, View, World,
};

/// One world to explore: who acts how often, and which guards are in place.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    pub guards: Guards,
    /// Processes at once; no lock keeps them apart.
    pub sweepers: usize,
    /// The last tick.
    pub end: i8,
    /// Complete scans that one tick has time for.
    pub scans_of_tick: u8,
    /// Whether grace since the first sighting is waived.
    pub is_backfill: bool,
    /// Whether the story begins with an orphan that is planned already.
    pub begins_planned: bool,
    /// Whether the id is live at first.
    pub begins_live: bool,
    /// How long after its upload a writer inserts the row, at most.
    pub upload_takes: i8,
    /// How long a row is away that comes back, at most.
    pub row_returns_within: i8,
    /// Whether a scan that takes a live id for an orphan is a loss by itself, or only what comes of it.
    pub judges_sightings: bool,
    pub budget: Budget,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick,
    JumpForward,
    JumpBack,
    Upload(usize),
    Insert,
    Begin,
    Commit,
    Delete,
    Fail(View),
    Heal,
    Acknowledge,
    CarryOut(usize),
    Hold,
    CopyBack,
    Audit(usize),
    Apply(usize),
    Step(usize),
    /// The reply does not come, whether or not the request was carried out.
    LoseReply(usize),
    Crash(usize),
}

impl World {
    fn clock(&self) -> i8 {
        self.now + self.ahead
    }

    /// Whether a reader sees the row.
    fn shows_row(&self) -> bool {
        self.row == Row::Live && self.view == View::Whole
    }
}

impl Ledger {
    /// A group's listing, merged with what the journal says was asked for: our own deletions are no change.
    fn merged(&self, world: &World, key: usize) -> u8 {
        if world.objects[key] > 0 { world.objects[key] } else { self.intents[key] }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let digest = [1; KEYS];
        let sighting = Sighting {
            first_run: 0,
            first_seen: -GRACE,
            last_seen: 0,
            sightings: MIN_SIGHTINGS,
            witnessed: GRACE,
            digest,
        };
        let world = World {
            now: 0,
            ahead: 0,
            row: if self.begins_live { Row::Live } else { Row::Absent },
            is_row_seen: true,
            gone_at: LONG_AGO,
            view: View::Whole,
            objects: digest,
            written: [LONG_AGO; 4],
            written_really: [LONG_AGO; 4],
            in_flight: [false; KEYS],
            copies: [0; KEYS],
            scans_of_tick: 0,
            has_deleted: false,
            left: self.budget,
        };
        let ledger = Ledger {
            sighting: self.begins_planned.then_some(sighting),
            plan: self.begins_planned.then_some(Plan { first_run: 0, digest, is_refuted: false }),
            intents: [0; KEYS],
            is_latched: false,
            is_held: false,
            runs: 0,
        };
        vec![State { world, ledger, sweepers: [Sweeper::IDLE; 2], loss: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.loss.is_some() {
            return;
        }
        self.actions_of_world(state, actions);
        for index in 0..self.sweepers {
            let sweeper = &state.sweepers[index];
            if sweeper.step != Step::Idle {
                actions.push(Action::Step(index));
                if matches!(sweeper.step, Step::Await(_)) && state.world.left.lost_replies > 0 {
                    actions.push(Action::LoseReply(index));
                }
                if state.world.left.crashes > 0 {
                    actions.push(Action::Crash(index));
                }
                continue;
            }
            // Two processes are the same: the second begins only when the first is at work.
            if index == 1 && state.sweepers[0].step == Step::Idle {
                continue;
            }
            if state.world.left.scans > 0 && state.world.scans_of_tick < self.scans_of_tick {
                actions.push(Action::Audit(index));
            }
            if state.world.left.applications > 0 && state.ledger.plan.is_some() {
                actions.push(Action::Apply(index));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Audit(index) => {
                state.world.left.scans -= 1;
                state.world.scans_of_tick += 1;
                state.sweepers[index] = Sweeper { step: self.first_step(), ..Sweeper::IDLE };
            }
            Action::Apply(index) => {
                state.world.left.applications -= 1;
                state.sweepers[index] = Sweeper { step: self.first_step(), plan: state.ledger.plan, ..Sweeper::IDLE };
            }
            Action::Crash(index) => {
                state.world.left.crashes -= 1;
                state.sweepers[index] = Sweeper::IDLE;
            }
            Action::LoseReply(index) => {
                state.world.left.lost_replies -= 1;
                self.try_again(&mut state, index);
            }
            Action::Step(index) => self.step(&mut state, index)?,
            other => act_of_world(&mut state, other),
        }
        // Whoever works now sees whether the id has a row.
        if state.world.row != Row::Live {
            state.sweepers.iter_mut().filter(|sweeper| sweeper.is_listed).for_each(|sweeper| sweeper.was_absent = true);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no object is requested whose id was live at its last check", |_, state: &State| {
                state.loss != Some(Loss::LiveAtLastCheck)
            }),
            Property::always("none whose id any look since its plan saw live", |_, state: &State| {
                state.loss != Some(Loss::SeenLiveSincePlan)
            }),
            Property::always("none that was never planned", |_, state: &State| state.loss != Some(Loss::NeverPlanned)),
            Property::always("none whose writer keeps its promise", |_, state: &State| {
                state.loss != Some(Loss::WithinPromise)
            }),
            Property::always("none with an old proof", |_, state: &State| state.loss != Some(Loss::OldProof)),
            Property::always("none without an intent", |_, state: &State| state.loss != Some(Loss::NoIntent)),
            Property::always("none that was restored", |_, state: &State| state.loss != Some(Loss::Held)),
            Property::always("no live id is sighted", |_, state: &State| state.loss != Some(Loss::SightedLive)),
            Property::sometimes("an orphan is deleted", |_, state: &State| state.world.has_deleted),
        ]
    }
}

impl Protocol {
    fn actions_of_world(&self, state: &State, actions: &mut Vec<Action>) {
        let (world, left) = (&state.world, &state.world.left);
        // A scan takes less than a tick: ages are counted from the beginning of its listing.
        let is_scanning = |sweeper: &Sweeper| {
            matches!(sweeper.step, Step::List | Step::ReadRows | Step::Open(_) | Step::ReadSighting | Step::Record)
        };
        if world.now < self.end && !state.sweepers.iter().any(is_scanning) {
            actions.push(Action::Tick);
        }
        if left.jumps > 0 {
            actions.push(if world.ahead == 0 { Action::JumpForward } else { Action::JumpBack });
        }
        match world.row {
            Row::Absent => {
                if left.inserts > 0 {
                    actions.push(Action::Insert);
                }
                if left.transactions > 0 && world.now - world.gone_at <= self.row_returns_within {
                    actions.push(Action::Begin);
                }
                if left.uploads > 0 {
                    (0..KEYS).for_each(|key| actions.push(Action::Upload(key)));
                }
            }
            Row::Uncommitted(_) => actions.push(Action::Commit),
            Row::Live if left.deletes > 0 => actions.push(Action::Delete),
            Row::Live => {}
        }
        match world.view {
            View::Whole if left.faults > 0 => {
                actions.extend([Action::Fail(View::Fewer), Action::Fail(View::Elsewhere)]);
            }
            View::Whole if state.ledger.is_latched => actions.push(Action::Acknowledge),
            View::Whole => {}
            View::Fewer | View::Elsewhere => actions.push(Action::Heal),
        }
        for key in (0..KEYS).filter(|key| world.in_flight[*key]) {
            actions.push(Action::CarryOut(key));
        }
        if left.restores > 0 && world.copies != [0; KEYS] {
            actions.push(if state.ledger.is_held { Action::CopyBack } else { Action::Hold });
        }
    }

    fn has(&self, guard: Guard) -> bool {
        self.guards.has(guard)
    }

    fn first_step(&self) -> Step {
        if self.has(Guard::ListFirst) { Step::List } else { Step::ReadRows }
    }

    /// One step of a sweeper; `None` where it waits.
    fn step(&self, state: &mut State, index: usize) -> Option<()> {
        match state.sweepers[index].step {
            Step::Idle => return None,
            Step::List => list(state, index),
            Step::ReadRows => self.read_rows(state, index),
            Step::Open(key) => {
                state.sweepers[index].saw[usize::from(key)] = state.ledger.merged(&state.world, usize::from(key));
                state.sweepers[index].step =
                    if usize::from(key) + 1 < KEYS { Step::Open(key + 1) } else { Step::ReadSighting };
            }
            Step::ReadSighting => {
                state.sweepers[index].before = state.ledger.sighting;
                state.sweepers[index].step = Step::Record;
            }
            Step::Record => self.record(state, index),
            Step::Choose => self.choose(state, index),
            Step::Verify(key) => {
                state.sweepers[index].saw[usize::from(key)] = state.ledger.merged(&state.world, usize::from(key));
                state.sweepers[index].step =
                    if usize::from(key) + 1 < KEYS { Step::Verify(key + 1) } else { Step::Compare };
            }
            Step::Compare => self.compare(state, index),
            Step::Chunk(key) => self.chunk(state, index, key),
            Step::Intend(key) => {
                if self.has(Guard::Intend) {
                    state.ledger.intents[usize::from(key)] = state.sweepers[index].listed;
                    state.sweepers[index].intended = state.sweepers[index].listed;
                }
                state.sweepers[index].step = Step::Ask(key);
            }
            Step::Ask(key) => self.ask_again(state, index, key),
            Step::Send(key) => self.send(state, index, key),
            Step::Await(key) => {
                // The reply comes once the store has carried the request out.
                if state.world.in_flight[usize::from(key)] {
                    return None;
                }
                next_key(state, index, key);
            }
            Step::Close => {
                if state.ledger.plan.is_some_and(|plan| Some(plan) == state.sweepers[index].plan) {
                    state.ledger.plan = None;
                    if state.world.objects == [0; KEYS] {
                        state.ledger.intents = [0; KEYS];
                    }
                }
                state.sweepers[index] = Sweeper::IDLE;
            }
        }
        Some(())
    }

    fn read_rows(&self, state: &mut State, index: usize) {
        let world = &state.world;
        let open_too_long = matches!(world.row, Row::Uncommitted(since) if world.now - since > GRACE / 2);
        let is_tripped = (world.view == View::Fewer && self.has(Guard::LiveDrop))
            || (world.view == View::Elsewhere && self.has(Guard::DatabaseIdentity));
        if is_tripped {
            state.ledger.is_latched = true;
        }
        let is_refused = is_tripped || (open_too_long && self.has(Guard::OpenTransaction));
        let is_live = world.shows_row();
        state.sweepers[index].anchor = world.view;
        if is_live {
            self.see_live(state);
        }
        if is_refused {
            state.sweepers[index] = Sweeper::IDLE;
        } else if state.sweepers[index].is_listed {
            diff(state, index, is_live);
        } else {
            state.sweepers[index].read_before = Some(is_live);
            state.sweepers[index].step = Step::List;
        }
    }

    /// A look saw the id live: it leaves every plan for good.
    fn see_live(&self, state: &mut State) {
        state.world.is_row_seen = true;
        if self.has(Guard::Forget) {
            state.ledger.sighting = None;
        }
        let plans = state.sweepers.iter_mut().map(|sweeper| &mut sweeper.plan).chain([&mut state.ledger.plan]);
        plans.flatten().for_each(|plan| plan.is_refuted = true);
    }

    fn record(&self, state: &mut State, index: usize) {
        let sweeper = state.sweepers[index];
        state.sweepers[index] = Sweeper::IDLE;
        if sweeper.saw == [0; KEYS] || state.world.objects == [0; KEYS] {
            state.ledger.sighting = None;
            return;
        }
        if self.judges_sightings && !sweeper.was_absent {
            state.loss = Some(Loss::SightedLive);
            return;
        }
        state.ledger.runs += 1;
        let run = state.ledger.runs;
        let mut sighting = self.sight(sweeper.before, &sweeper, run);
        let first_run = sighting.first_run;
        let verdict_is_eligible = self.decide(state, sighting, sweeper.as_of);
        if self.has(Guard::RecordScan) && state.ledger.sighting != sweeper.before {
            // Another process forgot them, or went on with them: this scan is then the first of its own.
            sighting = self.sight(None, &sweeper, run);
        }
        state.ledger.sighting = Some(sighting);
        if verdict_is_eligible && !state.ledger.is_latched {
            state.ledger.plan = Some(Plan { first_run, digest: sweeper.saw, is_refuted: false });
        }
    }

    fn sight(&self, before: Option<Sighting>, sweeper: &Sweeper, run: u8) -> Sighting {
        let (digest, as_of) = (sweeper.saw, sweeper.as_of);
        let again =
            Sighting { first_run: run, first_seen: as_of, last_seen: as_of, sightings: 1, witnessed: 0, digest };
        let Some(before) = before.filter(|before| before.digest == digest && as_of >= before.last_seen) else {
            return again;
        };
        let gap = as_of - before.last_seen;
        let longest = GRACE / (MIN_SIGHTINGS.cast_signed() - 1);
        let counted = if self.has(Guard::LongestCountedGap) { gap.min(longest) } else { gap };
        Sighting {
            last_seen: as_of,
            sightings: (before.sightings + 1).min(MIN_SIGHTINGS),
            witnessed: (before.witnessed + counted).min(GRACE),
            ..before
        }
    }

    fn decide(&self, state: &State, sighting: Sighting, as_of: i8) -> bool {
        let written = sighting.digest.iter().map(|version| state.world.written[usize::from(*version)]);
        let newest = written.max().unwrap_or(LONG_AGO);
        if self.has(Guard::NewestAge) && as_of - newest < GRACE {
            return false;
        }
        if state.ledger.is_held && self.has(Guard::Held) {
            return false;
        }
        let is_young = as_of - sighting.first_seen < GRACE || sighting.witnessed < GRACE;
        if !self.is_backfill && self.has(Guard::FirstSeenAge) && is_young {
            return false;
        }
        if self.has(Guard::MinSightings) && sighting.sightings < MIN_SIGHTINGS {
            return false;
        }
        !self.has(Guard::MinSightingSpan) || sighting.last_seen - sighting.first_seen >= MIN_SPAN
    }

    fn choose(&self, state: &mut State, index: usize) {
        let is_unbroken = is_unbroken(state, index) || !self.has(Guard::Choose);
        let is_held = state.ledger.is_held && self.has(Guard::Held);
        state.sweepers[index].step = if is_unbroken && !is_held { Step::Verify(0) } else { Step::Close };
    }

    fn compare(&self, state: &mut State, index: usize) {
        let is_unbroken = is_unbroken(state, index);
        let sweeper = &mut state.sweepers[index];
        let is_as_planned = sweeper.plan.is_some_and(|plan| plan.digest == sweeper.saw);
        let is_verified = (is_as_planned || !self.has(Guard::Verify)) && (is_unbroken || !self.has(Guard::Choose));
        sweeper.step = if is_verified { Step::Chunk(0) } else { Step::Close };
    }

    fn chunk(&self, state: &mut State, index: usize, key: u8) {
        let position = usize::from(key);
        let merged = state.ledger.merged(&state.world, position);
        let listed = state.world.objects[position];
        let is_as_verified = merged == state.sweepers[index].saw[position];
        if self.has(Guard::NextChunk) && !is_as_verified {
            state.sweepers[index].step = Step::Close;
        } else if listed == 0 {
            next_key(state, index, key);
        } else {
            let sweeper = &mut state.sweepers[index];
            (sweeper.listed, sweeper.listed_at) = (listed, state.world.now);
            (sweeper.intended, sweeper.attempts) = (0, 0);
            sweeper.step = Step::Intend(key);
        }
    }

    fn ask_again(&self, state: &mut State, index: usize, key: u8) {
        if !self.has(Guard::AskAgain) {
            state.sweepers[index].step = Step::Send(key);
            return;
        }
        if self.has(Guard::CheckAnchor) && state.world.view != state.sweepers[index].anchor {
            state.ledger.is_latched = true;
            state.sweepers[index] = Sweeper::IDLE;
            return;
        }
        if state.world.shows_row() {
            self.see_live(state);
            state.sweepers[index].step = Step::Close;
            return;
        }
        let is_held = state.ledger.is_held && self.has(Guard::HeldAgain);
        let is_off = self.has(Guard::IsOnThePlan) && !is_unbroken(state, index);
        let sweeper = &mut state.sweepers[index];
        (sweeper.proof_at, sweeper.asked_at) = (state.world.now, state.world.now);
        sweeper.was_live_when_asked = state.world.row == Row::Live;
        sweeper.was_held_when_asked = state.ledger.is_held;
        sweeper.was_promised_when_asked = state.world.now - state.world.gone_at <= self.row_returns_within;
        sweeper.was_refuted_when_asked = sweeper.plan.is_some_and(|plan| plan.is_refuted);
        sweeper.step = if is_held || is_off { Step::Close } else { Step::Send(key) };
    }

    fn send(&self, state: &mut State, index: usize, key: u8) {
        let now = state.world.now;
        let sweeper = &mut state.sweepers[index];
        if self.has(Guard::ListingLives) && now > sweeper.listed_at {
            sweeper.step = Step::Close;
            return;
        }
        if self.has(Guard::SendWithin) && self.has(Guard::AskAgain) && now > sweeper.proof_at {
            sweeper.step = Step::Ask(key);
            return;
        }
        state.loss = self.loss_of_request(state, index, usize::from(key));
        state.world.in_flight[usize::from(key)] = true;
        state.sweepers[index].step = Step::Await(key);
    }

    /// What is wrong with the request that a sweeper is about to send. The window that remains is between the last
    /// answer and the request: a row, a hold, an object, or another process's look that comes within it is too late, and no
    /// loss here.
    fn loss_of_request(&self, state: &State, index: usize, key: usize) -> Option<Loss> {
        let (world, sweeper) = (&state.world, &state.sweepers[index]);
        let Some(plan) = sweeper.plan else { return Some(Loss::NeverPlanned) };
        let written_really = world.written_really[usize::from(sweeper.listed)];
        let is_promised = sweeper.was_promised_when_asked
            || world.now - written_really <= self.upload_takes
            || matches!(world.row, Row::Uncommitted(since) if since < sweeper.as_of - world.ahead - GRACE / 2);
        let is_rewritten = world.objects[key] != 0 && world.objects[key] != sweeper.listed;
        let was_live = sweeper.was_live_when_asked || (world.row == Row::Live && sweeper.asked_at == LONG_AGO);
        if was_live {
            Some(Loss::LiveAtLastCheck)
        } else if sweeper.was_refuted_when_asked {
            Some(Loss::SeenLiveSincePlan)
        } else if plan.digest[key] != sweeper.listed {
            Some(Loss::NeverPlanned)
        } else if is_promised {
            Some(Loss::WithinPromise)
        } else if sweeper.was_held_when_asked && world.objects[key] == 3 {
            Some(Loss::Held)
        } else if world.now > sweeper.asked_at || (is_rewritten && world.now > sweeper.listed_at) {
            Some(Loss::OldProof)
        } else if sweeper.intended != sweeper.listed {
            Some(Loss::NoIntent)
        } else {
            None
        }
    }

    fn try_again(&self, state: &mut State, index: usize) {
        let Step::Await(key) = state.sweepers[index].step else { return };
        let sweeper = &mut state.sweepers[index];
        sweeper.attempts += 1;
        sweeper.step = match sweeper.attempts {
            1 if self.has(Guard::AskAgainEachAttempt) => Step::Ask(key),
            1 => Step::Send(key),
            _ => Step::Close,
        };
        if !self.has(Guard::AskAgainEachAttempt) {
            // The answer that the first attempt had is taken for a new one.
            sweeper.proof_at = state.world.now;
        }
    }
}

fn list(state: &mut State, index: usize) {
    let sweeper = &mut state.sweepers[index];
    sweeper.as_of = state.world.clock();
    sweeper.is_listed = true;
    sweeper.was_absent = state.world.row != Row::Live;
    match sweeper.read_before {
        None => sweeper.step = Step::ReadRows,
        Some(is_live) => diff(state, index, is_live),
    }
}

/// What follows once listing and rows are compared.
fn diff(state: &mut State, index: usize, is_live: bool) {
    let is_applying = state.sweepers[index].plan.is_some();
    let next = match (is_live, is_applying) {
        (true, true) => Step::Close,
        (true, false) => return state.sweepers[index] = Sweeper::IDLE,
        (false, true) if state.ledger.is_latched => return state.sweepers[index] = Sweeper::IDLE,
        (false, true) => Step::Choose,
        (false, false) => Step::Open(0),
    };
    state.sweepers[index].step = next;
}

fn next_key(state: &mut State, index: usize, key: u8) {
    let is_last = usize::from(key) + 1 == KEYS;
    state.sweepers[index].step = if is_last { Step::Close } else { Step::Chunk(key + 1) };
}

/// Whether the sightings that the plan was made from go on.
fn is_unbroken(state: &State, index: usize) -> bool {
    let planned = state.sweepers[index].plan.map(|plan| plan.first_run);
    state.ledger.sighting.is_some_and(|sighting| Some(sighting.first_run) == planned)
}

/// What the writer, the database, the store and a person do.
fn act_of_world(state: &mut State, action: Action) {
    let world = &mut state.world;
    match action {
        Action::Tick => {
            world.now += 1;
            world.scans_of_tick = 0;
        }
        Action::JumpForward => {
            world.ahead += JUMP;
            world.left.jumps -= 1;
        }
        Action::JumpBack => {
            world.ahead -= JUMP;
            world.left.jumps -= 1;
        }
        Action::Upload(key) => {
            world.left.uploads -= 1;
            world.objects[key] = 2;
            (world.written[2], world.written_really[2]) = (world.clock(), world.now);
        }
        Action::Insert => {
            world.left.inserts -= 1;
            (world.row, world.is_row_seen) = (Row::Live, false);
        }
        Action::Begin => {
            world.left.transactions -= 1;
            world.row = Row::Uncommitted(world.now);
        }
        Action::Commit => (world.row, world.is_row_seen) = (Row::Live, false),
        Action::Delete => {
            world.left.deletes -= 1;
            if world.is_row_seen {
                world.gone_at = world.now;
            }
            world.row = Row::Absent;
        }
        Action::Fail(view) => {
            world.left.faults -= 1;
            world.view = view;
        }
        Action::Heal => world.view = View::Whole,
        Action::Acknowledge => state.ledger.is_latched = false,
        Action::CarryOut(key) => {
            world.in_flight[key] = false;
            world.has_deleted |= world.objects[key] > 0;
            world.copies[key] = world.objects[key];
            world.objects[key] = 0;
        }
        Action::Hold => state.ledger.is_held = true,
        Action::CopyBack => {
            world.left.restores -= 1;
            for key in 0..KEYS {
                // Newer data is never overwritten.
                if world.objects[key] == 0 && world.copies[key] > 0 {
                    world.objects[key] = 3;
                }
            }
            (world.written[3], world.written_really[3]) = (world.clock(), LONG_AGO);
        }
        Action::Audit(_) | Action::Apply(_) | Action::Step(_) | Action::LoseReply(_) | Action::Crash(_) => {}
    }
}
