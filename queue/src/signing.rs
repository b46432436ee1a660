//! Signatures of tasks and results, so that whoever can write to the queue decides nothing.
//!
//! - A farm has one secret, in its record. Everything here is made of it with HMAC-SHA256, so a
//!   coordinator checks a result without a row for each worker.
//! - A member has a key for each pool that it serves: made of the secret, its worker's id, the id
//!   of the key that it joined with, the pool, and when it ends. It signs each result with it, and
//!   sends what the key was made of beside the signature. A result of another pool, worker or time
//!   has another key, so its signature does not fit.
//! - The farm **seals** each task with a key of its pool that the members of the pool have too. A
//!   worker does not run a task whose seal does not fit.
//! - The farm also gives each task a **warrant**, which only coordinators can make: it says under
//!   which prefix this dispatch may store its output. The result returns it. So a worker cannot
//!   name an object of another task as its own.
//!
//! It never reads a clock, and it never logs or prints a key.

mod signer;

use std::{fmt, time::Duration};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::FieldHasher,
    guard::{Guard, stands},
    id::WorkerId,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub use crate::mac::{Mac, Signature};
pub use signer::{Credentials, MemberKeys, Signer};

use crate::task::{Outcome, PoolId, Task, TaskKey, TaskResult};

/// Most bytes of an output: far more than any stage stores.
const MOST_BYTES: u64 = 1 << 30;
/// What outputs are stored as.
const EXTENSIONS: [&str; 4] = ["safetensors", "png", "jpg", "webp"];

/// A key of HMAC-SHA256.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// From its 32 bytes; `None` for another number.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for the member that may have them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    fn mac(&self, fields: FieldHasher) -> Mac {
        Mac::from(self.made_of(fields))
    }

    /// A key that is made of this one.
    fn derived(&self, fields: FieldHasher) -> Self {
        Self(self.made_of(fields))
    }

    fn made_of(&self, fields: FieldHasher) -> [u8; 32] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        hmac.update(&fields.finish().0);
        hmac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Whom a signing key was made for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Id of the key that it joined with; empty if it needed none.
    pub key: String,
    /// When the signing key ends, seconds since 1970.
    pub expires: u64,
}

/// Why a result is not believed. It changes nothing and is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    /// It has no signature: it was forged, or its worker is older than this coordinator.
    Unsigned,
    /// Its signing key ended too long ago.
    Expired,
    /// The signature is not of this result, pool, worker or farm.
    Signature,
    /// The output is not named as outputs of tasks are, or has an impossible size.
    Output,
    /// The output does not lie under the prefix of this dispatch of this task.
    Foreign,
}

impl Forged {
    /// Its name in counters and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Expired => "signature_expired",
            Self::Signature => "signature_wrong",
            Self::Output => "output_malformed",
            Self::Foreign => "output_foreign",
        }
    }
}

/// A farm's secret. It never leaves the record and the coordinators.
#[derive(Clone, PartialEq, Eq)]
pub struct FarmSecret(Key);

impl fmt::Debug for FarmSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FarmSecret")
    }
}

