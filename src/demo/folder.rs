//! The demo's folder: a fresh one, so that no report of anybody's is touched.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::command::CommandError;
use crate::exit::Exit;

/// Makes the folder at `dir`, or a new one for temporary files; gives its absolute path.
///
/// - Errors: [`Exit::Usage`] where `dir` holds anything already.
pub(super) fn prepare(dir: Option<PathBuf>) -> Result<PathBuf, CommandError> {
    let folder = match dir {
        Some(dir) => {
            make_empty(&dir)?;
            dir
        }
        None => make_temporary()?,
    };
    fs::canonicalize(&folder).map_err(|error| unusable(&folder, &error))
}

fn make_empty(dir: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(dir).map_err(|error| unusable(dir, &error))?;
    let is_empty = fs::read_dir(dir).map_err(|error| unusable(dir, &error))?.next().is_none();
    if is_empty {
        return Ok(());
    }
    let message = format!("the folder `{}` is not empty", dir.display());
    Err(CommandError::usage(message, "name a new or empty folder with --dir, or leave it out for a temporary one"))
}

fn make_temporary() -> Result<PathBuf, CommandError> {
    let base = std::env::temp_dir();
    loop {
        let folder = base.join(format!("orphan-sweeper-demo-{:06x}", fastrand::u32(..1 << 24)));
        match fs::DirBuilder::new().mode(0o750).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unusable(&folder, &error)),
        }
    }
}

fn unusable(folder: &Path, error: &std::io::Error) -> CommandError {
    CommandError {
        message: format!("the folder `{}` cannot be used: {error}", folder.display()),
        hint: Some("name a folder that can be written with --dir".to_owned()),
        exit: Exit::Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_anything_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("precious"), "x").expect("a file");
        let refused = prepare(Some(folder.path().to_path_buf())).expect_err("it is not empty");
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
    }

    #[test]
    fn a_new_or_empty_folder_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let new = folder.path().join("a/b");
        assert!(prepare(Some(new.clone())).is_ok());
        assert!(prepare(Some(new)).is_ok());
    }
}
