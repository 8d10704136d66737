//! How a scan compares with the last complete run that counted every orphan.

use uuid::Uuid;

use super::{RunFailure, Session};
use crate::record::ScanDelta;
use crate::report::Trend;

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// How this scan, which differs by `delta` from the one before, compares with the last complete run; `None`: there is none.
///
/// - Errors: the ledger's.
pub async fn since_last_run(session: &Session<'_>, delta: ScanDelta) -> Result<Option<Trend>, RunFailure> {
    let ledger = &session.services.ledger;
    let Some(last) = ledger.last_counted_run(&session.scope.name).await? else { return Ok(None) };
    let Ok(since_run) = Uuid::parse_str(&last.run_id) else { return Ok(None) };
    let days = (session.draft.started_at - last.started_at).as_seconds_f64() / DAY_S;
    let bytes_per_day = match last.orphan_bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
        Some(before) if days > 0.0 => {
            let deleted = ledger.bytes_deleted_since(&session.scope.name, &last.run_id).await?;
            Some(leaked_a_day(Leak { before, deleted, now: session.draft.orphan_bytes }, days))
        }
        Some(_) | None => None,
    };
    Ok(Some(Trend {
        since_run,
        new: delta.new,
        persisting: delta.persisting,
        resolved: delta.resolved,
        bytes_per_day,
        days_to_full: bytes_per_day
            .and_then(|rate| days_to_full(session.scope.capacity, session.draft.orphan_bytes, rate)),
    }))
}

/// Bytes under orphans at two times, and what we deleted of them in between.
#[derive(Debug, Clone, Copy)]
struct Leak {
    before: u64,
    deleted: u64,
    now: u64,
}

/// What came under orphans a day. What we deleted ourselves is no shrinking of the leak.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn leaked_a_day(leak: Leak, days: f64) -> f64 {
    let left = leak.before.saturating_sub(leak.deleted);
    (leak.now as f64 - left as f64) / days
}

/// Days until the leak alone fills what the orphans leave of the store: an upper bound, because a store tells nobody with the
/// rights of this program how much live data fills it as well.
#[expect(clippy::cast_precision_loss, reason = "a number of days needs no more digits")]
fn days_to_full(capacity: Option<u64>, orphan_bytes: u64, bytes_per_day: f64) -> Option<f64> {
    let left = capacity?.saturating_sub(orphan_bytes);
    (bytes_per_day > 0.0).then(|| left as f64 / bytes_per_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_deleted_is_no_shrinking_of_the_leak() {
        for (before, deleted, now, days, expected) in [
            (100, 0, 160, 2.0, 30.0),
            (100, 100, 60, 2.0, 30.0),
            (100, 40, 60, 1.0, 0.0),
            (100, 0, 40, 2.0, -30.0),
            // More than was there before: what leaked and went again in between is not known.
            (100, 300, 50, 1.0, 50.0),
        ] {
            let rate = leaked_a_day(Leak { before, deleted, now }, days);
            assert!((rate - expected).abs() < 1e-9, "{before} {deleted} {now}: {rate}");
        }
    }

    #[test]
    fn the_store_is_full_by_the_leak_only_where_it_grows_and_its_size_is_known() {
        assert_eq!(days_to_full(Some(1000), 400, 60.0), Some(10.0));
        assert_eq!(days_to_full(Some(400), 1000, 60.0), Some(0.0), "more than it is said to hold");
        assert_eq!(days_to_full(None, 400, 60.0), None);
        assert_eq!(days_to_full(Some(1000), 400, 0.0), None);
        assert_eq!(days_to_full(Some(1000), 400, -1.0), None);
    }
}
