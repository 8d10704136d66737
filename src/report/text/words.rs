//! The sentences that the page and the terminal share. Pure.
//!
//! Takes a report; gives what it says in words. Invariant: what was not read is called not read, and a deletion is
//! only claimed where an outcome says so.

use serde_json::Value;

use crate::decide::Verdict;
use crate::decide::breakers::{Breaker, Kind, Reading};
use crate::model::{Timestamp, Versioning, human_bytes, human_count, visible};
use crate::report::{Deletion, HeldId, OrphanRecord, Outcome, PurgeReport, Report, Summary, csv, undo};

/// How a headline should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing needs a person.
    Good,
    /// Somebody should look.
    Attention,
    /// It did not do what it was asked for.
    Bad,
}

/// The outcome of a run in a sentence or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headline {
    /// How it should look.
    pub(crate) tone: Tone,
    /// What it says.
    pub(crate) sentence: String,
}

/// What to do about a breaker that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advice {
    /// In words.
    pub(crate) words: &'static str,
    /// The command that follows, once the words were heeded.
    pub(crate) command: Option<String>,
}

/// Groups, objects and bytes that belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Groups.
    pub(crate) groups: u64,
    /// Their objects.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Tally {
    /// Counts one more orphan.
    pub(crate) fn add(&mut self, orphan: &OrphanRecord) {
        self.groups += 1;
        self.objects = self.objects.saturating_add(orphan.objects);
        self.bytes = self.bytes.saturating_add(orphan.bytes);
    }

    /// The orphans with this verdict.
    pub(crate) fn of(orphans: &[OrphanRecord], verdict: Verdict) -> Self {
        let mut tally = Self::default();
        orphans.iter().filter(|orphan| orphan.verdict == verdict).for_each(|orphan| tally.add(orphan));
        tally
    }

    /// The orphans that are eligible, by the run's own count.
    pub(crate) fn eligible(summary: &Summary) -> Self {
        Self { groups: summary.groups.eligible, objects: summary.eligible_objects, bytes: summary.eligible_bytes }
    }

    /// The orphans that stay, by the run's own count.
    pub(crate) fn kept(summary: &Summary) -> Self {
        Self {
            groups: summary.groups.orphan.saturating_sub(summary.groups.eligible),
            objects: summary.orphan_objects.saturating_sub(summary.eligible_objects),
            bytes: summary.orphan_bytes.saturating_sub(summary.eligible_bytes),
        }
    }
}

/// What is said of orphans that the run did not open.
pub(crate) const UNOPENED: &str = "not part of this plan, so neither opened nor judged";

/// Orphans that the run did not open: `apply` opens those of its plan only, so it knows no sizes of the others.
pub(crate) fn unopened(report: &Report<'_>) -> u64 {
    report.summary.groups.orphan.saturating_sub(report.orphans.len() as u64)
}

/// A count with its noun.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", human_count(count), if count == 1 { one } else { many })
}

/// A time to the second.
pub(crate) fn moment(time: Timestamp) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A span in its two largest units: `6 days 23 h`.
pub(crate) fn span(span: chrono::Duration) -> String {
    let (days, hours, minutes) = (span.num_days(), span.num_hours() % 24, span.num_minutes() % 60);
    let whole_days = format!("{days} {}", if days == 1 { "day" } else { "days" });
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", span.num_seconds()),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (_, 0, _) => whole_days,
        (_, hours, _) => format!("{whole_days} {hours} h"),
    }
}

/// When the next orphans could become eligible, and how long after the scan that is.
pub(crate) fn next_eligible(summary: &Summary) -> Option<String> {
    let next = summary.next_eligible_at?;
    let wait = summary.as_of.map(|as_of| next - as_of).filter(|wait| *wait > chrono::Duration::zero());
    let after = wait.map(|wait| format!(", {} after this scan", span(wait))).unwrap_or_default();
    Some(format!("{}{after}", next.format("%Y-%m-%d %H:%M UTC")))
}

