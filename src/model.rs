//! The nouns that every step shares: ids, keys, groups, clocks' readings.
//!
//! Each is built in one checked place. Keys stay exactly as the store listed them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A moment in UTC.
pub type Timestamp = DateTime<Utc>;

/// The id of a dataset: what a prefix names and what a row keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DatasetId(pub Uuid);

impl DatasetId {
    /// Reads any spelling of a UUID: upper case, braced, urn, unhyphenated. Lenient, so for protecting only.
    pub fn parse_lenient(text: &str) -> Option<Self> {
        Uuid::try_parse(text.trim()).ok().map(Self)
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The id of one run: a `UUIDv7`, so that names sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new id, made from the host's clock reading `now`.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let context = uuid::ContextV7::new();
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(&context, seconds, now.timestamp_subsec_nanos())))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A key of the bucket, byte for byte as listed: never trimmed, joined or normalised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Takes a key as it was listed.
    pub fn new(listed: impl Into<String>) -> Self {
        Self(listed.into())
    }

    /// The key, exactly.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an XML 1.0 document can carry this key through a parser unchanged.
    ///
    /// A raw CR becomes LF in any parser, which would name another key.
    pub fn is_xml_safe(&self) -> bool {
        self.0.chars().all(|c| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..))
    }
}

/// One current object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: ObjectKey,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The entity tag, as listed.
    pub etag: String,
    /// When the store says it was last written; `None` where it says nothing.
    pub last_modified: Option<Timestamp>,
}

impl Object {
    /// When the object was written, if that can be believed: a missing time or one before S3 existed proves no age.
    pub fn credible_last_modified(&self) -> Option<Timestamp> {
        self.last_modified.filter(|time| time.year() >= 2006)
    }
}

/// SHA-256, shown as lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Hash(pub [u8; 32]);

impl Sha256Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut hash = [0_u8; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected 64 lowercase hexadecimal digits"))
    }
}

/// One dataset prefix of the listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The id that the prefix names.
    pub id: DatasetId,
    /// Index of the pattern that read it.
    pub pattern: u8,
    /// The prefix as listed, where it is an odd spelling of the id; `None` where the pattern and the id spell it.
    pub odd_spelling: Option<Box<str>>,
}

impl Group {
    /// Whether the prefix is spelled exactly as the pattern writes the canonical id: only such a group can be deleted.
    pub fn is_canonical(&self) -> bool {
        self.odd_spelling.is_none()
    }
}

/// How many objects a chunk of a [`GroupContent`] covers: one delete request names at most as many.
pub const CHUNK_OBJECTS: usize = 1000;

/// What is known of a group's content after every page of it was read; no object is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupContent {
    /// Objects that the store lists now.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest credible `LastModified`.
    pub oldest: Option<Timestamp>,
    /// The newest credible `LastModified`.
    pub newest: Option<Timestamp>,
    /// Whether some object has no credible `LastModified`, so that the group's age is unknown.
    pub has_unknown_age: bool,
    /// The digest over key, size, `ETag` and `LastModified` of every object, in key order.
    pub digest: Sha256Hash,
    /// The digest of each [`CHUNK_OBJECTS`] objects, in order.
    pub chunks: Vec<Sha256Hash>,
}

/// Builds a [`GroupContent`] from its chunks, in order.
#[derive(Debug)]
pub struct ContentBuilder(GroupContent);

impl Default for ContentBuilder {
    fn default() -> Self {
        Self(GroupContent {
            objects: 0,
            bytes: 0,
            oldest: None,
            newest: None,
            has_unknown_age: false,
            digest: Sha256Hash([0; 32]),
            chunks: Vec::new(),
        })
    }
}

impl ContentBuilder {
    /// Adds a chunk: objects that are `listed`, those that are `gone` by our own deletion, and the digest over both.
    ///
    /// What is gone counts for age and digest, not for the totals.
    pub fn add_chunk(&mut self, listed: &[Object], gone: &[Object], digest: Sha256Hash) {
        let content = &mut self.0;
        for object in listed.iter().chain(gone) {
            match object.credible_last_modified() {
                Some(time) => {
                    content.oldest = Some(content.oldest.map_or(time, |oldest| oldest.min(time)));
                    content.newest = Some(content.newest.map_or(time, |newest| newest.max(time)));
                }
                None => content.has_unknown_age = true,
            }
        }
        content.objects += listed.len() as u64;
        content.bytes = listed.iter().fold(content.bytes, |bytes, object| bytes.saturating_add(object.size_bytes));
        content.chunks.push(digest);
    }

    /// The content, once every chunk was added.
    pub fn finish(mut self) -> GroupContent {
        let mut whole = Sha256::new();
        for chunk in &self.0.chunks {
            whole.update(chunk.0);
        }
        self.0.digest = Sha256Hash(whole.finalize().into());
        self.0
    }
}

