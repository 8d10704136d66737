//! How fast, how long and when a plan is applied: a budget of objects a second, a time to end, and hours of rest.
//!
//! The race this closes: whoever waits holds neither a listing nor a proof. The budget is waited for before a chunk is
//! listed and before its id is asked, never between the answer and the request.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveTime, TimeDelta, Timelike};
use chrono_tz::Tz;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Stopwatch};
use crate::model::{CHUNK_OBJECTS, Timestamp};

/// How a person wants a plan to be worked through. The default is without any bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    /// Most objects a second, over all batches. Source: `--objects-per-second`.
    pub objects_per_second: Option<NonZeroU32>,
    /// When to end at a batch's end. Source: `--max-runtime`.
    pub max_runtime: Option<Duration>,
    /// When no batch is sent. Source: `--pause-window`, `--pause-timezone`.
    pub pause: Option<PauseWindow>,
}

impl Pace {
    /// Most objects that one request names: at most a second's budget.
    pub fn largest_batch(&self) -> usize {
        let budget = self.objects_per_second.and_then(|rate| usize::try_from(rate.get()).ok());
        budget.map_or(CHUNK_OBJECTS, |budget| budget.min(CHUNK_OBJECTS))
    }

    /// Most chunks that may be in flight, so that each is sent well before its listing is too old.
    pub fn most_in_flight(&self) -> f64 {
        const SENT_WITHIN_S: f64 = 30.0;
        #[expect(clippy::cast_precision_loss, reason = "a chunk has a thousand objects")]
        let chunk = CHUNK_OBJECTS as f64;
        self.objects_per_second.map_or(f64::MAX, |rate| (f64::from(rate.get()) * SENT_WITHIN_S / chunk).max(1.0))
    }
}

impl fmt::Display for Pace {
    /// The flags that ask for it, each after a space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rate) = self.objects_per_second {
            write!(f, " --objects-per-second {rate}")?;
        }
        if let Some(limit) = self.max_runtime {
            write!(f, " --max-runtime {}", humantime::format_duration(limit).to_string().replace(' ', ""))?;
        }
        if let Some(pause) = &self.pause {
            write!(f, " --pause-window {}-{}", pause.from.format("%H:%M"), pause.to.format("%H:%M"))?;
            if pause.zone != Tz::UTC {
                write!(f, " --pause-timezone {}", pause.zone)?;
            }
        }
        Ok(())
    }
}

/// Hours of every day in which no batch is sent: from the first minute named up to the second, which is no part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseWindow {
    from: NaiveTime,
    to: NaiveTime,
    zone: Tz,
}

/// Why a pause window cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// Not two times of day.
    #[error("`{0}` is no window of two times of day")]
    Form(String),
    /// Both times are the same, which could mean never and always.
    #[error("`{0}` begins when it ends")]
    Empty(String),
    /// No such zone.
    #[error("`{0}` is no time zone")]
    Zone(String),
}

impl PauseWindow {
    /// Reads a window such as `08:00-18:00`, or `22:00-06:00` over midnight, in the time zone `zone`.
    ///
    /// - Errors: [`PauseError`].
    pub fn parse(window: &str, zone: &str) -> Result<Self, PauseError> {
        let form = || PauseError::Form(window.to_owned());
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").map_err(|_| form());
        let (from, to) = window.split_once('-').ok_or_else(form)?;
        let (from, to) = (time(from)?, time(to)?);
        if from == to {
            return Err(PauseError::Empty(window.to_owned()));
        }
        let zone = zone.parse().map_err(|_| PauseError::Zone(zone.to_owned()))?;
        Ok(Self { from, to, zone })
    }

    /// The end of the pause that `now` lies in; `None` outside of one.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        // Whole minutes, one by one: an hour that daylight saving skips or repeats then needs no case of its own.
        const LONGEST_MIN: i64 = 26 * 60;
        if !self.holds(now) {
            return None;
        }
        let seconds = i64::from(now.second());
        let this_minute = now - TimeDelta::seconds(seconds) - TimeDelta::nanoseconds(i64::from(now.nanosecond()));
        let minutes = (1..=LONGEST_MIN).map(|minute| this_minute + TimeDelta::minutes(minute));
        minutes.into_iter().find(|moment| !self.holds(*moment))
    }

    /// The beginning of the first pause after `now`, if there is one within two days.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        const LOOK_AHEAD_MIN: i64 = 50 * 60;
        let this_minute = now - TimeDelta::seconds(i64::from(now.second()));
        let minutes = (1..=LOOK_AHEAD_MIN).map(|minute| this_minute + TimeDelta::minutes(minute));
        minutes.into_iter().find(|moment| self.holds(*moment))
    }

    fn holds(&self, moment: Timestamp) -> bool {
        let time = moment.with_timezone(&self.zone).time();
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

/// Objects a second, as time that was spent in advance: a batch goes at once where nothing is owed, and the next one waits
/// until it is paid for. So the budget never rounds to nothing, however small it is.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    /// When everything that was sent is paid for, counted from the start.
    paid_at: Duration,
}

