//! Free space for the journal, looked at before the first request: a sweeper must not fill the disk it came to free.

use std::path::Path;

use crate::model::human_bytes;

/// What the journal and `deletions.csv` need for one object at most: two copies of its key, and the rest of its row.
const BYTES_PER_OBJECT: u64 = 1024;
/// What stays free in any case.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// Too little space.
#[derive(Debug, thiserror::Error)]
#[error("the journal needs up to {} in `{folder}`, and {} are free", human_bytes(*.needed), human_bytes(*.free))]
pub struct TooLittleSpace {
    /// The folder.
    pub folder: String,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free.
    pub free: u64,
}

/// Looks whether the journal of `objects` deletions fits into `folder`.
///
/// - Errors: [`TooLittleSpace`]. A file system that does not say is taken to have enough: the journal is written before
///   each request, so nothing is sent that it cannot hold.
pub fn check(folder: &Path, objects: u64) -> Result<(), TooLittleSpace> {
    let Ok(status) = rustix::fs::statvfs(folder) else { return Ok(()) };
    judge(folder, objects, status.f_bavail.saturating_mul(status.f_frsize))
}

fn judge(folder: &Path, objects: u64, free: u64) -> Result<(), TooLittleSpace> {
    let needed = objects.saturating_mul(BYTES_PER_OBJECT).saturating_add(RESERVE_BYTES);
    if free < needed {
        return Err(TooLittleSpace { folder: folder.display().to_string(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_few_is_refused() {
        let needed = 1000 * BYTES_PER_OBJECT + RESERVE_BYTES;
        assert!(judge(Path::new("x"), 1000, needed).is_ok());
        assert!(judge(Path::new("x"), 1000, needed - 1).is_err());
    }

    #[test]
    fn this_machine_has_room_for_one_and_for_no_endless_number() {
        assert!(check(Path::new("."), 1).is_ok());
        assert!(check(Path::new("."), u64::MAX).is_err());
    }
}
