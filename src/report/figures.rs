//! Figures of a run beside its totals: how long each stage took, why each orphan stays, why each key was kept.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OrphanRecord;
use crate::decide::{KeepReason, Verdict};

/// A stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The bucket is listed.
    List,
    /// The live ids are read and compared.
    References,
    /// Every orphan is opened and judged.
    Decide,
    /// The plan is made, or chosen from.
    Plan,
    /// Objects are deleted, moved aside or brought back.
    Dispose,
    /// The report is written.
    Report,
}

impl Stage {
    /// The word in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::References => "references",
            Self::Decide => "decide",
            Self::Plan => "plan",
            Self::Dispose => "dispose",
            Self::Report => "report",
        }
    }
}

/// How long a run spent in a stage, over all the times that it came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// Adds time that was spent in a stage.
pub fn add_stage(stages: &mut Vec<StageTime>, stage: Stage, took: Duration) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match stages.iter_mut().find(|time| time.stage == stage) {
        Some(time) => time.duration_ms = time.duration_ms.saturating_add(duration_ms),
        None => stages.push(StageTime { stage, duration_ms }),
    }
}

/// The orphan groups that were opened and share a verdict and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictCount {
    /// `eligible` or `keep`.
    pub verdict: String,
    /// The reason in `orphans.csv`.
    pub reason: String,
    /// Groups.
    pub groups: u64,
    /// Their objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts `orphans` by verdict and reason; what there is none of is left out.
pub fn count_verdicts(orphans: &[OrphanRecord]) -> Vec<VerdictCount> {
    let count = |verdict: Verdict| {
        let mut counted = VerdictCount {
            verdict: verdict.as_str().to_owned(),
            reason: verdict.reason().to_owned(),
            groups: 0,
            objects: 0,
            bytes: 0,
        };
        for orphan in orphans.iter().filter(|orphan| orphan.verdict == verdict) {
            counted.groups += 1;
            counted.objects += orphan.objects;
            counted.bytes = counted.bytes.saturating_add(orphan.bytes);
        }
        counted
    };
    let verdicts = std::iter::once(Verdict::Eligible).chain(KeepReason::ALL.map(Verdict::Keep));
    verdicts.map(count).filter(|counted| counted.groups > 0).collect()
}

/// Keys of a plan that were kept after all for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipCount {
    /// The reason in `deletions.csv`; `in_parts` where it stands in parts of it alone.
    pub reason: String,
    /// Objects.
    pub objects: u64,
}

/// The reason of keys that were told in parts of `deletions.csv` and are in the journal no more.
pub const IN_PARTS: &str = "in_parts";

/// The kept keys by reason, which add up to `skipped`.
pub fn count_skips(by_reason: Vec<(String, u64)>, skipped: u64) -> Vec<SkipCount> {
    let known: u64 = by_reason.iter().map(|(_, objects)| objects).sum();
    let rest = (IN_PARTS.to_owned(), skipped.saturating_sub(known));
    let all = by_reason.into_iter().chain([rest]).filter(|(_, objects)| *objects > 0);
    all.map(|(reason, objects)| SkipCount { reason, objects }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_is_entered_twice_is_told_once_with_the_sum() {
        let mut stages = Vec::new();
        add_stage(&mut stages, Stage::List, Duration::from_millis(20));
        add_stage(&mut stages, Stage::Decide, Duration::from_millis(5));
        add_stage(&mut stages, Stage::List, Duration::from_micros(22_900));
        assert_eq!(stages[0], StageTime { stage: Stage::List, duration_ms: 42 });
        assert_eq!(stages[1], StageTime { stage: Stage::Decide, duration_ms: 5 });
        assert_eq!(stages.len(), 2);
    }

    #[test]
    fn kept_keys_add_up_also_where_their_reasons_left_the_journal() {
        let one = |reason: &str, objects| SkipCount { reason: reason.into(), objects };
        assert_eq!(count_skips(vec![("held".into(), 3)], 3), [one("held", 3)]);
        assert_eq!(count_skips(vec![("held".into(), 3)], 10), [one("held", 3), one(IN_PARTS, 7)]);
        assert!(count_skips(Vec::new(), 0).is_empty());
    }
}
