//! The metrics: every name with its unit, its labels and its meaning, and the calls that count what happens.
//!
//! Takes what other rooms saw; gives it to the recorder that `serve` installed, and to nobody elsewhere. Invariant: each label
//! has a closed list of values, or one that the configuration closes, so that neither a key nor a server's words can make
//! the memory grow.

use metrics::{Unit, counter, describe_counter, describe_gauge};

use crate::s3::StoreFault;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit, where it has one.
    pub unit: Option<Unit>,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal $unit:expr, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = concat!("orphan_sweeper_", $name);
        )+
        /// Every metric, in the order of the documentation.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $constant, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help }),+
        ];
    };
}

metrics! {
    BUILD_INFO: Gauge "build_info" None, ["version"], "Always 1; the label has the version of the program.";
    GROUPS: Gauge "groups" None, ["scope", "state"],
        "Dataset prefixes of the last complete scan that are `live`, `orphan` or `empty`.";
    ORPHAN_GROUPS: Gauge "orphan_groups" None, ["scope", "verdict", "reason"],
        "Orphan groups of the last complete scan by their verdict and its reason.";
    ORPHAN_OBJECTS: Gauge "orphan_objects" None, ["scope"], "Objects under orphans at the last complete scan.";
    ORPHAN_BYTES: Gauge "orphan_bytes" Some(Unit::Bytes), ["scope"], "Bytes under orphans at the last complete scan.";
    ELIGIBLE_OBJECTS: Gauge "eligible_objects" None, ["scope"],
        "Objects under orphans that every rule lets go, at the last complete scan.";
    ELIGIBLE_BYTES: Gauge "eligible_bytes" Some(Unit::Bytes), ["scope"],
        "Bytes under orphans that every rule lets go, at the last complete scan.";
    FOREIGN_KEYS: Gauge "foreign_keys" None, ["scope"],
        "Keys and prefixes that no pattern reads, at the last complete scan.";
    MISSING_DATASETS: Gauge "missing_datasets" None, ["scope"],
        "Rows that should have objects and have none, at the last complete scan.";
    LEAK_BYTES_PER_DAY: Gauge "leak_bytes_per_day" Some(Unit::Bytes), ["scope"],
        "Growth of the bytes under orphans a day, without what we deleted; NaN where nothing was compared.";
    DAYS_TO_FULL: Gauge "days_to_full" None, ["scope"],
        "Days in which the leak alone fills the store at most; NaN without a capacity or without growth.";
    BREAKER_TRIPPED: Gauge "breaker_tripped" None, ["scope", "breaker", "kind"],
        "Whether the last run that judged the breaker tripped it.";
    BREAKER_LATCHED: Gauge "breaker_latched" None, ["scope", "breaker", "kind"],
        "Whether the breaker waits for a person's acknowledgement.";
    LAST_RUN: Gauge "last_run_timestamp_seconds" Some(Unit::Seconds), ["scope"], "When the last run ended.";
    LAST_RUN_OUTCOME: Gauge "last_run_outcome" None, ["scope", "outcome"], "1 for what became of the last run, else 0.";
    LAST_SUCCESS: Gauge "last_success_timestamp_seconds" Some(Unit::Seconds), ["scope"],
        "When the last complete run ended.";
    SUCCESS_DUE: Gauge "success_due_timestamp_seconds" Some(Unit::Seconds), ["scope"],
        "Until when a run must have succeeded: one interval of the schedule plus two hours after the last success or the first start.";
    NEXT_RUN: Gauge "next_run_timestamp_seconds" Some(Unit::Seconds), ["scope"], "When the schedule runs the scope next.";
    STAGE_DURATION: Gauge "stage_duration_seconds" Some(Unit::Seconds), ["scope", "stage"],
        "How long a stage took when a run last came to it.";
    LAST_DELETION_OBJECTS: Gauge "last_deletion_objects" None, ["scope", "outcome"],
        "What became of the objects that the last deleting run asked for.";
    RUNS: Counter "runs_total" None, ["scope", "command", "outcome"], "Runs that ended, whichever process ran them.";
    DELETION_OBJECTS: Counter "deletion_objects_total" None, ["scope", "outcome"],
        "Objects that were asked for, by what became of them.";
    DELETION_BYTES: Counter "deletion_bytes_total" Some(Unit::Bytes), ["scope", "how"],
        "Bytes `freed`, `marked` on a versioned bucket, or `quarantined`.";
    SKIPPED_OBJECTS: Counter "skipped_objects_total" None, ["scope", "reason"],
        "Objects of a plan that were kept after all, by the reason.";
    REQUESTS: Counter "requests_total" None, ["operation", "code"],
        "Requests to the store by S3 operation and HTTP status; `none`: no reply.";
    REQUEST_RETRIES: Counter "request_retries_total" None, ["operation", "fault"],
        "Requests to the store that were tried again, by what was wrong with the attempt before.";
    PURGES: Counter "purges_total" None, ["kind", "outcome"],
        "Delete operations of the platform by `dataset` or `job` and by what became of them.";
    PENDING_PURGES: Gauge "pending_purges" None, ["scope"],
        "Purges whose rows are gone, or may be, and whose objects are not all asked for yet.";
    NOTIFICATIONS: Counter "notifications_total" None, ["channel", "outcome"],
        "Calls of the `webhook` and the `heartbeat`: `delivered` or `failed`.";
    LEDGER_SIZE: Gauge "ledger_size_bytes" Some(Unit::Bytes), [], "Bytes that the ledger takes on its disk.";
    LEDGER_READ: Gauge "ledger_read_timestamp_seconds" Some(Unit::Seconds), [],
        "When these numbers were last read from the ledger.";
}