/// Whether everything was listed, read and opened, whatever became of the run afterwards.
pub(crate) fn is_scan_complete(summary: &Summary) -> bool {
    // Only a complete scan has its sizes judged, and nothing is deleted without them.
    let sizes_are_judged =
        summary.breakers.iter().any(|reading| reading.kind == Kind::Size && !reading.observed.is_null());
    summary.coverage.complete || summary.deletion.is_some() || sizes_are_judged
}

/// A count that is whole once bucket and database were read; `None` where it was not read, which is not the same as
/// nothing.
pub(crate) fn compared_count(summary: &Summary, count: u64) -> Option<u64> {
    Some(count).filter(|count| summary.as_of.is_some() || is_scan_complete(summary) || *count > 0)
}

/// A count that is whole once every orphan was opened; `None` where it was not read.
pub(crate) fn opened_count(summary: &Summary, count: u64) -> Option<u64> {
    Some(count).filter(|count| is_scan_complete(summary) || *count > 0)
}

/// The breakers that refuse deletion, or would.
///
/// Without what a run that broke off could not read: that is its reason, and nothing that somebody has to clear.
pub(crate) fn refusing(summary: &Summary, kind: Kind) -> Vec<&Reading> {
    let is_broken_off = match summary.outcome {
        Outcome::Incomplete | Outcome::Failed | Outcome::Interrupted => summary.reason.is_some(),
        Outcome::Complete | Outcome::Refused => false,
    };
    let is_reason = |reading: &Reading| is_broken_off && reading.name == Breaker::Incomplete;
    let of_kind = summary.breakers.iter().filter(|reading| reading.kind == kind);
    of_kind.filter(|reading| reading.refuses() && !is_reason(reading)).collect()
}

/// Whether what the run saw is not to be trusted: such a scan may take live datasets for orphans.
pub(crate) fn is_in_doubt(summary: &Summary) -> bool {
    refusing(summary, Kind::Evidence).iter().any(|reading| reading.tripped)
}

/// What stands above the verdicts.
pub(crate) fn verdicts_title(summary: &Summary) -> &'static str {
    if is_in_doubt(summary) { "Orphans by verdict, if what was seen were right" } else { "Orphans by verdict" }
}

/// Whether the run could delete at all: an audit only says what `apply` would refuse.
pub(crate) fn asks_for_deletion(summary: &Summary) -> bool {
    !matches!(summary.command.as_str(), "audit" | "backfill")
}

/// What a backfill waives, and for what; `None` where every rule counts.
pub(crate) fn backfill(summary: &Summary) -> Option<String> {
    let date = csv::time(summary.backfill?.created_before);
    Some(format!(
        "A backfill: for groups whose every object is older than {date}, grace is not counted from the first sighting. \
         Every other rule counts, and a person applies the plan."
    ))
}

