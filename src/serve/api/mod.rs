//! The API under `/api/v1`: what was found, what persons decide on it, and runs on demand. Its description is made of its
//! code.
//!
//! Invariant: a route belongs to a group, and its group says in one place which token it asks for, to the caller and in
//! the description alike.

mod breakers;
mod findings;
mod holds;
mod input;
mod plans;
mod platform;
mod reports;
mod runs;
mod scopes;
mod triggers;

use axum::body::Body;
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use utoipa::PartialSchema;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, Paths, RefOr};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{self, Needed};
use super::problem::{self, Problem};
use super::{Shared, guard};
use crate::record::TokenScope;

/// How the description calls the token.
const TOKEN: &str = "token";

/// Every route of the API with what its group asks for.
pub fn routes(app: &Shared) -> OpenApiRouter<Shared> {
    let read = OpenApiRouter::new()
        .routes(routes!(scopes::list_scopes))
        .routes(routes!(scopes::show_scope))
        .routes(routes!(runs::list_runs))
        .routes(routes!(runs::show_run))
        .routes(routes!(findings::list_orphans))
        .routes(routes!(findings::list_missing))
        .routes(routes!(findings::list_foreign))
        .routes(routes!(reports::list_reports))
        .routes(routes!(reports::read_report))
        .routes(routes!(plans::list_plans))
        .routes(routes!(plans::show_plan))
        .routes(routes!(plans::list_groups))
        .routes(routes!(plans::list_decisions_on))
        .routes(routes!(plans::list_decisions))
        .routes(routes!(breakers::list_breakers))
        .routes(routes!(breakers::list_acknowledgements))
        .routes(routes!(holds::list_holds))
        .routes(routes!(triggers::list_triggers))
        .routes(routes!(triggers::show_trigger))
        .routes(routes!(platform::list_purges))
        .routes(routes!(platform::show_purge));
    let approve = OpenApiRouter::new()
        .routes(routes!(plans::decide))
        .routes(routes!(breakers::acknowledge))
        .routes(routes!(holds::place_hold))
        .routes(routes!(holds::remove_hold))
        .routes(routes!(triggers::ask_for_run));
    // Unbounded in time: rows and objects go at their own pace.
    let delete = OpenApiRouter::new().routes(routes!(platform::delete_dataset)).routes(routes!(platform::delete_job));
    let looking = group(app, TokenScope::Read, read).merge(group(app, TokenScope::Approve, approve));
    bounded(app, looking).merge(group(app, TokenScope::Delete, delete))
}

/// Routes that ask for a token of this scope.
fn group(app: &Shared, scope: TokenScope, router: OpenApiRouter<Shared>) -> OpenApiRouter<Shared> {
    let needed = Needed { app: app.clone(), scope };
    let mut router = router.route_layer(middleware::from_fn_with_state(needed, auth::require));
    for operation in operations(&mut router.get_openapi_mut().paths) {
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, [scope.as_str()])]);
        let answers = &mut operation.responses.responses;
        answers.insert("401".into(), problem::answer("there is no token, or it does not count"));
        answers.insert("403".into(), problem::answer("the token has another scope, or a page of another origin asks"));
    }
    router
}

/// Routes that may take `serve.request_timeout`, and no longer.
fn bounded(app: &Shared, router: OpenApiRouter<Shared>) -> OpenApiRouter<Shared> {
    router.route_layer(middleware::from_fn_with_state(app.clone(), guard::limit_time))
}

fn operations(paths: &mut Paths) -> impl Iterator<Item = &mut Operation> {
    paths.paths.values_mut().flat_map(|item: &mut PathItem| {
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
    })
}

/// The description of every route: what each may answer beside what it says itself.
pub fn document(mut openapi: OpenApi) -> OpenApi {
    let mut info = Info::new("orphan-sweeper", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "What orphan-sweeper found, what persons decide on it, and the platform's delete operations. Every route under \
         /api/v1 needs a token of `orphan-sweeper token create`; those of the health need none. Errors are problem details \
         (RFC 9457)."
            .into(),
    );
    openapi.info = info;
    for operation in operations(&mut openapi.paths) {
        let answers = &mut operation.responses.responses;
        for (status, description) in [
            ("400", "the request cannot be read"),
            ("403", "a page of another origin asks"),
            ("421", "the request is addressed to another host"),
            ("500", "something is wrong in this program"),
            ("503", "something that this needs cannot be reached, or it took too long"),
        ] {
            answers.entry(status.into()).or_insert_with(|| problem::answer(description));
        }
    }
    let components = openapi.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".into(), <Problem as PartialSchema>::schema());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = Some("Made by `orphan-sweeper token create --name NAME --scope read|approve|delete`.".into());
    components.security_schemes.insert(TOKEN.into(), RefOr::T(SecurityScheme::Http(bearer)));
    openapi
}

/// Answers with the description.
pub fn answer_document(document: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from(document)).into_response()
}
