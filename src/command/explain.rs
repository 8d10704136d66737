//! explain: why an id is kept or goes, rule by rule, from a fresh look. Read only, and no run.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{CommandError, Host, load, open_ledger, print_json, print_text, scopes};
use crate::cli::Global;
use crate::config::{Policy, Scope};
use crate::decide::sightings::{Sighting, sight};
use crate::decide::{Orphan, Verdict, decide, eligible_at};
use crate::exit::Exit;
use crate::list::content;
use crate::model::{DatasetId, Group, RunId, Timestamp, human_bytes, human_count};
use crate::parse::prefix_of;
use crate::report::csv::time;
use crate::run::{Keyring, Reading, RunFailure, Services, Stop};
use crate::s3::retry;
use crate::telemetry::Progress;

pub(super) async fn explain(global: &Global, host: &Host, id: &str) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let parsed = DatasetId::parse_lenient(id).ok_or_else(|| {
        CommandError::usage(
            format!("`{id}` is no UUID"),
            "write the dataset's id, such as 0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10",
        )
    })?;
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
            print_text(&tell(document));
        }
    }
    Ok(Exit::Done)
}

async fn explain_in(services: &Services, keyring: &Keyring, scope: &Scope, id: DatasetId) -> Result<Value, RunFailure> {
    let reading = keyring.reading(services, scope)?;
    let never = CancellationToken::new();
    let orphan = open_groups(services, scope, &reading, id, &never).await?;
    let store_time = retry::read_with_retries(&never, || {
        let request =
            crate::s3::PageRequest { prefix: scope.patterns[0].prefix_of(id), by_delimiter: true, token: None };
        let store = &reading.store;
        async move { store.page(&request).await }
    })
    .await?
    .date;
    let mut tables = Vec::new();
    let references = reading
        .references
        .read(&mut |row| {
            if row.id == id && !tables.contains(&row.table) {
                tables.push(row.table);
            }
        })
        .await?;
    let tables: Vec<String> = tables.iter().map(|table| scope.live[*table].table.to_string()).collect();
    let as_of = store_time.min(references.database_time);
    let before = services.ledger.sighting(&scope.name, id).await?;
    let disposals = services.ledger.disposals(&scope.name, id).await?;
    let policy = &scope.policy;
    // What the next scan would say, without recording it.
    let next = sight(before.as_ref(), orphan.digest(), RunId(uuid::Uuid::nil()), as_of, policy);
    let view = View { orphan, next, tables, as_of };
    let (verdict, summary) = view.verdict(policy);
    let rules = view.rules(policy);
    let View { orphan, next, tables, .. } = view;
    let groups: Vec<Value> = orphan
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
    let disposals: Vec<Value> = disposals
        .into_iter()
        .map(|(run, plan, outcome, at)| json!({ "run_id": run, "plan_hash": plan, "outcome": outcome, "at": at }))
        .collect();
    let eligible_at = tables.is_empty().then(|| eligible_at(&orphan, &next, policy, as_of)).flatten();
    Ok(json!({
        "scope": scope.name, "id": id.to_string(), "verdict": verdict, "summary": summary, "as_of": as_of,
        "live_in": tables, "groups": groups, "rules": rules, "eligible_at": eligible_at,
        "first_seen": before.as_ref().map(|sighting| sighting.first_seen), "sightings": before.map_or(0, |sighting| sighting.sightings),
        "disposals": disposals
    }))
}

/// What a fresh look at one id saw.
struct View {
    orphan: Orphan,
    next: Sighting,
    tables: Vec<String>,
    as_of: Timestamp,
}

impl View {
    /// What the next scan would say, and why.
    fn verdict(&self, policy: &Policy) -> (&'static str, String) {
        if !self.tables.is_empty() {
            return ("keep", format!("a row in {} keeps it alive", self.tables.join(", ")));
        }
        if self.orphan.is_empty() {
            return ("none", "the store lists no object of it".to_owned());
        }
        match decide(&self.orphan, &self.next, policy, self.as_of) {
            Verdict::Eligible => ("eligible", "every rule lets it go; the next audit plans it".to_owned()),
            Verdict::Keep(reason) => ("keep", format!("{}: {}", reason.as_str(), reason.meaning())),
        }
    }

