//! Copies objects within the store, and reads them back to prove that a copy is the object.
//!
//! Takes places and what was seen of the source; gives whether a whole, equal object lies at the target. Invariant: a
//! copy is made of the very object that was seen (by its entity tag), keeps metadata, tags and content headers, and counts
//! only after size, headers and the SHA-256 of the streamed bytes are the source's. Memory is bounded by one piece of a body.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective, TaggingDirective};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::connect::CONNECT_TIMEOUT;
use super::error::classify;
use super::{Carried, Copied, CopyStore, Head, Place, ReadBack, StoreError, StoreFault, WriteWhen};
use crate::model::Sha256Hash;

const HEAD: &str = "HeadObject";
const GET: &str = "GetObject";
const TAGS: &str = "GetObjectTagging";
const COPY: &str = "CopyObject";
const BEGIN: &str = "CreateMultipartUpload";
const PART: &str = "UploadPartCopy";
const COMPLETE: &str = "CompleteMultipartUpload";

/// The most that one `CopyObject` or one part may hold.
const LARGEST_SINGLE_BYTES: u64 = 5 << 30;
/// Parts of a source whose own boundaries the store does not tell.
const PART_BYTES: u64 = 512 << 20;
/// The most parts of one upload.
const MOST_PARTS: u64 = 10_000;
/// Parts of one object that are copied at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Longest wait for a copy: a store copies up to 5 GiB before it answers.
const COPY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Longest wait for the next piece of a body.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a copy source may hold unescaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Copies within the store.
#[derive(Debug, Clone)]
pub struct S3Copy {
    client: Client,
}

