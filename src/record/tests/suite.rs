//! What the rooms of the ledger promise, on either kind of it. This file is read once for each.

use super::*;

/// Which kind this reading of the file is about.
const KIND: Kind = Kind::of(module_path!());

/// A new ledger; a test without the server that it needs ends here.
macro_rules! book {
    () => {
        match Book::open(KIND).await {
            Some(book) => book,
            None => return,
        }
    };
}

#[expect(clippy::duplicate_mod, reason = "it is read once for each kind of ledger")]
#[path = "review.rs"]
mod review;

#[path = "notices.rs"]
mod notices;
#[expect(clippy::duplicate_mod, reason = "it is read once for each kind of ledger")]
#[path = "purges.rs"]
mod purges;

mod runs {
    use super::*;

    fn start(n: u128, scope: &str) -> RunStart {
        RunStart { run_id: run(n), scope: scope.into(), command: "sweep".into(), is_dry_run: true, started_at: at(1) }
    }

    fn end(outcome: &'static str) -> RunEnd<'static> {
        RunEnd {
            finished_at: at(60),
            outcome,
            reason: Some("because"),
            exit_code: 5,
            plan_hash: Some("abc".into()),
            orphan_bytes: Some(1 << 40),
            summary: "{}".into(),
        }
    }

    #[tokio::test]
    async fn a_run_comes_back_as_it_was_told() {
        let book = book!();
        book.begin_run(&start(1, SCOPE)).await.expect("begun");
        let begun = book.run(&run(1).to_string()).await.expect("readable").expect("known");
        assert_eq!(
            (begun.scope.as_str(), begun.command.as_str(), begun.is_dry_run, begun.started_at),
            (SCOPE, "sweep", true, at(1))
        );
        assert!(
            begun.finished_at.is_none()
                && begun.outcome.is_none()
                && begun.exit_code.is_none()
                && begun.orphan_bytes.is_none()
        );
        book.finish_run(run(1), &end("complete")).await.expect("ended");
        let ended = book.run(&run(1).to_string()).await.expect("readable").expect("known");
        assert_eq!(
            (ended.finished_at, ended.outcome.as_deref(), ended.reason.as_deref()),
            (Some(at(60)), Some("complete"), Some("because"))
        );
        assert_eq!(
            (ended.exit_code, ended.plan_hash.as_deref(), ended.orphan_bytes),
            (Some(5), Some("abc"), Some(1 << 40))
        );
        assert_eq!(ended.summary.as_deref(), Some("{}"));
        let more_than_fits = RunEnd { orphan_bytes: Some(u64::MAX), ..end("complete") };
        book.finish_run(run(1), &more_than_fits).await.expect("ended");
        assert_eq!(book.run(&run(1).to_string()).await.expect("readable").expect("known").orphan_bytes, Some(i64::MAX));
        assert!(book.run(&run(2).to_string()).await.expect("readable").is_none());
        assert!(book.knows_run(&run(1).to_string()).await.expect("readable"));
        assert!(!book.knows_run(&run(2).to_string()).await.expect("readable"));
    }

    #[tokio::test]
    async fn a_run_without_an_end_is_dead_when_the_next_one_begins() {
        let book = book!();
        // The ids of 1 and 9 say when the host's clock said so; it was set back before 2 began.
        book.begin_run(&start(1, SCOPE)).await.expect("begun");
        book.finish_run(run(1), &end("complete")).await.expect("ended");
        book.begin_run(&start(9, OTHER)).await.expect("begun");
        book.begin_run(&RunStart { started_at: at(500), ..start(2, SCOPE) }).await.expect("begun");
        let dead = book.run(&run(9).to_string()).await.expect("readable").expect("known");
        assert_eq!(
            (dead.outcome.as_deref(), dead.reason.as_deref(), dead.finished_at),
            (Some("failed"), Some("its process died"), Some(at(500)))
        );
        assert_eq!(dead.exit_code, None);
        let ended = book.run(&run(1).to_string()).await.expect("readable").expect("known");
        assert_eq!(
            (ended.outcome.as_deref(), ended.finished_at),
            (Some("complete"), Some(at(60))),
            "one that ended stays as it was"
        );
        let running = book.run(&run(2).to_string()).await.expect("readable").expect("known");
        assert_eq!((running.outcome, running.finished_at), (None, None));
    }

    #[tokio::test]
    async fn the_newest_run_is_the_last_that_began_whatever_its_id() {
        let book = book!();
        for (n, scope, outcome) in
            [(5, SCOPE, "complete"), (3, SCOPE, "complete"), (4, OTHER, "complete"), (2, SCOPE, "failed")]
        {
            book.begin_run(&start(n, scope)).await.expect("begun");
            book.finish_run(run(n), &end(outcome)).await.expect("ended");
        }
        let ids = async |scope: Option<&str>, limit| {
            let runs = book.runs(scope, limit).await.expect("readable");
            runs.into_iter().map(|row| row.run_id).collect::<Vec<_>>()
        };
        let names = |runs: &[u128]| runs.iter().map(|n| run(*n).to_string()).collect::<Vec<_>>();
        assert_eq!(ids(None, 10).await, names(&[2, 4, 3, 5]));
        assert_eq!(ids(Some(SCOPE), 10).await, names(&[2, 3, 5]));
        assert_eq!(ids(None, 2).await, names(&[2, 4]));
        let last = async |scope| book.last_complete_run(scope).await.expect("readable").map(|row| row.run_id);
        assert_eq!(last(SCOPE).await, Some(run(3).to_string()));
        assert_eq!(last(OTHER).await, Some(run(4).to_string()));
        assert_eq!(last("third").await, None);
        assert_eq!(book.run_count().await.expect("readable"), 4);
    }

    #[tokio::test]
    async fn a_schedule_remembers_when_it_first_began_and_how_far_it_was_looked_at() {
        let book = book!();
        assert_eq!(book.first_start(SCOPE).await.expect("readable"), None);
        book.mark_schedule(SCOPE, at(1)).await.expect("nothing to mark");
        assert_eq!(book.schedule_checked_until(SCOPE, at(10)).await.expect("readable"), at(10));
        assert_eq!(
            book.schedule_checked_until(SCOPE, at(20)).await.expect("readable"),
            at(10),
            "only the first call sets it"
        );
        book.mark_schedule(SCOPE, at(30)).await.expect("marked");
        assert_eq!(book.schedule_checked_until(SCOPE, at(40)).await.expect("readable"), at(30));
        assert_eq!(book.first_start(SCOPE).await.expect("readable"), Some(at(10)));
        assert_eq!(book.schedule_checked_until(OTHER, at(50)).await.expect("readable"), at(50), "each scope by itself");
    }
}

mod sightings {
    use super::*;

    async fn record(book: &Book, scope: &str, by: u128, orphans: &[(DatasetId, Sighting)]) -> ScanDelta {
        book.record_lone_scan(scope, run(by), orphans, &good(10)).await.expect("recorded")
    }

    async fn sighted(book: &Book, scope: &str) -> BTreeSet<DatasetId> {
        book.sighted_ids(scope).await.expect("readable").into_iter().collect()
    }

    #[tokio::test]
    async fn a_sighting_comes_back_as_it_was() {
        let book = book!();
        record(&book, SCOPE, 1, &[(id(1), sighting(1, 5)), (id(2), Sighting { is_changed: true, ..sighting(1, 6) })])
            .await;
        assert_eq!(book.sighting(SCOPE, id(1)).await.expect("readable"), Some(sighting(1, 5)));
        assert_eq!(
            book.sighting(SCOPE, id(2)).await.expect("readable"),
            Some(sighting(1, 6)),
            "that it changed is of its scan only"
        );
        assert_eq!(book.sighting(SCOPE, id(3)).await.expect("readable"), None);
        assert_eq!(book.sighting(OTHER, id(1)).await.expect("readable"), None, "another scope has seen nothing");
        let later = Sighting {
            sightings: u32::MAX,
            witnessed: chrono::Duration::zero(),
            digest: hash(1),
            last_seen: at(99),
            first_seen: at(8),
            first_run: run(7),
            is_changed: false,
        };
        record(&book, SCOPE, 7, &[(id(1), later.clone())]).await;
        assert_eq!(book.sighting(SCOPE, id(1)).await.expect("readable"), Some(later), "every field is taken over");
    }

