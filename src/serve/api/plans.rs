//! The plans, and what persons decide on them.

use axum::extract::State;
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::input::{self, Document};
use crate::command::CommandError;
use crate::command::plan::{Known, Wish, decision_document, record_decision};
use crate::decide::approval::{Decision, Ruling};
use crate::model::DatasetId;
use crate::plan::VerifiedPlan;
use crate::record::{PlanListing, PlanState};
use crate::run::apply::find_plan;
use crate::serve::Shared;
use crate::serve::auth::Caller;
use crate::serve::problem::{BadBody, Conflict, InBody, InPath, InQuery, NotFound, Problem, Unprocessable};

/// Plans or decisions of a page where nothing else is asked for, and at most.
const PAGE: (u32, u32) = (50, 500);
/// Groups of a page where nothing else is asked for, and at most.
const GROUP_PAGE: (u32, u32) = (100, 1000);

/// A plan among others.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanView {
    /// Its hash.
    plan_hash: String,
    /// Its scope.
    scope: String,
    /// The run that made it.
    run_id: String,
    /// When.
    created_at: DateTime<Utc>,
    /// When it can no longer be applied.
    expires_at: DateTime<Utc>,
    /// `open`, `applying` or `closed`.
    state: &'static str,
    /// Groups that it lets go.
    groups: u64,
    /// Their objects.
    objects: u64,
    /// Their bytes.
    bytes: u64,
}

impl From<PlanListing> for PlanView {
    fn from(plan: PlanListing) -> Self {
        Self {
            plan_hash: plan.hash,
            scope: plan.scope,
            run_id: plan.run_id,
            created_at: plan.created_at,
            expires_at: plan.expires_at,
            state: plan.state.as_str(),
            groups: plan.totals.groups,
            objects: plan.totals.objects,
            bytes: plan.totals.bytes,
        }
    }
}

/// Plans, the newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanPage {
    /// The plans.
    plans: Vec<PlanView>,
    /// What to send as `before` for the next page; null after the last.
    next: Option<String>,
}

/// Groups of a plan, those with the most bytes first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanGroupPage {
    /// The groups, each as `orphan-sweeper schema plan` describes it, with what was decided on it.
    groups: Vec<Document>,
    /// How many the plan has.
    total: usize,
    /// What to send as `offset` for the next page; null after the last.
    next: Option<usize>,
}

/// A decision on a plan, or on an id of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DecisionView {
    /// Its number.
    number: u64,
    /// The scope.
    scope: String,
    /// The plan.
    plan_hash: String,
    /// The dataset that it is about; null where it is about the whole plan.
    id: Option<Uuid>,
    /// `approved` or `rejected`.
    decision: &'static str,
    /// Who decided.
    by: String,
    /// Why.
    reason: String,
    /// When.
    at: DateTime<Utc>,
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        Self {
            number: decision.number,
            scope: decision.scope,
            plan_hash: decision.plan_hash,
            id: decision.id.map(|id| id.0),
            decision: decision.ruling.as_str(),
            by: decision.by,
            reason: decision.reason,
            at: decision.at,
        }
    }
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RulingWord {
    /// It may go.
    Approved,
    /// It stays.
    Rejected,
}

/// A decision to record. It is about ids, or about the whole plan, and must say which.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDecision {
    /// What is decided.
    decision: RulingWord,
    /// Why.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
    /// The ids of the plan that it is about; at least one.
    #[serde(default)]
    #[schema(min_items = 1)]
    ids: Option<Vec<Uuid>>,
    /// True where it is about the whole plan.
    #[serde(default)]
    whole_plan: bool,
}

/// Which plans.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PlanQuery {
    /// Only this scope.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 200)]
    scope: Option<String>,
    /// Only this state.
    #[param(inline)]
    state: Option<StateFilter>,
    /// Only those before the plan of this hash: `next` of the page before.
    #[param(pattern = "^[0-9a-fA-F]{8,64}$")]
    before: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Nobody applied it yet.
    Open,
    /// It was begun and not finished.
    Applying,
    /// It is done with.
    Closed,
}

