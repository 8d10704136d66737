//! How each step went: told as it ends, and together at the end.
//!
//! Invariant: a step that was not taken is never shown as passed.

use std::future::Future;

use serde::Serialize;

use crate::clock::Stopwatch;
use crate::exit::Exit;
use crate::list::references::ReferencesError;
use crate::model::visible;
use crate::platform::PlatformError;
use crate::record::RecordError;
use crate::run::failure::chain;
use crate::run::purge::Refusal;
use crate::run::{RunFailure, Stop};
use crate::s3::{StoreError, StoreFault};

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// As it should.
    Passed,
    /// Something is wrong.
    Failed,
    /// It was not taken: one before it failed, or somebody asked to stop.
    NotTaken,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A name for scripts.
    pub name: &'static str,
    /// How it went.
    pub state: StepState,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What it means for the exit code.
    #[serde(skip)]
    pub exit: Exit,
}

/// Why a step failed.
#[derive(Debug)]
pub struct Broken {
    detail: String,
    hint: Option<String>,
    exit: Exit,
}

impl Broken {
    /// Something is not as it should be.
    pub fn new(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { detail: detail.into(), hint: Some(hint.into()), exit: Exit::Failed }
    }

    /// The same, with what to do.
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The same, with another exit.
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// A request to the store that failed; `action` is the right that it needs, and on what.
    pub fn of_store(error: &StoreError, action: &str) -> Self {
        let hint = match error.fault {
            StoreFault::Denied(_) => format!("allow {action}"),
            _ => error.fault.hint().to_owned(),
        };
        Self::new(chain(error), hint)
    }
}

impl From<PlatformError> for Broken {
    fn from(error: PlatformError) -> Self {
        Self::new(chain(&error), error.hint())
    }
}

impl From<ReferencesError> for Broken {
    fn from(error: ReferencesError) -> Self {
        Self::new(format!("the live ids could not be read: {}", chain(&error)), error.hint())
    }
}

impl From<RecordError> for Broken {
    fn from(error: RecordError) -> Self {
        RunFailure::Record(error).into()
    }
}

impl From<RunFailure> for Broken {
    fn from(failure: RunFailure) -> Self {
        Self { detail: failure.chain(), hint: failure.hint(), exit: failure.exit() }
    }
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        let exit = match &refusal {
            Refusal::Stopped { .. } | Refusal::Latched { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        Self { detail: chain(&refusal), hint: refusal.hint(), exit }
    }
}

/// Every step so far.
pub struct Board<'t> {
    steps: Vec<Step>,
    tell: &'t mut (dyn FnMut(&Step) + Send),
}

impl<'t> Board<'t> {
    /// An empty board; each step is handed to `tell` as it ends.
    pub fn new(tell: &'t mut (dyn FnMut(&Step) + Send)) -> Self {
        Self { steps: Vec::new(), tell }
    }

    /// Takes a step, unless somebody asked to stop; gives what it made, where it passed.
    pub(super) async fn step<T>(
        &mut self,
        name: &'static str,
        stop: &Stop,
        work: impl Future<Output = Result<(T, String), Broken>>,
    ) -> Option<T> {
        if stop.token.is_cancelled() {
            return None;
        }
        let began = Stopwatch::start();
        let (made, state, detail, hint, exit) = match work.await {
            Ok((made, detail)) => (Some(made), StepState::Passed, detail, None, Exit::Done),
            Err(Broken { detail, hint, exit }) => (None, StepState::Failed, detail, hint, exit),
        };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.add(Step { name, state, detail, hint, duration_ms, exit });
        made
    }

    /// Tells those of `names` that were not come to.
    pub(super) fn leave_out(&mut self, names: &[&'static str]) {
        for name in names {
            if self.steps.iter().any(|step| step.name == *name) {
                continue;
            }
            let detail = "a step before it failed, or a stop was asked for".to_owned();
            let (state, exit) = (StepState::NotTaken, Exit::Done);
            self.add(Step { name, state, detail, hint: None, duration_ms: 0, exit });
        }
    }

    fn add(&mut self, mut step: Step) {
        // Servers say part of it.
        step.detail = visible(&step.detail);
        step.hint = step.hint.as_deref().map(visible);
        (self.tell)(&step);
        self.steps.push(step);
    }

    /// Every step.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The exit code of them all.
    pub fn exit(&self) -> Exit {
        Exit::of_all(self.steps.iter().map(|step| step.exit))
    }
}
