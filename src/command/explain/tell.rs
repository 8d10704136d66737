//! The explanation as a terminal shows it.

use serde_json::{Value, json};

use crate::model::{human_bytes, human_count, visible};

/// The lines of one scope.
pub(super) fn tell(document: &Value) -> String {
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let mut out = format!("{} in scope {}: {}\n  {}\n\n", text("id"), text("scope"), text("verdict"), text("summary"));
    for rule in list(document, "rules") {
        out.push_str(&tell_rule(rule));
    }
    for group in list(document, "groups") {
        let spelling = if group["canonical"] == json!(true) { "" } else { ", in an odd spelling: never deleted" };
        out.push_str(&format!(
            "\n  {}: {} objects, {}{spelling}\n",
            visible(field(group, "prefix")),
            human_count(group["objects"].as_u64().unwrap_or(0)),
            human_bytes(group["bytes"].as_u64().unwrap_or(0))
        ));
    }
    if let Some(at) = document["eligible_at"].as_str().filter(|_| document["verdict"] == json!("keep")) {
        out.push_str(&format!("\n  It could become eligible at {at}, if scans go on and nothing changes.\n"));
    }
    for plan in list(document, "plans") {
        let decision = match plan["decision"].as_str() {
            Some(decision) => {
                format!("{decision} by {}: {}", visible(field(plan, "by")), visible(field(plan, "reason")))
            }
            None => "nobody decided".to_owned(),
        };
        out.push_str(&format!(
            "\n  plan {} ({}, expires {}): {decision}\n",
            field(plan, "plan_hash"),
            field(plan, "state"),
            field(plan, "expires_at")
        ));
    }
    for latch in list(document, "latched") {
        out.push_str(&format!("\n  latched: {}: {}\n", field(latch, "breaker"), visible(field(latch, "message"))));
    }
    for disposal in list(document, "disposals") {
        out.push_str(&tell_disposal(disposal));
    }
    out
}

fn list<'d>(document: &'d Value, name: &str) -> impl Iterator<Item = &'d Value> {
    document[name].as_array().into_iter().flatten()
}

fn field<'d>(value: &'d Value, name: &str) -> &'d str {
    value[name].as_str().unwrap_or_default()
}

fn tell_rule(rule: &Value) -> String {
    let mark = if rule["passes"] == json!(true) { "yes" } else { "no " };
    let mut out =
        format!("  {mark}  {:<47} {} (needed: {})\n", field(rule, "rule"), field(rule, "found"), field(rule, "needed"));
    if let Some(change) = rule["to_change"].as_str() {
        out.push_str(&format!("         to change: {change}\n"));
    }
    out
}

fn tell_disposal(disposal: &Value) -> String {
    let mut out = format!(
        "\n  {}: {} {} by run {} with plan {}\n",
        field(disposal, "at"),
        visible(field(disposal, "prefix")),
        field(disposal, "outcome"),
        field(disposal, "run_id"),
        field(disposal, "plan_hash")
    );
    if let Some(undo) = disposal["undo"].as_str() {
        out.push_str(&format!(
            "    {} objects, {} deleted; {undo}\n",
            human_count(disposal["objects"].as_u64().unwrap_or(0)),
            human_bytes(disposal["bytes"].as_u64().unwrap_or(0))
        ));
    }
    let word = &disposal["let_go_by"];
    match (word["kind"].as_str(), word["by"].as_str()) {
        (Some(_), Some(by)) => out.push_str(&format!(
            "    let go by {} at {}: {}\n",
            visible(by),
            field(word, "at"),
            visible(field(word, "reason"))
        )),
        (Some(kind), None) => out.push_str(&format!("    let go by the {kind}: {}\n", field(word, "reason"))),
        (None, _) => {}
    }
    out
}
