//! Who makes a call, and what they may do.

use std::{collections::BTreeSet, net::IpAddr};

use darkroom_core::{
    error::{Code, UserError},
    scope::Scope,
};

/// Who makes a call.
///
/// A [`CallerLayer`](crate::CallerLayer) creates the caller when a request arrives. Handlers
/// receive it with the message; they read no headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    tenant: Option<String>,
    scopes: BTreeSet<Scope>,
    key: Option<String>,
    peer: Option<IpAddr>,
}

impl Caller {
    /// The caller of an open farm, which has no authentication: may do everything, for every
    /// tenant.
    #[must_use]
    pub fn open() -> Self {
        Self::of(None, Scope::ALL, None)
    }

    /// The caller with a key: the tenant that the key belongs to, if any, its scopes, and its id.
    /// With [`Scope::Operate`] and no tenant, the caller may name any tenant.
    #[must_use]
    pub fn of(
        tenant: Option<String>,
        scopes: impl IntoIterator<Item = Scope>,
        key: Option<String>,
    ) -> Self {
        Self { tenant, scopes: scopes.into_iter().collect(), key, peer: None }
    }

    /// The same caller, at this address.
    #[must_use]
    pub fn at(self, peer: Option<IpAddr>) -> Self {
        Self { peer, ..self }
    }

    /// The tenant that the call is for; none if the caller may name any tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether the caller may do what needs this scope: it has the scope, or one that includes it.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|owned| owned.includes(scope))
    }

    /// Id of the key that the caller showed, for the audit; none if no key was required.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The address that the call came from, for the audit; none within one process.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Refuses a caller without this scope.
    ///
    /// # Errors
    /// One sentence that names the scope that is needed and the key.
    pub fn needs(&self, scope: Scope) -> Result<(), UserError> {
        if self.may(scope) {
            return Ok(());
        }
        let key = self.key.as_deref().unwrap_or("none");
        let owned: Vec<_> = self.scopes.iter().map(|scope| scope.name()).collect();
        let message = format!(
            "this call needs scope {scope}; key {key} has {}",
            if owned.is_empty() { "no scope".to_owned() } else { owned.join(", ") }
        );
        Err(UserError::new(Code::PermissionDenied, "SCOPE", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_farms_caller_may_do_everything_for_every_tenant() {
        let caller = Caller::open();
        assert_eq!((caller.tenant(), caller.key(), caller.peer()), (None, None, None));
        assert!(Scope::ALL.iter().all(|scope| caller.may(*scope)), "{caller:?}");
    }

    #[test]
    fn a_caller_may_do_what_its_scopes_include_and_is_told_what_it_lacks() {
        let caller = |scopes: &[Scope]| {
            Caller::of(Some("studio".into()), scopes.iter().copied(), Some("0aZ".into()))
        };
        let submit = caller(&[Scope::Submit]);
        assert!(submit.may(Scope::Read) && submit.may(Scope::Submit));
        assert_eq!((submit.tenant(), submit.key()), (Some("studio"), Some("0aZ")));
        assert_eq!(submit.needs(Scope::Read), Ok(()));
        let refused = submit.needs(Scope::Operate).expect_err("too small");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "SCOPE"));
        assert_eq!(refused.message, "this call needs scope operate; key 0aZ has submit");
        for small in [&[][..], &[Scope::Read], &[Scope::Admin], &[Scope::Member]] {
            assert!(!caller(small).may(Scope::Submit), "{small:?}");
        }
        let refused = caller(&[]).needs(Scope::Read).expect_err("none");
        assert_eq!(refused.message, "this call needs scope read; key 0aZ has no scope");
    }
}
