//! The objects of purged datasets: everything under every pattern of an id goes, unless its row is back.

use std::collections::HashSet;

use futures::FutureExt as _;

use super::bench::*;
use crate::dispose::purge::Cleared;
use crate::dispose::{Disposal, Halt, SkipReason};
use crate::list::references::References;
use crate::model::{DatasetId, ObjectKey};
use crate::s3::{KeyReply, StoreFault};

/// A bench with these keys under both patterns of ids 1 and up, none of them planned.
async fn with_objects(ids: u128, keys: &[&str]) -> Bench {
    let bench = Bench::new().await;
    for n in 1..=ids {
        for pattern in [0, 1] {
            keys.iter().for_each(|key| bench.world().put(&format!("{}{key}", prefix(pattern, n))));
        }
    }
    bench
}

async fn clear(bench: &Bench, ids: &[u128]) -> (Vec<(DatasetId, Cleared)>, Option<Halt>) {
    let progress = |_| {};
    let ids: Vec<DatasetId> = ids.iter().map(|n| id(*n)).collect();
    let (mut cleared, halt) = bench.disposal(&progress).clear(&ids, at(0)).await;
    cleared.sort_unstable_by_key(|(id, _)| *id);
    (cleared, halt)
}

fn lists(bench: &Bench) -> usize {
    bench.world().count(|asked| matches!(asked, Asked::List(_)))
}

#[tokio::test]
async fn an_id_is_cleared_under_every_pattern_after_a_recheck_of_each() {
    let bench = with_objects(3, &["a", "b"]).await;
    let (cleared, halt) = clear(&bench, &[1, 2]).await;
    assert!(halt.is_none());
    assert_eq!(cleared, [(id(1), Cleared::Whole), (id(2), Cleared::Whole)]);
    assert!(bench.world().objects.keys().all(|key| key.starts_with(&prefix(0, 3)) || key.starts_with(&prefix(1, 3))));
    assert_eq!((bench.deletes(), bench.rechecks(), bench.world().objects.len()), (4, 4, 4));
    assert_eq!(bench.all_ended().await, (8, "deleted".into(), String::new()));
    assert_eq!(bench.disposals(1).await, ["gone", "gone"]);
}

#[tokio::test]
async fn what_is_left_under_one_pattern_leaves_its_id_and_no_other() {
    let bench = with_objects(1, &["a"]).await;
    bench.world().put(&format!("{}a", prefix(0, 2)));
    let refused = Reply::Keys(KeyReply::Refused("AccessDenied".into()));
    bench.world().replies.extend([refused, Reply::Plain]);
    let (cleared, halt) = clear(&bench, &[1]).await;
    assert!(halt.is_none());
    assert_eq!(cleared, [(id(1), Cleared::Partly)]);
    assert_eq!(bench.disposals(1).await, ["remains", "gone"]);
    assert_eq!(clear(&bench, &[2]).await.0, [(id(2), Cleared::Whole)]);
}

#[tokio::test]
async fn a_row_that_is_back_keeps_everything() {
    let keys: Vec<String> = (0..1500).map(|n| format!("{n:04}")).collect();
    let bench = Bench::new().await;
    keys.iter().for_each(|key| bench.world().put(&format!("{}{key}", prefix(0, 1))));
    bench.world().live.insert(id(1));
    let (cleared, halt) = clear(&bench, &[1]).await;
    assert!(halt.is_none());
    assert_eq!(cleared, [(id(1), Cleared::Partly)]);
    assert_eq!((bench.deletes(), bench.world().objects.len()), (0, 1500));
    assert_eq!(bench.disposals(1).await[0], word(SkipReason::LiveAgain));
}

