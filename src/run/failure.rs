//! Why a run did not end as it was asked to, and what that means for its report and its exit code.

use crate::config::secrets::SecretError;
use crate::dispose::space::TooLittleSpace;
use crate::exit::Exit;
use crate::list::content::ContentError;
use crate::list::holds::HoldsError;
use crate::list::references::ReferencesError;
use crate::record::RecordError;
use crate::report::Outcome;
use crate::report::folder::FolderError;
use crate::s3::{ConnectError, StoreError};

use super::SetupError;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// The store could not be read to its end.
    #[error("the store could not be read")]
    Store(#[source] StoreError),
    /// The live rows could not be read, or not proven.
    #[error("the live ids could not be read")]
    References(#[source] ReferencesError),
    /// The protected ids could not be read.
    #[error("the protected ids could not be read")]
    Holds(#[from] HoldsError),
    /// The ledger failed.
    #[error("the ledger failed")]
    Record(#[source] RecordError),
    /// The report could not be written.
    #[error("the report could not be written")]
    Report(#[source] FolderError),
    /// A row of a report could not be written.
    #[error("a row of the report could not be written")]
    ReportRow(#[source] std::io::Error),
    /// A secret is missing.
    #[error(transparent)]
    Secret(SecretError),
    /// The store's client cannot be built.
    #[error(transparent)]
    Connect(ConnectError),
    /// The journal would not fit.
    #[error(transparent)]
    Space(#[from] TooLittleSpace),
    /// The plan, a breaker or the person says no.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
        /// What to do next.
        hint: String,
    },
    /// The page could not be rendered.
    #[error("report.html could not be rendered")]
    Render(#[source] askama::Error),
    /// It was told to stop, or lost the lock.
    #[error("{}", if *.0 == Exit::Locked { "it lost the lock of the ledger, which another run may have by now" } else { "it was told to stop" })]
    Interrupted(Exit),
}

impl From<StoreError> for RunFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ReferencesError> for RunFailure {
    fn from(error: ReferencesError) -> Self {
        Self::References(error)
    }
}

impl From<RecordError> for RunFailure {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<FolderError> for RunFailure {
    fn from(error: FolderError) -> Self {
        Self::Report(error)
    }
}

impl From<ContentError> for RunFailure {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Store(error) => Self::Store(error),
            ContentError::Record(error) => Self::Record(error),
        }
    }
}

impl From<SetupError> for RunFailure {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Secret(error) => Self::Secret(error),
            SetupError::Connect(error) => Self::Connect(error),
        }
    }
}

impl RunFailure {
    /// What the report calls it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Store(_) => Outcome::Incomplete,
            Self::Refused { .. } => Outcome::Refused,
            Self::Interrupted(_) => Outcome::Interrupted,
            Self::References(_)
            | Self::Holds(_)
            | Self::Record(_)
            | Self::Report(_)
            | Self::ReportRow(_)
            | Self::Secret(_)
            | Self::Connect(_)
            | Self::Space(_)
            | Self::Render(_) => Outcome::Failed,
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } => Exit::Refused,
            Self::Interrupted(exit) => *exit,
            Self::Secret(_) | Self::Connect(_) => Exit::Usage,
            Self::Record(RecordError::Newer(_) | RecordError::TooOld { .. } | RecordError::Schema { .. }) => {
                Exit::Usage
            }
            Self::References(error) if error.is_configuration() => Exit::Usage,
            Self::Store(_)
            | Self::References(_)
            | Self::Holds(_)
            | Self::Record(_)
            | Self::Report(_)
            | Self::ReportRow(_)
            | Self::Space(_)
            | Self::Render(_) => Exit::Failed,
        }
    }

    /// What an operator should do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.fault.hint().to_owned()),
            Self::References(error) => Some(error.hint().to_owned()),
            Self::Holds(_) => Some(
                "correct the file that `scope.holds.file` names; while it cannot be read, nothing is deleted".into(),
            ),
            Self::Record(RecordError::Newer(_)) => Some("use the newer version of orphan-sweeper that wrote it".into()),
            Self::Record(RecordError::TooOld { .. }) => Some("move the ledger to a newer server".into()),
            Self::Record(RecordError::Schema { .. }) => Some(
                "the role of the ledger needs a schema of its own in that database, or the right to make one".into(),
            ),
            Self::Record(RecordError::Tampered(_)) => {
                Some("see `orphan-sweeper history verify`; if it was damaged, restore its backup".into())
            }
            Self::Record(_) => Some("check the disk or the database that holds the ledger, `[ledger]`".into()),
            Self::Report(_) | Self::ReportRow(_) => Some("check the disk and the rights of `reports.directory`".into()),
            Self::Space(_) => {
                Some("free some space, or point `ledger.path` and `reports.directory` at another disk".into())
            }
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Secret(_) | Self::Connect(_) | Self::Render(_) | Self::Interrupted(_) => None,
        }
    }

    /// The whole chain of causes, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