/// What became of a delete operation of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeOutcome {
    /// The rows and every object are gone.
    Removed,
    /// The rows are gone; what is left of the objects is an orphan for the next sweep.
    ObjectsLeft,
    /// It was refused, and nothing was changed: absent, held, in use, stopped, latched.
    Refused,
    /// It failed before any row was changed.
    Failed,
}

impl PurgeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Removed, Self::ObjectsLeft, Self::Refused, Self::Failed];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::ObjectsLeft => "objects_left",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What a delete operation of the platform was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeKind {
    /// One dataset.
    Dataset,
    /// A job, with or without its datasets.
    Job,
}

impl PurgeKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dataset, Self::Job];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Job => "job",
        }
    }
}

/// Whom a notification goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// `notify.url`.
    Webhook,
    /// `notify.heartbeat_url`.
    Heartbeat,
}

impl Channel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Webhook, Self::Heartbeat];

    /// The word in the metrics and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// Tells the recorder what each metric means, and that what happens rarely has not happened yet: a series that appears with
/// its first event has no increase that an alert could see.
pub fn describe() {
    for metric in ALL {
        let unit = metric.unit.unwrap_or(Unit::Count);
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, unit, metric.help),
        }
    }
    for kind in PurgeKind::ALL {
        for outcome in PurgeOutcome::ALL {
            counter!(PURGES, "kind" => kind.as_str(), "outcome" => outcome.as_str()).absolute(0);
        }
    }
    for channel in Channel::ALL {
        for outcome in ["delivered", "failed"] {
            counter!(NOTIFICATIONS, "channel" => channel.as_str(), "outcome" => outcome).absolute(0);
        }
    }
    counter!(REQUEST_RETRIES, "operation" => "ListObjectsV2", "fault" => "throttled").absolute(0);
}

/// Counts one request to the store; `status` is that of its reply, if it got one.
pub fn request_ended(operation: &str, status: Option<u16>) {
    counter!(REQUESTS, "operation" => known_operation(operation), "code" => code(status)).increment(1);
}

