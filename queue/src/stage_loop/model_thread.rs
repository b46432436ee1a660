//! The one thread that owns the model.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use darkroom_core::{error::UserError, failure_code::FailureCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    BatchFault, Model, Row,
    held::Held,
    shared::{Labels, RunFacts, Shared, internal},
};
use crate::task::{Outcome, PoolId};

/// A task with its inputs.
pub(super) struct Item<I> {
    pub(super) held: Held,
    pub(super) input: I,
}

/// A batch to run.
pub(super) struct Job<I, O> {
    pub(super) pool: PoolId,
    pub(super) items: Vec<Item<I>>,
    /// Released when the model is free for the next batch.
    pub(super) model_free: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Vec<Ran<O>>>,
}

/// A task after the run, or without one.
pub(super) struct Ran<O> {
    pub(super) held: Held,
    pub(super) end: End<O>,
    pub(super) facts: RunFacts,
}

/// How a run ended for one task.
pub(super) enum End<O> {
    Output(O),
    Outcome(Outcome),
    /// Stopped before its end, or not started.
    Interrupted,
}

/// The thread, seen from outside.
pub(super) struct ModelThread<I, O> {
    pub(super) jobs: mpsc::Sender<Job<I, O>>,
    /// Resolves when the thread has ended.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts the thread. It makes the model, reports that through `made`, and runs jobs until their
/// sender is dropped.
pub(super) fn spawn<M: Model>(
    shared: Arc<Shared>,
    make_model: impl FnOnce() -> Result<M, UserError> + Send + 'static,
    made: oneshot::Sender<Result<(), UserError>>,
) -> Result<ModelThread<M::Input, M::Output>, UserError>
where
    M::Input: Send,
    M::Output: Send,
{
    let (jobs, mut received) = mpsc::channel::<Job<M::Input, M::Output>>(1);
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        // Dropped last, also after a panic: the supervisor waits for it.
        let _end = end;
        // Needed for tokio's clock.
        let _runtime = runtime.enter();
        let mut model = match make_model() {
            Ok(model) => model,
            Err(error) => {
                let _ = made.send(Err(error));
                return;
            }
        };
        shared.set_labels(Labels { device: model.device(), device_class: model.device_class() });
        for serve in &shared.options.pools {
            model
                .batch_cap(&serve.pool)
                .into_iter()
                .for_each(|cap| shared.set_cap(&serve.pool, cap));
        }
        shared.set_memory(model.memory());
        let _ = made.send(Ok(()));
        while let Some(job) = received.blocking_recv() {
            shared.meter.batch_starts(&job.pool, job.items.len());
            let ran = Batch { shared: &shared, model: &mut model, pool: &job.pool }.run(job.items);
            shared.meter.batch_ends();
            model.batch_cap(&job.pool).into_iter().for_each(|cap| shared.set_cap(&job.pool, cap));
            shared.set_memory(model.memory());
            drop(job.model_free);
            // A reply that nobody waits for drops its leases, so they expire.
            let _ = job.reply.send(ran);
        }
    };
    std::thread::Builder::new()
        .name("model".to_owned())
        .spawn(run)
        .map_err(|error| internal(&format!("the model's thread could not be started: {error}")))?;
    Ok(ModelThread { jobs, ended })
}

struct Batch<'a, M> {
    shared: &'a Shared,
    model: &'a mut M,
    pool: &'a PoolId,
}

impl<M: Model> Batch<'_, M> {
    /// Runs a batch, in parts if necessary: halves after running out of memory, single rows after
    /// the whole batch failed.
    fn run(mut self, items: Vec<Item<M::Input>>) -> Vec<Ran<M::Output>> {
        let mut ran = Vec::with_capacity(items.len());
        let mut parts = VecDeque::from([items]);
        while let Some(mut part) = parts.pop_front() {
            part.retain(|item| !item.held.is_lost());
            if part.is_empty() {
                continue;
            }
            if self.shared.stop.is_cancelled() {
                ran.extend(
                    part.into_iter()
                        .map(|item| finished(item.held, End::Interrupted, RunFacts::default())),
                );
                continue;
            }
            let start = Instant::now();
            let result = self.run_part(&part);
            let rows = part.len();
            let seconds = start.elapsed().as_secs_f64() / rows as f64;
            let passes =
                part.iter().map(|item| item.held.task().body.passes()).sum::<f64>() / rows as f64;
            let facts = RunFacts {
                seconds,
                alone: rows == 1,
                batch: u32::try_from(rows).unwrap_or(u32::MAX),
                device_class: None,
            };
            match result {
                Ok(outputs) => {
                    self.shared.meter.rows_took(self.pool, seconds, passes, rows);
                    ran.extend(part.into_iter().zip(outputs).map(|(item, output)| {
                        finished(
                            item.held,
                            output.map_or_else(End::Outcome, End::Output),
                            facts.clone(),
                        )
                    }));
                }
                Err(BatchFault::Interrupted) => {
                    ran.extend(
                        part.into_iter()
                            .map(|item| finished(item.held, End::Interrupted, facts.clone())),
                    );
                }
                Err(BatchFault::OutOfMemory { least }) if rows > least.max(1) => {
                    let rest = part.split_off(rows.div_ceil(2));
                    self.shared.limit_cap(self.pool, part.len());
                    parts.push_front(rest);
                    parts.push_front(part);
                }
                Err(BatchFault::Failed { .. }) if rows > 1 => {
                    part.into_iter().rev().for_each(|item| parts.push_front(vec![item]));
                }
                Err(fault) => {
                    ran.extend(
                        part.into_iter()
                            .map(|item| finished(item.held, failed(&fault), facts.clone())),
                    );
                }
            }
        }
        ran
    }

    fn run_part(
        &mut self,
        part: &[Item<M::Input>],
    ) -> Result<Vec<Result<M::Output, Outcome>>, BatchFault> {
        let rows: Vec<_> =
            part.iter().map(|item| Row { task: item.held.task(), input: &item.input }).collect();
        let mut on_step = || {
            self.shared.meter.step_done();
            let useless =
                self.shared.stop.is_cancelled() || part.iter().all(|item| item.held.is_lost());
            if useless { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result =
            catch_unwind(AssertUnwindSafe(|| self.model.run(self.pool, &rows, &mut on_step)));
        let result = result.unwrap_or_else(|panic| {
            self.model.recover();
            Err(BatchFault::Failed {
                code: FailureCode::Panic,
                message: panic_message(panic.as_ref()),
            })
        });
        result.and_then(|outputs| {
            if outputs.len() == rows.len() {
                return Ok(outputs);
            }
            let message =
                format!("the model returned {} results for {} rows", outputs.len(), rows.len());
            Err(BatchFault::Failed { code: FailureCode::Internal, message })
        })
    }
}

fn finished<O>(held: Held, end: End<O>, facts: RunFacts) -> Ran<O> {
    Ran { held, end, facts }
}

fn failed<O>(fault: &BatchFault) -> End<O> {
    let (code, message) = match fault {
        BatchFault::Failed { code, message } => (code.clone(), message.clone()),
        BatchFault::OutOfMemory { least: 0 | 1 } => {
            (FailureCode::OutOfMemory, "out of memory with a single image".to_owned())
        }
        BatchFault::OutOfMemory { least } => {
            let message =
                format!("out of memory with {least} images, and fewer images take as much memory");
            (FailureCode::OutOfMemory, message)
        }
        BatchFault::Interrupted => return End::Interrupted,
    };
    End::Outcome(Outcome::Failed { code, message })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    format!("the model panicked: {}", text.lines().next().unwrap_or_default())
}
