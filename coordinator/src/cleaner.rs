//! Removes what nobody needs: rows of deleted jobs, and objects that no row names.
//!
//! The leader's cleaner works in small steps, each of which is repeated harmlessly. A job's rows
//! are removed in chunks, and what they named becomes a candidate in the same transaction.
//! Candidates that nobody needs are marked, and from then on nobody can begin to need them (see
//! [`crate::store::removal`]). Only then are they deleted in storage.
//!
//! Storage has a mark with the farm's count of removals (`epoch`). It is compared with the record
//! before anything is marked, and raised before anything is deleted. If the mark is ahead of the
//! record, the record is an older copy, which may name objects that are gone and lack those of
//! others. Then the cleaner stops until an operator accepts that.

mod deleting;
mod epoch;
mod orphans;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use darkroom_core::{
    artifact::ArtifactRef,
    error::{Code, UserError},
    guard::{Guard, stands},
    retention::{Policy, Subject},
};
use futures::{StreamExt as _, stream};

pub(crate) use self::orphans::{Objects, orphans};
use self::{
    deleting::delete,
    epoch::{Agreement, agree},
    orphans::ORPHANED,
};
use crate::{
    error::Error,
    old_previews::{Fate, old_previews},
    previews::KEPT_EDGE,
    shared::Shared,
    store::{
        self,
        records::Term,
        removal::{Kind, MADE_UP, Rule, ms},
        roles::{Agreed, Batches, History, Removal, Retention, Webhooks},
    },
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
/// Files, and batches, that are forgotten in one transaction.
const FILES: u32 = 400;
/// Candidates that are looked up in one transaction. Commits wait meanwhile.
const CANDIDATES: u32 = 400;
/// Most previews that are made at the same time.
const PREVIEWS: usize = 16;
/// Rows that are forgotten in one transaction.
const FORGOTTEN: u32 = 5000;
/// Chunks of jobs' rows, or batches of candidates, in one pass.
const CHUNKS: u32 = 20;
/// Pause before the next try when the farm's commits were busy.
const BUSY: Duration = Duration::from_millis(500);
/// How often orphans are looked for.
const REPORT: Duration = Duration::from_secs(3600);
/// How long after the start orphans are first looked for. Some farms run for less than an hour a day.
const FIRST_REPORT: Duration = Duration::from_secs(60);
/// Longest that old previews and cut-off writes are removed at one time.
const REMOVING: Duration = Duration::from_secs(600);

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
    /// Files whose retention has ended.
    pub files: u64,
    /// Batches that ended long ago.
    pub batches: u64,
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
        self.files += other.files;
        self.batches += other.batches;
        self.previews += other.previews;
        self.marked += other.marked;
        self.deleted += other.deleted;
        self.failed += other.failed;
    }
}

/// Looks for orphans, and removes old previews, every hour until shutdown.
pub(crate) async fn run_hourly<S>(shared: Arc<Shared>, store: Arc<S>)
where
    S: History + Removal + Retention + ?Sized,
{
    let mut pause = FIRST_REPORT;
    loop {
        shared.pause(pause).await;
        if shared.stop.is_cancelled() {
            return;
        }
        pause = REPORT;
        orphans::report(&shared, store.as_ref()).await;
        let time = (Duration::ZERO, REMOVING);
        if let Err(error) = remove_old(&shared, store.as_ref(), time).await {
            tracing::warn!(%error, "old previews could not be removed");
        }
    }
}

