//! The store's client: how it is built, what its errors mean, and what is tried again.
//!
//! Takes the configuration; gives a [`ReadStore`] or, where a command's name says so, a [`DeleteStore`]. Invariant: a
//! reply counts only if its body was seen to its closing tag, because the SDK reads a cut body as a short answer.

mod connect;
mod delete;
mod error;
mod read;
pub mod retry;
mod witness;

use async_trait::async_trait;

pub use connect::{ConnectError, Connection};
pub use delete::S3Delete;
pub use error::{StoreError, StoreFault};
pub use read::S3Read;

use crate::clock::Stopwatch;
use crate::model::{Object, ObjectKey, Timestamp, Versioning};

/// One request of a listing.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The prefix that every key must begin with.
    pub prefix: String,
    /// Whether keys below the next `/` are rolled up into prefixes.
    pub by_delimiter: bool,
    /// Where the page before this one ended, in the store's own words.
    pub token: Option<String>,
}

/// One page of a listing, decoded. Source: `ListObjectsV2`.
#[derive(Debug, Clone)]
pub struct Page {
    /// The objects, as listed.
    pub objects: Vec<Object>,
    /// The rolled-up prefixes, as listed.
    pub prefixes: Vec<String>,
    /// Whether the store says that there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    pub next_token: Option<String>,
    /// The store's own clock.
    pub date: Timestamp,
}

/// What only reads.
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// Reads one page of a listing, once.
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError>;
    /// Says whether the bucket keeps old versions.
    async fn versioning(&self) -> Result<Versioning, StoreError>;
    /// How many `ListObjectsV2` requests were sent so far.
    fn list_requests(&self) -> u64;
}

/// What the store said of one key of a delete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyReply {
    /// It is deleted, or a marker was added.
    Deleted,
    /// It was not there.
    AlreadyGone,
    /// The store asks to try later.
    TryAgain(String),
    /// The store refuses, with its code.
    Refused(String),
    /// The store did not mention it.
    Unmentioned,
}

/// What deletes. Its methods try once: each attempt needs a proof of its own that the id is gone, whose age `proof` measures.
#[async_trait]
pub trait DeleteStore: Send + Sync {
    /// Deletes up to 1000 keys that XML can carry, by one request. The replies are in the order of `keys`.
    async fn delete_batch(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Vec<KeyReply>, StoreError>;
    /// Deletes one key by a request of its own.
    async fn delete_one(&self, key: &ObjectKey, proof: Stopwatch) -> Result<KeyReply, StoreError>;
}
