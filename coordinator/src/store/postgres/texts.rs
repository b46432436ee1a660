//! Embeddings: results of stage `encode`, texts that are lost or wanted again, and telling the jobs
//! that need them.
//!
//! A text's row is locked before the jobs that need it. The same transaction counts the encoded
//! texts of every job, so the counters always match the rows.

use std::collections::{BTreeMap, HashMap};

use darkroom_core::{artifact::ArtifactRef, text_state::TextState};
use darkroom_queue::task::PoolId;

use super::{
    Error, PostgresStore, Tx,
    both::{following_images::Chunk, moves::save_and_finish},
    notes,
    progress::LockedJobs,
    rows::{column, column32, parse, text_column, to_json},
    spread,
};
use crate::store::{
    cause::{Bulk, Settled},
    judged_texts::JudgedText,
};

/// Writes changed texts, and tells the jobs that need them.
pub(super) async fn tell(
    store: &PostgresStore,
    tx: &mut Tx,
    Bulk { pool, onward, .. }: Bulk<'_>,
    changed: &[JudgedText<'_>],
) -> Result<Settled, Error> {
    write(tx, pool, changed).await?;
    let ids: Vec<i64> = changed.iter().map(|text| text.id).collect();
    let states: HashMap<i64, TextState> =
        changed.iter().map(|text| (text.id, text.to.state)).collect();
    let needed = jobs_of(tx, &ids).await?;
    let mut jobs = LockedJobs::lock(tx, needed.iter().map(|(job, _)| *job)).await?;
    for (job, embedding) in &needed {
        let Some(job) = jobs.get_mut(*job) else { continue };
        match states.get(embedding) {
            Some(TextState::Done) => job.encode(1),
            Some(TextState::Dead) => job.raise(),
            Some(TextState::Wanted | TextState::Dispatched) => job.want(*embedding),
            None => {}
        }
    }
    let ended = changed.iter().filter(|text| text.to.state.settled());
    let ended: Vec<i64> = ended.map(|text| text.id).collect();
    let (more, dispatched) = spread::tell(tx, &store.plans, &mut jobs, &ended, onward).await?;
    let (jobs, finished) = save_and_finish(tx, &mut jobs).await?;
    let noted =
        changed.iter().filter(|text| text.encoded().is_some_and(|(_, notes)| !notes.is_empty()));
    let noted: Vec<i64> = noted.map(|text| text.id).collect();
    let seqs: Vec<i64> = needed.iter().map(|(job, _)| *job).collect();
    notes::note_encoded(tx, &seqs, &noted).await?;
    Ok(Settled { jobs, finished, more, dispatched, ..Settled::default() })
}

/// Writes locked texts, in order of id. None of them is dispatched any more.
async fn write(tx: &mut Tx, pool: &PoolId, changed: &[JudgedText<'_>]) -> Result<(), Error> {
    let (mut done, mut rest) = (Vec::with_capacity(changed.len()), Vec::new());
    for text in changed {
        match text.encoded() {
            Some((artifact, [])) => done.push((text, artifact)),
            _ => rest.push(text),
        }
    }
    write_done(tx, pool, &done).await?;
    write_rest(tx, pool, &rest).await
}

/// Writes texts that were encoded without notes, which are nearly all.
async fn write_done(
    tx: &mut Tx,
    pool: &PoolId,
    done: &[(&JudgedText<'_>, &ArtifactRef)],
) -> Result<(), Error> {
    if done.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH returned AS (
             DELETE FROM dispatched_texts WHERE encoder = $1 AND embedding = ANY ($2::bigint[]))
         UPDATE embeddings AS e
         SET state = 'done', dispatch = n.dispatch, suspect = FALSE, key = n.key, sha256 = n.sha256, size = n.size
         FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[])
             AS n (id, dispatch, key, sha256, size)
         WHERE e.id = n.id AND e.state = 'wanted'",
    )
    .bind(pool.digest.0)
    .bind(done.iter().map(|(text, _)| text.id).collect::<Vec<_>>())
    .bind(done.iter().map(|(text, _)| column(text.to.dispatch)).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| artifact.key.as_str()).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| artifact.sha256.0).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| column(artifact.size)).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_rest(tx: &mut Tx, pool: &PoolId, changed: &[&JudgedText<'_>]) -> Result<(), Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let (mut keys, mut hashes, mut sizes, mut notes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut codes, mut messages, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for text in changed {
        let artifact = text.encoded();
        keys.push(artifact.map(|(artifact, _)| artifact.key.clone()));
        hashes.push(artifact.map(|(artifact, _)| artifact.sha256.0));
        sizes.push(artifact.map(|(artifact, _)| column(artifact.size)));
        let said = artifact
            .map(|(_, notes)| notes.iter().map(|note| text_column(note)).collect::<Vec<_>>());
        notes.push(said.map(|notes| to_json(&notes)).transpose()?);
        let failure =
            text.failure().map(|(code, message)| (text_column(code), text_column(message)));
        let (code, message) = failure.unzip();
        codes.push(code);
        messages.push(message);
        let of: Vec<_> = text.to.places.iter().map(|place| text_column(place)).collect();
        places.push(to_json(&of)?);
    }
    sqlx::query(
        "WITH returned AS (
             DELETE FROM dispatched_texts WHERE encoder = $1 AND embedding = ANY ($2::bigint[]))
         UPDATE embeddings AS e
         SET state = n.state, dispatch = n.dispatch, failures = n.failures, suspect = n.suspect,
             hosts = ARRAY (SELECT jsonb_array_elements_text(n.places::jsonb)),
             error_code = coalesce(n.error_code, e.error_code), error = coalesce(n.error, e.error),
             key = coalesce(n.key, e.key), sha256 = coalesce(n.sha256, e.sha256),
             size = coalesce(n.size, e.size),
             notes = CASE WHEN n.notes IS NULL THEN e.notes
                          ELSE ARRAY (SELECT jsonb_array_elements_text(n.notes::jsonb)) END
         FROM unnest($2::bigint[], $3::text[], $4::int[], $5::boolean[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::bytea[], $11::bigint[], $12::text[], $13::bigint[])
             AS n (id, state, failures, suspect, places, error_code, error, key, sha256, size, notes, dispatch)
         WHERE e.id = n.id AND e.state = 'wanted'",
    )
    .bind(pool.digest.0)
    .bind(changed.iter().map(|text| text.id).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| text.to.state.name()).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| column32(text.to.failures)).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| text.to.suspect).collect::<Vec<_>>())
    .bind(places)
    .bind(codes)
    .bind(messages)
    .bind(keys)
    .bind(hashes)
    .bind(sizes)
    .bind(notes)
    .bind(changed.iter().map(|text| column(text.to.dispatch)).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The jobs that need these texts, as pairs of job and text.
pub(super) async fn jobs_of(tx: &mut Tx, embeddings: &[i64]) -> Result<Vec<(i64, i64)>, Error> {
    if embeddings.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(
        "SELECT t.job, t.embedding FROM unnest($1::bigint[]) AS wanted (id)
         CROSS JOIN LATERAL (SELECT * FROM job_texts AS t WHERE t.embedding = wanted.id OFFSET 0) AS t",
    )
    .bind(embeddings)
    .fetch_all(&mut **tx)
    .await?)
}

