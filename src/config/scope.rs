//! One `[[scope]]`: what is listed, what keeps ids alive, and by which policy.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::holds::HoldsSource;
use super::purge::{self, Purge};
use super::quarantine::{self, Quarantine, QuarantineClaim};
use super::reader::{Placed, Problems, Reader};
use super::selftest::{self, Selftest};
use super::tree::Place;
use super::{DAY, Folder, holds};
use crate::model::{Grace, Timestamp};
use crate::parse::Pattern;

/// One configured audit. Source: `[[scope]]`.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Its name, used in paths and variables.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix that is listed, ending in `/`.
    pub prefix: String,
    /// The id patterns.
    pub patterns: Vec<Pattern>,
    /// Exact keys that are no finding.
    pub ignore: BTreeSet<String>,
    /// How much the store holds, in bytes, where that is configured.
    pub capacity: Option<u64>,
    /// Where ids are protected beside the ledger.
    pub holds: Option<HoldsSource>,
    /// The tables whose rows keep ids alive.
    pub live: Vec<LiveTable>,
    /// When an orphan may go.
    pub policy: Policy,
    /// Where objects are copied to before they are deleted, and for how long.
    pub quarantine: Quarantine,
    /// How much may go, and what is suspicious.
    pub limits: Limits,
    /// What becomes of uploads that were never completed.
    pub uploads: UploadPolicy,
    /// How rows of the platform are removed; `None`: not at all.
    pub purge: Option<Purge>,
    /// What `selftest` writes with.
    pub selftest: Selftest,
    /// When `serve` runs it.
    pub schedule: Option<Schedule>,
}

impl Scope {
    /// The templates, as configured.
    pub fn templates(&self) -> Vec<String> {
        self.patterns.iter().map(|pattern| pattern.template().to_owned()).collect()
    }

    /// How long a plan made at `now` may wait: `plan_expires`, or two intervals of the schedule if that is longer.
    pub fn plan_lifetime(&self, now: Timestamp) -> Duration {
        let interval = self.schedule.as_ref().map_or(Duration::ZERO, |schedule| schedule.longest_interval(now));
        self.policy.plan_expires.max(interval * 2)
    }
}

/// A table with its schema, each exactly as the database spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// Reads `schema.table`.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let [schema, table] = parts[..] else { return None };
        let is_named = !schema.trim().is_empty() && !table.trim().is_empty();
        is_named.then(|| Self { schema: schema.into(), table: table.into() })
    }

    /// The quoted, qualified name for a statement.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Quotes an identifier for a statement.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table whose rows keep ids alive. Source: `[[scope.live]]`.
#[derive(Debug, Clone)]
pub struct LiveTable {
    /// The table.
    pub table: TableName,
    /// The column with the id.
    pub id_column: String,
    /// The column with the row's time, where there is one.
    pub created_at_column: Option<String>,
    /// Which rows should have objects; `None`: all.
    pub expects_objects: Option<Expects>,
    /// Rows younger than this are no alarm when they have no objects.
    pub missing_after: Duration,
    /// The dotted key, for messages.
    pub key: String,
    /// What reports and breakers call it: its table, with the column where the scope reads several of that table.
    pub label: String,
}

impl LiveTable {
    /// What identifies it between runs: another id column is another source of ids.
    pub fn identity(&self) -> String {
        format!("{} ({})", self.table, self.id_column)
    }
}

/// Which rows should have objects: those where `column` has one of `values`.
#[derive(Debug, Clone)]
pub struct Expects {
    /// The column.
    pub column: String,
    /// Its values, compared as text.
    pub values: Vec<String>,
}

/// When an orphan may go. Source: `[scope.policy]`.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long an orphan is left alone.
    pub grace: Grace,
    /// How many complete scans must have seen it.
    pub min_sightings: u32,
    /// The least time from the first to the last of them.
    pub min_sighting_span: Duration,
    /// How long a plan may wait.
    pub plan_expires: Duration,
    /// Who approves.
    pub approval: Approval,
    /// How an object leaves.
    pub disposal: Disposal,
    /// Whether the floors are lifted.
    pub unsafe_short_grace: bool,
}

