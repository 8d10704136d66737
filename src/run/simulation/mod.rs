//! The program in a world that a seed makes up: nights of audits, backfills, sweeps, applications and restores, some killed,
//! some two at a time, over a store and a database that fail in every way that real ones have been seen to, while writers come and go.
//!
//! What runs is the production code, from `run_scope` down; only the client of the store and of the database are played. An
//! oracle looks at every delete request before it is carried out. A seed tells the same story every time:
//!
//! - `ORPHAN_SWEEPER_TEST_SEED=n` plays one, and prints what happened;
//! - `ORPHAN_SWEEPER_TEST_SEEDS=n` plays that many, `=n..m` those from n up to m.

mod database;
mod director;
mod stage;
mod store;
mod story;
mod undo;
mod world;

pub use stage::Stage;
use std::future::Future;

use story::{Ending, Story};

/// Stories that are played at least, and for how long more are.
const LEAST_SEEDS: u64 = 200;
const TIME_FOR_SEEDS: std::time::Duration = std::time::Duration::from_secs(100);

/// The seed that one is asked to play.
fn wanted_seed() -> Option<u64> {
    let text = std::env::var("ORPHAN_SWEEPER_TEST_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("ORPHAN_SWEEPER_TEST_SEED is no number: {text}")))
}

/// The seeds that one is asked to play.
fn wanted_seeds() -> Option<std::ops::Range<u64>> {
    let text = std::env::var("ORPHAN_SWEEPER_TEST_SEEDS").ok()?;
    let (first, end) = text.split_once("..").unwrap_or(("0", &text));
    let seeds = first.parse().ok().zip(end.parse().ok()).filter(|(first, end)| first < end);
    let (first, end) =
        seeds.unwrap_or_else(|| panic!("ORPHAN_SWEEPER_TEST_SEEDS is neither a number nor a range: {text}"));
    Some(first..end)
}

/// Plays a story on this thread.
fn on_stage<F: Future<Output = Ending>>(story: impl FnOnce() -> F) -> Ending {
    crate::failpoint::step_onto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(story())
}

fn play(seed: u64) -> Ending {
    on_stage(|| async { Story::begin(seed).await.play().await })
}

#[track_caller]
fn assert_sound(seed: u64, ending: &Ending) {
    assert!(
        ending.violations.is_empty(),
        "seed {seed}: {}\n{}\nplay it again: ORPHAN_SWEEPER_TEST_SEED={seed} cargo test --lib simulation -- --nocapture",
        ending.violations.join("; "),
        ending.trace.join("\n"),
    );
}

#[test]
fn no_seed_loses_a_live_dataset() {
    if let Some(seed) = wanted_seed() {
        let ending = play(seed);
        println!("{}", ending.trace.join("\n"));
        return assert_sound(seed, &ending);
    }
    let wanted = wanted_seeds();
    let watch = crate::clock::Stopwatch::start();
    let is_enough = |seed: u64| match &wanted {
        Some(wanted) => seed >= wanted.end,
        None => seed >= LEAST_SEEDS && watch.elapsed() >= TIME_FOR_SEEDS,
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicU64::new(wanted.as_ref().map_or(0, |wanted| wanted.start));
    let totals = parking_lot::Mutex::new(Ending::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if is_enough(seed) {
                        return;
                    }
                    let ending = play(seed);
                    if !ending.violations.is_empty() {
                        // The other threads need not go on.
                        next.store(u64::MAX / 2, std::sync::atomic::Ordering::Relaxed);
                    }
                    assert_sound(seed, &ending);
                    totals.lock().add(&ending);
                }
            });
        }
    });
    let totals = totals.into_inner();
    println!(
        "{} seeds in {:.0?}: {} runs, {} of them killed, {} backfills, {} calls, {} objects deleted, {} brought back, \
         {} copies reaped, {} lost in the window",
        totals.stories,
        watch.elapsed(),
        totals.runs,
        totals.killed,
        totals.backfilled,
        totals.calls,
        totals.deleted,
        totals.restored,
        totals.reaped,
        totals.lost_in_window
    );
    assert!(totals.stories >= wanted.map_or(LEAST_SEEDS, |wanted| wanted.end - wanted.start));
    assert!(totals.deleted > totals.stories, "the stories hardly delete anything");
    let is_full = totals.restored > 0 && totals.reaped > 0 && totals.backfilled > 0;
    assert!(totals.stories < LEAST_SEEDS || is_full, "nothing is brought back, or reaped, or backfilled");
    // Writers that step into the window between check and request lose objects there, and the stories know it.
    assert!(totals.stories < LEAST_SEEDS || totals.lost_in_window > 0, "nobody ever stepped into the window");
}

#[test]
fn nothing_goes_after_another_process_saw_it_live_though_its_row_is_gone_again() {
    let seed = 7;
    let whole = on_stage(|| async { Story::begin(seed).await.rehearse(usize::MAX).await });
    assert_sound(seed, &whole);
    assert!(whole.deleted > 0, "it deletes when nobody looks");
    for turn in (1..60).step_by(3) {
        let ending = on_stage(|| async { Story::begin(seed).await.rehearse(turn).await });
        assert_sound(seed, &ending);
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in wanted_seeds().unwrap_or(1000..1010) {
        let (first, second) = (play(seed), play(seed));
        let differs = first.trace.iter().zip(&second.trace).position(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}: {:#?}", differs.map(|at| (&first.trace[..=at], &second.trace[at])));
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
