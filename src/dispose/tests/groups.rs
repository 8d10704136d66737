//! Whole ids: what is verified, what keeps a group, and what ends a run.

use super::bench::*;
use crate::decide::approval::Ruling;
use crate::dispose::pace::Pace;
use crate::dispose::{Consent, Halt, SkipReason};
use crate::list::references::ReferencesError;
use crate::model::{Group, ObjectKey};
use crate::plan::{DeletePlan, PLAN_VERSION, PlanGroup, PlanLedger, PlanPolicy, PlanTarget, PlanTotals};
use crate::record::NewDecision;
use crate::s3::StoreFault;

/// The keys of an id that is deleted whole.
const KEYS: [&str; 2] = ["a", "b"];

fn is_list(prefix: String) -> impl Fn(&Asked) -> bool + Send + 'static {
    move |asked| *asked == Asked::List(prefix.clone())
}

#[tokio::test]
async fn an_id_goes_with_all_its_groups_and_is_told_as_over() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert!(bench.world().objects.is_empty());
    assert_eq!(bench.all_ended().await, (4, "deleted".into(), String::new()));
    assert_eq!(bench.disposals(1).await, ["gone", "gone"]);
    assert_eq!(bench.over(), [prefix(0, 1), prefix(1, 1)]);
    assert_eq!((*bench.done.lock(), bench.rechecks(), bench.deletes()), (4, 2, 2));
    let rows = bench.ledger.deletion_rows(SCOPE, run(2), None).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.batch).collect::<Vec<_>>(), [1, 1, 2, 2], "batches are told apart");
}

#[tokio::test]
async fn the_last_look_is_dated_by_the_store() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    assert_eq!((disposal.last_seen_at(), disposal.unread()), (None, 0));
    assert!(disposal.run(&[candidate]).await.is_none());
    assert_eq!((disposal.last_seen_at(), disposal.unread()), (Some(at(1000)), 0));
}

#[tokio::test]
async fn a_row_keeps_every_group_of_its_id_and_takes_it_off_the_plan() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    bench.world().live.insert(id(1));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.world().objects.len(), 4);
    assert_eq!(bench.all_ended().await, (4, "skipped".into(), word(SkipReason::LiveAgain)));
    assert_eq!(bench.disposals(1).await, ["live_again", "live_again"]);
    assert!(!bench.is_sighted(1).await, "its sightings start again");
    assert_eq!(bench.over(), [prefix(0, 1), prefix(1, 1)], "nothing more is asked of it");
    assert_eq!(bench.rechecks(), 1);
}

#[tokio::test]
async fn a_row_that_came_and_went_between_two_groups_keeps_the_second() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    bench.world().live.insert(id(1));
    let at_once = |asked: &Asked| matches!(asked, Asked::Recheck(_));
    bench.world().after(at_once, |world| world.live.clear());
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.world().objects.len(), 4);
}

#[tokio::test]
async fn a_row_that_one_answer_saw_keeps_what_a_later_answer_would_let_go() {
    let bench = Bench::new().await;
    bench.plant(1, &[0], &KEYS).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    let left = parking_lot::Mutex::new(None);
    bench.world().live.insert(id(1));
    let prefix = prefix(0, 1);
    let send = || super::attempts::send(&disposal, None, &left, &prefix, &KEYS);
    assert_eq!(send().await, Err(SkipReason::LiveAgain));
    bench.world().live.clear();
    assert_eq!(send().await, Err(SkipReason::LiveAgain));
    assert_eq!((bench.deletes(), bench.rechecks()), (0, 2));
}

#[tokio::test]
async fn an_object_that_was_written_since_keeps_its_id_and_spoils_its_sightings() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    bench.world().put_at(&format!("{}b", prefix(1, 1)), 500);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.world().objects.len(), 4);
    assert_eq!(bench.all_ended().await, (4, "skipped".into(), word(SkipReason::ChangedSincePlan)));
    let sighting = bench.ledger.sighting(SCOPE, id(1)).await.expect("read").expect("sighted");
    assert_eq!(sighting.digest.0, [0; 32], "should it look the same tomorrow, they start again");
    assert_eq!(bench.rechecks(), 0);
}

#[tokio::test]
async fn sightings_that_did_not_go_on_keep_the_id_and_are_not_spoilt() {
    let bench = Bench::new().await;
    let mut candidate = bench.plant(1, &[0], &KEYS).await;
    candidate.planned[0].first_run = run(9);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::ChangedSincePlan)));
    let sighting = bench.ledger.sighting(SCOPE, id(1)).await.expect("read").expect("sighted");
    assert_ne!(sighting.digest.0, [0; 32]);
    assert_eq!(bench.rechecks(), 0);
}

