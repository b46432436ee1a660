//! Joining a farm. Keys are bytes here as everywhere; whoever prints an answer prints keys.

use super::{Bytes, U64, Word};
use crate::{hidden::Hidden, v1};

super::requests! {
    /// Joins a farm.
    JoinRequest {
        worker_id: String,
        kind: Word<v1::MemberKind>,
        cascades: Vec<String>,
        stages: Vec<String>,
        makes_up: bool,
    }
}

super::answers! {
    /// What a member needs.
    JoinResponse {
        farm_id: String,
        lease_seconds: f64,
        cascades: Vec<JoinedCascade>,
        version: String,
        pools: Vec<PoolKeys>,
        key_id: String,
        expires_at: U64,
        renew_seconds: f64,
    }

    /// A cascade of the farm.
    JoinedCascade {
        name: String,
        digest: String,
    }

    /// A member's keys for one pool.
    PoolKeys {
        stage: String,
        digest: String,
        results_key: Hidden<Bytes>,
        tasks_key: Hidden<Bytes>,
    }
}
