//! How long what ended jobs have left is kept.

use std::collections::BTreeSet;

use async_trait::async_trait;
use darkroom_core::{
    id::JobId,
    job_state::JobState,
    retention::{Policy, Scope, Subject},
};

use super::{
    super::progress::LockedJobs,
    Error, Record, Tx,
    candidates::suspect,
    commands::raise,
    policy_walk::{
        EndedRow, LOOKED_AT, NEXT, Walk, ended, look, pass_over, policies, set_reached, walks,
    },
    retried,
    rows::{HashColumn, IdColumn, artifact, column, job_id, list, number},
    unused_files, unused_inputs,
    webhooks::tell_end,
};
use crate::store::{
    records::Term,
    removal::{Candidate, Due, Expiring, Reached, ms},
    roles::Retention,
    row::row,
};

/// Most jobs or texts that are added up to say what a policy would remove.
const ADDED_UP: i64 = 1000;

/// Deletes those of these jobs (`$1`) that are still as they were.
const DELETE: &str = sql!(
    sqlite:
        "UPDATE jobs SET deleted_ms = $2, deleted_by = $3, version = version + 1,
                         manifest = CASE WHEN manifest = 'pending' THEN NULL ELSE manifest END
         WHERE seq IN (SELECT value FROM json_each($1)) AND state = $4 AND finished_ms <= $5
           AND deleted_ms IS NULL AND follow IS NULL
           AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)
         RETURNING seq, id",
    postgres:
        "UPDATE jobs SET deleted_ms = $2, deleted_by = $3,
                         manifest = CASE WHEN manifest = 'pending' THEN NULL ELSE manifest END
         WHERE seq = ANY ($1) AND state = $4
           AND finished_at <= 'epoch'::timestamptz + ($5::bigint * 1000) * interval '1 microsecond'
           AND deleted_ms IS NULL AND follow IS NULL
           AND NOT EXISTS (SELECT FROM image_commands AS c WHERE c.job = jobs.seq)
         RETURNING seq, id",
);

/// Those of these jobs (`$1`) whose end was not told, because their manifest was never written.
const UNTOLD: &str = concat!(
    "SELECT seq, id FROM jobs WHERE state = $2 AND coalesce(manifest, '') <> 'written' AND seq ",
    sql!(sqlite: "IN (SELECT value FROM json_each($1))", postgres: "= ANY ($1)"),
);

/// What a policy on `$2` would remove of these jobs (`$1`), bytes.
const BYTES: &str = concat!(
    "SELECT CAST(coalesce(sum(o.size), 0) AS BIGINT)
     FROM ",
    sql!(sqlite: "json_each($1) AS j", postgres: "unnest($1::bigint[]) AS j (value)"),
    " CROSS JOIN outputs AS o
     WHERE o.job = j.value AND o.removed_ms IS NULL
       AND ($2 = 'jobs' OR ($2 = 'pictures') =
            ((SELECT i.state = 'done' FROM images AS i WHERE i.job = o.job AND i.idx = o.idx)
             AND NOT EXISTS (SELECT 1 FROM outputs AS later WHERE later.job = o.job
                               AND later.idx = o.idx AND later.stage > o.stage)))",
);

/// Of an image's output `o`, whether a policy on `$4` removes it: the picture of a done image, or
/// an output that is none.
macro_rules! is_subject {
    () => {
        "o.removed_ms IS NULL
         AND ($4 = 'pictures') = ((SELECT i.state = 'done' FROM images AS i WHERE i.job = o.job AND i.idx = o.idx)
                                  AND NOT EXISTS (SELECT 1 FROM outputs AS later WHERE later.job = o.job
                                                    AND later.idx = o.idx AND later.stage > o.stage))"
    };
}

#[async_trait]
impl Retention for Record {
    async fn set_retention(&self, policy: &Policy) -> Result<bool, Error> {
        let Policy { scope: Scope { tenant, subject, outcome }, keep } = policy;
        let set = sqlx::query(
            "INSERT INTO retention (tenant, subject, outcome, seconds) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, subject, outcome) DO UPDATE
             SET seconds = excluded.seconds, reached = 0, reached_seq = 0, reached_idx = -1
             WHERE retention.seconds IS DISTINCT FROM excluded.seconds",
        )
        .bind(tenant)
        .bind(subject.name())
        .bind(outcome.map_or("", JobState::name))
        .bind(keep.map(|keep| column(keep.as_secs())))
        .execute(self.writes())
        .await?;
        Ok(set.rows_affected() > 0)
    }

    async fn retention(&self) -> Result<Vec<Policy>, Error> {
        let rows = policies(self).await?;
        Ok(rows.into_iter().map(|(policy, _)| policy).collect())
    }

