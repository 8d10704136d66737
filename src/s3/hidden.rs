//! Reads what a plain listing does not show: uploads in progress, old versions, and whether a listed key is there.
//!
//! Invariant: a page counts only if it was seen to its closing tag, says whether it is the last, and spells its keys as
//! they were asked for.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::types::{DeleteMarkerEntry, EncodingType, MultipartUpload, ObjectVersion};

use super::error::classify;
use super::read::{decode, read_time};
use super::witness::Witness;
use super::{DeleteMarker, Marker, StoreError, Upload, UploadsPage, Version, VersionsPage};
use crate::model::{ObjectKey, Timestamp};

const UPLOADS: &str = "ListMultipartUploads";
const VERSIONS: &str = "ListObjectVersions";
const HEAD: &str = "HeadObject";
const CUT: &str = "the body is cut before its closing tag";
const ENCODING: &str = "it ignores `encoding-type=url`, so its keys cannot be told apart";

/// One page of the uploads of a whole bucket: MinIO takes a prefix for the key of one object.
pub(super) async fn uploads(client: &Client, bucket: &str, after: Option<&Marker>) -> Result<UploadsPage, StoreError> {
    let witness = Witness::of("</ListMultipartUploadsResult>");
    let output = client
        .list_multipart_uploads()
        .bucket(bucket)
        .set_key_marker(after.map(|marker| marker.key.clone()))
        .set_upload_id_marker(after.and_then(|marker| marker.id.clone()))
        .encoding_type(EncodingType::Url)
        .max_uploads(1000)
        .customize()
        .interceptor(witness.clone())
        .send()
        .await
        .map_err(|error| classify(UPLOADS, &error))?;
    let seen = witness.seen();
    if !seen.is_whole {
        return Err(StoreError::malformed(UPLOADS, CUT));
    }
    let date = seen.date.ok_or_else(|| StoreError::malformed(UPLOADS, "it has no `Date`"))?;
    read_uploads(&output, date).map_err(|what| StoreError::malformed(UPLOADS, what))
}

fn read_uploads(output: &ListMultipartUploadsOutput, date: Timestamp) -> Result<UploadsPage, String> {
    if output.encoding_type() != Some(&EncodingType::Url) {
        return Err(ENCODING.into());
    }
    if !output.common_prefixes().is_empty() {
        return Err("it rolls keys up into prefixes without being asked to".into());
    }
    let is_truncated = output.is_truncated().ok_or("it does not say whether it is truncated")?;
    let uploads = output.uploads().iter().map(read_upload).collect::<Result<_, String>>()?;
    let next = read_marker(output.next_key_marker(), output.next_upload_id_marker())?;
    Ok(UploadsPage { uploads, is_truncated, next, date })
}

fn read_upload(upload: &MultipartUpload) -> Result<Upload, String> {
    Ok(Upload {
        key: ObjectKey::new(decode(upload.key().ok_or("an upload has no key")?)?),
        upload_id: upload.upload_id().filter(|id| !id.is_empty()).ok_or("an upload has no id")?.to_owned(),
        initiated: upload.initiated().and_then(read_time),
    })
}

/// An empty marker is none: MinIO writes one on every last page.
fn read_marker(key: Option<&str>, id: Option<&str>) -> Result<Option<Marker>, String> {
    let Some(key) = key.filter(|key| !key.is_empty()) else { return Ok(None) };
    let id = id.filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(Some(Marker { key: decode(key)?, id }))
}

/// One page of all versions and delete markers under a prefix.
pub(super) async fn versions(
    client: &Client,
    bucket: &str,
    prefix: &str,
    after: Option<&Marker>,
) -> Result<VersionsPage, StoreError> {
    let witness = Witness::of("</ListVersionsResult>");
    let output = client
        .list_object_versions()
        .bucket(bucket)
        .prefix(prefix)
        .set_key_marker(after.map(|marker| marker.key.clone()))
        .set_version_id_marker(after.and_then(|marker| marker.id.clone()))
        .encoding_type(EncodingType::Url)
        .max_keys(1000)
        .customize()
        .interceptor(witness.clone())
        .send()
        .await
        .map_err(|error| classify(VERSIONS, &error))?;
    if !witness.seen().is_whole {
        return Err(StoreError::malformed(VERSIONS, CUT));
    }
    read_versions(&output).map_err(|what| StoreError::malformed(VERSIONS, what))
}

fn read_versions(output: &ListObjectVersionsOutput) -> Result<VersionsPage, String> {
    if output.encoding_type() != Some(&EncodingType::Url) {
        return Err(ENCODING.into());
    }
    if !output.common_prefixes().is_empty() {
        return Err("it rolls keys up into prefixes without being asked to".into());
    }
    let is_truncated = output.is_truncated().ok_or("it does not say whether it is truncated")?;
    let versions = output.versions().iter().map(read_version).collect::<Result<_, String>>()?;
    let markers = output.delete_markers().iter().map(read_delete_marker).collect::<Result<_, String>>()?;
    let next = read_marker(output.next_key_marker(), output.next_version_id_marker())?;
    Ok(VersionsPage { versions, markers, is_truncated, next })
}

