//! Decisions and holds, on either kind of ledger. This file is read once for each.

use super::*;
use crate::decide::approval::Ruling;
use crate::decide::holds::{Hold, HoldSource};
use crate::plan::PlanGroup;

fn group(n: u128) -> PlanGroup {
    PlanGroup {
        id: id(n),
        pattern: "p/{id}/".into(),
        prefix: format!("p/{}/", id(n)),
        objects: 1,
        bytes: 1,
        oldest: None,
        newest: None,
        digest: hash(9),
        first_seen: at(0),
        first_run: run(1),
        sightings: 3,
    }
}

/// A plan that names the ids 1 to 3.
fn reviewed(n: u128) -> DeletePlan {
    DeletePlan { groups: (1..=3).map(group).collect(), ..plan(n) }
}

async fn decide(book: &Book, (plan, plan_hash): (&DeletePlan, u8), ids: &[u128], ruling: Ruling) {
    let ids: Vec<DatasetId> = ids.iter().copied().map(id).collect();
    let decision =
        NewDecision { plan, hash: hash(plan_hash), ids: &ids, ruling, by: "ada", reason: "looked", at: at(5) };
    book.decide(&decision).await.expect("recorded");
}

async fn rejected(book: &Book) -> Vec<DatasetId> {
    let mut ids = book.rejected_ids(SCOPE).await.expect("readable");
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn decisions_come_back_in_order_by_plan_and_by_id() {
    let Some(book) = Book::open(KIND).await else { return };
    let (first, second) = (reviewed(1), reviewed(2));
    decide(&book, (&first, 1), &[], Ruling::Approved).await;
    decide(&book, (&first, 1), &[1, 2], Ruling::Rejected).await;
    decide(&book, (&second, 2), &[3], Ruling::Approved).await;
    let told = book.decisions_on(hash(1)).await.expect("readable");
    let shown: Vec<_> = told.iter().map(|decision| (decision.id, decision.ruling)).collect();
    assert_eq!(shown, [(None, Ruling::Approved), (Some(id(1)), Ruling::Rejected), (Some(id(2)), Ruling::Rejected)]);
    assert!(told.is_sorted_by_key(|decision| decision.number));
    assert_eq!((told[0].by.as_str(), told[0].reason.as_str(), told[0].at), ("ada", "looked", at(5)));
    for (n, ruling) in [(1, Some(Ruling::Rejected)), (3, Some(Ruling::Approved))] {
        assert_eq!(book.decision_on_id(hash(1), id(n)).await.expect("readable").ruling(id(n)), ruling);
    }
    assert_eq!(book.decision_on_id(hash(2), id(1)).await.expect("readable").ruling(id(1)), None);
    let newest = book.newest_decisions(Some(SCOPE), 2).await.expect("readable");
    assert_eq!(newest.iter().map(|decision| decision.id).collect::<Vec<_>>(), [Some(id(3)), Some(id(2))]);
    assert_eq!(book.newest_decisions(None, 10).await.expect("readable").len(), 4);
    assert!(book.newest_decisions(Some(OTHER), 10).await.expect("readable").is_empty());
}

#[tokio::test]
async fn what_was_rejected_by_itself_is_taken_back_only_by_itself() {
    let Some(book) = Book::open(KIND).await else { return };
    let plan = reviewed(1);
    decide(&book, (&plan, 1), &[], Ruling::Rejected).await;
    assert_eq!(rejected(&book).await, [id(1), id(2), id(3)]);
    decide(&book, (&plan, 1), &[2], Ruling::Rejected).await;
    decide(&book, (&plan, 1), &[], Ruling::Approved).await;
    assert_eq!(rejected(&book).await, [id(2)]);
    decide(&book, (&plan, 1), &[], Ruling::Rejected).await;
    decide(&book, (&plan, 1), &[], Ruling::Approved).await;
    assert_eq!(rejected(&book).await, [id(2)], "rejected with the plan again, and by itself before");
    assert!(book.is_rejected_id(SCOPE, id(2)).await.expect("readable"));
    decide(&book, (&plan, 1), &[2], Ruling::Approved).await;
    assert!(!book.is_rejected_id(SCOPE, id(2)).await.expect("readable"));
    assert!(!book.is_rejected_id(OTHER, id(1)).await.expect("readable"));
}

#[tokio::test]
async fn a_plan_of_many_ids_is_rejected_as_a_whole_or_not_at_all() {
    let Some(book) = Book::open(KIND).await else { return };
    let plan = DeletePlan { groups: (1..=1501).flat_map(|n| [group(n), group(n)]).collect(), ..plan(1) };
    decide(&book, (&plan, 1), &[], Ruling::Rejected).await;
    assert_eq!(rejected(&book).await.len(), 1501);
    decide(&book, (&plan, 1), &[], Ruling::Approved).await;
    assert!(rejected(&book).await.is_empty());
}

#[tokio::test]
async fn only_plans_that_can_be_applied_and_were_approved_are_swept() {
    let Some(book) = Book::open(KIND).await else { return };
    for n in 1..=4_u8 {
        let plan = reviewed(u128::from(n));
        book.issue_plan(&plan, hash(n), Path::new("p")).await.expect("issued");
        let ruling = if n == 2 { Ruling::Rejected } else { Ruling::Approved };
        decide(&book, (&plan, n), &[], ruling).await;
    }
    book.start_plan(hash(3), run(9), &[]).await.expect("started");
    book.start_plan(hash(4), run(9), &[]).await.expect("started");
    book.close_plan(hash(4)).await.expect("closed");
    let reviewed = book.reviewed_plans(SCOPE).await.expect("readable");
    assert_eq!(reviewed, [hash(1).to_string(), hash(3).to_string()]);
    let hashes = async |now| {
        let plans = book.applicable_plans(SCOPE, now).await.expect("readable");
        plans.into_iter().map(|row| row.hash).collect::<Vec<_>>()
    };
    assert_eq!(hashes(at(99)).await, [1, 2, 3].map(|n| hash(n).to_string()));
    assert_eq!(hashes(at(100)).await, [hash(3).to_string()], "past their time, but for what was begun");
}

#[tokio::test]
async fn a_hold_counts_until_it_is_removed_and_stays_on_record() {
    let Some(book) = Book::open(KIND).await else { return };
    book.place_hold(SCOPE, id(1), None, "ada", "x", at(1)).await.expect("placed");
    book.place_hold(SCOPE, id(1), Some(at(50)), "bob", "y", at(2)).await.expect("placed");
    book.place_hold(SCOPE, id(2), Some(at(50)), "bob", "z", at(3)).await.expect("placed");
    let all = book.holds(SCOPE, None).await.expect("readable");
    let endless =
        Hold { id: id(1), until: None, by: Some("ada".into()), reason: "x".into(), source: HoldSource::Ledger };
    assert_eq!((all.len(), &all[0]), (3, &endless));
    assert_eq!(all[1].until, Some(at(50)));
    assert!(book.holds(OTHER, None).await.expect("readable").is_empty());
    // One that has ended by itself needs no person.
    assert_eq!(book.remove_holds(SCOPE, id(2), None, None, at(50)).await.expect("removed"), 0);
    assert_eq!(book.remove_holds(SCOPE, id(1), Some("eve"), Some("done"), at(40)).await.expect("removed"), 2);
    assert_eq!(book.remove_holds(SCOPE, id(1), None, None, at(41)).await.expect("removed"), 0);
    assert!(book.holds(SCOPE, Some(id(1))).await.expect("readable").is_empty());
    let rows = book.hold_rows(SCOPE, Some(id(1))).await.expect("readable");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].placed_at, rows[0].removed_at, rows[0].removed_by.as_deref(), rows[0].removed_reason.as_deref()),
        (at(1), Some(at(40)), Some("eve"), Some("done"))
    );
}

