//! What a stage does around its model.

use async_trait::async_trait;

use crate::task::{Outcome, PoolId, Task};

/// What a worker does around its model: it reads inputs and writes outputs. Called from many tasks
/// at once.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// A task's inputs in memory.
    type Input: Send + Sync + 'static;
    /// The model's output for one task.
    type Output: Send + 'static;
    /// The output as a file.
    type File: Send + Sync + 'static;

    /// Reads a task's inputs, or finds that there is nothing to run.
    async fn load(&self, pool: &PoolId, task: &Task) -> Result<Loaded<Self::Input>, Fault>;

    /// Turns an output into a file. Runs on a thread that may block.
    fn encode(
        &self,
        task: &Task,
        output: Self::Output,
        device_class: &str,
    ) -> Result<Self::File, Outcome>;

    /// Whether [`encode`](Self::encode) is so fast that it needs no thread.
    fn encodes_at_once(&self) -> bool {
        false
    }

    /// Stores the file. Called again after a storage fault.
    async fn store(&self, task: &Task, file: &Self::File) -> Result<Outcome, Fault>;
}

/// The result of loading.
#[derive(Debug)]
pub enum Loaded<I> {
    /// The inputs, ready to run.
    Ready(I),
    /// The task need not run: the output of an earlier run is stored and intact.
    Already {
        /// How that run ended.
        outcome: Outcome,
        /// Class of the device of that run, if known.
        device_class: Option<String>,
    },
}

/// Why a task could not be loaded or stored.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Storage failed; a retry may help.
    Storage(String),
    /// The task ends with this outcome.
    Ends(Outcome),
}
