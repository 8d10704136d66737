//! The protected ids: those of every source, and placing and removing those of the ledger.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{input, scopes};
use crate::command::hold::{Shown, gather_with, read_end};
use crate::decide::holds::{Hold, HoldSource};
use crate::model::{DatasetId, Timestamp};
use crate::serve::Shared;
use crate::serve::auth::Caller;
use crate::serve::problem::{BadBody, InBody, InPath, NotFound, Problem, Unprocessable};

/// A protected id.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HoldView {
    /// The id.
    id: Uuid,
    /// When it ends; null where only a person ends it.
    until: Option<DateTime<Utc>>,
    /// Who placed it; null where that is not known.
    by: Option<String>,
    /// Why.
    reason: String,
    /// `ledger`, `file` or `table`.
    source: &'static str,
    /// Whether it protects now.
    counts: bool,
    /// When it was placed, where the ledger has it.
    placed_at: Option<DateTime<Utc>>,
}

/// An id to protect.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// The id.
    id: Uuid,
    /// Why.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
    /// Until the end of this day in UTC, or until this time (RFC 3339); null: until it is removed.
    #[serde(default)]
    until: Option<String>,
}

/// Lists the protected ids of a scope, from the ledger and from where the configuration says.
#[utoipa::path(get, path = "/api/v1/scopes/{scope}/holds", tag = "holds", params(("scope" = String, Path, description = "the scope's name")), responses(
    (status = 200, description = "its holds, the ended ones too", body = Vec<HoldView>), NotFound, Unprocessable,
))]
pub async fn list_holds(
    State(app): State<Shared>,
    InPath(scope): InPath<String>,
) -> Result<Json<Vec<HoldView>>, Problem> {
    let scope = scopes::named(&app, &scope)?;
    let (services, now) = (&app.services, app.services.clock.now());
    let holds = gather_with(Some(&services.ledger), &app.host, &services.config, scope).await?;
    Ok(Json(holds.into_iter().map(|shown| view(shown, now)).collect()))
}

/// Protects an id, on record, by the name of the token.
#[utoipa::path(post, path = "/api/v1/scopes/{scope}/holds", tag = "holds", params(("scope" = String, Path, description = "the scope's name")), request_body = NewHold, responses(
    (status = 201, description = "it is protected", body = HoldView), NotFound, BadBody,
))]
pub async fn place_hold(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath(scope): InPath<String>,
    InBody(new): InBody<NewHold>,
) -> Result<(StatusCode, Json<HoldView>), Problem> {
    let scope = scopes::named(&app, &scope)?;
    let reason = input::reason(&new.reason)?;
    let now = app.services.clock.now();
    let until = new.until.map(|text| read_end(&text, now)).transpose()?;
    let id = DatasetId(new.id);
    app.services.ledger.place_hold(&scope.name, id, until, &caller.name, reason, now).await?;
    let hold = Hold { id, until, by: Some(caller.name), reason: reason.to_owned(), source: HoldSource::Ledger };
    Ok((StatusCode::CREATED, Json(view(Shown { hold, placed_at: Some(now) }, now))))
}

/// Takes the ledger's holds off an id, on record, by the name of the token.
#[utoipa::path(delete, path = "/api/v1/scopes/{scope}/holds/{id}", tag = "holds", params(
    ("scope" = String, Path, description = "the scope's name"), ("id" = Uuid, Path, description = "the dataset's id"),
), responses((status = 204, description = "the ledger holds it no more"), NotFound, Unprocessable))]
pub async fn remove_hold(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath((scope, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let scope = scopes::named(&app, &scope)?;
    let (id, now) = (input::dataset(&id)?, app.services.clock.now());
    let removed = app.services.ledger.remove_holds(&scope.name, id, Some(&caller.name), None, now).await?;
    if removed == 0 {
        let problem = Problem::not_found("the ledger holds no hold on that id");
        return Err(problem.with_hint("GET /api/v1/scopes/{scope}/holds shows what is held, and where"));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn view(shown: Shown, now: Timestamp) -> HoldView {
    let counts = shown.hold.counts_at(now);
    let Hold { id, until, by, reason, source } = shown.hold;
    HoldView { id: id.0, until, by, reason, source: source.as_str(), counts, placed_at: shown.placed_at }
}