    #[tokio::test]
    async fn a_scan_begins_no_sighting_of_what_another_look_may_have_seen_live_meanwhile() {
        let book = book!();
        record(&book, SCOPE, 1, &[(id(1), sighting(1, 0))]).await;
        let before = sighted(&book, SCOPE).await.into_iter().collect();
        // Two look at the same time, and the second one's rows are newer.
        let last = book.last_look(SCOPE).await.expect("readable");
        let first = book.note_look(SCOPE, &[], &before).await.expect("noted");
        assert_eq!(first, last + 1, "as far as the first one can tell, it is alone");
        let second = book.note_look(SCOPE, &[], &before).await.expect("noted");
        assert_eq!(second, last + 2, "the second one sees that it is not");
        let next = Sighting { sightings: 4, last_seen: at(50), ..sighting(1, 0) };
        let orphans = [(id(1), next.clone()), (id(2), Sighting::first(run(2), at(50), hash(9)))];
        let looked = Looked { run: run(2), alone: Some(first) };
        book.record_scan(SCOPE, looked, &orphans, &good(10)).await.expect("recorded");
        assert_eq!(sighted(&book, SCOPE).await, BTreeSet::from([id(1)]), "what had sightings goes on, none begins");
        assert_eq!(book.sighting(SCOPE, id(1)).await.expect("readable"), Some(next));
        book.forget(SCOPE, &[id(9)]).await.expect("forgotten");
        let looked = Looked { run: run(2), alone: Some(second) };
        book.record_scan(SCOPE, looked, &orphans, &good(10)).await.expect("recorded");
        assert_eq!(
            sighted(&book, SCOPE).await,
            BTreeSet::from([id(1)]),
            "a re-check that saw one live counts as a look"
        );
        let looked = Looked { run: run(2), alone: Some(second + 1) };
        book.record_scan(SCOPE, looked, &orphans, &good(10)).await.expect("recorded");
        assert_eq!(sighted(&book, SCOPE).await, BTreeSet::from([id(1), id(2)]), "alone, it begins them");
        // And the other way round: the scan that saw no row was faster.
        book.note_look(SCOPE, &[], &before).await.expect("noted");
        assert_eq!(sighted(&book, SCOPE).await, BTreeSet::from([id(1)]), "what began meanwhile starts again");
    }

    #[tokio::test]
    async fn a_scan_brings_no_sightings_back_that_another_process_has_ended_meanwhile() {
        let book = book!();
        let all = |sighting: &Sighting| [1, 2, 3].map(|n| (id(n), sighting.clone()));
        record(&book, SCOPE, 1, &all(&sighting(1, 0))).await;
        // A scan has read these, and computes what comes next; before it writes, others forget one and spoil one.
        let next = Sighting { sightings: 4, last_seen: at(50), ..sighting(1, 0) };
        book.forget(SCOPE, &[id(1)]).await.expect("forgotten");
        book.spoil(SCOPE, id(2)).await.expect("spoiled");
        record(&book, SCOPE, 2, &all(&next)).await;
        let again = Sighting::first(run(2), at(50), hash(9));
        for (n, expected) in [(1, &again), (2, &again), (3, &next)] {
            assert_eq!(book.sighting(SCOPE, id(n)).await.expect("readable").as_ref(), Some(expected), "{n}");
        }
        // Another scan that had read the same as this one, and is slower, does not count on top of it.
        record(&book, SCOPE, 3, &[(id(3), next)]).await;
        let sighted = book.sighting(SCOPE, id(3)).await.expect("readable").expect("sighted");
        assert_eq!((sighted.first_run, sighted.sightings), (run(3), 1));
    }

    #[tokio::test]
    async fn a_scan_drops_what_it_did_not_see_and_says_what_is_new() {
        let book = book!();
        let seen = |ids: &[u128]| ids.iter().map(|n| (id(*n), sighting(1, 0))).collect::<Vec<_>>();
        let delta = |new, persisting, resolved| ScanDelta { new, persisting, resolved, not_begun: 0 };
        assert_eq!(record(&book, SCOPE, 1, &seen(&[1, 2, 3])).await, delta(3, 0, 0));
        assert_eq!(record(&book, OTHER, 2, &seen(&[1, 9])).await, delta(2, 0, 0));
        assert_eq!(record(&book, SCOPE, 3, &seen(&[2, 3, 4])).await, delta(1, 2, 1));
        assert_eq!(sighted(&book, SCOPE).await, [id(2), id(3), id(4)].into());
        assert_eq!(record(&book, SCOPE, 4, &seen(&[2, 3, 4])).await, delta(0, 3, 0));
        assert_eq!(record(&book, SCOPE, 5, &[]).await, delta(0, 0, 3));
        assert_eq!(sighted(&book, SCOPE).await, [].into());
        assert_eq!(sighted(&book, OTHER).await, [id(1), id(9)].into(), "each scope by itself");
    }

    #[tokio::test]
    async fn a_scan_is_the_baseline_of_the_next() {
        let book = book!();
        assert_eq!(book.baseline(SCOPE).await.expect("readable"), None);
        book.record_lone_scan(SCOPE, run(1), &[], &good(10)).await.expect("recorded");
        let mut second = good(9);
        (second.accepted_overlap, second.accepted_skew_s) = (Some(4.0 / 11.0), Some(900));
        second.accepted_empty = vec!["s.t".into()];
        book.record_lone_scan(SCOPE, run(2), &[], &second).await.expect("recorded");
        assert_eq!(book.baseline(SCOPE).await.expect("readable"), Some(second), "to the last digit");
        assert_eq!(book.baseline(OTHER).await.expect("readable"), None);
    }

    #[tokio::test]
    async fn a_scan_that_cannot_be_recorded_whole_changes_nothing() {
        let book = book!();
        record(&book, SCOPE, 1, &[(id(1), sighting(1, 0))]).await;
        book.refuse("UPDATE", "baselines", None).await;
        let failed = book.record_lone_scan(SCOPE, run(2), &[(id(2), sighting(2, 0))], &good(1)).await;
        assert!(matches!(failed, Err(RecordError::Statement { step: "set the baseline", .. })), "{failed:?}");
        assert_eq!(sighted(&book, SCOPE).await, [id(1)].into());
        assert_eq!(book.baseline(SCOPE).await.expect("readable"), Some(good(10)));
    }

    #[tokio::test]
    async fn an_id_that_was_seen_live_starts_again() {
        let book = book!();
        let seen: Vec<_> = (1..=4).map(|n| (id(n), sighting(1, 0))).collect();
        record(&book, SCOPE, 1, &seen).await;
        record(&book, OTHER, 1, &seen).await;
        book.forget(SCOPE, &[id(2), id(4), id(77)]).await.expect("forgotten");
        assert_eq!(sighted(&book, SCOPE).await, [id(1), id(3)].into());
        book.forget(SCOPE, &[]).await.expect("nothing to forget");
        assert_eq!(book.forget_all(SCOPE).await.expect("forgotten"), 2);
        assert_eq!(book.forget_all(SCOPE).await.expect("nothing left"), 0);
        assert_eq!(sighted(&book, OTHER).await.len(), 4, "of its own scope only");
    }

    #[tokio::test]
    async fn only_intents_of_closed_plans_whose_ids_are_seen_no_more_are_compacted() {
        let book = book!();
        for (n, state) in [(1, "open"), (2, "applying"), (3, "closed"), (4, "closed")] {
            book.issue_plan(&plan(u128::from(n)), hash(n), Path::new("p")).await.expect("issued");
            book.execute(&format!("UPDATE plans SET state = '{state}' WHERE hash = '{}'", hash(n))).await;
        }
        for (plan, id_of, scope, key) in [
            (1, 1, SCOPE, "p/open"),
            (2, 2, SCOPE, "p/applying"),
            (3, 3, SCOPE, "p/closed"),
            (4, 4, SCOPE, "p/closed-and-seen"),
            (3, 3, OTHER, "p/elsewhere"),
            (9, 9, SCOPE, "p/of-no-plan"),
        ] {
            let intent = Intent { scope, plan: hash(plan), id: id(id_of), ..intent(plan, 1) };
            book.intend(&intent, &objects(&[key])).await.expect("intended");
        }
        record(&book, SCOPE, 2, &[(id(4), sighting(1, 0))]).await;
        let kept: BTreeSet<String> = book.keys().await.into_iter().collect();
        let expected = ["p/open", "p/applying", "p/closed-and-seen", "p/elsewhere", "p/of-no-plan"];
        assert_eq!(kept, expected.map(str::to_owned).into());
    }
}

mod latches {
    use super::*;

    fn tripped(breaker: Breaker, message: &str) -> Vec<(Breaker, String)> {
        vec![(breaker, message.to_owned())]
    }

    async fn latch(book: &Book, by: u128, breaker: Breaker, observation: &Observation) {
        book.begin(by).await;
        book.latch(SCOPE, run(by), at(0), &tripped(breaker, "said"), observation).await.expect("latched");
    }

    async fn only_latch(book: &Book) -> super::super::breakers::Latch {
        let mut latches = book.latches(SCOPE).await.expect("readable");
        assert_eq!(latches.len(), 1, "{latches:?}");
        latches.remove(0)
    }

    async fn acknowledge(book: &Book) {
        book.acknowledge(SCOPE, &only_latch(book).await, "ada", "known", at(50)).await.expect("acknowledged");
    }

    async fn good_scan(book: &Book, by: u128, baseline: &Baseline) {
        book.begin(by).await;
        book.record_lone_scan(SCOPE, run(by), &[(id(1), sighting(by, 0))], baseline).await.expect("recorded");
    }

    #[tokio::test]
    async fn what_tripped_waits_with_what_it_saw() {
        let book = book!();
        let both = [(Breaker::NoOverlap, "few".to_owned()), (Breaker::LiveDrop, "fell".to_owned())];
        book.latch(SCOPE, run(1), at(1), &both, &observed(5)).await.expect("latched");
        let latches = book.latches(SCOPE).await.expect("readable");
        let told: Vec<_> = latches.iter().map(|latch| (latch.breaker, latch.message.as_str())).collect();
        assert_eq!(told, [(Breaker::LiveDrop, "fell"), (Breaker::NoOverlap, "few")]);
        for latch in latches {
            assert_eq!((latch.run_id, latch.latched_at, latch.observation), (run(1).to_string(), at(1), observed(5)));
        }
        assert!(book.latches(OTHER).await.expect("readable").is_empty());
        book.latch(SCOPE, run(2), at(2), &[], &observed(6)).await.expect("nothing to latch");
        assert_eq!(book.latches(SCOPE).await.expect("readable").len(), 2);
    }

