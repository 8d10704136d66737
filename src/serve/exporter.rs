//! The metrics of the daemon: what the ledger tells of every run, whichever process ran it, and what this process counted.
//!
//! Takes the ledger; gives the text that Prometheus reads. Invariant: gauges are read anew from the ledger, at the start, after
//! each run and every few seconds, so that neither a restart nor another process leaves an alert blank or stale; whoever asks
//! for the text waits for no ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::{counter, gauge};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::Notify;

use super::Shared;
use super::due::first_after;
use crate::config::Scope;
use crate::decide::breakers::{Breaker, Kind, Reading};
use crate::decide::{KeepReason, Verdict};
use crate::dispose::SkipReason;
use crate::metrics as names;
use crate::model::Timestamp;
use crate::record::RecordError;
use crate::report::figures::IN_PARTS;
use crate::report::{Deletion, Outcome, Summary};
use crate::run::Services;
use crate::run::health::ScopeHealth;

/// How often the ledger is read for the metrics.
const EVERY: Duration = Duration::from_secs(10);
/// Ended runs of a scope that are looked at: more than can end between two looks.
const NEWEST: u32 = 64;
/// The commands that a run can have.
const COMMANDS: [&str; 6] = ["audit", "backfill", "apply", "sweep", "restore", "purge"];
const OUTCOMES: [Outcome; 5] =
    [Outcome::Complete, Outcome::Refused, Outcome::Incomplete, Outcome::Failed, Outcome::Interrupted];
/// The reason of what a version before or after this one skipped.
const OTHER: &str = "other";

/// What renders the metrics of this process.
#[derive(Debug, Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    bell: Arc<Notify>,
}

/// The metrics in Prometheus' text format: whoever asks needs no token.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "the metrics of every scope, and of this process", body = String, content_type = "text/plain"),
))]
pub async fn metrics(State(app): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.exporter.handle.render())
}

impl Exporter {
    /// Begins to record what this process counts.
    pub fn install() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Only a second recorder of the same process would be refused, and there is none.
            let _ = ::metrics::set_global_recorder(recorder);
            handle
        });
        begin();
        Self { handle: handle.clone(), bell: Arc::default() }
    }

    /// Says that something has changed.
    pub fn look_again(&self) {
        self.bell.notify_one();
    }

    /// Keeps the gauges as the ledger has them, until the process stops.
    pub async fn keep(self, services: Services) {
        let mut watch = Watch::default();
        loop {
            watch.look(&services).await;
            self.handle.run_upkeep();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.bell.notified() => {}
                () = services.stop.token.cancelled() => return,
            }
        }
    }
}

fn begin() {
    names::describe();
    gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
}

/// What was seen of the ledger so far.
#[derive(Debug, Default)]
pub struct Watch {
    scopes: BTreeMap<String, Seen>,
}

/// What was seen of one scope.
#[derive(Debug)]
struct Seen {
    /// Its newest ended runs: what is not among them has ended since.
    ended: BTreeSet<String>,
}

/// What the ledger says of one scope.
struct Found {
    /// Runs that ended since the last look, the oldest first; at the first look, the newest that there are.
    ended: Vec<Summary>,
    /// The last complete run that counted every orphan.
    counted: Option<Summary>,
    latched: Vec<Breaker>,
    pending_purges: u64,
    health: ScopeHealth,
}

impl Watch {
    /// Reads the ledger and sets every gauge. What cannot be read stays as it was.
    pub async fn look(&mut self, services: &Services) {
        for scope in &services.config.scopes {
            match self.look_at(services, scope).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(scope = %scope.name, error = %error, "the metrics could not be read from the ledger");
                    return;
                }
            }
        }
        match services.ledger.size_bytes().await {
            Ok(bytes) => gauge!(names::LEDGER_SIZE).set(as_float(bytes)),
            Err(error) => {
                tracing::warn!(error = %error, "the ledger does not say how large it is");
                return;
            }
        }
        gauge!(names::LEDGER_READ).set(seconds(services.clock.now()));
    }

    async fn look_at(&mut self, services: &Services, scope: &Scope) -> Result<(), RecordError> {
        let (ledger, now) = (&services.ledger, services.clock.now());
        let ended = ledger.ended_runs(&scope.name, NEWEST).await?;
        let seen = self.scopes.get(&scope.name).map(|seen| &seen.ended);
        let (mut new, mut died) = (Vec::new(), Vec::new());
        for run in ended.iter().rev().filter(|run| seen.is_none_or(|seen| !seen.contains(*run))) {
            let Some(row) = ledger.run(run).await? else { continue };
            match row.summary.as_deref().and_then(read) {
                Some(summary) => new.push(summary),
                None if seen.is_some() => died.push((row.command, row.outcome.unwrap_or_default())),
                None => {}
            }
        }
        let counted = if seen.is_none() || new.iter().any(counts_orphans) {
            ledger.last_counted_run(&scope.name).await?.and_then(|row| row.summary).and_then(|text| read(&text))
        } else {
            None
        };
        let latched = ledger.latches(&scope.name).await?.into_iter().map(|latch| latch.breaker).collect();
        let pending_purges = ledger.pending_purges(Some(&scope.name)).await?.len() as u64;
        let health = ScopeHealth::of(ledger, scope, now, None).await?;
        let found = Found { ended: new, counted, latched, pending_purges, health };
        let is_first = seen.is_none();
        if is_first {
            begin_scope(&scope.name);
        }
        for (command, outcome) in &died {
            let outcome = OUTCOMES.into_iter().map(Outcome::as_str).find(|known| known == outcome).unwrap_or(OTHER);
            count_end(&scope.name, command, outcome);
        }
        show(scope, &found, is_first, now);
        self.scopes.insert(scope.name.clone(), Seen { ended: ended.into_iter().collect() });
        Ok(())
    }
}

