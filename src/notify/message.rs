//! What there is to tell of a run, and how. Pure: a summary in, a document out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::config::{Event, Format};
use crate::decide::breakers::{Breaker, Reading};
use crate::exit::Exit;
use crate::model::{human_bytes, human_count, visible};
use crate::report::{Outcome, Summary};

/// Version of the JSON document.
const MESSAGE_VERSION: u32 = 1;
/// The longest reason in a line of text, in characters; the document has all of it.
const LONGEST_REASON: usize = 600;

/// What a run's events are judged by, beside its summary.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// The exit code.
    pub exit: Exit,
    /// Groups of the run's own plan that wait for a person.
    pub awaiting_review: u64,
    /// Orphan groups of the last complete run; `None`: there was none.
    pub orphans_before: Option<u64>,
}

/// What there is to tell of a run.
pub fn events(summary: &Summary, circumstances: Circumstances) -> BTreeSet<Event> {
    let Circumstances { exit, awaiting_review, orphans_before } = circumstances;
    let is_complete = summary.outcome == Outcome::Complete;
    let is_tripped = refusing(summary).next().is_some();
    // What a breaker refused is told by its name; and who asked by hand has the answer before their eyes.
    let is_refusal_news = !is_tripped && !matches!(summary.command.as_str(), "apply" | "restore");
    let is_broken = match summary.outcome {
        Outcome::Failed | Outcome::Incomplete => true,
        Outcome::Refused => is_refusal_news,
        Outcome::Complete | Outcome::Interrupted => match exit {
            Exit::Failed | Exit::Usage | Exit::SomeFailed | Exit::Locked => true,
            Exit::Refused => is_refusal_news,
            // Whoever stopped it knows.
            Exit::Done | Exit::OrphansFound | Exit::Interrupted | Exit::Terminated => false,
        },
    };
    let is_first = is_complete && orphans_before == Some(0) && summary.groups.orphan > 0;
    let all = [
        (Event::Trip, is_tripped),
        (Event::Failure, is_broken),
        (Event::ReviewNeeded, is_complete && awaiting_review > 0),
        (Event::FirstOrphans, is_first),
    ];
    all.into_iter().filter(|(_, is_so)| *is_so).map(|(event, _)| event).collect()
}

/// The breakers that refuse, but for `incomplete`, which is a failure to read.
fn refusing(summary: &Summary) -> impl Iterator<Item = &Reading> {
    summary.breakers.iter().filter(|reading| reading.refuses() && reading.name != Breaker::Incomplete)
}

/// What is sent of a run.
#[derive(Debug, Clone)]
pub struct Message {
    text: String,
    document: Value,
}

impl Message {
    /// The message of a run that left a summary, or is about to.
    pub fn of_run(
        summary: &Summary,
        events: &BTreeSet<Event>,
        exit: Exit,
        (awaiting_review, next_command): (u64, Option<&str>),
    ) -> Self {
        let document = json!({
            "version": MESSAGE_VERSION,
            "tool_version": summary.tool_version,
            "events": events,
            "scope": summary.scope,
            "run_id": summary.run_id,
            "command": summary.command,
            "dry_run": summary.dry_run,
            "outcome": summary.outcome,
            "exit_code": exit.code(),
            "reason": summary.reason,
            "started_at": summary.started_at,
            "bucket": summary.target.bucket,
            "prefix": summary.target.prefix,
            "groups": summary.groups,
            "orphan_objects": summary.orphan_objects,
            "orphan_bytes": summary.orphan_bytes,
            "eligible_objects": summary.eligible_objects,
            "eligible_bytes": summary.eligible_bytes,
            "missing": summary.missing,
            "awaiting_review": awaiting_review,
            "breakers": refusing(summary).collect::<Vec<_>>(),
            "deletion": summary.deletion,
            "plan_hash": summary.plan_hash,
            "report_dir": summary.report_dir,
            "next_command": next_command,
        });
        let mut lines = vec![headline(events, &summary.command, &summary.scope)];
        if events.contains(&Event::Failure)
            && let Some(reason) = &summary.reason
        {
            lines.push(shortened(reason));
        }
        lines.extend(refusing(summary).map(|reading| {
            let state = if reading.tripped { "tripped" } else { "waits for an acknowledgement" };
            format!("{} {state}: {}", reading.name.as_str(), shortened(&reading.message))
        }));
        if summary.coverage.complete {
            lines.push(found(summary, awaiting_review));
        }
        lines.push(format!("Report: {}/report.html", visible(&summary.report_dir)));
        lines.extend(next_command.map(|command| format!("Next: {}", visible(command))));
        Self { text: lines.join("\n"), document }
    }