/// Which groups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct GroupQuery {
    /// How many to leave out before the first.
    #[param(minimum = 0)]
    offset: Option<u32>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DecisionQuery {
    /// Only this scope.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 200)]
    scope: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Lists plans, the newest first.
#[utoipa::path(get, path = "/api/v1/plans", tag = "plans", params(PlanQuery), responses(
    (status = 200, description = "a page of plans", body = PlanPage), Unprocessable,
))]
pub async fn list_plans(
    State(app): State<Shared>,
    InQuery(query): InQuery<PlanQuery>,
) -> Result<Json<PlanPage>, Problem> {
    let limit = input::limit(query.limit, PAGE.0, PAGE.1)?;
    let scope = query.scope.as_deref().map(input::scope_name).transpose()?;
    let before = query.before.as_deref().map(input::plan_hash).transpose()?;
    let state = query.state.map(|state| match state {
        StateFilter::Open => PlanState::Open,
        StateFilter::Applying => PlanState::Applying,
        StateFilter::Closed => PlanState::Closed,
    });
    let mut rows = app.services.ledger.plans_before(scope, state, before.as_deref(), limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(|plan| plan.hash.clone());
    Ok(Json(PlanPage { plans: rows.into_iter().map(PlanView::from).collect(), next }))
}

/// Shows a plan: what it would delete, what was decided on it, and what comes next.
#[utoipa::path(get, path = "/api/v1/plans/{hash}", tag = "plans", params(("hash" = String, Path, description = "the plan's hash, or its first 8 digits at least", pattern = "^[0-9a-fA-F]{8,64}$")), responses(
    (status = 200, description = "the plan, as `orphan-sweeper plan show --json` shows it", body = Document), NotFound, Conflict, Unprocessable,
))]
pub async fn show_plan(State(app): State<Shared>, InPath(hash): InPath<String>) -> Result<Json<Document>, Problem> {
    let known = known(&app, &hash).await?;
    Ok(Json(Document(known.document(false))))
}

/// Lists the groups of a plan, those with the most bytes first.
#[utoipa::path(get, path = "/api/v1/plans/{hash}/groups", tag = "plans", params(("hash" = String, Path, description = "the plan's hash, or its first 8 digits at least", pattern = "^[0-9a-fA-F]{8,64}$"), GroupQuery), responses(
    (status = 200, description = "a page of groups", body = PlanGroupPage), NotFound, Conflict, Unprocessable,
))]
pub async fn list_groups(
    State(app): State<Shared>,
    InPath(hash): InPath<String>,
    InQuery(query): InQuery<GroupQuery>,
) -> Result<Json<PlanGroupPage>, Problem> {
    let limit = input::limit(query.limit, GROUP_PAGE.0, GROUP_PAGE.1)? as usize;
    let known = known(&app, &hash).await?;
    let (total, offset) = (known.plan.plan.groups.len(), query.offset.unwrap_or(0) as usize);
    let page = known.largest().into_iter().skip(offset).take(limit);
    let groups: Vec<Document> = page.map(|group| Document(known.group_document(group))).collect();
    let next = Some(offset + groups.len()).filter(|next| *next < total && !groups.is_empty());
    Ok(Json(PlanGroupPage { groups, total, next }))
}

/// Lists the decisions on a plan, in order.
#[utoipa::path(get, path = "/api/v1/plans/{hash}/decisions", tag = "plans", params(("hash" = String, Path, description = "the plan's hash, or its first 8 digits at least", pattern = "^[0-9a-fA-F]{8,64}$")), responses(
    (status = 200, description = "every decision on it", body = Vec<DecisionView>), NotFound, Conflict, Unprocessable,
))]
pub async fn list_decisions_on(
    State(app): State<Shared>,
    InPath(hash): InPath<String>,
) -> Result<Json<Vec<DecisionView>>, Problem> {
    let known = known(&app, &hash).await?;
    Ok(Json(known.history.into_iter().map(DecisionView::from).collect()))
}

