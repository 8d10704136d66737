//! What is tried again, and when: bounded attempts, doubling pauses with jitter, cut short by a stop.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{StoreError, StoreFault};
use crate::metrics;

/// Attempts that one request gets.
pub const MAX_ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause after the given number of failed attempts: it doubles, and half of it is left to chance.
pub fn pause_after(failed_attempts: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failed_attempts.min(10)).min(LONGEST_PAUSE);
    (full / 2 + full.mul_f64(fastrand::f64() / 2.0)) / crate::failpoint::hurry()
}

/// Waits that long, or until the run is told to stop; says whether to go on.
pub async fn wait_before_retry(failed_attempts: u32, stop: &CancellationToken) -> bool {
    #[cfg(test)]
    if crate::failpoint::is_staged() {
        return !stop.is_cancelled();
    }
    tokio::select! {
        () = tokio::time::sleep(pause_after(failed_attempts)) => true,
        () = stop.cancelled() => false,
    }
}

/// Reads with retries. Only for requests that change nothing.
///
/// - Errors: the last attempt's.
pub async fn read_with_retries<T, F>(stop: &CancellationToken, mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut failed_attempts = 0;
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                failed_attempts += 1;
                // A broken page is asked for once more only: a store that breaks the protocol twice means it.
                let limit = if matches!(error.fault, StoreFault::Malformed(_)) { 2 } else { MAX_ATTEMPTS };
                if !error.fault.is_transient() || failed_attempts >= limit {
                    return Err(error);
                }
                tracing::debug!(error = %error, failed_attempts, "request failed; trying again");
                metrics::request_retried(error.operation, &error.fault);
                if !wait_before_retry(failed_attempts, stop).await {
                    return Err(error);
                }
            }
        }
    }
}
