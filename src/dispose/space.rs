//! Free space for the journal and the report, looked at before the first request: a sweeper must not fill the disk it came
//! to free.

use std::path::Path;

use super::IDS_IN_FLIGHT;
use crate::model::human_bytes;

/// Rows of `deletions.csv` above which it is compressed, in parts.
const MOST_PLAIN_ROWS: u64 = 1_000_000;
/// Rows of a part: few enough that compacting them holds the journal for seconds at most.
const ROWS_PER_PART: u64 = 250_000;

/// How many rows are told in one plain file, and how many by a part: a test has fewer.
pub fn row_limits() -> (u64, u64) {
    let limit = crate::failpoint::rows_per_part();
    (limit.unwrap_or(MOST_PLAIN_ROWS), limit.unwrap_or(ROWS_PER_PART))
}

/// What the journal needs for one object: its key, and the rest of its row.
const JOURNAL_BYTES_PER_OBJECT: u64 = 640;
/// What a line of a plain `deletions.csv` needs.
const LINE_BYTES_PER_OBJECT: u64 = 384;
/// What a line of a compressed part needs. Keys of a dataset are alike: common ones take a tenth of this.
const PART_BYTES_PER_OBJECT: u64 = 64;
/// Compacting a part writes what it removes to the log first.
const JOURNAL_AND_LOG: u64 = 2;
/// What stays free in any case.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// What a run writes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes beside the ledger.
    pub journal_bytes: u64,
    /// Bytes in the report.
    pub report_bytes: u64,
}

impl Need {
    /// For ids of that many objects each.
    pub fn of(objects_of_ids: &[u64]) -> Self {
        let (most_plain, per_part) = row_limits();
        Self::within(objects_of_ids, most_plain, per_part)
    }

    /// Up to `most_plain` objects wait in the journal for one plain file. Of more, the
    /// journal holds one part at a time, of `per_part` rows, and the ids that are being worked on, whose rows must stay until
    /// all of their id is gone.
    fn within(objects_of_ids: &[u64], most_plain: u64, per_part: u64) -> Self {
        let all: u64 = objects_of_ids.iter().sum();
        if all <= most_plain {
            return Self {
                journal_bytes: all.saturating_mul(JOURNAL_BYTES_PER_OBJECT),
                report_bytes: all.saturating_mul(LINE_BYTES_PER_OBJECT),
            };
        }
        let mut largest = objects_of_ids.to_vec();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let in_flight: u64 = largest.iter().take(IDS_IN_FLIGHT).sum();
        let in_journal = all.min(per_part.saturating_add(in_flight));
        Self {
            journal_bytes: in_journal.saturating_mul(JOURNAL_BYTES_PER_OBJECT).saturating_mul(JOURNAL_AND_LOG),
            report_bytes: all.saturating_mul(PART_BYTES_PER_OBJECT),
        }
    }
}

/// Too little space.
#[derive(Debug, thiserror::Error)]
#[error("the journal and the report need up to {} in `{folder}`, and {} are free", human_bytes(*.needed), human_bytes(*.free))]
pub struct TooLittleSpace {
    /// The folder.
    pub folder: String,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free.
    pub free: u64,
}

/// Looks whether what a run writes fits into the folders of the ledger and the report.
///
/// - Errors: [`TooLittleSpace`]. A file system that does not say is taken to have enough: the journal is written before
///   each request, so nothing is sent that it cannot hold.
pub fn check(ledger: Option<&Path>, report: &Path, need: &Need) -> Result<(), TooLittleSpace> {
    // A ledger on a server has its disk there.
    let Some(ledger) = ledger else { return check_folder(report, need.report_bytes) };
    if is_one_disk(ledger, report) {
        return check_folder(report, need.journal_bytes.saturating_add(need.report_bytes));
    }
    check_folder(ledger, need.journal_bytes)?;
    check_folder(report, need.report_bytes)
}

fn is_one_disk(one: &Path, other: &Path) -> bool {
    let device = |folder: &Path| rustix::fs::stat(folder).ok().map(|status| status.st_dev);
    device(one).is_some() && device(one) == device(other)
}

