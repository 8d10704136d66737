//! Whether the process lives, and whether what it needs can be reached.
//!
//! Invariant: however often it is asked, what it needs is looked at once in a few seconds, and for a few seconds at most.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex as PlainMutex;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{App, Shared};
use crate::run::failure::chain;

/// How long an answer counts.
const KEPT: Duration = Duration::from_secs(3);
/// Longest time that one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// That the process lives.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Alive {
    /// Always `ok`.
    status: &'static str,
}

/// Whether what the process needs can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether all of it can.
    ready: bool,
    /// Each, with what is known of it.
    checks: Vec<Check>,
}

/// One thing that the process needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// `ledger`, `store` or `database`.
    name: &'static str,
    /// The scope that needs it; null where all do.
    scope: Option<String>,
    /// Whether it answered.
    ok: bool,
}

/// The last look, and what was said of it in the log.
#[derive(Debug, Default)]
pub struct Health {
    last: Mutex<Option<(Instant, Readiness)>>,
    told: PlainMutex<Option<Readiness>>,
}

/// Says that the process lives: whoever asks needs no token.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "the process lives", body = Alive)))]
pub async fn healthz() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Says whether ledger, store and database can be reached: whoever asks needs no token.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "all can be reached", body = Readiness),
    (status = 503, description = "one or several cannot", body = Readiness),
))]
pub async fn readyz(State(app): State<Shared>) -> Response {
    let readiness = app.health.look(&app).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

impl Health {
    async fn look(&self, app: &App) -> Readiness {
        // Whoever comes while one looks waits for the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, readiness)) = last.as_ref().filter(|(at, _)| at.elapsed() < KEPT) {
            let _ = at;
            return readiness.clone();
        }
        let mut looks: Vec<BoxFuture<'_, Check>> = vec![Box::pin(look_once("ledger", None, async {
            app.services.ledger.run_count().await.map(drop).map_err(|error| chain(&error))
        }))];
        for scope in &app.services.config.scopes {
            let named = || Some(scope.name.as_str());
            looks.push(Box::pin(look_once("store", named(), async {
                let reading = app.keyring.reading(&app.services, scope).map_err(|error| chain(&error))?;
                reading.store.versioning().await.map(drop).map_err(|error| chain(&error))
            })));
            looks.push(Box::pin(look_once("database", named(), async {
                let references = app.keyring.references(&app.services.config, scope, &app.services.clock);
                let references = references.map_err(|error| chain(&error))?;
                references.answers().await.map_err(|error| chain(&error))
            })));
        }
        let checks = join_all(looks).await;
        let readiness = Readiness { ready: checks.iter().all(|check| check.ok), checks };
        self.tell(&readiness);
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// Logs a change, once.
    fn tell(&self, readiness: &Readiness) {
        let before = self.told.lock().replace(readiness.clone());
        match before {
            Some(before) if before.ready == readiness.ready => {}
            None if readiness.ready => {}
            _ if readiness.ready => tracing::info!("everything that is needed can be reached again"),
            _ => {
                let unreachable: Vec<&str> =
                    readiness.checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
                tracing::warn!(unreachable = unreachable.join(" "), "not ready");
            }
        }
    }
}

/// Looks at one thing. Why it cannot be reached is for the log: whoever asks has shown no token.
async fn look_once(name: &'static str, scope: Option<&str>, look: impl Future<Output = Result<(), String>>) -> Check {
    let looked = tokio::time::timeout(LOOK_TIMEOUT, look).await;
    let looked = looked.unwrap_or_else(|_| Err(format!("it did not answer within {} s", LOOK_TIMEOUT.as_secs())));
    if let Err(error) = &looked {
        tracing::debug!(name, scope, error, "cannot be reached");
    }
    Check { name, scope: scope.map(ToOwned::to_owned), ok: looked.is_ok() }
}
