//! Reports for the tests of page and summary.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::decide::breakers::{Breaker, Reading};
use crate::decide::holds::HoldSource;
use crate::decide::{KeepReason, Verdict};
use crate::model::{DatasetId, Group, Timestamp, Versioning};
use crate::parse::Pattern;
use crate::report::leaks::{LeakCounts, UploadCounts, VersionCounts};
use crate::report::{
    Coverage, Deletion, GroupCounts, HeldId, HoldsReport, LedgerInfo, OrphanRecord, Outcome, Report, Summary, Target,
    Trend,
};

/// A time, as written.
pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The run's time in every sample.
pub(crate) fn as_of() -> Timestamp {
    time("2025-11-23T03:00:00Z")
}

/// The two patterns of the platform.
pub(crate) fn patterns() -> Vec<Pattern> {
    let compile = |template| Pattern::compile(template, "synthetic/").expect("a pattern");
    vec![compile("synthetic/{id}/"), compile("synthetic/dataset-{id}/")]
}

/// A reading.
pub(crate) fn reading(name: Breaker, tripped: bool, observed: Value, allowed: Value, message: &str) -> Reading {
    let latched = tripped && name.latches();
    Reading { name, kind: name.kind(), tripped, latched, observed, allowed, message: message.to_owned() }
}

/// Every breaker, none of them tripped.
pub(crate) fn calm_breakers() -> Vec<Reading> {
    vec![
        reading(
            Breaker::NoReferences,
            false,
            json!(985),
            json!(1),
            "every live table has rows, or there is nothing to lose, or its emptiness was acknowledged",
        ),
        reading(
            Breaker::NoOverlap,
            false,
            json!(1.0),
            json!(0.5),
            "of 900 rows older than the grace period that expect objects, 900 have some in this bucket",
        ),
        reading(
            Breaker::LiveDrop,
            false,
            json!(0.0),
            json!(0.05),
            "heimdall.synthetic_datasets had 984 rows and has 985",
        ),
        reading(
            Breaker::ClockSkew,
            false,
            json!(1),
            json!(300),
            "the clocks of this host, the store and the database lie 1 s apart",
        ),
        reading(
            Breaker::DatabaseIdentity,
            false,
            json!({"system": "7412345678901234567", "timeline": "1", "database": "heimdall", "tables": [{"name": "heimdall.synthetic_datasets", "oid": 16385}]}),
            json!({"system": "7412345678901234567", "timeline": "1", "database": "heimdall", "tables": [{"name": "heimdall.synthetic_datasets", "oid": 16385}]}),
            "it is the same database",
        ),
        reading(
            Breaker::TargetChanged,
            false,
            json!({"endpoint": "http://127.0.0.1:9000/", "bucket": "heimdall-synthetic-iq", "prefix": "synthetic/", "patterns": ["synthetic/{id}/", "synthetic/dataset-{id}/"]}),
            Value::Null,
            "the first scan sets what is expected",
        ),
        reading(Breaker::Incomplete, false, json!(0), json!(0), "everything was read"),
        reading(
            Breaker::OpenTransaction,
            false,
            json!(0),
            json!(302_400),
            "no transaction holds rows that nobody sees yet",
        ),
        reading(Breaker::OrphanShare, false, json!(0.006), json!(0.1), "6 of 1,013 listed groups would go"),
        reading(Breaker::OrphanGroups, false, json!(6), json!(10_000), "6 groups would go, 10,000 may"),
        reading(Breaker::Objects, false, json!(1200), json!(1_000_000), "1,200 objects would go, 1,000,000 may"),
        reading(
            Breaker::Bytes,
            false,
            json!(1_288_490_188_u64),
            json!(1_099_511_627_776_u64),
            "1.2 GiB of objects would go, 1.0 TiB may",
        ),
        reading(
            Breaker::ForeignShare,
            false,
            json!(0.002),
            json!(0.1),
            "2 of 1,015 listed keys and prefixes belong to no dataset",
        ),
    ]
}

