//! The edges of a coordinator: databases as people run them, poolers in front of them, lost
//! answers, and requests that none of our clients sends.

mod commits;
mod failover;
mod opening;
mod poolers;
mod requests;
mod sqlite;
mod tls;

use darkroom_coordinator::store::{
    Error,
    postgres::{Options, PostgresStore},
};
use darkroom_core::error::UserError;

/// Returns why a database is refused, and checks that the sentence names the field and has no
/// password.
pub(crate) async fn refusal(url: &str) -> UserError {
    refusal_with(url, Options::default()).await
}

pub(crate) async fn refusal_with(url: &str, options: Options) -> UserError {
    let error = PostgresStore::connect(url, options).await.expect_err("refused");
    assert!(matches!(error, Error::NotOpened(_)), "{error:?}");
    let error = error.to_user();
    let message = &error.message;
    assert!(
        !message.contains('\n') && !message.contains("a password") && !message.contains("the log"),
        "{message}"
    );
    error
}
