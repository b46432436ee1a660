//! Embeddings: results of stage `encode`, texts that are lost or wanted again, and telling the jobs that need them.
//!
//! A text's row is locked before the jobs that need it. Every job counts, in the same transaction, how many of its
//! texts are encoded, so that the count is the rows'.

use std::collections::{BTreeMap, HashMap};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    retry::{self, History, Verdict},
};
use darkroom_queue::task::{Outcome, PoolId, Subject};

use super::{
    Error, Tx,
    moves::save_and_finish,
    notes,
    plans::KnownPlans,
    progress::LockedJobs,
    rows::{column, digest, number, text_column, to_json},
    spread,
};
use crate::store::{
    cause::{Cause, Outcomes},
    records::{Fate, Onward},
};

#[derive(sqlx::FromRow)]
struct TextRow {
    id: i64,
    digest: Vec<u8>,
    state: String,
    dispatch: i64,
    failures: i32,
    hosts: Vec<String>,
    suspect: bool,
}

/// A text while a bulk is judged: as read, and what becomes of it.
struct Judged<'a> {
    row: TextRow,
    end: Option<End<'a>>,
}

enum End<'a> {
    Done { outcome: &'a Outcome },
    Wanted,
    Failed { dead: bool, code: &'a str, message: &'a str },
}

/// Applies what happened to texts of an encoder's pool.
pub(super) async fn settle(
    tx: &mut Tx,
    plans: &KnownPlans,
    (pool, causes): (&PoolId, &[Cause<'_>]),
    onward: &[Onward],
) -> Result<Outcomes, Error> {
    let mut texts = lock_texts(tx, pool, causes).await?;
    let mut outcomes = Outcomes::default();
    for cause in causes {
        let fate = match cause.key.subject {
            Subject::Text(digest) => match texts.get_mut(&digest) {
                Some(text) => judge(text, cause)?,
                None => Fate::Discarded("unknown_text"),
            },
            Subject::Image(_) => Fate::Discarded("wrong_pool"),
        };
        outcomes.changed += u64::from(fate == Fate::Applied);
        outcomes.fates.push(fate);
    }
    let mut changed: Vec<&Judged<'_>> = texts.values().filter(|text| text.end.is_some()).collect();
    changed.sort_unstable_by_key(|text| text.row.id);
    if changed.is_empty() {
        return Ok(outcomes);
    }
    write(tx, pool, &changed).await?;
    let ids: Vec<i64> = changed.iter().map(|text| text.row.id).collect();
    let ends: HashMap<i64, &End<'_>> =
        changed.iter().filter_map(|text| Some((text.row.id, text.end.as_ref()?))).collect();
    let needed = jobs_of(tx, &ids).await?;
    let mut jobs = LockedJobs::lock(tx, needed.iter().map(|(job, _)| *job)).await?;
    for (job, embedding) in &needed {
        let Some(job) = jobs.get_mut(*job) else { continue };
        match ends.get(embedding) {
            Some(End::Done { .. }) => job.encode(1),
            Some(End::Wanted | End::Failed { dead: false, .. }) => job.want(*embedding),
            Some(End::Failed { dead: true, .. }) => job.raise(),
            None => {}
        }
    }
    let over =
        |text: &&&Judged<'_>| matches!(text.end, Some(End::Done { .. } | End::Failed { dead: true, .. }));
    let ended: Vec<i64> = changed.iter().filter(over).map(|text| text.row.id).collect();
    (outcomes.more, outcomes.dispatched) = spread::tell(tx, plans, &mut jobs, &ended, onward).await?;
    (outcomes.jobs, outcomes.finished) = save_and_finish(tx, &mut jobs).await?;
    let noted = changed.iter().filter(|text| {
        matches!(text.end, Some(End::Done { outcome: Outcome::Done { notes, .. } }) if !notes.is_empty())
    });
    let noted: Vec<i64> = noted.map(|text| text.row.id).collect();
    let seqs: Vec<i64> = needed.iter().map(|(job, _)| *job).collect();
    notes::note_encoded(tx, &seqs, &noted).await?;
    Ok(outcomes)
}

async fn lock_texts<'a>(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
) -> Result<HashMap<Digest, Judged<'a>>, Error> {
    let digests: Vec<_> = causes
        .iter()
        .filter_map(|cause| match cause.key.subject {
            Subject::Text(digest) => Some(digest.0),
            Subject::Image(_) => None,
        })
        .collect();
    let rows: Vec<TextRow> = sqlx::query_as(
        // Where this waited for another result of the text, the row of its dispatch is as it was before; the text's own
        // dispatch then says that it is over.
        "SELECT e.id, e.digest, e.failures, e.hosts, e.suspect,
                CASE WHEN e.state = 'wanted' AND d.dispatch > e.dispatch THEN 'dispatched' ELSE e.state END AS state,
                greatest(e.dispatch, coalesce(d.dispatch, 0)) AS dispatch
         FROM embeddings AS e
         LEFT JOIN dispatched_texts AS d ON d.encoder = $2 AND d.embedding = e.id
         WHERE e.digest = ANY ($1) AND e.encoder = $2
         ORDER BY e.id FOR NO KEY UPDATE OF e",
    )
    .bind(digests)
    .bind(pool.digest.0)
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter().map(|row| Ok((digest(&row.digest)?, Judged { row, end: None }))).collect()
}

