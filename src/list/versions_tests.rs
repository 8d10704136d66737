use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::list::test_store::{stopped, wait};
use crate::model::Versioning;
use crate::s3::{Page, PageRequest, Version};

/// Answers with its pages in turn; the last one stays.
struct Pages(Mutex<Vec<VersionsPage>>);

#[async_trait]
impl ReadStore for Pages {
    async fn page(&self, _request: &PageRequest) -> Result<Page, StoreError> {
        unreachable!("only versions are listed")
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Enabled)
    }

    fn list_requests(&self) -> u64 {
        0
    }

    async fn versions(&self, _prefix: &str, _after: Option<&Marker>) -> Result<VersionsPage, StoreError> {
        let mut pages = self.0.lock();
        Ok(if pages.len() > 1 { pages.remove(0) } else { pages[0].clone() })
    }
}

fn version(key: &str, size_bytes: u64, is_current: bool) -> Version {
    Version { key: ObjectKey::new(key), size_bytes, is_current }
}

fn page(versions: Vec<Version>, markers: &[&str], next: Option<&str>) -> VersionsPage {
    let next = next.map(|key| Marker { key: key.into(), id: None });
    let markers = markers.iter().map(|key| ObjectKey::new(*key)).collect();
    VersionsPage { versions, markers, is_truncated: next.is_some(), next }
}

fn counted(pages: Vec<VersionsPage>) -> Result<Beneath, StoreError> {
    wait(count(&Pages(Mutex::new(pages)), "p/", &stopped()))
}

#[test]
fn what_is_not_current_is_counted_over_all_pages() {
    let first = page(vec![version("p/a", 5, true), version("p/a", 7, false)], &["p/a"], Some("p/a"));
    let second = page(vec![version("p/a", 11, false), version("p/b", 13, true)], &["p/b", "p/b"], None);
    let beneath = counted(vec![first, second]).expect("counted");
    assert_eq!(beneath, Beneath { noncurrent: 2, markers: 3, noncurrent_bytes: 18 });
    assert!(!beneath.is_empty());
    assert!(counted(vec![page(vec![version("p/a", 5, true)], &[], None)]).expect("counted").is_empty());
}

#[test]
fn listing_that_breaks_the_protocol_counts_nothing() {
    let truncated = VersionsPage { is_truncated: true, ..page(vec![], &[], None) };
    let again = || page(vec![version("p/a", 1, false)], &[], Some("p/a"));
    for pages in [
        vec![truncated],
        vec![again(), again()],
        vec![page(vec![version("q/a", 1, false)], &[], None)],
        vec![page(vec![], &["q/a"], None)],
        vec![page(vec![version("p/b", 1, false), version("p/a", 1, false)], &[], None)],
        vec![page(vec![], &["p/b", "p/a"], None)],
        vec![page(vec![version("p/b", 1, false)], &[], Some("p/b")), page(vec![version("p/a", 1, false)], &[], None)],
    ] {
        assert!(counted(pages.clone()).is_err(), "{pages:?}");
    }
}
