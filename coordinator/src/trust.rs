//! Whom the farm believes: the keys that members sign with, and the check of what they report.
//!
//! Everything is made of the farm's secret (`darkroom_queue::signing`), so every coordinator of the
//! farm gives the same keys and checks every result, without a row for each worker.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use darkroom_core::{id::WorkerId, webhook::WebhookId};
use darkroom_queue::{
    signing::{Credentials, FarmSecret, Forged, Holder},
    task::{Outcome, PoolId, ResultEntry, Task},
};

use crate::tasks::Cascades;

/// How long a member's keys count. It renews them at half of it, so a farm whose coordinators were
/// away for less than the other half loses no result.
pub(crate) const KEYS: Duration = Duration::from_secs(12 * 3600);
/// A result may be signed at the end of a lease with a key that ends, and wait for its commit; and
/// the clocks of two coordinators differ. So a key counts for a lease and this much longer.
const SLACK: Duration = Duration::from_secs(600);
/// Time between two lines in the log about results that are not believed.
const TELL: Duration = Duration::from_secs(30);
/// Most bytes of a header of an embedding.
const HEADER: u64 = 1 << 20;
/// Widest embedding.
const WIDEST: u64 = 65_536;

/// The farm's secret, and what is done with it.
#[derive(Debug)]
pub(crate) struct Trust {
    secret: FarmSecret,
    told: Mutex<Told>,
}

/// What was logged of results that are not believed.
#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

/// A bulk of results, apart by whether they are believed.
pub(crate) struct Sifted {
    pub(crate) believed: Vec<ResultEntry>,
    pub(crate) forged: Vec<(ResultEntry, Forged)>,
}

impl Trust {
    pub(crate) fn new(secret: FarmSecret) -> Self {
        Self { secret, told: Mutex::default() }
    }

    /// Seals a task for its pool.
    pub(crate) fn seal(&self, pool: &PoolId, mut task: Task) -> Task {
        self.secret.seal(pool, &mut task);
        task
    }

    /// Seals a text that the farm gives out and gets back.
    pub(crate) fn seal_text(&self, purpose: &str, text: &[u8]) -> [u8; 32] {
        self.secret.seal_text(purpose, text)
    }

    /// What the events of a webhook are signed with. It is made of the farm's secret, so no other one
    /// has to be kept.
    pub(crate) fn webhook_secret(&self, webhook: WebhookId) -> [u8; 32] {
        self.secret.seal_text("webhook", webhook.to_string().as_bytes())
    }

    /// Keys for a worker that joined with the key of that id.
    pub(crate) fn credentials(&self, worker: WorkerId, key: &str, pools: &[PoolId]) -> Credentials {
        let holder =
            Holder { worker, key: key.to_owned(), expires: now().saturating_add(KEYS.as_secs()) };
        let keys = |pool: &PoolId| (pool.clone(), self.secret.member_keys(&holder, pool));
        Credentials { pools: pools.iter().map(keys).collect(), holder }
    }

    /// Takes apart what members of the pool signed and what they did not.
    pub(crate) fn sift(
        &self,
        (pool, cascades): (&PoolId, &Cascades),
        lease: Duration,
        entries: Vec<ResultEntry>,
    ) -> Sifted {
        let (now, mut sifted) =
            (now(), Sifted { believed: Vec::with_capacity(entries.len()), forged: Vec::new() });
        for entry in entries {
            let checked = self.secret.check(pool, &entry.result, now, lease + SLACK);
            match checked.and_then(|()| plausible(pool, cascades, &entry)) {
                Ok(()) => sifted.believed.push(entry),
                Err(reason) => sifted.forged.push((entry, reason)),
            }
        }
        if let Some((entry, reason)) = sifted.forged.first() {
            self.tell(pool, sifted.forged.len() as u64, (entry, *reason));
        }
        sifted
    }

