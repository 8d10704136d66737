//! What a purge would remove: rows by table, objects by prefix. Everything that would forbid it is looked at; nothing is changed.

use serde::Serialize;

use super::rows::Door;
use super::{Order, Refusal};
use crate::config::Scope;
use crate::list::pages::Pages;
use crate::record::{PurgedDataset, PurgedJob};
use crate::run::{Keyring, Services};

/// What a purge would remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The datasets.
    pub datasets: Vec<PurgedDataset>,
    /// The job.
    pub job: Option<PurgedJob>,
    /// Rows that fall with the datasets, by table.
    pub dependent_rows: std::collections::BTreeMap<String, u64>,
    /// What lies in the store.
    pub groups: Vec<GroupPreview>,
}

impl Preview {
    /// Objects and bytes in all.
    pub fn objects(&self) -> (u64, u64) {
        self.groups.iter().fold((0, 0), |(objects, bytes), group| (objects + group.objects, bytes + group.bytes))
    }
}

/// What lies under one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupPreview {
    /// The prefix.
    pub prefix: String,
    /// Its objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Looks at what `order` would remove.
///
/// - Errors: [`Refusal`], as the purge itself would say.
pub async fn preview(services: &Services, keyring: &Keyring, scope: &Scope, order: Order) -> Result<Preview, Refusal> {
    let door = Door::open(services, keyring, scope)?;
    door.check_stops().await?;
    let mut change = door.platform.begin().await?;
    let found = door.examine(&mut change, order).await?;
    let mut dependent_rows = std::collections::BTreeMap::new();
    for dataset in &found.datasets {
        for dependent in change.dependent_rows(dataset.id).await? {
            *dependent_rows.entry(dependent.table).or_default() += dependent.rows;
        }
    }
    change.roll_back().await;
    let mut groups = Vec::new();
    for dataset in found.datasets.iter().filter(|dataset| dataset.has_objects) {
        for pattern in &scope.patterns {
            let prefix = pattern.prefix_of(dataset.id);
            let mut group = GroupPreview { prefix: prefix.clone(), objects: 0, bytes: 0 };
            let mut pages = Pages::new(&*door.reading.store, &prefix, false, &services.stop.token);
            while let Some(page) = pages.next().await? {
                group.objects += page.objects.len() as u64;
                group.bytes =
                    page.objects.iter().fold(group.bytes, |bytes, object| bytes.saturating_add(object.size_bytes));
            }
            groups.push(group);
        }
    }
    Ok(Preview { datasets: found.datasets, job: found.job, dependent_rows, groups })
}
