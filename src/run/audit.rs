//! audit: list, compare, decide, plan, report. It is handed the reading part only, so it cannot delete.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};

use super::scan::{Scan, scan};
use super::versions::{VersionCounter, note_versions};
use super::{Reading, RunFailure, Session, holds, trend};
use crate::config::Approval;
use crate::decide::breakers::{Allowances, Baseline, Kind, Listed, Reading as BreakerReading, WouldGo, judge_size};
use crate::decide::holds::{eligible_under, verdict_under};
use crate::decide::sightings::{Sighting, sight};
use crate::decide::{
    KeepReason, Orphan, Uploading, Verdict, Waiver, decide_with, eligible_at_with, unless_refused, unless_uploading,
    verdict_of_group,
};
use crate::exit::Exit;
use crate::list::content;
use crate::list::versions::Beneath;
use crate::model::{DatasetId, Group, GroupContent, Timestamp};
use crate::parse::prefix_of;
use crate::plan::{
    Backfill, DeletePlan, PLAN_VERSION, PlanGroup, PlanLedger, PlanPolicy, PlanTarget, PlanTotals, VerifiedPlan,
};
use crate::record::{Looked, ScanDelta};
use crate::report::figures::Stage;
use crate::report::{OrphanRecord, Outcome};

/// Orphans that are opened at the same time.
const OPEN_AT_ONCE: usize = 8;

/// What opening every orphan brought.
struct Judged {
    sightings: Vec<(DatasetId, Sighting)>,
    eligible: Vec<PlanGroup>,
}

/// What an audit found.
pub struct Audited {
    /// The plan, where the scan was good.
    pub plan: Option<VerifiedPlan>,
    /// The complete scan.
    pub scan: Scan,
}

/// Audits the scope of `session`.
///
/// - Errors: [`RunFailure`].
pub async fn audit(session: &mut Session<'_>, reading: &Reading) -> Result<Audited, RunFailure> {
    let scan = scan(session, reading).await?;
    session.enter(Stage::Decide);
    let judged = match judge_orphans(session, reading, &scan).await {
        Ok(judged) => judged,
        // What was opened so far is shown, and called partial.
        Err(RunFailure::Store(error)) => {
            session.check_stop()?;
            session.draft.breakers = scan.judge(session, &[error.to_string()]).await?;
            return Err(RunFailure::Store(error));
        }
        Err(failure) => return Err(failure),
    };
    session.check_stop()?;
    session.draft.coverage.complete = true;
    session.draft.breakers = scan.judge(session, &[]).await?;
    session.draft.breakers.extend(size_readings(session, &scan, &judged.eligible));
    let evidence = session.refusing(Some(Kind::Evidence));
    let is_good = !evidence.iter().any(|reading| reading.tripped);
    let refusal = (!evidence.is_empty()).then(|| describe(&evidence));
    if is_good {
        crate::failpoint::reach("before_sightings");
        let delta = take_in(session, &scan, &judged).await?;
        session.draft.trend = trend::since_last_run(session, delta).await?;
    }
    if let Some(reason) = refusal {
        session.draft.outcome = Outcome::Refused;
        session.draft.reason = Some(reason);
        session.exit = Exit::Refused;
        session.next_command = session.next_acknowledgement();
        return Ok(Audited { plan: None, scan });
    }
    let plan = make_plan(session, &scan, judged.eligible).await?;
    Ok(Audited { plan: Some(plan), scan })
}

/// One line on why evidence refuses.
pub(super) fn describe(refusing: &[&BreakerReading]) -> String {
    refusing
        .iter()
        .map(|reading| format!("{}: {}", reading.name.as_str(), reading.message))
        .collect::<Vec<_>>()
        .join("; ")
}

