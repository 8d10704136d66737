//! The store: whether it answers, takes our credentials, has the bucket and lets us list, and what a deletion means
//! there. Reads only, one request each.

use aws_sdk_s3::error::ProvideErrorMetadata as _;

use super::Examination;
use super::board::Check;
use super::clocks::Reading;
use crate::config::{Disposal, Scope, secrets};
use crate::list::uploads::Owner;
use crate::model::{DatasetId, Versioning, human_count, visible};
use crate::parse::{KeyReading, read_prefix};
use crate::run::failure::chain;
use crate::s3::{Connection, Page, PageRequest, ReadStore, StoreError, StoreFault, UploadsPage, VersionsPage};

/// What the store let us see of a scope.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Ids of the dataset prefixes on the first page.
    pub(super) ids: Vec<DatasetId>,
    /// The store's clock.
    pub(super) clock: Option<Reading>,
    /// What a deletion means.
    pub(super) versioning: Option<Versioning>,
}

/// Looks at the store of one scope.
pub(super) async fn look(examination: &Examination<'_>, scope: &Scope) -> (Seen, Vec<Check>) {
    let mut seen = Seen::default();
    let Ok(credentials) = secrets::store(examination.config, examination.variables) else { return (seen, Vec::new()) };
    let connection = match Connection::new(&examination.config.store, &credentials, examination.clock.clone()) {
        Ok(connection) => connection,
        Err(error) => {
            return (seen, vec![Check::misconfigured("store_client", chain(&error), "correct `store.ca_file`")]);
        }
    };
    let store = connection.reading(&scope.bucket);
    let before = examination.clock.now();
    let page = store.page(&PageRequest { prefix: scope.prefix.clone(), by_delimiter: true, token: None }).await;
    let after = examination.clock.now();
    let mut checks = of_listing(page.as_ref(), scope);
    let Ok(page) = page else { return (seen, checks) };
    seen.clock = Some(Reading::new("store", before, page.date, after));
    let (ids, check) = of_content(&page, scope);
    seen.ids = ids;
    checks.push(check);
    let versioning = store.versioning().await;
    checks.push(match (versioning.as_ref(), scope.policy.disposal) {
        (Ok(Versioning::Unversioned), Disposal::Quarantine) => Check::ok(
            "versioning",
            "the bucket keeps no versions; every object is copied aside before it is deleted, and `restore` brings it back",
        ),
        (versioning, _) => of_versioning(versioning),
    });
    seen.versioning = versioning.ok();
    checks.push(object_lock(&connection, &scope.bucket).await);
    checks.push(of_uploads(store.uploads(None).await.as_ref(), scope));
    if let Some(Versioning::Enabled | Versioning::Suspended) = seen.versioning {
        checks.push(of_versions(store.versions(&scope.prefix, None).await.as_ref(), scope));
    }
    (seen, checks)
}

/// How far a listing came: each thing that it needs is a check, up to the one that failed.
fn of_listing(page: Result<&Page, &StoreError>, scope: &Scope) -> Vec<Check> {
    let reached = Check::ok("store_reachable", "it answers");
    let accepted = Check::ok("store_credentials_accepted", "the store knows them");
    let there = Check::ok("bucket", format!("`{}` is there", scope.bucket));
    let Err(error) = page else {
        return vec![reached, accepted, there, Check::ok("listing", format!("`{}` may be listed", scope.prefix))];
    };
    let hint = error.fault.hint();
    match &error.fault {
        StoreFault::NoReply(_) | StoreFault::Throttled(_) | StoreFault::ServerFault(_) | StoreFault::ProofExpired => {
            // The hint of this fault names doctor itself.
            let hint = if matches!(error.fault, StoreFault::NoReply(_)) {
                "check `store.endpoint`, that the store is up, and what stands between"
            } else {
                hint
            };
            vec![Check::fail("store_reachable", chain(error), hint)]
        }
        StoreFault::Denied(said) if is_about_time(said) => {
            vec![
                reached,
                Check::fail("store_credentials_accepted", chain(error), "set this host's clock, or the store's, right"),
            ]
        }
        StoreFault::Denied(said) if is_about_identity(said) => {
            vec![
                reached,
                Check::fail("store_credentials_accepted", chain(error), "check the access key and the secret key"),
            ]
        }
        StoreFault::Denied(_) => {
            let hint = format!(
                "allow s3:ListBucket on `{}` with the prefix `{}*` (README.md, \"Least privilege\"), and check the bucket's name",
                scope.bucket, scope.prefix
            );
            vec![reached, accepted, Check::fail("listing", chain(error), hint)]
        }
        StoreFault::Refused(said) if said.starts_with("InvalidBucketName") => {
            vec![
                reached,
                Check::misconfigured(
                    "bucket",
                    format!("`{}` is no bucket's name", scope.bucket),
                    "correct `scope.bucket`",
                ),
            ]
        }
        StoreFault::NoSuchBucket => {
            vec![reached, accepted, Check::fail("bucket", format!("`{}` does not exist", scope.bucket), hint)]
        }
        StoreFault::Malformed(_) | StoreFault::Refused(_) => {
            vec![
                reached,
                accepted,
                Check::fail("listing", chain(error), "check what stands between this host and the store"),
            ]
        }
    }
}

