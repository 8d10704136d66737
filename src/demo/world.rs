//! What the demo plays with: every kind of group there is, in the bucket, and the rows that keep some of them alive.
//!
//! Takes an empty store; gives the cast and the rows. Invariant: what must be left at the end is fixed here, before
//! the first audit, so that the check at the end does not believe the reports.

use chrono::Duration;
use uuid::Uuid;

use crate::embedded::{MemoryStore, VersioningState};
use crate::model::{DatasetId, Sha256Hash, Timestamp};

/// The bucket of the platform's defaults.
pub(super) const BUCKET: &str = "heimdall-synthetic-iq";

const MIB: u64 = 1024 * 1024;
/// Live datasets: so many that what goes stays under a tenth of the listed groups, the default limit.
const LIVE_DATASETS: u32 = 80;
/// Objects of the large orphan: three delete requests of at most a thousand.
const LARGE_GROUP_OBJECTS: u32 = 2500;
/// Names that break tools which trim, split, decode or quote keys; the last three cannot stand in a delete request's XML.
const HOSTILE_NAMES: [&str; 11] = [
    "sample 1/rx 0.npy",
    "sample+1/rx%2B0.npy",
    "quote'\"<&>.npy",
    "Pr\u{fc}fling/\u{1f4e1}.npy",
    "decomposed-u\u{308}.npy",
    "right-to-left-\u{202e}ypn.npy",
    "line\nbreak.npy",
    "tab\there.npy",
    "carriage\rreturn.npy",
    "bell\u{7}.npy",
    "no-character-\u{fffe}.npy",
];

/// What must have become of an actor's keys at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are deleted.
    Goes,
    /// They stay, because a rule keeps them.
    Stays,
    /// They stay, because a row with their id is there at the end.
    Live,
}

/// What an actor is to the audit on the first night.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Groups without a row.
    Orphan,
    /// A prefix that the store shows and that holds no object.
    Emptied,
    /// Keys and prefixes that no pattern reads.
    Foreign,
    /// A key that the configuration ignores.
    Ignored,
}

/// One part of the bucket with a story.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    /// What it is about.
    pub(super) title: &'static str,
    /// Its prefixes, or its one key.
    pub(super) prefixes: Vec<String>,
    /// What the audit takes it for.
    pub(super) part: Part,
    /// Its end.
    pub(super) fate: Fate,
}

/// A row of the catalogue.
#[derive(Debug, Clone)]
pub(super) struct CatalogueRow {
    /// The id, in the spelling that the row has.
    pub(super) id: String,
    /// The dataset's name.
    pub(super) name: String,
    /// `iq_raw` has objects, `feature_based` has none.
    pub(super) dataset_type: &'static str,
    /// When it was made.
    pub(super) created_at: Timestamp,
    /// The job that made it.
    pub(super) created_by_job_id: Uuid,
}

/// The whole cast.
#[derive(Debug)]
pub(super) struct World {
    /// Prefixes of the datasets that are live from the first night to the last.
    pub(super) live: Vec<String>,
    /// Everything else in the bucket.
    pub(super) cast: Vec<Actor>,
    /// The rows at the start.
    pub(super) rows: Vec<CatalogueRow>,
    /// The orphan that somebody writes into before the third night.
    rewritten: DatasetId,
    /// The dataset that is uploaded on the third night, before its row.
    young: DatasetId,
    /// The orphan whose row comes back before the clean-up.
    returning: DatasetId,
}

/// The prefix under the first pattern.
pub(super) fn plain(id: DatasetId) -> String {
    format!("synthetic/{id}/")
}

/// The prefix under the second pattern.
pub(super) fn dashed(id: DatasetId) -> String {
    format!("synthetic/dataset-{id}/")
}

