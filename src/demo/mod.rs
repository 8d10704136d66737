//! demo: the whole story on an embedded store and a SQLite catalogue, with nothing to install.
//!
//! Takes an empty folder; gives the story on standard output, and in the folder the configuration, the ledger, the
//! catalogue and every report. Invariant: what runs here is the production path, over HTTP and under the default
//! policy; only the store, the catalogue and the hand of the one clock that they share with the program are the
//! demo's own. At the end the bucket itself is compared with what must be left in it.

mod catalogue;
mod folder;
mod story;
mod verify;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::cli::Global;
use crate::clock::{Clock as _, ManualClock};
use crate::command::{self, CommandError, Host, print_json};
use crate::config::{self, Config, Variables};
use crate::decide::breakers::Allowances;
use crate::dispose::pace::Pace;
use crate::embedded::{MemoryStore, Operation, Serving};
use crate::exit::Exit;
use crate::model::{Mode, Timestamp};
use crate::record::RunLock;
use crate::report::Summary;
use crate::run::apply::find_plan;
use crate::run::failure::chain;
use crate::run::{ApplyJob, Job, Keyring, ScopeEnd, Services, Stop, run_scope};
use crate::telemetry::Progress;
use catalogue::Catalogue;
use story::Teller;
use verify::Verification;
use world::{BUCKET, World};

/// When the first night is.
const START: &str = "2026-03-01T03:00:00Z";
/// The keys of the embedded store, which only this process can reach.
const ACCESS_KEY: &str = "demo";
const SECRET_KEY: &str = "demo-secret-key";
const CONFIG: &str = include_str!("config.toml");

