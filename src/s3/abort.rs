//! Aborts one multipart upload, once.
//!
//! Invariant: no request leaves with a proof older than [`SEND_WITHIN`].

use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata as _;

use super::delete::{S3Delete, SEND_WITHIN};
use super::error::classify;
use super::witness::Witness;
use super::{AbortReply, AbortStore, StoreError, StoreFault, Upload};
use crate::clock::Stopwatch;

const ABORT: &str = "AbortMultipartUpload";

#[async_trait]
impl AbortStore for S3Delete {
    async fn abort_upload(&self, upload: &Upload, proof: Stopwatch) -> Result<AbortReply, StoreError> {
        let witness = Witness::of("").send_within(proof, SEND_WITHIN);
        let sent = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(upload.key.as_str())
            .upload_id(&upload.upload_id)
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        if witness.seen().is_held_back {
            return Err(StoreError { operation: ABORT, fault: StoreFault::ProofExpired });
        }
        match sent {
            Ok(_) => Ok(AbortReply::Aborted),
            Err(error) if error.as_service_error().and_then(|service| service.code()) == Some("NoSuchUpload") => {
                Ok(AbortReply::AlreadyGone)
            }
            Err(error) => Err(classify(ABORT, &error)),
        }
    }
}
