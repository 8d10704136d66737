//! serve: the schedule, in one process, until it is told to stop.

mod due;
pub mod signals;
mod ticker;

pub use ticker::serve;