#[tokio::test]
async fn a_row_that_is_back_keeps_everything_to_a_process_that_goes_on_though_it_is_gone_again() {
    let bench = with_objects(2, &["a"]).await;
    super::purged::purge(&bench, &[1, 2], 5, anchor().identity).await;
    bench.world().live.insert(id(1));
    let progress = |_| {};
    let disposal = || Disposal::new(&bench.scope, plan(), run(5), anchor(), bench.tools(&progress));
    // The process dies with the answer.
    assert_eq!(disposal().clear(&[id(1)], at(0)).await.0, [(id(1), Cleared::Partly)]);
    assert_eq!(bench.ledger.live_again(run(5)).await.expect("readable"), HashSet::from([id(1)]));
    bench.world().live.clear();
    let live_again = bench.ledger.live_again(run(5)).await.expect("readable");
    let (mut cleared, halt) = disposal().without(live_again).clear(&[id(1), id(2)], at(0)).await;
    cleared.sort_unstable_by_key(|(id, _)| *id);
    assert!(halt.is_none());
    assert_eq!(cleared, [(id(1), Cleared::Partly), (id(2), Cleared::Whole)]);
    assert!(bench.world().objects.keys().all(|key| key.starts_with(&prefix(0, 1)) || key.starts_with(&prefix(1, 1))));
    assert_eq!(bench.world().objects.len(), 2);
    assert_eq!(bench.disposals(1).await, [word(SkipReason::LiveAgain), word(SkipReason::LiveAgain)]);
}

#[tokio::test]
async fn what_is_written_long_after_the_row_went_stays_and_is_told() {
    for (after_s, is_kept) in [(3600, false), (3601, true)] {
        let bench = with_objects(1, &["a"]).await;
        bench.world().put_at(&format!("{}b", prefix(0, 1)), after_s);
        let (cleared, halt) = clear(&bench, &[1]).await;
        assert!(halt.is_none());
        assert_eq!(cleared, [(id(1), if is_kept { Cleared::Partly } else { Cleared::Whole })], "{after_s}");
        assert_eq!(bench.world().objects.len(), usize::from(is_kept), "{after_s}");
        let outcomes = bench.outcomes().await;
        let kept = outcomes
            .iter()
            .filter(|(_, outcome, why)| (outcome.as_str(), why) == ("skipped", &word(SkipReason::ChangedSincePlan)));
        assert_eq!((outcomes.len(), kept.count()), (3, usize::from(is_kept)), "{after_s}");
    }
    // An object that does not say when it was written may be new.
    let bench = with_objects(1, &["a"]).await;
    bench.world().objects.values_mut().for_each(|object| object.last_modified = None);
    assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Partly)]);
    assert_eq!(bench.deletes(), 0);
}

#[tokio::test]
async fn a_key_that_was_written_anew_between_two_processes_keeps_the_copy_of_what_went_first() {
    let mut bench = with_objects(1, &["a"]).await;
    bench.is_aside = true;
    assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Whole)]);
    let key = format!("{}a", prefix(0, 1));
    let copy = bench.world().objects[&format!("{QUARANTINE}{key}")].clone();
    bench.world().put_at(&key, 500);
    assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Partly)]);
    assert_eq!(bench.world().objects[&format!("{QUARANTINE}{key}")], copy);
    assert_eq!(bench.all_ended().await, (2, "deleted".into(), String::new()), "what went first is told as it was");
    assert!(bench.world().objects.contains_key(&key));
}

#[tokio::test]
async fn a_key_that_was_written_anew_before_the_first_outcome_is_unconfirmed_to_whoever_goes_on() {
    let mut bench = with_objects(1, &["a"]).await;
    bench.is_aside = true;
    let key = format!("{}a", prefix(0, 1));
    crate::failpoint::kill_at("after_send", 1);
    let killed = std::panic::AssertUnwindSafe(clear(&bench, &[1])).catch_unwind().await;
    assert!(killed.is_err());
    crate::failpoint::leave();
    assert!(!bench.world().objects.contains_key(&key), "its request was carried out");
    let copy = bench.world().objects[&format!("{QUARANTINE}{key}")].clone();
    bench.world().put_at(&key, 500);
    bench.is_begun = true;
    // The second one ends before it comes to it.
    bench.stop.cancel();
    assert!(matches!(clear(&bench, &[1]).await.1, Some(Halt::Interrupted)));
    bench.stop = tokio_util::sync::CancellationToken::new();
    for process in [3, 4] {
        assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Partly)], "{process}");
        assert_eq!(bench.world().objects[&format!("{QUARANTINE}{key}")], copy, "{process}");
        let told = bench.outcomes().await.into_iter().find(|(told, ..)| *told == key).expect("told");
        assert_eq!((told.1.as_str(), told.2.as_str()), ("unconfirmed", "written_anew"), "{process}");
        assert!(bench.world().objects.contains_key(&key), "{process}");
    }
}

