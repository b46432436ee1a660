//! The disk budget: how much is stored, and what is removed when that is too much.
//!
//! The farm counts what lies in the store when it starts and from time to time, and adds what is
//! committed in between. The record's sums would not do: several rows may name one object, and
//! previews, manifests and what a killed worker left are in none.
//!
//! Outputs are taken from their rows, and the cleaner removes them from storage if no other job
//! names them. Embeddings of texts that no job needs go the same way. Previews and sheets are
//! deleted at once: they are made again when somebody looks. While the cleaner has something to
//! remove, nothing more is taken: those objects still count as stored, so too much would be taken.

mod course;
mod pressure;

use std::{sync::Arc, time::Duration};

use darkroom_artifacts::blob::Listed;
use darkroom_runtime::disk::ByteSize;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use self::{
    course::Course,
    pressure::{Pressure, Step},
};
use crate::{
    error::Error,
    options::Budget,
    previews::KEPT_EDGE,
    shared::Shared,
    store::{
        leftovers::Left,
        records::Term,
        removal::edge_of_preview,
        roles::{History, Leftovers, Removal},
    },
    stored::on_disk,
};

/// Name of this part.
const PART: &str = "disk budget";
/// Time between two counts of the store. What the farm stores in between is added; what others
/// remove is not.
const COUNT_AGAIN: Duration = Duration::from_secs(600);
/// How often the budget is compared with what is stored.
const EVERY: Duration = Duration::from_secs(5);
/// The same after everything was removed that may be.
const FAILED: Duration = Duration::from_secs(60);
/// After this many objects the count rests, so that it disturbs nobody on a slow disk.
const REST_AFTER: usize = 2000;
const REST: Duration = Duration::from_millis(5);
/// Previews and sheets that are looked at in one removal.
const PREVIEWS: usize = 100_000;
/// Texts that are forgotten in one transaction.
const TEXTS: u32 = 20;
/// Pause before the next try when the farm's commits were busy.
const BUSY: Duration = Duration::from_millis(500);

/// The warning when nothing is left that may be removed.
fn only_pictures_left(budget: Budget, held: u64) -> String {
    format!(
        "the farm stores {}, its disk budget is {}, and only pictures and what unfinished jobs need \
         are left; it goes on until the disk is full: raise the budget with --disk-budget, or use \
         another state folder",
        ByteSize(held),
        ByteSize(budget.bytes)
    )
}

/// The warning when what was taken cannot be deleted.
fn not_deleted(budget: Budget, held: u64) -> String {
    format!(
        "the farm stores {}, its disk budget is {}, and objects that are to be removed cannot be \
         deleted; the log says why: see to it that the farm may delete files in its storage",
        ByteSize(held),
        ByteSize(budget.bytes)
    )
}

/// Keeps the budget until shutdown.
pub(crate) async fn run<S>(shared: Arc<Shared>, store: Arc<S>)
where
    S: History + Leftovers + Removal + ?Sized,
{
    let Some(budget) = shared.options.budget else { return };
    let mut keeping = Keeping {
        budget,
        count_at: Instant::now(),
        intermediates: Course::new(Left::Intermediates),
        pictures: Course::new(Left::Pictures),
    };
    while !shared.stop.is_cancelled() {
        let kept = shared.stop.run_until_cancelled(keeping.pass(&shared, store.as_ref())).await;
        match kept {
            Some(Ok(())) => shared.healed(PART),
            Some(Err(error)) => shared.failed(PART, &error),
            None => return,
        }
        let failed = shared.stored.warning().is_some();
        shared.pause(if failed { FAILED } else { EVERY }).await;
    }
}

/// What is remembered from one pass to the next.
struct Keeping {
    budget: Budget,
    count_at: Instant,
    intermediates: Course,
    pictures: Course,
}

