use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::test_store::{Bucket, Script, at, more, object, page, stopped, wait};
use super::*;
use crate::s3::StoreFault;

/// Every key and prefix that a listing of `p/` shows, page by page.
fn read(store: &dyn ReadStore, by_delimiter: bool) -> Result<Vec<Vec<String>>, StoreError> {
    read_until(store, by_delimiter, &stopped())
}

fn read_until(
    store: &dyn ReadStore,
    by_delimiter: bool,
    stop: &CancellationToken,
) -> Result<Vec<Vec<String>>, StoreError> {
    wait(async {
        let mut pages = Pages::new(store, "p/", by_delimiter, stop);
        let mut shown = Vec::new();
        while let Some(page) = pages.next().await? {
            let objects = page.objects.into_iter().map(|object| object.key.as_str().to_owned());
            shown.push(objects.chain(page.prefixes).collect());
        }
        assert!(pages.next().await?.is_none(), "a listing that ended stays so");
        Ok(shown)
    })
}

/// What a listing that must not be believed is refused for.
fn refusal(script: &Script) -> String {
    match read(script, true) {
        Ok(shown) => panic!("it was believed: {shown:?}"),
        Err(StoreError { operation: "ListObjectsV2", fault: StoreFault::Malformed(what) }) => what,
        Err(other) => panic!("{other}"),
    }
}

const NO_TOKEN: &str = "it is truncated and has no token for the next page";
const REPEATED: &str = "it repeats a token, so its pages would never end";
const OUTSIDE: &str = "it lists a key outside the prefix that was asked for";
const UNORDERED: &str = "its keys are not in ascending order";

#[test]
fn a_listing_ends_where_the_store_says_so_and_nowhere_else() {
    let script = Script::default()
        .first(more(page(&["p/a"], &[]), "1"))
        .then("1", more(page(&[], &[]), "2"))
        .then("2", more(page(&["p/b", "p/c"], &["p/d/"]), "3"))
        .then("3", page(&["p/e"], &[]));
    let shown = read(&script, true).expect("well formed");
    assert_eq!(
        shown,
        [vec!["p/a"], vec![], vec!["p/b", "p/c", "p/d/"], vec!["p/e"]],
        "neither a short page nor an empty one is the last"
    );
    assert_eq!(script.tokens(), [None, Some("1".into()), Some("2".into()), Some("3".into())]);
}

#[test]
fn an_empty_listing_is_one_empty_page() {
    let script = Script::default().first(page(&[], &[]));
    assert_eq!(read(&script, true).expect("well formed"), [[""; 0]]);
    assert_eq!(script.asked().len(), 1);
}

#[test]
fn a_token_on_the_last_page_leads_nowhere() {
    let script = Script::default().first(Page { next_token: Some("1".into()), ..page(&["p/a"], &[]) });
    assert_eq!(read(&script, true).expect("well formed"), [["p/a"]]);
}

#[test]
fn every_request_asks_for_the_prefix_in_the_same_way() {
    for by_delimiter in [true, false] {
        let script = Script::default().first(more(page(&["p/a"], &[]), "1")).then("1", page(&[], &[]));
        read(&script, by_delimiter).expect("well formed");
        assert!(script.asked().iter().all(|request| request.prefix == "p/" && request.by_delimiter == by_delimiter));
    }
}

#[test]
fn a_truncated_page_without_a_token_voids_the_listing() {
    let cut = Page { is_truncated: true, ..page(&["p/a"], &[]) };
    assert_eq!(refusal(&Script::default().first(cut.clone())), NO_TOKEN);
    assert_eq!(refusal(&Script::default().first(Page { objects: Vec::new(), ..cut.clone() })), NO_TOKEN);
    assert_eq!(refusal(&Script::default().first(more(page(&[], &[]), "1")).then("1", cut)), NO_TOKEN);
}

