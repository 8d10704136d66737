use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{DatabaseIdentity, Snapshot};

const TABLE: &str = "heimdall.synthetic_datasets";
const OTHER: &str = "heimdall.training_jobs";
const WEEK: Grace = Grace(Duration::from_secs(7 * 24 * 3600));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn identity() -> DatabaseIdentity {
    DatabaseIdentity {
        system: "7123".into(),
        timeline: "00000001".into(),
        database: "platform".into(),
        tables: vec![TableIdentity { name: TABLE.into(), oid: 16_385 }],
    }
}

fn target() -> TargetFingerprint {
    TargetFingerprint {
        endpoint: "http://127.0.0.1:9000/".into(),
        bucket: "heimdall-synthetic-iq".into(),
        prefix: "synthetic/".into(),
        patterns: vec!["synthetic/{id}/".into(), "synthetic/dataset-{id}/".into()],
    }
}

fn rows(tables: &[(&str, u64)]) -> BTreeMap<String, u64> {
    tables.iter().map(|(table, rows)| ((*table).to_owned(), *rows)).collect()
}

fn observed(tables: &[(&str, u64)]) -> Observation {
    Observation {
        as_of: at(0),
        rows: rows(tables),
        identity: identity(),
        target: target(),
        overlap_share: Some(1.0),
        skew_s: 0,
        snapshot: None,
        rows_as_of: None,
    }
}

fn good(tables: &[(&str, u64)]) -> Baseline {
    Baseline::after_good_scan(None, observed(tables))
}

fn limits() -> Limits {
    Limits {
        max_orphan_share: 0.10,
        max_orphan_groups: 10_000,
        max_objects: 1_000_000,
        max_bytes: 1 << 40,
        max_foreign_share: 0.10,
        max_live_drop: 0.05,
        min_overlap: 0.50,
        small: 5,
    }
}

/// A complete scan that nothing is wrong with, to be spoilt by each test.
#[derive(Debug)]
struct Seen {
    observation: Observation,
    overlap: Overlap,
    listed_groups: u64,
    open_transactions: OpenTransactions,
    role: &'static str,
    database_time: Timestamp,
    errors: Vec<String>,
    purges: Vec<PurgedRows>,
    limits: Limits,
    grace: Grace,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            observation: observed(&[(TABLE, 100)]),
            overlap: Overlap { expected: 100, seen: 100 },
            listed_groups: 100,
            open_transactions: OpenTransactions::Since(None),
            role: "sweeper",
            database_time: at(0),
            errors: Vec::new(),
            purges: Vec::new(),
            limits: limits(),
            grace: WEEK,
        }
    }
}

impl Seen {
    fn rows(tables: &[(&str, u64)]) -> Self {
        Self { observation: observed(tables), ..Self::default() }
    }

    /// A scan that saw this much of what the database expects.
    fn overlap(expected: u64, seen: u64) -> Self {
        let overlap = Overlap { expected, seen };
        Self {
            observation: Observation { overlap_share: overlap.share(), ..observed(&[(TABLE, 100)]) },
            overlap,
            ..Self::default()
        }
    }

    fn clocks(as_of: Timestamp, skew_s: i64) -> Self {
        Self { observation: Observation { as_of, skew_s, ..observed(&[(TABLE, 100)]) }, ..Self::default() }
    }

    fn judge(&self, baseline: Option<&Baseline>) -> Vec<Reading> {
        let evidence = Evidence {
            observation: &self.observation,
            overlap: self.overlap,
            listed_groups: self.listed_groups,
            open_transactions: self.open_transactions,
            role: self.role,
            database_time: self.database_time,
            errors: &self.errors,
            purges: &self.purges,
        };
        judge_evidence(&evidence, baseline, &self.limits, self.grace)
    }

    fn reading(&self, breaker: Breaker, baseline: Option<&Baseline>) -> Reading {
        self.judge(baseline)
            .into_iter()
            .find(|reading| reading.name == breaker)
            .expect("every evidence breaker is read")
    }

    fn trips(&self, breaker: Breaker, baseline: Option<&Baseline>) -> bool {
        self.reading(breaker, baseline).tripped
    }

    fn tripped(&self, baseline: Option<&Baseline>) -> Vec<Breaker> {
        self.judge(baseline).into_iter().filter(|reading| reading.tripped).map(|reading| reading.name).collect()
    }
}

mod names {
    use super::*;

    const INTERFACE: [(&str, Kind, bool); 13] = [
        ("no_references", Kind::Evidence, true),
        ("no_overlap", Kind::Evidence, true),
        ("live_drop", Kind::Evidence, true),
        ("clock_skew", Kind::Evidence, true),
        ("database_identity", Kind::Evidence, true),
        ("target_changed", Kind::Evidence, true),
        ("incomplete", Kind::Evidence, false),
        ("open_transaction", Kind::Evidence, false),
        ("orphan_share", Kind::Size, false),
        ("orphan_groups", Kind::Size, false),
        ("objects", Kind::Size, false),
        ("bytes", Kind::Size, false),
        ("foreign_share", Kind::Size, false),
    ];

