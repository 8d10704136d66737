//! The S3 operations on the state, as strict as MinIO and as lenient where MinIO is.
//!
//! Takes requests that the S3 library has authenticated and parsed; gives its replies, bent where a fault says so.
//! Invariant: a request that is refused has changed nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, BucketVersioningStatus, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteMarkerEntry, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, EncodingType,
    Error, GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectLockConfigurationInput,
    GetObjectLockConfigurationOutput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsV2Input, ListObjectsV2Output, MultipartUpload,
    Object, ObjectLockConfiguration, ObjectLockEnabled, ObjectStorageClass, ObjectVersion, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::MemoryStore;
use super::copies;
use super::faults::ListingFault;
use super::listing::{self, Encoding, Listed, Marker, Page, Query};
use super::server::{Exchange, exchange};
use super::state::{Bucket, Deletion, Listed as VersionListed, Revision, VersioningState};

/// The most that a page holds, and the most keys that one `DeleteObjects` may name.
const MAX_KEYS: usize = 1000;
/// The longest body that is made up for an object of which only the size is held.
const MAX_MADE_UP_BYTES: u64 = 64 * 1024 * 1024;

/// The S3 operations of a store.
pub(super) struct Operations {
    store: MemoryStore,
}

impl Operations {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.store.0.clock.now()
    }

    pub(super) fn in_bucket<T>(&self, name: &str, act: impl FnOnce(&mut Bucket) -> T) -> S3Result<T> {
        let mut buckets = self.store.0.buckets.lock();
        let bucket = buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket))?;
        Ok(act(bucket))
    }

    /// The object, or that version of it.
    pub(super) fn object(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Revision> {
        let find = |bucket: &mut Bucket| match version {
            None => bucket.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey)),
            Some(id) => bucket.version(key, id).cloned().ok_or_else(|| s3_error!(NoSuchVersion)),
        };
        self.in_bucket(bucket, find)?
    }
}