/// What all runs of a plan came to; `None` where this one is the only one.
pub(crate) fn steps(summary: &Summary) -> Option<String> {
    let steps = summary.steps.filter(|steps| steps.runs > 1)?;
    let mut bytes = Vec::new();
    if steps.bytes_deleted > 0 || steps.bytes_marked + steps.bytes_quarantined == 0 {
        bytes.push(format!("{} freed", human_bytes(steps.bytes_deleted)));
    }
    if steps.bytes_marked > 0 {
        bytes.push(format!("{} marked and not freed", human_bytes(steps.bytes_marked)));
    }
    if steps.bytes_quarantined > 0 {
        bytes.push(format!("{} in quarantine", human_bytes(steps.bytes_quarantined)));
    }
    let others = [
        (steps.already_gone, "already gone"),
        (steps.skipped, "skipped"),
        (steps.failed, "failed"),
        (steps.unconfirmed, "unconfirmed"),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let others = others.fold(String::new(), |others, (count, word)| format!("{others}; {} {word}", human_count(count)));
    let ending = if steps.closed { "The plan is worked through." } else { "The plan is not worked through yet." };
    Some(format!(
        "All {} runs of this plan, since {}: {} deleted, {}{others}. {ending}",
        human_count(steps.runs),
        moment(steps.first_started_at),
        counted(steps.deleted, "object", "objects"),
        bytes.join(", ")
    ))
}

/// What was removed because it was too old; `None` where nothing was, and nothing failed.
pub(crate) fn retention(summary: &Summary) -> Option<String> {
    let retention = summary.retention.as_ref()?;
    let removed = counted(retention.reports_removed, "report", "reports");
    match &retention.error {
        Some(error) => {
            Some(format!("Old reports could not all be removed ({removed} of them were): {}.", visible(error)))
        }
        None if retention.reports_removed == 0 => None,
        None => Some(format!("{} older than `reports.keep` removed.", capitalised(&removed))),
    }
}

fn names(readings: &[&Reading]) -> String {
    readings.iter().map(|reading| reading.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn command_name(summary: &Summary) -> String {
    let command = match (&summary.backfill, summary.command.as_str()) {
        (Some(_), "apply") => "apply of a backfill".to_owned(),
        _ => visible(&summary.command),
    };
    if summary.dry_run && asks_for_deletion(summary) {
        return format!("Dry run of {command}");
    }
    capitalised(&command)
}

/// The word as a sentence begins with it.
pub(crate) fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The outcome in a sentence or two, ending in what was deleted.
pub(crate) fn headline(summary: &Summary) -> Headline {
    let command = command_name(summary);
    let deleted = deleted_sentence(summary);
    let (tone, sentence) = match summary.outcome {
        Outcome::Complete => return complete(summary, &command),
        Outcome::Refused => (Tone::Bad, format!("{command} refused{}. {deleted}", refusal(summary))),
        Outcome::Incomplete if summary.deletion.is_some() => {
            (Tone::Bad, format!("{command} incomplete: not everything could be read. {deleted}"))
        }
        Outcome::Incomplete => {
            let what = "not everything could be read, so nothing counts as seen";
            (Tone::Bad, format!("{command} incomplete: {what}. {deleted}"))
        }
        Outcome::Failed => (Tone::Bad, format!("{command} failed {}. {deleted}", how_far(summary))),
        Outcome::Interrupted => (Tone::Attention, format!("{command} interrupted {}. {deleted}", how_far(summary))),
    };
    Headline { tone, sentence }
}

fn how_far(summary: &Summary) -> &'static str {
    match (&summary.deletion, is_scan_complete(summary)) {
        (Some(_), _) => "before the deletion was finished",
        (None, true) => "after the scan was complete",
        (None, false) => "before the scan was complete",
    }
}

fn refusal(summary: &Summary) -> String {
    let evidence = refusing(summary, Kind::Evidence);
    let tripped: Vec<&Reading> = evidence.iter().copied().filter(|reading| reading.tripped).collect();
    if !tripped.is_empty() {
        return format!(": what was seen is not to be trusted ({})", names(&tripped));
    }
    if !evidence.is_empty() {
        return format!(": what an earlier run saw waits for an acknowledgement ({})", names(&evidence));
    }
    let size = refusing(summary, Kind::Size);
    if !size.is_empty() {
        return format!(": more would go than the limits allow ({})", names(&size));
    }
    String::new()
}

fn complete(summary: &Summary, command: &str) -> Headline {
    if let Some(restore) = &summary.restore {
        let tone = if restore.failed + restore.skipped > 0 { Tone::Attention } else { Tone::Good };
        return Headline {
            tone,
            sentence: format!("{command} complete: {}.", undo::restored(restore, summary.dry_run)),
        };
    }
    if let Some(purge) = &summary.purge {
        return purged(summary, purge, command);
    }
    if let Some(deletion) = &summary.deletion {
        let has_failures = deletion.failed > 0 || deletion.unconfirmed > 0;
        let (tone, ending) =
            if has_failures { (Tone::Attention, "finished with failures") } else { (Tone::Good, "complete") };
        let sentence = format!("{command} {ending}: {}.", outcomes(summary, deletion));
        return Headline { tone, sentence };
    }
    if summary.command == "apply" {
        return nothing_applied(summary, command);
    }
    let groups = &summary.groups;
    let listed = counted(groups.listed, "group", "groups");
    if groups.orphan == 0 {
        let sentence = format!("{command} complete: no orphans among {listed}.");
        let tone = if summary.missing > 0 { Tone::Attention } else { Tone::Good };
        return Headline { tone, sentence };
    }
    let orphans = format!("{} ({})", counted(groups.orphan, "orphan", "orphans"), human_bytes(summary.orphan_bytes));
    let eligible = match groups.eligible {
        0 => "none of them eligible for deletion yet".to_owned(),
        eligible if eligible == groups.orphan => "all of them eligible for deletion".to_owned(),
        eligible => {
            let bytes = human_bytes(summary.eligible_bytes);
            let verb = if eligible == 1 { "is" } else { "are" };
            format!("of which {} ({bytes}) {verb} eligible for deletion", human_count(eligible))
        }
    };
    let sentence = format!("{command} complete: {orphans} among {listed}, {eligible}. {}", deleted_sentence(summary));
    Headline { tone: if groups.eligible > 0 { Tone::Attention } else { Tone::Good }, sentence }
}

/// A purge: rows first, objects second.
fn purged(summary: &Summary, purge: &PurgeReport, command: &str) -> Headline {
    let datasets = counted(purge.datasets.len() as u64, "dataset", "datasets");
    let rows = match &purge.job {
        None => format!("the rows of {datasets} are gone"),
        Some(job) if job.detached > 0 => {
            format!(
                "the rows of the job are gone, {} without it",
                counted(job.detached, "dataset stays", "datasets stay")
            )
        }
        Some(_) => format!("the rows of the job and of {datasets} are gone"),
    };
    let objects = summary.deletion.as_ref().map_or("no object was there".to_owned(), |told| outcomes(summary, told));
    let is_whole = summary.reason.is_none();
    let (tone, ending) = if is_whole { (Tone::Good, "complete") } else { (Tone::Attention, "finished with failures") };
    Headline { tone, sentence: format!("{command} {ending}: {rows}; {objects}.") }
}

/// An apply that asked for nothing: a dry run, or a plan of which nothing is left.
fn nothing_applied(summary: &Summary, command: &str) -> Headline {
    let eligible = Tally::eligible(summary);
    if eligible.groups == 0 {
        let sentence = format!("{command} complete: nothing of the plan is left to delete.");
        return Headline { tone: Tone::Good, sentence };
    }
    let sentence = format!(
        "{command} complete: {} of the plan ({}, {}) would go. Nothing was deleted.",
        counted(eligible.groups, "group", "groups"),
        counted(eligible.objects, "object", "objects"),
        human_bytes(eligible.bytes)
    );
    Headline { tone: Tone::Attention, sentence }
}

/// What was deleted by a run that did not end as it was asked to.
fn deleted_sentence(summary: &Summary) -> String {
    if let Some(restore) = &summary.restore {
        return format!("{}.", undo::restored(restore, summary.dry_run));
    }
    match &summary.deletion {
        Some(deletion) if deletion.deleted > 0 || deletion.unconfirmed > 0 => {
            format!("{}.", outcomes(summary, deletion))
        }
        Some(_) | None => "Nothing was deleted.".to_owned(),
    }
}

/// How much was meant to go, by name, with what the number is: planned apart from what a broken-off run came to.
pub(crate) fn deletion_sums(summary: &Summary, deletion: &Deletion) -> Vec<(&'static str, u64, &'static str)> {
    if summary.outcome == Outcome::Complete {
        return vec![("planned", deletion.requested, "objects of the plan, with one outcome each")];
    }
    vec![
        ("planned", summary.eligible_objects, "objects of the plan that might go when the deletion began"),
        ("requested", deletion.requested, "of its objects that the run came to, with one outcome each"),
    ]
}

/// The outcomes of the keys that were asked for: planned apart from deleted, marked apart from freed.
fn outcomes(summary: &Summary, deletion: &Deletion) -> String {
    let versioning = summary.target.versioning;
    let (one, many) = match summary.outcome {
        _ if summary.purge.is_some() => ("object", "objects"),
        Outcome::Complete => ("planned object", "planned objects"),
        Outcome::Refused | Outcome::Incomplete | Outcome::Failed | Outcome::Interrupted => {
            ("object that it came to", "objects that it came to")
        }
    };
    let of_planned = format!("{} of {}", human_count(deletion.deleted), counted(deletion.requested, one, many));
    let was = if deletion.requested == 1 { "was" } else { "were" };
    let (freed, marked) = (human_bytes(deletion.bytes_deleted), human_bytes(deletion.bytes_marked));
    let is_aside = deletion.bytes_quarantined > 0 || summary.quarantine.is_some();
    let quarantined = human_bytes(deletion.bytes_quarantined);
    let clause = match (marks(versioning) || deletion.bytes_marked > 0, deletion.bytes_deleted > 0) {
        (false, false) if is_aside => {
            format!("{of_planned} {was} copied aside and deleted ({quarantined}), to be freed after the reaper")
        }
        (false, _) => format!("{of_planned} {was} deleted and {freed} freed"),
        (true, true) => format!("{of_planned} {was} deleted or marked, {freed} freed and {marked} only marked"),
        (true, false) => format!("{of_planned} {was} marked as deleted ({marked}) and nothing was freed"),
    };
    let others = [
        (deletion.already_gone, "already gone"),
        (deletion.skipped, "skipped"),
        (deletion.failed, "failed"),
        (deletion.unconfirmed, "unconfirmed"),
    ];
    let others: Vec<String> = others
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", human_count(count)))
        .collect();
    if others.is_empty() { clause } else { format!("{clause}; {}", others.join(", ")) }
}

/// Whether a deletion in such a bucket only marks.
pub(crate) fn marks(versioning: Versioning) -> bool {
    match versioning {
        Versioning::Enabled | Versioning::Suspended => true,
        Versioning::Unversioned | Versioning::Unknown => false,
    }
}

/// What a breaker saw, or allows, as a person reads it; `None` where it was not judged.
pub(crate) fn shown_value(breaker: Breaker, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let shown = match breaker {
        Breaker::NoOverlap | Breaker::LiveDrop | Breaker::OrphanShare | Breaker::ForeignShare => {
            value.as_f64().map(percent)
        }
        Breaker::Bytes => value.as_u64().map(human_bytes),
        Breaker::NoReferences | Breaker::Incomplete | Breaker::OrphanGroups | Breaker::Objects => {
            value.as_u64().map(human_count)
        }
        Breaker::ClockSkew => value.as_i64().map(|seconds| format!("{seconds} s")),
        Breaker::OpenTransaction => value.as_u64().map(long_time),
        Breaker::DatabaseIdentity | Breaker::TargetChanged => None,
    };
    Some(shown.unwrap_or_else(|| visible(&flat(value))))
}

/// A time that may be days, without hiding a second of it.
fn long_time(seconds: u64) -> String {
    let shown = format!("{} s", human_count(seconds));
    let whole = i64::try_from(seconds).ok().and_then(chrono::Duration::try_seconds);
    match whole.filter(|whole| whole.num_minutes() >= 2) {
        Some(whole) => format!("{shown} ({})", span(whole)),
        None => shown,
    }
}

/// A structured value in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(values) => values.iter().map(flat).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match (name.as_str(), value) {
                ("name", value) => flat(value),
                (name, value) => format!("{name} {}", flat(value)),
            });
            fields.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A share in per cent, with at most two decimals.
