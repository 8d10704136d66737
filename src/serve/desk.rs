//! A thread for work that its caller may stop waiting for, and that stays on one thread.
//!
//! Takes orders from any thread; gives nothing back but what an order sends by itself. The work is driven by the runtime of the
//! process, so that connections belong to no other.

use futures::future::LocalBoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio_util::task::TaskTracker;

use crate::command::CommandError;
use crate::exit::Exit;

/// What makes the work, on the desk's own thread.
type Order = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// The thread, as those see it who have work for it.
#[derive(Debug, Clone)]
pub struct Desk {
    orders: mpsc::UnboundedSender<Order>,
    works: TaskTracker,
}

impl Desk {
    /// Starts the thread, which ends with the last [`Desk`].
    ///
    /// - Errors: the operating system gives no thread.
    pub fn open() -> Result<Self, CommandError> {
        let (orders, mut waiting) = mpsc::unbounded_channel::<Order>();
        let (works, runtime) = (TaskTracker::new(), Handle::current());
        let begin = move || {
            let take = async move {
                while let Some(order) = waiting.recv().await {
                    spawn_local(order());
                }
            };
            runtime.block_on(LocalSet::new().run_until(take));
        };
        let started = std::thread::Builder::new().name("purges".into()).spawn(begin);
        started.map(|_| Self { orders, works }).map_err(|error| CommandError {
            message: format!("a thread could not be started: {error}"),
            hint: None,
            exit: Exit::Failed,
        })
    }

    /// Hands over work. Says whether somebody is there to do it.
    pub fn give<F>(&self, work: impl FnOnce() -> F + Send + 'static) -> bool
    where
        F: Future<Output = ()> + 'static,
    {
        // Counted from now on, and not only once it began.
        let token = self.works.token();
        let order: Order = Box::new(move || {
            Box::pin(async move {
                work().await;
                drop(token);
            })
        });
        self.orders.send(order).is_ok()
    }

    /// Waits until all that was handed over is done.
    pub async fn finish(&self) {
        self.works.close();
        self.works.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_done_whoever_waits_and_the_end_waits_for_it() {
        let desk = Desk::open().expect("a thread");
        let (free, is_free) = oneshot::channel::<()>();
        let (done, mut is_done) = oneshot::channel();
        let given = desk.give(move || async move {
            is_free.await.ok();
            // What stays on one thread.
            let shared = std::rc::Rc::new(7);
            tokio::task::yield_now().await;
            done.send(*shared).ok();
        });
        assert!(given && is_done.try_recv().is_err());
        free.send(()).expect("waited for");
        desk.finish().await;
        assert_eq!(is_done.try_recv(), Ok(7));
    }
}
