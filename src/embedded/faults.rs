//! What goes wrong on purpose: rules that say which request fails and how.
//!
//! Takes a request as it arrived; gives the effects that the server and the S3 operations then act out. Invariant: of
//! the rules that decide the whole reply at most one is used up by a request, so that two such rules injected one after
//! the other happen one after the other.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::request::{Operation, RecordedRequest};

/// A rule: how requests of one kind go wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The operation that the rule is about.
    pub operation: Operation,
    /// Which requests of that operation it hits.
    pub when: When,
    /// What happens to them.
    pub action: Action,
}

/// Which of the requests of one operation a fault hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// The first that many; then the rule is gone.
    Times(usize),
    /// Only that one, counted from 1 since the rule was injected.
    Nth(usize),
    /// A listing of exactly this prefix, or a request that names a key that starts with it.
    ForPrefix(String),
}

/// Where a reply that is cut short ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No `Content-Length`, `Connection: close`, and a clean end: a client cannot see that anything is missing.
    CloseDelimited,
    /// The `Content-Length` of the whole body, then the connection ends early.
    ContentLength,
}

/// What happens to a request that a fault hits.
///
/// `Status`, `StatusAfter`, `CutBody`, `DropConnection` and `DropAfter` decide the whole reply, and the oldest such rule
/// that matches does; every other action adds to whatever else happens.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answers with an error document and executes nothing.
    Status {
        /// The HTTP status, which may be 200.
        code: u16,
        /// The `Code` in the error document.
        s3_code: &'static str,
    },
    /// Executes the request, then answers with an error document.
    StatusAfter {
        /// The HTTP status, which may be 200.
        code: u16,
        /// The `Code` in the error document.
        s3_code: &'static str,
    },
    /// Executes the request and sends only the start of the reply's body.
    CutBody {
        /// How much of the body is sent.
        keep_bytes: usize,
        /// How the reply ends.
        framing: Framing,
    },
    /// Waits, then executes and answers as usual, even if the client has hung up meanwhile.
    Hang(Duration),
    /// Closes the connection and executes nothing.
    DropConnection,
    /// Executes the request and closes the connection without a reply.
    DropAfter,
    /// `DeleteObjects`: an `Error` for each of these keys inside the reply, and they stay. `DeleteObject`: an error.
    PerKeyError {
        /// The `Code` of the per-key error.
        code: &'static str,
        /// Part of the keys that are hit; an empty text hits all.
        keys_containing: String,
    },
    /// `DeleteObjects` and `DeleteObject`: these keys stay, refused as MinIO refuses what object lock holds.
    Locked {
        /// Part of the keys that are hit; an empty text hits all.
        keys_containing: String,
    },
    /// `DeleteObjects`: these keys are deleted and the reply does not mention them.
    OmitFromReply {
        /// Part of the keys that are hit; an empty text hits all.
        keys_containing: String,
    },
    /// `DeleteObjects` and `DeleteObject`: the reply says deleted, and these keys stay.
    GhostDelete {
        /// Part of the keys that are hit; an empty text hits all.
        keys_containing: String,
    },
    /// Listing: truncated, and no continuation token.
    TruncatedWithoutToken,
    /// Listing: truncated, and the token is the one that the request came with.
    RepeatToken,
    /// Listing: no `IsTruncated` at all.
    OmitIsTruncated,
    /// Listing: keys and common prefixes in descending order.
    UnorderedKeys,
    /// Listing: this key besides, at its place in the order; `KeyCount` counts it.
    ForeignKey(String),
    /// Listing by delimiter: this common prefix besides, at its place in the order; `KeyCount` counts it.
    EmptiedPrefix(String),
    /// Listing: `KeyCount` is one too high.
    WrongKeyCount,
    /// Listing: keys are not encoded although the request asked for it.
    IgnoreEncodingType,
    /// Listing: empty and complete.
    StaleEmpty,
    /// Listing: the `LastModified` of every object; `None` leaves it out.
    LastModified(Option<DateTime<Utc>>),
    /// `CopyObject` and `UploadPartCopy`: what is written is not what was read, and the reply does not say so.
    DamageCopy(Damage),
    /// The `Date` header of the reply.
    Date(DateTime<Utc>),
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its last byte is another one.
    AlteredByte,
    /// Its last byte is missing.
    CutByte,
    /// The user's metadata are missing.
    LostMetadata,
    /// There is no copy at all.
    NotWritten,
}

