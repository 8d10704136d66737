//! Multipart uploads in progress: which ids somebody is still writing under, as far as the store tells.
//!
//! Best effort by nature: MinIO lists what one node remembers, and forgets it at a restart. An upload that is listed
//! keeps its id; none that is listed proves nothing. That nobody writes is proven by grace and by the digest of what is
//! there, which an upload that completes changes. So a listing that a store denies or does not offer is unknown, and no
//! error of the run.
//!
//! Invariant: a listing counts as known only if every page of it was read; what was seen before it broke off still keeps.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;
use crate::config::Scope;
use crate::model::{DatasetId, Timestamp};
use crate::parse::{KeyReading, read_prefix};
use crate::s3::{Marker, ReadStore, StoreError, Upload, retry};

const LIST: &str = "ListMultipartUploads";

/// Uploads that are remembered one by one, for the report and for aborting; beyond them there are counts only. Each takes
/// some hundred bytes.
const MOST_TOLD: usize = 100_000;

/// Pages after which a listing is not asked for again before every group.
const FEW_PAGES: u64 = 1;
/// How long a long listing is believed.
const LONG_LISTING_LIVES: Duration = Duration::from_secs(60);

/// Whose upload it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// That of a dataset, spelled as it can be deleted.
    Dataset(DatasetId),
    /// That of a dataset in an odd spelling, which only protects.
    OddlySpelled(DatasetId),
    /// No pattern reads its key.
    Foreign,
}

impl Owner {
    /// Reads the key of an upload; `None` outside the scope.
    pub fn of(key: &str, scope: &Scope) -> Option<Self> {
        let below = key.strip_prefix(scope.prefix.as_str())?;
        let Some(end) = below.find('/') else { return Some(Self::Foreign) };
        Some(match read_prefix(&key[..=scope.prefix.len() + end], &scope.patterns) {
            KeyReading::Group(group) if group.is_canonical() => Self::Dataset(group.id),
            KeyReading::Group(group) => Self::OddlySpelled(group.id),
            KeyReading::Foreign(_) => Self::Foreign,
        })
    }

    /// The dataset, if it is one's.
    pub fn id(self) -> Option<DatasetId> {
        match self {
            Self::Dataset(id) | Self::OddlySpelled(id) => Some(id),
            Self::Foreign => None,
        }
    }
}

/// An upload in progress under the scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The upload.
    pub upload: Upload,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is older than the time asked about, by the store's clock, and spelled as what can be deleted.
    pub is_stale: bool,
}

/// How many uploads an id has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    uploads: u64,
    stale: u64,
}

/// The uploads in progress under a scope.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Those that are told one by one, by key.
    pub told: Vec<Found>,
    /// All of them.
    pub in_progress: u64,
    /// When the oldest was begun, of those that say it.
    pub oldest: Option<Timestamp>,
    /// Why not all of them are known, if so.
    pub unknown: Option<StoreError>,
    by_id: HashMap<DatasetId, Tally>,
    live: HashSet<DatasetId>,
    pages: u64,
}

