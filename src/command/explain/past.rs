//! What became of an id: by which run, plan and approval, how much, and whether it can come back.

use serde_json::{Value, json};

use crate::config::Scope;
use crate::decide::approval::{Decision, Ruling};
use crate::model::{DatasetId, Sha256Hash, Versioning};
use crate::record::{Ledger, RecordError, RunRow};

/// Every group of the id that a plan named, the oldest first.
pub(super) async fn disposals(
    ledger: &Ledger,
    scope: &Scope,
    id: DatasetId,
    versioning: Versioning,
) -> Result<Vec<Value>, RecordError> {
    let mut told = Vec::new();
    for disposal in ledger.disposals(&scope.name, id).await? {
        let run = ledger.run(&disposal.run_id).await?;
        let decision = match Sha256Hash::parse(&disposal.plan_hash) {
            Some(hash) => ledger.decision_on_id(hash, id).await?.on(id).cloned(),
            None => None,
        };
        let undo = (disposal.objects > 0).then(|| undo(versioning));
        told.push(json!({
            "run_id": disposal.run_id, "plan_hash": disposal.plan_hash, "prefix": disposal.prefix,
            "outcome": disposal.outcome, "at": disposal.at, "objects": disposal.objects, "bytes": disposal.bytes,
            "let_go_by": let_go_by(run.as_ref(), decision.as_ref()), "undo": undo
        }));
    }
    Ok(told)
}

/// Whose word it was.
fn let_go_by(run: Option<&RunRow>, decision: Option<&Decision>) -> Value {
    let approved = decision.filter(|decision| decision.ruling == Ruling::Approved);
    match (approved, run.map(|run| run.command.as_str())) {
        (Some(decision), _) => {
            json!({ "kind": "approval", "by": decision.by, "reason": decision.reason, "at": decision.at })
        }
        (None, Some("apply")) => json!({ "kind": "person", "by": null, "reason": "a person ran `apply`", "at": null }),
        (None, Some("purge")) => {
            json!({ "kind": "person", "by": null, "reason": "a person had it purged with its rows", "at": null })
        }
        (None, Some("sweep")) => {
            json!({ "kind": "policy", "by": null, "reason": "approval = \"automatic\"", "at": null })
        }
        (None, Some(_) | None) => Value::Null,
    }
}

/// Whether it can come back.
fn undo(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Unversioned => "cannot be brought back: the bucket keeps no versions",
        Versioning::Enabled => "can be brought back for as long as the bucket keeps its old versions",
        Versioning::Suspended => "can be brought back where it was written before versioning was suspended",
        Versioning::Unknown => "the store does not say whether it keeps versions",
    }
}