pub(crate) fn percent(share: f64) -> String {
    let digits = format!("{:.2}", share * 100.0);
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// What to do about a breaker; `None` where it refuses nothing.
pub(crate) fn advice(reading: &Reading, report: &Report<'_>) -> Option<Advice> {
    if !reading.refuses() {
        return None;
    }
    let words = match reading.name {
        Breaker::NoReferences => "Find out whether it is the right database and who emptied the table.",
        Breaker::NoOverlap => "Find out whether this database belongs to this bucket.",
        Breaker::LiveDrop => "Find out who removed the rows: a person, a restore, or a half-done reload.",
        Breaker::ClockSkew => "Find out which clock is wrong and set it.",
        Breaker::DatabaseIdentity => {
            "Find out what changed: a failover, a restore, a swapped table, or another server."
        }
        Breaker::TargetChanged => "Find out whether the change of the configuration is meant.",
        Breaker::Incomplete => "Mend what could not be read; the next complete run goes on by itself.",
        Breaker::OpenTransaction => {
            "End that transaction or grant the right to see it; the next run goes on by itself."
        }
        Breaker::OrphanShare | Breaker::OrphanGroups | Breaker::Objects | Breaker::Bytes => {
            "Review the plan; a person can lift this limit for it, on record."
        }
        Breaker::ForeignShare => {
            "Look at foreign.csv: a pattern may be missing. A person can lift this limit for one plan, on record."
        }
    };
    let command = match reading.kind {
        Kind::Evidence if reading.name.latches() => {
            let scope = shell_word(&report.summary.scope);
            Some(format!("orphan-sweeper ack {} --scope {scope} --by NAME --reason TEXT", reading.name.as_str()))
        }
        Kind::Evidence => None,
        Kind::Size => allow_command(report),
    };
    Some(Advice { words, command })
}

/// The one command that lifts every size limit in the way of the run's plan.
pub(crate) fn allow_command(report: &Report<'_>) -> Option<String> {
    let flags: Vec<String> = refusing(report.summary, Kind::Size).into_iter().filter_map(allow_flag).collect();
    if flags.is_empty() {
        return None;
    }
    Some(format!("orphan-sweeper apply {} {}", plan_word(report.summary), flags.join(" ")))
}

/// The flag that lifts one size limit as far as it was passed.
pub(crate) fn allow_flag(reading: &Reading) -> Option<String> {
    let name = reading.name.as_str();
    if let Some(count) = reading.observed.as_u64() {
        return Some(format!("--allow {name}={count}"));
    }
    reading.observed.as_f64().map(|share| format!("--allow {name}={:.2}", share_not_below(share)))
}

/// A share in whole hundredths that still lets the observed one pass.
fn share_not_below(share: f64) -> f64 {
    ((share * 100.0).ceil() / 100.0).min(1.0)
}

/// How a command names the plan: an audit's by its path, one that was applied by its hash.
fn plan_word(summary: &Summary) -> String {
    let is_new = matches!(summary.command.as_str(), "audit" | "backfill" | "sweep");
    match &summary.plan_hash {
        Some(_) if is_new => shell_word(&format!("{}/plan.json", summary.report_dir.trim_end_matches('/'))),
        Some(hash) => shell_word(hash),
        None => "PLAN".to_owned(),
    }
}

/// A word that a shell takes as one.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    let shown = visible(text);
    if !shown.is_empty() && shown.chars().all(is_plain) { shown } else { format!("'{}'", shown.replace('\'', r"'\''")) }
}

