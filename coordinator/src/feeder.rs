//! Reads the farm's changes, and sends them to the followers (see [`crate::feed`]).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    feed::{JOBS, News, Workers},
    shared::Shared,
    store::{
        farm_changes::{ChangePosition, ChangeQuery},
        roles::{FarmChanges, WorkerHealth},
    },
};

/// Shortest time between two readings of the workers.
const WORKERS: Duration = Duration::from_secs(1);
/// Name of this part.
const PART: &str = "feed";

/// The feed's position.
struct Reader {
    position: ChangePosition,
    /// Versions and marks of reported jobs that may be read again, by `seq`.
    told: HashMap<i64, u64>,
    marks: HashMap<i64, u64>,
    /// The workers as last reported, without the values that always change.
    workers: Workers,
    looked: Option<Instant>,
}

/// Runs until shutdown.
pub(crate) async fn run<S: FarmChanges + WorkerHealth + ?Sized>(
    shared: Arc<Shared>,
    store: Arc<S>,
) {
    let mut reader: Option<Reader> = None;
    while !shared.stop.is_cancelled() {
        if !shared.feed.is_followed() {
            shared.feed.reads.send_replace(false);
            // A follower that joined before the line above may have seen that the feed reads, so
            // the feed must continue from its position. A follower that joins after it waits.
            if !shared.feed.is_followed() {
                reader = None;
                tokio::select! {
                    () = shared.feed.wanted.notified() => {}
                    () = shared.stop.cancelled() => {}
                }
                continue;
            }
        }
        match pass(&shared, store.as_ref(), &mut reader).await {
            Ok(()) => shared.healed(PART),
            Err(error) => shared.failed(PART, &error),
        }
        shared.pause(shared.options.poll).await;
    }
}

async fn pass<S: FarmChanges + WorkerHealth + ?Sized>(
    shared: &Shared,
    store: &S,
    reader: &mut Option<Reader>,
) -> Result<(), Error> {
    let bounds = store.change_bounds().await?;
    let reader = reader.get_or_insert_with(|| Reader::at(ChangePosition::before(bounds.settled)));
    shared.feed.reads.send_replace(true);
    let send = |news: News| drop(shared.feed.news.send(Arc::new(news)));
    if bounds.next < reader.position.mark {
        *reader = Reader::at(ChangePosition::before(bounds.settled));
        send(News::LostChanges);
    }
    let settled = ChangePosition::before(bounds.settled);
    let mut from = reader.position;
    loop {
        let (next, known) = (bounds.next, &reader.told);
        let query = ChangeQuery { tenant: None, from, next, limit: JOBS, known };
        let changed = store.changed_jobs(query).await?;
        let more = changed.more;
        let mut jobs = Vec::with_capacity(changed.jobs.len());
        for one in changed.jobs {
            reader.told.insert(one.job.seq, one.job.version);
            reader.marks.insert(one.job.seq, one.position.mark);
            jobs.push(one.job);
        }
        for one in &changed.deleted {
            reader.told.insert(one.seq, one.version);
            reader.marks.insert(one.seq, one.position.mark);
        }
        let deleted = changed.deleted;
        if !jobs.is_empty() || !deleted.is_empty() {
            // Changes that are not settled yet are read again.
            let position = more.unwrap_or(settled).min(settled).max(reader.position);
            send(News::Changed { jobs, deleted, workers: None, position });
        }
        let Some(next) = more else { break };
        from = next;
    }
    if settled > reader.position {
        reader.position = settled;
        reader.marks.retain(|_, mark| *mark >= bounds.settled);
        reader.told.retain(|seq, _| reader.marks.contains_key(seq));
    }
    if reader.looked.is_none_or(|looked| looked.elapsed() >= WORKERS) {
        reader.looked = Some(Instant::now());
        let workers = read_workers(shared, store).await?;
        let lasting = workers.clone().lasting();
        if lasting != reader.workers {
            reader.workers = lasting;
            let position = reader.position;
            let (jobs, deleted) = (Vec::new(), Vec::new());
            send(News::Changed { jobs, deleted, workers: Some(workers), position });
        }
    }
    Ok(())
}

/// The present workers.
pub(crate) async fn read_workers<S: WorkerHealth + ?Sized>(
    shared: &Shared,
    store: &S,
) -> Result<Workers, Error> {
    let crew = shared.read_crew().await?;
    Ok(Workers::of(store, crew.cards().to_vec()).await?)
}

impl Reader {
    fn at(position: ChangePosition) -> Self {
        let (told, marks, workers) = Default::default();
        Self { position, told, marks, workers, looked: None }
    }
}
