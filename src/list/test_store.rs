//! Stores that answer from memory, for the tests of what reads listings.

use std::collections::BTreeMap;
use std::future::Future;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::model::{Object, ObjectKey, Timestamp, Versioning};
use crate::s3::{DeleteMarker, Marker, Page, PageRequest, ReadStore, StoreError, Version, VersionsPage};

/// A time of the store.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

/// An object whose other fields follow from its key.
pub fn object(key: &str) -> Object {
    Object {
        key: ObjectKey::new(key),
        size_bytes: key.len() as u64,
        etag: format!("\"{key}\""),
        last_modified: Some(at(-i64::try_from(key.len()).expect("short"))),
    }
}

/// The last page of a listing.
pub fn page(keys: &[&str], prefixes: &[&str]) -> Page {
    Page {
        objects: keys.iter().map(|key| object(key)).collect(),
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        is_truncated: false,
        next_token: None,
        date: at(0),
    }
}

/// A page that says there is more, behind `token`.
pub fn more(page: Page, token: &str) -> Page {
    Page { is_truncated: true, next_token: Some(token.to_owned()), ..page }
}

/// A run that was told to stop: a request that failed is then not tried again, and no test waits.
pub fn stopped() -> CancellationToken {
    let stop = CancellationToken::new();
    stop.cancel();
    stop
}

/// Runs a future to its end.
pub fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// Answers by the token that is sent: the first request with it gets its first answer, and so on; the last one stays.
#[derive(Default)]
pub struct Script {
    answers: BTreeMap<Option<String>, Vec<Result<Page, StoreError>>>,
    asked: Mutex<Vec<PageRequest>>,
}

impl Script {
    /// Adds an answer to requests without a token.
    pub fn first(self, answer: impl Into<Answer>) -> Self {
        self.add(None, answer)
    }

    /// Adds an answer to requests with `token`.
    pub fn then(self, token: &str, answer: impl Into<Answer>) -> Self {
        self.add(Some(token.to_owned()), answer)
    }

    fn add(mut self, token: Option<String>, answer: impl Into<Answer>) -> Self {
        self.answers.entry(token).or_default().push(answer.into().0);
        self
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<PageRequest> {
        self.asked.lock().clone()
    }

    /// The token of every request so far.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.asked().into_iter().map(|request| request.token).collect()
    }
}

/// What a [`Script`] answers.
pub struct Answer(Result<Page, StoreError>);

impl From<Page> for Answer {
    fn from(page: Page) -> Self {
        Self(Ok(page))
    }
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        Self(Err(error))
    }
}

#[async_trait]
impl ReadStore for Script {
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        let mut asked = self.asked.lock();
        let times = asked.iter().filter(|earlier| earlier.token == request.token).count();
        asked.push(request.clone());
        let answers = self.answers.get(&request.token).unwrap_or_else(|| panic!("no answer to {:?}", request.token));
        answers[times.min(answers.len() - 1)].clone()
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Unversioned)
    }

    fn list_requests(&self) -> u64 {
        self.asked.lock().len() as u64
    }
}

/// Answers a listing of versions with its pages in turn; the last one stays.
pub struct VersionScript(Mutex<Vec<VersionsPage>>);

impl VersionScript {
    /// A store with these pages.
    pub fn new(pages: Vec<VersionsPage>) -> Self {
        Self(Mutex::new(pages))
    }
}

#[async_trait]
impl ReadStore for VersionScript {
    async fn page(&self, _request: &PageRequest) -> Result<Page, StoreError> {
        unreachable!("only versions are listed")
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Enabled)
    }

    fn list_requests(&self) -> u64 {
        0
    }

    async fn versions(&self, _prefix: &str, _after: Option<&Marker>) -> Result<VersionsPage, StoreError> {
        let mut pages = self.0.lock();
        Ok(if pages.len() > 1 { pages.remove(0) } else { pages[0].clone() })
    }
}

/// A version of one byte, written at `seconds`.
pub fn version(key: &str, id: &str, seconds: i64, is_latest: bool) -> Version {
    Version { key: ObjectKey::new(key), id: id.into(), is_latest, size_bytes: 1, last_modified: Some(at(seconds)) }
}

/// A delete marker, made at `seconds`.
pub fn marker(key: &str, seconds: i64, is_latest: bool) -> DeleteMarker {
    let id = Some(format!("m{seconds}"));
    DeleteMarker { key: ObjectKey::new(key), id, is_latest, last_modified: Some(at(seconds)) }
}

/// A page of versions; with `next`, that key is where the next one begins.
pub fn versions_page(versions: Vec<Version>, markers: Vec<DeleteMarker>, next: Option<&str>) -> VersionsPage {
    let next = next.map(|key| Marker { key: key.into(), id: Some("x".into()) });
    VersionsPage { versions, markers, is_truncated: next.is_some(), next }
}

/// Lists its objects as a real store does, with pages of the given sizes in turn; 0 is a page that shows nothing.
pub struct Bucket {
    objects: BTreeMap<String, Object>,
    sizes: Vec<usize>,
    requests: Mutex<u64>,
}

impl Bucket {
    /// A bucket with these objects. One size must not be 0.
    pub fn new(objects: impl IntoIterator<Item = Object>, sizes: &[usize]) -> Self {
        assert!(sizes.iter().any(|size| *size > 0), "a listing must come to its end");
        let objects = objects.into_iter().map(|object| (object.key.as_str().to_owned(), object)).collect();
        Self { objects, sizes: sizes.to_vec(), requests: Mutex::new(0) }
    }
}

#[async_trait]
impl ReadStore for Bucket {
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        let number = {
            let mut requests = self.requests.lock();
            *requests += 1;
            *requests
        };
        let size = self.sizes[usize::try_from(number).expect("few") % self.sizes.len()];
        let last = request.token.as_deref().map_or("", |token| token.split_once(':').expect("one of ours").1);
        let mut entries: BTreeMap<String, Option<&Object>> = BTreeMap::new();
        for (key, object) in self.objects.iter().filter(|(key, _)| key.starts_with(&request.prefix)) {
            match key[request.prefix.len()..].split_once('/') {
                Some((below, _)) if request.by_delimiter => entries.insert(format!("{}{below}/", request.prefix), None),
                _ => entries.insert(key.clone(), Some(object)),
            };
        }
        let rest: Vec<_> = entries.into_iter().filter(|(entry, _)| entry.as_str() > last).collect();
        let (shown, hidden) = rest.split_at(size.min(rest.len()));
        let reached = shown.last().map_or(last, |(entry, _)| entry);
        Ok(Page {
            objects: shown.iter().filter_map(|(_, object)| object.cloned()).collect(),
            prefixes: shown.iter().filter(|(_, object)| object.is_none()).map(|(entry, _)| entry.clone()).collect(),
            is_truncated: !hidden.is_empty(),
            next_token: (!hidden.is_empty()).then(|| format!("{number}:{reached}")),
            date: at(i64::try_from(number).expect("few")),
        })
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Unversioned)
    }

    fn list_requests(&self) -> u64 {
        *self.requests.lock()
    }
}
