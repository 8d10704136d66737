//! The store as the production client sees it, and as a raw socket does where the client would hide the difference.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::delete_objects::{DeleteObjectsError, DeleteObjectsOutput};
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Error, ListObjectsV2Output};
use aws_sdk_s3::primitives::{ByteStream, DateTimeFormat};
use aws_sdk_s3::types::{BucketVersioningStatus, Delete, EncodingType, ObjectIdentifier, ObjectLockEnabled};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use md5::{Digest, Md5};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Action, Fault, Framing, MemoryStore, Operation, Serving, VersioningState, When};
use crate::clock::ManualClock;

const BUCKET: &str = "heimdall-synthetic-iq";
const ACCESS_KEY: &str = "reader";
const SECRET_KEY: &str = "reader-secret";
const START: &str = "2026-11-23T03:00:00.750Z";

struct World {
    clock: ManualClock,
    store: MemoryStore,
    serving: Serving,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::at(time(START));
        let store = MemoryStore::new(Arc::new(clock.clone()));
        store.create_bucket(BUCKET);
        let serving = store.serve(ACCESS_KEY, SECRET_KEY).await.expect("a free port");
        let client = client(&serving, ACCESS_KEY, SECRET_KEY);
        Self { clock, store, serving, client }
    }

    async fn with_keys(keys: &[&str]) -> Self {
        let world = Self::new().await;
        for key in keys {
            world.store.put(BUCKET, key, "iq");
        }
        world
    }

    fn inject(&self, operation: Operation, when: When, action: Action) {
        self.store.inject(Fault { operation, when, action });
    }

    async fn list(&self) -> ListObjectsV2Output {
        self.try_list().await.expect("a listing")
    }

    async fn try_list(&self) -> Result<ListObjectsV2Output, SdkError<ListObjectsV2Error>> {
        self.client.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url).send().await
    }

    async fn delete(&self, keys: &[&str]) -> Result<DeleteObjectsOutput, SdkError<DeleteObjectsError>> {
        self.client.delete_objects().bucket(BUCKET).delete(named(keys)).send().await
    }
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn client(serving: &Serving, access_key: &str, secret_key: &str) -> Client {
    // A server that never answers fails the test instead of hanging it.
    let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_mins(1)).build();
    Client::from_conf(
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(serving.endpoint())
            .force_path_style(true)
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build(),
    )
}

fn named(keys: &[&str]) -> Delete {
    let object = |key: &&str| ObjectIdentifier::builder().key(*key).build().expect("a key");
    Delete::builder().set_objects(Some(keys.iter().map(object).collect())).build().expect("a list of keys")
}

fn keys(page: &ListObjectsV2Output) -> Vec<String> {
    page.contents().iter().map(|object| object.key().expect("a key").to_owned()).collect()
}

fn prefixes(page: &ListObjectsV2Output) -> Vec<String> {
    page.common_prefixes().iter().map(|prefix| prefix.prefix().expect("a prefix").to_owned()).collect()
}

fn deleted_keys(output: &DeleteObjectsOutput) -> Vec<Option<&str>> {
    output.deleted().iter().map(|deleted| deleted.key()).collect()
}

fn status_and_code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> (u16, Option<&str>) {
    (error.raw_response().map_or(0, |raw| raw.status().as_u16()), error.code())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().expect("UTF-8").into_owned()
}

/// Sends `request` and reads until the server closes the connection.
async fn raw_exchange(serving: &Serving, request: &str) -> String {
    let address = serving.endpoint().strip_prefix("http://").expect("an http endpoint");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a clean end of the connection");
    reply
}