/// What the object that a request writes will carry; both requests have the same fields.
macro_rules! extras_of {
    ($input:ident) => {
        copies::extras_of_put(
            [
                $input.content_type,
                $input.content_encoding,
                $input.content_disposition,
                $input.content_language,
                $input.cache_control,
            ],
            $input.metadata,
            $input.tagging.as_deref(),
        )
    };
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let mut buckets = self.store.0.buckets.lock();
        if buckets.contains_key(&req.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{}", req.input.bucket));
        buckets.insert(req.input.bucket, Bucket::default());
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.in_bucket(&req.input.bucket, |_| ())?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let status = self.in_bucket(&req.input.bucket, |bucket| match bucket.versioning {
            VersioningState::Unversioned => None,
            VersioningState::Enabled => Some(BucketVersioningStatus::ENABLED),
            VersioningState::Suspended => Some(BucketVersioningStatus::SUSPENDED),
        })?;
        let status = status.map(BucketVersioningStatus::from_static);
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() }))
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        if !self.in_bucket(&req.input.bucket, |bucket| bucket.has_object_lock)? {
            return Err(s3_error!(ObjectLockConfigurationNotFoundError));
        }
        let object_lock_enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
        Ok(S3Response::new(GetObjectLockConfigurationOutput {
            object_lock_configuration: Some(ObjectLockConfiguration { object_lock_enabled, rule: None }),
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mut body = input.body.map_or_else(Body::empty, Body::from);
        let body = body.store_all_limited(usize::MAX).await.map_err(|error| {
            let mut refusal = s3_error!(IncompleteBody);
            refusal.set_source(error);
            refusal
        })?;
        // The bytes as they arrived share a buffer with the head of the request, which would be kept with the object.
        let extras = extras_of!(input);
        let revision = Revision::with_body(Bytes::copy_from_slice(&body), Some(self.now())).carrying(extras);
        let e_tag = Some(ETag::Strong(revision.e_tag(&input.key)));
        let only_if_absent = matches!(input.if_none_match, Some(ETagCondition::Any));
        let put = |bucket: &mut Bucket| {
            if only_if_absent && bucket.get(&input.key).is_some() {
                return Err(s3_error!(PreconditionFailed));
            }
            Ok(bucket.put(&input.key, revision))
        };
        let version_id = self.in_bucket(&input.bucket, put)??;
        Ok(S3Response::new(PutObjectOutput { e_tag, version_id, ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let damage = exchange(req.extensions.get())?.effects.copy;
        self.copy_whole(&req.input, damage).map(S3Response::new)
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let damage = exchange(req.extensions.get())?.effects.copy;
        self.copy_part(&req.input, damage).map(S3Response::new)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.write_part(req.input).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete(req.input).map(S3Response::new)
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let revision = self.object(&req.input.bucket, &req.input.key, req.input.version_id.as_deref())?;
        Ok(S3Response::new(copies::tagging_of(&revision)))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let revision = self.object(&input.bucket, &input.key, input.version_id.as_deref())?;
        copies::check_if_match(input.if_match.as_ref(), &revision, &input.key)?;
        let body = match &revision.content {
            Some(content) => content.bytes.clone(),
            None => zeroes(revision.size_bytes)?,
        };
        let (body, content_range) = match input.range {
            None => (body, None),
            Some(range) => {
                let span = range.check(revision.size_bytes)?;
                let content_range = format!("bytes {}-{}/{}", span.start, span.end - 1, revision.size_bytes);
                let start = usize::try_from(span.start).expect("a range within a body in memory");
                let end = usize::try_from(span.end).expect("a range within a body in memory");
                (body.slice(start..end), Some(content_range))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(body.len()).ok(),
            content_range,
            e_tag: Some(ETag::Strong(revision.e_tag(&input.key))),
            last_modified: revision.last_modified.map(timestamp),
            body: Some(StreamingBlob::from(Body::from(body))),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let revision = self.object(&input.bucket, &input.key, input.version_id.as_deref())?;
        copies::check_if_match(input.if_match.as_ref(), &revision, &input.key)?;
        copies::head_of(&revision, &input.key, input.part_number).map(S3Response::new)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let exchange = exchange(req.extensions.get())?;
        let faults = &exchange.effects.listing;
        let encoding = requested_encoding(req.input.encoding_type.as_ref())?;
        let query = self.query(&req.input)?;
        let page = self.in_bucket(&req.input.bucket, |bucket| listing::page(bucket, &query))?;
        let is_encoding_ignored = faults.iter().any(|fault| matches!(fault, ListingFault::IgnoreEncodingType));
        let encoding = if is_encoding_ignored { Encoding::Raw } else { encoding };
        let mut output = render(req.input, &query, page, encoding);
        for fault in faults {
            bend(&mut output, fault, encoding, &exchange);
        }
        Ok(S3Response::new(output))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        // `If-Match` is not looked at: MinIO deletes in spite of it, and a guard that relies on it must show here.
        let fault = exchange(req.extensions.get())?.effects.deletion_of(&input.key);
        if let Some((code, message)) = fault.error {
            let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
            return Err(S3Error::with_message(code, message));
        }
        let deletion = self.in_bucket(&input.bucket, |bucket| {
            (!fault.keeps).then(|| delete(bucket, &input.key, input.version_id.as_deref())).flatten()
        })?;
        self.leave_folders(&input.bucket, [input.key.as_str()])?;
        let marker = deletion.and_then(marker_of);
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: marker.as_ref().map(|_| true),
            version_id: marker.or(input.version_id),
            ..DeleteObjectOutput::default()
        }))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let exchange = exchange(req.extensions.get())?;
        let has_checksum = req.headers.keys().any(|name| is_checksum(name.as_str()));
        let has_md5 = exchange.request.content_md5.is_some();
        let is_md5_demanded = self.store.0.requires_content_md5.load(Ordering::Relaxed);
        if !has_md5 && (is_md5_demanded || !has_checksum) {
            return Err(missing_content_md5());
        }
        let delete = exchange.delete.as_ref().ok_or_else(|| s3_error!(MalformedXML))?;
        let is_writable = |text: &str| text.chars().all(is_xml_char);
        let is_valid = delete.objects.iter().all(|object| is_writable(&object.key));
        if !is_valid || delete.objects.is_empty() || delete.objects.len() > MAX_KEYS {
            return Err(s3_error!(MalformedXML));
        }
        let (deleted, errors) = self.in_bucket(&req.input.bucket, |bucket| delete_all(bucket, delete, &exchange))?;
        self.leave_folders(&req.input.bucket, delete.objects.iter().map(|object| object.key.as_str()))?;
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!delete.quiet.unwrap_or_default()).then_some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let (bucket, key, now) = (input.bucket, input.key, self.now());
        let extras = extras_of!(input);
        let upload_id = self.in_bucket(&bucket, |state| {
            let id = state.begin_upload(key.clone(), now);
            state.upload(&key, &id).expect("it was begun just now").extras = extras;
            id
        })?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        if !self.in_bucket(&input.bucket, |bucket| bucket.abort_upload(&input.key, &input.upload_id))? {
            return Err(s3_error!(NoSuchUpload));
        }
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let encoding = requested_encoding(input.encoding_type.as_ref())?;
        let prefix = input.prefix.unwrap_or_default();
        // MinIO reads the prefix as the key of one object, so that a real prefix finds nothing.
        let mut uploads: Vec<_> = self
            .in_bucket(&input.bucket, |bucket| bucket.uploads.clone())?
            .into_iter()
            .filter(|upload| prefix.is_empty() || upload.key == prefix)
            .collect();
        let most = self.store.0.uploads_a_page.load(Ordering::Relaxed);
        let is_paged = most < usize::MAX;
        if is_paged {
            uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
            let after = (input.key_marker.unwrap_or_default(), input.upload_id_marker.unwrap_or_default());
            uploads.retain(|upload| (&upload.key, &upload.id) > (&after.0, &after.1));
        }
        let is_truncated = uploads.len() > most;
        uploads.truncate(most);
        let last = uploads.last().filter(|_| is_truncated);
        let (next_key_marker, next_upload_id_marker) =
            last.map(|last| (encoding.apply(&last.key), last.id.clone())).unzip();
        let listed = uploads.into_iter().map(|upload| MultipartUpload {
            key: Some(encoding.apply(&upload.key)),
            upload_id: Some(upload.id),
            initiated: Some(timestamp(upload.initiated_at)),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(encoding.apply(&prefix)),
            encoding_type: echoed(encoding),
            is_truncated: Some(is_truncated),
            next_key_marker,
            next_upload_id_marker,
            uploads: Some(listed.collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let encoding = requested_encoding(input.encoding_type.as_ref())?;
        let prefix = input.prefix.unwrap_or_default();
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let mut listed = self.in_bucket(&input.bucket, |bucket| bucket.versions(&prefix))?;
        if let Some(key) = &input.key_marker {
            let is_last = |version: &VersionListed| {
                version.key == *key && Some(&version.version_id) == input.version_id_marker.as_ref()
            };
            let next = match listed.iter().position(is_last) {
                Some(last) => last + 1,
                None => listed.partition_point(|version| version.key <= *key),
            };
            listed.drain(..next);
        }
        let is_truncated = listed.len() > most;
        listed.truncate(most);
        let last = listed.last().filter(|_| is_truncated);
        let (next_key_marker, next_version_id_marker) =
            last.map(|last| (encoding.apply(&last.key), last.version_id.clone())).unzip();
        let (mut versions, mut delete_markers) = (Vec::new(), Vec::new());
        for VersionListed { key, version_id, is_latest, revision } in listed {
            let (is_latest, version_id) = (Some(is_latest), Some(version_id));
            let shown = Some(encoding.apply(&key));
            match revision {
                Some(revision) => versions.push(ObjectVersion {
                    key: shown,
                    version_id,
                    is_latest,
                    size: i64::try_from(revision.size_bytes).ok(),
                    e_tag: Some(ETag::Strong(revision.e_tag(&key))),
                    last_modified: revision.last_modified.map(timestamp),
                    ..ObjectVersion::default()
                }),
                None => delete_markers.push(DeleteMarkerEntry {
                    key: shown,
                    version_id,
                    is_latest,
                    ..DeleteMarkerEntry::default()
                }),
            }
        }
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(&prefix)),
            encoding_type: echoed(encoding),
            is_truncated: Some(is_truncated),
            next_key_marker,
            next_version_id_marker,
            versions: Some(versions),
            delete_markers: Some(delete_markers),
            ..ListObjectVersionsOutput::default()
        }))
    }
}

impl Operations {
    /// What a gateway to a file system does after a deletion.
    fn leave_folders<'k>(&self, bucket: &str, keys: impl IntoIterator<Item = &'k str>) -> S3Result<()> {
        if !self.store.0.leaves_folders.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = self.now();
        self.in_bucket(bucket, |bucket| keys.into_iter().for_each(|key| bucket.leave_folder(key, now)))
    }

    fn query(&self, input: &ListObjectsV2Input) -> S3Result<Query> {
        let max_keys = match input.max_keys {
            None => MAX_KEYS,
            Some(count) => usize::try_from(count).map_err(|_| s3_error!(InvalidArgument))?.min(MAX_KEYS),
        };
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(Marker::from_token(token).ok_or_else(|| s3_error!(InvalidArgument))?),
            (None, Some(key)) => Some(Marker::Key(key.clone())),
            (None, None) => None,
        };
        Ok(Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after,
            max_keys,
            shows_emptied_prefixes: self.store.0.lists_emptied_prefixes.load(Ordering::Relaxed),
        })
    }
}

