//! Quarantine: what goes has a proven copy, and was still the listed object when all of its batch had one.

use futures::FutureExt as _;

use super::bench::*;
use crate::dispose::{Halt, SkipReason};
use crate::model::ObjectKey;
use crate::s3::{Carried, StoreFault};

async fn with_quarantine() -> Bench {
    let mut bench = Bench::new().await;
    bench.is_aside = true;
    bench
}

fn copy_of(key: &str) -> String {
    format!("{QUARANTINE}{}{key}", prefix(0, 1))
}

#[tokio::test]
async fn an_object_goes_once_its_copy_is_proven() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    assert!(bench.dispose(&[candidate]).await.is_none());
    let world = bench.world();
    assert_eq!(world.objects.keys().cloned().collect::<Vec<_>>(), [copy_of("a"), copy_of("b")]);
    let position = |which: &dyn Fn(&Asked) -> bool| world.asked.iter().rposition(which).expect("asked");
    let proven = position(&|asked| matches!(asked, Asked::ReadBack(_)));
    let looked = position(&|asked| matches!(asked, Asked::Head(key) if key.starts_with("synthetic/")));
    let asked = position(&|asked| matches!(asked, Asked::Recheck(_)));
    let sent = position(&|asked| matches!(asked, Asked::Delete(_)));
    assert!(proven < looked && looked < asked && asked < sent, "{:?}", world.asked);
}

#[tokio::test]
async fn an_object_whose_copy_differs_stays_and_its_copy_is_doubted() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    bench.world().spoiled_copies = true;
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.deletes(), 0);
    assert_eq!(bench.all_ended().await.1, "failed");
    let key = ObjectKey::new(format!("{}a", prefix(0, 1)));
    assert!(bench.ledger.is_copy_doubted(run(2), &key).await.expect("read"));
}

#[tokio::test]
async fn a_copy_that_lost_its_metadata_is_none() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    let labelled = Carried { content_type: Some("x/y".into()), ..Carried::default() };
    bench.world().carried.insert(format!("{}a", prefix(0, 1)), labelled);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (0, "failed"));
}

#[tokio::test]
async fn a_copy_that_has_another_size_is_none() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    let is_copied = |asked: &Asked| matches!(asked, Asked::Copy(_));
    bench.world().after(is_copied, |world| world.objects.get_mut(&copy_of("a")).expect("copied").size_bytes = 9);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (0, "failed"));
}

#[tokio::test]
async fn a_copy_that_is_not_there_is_none() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    bench.world().after(|asked| matches!(asked, Asked::Copy(_)), |world| _ = world.objects.remove(&copy_of("a")));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (0, "failed"));
}

#[tokio::test]
async fn an_object_that_was_written_before_its_copy_is_made_keeps_the_batch() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    // The first object is copied, and the second is written before it is looked at.
    let is_first = |asked: &Asked| matches!(asked, Asked::Head(key) if key.ends_with("/a"));
    bench.world().after(is_first, |world| world.put_at(&format!("{}b", prefix(0, 1)), 500));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.deletes(), 0);
    assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::ChangedSincePlan)));
}

#[tokio::test]
async fn an_object_that_was_written_after_its_copy_was_proven_keeps_the_batch() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    let is_proven = |asked: &Asked| matches!(asked, Asked::ReadBack(key) if key.starts_with(QUARANTINE));
    bench.world().after(is_proven, |world| world.put_at(&format!("{}a", prefix(0, 1)), 500));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.deletes(), 0);
    assert_eq!(bench.all_ended().await, (1, "skipped".into(), word(SkipReason::ChangedSincePlan)));
}

#[tokio::test]
async fn an_object_that_vanished_meanwhile_is_already_gone_and_keeps_nobody() {
    for when in [0, 1] {
        let bench = with_quarantine().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        let gone = format!("{}b", prefix(0, 1));
        let is_due = move |asked: &Asked| match when {
            // Before the first look, and after the copy was proven.
            0 => matches!(asked, Asked::Head(key) if key.ends_with("/a")),
            _ => matches!(asked, Asked::ReadBack(key) if key.starts_with(QUARANTINE) && key.ends_with("/b")),
        };
        bench.world().after(is_due, move |world| _ = world.objects.remove(&gone));
        assert!(bench.dispose(&[candidate]).await.is_none());
        let outcomes: Vec<String> = bench.outcomes().await.into_iter().map(|(_, outcome, _)| outcome).collect();
        assert_eq!(outcomes, ["deleted", "already_gone"], "{when}");
        assert_eq!(bench.deletes(), 1);
    }
}

#[tokio::test]
async fn a_stop_while_copies_are_made_sends_nothing() {
    for when in ["Head", "Copy", "ReadBack"] {
        let bench = with_quarantine().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        let stop = bench.stop.clone();
        bench.world().after(move |asked| format!("{asked:?}").starts_with(when), move |_| stop.cancel());
        assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)), "{when}");
        assert_eq!((bench.deletes(), bench.rechecks()), (0, 0), "{when}");
        assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::RunEnded)), "{when}");
    }
}

