//! Tallies: one number for a set of rows, which moves with every row that is written or removed, and can be counted
//! anew from the rows at any time.
//!
//! Invariant: the order of rows does not matter, and a row that is added and removed leaves no trace.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha512};

/// The sum of the SHA-512 of every row, modulo 2^512, and the number of rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::record) struct Tally {
    /// How many rows; below zero in a change that removes more than it adds.
    pub(in crate::record) rows: i64,
    sum: [u64; 8],
}

impl Tally {
    /// No row.
    pub(in crate::record) const NONE: Self = Self { rows: 0, sum: [0; 8] };

    /// The tally of one row, given field by field.
    pub(in crate::record) fn of_row(fields: &[&[u8]]) -> Self {
        let mut hasher = Sha512::new();
        for field in fields {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        let mut sum = [0; 8];
        for (limb, bytes) in sum.iter_mut().rev().zip(hasher.finalize().chunks_exact(8)) {
            *limb = u64::from_be_bytes(bytes.try_into().expect("a chunk of eight"));
        }
        Self { rows: 1, sum }
    }

    /// This and another together.
    pub(in crate::record) fn plus(mut self, other: Self) -> Self {
        let mut carry = false;
        for (limb, more) in self.sum.iter_mut().zip(other.sum) {
            let (partial, first) = limb.overflowing_add(more);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*limb, carry) = (total, first || second);
        }
        self.rows += other.rows;
        self
    }

    /// What takes this away when it is added.
    pub(in crate::record) fn negated(self) -> Self {
        let inverted = Self { rows: -self.rows, sum: self.sum.map(|limb| !limb) };
        inverted.plus(Self { rows: 0, sum: [1, 0, 0, 0, 0, 0, 0, 0] })
    }

    fn to_json(self) -> Value {
        let limbs: Vec<String> = self.sum.iter().rev().map(|limb| format!("{limb:016x}")).collect();
        json!([self.rows, limbs.concat()])
    }

    fn from_json(value: &Value) -> Option<Self> {
        let [rows, sum] = value.as_array()?.as_slice() else { return None };
        let digits = sum.as_str().filter(|digits| digits.len() == 128 && digits.is_ascii())?;
        let mut limbs = [0; 8];
        for (position, limb) in limbs.iter_mut().rev().enumerate() {
            *limb = u64::from_str_radix(&digits[position * 16..(position + 1) * 16], 16).ok()?;
        }
        Some(Self { rows: rows.as_i64()?, sum: limbs })
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_json())
    }
}

/// A tally for each group of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::record) struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    /// Adds to the tally of one group.
    pub(in crate::record) fn add(&mut self, group: &str, tally: Tally) {
        let before = self.0.get(group).copied().unwrap_or(Tally::NONE);
        let after = before.plus(tally);
        if after == Tally::NONE {
            self.0.remove(group);
        } else {
            self.0.insert(group.to_owned(), after);
        }
    }

    /// Adds every tally of another.
    pub(in crate::record) fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(group, tally)| self.add(group, *tally));
    }

    /// Whether nothing is counted.
    pub(in crate::record) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it stands in an entry.
    pub(in crate::record) fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(group, tally)| (group.clone(), tally.to_json())).collect())
    }

    /// Reads what [`Tallies::to_json`] wrote.
    pub(in crate::record) fn from_json(value: &Value) -> Option<Self> {
        let read = |(group, tally): (&String, &Value)| Some((group.clone(), Tally::from_json(tally)?));
        value.as_object()?.iter().map(read).collect::<Option<_>>().map(Self)
    }

    /// The first group in which two differ, with both of its tallies.
    pub(in crate::record) fn first_difference<'t>(&'t self, other: &'t Self) -> Option<(&'t str, Tally, Tally)> {
        let groups = self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>();
        let of = |tallies: &Self, group: &str| tallies.0.get(group).copied().unwrap_or(Tally::NONE);
        groups
            .into_iter()
            .map(|group| (group.as_str(), of(self, group), of(other, group)))
            .find(|(_, one, two)| one != two)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(text: &str) -> Tally {
        Tally::of_row(&[text.as_bytes()])
    }

    #[test]
    fn what_is_added_and_removed_leaves_no_trace() {
        let (a, b) = (row("a"), row("b"));
        assert_eq!(a.plus(b), b.plus(a));
        assert_eq!(a.plus(b).plus(a.negated()), b);
        assert_eq!(a.plus(a.negated()), Tally::NONE);
        assert_ne!(a.plus(a), a, "twice is not once");
        let mut tallies = Tallies::default();
        tallies.add("g", a);
        tallies.add("g", a.negated());
        assert!(tallies.is_empty());
    }

    #[test]
    fn the_bounds_of_fields_count() {
        assert_ne!(Tally::of_row(&[b"ab", b"c"]), Tally::of_row(&[b"a", b"bc"]));
        assert_ne!(Tally::of_row(&[b"", b"a"]), Tally::of_row(&[b"a", b""]));
    }

    #[test]
    fn a_difference_is_found_on_either_side() {
        let (mut one, mut two) = (Tallies::default(), Tallies::default());
        one.add("same", row("x"));
        two.add("same", row("x"));
        assert_eq!(one.first_difference(&two), None);
        two.add("more", row("y"));
        assert_eq!(one.first_difference(&two), Some(("more", Tally::NONE, row("y"))));
        one.add("more", row("z"));
        assert_eq!(one.first_difference(&two), Some(("more", row("z"), row("y"))));
    }

    proptest! {
        #[test]
        fn tallies_survive_being_written_down(rows in proptest::collection::vec(("[a-c\u{e9}/]{0,3}", any::<bool>(), any::<u8>()), 0..40)) {
            let mut tallies = Tallies::default();
            for (group, is_removed, text) in &rows {
                let tally = row(&text.to_string());
                tallies.add(group, if *is_removed { tally.negated() } else { tally });
            }
            prop_assert_eq!(Tallies::from_json(&tallies.to_json()), Some(tallies));
        }

        #[test]
        fn what_is_no_tally_is_refused_without_a_panic(text in "\\PC{0,160}") {
            let is_refused = Tallies::from_json(&json!({ "g": [1, text] })).is_none();
            prop_assert!(is_refused || text.len() == 128);
        }
    }
}
