//! A bench for one disposal: a store, a database and a person that do what a test tells them, beside a ledger of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, ManualClock, Stopwatch};
use crate::config::{self, Scope, Variables};
use crate::decide::Orphan;
use crate::decide::breakers::{Baseline, Observation, TargetFingerprint};
use crate::decide::sightings::Sighting;
use crate::dispose::pace::{Pace, Pacer};
use crate::dispose::{Aside, Candidate, Closing, Consent, Disposal, Halt, SkipReason, Tools};
use crate::list::content;
use crate::list::references::{
    Anchor, DatabaseIdentity, LiveRow, ProvenReferences, References, ReferencesError, TableIdentity, WithoutSentinels,
};
use crate::list::uploads::{Uploads, Watch};
use crate::model::{DatasetId, Group, Object, ObjectKey, RunId, Sha256Hash, Snapshot, Timestamp, Versioning};
use crate::parse::prefix_of;
use crate::plan::PlanGroup;
use crate::record::Ledger;
use crate::s3::{
    Carried, Copied, CopyStore, DeleteStore, Head, KeyReply, Marker, Page, PageRequest, Place, ReadBack, ReadStore,
    StoreError, StoreFault, Upload, UploadsPage, WriteWhen,
};

pub const SCOPE: &str = "synthetic";
pub const QUARANTINE: &str = "quarantine/run/";

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

pub fn id(n: u128) -> DatasetId {
    DatasetId(uuid::Uuid::from_u128(n))
}

pub fn run(n: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(0x7000 + n))
}

pub fn plan() -> Sha256Hash {
    Sha256Hash([7; 32])
}

pub fn prefix(pattern: u8, n: u128) -> String {
    if pattern == 0 { format!("synthetic/{}/", id(n)) } else { format!("synthetic/dataset-{}/", id(n)) }
}

/// A request, as the log names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    List(String),
    Uploads,
    Recheck(DatasetId),
    Delete(Vec<String>),
    One(String),
    Head(String),
    Copy(String),
    ReadBack(String),
    Looked(String),
}

/// What a request is told, instead of what would be so.
#[derive(Debug, Clone)]
pub enum Reply {
    /// As it would be.
    Plain,
    /// Every key gets this reply, and nothing is removed.
    Keys(KeyReply),
    /// The request fails.
    Fails(StoreFault),
    /// It is carried out, and its reply is lost.
    Lost,
}

type Act = Box<dyn FnOnce(&mut World) + Send>;
type When = Box<dyn Fn(&Asked) -> bool + Send>;

/// What the store and the database hold, and what happens next.
#[derive(Default)]
pub struct World {
    pub objects: BTreeMap<String, Object>,
    /// What lies at a key holds this, where it is not what its entity tag says.
    pub bytes: BTreeMap<String, u8>,
    pub carried: BTreeMap<String, Carried>,
    pub live: BTreeSet<DatasetId>,
    pub uploads: Vec<ObjectKey>,
    /// Keys that a listing shows and nobody can read.
    pub ghosts: BTreeSet<String>,
    pub asked: Vec<Asked>,
    pub replies: VecDeque<Reply>,
    pub rechecks: VecDeque<ReferencesError>,
    /// The known ids that each re-check named.
    pub sentinels: Vec<Vec<Vec<DatasetId>>>,
    pub unlisted: VecDeque<StoreFault>,
    /// How looks and copies fail, in turn.
    pub blind: VecDeque<StoreFault>,
    pub uncopied: VecDeque<StoreFault>,
    pub spoiled_copies: bool,
    acts: Vec<(When, Act)>,
}

impl World {
    pub fn put(&mut self, key: &str) {
        self.put_at(key, 0);
    }

    pub fn put_at(&mut self, key: &str, written_at: i64) {
        let object = Object {
            key: ObjectKey::new(key),
            size_bytes: 10,
            etag: format!("\"{written_at}\""),
            last_modified: Some(at(written_at)),
        };
        self.objects.insert(key.to_owned(), object);
    }