    #[tokio::test]
    async fn one_that_waits_already_shows_the_newer_observation_and_the_older_time() {
        let book = book!();
        book.latch(SCOPE, run(1), at(1), &tripped(Breaker::LiveDrop, "first"), &observed(5)).await.expect("latched");
        book.latch(SCOPE, run(2), at(2), &tripped(Breaker::LiveDrop, "second"), &observed(4)).await.expect("latched");
        let latch = only_latch(&book).await;
        assert_eq!((latch.run_id, latch.latched_at, latch.message.as_str()), (run(2).to_string(), at(1), "second"));
        assert_eq!(latch.observation, observed(4));
    }

    #[tokio::test]
    async fn an_acknowledgement_moves_the_baseline_and_is_on_record() {
        let book = book!();
        good_scan(&book, 1, &good(100)).await;
        latch(&book, 2, Breaker::LiveDrop, &Observation { skew_s: 9, ..observed(50) }).await;
        acknowledge(&book).await;
        let baseline = book.baseline(SCOPE).await.expect("readable").expect("one");
        assert_eq!(baseline, good(50), "and nothing but the rows");
        assert!(book.latches(SCOPE).await.expect("readable").is_empty());
        let kept = book.acknowledgements().await.expect("readable");
        assert_eq!(kept.len(), 1);
        assert_eq!(
            (kept[0].scope.as_str(), kept[0].breaker.as_str(), kept[0].acknowledged_by.as_str()),
            (SCOPE, "live_drop", "ada")
        );
        assert_eq!(
            (kept[0].reason.as_str(), kept[0].message.as_str(), kept[0].acknowledged_at),
            ("known", "said", at(50))
        );
        assert_eq!(kept[0].run_id, run(2).to_string());
    }

    #[tokio::test]
    async fn only_the_acknowledged_breaker_of_its_scope_is_cleared() {
        let book = book!();
        let both = [(Breaker::NoOverlap, "few".to_owned()), (Breaker::LiveDrop, "fell".to_owned())];
        for scope in [SCOPE, OTHER] {
            book.latch(scope, run(1), at(1), &both, &observed(5)).await.expect("latched");
        }
        let latch = book.latches(SCOPE).await.expect("readable").remove(0);
        book.acknowledge(SCOPE, &latch, "ada", "known", at(50)).await.expect("acknowledged");
        assert_eq!(only_latch(&book).await.breaker, Breaker::NoOverlap);
        assert_eq!(book.latches(OTHER).await.expect("readable").len(), 2);
    }

    #[tokio::test]
    async fn a_baseline_that_a_later_good_scan_set_is_not_moved_back() {
        let book = book!();
        good_scan(&book, 1, &good(100)).await;
        // The host's clock was set back: the later run has the smaller id.
        latch(&book, 9, Breaker::LiveDrop, &observed(10)).await;
        good_scan(&book, 3, &good(98)).await;
        acknowledge(&book).await;
        assert_eq!(book.baseline(SCOPE).await.expect("readable"), Some(good(98)));
        assert!(book.latches(SCOPE).await.expect("readable").is_empty(), "the latch is cleared all the same");
        assert_eq!(book.acknowledgements().await.expect("readable").len(), 1);
        latch(&book, 2, Breaker::LiveDrop, &observed(40)).await;
        acknowledge(&book).await;
        assert_eq!(book.baseline(SCOPE).await.expect("readable"), Some(good(40)), "one that came after it moves it");
    }

    #[tokio::test]
    async fn both_latches_of_one_run_can_be_acknowledged() {
        let book = book!();
        good_scan(&book, 1, &good(100)).await;
        book.begin(2).await;
        let both = [(Breaker::ClockSkew, "apart".to_owned()), (Breaker::LiveDrop, "fell".to_owned())];
        book.latch(SCOPE, run(2), at(0), &both, &Observation { skew_s: 900, ..observed(50) }).await.expect("latched");
        for latch in book.latches(SCOPE).await.expect("readable") {
            book.acknowledge(SCOPE, &latch, "ada", "known", at(50)).await.expect("acknowledged");
        }
        let baseline = book.baseline(SCOPE).await.expect("readable").expect("one");
        assert_eq!((baseline.accepted_skew_s, baseline.observation.rows["s.t"]), (Some(900), 50));
    }

    #[tokio::test]
    async fn a_first_scan_that_tripped_becomes_the_baseline_by_acknowledgement() {
        let book = book!();
        latch(&book, 1, Breaker::NoReferences, &observed(0)).await;
        acknowledge(&book).await;
        let baseline = book.baseline(SCOPE).await.expect("readable").expect("one");
        assert_eq!((baseline.observation, baseline.accepted_empty), (observed(0), vec!["s.t".to_owned()]));
    }

    #[tokio::test]
    async fn another_target_starts_the_sightings_of_its_scope_again() {
        for (breaker, left) in [(Breaker::TargetChanged, 0), (Breaker::DatabaseIdentity, 1)] {
            let book = book!();
            good_scan(&book, 1, &good(100)).await;
            book.record_lone_scan(OTHER, run(1), &[(id(1), sighting(1, 0))], &good(1)).await.expect("recorded");
            latch(&book, 2, breaker, &observed(100)).await;
            acknowledge(&book).await;
            assert_eq!(book.sighted_ids(SCOPE).await.expect("readable").len(), left, "{}", breaker.as_str());
            assert_eq!(book.sighted_ids(OTHER).await.expect("readable").len(), 1);
        }
    }

    #[tokio::test]
    async fn acknowledgements_are_kept_the_newest_first() {
        let book = book!();
        for (n, breaker) in [(1, Breaker::LiveDrop), (2, Breaker::ClockSkew), (3, Breaker::LiveDrop)] {
            latch(&book, n, breaker, &observed(5)).await;
            acknowledge(&book).await;
        }
        let kept: Vec<String> =
            book.acknowledgements().await.expect("readable").into_iter().map(|kept| kept.run_id).collect();
        assert_eq!(kept, [3, 2, 1].map(|n| run(n).to_string()));
    }

    #[tokio::test]
    async fn what_cannot_be_read_back_is_an_error_and_no_silence() {
        let book = book!();
        good_scan(&book, 1, &good(100)).await;
        latch(&book, 2, Breaker::LiveDrop, &observed(5)).await;
        book.execute("UPDATE latches SET observation = '{}'").await;
        assert!(matches!(book.latches(SCOPE).await, Err(RecordError::Unreadable("an observation"))));
        book.execute("UPDATE latches SET breaker = 'of_tomorrow'").await;
        assert!(matches!(book.latches(SCOPE).await, Err(RecordError::Unreadable("a breaker"))));
        book.execute("UPDATE baselines SET baseline = 'x'").await;
        assert!(matches!(book.baseline(SCOPE).await, Err(RecordError::Unreadable("a baseline"))));
        book.execute("UPDATE sightings SET digest = x'00'").await;
        assert!(matches!(book.sighting(SCOPE, id(1)).await, Err(RecordError::Unreadable("a sighting"))));
    }
}

mod plans {
    use super::*;

    async fn state(book: &Book, n: u8) -> PlanState {
        book.plan(&hash(n).to_string()).await.expect("readable").expect("issued").state
    }

    #[tokio::test]
    async fn a_plan_is_open_then_applying_then_closed() {
        let book = book!();
        assert!(book.plan(&hash(1).to_string()).await.expect("readable").is_none(), "what was not issued is unknown");
        book.issue(1).await;
        book.issue(2).await;
        let row = book.plan(&hash(1).to_string()).await.expect("readable").expect("issued");
        assert_eq!(
            (row.hash, row.scope.as_str(), row.path.as_str()),
            (hash(1).to_string(), SCOPE, "/reports/plan.json")
        );
        assert_eq!(row.state, PlanState::Open);
        book.start_plan(hash(1), run(5), &[]).await.expect("started");
        assert_eq!((state(&book, 1).await, state(&book, 2).await), (PlanState::Applying, PlanState::Open));
        book.close_plan(hash(1)).await.expect("closed");
        assert_eq!((state(&book, 1).await, state(&book, 2).await), (PlanState::Closed, PlanState::Open));
        book.issue(1).await;
        assert_eq!(state(&book, 1).await, PlanState::Closed, "issuing it again opens nothing");
    }

    #[tokio::test]
    async fn a_plan_is_found_by_a_beginning_that_only_it_has() {
        let book = book!();
        let mut near = [0x11; 32];
        near[31] = 0x12;
        for hash in [hash(0x11), Sha256Hash(near), hash(0x22)] {
            book.issue_plan(&plan(1), hash, Path::new("p")).await.expect("issued");
        }
        let found = async |hash: &str| book.plan(hash).await.expect("readable").map(|row| row.hash);
        assert_eq!(found("22222222").await, Some(hash(0x22).to_string()));
        assert_eq!(found("11111111").await, None, "two begin so");
        assert_eq!(found(&hash(0x11).to_string()).await, Some(hash(0x11).to_string()));
        assert_eq!(found(&Sha256Hash(near).to_string()).await, Some(Sha256Hash(near).to_string()));
        for unknown in ["33333333", "2222222%", "2222222_", "", &format!("{}0", hash(0x22))] {
            assert_eq!(found(unknown).await, None, "{unknown}");
        }
    }

