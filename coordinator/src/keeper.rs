//! Who knows the callers: keys of the record, remembered for a moment. A session is checked by its
//! seal and its end, and then stands for its key.
//!
//! A key that is revoked stops working on every coordinator within [`REMEMBERED`]. Whatever
//! strangers show, at most [`MOST_REMEMBERED`] answers are kept.
//!
//! The farm's keys do not wait behind those of strangers: the ids that the record has are known
//! from the start or from their first use, and [`AT_ONCE`] questions about them are asked at one
//! time. Questions about other ids have [`STRANGERS_AT_ONCE`] permits of their own, and wait for
//! [`PATIENCE`] at most.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use darkroom_core::{
    error::{Code, UserError},
    key::{Key, KeyId},
    session::{SEAL, Session},
};
use darkroom_farm_api::{Caller, Keeper, Known, Peer, PeerOf, Proof, Purpose, Seals};
use darkroom_runtime::{server::ClientAddress, tls::ClientCertificate};
use moka::future::Cache;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    error::Error,
    quotas::LatestQuotas,
    store::{
        self,
        keys::{FoundKey, KeyQuery, Proof as Kept, USED_STEP},
        roles::Keys,
    },
};

/// How long an answer of the record is believed.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Most answers that are kept.
const MOST_REMEMBERED: u64 = 10_000;
/// Most questions to the record at one time about keys that it has.
const AT_ONCE: usize = 8;
/// Most questions to the record at one time about other keys.
const STRANGERS_AT_ONCE: usize = 2;
/// How long a key that is not known waits for its question.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most ids of keys that are known.
const MOST_KNOWN: u64 = 100_000;
/// Keys of a page, while they are read at the start.
const PAGE: u32 = 1000;
/// How long a session of a browser lasts, if its key does.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Longest subject of a certificate that is looked for, in bytes.
const LONGEST_SUBJECT: usize = 1024;

/// Keys of the record.
pub(crate) struct RecordKeeper {
    keys: Arc<dyn Keys>,
    remembered: Cache<Shown, Arc<Option<Answer>>>,
    /// Keys whose use was recorded within the last minute.
    noted: Cache<KeyId, ()>,
    /// What the record has been found to have, whether it still counts or not.
    known: Cache<Shown, ()>,
    quotas: Arc<LatestQuotas>,
    asking: Semaphore,
    asking_of_strangers: Semaphore,
    patience: Duration,
    /// Where uses are recorded, so that no call waits for that.
    tasks: TaskTracker,
    /// Makes and checks the seals of sessions.
    seals: Arc<dyn Seals>,
}

/// What is looked for: the public part of a key, or a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Key(KeyId),
    Certificate(String),
}

/// An answer of the record, and when it came.
#[derive(Debug)]
struct Answer {
    found: FoundKey,
    at: Instant,
}

impl Answer {
    /// The record's clock now, milliseconds since 1970.
    fn now_ms(&self) -> i64 {
        let since = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.found.now_ms.saturating_add(since)
    }
}

impl RecordKeeper {
    pub(crate) fn new(
        keys: Arc<dyn Keys>,
        quotas: Arc<LatestQuotas>,
        tasks: TaskTracker,
        seals: Arc<dyn Seals>,
    ) -> Self {
        let keeper = Self::remembering(MOST_REMEMBERED, keys, quotas, tasks, seals);
        keeper.tasks.spawn(learn(Arc::clone(&keeper.keys), keeper.known.clone()));
        keeper
    }

    fn remembering(
        most: u64,
        keys: Arc<dyn Keys>,
        quotas: Arc<LatestQuotas>,
        tasks: TaskTracker,
        seals: Arc<dyn Seals>,
    ) -> Self {
        let remembered = Cache::builder().max_capacity(most).time_to_live(REMEMBERED).build();
        let noted = Cache::builder().max_capacity(most).time_to_live(USED_STEP).build();
        Self {
            keys,
            remembered,
            noted,
            known: Cache::new(MOST_KNOWN),
            quotas,
            asking: Semaphore::new(AT_ONCE),
            asking_of_strangers: Semaphore::new(STRANGERS_AT_ONCE),
            patience: PATIENCE,
            tasks,
            seals,
        }
    }

