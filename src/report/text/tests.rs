use serde_json::json;

use super::*;
use crate::decide::breakers::Breaker;
use crate::model::Versioning;
use crate::report::OrphanRecord;
use samples::{applied, audit, failed, orphans, patterns, reading, rehearsed, report, with_reading};

fn plain(summary: &Summary, orphans: &[OrphanRecord]) -> String {
    let patterns = patterns();
    let text = super::summary(&report(summary, orphans, &patterns), Style::Plain);
    for line in text.lines() {
        assert_eq!(line, line.trim_end(), "no trailing space");
        let may_be_wide = line.contains("orphan-sweeper ") || line.starts_with("Report: ");
        assert!(line.chars().count() <= WIDTH || may_be_wide, "too wide: {line}");
    }
    assert!(text.lines().count() <= 36, "{text}");
    assert!(text.ends_with('\n') && !text.contains('\u{1b}'));
    text
}

#[test]
fn audit_with_eligible_orphans_says_what_goes_what_stays_and_why() {
    let all = orphans(18);
    let mut summary = audit(&all);
    summary.eligible_bytes = 1_288_490_188;
    summary.eligible_objects = 1200;
    summary.orphan_bytes = 3_650_722_201;
    summary.orphan_objects = 4321;
    let expected = "\
Audit complete: 18 orphans (3.4 GiB) among 1,006 groups, of which 6 (1.2 GiB) are eligible for
deletion. Nothing was deleted.

Found in heimdall-synthetic-iq/synthetic/, as of 2025-11-23 03:00:00 UTC
  listed       1,006  groups (dataset prefixes)
  live           985  with a row in the database
  orphans         18  without a row: 4,321 objects, 3.4 GiB
  empty            3  without a row and without a current object
  foreign          2  keys and prefixes of no dataset, always kept: foreign.csv
  missing          1  rows that should have objects and have none: missing.csv

Orphans by verdict
  eligible      6  1,200 objects, 1.2 GiB
  kept         12  3,121 objects, 2.2 GiB
                4  younger than the grace period, by its newest object or by its first sighting
                2  seen by too few complete scans
                2  its sightings lie too close together
                2  an object is newer than the scan, or its age is unknown
                2  its objects changed since the scan before; its sightings start again
  The next can become eligible at 2025-11-30 03:00 UTC, 7 days after this scan.

Since the last complete run: 3 new, 15 persisting, 1 resolved; +1.2 GiB a day, which alone fills the
  store in at most 120 days.

Note:   The bucket keeps no versions: a deletion cannot be undone.
Report: reports/synthetic/019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4/report.html
Next:   orphan-sweeper apply reports/synthetic/latest/plan.json
";
    assert_eq!(plain(&summary, &all), expected);
}

