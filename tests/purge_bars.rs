//! Bars of a purge: the platform's own figures for 100 and 1,000 samples; and, where somebody measures, 100,000 objects and a boto3
//! script beside it.

use std::process::Command;
use std::time::Duration;

use orphan_sweeper::clock::Stopwatch;
use uuid::Uuid;

use crate::support::platform::Platform;
use crate::support::prefix;

/// A dataset of so many samples, each a row and an object under one pattern; every tenth object lies under the other.
async fn dataset(platform: &Platform, samples: usize) -> Uuid {
    let id = Uuid::new_v4();
    let key =
        |number: usize| format!("{}sample-{number}/rx_0.npy", prefix(usize::from(!number.is_multiple_of(10)), id));
    platform.world.bucket.put_many((0..samples).map(key)).await;
    platform.rows(id, "iq_raw").await;
    let insert = format!(
        "INSERT INTO heimdall.synthetic_iq_samples (dataset_id) SELECT '{id}' FROM generate_series(1, {samples})"
    );
    platform.world.database.execute(&insert).await;
    id
}

/// How long the whole command takes, from its start to its end.
async fn time_of_purge(platform: &Platform, samples: usize) -> Duration {
    let id = dataset(platform, samples).await;
    let begun = Stopwatch::start();
    let summary = platform.purge_dataset(id).await;
    let took = begun.elapsed();
    assert_eq!(summary["deletion"]["deleted"], samples, "{summary}");
    assert_eq!(platform.objects(id).await, [0, 0]);
    took
}

/// How long a boto3 script takes for the same.
async fn time_of_boto3(platform: &Platform, python: &str, samples: usize) -> Duration {
    let id = dataset(platform, samples).await;
    let (bucket, database) = (&platform.world.bucket, &platform.world.program.variables);
    let begun = Stopwatch::start();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/boto3_purge.py"))
        .args([&database["ORPHAN_SWEEPER_PURGE_DATABASE_URL"], &bucket.endpoint, &bucket.name, &id.to_string()])
        .env("AWS_ACCESS_KEY_ID", &bucket.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &bucket.secret_key)
        .output()
        .expect("Python starts");
    let took = begun.elapsed();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), samples.to_string(), "{output:?}");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_of_100_samples_is_gone_within_a_second_and_of_1000_within_five() {
    let platform = Platform::new().await;
    for (samples, bar) in [(100, Duration::from_secs(1)), (1000, Duration::from_secs(5))] {
        // The best of three: other processes of this machine are none of ours.
        let (mut took, mut allowed) = (Duration::MAX, Duration::ZERO);
        for _ in 0..3 {
            took = time_of_purge(&platform, samples).await;
            allowed = bar.mul_f64(crowding() * OF_THIS_BUILD);
            if took < allowed {
                break;
            }
        }
        assert!(took < allowed, "{samples} samples took {took:?}, {allowed:?} are allowed");
    }
    // `tests/benchmark` names a Python that has boto3.
    if let Ok(python) = std::env::var("ORPHAN_SWEEPER_TEST_BOTO3") {
        compare(&platform, &python).await;
    }
}

/// The program of the tests is not optimized, but where `ORPHAN_SWEEPER_TEST_PROGRAM` names another.
const OF_THIS_BUILD: f64 = if cfg!(debug_assertions) { 3.0 } else { 1.0 };

/// How many processes want a core of this machine, where that is more than one: each gets its share only.
fn crowding() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (load / f64::from(u32::try_from(cores).unwrap_or(1))).max(1.0)
}

/// Prints the best of a few rounds of each, side by side.
async fn compare(platform: &Platform, python: &str) {
    println!("| objects | purge | boto3 |\n|---|---|---|");
    for (samples, rounds) in [(100, 3), (1000, 3), (100_000, 1)] {
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds {
            ours = ours.min(time_of_purge(platform, samples).await);
            theirs = theirs.min(time_of_boto3(platform, python, samples).await);
        }
        println!("| {samples} | {:.2} s | {:.2} s |", ours.as_secs_f64(), theirs.as_secs_f64());
    }
}
