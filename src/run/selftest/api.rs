//! Deleting by the API, over real HTTP: without the token first, then with it, then once more.
//!
//! Invariant: a deletion is asked for only after everything under its datasets was seen to be ours.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use uuid::Uuid;

use super::scratch::{self, Rows, ScratchDataset};
use super::{Bench, Broken, Token};
use crate::model::visible;
use crate::record::{NewScratch, ScratchKind, ScratchState};

/// Longest wait for an answer: a deletion of a few objects, on a busy store.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The API of this process, and the token that a self-test shows to it.
pub struct Api {
    address: SocketAddr,
    token: Token,
    client: reqwest::Client,
}

/// What the API answered.
struct Answer {
    status: u16,
    objects_deleted: Option<u64>,
    body: Value,
}

impl Api {
    /// The API at `address`, for the holder of `token`.
    ///
    /// - Errors: where no client can be built.
    pub fn new(address: SocketAddr, token: Token) -> reqwest::Result<Self> {
        // Nothing ambient may stand between: the address is this process.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { address, token, client })
    }

    /// The token.
    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    async fn delete(&self, path: &str, with_token: bool) -> Result<Answer, Broken> {
        let mut request = self.client.delete(format!("http://{}/api/v1/jobs/synthetic/{path}", self.address));
        if with_token {
            request = request.bearer_auth(self.token.expose_secret());
        }
        let unanswered = |error: reqwest::Error| {
            let why = crate::run::failure::chain(&error.without_url());
            Broken::new(format!("the API of this process did not answer: {why}"), "see the log lines above")
        };
        let response = request.send().await.map_err(unanswered)?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
        let (status, objects_deleted) = (response.status().as_u16(), header("x-objects-deleted"));
        let bytes = response.bytes().await.map_err(unanswered)?;
        Ok(Answer { status, objects_deleted, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }
}

impl Answer {
    /// The answer must have this status.
    fn must_be(&self, status: u16, when: &str) -> Result<(), Broken> {
        if self.status == status {
            return Ok(());
        }
        let text = |field: &str| self.body[field].as_str().map(visible);
        let said = text("detail").map(|detail| format!(": {detail}")).unwrap_or_default();
        let broken = Broken::new(format!("{when}, the API answered {} instead of {status}{said}", self.status), "");
        Err(broken.with_hint(text("hint").or_else(|| Some("see the log lines above".into()))))
    }
}

/// The query that names the scope.
fn in_scope(bench: &Bench<'_>) -> String {
    format!("scope={}", bench.scope.name)
}

/// Deletes a scratch dataset, and sees that everything of it is gone.
pub(super) async fn delete_dataset(
    bench: &Bench<'_>,
    api: &Api,
    dataset: ScratchDataset,
) -> Result<((), String), Broken> {
    let path = format!("datasets/{}?{}", dataset.id, in_scope(bench));
    api.delete(&path, false).await?.must_be(401, "without a token")?;
    // Nothing was deleted by it, and nothing of anybody else's is there to be deleted by the next.
    scratch::see(bench, &dataset).await?;
    let deleted = api.delete(&path, true).await?;
    crate::failpoint::reach("selftest_dataset_deleted");
    deleted.must_be(204, "with the token")?;
    let expected = dataset.objects.len() as u64;
    if deleted.objects_deleted != Some(expected) {
        let told = deleted.objects_deleted.map_or("none".to_owned(), |told| told.to_string());
        return Err(miscounted(format!("`X-Objects-Deleted` tells {told} of {expected}")));
    }
    see_gone(bench, &[&dataset]).await?;
    api.delete(&path, true).await?.must_be(404, "asked once more")?;
    let detail = format!(
        "DELETE of {}: 401 without a token, 204 with it, then 404; its rows and {expected} objects are gone",
        dataset.id
    );
    Ok(((), detail))
}

/// Makes a job with two datasets, deletes it with them, and sees that everything of it is gone.
pub(super) async fn delete_job(bench: &Bench<'_>, api: &Api) -> Result<((), String), Broken> {
    let job = Uuid::new_v4();
    let new = NewScratch { kind: ScratchKind::Job, name: job.to_string(), dataset: None, size_bytes: 0 };
    let noted = scratch::intend(bench, &[new]).await?;
    let mut change = bench.inserting.begin().await?;
    change.insert_job(&bench.scope.selftest.statements, job, &bench.purge.job_type).await?;
    change.commit().await?;
    crate::failpoint::reach("selftest_job_written");
    bench.services.ledger.settle_scratch(&noted, ScratchState::Written).await?;
    let first = scratch::write(bench, Rows::Live(Some(job))).await?;
    let second = scratch::write(bench, Rows::Live(Some(job))).await?;
    for dataset in [&first, &second] {
        scratch::see(bench, dataset).await?;
    }
    let path = format!("{job}?delete_dataset=true&{}", in_scope(bench));
    api.delete(&path, false).await?.must_be(401, "without a token")?;
    let deleted = api.delete(&path, true).await?;
    deleted.must_be(200, "with the token")?;
    let expected = (first.objects.len() + second.objects.len()) as u64;
    let told = |field: &str| deleted.body[field].as_u64();
    if (told("datasets_deleted"), told("minio_files_deleted")) != (Some(2), Some(expected))
        || deleted.body["job_id"].as_str() != Some(&*job.to_string())
    {
        let body = visible(&deleted.body.to_string());
        return Err(miscounted(format!("2 datasets and {expected} objects were to go, and the answer is {body}")));
    }
    see_gone(bench, &[&first, &second]).await?;
    let mut change = bench.removing.begin().await?;
    let row = change.job(job).await?;
    change.roll_back().await;
    if row.is_some() {
        return Err(still_there(&format!("the row of job {job}")));
    }
    bench.services.ledger.settle_scratch(&noted, ScratchState::Removed).await?;
    api.delete(&path, true).await?.must_be(404, "asked once more")?;
    let detail =
        format!("DELETE of job {job}: 200 with 2 datasets and {expected} objects, then 404; all their rows are gone");
    Ok(((), detail))
}

/// Deletes the dataset that stayed live beside the leak, so that the next audit finds its row purged and not vanished.
pub(super) async fn delete_witness(
    bench: &Bench<'_>,
    api: &Api,
    witness: ScratchDataset,
) -> Result<((), String), Broken> {
    scratch::see(bench, &witness).await?;
    let path = format!("datasets/{}?{}", witness.id, in_scope(bench));
    api.delete(&path, true).await?.must_be(204, "with the token")?;
    see_gone(bench, &[&witness]).await?;
    Ok(((), format!("dataset {}, which was live during the audit, is deleted too", witness.id)))
}

/// No row, no child, no object may be left of what was deleted.
async fn see_gone(bench: &Bench<'_>, datasets: &[&ScratchDataset]) -> Result<(), Broken> {
    for dataset in datasets {
        let look = bench.reading.references.look(&[dataset.id]).await?;
        let mut change = bench.removing.begin().await?;
        let row = change.dataset(dataset.id).await?;
        let children = change.dependent_rows(dataset.id).await?;
        change.roll_back().await;
        if look.is_live(dataset.id) || row.is_some() {
            return Err(still_there(&format!("the row of dataset {}", dataset.id)));
        }
        if let Some(table) = children.iter().find(|table| table.rows > 0) {
            return Err(still_there(&format!("{} rows of dataset {} in {}", table.rows, dataset.id, table.table)));
        }
        let (listed, _) = scratch::list(bench, dataset.id).await?;
        if !listed.is_empty() {
            return Err(still_there(&format!("{} objects of dataset {}", listed.len(), dataset.id)));
        }
        dataset.note_gone(bench).await?;
    }
    Ok(())
}

fn still_there(what: &str) -> Broken {
    Broken::new(
        format!("the deletion was answered as done, and the store or the database still has {what}"),
        "see the report of the purge: `orphan-sweeper history`",
    )
}

fn miscounted(what: String) -> Broken {
    Broken::new(what, "see the report of the purge: `orphan-sweeper history`")
}
