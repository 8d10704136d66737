//! Who is protected: the holds of every source, gathered after the listing, judged at the run's time.

use super::{RunFailure, Services};
use crate::config::{HoldsSource, Scope};
use crate::decide::holds::{Hold, Holds};
use crate::list::holds::HoldsFile;
use crate::model::Timestamp;
use crate::report::HeldId;

/// The holds of `scope` that count at `as_of`: those of the ledger, of the file, and those that stood `in_table`.
///
/// - Errors: [`RunFailure`]; without its holds a run knows nothing of what it may delete.
pub async fn gather(
    services: &Services,
    scope: &Scope,
    in_table: &[Hold],
    as_of: Timestamp,
) -> Result<Holds, RunFailure> {
    let mut holds = services.ledger.holds(&scope.name, None).await?;
    if let Some(HoldsSource::File(path)) = &scope.holds {
        holds.extend(HoldsFile::new(path.clone()).read()?.to_vec());
    }
    holds.extend(in_table.iter().cloned());
    Ok(Holds::at(as_of, holds))
}

/// A hold as the report shows it.
pub fn shown(hold: &Hold) -> HeldId {
    HeldId { id: hold.id.0, until: hold.until, by: hold.by.clone(), reason: hold.reason.clone(), source: hold.source }
}
