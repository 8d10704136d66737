//! Purges, on either kind of ledger. This file is read once for each.

use std::collections::HashSet;

use super::*;
use crate::decide::breakers::PurgedRows;
use crate::list::references::{Anchor, WithoutSentinels};
use crate::model::{Snapshot, TableIdentity};
use crate::record::{PurgeRow, PurgeState, PurgedJob};

/// The database that has the live table `s.t`.
fn here() -> DatabaseIdentity {
    let tables = vec![TableIdentity { name: "s.t".into(), oid: 7 }];
    DatabaseIdentity { tables, ..observed(1).identity }
}

/// What a run that saw `snapshot` compares with: these ids as sentinels of every table.
fn anchor(identity: DatabaseIdentity, ids: &[u128], snapshot: &str) -> Anchor {
    let sentinels = identity.tables.iter().map(|_| ids.iter().map(|n| id(*n)).collect()).collect();
    let snapshot = Snapshot::parse(snapshot);
    Anchor { identity, sentinels, without_sentinels: WithoutSentinels::StaysEmpty, snapshot }
}

/// A purge of a job with the datasets 1 and 2, by transaction `xid`.
fn purge(n: u128, xid: u64) -> PurgeRow {
    let mut purge = PurgeRow::sample(run(n), SCOPE, anchor(here(), &[3], "9:9:"), [id(1), id(2)]);
    (purge.xid, purge.began_at, purge.evidence.as_of) = (xid, at(2), at(1));
    purge.evidence.job = Some(PurgedJob { status: "running".into(), was_cancelled: true, detached: 0 });
    purge.evidence.rows = removed(2);
    purge.evidence.made = BTreeMap::from([("s.t".to_owned(), BTreeMap::from([(at(1), 2)]))]);
    purge.evidence.target = Some(observed(1).target);
    purge
}

fn removed(rows: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("s.t".to_owned(), rows)])
}

async fn intend(book: &Book, purge: &PurgeRow) {
    book.intend_purge(&purge.start(), purge).await.expect("intended");
}

async fn state_of(book: &Book, n: u128) -> PurgeState {
    book.purge(run(n)).await.expect("readable").expect("known").state
}

#[tokio::test]
async fn a_purge_comes_back_as_it_was_told_and_is_a_run() {
    let book = book!();
    let told = purge(1, 1 << 40);
    intend(&book, &told).await;
    assert_eq!(book.purge(run(1)).await.expect("readable").as_ref(), Some(&told));
    assert_eq!(book.run(&run(1).to_string()).await.expect("readable").expect("known").command, "purge");
    assert_eq!(book.pending_purges(None).await.expect("readable"), std::slice::from_ref(&told));
    assert_eq!(book.pending_purges(Some(OTHER)).await.expect("readable"), []);
    book.commit_purge(run(1), &removed(1)).await.expect("committed");
    let committed = PurgeRow { state: PurgeState::Committed, removed: Some(removed(1)), ..told };
    assert_eq!(book.pending_purges(Some(SCOPE)).await.expect("readable"), [committed]);
    book.end_purge(run(1), PurgeState::Done).await.expect("ended");
    assert_eq!(book.pending_purges(None).await.expect("readable"), []);
    assert!(book.verify_chain(&[]).await.expect("readable").is_ok(), "each step is chained");
}

#[tokio::test]
async fn another_run_takes_no_purge_for_dead() {
    let book = book!();
    book.begin(1).await;
    intend(&book, &purge(2, 9)).await;
    let audit = book.run(&run(1).to_string()).await.expect("readable").expect("known");
    assert_eq!(audit.outcome, None, "a purge begins beside it");
    book.begin(3).await;
    let purge = book.run(&run(2).to_string()).await.expect("readable").expect("known");
    assert_eq!(purge.outcome, None, "and goes on beside the next");
    let audit = book.run(&run(1).to_string()).await.expect("readable").expect("known");
    assert_eq!(audit.reason.as_deref(), Some("its process died"));
}

#[tokio::test]
async fn an_intended_purge_ends_the_sightings_of_its_ids() {
    let book = book!();
    book.begin(1).await;
    let orphans = [1, 2, 3].map(|n| (id(n), sighting(1, 0)));
    book.record_lone_scan(SCOPE, run(1), &orphans, &good(10)).await.expect("recorded");
    intend(&book, &purge(2, 9)).await;
    assert_eq!(book.sighted_ids(SCOPE).await.expect("readable"), [id(3)]);
}

