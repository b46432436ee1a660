//! How far retention policies have come.
//!
//! A policy looks at jobs in the order in which they ended, and remembers how far it has come. A
//! job that is retried ends again later, so it is looked at again. A tenant's own policy reads that
//! tenant's jobs. The farm's reads those of all, a page at a time, and passes over tenants that
//! have a policy of their own.
//!
//! The place belongs to the clock: if that went back, jobs end before it again. So a policy whose
//! place is later than anything that is due begins anew.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{
    job_state::JobState,
    retention::{Policy, Scope},
};

use super::{
    Error, Record, Tx,
    rows::{IdColumn, column, number, parse},
};
use crate::store::{
    records::Term,
    removal::{Reached, ms},
    row::row,
};

/// Jobs that a policy looks at in one statement.
pub(super) const LOOKED_AT: i64 = 500;
/// Jobs among which it looks for the next one first.
pub(super) const NEXT: i64 = 10;
/// As the database counts when a job ended.
const PER_MILLISECOND: i64 = sql!(sqlite: 1, postgres: 1000);

/// When a job ended, as the database counts.
macro_rules! ended {
    () => {
        sql!(sqlite: "j.finished_ms", postgres: "(extract(epoch FROM j.finished_at) * 1000000)::bigint")
    };
}
pub(super) use ended;

/// Jobs of an outcome (`$1`) that ended at `$2` at the latest, milliseconds since 1970, and come
/// after a place in the order of their ends: `$3`, and its job `$4`. SQLite is told which index to
/// use: it would read the jobs of all tenants for those of one.
macro_rules! ended_jobs {
    ($index:literal) => {
        sql!(
            sqlite: concat!(
                "jobs AS j INDEXED BY ", $index, "
                 WHERE j.state = $1 AND j.finished_ms IS NOT NULL AND j.deleted_ms IS NULL AND j.finished_ms <= $2
                   AND (j.finished_ms, j.seq) > ($3, $4)"
            ),
            postgres:
                "jobs AS j
                 WHERE j.state = $1 AND j.finished_at IS NOT NULL AND j.deleted_ms IS NULL
                   AND j.finished_at <= 'epoch'::timestamptz + ($2::bigint * 1000) * interval '1 microsecond'
                   AND (j.finished_at, j.seq) > ('epoch'::timestamptz + $3::bigint * interval '1 microsecond', $4)",
        )
    };
}

/// What is read of them.
macro_rules! ended_columns {
    () => {
        concat!(
            "SELECT j.id, j.seq, ",
            ended!(),
            " AS ended, j.tenant, j.follow IS NULL AND NOT EXISTS (SELECT 1 FROM image_commands AS c
                                                                WHERE c.job = j.seq) AS settled
             FROM ",
        )
    };
}

/// The order of their ends.
macro_rules! by_end {
    () => {
        sql!(sqlite: " ORDER BY j.finished_ms, j.seq", postgres: " ORDER BY j.finished_at, j.seq")
    };
}

/// The next jobs that have ended, at most `$5`.
pub(in super::super) const ENDED: &str =
    concat!(ended_columns!(), ended_jobs!("jobs_ended"), by_end!(), " LIMIT $5");

