//! Where intents and outcomes are written: a plan's deletions and the reaper's each have a journal of their own, and one way
//! to it.

use super::{Disposal, Purpose};
use crate::model::{DatasetId, Object, ObjectKey};
use crate::record::{Intent, KeyOutcome, RecordError};

impl<'d> Disposal<'d> {
    /// What this run is about to ask for.
    pub(super) fn intent<'i>(&self, id: DatasetId, prefix: &'i str, batch: u64) -> Intent<'i>
    where
        'd: 'i,
    {
        let (Purpose::Plan(plan) | Purpose::Quarantine(_, plan)) = self.purpose;
        Intent { scope: &self.scope.name, plan, run: self.run, id, prefix, batch }
    }

    /// Writes an intent. When this returns, it is on the disk.
    pub(super) async fn write_intent(&self, intent: &Intent<'_>, objects: &[Object]) -> Result<(), RecordError> {
        match &self.purpose {
            Purpose::Plan(_) => self.ledger.intend(intent, objects).await,
            Purpose::Quarantine(quarantine, _) => self.ledger.intend_reaping(*quarantine, self.run, objects).await,
        }
    }

    /// Writes what became of keys.
    pub(super) async fn write_outcomes(&self, outcomes: &[(ObjectKey, KeyOutcome, String)]) -> Result<(), RecordError> {
        match &self.purpose {
            Purpose::Plan(_) => self.ledger.settle(&self.scope.name, self.run, outcomes).await,
            Purpose::Quarantine(quarantine, _) => self.ledger.settle_reaping(*quarantine, self.run, outcomes).await,
        }
    }

    /// Up to 1000 intents after `after` whose outcome needs a look.
    pub(super) async fn intents_to_verify(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
    ) -> Result<Vec<(Object, Option<String>)>, RecordError> {
        match &self.purpose {
            Purpose::Plan(plan) => self.ledger.to_verify(&self.scope.name, *plan, prefix, after).await,
            Purpose::Quarantine(quarantine, _) => self.ledger.reapings_to_verify(*quarantine, after).await,
        }
    }
}
