//! explain: why an id is kept or goes, rule by rule, from a fresh look; and what became of it. Read only, and no run.

mod past;
mod rules;
mod tell;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::hold::read_id;
use super::{CommandError, Host, load, open_ledger, print_json, print_text, scopes};
use crate::cli::Global;
use crate::config::Scope;
use crate::decide::approval::{Decision, Decisions, Ruling};
use crate::decide::eligible_at;
use crate::decide::holds::eligible_under;
use crate::decide::sightings::sight;
use crate::decide::{Orphan, Uploading};
use crate::exit::Exit;
use crate::list::{census, content, uploads};
use crate::model::{DatasetId, Group, RunId, Timestamp};
use crate::parse::prefix_of;
use crate::run::{Keyring, Reading, RunFailure, Services, Stop, holds};
use crate::s3::retry;
use crate::telemetry::Progress;
use rules::{Planned, Uploads, View};

pub(super) async fn explain(global: &Global, host: &Host, id: &str) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let parsed = read_id(id)?;
    scopes(&config, global)?;
    let ledger = open_ledger(&config, host).await?;
    let services =
        Services { config, clock: host.clock.clone(), ledger, stop: Stop::default(), progress: Progress::new(false) };
    let keyring = Keyring::new(host.variables.clone());
    let mut documents = Vec::new();
    for scope in scopes(&services.config, global)? {
        documents.push(explain_in(&services, &keyring, scope, parsed).await?);
    }
    if global.json {
        print_json(&Value::Array(documents));
    } else {
        for document in &documents {
            print_text(&tell::tell(document));
        }
    }
    Ok(Exit::Done)
}

async fn explain_in(services: &Services, keyring: &Keyring, scope: &Scope, id: DatasetId) -> Result<Value, RunFailure> {
    let reading = keyring.reading(services, scope)?;
    let view = look(services, scope, &reading, id).await?;
    let (policy, ledger) = (&scope.policy, &services.ledger);
    let (verdict, summary) = view.verdict(policy);
    let eligible_at = Some(&view)
        .filter(|view| view.live_in.is_empty() && !view.orphan.is_empty())
        .and_then(|view| eligible_at(&view.orphan, &view.next, policy, view.as_of))
        .and_then(|at| eligible_under(view.hold.as_ref(), at));
    let groups: Vec<Value> = view
        .orphan
        .groups
        .iter()
        .filter(|(_, content)| content.objects > 0)
        .map(|(group, content)| {
            json!({
                "prefix": prefix_of(group, &scope.patterns), "objects": content.objects, "bytes": content.bytes,
                "oldest": content.oldest, "newest": content.newest, "canonical": group.is_canonical()
            })
        })
        .collect();
    let rows: Vec<Value> = scope
        .live
        .iter()
        .map(|live| {
            let table = live.label.clone();
            let count = view.live_in.get(&table).copied().unwrap_or(0);
            json!({ "table": table, "rows": count })
        })
        .collect();
    let versioning = retry::read_with_retries(&CancellationToken::new(), || reading.store.versioning()).await?;
    Ok(json!({
        "scope": scope.name, "id": id.to_string(), "verdict": verdict, "summary": summary, "as_of": view.as_of,
        "live_in": view.live_in.keys().collect::<Vec<_>>(), "rows": rows, "hold": view.hold.as_ref().map(holds::shown),
        "groups": groups, "rules": view.rules(policy), "eligible_at": eligible_at,
        "first_seen": view.before.as_ref().map(|sighting| sighting.first_seen),
        "sightings": view.before.as_ref().map_or(0, |sighting| sighting.sightings),
        "plans": view.plans.iter().map(Planned::document).collect::<Vec<_>>(),
        "latched": view.latched.iter().map(|latch| {
            json!({ "breaker": latch.breaker, "since": latch.latched_at, "run_id": latch.run_id, "message": latch.message })
        }).collect::<Vec<_>>(),
        "disposals": past::disposals(ledger, scope, id, versioning).await?
    }))
}

