//! A page of a listing: which keys and common prefixes it shows, and where the next one begins.
//!
//! Takes a bucket and a query; gives a page. Invariant: a common prefix costs one seek, however many objects are under
//! it, and `is_truncated` is true only if there really is more.

use std::borrow::Cow;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::state::{Bucket, Revision};

/// What MinIO leaves as it is under `encoding-type=url`; the space is turned into a plus afterwards.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/').remove(b'*').remove(b' ');

/// How keys are spelled in the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Url,
}

impl Encoding {
    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Self::Raw => text.to_owned(),
            Self::Url => utf8_percent_encode(text, ENCODED).to_string().replace(' ', "+"),
        }
    }
}

/// The last thing that a page showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    /// The next page begins with the first key after this one.
    Key(String),
    /// The next page begins with the first key after all those under this prefix.
    Prefix(String),
}

impl Marker {
    pub(super) fn to_token(&self) -> String {
        let (kind, text) = match self {
            Self::Key(key) => ('k', key),
            Self::Prefix(prefix) => ('p', prefix),
        };
        URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
    }

    pub(super) fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }
}

/// What a listing asks for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) after: Option<Marker>,
    pub(super) max_keys: usize,
    /// Whether prefixes are shown under which only delete markers are left.
    pub(super) shows_emptied_prefixes: bool,
}

/// An object as a listing shows it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size_bytes: u64,
    pub(super) last_modified: Option<DateTime<Utc>>,
    pub(super) e_tag: String,
}

/// One page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Listed>,
    pub(super) common_prefixes: Vec<String>,
    pub(super) last: Option<Marker>,
    pub(super) is_truncated: bool,
}

impl Page {
    fn entry_count(&self) -> usize {
        self.objects.len() + self.common_prefixes.len()
    }

    fn push(&mut self, key: &str, revision: &Revision) {
        self.objects.push(Listed {
            key: key.to_owned(),
            size_bytes: revision.size_bytes,
            last_modified: revision.last_modified,
            e_tag: revision.e_tag(key),
        });
        self.last = Some(Marker::Key(key.to_owned()));
    }

    fn push_prefix(&mut self, prefix: &str) {
        self.common_prefixes.push(prefix.to_owned());
        self.last = Some(Marker::Prefix(prefix.to_owned()));
    }
}

/// Reads one page of `bucket`.
pub(super) fn page(bucket: &Bucket, query: &Query) -> Page {
    let mut page = Page::default();
    if query.max_keys == 0 {
        return page;
    }
    let Some(mut from) = first_bound(query) else { return page };
    let also_marked = query.delimiter.is_some() && query.shows_emptied_prefixes;
    while let Some((key, revision)) = bucket.next_key(from.as_ref().map(AsRef::as_ref), also_marked) {
        if !key.starts_with(&query.prefix) {
            break;
        }
        let common_prefix = common_prefix(key, query);
        if common_prefix.is_none() && revision.is_none() {
            from = Bound::Excluded(Cow::Borrowed(key));
            continue;
        }
        if page.entry_count() == query.max_keys {
            page.is_truncated = true;
            break;
        }
        from = match (common_prefix, revision) {
            (Some(prefix), _) => {
                page.push_prefix(prefix);
                let Some(next) = successor(prefix) else { break };
                Bound::Included(Cow::Owned(next))
            }
            (None, revision) => {
                page.push(key, revision.expect("a key without an object was skipped above"));
                Bound::Excluded(Cow::Borrowed(key))
            }
        };
    }
    page
}

/// Where the page begins; `None` if nothing can come after its marker.
fn first_bound<'a>(query: &Query) -> Option<Bound<Cow<'a, str>>> {
    let start = match &query.after {
        None => Bound::Included(String::new()),
        Some(Marker::Key(key)) => Bound::Excluded(key.clone()),
        Some(Marker::Prefix(prefix)) => Bound::Included(successor(prefix)?),
    };
    let is_before_prefix = match &start {
        Bound::Included(text) | Bound::Excluded(text) => *text < query.prefix,
        Bound::Unbounded => true,
    };
    let start = if is_before_prefix { Bound::Included(query.prefix.clone()) } else { start };
    Some(start.map(Cow::Owned))
}

fn common_prefix<'a>(key: &'a str, query: &Query) -> Option<&'a str> {
    let delimiter = query.delimiter.as_ref()?;
    let at = key[query.prefix.len()..].find(delimiter)?;
    Some(&key[..query.prefix.len() + at + delimiter.len()])
}

/// The smallest text that is greater than every text that starts with `prefix`.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The order of UTF-8 bytes is the order of code points, and a range of `char` steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}