    #[test]
    fn names_kinds_and_latching_are_those_of_the_interface() {
        for (breaker, (name, kind, latches)) in Breaker::ALL.into_iter().zip(INTERFACE) {
            assert_eq!((breaker.as_str(), breaker.kind(), breaker.latches()), (name, kind, latches));
            assert_eq!(Breaker::named(name), Some(breaker));
            assert_eq!(
                serde_json::to_value(breaker).expect("serializable"),
                json!(name),
                "reports and commands use one name"
            );
            assert_eq!(serde_json::from_value::<Breaker>(json!(name)).expect("readable"), breaker);
        }
        assert_eq!(Breaker::ALL.into_iter().collect::<BTreeSet<_>>().len(), INTERFACE.len());
        assert_eq!((json!(Kind::Evidence), json!(Kind::Size)), (json!("evidence"), json!("size")));
        for unknown in ["", "Objects", "objects ", "no-overlap"] {
            assert_eq!(Breaker::named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_breaker_is_read_once_and_by_its_kind() {
        let evidence = Seen::default().judge(None);
        let size = judge_size(WouldGo::default(), Listed { groups: 0, foreign: 0 }, &limits(), &Allowances::default());
        let names = |readings: &[Reading]| readings.iter().map(|reading| reading.name).collect::<Vec<_>>();
        assert_eq!(names(&evidence), Breaker::ALL[..8]);
        assert_eq!(names(&size), Breaker::ALL[8..]);
        assert!(
            evidence.iter().all(|reading| reading.kind == Kind::Evidence)
                && size.iter().all(|reading| reading.kind == Kind::Size)
        );
    }

    #[test]
    fn a_reading_refuses_while_it_trips_or_waits() {
        for (tripped, latched, refuses) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
        {
            let reading = Reading { tripped, latched, ..Reading::not_judged(Breaker::LiveDrop, "x") };
            assert_eq!(reading.refuses(), refuses, "{tripped} {latched}");
        }
    }

    #[test]
    fn what_is_not_judged_says_why_and_refuses_nothing() {
        let reading = Reading::not_judged(Breaker::Objects, "the run ended before it could be");
        assert!(!reading.refuses());
        assert_eq!((reading.observed, reading.allowed, reading.kind), (Value::Null, Value::Null, Kind::Size));
        assert_eq!(reading.message, "not judged: the run ended before it could be");
    }

    #[test]
    fn a_reading_is_shown_as_the_interface_says() {
        let reading = Seen::rows(&[(TABLE, 94)]).reading(Breaker::LiveDrop, Some(&good(&[(TABLE, 100)])));
        let expected = json!({
            "name": "live_drop", "kind": "evidence", "tripped": true, "latched": false, "observed": 0.06, "allowed": 0.05,
            "message": "heimdall.synthetic_datasets had 100 rows and has 94",
        });
        assert_eq!(serde_json::to_value(reading).expect("serializable"), expected);
    }
}

#[test]
fn a_first_good_scan_and_an_unchanged_one_trip_nothing() {
    assert_eq!(Seen::default().tripped(None), []);
    assert_eq!(Seen::default().tripped(Some(&good(&[(TABLE, 100)]))), []);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let baseline = good(&[(TABLE, 100)]);
    let everything = Seen {
        observation: Observation {
            as_of: at(-2),
            identity: DatabaseIdentity { timeline: "00000002".into(), ..identity() },
            target: TargetFingerprint { bucket: "another".into(), ..target() },
            ..observed(&[(TABLE, 0)])
        },
        overlap: Overlap { expected: 100, seen: 0 },
        open_transactions: OpenTransactions::Hidden,
        errors: vec!["a group".into()],
        ..Seen::default()
    };
    assert_eq!(everything.tripped(Some(&baseline)), Breaker::ALL[..8]);
}

mod no_references {
    use super::*;

    fn reading(tables: &[(&str, u64)], listed_groups: u64) -> Reading {
        Seen { listed_groups, ..Seen::rows(tables) }.reading(Breaker::NoReferences, None)
    }

    #[test]
    fn an_empty_table_beside_a_listing_trips() {
        for (tables, listed, trips, fewest) in [
            (&[(TABLE, 0)][..], 1, true, 0),
            (&[(TABLE, 0)], 0, false, 0),
            (&[(TABLE, 1)], 1, false, 1),
            (&[(TABLE, 1)], 1_000_000, false, 1),
            (&[(TABLE, 100), (OTHER, 0)], 1, true, 0),
            (&[(TABLE, 0), (OTHER, 100)], 1, true, 0),
            (&[(TABLE, 7), (OTHER, 3)], 1, false, 3),
        ] {
            let reading = reading(tables, listed);
            assert_eq!((reading.tripped, &reading.observed), (trips, &json!(fewest)), "{tables:?} {listed}");
            assert_eq!(reading.allowed, json!(1));
        }
    }

    #[test]
    fn the_message_names_each_empty_table_and_what_is_at_stake() {
        let message = reading(&[(TABLE, 0), (OTHER, 0), ("s.full", 1)], 1234).message;
        assert!(
            message.starts_with(
                "heimdall.synthetic_datasets, heimdall.training_jobs has no rows, yet the bucket has 1,234 groups"
            ),
            "{message}"
        );
        assert!(!message.contains("s.full"), "{message}");
        assert!(reading(&[(TABLE, 1)], 1).message.starts_with("every live table has rows"));
    }

    #[test]
    fn an_acknowledged_table_may_stay_empty_and_another_may_not() {
        let (one, both) = (Seen::rows(&[(TABLE, 0), (OTHER, 9)]), Seen::rows(&[(TABLE, 0), (OTHER, 0)]));
        let baseline = good(&[(TABLE, 9), (OTHER, 9)]);
        assert!(one.trips(Breaker::NoReferences, Some(&baseline)));
        let accepted = baseline.after_acknowledgement(Breaker::NoReferences, &one.observation);
        assert_eq!(accepted.accepted_empty, [TABLE]);
        assert_eq!(one.tripped(Some(&accepted)), [], "neither for its emptiness nor for the fall to it");
        let reading = both.reading(Breaker::NoReferences, Some(&accepted));
        assert!(
            reading.tripped && reading.message.starts_with("heimdall.training_jobs has no rows"),
            "{}",
            reading.message
        );
    }

    #[test]
    fn a_table_that_has_rows_again_loses_its_acknowledgement() {
        let empty = Seen::rows(&[(TABLE, 0), (OTHER, 9)]);
        let accepted = good(&[(TABLE, 9), (OTHER, 9)]).after_acknowledgement(Breaker::NoReferences, &empty.observation);
        let still = Baseline::after_good_scan(Some(accepted.clone()), empty.observation.clone());
        assert_eq!(still.accepted_empty, [TABLE], "a good scan of the empty table keeps it");
        let refilled = Baseline::after_good_scan(Some(accepted.clone()), observed(&[(TABLE, 1), (OTHER, 9)]));
        assert_eq!(refilled.accepted_empty, [""; 0]);
        assert!(empty.trips(Breaker::NoReferences, Some(&refilled)));
        let unconfigured = Baseline::after_good_scan(Some(accepted), observed(&[(OTHER, 9)]));
        assert_eq!(unconfigured.accepted_empty, [""; 0], "a table that is read no more was not seen empty");
    }
}

mod no_overlap {
    use super::*;

    #[test]
    fn too_few_seen_rows_trip_at_the_share_and_above_the_small_count() {
        for (expected, seen, trips) in [
            (100, 100, false),
            (100, 51, false),
            (100, 50, false),
            (100, 49, true),
            (100, 0, true),
            (12, 6, false),
            (12, 5, true),
            // Five are unseen, which is small; six are not.
            (6, 1, false),
            (5, 0, false),
            (7, 1, true),
            (6, 0, true),
        ] {
            let reading = Seen::overlap(expected, seen).reading(Breaker::NoOverlap, None);
            assert_eq!(reading.tripped, trips, "{seen} of {expected}");
            assert_eq!(reading.allowed, json!(0.5));
            assert_eq!(reading.observed, json!(Overlap { expected, seen }.share()), "{seen} of {expected}");
        }
    }

    #[test]
    fn small_is_the_configured_count() {
        let seen = |small| Seen { limits: Limits { small, ..limits() }, ..Seen::overlap(10, 0) };
        assert!(!seen(10).trips(Breaker::NoOverlap, None));
        assert!(seen(9).trips(Breaker::NoOverlap, None));
        let one = Seen { limits: Limits { small: 0, ..limits() }, ..Seen::overlap(1, 0) };
        assert!(one.trips(Breaker::NoOverlap, None));
    }

    #[test]
    fn without_old_rows_that_expect_objects_nothing_is_judged() {
        let reading = Seen::overlap(0, 0).reading(Breaker::NoOverlap, None);
        assert!(!reading.tripped && reading.observed.is_null());
        assert_eq!(reading.message, "not judged: no row older than the grace period expects objects");
    }

    #[test]
    fn the_message_counts_and_blames_only_where_it_trips() {
        let message = |seen| Seen::overlap(2000, seen).reading(Breaker::NoOverlap, None).message;
        let tripped = "of 2,000 rows older than the grace period that expect objects, 999 have some in this bucket: database and bucket may not belong together";
        assert_eq!(message(999), tripped);
        assert_eq!(
            message(1000),
            "of 2,000 rows older than the grace period that expect objects, 1,000 have some in this bucket"
        );
    }

    #[test]
    fn what_was_acknowledged_is_allowed_and_one_row_less_is_not() {
        let baseline = good(&[(TABLE, 100)]);
        let accepted = baseline.clone().after_acknowledgement(Breaker::NoOverlap, &Seen::overlap(100, 25).observation);
        assert_eq!(accepted.accepted_overlap, Some(0.25));
        assert_eq!(Seen::overlap(100, 25).reading(Breaker::NoOverlap, Some(&accepted)).allowed, json!(0.25));
        assert!(!Seen::overlap(100, 25).trips(Breaker::NoOverlap, Some(&accepted)));
        assert!(Seen::overlap(100, 24).trips(Breaker::NoOverlap, Some(&accepted)));
        let later = Baseline::after_good_scan(Some(accepted), Seen::overlap(100, 90).observation);
        assert!(!Seen::overlap(100, 25).trips(Breaker::NoOverlap, Some(&later)), "what was accepted stays accepted");
        let generous = baseline.after_acknowledgement(Breaker::NoOverlap, &Seen::overlap(100, 90).observation);
        assert_eq!(
            Seen::overlap(100, 50).reading(Breaker::NoOverlap, Some(&generous)).allowed,
            json!(0.5),
            "and never demands more than configured"
        );
    }

    proptest! {
        #[test]
        fn an_acknowledged_share_is_not_found_worse_than_itself(expected in 1..5000_u64, seen in 0..5000_u64) {
            let scan = Seen::overlap(expected, seen.min(expected));
            let accepted = good(&[(TABLE, 100)]).after_acknowledgement(Breaker::NoOverlap, &kept(&scan.observation));
            prop_assert!(!scan.trips(Breaker::NoOverlap, Some(&kept(&accepted))));
        }
    }

    /// A value as the ledger gives it back.
    fn kept<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
        serde_json::from_str(&serde_json::to_string(value).expect("serializable")).expect("readable")
    }

    #[test]
    fn what_the_ledger_keeps_comes_back_to_the_last_digit() {
        // As a JSON number, 4/11 comes back larger than it was.
        let mut baseline =
            good(&[(TABLE, 100)]).after_acknowledgement(Breaker::NoOverlap, &Seen::overlap(11, 4).observation);
        baseline.observation.overlap_share = Some(1.0 / 11.0);
        assert_eq!(kept(&baseline), baseline);
        let none = Baseline {
            accepted_overlap: None,
            observation: Observation { overlap_share: None, ..observed(&[(TABLE, 0)]) },
            ..baseline
        };
        assert_eq!(kept(&none), none);
        let skewed = none.after_acknowledgement(Breaker::ClockSkew, &Seen::clocks(at(9), 900).observation);
        assert_eq!(kept(&skewed), skewed);
    }
}

mod live_drop {
    use super::*;

    fn reading(before: &[(&str, u64)], now: &[(&str, u64)]) -> Reading {
        Seen::rows(now).reading(Breaker::LiveDrop, Some(&good(before)))
    }

    #[test]
    fn a_fall_trips_above_the_share_and_above_the_small_count() {
        for (before, now, trips) in [
            (1000, 1000, false),
            (1000, 1001, false),
            (1000, 951, false),
            (1000, 950, false),
            (1000, 949, true),
            (1000, 0, true),
            // Five rows are small, whatever share they are; six are not.
            (10, 5, false),
            (10, 4, true),
            (5, 0, false),
            (6, 0, true),
            (120, 115, false),
            (120, 114, false),
            (119, 113, true),
            (0, 0, false),
            (0, 100, false),
        ] {
            assert_eq!(reading(&[(TABLE, before)], &[(TABLE, now)]).tripped, trips, "{before} to {now}");
        }
    }

    #[test]
    fn the_share_is_that_of_what_was_there_before() {
        let reading = reading(&[(TABLE, 200)], &[(TABLE, 150)]);
        assert_eq!((reading.observed, reading.allowed), (json!(0.25), json!(0.05)));
        assert_eq!(reading.message, "heimdall.synthetic_datasets had 200 rows and has 150");
        assert_eq!(super::live_drop::reading(&[(TABLE, 0)], &[(TABLE, 3)]).observed, json!(0.0));
        assert_eq!(super::live_drop::reading(&[(TABLE, 3)], &[(TABLE, 4)]).observed, json!(0.0));
    }

    #[test]
    fn each_table_is_judged_by_itself() {
        let before = &[(TABLE, 1000), (OTHER, 1000)];
        assert!(!reading(before, &[(TABLE, 950), (OTHER, 950)]).tripped);
        for now in [[(TABLE, 1000), (OTHER, 949)], [(TABLE, 949), (OTHER, 1000)], [(TABLE, 9000), (OTHER, 949)]] {
            assert!(reading(before, &now).tripped, "one table's growth hides no other's fall: {now:?}");
        }
        assert!(reading(before, &[(TABLE, 1000)]).tripped, "a table that is read no more has lost all its rows");
        assert!(
            !reading(&[(TABLE, 1000)], &[(TABLE, 1000), (OTHER, 0)]).tripped,
            "a table that was never read has lost none"
        );
    }

    #[test]
    fn the_worst_fall_that_counts_is_told() {
        // Five of five rows are the larger share, and too few to count.
        let told =
            reading(&[(OTHER, 1000), ("s.small", 5), (TABLE, 1000)], &[(OTHER, 900), ("s.small", 0), (TABLE, 940)]);
        assert!(told.tripped);
        assert_eq!(
            (told.message.as_str(), told.observed),
            ("heimdall.training_jobs had 1,000 rows and has 900", json!(0.1))
        );
        let told = reading(&[("s.a", 1000), ("s.b", 5), ("s.c", 1000)], &[("s.a", 940), ("s.b", 0), ("s.c", 900)]);
        assert_eq!(told.message, "s.c had 1,000 rows and has 900");
        let told = reading(&[("s.a", 100), ("s.b", 100)], &[("s.a", 50), ("s.b", 50)]);
        assert_eq!(told.message, "s.a had 100 rows and has 50", "of two alike the first");
        let told = reading(&[("s.a", 5), ("s.b", 5)], &[("s.a", 4), ("s.b", 0)]);
        assert_eq!(
            (told.tripped, told.message.as_str()),
            (false, "s.b had 5 rows and has 0"),
            "also where none counts"
        );
        // Six of a thousand count, though five of five are the larger share.
        let told = reading(&[("s.a", 5), ("s.b", 1000)], &[("s.a", 0), ("s.b", 994)]);
        assert_eq!((told.tripped, told.message.as_str()), (false, "s.b had 1,000 rows and has 994"));
        // A fall of exactly `small` does not count.
        let told = reading(&[("s.a", 5), ("s.b", 10)], &[("s.a", 0), ("s.b", 5)]);
        assert_eq!((told.tripped, told.message.as_str()), (false, "s.a had 5 rows and has 0"));
    }

    #[test]
    fn nothing_is_judged_without_an_earlier_scan_or_table() {
        let first = Seen::rows(&[(TABLE, 0)]).reading(Breaker::LiveDrop, None);
        assert_eq!(
            (first.tripped, first.observed, first.message.as_str()),
            (false, Value::Null, "not judged: no earlier scan to compare with")
        );
        let tableless = reading(&[], &[(TABLE, 1)]);
        assert_eq!((tableless.tripped, tableless.message.as_str()), (false, "not judged: no earlier table"));
    }

    #[test]
    fn an_acknowledged_fall_is_the_new_baseline_and_a_further_one_trips_anew() {
        let before = good(&[(TABLE, 1000), (OTHER, 1000)]);
        let fallen = Seen::rows(&[(TABLE, 500), (OTHER, 1000)]);
        assert!(fallen.trips(Breaker::LiveDrop, Some(&before)));
        let accepted = before.after_acknowledgement(Breaker::LiveDrop, &fallen.observation);
        assert_eq!(accepted.observation.rows, rows(&[(TABLE, 500), (OTHER, 1000)]));
        assert!(!fallen.trips(Breaker::LiveDrop, Some(&accepted)), "equal is no worse");
        assert!(!Seen::rows(&[(TABLE, 475), (OTHER, 1000)]).trips(Breaker::LiveDrop, Some(&accepted)));
        assert!(Seen::rows(&[(TABLE, 474), (OTHER, 1000)]).trips(Breaker::LiveDrop, Some(&accepted)));
        assert!(
            Seen::rows(&[(TABLE, 500), (OTHER, 900)]).trips(Breaker::LiveDrop, Some(&accepted)),
            "another table was not acknowledged"
        );
        let emptied = Seen::rows(&[(TABLE, 0), (OTHER, 1000)]);
        let accepted = accepted.after_acknowledgement(Breaker::LiveDrop, &emptied.observation);
        assert!(!emptied.trips(Breaker::LiveDrop, Some(&accepted)));
        assert!(
            emptied.trips(Breaker::NoReferences, Some(&accepted)),
            "a fall to nothing is acknowledged by its own name"
        );
    }

    #[test]
    fn a_good_scan_is_the_baseline_of_the_next() {
        let mut baseline = good(&[(TABLE, 1000)]);
        for now in [951, 910, 870] {
            let scan = Seen::rows(&[(TABLE, now)]);
            assert_eq!(scan.tripped(Some(&baseline)), [], "{now}");
            baseline = Baseline::after_good_scan(Some(baseline), scan.observation);
        }
        assert_eq!(baseline.observation, observed(&[(TABLE, 870)]));
    }
}

mod clock_skew {
    use super::*;

    #[test]
    fn clocks_may_lie_five_minutes_apart() {
        let baseline = good(&[(TABLE, 100)]);
        for (skew_s, trips) in [(0, false), (299, false), (300, false), (301, true), (86_400, true)] {
            for baseline in [None, Some(&baseline)] {
                let reading = Seen::clocks(at(0), skew_s).reading(Breaker::ClockSkew, baseline);
                assert_eq!(
                    (reading.tripped, reading.observed, reading.allowed),
                    (trips, json!(skew_s), json!(300)),
                    "{skew_s}"
                );
                assert_eq!(
                    reading.message,
                    format!("the clocks of this host, the store and the database lie {skew_s} s apart")
                );
            }
        }
    }

    #[test]
    fn time_may_stand_still_and_seem_to_step_back_by_less_than_two_seconds() {
        let baseline = good(&[(TABLE, 100)]);
        for (millis, trips) in [
            (1_000_000, false),
            (1, false),
            (0, false),
            (-1000, false),
            (-1999, false),
            (-2000, true),
            (-3_600_000, true),
        ] {
            let as_of = at(0) + chrono::Duration::milliseconds(millis);
            let reading = Seen::clocks(as_of, 0).reading(Breaker::ClockSkew, Some(&baseline));
            assert_eq!(reading.tripped, trips, "{millis} ms");
            if trips {
                assert_eq!(reading.observed, json!(millis / 1000));
                assert_eq!(
                    reading.message,
                    format!("the time went back by {} s since the last good scan", -millis / 1000)
                );
            }
        }
        assert!(
            !Seen::clocks(at(-9_999_999), 0).trips(Breaker::ClockSkew, None),
            "the first scan has nothing to go back behind"
        );
    }

    #[test]
    fn an_acknowledged_skew_is_allowed_and_a_second_more_is_not() {
        let skewed = Seen::clocks(at(5), 600);
        let accepted = good(&[(TABLE, 100)]).after_acknowledgement(Breaker::ClockSkew, &skewed.observation);
        assert_eq!(skewed.reading(Breaker::ClockSkew, Some(&accepted)).allowed, json!(600));
        assert!(!skewed.trips(Breaker::ClockSkew, Some(&accepted)));
        assert!(Seen::clocks(at(5), 601).trips(Breaker::ClockSkew, Some(&accepted)));
        let later = Baseline::after_good_scan(Some(accepted), Seen::clocks(at(10), 20).observation);
        assert!(!Seen::clocks(at(15), 600).trips(Breaker::ClockSkew, Some(&later)), "what was accepted stays accepted");
        let small =
            good(&[(TABLE, 100)]).after_acknowledgement(Breaker::ClockSkew, &Seen::clocks(at(-9), 3).observation);
        assert_eq!(
            Seen::clocks(at(0), 300).reading(Breaker::ClockSkew, Some(&small)).allowed,
            json!(300),
            "never less than five minutes"
        );
    }

    #[test]
    fn time_that_was_acknowledged_may_not_go_back_further() {
        let back = Seen::clocks(at(-86_400), 0);
        let accepted = good(&[(TABLE, 100)]).after_acknowledgement(Breaker::ClockSkew, &back.observation);
        assert_eq!(accepted.observation.as_of, at(-86_400));
        assert!(!back.trips(Breaker::ClockSkew, Some(&accepted)));
        assert!(Seen::clocks(at(-86_402), 0).trips(Breaker::ClockSkew, Some(&accepted)));
    }
}

mod identity_and_target {
    use super::*;

    fn identities() -> Vec<DatabaseIdentity> {
        vec![
            DatabaseIdentity { system: "7124".into(), ..identity() },
            DatabaseIdentity { timeline: "00000002".into(), ..identity() },
            DatabaseIdentity { database: "other".into(), ..identity() },
            DatabaseIdentity { tables: vec![TableIdentity { name: TABLE.into(), oid: 16_386 }], ..identity() },
            DatabaseIdentity { tables: vec![TableIdentity { name: OTHER.into(), oid: 16_385 }], ..identity() },
            DatabaseIdentity { tables: Vec::new(), ..identity() },
        ]
    }

    fn targets() -> Vec<TargetFingerprint> {
        vec![
            TargetFingerprint { endpoint: "http://127.0.0.1:9001/".into(), ..target() },
            TargetFingerprint { bucket: "other".into(), ..target() },
            TargetFingerprint { prefix: "synthetic2/".into(), ..target() },
            TargetFingerprint { patterns: vec!["synthetic/{id}/".into()], ..target() },
        ]
    }

    fn of(identity: DatabaseIdentity, target: TargetFingerprint) -> Seen {
        Seen { observation: Observation { identity, target, ..observed(&[(TABLE, 100)]) }, ..Seen::default() }
    }

    #[test]
    fn any_other_database_trips_until_it_is_acknowledged_and_then_any_third() {
        let baseline = good(&[(TABLE, 100)]);
        for other in identities() {
            let scan = of(other.clone(), target());
            assert_eq!(scan.tripped(Some(&baseline)), [Breaker::DatabaseIdentity]);
            let reading = scan.reading(Breaker::DatabaseIdentity, Some(&baseline));
            assert_eq!((reading.observed, reading.allowed), (json!(other), json!(identity())));
            assert_eq!(reading.message, format!("expected {}; found {other}", identity()));
            let accepted = baseline.clone().after_acknowledgement(Breaker::DatabaseIdentity, &scan.observation);
            assert_eq!(scan.tripped(Some(&accepted)), []);
            assert!(
                of(identity(), target()).trips(Breaker::DatabaseIdentity, Some(&accepted)),
                "the old one is another one now"
            );
        }
    }

    #[test]
    fn a_database_that_knows_fewer_transactions_was_set_back() {
        let scan = |as_of, snapshot: &str| Observation {
            as_of: at(as_of),
            snapshot: Snapshot::parse(snapshot),
            ..observed(&[(TABLE, 100)])
        };
        let before = Baseline::after_good_scan(None, scan(0, "10:20:12"));
        let trips = |baseline: &Baseline, observation| {
            Seen { observation, ..Seen::default() }.trips(Breaker::DatabaseIdentity, Some(baseline))
        };
        assert!(trips(&before, scan(1, "10:19:")));
        for as_before in [scan(1, "9:20:"), scan(1, "30:40:"), Observation { snapshot: None, ..scan(1, "7:7:") }] {
            assert!(!trips(&before, as_before.clone()), "{as_before:?}");
        }
        assert!(!trips(&before, scan(0, "10:19:")), "a scan that another process's overtook");
        let unknown = Baseline::after_good_scan(None, observed(&[(TABLE, 100)]));
        assert!(!trips(&unknown, scan(1, "10:19:")), "nobody can tell");
        let after = before.after_acknowledgement(Breaker::DatabaseIdentity, &scan(1, "10:19:"));
        assert!(!trips(&after, scan(2, "10:19:")));
    }

    #[test]
    fn any_other_target_trips_until_it_is_acknowledged_and_then_any_third() {
        let baseline = good(&[(TABLE, 100)]);
        for other in targets() {
            let scan = of(identity(), other.clone());
            assert_eq!(scan.tripped(Some(&baseline)), [Breaker::TargetChanged]);
            let reading = scan.reading(Breaker::TargetChanged, Some(&baseline));
            assert_eq!((reading.observed, reading.allowed), (json!(other), json!(target())));
            assert_eq!(reading.message, "endpoint, bucket, prefix or patterns are not those of the last good scan");
            let accepted = baseline.clone().after_acknowledgement(Breaker::TargetChanged, &scan.observation);
            assert_eq!(scan.tripped(Some(&accepted)), []);
            assert!(of(identity(), target()).trips(Breaker::TargetChanged, Some(&accepted)));
        }
    }

    #[test]
    fn the_first_scan_sets_what_is_expected() {
        for breaker in [Breaker::DatabaseIdentity, Breaker::TargetChanged] {
            let reading = Seen::default().reading(breaker, None);
            assert!(!reading.tripped && reading.allowed.is_null() && !reading.observed.is_null());
            assert_eq!(reading.message, "the first scan sets what is expected");
        }
        let baseline = good(&[(TABLE, 100)]);
        assert_eq!(
            Seen::default().reading(Breaker::DatabaseIdentity, Some(&baseline)).message,
            "it is the same database"
        );
        let same = Seen::default().reading(Breaker::TargetChanged, Some(&baseline));
        assert_eq!(same.message, "endpoint, bucket, prefix and patterns are the same");
    }

    #[test]
    fn a_target_is_endpoint_bucket_prefix_and_templates() {
        let text = include_str!("../../config.toml");
        let config = crate::config::parse(text, std::path::Path::new("config.toml"), &BTreeMap::new())
            .expect("the committed file");
        assert_eq!(TargetFingerprint::of(&config.scopes[0], &config.store.endpoint), target());
    }
}

mod incomplete {
    use super::*;

    #[test]
    fn anything_unread_trips_and_is_told() {
        assert!(!Seen::default().trips(Breaker::Incomplete, None));
        let unread = Seen { errors: vec!["one".into(), "two".into()], ..Seen::default() };
        let reading = unread.reading(Breaker::Incomplete, None);
        assert_eq!((reading.tripped, &reading.observed, &reading.allowed), (true, &json!(2), &json!(0)));
        assert!(reading.message.ends_with("nothing counts as seen: one; two"), "{}", reading.message);
        let complete = super::super::incomplete(&[]);
        assert_eq!(
            (complete.tripped, complete.observed, complete.message.as_str()),
            (false, json!(0), "everything was read")
        );
    }
}

mod open_transaction {
    use super::*;

    fn reading(age: chrono::Duration, grace_s: u64) -> Reading {
        let open_transactions = OpenTransactions::Since(Some(at(0) - age));
        Seen { open_transactions, grace: Grace(Duration::from_secs(grace_s)), ..Seen::default() }
            .reading(Breaker::OpenTransaction, None)
    }

    #[test]
    fn a_transaction_may_be_half_the_grace_old_and_at_least_a_minute() {
        for (grace_s, allowed_s) in
            [(7 * 86_400, 302_400), (86_400, 43_200), (122, 61), (120, 60), (119, 60), (10, 60), (0, 60)]
        {
            for (millis, trips) in [
                (-60_000, false),
                (0, false),
                (allowed_s * 1000 - 1, false),
                (allowed_s * 1000, false),
                (allowed_s * 1000 + 1, true),
            ] {
                let reading = reading(chrono::Duration::milliseconds(millis), grace_s);
                assert_eq!(
                    (reading.tripped, &reading.allowed),
                    (trips, &json!(allowed_s)),
                    "{millis} ms under a grace of {grace_s} s"
                );
                assert_eq!(reading.observed, json!(millis / 1000));
            }
        }
        let message = reading(chrono::Duration::hours(100), 3600).message;
        assert_eq!(message, "a transaction that may hold rows which nobody sees yet has been open for 360000 s");
    }

    #[test]
    fn its_age_is_told_by_the_databases_clock() {
        let open_transactions = OpenTransactions::Since(Some(at(0)));
        let seen = |database_time| {
            Seen { open_transactions, database_time, ..Seen::default() }.trips(Breaker::OpenTransaction, None)
        };
        assert!(!seen(at(302_400)));
        assert!(seen(at(302_401)));
    }

    #[test]
    fn none_is_none() {
        let reading = Seen::default().reading(Breaker::OpenTransaction, None);
        assert_eq!((reading.tripped, reading.observed, reading.allowed), (false, json!(0), json!(302_400)));
        assert_eq!(reading.message, "no transaction holds rows that nobody sees yet");
    }

    #[test]
    fn what_is_hidden_trips_and_names_the_grant_with_the_role_quoted() {
        for (role, quoted) in
            [("sweeper", "\"sweeper\""), ("Night Sweep", "\"Night Sweep\""), ("a\"b; DROP", "\"a\"\"b; DROP\"")]
        {
            let reading = Seen { open_transactions: OpenTransactions::Hidden, role, ..Seen::default() }
                .reading(Breaker::OpenTransaction, None);
            assert_eq!((reading.tripped, reading.observed, reading.allowed), (true, json!("hidden"), json!(302_400)));
            assert!(
                reading.message.ends_with(&format!("; run: GRANT pg_read_all_stats TO {quoted}")),
                "{}",
                reading.message
            );
        }
    }
}

mod acknowledgement {
    use super::*;

    /// A scan on which everything that latches is another than before.
    fn spoilt() -> Observation {
        Observation {
            as_of: at(-1000),
            rows: rows(&[(TABLE, 0), (OTHER, 50)]),
            identity: DatabaseIdentity { system: "9".into(), ..identity() },
            target: TargetFingerprint { bucket: "other".into(), ..target() },
            overlap_share: Some(0.125),
            skew_s: 1000,
            snapshot: Snapshot::parse("7:7:"),
            rows_as_of: None,
        }
    }

    #[test]
    fn only_what_the_breaker_is_about_moves() {
        let before = good(&[(TABLE, 100), (OTHER, 100)]);
        let moved = |change: &dyn Fn(&mut Baseline)| {
            let mut expected = before.clone();
            change(&mut expected);
            expected
        };
        for (breaker, expected) in [
            (
                Breaker::NoReferences,
                moved(&|baseline| {
                    baseline.accepted_empty = vec![TABLE.into()];
                    // The fall of the table that is not empty is another breaker's matter.
                    baseline.observation.rows = rows(&[(TABLE, 0), (OTHER, 100)]);
                }),
            ),
            (Breaker::NoOverlap, moved(&|baseline| baseline.accepted_overlap = Some(0.125))),
            (
                Breaker::LiveDrop,
                moved(&|baseline| {
                    baseline.observation.rows = spoilt().rows;
                    baseline.observation.snapshot = spoilt().snapshot;
                    baseline.observation.rows_as_of = Some(at(-1000));
                }),
            ),
            (
                Breaker::ClockSkew,
                moved(&|baseline| {
                    baseline.accepted_skew_s = Some(1000);
                    baseline.observation.as_of = at(-1000);
                    baseline.observation.rows_as_of = Some(at(0));
                }),
            ),
            (Breaker::DatabaseIdentity, moved(&|baseline| baseline.observation.identity = spoilt().identity)),
            (Breaker::TargetChanged, moved(&|baseline| baseline.observation.target = spoilt().target)),
        ] {
            assert_eq!(before.clone().after_acknowledgement(breaker, &spoilt()), expected, "{}", breaker.as_str());
        }
        for breaker in Breaker::ALL.into_iter().filter(|breaker| !breaker.latches()) {
            assert_eq!(before.clone().after_acknowledgement(breaker, &spoilt()), before, "{}", breaker.as_str());
        }
    }

    #[test]
    fn acknowledging_each_in_turn_lets_the_next_scan_be_good_and_no_earlier() {
        let scan = Seen { observation: spoilt(), overlap: Overlap { expected: 16, seen: 2 }, ..Seen::default() };
        let mut baseline = good(&[(TABLE, 100), (OTHER, 100)]);
        let mut left: Vec<Breaker> = Breaker::ALL.into_iter().filter(|breaker| breaker.latches()).collect();
        while !left.is_empty() {
            assert_eq!(scan.tripped(Some(&baseline)), left);
            baseline = baseline.after_acknowledgement(left.remove(0), &scan.observation);
        }
        assert_eq!(scan.tripped(Some(&baseline)), []);
    }

    #[test]
    fn a_good_scan_moves_what_it_saw_and_keeps_what_was_accepted() {
        let mut accepted = good(&[(TABLE, 100), (OTHER, 100)]);
        for breaker in Breaker::ALL {
            accepted = accepted.after_acknowledgement(breaker, &spoilt());
        }
        let seen = Observation {
            as_of: at(500),
            rows: rows(&[(TABLE, 0), (OTHER, 49)]),
            overlap_share: Some(0.75),
            skew_s: 1,
            ..spoilt()
        };
        let after = Baseline::after_good_scan(Some(accepted), seen.clone());
        let expected = Baseline {
            observation: seen,
            accepted_overlap: Some(0.125),
            accepted_skew_s: Some(1000),
            accepted_empty: vec![TABLE.into()],
        };
        assert_eq!(after, expected);
        let first = good(&[(TABLE, 0)]);
        assert_eq!(
            (first.accepted_overlap, first.accepted_skew_s, first.accepted_empty.len()),
            (None, None, 0),
            "a first scan accepts nothing"
        );
    }
}

mod size {
    use super::*;

    const LISTED: Listed = Listed { groups: 100, foreign: 0 };

    fn readings(would: WouldGo, listed: Listed, limits: &Limits, allowances: &[&str]) -> Vec<Reading> {
        let mut lifted = Allowances::default();
        allowances.iter().for_each(|text| lifted.add(text).expect("well formed"));
        judge_size(would, listed, limits, &lifted)
    }

    fn tripped(would: WouldGo, listed: Listed, allowances: &[&str]) -> Vec<&'static str> {
        readings(would, listed, &limits(), allowances)
            .iter()
            .filter(|reading| reading.tripped)
            .map(|reading| reading.name.as_str())
            .collect()
    }

    fn groups(groups: u64) -> WouldGo {
        WouldGo { groups, ..WouldGo::default() }
    }

    fn reading(readings: &[Reading], name: Breaker) -> &Reading {
        readings.iter().find(|reading| reading.name == name).expect("every size breaker is read")
    }

    #[test]
    fn each_limit_holds_at_its_value_and_trips_above_it() {
        let all = Listed { groups: 1_000_000, foreign: 0 };
        for (would, name) in [
            (groups(10_000), "orphan_groups"),
            (WouldGo { objects: 1_000_000, ..groups(1) }, "objects"),
            (WouldGo { bytes: 1 << 40, ..groups(1) }, "bytes"),
        ] {
            assert_eq!(tripped(would, all, &[]), [""; 0], "{would:?}");
            let one_more = |count: u64| if count > 1 { count + 1 } else { count };
            let above = WouldGo {
                groups: one_more(would.groups),
                objects: one_more(would.objects),
                bytes: one_more(would.bytes),
            };
            assert_eq!(tripped(above, all, &[]), [name]);
        }
    }

    #[test]
    fn shares_hold_at_their_value_and_trip_above_it() {
        assert_eq!(tripped(groups(10), LISTED, &[]), [""; 0]);
        assert_eq!(tripped(groups(11), LISTED, &[]), ["orphan_share"]);
        // 90 listed and 10 foreign: a tenth of what the listing shows.
        assert_eq!(tripped(groups(6), Listed { groups: 90, foreign: 10 }, &[]), [""; 0]);
        assert_eq!(tripped(groups(6), Listed { groups: 90, foreign: 11 }, &[]), ["foreign_share"]);
        let both = readings(groups(20), Listed { groups: 60, foreign: 20 }, &limits(), &[]);
        assert_eq!(reading(&both, Breaker::OrphanShare).observed, json!(20.0 / 60.0));
        assert_eq!(reading(&both, Breaker::ForeignShare).observed, json!(0.25));
        assert_eq!(reading(&both, Breaker::OrphanShare).message, "20 of 60 listed groups would go");
        assert_eq!(
            reading(&both, Breaker::ForeignShare).message,
            "20 of 80 listed keys and prefixes belong to no dataset"
        );
    }

    #[test]
    fn a_share_is_judged_only_when_more_than_a_small_number_of_groups_would_go() {
        assert_eq!(tripped(groups(5), Listed { groups: 8, foreign: 900 }, &[]), [""; 0]);
        assert_eq!(tripped(groups(6), Listed { groups: 8, foreign: 900 }, &[]), ["orphan_share", "foreign_share"]);
        assert_eq!(
            tripped(groups(1), Listed { groups: 8, foreign: 0 }, &[]),
            [""; 0],
            "one orphan among eight can be cleaned"
        );
        let strict = Limits { small: 0, ..limits() };
        let readings = readings(groups(1), Listed { groups: 8, foreign: 0 }, &strict, &[]);
        assert!(reading(&readings, Breaker::OrphanShare).tripped);
    }

    #[test]
    fn a_share_of_one_switches_it_off() {
        let off = Limits { max_orphan_share: 1.0, max_foreign_share: 1.0, ..limits() };
        // A plan that was applied in part may hold more groups than are listed any more.
        for listed in [
            Listed { groups: 50, foreign: 1_000_000 },
            Listed { groups: 49, foreign: 0 },
            Listed { groups: 0, foreign: 3 },
        ] {
            assert!(readings(groups(50), listed, &off, &[]).iter().all(|reading| !reading.tripped), "{listed:?}");
        }
        let lifted = ["orphan_share=1", "foreign_share=1.0"];
        assert_eq!(tripped(groups(50), Listed { groups: 49, foreign: 1000 }, &lifted), [""; 0]);
        assert_eq!(tripped(groups(50), Listed { groups: 49, foreign: 0 }, &["orphan_share=0.99"]), ["orphan_share"]);
    }

    #[test]
    fn nothing_listed_is_no_share() {
        let empty = readings(groups(50), Listed { groups: 0, foreign: 0 }, &limits(), &[]);
        for name in [Breaker::OrphanShare, Breaker::ForeignShare] {
            let reading = reading(&empty, name);
            assert_eq!((reading.tripped, &reading.observed), (false, &json!(0.0)));
        }
    }

    #[test]
    fn readings_show_what_would_go_and_what_may() {
        let would = WouldGo { groups: 12_000, objects: 2_000_000, bytes: 3 << 40 };
        let readings = readings(would, Listed { groups: 1_000_000, foreign: 0 }, &limits(), &[]);
        for (name, observed, allowed, message) in [
            (Breaker::OrphanGroups, 12_000, 10_000, "12,000 groups would go, 10,000 may"),
            (Breaker::Objects, 2_000_000, 1_000_000, "2,000,000 objects would go, 1,000,000 may"),
            (Breaker::Bytes, 3_u64 << 40, 1_u64 << 40, "3.0 TiB of objects would go, 1.0 TiB may"),
        ] {
            let reading = reading(&readings, name);
            assert_eq!(
                (&reading.observed, &reading.allowed, reading.message.as_str()),
                (&json!(observed), &json!(allowed), message)
            );
        }
    }

    #[test]
    fn an_allowance_lifts_its_own_limit_to_its_value() {
        let would = WouldGo { groups: 20_000, objects: 2_500_000, bytes: 2 << 40 };
        let listed = Listed { groups: 25_000, foreign: 25_000 };
        let all = ["orphan_share=0.8", "orphan_groups=20_000", "objects=2500000", "bytes=2TiB", "foreign_share=0.5"];
        assert_eq!(tripped(would, listed, &[]), ["orphan_share", "orphan_groups", "objects", "bytes", "foreign_share"]);
        assert_eq!(tripped(would, listed, &all), [""; 0]);
        for (index, name) in
            ["orphan_share", "orphan_groups", "objects", "bytes", "foreign_share"].into_iter().enumerate()
        {
            let others: Vec<&str> =
                all.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, text)| *text).collect();
            assert_eq!(tripped(would, listed, &others), [name], "one lifts no other");
        }
        for (name, short) in [
            ("orphan_share", "0.799"),
            ("orphan_groups", "19999"),
            ("objects", "2499999"),
            ("bytes", "2199023255551"),
            ("foreign_share", "0.499"),
        ] {
            let short = format!("{name}={short}");
            let lifted: Vec<&str> =
                all.iter().copied().filter(|text| !text.starts_with(name)).chain([short.as_str()]).collect();
            assert_eq!(tripped(would, listed, &lifted), [name], "{short}");
        }
    }

    #[test]
    fn an_allowance_never_lowers_a_limit() {
        let would = WouldGo { groups: 10, objects: 1_000_000, bytes: 1 << 40 };
        let none = ["orphan_share=0", "orphan_groups=0", "objects=0", "bytes=0", "foreign_share=0.0"];
        assert_eq!(tripped(would, LISTED, &none), [""; 0]);
        let readings = readings(would, LISTED, &limits(), &none);
        assert_eq!(reading(&readings, Breaker::OrphanShare).allowed, json!(0.1));
        assert_eq!(reading(&readings, Breaker::Bytes).allowed, json!(1_u64 << 40));
    }
}

