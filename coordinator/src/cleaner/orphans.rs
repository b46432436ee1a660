//! Old objects in storage that no row names, such as what killed workers left.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;

use crate::{
    error::Error,
    orphan_cursor::OrphanCursor,
    shared::Shared,
    store::{
        records::Term,
        removal::{Candidate, Kind, MADE_UP, Rule, ms},
        roles::{History, Removal},
    },
};

/// Age at which an object that no row names counts as an orphan. Younger ones may be on their way
/// into the record.
pub(super) const ORPHANED: Duration = Duration::from_secs(7 * 24 * 3600);
/// For how long storage is looked through for a line in the log.
pub(super) const REPORTING: Duration = Duration::from_secs(60);
/// Objects that are looked up at one time.
const LISTED: usize = 500;

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

/// What is looked through.
fn prefixes() -> Vec<(Kind, String)> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.rule() == Rule::Needed);
    let of = |kind: Kind| ["", MADE_UP].map(|root| (kind, format!("{root}{}", kind.prefix())));
    kinds.flat_map(of).collect()
}

/// Looks through storage for old objects that no row names, for a limited time. With a term they
/// become candidates, and the look goes on where the last one with a term has ended.
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
    let mut kept = match remove {
        Some(_) => Some(shared.orphans_from.lock().await),
        None => None,
    };
    let mut cursor = kept.as_deref().cloned().unwrap_or_default();
    for (number, (kind, prefix)) in prefixes().into_iter().enumerate().skip(cursor.prefix) {
        if cursor.prefix != number {
            cursor = OrphanCursor { prefix: number, ..OrphanCursor::default() };
        }
        let listed = shared.artifacts.list_after(&prefix, &cursor.after);
        let mut chunks = std::pin::pin!(listed.try_chunks(LISTED));
        while let Some(chunk) = chunks.try_next().await.map_err(|error| error.1)? {
            let old = chunk.iter().filter(|one| one.modified_unix_seconds < oldest);
            let candidates: Vec<Candidate> =
                old.filter_map(|one| Candidate::listed(&one.key)).collect();
            let found: HashSet<String> = store.orphans(&candidates).await?.into_iter().collect();
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
            if let Some(last) = chunk.into_iter().last() {
                cursor.after = last.key;
            }
            if began.elapsed() > limit || shared.stop.is_cancelled() {
                orphans.at_least = true;
                if let Some(kept) = &mut kept {
                    **kept = cursor;
                }
                return Ok(orphans);
            }
        }
    }
    if let Some(kept) = &mut kept {
        **kept = OrphanCursor::default();
    }
    Ok(orphans)
}

/// Logs how many objects no row names, if this coordinator leads.
pub(super) async fn report<S: History + Removal + ?Sized>(shared: &Shared, store: &S) {
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
