//! Watching a job: every change after a position, folded where they come fast, to the end.
//!
//! Interest is registered before the first query, so nothing falls between; behind the wake-up there is a poll. A
//! version may hold more images than an event: then events before its last carry the position before it, so that
//! who resumes from any event misses nothing.
//!
//! A watch on which nothing changes repeats the job at its version now and then. Proxies cut streams that are quiet, and
//! a PING of HTTP/2 does not count for them; a client takes the repeated job for one that it knows already.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::{
    error::UserError,
    guard::{Guard, stands},
    id::JobId,
    job_state::JobState,
};
use darkroom_proto::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Farm, convert, job_id,
    jobs::{NOTES, PAGE_BYTES},
    refused,
    stage_names::names,
    status,
};
use crate::{
    service::{Error, Shared},
    store::records::{ImageRecord, JobRecord},
};

/// Images of one event.
const IMAGES: u32 = 500;
/// Events under way to a client, each of at most 512 KiB.
const BUFFER: usize = 1;
/// How often a job is read though nobody told of a change.
const POLL: Duration = Duration::from_secs(2);

/// The events of a watched job.
pub(crate) type EventStream = ReceiverStream<Result<v1::WatchEvent, Status>>;

impl Farm {
    pub(super) async fn watch(&self, request: v1::WatchJobRequest) -> Result<EventStream, Error> {
        let id = job_id("id", &request.id)?;
        let job = self.shared.front.job(id).await?;
        if request.after_version > job.version {
            return Err(refused(UserError::invalid(
                "after_version",
                format!("after_version is {}; accepted: 0 to {}", request.after_version, job.version),
            )));
        }
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher = Watcher {
            farm: self.clone(),
            id,
            images: request.images,
            seen: (request.after_version, None),
            told: request.after_version,
            sent: Instant::now(),
        };
        self.shared.tasks.spawn(watcher.run(sender));
        Ok(ReceiverStream::new(receiver))
    }
}

struct Watcher {
    farm: Farm,
    id: JobId,
    images: bool,
    /// Version and, within the one after it, index of the last image sent.
    seen: (u64, Option<u64>),
    /// Version of the last event.
    told: u64,
    /// When the last event was sent, or the watch began.
    sent: Instant,
}

impl Watcher {
    async fn run(mut self, sender: mpsc::Sender<Result<v1::WatchEvent, Status>>) {
        let shared = Arc::clone(&self.farm.shared);
        let mut changed = shared.events.watch(self.id);
        let poll = POLL.min(shared.options.watch_repeat);
        loop {
            changed.borrow_and_update();
            let (event, more) = match self.next().await {
                Ok(next) => next,
                Err(error) => {
                    // The client is gone if this fails.
                    drop(sender.send(Err(status(&error))).await);
                    return;
                }
            };
            if let Some(event) = event {
                let end = event.end;
                if !send(&shared, &sender, event).await || end {
                    return;
                }
                self.sent = Instant::now();
            }
            if more {
                continue;
            }
            if !stands(Guard::WatchFirst) {
                // What comes between the query and the registration is missed; here that takes long.
                shared.pause(POLL / 4).await;
                changed.borrow_and_update();
            }
            tokio::select! {
                _ = tokio::time::timeout(poll, changed.changed()) => {}
                () = sender.closed() => return,
                () = shared.stop.cancelled() => {
                    drop(sender.send(Err(Status::unavailable("the coordinator stops; watch again from the last version"))).await);
                    return;
                }
            }
            shared.pause(shared.options.watch_interval).await;
        }
    }

    /// The next event, if there is one, and whether more can follow at once.
    async fn next(&mut self) -> Result<(Option<v1::WatchEvent>, bool), Error> {
        let store = &self.farm.shared.front;
        let (job, around, images, more) = if self.images {
            let changes = store.changes(self.id, self.seen, IMAGES).await?;
            let (job, total) = (changes.job, changes.images.len());
            let images = self.take(&job, changes.images);
            let more = changes.more || images.len() < total;
            (job, None, images, more)
        } else {
            let (job, around) = store.view(self.id, NOTES).await?;
            (job, Some(around), Vec::new(), false)
        };
        let end = !more && ended(&job);
        let version = if more {
            // Images of the last version sent may still be missing.
            self.seen.0.saturating_sub(1)
        } else {
            self.seen = (job.version, None);
            job.version
        };
        let quiet = self.sent.elapsed() < self.farm.shared.options.watch_repeat;
        if version <= self.told && images.is_empty() && !end && self.told > 0 && (quiet || more) {
            return Ok((None, more));
        }
        self.told = self.told.max(version);
        let version = self.told;
        let job = match around {
            Some(around) => self.farm.view_with(job, around).await?,
            None => self.farm.view(job).await?,
        };
        Ok((Some(v1::WatchEvent { job: Some(job), images, version, end }), more))
    }

    /// As many images as an event may hold; remembers the last one.
    fn take(&mut self, job: &JobRecord, records: Vec<ImageRecord>) -> Vec<v1::Image> {
        let mut images = Vec::with_capacity(records.len());
        let (mut bytes, stages) = (0, names(job));
        for record in records {
            let position = (record.version, Some(record.id.index));
            let image = convert::image(&stages, record);
            bytes += image.encoded_len();
            if bytes > PAGE_BYTES && !images.is_empty() {
                break;
            }
            images.push(image);
            self.seen = position;
        }
        images
    }
}

/// Whether nothing can follow but a retry: the job ended and its manifest is written.
fn ended(job: &JobRecord) -> bool {
    let terminal = matches!(job.state, JobState::Done | JobState::Failed | JobState::Cancelled);
    terminal && !job.following && matches!(job.manifest, Some(Some(_)))
}

async fn send(
    shared: &Shared,
    sender: &mpsc::Sender<Result<v1::WatchEvent, Status>>,
    event: v1::WatchEvent,
) -> bool {
    tokio::select! {
        sent = sender.send(Ok(event)) => sent.is_ok(),
        () = shared.stop.cancelled() => false,
    }
}
