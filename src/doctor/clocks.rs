//! The clocks of host, store and database, compared. Pure.

use chrono::Duration;

use super::board::Check;
use crate::decide::breakers::MAX_SKEW;
use crate::model::Timestamp;

/// A difference that no run minds yet, and that says that a clock is not kept.
const NOTABLE: Duration = Duration::seconds(30);

/// What another clock said while ours went from `before` to `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// Whose clock.
    pub(super) whose: String,
    /// How far it lies ahead of ours; negative behind.
    pub(super) ahead: Duration,
}

impl Reading {
    /// A reading of a clock that shows whole seconds, or finer.
    pub(super) fn new(whose: impl Into<String>, before: Timestamp, theirs: Timestamp, after: Timestamp) -> Self {
        // A clock of whole seconds may stand up to one behind.
        let (earliest, latest) = (before - Duration::seconds(1), after);
        let ahead = if theirs < earliest {
            theirs - earliest
        } else if theirs > latest {
            theirs - latest
        } else {
            Duration::zero()
        };
        Self { whose: whose.into(), ahead }
    }
}

/// Compares every clock that was read with ours and with each other.
pub(super) fn compare(readings: &[Reading]) -> Check {
    const NAME: &str = "clocks";
    const HINT: &str = "keep all clocks by NTP; beyond 5 minutes every run is refused (clock_skew)";
    if readings.is_empty() {
        return Check::warn(NAME, "not compared: neither store nor database answered", "see what failed above");
    }
    let offsets = readings.iter().map(|reading| reading.ahead).chain([Duration::zero()]);
    let largest = offsets.clone().max().unwrap_or_default() - offsets.min().unwrap_or_default();
    let shown: Vec<String> = readings.iter().map(in_words).collect();
    let detail = format!("compared with this host: {}", shown.join(", "));
    if largest > MAX_SKEW {
        return Check::fail(NAME, detail, HINT);
    }
    if largest > NOTABLE { Check::warn(NAME, detail, HINT) } else { Check::ok(NAME, detail) }
}

fn in_words(reading: &Reading) -> String {
    let Reading { whose, ahead } = reading;
    let seconds = ahead.num_seconds();
    match seconds {
        0 => format!("{whose} the same"),
        1.. => format!("{whose} {seconds} s ahead"),
        _ => format!("{whose} {} s behind", -seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::State;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_700_000_000 + second, 0).expect("in range")
    }

    #[test]
    fn a_clock_within_the_exchange_or_cut_to_the_second_is_the_same() {
        for theirs in [-1, 0, 1, 2] {
            assert_eq!(Reading::new("store", at(0), at(theirs), at(2)).ahead, Duration::zero(), "{theirs}");
        }
        assert_eq!(Reading::new("store", at(0), at(5), at(2)).ahead, Duration::seconds(3));
        assert_eq!(Reading::new("store", at(0), at(-4), at(2)).ahead, Duration::seconds(-3));
    }

    #[test]
    fn five_minutes_pass_and_a_second_more_fails() {
        let reading = |seconds| Reading { whose: "store".into(), ahead: Duration::seconds(seconds) };
        assert_eq!(compare(&[reading(30)]).state, State::Ok);
        assert_eq!(compare(&[reading(300)]).state, State::Warn);
        assert_eq!(compare(&[reading(-301)]).state, State::Fail);
        assert_eq!(compare(&[reading(-200), reading(200)]).state, State::Fail, "the two are compared with each other");
        assert_eq!(compare(&[]).state, State::Warn);
    }
}
