//! What a report tells of the messages that were sent about its run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Summary;
use crate::config::Event;
use crate::model::{Timestamp, visible};

/// What was told of a run, and to whom it could not be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeReport {
    /// What there was to tell.
    pub events: Vec<Event>,
    /// What became of the message; null where there was nothing to tell or no webhook.
    pub webhook: Option<Delivery>,
    /// Messages of earlier runs that nobody took and that no report has told: heartbeats, which are sent after their report.
    pub undelivered_before: Vec<Undelivered>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Whether it was taken.
    pub delivered: bool,
    /// How often it was sent.
    pub attempts: u32,
    /// Why it was not taken.
    pub error: Option<String>,
}

/// A message of an earlier run that nobody took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undelivered {
    /// The run that it was about; null where that cannot be read.
    pub run_id: Option<Uuid>,
    /// `webhook` or `heartbeat`.
    pub channel: String,
    /// When it was given up.
    pub at: Timestamp,
    /// Why.
    pub error: String,
}

/// What a person should know of messages that nobody took; empty where all were taken.
pub fn undelivered(summary: &Summary) -> Vec<String> {
    let Some(notice) = &summary.notice else { return Vec::new() };
    let of_this_run = notice.webhook.as_ref().and_then(|webhook| webhook.error.as_ref()).map(|error| {
        let events: Vec<&str> = notice.events.iter().map(|event| event.as_str()).collect();
        format!("The webhook did not take the message of this run ({}): {}.", events.join(", "), visible(error))
    });
    let before = notice.undelivered_before.first().map(|newest| {
        let (channel, at) = (visible(&newest.channel), super::csv::time(newest.at));
        format!(
            "{} of earlier runs reached nobody, the newest a {channel} at {at}: {}.",
            super::text::words::counted(notice.undelivered_before.len() as u64, "message", "messages"),
            visible(&newest.error)
        )
    });
    of_this_run.into_iter().chain(before).collect()
}