    #[tokio::test]
    async fn an_interrupted_plan_is_one_that_is_being_applied() {
        let book = book!();
        let interrupted = async |scope| book.interrupted_plan(scope).await.expect("readable").map(|row| row.hash);
        book.issue(1).await;
        assert_eq!(interrupted(SCOPE).await, None);
        book.start_plan(hash(1), run(5), &[]).await.expect("started");
        assert_eq!(interrupted(SCOPE).await, Some(hash(1).to_string()));
        assert_eq!(interrupted(OTHER).await, None);
        book.close_plan(hash(1)).await.expect("closed");
        assert_eq!(interrupted(SCOPE).await, None);
    }

    #[tokio::test]
    async fn a_resumed_plan_takes_over_what_its_dead_runs_asked_for() {
        let book = book!();
        for n in [1, 2] {
            book.issue(n).await;
        }
        book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
        book.intend(&intent(1, 11), &objects(&["p/a/2"])).await.expect("intended");
        book.intend(&intent(2, 10), &objects(&["p/a/3"])).await.expect("intended");
        let mut runs = book.runs_of_plan(hash(1)).await.expect("readable");
        runs.sort();
        assert_eq!(runs, [run(10).to_string(), run(11).to_string()]);
        book.start_plan(hash(1), run(12), &[run(10).to_string()]).await.expect("started");
        let by: Vec<String> = book.intents().await.into_iter().map(|(_, by, ..)| by).collect();
        assert_eq!(by, [run(12), run(11), run(10)].map(|run| run.to_string()), "of this plan, and of that run");
    }

    #[tokio::test]
    async fn closing_keeps_the_keys_of_ids_that_are_not_wholly_gone() {
        let book = book!();
        for n in [1, 2] {
            book.issue(n).await;
        }
        let of = |n, prefix| Intent { id: id(n), prefix, ..intent(1, 10) };
        for (intent, outcome) in [
            (of(1, "p/a/"), Some("gone")),
            (of(1, "p/dataset-a/"), Some("gone")),
            (of(2, "p/b/"), Some("gone")),
            (of(2, "p/dataset-b/"), Some("changed_since_plan")),
            (of(3, "p/c/"), Some("live_again")),
            // The process died before it could look: nobody knows yet what became of it.
            (of(4, "p/d/"), None),
        ] {
            book.intend(&intent, &objects(&[&format!("{}1", intent.prefix)])).await.expect("intended");
            book.skip(&intent, &objects(&[&format!("{}2", intent.prefix)]), "live_again").await.expect("noted");
            if let Some(outcome) = outcome {
                book.note_disposal(&intent, outcome, at(1)).await.expect("noted");
            }
        }
        book.intend(&intent(2, 10), &objects(&["p/a/of-another-plan"])).await.expect("intended");
        book.close_plan(hash(1)).await.expect("closed");
        assert_eq!(book.keys().await, ["p/a/of-another-plan", "p/b/1", "p/c/1", "p/d/1", "p/dataset-b/1"]);
    }

    #[tokio::test]
    async fn closing_keeps_the_keys_of_a_run_that_has_not_told_them_yet() {
        let book = book!();
        book.issue(1).await;
        for (by, key) in [(10, "p/a/1"), (11, "p/a/2")] {
            book.begin(by).await;
            book.intend(&intent(1, by), &objects(&[key])).await.expect("intended");
            book.note_disposal(&intent(1, by), "gone", at(1)).await.expect("noted");
        }
        book.end(10).await;
        book.close_plan(hash(1)).await.expect("closed");
        assert_eq!(book.keys().await, ["p/a/2"], "another process applies the same plan, and tells what it did later");
        book.end(11).await;
        book.close_plan(hash(1)).await.expect("closed");
        assert!(book.keys().await.is_empty());
    }

    #[tokio::test]
    async fn lifted_limits_are_kept_for_their_plan() {
        let book = book!();
        let first = Allowances(BTreeMap::from([
            (Breaker::Objects, Allowance::Count(5)),
            (Breaker::OrphanShare, Allowance::Share(1.0)),
        ]));
        book.allow(hash(1), run(1), &first, at(1)).await.expect("recorded");
        book.allow(hash(1), run(2), &Allowances::default(), at(2)).await.expect("recorded");
        assert_eq!(book.allowances(hash(1)).await.expect("readable"), first);
        book.allow(hash(1), run(3), &Allowances(BTreeMap::from([(Breaker::Objects, Allowance::Count(9))])), at(3))
            .await
            .expect("recorded");
        let both =
            BTreeMap::from([(Breaker::Objects, Allowance::Count(9)), (Breaker::OrphanShare, Allowance::Share(1.0))]);
        assert_eq!(book.allowances(hash(1)).await.expect("readable").0, both);
        assert_eq!(book.allowances(hash(2)).await.expect("readable"), Allowances::default());
        book.execute("UPDATE allowances SET value = '\"much\"'").await;
        assert!(matches!(book.allowances(hash(1)).await, Err(RecordError::Unreadable("an allowance"))));
    }
}

mod journal {
    use super::super::journal::DeletionTotals;
    use super::*;
    use crate::list::content::SentIntents;

    async fn settle(book: &Book, key: &str, outcome: KeyOutcome) {
        book.settle(SCOPE, run(10), &[(ObjectKey::new(key), outcome, "why".into())]).await.expect("settled");
    }

    async fn row(book: &Book) -> (u128, u8, Option<String>, String) {
        let (_, by, plan, outcome, reason) = book.intents().await.remove(0);
        let by = Uuid::parse_str(&by).expect("a run").as_u128() - run(0).0.as_u128();
        (by, Sha256Hash::parse(&plan).expect("a hash").0[0], outcome, reason)
    }

    const OUTCOMES: [KeyOutcome; 5] = [
        KeyOutcome::Deleted,
        KeyOutcome::AlreadyGone,
        KeyOutcome::Skipped,
        KeyOutcome::Failed,
        KeyOutcome::Unconfirmed,
    ];

    #[tokio::test]
    async fn an_intent_has_no_outcome_until_it_is_settled() {
        let book = book!();
        book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
        assert_eq!(row(&book).await, (10, 1, None, String::new()));
        // What has an outcome was not skipped.
        let mut told = None;
        for outcome in [KeyOutcome::Skipped].into_iter().chain(OUTCOMES) {
            settle(&book, "p/a/1", outcome).await;
            if told.is_none() || outcome != KeyOutcome::Skipped {
                told = Some(outcome.as_str().to_owned());
            }
            assert_eq!(row(&book).await, (10, 1, told.clone(), "why".into()));
        }
        settle(&book, "p/a/unknown", KeyOutcome::Deleted).await;
        book.settle(OTHER, run(10), &[(ObjectKey::new("p/a/1"), KeyOutcome::Failed, String::new())])
            .await
            .expect("settled");
        assert_eq!(
            (book.count("intents").await, row(&book).await.2.as_deref()),
            (1, Some("unconfirmed")),
            "nothing else is touched or made"
        );
        assert_eq!(OUTCOMES.map(KeyOutcome::as_str), ["deleted", "already_gone", "skipped", "failed", "unconfirmed"]);
    }

    #[tokio::test]
    async fn an_outcome_is_told_by_the_run_that_first_knows_it() {
        for (known, told_by) in [
            (None, 11),
            (Some(KeyOutcome::Unconfirmed), 11),
            (Some(KeyOutcome::Deleted), 10),
            (Some(KeyOutcome::AlreadyGone), 10),
            (Some(KeyOutcome::Skipped), 10),
            (Some(KeyOutcome::Failed), 10),
        ] {
            let book = book!();
            book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
            if let Some(outcome) = known {
                settle(&book, "p/a/1", outcome).await;
            }
            let later = (ObjectKey::new("p/a/1"), KeyOutcome::Deleted, "looked".to_owned());
            book.settle(SCOPE, run(11), &[later]).await.expect("settled");
            assert_eq!(row(&book).await, (told_by, 1, Some("deleted".into()), "looked".into()), "{known:?}");
            let counted = [book.deletion_totals(run(10)).await, book.deletion_totals(run(11)).await];
            let requested: u64 = counted.into_iter().map(|totals| totals.expect("readable").requested).sum();
            assert_eq!(requested, 1, "{known:?}: no key is counted twice");
        }
    }

    #[tokio::test]
    async fn intents_are_written_as_a_whole_or_not_at_all() {
        let book = book!();
        book.refuse("INSERT", "intents", Some("p/a/3")).await;
        let failed = book.intend(&intent(1, 10), &objects(&["p/a/1", "p/a/2", "p/a/3"])).await;
        assert!(matches!(failed, Err(RecordError::Statement { step: "write an intent", .. })), "{failed:?}");
        assert_eq!(book.count("intents").await, 0);
    }

