//! The guards of the protocol, each named like the piece of the program that it stands for.

/// What keeps a live dataset from being deleted. Each can be taken out of the model, which must then find the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Guard {
    /// The bucket is listed before the rows are read. `run/scan.rs`, `scan`.
    ListFirst,
    /// The primary is asked before a batch is sent. `dispose/batch.rs`, `Disposal::ask_again`.
    AskAgain,
    /// … and before every further attempt of it. `dispose/batch.rs`, the loop of `Disposal::delete_batch`.
    AskAgainEachAttempt,
    /// An answer of the primary that has grown old sends nothing. `s3/witness.rs`, `Witness::send_within`.
    SendWithin,
    /// A listing that has grown old is no ground for a request. `dispose/batch.rs`, `LISTING_LIVES`.
    ListingLives,
    /// An id that any look saw live loses its sightings. `record/sightings.rs`, `Ledger::forget`.
    Forget,
    /// A plan is good only while the sightings that it was made from go on. `run/apply.rs`, `choose`.
    Choose,
    /// … which is asked again with the primary. `dispose/batch.rs`, `Disposal::ask_again`.
    IsOnThePlan,
    /// A scan continues only the sightings that it read. `record/sightings.rs`, `Ledger::record_scan`.
    RecordScan,
    /// The objects are those of the plan. `dispose/group.rs`, `Disposal::verify`.
    Verify,
    /// … and still are when they are listed to be deleted. `dispose/group.rs`, `Disposal::next_chunk`.
    NextChunk,
    /// The newest object is older than grace. `decide/mod.rs`, `decide`.
    NewestAge,
    /// The first sighting is, too, by witnessed time. `decide/mod.rs`, `decide`.
    FirstSeenAge,
    /// Several complete scans saw it. `decide/mod.rs`, `decide`.
    MinSightings,
    /// … over a span of time. `decide/mod.rs`, `decide`.
    MinSightingSpan,
    /// One jump of every clock matures nothing. `decide/sightings.rs`, `longest_counted_gap`.
    LongestCountedGap,
    /// Too few rows are evidence against the database. `decide/breakers.rs`, `live_drop`.
    LiveDrop,
    /// So is another identity. `decide/breakers.rs`, `database_identity`.
    DatabaseIdentity,
    /// A transaction that may hold rows refuses. `decide/breakers.rs`, `open_transaction`.
    OpenTransaction,
    /// A re-check finds the database of the scan, and its sentinels. `list/references/mod.rs`, `check_anchor`.
    CheckAnchor,
    /// The intent is on the disk before the request. `record/journal.rs`, `Ledger::intend`.
    Intend,
    /// A hold keeps its id off every plan and out of every application. `decide/mod.rs` and `run/apply.rs`.
    Held,
    /// … and is asked again before each attempt. `dispose/batch.rs`.
    HeldAgain,
}

/// The guards that are in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards(u32);

impl Guards {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// All but these.
    pub fn without(removed: &[Guard]) -> Self {
        Self(removed.iter().fold(u32::MAX, |mask, guard| mask & !(1 << *guard as u8)))
    }

    /// Whether this one is in place.
    pub fn has(self, guard: Guard) -> bool {
        self.0 & (1 << guard as u8) != 0
    }
}
