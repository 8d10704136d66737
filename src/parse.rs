//! parse: a listed prefix in, a reading out. Pure.
//!
//! Invariant: only the canonical lowercase hyphenated spelling, in an exact pattern that ends in `/`, reads as
//! a group that can be deleted; any other spelling that is still a UUID protects and is never deleted; everything else
//! is foreign.

use regex::Regex;

use crate::model::{DatasetId, Group};

/// The canonical spelling of a UUID.
const CANONICAL_ID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// One id pattern: a template such as `synthetic/dataset-{id}/`, compiled to anchored regexes.
///
/// - Source: `scope.patterns`.
#[derive(Debug, Clone)]
pub struct Pattern {
    template: String,
    head: String,
    tail: String,
    canonical: Regex,
    lenient: Regex,
}

/// Why a template is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `{id}` stands there never or more than once.
    #[error("`{{id}}` must stand in it exactly once")]
    IdCount,
    /// The last character is not `/`.
    #[error("it must end in `/`")]
    NoTrailingSlash,
    /// A listing of the scope prefix by delimiter would not show it.
    #[error("after the scope's prefix `{0}` it may hold one `/`, at its end")]
    NotOneLevelBelow(String),
}

impl Pattern {
    /// Compiles `template` for a scope that lists `scope_prefix`.
    ///
    /// - Errors: [`PatternError`] where the template could be unanchored or could not be listed.
    pub fn compile(template: &str, scope_prefix: &str) -> Result<Self, PatternError> {
        let mut parts = template.split("{id}");
        let (Some(head), Some(tail), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(PatternError::IdCount);
        };
        if !tail.ends_with('/') {
            return Err(PatternError::NoTrailingSlash);
        }
        let not_below = || PatternError::NotOneLevelBelow(scope_prefix.to_owned());
        let below = head.strip_prefix(scope_prefix).ok_or_else(not_below)?;
        if below.contains('/') || tail.matches('/').count() != 1 {
            return Err(not_below());
        }
        let anchored = |middle: &str| {
            Regex::new(&format!(r"(?s)\A{}({middle}){}\z", regex::escape(head), regex::escape(tail)))
                .expect("escaped literals around a constant group are a valid regex")
        };
        Ok(Self {
            template: template.to_owned(),
            head: head.to_owned(),
            tail: tail.to_owned(),
            canonical: anchored(CANONICAL_ID),
            lenient: anchored(".+"),
        })
    }

    /// The template as configured.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// The prefix of the group that this pattern gives `id`.
    pub fn prefix_of(&self, id: DatasetId) -> String {
        format!("{}{id}{}", self.head, self.tail)
    }
}

/// What a listed prefix is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyReading {
    /// A group in the one spelling that can be deleted, or an odd spelling that only protects.
    Group(Group),
    /// No pattern reads it, or two do: kept and reported.
    Foreign(ForeignReason),
}

/// Why a prefix or key belongs to no dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignReason {
    /// No pattern reads it.
    NoPattern,
    /// Several patterns read different ids in it.
    Ambiguous,
    /// A key that lies directly under the scope's prefix.
    KeyOutsideGroups,
}

impl ForeignReason {
    /// The word that foreign.csv shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPattern => "no_pattern",
            Self::Ambiguous => "ambiguous",
            Self::KeyOutsideGroups => "key_outside_groups",
        }
    }
}

/// Reads one listed prefix.
pub fn read_prefix(prefix: &str, patterns: &[Pattern]) -> KeyReading {
    let mut readings = patterns.iter().zip(0_u8..).filter_map(|(pattern, index)| read_by(prefix, pattern, index));
    match (readings.next(), readings.next()) {
        (None, _) => KeyReading::Foreign(ForeignReason::NoPattern),
        (Some(group), None) => KeyReading::Group(group),
        (Some(_), Some(_)) => KeyReading::Foreign(ForeignReason::Ambiguous),
    }
}

fn read_by(prefix: &str, pattern: &Pattern, index: u8) -> Option<Group> {
    if let Some(captures) = pattern.canonical.captures(prefix) {
        let id = DatasetId::parse_lenient(&captures[1])?;
        return Some(Group { id, pattern: index, odd_spelling: None });
    }
    let captures = pattern.lenient.captures(prefix)?;
    let id = DatasetId::parse_lenient(&captures[1])?;
    Some(Group { id, pattern: index, odd_spelling: Some(prefix.into()) })
}

