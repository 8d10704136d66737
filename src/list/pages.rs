//! Our own paging loop: every page is checked against the one before it.
//!
//! Invariant: a listing ends only where the store says that nothing is truncated. A truncated page without a token, a
//! repeated token, keys out of order or outside the prefix are errors, each of which has been seen on a real server.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use crate::model::Timestamp;
use crate::s3::{Page, PageRequest, ReadStore, StoreError, retry};

const LIST: &str = "ListObjectsV2";

/// Reads the pages of one listing, in order.
pub struct Pages<'s> {
    store: &'s dyn ReadStore,
    stop: &'s CancellationToken,
    request: PageRequest,
    tokens: HashSet<u64>,
    last: Option<String>,
    first_date: Option<Timestamp>,
    is_finished: bool,
}

impl<'s> Pages<'s> {
    /// Starts a listing of `prefix`.
    pub fn new(store: &'s dyn ReadStore, prefix: &str, by_delimiter: bool, stop: &'s CancellationToken) -> Self {
        let request = PageRequest { prefix: prefix.to_owned(), by_delimiter, token: None };
        Self { store, stop, request, tokens: HashSet::new(), last: None, first_date: None, is_finished: false }
    }

    /// The store's clock when it answered the first page.
    pub fn first_date(&self) -> Option<Timestamp> {
        self.first_date
    }

    /// The next page, or `None` after the last.
    ///
    /// - Errors: [`StoreError`]; the listing is then void as a whole.
    pub async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        if self.is_finished {
            return Ok(None);
        }
        let page = retry::read_with_retries(self.stop, || async {
            let page = self.store.page(&self.request).await?;
            self.check(&page).map_err(|what| StoreError::malformed(LIST, what))?;
            Ok(page)
        })
        .await?;
        self.first_date.get_or_insert(page.date);
        let last_of_page =
            [page.objects.last().map(|object| object.key.as_str()), page.prefixes.last().map(String::as_str)];
        if let Some(last) = last_of_page.into_iter().flatten().max() {
            self.last = Some(last.to_owned());
        }
        if page.is_truncated {
            self.tokens.extend(page.next_token.as_deref().map(fingerprint));
            self.request.token.clone_from(&page.next_token);
        } else {
            self.is_finished = true;
        }
        Ok(Some(page))
    }

    fn check(&self, page: &Page) -> Result<(), String> {
        let keys = page.objects.iter().map(|object| object.key.as_str());
        check_order(keys, &self.request.prefix, self.last.as_deref())?;
        check_order(page.prefixes.iter().map(String::as_str), &self.request.prefix, self.last.as_deref())?;
        if !self.request.by_delimiter && !page.prefixes.is_empty() {
            return Err("it rolls keys up into prefixes without being asked to".into());
        }
        if !page.is_truncated {
            return Ok(());
        }
        let Some(token) = &page.next_token else {
            return Err("it is truncated and has no token for the next page".into());
        };
        if self.tokens.contains(&fingerprint(token)) {
            return Err("it repeats a token, so its pages would never end".into());
        }
        Ok(())
    }
}

/// Tokens are long; eight bytes of each are enough to notice one that comes back.
fn fingerprint(token: &str) -> u64 {
    let hash = crate::model::Sha256Hash::of(token.as_bytes()).0;
    u64::from_be_bytes(hash[..8].try_into().expect("a hash has 32 bytes"))
}

fn check_order<'k>(keys: impl Iterator<Item = &'k str>, prefix: &str, last: Option<&str>) -> Result<(), String> {
    let mut before = last;
    for key in keys {
        if !key.starts_with(prefix) {
            return Err("it lists a key outside the prefix that was asked for".into());
        }
        if before.is_some_and(|before| key <= before) {
            return Err("its keys are not in ascending order".into());
        }
        before = Some(key);
    }
    Ok(())
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
