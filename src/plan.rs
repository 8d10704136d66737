//! plan: the immutable, hashed list of what may go, with the evidence for each group. Pure.
//!
//! Takes eligible groups; gives bytes, and from bytes a [`VerifiedPlan`]. Invariant: the hash covers every field, so a
//! plan that was edited is another plan, which no ledger issued.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{Disposal, Scope};
use crate::decide::breakers::TargetFingerprint;
use crate::model::{DatabaseIdentity, DatasetId, RunId, Sha256Hash, Timestamp};

/// The version of the format.
pub const PLAN_VERSION: u32 = 1;

/// What `plan.json` holds: the plan and its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// SHA-256 over the compact JSON of `plan`, 64 lowercase hexadecimal digits.
    #[schemars(with = "String")]
    pub sha256: Sha256Hash,
    /// The plan itself.
    pub plan: DeletePlan,
}

/// What may go, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeletePlan {
    /// Version of this format.
    pub plan_version: u32,
    /// The scope.
    pub scope: String,
    /// The run that made it.
    #[schemars(with = "Uuid")]
    pub run_id: RunId,
    /// The run's time.
    pub created_at: Timestamp,
    /// When it can no longer be applied.
    pub expires_at: Timestamp,
    /// The ledger that issued it: only that one accepts it.
    pub ledger: PlanLedger,
    /// What it is about.
    pub target: PlanTarget,
    /// The policy that it was made by.
    pub policy: PlanPolicy,
    /// The backfill that it belongs to; absent where every rule counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// How much may go.
    pub totals: PlanTotals,
    /// What may go.
    pub groups: Vec<PlanGroup>,
}

/// Where a plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanLedger {
    /// The ledger's id.
    pub id: Uuid,
    /// Its path on the host that made the plan.
    pub path: String,
}

/// What a plan is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanTarget {
    /// The store's address.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
    /// The templates.
    pub patterns: Vec<String>,
    /// Which database said what is live.
    #[schemars(with = "serde_json::Value")]
    pub database: DatabaseIdentity,
}

/// The policy that a plan was made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanPolicy {
    /// Grace in seconds.
    pub grace_s: u64,
    /// Least sightings.
    pub min_sightings: u32,
    /// Least span of the sightings in seconds.
    pub min_sighting_span_s: u64,
    /// How objects leave, where they are not simply deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disposal: Option<PlanDisposal>,
}

/// How objects leave, where they are not simply deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanDisposal {
    /// They are copied aside first.
    Quarantine,
}

/// A backfill: the time since the first sighting was waived, for groups whose every object is older than its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// Every object of a group that goes was written before this.
    pub created_before: Timestamp,
}

/// How much a plan lets go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanTotals {
    /// Groups.
    pub groups: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One group that may go, and the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanGroup {
    /// The dataset's id.
    #[schemars(with = "Uuid")]
    pub id: DatasetId,
    /// The template that reads the prefix.
    pub pattern: String,
    /// The prefix.
    pub prefix: String,
    /// Its objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest `LastModified`.
    pub oldest: Option<Timestamp>,
    /// The newest `LastModified`.
    pub newest: Option<Timestamp>,
    /// Digest over key, size, `ETag` and `LastModified` of every object.
    #[schemars(with = "String")]
    pub digest: Sha256Hash,
    /// When it was first seen as an orphan.
    pub first_seen: Timestamp,
    /// The scan that saw it first.
    #[schemars(with = "Uuid")]
    pub first_run: RunId,
    /// How many scans saw it.
    pub sightings: u32,
}

impl PlanTarget {
    /// The target of a scope whose rows `database` holds.
    pub fn new(target: &TargetFingerprint, database: &DatabaseIdentity) -> Self {
        Self {
            endpoint: target.endpoint.clone(),
            bucket: target.bucket.clone(),
            prefix: target.prefix.clone(),
            patterns: target.patterns.clone(),
            database: database.clone(),
        }
    }

    /// The part that the configuration decides.
    pub fn fingerprint(&self) -> TargetFingerprint {
        TargetFingerprint {
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            patterns: self.patterns.clone(),
        }
    }
}

impl PlanPolicy {
    /// The policy of `scope`.
    pub fn of(scope: &Scope) -> Self {
        Self {
            grace_s: scope.policy.grace.0.as_secs(),
            min_sightings: scope.policy.min_sightings,
            min_sighting_span_s: scope.policy.min_sighting_span.as_secs(),
            disposal: match scope.policy.disposal {
                Disposal::Delete => None,
                Disposal::Quarantine => Some(PlanDisposal::Quarantine),
            },
        }
    }
}

/// Why a plan is refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not a plan at all.
    #[error("it cannot be read as a plan: {0}")]
    Unreadable(serde_json::Error),
    /// Of another version.
    #[error("it is a plan of version {0}; this program reads version {PLAN_VERSION}")]
    Version(u32),
    /// Edited after it was hashed.
    #[error("its hash does not match its content: it was edited")]
    Edited,
}

impl DeletePlan {
    /// The hash over every field.
    pub fn hash(&self) -> Sha256Hash {
        Sha256Hash::of(&serde_json::to_vec(self).expect("a plan has only serializable fields"))
    }

    /// The bytes of `plan.json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Borrowed<'p> {
            sha256: Sha256Hash,
            plan: &'p DeletePlan,
        }
        let mut bytes = serde_json::to_vec_pretty(&Borrowed { sha256: self.hash(), plan: self })
            .expect("a plan has only serializable fields");
        bytes.push(b'\n');
        bytes
    }
}

/// A plan whose content matches its hash. Whether its ledger issued it is asked next.
#[derive(Debug, Clone)]
pub struct VerifiedPlan {
    /// Its hash.
    pub hash: Sha256Hash,
    /// The plan.
    pub plan: DeletePlan,
}

/// Reads the bytes of `plan.json`.
///
/// - Errors: [`PlanError`].
pub fn verify(bytes: &[u8]) -> Result<VerifiedPlan, PlanError> {
    #[derive(Deserialize)]
    struct Versioned {
        plan: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        plan_version: u32,
    }
    let Versioned { plan: Version { plan_version } } = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
    if plan_version != PLAN_VERSION {
        return Err(PlanError::Version(plan_version));
    }
    let PlanFile { sha256, plan } = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
    if plan.hash() != sha256 {
        return Err(PlanError::Edited);
    }
    Ok(VerifiedPlan { hash: sha256, plan })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
