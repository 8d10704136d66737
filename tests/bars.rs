//! Bars: memory that does not grow with objects, and ten million ids in bounded memory.

use std::sync::Arc;

use orphan_sweeper::clock::SystemClock;
use orphan_sweeper::embedded::MemoryStore;
use uuid::Uuid;

use crate::support::{Database, Program, Ran, prefix};

/// Peak memory of a process, in KiB.
#[derive(Debug, Default)]
struct Peak {
    /// All that is resident, as the kernel keeps it: also the pages of the program's file, 33 MiB of a debug build and 12 MiB of a
    /// release build.
    whole: u64,
    /// What the program itself allocated, sampled.
    allocated: u64,
}

/// Runs the program to its end and watches its memory.
async fn peak_of(mut child: std::process::Child) -> (Ran, Peak) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = Peak::default();
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        peak.whole = peak.whole.max(field("VmHWM:"));
        peak.allocated = peak.allocated.max(field("RssAnon:"));
        if child.try_wait().expect("waited").is_some() {
            return (Ran::wait(child).await, peak);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

const MIB: u64 = 1024;
/// What may be allocated so that a release build stays under 40 MiB as a whole.
const ALLOCATED: u64 = 24 * MIB;

#[track_caller]
fn assert_small(peak: &Peak) {
    assert!(peak.allocated < ALLOCATED, "{peak:?} KiB");
    // A release build that was named for this test is held to the bar itself.
    let is_release = std::env::var_os("ORPHAN_SWEEPER_TEST_PROGRAM").is_some();
    assert!(!is_release || peak.whole < 40 * MIB, "{peak:?} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_a_million_objects_in_ten_thousand_groups_stays_under_40_mib() {
    let store = MemoryStore::new(Arc::new(SystemClock));
    store.create_bucket("large-bucket");
    let serving = store.serve("key", "secret").await.expect("serving");
    let database = Database::create().await;
    let mut program = Program::bare(serving.endpoint(), "large-bucket", &database.reader_url());
    program.set("AWS_ACCESS_KEY_ID", "key");
    program.set("AWS_SECRET_ACCESS_KEY", "secret");
    let long_ago = "2026-01-01T00:00:00Z".parse().expect("a time");
    for group in 0..10_000_u128 {
        // Half of them are live, half are opened object by object.
        let id = Uuid::from_u128(group << 64 | 0x4000_8000_0000_0000_0000);
        for object in 0..100 {
            store.put_sized(
                "large-bucket",
                &format!("{}sample-{object:03}/rx_0.npy", prefix(1, id)),
                1_000_000,
                long_ago,
            );
        }
        if group == 0 {
            database.insert(id).await;
        }
    }
    let (ran, peak) = peak_of(program.start(&["audit", "--json", "--quiet"])).await;
    let summary = ran.summary(0);
    assert_eq!((&summary["orphan_objects"], &summary["groups"]["orphan"]), (&999_900.into(), &9_999.into()));
    eprintln!("over 1,000,000 objects: {peak:?} KiB");
    assert_small(&peak);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_stream_in_memory_that_does_not_grow_with_them() {
    let store = MemoryStore::new(Arc::new(SystemClock));
    store.create_bucket("small-bucket");
    let serving = store.serve("key", "secret").await.expect("serving");
    let database = Database::create().await;
    let mut program = Program::bare(serving.endpoint(), "small-bucket", &database.reader_url());
    program.set("AWS_ACCESS_KEY_ID", "key");
    program.set("AWS_SECRET_ACCESS_KEY", "secret");
    // As many as are asked for, up to ten million: `ORPHAN_SWEEPER_TEST_IDS`.
    let ids: u64 = std::env::var("ORPHAN_SWEEPER_TEST_IDS").ok().and_then(|ids| ids.parse().ok()).unwrap_or(300_000);
    database
        .execute(&format!(
            "INSERT INTO heimdall.synthetic_datasets (id, dataset_type) SELECT gen_random_uuid(), 'feature_based' FROM generate_series(1, {ids})"
        ))
        .await;
    let (ran, peak) = peak_of(program.start(&["audit", "--json", "--quiet"])).await;
    assert_eq!(ran.summary(0)["coverage"]["references"], ids);
    eprintln!("over {ids} ids: {peak:?} KiB");
    assert_small(&peak);
}

/// How large a file is, if it is there.
fn size_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_plan_is_worked_through_with_a_small_journal_and_small_parts() {
    // As many as are asked for: `ORPHAN_SWEEPER_TEST_OBJECTS`, in groups of 500.
    let objects = std::env::var("ORPHAN_SWEEPER_TEST_OBJECTS").ok().and_then(|count| count.parse().ok());
    let objects: u64 = objects.unwrap_or(20_000);
    let rows_per_part = objects / 10;
    let store = MemoryStore::new(Arc::new(SystemClock));
    store.create_bucket("large-bucket");
    let serving = store.serve("key", "secret").await.expect("serving");
    let database = Database::create().await;
    let mut program = Program::at(serving.endpoint(), "large-bucket", ("key", "secret"), &database.reader_url());
    program.set_scope("LIMITS__MAX_OBJECTS", "100000000");
    program.set_scope("LIMITS__MAX_BYTES", "1PiB");
    program.set("ORPHAN_SWEEPER_TEST_PART_ROWS", &rows_per_part.to_string());
    let long_ago = "2026-01-01T00:00:00Z".parse().expect("a time");
    let live = Uuid::from_u128(7);
    database.insert(live).await;
    store.put_sized("large-bucket", &format!("{}x", prefix(0, live)), 1, long_ago);
    for object in 0..objects {
        let id = Uuid::from_u128(u128::from(object / 500 + 1) << 64 | 0x4000_8000_0000_0000_0000);
        let key = format!("{}sample-{:03}/rx_0.npy", prefix(1, id), object % 500);
        store.put_sized("large-bucket", &key, 1_000_000, long_ago);
    }
    let audit = program.run(&["audit", "--json", "--quiet"]).await.summary(0);
    assert_eq!(audit["eligible_objects"], objects);
    let ledger = program.path("reports/ledger.sqlite3");
    let (before, wal) = (size_of(&ledger), ledger.with_extension("sqlite3-wal"));
    let child = program.start(&["apply", &program.latest("plan.json"), "--yes", "--json", "--quiet"]);
    let peak = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (seen, file) = (Arc::clone(&peak), ledger.clone());
    let watching = tokio::spawn(async move {
        loop {
            let now = size_of(&file).saturating_sub(before) + size_of(&wal);
            seen.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let (ran, memory) = peak_of(child).await;
    watching.abort();
    assert_eq!(ran.summary(0)["deletion"]["deleted"], objects, "{ran:?}");
    let folder = std::path::PathBuf::from(program.latest("summary.json"));
    let parts = std::fs::read_dir(folder.parent().expect("a folder")).expect("a folder");
    let parts =
        parts.map(|entry| entry.expect("an entry").path()).filter(|path| path.to_string_lossy().ends_with(".zst"));
    let (count, bytes) = parts.fold((0, 0), |(count, bytes), path| (count + 1, bytes + size_of(&path)));
    let peak = peak.load(std::sync::atomic::Ordering::Relaxed);
    eprintln!(
        "over {objects} objects in parts of {rows_per_part}: the ledger grew by {peak} bytes at most, the {count} parts have {bytes}; {memory:?} KiB"
    );
    assert!(count >= 9, "{count}");
    // What src/dispose/space.rs asks for, in other words: a part and six ids, twice; and what the chain keeps of each batch.
    let journal = (rows_per_part + 6 * 500) * 640 * 2;
    assert!(peak < journal + objects * 16 + (5 << 20), "{peak} > {journal}");
    assert!(bytes < objects * 64, "{bytes}");
    assert_small(&memory);
}
