//! Numbers of job changes. A trigger counts them. There is one writer, so their order is the order
//! of the commits.

use super::{Error, SqliteStore, rows::number};
use crate::store::farm_changes::ChangeBounds;

pub(super) async fn bounds(store: &SqliteStore) -> Result<ChangeBounds, Error> {
    let (latest, forgotten): (i64, i64) =
        sqlx::query_as("SELECT changes, forgotten_changes FROM farm")
            .fetch_one(&store.readers)
            .await?;
    let next = number::<u64>(latest)? + 1;
    let era = store.farm.simple().to_string();
    Ok(ChangeBounds { era, settled: next, next, forgotten: number(forgotten)? })
}
