//! plan: showing what a plan would delete, and deciding on it, on record.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::hold::{check_named, read_id};
use super::{CommandError, Host, ledger_place, load, print_json, print_text};
use crate::cli::{DecisionArguments, Global, PlanAction};
use crate::config::{Approval, Config};
use crate::decide::approval::{Decision, Decisions, Ruling};
use crate::exit::Exit;
use crate::model::{DatasetId, Timestamp, human_bytes, human_count, visible};
use crate::plan::{PlanGroup, PlanTotals, VerifiedPlan};
use crate::record::{Absence, Ledger, NewDecision, PlanRow, PlanState, RecordError};
use crate::report::csv::time;
use crate::report::text::words::{counted, moment, span};
use crate::run::apply::find_plan;
use crate::run::audit::totals_of;
use crate::run::review::{check_issued, is_past};

/// Groups and decisions that are shown where not all are asked for.
const SHOWN: usize = 20;

pub(super) async fn plan(global: &Global, host: &Host, action: PlanAction) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    match action {
        PlanAction::Show { plan, all } => show(global, host, &config, &plan, all).await,
        PlanAction::Approve(arguments) => decide(global, host, &config, &arguments, Ruling::Approved).await,
        PlanAction::Reject(arguments) => decide(global, host, &config, &arguments, Ruling::Rejected).await,
    }
}

/// A plan with what the ledger knows of it.
pub(crate) struct Known {
    pub(crate) plan: VerifiedPlan,
    row: PlanRow,
    pub(crate) history: Vec<Decision>,
    decisions: Decisions,
    approval: Option<Approval>,
    now: Timestamp,
}

/// Opens the ledger, without which a plan is nothing to decide on, and reads the plan that is named.
async fn named(
    global: &Global,
    host: &Host,
    config: &Config,
    named: &str,
) -> Result<(Ledger, VerifiedPlan), CommandError> {
    let opened = Ledger::open(&ledger_place(config, host)?, Absence::Refuse, host.clock.now()).await;
    let ledger = opened.map_err(|error| match error {
        RecordError::Absent(_) => {
            refused(error.to_string(), "review a plan where it was made, with the ledger that issued it")
        }
        error => error.into(),
    })?;
    let plan = find_plan(&ledger, named).await?.verified;
    match global.scope.as_deref().filter(|scope| *scope != plan.plan.scope) {
        None => Ok((ledger, plan)),
        Some(scope) => Err(refused(
            format!("the plan is for the scope `{}`, not `{scope}`", plan.plan.scope),
            "check --scope and the plan's name",
        )),
    }
}

fn refused(message: String, hint: &str) -> CommandError {
    CommandError { message, hint: Some(hint.to_owned()), exit: Exit::Refused }
}

impl Known {
    /// What the ledger knows of `plan`, which it must have issued.
    pub(crate) async fn of(
        ledger: &Ledger,
        config: &Config,
        plan: VerifiedPlan,
        now: Timestamp,
    ) -> Result<Self, CommandError> {
        let row = ledger.plan(&plan.hash.to_string()).await?.ok_or_else(|| {
            refused(
                format!(
                    "this ledger did not issue the plan {}: it was edited, or the ledger is older or another",
                    plan.hash
                ),
                "review a plan where it was made, or make a new one with `orphan-sweeper audit`",
            )
        })?;
        let history = ledger.decisions_on(plan.hash).await?;
        let decisions = Decisions::of(history.iter().cloned());
        let scope = config.scopes.iter().find(|scope| scope.name == plan.plan.scope);
        Ok(Self { decisions, row, history, approval: scope.map(|scope| scope.policy.approval), plan, now })
    }

    fn is_past(&self) -> bool {
        is_past(&self.plan, self.row.state, self.now)
    }

    /// The groups with this ruling.
    fn with(&self, ruling: Option<Ruling>) -> Vec<PlanGroup> {
        let groups = self.plan.plan.groups.iter();
        groups.filter(|group| self.decisions.ruling(group.id) == ruling).cloned().collect()
    }