fn read_version(version: &ObjectVersion) -> Result<Version, String> {
    let size = version.size().ok_or("a version has no size")?;
    Ok(Version {
        key: ObjectKey::new(decode(version.key().ok_or("a version has no key")?)?),
        id: version.version_id().ok_or("a version has no id")?.to_owned(),
        is_latest: version.is_latest().ok_or("a version does not say whether it is the latest")?,
        size_bytes: u64::try_from(size).map_err(|_| "a version has a negative size")?,
        last_modified: version.last_modified().and_then(read_time),
    })
}

fn read_delete_marker(marker: &DeleteMarkerEntry) -> Result<DeleteMarker, String> {
    Ok(DeleteMarker {
        key: ObjectKey::new(decode(marker.key().ok_or("a delete marker has no key")?)?),
        id: marker.version_id().map(str::to_owned),
        is_latest: marker.is_latest().ok_or("a delete marker does not say whether it is the latest")?,
        last_modified: marker.last_modified().and_then(read_time),
    })
}

/// Whether the store has an object of that key.
pub(super) async fn has_object(client: &Client, bucket: &str, key: &ObjectKey) -> Result<bool, StoreError> {
    match client.head_object().bucket(bucket).key(key.as_str()).send().await {
        Ok(_) => Ok(true),
        Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => Ok(false),
        Err(error) => Err(classify(HEAD, &error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::primitives::DateTime as SdkTime;
    use aws_sdk_s3::types::CommonPrefix;

    use super::*;

    fn upload(key: &str) -> MultipartUpload {
        MultipartUpload::builder().key(key).upload_id("u").initiated(SdkTime::from_secs(1_800_000_000)).build()
    }

    fn uploads_page() -> aws_sdk_s3::operation::list_multipart_uploads::builders::ListMultipartUploadsOutputBuilder {
        ListMultipartUploadsOutput::builder().encoding_type(EncodingType::Url).is_truncated(false)
    }

    #[test]
    fn page_of_uploads_is_read_with_decoded_keys_and_markers() {
        let output = uploads_page()
            .uploads(upload("a+b%2Fc"))
            .is_truncated(true)
            .next_key_marker("a+b%2Fc")
            .next_upload_id_marker("u")
            .build();
        let page = read_uploads(&output, Timestamp::UNIX_EPOCH).expect("a page");
        let initiated = Timestamp::from_timestamp(1_800_000_000, 0);
        assert_eq!(page.uploads, [Upload { key: ObjectKey::new("a b/c"), upload_id: "u".into(), initiated }]);
        assert_eq!(page.next, Some(Marker { key: "a b/c".into(), id: Some("u".into()) }));
        let last = read_uploads(&uploads_page().next_key_marker("").build(), Timestamp::UNIX_EPOCH).expect("a page");
        assert_eq!((last.next, last.is_truncated), (None, false));
    }

    #[test]
    fn page_of_uploads_that_leaves_something_open_is_no_page() {
        let read = |output| read_uploads(&output, Timestamp::UNIX_EPOCH);
        let rolled = CommonPrefix::builder().prefix("x/").build();
        for broken in [
            ListMultipartUploadsOutput::builder().is_truncated(false).build(),
            ListMultipartUploadsOutput::builder().encoding_type(EncodingType::Url).build(),
            uploads_page().common_prefixes(rolled).build(),
            uploads_page().uploads(MultipartUpload::builder().upload_id("u").build()).build(),
            uploads_page().uploads(MultipartUpload::builder().key("k").build()).build(),
            uploads_page().uploads(upload("%FF")).build(),
        ] {
            assert!(read(broken).is_err());
        }
    }

    #[test]
    fn page_of_versions_that_leaves_something_open_is_no_page() {
        let page = || ListObjectVersionsOutput::builder().encoding_type(EncodingType::Url).is_truncated(false);
        let version = || ObjectVersion::builder().key("k+1").version_id("v").size(3).is_latest(false);
        let marker = || DeleteMarkerEntry::builder().key("m").version_id("null").is_latest(true);
        let whole = read_versions(&page().versions(version().build()).delete_markers(marker().build()).build());
        let whole = whole.expect("a page");
        let (key, last_modified) = (ObjectKey::new("k 1"), None);
        assert_eq!(whole.versions, [Version { key, id: "v".into(), is_latest: false, size_bytes: 3, last_modified }]);
        assert!(whole.markers[0].key == ObjectKey::new("m") && whole.markers[0].is_null());
        for broken in [
            ListObjectVersionsOutput::builder().is_truncated(false).build(),
            ListObjectVersionsOutput::builder().encoding_type(EncodingType::Url).build(),
            page().versions(ObjectVersion::builder().key("k").version_id("v").size(3).build()).build(),
            page().versions(ObjectVersion::builder().key("k").version_id("v").is_latest(true).build()).build(),
            page().versions(ObjectVersion::builder().key("k").size(3).is_latest(true).build()).build(),
            page().versions(version().size(-1).build()).build(),
            page().delete_markers(DeleteMarkerEntry::builder().is_latest(true).build()).build(),
            page().delete_markers(DeleteMarkerEntry::builder().key("m").build()).build(),
        ] {
            assert!(read_versions(&broken).is_err());
        }
    }
}