/// Those of a tenant (`$6`).
pub(in super::super) const ENDED_OF_TENANT: &str = concat!(
    ended_columns!(),
    ended_jobs!("jobs_ended_of_tenant"),
    " AND j.tenant = $6",
    by_end!(),
    " LIMIT $5",
);

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
pub(super) async fn policies(store: &Record) -> Result<Vec<(Policy, Reached)>, Error> {
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

/// A policy on jobs that have ended, and how far it has come.
pub(super) struct Walk {
    pub(super) policy: Policy,
    pub(super) outcome: JobState,
    /// Jobs that ended later are not due, milliseconds since 1970.
    pub(super) until: i64,
    /// As it is recorded.
    pub(super) reached: Reached,
    /// Tenants that have a policy of their own on the same.
    others: BTreeSet<String>,
}

/// The policies that remove something of jobs.
pub(super) async fn walks(store: &Record, now_ms: i64) -> Result<Vec<Walk>, Error> {
    let policies = policies(store).await?;
    let walk = |(policy, reached): &(Policy, Reached)| {
        let Scope { tenant, subject, outcome } = &policy.scope;
        let outcome = outcome.filter(|outcome| outcome.terminal())?;
        let until = now_ms.saturating_sub(ms(policy.keep?));
        let is_other = |other: &&(Policy, Reached)| {
            let Scope { tenant: other, subject: of, outcome: ended } = &other.0.scope;
            tenant.is_empty() && !other.is_empty() && (of, *ended) == (subject, Some(outcome))
        };
        let others = policies.iter().filter(is_other);
        let others = others.map(|(other, _)| other.scope.tenant.clone()).collect();
        Some(Walk { policy: policy.clone(), outcome, until, reached: *reached, others })
    };
    Ok(policies.iter().filter_map(walk).collect())
}

impl Walk {
    /// Where it goes on.
    pub(super) fn from(&self) -> Reached {
        if self.reached.ended > self.until.saturating_mul(PER_MILLISECOND) {
            return Reached { ended: 0, seq: 0, idx: -1 };
        }
        self.reached
    }

    pub(super) fn covers(&self, job: &EndedRow) -> bool {
        !self.others.contains(&job.tenant)
    }

    /// The place of a job, and its first image that was not looked at.
    pub(super) fn at(&self, job: &EndedRow) -> Reached {
        let from = self.from();
        let is_same = (job.ended, job.seq) == (from.ended, from.seq);
        let idx = if is_same { from.idx.max(0) } else { 0 };
        Reached { ended: job.ended, seq: job.seq, idx }
    }
}

row! {
    pub(super) struct EndedRow {
        pub(super) id: IdColumn,
        pub(super) seq: i64,
        pub(super) ended: i64,
        tenant: String,
        // Its images follow no command.
        pub(super) settled: bool,
    }
}

/// Jobs that have ended, in the order of their ends, some of which a policy may not cover.
pub(super) struct Page {
    pub(super) jobs: Vec<EndedRow>,
    /// There may be more.
    pub(super) more: bool,
}

/// The next jobs that a policy has to look at.
pub(super) async fn look(
    store: &Record,
    walk: &Walk,
    (from, limit): (Reached, i64),
) -> Result<Page, Error> {
    let tenant = &walk.policy.scope.tenant;
    let found = sqlx::query_as(if tenant.is_empty() { ENDED } else { ENDED_OF_TENANT })
        .bind(walk.outcome.name())
        .bind(walk.until)
        .bind(from.ended)
        // The last job is found again if some of its images are left.
        .bind(from.seq - i64::from(from.idx >= 0))
        .bind(limit);
    let found = if tenant.is_empty() { found } else { found.bind(tenant) };
    let jobs: Vec<EndedRow> = found.fetch_all(store.reads()).await?;
    Ok(Page { more: column(jobs.len()) >= limit, jobs })
}

/// Remembers that a policy has nothing to do with any job of a page. The last page is looked at
/// again.
pub(super) async fn pass_over(
    store: &Record,
    term: Term,
    walk: &Walk,
    page: &Page,
) -> Result<(), Error> {
    let Some(last) = page.jobs.last().filter(|_| page.more) else { return Ok(()) };
    let mut tx = store.begin_write().await?;
    store.check_term(&mut tx, term).await?;
    let place = Reached { ended: last.ended, seq: last.seq, idx: -1 };
    set_reached(&mut tx, (&walk.policy, walk.reached), place).await?;
    Ok(tx.commit().await?)
}

/// Remembers how far a policy has come. Returns whether it was where and what it was read as:
/// another leader may have been here since, or somebody may have set the policy.
pub(super) async fn set_reached(
    tx: &mut Tx,
    (policy, reached): (&Policy, Reached),
    place: Reached,
) -> Result<bool, Error> {
    let set = sqlx::query(
        "UPDATE retention SET reached = $4, reached_seq = $5, reached_idx = $6
         WHERE tenant = $1 AND subject = $2 AND outcome = $3
           AND reached = $7 AND reached_seq = $8 AND reached_idx = $9 AND seconds = $10",
    )
    .bind(&policy.scope.tenant)
    .bind(policy.scope.subject.name())
    .bind(policy.scope.outcome.map_or("", JobState::name))
    .bind(place.ended)
    .bind(place.seq)
    .bind(place.idx)
    .bind(reached.ended)
    .bind(reached.seq)
    .bind(reached.idx)
    .bind(policy.keep.map(|keep| column(keep.as_secs())))
    .execute(&mut **tx)
    .await?;
    Ok(set.rows_affected() > 0)
}
