//! Runs that callers of the API ask for: handed to the one runner, and told of until they are forgotten.
//!
//! Invariant: at most one waits for each scope, and no more are remembered than [`REMEMBERED`].

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{RunId, Timestamp};

/// Triggers that are remembered, the oldest forgotten first.
const REMEMBERED: usize = 200;

/// What a caller may ask the runner for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerCommand {
    /// List, compare, report and plan.
    Audit,
    /// Audit, then apply what policy allows or a person approved.
    Sweep,
}

/// Where a trigger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerState {
    /// The runner has not come to it.
    Waiting,
    /// It runs.
    Running,
    /// It ran, and left a report.
    Ended,
    /// It could not begin or report.
    Failed,
}

/// A run that a caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Trigger {
    /// Its id.
    pub id: Uuid,
    /// The scope.
    pub scope: String,
    /// What was asked for.
    pub command: TriggerCommand,
    /// The name of the token that asked.
    pub by: String,
    /// When.
    pub asked_at: DateTime<Utc>,
    /// When the runner came to it.
    pub started_at: Option<DateTime<Utc>>,
    /// Where it stands.
    pub state: TriggerState,
    /// The run, once it is known.
    pub run_id: Option<Uuid>,
    /// What became of the run, once it ended.
    pub outcome: Option<&'static str>,
    /// The exit code that the same command would have, once it ended.
    pub exit_code: Option<u8>,
}

/// How a trigger's run ended: its id, what became of it, its exit code. `None`: it could not begin or report.
pub type TriggerEnd = Option<(Uuid, &'static str, u8)>;

/// What callers asked for.
#[derive(Debug, Default)]
pub struct Triggers {
    known: Mutex<VecDeque<Trigger>>,
    /// Rung when one waits.
    pub bell: Notify,
}

impl Triggers {
    /// Notes what a caller asks for, and rings; the one that waits already, where one does.
    pub fn ask(&self, scope: &str, command: TriggerCommand, by: &str, now: Timestamp) -> Result<Trigger, Box<Trigger>> {
        let mut known = self.known.lock();
        let waiting = known.iter().find(|trigger| trigger.scope == scope && trigger.state == TriggerState::Waiting);
        if let Some(waiting) = waiting {
            return Err(Box::new(waiting.clone()));
        }
        let trigger = Trigger {
            id: RunId::new(now).0,
            scope: scope.to_owned(),
            command,
            by: by.to_owned(),
            asked_at: now,
            started_at: None,
            state: TriggerState::Waiting,
            run_id: None,
            outcome: None,
            exit_code: None,
        };
        if known.len() >= REMEMBERED {
            let oldest_ended =
                known.iter().position(|trigger| matches!(trigger.state, TriggerState::Ended | TriggerState::Failed));
            oldest_ended.map(|position| known.remove(position));
        }
        known.push_back(trigger.clone());
        drop(known);
        self.bell.notify_one();
        Ok(trigger)
    }

    /// The one of that id.
    pub fn get(&self, id: Uuid) -> Option<Trigger> {
        self.known.lock().iter().find(|trigger| trigger.id == id).cloned()
    }

    /// All that are remembered, the newest first.
    pub fn all(&self) -> Vec<Trigger> {
        self.known.lock().iter().rev().cloned().collect()
    }

    /// Whether one waits.
    pub fn is_waiting(&self) -> bool {
        self.known.lock().iter().any(|trigger| trigger.state == TriggerState::Waiting)
    }

    /// The oldest that waits, which from now on runs.
    pub fn start_next(&self, now: Timestamp) -> Option<Trigger> {
        let mut known = self.known.lock();
        let next = known.iter_mut().find(|trigger| trigger.state == TriggerState::Waiting)?;
        next.state = TriggerState::Running;
        next.started_at = Some(now);
        Some(next.clone())
    }

    /// Notes how its run ended.
    pub fn end(&self, id: Uuid, end: TriggerEnd) {
        let mut known = self.known.lock();
        let Some(trigger) = known.iter_mut().find(|trigger| trigger.id == id) else { return };
        match end {
            Some((run, outcome, exit_code)) => {
                trigger.state = TriggerState::Ended;
                trigger.run_id = Some(run);
                trigger.outcome = Some(outcome);
                trigger.exit_code = Some(exit_code);
            }
            None => trigger.state = TriggerState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_700_000_000 + second, 0).expect("a time")
    }

    #[test]
    fn one_waits_for_each_scope_and_the_next_may_be_asked_for_when_it_runs() {
        let triggers = Triggers::default();
        let first = triggers.ask("a", TriggerCommand::Audit, "ada", at(0)).expect("taken");
        assert_eq!(triggers.ask("a", TriggerCommand::Sweep, "bob", at(1)), Err(Box::new(first.clone())));
        triggers.ask("b", TriggerCommand::Audit, "ada", at(2)).expect("another scope");
        assert_eq!(triggers.start_next(at(3)).map(|trigger| trigger.id), Some(first.id));
        triggers.ask("a", TriggerCommand::Sweep, "bob", at(4)).expect("the first runs by now");
        let run = Uuid::new_v4();
        triggers.end(first.id, Some((run, "complete", 0)));
        let ended = triggers.get(first.id).expect("remembered");
        assert_eq!((ended.state, ended.run_id, ended.exit_code), (TriggerState::Ended, Some(run), Some(0)));
    }

    #[test]
    fn memory_is_bounded_and_what_waits_is_never_forgotten() {
        let triggers = Triggers::default();
        let waiting = triggers.ask("waits", TriggerCommand::Audit, "ada", at(0)).expect("taken");
        for second in 0..3 * i64::try_from(REMEMBERED).expect("small") {
            let trigger = triggers.ask("a", TriggerCommand::Audit, "ada", at(second)).expect("taken");
            let mut known = triggers.known.lock();
            known.iter_mut().find(|known| known.id == trigger.id).expect("known").state = TriggerState::Failed;
        }
        assert!(triggers.all().len() <= REMEMBERED + 1);
        assert_eq!(triggers.get(waiting.id), Some(waiting));
    }
}
