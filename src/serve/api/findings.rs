//! What a run found: orphans, missing objects, foreign keys. Read from its report, a page at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use csv::StringRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{input, runs};
use crate::report::folder;
use crate::run::failure::chain;
use crate::serve::Shared;
use crate::serve::problem::{InPath, InQuery, NotFound, Problem, Unprocessable};
use crate::serve::window::{self, Cursor, Found, SortBy, Wanted};

/// Findings of a page where nothing else is asked for, and at most.
const PAGE: (u32, u32) = (100, 1000);

/// An orphan group as a run judged it. Texts show control characters as `\u{…}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OrphanView {
    /// The dataset's id.
    id: Uuid,
    /// The template that reads the prefix.
    pattern: String,
    /// The prefix.
    prefix: String,
    /// Its objects.
    objects: u64,
    /// Their bytes.
    bytes: u64,
    /// The oldest `LastModified`.
    oldest: Option<DateTime<Utc>>,
    /// The newest `LastModified`.
    newest: Option<DateTime<Utc>>,
    /// When it was first seen as an orphan.
    first_seen: Option<DateTime<Utc>>,
    /// How many scans saw it.
    sightings: u64,
    /// `eligible` or `keep`.
    verdict: String,
    /// Why.
    reason: String,
}

/// A row that should have objects and has none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MissingView {
    /// The dataset's id.
    id: Uuid,
    /// The table of the row.
    table: String,
    /// When the row was made.
    created_at: Option<DateTime<Utc>>,
}

/// A key or prefix that no pattern reads. Texts show control characters as `\u{…}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ForeignView {
    /// The key or prefix.
    prefix_or_key: String,
    /// Which of the two.
    kind: String,
    /// Why no pattern reads it.
    reason: String,
}

/// A page of orphans.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OrphanPage {
    /// The orphans.
    orphans: Vec<OrphanView>,
    /// How many match in all.
    matched: u64,
    /// What to send as `cursor` for the next page; null after the last.
    next: Option<String>,
}

/// A page of rows without objects.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MissingPage {
    /// The rows.
    missing: Vec<MissingView>,
    /// How many match in all.
    matched: u64,
    /// What to send as `cursor` for the next page; null after the last.
    next: Option<String>,
}

/// A page of foreign keys and prefixes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ForeignPage {
    /// The keys and prefixes.
    foreign: Vec<ForeignView>,
    /// How many match in all.
    matched: u64,
    /// What to send as `cursor` for the next page; null after the last.
    next: Option<String>,
}

/// What orphans are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrphanSort {
    /// As they were listed.
    Listed,
    /// Bytes.
    Bytes,
    /// Objects.
    Objects,
    /// The oldest object.
    Oldest,
    /// The newest object.
    Newest,
    /// The first sighting.
    FirstSeen,
    /// How many scans saw it.
    Sightings,
    /// The prefix.
    Prefix,
}

/// Which of two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SortOrder {
    /// The least first.
    Asc,
    /// The greatest first.
    Desc,
}

/// What becomes of an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictFilter {
    /// Every rule lets it go.
    Eligible,
    /// It is kept.
    Keep,
}

/// Which orphans.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OrphanQuery {
    /// Only this verdict.
    #[param(inline)]
    verdict: Option<VerdictFilter>,
    /// Only this reason.
    #[param(max_length = 100)]
    reason: Option<String>,
    /// Only this dataset.
    id: Option<Uuid>,
    /// What they are ordered by.
    #[param(inline)]
    sort: Option<OrphanSort>,
    /// In which direction.
    #[param(inline)]
    order: Option<SortOrder>,
    /// Where the page before ended: its `next`.
    #[param(max_length = 4000)]
    cursor: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which findings.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page before ended: its `next`.
    #[param(max_length = 4000)]
    cursor: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the orphans that a run found.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}/orphans", tag = "findings", params(("run_id" = Uuid, Path, description = "the run"), OrphanQuery), responses(
    (status = 200, description = "a page of orphans", body = OrphanPage), NotFound, Unprocessable,
))]
pub async fn list_orphans(
    State(app): State<Shared>,
    InPath(run): InPath<String>,
    InQuery(query): InQuery<OrphanQuery>,
) -> Result<Json<OrphanPage>, Problem> {
    let mut equal = Vec::new();
    if let Some(verdict) = query.verdict {
        let word = match verdict {
            VerdictFilter::Eligible => "eligible",
            VerdictFilter::Keep => "keep",
        };
        equal.push(("verdict", word.to_owned()));
    }
    equal.extend(query.reason.map(|reason| ("reason", reason)));
    equal.extend(query.id.map(|id| ("id", id.to_string())));
    let sort = match query.sort.unwrap_or(OrphanSort::Listed) {
        OrphanSort::Listed => SortBy::Listed,
        OrphanSort::Bytes => SortBy::Number("bytes"),
        OrphanSort::Objects => SortBy::Number("objects"),
        OrphanSort::Oldest => SortBy::Time("oldest"),
        OrphanSort::Newest => SortBy::Time("newest"),
        OrphanSort::FirstSeen => SortBy::Time("first_seen"),
        OrphanSort::Sightings => SortBy::Number("sightings"),
        OrphanSort::Prefix => SortBy::Text("prefix"),
    };
    let is_descending = query.order == Some(SortOrder::Desc);
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    let found =
        find(&app, &run, "orphans.csv", page, Wanted { equal, sort, is_descending, after: None, limit: 0 }).await?;
    let next = found.next.as_ref().map(Cursor::to_text);
    Ok(Json(OrphanPage { orphans: read(&found)?, matched: found.matched, next }))
}

