//! Plans in steps, and what the ledger forgets.

use super::*;
use crate::record::{DeletionTotals, KeyOutcome, Part, PartOf, StepTotals};

fn of(by: u128, n: u128, prefix: &'static str) -> Intent<'static> {
    Intent { id: id(n), prefix, ..intent(1, by) }
}

/// Asks for keys of a group, and settles each as told.
async fn settle(book: &Book, intent: &Intent<'_>, outcomes: &[(&str, KeyOutcome)]) {
    let keys: Vec<&str> = outcomes.iter().map(|(key, _)| *key).collect();
    book.intend(intent, &objects(&keys)).await.expect("intended");
    let outcomes: Vec<_> =
        outcomes.iter().map(|(key, outcome)| (ObjectKey::new(*key), *outcome, String::new())).collect();
    book.settle(SCOPE, intent.run, &outcomes).await.expect("settled");
}

async fn close(book: &Book, intent: &Intent<'_>, outcome: &str, part: Option<u64>) {
    book.note_disposal(intent, outcome, at(1)).await.expect("noted");
    if let Some(part) = part {
        book.mark_over(intent.plan, part, &[intent.prefix]).await.expect("marked");
    }
}

/// The chain must tell what the rows say.
async fn assert_verifies(book: &Book) {
    let report = book.verify_chain(&[]).await.expect("readable");
    assert!(report.is_ok(), "{report:?}");
}

fn part_of(by: u128, part: u64) -> PartOf<'static> {
    PartOf { scope: SCOPE, plan: hash(1), run: run(by), part }
}

/// What a part tells, read as the run reads it.
async fn told(book: &Book, of: &PartOf<'_>) -> (Vec<String>, DeletionTotals) {
    let rows = book.part_rows(of, None).await.expect("readable");
    let mut totals = DeletionTotals::default();
    rows.iter().for_each(|row| totals.add(&row.outcome, 1, row.bytes));
    (rows.into_iter().map(|row| row.key).collect(), totals)
}

#[tokio::test]
async fn a_part_compacts_what_is_over_and_keeps_what_is_needed() {
    let book = book!();
    book.issue(1).await;
    let (gone, kept, torn) = (of(10, 1, "p/a/"), of(10, 2, "p/b/"), of(10, 3, "p/c/"));
    settle(&book, &gone, &[("p/a/1", KeyOutcome::Deleted), ("p/a/2", KeyOutcome::AlreadyGone)]).await;
    close(&book, &gone, "gone", Some(1)).await;
    // A group that was left in the middle: what was sent must still be merged with its listing.
    settle(&book, &kept, &[("p/b/1", KeyOutcome::Deleted)]).await;
    book.skip(&kept, &objects(&["p/b/2", "p/b/3"]), "live_again").await.expect("noted");
    close(&book, &kept, "live_again", Some(1)).await;
    // One that is said to be gone, with a key that nobody knows of.
    settle(
        &book,
        &torn,
        &[("p/c/1", KeyOutcome::Deleted), ("p/c/2", KeyOutcome::Unconfirmed), ("p/c/3", KeyOutcome::Failed)],
    )
    .await;
    close(&book, &torn, "gone", Some(1)).await;
    // Others are over with another part, or not over.
    for (group, part) in [(of(10, 4, "p/d/"), Some(2)), (of(10, 5, "p/e/"), None)] {
        settle(&book, &group, &[(if part.is_some() { "p/d/1" } else { "p/e/1" }, KeyOutcome::Deleted)]).await;
        close(&book, &group, "gone", part).await;
    }
    let (keys, totals) = told(&book, &part_of(10, 1)).await;
    assert_eq!(keys, ["p/a/1", "p/a/2", "p/b/2", "p/b/3", "p/c/1"]);
    assert_eq!((totals.requested, totals.deleted, totals.already_gone, totals.skipped, totals.bytes), (5, 2, 1, 2, 10));
    book.compact(&part_of(10, 1), Part { place: 1, number: 1, totals }).await.expect("compacted");
    assert_eq!(book.keys().await, ["p/b/1", "p/c/2", "p/c/3", "p/d/1", "p/e/1"]);
    assert_eq!(book.parts_of(&run(10).to_string()).await.expect("readable"), [Part { place: 1, number: 1, totals }]);
    assert_verifies(&book).await;
    let all = book.told_of_plan(hash(1), run(10)).await.expect("readable");
    assert_eq!((all.requested, all.deleted, all.failed, all.unconfirmed), (10, 5, 1, 1), "the parts and the journal");
    assert_eq!(book.next_part(hash(1)).await.expect("readable"), 2);
}

