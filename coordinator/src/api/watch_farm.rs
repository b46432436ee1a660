//! Watches the whole farm, or one tenant's part of it: sends the present state, then every change
//! of the jobs, and the workers to those who may see them.
//!
//! A cursor never skips a change, but changes may be repeated after it. This process reads the
//! changes once for all watchers (`feed`). After it connects, or if it is too slow for the feed, a
//! watcher reads the record itself from its cursor. So only one event per watcher waits in memory.
//! While a watcher catches up, it gets its cursor from time to time.
//!
//! What others do shows in nothing that a tenant's watcher gets. Changes of their jobs make no
//! event, and a cursor is sealed, so it does not show how far the farm's changes have come.

use std::{collections::HashMap, str::FromStr, sync::Arc, time::Instant};

use darkroom_core::{
    digest::{Digest, FieldHasher},
    error::{Code, UserError},
};
use darkroom_farm_api::{Answer, Caller, Outgoing, Scope};
use darkroom_proto::v1;
use prost::Message;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Farm,
    access::tenant_filter,
    failure,
    jobs::PAGE_BYTES,
    refused,
    tokens::{Tokens, is_token},
    validate::{MAX_TENANT, limit},
    watch::send,
};
use crate::{
    error::Error,
    feed::{self, News, Workers},
    feeder,
    store::{
        farm_changes::{ChangeBounds, ChangePosition, ChangeQuery, DeletedJob},
        records::JobRecord,
    },
};

/// Events on their way to a client.
const BUFFER: usize = 1;

type Sender = mpsc::Sender<Answer<v1::FarmEvent>>;

impl Farm {
    pub(super) async fn watch_farm(
        &self,
        caller: &Caller,
        request: v1::WatchFarmRequest,
    ) -> Result<Outgoing<v1::FarmEvent>, Error> {
        limit("tenant", &request.tenant, MAX_TENANT).map_err(refused)?;
        let tenant = tenant_filter(caller, "tenant", &request.tenant).map_err(refused)?;
        let audience = Audience { tenant, workers: caller.may(Scope::Operate) };
        let cursor = audience.read(self.tokens().await?, &request.cursor).map_err(refused)?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher = Watcher::new(self.clone(), audience, cursor);
        self.shared.tasks.spawn(watcher.run(sender));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// What a watcher gets to see.
#[derive(Clone, Debug)]
struct Audience {
    /// Only this tenant's jobs; `None`: all.
    tenant: Option<String>,
    /// Also the workers.
    workers: bool,
}

impl Audience {
    /// The listing that its cursors belong to.
    fn listing(&self) -> Digest {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        FieldHasher::new("watch-farm/1").field(tenant.as_bytes()).finish()
    }

    /// The cursor of a request. One that this farm has not made for this audience stands for none,
    /// as it does after the farm has got another database.
    fn read(&self, tokens: &Tokens, text: &str) -> Result<Option<Cursor>, UserError> {
        if text.is_empty() {
            return Ok(None);
        }
        if !is_token(text) {
            return Err(bad_cursor(text));
        }
        tokens.open(&self.listing(), text).map(|opened| opened.parse()).transpose()
    }
}

fn bad_cursor(text: &str) -> UserError {
    let shown: String = text.chars().take(CURSOR).collect();
    let message =
        format!("cursor is {shown:?}; accepted: the cursor of an event of WatchFarm, or none");
    UserError::invalid("cursor", message)
}

/// A watcher's position: in the listing of the present state, or in the changes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    era: String,
    position: ChangePosition,
    /// The present state was sent down to the job with this `seq`; `None`: all of it was sent.
    listed: Option<i64>,
}

/// Longest cursor, bytes.
const CURSOR: usize = 128;

impl FromStr for Cursor {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let parse = || {
            let text = Some(text).filter(|text| text.len() <= CURSOR)?;
            let mut parts = text.split('.');
            let (kind, era) = (parts.next()?, parts.next()?.to_owned());
            let (mark, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let (after, listed) = match kind {
                "c" => (seq, None),
                "l" => (0, Some(seq)),
                _ => return None,
            };
            let position = ChangePosition { mark, after };
            parts.next().is_none().then_some(Self { era, position, listed })
        };
        parse().ok_or_else(|| bad_cursor(text))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { era, position: ChangePosition { mark, after }, listed } = self;
        match listed {
            Some(seq) => write!(f, "l.{era}.{mark}.{seq}"),
            None => write!(f, "c.{era}.{mark}.{after}"),
        }
    }
}

struct Watcher {
    farm: Farm,
    audience: Audience,
    /// `None`: the present state must be sent.
    cursor: Option<Cursor>,
    /// The next event must have the workers.
    workers_due: bool,
    /// The next event begins the present state.
    reset_due: bool,
    caught_up: bool,
    /// Versions that were sent while it caught up, by `seq`. News from that time may be older.
    told: HashMap<i64, u64>,
    /// News from this mark on are newer than everything that was sent while it caught up.
    told_until: u64,
    /// Jobs that were deleted, for the next event.
    deleted: Vec<String>,
    /// When the last event was sent, or the watch began.
    sent: Instant,
}

/// Why a watcher stops following.
enum Ended {
    /// The client is gone, or knows that the coordinator is stopping.
    Gone,
    /// It must read the record again.
    Behind,
}

impl Watcher {
    fn new(farm: Farm, audience: Audience, cursor: Option<Cursor>) -> Self {
        Self {
            farm,
            workers_due: audience.workers,
            audience,
            cursor,
            reset_due: false,
            caught_up: false,
            told: HashMap::new(),
            told_until: 0,
            deleted: Vec::new(),
            sent: Instant::now(),
        }
    }

