//! How long what ended jobs have left is kept.
//!
//! A policy on outputs looks at jobs in the order in which they ended, and remembers how far it has
//! come. A job that is retried ends again later, so it is looked at again.

use std::{collections::BTreeSet, time::Duration};

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
    retried,
    rows::{HashColumn, IdColumn, artifact, column, job_id, list, number, parse},
    unused_inputs,
};
use crate::store::{
    records::Term,
    removal::{Candidate, Due, Expiring, Reached, ms},
    roles::Retention,
    row::row,
};

/// Most jobs or texts that are added up to say what a policy would remove.
const ADDED_UP: i64 = 1000;

/// When a job ended, as the database counts.
macro_rules! ended {
    () => {
        sql!(sqlite: "j.finished_ms", postgres: "(extract(epoch FROM j.finished_at) * 1000000)::bigint")
    };
}

/// Jobs of an outcome (`$1`) and tenant (`$2`, empty: those without a policy of their own on `$3`)
/// that ended at `$4` at the latest, milliseconds since 1970.
macro_rules! ended_jobs {
    () => {
        sql!(
            sqlite:
                "jobs AS j
                 WHERE j.state = $1 AND j.finished_ms IS NOT NULL AND j.deleted_ms IS NULL AND j.finished_ms <= $4
                   AND CASE $2 WHEN '' THEN NOT EXISTS (SELECT 1 FROM retention AS own
                                                        WHERE own.tenant = j.tenant AND own.tenant <> '' AND own.subject = $3
                                                          AND own.outcome = $1)
                       ELSE j.tenant = $2 END",
            postgres:
                "jobs AS j
                 WHERE j.state = $1 AND j.finished_at IS NOT NULL AND j.deleted_ms IS NULL
                   AND j.finished_at <= 'epoch'::timestamptz + ($4::bigint * 1000) * interval '1 microsecond'
                   AND CASE $2 WHEN '' THEN NOT EXISTS (SELECT FROM retention AS own
                                                        WHERE own.tenant = j.tenant AND own.tenant <> '' AND own.subject = $3
                                                          AND own.outcome = $1)
                       ELSE j.tenant = $2 END",
        )
    };
}

/// Those of them that come after a place in the order of their ends: `$5`, and its job `$6`.
macro_rules! ended_after {
    () => {
        sql!(
            sqlite: " AND (j.finished_ms, j.seq) > ($5, $6)",
            postgres:
                " AND (j.finished_at, j.seq) > ('epoch'::timestamptz + $5::bigint * interval '1 microsecond', $6)",
        )
    };
}