/// Counts one request to the store that is tried again because of `fault`.
pub fn request_retried(operation: &str, fault: &StoreFault) {
    let fault = match fault {
        StoreFault::Throttled(_) => "throttled",
        StoreFault::NoReply(_) => "no_reply",
        StoreFault::ServerFault(_) => "server_fault",
        StoreFault::Malformed(_) => "malformed",
        StoreFault::Denied(_) => "denied",
        StoreFault::NoSuchBucket => "no_such_bucket",
        StoreFault::Refused(_) => "refused",
        StoreFault::ProofExpired => "proof_expired",
    };
    counter!(REQUEST_RETRIES, "operation" => known_operation(operation), "fault" => fault).increment(1);
}

/// Whether the table above says that `name` has exactly these labels.
pub fn has_labels(name: &str, labels: impl Iterator<Item = &'static str>) -> bool {
    ALL.iter().find(|metric| metric.name == name).is_some_and(|metric| labels.eq(metric.labels.iter().copied()))
}

/// Counts one delete operation of the platform.
pub fn purge_ended(kind: PurgeKind, outcome: PurgeOutcome) {
    counter!(PURGES, "kind" => kind.as_str(), "outcome" => outcome.as_str()).increment(1);
}

/// Counts one call of a webhook or a heartbeat.
pub fn notified(channel: Channel, is_delivered: bool) {
    let outcome = if is_delivered { "delivered" } else { "failed" };
    counter!(NOTIFICATIONS, "channel" => channel.as_str(), "outcome" => outcome).increment(1);
}

/// The operations that this program sends, and one word for any other.
fn known_operation(operation: &str) -> &'static str {
    const KNOWN: [&str; 18] = [
        "ListObjectsV2",
        "ListObjectVersions",
        "ListMultipartUploads",
        "ListParts",
        "GetBucketVersioning",
        "GetBucketLocation",
        "GetObject",
        "GetObjectTagging",
        "HeadObject",
        "HeadBucket",
        "PutObject",
        "CopyObject",
        "UploadPartCopy",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "DeleteObject",
        "DeleteObjects",
    ];
    KNOWN.into_iter().find(|known| *known == operation).unwrap_or("other")
}

/// The status of a reply as a label: those that stores use each by itself, the others by their class.
fn code(status: Option<u16>) -> &'static str {
    const KNOWN: [(u16, &str); 16] = [
        (200, "200"),
        (204, "204"),
        (206, "206"),
        (304, "304"),
        (400, "400"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (409, "409"),
        (412, "412"),
        (416, "416"),
        (429, "429"),
        (500, "500"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
    ];
    let Some(status) = status else { return "none" };
    let by_class = match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "other",
    };
    KNOWN.into_iter().find(|(known, _)| *known == status).map_or(by_class, |(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_say_what_it_likes_and_makes_no_new_label() {
        let codes: std::collections::BTreeSet<&str> = (0..=u16::MAX).map(|status| code(Some(status))).collect();
        assert!(codes.len() <= 21, "{codes:?}");
        assert_eq!(code(Some(503)), "503");
        assert_eq!(code(Some(418)), "4xx");
        assert_eq!(code(None), "none");
        assert_eq!(known_operation("DeleteObjects"), "DeleteObjects");
        assert_eq!(known_operation("an operation of tomorrow"), "other");
    }

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            match metric.unit {
                Some(Unit::Bytes) => assert!(metric.name.contains("bytes"), "{}", metric.name),
                Some(Unit::Seconds) => assert!(metric.name.ends_with("_seconds"), "{}", metric.name),
                _ => {}
            }
        }
    }

    #[test]
    fn the_documentation_has_every_metric_with_its_labels_and_its_meaning() {
        let documented = include_str!("../deploy/README.md");
        for Metric { name, kind, labels, help, .. } in ALL {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let row = format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "));
            assert!(documented.lines().any(|line| line == row), "deploy/README.md lacks: {row}");
        }
        assert_eq!(documented.matches("| `orphan_sweeper_").count(), ALL.len(), "and no other");
    }
}
