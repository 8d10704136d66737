//! The protocol of deletion as a model, explored to its end: writers, the database, a listing of several steps, two
//! sweepers without a lock between them, a restore, crashes and clocks.
//!
//! The window that remains is part of the model and no loss in it: a row, or a hold, that is committed after the last
//! answer of the primary and before the request (ten seconds at most, one tick here); an object that is written again
//! after the listing that the request is made of (a minute at most, the same tick here); a row that came and went while
//! nobody looked, which is as if it had never been; a request that the store carries out long after it was sent.
//!
//! One test explores everything with every guard in place. Each other one takes a guard out, and fails if the model then
//! finds no loss: a guard that could be left out without a loss would be no guard, and a model that cannot lose none either.
//! Where two guards cover each other, the test takes both.

mod guards;
mod protocol;
mod world;

use std::time::Instant;

use guards::{Guard, Guards};
use protocol::Protocol;
use stateright::{Checker, HasDiscoveries, Model};
use world::Budget;

const LIVE: &str = "no object is requested whose id was live at its last check";
const REFUTED: &str = "none whose id any look since its plan saw live";
const UNPLANNED: &str = "none that was never planned";
const PROMISED: &str = "none whose writer keeps its promise";
const OLD_PROOF: &str = "none with an old proof";
const NO_INTENT: &str = "none without an intent";
const RESTORED: &str = "none that was restored";
const SIGHTED: &str = "no live id is sighted";
const DELETED: &str = "an orphan is deleted";

const NOTHING: Budget = Budget {
    uploads: 0,
    inserts: 0,
    deletes: 0,
    transactions: 0,
    faults: 0,
    jumps: 0,
    crashes: 0,
    lost_replies: 0,
    restores: 0,
    scans: 0,
    applications: 0,
};

/// An orphan is planned; its row comes and goes, replies are lost, and a second sweeper audits or applies meanwhile.
const DELETION: Protocol = Protocol {
    guards: Guards::ALL,
    sweepers: 2,
    end: 1,
    scans_of_tick: 2,
    is_backfill: false,
    begins_planned: true,
    begins_live: false,
    upload_takes: 0,
    row_returns_within: 0,
    judges_sightings: true,
    budget: Budget { inserts: 1, deletes: 1, lost_replies: 1, scans: 1, applications: 2, ..NOTHING },
};

/// … with two audits, of which one may be slower than the other.
const AUDITS: Protocol = Protocol {
    scans_of_tick: 2,
    budget: Budget { lost_replies: 0, scans: 2, applications: 1, ..DELETION.budget },
    ..DELETION
};

/// … while its objects are written again, and the one sweeper crashes.
const REWRITES: Protocol =
    Protocol { sweepers: 1, budget: Budget { uploads: 2, crashes: 1, ..DELETION.budget }, ..DELETION };

/// One sweeper, from the first sighting to the deletion: uploads take three ticks, rows come back within three.
const MATURING: Protocol = Protocol {
    sweepers: 1,
    end: 5,
    scans_of_tick: 1,
    begins_planned: false,
    begins_live: true,
    upload_takes: 3,
    row_returns_within: 3,
    budget: Budget { uploads: 1, inserts: 1, deletes: 1, transactions: 1, scans: 4, applications: 1, ..NOTHING },
    ..DELETION
};

/// Every clock may jump by more than grace, once forward and once back; rows come back within one tick.
const JUMPING: Protocol = Protocol {
    upload_takes: 1,
    row_returns_within: 1,
    end: 3,
    scans_of_tick: 2,
    budget: Budget { uploads: 1, inserts: 1, deletes: 1, jumps: 2, scans: 4, applications: 1, ..NOTHING },
    ..MATURING
};

/// Old leaks without grace since the first sighting, scanned at will.
const BACKFILL: Protocol = Protocol {
    is_backfill: true,
    row_returns_within: 1,
    end: 3,
    scans_of_tick: 3,
    budget: Budget { jumps: 0, ..JUMPING.budget },
    ..MATURING
};

/// The database shows what is not so.
const FAULTS: Protocol = Protocol {
    end: 4,
    budget: Budget { deletes: 1, inserts: 1, faults: 1, scans: 3, applications: 1, ..NOTHING },
    ..MATURING
};

/// A person brings back what was deleted, while it is deleted and afterwards.
const RESTORE: Protocol = Protocol {
    sweepers: 1,
    end: 4,
    scans_of_tick: 1,
    budget: Budget { lost_replies: 1, crashes: 1, restores: 1, scans: 3, applications: 2, ..NOTHING },
    ..DELETION
};

/// What an exploration found.
struct Found {
    states: usize,
    depth: usize,
    properties: Vec<&'static str>,
    /// What leads to each loss.
    stories: Vec<String>,
}

fn explore(protocol: Protocol, finish: HasDiscoveries) -> Found {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = protocol.checker().threads(threads).finish_when(finish).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let tell = |(property, path): (&&'static str, &stateright::Path<world::State, protocol::Action>)| {
        format!(
            "{property}:\n{}",
            path.clone().into_actions().iter().fold(String::new(), |story, action| story + &format!("  {action:?}\n"))
        )
    };
    let stories = discoveries.iter().filter(|(property, _)| **property != DELETED).map(tell).collect();
    let properties = discoveries.into_keys().collect();
    Found { states: checker.unique_state_count(), depth: checker.max_depth(), properties, stories }
}

/// Explores with every guard; gives the number of states.
#[track_caller]
fn holds(name: &str, protocol: Protocol) -> usize {
    #[expect(clippy::disallowed_methods, reason = "the time is printed")]
    let begun = Instant::now();
    let found = explore(protocol, HasDiscoveries::AnyFailures);
    println!("{name}: {} states, {} steps deep, {:.1?}", found.states, found.depth, begun.elapsed());
    assert_eq!(found.properties, [DELETED], "{name}: {}", found.stories.join("\n"));
    found.states
}