#[tokio::test]
async fn an_edited_decision_or_hold_shows_in_the_chain() {
    let Some(book) = Book::open(KIND).await else { return };
    decide(&book, (&reviewed(1), 1), &[1], Ruling::Rejected).await;
    book.place_hold(SCOPE, id(1), Some(at(50)), "ada", "x", at(1)).await.expect("placed");
    book.remove_holds(SCOPE, id(1), None, None, at(4)).await.expect("removed");
    assert!(book.verify_chain(&[]).await.expect("readable").is_ok(), "untouched");
    for (edit, undo) in [
        ("UPDATE decisions SET decision = 'approved'", "UPDATE decisions SET decision = 'rejected'"),
        ("UPDATE holds SET removed_by = 'eve'", "UPDATE holds SET removed_by = NULL"),
        ("UPDATE holds SET reason = 'y'", "UPDATE holds SET reason = 'x'"),
    ] {
        book.execute(edit).await;
        assert!(book.verify_chain(&[]).await.expect("readable").is_err(), "{edit}");
        book.execute(undo).await;
        assert!(book.verify_chain(&[]).await.expect("readable").is_ok(), "{undo}");
    }
    book.execute("DELETE FROM decisions").await;
    assert!(book.verify_chain(&[]).await.expect("readable").is_err(), "removed");
}

#[tokio::test]
async fn what_was_deleted_since_a_run_is_told_by_the_summaries() {
    let Some(book) = Book::open(KIND).await else { return };
    let summaries = [
        "{\"deletion\":{\"deleted\":9,\"bytes_deleted\":1000,\"bytes_marked\":0}}",
        "{\"deletion\":{\"deleted\":9,\"bytes_deleted\":20,\"bytes_marked\":3}}",
        "{\"deletion\":null}",
        "{\"deletion\":{\"bytes_deleted\":0,\"bytes_marked\":5}}",
    ];
    for (n, summary) in (1..).zip(summaries) {
        book.begin(n).await;
        let end = RunEnd {
            finished_at: at(60),
            outcome: "complete",
            reason: None,
            exit_code: 0,
            plan_hash: None,
            orphan_bytes: None,
            summary: summary.to_owned(),
        };
        book.finish_run(run(n), &end).await.expect("ended");
    }
    for (since, bytes) in [(1, 1028), (2, 28), (3, 5), (4, 5)] {
        let deleted = book.bytes_deleted_since(SCOPE, &run(since).to_string()).await.expect("readable");
        assert_eq!(deleted, bytes, "since run {since}");
    }
    assert_eq!(book.bytes_deleted_since(OTHER, &run(1).to_string()).await.expect("readable"), 0);
}
