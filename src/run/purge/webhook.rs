//! Tells the platform of a job that was cancelled because it is purged. Whatever becomes of that changes nothing.

use serde_json::json;
use uuid::Uuid;

use crate::config::Purge;
use crate::record::{PurgedDataset, PurgedJob};

/// Posts what happened to `scope.purge.cancel_webhook`, where one is configured.
pub(super) async fn tell_cancelled(purge: &Purge, id: Uuid, job: &PurgedJob, datasets: &[PurgedDataset]) {
    let Some(url) = &purge.cancel_webhook else { return };
    let ids: Vec<String> = datasets.iter().map(|dataset| dataset.id.to_string()).collect();
    let body = json!({ "event": "job_cancelled", "job_id": id, "status": job.status, "datasets_deleted": ids });
    // No redirect: where it leads is said by the configuration alone.
    let client = reqwest::Client::builder()
        .timeout(purge.webhook_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build();
    let sent = match client {
        Ok(client) => client.post(url.clone()).json(&body).send().await.and_then(reqwest::Response::error_for_status),
        Err(error) => Err(error),
    };
    match sent {
        Ok(_) => tracing::info!(job_id = %id, "the webhook was told of a cancelled job"),
        // Without its address, which may hold a secret.
        Err(error) => {
            tracing::warn!(job_id = %id, error = %error.without_url(), "the webhook could not be told of a cancelled job; the purge goes on");
        }
    }
}
