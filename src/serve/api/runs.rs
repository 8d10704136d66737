//! The runs: what each was, and what became of it.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::input::{self, Document};
use crate::record::RunRow;
use crate::serve::Shared;
use crate::serve::problem::{InPath, InQuery, NotFound, Problem, Unprocessable};

/// Runs of a page where nothing else is asked for, and at most.
const PAGE: (u32, u32) = (50, 500);

/// A run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunView {
    /// Its id.
    run_id: String,
    /// Its scope.
    scope: String,
    /// What it was asked to do.
    command: String,
    /// Whether nothing could be deleted.
    dry_run: bool,
    /// When it began.
    started_at: DateTime<Utc>,
    /// When it ended; null while it runs.
    finished_at: Option<DateTime<Utc>>,
    /// What became of it; null while it runs.
    outcome: Option<String>,
    /// Why, where it is not `complete`.
    reason: Option<String>,
    /// Its exit code; null while it runs.
    exit_code: Option<i64>,
    /// The plan that it made or applied.
    plan_hash: Option<String>,
    /// Bytes under orphans, where they were all counted.
    orphan_bytes: Option<i64>,
}

impl From<RunRow> for RunView {
    fn from(row: RunRow) -> Self {
        Self {
            run_id: row.run_id,
            scope: row.scope,
            command: row.command,
            dry_run: row.is_dry_run,
            started_at: row.started_at,
            finished_at: row.finished_at,
            outcome: row.outcome,
            reason: row.reason,
            exit_code: row.exit_code,
            plan_hash: row.plan_hash,
            orphan_bytes: row.orphan_bytes,
        }
    }
}

/// Runs, the newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunPage {
    /// The runs.
    runs: Vec<RunView>,
    /// What to send as `before` for the next page; null after the last.
    next: Option<String>,
}

/// A run with its report.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    run: RunView,
    /// Its `summary.json`, as `orphan-sweeper schema summary` describes it; null where it left none.
    summary: Option<Document>,
}

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// Only this scope.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 200)]
    scope: Option<String>,
    /// Only those before this run: `next` of the page before.
    before: Option<Uuid>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Lists runs, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunQuery), responses(
    (status = 200, description = "a page of runs", body = RunPage), Unprocessable,
))]
pub async fn list_runs(State(app): State<Shared>, InQuery(query): InQuery<RunQuery>) -> Result<Json<RunPage>, Problem> {
    let limit = input::limit(query.limit, PAGE.0, PAGE.1)?;
    let scope = query.scope.as_deref().map(input::scope_name).transpose()?;
    let before = query.before.map(|run| run.to_string());
    let mut rows = app.services.ledger.older_runs(scope, before.as_deref(), limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(|run| run.run_id.clone());
    Ok(Json(RunPage { runs: rows.into_iter().map(RunView::from).collect(), next }))
}

/// Shows one run with its summary.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}", tag = "runs", params(("run_id" = Uuid, Path, description = "the run")), responses(
    (status = 200, description = "the run", body = RunDetail), NotFound, Unprocessable,
))]
pub async fn show_run(State(app): State<Shared>, InPath(run): InPath<String>) -> Result<Json<RunDetail>, Problem> {
    let mut row = known(&app, &run).await?;
    let summary = row.summary.take().and_then(|text| serde_json::from_str(&text).ok()).map(Document);
    Ok(Json(RunDetail { run: row.into(), summary }))
}

/// The run of that id.
pub async fn known(app: &Shared, run: &str) -> Result<RunRow, Problem> {
    let run = input::id("the run's id", run)?;
    let row = app.services.ledger.run(&run.to_string()).await?;
    row.ok_or_else(|| Problem::not_found("the ledger knows no such run").with_hint("GET /api/v1/runs lists them"))
}