fn requested_encoding(encoding: Option<&EncodingType>) -> S3Result<Encoding> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(Encoding::Raw),
        Some(name) if name.eq_ignore_ascii_case(EncodingType::URL) => Ok(Encoding::Url),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
    }
}

fn echoed(encoding: Encoding) -> Option<EncodingType> {
    match encoding {
        Encoding::Raw => None,
        Encoding::Url => Some(EncodingType::from_static(EncodingType::URL)),
    }
}

fn render(input: ListObjectsV2Input, query: &Query, page: Page, encoding: Encoding) -> ListObjectsV2Output {
    let key_count = page.objects.len() + page.common_prefixes.len();
    let is_truncated = page.is_truncated;
    let next_continuation_token = page.last.filter(|_| is_truncated).map(|last| last.to_token());
    let contents = page.objects.into_iter().map(|object| render_object(object, encoding)).collect();
    let common_prefix = |prefix: String| CommonPrefix { prefix: Some(encoding.apply(&prefix)) };
    ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(&query.prefix)),
        delimiter: query.delimiter.as_ref().map(|delimiter| encoding.apply(delimiter)),
        start_after: input.start_after.map(|key| encoding.apply(&key)),
        continuation_token: input.continuation_token,
        max_keys: i32::try_from(query.max_keys).ok(),
        key_count: i32::try_from(key_count).ok(),
        is_truncated: Some(is_truncated),
        next_continuation_token,
        contents: Some(contents),
        common_prefixes: Some(page.common_prefixes.into_iter().map(common_prefix).collect()),
        encoding_type: echoed(encoding),
        request_charged: None,
    }
}

