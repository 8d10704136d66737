//! diff: groups against references, both directions in one pass. Pure.
//!
//! Takes the finished listing and, row by row, the live ids; gives the orphans and what is missing. Invariant: an id
//! with a row in any table protects every group of that id, in any spelling.

use std::ops::Range;

use crate::model::{DatasetId, Group, LiveRow, Timestamp};

/// The comparison while rows arrive.
#[derive(Debug)]
pub struct Diff {
    groups: Vec<Group>,
    live: Vec<bool>,
    judged_at: Timestamp,
    grace: chrono::Duration,
    overlap: Overlap,
    missing: u64,
    rows: u64,
}

/// Of the rows that are older than grace and expect objects, how many have a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Rows older than grace that expect objects.
    pub expected: u64,
    /// Those of them whose id was listed.
    pub seen: u64,
}

impl Overlap {
    /// The share that was seen; `None` without such rows.
    pub fn share(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        (self.expected > 0).then(|| self.seen as f64 / self.expected as f64)
    }
}

impl Diff {
    /// Compares with `groups`, which are sorted by id. Ages of rows are judged at the listing's time, `judged_at`.
    pub fn new(groups: Vec<Group>, judged_at: Timestamp, grace: chrono::Duration) -> Self {
        debug_assert!(groups.is_sorted(), "binary search needs sorted groups");
        let live = vec![false; groups.len()];
        Self { groups, live, judged_at, grace, overlap: Overlap::default(), missing: 0, rows: 0 }
    }

    /// Takes one row; says whether it should have objects and has none, for `missing_after` of its table.
    pub fn visit(&mut self, row: &LiveRow, missing_after: chrono::Duration) -> bool {
        self.rows += 1;
        let range = range_of(&self.groups, row.id);
        let is_listed = !range.is_empty();
        self.live[range].fill(true);
        if !row.expects_objects {
            return false;
        }
        let is_older_than = |span| row.created_at.is_some_and(|created| self.judged_at - created >= span);
        if is_older_than(self.grace) {
            self.overlap.expected += 1;
            self.overlap.seen += u64::from(is_listed);
        }
        // A row of unknown age is shown: silence could hide lost data.
        let is_missing = !is_listed && (row.created_at.is_none() || is_older_than(missing_after));
        self.missing += u64::from(is_missing);
        is_missing
    }

    /// The findings, once every row was visited.
    pub fn finish(self) -> Findings {
        Findings { groups: self.groups, live: self.live, overlap: self.overlap, missing: self.missing, rows: self.rows }
    }
}

/// What the comparison found.
#[derive(Debug)]
pub struct Findings {
    groups: Vec<Group>,
    live: Vec<bool>,
    /// How much of what the database expects was listed.
    pub overlap: Overlap,
    /// Rows that should have objects and have none.
    pub missing: u64,
    /// Rows read.
    pub rows: u64,
}

impl Findings {
    /// Groups in the listing.
    pub fn listed(&self) -> usize {
        self.groups.len()
    }

    /// Groups whose id is live.
    pub fn live(&self) -> usize {
        self.live.iter().filter(|live| **live).count()
    }

    /// The ids without a row, each with all its groups.
    pub fn orphans(&self) -> impl Iterator<Item = &[Group]> {
        self.groups.chunk_by(|a, b| a.id == b.id).filter(|groups| !self.is_live(groups[0].id))
    }

    /// Whether a row keeps this id alive, as far as the listing knows it.
    pub fn is_live(&self, id: DatasetId) -> bool {
        self.live[range_of(&self.groups, id)].iter().any(|live| *live)
    }

    /// All groups of an id.
    pub fn groups_of(&self, id: DatasetId) -> &[Group] {
        &self.groups[range_of(&self.groups, id)]
    }
}