fn read(text: &str) -> Option<Summary> {
    serde_json::from_str(text).inspect_err(|error| tracing::debug!(error = %error, "a summary is not read")).ok()
}

fn counts_orphans(summary: &Summary) -> bool {
    summary.outcome == Outcome::Complete && !matches!(summary.command.as_str(), "apply" | "restore" | "purge")
}

/// What has not happened yet is 0, so that its first time is an increase.
fn begin_scope(scope: &str) {
    for command in COMMANDS {
        for outcome in OUTCOMES {
            count(names::RUNS, &[("scope", scope), ("command", command), ("outcome", outcome.as_str())], 0);
        }
    }
    show_deletion(scope, None);
    for (outcome, objects) in outcomes(&Deletion::default()) {
        count(names::DELETION_OBJECTS, &[("scope", scope), ("outcome", outcome)], objects);
    }
    for (how, bytes) in sizes(&Deletion::default()) {
        count(names::DELETION_BYTES, &[("scope", scope), ("how", how)], bytes);
    }
    for reason in skip_reasons() {
        count(names::SKIPPED_OBJECTS, &[("scope", scope), ("reason", reason)], 0);
    }
}

fn show(scope: &Scope, found: &Found, is_first: bool, now: Timestamp) {
    let name = scope.name.as_str();
    for summary in &found.ended {
        show_run(name, summary);
        // What ended before this process began was counted by another.
        if !is_first {
            count_run(name, summary);
        }
    }
    if let Some(counted) = &found.counted {
        show_counted(name, counted);
    }
    for breaker in Breaker::ALL.into_iter().filter(|breaker| breaker.latches()) {
        set(names::BREAKER_LATCHED, &of_breaker(name, breaker), truth(found.latched.contains(&breaker)));
    }
    let scoped = [("scope", name)];
    set(names::PENDING_PURGES, &scoped, as_float(found.pending_purges));
    if let Some(success) = found.health.last_success {
        set(names::LAST_SUCCESS, &scoped, seconds(success));
    }
    if let Some(schedule) = &scope.schedule {
        if let Some(due) = found.health.due() {
            set(names::SUCCESS_DUE, &scoped, seconds(due));
        }
        if let Some(next) = first_after(schedule, now) {
            set(names::NEXT_RUN, &scoped, seconds(next));
        }
    }
}

/// What the newest run says of itself.
fn show_run(scope: &str, summary: &Summary) {
    set(names::LAST_RUN, &[("scope", scope)], seconds(summary.finished_at));
    for outcome in OUTCOMES {
        let labels = [("scope", scope), ("outcome", outcome.as_str())];
        set(names::LAST_RUN_OUTCOME, &labels, truth(summary.outcome == outcome));
    }
    // A run that looked at nothing judged nothing.
    if !matches!(summary.command.as_str(), "restore" | "purge") {
        // One that had nothing to judge, because the run broke off, is as the run before left it.
        let judged = |reading: &&Reading| reading.tripped || summary.coverage.complete;
        for reading in summary.breakers.iter().filter(judged) {
            set(names::BREAKER_TRIPPED, &of_breaker(scope, reading.name), truth(reading.tripped));
        }
    }
    for time in &summary.stages {
        let labels = [("scope", scope), ("stage", time.stage.as_str())];
        set(names::STAGE_DURATION, &labels, Duration::from_millis(time.duration_ms).as_secs_f64());
    }
    if let Some(deletion) = &summary.deletion {
        show_deletion(scope, Some(deletion));
    }
}

fn show_deletion(scope: &str, deletion: Option<&Deletion>) {
    for (outcome, objects) in outcomes(deletion.unwrap_or(&Deletion::default())) {
        set(names::LAST_DELETION_OBJECTS, &[("scope", scope), ("outcome", outcome)], as_float(objects));
    }
}

