//! The folder of one run: every file is written beside its name, synced, and renamed into place.
//!
//! Invariant: a file that has its name is whole; a run without `summary.json` did not finish.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::model::RunId;

/// `<reports.directory>/<scope>/<run id>/`.
#[derive(Debug, Clone)]
pub struct ReportFolder {
    scope_folder: PathBuf,
    path: PathBuf,
}

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the report `{path}`")]
pub struct FolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl FolderError {
    fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.to_path_buf(), source }
    }
}

impl ReportFolder {
    /// Makes the folder of `run`, readable by owner and group.
    ///
    /// - Errors: [`FolderError`], also where it exists.
    pub fn create(reports: &Path, scope: &str, run: RunId) -> Result<Self, FolderError> {
        let scope_folder = reports.join(scope);
        let path = scope_folder.join(run.to_string());
        std::fs::create_dir_all(&scope_folder).map_err(FolderError::at(&scope_folder))?;
        DirBuilder::new().mode(0o750).create(&path).map_err(FolderError::at(&path))?;
        Ok(Self { scope_folder, path })
    }

    /// Opens the folder of a run that goes on, or makes it. What its process had not finished when it died is removed.
    ///
    /// - Errors: [`FolderError`].
    pub fn open(reports: &Path, scope: &str, run: RunId) -> Result<Self, FolderError> {
        let scope_folder = reports.join(scope);
        let path = scope_folder.join(run.to_string());
        if !path.exists() {
            return Self::create(reports, scope, run);
        }
        for entry in std::fs::read_dir(&path).map_err(FolderError::at(&path))? {
            let name = entry.map_err(FolderError::at(&path))?.file_name();
            let is_unfinished = name
                .to_str()
                .is_some_and(|name| name.starts_with('.') && name.ends_with(".partial") && is_report_file(name));
            if is_unfinished {
                std::fs::remove_file(path.join(&name)).map_err(FolderError::at(&path))?;
            }
        }
        Ok(Self { scope_folder, path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the report, in place of one that was begun and not finished. It has its name only after
    /// [`ReportFile::publish`].
    pub fn file(&self, name: &str) -> Result<ReportFile, FolderError> {
        debug_assert!(is_report_file(name), "`{name}` is not among the files that are removed with their run");
        let path = self.path.join(name);
        let hidden = self.path.join(hidden_name(name));
        remove_if_there(&hidden).map_err(FolderError::at(&path))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&hidden)
            .map_err(FolderError::at(&path))?;
        Ok(ReportFile { path, hidden, writer: BufWriter::with_capacity(64 * 1024, file) })
    }

    /// Writes a whole file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let mut file = self.file(name)?;
        file.write_all(bytes).map_err(FolderError::at(&self.path.join(name)))?;
        file.publish()
    }

    /// Takes a part of `deletions.csv` that `run`, which died, finished and noted: whether it came to giving it its name or
    /// not, it stands here under its new number. Says whether it was there.
    pub fn adopt_part(&self, run: &str, number: u64, new_number: u64) -> Result<bool, FolderError> {
        let (name, target) = (part_name(number), self.path.join(part_name(new_number)));
        let left = self.scope_folder.join(run);
        for found in [left.join(&name), left.join(hidden_name(&name))] {
            if !found.exists() {
                continue;
            }
            // A link first: should this process die too, the file is still where the ledger says.
            if std::fs::hard_link(&found, &target).is_err() {
                std::fs::copy(&found, &target).map_err(FolderError::at(&target))?;
                File::open(&target).and_then(|copy| copy.sync_all()).map_err(FolderError::at(&target))?;
            }
            sync_folder(&self.path)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Leaves the parts of `deletions.csv` that are `noted`, by their numbers, and no other: one that did not come to its name
    /// gets it, because a note can be on the disk although its reply was lost; what nobody noted is told in another way.
    pub fn settle_parts(&self, noted: &BTreeSet<u64>) -> Result<(), FolderError> {
        let failed = FolderError::at(&self.path);
        for entry in std::fs::read_dir(&self.path).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let found = entry.file_name();
            let Some((name, is_hidden)) = found.to_str().map(unhidden) else { continue };
            let Some(number) = part_number(name) else { continue };
            let (path, is_noted) = (self.path.join(name), noted.contains(&number));
            match (is_noted, is_hidden) {
                (true, true) if !path.exists() => std::fs::rename(entry.path(), &path).map_err(&failed)?,
                (true, false) => {}
                (true, true) | (false, _) => std::fs::remove_file(entry.path()).map_err(&failed)?,
            }
        }
        sync_folder(&self.path)
    }

    /// Points `latest` of the scope at this folder.
    pub fn make_latest(&self) -> Result<(), FolderError> {
        let latest = self.scope_folder.join("latest");
        let failed = FolderError::at(&latest);
        let target = self.path.file_name().expect("a run's folder has a name");
        // A name of its own: runs may end at the same time.
        let hidden = self.scope_folder.join(format!(".latest.{}.partial", target.display()));
        remove_if_there(&hidden).map_err(&failed)?;
        symlink(target, &hidden).and_then(|()| std::fs::rename(&hidden, &latest)).map_err(failed)
    }
}

/// A file of a report that is being written.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    hidden: PathBuf,
    writer: BufWriter<File>,
}

impl ReportFile {
    /// Syncs the file and gives it its name.
    pub fn publish(self) -> Result<(), FolderError> {
        self.sync()?.publish()
    }

