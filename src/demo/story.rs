//! How the demo is told: short headed steps with the numbers of the reports.
//!
//! Takes what runs left, in memory and in their files; gives lines to a terminal, or none where a machine reads.

use std::io::IsTerminal as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::verify::Verification;
use super::world::{Part, World};
use crate::command::print_text;
use crate::decide::KeepReason;
use crate::model::{Timestamp, human_bytes, human_count, visible};
use crate::report::Summary;
use crate::report::text::words::counted;

/// Whom the story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// A terminal that shows what is set off.
    Terminal,
    /// A pipe or file.
    Plain,
    /// Nobody: standard output is for one JSON document.
    Nobody,
}

/// Tells the story line by line.
#[derive(Debug)]
pub(super) struct Teller {
    audience: Audience,
    step: u32,
}

impl Teller {
    /// A teller to standard output.
    pub(super) fn to_stdout() -> Self {
        let audience = if std::io::stdout().is_terminal() { Audience::Terminal } else { Audience::Plain };
        Self { audience, step: 0 }
    }

    /// A teller that says nothing.
    pub(super) fn silent() -> Self {
        Self { audience: Audience::Nobody, step: 0 }
    }

    fn set_off(&self, text: &str) -> String {
        if self.audience == Audience::Terminal { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn print(&self, line: &str) {
        if self.audience != Audience::Nobody {
            print_text(&format!("{}\n", line.trim_end()));
        }
    }

    /// The title above everything.
    pub(super) fn title(&self, title: &str) {
        self.print(&self.set_off(title));
    }

    /// The heading of the next step.
    pub(super) fn step(&mut self, heading: &str) {
        self.step += 1;
        self.print("");
        self.print(&self.set_off(&format!("{}. {heading}", self.step)));
    }

    /// One line of a step.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        self.print(&format!("   {}", line.as_ref()));
    }

    /// What the program itself prints.
    pub(super) fn quote(&self, text: &str) {
        text.trim_end().lines().for_each(|line| self.print(&format!("   | {line}")));
    }
}

/// A line of `orphans.csv`.
#[derive(Debug, Deserialize)]
pub(super) struct OrphanLine {
    prefix: String,
    objects: u64,
    bytes: u64,
    verdict: String,
    reason: String,
}

/// A line of `deletions.csv`.
#[derive(Debug, Deserialize)]
pub(super) struct DeletionLine {
    key: String,
    outcome: String,
    reason: String,
}

/// Reads a CSV file of the report in `folder`.
pub(super) fn read_csv<T: DeserializeOwned>(folder: &str, name: &str) -> Result<Vec<T>, csv::Error> {
    csv::Reader::from_path(Path::new(folder).join(name))?.into_deserialize().collect()
}

/// A moment of the story.
pub(super) fn moment(at: Timestamp) -> String {
    at.format("%a %-d %B %Y, %H:%M").to_string()
}

/// A prefix with its id cut short.
fn short(prefix: &str) -> String {
    let shown = visible(prefix);
    let is_hex = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    // The first piece of an id ends at the first hyphen that follows eight digits.
    let mut cut = shown.match_indices('-').map(|(at, _)| at).filter(|at| *at >= 8 && is_hex(&shown[at - 8..*at]));
    match cut.next() {
        Some(at) => format!("{}…/", &shown[..at]),
        None => shown,
    }
}

/// What stands in bucket and catalogue before the first night.
pub(super) fn setting(teller: &Teller, world: &World, endpoint: &str, objects: u64, bytes: u64) {
    let live = world.live.len() as u64;
    teller.say(format!(
        "The bucket `{}` at {endpoint} holds {}, {}:",
        super::world::BUCKET,
        counted(objects, "object", "objects"),
        human_bytes(bytes)
    ));
    teller.say(format!("  {live:>3} groups of live datasets, under both naming patterns; one has a group under each"));
    teller.say(format!(
        "  {:>3} groups without a row: deleted jobs left them, and nobody dares to delete by hand",
        world.count(Part::Orphan)
    ));
    teller.say(format!("  {:>3} prefix that is shown and holds nothing any more", world.count(Part::Emptied)));
    teller.say(format!(
        "  {:>3} keys and prefixes of no dataset, such as `<uuid>x/` and `dataset-dataset-<uuid>/`",
        world.count(Part::Foreign)
    ));
    let of_type = |kind: &str| world.rows.iter().filter(|row| row.dataset_type == kind).count();
    teller.say(format!(
        "The catalogue, one SQLite file, has {} rows: {} iq_raw, which should have objects, and {} of type",
        world.rows.len(),
        of_type("iq_raw"),
        of_type("feature_based")
    ));
    teller.say("feature_based, which have none by design. One iq_raw row has lost its objects.");
}

/// What an audit found, in three lines.
pub(super) fn found(teller: &Teller, summary: &Summary) {
    let groups = &summary.groups;
    teller.say(format!(
        "Listed {} groups: {} live, {} without a row ({}, {}), {} empty.",
        human_count(groups.listed),
        human_count(groups.live),
        human_count(groups.orphan),
        counted(summary.orphan_objects, "object", "objects"),
        human_bytes(summary.orphan_bytes),
        human_count(groups.empty)
    ));
    teller.say(format!(
        "It took {} LIST requests: one for all dataset prefixes, the others to open the orphans.",
        human_count(summary.coverage.list_requests)
    ));
    teller.say(format!(
        "Beside that: {} of no dataset (foreign.csv), {} whose objects are lost (missing.csv).",
        counted(groups.foreign, "entry", "entries"),
        counted(summary.missing, "row", "rows")
    ));
}

/// What becomes of each orphan, as `orphans.csv` says.
pub(super) fn verdicts(teller: &Teller, world: &World, lines: &[OrphanLine]) {
    let (eligible, kept): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.verdict == "eligible");
    if !eligible.is_empty() {
        teller.say("May go: every rule lets them.");
        eligible.iter().for_each(|line| verdict(teller, world, line));
    }
    for reason in KeepReason::ALL {
        let lines: Vec<_> = kept.iter().filter(|line| line.reason == reason.as_str()).collect();
        if !lines.is_empty() {
            teller.say(format!("Kept, {}: {}.", reason.as_str(), reason.meaning()));
            lines.iter().for_each(|line| verdict(teller, world, line));
        }
    }
}

