//! `report.html`: one page that needs no network, no server and no script.
//!
//! Takes the report; gives the page. Invariant: keys, messages and everything else from outside reach the page escaped,
//! first by [`visible`], then by the template, and a content security policy lets nothing run or load but the style
//! and the script that are compiled in.

mod charts;

use std::borrow::Cow;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::text::words::{self, Advice, Tally, Tone};
use super::{Deletion, HeldId, OrphanRecord, Outcome, Report, Summary, leaks, notice, undo};
use crate::decide::Verdict;
use crate::decide::breakers::{Kind, Reading};
use crate::model::{Sha256Hash, Timestamp, Versioning, human_bytes, human_count, visible};
use crate::parse::Pattern;
use charts::{Bar, Bin, Composition, Verdicts};

/// The table shows this many orphans: more than a person reads, and still a page that opens.
pub const MAX_ROWS: usize = 10_000;
/// The page lists this many errors; `summary.json` has all.
const MAX_ERRORS: usize = 50;
/// About the length of a row of the table, so that the page is allocated once.
const ROW_BYTES: usize = 420;
/// About the length of the page without the table.
const PAGE_BYTES: usize = 64 * 1024;

const STYLE: &str = include_str!("templates/report.css");
const SCRIPT: &str = include_str!("templates/report.js");

/// The page of one run.
///
/// - Errors: [`askama::Error`], which only a broken template gives.
pub fn render(report: &Report<'_>) -> Result<String, askama::Error> {
    let page = Page::new(report);
    let mut html = String::with_capacity(PAGE_BYTES + page.rows.len() * ROW_BYTES);
    page.render_into(&mut html)?;
    Ok(html)
}

#[derive(Template)]
#[template(path = "report.html", config = "src/report/templates/askama.toml")]
struct Page<'r> {
    policy: String,
    style: &'static str,
    script: &'static str,
    title: String,
    tone: &'static str,
    outcome: &'static str,
    marks: Vec<&'static str>,
    command: String,
    scope: String,
    headline: String,
    reason: Option<String>,
    place: String,
    as_of: String,
    notices: Vec<Notice>,
    next_command: Option<String>,
    deletion: Option<Outcomes>,
    totals_title: &'static str,
    cards: Vec<Card>,
    composition: Option<Composition>,
    verdicts_title: &'static str,
    verdicts: Option<Verdicts>,
    next_eligible: Option<String>,
    ages: Option<Vec<Bin>>,
    no_orphans: &'static str,
    held: Option<HeldIds>,
    trend: Option<Comparison>,
    no_trend: &'static str,
    breakers: Vec<Check>,
    errors_title: String,
    errors: Vec<String>,
    facts: Vec<Facts>,
    table_title: String,
    table_lead: String,
    rows: Vec<Row<'r>>,
    footer: String,
}

impl<'r> Page<'r> {
    fn new(report: &Report<'r>) -> Self {
        let summary = report.summary;
        let headline = words::headline(summary);
        let target = &summary.target;
        let rows = largest(report);
        Self {
            policy: policy(),
            style: STYLE,
            script: SCRIPT,
            title: visible(&format!("{} of {}: {}", summary.command, summary.scope, summary.outcome.as_str())),
            tone: tone_class(headline.tone),
            outcome: summary.outcome.as_str(),
            marks: marks(summary),
            command: visible(&summary.command),
            scope: visible(&summary.scope),
            headline: headline.sentence,
            reason: summary.reason.as_deref().map(visible),
            place: visible(&format!("{}/{}", target.bucket, target.prefix)),
            as_of: summary
                .as_of
                .map_or_else(|| "no scan was judged".to_owned(), |as_of| format!("as of {}", words::moment(as_of))),
            notices: notices(report),
            next_command: report.next_command.map(visible),
            deletion: summary.deletion.as_ref().map(|deletion| outcomes(summary, deletion)),
            totals_title: if summary.deletion.is_some() {
                "What was found, before the deletion"
            } else {
                "What was found"
            },
            cards: cards(report),
            composition: charts::composition(report),
            verdicts_title: words::verdicts_title(summary),
            verdicts: charts::verdicts(report),
            next_eligible: words::next_eligible(summary),
            ages: charts::ages(report.orphans, summary.as_of),
            no_orphans: match (words::is_scan_complete(summary), summary.groups.orphan) {
                (true, 0) => "There are no orphans.",
                (true, _) => "No orphan was opened: none of them is part of this plan.",
                (false, _) => "Not read: the scan is not complete, so no orphan could be judged.",
            },
            held: held(summary),
            trend: comparison(summary),
            no_trend: match (summary.coverage.complete, summary.command == "apply") {
                (true, false) if words::is_in_doubt(summary) => "Not compared: what was seen is in doubt.",
                (true, false) => "There is no earlier complete run to compare with.",
                (true, true) => "Not compared: “apply” is no audit.",
                (false, _) => "Not known: this run is not complete.",
            },
            breakers: checks(report),
            errors_title: errors_title(&summary.coverage.errors),
            errors: summary.coverage.errors.iter().take(MAX_ERRORS).map(|error| visible(error)).collect(),
            facts: facts(report),
            table_title: table_title(report),
            table_lead: table_lead(report),
            rows,
            footer: visible(&format!(
                "orphan-sweeper {}, run {}. Times are UTC, sizes in powers of 1024. Control and bidirectional characters are shown as \\u{{…}}.",
                summary.tool_version, summary.run_id
            )),
        }
    }
}