/// Runs until shutdown.
pub(crate) async fn run<S>(shared: Arc<Shared>, store: Arc<S>)
where
    S: Agreed + Batches + History + Removal + Retention + Webhooks + ?Sized,
{
    while !shared.stop.is_cancelled() {
        let woken = shared.events.clean.notified();
        let pause = match pass(&shared, store.as_ref(), Duration::ZERO).await {
            Ok(Some(Pass { more: true, .. })) => Duration::ZERO,
            Ok(Some(Pass { busy: true, .. })) => BUSY,
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

/// Does whatever there is to do, but begins nothing more after a time. Refused if this coordinator
/// does not lead the farm.
pub(crate) async fn clean<S>(
    shared: &Shared,
    store: &S,
    (ahead, limit): (Duration, Duration),
) -> Result<Cleaned, Error>
where
    S: Agreed + Batches + History + Removal + Retention + Webhooks + ?Sized,
{
    let (mut cleaned, began) = (Cleaned::default(), Instant::now());
    loop {
        let Some(pass) = pass(shared, store, ahead).await? else {
            return Err(Error::Store(store::Error::Refused(not_leading())));
        };
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
/// Also removes old files of writes that were cut off.
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
    // Both scans start at the first file each time, so each gets half of the time.
    let each = limit / 2;
    let (stop, began) = (shared.stop.clone(), Instant::now());
    let ends = move || stop.is_cancelled() || began.elapsed() > each;
    shared.artifacts.remove_unfinished(&under, ORPHANED, ends).await?;
    let removed = old_previews(shared, store, Fate::Removed, (ahead, each)).await?;
    Ok(removed.map_or(0, |removed| removed.count))
}

/// The refusal of what only the leader may do.
pub(crate) fn not_leading() -> UserError {
    let message = "another coordinator leads the farm, and only that one removes objects; try \
                   again, or ask that one";
    UserError::new(Code::Unavailable, "NOT_LEADING", message)
}

/// What a pass has done, and whether another one would do more.
#[derive(Default)]
struct Pass {
    cleaned: Cleaned,
    more: bool,
    busy: bool,
}

/// One pass; `None` if this coordinator does not lead the farm.
async fn pass<S>(shared: &Shared, store: &S, ahead: Duration) -> Result<Option<Pass>, Error>
where
    S: Agreed + Batches + History + Removal + Retention + Webhooks + ?Sized,
{
    // One at a time, although users may ask for one while the cleaner works: when a pass accepts a
    // restored record, everything that is marked must be looked up again, and another pass would
    // delete it meanwhile.
    let _alone = match stands(Guard::CleansAlone) {
        true => Some(shared.cleaning.lock().await),
        false => None,
    };
    let mut pass = Pass::default();
    let Some(term) = shared.lead().await? else {
        if shared.restored.load(Ordering::Relaxed)
            && let Err(error) = epoch::settle(shared, store).await
        {
            tracing::debug!(%error, "this coordinator's acceptance of the record stays");
        }
        return Ok(None);
    };
    let now = now_ms(store, ahead).await?;
    while store.forget_events(term, now, FORGOTTEN).await? >= u64::from(FORGOTTEN)
        && !shared.stop.is_cancelled()
    {}
    let policies = store.retention().await?;
    // Old previews are not removed here. Files have times of their own, so they are asked for.
    let is_else = |one: &Policy| !matches!(one.scope.subject, Subject::Previews | Subject::Files);
    let acts = |one: &Policy| one.keep.is_some() && is_else(one);
    let is_due = policies.iter().any(acts) || store.is_due(now).await?;
    let is_due = is_due || store.is_file_due(now).await?;
    if !is_due && !shared.restored.load(Ordering::Relaxed) {
        return Ok(Some(pass));
    }
    if agree(shared, store, term).await? == Agreement::Accepted {
        pass.more = true;
    }
    expire(shared, store, term, (now, &mut pass), &policies).await?;
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
    let deleted = delete(shared, store, term, now).await?;
    pass.cleaned.deleted += deleted.deleted;
    pass.cleaned.failed += deleted.failed;
    pass.more |= deleted.more;
    while store.forget_removed(term, now, FORGOTTEN).await? >= u64::from(FORGOTTEN)
        && !shared.stop.is_cancelled()
    {}
    Ok(Some(pass))
}

/// Applies the retention policies.
async fn expire<S>(
    shared: &Shared,
    store: &S,
    term: Term,
    (now, pass): (i64, &mut Pass),
    policies: &[Policy],
) -> Result<(), Error>
where
    S: Batches + Removal + Retention + ?Sized,
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
    for _ in 0..CHUNKS {
        let forgotten = store.forget_files(term, now, FILES).await?;
        pass.cleaned.files += forgotten.files;
        pass.cleaned.batches += forgotten.batches;
        if !forgotten.more {
            break;
        }
        pass.more = true;
    }
    for policy in policies {
        let Some(keep) = policy.keep.filter(|_| policy.scope.subject == Subject::Embeddings) else {
            continue;
        };
        let before = now.saturating_sub(ms(keep));
        match store.forget_texts(term, (now, before), TEXTS).await? {
            Some(forgotten) => {
                pass.cleaned.texts += forgotten.texts;
                pass.more |= forgotten.more;
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
    stream::iter(outputs).map(keep).buffer_unordered(PREVIEWS).collect::<()>().await;
}

/// The time by the record's clock. The only place where the cleaner asks for it.
async fn now_ms(store: &(impl History + ?Sized), ahead: Duration) -> Result<i64, store::Error> {
    Ok(store.clock_ms().await?.saturating_add(ms(ahead)))
}
