//! The changes of a job, across broken connections.

use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_runtime::peer::Peers;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{CALL, Client, LASTED, MAX_REPEATS, MOMENT, SILENCE, waiting::Waiting, within};
use crate::failure::{self, Result};

impl Client {
    /// Follows a job after a version.
    pub(crate) fn watch(&self, job: &str, after: u64, images: bool) -> Watch {
        Watch {
            client: self.clone(),
            request: v1::WatchJobRequest { id: job.to_owned(), after_version: after, images },
            stream: None,
            opened: None,
            waiting: Waiting::new(self),
            ended: false,
            repeated: false,
            repeats: false,
            last: None,
            in_a_row: 0,
        }
    }
}

/// A job's changes, each once and in order, even if connections break.
pub(crate) struct Watch {
    client: Client,
    request: v1::WatchJobRequest,
    stream: Option<Streaming<v1::WatchEvent>>,
    /// When the stream began.
    opened: Option<Instant>,
    waiting: Waiting,
    ended: bool,
    /// Whether the last event only repeated the job at its version.
    repeated: bool,
    /// Whether the farm sends such events, so that silence means a broken stream.
    repeats: bool,
    /// When the last event came.
    last: Option<Instant>,
    /// How many events repeated the job within moments.
    in_a_row: u32,
}

impl Watch {
    /// The next change, or the job as it is if nothing changes; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::WatchEvent>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let failure = match self.receive().await {
                Ok(Some(event)) => {
                    self.waiting.came();
                    self.repeated = event.version == self.request.after_version
                        && event.images.is_empty()
                        && !event.end
                        && event.version > 0;
                    self.repeats |= self.repeated;
                    let at_once = self
                        .last
                        .replace(Instant::now())
                        .is_some_and(|last| last.elapsed() < MOMENT);
                    self.in_a_row = if self.repeated && at_once { self.in_a_row + 1 } else { 0 };
                    if self.in_a_row > MAX_REPEATS {
                        return Err(failure::unbelievable(
                            "the farm keeps sending the same state of the job".to_owned(),
                        ));
                    }
                    self.request.after_version = event.version;
                    self.ended = event.end;
                    return Ok(Some(event));
                }
                // Cut before its end, for example by a farm that stops: resume.
                Ok(None) => Status::unavailable("the stream ended early"),
                Err(status) => status,
            };
            self.stream = None;
            // A proxy that cuts quiet streams must not use up the patience with one cut after the
            // other.
            if self.opened.take().is_some_and(|opened| opened.elapsed() >= LASTED) {
                self.waiting.lasted();
            }
            if !self.waiting.another(&self.client, &failure).await {
                return Err(self.client.failure(&failure));
            }
        }
    }

    /// Whether the last event changed nothing.
    pub(crate) fn repeated(&self) -> bool {
        self.repeated
    }

    async fn receive(&mut self) -> std::result::Result<Option<v1::WatchEvent>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                // The stream has no deadline; the connection's keep-alive shows whether the farm
                // lives.
                let call = self.client.farm.clone();
                let opened = within(CALL, open(call, self.request.clone())).await?;
                self.opened = Some(Instant::now());
                none.insert(opened)
            }
        };
        if self.repeats { within(SILENCE, stream.message()).await } else { stream.message().await }
    }
}

async fn open(
    mut farm: FarmClient<Peers>,
    request: v1::WatchJobRequest,
) -> std::result::Result<Streaming<v1::WatchEvent>, Status> {
    Ok(farm.watch_job(request).await?.into_inner())
}