/// Holds that protect orphans, one for each reason, and one that protects nothing.
pub(crate) fn held(reasons: &[&str]) -> HoldsReport {
    let hold = |(index, reason): (usize, &&str)| HeldId {
        id: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + index as u128),
        until: Some(time("2026-01-31T00:00:00Z")),
        by: Some("ada".into()),
        reason: (*reason).to_owned(),
        source: HoldSource::File,
    };
    HoldsReport { total: reasons.len() as u64 + 1, protecting: reasons.iter().enumerate().map(hold).collect() }
}

/// Replaces the reading of the same name.
pub(crate) fn with_reading(summary: &mut Summary, reading: Reading) {
    summary.breakers.retain(|other| other.name != reading.name);
    summary.breakers.push(reading);
}

/// Orphans of all ages, sizes and verdicts.
pub(crate) fn orphans(count: u64) -> Vec<OrphanRecord> {
    (0..count).map(orphan).collect()
}

fn orphan(index: u64) -> OrphanRecord {
    let id = DatasetId(Uuid::from_u64_pair(0x0197_0000_0000_7000 + index, 0x8000_0000_0000_0000 + index));
    let ages_s = [3600, 90_000, 800_000, 3_000_000, 9_000_000, 40_000_000, 70_000_000];
    let age = ages_s[usize::try_from(index % 7).expect("small")];
    let verdict = match index % 9 {
        0 | 3 | 6 => Verdict::Eligible,
        1 | 2 => Verdict::Keep(KeepReason::WithinGrace),
        4 => Verdict::Keep(KeepReason::TooFewSightings),
        5 => Verdict::Keep(KeepReason::SightingSpanTooShort),
        7 => Verdict::Keep(KeepReason::ChangedSinceSeen),
        _ => Verdict::Keep(KeepReason::NewerThanScan),
    };
    let newest = as_of() - Duration::from_secs(age);
    OrphanRecord {
        group: Group { id, pattern: u8::try_from(index % 2).expect("small"), odd_spelling: None },
        objects: 10 + index * 37 % 4000,
        bytes: (index + 1) * 7_340_033 % 90_000_000_000,
        oldest: Some(newest - Duration::from_secs(5000)),
        newest: Some(newest).filter(|_| index % 9 != 8),
        first_seen: as_of() - Duration::from_hours(9 * 24),
        sightings: 4,
        verdict,
    }
}

/// An orphan whose prefix is spelled `prefix`.
pub(crate) fn oddly_spelled(prefix: &str) -> OrphanRecord {
    let mut odd = orphan(1);
    odd.group.odd_spelling = Some(prefix.into());
    odd.verdict = Verdict::Keep(KeepReason::NotCanonical);
    odd
}

