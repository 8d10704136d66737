//! Messages that nobody took, and the figures that the metrics read; on either kind of ledger.

use super::*;

fn message(scope: &str, n: u128, error: &str) -> UndeliveredRow {
    UndeliveredRow {
        number: 0,
        scope: scope.into(),
        run_id: run(n).to_string(),
        channel: "heartbeat".into(),
        at: at(i64::try_from(n).expect("small")),
        error: error.into(),
    }
}

fn errors(rows: &[UndeliveredRow]) -> Vec<&str> {
    rows.iter().map(|row| row.error.as_str()).collect()
}

#[tokio::test]
async fn a_message_is_told_once_and_kept_for_the_history_until_it_is_old() {
    let book = book!();
    book.note_undelivered(&message(SCOPE, 1, "one"), None).await.expect("noted");
    book.note_undelivered(&message(OTHER, 2, "of another scope"), None).await.expect("noted");
    book.note_undelivered(&message(SCOPE, 3, "two"), None).await.expect("noted");
    book.note_undelivered(&message(SCOPE, 4, "told by its own report"), Some(run(4))).await.expect("noted");
    let untold = book.untold_messages(SCOPE).await.expect("read");
    assert_eq!(errors(&untold), ["two", "one"], "the newest first");
    assert_eq!((untold[1].run_id.as_str(), untold[1].at), (&*run(1).to_string(), at(1)));
    book.note_undelivered(&message(SCOPE, 5, "meanwhile"), None).await.expect("noted");
    book.mark_told(SCOPE, untold[0].number, run(6)).await.expect("marked");
    assert_eq!(errors(&book.untold_messages(SCOPE).await.expect("read")), ["meanwhile"]);
    assert_eq!(errors(&book.untold_messages(OTHER).await.expect("read")), ["of another scope"]);
    let all = book.undelivered(None).await.expect("read");
    assert_eq!(errors(&all), ["meanwhile", "told by its own report", "two", "of another scope", "one"]);
    assert_eq!(book.forget_undelivered(SCOPE, at(4)).await.expect("forgotten"), 2);
    let left = book.undelivered(Some(SCOPE)).await.expect("read");
    assert_eq!(errors(&left), ["meanwhile", "told by its own report"]);
}

#[tokio::test]
async fn the_newest_ended_runs_come_first_and_a_running_one_not_at_all() {
    let book = book!();
    let ends = RunEnd {
        finished_at: at(60),
        outcome: "complete",
        reason: None,
        exit_code: 0,
        plan_hash: None,
        orphan_bytes: None,
        summary: "{}".into(),
    };
    for (n, scope) in [(1, SCOPE), (2, OTHER), (3, SCOPE), (4, SCOPE)] {
        let command = "audit".to_owned();
        let start = RunStart { run_id: run(n), scope: scope.into(), command, is_dry_run: true, started_at: at(1) };
        book.begin_run(&start).await.expect("begun");
        if n != 4 {
            book.finish_run(run(n), &ends).await.expect("ended");
        }
    }
    let names = |numbers: &[u128]| numbers.iter().map(|n| run(*n).to_string()).collect::<Vec<_>>();
    assert_eq!(book.ended_runs(SCOPE, 10).await.expect("read"), names(&[3, 1]));
    assert_eq!(book.ended_runs(SCOPE, 1).await.expect("read"), names(&[3]));
    assert!(book.size_bytes().await.expect("measured") > 8192);
}
