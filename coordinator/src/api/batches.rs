//! Files and batches: who may reach which, and what is accepted.
//! An upload is first written to a temporary file on this machine: its size must be known before it
//! is stored, and no file may be held in memory. It is stored before it is recorded, so that every
//! recorded file exists. This module does not know what a batch does; the runner in `web` does.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    error::{Code, UserError},
    retention::LONGEST,
};
use darkroom_farm_api::{
    Answer, Batches, Caller, Incoming, Outgoing,
    batches::{
        Batch, FileRecord, MOST_FILE_BYTES, MOST_NAME, MOST_PROGRESS, NewBatch, NewFile, Page,
        Purpose, Step, shown_file,
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::AcquireError,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use uuid::Uuid;

use super::{
    Again, Farm,
    access::{Reach, uploader},
    failure, refused,
};
use crate::{
    error::Error,
    shared::Shared,
    store::{
        self,
        batches::{self as records, AddedFile, Creator, EXTENSION, StoredFile, file_prefix},
        metering::check_stored,
    },
};

/// What must come within each [`upload_idle`](crate::Options::upload_idle).
const PROGRESS: u64 = 64 << 10;
/// Longest that a client may take to send a file.
const RECEIVING: Duration = Duration::from_secs(3600);
/// How often it is tried to store a file. Each time, the cleaner may begin to remove it.
const TRIES: u32 = 3;
/// Longest part of a file that is sent.
const PART: usize = 64 << 10;
/// Bytes that are read from storage at one time.
const READ: u64 = 1 << 20;
/// Longest metadata of a batch, bytes of its keys and values.
const MOST_METADATA: usize = 64 << 10;
/// Longest endpoint and origin of a batch, bytes.
const MOST_TEXT: usize = 2048;

impl Farm {
    async fn keep_file(
        &self,
        caller: &Caller,
        new: NewFile,
        parts: Incoming<Bytes>,
    ) -> Result<FileRecord, Error> {
        let tenant = uploader(caller).map_err(refused)?;
        check_file(&new).map_err(refused)?;
        if let Some(present) = self.present(new.id, tenant).await? {
            self.call.tell_changed(false);
            return Ok(present.record);
        }
        self.shared.disks.refuse()?;
        let is_clients = new.purpose == Purpose::Batch;
        let quotas = if is_clients {
            let (quotas, usage) = self.front.standing(tenant).await?;
            check_stored(tenant, &quotas, usage.stored_bytes, None).map_err(refused)?;
            Some((quotas, usage.stored_bytes))
        } else {
            None
        };
        let idle = self.shared.options.upload_idle;
        let _turn = if is_clients {
            let turns = async {
                let own = self.shared.files_of_tenant.of(Some(tenant)).acquire_owned().await?;
                Ok((own, self.shared.files.acquire().await?))
            };
            let turns: Result<_, AcquireError> =
                timeout(idle, turns).await.map_err(|_| refused(busy()))?;
            Some(turns.map_err(Error::other)?)
        } else {
            None
        };
        let folder = spawn_blocking(tempfile::tempdir).await.map_err(Error::other)??;
        let path = folder.path().join("file");
        // Results come as fast as they are read, which may be slow while storage is.
        let limits = Limits {
            idle: is_clients.then_some(idle),
            most: is_clients.then_some(MOST_FILE_BYTES),
        };
        let received = self.call.while_wanted(receive(parts, &path, limits));
        let size = match is_clients {
            true => timeout(RECEIVING, received).await.map_err(|_| refused(too_long()))??,
            false => received.await?,
        };
        if let Some((quotas, stored)) = quotas {
            check_stored(tenant, &quotas, stored, Some(size)).map_err(refused)?;
        }
        for _ in 0..TRIES {
            let prefix = file_prefix(new.id, self.front.file_mark(new.id).await?);
            let stored = self.shared.artifacts.put_file(&prefix, EXTENSION, &path).await?;
            let record = records::NewFile {
                id: new.id,
                tenant: tenant.to_owned(),
                name: new.name.clone(),
                purpose: new.purpose,
                stored,
                keep: new.keep,
            };
            match self.front.add_file(&record).await? {
                AddedFile::Added(file) => return Ok(file.record),
                AddedFile::Existed(file) => {
                    self.call.tell_changed(false);
                    return Ok(file.record);
                }
                AddedFile::Leaving => {}
            }
        }
        Err(refused(removing(new.id)))
    }

    /// The file with this id, if the tenant has one. Another tenant's looks like a file that is not
    /// there, and there can be no second one.
    async fn present(&self, id: Uuid, tenant: &str) -> Result<Option<StoredFile>, Error> {
        match self.front.file(id, None).await {
            Ok(file) if file.record.tenant == tenant => Ok(Some(file)),
            Ok(_) => Err(records::no_file(id).into()),
            Err(store::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn file_of(&self, caller: &Caller, id: Uuid) -> Result<StoredFile, Error> {
        let reach = Reach::of(caller).map_err(refused)?;
        Ok(self.front.file(id, reach.tenant()).await?)
    }

    async fn bytes_of_file(
        &self,
        caller: &Caller,
        id: Uuid,
        offset: u64,
    ) -> Result<(FileRecord, Outgoing<Bytes>), Error> {
        let StoredFile { record, stored } = self.file_of(caller, id).await?;
        if offset > stored.size {
            let message = format!("offset is {offset}; accepted: 0 to {}", stored.size);
            return Err(refused(UserError::invalid("offset", message)));
        }
        let (send, parts) = tokio::sync::mpsc::channel(4);
        let sending = send_file(Arc::clone(&self.shared), stored, offset, send);
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(sending));
        Ok((record, Box::pin(ReceiverStream::new(parts))))
    }

    async fn remove_file(&self, caller: &Caller, id: Uuid) -> Result<FileRecord, Error> {
        let reach = Reach::of(caller).map_err(refused)?;
        let deleted = self.front.delete_file(id, reach.tenant()).await?;
        self.shared.events.clean.notify_one();
        Ok(deleted.record)
    }

    /// Deletes a file, and tells which it was.
    pub(super) async fn deleted_file(&self, caller: &Caller, id: Uuid) -> Answer<FileRecord> {
        let delete = self.remove_file(caller, id);
        self.changing(self.shared.options.call, Again::Harmless, delete).await
    }

    async fn begin_batch(&self, caller: &Caller, new: &NewBatch) -> Result<Batch, Error> {
        let tenant = uploader(caller).map_err(refused)?;
        check_batch(new).map_err(refused)?;
        self.shared.disks.refuse()?;
        let creator = Creator { tenant, key: caller.key() };
        let (batch, added) = self.front.add_batch(creator, new).await?;
        self.call.tell_changed(added);
        Ok(batch)
    }

    async fn end_batch(&self, caller: &Caller, id: Uuid) -> Result<Batch, Error> {
        let reach = Reach::of(caller).map_err(refused)?;
        let (batch, changed) = self.front.cancel_batch(id, reach.tenant()).await?;
        self.call.tell_changed(changed);
        Ok(batch)
    }

    async fn step(&self, runner: Uuid, step: &Step) -> Result<bool, Error> {
        if step.progress.len() > MOST_PROGRESS {
            let message = format!(
                "progress has {} bytes; accepted: at most {MOST_PROGRESS}",
                step.progress.len()
            );
            return Err(refused(UserError::invalid("progress", message)));
        }
        Ok(self.front.advance_batch(runner, step).await?)
    }
}

#[async_trait]
impl Batches for Farm {
    async fn add_file(
        &self,
        caller: &Caller,
        new: NewFile,
        parts: Incoming<Bytes>,
    ) -> Answer<FileRecord> {
        // It has its own time limits, because a large file takes long.
        self.keep_file(caller, new, parts).await.map_err(|error| self.told(&error))
    }

    async fn file(&self, caller: &Caller, id: Uuid) -> Answer<FileRecord> {
        let file = async { Ok(self.file_of(caller, id).await?.record) };
        self.unary(self.shared.options.call, file).await
    }

    async fn files(
        &self,
        caller: &Caller,
        page: &Page,
        purpose: Option<Purpose>,
    ) -> Answer<Vec<FileRecord>> {
        let files = async {
            let reach = Reach::of(caller).map_err(refused)?;
            let files = self.front.list_files(reach.tenant(), page, purpose).await?;
            Ok(files.into_iter().map(|file| file.record).collect())
        };
        self.unary(self.shared.options.call, files).await
    }

    async fn read_file(
        &self,
        caller: &Caller,
        id: Uuid,
        offset: u64,
    ) -> Answer<(FileRecord, Outgoing<Bytes>)> {
        self.unary(self.shared.options.call, self.bytes_of_file(caller, id, offset)).await
    }

    async fn delete_file(&self, caller: &Caller, id: Uuid) -> Answer<()> {
        self.deleted_file(caller, id).await.map(drop)
    }

    async fn add_batch(&self, caller: &Caller, new: NewBatch) -> Answer<Batch> {
        let begin = self.begin_batch(caller, &new);
        self.changing(self.shared.options.call, Again::Harmless, begin).await
    }

    async fn batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch> {
        let batch = async {
            let reach = Reach::of(caller).map_err(refused)?;
            Ok(self.front.batch(id, reach.tenant()).await?)
        };
        self.unary(self.shared.options.call, batch).await
    }

    async fn batches(&self, caller: &Caller, page: &Page) -> Answer<Vec<Batch>> {
        let batches = async {
            let reach = Reach::of(caller).map_err(refused)?;
            Ok(self.front.list_batches(reach.tenant(), page).await?)
        };
        self.unary(self.shared.options.call, batches).await
    }

    async fn cancel_batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch> {
        let cancel = self.end_batch(caller, id);
        self.changing(self.shared.options.call, Again::Harmless, cancel).await
    }

    async fn clock_ms(&self) -> Answer<i64> {
        let clock = async { Ok(self.front.clock_ms().await?) };
        self.unary(self.shared.options.call, clock).await
    }

    async fn claim_batch(&self, runner: Uuid, lease: Duration) -> Answer<Option<Batch>> {
        let claim = async { Ok(self.front.claim_batch(runner, lease).await?) };
        self.changing(self.shared.options.call, Again::Harmless, claim).await
    }

    async fn renew_batch(&self, runner: Uuid, id: Uuid, lease: Duration) -> Answer<bool> {
        let renew = async { Ok(self.front.renew_batch(runner, id, lease).await?) };
        self.changing(self.shared.options.call, Again::Harmless, renew).await
    }

    async fn advance_batch(&self, runner: Uuid, step: &Step) -> Answer<bool> {
        let advance = self.step(runner, step);
        let advanced = self.changing(self.shared.options.call, Again::Harmless, advance).await?;
        if advanced && step.to.is_terminal() {
            self.shared.events.webhooks.notify_one();
        }
        Ok(advanced)
    }
}

fn check_file(new: &NewFile) -> Result<(), UserError> {
    let NewFile { name, keep, .. } = new;
    if name.chars().count() > MOST_NAME || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(MOST_NAME).collect();
        let message = format!(
            "name is {shown:?}; accepted: at most {MOST_NAME} characters, none of them a control \
             character"
        );
        return Err(UserError::invalid("name", message));
    }
    check_time("keep", *keep)
}

fn check_time(field: &str, time: Option<Duration>) -> Result<(), UserError> {
    let Some(time) = time.filter(|time| *time > LONGEST) else { return Ok(()) };
    let (seconds, most) = (time.as_secs(), LONGEST.as_secs());
    let message = format!("{field} is {seconds} s; accepted: at most {most} s");
    Err(UserError::invalid(field, message))
}

fn check_batch(new: &NewBatch) -> Result<(), UserError> {
    for (field, text) in [("endpoint", &new.endpoint), ("origin", &new.origin)] {
        if text.len() > MOST_TEXT || text.chars().any(char::is_control) {
            let message = format!(
                "{field} has {} bytes; accepted: at most {MOST_TEXT}, without control characters",
                text.len()
            );
            return Err(UserError::invalid(field, message));
        }
    }
    let size = new.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if size > MOST_METADATA {
        let message = format!("metadata has {size} bytes; accepted: at most {MOST_METADATA}");
        return Err(UserError::invalid("metadata", message));
    }
    check_time("window", Some(new.window))?;
    check_time("keep_output", new.keep_output)
}

/// What is accepted of a file that comes.
#[derive(Clone, Copy)]
struct Limits {
    /// How long it may make no progress.
    /// `None`: no limit.
    idle: Option<Duration>,
    /// Most bytes; `None`: any number.
    most: Option<u64>,
}

/// Writes what comes into a file. Returns how many bytes.
async fn receive(mut parts: Incoming<Bytes>, path: &Path, limits: Limits) -> Result<u64, Error> {
    let Limits { idle, most } = limits;
    let mut file = tokio::fs::File::create(path).await?;
    let (mut size, mut enough) = (0, PROGRESS);
    let mut until = idle.map(|idle| (Instant::now() + idle, idle));
    loop {
        let next = match until {
            Some((until, idle)) => {
                timeout_at(until, parts.next()).await.map_err(|_| refused(too_slow(idle)))?
            }
            None => parts.next().await,
        };
        let Some(part) = next else { break };
        let part = part.map_err(refused)?;
        size += part.len() as u64;
        if let Some(most) = most.filter(|most| size > *most) {
            let message =
                format!("the file has more than {most} bytes; accepted: at most that many");
            return Err(refused(UserError::invalid("file", message)));
        }
        file.write_all(&part).await?;
        if size >= enough {
            until = idle.map(|idle| (Instant::now() + idle, idle));
            enough = size + PROGRESS;
        }
    }
    file.flush().await?;
    Ok(size)
}

/// Reads a file in pieces, so that a large one needs little memory. Ends early if the client is
/// gone.
async fn send_file(
    shared: Arc<Shared>,
    file: ArtifactRef,
    mut at: u64,
    send: tokio::sync::mpsc::Sender<Answer<Bytes>>,
) {
    while at < file.size {
        let piece = match shared.artifacts.get_range(&file, at..at + READ).await {
            Ok(piece) => piece,
            Err(error) => {
                let _gone = send.send(Err(failure(&error.into()))).await;
                return;
            }
        };
        for from in (0..piece.len()).step_by(PART) {
            let part = piece.slice(from..piece.len().min(from + PART));
            at += part.len() as u64;
            if send.send(Ok(part)).await.is_err() {
                return;
            }
        }
    }
}

fn too_slow(idle: Duration) -> UserError {
    let message = format!(
        "the file comes too slowly: less than {PROGRESS} bytes came within {} s; send it again over \
         a faster connection",
        idle.as_secs_f64()
    );
    UserError::new(Code::DeadlineExceeded, "UPLOAD_STALLED", message)
}

fn too_long() -> UserError {
    let message = format!(
        "the file did not come within {} s; send it again over a faster connection",
        RECEIVING.as_secs()
    );
    UserError::new(Code::DeadlineExceeded, "UPLOAD_STALLED", message)
}

fn busy() -> UserError {
    let message = "the farm receives as many files as it can; send it again in a moment";
    UserError::new(Code::Unavailable, "FILES_BUSY", message)
}

fn removing(id: Uuid) -> UserError {
    let message = format!(
        "an earlier file with the id {} is still being removed; send this file again in a moment",
        shown_file(id)
    );
    UserError::new(Code::Unavailable, "FILE_REMOVED", message)
}