/// How the story ended.
struct Ending {
    runs: Vec<(&'static str, Summary)>,
    verification: Verification,
}

/// Tells the whole story in `dir`, or in a new folder for temporary files.
///
/// - Errors: [`Exit::Usage`] where `dir` is not empty; [`Exit::Failed`] where a run does not end as it must.
pub async fn run(dir: Option<PathBuf>, global: &Global, progress: Progress) -> Result<Exit, CommandError> {
    let folder = folder::prepare(dir)?;
    let mut teller = if global.json { Teller::silent() } else { Teller::to_stdout() };
    let play = play(&folder, progress, &mut teller);
    // Log lines would tear the story apart; what they say is in the reports.
    let ending = if global.verbose == 0 { play.with_subscriber(NoSubscriber::new()).await? } else { play.await? };
    if global.json {
        let summaries: Vec<&Summary> = ending.runs.iter().map(|(_, summary)| summary).collect();
        print_json(&json!({
            "directory": folder,
            "config": folder.join("config.toml"),
            "summaries": summaries,
            "verification": ending.verification
        }));
    }
    Ok(if ending.verification.passed { Exit::Done } else { Exit::Failed })
}

async fn play(folder: &Path, progress: Progress, teller: &mut Teller) -> Result<Ending, CommandError> {
    let mut stage = Stage::build(folder, progress).await?;
    teller.title("orphan-sweeper demo: three nights, a review and a clean-up");
    teller.say("The code is production's, over HTTP and under the default policy. Only the store, the catalogue");
    teller.say("and the clock are the demo's own, so that nine days pass in a moment.");

    teller.step("The bucket and the catalogue");
    let objects = stage.store.keys(BUCKET).len() as u64;
    story::setting(teller, &stage.world, stage.serving.endpoint(), objects, stage.store.stored_bytes(BUCKET));

    first_nights(&mut stage, teller).await?;
    third_night(&mut stage, teller).await?;
    let before: BTreeSet<String> = stage.store.keys(BUCKET).into_iter().collect();
    clean_up(&mut stage, teller).await?;
    night_after(&mut stage, teller).await?;

    teller.step("The proof, from the bucket itself");
    let after = stage.store.keys(BUCKET).into_iter().collect();
    let reported = stage.runs.iter().filter_map(|(_, summary)| summary.deletion).map(|deletion| deletion.deleted).sum();
    let verification = verify::verify(&stage.world, &before, &after, &stage.named_in_delete_requests(), reported);
    story::verification(teller, &verification);
    look_around(&stage, teller, folder);
    Ok(stage.close(verification).await)
}

/// Two nights on which nothing may go.
async fn first_nights(stage: &mut Stage, teller: &mut Teller) -> Result<(), CommandError> {
    teller.step(&format!("First night, {}: orphan-sweeper audit", story::moment(stage.clock.now())));
    let night = stage.audit("first night").await?;
    story::found(teller, &night.summary);
    teller.say("Nothing may go. The orphans are weeks and months old, but that proves little: a row can be hidden for");
    teller.say("one night. So the grace period of 7 days also counts from the first sighting, and that is tonight.");

    stage.clock.advance(Duration::days(4));
    teller.step(&format!("Second night, {}: orphan-sweeper audit", story::moment(stage.clock.now())));
    let night = stage.audit("second night").await?;
    let orphans = night.summary.groups.orphan;
    teller.say(format!(
        "The same {orphans} groups without a row, unchanged. Nothing may go: 4 days of 7, and 2 sightings of 3."
    ));
    if let Some(at) = night.summary.next_eligible_at {
        teller.say(format!("At the earliest, and if they stay as they are: {}.", story::moment(at)));
    }
    Ok(())
}

/// The night on which the orphans mature, but for those that something happened to.
async fn third_night(stage: &mut Stage, teller: &mut Teller) -> Result<(), CommandError> {
    let tonight = stage.clock.now() + Duration::days(4);
    stage.clock.set(tonight - Duration::hours(30));
    stage.world.write_into_orphan(&stage.store, stage.clock.now());
    stage.clock.set(tonight - Duration::hours(2));
    stage.world.upload_young(&stage.store, stage.clock.now());
    stage.clock.set(tonight);
    teller.step(&format!("Third night, {}: orphan-sweeper audit", story::moment(tonight)));
    teller.say("Meanwhile somebody wrote an object into one of the orphans, and a job has uploaded a new dataset");
    teller.say("whose row it will insert when it is done. This is what the audit prints:");
    teller.say("");
    let night = stage.audit("third night").await?;
    teller.quote(&night.text);
    teller.say("");
    teller.say("And orphans.csv, one line a group:");
    let lines =
        story::read_csv(&night.summary.report_dir, "orphans.csv").map_err(|error| unreadable("orphans.csv", &error))?;
    story::verdicts(teller, &stage.world, &lines);
    Ok(())
}

/// The clean-up that a person approves by applying the plan.
async fn clean_up(stage: &mut Stage, teller: &mut Teller) -> Result<(), CommandError> {
    let plan = stage.last_report().join("plan.json");
    stage.clock.advance(Duration::hours(6));
    let row = stage.world.returning_row(stage.clock.now());
    stage.catalogue.insert(&[row]).await.map_err(|error| failed("the catalogue cannot be written", &error))?;
    stage.clock.advance(Duration::minutes(30));
    teller.step(&format!("The clean-up, {}: orphan-sweeper apply plan.json", story::moment(stage.clock.now())));
    teller.say("A person has read the report and applies its plan. Half an hour ago an import brought back the row");
    teller.say("of one of the planned datasets, so its objects must stay. Nobody told orphan-sweeper: it looks again.");
    let end = stage.apply(&plan).await?;
    let lines = story::read_csv(&end.summary.report_dir, "deletions.csv")
        .map_err(|error| unreadable("deletions.csv", &error))?;
    let requests = (stage.store.count(Operation::DeleteObjects), stage.store.count(Operation::DeleteObject));
    story::deletion(teller, &end.summary, &lines, requests);
    Ok(())
}

/// What is left after the clean-up, and why.
async fn night_after(stage: &mut Stage, teller: &mut Teller) -> Result<(), CommandError> {
    stage.clock.set(stage.start + Duration::days(9));
    teller.step(&format!("The night after, {}: orphan-sweeper audit", story::moment(stage.clock.now())));
    let night = stage.audit("night after").await?;
    story::found(teller, &night.summary);
    let (now, before) = (night.summary.groups, stage.runs[2].1.groups);
    let live_again = now.live - before.live;
    teller.say(format!(
        "Of the {} orphans of the third night, {} were deleted and {live_again} is live again. What stays, and why:",
        before.orphan,
        before.orphan - now.orphan - live_again
    ));
    let lines =
        story::read_csv(&night.summary.report_dir, "orphans.csv").map_err(|error| unreadable("orphans.csv", &error))?;
    story::verdicts(teller, &stage.world, &lines);
    Ok(())
}

fn look_around(stage: &Stage, teller: &mut Teller, folder: &Path) {
    teller.step("Look around");
    teller.say(format!("Everything is in {}", folder.display()));
    for (name, summary) in &stage.runs {
        let report = Path::new(&summary.report_dir).strip_prefix(folder).unwrap_or(Path::new(&summary.report_dir));
        teller.say(format!("  {:<13} {}/report.html", name, report.display()));
    }
    teller.say("Open a report.html in a browser; beside it lie orphans.csv, missing.csv, foreign.csv, plan.json and");
    teller.say("summary.json. What the ledger remembers:");
    teller.say(format!("  orphan-sweeper history --config {}", folder.join("config.toml").display()));
    teller.say("For a bucket of your own, edit the project's config.toml, then check it and look; neither can delete:");
    teller.say("  orphan-sweeper doctor && orphan-sweeper audit");
}

/// Everything that the story needs.
struct Stage {
    start: Timestamp,
    clock: ManualClock,
    store: MemoryStore,
    serving: Serving,
    catalogue: Catalogue,
    world: World,
    services: Services,
    keyring: Keyring,
    runs: Vec<(&'static str, Summary)>,
    _lock: RunLock,
}

impl Stage {
    async fn build(folder: &Path, progress: Progress) -> Result<Self, CommandError> {
        let start: Timestamp = START.parse().expect("a constant time is one");
        let clock = ManualClock::at(start);
        let store = MemoryStore::new(Arc::new(clock.clone()));
        let world = World::seed(&store, start);
        let serving = store
            .serve(ACCESS_KEY, SECRET_KEY)
            .await
            .map_err(|error| failed("the embedded store cannot be served", &error))?;
        let path = folder.join("catalogue.sqlite3");
        let unwritable = |error: sqlx::Error| failed("the catalogue cannot be written", &error);
        let mut catalogue = Catalogue::create(&path).await.map_err(unwritable)?;
        catalogue.insert(&world.rows).await.map_err(unwritable)?;
        let variables = Variables::from([
            ("AWS_ACCESS_KEY_ID".to_owned(), ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), SECRET_KEY.to_owned()),
            ("ORPHAN_SWEEPER_DATABASE_URL".to_owned(), format!("sqlite://{}", path.display())),
        ]);
        let config = write_config(folder, serving.endpoint())?;
        let keyring = Keyring::new(variables.clone());
        let host = Host { variables, clock: Arc::new(clock.clone()) };
        let (services, lock) = command::services(config, &host, progress, Stop::default()).await?;
        Ok(Self { start, clock, store, serving, catalogue, world, services, keyring, runs: Vec::new(), _lock: lock })
    }