fn raw_listing() -> String {
    format!("GET /{BUCKET}?list-type=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

// ---- listing ----

#[tokio::test]
async fn listing_shows_every_key_once_in_byte_order_whatever_the_page_size() {
    let names = ["a", "a/b", "a//b", "a-b", "é", "b c", "z", "synthetic/x/1"];
    let world = World::with_keys(&names).await;
    let mut expected: Vec<_> = names.iter().map(|&key| key.to_owned()).collect();
    expected.sort();

    for max_keys in 1..=9 {
        let mut seen = Vec::new();
        let mut token = None;
        loop {
            let request = world.client.list_objects_v2().bucket(BUCKET).max_keys(max_keys);
            let page = request.set_continuation_token(token).send().await.expect("a page");
            assert_eq!(page.key_count(), i32::try_from(page.contents().len()).ok());
            assert_eq!(page.is_truncated(), Some(page.next_continuation_token().is_some()));
            seen.extend(keys(&page));
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "pages of {max_keys}");
    }
    assert_eq!(world.store.keys(BUCKET), expected);
}

#[tokio::test]
async fn page_that_ends_with_the_last_key_is_not_truncated() {
    let world = World::with_keys(&["a", "b"]).await;
    let page = world.client.list_objects_v2().bucket(BUCKET).max_keys(2).send().await.expect("a page");
    assert_eq!((page.is_truncated(), page.next_continuation_token()), (Some(false), None));
}

#[tokio::test]
async fn max_keys_is_clamped_to_a_thousand() {
    let world = World::new().await;
    for number in 0..1001 {
        world.store.put_sized(BUCKET, &format!("{number:04}"), 1, time(START));
    }
    let page = world.client.list_objects_v2().bucket(BUCKET).max_keys(5000).send().await.expect("a page");
    assert_eq!((page.contents().len(), page.max_keys(), page.is_truncated()), (1000, Some(1000), Some(true)));
}

#[tokio::test]
async fn delimiter_listing_folds_prefixes_and_pages_over_them() {
    let world = World::with_keys(&["s/1/a", "s/1/b", "s/2/a", "s/3", "s/3/a", "s/4/a/b", "t/1"]).await;
    for max_keys in 1..=6 {
        let (mut seen_keys, mut seen_prefixes, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let request = world.client.list_objects_v2().bucket(BUCKET).prefix("s/").delimiter("/").max_keys(max_keys);
            let page = request.set_continuation_token(token).send().await.expect("a page");
            assert!(page.key_count().expect("a count") <= max_keys);
            seen_keys.extend(keys(&page));
            seen_prefixes.extend(prefixes(&page));
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen_keys, ["s/3"], "pages of {max_keys}");
        assert_eq!(seen_prefixes, ["s/1/", "s/2/", "s/3/", "s/4/"], "pages of {max_keys}");
    }
}

#[tokio::test]
async fn token_still_holds_when_the_last_listed_key_is_gone() {
    let world = World::with_keys(&["a", "b", "c"]).await;
    let first = world.client.list_objects_v2().bucket(BUCKET).max_keys(2).send().await.expect("a page");
    world.store.remove(BUCKET, "b");
    let token = first.next_continuation_token().expect("a token");
    let second = world.client.list_objects_v2().bucket(BUCKET).continuation_token(token).send().await.expect("a page");
    assert_eq!(keys(&second), ["c"]);
}

#[tokio::test]
async fn start_after_inside_a_prefix_still_shows_what_is_left_of_it() {
    let world = World::with_keys(&["s/1/a", "s/1/b", "s/2/a"]).await;
    let request = world.client.list_objects_v2().bucket(BUCKET).prefix("s/").delimiter("/");
    let page = request.clone().start_after("s/1/a").send().await.expect("a page");
    assert_eq!(prefixes(&page), ["s/1/", "s/2/"]);
    let page = request.start_after("s/1/b").send().await.expect("a page");
    assert_eq!(prefixes(&page), ["s/2/"]);
}

#[tokio::test]
async fn made_up_token_is_refused() {
    let world = World::new().await;
    let request = world.client.list_objects_v2().bucket(BUCKET).continuation_token("no such thing");
    assert_eq!(status_and_code(&request.send().await.expect_err("refused")), (400, Some("InvalidArgument")));
}

#[tokio::test]
async fn encoding_is_the_dialect_of_minio() {
    let world = World::with_keys(&["p q+r*s/~é%\u{1}"]).await;
    let page = world.list().await;
    assert_eq!(keys(&page), ["p+q%2Br*s/%7E%C3%A9%25%01"]);
    assert_eq!(page.encoding_type(), Some(&EncodingType::Url));

    let request = world.client.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url);
    let page = request.prefix("p q+").delimiter("s/").send().await.expect("a page");
    assert_eq!((page.prefix(), page.delimiter()), (Some("p+q%2B"), Some("s/")));
    assert_eq!(prefixes(&page), ["p+q%2Br*s/"]);
}

#[tokio::test]
async fn listing_without_encoding_writes_what_xml_cannot_carry_as_minio_does() {
    // The client's parser accepts the reference to a control character, and fails the whole page on the raw one.
    let world = World::with_keys(&["a\u{1}", "b\rc", "d\u{fffe}", "e\u{ffff}"]).await;
    let page = world.client.list_objects_v2().bucket(BUCKET).send().await.expect("a page");
    assert_eq!(keys(&page), ["a\u{1}", "b\rc", "d\u{fffd}", "e\u{fffd}"]);
}

#[tokio::test]
async fn listing_carries_size_etag_and_milliseconds() {
    let world = World::with_keys(&["a"]).await;
    let page = world.list().await;
    let object = &page.contents()[0];
    let modified = object.last_modified().expect("a time").fmt(DateTimeFormat::DateTime).expect("a time");
    assert_eq!((object.size(), modified.as_str()), (Some(2), START.replace("750Z", "75Z").as_str()));
    assert_eq!(object.e_tag(), Some("\"795237fd9d107e63cd19b0db0f2fba2f\""));
}

#[tokio::test]
async fn object_without_last_modified_is_listed_without_it() {
    let world = World::new().await;
    world.store.put_at(BUCKET, "a", "iq", None);
    assert_eq!(world.list().await.contents()[0].last_modified(), None);
}

#[tokio::test]
async fn missing_bucket_is_an_error() {
    let world = World::new().await;
    let error = world.client.list_objects_v2().bucket("nowhere").send().await.expect_err("refused");
    assert_eq!(status_and_code(&error), (404, Some("NoSuchBucket")));
    assert!(world.client.head_bucket().bucket("nowhere").send().await.is_err());
    world.client.head_bucket().bucket(BUCKET).send().await.expect("it exists");
    world.client.create_bucket().bucket("nowhere").send().await.expect("it is made");
    world.client.head_bucket().bucket("nowhere").send().await.expect("it exists now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn encoded_keys_decode_to_themselves(names in prop::collection::btree_set("[\\PC\u{1}-\u{20}/+*%]{1,12}", 1..20)) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let world = World::new().await;
            for name in &names {
                world.store.put(BUCKET, name, "iq");
            }
            let listed: Vec<_> = keys(&world.list().await).iter().map(|key| decoded(key)).collect();
            assert_eq!(listed, names.into_iter().collect::<Vec<_>>());
        });
    }

    #[test]
    fn pages_by_delimiter_add_up_to_the_whole(
        names in prop::collection::btree_set("[ab/\u{d7ff}\u{10ffff}]{1,6}", 0..40),
        prefix in "[ab/]{0,2}",
        max_keys in 1_usize..5,
    ) {
        let mut bucket = super::state::Bucket::default();
        for name in &names {
            bucket.put(name, super::state::Revision::with_size(1, time(START)));
        }
        let mut expected = std::collections::BTreeSet::new();
        for name in names.iter().filter(|name| name.starts_with(&prefix)) {
            let end = name[prefix.len()..].find('/').map_or(name.len(), |at| prefix.len() + at + 1);
            expected.insert(name[..end].to_owned());
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let query = super::listing::Query {
                prefix: prefix.clone(),
                delimiter: Some("/".to_owned()),
                after,
                max_keys,
                shows_emptied_prefixes: true,
            };
            let page = super::listing::page(&bucket, &query);
            let mut entries: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
            entries.extend(page.common_prefixes);
            entries.sort();
            prop_assert!(entries.len() <= max_keys);
            seen.extend(entries);
            if !page.is_truncated {
                break;
            }
            after = page.last;
        }
        prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }
}

// ---- objects ----

#[tokio::test]
async fn object_that_was_put_comes_back() {
    let world = World::new().await;
    let put = world.client.put_object().bucket(BUCKET).key("dir//a b").body(ByteStream::from_static(b"0123456789"));
    let e_tag = put.send().await.expect("it is stored").e_tag().expect("an ETag").to_owned();

    let head = world.client.head_object().bucket(BUCKET).key("dir//a b").send().await.expect("it is there");
    assert_eq!((head.content_length(), head.e_tag()), (Some(10), Some(e_tag.as_str())));
    let modified = head.last_modified().expect("a time").fmt(DateTimeFormat::DateTime).expect("a time");
    assert_eq!(modified, "2026-11-23T03:00:00Z");
    let get = world.client.get_object().bucket(BUCKET).key("dir//a b").range("bytes=2-4").send().await.expect("a part");
    assert_eq!(get.body.collect().await.expect("a body").into_bytes(), "234");

    let error = world.client.get_object().bucket(BUCKET).key("absent").send().await.expect_err("refused");
    assert_eq!(status_and_code(&error), (404, Some("NoSuchKey")));
}