    /// Syncs the file, which can be found again from now on, and has no name yet.
    pub fn sync(self) -> Result<SyncedFile, FolderError> {
        {
            let failed = FolderError::at(&self.path);
            let file = self.writer.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(&failed)?;
        }
        if let Some(folder) = self.path.parent() {
            sync_folder(folder)?;
        }
        Ok(SyncedFile { path: self.path, hidden: self.hidden })
    }
}

/// A file of a report that is on the disk and has no name yet.
#[derive(Debug)]
pub struct SyncedFile {
    path: PathBuf,
    hidden: PathBuf,
}

impl SyncedFile {
    /// Gives it its name.
    pub fn publish(self) -> Result<(), FolderError> {
        std::fs::rename(&self.hidden, &self.path).map_err(FolderError::at(&self.path))
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<(), FolderError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FolderError::at(folder))
}

/// The name of a compressed part of `deletions.csv`.
pub fn part_name(number: u64) -> String {
    format!("deletions.{number:04}.csv.zst")
}

/// The number of the part of `deletions.csv` that has this name.
fn part_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("deletions.")?.strip_suffix(".csv.zst")?;
    let is_number = number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { number.parse().ok() } else { None }
}

/// The name of a file until it is whole.
fn hidden_name(name: &str) -> String {
    format!(".{name}.partial")
}

/// The name that a file has or will have, and whether it is hidden yet.
fn unhidden(name: &str) -> (&str, bool) {
    let whole = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
    (whole.unwrap_or(name), whole.is_some())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Write for ReportFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The newest runs that have a folder in the reports of `scope`: by name, and by `latest`. They differ where the host's
/// clock was set back.
pub fn newest_runs(reports: &Path, scope: &str) -> Vec<Uuid> {
    let folder = reports.join(scope);
    let run_of = |name: &std::ffi::OsStr| Uuid::parse_str(name.to_str()?).ok();
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let by_name = entries.filter_map(|entry| run_of(&entry.ok()?.file_name())).max();
    let by_link = std::fs::read_link(folder.join("latest")).ok().and_then(|target| run_of(target.file_name()?));
    by_name.into_iter().chain(by_link).collect()
}

/// What became of the folder of an old run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, with all that it held.
    Whole,
    /// There was none.
    Nothing,
    /// It holds something that is none of ours, or is no folder: nothing of it was touched.
    Foreign,
}

/// Removes the folder of `run`, if it is one, and holds nothing but the files of a report. No link is followed.
///
/// - Errors: [`FolderError`]; what is left of the folder is still known as the run's.
pub fn remove_run(reports: &Path, scope: &str, run: &str) -> Result<Removed, FolderError> {
    let path = reports.join(scope).join(run);
    let failed = |error: Errno| FolderError { path: path.clone(), source: error.into() };
    let is_run = Uuid::parse_str(run).is_ok_and(|id| id.get_version_num() == 7 && id.to_string() == run);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &str| rustix::fs::openat(at, name, flags, Mode::empty());
    let Ok(reports) = rustix::fs::open(reports, flags - OFlags::NOFOLLOW, Mode::empty()) else {
        return Ok(Removed::Nothing);
    };
    let folder = match open(&reports, scope).and_then(|scope| open(&scope, run).map(|run| (scope, run))) {
        Ok((scope, folder)) if is_run => (scope, folder),
        Err(Errno::NOENT) => return Ok(Removed::Nothing),
        // A link, or a file.
        Ok(_) | Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Removed::Foreign),
        Err(error) => return Err(failed(error)),
    };
    let (scope, folder) = folder;
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let status = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let is_file = rustix::fs::FileType::from_raw_mode(status.st_mode).is_file();
        if !is_file || !name.to_str().is_ok_and(is_report_file) {
            return Ok(Removed::Foreign);
        }
        names.push(name);
    }
    for name in names {
        rustix::fs::unlinkat(&folder, &name, AtFlags::empty()).map_err(failed)?;
    }
    rustix::fs::unlinkat(&scope, run, AtFlags::REMOVEDIR).map_err(failed)?;
    Ok(Removed::Whole)
}

