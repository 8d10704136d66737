//! The numbers behind the charts of the page. Pure.
//!
//! Takes counts; gives positions in per cent, so that a chart fits any width without a script. Every bar comes with
//! its numbers in words: nothing is said by colour or length alone.

use super::meaning;
use crate::decide::{KeepReason, Verdict};
use crate::model::{Timestamp, human_bytes, human_count};
use crate::report::text::words::{self, Tally, percent};
use crate::report::{OrphanRecord, Report};

/// A part that is there is at least this wide, in per cent: a sliver that nobody sees says that there is none.
const SLIVER: f64 = 0.6;

/// A bar cut into parts.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) segments: Vec<Segment>,
}

/// A part of a bar, in per cent of its width.
pub(super) struct Segment {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) title: String,
}

impl Bar {
    /// A bar over `parts` (class, name, amount); `None` where all of them are zero.
    pub(super) fn new(
        what: &str,
        parts: &[(&'static str, String, u64)],
        shown: &dyn Fn(u64) -> String,
    ) -> Option<Self> {
        let present: Vec<_> = parts.iter().filter(|(_, _, amount)| *amount > 0).collect();
        let whole = present.iter().fold(0_u64, |sum, (_, _, amount)| sum.saturating_add(*amount));
        if whole == 0 {
            return None;
        }
        let widths: Vec<f64> =
            present.iter().map(|(_, _, amount)| (share(*amount, whole) * 100.0).max(SLIVER)).collect();
        let total: f64 = widths.iter().sum();
        let mut segments = Vec::with_capacity(present.len());
        let mut x = 0.0;
        for ((class, name, amount), width) in present.iter().zip(widths) {
            let width = width / total * 100.0;
            let title = format!("{name}: {} ({})", shown(*amount), percent(share(*amount, whole)));
            segments.push(Segment { class, x: format!("{x:.3}"), width: format!("{width:.3}"), title });
            x += width;
        }
        let said: Vec<&str> = segments.iter().map(|segment| segment.title.as_str()).collect();
        Some(Self { label: format!("{what}. {}", said.join("; ")), segments })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a width needs no more digits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A line of a legend.
pub(super) struct Entry {
    pub(super) class: &'static str,
    pub(super) label: String,
    pub(super) meaning: &'static str,
    pub(super) groups: String,
    pub(super) objects: String,
    pub(super) bytes: String,
}

impl Entry {
    fn new(class: &'static str, label: String, meaning: &'static str, tally: Tally) -> Self {
        Self {
            class,
            label,
            meaning,
            groups: human_count(tally.groups),
            objects: human_count(tally.objects),
            bytes: human_bytes(tally.bytes),
        }
    }
}

/// What the listed groups are.
pub(super) struct Composition {
    pub(super) bar: Bar,
    pub(super) legend: Vec<Entry>,
}

/// What the listed groups are; `None` where the scan cannot tell.
pub(super) fn composition(report: &Report<'_>) -> Option<Composition> {
    let summary = report.summary;
    if !words::is_scan_complete(summary) {
        return None;
    }
    let groups = &summary.groups;
    let kept = groups.orphan.saturating_sub(groups.eligible);
    let mut parts =
        vec![("live", "live".to_owned(), groups.live), ("eligible", "eligible orphans".to_owned(), groups.eligible)];
    // What was not opened may be empty.
    if words::unopened(report) > 0 {
        parts.push(("kept", "others without a row".to_owned(), kept));
    } else {
        parts.extend([("kept", "kept orphans".to_owned(), kept), ("empty", "empty".to_owned(), groups.empty)]);
    }
    let bar = Bar::new("Listed groups", &parts, &human_count)?;
    let legend = parts
        .into_iter()
        .map(|(class, label, groups)| Entry::new(class, label, "", Tally { groups, ..Tally::default() }))
        .collect();
    Some(Composition { bar, legend })
}

/// What becomes of the orphans.
pub(super) struct Verdicts {
    pub(super) by_groups: Bar,
    pub(super) by_bytes: Option<Bar>,
    pub(super) legend: Vec<Entry>,
}

/// What becomes of the orphans; `None` where none was judged.
pub(super) fn verdicts(report: &Report<'_>) -> Option<Verdicts> {
    if report.orphans.is_empty() {
        return None;
    }
    let verdicts = std::iter::once(Verdict::Eligible).chain(KeepReason::ALL.map(Verdict::Keep));
    let tallies: Vec<(Verdict, Tally)> =
        verdicts.map(|verdict| (verdict, Tally::of(report.orphans, verdict))).collect();
    let unopened = words::unopened(report);
    let parts = |amount: fn(&Tally) -> u64| -> Vec<(&'static str, String, u64)> {
        tallies.iter().map(|(verdict, tally)| (verdict.reason(), name(*verdict), amount(tally))).collect()
    };
    let mut by_groups = parts(|tally| tally.groups);
    by_groups.push(("unopened", "not opened".to_owned(), unopened));
    let mut legend: Vec<Entry> = tallies
        .iter()
        .filter(|(verdict, tally)| tally.groups > 0 || *verdict == Verdict::Eligible)
        .map(|(verdict, tally)| Entry::new(verdict.reason(), name(*verdict), meaning(*verdict), *tally))
        .collect();
    if unopened > 0 {
        let unknown = || "unknown".to_owned();
        let entry = Entry::new(
            "unopened",
            "not opened".to_owned(),
            words::UNOPENED,
            Tally { groups: unopened, ..Tally::default() },
        );
        legend.push(Entry { objects: unknown(), bytes: unknown(), ..entry });
    }
    Some(Verdicts {
        by_groups: Bar::new("Orphans by verdict, in groups", &by_groups, &human_count)?,
        by_bytes: Bar::new("Orphans by verdict, in bytes", &parts(|tally| tally.bytes), &human_bytes),
        legend,
    })
}

fn name(verdict: Verdict) -> String {
    match verdict {
        Verdict::Eligible => "eligible".to_owned(),
        Verdict::Keep(reason) => format!("kept, {}", reason.as_str().replace('_', " ")),
    }
}

/// One bar of the histogram.
pub(super) struct Bin {
    pub(super) label: &'static str,
    pub(super) groups: String,
    pub(super) groups_width: String,
    pub(super) bytes: String,
    pub(super) bytes_width: String,
}

/// The histogram's bins: each ends before its number of days.
const BINS: [(&str, Option<i64>); 6] = [
    ("under 1 day", Some(1)),
    ("1–7 days", Some(7)),
    ("7–30 days", Some(30)),
    ("30–90 days", Some(90)),
    ("90–365 days", Some(365)),
    ("over 1 year", None),
];

/// The bin of a group whose newest object was written at `newest`; the last one where its age cannot be known.
fn bin_of(newest: Option<Timestamp>, as_of: Option<Timestamp>) -> usize {
    let age = newest.zip(as_of).map(|(newest, as_of)| as_of - newest).filter(|age| *age >= chrono::Duration::zero());
    let Some(age) = age else { return BINS.len() };
    let is_in = |end: Option<i64>| end.is_none_or(|days| age < chrono::Duration::days(days));
    BINS.iter().position(|(_, end)| is_in(*end)).unwrap_or(BINS.len())
}

/// How old the orphans are at `as_of`; `None` without any.
pub(super) fn ages(orphans: &[OrphanRecord], as_of: Option<Timestamp>) -> Option<Vec<Bin>> {
    if orphans.is_empty() {
        return None;
    }
    let mut tallies = [Tally::default(); BINS.len() + 1];
    for orphan in orphans {
        tallies[bin_of(orphan.newest, as_of)].add(orphan);
    }
    let most = |amount: fn(&Tally) -> u64| tallies.iter().map(amount).max().unwrap_or(0);
    let (most_groups, most_bytes) = (most(|tally| tally.groups), most(|tally| tally.bytes));
    let width = |amount: u64, most: u64| match amount {
        0 => "0".to_owned(),
        amount => format!("{:.2}", (share(amount, most) * 100.0).max(SLIVER)),
    };
    let labels = BINS.iter().map(|(label, _)| *label).chain(["unknown"]);
    let bins = labels.zip(&tallies).map(|(label, tally)| Bin {
        label,
        groups: human_count(tally.groups),
        groups_width: width(tally.groups, most_groups),
        bytes: human_bytes(tally.bytes),
        bytes_width: width(tally.bytes, most_bytes),
    });
    Some(bins.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::samples;

    #[test]
    fn every_age_falls_into_its_bin_at_the_boundary() {
        let as_of = samples::time("2025-11-23T03:00:00Z");
        let day = 24 * 3600;
        let bins = [
            (0, 0),
            (day - 1, 0),
            (day, 1),
            (7 * day - 1, 1),
            (7 * day, 2),
            (30 * day - 1, 2),
            (30 * day, 3),
            (90 * day - 1, 3),
            (90 * day, 4),
            (365 * day - 1, 4),
            (365 * day, 5),
            (4000 * day, 5),
        ];
        for (age_s, bin) in bins {
            let newest = as_of - chrono::Duration::seconds(age_s);
            assert_eq!(bin_of(Some(newest), Some(as_of)), bin, "{age_s} s");
        }
        let later = as_of + chrono::Duration::seconds(1);
        for (newest, as_of) in [(None, Some(as_of)), (Some(as_of), None), (Some(later), Some(as_of))] {
            assert_eq!(bin_of(newest, as_of), BINS.len(), "{newest:?} at {as_of:?}");
        }
    }

    #[test]
    fn histogram_counts_every_orphan_once() {
        let orphans = samples::orphans(50);
        let bins = ages(&orphans, Some(samples::time("2025-11-23T03:00:00Z"))).expect("there are orphans");
        let counted: u64 = bins.iter().map(|bin| bin.groups.parse::<u64>().expect("a number")).sum();
        assert_eq!(counted, 50);
        assert_eq!(bins.last().map(|bin| bin.label), Some("unknown"));
        assert!(ages(&[], None).is_none());
    }

    #[test]
    fn bar_is_full_and_shows_slivers() {
        let parts =
            [("live", "live".to_owned(), 1_000_000), ("empty", "empty".to_owned(), 1), ("kept", "kept".to_owned(), 0)];
        let bar = Bar::new("Groups", &parts, &human_count).expect("something to show");
        assert_eq!(bar.segments.len(), 2);
        let widths: Vec<f64> = bar.segments.iter().map(|segment| segment.width.parse().expect("a number")).collect();
        assert!((widths.iter().sum::<f64>() - 100.0).abs() < 0.01, "{widths:?}");
        assert!(widths[1] > 0.5, "{widths:?}");
        assert_eq!(bar.label, "Groups. live: 1,000,000 (100 %); empty: 1 (0 %)");
        assert!(Bar::new("Groups", &[("live", "live".to_owned(), 0)], &human_count).is_none());
    }
}
