//! The store's client: how it is built, what its errors mean, and what is tried again.
//!
//! Takes the configuration; gives a [`ReadStore`] or, where a command's name says so, a [`DeleteStore`] or a
//! [`CopyStore`]. Invariant: a
//! reply counts only if its body was seen to its closing tag, because the SDK reads a cut body as a short answer.

mod abort;
mod connect;
mod copy;
mod delete;
mod error;
mod hidden;
mod meter;
mod put;
mod read;
pub mod retry;
mod witness;

use std::collections::BTreeMap;

use async_trait::async_trait;

pub use connect::{ConnectError, Connection};
pub use copy::S3Copy;
pub use delete::S3Delete;
pub use error::{StoreError, StoreFault};
pub use put::{S3Put, is_marked};
pub use read::S3Read;

use crate::clock::Stopwatch;
use crate::model::{Object, ObjectKey, Sha256Hash, Timestamp, Versioning};

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

/// Where a page of uploads or versions ended, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The last key.
    pub key: String,
    /// The last upload or version of that key.
    pub id: Option<String>,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[expect(clippy::struct_field_names, reason = "the name that S3 gives it")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The key that it would write, as listed.
    pub key: ObjectKey,
    /// Which of the uploads to that key.
    pub upload_id: String,
    /// When it was begun; `None` where the store says nothing.
    pub initiated: Option<Timestamp>,
}

/// One page of a bucket's uploads, decoded. Source: `ListMultipartUploads`.
#[derive(Debug, Clone)]
pub struct UploadsPage {
    /// The uploads, in the store's order.
    pub uploads: Vec<Upload>,
    /// Whether the store says that there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    pub next: Option<Marker>,
    /// The store's own clock.
    pub date: Timestamp,
}

/// One version of an object. Source: `ListObjectVersions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The key, as listed.
    pub key: ObjectKey,
    /// The version's id.
    pub id: String,
    /// Whether it is the one that a plain listing shows.
    pub is_latest: bool,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was written.
    pub last_modified: Option<Timestamp>,
}

/// One delete marker. Source: `ListObjectVersions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMarker {
    /// The key, as listed.
    pub key: ObjectKey,
    /// The marker's own version id.
    pub id: Option<String>,
    /// Whether it is current.
    pub is_latest: bool,
    /// When it was made.
    pub last_modified: Option<Timestamp>,
}

impl DeleteMarker {
    /// Whether it was made while versioning was suspended: it then took the place of what had no version of its own.
    pub fn is_null(&self) -> bool {
        self.id.as_deref() == Some("null")
    }
}

/// One page of a listing of versions, decoded. Source: `ListObjectVersions`.
#[derive(Debug, Clone)]
pub struct VersionsPage {
    /// The versions, as listed.
    pub versions: Vec<Version>,
    /// The markers, as listed.
    pub markers: Vec<DeleteMarker>,
    /// Whether the store says that there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    pub next: Option<Marker>,
}

/// What a store that does not offer an operation answers.
fn not_offered(operation: &'static str) -> StoreError {
    StoreError { operation, fault: StoreFault::Refused("the store does not offer it".into()) }
}

/// What only reads. What a plain listing does not show is an extra that a store need not offer: it is then unknown.
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// Reads one page of a listing, once.
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError>;
    /// Says whether the bucket keeps old versions.
    async fn versioning(&self) -> Result<Versioning, StoreError>;
    /// How many `ListObjectsV2` requests were sent so far.
    fn list_requests(&self) -> u64;
    /// Reads one page of the multipart uploads of the whole bucket, once.
    async fn uploads(&self, _after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
        Err(not_offered("ListMultipartUploads"))
    }
    /// Reads one page of the versions under `prefix`, once.
    async fn versions(&self, _prefix: &str, _after: Option<&Marker>) -> Result<VersionsPage, StoreError> {
        Err(not_offered("ListObjectVersions"))
    }
    /// Whether an object of that key can be read, whatever a listing says; asked once.
    async fn has_object(&self, _key: &ObjectKey) -> Result<bool, StoreError> {
        Err(not_offered("HeadObject"))
    }
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
    /// The store refuses because of object lock: a retention or a legal hold.
    Locked,
    /// The store did not mention it.
    Unmentioned,
}