    async fn run(mut self, sender: Sender) {
        loop {
            match self.follow(&sender).await {
                Ok(Ended::Gone) => return,
                Ok(Ended::Behind) => {}
                Err(error) => return end(&sender, failure(&error)),
            }
        }
    }

    /// Joins the feed, catches up with it, and forwards its news.
    async fn follow(&mut self, sender: &Sender) -> Result<Ended, Error> {
        let shared = Arc::clone(&self.farm.shared);
        let mut news = tokio::select! {
            news = shared.feed.join() => news,
            () = sender.closed() => return Ok(Ended::Gone),
            () = shared.stop.cancelled() => return Ok(stopped(sender)),
        };
        self.caught_up = false;
        if !self.catch_up(sender).await? {
            return Ok(stopped(sender));
        }
        loop {
            let quiet = shared.options.watch_repeat.saturating_sub(self.sent.elapsed());
            let told = tokio::select! {
                told = news.recv() => told,
                () = tokio::time::sleep(quiet) => {
                    if !self.tell(sender, Vec::new(), None).await? {
                        return Ok(Ended::Gone);
                    }
                    continue;
                }
                () = sender.closed() => return Ok(Ended::Gone),
                () = shared.stop.cancelled() => return Ok(stopped(sender)),
            };
            let told = match told {
                Ok(told) => told,
                Err(RecvError::Lagged(_)) => return Ok(Ended::Behind),
                Err(RecvError::Closed) => return Ok(stopped(sender)),
            };
            if !self.pass_on(sender, &told).await? {
                return Ok(if sender.is_closed() { Ended::Gone } else { Ended::Behind });
            }
        }
    }

    /// Forwards news. False if the client is gone or everything must be sent again.
    async fn pass_on(&mut self, sender: &Sender, news: &News) -> Result<bool, Error> {
        let News::Changed { jobs, deleted, workers, position } = news else {
            self.cursor = None;
            return Ok(false);
        };
        let is_new =
            |job: &&JobRecord| self.told.get(&job.seq).is_none_or(|version| *version < job.version);
        let jobs = jobs.iter().filter(|job| self.wants(job)).filter(is_new);
        let jobs: Vec<JobRecord> = jobs.cloned().collect();
        self.note_deleted(deleted);
        if position.mark >= self.told_until {
            self.told = HashMap::new();
        }
        let workers = workers.as_ref().filter(|_| self.audience.workers);
        let told = !jobs.is_empty() || !self.deleted.is_empty() || workers.is_some();
        if !told {
            self.advance(*position);
            return Ok(true);
        }
        self.tell_jobs(sender, jobs, workers.cloned(), *position).await
    }