fn verdict(teller: &Teller, world: &World, line: &OrphanLine) {
    let title = world.actor(&line.prefix).map_or("", |actor| actor.title);
    teller.say(format!(
        "  {:<28} {:>6} {:>10}   {title}",
        short(&line.prefix),
        human_count(line.objects),
        human_bytes(line.bytes)
    ));
}

/// What the deletion did, as `deletions.csv` says.
pub(super) fn deletion(teller: &Teller, summary: &Summary, lines: &[DeletionLine], requests: (usize, usize)) {
    let deletion = summary.deletion.unwrap_or_default();
    teller.say(format!(
        "{} were planned: {} deleted ({} freed), {} skipped, {} failed, {} unconfirmed.",
        counted(deletion.requested, "object", "objects"),
        human_count(deletion.deleted),
        human_bytes(deletion.bytes_deleted),
        human_count(deletion.skipped),
        human_count(deletion.failed),
        human_count(deletion.unconfirmed)
    ));
    let (batches, single) = requests;
    teller.say(format!(
        "It took {batches} batches of at most 1,000 keys, and {single} single requests for keys that XML cannot carry."
    ));
    teller.say("Every key has its outcome in deletions.csv, hostile ones escaped, for example:");
    let samples = [
        lines.iter().find(|line| line.key.contains("\\u{a}")),
        lines.iter().find(|line| line.key.contains("\\u{fffe}")),
        lines.iter().find(|line| line.outcome == "skipped"),
    ];
    for line in samples.into_iter().flatten() {
        let reason = if line.reason.is_empty() { String::new() } else { format!(" ({})", line.reason) };
        teller.say(format!("  {:<28} {}{reason}", key_end(&line.key), line.outcome));
    }
}

/// A key without the middle of its prefix.
fn key_end(key: &str) -> String {
    match key.match_indices('/').nth(1) {
        Some((slash, _)) => format!("{}{}", short(&key[..=slash]), &key[slash + 1..]),
        None => key.to_owned(),
    }
}

/// What the bucket itself says at the end.
pub(super) fn verification(teller: &Teller, found: &Verification) {
    if found.passed {
        teller.say(format!(
            "Right: exactly the {} that had to go are gone, no other, and the report says the same number.",
            counted(found.gone, "key", "keys")
        ));
        teller.say(format!(
            "All {} of live datasets are there, and no delete request ever named a key that had to stay.",
            counted(found.live, "key", "keys")
        ));
        return;
    }
    teller.say(format!(
        "WRONG: {} of {} that had to go are gone, and the report says {}.",
        human_count(found.gone),
        counted(found.expected, "key", "keys"),
        human_count(found.reported)
    ));
    let problems = [
        ("still there", &found.left),
        ("lost", &found.lost),
        ("from nowhere", &found.unknown),
        ("wrongly named in a delete request", &found.wrongly_named),
    ];
    for (what, keys) in problems {
        keys.iter().take(10).for_each(|key| teller.say(format!("  {what}: {}", visible(key))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_cut_behind_the_first_eight_digits_of_its_id() {
        assert_eq!(short("synthetic/0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10/"), "synthetic/0b5e8f4e…/");
        assert_eq!(short("synthetic/dataset-0B5E8F4E-3C1A-4C5E-9A51-2F7D6C3B9A10/"), "synthetic/dataset-0B5E8F4E…/");
        assert_eq!(short("synthetic/notes"), "synthetic/notes");
        assert_eq!(key_end("synthetic/0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10/a\\u{a}b"), "synthetic/0b5e8f4e…/a\\u{a}b");
    }
}
