//! Every route of the one port: health for whoever asks, the API for those with a token.

use std::future::ready;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, api, exporter, guard, health, problem};

/// The routes of `serve`.
pub fn router(app: &Shared) -> Router {
    let open = OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(exporter::metrics));
    let (routes, openapi) = open.merge(api::routes(app)).split_for_parts();
    let document = api::document(openapi);
    let document = serde_json::to_string(&document).unwrap_or_default();
    routes
        .route("/api/v1/openapi.json", axum::routing::get(move || ready(api::answer_document(document.clone()))))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(app.services.config.serve.max_body_bytes))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(app.clone())
}
