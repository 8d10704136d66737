//! serve: the schedule and the HTTP API in one process, until it is told to stop.
//!
//! Invariant: whatever asks for a run, the calendar or a caller, one runner works on one at a time.

mod api;
mod auth;
mod desk;
mod due;
mod exporter;
mod guard;
mod health;
mod here;
mod http;
mod notify_systemd;
mod problem;
mod purges;
mod router;
pub mod signals;
mod ticker;
mod triggers;
mod window;

use std::sync::Arc;

use crate::command::Host;
use crate::run::{Keyring, Services};

pub use here::Here;
pub use ticker::serve;

/// What the handlers of the API share.
pub struct App {
    /// As a run has them, with a ledger of their own: a run that writes for long keeps no caller waiting.
    pub services: Services,
    /// The way to the secrets.
    pub keyring: Keyring,
    /// The host.
    pub host: Host,
    /// What callers asked the runner for.
    pub triggers: Arc<triggers::Triggers>,
    /// The last look at what is needed.
    pub health: health::Health,
    /// What the metrics are.
    pub exporter: exporter::Exporter,
    /// Reports that are read at a time.
    pub readers: Arc<tokio::sync::Semaphore>,
    /// Purges whose objects are removed at a time.
    pub cleaners: tokio::sync::Semaphore,
    /// Where purges go on, whether their callers wait or not. The process ends after them.
    pub desk: desk::Desk,
}

/// The handlers' share of it.
pub type Shared = Arc<App>;
