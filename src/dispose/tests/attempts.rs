//! One batch: its attempts, each with a re-check of its own, and what ends them.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;

use super::bench::*;
use crate::clock::Stopwatch;
use crate::dispose::batch::{Batch, BatchTask, Guard, is_stale};
use crate::dispose::group::Ended;
use crate::dispose::{Disposal, Halt, SkipReason};
use crate::model::{Object, ObjectKey, RunId};
use crate::s3::{KeyReply, StoreFault, retry};

/// Sends one batch of `keys` under `prefix`, listed just now.
pub async fn send(
    disposal: &Disposal<'_>,
    first_run: Option<RunId>,
    left: &Mutex<Option<Ended>>,
    prefix: &str,
    keys: &[&str],
) -> Result<(), SkipReason> {
    let task = BatchTask { id: id(1), first_run, prefix, listed: Stopwatch::start(), left, guard: Guard::NoRow };
    disposal.delete_batch(&task, batch(prefix, keys)).await
}

fn batch(prefix: &str, keys: &[&str]) -> Batch {
    let object = |key: &&str| Object {
        key: ObjectKey::new(format!("{prefix}{key}")),
        size_bytes: 10,
        etag: "\"0\"".into(),
        last_modified: Some(at(0)),
    };
    Batch { objects: keys.iter().map(object).collect(), singly: false }
}

/// Disposes of one group of two objects whose delete requests get these replies.
async fn with_replies(replies: Vec<Reply>) -> Bench {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    bench.world().replies.extend(replies);
    assert!(bench.dispose(&[candidate]).await.is_none());
    bench
}

fn throttled() -> StoreFault {
    StoreFault::Throttled("SlowDown".into())
}

#[tokio::test]
async fn each_attempt_has_a_recheck_of_its_own() {
    let again = Reply::Keys(KeyReply::TryAgain("SlowDown".into()));
    let bench = with_replies(vec![Reply::Fails(throttled()), again, Reply::Plain]).await;
    assert_eq!((bench.deletes(), bench.rechecks()), (3, 3));
    assert_eq!(bench.all_ended().await, (2, "deleted".into(), String::new()));
    assert_eq!(*bench.done.lock(), 2, "they are counted once");
}

#[tokio::test]
async fn attempts_that_bring_nothing_forward_come_to_an_end() {
    let most = retry::MAX_ATTEMPTS as usize;
    let bench = with_replies(vec![Reply::Fails(throttled()); 20]).await;
    assert_eq!((bench.deletes(), bench.rechecks()), (most, most));
    let (count, outcome, reason) = bench.all_ended().await;
    assert_eq!((count, outcome.as_str()), (2, "failed"), "one that it throttled was not begun: {reason}");
    assert_eq!(bench.disposals(1).await, ["remains"]);
}

