//! Meaning of SQL errors for callers. Each backend maps its own database's errors; the library's
//! errors are the same for both.

#[cfg(feature = "cluster")]
use sqlx::postgres::PgDatabaseError;

#[cfg(feature = "cluster")]
use super::postgres;
use super::{Error, sqlite};

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            #[cfg(feature = "cluster")]
            E::Database(said) if said.try_downcast_ref::<PgDatabaseError>().is_some() => {
                postgres::fault::of(error)
            }
            E::Database(_) => sqlite::fault::of(error),
            E::Io(_)
            | E::Tls(_)
            | E::Protocol(_)
            | E::PoolTimedOut
            | E::PoolClosed
            | E::WorkerCrashed => Self::Unavailable(error),
            E::Encode(_) | E::Decode(_) | E::ColumnDecode { .. } => Self::Unfit(error),
            _ => Self::Database(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_is_about_the_data_and_a_lost_connection_is_not() {
        let decode: Error = sqlx::Error::Decode("not a number".into()).into();
        assert!(decode.is_about_the_data() && !decode.retryable());
        for lost in [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed, sqlx::Error::WorkerCrashed]
        {
            let lost: Error = lost.into();
            assert!(lost.retryable() && !lost.is_about_the_data(), "{lost}");
        }
    }
}
