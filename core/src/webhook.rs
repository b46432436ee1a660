//! Webhooks: their ids, and the types of events that are sent to them.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{
    batch_state::BatchState,
    error::{Code, UserError},
    job_state::JobState,
    label::printable,
};

/// How the id of a webhook begins.
const PREFIX: &str = "wh_";
/// Longest address, in bytes.
pub const MAX_URL: usize = 2000;
/// Longest name, in characters.
pub const MAX_NAME: usize = 200;

/// The id of a webhook: `wh_` and 32 hexadecimal digits, which are random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WebhookId(Uuid);

impl WebhookId {
    /// A new one.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.as_simple())
    }
}

impl fmt::Debug for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WebhookId {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        // One form alone, so that one webhook has one name.
        let is_plain = |digits: &&str| {
            digits.len() == 32
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let digits = text.strip_prefix(PREFIX).filter(is_plain);
        digits.and_then(|digits| Uuid::try_parse(digits).ok()).map(Self).ok_or_else(|| {
            // A secret may stand here by mistake, so the value is not repeated.
            let message = "id is not the id of a webhook; accepted: wh_ and 32 hexadecimal digits";
            UserError::invalid("id", message)
        })
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A job is done, and its manifest is written.
    JobCompleted,
    /// A job has failed, and its manifest is written.
    JobFailed,
    /// A job was cancelled, and its manifest is written.
    JobCancelled,
    /// A batch is done.
    BatchCompleted,
    /// A batch has failed.
    BatchFailed,
    /// A batch was not done in time.
    BatchExpired,
    /// A batch was cancelled.
    BatchCancelled,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::JobCompleted,
        Self::JobFailed,
        Self::JobCancelled,
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::BatchExpired,
        Self::BatchCancelled,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JobCompleted => "job.completed",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::BatchExpired => "batch.expired",
            Self::BatchCancelled => "batch.cancelled",
        }
    }

    /// What is said of a job that ended like this; `None` if it has not ended.
    #[must_use]
    pub fn of_job(state: JobState) -> Option<Self> {
        match state {
            JobState::Done => Some(Self::JobCompleted),
            JobState::Failed => Some(Self::JobFailed),
            JobState::Cancelled => Some(Self::JobCancelled),
            _ => None,
        }
    }

    /// What is said of a batch that ended like this; `None` if it has not ended.
    #[must_use]
    pub fn of_batch(state: BatchState) -> Option<Self> {
        match state {
            BatchState::Completed => Some(Self::BatchCompleted),
            BatchState::Failed => Some(Self::BatchFailed),
            BatchState::Expired => Some(Self::BatchExpired),
            BatchState::Cancelled => Some(Self::BatchCancelled),
            BatchState::Validating
            | BatchState::InProgress
            | BatchState::Finalizing
            | BatchState::Cancelling => None,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventType {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|known| known.name()).collect();
            let shown: String = name.chars().take(64).collect();
            let message = format!(
                "event_types has {shown:?}; accepted: {}, or none for all",
                known.join(", ")
            );
            UserError::invalid("event_types", message)
        })
    }
}

/// Checks the name of a new webhook.
///
/// # Errors
/// If it is too long, or has a character that cannot be printed.
pub fn check_name(name: &str) -> Result<(), UserError> {
    let characters = name.chars().count();
    if characters > MAX_NAME {
        let message = format!("name has {characters} characters; accepted: at most {MAX_NAME}");
        return Err(UserError::invalid("name", message));
    }
    printable("name", name, &[])
}

/// There is no such webhook, or it is another tenant's.
#[must_use]
pub fn not_found(id: WebhookId) -> UserError {
    UserError::new(Code::NotFound, "NOT_FOUND", format!("there is no webhook {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_form() {
        let id = WebhookId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        let digits = id.to_string()[3..].to_owned();
        for wrong in [
            String::new(),
            digits.clone(),
            format!("wh_{digits}0"),
            format!("wh_{}", &digits[1..]),
            format!("wh_{}G", &digits[1..]),
            "wh_0123456789ABCDEF0123456789ABCDEF".to_owned(),
            format!("wh_{{{}}}", &digits[2..]),
            "whsec_secret".to_owned(),
        ] {
            let refused = wrong.parse::<WebhookId>().expect_err(&wrong);
            assert_eq!(refused.field.as_deref(), Some("id"));
            assert!(!refused.message.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn each_type_has_a_name_and_each_end_of_a_job_a_type() {
        for kind in EventType::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            // In SQL, the types of a webhook are names between spaces.
            assert!(kind.name().chars().all(|c| c.is_ascii_lowercase() || c == '.'), "{kind}");
        }
        let refused = "job.done".parse::<EventType>().expect_err("unknown");
        assert!(refused.message.contains("accepted: job.completed, job.failed"), "{refused}");
        for state in JobState::ALL {
            assert_eq!(EventType::of_job(state).is_some(), state.terminal(), "{state}");
        }
    }

    #[test]
    fn a_name_is_short_and_can_be_shown() {
        assert!(check_name("").is_ok() && check_name(&"é".repeat(MAX_NAME)).is_ok());
        assert!(
            check_name(&"a".repeat(MAX_NAME + 1)).is_err() && check_name("a\u{1b}[2J").is_err()
        );
    }
}
