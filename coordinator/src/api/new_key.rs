//! The key that a request asks for.

use std::collections::BTreeSet;

use darkroom_core::{error::UserError, key::check_label, scope::Scope, tenant};
use darkroom_proto::v1;

use crate::{
    first_key::fresh_key,
    store::keys::{Expiry, NewKey, Proof},
};

/// Longest subject of a certificate, in bytes.
const LONGEST_SUBJECT: usize = 1024;

/// A text that is asked for; none if it is empty.
pub(super) fn wanted(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The key that a request asks for, and its secret; none for a certificate.
pub(super) fn new_key(request: v1::CreateKeyRequest) -> Result<(NewKey, String), UserError> {
    let scopes = scopes(&request.scopes)?;
    let tenant = wanted(request.tenant);
    check_tenant(tenant.as_deref(), &scopes)?;
    check_label(&request.label)?;
    let expiry = expiry(request.expires_after_seconds, request.expires.as_ref())?;
    let fresh = fresh_key()?;
    let (proof, secret) = match wanted(request.certificate) {
        None => (Proof::Secret(fresh.hash()), fresh.expose()),
        Some(subject) => {
            check_subject(&subject)?;
            (Proof::Certificate(subject), String::new())
        }
    };
    let id = fresh.id().clone();
    Ok((NewKey { id, proof, tenant, scopes, label: request.label, expiry }, secret))
}

fn scopes(numbers: &[i32]) -> Result<BTreeSet<Scope>, UserError> {
    const ACCEPTED: &str = "read, submit, operate, admin, member";
    if numbers.is_empty() {
        let message = format!("scopes is empty; accepted: at least one of {ACCEPTED}");
        return Err(UserError::invalid("scopes", message));
    }
    let mut scopes = BTreeSet::new();
    for (at, number) in numbers.iter().enumerate() {
        let scope = match v1::Scope::try_from(*number) {
            Ok(v1::Scope::Read) => Scope::Read,
            Ok(v1::Scope::Submit) => Scope::Submit,
            Ok(v1::Scope::Operate) => Scope::Operate,
            Ok(v1::Scope::Admin) => Scope::Admin,
            Ok(v1::Scope::Member) => Scope::Member,
            Ok(v1::Scope::Unspecified) | Err(_) => {
                let field = format!("scopes[{at}]");
                let message = format!("{field} is {number}; accepted: {ACCEPTED}");
                return Err(UserError::invalid(field, message));
            }
        };
        scopes.insert(scope);
    }
    if scopes.contains(&Scope::Member) && scopes.len() > 1 {
        let message = "scopes has member and others; accepted: member alone, because workers and \
                       encoders need nothing else";
        return Err(UserError::invalid("scopes", message));
    }
    Ok(scopes)
}

/// A key that sees jobs sees those of a tenant, or of all.
fn check_tenant(name: Option<&str>, scopes: &BTreeSet<Scope>) -> Result<(), UserError> {
    let has = |scope| scopes.contains(&scope);
    match name {
        Some(_) if has(Scope::Member) => Err(UserError::invalid(
            "tenant",
            "tenant is set for a key with scope member; accepted: no tenant, because workers and \
             encoders work for all",
        )),
        Some(_) if has(Scope::Admin) => Err(UserError::invalid(
            "tenant",
            "tenant is set for a key with scope admin; accepted: no tenant, because an \
             administrator makes keys for all",
        )),
        Some(name) => tenant::check("tenant", name),
        None if (has(Scope::Read) || has(Scope::Submit)) && !has(Scope::Operate) => {
            Err(UserError::invalid(
                "tenant",
                "tenant is empty; accepted: the tenant whose jobs the key reads or submits, or \
                 scope operate for all tenants",
            ))
        }
        None => Ok(()),
    }
}

fn check_subject(subject: &str) -> Result<(), UserError> {
    let plain = !subject.chars().any(char::is_control) && subject.contains('=');
    if plain && subject.len() <= LONGEST_SUBJECT {
        return Ok(());
    }
    let shown: String = subject.chars().take(80).collect();
    let message = format!(
        "certificate is {shown:?}; accepted: the subject of a client certificate, such as \
         O=Studio,CN=worker-1, of at most {LONGEST_SUBJECT} bytes"
    );
    Err(UserError::invalid("certificate", message))
}

fn expiry(after_seconds: u64, at: Option<&prost_types::Timestamp>) -> Result<Expiry, UserError> {
    match (after_seconds, at) {
        (0, None) => Ok(Expiry::Never),
        (0, Some(at)) => Ok(Expiry::At(milliseconds(at))),
        (seconds, None) => Ok(after(seconds)),
        (_, Some(_)) => Err(UserError::invalid(
            "expires",
            "expires and expires_after_seconds are both set; accepted: one of them",
        )),
    }
}

/// A life that is too long is refused by the record.
pub(super) fn after(seconds: u64) -> Expiry {
    Expiry::After(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX))
}