#[tokio::test]
async fn a_copy_that_an_earlier_process_proved_is_not_made_again() {
    let denied = || Reply::Fails(StoreFault::Denied("AccessDenied".into()));
    let mut bench = with_objects(1, &["a", "b"]).await;
    (bench.is_aside, bench.is_begun) = (true, true);
    bench.world().replies.extend([denied(), denied()]);
    clear(&bench, &[1]).await;
    let copies = |bench: &Bench| bench.world().count(|asked| matches!(asked, Asked::Copy(_)));
    assert_eq!(copies(&bench), 4);
    // One object goes after it was looked at, and one copy is lost.
    let [gone, lost] = ["a", "b"].map(|key| format!("{}{key}", prefix(0, 1)));
    bench.world().objects.remove(&format!("{QUARANTINE}{lost}"));
    let is_read = {
        let gone = gone.clone();
        move |asked: &Asked| *asked == Asked::Head(gone.clone())
    };
    let vanishes = gone.clone();
    bench.world().after(is_read, move |world| _ = world.objects.remove(&vanishes));
    assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Whole)]);
    assert_eq!(copies(&bench), 5, "the one that was lost");
    for key in [gone, lost] {
        assert!(!bench.ledger.is_copy_doubted(run(2), &ObjectKey::new(key)).await.expect("read"));
    }
}

#[tokio::test]
async fn a_proven_copy_of_another_object_is_never_overwritten() {
    let mut bench = with_objects(1, &["a"]).await;
    (bench.is_aside, bench.is_begun) = (true, true);
    let key = format!("{}a", prefix(0, 1));
    let copy = format!("{QUARANTINE}{key}");
    bench.world().put(&copy);
    bench.world().objects.get_mut(&copy).expect("put").size_bytes = 7;
    assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Partly)]);
    assert!(bench.world().objects.contains_key(&key));
    assert_eq!(bench.world().objects[&copy].size_bytes, 7);
    let told = bench.outcomes().await.into_iter().find(|(told, ..)| *told == key).expect("told");
    assert!(told.1 == "failed" && told.2.starts_with("quarantine_failed"), "{told:?}");
}

#[tokio::test]
async fn a_store_that_does_not_show_the_copy_of_an_earlier_process_keeps_the_object() {
    let key = format!("{}a", prefix(0, 1));
    let copy = format!("{QUARANTINE}{key}");
    // At the look whether there is one, and when it is compared.
    for looks in [1, 2] {
        for is_stopped in [false, true] {
            let denied = || Reply::Fails(StoreFault::Denied("AccessDenied".into()));
            let mut bench = with_objects(1, &["a"]).await;
            (bench.is_aside, bench.is_begun) = (true, true);
            bench.world().replies.extend([denied(), denied()]);
            clear(&bench, &[1]).await;
            let fault =
                if is_stopped { StoreFault::NoReply("cut".into()) } else { StoreFault::Denied("AccessDenied".into()) };
            let stop = bench.stop.clone();
            let blind = move |world: &mut World| {
                world.blind.push_back(fault);
                world.after(
                    |asked| matches!(asked, Asked::Head(_)),
                    move |_| {
                        if is_stopped {
                            stop.cancel();
                        }
                    },
                );
            };
            let (source, aside) = (key.clone(), copy.clone());
            bench.world().after(
                move |asked| *asked == Asked::Head(source.clone()),
                move |world| {
                    if looks == 1 {
                        blind(world);
                    } else {
                        world.after(move |asked| *asked == Asked::Head(aside.clone()), blind);
                    }
                },
            );
            let (cleared, halt) = clear(&bench, &[1]).await;
            assert_eq!(
                (cleared, matches!(halt, Some(Halt::Interrupted))),
                (vec![(id(1), Cleared::Partly)], is_stopped)
            );
            let told = bench.outcomes().await.into_iter().find(|(told, ..)| *told == key).expect("told");
            let expected = if is_stopped { ("skipped", "run_ended") } else { ("failed", "quarantine_failed") };
            assert!(told.1 == expected.0 && told.2.starts_with(expected.1), "{looks} {is_stopped}: {told:?}");
            assert!(bench.world().objects.contains_key(&key));
            let is_doubted = bench.ledger.is_copy_doubted(run(2), &ObjectKey::new(key.as_str())).await.expect("read");
            assert!(!is_doubted, "{looks} {is_stopped}: it was proven");
        }
    }
}

