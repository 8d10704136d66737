//! Scratch datasets: noted, written, and seen to be there.
//!
//! Invariant: a row or an object is in the journal, on the disk, before it is sent; every key lies under the canonical prefix of an
//! id that was made for it.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Bench, Broken, row_name};
use crate::config::Scope;
use crate::list::pages::Pages;
use crate::model::{DatasetId, Object, ObjectKey, RunId, Timestamp, visible};
use crate::record::{NewScratch, Scratch, ScratchKind, ScratchState};

/// What lies under each prefix of a scratch dataset, nested as the platform nests.
const NAMES: [&str; 2] = ["sample-0/rx_0.npy", "sample-0/nested/deeper/rx 1+.npy"];
/// Datasets with objects that one self-test makes: with four rows, and one without.
pub(super) const DATASETS: usize = 5;

/// How many objects each of them has.
pub(super) fn objects_of(scope: &Scope) -> usize {
    scope.patterns.len() * NAMES.len()
}

/// A dataset that a self-test made.
pub(super) struct ScratchDataset {
    /// Its id.
    pub(super) id: DatasetId,
    /// Its row, unless it was leaked on purpose.
    row: Option<Scratch>,
    /// Its objects.
    pub(super) objects: Vec<Scratch>,
}

impl ScratchDataset {
    /// Notes that a deletion took it, which was seen.
    pub(super) async fn note_gone(&self, bench: &Bench<'_>) -> Result<(), Broken> {
        let all = self.row.iter().chain(&self.objects);
        Ok(bench.services.ledger.settle_scratch(all, ScratchState::Removed).await?)
    }
}

/// Which rows a dataset gets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows {
    /// Its own and what falls with it; the job that made it, where one did.
    Live(Option<Uuid>),
    /// None: it is a leak.
    Leaked,
}

/// Notes what is about to be written.
pub(super) async fn intend(bench: &Bench<'_>, new: &[NewScratch]) -> Result<Vec<Scratch>, Broken> {
    let (ledger, now) = (&bench.services.ledger, bench.services.clock.now());
    Ok(ledger.intend_scratch((&bench.scope.name, bench.run), new, now).await?)
}

/// What an object of a self-test holds: its run and its key, so that no two are alike.
fn body(run: RunId, key: &str) -> Vec<u8> {
    format!("orphan-sweeper selftest {run}\n{key}\n").into_bytes()
}

/// Writes a dataset: its rows first, so that it is never an orphan unless it is meant to be.
pub(super) async fn write(bench: &Bench<'_>, rows: Rows) -> Result<ScratchDataset, Broken> {
    let id = DatasetId(Uuid::new_v4());
    let row = match rows {
        Rows::Leaked => None,
        Rows::Live(job) => Some(insert(bench, id, job).await?),
    };
    let keys = bench.scope.patterns.iter().flat_map(|pattern| {
        let prefix = pattern.prefix_of(id);
        NAMES.map(|name| format!("{prefix}{name}"))
    });
    let new: Vec<NewScratch> = keys
        .map(|key| {
            let size_bytes = body(bench.run, &key).len() as u64;
            NewScratch { kind: ScratchKind::Object, name: key, dataset: Some(id), size_bytes }
        })
        .collect();
    let mut objects = intend(bench, &new).await?;
    crate::failpoint::reach("selftest_objects_intended");
    for object in &mut objects {
        let (key, body) = (ObjectKey::new(&*object.name), body(bench.run, &object.name));
        let sent = Box::pin(bench.putter.put(&key, body, bench.run)).await;
        object.etag = sent.map_err(|error| {
            let (bucket, prefix) = (&bench.scope.bucket, &bench.scope.prefix);
            Broken::of_store(&error, &format!("s3:PutObject on arn:aws:s3:::{bucket}/{prefix}* to the pair of the self-test (config.toml, `[scope.selftest]`)"))
        })?;
        crate::failpoint::reach("selftest_object_put");
    }
    bench.services.ledger.settle_scratch(&objects, ScratchState::Written).await?;
    Ok(ScratchDataset { id, row, objects })
}

/// Inserts the rows of a dataset, in a transaction of their own.
async fn insert(bench: &Bench<'_>, id: DatasetId, job: Option<Uuid>) -> Result<Scratch, Broken> {
    let new = NewScratch { kind: ScratchKind::Dataset, name: id.to_string(), dataset: Some(id), size_bytes: 0 };
    let noted = intend(bench, &[new]).await?;
    crate::failpoint::reach("selftest_row_intended");
    let mut change = bench.inserting.begin().await?;
    change.insert_dataset(&bench.scope.selftest.statements, (id, &row_name(bench.run)), job).await?;
    change.commit().await?;
    crate::failpoint::reach("selftest_row_written");
    bench.services.ledger.settle_scratch(&noted, ScratchState::Written).await?;
    Ok(noted.into_iter().next().expect("one was noted"))
}