impl Budget {
    fn new(rate: NonZeroU32) -> Self {
        Self { per_second: f64::from(rate.get()), paid_at: Duration::ZERO }
    }

    /// How long nothing may be sent from `now` on.
    fn wait(&self, now: Duration) -> Duration {
        self.paid_at.saturating_sub(now)
    }

    /// Spends `objects` at `now`.
    fn spend(&mut self, objects: usize, now: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has at most a thousand objects")]
        let cost = Duration::from_secs_f64(objects as f64 / self.per_second);
        self.paid_at = self.paid_at.max(now).saturating_add(cost);
    }
}

/// Why nothing more may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The run was told to stop.
    Stopped,
    /// The time of `--max-runtime` is over.
    OutOfTime,
}

/// Keeps a [`Pace`] over all batches of a run.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    clock: Arc<dyn Clock>,
    began: Stopwatch,
    budget: Option<Mutex<Budget>>,
    /// Whoever waits for the budget is served in turn.
    turn: tokio::sync::Mutex<()>,
    /// Until when a pause lasts, while one does.
    paused_until: Mutex<Option<Timestamp>>,
}

/// The longest sleep: a clock that is set, and a machine that was suspended, are noticed that soon.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl Pacer {
    /// Begins at `began`, from which the time of `--max-runtime` counts.
    pub fn new(pace: Pace, clock: Arc<dyn Clock>, began: Stopwatch) -> Self {
        let budget = pace.objects_per_second.map(|rate| Mutex::new(Budget::new(rate)));
        Self { pace, clock, began, budget, turn: tokio::sync::Mutex::default(), paused_until: Mutex::default() }
    }

    /// The pace that it keeps.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Until when it pauses, while it does.
    pub fn paused_until(&self) -> Option<Timestamp> {
        *self.paused_until.lock()
    }

    /// How much of `--max-runtime` is left; `None` where it has no end.
    pub fn time_left(&self) -> Option<Duration> {
        self.pace.max_runtime.map(|limit| limit.saturating_sub(self.began.elapsed()))
    }

    /// Whether the time is over, once the run brought something forward: a scan that outlasts it must not end every step
    /// before its first batch.
    pub fn is_out_of_time(&self, has_sent: bool) -> bool {
        has_sent && self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Waits until a request may leave. Nothing is taken from the budget yet.
    ///
    /// - Errors: [`Over`], at once when the run is told to stop.
    pub async fn wait(&self, stop: &CancellationToken, has_sent: impl Fn() -> bool) -> Result<(), Over> {
        let _turn = self.turn.lock().await;
        self.wait_in_turn(stop, &has_sent).await
    }

    /// Waits until `objects` may be asked for, and takes them from the budget.
    ///
    /// - Errors: [`Over`]; nothing is taken then.
    pub async fn take(
        &self,
        objects: usize,
        stop: &CancellationToken,
        has_sent: impl Fn() -> bool,
    ) -> Result<(), Over> {
        let _turn = self.turn.lock().await;
        self.wait_in_turn(stop, &has_sent).await?;
        if let Some(budget) = &self.budget {
            budget.lock().spend(objects, self.began.elapsed());
        }
        Ok(())
    }

    async fn wait_in_turn(&self, stop: &CancellationToken, has_sent: &impl Fn() -> bool) -> Result<(), Over> {
        loop {
            if stop.is_cancelled() {
                return Err(Over::Stopped);
            }
            let pause = self.pause();
            // A pause is no way to spend the time and never come to an end.
            if self.is_out_of_time(has_sent() || pause.is_some()) {
                return Err(Over::OutOfTime);
            }
            let owed = self.budget.as_ref().map_or(Duration::ZERO, |budget| budget.lock().wait(self.began.elapsed()));
            let sleep = match pause {
                Some(_) => LONGEST_SLEEP / crate::failpoint::hurry(),
                None if owed.is_zero() => return Ok(()),
                None => owed.min(LONGEST_SLEEP),
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The end of the pause that it is now, said once.
    fn pause(&self) -> Option<Timestamp> {
        let until = self.pace.pause.and_then(|pause| pause.until(self.clock.now()));
        let mut noted = self.paused_until.lock();
        if *noted != until {
            if let Some(until) = until {
                tracing::info!(until = %until.to_rfc3339(), "pause: no batch is sent");
            } else {
                tracing::info!("the pause is over");
            }
            *noted = until;
        }
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn rate(rate: u32) -> Pace {
        Pace { objects_per_second: NonZeroU32::new(rate), ..Pace::default() }
    }

    #[test]
    fn a_batch_never_names_more_than_a_second_of_the_budget_and_never_nothing() {
        for (objects_per_second, largest) in [(1, 1), (999, 999), (1000, 1000), (1001, 1000), (u32::MAX, 1000)] {
            assert_eq!(rate(objects_per_second).largest_batch(), largest);
        }
        assert_eq!(Pace::default().largest_batch(), 1000);
        for (objects_per_second, most) in [(1, 1.0), (33, 1.0), (67, 2.01), (100, 3.0), (10_000, 300.0)] {
            let in_flight = rate(objects_per_second).most_in_flight();
            assert!((in_flight - most).abs() < 1e-9, "{objects_per_second}: as many as are sent within half a minute");
        }
    }

    #[test]
    fn the_budget_is_kept_over_any_mix_of_batches_and_the_first_goes_at_once() {
        for objects_per_second in [1, 7, 100, 999, 5000] {
            let mut budget = Budget::new(NonZeroU32::new(objects_per_second).expect("positive"));
            let (mut now, mut sent) = (Duration::ZERO, 0);
            for batch in [1, 1000, 3, 999, 250, 1].into_iter().cycle().take(60) {
                let batch = batch.min(rate(objects_per_second).largest_batch());
                now += budget.wait(now);
                assert!(
                    f64::from(sent) <= f64::from(objects_per_second) * now.as_secs_f64() + 1e-3,
                    "{sent} objects before {now:?}"
                );
                budget.spend(batch, now);
                sent += u32::try_from(batch).expect("small");
            }
            assert!(sent > 0);
        }
    }

    #[test]
    fn what_was_not_sent_is_not_saved_up() {
        let mut budget = Budget::new(NonZeroU32::new(10).expect("positive"));
        let late = Duration::from_secs(3600);
        assert_eq!(budget.wait(late), Duration::ZERO);
        budget.spend(10, late);
        assert_eq!(budget.wait(late), Duration::from_secs(1), "an idle hour buys no hour of haste");
    }

    #[test]
    fn a_pause_is_found_to_the_minute_also_over_midnight() {
        let day = PauseWindow::parse("08:00-18:00", "UTC").expect("a window");
        for (now, until) in [
            ("2026-03-01T07:59:59Z", None),
            ("2026-03-01T08:00:00Z", Some("2026-03-01T18:00:00Z")),
            ("2026-03-01T17:59:59.9Z", Some("2026-03-01T18:00:00Z")),
            ("2026-03-01T18:00:00Z", None),
        ] {
            assert_eq!(day.until(at(now)), until.map(at), "{now}");
        }
        let night = PauseWindow::parse("22:30-06:15", "UTC").expect("a window");
        for (now, until) in [
            ("2026-03-01T22:29:59Z", None),
            ("2026-03-01T22:30:00Z", Some("2026-03-02T06:15:00Z")),
            ("2026-03-02T00:00:00Z", Some("2026-03-02T06:15:00Z")),
            ("2026-03-02T06:15:00Z", None),
        ] {
            assert_eq!(night.until(at(now)), until.map(at), "{now}");
        }
        for before in ["2026-03-01T12:00:30Z", "2026-03-01T22:29:30Z"] {
            assert_eq!(night.next_after(at(before)), Some(at("2026-03-01T22:30:00Z")), "{before}");
        }
    }

    #[test]
    fn a_pause_keeps_the_local_hours_over_both_changes_of_daylight_saving() {
        let berlin = PauseWindow::parse("08:00-18:00", "Europe/Berlin").expect("a window");
        assert_eq!(berlin.until(at("2026-03-28T12:00:00Z")), Some(at("2026-03-28T17:00:00Z")), "winter");
        assert_eq!(berlin.until(at("2026-03-29T12:00:00Z")), Some(at("2026-03-29T16:00:00Z")), "summer");
        let gap = PauseWindow::parse("01:00-02:30", "Europe/Berlin").expect("a window");
        // On 29 March 02:30 does not exist: the pause ends where the clock jumps to 03:00.
        assert_eq!(gap.until(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:00:00Z")));
        // On 25 October the hour from 02:00 comes twice, and with it the last half hour of the pause.
        assert_eq!(gap.until(at("2026-10-25T00:00:00Z")), Some(at("2026-10-25T00:30:00Z")));
        assert_eq!(gap.until(at("2026-10-25T00:45:00Z")), None);
        assert_eq!(gap.until(at("2026-10-25T01:00:00Z")), Some(at("2026-10-25T01:30:00Z")));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for wrong in ["", "08:00", "8-18", "08:00-25:00", "08:00/18:00", "-", "08:00-18:00-20:00"] {
            assert_eq!(PauseWindow::parse(wrong, "UTC"), Err(PauseError::Form(wrong.to_owned())));
        }
        assert_eq!(PauseWindow::parse("08:00-08:00", "UTC"), Err(PauseError::Empty("08:00-08:00".into())));
        assert_eq!(PauseWindow::parse("08:00-18:00", "Berlin"), Err(PauseError::Zone("Berlin".into())));
    }

    #[test]
    fn a_pace_is_told_by_the_flags_that_ask_for_it() {
        let pace = Pace {
            objects_per_second: NonZeroU32::new(500),
            max_runtime: Some(Duration::from_secs(9000)),
            pause: PauseWindow::parse("08:00-18:00", "Europe/Berlin").ok(),
        };
        let flags =
            " --objects-per-second 500 --max-runtime 2h30m --pause-window 08:00-18:00 --pause-timezone Europe/Berlin";
        assert_eq!(pace.to_string(), flags);
        assert_eq!(Pace::default().to_string(), "");
    }

    fn pacer(pace: Pace, now: &str) -> (Pacer, ManualClock) {
        let clock = ManualClock::at(at(now));
        (Pacer::new(pace, Arc::new(clock.clone()), Stopwatch::start()), clock)
    }

    #[tokio::test]
    async fn inside_the_pause_nothing_is_let_go_and_a_stop_is_obeyed_at_once() {
        let pause = PauseWindow::parse("08:00-18:00", "UTC").ok();
        let (pacer, clock) = pacer(Pace { pause, ..Pace::default() }, "2026-03-01T09:00:00Z");
        let stop = CancellationToken::new();
        {
            let waiting = pacer.take(1, &stop, || true);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
            assert_eq!(pacer.paused_until(), Some(at("2026-03-01T18:00:00Z")));
            stop.cancel();
            assert_eq!(waiting.await, Err(Over::Stopped));
        }
        clock.set(at("2026-03-01T18:00:00Z"));
        assert_eq!(pacer.take(1, &CancellationToken::new(), || true).await, Ok(()));
        assert_eq!(pacer.paused_until(), None);
    }

    #[tokio::test]
    async fn time_that_is_over_ends_a_run_that_sent_something_or_only_pauses() {
        let limit = Some(Duration::ZERO);
        let (pacer, _) = pacer(Pace { max_runtime: limit, ..Pace::default() }, "2026-03-01T09:00:00Z");
        let never = CancellationToken::new();
        assert_eq!(pacer.take(1, &never, || false).await, Ok(()), "the first batch goes");
        assert_eq!(pacer.take(1, &never, || true).await, Err(Over::OutOfTime));
        let pause = PauseWindow::parse("08:00-18:00", "UTC").ok();
        let (pacer, _) = self::pacer(Pace { max_runtime: limit, pause, ..Pace::default() }, "2026-03-01T09:00:00Z");
        assert_eq!(pacer.take(1, &never, || false).await, Err(Over::OutOfTime));
    }

    #[tokio::test]
    async fn a_budget_that_is_spent_is_waited_for_and_served_in_turn() {
        let (pacer, _) = pacer(rate(1), "2026-03-01T09:00:00Z");
        assert_eq!(pacer.pace(), &rate(1));
        let never = CancellationToken::new();
        assert_eq!(pacer.take(1, &never, || true).await, Ok(()));
        let waiting = pacer.take(1, &never, || true);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        let next = pacer.wait(&never, || true);
        tokio::pin!(next);
        assert!(futures::poll!(&mut next).is_pending());
    }
}