mod allowances {
    use super::*;

    fn add(text: &str) -> Result<Allowances, AllowanceError> {
        let mut allowances = Allowances::default();
        allowances.add(text).map(|()| allowances)
    }

    #[test]
    fn every_size_breaker_can_be_lifted() {
        for (text, breaker, allowance) in [
            ("orphan_share=0.8", Breaker::OrphanShare, Allowance::Share(0.8)),
            ("orphan_share=1", Breaker::OrphanShare, Allowance::Share(1.0)),
            ("foreign_share=0", Breaker::ForeignShare, Allowance::Share(0.0)),
            ("orphan_groups=12_000", Breaker::OrphanGroups, Allowance::Count(12_000)),
            ("objects=2500000", Breaker::Objects, Allowance::Count(2_500_000)),
            ("bytes=2TiB", Breaker::Bytes, Allowance::Count(2 << 40)),
            ("bytes=5", Breaker::Bytes, Allowance::Count(5)),
        ] {
            assert_eq!(add(text), Ok(Allowances(BTreeMap::from([(breaker, allowance)]))), "{text}");
        }
    }

    #[test]
    fn several_add_up_and_the_last_of_one_counts() {
        let mut allowances = Allowances::default();
        for text in ["objects=1", "bytes=2", "objects=3"] {
            allowances.add(text).expect("well formed");
        }
        let expected = [(Breaker::Objects, Allowance::Count(3)), (Breaker::Bytes, Allowance::Count(2))];
        assert_eq!(allowances, Allowances(BTreeMap::from(expected)));
    }

