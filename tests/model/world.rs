//! What the model's states are made of: the world, the ledger, the two sweepers, and what they may not do.

/// Grace, in ticks of the clock.
pub const GRACE: i8 = 4;
/// Least sightings.
pub const MIN_SIGHTINGS: u8 = 3;
/// Least span of the sightings.
pub const MIN_SPAN: i8 = 2;
/// How far a clock jumps: more than any grace.
pub const JUMP: i8 = 8;
/// Long before anything that the model tells.
pub const LONG_AGO: i8 = -20;
/// Keys of the dataset, each a batch of its own.
pub const KEYS: usize = 2;

/// The row that keeps the id alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    Absent,
    /// Inserted by a transaction that began then and may stay open as long as it likes.
    Uncommitted(i8),
    Live,
}

/// What the database shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    Whole,
    /// Many rows are gone without an error, ours and most sentinels among them: a half-loaded restore, a truncated table.
    Fewer,
    /// A clone, a swapped table or another timeline, as large as before and without our row.
    Elsewhere,
}

/// Everything outside the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// Real time.
    pub now: i8,
    /// By how much every clock is ahead of it.
    pub ahead: i8,
    pub row: Row,
    /// Whether any look, or the application's own past, has seen the row since it was inserted.
    pub is_row_seen: bool,
    /// Since when, in real time, the id has no row. One that came and went between two looks is as if it never was.
    pub gone_at: i8,
    pub view: View,
    /// The version under each key; 0: none.
    pub objects: [u8; KEYS],
    /// When each version was written, by the clock and in real time; version 1 is old.
    pub written: [i8; 4],
    pub written_really: [i8; 4],
    /// Requests that the store has received and not carried out.
    pub in_flight: [bool; KEYS],
    /// The versions that were copied aside.
    pub copies: [u8; KEYS],
    pub scans_of_tick: u8,
    pub has_deleted: bool,
    pub left: Budget,
}

/// How often the world may still do what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub uploads: u8,
    pub inserts: u8,
    pub deletes: u8,
    pub transactions: u8,
    pub faults: u8,
    pub jumps: u8,
    pub crashes: u8,
    pub lost_replies: u8,
    pub restores: u8,
    pub scans: u8,
    pub applications: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sighting {
    pub first_run: u8,
    pub first_seen: i8,
    pub last_seen: i8,
    pub sightings: u8,
    pub witnessed: i8,
    pub digest: [u8; KEYS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    pub first_run: u8,
    pub digest: [u8; KEYS],
    /// Whether any look since it was made saw the id live.
    pub is_refuted: bool,
}

/// What survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub sighting: Option<Sighting>,
    /// The newest plan that is not closed.
    pub plan: Option<Plan>,
    pub intents: [u8; KEYS],
    pub is_latched: bool,
    pub is_held: bool,
    pub runs: u8,
}

/// Where a sweeper stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Idle,
    // A scan, for an audit or for an application.
    List,
    ReadRows,
    // An audit.
    Open(u8),
    ReadSighting,
    Record,
    // An application.
    Choose,
    Verify(u8),
    Compare,
    Chunk(u8),
    Intend(u8),
    Ask(u8),
    Send(u8),
    Await(u8),
    Close,
}

/// One process. All of it is lost in a crash.
#[expect(clippy::struct_excessive_bools, reason = "half of them are what the oracle remembers of the last answer")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sweeper {
    pub step: Step,
    /// The plan that it applies; none: it audits.
    pub plan: Option<Plan>,
    pub as_of: i8,
    pub is_listed: bool,
    /// Whether the row was seen, where the rows were read first.
    pub read_before: Option<bool>,
    /// Whether the id had no row at some moment since its objects were listed.
    pub was_absent: bool,
    pub anchor: View,
    pub saw: [u8; KEYS],
    pub before: Option<Sighting>,
    /// The version that was listed to be deleted, and when.
    pub listed: u8,
    pub listed_at: i8,
    /// The version that the intent on the disk names.
    pub intended: u8,
    /// When, as the sweeper believes, the primary was asked last.
    pub proof_at: i8,
    /// When that really was, and what the truth was then.
    pub asked_at: i8,
    pub was_live_when_asked: bool,
    pub was_held_when_asked: bool,
    pub was_promised_when_asked: bool,
    pub was_refuted_when_asked: bool,
    pub attempts: u8,
}

impl Sweeper {
    pub const IDLE: Self = Self {
        step: Step::Idle,
        plan: None,
        as_of: 0,
        is_listed: false,
        read_before: None,
        was_absent: false,
        anchor: View::Whole,
        saw: [0; KEYS],
        before: None,
        listed: 0,
        listed_at: 0,
        intended: 0,
        proof_at: LONG_AGO,
        asked_at: LONG_AGO,
        was_live_when_asked: false,
        was_held_when_asked: false,
        was_promised_when_asked: false,
        was_refuted_when_asked: false,
        attempts: 0,
    };
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// An object was requested though its id was live when the primary was asked last, or nobody asked.
    LiveAtLastCheck,
    /// … though a scan or re-check since its plan was made had seen the id live.
    SeenLiveSincePlan,
    /// … though no plan names this version of it.
    NeverPlanned,
    /// … though its writer kept the promise to insert, or to bring back, the row in time.
    WithinPromise,
    /// … with an answer of the primary, or a listing, that is older than the window.
    OldProof,
    /// … without an intent on the disk.
    NoIntent,
    /// … though a person had brought it back under a hold.
    Held,
    /// A scan counted as an orphan an id that had its row from before the listing to its end.
    SightedLive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub world: World,
    pub ledger: Ledger,
    pub sweepers: [Sweeper; 2],
    pub loss: Option<Loss>,
}
