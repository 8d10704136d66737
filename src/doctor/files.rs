//! What is ours: the ledger, the reports, the lock, the stop file and the disk below them.
//!
//! Invariant: nothing is made. A ledger that is not there stays away.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::Examination;
use super::board::Check;
use super::setup;
use crate::config::secrets::{self, LedgerPlace};
use crate::config::{Config, HoldsSource, Scope};
use crate::dispose::space;
use crate::list::holds::HoldsFile;
use crate::model::human_count;
use crate::record::{Absence, Ledger, LockError, RecordError, RunLock};
use crate::report::folder;
use crate::report::text::words::moment;
use crate::run::failure::chain;

/// Looks at everything that is ours.
pub(super) async fn look(examination: &Examination<'_>, scopes: &[&Scope]) -> Vec<Check> {
    let config = examination.config;
    let mut checks = match secrets::ledger(config, examination.variables) {
        Ok(place) => ledger(examination, &place, scopes).await,
        Err(error) => vec![setup::missing("ledger_address", &error)],
    };
    if let Some(ledger_folder) = config.ledger.folder() {
        checks.push(disk(ledger_folder));
        checks.push(writable("ledger_folder", ledger_folder));
    }
    checks.push(writable("reports_folder", &config.reports_directory));
    checks.push(free_space(config, scopes));
    checks.push(stop_file(&config.stop_file));
    checks.extend(scopes.iter().copied().filter_map(holds_file));
    checks.extend(config.ledger.file().map(lock));
    checks
}

/// The file of protected ids, where one is configured: no run goes on without it.
fn holds_file(scope: &Scope) -> Option<Check> {
    const NAME: &str = "holds_file";
    let Some(HoldsSource::File(path)) = &scope.holds else { return None };
    Some(match HoldsFile::new(path.clone()).read() {
        Ok(holds) => Check::ok(NAME, format!("{} rows in `{}`", human_count(holds.len() as u64), path.display())),
        Err(error) => Check::misconfigured(
            NAME,
            chain(&error),
            "correct it: while it cannot be read, every run fails and nothing is deleted",
        ),
    })
}

async fn ledger(examination: &Examination<'_>, place: &LedgerPlace, scopes: &[&Scope]) -> Vec<Check> {
    const NAME: &str = "ledger";
    let mut checks = Vec::new();
    if let LedgerPlace::Database(url) = place {
        checks.extend(url.warning.as_deref().map(|warning| setup::warned("ledger_tls", warning)));
        let live = secrets::database(examination.config, examination.variables).ok();
        let shared = live.and_then(|live| secrets::shared_role(url, &live));
        checks.extend(shared.map(|warning| setup::warned("ledger_role", &warning)));
    }
    checks.extend(match read_ledger(examination, place, scopes).await {
        Ok(checks) => checks,
        Err(RecordError::Absent(shown)) => vec![no_ledger(examination.config, &shown, scopes)],
        Err(error @ RecordError::Newer(_)) => {
            vec![Check::misconfigured(NAME, chain(&error), "use the newer version of orphan-sweeper that wrote it")]
        }
        Err(error) => vec![Check::fail(
            NAME,
            chain(&error),
            match place {
                LedgerPlace::File(_) => {
                    "check the rights of its folder and the disk; if it is damaged, restore its backup"
                }
                LedgerPlace::Database(_) => {
                    "check its address, that the server answers, and that the role may use and write the schema `orphan_sweeper`"
                }
            },
        )],
    });
    checks
}

/// The first audit makes a ledger; reports without one say that there was one.
fn no_ledger(config: &Config, shown: &str, scopes: &[&Scope]) -> Check {
    const NAME: &str = "ledger";
    let is_lost = scopes.iter().any(|scope| !folder::newest_runs(&config.reports_directory, &scope.name).is_empty());
    if is_lost {
        let detail = format!("there is none at `{shown}`, and there are reports of earlier runs");
        return Check::warn(
            NAME,
            detail,
            "restore its backup if there is one; a new ledger counts all sightings from the start",
        );
    }
    Check::ok(NAME, format!("none yet at `{shown}`: the first audit makes it"))
}

async fn read_ledger(
    examination: &Examination<'_>,
    place: &LedgerPlace,
    scopes: &[&Scope],
) -> Result<Vec<Check>, RecordError> {
    const NAME: &str = "ledger";
    let config = examination.config;
    let ledger = Ledger::open(place, Absence::Refuse, examination.clock.now()).await?;
    let detail = format!(
        "{} at `{}`, made {}, with {} runs",
        ledger.id(),
        ledger.shown(),
        moment(ledger.created_at()),
        human_count(ledger.run_count().await?)
    );
    let mut checks = vec![Check::ok(NAME, detail)];
    if let LedgerPlace::Database(_) = place {
        checks.push(match ledger.lease_holder().await? {
            None => Check::ok("run_lock", "free: no run is going on"),
            Some(who) => Check::warn(
                "run_lock",
                format!("held by {who}: a run is going on"),
                "a second run would exit 6 until it ends",
            ),
        });
    }
    for scope in scopes {
        for newest in folder::newest_runs(&config.reports_directory, &scope.name) {
            if ledger.knows_run(&newest.to_string()).await? {
                continue;
            }
            let detail =
                format!("it does not know run {newest}, whose report lies in `{}`", config.reports_directory.display());
            let hint = "it is older than its reports, or another: the next run starts all sightings again";
            checks.push(Check::warn("ledger_age", detail, hint).of(&scope.name));
        }
        checks.push(latches(&ledger, scope).await?.of(&scope.name));
    }
    ledger.close().await;
    Ok(checks)
}

