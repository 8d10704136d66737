//! Watches one request and its reply on the wire: the store's `Date`, whether the body came whole, and whether the
//! proof behind a deletion was still young when the request left.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use crate::clock::Stopwatch;
use crate::model::Timestamp;

/// What was seen of one reply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The `Date` header.
    pub date: Option<Timestamp>,
    /// Whether the body ended with its closing tag.
    pub is_whole: bool,
    /// Whether the request was held back because its proof was too old.
    pub is_held_back: bool,
}

/// Watches one request. Clones share what they saw.
#[derive(Debug, Clone)]
pub struct Witness {
    closing_tag: &'static str,
    send_within: Option<(Stopwatch, Duration)>,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    /// A witness of a reply whose body must end with `closing_tag`.
    pub fn of(closing_tag: &'static str) -> Self {
        Self { closing_tag, send_within: None, seen: Arc::default() }
    }

    /// Holds the request back if `proof` is older than `limit` when it is about to leave.
    pub fn send_within(mut self, proof: Stopwatch, limit: Duration) -> Self {
        self.send_within = Some((proof, limit));
        self
    }

    /// What it saw.
    pub fn seen(&self) -> Seen {
        *self.seen.lock()
    }
}

impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match self.send_within {
            Some((proof, limit)) if proof.elapsed() > limit => {
                self.seen.lock().is_held_back = true;
                Err("the proof is too old".into())
            }
            _ => Ok(()),
        }
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let mut seen = self.seen.lock();
        seen.date = response.headers().get("date").and_then(read_date);
        let body = response.body().bytes().unwrap_or_default();
        seen.is_whole = body.trim_ascii_end().ends_with(self.closing_tag.as_bytes());
        Ok(())
    }
}

fn read_date(header: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(header).ok().map(|date| date.with_timezone(&Utc))
}
