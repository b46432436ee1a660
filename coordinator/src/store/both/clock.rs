//! The database's clock, in statements.

use super::{Error, Tx};

/// The time now, milliseconds since 1970.
macro_rules! now_ms {
    () => {
        sql!(
            sqlite: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            postgres: "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        )
    };
}
pub(super) use now_ms;

/// Today (UTC), as 2026-01-31.
macro_rules! today {
    () => {
        sql!(
            sqlite: "date('now')",
            postgres: "to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        )
    };
}
pub(super) use today;

/// When today (UTC) began, as `work_log` and `usage_log` have their times.
macro_rules! midnight {
    () => {
        sql!(
            sqlite: "unixepoch('now', 'start of day') * 1000",
            postgres: "date_trunc('day', statement_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
        )
    };
}
pub(super) use midnight;

/// The time now, milliseconds since 1970.
pub(super) async fn now(tx: &mut Tx) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut **tx).await?)
}
