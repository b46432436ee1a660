//! Removes what nobody needs: rows of deleted jobs, and objects that no row names.
//!
//! The leader's cleaner works in small steps, each of which is repeated harmlessly. A job's rows
//! are removed in chunks, and what they named becomes a candidate in the same transaction.
//! Candidates that nobody needs are marked, and from then on nobody can begin to need them (see
//! [`crate::store::removal`]). Only then are they deleted in storage.
//!
//! Storage has a mark with the farm's count of removals, which is raised before anything is
//! deleted. If the mark is ahead of the record, the record is an older copy, which may name objects
//! that are gone and lack those of others. Then the cleaner stops until an operator accepts that.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    error::{Code, UserError},
    guard::{Guard, stands},
    retention::Subject,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    old_previews::{Fate, old_previews},
    previews::KEPT_EDGE,
    shared::Shared,
    store::{
        self,
        records::Term,
        removal::{Candidate, Kind, Leaving, Rule, ms},
        roles::{Agreed, History, Removal, Retention},
    },
    tasks::MADE_UP,
};

/// Name of this part.
const PART: &str = "clean";
/// Images of a deleted job whose rows are removed in one transaction.
const IMAGES: u32 = 500;
/// Jobs that one transaction deletes by a policy.
const JOBS: u32 = 100;
/// Texts that are forgotten in one transaction.
const TEXTS: u32 = 400;
/// Uploads that are forgotten in one transaction.
const INPUTS: u32 = 400;
/// Candidates that are looked up in one transaction. Commits wait meanwhile.
const CANDIDATES: u32 = 400;
/// Objects that are deleted in storage between two looks at the record.
const OBJECTS: u32 = 500;
/// Most deletions in storage that run at the same time.
const AT_ONCE: usize = 16;
/// Rows that are forgotten in one transaction.
const FORGOTTEN: u32 = 5000;
/// Chunks of jobs' rows, or batches of candidates, in one pass.
const CHUNKS: u32 = 20;
/// A cleaner that was stopped for longer than this looks again before it deletes.
const STALE: Duration = Duration::from_secs(60);
/// Pause before the next try when the farm's commits were busy.
const BUSY: Duration = Duration::from_millis(500);
/// Age at which an object that no row names counts as an orphan. Younger ones may be on their way
/// into the record.
const ORPHANED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often orphans are looked for, and for how long at most.
const REPORT: Duration = Duration::from_secs(3600);
const REPORTING: Duration = Duration::from_secs(60);
/// Objects that are looked up at one time.
const LISTED: usize = 500;
/// The mark in storage.
const MARK: &str = "cleaner/epoch.json";

/// What a cleaner has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Jobs whose last row was removed.
    pub jobs: u64,
    /// Images whose rows were removed.
    pub images: u64,
    /// Jobs that the retention policies deleted.
    pub expired: u64,
    /// Outputs of jobs that stay which the policies removed.
    pub outputs: u64,
    /// Texts that no job has needed for long.
    pub texts: u64,
    /// Uploaded pictures that no job has used for long.
    pub inputs: u64,
    /// Old previews and sheets that were deleted.
    pub previews: u64,
    /// Objects that were found to be superfluous.
    pub marked: u64,
    /// Deletions in storage.
    pub deleted: u64,
    /// Deletions in storage that failed. They are tried again.
    pub failed: u64,
}

impl Cleaned {
    fn add(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.images += other.images;
        self.expired += other.expired;
        self.outputs += other.outputs;
        self.texts += other.texts;
        self.inputs += other.inputs;
        self.previews += other.previews;
        self.marked += other.marked;
        self.deleted += other.deleted;
        self.failed += other.failed;
    }
}

/// The mark in storage: the record that removes objects from it, and how often it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    farm: String,
    database: String,
    removals: u64,
}

