//! SIGINT and SIGTERM: the first asks to stop, the second leaves at once. The journal is intact either way.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::run::Stop;

/// Listens for both signals in the background.
pub fn listen(stop: Stop) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be listened for: a stop ends the process at once");
        return;
    };
    tokio::spawn(async move {
        let mut is_second = false;
        loop {
            let exit = tokio::select! {
                _ = interrupt.recv() => Exit::Interrupted,
                _ = terminate.recv() => Exit::Terminated,
            };
            if is_second {
                std::process::exit(i32::from(exit.code()));
            }
            is_second = true;
            tracing::warn!("stopping: what is in flight is finished and reported; once more to leave at once");
            stop.ask(exit);
        }
    });
}
