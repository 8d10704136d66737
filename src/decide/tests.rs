use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::sightings::{leap, sight};
use super::*;
use crate::config::{Approval, Disposal};
use crate::model::{DatasetId, Grace, RunId};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn run(n: u128) -> RunId {
    RunId(Uuid::from_u128(n))
}

fn policy() -> Policy {
    Policy {
        grace: Grace(Duration::from_secs(7 * 24 * 3600)),
        min_sightings: 3,
        min_sighting_span: Duration::from_secs(2 * 24 * 3600),
        plan_expires: Duration::from_secs(3 * 24 * 3600),
        disposal: Disposal::Delete,
        approval: Approval::Required,
        unsafe_short_grace: false,
    }
}

fn content(newest: Option<Timestamp>, digest: u8) -> GroupContent {
    GroupContent {
        objects: 1,
        bytes: 1,
        oldest: newest,
        newest,
        has_unknown_age: newest.is_none(),
        digest: Sha256Hash([digest; 32]),
        chunks: vec![Sha256Hash([digest; 32])],
    }
}

fn group(pattern: u8) -> Group {
    Group { id: DatasetId(Uuid::from_u128(7)), pattern, odd_spelling: None }
}

fn orphan(newest: &[i64]) -> Orphan {
    let groups =
        newest.iter().zip(0_u8..).map(|(newest, pattern)| (group(pattern), content(Some(at(*newest)), 1))).collect();
    Orphan { groups }
}

/// The history of scans at `times`, each of which saw the same.
fn seen_at(orphan: &Orphan, times: &[i64], policy: &Policy) -> Sighting {
    let mut history = None;
    for (n, time) in times.iter().enumerate() {
        history = Some(sight(history.as_ref(), orphan.digest(), run(n as u128), at(*time), policy));
    }
    history.expect("at least one scan")
}

fn verdict(orphan: &Orphan, times: &[i64], policy: &Policy) -> Verdict {
    let as_of = at(*times.last().expect("at least one scan"));
    decide(orphan, &seen_at(orphan, times, policy), policy, as_of)
}

fn nights(count: i64) -> Vec<i64> {
    (0..count).map(|night| night * DAY).collect()
}

#[test]
fn nightly_scans_mature_after_exactly_the_grace_period() {
    let old = orphan(&[-90 * DAY]);
    for count in 1..=7 {
        assert_eq!(verdict(&old, &nights(count), &policy()), Verdict::Keep(KeepReason::WithinGrace), "night {count}");
    }
    assert_eq!(verdict(&old, &nights(8), &policy()), Verdict::Eligible);
}

#[test]
fn orphan_one_second_short_of_grace_is_kept_on_both_clocks() {
    let times = |last: i64| [0, 3 * DAY, 6 * DAY, last];
    let old = orphan(&[-90 * DAY]);
    assert_eq!(verdict(&old, &times(7 * DAY - 1), &policy()), Verdict::Keep(KeepReason::WithinGrace));
    assert_eq!(verdict(&old, &times(7 * DAY), &policy()), Verdict::Eligible);
    let until = 30 * DAY;
    let daily: Vec<i64> = nights(31);
    for (newest, expected) in [
        (until - 7 * DAY + 1, Verdict::Keep(KeepReason::WithinGrace)),
        (until - 7 * DAY, Verdict::Eligible),
        (until - 7 * DAY - 1, Verdict::Eligible),
    ] {
        assert_eq!(verdict(&orphan(&[newest]), &daily, &policy()), expected, "newest at {newest}");
    }
}

#[test]
fn one_group_being_written_keeps_its_twin() {
    assert_eq!(verdict(&orphan(&[-90 * DAY, 7 * DAY]), &nights(9), &policy()), Verdict::Keep(KeepReason::WithinGrace));
    assert_eq!(verdict(&orphan(&[-90 * DAY, -90 * DAY]), &nights(9), &policy()), Verdict::Eligible);
}

#[test]
fn too_few_sightings_keep_whatever_the_calendar_says() {
    let old = orphan(&[-90 * DAY]);
    assert_eq!(verdict(&old, &[0, 7 * DAY], &policy()), Verdict::Keep(KeepReason::TooFewSightings));
    assert_eq!(verdict(&old, &[0, 7 * DAY, 14 * DAY], &policy()), Verdict::Eligible, "a weekly schedule matures");
}