/// The `number`th id: derived, so that every demo has the same ones.
fn id(number: u32) -> DatasetId {
    let hash = Sha256Hash::of(format!("orphan-sweeper demo {number}").as_bytes()).0;
    let bytes = hash[..16].try_into().expect("a hash has 32 bytes");
    DatasetId(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Gives each part of the world its ids and writes its objects.
struct Seeder<'s> {
    store: &'s MemoryStore,
    start: Timestamp,
    last_id: u32,
    world: World,
}

impl Seeder<'_> {
    fn next_id(&mut self) -> DatasetId {
        self.last_id += 1;
        id(self.last_id)
    }

    /// Writes a group as the platform does, `age` before the start: two receivers a sample.
    fn write(&self, prefix: &str, objects: u32, size_bytes: u64, age: Duration) {
        let at = self.start - age;
        for number in 0..objects {
            let (sample, receiver) = (number / 2, number % 2);
            let key = if prefix.starts_with("synthetic/dataset-") {
                format!("{prefix}sample-{sample}/rx_{receiver}.npy")
            } else {
                format!("{prefix}{sample:04}/{receiver}.npy")
            };
            // Sizes differ a little, as those of recordings do.
            let size_bytes = size_bytes + u64::from(number % 7) * 1024;
            self.store.put_sized(BUCKET, &key, size_bytes, at + Duration::seconds(i64::from(number / 4)));
        }
    }

    fn add_row(&mut self, spelled: String, name: String, dataset_type: &'static str, age: Duration) {
        let job = self.next_id();
        self.world.rows.push(CatalogueRow {
            id: spelled,
            name,
            dataset_type,
            created_at: self.start - age,
            created_by_job_id: job.0,
        });
    }

    fn cast(&mut self, part: Part, fate: Fate, title: &'static str, prefixes: Vec<String>) {
        self.world.cast.push(Actor { title, prefixes, part, fate });
    }

    /// An orphan under the prefixes that `prefixes` gives its id.
    fn orphan(
        &mut self,
        fate: Fate,
        title: &'static str,
        prefixes: &[fn(DatasetId) -> String],
    ) -> (DatasetId, Vec<String>) {
        let id = self.next_id();
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| prefix(id)).collect();
        self.cast(Part::Orphan, fate, title, prefixes.clone());
        (id, prefixes)
    }

    fn seed_live(&mut self) {
        for number in 0..LIVE_DATASETS {
            let id = self.next_id();
            let age = Duration::days(10 + i64::from(number));
            let mut prefixes = vec![if number % 2 == 0 { plain(id) } else { dashed(id) }];
            if number == 0 {
                prefixes.push(dashed(id));
            }
            for prefix in prefixes {
                self.write(&prefix, 4, 4 * MIB, age - Duration::hours(1));
                self.world.live.push(prefix);
            }
            // Any spelling in a row protects.
            let spelled = if number == 1 { id.to_string().to_uppercase() } else { id.to_string() };
            self.add_row(spelled, format!("urban-canyon-{number:02}"), "iq_raw", age);
        }
        for number in 1..=3 {
            let id = self.next_id().to_string();
            self.add_row(id, format!("spectral-features-{number}"), "feature_based", Duration::days(30));
        }
        let lost = self.next_id().to_string();
        self.add_row(lost, "harbour-17".to_owned(), "iq_raw", Duration::days(20));
    }

    fn seed_orphans(&mut self) {
        use Fate::{Goes, Live, Stays};
        let (_, group) = self.orphan(Goes, "left by a deleted job, first pattern", &[plain]);
        self.write(&group[0], 12, 4 * MIB, Duration::days(41));
        let (_, group) = self.orphan(Goes, "left by a deleted job, second pattern", &[dashed]);
        self.write(&group[0], 16, 4 * MIB, Duration::days(95));
        let (_, groups) = self.orphan(Goes, "one id with a group under each pattern", &[plain, dashed]);
        groups.iter().for_each(|group| self.write(group, 6, 4 * MIB, Duration::days(60)));
        let (_, group) = self.orphan(Goes, "a large one: three delete requests", &[dashed]);
        self.write(&group[0], LARGE_GROUP_OBJECTS, 8 * MIB, Duration::days(200));
        let (_, group) = self.orphan(Goes, "hostile keys: newlines, control characters, unicode", &[plain]);
        for name in HOSTILE_NAMES {
            self.store.put_sized(BUCKET, &format!("{}{name}", group[0]), MIB, self.start - Duration::days(33));
        }
        let (_, group) = self.orphan(Goes, "zero-byte objects only", &[plain]);
        self.write_empty(&group[0]);
        let (returning, group) = self.orphan(Live, "an old orphan whose row an import will bring back", &[plain]);
        self.world.returning = returning;
        self.write(&group[0], 8, 4 * MIB, Duration::days(50));
        let (rewritten, group) = self.orphan(Stays, "an old orphan that somebody writes into", &[plain]);
        self.world.rewritten = rewritten;
        self.write(&group[0], 8, 4 * MIB, Duration::days(50));
        let id = self.next_id();
        let upper = format!("synthetic/{}/", id.to_string().to_uppercase());
        self.write(&upper, 4, 4 * MIB, Duration::days(70));
        self.cast(Part::Orphan, Stays, "an id in upper case: some tool's mistake", vec![upper]);
    }

    fn write_empty(&self, prefix: &str) {
        for name in ["_SUCCESS", "0000/"] {
            self.store.put_sized(BUCKET, &format!("{prefix}{name}"), 0, self.start - Duration::days(45));
        }
    }

    fn seed_others(&mut self) {
        let emptied = plain(self.next_id());
        self.cast(Part::Emptied, Fate::Stays, "emptied; the store still shows its prefix", vec![emptied.clone()]);
        // Some stores show a prefix for a while after its last object went; here a marker that is left does it.
        self.store.set_versioning(BUCKET, VersioningState::Enabled);
        self.store.put_at(BUCKET, &format!("{emptied}_SUCCESS"), "", Some(self.start - Duration::days(45)));
        self.store.remove(BUCKET, &format!("{emptied}_SUCCESS"));
        self.store.set_versioning(BUCKET, VersioningState::Unversioned);

        let (suffixed, doubled) = (self.next_id(), self.next_id());
        let suffixed = format!("synthetic/{suffixed}x/");
        self.write(&suffixed, 2, MIB, Duration::days(80));
        self.cast(Part::Foreign, Fate::Stays, "almost an id", vec![suffixed]);
        let doubled = format!("synthetic/dataset-dataset-{doubled}/");
        self.write(&doubled, 2, MIB, Duration::days(80));
        self.cast(Part::Foreign, Fate::Stays, "a prefix too many", vec![doubled]);
        let (key, ignored) = ("synthetic/notes from the lab.txt", "synthetic/.keep");
        self.store.put_sized(BUCKET, key, 812, self.start - Duration::days(300));
        self.cast(Part::Foreign, Fate::Stays, "a key that lies beside the datasets", vec![key.to_owned()]);
        self.store.put_sized(BUCKET, ignored, 0, self.start - Duration::days(400));
        self.cast(Part::Ignored, Fate::Stays, "a key that the configuration ignores", vec![ignored.to_owned()]);
    }
}

