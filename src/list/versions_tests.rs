use super::*;
use crate::list::test_store::{VersionScript, marker, stopped, version, versions_page as page, wait};
use crate::s3::{DeleteMarker, Version};

fn sized(key: &str, size_bytes: u64, is_latest: bool) -> Version {
    Version { size_bytes, ..version(key, "v", 1, is_latest) }
}

fn markers(keys: &[&str]) -> Vec<DeleteMarker> {
    keys.iter().map(|key| marker(key, 1, false)).collect()
}

fn counted(pages: Vec<VersionsPage>) -> Result<Beneath, StoreError> {
    wait(count(&VersionScript::new(pages), "p/", &stopped()))
}

#[test]
fn what_is_not_current_is_counted_over_all_pages() {
    let first = page(vec![sized("p/a", 5, true), sized("p/a", 7, false)], markers(&["p/a"]), Some("p/a"));
    let second = page(vec![sized("p/a", 11, false), sized("p/b", 13, true)], markers(&["p/b", "p/b"]), None);
    let beneath = counted(vec![first, second]).expect("counted");
    assert_eq!(beneath, Beneath { noncurrent: 2, markers: 3, noncurrent_bytes: 18 });
    assert!(!beneath.is_empty());
    assert!(counted(vec![page(vec![sized("p/a", 5, true)], vec![], None)]).expect("counted").is_empty());
}

#[test]
fn listing_that_breaks_the_protocol_counts_nothing() {
    let truncated = VersionsPage { is_truncated: true, ..page(vec![], vec![], None) };
    let again = || page(vec![sized("p/a", 1, false)], vec![], Some("p/a"));
    let between = |id: &str| {
        let next = Some(Marker { key: "p/a".into(), id: Some(id.into()) });
        VersionsPage { next, ..again() }
    };
    for pages in [
        vec![truncated],
        vec![again(), again()],
        vec![between("1"), between("2"), between("1")],
        vec![page(vec![], vec![], Some("p/b")), page(vec![], vec![], Some("p/a"))],
        vec![page(vec![sized("q/a", 1, false)], vec![], None)],
        vec![page(vec![], markers(&["q/a"]), None)],
        vec![page(vec![sized("p/b", 1, false), sized("p/a", 1, false)], vec![], None)],
        vec![page(vec![], markers(&["p/b", "p/a"]), None)],
        vec![page(vec![sized("p/b", 1, false)], vec![], Some("p/b")), page(vec![sized("p/a", 1, false)], vec![], None)],
    ] {
        assert!(counted(pages.clone()).is_err(), "{pages:?}");
    }
}
