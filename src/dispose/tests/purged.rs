//! Known ids that our own purges removed since the run read them: which missing ones they account for in a re-check.

use std::collections::{BTreeMap, HashSet};

use super::bench::*;
use crate::dispose::{Disposal, Halt};
use crate::list::references::{Anchor, DatabaseIdentity, ReferencesError, TableIdentity, WithoutSentinels};
use crate::model::DatasetId;
use crate::record::PurgeRow;

/// The anchor of a run that read a table for each of these known ids.
fn anchor_of(known: Known, without_sentinels: WithoutSentinels) -> Anchor {
    let mut anchor = Anchor { sentinels: ids(known), without_sentinels, ..anchor() };
    let table = |n: usize| TableIdentity { name: format!("s.t{n} (id)"), oid: n.try_into().expect("small") };
    anchor.identity.tables = (0..known.len()).map(table).collect();
    anchor
}

/// Writes a purge of these ids that committed, by transaction `xid` of a scope that reads the tables of `identity`.
pub(super) async fn purge(bench: &Bench, ids: &[u128], xid: u64, identity: DatabaseIdentity) {
    let ids = ids.iter().map(|n| id(*n));
    let row = PurgeRow { xid, ..PurgeRow::sample(run(5), SCOPE, Anchor { identity, ..anchor() }, ids) };
    bench.ledger.intend_purge(&row.start(), &row).await.expect("intended");
    bench.ledger.commit_purge(row.run, &BTreeMap::new()).await.expect("committed");
}

fn gone() -> ReferencesError {
    ReferencesError::SentinelsGone { table: "s.t".into(), found: 0, asked: 2 }
}

/// The known ids of each table.
type Known = &'static [&'static [u128]];

fn ids(known: Known) -> Vec<Vec<DatasetId>> {
    known.iter().map(|table| table.iter().map(|n| id(*n)).collect()).collect()
}

/// Disposes of one group, the known ids being `known`; the first `missing` answers say that they are gone.
async fn dispose(bench: &Bench, known: Known, without_sentinels: WithoutSentinels, missing: usize) -> Option<Halt> {
    let candidate = bench.plant(1, &[0], &["a"]).await;
    bench.world().rechecks.extend((0..missing).map(|_| gone()));
    let progress = |_| {};
    let anchor = anchor_of(known, without_sentinels);
    Disposal::new(&bench.scope, plan(), run(2), anchor, bench.tools(&progress)).run(&[candidate]).await
}

#[tokio::test]
async fn known_ids_that_a_purge_removed_are_left_out_when_the_others_are_asked_for() {
    let cases: [(Known, WithoutSentinels, &[u128], Known); 4] = [
        (&[&[900, 901, 902]], WithoutSentinels::StaysEmpty, &[901, 902], &[&[900]]),
        (&[&[900, 901], &[910, 911]], WithoutSentinels::StaysEmpty, &[900, 911, 999], &[&[901], &[910]]),
        // A table that had none before needs none now.
        (&[&[900, 901], &[]], WithoutSentinels::StaysEmpty, &[900], &[&[901], &[]]),
        // A purge has the row that it removed itself.
        (&[&[900, 901]], WithoutSentinels::MayFill, &[900, 901], &[&[]]),
    ];
    for (known, without, purged, left) in cases {
        let bench = Bench::new().await;
        purge(&bench, purged, 5, anchor_of(known, without).identity).await;
        assert!(dispose(&bench, known, without, 1).await.is_none(), "{known:?}");
        assert_eq!(bench.world().sentinels, [ids(known), ids(left)]);
        assert!(bench.world().objects.is_empty(), "{known:?}");
    }
}

#[tokio::test]
async fn known_ids_that_no_purge_accounts_for_end_the_run() {
    let cases: [(Known, WithoutSentinels, &[u128]); 5] = [
        (&[&[900, 901]], WithoutSentinels::StaysEmpty, &[]),
        (&[&[900, 901]], WithoutSentinels::StaysEmpty, &[999]),
        (&[&[900, 901]], WithoutSentinels::MayFill, &[999]),
        // Of one table nothing else is known, so that it has nothing to be recognised by.
        (&[&[900, 901]], WithoutSentinels::StaysEmpty, &[900, 901]),
        (&[&[900, 901], &[910]], WithoutSentinels::StaysEmpty, &[910]),
    ];
    for (known, without, purged) in cases {
        let bench = Bench::new().await;
        purge(&bench, purged, 5, anchor_of(known, without).identity).await;
        let halt = dispose(&bench, known, without, 1).await;
        assert!(matches!(halt, Some(Halt::References(ReferencesError::SentinelsGone { .. }))), "{known:?} {purged:?}");
        assert_eq!((bench.rechecks(), bench.deletes()), (1, 0), "{known:?} {purged:?}");
        assert!(!bench.is_sighted(1).await, "another table may have held its row");
    }
}

#[tokio::test]
async fn known_ids_that_are_missing_beside_those_of_a_purge_end_the_run() {
    let bench = Bench::new().await;
    purge(&bench, &[900], 5, anchor_of(&[&[]], WithoutSentinels::StaysEmpty).identity).await;
    let halt = dispose(&bench, &[&[900, 901, 902]], WithoutSentinels::StaysEmpty, 2).await;
    assert!(matches!(halt, Some(Halt::References(ReferencesError::SentinelsGone { .. }))));
    assert_eq!((bench.rechecks(), bench.deletes()), (2, 0));
}

#[tokio::test]
async fn a_purge_accounts_only_for_what_the_run_saw_before_it_and_in_the_tables_that_it_removed_from() {
    let known: Known = &[&[900, 901, 902], &[910, 911]];
    let identity = anchor_of(known, WithoutSentinels::StaysEmpty).identity;
    let another = |change: fn(&mut DatabaseIdentity)| {
        let mut identity = identity.clone();
        change(&mut identity);
        identity
    };
    let cases = [
        (5, identity.clone(), true),
        (4, identity.clone(), false),
        (5, another(|identity| identity.timeline = "2".into()), false),
        (5, another(|identity| identity.tables.truncate(1)), true),
        (5, another(|identity| drop(identity.tables.remove(0))), false),
        (5, another(|identity| identity.tables[0].oid = 7), false),
    ];
    for (xid, identity, accounts) in cases {
        let bench = Bench::new().await;
        purge(&bench, &[901, 902], xid, identity.clone()).await;
        let halt = dispose(&bench, known, WithoutSentinels::StaysEmpty, 1).await;
        assert_eq!(halt.is_none(), accounts, "{xid} {identity}");
    }
}

#[tokio::test]
async fn where_nobody_can_tell_what_the_run_saw_no_purge_accounts_for_anything() {
    let bench = Bench::new().await;
    purge(&bench, &[900], 5, anchor().identity).await;
    let seen = Anchor { sentinels: ids(&[&[900, 901]]), ..anchor() };
    assert_eq!(bench.ledger.purged_since(&seen).await.expect("readable"), [HashSet::from([id(900)])]);
    let unseen = Anchor { snapshot: None, ..seen };
    assert_eq!(bench.ledger.purged_since(&unseen).await.expect("readable"), [HashSet::new()]);
}
