//! selftest: against the configured services what a careful person would do by hand, with rows and objects of its own.
//!
//! make a dataset → delete it by the API → the same through a job → leak one → audit → a dry run of the plan → clean up. Invariant:
//! whatever is written is in the journal first, and whatever ends the test, exactly what the journal says is removed; a key that is
//! another's by then stays. No plan is ever applied: it may hold other people's orphans.

mod api;
mod board;
mod clean;
mod leak;
mod scratch;
mod target;
mod ways;

use secrecy::SecretString;

pub use api::Api;
pub use board::{Board, Broken, Step, StepState};
pub use target::{plan_of_action, why_production};

use super::purge::Refusal;
use super::{Keyring, Reading, RunFailure, Services, Stop};
use crate::config::{Purge, Scope};
use crate::model::RunId;
use crate::platform::Platform;
use crate::s3::{DeleteStore, S3Copy, S3Put};

/// What a self-test works with.
pub struct Bench<'b> {
    services: &'b Services,
    keyring: &'b Keyring,
    scope: &'b Scope,
    purge: &'b Purge,
    /// The self-test: what it writes bears this number.
    pub run: RunId,
    reading: Reading,
    /// The platform by the role that removes.
    removing: Platform<'b>,
    /// The platform by the role that inserts.
    inserting: Platform<'b>,
    /// Its name, for messages.
    inserting_role: String,
    putter: S3Put,
    looker: S3Copy,
    deleter: Box<dyn DeleteStore>,
}

impl<'b> Bench<'b> {
    /// Lays out the tools. Nothing is sent yet.
    ///
    /// - Errors: [`Refusal::NotConfigured`], or what is wrong with a secret.
    pub fn set_up(services: &'b Services, keyring: &'b Keyring, scope: &'b Scope) -> Result<Self, Refusal> {
        let missing = |setting: &str| Refusal::NotConfigured { setting: setting.to_owned() };
        let purge = scope.purge.as_ref().ok_or_else(|| missing("`[scope.purge]`"))?;
        let urls = keyring.scratching(scope, purge).map_err(RunFailure::Secret)?;
        let (removing, inserting) =
            urls.ok_or_else(|| missing("ORPHAN_SWEEPER_PURGE_DATABASE_URL (or `scope.purge.url_file`)"))?;
        let (putter, looker) = keyring.putting(services, scope).map_err(RunFailure::from)?;
        Ok(Self {
            services,
            keyring,
            scope,
            purge,
            run: RunId::new(services.clock.now()),
            reading: keyring.reading(services, scope).map_err(RunFailure::from)?,
            removing: Platform::new(removing, purge),
            inserting_role: inserting.role(),
            inserting: Platform::new(inserting, purge),
            putter,
            looker,
            deleter: keyring.deleter(services, scope).map_err(RunFailure::from)?,
        })
    }

    /// What must go on when the process was told to stop: what is begun is finished, and what was written is removed.
    fn undisturbed(&self) -> Services {
        self.services.with_stop(Stop::default())
    }
}

/// Refuses to begin where deletion is stopped, or where what was seen is in doubt.
///
/// - Errors: [`Refusal::Stopped`], [`Refusal::Latched`], or the ledger's.
pub async fn check_stops(services: &Services, scope: &Scope) -> Result<(), Refusal> {
    check_stop_file(services)?;
    let latches = services.ledger.latches(&scope.name).await?;
    let Some(first) = latches.first() else { return Ok(()) };
    let breakers = latches.iter().map(|latch| latch.breaker.as_str()).collect();
    Err(Refusal::Latched { breakers, reason: first.message.clone() })
}

fn check_stop_file(services: &Services) -> Result<(), Refusal> {
    let file = &services.config.stop_file;
    if crate::dispose::is_there(file) {
        return Err(Refusal::Stopped { file: file.display().to_string() });
    }
    Ok(())
}

/// The steps, in the order in which they are taken.
const STEPS: [&str; 9] = ["earlier", "ways", "write", "dataset", "job", "leak", "audit", "dry_run", "witness"];

/// Takes every step up to the first that fails; those after it are told as not taken. What was written is still there.
pub async fn walk(bench: &Bench<'_>, api: &Api, board: &mut Board<'_>) {
    if path(bench, api, board).await.is_none() {
        board.leave_out(&STEPS);
    }
}

async fn path(bench: &Bench<'_>, api: &Api, board: &mut Board<'_>) -> Option<()> {
    let stop = &bench.services.stop;
    board.step("earlier", stop, clean::earlier(bench)).await?;
    board.step("ways", stop, ways::check(bench, api)).await?;
    let dataset = board.step("write", stop, scratch::write_and_see(bench)).await?;
    board.step("dataset", stop, api::delete_dataset(bench, api, dataset)).await?;
    board.step("job", stop, api::delete_job(bench, api)).await?;
    let leak = board.step("leak", stop, leak::leak(bench)).await?;
    let plan = board.step("audit", stop, leak::audit(bench, &leak)).await?;
    board.step("dry_run", stop, leak::apply_dry(bench, &leak, plan)).await?;
    board.step("witness", stop, api::delete_witness(bench, api, leak.witness)).await
}

/// Removes what this self-test and earlier ones wrote, and looks whether anything is left. It heeds no request to stop: what was
/// written must not stay.
pub async fn clean_up(bench: &Bench<'_>, board: &mut Board<'_>) {
    board.step("clean_up", &Stop::default(), clean::last(bench)).await;
}

/// The token of one self-test: its name in the ledger.
fn token_name(run: RunId) -> String {
    format!("selftest {run}")
}

/// The name of every scratch dataset of a self-test.
fn row_name(run: RunId) -> String {
    format!("orphan-sweeper selftest {run}")
}

/// What a self-test shows to the API.
pub type Token = SecretString;