/// A rate of bytes with its sign.
pub(crate) fn signed_bytes(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "+" };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates, and one decimal is shown"
    )]
    let size = bytes.abs().round() as u64;
    format!("{sign}{}", human_bytes(size))
}

/// How many ids are held, and how many of them are orphans; `None` where nobody holds any.
pub(crate) fn held(summary: &Summary) -> Option<String> {
    let (total, protecting) = (summary.holds.total, summary.holds.protecting.len() as u64);
    if total == 0 && protecting == 0 {
        return None;
    }
    let are = |count| if count == 1 { "is" } else { "are" };
    let ids = counted(total, "id", "ids");
    Some(match protecting {
        0 => format!("{ids} {} held; none of them kept anything in this run.", are(total)),
        _ => format!("{ids} {} held; {} of them kept an orphan in this run.", are(total), human_count(protecting)),
    })
}

/// Until when, by whom, where and why an id is held.
pub(crate) fn hold(held: &HeldId) -> String {
    let until = held.until.map_or_else(|| "until it is removed".to_owned(), |until| format!("until {}", moment(until)));
    let by = held.by.as_deref().map(|by| format!(", by {}", visible(by))).unwrap_or_default();
    format!("{until}{by} ({}): {}", held.source.as_str(), visible(&held.reason))
}