#[tokio::test]
async fn a_stop_once_the_last_copy_is_proven_looks_at_nothing_again() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    let stop = bench.stop.clone();
    let is_proven = |asked: &Asked| matches!(asked, Asked::ReadBack(key) if key.starts_with(QUARANTINE));
    bench.world().after(is_proven, move |_| stop.cancel());
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)));
    let is_look = |asked: &Asked| matches!(asked, Asked::Head(key) if key.starts_with("synthetic/"));
    let looks = bench.world().count(is_look);
    assert_eq!((looks, bench.deletes()), (1, 0), "the look before it was copied");
}

#[tokio::test]
async fn a_key_that_would_grow_too_long_stays() {
    let room = 1024 - QUARANTINE.len() - prefix(0, 1).len();
    for (length, is_kept) in [(room, false), (room + 1, true)] {
        let bench = with_quarantine().await;
        let candidate = bench.plant(1, &[0], &[&"x".repeat(length)]).await;
        assert!(bench.dispose(&[candidate]).await.is_none());
        assert_eq!(bench.all_ended().await.1, if is_kept { "failed" } else { "deleted" }, "{length}");
    }
}

#[tokio::test]
async fn a_ghost_has_nothing_to_copy_and_is_not_asked_for() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    bench.world().ghosts.insert(format!("{}a", prefix(0, 1)));
    assert!(bench.dispose(&[candidate]).await.is_none());
    // It is listed, and nobody can read it: there is nothing that could be copied.
    assert_eq!(bench.deletes(), 0);
    assert_eq!(bench.all_ended().await.1, "already_gone");
}

/// Where a store fails while an object is put aside.
#[derive(Debug, Clone, Copy)]
enum Step {
    FirstLook,
    Copy,
    LastLook,
}

impl Step {
    /// Lets the store fail there, for the first object, as often as it is asked; the first time, `also` happens.
    fn fail(self, bench: &Bench, fault: &StoreFault, also: impl FnOnce() + Send + 'static) {
        let faults = vec![fault.clone(); 6];
        let is_look = |asked: &Asked| matches!(asked, Asked::Head(_));
        let mut world = bench.world();
        match self {
            Self::FirstLook => {
                world.blind.extend(faults);
                world.after(is_look, move |_| also());
            }
            Self::Copy => {
                world.uncopied.extend(faults);
                world.after(|asked| matches!(asked, Asked::Copy(_)), move |_| also());
            }
            Self::LastLook => {
                let is_proven = |asked: &Asked| matches!(asked, Asked::ReadBack(key) if key.starts_with(QUARANTINE) && key.ends_with("/b"));
                world.after(is_proven, move |world| {
                    world.blind.extend(faults);
                    world.after(is_look, move |_| also());
                });
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_keeps_the_object_and_no_other() {
    for step in [Step::FirstLook, Step::Copy, Step::LastLook] {
        let bench = with_quarantine().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        step.fail(&bench, &StoreFault::ServerFault("InternalError".into()), || {});
        assert!(bench.dispose(&[candidate]).await.is_none());
        let outcomes = bench.outcomes().await;
        assert_eq!((outcomes[0].1.as_str(), outcomes[1].1.as_str()), ("failed", "deleted"), "{step:?}");
        assert!(outcomes[0].2.starts_with("quarantine_failed"), "{outcomes:?}");
        assert!(bench.world().objects.contains_key(&format!("{}a", prefix(0, 1))));
    }
}

#[tokio::test]
async fn a_request_that_a_stop_cuts_short_is_no_failure_of_the_store() {
    for step in [Step::FirstLook, Step::Copy, Step::LastLook] {
        let bench = with_quarantine().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        let stop = bench.stop.clone();
        step.fail(&bench, &StoreFault::NoReply("cut".into()), move || stop.cancel());
        assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)), "{step:?}");
        assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::RunEnded)), "{step:?}");
        let key = ObjectKey::new(format!("{}a", prefix(0, 1)));
        let is_doubted = bench.ledger.is_copy_doubted(run(2), &key).await.expect("read");
        assert_eq!(
            is_doubted,
            matches!(step, Step::Copy),
            "{step:?}: a copy is none, proven, or nobody knows what it is"
        );
    }
}

#[tokio::test]
async fn a_copy_is_doubted_from_before_it_is_made_until_it_is_proven() {
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    assert!(bench.dispose(&[candidate]).await.is_none());
    for name in ["a", "b"] {
        let key = ObjectKey::new(format!("{}{name}", prefix(0, 1)));
        assert!(!bench.ledger.is_copy_doubted(run(2), &key).await.expect("read"), "it is proven");
    }
    let bench = with_quarantine().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    // The process dies between the copy and its proof.
    crate::failpoint::kill_at("after_copy", 1);
    let candidates = [candidate];
    let killed = std::panic::AssertUnwindSafe(bench.dispose(&candidates)).catch_unwind().await;
    assert!(killed.is_err());
    let key = ObjectKey::new(format!("{}a", prefix(0, 1)));
    assert!(bench.ledger.is_copy_doubted(run(2), &key).await.expect("read"), "nobody knows what it is");
}