fn check_folder(folder: &Path, bytes: u64) -> Result<(), TooLittleSpace> {
    let Ok(status) = rustix::fs::statvfs(folder) else { return Ok(()) };
    judge(folder, bytes, status.f_bavail.saturating_mul(status.f_frsize))
}

fn judge(folder: &Path, bytes: u64, free: u64) -> Result<(), TooLittleSpace> {
    let needed = bytes.saturating_add(RESERVE_BYTES);
    if free < needed {
        return Err(TooLittleSpace { folder: folder.display().to_string(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION: u64 = 1_000_000;

    #[test]
    fn a_million_rows_are_told_in_one_file_and_more_of_them_by_the_quarter_million() {
        assert_eq!(row_limits(), (MILLION, 250_000));
        assert_eq!(Need::of(&[MILLION, 1]), Need::within(&[MILLION, 1], MILLION, 250_000));
    }

    #[test]
    fn two_folders_share_a_disk_where_the_system_says_so() {
        let (here, missing) = (Path::new("."), Path::new("/nowhere/at/all"));
        assert!(is_one_disk(here, Path::new("src")));
        assert!(!is_one_disk(here, Path::new("/proc")));
        assert!(!is_one_disk(missing, missing), "what cannot be told is taken for two");
    }

    #[test]
    fn thirty_two_mebibytes_stay_free() {
        assert!(judge(Path::new("x"), 0, 32 << 20).is_ok());
        assert!(judge(Path::new("x"), 0, (32 << 20) - 1).is_err());
    }

    #[test]
    fn one_byte_too_few_is_refused() {
        assert!(judge(Path::new("x"), 1000, 1000 + RESERVE_BYTES).is_ok());
        assert!(judge(Path::new("x"), 1000, 999 + RESERVE_BYTES).is_err());
        assert!(judge(Path::new("x"), u64::MAX, u64::MAX - 1).is_err());
    }

    #[test]
    fn a_small_plan_waits_in_the_journal_and_is_told_in_one_plain_file() {
        let need = Need::within(&[400_000, 600_000], MILLION, 250_000);
        assert_eq!(
            need,
            Need { journal_bytes: MILLION * JOURNAL_BYTES_PER_OBJECT, report_bytes: MILLION * LINE_BYTES_PER_OBJECT }
        );
        assert_eq!(Need::within(&[], MILLION, 250_000), Need { journal_bytes: 0, report_bytes: 0 });
    }

    #[test]
    fn a_hundred_million_objects_need_one_part_the_ids_in_flight_and_the_compressed_parts() {
        let ids = vec![10_000; 10_000];
        let need = Need::within(&ids, MILLION, 250_000);
        let in_journal = 250_000 + 6 * 10_000;
        assert_eq!(
            need,
            Need {
                journal_bytes: in_journal * JOURNAL_BYTES_PER_OBJECT * 2,
                report_bytes: 100 * MILLION * PART_BYTES_PER_OBJECT
            }
        );
        assert!(need.journal_bytes < 1 << 30, "less than a GiB, where every intent at once would take 60");
    }

    #[test]
    fn an_id_of_many_objects_stays_in_the_journal_as_a_whole() {
        let need = Need::within(&[50 * MILLION, 10, 10], MILLION, 250_000);
        assert_eq!(need.journal_bytes, (50 * MILLION + 20) * JOURNAL_BYTES_PER_OBJECT * 2);
    }

    #[test]
    fn this_machine_has_room_for_one_and_for_no_endless_number() {
        let here = Path::new(".");
        let large_journal = Need { journal_bytes: u64::MAX, report_bytes: 1 };
        assert!(check(Some(here), here, &Need { journal_bytes: 1, report_bytes: 1 }).is_ok());
        assert!(check(Some(here), here, &large_journal).is_err());
        assert!(check(None, here, &large_journal).is_ok(), "a ledger on a server has its disk there");
        assert!(check(None, here, &Need { journal_bytes: 1, report_bytes: u64::MAX }).is_err());
    }
}
