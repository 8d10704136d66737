//! Clean-up: exactly what the journal says was written, and nothing else.
//!
//! Rows first, objects second, as everywhere: an id that is live keeps its objects. Invariant: a row is removed only if it bears
//! the self-test's name, and an object only if it lies under the canonical prefix of an id of the journal, that id was asked of the
//! primary just before, and the object is the one that was put: by its size and its entity tag, or by the mark on it where the
//! store's answer was lost. What is another's stays, and is told.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::scratch::{is_as_put, list};
use super::{Bench, Broken, row_name};
use crate::clock::Stopwatch;
use crate::list::references::Look;
use crate::model::{DatasetId, Object, ObjectKey, Versioning, visible};
use crate::record::{Scratch, ScratchKind, ScratchState};
use crate::run::failure::chain;
use crate::run::{holds, purge};
use crate::s3::{CopyStore as _, Place, is_marked};

/// How often objects of one id are asked for: a store may be busy.
const TRIES: u32 = 4;

/// What a clean-up came to.
#[derive(Default)]
struct Cleaned {
    rows: u64,
    objects: u64,
    /// What is another's, and stays.
    others: Vec<String>,
    /// What is ours, and could not be removed.
    stuck: Vec<String>,
}

/// Removes what earlier self-tests left when their processes died.
pub(super) async fn earlier(bench: &Bench<'_>) -> Result<((), String), Broken> {
    let cleaned = clean(bench).await?;
    if !cleaned.stuck.is_empty() {
        return Err(stuck(&cleaned));
    }
    bench.services.ledger.forget_removed_scratch(&bench.scope.name).await?;
    let others = of_others(&cleaned);
    let detail = match (cleaned.rows, cleaned.objects) {
        (0, 0) => format!("nothing was left by an earlier self-test{others}"),
        (rows, objects) => format!("{rows} rows and {objects} objects of an earlier self-test are removed{others}"),
    };
    Ok(((), detail))
}

/// Removes what is there of this self-test and of earlier ones, and looks once more.
pub(super) async fn last(bench: &Bench<'_>) -> Result<((), String), Broken> {
    let cleaned = clean(bench).await?;
    if !cleaned.stuck.is_empty() {
        return Err(stuck(&cleaned));
    }
    if !cleaned.others.is_empty() {
        return Err(Broken::new(
            format!("nothing of ours is left{}", of_others(&cleaned)),
            "find out who wrote it; without a row it is an orphan, which sweeps keep until its grace is over",
        ));
    }
    let mut detail =
        format!("{} rows and {} objects removed; nothing of the self-test is left", cleaned.rows, cleaned.objects);
    match bench.reading.store.versioning().await {
        Ok(Versioning::Unversioned) => {}
        Ok(Versioning::Enabled | Versioning::Suspended | Versioning::Unknown) | Err(_) => {
            detail.push_str(", but for old versions where the bucket keeps them, until its lifecycle rule ends them");
        }
    }
    if bench.scope.policy.disposal == crate::config::Disposal::Quarantine {
        detail.push_str("; what the API deleted lies in the quarantine until its time is over");
    }
    Ok(((), detail))
}

fn of_others(cleaned: &Cleaned) -> String {
    if cleaned.others.is_empty() { String::new() } else { format!("; left alone: {}", cleaned.others.join(", ")) }
}

fn stuck(cleaned: &Cleaned) -> Broken {
    let detail = format!("could not be removed: {}{}", cleaned.stuck.join("; "), of_others(cleaned));
    Broken::new(detail, "once that is mended: orphan-sweeper selftest --clean-up")
}

async fn clean(bench: &Bench<'_>) -> Result<Cleaned, Broken> {
    let (ledger, scope) = (&bench.services.ledger, &bench.scope.name);
    let mut cleaned = Cleaned::default();
    let mut scratch = ledger.scratch_to_remove(scope).await?;
    if scratch.is_empty() {
        return Ok(cleaned);
    }
    super::check_stop_file(bench.services)?;
    revoke_tokens(bench, &scratch).await?;
    keep_held(bench, &mut scratch, &mut cleaned).await?;
    end_purges(bench, &scratch).await;
    crate::failpoint::reach("selftest_cleaning");
    remove_rows(bench, &scratch, &mut cleaned).await?;
    crate::failpoint::reach("selftest_rows_removed");
    let mut objects: BTreeMap<DatasetId, Vec<Scratch>> = BTreeMap::new();
    for object in scratch.drain(..).filter(|scratch| scratch.kind == ScratchKind::Object) {
        match object.dataset {
            Some(id) => objects.entry(id).or_default().push(object),
            None => cleaned.stuck.push(format!("`{}` has no dataset in the journal", visible(&object.name))),
        }
    }
    let ids: Vec<DatasetId> = objects.keys().copied().collect();
    let look = bench.reading.references.look(&ids).await?;
    for (id, objects) in objects {
        remove_objects(bench, id, objects, &look, &mut cleaned).await?;
    }
    Ok(cleaned)
}