    #[test]
    fn what_cannot_be_taken_is_refused_and_says_what_to_write() {
        for text in ["objects", "", "objects:5"] {
            assert_eq!(add(text), Err(AllowanceError::Form(text.into())));
        }
        for text in ["object=5", "=5", "Objects=5", " objects=5"] {
            let name = text.split('=').next().expect("a part");
            assert_eq!(add(text), Err(AllowanceError::Name(name.into())));
        }
        let value = |name: &str, value: &str, expected| {
            Err(AllowanceError::Value { name: name.into(), value: value.into(), expected })
        };
        for wrong in ["", "-1", "1.5", "many", "18446744073709551616", " 5"] {
            assert_eq!(add(&format!("objects={wrong}")), value("objects", wrong, "a whole number"));
            assert_eq!(add(&format!("orphan_groups={wrong}")), value("orphan_groups", wrong, "a whole number"));
        }
        for wrong in ["", "-1", "2 parsec", "TiB"] {
            assert_eq!(add(&format!("bytes={wrong}")), value("bytes", wrong, "a size such as 2TiB"));
        }
        for wrong in ["", "1.01", "-0.1", "NaN", "inf", "80%"] {
            assert_eq!(add(&format!("orphan_share={wrong}")), value("orphan_share", wrong, "a share from 0.0 to 1.0"));
            assert_eq!(
                add(&format!("foreign_share={wrong}")),
                value("foreign_share", wrong, "a share from 0.0 to 1.0")
            );
        }
    }