/// Nothing loads and nothing runs but what is compiled in, named by its hash.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256Hash::of(text.as_bytes()).0);
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Attention => "attention",
        Tone::Bad => "bad",
    }
}

fn marks(summary: &Summary) -> Vec<&'static str> {
    let mut marks = Vec::new();
    if summary.dry_run {
        marks.push(if words::asks_for_deletion(summary) { "dry run" } else { "read only" });
    }
    if !summary.coverage.complete {
        marks.push("partial");
    }
    marks
}

/// A box that must not be missed; `then` follows a link to the checks.
struct Notice {
    tone: &'static str,
    words: String,
    then: Option<&'static str>,
    command: Option<String>,
}

fn notices(report: &Report<'_>) -> Vec<Notice> {
    let summary = report.summary;
    let mut notices = Vec::new();
    let names =
        |readings: &[&Reading]| readings.iter().map(|reading| reading.name.as_str()).collect::<Vec<_>>().join(", ");
    let evidence = words::refusing(summary, Kind::Evidence);
    if !evidence.is_empty() {
        let words = format!("No deletion goes ahead while what was seen is in doubt: {}.", names(&evidence));
        notices.push(Notice { tone: tone_class(Tone::Bad), words, then: Some(""), command: None });
    }
    let size = words::refusing(summary, Kind::Size);
    if !size.is_empty() {
        let (tone, who) = if summary.outcome == Outcome::Refused {
            (Tone::Bad, "More would go than the limits allow")
        } else {
            (Tone::Attention, "“apply” would refuse this plan, because more would go than the limits allow")
        };
        let words = format!("{who}: {}.", names(&size));
        let then = "After a review, a person can lift the limits for this one plan, on record:";
        notices.push(Notice { tone: tone_class(tone), words, then: Some(then), command: words::allow_command(report) });
    }
    if !words::is_scan_complete(summary) && summary.restore.is_none() && summary.purge.is_none() {
        let words = "This run has no complete scan. What is called not read below is unknown, which is not the same \
                     as none."
            .to_owned();
        notices.push(Notice { tone: tone_class(Tone::Attention), words, then: None, command: None });
    }
    if let Some(words) = words::retention(summary) {
        let has_failed = summary.retention.as_ref().is_some_and(|retention| retention.error.is_some());
        let tone = tone_class(if has_failed { Tone::Attention } else { Tone::Good });
        notices.push(Notice { tone, words, then: None, command: None });
    }
    if let Some(words) = words::steps(summary) {
        notices.push(Notice { tone: tone_class(Tone::Good), words, then: None, command: None });
    }
    if let Some(words) = words::backfill(summary) {
        notices.push(Notice { tone: tone_class(Tone::Attention), words, then: None, command: None });
    }
    for words in notice::undelivered(summary) {
        notices.push(Notice { tone: tone_class(Tone::Attention), words, then: None, command: None });
    }
    for words in [undo::undo(summary), undo::reaped(summary)].into_iter().flatten() {
        notices.push(Notice { tone: tone_class(Tone::Attention), words, then: None, command: None });
    }
    notices
}

/// One number of the totals.
struct Card {
    label: &'static str,
    value: String,
    size: Option<String>,
    detail: Cow<'static, str>,
    is_unread: bool,
    is_loud: bool,
}

