//! The models of the stages that a worker serves: as many in memory as its budget allows.
//!
//! What a model's weights take is known from its files' headers before they are read. Where they all fit, they are loaded at
//! the start and stay. Where not, a batch for a model that is not there makes room for it: the least recently used goes. One
//! that does not fit by itself is refused at the start. What a pass takes beside the weights is not in the budget but left
//! free beside it; if that was too little, idle models go before a batch is halved.

use std::path::PathBuf;

use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::{LoadError, LoadOptions, RenderError, StageModel, images_per_pass, weights_memory};
use darkroom_queue::task::PoolId;

use crate::{service::Served, torch_renderer::load_failed};

/// See the module.
pub struct ModelCache {
    options: LoadOptions,
    /// Bytes that the weights of all models in memory may take; absent: no limit.
    budget: Option<u64>,
    /// The most recently used is the last.
    entries: Vec<Entry>,
}

struct Entry {
    pool: PoolId,
    folder: PathBuf,
    /// What its weights take; unknown, and 0, where there is no budget.
    bytes: u64,
    /// On a GPU, where all pictures have the stage's own size.
    images_per_pass: Option<usize>,
    model: Option<StageModel>,
}

impl ModelCache {
    /// Where there is a budget, checks every stage's files; loads none.
    ///
    /// # Errors
    /// The file at fault, or the stage whose weights alone are beyond the budget.
    pub fn survey(served: &[Served], options: LoadOptions, budget: Option<u64>) -> Result<Self, UserError> {
        let mut entries = Vec::with_capacity(served.len());
        for stage in served {
            let (pool, folder) = (stage.pool.clone(), stage.folder.clone());
            let pixels = (stage.size as usize).pow(2);
            let images_per_pass =
                images_per_pass(&folder, &options, pixels).map_err(|error| load_failed(&error))?;
            let Some(budget) = budget else {
                // All are loaded, and so checked, at the start; reading headers before would only delay the first picture.
                entries.push(Entry { pool, folder, bytes: 0, images_per_pass, model: None });
                continue;
            };
            let bytes = weights_memory(&folder, &options).map_err(|error| load_failed(&error))?;
            if bytes > budget {
                let message = format!(
                    "stage {} needs {} for its weights, and models may take {}; accepted: --model-memory-mib of at least \
                     {}, a device with more memory, or --stage without it",
                    stage.pool.stage,
                    mebibytes(bytes),
                    mebibytes(budget),
                    bytes.div_ceil(1 << 20),
                );
                return Err(UserError::new(Code::FailedPrecondition, "MODEL_TOO_LARGE", message));
            }
            entries.push(Entry { pool, folder, bytes, images_per_pass, model: None });
        }
        Ok(Self { options, budget, entries })
    }

    /// Loads models in the order they were given, as long as they fit beside each other.
    ///
    /// # Errors
    /// The file at fault.
    pub fn fill(&mut self) -> Result<(), LoadError> {
        let mut taken = 0;
        let mut loads = Vec::new();
        for entry in &self.entries {
            if self.budget.is_none_or(|budget| taken + entry.bytes <= budget) {
                taken += entry.bytes;
                loads.push(entry.pool.clone());
            }
        }
        let left = self.entries.len() - loads.len();
        if left > 0 {
            tracing::info!(
                models.loaded = loads.len(),
                models.left = left,
                "not all models fit, they take turns"
            );
        }
        // The first is the most preferred, so it becomes the most recently used.
        for pool in loads.iter().rev() {
            self.get(pool)?;
        }
        Ok(())
    }

    /// Some model that is in memory.
    #[must_use]
    pub fn any(&self) -> Option<&StageModel> {
        self.entries.iter().rev().find_map(|entry| entry.model.as_ref())
    }

    /// How many pictures of a pool share a pass, and fewer take as long; none where each takes its own time.
    #[must_use]
    pub fn images_per_pass(&self, pool: &PoolId) -> Option<usize> {
        self.entries.iter().find(|entry| &entry.pool == pool)?.images_per_pass
    }

    /// The pools whose models are in memory, the least recently used first.
    #[must_use]
    pub fn loaded(&self) -> Vec<&PoolId> {
        self.entries.iter().filter(|entry| entry.model.is_some()).map(|entry| &entry.pool).collect()
    }

    /// Runs something on a pool's model. If that runs out of memory while idle models take some, they go, and it runs
    /// once more.
    ///
    /// # Errors
    /// What `run` says, or why there is no such model.
    pub fn run<T>(
        &mut self,
        pool: &PoolId,
        mut run: impl FnMut(&StageModel) -> Result<T, RenderError>,
    ) -> Result<T, RenderError> {
        let result = self.get(pool).map_err(not_loaded).and_then(&mut run);
        match result {
            Err(RenderError::OutOfMemory(_)) if self.drop_all_but(Some(pool)) => {
                self.get(pool).map_err(not_loaded).and_then(run)
            }
            result => result,
        }
    }

    /// A pool's model, loaded if it is not there.
    fn get(&mut self, pool: &PoolId) -> Result<&StageModel, LoadError> {
        let place = self.entries.iter().position(|entry| &entry.pool == pool);
        let place = place.ok_or_else(|| LoadError::Torch(format!("this worker does not serve {pool}")))?;
        let entry = self.entries.remove(place);
        self.entries.push(entry);
        let last = self.entries.len() - 1;
        if self.entries[last].model.is_none() {
            self.make_room(self.entries[last].bytes);
            let model = match self.load(last) {
                Err(LoadError::OutOfMemory { .. }) if self.drop_all_but(None) => self.load(last)?,
                result => result?,
            };
            self.entries[last].model = Some(model);
        }
        self.entries[last]
            .model
            .as_ref()
            .ok_or_else(|| LoadError::Torch("a model that was loaded is gone".to_owned()))
    }

    fn load(&self, place: usize) -> Result<StageModel, LoadError> {
        let Entry { pool, folder, .. } = &self.entries[place];
        StageModel::load(folder, pool.stage.as_str(), &self.options)
    }

    /// Drops the least recently used models until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) {
        let Some(budget) = self.budget else { return };
        let mut taken: u64 =
            self.entries.iter().filter(|entry| entry.model.is_some()).map(|entry| entry.bytes).sum();
        for entry in &mut self.entries {
            if taken + bytes <= budget {
                return;
            }
            if entry.unload() {
                taken -= entry.bytes;
            }
        }
    }

    /// Drops all models but one. Whether there were any.
    fn drop_all_but(&mut self, kept: Option<&PoolId>) -> bool {
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| kept != Some(&entry.pool)) {
            any |= entry.unload();
        }
        any
    }
}

impl Entry {
    /// Frees the model; whether it was in memory.
    fn unload(&mut self) -> bool {
        let Some(model) = self.model.take() else { return false };
        model.unload();
        tracing::info!(stage = %self.pool.stage, "model dropped to make room");
        true
    }
}

fn not_loaded(error: LoadError) -> RenderError {
    match error {
        LoadError::OutOfMemory { .. } => RenderError::OutOfMemory(error.to_string()),
        error => RenderError::Torch(load_failed(&error).message),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;
