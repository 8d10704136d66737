//! An S3 server in memory: the store of the demo, and the one that the tests can break at will.
//!
//! Takes S3 requests over HTTP on the loopback interface, signed and framed as the production client sends them; gives
//! what MinIO would answer, or the fault that was injected. Invariant: it is never kinder than MinIO to who reads and
//! deletes: what MinIO refuses is refused, what it ignores is ignored. It does store keys that MinIO will not, such as
//! `a//b` and `a/../b`, because other stores list them.
//!
//! All time comes from the [`Clock`] of the store, the `Date` of every reply included.

mod copies;
mod faults;
mod listing;
mod request;
mod server;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

pub use faults::{Action, Damage, Fault, Framing, When};
pub use request::{Operation, RecordedRequest};
pub use state::VersioningState;

use faults::FaultPlan;
use server::Server;
use state::{Bucket, Revision};

type Hook = Arc<dyn Fn(&RecordedRequest, &MemoryStore) + Send + Sync>;

struct Shared {
    clock: Arc<dyn Clock>,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    credentials: Mutex<HashMap<String, String>>,
    forbidden: Mutex<HashSet<(String, Operation)>>,
    requires_content_md5: AtomicBool,
    lists_emptied_prefixes: AtomicBool,
    leaves_folders: AtomicBool,
    uploads_a_page: AtomicUsize,
    faults: Mutex<FaultPlan>,
    hooks: Mutex<Vec<Hook>>,
    requests: Mutex<Vec<RecordedRequest>>,
    last_request: AtomicU64,
}

