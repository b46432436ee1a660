//! The edges of a coordinator: databases as people have them, what stands before them, answers that are lost, and requests
//! that no client of ours sends.

#[path = "../support/mod.rs"]
mod support;

mod commits;
mod failover;
mod opening;
mod poolers;
mod requests;

use darkroom_coordinator::store::{
    Error,
    postgres::{Options, PostgresStore},
};
use darkroom_core::error::UserError;

/// Why a database is refused; the sentence names the field, and never a password.
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