    /// The message of a run that could not begin, or whose report could not be written.
    pub fn of_failure(scope: &str, command: &str, error: &str, exit: Exit) -> Self {
        let events = BTreeSet::from([Event::Failure]);
        let document = json!({
            "version": MESSAGE_VERSION,
            "tool_version": env!("CARGO_PKG_VERSION"),
            "events": events,
            "scope": scope,
            "command": command,
            "outcome": Outcome::Failed,
            "exit_code": exit.code(),
            "reason": error,
        });
        let text = format!("{}\n{}\nIt left no report.", headline(&events, command, scope), shortened(error));
        Self { text, document }
    }

    /// The body of the request.
    pub fn body(&self, format: Format) -> Value {
        match format {
            Format::Json => {
                let mut document = self.document.clone();
                document["text"] = Value::String(self.text.clone());
                document
            }
            Format::Slack => json!({ "text": for_slack(&self.text) }),
        }
    }
}

fn headline(events: &BTreeSet<Event>, command: &str, scope: &str) -> String {
    let said: Vec<&str> = events
        .iter()
        .map(|event| match event {
            Event::Trip => "a breaker refuses deletion",
            Event::Failure => "the run did not succeed",
            Event::ReviewNeeded => "a plan waits for review",
            Event::FirstOrphans => "there are orphans again",
        })
        .collect();
    format!("orphan-sweeper: {} ({} of scope {})", said.join(", "), visible(command), visible(scope))
}

fn found(summary: &Summary, awaiting_review: u64) -> String {
    let groups = &summary.groups;
    let mut said = format!(
        "{} orphans ({}) among {} groups",
        human_count(groups.orphan),
        human_bytes(summary.orphan_bytes),
        human_count(groups.listed)
    );
    if awaiting_review > 0 {
        said.push_str(&format!(", {} of them in a plan that waits for a person", human_count(awaiting_review)));
    }
    if summary.missing > 0 {
        said.push_str(&format!("; {} rows have lost their objects", human_count(summary.missing)));
    }
    if let Some(deletion) = &summary.deletion {
        said.push_str(&format!(
            "; {} objects deleted, {} failed or unconfirmed",
            human_count(deletion.deleted),
            human_count(deletion.failed + deletion.unconfirmed)
        ));
    }
    said.push('.');
    said
}

fn shortened(text: &str) -> String {
    let shown = visible(text);
    match shown.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{} …", &shown[..end]),
        None => shown,
    }
}