fn is_about_identity(said: &str) -> bool {
    ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"]
        .iter()
        .any(|code| said.starts_with(code))
}

fn is_about_time(said: &str) -> bool {
    said.starts_with("RequestTimeTooSkewed")
}

/// What the patterns read on the first page.
fn of_content(page: &Page, scope: &Scope) -> (Vec<DatasetId>, Check) {
    const NAME: &str = "patterns";
    let mut ids = Vec::new();
    let mut foreign = None;
    for prefix in page.prefixes.iter().filter(|prefix| !scope.ignore.contains(prefix.as_str())) {
        match read_prefix(prefix, &scope.patterns) {
            KeyReading::Group(group) => ids.push(group.id),
            KeyReading::Foreign(_) => foreign = foreign.or(Some(prefix)),
        }
    }
    let more = if page.is_truncated { ", and more pages follow" } else { "" };
    let groups = human_count(ids.len() as u64);
    let check = match foreign {
        None if ids.is_empty() => Check::warn(
            NAME,
            format!("nothing lies under `{}`", scope.prefix),
            "check `scope.bucket` and `scope.prefix`; with rows in the database, an audit calls all of them missing",
        ),
        Some(foreign) if ids.is_empty() => Check::warn(
            NAME,
            format!("no prefix on the first page is read by a pattern, for example `{}`", visible(foreign)),
            "correct `scope.patterns`; what no pattern reads is kept and reported",
        ),
        Some(_) => {
            let all = human_count(page.prefixes.len() as u64);
            Check::ok(NAME, format!("{groups} of {all} prefixes on the first page are datasets{more}"))
        }
        None => Check::ok(NAME, format!("all {groups} prefixes on the first page are datasets{more}")),
    };
    (ids, check)
}

/// What a deletion does in the bucket.
fn of_versioning(versioning: Result<&Versioning, &StoreError>) -> Check {
    const NAME: &str = "versioning";
    match versioning {
        Ok(Versioning::Unversioned) => Check::warn(
            NAME,
            "the bucket keeps no versions: a deletion frees the space at once and cannot be undone",
            "review plans before you apply them, and keep `approval = \"required\"` until you trust them",
        ),
        Ok(Versioning::Enabled | Versioning::Suspended) => Check::warn(
            NAME,
            "the bucket keeps versions: a deletion adds a marker and frees nothing",
            "add a lifecycle rule that expires noncurrent versions; until it runs, `restore` brings objects back",
        ),
        Ok(Versioning::Unknown) => Check::warn(
            NAME,
            "the store does not say whether the bucket keeps versions",
            "find out before you delete: with versions nothing is freed, without them nothing can be undone",
        ),
        Err(error) => Check::fail(NAME, chain(error), "allow s3:GetBucketVersioning: every run asks for it first"),
    }
}

/// Whether uploads in progress can be seen. Grace and digest are the guards, so a run goes on without.
fn of_uploads(page: Result<&UploadsPage, &StoreError>, scope: &Scope) -> Check {
    const NAME: &str = "uploads";
    match page {
        Ok(page) => {
            let here = page.uploads.iter().filter(|upload| Owner::of(upload.key.as_str(), scope).is_some()).count();
            let more = if page.is_truncated { ", and more pages follow" } else { "" };
            Check::ok(NAME, format!("{} in progress, as far as the store remembers{more}", human_count(here as u64)))
        }
        Err(StoreError { fault: StoreFault::Denied(_), .. }) => Check::warn(
            NAME,
            "these credentials may not list uploads in progress: none keeps its orphan, and reports call them not known",
            format!("allow s3:ListBucketMultipartUploads on `{}`, without a condition on the prefix", scope.bucket),
        ),
        Err(error) => Check::warn(
            NAME,
            format!("not known: {}", chain(error)),
            "an orphan under upload is then kept by its grace alone: choose it longer than any upload",
        ),
    }
}

