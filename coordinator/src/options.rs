//! Timings and shares of a coordinator, and how much must stay free on its disks.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most bytes.
    pub bytes: u64,
    /// Finished pictures go too, those of the oldest jobs first, when nothing else is left.
    pub pictures: bool,
}

/// Timings, shares and disks.
#[derive(Clone, Debug)]
pub struct Options {
    /// A lease that is not renewed for this long ends, unless the farm's record has another value.
    /// The workers' heartbeats must be much more frequent.
    pub lease: Duration,
    /// How often expired leases are looked for.
    pub reap: Duration,
    /// How often SQL and the queue are compared; a lost task is ready again after two passes.
    pub sweep: Duration,
    /// How often the cleaner looks for something to remove.
    pub clean: Duration,
    /// Longest that the cleaner deletes what lies below one prefix in one pass.
    pub clean_below: Duration,
    /// A cleaner that was stopped for longer than this looks again before it deletes.
    pub clean_stale: Duration,
    /// After this time a call that cleans begins nothing more. It looks for orphans as long.
    pub clean_call: Duration,
    /// The record was restored from a backup, or storage was copied: the cleaner goes on although
    /// storage knows of later removals.
    pub restored: bool,
    /// How often each part looks for work without being woken.
    pub poll: Duration,
    /// A worker that was not announced for this long does not count.
    pub worker_ttl: Duration,
    /// A streaming submit without a chunk for this long is given up.
    pub receiving_idle: Duration,
    /// A streaming submit or forecast that makes no progress for this long is given up.
    pub submit_idle: Duration,
    /// An upload that makes no progress for this long is given up.
    pub upload_idle: Duration,
    /// Time limit of a unary call.
    pub call: Duration,
    /// Time limit of a unary submit.
    pub submit: Duration,
    /// Shortest time between two events of one watcher; changes in between are combined.
    pub watch_interval: Duration,
    /// Number of failures, including deaths, with which a worker's death ends an image. `None`: the
    /// rules for failures apply.
    pub worker_deaths: Option<u32>,
    /// A watch that is quiet for this long repeats the job, because proxies cut quiet streams.
    pub watch_repeat: Duration,
    /// Workers and encoder are parts of this process. They cannot be drained, because no others
    /// could replace them.
    pub resident_workers: bool,
    /// The workers make up what they store, as the fakes of tests do. What they store lies apart,
    /// and the record belongs to such farms only.
    pub makes_up: bool,
    /// Weights of tenants in the fair share; 1 where absent.
    pub tenant_weights: BTreeMap<String, f64>,
    /// The folder of the record, if it is on a disk of this machine.
    pub record_folder: Option<PathBuf>,
    /// Bytes that must stay free on the disks of this machine that hold the record or the
    /// artifacts. With less, no work is dispatched and no job accepted. 0: any number. `None`: 1
    /// GiB, or 2 % of the disk if that is less, but at least 8 MiB.
    pub disk_floor: Option<u64>,
    /// How much may be stored. `None`: any amount.
    pub budget: Option<Budget>,
    /// Events are sent to webhooks. Otherwise they wait for a coordinator that does.
    pub sends_webhooks: bool,
    /// Webhooks may lead to loopback, link-local and private addresses too.
    pub webhook_private_addresses: bool,
    /// How long a webhook may take to answer.
    pub webhook_answer: Duration,
    /// Pauses before the next tries of an event; the last one is repeated.
    pub webhook_pauses: Vec<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            reap: Duration::from_secs(1),
            sweep: Duration::from_secs(2),
            clean: Duration::from_secs(5),
            clean_below: Duration::from_secs(10),
            clean_stale: Duration::from_secs(60),
            clean_call: Duration::from_secs(10),
            restored: false,
            poll: Duration::from_millis(250),
            worker_ttl: Duration::from_secs(10),
            receiving_idle: Duration::from_secs(600),
            submit_idle: Duration::from_secs(120),
            upload_idle: Duration::from_secs(30),
            call: Duration::from_secs(30),
            submit: Duration::from_secs(120),
            watch_interval: Duration::from_millis(50),
            worker_deaths: None,
            watch_repeat: Duration::from_secs(20),
            resident_workers: false,
            makes_up: false,
            tenant_weights: BTreeMap::new(),
            record_folder: None,
            disk_floor: None,
            budget: None,
            sends_webhooks: true,
            webhook_private_addresses: false,
            webhook_answer: Duration::from_secs(10),
            webhook_pauses: [5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600]
                .map(Duration::from_secs)
                .to_vec(),
        }
    }
}