/// Escapes what Slack would read as a link or a mention: a key could be called `<!channel>`.
fn for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::text::samples::{audit, reading};
    use crate::report::{Deletion, GroupCounts};

    const CALM: Circumstances = Circumstances { exit: Exit::Done, awaiting_review: 0, orphans_before: Some(4) };

    fn told(summary: &Summary, circumstances: Circumstances) -> Vec<&'static str> {
        events(summary, circumstances).into_iter().map(Event::as_str).collect()
    }

    fn with_orphans(orphan: u64) -> Summary {
        let summary = audit(&[]);
        Summary { groups: GroupCounts { orphan, ..summary.groups }, ..summary }
    }

    fn tripping(name: Breaker) -> Summary {
        let breakers = vec![reading(name, true, json!(1), json!(2), "more than that")];
        Summary { breakers, ..with_orphans(4) }
    }

    #[test]
    fn a_quiet_night_tells_nothing() {
        assert!(told(&with_orphans(4), CALM).is_empty());
        assert!(told(&with_orphans(0), CALM).is_empty());
        let found = Circumstances { exit: Exit::OrphansFound, ..CALM };
        assert!(told(&with_orphans(4), found).is_empty(), "that orphans are exit 3 was asked for");
    }

    #[test]
    fn a_breaker_is_told_whether_it_trips_or_waits_and_of_either_kind() {
        let refused = Circumstances { exit: Exit::Refused, ..CALM };
        let evidence = Summary { outcome: Outcome::Refused, ..tripping(Breaker::LiveDrop) };
        assert_eq!(told(&evidence, refused), ["trip"]);
        assert_eq!(told(&tripping(Breaker::Objects), CALM), ["trip"], "an audit whose plan would be refused exits 0");
        let mut waiting = tripping(Breaker::LiveDrop);
        (waiting.outcome, waiting.breakers[0].tripped) = (Outcome::Refused, false);
        assert_eq!(told(&waiting, refused), ["trip"]);
    }

    #[test]
    fn no_run_ends_badly_without_a_word_but_for_one_that_a_person_stopped() {
        let ended = |outcome, exit| {
            let summary = Summary { outcome, ..with_orphans(4) };
            told(&summary, Circumstances { exit, ..CALM })
        };
        assert_eq!(ended(Outcome::Failed, Exit::Failed), ["failure"]);
        assert_eq!(ended(Outcome::Incomplete, Exit::Failed), ["failure"]);
        assert_eq!(ended(Outcome::Complete, Exit::SomeFailed), ["failure"]);
        assert_eq!(ended(Outcome::Interrupted, Exit::Locked), ["failure"]);
        assert_eq!(ended(Outcome::Refused, Exit::Refused), ["failure"], "refused, and by no breaker");
        let by_hand = Summary { command: "apply".into(), outcome: Outcome::Refused, ..with_orphans(4) };
        assert!(told(&by_hand, Circumstances { exit: Exit::Refused, ..CALM }).is_empty(), "who asked has the answer");
        assert!(ended(Outcome::Interrupted, Exit::Interrupted).is_empty());
        assert!(ended(Outcome::Interrupted, Exit::Terminated).is_empty());
        assert!(ended(Outcome::Interrupted, Exit::Done).is_empty(), "a step whose time is over");
        let incomplete = Summary { outcome: Outcome::Failed, ..tripping(Breaker::Incomplete) };
        assert_eq!(told(&incomplete, Circumstances { exit: Exit::Failed, ..CALM }), ["failure"]);
    }

    #[test]
    fn review_and_first_orphans_are_told_of_complete_runs_alone() {
        let waiting = Circumstances { awaiting_review: 3, orphans_before: Some(0), ..CALM };
        assert_eq!(told(&with_orphans(4), waiting), ["review_needed", "first_orphans"]);
        let first_run = Circumstances { orphans_before: None, ..CALM };
        assert!(told(&with_orphans(4), first_run).is_empty(), "before the first run nobody knows of none");
        assert!(told(&with_orphans(0), Circumstances { orphans_before: Some(0), ..CALM }).is_empty());
        let failed = Summary { outcome: Outcome::Failed, ..with_orphans(4) };
        assert_eq!(told(&failed, Circumstances { exit: Exit::Failed, ..waiting }), ["failure"]);
    }

    #[test]
    fn the_document_has_the_numbers_and_slack_gets_text_that_mentions_nobody() {
        let deletion = Deletion { requested: 5, deleted: 3, failed: 2, ..Deletion::default() };
        let summary = Summary {
            deletion: Some(deletion),
            scope: "<!channel> & co".into(),
            reason: Some("2 deletions failed\u{202e}".into()),
            ..with_orphans(4)
        };
        let circumstances = Circumstances { exit: Exit::SomeFailed, ..CALM };
        let events = events(&summary, circumstances);
        let message = Message::of_run(&summary, &events, Exit::SomeFailed, (0, Some("orphan-sweeper history")));
        let document = message.body(Format::Json);
        assert_eq!(document["events"], json!(["failure"]));
        assert_eq!(document["exit_code"], 5);
        assert_eq!(document["deletion"]["failed"], 2);
        assert_eq!(document["next_command"], "orphan-sweeper history");
        let slack = message.body(Format::Slack);
        let text = slack["text"].as_str().expect("text");
        assert!(text.contains("&lt;!channel&gt; &amp; co") && !text.contains('<'), "{text}");
        assert!(text.contains("\\u{202e}") && !text.contains('\u{202e}'), "{text}");
        assert!(text.contains("3 objects deleted, 2 failed or unconfirmed"), "{text}");
        assert_eq!(slack.as_object().map(serde_json::Map::len), Some(1));
    }
}
