//! What a command's end means to a script.

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: usage or configuration.
    Usage,
    /// 3: orphans found, with `--fail-on-orphans`.
    OrphansFound,
    /// 4: refused.
    Refused,
    /// 5: some deletions failed or are unconfirmed.
    SomeFailed,
    /// 6: another run holds the lock.
    Locked,
    /// 130: interrupted by SIGINT.
    Interrupted,
    /// 143: ended by SIGTERM.
    Terminated,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::OrphansFound => 3,
            Self::Refused => 4,
            Self::SomeFailed => 5,
            Self::Locked => 6,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The one code of several scopes, which ran independently: the gravest.
    pub fn of_all(exits: impl IntoIterator<Item = Self>) -> Self {
        const GRAVEST_FIRST: [Exit; 8] = [
            Exit::Terminated,
            Exit::Interrupted,
            Exit::Usage,
            Exit::Failed,
            Exit::Refused,
            Exit::SomeFailed,
            Exit::Locked,
            Exit::OrphansFound,
        ];
        let exits: Vec<Self> = exits.into_iter().collect();
        GRAVEST_FIRST.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Self::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_of_several_scopes_wins() {
        use Exit::{Done, Failed, Locked, OrphansFound, Refused, SomeFailed};
        assert_eq!(Exit::of_all([]), Done);
        assert_eq!(Exit::of_all([Done, OrphansFound]), OrphansFound);
        assert_eq!(Exit::of_all([OrphansFound, Locked]), Locked);
        assert_eq!(Exit::of_all([Locked, SomeFailed]), SomeFailed);
        assert_eq!(Exit::of_all([SomeFailed, Refused]), Refused);
        assert_eq!(Exit::of_all([Refused, Failed]), Failed);
    }
}