impl S3Copy {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// More time than other requests get.
    fn patient() -> aws_sdk_s3::config::Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(COPY_TIMEOUT)
            .operation_attempt_timeout(COPY_TIMEOUT)
            .operation_timeout(COPY_TIMEOUT)
            .build();
        aws_sdk_s3::Config::builder().timeout_config(timeouts)
    }

    async fn copy_whole(
        &self,
        source: &Place,
        seen: &Head,
        target: &Place,
        when: WriteWhen,
    ) -> Result<Copied, StoreError> {
        let sent = self
            .client
            .copy_object()
            .copy_source(copy_source(source))
            .copy_source_if_match(&seen.etag)
            .bucket(&target.bucket)
            .key(target.key.as_str())
            .metadata_directive(MetadataDirective::Copy)
            .tagging_directive(TaggingDirective::Copy)
            .set_if_none_match(when.condition())
            .customize()
            .config_override(Self::patient())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Copied::Done),
            Err(error) => copied_or_error(COPY, &error),
        }
    }

    async fn copy_in_parts(
        &self,
        source: &Place,
        seen: &Head,
        target: &Place,
        when: WriteWhen,
    ) -> Result<Copied, StoreError> {
        let Some(parts) = self.parts_of(source, seen).await? else {
            return self.copy_whole(source, seen, target, when).await;
        };
        let tags = self.tags(source).await?;
        let carried = &seen.carried;
        let metadata = (!carried.metadata.is_empty()).then(|| carried.metadata.clone().into_iter().collect());
        let expires = carried.expires.as_deref().and_then(read_http_date);
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&target.bucket)
            .key(target.key.as_str())
            .set_content_type(carried.content_type.clone())
            .set_content_encoding(carried.content_encoding.clone())
            .set_content_disposition(carried.content_disposition.clone())
            .set_content_language(carried.content_language.clone())
            .set_cache_control(carried.cache_control.clone())
            .set_expires(expires)
            .set_metadata(metadata)
            .set_tagging(tags)
            .send()
            .await
            .map_err(|error| classify(BEGIN, &error))?;
        let upload = begun.upload_id().ok_or_else(|| StoreError::malformed(BEGIN, "it has no upload id"))?;
        let copied = self.copy_parts(source, seen, target, (upload, &parts, when)).await;
        if !matches!(copied, Ok(Copied::Done)) {
            // Best effort: what is left of an upload is no object, and the store drops it in time.
            let abort = self.client.abort_multipart_upload().bucket(&target.bucket).key(target.key.as_str());
            if let Err(error) = abort.upload_id(upload).send().await {
                tracing::debug!(error = %classify("AbortMultipartUpload", &error), "an upload could not be aborted");
            }
        }
        copied
    }

    async fn copy_part(
        &self,
        (source, seen): (&Place, &Head),
        target: &Place,
        (upload, number, (first, last)): (&str, i32, (u64, u64)),
    ) -> Result<Result<CompletedPart, Copied>, StoreError> {
        let sent = self
            .client
            .upload_part_copy()
            .copy_source(copy_source(source))
            .copy_source_if_match(&seen.etag)
            .copy_source_range(format!("bytes={first}-{last}"))
            .bucket(&target.bucket)
            .key(target.key.as_str())
            .upload_id(upload)
            .part_number(number)
            .customize()
            .config_override(Self::patient())
            .send()
            .await;
        let output = match sent {
            Ok(output) => output,
            Err(error) => return copied_or_error(PART, &error).map(Err),
        };
        let etag = output.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
        let etag = etag.ok_or_else(|| StoreError::malformed(PART, "a part has no ETag"))?;
        Ok(Ok(CompletedPart::builder().part_number(number).e_tag(etag).build()))
    }

    async fn copy_parts(
        &self,
        source: &Place,
        seen: &Head,
        target: &Place,
        (upload, parts, when): (&str, &[(u64, u64)], WriteWhen),
    ) -> Result<Copied, StoreError> {
        let numbered: Vec<_> = parts.iter().copied().zip(1_i32..).collect();
        let copies = futures::stream::iter(numbered)
            .map(|(range, number)| self.copy_part((source, seen), target, (upload, number, range)));
        let copied: Vec<Result<CompletedPart, Copied>> = copies.buffered(PARTS_AT_ONCE).try_collect().await?;
        let done = match copied.into_iter().collect::<Result<Vec<_>, Copied>>() {
            Ok(done) => done,
            Err(refused) => return Ok(refused),
        };
        let sent = self
            .client
            .complete_multipart_upload()
            .bucket(&target.bucket)
            .key(target.key.as_str())
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(done)).build())
            .set_if_none_match(when.condition())
            .customize()
            .config_override(Self::patient())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Copied::Done),
            Err(error) => copied_or_error(COMPLETE, &error),
        }
    }

    /// The first and the last byte of each part, along the source's own boundaries where the store tells them; `None`
    /// where one request copies it all.
    async fn parts_of(&self, source: &Place, seen: &Head) -> Result<Option<Vec<(u64, u64)>>, StoreError> {
        let mut sizes = Vec::new();
        let mut count = 1;
        while i32::try_from(sizes.len()).unwrap_or(i32::MAX) < count {
            let number = i32::try_from(sizes.len() + 1).unwrap_or(i32::MAX);
            let head = self
                .client
                .head_object()
                .bucket(&source.bucket)
                .key(source.key.as_str())
                .set_version_id(source.version.clone())
                .if_match(&seen.etag)
                .part_number(number)
                .send()
                .await
                .map_err(|error| classify(HEAD, &error))?;
            match head.parts_count() {
                Some(told) if number == 1 => count = told,
                Some(_) => {}
                None => break,
            }
            sizes.push(head.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0));
        }
        let is_told = !sizes.contains(&0) && sizes.iter().sum::<u64>() == seen.size_bytes;
        if !is_told {
            if seen.size_bytes <= LARGEST_SINGLE_BYTES {
                return Ok(None);
            }
            let size = PART_BYTES.max(seen.size_bytes.div_ceil(MOST_PARTS));
            sizes = even_parts(seen.size_bytes, size);
        }
        let mut first = 0;
        let ranges = sizes.into_iter().map(|size| {
            let range = (first, first + size - 1);
            first += size;
            range
        });
        Ok(Some(ranges.collect()))
    }

    /// The tags, as a request writes them; `None` where there are none.
    async fn tags(&self, place: &Place) -> Result<Option<String>, StoreError> {
        let sent = self
            .client
            .get_object_tagging()
            .bucket(&place.bucket)
            .key(place.key.as_str())
            .set_version_id(place.version.clone())
            .send()
            .await;
        let output = match sent {
            Ok(output) => output,
            Err(error) if matches!(error.code(), Some("NotImplemented" | "NoSuchTagSet")) => return Ok(None),
            Err(error) => return Err(classify(TAGS, &error)),
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(output.tag_set().iter().map(|tag| (tag.key(), tag.value())));
        Ok(Some(query.finish()).filter(|tags| !tags.is_empty()))
    }
}

#[async_trait]
impl CopyStore for S3Copy {
    async fn head(&self, place: &Place) -> Result<Option<Head>, StoreError> {
        let sent = self
            .client
            .head_object()
            .bucket(&place.bucket)
            .key(place.key.as_str())
            .set_version_id(place.version.clone())
            .send()
            .await;
        match sent {
            Ok(output) => read_head(&output).map(Some).map_err(|what| StoreError::malformed(HEAD, what)),
            Err(error) if status_of(&error) == Some(404) => Ok(None),
            Err(error) => Err(classify(HEAD, &error)),
        }
    }

    async fn copy(&self, source: &Place, seen: &Head, target: &Place, when: WriteWhen) -> Result<Copied, StoreError> {
        let is_multipart = seen.etag.trim_matches('"').contains('-');
        let fits = seen.size_bytes <= LARGEST_SINGLE_BYTES;
        if seen.size_bytes == 0 || fits && !is_multipart {
            return self.copy_whole(source, seen, target, when).await;
        }
        self.copy_in_parts(source, seen, target, when).await
    }