/// When the leak alone fills the store.
pub(crate) fn full_in(until_full: f64) -> String {
    format!("which alone fills the store in at most {}", days(until_full))
}

/// A number of days, whole where that is enough.
pub(crate) fn days(days: f64) -> String {
    match days {
        days if days < 0.0 => "0 days".to_owned(),
        days if days < 10.0 => format!("{days:.1} days"),
        days => format!("{days:.0} days"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::text::samples;

    #[test]
    fn spans_read_well() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3600, "1 h"),
            (3660, "1 h 1 min"),
            (86_400, "1 day"),
            (2 * 86_400 + 3600 + 60, "2 days 1 h"),
        ] {
            assert_eq!(span(chrono::Duration::seconds(seconds)), shown);
        }
    }

    #[test]
    fn shares_read_well() {
        for (share, shown) in [(0.0, "0 %"), (0.1, "10 %"), (1.0, "100 %"), (1.0 / 3.0, "33.33 %"), (0.105, "10.5 %")] {
            assert_eq!(percent(share), shown);
        }
    }

    #[test]
    fn advised_share_lets_the_observed_one_pass() {
        for share in [0.0, 0.8, 0.07, 1.0 / 3.0, 0.99999, 1.0] {
            let advised: f64 = format!("{:.2}", share_not_below(share)).parse().expect("a number");
            assert!(advised >= share && advised <= 1.0 && advised < share + 0.02, "{share} {advised}");
        }
    }

    #[test]
    fn values_are_shown_by_what_they_measure() {
        for (breaker, value, shown) in [
            (Breaker::LiveDrop, json!(0.5), Some("50 %")),
            (Breaker::OrphanShare, json!(1), Some("100 %")),
            (Breaker::Bytes, json!(1024), Some("1.0 KiB")),
            (Breaker::Objects, json!(1_000_000), Some("1,000,000")),
            (Breaker::ClockSkew, json!(-300), Some("-300 s")),
            (Breaker::OpenTransaction, json!("hidden"), Some("hidden")),
            (Breaker::OpenTransaction, json!(0), Some("0 s")),
            (Breaker::OpenTransaction, json!(302_400), Some("302,400 s (3 days 12 h)")),
            (Breaker::NoOverlap, Value::Null, None),
            (
                Breaker::DatabaseIdentity,
                json!({"system": "7", "tables": [{"name": "s.t", "oid": 1}]}),
                Some("system 7, tables s.t, oid 1"),
            ),
        ] {
            assert_eq!(shown_value(breaker, &value).as_deref(), shown, "{breaker:?}");
        }
    }

    #[test]
    fn every_breaker_that_refuses_has_advice_and_only_a_latch_an_acknowledgement() {
        let summary = samples::audit(&[]);
        let report = Report { summary: &summary, orphans: &[], patterns: &[], next_command: None };
        for name in Breaker::ALL {
            let calm = samples::reading(name, false, json!(1), json!(0), "");
            assert_eq!(advice(&calm, &report), None, "{name:?}");
            let tripped = samples::reading(name, true, json!(1), json!(0), "");
            let command = advice(&tripped, &report).expect("it refuses").command.unwrap_or_default();
            assert_eq!(command.contains(" ack "), name.latches(), "{name:?}");
        }
    }

    #[test]
    fn plan_is_named_so_that_a_shell_takes_it_as_one_word() {
        let mut summary = samples::audit(&[]);
        summary.report_dir = "it's a/folder/".into();
        assert_eq!(plan_word(&summary), r"'it'\''s a/folder/plan.json'");
        summary.command = "apply".into();
        summary.plan_hash = Some("abc".into());
        assert_eq!(plan_word(&summary), "abc");
        summary.plan_hash = None;
        assert_eq!(plan_word(&summary), "PLAN");
    }
}
