//! The database's clock, in statements.

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
