//! How far a step has come, how fast, and when it ends: over what this step can do, not over what it is asked for. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::TimeDelta;

use crate::dispose::pace::PauseWindow;
use crate::model::{Timestamp, human_count};
use crate::report::text::words;

/// The rate is measured over this much of the newest work.
const MEASURED_OVER: Duration = Duration::from_secs(300);
/// A rate from less work than this says nothing.
const LEAST_MEASURED: Duration = Duration::from_secs(5);

/// Measures how many objects a second are done while work goes on; pauses do not count.
#[derive(Debug, Default)]
pub struct Meter {
    /// Time worked, and objects done by then.
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// Notes that `done` objects are done after `worked`.
    pub fn note(&mut self, worked: Duration, done: u64) {
        self.samples.push_back((worked, done));
        while self.samples.len() > 2 && worked.saturating_sub(self.samples[1].0) >= MEASURED_OVER {
            self.samples.pop_front();
        }
    }

    /// Objects a second lately; none where too little was measured, or nothing went.
    pub fn rate(&self) -> Option<f64> {
        let ((from, before), (to, now)) = (self.samples.front()?, self.samples.back()?);
        let measured = to.saturating_sub(*from);
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
        let objects = now.saturating_sub(*before) as f64;
        (measured >= LEAST_MEASURED && objects > 0.0).then(|| objects / measured.as_secs_f64())
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Objects that are left of what the step was asked for.
    pub left: u64,
    /// Objects a second lately.
    pub rate: Option<f64>,
    /// Now.
    pub now: Timestamp,
    /// How much of `--max-runtime` is left.
    pub time_left: Option<Duration>,
    /// When no batch is sent.
    pub pause: Option<PauseWindow>,
}

/// How a step will end, as far as that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything is done at about that time.
    Done(Timestamp),
    /// Its time is over first; about so many objects are left then.
    OutOfTime {
        /// When.
        at: Timestamp,
        /// Objects left, where the rate is known.
        left: Option<u64>,
    },
    /// Nothing can be said yet.
    Unknown,
}