async fn revoke_tokens(bench: &Bench<'_>, scratch: &[Scratch]) -> Result<(), Broken> {
    let (ledger, now) = (&bench.services.ledger, bench.services.clock.now());
    for token in scratch.iter().filter(|scratch| scratch.kind == ScratchKind::Token) {
        ledger.revoke_token(&token.name, now).await?;
        ledger.settle_scratch([token], ScratchState::Removed).await?;
    }
    Ok(())
}

/// What a person holds stays, whoever made it.
async fn keep_held(bench: &Bench<'_>, scratch: &mut Vec<Scratch>, cleaned: &mut Cleaned) -> Result<(), Broken> {
    let in_table = bench.reading.references.holds().await?;
    let now = bench.services.clock.now();
    let holds = holds::gather(bench.services, bench.scope, &in_table, now).await?;
    let held: BTreeSet<DatasetId> =
        scratch.iter().filter_map(|scratch| scratch.dataset).filter(|id| holds.on(*id).is_some()).collect();
    scratch.retain(|scratch| scratch.dataset.is_none_or(|id| !held.contains(&id)));
    cleaned.stuck.extend(held.iter().map(|id| format!("dataset {id}, which is held")));
    Ok(())
}

/// Goes on with the purges of our own rows that a dead process left, so that nobody finds them pending for good.
async fn end_purges(bench: &Bench<'_>, scratch: &[Scratch]) {
    let services = bench.undisturbed();
    let pending = services.ledger.pending_purges(Some(&bench.scope.name)).await.unwrap_or_default();
    for begun in pending {
        let subject = begun.subject.id().to_string();
        if !scratch.iter().any(|scratch| scratch.kind != ScratchKind::Object && scratch.name == subject) {
            continue;
        }
        if let Err(error) = Box::pin(purge::resume(&services, bench.keyring, begun.run)).await {
            tracing::warn!(run_id = %begun.run, error = %chain(&error), "a purge of a self-test could not go on; `serve` tries it again");
        }
    }
}

