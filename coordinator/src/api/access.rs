//! What a caller may see and change: everything with the scope `operate`, else what is its own
//! tenant's.
//!
//! What belongs to another tenant is answered like what does not exist. Every handler of a job
//! begins with [`Farm::job_of`], and every listing with [`tenant_filter`].

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
};
use darkroom_farm_api::{Caller, Scope};
use darkroom_proto::v1;

use super::{Farm, job_id, refused};
use crate::error::Error;

/// The tenant of jobs and uploads that name none, of a caller that has none.
pub(super) const DEFAULT_TENANT: &str = "default";
/// Longest part of a tenant's name that a refusal repeats, characters.
const SHOWN: usize = 64;

/// Whose jobs and inputs a caller may see and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach<'a> {
    /// Those of every tenant.
    Everyone,
    /// Those of this tenant.
    Tenant(&'a str),
}

/// How much a caller sees of what became of its work. Which worker did it says how a farm is built,
/// and what else runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// What was done, and on which class of device.
    Work,
    /// Also which worker did it, and where.
    Workers,
}

impl Sight {
    /// That of a caller.
    pub(super) fn of(caller: &Caller) -> Self {
        if caller.may(Scope::Operate) { Self::Workers } else { Self::Work }
    }

    /// The id or the place of a worker; empty if the caller may not see workers.
    pub(super) fn of_worker(self, name: String) -> String {
        match self {
            Self::Workers => name,
            Self::Work => String::new(),
        }
    }
}

impl<'a> Reach<'a> {
    /// How far a caller reaches. A caller with neither the scope nor a tenant is refused.
    pub(super) fn of(caller: &'a Caller) -> Result<Self, UserError> {
        if caller.may(Scope::Operate) {
            return Ok(Self::Everyone);
        }
        caller.tenant().map(Self::Tenant).ok_or_else(|| {
            let message = format!(
                "{} belongs to no tenant; accepted: a key of a tenant, or one with the scope operate",
                key_of(caller)
            );
            UserError::new(Code::PermissionDenied, "NO_TENANT", message)
        })
    }