#[tokio::test]
async fn nothing_is_compacted_where_the_part_did_not_tell_it_all() {
    let book = book!();
    book.issue(1).await;
    let gone = of(10, 1, "p/a/");
    settle(&book, &gone, &[("p/a/1", KeyOutcome::Deleted), ("p/a/2", KeyOutcome::Deleted)]).await;
    close(&book, &gone, "gone", Some(1)).await;
    let (_, totals) = told(&book, &part_of(10, 1)).await;
    for wrong in [
        DeletionTotals::default(),
        DeletionTotals { requested: 1, deleted: 1, bytes: totals.bytes, ..totals },
        DeletionTotals { bytes: totals.bytes + 1, ..totals },
        DeletionTotals { deleted: 1, already_gone: 1, ..totals },
    ] {
        let part = Part { place: 1, number: 1, totals: wrong };
        assert!(matches!(book.compact(&part_of(10, 1), part).await, Err(RecordError::Unreadable(_))));
    }
    assert_eq!(book.keys().await.len(), 2);
    assert_eq!(book.count("deletion_parts").await, 0);
}

#[tokio::test]
async fn what_a_run_has_not_told_yet_is_compacted_by_no_other() {
    let book = book!();
    book.issue(1).await;
    for n in [10, 11] {
        book.begin(n).await;
    }
    // The first lost its lease in the middle of a part, and wakes up when the second works on the same group.
    settle(&book, &of(10, 1, "p/a/"), &[("p/a/1", KeyOutcome::Deleted)]).await;
    close(&book, &of(10, 1, "p/a/"), "gone", Some(1)).await;
    let (_, totals) = told(&book, &part_of(10, 1)).await;
    settle(&book, &of(11, 1, "p/a/"), &[("p/a/2", KeyOutcome::Deleted)]).await;
    book.compact(&part_of(10, 1), Part { place: 1, number: 1, totals }).await.expect("compacted");
    assert_eq!(book.keys().await, ["p/a/2"]);
    assert_eq!(book.told_of_plan(hash(1), run(11)).await.expect("readable").deleted, 1);
    assert_verifies(&book).await;
}

#[tokio::test]
async fn what_an_earlier_run_has_told_is_compacted_and_not_told_again() {
    let book = book!();
    book.issue(1).await;
    book.begin(10).await;
    book.end(10).await;
    settle(&book, &of(10, 1, "p/a/"), &[("p/a/1", KeyOutcome::Deleted)]).await;
    settle(&book, &of(11, 1, "p/a/"), &[("p/a/2", KeyOutcome::Deleted)]).await;
    close(&book, &of(11, 1, "p/a/"), "gone", Some(1)).await;
    let (keys, totals) = told(&book, &part_of(11, 1)).await;
    assert_eq!(keys, ["p/a/2"]);
    book.compact(&part_of(11, 1), Part { place: 1, number: 1, totals }).await.expect("compacted");
    assert!(book.keys().await.is_empty());
}