    fn wants(&self, job: &JobRecord) -> bool {
        self.concerns(&job.tenant)
    }

    fn concerns(&self, tenant: &str) -> bool {
        self.audience.tenant.as_ref().is_none_or(|own| own == tenant)
    }

    /// The next event tells these.
    fn note_deleted(&mut self, deleted: &[DeletedJob]) {
        let new = |one: &&DeletedJob| {
            self.concerns(&one.tenant)
                && self.told.get(&one.seq).is_none_or(|version| *version < one.version)
        };
        let ids: Vec<String> = deleted.iter().filter(new).map(|one| one.id.to_string()).collect();
        self.deleted.extend(ids);
    }

    /// Everything before this position was sent. Never goes back, because news may be older than
    /// the changes read here.
    fn advance(&mut self, position: ChangePosition) {
        if let Some(cursor) = &mut self.cursor {
            cursor.position = cursor.position.max(position);
        }
    }

    /// Sends the present state, if it was not sent yet, and all changes since. False if the client
    /// is gone or the coordinator stops.
    async fn catch_up(&mut self, sender: &Sender) -> Result<bool, Error> {
        let shared = Arc::clone(&self.farm.shared);
        let is_over = || sender.is_closed() || shared.stop.is_cancelled();
        let bounds = self.farm.front.change_bounds().await?;
        let mut cursor = self.begin(&bounds);
        self.told = HashMap::new();
        while let Some(before) = cursor.listed {
            if is_over() || !self.tell_if_quiet(sender).await? {
                return Ok(false);
            }
            let tenant = self.audience.tenant.as_deref();
            let page = self.farm.front.live_jobs(tenant, Some(before), feed::JOBS).await?;
            let last = page.jobs.last().map(|job| job.seq).filter(|_| page.more);
            self.told.extend(page.jobs.iter().map(|job| (job.seq, job.version)));
            if !self.tell_listed(sender, page.jobs, last).await? {
                return Ok(false);
            }
            cursor.listed = last;
        }
        let settled = ChangePosition::before(bounds.settled);
        let mut from = cursor.position;
        loop {
            if is_over() || !self.tell_if_quiet(sender).await? {
                return Ok(false);
            }
            let query = ChangeQuery {
                tenant: self.audience.tenant.as_deref(),
                from,
                next: bounds.next,
                limit: feed::JOBS,
                known: &self.told,
            };
            let changed = self.farm.front.changed_jobs(query).await?;
            let position = changed.more.unwrap_or(settled).min(settled);
            self.note_deleted(&changed.deleted);
            self.told.extend(changed.deleted.iter().map(|one| (one.seq, one.version)));
            let jobs: Vec<_> = changed.jobs.into_iter().map(|one| one.job).collect();
            self.told.extend(jobs.iter().map(|job| (job.seq, job.version)));
            // The last event of the past is sent even without jobs, because it says that the watch
            // has caught up.
            self.caught_up = changed.more.is_none();
            if jobs.is_empty() && self.deleted.is_empty() && !self.caught_up {
                self.advance(position);
            } else if !self.tell_jobs(sender, jobs, None, position).await? {
                return Ok(false);
            }
            match changed.more {
                Some(next) => from = next,
                None => break,
            }
        }
        self.told_until = self.farm.front.change_bounds().await?.next;
        Ok(true)
    }

    /// The cursor to continue from: the client's if it belongs to this record, else a new one.
    fn begin(&mut self, bounds: &ChangeBounds) -> Cursor {
        let known = self.cursor.clone().filter(|known| {
            let mark = known.position.mark;
            // Of jobs that were deleted long ago nothing can be told.
            let is_recent = mark > bounds.forgotten;
            known.era == bounds.era && mark <= bounds.next && is_recent
        });
        self.reset_due |= known.is_none();
        let cursor = known.unwrap_or_else(|| Cursor {
            era: bounds.era.clone(),
            position: ChangePosition::before(bounds.settled),
            listed: Some(i64::MAX),
        });
        self.cursor = Some(cursor.clone());
        cursor
    }

