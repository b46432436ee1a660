//! Transactions, and running them again after a conflict.

use sqlx::Postgres;

use super::{Error, fault};

/// A transaction.
pub(super) type Tx = sqlx::Transaction<'static, Postgres>;

/// How often a transaction is tried if it conflicts with others.
const ATTEMPTS: u32 = 8;

/// Runs a transaction, and runs it again after a conflict with another one.
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