/// A fault that decides the whole reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReplyFault {
    Status { code: u16, s3_code: &'static str },
    StatusAfter { code: u16, s3_code: &'static str },
    CutBody { keep_bytes: usize, framing: Framing },
    DropConnection,
    DropAfter,
}

/// What becomes of one key of a deletion, and what the reply says of it.
#[derive(Debug, Clone)]
pub(super) enum DeletionFault {
    PerKeyError { code: &'static str, message: &'static str, keys_containing: String },
    OmitFromReply { keys_containing: String },
    GhostDelete { keys_containing: String },
}

/// A listing that is not what it should be.
#[derive(Debug, Clone)]
pub(super) enum ListingFault {
    TruncatedWithoutToken,
    RepeatToken,
    OmitIsTruncated,
    UnorderedKeys,
    ForeignKey(String),
    EmptiedPrefix(String),
    WrongKeyCount,
    IgnoreEncodingType,
    StaleEmpty,
    LastModified(Option<DateTime<Utc>>),
}

enum Effect {
    Reply(ReplyFault),
    Hang(Duration),
    Deletion(DeletionFault),
    Listing(ListingFault),
    Copy(Damage),
    Date(DateTime<Utc>),
}

impl From<Action> for Effect {
    fn from(action: Action) -> Self {
        match action {
            Action::Status { code, s3_code } => Self::Reply(ReplyFault::Status { code, s3_code }),
            Action::StatusAfter { code, s3_code } => Self::Reply(ReplyFault::StatusAfter { code, s3_code }),
            Action::CutBody { keep_bytes, framing } => Self::Reply(ReplyFault::CutBody { keep_bytes, framing }),
            Action::Hang(delay) => Self::Hang(delay),
            Action::DropConnection => Self::Reply(ReplyFault::DropConnection),
            Action::DropAfter => Self::Reply(ReplyFault::DropAfter),
            Action::PerKeyError { code, keys_containing } => {
                Self::Deletion(DeletionFault::PerKeyError { code, message: "injected fault", keys_containing })
            }
            Action::Locked { keys_containing } => Self::Deletion(DeletionFault::PerKeyError {
                code: "InvalidRequest",
                message: "Object is WORM protected and cannot be overwritten",
                keys_containing,
            }),
            Action::OmitFromReply { keys_containing } => {
                Self::Deletion(DeletionFault::OmitFromReply { keys_containing })
            }
            Action::GhostDelete { keys_containing } => Self::Deletion(DeletionFault::GhostDelete { keys_containing }),
            Action::TruncatedWithoutToken => Self::Listing(ListingFault::TruncatedWithoutToken),
            Action::RepeatToken => Self::Listing(ListingFault::RepeatToken),
            Action::OmitIsTruncated => Self::Listing(ListingFault::OmitIsTruncated),
            Action::UnorderedKeys => Self::Listing(ListingFault::UnorderedKeys),
            Action::ForeignKey(key) => Self::Listing(ListingFault::ForeignKey(key)),
            Action::EmptiedPrefix(prefix) => Self::Listing(ListingFault::EmptiedPrefix(prefix)),
            Action::WrongKeyCount => Self::Listing(ListingFault::WrongKeyCount),
            Action::IgnoreEncodingType => Self::Listing(ListingFault::IgnoreEncodingType),
            Action::StaleEmpty => Self::Listing(ListingFault::StaleEmpty),
            Action::LastModified(time) => Self::Listing(ListingFault::LastModified(time)),
            Action::DamageCopy(damage) => Self::Copy(damage),
            Action::Date(time) => Self::Date(time),
        }
    }
}

/// Everything that goes wrong with one request.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) reply: Option<ReplyFault>,
    pub(super) delay: Duration,
    pub(super) date: Option<DateTime<Utc>>,
    pub(super) deletion: Vec<DeletionFault>,
    pub(super) listing: Vec<ListingFault>,
    pub(super) copy: Option<Damage>,
}

impl Effects {
    fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(fault) => self.reply = Some(fault),
            Effect::Hang(delay) => self.delay += delay,
            Effect::Deletion(fault) => self.deletion.push(fault),
            Effect::Listing(fault) => self.listing.push(fault),
            Effect::Copy(damage) => self.copy = Some(damage),
            Effect::Date(time) => self.date = Some(time),
        }
    }

    /// What the deletion faults make of `key`.
    pub(super) fn deletion_of(&self, key: &str) -> KeyDeletion {
        let mut deletion = KeyDeletion { error: None, keeps: false, is_mentioned: true };
        for fault in &self.deletion {
            match fault {
                DeletionFault::PerKeyError { code, message, keys_containing }
                    if key.contains(keys_containing.as_str()) =>
                {
                    deletion.error = Some((code, message));
                    deletion.keeps = true;
                }
                DeletionFault::OmitFromReply { keys_containing } if key.contains(keys_containing.as_str()) => {
                    deletion.is_mentioned = false;
                }
                DeletionFault::GhostDelete { keys_containing } if key.contains(keys_containing.as_str()) => {
                    deletion.keeps = true;
                }
                DeletionFault::PerKeyError { .. }
                | DeletionFault::OmitFromReply { .. }
                | DeletionFault::GhostDelete { .. } => {}
            }
        }
        deletion
    }
}

/// What becomes of one key that a request asked to delete.
pub(super) struct KeyDeletion {
    /// The code and the message of a refusal.
    pub(super) error: Option<(&'static str, &'static str)>,
    pub(super) keeps: bool,
    pub(super) is_mentioned: bool,
}

struct Rule {
    fault: Fault,
    matched: usize,
}

impl Rule {
    fn fires_for(&mut self, request: &RecordedRequest) -> bool {
        self.matched += 1;
        match &self.fault.when {
            When::Always => true,
            When::Times(count) => self.matched <= *count,
            When::Nth(ordinal) => self.matched == *ordinal,
            When::ForPrefix(prefix) => {
                request.prefix.as_ref() == Some(prefix) || request.keys.iter().any(|key| key.starts_with(prefix))
            }
        }
    }
}

/// The rules, oldest first.
#[derive(Default)]
pub(super) struct FaultPlan(Vec<Rule>);

impl FaultPlan {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.0.push(Rule { fault, matched: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the effects of every rule that hits `request`.
    pub(super) fn take(&mut self, request: &RecordedRequest) -> Effects {
        let mut effects = Effects::default();
        for rule in self.0.iter_mut().filter(|rule| rule.fault.operation == request.operation) {
            let effect = Effect::from(rule.fault.action.clone());
            let is_decided = effects.reply.is_some() && matches!(effect, Effect::Reply(_));
            // `Times` means "that many failures", so a request that fails otherwise must not use one up; `Nth` means
            // "that request", whatever became of those before it.
            if is_decided && !matches!(rule.fault.when, When::Nth(_)) {
                continue;
            }
            if rule.fires_for(request) && !is_decided {
                effects.add(effect);
            }
        }
        effects
    }
}
