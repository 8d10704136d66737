//! The summary that a terminal shows when a run ends: what was found, what may go, what stays and why, and the command
//! to type next.
//!
//! Takes the report; gives a few lines that also read well in a pipe. Invariant: what was not read is never shown as
//! nothing, and everything that comes from outside is shown escaped.

pub(crate) mod words;

#[cfg(test)]
pub(crate) mod samples;

use crate::decide::breakers::{Kind, Reading};
use crate::decide::{KeepReason, Verdict};
use crate::model::{human_bytes, human_count, visible};

use super::{Deletion, Outcome, Report, Summary, leaks, notice, undo};
use words::{Tally, Tone};

/// The widest line of prose; paths and commands may be wider.
const WIDTH: usize = 100;
/// The longest message of a breaker or error, in characters; the page has all of it.
const LONGEST_MESSAGE: usize = 360;
/// Width of the first column.
const LABEL: usize = 13;

/// Whether the summary may use ANSI colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For pipes and files.
    Plain,
    /// For terminals.
    Coloured,
}

/// How a piece of text is set off.
#[derive(Debug, Clone, Copy)]
enum Paint {
    Heading,
    Command,
    Good,
    Attention,
    Bad,
}

impl Paint {
    fn of(tone: Tone) -> Self {
        match tone {
            Tone::Good => Self::Good,
            Tone::Attention => Self::Attention,
            Tone::Bad => Self::Bad,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Command => "1;36",
            Self::Good => "1;32",
            Self::Attention => "1;33",
            Self::Bad => "1;31",
        }
    }
}

/// The summary of a run for a terminal; every line ends in a line break.
#[must_use]
pub fn summary(report: &Report<'_>, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    let summary = report.summary;
    headline(&mut page, summary);
    if let Some(deletion) = &summary.deletion {
        deletion_results(&mut page, summary, deletion);
    }
    if summary.restore.is_none() && summary.purge.is_none() {
        found(&mut page, report);
    }
    verdicts(&mut page, report);
    holds(&mut page, summary);
    trend(&mut page, summary);
    breakers(&mut page, report);
    ending(&mut page, report);
    page.text
}

/// The lines written so far.
struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn paint(&self, paint: Paint, text: &str) -> String {
        match self.style {
            Style::Plain => text.to_owned(),
            Style::Coloured => format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code()),
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line("");
        let painted = self.paint(Paint::Heading, heading);
        self.line(&painted);
    }

    /// A paragraph; lines after the first begin at `indent`.
    fn prose(&mut self, first: &str, indent: usize, text: &str) {
        for line in wrapped(first, indent, text) {
            self.line(&line);
        }
    }

    fn command(&mut self, first: &str, command: &str) {
        let painted = self.paint(Paint::Command, &visible(command));
        self.line(&format!("{first}{painted}"));
    }
}

/// Breaks `text` at spaces so that no line is wider than [`WIDTH`], unless a single word is.
fn wrapped(first: &str, indent: usize, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        let width = line.chars().count() + usize::from(!is_empty) + word.chars().count();
        if !is_empty && width > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

fn shortened(text: &str) -> String {
    let shown = visible(text);
    match shown.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{} ... (all of it in report.html)", &shown[..end]),
        None => shown,
    }
}

fn headline(page: &mut Page, summary: &Summary) {
    let headline = words::headline(summary);
    for line in wrapped("", 0, &headline.sentence) {
        let painted = page.paint(Paint::of(headline.tone), &line);
        page.line(&painted);
    }
    let is_explained_below = match summary.outcome {
        Outcome::Complete => true,
        Outcome::Refused => summary.breakers.iter().any(Reading::refuses),
        Outcome::Incomplete | Outcome::Failed | Outcome::Interrupted => false,
    };
    if let Some(reason) = summary.reason.as_deref().filter(|_| !is_explained_below) {
        page.prose("Reason: ", 8, &shortened(reason));
    }
}

/// One line of the counts.
struct Row {
    label: &'static str,
    count: u64,
    note: String,
}

impl Row {
    fn new(label: &'static str, count: u64, note: impl Into<String>) -> Self {
        Self { label, count, note: note.into() }
    }
}

fn rows(page: &mut Page, rows: &[Row]) {
    let width = rows.iter().map(|row| human_count(row.count).len()).max().unwrap_or(0);
    for row in rows {
        let count = human_count(row.count);
        page.prose(&format!("  {:LABEL$}{count:>width$}  ", row.label), LABEL + width + 4, &row.note);
    }
}

fn objects_and_bytes(tally: Tally) -> String {
    format!("{}, {}", words::counted(tally.objects, "object", "objects"), human_bytes(tally.bytes))
}