fn render_object(object: Listed, encoding: Encoding) -> Object {
    Object {
        key: Some(encoding.apply(&object.key)),
        size: i64::try_from(object.size_bytes).ok(),
        e_tag: Some(ETag::Strong(object.e_tag)),
        last_modified: object.last_modified.map(timestamp),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    }
}

/// Turns an honest page into the one that `fault` asks for.
fn bend(output: &mut ListObjectsV2Output, fault: &ListingFault, encoding: Encoding, exchange: &Exchange) {
    match fault {
        ListingFault::TruncatedWithoutToken => {
            output.is_truncated = Some(true);
            output.next_continuation_token = None;
        }
        ListingFault::RepeatToken => {
            let first = || Marker::Key(output.prefix.clone().unwrap_or_default()).to_token();
            let own = output.next_continuation_token.clone();
            let repeated = output.continuation_token.clone().or(own).unwrap_or_else(first);
            output.is_truncated = Some(true);
            output.next_continuation_token = Some(repeated);
        }
        ListingFault::OmitIsTruncated => output.is_truncated = None,
        ListingFault::UnorderedKeys => {
            output.contents.iter_mut().for_each(|contents| contents.reverse());
            output.common_prefixes.iter_mut().for_each(|prefixes| prefixes.reverse());
        }
        ListingFault::ForeignKey(key) => {
            let foreign = Listed {
                key: key.clone(),
                size_bytes: 0,
                last_modified: Some(exchange.request.at),
                e_tag: format!("{:032x}", 0),
            };
            let foreign = render_object(foreign, encoding);
            let contents = output.contents.get_or_insert_default();
            let at = contents.partition_point(|object| object.key < foreign.key);
            contents.insert(at, foreign);
            output.key_count = output.key_count.map(|count| count + 1);
        }
        ListingFault::EmptiedPrefix(prefix) => {
            let shown = encoding.apply(prefix);
            let prefixes = output.common_prefixes.get_or_insert_default();
            let at = prefixes.partition_point(|listed| listed.prefix.as_ref() < Some(&shown));
            let is_there = prefixes.get(at).is_some_and(|listed| listed.prefix.as_ref() == Some(&shown));
            if output.delimiter.is_some() && !is_there {
                prefixes.insert(at, CommonPrefix { prefix: Some(shown) });
                output.key_count = output.key_count.map(|count| count + 1);
            }
        }
        ListingFault::WrongKeyCount => output.key_count = output.key_count.map(|count| count + 1),
        // Done while the page was written.
        ListingFault::IgnoreEncodingType => {}
        ListingFault::StaleEmpty => {
            output.contents = None;
            output.common_prefixes = None;
            output.key_count = Some(0);
            output.is_truncated = Some(false);
            output.next_continuation_token = None;
        }
        ListingFault::LastModified(time) => {
            for object in output.contents.iter_mut().flatten() {
                object.last_modified = time.map(timestamp);
            }
        }
    }
}