    /// Does `act` once, right after the first request that `when` names.
    pub fn after(
        &mut self,
        when: impl Fn(&Asked) -> bool + Send + 'static,
        act: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        self.acts.push((Box::new(when), Box::new(act)));
    }

    fn note(&mut self, asked: Asked) {
        let (due, later) = std::mem::take(&mut self.acts).into_iter().partition(|(when, _)| when(&asked));
        self.acts = later;
        self.asked.push(asked);
        let due: Vec<(When, Act)> = due;
        due.into_iter().for_each(|(_, act)| act(self));
    }

    pub fn count(&self, which: impl Fn(&Asked) -> bool) -> usize {
        self.asked.iter().filter(|asked| which(asked)).count()
    }
}

#[derive(Clone, Default)]
pub struct Player(pub Arc<Mutex<World>>);

#[async_trait]
impl ReadStore for Player {
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        let mut world = self.0.lock();
        let fault = world.unlisted.pop_front();
        let after = request.token.clone().unwrap_or_default();
        let under = world.objects.range(request.prefix.clone()..);
        let under = under.take_while(|(key, _)| key.starts_with(&request.prefix)).filter(|(key, _)| **key > after);
        let mut objects: Vec<Object> = under.map(|(_, object)| object.clone()).take(1001).collect();
        let is_truncated = objects.len() > 1000;
        objects.truncate(1000);
        let next_token = objects.last().filter(|_| is_truncated).map(|last| last.key.as_str().to_owned());
        let page = Page { objects, prefixes: Vec::new(), is_truncated, next_token, date: at(1000) };
        world.note(Asked::List(request.prefix.clone()));
        match fault {
            Some(fault) => Err(StoreError { operation: "ListObjectsV2", fault }),
            None => Ok(page),
        }
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Unversioned)
    }

    fn list_requests(&self) -> u64 {
        0
    }

    async fn uploads(&self, _after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
        let mut world = self.0.lock();
        world.note(Asked::Uploads);
        let upload = |key: &ObjectKey| Upload { key: key.clone(), upload_id: "u".into(), initiated: Some(at(0)) };
        let uploads = world.uploads.iter().map(upload).collect();
        Ok(UploadsPage { uploads, is_truncated: false, next: None, date: at(1000) })
    }

    async fn has_object(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let mut world = self.0.lock();
        let key = key.as_str();
        world.note(Asked::Looked(key.to_owned()));
        Ok(world.objects.contains_key(key) && !world.ghosts.contains(key))
    }
}

impl Player {
    fn delete(&self, asked: Asked, keys: &[ObjectKey]) -> Result<Vec<KeyReply>, StoreError> {
        let mut world = self.0.lock();
        let reply = world.replies.pop_front().unwrap_or(Reply::Plain);
        let failed = |fault| Err(StoreError { operation: "DeleteObjects", fault });
        let remove = |world: &mut World| {
            keys.iter().for_each(|key| _ = world.objects.remove(key.as_str()));
        };
        let answer = match reply {
            Reply::Plain => {
                remove(&mut world);
                Ok(vec![KeyReply::Deleted; keys.len()])
            }
            Reply::Keys(reply) => Ok(vec![reply; keys.len()]),
            Reply::Fails(fault) => failed(fault),
            Reply::Lost => {
                remove(&mut world);
                failed(StoreFault::NoReply("cut".into()))
            }
        };
        world.note(asked);
        answer
    }
}

#[async_trait]
impl DeleteStore for Player {
    async fn delete_batch(&self, keys: &[ObjectKey], _proof: Stopwatch) -> Result<Vec<KeyReply>, StoreError> {
        self.delete(Asked::Delete(keys.iter().map(|key| key.as_str().to_owned()).collect()), keys)
    }

    async fn delete_one(&self, key: &ObjectKey, _proof: Stopwatch) -> Result<KeyReply, StoreError> {
        let replies = self.delete(Asked::One(key.as_str().to_owned()), std::slice::from_ref(key))?;
        Ok(replies[0].clone())
    }
}

