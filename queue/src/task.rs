//! Tasks, leases, results and the workers that exchange them.

use std::{collections::BTreeMap, fmt};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    extent::Extent,
    failure_code::FailureCode,
    fit::Fit,
    id::{ImageId, StageName, WorkerId},
    output::Output,
    settings::StageSettings,
    worker_state::WorkerState,
};
use serde::{Deserialize, Serialize};

use crate::mac::{Mac, Signature};

/// A pool: the workers able to run one stage of one cascade, and the tasks that wait for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolId {
    /// The stage; `encode` for the encoder's pool.
    pub stage: StageName,
    /// Digest of the cascade; for stage `encode`, of the encoder.
    pub digest: Digest,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.stage, self.digest.short())
    }
}

/// What a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// One stage of an image.
    Image(ImageId),
    /// The embedding of a text, by its text digest.
    Text(Digest),
}

/// One dispatch of one task. Results of an older one are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// Image or text.
    pub subject: Subject,
    /// Raised by every retry or rewind of the image; 0 for texts.
    pub generation: u32,
    /// Raised each time SQL dispatches the task.
    pub dispatch: u64,
}

/// One stage of one image, or one text to encode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The dispatch of this task.
    pub key: TaskKey,
    /// Tasks with equal compatibility keys may share a batch.
    pub compatibility: String,
    /// A worker died while it held the task, or it failed in a shared batch: it runs alone.
    pub suspect: bool,
    /// What to do.
    pub body: TaskBody,
    /// W3C trace context of the request that created it.
    pub traceparent: Option<String>,
    /// Allows this dispatch to store its output under its prefix. Only the farm can make it; the
    /// result returns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warrant: Option<Mac>,
    /// Shows the members of its pool that the farm made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Mac>,
}

/// What a task asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskBody {
    /// Compute and store a text's embedding.
    Encode(EncodeBody),
    /// Run a diffusion stage.
    Render(Box<RenderBody>),
}

impl TaskBody {
    /// Network passes of the task; its time is proportional to them.
    #[must_use]
    pub fn passes(&self) -> f64 {
        match self {
            Self::Encode(_) => 1.0,
            Self::Render(body) => body.settings.sampling.passes(),
        }
    }

    /// Prefix of the output's key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self {
            Self::Encode(body) => &body.prefix,
            Self::Render(body) => &body.prefix,
        }
    }
}

/// A text to encode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodeBody {
    /// The prepared text (see `TextPreparation`).
    pub text: String,
    /// Prefix of the artifact's key; equal for all tasks of this text and encoder.
    pub prefix: String,
}

/// A stage of an image, with everything resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderBody {
    /// Settings of this stage.
    pub settings: StageSettings,
    /// The image's seed.
    pub seed: u64,
    /// Embedding of the prompt.
    pub text: ArtifactRef,
    /// Embedding of the negative prompt, if the stage is guided.
    pub negative: Option<ArtifactRef>,
    /// Output of the stage before: a float tensor [3, height, width] in [−1, 1].
    pub low_res: Option<ArtifactRef>,
    /// A PNG of the user. If the settings have a strength, the stage starts from it; otherwise it
    /// is the stage's low-resolution picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ArtifactRef>,
    /// The mask of the part that is painted anew: a PNG, white in that part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<ArtifactRef>,
    /// How that picture and its mask are made to fit the stage's shape. Absent: they have it
    /// already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fitting>,
    /// Prefix of the output's key, `tasks/{task digest}/`.
    pub prefix: String,
    /// In the last stage: text metadata of the picture, in order. Absent in the others, which store
    /// a tensor.
    pub picture: Option<Vec<(String, String)>>,
    /// In the last stage: how the picture is stored.
    #[serde(default, skip_serializing_if = "Output::is_plain")]
    pub output: Output,
}

/// How a picture of another shape is made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fitting {
    /// The rule.
    pub fit: Fit,
    /// Width and height that the stage needs.
    pub extent: Extent,
}

/// An entry's id in its pool; only the queue understands it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId(pub String);

/// A task on lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The id to renew and complete it by.
    pub id: EntryId,
    /// The worker that holds it.
    pub worker: WorkerId,
    /// The task.
    pub task: Task,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Stored.
    Done {
        /// The output: embedding, tensor or picture.
        artifact: ArtifactRef,
        /// Things to tell the user: truncated tokens, unknown words.
        notes: Vec<String>,
    },
    /// The task itself failed. Counts against the image.
    Failed {
        /// Why, in one word.
        code: FailureCode,
        /// One sentence.
        message: String,
    },
    /// An input is gone from storage or has the wrong hash, so its producer must run again. Counts
    /// against nobody.
    InputMissing {
        /// Key of the missing artifact.
        key: String,
    },
    /// The task was drained, or storage stayed unreachable. It can run again as it is. Counts
    /// against nobody.
    Interrupted {
        /// The reason, for the log.
        reason: String,
    },
}

/// A result as a worker reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The dispatch that ended.
    pub key: TaskKey,
    /// The worker that ran it.
    pub worker: WorkerId,
    /// Where it ran, host and device ([`WorkerCard::place`]). This tells a poison image from a bad
    /// worker.
    #[serde(rename = "host")]
    pub place: String,
    /// Class of device: devices of one class make the same bytes.
    pub device_class: String,
    /// Whether it ran alone in its batch.
    pub alone: bool,
    /// Its share of the batch's model time, seconds.
    pub seconds: f64,
    /// Tasks in its batch; 0 if it did not run (its output was there), or an older worker ran it.
    #[serde(default)]
    pub batch: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The task's warrant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warrant: Option<Mac>,
    /// The worker's signature of all of this. Without one the farm does not believe it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What happened to a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The result is queued.
    Recorded,
    /// The worker had lost the lease; the result is dropped.
    LeaseLost,
}

