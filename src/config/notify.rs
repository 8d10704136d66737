//! `[notify]`: who is told when a run needs a person, and who is told that all is well.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Folder;
use super::reader::{Problems, Reader};

/// Who is told of runs. Source: `[notify]`. Without an address, in a file or in the environment, nobody is.
#[derive(Debug, Clone)]
pub struct Notify {
    /// A file with the webhook's address. Source: `notify.url_file`.
    pub url_file: Option<PathBuf>,
    /// How a message is written. Source: `notify.format`.
    pub format: Format,
    /// What is told. Source: `notify.events`.
    pub events: BTreeSet<Event>,
    /// A file with the heartbeat's address. Source: `notify.heartbeat_url_file`.
    pub heartbeat_url_file: Option<PathBuf>,
    /// Longest wait for one answer. Source: `notify.timeout`.
    pub timeout: Duration,
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One document with every number.
    Json,
    /// `{"text": …}`, as Slack and what is compatible with it take it.
    Slack,
}

/// What is told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A breaker tripped, or waits for an acknowledgement.
    Trip,
    /// It failed, was refused for another reason, or could not delete all that it asked for.
    Failure,
    /// It made a plan that waits for a person.
    ReviewNeeded,
    /// It found orphans, and the complete run before it found none.
    FirstOrphans,
}

impl Event {
    /// Every event, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Trip, Self::Failure, Self::ReviewNeeded, Self::FirstOrphans];

    /// The word in the configuration and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::Failure => "failure",
            Self::ReviewNeeded => "review_needed",
            Self::FirstOrphans => "first_orphans",
        }
    }
}

/// The default of `notify.timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A run waits for no answer longer than this.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads `[notify]`.
pub(super) fn read(mut table: Reader<'_>, folder: &Folder, problems: &Problems) -> Notify {
    let url_file = folder.file(table.text("url_file", "the path of a file with the webhook's address"));
    let format = table.text("format", "\"json\" or \"slack\"").map_or(Format::Json, |placed| match &*placed.value {
        "json" => Format::Json,
        "slack" => Format::Slack,
        other => {
            table.wrong(&placed, format!("`{other}` is no known format; write \"json\" or \"slack\""));
            Format::Json
        }
    });
    let heartbeat_url_file =
        folder.file(table.text("heartbeat_url_file", "the path of a file with the heartbeat's address"));
    let events = read_events(&mut table, problems);
    let timeout = table.duration("timeout", DEFAULT_TIMEOUT);
    if timeout.value.is_zero() || timeout.value > LONGEST_TIMEOUT {
        let message = format!(
            "`{}` is no time to wait for an answer; write a duration up to 60s, such as \"10s\"",
            humantime::format_duration(timeout.value)
        );
        problems.add(&timeout.place, &timeout.key, message);
    }
    table.finish();
    Notify { url_file, format, events, heartbeat_url_file, timeout: timeout.value }
}

fn read_events(table: &mut Reader<'_>, problems: &Problems) -> BTreeSet<Event> {
    let Some(written) = table.texts("events") else { return BTreeSet::from(Event::ALL) };
    let mut events = BTreeSet::new();
    for placed in written.value {
        if let Some(event) = Event::ALL.into_iter().find(|event| event.as_str() == placed.value) {
            events.insert(event);
            continue;
        }
        let known = Event::ALL.map(|event| format!("\"{}\"", event.as_str())).join(", ");
        let message = format!("`{}` is no known event; use some of: {known}", placed.value);
        problems.add(&placed.place, &placed.key, message);
    }
    events
}
