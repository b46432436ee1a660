//! How changes of jobs are numbered.
//!
//! A change's mark is the id of its transaction; a trigger writes it. Ids are given when a
//! transaction first writes, and become visible when it commits, in any order. But every
//! transaction below the oldest one that still runs has ended (`pg_snapshot_xmin`), so nothing can
//! appear there any more; and none from `pg_snapshot_xmax` on is visible yet.

use darkroom_core::{
    digest::Digest,
    guard::{Guard, stands},
};

use super::{Error, PostgresStore};
use crate::store::farm_changes::{ChangeBounds, mark};

pub(super) async fn bounds(store: &PostgresStore) -> Result<ChangeBounds, Error> {
    let (settled, next, forgotten): (String, String, String) = sqlx::query_as(
        "SELECT pg_snapshot_xmin(s.now)::text, pg_snapshot_xmax(s.now)::text, f.forgotten_changes::text
         FROM (SELECT pg_current_snapshot() AS now) AS s, farm AS f",
    )
    .fetch_one(&store.pool)
    .await?;
    // A copy of the database in another cluster has other transactions.
    let era = Digest::of(format!("{} {}", store.farm, store.identity).as_bytes()).short();
    let settled = if stands(Guard::ChangesSettled) { &settled } else { &next };
    let forgotten = mark(&forgotten)?;
    Ok(ChangeBounds { era, settled: mark(settled)?, next: mark(&next)?, forgotten })
}
