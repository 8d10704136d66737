//! record: the durable memory. Runs, sightings, plans, latches, and the journal of every key asked for.
//!
//! Invariant: what may go sooner is never decided by a ledger that is lost, new, old or from elsewhere.

mod aborts;
mod breakers;
mod chain;
mod decisions;
mod figures;
mod holds;
mod journal;
mod ledger;
mod lock;
mod notices;
mod parts;
mod plans;
mod purges;
mod refused;
mod retention;
mod runs;
mod schedules;
mod schema;
mod scratch;
mod sightings;
mod sql;
mod tokens;
mod undos;
mod wanted;

pub use aborts::AbortIntent;
pub use breakers::{Acknowledgement, Latch};
pub use chain::{ChainFault, KnownHead, Verified};
pub use decisions::NewDecision;
pub use holds::HoldRow;
pub use journal::{DeletionTotals, Intent, KeyOutcome};
pub use ledger::{Absence, Ledger, RecordError};
pub use lock::{LockError, RunLock};
pub use notices::UndeliveredRow;
pub use parts::{Part, PartOf, StepTotals, Steps};
pub use plans::{PlanListing, PlanRow, PlanState};
pub use purges::{PurgeEvidence, PurgeRow, PurgeState, PurgeSubject, PurgedDataset, PurgedJob};
pub use refused::{GHOST, OBJECT_LOCK, REFUSED};
pub use runs::{RunEnd, RunRow, RunStart};
pub use scratch::{NewScratch, Scratch, ScratchKind, ScratchState};
pub use sightings::{Looked, ScanDelta};
pub use tokens::{TokenRow, TokenScope};
pub use undos::{Undo, UndoKind};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