impl Uploads {
    /// Whether the store told of an upload under any prefix of `id`.
    pub fn is_under(&self, id: DatasetId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether this very upload is among those that are told one by one.
    pub fn told_of(&self, upload: &Upload) -> bool {
        let wanted = (&upload.key, &upload.upload_id);
        let position = self.told.binary_search_by(|found| (&found.upload.key, &found.upload.upload_id).cmp(&wanted));
        position.is_ok_and(|position| self.told[position].upload == *upload)
    }

    /// Notes that a row keeps `id` alive, if it has uploads: its prefix may not be listed yet.
    pub fn note_live(&mut self, id: DatasetId) {
        if self.is_under(id) {
            self.live.insert(id);
        }
    }

    /// Whether the id has uploads and no row.
    pub fn is_under_orphan(&self, id: DatasetId) -> bool {
        self.is_under(id) && !self.live.contains(&id)
    }

    /// Uploads under ids without a row, and how many of them are stale.
    pub fn under_orphans(&self) -> (u64, u64) {
        let orphans = self.by_id.iter().filter(|(id, _)| !self.live.contains(id));
        orphans.fold((0, 0), |(uploads, stale), (_, tally)| (uploads + tally.uploads, stale + tally.stale))
    }

    fn add(&mut self, found: Found) {
        self.in_progress += 1;
        if let Some(initiated) = found.upload.initiated {
            self.oldest = Some(self.oldest.map_or(initiated, |oldest| oldest.min(initiated)));
        }
        if let Some(id) = found.owner.id() {
            let tally = self.by_id.entry(id).or_default();
            tally.uploads += 1;
            tally.stale += u64::from(found.is_stale);
        }
        if self.told.len() < MOST_TOLD {
            self.told.push(found);
        }
    }
}

/// Lists the uploads under the scope; one begun `stale_after` ago or longer is stale.
///
/// Never fails: what the store does not tell is unknown.
pub async fn take(store: &dyn ReadStore, scope: &Scope, stale_after: Duration, stop: &CancellationToken) -> Uploads {
    let mut uploads = Uploads::default();
    if let Err(error) = read_all(store, scope, stale_after, stop, &mut uploads).await {
        uploads.unknown = Some(error);
    }
    uploads.told.sort_by(|a, b| (&a.upload.key, &a.upload.upload_id).cmp(&(&b.upload.key, &b.upload.upload_id)));
    uploads
}

async fn read_all(
    store: &dyn ReadStore,
    scope: &Scope,
    stale_after: Duration,
    stop: &CancellationToken,
    uploads: &mut Uploads,
) -> Result<(), StoreError> {
    let stale_after = chrono::Duration::from_std(stale_after).unwrap_or(chrono::Duration::MAX);
    let mut after: Option<Marker> = None;
    let mut markers = HashSet::new();
    loop {
        let page = retry::read_with_retries(stop, || store.uploads(after.as_ref())).await?;
        uploads.pages += 1;
        let stale_until = page.date.checked_sub_signed(stale_after).unwrap_or(Timestamp::MIN_UTC);
        for upload in page.uploads {
            // The whole bucket is listed: what lies elsewhere is no concern of this scope.
            let Some(owner) = Owner::of(upload.key.as_str(), scope) else { continue };
            let is_old = upload.initiated.is_some_and(|initiated| initiated <= stale_until);
            let is_stale = is_old && matches!(owner, Owner::Dataset(_));
            uploads.add(Found { upload, owner, is_stale });
        }
        if !page.is_truncated {
            return Ok(());
        }
        let Some(next) = page.next else {
            return Err(StoreError::malformed(LIST, "it is truncated and does not say where the next page begins"));
        };
        if !markers.insert(next.clone()) {
            return Err(StoreError::malformed(LIST, "it repeats a marker, so its pages would never end"));
        }
        after = Some(next);
    }
}

/// Asks again, while a run deletes, whether somebody began an upload since its own listing.
pub struct Watch<'w> {
    store: &'w dyn ReadStore,
    scope: &'w Scope,
    stop: &'w CancellationToken,
    seen: Mutex<Seen>,
}

struct Seen {
    ids: HashSet<DatasetId>,
    pages: u64,
    is_known: bool,
    taken: Stopwatch,
}

impl<'w> Watch<'w> {
    /// Begins with what the run's own listing saw.
    pub fn new(store: &'w dyn ReadStore, scope: &'w Scope, stop: &'w CancellationToken, uploads: &Uploads) -> Self {
        let seen = Seen {
            ids: uploads.by_id.keys().copied().collect(),
            pages: uploads.pages,
            is_known: uploads.unknown.is_none(),
            taken: Stopwatch::start(),
        };
        Self { store, scope, stop, seen: Mutex::new(seen) }
    }

    /// Whether any listing of this run told of an upload under `id`. A short listing is asked for anew; a long one once a
    /// minute; one that the store denied not at all.
    pub async fn is_under(&self, id: DatasetId) -> bool {
        let mut seen = self.seen.lock().await;
        if !seen.ids.contains(&id) && seen.is_known && seen.is_due() {
            let uploads = take(self.store, self.scope, Duration::MAX, self.stop).await;
            if let Some(error) = &uploads.unknown {
                tracing::warn!(error = %error, "uploads in progress can no longer be listed");
                seen.is_known = false;
            }
            seen.ids.extend(uploads.by_id.keys());
            (seen.pages, seen.taken) = (uploads.pages, Stopwatch::start());
        }
        seen.ids.contains(&id)
    }
}

impl Seen {
    fn is_due(&self) -> bool {
        self.pages <= FEW_PAGES || self.taken.elapsed() >= LONG_LISTING_LIVES
    }
}

#[cfg(test)]
#[path = "uploads_tests.rs"]
mod tests;
