//! What a submit that is given up needed: nobody may need it now.

use super::{
    Error, Tx,
    clock::{now, now_ms},
    unused_inputs::note_unused,
};

/// Notes what a job that is still received needs, because it is about to be removed in this
/// transaction. Others may need the same: that is looked up before anything is removed.
pub(in super::super) async fn note_abandoned(tx: &mut Tx, job: i64) -> Result<(), Error> {
    sqlx::query(concat!(
        "INSERT INTO unused_texts (embedding, since_ms)
         SELECT t.embedding, ",
        now_ms!(),
        " FROM job_texts AS t WHERE t.job = $1 ORDER BY t.embedding
         ON CONFLICT (embedding) DO UPDATE SET since_ms = excluded.since_ms",
    ))
    .bind(job)
    .execute(&mut **tx)
    .await?;
    let now = now(tx).await?;
    // From the first key below the prefix to the last.
    note_unused(tx, (job, "inputs/", "inputs0"), now).await
}
