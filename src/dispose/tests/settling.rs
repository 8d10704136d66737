//! After the requests: what each intent ends as.

use super::bench::*;
use crate::dispose::SkipReason;
use crate::model::{Object, ObjectKey};
use crate::s3::KeyReply;

fn object(written_at: i64) -> Object {
    Object {
        key: ObjectKey::new("k"),
        size_bytes: 10,
        etag: format!("\"{written_at}\""),
        last_modified: Some(at(written_at)),
    }
}

#[test]
fn an_intent_ends_by_what_is_there_and_by_what_was_replied() {
    let outcome = |reply: Option<&str>, found: Option<&Object>| {
        let ended = crate::dispose::settle::outcome_of(object(0), reply, found, "left");
        ended.map(|(_, outcome, reason)| (outcome.as_str(), reason))
    };
    let (same, other) = (object(0), object(5));
    for reply in ["deleted", "already_gone"] {
        assert_eq!(outcome(Some(reply), None), None, "as it was noted");
        assert_eq!(outcome(Some(reply), Some(&other)), None, "written again since");
        assert_eq!(outcome(Some(reply), Some(&same)), Some(("failed", "still_listed".into())));
    }
    for reply in [None, Some("failed"), Some("unconfirmed")] {
        assert_eq!(outcome(reply, None), Some(("deleted", "absent_when_verified".into())), "{reply:?}");
    }
    assert_eq!(outcome(None, Some(&same)), Some(("skipped", "left".into())));
    for reply in ["failed", "unconfirmed"] {
        assert_eq!(outcome(Some(reply), Some(&same)), None, "it may still be in flight");
    }
}

#[tokio::test]
async fn a_ghost_is_told_from_a_failure() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b"]).await;
    let ghost = format!("{}b", prefix(0, 1));
    {
        let mut world = bench.world();
        world.replies.push_back(Reply::Keys(KeyReply::Deleted));
        let of_ghost = ghost.clone();
        world.after(|asked| matches!(asked, Asked::Delete(_)), move |world| _ = world.ghosts.insert(of_ghost));
    }
    assert!(bench.dispose(&[candidate]).await.is_none());
    let outcomes = bench.outcomes().await;
    assert_eq!((outcomes[0].1.as_str(), outcomes[0].2.as_str()), ("failed", "still_listed"));
    assert_eq!((outcomes[1].1.as_str(), outcomes[1].2.as_str()), ("already_gone", "ghost"));
    let looked = bench.world().count(|asked| matches!(asked, Asked::Looked(_)));
    assert_eq!((looked, bench.disposals(1).await), (2, vec!["remains".to_owned()]));
}

#[tokio::test]
async fn a_group_of_which_only_ghosts_are_left_is_refused() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a"]).await;
    let ghost = format!("{}a", prefix(0, 1));
    bench.world().replies.push_back(Reply::Keys(KeyReply::Deleted));
    bench.world().after(|asked| matches!(asked, Asked::Delete(_)), move |world| _ = world.ghosts.insert(ghost));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.disposals(1).await, ["refused"]);
}

#[tokio::test]
async fn a_store_that_lies_about_very_many_keys_is_not_asked_about_each() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b", "c"]).await;
    bench.world().replies.push_back(Reply::Keys(KeyReply::Deleted));
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    disposal.looked_at.store(9_999, std::sync::atomic::Ordering::Relaxed);
    assert!(disposal.run(&[candidate]).await.is_none());
    assert_eq!(bench.world().count(|asked| matches!(asked, Asked::Looked(_))), 1);
}

#[tokio::test]
async fn what_a_run_that_died_asked_for_is_settled_by_the_next() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &["a", "b", "c", "d"]).await;
    let planned = candidate.planned[0].clone();
    let key = |name: &str| format!("{}{name}", prefix(0, 1));
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let named: Vec<Object> = ["a", "c"].iter().map(|name| bench.world().objects[&key(name)].clone()).collect();
    let intent = disposal.intent(id(1), &planned.prefix, 1);
    disposal.write_intent(&intent, &named).await.expect("written");
    bench.world().objects.remove(&key("a"));
    disposal.keep(&[(planned, SkipReason::LiveAgain)]).await;
    let outcomes: Vec<(String, String)> =
        bench.outcomes().await.into_iter().map(|(_, outcome, reason)| (outcome, reason)).collect();
    let told = |outcome: &str, reason: &str| (outcome.to_owned(), reason.to_owned());
    let live = "live_again";
    assert_eq!(
        outcomes,
        [told("deleted", "absent_when_verified"), told("skipped", live), told("skipped", live), told("skipped", live)]
    );
    assert_eq!(bench.over(), [prefix(0, 1)]);
}

#[tokio::test]
async fn a_group_is_gone_only_when_nothing_of_it_is_listed() {
    for (key, is_gone) in [("0", false), ("z", false), ("", true)] {
        let bench = Bench::new().await;
        let candidate = bench.plant(1, &[0], &["a", "b"]).await;
        if !is_gone {
            // Somebody writes where no intent is, before the group is listed for the last time.
            let written = format!("{}{key}", prefix(0, 1));
            bench.world().after(|asked| matches!(asked, Asked::Delete(_)), move |world| world.put_at(&written, 500));
        }
        assert!(bench.dispose(&[candidate]).await.is_none());
        let expected = if is_gone { "gone" } else { "remains" };
        assert_eq!(bench.disposals(1).await, [expected], "{key:?}");
        assert_eq!(bench.all_ended().await, (2, "deleted".into(), String::new()));
    }
}
