//! What arrived: a request as the record, the fault rules and the hooks of a test see it.
//!
//! Takes the parts of an HTTP request; gives a [`RecordedRequest`]. It is read before anything is executed or even
//! authenticated, so that a request which is then refused or dropped is on record as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use s3s::dto::Delete;
use s3s::xml::{Deserialize as _, Deserializer};
use url::form_urlencoded;

use super::wire::WireRequest;

/// An S3 operation, as far as the store tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the S3 operation of that name")]
pub enum Operation {
    ListObjectsV2,
    DeleteObjects,
    DeleteObject,
    PutObject,
    CopyObject,
    GetObject,
    HeadObject,
    HeadBucket,
    GetBucketVersioning,
    ListMultipartUploads,
    ListObjectVersions,
    CreateMultipartUpload,
    AbortMultipartUpload,
    CreateBucket,
    GetObjectLockConfiguration,
    GetObjectTagging,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    /// Any other.
    Other,
}

/// A request, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    /// What it asks for.
    pub operation: Operation,
    /// The bucket; empty where it names none.
    pub bucket: String,
    /// The prefix of a listing.
    pub prefix: Option<String>,
    /// The keys that it names.
    pub keys: Vec<String>,
    /// Who signed it.
    pub access_key: Option<String>,
    /// Its `Content-MD5` header.
    pub content_md5: Option<String>,
    /// Whether that header is the hash of the body, which the store demands no more than MinIO does.
    pub is_content_md5_right: Option<bool>,
    /// The continuation token of a listing.
    pub continuation_token: Option<String>,
    /// When it arrived, by the store's clock.
    pub at: DateTime<Utc>,
}

/// Reads what `request` asks for, and the body of a `DeleteObjects`.
pub(super) fn read(request: &WireRequest, at: DateTime<Utc>) -> (RecordedRequest, Option<Delete>) {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target.as_str(), ""));
    let query = Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect());
    let path = percent_decode_str(path.strip_prefix('/').unwrap_or(path)).decode_utf8_lossy();
    let (bucket, key) = path.split_once('/').unwrap_or((path.as_ref(), ""));
    let key = (!key.is_empty()).then(|| key.to_owned());

    let operation = operation(request, bucket, key.is_some(), &query);
    let delete = (operation == Operation::DeleteObjects).then(|| read_delete(&request.body)).flatten();
    let named = delete.iter().flat_map(|delete| delete.objects.iter().map(|object| object.key.clone()));
    let content_md5 = request.header("content-md5").map(str::to_owned);
    let recorded = RecordedRequest {
        operation,
        bucket: bucket.to_owned(),
        prefix: query.get("prefix").map(str::to_owned),
        keys: key.into_iter().chain(named).collect(),
        access_key: request.header("authorization").and_then(access_key).map(str::to_owned),
        is_content_md5_right: content_md5.as_ref().map(|md5| *md5 == STANDARD.encode(Md5::digest(&request.body))),
        content_md5,
        continuation_token: query.get("continuation-token").map(str::to_owned),
        at,
    };
    (recorded, delete)
}

struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether it names none of the things that belong to a bucket or an object besides itself.
    fn is_plain(&self) -> bool {
        self.0.iter().all(|(key, _)| key == "x-id" || key == "versionId" || key == "partNumber")
    }
}

fn operation(request: &WireRequest, bucket: &str, has_key: bool, query: &Query) -> Operation {
    match (request.method.as_str(), has_key) {
        _ if bucket.is_empty() => Operation::Other,
        ("GET", false) if query.get("list-type") == Some("2") => Operation::ListObjectsV2,
        ("GET", false) if query.has("versioning") => Operation::GetBucketVersioning,
        ("GET", false) if query.has("versions") => Operation::ListObjectVersions,
        ("GET", false) if query.has("uploads") => Operation::ListMultipartUploads,
        ("GET", false) if query.has("object-lock") => Operation::GetObjectLockConfiguration,
        ("POST", false) if query.has("delete") => Operation::DeleteObjects,
        ("HEAD", false) if query.is_plain() => Operation::HeadBucket,
        ("PUT", false) if query.is_plain() => Operation::CreateBucket,
        ("POST", true) if query.has("uploads") => Operation::CreateMultipartUpload,
        ("DELETE", true) if query.has("uploadId") => Operation::AbortMultipartUpload,
        ("POST", true) if query.has("uploadId") => Operation::CompleteMultipartUpload,
        ("PUT", true) if query.has("uploadId") && request.header("x-amz-copy-source").is_some() => {
            Operation::UploadPartCopy
        }
        ("PUT", true) if query.has("uploadId") => Operation::UploadPart,
        ("GET", true) if query.has("tagging") => Operation::GetObjectTagging,
        ("GET", true) if query.is_plain() => Operation::GetObject,
        ("HEAD", true) if query.is_plain() => Operation::HeadObject,
        ("DELETE", true) if query.is_plain() => Operation::DeleteObject,
        ("PUT", true) if query.is_plain() && request.header("x-amz-copy-source").is_some() => Operation::CopyObject,
        ("PUT", true) if query.is_plain() => Operation::PutObject,
        _ => Operation::Other,
    }
}

/// Reads the body of a `DeleteObjects` as an XML parser must; `None` if it is not one.
fn read_delete(body: &[u8]) -> Option<Delete> {
    // XML 1.0 section 2.11: a raw carriage return reads as a line feed. The S3 library does not do it, and a store that
    // is kinder than MinIO here would hide that such a key names another object.
    let body = String::from_utf8(body.to_vec()).ok()?.replace("\r\n", "\n").replace('\r', "\n");
    Delete::deserialize(&mut Deserializer::new(body.as_bytes())).ok()
}

fn access_key(authorization: &str) -> Option<&str> {
    authorization.split_once("Credential=")?.1.split('/').next()
}