/// Lists the newest decisions.
#[utoipa::path(get, path = "/api/v1/decisions", tag = "plans", params(DecisionQuery), responses(
    (status = 200, description = "the newest decisions first", body = Vec<DecisionView>), Unprocessable,
))]
pub async fn list_decisions(
    State(app): State<Shared>,
    InQuery(query): InQuery<DecisionQuery>,
) -> Result<Json<Vec<DecisionView>>, Problem> {
    let limit = input::limit(query.limit, PAGE.0, PAGE.1)?;
    let scope = query.scope.as_deref().map(input::scope_name).transpose()?;
    let decisions = app.services.ledger.newest_decisions(scope, limit).await?;
    Ok(Json(decisions.into_iter().map(DecisionView::from).collect()))
}

/// Approves or rejects a plan, or ids of it, on record, by the name of the token.
#[utoipa::path(post, path = "/api/v1/plans/{hash}/decisions", tag = "plans", params(("hash" = String, Path, description = "the plan's hash, or its first 8 digits at least", pattern = "^[0-9a-fA-F]{8,64}$")), request_body = NewDecision, responses(
    (status = 200, description = "the plan with the decision, as `orphan-sweeper plan show --json` shows it", body = Document),
    NotFound, Conflict, BadBody,
))]
pub async fn decide(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    InPath(hash): InPath<String>,
    InBody(new): InBody<NewDecision>,
) -> Result<Json<Document>, Problem> {
    let reason = input::reason(&new.reason)?;
    let mut ids: Vec<DatasetId> = match (new.ids, new.whole_plan) {
        (Some(ids), false) if !ids.is_empty() => ids.into_iter().map(DatasetId).collect(),
        (None, true) => Vec::new(),
        _ => {
            let detail = "a decision is about `ids`, one at least, or about the whole plan, with `whole_plan`: true";
            return Err(Problem::unprocessable(detail));
        }
    };
    ids.sort_unstable();
    ids.dedup();
    let ruling = match new.decision {
        RulingWord::Approved => Ruling::Approved,
        RulingWord::Rejected => Ruling::Rejected,
    };
    let plan = issued(&app, &hash).await?;
    let wish = Wish { ids: &ids, ruling, by: &caller.name, reason };
    let (services, now) = (&app.services, app.services.clock.now());
    let known = record_decision(&services.ledger, &services.config, plan, wish, now).await?;
    if let Some(last) = known.history.last() {
        let document = decision_document(last).to_string();
        tracing::info!(decision = document, "a decision was made over the API");
    }
    Ok(Json(Document(known.document(false))))
}

/// The plan of that hash, which our ledger issued.
async fn issued(app: &Shared, hash: &str) -> Result<VerifiedPlan, Problem> {
    let hash = input::plan_hash(hash)?;
    let absent = || Problem::not_found("this ledger issued no such plan").with_hint("GET /api/v1/plans lists them");
    let ledger = &app.services.ledger;
    let row = ledger.plan(&hash).await?.ok_or_else(absent)?;
    let _permit = app.readers.acquire().await.map_err(|_| absent())?;
    let found = find_plan(ledger, &row.hash).await.map_err(CommandError::from)?.verified;
    // A file of that name in our folder would be another plan.
    if found.hash.to_string() == row.hash { Ok(found) } else { Err(absent()) }
}

async fn known(app: &Shared, hash: &str) -> Result<Known, Problem> {
    let plan = issued(app, hash).await?;
    let (services, now) = (&app.services, app.services.clock.now());
    Ok(Known::of(&services.ledger, &services.config, plan, now).await?)
}
