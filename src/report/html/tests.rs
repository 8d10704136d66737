use serde_json::json;

use super::*;
use crate::decide::breakers::Breaker;
use crate::report::text::samples::{
    applied, audit, failed, held, oddly_spelled, orphans, patterns, reading, rehearsed, report, with_reading,
};

fn page(summary: &Summary, orphans: &[OrphanRecord]) -> String {
    let patterns = patterns();
    render(&report(summary, orphans, &patterns)).expect("the template holds")
}

/// The page without its style and script, which are ours.
fn body(html: &str) -> &str {
    let start = html.find("<body>").expect("a body");
    &html[start..html.find("<script>").expect("a script")]
}

fn text_between<'t>(html: &'t str, start: &str, end: &str) -> &'t str {
    let rest = &html[html.find(start).expect("the start") + start.len()..];
    &rest[..rest.find(end).expect("the end")]
}

#[test]
fn hostile_text_is_shown_and_not_obeyed() {
    let hostile = "synthetic/<script>alert(1)</script>\u{202e}\u{1b}[31m\"'&\n/";
    let orphans = [oddly_spelled(hostile)];
    let mut summary = audit(&orphans);
    summary.reason = Some(hostile.into());
    summary.scope = hostile.into();
    summary.command = hostile.into();
    summary.report_dir = hostile.into();
    summary.target.bucket = hostile.into();
    summary.target.endpoint = hostile.into();
    summary.target.database = hostile.into();
    summary.tool_version = hostile.into();
    summary.plan_hash = Some(hostile.into());
    summary.coverage.errors = vec![hostile.into()];
    summary.holds = held(&[hostile]);
    with_reading(
        &mut summary,
        reading(Breaker::DatabaseIdentity, true, json!(hostile), json!({ hostile: hostile }), hostile),
    );
    with_reading(&mut summary, reading(Breaker::Objects, true, json!(9), json!(1), hostile));
    let patterns = patterns();
    let report = Report { next_command: Some(hostile), ..report(&summary, &orphans, &patterns) };
    let html = render(&report).expect("the template holds");
    assert_eq!(html.matches("<script").count(), 1, "only our own script");
    assert!(!html.contains(['\u{202e}', '\u{1b}']), "no control or bidirectional character");
    let shown = "synthetic/&#60;script&#62;alert(1)&#60;/script&#62;\\u{202e}\\u{1b}[31m&#34;&#39;&#38;\\u{a}/";
    assert!(body(&html).contains(&format!("<td>{shown}</td>")), "the prefix is shown escaped");
    assert!(html.matches(shown).count() >= 10, "so is everything else");
}

#[test]
fn held_ids_are_listed_with_who_and_why() {
    let mut summary = audit(&orphans(3));
    assert!(!page(&summary, &orphans(3)).contains("Held by persons"), "nobody holds any");
    summary.holds = held(&["a paper under review"; 2]);
    let html = page(&summary, &orphans(3));
    let section = text_between(&html, "id=\"held-title\"", "</section>");
    for part in [
        "3 ids are held; 2 of them kept an orphan in this run.",
        "ada",
        "2026-01-31 00:00:00 UTC",
        "file",
        "a paper under review",
    ] {
        assert!(section.contains(part), "`{part}` is not in {section}");
    }
}

#[test]
fn table_is_cut_after_the_largest_and_says_so() {
    let all = orphans(10_003);
    let html = page(&audit(&all), &all);
    assert_eq!(html.matches("<tr><td>").count(), MAX_ROWS);
    assert!(html.contains("The 10,000 largest of 10,003 orphans"));
    assert!(html.contains("3 smaller orphans are not shown"));
    let mut sizes: Vec<u64> = all.iter().map(|orphan| orphan.bytes).collect();
    sizes.sort_unstable();
    let rows = largest(&report(&audit(&all), &all, &patterns())).iter().map(|row| row.orphan.bytes).collect::<Vec<_>>();
    assert_eq!(rows.first(), sizes.last(), "the largest comes first");
    assert!(rows.is_sorted_by(|a, b| a >= b));
    assert_eq!(rows.last(), sizes.get(3), "the three smallest are left out");
}

#[test]
fn table_of_exactly_the_limit_is_not_cut() {
    let all = orphans(10_000);
    let html = page(&audit(&all), &all);
    assert_eq!(html.matches("<tr><td>").count(), MAX_ROWS);
    assert!(html.contains("All 10,000 orphans"));
    assert!(!html.contains("is cut"));
}

