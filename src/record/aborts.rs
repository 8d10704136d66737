//! Aborts of multipart uploads: the intent before the request, the outcome after it, both in the chain.
//!
//! They have no table of their own: an upload that was aborted is listed no more, so no later run has to know of it.

use serde_json::{Value, json};

use super::chain;
use super::ledger::{Ledger, RecordError};
use crate::model::{DatasetId, RunId};
use crate::s3::Upload;

/// What a run is about to abort.
#[derive(Debug, Clone, Copy)]
pub struct AbortIntent<'i> {
    /// The scope.
    pub scope: &'i str,
    /// The run.
    pub run: RunId,
    /// The dataset.
    pub id: DatasetId,
    /// The upload.
    pub upload: &'i Upload,
}

impl AbortIntent<'_> {
    fn payload(&self) -> Value {
        let upload = self.upload;
        json!({
            "scope": self.scope, "dataset_id": self.id.to_string(), "key": upload.key.as_str(),
            "upload_id": upload.upload_id, "initiated": upload.initiated
        })
    }
}

impl Ledger {
    /// Puts on record that an upload is about to be aborted. When this returns, it is on the disk.
    pub async fn intend_abort(&self, intent: &AbortIntent<'_>) -> Result<(), RecordError> {
        self.chain_abort("upload.abort_intended", intent, intent.payload()).await
    }

    /// Puts on record what became of it.
    pub async fn settle_abort(&self, intent: &AbortIntent<'_>, outcome: &str) -> Result<(), RecordError> {
        let mut payload = intent.payload();
        payload["outcome"] = outcome.into();
        self.chain_abort("upload.abort_settled", intent, payload).await
    }

    async fn chain_abort(&self, kind: &str, intent: &AbortIntent<'_>, payload: Value) -> Result<(), RecordError> {
        const STEP: &str = "record the abort of an upload";
        let mut transaction = self.begin(STEP).await?;
        chain::append(&mut transaction, kind, &intent.run.to_string(), &payload).await?;
        transaction.commit(STEP).await
    }
}
