//! Watches a job: sends every change after a position, until the end. Fast changes are combined.
//!
//! Interest is registered before the first query, so no change is missed, and there is also a poll.
//! If a version has more images than fit into an event, its events before the last have the
//! previous position. So a client that resumes from any event misses nothing.
//!
//! A watch without changes repeats the job from time to time, because proxies cut quiet streams,
//! even if HTTP/2 PINGs are sent. The version tells the client that it knows the repeated job
//! already. It is repeated at once when a disk becomes full or free, because that changes what the
//! job waits for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::{
    error::{Code, UserError},
    guard::{Guard, stands},
    id::JobId,
    job_state::JobState,
};
use darkroom_farm_api::{Answer, Caller, Outgoing};
use darkroom_proto::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Farm,
    access::Sight,
    convert, failure,
    jobs::{NOTES, PAGE_BYTES},
    refused,
    stage_names::names,
};
use crate::{
    error::Error,
    shared::Shared,
    store::records::{ImageRecord, JobRecord, Manifest, Seen},
};

/// Images per event.
const IMAGES: u32 = 500;
/// Events on their way to a client, each of at most 512 KiB.
const BUFFER: usize = 1;
/// How often a job is read without a wake-up.
const POLL: Duration = Duration::from_secs(2);

impl Farm {
    pub(super) async fn watch(
        &self,
        caller: &Caller,
        request: v1::WatchJobRequest,
    ) -> Result<Outgoing<v1::WatchEvent>, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        let job = self.front.job(id).await?;
        if request.after_version > job.version {
            return Err(refused(UserError::invalid(
                "after_version",
                format!(
                    "after_version is {}; accepted: 0 to {}",
                    request.after_version, job.version
                ),
            )));
        }
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher = Watcher {
            farm: self.clone(),
            id,
            images: request.images,
            sight: Sight::of(caller),
            seen: Seen { version: request.after_version, index: None },
            told: request.after_version,
            sent: Instant::now(),
            turn: self.shared.disks.turns(),
        };
        self.shared.tasks.spawn(watcher.run(sender));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

struct Watcher {
    farm: Farm,
    id: JobId,
    images: bool,
    sight: Sight,
    /// Version and, within the one after it, index of the last image sent.
    seen: Seen,
    /// Version of the last event.
    told: u64,
    /// When the last event was sent, or the watch began.
    sent: Instant,
    /// The turn of the disks that the last event told.
    turn: u64,
}

impl Watcher {
    async fn run(mut self, sender: mpsc::Sender<Answer<v1::WatchEvent>>) {
        let shared = Arc::clone(&self.farm.shared);
        let mut changed = shared.events.watch(self.id);
        let poll = POLL.min(shared.options.watch_repeat);
        loop {
            changed.borrow_and_update();
            let (event, more) = match self.next().await {
                Ok(next) => next,
                Err(error) => {
                    // The client may be gone, or may not read.
                    tokio::select! {
                        _ = sender.send(Err(failure(&error))) => {}
                        () = shared.stop.cancelled() => {}
                    }
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
                // Changes between the query and the registration are missed; this makes that time
                // long.
                shared.pause(POLL / 4).await;
                changed.borrow_and_update();
            }
            tokio::select! {
                _ = tokio::time::timeout(poll, changed.changed()) => {}
                () = sender.closed() => return,
                () = shared.stop.cancelled() => {
                    // Does not wait for a client that does not read: its stream is cut.
                    drop(sender.try_send(Err(stopping())));
                    return;
                }
            }
            shared.pause(shared.options.watch_interval).await;
        }
    }

    /// The next event, if there is one, and whether more can follow at once.
    async fn next(&mut self) -> Result<(Option<v1::WatchEvent>, bool), Error> {
        let store = &self.farm.front;
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
            self.seen.version.saturating_sub(1)
        } else {
            self.seen = Seen { version: job.version, index: None };
            job.version
        };
        // A full disk changes what the job waits for, and not its version.
        let turn = self.farm.shared.disks.turns();
        let quiet =
            turn == self.turn && self.sent.elapsed() < self.farm.shared.options.watch_repeat;
        if version <= self.told && images.is_empty() && !end && self.told > 0 && (quiet || more) {
            return Ok((None, more));
        }
        (self.told, self.turn) = (self.told.max(version), turn);
        let version = self.told;
        let job = match around {
            Some(around) => self.farm.view_with(job, around).await?,
            None => self.farm.view(job).await?,
        };
        Ok((Some(v1::WatchEvent { job: Some(job), images, version, end }), more))
    }

    /// As many images as fit into an event. Remembers the last one.
    fn take(&mut self, job: &JobRecord, records: Vec<ImageRecord>) -> Vec<v1::Image> {
        let mut images = Vec::with_capacity(records.len());
        let (mut bytes, stages) = (0, names(job));
        for record in records {
            let position = Seen { version: record.version, index: Some(record.id.index) };
            let image = convert::image(self.sight, &stages, record);
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

/// The error that ends a watch when the coordinator stops.
fn stopping() -> UserError {
    UserError::new(
        Code::Unavailable,
        "STOPPING",
        "the coordinator is stopping; watch again from the last version",
    )
}

/// Whether only a retry can change the job: it has ended and its manifest is written.
fn ended(job: &JobRecord) -> bool {
    let terminal = matches!(job.state, JobState::Done | JobState::Failed | JobState::Cancelled);
    terminal && !job.following && matches!(job.manifest, Manifest::Written { .. })
}

/// Sends an event; false if the client is gone or the coordinator stops.
pub(super) async fn send<E>(shared: &Shared, sender: &mpsc::Sender<Answer<E>>, event: E) -> bool {
    tokio::select! {
        sent = sender.send(Ok(event)) => sent.is_ok(),
        () = shared.stop.cancelled() => false,
    }
}
