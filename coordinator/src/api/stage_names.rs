//! A cache of the names of jobs' stages, which never change and which every page of images needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_core::id::{JobId, StageName};

use crate::{
    error::Error,
    store::{records::JobRecord, roles::Queries},
};

/// Most jobs that are remembered; then all are forgotten.
const MOST: usize = 4096;

/// The remembered names.
#[derive(Debug, Default)]
pub(super) struct StageNames(Mutex<HashMap<JobId, Arc<[StageName]>>>);

impl StageNames {
    /// The names of a job, from the record if they are not known.
    pub(super) async fn of(
        &self,
        store: &dyn Queries,
        job: JobId,
    ) -> Result<Arc<[StageName]>, Error> {
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

/// The stages that any of a job's images pass.
pub(super) fn names(job: &JobRecord) -> Vec<StageName> {
    job.stage_names().cloned().collect()
}