#[tokio::test]
async fn large_body_passes_through() {
    let world = World::new().await;
    let body = vec![7_u8; 5_000_000];
    let put = world.client.put_object().bucket(BUCKET).key("large").body(body.clone().into());
    put.send().await.expect("it is stored");
    let get = world.client.get_object().bucket(BUCKET).key("large").send().await.expect("it is there");
    assert_eq!(get.body.collect().await.expect("a body").into_bytes(), body);
}

#[tokio::test]
async fn put_that_must_be_the_first_is_refused_the_second_time() {
    let world = World::new().await;
    let put = || world.client.put_object().bucket(BUCKET).key("lock").if_none_match("*");
    put().send().await.expect("the first");
    assert_eq!(status_and_code(&put().send().await.expect_err("the second")), (412, Some("PreconditionFailed")));
}

#[tokio::test]
async fn sized_object_has_a_body_of_zeroes() {
    let world = World::new().await;
    world.store.put_sized(BUCKET, "a", 3, time(START));
    let get = world.client.get_object().bucket(BUCKET).key("a").send().await.expect("it is there");
    assert_eq!(get.body.collect().await.expect("a body").into_bytes(), "\0\0\0");
}

#[tokio::test]
async fn copied_object_is_new_and_the_same() {
    let world = World::with_keys(&["a b"]).await;
    world.clock.advance(TimeDelta::days(3));
    let copy = world.client.copy_object().bucket(BUCKET).key("q/a").copy_source(format!("{BUCKET}/a%20b"));
    copy.send().await.expect("it is copied");
    let page = world.list().await;
    let [source, copied] = page.contents() else { panic!("two objects") };
    assert_eq!((source.e_tag(), source.size()), (copied.e_tag(), copied.size()));
    assert!(copied.last_modified() > source.last_modified());
}

// ---- deletions ----

#[tokio::test]
async fn batch_deletes_what_it_names_and_absent_keys_too() {
    let world = World::with_keys(&["a", "b", "c"]).await;
    let output = world.delete(&["a", "absent", "c"]).await.expect("a reply");
    assert_eq!(deleted_keys(&output), [Some("a"), Some("absent"), Some("c")]);
    assert!(output.errors().is_empty());
    assert_eq!(world.store.keys(BUCKET), ["b"]);
}

#[tokio::test]
async fn quiet_batch_mentions_only_errors() {
    let world = World::with_keys(&["a", "b"]).await;
    let hit = Action::PerKeyError { code: "AccessDenied", keys_containing: "a".to_owned() };
    world.inject(Operation::DeleteObjects, When::Always, hit);
    let mut delete = named(&["a", "b"]);
    delete.quiet = Some(true);
    let output = world.client.delete_objects().bucket(BUCKET).delete(delete).send().await.expect("a reply");
    assert_eq!((output.deleted().len(), output.errors().len()), (0, 1));
    assert_eq!(world.store.keys(BUCKET), ["a"]);
}

#[tokio::test]
async fn key_named_twice_is_answered_without_a_key() {
    let world = World::with_keys(&["a"]).await;
    let output = world.delete(&["a", "a"]).await.expect("a reply");
    assert_eq!(deleted_keys(&output), [Some("a"), None]);
}