/// The order of their ends.
macro_rules! by_end {
    () => {
        sql!(sqlite: " ORDER BY j.finished_ms, j.seq", postgres: " ORDER BY j.finished_at, j.seq")
    };
}

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
    async fn set_retention(&self, policy: &Policy) -> Result<(), Error> {
        let Policy { scope: Scope { tenant, subject, outcome }, keep } = policy;
        sqlx::query(
            "INSERT INTO retention (tenant, subject, outcome, seconds) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, subject, outcome) DO UPDATE
             SET seconds = excluded.seconds, reached = 0, reached_seq = 0, reached_idx = -1",
        )
        .bind(tenant)
        .bind(subject.name())
        .bind(outcome.map_or("", JobState::name))
        .bind(keep.map(|keep| column(keep.as_secs())))
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn retention(&self) -> Result<Vec<Policy>, Error> {
        let rows = policies(self).await?;
        Ok(rows.into_iter().map(|(policy, _)| policy).collect())
    }

    async fn expire_jobs(&self, term: Term, now_ms: i64, limit: u32) -> Result<Vec<JobId>, Error> {
        let mut deleted = Vec::new();
        for (policy, _) in policies(self).await? {
            let Some((outcome, until)) = of_jobs(&policy, now_ms) else { continue };
            if policy.scope.subject == Subject::Jobs {
                let due = (policy, outcome, until);
                deleted.extend(retried(|| expire_jobs(self, term, now_ms, &due, limit)).await?);
            }
        }
        Ok(deleted)
    }

    async fn expiring(&self, now_ms: i64, limit: u32) -> Result<Option<Expiring>, Error> {
        for (policy, reached) in policies(self).await? {
            let Some((outcome, until)) = of_jobs(&policy, now_ms) else { continue };
            if policy.scope.subject == Subject::Jobs {
                continue;
            }
            let found = next_job(self, (&policy, outcome, until), reached).await?;
            let Some((job, ended)) = found else { continue };
            return expiring(self, (policy, reached), (job, ended), limit).await.map(Some);
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
        for (policy, reached) in policies(self).await? {
            let found = match of_jobs(&policy, now_ms) {
                Some((outcome, until)) => due(self, (&policy, outcome, until), reached).await?,
                None if policy.scope.subject == Subject::Embeddings => {
                    let Some(keep) = policy.keep else { continue };
                    due_texts(self, now_ms.saturating_sub(ms(keep))).await?
                }
                None if policy.scope.subject == Subject::Inputs => {
                    sqlx::query_as(unused_inputs::DUE)
                        .bind(now_ms)
                        .bind(ADDED_UP)
                        .bind(Subject::Inputs.name())
                        .bind(&policy.scope.tenant)
                        .fetch_one(self.reads())
                        .await?
                }
                None => continue,
            };
            let (count, bytes) = (number(found.0)?, number(found.1)?);
            all.push(Due { policy, count, bytes, at_least: found.0 >= ADDED_UP });
        }
        Ok(all)
    }
}

row! {
    struct PolicyRow {
        tenant: String,
        subject: String,
        outcome: String,
        seconds: Option<i64>,
        reached: i64,
        reached_seq: i64,
        reached_idx: i64,
    }
}

/// The policies, and how far each has come.
async fn policies(store: &Record) -> Result<Vec<(Policy, Reached)>, Error> {
    let rows: Vec<PolicyRow> = sqlx::query_as(
        "SELECT tenant, subject, outcome, seconds, reached, reached_seq, reached_idx FROM retention
         ORDER BY tenant, subject, outcome",
    )
    .fetch_all(store.reads())
    .await?;
    let policy = |row: PolicyRow| {
        let outcome = Some(&row.outcome).filter(|outcome| !outcome.is_empty());
        let scope = Scope {
            tenant: row.tenant,
            subject: parse(&row.subject)?,
            outcome: outcome.map(|outcome| parse(outcome)).transpose()?,
        };
        let seconds = row.seconds.map(number).transpose()?;
        let policy = Policy { scope, keep: seconds.map(Duration::from_secs) };
        let reached = Reached { ended: row.reached, seq: row.reached_seq, idx: row.reached_idx };
        Ok((policy, reached))
    };
    rows.into_iter().map(policy).collect()
}

/// The outcome of the jobs that a policy is about, and until when they must have ended; `None` if
/// it is about none, or keeps everything.
fn of_jobs(policy: &Policy, now_ms: i64) -> Option<(JobState, i64)> {
    let outcome = policy.scope.outcome.filter(|outcome| outcome.terminal())?;
    Some((outcome, now_ms.saturating_sub(ms(policy.keep?))))
}

/// Deletes jobs that a policy does not keep any longer.
async fn expire_jobs(
    store: &Record,
    term: Term,
    now_ms: i64,
    (policy, outcome, until): &(Policy, JobState, i64),
    limit: u32,
) -> Result<Vec<JobId>, Error> {
    let found: Vec<i64> = sqlx::query_scalar(concat!(
        "SELECT j.seq FROM ",
        ended_jobs!(),
        " AND j.follow IS NULL AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = j.seq)",
        by_end!(),
        " LIMIT $5",
    ))
    .bind(outcome.name())
    .bind(&policy.scope.tenant)
    .bind(policy.scope.subject.name())
    .bind(until)
    .bind(i64::from(limit))
    .fetch_all(store.reads())
    .await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.begin_write().await?;
    store.check_term(&mut tx, term).await?;
    let mut jobs = LockedJobs::lock(&mut tx, found.iter().copied()).await?;
    // Under their lock: one of them may have been retried since.
    let deleted: Vec<(i64, IdColumn)> = sqlx::query_as(sql!(
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
    ))
    .bind(list(&found)?)
    .bind(now_ms)
    .bind(policy.told())
    .bind(outcome.name())
    .bind(until)
    .fetch_all(&mut *tx)
    .await?;
    for (seq, _) in &deleted {
        if let Some(job) = jobs.get_mut(*seq) {
            job.raise();
        }
    }
    jobs.save(&mut tx).await?;
    tx.commit().await?;
    deleted.iter().map(|(_, id)| job_id(id)).collect()
}

row! {
    struct EndedRow {
        id: IdColumn,
        seq: i64,
        ended: i64,
    }
}

/// The next job that a policy on outputs has to look at, and its place.
async fn next_job(
    store: &Record,
    (policy, outcome, until): (&Policy, JobState, i64),
    reached: Reached,
) -> Result<Option<(JobId, Reached)>, Error> {
    let found: Option<EndedRow> = sqlx::query_as(concat!(
        "SELECT j.id, j.seq, ",
        ended!(),
        " AS ended FROM ",
        ended_jobs!(),
        ended_after!(),
        by_end!(),
        " LIMIT 1",
    ))
    .bind(outcome.name())
    .bind(&policy.scope.tenant)
    .bind(policy.scope.subject.name())
    .bind(until)
    .bind(reached.ended)
    // The last job is found again if some of its images are left.
    .bind(reached.seq - i64::from(reached.idx >= 0))
    .fetch_optional(store.reads())
    .await?;
    let place = |row: EndedRow| {
        let is_same = (row.ended, row.seq) == (reached.ended, reached.seq);
        let idx = if is_same { reached.idx.max(0) } else { 0 };
        Ok((job_id(&row.id)?, Reached { ended: row.ended, seq: row.seq, idx }))
    };
    found.map(place).transpose()
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
    (policy, reached): (Policy, Reached),
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
    let Scope { tenant, subject, outcome } = &policy.scope;
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
    // Since it was read, another leader may have been here, or somebody may have set the policy.
    let is_current = sqlx::query(
        "UPDATE retention SET reached = $4, reached_seq = $5, reached_idx = $6
         WHERE tenant = $1 AND subject = $2 AND outcome = $3
           AND reached = $7 AND reached_seq = $8 AND reached_idx = $9 AND seconds = $10",
    )
    .bind(tenant)
    .bind(subject.name())
    .bind(outcome.map_or("", JobState::name))
    .bind(at.ended)
    .bind(at.seq)
    .bind(if *is_last || is_as_it_was.is_none() { -1 } else { *end })
    .bind(reached.ended)
    .bind(reached.seq)
    .bind(reached.idx)
    .bind(policy.keep.map(|keep| column(keep.as_secs())))
    .execute(&mut *tx)
    .await?;
    if is_current.rows_affected() == 0 {
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
async fn due(
    store: &Record,
    (policy, outcome, until): (&Policy, JobState, i64),
    reached: Reached,
) -> Result<(i64, i64), Error> {
    let reached = match policy.scope.subject {
        Subject::Jobs => Reached { ended: 0, seq: 0, idx: 0 },
        _ => reached,
    };
    Ok(sqlx::query_as(concat!(
        "SELECT count(*), CAST(coalesce(sum(due.bytes), 0) AS BIGINT)
         FROM (SELECT (SELECT coalesce(sum(o.size), 0) FROM outputs AS o
                       WHERE o.job = j.seq AND o.removed_ms IS NULL
                         AND ($8 = 'jobs' OR ($8 = 'pictures') =
                              ((SELECT i.state = 'done' FROM images AS i WHERE i.job = o.job AND i.idx = o.idx)
                               AND NOT EXISTS (SELECT 1 FROM outputs AS later WHERE later.job = o.job
                                                 AND later.idx = o.idx AND later.stage > o.stage)))) AS bytes
               FROM ",
        ended_jobs!(),
        ended_after!(),
        by_end!(),
        " LIMIT $7) AS due",
    ))
    .bind(outcome.name())
    .bind(&policy.scope.tenant)
    .bind(policy.scope.subject.name())
    .bind(until)
    .bind(reached.ended)
    .bind(reached.seq - i64::from(reached.idx >= 0))
    .bind(ADDED_UP)
    .bind(policy.scope.subject.name())
    .fetch_one(store.reads())
    .await?)
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