/// Runs until shutdown.
pub(crate) async fn run<S>(shared: Arc<Shared>, store: Arc<S>)
where
    S: Agreed + History + Removal + Retention + ?Sized,
{
    let mut reported = Instant::now();
    while !shared.stop.is_cancelled() {
        let woken = shared.events.clean.notified();
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            report_orphans(&shared, store.as_ref()).await;
            if let Err(error) =
                remove_old(&shared, store.as_ref(), (Duration::ZERO, REPORTING)).await
            {
                tracing::warn!(%error, "old previews could not be removed");
            }
        }
        let pause = match pass(&shared, store.as_ref(), Duration::ZERO).await {
            Ok(Pass { more: true, .. }) => Duration::ZERO,
            Ok(Pass { busy: true, .. }) => BUSY,
            Ok(_) => shared.options.clean,
            Err(error) => {
                shared.failed(PART, &error);
                shared.pause(shared.options.clean).await;
                continue;
            }
        };
        shared.healed(PART);
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(pause) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Logs how many objects no row names, if this coordinator leads.
async fn report_orphans<S: History + Removal + ?Sized>(shared: &Shared, store: &S) {
    if !matches!(shared.lead().await, Ok(Some(_))) {
        return;
    }
    match orphans(shared, store, None, REPORTING).await {
        Ok(orphans) => {
            for (kind, of) in orphans.by_kind.iter().filter(|(_, of)| of.count > 0) {
                tracing::warn!(
                    kind = kind.name(),
                    objects = of.count,
                    bytes = of.bytes,
                    at_least = orphans.at_least,
                    "storage has old objects that no job names; `darkroom clean --orphans --remove` removes them"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "storage could not be looked through for orphans"),
    }
}

/// Does whatever there is to do, but begins nothing more after a time.
pub(crate) async fn clean<S>(
    shared: &Shared,
    store: &S,
    (ahead, limit): (Duration, Duration),
) -> Result<Cleaned, Error>
where
    S: Agreed + History + Removal + Retention + ?Sized,
{
    let (mut cleaned, began) = (Cleaned::default(), Instant::now());
    loop {
        let pass = pass(shared, store, ahead).await?;
        cleaned.add(pass.cleaned);
        if pass.busy {
            shared.pause(BUSY).await;
        } else if !pass.more {
            let left = limit.saturating_sub(began.elapsed());
            cleaned.previews += remove_old(shared, store, (ahead, left)).await?;
            return Ok(cleaned);
        }
        if shared.stop.is_cancelled() || began.elapsed() > limit {
            return Ok(cleaned);
        }
    }
}

/// Removes old previews and sheets for a limited time, if this coordinator leads. Returns how many.
/// Also removes what writes left that were cut off long ago.
async fn remove_old<S>(
    shared: &Shared,
    store: &S,
    (ahead, limit): (Duration, Duration),
) -> Result<u64, Error>
where
    S: History + Retention + ?Sized,
{
    if shared.lead().await?.is_none() {
        return Ok(0);
    }
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.rule() != Rule::Never);
    let under = kinds.flat_map(|kind| ["", MADE_UP].map(|root| format!("{root}{}", kind.prefix())));
    let under: Vec<String> = under.collect();
    shared.artifacts.remove_unfinished(&under, ORPHANED).await?;
    let removed = old_previews(shared, store, Fate::Removed, (ahead, limit)).await?;
    Ok(removed.map_or(0, |removed| removed.count))
}

/// Objects of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Objects in storage that no row names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orphans {
    pub(crate) by_kind: BTreeMap<Kind, Objects>,
    /// Not every object could be looked at in time.
    pub(crate) at_least: bool,
}

/// Looks through storage for old objects that no row names, for a limited time. With a term they
/// become candidates.
pub(crate) async fn orphans<S>(
    shared: &Shared,
    store: &S,
    remove: Option<Term>,
    limit: Duration,
) -> Result<Orphans, Error>
where
    S: History + Removal + ?Sized,
{
    let (mut orphans, began) = (Orphans::default(), Instant::now());
    let now = store.clock_ms().await?;
    let oldest = now.saturating_sub(ms(ORPHANED)) / 1000;
    for kind in Kind::ALL.into_iter().filter(|kind| kind.rule() == Rule::Needed) {
        for root in ["", MADE_UP] {
            let listed = shared.artifacts.list(&format!("{root}{}", kind.prefix()));
            let mut chunks = listed.try_chunks(LISTED);
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| error.1)?;
                let old = chunk.iter().filter(|one| one.modified_unix_seconds < oldest);
                let candidates: Vec<Candidate> =
                    old.filter_map(|one| Candidate::listed(&one.key)).collect();
                let found: HashSet<String> =
                    store.orphans(&candidates).await?.into_iter().collect();
                let of_kind = orphans.by_kind.entry(kind).or_default();
                for one in chunk.iter().filter(|one| found.contains(&one.key)) {
                    of_kind.count += 1;
                    of_kind.bytes += one.size;
                }
                if let Some(term) = remove {
                    let removed: Vec<Candidate> =
                        candidates.into_iter().filter(|one| found.contains(&one.key)).collect();
                    store.suspect(term, now, &removed).await?;
                }
                if began.elapsed() > limit || shared.stop.is_cancelled() {
                    orphans.at_least = true;
                    return Ok(orphans);
                }
            }
        }
    }
    Ok(orphans)
}

/// What a pass has done, and whether another one would do more.
#[derive(Default)]
struct Pass {
    cleaned: Cleaned,
    more: bool,
    busy: bool,
}