    async fn expire_jobs(&self, term: Term, now_ms: i64, limit: u32) -> Result<Vec<JobId>, Error> {
        let mut deleted = Vec::new();
        for walk in walks(self, now_ms).await? {
            if walk.policy.scope.subject == Subject::Jobs {
                deleted.extend(retried(|| expire_jobs(self, term, (now_ms, &walk), limit)).await?);
            }
        }
        Ok(deleted)
    }

    async fn expiring(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<Option<Expiring>, Error> {
        for walk in walks(self, now_ms).await? {
            if walk.policy.scope.subject == Subject::Jobs {
                continue;
            }
            let mut page = look(self, &walk, (walk.from(), NEXT)).await?;
            if page.more && !page.jobs.iter().any(|job| walk.covers(job)) {
                page = look(self, &walk, (walk.from(), LOOKED_AT)).await?;
            }
            let Some(next) = page.jobs.iter().find(|job| walk.covers(job)) else {
                retried(|| pass_over(self, term, &walk, &page)).await?;
                continue;
            };
            let at = walk.at(next);
            return expiring(self, walk, (job_id(&next.id)?, at), limit).await.map(Some);
        }
        Ok(None)
    }

    async fn expire(
        &self,
        term: Term,
        now_ms: i64,
        expiring: &Expiring,
    ) -> Result<Option<u64>, Error> {
        retried(|| expire(self, term, now_ms, expiring)).await
    }

    async fn forget_inputs(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<Option<(u64, bool)>, Error> {
        retried(|| async {
            let Some(mut tx) = self.begin_marking().await? else { return Ok(None) };
            self.check_term(&mut tx, term).await?;
            let forgotten = unused_inputs::forget_inputs(&mut tx, now_ms, limit).await?;
            tx.commit().await?;
            Ok(Some(forgotten))
        })
        .await
    }

    async fn due(&self, now_ms: i64) -> Result<Vec<Due>, Error> {
        let mut all = Vec::new();
        for walk in walks(self, now_ms).await? {
            let found = due(self, &walk).await?;
            all.push(told(walk.policy, found)?);
        }
        for (policy, _) in policies(self).await? {
            let found = match (policy.scope.subject, policy.keep) {
                (Subject::Embeddings, Some(keep)) => {
                    due_texts(self, now_ms.saturating_sub(ms(keep))).await?
                }
                (Subject::Inputs, _) => {
                    sqlx::query_as(unused_inputs::DUE)
                        .bind(now_ms)
                        .bind(ADDED_UP)
                        .bind(Subject::Inputs.name())
                        .bind(&policy.scope.tenant)
                        .fetch_one(self.reads())
                        .await?
                }
                (Subject::Files, _) => {
                    sqlx::query_as(unused_files::DUE)
                        .bind(now_ms)
                        .bind(ADDED_UP)
                        .bind(Subject::Files.name())
                        .bind(&policy.scope.tenant)
                        .fetch_one(self.reads())
                        .await?
                }
                _ => continue,
            };
            all.push(told(policy, found)?);
        }
        Ok(all)
    }
}

fn told(policy: Policy, (count, bytes): (i64, i64)) -> Result<Due, Error> {
    let at_least = count >= ADDED_UP;
    Ok(Due { policy, count: number(count)?, bytes: number(bytes)?, at_least })
}

/// Those of these jobs that an open batch names in its notes: it needs them for its results.
async fn needed_by_batches(store: &Record, jobs: &[i64]) -> Result<BTreeSet<i64>, Error> {
    let needed: Vec<i64> = sqlx::query_scalar(sql!(
        sqlite:
            "SELECT j.seq FROM jobs AS j
             WHERE j.seq IN (SELECT value FROM json_each($1))
               AND EXISTS (SELECT 1 FROM batches AS b
                           WHERE b.tenant = j.tenant AND b.ended_ms IS NULL AND instr(b.progress, j.id) > 0)",
        postgres:
            "SELECT j.seq FROM jobs AS j
             WHERE j.seq = ANY($1)
               AND EXISTS (SELECT FROM batches AS b
                           WHERE b.tenant = j.tenant AND b.ended_ms IS NULL
                             AND position(j.id::text IN b.progress) > 0)",
    ))
    .bind(list(jobs)?)
    .fetch_all(store.reads())
    .await?;
    Ok(needed.into_iter().collect())
}

/// Deletes jobs that a policy does not keep any longer.
async fn expire_jobs(
    store: &Record,
    term: Term,
    (now_ms, walk): (i64, &Walk),
    limit: u32,
) -> Result<Vec<JobId>, Error> {
    let mut from = walk.from();
    let (page, found) = loop {
        let page = look(store, walk, (from, LOOKED_AT)).await?;
        let covered = page.jobs.iter().filter(|job| walk.covers(job) && job.settled);
        let covered: Vec<i64> = covered.map(|job| job.seq).collect();
        let needed = needed_by_batches(store, &covered).await?;
        let free = covered.into_iter().filter(|seq| !needed.contains(seq));
        let found: Vec<i64> = free.take(limit as usize).collect();
        match page.jobs.last().filter(|_| page.more && found.is_empty() && !needed.is_empty()) {
            // Those that a batch needs hold up nobody behind them.
            Some(last) => from = Reached { ended: last.ended, seq: last.seq, idx: -1 },
            None => break (page, found),
        }
    };
    let is_first = from == walk.from();
    if found.is_empty() {
        if is_first && !page.jobs.iter().any(|job| walk.covers(job)) {
            pass_over(store, term, walk, &page).await?;
        }
        return Ok(Vec::new());
    }
    let mut tx = store.begin_write().await?;
    store.check_term(&mut tx, term).await?;
    let mut jobs = LockedJobs::lock(&mut tx, found.iter().copied()).await?;
    let untold: Vec<(i64, IdColumn)> = sqlx::query_as(UNTOLD)
        .bind(list(&found)?)
        .bind(walk.outcome.name())
        .fetch_all(&mut *tx)
        .await?;
    // Under their lock: one of them may have been retried since.
    let deleted: Vec<(i64, IdColumn)> = sqlx::query_as(DELETE)
        .bind(list(&found)?)
        .bind(now_ms)
        .bind(walk.policy.told())
        .bind(walk.outcome.name())
        .bind(walk.until)
        .fetch_all(&mut *tx)
        .await?;
    let gone: BTreeSet<i64> = deleted.iter().map(|(seq, _)| *seq).collect();
    for seq in &gone {
        if let Some(job) = jobs.get_mut(*seq) {
            job.raise();
        }
    }
    jobs.save(&mut tx).await?;
    for (seq, id) in untold.iter().filter(|(seq, _)| gone.contains(seq)) {
        tell_end(&mut tx, *seq, job_id(id)?, walk.outcome).await?;
    }
    // Up to the first one that it has still to delete.
    let is_past = |job: &&EndedRow| gone.contains(&job.seq) || !walk.covers(job);
    if let Some(last) = page.jobs.iter().take_while(is_past).last().filter(|_| is_first) {
        let place = Reached { ended: last.ended, seq: last.seq, idx: -1 };
        set_reached(&mut tx, (&walk.policy, walk.reached), place).await?;
    }
    tx.commit().await?;
    deleted.iter().map(|(_, id)| job_id(id)).collect()
}

row! {
    struct OutputRow {
        key: String,
        sha256: HashColumn,
        size: i64,
    }
}

/// The outputs of a range of a job's images that a policy removes.
async fn expiring(
    store: &Record,
    Walk { policy, reached, .. }: Walk,
    (job, at): (JobId, Reached),
    limit: u32,
) -> Result<Expiring, Error> {
    let end = at.idx.saturating_add(i64::from(limit));
    let rows: Vec<OutputRow> = sqlx::query_as(concat!(
        "SELECT DISTINCT o.key, o.sha256, o.size FROM outputs AS o
         WHERE o.job = $1 AND o.idx >= $2 AND o.idx < $3 AND ",
        is_subject!(),
    ))
    .bind(at.seq)
    .bind(at.idx)
    .bind(end)
    .bind(policy.scope.subject.name())
    .fetch_all(store.reads())
    .await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(idx) FROM images WHERE job = $1")
        .bind(at.seq)
        .fetch_one(store.reads())
        .await?;
    let outputs = rows.into_iter().map(|row| artifact(row.key, &row.sha256, row.size));
    let outputs = outputs.collect::<Result<_, _>>()?;
    let is_last = last.is_none_or(|last| last < end);
    Ok(Expiring { policy, job, outputs, reached, at, end, is_last })
}

async fn expire(
    store: &Record,
    term: Term,
    now_ms: i64,
    expiring: &Expiring,
) -> Result<Option<u64>, Error> {
    let Expiring { policy, reached, at, end, is_last, .. } = expiring;
    let Scope { subject, outcome, .. } = &policy.scope;
    let mut tx = store.begin_referring().await?;
    store.check_term(&mut tx, term).await?;
    let mut jobs = LockedJobs::lock(&mut tx, [at.seq]).await?;
    let is_as_it_was: Option<bool> = sqlx::query_scalar(concat!(
        "SELECT j.follow IS NULL FROM jobs AS j
         WHERE j.seq = $1 AND j.state = $2 AND j.deleted_ms IS NULL AND ",
        ended!(),
        " = $3",
    ))
    .bind(at.seq)
    .bind(outcome.map_or("", JobState::name))
    .bind(at.ended)
    .fetch_optional(&mut *tx)
    .await?;
    if is_as_it_was == Some(false) {
        // Its images still follow a cancel. The next pass finds the job again.
        return Ok(None);
    }
    let idx = if *is_last || is_as_it_was.is_none() { -1 } else { *end };
    let place = Reached { idx, ..*at };
    if !set_reached(&mut tx, (policy, *reached), place).await? {
        return Ok(None);
    }
    let mut removed = 0;
    if is_as_it_was.is_some() {
        removed = remove_outputs(&mut tx, now_ms, expiring).await?;
        if removed > 0 && *subject == Subject::Pictures {
            let by = expiring.policy.told();
            note_pictures(&mut tx, &mut jobs, expiring.at.seq, (now_ms, &by)).await?;
        }
    }
    tx.commit().await?;
    Ok(Some(removed))
}

/// Marks the outputs of a range of images as removed. Their rows stay.
async fn remove_outputs(tx: &mut Tx, now_ms: i64, expiring: &Expiring) -> Result<u64, Error> {
    let keys: Vec<String> = sqlx::query_scalar(concat!(
        "UPDATE outputs AS o SET removed_ms = $5
         WHERE o.job = $1 AND o.idx >= $2 AND o.idx < $3 AND ",
        is_subject!(),
        " RETURNING key",
    ))
    .bind(expiring.at.seq)
    .bind(expiring.at.idx)
    .bind(expiring.end)
    .bind(expiring.policy.scope.subject.name())
    .bind(now_ms)
    .fetch_all(&mut **tx)
    .await?;
    let count = keys.len() as u64;
    let candidates: BTreeSet<Candidate> = keys.into_iter().map(Candidate::output).collect();
    let candidates: Vec<Candidate> = candidates.into_iter().collect();
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    Ok(count)
}

/// Records with a job when the first of its pictures were removed, and by what. The chunks after
/// that change nothing, so watchers hear of it once.
pub(super) async fn note_pictures(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    seq: i64,
    (now_ms, by): (i64, &str),
) -> Result<(), Error> {
    let noted = sqlx::query(sql!(
        sqlite:
            "UPDATE jobs SET pictures_removed_ms = $2, pictures_removed_by = $3, version = version + 1
             WHERE seq = $1 AND pictures_removed_ms IS NULL",
        postgres:
            "UPDATE jobs SET pictures_removed_ms = $2, pictures_removed_by = $3
             WHERE seq = $1 AND pictures_removed_ms IS NULL",
    ))
    .bind(seq)
    .bind(now_ms)
    .bind(by)
    .execute(&mut **tx)
    .await?;
    if noted.rows_affected() == 0 { Ok(()) } else { raise(tx, jobs).await }
}

/// How many jobs a policy would remove something of, and how many bytes.
async fn due(store: &Record, walk: &Walk) -> Result<(i64, i64), Error> {
    let (mut found, mut from): (Vec<i64>, _) = (Vec::new(), walk.from());
    loop {
        let page = look(store, walk, (from, LOOKED_AT)).await?;
        let mut covered: Vec<i64> =
            page.jobs.iter().filter(|job| walk.covers(job)).map(|job| job.seq).collect();
        if walk.policy.scope.subject == Subject::Jobs {
            let needed = needed_by_batches(store, &covered).await?;
            covered.retain(|seq| !needed.contains(seq));
        }
        found.extend(covered);
        match page.jobs.last().filter(|_| page.more) {
            Some(last) if column(found.len()) < ADDED_UP => {
                from = Reached { ended: last.ended, seq: last.seq, idx: -1 };
            }
            _ => break,
        }
    }
    found.truncate(usize::try_from(ADDED_UP).unwrap_or(usize::MAX));
    let bytes: i64 = sqlx::query_scalar(BYTES)
        .bind(list(&found)?)
        .bind(walk.policy.scope.subject.name())
        .fetch_one(store.reads())
        .await?;
    Ok((column(found.len()), bytes))
}

/// How many texts no job has needed since a time, and how many bytes their embeddings have.
async fn due_texts(store: &Record, before_ms: i64) -> Result<(i64, i64), Error> {
    Ok(sqlx::query_as(
        "SELECT count(*), CAST(coalesce(sum(due.size), 0) AS BIGINT)
         FROM (SELECT e.size FROM unused_texts AS u JOIN embeddings AS e ON e.id = u.embedding
               WHERE u.since_ms <= $1
                 AND NOT EXISTS (SELECT 1 FROM job_texts AS t WHERE t.embedding = u.embedding)
               LIMIT $2) AS due",
    )
    .bind(before_ms)
    .bind(ADDED_UP)
    .fetch_one(store.reads())
    .await?)
}
