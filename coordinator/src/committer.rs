//! Reads results in bulk, commits each bulk in one transaction, and acknowledges it after the
//! commit. If the dispatcher has given credit, the same transaction dispatches their images to the
//! next pool.
//!
//! A bulk that fails because of its content is halved until the faulty result is alone. That result
//! is counted and acknowledged, so that it does not block others. Other faults of the record are
//! retried, so that no finished work is lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_core::guard::{Guard, stands};
use darkroom_queue::task::{EntryId, Outcome, PoolId, ResultEntry, TaskResult};

use crate::{
    dispatcher,
    error::Error,
    shared::Shared,
    store::{
        self,
        records::{Committed, Dispatched, Fate, Onward, Report},
        roles::Outcomes,
    },
    trust::Sifted,
};

/// Results of one transaction.
const BULK: usize = 512;
/// How long one read waits for the first result.
const WAIT: Duration = Duration::from_secs(1);
/// Pause after a temporary error.
const PAUSE: Duration = Duration::from_millis(500);

/// Commits one pool's results until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, store: Arc<dyn Outcomes>, pool: PoolId) {
    while !shared.stop.is_cancelled() {
        let read = shared.queue.results(&pool, shared.leadership.holder(), BULK, WAIT);
        let entries = tokio::select! {
            entries = read => entries,
            () = shared.stop.cancelled() => return,
        };
        let done = match entries {
            // There are no results, but the queue can be read.
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(entries) => take(&shared, store.as_ref(), &pool, entries).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => shared.healed(&part(&pool)),
            Err(error) => {
                shared.failed(&part(&pool), &error);
                shared.pause(PAUSE).await;
            }
        }
    }
}

/// The name of this part. Each pool's commits fail and recover separately.
fn part(pool: &PoolId) -> String {
    format!("commit {pool}")
}

/// Commits the entries that members of the pool signed. The others change nothing: the queue is a
/// place where anybody may have written them. A task whose result was not believed is absent from
/// the queue, so the sweep returns it at no cost.
async fn take(
    shared: &Shared,
    store: &dyn Outcomes,
    pool: &PoolId,
    entries: Vec<ResultEntry>,
) -> Result<(), Error> {
    let lease = shared.options.lease;
    let Sifted { believed, forged } = shared.trust.sift((pool, &shared.cascades), lease, entries);
    if !forged.is_empty() {
        forged.iter().for_each(|(_, reason)| shared.counters.discard(reason.name()));
        let forged: Vec<_> = forged.into_iter().map(|(entry, _)| entry).collect();
        acknowledge(shared, pool, &forged).await;
    }
    if believed.is_empty() { Ok(()) } else { settle(shared, store, pool, &believed).await }
}

/// Commits the entries and acknowledges them. Retries until shutdown, unless an entry is at fault.
async fn settle(
    shared: &Shared,
    store: &dyn Outcomes,
    pool: &PoolId,
    entries: &[ResultEntry],
) -> Result<(), Error> {
    let _unsettled = shared.credits.unsettled(pool, entries.len() as u64);
    // Halves that are not committed yet; the next one is last.
    let mut bulks = vec![entries];
    while let Some(bulk) = bulks.pop() {
        if !stands(Guard::AckAfterCommit) {
            acknowledge(shared, pool, bulk).await;
        }
        match commit(shared, store, pool, bulk).await {
            Ok(()) => shared.healed(&part(pool)),
            Err(error) if error.retryable() || !error.is_about_the_data() => {
                if shared.stop.is_cancelled() {
                    return Ok(());
                }
                shared.failed(&part(pool), &error.into());
                bulks.push(bulk);
                shared.pause(PAUSE).await;
                continue;
            }
            Err(error) if bulk.len() == 1 => {
                tracing::error!(pool = %pool, %error, "result cannot be committed; it is dropped");
                shared.counters.unusable.add(1);
            }
            Err(_) => {
                let (first, second) = bulk.split_at(bulk.len() / 2);
                bulks.extend([second, first]);
                continue;
            }
        }
        acknowledge(shared, pool, bulk).await;
    }
    Ok(())
}

