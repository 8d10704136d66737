use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::super::test_store::{Bucket, Script, at, more, object, page, stopped, wait};
use super::*;
use crate::model::Timestamp;
use crate::record::RecordError;
use crate::s3::StoreFault;

const PREFIX: &str = "p/";

fn key(n: usize) -> String {
    format!("p/{n:06}")
}

fn objects(range: impl IntoIterator<Item = usize>) -> Vec<Object> {
    range.into_iter().map(|n| object(&key(n))).collect()
}

/// A journal in memory that notes what it was asked.
#[derive(Default)]
struct Journal {
    sent: Mutex<BTreeMap<String, Object>>,
    asked: Mutex<Vec<Option<String>>>,
}

impl Journal {
    fn of(objects: Vec<Object>) -> Self {
        let sent = objects.into_iter().map(|object| (object.key.as_str().to_owned(), object)).collect();
        Self { sent: Mutex::new(sent), asked: Mutex::default() }
    }

    fn intend(&self, objects: &[Object]) {
        self.sent.lock().extend(objects.iter().map(|object| (object.key.as_str().to_owned(), object.clone())));
    }
}

#[async_trait]
impl SentIntents for Journal {
    async fn sent_after(&self, prefix: &str, key: Option<&ObjectKey>) -> Result<Vec<Object>, RecordError> {
        assert_eq!(prefix, PREFIX);
        let after = key.map(|key| key.as_str().to_owned());
        self.asked.lock().push(after.clone());
        let sent = self.sent.lock();
        Ok(sent
            .iter()
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
            .map(|(_, object)| object.clone())
            .take(1000)
            .collect())
    }
}

/// A journal that cannot be read.
struct BrokenJournal;

#[async_trait]
impl SentIntents for BrokenJournal {
    async fn sent_after(&self, _: &str, _: Option<&ObjectKey>) -> Result<Vec<Object>, RecordError> {
        Err(RecordError::Unreadable("a key"))
    }
}

fn read(listed: Vec<Object>, sent: Vec<Object>) -> Vec<Chunk> {
    read_from(&Bucket::new(listed, &[1000]), &Journal::of(sent))
}

fn read_from(store: &dyn ReadStore, journal: &Journal) -> Vec<Chunk> {
    wait(async {
        let stop = stopped();
        let mut chunks = Chunks::new(store, PREFIX, Some(journal), &stop);
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await.expect("readable") {
            read.push(chunk);
        }
        assert!(chunks.next().await.expect("readable").is_none(), "a group that ended stays so");
        read
    })
}

fn digests(chunks: &[Chunk]) -> Vec<Sha256Hash> {
    chunks.iter().map(|chunk| chunk.digest).collect()
}

fn sizes(chunks: &[Chunk]) -> Vec<(usize, usize)> {
    chunks.iter().map(|chunk| (chunk.listed.len(), chunk.gone.len())).collect()
}

fn digest_of(objects: &[Object]) -> Sha256Hash {
    let mut digest = ChunkDigest::default();
    objects.iter().for_each(|object| digest.add(object));
    digest.finish()
}

fn opened(listed: Vec<Object>, sent: Vec<Object>) -> GroupContent {
    let journal = Journal::of(sent);
    wait(open(&Bucket::new(listed, &[1000]), PREFIX, Some(&journal), &stopped(), |_| {})).expect("readable")
}

#[test]
fn chunks_hold_a_thousand_objects_and_the_last_one_the_rest() {
    for (count, expected) in [
        (0, vec![]),
        (1, vec![1]),
        (999, vec![999]),
        (1000, vec![1000]),
        (1001, vec![1000, 1]),
        (2000, vec![1000, 1000]),
        (2500, vec![1000, 1000, 500]),
    ] {
        let listed = read(objects(0..count), Vec::new());
        assert_eq!(sizes(&listed), expected.iter().map(|size| (*size, 0)).collect::<Vec<_>>(), "{count} listed");
        let gone = read(Vec::new(), objects(0..count));
        assert_eq!(sizes(&gone), expected.iter().map(|size| (0, *size)).collect::<Vec<_>>(), "{count} gone");
        assert_eq!(digests(&listed), digests(&gone), "{count}: our own deletions are no change");
        let expected: Vec<Sha256Hash> = objects(0..count).chunks(1000).map(digest_of).collect();
        assert_eq!(digests(&listed), expected);
    }
}

#[test]
fn no_object_is_kept_beyond_its_chunk_or_lost() {
    let chunks = read(objects((0..2500).filter(|n| n % 3 != 0)), objects((0..2500).filter(|n| n % 3 == 0)));
    let mut seen: Vec<Object> = Vec::new();
    for chunk in chunks {
        let mut both = [chunk.listed, chunk.gone].concat();
        both.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(seen.last().is_none_or(|last| last.key < both[0].key), "chunks follow one another");
        seen.extend(both);
    }
    assert_eq!(seen, objects(0..2500));
}