/// A complete audit over `orphans`.
pub(crate) fn audit(orphans: &[OrphanRecord]) -> Summary {
    let eligible = || orphans.iter().filter(|orphan| orphan.verdict == Verdict::Eligible);
    let in_grace = orphans.iter().filter(|orphan| orphan.verdict == Verdict::Keep(KeepReason::WithinGrace)).count();
    let count = orphans.len() as u64;
    Summary {
        schema_version: 1,
        tool_version: "0.1.0".into(),
        run_id: "019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4".parse().expect("an id"),
        scope: "synthetic".into(),
        command: "audit".into(),
        dry_run: true,
        outcome: Outcome::Complete,
        reason: None,
        started_at: time("2025-11-23T03:00:01Z"),
        finished_at: time("2025-11-23T03:00:42Z"),
        as_of: Some(as_of()),
        target: Target {
            endpoint: "http://127.0.0.1:9000/".into(),
            bucket: "heimdall-synthetic-iq".into(),
            prefix: "synthetic/".into(),
            versioning: Versioning::Unversioned,
            database: "postgres://db.internal:5432/heimdall".into(),
        },
        ledger: LedgerInfo {
            id: "019a0000-0000-7000-8000-000000000001".parse().expect("an id"),
            created_at: time("2025-10-01T12:00:00Z"),
            runs: 54,
        },
        report_dir: "reports/synthetic/019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4".into(),
        backfill: None,
        plan_hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
        groups: GroupCounts {
            listed: 985 + count + 3,
            live: 985,
            orphan: count,
            eligible: eligible().count() as u64,
            in_grace: in_grace as u64,
            empty: 3,
            foreign: 2,
        },
        missing: 1,
        orphan_objects: orphans.iter().map(|orphan| orphan.objects).sum(),
        orphan_bytes: orphans.iter().map(|orphan| orphan.bytes).sum(),
        eligible_objects: eligible().map(|orphan| orphan.objects).sum(),
        eligible_bytes: eligible().map(|orphan| orphan.bytes).sum(),
        next_eligible_at: Some(time("2025-11-30T03:00:00Z")).filter(|_| count > 0),
        holds: HoldsReport::default(),
        breakers: calm_breakers(),
        coverage: Coverage {
            complete: true,
            list_requests: 2 + count,
            references: 985,
            errors: Vec::new(),
            unknown: Vec::new(),
        },
        deletion: None,
        steps: None,
        retention: None,
        uploads: UploadCounts::default(),
        versions: VersionCounts::default(),
        leaks: LeakCounts::default(),
        trend: Some(Trend {
            since_run: "019aaa0b-0000-7000-8000-00000000beef".parse().expect("an id"),
            new: 3,
            persisting: count.saturating_sub(3),
            resolved: 1,
            bytes_per_day: Some(1_288_490_188.0),
            days_to_full: Some(120.4),
        }),
        quarantine: None,
        reaped: None,
        restore: None,
        purge: None,
        journal: None,
        stages: Vec::new(),
        verdicts: Vec::new(),
        skips: Vec::new(),
        notice: None,
    }
}

/// An `apply` that deleted what it could.
pub(crate) fn applied(orphans: &[OrphanRecord]) -> Summary {
    let deletion = Deletion {
        requested: 1200,
        deleted: 1150,
        already_gone: 20,
        skipped: 10,
        failed: 15,
        unconfirmed: 5,
        bytes_deleted: 1_234_567_890,
        bytes_marked: 0,
        bytes_quarantined: 0,
    };
    Summary { command: "apply".into(), dry_run: false, deletion: Some(deletion), ..audit(orphans) }
}

/// A dry run of an `apply` whose plan names `orphans` among twenty.
pub(crate) fn rehearsed(orphans: &[OrphanRecord]) -> Summary {
    let mut summary = Summary { command: "apply".into(), trend: None, next_eligible_at: None, ..audit(orphans) };
    summary.groups.orphan = 20;
    summary.groups.empty = 0;
    summary
}

/// A run that ended at the database, before anything was listed.
pub(crate) fn failed() -> Summary {
    let reason = "the live ids could not be read: connection refused (os error 111)";
    let not_judged = Breaker::ALL.map(|name| Reading::not_judged(name, "the run ended before it could be"));
    let mut summary = Summary {
        outcome: Outcome::Failed,
        reason: Some(reason.into()),
        as_of: None,
        plan_hash: None,
        groups: GroupCounts::default(),
        missing: 0,
        breakers: not_judged.to_vec(),
        coverage: Coverage {
            complete: false,
            list_requests: 0,
            references: 0,
            errors: vec![reason.into()],
            unknown: Vec::new(),
        },
        trend: None,
        journal: None,
        next_eligible_at: None,
        ..audit(&[])
    };
    let message = format!("not everything could be read, so nothing is deleted and nothing counts as seen: {reason}");
    with_reading(&mut summary, reading(Breaker::Incomplete, true, json!(1), json!(0), &message));
    summary
}

/// The report of a sample.
pub(crate) fn report<'r>(summary: &'r Summary, orphans: &'r [OrphanRecord], patterns: &'r [Pattern]) -> Report<'r> {
    Report { summary, orphans, patterns, next_command: Some("orphan-sweeper apply reports/synthetic/latest/plan.json") }
}
