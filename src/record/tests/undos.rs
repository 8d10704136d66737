//! What can be undone, and what the reaper takes of it, on either kind of ledger. This file is read once for each.

use super::*;

fn undo(n: u128, began: i64) -> Undo {
    Undo {
        run: run(n),
        scope: SCOPE.into(),
        plan: hash(1),
        kind: UndoKind::Quarantine,
        bucket: "b".into(),
        prefix: format!("quarantine/{}/", run(n)),
        began_at: at(began),
        ended_at: None,
        keep: Some(std::time::Duration::from_secs(30 * 86_400)),
        is_kept: true,
    }
}

fn copy(key: &str) -> Object {
    Object { key: ObjectKey::new(key), size_bytes: 7, etag: "\"e\"".into(), last_modified: Some(at(3)) }
}

async fn runs_of(book: &Book, n: u128) -> Vec<RunId> {
    let undos = book.undos_of(&run(n).to_string()).await.expect("readable");
    undos.into_iter().map(|undo| undo.run).collect()
}

#[tokio::test]
async fn what_a_run_leaves_comes_back_as_it_was_noted() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    assert_eq!(book.undos_of(&run(1).to_string()).await.expect("readable"), [undo(1, 10)]);
    book.end_undo(run(1), at(60)).await.expect("noted");
    let ended = Undo { ended_at: Some(at(60)), ..undo(1, 10) };
    assert_eq!(book.kept_quarantines(SCOPE).await.expect("readable"), [ended]);
    assert!(book.kept_quarantines(OTHER).await.expect("readable").is_empty());
    let versions = Undo { kind: UndoKind::Versions, keep: None, ..undo(2, 20) };
    book.begin_undo(&versions).await.expect("noted");
    assert_eq!(book.kept_quarantines(SCOPE).await.expect("readable").len(), 1, "versions are not ours to reap");
    book.end_undo(run(9), at(60)).await.expect("a run that left nothing");
    let head = book.chain_head().await.expect("a head");
    book.begin_undo(&Undo { plan: hash(2), ..undo(1, 70) }).await.expect("what it leaves by another plan");
    assert_eq!(book.undos_of(&run(1).to_string()).await.expect("readable")[0].plan, hash(1), "a run leaves one thing");
    assert_eq!(book.chain_head().await.expect("a head"), head);
}

#[tokio::test]
async fn what_dead_runs_left_is_found_by_the_run_that_tells_it() {
    let book = book!();
    for n in 1..=4 {
        book.begin_undo(&undo(n, i64::try_from(n).expect("small"))).await.expect("noted");
    }
    book.take_over_undos(run(2), &[run(1).to_string(), run(2).to_string()]).await.expect("taken over");
    assert_eq!(runs_of(&book, 2).await, [run(2), run(1)]);
    // The second died as well.
    book.take_over_undos(run(3), &[run(2).to_string()]).await.expect("taken over");
    assert_eq!(runs_of(&book, 3).await, [run(3), run(2), run(1)]);
    assert_eq!(runs_of(&book, 4).await, [run(4)]);
    assert_eq!(runs_of(&book, 5).await, []);
}

#[tokio::test]
async fn a_copy_that_is_not_proven_is_remembered_until_its_quarantine_is_empty() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    let key = ObjectKey::new("synthetic/a\u{1}");
    assert!(!book.is_copy_doubted(run(1), &key).await.expect("readable"));
    let many: Vec<ObjectKey> = (0..250).map(|n| ObjectKey::new(format!("synthetic/b{n:03}"))).collect();
    let all: Vec<&ObjectKey> = std::iter::once(&key).chain(&many).collect();
    for _ in 0..2 {
        book.doubt_copies(run(1), &all).await.expect("noted");
    }
    book.doubt_copies(run(2), &[&many[0]]).await.expect("noted");
    book.trust_copies(run(1), &all[1..]).await.expect("noted");
    book.trust_copies(run(1), &[]).await.expect("nothing to note");
    assert_eq!(book.count("doubted_copies").await, 2, "the first, and that of another run");
    assert!(book.is_copy_doubted(run(1), &key).await.expect("readable"));
    assert!(!book.is_copy_doubted(run(2), &key).await.expect("readable"));
    book.compact_reapings().await.expect("compacted");
    assert!(book.is_copy_doubted(run(1), &key).await.expect("readable"));
    book.close_quarantine(run(1), run(2), at(90)).await.expect("closed");
    book.compact_reapings().await.expect("compacted");
    assert!(!book.is_copy_doubted(run(1), &key).await.expect("readable"));
    assert!(book.kept_quarantines(SCOPE).await.expect("readable").is_empty());
    assert!(!book.undos_of(&run(1).to_string()).await.expect("readable")[0].is_kept);
}