#[tokio::test]
async fn a_hold_in_another_scope_of_the_same_rows_keeps_its_dataset() {
    for place in [SCOPE, "other", "elsewhere"] {
        let bench = with_objects(1, &["a"]).await;
        let other = crate::config::Scope { name: "other".into(), ..bench.scope.clone() };
        bench.ledger.place_hold(place, id(1), None, "ada", "mine", at(20)).await.expect("held");
        let progress = |_| {};
        let disposal = bench.disposal(&progress).beside([(&other, &bench.player as &dyn References)]);
        let is_kept = place != "elsewhere";
        let expected = if is_kept { Cleared::Partly } else { Cleared::Whole };
        assert_eq!(disposal.clear(&[id(1)], at(0)).await.0, [(id(1), expected)], "{place}");
        assert_eq!(bench.world().objects.len(), if is_kept { 2 } else { 0 }, "{place}");
    }
}

#[tokio::test]
async fn what_is_proven_of_a_batch_stays_proven_though_another_object_of_it_changed() {
    let mut bench = with_objects(1, &["a", "b"]).await;
    bench.is_aside = true;
    let is_copied = |asked: &Asked| matches!(asked, Asked::Copy(key) if key.ends_with("/a"));
    let other = format!("{}b", prefix(0, 1));
    bench.world().after(is_copied, move |world| world.put_at(&other, 500));
    clear(&bench, &[1]).await;
    let is_doubted = async |key: &str| {
        let key = ObjectKey::new(format!("{}{key}", prefix(0, 1)));
        bench.ledger.is_copy_doubted(run(2), &key).await.expect("read")
    };
    assert_eq!((is_doubted("a").await, is_doubted("b").await), (false, true));
}

#[tokio::test]
async fn a_row_that_a_plan_sees_again_keeps_its_dataset_from_a_purge_that_waits() {
    let bench = Bench::new().await;
    super::purged::purge(&bench, &[1], 5, anchor().identity).await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    bench.world().live.insert(id(1));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.ledger.live_again(run(5)).await.expect("readable"), HashSet::from([id(1)]));
}

#[tokio::test]
async fn a_copy_that_an_earlier_process_proved_is_not_doubted_because_its_object_is_gone() {
    for is_written in [false, true] {
        let mut bench = with_objects(1, &["a"]).await;
        bench.is_aside = true;
        // Its request was sent, and carried out after the process died.
        bench.world().replies.push_back(Reply::Fails(StoreFault::Denied("AccessDenied".into())));
        assert_eq!(clear(&bench, &[1]).await.0, [(id(1), Cleared::Partly)]);
        let key = format!("{}a", prefix(0, 1));
        let is_listed = {
            let under = prefix(0, 1);
            move |asked: &Asked| *asked == Asked::List(under.clone())
        };
        let gone = key.clone();
        bench.world().after(is_listed, move |world| {
            world.objects.remove(&gone);
            if is_written {
                world.put_at(&gone, 500);
            }
        });
        clear(&bench, &[1]).await;
        let is_doubted = bench.ledger.is_copy_doubted(run(2), &ObjectKey::new(key)).await.expect("read");
        assert!(!is_doubted, "{is_written}");
    }
}

#[tokio::test]
async fn a_stop_lists_nothing_that_could_go() {
    let bench = with_objects(1, &["a"]).await;
    bench.stop.cancel();
    let (cleared, halt) = clear(&bench, &[1]).await;
    assert!(matches!(halt, Some(Halt::Interrupted)));
    assert_eq!(cleared, [(id(1), Cleared::Partly)]);
    assert_eq!((bench.deletes(), bench.rechecks(), lists(&bench)), (0, 0, 2), "one look at what is left of each group");
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_leaves_the_id_and_a_journal_that_cannot_be_read_ends_it() {
    let bench = with_objects(1, &["a"]).await;
    bench.world().unlisted.push_back(StoreFault::Denied("AccessDenied".into()));
    let (cleared, halt) = clear(&bench, &[1]).await;
    assert!(halt.is_none());
    assert_eq!(cleared, [(id(1), Cleared::Partly)]);
    assert_eq!(bench.disposals(1).await, ["unread", "gone"]);

    let bench = Bench::new().await;
    bench.ledger.close().await;
    let (cleared, halt) = clear(&bench, &[1]).await;
    assert!(matches!(halt, Some(Halt::Record(_))));
    assert_eq!(cleared, [(id(1), Cleared::Partly)]);
}