/// Who approves a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// A person: by `apply`, or by `plan approve`, which the next `sweep` follows.
    Required,
    /// The policy: `sweep` deletes what it lets go, but for what a person rejected.
    Automatic,
}

/// How an object leaves. Source: `scope.policy.disposal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// It is deleted.
    Delete,
    /// It is copied aside first, and can be restored until the copy's time is over.
    Quarantine,
}

/// How much may go, and what is suspicious. Source: `[scope.limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest share of the listed groups that one run may delete.
    pub max_orphan_share: f64,
    /// Most groups that one run may delete.
    pub max_orphan_groups: u64,
    /// Most objects that one run may delete.
    pub max_objects: u64,
    /// Most bytes that one run may delete.
    pub max_bytes: u64,
    /// Largest share of what is listed that no pattern reads.
    pub max_foreign_share: f64,
    /// Largest share of a live table's rows that may vanish between two runs.
    pub max_live_drop: f64,
    /// Least share of the old rows that expect objects and were seen in the listing.
    pub min_overlap: f64,
    /// A share is judged only above this count.
    pub small: u64,
}

/// What becomes of multipart uploads under orphans that were never completed. Source: `[scope.uploads]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadPolicy {
    /// From which age on a command that deletes aborts them; `None`: never.
    pub abort_after: Option<Duration>,
}

impl UploadPolicy {
    /// The shortest age: a day, longer than any upload, and the time after which MinIO itself gives an upload up.
    pub const FLOOR: Duration = DAY;
    /// From which age on an upload counts as stale where none are aborted.
    const STALE_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

    /// From which age on an upload counts as stale.
    pub fn stale_after(self) -> Duration {
        self.abort_after.unwrap_or(Self::STALE_AFTER)
    }
}

/// What the schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduledCommand {
    /// `audit`.
    Audit,
    /// `sweep`.
    Sweep,
}

/// When `serve` runs a scope. Source: `[scope.schedule]`.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The calendar.
    pub cron: Cron,
    /// The time zone that it is read in.
    pub timezone: chrono_tz::Tz,
    /// What to run.
    pub command: ScheduledCommand,
}

impl Schedule {
    /// The longest time between two of the next 32 occurrences after `now`.
    pub fn longest_interval(&self, now: Timestamp) -> Duration {
        let occurrences: Vec<_> = self.cron.iter_after(now.with_timezone(&self.timezone)).take(32).collect();
        let gap = |pair: &[chrono::DateTime<chrono_tz::Tz>]| (pair[1] - pair[0]).to_std().unwrap_or_default();
        occurrences.windows(2).map(gap).max().unwrap_or_default()
    }
}

/// What a scope claims for itself, as far as it can be read: no two may claim the same.
#[derive(Debug)]
pub struct Claim {
    /// Its name.
    pub name: Option<Placed<String>>,
    /// Its bucket.
    pub bucket: Option<Placed<String>>,
    /// Its prefix.
    pub prefix: Option<Placed<String>>,
    /// The bucket and the prefix of its quarantine, where it has one.
    pub quarantine: Option<QuarantineClaim>,
}

/// Reads one scope. What is wrong with it is noted; only its claim is left where that leaves no scope.
pub(super) fn read(mut reader: Reader<'_>, folder: &Folder, problems: &Problems) -> (Claim, Option<Scope>) {
    let name = read_name(&mut reader);
    let bucket = reader.required_text("bucket", "the bucket's name");
    let prefix = read_prefix(&mut reader);
    let quarantine = quarantine::read(&mut reader, bucket.as_ref(), problems);
    let mut claim = Claim { name, bucket, prefix, quarantine: quarantine.claim };
    let scope = read_rest(reader, &mut claim, (folder, quarantine.quarantine), problems);
    (claim, scope)
}

