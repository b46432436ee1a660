//! The chunks of a submit or of a forecast, which must come at some speed: a stream that trickles
//! keeps a row, memory and a place at the server.

use std::time::Duration;

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Incoming;
use darkroom_proto::v1::{self, submit_job_chunk::Part};
use prost::Message;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;

use super::refused;
use crate::error::Error;

/// What must come within each [`submit_idle`](crate::Options::submit_idle): so many prompts or so
/// many bytes.
const PROMPTS: usize = 100;
const BYTES: usize = 64 << 10;

/// A stream of chunks.
pub(super) struct Chunks {
    chunks: Incoming<v1::SubmitJobChunk>,
    idle: Duration,
    /// How long the client may still take until it has sent enough. Time in which the farm works on
    /// a chunk does not count.
    left: Duration,
    prompts: usize,
    bytes: usize,
}

impl Chunks {
    pub(super) fn new(chunks: Incoming<v1::SubmitJobChunk>, idle: Duration) -> Self {
        Self { chunks, idle, left: idle, prompts: 0, bytes: 0 }
    }

    /// The spec, which comes first.
    pub(super) async fn spec(&mut self) -> Result<v1::JobSpec, Error> {
        match self.part().await? {
            Some(Part::Spec(spec)) => Ok(spec),
            _ => Err(refused(UserError::invalid(
                "part",
                "the stream begins without a spec; accepted: spec first, then prompts",
            ))),
        }
    }

    /// The next prompts; `None` at the end.
    pub(super) async fn prompts(&mut self) -> Result<Option<Vec<v1::Prompt>>, Error> {
        match self.part().await? {
            Some(Part::Prompts(chunk)) => Ok(Some(chunk.prompts)),
            Some(Part::Spec(_)) => Err(refused(UserError::invalid(
                "part",
                "a second spec came; accepted: prompts after the first message",
            ))),
            None => Ok(None),
        }
    }

    async fn part(&mut self) -> Result<Option<Part>, Error> {
        let begun = Instant::now();
        let next = timeout(self.left, self.chunks.next()).await;
        let Some(chunk) = next.map_err(|_| refused(too_slow(self.idle)))? else { return Ok(None) };
        let chunk = chunk.map_err(refused)?;
        self.left = self.left.saturating_sub(begun.elapsed());
        self.bytes += chunk.encoded_len();
        let part = chunk.part.ok_or_else(|| {
            refused(UserError::invalid("part", "part is missing; accepted: spec or prompts"))
        })?;
        if let Part::Prompts(chunk) = &part {
            self.prompts += chunk.prompts.len();
        }
        if self.prompts >= PROMPTS || self.bytes >= BYTES {
            (self.left, self.prompts, self.bytes) = (self.idle, 0, 0);
        }
        Ok(Some(part))
    }
}

fn too_slow(idle: Duration) -> UserError {
    let message = format!(
        "the prompts come too slowly: neither {PROMPTS} prompts nor {BYTES} bytes came within {} s; \
         collect the prompts first, and then send them without pauses",
        idle.as_secs_f64()
    );
    UserError::new(Code::DeadlineExceeded, "SUBMIT_STALLED", message)
}
