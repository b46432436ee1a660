//! The models of the stages that a worker serves: as many of them in memory as its budget allows.
//!
//! How much a model's weights take is known from its files' headers before the weights are read. If
//! all models fit, they are loaded at the start and stay. If not, a batch for a model that is not
//! loaded makes room for it by dropping the least recently used one. A model that does not fit by
//! itself is refused at the start. What a pass takes beside the weights is not part of the budget
//! but left free beside it. If that is too little, idle models are dropped before a batch is
//! halved.

use std::path::PathBuf;

use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::{
    LoadError, LoadOptions, RenderError, StageModel, images_per_pass, weights_memory,
};
use darkroom_queue::task::PoolId;

use crate::{loading::load_failed, served::Served};

/// The loaded models, within a budget of memory.
pub struct ModelCache {
    options: LoadOptions,
    /// Bytes that the weights of all loaded models may take; absent: no limit.
    budget: Option<u64>,
    /// In order of use; the last one was used most recently.
    entries: Vec<Entry>,
}

struct Entry {
    pool: PoolId,
    folder: PathBuf,
    /// Bytes of its weights; 0 if there is no budget, because it is then unknown.
    bytes: u64,
    /// Whether it runs on a GPU and all pictures have the stage's own size.
    images_per_pass: Option<usize>,
    model: Option<StageModel>,
}

impl ModelCache {
    /// If there is a budget, checks every stage's files. Loads no model.
    ///
    /// # Errors
    /// The wrong file, or the stage whose weights alone exceed the budget.
    pub fn survey(
        served: &[Served],
        options: LoadOptions,
        budget: Option<u64>,
    ) -> Result<Self, UserError> {
        let mut entries = Vec::with_capacity(served.len());
        for stage in served {
            let (pool, folder) = (stage.pool.clone(), stage.folder.clone());
            let pixels = (stage.size as usize).pow(2);
            let images_per_pass =
                images_per_pass(&folder, &options, pixels).map_err(|error| load_failed(&error))?;
            let Some(budget) = budget else {
                // All of them are loaded, and so checked, at the start. Reading the headers before
                // that would only delay the first picture.
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

    /// Loads models in the given order, as long as they fit together.
    ///
    /// # Errors
    /// The wrong file.
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
                "not all models fit into memory, so they are loaded in turns"
            );
        }
        // The first model is the most preferred one, so it becomes the most recently used.
        for pool in loads.iter().rev() {
            self.get(pool)?;
        }
        Ok(())
    }

    /// Any model that is in memory.
    #[must_use]
    pub fn any(&self) -> Option<&StageModel> {
        self.entries.iter().rev().find_map(|entry| entry.model.as_ref())
    }

    /// How many pictures of a pool share a pass, so that fewer take as long; none if each picture
    /// takes its own time.
    #[must_use]
    pub fn images_per_pass(&self, pool: &PoolId) -> Option<usize> {
        self.entries.iter().find(|entry| &entry.pool == pool)?.images_per_pass
    }

    /// The pools whose models are in memory, the least recently used first.
    #[must_use]
    pub fn loaded(&self) -> Vec<&PoolId> {
        self.entries.iter().filter(|entry| entry.model.is_some()).map(|entry| &entry.pool).collect()
    }

    /// Runs something on a pool's model. If that runs out of memory while idle models are loaded,
    /// they are dropped and it runs once more.
    ///
    /// # Errors
    /// The error of `run`, or why the model could not be loaded.
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

    /// A pool's model; loads it if necessary.
    fn get(&mut self, pool: &PoolId) -> Result<&StageModel, LoadError> {
        let place = self.entries.iter().position(|entry| &entry.pool == pool);
        let place =
            place.ok_or_else(|| LoadError::Torch(format!("this worker does not serve {pool}")))?;
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
            .ok_or_else(|| LoadError::Torch("a loaded model has disappeared".to_owned()))
    }

    fn load(&self, place: usize) -> Result<StageModel, LoadError> {
        let Entry { pool, folder, .. } = &self.entries[place];
        StageModel::load(folder, pool.stage.as_str(), &self.options)
    }

    /// Drops the least recently used models until there is room for `bytes` more.
    fn make_room(&mut self, bytes: u64) {
        let Some(budget) = self.budget else { return };
        let mut taken: u64 = self
            .entries
            .iter()
            .filter(|entry| entry.model.is_some())
            .map(|entry| entry.bytes)
            .sum();
        for entry in &mut self.entries {
            if taken + bytes <= budget {
                return;
            }
            if entry.unload() {
                taken -= entry.bytes;
            }
        }
    }

    /// Drops all models except one. Returns whether there were any.
    fn drop_all_but(&mut self, kept: Option<&PoolId>) -> bool {
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| kept != Some(&entry.pool)) {
            any |= entry.unload();
        }
        any
    }
}

impl Entry {
    /// Frees the model; returns whether it was in memory.
    fn unload(&mut self) -> bool {
        let Some(model) = self.model.take() else { return false };
        model.unload();
        tracing::info!(stage = %self.pool.stage, "a model was dropped to make room");
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
