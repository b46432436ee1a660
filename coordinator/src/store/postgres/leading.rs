//! The leader of dispatch and reaping: a row with its holder, its term, and its end by the
//! database's clock.
//!
//! A leader's transactions lock the row and check the term, so that no takeover can happen during
//! one. A process that was stopped or cut off finds that its term is over, and its transaction
//! fails. (An advisory lock would outlive a stopped process.)

use std::time::{Duration, Instant};

use async_trait::async_trait;
use darkroom_core::guard::{self, Guard, stands};
use sqlx::postgres::PgListener;

use super::{Error, PostgresStore, Tx, rows::number};
use crate::store::{
    records::{RunningCoordinator, Term},
    roles::Leading,
};

/// How long leadership lasts without a renewal.
const LASTS: Duration = Duration::from_secs(8);
/// The channel of hints for the leader.
const CHANNEL: &str = "darkroom_dispatch";

#[async_trait]
impl Leading for PostgresStore {
    async fn lead(&self, holder: &str) -> Result<Option<Term>, Error> {
        if let Some(term) = self.leadership.fresh(holder) {
            return Ok(term);
        }
        let asked = Instant::now();
        let term: Option<i64> = sqlx::query_scalar(guard::text(
            Guard::LeadExpires,
            // The term counts from when Postgres got the request, and not from when the row was
            // free: the process may have been stopped in between. A late renewal shortens no newer
            // one. If the clock was set back, the next renewal brings the term's end back, too.
            "UPDATE leadership
             SET term = term + CASE WHEN holder = $1 THEN 0 ELSE 1 END, holder = $1,
                 until = least(clock_timestamp() + $2 * interval '1 second',
                               greatest(CASE WHEN holder = $1 THEN until END,
                                        statement_timestamp() + $2 * interval '1 second'))
             WHERE holder = $1 OR until < clock_timestamp()
             RETURNING term",
            "OR until < clock_timestamp()",
            "OR TRUE",
        ))
        .bind(holder)
        .bind(LASTS.as_secs_f64())
        .fetch_optional(&self.pool)
        .await?;
        let term = term.map(|term| Ok::<_, Error>(Term(number(term)?))).transpose()?;
        self.leadership.remember(holder, term, asked);
        Ok(term)
    }

    async fn resign(&self, holder: &str) -> Result<(), Error> {
        self.leadership.forget();
        sqlx::query("UPDATE leadership SET holder = '', until = '-infinity' WHERE holder = $1")
            .bind(holder)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn coordinators(&self, _own: &str) -> Result<Vec<RunningCoordinator>, Error> {
        let rows: Vec<(String, i64, bool)> = sqlx::query_as(
            "SELECT c.holder, (extract(epoch FROM c.seen) * 1000)::bigint,
                    EXISTS (SELECT FROM leadership AS l WHERE l.holder = c.holder AND l.until > clock_timestamp())
             FROM coordinators AS c WHERE c.seen > clock_timestamp() - interval '30 seconds'
             ORDER BY c.holder",
        )
        .fetch_all(&self.pool)
        .await?;
        let coordinator = |(holder, seen_ms, leads)| RunningCoordinator { holder, leads, seen_ms };
        Ok(rows.into_iter().map(coordinator).collect())
    }

    async fn tell_leader(&self) -> Result<(), Error> {
        // A lost hint does no harm, so its commit need not wait for the disk.
        sqlx::query("SELECT set_config('synchronous_commit', 'off', TRUE), pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn told(&self) -> Result<(), Error> {
        let mut kept = self.listener.lock().await;
        let mut listener = match kept.take() {
            Some(listener) => listener,
            None => {
                let mut listener = PgListener::connect_with(&self.pool).await?;
                listener.listen(CHANNEL).await?;
                listener
            }
        };
        listener.recv().await?;
        *kept = Some(listener);
        Ok(())
    }
}

impl PostgresStore {
    /// Makes sure that `term` is current, and stays so until the transaction ends.
    pub(super) async fn check_term(&self, tx: &mut Tx, term: Term) -> Result<(), Error> {
        let current: Option<i64> =
            sqlx::query_scalar("SELECT term FROM leadership WHERE one FOR SHARE")
                .fetch_optional(&mut **tx)
                .await?;
        if current.map(number::<u64>).transpose()? == Some(term.0) || !stands(Guard::TermChecked) {
            return Ok(());
        }
        self.leadership.forget();
        Err(Error::NotLeading(term.0))
    }
}
