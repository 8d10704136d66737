//! Copies and parts: what a client does that moves an object within the store, or writes one in several requests.
//!
//! Takes parsed requests; gives replies, or a copy that is damaged where a fault says so. Invariant: a condition that does
//! not hold has changed nothing.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CopyObjectResult,
    CopyPartResult, CopySource, ETag, ETagCondition, GetObjectTaggingOutput, HeadObjectOutput, Tag,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3Result, s3_error};
use url::form_urlencoded;

use super::faults::Damage;
use super::service::{Operations, timestamp, zeroes};
use super::state::{Bucket, Extras, Revision};

/// What a request says of an object besides its bytes: type, encoding, disposition, language, caching; metadata; tags.
pub(super) fn extras_of_put(
    [content_type, content_encoding, content_disposition, content_language, cache_control]: [Option<String>; 5],
    metadata: Option<HashMap<String, String>>,
    tagging: Option<&str>,
) -> Extras {
    Extras {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        metadata: metadata.unwrap_or_default().into_iter().collect(),
        tags: form_urlencoded::parse(tagging.unwrap_or_default().as_bytes()).into_owned().collect(),
        parts: Vec::new(),
    }
}

/// Refuses where another object is there than the one that was meant.
pub(super) fn check_if_match(condition: Option<&ETagCondition>, revision: &Revision, key: &str) -> S3Result<()> {
    match condition.and_then(ETagCondition::as_etag) {
        Some(wanted) if wanted.value() != revision.e_tag(key) => Err(s3_error!(PreconditionFailed)),
        Some(_) | None => Ok(()),
    }
}

/// What `HeadObject` says of an object, or of one of its parts.
pub(super) fn head_of(revision: &Revision, key: &str, part: Option<i32>) -> S3Result<HeadObjectOutput> {
    let extras = revision.extras();
    let (size, parts_count) = match part {
        None => (revision.size_bytes, None),
        Some(1) if extras.parts.is_empty() => (revision.size_bytes, None),
        Some(number) => {
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            let size = index.and_then(|index| extras.parts.get(index)).ok_or_else(|| s3_error!(InvalidPart))?;
            (*size, i32::try_from(extras.parts.len()).ok())
        }
    };
    Ok(HeadObjectOutput {
        content_length: i64::try_from(size).ok(),
        e_tag: Some(ETag::Strong(revision.e_tag(key))),
        last_modified: revision.last_modified.map(timestamp),
        content_type: extras.content_type,
        content_encoding: extras.content_encoding,
        content_disposition: extras.content_disposition,
        content_language: extras.content_language,
        cache_control: extras.cache_control,
        metadata: Some(extras.metadata.into_iter().collect()),
        parts_count,
        ..HeadObjectOutput::default()
    })
}

/// The tags of an object.
pub(super) fn tagging_of(revision: &Revision) -> GetObjectTaggingOutput {
    let tag = |(key, value)| Tag { key: Some(key), value: Some(value) };
    GetObjectTaggingOutput { tag_set: revision.extras().tags.into_iter().map(tag).collect(), version_id: None }
}

fn bytes_of(revision: &Revision) -> S3Result<Bytes> {
    match &revision.content {
        Some(content) => Ok(content.bytes.clone()),
        None => zeroes(revision.size_bytes),
    }
}

fn damaged(bytes: Bytes, damage: Option<Damage>) -> Bytes {
    match damage {
        Some(Damage::AlteredByte) => {
            let mut altered = bytes.to_vec();
            if let Some(last) = altered.last_mut() {
                *last ^= 1;
            }
            altered.into()
        }
        Some(Damage::CutByte) => bytes.slice(..bytes.len().saturating_sub(1)),
        Some(Damage::LostMetadata | Damage::NotWritten) | None => bytes,
    }
}

impl Operations {
    fn copied_from(&self, source: &CopySource, condition: Option<&ETagCondition>) -> S3Result<Revision> {
        let CopySource::Bucket { bucket, key, version_id } = source else { return Err(s3_error!(NotImplemented)) };
        let revision = self.object(bucket, key, version_id.as_deref())?;
        check_if_match(condition, &revision, key)?;
        Ok(revision)
    }