#[tokio::test]
async fn every_copy_that_was_asked_for_is_told_once() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    let copies: Vec<Object> = (0..250).map(|n| copy(&format!("quarantine/x/{n:03}"))).collect();
    book.intend_reaping(run(1), run(7), &copies).await.expect("intended");
    let read = book.reapings_to_verify(run(1), None).await.expect("readable");
    assert_eq!(read.iter().map(|(copy, _)| copy.clone()).collect::<Vec<_>>(), copies);
    assert!(read.iter().all(|(_, outcome)| outcome.is_none()));
    let settle = |range: std::ops::Range<usize>, outcome: KeyOutcome| {
        copies[range].iter().map(|copy| (copy.key.clone(), outcome, String::new())).collect::<Vec<_>>()
    };
    book.settle_reaping(run(1), run(7), &settle(0..100, KeyOutcome::Deleted)).await.expect("settled");
    book.settle_reaping(run(1), run(7), &settle(100..110, KeyOutcome::Failed)).await.expect("settled");
    book.settle_reaping(run(1), run(7), &settle(110..120, KeyOutcome::Skipped)).await.expect("settled");
    let totals = book.reaping_totals(run(7)).await.expect("readable");
    assert_eq!((totals.objects, totals.bytes, totals.failed), (100, 700, 140), "what is not settled may be there");
    // Another run settles the rest, and tells it.
    book.settle_reaping(run(1), run(8), &settle(120..250, KeyOutcome::Deleted)).await.expect("settled");
    assert_eq!(book.reaping_totals(run(7)).await.expect("readable").objects, 100);
    assert_eq!(book.reaping_totals(run(8)).await.expect("readable").objects, 130);
    // The first died without a report.
    book.take_over_reapings(&run(7).to_string(), run(8)).await.expect("taken over");
    assert_eq!(book.reaping_totals(run(8)).await.expect("readable").objects, 230);
    for by in [7, 8] {
        book.begin(by).await;
    }
    assert_eq!(book.unfinished_reapers(SCOPE).await.expect("readable"), [run(8).to_string()]);
    assert_eq!(book.reapings_to_verify(run(1), Some(&copies[119].key)).await.expect("readable").len(), 130);
    book.close_quarantine(run(1), run(8), at(90)).await.expect("closed");
    book.compact_reapings().await.expect("compacted");
    assert_eq!(book.count("reapings").await, 250, "it has not told them yet");
    book.end(7).await;
    book.end(8).await;
    book.compact_reapings().await.expect("compacted");
    assert_eq!(book.count("reapings").await, 0);
}

#[tokio::test]
async fn a_reaper_that_came_to_its_end_is_not_told_again_though_its_report_is_gone() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    for by in [7, 8] {
        book.begin(by).await;
        book.intend_reaping(run(1), run(by), &[copy(&format!("q/{by}"))]).await.expect("intended");
    }
    book.end(7).await;
    assert_eq!(book.unfinished_reapers(SCOPE).await.expect("readable"), [run(8).to_string()]);
    assert!(book.unfinished_reapers(OTHER).await.expect("readable").is_empty());
}

#[tokio::test]
async fn an_edit_of_what_can_be_undone_shows_in_the_chain() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    book.begin_undo(&undo(2, 20)).await.expect("noted");
    book.take_over_undos(run(2), &[run(1).to_string()]).await.expect("taken over");
    book.end_undo(run(2), at(60)).await.expect("ended");
    book.intend_reaping(run(1), run(3), &[copy("q/a")]).await.expect("intended");
    book.settle_reaping(run(1), run(3), &[(ObjectKey::new("q/a"), KeyOutcome::Deleted, String::new())])
        .await
        .expect("settled");
    book.close_quarantine(run(1), run(3), at(90)).await.expect("closed");
    book.compact_reapings().await.expect("compacted");
    book.note_undone("restored", run(4), &serde_json::json!({ "restored": 1 })).await.expect("noted");
    assert!(book.verify_chain(&[]).await.expect("readable").is_ok());
    book.execute("UPDATE undos SET state = 'kept'").await;
    let fault = book.verify_chain(&[]).await.expect("readable").expect_err("an edit");
    assert!(fault.to_string().contains("undo"), "{fault}");
}