/// Looks at one id as the next scan will: the listing first, then the rows and the holds.
async fn look(services: &Services, scope: &Scope, reading: &Reading, id: DatasetId) -> Result<View, RunFailure> {
    let never = CancellationToken::new();
    // The whole prefix: an odd spelling of the id may stand anywhere in it.
    let listing = census::take(&*reading.store, scope, &never, |_| {}, |_| {}).await?;
    let orphan = open_groups(services, scope, reading, (id, &listing.groups), &never).await?;
    let uploads = uploads::take(&*reading.store, scope, scope.uploads.stale_after(), &never).await;
    let mut live_in = BTreeMap::new();
    let references = reading
        .references
        .read(&mut |row| {
            if row.id == id {
                *live_in.entry(scope.live[row.table].label.clone()).or_insert(0_u64) += 1;
            }
        })
        .await?;
    let as_of = listing.store_time.min(references.database_time);
    let hold = holds::gather(services, scope, &references.holds, as_of).await?.on(id).cloned();
    let ledger = &services.ledger;
    let before = ledger.sighting(&scope.name, id).await?;
    // What the next scan would say, without recording it.
    let next = sight(before.as_ref(), orphan.digest(), RunId(uuid::Uuid::nil()), as_of, &scope.policy);
    let (plans, latched) = (planned(services, scope, id, as_of).await?, ledger.latches(&scope.name).await?);
    let is_rejected = ledger.is_rejected_id(&scope.name, id).await?;
    let uploads = Uploads { under_it: Uploading::from(uploads.is_under(id)), unknown: uploads.unknown };
    let refused_at = ledger.refused_at(&scope.name, id).await?;
    Ok(View { orphan, before, next, live_in, hold, plans, latched, is_rejected, uploads, refused_at, as_of })
}

/// Opens every group that the id can have, in a canonical spelling and in those that were `listed`.
async fn open_groups(
    services: &Services,
    scope: &Scope,
    reading: &Reading,
    (id, listed): (DatasetId, &[Group]),
    stop: &CancellationToken,
) -> Result<Orphan, RunFailure> {
    let intents = services.ledger.sent_intents(&scope.name);
    let canonical = (0_u8..).take(scope.patterns.len()).map(|pattern| Group { id, pattern, odd_spelling: None });
    let odd = listed.iter().filter(|group| group.id == id && !group.is_canonical()).cloned();
    let mut groups: Vec<Group> = canonical.chain(odd).collect();
    groups.sort_unstable();
    let mut orphan = Orphan { groups: Vec::new() };
    for group in groups {
        let prefix = prefix_of(&group, &scope.patterns);
        let content = content::open(&*reading.store, &prefix, Some(&intents), stop, |_| {}).await?;
        orphan.groups.push((group, content));
    }
    Ok(orphan)
}

/// The plans that name the id and can still be applied, with what was decided on it.
async fn planned(
    services: &Services,
    scope: &Scope,
    id: DatasetId,
    as_of: Timestamp,
) -> Result<Vec<Planned>, RunFailure> {
    let mut planned = Vec::new();
    for row in services.ledger.applicable_plans(&scope.name, as_of).await? {
        // A plan whose file is gone can no longer be applied.
        let Some(plan) = std::fs::read(&row.path).ok().and_then(|bytes| crate::plan::verify(&bytes).ok()) else {
            continue;
        };
        let objects: u64 = plan.plan.groups.iter().filter(|group| group.id == id).map(|group| group.objects).sum();
        if plan.plan.groups.iter().all(|group| group.id != id) || plan.hash.to_string() != row.hash {
            continue;
        }
        let decisions: Decisions = services.ledger.decision_on_id(plan.hash, id).await?;
        let decision: Option<Decision> = decisions.on(id).cloned();
        planned.push(Planned { row, expires_at: plan.plan.expires_at, objects, decision });
    }
    Ok(planned)
}

/// Whether a decision lets the id go.
fn is_approved(decision: Option<&Decision>) -> bool {
    decision.is_some_and(|decision| decision.ruling == Ruling::Approved)
}