fn read_rest(
    mut reader: Reader<'_>,
    claim: &mut Claim,
    (folder, quarantine): (&Folder, Option<Quarantine>),
    problems: &Problems,
) -> Option<Scope> {
    if let Some(kind) = reader.text("id", "\"uuid\"").filter(|kind| kind.value != "uuid") {
        problems.add(&kind.place, kind.key, format!("`{}` is no known kind of id; write \"uuid\"", kind.value));
    }
    let prefix = claim.prefix.as_ref().map(|prefix| prefix.value.as_str());
    let patterns = read_patterns(&mut reader, prefix, problems);
    let ignore = reader
        .texts("ignore")
        .map(|ignore| ignore.value)
        .unwrap_or_default()
        .into_iter()
        .map(|key| key.value)
        .collect();
    let capacity = reader.size("capacity");
    let holds = holds::read(&mut reader, folder);
    let live = read_live(&mut reader, problems);
    let policy = read_policy(reader.table("policy"), problems);
    if let Some(quarantine) = &mut claim.quarantine {
        quarantine.take_policy(&policy, problems);
    }
    let limits = read_limits(reader.table("limits"));
    let uploads = read_uploads(reader.table("uploads"), policy.unsafe_short_grace, problems);
    let schedule = read_schedule(&mut reader, problems);
    let purge = purge::read(&mut reader, folder, problems);
    let selftest = selftest::read(&mut reader, folder);
    reader.finish();
    Some(Scope {
        name: claim.name.as_ref()?.value.clone(),
        bucket: claim.bucket.as_ref()?.value.clone(),
        prefix: prefix?.to_owned(),
        patterns: patterns?,
        ignore,
        capacity,
        holds,
        live: live?,
        policy,
        quarantine: quarantine?,
        limits,
        uploads,
        purge,
        selftest,
        schedule,
    })
}

fn read_name(reader: &mut Reader<'_>) -> Option<Placed<String>> {
    const EXPECTED: &str = "a name of letters, digits, `-` and `_`, such as \"synthetic\"";
    let name = reader.required_text("name", EXPECTED)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.value.chars().all(is_plain) && name.value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(name);
    }
    reader.wrong(&name, format!("`{}` cannot be part of a path; write {EXPECTED}", name.value));
    None
}

fn read_prefix(reader: &mut Reader<'_>) -> Option<Placed<String>> {
    let prefix = reader.required_text("prefix", "the prefix to list, such as \"synthetic/\"")?;
    if prefix.value.ends_with('/') {
        return Some(prefix);
    }
    reader.wrong(&prefix, format!("`{0}` does not end in `/`; write \"{0}/\"", prefix.value));
    None
}

/// A group names its pattern by one byte.
const MOST_PATTERNS: usize = 255;

fn read_patterns(reader: &mut Reader<'_>, prefix: Option<&str>, problems: &Problems) -> Option<Vec<Pattern>> {
    const EXPECTED: &str = "templates such as [\"synthetic/{id}/\", \"synthetic/dataset-{id}/\"]";
    if !reader.has("patterns") {
        reader.problem("patterns", format!("is missing; write {EXPECTED}"));
    }
    let templates = reader.texts("patterns")?;
    match templates.value.len() {
        0 => reader.wrong(&templates, format!("is empty; write {EXPECTED}")),
        1..=MOST_PATTERNS => {}
        _ => reader.wrong(&templates, format!("has more than {MOST_PATTERNS} templates; split the scope")),
    }
    let prefix = prefix?;
    let mut patterns: Vec<Pattern> = Vec::new();
    for template in &templates.value {
        let text = &template.value;
        if patterns.iter().any(|earlier| earlier.template() == text) {
            problems.add(&template.place, &template.key, format!("`{text}` stands there twice; remove one"));
            continue;
        }
        match Pattern::compile(text, prefix) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => problems.add(&template.place, &template.key, format!("`{text}`: {error}; write {EXPECTED}")),
        }
    }
    (patterns.len() == templates.value.len()).then_some(patterns)
}