fn judge<'a>(text: &mut Judged<'a>, cause: &Cause<'a>) -> Result<Fate, Error> {
    let row = &mut text.row;
    if let Some(outcome @ Outcome::Done { .. }) = cause.outcome() {
        if !matches!(row.state.as_str(), "wanted" | "dispatched") {
            return Ok(Fate::Discarded("already_encoded"));
        }
        (row.state, row.suspect) = ("done".to_owned(), false);
        text.end = Some(End::Done { outcome });
        return Ok(Fate::Applied);
    }
    if row.state != "dispatched" || number::<u64>(row.dispatch)? != cause.key.dispatch {
        return Ok(Fate::Discarded("stale_dispatch"));
    }
    let Some((code, message, failure)) = cause.failure(row.suspect) else {
        row.state = "wanted".to_owned();
        text.end = Some(End::Wanted);
        return Ok(Fate::Applied);
    };
    let failures = number(row.failures)?;
    let verdict = retry::judge(History { failures, hosts: &row.hosts }, failure);
    if verdict != Verdict::Suspect {
        row.failures += 1;
        if !row.hosts.iter().any(|host| host == failure.host) {
            row.hosts.push(failure.host.to_owned());
        }
    }
    let dead = verdict == Verdict::Dead;
    row.state = if dead { "dead" } else { "wanted" }.to_owned();
    row.suspect = true;
    text.end = Some(End::Failed { dead, code, message });
    Ok(Fate::Applied)
}