    #[test]
    fn no_evidence_breaker_can_be_lifted() {
        for breaker in Breaker::ALL.into_iter().filter(|breaker| breaker.kind() == Kind::Evidence) {
            let error = add(&format!("{}=1", breaker.as_str())).expect_err("evidence");
            assert_eq!(error, AllowanceError::Evidence(breaker.as_str().into()));
            assert!(
                error.to_string().contains(&format!("orphan-sweeper ack {} --by NAME --reason TEXT", breaker.as_str()))
            );
        }
    }

    #[test]
    fn an_allowance_comes_back_from_the_ledger_as_it_was() {
        for allowance in [
            Allowance::Count(0),
            Allowance::Count(u64::MAX),
            Allowance::Share(0.0),
            Allowance::Share(1.0),
            Allowance::Share(0.35),
        ] {
            let text = serde_json::to_string(&allowance).expect("serializable");
            assert_eq!(serde_json::from_str::<Allowance>(&text).expect("readable"), allowance, "{text}");
        }
    }
}

fn evidence() -> impl Strategy<Value = Seen> {
    (0..200_u64, 0..200_u64, 0..50_u64, 0..50_u64, -5..5_i64, 0..700_i64, 0..3_u64).prop_map(
        |(table, other, expected, seen, back, skew_s, listed)| {
            let mut scan = Seen::overlap(expected, seen.min(expected));
            scan.observation.rows = rows(&[(TABLE, table), (OTHER, other)]);
            (scan.observation.as_of, scan.observation.skew_s, scan.listed_groups) = (at(back), skew_s, listed);
            scan
        },
    )
}