/// The digest of up to [`CHUNK_OBJECTS`] consecutive objects.
#[derive(Debug, Default)]
pub struct ChunkDigest {
    hash: Sha256,
    objects: usize,
}

impl ChunkDigest {
    /// Adds the next object: every field is length-prefixed, so that no two different objects hash alike.
    pub fn add(&mut self, object: &Object) {
        let field = |hash: &mut Sha256, bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(&mut self.hash, object.key.as_str().as_bytes());
        field(&mut self.hash, &object.size_bytes.to_be_bytes());
        field(&mut self.hash, object.etag.as_bytes());
        match object.last_modified {
            Some(time) => field(&mut self.hash, &time.timestamp_millis().to_be_bytes()),
            None => field(&mut self.hash, b""),
        }
        self.objects += 1;
    }

    /// How many objects were added.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// The digest.
    pub fn finish(self) -> Sha256Hash {
        Sha256Hash(self.hash.finalize().into())
    }
}

/// How long an orphan is left alone, counted both from its newest object's `LastModified` and from the first complete
/// scan that saw it as an orphan.
///
/// - Unit: whole seconds. Source: `scope.policy.grace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(pub Duration);

impl Grace {
    /// The shortest grace without `unsafe_short_grace`: a day, longer than any upload.
    pub const FLOOR: Duration = Duration::from_secs(24 * 3600);

    /// The grace as a signed span, for arithmetic on timestamps.
    pub fn span(self) -> chrono::Duration {
        chrono::Duration::from_std(self.0).unwrap_or(chrono::Duration::MAX)
    }
}

/// One row of a live table.
#[derive(Debug, Clone, Copy)]
pub struct LiveRow {
    /// The id that it keeps alive.
    pub id: DatasetId,
    /// Index of its table.
    pub table: usize,
    /// When it was made, where that is known.
    pub created_at: Option<Timestamp>,
    /// Whether it should have objects.
    pub expects_objects: bool,
}

/// Which transactions a read of the database saw: those before `xmin`, and those before `xmax` that were not in progress.
///
/// - Source: `pg_current_snapshot()`, as `xmin:xmax:xip,…`. Numbers of transactions never come back in one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// Reads what the database says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, list) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let numbers = list.split(',').filter(|number| !number.is_empty()).map(|number| number.parse().ok());
        let in_progress = numbers.collect::<Option<Vec<u64>>>()?;
        (parts.next().is_none() && xmin <= xmax).then_some(Self { xmin, xmax, in_progress })
    }

    /// The first transaction that it may not have seen.
    pub fn first_unseen(&self) -> u64 {
        self.xmin
    }

    /// The first transaction that had not begun: it never comes back in one timeline.
    pub fn end(&self) -> u64 {
        self.xmax
    }

    /// Whether it saw what transaction `xid`, which is committed by now, did.
    pub fn saw(&self, xid: u64) -> bool {
        xid < self.xmin || xid < self.xmax && !self.in_progress.contains(&xid)
    }
}

impl TryFrom<String> for Snapshot {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("expected a snapshot, `xmin:xmax:xip,…`")
    }
}

impl From<Snapshot> for String {
    fn from(snapshot: Snapshot) -> Self {
        let numbers: Vec<String> = snapshot.in_progress.iter().map(ToString::to_string).collect();
        format!("{}:{}:{}", snapshot.xmin, snapshot.xmax, numbers.join(","))
    }
}

/// Which database was read: what a restore, a failover or a swapped table changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseIdentity {
    /// The cluster: Postgres's system identifier, `SQLite`'s file.
    pub system: String,
    /// The timeline, which a promotion or a point-in-time recovery changes.
    pub timeline: String,
    /// The database's name.
    pub database: String,
    /// Each live table and its object id.
    pub tables: Vec<TableIdentity>,
}

/// Which table was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableIdentity {
    /// Its qualified name.
    pub name: String,
    /// Its object id, which a swapped table changes.
    pub oid: i64,
}

impl TableIdentity {
    /// Whether it is of the table with this qualified name, whichever column its ids are read from.
    #[must_use]
    pub fn is_of(&self, table: &str) -> bool {
        self.name.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
    }
}

impl TableIdentity {
    /// Its qualified name without the column.
    #[must_use]
    pub fn table(&self) -> &str {
        self.name.rsplit_once(" (").map_or(&self.name, |(table, _)| table)
    }
}

impl DatabaseIdentity {
    /// Whether both are of one database on one timeline, whichever tables were read.
    #[must_use]
    pub fn is_same_database(&self, other: &Self) -> bool {
        (&self.system, &self.timeline, &self.database) == (&other.system, &other.timeline, &other.database)
    }
}

