//! Who leads dispatch and reaping: a row with a holder, a term and an end by the database's clock.
//!
//! A leader's transactions lock the row and name the term, so that they and a takeover exclude each other: whoever
//! was stopped or cut off finds its term over, and what it had not committed never happens. (An advisory lock would
//! outlive a stopped process.)

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use darkroom_core::guard::{self, Guard, stands};
use sqlx::postgres::PgListener;

use super::{Error, PostgresStore, Tx, rows::number};
use crate::store::records::Term;

/// How long a leadership lasts without being renewed.
const LASTS: Duration = Duration::from_secs(8);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How often another holder looks whether it is free.
const LOOK: Duration = Duration::from_millis(500);
/// Where hints for the leader are told.
const CHANNEL: &str = "darkroom_dispatch";

/// What was last known of the leadership, so that asking often costs nothing.
#[derive(Debug, Default)]
pub(super) struct Leadership(Mutex<Option<Known>>);

#[derive(Clone, Debug)]
struct Known {
    holder: String,
    term: Option<Term>,
    asked: Instant,
}

impl Leadership {
    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of a moment ago, if that is soon enough.
    fn fresh(&self, holder: &str) -> Option<Option<Term>> {
        let known = self.known();
        let known = known.as_ref().filter(|known| known.holder == holder)?;
        let lasts = if known.term.is_some() { RENEW } else { LOOK };
        (known.asked.elapsed() < lasts).then_some(known.term)
    }

    /// Forgets the answer: it proved wrong.
    pub(super) fn forget(&self) {
        *self.known() = None;
    }
}

impl PostgresStore {
    pub(super) async fn take_lead(&self, holder: &str) -> Result<Option<Term>, Error> {
        if let Some(term) = self.leadership.fresh(holder) {
            return Ok(term);
        }
        let asked = Instant::now();
        let term: Option<i64> = sqlx::query_scalar(guard::text(
            Guard::LeadExpires,
            "UPDATE leadership
             SET term = term + CASE WHEN holder = $1 THEN 0 ELSE 1 END, holder = $1,
                 until = clock_timestamp() + $2 * interval '1 second'
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
        *self.leadership.known() = Some(Known { holder: holder.to_owned(), term, asked });
        Ok(term)
    }

    pub(super) async fn give_lead_up(&self, holder: &str) -> Result<(), Error> {
        self.leadership.forget();
        sqlx::query("UPDATE leadership SET holder = '', until = '-infinity' WHERE holder = $1")
            .bind(holder)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn notify_leader(&self) -> Result<(), Error> {
        // Nothing is lost with it, so its commit need not wait for the disk.
        sqlx::query("SELECT set_config('synchronous_commit', 'off', TRUE), pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn notified(&self) -> Result<(), Error> {
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

    /// Makes sure that `term` lasts at least until the transaction ends.
    pub(super) async fn check_term(&self, tx: &mut Tx, term: Term) -> Result<(), Error> {
        let current: Option<i64> = sqlx::query_scalar("SELECT term FROM leadership WHERE one FOR SHARE")
            .fetch_optional(&mut **tx)
            .await?;
        if current.map(number::<u64>).transpose()? == Some(term.0) || !stands(Guard::TermChecked) {
            return Ok(());
        }
        self.leadership.forget();
        Err(Error::NotLeading(term.0))
    }
}
