//! Reads listings, one page at a time, decoded byte for byte.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{BucketVersioningStatus, EncodingType};
use chrono::DateTime;
use percent_encoding::percent_decode;

use super::error::classify;
use super::witness::Witness;
use super::{Marker, Page, PageRequest, ReadStore, StoreError, UploadsPage, VersionsPage, hidden};
use crate::model::{Object, ObjectKey, Timestamp, Versioning};

const LIST: &str = "ListObjectsV2";

/// Reads one bucket.
#[derive(Debug)]
pub struct S3Read {
    client: Client,
    bucket: String,
    list_requests: AtomicU64,
}

impl S3Read {
    pub(super) fn new(client: Client, bucket: &str) -> Self {
        Self { client, bucket: bucket.to_owned(), list_requests: AtomicU64::new(0) }
    }
}

#[async_trait]
impl ReadStore for S3Read {
    async fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.list_requests.fetch_add(1, Ordering::Relaxed);
        let witness = Witness::of("</ListBucketResult>");
        let output = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&request.prefix)
            .set_delimiter(request.by_delimiter.then(|| "/".to_owned()))
            .set_continuation_token(request.token.clone())
            // Without it a control character breaks the page, and MinIO turns U+FFFE into another character.
            .encoding_type(EncodingType::Url)
            .max_keys(1000)
            .customize()
            .interceptor(witness.clone())
            .send()
            .await
            .map_err(|error| classify(LIST, &error))?;
        let seen = witness.seen();
        if !seen.is_whole {
            return Err(StoreError::malformed(LIST, "the body is cut before its closing tag"));
        }
        let date = seen.date.ok_or_else(|| StoreError::malformed(LIST, "it has no `Date`"))?;
        read_page(output, date).map_err(|what| StoreError::malformed(LIST, what))
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        let output = self
            .client
            .get_bucket_versioning()
            .bucket(&self.bucket)
            .send()
            .await
            .map_err(|error| classify("GetBucketVersioning", &error))?;
        Ok(match output.status() {
            None => Versioning::Unversioned,
            Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
            Some(BucketVersioningStatus::Suspended) => Versioning::Suspended,
            Some(_) => Versioning::Unknown,
        })
    }

    fn list_requests(&self) -> u64 {
        self.list_requests.load(Ordering::Relaxed)
    }

    async fn uploads(&self, after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
        hidden::uploads(&self.client, &self.bucket, after).await
    }

    async fn versions(&self, prefix: &str, after: Option<&Marker>) -> Result<VersionsPage, StoreError> {
        hidden::versions(&self.client, &self.bucket, prefix, after).await
    }

    async fn has_object(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        hidden::has_object(&self.client, &self.bucket, key).await
    }
}

fn read_page(output: ListObjectsV2Output, date: Timestamp) -> Result<Page, String> {
    if output.encoding_type() != Some(&EncodingType::Url) {
        return Err("it ignores `encoding-type=url`, so its keys cannot be told apart".into());
    }
    let is_truncated = output.is_truncated().ok_or("it does not say whether it is truncated")?;
    let listed = output.contents().len() + output.common_prefixes().len();
    if let Some(count) = output.key_count()
        && usize::try_from(count) != Ok(listed)
    {
        return Err(format!("it holds {listed} entries and counts {count}"));
    }
    let prefixes = output.common_prefixes().iter().map(|entry| decode(entry.prefix().ok_or("a prefix is empty")?));
    let prefixes = prefixes.collect::<Result<_, String>>()?;
    let objects = output.contents().iter().map(read_object).collect::<Result<_, String>>()?;
    Ok(Page { objects, prefixes, is_truncated, next_token: output.next_continuation_token, date })
}

fn read_object(object: &aws_sdk_s3::types::Object) -> Result<Object, String> {
    let key = decode(object.key().ok_or("an object has no key")?)?;
    let size = object.size().ok_or("an object has no size")?;
    Ok(Object {
        key: ObjectKey::new(key),
        size_bytes: u64::try_from(size).map_err(|_| "an object has a negative size")?,
        etag: object.e_tag().ok_or("an object has no ETag")?.to_owned(),
        last_modified: object.last_modified().and_then(read_time),
    })
}

/// A time, where it can be told.
pub(super) fn read_time(time: &aws_sdk_s3::primitives::DateTime) -> Option<Timestamp> {
    DateTime::from_timestamp_millis(time.to_millis().ok()?)
}

/// Decodes a key or prefix that was listed with `encoding-type=url`: `+` is a space, then percent escapes.
pub(super) fn decode(listed: &str) -> Result<String, String> {
    let spaced = listed.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
    String::from_utf8(bytes).map_err(|_| "a key is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_of_a_space_and_an_encoded_plus_are_told_apart() {
        assert_eq!(decode("a+b").as_deref(), Ok("a b"));
        assert_eq!(decode("a%20b").as_deref(), Ok("a b"));
        assert_eq!(decode("a%2Bb").as_deref(), Ok("a+b"));
        assert_eq!(decode("a%252Bb").as_deref(), Ok("a%2Bb"));
        assert_eq!(decode("%01%EF%BF%BE").as_deref(), Ok("\u{1}\u{fffe}"));
        assert!(decode("%FF").is_err());
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in any::<String>()) {
            let encoded = utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(decode(&encoded), Ok(key));
        }

        #[test]
        fn arbitrary_text_never_panics(listed in any::<String>()) {
            let _ = decode(&listed);
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod document_tests;