#[tokio::test]
async fn a_scan_begins_no_sighting_of_what_was_purged_since_it_began() {
    let book = book!();
    book.begin(1).await;
    intend(&book, &purge(2, 9)).await;
    let orphans = |n: u128| [1, 2, 3].map(|it| (id(it), Sighting::first(run(n), at(50), hash(9))));
    let slow = book.record_lone_scan(SCOPE, run(1), &orphans(1), &good(10)).await.expect("recorded");
    assert_eq!((slow.new, slow.not_begun), (1, 2));
    assert_eq!(book.sighted_ids(SCOPE).await.expect("readable"), [id(3)], "the others were live when it began");
    book.begin(3).await;
    let next = book.record_lone_scan(SCOPE, run(3), &orphans(3), &good(10)).await.expect("recorded");
    assert_eq!(next.not_begun, 0);
    let sighted: HashSet<DatasetId> = book.sighted_ids(SCOPE).await.expect("readable").into_iter().collect();
    assert_eq!(sighted, [1, 2, 3].map(id).into(), "what is left of it is an orphan");
}

#[tokio::test]
async fn a_purge_counts_in_every_scope_of_its_rows() {
    let book = book!();
    book.begin(1).await;
    let mut baseline = good(10);
    baseline.observation.snapshot = Snapshot::parse("20:20:");
    book.record_lone_scan(OTHER, run(1), &[1, 3].map(|n| (id(n), sighting(1, 0))), &baseline).await.expect("recorded");
    intend(&book, &purge(2, 20)).await;
    book.commit_purge(run(2), &removed(2)).await.expect("committed");
    assert_eq!(book.sighted_ids(OTHER).await.expect("readable"), [id(3)], "the id was seen live");
    let vouched = book.purged_rows(OTHER).await.expect("readable");
    assert_eq!(vouched.into_iter().map(|purge| purge.rows).collect::<Vec<_>>(), [removed(2)]);
    assert_eq!(book.purged_rows(SCOPE).await.expect("readable"), [], "it has no baseline");
    let purged = async |identity: &DatabaseIdentity| {
        let anchor = anchor(identity.clone(), &[1], "20:20:");
        let purged = book.purged_since(&anchor).await.expect("readable");
        assert!(purged.iter().all(|ids| ids.is_empty() || *ids == HashSet::from([id(1)])));
        purged.iter().map(HashSet::len).collect::<Vec<_>>()
    };
    let with = |tables: &[(&str, i64)]| {
        let tables = tables.iter().map(|(name, oid)| TableIdentity { name: (*name).into(), oid: *oid }).collect();
        DatabaseIdentity { tables, ..here() }
    };
    assert_eq!(purged(&with(&[("s.u", 8), ("s.t", 7)])).await, [0, 1], "another scope reads it among others");
    assert_eq!(purged(&with(&[("s.t", 8)])).await, [0], "another table of that name");
    assert_eq!(purged(&with(&[("s.u", 8)])).await, [0], "another table");
    assert_eq!(purged(&DatabaseIdentity { timeline: "2".into(), ..here() }).await, [0], "another timeline");
}

#[tokio::test]
async fn only_what_committed_vouches_for_rows_and_ids() {
    let book = book!();
    book.begin(1).await;
    let mut baseline = good(10);
    baseline.observation.snapshot = Snapshot::parse("20:25:21");
    book.record_lone_scan(SCOPE, run(1), &[], &baseline).await.expect("recorded");
    for (n, xid) in [(2, 19), (3, 20), (4, 21), (5, 22), (6, 23)] {
        intend(&book, &purge(n, xid)).await;
    }
    for (n, state) in [
        (2, PurgeState::Done),
        (3, PurgeState::Done),
        (4, PurgeState::Committed),
        (5, PurgeState::Aborted),
        (6, PurgeState::Intended),
    ] {
        match state {
            PurgeState::Intended => {}
            PurgeState::Aborted | PurgeState::Unknown => book.end_purge(run(n), state).await.expect("ended"),
            PurgeState::Committed => book.commit_purge(run(n), &removed(2)).await.expect("committed"),
            PurgeState::Done => {
                book.commit_purge(run(n), &removed(2)).await.expect("committed");
                book.end_purge(run(n), state).await.expect("ended");
            }
        }
        assert_eq!(state_of(&book, n).await, state);
    }
    let vouched: Vec<PurgedRows> = book.purged_rows(SCOPE).await.expect("readable");
    let xids: Vec<u64> = vouched.iter().map(|purge| purge.xid).collect();
    assert_eq!(xids, [20, 21], "the baseline surely saw the one before, and the others are not committed");
    let of = purge(3, 20).evidence;
    assert_eq!((&vouched[0].rows, &vouched[0].identity, &vouched[0].made), (&removed(2), &here(), &of.made));
    let since = async |snapshot: &str| book.purged_since(&anchor(here(), &[1, 3], snapshot)).await.expect("readable");
    assert_eq!(since("21:21:").await, [HashSet::from([id(1)])]);
    assert_eq!(since("22:22:").await, [HashSet::new()], "it saw every purge that committed");
    assert_eq!(since("21:22:21").await, [HashSet::from([id(1)])], "one was in progress");
}