fn cards(report: &Report<'_>) -> Vec<Card> {
    let summary = report.summary;
    let groups = &summary.groups;
    let is_opened = words::unopened(report) == 0;
    let compared = |label, count, detail| Card::new(label, words::compared_count(summary, count), None, detail);
    let opened = |label, tally: Tally, has_size: bool, detail| {
        let read = words::opened_count(summary, tally.groups);
        let size = Some(tally).filter(|_| has_size && read.is_some());
        Card::new(label, read, size, detail)
    };
    let orphans = Tally { groups: groups.orphan, objects: summary.orphan_objects, bytes: summary.orphan_bytes };
    let eligible = Tally::eligible(summary);
    let empty = words::opened_count(summary, groups.empty).filter(|count| is_opened || *count > 0);
    let without_a_row = if is_opened {
        "without a row in the database"
    } else {
        "without a row; this run opened only those of its plan"
    };
    let others = leaks::lines(summary).into_iter().map(|line| Card {
        label: line.title,
        value: line.count.map_or_else(|| "not known".to_owned(), human_count),
        size: None,
        is_unread: line.count.is_none(),
        is_loud: false,
        detail: line.note.into(),
    });
    let going = if words::is_in_doubt(summary) { "if what was seen were right" } else { "every rule lets them go" };
    let cards = [
        compared("Listed", groups.listed, "dataset prefixes in the bucket"),
        compared("Live", groups.live, "with a row in the database; never touched"),
        opened("Orphans", orphans, is_opened, without_a_row),
        opened("Eligible", eligible, true, going).loud(eligible.groups),
        opened("Kept", Tally::kept(summary), is_opened, "orphans that stay for now"),
        Card::new("Empty", empty, None, "without a row and without a current object"),
        compared("Foreign", groups.foreign, "keys and prefixes of no dataset; always kept, in foreign.csv"),
        compared("Missing", summary.missing, "rows that should have objects and have none, in missing.csv")
            .loud(summary.missing),
    ];
    cards.into_iter().chain(others).collect()
}

impl Card {
    fn new(label: &'static str, read: Option<u64>, size: Option<Tally>, detail: &'static str) -> Self {
        let objects = |tally: Tally| words::counted(tally.objects, "object", "objects");
        Self {
            label,
            value: read.map_or_else(|| "not read".to_owned(), human_count),
            size: size.map(|tally| format!("{} in {}", human_bytes(tally.bytes), objects(tally))),
            detail: detail.into(),
            is_unread: read.is_none(),
            is_loud: false,
        }
    }

    fn loud(self, count: u64) -> Self {
        Self { is_loud: count > 0, ..self }
    }
}

/// What became of what was asked for.
struct Outcomes {
    bar: Option<Bar>,
    lines: Vec<OutcomeLine>,
    eligible: String,
    freed: String,
    marked: String,
    quarantined: String,
}

/// One outcome; `class` is empty for a sum.
struct OutcomeLine {
    class: &'static str,
    label: String,
    objects: String,
    meaning: &'static str,
}

fn outcomes(summary: &Summary, deletion: &Deletion) -> Outcomes {
    let deleted = if words::marks(summary.target.versioning) {
        ("deleted", "Marked as deleted", "the bucket keeps versions: a marker hides them", deletion.deleted)
    } else {
        ("deleted", "Deleted", "gone from the bucket", deletion.deleted)
    };
    let all = [
        deleted,
        ("already_gone", "Already gone", "gone before the request", deletion.already_gone),
        ("skipped", "Skipped", "kept after all; deletions.csv says why", deletion.skipped),
        ("failed", "Failed", "still there; deletions.csv says why", deletion.failed),
        ("unconfirmed", "Unconfirmed", "no reply that counts; the next run looks again", deletion.unconfirmed),
    ];
    let sum = |(label, count, meaning): (&str, u64, &'static str)| OutcomeLine {
        class: "",
        label: words::capitalised(label),
        objects: human_count(count),
        meaning,
    };
    let line = |(class, label, meaning, count): (_, &str, _, _)| OutcomeLine {
        class,
        label: label.to_owned(),
        objects: human_count(count),
        meaning,
    };
    let parts: Vec<_> = all.iter().map(|(class, label, _, count)| (*class, (*label).to_owned(), *count)).collect();
    Outcomes {
        bar: Bar::new("Objects by outcome", &parts, &human_count),
        lines: words::deletion_sums(summary, deletion).into_iter().map(sum).chain(all.map(line)).collect(),
        eligible: human_bytes(summary.eligible_bytes),
        freed: human_bytes(deletion.bytes_deleted),
        marked: human_bytes(deletion.bytes_marked),
        quarantined: human_bytes(deletion.bytes_quarantined),
    }
}

/// The page lists this many held ids; `summary.json` has all.
const MAX_HELD: usize = 1000;

/// Who is protected by persons.
struct HeldIds {
    lead: String,
    rows: Vec<HeldRow>,
}

/// A protected id.
struct HeldRow {
    id: String,
    until: String,
    by: String,
    source: &'static str,
    reason: String,
}

