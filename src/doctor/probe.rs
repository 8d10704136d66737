//! `--probe`: what the store really does with awkward keys, tried on a scratch prefix of its own.
//!
//! Takes a bucket; gives checks. Invariant: the prefix lies outside every scope and holds a fresh UUID, only keys that
//! this probe wrote are ever deleted, and what it wrote is removed also when a step fails or a person interrupts.

use std::collections::BTreeSet;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Examination;
use super::board::{Board, Check};
use crate::clock::Stopwatch;
use crate::config::{Config, Disposal, Scope, secrets};
use crate::decide::breakers::MAX_SKEW;
use crate::dispose::transfer::{Transferred, transfer};
use crate::list::pages::Pages;
use crate::model::{Object, ObjectKey, Timestamp, Versioning, visible};
use crate::run::Stop;
use crate::run::failure::chain;
use crate::s3::{
    Connection, CopyStore, DeleteStore, KeyReply, Place, S3Copy, S3Delete, S3Read, StoreError, StoreFault, WriteWhen,
};

/// Where every probe writes.
const HOME: &str = "orphan-sweeper-probe/";
/// Length of the long key, whole, in bytes: S3 allows 1024.
const LONG_KEY_BYTES: usize = 900;
/// Stores on a file system allow 255 bytes between two slashes.
const LONG_SEGMENT_BYTES: usize = 200;
const BODY: &[u8] = b"orphan-sweeper probe";
/// An `ETag` that no object of ours has.
const WRONG_ETAG: &str = "\"00000000000000000000000000000000\"";
/// What is said where the store denies a write or a deletion.
const RIGHTS: &str = "the probe needs s3:PutObject and s3:DeleteObject on `orphan-sweeper-probe/*` and s3:ListBucket with that prefix; \
                      give them for as long as it runs, or leave it out: no audit or deletion needs them";

/// Probes the bucket of every chosen scope, each once.
pub(super) async fn probe(
    examination: &Examination<'_>,
    scopes: &[&Scope],
    versioning: &[Option<Versioning>],
    stop: &Stop,
    board: &mut Board,
) {
    let mut probed = BTreeSet::new();
    for (scope, versioning) in scopes.iter().zip(versioning) {
        if !probed.insert(&scope.bucket) {
            continue;
        }
        if versioning.is_none() {
            let check = Check::warn("probe", "not run: the bucket could not be read", "see what failed above");
            board.add(check.of(&scope.name));
            continue;
        }
        match Probe::new(examination, scope, stop) {
            Ok(mut probe) => {
                let checks = probe.run().await;
                board.extend(checks.into_iter().map(|check| check.of(&scope.name)));
                board.add(probe.clean_up(*versioning).await.of(&scope.name));
            }
            Err(check) => board.add(check.of(&scope.name)),
        }
    }
}

/// Whether some scope of the bucket could see what the probe writes.
fn collision<'c>(config: &'c Config, bucket: &str, prefix: &str) -> Option<&'c Scope> {
    let overlaps = |scope: &&Scope| prefix.starts_with(&scope.prefix) || scope.prefix.starts_with(HOME);
    config.scopes.iter().filter(|scope| scope.bucket == bucket).find(overlaps)
}