#[async_trait]
impl References for Player {
    async fn read(&self, _visit: &mut (dyn FnMut(LiveRow) + Send)) -> Result<ProvenReferences, ReferencesError> {
        unreachable!("a disposal only asks again")
    }

    async fn recheck(&self, ids: &[DatasetId], anchor: &Anchor) -> Result<Vec<DatasetId>, ReferencesError> {
        let answer = {
            let mut world = self.0.lock();
            world.sentinels.push(anchor.sentinels.clone());
            let answer = match world.rechecks.pop_front() {
                Some(error) => Err(error),
                None => Ok(ids.iter().filter(|id| world.live.contains(id)).copied().collect()),
            };
            world.note(Asked::Recheck(ids[0]));
            answer
        };
        // Whoever asked at the same time asks before this is answered.
        tokio::task::yield_now().await;
        answer
    }
}

#[async_trait]
impl CopyStore for Player {
    async fn head(&self, place: &Place) -> Result<Option<Head>, StoreError> {
        let mut world = self.0.lock();
        let key = place.key.as_str();
        if let Some(fault) = world.blind.pop_front() {
            world.note(Asked::Head(key.to_owned()));
            return Err(StoreError { operation: "HeadObject", fault });
        }
        let found = world.objects.get(key).filter(|_| !world.ghosts.contains(key)).map(|object| Head {
            size_bytes: object.size_bytes,
            etag: object.etag.clone(),
            last_modified: object.last_modified,
            carried: world.carried.get(key).cloned().unwrap_or_default(),
        });
        world.note(Asked::Head(key.to_owned()));
        Ok(found)
    }

    async fn copy(&self, source: &Place, seen: &Head, target: &Place, _when: WriteWhen) -> Result<Copied, StoreError> {
        let mut world = self.0.lock();
        if let Some(fault) = world.uncopied.pop_front() {
            world.note(Asked::Copy(source.key.as_str().to_owned()));
            return Err(StoreError { operation: "CopyObject", fault });
        }
        let found = world.objects.get(source.key.as_str()).cloned();
        let copied = match found {
            None => Copied::SourceGone,
            Some(found) if found.etag != seen.etag => Copied::ConditionFailed,
            Some(found) => {
                let key = target.key.as_str().to_owned();
                if world.spoiled_copies {
                    world.bytes.insert(key.clone(), 99);
                }
                world.objects.insert(key, Object { key: target.key.clone(), last_modified: Some(at(900)), ..found });
                Copied::Done
            }
        };
        world.note(Asked::Copy(source.key.as_str().to_owned()));
        Ok(copied)
    }

    async fn read_back(&self, place: &Place, seen: &Head) -> Result<ReadBack, StoreError> {
        let mut world = self.0.lock();
        let key = place.key.as_str();
        let back = match world.objects.get(key) {
            None => ReadBack::Gone,
            Some(object) if object.etag != seen.etag => ReadBack::Changed,
            Some(object) => {
                let bytes = world.bytes.get(key).copied().unwrap_or(0);
                ReadBack::Whole { size_bytes: object.size_bytes, hash: Sha256Hash::of(&[bytes]) }
            }
        };
        world.note(Asked::ReadBack(key.to_owned()));
        Ok(back)
    }
}

/// Notes which prefixes are over, and how many at a time.
#[derive(Default)]
pub struct Over(pub Mutex<Vec<String>>, pub Mutex<Vec<usize>>);

#[async_trait]
impl Closing for Over {
    async fn over(&self, groups: &[&PlanGroup]) -> Result<(), Halt> {
        self.1.lock().push(groups.len());
        let mut over = self.0.lock();
        over.extend(groups.iter().map(|group| group.prefix.clone()));
        // A teller that fails ends the run.
        if over.iter().any(String::is_empty) { Err(Halt::Untold) } else { Ok(()) }
    }
}