#[tokio::test]
async fn a_request_that_may_be_in_flight_is_unconfirmed_when_no_attempt_settles_it() {
    for fault in [
        StoreFault::NoReply("cut".into()),
        StoreFault::ServerFault("InternalError".into()),
        StoreFault::Malformed("no closing tag".into()),
    ] {
        // The first may be in flight, whatever the later ones say.
        let mut replies = vec![Reply::Fails(fault.clone())];
        replies.extend(vec![Reply::Fails(throttled()); 20]);
        let bench = with_replies(replies).await;
        let (count, outcome, _) = bench.all_ended().await;
        assert_eq!((count, outcome.as_str()), (2, "unconfirmed"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_reply_that_was_lost_is_found_out_by_the_listing() {
    let most = retry::MAX_ATTEMPTS as usize;
    let mut replies = vec![Reply::Lost];
    replies.extend(vec![Reply::Fails(StoreFault::NoReply("cut".into())); most - 1]);
    let bench = with_replies(replies).await;
    assert_eq!(bench.all_ended().await, (2, "deleted".into(), "absent_when_verified".into()));
}

#[tokio::test]
async fn only_what_is_tried_again_is_counted_as_that() {
    for (replies, counted) in [
        (vec![Reply::Plain], None),
        (
            vec![Reply::Fails(StoreFault::ServerFault("InternalError".into())), Reply::Plain],
            Some("{operation=\"DeleteObjects\",fault=\"server_fault\"} 1"),
        ),
        (
            vec![Reply::Keys(KeyReply::TryAgain("SlowDown".into())), Reply::Plain],
            Some("{operation=\"DeleteObjects\",fault=\"throttled\"} 1"),
        ),
    ] {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _recording = ::metrics::set_default_local_recorder(&recorder);
        with_replies(replies).await;
        let told = recorder.handle().render();
        let lines: Vec<&str> =
            told.lines().filter_map(|line| line.strip_prefix("orphan_sweeper_request_retries_total")).collect();
        assert_eq!(lines, Vec::from_iter(counted));
    }
}

#[tokio::test]
async fn a_request_that_the_store_refuses_is_not_tried_again() {
    let bench = with_replies(vec![Reply::Fails(StoreFault::Denied("AccessDenied".into()))]).await;
    assert_eq!(bench.deletes(), 1);
    let (count, outcome, reason) = bench.all_ended().await;
    assert_eq!((count, outcome.as_str()), (2, "failed"));
    assert!(reason.contains("AccessDenied"), "{reason}");
}

#[tokio::test]
async fn each_reply_has_its_outcome() {
    for (reply, outcome, reason) in [
        // What is listed all the same is not gone.
        (KeyReply::AlreadyGone, "failed", "still_listed"),
        (KeyReply::Refused("AccessDenied".into()), "failed", "AccessDenied"),
        (KeyReply::Locked, "skipped", "object_lock"),
        (KeyReply::Unmentioned, "failed", "not_in_reply"),
        (KeyReply::Deleted, "failed", "still_listed"),
    ] {
        let bench = with_replies(vec![Reply::Keys(reply.clone())]).await;
        assert_eq!(bench.all_ended().await, (2, outcome.into(), reason.into()), "{reply:?}");
        assert_eq!(bench.deletes(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn locked_objects_leave_a_group_refused() {
    let bench = with_replies(vec![Reply::Keys(KeyReply::Locked)]).await;
    assert_eq!(bench.disposals(1).await, ["refused"]);
}

#[tokio::test]
async fn a_row_that_comes_between_two_attempts_stops_the_second() {
    for (first, outcome) in [(throttled(), "skipped"), (StoreFault::NoReply("cut".into()), "unconfirmed")] {
        let bench = Bench::new().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        bench.world().replies.push_back(Reply::Fails(first));
        let is_deleted = |asked: &Asked| matches!(asked, Asked::Delete(_));
        bench.world().after(is_deleted, |world| _ = world.live.insert(id(1)));
        assert!(bench.dispose(&[candidate]).await.is_none());
        assert_eq!((bench.deletes(), bench.rechecks()), (1, 2), "{outcome}");
        assert_eq!(bench.all_ended().await, (2, outcome.into(), word(SkipReason::LiveAgain)));
        assert_eq!(bench.world().objects.len(), 2);
    }
}

#[tokio::test]
async fn a_stop_between_two_attempts_leaves_the_keys_for_another_run() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    bench.world().replies.push_back(Reply::Fails(throttled()));
    let stop = bench.stop.clone();
    bench.world().after(|asked| matches!(asked, Asked::Delete(_)), move |_| stop.cancel());
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)));
    assert_eq!((bench.deletes(), bench.all_ended().await), (1, (2, "skipped".into(), word(SkipReason::RunEnded))));
}

#[tokio::test]
async fn keys_that_spoil_a_batch_are_asked_for_one_by_one() {
    let malformed = StoreFault::Refused("MalformedXML".into());
    let bench = with_replies(vec![Reply::Fails(malformed.clone())]).await;
    let asked: Vec<Asked> = bench.world().asked.clone();
    let singly = |key: &str| asked.contains(&Asked::One(format!("{}{key}", prefix(0, 1))));
    assert!(singly("a") && singly("b"));
    assert_eq!(
        (bench.deletes(), bench.rechecks()),
        (3, 2),
        "one re-check for the batch, and one for the single requests"
    );
    assert_eq!(bench.all_ended().await.1, "deleted");
    // Should the store find fault with a single one too, that is its answer.
    let bench =
        with_replies(vec![Reply::Fails(malformed.clone()), Reply::Fails(malformed.clone()), Reply::Plain]).await;
    let outcomes: Vec<String> = bench.outcomes().await.into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!((outcomes, bench.deletes()), (vec!["failed".to_owned(), "deleted".to_owned()], 3));
}

#[tokio::test]
async fn keys_that_xml_cannot_carry_need_a_request_each() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b\r", "c\u{1}"]).await;
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert!(bench.world().objects.is_empty());
    let together = Asked::Delete(vec![format!("{}a", prefix(0, 1))]);
    let singly = |key: &str| Asked::One(format!("{}{key}", prefix(0, 1)));
    let asked = bench.world().asked.clone();
    assert!([together, singly("b\r"), singly("c\u{1}")].iter().all(|request| asked.contains(request)), "{asked:?}");
}

#[tokio::test]
async fn a_single_request_that_was_throttled_is_tried_again_and_one_in_flight_is_remembered() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a\r", "b\r"]).await;
    bench.world().replies.push_back(Reply::Fails(throttled()));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.rechecks()), (3, 2), "only the first is asked for again");
    assert_eq!(bench.all_ended().await, (2, "deleted".into(), String::new()));

    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a\r"]).await;
    bench.world().replies.push_back(Reply::Fails(StoreFault::NoReply("cut".into())));
    bench.world().replies.extend(vec![Reply::Fails(throttled()); 20]);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.all_ended().await.1, "unconfirmed");

    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a\r"]).await;
    bench.world().replies.push_back(Reply::Fails(StoreFault::Denied("AccessDenied".into())));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (1, "failed"));
}