#[tokio::test]
async fn a_dead_run_s_parts_and_marks_go_to_the_next_run() {
    let book = book!();
    book.issue(1).await;
    for n in [10, 11] {
        book.begin(n).await;
    }
    book.begin_step(hash(1), run(10), at(1), &[], &[]).await.expect("begun");
    for (n, prefix, key, part) in [(1, "p/a/", "p/a/1", 1), (2, "p/b/", "p/b/1", 2)] {
        settle(&book, &of(10, n, prefix), &[(key, KeyOutcome::Deleted)]).await;
        close(&book, &of(10, n, prefix), "gone", Some(part)).await;
    }
    let (_, totals) = told(&book, &part_of(10, 1)).await;
    let part = Part { place: 1, number: 1, totals };
    book.compact(&part_of(10, 1), part).await.expect("compacted");
    book.note_step(hash(1), run(10), &StepTotals { deleted: 2, skipped: 7, ..StepTotals::default() })
        .await
        .expect("noted");
    let dead = run(10).to_string();
    assert_eq!(book.runs_of_plan(hash(1)).await.expect("readable"), std::slice::from_ref(&dead));
    let gone = book.gone_ids(hash(1)).await.expect("readable");
    assert_eq!((gone[&id(1)], gone[&id(2)]), ((1, false), (1, true)), "the second waits to be told");

    book.begin_step(hash(1), run(11), at(2), std::slice::from_ref(&dead), &[(part, 4)]).await.expect("begun");
    book.start_plan(hash(1), run(11), &[dead]).await.expect("started");
    assert_eq!(book.parts_of(&run(11).to_string()).await.expect("readable"), [Part { number: 4, ..part }]);
    assert!(book.parts_of(&run(10).to_string()).await.expect("readable").is_empty());
    let all = book.told_of_plan(hash(1), run(11)).await.expect("readable");
    assert_eq!((all.requested, all.deleted), (2, 2), "its part and its journal");
    assert!(book.part_rows(&part_of(11, 2), None).await.expect("readable").is_empty(), "the mark was the dead run's");
    book.mark_over(hash(1), 2, &["p/b/"]).await.expect("marked");
    assert_eq!(told(&book, &part_of(11, 2)).await.0, ["p/b/1"]);
    let steps = book.steps(hash(1)).await.expect("readable").expect("begun");
    assert_eq!((steps.runs, steps.first_started_at, steps.totals), (2, at(1), StepTotals::default()));
    assert_verifies(&book).await;
}

#[tokio::test]
async fn the_steps_of_a_plan_add_up_what_is_done_and_tell_the_rest_as_it_stands() {
    let book = book!();
    book.issue(1).await;
    assert_eq!(book.steps(hash(1)).await.expect("readable"), None);
    let told = [
        StepTotals {
            deleted: 5,
            already_gone: 1,
            skipped: 3,
            failed: 2,
            unconfirmed: 1,
            bytes_freed: 50,
            bytes_marked: 0,
            bytes_aside: 3,
        },
        StepTotals {
            deleted: 4,
            already_gone: 0,
            skipped: 2,
            failed: 0,
            unconfirmed: 0,
            bytes_freed: 0,
            bytes_marked: 40,
            bytes_aside: 4,
        },
    ];
    // The second run's clock was set back.
    for (n, (told, started)) in (10..).zip(told.iter().zip([at(10), at(5)])) {
        book.begin(n).await;
        book.begin_step(hash(1), run(n), started, &[], &[]).await.expect("begun");
        book.note_step(hash(1), run(n), told).await.expect("noted");
    }
    let steps = book.steps(hash(1)).await.expect("readable").expect("begun");
    assert_eq!((steps.runs, steps.first_started_at), (2, at(10)));
    let totals = StepTotals {
        deleted: 9,
        already_gone: 1,
        skipped: 2,
        failed: 0,
        unconfirmed: 0,
        bytes_freed: 50,
        bytes_marked: 40,
        bytes_aside: 7,
    };
    assert_eq!(steps.totals, totals);
}

#[tokio::test]
async fn an_id_is_gone_when_all_its_groups_are() {
    let book = book!();
    book.issue(1).await;
    close(&book, &of(10, 1, "p/a/"), "gone", None).await;
    close(&book, &of(10, 1, "p/dataset-a/"), "gone", None).await;
    close(&book, &of(10, 2, "p/b/"), "gone", None).await;
    close(&book, &of(10, 2, "p/dataset-b/"), "live_again", None).await;
    close(&book, &of(10, 3, "p/c/"), "remains", None).await;
    let gone = book.gone_ids(hash(1)).await.expect("readable");
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), [(id(1), (2, true))]);
    assert!(book.gone_ids(hash(2)).await.expect("readable").is_empty());
}