/// Removes the rows of datasets and jobs that are still there, in one transaction.
async fn remove_rows(bench: &Bench<'_>, scratch: &[Scratch], cleaned: &mut Cleaned) -> Result<(), Broken> {
    let is_row = |scratch: &&Scratch| matches!(scratch.kind, ScratchKind::Dataset | ScratchKind::Job);
    let rows: Vec<&Scratch> = scratch.iter().filter(is_row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    let mut change = bench.removing.begin().await?;
    for row in rows {
        let Ok(id) = Uuid::parse_str(&row.name) else {
            cleaned.stuck.push(format!("`{}` is no id of a row", visible(&row.name)));
            continue;
        };
        let is_other = match row.kind {
            ScratchKind::Dataset => match change.dataset(DatasetId(id)).await? {
                None => false,
                Some(found)
                    if found.name.as_deref() == Some(&*row_name(row.run))
                        && change.active_models(DatasetId(id)).await?.is_empty() =>
                {
                    change.delete_dataset(DatasetId(id)).await?;
                    cleaned.rows += 1;
                    false
                }
                Some(_) => true,
            },
            ScratchKind::Job => match change.job(id).await? {
                None => false,
                Some(found) if found.job_type == bench.purge.job_type => {
                    change.delete_job(id).await?;
                    cleaned.rows += 1;
                    false
                }
                Some(_) => true,
            },
            ScratchKind::Object | ScratchKind::Token => continue,
        };
        if is_other {
            cleaned
                .others
                .push(format!("the row {id}, which bears another name or type by now, or is used by a model"));
            left.push(row);
        } else {
            gone.push(row);
        }
    }
    change.commit().await?;
    let ledger = &bench.services.ledger;
    ledger.settle_scratch(gone, ScratchState::Removed).await?;
    Ok(ledger.settle_scratch(left, ScratchState::Left).await?)
}

/// Removes the objects of one id.
async fn remove_objects(
    bench: &Bench<'_>,
    id: DatasetId,
    objects: Vec<Scratch>,
    look: &Look,
    cleaned: &mut Cleaned,
) -> Result<(), Broken> {
    let prefixes: Vec<String> = bench.scope.patterns.iter().map(|pattern| pattern.prefix_of(id)).collect();
    let (objects, strays): (Vec<Scratch>, Vec<Scratch>) =
        objects.into_iter().partition(|object| prefixes.iter().any(|prefix| object.name.starts_with(prefix)));
    cleaned.stuck.extend(strays.iter().map(|stray| format!("`{}` lies under no prefix of {id}", visible(&stray.name))));
    let mut ours = Vec::new();
    for object in list(bench, id).await?.0 {
        match objects.iter().find(|scratch| scratch.name == object.key.as_str()) {
            Some(scratch) if is_ours(bench, scratch, &object).await? => ours.push(object.key),
            Some(_) | None => cleaned.others.push(format!("`{}`", visible(object.key.as_str()))),
        }
    }
    if !ours.is_empty() {
        if look.is_live(id) {
            cleaned.stuck.push(format!("{} objects of {id}, which is live", ours.len()));
            return Ok(());
        }
        if let Err(broken) = delete(bench, id, &ours, look).await {
            cleaned.stuck.push(broken);
            return Ok(());
        }
        crate::failpoint::reach("selftest_objects_removed");
    }
    let (left, _) = list(bench, id).await?;
    let is_there = |key: &str| left.iter().any(|object| object.key.as_str() == key);
    let stuck = ours.iter().filter(|key| is_there(key.as_str()));
    cleaned.stuck.extend(stuck.map(|key| format!("`{}` is deleted and still listed", visible(key.as_str()))));
    cleaned.objects += ours.iter().filter(|key| !is_there(key.as_str())).count() as u64;
    let ledger = &bench.services.ledger;
    let (listed, gone): (Vec<&Scratch>, Vec<&Scratch>) = objects.iter().partition(|object| is_there(&object.name));
    ledger.settle_scratch(gone, ScratchState::Removed).await?;
    let others = listed.into_iter().filter(|object| !ours.iter().any(|key| key.as_str() == object.name));
    Ok(ledger.settle_scratch(others, ScratchState::Left).await?)
}

/// Whether an object is the one that was put. Where the answer to its request was lost, the mark on it says so.
async fn is_ours(bench: &Bench<'_>, scratch: &Scratch, object: &Object) -> Result<bool, Broken> {
    if scratch.etag.is_some() {
        return Ok(is_as_put(scratch, object));
    }
    if scratch.size_bytes != object.size_bytes {
        return Ok(false);
    }
    let place = Place::current(&bench.scope.bucket, object.key.clone());
    let head = bench.looker.head(&place).await.map_err(|error| {
        let right = format!(
            "s3:GetObject on arn:aws:s3:::{}/{}* to the pair of the self-test",
            bench.scope.bucket, bench.scope.prefix
        );
        Broken::of_store(&error, &right)
    })?;
    Ok(head.is_some_and(|head| head.is_of(object) && is_marked(&head, scratch.run)))
}

/// Deletes objects of an id that the primary, asked just before each attempt, has no row of.
async fn delete(bench: &Bench<'_>, id: DatasetId, keys: &[ObjectKey], look: &Look) -> Result<(), String> {
    let mut said = String::new();
    for _ in 0..TRIES {
        super::check_stop_file(bench.services).map_err(|refusal| chain(&refusal))?;
        let proof = Stopwatch::start();
        let live = bench.reading.references.recheck(&[id], &look.anchor).await.map_err(|error| chain(&error))?;
        if !live.is_empty() {
            return Err(format!("{} objects of {id}, which is live", keys.len()));
        }
        match bench.deleter.delete_batch(keys, proof).await {
            Ok(replies) => {
                let failed = keys.iter().zip(&replies).find(|(_, reply)| !reply.is_gone());
                let Some((key, reply)) = failed else { return Ok(()) };
                said = format!("`{}`: {}", visible(key.as_str()), reply.in_words());
            }
            Err(error) => {
                said = chain(&error);
                if !error.fault.is_transient() {
                    break;
                }
            }
        }
    }
    let right = format!("s3:DeleteObject on arn:aws:s3:::{}/{}*", bench.scope.bucket, bench.scope.prefix);
    Err(format!("{} objects of {id} ({said}; it needs {right})", keys.len()))
}