/// The rest of the bulk is still committed. Entries that are not acknowledged are read again,
/// without effect.
async fn acknowledge(shared: &Shared, pool: &PoolId, bulk: &[ResultEntry]) {
    let ids: Vec<EntryId> = bulk.iter().map(|entry| entry.id.clone()).collect();
    if let Err(error) = shared.queue.acknowledge(pool, &ids).await {
        tracing::warn!(pool = %pool, %error, "committed results could not be acknowledged");
    }
}

async fn commit(
    shared: &Shared,
    store: &dyn Outcomes,
    pool: &PoolId,
    bulk: &[ResultEntry],
) -> Result<(), store::Error> {
    let most = bulk.len() as u64;
    let next = shared.cascades.pools_after(pool);
    let onward: Vec<Onward> =
        next.iter().filter_map(|next| shared.credits.take(next, most)).collect();
    let done = commit_onward(shared, store, (pool, bulk), &onward).await;
    let mut used: HashMap<&PoolId, Vec<Dispatched>> = HashMap::new();
    let (reports, committed, dispatched) = match done {
        Ok(done) => done,
        Err(error) => {
            onward.iter().for_each(|credit| shared.credits.end(credit, 0));
            return Err(error);
        }
    };
    for (pool, task) in dispatched {
        if let Some(credit) = onward.iter().find(|credit| credit.pool == pool) {
            used.entry(&credit.pool).or_default().push(task);
        }
    }
    for credit in &onward {
        let tasks = used.remove(&credit.pool).unwrap_or_default();
        shared.credits.end(credit, tasks.len() as u64);
        // The results are committed in any case. Tasks that the queue refuses become ready again,
        // by the next sweep at the latest.
        if let Err(error) =
            dispatcher::hand_out(shared, store, credit.term, (&credit.pool, &tasks)).await
        {
            shared.failed(&part(&credit.pool), &error);
        }
    }
    measure(shared, pool, &reports, &committed);
    shared.committed(&committed);
    if pool.stage.is_encode() {
        shared.events.follow.notify_one();
    }
    shared.events.dispatch.notify_one();
    Ok(())
}

type Done = (Vec<Report>, Committed, Vec<(PoolId, Dispatched)>);

async fn commit_onward(
    shared: &Shared,
    store: &dyn Outcomes,
    (pool, bulk): (&PoolId, &[ResultEntry]),
    onward: &[Onward],
) -> Result<Done, store::Error> {
    let live_places = shared.crew.get().places(pool);
    let reports: Vec<_> = bulk
        .iter()
        .map(|entry| Report { result: keepable(entry.result.clone()), live_places })
        .collect();
    let done = match store.commit_onward(pool, &reports, onward).await {
        Err(store::Error::NotLeading(_)) => {
            // Results are committed whether or not this coordinator leads.
            shared.credits.close_all();
            (store.commit(pool, &reports).await?, Vec::new())
        }
        done => done?,
    };
    Ok((reports, done.0, done.1))
}

/// Most characters of a sentence, of a name of something, and of a key in storage.
const SENTENCE: usize = 1000;
const NAME: usize = 200;
const KEY: usize = 1024;
/// Most notes on one text.
const NOTES: usize = 20;

/// The result as the record keeps it. Its texts come from a member, which may send any: without
/// U+0000, which Postgres cannot store, and cut where they are long, because a row is kept for each
/// attempt and read with its image.
fn keepable(mut result: TaskResult) -> TaskResult {
    keep(&mut result.place, NAME);
    keep(&mut result.device_class, NAME);
    match &mut result.outcome {
        Outcome::Done { notes, .. } => {
            let more = notes.len().saturating_sub(NOTES);
            notes.truncate(NOTES);
            notes.iter_mut().for_each(|note| keep(note, SENTENCE));
            if more > 0 {
                notes.push(format!("has {more} more notes, which were left out"));
            }
        }
        Outcome::Failed { code, message } => {
            if code.name().contains('\0') || code.name().chars().count() > NAME {
                let mut text = String::from(code.clone());
                keep(&mut text, NAME);
                *code = text.into();
            }
            keep(message, SENTENCE);
        }
        Outcome::Interrupted { reason } => keep(reason, SENTENCE),
        Outcome::InputMissing { key } => keep(key, KEY),
    }
    result
}

