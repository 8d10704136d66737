//! Runs on demand: handed to the one runner that the schedule has too.

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{input, scopes};
use crate::serve::Shared;
use crate::serve::auth::Caller;
use crate::serve::problem::{BadBody, Conflict, InBody, InPath, NotFound, Problem, Unprocessable};
use crate::serve::triggers::{Trigger, TriggerCommand, TriggerState};

/// A run to ask for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// What to run.
    command: TriggerCommand,
}

/// Asks for an audit or a sweep of a scope. It begins when the runner is free; a sweep deletes what policy allows or a person
/// approved, and no more.
#[utoipa::path(post, path = "/api/v1/scopes/{scope}/runs", tag = "triggers", params(("scope" = String, Path, description = "the scope's name")), request_body = NewRun, responses(
    (status = 202, description = "it waits for the runner; `Location` says where to look", body = Trigger, headers(("Location" = String, description = "the trigger"))),
    NotFound, Conflict, BadBody,
))]
pub async fn ask_for_run(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath(scope): InPath<String>,
    InBody(new): InBody<NewRun>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Trigger>), Problem> {
    let scope = scopes::named(&app, &scope)?;
    let asked = app.triggers.ask(&scope.name, new.command, &caller.name, app.services.clock.now());
    let trigger = asked.map_err(|waiting| {
        Problem::conflict(format!("a run of this scope waits already, for {}", waiting.by))
            .with_hint(format!("GET {} says where it stands", href(waiting.id)))
    })?;
    tracing::info!(scope = %scope.name, by = %caller.name, "a run was asked for over the API");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, href(trigger.id))], Json(trigger)))
}

/// Lists the runs that were asked for since this process began, the newest first.
#[utoipa::path(get, path = "/api/v1/triggers", tag = "triggers", responses(
    (status = 200, description = "what was asked for", body = Vec<Trigger>),
))]
pub async fn list_triggers(State(app): State<Shared>) -> Json<Vec<Trigger>> {
    Json(app.triggers.all())
}

/// Shows where a run that was asked for stands.
#[utoipa::path(get, path = "/api/v1/triggers/{id}", tag = "triggers", params(("id" = Uuid, Path, description = "the trigger")), responses(
    (status = 200, description = "where it stands", body = Trigger), NotFound, Unprocessable,
))]
pub async fn show_trigger(State(app): State<Shared>, InPath(id): InPath<String>) -> Result<Json<Trigger>, Problem> {
    let id = input::id("the trigger's id", &id)?;
    let mut trigger = app.triggers.get(id).ok_or_else(|| {
        Problem::not_found("nothing of that id was asked for since this process began")
            .with_hint("GET /api/v1/runs lists the runs")
    })?;
    if trigger.state == TriggerState::Running {
        // The runner alone begins runs here, so the newest of the scope since then is it.
        let newest = app.services.ledger.runs(Some(&trigger.scope), 1).await?.pop();
        let newest = newest.filter(|run| trigger.started_at.is_some_and(|started| run.started_at >= started));
        trigger.run_id = newest.and_then(|run| run.run_id.parse().ok());
    }
    Ok(Json(trigger))
}

fn href(id: Uuid) -> String {
    format!("/api/v1/triggers/{id}")
}