    async fn read_back(&self, place: &Place, seen: &Head) -> Result<ReadBack, StoreError> {
        let sent = self
            .client
            .get_object()
            .bucket(&place.bucket)
            .key(place.key.as_str())
            .set_version_id(place.version.clone())
            .if_match(&seen.etag)
            .send()
            .await;
        let mut output = match sent {
            Ok(output) => output,
            Err(error) => {
                return match status_of(&error) {
                    Some(404) => Ok(ReadBack::Gone),
                    Some(412) => Ok(ReadBack::Changed),
                    _ => Err(classify(GET, &error)),
                };
            }
        };
        let cut = |what: String| StoreError { operation: GET, fault: StoreFault::NoReply(what) };
        let (mut hash, mut size_bytes) = (Sha256::new(), 0_u64);
        loop {
            let piece = tokio::time::timeout(PIECE_TIMEOUT, output.body.next());
            match piece.await.map_err(|_| cut("the body stalled".into()))? {
                Some(Ok(bytes)) => {
                    size_bytes += bytes.len() as u64;
                    hash.update(&bytes);
                }
                Some(Err(error)) => return Err(cut(error.to_string())),
                None => break,
            }
        }
        Ok(ReadBack::Whole { size_bytes, hash: Sha256Hash(hash.finalize().into()) })
    }
}

impl WriteWhen {
    fn condition(self) -> Option<String> {
        match self {
            Self::Always => None,
            Self::Absent => Some("*".to_owned()),
        }
    }
}

fn even_parts(total: u64, size: u64) -> Vec<u64> {
    let whole = usize::try_from(total / size).unwrap_or(usize::MAX);
    let mut sizes = vec![size; whole];
    sizes.extend(Some(total % size).filter(|rest| *rest > 0));
    sizes
}

/// The source as the header spells it: the key percent-encoded byte for byte.
fn copy_source(place: &Place) -> String {
    let key = utf8_percent_encode(place.key.as_str(), PLAIN);
    let version = place.version.as_ref().map(|version| format!("?versionId={}", utf8_percent_encode(version, PLAIN)));
    format!("{}/{key}{}", place.bucket, version.unwrap_or_default())
}

fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A condition that did not hold is an answer, not a failure.
fn copied_or_error<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> Result<Copied, StoreError> {
    match error.code() {
        Some("PreconditionFailed" | "ConditionalRequestConflict") => Ok(Copied::ConditionFailed),
        Some("NoSuchKey" | "NoSuchVersion") => Ok(Copied::SourceGone),
        _ => Err(classify(operation, error)),
    }
}

fn read_http_date(text: &str) -> Option<aws_sdk_s3::primitives::DateTime> {
    let time = DateTime::parse_from_rfc2822(text).ok()?;
    Some(aws_sdk_s3::primitives::DateTime::from_secs(time.timestamp()))
}

fn read_head(output: &HeadObjectOutput) -> Result<Head, String> {
    let size = output.content_length().ok_or("it has no size")?;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(Head {
        size_bytes: u64::try_from(size).map_err(|_| "it has a negative size")?,
        etag: output.e_tag().ok_or("it has no ETag")?.to_owned(),
        last_modified: output.last_modified().and_then(|time| DateTime::from_timestamp(time.secs(), 0)),
        carried: Carried {
            content_type: owned(output.content_type()),
            content_encoding: owned(output.content_encoding()),
            content_disposition: owned(output.content_disposition()),
            content_language: owned(output.content_language()),
            cache_control: owned(output.cache_control()),
            expires: owned(output.expires_string()),
            metadata: output
                .metadata()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<BTreeMap<_, _>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectKey;

    #[test]
    fn a_source_is_spelled_so_that_every_byte_comes_back() {
        for (key, spelled) in [
            ("a/b.npy", "b/a/b.npy"),
            ("a b+c%d?e", "b/a%20b%2Bc%25d%3Fe"),
            ("\u{1}ü\r", "b/%01%C3%BC%0D"),
            ("k/", "b/k/"),
        ] {
            let place = Place { bucket: "b".into(), key: ObjectKey::new(key), version: None };
            assert_eq!(copy_source(&place), spelled);
        }
        let place = Place { bucket: "b".into(), key: ObjectKey::new("k"), version: Some("1-2".into()) };
        assert_eq!(copy_source(&place), "b/k?versionId=1-2");
    }

    #[test]
    fn even_parts_add_up() {
        for (total, size) in [(10, 3), (9, 3), (1, 5), (5 << 30, PART_BYTES), ((5 << 40) + 1, (5 << 40) / 9_999)] {
            let parts = even_parts(total, size);
            assert_eq!(parts.iter().sum::<u64>(), total);
            assert!(parts.iter().all(|part| *part > 0 && *part <= size) && parts.len() as u64 <= MOST_PARTS);
        }
    }
}
