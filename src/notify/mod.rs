//! notify: tells a person when a run needs one, and a monitor that all is well.
//!
//! Takes what a run came to; gives a message, and what became of it. Invariant: nothing here changes a verdict or an exit
//! code, waits longer than its attempts and timeouts add up to, or says an address.

pub mod message;
mod send;

pub use message::Message;
pub use send::{Address, Notifier};
