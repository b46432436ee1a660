//! Common parts of all calls: the coordinator, a time limit, and errors for users.

use std::{future::Future, sync::Arc, time::Duration};

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
};
use darkroom_farm_api::Answer;
use tokio::sync::OnceCell;

use super::{one_call::OneCall, stage_names::StageNames, tokens::Tokens};
use crate::{
    error::Error,
    shared::Shared,
    store::{self, Store, error::OUTCOME_UNKNOWN, roles::Outcomes},
};

/// The farm's calls, with a coordinator.
#[derive(Clone)]
pub(crate) struct Farm {
    pub(super) shared: Arc<Shared>,
    /// The record, over connections that are never used for bulk work.
    pub(super) front: Arc<dyn Store>,
    /// For tasks that are taken back in this process's term. Uses the connections of the farm's
    /// work.
    pub(super) outcomes: Arc<dyn Outcomes>,
    pub(super) stage_names: Arc<StageNames>,
    /// Made when the first listing needs them.
    pub(super) tokens: Arc<OnceCell<Tokens>>,
    /// The call that runs.
    pub(super) call: OneCall,
}

impl Farm {
    /// For one call, which is told apart from the others.
    pub(super) fn for_one_call(&self) -> (Self, OneCall) {
        let call = OneCall::default();
        (Self { call: call.clone(), ..self.clone() }, call)
    }

    /// The tokens of listings. Every coordinator of a farm seals and opens the same ones.
    pub(super) async fn tokens(&self) -> Result<&Tokens, Error> {
        let make = || async {
            let secret = self.front.token_secret(Tokens::fresh_secret()).await?;
            Ok(Tokens::new(secret))
        };
        self.tokens.get_or_try_init(make).await
    }

    /// Runs a unary call within the server's time limit, and logs internal errors.
    pub(super) async fn unary<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(UserError::new(
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                format!(
                    "the call did not finish within {} s; it only reads, so it can be repeated",
                    limit.as_secs()
                ),
            )),
        }
    }

    /// The error of a call that changes something, for its user.
    pub(super) fn told(&self, error: &Error) -> UserError {
        self.shared.disks.note(error);
        failure(error)
    }

    /// As [`unary`](Self::unary), for a call that changes something. If it did not finish, the
    /// change may have been made.
    pub(super) async fn changing<T>(
        &self,
        limit: Duration,
        again: Again<'_>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        let why = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Error::Store(error @ store::Error::Unknown(_)))) => error.to_string(),
            Ok(Err(error)) => return Err(self.told(&error)),
            Err(_) => format!(
                "the call did not finish within {} s, and its change may have been made",
                limit.as_secs()
            ),
        };
        let (code, advice) = match again {
            Again::Harmless => (Code::Unavailable, "repeat it, which does no harm".to_owned()),
            Again::Keys => {
                let advice = "`darkroom key list` shows whether a key was made; revoke it, because \
                              its secret is lost";
                (Code::Unknown, advice.to_owned())
            }
            Again::Webhooks => {
                let advice = "`darkroom webhook list` shows whether a webhook was made; remove it, \
                              because its secret is lost";
                (Code::Unknown, advice.to_owned())
            }
            Again::Look(job) => {
                (Code::Unknown, format!("`darkroom status {job}` shows whether it was"))
            }
        };
        Err(failure(&Error::Unsure(UserError::new(
            code,
            OUTCOME_UNKNOWN,
            format!("{why}; {advice}"),
        ))))
    }
}

/// Advice for a user when it is not known whether a change was made.
pub(super) enum Again<'a> {
    /// Repeat the call.
    Harmless,
    /// Look at the keys.
    Keys,
    /// Look at the webhooks.
    Webhooks,
    /// Look at this job.
    Look(&'a str),
}

/// Converts an error for its user. Internal errors are logged here, once.
pub(super) fn failure(error: &Error) -> UserError {
    let mut user = error.to_user();
    user.message = shortened(user.message);
    if let Error::Unsure(_) = error {
        tracing::warn!(%error, "it is not known whether a change was made");
    } else if matches!(user.code, Code::Internal | Code::Unknown) {
        tracing::error!(error = error as &dyn std::error::Error, "call failed");
    }
    user
}

/// Longest message of an error, in bytes. gRPC sends it twice in headers, where characters beyond
/// ASCII take three times their size.
const MESSAGE: usize = 1200;

/// Cuts the middle out of a message with a long value. The beginning has the field, and the end the
/// accepted values.
fn shortened(message: String) -> String {
    if message.len() <= MESSAGE {
        return message;
    }
    let head = message.floor_char_boundary(MESSAGE / 2);
    let tail = message.ceil_char_boundary(message.len() - MESSAGE / 2);
    let left_out = tail - head;
    match (message.get(..head), message.get(tail..)) {
        (Some(head), Some(tail)) => format!("{head}… ({left_out} more bytes) …{tail}"),
        _ => message,
    }
}

pub(super) fn refused(error: UserError) -> Error {
    Error::Store(store::Error::Refused(error))
}

pub(super) fn job_id(field: &str, text: &str) -> Result<JobId, Error> {
    text.parse()
        .map_err(|error: UserError| refused(UserError { field: Some(field.to_owned()), ..error }))
}
