//! history verify: whether what was recorded is what the ledger, and the reports beside it, still say.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CommandError, Host, load, open_ledger, print_json, print_text, scopes};
use crate::cli::Global;
use crate::config::Config;
use crate::exit::Exit;
use crate::model::{Sha256Hash, human_count};
use crate::record::{ChainFault, KnownHead, Verified};

/// A report beside the ledger that tells a head.
struct KeptReport {
    path: PathBuf,
    run: String,
    summary: Sha256Hash,
    head: KnownHead,
}

pub(super) async fn verify(global: &Global, host: &Host, head: Option<String>) -> Result<Exit, CommandError> {
    let config = load(global, host)?;
    let given = head.map(|text| read_head(&text)).transpose()?;
    let ledger = open_ledger(&config, host).await?;
    let reports = kept_reports(&config, global, ledger.id())?;
    let heads: Vec<KnownHead> = given.iter().chain(reports.iter().map(|report| &report.head)).cloned().collect();
    let outcome = ledger.verify_chain(&heads).await?.and_then(|verified| {
        compare_reports(&reports, &verified)?;
        Ok(verified)
    });
    match outcome {
        Ok(verified) => tell(global, &verified, given.as_ref(), reports.len()),
        Err(fault) => return Ok(tell_fault(global, &fault)),
    }
    Ok(Exit::Done)
}

fn read_head(text: &str) -> Result<KnownHead, CommandError> {
    let hash = Sha256Hash::parse(&text.to_lowercase()).ok_or_else(|| {
        CommandError::usage(
            format!("`{text}` is no head of the chain"),
            "write the 64 hexadecimal digits of `journal.head` in a summary.json, or of `journal_head` in a log",
        )
    })?;
    Ok(KnownHead { hash, entries: None, noted: "that was given".into() })
}

/// Every report of the scopes that tells a head of this ledger's chain. One that another ledger wrote says nothing of this one.
fn kept_reports(config: &Config, global: &Global, ledger: Uuid) -> Result<Vec<KeptReport>, CommandError> {
    let mut reports = Vec::new();
    for scope in scopes(config, global)? {
        let folder = config.reports_directory.join(&scope.name);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        // `latest` is one of the others.
        let runs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        reports.extend(runs.filter_map(|run| read_report(&run.path().join("summary.json"), ledger)));
    }
    reports.sort_by_key(|report| report.head.entries);
    Ok(reports)
}

fn read_report(path: &Path, ledger: Uuid) -> Option<KeptReport> {
    let bytes = std::fs::read(path).ok()?;
    let summary: Value = serde_json::from_slice(&bytes).ok()?;
    if summary["ledger"]["id"].as_str()? != ledger.to_string() {
        return None;
    }
    let head = KnownHead {
        hash: Sha256Hash::parse(summary["journal"]["head"].as_str()?)?,
        entries: summary["journal"]["entries"].as_u64(),
        noted: format!("that `{}` tells", path.display()),
    };
    let run = summary["run_id"].as_str()?.to_owned();
    Some(KeptReport { path: path.to_path_buf(), run, summary: Sha256Hash::of(&bytes), head })
}

/// A report must be, to the last byte, the one that its run chained.
fn compare_reports(reports: &[KeptReport], verified: &Verified) -> Result<(), ChainFault> {
    for report in reports {
        let chained = verified.summaries.get(&report.run);
        if chained.is_some_and(|chained| *chained != report.summary.to_string()) {
            let what = format!("`{}` was edited: run {} wrote another one", report.path.display(), report.run);
            return Err(ChainFault { entry: None, what });
        }
    }
    Ok(())
}

fn tell(global: &Global, verified: &Verified, given: Option<&KnownHead>, reports: usize) {
    let Verified { head, compacted, rows, .. } = verified;
    let since = given.map(|_| verified.since[0]);
    if global.json {
        print_json(&json!({
            "verified": true, "entries": head.entries, "head": head.hash, "compacted": compacted, "rows": rows,
            "reports": reports, "given": given.map(|given| json!({ "head": given.hash, "entries_since": since })),
        }));
        return;
    }
    let mut text = format!(
        "verified: {} entries, {} rows and {} reports agree\nhead: {}\n",
        human_count(head.entries),
        human_count(*rows),
        human_count(reports as u64),
        head.hash
    );
    if *compacted > 0 {
        text.push_str(&format!("a checkpoint stands for the first {} entries\n", human_count(*compacted)));
    }
    if let Some(Some(since)) = since {
        text.push_str(&format!("the head that was given is in the chain; {} entries came since\n", human_count(since)));
    }
    print_text(&text);
}

fn tell_fault(global: &Global, fault: &ChainFault) -> Exit {
    if global.json {
        print_json(&json!({ "verified": false, "fault": { "entry": fault.entry, "message": fault.what } }));
    } else {
        print_text(&format!("not verified: {fault}\n"));
    }
    Exit::Failed
}