impl Keeping {
    async fn pass<S>(&mut self, shared: &Shared, store: &S) -> Result<(), Error>
    where
        S: History + Leftovers + Removal + ?Sized,
    {
        let stored = &shared.stored;
        if Instant::now() >= self.count_at {
            count(shared).await?;
            self.count_at = Instant::now() + COUNT_AGAIN;
        }
        let Some(mut pressure) = Pressure::of(self.budget, stored.bytes().unwrap_or(0)) else {
            stored.warn(None);
            return Ok(());
        };
        // The leader alone removes.
        let Some(term) = shared.lead().await? else { return Ok(()) };
        if store.is_due(store.clock_ms().await?).await? {
            shared.events.clean.notify_one();
            return Ok(());
        }
        if store.is_undeleted().await? {
            stored.warn(Some(not_deleted(self.budget, stored.bytes().unwrap_or(0))));
            return Ok(());
        }
        while let Some((step, most)) = pressure.next() {
            let bytes = match step {
                Step::Intermediates => self.intermediates.take(shared, store, term, most).await?,
                Step::Previews => remove_previews(shared, most).await?,
                Step::Embeddings => forget_texts(shared, store, term, most).await?,
                Step::Pictures => self.pictures.take(shared, store, term, most).await?,
            };
            stored.removed(bytes);
            pressure.removed(bytes);
            if bytes > 0 {
                tracing::info!(
                    bytes,
                    kind = step.name(),
                    "removed because more is stored than the disk budget allows"
                );
            }
        }
        let held = stored.bytes().unwrap_or(0);
        stored.warn(pressure.failed().then(|| only_pictures_left(self.budget, held)));
        Ok(())
    }
}

/// Counts the store anew.
async fn count(shared: &Shared) -> Result<(), Error> {
    // What is committed during the count may be counted twice until the next one.
    let before = shared.stored.since();
    let sizes = shared.artifacts.list("").map_ok(|object| object.size).map_err(Error::from);
    let bytes = sum(sizes).await?;
    shared.stored.count(bytes, before);
    Ok(())
}

async fn sum(sizes: impl Stream<Item = Result<u64, Error>>) -> Result<u64, Error> {
    let mut sizes = std::pin::pin!(sizes);
    let (mut bytes, mut objects) = (0_u64, 0_usize);
    let mut told = Instant::now();
    while let Some(size) = sizes.next().await {
        bytes = bytes.saturating_add(on_disk(size?));
        objects += 1;
        if told.elapsed() >= COUNT_AGAIN {
            told = Instant::now();
            tracing::warn!(
                objects,
                bytes,
                "what the farm stores is still being counted; the disk budget removes nothing until \
                 that ends"
            );
        }
        if objects.is_multiple_of(REST_AFTER) {
            tokio::time::sleep(REST).await;
        }
    }
    Ok(bytes)
}

/// Removes sheets and previews, oldest first, about `most` bytes or all that there are.
async fn remove_previews(shared: &Shared, most: u64) -> Result<u64, Error> {
    // Of an output that was removed, the smallest ones are all there is to see.
    let listed = shared.artifacts.list("sheets/").chain(shared.artifacts.list("previews/"));
    let mut listed: Vec<Listed> = listed
        .try_filter(|object| std::future::ready(edge_of_preview(&object.key) != Some(KEPT_EDGE)))
        .take(PREVIEWS)
        .try_collect()
        .await?;
    listed
        .sort_by(|a, b| (a.modified_unix_seconds, &a.key).cmp(&(b.modified_unix_seconds, &b.key)));
    let mut bytes = 0;
    for object in listed {
        shared.artifacts.delete(&object.key).await?;
        bytes += on_disk(object.size);
        if bytes >= most {
            break;
        }
    }
    Ok(bytes)
}

/// Forgets texts that no job needs, about `most` bytes of their embeddings or all that there are.
/// The cleaner removes the embeddings soon after. A job that needs one has it encoded again.
async fn forget_texts<S>(shared: &Shared, store: &S, term: Term, most: u64) -> Result<u64, Error>
where
    S: History + Removal + ?Sized,
{
    let now = store.clock_ms().await?;
    let mut bytes = 0;
    while bytes < most && !shared.stop.is_cancelled() {
        let Some(forgotten) = store.forget_texts(term, (now, now), TEXTS).await? else {
            shared.pause(BUSY).await;
            continue;
        };
        bytes += forgotten.sizes.into_iter().map(on_disk).sum::<u64>();
        if !forgotten.more {
            break;
        }
    }
    if bytes > 0 {
        shared.events.clean.notify_one();
    }
    Ok(bytes)
}