/// The files that a run may leave, whole or not.
const REPORT_FILES: [&str; 9] = [
    "summary.json",
    "report.html",
    "plan.json",
    "orphans.csv",
    "missing.csv",
    "foreign.csv",
    "deletions.csv",
    "uploads.csv",
    "restored.csv",
];

/// Whether a name is that of a report's file, or of one that is not finished.
fn is_report_file(name: &str) -> bool {
    let (name, _) = unhidden(name);
    part_number(name).is_some() || REPORT_FILES.contains(&name)
}

/// A finished file of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// The finished files of `run`, by name; none where its folder is gone.
///
/// - Errors: [`FolderError`].
pub fn finished_files(reports: &Path, scope: &str, run: Uuid) -> Result<Vec<FinishedFile>, FolderError> {
    let path = reports.join(scope).join(run.to_string());
    let entries = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FolderError::at(&path))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FolderError::at(&path))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // No link is followed: the status is the entry's own.
        let status = entry.metadata().map_err(FolderError::at(&path))?;
        if status.is_file() && is_finished(&name) {
            files.push(FinishedFile { name, size_bytes: status.len() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Opens a finished file of `run` to read it; none where there is no such file, or its name is that of no report's file. No link is
/// followed.
///
/// - Errors: [`FolderError`].
pub fn open_finished(reports: &Path, scope: &str, run: Uuid, name: &str) -> Result<Option<File>, FolderError> {
    let path = reports.join(scope).join(run.to_string()).join(name);
    if !is_finished(name) {
        return Ok(None);
    }
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(reports, folder - OFlags::NOFOLLOW, Mode::empty())
        .and_then(|reports| rustix::fs::openat(&reports, scope, folder, Mode::empty()))
        .and_then(|scope| rustix::fs::openat(&scope, run.to_string(), folder, Mode::empty()))
        // What is no file must not keep us waiting.
        .and_then(|run| rustix::fs::openat(&run, name, (folder - OFlags::DIRECTORY) | OFlags::NONBLOCK, Mode::empty()));
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(FolderError { path, source: error.into() }),
    };
    let is_file = file.metadata().map_err(FolderError::at(&path))?.is_file();
    Ok(is_file.then_some(file))
}

fn is_finished(name: &str) -> bool {
    !name.starts_with('.') && is_report_file(name)
}

/// Whether a run left a whole report.
pub fn has_summary(reports: &Path, scope: &str, run: &str) -> bool {
    reports.join(scope).join(run).join("summary.json").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, ReportFolder) {
        let reports = tempfile::tempdir().expect("a folder");
        let folder = ReportFolder::create(reports.path(), "s", RunId(Uuid::from_u128(1))).expect("made");
        (reports, folder)
    }

    fn names(folder: &ReportFolder) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder.path()).expect("read");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    }

    #[test]
    fn a_file_that_was_begun_and_not_finished_is_begun_anew() {
        let (_reports, folder) = folder();
        let mut left = folder.file("deletions.csv").expect("opened");
        left.write_all(b"half of a line, and more of it than the next").expect("written");
        drop(left);
        folder.write("deletions.csv", b"whole").expect("written");
        assert_eq!(std::fs::read(folder.path().join("deletions.csv")).expect("read"), b"whole");
        assert_eq!(names(&folder), BTreeSet::from(["deletions.csv".to_owned()]));
    }

    #[test]
    fn only_noted_parts_stay_and_one_without_its_name_gets_it() {
        let (_reports, folder) = folder();
        for (name, bytes) in [
            (part_name(1), "noted"),
            (hidden_name(&part_name(2)), "noted, and the reply was lost"),
            (part_name(3), "never noted"),
            (hidden_name(&part_name(4)), "never noted"),
            (hidden_name(&part_name(1)), "a second attempt at what was noted"),
            ("deletions.csv".to_owned(), "plain"),
            (hidden_name("orphans.csv"), "in work"),
        ] {
            std::fs::write(folder.path().join(name), bytes).expect("written");
        }
        for _ in 0..2 {
            folder.settle_parts(&BTreeSet::from([0, 1, 2])).expect("settled");
            let left = [part_name(1), part_name(2), "deletions.csv".to_owned(), hidden_name("orphans.csv")];
            assert_eq!(names(&folder), BTreeSet::from(left));
        }
        let read = |number| std::fs::read_to_string(folder.path().join(part_name(number))).expect("read");
        assert_eq!((read(1), read(2)), ("noted".to_owned(), "noted, and the reply was lost".to_owned()));
    }
}