#[tokio::test]
async fn attempts_that_bring_something_forward_are_not_counted() {
    let most = retry::MAX_ATTEMPTS as usize;
    let bench = Bench::new().await;
    let keys: Vec<String> = (0..=most).map(|n| format!("{n}\r")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let candidate = bench.plant(1, &[0], &keys).await;
    // Of each attempt only the first key goes.
    for left in (0..=most).rev() {
        bench.world().replies.push_back(Reply::Plain);
        bench.world().replies.extend(vec![Reply::Fails(throttled()); left]);
    }
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.all_ended().await, (most + 1, "deleted".into(), String::new()));
    assert_eq!(bench.rechecks(), most + 1);
}

#[tokio::test]
async fn a_group_that_was_given_up_sends_nothing_more() {
    let bench = Bench::new().await;
    bench.plant(1, &[0], &["a"]).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let left = Mutex::new(Some(Ended::Skipped(SkipReason::Held)));
    let sent = send(&disposal, Some(run(1)), &left, &prefix(0, 1), &["a"]).await;
    assert_eq!((sent, bench.deletes(), bench.rechecks()), (Err(SkipReason::Held), 0, 0));
    // The end of its listing, and a fault in it, are no word against what was listed before.
    for ended in [Ended::Done, Ended::Unread] {
        let left = Mutex::new(Some(ended));
        bench.world().put(&format!("{}a", prefix(0, 1)));
        assert_eq!(send(&disposal, Some(run(1)), &left, &prefix(0, 1), &["a"]).await, Ok(()));
    }
    assert_eq!(bench.deletes(), 2);
}

#[tokio::test]
async fn a_group_that_is_given_up_while_the_primary_is_asked_sends_nothing() {
    let bench = Bench::new().await;
    bench.plant(1, &[0], &["a"]).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let stop = bench.stop.clone();
    bench.world().after(|asked| matches!(asked, Asked::Recheck(_)), move |_| stop.cancel());
    let sent = send(&disposal, Some(run(1)), &Mutex::new(None), &prefix(0, 1), &["a"]).await;
    assert_eq!((sent, bench.deletes()), (Err(SkipReason::RunEnded), 0));
}