#[tokio::test]
async fn a_group_that_is_not_what_the_plan_says_is_kept_though_its_sighting_goes_on() {
    let bench = Bench::new().await;
    let mut candidate = bench.plant(1, &[0, 1], &KEYS).await;
    candidate.planned[1].digest = plan();
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.world().objects.len(), 4);
}

#[tokio::test]
async fn an_odd_spelling_is_verified_and_never_deleted() {
    let odd_prefix = format!("synthetic/{}/", id(0xabc).to_string().to_uppercase());
    let odd = Group { id: id(0xabc), pattern: 0, odd_spelling: Some(odd_prefix.as_str().into()) };
    for is_touched in [false, true] {
        let bench = Bench::new().await;
        bench.world().put(&format!("{odd_prefix}x"));
        bench.world().put(&format!("{}a", prefix(0, 0xabc)));
        let candidate = bench.plan_of(0xabc, &[0], vec![odd.clone()]).await;
        if is_touched {
            bench.world().put_at(&format!("{odd_prefix}x"), 500);
        }
        assert!(bench.dispose(&[candidate]).await.is_none());
        assert_eq!(bench.world().objects.len(), if is_touched { 2 } else { 1 }, "{is_touched}");
        assert!(bench.world().objects.contains_key(&format!("{odd_prefix}x")));
    }
}

#[tokio::test]
async fn what_is_written_after_the_id_was_verified_is_not_deleted() {
    for key in ["b", "c"] {
        let bench = Bench::new().await;
        let candidate = bench.plant(1, &[0], &KEYS).await;
        let written = format!("{}{key}", prefix(0, 1));
        // Both groups are listed to verify the id; the next listing is the one that is deleted by.
        bench.world().after(is_list(prefix(1, 1)), move |world| world.put_at(&written, 500));
        assert!(bench.dispose(&[candidate]).await.is_none());
        assert_eq!(bench.deletes(), 0, "{key}");
        let (_, outcome, reason) = bench.all_ended().await;
        assert_eq!((outcome, reason), ("skipped".into(), word(SkipReason::ChangedSincePlan)), "{key}");
    }
}

#[tokio::test]
async fn a_group_that_got_shorter_after_it_was_verified_is_given_up() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.world().after(is_list(prefix(1, 1)), move |world| world.objects.clear());
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!((bench.deletes(), bench.disposals(1).await), (0, vec!["gone".to_owned()]));
}

#[tokio::test]
async fn an_upload_that_began_meanwhile_keeps_the_id() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    bench.world().uploads.push(ObjectKey::new(format!("{}new", prefix(1, 1))));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.all_ended().await, (4, "skipped".into(), word(SkipReason::UploadInProgress)));
    assert_eq!(bench.deletes(), 0);
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_leaves_the_id_for_another_run() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.world().unlisted.push_back(StoreFault::Denied("AccessDenied".into()));
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    assert!(disposal.run(&[candidate]).await.is_none());
    assert_eq!((disposal.unread(), bench.deletes(), bench.world().objects.len()), (1, 0, 2));
    assert_eq!((bench.outcomes().await.len(), bench.over().len()), (0, 0), "nothing is told of it");
}

#[tokio::test]
async fn a_listing_that_breaks_off_while_it_is_deleted_by_leaves_the_rest() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.world().after(is_list(prefix(1, 1)), |world| {
        world.unlisted.push_back(StoreFault::Denied("AccessDenied".into()));
    });
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    assert!(disposal.run(&[candidate]).await.is_none());
    assert_eq!((disposal.unread(), bench.deletes()), (1, 0));
    assert_eq!(bench.disposals(1).await, ["unread"]);
    assert!(bench.over().is_empty());
}

#[tokio::test]
async fn what_remains_of_one_group_keeps_the_other_from_being_over() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    let refused = crate::s3::KeyReply::Refused("AccessDenied".into());
    bench.world().replies.extend([Reply::Plain, Reply::Keys(refused)]);
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.disposals(1).await, ["gone", "remains"]);
    assert!(bench.over().is_empty(), "what is gone of it is still needed");
}

#[tokio::test]
async fn an_id_of_which_one_group_is_kept_tells_that_one_only() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    let is_deleted = |asked: &Asked| matches!(asked, Asked::Delete(_));
    bench.world().after(is_deleted, |world| _ = world.live.insert(id(1)));
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.disposals(1).await, ["gone", "live_again"]);
    assert_eq!(bench.over(), [prefix(1, 1)]);
}