fn range_of(groups: &[Group], id: DatasetId) -> Range<usize> {
    let start = groups.partition_point(|group| group.id < id);
    let length = groups[start..].iter().take_while(|group| group.id == id).count();
    start..start + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
    }

    fn id(n: u128) -> DatasetId {
        DatasetId(Uuid::from_u128(n))
    }

    fn group(n: u128, pattern: u8) -> Group {
        Group { id: id(n), pattern, odd_spelling: None }
    }

    fn row(n: u128, age_s: i64) -> LiveRow {
        LiveRow { id: id(n), table: 0, created_at: Some(at(-age_s)), expects_objects: true }
    }

    fn diff(groups: &[Group]) -> Diff {
        let mut groups = groups.to_vec();
        groups.sort();
        Diff::new(groups, at(0), chrono::Duration::seconds(100))
    }

    const DAY: chrono::Duration = chrono::Duration::seconds(50);

    #[test]
    fn a_live_id_protects_both_its_groups_and_every_spelling() {
        let odd = Group { odd_spelling: Some("X/".into()), ..group(2, 0) };
        let mut diff = diff(&[group(1, 0), group(2, 0), group(2, 1), odd, group(3, 1)]);
        assert!(!diff.visit(&row(2, 1000), DAY));
        let findings = diff.finish();
        assert_eq!((findings.listed(), findings.live()), (5, 3));
        let orphans: Vec<_> = findings.orphans().map(|groups| groups[0].id).collect();
        assert_eq!(orphans, [id(1), id(3)]);
        assert!(findings.is_live(id(2)) && !findings.is_live(id(1)) && !findings.is_live(id(9)));
        assert_eq!((findings.groups_of(id(2)).len(), findings.groups_of(id(9)).len(), findings.rows), (3, 0, 1));
        assert!(findings.groups_of(id(2)).iter().all(|group| group.id == id(2)));
    }

    #[test]
    fn a_row_without_objects_is_missing_once_it_is_old_enough() {
        let mut diff = diff(&[group(1, 0)]);
        assert!(!diff.visit(&row(1, 1000), DAY), "it has objects");
        assert!(!diff.visit(&row(5, 49), DAY), "one second too young");
        assert!(diff.visit(&row(5, 50), DAY), "old enough");
        assert!(diff.visit(&LiveRow { created_at: None, ..row(6, 0) }, DAY), "of unknown age");
        assert!(!diff.visit(&LiveRow { expects_objects: false, ..row(7, 1000) }, DAY), "expects none");
        assert_eq!(diff.finish().missing, 2);
    }

    #[test]
    fn overlap_counts_rows_from_grace_on() {
        let mut diff = diff(&[group(1, 0), group(2, 0)]);
        for (n, age) in [(1, 100), (2, 99), (3, 100), (4, 99)] {
            diff.visit(&row(n, age), DAY);
        }
        let overlap = diff.finish().overlap;
        assert_eq!(overlap, Overlap { expected: 2, seen: 1 });
        assert_eq!(overlap.share(), Some(0.5));
        assert_eq!(Overlap::default().share(), None);
    }

    proptest! {
        #[test]
        fn every_group_is_live_or_an_orphan_and_more_rows_never_make_more_orphans(
            groups in proptest::collection::btree_set((0..20_u128, 0..2_u8), 0..30),
            rows in proptest::collection::vec(0..25_u128, 0..30),
            more in proptest::collection::vec(0..25_u128, 0..10),
        ) {
            let groups: Vec<_> = groups.into_iter().map(|(n, pattern)| group(n, pattern)).collect();
            let run = |rows: &[u128]| {
                let mut diff = diff(&groups);
                rows.iter().for_each(|n| { diff.visit(&row(*n, 1000), DAY); });
                diff.finish()
            };
            let findings = run(&rows);
            let orphans: usize = findings.orphans().map(<[Group]>::len).sum();
            prop_assert_eq!(findings.live() + orphans, findings.listed());
            prop_assert!(findings.orphans().all(|groups| rows.iter().all(|n| id(*n) != groups[0].id)));
            let all: Vec<_> = rows.iter().chain(&more).copied().collect();
            prop_assert!(run(&all).orphans().count() <= findings.orphans().count());
        }
    }
}