/// Lowers the marks of the jobs, so that they find these texts again.
pub(super) fn want_in_jobs(jobs: &mut LockedJobs, needed: &[(i64, i64)]) {
    for (job, embedding) in needed {
        if let Some(job) = jobs.get_mut(*job) {
            job.want(*embedding);
        }
    }
}

/// Texts that were given up are wanted again. Returns those; their jobs have yet to look for them.
pub(super) async fn revive(tx: &mut Tx, dead: &[i64]) -> Result<Vec<i64>, Error> {
    if dead.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar(
        "UPDATE embeddings SET state = 'wanted', failures = 0, hosts = '{}', suspect = FALSE
         WHERE id = ANY ($1) AND state = 'dead'
         RETURNING id",
    )
    .bind(dead)
    .fetch_all(&mut **tx)
    .await?)
}

/// Marks locked texts as wanted whose stored embeddings are lost. Returns those that were stored.
pub(super) async fn lose(tx: &mut Tx, embeddings: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "UPDATE embeddings SET state = 'wanted' WHERE id = ANY ($1) AND state = 'done' RETURNING id",
    )
    .bind(embeddings)
    .fetch_all(&mut **tx)
    .await?)
}

/// The texts among these that are not encoded. They cannot be encoded until the transaction ends;
/// the transaction that encodes them then sees what this one wrote.
pub(super) async fn lock_unencoded(
    tx: &mut Tx,
    embeddings: &[i64],
) -> Result<BTreeMap<i64, TextState>, Error> {
    if embeddings.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT id, state FROM embeddings WHERE id = ANY ($1) ORDER BY id FOR SHARE",
    )
    .bind(embeddings)
    .fetch_all(&mut **tx)
    .await?;
    let states = rows.into_iter().map(|(id, state)| Ok((id, parse(&state)?)));
    let states: BTreeMap<i64, TextState> = states.collect::<Result<_, Error>>()?;
    Ok(states.into_iter().filter(|(_, state)| *state != TextState::Done).collect())
}

/// Spreads the outcome of texts to their prompts again.
pub(super) async fn spread_again(tx: &mut Tx, embeddings: &[i64]) -> Result<(), Error> {
    if embeddings.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO spreading_texts (embedding) SELECT id FROM unnest($1::bigint[]) AS t (id)",
    )
    .bind(embeddings)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// As [`spread_again`], for those of the texts that were given up.
pub(super) async fn spread_dead_again(tx: &mut Tx, embeddings: &[i64]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO spreading_texts (embedding)
         SELECT id FROM embeddings WHERE id = ANY ($1) AND state = 'dead'",
    )
    .bind(embeddings)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Does nothing: a job's texts are wanted again when its images follow.
pub(super) async fn revive_of_job(_: &mut Tx, _: i64) -> Result<(), Error> {
    Ok(())
}

/// Does nothing: texts were marked as wanted when they were locked.
pub(super) async fn revive_of_images(_: &mut Tx, _: &Chunk) -> Result<(), Error> {
    Ok(())
}