#[tokio::test]
async fn a_copy_that_was_settled_may_be_asked_for_again() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    for (by, outcome) in [(7, KeyOutcome::Failed), (8, KeyOutcome::Deleted)] {
        book.intend_reaping(run(1), run(by), &[copy("q/a")]).await.expect("intended");
        book.settle_reaping(run(1), run(by), &[(ObjectKey::new("q/a"), outcome, "why".into())]).await.expect("settled");
    }
    assert_eq!(book.reaping_totals(run(7)).await.expect("readable").failed, 0);
    assert_eq!(book.reaping_totals(run(8)).await.expect("readable").objects, 1);
}

fn disposed(plan: u8, by: u128, n: u128, prefix: &'static str) -> Intent<'static> {
    Intent { scope: SCOPE, plan: hash(plan), run: run(by), id: id(n), prefix, batch: 0 }
}

#[tokio::test]
async fn the_groups_of_a_plan_come_once_whichever_of_its_runs_worked_on_them_last() {
    let book = book!();
    let (first, other) = (disposed(1, 1, 1, "p/a/"), disposed(2, 9, 3, "p/c/"));
    // A later step of the plan finished what the first had begun.
    for intent in [&first, &disposed(1, 2, 1, "p/a/"), &disposed(1, 2, 2, "p/b/"), &other] {
        book.note_disposal(intent, "gone", at(1)).await.expect("noted");
    }
    // A process died in the middle of this one.
    book.intend(&disposed(1, 1, 4, "p/d/"), &objects(&["p/d/1", "p/d/2"])).await.expect("intended");
    for n in [1, 2] {
        book.begin_undo(&undo(n, 10)).await.expect("noted");
    }
    // The second went on with another plan.
    book.begin_step(hash(3), run(2), at(1), &[], &[]).await.expect("begun");
    book.note_disposal(&disposed(3, 2, 5, "p/e/"), "gone", at(1)).await.expect("noted");
    let groups = async |scope: &str, runs: &[RunId]| {
        let groups = book.disposed_groups(scope, runs).await.expect("readable");
        groups.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(groups(SCOPE, &[run(1)]).await, [id(1), id(2), id(4)]);
    assert_eq!(groups(SCOPE, &[run(2), run(1)]).await, [id(1), id(2), id(4), id(5)]);
    assert!(groups(OTHER, &[run(1)]).await.is_empty() && groups(SCOPE, &[run(9)]).await.is_empty());
}

#[tokio::test]
async fn whose_copies_lie_in_quarantine_is_known_until_it_is_empty() {
    let book = book!();
    book.note_disposal(&disposed(1, 1, 1, "p/a/"), "gone", at(1)).await.expect("noted");
    book.note_disposal(&disposed(2, 1, 2, "p/b/"), "gone", at(1)).await.expect("noted");
    book.intend(&disposed(1, 1, 4, "p/d/"), &objects(&["p/d/1", "p/d/2"])).await.expect("intended");
    assert!(book.quarantined_ids(SCOPE).await.expect("readable").is_empty(), "nothing was copied");
    let marked = Undo { kind: UndoKind::Versions, plan: hash(2), ..undo(2, 20) };
    for undo in [undo(1, 10), marked] {
        book.begin_undo(&undo).await.expect("noted");
    }
    let quarantined = async |scope: &str| {
        let ids = book.quarantined_ids(scope).await.expect("readable");
        ids.into_iter().collect::<BTreeSet<_>>()
    };
    assert_eq!(quarantined(SCOPE).await, BTreeSet::from([id(1), id(4)]));
    // The same run went on with another plan.
    book.begin_step(hash(3), run(1), at(1), &[], &[]).await.expect("begun");
    book.note_disposal(&disposed(3, 1, 5, "p/e/"), "gone", at(1)).await.expect("noted");
    assert_eq!(quarantined(SCOPE).await, BTreeSet::from([id(1), id(4), id(5)]));
    assert!(quarantined(OTHER).await.is_empty());
    book.close_quarantine(run(1), run(2), at(90)).await.expect("closed");
    assert!(quarantined(SCOPE).await.is_empty());
}

#[tokio::test]
async fn an_id_whose_plan_was_given_up_stays_known_while_its_copies_may_lie_in_quarantine() {
    let book = book!();
    book.issue(1).await;
    // A process died in the middle of both; a look settled the second, and the plan was given up.
    for (n, prefix, key) in [(4, "p/d/", "p/d/1"), (5, "p/e/", "p/e/1")] {
        book.intend(&disposed(1, 1, n, prefix), &objects(&[key])).await.expect("intended");
    }
    book.note_disposal(&disposed(1, 1, 5, "p/e/"), "changed_since_plan", at(1)).await.expect("noted");
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    book.close_plan(hash(1)).await.expect("closed");
    // Neither is seen any more.
    book.begin(2).await;
    book.record_lone_scan(SCOPE, run(2), &[], &good(10)).await.expect("recorded");
    assert_eq!(book.keys().await, ["p/d/1"], "of the other, its disposal tells");
    let quarantined = book.quarantined_ids(SCOPE).await.expect("readable");
    assert_eq!(quarantined.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([id(4), id(5)]));
    book.close_quarantine(run(1), run(2), at(90)).await.expect("closed");
    book.begin(3).await;
    book.record_lone_scan(SCOPE, run(3), &[], &good(10)).await.expect("recorded");
    assert_eq!(book.keys().await, [""; 0]);
}

#[tokio::test]
async fn when_an_id_was_last_wanted_is_remembered_while_anything_lies_in_quarantine() {
    let book = book!();
    book.begin_undo(&undo(1, 10)).await.expect("noted");
    book.want(SCOPE, &[id(1), id(2), id(1)], at(5)).await.expect("noted");
    book.want(SCOPE, &[id(1)], at(9)).await.expect("noted");
    // A clock that was set back takes nothing away.
    book.want(SCOPE, &[id(1), id(2), id(3)], at(4)).await.expect("noted");
    book.want(SCOPE, &[], at(99)).await.expect("nobody");
    let wanted = async || book.wanted_ids(SCOPE).await.expect("readable").into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(wanted().await, BTreeMap::from([(id(1), at(9)), (id(2), at(5)), (id(3), at(4))]));
    assert!(book.wanted_ids(OTHER).await.expect("readable").is_empty());
    let many: Vec<DatasetId> = (1000..2200).map(id).collect();
    book.want(SCOPE, &many, at(7)).await.expect("noted");
    book.compact_reapings().await.expect("compacted");
    assert_eq!(wanted().await.len(), 1203);
    book.close_quarantine(run(1), run(2), at(90)).await.expect("closed");
    book.compact_reapings().await.expect("compacted");
    assert!(wanted().await.is_empty());
}

#[tokio::test]
async fn a_column_that_a_row_was_chained_without_is_an_edit_once_it_says_something() {
    let book = book!();
    book.begin_undo(&Undo { keep: None, ..undo(1, 10) }).await.expect("noted");
    // As a version before that column chained it.
    let older = "UPDATE chain SET payload = replace(payload, '\"keep_s\":null,', '') WHERE kind = 'undo.began'";
    book.execute(older).await;
    let mut transaction = book.begin_writing().await;
    super::super::chain::forge(&mut transaction, 2, "undo.began").await.expect("sealed anew");
    transaction.commit("forge").await.expect("committed");
    let without = "SELECT 1 FROM chain WHERE kind = 'undo.began' AND payload NOT LIKE '%keep_s%'";
    book.row(without).await;
    let verified = book.verify_chain(&[]).await.expect("readable");
    assert!(verified.is_ok(), "{verified:?}");
    book.execute("UPDATE undos SET keep_s = 1").await;
    let fault = book.verify_chain(&[]).await.expect("readable").expect_err("an edit");
    assert!(fault.to_string().contains("`keep_s` is 1, and was null"), "{fault}");
}