/// Lists the rows that a run found without objects.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}/missing", tag = "findings", params(("run_id" = Uuid, Path, description = "the run"), PageQuery), responses(
    (status = 200, description = "a page of rows", body = MissingPage), NotFound, Unprocessable,
))]
pub async fn list_missing(
    State(app): State<Shared>,
    InPath(run): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<MissingPage>, Problem> {
    let found = find(&app, &run, "missing.csv", query, as_listed()).await?;
    let next = found.next.as_ref().map(Cursor::to_text);
    Ok(Json(MissingPage { missing: read(&found)?, matched: found.matched, next }))
}

/// Lists the keys and prefixes that no pattern reads.
#[utoipa::path(get, path = "/api/v1/runs/{run_id}/foreign", tag = "findings", params(("run_id" = Uuid, Path, description = "the run"), PageQuery), responses(
    (status = 200, description = "a page of keys and prefixes", body = ForeignPage), NotFound, Unprocessable,
))]
pub async fn list_foreign(
    State(app): State<Shared>,
    InPath(run): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<ForeignPage>, Problem> {
    let found = find(&app, &run, "foreign.csv", query, as_listed()).await?;
    let next = found.next.as_ref().map(Cursor::to_text);
    Ok(Json(ForeignPage { foreign: read(&found)?, matched: found.matched, next }))
}

fn as_listed() -> Wanted {
    Wanted { equal: Vec::new(), sort: SortBy::Listed, is_descending: false, after: None, limit: 0 }
}

/// Whoever waits for a page has this; when it is dropped, nobody does.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A page of a file of the run's report.
async fn find(
    app: &Shared,
    run: &str,
    file: &'static str,
    page: PageQuery,
    mut wanted: Wanted,
) -> Result<Found, Problem> {
    wanted.limit = input::limit(page.limit, PAGE.0, PAGE.1)? as usize;
    wanted.after = match page.cursor.as_deref().map(Cursor::from_text) {
        Some(None) => return Err(Problem::unprocessable("`cursor` is none that a page gave")),
        cursor => cursor.flatten(),
    };
    let row = runs::known(app, run).await?;
    let id = input::id("the run's id", &row.run_id)?;
    let given_up = Waiting(Arc::default());
    let flag = Arc::clone(&given_up.0);
    let permit = Arc::clone(&app.readers).acquire_owned().await.map_err(|_| unreadable(file, "it ends"))?;
    let reports = app.services.config.reports_directory.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let opened =
            folder::open_finished(&reports, &row.scope, id, file).map_err(|error| unreadable(file, &chain(&error)))?;
        let list = opened.ok_or_else(|| {
            Problem::not_found(format!("the run left no {file}, or it is no longer kept"))
                .with_hint("`reports.keep` says how long reports are kept")
        })?;
        window::page(std::io::BufReader::new(list), &wanted, &flag)
            .map_err(|error| unreadable(file, &error.to_string()))
    });
    reading.await.map_err(|error| unreadable(file, &error.to_string()))?
}

fn unreadable(file: &str, error: &str) -> Problem {
    tracing::error!(file, error, "a report cannot be read");
    Problem::unavailable("the report cannot be read now").with_hint("the log of `serve` has the reason")
}

fn read<T: DeserializeOwned>(found: &Found) -> Result<Vec<T>, Problem> {
    let read = |record: &StringRecord| record.deserialize(Some(&found.header));
    let all: Result<Vec<T>, csv::Error> = found.records.iter().map(read).collect();
    all.map_err(|error| unreadable("", &error.to_string()))
}