#[test]
fn order_of_the_orphans_does_not_change_the_page() {
    let all = orphans(40);
    let mut reversed = all.clone();
    reversed.reverse();
    let summary = audit(&all);
    assert_eq!(page(&summary, &all), page(&summary, &reversed));
}

#[test]
fn failed_run_says_not_read_and_shows_no_zero() {
    let summary = failed();
    let html = page(&summary, &[]);
    let body = body(&html);
    assert_eq!(body.matches(r#"<span class="value">not read</span>"#).count(), 8);
    assert!(!body.contains(r#"<span class="value">0</span>"#));
    assert!(body.contains("Audit failed before the scan was complete. Nothing was deleted."));
    assert!(body.contains("connection refused"));
    assert_eq!(body.matches(r#"<span class="state">not judged</span>"#).count(), 12);
    assert!(!body.contains("There are no orphans"));
}

#[test]
fn partial_counts_are_shown_as_partial() {
    let mut summary = failed();
    summary.outcome = Outcome::Incomplete;
    summary.groups.listed = 500;
    let html = page(&summary, &[]);
    assert_eq!(html.matches(r#"<span class="value">not read</span>"#).count(), 7);
    assert!(html.contains(r#"<span class="value">500</span>"#));
    assert!(html.contains("This run has no complete scan."));
    assert!(html.contains(r#"<span class="pill quiet">partial</span>"#));
}

#[test]
fn policy_allows_nothing_but_our_style_and_script() {
    let html = page(&audit(&orphans(3)), &orphans(3));
    let policy = text_between(&html, r#"Content-Security-Policy" content=""#, r#"">"#).replace("&#39;", "'");
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256Hash::of(text.as_bytes()).0));
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains(&format!("style-src {};", hash(text_between(&html, "<style>", "</style>")))), "{policy}");
    assert!(
        policy.contains(&format!("script-src {};", hash(text_between(&html, "<script>", "</script>")))),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(html.find("Content-Security-Policy") < html.find("<style>"), "before what it governs");
    for forbidden in [" style=", " onclick=", " onload=", " src=", "@import", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn page_refers_to_nothing_outside() {
    let mut summary = audit(&orphans(3));
    // What is left after the data is ours.
    summary.target.endpoint = "the store".into();
    summary.target.database = "the database".into();
    summary.breakers.clear();
    let html = page(&summary, &orphans(3));
    for reference in ["http:", "https:", "//", "<link", "<img", "<iframe"] {
        let found = html.matches(reference).count();
        let in_script = SCRIPT.matches(reference).count();
        assert_eq!(found, in_script, "{reference}");
    }
    for reference in ["http:", "https:"] {
        assert!(!SCRIPT.contains(reference) && !STYLE.contains(reference), "{reference}");
    }
}

#[test]
fn an_eligible_group_in_an_unversioned_bucket_comes_with_a_warning() {
    let all = orphans(9);
    let mut summary = audit(&all);
    assert!(page(&summary, &all).contains("a deletion cannot be undone"));
    summary.target.versioning = Versioning::Enabled;
    let html = page(&summary, &all);
    assert!(!html.contains("cannot be undone"));
    assert!(html.contains("nothing is freed until the"));
}

#[test]
fn planned_is_told_apart_from_deleted_and_marked_from_freed() {
    let all = orphans(9);
    let mut summary = applied(&all);
    let html = page(&summary, &all);
    assert!(html.contains("What was found, before the deletion"));
    for (label, objects) in [
        ("Planned", "1,200"),
        ("Deleted", "1,150"),
        ("Already gone", "20"),
        ("Skipped", "10"),
        ("Failed", "15"),
        ("Unconfirmed", "5"),
    ] {
        assert!(html.contains(&format!(r#"{label}</th><td class="n" data-label="Objects">{objects}</td>"#)), "{label}");
    }
    assert!(html.contains("<dt>Freed</dt><dd>1.1 GiB</dd>"));
    assert!(html.contains("<dt>Marked, not freed</dt><dd>0 B</dd>"));
    assert!(html.contains("what was deleted cannot be brought back"));
    summary.target.versioning = Versioning::Enabled;
    let deletion = summary.deletion.as_mut().expect("an apply");
    (deletion.bytes_marked, deletion.bytes_deleted) = (deletion.bytes_deleted, 0);
    let html = page(&summary, &all);
    assert!(html.contains("<dt>Freed</dt><dd>0 B</dd>"));
    assert!(html.contains("<dt>Marked, not freed</dt><dd>1.1 GiB</dd>"));
    assert!(html.contains("Marked as deleted</th>"));
    assert!(html.contains("1,150 of 1,200 planned objects were marked as deleted (1.1 GiB) and nothing was freed"));
}

#[test]
fn breaker_that_refuses_says_what_to_do() {
    let mut summary = audit(&[]);
    summary.outcome = Outcome::Refused;
    let tripped = reading(Breaker::NoReferences, true, json!(0), json!(1), "heimdall.synthetic_datasets has no rows");
    with_reading(&mut summary, tripped);
    with_reading(
        &mut summary,
        reading(Breaker::Bytes, true, json!(2_199_023_255_552_u64), json!(1_099_511_627_776_u64), "more"),
    );
    with_reading(&mut summary, Reading::not_judged(Breaker::LiveDrop, "no earlier scan to compare with"));
    let html = page(&summary, &[]);
    assert!(html.contains("orphan-sweeper ack no_references --scope synthetic --by NAME --reason TEXT"));
    assert!(html.contains("/plan.json --allow bytes=2199023255552"));
    assert!(html.contains("tripped, latched"));
    assert!(html.contains("2.0 TiB"));
    assert!(html.contains(r#"<span class="state">not judged</span>"#));
    assert!(html.contains("what was seen is not to be trusted (no_references)"));
}

#[test]
fn charts_have_their_numbers_in_words() {
    let all = orphans(90);
    let html = page(&audit(&all), &all);
    assert!(html.contains(r#"role="img" aria-label="Orphans by verdict, in groups. eligible: 30 (33.33 %);"#));
    assert!(html.contains("<title>eligible: 30 (33.33 %)</title>"));
    assert!(html.contains("kept, within grace<small>younger than the grace period"));
    assert!(html.contains("<th scope=\"row\">90–365 days</th>"));
    assert_eq!(html.matches("<th>").count(), 0, "every header says what it heads");
}

#[test]
fn run_that_broke_off_after_its_scan_shows_what_the_scan_found() {
    let all = orphans(9);
    let mut summary = applied(&all);
    summary.outcome = Outcome::Interrupted;
    summary.reason = Some("it was told to stop".into());
    summary.coverage.complete = false;
    summary.coverage.errors = vec!["it was told to stop".into()];
    summary.groups.empty = 0;
    summary.eligible_objects = 1500;
    let html = page(&summary, &all);
    for (label, objects) in [("Planned", "1,500"), ("Requested", "1,200"), ("Deleted", "1,150")] {
        assert!(html.contains(&format!(r#"{label}</th><td class="n" data-label="Objects">{objects}</td>"#)), "{label}");
    }
    assert!(!html.contains("not read"));
    assert!(!html.contains("no complete scan"));
    assert!(
        html.contains("Apply interrupted before the deletion was finished. 1,150 of 1,200 objects that it came to")
    );
    summary.deletion = None;
    let html = page(&summary, &all);
    assert!(!html.contains("not read"), "its sizes were judged, so its scan was complete");
    assert!(html.contains("Apply interrupted after the scan was complete. Nothing was deleted."));
}

#[test]
fn orphans_that_apply_did_not_open_have_no_size() {
    let all = orphans(6);
    let html = page(&rehearsed(&all), &all);
    assert!(html.contains(r#"<span class="label">Orphans</span> <span class="value">20</span> <span class="detail">"#));
    assert!(html.contains(r#"<span class="label">Kept</span> <span class="value">18</span> <span class="detail">"#));
    assert!(html.contains(r#"<span class="label">Empty</span> <span class="value">not read</span>"#));
    assert!(html.contains("not opened<small>not part of this plan"));
    assert!(html.contains(r#"<td class="n" data-label="Bytes">unknown</td>"#));
    assert!(html.contains("others without a row <b>18</b>") && !html.contains("empty <b>"));
    assert!(html.contains("The orphans of this plan (6), largest first"));
    assert!(html.contains("Dry run of apply complete: 2 groups of the plan ("));
}