    #[tokio::test]
    async fn an_intent_stands_over_whatever_was_known_of_its_key() {
        for before in [None, Some(KeyOutcome::Skipped), Some(KeyOutcome::Deleted), Some(KeyOutcome::Failed)] {
            let book = book!();
            book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
            if let Some(outcome) = before {
                settle(&book, "p/a/1", outcome).await;
            }
            let changed = Object { size_bytes: 77, etag: "new".into(), last_modified: None, ..object("p/a/1") };
            book.intend(&intent(2, 11), std::slice::from_ref(&changed)).await.expect("intended");
            assert_eq!(row(&book).await, (11, 2, None, String::new()), "{before:?}");
            let sent = book.sent_intents(SCOPE).sent_after("p/a/", None).await.expect("readable");
            assert_eq!(sent, [changed], "it is compared with what was listed last");
        }
    }

    #[tokio::test]
    async fn a_skip_never_stands_over_what_the_same_plan_sent() {
        for sent in [
            None,
            Some(KeyOutcome::Deleted),
            Some(KeyOutcome::AlreadyGone),
            Some(KeyOutcome::Failed),
            Some(KeyOutcome::Unconfirmed),
        ] {
            let book = book!();
            book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
            if let Some(outcome) = sent {
                settle(&book, "p/a/1", outcome).await;
            }
            let before = row(&book).await;
            book.skip(&intent(1, 11), &objects(&["p/a/1"]), "live_again").await.expect("noted");
            assert_eq!(row(&book).await, before, "{sent:?}: what may have been sent is settled by looking");
        }
    }

    #[tokio::test]
    async fn a_skip_stands_over_a_skip_and_over_another_plan() {
        let book = book!();
        book.skip(&intent(1, 10), &objects(&["p/a/1"]), "changed_since_plan").await.expect("noted");
        assert_eq!(row(&book).await, (10, 1, Some("skipped".into()), "changed_since_plan".into()));
        book.skip(&intent(1, 11), &objects(&["p/a/1"]), "live_again").await.expect("noted");
        assert_eq!(row(&book).await, (11, 1, Some("skipped".into()), "live_again".into()));
        book.intend(&intent(1, 12), &objects(&["p/a/1"])).await.expect("intended");
        settle(&book, "p/a/1", KeyOutcome::Deleted).await;
        // It was written again, and a later plan leaves it.
        let again = Object { size_bytes: 4321, etag: "again".into(), last_modified: Some(at(99)), ..object("p/a/1") };
        book.skip(&intent(2, 13), &[again], "live_again").await.expect("noted");
        assert_eq!(row(&book).await, (13, 2, Some("skipped".into()), "live_again".into()));
        let rows = book.deletion_rows(SCOPE, run(13), None).await.expect("readable");
        assert_eq!(rows[0].bytes, 4321, "it tells of the object that is there");
        let sent = book.to_verify(SCOPE, hash(2), "p/a/", None).await.expect("readable");
        assert!(sent.is_empty(), "it is not said to be sent");
        let kept = book.row("SELECT etag, last_modified FROM intents").await;
        assert_eq!(kept.get::<String>("etag").expect("a text"), "again");
        let kept: String = kept.get("last_modified").expect("a text");
        assert_eq!(kept.parse::<Timestamp>().expect("a time"), at(99));
    }

    #[tokio::test]
    async fn totals_add_up_and_count_the_bytes_of_the_deleted() {
        let book = book!();
        assert_eq!(book.deletion_totals(run(10)).await.expect("readable"), DeletionTotals::default());
        for (n, outcome) in OUTCOMES.into_iter().enumerate() {
            for copy in 0..=n {
                let key = format!("p/a/{n}{copy}");
                book.intend(&intent(1, 10), &[Object { size_bytes: 10, ..object(&key) }]).await.expect("intended");
                settle(&book, &key, outcome).await;
            }
        }
        book.intend(&intent(1, 10), &objects(&["p/a/open"])).await.expect("intended");
        book.intend(&intent(1, 11), &objects(&["p/a/of-another-run"])).await.expect("intended");
        let totals = book.deletion_totals(run(10)).await.expect("readable");
        let expected = DeletionTotals {
            requested: 16,
            deleted: 1,
            already_gone: 2,
            skipped: 3,
            failed: 4,
            unconfirmed: 6,
            bytes: 10,
        };
        assert_eq!(totals, expected, "nobody knows of an intent without an outcome");
        assert_eq!(
            totals.requested,
            totals.deleted + totals.already_gone + totals.skipped + totals.failed + totals.unconfirmed
        );
    }

    #[tokio::test]
    async fn rows_come_by_the_thousand_in_the_order_of_their_bytes() {
        let book = book!();
        let mut keys: Vec<String> = (0..2500)
            .map(|n| format!("p/a/{n:04}"))
            .chain(["p/a/\u{e9}".into(), "p/a/\u{10ffff}".into(), "p/a/Z".into()])
            .collect();
        let all: Vec<Object> = keys.iter().map(|key| object(key)).collect();
        book.intend(&intent(1, 10), &all).await.expect("intended");
        book.intend(&intent(1, 11), &objects(&["p/a/other"])).await.expect("intended");
        let (mut read, mut pages, mut after): (Vec<String>, _, Option<String>) = (Vec::new(), Vec::new(), None);
        loop {
            let page = book.deletion_rows(SCOPE, run(10), after.as_deref()).await.expect("readable");
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            pages.push(page.len());
            read.extend(page.into_iter().map(|row| row.key));
        }
        keys.sort();
        assert_eq!((read, pages), (keys, vec![1000, 1000, 503]));
    }