pub(super) fn milliseconds(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::limits::timestamp;

    fn refusal(request: v1::CreateKeyRequest) -> UserError {
        new_key(request).expect_err("refused")
    }

    #[test]
    fn a_key_for_jobs_has_a_tenant_and_one_for_members_has_none() {
        let asked = |scopes: &[v1::Scope], tenant: &str| v1::CreateKeyRequest {
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            tenant: tenant.to_owned(),
            ..v1::CreateKeyRequest::default()
        };
        use v1::Scope::{Admin, Member, Operate, Read, Submit, Unspecified};
        for (scopes, tenant) in [
            (&[Read][..], "studio"),
            (&[Submit], "studio"),
            (&[Read, Submit, Operate], ""),
            (&[Operate], "studio"),
            (&[Admin], ""),
            (&[Admin, Operate], ""),
            (&[Member], ""),
        ] {
            let (new, secret) = new_key(asked(scopes, tenant)).expect("accepted");
            assert!(secret.starts_with(&format!("dk_{}_", new.id)));
            assert_eq!(new.tenant.as_deref().unwrap_or_default(), tenant);
        }
        for (scopes, tenant, field) in [
            (&[][..], "studio", "scopes"),
            (&[Unspecified], "studio", "scopes[0]"),
            (&[Member, Read], "", "scopes"),
            (&[Member], "studio", "tenant"),
            (&[Admin], "studio", "tenant"),
            (&[Read], "", "tenant"),
            (&[Submit, Admin], "", "tenant"),
            (&[Read], "a b", "tenant"),
        ] {
            let error = refusal(asked(scopes, tenant));
            assert_eq!(error.field.as_deref(), Some(field), "{scopes:?} {tenant}: {error}");
            assert!(error.message.contains("accepted: "), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_request_for_a_key_is_named() {
        let admin = || v1::CreateKeyRequest {
            scopes: vec![v1::Scope::Admin.into()],
            ..v1::CreateKeyRequest::default()
        };
        let unknown = v1::CreateKeyRequest { scopes: vec![9], ..admin() };
        assert_eq!(refusal(unknown).field.as_deref(), Some("scopes[0]"));
        let label = v1::CreateKeyRequest { label: "a\u{7}".to_owned(), ..admin() };
        assert_eq!(refusal(label).field.as_deref(), Some("label"));
        let two = v1::CreateKeyRequest {
            expires_after_seconds: 1,
            expires: Some(timestamp(1)),
            ..admin()
        };
        assert_eq!(refusal(two).field.as_deref(), Some("expires"));
        for subject in ["worker-1", "CN=a\nb", &format!("CN={}", "a".repeat(2000))] {
            let wrong = v1::CreateKeyRequest { certificate: subject.to_owned(), ..admin() };
            assert_eq!(refusal(wrong).field.as_deref(), Some("certificate"));
        }
        let bound = v1::CreateKeyRequest { certificate: "CN=a".to_owned(), ..admin() };
        let (bound, secret) = new_key(bound).expect("accepted");
        assert!(secret.is_empty() && matches!(bound.proof, Proof::Certificate(of) if of == "CN=a"));
        assert!(matches!(after(u64::MAX), Expiry::After(i64::MAX)));
    }
}
