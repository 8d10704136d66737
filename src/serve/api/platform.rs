//! The platform's delete operations, at the paths and in the shapes that its own API has: rows first, then every object.
//!
//! Invariant: what was begun is not ended by a caller who hangs up; rows that are gone are answered as gone, whatever became of
//! their objects, which are orphans for the next sweep then.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::input;
use crate::model::{DatasetId, RunId};
use crate::record::{DeletionTotals, PurgeEvidence, PurgeRow, PurgeSubject};
use crate::run::RunFailure;
use crate::run::failure::chain;
use crate::run::purge::{self, CleanUp, JobDatasets, Order, Refusal, Standing};
use crate::serve::Shared;
use crate::serve::auth::Caller;
use crate::serve::problem::{Conflict, InPath, InQuery, NotFound, Problem, Unprocessable};

const OBJECTS_DELETED: HeaderName = HeaderName::from_static("x-objects-deleted");
const DATASETS_LEFT: HeaderName = HeaderName::from_static("x-datasets-with-objects-left");
const OBJECTS_LEFT: HeaderName = HeaderName::from_static("x-objects-left");
const BYTES_DELETED: HeaderName = HeaderName::from_static("x-bytes-deleted");
const PURGE_ID: HeaderName = HeaderName::from_static("x-purge-id");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Which scope, where several have `[scope.purge]`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ScopeQuery {
    /// The scope; needed only where several have `[scope.purge]`.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 200)]
    scope: Option<String>,
}

/// Which scope, and what becomes of the datasets.
#[derive(Debug, Deserialize, IntoParams)]
// A misspelled `delete_dataset` must not take the datasets along.
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// The scope; needed only where several have `[scope.purge]`.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 200)]
    scope: Option<String>,
    /// Whether the datasets that the job made go with it; `scope.purge.delete_dataset` where it is not said.
    #[serde(default, deserialize_with = "read_truth")]
    #[param(value_type = Option<bool>)]
    delete_dataset: Option<bool>,
}

/// A truth as the platform's own API reads one.
fn read_truth<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(Some(true)),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(Some(false)),
        _ => Err(de::Error::custom("`delete_dataset` is neither true nor false")),
    }
}

/// A job that is gone.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobDeleted {
    /// What was done, in words.
    message: String,
    /// The job.
    job_id: Uuid,
    /// Datasets that went with it.
    datasets_deleted: u64,
    /// Objects that went with them.
    minio_files_deleted: u64,
    /// Objects that are still there: orphans for the next sweep. Null where nobody can tell.
    minio_files_left: Option<u64>,
    /// Bytes of the objects that went.
    minio_bytes_deleted: u64,
    /// Datasets of which the store still lists something.
    datasets_with_objects_left: u64,
    /// Datasets that stay, without a job.
    datasets_detached: u64,
    /// Whether the job still ran, and was cancelled.
    was_cancelled: bool,
    /// The purge, which is a run.
    purge_id: Uuid,
}

/// How far a purge is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PurgeView {
    /// The purge, which is a run: its report is at `/api/v1/runs/{run_id}` once it is over.
    purge_id: Uuid,
    /// Its scope.
    scope: String,
    /// `dataset` or `job`.
    kind: &'static str,
    /// The dataset or job.
    id: Uuid,
    /// `intended`: it is not known yet whether its rows are gone. `committed`: they are, and its objects go. `done`: it is over.
    /// `aborted`: nothing was changed. `unknown`: nobody can tell; what is left is an orphan, if it is one.
    state: &'static str,
    /// The datasets that go.
    datasets: Vec<Uuid>,
    /// Objects that were asked for so far.
    objects_requested: u64,
    /// Deleted.
    objects_deleted: u64,
    /// Gone before.
    objects_already_gone: u64,
    /// Kept after all: skipped, failed or unconfirmed.
    objects_left: u64,
    /// Bytes of the objects that went.
    bytes_deleted: u64,
    /// When it began.
    began_at: DateTime<Utc>,
}