/// The names that are tried, below the probe's prefix.
fn awkward_names(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = [
        "a space.npy",
        "a+plus.npy",
        "a%2Bpercent.npy",
        "quotes'\"&<>.npy",
        "brackets*?[]\\.npy",
        "composed-\u{e9}.npy",
        "decomposed-e\u{301}.npy",
        "emoji-\u{1f4e1}.npy",
        "right-to-left-\u{202e}.npy",
        "line\nfeed.npy",
        "carriage\rreturn.npy",
        "tab\t.npy",
        "control-\u{1}.npy",
        "no-character-\u{fffe}.npy",
        "marker/",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(long_name(LONG_KEY_BYTES.saturating_sub(prefix.len())));
    names
}

/// A name of `bytes` bytes in segments.
fn long_name(bytes: usize) -> String {
    (0..bytes).map(|at| if at % (LONG_SEGMENT_BYTES + 1) == LONG_SEGMENT_BYTES { '/' } else { 'x' }).collect()
}

/// One probe of one bucket.
struct Probe {
    client: Client,
    reader: S3Read,
    deleter: S3Delete,
    copier: S3Copy,
    is_quarantining: bool,
    bucket: String,
    prefix: String,
    stop: CancellationToken,
    /// Every key that was sent, before it was known whether it arrived.
    written: BTreeSet<String>,
}

impl Probe {
    /// Prepares a probe; sends nothing.
    fn new(examination: &Examination<'_>, scope: &Scope, stop: &Stop) -> Result<Self, Check> {
        const NAME: &str = "probe";
        let config = examination.config;
        let prefix = format!("{HOME}{}/", Uuid::new_v4());
        if let Some(other) = collision(config, &scope.bucket, &prefix) {
            let detail = format!(
                "nothing was written: the scope `{}` lists `{}`, which holds `{HOME}`",
                other.name, other.prefix
            );
            return Err(Check::misconfigured(NAME, detail, "the probe writes outside every scope only"));
        }
        let connect = |credentials| Connection::new(&config.store, credentials, examination.clock.clone());
        let unready = |error: &(dyn std::error::Error + 'static)| {
            Check::misconfigured(NAME, chain(error), "see the checks above")
        };
        let reading = secrets::store(config, examination.variables).map_err(|error| unready(&error))?;
        let deleting = secrets::store_for_deletion(config, examination.variables).map_err(|error| unready(&error))?;
        let reading = connect(&reading).map_err(|error| unready(&error))?;
        let deleting = connect(&deleting).map_err(|error| unready(&error))?;
        Ok(Self {
            client: deleting.client().clone(),
            reader: reading.reading(&scope.bucket),
            deleter: deleting.deleting(&scope.bucket),
            copier: deleting.copying(),
            is_quarantining: scope.policy.disposal == Disposal::Quarantine,
            bucket: scope.bucket.clone(),
            prefix,
            stop: stop.token.clone(),
            written: BTreeSet::new(),
        })
    }

    /// Every step up to the first after which the next makes no sense.
    async fn run(&mut self) -> Vec<Check> {
        let (stored, check) = self.write().await;
        let mut checks = vec![check];
        if stored.is_empty() || self.stop.is_cancelled() {
            return checks;
        }
        let listed = match self.list().await {
            Ok((listed, date)) => {
                checks.push(of_listing(&stored, &listed));
                checks.push(of_time(&listed, date));
                listed
            }
            Err(error) => {
                checks.push(Check::fail(
                    "probe_listing",
                    chain(&error),
                    "check what stands between this host and the store",
                ));
                return checks;
            }
        };
        if !self.stop.is_cancelled() {
            checks.push(self.conditional_delete().await);
            checks.push(self.doubled_key().await);
            checks.extend(self.delete(&listed).await);
        }
        if !self.stop.is_cancelled() {
            checks.push(self.copy().await);
        }
        checks
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&mut self, key: &str) -> Result<(), String> {
        // Noted first: a PUT without an answer may have been carried out.
        self.written.insert(key.to_owned());
        // An object whose key ends in a slash is a marker, and some stores take it only empty.
        let body = if key.ends_with('/') { ByteStream::default() } else { ByteStream::from_static(BODY) };
        let sent = self.client.put_object().bucket(&self.bucket).key(key).body(body).send().await;
        sent.map(drop).map_err(|error| {
            if error.code().is_some() {
                self.written.remove(key);
            }
            said(&error)
        })
    }

    /// Writes every awkward key; gives those that the store took.
    async fn write(&mut self) -> (BTreeSet<String>, Check) {
        const NAME: &str = "probe_write";
        let (mut stored, mut refused) = (BTreeSet::new(), Vec::new());
        let names = awkward_names(&self.prefix);
        let count = names.len();
        for name in names {
            if self.stop.is_cancelled() {
                return (stored, Check::fail(NAME, "interrupted", "run it again"));
            }
            let key = self.key(&name);
            match self.put(&key).await {
                Ok(()) => {
                    stored.insert(key);
                }
                Err(said) if stored.is_empty() => {
                    return (
                        stored,
                        Check::fail(NAME, format!("nothing could be written to `{}`: {said}", self.prefix), RIGHTS),
                    );
                }
                Err(said) => refused.push(format!("`{}` ({said})", visible(&name))),
            }
        }
        let refused = if refused.is_empty() {
            String::new()
        } else {
            format!("; it refuses, so nobody can have: {}", refused.join(", "))
        };
        let detail = format!("{} of {count} awkward keys written under `{}`{refused}", stored.len(), self.prefix);
        (stored, Check::ok(NAME, detail))
    }

    /// Copies an object with metadata as a quarantine does, and compares the two.
    async fn copy(&mut self) -> Check {
        const NAME: &str = "probe_copy";
        let wrong = |detail: String| {
            let hint = "a quarantine and `restore` need s3:GetObject beside s3:PutObject, and a store that copies whole objects";
            if self.is_quarantining { Check::fail(NAME, detail, hint) } else { Check::warn(NAME, detail, hint) }
        };
        let (source, target) = (self.key("copied.npy"), self.key("copy of +.npy"));
        self.written.extend([source.clone(), target.clone()]);
        let put = self.client.put_object().bucket(&self.bucket).key(&source).body(ByteStream::from_static(BODY));
        if let Err(error) = put.content_type("application/x-probe").metadata("probe", "yes").send().await {
            return wrong(said(&error));
        }
        let place = |key: String| Place::current(&self.bucket, ObjectKey::new(key));
        let (source, target) = (place(source), place(target));
        let never = CancellationToken::new();
        let seen = match self.copier.head(&source).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return wrong("what was written is not there".into()),
            Err(error) => return wrong(chain(&error)),
        };
        match transfer(&self.copier, &never, (&source, &seen), (&target, WriteWhen::Always)).await {
            Ok(Transferred::Done) => Check::ok(NAME, "a copy keeps bytes, content type and metadata"),
            Ok(Transferred::Refused) => wrong("the store takes the object for another one".into()),
            Err(error) => wrong(chain(&error)),
        }
    }

    /// Lists the prefix as every run does, with the store's clock.
    async fn list(&self) -> Result<(Vec<Object>, Option<Timestamp>), StoreError> {
        // A stop is no reason to leave anything behind: this only reads.
        let never = CancellationToken::new();
        let mut pages = Pages::new(&self.reader, &self.prefix, false, &never);
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await? {
            listed.extend(page.objects);
        }
        Ok((listed, pages.first_date()))
    }

    /// Whether a condition on a deletion is honoured. Nothing rests on it: it is good to know.
    async fn conditional_delete(&mut self) -> Check {
        const NAME: &str = "probe_condition";
        let key = self.key("condition.npy");
        if let Err(said) = self.put(&key).await {
            return Check::fail(NAME, format!("its object could not be written: {said}"), RIGHTS);
        }
        let sent = self.client.delete_object().bucket(&self.bucket).key(&key).if_match(WRONG_ETAG).send().await;
        let is_left = match self.list().await {
            Ok((listed, _)) => listed.iter().any(|object| object.key.as_str() == key),
            Err(error) => return Check::fail(NAME, chain(&error), "check what stands between this host and the store"),
        };
        match (sent, is_left) {
            (_, false) => Check::ok(
                NAME,
                "a deletion with a wrong ETag deletes all the same, as on MinIO; no guard of ours rests on it",
            ),
            (Ok(_), true) => {
                Check::ok(NAME, "a deletion with a wrong ETag deletes nothing, and the store says nothing of it")
            }
            (Err(error), true) => match error.code() {
                Some("PreconditionFailed") => Check::ok(NAME, "a deletion with a wrong ETag is refused"),
                Some("AccessDenied") => Check::fail(NAME, format!("a deletion is denied: {}", said(&error)), RIGHTS),
                _ => Check::ok(NAME, format!("a deletion with a wrong ETag is not carried out: {}", said(&error))),
            },
        }
    }

    /// What the store says of a key that one request names twice. No run ever sends that.
    async fn doubled_key(&mut self) -> Check {
        const NAME: &str = "probe_doubled_key";
        let key = self.key("twice.npy");
        if let Err(said) = self.put(&key).await {
            return Check::fail(NAME, format!("its object could not be written: {said}"), RIGHTS);
        }
        let twice = [ObjectKey::new(&*key), ObjectKey::new(&*key)];
        match self.deleter.delete_batch(&twice, Stopwatch::start()).await {
            Ok(replies) => Check::ok(
                NAME,
                format!("one key named twice in a request: {}, then {}", replies[0].in_words(), replies[1].in_words()),
            ),
            Err(error) => of_refused_delete(NAME, &error),
        }
    }

    /// Deletes everything that was written, as every run does: together, or one by one where XML cannot carry a key.
    async fn delete(&self, listed: &[Object]) -> Vec<Check> {
        let ours = listed.iter().filter(|object| self.written.contains(object.key.as_str()));
        let (mut together, singly): (Vec<_>, Vec<_>) =
            ours.map(|object| object.key.clone()).partition(ObjectKey::is_xml_safe);
        together.push(ObjectKey::new(self.key("absent.npy")));
        let mut checks = Vec::new();
        checks.push(match self.deleter.delete_batch(&together, Stopwatch::start()).await {
            Ok(replies) => of_batch(&together, &replies),
            Err(error) => of_refused_delete("probe_batch_delete", &error),
        });
        checks.push(self.delete_singly(&singly).await);
        checks.push(match self.list().await {
            Ok((left, _)) if left.is_empty() => {
                Check::ok("probe_gone", "a listing after the deletion shows nothing of it")
            }
            Ok((left, _)) => Check::fail(
                "probe_gone",
                format!("deleted and still listed: {}", keys_of(&left)),
                "a store whose listings lie cannot be verified after a deletion: find out why",
            ),
            Err(error) => Check::fail("probe_gone", chain(&error), "check what stands between this host and the store"),
        });
        checks
    }

    async fn delete_singly(&self, keys: &[ObjectKey]) -> Check {
        const NAME: &str = "probe_single_delete";
        for key in keys {
            match self.deleter.delete_one(key, Stopwatch::start()).await {
                Ok(KeyReply::Deleted | KeyReply::AlreadyGone) => {}
                Ok(reply) => {
                    let detail = format!("`{}`: {}", visible(key.as_str()), reply.in_words());
                    return Check::fail(NAME, detail, "objects with such keys would be reported as failed");
                }
                Err(error) => return of_refused_delete(NAME, &error),
            }
        }
        Check::ok(NAME, format!("{} keys that XML cannot carry are deleted by requests of their own", keys.len()))
    }

    /// Removes whatever of the probe is left, and says so where it cannot.
    async fn clean_up(&self, versioning: Option<Versioning>) -> Check {
        const NAME: &str = "probe_clean_up";
        if self.written.is_empty() {
            return Check::ok(NAME, "nothing was written");
        }
        let hint = format!("remove `{}` from the bucket `{}` by hand", self.prefix, self.bucket);
        // Where nothing can be listed, every key that was sent is asked for.
        let left: Vec<String> = match self.list().await {
            Ok((listed, _)) => listed
                .into_iter()
                .map(|object| object.key.as_str().to_owned())
                .filter(|key| self.written.contains(key))
                .collect(),
            Err(_) => self.written.iter().cloned().collect(),
        };
        for key in &left {
            // What cannot be deleted is seen by the listing below.
            self.deleter.delete_one(&ObjectKey::new(&**key), Stopwatch::start()).await.ok();
        }
        match self.list().await {
            Ok((left, _)) if left.is_empty() => {}
            Ok((left, _)) => return Check::fail(NAME, format!("still there: {}", keys_of(&left)), hint),
            Err(error) => {
                return Check::fail(
                    NAME,
                    format!("whether anything is left could not be listed: {}", chain(&error)),
                    hint,
                );
            }
        }
        match versioning {
            Some(Versioning::Unversioned) => Check::ok(NAME, "nothing of the probe is left"),
            Some(Versioning::Enabled | Versioning::Suspended | Versioning::Unknown) | None => {
                self.remove_versions().await
            }
        }
    }

    /// In a bucket with versions a deletion leaves a marker and the object under it: both are removed for good.
    async fn remove_versions(&self) -> Check {
        const NAME: &str = "probe_clean_up";
        let hint = format!(
            "a lifecycle rule that expires noncurrent versions removes them, or remove the versions under `{}` by hand",
            self.prefix
        );
        let listing = self
            .client
            .list_object_versions()
            .bucket(&self.bucket)
            .prefix(&self.prefix)
            .encoding_type(EncodingType::Url);
        let listing = match listing.send().await {
            Ok(listing) => listing,
            Err(error) => {
                return Check::warn(
                    NAME,
                    format!("old versions of it may be left: they cannot be listed ({})", said(&error)),
                    hint,
                );
            }
        };
        let versions = listing.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = listing.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let mut left = 0_u32;
        for (key, version) in versions.chain(markers) {
            let (Some(key), Some(version)) = (key.and_then(decode), version) else { continue };
            if !self.written.contains(&key) {
                continue;
            }
            let removed = self.client.delete_object().bucket(&self.bucket).key(key).version_id(version).send().await;
            left += u32::from(removed.is_err());
        }
        if left > 0 {
            return Check::warn(NAME, format!("{left} old versions of it are left: they may not be removed"), hint);
        }
        Check::ok(NAME, "nothing of the probe is left, no old version either")
    }
}