proptest! {
    #[test]
    fn whatever_was_observed_may_be_acknowledged_and_then_trips_nothing(scan in evidence(), before in evidence()) {
        let mut baseline = Baseline::after_good_scan(None, before.observation);
        for breaker in scan.tripped(Some(&baseline)) {
            baseline = baseline.after_acknowledgement(breaker, &scan.observation);
        }
        prop_assert_eq!(scan.tripped(Some(&baseline)), Vec::<Breaker>::new());
    }

    #[test]
    fn less_would_go_never_trips_more(
        would in (0..40_u64, 0..2_000_000_u64, 0..(1_u64 << 41)),
        less in (0..40_u64, 0..2_000_000_u64, 0..(1_u64 << 41)),
        listed in (40..400_u64, 0..100_u64),
    ) {
        let listed = Listed { groups: listed.0, foreign: listed.1 };
        let judge = |would: WouldGo| judge_size(would, listed, &limits(), &Allowances::default());
        let more = judge(WouldGo { groups: would.0, objects: would.1, bytes: would.2 });
        let fewer = judge(WouldGo { groups: would.0.min(less.0), objects: would.1.min(less.1), bytes: would.2.min(less.2) });
        prop_assert!(more.iter().zip(&fewer).all(|(more, fewer)| more.tripped || !fewer.tripped));
    }

    #[test]
    fn arbitrary_allowances_never_panic(text in any::<String>(), name in "(objects|bytes|orphan_share|live_drop)=[0-9a-zA-Z._-]{0,12}") {
        let mut allowances = Allowances::default();
        let _ = allowances.add(&text);
        let _ = allowances.add(&name);
    }
}

