//! The check at the end, which believes no report: what was in the bucket, what is, and what must be. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::world::{Fate, World};

/// What the bucket says of the clean-up.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Verification {
    /// Whether everything below is as it must be.
    pub(super) passed: bool,
    /// Keys that had to go.
    pub(super) expected: u64,
    /// Those of them that are gone.
    pub(super) gone: u64,
    /// Keys that the reports call deleted.
    pub(super) reported: u64,
    /// Keys that had to go and are there.
    pub(super) left: Vec<String>,
    /// Keys that had to stay and are gone.
    pub(super) lost: Vec<String>,
    /// Keys that appeared from nowhere.
    pub(super) unknown: Vec<String>,
    /// Keys of live datasets, all of which must be there.
    pub(super) live: u64,
    /// Keys that a delete request named and that had to stay.
    pub(super) wrongly_named: Vec<String>,
}

/// Compares the keys before and after the clean-up with what `world` says must become of them. `named` are the keys of
/// every delete request that the store received, and `reported` is how many the reports call deleted.
pub(super) fn verify(
    world: &World,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
    named: &BTreeSet<String>,
    reported: u64,
) -> Verification {
    let goes: Vec<&str> = world.prefixes(Fate::Goes).collect();
    let live: Vec<&str> = world.live.iter().map(String::as_str).chain(world.prefixes(Fate::Live)).collect();
    let lies_under = |key: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    let (must_go, must_stay): (Vec<&String>, Vec<&String>) = before.iter().partition(|key| lies_under(key, &goes));
    let absent = |keys: &[&String]| {
        keys.iter().filter(|key| !after.contains(**key)).map(|key| (*key).clone()).collect::<Vec<_>>()
    };
    let mut found = Verification {
        passed: false,
        expected: must_go.len() as u64,
        gone: absent(&must_go).len() as u64,
        reported,
        left: must_go.iter().filter(|key| after.contains(**key)).map(|key| (*key).clone()).collect(),
        lost: absent(&must_stay),
        unknown: after.difference(before).cloned().collect(),
        live: must_stay.iter().filter(|key| lies_under(key, &live) && after.contains(**key)).count() as u64,
        wrongly_named: named.iter().filter(|key| !lies_under(key, &goes)).cloned().collect(),
    };
    let problems = [&found.left, &found.lost, &found.unknown, &found.wrongly_named];
    let says_the_same = found.reported == found.gone;
    found.passed = found.expected > 0 && found.live > 0 && says_the_same && problems.iter().all(|keys| keys.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::world::BUCKET;
    use super::*;
    use crate::clock::ManualClock;
    use crate::embedded::MemoryStore;
    use crate::model::Timestamp;

    fn world() -> (World, BTreeSet<String>) {
        let start: Timestamp = "2026-03-01T03:00:00Z".parse().expect("a time");
        let store = MemoryStore::new(Arc::new(ManualClock::at(start)));
        let world = World::seed(&store, start);
        (world, store.keys(BUCKET).into_iter().collect())
    }

    fn without(before: &BTreeSet<String>, prefixes: &[&str]) -> BTreeSet<String> {
        before.iter().filter(|key| !prefixes.iter().any(|prefix| key.starts_with(prefix))).cloned().collect()
    }

    #[test]
    fn exactly_what_must_go_passes() {
        let (world, before) = world();
        let goes: Vec<&str> = world.prefixes(Fate::Goes).collect();
        let after = without(&before, &goes);
        let named: BTreeSet<String> = before.difference(&after).cloned().collect();
        let found = verify(&world, &before, &after, &named, named.len() as u64);
        assert!(found.passed, "{found:?}");
        assert_eq!(found.gone, found.expected);
    }

    #[test]
    fn one_key_too_many_too_few_or_named_in_vain_fails() {
        let (world, before) = world();
        let goes: Vec<&str> = world.prefixes(Fate::Goes).collect();
        let right = without(&before, &goes);
        let (none, gone) = (BTreeSet::new(), (before.len() - right.len()) as u64);
        let passes =
            |after: &BTreeSet<String>, named: &BTreeSet<String>| verify(&world, &before, after, named, gone).passed;
        assert!(passes(&right, &none));

        let mut lost = right.clone();
        lost.retain(|key| !key.starts_with(&world.live[0]));
        assert!(!passes(&lost, &none));
        assert!(!passes(&before, &none));
        let mut unknown = right.clone();
        unknown.insert("synthetic/new".to_owned());
        assert!(!passes(&unknown, &none));
        let live_key = right.iter().find(|key| key.starts_with(&world.live[0])).expect("a live key").clone();
        assert!(!passes(&right, &BTreeSet::from([live_key])));
        assert!(!verify(&world, &before, &right, &none, gone + 1).passed);
    }
}