/// Deletes the keys of one request in their order.
fn delete_all(
    bucket: &mut Bucket,
    request: &s3s::dto::Delete,
    exchange: &Arc<Exchange>,
) -> (Vec<DeletedObject>, Vec<Error>) {
    let mut seen = HashSet::new();
    let mut deleted = Vec::new();
    let mut errors = Vec::new();
    for object in &request.objects {
        if !seen.insert((&object.key, &object.version_id)) {
            // MinIO answers a key that is named twice with an entry that has no key.
            deleted.push(DeletedObject::default());
            continue;
        }
        let fault = exchange.effects.deletion_of(&object.key);
        let version_id = object.version_id.clone();
        if let Some((code, message)) = fault.error {
            let message = Some(message.to_owned());
            errors.push(Error { code: Some(code.to_owned()), key: Some(object.key.clone()), message, version_id });
            continue;
        }
        // An `ETag` in the request is not looked at: MinIO deletes in spite of it.
        let deletion = (!fault.keeps).then(|| delete(bucket, &object.key, version_id.as_deref())).flatten();
        if fault.is_mentioned {
            let delete_marker_version_id = deletion.and_then(marker_of);
            deleted.push(DeletedObject {
                delete_marker: delete_marker_version_id.as_ref().map(|_| true),
                delete_marker_version_id,
                key: Some(object.key.clone()),
                version_id,
            });
        }
    }
    (deleted, errors)
}

/// `None` where one version was named, which leaves nothing behind.
fn delete(bucket: &mut Bucket, key: &str, version_id: Option<&str>) -> Option<Deletion> {
    match version_id {
        None => Some(bucket.delete(key)),
        Some(id) => {
            bucket.delete_version(key, id);
            None
        }
    }
}

fn marker_of(deletion: Deletion) -> Option<String> {
    match deletion {
        Deletion::Removed => None,
        Deletion::Marked(version_id) => Some(version_id),
    }
}

/// Whether a header carries a checksum of the body, and does not just name an algorithm.
fn is_checksum(header: &str) -> bool {
    header
        .strip_prefix("x-amz-checksum-")
        .is_some_and(|kind| matches!(kind, "crc32" | "crc32c" | "crc64nvme" | "sha1" | "sha256"))
}

fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

fn missing_content_md5() -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::Custom("MissingContentMD5".into()),
        "Missing required header for this request: Content-Md5.",
    );
    error.set_status_code(400_u16.try_into().expect("400 is an HTTP status"));
    error
}

pub(super) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from(SystemTime::from(time))
}

pub(super) fn zeroes(size_bytes: u64) -> S3Result<Bytes> {
    match usize::try_from(size_bytes) {
        Ok(length) if size_bytes <= MAX_MADE_UP_BYTES => Ok(Bytes::from(vec![0; length])),
        _ => Err(s3_error!(NotImplemented, "this object has a size and no body")),
    }
}
