//! The one thread that owns the encoders, and a handle that any number of callers share.

use darkroom_core::{digest::Digest, error::UserError, failure_code::FailureCode};
use tokio::sync::{mpsc, oneshot};

use crate::encoder::{EncodeError, Encoded, Encoder};

/// Most requests that wait; further callers wait for a place.
const WAITING: usize = 64;

struct Request {
    encoder: usize,
    texts: Vec<String>,
    reply: oneshot::Sender<Result<Vec<Encoded>, EncodeError>>,
}

/// Encoders, by position, behind a channel. The thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Encoders {
    requests: mpsc::Sender<Request>,
    digests: Vec<Digest>,
    device: String,
    device_class: String,
}

impl Encoders {
    /// Makes the encoders on their thread.
    pub(crate) async fn start<E: Encoder>(
        digests: Vec<Digest>,
        make: impl FnOnce() -> Result<Vec<E>, UserError> + Send + 'static,
    ) -> Result<Self, UserError> {
        let (requests, mut received) = mpsc::channel::<Request>(WAITING);
        let (made, is_made) = oneshot::channel();
        let run = move || {
            let mut encoders = match make() {
                Ok(encoders) => encoders,
                Err(error) => {
                    let _ = made.send(Err(error));
                    return;
                }
            };
            let first = encoders.first();
            let labels =
                first.map(|encoder| (encoder.device(), encoder.device_class())).unwrap_or_default();
            let _ = made.send(Ok(labels));
            while let Some(request) = received.blocking_recv() {
                let texts: Vec<&str> = request.texts.iter().map(String::as_str).collect();
                let encoded = match encoders.get_mut(request.encoder) {
                    Some(encoder) => guarded(encoder, &texts),
                    None => Err(failed(FailureCode::Internal, "there is no such encoder")),
                };
                // Nobody waits for the result any more, so the work is dropped.
                let _ = request.reply.send(encoded);
            }
        };
        std::thread::Builder::new().name("encoder".to_owned()).spawn(run).map_err(|error| {
            internal(&format!("the encoder's thread could not be started: {error}"))
        })?;
        let made = is_made.await;
        let (device, device_class) =
            made.map_err(|_| internal("loading the encoder panicked"))??;
        Ok(Self { requests, digests, device, device_class })
    }

    /// Digests of the encoders, by position.
    pub(crate) fn digests(&self) -> &[Digest] {
        &self.digests
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn device_class(&self) -> &str {
        &self.device_class
    }

    pub(crate) async fn encode(
        &self,
        encoder: usize,
        texts: Vec<String>,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { encoder, texts, reply };
        self.requests.send(request).await.map_err(|_| EncodeError::Closed)?;
        answer.await.map_err(|_| EncodeError::Closed)?
    }

    /// The same from a thread that may block.
    pub(crate) fn encode_blocking(
        &self,
        encoder: usize,
        texts: Vec<String>,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { encoder, texts, reply };
        self.requests.blocking_send(request).map_err(|_| EncodeError::Closed)?;
        answer.blocking_recv().map_err(|_| EncodeError::Closed)?
    }
}

/// A panic fails the call, not the thread.
fn guarded<E: Encoder>(encoder: &mut E, texts: &[&str]) -> Result<Vec<Encoded>, EncodeError> {
    let call = std::panic::AssertUnwindSafe(|| encoder.encode(texts));
    let encoded = std::panic::catch_unwind(call)
        .unwrap_or_else(|_| Err(failed(FailureCode::Panic, "the encoder panicked")))?;
    if encoded.len() == texts.len() {
        Ok(encoded)
    } else {
        Err(failed(FailureCode::Internal, "the encoder returned a wrong number of embeddings"))
    }
}

fn failed(code: FailureCode, message: &str) -> EncodeError {
    EncodeError::Failed { code, message: message.to_owned() }
}

fn internal(message: &str) -> UserError {
    UserError::new(darkroom_core::error::Code::Internal, "INTERNAL", message)
}