/// A result in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultEntry {
    /// The id to acknowledge it by.
    pub id: EntryId,
    /// The result.
    pub result: TaskResult,
}

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Waiting.
    Waiting,
    /// Leased by this worker.
    Leased(WorkerId),
    /// Completed: the result waits for its commit.
    Result,
}

/// One entry of a pool, for the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySummary {
    /// The dispatch of the task.
    pub key: TaskKey,
    /// Where it stands.
    pub state: EntryState,
}

/// What a worker reports about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCard {
    /// The worker's id.
    pub id: WorkerId,
    /// Host name.
    pub host: String,
    /// Device, for people: `cpu (2 threads)`, `cuda:0 NVIDIA H100`.
    pub device: String,
    /// Class of device: devices of one class make the same bytes.
    pub device_class: String,
    /// Pools it serves.
    pub pools: BTreeMap<String, ServedPool>,
    /// Tasks on lease now.
    pub leased: u64,
    /// Tasks completed since it started.
    pub done: u64,
    /// Share of time its model thread was busy since start-up, 0 to 1.
    pub busy: f64,
    /// What it does now.
    pub state: WorkerState,
    /// What prevents it from working now, in one sentence: storage whose faults it retries. Empty
    /// if nothing does.
    #[serde(default)]
    pub trouble: String,
    /// Tasks that failed since it started.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed: u64,
    /// Memory of its device, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<DeviceMemory>,
    /// Its release of Darkroom. Empty: one that does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Seconds since its last sign of life; the queue fills it in on reading.
    pub seen_seconds_ago: f64,
}

fn is_none<N: PartialEq + Default>(count: &N) -> bool {
    *count == N::default()
}

/// Memory of a device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Used: of a GPU by all processes, of a machine by this process.
    pub used: u64,
    /// In all.
    pub total: u64,
}

/// One pool as a worker serves it; the key in [`WorkerCard::pools`] is the pool's text form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedPool {
    /// The pool.
    pub pool: PoolId,
    /// Largest batch.
    pub batch_cap: u32,
    /// Measured model seconds per image in a full batch; 0 if unknown.
    pub seconds_per_image: f64,
    /// Measured model seconds per network pass of an image, for any settings; 0 if unknown.
    #[serde(default)]
    pub seconds_per_pass: f64,
    /// Tasks of the batch that the model runs now, if it is one of this pool.
    #[serde(default, skip_serializing_if = "is_none")]
    pub running: u32,
    /// Mean number of tasks in a batch, of which newer ones count more; 0 if unknown.
    #[serde(default)]
    pub mean_batch: f64,
}

/// Orders for a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// It must drain, as after SIGTERM.
    pub drain: bool,
    /// It gets nothing for some time.
    pub aside: bool,
}

/// Host and device as one name, `gpu-7/cuda:1`. An image that fails on three of these fails
/// everywhere.
#[must_use]
pub fn place(host: &str, device: &str) -> String {
    let device = device.split_whitespace().next().unwrap_or("cpu");
    format!("{host}/{device}")
}

impl WorkerCard {
    /// Host and device as one name.
    #[must_use]
    pub fn place(&self) -> String {
        place(&self.host, &self.device)
    }

    /// Whether it takes tasks.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        self.state.takes_tasks()
    }

    /// The card as it is listed under these orders.
    #[must_use]
    pub fn under(mut self, orders: Orders) -> Self {
        if orders.drain {
            self.state = WorkerState::Draining;
        } else if orders.aside && self.state != WorkerState::Draining {
            self.state = WorkerState::SetAside;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card as a worker writes it, in a state that this version does or does not know.
    fn card_text(state: &str) -> String {
        format!(
            concat!(
                r#"{{"id":"w-1","host":"gpu-7","device":"cpu (2 threads)","device_class":"c","#,
                r#""pools":{{}},"leased":1,"done":2,"busy":0.5,"state":"{}","trouble":"","#,
                r#""seen_seconds_ago":0.0}}"#
            ),
            state
        )
    }

    #[test]
    fn a_card_keeps_its_bytes_whatever_its_state() {
        for state in ["working", "draining", "set aside", "a state of tomorrow"] {
            let text = card_text(state);
            let card: WorkerCard = serde_json::from_str(&text).expect("a card");
            assert_eq!(serde_json::to_string(&card).expect("JSON"), text);
            assert_eq!(card.takes_tasks(), !["draining", "set aside"].contains(&state), "{state}");
        }
        serde_json::from_str::<WorkerCard>(&card_text("x").replace("\"x\"", "1")).expect_err("1");
    }

    #[test]
    fn a_failure_keeps_its_bytes_whatever_its_code() {
        for code in ["non_finite", "out_of_memory", "panic", "a code of tomorrow"] {
            let text = format!(r#"{{"outcome":"failed","code":"{code}","message":"m"}}"#);
            let outcome: Outcome = serde_json::from_str(&text).expect("an outcome");
            assert_eq!(serde_json::to_string(&outcome).expect("JSON"), text);
            let Outcome::Failed { code: read, .. } = outcome else { panic!("a failure") };
            assert_eq!(FailureCode::KNOWN.contains(&read), !code.ends_with("tomorrow"), "{code}");
        }
    }

    #[test]
    fn two_devices_of_one_host_are_two_places() {
        assert_eq!(place("h", "cuda:0 NVIDIA H100"), "h/cuda:0");
        assert_eq!(place("h", "cpu (2 threads)"), "h/cpu");
        assert_eq!(place("h", ""), "h/cpu");
    }
}