    async fn answer(&self, shown: Shown) -> Result<Arc<Option<Answer>>, UserError> {
        let ask = async {
            let _asking = self.turn(&shown).await?;
            let answer = self.ask(&shown).await?;
            if answer.is_some() {
                self.known.insert(shown.clone(), ()).await;
            }
            Ok(Arc::new(answer))
        };
        let answer = self.remembered.try_get_with_by_ref(&shown, ask).await;
        answer.map_err(|error: Arc<Error>| {
            error.log();
            error.to_user()
        })
    }

    /// Waits until the record may be asked about a key.
    async fn turn(&self, shown: &Shown) -> Result<SemaphorePermit<'_>, Error> {
        if self.known.contains_key(shown) {
            return self.asking.acquire().await.map_err(Error::other);
        }
        match timeout(self.patience, self.asking_of_strangers.acquire()).await {
            Ok(turn) => turn.map_err(Error::other),
            Err(_) => Err(Error::Store(store::Error::Refused(UserError::new(
                Code::Unavailable,
                "MANY_UNKNOWN_KEYS",
                "the farm gets too many unknown keys at the moment, so this one was not looked up; \
                 try again",
            )))),
        }
    }

    async fn ask(&self, shown: &Shown) -> Result<Option<Answer>, Error> {
        let at = Instant::now();
        let found = match shown {
            Shown::Key(id) => self.keys.find_key(id).await?,
            Shown::Certificate(subject) => self.keys.find_certificate(subject).await?,
        };
        Ok(found.map(|found| Answer { found, at }))
    }

    /// Records that a key is used. A record that cannot be written now does not stop the call.
    async fn note_used(&self, found: &FoundKey) {
        let id = &found.key.id;
        if !self.noted.entry_by_ref(id).or_insert(()).await.is_fresh() {
            return;
        }
        let (keys, id) = (Arc::clone(&self.keys), id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = keys.note_key_used(&id).await {
                tracing::warn!(key = %id, %error, "the use of a key could not be recorded");
            }
        });
    }
}

/// Reads which keys the record has.
async fn learn(keys: Arc<dyn Keys>, known: Cache<Shown, ()>) {
    let mut query = KeyQuery { limit: PAGE, ..KeyQuery::default() };
    loop {
        let page = match keys.list_keys(&query).await {
            Ok(page) => page,
            // They become known when they are used.
            Err(error) => {
                return tracing::warn!(%error, "the ids of the farm's keys could not be read");
            }
        };
        let Some(last) = page.last() else { return };
        query.after = last.seq;
        for key in page {
            let shown = match key.proof {
                Kept::Secret(_) => Shown::Key(key.id),
                Kept::Certificate(subject) => Shown::Certificate(subject),
            };
            known.insert(shown, ()).await;
        }
        if known.entry_count() >= MOST_KNOWN {
            return;
        }
    }
}

