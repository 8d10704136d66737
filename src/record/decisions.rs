//! What persons decided on the plans of this ledger. Rows are only added.

use uuid::Uuid;

use super::chain::tracked::{DECISIONS, note};
use super::ledger::{Ledger, RecordError};
use super::sql::{Row, Statement, Transaction, Value, statement};
use crate::decide::approval::{Decision, Decisions, Ruling};
use crate::model::{DatasetId, Sha256Hash, Timestamp};
use crate::plan::DeletePlan;

/// Ids that one statement names: both kinds of ledger take that many values.
const IDS_PER_STATEMENT: usize = 500;

/// A decision that is to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewDecision<'d> {
    /// The plan.
    pub plan: &'d DeletePlan,
    /// Its hash.
    pub hash: Sha256Hash,
    /// The ids that it is about; empty: the whole plan.
    pub ids: &'d [DatasetId],
    /// What was decided.
    pub ruling: Ruling,
    /// By whom.
    pub by: &'d str,
    /// Why.
    pub reason: &'d str,
    /// When.
    pub at: Timestamp,
}

impl Ledger {
    /// Records what a person decided, as a whole or not at all.
    pub async fn decide(&self, decision: &NewDecision<'_>) -> Result<(), RecordError> {
        let step = "record a decision";
        let mut transaction = self.begin(step).await?;
        let about: Vec<Option<DatasetId>> = match decision.ids {
            [] => vec![None],
            ids => ids.iter().copied().map(Some).collect(),
        };
        let mut number = 0;
        for id in about {
            let row = statement(
                step,
                "INSERT INTO decisions (scope, plan_hash, id, decision, decided_by, reason, decided_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number",
            )
            .bind(&decision.plan.scope)
            .bind(decision.hash)
            .bind(id)
            .bind(decision.ruling.as_str())
            .bind(decision.by)
            .bind(decision.reason)
            .bind(decision.at)
            .one(&mut transaction)
            .await?;
            number = row.count("number")?;
            note(&mut transaction, &DECISIONS, decision.ruling.as_str(), &number.to_string()).await?;
        }
        remember_rejected(&mut transaction, decision, number).await?;
        transaction.commit(step).await
    }

    /// The decisions on a plan, in order.
    pub async fn decisions_on(&self, hash: Sha256Hash) -> Result<Vec<Decision>, RecordError> {
        let rows =
            statement("read the decisions", "SELECT * FROM decisions WHERE plan_hash = $1 ORDER BY number").bind(hash);
        rows.all(&self.database).await?.iter().map(read_decision).collect()
    }

    /// What is decided on one id of a plan, by itself and with the whole plan.
    pub async fn decision_on_id(&self, hash: Sha256Hash, id: DatasetId) -> Result<Decisions, RecordError> {
        let rows =
            statement("read the decisions", "SELECT * FROM decisions WHERE plan_hash = $1 AND (id = $2 OR id IS NULL)")
                .bind(hash)
                .bind(id);
        let decisions: Result<Vec<_>, _> = rows.all(&self.database).await?.iter().map(read_decision).collect();
        decisions.map(Decisions::of)
    }

    /// The newest decisions of a scope, or of all, the newest first.
    pub async fn newest_decisions(&self, scope: Option<&str>, limit: u32) -> Result<Vec<Decision>, RecordError> {
        let step = "read the decisions";
        let rows = match scope {
            Some(scope) => {
                statement(step, "SELECT * FROM decisions WHERE scope = $1 ORDER BY number DESC LIMIT $2").bind(scope)
            }
            None => statement(step, "SELECT * FROM decisions ORDER BY number DESC LIMIT $1"),
        };
        rows.bind(limit).all(&self.database).await?.iter().map(read_decision).collect()
    }

    /// The plans of a scope that can still be applied and of which a person approved something, the oldest first.
    pub async fn reviewed_plans(&self, scope: &str) -> Result<Vec<String>, RecordError> {
        let rows = statement(
            "look for approved plans",
            "SELECT plans.hash FROM plans WHERE plans.scope = $1 AND plans.state IN ('open', 'applying') AND EXISTS \
             (SELECT 1 FROM decisions WHERE decisions.plan_hash = plans.hash AND decisions.decision = 'approved') \
             ORDER BY plans.run_id",
        );
        rows.bind(scope).all(&self.database).await?.iter().map(|row| row.get("hash")).collect()
    }

    /// The ids that the policy leaves alone: rejected, and not approved since.
    pub async fn rejected_ids(&self, scope: &str) -> Result<Vec<DatasetId>, RecordError> {
        let rows = statement("read the rejected ids", "SELECT id FROM rejected_ids WHERE scope = $1").bind(scope);
        rows.all(&self.database).await?.iter().map(|row| Ok(DatasetId(row.get::<Uuid>("id")?))).collect()
    }

    /// Whether the policy leaves this id alone.
    pub async fn is_rejected_id(&self, scope: &str, id: DatasetId) -> Result<bool, RecordError> {
        let rows =
            statement("look for a rejected id", "SELECT decision FROM rejected_ids WHERE scope = $1 AND id = $2");
        Ok(rows.bind(scope).bind(id).optional(&self.database).await?.is_some())
    }
}

/// Keeps the list of ids that the policy leaves alone: a rejection adds to it, an approval takes off. What was rejected by
/// itself comes off only by an approval of its own.
async fn remember_rejected(
    transaction: &mut Transaction,
    decision: &NewDecision<'_>,
    number: u64,
) -> Result<(), RecordError> {
    let step = "record a decision";
    let is_own = !decision.ids.is_empty();
    let mut ids = decision.ids.to_vec();
    if !is_own {
        ids.extend(decision.plan.groups.iter().map(|group| group.id));
        ids.sort_unstable();
        ids.dedup();
    }
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let mut values: Vec<Value> = vec![decision.plan.scope.as_str().into()];
        let sql = match decision.ruling {
            Ruling::Rejected => {
                values.extend([number.into(), is_own.into()]);
                let rows = (0..ids.len()).map(|index| format!("($1, ${}, $2, $3)", index + 4)).collect::<Vec<_>>();
                format!(
                    "INSERT INTO rejected_ids (scope, id, decision, is_own) VALUES {} ON CONFLICT (scope, id) DO UPDATE SET \
                     decision = excluded.decision, is_own = (rejected_ids.is_own OR excluded.is_own)",
                    rows.join(", ")
                )
            }
            Ruling::Approved => {
                let places = (0..ids.len()).map(|index| format!("${}", index + 2)).collect::<Vec<_>>();
                let only = if is_own { "" } else { " AND NOT is_own" };
                format!("DELETE FROM rejected_ids WHERE scope = $1 AND id IN ({}){only}", places.join(", "))
            }
        };
        values.extend(ids.iter().copied().map(Value::from));
        values.into_iter().fold(statement(step, sql), Statement::bind).run(&mut *transaction).await?;
    }
    Ok(())
}

fn read_decision(row: &Row) -> Result<Decision, RecordError> {
    let ruling: String = row.get("decision")?;
    Ok(Decision {
        number: row.count("number")?,
        scope: row.get("scope")?,
        plan_hash: row.get("plan_hash")?,
        id: row.get::<Option<Uuid>>("id")?.map(DatasetId),
        ruling: Ruling::named(&ruling).ok_or(RecordError::Unreadable("a decision"))?,
        by: row.get("decided_by")?,
        reason: row.get("reason")?,
        at: row.get("decided_at")?,
    })
}
