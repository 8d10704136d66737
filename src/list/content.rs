//! Opens a group: every page of its objects, merged with what our own journal says we asked to delete.
//!
//! Invariant: no object is kept beyond its chunk; our own deletions are no change, so an interrupted deletion can be
//! resumed by the same plan; anybody else's change shows in the digest.

use std::collections::VecDeque;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::pages::Pages;
use crate::clock::Stopwatch;
use crate::model::{CHUNK_OBJECTS, ChunkDigest, ContentBuilder, GroupContent, Object, ObjectKey, Sha256Hash};
use crate::s3::{ReadStore, StoreError};

/// The keys that our journal says were sent to be deleted, as they were listed then.
#[async_trait]
pub trait SentIntents: Send + Sync {
    /// Up to 1000 of the keys under `prefix` that come after `key`, in key order.
    async fn sent_after(
        &self,
        prefix: &str,
        key: Option<&ObjectKey>,
    ) -> Result<Vec<Object>, crate::record::RecordError>;
}

/// Why a group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
}

/// Up to [`CHUNK_OBJECTS`] objects of a group, in key order.
#[derive(Debug)]
pub struct Chunk {
    /// Those that the store lists.
    pub listed: Vec<Object>,
    /// Those that only our journal knows: we asked for their deletion, and they are gone.
    pub gone: Vec<Object>,
    /// The digest over both.
    pub digest: Sha256Hash,
    /// Runs since before the oldest page was asked for that one of the listed stood on: a page that outlasts a chunk may
    /// wait long for the next.
    pub asked: Stopwatch,
}

/// Reads a group chunk by chunk.
pub struct Chunks<'s> {
    prefix: String,
    pages: Pages<'s>,
    listed: VecDeque<Object>,
    page_asked: Stopwatch,
    is_listed: bool,
    intents: Option<&'s dyn SentIntents>,
    sent: VecDeque<Object>,
    last_sent: Option<ObjectKey>,
}

impl<'s> Chunks<'s> {
    /// Starts reading the group at `prefix`.
    pub fn new(
        store: &'s dyn ReadStore,
        prefix: &str,
        intents: Option<&'s dyn SentIntents>,
        stop: &'s CancellationToken,
    ) -> Self {
        Self {
            prefix: prefix.to_owned(),
            pages: Pages::new(store, prefix, false, stop),
            listed: VecDeque::new(),
            page_asked: Stopwatch::start(),
            is_listed: false,
            intents,
            sent: VecDeque::new(),
            last_sent: None,
        }
    }

    /// The next chunk, or `None` after the last.
    ///
    /// - Errors: [`ContentError`]; what was read so far then proves nothing.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ContentError> {
        let mut digest = ChunkDigest::default();
        let (mut listed_of_chunk, mut gone, mut asked) = (Vec::new(), Vec::new(), None);
        while digest.objects() < CHUNK_OBJECTS {
            self.fill().await?;
            let is_gone = match (self.listed.front(), self.sent.front()) {
                (None, None) => break,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (Some(listed), Some(sent)) if listed.key == sent.key => {
                    // Still there, or written again since: the listing is what counts.
                    self.sent.pop_front();
                    false
                }
                (Some(listed), Some(sent)) => sent.key < listed.key,
            };
            let source = if is_gone { &mut self.sent } else { &mut self.listed };
            let object = source.pop_front().expect("the match saw its front");
            digest.add(&object);
            if is_gone {
                gone.push(object);
            } else {
                // Pages come in order, so the first of a chunk stands on its oldest.
                asked.get_or_insert(self.page_asked);
                listed_of_chunk.push(object);
            }
        }
        if digest.objects() == 0 {
            return Ok(None);
        }
        let asked = asked.unwrap_or_else(Stopwatch::start);
        Ok(Some(Chunk { listed: listed_of_chunk, gone, digest: digest.finish(), asked }))
    }

    async fn fill(&mut self) -> Result<(), ContentError> {
        while self.listed.is_empty() && !self.is_listed {
            self.page_asked = Stopwatch::start();
            match self.pages.next().await? {
                Some(page) => self.listed.extend(page.objects),
                None => self.is_listed = true,
            }
        }
        if self.sent.is_empty()
            && let Some(intents) = self.intents
        {
            let more = intents.sent_after(&self.prefix, self.last_sent.as_ref()).await?;
            match more.last() {
                Some(last) => self.last_sent = Some(last.key.clone()),
                None => self.intents = None,
            }
            self.sent.extend(more);
        }
        Ok(())
    }
}

/// Reads a whole group.
///
/// - Errors: [`ContentError`]; the group is then unknown, and kept.
pub async fn open(
    store: &dyn ReadStore,
    prefix: &str,
    intents: Option<&dyn SentIntents>,
    stop: &CancellationToken,
    mut progress: impl FnMut(usize),
) -> Result<GroupContent, ContentError> {
    let mut chunks = Chunks::new(store, prefix, intents, stop);
    let mut content = ContentBuilder::default();
    while let Some(chunk) = chunks.next().await? {
        progress(chunk.listed.len());
        content.add_chunk(&chunk.listed, &chunk.gone, chunk.digest);
    }
    Ok(content.finish())
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
