//! record: the durable memory. Runs, sightings, plans, latches, and the journal of every key asked for.
//!
//! Invariant: what may go sooner is never decided by a ledger that is lost, new, old or from elsewhere.

mod breakers;
mod journal;
mod ledger;
mod lock;
mod plans;
mod runs;
mod schedules;
mod sightings;
#[expect(dead_code, reason = "the statements move to it one room at a time")]
mod sql;

pub use journal::{Intent, KeyOutcome};
pub use ledger::{Ledger, RecordError};
pub use lock::{LockError, RunLock};
pub use plans::{PlanRow, PlanState};
pub use runs::{RunEnd, RunRow, RunStart};
pub use sightings::ScanDelta;

#[cfg(test)]
mod tests;
