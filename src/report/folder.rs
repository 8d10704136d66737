//! The folder of one run: every file is written beside its name, synced, and renamed into place.
//!
//! Invariant: a file that has its name is whole; a run without `summary.json` did not finish.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

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

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the report. It has its name only after [`ReportFile::publish`].
    pub fn file(&self, name: &str) -> Result<ReportFile, FolderError> {
        let path = self.path.join(name);
        let hidden = self.path.join(format!(".{name}.partial"));
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

    /// Points `latest` of the scope at this folder.
    pub fn make_latest(&self) -> Result<(), FolderError> {
        let latest = self.scope_folder.join("latest");
        let failed = FolderError::at(&latest);
        let hidden = self.scope_folder.join(".latest.partial");
        match std::fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let target = self.path.file_name().expect("a run's folder has a name");
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
        let failed = FolderError::at(&self.path);
        let file = self.writer.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(&failed)?;
        std::fs::rename(&self.hidden, &self.path).map_err(&failed)
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

/// Whether a run left a whole report.
pub fn has_summary(reports: &Path, scope: &str, run: &str) -> bool {
    reports.join(scope).join(run).join("summary.json").exists()
}
