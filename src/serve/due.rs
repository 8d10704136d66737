//! Which occurrences of a schedule are due. Pure: the calendar and two moments in, what to run out.

use chrono::Duration;

use crate::config::{Schedule, ScheduledCommand};
use crate::model::Timestamp;

/// An occurrence that is seen later than this was missed: the process was down, or busy.
const ON_TIME: Duration = Duration::minutes(5);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The occurrence of this moment: run what the schedule says.
    OnTime(ScheduledCommand),
    /// One or several were missed: one audit catches up for all of them.
    CatchUp,
}

/// What is due in (`checked_until`, `now`].
pub fn due(schedule: &Schedule, checked_until: Timestamp, now: Timestamp) -> Due {
    if now <= checked_until {
        return Due::Nothing;
    }
    let fresh_from = checked_until.max(now - ON_TIME);
    let is_due = |occurrence: Option<Timestamp>| occurrence.is_some_and(|occurrence| occurrence <= now);
    if is_due(first_after(schedule, fresh_from)) {
        return Due::OnTime(schedule.command);
    }
    if is_due(first_after(schedule, checked_until)) { Due::CatchUp } else { Due::Nothing }
}

/// The first occurrence after `moment`.
///
/// In the hour that a change of daylight saving repeats, the calendar also gives the occurrence of the first time round,
/// which lies before `moment`: taken for due, it would run every 15 seconds for an hour.
pub fn first_after(schedule: &Schedule, moment: Timestamp) -> Option<Timestamp> {
    const LOOK_AHEAD: usize = 4000;
    let occurrences = schedule.cron.iter_after(moment.with_timezone(&schedule.timezone)).take(LOOK_AHEAD);
    occurrences.map(|occurrence| occurrence.to_utc()).find(|occurrence| *occurrence > moment)
}

#[cfg(test)]
mod tests {
    use croner::parser::{CronParser, Seconds, Year};

    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        Schedule {
            cron: parser.parse(cron).expect("a cron expression"),
            timezone: zone.parse().expect("a time zone"),
            command: ScheduledCommand::Sweep,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The minutes at which a daemon that looks every 15 s runs, from `from` to `until`.
    fn runs(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
        let (mut checked, mut runs) = (at(from), Vec::new());
        while checked < at(until) {
            let now = checked + Duration::seconds(15);
            if let Due::OnTime(_) = due(schedule, checked, now) {
                runs.push(now.format("%m-%d %H:%M").to_string());
            }
            checked = now;
        }
        runs
    }

    #[test]
    fn a_nightly_schedule_runs_once_a_night() {
        let nightly = schedule("0 3 * * *", "UTC");
        assert_eq!(
            runs(&nightly, "2026-11-20T00:00:00Z", "2026-11-22T12:00:00Z"),
            ["11-20 03:00", "11-21 03:00", "11-22 03:00"]
        );
    }

    #[test]
    fn the_local_hour_is_kept_over_both_changes_of_daylight_saving() {
        let berlin = schedule("30 2 * * *", "Europe/Berlin");
        // On 29 March 02:30 does not exist; on 25 October it comes twice.
        assert_eq!(
            runs(&berlin, "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"),
            ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
        );
        assert_eq!(
            runs(&berlin, "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z"),
            ["10-24 00:30", "10-25 00:30", "10-26 01:30"]
        );
    }

    #[test]
    fn six_fields_and_the_ordinary_day_rule_are_understood() {
        let seconds = schedule("30 0 3 * * *", "UTC");
        assert_eq!(
            due(&seconds, at("2026-01-01T03:00:29Z"), at("2026-01-01T03:00:30Z")),
            Due::OnTime(ScheduledCommand::Sweep)
        );
        assert_eq!(due(&seconds, at("2026-01-01T03:00:00Z"), at("2026-01-01T03:00:29Z")), Due::Nothing);
        let first_or_monday = schedule("0 3 1 * MON", "UTC");
        assert_eq!(
            runs(&first_or_monday, "2026-06-30T00:00:00Z", "2026-07-07T00:00:00Z"),
            ["07-01 03:00", "07-06 03:00"]
        );
    }

    #[test]
    fn missed_occurrences_are_caught_up_once() {
        let hourly = schedule("0 * * * *", "UTC");
        assert_eq!(due(&hourly, at("2026-01-01T00:30:00Z"), at("2026-01-03T10:20:00Z")), Due::CatchUp);
        assert_eq!(due(&hourly, at("2026-01-03T10:20:00Z"), at("2026-01-03T10:20:15Z")), Due::Nothing);
    }

    #[test]
    fn an_occurrence_on_time_wins_over_missed_ones() {
        let hourly = schedule("0 * * * *", "UTC");
        assert_eq!(
            due(&hourly, at("2026-01-01T00:30:00Z"), at("2026-01-01T05:00:10Z")),
            Due::OnTime(ScheduledCommand::Sweep)
        );
    }

    #[test]
    fn lateness_is_judged_to_the_second() {
        let nightly = schedule("0 3 * * *", "UTC");
        let checked = at("2026-01-01T00:00:00Z");
        assert_eq!(due(&nightly, checked, at("2026-01-01T02:59:59Z")), Due::Nothing);
        assert_eq!(due(&nightly, checked, at("2026-01-01T03:00:00Z")), Due::OnTime(ScheduledCommand::Sweep));
        assert_eq!(due(&nightly, checked, at("2026-01-01T03:04:59Z")), Due::OnTime(ScheduledCommand::Sweep));
        assert_eq!(due(&nightly, checked, at("2026-01-01T03:05:00Z")), Due::CatchUp);
    }

    #[test]
    fn a_clock_that_was_set_back_runs_nothing_again() {
        let nightly = schedule("0 3 * * *", "UTC");
        assert_eq!(due(&nightly, at("2026-01-01T03:00:05Z"), at("2026-01-01T02:59:00Z")), Due::Nothing);
        assert_eq!(due(&nightly, at("2026-01-01T03:00:05Z"), at("2026-01-01T03:00:05Z")), Due::Nothing);
    }
}
