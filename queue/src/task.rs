//! Tasks, leases, results and the workers that exchange them.

use std::{collections::BTreeMap, fmt};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    extent::Extent,
    fit::Fit,
    id::{ImageId, StageName, WorkerId},
    settings::StageSettings,
};
use serde::{Deserialize, Serialize};

/// A pool: the workers able to run one stage of one cascade, and the line they take from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolId {
    /// The stage; `encode` for the encoder's pool.
    pub stage: StageName,
    /// Digest of the cascade; of the encoder for stage `encode`.
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

/// One handing-out of one task: results that carry an older one are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// Image or text.
    pub subject: Subject,
    /// Raised by every retry or rewind of the image; 0 for texts.
    pub generation: u32,
    /// Raised each time SQL hands the task to the queue.
    pub dispatch: u64,
}

/// One stage of one image, or one text to encode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Which handing-out of what.
    pub key: TaskKey,
    /// Tasks with equal compatibility keys may share a batch.
    pub compatibility: String,
    /// A worker died holding it: it runs alone.
    pub suspect: bool,
    /// What to do.
    pub body: TaskBody,
    /// W3C trace context of the request that caused it.
    pub traceparent: Option<String>,
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
    /// Network passes that it takes: what its time grows with.
    #[must_use]
    pub fn passes(&self) -> f64 {
        match self {
            Self::Encode(_) => 1.0,
            Self::Render(body) => body.settings.passes(),
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

/// A stage of an image, everything resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderBody {
    /// Settings of this stage.
    pub settings: StageSettings,
    /// The image's seed.
    pub seed: u64,
    /// Embedding of the prompt.
    pub text: ArtifactRef,
    /// Embedding of the negative prompt, where the stage is guided.
    pub negative: Option<ArtifactRef>,
    /// Output of the stage before: a float tensor [3, height, width] in [−1, 1].
    pub low_res: Option<ArtifactRef>,
    /// A picture of the user's, a PNG: where the settings have a strength, what the stage starts from; elsewhere its
    /// low-resolution picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ArtifactRef>,
    /// What of that picture is painted anew: a PNG, white where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<ArtifactRef>,
    /// How that picture and its mask become ones of the stage's shape. Absent: they have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fitting>,
    /// Prefix of the output's key, `tasks/{task digest}/`.
    pub prefix: String,
    /// In the last stage: text metadata of the PNG, in order. Absent in the others, which store a tensor.
    pub picture: Option<Vec<(String, String)>>,
}

/// What a picture of another shape becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fitting {
    /// How.
    pub fit: Fit,
    /// Width and height that the stage wants.
    pub extent: Extent,
}

/// An entry's id in its line; meaningful to the queue only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId(pub String);

/// A task on lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// To renew and complete it by.
    pub id: EntryId,
    /// Who holds it.
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
        /// The output: embedding, tensor or PNG.
        artifact: ArtifactRef,
        /// Things to tell the user: truncated tokens, unknown words.
        notes: Vec<String>,
    },
    /// The task itself fails; counts against the image.
    Failed {
        /// Stable code, e.g. `non_finite`, `out_of_memory`, `panic`.
        code: String,
        /// One sentence.
        message: String,
    },
    /// An input is gone from storage or has the wrong hash: its producer must run again. Counts against nobody.
    InputMissing {
        /// Key of the missing artifact.
        key: String,
    },
    /// Drained, or storage stayed unreachable: the task is as it was. Counts against nobody.
    Interrupted {
        /// Why, for the log.
        reason: String,
    },
}

/// A result as a worker reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Which handing-out of what.
    pub key: TaskKey,
    /// Who ran it.
    pub worker: WorkerId,
    /// Where it ran, host and device ([`WorkerCard::place`]), for telling a poison image from a bad worker.
    pub host: String,
    /// Class of device: same class, same bytes.
    pub device_class: String,
    /// Whether it ran alone in its batch.
    pub alone: bool,
    /// Share of the batch's model time, seconds.
    pub seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What became of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The result is queued.
    Recorded,
    /// The lease was not the worker's any more; the result is dropped.
    LeaseLost,
}

/// A result in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultEntry {
    /// To acknowledge it by.
    pub id: EntryId,
    /// The result.
    pub result: TaskResult,
}

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// In line.
    Waiting,
    /// Leased by this worker.
    Leased(WorkerId),
    /// Completed; the result waits for its commit.
    Result,
}

/// One entry of a pool, for the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySummary {
    /// Which handing-out of what.
    pub key: TaskKey,
    /// Where it stands.
    pub state: EntryState,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCard {
    /// Who.
    pub id: WorkerId,
    /// Host name.
    pub host: String,
    /// Device, for people: `cpu (2 threads)`, `cuda:0 NVIDIA H100`.
    pub device: String,
    /// Class of device: same class, same bytes.
    pub device_class: String,
    /// Pools it serves.
    pub pools: BTreeMap<String, ServedPool>,
    /// Tasks on lease now.
    pub leased: u64,
    /// Tasks completed since it started.
    pub done: u64,
    /// Share of time its model thread was busy since start-up, 0 to 1.
    pub busy: f64,
    /// `starting`, `working`, `draining`, `set aside`.
    pub state: String,
    /// What keeps it from working now, in one sentence: storage whose faults it retries. Empty: nothing does.
    #[serde(default)]
    pub trouble: String,
    /// Seconds since the sign of life before this reading; filled in by the queue when read.
    pub seen_seconds_ago: f64,
}

/// One pool as a worker serves it; the key in [`WorkerCard::pools`] is the pool's text form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedPool {
    /// The pool.
    pub pool: PoolId,
    /// Largest batch.
    pub batch_cap: u32,
    /// Measured model seconds per image in a full batch; 0 when unknown.
    pub seconds_per_image: f64,
    /// The same per network pass of an image, whatever the settings that were measured; 0 when unknown.
    #[serde(default)]
    pub seconds_per_pass: f64,
}

/// What is wished of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// To drain, as after SIGTERM.
    pub drain: bool,
    /// It gets nothing for a time.
    pub aside: bool,
}

/// Host and device as one name, `gpu-7/cuda:1`: what fails on three of these fails everywhere.
#[must_use]
pub fn place(host: &str, device: &str) -> String {
    let device = device.split_whitespace().next().unwrap_or("cpu");
    format!("{host}/{device}")
}

impl WorkerCard {
    /// Its state while it drains.
    pub const DRAINING: &'static str = "draining";
    /// Its state while it gets nothing.
    pub const ASIDE: &'static str = "set aside";

    /// Host and device as one name.
    #[must_use]
    pub fn place(&self) -> String {
        place(&self.host, &self.device)
    }

    /// Whether it takes tasks.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        self.state != Self::DRAINING && self.state != Self::ASIDE
    }

    /// The card as it is listed under these orders.
    #[must_use]
    pub fn under(mut self, orders: Orders) -> Self {
        if orders.drain {
            Self::DRAINING.clone_into(&mut self.state);
        } else if orders.aside && self.state != Self::DRAINING {
            Self::ASIDE.clone_into(&mut self.state);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_devices_of_one_host_are_two_places() {
        assert_eq!(place("h", "cuda:0 NVIDIA H100"), "h/cuda:0");
        assert_eq!(place("h", "cpu (2 threads)"), "h/cpu");
        assert_eq!(place("h", ""), "h/cpu");
    }
}