async fn pass<S>(shared: &Shared, store: &S, ahead: Duration) -> Result<Pass, Error>
where
    S: Agreed + History + Removal + Retention + ?Sized,
{
    let mut pass = Pass::default();
    let Some(term) = shared.lead().await? else { return Ok(pass) };
    let now = now_ms(store, ahead).await?;
    expire(shared, store, term, (now, &mut pass)).await?;
    for _ in 0..CHUNKS {
        let cleared = store.clear_deleted(term, now, IMAGES).await?;
        pass.cleaned.images += cleared.images;
        pass.cleaned.jobs += cleared.jobs;
        pass.more |= cleared.more;
        if !cleared.more {
            break;
        }
    }
    for _ in 0..CHUNKS {
        let Some(marked) = store.mark(term, now, CANDIDATES).await? else {
            pass.busy = true;
            break;
        };
        pass.cleaned.marked += marked.marked;
        pass.more |= marked.more;
        if !marked.more {
            break;
        }
    }
    delete(shared, store, term, (now, &mut pass)).await?;
    while store.forget_removed(term, now, FORGOTTEN).await? >= u64::from(FORGOTTEN) {}
    Ok(pass)
}

/// Applies the retention policies.
async fn expire<S>(
    shared: &Shared,
    store: &S,
    term: Term,
    (now, pass): (i64, &mut Pass),
) -> Result<(), Error>
where
    S: Removal + Retention + ?Sized,
{
    let expired = store.expire_jobs(term, now, JOBS).await?;
    if !expired.is_empty() {
        tracing::info!(jobs = expired.len(), "jobs were deleted by the retention policies");
        shared.events.changed(&expired);
        pass.cleaned.expired += expired.len() as u64;
        pass.more |= expired.len() >= JOBS as usize;
    }
    for _ in 0..CHUNKS {
        let Some(expiring) = store.expiring(term, now, IMAGES).await? else { break };
        if expiring.policy.scope.subject == Subject::Intermediates {
            keep_previews(shared, &expiring.outputs).await;
        }
        let Some(removed) = store.expire(term, now, &expiring).await? else { break };
        pass.cleaned.outputs += removed;
        shared.events.changed(&[expiring.job]);
        pass.more = true;
    }
    for _ in 0..CHUNKS {
        let Some((inputs, more)) = store.forget_inputs(term, now, INPUTS).await? else {
            pass.busy = true;
            break;
        };
        pass.cleaned.inputs += inputs;
        if !more {
            break;
        }
        pass.more = true;
    }
    for policy in store.retention().await? {
        let Some(keep) = policy.keep.filter(|_| policy.scope.subject == Subject::Embeddings) else {
            continue;
        };
        let before = now.saturating_sub(ms(keep));
        match store.forget_texts(term, (now, before), TEXTS).await? {
            Some(forgotten) => {
                pass.cleaned.texts += forgotten;
                pass.more |= forgotten >= u64::from(TEXTS);
            }
            None => pass.busy = true,
        }
    }
    Ok(())
}