fn read_live(reader: &mut Reader<'_>, problems: &Problems) -> Option<Vec<LiveTable>> {
    let tables =
        reader.tables("live", "write at least one `[[scope.live]]`: without rows every dataset would be an orphan");
    let expected = tables.len();
    let mut live: Vec<_> = tables.into_iter().filter_map(|table| read_live_table(table, problems)).collect();
    if let Some(twice) =
        (1..live.len()).find(|place| live[..*place].iter().any(|it| it.identity() == live[*place].identity()))
    {
        reader.problem("live", format!("reads `{}` twice; remove one `[[scope.live]]` of it", live[twice].identity()));
    }
    for place in 0..live.len() {
        let is_same_table = |other: &LiveTable| other.table == live[place].table;
        if live.iter().filter(|other| is_same_table(other)).count() > 1 {
            live[place].label = live[place].identity();
        }
    }
    (live.len() == expected && expected > 0).then_some(live)
}

fn read_live_table(mut reader: Reader<'_>, problems: &Problems) -> Option<LiveTable> {
    const TABLE: &str = "schema and table, such as \"heimdall.synthetic_datasets\"";
    let key = reader.key("").trim_end_matches('.').to_owned();
    let table = reader.required_text("table", TABLE).and_then(|placed| {
        if let Some(table) = TableName::parse(&placed.value) {
            return Some(table);
        }
        let message = format!("`{}` is not qualified by its schema; write {TABLE}", placed.value);
        problems.add(&placed.place, placed.key, message);
        None
    });
    let id_column = reader.text("id_column", "a column's name").map_or("id".into(), |placed| placed.value);
    let created_at_column = reader.text("created_at_column", "a column's name").map(|placed| placed.value);
    let expects_objects = read_expects(&mut reader);
    let missing_after = reader.duration("missing_after", DAY).value;
    reader.finish();
    let table = table?;
    let label = table.to_string();
    Some(LiveTable { table, id_column, created_at_column, expects_objects, missing_after, key, label })
}

fn read_expects(reader: &mut Reader<'_>) -> Option<Expects> {
    const VALUES: &str = "the values of rows that have objects, such as [\"iq_raw\"]";
    let mut table = reader.table("expects_objects");
    let column = table.text("column", "a column's name");
    let values = table.texts("values");
    match (&column, &values) {
        (Some(_), None) => table.problem("values", format!("is missing; write {VALUES}")),
        (None, Some(_)) => table.problem("column", "is missing; write a column's name"),
        // Nothing would be expected, and nothing ever missed.
        (Some(_), Some(values)) if values.value.is_empty() => table.wrong(values, format!("is empty; write {VALUES}")),
        _ => {}
    }
    table.finish();
    Some(Expects { column: column?.value, values: values?.value.into_iter().map(|text| text.value).collect() })
}

fn read_policy(mut reader: Reader<'_>, problems: &Problems) -> Policy {
    let grace = reader.duration("grace", DAY * 7);
    let min_sightings = reader.count("min_sightings", 3, 1);
    let span = reader.duration("min_sighting_span", DAY * 2);
    let plan_expires = reader.duration("plan_expires", DAY * 3).value;
    let unsafe_short_grace = reader.boolean("unsafe_short_grace", false);
    let approval = read_choice(
        &mut reader,
        "approval",
        &[("required", Approval::Required), ("automatic", Approval::Automatic)],
        problems,
    );
    let disposal = read_choice(
        &mut reader,
        "disposal",
        &[("delete", Disposal::Delete), ("quarantine", Disposal::Quarantine)],
        problems,
    );
    reader.finish();
    if !unsafe_short_grace {
        let floor = |place: &Place, key: &str, found: &str, least: &str| {
            let message = format!(
                "{found} is below the floor of {least}; write {least} or more, or set `unsafe_short_grace = true` where no data can be lost"
            );
            problems.add(place, key, message);
        };
        if grace.value < Grace::FLOOR {
            floor(&grace.place, &grace.key, &format!("`{}`", humantime::format_duration(grace.value)), "24h");
        }
        if span.value < Grace::FLOOR {
            floor(&span.place, &span.key, &format!("`{}`", humantime::format_duration(span.value)), "24h");
        }
        if min_sightings.value < 3 {
            floor(&min_sightings.place, &min_sightings.key, &format!("`{}`", min_sightings.value), "3");
        }
    }
    Policy {
        grace: Grace(Duration::from_secs(
            grace.value.as_secs().saturating_add(u64::from(grace.value.subsec_nanos() > 0)),
        )),
        min_sightings: u32::try_from(min_sightings.value).unwrap_or(u32::MAX),
        min_sighting_span: span.value,
        plan_expires,
        approval: approval.unwrap_or(Approval::Required),
        disposal: disposal.unwrap_or(Disposal::Delete),
        unsafe_short_grace,
    }
}