impl FarmSecret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn fresh() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(Key(bytes)))
    }

    /// From its 32 bytes; `None` for another number.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Key::from_bytes(bytes).map(Self)
    }

    /// The bytes, for the record.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// What a member needs to work for a pool.
    #[must_use]
    pub fn member_keys(&self, holder: &Holder, pool: &PoolId) -> MemberKeys {
        MemberKeys { results: self.results_key(holder, pool), tasks: self.tasks_key(pool) }
    }

    /// Seals a task for its pool, and gives it its warrant.
    pub fn seal(&self, pool: &PoolId, task: &mut Task) {
        task.warrant = Some(self.warrant(pool, &task.key, task.body.prefix()));
        task.seal = Some(self.tasks_key(pool).mac(task_fields(task)));
    }

    /// Checks a result that was read from a pool. `now`: seconds since 1970. Keys that ended within
    /// `grace` count, because a result may wait for its commit.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn check(
        &self,
        pool: &PoolId,
        result: &TaskResult,
        now: u64,
        grace: Duration,
    ) -> Result<(), Forged> {
        if stands(Guard::ResultSigned) {
            self.check_signature(pool, result, now, grace)?;
        }
        match &result.outcome {
            Outcome::Done { artifact, .. } if stands(Guard::OutputOwn) => {
                self.check_output(pool, result, artifact)
            }
            _ => Ok(()),
        }
    }

    /// Seals a text that the farm gives out and gets back, in the domain of its purpose.
    #[must_use]
    pub fn seal_text(&self, purpose: &str, text: &[u8]) -> [u8; 32] {
        let fields = FieldHasher::new("darkroom/text/1").field(purpose.as_bytes());
        self.0.made_of(fields.field(text))
    }

    fn check_signature(
        &self,
        pool: &PoolId,
        result: &TaskResult,
        now: u64,
        grace: Duration,
    ) -> Result<(), Forged> {
        let signature = result.signature.as_ref().ok_or(Forged::Unsigned)?;
        let Signature { key, expires, mac } = signature.clone();
        if expires.saturating_add(grace.as_secs()) < now {
            return Err(Forged::Expired);
        }
        let holder = Holder { worker: result.worker.clone(), key, expires };
        let right = self.results_key(&holder, pool).mac(result_fields(result));
        if right == mac { Ok(()) } else { Err(Forged::Signature) }
    }

    fn check_output(
        &self,
        pool: &PoolId,
        result: &TaskResult,
        artifact: &ArtifactRef,
    ) -> Result<(), Forged> {
        let prefix = prefix_of(artifact).ok_or(Forged::Output)?;
        match result.warrant {
            Some(warrant) if warrant == self.warrant(pool, &result.key, prefix) => Ok(()),
            _ => Err(Forged::Foreign),
        }
    }

    fn warrant(&self, pool: &PoolId, key: &TaskKey, prefix: &str) -> Mac {
        let fields = in_pool(FieldHasher::new("darkroom/warrant/1"), pool);
        self.0.mac(fields.json(key).field(prefix.as_bytes()))
    }

    fn results_key(&self, holder: &Holder, pool: &PoolId) -> Key {
        let fields = in_pool(FieldHasher::new("darkroom/results-key/1"), pool);
        let fields = fields.field(holder.worker.0.as_bytes()).field(holder.key.as_bytes());
        self.0.derived(fields.field(&holder.expires.to_le_bytes()))
    }

    fn tasks_key(&self, pool: &PoolId) -> Key {
        self.0.derived(in_pool(FieldHasher::new("darkroom/tasks-key/1"), pool))
    }
}

fn in_pool(fields: FieldHasher, pool: &PoolId) -> FieldHasher {
    fields.field(pool.stage.as_str().as_bytes()).field(&pool.digest.0)
}

/// Everything that a worker does for a task depends on.
fn task_fields(task: &Task) -> FieldHasher {
    let fields = FieldHasher::new("darkroom/task/1").json(&task.key);
    let fields = fields.field(task.compatibility.as_bytes()).field(&[u8::from(task.suspect)]);
    fields.json(&task.body).json(&task.warrant)
}

/// Everything that a result says.
fn result_fields(result: &TaskResult) -> FieldHasher {
    let TaskResult { key, worker, place, device_class, alone, seconds, batch, outcome, .. } =
        result;
    let fields = FieldHasher::new("darkroom/result/1").json(key).field(worker.0.as_bytes());
    let fields = fields.field(place.as_bytes()).field(device_class.as_bytes());
    let fields = fields.field(&[u8::from(*alone)]).field(&seconds.to_bits().to_le_bytes());
    fields.field(&batch.to_le_bytes()).json(outcome).json(&result.warrant)
}

/// The part of an output's key that its task decides, if the rest is `{its hash}.{extension}`.
fn prefix_of(artifact: &ArtifactRef) -> Option<&str> {
    let (folder, file) = artifact.key.rsplit_once('/')?;
    let (hash, extension) = file.split_once('.')?;
    let named = hash == artifact.sha256.to_string() && EXTENSIONS.contains(&extension);
    let sized = (1..=MOST_BYTES).contains(&artifact.size);
    (named && sized).then(|| &artifact.key[..=folder.len()])
}

#[cfg(test)]
mod tests;
