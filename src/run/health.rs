//! Whether a scope had a successful run lately: for the health check, the metrics and the heartbeat.

use std::time::Duration;

use crate::config::{DAY, Scope};
use crate::decide::breakers::MAX_SKEW;
use crate::model::Timestamp;
use crate::record::{Ledger, RecordError};

/// Added to one interval of the schedule before silence counts as illness.
const SLACK: Duration = Duration::from_secs(2 * 3600);

/// How a scope is.
#[derive(Debug, Clone, Copy)]
pub struct ScopeHealth {
    /// When its last complete run ended.
    pub last_success: Option<Timestamp>,
    /// When `serve` first looked at its schedule.
    pub first_start: Option<Timestamp>,
    /// How long after that silence counts as illness.
    pub limit: Duration,
    /// From when on the limit counts; `None`: nothing succeeded or began yet.
    pub counted_from: Option<Timestamp>,
}

impl ScopeHealth {
    /// How `scope` is at `now`, within `given` or within one interval of its schedule plus two hours, counted from the
    /// later of last success and first start; within `given`, only a success counts.
    ///
    /// - Errors: the ledger's.
    pub async fn of(
        ledger: &Ledger,
        scope: &Scope,
        now: Timestamp,
        given: Option<Duration>,
    ) -> Result<Self, RecordError> {
        let last_success =
            ledger.last_complete_run(&scope.name).await?.map(|run| run.finished_at.unwrap_or(run.started_at));
        let first_start = ledger.first_start(&scope.name).await?;
        let limit = given.unwrap_or_else(|| limit_of(scope, now));
        let counted_from = last_success.max(if given.is_some() { None } else { first_start });
        Ok(Self { last_success, first_start, limit, counted_from })
    }

    /// Whether it is well at `now`.
    pub fn is_well(&self, now: Timestamp) -> bool {
        is_recent(self.counted_from, now, self.limit)
    }

    /// Until when a run must have succeeded.
    pub fn due(&self) -> Option<Timestamp> {
        self.counted_from?.checked_add_signed(chrono::Duration::from_std(self.limit).ok()?)
    }
}

/// One interval of the schedule plus two hours; a day where there is no schedule.
fn limit_of(scope: &Scope, now: Timestamp) -> Duration {
    scope.schedule.as_ref().map_or(DAY, |schedule| schedule.longest_interval(now)) + SLACK
}

fn is_recent(since: Option<Timestamp>, now: Timestamp, limit: Duration) -> bool {
    // A success in the future says only that a clock was wrong.
    since.is_some_and(|since| since - now <= MAX_SKEW && (now - since).to_std().unwrap_or_default() <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_ends_one_second_after_the_limit() {
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).expect("in range");
        let limit = Duration::from_secs(100);
        assert!(is_recent(Some(at(0)), at(100), limit));
        assert!(!is_recent(Some(at(0)), at(101), limit));
        assert!(!is_recent(None, at(0), limit));
        assert!(is_recent(Some(at(400)), at(100), limit), "clocks may differ by five minutes");
        assert!(!is_recent(Some(at(401)), at(100), limit), "a success in the future is none");
    }
}