    /// Sends a page of the present state; `last` says where the next page begins, if there is one.
    async fn tell_listed(
        &mut self,
        sender: &Sender,
        jobs: Vec<JobRecord>,
        last: Option<i64>,
    ) -> Result<bool, Error> {
        for (chunk, seq) in self.chunks(jobs) {
            if let Some(cursor) = &mut self.cursor {
                cursor.listed = Some(seq);
            }
            if !self.tell(sender, chunk, None).await? {
                return Ok(false);
            }
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.listed = last;
        }
        Ok(true)
    }

    /// Sends jobs that changed before a position, in as many events as needed. Only the last
    /// event's cursor is that position.
    async fn tell_jobs(
        &mut self,
        sender: &Sender,
        jobs: Vec<JobRecord>,
        workers: Option<Workers>,
        position: ChangePosition,
    ) -> Result<bool, Error> {
        let mut chunks = self.chunks(jobs);
        let last = chunks.pop().map(|(chunk, _)| chunk).unwrap_or_default();
        let caught_up = std::mem::replace(&mut self.caught_up, false);
        for (chunk, _) in chunks {
            if !self.tell(sender, chunk, None).await? {
                return Ok(false);
            }
        }
        self.caught_up = caught_up;
        self.advance(position);
        self.tell(sender, last, workers).await
    }

    /// Jobs as messages, in pieces that fit into an event, each with its last job's `seq`.
    fn chunks(&self, jobs: Vec<JobRecord>) -> Vec<(Vec<v1::Job>, i64)> {
        let mut chunks: Vec<(Vec<v1::Job>, i64)> = Vec::new();
        let mut bytes = 0;
        for record in jobs {
            let seq = record.seq;
            let job = self.farm.listed(record);
            bytes += job.encoded_len();
            match chunks.last_mut() {
                Some((chunk, last)) if bytes <= PAGE_BYTES => {
                    chunk.push(job);
                    *last = seq;
                }
                _ => {
                    bytes = job.encoded_len();
                    chunks.push((vec![job], seq));
                }
            }
        }
        chunks
    }

    /// Sends an event without jobs if none was sent for a while. False if the client is gone.
    async fn tell_if_quiet(&mut self, sender: &Sender) -> Result<bool, Error> {
        if self.sent.elapsed() < self.farm.shared.options.watch_repeat {
            return Ok(true);
        }
        self.tell(sender, Vec::new(), None).await
    }

    /// Sends an event; the first of a stream has the workers, for those who see them. False if the
    /// client is gone.
    async fn tell(
        &mut self,
        sender: &Sender,
        jobs: Vec<v1::Job>,
        workers: Option<Workers>,
    ) -> Result<bool, Error> {
        let shared = &self.farm.shared;
        let workers = match workers {
            Some(workers) => Some(workers),
            None if self.workers_due => {
                Some(feeder::read_workers(shared, self.farm.front.as_ref()).await?)
            }
            None => None,
        };
        let tokens = self.farm.tokens().await?;
        let seal = |cursor: &Cursor| tokens.seal(&self.audience.listing(), &cursor.to_string());
        let cursor = self.cursor.as_ref().map_or_else(String::new, seal);
        let event = v1::FarmEvent {
            jobs,
            workers: workers.map(|all| v1::WorkerSnapshot { workers: Farm::view_all(all) }),
            cursor,
            reset: std::mem::take(&mut self.reset_due),
            caught_up: self.caught_up,
            deleted_jobs: std::mem::take(&mut self.deleted),
        };
        self.workers_due = false;
        self.sent = Instant::now();
        Ok(send(shared, sender, event).await)
    }
}

fn stopped(sender: &Sender) -> Ended {
    let message = "the coordinator is stopping; watch again from the last cursor";
    end(sender, UserError::new(Code::Unavailable, "STOPPING", message));
    Ended::Gone
}

/// Tells a client why its watch ends. Does not wait for a client that does not read: its stream is
/// cut.
fn end(sender: &Sender, error: UserError) {
    drop(sender.try_send(Err(error)));
}

#[cfg(test)]
mod tests;
