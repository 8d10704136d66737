//! Tells what a run came to: the webhook before the last lines of the report, which tell whether it was taken; the
//! heartbeat after the report, so that no success is claimed that left none.
//!
//! Invariant: nothing here changes a verdict or an exit code, or fails a run.

use uuid::Uuid;

use super::health::ScopeHealth;
use super::{RunFailure, Services, Session};
use crate::config::Scope;
use crate::exit::Exit;
use crate::metrics::Channel;
use crate::model::RunId;
use crate::notify::message::{Circumstances, events};
use crate::notify::{Message, Notifier};
use crate::record::{Ledger, UndeliveredRow};
use crate::report::notice::{Delivery, NoticeReport, Undelivered};
use crate::report::{Outcome, Summary};

/// What a run told, and up to where it tells of messages that nobody took before.
pub(super) struct Told {
    /// For the report.
    pub(super) report: NoticeReport,
    newest_told: Option<i64>,
}

/// Tells the webhook what the run of `session` came to. Called when nothing but the writing of the report is left.
pub(super) async fn tell(session: &Session<'_>) -> Option<Told> {
    let notifier = session.notifier.as_ref().filter(|notifier| notifier.is_configured())?;
    let circumstances = Circumstances {
        exit: session.exit,
        awaiting_review: session.awaiting_review,
        orphans_before: orphans_before(session).await,
    };
    let mut events = events(&session.draft, circumstances);
    events.retain(|event| notifier.wants(*event));
    let webhook = if events.is_empty() {
        None
    } else {
        let more = (session.awaiting_review, session.next_command.as_deref());
        let message = Message::of_run(&session.draft, &events, session.exit, more);
        notifier.tell(&message, &session.services.stop.token).await
    };
    let before = session.services.ledger.untold_messages(&session.scope.name).await.unwrap_or_else(|error| {
        tracing::warn!(run_id = %session.run, error = %error, "the ledger does not say which messages reached nobody");
        Vec::new()
    });
    let newest_told = before.first().map(|row| row.number);
    let shown = |row: UndeliveredRow| Undelivered {
        run_id: Uuid::parse_str(&row.run_id).ok(),
        channel: row.channel,
        at: row.at,
        error: row.error,
    };
    let undelivered_before = before.into_iter().map(shown).collect();
    Some(Told {
        report: NoticeReport { events: events.into_iter().collect(), webhook, undelivered_before },
        newest_told,
    })
}

/// Orphan groups of the last complete run that counted them.
async fn orphans_before(session: &Session<'_>) -> Option<u64> {
    let last = session.services.ledger.last_counted_run(&session.scope.name).await.ok()??;
    let summary: Summary = serde_json::from_str(&last.summary?).ok()?;
    Some(summary.groups.orphan)
}

/// Notes in the ledger what the report has told of messages, once it has.
pub(super) async fn note_told(services: &Services, scope: &Scope, run: RunId, told: &Told) {
    let ledger = &services.ledger;
    let marked = match told.newest_told {
        Some(number) => ledger.mark_told(&scope.name, number, run).await,
        None => Ok(()),
    };
    if let Err(error) = marked {
        tracing::warn!(run_id = %run, error = %error, "the ledger cannot note which messages were told");
    }
    if let Some(webhook) = &told.report.webhook {
        note(services, scope, &run.to_string(), (Channel::Webhook, webhook), Some(run)).await;
    }
}

/// Tells the monitor that all is well, where it is: the run succeeded, and no scope of the schedule is overdue.
pub(super) async fn beat(services: &Services, scope: &Scope, notifier: &Notifier, (summary, exit): (&Summary, Exit)) {
    let is_success = summary.outcome == Outcome::Complete
        && matches!(exit, Exit::Done | Exit::OrphansFound)
        // A restore looks at nothing but what it brings back.
        && summary.command != "restore";
    if !is_success || !are_others_well(services, scope).await {
        return;
    }
    if let Some(delivery) = notifier.beat(&services.stop.token).await {
        note(services, scope, &summary.run_id.to_string(), (Channel::Heartbeat, &delivery), None).await;
    }
}

/// Whether no other scope is overdue: one monitor watches them all.
async fn are_others_well(services: &Services, scope: &Scope) -> bool {
    let now = services.clock.now();
    for other in services.config.scopes.iter().filter(|other| other.name != scope.name && other.schedule.is_some()) {
        match ScopeHealth::of(&services.ledger, other, now, None).await {
            Ok(health) if health.is_well(now) => {}
            Ok(_) => {
                tracing::warn!(scope = %other.name, "no heartbeat: this scope had no successful run lately");
                return false;
            }
            Err(error) => {
                tracing::warn!(scope = %other.name, error = %error, "no heartbeat: the ledger does not say how this scope is");
                return false;
            }
        }
    }
    true
}

/// Tells the webhook of a run that could not begin, or whose report could not be written.
pub(super) async fn tell_failure(
    services: &Services,
    scope: &Scope,
    notifier: &Notifier,
    (command, failure): (&str, &RunFailure),
) {
    let is_asked_for = matches!(failure.exit(), Exit::Interrupted | Exit::Terminated);
    if is_asked_for || !notifier.wants(crate::config::Event::Failure) {
        return;
    }
    let message = Message::of_failure(&scope.name, command, &failure.chain(), failure.exit());
    if let Some(delivery) = notifier.tell(&message, &services.stop.token).await {
        note(services, scope, "", (Channel::Webhook, &delivery), None).await;
    }
}

/// Keeps a message that nobody took for the history and, where this run's report does not tell it, for the next.
async fn note(
    services: &Services,
    scope: &Scope,
    run_id: &str,
    (channel, delivery): (Channel, &Delivery),
    told_by: Option<RunId>,
) {
    let Some(error) = &delivery.error else { return };
    let row = UndeliveredRow {
        number: 0,
        scope: scope.name.clone(),
        run_id: run_id.to_owned(),
        channel: channel.as_str().to_owned(),
        at: services.clock.now(),
        error: error.clone(),
    };
    let ledger: &Ledger = &services.ledger;
    if let Err(error) = ledger.note_undelivered(&row, told_by).await {
        tracing::warn!(error = %error, "the ledger cannot note that nobody could be told");
    }
}