    /// What comes next, in words, and the command for it, where there is one.
    fn next(&self) -> (String, Option<String>) {
        let (hash, scope) = (&self.row.hash, &self.row.scope);
        let audit = || Some(format!("orphan-sweeper audit --scope {scope}"));
        if self.row.state == PlanState::Closed {
            return ("It is done with.".into(), None);
        }
        if self.is_past() {
            return ("It is past its time and can no longer be applied.".into(), audit());
        }
        if self.decisions.rejection().is_some() {
            return ("It is rejected: nothing of it goes.".into(), audit());
        }
        let apply = Some(format!("orphan-sweeper apply {hash}"));
        match (self.row.state, self.approval, self.decisions.has_approval()) {
            (PlanState::Applying, ..) => ("It was begun and not finished; applying it goes on.".into(), apply),
            (_, Some(Approval::Required), true) => {
                let words = "The next sweep applies what is approved, after all its own checks. To do it now:";
                (words.into(), Some(format!("orphan-sweeper sweep --scope {scope}")))
            }
            (_, Some(Approval::Required), false) => {
                let words = "Nobody approved it. `apply` deletes it now; the next sweep would after:";
                (words.into(), Some(format!("orphan-sweeper plan approve {hash} --by NAME --reason TEXT")))
            }
            (_, Some(Approval::Automatic) | None, _) => {
                ("A sweep makes and applies a plan of its own. To apply this one:".into(), apply)
            }
        }
    }

    /// It as JSON, with its largest groups or all of them.
    pub(crate) fn document(&self, all: bool) -> Value {
        let plan = &self.plan.plan;
        let shown = if all { plan.groups.len() } else { SHOWN };
        let groups: Vec<Value> =
            self.largest().into_iter().take(shown).map(|group| self.group_document(group)).collect();
        let totals = |ruling| totals_of(&self.with(ruling));
        let (words, command) = self.next();
        json!({
            "plan_hash": self.row.hash, "scope": plan.scope, "state": self.row.state.as_str(), "run_id": plan.run_id,
            "created_at": plan.created_at, "expires_at": plan.expires_at, "expired": self.is_past(), "path": self.row.path,
            "target": plan.target, "policy": plan.policy, "backfill": plan.backfill, "ids": self.ids(), "totals": plan.totals,
            "approved": totals(Some(Ruling::Approved)), "rejected": totals(Some(Ruling::Rejected)), "undecided": totals(None),
            "decisions": self.history.iter().map(decision_document).collect::<Vec<_>>(),
            "groups": groups, "groups_left_out": plan.groups.len().saturating_sub(shown),
            "next": { "words": words, "command": command }
        })
    }

    /// One of its groups as JSON, with what was decided on it.
    pub(crate) fn group_document(&self, group: &PlanGroup) -> Value {
        let mut document = serde_json::to_value(group).expect("a group has only serializable fields");
        let decision = self.decisions.on(group.id);
        document["decision"] = json!(decision.map(|decision| decision.ruling.as_str()));
        document["decided_by"] = json!(decision.map(|decision| &decision.by));
        document
    }

    fn ids(&self) -> usize {
        self.plan.plan.groups.iter().map(|group| group.id).collect::<BTreeSet<_>>().len()
    }

    /// The groups, those with the most bytes first.
    pub(crate) fn largest(&self) -> Vec<&PlanGroup> {
        let mut groups: Vec<&PlanGroup> = self.plan.plan.groups.iter().collect();
        groups.sort_by(|a, b| (b.bytes, &a.prefix).cmp(&(a.bytes, &b.prefix)));
        groups
    }

