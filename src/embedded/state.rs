//! What the store holds: buckets, their objects and, where a bucket keeps versions, what lies under them.
//!
//! Takes writes and deletions; gives revisions. Invariant: `current` holds exactly the keys that a plain listing shows,
//! and nothing but key, size, time and a pointer for each, so that a million objects stay cheap.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use md5::{Digest, Md5};
use uuid::Uuid;

/// Whether a bucket keeps what is deleted or written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersioningState {
    /// Never switched on: a deletion removes the object.
    #[default]
    Unversioned,
    /// A deletion adds a marker and keeps every version.
    Enabled,
    /// A deletion adds a marker in place of the `null` version and keeps the others.
    Suspended,
}

/// The version that objects have where versioning is not enabled.
const NULL_VERSION: u32 = 0;

/// The body of an object, with its hash.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    md5: [u8; 16],
}

/// One version of an object.
#[derive(Debug, Clone)]
pub(super) struct Revision {
    pub(super) size_bytes: u64,
    pub(super) last_modified: Option<DateTime<Utc>>,
    /// `None` where only a size was given.
    pub(super) content: Option<Arc<Content>>,
    /// What it carries besides its bytes; `None`: nothing.
    pub(super) extras: Option<Arc<Extras>>,
    version: u32,
}

/// What an object carries besides its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Extras {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: Vec<(String, String)>,
    /// The sizes of its parts, where it was written in parts.
    pub(super) parts: Vec<u64>,
}

impl Revision {
    pub(super) fn with_body(bytes: Bytes, last_modified: Option<DateTime<Utc>>) -> Self {
        let md5 = Md5::digest(&bytes).into();
        Self {
            size_bytes: bytes.len() as u64,
            last_modified,
            content: Some(Arc::new(Content { bytes, md5 })),
            extras: None,
            version: NULL_VERSION,
        }
    }

    pub(super) fn with_size(size_bytes: u64, last_modified: DateTime<Utc>) -> Self {
        Self { size_bytes, last_modified: Some(last_modified), content: None, extras: None, version: NULL_VERSION }
    }

    /// The same with other bytes or other extras.
    pub(super) fn carrying(self, extras: Extras) -> Self {
        Self { extras: Some(Arc::new(extras)), ..self }
    }

    /// What it carries besides its bytes.
    pub(super) fn extras(&self) -> Extras {
        self.extras.as_deref().cloned().unwrap_or_default()
    }

    /// The ETag without its quotes. That of an object in parts is the hash of its parts' hashes, and their number.
    pub(super) fn e_tag(&self, key: &str) -> String {
        if let (Some(content), Some(extras)) = (&self.content, &self.extras)
            && !extras.parts.is_empty()
        {
            let (mut hashes, mut rest) = (Md5::new(), &content.bytes[..]);
            for size in &extras.parts {
                let (part, after) = rest.split_at(usize::try_from(*size).unwrap_or(usize::MAX).min(rest.len()));
                hashes.update(Md5::digest(part));
                rest = after;
            }
            return format!("{:032x}-{}", u128::from_be_bytes(hashes.finalize().into()), extras.parts.len());
        }
        let digest = match &self.content {
            Some(content) => content.md5,
            None => Md5::new().chain_update(key).chain_update(self.size_bytes.to_be_bytes()).finalize().into(),
        };
        format!("{:032x}", u128::from_be_bytes(digest))
    }

    pub(super) fn version_id(&self) -> String {
        version_id(self.version)
    }
}

/// How S3 spells a version.
fn version_id(version: u32) -> String {
    if version == NULL_VERSION { "null".to_owned() } else { Uuid::from_u128(version.into()).to_string() }
}

/// What lies under the current object of a key, or in place of it.
#[derive(Debug)]
enum Past {
    Object(Revision),
    Marker(u32),
}

impl Past {
    fn version(&self) -> u32 {
        match self {
            Self::Object(revision) => revision.version,
            Self::Marker(version) => *version,
        }
    }
}

/// One entry of a listing of versions; without a revision it is a delete marker.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) version_id: String,
    pub(super) is_latest: bool,
    pub(super) revision: Option<Revision>,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) initiated_at: DateTime<Utc>,
    pub(super) extras: Extras,
    pub(super) parts: BTreeMap<i32, Bytes>,
}

/// What a deletion left behind.
pub(super) enum Deletion {
    Removed,
    /// A delete marker with this version id.
    Marked(String),
}

/// One bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) versioning: VersioningState,
    pub(super) has_object_lock: bool,
    current: BTreeMap<Box<str>, Revision>,
    past: BTreeMap<Box<str>, Vec<Past>>,
    pub(super) uploads: Vec<Upload>,
    last_version: u32,
    last_upload: u64,
}

impl Bucket {
    pub(super) fn get(&self, key: &str) -> Option<&Revision> {
        self.current.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.current.keys().map(AsRef::as_ref)
    }

    /// The bytes of every version that is still held.
    pub(super) fn stored_bytes(&self) -> u64 {
        let past = self.past.values().flatten().filter_map(|past| match past {
            Past::Object(revision) => Some(revision),
            Past::Marker(_) => None,
        });
        self.current.values().chain(past).map(|revision| revision.size_bytes).sum()
    }

