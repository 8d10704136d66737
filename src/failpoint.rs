//! What a test may do to the process: end it at a step, to prove that any end converges, and shorten its pauses. Absent from
//! release builds.

/// Ends the process if `ORPHAN_SWEEPER_TEST_KILL_AT` names this step (`step` or `step:n` for the n-th time), in the way that
/// `ORPHAN_SWEEPER_TEST_KILL_BY` says: at once, as `kill -9` would (the default); by `SIGTERM`, after which the process goes on
/// and stops in order; or by a `panic`.
#[cfg(debug_assertions)]
pub fn reach(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(0);
    #[cfg(test)]
    stage::reach(step);
    let Ok(wanted) = std::env::var("ORPHAN_SWEEPER_TEST_KILL_AT") else { return };
    let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if name != step || SEEN.fetch_add(1, Ordering::SeqCst) + 1 != count.parse().unwrap_or(1) {
        return;
    }
    match std::env::var("ORPHAN_SWEEPER_TEST_KILL_BY").as_deref() {
        Ok("SIGTERM") => {
            let _ = kill_process(getpid(), Signal::TERM);
        }
        Ok("panic") => panic!("told to panic at {step}"),
        _ => {
            let _ = kill_process(getpid(), Signal::KILL);
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }
}

/// The end of a process that is played, in tests of an optimized build.
#[cfg(all(not(debug_assertions), test))]
pub fn reach(step: &str) {
    stage::reach(step);
}

/// Nothing, in a release build.
#[cfg(all(not(debug_assertions), not(test)))]
pub fn reach(_step: &str) {}

/// By how much a test shortens the pauses between attempts: `ORPHAN_SWEEPER_TEST_HURRY`.
#[cfg(debug_assertions)]
pub fn hurry() -> u32 {
    std::env::var("ORPHAN_SWEEPER_TEST_HURRY").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Not at all, in a release build.
#[cfg(not(debug_assertions))]
pub fn hurry() -> u32 {
    1
}

/// How long a test lets a listing be believed: `ORPHAN_SWEEPER_TEST_LISTING_LIVES_MS`.
#[cfg(debug_assertions)]
pub fn listing_lives() -> Option<std::time::Duration> {
    let text = std::env::var("ORPHAN_SWEEPER_TEST_LISTING_LIVES_MS").ok()?;
    text.parse().ok().map(std::time::Duration::from_millis)
}

/// As long as it is, in a release build.
#[cfg(not(debug_assertions))]
pub fn listing_lives() -> Option<std::time::Duration> {
    None
}

/// Of how many rows a test lets a part of `deletions.csv` be: `ORPHAN_SWEEPER_TEST_PART_ROWS`.
#[cfg(debug_assertions)]
pub fn rows_per_part() -> Option<u64> {
    std::env::var("ORPHAN_SWEEPER_TEST_PART_ROWS").ok().and_then(|rows| rows.parse().ok())
}

/// Of as many as ever, in a release build.
#[cfg(not(debug_assertions))]
pub fn rows_per_part() -> Option<u64> {
    None
}

/// Whether a test takes the run lock away, to prove that safety never rests on it: `ORPHAN_SWEEPER_TEST_NO_LOCK`.
#[cfg(debug_assertions)]
pub fn is_lock_bypassed() -> bool {
    std::env::var_os("ORPHAN_SWEEPER_TEST_NO_LOCK").is_some()
}

/// Never, in a release build.
#[cfg(not(debug_assertions))]
pub fn is_lock_bypassed() -> bool {
    false
}

/// How long a test lets a lease of the ledger last: `ORPHAN_SWEEPER_TEST_LEASE_MS`.
#[cfg(debug_assertions)]
pub fn lease() -> Option<std::time::Duration> {
    let text = std::env::var("ORPHAN_SWEEPER_TEST_LEASE_MS").ok()?;
    text.parse().ok().map(std::time::Duration::from_millis)
}

/// As long as it does, in a release build.
#[cfg(not(debug_assertions))]
pub fn lease() -> Option<std::time::Duration> {
    None
}

#[cfg(test)]
pub use stage::{Killed, folder_in_memory, is_staged, kill_at, leave, step_onto};

/// A simulated process, for the thread that plays it.
#[cfg(test)]
mod stage {
    use std::cell::{Cell, RefCell};

    thread_local! {
        static IS_STAGED: Cell<bool> = const { Cell::new(false) };
        static KILL_AT: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
    }

    /// What unwinds from the step at which the process is killed.
    pub struct Killed;

    /// From now on this thread plays a process: it waits for no clock.
    pub fn step_onto() {
        IS_STAGED.set(true);
    }

    /// A folder in memory, where the machine has one: whoever syncs often then waits for no disk.
    pub fn folder_in_memory() -> tempfile::TempDir {
        let memory = std::path::Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
    }

    /// Whether this thread plays a process.
    pub fn is_staged() -> bool {
        IS_STAGED.get()
    }

    /// The process is to be killed when it reaches `step` for the n-th time.
    pub fn kill_at(step: &str, n: u32) {
        KILL_AT.set(Some((step.to_owned(), n)));
    }

    /// No kill is wanted any more.
    pub fn leave() {
        KILL_AT.set(None);
    }

    /// Ends the process where it was told to: nothing after this step happens.
    pub fn reach(step: &str) {
        let is_last = KILL_AT.with_borrow_mut(|wanted| match wanted {
            Some((name, left)) if name == step => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Some(_) | None => false,
        });
        if is_last {
            leave();
            std::panic::resume_unwind(Box::new(Killed));
        }
    }
}