    #[tokio::test]
    async fn a_row_tells_all_that_is_known() {
        let book = book!();
        book.intend(&intent(1, 10), &objects(&["p/a/1", "p/a/2"])).await.expect("intended");
        settle(&book, "p/a/1", KeyOutcome::Failed).await;
        let rows = book.deletion_rows(SCOPE, run(10), None).await.expect("readable");
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.key.as_str(), row.group.as_str(), row.bytes, row.outcome.as_str(), row.reason.as_str(), row.batch)
            })
            .collect();
        assert_eq!(told, [("p/a/1", "p/a/", 5, "failed", "why", 4), ("p/a/2", "p/a/", 5, "unconfirmed", "", 4)]);
    }

    #[tokio::test]
    async fn what_needs_a_look_is_what_this_plan_sent_of_this_group() {
        let book = book!();
        for (n, outcome) in OUTCOMES.into_iter().enumerate() {
            let key = format!("p/a/{n}");
            book.intend(&intent(1, 10), &objects(&[&key])).await.expect("intended");
            settle(&book, &key, outcome).await;
        }
        book.intend(&intent(1, 10), &objects(&["p/a/open"])).await.expect("intended");
        book.intend(&intent(2, 10), &objects(&["p/a/of-another-plan"])).await.expect("intended");
        book.intend(&Intent { prefix: "p/b/", ..intent(1, 10) }, &objects(&["p/b/1"])).await.expect("intended");
        book.intend(&Intent { scope: OTHER, ..intent(1, 10) }, &objects(&["p/a/elsewhere"])).await.expect("intended");
        let look = async |after: Option<&str>| {
            let after = after.map(ObjectKey::new);
            let found = book.to_verify(SCOPE, hash(1), "p/a/", after.as_ref()).await.expect("readable");
            found.into_iter().map(|(object, outcome)| (object.key.as_str().to_owned(), outcome)).collect::<Vec<_>>()
        };
        let named = |key: &str, outcome: &str| (key.to_owned(), Some(outcome.to_owned()));
        let expected = [
            named("p/a/0", "deleted"),
            named("p/a/1", "already_gone"),
            named("p/a/3", "failed"),
            named("p/a/4", "unconfirmed"),
            ("p/a/open".to_owned(), None),
        ];
        assert_eq!(look(None).await, expected, "all but what was skipped");
        assert_eq!(look(Some("p/a/3")).await, expected[3..]);
        assert_eq!(look(Some("p/a/open")).await, []);
    }

    #[tokio::test]
    async fn what_needs_a_look_comes_by_the_thousand() {
        let book = book!();
        let all: Vec<Object> = (0..1001).map(|n| object(&format!("p/a/{n:04}"))).collect();
        book.intend(&intent(1, 10), &all).await.expect("intended");
        let first = book.to_verify(SCOPE, hash(1), "p/a/", None).await.expect("readable");
        assert_eq!((first.len(), &first[999].0), (1000, &all[999]));
        let second = book.to_verify(SCOPE, hash(1), "p/a/", Some(&first[999].0.key)).await.expect("readable");
        assert_eq!(second.into_iter().map(|(object, _)| object).collect::<Vec<_>>(), all[1000..]);
    }

    async fn sent(book: &Book, prefix: &str, after: Option<&str>) -> Vec<String> {
        let after = after.map(ObjectKey::new);
        let found = book.sent_intents(SCOPE).sent_after(prefix, after.as_ref()).await.expect("readable");
        found.into_iter().map(|object| object.key.as_str().to_owned()).collect()
    }

    #[tokio::test]
    async fn sent_keys_are_those_that_begin_with_the_prefix_and_no_others() {
        let book = book!();
        let inside = [
            "a/",
            "a/\0",
            "a/\0\0",
            "a/\u{1}",
            "a/ ",
            "a/'\"%_*",
            "a/b/c",
            "a/\u{e9}",
            "a/\u{ffff}",
            "a/\u{10ffff}",
            "a/\u{10ffff}\u{10ffff}",
        ];
        let outside = ["a", "a.", "a0", "a0/", "a\u{10ffff}", "A/", "b/", "\u{1}", "aa/b", "x/a/"];
        let all: BTreeSet<&str> = inside.into_iter().chain(outside).collect();
        book.intend(&intent(1, 10), &objects(&all.into_iter().collect::<Vec<_>>())).await.expect("intended");
        assert_eq!(sent(&book, "a/", None).await, inside, "in the order of their bytes");
        for (position, key) in inside.into_iter().enumerate() {
            assert_eq!(sent(&book, "a/", Some(key)).await, inside[position + 1..], "after {key:?}");
        }
        assert_eq!(sent(&book, "a/", Some("a/a")).await, inside[6..], "after a key that is not there");
        assert_eq!(sent(&book, "a0/", None).await, ["a0/"]);
        assert_eq!(sent(&book, "c/", None).await, [""; 0]);
    }

    #[tokio::test]
    async fn sent_objects_come_back_byte_for_byte() {
        let book = book!();
        let exact = [
            Object { size_bytes: 0, etag: String::new(), last_modified: None, ..object("p/a/\0\r\n\u{202e}") },
            Object {
                size_bytes: 1 << 62,
                etag: "\"a\"-2 \u{e9}".into(),
                last_modified: Timestamp::from_timestamp(1_700_000_000, 1),
                ..object("p/a/b")
            },
            Object { last_modified: Timestamp::from_timestamp_millis(-62_135_596_800_000), ..object("p/a/year-1") },
        ];
        book.intend(&intent(1, 10), &exact).await.expect("intended");
        assert_eq!(book.sent_intents(SCOPE).sent_after("p/a/", None).await.expect("readable"), exact);
    }

    #[tokio::test]
    async fn what_was_skipped_was_not_sent() {
        let book = book!();
        assert!(!book.has_sent_intents(SCOPE).await.expect("readable"));
        book.skip(&intent(1, 10), &objects(&["p/a/1"]), "live_again").await.expect("noted");
        assert!(!book.has_sent_intents(SCOPE).await.expect("readable"));
        assert_eq!(sent(&book, "p/a/", None).await, [""; 0]);
        for outcome in [
            None,
            Some(KeyOutcome::Deleted),
            Some(KeyOutcome::AlreadyGone),
            Some(KeyOutcome::Failed),
            Some(KeyOutcome::Unconfirmed),
        ] {
            book.intend(&intent(1, 10), &objects(&["p/a/1"])).await.expect("intended");
            if let Some(outcome) = outcome {
                settle(&book, "p/a/1", outcome).await;
            }
            assert_eq!(sent(&book, "p/a/", None).await, ["p/a/1"], "{outcome:?}");
            assert!(book.has_sent_intents(SCOPE).await.expect("readable"));
        }
        assert!(!book.has_sent_intents(OTHER).await.expect("readable"));
        assert!(book.sent_intents(OTHER).sent_after("p/a/", None).await.expect("readable").is_empty());
    }

    #[tokio::test]
    async fn sent_keys_come_by_the_thousand() {
        let book = book!();
        let keys: Vec<String> = (0..2001).map(|n| format!("p/a/{n:04}")).collect();
        book.intend(&intent(1, 10), &keys.iter().map(|key| object(key)).collect::<Vec<_>>()).await.expect("intended");
        assert_eq!(sent(&book, "p/a/", None).await, keys[..1000]);
        assert_eq!(sent(&book, "p/a/", Some(&keys[999])).await, keys[1000..2000]);
        assert_eq!(sent(&book, "p/a/", Some(&keys[1999])).await, keys[2000..]);
    }

    #[tokio::test]
    async fn only_a_group_of_which_nothing_but_ghosts_and_locks_is_left_is_refused() {
        for (outcomes, is_refused) in [
            (vec![(KeyOutcome::AlreadyGone, "ghost")], true),
            (vec![(KeyOutcome::Skipped, "object_lock"), (KeyOutcome::Deleted, "")], true),
            (vec![(KeyOutcome::AlreadyGone, "ghost"), (KeyOutcome::Failed, "AccessDenied")], false),
            (vec![(KeyOutcome::AlreadyGone, "ghost"), (KeyOutcome::Unconfirmed, "")], false),
            (vec![(KeyOutcome::AlreadyGone, "ghost"), (KeyOutcome::Skipped, "live_again")], false),
            (vec![(KeyOutcome::Failed, "still_listed")], false),
            (vec![(KeyOutcome::Deleted, ""), (KeyOutcome::AlreadyGone, "NoSuchKey")], false),
            (vec![], false),
        ] {
            let book = book!();
            let intent = intent(1, 10);
            let keys: Vec<String> = (0..outcomes.len()).map(|n| format!("p/a/{n}")).collect();
            book.intend(&intent, &objects(&keys.iter().map(String::as_str).collect::<Vec<_>>()))
                .await
                .expect("intended");
            let settled: Vec<_> = keys
                .iter()
                .zip(&outcomes)
                .map(|(key, (outcome, reason))| (ObjectKey::new(key), *outcome, (*reason).to_owned()))
                .collect();
            book.settle(SCOPE, run(10), &settled).await.expect("settled");
            // What another group or another plan left is no word about this one.
            let other = Intent { prefix: "p/b/", ..intent.clone() };
            book.intend(&other, &objects(&["p/b/x"])).await.expect("intended");
            assert_eq!(book.is_refused(&intent).await.expect("readable"), is_refused, "{outcomes:?}");
            let keys = book.refused_keys(run(10)).await.expect("readable");
            let of = |reason| outcomes.iter().filter(|(_, said)| *said == reason).count() as u64;
            assert_eq!((keys.ghosts, keys.locked), (of("ghost"), of("object_lock")));
        }
    }

    #[tokio::test]
    async fn an_id_rests_from_its_last_refusal_until_another_end() {
        let book = book!();
        let refused_at = async || book.refused_at(SCOPE, id(1)).await.expect("readable");
        let (first, second) = (intent(1, 10), Intent { prefix: "p/dataset-a/", ..intent(1, 10) });
        assert_eq!(refused_at().await, None);
        book.note_disposal(&first, "refused", at(1)).await.expect("noted");
        book.note_disposal(&second, "gone", at(2)).await.expect("noted");
        assert_eq!(refused_at().await, Some(at(1)));
        book.note_disposal(&Intent { plan: hash(2), ..first.clone() }, "refused", at(3)).await.expect("noted");
        assert_eq!(refused_at().await, Some(at(3)));
        book.note_disposal(&Intent { plan: hash(3), ..first }, "remains", at(4)).await.expect("noted");
        assert_eq!(refused_at().await, None);
    }

    #[tokio::test]
    async fn what_became_of_a_group_is_told_by_its_last_run() {
        let book = book!();
        let (first, second) = (intent(1, 10), Intent { prefix: "p/dataset-a/", ..intent(1, 10) });
        book.note_disposal(&first, "unread", at(1)).await.expect("noted");
        book.note_disposal(&second, "live_again", at(2)).await.expect("noted");
        book.note_disposal(&Intent { run: run(11), ..first.clone() }, "gone", at(3)).await.expect("noted");
        book.note_disposal(&Intent { scope: OTHER, plan: hash(2), ..first }, "gone", at(4)).await.expect("noted");
        let told = book.disposals(SCOPE, id(1)).await.expect("readable");
        let told: Vec<_> = told.into_iter().map(|row| (row.run_id, row.plan_hash, row.outcome, row.at)).collect();
        let expected = [(10, "live_again", at(2)), (11, "gone", at(3))]
            .map(|(by, outcome, time)| (run(by).to_string(), hash(1).to_string(), outcome.to_owned(), time));
        assert_eq!(told, expected);
        assert!(book.disposals(SCOPE, id(2)).await.expect("readable").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn sent_keys_are_found_as_in_a_sorted_list(
            keys in proptest::collection::btree_set("[a/0\u{0}\u{1}\u{7f}\u{e9}\u{10ffff}]{1,5}", 1..60),
            prefix in "[a0/\u{10ffff}]{0,2}/",
            after in proptest::option::of("[a/0\u{0}\u{10ffff}]{0,4}"),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let found = runtime.block_on(async {
                let book = Book::open(KIND).await?;
                book.intend(&intent(1, 10), &keys.iter().map(|key| object(key)).collect::<Vec<_>>()).await.expect("intended");
                Some(sent(&book, &prefix, after.as_deref()).await)
            });
            let Some(found) = found else { return Ok(()) };
            let is_found = |key: &&String| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after);
            prop_assert_eq!(found, keys.iter().filter(is_found).cloned().collect::<Vec<_>>());
        }
    }
}

#[path = "undos.rs"]
mod undos;

mod chain {
    use super::super::chain::{ChainFault, ChainHead, KnownHead, Verified};
    use super::*;