impl From<Standing> for PurgeView {
    fn from(Standing { purge, totals }: Standing) -> Self {
        Self {
            purge_id: purge.run.0,
            scope: purge.scope,
            kind: match purge.subject {
                PurgeSubject::Dataset(_) => "dataset",
                PurgeSubject::Job(_) => "job",
            },
            id: purge.subject.id(),
            state: purge.state.as_str(),
            datasets: purge.evidence.datasets.iter().map(|dataset| dataset.id.0).collect(),
            objects_requested: totals.requested,
            objects_deleted: totals.deleted,
            objects_already_gone: totals.already_gone,
            objects_left: totals.skipped + totals.failed + totals.unconfirmed,
            bytes_deleted: totals.bytes,
            began_at: purge.began_at,
        }
    }
}

/// Deletes a dataset: its rows, and then every object of it.
///
/// Answers when the objects are gone, or, with `Prefer: respond-async`, when the rows are.
#[utoipa::path(delete, path = "/api/v1/jobs/synthetic/datasets/{dataset_id}", tag = "platform",
    params(("dataset_id" = Uuid, Path, description = "the dataset"), ScopeQuery), responses(
    (status = 204, description = "its rows are gone, and its objects as far as the headers say", headers(
        ("x-objects-deleted" = u64, description = "objects that went"),
        ("x-objects-left" = u64, description = "objects that are still there: orphans for the next sweep"),
        ("x-bytes-deleted" = u64, description = "bytes of the objects that went"),
        ("x-datasets-with-objects-left" = u64, description = "1 where the store still lists something of it"),
        ("x-purge-id" = String, description = "the purge, which is a run"),
    )),
    (status = 202, description = "its rows are gone; `Location` says how far its objects are", body = PurgeView, headers(("Location" = String, description = "the purge"))),
    NotFound, Conflict, Unprocessable,
))]
pub async fn delete_dataset(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<ScopeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order = Order::Dataset(DatasetId(input::id("the dataset's id", &id)?));
    let begun = begin(&app, &caller, query.scope, order).await?;
    if wants_no_wait(&headers) {
        return Ok(accepted(begun.purge));
    }
    let went = Went::of(begun.cleaning.await, &begun.purge);
    let mut response = StatusCode::NO_CONTENT.into_response();
    let counts = [
        (OBJECTS_DELETED, Some(went.deleted)),
        (OBJECTS_LEFT, went.left),
        (BYTES_DELETED, Some(went.bytes)),
        (DATASETS_LEFT, Some(went.orphans)),
    ];
    for (name, value) in counts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        response.headers_mut().insert(name, HeaderValue::from(value));
    }
    if let Ok(run) = HeaderValue::from_str(&begun.purge.run.to_string()) {
        response.headers_mut().insert(PURGE_ID, run);
    }
    Ok(response)
}

/// Deletes a job, and the datasets that it made where that is asked for; one that still runs is cancelled first.
///
/// Answers when the objects are gone, or, with `Prefer: respond-async`, when the rows are.
#[utoipa::path(delete, path = "/api/v1/jobs/synthetic/{job_id}", tag = "platform",
    params(("job_id" = Uuid, Path, description = "the job"), JobQuery), responses(
    (status = 200, description = "the job is gone", body = JobDeleted),
    (status = 202, description = "the rows are gone; `Location` says how far the objects are", body = PurgeView, headers(("Location" = String, description = "the purge"))),
    NotFound, Conflict, Unprocessable,
))]
pub async fn delete_job(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<JobQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = input::id("the job's id", &id)?;
    let default = scope_of(&app, query.scope.as_deref())?.purge.as_ref().is_none_or(|purge| purge.deletes_datasets);
    let datasets = if query.delete_dataset.unwrap_or(default) { JobDatasets::Go } else { JobDatasets::Stay };
    let begun = begin(&app, &caller, query.scope, Order::Job { id: job, datasets }).await?;
    if wants_no_wait(&headers) {
        return Ok(accepted(begun.purge));
    }
    let went = Went::of(begun.cleaning.await, &begun.purge);
    let PurgeEvidence { datasets, job: gone, .. } = begun.purge.evidence;
    let document = JobDeleted {
        message: format!("Job {job} and {} of its datasets are deleted", datasets.len()),
        job_id: job,
        datasets_deleted: datasets.len() as u64,
        minio_files_deleted: went.deleted,
        minio_files_left: went.left,
        minio_bytes_deleted: went.bytes,
        datasets_with_objects_left: went.orphans,
        datasets_detached: gone.as_ref().map_or(0, |job| job.detached),
        was_cancelled: gone.as_ref().is_some_and(|job| job.was_cancelled),
        purge_id: begun.purge.run.0,
    };
    Ok(Json(document).into_response())
}