fn held(summary: &Summary) -> Option<HeldIds> {
    let lead = words::held(summary)?;
    let row = |held: &HeldId| HeldRow {
        id: held.id.to_string(),
        until: held.until.map_or_else(|| "it is removed".to_owned(), words::moment),
        by: held.by.as_deref().map(visible).unwrap_or_default(),
        source: held.source.as_str(),
        reason: visible(&held.reason),
    };
    Some(HeldIds { lead, rows: summary.holds.protecting.iter().take(MAX_HELD).map(row).collect() })
}

/// Every breaker, those that refuse first.
fn checks(report: &Report<'_>) -> Vec<Check> {
    let (refusing, others): (Vec<_>, Vec<_>) = report.summary.breakers.iter().partition(|reading| reading.refuses());
    refusing.into_iter().chain(others).map(|reading| Check::new(reading, report)).collect()
}

/// One breaker.
struct Check {
    class: &'static str,
    is_long: bool,
    name: &'static str,
    kind: &'static str,
    state: &'static str,
    observed: String,
    allowed: String,
    message: String,
    advice: Option<Advice>,
}

impl Check {
    fn new(reading: &Reading, report: &Report<'_>) -> Self {
        let is_not_judged = !reading.refuses() && reading.observed.is_null();
        // An identity is long, and the message says all there is to say of one that did not change.
        let is_known = |value: &serde_json::Value| !value.is_object() || reading.refuses();
        let shown = |value| {
            words::shown_value(reading.name, value).filter(|_| is_known(value)).unwrap_or_else(|| "–".to_owned())
        };
        Self {
            class: match (reading.refuses(), is_not_judged) {
                (true, _) => "refuses",
                (false, true) => "silent",
                (false, false) => "passes",
            },
            is_long: reading.refuses() && reading.observed.is_object(),
            name: reading.name.as_str(),
            kind: match reading.kind {
                Kind::Evidence => "evidence",
                Kind::Size => "size",
            },
            state: match (reading.tripped, reading.latched, is_not_judged) {
                (true, true, _) => "tripped, latched",
                (true, false, _) => "tripped",
                (false, true, _) => "latched",
                (false, false, true) => "not judged",
                (false, false, false) => "passed",
            },
            observed: shown(&reading.observed),
            allowed: shown(&reading.allowed),
            message: visible(&reading.message),
            advice: words::advice(reading, report),
        }
    }
}

fn errors_title(errors: &[String]) -> String {
    let count = words::counted(errors.len() as u64, "error", "errors");
    if errors.len() > MAX_ERRORS {
        format!("{count}; the first {MAX_ERRORS} are shown, summary.json has all:")
    } else {
        format!("{count}:")
    }
}