#[tokio::test]
async fn a_dataset_that_is_live_again_and_what_was_told_are_remembered() {
    let book = book!();
    intend(&book, &purge(1, 9)).await;
    intend(&book, &purge(2, 10)).await;
    book.note_live_again(run(1), &[id(2)]).await.expect("noted");
    assert_eq!(book.live_again(run(1)).await.expect("readable"), HashSet::from([id(2)]));
    assert_eq!(book.live_again(run(2)).await.expect("readable"), HashSet::new(), "another purge");
    book.note_purge_told(run(1)).await.expect("noted");
    let is_told = async |n| book.purge(run(n)).await.expect("readable").expect("known").is_told;
    assert_eq!((is_told(1).await, is_told(2).await), (true, false));
    assert!(book.verify_chain(&[]).await.expect("readable").is_ok());
}

#[tokio::test]
async fn ids_of_which_nothing_committed_are_not_purged() {
    let book = book!();
    let before = anchor(here(), &[1], "9:9:");
    intend(&book, &purge(1, 9)).await;
    assert_eq!(book.purged_since(&before).await.expect("readable"), [HashSet::new()]);
    book.end_purge(run(1), PurgeState::Aborted).await.expect("ended");
    assert_eq!(book.purged_since(&before).await.expect("readable"), [HashSet::new()]);
}

#[tokio::test]
async fn the_keys_of_a_purge_leave_the_journal_where_the_whole_id_is_gone() {
    let book = book!();
    let purge = purge(1, 9);
    intend(&book, &purge).await;
    book.commit_purge(run(1), &removed(2)).await.expect("committed");
    for (n, outcome) in [(1, "gone"), (2, "remains")] {
        let prefix = format!("p/{n}/");
        let intent =
            Intent { scope: SCOPE, plan: purge.plan_hash(), run: run(1), id: id(n), prefix: &prefix, batch: 1 };
        let object = Object {
            key: ObjectKey::new(format!("{prefix}x")),
            size_bytes: 1,
            etag: "e".into(),
            last_modified: Some(at(0)),
        };
        book.intend(&intent, &[object]).await.expect("intended");
        book.note_disposal(&intent, outcome, at(3)).await.expect("noted");
    }
    let end = RunEnd {
        finished_at: at(9),
        outcome: "complete",
        reason: None,
        exit_code: 0,
        plan_hash: None,
        orphan_bytes: None,
        summary: "{}".into(),
    };
    book.finish_run(run(1), &end).await.expect("ended");
    assert!(book.needed_runs(SCOPE, at(9)).await.expect("readable").contains(&run(1).to_string()), "it is pending");
    book.end_purge(run(1), PurgeState::Done).await.expect("ended");
    assert_eq!(book.keys().await, ["p/2/x"]);
    // A scan that sees nothing of it any more takes the rest with it.
    book.begin(2).await;
    book.record_lone_scan(SCOPE, run(2), &[], &good(10)).await.expect("recorded");
    assert!(book.keys().await.is_empty());
    assert!(!book.needed_runs(SCOPE, at(9)).await.expect("readable").contains(&run(1).to_string()));
    book.compact_runs(&[run(1).to_string()]).await.expect("compacted");
    assert_eq!(book.purge(run(1)).await.expect("readable"), None);
    for table in ["purged_ids", "disposals"] {
        assert_eq!(book.count(table).await, 0, "{table}");
    }
    assert!(book.verify_chain(&[]).await.expect("readable").is_ok(), "that it is gone is chained too");
}

#[tokio::test]
async fn one_process_at_a_time_works_on_a_purge_beside_every_run() {
    let book = book!();
    let _run = book.lock(|| ()).await.expect("free");
    let first = book.lock_purge(run(1), || ()).await.expect("free beside a run");
    assert!(book.lock_purge(run(1), || ()).await.is_err(), "it is taken");
    let _other = book.lock_purge(run(2), || ()).await.expect("another purge is another lock");
    book.forget_purge_lock(run(1));
    drop(first);
}