    /// Whose they are, for a query; `None`: everyone's.
    pub(super) fn tenant(self) -> Option<&'a str> {
        match self {
            Self::Everyone => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

impl Farm {
    /// The job that a request names, for a caller that may see it. The only place that decides it:
    /// a job of another tenant is not found, exactly as one that does not exist.
    pub(super) async fn job_of(
        &self,
        caller: &Caller,
        field: &str,
        text: &str,
    ) -> Result<JobId, Error> {
        let id = job_id(field, text)?;
        match Reach::of(caller).map_err(refused)? {
            Reach::Everyone => Ok(id),
            Reach::Tenant(tenant) if self.front.is_of(id, tenant).await? => Ok(id),
            // Its own tenant learns that a job was deleted. Another one learns nothing.
            Reach::Tenant(tenant) => Err(self.front.why_not_found(id, Some(tenant)).await?.into()),
        }
    }
}

/// The tenant that a listing is limited to; `None`: none. `named` is the one that the request
/// names, empty for none.
pub(super) fn tenant_filter(
    caller: &Caller,
    field: &str,
    named: &str,
) -> Result<Option<String>, UserError> {
    match Reach::of(caller)? {
        Reach::Everyone => Ok(Some(named).filter(|named| !named.is_empty()).map(str::to_owned)),
        Reach::Tenant(own) if named.is_empty() || named == own => Ok(Some(own.to_owned())),
        Reach::Tenant(own) => Err(other_tenant(caller, own, field, named)),
    }
}

/// Fills in the tenant of a new job for a caller that has one. Refuses another one's.
pub(super) fn claim(caller: &Caller, spec: Option<&mut v1::JobSpec>) -> Result<(), UserError> {
    let reach = Reach::of(caller)?;
    let Some(spec) = spec else { return Ok(()) };
    let is_blank = darkroom_core::prompt::is_blank(&spec.tenant);
    match (reach, caller.tenant()) {
        (Reach::Tenant(own), _) if !is_blank && spec.tenant != own => {
            Err(other_tenant(caller, own, "spec.tenant", &spec.tenant))
        }
        (_, Some(own)) if is_blank => {
            own.clone_into(&mut spec.tenant);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The tenant that an upload belongs to.
pub(super) fn uploader(caller: &Caller) -> Result<&str, UserError> {
    Reach::of(caller)?;
    Ok(caller.tenant().unwrap_or(DEFAULT_TENANT))
}

fn other_tenant(caller: &Caller, own: &str, field: &str, named: &str) -> UserError {
    let shown: String = named.chars().take(SHOWN).collect();
    let message = format!(
        "{field} is {shown:?}, but {} is for tenant {own:?} only; accepted: {own:?}, or none",
        key_of(caller)
    );
    let error = UserError::new(Code::PermissionDenied, "OTHER_TENANT", message);
    UserError { field: Some(field.to_owned()), ..error }
}

fn key_of(caller: &Caller) -> String {
    caller.key().map_or_else(|| "the caller".to_owned(), |key| format!("key {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(tenant: Option<&str>, scope: Scope) -> Caller {
        Caller::of(tenant.map(str::to_owned), [scope], Some("k1".to_owned()))
    }

    #[test]
    fn only_operators_reach_beyond_their_tenant() {
        for scope in [Scope::Read, Scope::Submit, Scope::Admin, Scope::Member] {
            let bound = caller(Some("a"), scope);
            assert_eq!(Reach::of(&bound), Ok(Reach::Tenant("a")), "{scope:?}");
            let nobodys = caller(None, scope);
            let refused = Reach::of(&nobodys).expect_err("no tenant");
            assert_eq!(
                (refused.code, refused.reason.as_str()),
                (Code::PermissionDenied, "NO_TENANT")
            );
        }
        for operator in [caller(Some("a"), Scope::Operate), Caller::open()] {
            assert_eq!(Reach::of(&operator), Ok(Reach::Everyone));
        }
    }

    #[test]
    fn a_filter_names_the_callers_own_tenant_or_is_an_operators() {
        let (bound, operator) = (caller(Some("a"), Scope::Read), caller(Some("a"), Scope::Operate));
        let filter = |caller, named| tenant_filter(caller, "tenant", named);
        for named in ["", "a"] {
            assert_eq!(filter(&bound, named), Ok(Some("a".to_owned())));
        }
        let refused = filter(&bound, "b").expect_err("another's");
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "OTHER_TENANT")
        );
        assert_eq!(
            refused.message,
            "tenant is \"b\", but key k1 is for tenant \"a\" only; accepted: \"a\", or none"
        );
        assert_eq!(filter(&operator, ""), Ok(None));
        assert_eq!(filter(&operator, "b"), Ok(Some("b".to_owned())));
        let long = filter(&bound, &"x".repeat(100_000)).expect_err("another's");
        assert!(long.message.len() < 300, "{long}");
    }

    #[test]
    fn a_job_without_a_tenant_is_its_callers() {
        let claimed = |caller: &Caller, named: &str| {
            let mut spec = v1::JobSpec { tenant: named.to_owned(), ..Default::default() };
            claim(caller, Some(&mut spec)).map(|()| spec.tenant)
        };
        let (bound, operator) =
            (caller(Some("a"), Scope::Submit), caller(Some("a"), Scope::Operate));
        for named in ["", " ", "a"] {
            assert_eq!(claimed(&bound, named).expect("its own"), "a");
        }
        let refused = claimed(&bound, "b").expect_err("another's");
        assert_eq!(refused.field.as_deref(), Some("spec.tenant"));
        assert_eq!(claimed(&operator, "").expect("its own"), "a");
        assert_eq!(claimed(&operator, "b").expect("it may"), "b");
        assert_eq!(claimed(&Caller::open(), "").expect("it may"), "", "the draft fills it in");
        claim(&bound, None).expect("the draft refuses it");
        assert_eq!((uploader(&bound), uploader(&Caller::open())), (Ok("a"), Ok(DEFAULT_TENANT)));
    }
}
