//! The files of a report, as they lie on the disk.
//!
//! Invariant: only a finished file of a report is served, by its known name, from the folder of a run that the ledger knows.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use utoipa::ToSchema;

use super::{input, runs};
use crate::report::folder;
use crate::run::failure::chain;
use crate::serve::Shared;
use crate::serve::problem::{InPath, NotFound, Problem, Unprocessable};

/// How much of a file is read at a time.
const CHUNK: usize = 64 * 1024;

/// What the page of a report may do in a browser: show itself. Its script runs in an origin of its own, and reaches nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts";

/// A file of a report.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FileView {
    /// Its name.
    name: String,
    /// Its size in bytes.
    size_bytes: u64,
    /// Where it is.
    href: String,
}

/// Lists the files of a run's report.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}/reports", tag = "reports", params(("run_id" = uuid::Uuid, Path, description = "the run")), responses(
    (status = 200, description = "its files", body = Vec<FileView>), NotFound, Unprocessable,
))]
pub async fn list_reports(
    State(app): State<Shared>,
    InPath(run): InPath<String>,
) -> Result<Json<Vec<FileView>>, Problem> {
    let row = runs::known(&app, &run).await?;
    let id = input::id("the run's id", &row.run_id)?;
    let files = folder::finished_files(&app.services.config.reports_directory, &row.scope, id);
    let files = files.map_err(|error| unreadable(&chain(&error)))?;
    let view = |file: folder::FinishedFile| FileView {
        href: format!("/api/v1/runs/{id}/reports/{}", file.name),
        name: file.name,
        size_bytes: file.size_bytes,
    };
    Ok(Json(files.into_iter().map(view).collect()))
}

/// Gives a file of a run's report.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}/reports/{file}", tag = "reports", params(
    ("run_id" = uuid::Uuid, Path, description = "the run"),
    ("file" = String, Path, description = "the file's name, such as `orphans.csv`"),
), responses(
    (status = 200, description = "the file", content(
        (Vec<u8> = "text/csv"), (String = "text/html"), (crate::serve::api::input::Document = "application/json"), (Vec<u8> = "application/zstd"),
    )),
    NotFound, Unprocessable,
))]
pub async fn read_report(
    State(app): State<Shared>,
    InPath((run, name)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let row = runs::known(&app, &run).await?;
    let id = input::id("the run's id", &row.run_id)?;
    let opened = folder::open_finished(&app.services.config.reports_directory, &row.scope, id, &name);
    let file = opened.map_err(|error| unreadable(&chain(&error)))?.ok_or_else(|| {
        Problem::not_found("the run left no such file, or it is no longer kept")
            .with_hint("GET /api/v1/runs/{run_id}/reports lists them")
    })?;
    let length = file.metadata().map_err(|error| unreadable(&error.to_string()))?.len();
    let (kind, disposition) = kind_of(&name);
    let mut response = Body::from_stream(chunks(tokio::fs::File::from_std(file))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    // The name is one of a closed list, so it needs no escape.
    if let Ok(value) = HeaderValue::from_str(&format!("{disposition}; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if disposition == INLINE {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    }
    Ok(response)
}

const INLINE: &str = "inline";

/// The media type of a file, and whether a browser shows it.
fn kind_of(name: &str) -> (&'static str, &'static str) {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => ("text/html; charset=utf-8", INLINE),
        Some("json") => ("application/json", "attachment"),
        Some("csv") => ("text/csv; charset=utf-8; header=present", "attachment"),
        Some("zst") => ("application/zstd", "attachment"),
        _ => ("application/octet-stream", "attachment"),
    }
}

fn chunks(file: tokio::fs::File) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), file)))
    })
}

fn unreadable(error: &str) -> Problem {
    tracing::error!(error, "a report cannot be read");
    Problem::unavailable("the report cannot be read now").with_hint("the log of `serve` has the reason")
}