#[test]
fn gone_keys_count_for_age_and_digest_and_not_for_the_totals() {
    let sized =
        |n: usize, size_bytes, seconds| Object { size_bytes, last_modified: Some(at(seconds)), ..object(&key(n)) };
    let all = vec![sized(1, 10, -50), sized(2, 200, -900), sized(3, 3000, -5)];
    let whole = opened(all.clone(), Vec::new());
    assert_eq!((whole.objects, whole.bytes, whole.oldest, whole.newest), (3, 3210, Some(at(-900)), Some(at(-5))));
    let partly = opened(vec![all[0].clone()], all[1..].to_vec());
    assert_eq!((partly.objects, partly.bytes, partly.oldest, partly.newest), (1, 10, Some(at(-900)), Some(at(-5))));
    assert_eq!((partly.digest, &partly.chunks), (whole.digest, &whole.chunks));
    let gone = opened(Vec::new(), all);
    assert_eq!((gone.objects, gone.bytes, gone.digest), (0, 0, whole.digest));
    assert_ne!(opened(Vec::new(), Vec::new()).digest, whole.digest);
}

#[test]
fn an_object_of_unknown_age_is_said_whether_listed_or_gone() {
    let ageless = Object { last_modified: None, ..object(&key(1)) };
    let before_s3 = Object { last_modified: Timestamp::from_timestamp(0, 0), ..object(&key(1)) };
    for object in [ageless, before_s3] {
        assert!(opened(vec![object.clone()], Vec::new()).has_unknown_age);
        assert!(opened(Vec::new(), vec![object]).has_unknown_age);
    }
    assert!(!opened(objects(0..3), objects(3..6)).has_unknown_age);
}

#[test]
fn a_key_that_was_sent_and_is_still_listed_is_no_change() {
    let chunks = read(objects(0..1500), objects(0..1500));
    assert_eq!(sizes(&chunks), [(1000, 0), (500, 0)], "it is listed, so it is not gone");
    assert_eq!(digests(&chunks), digests(&read(objects(0..1500), Vec::new())));
}

#[test]
fn a_key_that_was_sent_and_written_again_is_a_change() {
    let sent = objects(0..10);
    let before = digests(&read(sent.clone(), Vec::new()));
    let again = object(&key(4));
    for written in [
        Object { etag: "\"new\"".into(), ..again.clone() },
        Object { size_bytes: again.size_bytes + 1, ..again.clone() },
        Object { last_modified: Some(at(1)), ..again.clone() },
    ] {
        let chunks = read(vec![written.clone()], sent.clone());
        assert_eq!(chunks[0].listed, [written], "the listing is what counts");
        assert_eq!(sizes(&chunks), [(1, 9)]);
        assert_ne!(digests(&chunks), before);
    }
    assert_eq!(digests(&read(vec![again], sent)), before);
}

#[test]
fn what_somebody_else_added_or_removed_is_a_change() {
    let (sent, rest) = (objects(0..5), objects(5..10));
    let before = digests(&read(rest.clone(), sent.clone()));
    assert_ne!(digests(&read(rest[1..].to_vec(), sent.clone())), before, "a key is gone that we never asked for");
    assert_ne!(digests(&read([rest, vec![object("p/000003x")]].concat(), sent)), before, "a key appeared among ours");
}

#[test]
fn more_than_a_thousand_intents_are_read_in_their_order() {
    for (count, asked) in [
        (0, vec![None]),
        (1, vec![None, Some(0)]),
        (1000, vec![None, Some(999)]),
        (1001, vec![None, Some(999), Some(1000)]),
        (2000, vec![None, Some(999), Some(1999)]),
        (2500, vec![None, Some(999), Some(1999), Some(2499)]),
    ] {
        let journal = Journal::of(objects(0..count));
        let chunks = read_from(&Bucket::new(objects(3000..3010), &[1000]), &journal);
        assert_eq!(chunks.iter().map(|chunk| chunk.gone.len()).sum::<usize>(), count);
        assert_eq!(chunks.iter().map(|chunk| chunk.listed.len()).sum::<usize>(), 10);
        let expected: Vec<Option<String>> = asked.into_iter().map(|n: Option<usize>| n.map(key)).collect();
        assert_eq!(*journal.asked.lock(), expected, "and not once more when there is no more");
    }
}

#[test]
fn without_a_journal_only_the_listing_counts() {
    let bucket = Bucket::new(objects(0..3), &[1000]);
    let content = wait(open(&bucket, PREFIX, None, &stopped(), |_| {})).expect("readable");
    assert_eq!((content.objects, content.chunks.as_slice()), (3, &[digest_of(&objects(0..3))][..]));
}

