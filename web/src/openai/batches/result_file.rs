//! A file of results, which is stored while it is written.

use bytes::Bytes;
use darkroom_core::{
    digest::DigestOfParts,
    error::{Code, UserError},
};
use darkroom_farm_api::{
    Answer, Outgoing,
    batches::{FileRecord, NewFile, Purpose},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{ids::Named, plan::Work};

/// Parts of a file that wait to be stored.
const WAITING: usize = 16;
/// Bytes of short parts that are sent as one.
const GATHERED: usize = 64 << 10;

/// A file of results, which is begun with its first line.
pub(super) struct ResultFile {
    work: Work,
    id: uuid::Uuid,
    name: &'static str,
    begun: Option<Storing>,
    digest: DigestOfParts,
}

/// What is stored of a file of results.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// What was written; none: it has no line.
    Same(Option<uuid::Uuid>),
    /// What an earlier step has written, which was something else.
    Other,
}

struct Storing {
    parts: mpsc::Sender<Part>,
    stored: AbortOnDropHandle<Answer<FileRecord>>,
}

enum Part {
    Bytes(Bytes),
    /// Only a file that ends with this is whole.
    End,
}

impl ResultFile {
    pub(super) fn of(work: Work, id: Option<uuid::Uuid>, name: &'static str) -> Self {
        let id = id.unwrap_or_else(Named::fresh);
        Self { work, id, name, begun: None, digest: DigestOfParts::default() }
    }

    pub(super) async fn line(&mut self, line: String) {
        self.send(Bytes::from(format!("{line}\n"))).await;
    }

    /// A line in parts.
    pub(super) async fn parts(&mut self, parts: Vec<Outgoing<Bytes>>) -> Answer<()> {
        let mut parts = stream::iter(parts).flatten();
        let mut gathered = Vec::new();
        while let Some(part) = parts.try_next().await? {
            gathered.extend_from_slice(&part);
            if gathered.len() >= GATHERED {
                self.send(Bytes::from(std::mem::take(&mut gathered))).await;
            }
        }
        gathered.push(b'\n');
        self.send(Bytes::from(gathered)).await;
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) {
        let storing = self.begun.get_or_insert_with(|| store(&self.work, self.id, self.name));
        self.digest.add(&bytes);
        // If nobody takes it, it was stored by an earlier step, or it cannot be stored, which is
        // told at the end.
        let _ = storing.parts.send(Part::Bytes(bytes)).await;
    }

    /// Stores the file, if it has a line.
    pub(super) async fn finish(self) -> Answer<Stored> {
        let Some(Storing { parts, stored }) = self.begun else {
            // Of an earlier step there may be one.
            forget(&self.work, self.id).await?;
            return Ok(Stored::Same(None));
        };
        // As in `send`.
        let _ = parts.send(Part::End).await;
        drop(parts);
        let stored = stored.await.map_err(|error| {
            tracing::error!(%error, "the results of a batch could not be stored");
            let message = "the results could not be stored; they are written again";
            UserError::new(Code::Internal, "INTERNAL", message)
        })??;
        if stored.sha256 == self.digest.finish().to_string() {
            Ok(Stored::Same(Some(stored.id)))
        } else {
            Ok(Stored::Other)
        }
    }
}

fn store(work: &Work, id: uuid::Uuid, name: &str) -> Storing {
    let (parts, receiver) = mpsc::channel(WAITING);
    let received = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver: mpsc::Receiver<Part> = receiver?;
        match receiver.recv().await {
            Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Part::End) => None,
            None => {
                let message = "the results were not written to their end; they are written again";
                let error = UserError::new(Code::Unavailable, "RESULTS_CUT_OFF", message);
                Some((Err(error), None))
            }
        }
    });
    let new = NewFile {
        id,
        name: format!("{}_{name}.jsonl", Named::Batch.show(work.batch.id)),
        purpose: Purpose::BatchOutput,
        keep: work.batch.keep_output,
    };
    let (batches, caller) = (work.site.batches.clone(), work.caller.clone());
    let stored =
        tokio::spawn(async move { batches.add_file(&caller, new, received.boxed()).await });
    Storing { parts, stored: AbortOnDropHandle::new(stored) }
}

/// Deletes a file of results, if it is there.
pub(super) async fn forget(work: &Work, id: uuid::Uuid) -> Answer<()> {
    match work.site.batches.delete_file(&work.caller, id).await {
        Err(error) if error.code != Code::NotFound => Err(error),
        _ => Ok(()),
    }
}