/// Lists the purges that are not over, the oldest first.
#[utoipa::path(get, path = "/api/v1/purges", tag = "platform", responses(
    (status = 200, description = "what is being removed", body = Vec<PurgeView>),
))]
pub async fn list_purges(State(app): State<Shared>) -> Result<Json<Vec<PurgeView>>, Problem> {
    let mut views = Vec::new();
    for pending in purge::pending(&app.services).await? {
        views.extend(purge::standing(&app.services, pending.run).await?.map(PurgeView::from));
    }
    Ok(Json(views))
}

/// Shows how far a purge is.
#[utoipa::path(get, path = "/api/v1/purges/{purge_id}", tag = "platform", params(("purge_id" = Uuid, Path, description = "the purge")), responses(
    (status = 200, description = "how far it is", body = PurgeView), NotFound, Unprocessable,
))]
pub async fn show_purge(State(app): State<Shared>, InPath(id): InPath<String>) -> Result<Json<PurgeView>, Problem> {
    let run = RunId(input::id("the purge's id", &id)?);
    let standing = purge::standing(&app.services, run).await?;
    let standing = standing.ok_or_else(|| Problem::not_found("the ledger knows no such purge"))?;
    Ok(Json(standing.into()))
}

/// A purge whose rows are gone.
struct Begun {
    purge: PurgeRow,
    cleaning: oneshot::Receiver<Result<CleanUp, RunFailure>>,
}

fn scope_of<'a>(app: &'a Shared, named: Option<&str>) -> Result<&'a crate::config::Scope, Problem> {
    if let Some(named) = named {
        super::scopes::named(app, named)?;
    }
    Ok(purge::scope_of(&app.services.config, named)?)
}

/// Removes the rows, and leaves their objects to a task of the process: whoever asked may hang up.
async fn begin(app: &Shared, caller: &Caller, scope: Option<String>, order: Order) -> Result<Begun, Problem> {
    scope_of(app, scope.as_deref())?;
    if app.services.stop.token.is_cancelled() {
        return Err(Problem::unavailable("this process ends"));
    }
    let (removed, is_removed) = oneshot::channel();
    let (cleaned, cleaning) = oneshot::channel();
    let (own, by) = (app.clone(), caller.name.clone());
    let work = move || async move {
        let services = &own.services;
        let result = match purge::scope_of(&services.config, scope.as_deref()) {
            Ok(scope) => purge::remove(services, &own.keyring, scope, order).await,
            Err(refusal) => Err(refusal),
        };
        let rows = match result {
            Ok(rows) => rows,
            Err(refusal) => return drop(removed.send(Err(refusal))),
        };
        let run = rows.purge.run;
        tracing::info!(target: "deletions", run_id = %run, by, "a purge was asked for over the API");
        removed.send(Ok(rows.purge.clone())).ok();
        // A closed semaphore lets everybody through.
        let _permit = own.cleaners.acquire().await;
        let ended = purge::clean_up(services, &own.keyring, rows).await;
        if let Err(error) = &ended {
            tracing::error!(run_id = %run, error = %error.chain(), "the objects of a purge could not be removed; it goes on by itself");
        }
        cleaned.send(ended).ok();
    };
    app.desk.give(work);
    let purge = is_removed.await.map_err(|_| Problem::unavailable("the purge could not begin"))??;
    Ok(Begun { purge, cleaning })
}

