//! A transaction, and running it again where it lost against another one.

use sqlx::Postgres;

use super::{Error, fault};

/// A transaction.
pub(super) type Tx = sqlx::Transaction<'static, Postgres>;

/// How often a transaction that lost against another one is run again.
const ATTEMPTS: u32 = 8;

/// Runs a transaction, and again when it lost against another one.
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(
    transaction: impl Fn() -> F,
) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        match transaction().await {
            Err(error) if attempt < ATTEMPTS && fault::conflict(&error) => {
                tracing::debug!(attempt, %error, "transaction runs again");
                attempt += 1;
            }
            done => return done,
        }
    }
}
