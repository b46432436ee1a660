//! What a key allows.

use std::fmt;

/// What a caller may do. A key has some of these, and each call names the one that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See the tenant's jobs, images and inputs.
    Read,
    /// Submit jobs, and pause, resume, cancel, retry and delete the tenant's jobs.
    Submit,
    /// See and control the jobs of every tenant, and the workers.
    Operate,
    /// Keys, tenants, quotas and retention.
    Admin,
    /// Make only the calls that encoders and workers need to join the farm.
    Member,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Read, Self::Submit, Self::Operate, Self::Admin, Self::Member];

    /// Its name in SQL, in sentences and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The scope with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Whether a key with this scope may do what needs `other`: `operate` includes `submit`, which
    /// includes `read`. The others include nothing else.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Submit => other == Self::Read,
                Self::Operate => matches!(other, Self::Read | Self::Submit),
                Self::Read | Self::Admin | Self::Member => false,
            }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_has_a_name_and_a_place() {
        // A new scope needs a line here, and a longer list.
        let place = |scope| match scope {
            Scope::Read => 0,
            Scope::Submit => 1,
            Scope::Operate => 2,
            Scope::Admin => 3,
            Scope::Member => 4,
        };
        assert_eq!(Scope::ALL.map(place), [0, 1, 2, 3, 4]);
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.name()), Some(scope));
        }
        assert_eq!(Scope::named("Read"), None);
    }

    #[test]
    fn a_scope_includes_itself_and_only_operate_and_submit_more() {
        let included = |scope: Scope| {
            Scope::ALL.into_iter().filter(|other| scope.includes(*other)).collect::<Vec<_>>()
        };
        assert_eq!(included(Scope::Read), [Scope::Read]);
        assert_eq!(included(Scope::Submit), [Scope::Read, Scope::Submit]);
        assert_eq!(included(Scope::Operate), [Scope::Read, Scope::Submit, Scope::Operate]);
        assert_eq!(included(Scope::Admin), [Scope::Admin]);
        assert_eq!(included(Scope::Member), [Scope::Member]);
    }
}
