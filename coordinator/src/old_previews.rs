//! Previews and sheets that are older than the policy for them allows. They are made again when
//! somebody looks, so they are deleted without being marked first, and no row changes.
//!
//! Of a removed output the smallest preview is all that there is to see. So previews of that size
//! stay, and go with the rows that name their output.

use std::time::{Duration, Instant};

use darkroom_artifacts::blob::Listed;
use darkroom_core::retention::{Policy, Subject};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    error::Error,
    previews::KEPT_EDGE,
    shared::Shared,
    store::{
        removal::{Due, Kind, Rule, edge_of_preview, ms},
        roles::{History, Retention},
    },
};

/// Objects that are looked at between two looks at the clock.
const LISTED: usize = 500;
/// Objects that are deleted at one time.
const AT_ONCE: usize = 16;

/// What to do with old previews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Removed,
    Counted,
}

/// Removes or counts old previews and sheets, for a limited time. `ahead` moves the clock. `None`
/// if they are kept for ever.
pub(crate) async fn old_previews<S>(
    shared: &Shared,
    store: &S,
    fate: Fate,
    (ahead, limit): (Duration, Duration),
) -> Result<Option<Due>, Error>
where
    S: History + Retention + ?Sized,
{
    let policies = store.retention().await?;
    let is_it = |policy: &Policy| policy.scope.subject == Subject::Previews;
    let Some(policy) = policies.into_iter().find(is_it) else { return Ok(None) };
    let Some(keep) = policy.keep else { return Ok(None) };
    let now = store.clock_ms().await?.saturating_add(ms(ahead));
    let oldest = now.saturating_sub(ms(keep)) / 1000;
    let began = Instant::now();
    let mut due = Due { policy, count: 0, bytes: 0, at_least: false };
    let kinds =
        Kind::ALL.into_iter().filter(|kind| *kind == Kind::Preview || kind.rule() == Rule::Old);
    for kind in kinds {
        let listed = shared.artifacts.list(kind.prefix());
        let mut chunks = std::pin::pin!(listed.try_chunks(LISTED));
        while let Some(chunk) = chunks.try_next().await.map_err(|error| error.1)? {
            let is_old = |one: &Listed| {
                one.modified_unix_seconds < oldest && edge_of_preview(&one.key) != Some(KEPT_EDGE)
            };
            let old: Vec<Listed> = chunk.into_iter().filter(is_old).collect();
            let (count, bytes) = (old.len() as u64, old.iter().map(|one| one.size).sum::<u64>());
            if fate == Fate::Removed {
                let delete = |one: Listed| async move { shared.artifacts.delete(&one.key).await };
                let deleting = stream::iter(old).map(delete).buffer_unordered(AT_ONCE);
                deleting.try_collect::<()>().await?;
            }
            due.count += count;
            due.bytes += bytes;
            if began.elapsed() > limit || shared.stop.is_cancelled() {
                due.at_least = true;
                return Ok(Some(due));
            }
        }
    }
    Ok(Some(due))
}