    /// Logs from time to time, because whoever forges one result can forge a million.
    fn tell(&self, pool: &PoolId, count: u64, (entry, reason): (&ResultEntry, Forged)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since = told.since.saturating_add(count);
        if told.last.is_some_and(|last| last.elapsed() < TELL) {
            return;
        }
        let result = &entry.result;
        tracing::warn!(%pool, subject = ?result.key.subject, worker = %shortened(&result.worker),
            reason = reason.name(), results = told.since,
            "results are not believed and change nothing: somebody forged them, or a worker is older than this coordinator");
        *told = Told { last: Some(Instant::now()), since: 0 };
    }
}

/// An embedding has as many bytes as its encoder's length allows. Farms that make things up are not
/// asked.
fn plausible(pool: &PoolId, cascades: &Cascades, entry: &ResultEntry) -> Result<(), Forged> {
    let Outcome::Done { artifact, .. } = &entry.result.outcome else { return Ok(()) };
    let Some(tokens) = cascades.tokens(pool) else { return Ok(()) };
    let row = u64::from(tokens) * size_of::<f32>() as u64;
    let sized = (row..=row * WIDEST + HEADER).contains(&artifact.size);
    if sized && artifact.key.ends_with(".safetensors") { Ok(()) } else { Err(Forged::Output) }
}

/// A forged name of a worker may have any length and any characters.
fn shortened(worker: &WorkerId) -> String {
    worker.0.escape_debug().take(100).collect()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use darkroom_core::{artifact::ArtifactRef, digest::Digest, id::StageName};
    use darkroom_queue::task::{EntryId, Subject, TaskKey, TaskResult};
    use darkroom_suites::cascade;

    use super::*;

    fn entry(name: &str, size: u64) -> ResultEntry {
        let sha256 = Digest::of(b"x");
        let artifact = ArtifactRef { key: format!("texts/x/{name}"), sha256, size };
        let result = TaskResult {
            key: TaskKey { subject: Subject::Text(sha256), generation: 1, dispatch: 1 },
            worker: WorkerId("w".to_owned()),
            place: String::new(),
            device_class: String::new(),
            alone: true,
            seconds: 1.0,
            batch: 1,
            outcome: Outcome::Done { artifact, notes: Vec::new() },
            warrant: None,
            signature: None,
        };
        ResultEntry { id: EntryId("1-0".to_owned()), result }
    }

    #[test]
    fn an_embedding_has_a_number_for_each_token_at_least_and_65536_at_most() {
        let cascade = cascade::without_files(2);
        let tokens = u64::from(cascade.spec.encoder.max_length);
        let (encode, base) = (cascade::pool(&cascade, "encode"), cascade::pool(&cascade, "base"));
        let cascades = Cascades::new(vec![cascade]);
        let checked = |pool: &PoolId, name: &str, size| {
            plausible(pool, &cascades, &entry(name, size)).map_err(Forged::name)
        };
        let (least, most) = (tokens * 4, tokens * 4 * WIDEST + HEADER);
        for (size, is_one) in [
            (0, false),
            (least - 1, false),
            (least, true),
            (most, true),
            (most + 1, false),
            (u64::MAX, false),
        ] {
            let expected = if is_one { Ok(()) } else { Err("output_malformed") };
            assert_eq!(checked(&encode, "x.safetensors", size), expected, "{size}");
        }
        assert_eq!(checked(&encode, "x.png", least), Err("output_malformed"));
        // The outputs of other stages have other sizes, and so have made-up ones and those of an
        // encoder that this farm does not know.
        assert_eq!(checked(&base, "x.safetensors", 1), Ok(()));
        let unknown = PoolId { stage: StageName::encode(), digest: Digest::of(b"other") };
        assert_eq!(checked(&unknown, "x.safetensors", 1), Ok(()));
        let fakes = cascades.clone().made_up();
        assert!(plausible(&encode, &fakes, &entry("x.safetensors", 1)).is_ok());
    }
}