/// Takes guards out of a protocol, which must then lose `property`.
#[track_caller]
fn loses(protocol: Protocol, removed: &[Guard], property: &'static str) {
    let wanted = HasDiscoveries::AnyOf(std::collections::BTreeSet::from([property]));
    let found = explore(Protocol { guards: Guards::without(removed), ..protocol }, wanted);
    println!("without {removed:?}: a counterexample within {} states\n{}", found.states, found.stories.join("\n"));
    assert!(found.properties.contains(&property), "without {removed:?} nothing is lost, in {} states", found.states);
}

#[test]
fn every_guard_together_loses_nothing() {
    let worlds = [
        ("maturing", MATURING),
        ("jumping", JUMPING),
        ("backfill", BACKFILL),
        ("faults", FAULTS),
        ("restore", RESTORE),
        ("rewrites", REWRITES),
        ("audits", AUDITS),
        ("deletion", DELETION),
    ];
    // The largest world with crashes and writers besides, for those who have minutes.
    let is_long = std::env::var_os("ORPHAN_SWEEPER_TEST_LONG_MODEL").is_some();
    let long = Protocol { budget: Budget { uploads: 1, crashes: 1, ..DELETION.budget }, ..DELETION };
    let worlds = worlds.into_iter().chain(is_long.then_some(("everything at once", long)));
    let states: usize = worlds.map(|(name, protocol)| holds(name, protocol)).sum();
    println!("{states} states in all");
    assert!(states >= 1_000_000, "only {states} states");
}

#[test]
fn list_first() {
    loses(MATURING, &[Guard::ListFirst], SIGHTED);
}

#[test]
fn ask_again() {
    loses(DELETION, &[Guard::AskAgain], LIVE);
}

/// One sweeper whose objects nobody writes again: what an old answer loses, and no old listing.
const ANSWERS: Protocol = Protocol { sweepers: 1, ..DELETION };

#[test]
fn ask_again_before_each_attempt() {
    holds("without old listings", Protocol { guards: Guards::without(&[Guard::ListingLives]), ..ANSWERS });
    loses(ANSWERS, &[Guard::AskAgainEachAttempt, Guard::ListingLives], OLD_PROOF);
}

#[test]
fn send_within() {
    loses(ANSWERS, &[Guard::SendWithin, Guard::ListingLives], OLD_PROOF);
}

#[test]
fn listing_lives() {
    loses(REWRITES, &[Guard::ListingLives], OLD_PROOF);
}

#[test]
fn forget() {
    loses(DELETION, &[Guard::Forget], REFUTED);
}

#[test]
fn choose() {
    holds("asked again instead", Protocol { guards: Guards::without(&[Guard::Choose]), ..ANSWERS });
    loses(DELETION, &[Guard::Choose, Guard::IsOnThePlan], REFUTED);
}

#[test]
fn is_on_the_plan_is_asked_again() {
    loses(DELETION, &[Guard::IsOnThePlan], REFUTED);
}

#[test]
fn record_scan_continues_only_what_it_read() {
    loses(AUDITS, &[Guard::RecordScan], REFUTED);
}

#[test]
fn verify() {
    loses(REWRITES, &[Guard::Verify], UNPLANNED);
}

#[test]
fn next_chunk() {
    loses(REWRITES, &[Guard::NextChunk], UNPLANNED);
}

#[test]
fn newest_age() {
    loses(BACKFILL, &[Guard::NewestAge], PROMISED);
}

#[test]
fn first_seen_age() {
    loses(MATURING, &[Guard::FirstSeenAge], PROMISED);
}

#[test]
fn min_sightings() {
    let protocol = Protocol { budget: Budget { uploads: 0, jumps: 1, ..JUMPING.budget }, scans_of_tick: 1, ..BACKFILL };
    holds("scheduled backfill", protocol);
    loses(protocol, &[Guard::MinSightings], PROMISED);
}

#[test]
fn min_sighting_span() {
    loses(BACKFILL, &[Guard::MinSightingSpan], PROMISED);
}

#[test]
fn longest_counted_gap() {
    loses(JUMPING, &[Guard::LongestCountedGap], PROMISED);
}

#[test]
fn live_drop() {
    loses(Protocol { judges_sightings: false, ..FAULTS }, &[Guard::LiveDrop], LIVE);
}

#[test]
fn database_identity() {
    loses(Protocol { judges_sightings: false, ..FAULTS }, &[Guard::DatabaseIdentity], LIVE);
}

#[test]
fn check_anchor() {
    let protocol = Protocol { begins_planned: true, begins_live: false, ..FAULTS };
    loses(protocol, &[Guard::CheckAnchor], LIVE);
}

#[test]
fn open_transaction() {
    loses(MATURING, &[Guard::OpenTransaction], PROMISED);
}

#[test]
fn intend() {
    loses(DELETION, &[Guard::Intend], NO_INTENT);
}

#[test]
fn held() {
    // Every reply comes, so that nothing is asked for a second time.
    let answered = Protocol { budget: Budget { lost_replies: 0, crashes: 0, ..RESTORE.budget }, ..RESTORE };
    holds("held when planned", Protocol { guards: Guards::without(&[Guard::HeldAgain]), ..answered });
    loses(answered, &[Guard::Held, Guard::HeldAgain], RESTORED);
}

#[test]
fn held_is_asked_again() {
    loses(RESTORE, &[Guard::HeldAgain], RESTORED);
}
