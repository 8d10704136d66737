//! `[scope.quarantine]`: where objects are copied to before they are deleted, and how long the copies stay.
//!
//! Invariant: a quarantine lies outside every scope of its bucket, and no scope lies in it, so that a copy is never taken
//! for a dataset, neither live nor orphan.

use std::time::Duration;

use super::DAY;
use super::reader::{Placed, Problems, Reader};
use super::scope::{Claim, Disposal, Policy};

/// Where copies are kept. Source: `[scope.quarantine]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// The bucket; the scope's own where none is named.
    pub bucket: String,
    /// The prefix, ending in `/`; each run has a folder of its own below it.
    pub prefix: String,
    /// How long a copy stays.
    pub keep: Duration,
}

/// What a quarantine claims for itself.
#[derive(Debug)]
pub struct QuarantineClaim {
    /// Its bucket.
    bucket: String,
    /// Its prefix.
    prefix: Placed<String>,
    /// How long copies stay.
    keep: Placed<Duration>,
    /// Whether anything may ever lie there: it is written, or the policy copies objects aside.
    is_used: bool,
}

/// What was read of a quarantine.
pub(super) struct Read {
    /// The quarantine; `None` where something is wrong with it.
    pub(super) quarantine: Option<Quarantine>,
    /// What it claims.
    pub(super) claim: Option<QuarantineClaim>,
}

const PREFIX: &str = "a prefix outside every scope, such as \"quarantine/\"";
/// The default of `scope.quarantine.prefix`.
const DEFAULT_PREFIX: &str = "quarantine/";
/// The default of `scope.quarantine.keep`.
const DEFAULT_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the quarantine of a scope on `bucket`.
pub(super) fn read(reader: &mut Reader<'_>, bucket: Option<&Placed<String>>, problems: &Problems) -> Read {
    let is_written = reader.has("quarantine");
    let mut table = reader.table("quarantine");
    let named = table.text("bucket", "a bucket's name");
    let default = Placed { value: DEFAULT_PREFIX.to_owned(), place: table.place().clone(), key: table.key("prefix") };
    let prefix = table.text("prefix", PREFIX).unwrap_or(default);
    let keep = table.duration("keep", DEFAULT_KEEP);
    table.finish();
    if let Some(wrong) = wrong_prefix(&prefix.value) {
        problems.add(&prefix.place, &prefix.key, format!("`{}` {wrong}", prefix.value));
        return Read { quarantine: None, claim: None };
    }
    let bucket = named.map(|placed| placed.value).or_else(|| bucket.map(|bucket| bucket.value.clone()));
    let Some(bucket) = bucket else { return Read { quarantine: None, claim: None } };
    let quarantine = Quarantine { bucket: bucket.clone(), prefix: prefix.value.clone(), keep: keep.value };
    Read { quarantine: Some(quarantine), claim: Some(QuarantineClaim { bucket, prefix, keep, is_used: is_written }) }
}

/// What is wrong with a prefix, and what to write instead.
fn wrong_prefix(prefix: &str) -> Option<String> {
    if !prefix.ends_with('/') {
        return Some(format!("does not end in `/`; write \"{prefix}/\""));
    }
    // Stores refuse such names, or give the object another one.
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    let segments = prefix.strip_suffix('/').unwrap_or(prefix);
    segments.split('/').any(is_odd).then(|| format!("has an empty, `.` or `..` part; write {PREFIX}"))
}

impl QuarantineClaim {
    /// Takes in the policy of its scope.
    pub(super) fn take_policy(&mut self, policy: &Policy, problems: &Problems) {
        self.is_used |= policy.disposal == Disposal::Quarantine;
        if self.keep.value < DAY && !policy.unsafe_short_grace {
            let message = format!(
                "`{}` is below the floor of 24h; write how long copies stay, such as \"30d\", or set `unsafe_short_grace = true` in `[scope.policy]` where no data can be lost",
                humantime::format_duration(self.keep.value)
            );
            problems.add(&self.keep.place, &self.keep.key, message);
        }
    }
}

/// A quarantine may overlap no scope of its bucket.
pub(super) fn check(claim: &Claim, scopes: &[Claim], problems: &Problems) {
    let Some(QuarantineClaim { bucket, prefix, is_used: true, .. }) = &claim.quarantine else { return };
    for scope in scopes {
        let (Some(scope_bucket), Some(scope_prefix)) = (&scope.bucket, &scope.prefix) else { continue };
        let overlaps = prefix.value.starts_with(&scope_prefix.value) || scope_prefix.value.starts_with(&prefix.value);
        if scope_bucket.value == *bucket && overlaps {
            let whose = scope.name.as_ref().map_or("a scope".into(), |name| format!("scope `{}`", name.value));
            let message = format!(
                "`{}` overlaps the prefix `{}` of {whose} in bucket `{bucket}`; write {PREFIX}",
                prefix.value, scope_prefix.value
            );
            problems.add(&prefix.place, &prefix.key, message);
        }
    }
}
