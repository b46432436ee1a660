//! Deletes in storage what is marked in the record.

use std::time::Instant;

use darkroom_core::guard::{Guard, stands};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::epoch::{Raised, raise};
use crate::{
    error::Error,
    shared::Shared,
    store::{
        records::Term,
        removal::{Kind, Leaving},
        roles::{Agreed, Removal},
    },
};

/// Objects that are deleted in storage between two looks at the record.
const OBJECTS: u32 = 500;
/// Most deletions in storage that run at the same time.
const AT_ONCE: usize = 16;

/// What was deleted in storage.
#[derive(Default)]
pub(super) struct Deleted {
    pub(super) deleted: u64,
    /// Deletions that failed. They are tried again.
    pub(super) failed: u64,
    /// Whether another call would do more at once.
    pub(super) more: bool,
}

/// Deletes in storage what is marked.
pub(super) async fn delete<S>(
    shared: &Shared,
    store: &S,
    term: Term,
    now: i64,
) -> Result<Deleted, Error>
where
    S: Agreed + Removal + ?Sized,
{
    let mut looked = Instant::now();
    let mut leaving = store.leaving(term, now, OBJECTS).await?;
    if leaving.is_empty() {
        return Ok(Deleted::default());
    }
    let raised = raise(shared, store, term).await?;
    if raised == Raised::LookAgain {
        return Ok(Deleted { more: true, ..Deleted::default() });
    }
    // This process may have been stopped since it looked. Another cleaner may have gone on, and the
    // objects may be there for good reason by now.
    while looked.elapsed() > shared.options.clean_stale {
        looked = Instant::now();
        leaving = store.leaving(term, now, OBJECTS).await?;
    }
    let more = leaving.len() >= OBJECTS as usize;
    if let Raised::UpTo(known) = raised {
        leaving = without_room(leaving, known);
    }
    let deleting = leaving.into_iter().map(|one| async move {
        let done = remove(shared, &one).await;
        (one, done)
    });
    let done: Vec<_> = stream::iter(deleting).buffer_unordered(AT_ONCE).collect().await;
    let (mut deleted, mut faults) = (Vec::with_capacity(done.len()), Vec::new());
    for (one, done) in done {
        match done {
            Ok(()) => deleted.push(one.key),
            Err(_) if !stands(Guard::DeletedForSure) => deleted.push(one.key),
            Err(error) => {
                if faults.is_empty() {
                    tracing::warn!(key = one.key, kind = one.kind.name(), tries = one.tries, %error,
                        "an object could not be deleted; it is tried again");
                }
                faults.push((one.key, error.to_string()));
            }
        }
    }
    // There is room now, so the rest can follow.
    let more = more || raised != Raised::All && !deleted.is_empty();
    store.note_deleted(term, now, &deleted).await?;
    if !faults.is_empty() {
        store.note_not_deleted(term, now, &faults).await?;
    }
    Ok(Deleted { deleted: deleted.len() as u64, failed: faults.len() as u64, more })
}

/// What is deleted while storage has no room to note the latest removals; it knows of those up to
/// `known`.
///
/// The order matters: a copy of the record from before a removal is recognised only if storage
/// knows of that removal. So objects whose removal it knows of go first, and previews, which are
/// made again. They make room for the note, and the rest follows after it. If there are none, one
/// object goes before its removal is noted, because a full store could never be emptied otherwise.
/// Until the next pass has noted it, a copy that lacks just this removal would not be recognised.
fn without_room(leaving: Vec<Leaving>, known: u64) -> Vec<Leaving> {
    let is_known = |one: &Leaving| one.mark <= known || one.kind == Kind::Preview;
    let (mut first, rest): (Vec<_>, Vec<_>) = leaving.into_iter().partition(is_known);
    if first.is_empty() {
        // Below a prefix there may be nothing.
        let is_object = |one: &Leaving| !one.key.ends_with('/');
        let one = rest.iter().position(is_object).unwrap_or(0);
        first.extend(rest.into_iter().nth(one));
    }
    first
}

/// Deletes an object, or everything below a prefix. A prefix has a time limit: storage may list
/// without end, and other removals wait meanwhile.
async fn remove(shared: &Shared, leaving: &Leaving) -> Result<(), Error> {
    if !leaving.key.ends_with('/') {
        return Ok(shared.artifacts.delete(&leaving.key).await?);
    }
    let below = shared.artifacts.list(&leaving.key);
    let delete = |listed: darkroom_artifacts::blob::Listed| async move {
        shared.artifacts.delete(&listed.key).await
    };
    let deleting = below.map_ok(delete).try_buffer_unordered(AT_ONCE).try_collect::<()>();
    match tokio::time::timeout(shared.options.clean_below, deleting).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            Err(Error::other("more lies below this prefix than could be deleted in one pass"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_for_the_mark_only_known_removals_go_or_one_object() {
        let leaving = |key: &str, mark| Leaving {
            key: key.to_owned(),
            kind: Kind::of(key).expect("a kind"),
            tries: 0,
            mark,
        };
        let keys = |leaving: Vec<Leaving>| -> Vec<String> {
            leaving.into_iter().map(|one| one.key).collect()
        };
        let all = [
            leaving("manifests/a/", 9),
            leaving("tasks/a/1.png", 8),
            leaving("tasks/b/1.png", 7),
            leaving("previews/2/a/", 9),
        ];
        assert_eq!(keys(without_room(all.to_vec(), 7)), ["tasks/b/1.png", "previews/2/a/"]);
        assert_eq!(keys(without_room(all[..3].to_vec(), 6)), ["tasks/a/1.png"]);
        assert_eq!(keys(without_room(all[..1].to_vec(), 6)), ["manifests/a/"]);
        assert_eq!(keys(without_room(all[..3].to_vec(), 9)).len(), 3);
    }
}
