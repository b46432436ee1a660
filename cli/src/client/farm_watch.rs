//! The changes of a whole farm, across broken connections.

use darkroom_core::digest::Digest;
use darkroom_proto::v1;
use prost::Message;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{CALL, Client, LASTED, MAX_REPEATS, MOMENT, SILENCE, waiting::Waiting, within};
use crate::failure::{self, Result};

/// What changes in a farm, without an end. No change is skipped; some may come again.
pub(crate) struct FarmWatch {
    client: Client,
    /// With the last cursor.
    pub(super) request: v1::WatchFarmRequest,
    stream: Option<Streaming<v1::FarmEvent>>,
    /// When the stream began.
    opened: Option<Instant>,
    waiting: Waiting,
    /// The last event, and when it came.
    last: Option<(Digest, Instant)>,
    /// How many events said the same within moments.
    in_a_row: u32,
}

impl Client {
    /// Follows the whole farm from a cursor on, or from its present state.
    pub(crate) fn watch_farm(&self, request: v1::WatchFarmRequest) -> FarmWatch {
        FarmWatch {
            client: self.clone(),
            request,
            stream: None,
            opened: None,
            waiting: Waiting::new(self),
            last: None,
            in_a_row: 0,
        }
    }
}

impl FarmWatch {
    /// The next event. The farm sends one at least every 20 seconds, so silence means a broken
    /// stream.
    pub(crate) async fn next(&mut self) -> Result<v1::FarmEvent> {
        loop {
            let failure = match self.receive().await {
                Ok(Some(event)) => {
                    self.waiting.came();
                    self.count_repeats(&event)?;
                    event.cursor.clone_into(&mut self.request.cursor);
                    return Ok(event);
                }
                // Cut, as by a farm that stops: resume.
                Ok(None) => Status::unavailable("the stream ended"),
                Err(status) => status,
            };
            self.stream = None;
            if self.opened.take().is_some_and(|opened| opened.elapsed() >= LASTED) {
                self.waiting.lasted();
            }
            if !self.waiting.another(&self.client, &failure).await {
                return Err(self.client.failure(&failure));
            }
        }
    }

    /// Ends a watch of a farm that says the same without a pause.
    fn count_repeats(&mut self, event: &v1::FarmEvent) -> Result<()> {
        // Events that say the same may have different cursors.
        let said = v1::FarmEvent { cursor: String::new(), ..event.clone() };
        let said = Digest::of(&said.encode_to_vec());
        let last = self.last.replace((said, Instant::now()));
        let is_repeated = last.is_some_and(|(last, at)| last == said && at.elapsed() < MOMENT);
        self.in_a_row = if is_repeated { self.in_a_row + 1 } else { 0 };
        if self.in_a_row > MAX_REPEATS {
            return Err(failure::unbelievable(
                "the farm keeps sending the same changes".to_owned(),
            ));
        }
        Ok(())
    }

    async fn receive(&mut self) -> std::result::Result<Option<v1::FarmEvent>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut farm = self.client.farm.clone();
                let opened = within(CALL, farm.watch_farm(self.request.clone())).await?;
                self.opened = Some(Instant::now());
                none.insert(opened.into_inner())
            }
        };
        within(SILENCE, stream.message()).await
    }
}