#[test]
fn sightings_close_together_keep() {
    let unsafe_policy = Policy { grace: Grace(Duration::from_secs(10)), unsafe_short_grace: true, ..policy() };
    let old = orphan(&[-90 * DAY]);
    let almost = 2 * DAY - 1;
    assert_eq!(verdict(&old, &[0, HOUR, almost], &unsafe_policy), Verdict::Keep(KeepReason::SightingSpanTooShort));
    assert_eq!(verdict(&old, &[0, HOUR, 2 * DAY], &unsafe_policy), Verdict::Eligible);
}

#[test]
fn one_jump_of_every_clock_matures_nothing() {
    let old = orphan(&[-90 * DAY]);
    let jumped = [0, DAY, 400 * DAY];
    assert_eq!(verdict(&old, &jumped, &policy()), Verdict::Keep(KeepReason::WithinGrace));
    let after = [0, DAY, 400 * DAY, 401 * DAY, 402 * DAY, 403 * DAY];
    assert_eq!(verdict(&old, &after[..5], &policy()), Verdict::Keep(KeepReason::WithinGrace));
    assert_eq!(
        verdict(&old, &after, &policy()),
        Verdict::Eligible,
        "one day, a jump worth half the grace, and three more days"
    );
}

#[test]
fn the_cap_on_a_gap_is_grace_over_the_gaps_between_sightings() {
    let old = orphan(&[-90 * DAY]);
    let half = 7 * DAY / 2;
    assert_eq!(seen_at(&old, &[0, 100 * DAY], &policy()).witnessed, chrono::Duration::seconds(half));
    let four = Policy { min_sightings: 5, ..policy() };
    assert_eq!(seen_at(&old, &[0, 100 * DAY], &four).witnessed, chrono::Duration::seconds(7 * DAY / 4));
    let uncapped = Policy { unsafe_short_grace: true, ..policy() };
    assert_eq!(seen_at(&old, &[0, 100 * DAY], &uncapped).witnessed, chrono::Duration::days(100));
}

#[test]
fn a_change_starts_the_sightings_again_and_is_said() {
    let old = orphan(&[-90 * DAY]);
    let before = seen_at(&old, &nights(8), &policy());
    let after = sight(Some(&before), Sha256Hash([9; 32]), run(99), at(8 * DAY), &policy());
    assert_eq!((after.sightings, after.first_seen, after.first_run, after.is_changed), (1, at(8 * DAY), run(99), true));
    assert_eq!(decide(&old, &after, &policy(), at(8 * DAY)), Verdict::Keep(KeepReason::ChangedSinceSeen));
    let next = sight(Some(&after), Sha256Hash([9; 32]), run(100), at(9 * DAY), &policy());
    assert_eq!((next.sightings, next.is_changed, next.first_run), (2, false, run(99)));
}

#[test]
fn time_that_goes_back_starts_the_sightings_again() {
    let old = orphan(&[-90 * DAY]);
    let before = seen_at(&old, &nights(8), &policy());
    let same_moment = sight(Some(&before), before.digest, run(50), before.last_seen, &policy());
    assert_eq!((same_moment.sightings, same_moment.first_seen), (9, at(0)));
    let after =
        sight(Some(&before), before.digest, run(50), before.last_seen - chrono::Duration::seconds(1), &policy());
    assert_eq!((after.sightings, after.first_run, after.is_changed), (1, run(50), false));
}

#[test]
fn unknown_and_future_ages_keep() {
    let future = orphan(&[9 * DAY + 1]);
    assert_eq!(verdict(&future, &nights(10), &policy()), Verdict::Keep(KeepReason::NewerThanScan));
    let unknown = Orphan { groups: vec![(group(0), content(Some(at(-90 * DAY)), 1)), (group(1), content(None, 1))] };
    assert_eq!(verdict(&unknown, &nights(10), &policy()), Verdict::Keep(KeepReason::NewerThanScan));
    let nothing = Orphan { groups: Vec::new() };
    assert_eq!(verdict(&nothing, &nights(10), &policy()), Verdict::Keep(KeepReason::NewerThanScan));
}

#[test]
fn an_object_exactly_as_new_as_the_scan_is_not_newer() {
    let zero_grace = Policy {
        grace: Grace(Duration::ZERO),
        min_sightings: 1,
        min_sighting_span: Duration::ZERO,
        unsafe_short_grace: true,
        ..policy()
    };
    assert_eq!(verdict(&orphan(&[0]), &[0], &zero_grace), Verdict::Eligible);
    assert_eq!(verdict(&orphan(&[1]), &[0], &zero_grace), Verdict::Keep(KeepReason::NewerThanScan));
}

