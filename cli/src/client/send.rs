//! What takes a stream to the farm: jobs of any size, forecasts of them, and pictures.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::error::UserError;
use darkroom_proto::{calls, v1};
use tonic::Request;

use super::{CALL, Client, deadline};
use crate::{
    failure::{self, Result},
    spool::Prompts,
};

/// Bytes of a picture per message.
const UPLOAD_BYTES: usize = 64 << 10;

/// An accepted job.
pub(crate) struct Submitted {
    pub(crate) job: v1::Job,
    /// Whether an earlier submit with the same request id had been accepted.
    pub(crate) existed: bool,
}

impl Client {
    /// Submits a job, in one message or as a stream. The request id in the spec makes a repeated
    /// attempt harmless. A job that does not fit into one message is sent as a stream.
    pub(crate) async fn submit(&self, spec: v1::JobSpec, prompts: Prompts) -> Result<Submitted> {
        let response = if prompts.chunks() == 1 {
            let only = prompts.chunk(0).map_err(lost)?;
            let request = v1::SubmitJobRequest { spec: Some(spec), prompts: only.prompts };
            self.call(request, CALL, async |mut farm, request| farm.submit_job(request).await)
                .await?
        } else {
            let limit = deadline(calls::farm::SUBMIT_JOB_STREAM);
            let outgoing = Outgoing::new(spec, prompts);
            let sent = self.retrying(limit, async || {
                self.farm.clone().submit_job_stream(outgoing.request(limit)).await
            });
            outgoing.unless_lost(sent.await)?
        };
        let job = response
            .job
            .ok_or_else(|| failure::internal("the farm accepted a job but did not name it"))?;
        Ok(Submitted { job, existed: response.existed })
    }

    /// Sends a picture to start from, or a mask. A picture that is sent twice is stored once.
    pub(crate) async fn upload(&self, bytes: Vec<u8>) -> Result<v1::UploadInputResponse> {
        let limit = deadline(calls::farm::UPLOAD_INPUT);
        let bytes: Arc<[u8]> = bytes.into();
        self.retrying(limit, async || {
            let rest = Arc::clone(&bytes);
            let chunks = (0..rest.len()).step_by(UPLOAD_BYTES).map(move |at| {
                v1::UploadInputChunk { data: rest[at..rest.len().min(at + UPLOAD_BYTES)].to_vec() }
            });
            let mut request = Request::new(tokio_stream::iter(chunks));
            request.set_timeout(limit);
            self.farm.clone().upload_input(request).await
        })
        .await
    }

    /// What a job would take. Nothing is submitted.
    pub(crate) async fn forecast(
        &self,
        spec: v1::JobSpec,
        prompts: Prompts,
    ) -> Result<v1::ForecastJobResponse> {
        let limit = deadline(calls::farm::FORECAST_JOB);
        let outgoing = Outgoing::new(spec, prompts);
        let sent = self.retrying(limit, async || {
            self.farm.clone().forecast_job(outgoing.request(limit)).await
        });
        outgoing.unless_lost(sent.await)
    }
}

/// A job as a stream, which may have to be sent more than once: first its spec, then its prompts.
struct Outgoing {
    spec: v1::JobSpec,
    prompts: Arc<Prompts>,
    /// Why spooled prompts could not be read again.
    lost: Arc<Mutex<Option<io::Error>>>,
}

impl Outgoing {
    fn new(spec: v1::JobSpec, prompts: Prompts) -> Self {
        Self { spec, prompts: Arc::new(prompts), lost: Arc::default() }
    }

    fn request(
        &self,
        limit: Duration,
    ) -> Request<impl tokio_stream::Stream<Item = v1::SubmitJobChunk> + Send + 'static> {
        let spec =
            v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Spec(self.spec.clone())) };
        let (prompts, lost) = (Arc::clone(&self.prompts), Arc::clone(&self.lost));
        let chunk = move |position| match prompts.chunk(position) {
            Ok(chunk) => {
                v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Prompts(chunk)) }
            }
            Err(error) => {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The stream ends with an error, so the farm refuses it. A normal end would make
                // the farm accept an incomplete job.
                v1::SubmitJobChunk { part: None }
            }
        };
        let chunks = (0..self.prompts.chunks()).map(chunk);
        let mut request = Request::new(tokio_stream::iter(std::iter::once(spec).chain(chunks)));
        request.set_timeout(limit);
        request
    }

    /// The answer, or why the job was not sent completely.
    fn unless_lost<A>(&self, sent: Result<A>) -> Result<A> {
        match self.lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(lost(error)),
            None => sent,
        }
    }
}

fn lost(error: io::Error) -> UserError {
    failure::file("batch", "read prompts again from", &std::env::temp_dir(), &error)
}
