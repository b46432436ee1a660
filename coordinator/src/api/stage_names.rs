//! The names of jobs' stages, remembered: they never change, and every page of images needs them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_core::id::{JobId, StageName};

use crate::{
    service::Error,
    store::{Store, records::JobRecord},
};

/// Jobs remembered at most; then all are forgotten.
const MOST: usize = 4096;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct StageNames(Mutex<HashMap<JobId, Arc<[StageName]>>>);

impl StageNames {
    /// Of a job, from the record if they are not known.
    pub(super) async fn of(&self, store: &dyn Store, job: JobId) -> Result<Arc<[StageName]>, Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let names: Arc<[StageName]> = names(&store.job(job).await?).into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(job, Arc::clone(&names));
        Ok(names)
    }
}

/// The stages that a job's images pass.
pub(super) fn names(job: &JobRecord) -> Vec<StageName> {
    job.settings.stages.iter().map(|stage| stage.stage.clone()).collect()
}
