//! One run at a time: a lock on a file, which the system releases when the process ends, however it ends.
//!
//! It is for order. Safety never rests on it: every batch asks the database again by itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run has it.
    #[error("another run holds the lock `{0}`")]
    Held(PathBuf),
    /// The file cannot be locked.
    #[error("failed to lock `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl RunLock {
    /// Takes the lock of the ledger at `ledger_path`.
    ///
    /// - Errors: [`LockError::Held`] where another run has it.
    pub fn take(ledger_path: &Path) -> Result<Self, LockError> {
        let path = ledger_path.with_added_extension("lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}
