//! Puts small objects, which only `selftest` does: marked with the run that they are of.
//!
//! Invariant: a request is tried once; one without a reply may have been carried out, so whoever sends it notes it before.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;

use super::error::classify;
use super::{Head, StoreError};
use crate::model::{ObjectKey, RunId};

/// The user's metadata of what a self-test puts: its run.
const MARK: &str = "orphan-sweeper-selftest";

/// Puts objects into one bucket.
#[derive(Debug, Clone)]
pub struct S3Put {
    client: Client,
    bucket: String,
}

impl S3Put {
    pub(super) fn new(client: Client, bucket: &str) -> Self {
        Self { client, bucket: bucket.to_owned() }
    }

    /// Puts an object of `run`; gives the entity tag that the store says.
    ///
    /// - Errors: [`StoreError`]; the object may be there all the same.
    pub async fn put(&self, key: &ObjectKey, body: Vec<u8>, run: RunId) -> Result<Option<String>, StoreError> {
        const PUT: &str = "PutObject";
        let request = self.client.put_object().bucket(&self.bucket).key(key.as_str()).body(ByteStream::from(body));
        let sent = request.metadata(MARK, run.to_string()).send().await.map_err(|error| classify(PUT, &error))?;
        Ok(sent.e_tag)
    }
}

/// Whether the store says that an object is of `run`.
pub fn is_marked(head: &Head, run: RunId) -> bool {
    head.carried.metadata.get(MARK).is_some_and(|mark| *mark == run.to_string())
}