/// An S3 store in memory; clones are the same store.
///
/// The methods that write a bucket directly make it if it does not exist; requests over HTTP never do.
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store that takes its time from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            buckets: Mutex::default(),
            credentials: Mutex::default(),
            forbidden: Mutex::default(),
            requires_content_md5: AtomicBool::new(false),
            lists_emptied_prefixes: AtomicBool::new(true),
            leaves_folders: AtomicBool::new(false),
            uploads_a_page: AtomicUsize::new(usize::MAX),
            faults: Mutex::default(),
            hooks: Mutex::default(),
            requests: Mutex::default(),
            last_request: AtomicU64::new(0),
        }))
    }

    /// Makes an empty bucket, unless it exists.
    pub fn create_bucket(&self, bucket: &str) {
        self.in_bucket(bucket, |_| ());
    }

    /// Switches the versioning of a bucket. Objects that are there keep the version that they have.
    pub fn set_versioning(&self, bucket: &str, state: VersioningState) {
        self.in_bucket(bucket, |bucket| bucket.versioning = state);
    }

    /// Says whether the bucket answers that object lock is on; nothing is really locked.
    pub fn set_object_lock(&self, bucket: &str, is_on: bool) {
        self.in_bucket(bucket, |bucket| bucket.has_object_lock = is_on);
    }

    /// Writes an object, last modified now.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        self.put_at(bucket, key, body, Some(self.0.clock.now()));
    }

    /// Writes an object, last modified then; with `None` the listing has no `LastModified` for it.
    pub fn put_at(&self, bucket: &str, key: &str, body: impl Into<Bytes>, last_modified: Option<DateTime<Utc>>) {
        let revision = Revision::with_body(body.into(), last_modified);
        self.in_bucket(bucket, |bucket| bucket.put(key, revision));
    }

    /// Writes an object with metadata, last modified then.
    pub fn put_with_metadata(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
        metadata: BTreeMap<String, String>,
        last_modified: DateTime<Utc>,
    ) {
        let extras = state::Extras { metadata, ..state::Extras::default() };
        let revision = Revision::with_body(body.into(), Some(last_modified)).carrying(extras);
        self.in_bucket(bucket, |bucket| bucket.put(key, revision));
    }

    /// Writes an object of which only the size is held: cheap enough for a million. A GET answers zeroes.
    pub fn put_sized(&self, bucket: &str, key: &str, size_bytes: u64, last_modified: DateTime<Utc>) {
        let revision = Revision::with_size(size_bytes, last_modified);
        self.in_bucket(bucket, |bucket| bucket.put(key, revision));
    }

    /// Deletes an object as a client does: in a bucket with versions that leaves a marker.
    pub fn remove(&self, bucket: &str, key: &str) {
        self.in_bucket(bucket, |bucket| bucket.delete(key));
    }

    /// The keys that a listing shows, in byte order.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.0.buckets.lock().get(bucket).map(|bucket| bucket.keys().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The bytes that the bucket takes up, every version included.
    #[must_use]
    pub fn stored_bytes(&self, bucket: &str) -> u64 {
        self.0.buckets.lock().get(bucket).map(Bucket::stored_bytes).unwrap_or_default()
    }

    /// Every request since the start or [`clear_requests`](Self::clear_requests), in the order of arrival, those that
    /// were refused or dropped included.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.0.requests.lock().clone()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.0.requests.lock().clear();
    }

    /// How many of the [`requests`](Self::requests) were of this operation.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.0.requests.lock().iter().filter(|request| request.operation == operation).count()
    }

    /// Adds a rule that makes requests fail.
    pub fn inject(&self, fault: Fault) {
        self.0.faults.lock().inject(fault);
    }

    /// Removes every rule.
    pub fn clear_faults(&self) {
        self.0.faults.lock().clear();
    }

    /// Calls `hook` when a request has arrived and before anything of it is executed; the reply waits for it.
    ///
    /// It runs on a thread that may block, and may change the store, inject faults, or `block_on` a runtime handle.
    pub fn on_request(&self, hook: impl Fn(&RecordedRequest, &Self) + Send + Sync + 'static) {
        self.0.hooks.lock().push(Arc::new(hook));
    }

    /// Removes every hook.
    pub fn clear_hooks(&self) {
        self.0.hooks.lock().clear();
    }

    /// Says whether `DeleteObjects` needs `Content-MD5`, as MinIO did before 2025-01-20; otherwise a checksum will do.
    pub fn set_requires_content_md5(&self, is_required: bool) {
        self.0.requires_content_md5.store(is_required, Ordering::Relaxed);
    }

    /// Says whether a listing by delimiter still shows a prefix under which only delete markers are left, as MinIO does.
    pub fn set_lists_emptied_prefixes(&self, is_listed: bool) {
        self.0.lists_emptied_prefixes.store(is_listed, Ordering::Relaxed);
    }

    /// Says whether a deletion that empties a folder leaves a key of no bytes with the folder's name, as gateways to a file
    /// system do.
    pub fn set_leaves_folders(&self, leaves: bool) {
        self.0.leaves_folders.store(leaves, Ordering::Relaxed);
    }

    /// How many uploads a page lists at most, by key, as S3 does; MinIO lists all of them on one page.
    pub fn set_uploads_a_page(&self, uploads: usize) {
        self.0.uploads_a_page.store(uploads, Ordering::Relaxed);
    }

    /// Begins a multipart upload, at that time; gives its id.
    #[expect(clippy::must_use_candidate, reason = "most tests want only that it is there")]
    pub fn begin_upload(&self, bucket: &str, key: &str, at: DateTime<Utc>) -> String {
        self.in_bucket(bucket, |bucket| bucket.begin_upload(key.to_owned(), at))
    }

    /// The keys of the uploads in progress, in the order they were begun.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<String> {
        self.in_bucket(bucket, |bucket| bucket.uploads.iter().map(|upload| upload.key.clone()).collect())
    }

    /// Lets another pair of keys sign requests.
    pub fn add_credentials(&self, access_key: &str, secret_key: &str) {
        self.0.credentials.lock().insert(access_key.to_owned(), secret_key.to_owned());
    }

    /// Answers `AccessDenied` when that key asks for this operation.
    pub fn forbid(&self, access_key: &str, operation: Operation) {
        self.0.forbidden.lock().insert((access_key.to_owned(), operation));
    }

    /// Serves the store over HTTP on a free port of 127.0.0.1, to whoever signs with these keys.
    ///
    /// # Errors
    /// If the port cannot be opened.
    pub async fn serve(&self, access_key: &str, secret_key: &str) -> std::io::Result<Serving> {
        self.add_credentials(access_key, secret_key);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Server::new(self.clone()).run(listener, stop.clone()));
        Ok(Serving { endpoint, stop, task: Some(task) })
    }

    fn in_bucket<T>(&self, name: &str, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut buckets = self.0.buckets.lock();
        act(buckets.entry(name.to_owned()).or_default())
    }
}

/// A store that is being served; dropping it stops the server.
#[derive(Debug)]
pub struct Serving {
    endpoint: String,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Serving {
    /// The URL of the server, such as `http://127.0.0.1:34567`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Stops the server and waits until every connection is closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // A panic of the server has been printed by its own thread, and there is nothing left to stop.
            task.await.ok();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