#[tokio::test]
async fn what_cannot_be_told_ends_the_run() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.over.0.lock().push(String::new());
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Untold)));
}

#[tokio::test]
async fn a_stop_before_the_first_request_sends_nothing() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.stop.cancel();
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)));
    let world = bench.world();
    assert_eq!((world.asked.len(), world.objects.len()), (0, 2));
}

#[tokio::test]
async fn a_stop_while_an_id_is_verified_sends_nothing() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0, 1], &KEYS).await;
    let stop = bench.stop.clone();
    bench.world().after(is_list(prefix(1, 1)), move |_| stop.cancel());
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Interrupted)));
    assert_eq!((bench.deletes(), bench.rechecks()), (0, 0));
    assert!(bench.over().is_empty(), "another run goes on with it");
    assert_eq!(bench.outcomes().await.len(), 0, "what was not asked for is not told");
}

#[tokio::test]
async fn a_stop_file_sends_nothing_more() {
    let bench = Bench::new().await;
    let candidates = [bench.plant(1, &[0, 1], &KEYS).await, bench.plant(2, &[0], &KEYS).await];
    let stop_file = bench.stop_file();
    let is_deleted = |asked: &Asked| matches!(asked, Asked::Delete(_));
    bench.world().after(is_deleted, move |_| std::fs::write(stop_file, "").expect("written"));
    assert!(matches!(bench.dispose(&candidates).await, Some(Halt::StopFile)));
    assert_eq!(bench.deletes(), 1);
}

#[tokio::test]
async fn time_that_is_over_lets_one_batch_go_and_no_more() {
    let pace = Pace { max_runtime: Some(std::time::Duration::ZERO), ..Pace::default() };
    let bench = Bench::paced(pace).await;
    let candidates = [bench.plant(1, &[0, 1], &KEYS).await, bench.plant(2, &[0], &KEYS).await];
    assert!(matches!(bench.dispose(&candidates[..1]).await, Some(Halt::OutOfTime)));
    assert_eq!((bench.deletes(), bench.world().objects.len()), (1, 4));
}

#[tokio::test]
async fn inside_a_pause_nothing_is_sent_until_the_time_is_over() {
    let pause = crate::dispose::pace::PauseWindow::parse("00:00-23:59", "UTC").ok();
    let pace = Pace { max_runtime: Some(std::time::Duration::ZERO), pause, ..Pace::default() };
    let bench = Bench::paced(pace).await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::OutOfTime)));
    assert_eq!((bench.deletes(), bench.rechecks()), (0, 0));
}

#[tokio::test]
async fn a_person_who_holds_it_meanwhile_keeps_the_rest() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.ledger.place_hold(SCOPE, id(1), None, "ada", "mine", at(20)).await.expect("held");
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::Held)));
    assert_eq!((bench.deletes(), bench.rechecks()), (0, 0));
    assert!(bench.is_sighted(1).await, "a hold starts no sightings again");
}

#[tokio::test]
async fn a_hold_on_another_id_or_one_that_ended_keeps_nothing() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.ledger.place_hold(SCOPE, id(2), None, "ada", "mine", at(20)).await.expect("held");
    bench.ledger.place_hold(SCOPE, id(1), Some(at(1000)), "ada", "mine", at(20)).await.expect("held");
    assert!(bench.dispose(&[candidate]).await.is_none());
    assert!(bench.world().objects.is_empty());
}

/// A plan of one id, so that a person can decide on it.
fn plan_about(bench: &Bench, groups: Vec<PlanGroup>, created: i64) -> DeletePlan {
    let target = crate::decide::breakers::TargetFingerprint {
        endpoint: "http://store".into(),
        bucket: "b".into(),
        prefix: "synthetic/".into(),
        patterns: Vec::new(),
    };
    DeletePlan {
        plan_version: PLAN_VERSION,
        scope: SCOPE.into(),
        run_id: run(1),
        created_at: at(created),
        expires_at: at(100_000),
        ledger: PlanLedger { id: bench.ledger.id(), path: "x".into() },
        target: PlanTarget::new(&target, &anchor().identity),
        policy: PlanPolicy::of(&bench.scope),
        backfill: None,
        totals: PlanTotals::default(),
        groups,
    }
}