fn read_uploads(mut reader: Reader<'_>, is_floor_lifted: bool, problems: &Problems) -> UploadPolicy {
    let is_set = reader.has("abort_after");
    let abort_after = reader.duration("abort_after", DAY * 7);
    reader.finish();
    if is_set && abort_after.value < UploadPolicy::FLOOR && !is_floor_lifted {
        let message = format!(
            "`{}` is below the floor of 24h; write 24h or more, or set `unsafe_short_grace = true` where no data can be lost",
            humantime::format_duration(abort_after.value)
        );
        problems.add(&abort_after.place, &abort_after.key, message);
    }
    UploadPolicy { abort_after: is_set.then_some(abort_after.value) }
}

fn read_limits(mut reader: Reader<'_>) -> Limits {
    let limits = Limits {
        max_orphan_share: reader.share("max_orphan_share", 0.10),
        max_orphan_groups: reader.count("max_orphan_groups", 10_000, 0).value,
        max_objects: reader.count("max_objects", 1_000_000, 0).value,
        max_bytes: reader.size("max_bytes").unwrap_or(1 << 40),
        max_foreign_share: reader.share("max_foreign_share", 0.10),
        max_live_drop: reader.share("max_live_drop", 0.05),
        min_overlap: reader.share("min_overlap", 0.50),
        small: reader.count("small", 5, 0).value,
    };
    reader.finish();
    limits
}

fn read_schedule(reader: &mut Reader<'_>, problems: &Problems) -> Option<Schedule> {
    const CRON: &str = "five or six fields, such as \"0 3 * * *\"";
    let node = reader.take("schedule")?;
    let mut table = Reader::new(node, reader.key("schedule"), problems);
    let cron = table.required_text("cron", CRON).and_then(|placed| {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        match parser.parse(&placed.value) {
            Ok(cron) if comes(&cron) => Some(cron),
            Ok(_) => {
                problems.add(&placed.place, placed.key, format!("`{}` never comes; write {CRON}", placed.value));
                None
            }
            Err(error) => {
                problems.add(
                    &placed.place,
                    placed.key,
                    format!("`{}` is no cron expression ({error}); write {CRON}", placed.value),
                );
                None
            }
        }
    });
    let timezone = match table.text("timezone", "a time zone, such as \"UTC\" or \"Europe/Berlin\"") {
        None => Some(chrono_tz::UTC),
        Some(placed) => {
            let timezone = chrono_tz::Tz::from_str(&placed.value).ok();
            if timezone.is_none() {
                let message =
                    format!("`{}` is no known time zone; write one such as \"UTC\" or \"Europe/Berlin\"", placed.value);
                problems.add(&placed.place, placed.key, message);
            }
            timezone
        }
    };
    let commands = [("audit", ScheduledCommand::Audit), ("sweep", ScheduledCommand::Sweep)];
    let command = read_choice(&mut table, "command", &commands, problems).unwrap_or(ScheduledCommand::Audit);
    table.finish();
    Some(Schedule { cron: cron?, timezone: timezone?, command })
}

/// Whether a calendar has any day at all: the 31st of February never comes.
fn comes(cron: &Cron) -> bool {
    cron.find_next_occurrence(&Timestamp::UNIX_EPOCH, true).is_ok()
}

fn read_choice<T: Copy>(
    reader: &mut Reader<'_>,
    key: &'static str,
    choices: &[(&str, T)],
    problems: &Problems,
) -> Option<T> {
    let expected = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    let placed = reader.text(key, &expected)?;
    let choice = choices.iter().find(|(name, _)| *name == placed.value).map(|(_, choice)| *choice);
    if choice.is_none() {
        problems.add(&placed.place, placed.key, format!("`{}` is no choice; write {expected}", placed.value));
    }
    choice
}
