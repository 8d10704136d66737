//! Copies one object and proves that the copy is the object.
//!
//! Invariant: [`Transferred::Done`] means that size, headers and the SHA-256 of the streamed bytes were compared after the
//! copy was made, and the source was the object that had been seen all the while.

use tokio_util::sync::CancellationToken;

use crate::s3::{Copied, CopyStore, Head, Place, ReadBack, StoreError, WriteWhen, retry};

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transferred {
    /// It is made and proven.
    Done,
    /// The source is another object by now, or gone; or something is at a target that was to be absent.
    Refused,
}

/// Why there is no proven copy.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy is not the object.
    #[error("the copy differs: {0}")]
    Differs(&'static str),
}

/// Copies what was `seen` at `source` to `target`, and compares the two.
///
/// - Errors: [`TransferError`]. Requests are tried again: a copy that is made twice is the same copy.
pub async fn transfer(
    copier: &dyn CopyStore,
    stop: &CancellationToken,
    (source, seen): (&Place, &Head),
    (target, when): (&Place, WriteWhen),
) -> Result<Transferred, TransferError> {
    crate::failpoint::reach("before_copy");
    let copy = || async {
        // Directly before each attempt: not every store honours the condition of the copy itself, and an attempt without a
        // reply may have been overtaken by a writer.
        if when == WriteWhen::Absent && copier.head(target).await?.is_some() {
            return Ok(Copied::ConditionFailed);
        }
        copier.copy(source, seen, target, when).await
    };
    match retry::read_with_retries(stop, copy).await? {
        Copied::Done => {}
        Copied::ConditionFailed | Copied::SourceGone => return Ok(Transferred::Refused),
    }
    crate::failpoint::reach("after_copy");
    let verified = compare(copier, stop, (source, seen), target).await;
    crate::failpoint::reach("after_verify");
    verified
}

/// Whether what lies at `target` is, in every byte and header, what was `seen` at `source`.
///
/// - Errors: [`TransferError::Differs`] where it is not.
pub async fn compare(
    copier: &dyn CopyStore,
    stop: &CancellationToken,
    (source, seen): (&Place, &Head),
    target: &Place,
) -> Result<Transferred, TransferError> {
    let copy = retry::read_with_retries(stop, || copier.head(target)).await?;
    let copy = copy.ok_or(TransferError::Differs("it is not there"))?;
    if copy.size_bytes != seen.size_bytes {
        return Err(TransferError::Differs("its size"));
    }
    if copy.carried != seen.carried {
        return Err(TransferError::Differs("its metadata or content headers"));
    }
    let (of_source, of_copy) = futures::join!(
        retry::read_with_retries(stop, || copier.read_back(source, seen)),
        retry::read_with_retries(stop, || copier.read_back(target, &copy)),
    );
    match (of_source?, of_copy?) {
        (ReadBack::Gone | ReadBack::Changed, _) => Ok(Transferred::Refused),
        (ReadBack::Whole { .. }, ReadBack::Gone | ReadBack::Changed) => Err(TransferError::Differs("it was replaced")),
        (ReadBack::Whole { size_bytes, hash }, ReadBack::Whole { size_bytes: copied, hash: of_copy }) => {
            if size_bytes != seen.size_bytes || copied != size_bytes {
                return Err(TransferError::Differs("the number of its bytes"));
            }
            if hash != of_copy {
                return Err(TransferError::Differs("its bytes"));
            }
            Ok(Transferred::Done)
        }
    }
}