    fn tell(&self, all: bool) -> String {
        let plan = &self.plan.plan;
        let mut out = format!("Plan {} of scope {}: {}\n\n", self.row.hash, plan.scope, self.standing());
        let mut line = |label: &str, text: &str| out.push_str(&format!("  {label:<10} {text}\n"));
        line("made", &format!("{} by run {}", moment(plan.created_at), plan.run_id));
        line("expires", &format!("{}{}", moment(plan.expires_at), self.time_left()));
        if let Some(backfill) = plan.backfill {
            let date = moment(backfill.created_before);
            line(
                "backfill",
                &format!("of groups whose every object is older than {date}; grace since the first sighting is waived"),
            );
        }
        line("from", &visible(&format!("{}/{} at {}", plan.target.bucket, plan.target.prefix, plan.target.endpoint)));
        line("all", &format!("{} of {}", amount(plan.totals), counted(self.ids() as u64, "id", "ids")));
        for (label, ruling) in
            [("approved", Some(Ruling::Approved)), ("rejected", Some(Ruling::Rejected)), ("undecided", None)]
        {
            let totals = totals_of(&self.with(ruling));
            if totals.groups > 0 && !self.history.is_empty() {
                line(label, &amount(totals));
            }
        }
        out.push_str(&self.tell_decisions(all));
        out.push_str(&self.tell_groups(all));
        let (words, command) = self.next();
        out.push_str(&format!("\n{words}\n"));
        if let Some(command) = command {
            out.push_str(&format!("  {command}\n"));
        }
        out
    }

    fn standing(&self) -> &'static str {
        match self.row.state {
            PlanState::Open if self.is_past() => "expired",
            PlanState::Open if self.decisions.rejection().is_some() => "rejected",
            PlanState::Open => "open",
            PlanState::Applying => "applying",
            PlanState::Closed => "closed",
        }
    }

    fn time_left(&self) -> String {
        let left = self.plan.plan.expires_at - self.now;
        if left <= chrono::Duration::zero() { ", which is past".into() } else { format!(", in {}", span(left)) }
    }

    fn tell_decisions(&self, all: bool) -> String {
        if self.history.is_empty() {
            return String::new();
        }
        let shown = if all { self.history.len() } else { SHOWN };
        let mut out = "\nDecisions, the newest first\n".to_owned();
        for decision in self.history.iter().rev().take(shown) {
            let about = decision.id.map_or_else(|| "the whole plan".to_owned(), |id| id.to_string());
            out.push_str(&format!(
                "  {}  {} {about} by {}: {}\n",
                moment(decision.at),
                decision.ruling.as_str(),
                visible(&decision.by),
                visible(&decision.reason)
            ));
        }
        out.push_str(&left_out(self.history.len(), shown));
        out
    }

    fn tell_groups(&self, all: bool) -> String {
        let groups = self.largest();
        if groups.is_empty() {
            return "\nIt names no group: there was nothing to let go.\n".to_owned();
        }
        let shown = if all { groups.len() } else { SHOWN };
        let mut lines = format!("  {}\n", columns(["bytes", "objects", "newest", "first seen", "decision", "prefix"]));
        for group in groups.iter().take(shown) {
            let ruling = self.decisions.ruling(group.id);
            let day = |time: Timestamp| time.format("%Y-%m-%d").to_string();
            lines.push_str(&format!(
                "  {}\n",
                columns([
                    &human_bytes(group.bytes),
                    &human_count(group.objects),
                    &group.newest.map_or_else(|| "unknown".to_owned(), day),
                    &day(group.first_seen),
                    ruling.map_or("-", Ruling::as_str),
                    &visible(&group.prefix),
                ])
            ));
        }
        let title = if all || groups.len() <= shown { "Groups, the largest first" } else { "The largest groups" };
        format!("\n{title}\n{lines}{}", left_out(groups.len(), shown))
    }
}

/// One line of the groups: of fixed widths, because a plan may name a hundred thousand.
fn columns([bytes, objects, newest, first_seen, decision, prefix]: [&str; 6]) -> String {
    format!("{bytes:>10}  {objects:>11}  {newest:<10}  {first_seen:<10}  {decision:<8}  {prefix}")
}

fn left_out(count: usize, shown: usize) -> String {
    match count.saturating_sub(shown) {
        0 => String::new(),
        left => format!("  and {} more: --all shows every one\n", human_count(left as u64)),
    }
}