/// Decodes a key of a listing of versions, as the listing of objects does.
fn decode(listed: &str) -> Option<String> {
    let spaced = listed.replace('+', " ");
    String::from_utf8(percent_decode(spaced.as_bytes()).collect()).ok()
}

/// What a failed request was answered with; never its body.
fn said<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => "no reply that counts".to_owned(),
    }
}

fn keys_of(objects: &[Object]) -> String {
    objects.iter().map(|object| format!("`{}`", visible(object.key.as_str()))).collect::<Vec<_>>().join(", ")
}

fn of_refused_delete(name: &'static str, error: &StoreError) -> Check {
    let hint = if matches!(error.fault, StoreFault::Denied(_)) {
        RIGHTS
    } else {
        "no plan could be applied on this store until this works"
    };
    Check::fail(name, chain(error), hint)
}

/// Whether the listing shows exactly what was written, byte for byte.
fn of_listing(stored: &BTreeSet<String>, listed: &[Object]) -> Check {
    const NAME: &str = "probe_listing";
    let found: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    let lost: Vec<String> =
        stored.iter().filter(|key| !found.contains(key.as_str())).map(|key| format!("`{}`", visible(key))).collect();
    let odd: Vec<String> =
        found.iter().filter(|key| !stored.contains(**key)).map(|key| format!("`{}`", visible(key))).collect();
    if lost.is_empty() && odd.is_empty() {
        return Check::ok(
            NAME,
            format!("all {} keys are listed byte for byte, each with size, ETag and time", stored.len()),
        );
    }
    let list = |keys: Vec<String>| if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    Check::fail(
        NAME,
        format!("the listing is not what was written; lost: {}; in their place: {}", list(lost), list(odd)),
        "objects with such keys cannot be named, so do not apply plans on this store",
    )
}

