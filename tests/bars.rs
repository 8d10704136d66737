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