fn amount(totals: PlanTotals) -> String {
    format!(
        "{}, {}, {}",
        counted(totals.groups, "group", "groups"),
        counted(totals.objects, "object", "objects"),
        human_bytes(totals.bytes)
    )
}

/// A decision as JSON shows it.
pub(crate) fn decision_document(decision: &Decision) -> Value {
    json!({
        "number": decision.number, "scope": decision.scope, "plan_hash": decision.plan_hash, "id": decision.id,
        "decision": decision.ruling.as_str(), "by": decision.by, "reason": decision.reason, "at": decision.at
    })
}

async fn show(global: &Global, host: &Host, config: &Config, plan: &str, all: bool) -> Result<Exit, CommandError> {
    let (ledger, plan) = named(global, host, config, plan).await?;
    let known = Known::of(&ledger, config, plan, host.clock.now()).await?;
    if global.json {
        print_json(&known.document(all));
    } else {
        print_text(&known.tell(all));
    }
    Ok(Exit::Done)
}

async fn decide(
    global: &Global,
    host: &Host,
    config: &Config,
    arguments: &DecisionArguments,
    ruling: Ruling,
) -> Result<Exit, CommandError> {
    let now = host.clock.now();
    let DecisionArguments { plan, id, by, reason } = arguments;
    let ids: BTreeSet<DatasetId> = id.iter().map(|id| read_id(id)).collect::<Result<_, _>>()?;
    let ids: Vec<DatasetId> = ids.into_iter().collect();
    check_named("a decision", by, reason)?;
    let (ledger, plan) = named(global, host, config, plan).await?;
    let known = record_decision(&ledger, config, plan, Wish { ids: &ids, ruling, by, reason }, now).await?;
    if global.json {
        print_json(&known.document(false));
        return Ok(Exit::Done);
    }
    let what = match ids.len() {
        0 => "the whole plan".to_owned(),
        count => counted(count as u64, "id of the plan", "ids of the plan"),
    };
    let (words, command) = known.next();
    let command = command.map(|command| format!("  {command}\n")).unwrap_or_default();
    let (word, hash) = (ruling.as_str(), &known.row.hash);
    print_text(&format!("{word}: {what} {hash}, by {}: {}\n{words}\n{command}", visible(by), visible(reason)));
    Ok(Exit::Done)
}

/// What a person decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'w> {
    /// The ids that it is about; empty: the whole plan.
    pub(crate) ids: &'w [DatasetId],
    /// What is decided.
    pub(crate) ruling: Ruling,
    /// By whom.
    pub(crate) by: &'w str,
    /// Why.
    pub(crate) reason: &'w str,
}

/// Records what a person decides on `plan`, where it can still be decided on; gives what is known of it then.
pub(crate) async fn record_decision(
    ledger: &Ledger,
    config: &Config,
    plan: VerifiedPlan,
    wish: Wish<'_>,
    now: Timestamp,
) -> Result<Known, CommandError> {
    let Wish { ids, ruling, by, reason } = wish;
    check_named_in(ids, &plan)?;
    let row = check_issued(ledger, &plan).await?;
    if is_past(&plan, row.state, now) {
        return Err(refused(
            format!("the plan expired at {}", time(plan.plan.expires_at)),
            "make a new plan with `orphan-sweeper audit`",
        ));
    }
    let decision = NewDecision { plan: &plan.plan, hash: plan.hash, ids, ruling, by, reason, at: now };
    ledger.decide(&decision).await?;
    Known::of(ledger, config, plan, now).await
}

/// A decision on an id that the plan does not name would decide nothing.
fn check_named_in(ids: &[DatasetId], plan: &VerifiedPlan) -> Result<(), CommandError> {
    let strangers: Vec<String> = ids
        .iter()
        .filter(|id| plan.plan.groups.iter().all(|group| group.id != **id))
        .map(ToString::to_string)
        .collect();
    if strangers.is_empty() {
        return Ok(());
    }
    Err(CommandError::usage(
        format!("the plan {} does not name {}", plan.hash, strangers.join(", ")),
        "`orphan-sweeper plan show PLAN --all` lists what it names",
    ))
}