#[async_trait]
impl Keeper for RecordKeeper {
    async fn known(&self, proof: &Proof) -> Result<Known, UserError> {
        let shown = match proof {
            Proof::Key(key) => Shown::Key(key.id().clone()),
            // Nobody is asked about a session that this farm did not make.
            Proof::Session(session) if !session.is_sealed(|text| self.seal(text)) => {
                return Err(unknown(proof));
            }
            Proof::Session(session) => Shown::Key(session.key().clone()),
            Proof::Certificate(subject) if subject.len() > LONGEST_SUBJECT => {
                return Err(unknown(proof));
            }
            Proof::Certificate(subject) => Shown::Certificate(subject.clone()),
        };
        let answer = self.answer(shown).await?;
        let answer = answer.as_ref().as_ref().ok_or_else(|| unknown(proof))?;
        let key = &answer.found.key;
        let shows = match (proof, &key.proof) {
            (Proof::Key(key), Kept::Secret(hash)) => hash.is_of(key),
            (Proof::Session(_), Kept::Secret(_)) => true,
            (Proof::Certificate(subject), Kept::Certificate(kept)) => subject == kept,
            _ => false,
        };
        if !shows || key.revoked_ms.is_some() {
            return Err(unknown(proof));
        }
        if key.expired(answer.now_ms()) {
            let message = format!("key {} has expired; ask an administrator for a new one", key.id);
            return Err(UserError::new(Code::Unauthenticated, "EXPIRED_KEY", message));
        }
        let mut expires = key.expires_ms.map(|end| end / 1000);
        if let Proof::Session(session) = proof {
            let end = i64::try_from(session.expires()).unwrap_or(i64::MAX);
            if answer.now_ms() / 1000 >= end {
                let message = "the session has ended; log in again";
                return Err(UserError::new(Code::Unauthenticated, "EXPIRED_SESSION", message));
            }
            expires = Some(expires.map_or(end, |expires| expires.min(end)));
        }
        self.note_used(&answer.found).await;
        let caller = Caller::of(key.tenant.clone(), key.scopes.clone(), Some(key.id.to_string()));
        Ok(Known { caller, expires })
    }

    async fn begin_session(&self, key: &Key) -> Result<(Session, Known), UserError> {
        let known = self.known(&Proof::Key(key.clone())).await?;
        let answer = self.answer(Shown::Key(key.id().clone())).await?;
        // It was there a moment ago.
        let answer = answer.as_ref().as_ref().ok_or_else(|| unknown(&Proof::Key(key.clone())))?;
        let now = u64::try_from(answer.now_ms() / 1000).unwrap_or_default();
        let mut end = now.saturating_add(SESSION.as_secs());
        if let Some(expires) = known.expires {
            end = end.min(u64::try_from(expires).unwrap_or_default());
        }
        let session = Session::new(key.id().clone(), end, |text| self.seal(text));
        Ok((session, Known { expires: i64::try_from(end).ok(), ..known }))
    }

    fn admit(&self, caller: &Caller) -> Result<(), UserError> {
        caller.tenant().map_or(Ok(()), |tenant| self.quotas.admit(tenant))
    }
}

impl RecordKeeper {
    fn seal(&self, text: &[u8]) -> [u8; SEAL] {
        self.seals.seal(Purpose::Session, text)
    }
}

/// The same words for a key that never was, one that is revoked, and a wrong secret.
fn unknown(proof: &Proof) -> UserError {
    match proof {
        Proof::Key(key) => UserError::new(
            Code::Unauthenticated,
            "UNKNOWN_KEY",
            format!(
                "key {} is not a key of this farm: it was revoked, or is of another farm",
                key.id()
            ),
        ),
        Proof::Session(_) => UserError::new(
            Code::Unauthenticated,
            "UNKNOWN_SESSION",
            "the session is not one of this farm, or its key was revoked; log in again",
        ),
        Proof::Certificate(_) => UserError::new(
            Code::Unauthenticated,
            "NO_KEY",
            "the call has no key, and no key of this farm belongs to the client certificate",
        ),
    }
}

/// Reads from a request's extensions who is at the other end, as `darkroom_runtime` has put it
/// there.
pub(crate) const PEER: PeerOf = |extensions| Peer {
    address: extensions.get::<ClientAddress>().map(|address| address.0),
    certificate: extensions
        .get::<Arc<ClientCertificate>>()
        .map(|certificate| certificate.subject.clone()),
};

#[cfg(test)]
mod tests {
    use darkroom_core::scope::Scope;
    use http::Extensions;

    use super::*;
    use crate::{
        first_key::fresh_key,
        store::{
            keys::{Expiry, NewKey},
            sqlite::SqliteStore,
        },
    };

    /// How many answers the keeper of a test remembers at most.
    const FEW: u64 = 100;

    /// Seals with this instead of a secret.
    struct Sealing(u8);

