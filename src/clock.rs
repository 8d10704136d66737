//! Time as a value that is handed in: the one place that reads the host's clock.
//!
//! Takes nothing; gives [`Clock`]. Invariant: no other module asks the operating system for the date, so that a test and
//! the demo can move every clock of the program at once.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

/// A source of the current date and time in UTC.
pub trait Clock: Debug + Send + Sync {
    /// The current time of this clock.
    fn now(&self) -> DateTime<Utc>;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may read the host's clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that moves only when told to; clones share one hand.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(start)))
    }

    /// Moves the clock by `step`, which may be negative.
    pub fn advance(&self, step: chrono::Duration) {
        *self.0.lock() += step;
    }

    /// Sets the clock to `time`.
    pub fn set(&self, time: DateTime<Utc>) {
        *self.0.lock() = time;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock()
    }
}

/// Measures how long ago something was, by whichever of two clocks says longer.
///
/// The monotonic clock stands still while a machine is suspended and the wall clock can be set back, so neither alone
/// proves that an answer is young.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    monotonic: Instant,
    wall: SystemTime,
}

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
    pub fn start() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// One that was started that long ago.
    #[cfg(test)]
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
    pub fn started_before(age: Duration) -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() - age }
    }

    /// The longer of the two measured times.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
    pub fn elapsed(&self) -> Duration {
        let wall = SystemTime::now().duration_since(self.wall).unwrap_or_default();
        self.monotonic.elapsed().max(wall)
    }
}