#[test]
fn a_listing_lives_for_a_minute() {
    assert!(!is_stale(Stopwatch::start()));
    assert!(!is_stale(Stopwatch::started_before(Duration::from_secs(50))));
    assert!(is_stale(Stopwatch::started_before(Duration::from_secs(60))));
}

#[tokio::test]
async fn a_listing_that_is_too_old_is_no_ground_for_a_request_of_a_plan() {
    for (first_run, deletes) in [(Some(run(1)), 0), (None, 1)] {
        let bench = Bench::new().await;
        bench.plant(1, &[0], &["a"]).await;
        let progress = |_| {};
        let disposal = bench.disposal(&progress);
        let (listed, left, prefix) =
            (Stopwatch::started_before(Duration::from_secs(61)), Mutex::new(None), prefix(0, 1));
        let task = BatchTask { id: id(1), first_run, prefix: &prefix, listed, left: &left, guard: Guard::NoRow };
        assert_eq!(disposal.delete_batch(&task, batch(&prefix, &["a"])).await, Ok(()));
        assert_eq!(bench.deletes(), deletes, "copies in quarantine are written by nobody else");
        let outcome = if first_run.is_some() { "failed" } else { "deleted" };
        assert_eq!(bench.all_ended().await.1, outcome);
    }
}

#[tokio::test]
async fn a_listing_that_grows_old_between_two_attempts_ends_them() {
    let bench = Bench::new().await;
    bench.plant(1, &[0], &["a"]).await;
    bench.world().replies.push_back(Reply::Fails(throttled()));
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let (listed, left, prefix) = (Stopwatch::started_before(Duration::from_secs(61)), Mutex::new(None), prefix(0, 1));
    let task = BatchTask { id: id(1), first_run: None, prefix: &prefix, listed, left: &left, guard: Guard::NoRow };
    assert_eq!(disposal.delete_batch(&task, batch(&prefix, &["a"])).await, Ok(()));
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (1, "failed"));
}

#[tokio::test]
async fn what_was_looked_at_again_after_its_copies_were_proven_is_no_old_listing() {
    let mut bench = Bench::new().await;
    bench.is_aside = true;
    bench.plant(1, &[0], &["a"]).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let (listed, left, prefix) = (Stopwatch::started_before(Duration::from_secs(61)), Mutex::new(None), prefix(0, 1));
    let task =
        BatchTask { id: id(1), first_run: Some(run(1)), prefix: &prefix, listed, left: &left, guard: Guard::NoRow };
    assert_eq!(disposal.delete_batch(&task, batch(&prefix, &["a"])).await, Ok(()));
    assert_eq!((bench.deletes(), bench.all_ended().await.1.as_str()), (1, "deleted"));
}

/// Whether two requests may be in flight at the same time.
async fn may_two_be_in_flight(disposal: &Disposal<'_>) -> bool {
    let _first = disposal.limiter.acquire().await;
    let second = std::pin::pin!(disposal.limiter.acquire());
    futures::poll!(second).is_ready()
}

#[tokio::test]
async fn a_good_answer_lets_more_be_in_flight_and_a_key_that_is_to_wait_lets_fewer() {
    let bench = Bench::new().await;
    bench.plant(1, &[0], &["a"]).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let (left, prefix) = (Mutex::new(None), prefix(0, 1));
    let again = Reply::Keys(KeyReply::TryAgain("SlowDown".into()));
    assert!(!may_two_be_in_flight(&disposal).await);
    for (reply, may_two) in
        [(Reply::Plain, true), (again, false), (Reply::Plain, true), (Reply::Fails(throttled()), false)]
    {
        bench.world().replies = vec![reply; retry::MAX_ATTEMPTS as usize].into();
        assert_eq!(send(&disposal, Some(run(1)), &left, &prefix, &["a"]).await, Ok(()));
        bench.world().replies.clear();
        assert_eq!(may_two_be_in_flight(&disposal).await, may_two);
    }
}