/// Everything that one disposal needs.
pub struct Bench {
    folder: tempfile::TempDir,
    pub player: Player,
    pub scope: Scope,
    pub ledger: Ledger,
    pub stop: CancellationToken,
    pub over: Over,
    pub pacer: Pacer,
    pub done: Mutex<u64>,
    pub consent: Consent,
    pub is_aside: bool,
    pub is_begun: bool,
}

impl Bench {
    /// A bench on this thread, which waits for no clock.
    pub async fn new() -> Self {
        Self::paced(Pace::default()).await
    }

    pub async fn paced(pace: Pace) -> Self {
        crate::failpoint::step_onto();
        let folder = crate::failpoint::folder_in_memory();
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"));
        let config =
            config::parse(text, &folder.path().join("config.toml"), &Variables::new()).expect("the configuration");
        let ledger = Ledger::open_or_create(&folder.path().join("ledger.sqlite3"), at(0)).await.expect("a ledger");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(at(1000)));
        Self {
            folder,
            player: Player::default(),
            scope: config.scopes.into_iter().next().expect("one scope"),
            ledger,
            stop: CancellationToken::new(),
            over: Over::default(),
            pacer: Pacer::new(pace, clock, Stopwatch::start()),
            done: Mutex::new(0),
            consent: Consent::Given,
            is_aside: false,
            is_begun: false,
        }
    }

    pub fn stop_file(&self) -> std::path::PathBuf {
        self.folder.path().join("STOP")
    }

    pub fn world(&self) -> parking_lot::MutexGuard<'_, World> {
        self.player.0.lock()
    }

    /// Puts objects under `prefixes`, and writes them as an orphan that was sighted and planned.
    pub async fn plant(&self, n: u128, patterns: &[u8], keys: &[&str]) -> Candidate {
        {
            let mut world = self.world();
            for pattern in patterns {
                keys.iter().for_each(|key| world.put(&format!("{}{key}", prefix(*pattern, n))));
            }
        }
        self.plan_of(n, patterns, Vec::new()).await
    }

    /// The sighting and the plan of what lies under an id now.
    pub async fn plan_of(&self, n: u128, patterns: &[u8], odd: Vec<Group>) -> Candidate {
        let mut orphan = Orphan { groups: Vec::new() };
        let canonical = [0, 1].map(|pattern| Group { id: id(n), pattern, odd_spelling: None });
        let mut groups: Vec<Group> = canonical.into_iter().chain(odd.iter().cloned()).collect();
        groups.sort_unstable();
        for group in groups {
            let prefix = prefix_of(&group, &self.scope.patterns);
            let content = content::open(&self.player, &prefix, None, &self.stop, |_| {}).await.expect("listed");
            orphan.groups.push((group, content));
        }
        let sighting = Sighting { sightings: 3, ..Sighting::first(run(1), at(10), orphan.digest()) };
        let mut sightings = vec![(id(n), sighting)];
        for other in self.ledger.sighted_ids(SCOPE).await.expect("ids") {
            let known = self.ledger.sighting(SCOPE, other).await.expect("read").expect("sighted");
            if other != id(n) {
                sightings.push((other, known));
            }
        }
        self.ledger.record_lone_scan(SCOPE, run(1), &sightings, &baseline()).await.expect("recorded");
        let planned = patterns
            .iter()
            .map(|pattern| {
                let prefix = prefix(*pattern, n);
                let content = orphan.groups.iter().find(|(group, _)| prefix_of(group, &self.scope.patterns) == prefix);
                let content = &content.expect("opened").1;
                PlanGroup {
                    id: id(n),
                    pattern: self.scope.patterns[usize::from(*pattern)].template().to_owned(),
                    prefix,
                    objects: content.objects,
                    bytes: content.bytes,
                    oldest: content.oldest,
                    newest: content.newest,
                    digest: content.digest,
                    first_seen: at(10),
                    first_run: run(1),
                    sightings: 3,
                }
            })
            .collect();
        self.world().asked.clear();
        Candidate { id: id(n), planned, odd }
    }

    /// A disposal of the plan by run 2.
    pub fn disposal<'d>(&'d self, progress: &'d (dyn Fn(u64) + Send + Sync)) -> Disposal<'d> {
        Disposal::new(&self.scope, plan(), run(2), anchor(), self.tools(progress))
    }

    pub fn tools<'d>(&'d self, progress: &'d (dyn Fn(u64) + Send + Sync)) -> Tools<'d> {
        Tools {
            store: &self.player,
            deleter: &self.player,
            aside: self.is_aside.then(|| {
                let aside = Aside::new(&self.player, "b", QUARANTINE);
                if self.is_begun { aside.begun() } else { aside }
            }),
            references: &self.player,
            ledger: &self.ledger,
            clock: Arc::new(ManualClock::at(at(1000))),
            stop: self.stop.clone(),
            stop_file: self.stop_file(),
            consent: self.consent,
            as_of: at(1000),
            progress,
            pacer: &self.pacer,
            closing: &self.over,
            uploads: Watch::new(&self.player, &self.scope, &self.stop, &Uploads::default()),
        }
    }

    /// Disposes of the candidates; gives why it ended early.
    pub async fn dispose(&self, candidates: &[Candidate]) -> Option<Halt> {
        let progress = |done| *self.done.lock() += done;
        self.disposal(&progress).run(candidates).await
    }

    /// The outcomes of run 2: the keys' last parts, their outcomes and reasons.
    pub async fn outcomes(&self) -> Vec<(String, String, String)> {
        let rows = self.ledger.deletion_rows(SCOPE, run(2), None).await.expect("rows");
        rows.into_iter().map(|row| (row.key, row.outcome, row.reason)).collect()
    }

    /// The one outcome and reason that every key of run 2 has, and how many there are.
    pub async fn all_ended(&self) -> (usize, String, String) {
        let outcomes = self.outcomes().await;
        let (_, outcome, reason) = outcomes.first().cloned().unwrap_or_default();
        assert!(outcomes.iter().all(|(_, o, r)| (o, r) == (&outcome, &reason)), "{outcomes:?}");
        (outcomes.len(), outcome, reason)
    }

    /// What became of each group, by the last word on it.
    pub async fn disposals(&self, n: u128) -> Vec<String> {
        self.ledger.disposals(SCOPE, id(n)).await.expect("read").into_iter().map(|row| row.outcome).collect()
    }

    pub async fn is_sighted(&self, n: u128) -> bool {
        self.ledger.sighting(SCOPE, id(n)).await.expect("read").is_some()
    }

    pub fn deletes(&self) -> usize {
        self.world().count(|asked| matches!(asked, Asked::Delete(_) | Asked::One(_)))
    }

    pub fn rechecks(&self) -> usize {
        self.world().count(|asked| matches!(asked, Asked::Recheck(_)))
    }

    pub fn over(&self) -> Vec<String> {
        let mut over = self.over.0.lock().clone();
        over.sort();
        over
    }
}

pub fn anchor() -> Anchor {
    Anchor {
        identity: identity(),
        sentinels: vec![vec![id(900)]],
        without_sentinels: WithoutSentinels::StaysEmpty,
        snapshot: Snapshot::parse("5:5:"),
    }
}

fn identity() -> DatabaseIdentity {
    DatabaseIdentity {
        system: "1".into(),
        timeline: "1".into(),
        database: "d".into(),
        tables: vec![TableIdentity { name: "s.t".into(), oid: 1 }],
    }
}

fn baseline() -> Baseline {
    let target = TargetFingerprint {
        endpoint: "http://store".into(),
        bucket: "b".into(),
        prefix: "synthetic/".into(),
        patterns: Vec::new(),
    };
    let observation = Observation {
        as_of: at(10),
        rows: BTreeMap::new(),
        identity: identity(),
        target,
        overlap_share: None,
        skew_s: 0,
        snapshot: None,
        rows_as_of: None,
    };
    Baseline { observation, accepted_overlap: None, accepted_skew_s: None, accepted_empty: Vec::new() }
}

/// The word of a reason.
pub fn word(reason: SkipReason) -> String {
    reason.as_str().to_owned()
}