    async fn audit(&mut self, name: &'static str) -> Result<ScopeEnd, CommandError> {
        self.run(name, Job::Audit { fail_on_orphans: false }).await
    }

    async fn apply(&mut self, plan: &Path) -> Result<ScopeEnd, CommandError> {
        let source = find_plan(&self.services.ledger, &plan.to_string_lossy()).await?;
        let job = ApplyJob {
            source,
            mode: Mode::Live,
            allowances: Allowances::default(),
            asks_first: false,
            accepts_empty_references: false,
            pace: Pace::default(),
        };
        self.run("clean-up", Job::Apply(Box::new(job))).await
    }

    async fn run(&mut self, name: &'static str, job: Job) -> Result<ScopeEnd, CommandError> {
        let end = run_scope(&self.services, &self.keyring, &self.services.config.scopes[0], &job).await?;
        self.runs.push((name, end.summary.clone()));
        if end.exit == Exit::Done {
            return Ok(end);
        }
        let reason = end.summary.reason.unwrap_or_else(|| "it gave no reason".to_owned());
        let report = end.summary.report_dir;
        Err(CommandError {
            message: format!("the run of the {name} did not end well: {reason}; its report is in {report}"),
            hint: end.hint,
            exit: Exit::Failed,
        })
    }

    fn last_report(&self) -> PathBuf {
        self.runs.last().map(|(_, summary)| PathBuf::from(&summary.report_dir)).unwrap_or_default()
    }

    fn named_in_delete_requests(&self) -> BTreeSet<String> {
        let requests = self.store.requests().into_iter();
        let deletes =
            requests.filter(|request| matches!(request.operation, Operation::DeleteObjects | Operation::DeleteObject));
        deletes.flat_map(|request| request.keys).collect()
    }

    async fn close(self, verification: Verification) -> Ending {
        self.services.ledger.close().await;
        self.serving.stop().await;
        Ending { runs: self.runs, verification }
    }
}

/// Writes the configuration and reads it back as every command does.
fn write_config(folder: &Path, endpoint: &str) -> Result<Config, CommandError> {
    let path = folder.join("config.toml");
    let text = CONFIG.replace("{endpoint}", endpoint);
    std::fs::write(&path, &text).map_err(|error| failed("config.toml cannot be written", &error))?;
    Ok(config::parse(&text, &path, &Variables::new())?)
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CommandError {
    CommandError { message: format!("{what}: {}", chain(error)), hint: None, exit: Exit::Failed }
}

fn unreadable(name: &str, error: &csv::Error) -> CommandError {
    failed(&format!("{name} cannot be read back"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_story_ends_well_and_leaves_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let ending =
            play(folder.path(), Progress::new(false), &mut Teller::silent()).await.expect("every run ends well");
        assert!(ending.verification.passed, "{:?}", ending.verification);
        let orphans: Vec<u64> = ending.runs.iter().map(|(_, summary)| summary.groups.eligible).collect();
        assert_eq!(orphans.len(), 5);
        assert_eq!(orphans[..2], [0, 0], "nothing is eligible before the third night");
        assert!(orphans[2] > 5, "{orphans:?}");
        let apply = &ending.runs[3].1;
        let deletion = apply.deletion.expect("something was deleted");
        assert!(deletion.skipped > 0, "the row that came back protects");
        assert_eq!(deletion.failed + deletion.unconfirmed, 0);
        for file in ["config.toml", "ledger.sqlite3", "catalogue.sqlite3", "reports/synthetic/latest/report.html"] {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }
}