/// A block of names and values.
struct Facts {
    title: &'static str,
    facts: Vec<(&'static str, String)>,
}

fn facts(report: &Report<'_>) -> Vec<Facts> {
    let summary = report.summary;
    vec![run_facts(summary), coverage_facts(summary), target_facts(report), ledger_facts(summary)]
}

fn run_facts(summary: &Summary) -> Facts {
    let took = summary.finished_at - summary.started_at;
    let mut facts = vec![
        ("Run", summary.run_id.to_string()),
        ("Command", visible(&summary.command)),
        ("Outcome", summary.outcome.as_str().to_owned()),
        ("Started", words::moment(summary.started_at)),
        ("Finished", words::moment(summary.finished_at)),
        ("Took", words::span(took.max(chrono::Duration::zero()))),
        ("Report", visible(&summary.report_dir)),
    ];
    if let Some(hash) = &summary.plan_hash {
        facts.push(("Plan", visible(hash)));
    }
    Facts { title: "Run", facts }
}

fn coverage_facts(summary: &Summary) -> Facts {
    let coverage = &summary.coverage;
    let read = |count| words::compared_count(summary, count).map_or_else(|| "not read".to_owned(), human_count);
    let complete = if coverage.complete { "yes" } else { "no" };
    let mut facts = vec![
        ("Complete", complete.to_owned()),
        ("List requests", human_count(coverage.list_requests)),
        ("Live rows read", read(coverage.references)),
        ("Errors", human_count(coverage.errors.len() as u64)),
        ("Ages judged at", summary.as_of.map_or_else(|| "not judged".to_owned(), words::moment)),
    ];
    facts.extend(coverage.unknown.iter().map(|what| ("Not known", visible(what))));
    Facts { title: "Coverage", facts }
}

fn target_facts(report: &Report<'_>) -> Facts {
    let target = &report.summary.target;
    let versioning = match target.versioning {
        Versioning::Unversioned => "off: a deletion frees space and is final",
        Versioning::Enabled => "on: a deletion marks and frees nothing",
        Versioning::Suspended => "suspended: a deletion marks, older versions stay",
        Versioning::Unknown => "not known",
    };
    let templates: Vec<&str> = report.patterns.iter().map(Pattern::template).collect();
    let mut facts = vec![
        ("Store", visible(&target.endpoint)),
        ("Bucket", visible(&target.bucket)),
        ("Prefix", visible(&target.prefix)),
        ("Versioning", versioning.to_owned()),
        ("Database", visible(&target.database)),
    ];
    if !templates.is_empty() {
        facts.push(("Patterns", visible(&templates.join("  "))));
    }
    Facts { title: "Target", facts }
}

fn ledger_facts(summary: &Summary) -> Facts {
    let ledger = &summary.ledger;
    let facts = vec![
        ("Ledger", ledger.id.to_string()),
        ("Made", words::moment(ledger.created_at)),
        ("Runs it remembers", human_count(ledger.runs)),
    ];
    Facts { title: "Ledger", facts }
}

/// How the run compares with the last complete one.
struct Comparison {
    since: String,
    facts: Vec<(&'static str, String)>,
}

fn comparison(summary: &Summary) -> Option<Comparison> {
    let trend = summary.trend.as_ref()?;
    let not_known = || "not known".to_owned();
    let facts = vec![
        ("New", human_count(trend.new)),
        ("Persisting", human_count(trend.persisting)),
        ("Resolved", human_count(trend.resolved)),
        ("Growth a day", trend.bytes_per_day.map_or_else(not_known, words::signed_bytes)),
        ("Filled by the leak alone in at most", trend.days_to_full.map_or_else(not_known, words::days)),
    ];
    Some(Comparison { since: trend.since_run.to_string(), facts })
}

fn table_title(report: &Report<'_>) -> String {
    let orphans = report.orphans.len();
    let all = human_count(orphans as u64);
    match orphans {
        0 => "The largest orphans".to_owned(),
        orphans if orphans > MAX_ROWS => format!("The {} largest of {all} orphans", human_count(MAX_ROWS as u64)),
        _ if words::unopened(report) > 0 => format!("The orphans of this plan ({all}), largest first"),
        1 => "The orphan".to_owned(),
        _ => format!("All {all} orphans, largest first"),
    }
}

fn table_lead(report: &Report<'_>) -> String {
    let orphans = report.orphans.len();
    if orphans > MAX_ROWS {
        let left_out = words::counted((orphans - MAX_ROWS) as u64, "smaller orphan is", "smaller orphans are");
        return format!("This table is cut: {left_out} not shown here, and in orphans.csv. Times are UTC.");
    }
    "The same as in orphans.csv. Times are UTC.".to_owned()
}

/// One line of the table; its fields are made as they are written, so that a long table costs no memory twice.
struct Row<'r> {
    orphan: &'r OrphanRecord,
    patterns: &'r [Pattern],
}

impl Row<'_> {
    fn id(&self) -> String {
        self.orphan.group.id.to_string()
    }

    fn prefix(&self) -> String {
        visible(&self.orphan.prefix(self.patterns))
    }

    fn objects(&self) -> String {
        human_count(self.orphan.objects)
    }

    fn bytes(&self) -> String {
        human_bytes(self.orphan.bytes)
    }

    fn oldest(&self) -> String {
        minute(self.orphan.oldest)
    }

    fn newest(&self) -> String {
        minute(self.orphan.newest)
    }

    fn first_seen(&self) -> String {
        minute(Some(self.orphan.first_seen))
    }

    fn reason(&self) -> &'static str {
        meaning(self.orphan.verdict)
    }
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Eligible => "every rule lets it go",
        Verdict::Keep(reason) => reason.meaning(),
    }
}

fn minute(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "unknown".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string())
}

/// The largest orphans, largest first; the order among equals is that of their ids.
fn largest<'r>(report: &Report<'r>) -> Vec<Row<'r>> {
    let mut orphans: Vec<&OrphanRecord> = report.orphans.iter().collect();
    let by_size = |a: &&OrphanRecord, b: &&OrphanRecord| {
        (b.bytes, b.objects).cmp(&(a.bytes, a.objects)).then_with(|| a.group.cmp(&b.group))
    };
    if orphans.len() > MAX_ROWS {
        orphans.select_nth_unstable_by(MAX_ROWS, by_size);
        orphans.truncate(MAX_ROWS);
    }
    orphans.sort_unstable_by(by_size);
    orphans.into_iter().map(|orphan| Row { orphan, patterns: report.patterns }).collect()
}

#[cfg(test)]
mod tests;
