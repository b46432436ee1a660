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

    /// The tenant that the call is for; none if the caller may name any tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether the caller has this scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
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
}