/// What became of the objects.
#[derive(Debug, Default)]
struct Went {
    deleted: u64,
    /// None where nobody can tell.
    left: Option<u64>,
    bytes: u64,
    orphans: u64,
}

impl Went {
    /// Of the clean-up of `purge`: where it failed, something of each dataset may be left.
    fn of(cleaned: Result<Result<CleanUp, RunFailure>, oneshot::error::RecvError>, purge: &PurgeRow) -> Self {
        let Ok(Ok(cleaned)) = cleaned else {
            return Self { orphans: purge.evidence.datasets.len() as u64, ..Self::default() };
        };
        let deletion = cleaned.deletion;
        Self {
            deleted: deletion.deleted,
            left: Some(deletion.skipped + deletion.failed + deletion.unconfirmed),
            bytes: deletion.bytes_deleted.max(deletion.bytes_marked).max(deletion.bytes_quarantined),
            orphans: cleaned.left.len() as u64,
        }
    }
}

/// The answer to who does not wait. It asks nobody: the rows are gone, whatever the ledger says now.
fn accepted(purge: PurgeRow) -> Response {
    let location = format!("/api/v1/purges/{}", purge.run);
    let view = PurgeView::from(Standing { purge, totals: DeletionTotals::default() });
    let headers =
        [(header::LOCATION, location), (PREFERENCE_APPLIED, "respond-async".into()), (header::RETRY_AFTER, "1".into())];
    (StatusCode::ACCEPTED, headers, Json(view)).into_response()
}

/// Whether `Prefer: respond-async` is among the preferences (RFC 7240).
fn wants_no_wait(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async"))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (detail, hint) = (chain(&refusal), refusal.hint());
        let problem = match refusal {
            Refusal::NotFound(_) => Self::not_found(detail),
            Refusal::NotSynthetic { .. } => Self::new(StatusCode::BAD_REQUEST, detail),
            Refusal::InUse { models } => Self::conflict(detail).with_names(models),
            Refusal::Held { ids } => {
                Self::conflict(detail).with_names(ids.iter().map(|held| held.id.to_string()).collect())
            }
            Refusal::NotLive(_) => Self::conflict(detail),
            Refusal::WhichScope { .. } => Self::unprocessable(detail),
            Refusal::NotConfigured { .. } | Refusal::Stopped { .. } | Refusal::Latched { .. } => {
                Self::unavailable(detail)
            }
            Refusal::InDoubt { run, source } => {
                tracing::error!(run_id = %run, error = %chain(&source), "the end of a purge is in doubt");
                Self::unavailable(format!("it is not known yet whether the rows of purge {run} are gone"))
            }
            Refusal::Platform(_)
            | Refusal::References(_)
            | Refusal::Holds(_)
            | Refusal::Record(_)
            | Refusal::Lock(_)
            | Refusal::Statements(_)
            | Refusal::Run(_)
            | Refusal::Store(_) => {
                tracing::error!(error = detail, "a purge was refused");
                Self::unavailable("the rows could not be removed now; nothing was changed")
            }
        };
        match hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_prefers_not_to_wait_is_understood() {
        let wants = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_str(value).expect("a value"));
            }
            wants_no_wait(&headers)
        };
        assert!(wants(&["respond-async"]));
        assert!(wants(&["wait=10, Respond-Async"]));
        assert!(wants(&["return=minimal", "respond-async; x=1"]));
        assert!(!wants(&["return=minimal"]));
        assert!(!wants(&["respond-asynchronously"]));
        assert!(!wants(&[]));
    }
}