impl KeyReply {
    /// Whether the key is gone.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Deleted | Self::AlreadyGone => true,
            Self::TryAgain(_) | Self::Refused(_) | Self::Locked | Self::Unmentioned => false,
        }
    }

    /// What it says, to be shown.
    pub fn in_words(&self) -> String {
        match self {
            Self::Deleted => "deleted".to_owned(),
            Self::AlreadyGone => "already gone".to_owned(),
            Self::TryAgain(code) => format!("try again ({code})"),
            Self::Refused(code) => format!("refused ({code})"),
            Self::Locked => "refused (object lock)".to_owned(),
            Self::Unmentioned => "not mentioned".to_owned(),
        }
    }
}

/// What deletes. Its methods try once: each attempt needs a proof of its own that the id is gone, whose age `proof` measures.
#[async_trait]
pub trait DeleteStore: Send + Sync {
    /// Deletes up to 1000 keys that XML can carry, by one request. The replies are in the order of `keys`.
    async fn delete_batch(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Vec<KeyReply>, StoreError>;
    /// Deletes one key by a request of its own.
    async fn delete_one(&self, key: &ObjectKey, proof: Stopwatch) -> Result<KeyReply, StoreError>;
}

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: ObjectKey,
    /// The version, where not the current one is meant.
    pub version: Option<String>,
}

impl Place {
    /// The current object of a key.
    pub fn current(bucket: &str, key: ObjectKey) -> Self {
        Self { bucket: bucket.to_owned(), key, version: None }
    }
}

/// What an object carries besides its bytes and its tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`.
    pub expires: Option<String>,
    /// The user's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// What the store says of one object. Source: `HeadObject`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub size_bytes: u64,
    /// The entity tag.
    pub etag: String,
    /// When it was written, in whole seconds.
    pub last_modified: Option<Timestamp>,
    /// What it carries.
    pub carried: Carried,
}

impl Head {
    /// Whether this is the object that a listing showed: its size, its entity tag and, to the second, its time.
    pub fn is_of(&self, listed: &Object) -> bool {
        let seconds = |time: Option<Timestamp>| time.map(|time| time.timestamp());
        self.size_bytes == listed.size_bytes
            && self.etag.trim_matches('"') == listed.etag.trim_matches('"')
            && seconds(self.last_modified) == seconds(listed.last_modified)
    }
}

/// Under which condition a copy is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteWhen {
    /// Whatever is there.
    Always,
    /// Only where nothing is there, as far as the store honours it.
    Absent,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The store says that it is made.
    Done,
    /// The source is another object by now, or something is at the target that was to be absent.
    ConditionFailed,
    /// The source is gone.
    SourceGone,
}

/// What reading a whole object gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// Its size and the SHA-256 of its bytes.
    Whole {
        /// Bytes read.
        size_bytes: u64,
        /// Their hash.
        hash: Sha256Hash,
    },
    /// It is not there.
    Gone,
    /// Another object is there.
    Changed,
}

/// What copies within the store. Nothing in it deletes, and each request is tried once.
#[async_trait]
pub trait CopyStore: Send + Sync {
    /// Says what lies there; `None`: nothing.
    async fn head(&self, place: &Place) -> Result<Option<Head>, StoreError>;
    /// Copies the object that was `seen` at `source`, with all that it carries and its tags.
    async fn copy(&self, source: &Place, seen: &Head, target: &Place, when: WriteWhen) -> Result<Copied, StoreError>;
    /// Reads the object that was `seen` to its end.
    async fn read_back(&self, place: &Place, seen: &Head) -> Result<ReadBack, StoreError>;
}

/// What the store said of an upload that was to be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortReply {
    /// It is aborted.
    Aborted,
    /// It was not there any more.
    AlreadyGone,
}

/// What aborts uploads. It tries once: each attempt needs a proof of its own, as a deletion does.
#[async_trait]
pub trait AbortStore: Send + Sync {
    /// Aborts one upload.
    async fn abort_upload(&self, upload: &Upload, proof: Stopwatch) -> Result<AbortReply, StoreError>;
}