/// Whether the times of fresh objects are those of the store's own clock.
fn of_time(listed: &[Object], date: Option<Timestamp>) -> Check {
    const NAME: &str = "probe_times";
    const HINT: &str = "ages are counted from these times: find out what the store writes into them";
    let Some(date) = date else { return Check::fail(NAME, "the store's replies have no `Date`", HINT) };
    let times: Vec<_> =
        listed.iter().map(|object| object.credible_last_modified().map(|time| (date - time).abs())).collect();
    match times.iter().flatten().max() {
        Some(largest) if times.iter().all(Option::is_some) && *largest <= MAX_SKEW => {
            Check::ok(NAME, "every reply has a `Date`, and fresh objects are as old as they are")
        }
        Some(largest) if times.iter().all(Option::is_some) => Check::fail(
            NAME,
            format!("a fresh object's LastModified lies {} s from the store's `Date`", largest.num_seconds()),
            HINT,
        ),
        _ => Check::fail(NAME, "fresh objects have no credible LastModified, so no age could ever be known", HINT),
    }
}

/// Whether each key of a batch, the last of which was never written, was answered.
fn of_batch(keys: &[ObjectKey], replies: &[KeyReply]) -> Check {
    const NAME: &str = "probe_batch_delete";
    let is_fine = |reply: &KeyReply| matches!(reply, KeyReply::Deleted | KeyReply::AlreadyGone);
    let odd: Vec<String> = keys
        .iter()
        .zip(replies)
        .filter(|(_, reply)| !is_fine(reply))
        .map(|(key, reply)| format!("`{}` {}", visible(key.as_str()), reply.in_words()))
        .collect();
    if !odd.is_empty() {
        return Check::fail(
            NAME,
            format!("not every key is answered as deleted: {}", odd.join(", ")),
            "such objects would be reported as failed",
        );
    }
    let absent = replies.last().map(KeyReply::in_words).unwrap_or_default();
    Check::ok(
        NAME,
        format!("{} keys deleted by one request; one that was never there: {absent}", keys.len().saturating_sub(1)),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::board::State;
    use super::*;
    use crate::config::{Variables, parse};

    fn config(prefixes: &[&str]) -> Config {
        let mut text = "[store]\nendpoint = \"http://127.0.0.1:9000\"\n".to_owned();
        for (number, prefix) in prefixes.iter().enumerate() {
            text.push_str(&format!(
                "[[scope]]\nname = \"s{number}\"\nbucket = \"b\"\nprefix = \"{prefix}\"\npatterns = [\"{prefix}{{id}}/\"]\n[[scope.live]]\ntable = \"s.t\"\n"
            ));
        }
        parse(&text, Path::new("config.toml"), &Variables::new()).expect("a configuration")
    }

    #[test]
    fn a_scope_that_could_see_the_probe_forbids_it() {
        let prefix = format!("{HOME}x/");
        assert!(collision(&config(&["synthetic/"]), "b", &prefix).is_none());
        assert!(collision(&config(&["synthetic/", HOME]), "b", &prefix).is_some());
        assert!(
            collision(&config(&["orphan-sweeper-probe/other/"]), "b", &prefix).is_some(),
            "it lies among the probes"
        );
        assert!(collision(&config(&[HOME]), "another", &prefix).is_none());
    }

    #[test]
    fn the_names_are_awkward_different_and_fit() {
        let prefix = format!("{HOME}{}/", Uuid::nil());
        let names = awkward_names(&prefix);
        let keys: BTreeSet<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
        assert_eq!(keys.len(), names.len());
        assert_eq!(keys.iter().map(String::len).max(), Some(LONG_KEY_BYTES));
        assert!(keys.iter().flat_map(|key| key.split('/')).all(|segment| segment.len() <= 255));
        assert!(keys.iter().all(|key| !key.contains("//")));
        assert!(names.iter().filter(|name| !ObjectKey::new(name.as_str()).is_xml_safe()).count() >= 3);
    }

    fn object(key: &str, last_modified: Option<Timestamp>) -> Object {
        Object { key: ObjectKey::new(key), size_bytes: 1, etag: "e".into(), last_modified }
    }

    #[test]
    fn a_key_that_comes_back_as_another_fails() {
        let stored = BTreeSet::from(["p/a+b".to_owned()]);
        assert_eq!(of_listing(&stored, &[object("p/a+b", None)]).state, State::Ok);
        let check = of_listing(&stored, &[object("p/a b", None)]);
        assert_eq!(check.state, State::Fail);
        assert!(check.detail.contains("lost: `p/a+b`; in their place: `p/a b`"), "{}", check.detail);
    }

    #[test]
    fn times_that_prove_no_age_fail() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
        let hour = chrono::Duration::hours(1);
        assert_eq!(of_time(&[object("a", Some(now))], Some(now)).state, State::Ok);
        assert_eq!(of_time(&[object("a", Some(now - hour))], Some(now)).state, State::Fail);
        assert_eq!(of_time(&[object("a", None)], Some(now)).state, State::Fail);
        assert_eq!(of_time(&[object("a", Some(now))], None).state, State::Fail);
    }

    #[test]
    fn a_batch_must_answer_every_key() {
        let keys = [ObjectKey::new("a"), ObjectKey::new("absent")];
        assert_eq!(of_batch(&keys, &[KeyReply::Deleted, KeyReply::AlreadyGone]).state, State::Ok);
        assert_eq!(of_batch(&keys, &[KeyReply::Unmentioned, KeyReply::Deleted]).state, State::Fail);
        assert_eq!(of_batch(&keys, &[KeyReply::Deleted, KeyReply::Refused("X".into())]).state, State::Fail);
    }
}
