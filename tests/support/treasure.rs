//! Objects that are hard to move: with metadata, tags, content headers, in parts, empty, and with awkward keys.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::Bucket;

/// Everything that a client can see of an object but its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub etag: String,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    pub content_language: Option<String>,
    pub cache_control: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: Vec<(String, String)>,
}

const PART: usize = 5 * 1024 * 1024;

/// Names that MinIO takes and clients stumble over.
pub const AWKWARD: [&str; 8] =
    ["a b+c%2Bd.npy", "\u{1}", "line\nfeed", "ü/日本/😀", "?x=1&y#z", "'\"<>&", "star*[x]", "a\u{202e}b"];

/// Puts one of each kind under `prefix`.
pub async fn put_all(bucket: &Bucket, prefix: &str) {
    bucket
        .client
        .put_object()
        .bucket(&bucket.name)
        .key(format!("{prefix}plain.npy"))
        .body(ByteStream::from_static(b"the bytes of a recording"))
        .content_type("application/x-npy")
        .content_disposition("attachment; filename=\"x.npy\"")
        .content_language("en")
        .cache_control("max-age=60")
        .metadata("station", "north 7")
        .metadata("gain", "12.5")
        .tagging("kind=iq&site=A%20%2B%20B")
        .send()
        .await
        .expect("put");
    bucket.put(&format!("{prefix}empty"), b"").await;
    for name in AWKWARD {
        bucket.put(&format!("{prefix}{name}"), name.as_bytes()).await;
    }
    put_in_parts(bucket, &format!("{prefix}parts.npy")).await;
}

/// Puts an object in three parts of different sizes.
pub async fn put_in_parts(bucket: &Bucket, key: &str) {
    let begun = bucket
        .client
        .create_multipart_upload()
        .bucket(&bucket.name)
        .key(key)
        .content_type("application/x-parts")
        .content_encoding("identity")
        .metadata("parts", "three")
        .tagging("size=large&kind=iq")
        .send()
        .await
        .expect("begun");
    let upload = begun.upload_id().expect("an id");
    let mut done = Vec::new();
    for (number, size) in [(1, PART), (2, PART + 77), (3, 1234)] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from((at * 31 + size) % 251).expect("below 251")).collect();
        let sent = bucket
            .client
            .upload_part()
            .bucket(&bucket.name)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .expect("a part");
        done.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
    }
    bucket
        .client
        .complete_multipart_upload()
        .bucket(&bucket.name)
        .key(key)
        .upload_id(upload)
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(done)).build())
        .send()
        .await
        .expect("completed");
}

/// Reads an object with all that it carries.
pub async fn look(bucket: &Bucket, key: &str) -> Seen {
    let got = bucket.client.get_object().bucket(&bucket.name).key(key).send().await.expect("got");
    let tagging = bucket.client.get_object_tagging().bucket(&bucket.name).key(key).send().await.expect("tags");
    let mut tags: Vec<_> = tagging.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect();
    tags.sort();
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Seen {
        etag: got.e_tag().expect("an ETag").to_owned(),
        content_type: owned(got.content_type()),
        content_encoding: owned(got.content_encoding()),
        content_disposition: owned(got.content_disposition()),
        content_language: owned(got.content_language()),
        cache_control: owned(got.cache_control()),
        metadata: got.metadata().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        tags,
        bytes: got.body.collect().await.expect("read").to_vec(),
    }
}

/// Every object under `prefix`, with all that it carries; the keys without `prefix`.
pub async fn look_at_all(bucket: &Bucket, prefix: &str) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    for key in bucket.contents().await.into_keys() {
        if let Some(name) = key.strip_prefix(prefix) {
            all.insert(name.to_owned(), look(bucket, &key).await);
        }
    }
    all
}
