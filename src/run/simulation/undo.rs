//! Copies aside and back: how the played store makes them, and what the oracle says of them.
//!
//! A copy is the only thing that is left of an object that went to quarantine. So none goes before its time, and none that is
//! wanted while nothing else holds what it does; an object goes only beside a whole copy; and what is brought back is what
//! somebody once wrote, in a place where nothing was.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;

use super::store::{SIZE_BYTES, failed};
use super::world::{Stored, World, id_of};
use crate::model::{DatasetId, ObjectKey, Sha256Hash, Timestamp};
use crate::s3::{Carried, Copied, Head, ReadBack, StoreError, StoreFault, WriteWhen};

/// Where the copies lie.
pub const QUARANTINE: &str = "quarantine/";
const HEAD: &str = "HeadObject";
const COPY: &str = "CopyObject";
const GET: &str = "GetObject";

/// What is played and known of copies.
#[derive(Debug, Default)]
pub struct Undo {
    /// Whether the scope copies aside what it deletes.
    pub is_quarantine: bool,
    /// Whether the store honours the condition that nothing lies at the target.
    pub honours_conditions: bool,
    /// How long a copy stays.
    pub keep: Duration,
    /// Whatever somebody wrote; a spoiled copy holds none of it.
    pub written: BTreeSet<u64>,
    /// The folder of each run's copies.
    pub folders: BTreeMap<usize, String>,
    /// What the store said last to a run that looked at a key: when, and whether something was there.
    pub looked: BTreeMap<(usize, String), (u64, bool)>,
    /// The copies that are all that is left of an object, by their key: what it held.
    pub owed: BTreeMap<String, u64>,
    /// Held ids, and since which step.
    pub held: BTreeMap<DatasetId, u64>,
    /// The versions that a run made at the keys of originals.
    pub brought_back: BTreeMap<(usize, String), u64>,
    /// Copies that were taken away.
    pub reaped: u64,
}

impl Undo {
    /// A copy is gone by our request.
    pub(super) fn note_reaped(&mut self, copy: &ObjectKey) {
        self.reaped += 1;
        self.owed.remove(copy.as_str());
    }

    /// How many objects were brought back.
    pub(super) fn restored(&self) -> u64 {
        self.brought_back.len() as u64
    }
}

/// The folder of a copy, and the key of its original.
fn original_of(copy: &str) -> Option<(&str, &str)> {
    let end = copy.strip_prefix(QUARANTINE)?.find('/')? + QUARANTINE.len() + 1;
    Some(copy.split_at(end))
}

fn head_of(stored: &Stored) -> Head {
    let label = stored.is_labelled.then(|| ("dataset".to_owned(), stored.etag.to_string()));
    Head {
        size_bytes: SIZE_BYTES,
        etag: format!("\"{}\"", stored.etag),
        last_modified: Timestamp::from_timestamp(stored.modified.timestamp(), 0),
        carried: Carried { metadata: label.into_iter().collect(), ..Carried::default() },
    }
}

impl World {
    pub(super) fn head(&mut self, run: usize, key: &str) -> Result<Option<Head>, StoreError> {
        if let Some(fault) = self.any_fault() {
            return Err(failed(HEAD, fault));
        }
        let found = self.objects.get(key).map(head_of);
        self.undo.looked.insert((run, key.to_owned()), (self.step, found.is_some()));
        Ok(found)
    }

    /// A copy, or what becomes of it.
    pub(super) fn copy(
        &mut self,
        run: usize,
        (source, seen): (&str, &Head),
        (target, when): (&str, WriteWhen),
    ) -> Result<Copied, StoreError> {
        if let Some(fault) = self.any_fault() {
            self.tell(&format!("run {run} copies `{source}`: {fault}"));
            return Err(failed(COPY, fault));
        }
        let Some(from) = self.objects.get(source).cloned() else { return Ok(Copied::SourceGone) };
        let is_taken = when == WriteWhen::Absent && self.objects.contains_key(target);
        if head_of(&from).etag != seen.etag || is_taken && self.undo.honours_conditions {
            return Ok(Copied::ConditionFailed);
        }
        let fault = self.chance(self.store_faults).then(|| self.rng.u8(0..5));
        self.tell(&format!("run {run} copies `{source}` to `{target}`, fault {fault:?}"));
        // The store says that it is done, and nothing is there.
        if fault == Some(0) {
            return Ok(Copied::Done);
        }
        self.judge_place(run, source, target);
        self.versions += 1;
        let is_spoiled = fault == Some(1);
        let copy = Stored {
            version: self.versions,
            etag: from.etag,
            bytes: if is_spoiled { self.versions } else { from.bytes },
            is_labelled: from.is_labelled && fault != Some(2),
            modified: self.store_time(),
            written: self.now,
            step: self.step,
        };
        self.objects.insert(target.to_owned(), copy);
        if fault == Some(3) {
            return Err(failed(COPY, StoreFault::NoReply("the connection was closed".into())));
        }
        Ok(Copied::Done)
    }

    pub(super) fn read_back(&mut self, key: &str, seen: &Head) -> Result<ReadBack, StoreError> {
        if let Some(fault) = self.any_fault() {
            return Err(failed(GET, fault));
        }
        let Some(stored) = self.objects.get(key) else { return Ok(ReadBack::Gone) };
        if head_of(stored).etag != seen.etag {
            return Ok(ReadBack::Changed);
        }
        let hash = Sha256Hash::of(&stored.bytes.to_be_bytes());
        let size_bytes = if self.chance(self.store_faults / 4.0) { SIZE_BYTES / 2 } else { SIZE_BYTES };
        Ok(ReadBack::Whole { size_bytes, hash })
    }