    impl Seals for Sealing {
        fn seal(&self, purpose: Purpose, text: &[u8]) -> [u8; SEAL] {
            let sealed = format!("{} {} {}", self.0, purpose.name(), String::from_utf8_lossy(text));
            darkroom_core::digest::Digest::of(sealed.as_bytes()).0
        }
    }

    async fn keeper(folder: &tempfile::TempDir) -> (Arc<SqliteStore>, RecordKeeper) {
        let file = folder.path().join("farm.sqlite");
        let store = Arc::new(SqliteStore::open(&file).await.expect("opens"));
        let keeper = RecordKeeper::remembering(
            FEW,
            store.clone(),
            Arc::default(),
            TaskTracker::new(),
            Arc::new(Sealing(7)),
        );
        (store, keeper)
    }

    fn new(key: &Key, proof: Kept) -> NewKey {
        NewKey {
            id: key.id().clone(),
            proof,
            tenant: Some("studio".to_owned()),
            scopes: [Scope::Read].into(),
            label: String::new(),
            expiry: Expiry::Never,
        }
    }

    #[tokio::test]
    async fn a_session_stands_for_its_key_until_either_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, keeper) = keeper(&folder).await;
        let key = fresh_key().expect("random");
        store.add_key(&new(&key, Kept::Secret(key.hash()))).await.expect("adds");
        let (session, begun) = keeper.begin_session(&key).await.expect("begins");
        let known = keeper.known(&Proof::Session(session.clone())).await.expect("known");
        assert_eq!(known.caller, begun.caller);
        assert_eq!(known.expires, begun.expires);
        let now = unix_seconds();
        let lasts = u64::try_from(known.expires.expect("an end")).expect("positive") - now;
        assert!((SESSION.as_secs() - 60..=SESSION.as_secs()).contains(&lasts), "{lasts} s");

        // One that has ended, and those that another farm made, or for another purpose.
        let sealed = |seals: Sealing, purpose| {
            let key = key.id().clone();
            Session::new(key, now + 60, |text| seals.seal(purpose, text))
        };
        let ended = Session::new(key.id().clone(), now - 1, |text| keeper.seal(text));
        for (session, reason) in [
            (ended, "EXPIRED_SESSION"),
            (sealed(Sealing(8), Purpose::Session), "UNKNOWN_SESSION"),
            (sealed(Sealing(7), Purpose::Link), "UNKNOWN_SESSION"),
        ] {
            let refused = keeper.known(&Proof::Session(session)).await.expect_err(reason);
            assert_eq!((refused.code, &*refused.reason), (Code::Unauthenticated, reason));
        }
        // A session ends with its key.
        let short = fresh_key().expect("random");
        let ends =
            NewKey { expiry: Expiry::After(60_000), ..new(&short, Kept::Secret(short.hash())) };
        store.add_key(&ends).await.expect("adds");
        let (brief, begun) = keeper.begin_session(&short).await.expect("begins");
        let end = known_end(&keeper, &short).await;
        assert_eq!((brief.expires(), begun.expires), (end.unsigned_abs(), Some(end)));
        // A key of a certificate has no secret, so it begins none.
        let bound = fresh_key().expect("random");
        let subject = Kept::Certificate("CN=a".to_owned());
        store.add_key(&new(&bound, subject)).await.expect("adds");
        assert!(keeper.begin_session(&bound).await.is_err());

        store.revoke_key(key.id()).await.expect("revokes");
        keeper.remembered.invalidate_all();
        let refused = keeper.known(&Proof::Session(session)).await.expect_err("revoked");
        assert_eq!(refused.reason, "UNKNOWN_SESSION");
    }

    async fn known_end(keeper: &RecordKeeper, key: &Key) -> i64 {
        let known = keeper.known(&Proof::Key(key.clone())).await.expect("known");
        known.expires.expect("an end")
    }

    fn unix_seconds() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_secs()
    }

    #[tokio::test]
    async fn strangers_cannot_fill_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_store, keeper) = keeper(&folder).await;
        for _ in 0..3 * FEW {
            let stranger = Proof::Key(fresh_key().expect("random"));
            let refused = keeper.known(&stranger).await.expect_err("unknown");
            assert_eq!(refused.reason, "UNKNOWN_KEY");
        }
        keeper.remembered.run_pending_tasks().await;
        let remembered = keeper.remembered.entry_count();
        assert!((1..=FEW).contains(&remembered), "{remembered}");
        assert_eq!(keeper.noted.entry_count(), 0, "the use of a key that is none is not noted");
    }

    #[tokio::test]
    async fn keys_of_the_farm_do_not_wait_behind_those_of_strangers() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, mut keeper) = keeper(&folder).await;
        keeper.patience = Duration::from_millis(50);
        let used = fresh_key().expect("random");
        store.add_key(&new(&used, Kept::Secret(used.hash()))).await.expect("adds");
        keeper.known(&Proof::Key(used.clone())).await.expect("it becomes known by its use");
        // One is known from the start, like those of a coordinator that starts in a flood.
        let read = fresh_key().expect("random");
        let subject = "CN=worker-1".to_owned();
        store.add_key(&new(&read, Kept::Secret(read.hash()))).await.expect("adds");
        let bound = fresh_key().expect("random");
        store.add_key(&new(&bound, Kept::Certificate(subject.clone()))).await.expect("adds");
        learn(Arc::clone(&keeper.keys), keeper.known.clone()).await;
        // Every question about strangers is being asked, and takes long.
        let most = u32::try_from(STRANGERS_AT_ONCE).expect("few");
        let flood = keeper.asking_of_strangers.acquire_many(most).await.expect("permits");
        keeper.remembered.invalidate_all();
        for known in [Proof::Key(used), Proof::Key(read), Proof::Certificate(subject)] {
            keeper.known(&known).await.expect("no stranger's turn is needed");
        }
        let stranger = Proof::Key(fresh_key().expect("random"));
        let refused = keeper.known(&stranger).await.expect_err("not looked up");
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::Unavailable, "MANY_UNKNOWN_KEYS")
        );
        assert!(refused.retry_after.is_some(), "it may be a key that was made a moment ago");
        drop(flood);
        let refused = keeper.known(&stranger).await.expect_err("unknown");
        assert_eq!(refused.reason, "UNKNOWN_KEY");
    }

    #[tokio::test]
    async fn a_certificate_stands_for_the_key_with_its_subject_and_for_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, keeper) = keeper(&folder).await;
        let (bound, secret) = (fresh_key().expect("random"), fresh_key().expect("random"));
        let subject = "O=Studio,CN=worker-1".to_owned();
        store.add_key(&new(&bound, Kept::Certificate(subject.clone()))).await.expect("adds");
        store.add_key(&new(&secret, Kept::Secret(secret.hash()))).await.expect("adds");
        let known = keeper.known(&Proof::Certificate(subject)).await.expect("known");
        assert_eq!(known.caller.key(), Some(bound.id().as_str()));
        assert_eq!(known.caller.tenant(), Some("studio"));
        let long = format!("CN={}", "a".repeat(100_000));
        for subject in ["CN=worker-1", "O=Studio", "", &long] {
            let refused = keeper.known(&Proof::Certificate(subject.to_owned())).await;
            let refused = refused.expect_err("no key has it");
            assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "NO_KEY"));
        }
        // The key of a certificate has no secret that could be shown.
        let refused = keeper.known(&Proof::Key(bound)).await.expect_err("no secret");
        assert_eq!(refused.reason, "UNKNOWN_KEY");
    }

    #[test]
    fn who_is_at_the_other_end_is_what_the_server_says() {
        let mut extensions = Extensions::new();
        assert!(PEER(&extensions).address.is_none() && PEER(&extensions).certificate.is_none());
        let address = "192.0.2.7".parse().expect("an address");
        extensions.insert(ClientAddress(address));
        extensions.insert(Arc::new(ClientCertificate { subject: "CN=a".to_owned() }));
        let peer = PEER(&extensions);
        assert_eq!((peer.address, peer.certificate.as_deref()), (Some(address), Some("CN=a")));
    }
}