/// The group that a key lies in, where it is spelled as a group that can be deleted: its id and its prefix.
pub fn group_of_key<'k>(key: &'k str, scope_prefix: &str, patterns: &[Pattern]) -> Option<(DatasetId, &'k str)> {
    let below = key.strip_prefix(scope_prefix)?;
    let (prefix, _) = key.split_at(scope_prefix.len() + below.find('/')? + 1);
    match read_prefix(prefix, patterns) {
        KeyReading::Group(group) if group.is_canonical() => Some((group.id, prefix)),
        KeyReading::Group(_) | KeyReading::Foreign(_) => None,
    }
}

/// The prefix of a group, exactly as the store listed it.
pub fn prefix_of(group: &Group, patterns: &[Pattern]) -> String {
    match &group.odd_spelling {
        Some(listed) => listed.to_string(),
        None => patterns[usize::from(group.pattern)].prefix_of(group.id),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10";

    fn platform() -> Vec<Pattern> {
        ["synthetic/{id}/", "synthetic/dataset-{id}/"]
            .iter()
            .map(|template| Pattern::compile(template, "synthetic/").expect("platform patterns compile"))
            .collect()
    }

    fn read(prefix: &str) -> KeyReading {
        read_prefix(prefix, &platform())
    }

    fn canonical(pattern: u8) -> KeyReading {
        let id = DatasetId::parse_lenient(ID).expect("a uuid");
        KeyReading::Group(Group { id, pattern, odd_spelling: None })
    }

    #[test]
    fn both_patterns_are_read() {
        assert_eq!(read(&format!("synthetic/{ID}/")), canonical(0));
        assert_eq!(read(&format!("synthetic/dataset-{ID}/")), canonical(1));
    }

    #[test]
    fn odd_spellings_protect_and_are_not_canonical() {
        let id = DatasetId::parse_lenient(ID).expect("a uuid");
        let simple = ID.replace('-', "");
        for odd in [
            ID.to_uppercase(),
            format!("{{{ID}}}"),
            format!("urn:uuid:{ID}"),
            simple,
            format!(" {ID}"),
            format!("{ID}\n"),
        ] {
            for (pattern, head) in [(0, ""), (1, "dataset-")] {
                let prefix = format!("synthetic/{head}{odd}/");
                let group = Group { id, pattern, odd_spelling: Some(prefix.as_str().into()) };
                assert_eq!(read(&prefix), KeyReading::Group(group), "{prefix}");
            }
        }
    }

    #[test]
    fn everything_else_is_foreign() {
        for prefix in [
            format!("synthetic/{ID}x/"),
            format!("synthetic/x{ID}/"),
            format!("synthetic/dataset-dataset-{ID}/"),
            format!("synthetic/Dataset-{ID}/"),
            format!("synthetic/{ID}"),
            format!("synthetic/{ID}//"),
            format!("synthetic//{ID}/"),
            format!("Synthetic/{ID}/"),
            format!("other/synthetic/{ID}/"),
            format!("x\nsynthetic/{ID}/"),
            "synthetic//".into(),
            "synthetic/".into(),
            String::new(),
        ] {
            assert_eq!(read(&prefix), KeyReading::Foreign(ForeignReason::NoPattern), "{prefix:?}");
        }
    }

    #[test]
    fn two_readings_are_a_dispute_and_keep() {
        let twice: Vec<_> =
            ["s/{id}/", "s/{id}/"].iter().map(|template| Pattern::compile(template, "s/").expect("compiles")).collect();
        assert_eq!(read_prefix(&format!("s/{ID}/"), &twice), KeyReading::Foreign(ForeignReason::Ambiguous));
    }

    #[test]
    fn templates_that_could_not_be_anchored_or_listed_are_refused() {
        let compile = |template| Pattern::compile(template, "synthetic/").map(|_| ());
        assert_eq!(compile("synthetic/"), Err(PatternError::IdCount));
        assert_eq!(compile("synthetic/{id}/{id}/"), Err(PatternError::IdCount));
        assert_eq!(compile("synthetic/{id}"), Err(PatternError::NoTrailingSlash));
        let not_below = || Err(PatternError::NotOneLevelBelow("synthetic/".into()));
        assert_eq!(compile("other/{id}/"), not_below());
        assert_eq!(compile("synthetic/{id}/raw/"), not_below());
        assert_eq!(compile("synthetic/a/{id}/"), not_below());
        assert_eq!(compile("synthetic/dataset-{id}-raw/"), Ok(()));
    }

    #[test]
    fn a_group_is_spelled_as_it_was_listed() {
        let patterns = platform();
        for prefix in [
            format!("synthetic/{ID}/"),
            format!("synthetic/dataset-{ID}/"),
            format!("synthetic/{}/", ID.to_uppercase()),
        ] {
            let KeyReading::Group(group) = read_prefix(&prefix, &patterns) else { panic!("{prefix} is a group") };
            assert_eq!(prefix_of(&group, &patterns), prefix);
        }
    }

    #[test]
    fn the_words_of_foreign_csv() {
        let words = [ForeignReason::NoPattern, ForeignReason::Ambiguous, ForeignReason::KeyOutsideGroups]
            .map(ForeignReason::as_str);
        assert_eq!(words, ["no_pattern", "ambiguous", "key_outside_groups"]);
    }

    proptest! {
        #[test]
        fn a_canonical_reading_spells_its_prefix_byte_for_byte(prefix in "(synthetic/)?(dataset-)?[0-9a-fA-F{}:-]{0,45}/?") {
            let patterns = platform();
            if let KeyReading::Group(group) = read_prefix(&prefix, &patterns) {
                prop_assert_eq!(prefix_of(&group, &patterns), prefix);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(prefix in any::<String>()) {
            let _ = read(&prefix);
        }

        #[test]
        fn every_id_is_read_back(id in any::<u128>()) {
            let patterns = platform();
            let id = DatasetId(uuid::Uuid::from_u128(id));
            for (index, pattern) in patterns.iter().enumerate() {
                let expected = Group { id, pattern: u8::try_from(index).expect("two patterns"), odd_spelling: None };
                prop_assert_eq!(read_prefix(&pattern.prefix_of(id), &patterns), KeyReading::Group(expected));
            }
        }

        #[test]
        fn any_template_that_compiles_is_anchored_and_reads_its_own_prefixes_only(
            template in "(s/)?[a-z.*+?^$|()\\[\\]\\\\{}-]{0,6}(\\{id\\})?[a-z.*+?{}/-]{0,4}(\\{id\\})?/?",
            id in any::<u128>(),
            before in "[a-z/]{0,3}",
            after in "[a-z/]{0,3}",
        ) {
            let Ok(pattern) = Pattern::compile(&template, "s/") else { return Ok(()) };
            let id = DatasetId(uuid::Uuid::from_u128(id));
            let prefix = pattern.prefix_of(id);
            let patterns = [pattern];
            prop_assert_eq!(read_prefix(&prefix, &patterns), KeyReading::Group(Group { id, pattern: 0, odd_spelling: None }));
            prop_assert_eq!(&prefix, &template.replace("{id}", &id.to_string()));
            let longer = format!("{before}{prefix}{after}");
            if longer != prefix {
                prop_assert_eq!(read_prefix(&longer, &patterns), KeyReading::Foreign(ForeignReason::NoPattern));
            }
        }

        #[test]
        fn arbitrary_templates_never_panic(template in any::<String>(), scope in any::<String>()) {
            let _ = Pattern::compile(&template, &scope);
        }
    }

    #[test]
    fn a_key_belongs_to_the_group_whose_prefix_it_has() {
        let id = DatasetId::parse_lenient(ID).expect("a uuid");
        let of = |key: &str| group_of_key(key, "synthetic/", &platform()).map(|(id, prefix)| (id, prefix.to_owned()));
        for prefix in [format!("synthetic/{ID}/"), format!("synthetic/dataset-{ID}/")] {
            for name in ["", "a.npy", "sample-1/rx_2.npy", "\u{1}/"] {
                assert_eq!(of(&format!("{prefix}{name}")), Some((id, prefix.clone())), "{name:?}");
            }
        }
        let upper = ID.to_uppercase();
        for key in
            [format!("synthetic/{ID}"), format!("synthetic/{upper}/a"), format!("other/{ID}/a"), "synthetic/x/a".into()]
        {
            assert_eq!(of(&key), None, "{key}");
        }
    }
}