fn found(page: &mut Page, report: &Report<'_>) {
    let summary = report.summary;
    let target = format!("{}/{}", visible(&summary.target.bucket), visible(&summary.target.prefix));
    let as_of = summary.as_of.map(|as_of| format!(", as of {}", words::moment(as_of))).unwrap_or_default();
    let before = if summary.deletion.is_some() { " before the deletion" } else { "" };
    page.heading(&format!("Found in {target}{before}{as_of}"));
    let groups = &summary.groups;
    let orphans = Tally { groups: groups.orphan, objects: summary.orphan_objects, bytes: summary.orphan_bytes };
    let is_opened = words::unopened(report) == 0;
    let without_a_row = match (orphans.groups, is_opened) {
        (0, _) => "without a row".to_owned(),
        (_, true) => format!("without a row: {}", objects_and_bytes(orphans)),
        (_, false) => "without a row; this run opened only those of its plan".to_owned(),
    };
    let compared = |count| words::compared_count(summary, count).is_some();
    let opened = |count| words::opened_count(summary, count).is_some() && (is_opened || count > 0);
    let all = [
        (compared(groups.listed), Row::new("listed", groups.listed, "groups (dataset prefixes)")),
        (compared(groups.live), Row::new("live", groups.live, "with a row in the database")),
        (opened(groups.orphan), Row::new("orphans", groups.orphan, without_a_row)),
        (opened(groups.empty), Row::new("empty", groups.empty, "without a row and without a current object")),
        (
            compared(groups.foreign),
            Row::new("foreign", groups.foreign, "keys and prefixes of no dataset, always kept: foreign.csv"),
        ),
        (
            compared(summary.missing),
            Row::new("missing", summary.missing, "rows that should have objects and have none: missing.csv"),
        ),
    ];
    let (read, unread): (Vec<_>, Vec<_>) = all.into_iter().partition(|(is_read, _)| *is_read);
    let is_notable = |row: &Row| row.count > 0 || matches!(row.label, "listed" | "live" | "orphans");
    let shown: Vec<Row> = read.into_iter().map(|(_, row)| row).filter(is_notable).collect();
    let (counted, unknown): (Vec<_>, Vec<_>) = leaks::lines(summary).into_iter().partition(|line| line.count.is_some());
    let others = counted.into_iter().map(|line| Row::new(line.label, line.count.unwrap_or_default(), line.note));
    let with_others: Vec<Row> = shown.into_iter().chain(others).collect();
    rows(page, &with_others);
    for line in unknown {
        page.prose(&format!("  not known: {}, ", line.label), 12, &format!("{}.", line.note));
    }
    if !unread.is_empty() {
        let labels: Vec<&str> = unread.iter().map(|(_, row)| row.label).collect();
        page.prose("  not read: ", 12, &format!("{}. Not read is not the same as none.", labels.join(", ")));
    }
    if !words::is_scan_complete(summary) && !with_others.is_empty() {
        page.line("  These counts are partial: the scan is not complete.");
    }
}

fn verdicts(page: &mut Page, report: &Report<'_>) {
    let summary = report.summary;
    if summary.groups.orphan == 0 {
        return;
    }
    let (eligible, kept, unopened) = (Tally::eligible(summary), Tally::kept(summary), words::unopened(report));
    page.heading(words::verdicts_title(summary));
    let mut lines = vec![Row::new("eligible", eligible.groups, objects_and_bytes(eligible))];
    if kept.groups > 0 {
        lines.push(Row::new("kept", kept.groups, if unopened == 0 { objects_and_bytes(kept) } else { String::new() }));
    }
    let width = lines.iter().map(|row| human_count(row.count).len()).max().unwrap_or(0);
    rows(page, &lines);
    let by_reason =
        KeepReason::ALL.map(|reason| (Tally::of(report.orphans, Verdict::Keep(reason)).groups, reason.meaning()));
    for (groups, meaning) in
        by_reason.into_iter().chain([(unopened, words::UNOPENED)]).filter(|(groups, _)| *groups > 0)
    {
        let first = format!("    {:>1$}  ", human_count(groups), LABEL + width - 2);
        page.prose(&first, LABEL + width + 4, meaning);
    }
    if let Some(next) = words::next_eligible(summary) {
        page.line(&format!("  The next can become eligible at {next}."));
    }
}

/// Held ids that a terminal shows; the page has more.
const MOST_HELD: usize = 5;

fn holds(page: &mut Page, summary: &Summary) {
    let Some(sentence) = words::held(summary) else { return };
    page.heading("Held by persons");
    page.prose("  ", 2, &sentence);
    for held in summary.holds.protecting.iter().take(MOST_HELD) {
        page.prose("    ", 6, &format!("{} {}", held.id, words::hold(held)));
    }
    match summary.holds.protecting.len().saturating_sub(MOST_HELD) {
        0 => {}
        left => page.line(&format!("    and {} more: report.html", human_count(left as u64))),
    }
}