    /// Every rule: what it found, and what it needs.
    fn rules(&self, policy: &Policy) -> Vec<Value> {
        let Self { orphan, next, tables, as_of } = self;
        let rule = |name: &str, passes: bool, found: String, needed: String| json!({ "rule": name, "passes": passes, "found": found, "needed": needed });
        let length = |span: chrono::Duration| {
            humantime::format_duration(std::time::Duration::from_secs(span.num_seconds().unsigned_abs())).to_string()
        };
        let (grace, newest) = (policy.grace.span(), orphan.newest());
        let age = newest.map(|newest| *as_of - newest);
        let seen_for = *as_of - next.first_seen;
        let span = next.last_seen - next.first_seen;
        let least_span = chrono::Duration::from_std(policy.min_sighting_span).unwrap_or(chrono::Duration::MAX);
        let rows = if tables.is_empty() { "none".to_owned() } else { tables.join(", ") };
        let change = if next.is_changed { "changed" } else { "unchanged" };
        let has_age = age.is_some_and(|age| age >= chrono::Duration::zero()) && !orphan.has_unknown_age();
        vec![
            rule("no row in any live table", tables.is_empty(), rows, "none".into()),
            rule("the store lists objects", !orphan.is_empty(), object_count(orphan), "at least one".into()),
            rule(
                "every age is known and not in the future",
                has_age,
                newest.map_or("unknown".into(), time),
                format!("at most {}", time(*as_of)),
            ),
            rule("unchanged since the scan before", !next.is_changed, change.into(), "unchanged".into()),
            rule(
                "its newest object is older than grace",
                age.is_some_and(|age| age >= grace),
                age.map_or("unknown".into(), length),
                length(grace),
            ),
            rule("its first sighting is older than grace", seen_for >= grace, length(seen_for), length(grace)),
            rule(
                "enough scans saw it",
                next.sightings >= policy.min_sightings,
                format!("{} with the next one", next.sightings),
                policy.min_sightings.to_string(),
            ),
            rule("they are spread", span >= least_span, length(span), length(least_span)),
            rule(
                "the time between them adds up to grace",
                next.witnessed >= grace,
                length(next.witnessed),
                length(grace),
            ),
        ]
    }
}

/// Opens every group that the id has in a canonical spelling.
async fn open_groups(
    services: &Services,
    scope: &Scope,
    reading: &Reading,
    id: DatasetId,
    stop: &CancellationToken,
) -> Result<Orphan, RunFailure> {
    let intents = services.ledger.sent_intents(&scope.name);
    let mut orphan = Orphan { groups: Vec::new() };
    for pattern in (0_u8..).take(scope.patterns.len()) {
        let group = Group { id, pattern, odd_spelling: None };
        let prefix = prefix_of(&group, &scope.patterns);
        let content = content::open(&*reading.store, &prefix, Some(&intents), stop, |_| {}).await?;
        orphan.groups.push((group, content));
    }
    Ok(orphan)
}

fn object_count(orphan: &Orphan) -> String {
    let objects = orphan.groups.iter().map(|(_, content)| content.objects).sum();
    let bytes = orphan.groups.iter().map(|(_, content)| content.bytes).sum();
    format!("{} ({})", human_count(objects), human_bytes(bytes))
}

fn tell(document: &Value) -> String {
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let mut out = format!("{} in scope {}: {}\n  {}\n\n", text("id"), text("scope"), text("verdict"), text("summary"));
    for rule in document["rules"].as_array().into_iter().flatten() {
        let field = |name: &str| rule[name].as_str().unwrap_or_default();
        let mark = if rule["passes"] == json!(true) { "yes" } else { "no " };
        out.push_str(&format!("  {mark}  {:<42} {} (needed: {})\n", field("rule"), field("found"), field("needed")));
    }
    for group in document["groups"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "\n  {}: {} objects, {}\n",
            crate::model::visible(group["prefix"].as_str().unwrap_or_default()),
            human_count(group["objects"].as_u64().unwrap_or(0)),
            human_bytes(group["bytes"].as_u64().unwrap_or(0))
        ));
    }
    if let Some(at) = document["eligible_at"].as_str().filter(|_| document["verdict"] == json!("keep")) {
        out.push_str(&format!("\n  It could become eligible at {at}, if scans go on and nothing changes.\n"));
    }
    for disposal in document["disposals"].as_array().into_iter().flatten() {
        let field = |name: &str| disposal[name].as_str().unwrap_or_default();
        out.push_str(&format!(
            "\n  {}: {} by run {} with plan {}\n",
            field("at"),
            field("outcome"),
            field("run_id"),
            field("plan_hash")
        ));
    }
    out
}
