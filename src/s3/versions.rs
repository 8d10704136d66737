//! Reads what lies under the markers of a versioned bucket, one page at a time, decoded byte for byte.

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::types::EncodingType;
use chrono::DateTime;

use super::error::classify;
use super::read::decode;
use super::witness::Witness;
use super::{DeleteMarker, OldVersion, OldVersionsPage, StoreError, VersionStore, VersionsAfter};
use crate::model::{ObjectKey, Timestamp};

const VERSIONS: &str = "ListObjectVersions";

/// Reads the versions of one bucket.
#[derive(Debug)]
pub struct S3Versions {
    client: Client,
    bucket: String,
}

impl S3Versions {
    pub(super) fn new(client: Client, bucket: &str) -> Self {
        Self { client, bucket: bucket.to_owned() }
    }
}

#[async_trait]
impl VersionStore for S3Versions {
    async fn versions(&self, prefix: &str, after: Option<&VersionsAfter>) -> Result<OldVersionsPage, StoreError> {
        let witness = Witness::of("</ListVersionsResult>");
        let output = self
            .client
            .list_object_versions()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_key_marker(after.map(|after| after.key.as_str().to_owned()))
            .set_version_id_marker(after.and_then(|after| after.version.clone()))
            .encoding_type(EncodingType::Url)
            .max_keys(1000)
            .customize()
            .interceptor(witness.clone())
            .send()
            .await
            .map_err(|error| classify(VERSIONS, &error))?;
        if !witness.seen().is_whole {
            return Err(StoreError::malformed(VERSIONS, "the body is cut before its closing tag"));
        }
        read_page(&output).map_err(|what| StoreError::malformed(VERSIONS, what))
    }
}

fn read_page(output: &ListObjectVersionsOutput) -> Result<OldVersionsPage, String> {
    if output.encoding_type() != Some(&EncodingType::Url) {
        return Err("it ignores `encoding-type=url`, so its keys cannot be told apart".into());
    }
    let key = |key: Option<&str>| decode(key.ok_or("an entry has no key")?).map(ObjectKey::new);
    let time = |time: Option<&aws_sdk_s3::primitives::DateTime>| -> Option<Timestamp> {
        time.and_then(|time| DateTime::from_timestamp_millis(time.to_millis().ok()?))
    };
    let mut versions = Vec::with_capacity(output.versions().len());
    for version in output.versions() {
        versions.push(OldVersion {
            key: key(version.key())?,
            id: version.version_id().ok_or("a version has no id")?.to_owned(),
            is_latest: version.is_latest().ok_or("a version does not say whether it is the latest")?,
            size_bytes: version.size().and_then(|size| u64::try_from(size).ok()).ok_or("a version has no size")?,
            last_modified: time(version.last_modified()),
        });
    }
    let mut markers = Vec::with_capacity(output.delete_markers().len());
    for marker in output.delete_markers() {
        markers.push(DeleteMarker {
            key: key(marker.key())?,
            is_latest: marker.is_latest().ok_or("a marker does not say whether it is the latest")?,
            last_modified: time(marker.last_modified()),
        });
    }
    let next = match output.is_truncated() {
        None => return Err("it does not say whether it is truncated".into()),
        Some(false) => None,
        Some(true) => Some(VersionsAfter {
            key: key(output.next_key_marker()).map_err(|_| "it is truncated and does not say where it goes on")?,
            version: output.next_version_id_marker().map(str::to_owned),
        }),
    };
    Ok(OldVersionsPage { versions, markers, next })
}