async fn latches(ledger: &Ledger, scope: &Scope) -> Result<Check, RecordError> {
    const NAME: &str = "breakers";
    let latches = ledger.latches(&scope.name).await?;
    let Some(first) = latches.first() else { return Ok(Check::ok(NAME, "none waits for an acknowledgement")) };
    let named: Vec<String> =
        latches.iter().map(|latch| format!("{} ({})", latch.breaker.as_str(), latch.message)).collect();
    let detail = format!("latched, so nothing is deleted: {}", named.join("; "));
    let hint = format!(
        "find the cause, then: orphan-sweeper ack {} --scope {} --by NAME --reason TEXT",
        first.breaker.as_str(),
        scope.name
    );
    Ok(Check::warn(NAME, detail, hint))
}

/// The nearest folder on the way to `path` that is there.
fn existing(path: &Path) -> PathBuf {
    let here = Path::new(".");
    let found = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(here);
    if found.as_os_str().is_empty() { here.to_path_buf() } else { found.to_path_buf() }
}

fn disk(folder: &Path) -> Check {
    const NAME: &str = "ledger_disk";
    match network_file_system(&existing(folder)) {
        Some(kind) => Check::warn(
            NAME,
            format!("`{}` lies on {kind}: locks and write-ahead logs are not safe there", folder.display()),
            "put the ledger on a local disk with `ledger.path`; reports may stay where they are",
        ),
        None => Check::ok(NAME, "not a network file system"),
    }
}

/// The name of the network file system that a folder lies on, if it does and the system says so.
#[cfg(target_os = "linux")]
fn network_file_system(folder: &Path) -> Option<&'static str> {
    let status = rustix::fs::statfs(folder).ok()?;
    name_of_magic(u32::try_from(status.f_type & 0xffff_ffff).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_folder: &Path) -> Option<&'static str> {
    None
}

/// The numbers are those of statfs(2).
fn name_of_magic(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x00c3_6400 => Some("CephFS"),
        0x0102_1997 => Some("9P"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x4750_4653 => Some("GPFS"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
}

fn writable(name: &'static str, folder: &Path) -> Check {
    let nearest = existing(folder);
    let missing = if folder.is_dir() { "" } else { " (not there yet; the first run makes it)" };
    match rustix::fs::access(&nearest, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Check::ok(name, format!("`{}` can be written{missing}", folder.display())),
        Err(error) => Check::fail(
            name,
            format!("`{}` cannot be written: {error}", nearest.display()),
            "give this user the right, or write another folder into `ledger.path` or `reports.directory`",
        ),
    }
}

fn free_space(config: &Config, scopes: &[&Scope]) -> Check {
    const NAME: &str = "free_space";
    let largest = scopes.iter().map(|scope| scope.limits.max_objects).max().unwrap_or(0);
    let (ledger_folder, reports) = (config.ledger.folder().map(existing), existing(&config.reports_directory));
    let fits = |objects| space::check(ledger_folder.as_deref(), &reports, &space::Need::of(&[objects]));
    if let Err(error) = fits(0) {
        return Check::fail(NAME, chain(&error), "free some space: no deletion begins without it");
    }
    match fits(largest) {
        Ok(()) => {
            Check::ok(NAME, format!("enough for the journal of {} objects, the limit of one run", human_count(largest)))
        }
        Err(error) => Check::warn(
            NAME,
            format!(
                "a run that deletes the {} objects which `max_objects` allows would be refused: {error}",
                human_count(largest)
            ),
            "free some space before a large clean-up",
        ),
    }
}

fn stop_file(path: &Path) -> Check {
    const NAME: &str = "stop_file";
    if path.exists() {
        let detail = format!("`{}` exists: no delete request is sent", path.display());
        return Check::warn(NAME, detail, "remove it when deletion may go on");
    }
    Check::ok(NAME, format!("none at `{}`", path.display()))
}

fn lock(ledger_path: &Path) -> Check {
    const NAME: &str = "run_lock";
    // Taking the lock makes its file, and where there is none nobody holds it.
    if !ledger_path.with_added_extension("lock").exists() {
        return Check::ok(NAME, "free: no run has begun yet");
    }
    match RunLock::take(ledger_path) {
        Ok(_) => Check::ok(NAME, "free: no run is going on"),
        Err(LockError::Held(_)) => {
            Check::warn(NAME, "held: a run is going on", "a second run would exit 6 until it ends")
        }
        Err(error) => Check::fail(NAME, chain(&error), "check the rights of the ledger's folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::State;
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_pass() {
        assert_eq!(name_of_magic(0x6969), Some("NFS"));
        assert_eq!(name_of_magic(0xef53), None, "ext4");
        assert_eq!(name_of_magic(0x794c_7630), None, "overlayfs of a container");
        assert_eq!(disk(Path::new("/nowhere/at/all")).state, State::Ok);
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_that_would_hold_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("reports/deep");
        let check = writable("reports_folder", &inside);
        assert_eq!(check.state, State::Ok, "{check:?}");
        assert!(check.detail.contains("not there yet"));
        assert!(!inside.exists(), "nothing is made");
    }

    #[test]
    fn a_lock_that_is_held_is_told_and_none_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = folder.path().join("ledger.sqlite3");
        assert_eq!(lock(&ledger).state, State::Ok);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
        let held = RunLock::take(&ledger).expect("free");
        assert_eq!(lock(&ledger).state, State::Warn);
        drop(held);
        assert_eq!(lock(&ledger).state, State::Ok);
    }

    #[test]
    fn a_stop_file_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("STOP");
        assert_eq!(stop_file(&path).state, State::Ok);
        std::fs::write(&path, "").expect("written");
        assert_eq!(stop_file(&path).state, State::Warn);
    }
}
