//! What callers send, read strictly: an id, a name, a hash, a reason, a size of a page.

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::DatasetId;
use crate::serve::problem::Problem;

/// Longest reason that is kept.
const LONGEST_REASON: usize = 2000;

/// A document whose shape another program of the field describes, or `orphan-sweeper schema`.
#[derive(Debug, Clone, serde::Serialize, ToSchema)]
#[schema(value_type = Object)]
#[serde(transparent)]
pub struct Document(pub Value);

/// A UUID in any spelling.
pub fn id(what: &str, text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::unprocessable(format!("{what} is no UUID")))
}

/// A dataset's id in any spelling.
pub fn dataset(text: &str) -> Result<DatasetId, Problem> {
    DatasetId::parse_lenient(text).ok_or_else(|| Problem::unprocessable("the dataset's id is no UUID"))
}

/// A scope's name, also of one that the configuration has no longer.
pub fn scope_name(text: &str) -> Result<&str, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.is_empty() || text.len() > 200 || !text.bytes().all(is_plain) {
        return Err(Problem::unprocessable("a scope's name has letters, digits, `-` and `_` only"));
    }
    Ok(text)
}

/// A plan's hash, or its beginning of eight digits at least.
pub fn plan_hash(text: &str) -> Result<String, Problem> {
    let is_hash = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        let detail = "a plan's hash has 64 hexadecimal digits, and at least its first 8 are needed";
        return Err(Problem::unprocessable(detail));
    }
    Ok(text.to_lowercase())
}

/// A reason that says something, and fits on a page.
pub fn reason(text: &str) -> Result<&str, Problem> {
    let has_control = text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if text.trim().is_empty() || text.len() > LONGEST_REASON || has_control {
        return Err(Problem::unprocessable("a reason is a text of 2000 bytes at most, without control characters"));
    }
    Ok(text)
}

/// How many a page has: `default` where nothing is asked for.
pub fn limit(asked: Option<u32>, default: u32, most: u32) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(default);
    if !(1..=most).contains(&limit) {
        return Err(Problem::unprocessable(format!("`limit` is from 1 to {most}")));
    }
    Ok(limit)
}