    /// A ledger in which every kind of thing was recorded.
    async fn fill(book: &Book) {
        book.begin(1).await;
        let orphans = [(id(1), sighting(1, 0)), (id(2), sighting(1, 0))];
        book.record_lone_scan(SCOPE, run(1), &orphans, &good(10)).await.expect("recorded");
        book.issue_plan(&plan(1), hash(1), Path::new("p")).await.expect("issued");
        let end = RunEnd {
            finished_at: at(9),
            outcome: "complete",
            reason: None,
            exit_code: 0,
            plan_hash: Some(hash(1).to_string()),
            orphan_bytes: Some(7),
            summary: "{}".into(),
        };
        book.finish_run(run(1), &end).await.expect("ended");
        book.begin(2).await;
        let lifted = Allowances(BTreeMap::from([(Breaker::Objects, Allowance::Count(5))]));
        book.allow(hash(1), run(2), &lifted, at(10)).await.expect("allowed");
        book.start_plan(hash(1), run(2), &[]).await.expect("started");
        for batch in 0..3 {
            let keys: Vec<String> = (0..3).map(|n| format!("p/a/{batch}{n}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let intent = Intent { batch, ..intent(1, 2) };
            book.intend(&intent, &objects(&keys)).await.expect("intended");
            let outcome = |key: &&str| (ObjectKey::new(*key), KeyOutcome::Failed, "why".to_owned());
            book.settle(SCOPE, run(2), &keys[..2].iter().map(outcome).collect::<Vec<_>>()).await.expect("settled");
        }
        book.skip(&Intent { prefix: "p/b/", ..intent(1, 2) }, &objects(&["p/b/1"]), "live_again").await.expect("noted");
        // What is asked for again stands over what was.
        book.intend(&intent(1, 2), &objects(&["p/a/00"])).await.expect("intended");
        for (n, breaker) in [(3, Breaker::LiveDrop), (4, Breaker::ClockSkew)] {
            book.begin(n).await;
            let tripped = [(breaker, "said".to_owned())];
            book.latch(SCOPE, run(n), at(11), &tripped, &observed(5)).await.expect("latched");
        }
        let latch = book.latches(SCOPE).await.expect("readable").remove(0);
        book.acknowledge(SCOPE, &latch, "ada", "known", at(12)).await.expect("acknowledged");
    }

    async fn verify(book: &Book, heads: &[KnownHead]) -> Result<Verified, ChainFault> {
        book.verify_chain(heads).await.expect("readable")
    }

    #[track_caller]
    fn assert_found(found: Result<Verified, ChainFault>, entry: Option<u64>, fragment: &str, what: &str) {
        let fault = found.expect_err(what);
        assert!(fault.what.contains(fragment), "{what}: {fault}");
        assert_eq!(fault.entry, entry, "{what}: {fault}");
    }

    fn known(head: ChainHead) -> KnownHead {
        KnownHead { hash: head.hash, entries: Some(head.entries), noted: "that was given".into() }
    }

    #[tokio::test]
    async fn what_nobody_touched_verifies() {
        let book = book!();
        let new = verify(&book, &[]).await.expect("a new ledger");
        assert_eq!((new.head.entries, new.rows), (1, 0));
        fill(&book).await;
        let head = book.chain_head().await.expect("a head");
        let verified = verify(&book, &[known(new.head), known(head)]).await.expect("nothing wrong");
        assert_eq!(verified.head, head);
        assert_eq!(verified.since, [Some(head.entries - 1), Some(0)]);
        assert_eq!((verified.compacted, verified.rows), (0, 9), "four runs, a plan, and one of each other");
        let summary = Sha256Hash::of(b"{}").to_string();
        assert_eq!(verified.summaries, BTreeMap::from([(run(1).to_string(), summary)]));
        book.close_plan(hash(1)).await.expect("closed");
        book.record_lone_scan(SCOPE, run(4), &[], &good(9)).await.expect("recorded");
        assert_eq!(book.count("intents").await, 0, "all is compacted");
        assert!(verify(&book, &[known(head)]).await.expect("nothing wrong").since[0] >= Some(3));
    }

    #[tokio::test]
    async fn an_edit_of_an_entry_is_found() {
        for change in [
            "at = '2020-01-01T00:00:00.000000Z'",
            "kind = 'run.ended'",
            "subject = 'x'",
            "payload = '{}'",
            "payload = payload || ' '",
        ] {
            let book = book!();
            fill(&book).await;
            book.execute(&format!("UPDATE chain SET {change} WHERE number = 4")).await;
            assert_found(verify(&book, &[]).await, Some(4), "it was edited", change);
        }
        let book = book!();
        fill(&book).await;
        let forge = statement("forge", "UPDATE chain SET hash = $1 WHERE number = 4").bind(&[7; 32][..]);
        forge.run(&book.ledger.database).await.expect("forged");
        assert_found(verify(&book, &[]).await, Some(4), "it was edited", "another hash");
        let book = book!();
        fill(&book).await;
        book.execute(
            "UPDATE chain SET previous = (SELECT hash FROM chain AS other WHERE other.number = 2) WHERE number = 4",
        )
        .await;
        assert_found(verify(&book, &[]).await, Some(4), "it does not follow the entry before it", "another previous");
    }

    #[tokio::test]
    async fn an_entry_that_was_sealed_anew_does_not_lead_to_the_next() {
        let book = book!();
        fill(&book).await;
        let mut transaction = book.begin_writing().await;
        let forged = super::super::chain::forge(&mut transaction, 4, "run.ended").await;
        assert!(forged.is_ok());
        transaction.commit("forge").await.expect("committed");
        assert_found(verify(&book, &[]).await, Some(5), "it does not follow the entry before it", "forged");
    }

    #[tokio::test]
    async fn a_removal_and_a_reordering_are_found() {
        let book = book!();
        fill(&book).await;
        book.execute("DELETE FROM chain WHERE number = 4").await;
        assert_found(verify(&book, &[]).await, Some(4), "it is gone: entry 3 is followed by entry 5", "one removed");
        book.execute("UPDATE chain SET number = number - 1 WHERE number = 5").await;
        assert_found(verify(&book, &[]).await, Some(4), "it does not follow", "the gap is closed");

        let book = book!();
        fill(&book).await;
        for swap in ["-1 WHERE number = 4", "4 WHERE number = 5", "5 WHERE number = -1"] {
            book.execute(&format!("UPDATE chain SET number = {swap}")).await;
        }
        assert_found(verify(&book, &[]).await, Some(4), "it does not follow", "two change places");

        let book = book!();
        fill(&book).await;
        book.execute("DELETE FROM chain WHERE number <= 3").await;
        assert_found(
            verify(&book, &[]).await,
            Some(4),
            "no checkpoint stands for the 3 entries before it",
            "the first",
        );
        book.execute("DELETE FROM chain").await;
        assert_found(verify(&book, &[]).await, None, "the chain is empty", "all");
        let again = Ledger::open(&book.place, Absence::Refuse, at(1)).await.expect("opened");
        let fault = again.verify_chain(&[]).await.expect("readable").expect_err("it is not begun anew");
        assert!(fault.what.contains("the chain is empty"), "{fault}");
        let refused = again
            .allow(hash(1), run(1), &Allowances(BTreeMap::from([(Breaker::Objects, Allowance::Count(5))])), at(1))
            .await;
        assert!(matches!(refused, Err(RecordError::Tampered(_))), "nothing is recorded on nothing: {refused:?}");
    }

    #[tokio::test]
    async fn a_truncation_is_found_by_a_head_that_was_kept() {
        let book = book!();
        book.begin(1).await;
        let early = book.chain_head().await.expect("a head");
        // The last entries and their rows go together: the rest is whole in itself.
        book.begin(2).await;
        let late = book.chain_head().await.expect("a head");
        book.execute(&format!("DELETE FROM chain WHERE number > {}", early.entries)).await;
        assert_found(verify(&book, &[]).await, None, "was edited", "the rows say more");
        book.execute(&format!("DELETE FROM runs WHERE run_id = '{}'", run(2))).await;
        book.execute("UPDATE runs SET finished_at = NULL, outcome = NULL, reason = NULL").await;
        verify(&book, &[known(early)]).await.expect("whole in itself");
        let found = verify(&book, &[known(early), known(late)]).await;
        assert_found(found, None, "that was given is not in the chain", "cut off");
        // Going on from there does not bring it back.
        book.begin(3).await;
        book.begin(4).await;
        assert_found(verify(&book, &[known(late)]).await, None, "is not in the chain", "gone on");
    }

    #[tokio::test]
    async fn an_edit_an_addition_and_a_removal_of_a_row_are_found() {
        for (change, fragment) in [
            (
                "UPDATE runs SET outcome = 'failed' WHERE exit_code = 0",
                "was edited: `outcome` is \"failed\", and was \"complete\"",
            ),
            ("UPDATE runs SET summary = '{ }' WHERE exit_code = 0", "was edited: `summary` is"),
            ("UPDATE runs SET number = 77 WHERE exit_code = 0", "was edited: `number` is 77, and was "),
            ("DELETE FROM runs WHERE exit_code = 0", "was removed from `runs`"),
            ("UPDATE plans SET state = 'open'", "was edited: `state` is \"open\", and was \"applying\""),
            ("UPDATE plans SET path = 'q'", "was edited: `path`"),
            ("DELETE FROM plans", "was removed from `plans`"),
            (
                "INSERT INTO plans SELECT 'f', scope, run_id, created_at, expires_at, 'open', path, 1, 1, 1 FROM plans",
                "plan `f` was added to `plans` by hand",
            ),
            ("UPDATE allowances SET value = '{}'", "was edited: `value`"),
            ("DELETE FROM allowances", "was removed from `allowances`"),
            (
                "UPDATE acknowledgements SET acknowledged_by = 'eve'",
                "was edited: `acknowledged_by` is \"eve\", and was \"ada\"",
            ),
            ("DELETE FROM acknowledgements", "was removed from `acknowledgements`"),
            ("UPDATE latches SET message = 'x'", "was edited: `message`"),
            ("DELETE FROM latches", "was removed from `latches`"),
            ("UPDATE baselines SET baseline = '{}'", "was edited: `baseline`"),
            (
                "UPDATE intents SET size_bytes = 1 WHERE outcome = 'failed'",
                "of the 9 intents of group `synthetic p/a/` at least one was edited",
            ),
            (
                "UPDATE intents SET etag = 'x' WHERE outcome = 'skipped'",
                "of the 1 intents of group `synthetic p/b/` at least one was edited",
            ),
            ("UPDATE intents SET last_modified = NULL", "at least one was edited"),
            ("UPDATE intents SET outcome = 'deleted' WHERE outcome = 'failed'", "at least one was edited"),
            ("UPDATE intents SET outcome = NULL", "at least one was edited"),
            ("UPDATE intents SET reason = 'because' WHERE outcome = 'failed'", "at least one was edited"),
            ("UPDATE intents SET plan_hash = 'x' WHERE outcome = 'skipped'", "at least one was edited"),
            (
                "DELETE FROM intents WHERE outcome = 'skipped'",
                "group `synthetic p/b/` has 0 intents, and 1 were written",
            ),
            (
                "INSERT INTO intents SELECT 'more', key, plan_hash, run_id, id, prefix, batch, size_bytes, etag, last_modified, outcome, reason FROM intents",
                "group `more p/a/` has 9 intents, and 0 were written",
            ),
        ] {
            let book = book!();
            fill(&book).await;
            book.execute(change).await;
            assert_found(verify(&book, &[]).await, None, fragment, change);
        }
    }

    #[tokio::test]
    async fn a_chain_of_another_ledger_is_not_this_ones() {
        let book = book!();
        fill(&book).await;
        book.execute(&format!("UPDATE meta SET value = '{}' WHERE key = 'id'", Uuid::nil())).await;
        let again = Ledger::open(&book.place, Absence::Refuse, at(1)).await.expect("opened");
        assert_found(again.verify_chain(&[]).await.expect("readable"), Some(1), "it does not follow", "another id");
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_chained() {
        let book = book!();
        fill(&book).await;
        let before = book.chain_head().await.expect("a head");
        book.refuse("INSERT", "intents", Some("p/a/9")).await;
        book.intend(&intent(1, 2), &objects(&["p/a/8", "p/a/9"])).await.expect_err("refused");
        assert_eq!(verify(&book, &[]).await.expect("nothing wrong").head, before);
    }

    #[tokio::test]
    async fn nothing_is_recorded_that_cannot_be_chained() {
        let book = book!();
        fill(&book).await;
        let before = (book.count("intents").await, book.count("runs").await);
        book.refuse("INSERT", "chain", None).await;
        book.intend(&intent(1, 2), &objects(&["p/a/8"])).await.expect_err("refused");
        let start = RunStart {
            run_id: run(8),
            scope: SCOPE.into(),
            command: "audit".into(),
            is_dry_run: false,
            started_at: at(0),
        };
        book.begin_run(&start).await.expect_err("refused");
        book.close_plan(hash(1)).await.expect_err("refused");
        book.record_lone_scan(SCOPE, run(4), &[], &good(9)).await.expect_err("refused");
        assert_eq!((book.count("intents").await, book.count("runs").await), before);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_that_write_at_once_make_one_chain() {
        let book = book!();
        let mut ledgers = Vec::new();
        for _ in 0..3 {
            ledgers.push(Ledger::open(&book.place, Absence::Refuse, at(0)).await.expect("opened"));
        }
        let write = async |by: usize| {
            for n in 0..10 {
                let (own, run) = (format!("p/a/{by}{n}"), run(n));
                let intent = Intent { run, ..intent(1, 1) };
                // A row that all write makes them wait for one another by itself; rows of their own do not.
                let keys = if n % 2 == 0 { vec![own.as_str()] } else { vec![own.as_str(), "p/a/both"] };
                ledgers[by].intend(&intent, &objects(&keys)).await.expect("intended");
            }
        };
        tokio::join!(write(0), write(1), write(2));
        assert_eq!(verify(&book, &[]).await.expect("nothing wrong").head.entries, 31);
        assert_eq!(book.count("intents").await, 31);
    }

    #[tokio::test]
    async fn a_checkpoint_stands_for_what_came_before_it() {
        let book = book!();
        fill(&book).await;
        let early = KnownHead { entries: Some(3), ..known(ChainHead { entries: 3, hash: hash(3) }) };
        let all = book.chain_head().await.expect("a head");
        assert_eq!(book.checkpoint_chain(Timestamp::MAX_UTC).await.expect("too few to be worth it"), 0);
        assert_eq!(book.checkpoint(at(-1_000_000_000), 1).await.expect("none is that old"), 0);
        assert_eq!(book.checkpoint(Timestamp::MAX_UTC, 1).await.expect("compacted"), all.entries);
        assert_eq!(book.count("chain").await, 1);
        let verified = verify(&book, &[known(all), early.clone()]).await.expect("nothing wrong");
        assert_eq!((verified.compacted, verified.head.entries, verified.rows), (all.entries, all.entries + 1, 9));
        assert_eq!(verified.since, [Some(1), None], "one before the checkpoint cannot be looked for");
        let unplaced = KnownHead { entries: None, ..early };
        assert_found(verify(&book, &[unplaced]).await, None, "unless it is one of the", "nobody says how old it is");
        // It goes on from there, and so do the rows.
        book.begin(9).await;
        book.close_plan(hash(1)).await.expect("closed");
        let later = book.chain_head().await.expect("a head");
        verify(&book, &[known(later)]).await.expect("nothing wrong");
        assert_eq!(book.checkpoint(Timestamp::MAX_UTC, 1).await.expect("compacted"), later.entries - all.entries);
        let again = verify(&book, &[known(later), known(all)]).await.expect("nothing wrong");
        assert_eq!((again.compacted, again.since), (later.entries, vec![Some(1), None]));
        book.execute("UPDATE allowances SET value = '{}'").await;
        assert_found(verify(&book, &[]).await, None, "was edited: `value`", "the rows are known all the same");
    }

    #[tokio::test]
    async fn a_checkpoint_that_was_touched_is_found_and_hides_nothing() {
        let book = book!();
        fill(&book).await;
        let count = book.chain_head().await.expect("a head").entries;
        book.execute("UPDATE chain SET subject = 'x' WHERE number = 4").await;
        let refused = book.checkpoint(Timestamp::MAX_UTC, 1).await;
        assert!(
            matches!(&refused, Err(RecordError::Tampered(what)) if what.starts_with("entry 4: it was edited")),
            "{refused:?}"
        );
        assert_eq!(book.count("chain").await, i64::try_from(count).expect("few"), "nothing is gone");

        for change in [
            "UPDATE chain SET payload = replace(payload, 'ada', 'eve') WHERE kind = 'checkpoint'",
            "UPDATE chain SET payload = replace(payload, '\"through\":', '\"through\": ') WHERE kind = 'checkpoint'",
            "DELETE FROM chain WHERE kind = 'checkpoint'",
            "UPDATE chain SET kind = 'other' WHERE kind = 'checkpoint'",
        ] {
            let book = book!();
            fill(&book).await;
            book.checkpoint(Timestamp::MAX_UTC, 1).await.expect("compacted");
            book.begin(9).await;
            verify(&book, &[]).await.expect("nothing wrong");
            book.execute(change).await;
            let fault = verify(&book, &[]).await.expect_err(change);
            assert!(
                fault.what.contains("it was edited") || fault.what.contains("no checkpoint stands for"),
                "{change}: {fault}"
            );
        }
    }

    #[tokio::test]
    async fn a_ledger_from_before_the_chain_is_taken_as_it_is() {
        let book = book!();
        fill(&book).await;
        book.execute("DELETE FROM chain; DELETE FROM meta WHERE key = 'chain'").await;
        let again = Ledger::open(&book.place, Absence::Refuse, at(1)).await.expect("opened");
        let verified = again.verify_chain(&[]).await.expect("readable").expect("nothing wrong");
        assert_eq!((verified.rows, verified.head.entries), (9, 1 + 9 + 1), "a beginning, the rows, and the intents");
        book.close_plan(hash(1)).await.expect("closed");
        verify(&book, &[]).await.expect("nothing wrong");
        book.execute("UPDATE runs SET outcome = 'failed' WHERE exit_code = 0").await;
        assert_found(verify(&book, &[]).await, None, "was edited: `outcome`", "from then on");
    }
}

#[expect(clippy::duplicate_mod, reason = "it is read once for each kind of ledger")]
#[path = "steps.rs"]
mod steps;

#[expect(clippy::duplicate_mod, reason = "it is read once for each kind of ledger")]
#[path = "callers.rs"]
mod callers;
