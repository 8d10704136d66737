//! Keys over pages, and whose marker is whose.

use super::*;
use crate::list::test_store::{VersionScript, at, marker, version, versions_page as page};
use crate::s3::DeleteMarker;

async fn read(pages: Vec<VersionsPage>) -> Result<Vec<(String, KeyVersions)>, StoreError> {
    let store = VersionScript::new(pages);
    let stop = CancellationToken::new();
    let mut keys = Undeleted::new(&store, "p/", &stop);
    let mut all = Vec::new();
    while let Some((key, versions)) = keys.next().await? {
        all.push((key.as_str().to_owned(), versions));
    }
    Ok(all)
}

#[tokio::test]
async fn a_key_that_goes_on_on_the_next_page_is_one_key() {
    let pages = vec![
        page(vec![version("p/a", "1", 1, false)], vec![marker("p/a", 9, true), marker("p/b", 9, true)], Some("p/b")),
        page(vec![version("p/b", "2", 2, false), version("p/c", "3", 3, true)], vec![], None),
    ];
    let keys = read(pages).await.expect("read");
    let found: Vec<_> = keys
        .iter()
        .map(|(key, known)| (key.as_str(), known.to_restore(|time| time == at(9)).map(|version| version.id.as_str())))
        .collect();
    assert_eq!(found, [("p/a", Ok("1")), ("p/b", Ok("2")), ("p/c", Err("newer_data"))]);
}

#[tokio::test]
async fn only_our_own_markers_may_lie_over_what_comes_back() {
    let known = |markers: Vec<DeleteMarker>, versions: Vec<Version>| async {
        read(vec![page(versions, markers, None)]).await.expect("read").remove(0).1
    };
    let ours = |time: Timestamp| time >= at(10) && time <= at(20);
    let id = |known: &KeyVersions| known.to_restore(ours).map(|version| version.id.clone());
    let old = || vec![version("p/a", "new", 5, false), version("p/a", "old", 1, false)];
    assert_eq!(id(&known(vec![marker("p/a", 12, true)], old()).await), Ok("new".into()));
    assert_eq!(id(&known(vec![marker("p/a", 12, true), marker("p/a", 11, false)], old()).await), Ok("new".into()));
    assert_eq!(id(&known(vec![marker("p/a", 21, true)], old()).await), Err("not_deleted_by_run"));
    assert_eq!(
        id(&known(vec![marker("p/a", 12, true), marker("p/a", 7, false)], old()).await),
        Err("not_deleted_by_run")
    );
    assert_eq!(id(&known(vec![marker("p/a", 12, true), marker("p/a", 3, false)], old()).await), Ok("new".into()));
    assert_eq!(id(&known(vec![marker("p/a", 12, true)], vec![]).await), Err("no_version"));
}

#[tokio::test]
async fn pages_that_go_back_or_never_end_are_refused() {
    let back = vec![
        page(vec![version("p/b", "1", 1, true)], vec![], Some("p/b")),
        page(vec![version("p/a", "1", 1, true)], vec![], None),
    ];
    assert!(read(back).await.is_err());
    assert!(read(vec![page(vec![version("q/a", "1", 1, true)], vec![], None)]).await.is_err());
    assert!(read(vec![page(vec![version("p/b", "1", 1, true)], vec![], Some("p/b"))]).await.is_err());
}

#[tokio::test]
async fn what_lies_beneath_a_marker_of_a_suspended_bucket_may_be_older() {
    let null = |seconds, is_latest| DeleteMarker { id: Some("null".into()), ..marker("p/a", seconds, is_latest) };
    for (markers, may_be_older) in [
        (vec![null(9, true)], true),
        (vec![marker("p/a", 9, true)], false),
        (vec![marker("p/a", 9, true), null(8, false)], false),
    ] {
        let keys = read(vec![page(vec![version("p/a", "1", 1, false)], markers, None)]).await.expect("read");
        assert_eq!(keys[0].1.may_be_older, may_be_older);
    }
}