#[test]
fn a_token_that_comes_back_voids_the_listing() {
    let next = Script::default().first(more(page(&["p/a"], &[]), "1")).then("1", more(page(&["p/b"], &[]), "1"));
    assert_eq!(refusal(&next), REPEATED);
    let later = Script::default()
        .first(more(page(&["p/a"], &[]), "1"))
        .then("1", more(page(&["p/b"], &[]), "2"))
        .then("2", more(page(&["p/c"], &[]), "1"));
    assert_eq!(refusal(&later), REPEATED);
    let empty = Script::default().first(more(page(&[], &[]), "1")).then("1", more(page(&[], &[]), "1"));
    assert_eq!(refusal(&empty), REPEATED, "also where no page shows anything");
}

#[test]
fn keys_out_of_order_within_a_page_void_the_listing() {
    for wrong in [
        page(&["p/b", "p/a"], &[]),
        page(&["p/a", "p/a"], &[]),
        page(&["p/a", "p/c", "p/b"], &[]),
        page(&[], &["p/b/", "p/a/"]),
        page(&[], &["p/a/", "p/a/"]),
        page(&["p/x"], &["p/b/", "p/a/"]),
        page(&["p/\u{fffd}", "p/z"], &[]),
        page(&["p/a", "p/Z"], &[]),
    ] {
        assert_eq!(refusal(&Script::default().first(wrong.clone())), UNORDERED, "{wrong:?}");
    }
}

#[test]
fn a_key_outside_the_prefix_voids_the_listing() {
    for key in ["q/a", "p", "o/a", "", "P/a", "/p/a"] {
        assert_eq!(refusal(&Script::default().first(page(&[key], &[]))), OUTSIDE, "{key}");
        assert_eq!(refusal(&Script::default().first(page(&[], &[key]))), OUTSIDE, "{key}");
        assert_eq!(refusal(&Script::default().first(page(&["p/a", key], &[]))), OUTSIDE, "{key}");
    }
    let late = Script::default().first(more(page(&["p/a"], &[]), "1")).then("1", page(&["q/a"], &[]));
    assert_eq!(refusal(&late), OUTSIDE);
    assert_eq!(
        read(&Script::default().first(page(&["p/", "p/a"], &[])), true).expect("the prefix itself may be a key"),
        [["p/", "p/a"]]
    );
}

#[test]
fn what_an_earlier_page_has_passed_never_comes_again() {
    let ends = [page(&["p/m"], &[]), page(&[], &["p/m/"]), page(&["p/a", "p/m"], &["p/b/"]), page(&["p/a"], &["p/m/"])];
    for first in ends {
        let followed = |second: Page| Script::default().first(more(first.clone(), "1")).then("1", second);
        for key in ["p/m", "p/lz", "p/a"] {
            assert_eq!(refusal(&followed(page(&[key], &[]))), UNORDERED, "{key} after {first:?}");
        }
        for prefix in ["p/lz/", "p/a/", "p/b/"] {
            assert_eq!(refusal(&followed(page(&[], &[prefix]))), UNORDERED, "{prefix} after {first:?}");
            assert_eq!(refusal(&followed(page(&["p/x"], &[prefix]))), UNORDERED, "{prefix} beside a later key");
        }
        assert!(read(&followed(page(&["p/mm"], &["p/n/"])), true).is_ok(), "{first:?}");
    }
}

#[test]
fn a_flat_listing_that_rolls_keys_up_hides_objects_and_is_void() {
    let script = Script::default().first(page(&["p/a"], &["p/b/"]));
    let Err(StoreError { fault: StoreFault::Malformed(what), .. }) = read(&script, false) else {
        panic!("it was believed")
    };
    assert_eq!(what, "it rolls keys up into prefixes without being asked to");
    assert!(read(&script, true).is_ok());
}

#[test]
fn an_empty_page_does_not_forget_how_far_the_listing_came() {
    let script = Script::default()
        .first(more(page(&["p/m"], &[]), "1"))
        .then("1", more(page(&[], &[]), "2"))
        .then("2", page(&["p/m"], &[]));
    assert_eq!(refusal(&script), UNORDERED);
}

