//! The reaper: which copies of a quarantine go, which wait, and what is said of them.

use std::collections::HashMap;

use super::bench::*;
use crate::decide::holds::{Hold, HoldSource, Holds};
use crate::dispose::Halt;
use crate::dispose::reap::{Emptied, Reaper, Rules};
use crate::model::{DatasetId, Timestamp};
use crate::record::{Undo, UndoKind};
use crate::s3::StoreFault;

/// Copies are due that were written by then.
const UNTIL: i64 = 500;

fn copy_of(n: u128, key: &str) -> String {
    format!("{QUARANTINE}{}{key}", prefix(0, n))
}

/// A bench with copies that are past their time: of an id each, a key.
async fn with_copies(copies: &[(u128, &str)]) -> Bench {
    let bench = Bench::new().await;
    copies.iter().for_each(|(n, key)| bench.world().put_at(&copy_of(*n, key), 100));
    bench
}

/// Empties the folder by run 2; gives what came of it, and why it ended early.
async fn reap(bench: &Bench, held: &Holds, wanted: &[u128]) -> (Emptied, Option<Halt>) {
    let wanted: HashMap<DatasetId, Timestamp> = wanted.iter().map(|n| (id(*n), at(1000))).collect();
    let rules = Rules { written_until: at(UNTIL), held, wanted: &wanted, as_of: at(1000) };
    let quarantine = Undo {
        run: run(1),
        scope: SCOPE.into(),
        plan: plan(),
        kind: UndoKind::Quarantine,
        bucket: "b".into(),
        prefix: QUARANTINE.into(),
        began_at: at(10),
        ended_at: None,
        keep: None,
        is_kept: true,
    };
    let progress = |_| {};
    let reaper = Reaper::new(&bench.scope, &quarantine, run(2), anchor(), (bench.tools(&progress), &bench.player));
    let emptied = reaper.empty(&rules).await.expect("listed");
    (emptied, reaper.halt())
}

/// What still lies in the quarantine.
fn left(bench: &Bench) -> Vec<String> {
    bench.world().objects.keys().filter(|key| key.starts_with(QUARANTINE)).cloned().collect()
}

async fn wanted_ids(bench: &Bench) -> HashMap<DatasetId, Timestamp> {
    bench.ledger.wanted_ids(SCOPE).await.expect("read")
}

#[tokio::test]
async fn copies_past_their_time_go_after_a_recheck_of_each_id() {
    let bench = with_copies(&[(1, "a"), (1, "b"), (2, "a")]).await;
    let (emptied, halt) = reap(&bench, &Holds::default(), &[]).await;
    assert!(halt.is_none());
    assert_eq!(emptied, Emptied { waiting: 0, is_empty: true, oldest_young: None });
    assert_eq!((left(&bench).len(), bench.deletes(), bench.rechecks()), (0, 2, 2));
    let totals = bench.ledger.reaping_totals(run(2)).await.expect("read");
    assert_eq!((totals.objects, totals.bytes, totals.failed), (3, 30, 0));
    assert!(wanted_ids(&bench).await.is_empty());
}

#[tokio::test]
async fn a_copy_goes_at_its_time_and_the_oldest_that_is_too_young_is_told() {
    let bench = with_copies(&[]).await;
    for (key, written_at) in [("a", UNTIL), ("b", 700), ("c", UNTIL + 1), ("d", 900)] {
        bench.world().put_at(&copy_of(1, key), written_at);
    }
    let (emptied, _) = reap(&bench, &Holds::default(), &[]).await;
    assert_eq!(emptied, Emptied { waiting: 0, is_empty: false, oldest_young: Some(at(UNTIL + 1)) });
    assert_eq!(left(&bench), ["b", "c", "d"].map(|key| copy_of(1, key)));
}

#[tokio::test]
async fn a_copy_without_a_time_is_too_young() {
    let bench = with_copies(&[(1, "a")]).await;
    bench.world().objects.get_mut(&copy_of(1, "a")).expect("put").last_modified = None;
    let (emptied, _) = reap(&bench, &Holds::default(), &[]).await;
    assert_eq!(emptied, Emptied { waiting: 0, is_empty: false, oldest_young: None });
    assert_eq!((bench.deletes(), bench.rechecks()), (0, 0));
}

#[tokio::test]
async fn what_no_pattern_reads_waits() {
    let bench = with_copies(&[(1, "a")]).await;
    let odd = ["other", "synthetic/a", "synthetic/dataset-/a"].map(|key| format!("{QUARANTINE}{key}"));
    odd.iter().for_each(|key| bench.world().put_at(key, 100));
    let (emptied, _) = reap(&bench, &Holds::default(), &[]).await;
    assert_eq!(emptied, Emptied { waiting: 3, is_empty: false, oldest_young: None });
    assert_eq!(left(&bench), odd);
}

#[tokio::test]
async fn a_copy_of_a_wanted_id_goes_only_beside_the_same_object() {
    let bench = with_copies(&[(1, "changed"), (1, "gone"), (1, "same"), (2, "gone")]).await;
    bench.world().put_at(&format!("{}same", prefix(0, 1)), 100);
    bench.world().put_at(&format!("{}changed", prefix(0, 1)), 200);
    let (emptied, halt) = reap(&bench, &Holds::default(), &[1, 2]).await;
    assert!(halt.is_none());
    assert_eq!(emptied, Emptied { waiting: 3, is_empty: false, oldest_young: None });
    assert_eq!(left(&bench), [copy_of(1, "changed"), copy_of(1, "gone"), copy_of(2, "gone")]);
    assert_eq!((bench.deletes(), bench.rechecks()), (1, 0), "its row is no question any more");
}

