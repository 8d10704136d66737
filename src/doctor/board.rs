//! What the checks say: each a state, a line and, where something is to be done, a hint.
//!
//! Invariant: a check that could not be made is never shown as passed.

use serde::Serialize;
use serde_json::{Value, json};

use crate::command::{print_json, print_text};
use crate::exit::Exit;
use crate::model::visible;

/// Width of the column that says what was checked.
const LABEL: usize = 26;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warn,
    /// An audit or a deletion would fail, or should not be trusted.
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warn => "1;33",
            Self::Fail => "1;31",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was checked, a name for scripts.
    pub(super) name: &'static str,
    /// The scope that it is about; null where it is about all.
    pub(super) scope: Option<String>,
    /// How it went.
    pub(super) state: State,
    /// What was found.
    pub(super) detail: String,
    /// What to do.
    pub(super) hint: Option<String>,
    /// What a failure means for the exit code.
    #[serde(skip)]
    exit: Exit,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl Into<String>, hint: Option<String>) -> Self {
        let exit = if state == State::Fail { Exit::Failed } else { Exit::Done };
        // Servers and files say part of it.
        let detail = visible(&detail.into());
        Self { name, scope: None, state, detail, hint: hint.map(|hint| visible(&hint)), exit }
    }

    /// As it should be.
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail, None)
    }

    /// It works, and somebody should know.
    pub(super) fn warn(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(name, State::Warn, detail, Some(hint.into()))
    }

    /// Something is wrong around us.
    pub(super) fn fail(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(name, State::Fail, detail, Some(hint.into()))
    }

    /// Something that the operator wrote is wrong.
    pub(super) fn misconfigured(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::fail(name, detail, hint) }
    }

    /// The same check, about one scope.
    pub(super) fn of(self, scope: &str) -> Self {
        Self { scope: Some(scope.to_owned()), ..self }
    }
}

/// How the checks are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// A line each, as they are made.
    Lines {
        /// Whether states are coloured.
        coloured: bool,
        /// Whether the scope is named.
        names_scopes: bool,
    },
    /// One JSON document at the end.
    Json,
    /// Not at all.
    #[cfg(test)]
    Nothing,
}

/// All checks so far.
#[derive(Debug)]
pub(super) struct Board {
    show: Show,
    checks: Vec<Check>,
}

impl Board {
    /// An empty board.
    pub(super) fn new(show: Show) -> Self {
        Self { show, checks: Vec::new() }
    }

    /// Adds a check, and shows it where checks are shown as they are made.
    pub(super) fn add(&mut self, check: Check) {
        if let Show::Lines { coloured, names_scopes } = self.show {
            print_text(&line(&check, coloured, names_scopes));
        }
        self.checks.push(check);
    }

    /// Adds several.
    pub(super) fn extend(&mut self, checks: impl IntoIterator<Item = Check>) {
        checks.into_iter().for_each(|check| self.add(check));
    }

    /// Every check.
    #[cfg(test)]
    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Shows what comes at the end; gives the exit code.
    pub(super) fn finish(self) -> Exit {
        match self.show {
            Show::Lines { .. } => print_text(&self.conclusion()),
            Show::Json => print_json(&self.document()),
            #[cfg(test)]
            Show::Nothing => {}
        }
        Exit::of_all(self.checks.iter().map(|check| check.exit))
    }

    fn document(&self) -> Value {
        json!({ "checks": self.checks })
    }

    fn conclusion(&self) -> String {
        let count = |state| self.checks.iter().filter(|check| check.state == state).count();
        let (passed, warnings, failed) = (count(State::Ok), count(State::Warn), count(State::Fail));
        let next = match (failed, warnings) {
            (0, 0) => "All is well. Next: orphan-sweeper audit",
            (0, _) => "Nothing failed; heed the warnings. Next: orphan-sweeper audit",
            _ => "Follow the hints of what failed, then run doctor again.",
        };
        let warnings = if warnings == 1 { "1 warning".to_owned() } else { format!("{warnings} warnings") };
        format!("\n{passed} ok, {warnings}, {failed} failed. {next}\n")
    }
}

fn line(check: &Check, coloured: bool, names_scopes: bool) -> String {
    let state = format!("{:<4}", check.state.as_str());
    let state = if coloured { format!("\u{1b}[{}m{state}\u{1b}[0m", check.state.colour()) } else { state };
    let what = check.name.replace('_', " ");
    let what = match &check.scope {
        Some(scope) if names_scopes => format!("{what} ({scope})"),
        _ => what,
    };
    let hint = check.hint.as_ref().map(|hint| format!("        hint: {hint}\n")).unwrap_or_default();
    format!("{state}  {what:<LABEL$}  {}\n{hint}", check.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_and_its_hint_an_indented_one() {
        let check = Check::warn("stop_file", "`STOP` exists", "remove it").of("a");
        let plain = line(&check, false, false);
        assert_eq!(plain, format!("warn  {:<26}  `STOP` exists\n        hint: remove it\n", "stop file"));
        assert!(line(&check, false, true).contains("stop file (a)"));
        assert!(line(&check, true, false).starts_with("\u{1b}[1;33mwarn\u{1b}[0m  stop file"));
        assert_eq!(
            line(&Check::ok("x", "a\nb"), false, false).lines().count(),
            1,
            "what a server says stays on its line"
        );
    }

    #[test]
    fn the_exit_code_tells_a_fault_from_a_mistake() {
        let exit_of = |checks: Vec<Check>| {
            let mut board = Board::new(Show::Nothing);
            board.extend(checks);
            board.finish()
        };
        assert_eq!(exit_of(vec![Check::ok("a", ""), Check::warn("b", "", "")]), Exit::Done);
        assert_eq!(exit_of(vec![Check::ok("a", ""), Check::fail("b", "", "")]), Exit::Failed);
        assert_eq!(exit_of(vec![Check::misconfigured("a", "", ""), Check::fail("b", "", "")]), Exit::Usage);
    }

    #[test]
    fn the_document_has_the_four_promised_fields() {
        let mut board = Board::new(Show::Nothing);
        board.add(Check::fail("listing", "denied", "grant it").of("a"));
        let expected =
            json!({ "name": "listing", "scope": "a", "state": "fail", "detail": "denied", "hint": "grant it" });
        assert_eq!(board.document(), json!({ "checks": [expected] }));
    }
}
