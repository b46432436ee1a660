//! Who makes a call, and what they may do.

use std::collections::BTreeSet;

/// Who makes a call.
///
/// A [`CallerLayer`](crate::CallerLayer) creates the caller when a request arrives. Handlers
/// receive it with the message; they read no headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    tenant: Option<String>,
    scopes: BTreeSet<Scope>,
    key: Option<String>,
}

impl Caller {
    /// The caller of an open farm, which has no authentication: may do everything, for every
    /// tenant.
    #[must_use]
    pub fn open() -> Self {
        Self { tenant: None, scopes: Scope::ALL.into(), key: None }
    }

    /// A caller of this tenant with these scopes; `key` is the id of the key that it showed.
    #[must_use]
    pub fn of(
        tenant: Option<String>,
        scopes: impl IntoIterator<Item = Scope>,
        key: Option<String>,
    ) -> Self {
        Self { tenant, scopes: scopes.into_iter().collect(), key }
    }

    /// The tenant that the call is for; none if the caller may name any tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether the caller has this scope, or one that includes it.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.includes(scope))
    }

    /// Id of the key that the caller showed, for the audit; none if no key was required.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// What a caller may do.
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

    /// Whether who has this scope has the other one too.
    fn includes(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Operate => matches!(other, Self::Read | Self::Submit),
                Self::Submit => other == Self::Read,
                Self::Read | Self::Admin | Self::Member => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_farms_caller_may_do_everything_for_every_tenant() {
        // A new scope needs a line here, and a longer list.
        let place = |scope| match scope {
            Scope::Read => 0,
            Scope::Submit => 1,
            Scope::Operate => 2,
            Scope::Admin => 3,
            Scope::Member => 4,
        };
        assert_eq!(Scope::ALL.map(place), [0, 1, 2, 3, 4]);
        let caller = Caller::open();
        assert_eq!((caller.tenant(), caller.key()), (None, None));
        assert!(Scope::ALL.iter().all(|scope| caller.may(*scope)), "{caller:?}");
    }
    #[test]
    fn a_scope_includes_the_smaller_ones_and_no_others() {
        let all_of = |scope| {
            let caller = Caller::of(Some("studio".to_owned()), [scope], Some("k".to_owned()));
            assert_eq!((caller.tenant(), caller.key()), (Some("studio"), Some("k")));
            Scope::ALL.into_iter().filter(|other| caller.may(*other)).collect::<Vec<_>>()
        };
        assert_eq!(all_of(Scope::Read), [Scope::Read]);
        assert_eq!(all_of(Scope::Submit), [Scope::Read, Scope::Submit]);
        assert_eq!(all_of(Scope::Operate), [Scope::Read, Scope::Submit, Scope::Operate]);
        assert_eq!(all_of(Scope::Admin), [Scope::Admin]);
        assert_eq!(all_of(Scope::Member), [Scope::Member]);
        assert!(!Scope::ALL.into_iter().any(|scope| Caller::of(None, [], None).may(scope)));
    }
}