/// What the last complete scan saw.
fn show_counted(scope: &str, summary: &Summary) {
    let scoped = [("scope", scope)];
    let groups = &summary.groups;
    for (state, count) in [("live", groups.live), ("orphan", groups.orphan), ("empty", groups.empty)] {
        set(names::GROUPS, &[("scope", scope), ("state", state)], as_float(count));
    }
    for verdict in std::iter::once(Verdict::Eligible).chain(KeepReason::ALL.map(Verdict::Keep)) {
        let counted = summary
            .verdicts
            .iter()
            .find(|counted| counted.verdict == verdict.as_str() && counted.reason == verdict.reason());
        let labels = [("scope", scope), ("verdict", verdict.as_str()), ("reason", verdict.reason())];
        set(names::ORPHAN_GROUPS, &labels, as_float(counted.map_or(0, |counted| counted.groups)));
    }
    set(names::ORPHAN_OBJECTS, &scoped, as_float(summary.orphan_objects));
    set(names::ORPHAN_BYTES, &scoped, as_float(summary.orphan_bytes));
    set(names::ELIGIBLE_OBJECTS, &scoped, as_float(summary.eligible_objects));
    set(names::ELIGIBLE_BYTES, &scoped, as_float(summary.eligible_bytes));
    set(names::FOREIGN_KEYS, &scoped, as_float(groups.foreign));
    set(names::MISSING_DATASETS, &scoped, as_float(summary.missing));
    let trend = summary.trend.as_ref();
    set(names::LEAK_BYTES_PER_DAY, &scoped, trend.and_then(|trend| trend.bytes_per_day).unwrap_or(f64::NAN));
    set(names::DAYS_TO_FULL, &scoped, trend.and_then(|trend| trend.days_to_full).unwrap_or(f64::NAN));
}

/// Counts what a run did.
fn count_run(scope: &str, summary: &Summary) {
    count_end(scope, &summary.command, summary.outcome.as_str());
    let Some(deletion) = &summary.deletion else { return };
    for (outcome, objects) in outcomes(deletion) {
        count(names::DELETION_OBJECTS, &[("scope", scope), ("outcome", outcome)], objects);
    }
    for (how, bytes) in sizes(deletion) {
        count(names::DELETION_BYTES, &[("scope", scope), ("how", how)], bytes);
    }
    for skip in &summary.skips {
        let reason = skip_reasons().find(|reason| *reason == skip.reason).unwrap_or(OTHER);
        count(names::SKIPPED_OBJECTS, &[("scope", scope), ("reason", reason)], skip.objects);
    }
}

fn count_end(scope: &str, command: &str, outcome: &str) {
    let command = COMMANDS.into_iter().find(|known| *known == command).unwrap_or(OTHER);
    count(names::RUNS, &[("scope", scope), ("command", command), ("outcome", outcome)], 1);
}

fn skip_reasons() -> impl Iterator<Item = &'static str> {
    SkipReason::ALL.map(SkipReason::as_str).into_iter().chain([IN_PARTS, OTHER])
}

fn outcomes(deletion: &Deletion) -> [(&'static str, u64); 5] {
    [
        ("deleted", deletion.deleted),
        ("already_gone", deletion.already_gone),
        ("skipped", deletion.skipped),
        ("failed", deletion.failed),
        ("unconfirmed", deletion.unconfirmed),
    ]
}

fn sizes(deletion: &Deletion) -> [(&'static str, u64); 3] {
    [("freed", deletion.bytes_deleted), ("marked", deletion.bytes_marked), ("quarantined", deletion.bytes_quarantined)]
}

fn of_breaker(scope: &str, breaker: Breaker) -> [(&'static str, &str); 3] {
    let kind = match breaker.kind() {
        Kind::Evidence => "evidence",
        Kind::Size => "size",
    };
    [("scope", scope), ("breaker", breaker.as_str()), ("kind", kind)]
}

fn labels(name: &str, pairs: &[(&'static str, &str)]) -> Vec<::metrics::Label> {
    debug_assert!(names::has_labels(name, pairs.iter().map(|(label, _)| *label)), "{name} {pairs:?}");
    pairs.iter().map(|(name, value)| ::metrics::Label::new(*name, (*value).to_owned())).collect()
}

fn set(name: &'static str, pairs: &[(&'static str, &str)], value: f64) {
    gauge!(name, labels(name, pairs)).set(value);
}

fn count(name: &'static str, pairs: &[(&'static str, &str)], more: u64) {
    counter!(name, labels(name, pairs)).increment(more);
}

fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number")]
fn seconds(time: Timestamp) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
#[path = "exporter_tests.rs"]
mod tests;