impl World {
    /// Fills `store` as it stands at `start`.
    pub(super) fn seed(store: &MemoryStore, start: Timestamp) -> Self {
        let nobody = DatasetId(Uuid::nil());
        let world = Self {
            live: Vec::new(),
            cast: Vec::new(),
            rows: Vec::new(),
            rewritten: nobody,
            young: nobody,
            returning: nobody,
        };
        let mut seeder = Seeder { store, start, last_id: 0, world };
        seeder.seed_live();
        seeder.seed_orphans();
        seeder.seed_others();
        let young = seeder.next_id();
        Self { young, ..seeder.world }
    }

    /// Somebody writes into an orphan at `at`; gives its prefix.
    pub(super) fn write_into_orphan(&self, store: &MemoryStore, at: Timestamp) -> String {
        let prefix = plain(self.rewritten);
        store.put_sized(BUCKET, &format!("{prefix}9999/0.npy"), 4 * MIB, at);
        prefix
    }

    /// A job uploads a dataset at `at`, whose row it will write when it is done; gives its prefix.
    pub(super) fn upload_young(&mut self, store: &MemoryStore, at: Timestamp) -> String {
        let prefix = dashed(self.young);
        for receiver in 0..4 {
            store.put_sized(BUCKET, &format!("{prefix}sample-0/rx_{receiver}.npy"), 4 * MIB, at);
        }
        let title = "a fresh upload, its row not yet inserted";
        self.cast.push(Actor { title, prefixes: vec![prefix.clone()], part: Part::Orphan, fate: Fate::Stays });
        prefix
    }

    /// The row that an import brings back.
    pub(super) fn returning_row(&self, created_at: Timestamp) -> CatalogueRow {
        CatalogueRow {
            id: self.returning.to_string(),
            name: "urban-canyon-reimported".to_owned(),
            dataset_type: "iq_raw",
            created_at,
            created_by_job_id: id(self.rows.len().try_into().unwrap_or(u32::MAX)).0,
        }
    }

    /// The actor to which a listed prefix or key belongs.
    pub(super) fn actor(&self, prefix_or_key: &str) -> Option<&Actor> {
        self.cast.iter().find(|actor| actor.prefixes.iter().any(|prefix| prefix == prefix_or_key))
    }

    /// The prefixes of all actors that end so.
    pub(super) fn prefixes(&self, fate: Fate) -> impl Iterator<Item = &str> {
        self.cast.iter().filter(move |actor| actor.fate == fate).flat_map(|actor| &actor.prefixes).map(String::as_str)
    }

    /// How many prefixes play a part.
    pub(super) fn count(&self, part: Part) -> u64 {
        self.cast.iter().filter(|actor| actor.part == part).map(|actor| actor.prefixes.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;

    fn seeded() -> (MemoryStore, World) {
        let start: Timestamp = "2026-03-01T03:00:00Z".parse().expect("a time");
        let store = MemoryStore::new(Arc::new(ManualClock::at(start)));
        let world = World::seed(&store, start);
        (store, world)
    }

    #[test]
    fn ids_are_the_same_every_time_and_no_two_alike() {
        assert_eq!(id(7), id(7));
        let ids: HashSet<DatasetId> = (0..1000).map(id).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn every_key_of_the_bucket_has_exactly_one_owner() {
        let (store, world) = seeded();
        let owners: Vec<&str> = world
            .live
            .iter()
            .map(String::as_str)
            .chain(world.cast.iter().flat_map(|actor| &actor.prefixes).map(String::as_str))
            .collect();
        for key in store.keys(BUCKET) {
            assert_eq!(owners.iter().filter(|owner| key.starts_with(**owner)).count(), 1, "{key:?}");
        }
    }

    #[test]
    fn what_goes_stays_under_the_default_share() {
        let (_, world) = seeded();
        let listed = world.live.len() as u64 + world.count(Part::Orphan) + world.count(Part::Emptied);
        let would_go = world.prefixes(Fate::Goes).count() as u64 + 1;
        assert!(would_go > 5, "a share is judged above five groups only: the demo must be judged");
        assert!(would_go * 10 <= listed, "{would_go} of {listed}");
    }
}