mod purges {
    use super::*;

    /// A scan that saw the transactions before `xmax`, and this many rows.
    fn scan(xmax: u64, count: u64) -> Observation {
        Observation { snapshot: Snapshot::parse(&format!("{xmax}:{xmax}:")), ..observed(&[(TABLE, count)]) }
    }

    /// A purge of `count` rows by transaction `xid` of the database that every scan here reads.
    fn purge(xid: u64, count: u64) -> PurgedRows {
        PurgedRows { xid, identity: identity(), rows: rows(&[(TABLE, count)]), made: BTreeMap::new() }
    }

    fn trips(baseline: Observation, observation: Observation, purges: &[PurgedRows]) -> bool {
        let seen = Seen { observation, purges: purges.to_vec(), ..Seen::default() };
        seen.trips(Breaker::LiveDrop, Some(&Baseline::after_good_scan(None, baseline)))
    }

    #[test]
    fn rows_that_a_purge_removed_since_the_baseline_are_no_drop() {
        assert!(trips(scan(10, 100), scan(20, 60), &[]), "without a purge it is one");
        assert!(!trips(scan(10, 100), scan(20, 60), &[purge(12, 40)]));
        assert!(!trips(scan(10, 100), scan(20, 60), &[purge(12, 15), purge(19, 25)]));
        let seen = Seen { observation: scan(20, 60), purges: vec![purge(12, 40)], ..Seen::default() };
        let reading = seen.reading(Breaker::LiveDrop, Some(&Baseline::after_good_scan(None, scan(10, 100))));
        assert_eq!(reading.message, format!("{TABLE} had 100 rows, of which `purge` removed 40, and has 60"));
    }

