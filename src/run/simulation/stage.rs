//! The doors of the simulated world: what the production code takes for a store and a database.
//!
//! Each call waits for its turn. The scheduler gives one turn at a time, chosen by the seed, and only when everything that can
//! move without a turn has moved; so a seed always tells the same story, however many ids the program works on at once.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::world::World;
use crate::clock::Stopwatch;
use crate::list::references::{Anchor, LiveRow, ProvenReferences, References, ReferencesError};
use crate::model::{DatasetId, ObjectKey, Versioning};
use crate::run::{Reading, Undoing};
use crate::s3::{
    Copied, CopyStore, DeleteStore, Head, KeyReply, Marker, Page, PageRequest, Place, ReadBack, ReadStore, StoreError,
    UploadsPage, WriteWhen,
};

/// A call that waits for its turn.
pub struct Waiting(oneshot::Sender<()>);

impl Waiting {
    /// Gives it its turn.
    pub fn grant(self) {
        // A run that was killed no longer waits.
        let _ = self.0.send(());
    }
}

/// The world as one run sees it.
#[derive(Clone)]
pub struct Stage {
    pub world: Arc<Mutex<World>>,
    pub run: usize,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stage({})", self.run)
    }
}

impl Stage {
    /// What a run reads from.
    pub fn reading(&self) -> Reading {
        Reading {
            store: Box::new(self.clone()),
            references: Box::new(self.clone()),
            database: "postgres://simulation".into(),
        }
    }

    /// What works on copies.
    pub fn undoing(&self) -> Undoing {
        Undoing { store: Box::new(self.clone()), deleter: Box::new(self.clone()), copier: Box::new(self.clone()) }
    }

    async fn turn(&self) {
        let (grant, granted) = oneshot::channel();
        self.world.lock().waiting.push(Waiting(grant));
        granted.await.expect("the scheduler outlives every run");
    }
}

#[async_trait]
impl ReadStore for Stage {
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.turn().await;
        self.world.lock().page(self.run, request)
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        self.turn().await;
        self.world.lock().versioning()
    }

    fn list_requests(&self) -> u64 {
        0
    }

    async fn has_object(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.turn().await;
        self.world.lock().head(self.run, key.as_str()).map(|found| found.is_some())
    }

    async fn uploads(&self, _after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
        let date = self.world.lock().store_time();
        Ok(UploadsPage { uploads: Vec::new(), is_truncated: false, next: None, date })
    }
}

#[async_trait]
impl DeleteStore for Stage {
    async fn delete_batch(&self, keys: &[ObjectKey], _proof: Stopwatch) -> Result<Vec<KeyReply>, StoreError> {
        self.turn().await;
        self.world.lock().delete(self.run, keys)
    }

    async fn delete_one(&self, key: &ObjectKey, _proof: Stopwatch) -> Result<KeyReply, StoreError> {
        let keys = std::slice::from_ref(key);
        self.turn().await;
        self.world.lock().delete(self.run, keys).map(|replies| replies.into_iter().next().expect("a reply for the key"))
    }
}

#[async_trait]
impl CopyStore for Stage {
    async fn head(&self, place: &Place) -> Result<Option<Head>, StoreError> {
        self.turn().await;
        self.world.lock().head(self.run, place.key.as_str())
    }

    async fn copy(&self, source: &Place, seen: &Head, target: &Place, when: WriteWhen) -> Result<Copied, StoreError> {
        self.turn().await;
        self.world.lock().copy(self.run, (source.key.as_str(), seen), (target.key.as_str(), when))
    }

    async fn read_back(&self, place: &Place, seen: &Head) -> Result<ReadBack, StoreError> {
        self.turn().await;
        self.world.lock().read_back(place.key.as_str(), seen)
    }
}

#[async_trait]
impl References for Stage {
    async fn read(&self, visit: &mut (dyn FnMut(LiveRow) + Send)) -> Result<ProvenReferences, ReferencesError> {
        self.turn().await;
        self.world.lock().read(self.run, visit)
    }

    async fn recheck(&self, ids: &[DatasetId], anchor: &Anchor) -> Result<Vec<DatasetId>, ReferencesError> {
        self.turn().await;
        self.world.lock().recheck(self.run, ids, anchor)
    }
}