#[test]
fn held_ids_are_told_with_who_and_why_and_not_by_the_dozen() {
    let all = orphans(3);
    let mut summary = audit(&all);
    summary.holds = samples::held(&["a paper\u{1b}[31m under review"]);
    let text = plain(&summary, &all);
    let expected = "
Held by persons
  2 ids are held; 1 of them kept an orphan in this run.
    01970000-0000-7000-8000-000000000000 until 2026-01-31 00:00:00 UTC, by ada (file): a
      paper\\u{1b}[31m under review
";
    assert!(text.contains(expected), "{text}");
    summary.holds = samples::held(&["x"; 12]);
    let text = super::summary(&report(&summary, &all, &patterns()), Style::Plain);
    assert_eq!(text.matches("by ada").count(), 5);
    assert!(text.contains("    and 7 more: report.html\n"), "{text}");
    summary.holds = samples::held(&[]);
    assert!(plain(&summary, &all).contains("  1 id is held; none of them kept anything in this run.\n"));
}

#[test]
fn audit_without_orphans_is_short() {
    let mut summary = audit(&[]);
    summary.missing = 0;
    summary.trend = None;
    let patterns = patterns();
    let text = super::summary(&Report { next_command: None, ..report(&summary, &[], &patterns) }, Style::Plain);
    let expected = "\
Audit complete: no orphans among 988 groups.

Found in heimdall-synthetic-iq/synthetic/, as of 2025-11-23 03:00:00 UTC
  listed       988  groups (dataset prefixes)
  live         985  with a row in the database
  orphans        0  without a row
  empty          3  without a row and without a current object
  foreign        2  keys and prefixes of no dataset, always kept: foreign.csv

Report: reports/synthetic/019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4/report.html
";
    assert_eq!(text, expected);
}

#[test]
fn latched_breaker_comes_with_its_cause_and_its_command() {
    let mut summary = audit(&[]);
    summary.outcome = Outcome::Refused;
    summary.reason = Some("a breaker tripped".into());
    let message = "heimdall.synthetic_datasets has no rows, yet the bucket has 1,000 groups: a wrong database or an \
                   emptied table makes every dataset look orphaned";
    with_reading(&mut summary, reading(Breaker::NoReferences, true, json!(0), json!(1), message));
    let latched = Reading {
        tripped: false,
        latched: true,
        ..reading(
            Breaker::LiveDrop,
            false,
            json!(0.0),
            json!(0.05),
            "waits for an acknowledgement since run 7: it fell",
        )
    };
    with_reading(&mut summary, latched);
    let text = plain(&summary, &[]);
    let expected = "
Nothing goes while what was seen is in doubt
  no_references: heimdall.synthetic_datasets has no rows, yet the bucket has 1,000 groups: a wrong
    database or an emptied table makes every dataset look orphaned
    Find out whether it is the right database and who emptied the table.
    Then: orphan-sweeper ack no_references --scope synthetic --by NAME --reason TEXT
  live_drop: waits for an acknowledgement since run 7: it fell
    Find out who removed the rows: a person, a restore, or a half-done reload.
    Then: orphan-sweeper ack live_drop --scope synthetic --by NAME --reason TEXT
";
    assert!(text.contains(expected), "{text}");
    let headline = "Audit refused: what was seen is not to be trusted (no_references). Nothing was deleted.\n";
    assert!(text.starts_with(headline), "{text}");
    assert!(!text.contains("Reason:"), "the breakers say it better");
}

#[test]
fn latch_of_an_earlier_run_is_not_blamed_on_this_one() {
    let mut summary = audit(&[]);
    summary.outcome = Outcome::Refused;
    let latched = Reading { latched: true, ..reading(Breaker::LiveDrop, false, json!(0.0), json!(0.05), "it fell") };
    with_reading(&mut summary, latched);
    let text = plain(&summary, &[]);
    assert!(
        text.starts_with("Audit refused: what an earlier run saw waits for an acknowledgement (live_drop)."),
        "{text}"
    );
}

#[test]
fn audit_over_a_size_limit_says_that_apply_would_refuse_and_how_to_pass() {
    let all = orphans(9);
    let mut summary = audit(&all);
    with_reading(
        &mut summary,
        reading(Breaker::OrphanShare, true, json!(0.83333), json!(0.1), "5 of 6 listed groups would go"),
    );
    with_reading(
        &mut summary,
        reading(
            Breaker::Objects,
            true,
            json!(2_500_000),
            json!(1_000_000),
            "2,500,000 objects would go, 1,000,000 may",
        ),
    );
    let text = plain(&summary, &all);
    let expected = "
`apply` would refuse this plan: more would go than the limits allow
  orphan_share: 5 of 6 listed groups would go
  objects: 2,500,000 objects would go, 1,000,000 may
  After a review, a person can lift the limits for this one plan, on record:
    orphan-sweeper apply reports/synthetic/019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4/plan.json --allow orphan_share=0.84 --allow objects=2500000
";
    assert!(text.contains(expected), "{text}");
    assert!(text.starts_with("Audit complete: "), "{text}");
}

#[test]
fn refused_apply_names_the_limits_and_its_own_plan() {
    let mut summary =
        Summary { command: "apply".into(), dry_run: false, outcome: Outcome::Refused, ..audit(&orphans(9)) };
    with_reading(&mut summary, reading(Breaker::Objects, true, json!(9), json!(1), "9 objects would go, 1 may"));
    let text = plain(&summary, &orphans(9));
    assert!(
        text.starts_with("Apply refused: more would go than the limits allow (objects). Nothing was deleted."),
        "{text}"
    );
    assert!(text.contains("\nMore would go than the limits allow\n"), "{text}");
    assert!(text.contains("    orphan-sweeper apply 9f86d081884c7d65"), "{text}");
}

#[test]
fn finished_apply_tells_planned_from_deleted() {
    let all = orphans(9);
    let text = plain(&applied(&all), &all);
    let expected = "
Deletion, in objects
  planned      1,200  objects of the plan, with one outcome each
  deleted      1,150  1.1 GiB freed
  already gone    20  before the request
  skipped         10  kept after all; deletions.csv says why
  failed          15  still there; deletions.csv says why
  unconfirmed      5  no reply that counts; the next run looks again
";
    assert!(text.contains(expected), "{text}");
    let headline = "Apply finished with failures: 1,150 of 1,200 planned objects were deleted and 1.1 GiB freed; 20\n\
                    already gone, 10 skipped, 15 failed, 5 unconfirmed.\n";
    assert!(text.starts_with(headline), "{text}");
    assert!(text.contains("Found in heimdall-synthetic-iq/synthetic/ before the deletion, as of "), "{text}");
    assert!(text.contains("what was deleted cannot be brought back"), "{text}");
}

#[test]
fn apply_on_a_versioned_bucket_frees_nothing_and_says_so() {
    let mut summary = applied(&[]);
    summary.target.versioning = Versioning::Enabled;
    summary.deletion = Some(Deletion { requested: 7, deleted: 7, bytes_marked: 2048, ..Deletion::default() });
    let text = plain(&summary, &[]);
    assert!(
        text.starts_with(
            "Apply complete: 7 of 7 planned objects were marked as deleted (2.0 KiB) and nothing was freed.\n"
        ),
        "{text}"
    );
    assert!(text.contains("  deleted      7  2.0 KiB marked and not freed\n"), "{text}");
    assert!(!text.contains("KiB freed"), "{text}");
}

#[test]
fn broken_off_apply_does_not_claim_that_nothing_went() {
    let mut summary = applied(&[]);
    summary.outcome = Outcome::Interrupted;
    summary.eligible_objects = 1500;
    let text = plain(&summary, &[]);
    let headline = "Apply interrupted before the deletion was finished. 1,150 of 1,200 objects that it";
    assert!(text.starts_with(headline), "{text}");
    assert!(!text.contains("Nothing was deleted"), "{text}");
    let sums = "
  planned      1,500  objects of the plan that might go when the deletion began
  requested    1,200  of its objects that the run came to, with one outcome each
  deleted      1,150  1.1 GiB freed
";
    assert!(text.contains(sums), "{text}");
    summary.deletion = Some(Deletion { requested: 3, unconfirmed: 3, ..Deletion::default() });
    assert!(!plain(&summary, &[]).contains("Nothing was deleted"));
    summary.deletion = Some(Deletion { requested: 3, failed: 3, ..Deletion::default() });
    assert!(plain(&summary, &[]).contains("Nothing was deleted"));
}

#[test]
fn failed_database_is_not_shown_as_an_empty_bucket() {
    let text = plain(&failed(), &[]);
    let expected = "\
Audit failed before the scan was complete. Nothing was deleted.
Reason: the live ids could not be read: connection refused (os error 111)

Found in heimdall-synthetic-iq/synthetic/
  not read: listed, live, orphans, empty, foreign, missing. Not read is not the same as none.

Report: reports/synthetic/019aaf2e-4d30-7c1a-9b5e-2f60a1b2c3d4/report.html
Next:   orphan-sweeper apply reports/synthetic/latest/plan.json
";
    assert_eq!(text, expected);
}

#[test]
fn dry_run_is_called_one() {
    let all = orphans(9);
    let summary = Summary { command: "sweep".into(), ..audit(&all) };
    assert!(plain(&summary, &all).starts_with("Dry run of sweep complete: 9 orphans"));
}

#[test]
fn colours_are_only_used_where_asked_for_and_change_no_word() {
    let all = orphans(9);
    let mut summary = audit(&all);
    with_reading(&mut summary, reading(Breaker::LiveDrop, true, json!(0.5), json!(0.05), "it fell"));
    let patterns = patterns();
    let report = report(&summary, &all, &patterns);
    let coloured = super::summary(&report, Style::Coloured);
    assert!(coloured.contains("\u{1b}[1;31mlive_drop\u{1b}[0m: it fell"));
    let codes = regex::Regex::new("\u{1b}\\[[0-9;]*m").expect("a regex");
    assert_eq!(codes.replace_all(&coloured, ""), super::summary(&report, Style::Plain));
}

#[test]
fn hostile_text_reaches_no_terminal() {
    let hostile = "a\u{1b}[31m\u{202e}\r\nb";
    let mut summary = failed();
    summary.reason = Some(hostile.into());
    summary.command = hostile.into();
    summary.report_dir = hostile.into();
    summary.target.bucket = hostile.into();
    summary.plan_hash = Some(hostile.into());
    with_reading(&mut summary, reading(Breaker::Incomplete, true, json!(1), json!(0), hostile));
    with_reading(&mut summary, reading(Breaker::Objects, true, json!(1), json!(0), hostile));
    let patterns = patterns();
    let report = Report { next_command: Some(hostile), ..report(&summary, &[], &patterns) };
    let text = super::summary(&report, Style::Plain);
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
    assert!(text.matches("a\\u{1b}[31m\\u{202e}\\u{d}\\u{a}b").count() >= 6, "{text}");
}

#[test]
fn endless_message_is_cut() {
    let mut summary = failed();
    summary.reason = Some("word ".repeat(1000));
    let text = plain(&summary, &[]);
    assert!(text.contains("... (all of it in report.html)"), "{text}");
}

#[test]
fn command_that_lifts_the_limits_is_shown_once() {
    let all = orphans(9);
    let mut summary = Summary { command: "apply".into(), dry_run: false, outcome: Outcome::Refused, ..audit(&all) };
    with_reading(&mut summary, reading(Breaker::Objects, true, json!(9), json!(1), "9 objects would go, 1 may"));
    let patterns = patterns();
    let command = words::allow_command(&report(&summary, &all, &patterns)).expect("a limit is in the way");
    let report = Report { next_command: Some(&command), ..report(&summary, &all, &patterns) };
    let text = super::summary(&report, Style::Plain);
    assert_eq!(text.matches("--allow objects=9").count(), 1, "{text}");
    assert!(text.contains(&format!("Next:   {command}\n")), "{text}");
}

#[test]
fn orphans_that_apply_did_not_open_have_no_size() {
    let all = orphans(6);
    let mut summary = rehearsed(&all);
    (summary.eligible_objects, summary.eligible_bytes) = (1500, 2_147_483_648);
    let text = plain(&summary, &all);
    let headline = "Dry run of apply complete: 2 groups of the plan (1,500 objects, 2.0 GiB) would go. Nothing was\n\
                    deleted.\n";
    assert!(text.starts_with(headline), "{text}");
    assert!(text.contains("  orphans       20  without a row; this run opened only those of its plan\n"), "{text}");
    assert!(text.contains("  not read: empty. "), "{text}");
    assert!(text.contains("\n  kept         18\n"), "{text}");
    assert!(text.contains("               14  not part of this plan, so neither opened nor judged\n"), "{text}");
}

#[test]
fn apply_that_asked_for_nothing_says_so() {
    let mut summary = Summary { dry_run: false, ..rehearsed(&[]) };
    summary.groups.eligible = 0;
    let text = plain(&summary, &[]);
    assert!(text.starts_with("Apply complete: nothing of the plan is left to delete.\n"), "{text}");
}