    /// Every version and marker under `prefix` in the order of a listing of versions: by key, the newest first.
    pub(super) fn versions(&self, prefix: &str) -> Vec<Listed> {
        let mut listed = Vec::new();
        let keys: BTreeSet<&str> = self.current.keys().chain(self.past.keys()).map(AsRef::as_ref).collect();
        for key in keys.into_iter().filter(|key| key.starts_with(prefix)) {
            let current = self.current.get(key).map(|revision| (Some(revision), revision.version));
            let past = self.past.get(key).into_iter().flatten().rev().map(|past| match past {
                Past::Object(revision) => (Some(revision), revision.version),
                Past::Marker(version) => (None, *version),
            });
            for (position, (revision, version)) in current.into_iter().chain(past).enumerate() {
                listed.push(Listed {
                    key: key.to_owned(),
                    version_id: version_id(version),
                    is_latest: position == 0,
                    revision: revision.cloned(),
                });
            }
        }
        listed
    }

    /// Leaves a key of no bytes with the name of the folder of `key`, if nothing else is in it.
    pub(super) fn leave_folder(&mut self, key: &str, at: DateTime<Utc>) {
        let Some(end) = key.rfind('/').filter(|end| end + 1 < key.len()) else { return };
        let folder = &key[..=end];
        let mut rest = self.current.range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        if !rest.next().is_some_and(|(next, _)| next.starts_with(folder)) {
            self.put(folder, Revision::with_body(Bytes::new(), Some(at)));
        }
    }

    /// Writes an object and gives its version id, if the bucket has versions.
    pub(super) fn put(&mut self, key: &str, mut revision: Revision) -> Option<String> {
        revision.version = self.next_version();
        if self.versioning == VersioningState::Unversioned {
            self.current.insert(key.into(), revision);
            return None;
        }
        self.retire_current(key);
        let id = revision.version_id();
        self.current.insert(key.into(), revision);
        Some(id)
    }

    /// Deletes as a client does that names no version.
    pub(super) fn delete(&mut self, key: &str) -> Deletion {
        if self.versioning == VersioningState::Unversioned {
            self.current.remove(key);
            return Deletion::Removed;
        }
        let version = self.next_version();
        self.retire_current(key);
        self.past.entry(key.into()).or_default().push(Past::Marker(version));
        Deletion::Marked(version_id(version))
    }

    /// Deletes one version for good, and brings back what lay under it.
    pub(super) fn delete_version(&mut self, key: &str, id: &str) {
        if self.current.get(key).is_some_and(|revision| revision.version_id() == id) {
            self.current.remove(key);
        }
        let Some(past) = self.past.get_mut(key) else { return };
        past.retain(|past| version_id(past.version()) != id);
        if !self.current.contains_key(key)
            && let Some(Past::Object(_)) = past.last()
            && let Some(Past::Object(revision)) = past.pop()
        {
            self.current.insert(key.into(), revision);
        }
        if past.is_empty() {
            self.past.remove(key);
        }
    }

    /// The first key at or after `from`: with its object, or with none where only a delete marker is left and
    /// `also_marked` asks for those too.
    pub(super) fn next_key(&self, from: Bound<&str>, also_marked: bool) -> Option<(&str, Option<&Revision>)> {
        let range = (from, Bound::Unbounded);
        let object = self.current.range::<str, _>(range).next().map(|(key, revision)| (key.as_ref(), Some(revision)));
        if !also_marked {
            return object;
        }
        let mut past = self.past.range::<str, _>(range);
        let marked =
            past.find(|(_, past)| matches!(past.last(), Some(Past::Marker(_)))).map(|(key, _)| (key.as_ref(), None));
        // A key that was written again after its marker is in both maps; of two equal keys the first, the object, is taken.
        [object, marked].into_iter().flatten().min_by_key(|(key, _)| *key)
    }

    pub(super) fn begin_upload(&mut self, key: String, initiated_at: DateTime<Utc>) -> String {
        self.last_upload += 1;
        let id = format!("upload-{}", self.last_upload);
        let (extras, parts) = (Extras::default(), BTreeMap::new());
        self.uploads.push(Upload { key, id: id.clone(), initiated_at, extras, parts });
        id
    }

    pub(super) fn upload(&mut self, key: &str, id: &str) -> Option<&mut Upload> {
        self.uploads.iter_mut().find(|upload| upload.key == key && upload.id == id)
    }

    /// One version of a key.
    pub(super) fn version(&self, key: &str, id: &str) -> Option<&Revision> {
        let past = self.past.get(key).into_iter().flatten().filter_map(|past| match past {
            Past::Object(revision) => Some(revision),
            Past::Marker(_) => None,
        });
        self.current.get(key).into_iter().chain(past).find(|revision| revision.version_id() == id)
    }

    /// Whether there was such an upload.
    pub(super) fn abort_upload(&mut self, key: &str, id: &str) -> bool {
        let before = self.uploads.len();
        self.uploads.retain(|upload| upload.key != key || upload.id != id);
        self.uploads.len() < before
    }

    fn next_version(&mut self) -> u32 {
        match self.versioning {
            VersioningState::Unversioned | VersioningState::Suspended => NULL_VERSION,
            VersioningState::Enabled => {
                self.last_version += 1;
                self.last_version
            }
        }
    }

    /// Moves the current object under what comes next. A suspended bucket has one `null` version at most, so there what
    /// comes next replaces it.
    fn retire_current(&mut self, key: &str) {
        let is_replaced = |version| self.versioning == VersioningState::Suspended && version == NULL_VERSION;
        if let Some(past) = self.past.get_mut(key) {
            past.retain(|past| !is_replaced(past.version()));
        }
        if let Some(revision) = self.current.remove(key)
            && !is_replaced(revision.version)
        {
            self.past.entry(key.into()).or_default().push(Past::Object(revision));
        }
    }
}
