//! Keys, tenants, the audit, and what is kept how long.

use super::{QuotaUsage, Quotas, Seconds, Time, U64, Word};
use crate::{hidden::Hidden, v1};

super::requests! {
    /// Asks for a new key.
    CreateKeyRequest {
        tenant: String,
        scopes: Vec<Word<v1::Scope>>,
        label: String,
        expires_after_seconds: U64,
        expires: Option<Time>,
        certificate: String,
    }

    /// Asks for a page of keys.
    ListKeysRequest {
        page_size: u32,
        page_token: String,
        tenant: String,
        ended: bool,
    }

    /// Ends a key.
    RevokeKeyRequest {
        id: String,
    }

    /// Asks for a key in place of another.
    RotateKeyRequest {
        id: String,
        keep_seconds: U64,
        expires_after_seconds: U64,
    }

    /// Adds or changes a tenant.
    SetTenantRequest {
        name: String,
        sharing: Word<v1::Sharing>,
        quotas: Option<Quotas>,
        clear: Vec<String>,
    }

    /// Asks for a tenant.
    GetTenantRequest {
        name: String,
    }

    /// Asks for a page of tenants.
    ListTenantsRequest {
        page_size: u32,
        page_token: String,
    }

    /// Sets how long something is kept.
    SetRetentionRequest {
        tenant: String,
        subject: Word<v1::RetentionSubject>,
        outcome: Word<v1::JobState>,
        seconds: U64,
    }

    /// Asks how long what is kept.
    GetRetentionRequest {
        tenant: String,
    }

    /// Has the cleaner work now.
    CleanFarmRequest {
        dry_run: bool,
        orphans: bool,
        remove: bool,
        restored: bool,
    }

    /// Asks for a page of the audit.
    ListAuditRequest {
        page_size: u32,
        page_token: String,
        tenant: String,
        key: String,
        since: Option<Time>,
    }
}

super::answers! {
    /// A key, without its secret.
    Key {
        id: String,
        tenant: String,
        scopes: Vec<Word<v1::Scope>>,
        label: String,
        created: Option<Seconds>,
        expires: Option<Seconds>,
        last_used: Option<Seconds>,
        revoked: Option<Seconds>,
        #[serde(skip_serializing_if = "super::is_default")]
        certificate: String,
    }

    /// A new key.
    CreateKeyResponse {
        key: Option<Key>,
        secret: Hidden<String>,
    }

    /// How long something is kept.
    RetentionPolicy {
        tenant: String,
        subject: Word<v1::RetentionSubject>,
        outcome: Word<v1::JobState>,
        seconds: U64,
    }

    /// The policies.
    GetRetentionResponse {
        policies: Vec<RetentionPolicy>,
    }

    /// What the cleaner has done, or would do.
    CleanFarmResponse {
        expired_jobs: U64,
        jobs: U64,
        images: U64,
        outputs: U64,
        texts: U64,
        deleted: U64,
        failed: U64,
        waiting: U64,
        due: Vec<DueRemoval>,
        orphans: Vec<OrphanObjects>,
        orphans_at_least: bool,
        inputs: U64,
        previews: U64,
        files: U64,
        batches: U64,
    }

    /// What a policy would remove.
    DueRemoval {
        policy: Option<RetentionPolicy>,
        count: U64,
        bytes: U64,
        at_least: bool,
    }

    /// Objects that no row names.
    OrphanObjects {
        kind: String,
        objects: U64,
        bytes: U64,
    }

    /// A page of keys.
    ListKeysResponse {
        keys: Vec<Key>,
        next_page_token: String,
    }

    /// A key and the one that it replaces.
    RotateKeyResponse {
        key: Option<Key>,
        secret: Hidden<String>,
        old: Option<Key>,
    }

    /// A tenant.
    Tenant {
        name: String,
        created: Option<Seconds>,
        sharing: Word<v1::Sharing>,
        quotas: Option<Quotas>,
        usage: Option<QuotaUsage>,
        notes: Vec<String>,
    }

    /// A page of tenants.
    ListTenantsResponse {
        tenants: Vec<Tenant>,
        next_page_token: String,
    }

    /// One change.
    AuditEntry {
        id: U64,
        time: Option<Seconds>,
        key: String,
        tenant: String,
        action: String,
        target: String,
        peer: String,
    }

    /// A page of the audit.
    ListAuditResponse {
        entries: Vec<AuditEntry>,
        next_page_token: String,
    }
}
