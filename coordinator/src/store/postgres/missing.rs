//! Produces inputs again that a worker did not find.

use super::{
    Error, Tx,
    both::missing::{self, forget_outputs},
    progress::LockedJobs,
    texts,
};
use crate::store::{cause::Cause, missing::Missing};

/// Jobs, each with a text that it needs.
pub(super) type Needed = Vec<(i64, i64)>;

/// Finds the missing inputs that causes report (usually none), locks the texts among them, and
/// finds the jobs that need those. It must run before any job is locked.
pub(super) async fn find(tx: &mut Tx, causes: &[Cause<'_>]) -> Result<(Missing, Needed), Error> {
    let missing = missing::find(tx, causes).await?;
    let texts = missing.texts();
    if texts.is_empty() {
        return Ok((missing, Needed::new()));
    }
    sqlx::query("SELECT FROM embeddings WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(&texts)
        .execute(&mut **tx)
        .await?;
    let needed = texts::jobs_of(tx, &texts).await?;
    Ok((missing, needed))
}

/// Deletes outputs and marks texts as wanted, so that the missing inputs are produced again. The
/// jobs that need the texts are locked.
pub(super) async fn forget(
    tx: &mut Tx,
    (missing, needed): (&Missing, &Needed),
    jobs: &mut LockedJobs,
) -> Result<(), Error> {
    forget_outputs(tx, missing.stale()).await?;
    let lost = missing.lost();
    if lost.is_empty() {
        return Ok(());
    }
    let wanted = texts::lose(tx, &lost).await?;
    for (job, text) in needed.iter().filter(|(_, text)| wanted.contains(text)) {
        if let Some(job) = jobs.get_mut(*job) {
            job.encode(-1);
            job.want(*text);
        }
    }
    // Texts that were given up after they had been lost are spread again.
    texts::spread_dead_again(tx, &lost).await
}
