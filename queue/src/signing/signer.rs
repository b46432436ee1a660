//! What a member signs its results with, and checks its tasks with.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_core::{
    guard::{Guard, stands},
    id::WorkerId,
};

use super::{Holder, Key, Signature, result_fields, task_fields};
use crate::task::{PoolId, Task, TaskResult};

/// A member's keys for one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberKeys {
    /// Signs its results.
    pub results: Key,
    /// Checks the seals of tasks; all members of the pool have it.
    pub tasks: Key,
}

/// A member's keys, as a coordinator gave them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whom they were made for, and until when.
    pub holder: Holder,
    /// The keys of each pool that it may serve.
    pub pools: HashMap<PoolId, MemberKeys>,
}

/// Signs the results of one worker, and checks its tasks. Clones share the keys, so a renewal
/// reaches every loop.
///
/// The default has no keys: it signs nothing and checks nothing, for queues without a farm.
#[derive(Clone, Default)]
pub struct Signer(Option<Arc<RwLock<Credentials>>>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.worker()).finish()
    }
}

impl Signer {
    /// Signs with these keys.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self(Some(Arc::new(RwLock::new(credentials))))
    }

    /// Signs with these keys from now on. They must be of the same worker.
    pub fn renew(&self, credentials: Credentials) {
        if let Some(present) = &self.0 {
            *present.write().unwrap_or_else(PoisonError::into_inner) = credentials;
        }
    }

    /// The worker that the keys are of; `None` without keys.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        self.with(|credentials| credentials.holder.worker.clone())
    }

    /// Signs a result of a pool.
    pub fn sign(&self, pool: &PoolId, result: &mut TaskResult) {
        result.signature = self
            .with(|Credentials { holder, pools }| {
                let keys = pools.get(pool)?;
                let mac = keys.results.mac(result_fields(result));
                Some(Signature { key: holder.key.clone(), expires: holder.expires, mac })
            })
            .flatten();
    }

    /// Whether the farm made this task, for this pool.
    #[must_use]
    pub fn accepts(&self, pool: &PoolId, task: &Task) -> bool {
        let accepted = self.with(|credentials| {
            let keys = credentials.pools.get(pool);
            keys.is_some_and(|keys| task.seal == Some(keys.tasks.mac(task_fields(task))))
        });
        accepted.unwrap_or(true) || !stands(Guard::TaskSealed)
    }

    fn with<T>(&self, read: impl FnOnce(&Credentials) -> T) -> Option<T> {
        let present = self.0.as_ref()?;
        Some(read(&present.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