/// Takes a good scan into the ledger.
async fn take_in(session: &Session<'_>, scan: &Scan, judged: &Judged) -> Result<ScanDelta, RunFailure> {
    let (ledger, scope) = (&session.services.ledger, &session.scope.name);
    let before = ledger.baseline(scope).await?;
    let baseline = Baseline::after_good_scan(before, scan.observation.clone());
    let looked = Looked { run: session.run, alone: scan.alone };
    let delta = ledger.record_scan(scope, looked, &judged.sightings, &baseline).await?;
    if delta.not_begun > 0 {
        tracing::warn!(
            orphans = delta.not_begun,
            "somebody else looked at the rows while this run did: of these orphans no sighting begins yet"
        );
    }
    Ok(delta)
}

fn size_readings(session: &Session<'_>, scan: &Scan, eligible: &[PlanGroup]) -> Vec<BreakerReading> {
    let totals = totals_of(eligible);
    let would = WouldGo { groups: totals.groups, objects: totals.objects, bytes: totals.bytes };
    let listed = Listed { groups: scan.findings.listed() as u64, foreign: scan.foreign };
    judge_size(would, listed, &session.scope.limits, &Allowances::default())
}

/// How much `groups` hold.
pub fn totals_of(groups: &[PlanGroup]) -> PlanTotals {
    PlanTotals {
        groups: groups.len() as u64,
        objects: groups.iter().map(|group| group.objects).sum(),
        bytes: groups.iter().fold(0, |bytes, group| bytes.saturating_add(group.bytes)),
    }
}

/// Opens every orphan and decides what becomes of it.
async fn judge_orphans(session: &mut Session<'_>, reading: &Reading, scan: &Scan) -> Result<Judged, RunFailure> {
    let (services, scope, run, as_of) = (session.services, session.scope, session.run, scan.as_of);
    let orphan_ids = scan.findings.orphans().count() as u64;
    let bar = services.progress.bar("opening orphans", orphan_ids);
    let objects_read = AtomicU64::new(0);
    let has_intents = services.ledger.has_sent_intents(&scope.name).await?;
    let versions = VersionCounter::new(session.draft.target.versioning);
    let opened = futures::stream::iter(scan.findings.orphans()).map(|groups| {
        let (bar, objects_read, versions) = (&bar, &objects_read, &versions);
        async move {
            let orphan =
                open_orphan(session_reading(services, scope, reading, has_intents), groups, objects_read).await?;
            let before = services.ledger.sighting(&scope.name, groups[0].id).await?;
            let refused_at = services.ledger.refused_at(&scope.name, groups[0].id).await?;
            let beneath = versions.count(reading, scope, groups, &services.stop.token).await;
            bar.inc(1);
            let sighting =
                (!orphan.is_empty()).then(|| sight(before.as_ref(), orphan.digest(), run, as_of, &scope.policy));
            Ok::<_, RunFailure>(Opened { groups, orphan, sighting, refused_at, beneath })
        }
    });
    let mut opened = std::pin::pin!(opened.buffer_unordered(OPEN_AT_ONCE));
    let mut judged = Judged { sightings: Vec::new(), eligible: Vec::new() };
    loop {
        let opened = match opened.try_next().await {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(failure) => {
                bar.finish_and_clear();
                return Err(failure);
            }
        };
        note_versions(session, opened.groups, &opened.orphan, &opened.beneath);
        let Some(sighting) = opened.sighting.clone() else {
            session.draft.groups.empty += opened.groups.len() as u64;
            continue;
        };
        record_orphan(session, &mut judged, &opened, sighting, scan);
    }
    bar.finish_and_clear();
    versions.finish(session);
    session.orphans.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    session.draft.holds.protecting.sort_unstable_by_key(|held| held.id);
    session.versions_only.sort_unstable();
    judged.eligible.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
    tracing::info!(
        stage = "decide",
        orphans = session.draft.groups.orphan,
        eligible = session.draft.groups.eligible,
        object_count = objects_read.load(Ordering::Relaxed),
        "orphans opened"
    );
    Ok(judged)
}

