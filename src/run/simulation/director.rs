//! Plays runs to their end, one turn at a time, or kills them on the way.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::world::World;
use crate::failpoint::{self, Killed};
use crate::record::Ledger;

/// Whether the run wants to be polled.
struct Bell {
    has_rung: AtomicBool,
    outer: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::SeqCst);
        self.outer.lock().wake_by_ref();
    }
}

/// What ends a run before its end.
#[derive(Debug, Clone)]
pub enum Cut {
    /// Nothing.
    Never,
    /// It is killed instead of getting its n-th turn.
    KillAtTurn(usize),
    /// It is killed at the n-th time that it reaches a step.
    KillAtStep(&'static str, u32),
    /// It is told to stop at its n-th turn.
    StopAtTurn(usize),
    /// It is killed so many turns after one of its re-checks saw a row.
    KillWhenSeenLive(u32),
    /// It goes on; at its n-th turn another process looks, sees every orphan live, and forgets its sightings.
    LookAtTurn(usize),
    /// The same right after the n-th listing of a group.
    LookAfterListing(u32),
}

/// Plays `run`; `None` where it was killed. Everything that can move without a turn moves before the next turn is given.
pub async fn direct<T>(
    world: &Arc<Mutex<World>>,
    ledger: &Ledger,
    cut: &Cut,
    stop: impl Fn(),
    run: impl Future<Output = T>,
) -> Option<T> {
    if let Cut::KillAtStep(step, n) = cut {
        failpoint::kill_at(step, *n);
    }
    let mut run = pin!(run);
    let outer = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), outer: Mutex::new(outer) });
    let waker = Waker::from(Arc::clone(&bell));
    let (mut turns, mut turns_since, mut has_looked) = (0, 0, false);
    loop {
        loop {
            let (mut question, mut has_moved) = (pin!(ledger.run_count()), false);
            let settled = std::future::poll_fn(|context| {
                context.waker().clone_into(&mut bell.outer.lock());
                while bell.has_rung.swap(false, Ordering::SeqCst) {
                    has_moved = true;
                    let polled = AssertUnwindSafe(|| run.as_mut().poll(&mut Context::from_waker(&waker)));
                    match catch_unwind(polled) {
                        Ok(Poll::Ready(end)) => return Poll::Ready(Some(Some(end))),
                        Ok(Poll::Pending) => {}
                        Err(end) if end.is::<Killed>() => return Poll::Ready(Some(None)),
                        Err(panic) => resume_unwind(panic),
                    }
                }
                // Whoever waits for the ledger's one connection is served before this question is, and rings then.
                question.as_mut().poll(context).map(|_| None)
            });
            if let Some(end) = settled.await {
                failpoint::leave();
                return end;
            }
            if !has_moved {
                break;
            }
        }
        turns += 1;
        let (listings, live_answers) = {
            let world = world.lock();
            (world.group_listings, world.live_answers)
        };
        turns_since += u32::from(live_answers > 0);
        match cut {
            Cut::KillAtTurn(turn) if turns == *turn => {
                failpoint::leave();
                return None;
            }
            Cut::KillWhenSeenLive(later) if turns_since > *later => {
                failpoint::leave();
                return None;
            }
            Cut::StopAtTurn(turn) if turns == *turn => {
                stop();
                continue;
            }
            Cut::LookAtTurn(turn) if turns == *turn => look(world, ledger).await,
            Cut::LookAfterListing(listing) if !has_looked && listings >= *listing => {
                has_looked = true;
                look(world, ledger).await;
            }
            Cut::Never
            | Cut::KillAtTurn(_)
            | Cut::KillAtStep(..)
            | Cut::KillWhenSeenLive(_)
            | Cut::StopAtTurn(_)
            | Cut::LookAtTurn(_)
            | Cut::LookAfterListing(_) => {}
        }
        let next = {
            let mut world = world.lock();
            world.pass();
            let count = world.waiting.len();
            assert!(count > 0, "nobody waits for a turn, and nobody is at work: {}", world.trace.join("\n"));
            let chosen = world.rng.usize(0..count);
            world.waiting.remove(chosen)
        };
        next.grant();
    }
}

/// Another process looks, and forgets what it sees live.
async fn look(world: &Arc<Mutex<World>>, ledger: &Ledger) {
    let ids = world.lock().come_and_go();
    ledger.forget(super::story::SCOPE, &ids).await.expect("forgotten");
}