    /// The oracle where a copy is written: aside in the run's own folder, or back where nothing was.
    fn judge_place(&mut self, run: usize, source: &str, target: &str) {
        if let Some((folder, original)) = original_of(target) {
            let own = self.undo.folders.entry(run).or_insert_with(|| folder.to_owned()).clone();
            if original != source || own != folder {
                self.violate(format!("`{source}` is copied to `{target}`"));
            }
            return;
        }
        if original_of(source).is_none_or(|(_, original)| original != target) {
            self.violate(format!("`{source}` is brought back to `{target}`"));
        }
        let there = self.objects.get(target).map(|there| there.step);
        let looked = self.undo.looked.get(&(run, target.to_owned()));
        // What was written between the last look and the copy is lost where the store ignores the condition.
        let is_seen = |there| looked.is_none_or(|(step, was_there)| *was_there || there <= *step);
        if there.is_some_and(is_seen) {
            self.violate(format!("`{target}` is overwritten"));
        }
        self.undo.brought_back.insert((run, target.to_owned()), self.versions + 1);
    }

    /// The oracle where an object goes to quarantine: a whole copy of it lies in the run's own folder.
    pub(super) fn judge_copy(&mut self, run: usize, key: &ObjectKey, gone: &Stored, listed: u64) {
        let key = key.as_str();
        if gone.version != listed {
            // It was written again within its last minute; all the same, whoever looked after that must have noticed.
            let looked = self.undo.looked.get(&(run, key.to_owned())).map_or(0, |(step, _)| *step);
            if gone.step < looked {
                self.violate(format!("`{key}` was written again, and is gone without a copy"));
            }
            return;
        }
        let copy = format!("{}{key}", self.undo.folders.get(&run).map_or("", String::as_str));
        match self.objects.get(&copy) {
            Some(found) if found.bytes == gone.bytes && found.is_labelled == gone.is_labelled => {
                self.undo.owed.insert(copy, gone.bytes);
            }
            Some(_) | None => self.violate(format!("`{key}` is gone without a whole copy")),
        }
    }

    /// The oracle at the arrival of a request of the reaper.
    pub(super) fn judge_reaping(&mut self, run: usize, keys: &[ObjectKey]) {
        for key in keys {
            let key = key.as_str();
            let Some((original, id)) = original_of(key).and_then(|(_, original)| Some((original, id_of(original)?)))
            else {
                self.violate(format!("nobody knows what `{key}` is"));
                continue;
            };
            let Some(copy) = self.objects.get(key).cloned() else { continue };
            if self.listed.get(&(run, key.to_owned())) != Some(&copy.version) {
                self.violate(format!("`{key}` was never listed by run {run}"));
            }
            if !self.has_jumped && self.now - copy.written < self.undo.keep - Duration::minutes(30) {
                self.violate(format!("`{key}` goes {} h after it was made", (self.now - copy.written).num_hours()));
            }
            let checked = self.checks.get(&(run, id)).and_then(|checks| checks.last()).map(|check| check.step);
            // What is wanted only since the answer is in the window; what nobody asked about counts as wanted.
            let is_wanted = checked.is_none_or(|checked| self.wanted_since(id).is_some_and(|since| since <= checked));
            if is_wanted && !self.lies_elsewhere(run, key, original) {
                self.violate(format!("`{key}` may be the last that is left of {id}"));
            }
        }
    }

    /// Whether something lies at the original's key, or did when the run looked, or another copy of it is there.
    fn lies_elsewhere(&self, run: usize, copy: &str, original: &str) -> bool {
        let is_another = |key: &String| key != copy && original_of(key).is_some_and(|(_, of)| of == original);
        self.objects.contains_key(original)
            || self.undo.looked.get(&(run, original.to_owned())).is_some_and(|(_, was_there)| *was_there)
            || self.objects.range(QUARANTINE.to_owned()..).map(|(key, _)| key).any(is_another)
    }

    /// The oracle at the end of a restore that says that nothing failed.
    pub(super) fn judge_restore(&mut self, run: usize, restored: u64) {
        let made: Vec<(String, u64)> = (self.undo.brought_back.iter())
            .filter(|((by, _), _)| *by == run)
            .map(|((_, key), version)| (key.clone(), *version))
            .collect();
        if restored > made.len() as u64 {
            self.violate(format!("run {run} says that it brought back {restored}, and made {}", made.len()));
        }
        for (key, version) in made {
            let Some(found) = self.objects.get(&key).filter(|found| found.version == version) else { continue };
            if !self.undo.written.contains(&found.bytes) || !found.is_labelled {
                self.violate(format!("what was brought back to `{key}` is not what was there"));
            }
        }
    }

    /// The oracle at the end of the story: every copy that is all that is left of an object is there and whole.
    pub(super) fn judge_copies(&mut self) {
        let is_whole = |(copy, bytes): &(&String, &u64)| {
            self.objects.get(*copy).is_some_and(|found| found.bytes == **bytes && found.is_labelled)
        };
        let lost: Vec<String> =
            self.undo.owed.iter().filter(|owed| !is_whole(owed)).map(|(copy, _)| copy.clone()).collect();
        lost.into_iter().for_each(|copy| self.violate(format!("at the end `{copy}` is not there, or not whole")));
    }
}