#[tokio::test]
async fn a_held_id_is_wanted() {
    let bench = with_copies(&[(1, "a"), (2, "a")]).await;
    let hold = Hold { id: id(1), until: None, by: None, reason: "mine".into(), source: HoldSource::File };
    let (emptied, _) = reap(&bench, &Holds::at(at(1000), [hold]), &[]).await;
    assert_eq!((emptied.waiting, left(&bench)), (1, vec![copy_of(1, "a")]));
}

#[tokio::test]
async fn an_id_that_has_a_row_again_is_noted_as_wanted_and_keeps_what_may_be_the_last() {
    let bench = with_copies(&[(1, "a"), (1, "b"), (2, "a")]).await;
    bench.world().put_at(&format!("{}b", prefix(0, 1)), 100);
    bench.world().live.insert(id(1));
    let (emptied, halt) = reap(&bench, &Holds::default(), &[]).await;
    assert!(halt.is_none());
    assert_eq!((emptied.waiting, left(&bench)), (1, vec![copy_of(1, "a")]));
    assert_eq!(wanted_ids(&bench).await, HashMap::from([(id(1), at(1000))]));
}

#[tokio::test]
async fn an_id_that_is_held_meanwhile_is_noted_as_wanted() {
    let bench = with_copies(&[(1, "a"), (2, "a")]).await;
    bench.ledger.place_hold(SCOPE, id(1), None, "ada", "mine", at(20)).await.expect("held");
    let (emptied, _) = reap(&bench, &Holds::default(), &[]).await;
    assert_eq!((emptied.waiting, left(&bench)), (1, vec![copy_of(1, "a")]));
    assert_eq!(wanted_ids(&bench).await, HashMap::from([(id(1), at(1000))]));
}

#[tokio::test]
async fn an_original_that_goes_after_it_was_seen_keeps_its_copy() {
    let bench = with_copies(&[(1, "a"), (1, "b")]).await;
    let originals = ["a", "b"].map(|key| format!("{}{key}", prefix(0, 1)));
    originals.iter().for_each(|key| bench.world().put_at(key, 100));
    let [_, last] = originals;
    let is_seen = {
        let last = last.clone();
        move |asked: &Asked| *asked == Asked::Head(last.clone())
    };
    bench.world().after(is_seen, move |world| _ = world.objects.remove(&last));
    let (emptied, halt) = reap(&bench, &Holds::default(), &[1]).await;
    assert!(halt.is_none() && !emptied.is_empty);
    assert_eq!((bench.deletes(), left(&bench).len()), (0, 2), "all that one request would name");
    assert_eq!(emptied.waiting, 2, "both wait");
    let looks = bench.world().count(|asked| matches!(asked, Asked::Head(_)));
    assert_eq!(looks, 4, "two before, and two right before the request");
}

#[tokio::test]
async fn an_original_that_cannot_be_looked_for_is_not_there() {
    let bench = with_copies(&[(1, "a"), (1, "b")]).await;
    ["a", "b"].iter().for_each(|key| bench.world().put_at(&format!("{}{key}", prefix(0, 1)), 100));
    bench.world().blind.push_back(StoreFault::Denied("AccessDenied".into()));
    let (emptied, halt) = reap(&bench, &Holds::default(), &[1]).await;
    assert!(halt.is_none());
    assert_eq!((emptied.waiting, left(&bench)), (1, vec![copy_of(1, "a")]));
}

#[tokio::test]
async fn a_stop_asks_for_no_other_id_and_is_told() {
    let bench = with_copies(&[(1, "a"), (2, "a")]).await;
    let stop = bench.stop.clone();
    bench.world().after(|asked| matches!(asked, Asked::Delete(_)), move |_| stop.cancel());
    let (emptied, halt) = reap(&bench, &Holds::default(), &[]).await;
    assert!(matches!(halt, Some(Halt::Interrupted)));
    assert_eq!((emptied.is_empty, left(&bench)), (false, vec![copy_of(2, "a")]));
    assert_eq!(bench.rechecks(), 1);
}

#[tokio::test]
async fn a_stop_while_a_row_is_asked_for_makes_nobody_wanted() {
    let bench = with_copies(&[(1, "a")]).await;
    let stop = bench.stop.clone();
    bench.world().after(|asked| matches!(asked, Asked::Recheck(_)), move |_| stop.cancel());
    let (emptied, halt) = reap(&bench, &Holds::default(), &[]).await;
    assert!(matches!(halt, Some(Halt::Interrupted)));
    assert_eq!((emptied.waiting, bench.deletes(), wanted_ids(&bench).await.len()), (0, 0, 0));
}

#[tokio::test]
async fn a_folder_of_more_than_one_page_is_emptied() {
    let keys: Vec<String> = (0..1500).map(|n| format!("{n:04}")).collect();
    let copies: Vec<(u128, &str)> = keys.iter().map(|key| (1, key.as_str())).collect();
    let bench = with_copies(&copies).await;
    let (emptied, halt) = reap(&bench, &Holds::default(), &[]).await;
    assert!(halt.is_none() && emptied.is_empty);
    assert_eq!((left(&bench).len(), bench.deletes(), bench.rechecks()), (0, 2, 2));
}
