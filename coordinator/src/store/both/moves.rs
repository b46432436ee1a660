//! The last step of every transaction that moved images.

use darkroom_core::id::JobId;

use super::{
    super::{moves::finish, progress::LockedJobs},
    Error, Tx,
};

/// Ends the jobs whose images are all terminal, and saves what has changed of the others. Returns
/// the jobs that changed, and those that ended.
pub(in super::super) async fn save_and_finish(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
) -> Result<(Vec<JobId>, Vec<JobId>), Error> {
    let finished = finish(tx, jobs, &jobs.may_end()).await?;
    jobs.save(tx).await?;
    Ok((jobs.raised(), finished))
}