#[test]
fn progress_counts_what_is_listed() {
    let (journal, mut counted) = (Journal::of(objects(0..1500)), Vec::new());
    wait(open(&Bucket::new(objects(1500..2600), &[1000]), PREFIX, Some(&journal), &stopped(), |listed| {
        counted.push(listed);
    }))
    .expect("readable");
    assert_eq!(counted, [0, 500, 600]);
}

#[test]
fn a_listing_that_breaks_or_a_journal_that_cannot_be_read_leaves_the_group_unknown() {
    let broken = Script::default().first(more(page(&["p/a"], &[]), "1")).then("1", page(&["p/a"], &[]));
    let error = wait(open(&broken, PREFIX, None, &stopped(), |_| {})).expect_err("out of order");
    assert!(matches!(error, ContentError::Store(StoreError { fault: StoreFault::Malformed(_), .. })), "{error}");
    let error = wait(open(&Bucket::new(objects(0..3), &[1000]), PREFIX, Some(&BrokenJournal), &stopped(), |_| {}))
        .expect_err("unreadable");
    assert!(matches!(error, ContentError::Record(RecordError::Unreadable("a key"))), "{error}");
}

/// Reads a group while the run deletes it: what was listed in a chunk is intended as soon as the chunk was handed out.
fn read_while_deleting(listed: Vec<Object>, journal: &Journal, page_sizes: &[usize]) -> Vec<Chunk> {
    let bucket = Bucket::new(listed, page_sizes);
    wait(async {
        let stop = stopped();
        let mut chunks = Chunks::new(&bucket, PREFIX, Some(journal), &stop);
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await.expect("readable") {
            journal.intend(&chunk.listed);
            read.push(chunk);
        }
        read
    })
}

#[test]
fn intents_that_the_running_deletion_writes_are_not_seen_again() {
    for sent in [
        vec![],
        vec![0],
        vec![500],
        vec![998],
        vec![999],
        vec![1000],
        vec![1999],
        vec![0, 999, 1000, 1001, 2499],
        (0..1000).collect(),
        (0..1001).collect(),
        (0..2500).step_by(2).collect(),
        (1..2500).step_by(2).collect(),
        (999..2500).step_by(1000).collect(),
    ] {
        let ours: BTreeSet<usize> = sent.iter().copied().collect();
        let listed = objects((0..2500).filter(|n| !ours.contains(n)));
        let journal = Journal::of(objects(sent));
        let chunks = read_while_deleting(listed.clone(), &journal, &[1000]);
        assert_eq!(digests(&chunks), digests(&read(objects(0..2500), Vec::new())), "{ours:?}");
        assert_eq!(
            chunks.into_iter().flat_map(|chunk| chunk.listed).collect::<Vec<_>>(),
            listed,
            "each key is deleted once"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn our_own_deletions_and_the_size_of_pages_change_nothing(
        count in prop_oneof![0..60_usize, 980..1040_usize, 1990..2020_usize],
        share in 0..101_usize,
        seed in any::<u64>(),
        is_still_listed in any::<bool>(),
        page_sizes in proptest::collection::vec(0..1200_usize, 1..4),
    ) {
        let pages = [page_sizes, vec![700]].concat();
        let is_sent = |n: usize| (seed.wrapping_mul(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 100 < share as u64;
        let listed = objects((0..count).filter(|n| !is_sent(*n) || is_still_listed && n % 2 == 0));
        let journal = Journal::of(objects((0..count).filter(|n| is_sent(*n))));
        let untouched = digests(&read(objects(0..count), Vec::new()));
        prop_assert_eq!(digests(&read_from(&Bucket::new(listed.clone(), &pages), &journal)), untouched.clone());
        prop_assert_eq!(digests(&read_while_deleting(listed, &journal, &pages)), untouched);
    }
}

#[test]
fn what_a_page_left_over_for_the_next_chunk_is_as_old_as_the_page() {
    let bucket = Bucket::new(objects((0..600).chain(1100..1500)), &[1000]);
    let journal = Journal::of(objects(600..1100));
    wait(async {
        let stop = stopped();
        let mut chunks = Chunks::new(&bucket, PREFIX, Some(&journal), &stop);
        let first = chunks.next().await.expect("readable").expect("a chunk");
        assert_eq!((first.listed.len(), first.gone.len()), (600, 400));
        let between = Stopwatch::start();
        let second = chunks.next().await.expect("readable").expect("a chunk");
        assert_eq!((second.listed.len(), second.gone.len()), (400, 100));
        // Both stand on one page, which was asked for before the first was handed out.
        let since_between = between.elapsed();
        assert!(second.asked.elapsed() > since_between);
    });
}