/// Whether old versions can be counted. Nothing but a report depends on it.
fn of_versions(page: Result<&VersionsPage, &StoreError>, scope: &Scope) -> Check {
    const NAME: &str = "old_versions";
    match page {
        Ok(_) => Check::ok(NAME, "they may be listed, and are counted beneath what has no row"),
        Err(StoreError { fault: StoreFault::Denied(_), .. }) => Check::warn(
            NAME,
            "these credentials may not list versions: what they take up is not known",
            format!("allow s3:ListBucketVersions on `{}` with the prefix `{}*`", scope.bucket, scope.prefix),
        ),
        Err(error) => Check::warn(NAME, format!("not known: {}", chain(error)), "nothing but the report depends on it"),
    }
}

async fn object_lock(connection: &Connection, bucket: &str) -> Check {
    const NAME: &str = "object_lock";
    let answer = connection.client().get_object_lock_configuration().bucket(bucket).send().await;
    match answer {
        Ok(answer) if answer.object_lock_configuration().is_some_and(|lock| lock.object_lock_enabled().is_some()) => {
            let rule = answer.object_lock_configuration().and_then(|lock| lock.rule()?.default_retention());
            let retention = rule.map_or_else(
                || "without a retention by default".to_owned(),
                |rule| {
                    let mode = rule.mode().map_or("unknown", |mode| mode.as_str());
                    let days = rule.days().map(|days| format!("{days} days"));
                    let years = rule.years().map(|years| format!("{years} years"));
                    format!("{mode} for {} by default", days.or(years).unwrap_or_else(|| "no time".to_owned()))
                },
            );
            Check::warn(
                NAME,
                format!(
                    "object lock is on, {retention}: an object under retention or legal hold keeps its space until that ends"
                ),
                "deletions.csv tells such objects as `object_lock` where the store refuses to delete them",
            )
        }
        Ok(_) => Check::ok(NAME, "off"),
        Err(error) => match error.code() {
            Some("ObjectLockConfigurationNotFoundError" | "ObjectLockConfigurationNotFound") => Check::ok(NAME, "off"),
            // Nothing depends on it, so no right is asked for.
            Some("AccessDenied") => Check::ok(NAME, "not known: these credentials may not ask, and need not"),
            code => Check::ok(NAME, format!("not known: the store does not say ({})", code.unwrap_or("no reply"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::board::State;
    use super::*;
    use crate::config::{Variables, parse};
    use crate::model::Timestamp;

    fn scope() -> Scope {
        let text = "[store]\nendpoint = \"http://127.0.0.1:9000\"\n[[scope]]\nname = \"a\"\nbucket = \"b\"\nprefix = \"p/\"\npatterns = [\"p/{id}/\"]\n\
                    [[scope.live]]\ntable = \"s.t\"\n";
        parse(text, Path::new("config.toml"), &Variables::new()).expect("a configuration").scopes.remove(0)
    }

    fn page(prefixes: &[&str], is_truncated: bool) -> Page {
        Page {
            objects: Vec::new(),
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            is_truncated,
            next_token: None,
            date: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_fault_fails_the_step_that_it_is_about_and_nothing_after_it() {
        let denied = |code: &str| StoreFault::Denied(format!("{code}: said"));
        for (fault, steps, failed) in [
            (StoreFault::NoReply("refused".into()), 1, "store_reachable"),
            (StoreFault::ServerFault("503".into()), 1, "store_reachable"),
            (denied("InvalidAccessKeyId"), 2, "store_credentials_accepted"),
            (denied("SignatureDoesNotMatch"), 2, "store_credentials_accepted"),
            (denied("RequestTimeTooSkewed"), 2, "store_credentials_accepted"),
            (StoreFault::NoSuchBucket, 3, "bucket"),
            (StoreFault::Refused("InvalidBucketName".into()), 2, "bucket"),
            (denied("AccessDenied"), 3, "listing"),
            (StoreFault::Malformed("cut".into()), 3, "listing"),
        ] {
            let error = StoreError { operation: "ListObjectsV2", fault };
            let checks = of_listing(Err(&error), &scope());
            assert_eq!(checks.len(), steps, "{error}");
            let last = checks.last().expect("a check");
            assert_eq!((last.name, last.state), (failed, State::Fail), "{error}");
            assert!(checks[..steps - 1].iter().all(|check| check.state == State::Ok), "{error}");
        }
        let checks = of_listing(Ok(&page(&[], false)), &scope());
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(|check| check.state == State::Ok));
    }

    #[test]
    fn patterns_that_read_nothing_are_noticed() {
        let id = "p/0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10/";
        let of = |prefixes: &[&str]| of_content(&page(prefixes, true), &scope());
        assert_eq!(of(&[]).1.state, State::Warn);
        assert_eq!(of(&["p/x/"]).1.state, State::Warn);
        let (ids, check) = of(&[id, "p/x/"]);
        assert_eq!((ids.len(), check.state), (1, State::Ok));
        assert_eq!(check.detail, "1 of 2 prefixes on the first page are datasets, and more pages follow");
    }
}