fn trend(page: &mut Page, summary: &Summary) {
    let Some(trend) = &summary.trend else { return };
    let growth = trend.bytes_per_day.map(|rate| format!("; {} a day", words::signed_bytes(rate))).unwrap_or_default();
    let full = trend.days_to_full.map(|days| format!(", {}", words::full_in(days))).unwrap_or_default();
    let orphans = format!(
        "{} new, {} persisting, {} resolved",
        human_count(trend.new),
        human_count(trend.persisting),
        human_count(trend.resolved)
    );
    page.line("");
    page.prose("Since the last complete run: ", 2, &format!("{orphans}{growth}{full}."));
}

fn breakers(page: &mut Page, report: &Report<'_>) {
    let evidence = words::refusing(report.summary, Kind::Evidence);
    if !evidence.is_empty() {
        page.heading("Nothing goes while what was seen is in doubt");
        for reading in &evidence {
            breaker(page, reading);
            if let Some(advice) = words::advice(reading, report) {
                page.prose("    ", 4, advice.words);
                if let Some(command) = advice.command {
                    page.command("    Then: ", &command);
                }
            }
        }
    }
    let size = words::refusing(report.summary, Kind::Size);
    if size.is_empty() {
        return;
    }
    let is_refused = report.summary.outcome == Outcome::Refused;
    page.heading(if is_refused {
        "More would go than the limits allow"
    } else {
        "`apply` would refuse this plan: more would go than the limits allow"
    });
    for reading in &size {
        breaker(page, reading);
    }
    if let Some(command) = words::allow_command(report) {
        if report.next_command == Some(command.as_str()) {
            page.line("  After a review, a person can lift the limits for this one plan, on record, as shown below.");
        } else {
            page.line("  After a review, a person can lift the limits for this one plan, on record:");
            page.command("    ", &command);
        }
    }
}

fn breaker(page: &mut Page, reading: &Reading) {
    let name = reading.name.as_str();
    // Wrapped by what is seen, painted afterwards: colour codes have no width.
    for (position, line) in wrapped(&format!("  {name}: "), 4, &shortened(&reading.message)).iter().enumerate() {
        let painted = match position {
            0 => line.replacen(name, &page.paint(Paint::Bad, name), 1),
            _ => line.clone(),
        };
        page.line(&painted);
    }
}

fn deletion_results(page: &mut Page, summary: &Summary, deletion: &Deletion) {
    page.heading("Deletion, in objects");
    let mut bytes = Vec::new();
    if deletion.bytes_quarantined > 0 {
        bytes.push(format!("{} in quarantine, freed after the reaper", human_bytes(deletion.bytes_quarantined)));
    }
    if deletion.bytes_deleted > 0 || deletion.bytes_marked + deletion.bytes_quarantined == 0 {
        bytes.push(format!("{} freed", human_bytes(deletion.bytes_deleted)));
    }
    if deletion.bytes_marked > 0 {
        bytes.push(format!("{} marked and not freed", human_bytes(deletion.bytes_marked)));
    }
    let sums =
        words::deletion_sums(summary, deletion).into_iter().map(|(label, count, note)| Row::new(label, count, note));
    let deleted = Row::new("deleted", deletion.deleted, bytes.join(", "));
    let others = [
        Row::new("already gone", deletion.already_gone, "before the request"),
        Row::new("skipped", deletion.skipped, "kept after all; deletions.csv says why"),
        Row::new("failed", deletion.failed, "still there; deletions.csv says why"),
        Row::new("unconfirmed", deletion.unconfirmed, "no reply that counts; the next run looks again"),
    ];
    let shown: Vec<Row> = sums.chain([deleted]).chain(others.into_iter().filter(|row| row.count > 0)).collect();
    rows(page, &shown);
    if let Some(steps) = words::steps(summary) {
        page.prose("  ", 2, &steps);
    }
}

fn ending(page: &mut Page, report: &Report<'_>) {
    page.line("");
    if let Some(backfill) = words::backfill(report.summary) {
        let first = "Note:   ";
        page.prose(first, first.len(), &backfill);
    }
    for note in [undo::undo(report.summary), undo::reaped(report.summary)].into_iter().flatten() {
        let first = "Note:   ";
        page.prose(first, first.len(), &note);
    }
    if let Some(retention) = words::retention(report.summary) {
        let first = "Note:   ";
        page.prose(first, first.len(), &retention);
    }
    for undelivered in notice::undelivered(report.summary) {
        let first = "Note:   ";
        page.prose(first, first.len(), &undelivered);
    }
    let folder = visible(report.summary.report_dir.trim_end_matches('/'));
    page.line(&format!("Report: {folder}/report.html"));
    if let Some(command) = report.next_command {
        page.command("Next:   ", command);
    }
}

#[cfg(test)]
mod tests;