#[test]
fn an_odd_spelling_is_kept_for_that_alone() {
    let odd = Group { odd_spelling: Some("synthetic/X/".into()), ..group(0) };
    assert_eq!(verdict_of_group(&odd, Verdict::Eligible), Verdict::Keep(KeepReason::NotCanonical));
    assert_eq!(verdict_of_group(&group(0), Verdict::Eligible), Verdict::Eligible);
    let young = Verdict::Keep(KeepReason::WithinGrace);
    assert_eq!(verdict_of_group(&group(0), young), young);
}

#[test]
fn the_digest_of_an_id_covers_every_group_and_its_pattern() {
    let one = Orphan { groups: vec![(group(0), content(Some(at(0)), 1))] };
    let other_pattern = Orphan { groups: vec![(group(1), content(Some(at(0)), 1))] };
    let other_content = Orphan { groups: vec![(group(0), content(Some(at(0)), 2))] };
    let both = Orphan { groups: [one.groups.clone(), other_pattern.groups.clone()].concat() };
    let digests = [one.digest(), other_pattern.digest(), other_content.digest(), both.digest()];
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "{index}");
    }
    let empty = (group(1), GroupContent { objects: 0, chunks: Vec::new(), ..content(None, 0) });
    let with_empty = Orphan { groups: vec![one.groups[0].clone(), empty.clone()] };
    assert_eq!(with_empty.digest(), one.digest(), "a prefix that shows nothing is no content");
    assert!(!with_empty.is_empty());
    assert!(Orphan { groups: vec![empty] }.is_empty());
}

#[test]
fn the_next_date_is_the_latest_of_what_is_waited_for() {
    let old = orphan(&[-90 * DAY]);
    let next = |orphan: &Orphan, times: &[i64]| {
        let as_of = at(*times.last().expect("a scan"));
        eligible_at(orphan, &seen_at(orphan, times, &policy()), &policy(), as_of)
    };
    assert_eq!(next(&old, &[0]), Some(at(7 * DAY)), "first seen now");
    assert_eq!(next(&orphan(&[DAY]), &[DAY]), Some(at(8 * DAY)), "written now");
    assert_eq!(next(&old, &[0, DAY, 400 * DAY]), Some(at(400 * DAY + 7 * DAY - DAY - 7 * DAY / 2)), "after a jump");
    assert_eq!(next(&Orphan { groups: vec![(group(0), content(None, 1))] }, &[0]), None);
}

#[test]
fn an_upload_keeps_whatever_the_other_rules_say() {
    let young = Verdict::Keep(KeepReason::WithinGrace);
    for verdict in [Verdict::Eligible, young] {
        assert_eq!(unless_uploading(verdict, Uploading::InProgress), Verdict::Keep(KeepReason::UploadInProgress));
        assert_eq!(unless_uploading(verdict, Uploading::NoneTold), verdict);
    }
}

#[test]
fn what_the_store_refused_rests_for_one_grace_period_to_the_second() {
    let young = Verdict::Keep(KeepReason::WithinGrace);
    let rests = |seconds| unless_refused(Verdict::Eligible, Some(at(0)), &policy(), at(seconds));
    assert_eq!(rests(7 * DAY - 1), Verdict::Keep(KeepReason::Undeletable));
    assert_eq!(rests(7 * DAY), Verdict::Eligible);
    assert_eq!(rests(-DAY), Verdict::Keep(KeepReason::Undeletable), "a clock that went back lets nothing go");
    assert_eq!(unless_refused(Verdict::Eligible, None, &policy(), at(0)), Verdict::Eligible);
    assert_eq!(unless_refused(young, Some(at(0)), &policy(), at(DAY)), young);
}

#[test]
fn the_words_of_the_reports_are_those_of_the_interface() {
    assert_eq!((Verdict::Eligible.as_str(), Verdict::Eligible.reason()), ("eligible", "eligible"));
    let words = [
        "within_grace",
        "too_few_sightings",
        "sighting_span_too_short",
        "newer_than_scan",
        "changed_since_seen",
        "not_canonical",
        "newer_than_backfill",
        "held",
        "upload_in_progress",
        "undeletable",
    ];
    for (reason, word) in KeepReason::ALL.into_iter().zip(words) {
        assert_eq!((Verdict::Keep(reason).as_str(), Verdict::Keep(reason).reason()), ("keep", word));
    }
    let meanings: std::collections::BTreeSet<_> = KeepReason::ALL.into_iter().map(KeepReason::meaning).collect();
    assert!(
        meanings.len() == KeepReason::ALL.len() && meanings.iter().all(|meaning| meaning.len() > 20),
        "each says something else"
    );
}