    #[test]
    fn a_drop_beyond_what_purges_removed_trips() {
        assert!(trips(scan(10, 100), scan(20, 50), &[purge(12, 40)]), "10 of the 60 that were to be there");
        assert!(!trips(scan(10, 100), scan(20, 57), &[purge(12, 40)]), "3 of 60");
    }

    #[test]
    fn a_purge_vouches_only_for_what_fell_between_the_two_scans() {
        let before = scan(10, 100);
        assert!(trips(before.clone(), scan(20, 60), &[purge(9, 40)]), "the baseline saw it already");
        assert!(trips(before.clone(), scan(20, 60), &[purge(20, 40)]), "this scan did not see it yet");
        let in_progress = Observation { snapshot: Snapshot::parse("11:20:12,15"), ..scan(20, 60) };
        assert!(trips(before.clone(), in_progress, &[purge(12, 40)]), "it was still in progress for this scan");
        let in_progress = Observation { snapshot: Snapshot::parse("9:14:12"), ..before.clone() };
        assert!(!trips(in_progress, scan(20, 60), &[purge(12, 40)]), "it was still in progress for the baseline");
        for unknown in [
            (Observation { snapshot: None, ..before.clone() }, scan(20, 60)),
            (before.clone(), Observation { snapshot: None, ..scan(20, 60) }),
        ] {
            assert!(trips(unknown.0, unknown.1, &[purge(12, 40)]), "nobody can tell");
        }
        let elsewhere = DatabaseIdentity { timeline: "00000002".into(), ..identity() };
        let elsewhere = PurgedRows { identity: elsewhere, ..purge(12, 40) };
        assert!(trips(before, scan(20, 60), &[elsewhere]), "it is another timeline's transaction");
    }

    #[test]
    fn a_purge_vouches_only_for_the_very_table() {
        let with =
            |name: &str, oid| DatabaseIdentity { tables: vec![TableIdentity { name: name.into(), oid }], ..identity() };
        let table = format!("{TABLE} (id)");
        let scan = |xmax, count, oid| Observation { identity: with(&table, oid), ..scan(xmax, count) };
        let purge = |name: &str, oid| PurgedRows { identity: with(name, oid), ..purge(12, 40) };
        let trips = |oid, purge| trips(scan(10, 100, 7), scan(20, 60, oid), &[purge]);
        assert!(!trips(7, purge(&table, 7)));
        assert!(trips(7, purge(&table, 8)), "another table of that name");
        assert!(trips(8, purge(&table, 7)), "the table was swapped since the baseline");
        assert!(trips(7, purge(&format!("{TABLE} (parent)"), 7)), "another column of it");
        assert!(trips(7, purge(&format!("{TABLE}_old (id)"), 7)), "a table whose name only begins so");
    }

    #[test]
    fn a_table_that_another_scope_or_an_earlier_version_calls_otherwise_is_the_same() {
        let label = format!("{TABLE} (id)");
        let identity =
            || DatabaseIdentity { tables: vec![TableIdentity { name: label.clone(), oid: 7 }], ..identity() };
        let scan = |xmax, name: &str, count| Observation {
            identity: identity(),
            rows: rows(&[(name, count)]),
            ..scan(xmax, count)
        };
        for (called, by_purge) in [(TABLE, label.as_str()), (label.as_str(), TABLE)] {
            let purge = PurgedRows { identity: identity(), rows: rows(&[(by_purge, 40)]), ..purge(12, 40) };
            assert!(!trips(scan(10, called, 100), scan(20, called, 60), std::slice::from_ref(&purge)), "{called}");
            assert!(trips(scan(10, called, 100), scan(20, called, 50), &[purge]), "{called}");
        }
        for (before, after) in [(TABLE, label.as_str()), (label.as_str(), TABLE)] {
            assert!(!trips(scan(10, before, 100), scan(20, after, 100), &[]), "a new name is no fall");
            assert!(trips(scan(10, before, 100), scan(20, after, 60), &[]), "nor does it hide one");
        }
        let two = |scan: Observation| {
            let tables =
                ["a", "b"].map(|column| TableIdentity { name: format!("{TABLE} ({column})"), oid: 7 }).to_vec();
            Observation { identity: DatabaseIdentity { tables, ..identity() }, ..scan }
        };
        let both = Observation {
            rows: rows(&[(&format!("{TABLE} (a)"), 60), (&format!("{TABLE} (b)"), 3)]),
            ..scan(20, TABLE, 0)
        };
        assert!(!trips(two(scan(10, TABLE, 100)), two(both), &[]), "nobody knows which of the two it was");
        let other = Observation { identity: super::identity(), ..scan(20, "s.other", 60) };
        let gone = Observation { identity: DatabaseIdentity { tables: Vec::new(), ..identity() }, ..other };
        assert!(trips(scan(10, TABLE, 100), gone, &[]), "a table that is read no more is one");
    }

    #[test]
    fn rows_that_came_and_were_purged_since_the_baseline_are_none_of_those_that_it_counted() {
        let made = |times: &[(u32, u64)]| {
            let times = times.iter().map(|(time, rows)| (at(0) + chrono::Duration::seconds((*time).into()), *rows));
            BTreeMap::from([(TABLE.to_owned(), times.collect())])
        };
        // 40 came and went, and 40 others of the 100 vanished.
        let purge = |times: &[(u32, u64)]| PurgedRows { made: made(times), ..purge(12, 40) };
        assert!(trips(scan(10, 100), scan(20, 60), &[purge(&[(1, 40)])]));
        assert!(!trips(scan(10, 100), scan(20, 60), &[purge(&[(0, 40)])]), "made by the time of the baseline");
        assert!(trips(scan(10, 100), scan(20, 60), &[purge(&[(0, 20), (1, 5), (9, 15)])]));
        assert!(!trips(scan(10, 100), scan(20, 60), &[purge(&[(0, 20)])]), "of the others nobody knows the age");
        assert!(trips(scan(10, 100), scan(20, 60), &[purge(&[(1, 400)])]), "more were to go than went");
        // Whatever time a person acknowledges, the rows were counted when they were.
        for breakers in [[Breaker::ClockSkew, Breaker::LiveDrop], [Breaker::LiveDrop, Breaker::ClockSkew]] {
            let observed = Observation { as_of: at(500), ..scan(11, 100) };
            let before = Baseline::after_good_scan(None, scan(10, 100));
            let after = breakers.into_iter().fold(before, |before, it| before.after_acknowledgement(it, &observed));
            let now = Observation { as_of: at(600), ..scan(20, 60) };
            let trips = |purge| {
                let seen = Seen { observation: now.clone(), purges: vec![purge], ..Seen::default() };
                seen.trips(Breaker::LiveDrop, Some(&after))
            };
            assert!(trips(purge(&[(1, 40)])), "{breakers:?}");
            assert!(!trips(purge(&[(0, 40)])), "{breakers:?}");
        }
    }
}