impl Standing {
    /// How the step will end.
    #[must_use]
    pub fn end(&self) -> End {
        let deadline = self
            .time_left
            .and_then(|left| TimeDelta::from_std(left).ok())
            .and_then(|left| self.now.checked_add_signed(left));
        let Some(rate) = self.rate else {
            return deadline.map_or(End::Unknown, |at| End::OutOfTime { at, left: None });
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
        let mut needed_s = self.left as f64 / rate;
        let mut now = self.now;
        // A forecast over more pauses than this is none.
        for _ in 0..1000 {
            if let Some(until) = self.pause.and_then(|pause| pause.until(now)) {
                if let Some(at) = deadline.filter(|deadline| *deadline <= until) {
                    return End::OutOfTime { at, left: Some(objects(needed_s * rate)) };
                }
                now = until;
                continue;
            }
            let pause = self.pause.and_then(|pause| pause.next_after(now));
            let open_until = [pause, deadline].into_iter().flatten().min();
            let open_s = open_until.map_or(f64::INFINITY, |until| (until - now).as_seconds_f64());
            if needed_s <= open_s {
                // Beyond a century, nothing is known.
                let needed = TimeDelta::try_seconds(seconds(needed_s)).filter(|needed| needed.num_days() < 36_500);
                return needed.and_then(|needed| now.checked_add_signed(needed)).map_or(End::Unknown, End::Done);
            }
            needed_s -= open_s.max(0.0);
            let Some(until) = open_until else { return End::Unknown };
            if deadline == Some(until) {
                return End::OutOfTime { at: until, left: Some(objects(needed_s * rate)) };
            }
            now = until;
        }
        End::Unknown
    }

    /// The forecast in words.
    #[must_use]
    pub fn shown(&self) -> String {
        let rate =
            self.rate.map_or_else(String::new, |rate| format!("{} a second, ", human_count(objects(rate.ceil()))));
        let end = match self.end() {
            End::Done(at) => format!("done in about {}", words::span(at - self.now)),
            End::OutOfTime { at, left: Some(left) } => {
                format!("this step ends in {} with about {} left", words::span(at - self.now), human_count(left))
            }
            End::OutOfTime { at, left: None } => format!("this step ends in {}", words::span(at - self.now)),
            End::Unknown => "its end is not known yet".to_owned(),
        };
        let paused = self.pause.and_then(|pause| pause.until(self.now));
        match paused {
            Some(until) => format!("pause until {}; {rate}{end}", words::moment(until)),
            None => format!("{rate}{end}"),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
fn objects(count: f64) -> u64 {
    count.round() as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
fn seconds(count: f64) -> i64 {
    count.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn standing(left: u64, rate: f64) -> Standing {
        Standing { left, rate: Some(rate), now: at("2026-03-01T06:00:00Z"), time_left: None, pause: None }
    }

    #[test]
    fn what_is_left_at_the_measured_rate_is_the_end() {
        assert_eq!(standing(3600, 1.0).end(), End::Done(at("2026-03-01T07:00:00Z")));
        assert_eq!(standing(0, 1.0).end(), End::Done(at("2026-03-01T06:00:00Z")));
        assert_eq!(Standing { rate: None, ..standing(1, 1.0) }.end(), End::Unknown);
        assert_eq!(standing(u64::MAX, 0.001).end(), End::Unknown, "beyond the calendar");
    }

    #[test]
    fn a_pause_is_added_and_a_deadline_cuts_it_short() {
        let pause = PauseWindow::parse("08:00-18:00", "UTC").ok();
        let paused = Standing { pause, ..standing(3 * 3600, 1.0) };
        assert_eq!(paused.end(), End::Done(at("2026-03-01T19:00:00Z")), "two hours before it, one after");
        let limited = Standing { time_left: Some(Duration::from_secs(3600)), ..paused };
        let left = Some(2 * 3600);
        assert_eq!(limited.end(), End::OutOfTime { at: at("2026-03-01T07:00:00Z"), left });
        let in_pause = Standing { time_left: Some(Duration::from_secs(5 * 3600)), ..paused };
        let left = Some(3600);
        assert_eq!(in_pause.end(), End::OutOfTime { at: at("2026-03-01T11:00:00Z"), left });
        let begun_in_pause = Standing { now: at("2026-03-01T09:00:00Z"), ..paused };
        assert_eq!(begun_in_pause.end(), End::Done(at("2026-03-01T21:00:00Z")));
        assert!(
            begun_in_pause.shown().starts_with("pause until 2026-03-01 18:00:00 UTC"),
            "{}",
            begun_in_pause.shown()
        );
    }

    #[test]
    fn a_long_backfill_in_the_nights_is_told_in_days() {
        let pause = PauseWindow::parse("06:00-22:00", "UTC").ok();
        let backfill = Standing { pause, ..standing(100_000_000, 1000.0) };
        // 100,000 s in nights of 8 hours: three whole ones and 13,600 s of the fourth.
        assert_eq!(backfill.end(), End::Done(at("2026-03-05T01:46:40Z")));
        assert_eq!(backfill.shown(), "pause until 2026-03-01 22:00:00 UTC; 1,000 a second, done in about 3 days 19 h");
    }

    #[test]
    fn an_unknown_rate_says_only_when_the_time_is_over() {
        let unknown = Standing { rate: None, time_left: Some(Duration::from_secs(7200)), ..standing(5, 1.0) };
        assert_eq!(unknown.end(), End::OutOfTime { at: at("2026-03-01T08:00:00Z"), left: None });
        assert_eq!(unknown.shown(), "this step ends in 2 h");
    }

    #[test]
    fn the_rate_is_that_of_the_last_minutes() {
        let mut meter = Meter::default();
        meter.note(Duration::ZERO, 0);
        meter.note(Duration::from_secs(4), 4000);
        assert_eq!(meter.rate(), None, "too little was measured");
        meter.note(Duration::from_secs(5), 5000);
        assert_eq!(meter.rate(), Some(1000.0));
        for second in 6..=1000_u64 {
            meter.note(Duration::from_secs(second), 5000 + (second - 5) * 10);
        }
        assert!(meter.rate().is_some_and(|rate| (rate - 10.0).abs() < 0.1), "{:?}", meter.rate());
        assert!(meter.samples.len() <= 302);
    }
}
