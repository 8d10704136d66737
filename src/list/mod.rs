//! list: what is in the bucket, and which ids the database keeps alive. Read only.
//!
//! Gives a [`census::CompleteListing`] and [`references::ProvenReferences`]. Invariant: a listing is complete or an
//! error, and the rows are read only after it is finished, so that a row committed in between protects.

pub mod census;
pub mod content;
pub mod holds;
pub mod pages;
pub mod references;
pub mod undeleted;
pub mod uploads;
pub mod versions;

#[cfg(test)]
mod test_store;