    /// `CopyObject`. As on MinIO, an object in parts becomes one without, so that its ETag is another.
    pub(super) fn copy_whole(&self, input: &CopyObjectInput, damage: Option<Damage>) -> S3Result<CopyObjectOutput> {
        let source = self.copied_from(&input.copy_source, input.copy_source_if_match.as_ref())?;
        let now = self.now();
        let mut extras = source.extras();
        extras.parts.clear();
        if damage == Some(Damage::LostMetadata) {
            extras.metadata = BTreeMap::new();
        }
        let revision = match (&source.content, damage) {
            // Of an object of which only the size is held, the copy is one as well.
            (None, None) => Revision::with_size(source.size_bytes, now),
            _ => Revision::with_body(damaged(bytes_of(&source)?, damage), Some(now)),
        }
        .carrying(extras);
        let e_tag = Some(ETag::Strong(revision.e_tag(&input.key)));
        // `If-None-Match` on a copy is not looked at, so that a guard that relies on it shows here.
        let version_id = self.in_bucket(&input.bucket, |bucket: &mut Bucket| {
            if damage == Some(Damage::NotWritten) { None } else { bucket.put(&input.key, revision) }
        })?;
        let last_modified = Some(timestamp(now));
        Ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult { e_tag, last_modified, ..CopyObjectResult::default() }),
            version_id,
            ..CopyObjectOutput::default()
        })
    }

    /// `UploadPartCopy`.
    pub(super) fn copy_part(
        &self,
        input: &UploadPartCopyInput,
        damage: Option<Damage>,
    ) -> S3Result<UploadPartCopyOutput> {
        let source = self.copied_from(&input.copy_source, input.copy_source_if_match.as_ref())?;
        let bytes = bytes_of(&source)?;
        let bytes = match input.copy_source_range.as_deref() {
            None => bytes,
            Some(range) => {
                let ends = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
                let ends = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse::<usize>().ok()?)));
                let (first, last): (usize, usize) = ends.ok_or_else(|| s3_error!(InvalidArgument))?;
                if first > last || last >= bytes.len() {
                    return Err(s3_error!(InvalidRange));
                }
                bytes.slice(first..=last)
            }
        };
        let e_tag =
            self.add_part(&input.bucket, (&input.key, &input.upload_id), input.part_number, damaged(bytes, damage))?;
        let copy_part_result = Some(CopyPartResult { e_tag: Some(e_tag), ..CopyPartResult::default() });
        Ok(UploadPartCopyOutput { copy_part_result, ..UploadPartCopyOutput::default() })
    }

    /// `UploadPart`.
    pub(super) async fn write_part(&self, input: UploadPartInput) -> S3Result<UploadPartOutput> {
        let mut body = input.body.map_or_else(Body::empty, Body::from);
        let bytes = body.store_all_limited(usize::MAX).await.map_err(|_| s3_error!(IncompleteBody))?;
        let bytes = Bytes::copy_from_slice(&bytes);
        let e_tag = self.add_part(&input.bucket, (&input.key, &input.upload_id), input.part_number, bytes)?;
        Ok(UploadPartOutput { e_tag: Some(e_tag), ..UploadPartOutput::default() })
    }

    fn add_part(&self, bucket: &str, (key, id): (&str, &str), number: i32, bytes: Bytes) -> S3Result<ETag> {
        let e_tag = Revision::with_body(bytes.clone(), None).e_tag(key);
        self.in_bucket(bucket, |bucket: &mut Bucket| {
            let upload = bucket.upload(key, id).ok_or_else(|| s3_error!(NoSuchUpload))?;
            upload.parts.insert(number, bytes);
            Ok(ETag::Strong(e_tag))
        })?
    }

    /// `CompleteMultipartUpload`.
    pub(super) fn complete(&self, input: CompleteMultipartUploadInput) -> S3Result<CompleteMultipartUploadOutput> {
        let now = self.now();
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let only_if_absent = matches!(input.if_none_match, Some(ETagCondition::Any));
        let (e_tag, version_id) = self.in_bucket(&input.bucket, |bucket: &mut Bucket| {
            if only_if_absent && bucket.get(&input.key).is_some() {
                return Err(s3_error!(PreconditionFailed));
            }
            let upload = bucket.upload(&input.key, &input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
            let mut extras = upload.extras.clone();
            let mut bytes = Vec::new();
            for part in &named {
                let number = part.part_number.ok_or_else(|| s3_error!(InvalidPart))?;
                let part = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
                extras.parts.push(part.len() as u64);
                bytes.extend_from_slice(part);
            }
            let revision = Revision::with_body(bytes.into(), Some(now)).carrying(extras);
            let e_tag = revision.e_tag(&input.key);
            bucket.abort_upload(&input.key, &input.upload_id);
            Ok((e_tag, bucket.put(&input.key, revision)))
        })??;
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(e_tag)),
            version_id,
            ..CompleteMultipartUploadOutput::default()
        })
    }
}
