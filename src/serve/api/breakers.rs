//! The breakers that wait for a person, and their acknowledgement.

use axum::extract::State;
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{input, scopes};
use crate::decide::breakers::Breaker;
use crate::record::Acknowledgement;
use crate::serve::Shared;
use crate::serve::auth::Caller;
use crate::serve::problem::{BadBody, Conflict, InBody, InPath, NotFound, Problem};

/// A breaker that waits for an acknowledgement.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LatchView {
    /// The scope.
    scope: String,
    /// The breaker.
    breaker: &'static str,
    /// When it tripped.
    since: DateTime<Utc>,
    /// The last run that tripped it: what it observed is what an acknowledgement accepts.
    run_id: String,
    /// What that run said.
    message: String,
}

/// An acknowledgement, on record.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AcknowledgementView {
    /// The scope.
    scope: String,
    /// The breaker.
    breaker: String,
    /// Who.
    by: String,
    /// Why.
    reason: String,
    /// When.
    at: DateTime<Utc>,
    /// The run that had tripped it.
    run_id: String,
    /// What it had said.
    message: String,
}

impl From<Acknowledgement> for AcknowledgementView {
    fn from(given: Acknowledgement) -> Self {
        Self {
            scope: given.scope,
            breaker: given.breaker,
            by: given.acknowledged_by,
            reason: given.reason,
            at: given.acknowledged_at,
            run_id: given.run_id,
            message: given.message,
        }
    }
}

/// An acknowledgement to record.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAcknowledgement {
    /// The run whose observation is accepted: the `run_id` of the latch that was looked at.
    run_id: Uuid,
    /// Why it may go on.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
}

/// Lists the breakers that wait for an acknowledgement.
#[utoipa::path(get, path = "/api/v1/breakers", tag = "breakers", responses(
    (status = 200, description = "every latched breaker of every scope", body = Vec<LatchView>),
))]
pub async fn list_breakers(State(app): State<Shared>) -> Result<Json<Vec<LatchView>>, Problem> {
    let mut views = Vec::new();
    for scope in &app.services.config.scopes {
        let latches = app.services.ledger.latches(&scope.name).await?;
        views.extend(latches.into_iter().map(|latch| LatchView {
            scope: scope.name.clone(),
            breaker: latch.breaker.as_str(),
            since: latch.latched_at,
            run_id: latch.run_id,
            message: latch.message,
        }));
    }
    Ok(Json(views))
}

/// Lists the acknowledgements, the newest first.
#[utoipa::path(get, path = "/api/v1/acknowledgements", tag = "breakers", responses(
    (status = 200, description = "every acknowledgement", body = Vec<AcknowledgementView>),
))]
pub async fn list_acknowledgements(State(app): State<Shared>) -> Result<Json<Vec<AcknowledgementView>>, Problem> {
    let given = app.services.ledger.acknowledgements().await?;
    Ok(Json(given.into_iter().map(AcknowledgementView::from).collect()))
}

/// Acknowledges a latched breaker, on record, by the name of the token: what that run observed becomes the baseline.
#[utoipa::path(post, path = "/api/v1/scopes/{scope}/breakers/{breaker}/acknowledgements", tag = "breakers", params(
    ("scope" = String, Path, description = "the scope's name"), ("breaker" = String, Path, description = "the breaker's name"),
), request_body = NewAcknowledgement, responses(
    (status = 201, description = "it is acknowledged", body = AcknowledgementView), NotFound, Conflict, BadBody,
))]
pub async fn acknowledge(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath((scope, breaker)): InPath<(String, String)>,
    InBody(new): InBody<NewAcknowledgement>,
) -> Result<(axum::http::StatusCode, Json<AcknowledgementView>), Problem> {
    let scope = scopes::named(&app, &scope)?;
    let breaker = Breaker::named(&breaker).ok_or_else(|| {
        Problem::not_found("there is no breaker of that name").with_hint("GET /api/v1/breakers lists those that wait")
    })?;
    let reason = input::reason(&new.reason)?;
    let (ledger, now) = (&app.services.ledger, app.services.clock.now());
    let changed = || {
        Problem::conflict("it waits for no acknowledgement of what that run observed")
            .with_hint("GET /api/v1/breakers lists those that wait, with what was observed last")
    };
    let latches = ledger.latches(&scope.name).await?;
    let latch = latches.into_iter().find(|latch| latch.breaker == breaker && latch.run_id == new.run_id.to_string());
    let latch = latch.ok_or_else(changed)?;
    if !ledger.acknowledge(&scope.name, &latch, &caller.name, reason, now).await? {
        return Err(changed());
    }
    tracing::warn!(scope = %scope.name, breaker = breaker.as_str(), by = %caller.name, "a breaker was acknowledged over the API");
    let view = AcknowledgementView {
        scope: scope.name.clone(),
        breaker: breaker.as_str().to_owned(),
        by: caller.name,
        reason: reason.to_owned(),
        at: now,
        run_id: latch.run_id,
        message: latch.message,
    };
    Ok((axum::http::StatusCode::CREATED, Json(view)))
}