/// Writes the first dataset, and sees it in the store, in its tables and among the live ids.
pub(super) async fn write_and_see(bench: &Bench<'_>) -> Result<(ScratchDataset, String), Broken> {
    let dataset = write(bench, Rows::Live(None)).await?;
    see(bench, &dataset).await?;
    let detail = format!(
        "dataset {} is live, with {} objects under {} patterns",
        dataset.id,
        dataset.objects.len(),
        bench.scope.patterns.len()
    );
    Ok((dataset, detail))
}

/// A live dataset must be there whole: its objects and nobody else's, its rows, and its id among the live ones.
pub(super) async fn see(bench: &Bench<'_>, dataset: &ScratchDataset) -> Result<(), Broken> {
    see_objects(bench, dataset).await?;
    let look = bench.reading.references.look(&[dataset.id]).await?;
    if !look.is_live(dataset.id) {
        return Err(Broken::new(
            format!("the row of dataset {} was inserted, and the live tables do not show it", dataset.id),
            "`[scope.selftest.statements]` and `[[scope.live]]` must be about the same table, and both roles see its rows",
        ));
    }
    let mut change = bench.removing.begin().await?;
    let row = change.dataset(dataset.id).await?;
    let children = change.dependent_rows(dataset.id).await?;
    change.roll_back().await;
    if row.and_then(|row| row.name).as_deref() != Some(&*row_name(bench.run)) {
        return Err(Broken::new(
            format!("dataset {} does not bear the name that it was given", dataset.id),
            "`find_dataset` of `[scope.purge.statements]` must give the column that `insert_dataset` fills with `$2`",
        ));
    }
    let has_children = !bench.scope.selftest.statements.insert_children.is_empty();
    if has_children && children.iter().all(|table| table.rows == 0) && !children.is_empty() {
        return Err(Broken::new(
            format!("dataset {} has no rows in the tables that fall with it", dataset.id),
            "`scope.purge.dependents` and `insert_children` must be about the same tables",
        ));
    }
    Ok(())
}

/// Its objects must be there as they were put, and nobody else's: whoever deletes the dataset deletes all of them.
pub(super) async fn see_objects(bench: &Bench<'_>, dataset: &ScratchDataset) -> Result<(), Broken> {
    let (listed, _) = list(bench, dataset.id).await?;
    for object in &dataset.objects {
        if !listed.iter().any(|listed| is_as_put(object, listed)) {
            return Err(Broken::new(
                format!("`{}` was put, and the listing does not show it as it was put", visible(&object.name)),
                "what was put must be listed at once: run `orphan-sweeper doctor --probe`",
            ));
        }
    }
    let others: Vec<String> = listed
        .iter()
        .filter(|listed| !dataset.objects.iter().any(|object| is_as_put(object, listed)))
        .map(|other| format!("`{}`", visible(other.key.as_str())))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Broken::new(
        format!("somebody else writes under the scratch dataset {}: {}", dataset.id, others.join(", ")),
        "find out who; what is theirs stays, and the self-test goes no further",
    ))
}

/// Whether a listing shows an object of the journal as it was put.
pub(super) fn is_as_put(object: &Scratch, listed: &Object) -> bool {
    let plain = |etag: &str| etag.trim_matches('"').to_owned();
    object.name == listed.key.as_str()
        && object.size_bytes == listed.size_bytes
        && object.etag.as_deref().is_some_and(|etag| plain(etag) == plain(&listed.etag))
}

/// Everything under the canonical prefixes of an id, with the store's clock.
pub(super) async fn list(bench: &Bench<'_>, id: DatasetId) -> Result<(Vec<Object>, Option<Timestamp>), Broken> {
    let (never, mut listed, mut date) = (CancellationToken::new(), Vec::new(), None);
    for pattern in &bench.scope.patterns {
        let prefix = pattern.prefix_of(id);
        let mut pages = Pages::new(&*bench.reading.store, &prefix, false, &never);
        loop {
            let page = pages.next().await;
            let page = page.map_err(|error| {
                Broken::of_store(&error, &format!("s3:ListBucket on arn:aws:s3:::{}", bench.scope.bucket))
            })?;
            let Some(page) = page else { break };
            listed.extend(page.objects);
        }
        date = pages.first_date();
    }
    Ok((listed, date))
}