#[tokio::test]
async fn runs_whose_reports_are_needed_are_known() {
    let book = book!();
    let needed = async |now| book.needed_runs(SCOPE, now).await.expect("readable");
    let names = |runs: &[u128]| runs.iter().map(|n| run(*n).to_string()).collect::<BTreeSet<_>>();
    for n in 1..=9 {
        book.begin(n).await;
    }
    // An open plan until it expires, at 100 s; one that is being applied for good, with its runs; none that is closed.
    for n in [1, 2, 3] {
        book.issue(n).await;
    }
    book.begin_step(hash(2), run(4), at(1), &[], &[]).await.expect("begun");
    book.start_plan(hash(2), run(4), &[]).await.expect("started");
    book.close_plan(hash(3)).await.expect("closed");
    assert_eq!(needed(at(99)).await, names(&[1, 2, 4]));
    assert_eq!(needed(at(100)).await, names(&[2, 4]));
    // One with keys in the journal, the baseline's, and one that tripped.
    book.intend(&Intent { plan: hash(3), ..intent(3, 5) }, &objects(&["p/a/1"])).await.expect("intended");
    book.record_lone_scan(SCOPE, run(6), &[], &good(1)).await.expect("recorded");
    book.latch(SCOPE, run(7), at(1), &[(Breaker::LiveDrop, String::new())], &observed(1)).await.expect("latched");
    assert_eq!(
        needed(at(100)).await,
        names(&[2, 4, 6, 7]),
        "what a closed plan asked for and nobody sees is done with"
    );
    book.intend(&Intent { plan: hash(2), ..intent(2, 5) }, &objects(&["p/a/1"])).await.expect("intended");
    assert_eq!(needed(at(100)).await, names(&[2, 4, 5, 6, 7]));
    assert!(book.needed_runs(OTHER, at(0)).await.expect("readable").is_empty());
}

#[tokio::test]
async fn an_old_run_keeps_its_line_and_loses_its_summary_and_its_plan() {
    let book = book!();
    for n in [1, 2] {
        book.begin(n).await;
        book.issue(u8::try_from(n).expect("small")).await;
        book.end(n).await;
    }
    let lifted = Allowances(BTreeMap::from([(Breaker::Objects, Allowance::Count(9))]));
    book.allow(hash(1), run(1), &lifted, at(1)).await.expect("recorded");
    book.begin_step(hash(1), run(1), at(1), &[], &[]).await.expect("begun");
    close(&book, &of(1, 1, "p/a/"), "gone", None).await;
    book.intend(&intent(2, 2), &objects(&["p/z/1"])).await.expect("intended");
    assert_eq!(book.runs_before(SCOPE, at(0)).await.expect("readable"), [""; 0]);
    let old = book.runs_before(SCOPE, at(1)).await.expect("readable");
    assert_eq!(old, [run(1).to_string(), run(2).to_string()]);
    // A summary and a plan with an allowance, a step and a group; of the second, whose keys are needed, the summary.
    assert_eq!(book.compact_runs(&old).await.expect("compacted"), 6);
    assert_eq!(book.compact_runs(&old).await.expect("compacted"), 0, "twice is once");
    assert_verifies(&book).await;
    assert!(book.chain_begins_at().await.expect("readable").is_some());
    let first = book.run(&old[0]).await.expect("readable").expect("known");
    assert_eq!((first.outcome.as_deref(), first.summary), (Some("complete"), None));
    assert!(book.plan(&hash(1).to_string()).await.expect("readable").is_none());
    assert!(book.plan(&hash(2).to_string()).await.expect("readable").is_some());
    for table in ["allowances", "plan_steps", "disposals"] {
        assert_eq!(book.count(table).await, 0, "{table}");
    }
}
