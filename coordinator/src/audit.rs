//! The one place where changes are noted: a row of the record, and a line of the log.

use crate::store::{keys::NewAudit, roles::Audit};

/// Notes what the operator of the farm changes by a setting or by a start, without a call: there is
/// no key and no address.
pub async fn note_own(audit: &(impl Audit + ?Sized), action: &'static str, target: String) {
    note_in(audit, &NewAudit { key: None, tenant: None, action, target, peer: None }).await;
}

/// Adds a row to the audit, and a line to the log. A row that cannot be written is told by the log
/// alone, because what it tells of has happened.
pub(crate) async fn note_in(audit: &(impl Audit + ?Sized), note: &NewAudit) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    tracing::info!(
        audit.action = note.action,
        audit.target = %note.target,
        audit.tenant = text(&note.tenant),
        audit.key = text(&note.key),
        audit.peer = note.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        "audit"
    );
    if let Err(error) = audit.add_audit(note).await {
        tracing::error!(audit.action = note.action, %error, "a row of the audit could not be written");
    }
}