#[tokio::test]
async fn a_rejection_keeps_the_id_whoever_applies_and_one_of_another_plan_where_nobody_is_at_hand() {
    for (is_this_plan, consent, is_kept) in [
        (true, Consent::Given, true),
        (true, Consent::Unattended, true),
        (false, Consent::Given, false),
        (false, Consent::Unattended, true),
    ] {
        let mut bench = Bench::new().await;
        bench.consent = consent;
        let candidate = bench.plant(1, &[0], &KEYS).await;
        let other = plan_about(&bench, candidate.planned.clone(), 5);
        let hash = if is_this_plan { plan() } else { other.hash() };
        let ids = [id(1)];
        let (ruling, by, reason, at) = (Ruling::Rejected, "ada", "mine", at(20));
        let decision = NewDecision { plan: &other, hash, ids: &ids, ruling, by, reason, at };
        bench.ledger.decide(&decision).await.expect("decided");
        assert!(bench.dispose(&[candidate]).await.is_none());
        assert_eq!(!bench.world().objects.is_empty(), is_kept, "{is_this_plan} {consent:?}");
        if is_kept {
            assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::Rejected)));
        }
    }
}

#[tokio::test]
async fn another_picture_in_a_recheck_ends_the_run_and_starts_the_sightings_again() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.world().rechecks.push_back(ReferencesError::Moved("elsewhere".into()));
    let halt = bench.dispose(&[candidate]).await;
    assert!(matches!(halt, Some(Halt::References(ReferencesError::Moved(_)))));
    assert_eq!(bench.deletes(), 0);
    assert!(!bench.is_sighted(1).await, "the same answer may have held its row");
}

#[tokio::test]
async fn a_recheck_that_cannot_be_had_ends_the_run_and_says_nothing_of_the_id() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.world().rechecks.push_back(ReferencesError::Standby);
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::References(ReferencesError::Standby))));
    assert_eq!(bench.deletes(), 0);
    assert!(bench.is_sighted(1).await);
}

#[tokio::test]
async fn sightings_that_another_process_ended_keep_the_id_whatever_the_primary_says() {
    for is_replaced in [false, true] {
        let bench = Bench::new().await;
        let candidate = bench.plant(1, &[0], &KEYS).await;
        let progress = |_| {};
        let disposal = bench.disposal(&progress);
        // Between the id's verification and its re-check.
        let left = parking_lot::Mutex::new(None);
        bench.ledger.forget(SCOPE, &[id(1)]).await.expect("forgotten");
        if is_replaced {
            let other = bench.plan_of(1, &[0], Vec::new()).await;
            assert_eq!(other.planned, candidate.planned, "it looks the same");
        }
        let first_run = Some(if is_replaced { run(9) } else { run(1) });
        let sent = super::attempts::send(&disposal, first_run, &left, &prefix(0, 1), &KEYS).await;
        assert_eq!(sent, Err(SkipReason::ChangedSincePlan), "{is_replaced}");
        assert_eq!((bench.deletes(), bench.rechecks()), (0, 1));
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_sends_nothing() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    bench.ledger.close().await;
    assert!(matches!(bench.dispose(&[candidate]).await, Some(Halt::Record(_))));
    assert_eq!(bench.deletes(), 0);
}

#[tokio::test]
async fn what_the_runs_own_scan_took_out_is_told_with_its_reason_and_is_over() {
    let bench = Bench::new().await;
    let candidate = bench.plant(1, &[0], &KEYS).await;
    let progress = |_| {};
    let disposal = bench.disposal(&progress);
    disposal.keep(&[(candidate.planned[0].clone(), SkipReason::Held)]).await;
    assert_eq!(bench.all_ended().await, (2, "skipped".into(), word(SkipReason::Held)));
    assert_eq!((bench.over(), bench.disposals(1).await), (vec![prefix(0, 1)], vec!["held".to_owned()]));
}

#[tokio::test]
async fn what_an_earlier_run_deleted_is_told_by_id() {
    let bench = Bench::new().await;
    let (one, two) = (bench.plant(1, &[0, 1], &KEYS).await, bench.plant(2, &[0], &KEYS).await);
    let gone: Vec<PlanGroup> = one.planned.into_iter().chain(two.planned).collect();
    let progress = |_| {};
    bench.disposal(&progress).note_gone(&gone).await;
    assert_eq!(bench.over(), [prefix(0, 1), prefix(0, 2), prefix(1, 1)]);
    assert_eq!(*bench.over.1.lock(), [2, 1], "every group of an id at once");
}

#[test]
fn the_words_of_skipped_keys() {
    let reasons = [
        SkipReason::LiveAgain,
        SkipReason::ChangedSincePlan,
        SkipReason::Held,
        SkipReason::Rejected,
        SkipReason::NotApproved,
        SkipReason::UploadInProgress,
        SkipReason::RunEnded,
    ];
    assert_eq!(
        reasons.map(SkipReason::as_str),
        ["live_again", "changed_since_plan", "held", "rejected", "not_approved", "upload_in_progress", "run_ended"]
    );
}