/// Writes locked texts, in order of id. None of them is dispatched any more.
async fn write(tx: &mut Tx, pool: &PoolId, changed: &[&Judged<'_>]) -> Result<(), Error> {
    let (mut done, mut rest) = (Vec::with_capacity(changed.len()), Vec::new());
    for text in changed {
        match text.end {
            Some(End::Done { outcome: Outcome::Done { artifact, notes } }) if notes.is_empty() => {
                done.push((&text.row, artifact));
            }
            _ => rest.push(*text),
        }
    }
    write_done(tx, pool, &done).await?;
    write_rest(tx, pool, &rest).await
}

/// Nearly all of them: encoded, and nothing to say of it.
async fn write_done(tx: &mut Tx, pool: &PoolId, done: &[(&TextRow, &ArtifactRef)]) -> Result<(), Error> {
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
    .bind(done.iter().map(|(row, _)| row.id).collect::<Vec<_>>())
    .bind(done.iter().map(|(row, _)| row.dispatch).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| artifact.key.as_str()).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| artifact.sha256.0).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, artifact)| column(artifact.size)).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_rest(tx: &mut Tx, pool: &PoolId, changed: &[&Judged<'_>]) -> Result<(), Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let (mut keys, mut hashes, mut sizes, mut notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut codes, mut messages, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    for text in changed {
        let artifact = match text.end {
            Some(End::Done { outcome: Outcome::Done { artifact, notes } }) => Some((artifact, notes)),
            _ => None,
        };
        keys.push(artifact.map(|(artifact, _)| artifact.key.clone()));
        hashes.push(artifact.map(|(artifact, _)| artifact.sha256.0));
        sizes.push(artifact.map(|(artifact, _)| column(artifact.size)));
        let said = artifact.map(|(_, notes)| notes.iter().map(|note| text_column(note)).collect::<Vec<_>>());
        notes.push(said.map(|notes| to_json(&notes)).transpose()?);
        let failure = match text.end {
            Some(End::Failed { code, message, .. }) => Some((text_column(code), text_column(message))),
            _ => None,
        };
        let (code, message) = failure.unzip();
        codes.push(code);
        messages.push(message);
        let of: Vec<_> = text.row.hosts.iter().map(|host| text_column(host)).collect();
        hosts.push(to_json(&of)?);
    }
    sqlx::query(
        "WITH returned AS (
             DELETE FROM dispatched_texts WHERE encoder = $1 AND embedding = ANY ($2::bigint[]))
         UPDATE embeddings AS e
         SET state = n.state, dispatch = n.dispatch, failures = n.failures, suspect = n.suspect,
             hosts = ARRAY (SELECT jsonb_array_elements_text(n.hosts::jsonb)),
             error_code = coalesce(n.error_code, e.error_code), error = coalesce(n.error, e.error),
             key = coalesce(n.key, e.key), sha256 = coalesce(n.sha256, e.sha256),
             size = coalesce(n.size, e.size),
             notes = CASE WHEN n.notes IS NULL THEN e.notes
                          ELSE ARRAY (SELECT jsonb_array_elements_text(n.notes::jsonb)) END
         FROM unnest($2::bigint[], $3::text[], $4::int[], $5::boolean[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::bytea[], $11::bigint[], $12::text[], $13::bigint[])
             AS n (id, state, failures, suspect, hosts, error_code, error, key, sha256, size, notes, dispatch)
         WHERE e.id = n.id AND e.state = 'wanted'",
    )
    .bind(pool.digest.0)
    .bind(changed.iter().map(|text| text.row.id).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| text.row.state.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| text.row.failures).collect::<Vec<_>>())
    .bind(changed.iter().map(|text| text.row.suspect).collect::<Vec<_>>())
    .bind(hosts)
    .bind(codes)
    .bind(messages)
    .bind(keys)
    .bind(hashes)
    .bind(sizes)
    .bind(notes)
    .bind(changed.iter().map(|text| text.row.dispatch).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The jobs that need some texts, each with the text.
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

/// The jobs look for these texts again.
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

/// Of these texts, those that are not encoded; they stay so until the transaction ends, and whoever encodes them then
/// sees what it wrote.
pub(super) async fn lock_unencoded(tx: &mut Tx, embeddings: &[i64]) -> Result<BTreeMap<i64, String>, Error> {
    if embeddings.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, state FROM embeddings WHERE id = ANY ($1) ORDER BY id FOR SHARE")
            .bind(embeddings)
            .fetch_all(&mut **tx)
            .await?;
    Ok(rows.into_iter().filter(|(_, state)| state != "done").collect())
}

/// Tells the prompts of texts what became of them, once more.
pub(super) async fn spread_again(tx: &mut Tx, embeddings: &[i64]) -> Result<(), Error> {
    if embeddings.is_empty() {
        return Ok(());
    }
    sqlx::query("INSERT INTO spreading_texts (embedding) SELECT id FROM unnest($1::bigint[]) AS t (id)")
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
