//! Sends delete requests, each once, and reads what became of each key.
//!
//! Invariant: no request leaves with a proof older than [`SEND_WITHIN`]; a key that the reply does not mention is
//! reported as unmentioned, never as deleted.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use base64::Engine as _;
use md5::{Digest as _, Md5};

use super::error::{classify, is_lock, is_throttle};
use super::witness::Witness;
use super::{DeleteStore, KeyReply, StoreError, StoreFault};
use crate::clock::Stopwatch;
use crate::model::ObjectKey;

const BATCH: &str = "DeleteObjects";
const SINGLE: &str = "DeleteObject";

/// How old a proof may be when its request is handed to the connection: ten seconds, less the longest wait for one.
pub const SEND_WITHIN: Duration = Duration::from_secs(6);

/// Deletes from one bucket.
#[derive(Debug)]
pub struct S3Delete {
    pub(super) client: Client,
    pub(super) bucket: String,
}

impl S3Delete {
    pub(super) fn new(client: Client, bucket: &str) -> Self {
        Self { client, bucket: bucket.to_owned() }
    }
}

#[async_trait]
impl DeleteStore for S3Delete {
    async fn delete_batch(&self, keys: &[ObjectKey], proof: Stopwatch) -> Result<Vec<KeyReply>, StoreError> {
        let identifier = |key: &ObjectKey| {
            ObjectIdentifier::builder().key(key.as_str()).build().expect("an identifier with a key is complete")
        };
        let delete = Delete::builder()
            .set_objects(Some(keys.iter().map(identifier).collect()))
            // Quiet replies leave out what was deleted, so silence could not be told from success.
            .quiet(false)
            .build()
            .expect("a delete with objects is complete");
        let witness = Witness::of("</DeleteResult>").send_within(proof, SEND_WITHIN);
        let sent = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .customize()
            .mutate_request(use_content_md5)
            .interceptor(witness.clone())
            .send()
            .await;
        if witness.seen().is_held_back {
            return Err(StoreError { operation: BATCH, fault: StoreFault::ProofExpired });
        }
        let output = sent.map_err(|error| classify(BATCH, &error))?;
        if !witness.seen().is_whole {
            return Err(StoreError {
                operation: BATCH,
                fault: StoreFault::NoReply("the body is cut before its closing tag".into()),
            });
        }
        Ok(reconcile(keys, &output))
    }

    async fn delete_one(&self, key: &ObjectKey, proof: Stopwatch) -> Result<KeyReply, StoreError> {
        let witness = Witness::of("").send_within(proof, SEND_WITHIN);
        let sent = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        if witness.seen().is_held_back {
            return Err(StoreError { operation: SINGLE, fault: StoreFault::ProofExpired });
        }
        match sent {
            Ok(_) => Ok(KeyReply::Deleted),
            Err(error) => {
                use aws_sdk_s3::error::ProvideErrorMetadata as _;
                if error.as_service_error().and_then(|service| service.code()) == Some("NoSuchKey") {
                    return Ok(KeyReply::AlreadyGone);
                }
                if let Some(service) = error.as_service_error()
                    && is_lock(service.code().unwrap_or_default(), service.message().unwrap_or_default())
                {
                    return Ok(KeyReply::Locked);
                }
                Err(classify(SINGLE, &error))
            }
        }
    }
}

/// Replaces the SDK's CRC by Content-MD5: every server takes it, and MinIO before 2025 takes nothing else.
fn use_content_md5(request: &mut aws_sdk_s3::config::http::HttpRequest) {
    let Some(body) = request.body().bytes() else { return };
    let digest = base64::engine::general_purpose::STANDARD.encode(Md5::digest(body));
    let checksums: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm")
        .collect();
    for name in checksums {
        request.headers_mut().remove(name);
    }
    request.headers_mut().insert("content-md5", digest);
}

/// Matches the reply to the keys, by key: order and completeness are not promised.
fn reconcile(keys: &[ObjectKey], output: &DeleteObjectsOutput) -> Vec<KeyReply> {
    let mut replies: HashMap<&str, KeyReply> = HashMap::with_capacity(keys.len());
    for deleted in output.deleted() {
        if let Some(key) = deleted.key() {
            replies.insert(key, KeyReply::Deleted);
        }
    }
    // A key that is mentioned as both is not deleted.
    for error in output.errors() {
        let Some(key) = error.key() else { continue };
        let code = error.code().unwrap_or("no code");
        let reply = match code {
            "NoSuchKey" => KeyReply::AlreadyGone,
            code if is_lock(code, error.message().unwrap_or_default()) => KeyReply::Locked,
            code if is_throttle(code) || matches!(code, "InternalError" | "RequestTimeout" | "OperationAborted") => {
                KeyReply::TryAgain(code.to_owned())
            }
            code => KeyReply::Refused(code.to_owned()),
        };
        replies.insert(key, reply);
    }
    keys.iter().map(|key| replies.remove(key.as_str()).unwrap_or(KeyReply::Unmentioned)).collect()
}
