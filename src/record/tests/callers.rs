//! What the HTTP API needs of the ledger, on either kind of it: tokens, pages, and acknowledgements of exactly what was looked at.
//! This file is read once for each.

use super::*;

fn digest(text: &str) -> Sha256Hash {
    Sha256Hash::of(text.as_bytes())
}

async fn verify(book: &Book) {
    book.verify_chain(&[]).await.expect("readable").expect("nothing wrong");
}

#[tokio::test]
async fn a_token_counts_from_its_making_to_its_revocation_and_its_name_is_free_again() {
    let Some(book) = Book::open(KIND).await else { return };
    assert!(book.create_token("ada", TokenScope::Approve, digest("one"), at(1)).await.expect("noted"));
    assert!(!book.create_token("ada", TokenScope::Read, digest("two"), at(2)).await.expect("refused"), "taken");
    assert!(book.create_token("bob", TokenScope::Read, digest("three"), at(3)).await.expect("noted"));
    let found = book.token_of(digest("one")).await.expect("readable").expect("known");
    assert_eq!((found.name.as_str(), found.scope, found.last_used_at), ("ada", TokenScope::Approve, None));
    for unknown in ["two", "", "One"] {
        assert!(book.token_of(digest(unknown)).await.expect("readable").is_none(), "{unknown}");
    }
    assert!(book.revoke_token("ada", at(4)).await.expect("revoked"));
    assert!(!book.revoke_token("ada", at(5)).await.expect("once"));
    assert!(book.token_of(digest("one")).await.expect("readable").is_none(), "it counts no longer");
    assert!(book.create_token("ada", TokenScope::Delete, digest("four"), at(6)).await.expect("noted"));
    let all = book.tokens().await.expect("readable");
    let told: Vec<_> = all.iter().map(|token| (token.name.as_str(), token.scope, token.revoked_at)).collect();
    assert_eq!(
        told,
        [("ada", TokenScope::Approve, Some(at(4))), ("bob", TokenScope::Read, None), ("ada", TokenScope::Delete, None)]
    );
    verify(&book).await;
    book.execute("UPDATE tokens SET scope = 'delete' WHERE name = 'bob'").await;
    let fault = book.verify_chain(&[]).await.expect("readable").expect_err("what a token may is chained");
    assert!(fault.what.contains("was edited: `scope`"), "{fault}");
}

#[tokio::test]
async fn the_use_of_a_token_is_noted_once_a_minute_and_is_no_part_of_the_chain() {
    let Some(book) = Book::open(KIND).await else { return };
    book.create_token("ada", TokenScope::Read, digest("one"), at(0)).await.expect("noted");
    let used = async |second| {
        let token = book.token_of(digest("one")).await.expect("readable").expect("known");
        book.note_token_use(&token, at(second)).await.expect("noted");
        book.token_of(digest("one")).await.expect("readable").expect("known").last_used_at
    };
    assert_eq!(used(10).await, Some(at(10)));
    assert_eq!(used(69).await, Some(at(10)));
    assert_eq!(used(70).await, Some(at(70)));
    assert_eq!(used(5).await, Some(at(5)), "a clock that was set back");
    verify(&book).await;
}

#[tokio::test]
async fn runs_and_plans_are_paged_without_a_gap_or_a_repetition() {
    let Some(book) = Book::open(KIND).await else { return };
    for n in 1..=5 {
        book.begin(n).await;
        book.issue_plan(&plan(n), hash(u8::try_from(n).expect("small")), Path::new("p")).await.expect("issued");
    }
    book.close_plan(hash(2)).await.expect("closed");
    let (mut before, mut runs) = (None, Vec::new());
    loop {
        let page = book.older_runs(Some(SCOPE), before.as_deref(), 2).await.expect("readable");
        let Some(last) = page.last() else { break };
        before = Some(last.run_id.clone());
        runs.extend(page.into_iter().map(|row| row.run_id));
    }
    assert_eq!(runs, [5, 4, 3, 2, 1].map(|n| run(n).to_string()));
    let (mut before, mut plans) = (None, Vec::new());
    loop {
        let page = book.plans_before(Some(SCOPE), Some(PlanState::Open), before.as_deref(), 2).await.expect("readable");
        let Some(last) = page.last() else { break };
        before = Some(last.hash.clone());
        plans.extend(page.into_iter().map(|plan| plan.hash));
    }
    assert_eq!(plans, [5, 4, 3, 1].map(|n| hash(n).to_string()));
    let listing = book.plans_before(None, None, None, 1).await.expect("readable").remove(0);
    assert_eq!((listing.run_id, listing.state, listing.totals.objects), (run(5).to_string(), PlanState::Open, 2));
    assert!(book.older_runs(Some(OTHER), None, 9).await.expect("readable").is_empty());
    assert!(book.plans_before(Some(OTHER), None, None, 9).await.expect("readable").is_empty());
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_tripped_anew_or_acknowledged_meanwhile_changes_nothing() {
    let Some(book) = Book::open(KIND).await else { return };
    let trip = async |n, rows| {
        book.begin(n).await;
        let tripped = [(Breaker::LiveDrop, "fell".to_owned())];
        book.latch(SCOPE, run(n), at(0), &tripped, &observed(rows)).await.expect("latched");
        book.latches(SCOPE).await.expect("readable").remove(0)
    };
    let looked_at = trip(1, 50).await;
    let worse = trip(2, 1).await;
    assert!(!book.acknowledge(SCOPE, &looked_at, "ada", "known", at(50)).await.expect("looked"), "not what ada saw");
    assert_eq!(book.baseline(SCOPE).await.expect("readable"), None);
    assert_eq!(book.latches(SCOPE).await.expect("readable").len(), 1);
    assert!(book.acknowledge(SCOPE, &worse, "ada", "known", at(51)).await.expect("acknowledged"));
    assert!(!book.acknowledge(SCOPE, &worse, "bob", "known", at(52)).await.expect("looked"), "ada was first");
    assert_eq!(book.acknowledgements().await.expect("readable").len(), 1);
    verify(&book).await;
}