/// Makes the small previews of outputs that are about to be removed. One that cannot be read is no
/// obstacle.
pub(crate) async fn keep_previews(shared: &Shared, outputs: &[ArtifactRef]) {
    let keep = |output: &ArtifactRef| {
        let output = output.clone();
        async move {
            let kept = shared.previews.place(shared.source(), &output, KEPT_EDGE).await;
            if let Err(fault) = kept {
                tracing::debug!(key = output.key, ?fault, "an output is removed without a preview");
            }
        }
    };
    stream::iter(outputs).map(keep).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// The time by the record's clock. The only place where the cleaner asks for it.
async fn now_ms(store: &(impl History + ?Sized), ahead: Duration) -> Result<i64, store::Error> {
    Ok(store.clock_ms().await?.saturating_add(ms(ahead)))
}

/// Deletes in storage what is marked.
async fn delete<S>(
    shared: &Shared,
    store: &S,
    term: Term,
    (now, pass): (i64, &mut Pass),
) -> Result<(), Error>
where
    S: Agreed + Removal + ?Sized,
{
    let mut looked = Instant::now();
    let mut leaving = store.leaving(now, OBJECTS).await?;
    if leaving.is_empty() {
        return Ok(());
    }
    if agree(shared, store, term).await? {
        // What is marked is to be looked up again first.
        pass.more = true;
        return Ok(());
    }
    // This process may have been stopped since it looked. Another cleaner may have gone on, and the
    // objects may be there for good reason by now.
    while looked.elapsed() > STALE {
        looked = Instant::now();
        leaving = store.leaving(now, OBJECTS).await?;
    }
    pass.more |= leaving.len() >= OBJECTS as usize;
    let deleting = leaving.into_iter().map(|one| async move {
        let done = remove(shared, &one).await;
        (one, done)
    });
    let done: Vec<_> = stream::iter(deleting).buffer_unordered(AT_ONCE).collect().await;
    let (mut deleted, mut faults) = (Vec::with_capacity(done.len()), Vec::new());
    for (one, done) in done {
        match done {
            Ok(()) => deleted.push(one.key),
            Err(error) => {
                if faults.is_empty() {
                    tracing::warn!(key = one.key, kind = one.kind.name(), tries = one.tries, %error,
                        "an object could not be deleted; it is tried again");
                }
                faults.push((one.key, error.to_string()));
            }
        }
    }
    pass.cleaned.deleted += deleted.len() as u64;
    pass.cleaned.failed += faults.len() as u64;
    store.note_deleted(term, now, &deleted).await?;
    if !faults.is_empty() {
        store.note_not_deleted(term, now, &faults).await?;
    }
    Ok(())
}

/// Deletes an object, or everything below a prefix.
async fn remove(shared: &Shared, leaving: &Leaving) -> Result<(), Error> {
    if !leaving.key.ends_with('/') {
        return Ok(shared.artifacts.delete(&leaving.key).await?);
    }
    let below = shared.artifacts.list(&leaving.key);
    let delete = |listed: darkroom_artifacts::blob::Listed| async move {
        shared.artifacts.delete(&listed.key).await
    };
    Ok(below.map_ok(delete).try_buffer_unordered(AT_ONCE).try_collect::<()>().await?)
}

/// Makes sure that storage belongs to this record, and that its mark has the record's count.
/// Returns whether the record was restored, which an operator has accepted.
async fn agree<S>(shared: &Shared, store: &S, term: Term) -> Result<bool, Error>
where
    S: Agreed + Removal + ?Sized,
{
    let own = own_epoch(store).await?;
    let Some(bytes) = shared.artifacts.read_mark(MARK).await? else {
        write_epoch(shared, &own).await?;
        return Ok(false);
    };
    let epoch: Epoch = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
    let is_ours = (&epoch.farm, &epoch.database) == (&own.farm, &own.database);
    if is_ours && epoch.removals == own.removals {
        return Ok(false);
    }
    if (is_ours && epoch.removals < own.removals) || !stands(Guard::RemovalsAgreed) {
        write_epoch(shared, &own).await?;
        return Ok(false);
    }
    if !shared.restored.swap(false, Ordering::Relaxed) {
        return Err(Error::Store(store::Error::Refused(foreign(&epoch, &own))));
    }
    tracing::warn!(
        storage = epoch.removals,
        record = own.removals,
        "the record was restored; what is to be removed is looked up again"
    );
    // Beyond what the other record may have counted since.
    store.accept_restored(term, epoch.removals.max(own.removals) + 1).await?;
    write_epoch(shared, &own_epoch(store).await?).await?;
    Ok(true)
}

async fn own_epoch<S: Agreed + Removal + ?Sized>(store: &S) -> Result<Epoch, Error> {
    Ok(Epoch {
        farm: store.farm_id().await?.to_string(),
        database: store.database_identity().await?,
        removals: store.removal_count().await?,
    })
}

async fn write_epoch(shared: &Shared, epoch: &Epoch) -> Result<(), Error> {
    let bytes = serde_json::to_vec(epoch).map_err(Error::other)?;
    Ok(shared.artifacts.write_mark(MARK, Bytes::from(bytes)).await?)
}

fn unreadable(error: &serde_json::Error) -> Error {
    let message = format!(
        "{MARK} in storage cannot be read ({error}), so nothing is removed; delete it if this farm alone uses the storage"
    );
    Error::Store(store::Error::Refused(UserError::new(
        Code::FailedPrecondition,
        "CLEANER_MARK",
        message,
    )))
}

fn foreign(epoch: &Epoch, own: &Epoch) -> UserError {
    let why = if epoch.farm != own.farm {
        format!("another farm ({}) removes objects from this storage", epoch.farm)
    } else if epoch.database != own.database {
        "another database of this farm removes objects from this storage".to_owned()
    } else {
        format!(
            "storage knows of {} removals and the record of {}, so the record is an older copy",
            epoch.removals, own.removals
        )
    };
    let message = format!(
        "nothing is removed: {why}; if this record is the right one, start its coordinators with --restored"
    );
    UserError::new(Code::FailedPrecondition, "RECORD_RESTORED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_storage_and_record_differ_in() {
        let own = Epoch { farm: "a".to_owned(), database: "d".to_owned(), removals: 3 };
        let said = |epoch: Epoch| foreign(&epoch, &own).message;
        let older = said(Epoch { removals: 9, ..own.clone() });
        assert!(older.contains("knows of 9 removals and the record of 3"), "{older}");
        let farm = said(Epoch { farm: "b".to_owned(), ..own.clone() });
        assert!(farm.contains("another farm (b)"), "{farm}");
        let copy = said(Epoch { database: "e".to_owned(), ..own.clone() });
        assert!(copy.contains("another database") && copy.ends_with("--restored"), "{copy}");
    }
}
