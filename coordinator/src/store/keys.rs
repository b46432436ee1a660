//! Keys, tenants and the audit: questions and answers.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use darkroom_core::{
    error::{Code, UserError},
    key::{KeyId, SecretHash},
    quota::{QuotaChange, Quotas},
    scope::Scope,
    sharing::Sharing,
};

use super::Error;

/// How often at most the use of a key is recorded.
pub const USED_STEP: Duration = Duration::from_secs(60);
/// Longest life of a key, in milliseconds: 100 years.
pub const LONGEST_LIFE_MS: i64 = 100 * 366 * 86_400_000;

/// What shows that a caller has a key.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Its secret.
    Secret(SecretHash),
    /// A client certificate with this subject.
    Certificate(String),
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// So many milliseconds after now, by the record's clock.
    After(i64),
    /// At this time, milliseconds since 1970.
    At(i64),
}

impl Expiry {
    /// The end of a key that is made now. It must be later than now.
    pub(super) fn end(self, now_ms: i64) -> Result<Option<i64>, UserError> {
        let (field, end) = match self {
            Self::Never => return Ok(None),
            Self::After(life) => ("expires_after_seconds", now_ms.saturating_add(life)),
            Self::At(end) => ("expires", end),
        };
        if end <= now_ms {
            return Err(UserError::invalid(
                field,
                format!(
                    "{field} is {} seconds before now by the farm's clock; accepted: a later time",
                    now_ms.saturating_sub(end) / 1000
                ),
            ));
        }
        if end.saturating_sub(now_ms) > LONGEST_LIFE_MS {
            let message = format!("{field} is more than 100 years from now; accepted: less");
            return Err(UserError::invalid(field, message));
        }
        Ok(Some(end))
    }
}

/// A new key.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its public part.
    pub id: KeyId,
    /// What shows that a caller has it.
    pub proof: Proof,
    /// The tenant that it belongs to.
    pub tenant: Option<String>,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// For people.
    pub label: String,
    /// When it ends.
    pub expiry: Expiry,
}

/// A key in place of another.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The public part of the new key.
    pub id: KeyId,
    /// Hash of its secret.
    pub secret: SecretHash,
    /// How long the old key still works, in milliseconds.
    pub keep_ms: i64,
    /// When the new key ends; `None`: it lasts as long as the old one was made for.
    pub expiry: Option<Expiry>,
}

/// A key as the record has it.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// Its place in the order in which keys were made.
    pub seq: i64,
    /// Its public part.
    pub id: KeyId,
    /// What shows that a caller has it.
    pub proof: Proof,
    /// The tenant that it belongs to.
    pub tenant: Option<String>,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// For people.
    pub label: String,
    /// When it was made, milliseconds since 1970 like all times here.
    pub created_ms: i64,
    /// When it ends.
    pub expires_ms: Option<i64>,
    /// When it was used last, to the minute.
    pub used_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
}

impl KeyRecord {
    /// Whether it has ended by the clock.
    #[must_use]
    pub fn expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| end <= now_ms)
    }

    /// Refuses to rotate a key that has ended, or that has no secret.
    pub(super) fn check_rotation(&self, now_ms: i64) -> Result<(), Error> {
        let why = if self.revoked_ms.is_some() {
            "was revoked; accepted: a key that works"
        } else if self.expired(now_ms) {
            "has expired; accepted: a key that works"
        } else if matches!(self.proof, Proof::Certificate(_)) {
            "has no secret, because a client certificate stands for it; replace the certificate"
        } else {
            return Ok(());
        };
        Err(Error::Refused(UserError::new(
            Code::FailedPrecondition,
            "KEY_ENDED",
            format!("key {} {why}", self.id),
        )))
    }

    /// The end of the key that takes its place.
    pub(super) fn next_expiry(&self, rotation: &Rotation) -> Expiry {
        rotation.expiry.unwrap_or_else(|| {
            self.expires_ms.map_or(Expiry::Never, |end| Expiry::After(end - self.created_ms))
        })
    }
}

/// A key, and the record's clock when it was read.
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// The key.
    pub key: KeyRecord,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// Which keys to list, oldest first.
#[derive(Clone, Debug, Default)]
pub struct KeyQuery {
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Also those that have ended.
    pub ended: bool,
    /// Only those after this one, by [`KeyRecord::seq`].
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// A tenant as the record has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantRecord {
    /// Its name.
    pub name: String,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
    /// Its setting; `None`: the farm's default.
    pub sharing: Option<Sharing>,
    /// What it may use.
    pub quotas: Quotas,
}

/// A change of a tenant's settings.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// `None`: the present setting stays.
    pub sharing: Option<Sharing>,
    /// Its quotas.
    pub quotas: QuotaChange,
}

/// A change to record: who did what, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAudit {
    /// Id of the key.
    pub key: Option<String>,
    /// The tenant that it concerned.
    pub tenant: Option<String>,
    /// What was done.
    pub action: &'static str,
    /// What it was done to.
    pub target: String,
    /// Where the call came from.
    pub peer: Option<IpAddr>,
}

/// A change as the record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Id of the key.
    pub key: Option<String>,
    /// The tenant that it concerned.
    pub tenant: Option<String>,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// Where the call came from.
    pub peer: Option<String>,
}

/// Which changes to list, newest first.
#[derive(Clone, Debug)]
pub struct AuditQuery {
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Only those with this key.
    pub key: Option<String>,
    /// Only those at this time or later.
    pub since_ms: i64,
    /// Only those before this one, by [`AuditRecord::id`].
    pub before: i64,
    /// At most so many.
    pub limit: u32,
}

/// Scopes as a column: each name between spaces, so that one can be looked for.
pub(super) fn scopes_column(scopes: &BTreeSet<Scope>) -> String {
    let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    format!(" {} ", names.join(" "))
}

pub(super) fn scopes_of(column: &str) -> Result<BTreeSet<Scope>, Error> {
    let scope = |name| Scope::named(name).ok_or_else(|| Error::Corrupt(format!("scope {name:?}")));
    column.split_whitespace().map(scope).collect()
}

/// There is no such key.
pub(super) fn no_key(id: &KeyId) -> Error {
    Error::NotFound(format!("there is no key {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_later_than_now_or_never() {
        let now = 1_764_378_000_000;
        assert_eq!(Expiry::Never.end(now), Ok(None));
        assert_eq!(Expiry::After(1).end(now), Ok(Some(now + 1)));
        assert_eq!(Expiry::At(now + 1).end(now), Ok(Some(now + 1)));
        for (wrong, field) in [
            (Expiry::At(now), "expires"),
            (Expiry::At(now - 90_000), "expires"),
            (Expiry::After(0), "expires_after_seconds"),
            (Expiry::After(i64::MAX), "expires_after_seconds"),
        ] {
            let error = wrong.end(now).expect_err("not later");
            assert_eq!(error.field.as_deref(), Some(field));
            assert!(error.message.contains("accepted: "), "{error}");
        }
        let past = Expiry::At(now - 90_000).end(now).expect_err("past").message;
        assert!(past.contains("90 seconds before now"), "{past}");
    }

    #[test]
    fn scopes_are_read_back_and_others_are_not_ours() {
        for scopes in [vec![], vec![Scope::Admin], Scope::ALL.to_vec()] {
            let scopes: BTreeSet<_> = scopes.into_iter().collect();
            assert_eq!(scopes_of(&scopes_column(&scopes)).expect("ours"), scopes);
        }
        assert!(scopes_of(" read root ").is_err());
    }
}
