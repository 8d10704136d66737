//! The scopes: what is audited, by which policy and when.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::config::{Approval, Disposal, ScheduledCommand, Scope};
use crate::serve::Shared;
use crate::serve::problem::{InPath, NotFound, Problem, Unprocessable};
use chrono::{DateTime, Utc};

/// One configured audit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ScopeView {
    /// Its name.
    name: String,
    /// The bucket.
    bucket: String,
    /// The prefix.
    prefix: String,
    /// The templates that read ids.
    patterns: Vec<String>,
    /// The tables whose rows keep ids alive.
    live: Vec<String>,
    /// How long an orphan is left alone, in seconds.
    grace_s: u64,
    /// `required` or `automatic`.
    approval: &'static str,
    /// `delete` or `quarantine`.
    disposal: &'static str,
    /// When it runs by itself; null where it does not.
    schedule: Option<ScheduleView>,
    /// The breakers that wait for an acknowledgement.
    latched: Vec<&'static str>,
    /// Its newest run.
    last_run: Option<Uuid>,
    /// When its newest complete run ended.
    last_success: Option<DateTime<Utc>>,
}

/// When a scope runs by itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ScheduleView {
    /// The calendar.
    cron: String,
    /// Its time zone.
    timezone: String,
    /// `audit` or `sweep`.
    command: &'static str,
}

/// Lists the configured scopes.
#[utoipa::path(get, path = "/api/v1/scopes", tag = "scopes", responses((status = 200, description = "every scope", body = Vec<ScopeView>)))]
pub async fn list_scopes(State(app): State<Shared>) -> Result<Json<Vec<ScopeView>>, Problem> {
    let mut views = Vec::new();
    for scope in &app.services.config.scopes {
        views.push(view(&app, scope).await?);
    }
    Ok(Json(views))
}

/// Shows one scope.
#[utoipa::path(get, path = "/api/v1/scopes/{scope}", tag = "scopes", params(("scope" = String, Path, description = "the scope's name")), responses(
    (status = 200, description = "the scope", body = ScopeView), NotFound, Unprocessable,
))]
pub async fn show_scope(State(app): State<Shared>, InPath(name): InPath<String>) -> Result<Json<ScopeView>, Problem> {
    view(&app, named(&app, &name)?).await.map(Json)
}

/// The scope of that name.
pub fn named<'a>(app: &'a Shared, name: &str) -> Result<&'a Scope, Problem> {
    let found = app.services.config.scopes.iter().find(|scope| scope.name == name);
    found.ok_or_else(|| Problem::not_found("there is no scope of that name").with_hint("GET /api/v1/scopes lists them"))
}

async fn view(app: &Shared, scope: &Scope) -> Result<ScopeView, Problem> {
    let ledger = &app.services.ledger;
    let last_run = ledger.runs(Some(&scope.name), 1).await?.pop().and_then(|run| run.run_id.parse().ok());
    let last_success = ledger.last_complete_run(&scope.name).await?.and_then(|run| run.finished_at);
    let latched = ledger.latches(&scope.name).await?.iter().map(|latch| latch.breaker.as_str()).collect();
    let schedule = scope.schedule.as_ref().map(|schedule| ScheduleView {
        cron: schedule.cron.pattern.to_string(),
        timezone: schedule.timezone.name().to_owned(),
        command: match schedule.command {
            ScheduledCommand::Audit => "audit",
            ScheduledCommand::Sweep => "sweep",
        },
    });
    Ok(ScopeView {
        name: scope.name.clone(),
        bucket: scope.bucket.clone(),
        prefix: scope.prefix.clone(),
        patterns: scope.patterns.iter().map(|pattern| pattern.template().to_owned()).collect(),
        live: scope.live.iter().map(|live| live.label.clone()).collect(),
        grace_s: scope.policy.grace.0.as_secs(),
        approval: match scope.policy.approval {
            Approval::Required => "required",
            Approval::Automatic => "automatic",
        },
        disposal: match scope.policy.disposal {
            Disposal::Delete => "delete",
            Disposal::Quarantine => "quarantine",
        },
        schedule,
        latched,
        last_run,
        last_success,
    })
}
