//! What a failed request means: who has to act, and whether another attempt can help.

use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// Why a request to the store has no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed: {fault}")]
pub struct StoreError {
    /// The S3 operation.
    pub operation: &'static str,
    /// What went wrong.
    pub fault: StoreFault,
}

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    /// The store asks to slow down.
    Throttled(String),
    /// Nothing, or not the whole answer, came back: the request may have been carried out.
    NoReply(String),
    /// The store had a fault of its own.
    ServerFault(String),
    /// The answer breaks the protocol, so nothing in it can be believed.
    Malformed(String),
    /// The credentials are wrong or lack the right.
    Denied(String),
    /// There is no such bucket.
    NoSuchBucket,
    /// The request was refused.
    Refused(String),
    /// The proof that the id is gone was too old when the request was about to leave; nothing was sent.
    ProofExpired,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throttled(what) => write!(f, "the store asks to slow down ({what})"),
            Self::NoReply(what) => write!(f, "no complete reply ({what})"),
            Self::ServerFault(what) => write!(f, "the store had a fault ({what})"),
            Self::Malformed(what) => write!(f, "the reply breaks the protocol: {what}"),
            Self::Denied(what) => write!(f, "the store denies it ({what})"),
            Self::NoSuchBucket => f.write_str("the bucket does not exist"),
            Self::Refused(what) => write!(f, "the store refuses it ({what})"),
            Self::ProofExpired => f.write_str("the proof that the id is gone grew too old before it was sent"),
        }
    }
}

impl StoreFault {
    /// Whether another attempt can help.
    pub fn is_transient(&self) -> bool {
        match self {
            // A page out of order or without its token can be the moment's; a persistent one ends the run all the same.
            Self::Throttled(_) | Self::NoReply(_) | Self::ServerFault(_) | Self::ProofExpired | Self::Malformed(_) => {
                true
            }
            Self::Denied(_) | Self::NoSuchBucket | Self::Refused(_) => false,
        }
    }

    /// What an operator should do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Throttled(_) | Self::ServerFault(_) => "let the store recover, then run again",
            Self::NoReply(_) => {
                "check that `store.endpoint` is right and that the store is up: `orphan-sweeper doctor`"
            }
            Self::Malformed(_) => {
                "check what stands between this host and the store, then run `orphan-sweeper doctor --probe`"
            }
            Self::Denied(_) => "check the credentials and their policy (README.md, \"Least privilege\")",
            Self::NoSuchBucket => "check `scope.bucket` and `store.endpoint`",
            Self::Refused(_) => "run `orphan-sweeper doctor --probe` to see what this store supports",
            Self::ProofExpired => "check the load of this host and of the database",
        }
    }
}

/// Reads what the SDK says into a [`StoreError`]. Only codes and short messages are taken over: its debug text holds whole replies.
pub fn classify<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError {
    let fault = match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or_default();
            service_fault(status, code, message)
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            if status == 429 { StoreFault::Throttled("429".into()) } else { StoreFault::NoReply(innermost(error)) }
        }
        SdkError::TimeoutError(_) => StoreFault::NoReply("timed out".into()),
        SdkError::DispatchFailure(_) => StoreFault::NoReply(innermost(error)),
        SdkError::ConstructionFailure(_) => StoreFault::Refused(innermost(error)),
        other => StoreFault::NoReply(innermost(other)),
    };
    StoreError { operation, fault }
}

fn service_fault(status: u16, code: &str, message: &str) -> StoreFault {
    let said = match (code, message) {
        ("", "") => format!("status {status}"),
        (code, "") => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    if status == 429 || is_throttle(code) {
        return StoreFault::Throttled(said);
    }
    match code {
        "NoSuchBucket" => StoreFault::NoSuchBucket,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "RequestTimeTooSkewed" => StoreFault::Denied(said),
        _ if status >= 500 => StoreFault::ServerFault(said),
        _ if matches!(status, 401 | 403) => StoreFault::Denied(said),
        "InternalError" => StoreFault::ServerFault(said),
        // A 200 without anything to read in it.
        _ if status < 300 => StoreFault::NoReply(said),
        _ => StoreFault::Refused(said),
    }
}

/// Whether an error code asks to slow down.
pub fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "SlowDown"
            | "SlowDownRead"
            | "SlowDownWrite"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ServiceUnavailable"
            | "XMinioServerNotInitialized"
            | "ServerBusy"
    )
}

/// Whether a refusal is that of object lock. It has no code of its own: stores say `AccessDenied` or `InvalidRequest`, and
/// mean it by their message. A denial that says nothing of it is one of rights.
pub fn is_lock(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    code == "ObjectLocked"
        || matches!(code, "AccessDenied" | "InvalidRequest" | "MethodNotAllowed")
            && says(&["object lock", "worm", "retention", "legal hold", "legal-hold"])
}

/// The last, most telling message of an error's chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        last = deeper.to_string();
        source = deeper.source();
    }
    last
}

impl StoreError {
    /// An answer that breaks the protocol.
    pub fn malformed(operation: &'static str, what: impl Into<String>) -> Self {
        Self { operation, fault: StoreFault::Malformed(what.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_from_a_missing_right_by_what_the_store_says() {
        for (code, message) in [
            ("InvalidRequest", "Object is WORM protected and cannot be overwritten"),
            ("AccessDenied", "Access Denied because object protected by object lock."),
            ("AccessDenied", "The object is under retention until 2030"),
            ("AccessDenied", "legal hold is on"),
            ("ObjectLocked", ""),
        ] {
            assert!(is_lock(code, message), "{code}: {message}");
        }
        for (code, message) in [
            ("AccessDenied", "Access Denied."),
            ("AccessDenied", ""),
            ("InvalidRequest", "Missing required header"),
            ("InternalError", "retention"),
        ] {
            assert!(!is_lock(code, message), "{code}: {message}");
        }
    }
}