#[tokio::test]
async fn batch_that_minio_refuses_is_refused_whole() {
    let world = World::with_keys(&["a"]).await;
    let many: Vec<String> = (0..1001).map(|number| format!("k{number}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many[0] = "a";
    for keys in [many.as_slice(), &[], &["a", "b\u{1}"], &["a", "b\u{fffe}"], &["a", "b\u{ffff}"]] {
        let error = world.delete(keys).await.expect_err("refused");
        assert_eq!(status_and_code(&error), (400, Some("MalformedXML")), "{} keys", keys.len());
    }
    assert_eq!(world.store.keys(BUCKET), ["a"]);
    world.delete(&many[..1000]).await.expect("a thousand are accepted");
    assert!(world.store.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn batch_takes_tab_and_line_feed_and_reads_a_raw_carriage_return_as_one() {
    let world = World::with_keys(&["a\tb", "a\nb", "a\rb"]).await;
    let body = |key: &str| format!("<Delete><Object><Key>{key}</Key></Object></Delete>");
    let parsed = |text: String| {
        let request = super::wire::WireRequest {
            method: "POST".to_owned(),
            target: format!("/{BUCKET}?delete"),
            headers: Vec::new(),
            body: text.into(),
            is_last: false,
        };
        super::request::read(&request, time(START)).0.keys
    };
    assert_eq!(parsed(body("a\rb")), ["a\nb"]);
    assert_eq!(parsed(body("a&#13;b")), ["a\rb"]);

    world.delete(&["a\tb", "a\nb"]).await.expect("both are XML");
    assert_eq!(world.store.keys(BUCKET), ["a\rb"]);
    world.client.delete_object().bucket(BUCKET).key("a\rb").send().await.expect("singly it can be deleted");
    assert!(world.store.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn batch_needs_a_checksum_or_the_md5_of_old_servers() {
    let world = World::with_keys(&["a", "b", "c", "d"]).await;
    let without_checksum = |content_md5: Option<&'static str>| {
        move |request: &mut aws_sdk_s3::config::http::HttpRequest| {
            for name in ["x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm"] {
                request.headers_mut().remove(name);
            }
            if let Some(text) = content_md5 {
                let right = STANDARD.encode(Md5::digest(request.body().bytes().expect("a body in memory")));
                let md5 = if text == "right" { right } else { text.to_owned() };
                request.headers_mut().insert("content-md5", md5);
            }
        }
    };
    let delete = |key: &str| world.client.delete_objects().bucket(BUCKET).delete(named(&[key])).customize();

    let error = delete("a").mutate_request(without_checksum(None)).send().await.expect_err("refused");
    assert_eq!(status_and_code(&error), (400, Some("MissingContentMD5")));
    assert_eq!(world.store.keys(BUCKET).len(), 4);
    delete("a").mutate_request(without_checksum(Some("right"))).send().await.expect("the hash will do");
    delete("b").mutate_request(without_checksum(Some("d3Jvbmc="))).send().await.expect("a wrong hash is not looked at");
    let is_right: Vec<_> = world.store.requests().iter().map(|request| request.is_content_md5_right).collect();
    assert_eq!(is_right, [None, Some(true), Some(false)]);

    world.store.set_requires_content_md5(true);
    let error = world.delete(&["c"]).await.expect_err("a checksum alone is refused");
    assert_eq!(status_and_code(&error), (400, Some("MissingContentMD5")));
    delete("c").mutate_request(without_checksum(Some("right"))).send().await.expect("the hash will do");
    world.store.set_requires_content_md5(false);
    world.delete(&["d"]).await.expect("a checksum will do");
}

#[tokio::test]
async fn conditions_on_deletions_are_ignored() {
    let world = World::with_keys(&["a", "b"]).await;
    let stale = ObjectIdentifier::builder().key("a").e_tag("\"stale\"").build().expect("a key");
    let delete = Delete::builder().objects(stale).build().expect("a list of keys");
    world.client.delete_objects().bucket(BUCKET).delete(delete).send().await.expect("a reply");
    world.client.delete_object().bucket(BUCKET).key("b").if_match("\"stale\"").send().await.expect("a reply");
    assert!(world.store.keys(BUCKET).is_empty());
}

// ---- versions ----

#[tokio::test]
async fn versioned_bucket_marks_and_frees_nothing() {
    let world = World::with_keys(&["s/1/a", "s/2/a"]).await;
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    let status = world.client.get_bucket_versioning().bucket(BUCKET).send().await.expect("a reply");
    assert_eq!(status.status(), Some(&BucketVersioningStatus::Enabled));

    let output = world.delete(&["s/1/a"]).await.expect("a reply");
    let marker = &output.deleted()[0];
    assert_eq!(marker.delete_marker(), Some(true));
    let version_id = marker.delete_marker_version_id().expect("a version").to_owned();
    assert_eq!(world.store.keys(BUCKET), ["s/2/a"]);
    assert_eq!(world.store.stored_bytes(BUCKET), 4);

    let by_delimiter = world.client.list_objects_v2().bucket(BUCKET).prefix("s/").delimiter("/");
    assert_eq!(prefixes(&by_delimiter.clone().send().await.expect("a page")), ["s/1/", "s/2/"]);
    let inside = world.client.list_objects_v2().bucket(BUCKET).prefix("s/1/").send().await.expect("a page");
    assert_eq!(inside.key_count(), Some(0));
    world.store.set_lists_emptied_prefixes(false);
    assert_eq!(prefixes(&by_delimiter.send().await.expect("a page")), ["s/2/"]);

    let undelete = world.client.delete_object().bucket(BUCKET).key("s/1/a").version_id(version_id);
    undelete.send().await.expect("the marker is removed");
    assert_eq!(world.store.keys(BUCKET), ["s/1/a", "s/2/a"]);
    let for_good = world.client.delete_object().bucket(BUCKET).key("s/1/a").version_id("null");
    for_good.send().await.expect("the version is removed");
    assert_eq!(world.store.stored_bytes(BUCKET), 2);
}

#[tokio::test]
async fn emptied_prefixes_are_paged_in_order() {
    let world = World::with_keys(&["1/a", "2/a", "3/a", "4/a"]).await;
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    for key in ["1/a", "2/a", "3/a"] {
        world.store.remove(BUCKET, key);
    }
    world.store.put(BUCKET, "2/a", "written again");
    let first = world.client.list_objects_v2().bucket(BUCKET).delimiter("/").max_keys(3).send().await.expect("a page");
    assert_eq!(prefixes(&first), ["1/", "2/", "3/"]);
    let token = first.next_continuation_token().expect("a token");
    let second = world.client.list_objects_v2().bucket(BUCKET).delimiter("/").continuation_token(token);
    assert_eq!(prefixes(&second.send().await.expect("a page")), ["4/"]);
    let inside =
        world.client.list_objects_v2().bucket(BUCKET).prefix("2/").delimiter("/").send().await.expect("a page");
    assert_eq!(keys(&inside), ["2/a"]);
}

#[tokio::test]
async fn suspended_bucket_has_one_null_version() {
    let world = World::new().await;
    world.store.put(BUCKET, "a", "the first null version");
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    world.store.put(BUCKET, "a", "1");
    world.store.set_versioning(BUCKET, VersioningState::Suspended);
    world.store.put(BUCKET, "a", "22");
    world.store.put(BUCKET, "a", "333");
    assert_eq!(world.store.stored_bytes(BUCKET), 4);

    let output = world.delete(&["a"]).await.expect("a reply");
    assert_eq!(output.deleted()[0].delete_marker_version_id(), Some("null"));
    assert_eq!(world.store.stored_bytes(BUCKET), 1);
    assert!(world.store.keys(BUCKET).is_empty());
    let undelete = world.client.delete_object().bucket(BUCKET).key("a").version_id("null");
    undelete.send().await.expect("the marker is removed");
    assert_eq!(world.store.keys(BUCKET), ["a"]);
}

#[tokio::test]
async fn object_lock_is_answered_as_it_is_set() {
    let world = World::new().await;
    let request = world.client.get_object_lock_configuration().bucket(BUCKET);
    let error = request.clone().send().await.expect_err("none is set");
    assert_eq!(status_and_code(&error), (404, Some("ObjectLockConfigurationNotFoundError")));
    world.store.set_object_lock(BUCKET, true);
    let output = request.send().await.expect("a reply");
    let configuration = output.object_lock_configuration().expect("a configuration");
    assert_eq!(configuration.object_lock_enabled(), Some(&ObjectLockEnabled::Enabled));
}

#[tokio::test]
async fn uploads_are_found_by_exact_key_only() {
    let world = World::new().await;
    let upload = world.client.create_multipart_upload().bucket(BUCKET).key("m/one").send().await.expect("an upload");
    let upload_id = upload.upload_id().expect("an id");
    for (prefix, found) in [("", 1), ("m/", 0), ("m/one", 1)] {
        let request = world.client.list_multipart_uploads().bucket(BUCKET).prefix(prefix);
        assert_eq!(request.send().await.expect("a list").uploads().len(), found, "{prefix:?}");
    }
    let abort = world.client.abort_multipart_upload().bucket(BUCKET).key("m/one").upload_id(upload_id);
    abort.clone().send().await.expect("it is aborted");
    assert_eq!(status_and_code(&abort.send().await.expect_err("it is gone")), (404, Some("NoSuchUpload")));
}

#[tokio::test]
async fn uploads_are_paged_where_the_store_is_told_to() {
    let world = World::new().await;
    let at = time("2026-01-01T00:00:00Z");
    let ids = ["b c", "a", "b c"].map(|key| world.store.begin_upload(BUCKET, key, at));
    assert_eq!(world.store.uploads(BUCKET), ["b c", "a", "b c"]);
    world.store.set_uploads_a_page(2);
    let list = world.client.list_multipart_uploads().bucket(BUCKET).encoding_type(EncodingType::Url);
    let first = list.clone().send().await.expect("a page");
    let shown = |page: &aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput| {
        page.uploads().iter().map(|upload| upload.upload_id().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&first), [ids[1].clone(), ids[0].clone()]);
    assert_eq!((first.is_truncated(), first.next_key_marker()), (Some(true), Some("b+c")));
    let second = list.key_marker("b c").upload_id_marker(&ids[0]).send().await.expect("a page");
    assert_eq!((shown(&second), second.is_truncated()), (vec![ids[2].clone()], Some(false)));
}

#[tokio::test]
async fn versions_are_listed_by_key_the_newest_first_and_in_pages() {
    let world = World::with_keys(&["p/a", "q/a"]).await;
    world.store.set_versioning(BUCKET, VersioningState::Enabled);
    world.store.put(BUCKET, "p/a", "22");
    world.store.remove(BUCKET, "p/a");
    world.store.put(BUCKET, "p/b c", "1");
    let list = world.client.list_object_versions().bucket(BUCKET).prefix("p/").encoding_type(EncodingType::Url);
    let page = list.clone().send().await.expect("a page");
    let sizes: Vec<_> =
        page.versions().iter().map(|version| (version.key(), version.size(), version.is_latest())).collect();
    assert_eq!(
        sizes,
        [
            (Some("p/a"), Some(2), Some(false)),
            (Some("p/a"), Some(2), Some(false)),
            (Some("p/b+c"), Some(1), Some(true)),
        ]
    );
    assert_eq!((page.delete_markers().len(), page.delete_markers()[0].is_latest()), (1, Some(true)));
    let (mut entries, mut markers) = (0, (None, None));
    for last in [false, false, false, true] {
        let page = list.clone().max_keys(1).set_key_marker(markers.0).set_version_id_marker(markers.1);
        let page = page.send().await.expect("a page");
        entries += page.versions().len() + page.delete_markers().len();
        assert_eq!(page.is_truncated(), Some(!last));
        let key = page.next_key_marker().map(decoded);
        markers = (key, page.next_version_id_marker().map(str::to_owned));
    }
    assert_eq!(entries, 4);
}

#[tokio::test]
async fn folder_that_a_deletion_empties_is_left_where_the_store_is_told_to() {
    let world = World::with_keys(&["f/a", "f/b", "g/a"]).await;
    world.store.set_leaves_folders(true);
    world.delete(&["f/a", "g/a"]).await.expect("a reply");
    assert_eq!(world.store.keys(BUCKET), ["f/b", "g/"]);
    world.client.delete_object().bucket(BUCKET).key("f/b").send().await.expect("a reply");
    assert_eq!(world.store.keys(BUCKET), ["f/", "g/"]);
    world.delete(&["f/", "g/"]).await.expect("a reply");
    assert!(world.store.keys(BUCKET).is_empty());
}

// ---- who, when, and what is on record ----

#[tokio::test]
async fn only_known_and_allowed_keys_get_in() {
    let world = World::with_keys(&["a"]).await;
    let wrong = client(&world.serving, ACCESS_KEY, "wrong").list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(status_and_code(&wrong.expect_err("refused")), (403, Some("SignatureDoesNotMatch")));
    let unknown = client(&world.serving, "nobody", "x").list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(status_and_code(&unknown.expect_err("refused")), (403, Some("InvalidAccessKeyId")));
    assert!(raw_exchange(&world.serving, &raw_listing()).await.starts_with("HTTP/1.1 403 "));

    world.store.add_credentials("deleter", "deleter-secret");
    world.store.forbid(ACCESS_KEY, Operation::DeleteObjects);
    let error = world.delete(&["a"]).await.expect_err("refused");
    assert_eq!(status_and_code(&error), (403, Some("AccessDenied")));
    assert_eq!(world.store.keys(BUCKET), ["a"]);
    let deleter = client(&world.serving, "deleter", "deleter-secret");
    deleter.delete_objects().bucket(BUCKET).delete(named(&["a"])).send().await.expect("allowed");
    assert!(world.store.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn every_reply_carries_the_date_of_the_store_and_no_skew_is_refused() {
    let world = World::new().await;
    assert!(raw_exchange(&world.serving, &raw_listing()).await.contains("\r\ndate: Mon, 23 Nov 2026 03:00:00 GMT\r\n"));

    world.clock.advance(TimeDelta::days(4000));
    world.list().await;
    world.list().await;
    let told = time("2006-01-02T03:04:05Z");
    world.inject(Operation::ListObjectsV2, When::Times(1), Action::Date(told));
    assert!(raw_exchange(&world.serving, &raw_listing()).await.contains("\r\ndate: Mon, 02 Jan 2006 03:04:05 GMT\r\n"));
    world.inject(Operation::ListObjectsV2, When::Times(1), Action::Date(told));
    let slow_down = Action::Status { code: 503, s3_code: "SlowDown" };
    world.inject(Operation::ListObjectsV2, When::Times(1), slow_down);
    let reply = raw_exchange(&world.serving, &raw_listing()).await;
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("date: Mon, 02 Jan 2006"));
}

#[tokio::test]
async fn requests_are_on_record_as_they_came() {
    let world = World::with_keys(&["a/1", "a/2"]).await;
    let list = world.client.list_objects_v2().bucket(BUCKET).prefix("a/").max_keys(1);
    let page = list.clone().send().await.expect("a page");
    let token = page.next_continuation_token().expect("a token").to_owned();
    list.continuation_token(&token).send().await.expect("a page");
    world.clock.advance(TimeDelta::seconds(5));
    world.delete(&["a/1", "a/2"]).await.expect("a reply");
    world.client.put_object().bucket(BUCKET).key("b c").send().await.expect("it is stored");

    let requests = world.store.requests();
    let [first, second, deletion, put] = requests.as_slice() else { panic!("four requests") };
    assert_eq!((first.operation, first.prefix.as_deref()), (Operation::ListObjectsV2, Some("a/")));
    assert_eq!((first.continuation_token.as_ref(), second.continuation_token.as_ref()), (None, Some(&token)));
    assert_eq!(first.access_key.as_deref(), Some(ACCESS_KEY));
    assert_eq!((deletion.operation, deletion.bucket.as_str()), (Operation::DeleteObjects, BUCKET));
    assert_eq!(deletion.keys, ["a/1", "a/2"]);
    assert_eq!(deletion.at - first.at, TimeDelta::seconds(5));
    assert_eq!((put.operation, put.keys.as_slice()), (Operation::PutObject, ["b c".to_owned()].as_slice()));
    assert_eq!(world.store.count(Operation::ListObjectsV2), 2);
    world.store.clear_requests();
    assert_eq!(world.store.count(Operation::ListObjectsV2), 0);
}

#[tokio::test]
async fn operations_are_told_apart() {
    let world = World::with_keys(&["a"]).await;
    let client = &world.client;
    client.head_bucket().bucket(BUCKET).send().await.expect("a reply");
    client.get_bucket_versioning().bucket(BUCKET).send().await.expect("a reply");
    client.list_multipart_uploads().bucket(BUCKET).send().await.expect("a reply");
    client.list_object_versions().bucket(BUCKET).send().await.expect("a reply");
    client.get_object_lock_configuration().bucket(BUCKET).send().await.expect_err("none");
    client.create_bucket().bucket("another").send().await.expect("a reply");
    client.head_object().bucket(BUCKET).key("a").send().await.expect("a reply");
    client.get_object().bucket(BUCKET).key("a").send().await.expect("a reply");
    client.copy_object().bucket(BUCKET).key("b").copy_source(format!("{BUCKET}/a")).send().await.expect("a reply");
    client.delete_object().bucket(BUCKET).key("a").send().await.expect("a reply");
    client.get_object_tagging().bucket(BUCKET).key("a").send().await.expect_err("not there");
    client.get_bucket_tagging().bucket(BUCKET).send().await.expect_err("not implemented");
    let operations: Vec<_> = world.store.requests().iter().map(|request| request.operation).collect();
    let expected = [
        Operation::HeadBucket,
        Operation::GetBucketVersioning,
        Operation::ListMultipartUploads,
        Operation::ListObjectVersions,
        Operation::GetObjectLockConfiguration,
        Operation::CreateBucket,
        Operation::HeadObject,
        Operation::GetObject,
        Operation::CopyObject,
        Operation::DeleteObject,
        Operation::GetObjectTagging,
        Operation::Other,
    ];
    assert_eq!(operations, expected);
}

#[tokio::test]
async fn hook_changes_the_world_before_the_request_is_executed() {
    let world = World::with_keys(&["a"]).await;
    let runtime = tokio::runtime::Handle::current();
    world.store.on_request(move |request, store| {
        if request.operation == Operation::ListObjectsV2 {
            runtime.block_on(tokio::task::yield_now());
            store.put(BUCKET, "b", "iq");
        }
    });
    assert_eq!(keys(&world.list().await), ["a", "b"]);
    world.store.clear_hooks();
    world.store.remove(BUCKET, "b");
    assert_eq!(keys(&world.list().await), ["a"]);
}

// ---- faults that decide the whole reply ----

#[tokio::test]
async fn status_answers_an_error_and_executes_nothing() {
    let world = World::with_keys(&["a"]).await;
    let errors =
        [(503, "SlowDown"), (429, "TooManyRequests"), (403, "AccessDenied"), (500, "InternalError"), (200, "SlowDown")];
    for (code, s3_code) in errors {
        world.inject(Operation::DeleteObjects, When::Times(1), Action::Status { code, s3_code });
    }
    // Each of the rules is used up by one request, in their order.
    for expected in errors {
        let error = world.delete(&["a"]).await.expect_err("an error");
        assert_eq!(status_and_code(&error), (expected.0, Some(expected.1)));
    }
    assert_eq!(world.store.keys(BUCKET), ["a"]);
    world.delete(&["a"]).await.expect("the rules are used up");
    assert!(world.store.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn status_after_answers_an_error_for_what_was_done() {
    let world = World::with_keys(&["a"]).await;
    let action = Action::StatusAfter { code: 500, s3_code: "InternalError" };
    world.inject(Operation::DeleteObjects, When::Always, action);
    let error = world.delete(&["a"]).await.expect_err("an error");
    assert_eq!(status_and_code(&error), (500, Some("InternalError")));
    assert!(world.store.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn dropped_connections_differ_in_what_was_done() {
    let world = World::with_keys(&["a", "b"]).await;
    world.inject(Operation::DeleteObjects, When::Times(1), Action::DropConnection);
    let error = world.delete(&["a"]).await.expect_err("no reply");
    assert!(error.raw_response().is_none());
    assert_eq!(world.store.keys(BUCKET), ["a", "b"]);

    world.inject(Operation::DeleteObjects, When::Times(1), Action::DropAfter);
    let error = world.delete(&["a"]).await.expect_err("no reply");
    assert!(error.raw_response().is_none());
    assert_eq!(world.store.keys(BUCKET), ["b"]);
    assert_eq!(world.store.count(Operation::DeleteObjects), 2);
}

#[tokio::test]
async fn close_delimited_cut_is_a_clean_end_on_the_wire() {
    let world = World::new().await;
    let action = Action::CutBody { keep_bytes: 50, framing: Framing::CloseDelimited };
    world.inject(Operation::ListObjectsV2, When::Always, action);
    let keep_alive = raw_listing().replace("Connection: close\r\n", "");
    let reply = raw_exchange(&world.serving, &keep_alive).await;
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body.len(), 50);
    let head = head.to_ascii_lowercase();
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert!(head.contains("connection: close"));
}

#[tokio::test]
async fn close_delimited_cut_fools_the_client() {
    let world = World::with_keys(&["synthetic/one", "synthetic/two"]).await;
    let seen = |page: &ListObjectsV2Output| -> Vec<_> {
        page.contents().iter().map(|object| object.key().unwrap_or_default().to_owned()).collect()
    };
    // Cuts at every place give a shortened list and a shortened key, without any error.
    let mut fooled = Vec::new();
    for keep_bytes in 100..800 {
        let action = Action::CutBody { keep_bytes, framing: Framing::CloseDelimited };
        world.inject(Operation::ListObjectsV2, When::Times(1), action);
        if let Ok(page) = world.client.list_objects_v2().bucket(BUCKET).send().await {
            fooled.push(seen(&page));
        }
    }
    assert!(fooled.contains(&vec!["synthetic/one".to_owned()]));
    assert!(fooled.contains(&vec!["synthetic/o".to_owned()]));
}

#[tokio::test]
async fn cut_below_the_content_length_is_seen() {
    let world = World::with_keys(&["a"]).await;
    let action = Action::CutBody { keep_bytes: 100, framing: Framing::ContentLength };
    world.inject(Operation::ListObjectsV2, When::Times(2), action);
    let reply = raw_exchange(&world.serving, &raw_listing()).await;
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
    assert!(body.len() == 100 && length > 100);

    world.try_list().await.expect_err("the client sees it");
    world.list().await;
}

#[tokio::test]
async fn hung_request_is_executed_after_the_client_has_gone() {
    let world = World::with_keys(&["a"]).await;
    world.inject(Operation::DeleteObjects, When::Times(1), Action::Hang(Duration::from_millis(500)));
    let request = world.client.delete_objects().bucket(BUCKET).delete(named(&["a"])).send();
    let call = tokio::spawn(request);
    while world.store.count(Operation::DeleteObjects) == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(world.store.keys(BUCKET), ["a"]);
    while !world.store.keys(BUCKET).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rule_hits_the_requests_that_it_names() {
    let world = World::with_keys(&["a/1", "b/1"]).await;
    let fail = Action::Status { code: 500, s3_code: "InternalError" };
    world.inject(Operation::ListObjectsV2, When::Nth(2), fail.clone());
    assert_eq!(
        [world.try_list().await.is_ok(), world.try_list().await.is_ok(), world.try_list().await.is_ok()],
        [true, false, true]
    );
    world.inject(Operation::ListObjectsV2, When::ForPrefix("a/".to_owned()), fail.clone());
    world.inject(Operation::DeleteObjects, When::ForPrefix("a/".to_owned()), fail);
    let list = |prefix: &str| world.client.list_objects_v2().bucket(BUCKET).prefix(prefix).send();
    assert!(list("a/").await.is_err());
    assert!(list("b/").await.is_ok());
    assert!(list("").await.is_ok());
    assert!(world.delete(&["b/1", "a/1"]).await.is_err());
    assert!(world.delete(&["b/1"]).await.is_ok());
    world.store.clear_faults();
    assert!(list("a/").await.is_ok());
}

// ---- faults of single keys ----

#[tokio::test]
async fn key_faults_hit_the_keys_that_they_name() {
    let world = World::with_keys(&["denied", "omitted", "ghost", "plain"]).await;
    let containing = |text: &str| text.to_owned();
    for action in [
        Action::PerKeyError { code: "SlowDown", keys_containing: containing("denied") },
        Action::OmitFromReply { keys_containing: containing("omit") },
        Action::GhostDelete { keys_containing: containing("host") },
    ] {
        world.inject(Operation::DeleteObjects, When::Times(1), action);
    }
    let output = world.delete(&["denied", "omitted", "ghost", "plain"]).await.expect("a reply");
    assert_eq!(deleted_keys(&output), [Some("ghost"), Some("plain")]);
    let errors: Vec<_> = output.errors().iter().map(|error| (error.key(), error.code())).collect();
    assert_eq!(errors, [(Some("denied"), Some("SlowDown"))]);
    assert_eq!(world.store.keys(BUCKET), ["denied", "ghost"]);
    world.inject(Operation::DeleteObjects, When::Times(1), Action::Locked { keys_containing: containing("denied") });
    let output = world.delete(&["denied"]).await.expect("a reply");
    let errors: Vec<_> = output.errors().iter().map(|error| (error.code(), error.message())).collect();
    assert_eq!(errors, [(Some("InvalidRequest"), Some("Object is WORM protected and cannot be overwritten"))]);
    assert_eq!(world.store.keys(BUCKET), ["denied", "ghost"]);
    let denied = Action::PerKeyError { code: "AccessDenied", keys_containing: String::new() };
    world.inject(Operation::DeleteObject, When::Times(1), denied);
    let error = world.client.delete_object().bucket(BUCKET).key("ghost").send().await.expect_err("refused");
    assert_eq!(status_and_code(&error), (403, Some("AccessDenied")));
    world.inject(Operation::DeleteObject, When::Times(1), Action::GhostDelete { keys_containing: String::new() });
    for expected in [vec!["denied", "ghost"], vec!["denied"]] {
        world.client.delete_object().bucket(BUCKET).key("ghost").send().await.expect("a reply");
        assert_eq!(world.store.keys(BUCKET), expected);
    }
}

// ---- faults of listings ----

async fn bent(action: Action) -> ListObjectsV2Output {
    let world = World::with_keys(&["p/a b", "p/c", "p/d"]).await;
    world.inject(Operation::ListObjectsV2, When::Always, action);
    let request = world.client.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url);
    request.prefix("p/").send().await.expect("a page")
}

#[tokio::test]
async fn listing_faults_bend_the_page() {
    let page = bent(Action::TruncatedWithoutToken).await;
    assert_eq!((page.is_truncated(), page.next_continuation_token()), (Some(true), None));

    assert_eq!(bent(Action::OmitIsTruncated).await.is_truncated(), None);
    assert_eq!(keys(&bent(Action::UnorderedKeys).await), ["p/d", "p/c", "p/a+b"]);
    assert_eq!(bent(Action::WrongKeyCount).await.key_count(), Some(4));

    let page = bent(Action::ForeignKey("other/x y".to_owned())).await;
    assert_eq!((keys(&page)[0].as_str(), page.key_count()), ("other/x+y", Some(4)));

    let page = bent(Action::EmptiedPrefix("p/e/".to_owned())).await;
    assert_eq!(
        (prefixes(&page).len(), page.key_count()),
        (0, Some(3)),
        "a listing without a delimiter has no prefixes"
    );

    let page = bent(Action::IgnoreEncodingType).await;
    assert_eq!((keys(&page)[0].as_str(), page.encoding_type()), ("p/a b", None));

    let page = bent(Action::StaleEmpty).await;
    assert_eq!((page.contents().len(), page.key_count(), page.is_truncated()), (0, Some(0), Some(false)));

    let page = bent(Action::LastModified(None)).await;
    assert!(page.contents().iter().all(|object| object.last_modified().is_none()));
    let page = bent(Action::LastModified(Some(time("0001-01-01T00:00:00Z")))).await;
    assert!(
        page.contents().iter().all(|object| object.last_modified().is_some_and(|time| time.secs() < -60_000_000_000))
    );
}

#[tokio::test]
async fn repeated_token_is_the_one_of_the_request() {
    let world = World::with_keys(&["a", "b", "c", "d"]).await;
    world.inject(Operation::ListObjectsV2, When::Always, Action::RepeatToken);
    let list = world.client.list_objects_v2().bucket(BUCKET).max_keys(2);
    let first = list.clone().send().await.expect("a page");
    let token = first.next_continuation_token().expect("a token");
    let second = list.continuation_token(token).send().await.expect("a page");
    assert_eq!((second.next_continuation_token(), second.is_truncated()), (Some(token), Some(true)));
}

#[tokio::test]
async fn unordered_prefixes_are_reversed_too() {
    let world = World::with_keys(&["p/1/a", "p/2/a"]).await;
    world.inject(Operation::ListObjectsV2, When::Always, Action::UnorderedKeys);
    let page = world.client.list_objects_v2().bucket(BUCKET).prefix("p/").delimiter("/").send().await.expect("a page");
    assert_eq!(prefixes(&page), ["p/2/", "p/1/"]);
}

// ---- serving ----

#[tokio::test]
async fn many_requests_at_once_are_answered() {
    let world = World::with_keys(&["a"]).await;
    let pages = join_all((0..64).map(|_| world.try_list())).await;
    assert!(pages.iter().all(Result::is_ok));
    assert_eq!(world.store.count(Operation::ListObjectsV2), 64);
}

#[tokio::test]
async fn stopped_server_is_gone_and_the_store_remains() {
    let world = World::with_keys(&["a"]).await;
    world.serving.stop().await;
    world.client.list_objects_v2().bucket(BUCKET).send().await.expect_err("nobody answers");
    let again = world.store.serve(ACCESS_KEY, SECRET_KEY).await.expect("a free port");
    let page = client(&again, ACCESS_KEY, SECRET_KEY).list_objects_v2().bucket(BUCKET).send().await.expect("a page");
    assert_eq!(keys(&page), ["a"]);
    let endpoint = again.endpoint().strip_prefix("http://").expect("an http endpoint").to_owned();
    drop(again);
    while TcpStream::connect(&endpoint).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn delimiter_listing_pages_over_a_hundred_thousand_objects() {
    let world = World::new().await;
    for group in 0..2000 {
        for object in 0..50 {
            world.store.put_sized(BUCKET, &format!("synthetic/{group:05}/{object:03}.npy"), 4096, time(START));
        }
    }
    let request = || world.client.list_objects_v2().bucket(BUCKET).prefix("synthetic/").delimiter("/");
    let page = request().send().await.expect("a page");
    assert_eq!((page.common_prefixes().len(), page.is_truncated()), (1000, Some(true)));
    let token = page.next_continuation_token().expect("a token");
    let page = request().continuation_token(token).send().await.expect("a page");
    assert_eq!((page.common_prefixes().len(), page.is_truncated()), (1000, Some(false)));
}

#[tokio::test]
async fn an_object_in_parts_is_copied_along_its_boundaries_with_all_that_it_carries() {
    use crate::s3::{Copied, CopyStore as _, ReadBack, WriteWhen};
    use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
    let world = World::with_keys(&[]).await;
    let client = &world.client;
    let begun = client.create_multipart_upload().bucket(BUCKET).key("a").content_type("x/y").metadata("m", "1");
    let begun = begun.tagging("t=a%20b").send().await.expect("begun");
    let upload = begun.upload_id().expect("an id");
    let mut parts = Vec::new();
    for (number, body) in [(1, "first "), (2, "second")] {
        let part = client.upload_part().bucket(BUCKET).key("a").upload_id(upload).part_number(number);
        let sent = part.body(body.as_bytes().to_vec().into()).send().await.expect("a part");
        parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
    }
    let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let completed = client.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(upload);
    let etag = completed.multipart_upload(whole).send().await.expect("completed").e_tag.expect("an ETag");
    assert!(etag.ends_with("-2\""), "{etag}");
    let part = client.head_object().bucket(BUCKET).key("a").part_number(2).send().await.expect("a part");
    assert_eq!((part.parts_count(), part.content_length()), (Some(2), Some(6)));

    let copier = crate::s3::Connection::of_client(client.clone()).copying();
    let place = |key: &str| crate::s3::Place::current(BUCKET, crate::model::ObjectKey::new(key));
    let seen = copier.head(&place("a")).await.expect("answered").expect("there");
    let copied = copier.copy(&place("a"), &seen, &place("b"), WriteWhen::Absent).await.expect("answered");
    assert_eq!(copied, Copied::Done);
    assert_eq!(copier.head(&place("b")).await.expect("answered").expect("there").etag, etag);
    assert_eq!(copier.head(&place("b")).await.expect("answered").expect("there").carried, seen.carried);
    let tags = client.get_object_tagging().bucket(BUCKET).key("b").send().await.expect("tags");
    assert_eq!((tags.tag_set()[0].key(), tags.tag_set()[0].value()), ("t", "a b"));
    let whole = copier.read_back(&place("b"), &seen).await.expect("answered");
    assert_eq!(whole, ReadBack::Whole { size_bytes: 12, hash: crate::model::Sha256Hash::of(b"first second") });

    // What is there is not overwritten, and another source is not copied.
    let copied = copier.copy(&place("a"), &seen, &place("b"), WriteWhen::Absent).await.expect("answered");
    assert_eq!(copied, Copied::ConditionFailed);
    world.store.put(BUCKET, "a", "third");
    let copied = copier.copy(&place("a"), &seen, &place("c"), WriteWhen::Always).await;
    assert!(!matches!(copied, Ok(Copied::Done)), "{copied:?}");
    assert_eq!(world.store.keys(BUCKET), ["a", "b"]);
}
