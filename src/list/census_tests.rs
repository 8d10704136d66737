use super::super::test_store::{Script, at, more, page, stopped, wait};
use super::*;
use crate::model::DatasetId;
use crate::s3::{Page, StoreFault};

const A: &str = "00000000-0000-4000-8000-00000000000a";
const B: &str = "00000000-0000-4000-8000-00000000000b";
const C: &str = "00000000-0000-4000-8000-00000000000c";

fn scope() -> Scope {
    let text =
        include_str!("../../config.toml").replace("[\"synthetic/.keep\"]", "[\"synthetic/.keep\", \"synthetic/tmp/\"]");
    crate::config::parse(&text, std::path::Path::new("config.toml"), &std::collections::BTreeMap::new())
        .expect("well formed")
        .scopes
        .remove(0)
}

fn id(text: &str) -> DatasetId {
    DatasetId::parse_lenient(text).expect("a uuid")
}

fn group(text: &str, pattern: u8) -> Group {
    Group { id: id(text), pattern, odd_spelling: None }
}

type Found = (String, &'static str, ForeignReason);

fn taken(script: &Script) -> Result<(CompleteListing, Vec<Found>, Vec<usize>), StoreError> {
    let (mut foreign, mut progress) = (Vec::new(), Vec::new());
    let listing = wait(take(
        script,
        &scope(),
        &stopped(),
        |found| foreign.push((found.prefix_or_key.to_owned(), found.kind, found.reason)),
        |groups| progress.push(groups),
    ))?;
    Ok((listing, foreign, progress))
}

fn prefixes(prefixes: &[String]) -> Page {
    page(&[], &prefixes.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn groups_come_sorted_by_id_and_pattern_with_the_time_of_the_first_page() {
    let script = Script::default()
        .first(Page { date: at(5), ..more(prefixes(&[format!("synthetic/{B}/"), format!("synthetic/{C}/")]), "1") })
        .then("1", Page { date: at(6), ..more(prefixes(&[]), "2") })
        .then(
            "2",
            Page { date: at(7), ..prefixes(&[format!("synthetic/dataset-{A}/"), format!("synthetic/dataset-{B}/")]) },
        );
    let (listing, foreign, progress) = taken(&script).expect("well formed");
    assert_eq!(listing.groups, [group(A, 1), group(B, 0), group(B, 1), group(C, 0)]);
    assert_eq!((listing.foreign, foreign.len(), listing.store_time), (0, 0, at(5)));
    assert_eq!(progress, [2, 2, 4]);
}

#[test]
fn the_whole_prefix_is_listed_by_delimiter() {
    let script = Script::default().first(page(&[], &[]));
    let (listing, ..) = taken(&script).expect("well formed");
    assert!(listing.groups.is_empty());
    let [request] = &script.asked()[..] else { panic!("{:?}", script.asked()) };
    assert_eq!((request.prefix.as_str(), request.by_delimiter), ("synthetic/", true));
}

#[test]
fn what_belongs_to_no_dataset_is_told_and_not_kept() {
    let (odd, wrong, twice) = (
        format!("synthetic/{}/", A.to_uppercase()),
        format!("synthetic/{A}x/"),
        format!("synthetic/dataset-dataset-{A}/"),
    );
    let listed = Page {
        prefixes: vec![odd.clone(), wrong.clone(), twice.clone(), "synthetic/notes/".into()],
        ..page(&["synthetic/", "synthetic/loose.npy"], &[])
    };
    let (listing, foreign, _) = taken(&Script::default().first(listed)).expect("well formed");
    assert_eq!(
        listing.groups,
        [Group { id: id(A), pattern: 0, odd_spelling: Some(odd.into()) }],
        "an odd spelling protects its id"
    );
    let expected = [
        ("synthetic/".to_owned(), "key", ForeignReason::KeyOutsideGroups),
        ("synthetic/loose.npy".to_owned(), "key", ForeignReason::KeyOutsideGroups),
        (wrong, "prefix", ForeignReason::NoPattern),
        (twice, "prefix", ForeignReason::NoPattern),
        ("synthetic/notes/".to_owned(), "prefix", ForeignReason::NoPattern),
    ];
    assert_eq!(foreign, expected);
    assert_eq!(listing.foreign, 5);
}

#[test]
fn ignored_keys_and_prefixes_are_no_finding_and_only_exactly_they() {
    let listed = page(&["synthetic/.keep", "synthetic/.keep2"], &["synthetic/tmp/", "synthetic/tmp2/"]);
    let (listing, foreign, _) = taken(&Script::default().first(listed)).expect("well formed");
    let shown: Vec<&str> = foreign.iter().map(|(entry, ..)| entry.as_str()).collect();
    assert_eq!(shown, ["synthetic/.keep2", "synthetic/tmp2/"]);
    assert_eq!((listing.foreign, listing.groups.len()), (2, 0));
}

#[test]
fn a_page_that_fails_voids_what_was_listed_before_it() {
    let denied = StoreError { operation: "ListObjectsV2", fault: StoreFault::Denied("AccessDenied".into()) };
    let script = Script::default().first(more(prefixes(&[format!("synthetic/{A}/")]), "1")).then("1", denied);
    assert!(matches!(taken(&script), Err(StoreError { fault: StoreFault::Denied(_), .. })));
    let repeated = more(prefixes(&[format!("synthetic/{A}/")]), "1");
    let script = Script::default().first(repeated.clone()).then("1", repeated);
    assert!(matches!(taken(&script), Err(StoreError { fault: StoreFault::Malformed(_), .. })));
}
