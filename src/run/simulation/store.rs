//! A store that pages, lies and fails as the real ones have been seen to.

use super::undo::QUARANTINE;
use super::world::{Stored, World};
use crate::model::{Object, ObjectKey, Timestamp, Versioning};
use crate::s3::{KeyReply, Page, PageRequest, StoreError, StoreFault};

/// A request that the store received and carries out later.
#[derive(Debug, Clone)]
pub struct Late {
    pub run: usize,
    pub keys: Vec<ObjectKey>,
}

/// Every object's size.
pub const SIZE_BYTES: u64 = 10;
const LIST: &str = "ListObjectsV2";
const BATCH: &str = "DeleteObjects";

pub(super) fn failed(operation: &'static str, fault: StoreFault) -> StoreError {
    StoreError { operation, fault }
}

impl World {
    pub(super) fn store_time(&self) -> Timestamp {
        // A `Date` has whole seconds.
        let now = self.now + self.ahead + self.store_ahead;
        Timestamp::from_timestamp(now.timestamp(), 0).expect("in range")
    }

    /// A fault of any request, at the rate of the scenario.
    pub(super) fn any_fault(&mut self) -> Option<StoreFault> {
        if !self.chance(self.store_faults) {
            return None;
        }
        Some(match self.rng.u8(0..4) {
            0 => StoreFault::Throttled("SlowDown".into()),
            1 => StoreFault::Throttled("429".into()),
            2 => StoreFault::ServerFault("InternalError".into()),
            _ => StoreFault::NoReply("timed out".into()),
        })
    }

    pub(super) fn versioning(&mut self) -> Result<Versioning, StoreError> {
        match self.any_fault() {
            Some(fault) => Err(failed("GetBucketVersioning", fault)),
            None => Ok(Versioning::Unversioned),
        }
    }

    /// One page of a listing, or what becomes of it.
    pub(super) fn page(&mut self, run: usize, request: &PageRequest) -> Result<Page, StoreError> {
        if let Some(fault) = self.any_fault() {
            self.tell(&format!("run {run} lists `{}`: {fault}", request.prefix));
            return Err(failed(LIST, fault));
        }
        let after = request.token.clone().unwrap_or_default();
        let mut page = self.honest_page(request, &after);
        if self.chance(self.store_faults) {
            match self.rng.u8(0..6) {
                // What the client makes of a body that is cut before its end.
                0 => return Err(StoreError::malformed(LIST, "the body is cut before its closing tag")),
                1 => (page.is_truncated, page.next_token) = (true, None),
                2 => (page.is_truncated, page.next_token) = (true, Some(after)),
                3 => page.objects.reverse(),
                4 => page.prefixes.reverse(),
                _ => {
                    let foreign = format!("elsewhere/{}", request.prefix);
                    page.objects.push(Object {
                        key: ObjectKey::new(foreign),
                        size_bytes: SIZE_BYTES,
                        etag: String::new(),
                        last_modified: Some(page.date),
                    });
                }
            }
        } else if self.chance(self.stale_listings) && !page.objects.is_empty() {
            // A listing that is behind: an object that is there is not listed.
            let missing = self.rng.usize(0..page.objects.len());
            page.objects.remove(missing);
        }
        for object in &page.objects {
            if let Some(stored) = self.objects.get(object.key.as_str()) {
                let version = stored.version;
                self.modified.insert(version, stored.modified);
                let seen = (run, object.key.as_str().to_owned());
                self.first_listed.entry(seen.clone()).or_insert(version);
                self.listed.insert(seen, version);
            }
        }
        let (objects, prefixes) = (page.objects.len(), page.prefixes.len());
        self.tell(&format!("run {run} lists `{}`: {objects} objects, {prefixes} prefixes", request.prefix));
        if !request.by_delimiter {
            self.follow(&request.prefix);
        }
        Ok(page)
    }

    fn honest_page(&self, request: &PageRequest, after: &str) -> Page {
        let mut page = Page {
            objects: Vec::new(),
            prefixes: Vec::new(),
            is_truncated: false,
            next_token: None,
            date: self.store_time(),
        };
        let mut last = String::new();
        for (key, stored) in self.objects.range(request.prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&request.prefix) else { break };
            let rolled = rest.find('/').filter(|_| request.by_delimiter).map(|end| &key[..=request.prefix.len() + end]);
            let name = rolled.unwrap_or(key);
            if name <= after || page.prefixes.last().is_some_and(|prefix| prefix == name) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == self.page_size {
                (page.is_truncated, page.next_token) = (true, Some(last));
                return page;
            }
            last = name.to_owned();
            match rolled {
                Some(prefix) => page.prefixes.push(prefix.to_owned()),
                None => page.objects.push(listed(key, stored)),
            }
        }
        page
    }

    /// A delete request arrives: the oracle looks at it before anything of it is carried out.
    pub(super) fn delete(&mut self, run: usize, keys: &[ObjectKey]) -> Result<Vec<KeyReply>, StoreError> {
        if self.chance(self.store_faults / 4.0) {
            // The client itself holds the request back.
            self.tell(&format!("run {run} holds a request back"));
            return Err(failed(BATCH, StoreFault::ProofExpired));
        }
        self.judge_request(run, keys);
        let deleted = vec![KeyReply::Deleted; keys.len()];
        if !self.chance(self.store_faults) {
            self.carry_out(&Late { run, keys: keys.to_vec() });
            self.tell(&format!("run {run} deletes {} keys", keys.len()));
            return Ok(deleted);
        }
        let kind = self.rng.u8(0..9);
        self.tell(&format!("run {run} asks to delete {} keys, fault {kind}", keys.len()));
        let one = self.rng.usize(0..keys.len());
        let mut replies = deleted;
        let request = Late { run, keys: keys.to_vec() };
        match kind {
            0 => return Err(failed(BATCH, StoreFault::Throttled("SlowDown".into()))),
            1 => return Err(failed(BATCH, StoreFault::ServerFault("InternalError".into()))),
            2 => {
                self.carry_out(&request);
                return Err(failed(BATCH, StoreFault::NoReply("the connection was closed".into())));
            }
            3 if !self.is_strict => {
                self.late.push(request);
                return Err(failed(BATCH, StoreFault::NoReply("timed out".into())));
            }
            4 => return Err(failed(BATCH, StoreFault::NoReply("never arrived".into()))),
            5 => replies[one] = KeyReply::TryAgain("SlowDown".into()),
            6 => replies[one] = KeyReply::Refused("AccessDenied".into()),
            // The store says deleted, and the object stays.
            7 => {}
            _ => replies[one] = KeyReply::Unmentioned,
        }
        let mut carried_out = keys.to_vec();
        if (5..=7).contains(&kind) {
            carried_out.remove(one);
        }
        self.carry_out(&Late { run, keys: carried_out });
        Ok(replies)
    }

    /// The store removes what a request names.
    pub(super) fn carry_out(&mut self, request: &Late) {
        for key in &request.keys {
            let Some(gone) = self.objects.remove(key.as_str()) else { continue };
            if key.as_str().starts_with(QUARANTINE) {
                self.undo.note_reaped(key);
            } else {
                self.judge_removal(request.run, key, &gone);
            }
        }
    }
}

fn listed(key: &str, stored: &Stored) -> Object {
    Object {
        key: ObjectKey::new(key),
        size_bytes: SIZE_BYTES,
        etag: format!("\"{}\"", stored.etag),
        last_modified: Some(stored.modified),
    }
}
