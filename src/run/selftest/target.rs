//! Whether a target may be production: judged by what is written, not by what a name resolves to.
//!
//! Invariant: doubt asks a person. A tunnel makes production look like this host, so the number of live rows is looked at too.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::secrets::{self, DatabaseUrl};
use crate::config::{Config, Purge, Scope};
use crate::model::{human_count, visible};
use crate::run::{Keyring, SetupError};

/// More live rows than somebody's trial has.
const MOST_ROWS_OF_A_TRIAL: u64 = 100;

/// Why the target may be production; empty where nothing says so.
///
/// - Errors: what is wrong with a secret. Rows that cannot be read say nothing here: the first step tells.
pub async fn why_production(
    config: &Config,
    scope: &Scope,
    purge: &Purge,
    keyring: &Keyring,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<String>, SetupError> {
    let mut reasons = Vec::new();
    let host = config.store.endpoint.host_str().unwrap_or_default();
    if !secrets::is_this_host(host) {
        reasons.push(format!("the store is on `{}`", visible(host)));
    }
    let mut databases = vec![keyring.live_url(config)?];
    if let Some((removing, inserting)) = keyring.scratching(scope, purge)? {
        databases.extend([removing, inserting]);
    }
    let mut places: Vec<&str> =
        databases.iter().filter(|url| !url.is_on_this_host()).map(|url: &DatabaseUrl| url.shown.as_str()).collect();
    places.dedup();
    reasons.extend(places.into_iter().map(|place| format!("the database is {}", visible(place))));
    if !reasons.is_empty() {
        return Ok(reasons);
    }
    let mut rows = 0_u64;
    let read = keyring.references(config, scope, clock)?.read(&mut |_| rows += 1).await;
    if read.is_ok() && rows > MOST_ROWS_OF_A_TRIAL {
        let (rows, most) = (human_count(rows), human_count(MOST_ROWS_OF_A_TRIAL));
        reasons.push(format!(
            "the live tables have {rows} rows, more than the {most} of a trial: a tunnel may lead there"
        ));
    }
    Ok(reasons)
}

/// What a self-test would do to a target.
pub fn plan_of_action(scope: &Scope) -> String {
    let objects = super::scratch::DATASETS * super::scratch::objects_of(scope);
    format!(
        "it would insert 4 datasets and 1 job named `orphan-sweeper selftest …`, put {objects} objects under new ids of `{}` in the bucket \
         `{}`, delete them again, and audit the scope `{}` once, which counts as one more complete scan",
        visible(&scope.prefix),
        visible(&scope.bucket),
        scope.name
    )
}
