//! One entry of the chain, and the hash that binds it to the one before.

use chrono::SecondsFormat;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::{Sha256Hash, Timestamp};

/// Begins every hash, so that it is mistaken for no other one of this program.
const ENTRY: &[u8] = b"orphan-sweeper chain entry 1";
const GENESIS: &[u8] = b"orphan-sweeper chain of a ledger 1";

/// One entry, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::record) struct Entry {
    /// Its place, counted from 1 without a gap.
    pub(in crate::record) number: i64,
    /// When it was written, by the host's clock.
    pub(in crate::record) at: String,
    /// What happened.
    pub(in crate::record) kind: String,
    /// To what: a run's id, a plan's hash, a prefix.
    pub(in crate::record) subject: String,
    /// The details: canonical JSON.
    pub(in crate::record) payload: String,
    /// The hash of the entry before it.
    pub(in crate::record) previous: Sha256Hash,
    /// The hash of all of this.
    pub(in crate::record) hash: Sha256Hash,
}

impl Entry {
    /// The entry after the one of `number` and hash `previous`.
    pub(in crate::record) fn after(
        (number, previous): (i64, Sha256Hash),
        at: Timestamp,
        kind: &str,
        subject: &str,
        payload: &serde_json::Value,
    ) -> Self {
        let mut entry = Self {
            number: number + 1,
            at: at.to_rfc3339_opts(SecondsFormat::Micros, true),
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            payload: payload.to_string(),
            previous,
            hash: previous,
        };
        entry.hash = entry.seal();
        entry
    }

    /// The hash that its fields have. Each field is preceded by its length, so that no byte can move from one to the next.
    pub(in crate::record) fn seal(&self) -> Sha256Hash {
        let number = self.number.to_be_bytes();
        let fields: [&[u8]; 6] = [
            &self.previous.0,
            &number,
            self.at.as_bytes(),
            self.kind.as_bytes(),
            self.subject.as_bytes(),
            self.payload.as_bytes(),
        ];
        hash_of(ENTRY, &fields)
    }
}

/// What the first entry follows: it binds the chain to the ledger's identity.
pub(in crate::record) fn genesis(ledger: Uuid, created_at: Timestamp) -> Sha256Hash {
    let created_at = created_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    hash_of(GENESIS, &[ledger.as_bytes(), created_at.as_bytes()])
}

fn hash_of(domain: &[u8], fields: &[&[u8]]) -> Sha256Hash {
    let mut hasher = Sha256::new();
    for field in std::iter::once(&domain).chain(fields) {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    Sha256Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_bound_and_none_runs_into_the_next() {
        let at = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let start = (0, genesis(Uuid::nil(), at));
        let entry = Entry::after(start, at, "kind", "subject", &json!({ "a": 1 }));
        let changed = |change: fn(&mut Entry)| {
            let mut changed = entry.clone();
            change(&mut changed);
            changed.seal()
        };
        assert_eq!((entry.number, entry.seal(), entry.previous), (1, entry.hash, start.1));
        let seals = [
            entry.hash,
            changed(|entry| entry.number = 2),
            changed(|entry| entry.at.push('0')),
            changed(|entry| entry.kind.push('s')),
            changed(|entry| (entry.kind, entry.subject) = ("kin".into(), "dsubject".into())),
            changed(|entry| (entry.subject, entry.payload) = ("subject{".into(), "\"a\":1}".into())),
            changed(|entry| entry.payload.push(' ')),
            changed(|entry| entry.previous = entry.hash),
        ];
        let different: std::collections::BTreeSet<_> = seals.iter().map(ToString::to_string).collect();
        assert_eq!(different.len(), seals.len());
    }

    #[test]
    fn two_ledgers_begin_two_chains() {
        let at = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let of = |n, at| genesis(Uuid::from_u128(n), at);
        assert_ne!(of(1, at), of(2, at));
        assert_ne!(of(1, at), of(1, at + chrono::Duration::seconds(1)));
    }
}