/// What a backfill decides about an orphan that scans at `times` saw.
fn backfilled(orphan: &Orphan, times: &[i64], policy: &Policy, created_before: i64) -> Verdict {
    let as_of = at(*times.last().expect("at least one scan"));
    let waiver = Waiver::FirstSighting { created_before: at(created_before) };
    decide_with(waiver, orphan, &seen_at(orphan, times, policy), policy, as_of)
}

#[test]
fn a_backfill_waives_the_time_since_the_first_sighting_and_nothing_else() {
    let old = orphan(&[-90 * DAY]);
    let three_scans = [0, DAY, 2 * DAY];
    assert_eq!(verdict(&old, &three_scans, &policy()), Verdict::Keep(KeepReason::WithinGrace));
    assert_eq!(backfilled(&old, &three_scans, &policy(), -30 * DAY), Verdict::Eligible);
    for (what, times, reason) in [
        ("one scan", &[0][..], KeepReason::TooFewSightings),
        ("two scans", &[0, 2 * DAY][..], KeepReason::TooFewSightings),
        ("a second short of the span", &[0, DAY, 2 * DAY - 1][..], KeepReason::SightingSpanTooShort),
    ] {
        assert_eq!(backfilled(&old, times, &policy(), -30 * DAY), Verdict::Keep(reason), "{what}");
    }
    let mut changed = seen_at(&old, &three_scans, &policy());
    changed.is_changed = true;
    let waiver = Waiver::FirstSighting { created_before: at(-30 * DAY) };
    assert_eq!(
        decide_with(waiver, &old, &changed, &policy(), at(2 * DAY)),
        Verdict::Keep(KeepReason::ChangedSinceSeen)
    );
    let unknown = Orphan { groups: vec![(group(0), content(Some(at(-90 * DAY)), 1)), (group(1), content(None, 1))] };
    assert_eq!(backfilled(&unknown, &three_scans, &policy(), -30 * DAY), Verdict::Keep(KeepReason::NewerThanScan));
}

#[test]
fn a_backfill_takes_only_ids_whose_every_object_is_older_than_its_date() {
    let times = [0, DAY, 2 * DAY];
    let date = -30 * DAY;
    for (newest, expected) in [
        (&[date - 1][..], Verdict::Eligible),
        (&[date][..], Verdict::Keep(KeepReason::NewerThanBackfill)),
        (&[date + 1][..], Verdict::Keep(KeepReason::NewerThanBackfill)),
        (&[-90 * DAY, date][..], Verdict::Keep(KeepReason::NewerThanBackfill)),
        (&[-90 * DAY, date - 1][..], Verdict::Eligible),
    ] {
        assert_eq!(backfilled(&orphan(newest), &times, &policy(), date), expected, "{newest:?}");
    }
    let mature = nights(40);
    let young = orphan(&[10 * DAY]);
    assert_eq!(verdict(&young, &mature, &policy()), Verdict::Eligible);
    assert_eq!(
        backfilled(&young, &mature, &policy(), date),
        Verdict::Keep(KeepReason::NewerThanBackfill),
        "what the ordinary runs let go is none of the backfill's"
    );
}

#[test]
fn a_date_that_grace_has_not_passed_lets_nothing_younger_go() {
    let times = [0, DAY, 2 * DAY];
    for (newest, expected) in
        [(2 * DAY - 7 * DAY, Verdict::Eligible), (2 * DAY - 7 * DAY + 1, Verdict::Keep(KeepReason::WithinGrace))]
    {
        assert_eq!(backfilled(&orphan(&[newest]), &times, &policy(), 400 * DAY), expected);
    }
}

#[test]
fn the_next_date_of_a_backfill_waits_for_its_own_rules_only() {
    let old = orphan(&[-90 * DAY]);
    let next = |orphan: &Orphan, created_before: i64| {
        let waiver = Waiver::FirstSighting { created_before: at(created_before) };
        eligible_at_with(waiver, orphan, &seen_at(orphan, &[0], &policy()), &policy(), at(0))
    };
    assert_eq!(next(&old, -30 * DAY), Some(at(2 * DAY)), "the span");
    assert_eq!(next(&orphan(&[-DAY]), 0), Some(at(6 * DAY)), "the newest object's grace");
    assert_eq!(next(&old, -90 * DAY), None, "never by this date");
}