impl fmt::Display for DatabaseIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database `{}` of system {} on timeline {}", self.database, self.system, self.timeline)?;
        self.tables.iter().try_for_each(|table| write!(f, ", {} (oid {})", table.name, table.oid))
    }
}

/// Transactions that may hold rows which nobody sees yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenTransactions {
    /// None that could have written, or this one is the oldest.
    Since(Option<Timestamp>),
    /// Our role may not see them.
    Hidden,
}

/// A line of `deletions.csv`.
#[derive(Debug, Clone)]
pub struct DeletionRow {
    /// The key.
    pub key: String,
    /// The group's prefix.
    pub group: String,
    /// Its bytes.
    pub bytes: u64,
    /// What became of it.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// The batch that asked for it; 0: none.
    pub batch: u64,
}

/// Whether a bucket keeps old versions, which decides what a deletion means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Versioning {
    /// A deletion frees the space and cannot be undone.
    Unversioned,
    /// A deletion adds a marker and frees nothing.
    Enabled,
    /// A deletion adds a null marker; older versions stay.
    Suspended,
    /// The store did not say.
    Unknown,
}

/// Whether a run may change anything outside the ledger and the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deletes what every rule lets go.
    Live,
    /// Goes the same way up to the first intent and writes none.
    DryRun,
}

/// Shows hostile text in a terminal, a table or a page: control and bidirectional characters as `\u{…}`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (position, c) in text.char_indices() {
        // A text that looks like an escape already is told from one, so that every text can be read back.
        let is_escape_like = text[position..].starts_with("\\u{");
        let is_bidirectional =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let is_invisible = matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        );
        if c.is_control() || is_bidirectional || is_invisible || is_escape_like {
            shown.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A number of bytes as a person reads it, in powers of 1024, with one decimal.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10) as usize;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let scaled = bytes as f64 / 1024_f64.powi(i32::try_from(exponent).unwrap_or(0));
    format!("{scaled:.1} {}", UNITS[exponent])
}

/// A whole number with thousands separators.
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_what_it_saw_and_reads_nothing_else() {
        let snapshot = Snapshot::parse("10:20:12,15").expect("a snapshot");
        let saw: Vec<u64> = (8..22).filter(|xid| snapshot.saw(*xid)).collect();
        assert_eq!(saw, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
        assert_eq!(Snapshot::parse("10:10:").map(String::from).as_deref(), Some("10:10:"));
        for text in ["", "10", "10:20", "20:10:", "10:20:x", "10:20:12:", "-1:20:"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn keys_that_xml_cannot_carry_are_known() {
        for safe in ["a b", "a\tb", "a\nb", "ü", "😀", "a+%&<>'\"", "\u{fffd}"] {
            assert!(ObjectKey::new(safe).is_xml_safe(), "{safe:?}");
        }
        for unsafe_key in ["a\rb", "\u{1}", "\u{1f}", "\u{fffe}", "\u{ffff}", "\u{0}"] {
            assert!(!ObjectKey::new(unsafe_key).is_xml_safe(), "{unsafe_key:?}");
        }
    }

    #[test]
    fn hostile_text_is_shown_escaped() {
        assert_eq!(visible("a\u{1b}[31m\u{202e}b\r\n"), "a\\u{1b}[31m\\u{202e}b\\u{d}\\u{a}");
        assert_eq!(visible("plain ü 😀 \\n"), "plain ü 😀 \\n");
        assert_eq!(visible("\\u{1b}"), "\\u{5c}u{1b}", "what looks escaped is told from what is");
    }

    #[test]
    fn counts_and_sizes_read_well() {
        assert_eq!(human_count(0), "0");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1_234_567), "1,234,567");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn digest_sees_every_field_and_the_order() {
        let object = |key: &str, size_bytes, etag: &str, millis| Object {
            key: ObjectKey::new(key),
            size_bytes,
            etag: etag.into(),
            last_modified: DateTime::from_timestamp_millis(millis),
        };
        let digest = |objects: &[Object]| {
            let mut chunk = ChunkDigest::default();
            objects.iter().for_each(|object| chunk.add(object));
            chunk.finish()
        };
        let base = [object("a", 1, "x", 1), object("b", 2, "y", 2)];
        let same = digest(&base);
        assert_eq!(same, digest(&base.clone()));
        assert_ne!(same, digest(&base[..1]));
        for changed in [object("A", 1, "x", 1), object("a", 2, "x", 1), object("a", 1, "z", 1), object("a", 1, "x", 9)]
        {
            assert_ne!(same, digest(&[changed, base[1].clone()]));
        }
        assert_ne!(same, digest(&[base[1].clone(), base[0].clone()]));
    }
}
