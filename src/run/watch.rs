//! Watches a deletion: a bar with an honest end on a terminal, a line a minute elsewhere.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;

use super::forecast::{Meter, Standing};
use crate::clock::{Clock, Stopwatch};
use crate::dispose::pace::Pacer;
use crate::model::human_count;
use crate::telemetry::Progress;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: u32 = 60;

/// Counts what is done of a step, and tells how it goes on.
pub struct StepWatch<'w> {
    bar: ProgressBar,
    pacer: &'w Pacer,
    clock: Arc<dyn Clock>,
    objects: u64,
    done: AtomicU64,
}

impl<'w> StepWatch<'w> {
    /// Watches a step that is asked for `objects`.
    pub fn new(progress: &Progress, pacer: &'w Pacer, clock: Arc<dyn Clock>, objects: u64) -> Self {
        let bar = progress.forecast_bar("deleting objects", objects);
        Self { bar, pacer, clock, objects, done: AtomicU64::new(0) }
    }

    /// Counts objects that are done.
    pub fn add(&self, objects: u64) {
        self.done.fetch_add(objects, Ordering::Relaxed);
        self.bar.inc(objects);
    }

    /// Objects that are left of what the step was asked for.
    pub fn left(&self) -> u64 {
        self.objects.saturating_sub(self.done.load(Ordering::Relaxed))
    }

    /// Watches while `work` goes on; gives what it gave.
    pub async fn over<T>(&self, work: impl Future<Output = T>) -> T {
        let watching = self.look();
        let done = tokio::select! {
            done = work => done,
            never = watching => match never {},
        };
        self.bar.finish_and_clear();
        done
    }

    async fn look(&self) -> std::convert::Infallible {
        let (mut meter, mut worked) = (Meter::default(), Duration::ZERO);
        meter.note(worked, 0);
        loop {
            for _ in 0..TELL_EVERY {
                let looked = Stopwatch::start();
                tokio::time::sleep(LOOK_EVERY / crate::failpoint::hurry()).await;
                if self.pacer.paused_until().is_none() {
                    worked = worked.saturating_add(looked.elapsed());
                    meter.note(worked, self.done.load(Ordering::Relaxed));
                }
                self.bar.set_prefix(self.standing(&meter).shown());
            }
            let (done, forecast) = (self.done.load(Ordering::Relaxed), self.standing(&meter).shown());
            tracing::info!(
                stage = "dispose",
                object_count = done,
                "{} of {} objects done; {forecast}",
                human_count(done),
                human_count(self.objects)
            );
        }
    }

    fn standing(&self, meter: &Meter) -> Standing {
        Standing {
            left: self.left(),
            rate: meter.rate(),
            now: self.clock.now(),
            time_left: self.pacer.time_left(),
            pause: self.pacer.pace().pause,
        }
    }
}
