use std::path::Path;

use async_trait::async_trait;
use parking_lot::Mutex as SyncMutex;
use uuid::Uuid;

use super::*;
use crate::config::{Variables, parse};
use crate::list::test_store::{at, stopped, wait};
use crate::model::{ObjectKey, Versioning};
use crate::s3::{Page, PageRequest, StoreFault, UploadsPage};

const DAY: Duration = Duration::from_secs(86_400);

/// Answers with its pages in turn; the last one stays.
struct Pages {
    pages: Vec<Result<UploadsPage, StoreError>>,
    asked: SyncMutex<Vec<Option<Marker>>>,
}

impl Pages {
    fn new(pages: Vec<Result<UploadsPage, StoreError>>) -> Self {
        Self { pages, asked: SyncMutex::default() }
    }
}

#[async_trait]
impl ReadStore for Pages {
    async fn page(&self, _request: &PageRequest) -> Result<Page, StoreError> {
        unreachable!("only uploads are listed")
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        Ok(Versioning::Unversioned)
    }

    fn list_requests(&self) -> u64 {
        0
    }

    async fn uploads(&self, after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
        let mut asked = self.asked.lock();
        asked.push(after.cloned());
        self.pages[(asked.len() - 1).min(self.pages.len() - 1)].clone()
    }
}

fn scope() -> Scope {
    let text = "[store]\nendpoint = \"http://127.0.0.1:9000\"\n[[scope]]\nname = \"a\"\nbucket = \"b\"\nprefix = \"p/\"\n\
                patterns = [\"p/{id}/\", \"p/dataset-{id}/\"]\n[[scope.live]]\ntable = \"s.t\"\n";
    parse(text, Path::new("config.toml"), &Variables::new()).expect("a configuration").scopes.remove(0)
}

fn id(n: u128) -> DatasetId {
    DatasetId(Uuid::from_u128(n))
}

fn upload(key: &str, age_s: i64) -> Upload {
    Upload { key: ObjectKey::new(key), upload_id: format!("of {key}"), initiated: Some(at(-age_s)) }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands among answers that fail")]
fn page(uploads: Vec<Upload>, next: Option<&str>) -> Result<UploadsPage, StoreError> {
    let marker = next.map(|key| Marker { key: key.into(), id: Some("u".into()) });
    Ok(UploadsPage { uploads, is_truncated: marker.is_some(), next: marker, date: at(0) })
}

fn denied() -> StoreError {
    StoreError { operation: LIST, fault: StoreFault::Denied("AccessDenied".into()) }
}

fn taken(pages: Vec<Result<UploadsPage, StoreError>>) -> (Uploads, Pages) {
    let store = Pages::new(pages);
    let uploads = wait(take(&store, &scope(), DAY, &stopped()));
    (uploads, store)
}

#[test]
fn owner_is_read_from_the_prefix_in_any_spelling_and_never_from_outside_the_scope() {
    let canonical = id(0xabc);
    for (key, owner) in [
        (format!("p/{canonical}/x"), Some(Owner::Dataset(canonical))),
        (format!("p/dataset-{canonical}/a/b"), Some(Owner::Dataset(canonical))),
        (format!("p/{}/x", canonical.to_string().to_uppercase()), Some(Owner::OddlySpelled(canonical))),
        (format!("p/{}/x", canonical.0.simple()), Some(Owner::OddlySpelled(canonical))),
        (format!("p/{canonical}"), Some(Owner::Foreign)),
        (format!("p/x-{canonical}/x"), Some(Owner::Foreign)),
        (format!("p/x/{canonical}/x"), Some(Owner::Foreign)),
        (format!("q/{canonical}/x"), None),
        (format!("{canonical}/x"), None),
        ("p".into(), None),
    ] {
        assert_eq!(Owner::of(&key, &scope()), owner, "{key}");
    }
}

#[test]
fn uploads_are_counted_by_whose_they_are_over_all_pages() {
    let first = vec![upload(&format!("p/{}/x", id(1)), 86_400), upload("elsewhere/x", 999_999)];
    let second = vec![
        upload(&format!("p/dataset-{}/x", id(1)), 86_399),
        upload(&format!("p/{}/x", id(2)), 90_000),
        upload("p/x", 5),
        Upload { initiated: None, ..upload(&format!("p/{}/y", id(3)), 0) },
        upload(&format!("p/{}/z", id(3)), -60),
    ];
    let (mut uploads, store) = taken(vec![page(first, Some("m")), page(second, None)]);
    assert!(uploads.unknown.is_none());
    assert_eq!(*store.asked.lock(), [None, Some(Marker { key: "m".into(), id: Some("u".into()) })]);
    assert_eq!((uploads.in_progress, uploads.oldest), (6, Some(at(-90_000))));
    uploads.note_live(id(2));
    uploads.note_live(id(9));
    assert_eq!(uploads.under_orphans(), (4, 1), "one unknown, one from the future, one a second short of a day");
    assert!(uploads.is_under(id(2)) && !uploads.is_under_orphan(id(2)) && !uploads.is_under_orphan(id(9)));
    assert!(uploads.told.is_sorted_by_key(|found| found.upload.key.clone()));
}

#[test]
fn listing_that_breaks_off_is_unknown_and_what_it_saw_still_keeps() {
    let seen = || vec![upload(&format!("p/{}/x", id(1)), 5)];
    let endless = Ok(UploadsPage { uploads: seen(), is_truncated: true, next: None, date: at(0) });
    for pages in [
        vec![page(seen(), Some("m")), Err(denied())],
        vec![endless],
        vec![page(seen(), Some("m")), page(vec![], Some("m"))],
    ] {
        let (uploads, _) = taken(pages);
        assert!(uploads.unknown.is_some());
        assert!(uploads.is_under(id(1)));
    }
    let (uploads, _) = taken(vec![Err(denied())]);
    assert!(uploads.unknown.is_some_and(|error| error == denied()));
}

#[test]
fn upload_that_is_begun_while_a_run_deletes_is_seen() {
    let begun = || page(vec![upload(&format!("p/{}/x", id(1)), 0)], None);
    let store = Pages::new(vec![page(vec![], None), page(vec![], None), begun(), page(vec![], None)]);
    let (scope, stop) = (scope(), stopped());
    wait(async {
        let uploads = take(&store, &scope, DAY, &stop).await;
        let watch = Watch::new(&store, &scope, &stop, &uploads);
        assert!(!watch.is_under(id(1)).await);
        assert!(watch.is_under(id(1)).await);
        assert!(watch.is_under(id(1)).await, "what one listing told, a later one does not take back");
        assert_eq!(store.asked.lock().len(), 3);
    });
}

#[test]
fn listing_that_was_denied_is_not_asked_for_before_every_group() {
    let store = Pages::new(vec![Err(denied())]);
    let (scope, stop) = (scope(), stopped());
    wait(async {
        let uploads = take(&store, &scope, DAY, &stop).await;
        let watch = Watch::new(&store, &scope, &stop, &uploads);
        assert!(!watch.is_under(id(1)).await && !watch.is_under(id(2)).await);
        assert_eq!(store.asked.lock().len(), 1);
    });
}