proptest! {
    #[test]
    fn a_backfill_lets_go_nothing_that_an_audit_without_the_clock_of_the_first_sighting_keeps(
        gaps in proptest::collection::vec(0..20 * DAY, 0..8),
        newest in proptest::collection::vec(-100 * DAY..30 * DAY, 1..3),
        is_known in any::<bool>(),
        is_changed in any::<bool>(),
        created_before in -120 * DAY..40 * DAY,
        grace_days in 1..10_u64,
        min_sightings in 3..6_u32,
    ) {
        let policy = Policy { grace: Grace(Duration::from_secs(grace_days * 24 * 3600)), min_sightings, ..policy() };
        let times: Vec<i64> = gaps.iter().scan(0, |time, gap| { *time += gap; Some(*time) }).collect();
        let times = [vec![0], times].concat();
        let as_of = at(*times.last().expect("a scan"));
        let mut orphan = orphan(&newest);
        orphan.groups[0].1.has_unknown_age = !is_known;
        let sighting = Sighting { is_changed, ..seen_at(&orphan, &times, &policy) };
        // The clock of the first sighting, wound forward: every other rule of an audit still counts.
        let matured = Sighting {
            first_seen: sighting.first_seen - policy.grace.span(),
            last_seen: sighting.last_seen - policy.grace.span(),
            witnessed: policy.grace.span(),
            ..sighting.clone()
        };
        let audit = decide(&orphan, &matured, &policy, as_of);
        let decide_before = |date: i64| {
            decide_with(Waiver::FirstSighting { created_before: at(date) }, &orphan, &sighting, &policy, as_of)
        };
        let is_older = newest.iter().all(|newest| *newest < created_before);
        prop_assert_eq!(decide_before(created_before) == Verdict::Eligible, audit == Verdict::Eligible && is_older);
        // An earlier date never lets more go.
        if decide_before(created_before - DAY) == Verdict::Eligible {
            prop_assert_eq!(decide_before(created_before), Verdict::Eligible);
        }
        // Nor does the waiver ever keep what it is for.
        if is_older && decide(&orphan, &sighting, &policy, as_of) == Verdict::Eligible {
            prop_assert_eq!(decide_before(created_before), Verdict::Eligible);
        }
    }

    #[test]
    fn nothing_goes_before_grace_sightings_and_span(
        gaps in proptest::collection::vec(0..20 * DAY, 0..8),
        newest in -100 * DAY..30 * DAY,
        grace_days in 1..10_u64,
        min_sightings in 3..6_u32,
    ) {
        let policy = Policy { grace: Grace(Duration::from_secs(grace_days * 24 * 3600)), min_sightings, ..policy() };
        let times: Vec<i64> = gaps.iter().scan(0, |time, gap| { *time += gap; Some(*time) }).collect();
        let times = [vec![0], times].concat();
        let last = *times.last().expect("a scan");
        if verdict(&orphan(&[newest]), &times, &policy) == Verdict::Eligible {
            let grace = i64::try_from(grace_days).expect("small") * DAY;
            prop_assert!(last - newest >= grace && last >= grace && last >= 2 * DAY);
            prop_assert!(times.len() >= min_sightings as usize);
        }
        // A longer grace never lets more go.
        let longer = Policy { grace: Grace(policy.grace.0 * 3), ..policy.clone() };
        if verdict(&orphan(&[newest]), &times, &longer) == Verdict::Eligible {
            prop_assert_eq!(verdict(&orphan(&[newest]), &times, &policy), Verdict::Eligible);
        }
    }
}

#[test]
fn one_leap_of_every_clock_ends_nothing_by_age_and_the_next_scan_goes_on() {
    let counted = 7 * DAY / 2;
    assert_eq!(leap(Some(at(0)), at(counted), &policy(), None), None);
    let why = leap(Some(at(0)), at(counted + 1), &policy(), None).expect("a leap");
    assert!(why.starts_with("3days 12h 1s went by since the last good scan, and 3days 12h count at once"), "{why}");
    assert_eq!(leap(Some(at(counted + 1)), at(counted + DAY), &policy(), None), None, "the next scan");
    assert!(leap(None, at(0), &policy(), None).is_some(), "nobody knows how much time went by");
    assert_eq!(leap(Some(at(5)), at(0), &policy(), None), None, "time that goes back is a breaker's");
    // A schedule that is rarer than that is none.
    let weekly = Some(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(leap(Some(at(0)), at(7 * DAY + 2 * HOUR), &policy(), weekly), None);
    assert!(leap(Some(at(0)), at(7 * DAY + 2 * HOUR + 1), &policy(), weekly).is_some());
    let unsafe_policy = Policy { unsafe_short_grace: true, ..policy() };
    assert_eq!(leap(None, at(0), &unsafe_policy, None), None);
    assert_eq!(leap(Some(at(0)), at(999 * DAY), &unsafe_policy, None), None);
}
