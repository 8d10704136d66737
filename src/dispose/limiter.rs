//! How many delete requests may be in flight: one more after each good answer's share, half after a throttle.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most delete requests in flight. Four already saturate a small server; more only queue.
const MOST: f64 = 8.0;

/// Additive increase, multiplicative decrease.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    most: f64,
    allowed: f64,
    in_flight: usize,
}

/// The right to have one request in flight.
#[derive(Debug)]
pub struct Permit<'l>(&'l Limiter);

impl Limiter {
    /// Begins with one request at a time, and never has more than `most`.
    pub fn new(most: f64) -> Self {
        let most = most.clamp(1.0, MOST);
        Self { state: Mutex::new(State { most, allowed: 1.0, in_flight: 0 }), freed: Notify::new() }
    }

    /// Waits for the right to send.
    pub async fn acquire(&self) -> Permit<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state.lock();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and eight")]
                let allowed = state.allowed as usize;
                if state.in_flight < allowed {
                    state.in_flight += 1;
                    return Permit(self);
                }
            }
            freed.await;
        }
    }

    /// The store answered well.
    pub fn answered(&self) {
        let mut state = self.state.lock();
        state.allowed = (state.allowed + 1.0 / state.allowed).min(state.most);
        drop(state);
        self.freed.notify_one();
    }

    /// The store asked to slow down.
    pub fn throttled(&self) {
        let mut state = self.state.lock();
        state.allowed = (state.allowed / 2.0).max(1.0);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &Limiter) -> f64 {
        limiter.state.lock().allowed
    }

    #[test]
    fn it_rises_to_eight_and_halves_to_one() {
        let limiter = Limiter::new(f64::MAX);
        limiter.answered();
        assert!((allowed(&limiter) - 2.0).abs() < 1e-9);
        limiter.answered();
        assert!((allowed(&limiter) - 2.5).abs() < 1e-9, "of two in flight, each answer brings half of one more");
        (0..200).for_each(|_| limiter.answered());
        assert!((allowed(&limiter) - MOST).abs() < 1e-9);
        limiter.throttled();
        assert!((allowed(&limiter) - 4.0).abs() < 1e-9);
        (0..9).for_each(|_| limiter.throttled());
        assert!((allowed(&limiter) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_pace_has_fewer_in_flight_and_one_at_least() {
        for (most, expected) in [(0.0, 1.0), (1.0, 1.0), (2.5, 2.5), (100.0, MOST)] {
            let limiter = Limiter::new(most);
            (0..200).for_each(|_| limiter.answered());
            assert!((allowed(&limiter) - expected).abs() < 1e-9, "{most}");
        }
    }

    #[tokio::test]
    async fn no_more_are_in_flight_than_allowed() {
        let limiter = Limiter::new(f64::MAX);
        let first = limiter.acquire().await;
        let second = limiter.acquire();
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(futures::poll!(&mut second).is_ready());
    }
}