#[test]
fn keys_and_prefixes_may_interleave_across_pages() {
    let script = Script::default()
        .first(more(page(&["p/a", "p/c"], &["p/b/"]), "1"))
        .then("1", more(page(&["p/e"], &["p/d/", "p/f/"]), "2"))
        .then("2", page(&["p/g"], &["p/h/"]));
    assert_eq!(read(&script, true).expect("well formed").concat().len(), 8);
}

#[test]
fn the_time_is_that_of_the_first_page() {
    let script = Script::default()
        .first(Page { date: at(7), ..more(page(&["p/a"], &[]), "1") })
        .then("1", Page { date: at(9), ..page(&["p/b"], &[]) });
    wait(async {
        let stop = stopped();
        let mut pages = Pages::new(&script, "p/", true, &stop);
        assert_eq!(pages.first_date(), None);
        for _ in 0..2 {
            assert!(pages.next().await.expect("well formed").is_some());
            assert_eq!(pages.first_date(), Some(at(7)));
        }
    });
}

#[test]
fn a_refusal_of_the_store_ends_the_listing_at_once() {
    let denied = StoreError { operation: "ListObjectsV2", fault: StoreFault::Denied("AccessDenied".into()) };
    let script = Script::default().first(more(page(&["p/a"], &[]), "1")).then("1", denied.clone());
    let error = read_until(&script, true, &CancellationToken::new()).expect_err("denied");
    assert_eq!(error.fault, denied.fault);
    assert_eq!(script.tokens(), [None, Some("1".into())]);
}

#[test]
fn a_broken_page_is_asked_for_once_more_and_leaves_no_trace() {
    let script = Script::default()
        .first(more(page(&["p/a"], &[]), "1"))
        .then("1", more(page(&["p/z", "p/y"], &[]), "2"))
        .then("1", more(page(&["p/b"], &[]), "2"))
        .then("2", page(&["p/c"], &[]));
    let shown = read_until(&script, true, &CancellationToken::new()).expect("the second answer is well formed");
    assert_eq!(shown.concat(), ["p/a", "p/b", "p/c"]);
    let twice = Script::default()
        .first(page(&["p/b", "p/a"], &[]))
        .first(page(&["p/b", "p/a"], &[]))
        .first(page(&["p/a"], &[]));
    assert!(
        read_until(&twice, true, &CancellationToken::new()).is_err(),
        "a store that breaks the protocol twice means it"
    );
}

proptest! {
    #[test]
    fn every_key_is_shown_once_whatever_the_pages(
        keys in proptest::collection::btree_set("[a-c/\u{e9}\u{10ffff}]{1,6}", 0..40),
        sizes in proptest::collection::vec(0..5_usize, 1..5),
        by_delimiter in any::<bool>(),
    ) {
        let sizes = [sizes, vec![3]].concat();
        let keys: BTreeSet<String> = keys.into_iter().map(|key| format!("p/{key}")).collect();
        let strangers = ["o/x", "p", "p0", "q/x"].map(object);
        let bucket = Bucket::new(keys.iter().map(|key| object(key)).chain(strangers), &sizes);
        let shown = read(&bucket, by_delimiter).expect("well formed").concat();
        let rolled_up: BTreeSet<String> = keys
            .iter()
            .map(|key| match key[2..].split_once('/') {
                Some((below, _)) if by_delimiter => format!("p/{below}/"),
                _ => key.clone(),
            })
            .collect();
        prop_assert_eq!(shown.len(), rolled_up.len());
        prop_assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), rolled_up);
    }

    #[test]
    fn two_keys_that_changed_places_are_noticed(count in 2..12_usize, first in any::<prop::sample::Index>(), second in any::<prop::sample::Index>()) {
        let mut keys: Vec<String> = (0..count).map(|n| format!("p/{n:02}")).collect();
        let (first, second) = (first.index(count), second.index(count));
        prop_assume!(first != second);
        keys.swap(first, second);
        let half = count / 2;
        let listed = |keys: &[String]| page(&keys.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let script = Script::default().first(more(listed(&keys[..half]), "1")).then("1", listed(&keys[half..]));
        prop_assert_eq!(refusal(&script), UNORDERED);
    }
}