/// Cuts a text behind so many characters, and says so.
fn keep(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        let more = text[end..].chars().count();
        text.truncate(end);
        text.push_str(&format!("… ({more} more characters were cut)"));
    }
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

fn measure(shared: &Shared, pool: &PoolId, reports: &[Report], committed: &Committed) {
    for (report, fate) in reports.iter().zip(&committed.fates) {
        let result = &report.result;
        match (fate, &result.outcome) {
            (Fate::Applied, Outcome::Failed { code, message }) => {
                tracing::warn!(pool = %pool, subject = ?result.key.subject, task.attempt = result.key.dispatch,
                    worker = %result.worker, error.code = code.name(), error = message, "task failed");
                shared.events.limits.notify_one();
                shared.counters.committed.add(1);
            }
            (Fate::Applied, outcome) => {
                if let Outcome::Done { artifact, .. } = outcome {
                    shared.stored.committed(artifact.size);
                }
                shared.counters.committed.add(1);
            }
            (Fate::Discarded(reason), _) => {
                tracing::debug!(pool = %pool, subject = ?result.key.subject, reason = reason.name(), "result discarded");
                shared.counters.discard(reason.name());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::{
        artifact::ArtifactRef,
        digest::Digest,
        id::{ImageId, JobId, WorkerId},
    };
    use darkroom_queue::task::{Subject, TaskKey};

    use super::*;

    fn kept(outcome: Outcome) -> TaskResult {
        let image = ImageId { job: JobId(uuid::Uuid::nil()), index: 0 };
        keepable(TaskResult {
            key: TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 1 },
            worker: WorkerId("w".to_owned()),
            place: "p".repeat(100_000),
            device_class: "d\0".to_owned(),
            alone: true,
            seconds: 1.0,
            batch: 1,
            outcome,
            warrant: None,
            signature: None,
        })
    }

    #[test]
    fn what_a_member_says_at_length_is_cut_by_characters_and_it_says_so() {
        let long = "ü".repeat(2 * SENTENCE);
        let cut = format!("{}… ({SENTENCE} more characters were cut)", "ü".repeat(SENTENCE));
        let failed = kept(Outcome::Failed {
            code: "c".repeat(1_000_000).as_str().into(),
            message: long.clone(),
        });
        assert!(failed.place.chars().count() < NAME + 50, "{}", failed.place.len());
        assert_eq!(failed.device_class, "d\u{fffd}");
        let Outcome::Failed { code, message } = failed.outcome else { panic!("a failure") };
        assert!(code.name().len() < NAME + 50, "{}", code.name().len());
        assert_eq!(message, cut);
        let interrupted = kept(Outcome::Interrupted { reason: long.clone() }).outcome;
        assert_eq!(interrupted, Outcome::Interrupted { reason: cut.clone() });
        let missing = kept(Outcome::InputMissing { key: "k".repeat(1 << 20) }).outcome;
        assert!(matches!(missing, Outcome::InputMissing { key } if key.len() < KEY + 50));

        let sha256 = Digest::of(b"x");
        let artifact = ArtifactRef { key: "k".to_owned(), sha256, size: 1 };
        let notes = vec![long; 10_000];
        let done = kept(Outcome::Done { artifact, notes }).outcome;
        let Outcome::Done { notes, .. } = done else { panic!("done") };
        assert_eq!(notes.len(), NOTES + 1);
        assert!(notes[..NOTES].iter().all(|note| *note == cut));
        assert_eq!(notes[NOTES], "has 9980 more notes, which were left out");
    }

    #[test]
    fn what_has_an_ordinary_length_is_kept_as_it_is() {
        for length in [0, 1, SENTENCE] {
            let mut text = "ü".repeat(length);
            keep(&mut text, SENTENCE);
            assert_eq!(text, "ü".repeat(length));
        }
    }
}