/// One id without a row, opened.
struct Opened<'l> {
    groups: &'l [Group],
    orphan: Orphan,
    sighting: Option<Sighting>,
    refused_at: Option<Timestamp>,
    beneath: Vec<Beneath>,
}

/// What opening a group needs.
#[derive(Clone, Copy)]
struct Opening<'o> {
    services: &'o super::Services,
    scope: &'o crate::config::Scope,
    reading: &'o Reading,
    has_intents: bool,
}

fn session_reading<'o>(
    services: &'o super::Services,
    scope: &'o crate::config::Scope,
    reading: &'o Reading,
    has_intents: bool,
) -> Opening<'o> {
    Opening { services, scope, reading, has_intents }
}

async fn open_orphan(opening: Opening<'_>, groups: &[Group], objects_read: &AtomicU64) -> Result<Orphan, RunFailure> {
    let Opening { services, scope, reading, has_intents } = opening;
    let intents = services.ledger.sent_intents(&scope.name);
    let intents: Option<&dyn content::SentIntents> = if has_intents { Some(&intents) } else { None };
    let mut orphan = Orphan { groups: Vec::with_capacity(groups.len()) };
    let mut groups = groups.to_vec();
    if has_intents {
        // A group that we deleted is no longer listed; it still belongs to what was seen of its id.
        let canonical =
            (0_u8..).take(scope.patterns.len()).map(|pattern| Group { id: groups[0].id, pattern, odd_spelling: None });
        let unlisted: Vec<Group> = canonical.filter(|group| !groups.contains(group)).collect();
        groups.extend(unlisted);
        groups.sort_unstable();
    }
    for group in &groups {
        let prefix = prefix_of(group, &scope.patterns);
        let progress = |objects| {
            objects_read.fetch_add(objects as u64, Ordering::Relaxed);
        };
        let content = content::open(&*reading.store, &prefix, intents, &services.stop.token, progress).await?;
        orphan.groups.push((group.clone(), content));
    }
    Ok(orphan)
}

/// Adds one orphan id to the report, the sightings and, where every rule lets it go, the plan.
fn record_orphan(session: &mut Session<'_>, judged: &mut Judged, opened: &Opened<'_>, sighting: Sighting, scan: &Scan) {
    let (scope, as_of) = (session.scope, scan.as_of);
    let Opened { groups: listed, orphan, .. } = opened;
    let hold = scan.holds.on(listed[0].id);
    session.draft.holds.protecting.extend(hold.map(holds::shown));
    let uploads = Uploading::from(scan.uploads.is_under(listed[0].id));
    let decided = decide_with(session.waiver, orphan, &sighting, &scope.policy, as_of);
    let rested = unless_refused(decided, opened.refused_at, &scope.policy, as_of);
    let verdict_of_id = unless_uploading(rested, uploads);
    let can_ever_go = orphan.groups.iter().any(|(group, content)| group.is_canonical() && content.objects > 0);
    // What only time keeps is told when time lets it go.
    if (decided != Verdict::Eligible || hold.is_some())
        && can_ever_go
        && let Some(at) = eligible_at_with(session.waiver, orphan, &sighting, &scope.policy, as_of)
        && let Some(at) = eligible_under(hold, at)
    {
        let next = &mut session.draft.next_eligible_at;
        *next = Some(next.map_or(at, |earliest| earliest.min(at)));
    }
    for (group, content) in orphan.groups.iter().filter(|(group, _)| listed.contains(group)) {
        if content.objects == 0 {
            session.draft.groups.empty += 1;
            continue;
        }
        let verdict = verdict_under(hold, verdict_of_group(group, verdict_of_id));
        let draft = &mut session.draft;
        draft.groups.orphan += 1;
        draft.orphan_objects += content.objects;
        draft.orphan_bytes = draft.orphan_bytes.saturating_add(content.bytes);
        match verdict {
            Verdict::Eligible => {
                draft.groups.eligible += 1;
                draft.eligible_objects += content.objects;
                draft.eligible_bytes = draft.eligible_bytes.saturating_add(content.bytes);
                judged.eligible.push(plan_group(scope, group, content, &sighting));
            }
            Verdict::Keep(reason) => {
                draft.groups.in_grace += u64::from(reason == KeepReason::WithinGrace);
                draft.leaks.undeletable += u64::from(reason == KeepReason::Undeletable);
            }
        }
        session.orphans.push(OrphanRecord {
            group: group.clone(),
            objects: content.objects,
            bytes: content.bytes,
            oldest: content.oldest,
            newest: content.newest,
            first_seen: sighting.first_seen,
            sightings: sighting.sightings,
            verdict,
        });
    }
    judged.sightings.push((listed[0].id, sighting));
}

fn plan_group(scope: &crate::config::Scope, group: &Group, content: &GroupContent, sighting: &Sighting) -> PlanGroup {
    PlanGroup {
        id: group.id,
        pattern: scope.patterns[usize::from(group.pattern)].template().to_owned(),
        prefix: prefix_of(group, &scope.patterns),
        objects: content.objects,
        bytes: content.bytes,
        oldest: content.oldest,
        newest: content.newest,
        digest: content.digest,
        first_seen: sighting.first_seen,
        first_run: sighting.first_run,
        sightings: sighting.sightings,
    }
}

/// Audits the scope of `session` for the orphans whose every object is older than the backfill's date.
///
/// - Errors: [`RunFailure`].
pub async fn backfill(session: &mut Session<'_>, reading: &Reading, backfill: Backfill) -> Result<(), RunFailure> {
    session.draft.backfill = Some(backfill);
    session.waiver = Waiver::FirstSighting { created_before: backfill.created_before };
    audit(session, reading).await.map(drop)
}

/// Writes the plan of a good scan and issues it.
async fn make_plan(session: &mut Session<'_>, scan: &Scan, groups: Vec<PlanGroup>) -> Result<VerifiedPlan, RunFailure> {
    session.enter(Stage::Plan);
    let (scope, ledger) = (session.scope, &session.services.ledger);
    let lifetime = chrono::Duration::from_std(scope.plan_lifetime(scan.as_of)).unwrap_or(chrono::Duration::MAX);
    let plan = DeletePlan {
        plan_version: PLAN_VERSION,
        scope: scope.name.clone(),
        run_id: session.run,
        created_at: scan.as_of,
        expires_at: scan.as_of.checked_add_signed(lifetime).unwrap_or(Timestamp::MAX_UTC),
        ledger: PlanLedger { id: ledger.id(), path: ledger.shown() },
        target: PlanTarget::new(&scan.observation.target, &scan.references.identity),
        policy: PlanPolicy::of(scope),
        backfill: session.draft.backfill,
        totals: totals_of(&groups),
        groups,
    };
    let hash = plan.hash();
    session.folder.write("plan.json", &plan.to_bytes())?;
    let path = session.folder.path().join("plan.json");
    ledger.issue_plan(&plan, hash, &path).await?;
    session.draft.plan_hash = Some(hash.to_string());
    if plan.totals.groups > 0 {
        session.next_command = Some(format!("orphan-sweeper apply {}", path.display()));
    }
    // A backfill is a person's, whatever the policy.
    if scope.policy.approval == Approval::Required || plan.backfill.is_some() {
        session.awaiting_review = plan.totals.groups;
    }
    Ok(VerifiedPlan { hash, plan })
}

impl Session<'_> {
    /// What to type to acknowledge the first latch, once its cause is found.
    pub(super) fn next_acknowledgement(&self) -> Option<String> {
        let latched = self.draft.breakers.iter().find(|reading| reading.latched)?;
        Some(format!(
            "orphan-sweeper ack {} --scope {} --by NAME --reason TEXT",
            latched.name.as_str(),
            self.scope.name
        ))
    }
}
