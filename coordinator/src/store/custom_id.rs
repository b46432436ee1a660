//! Custom ids are unique within their job.

use darkroom_core::{error::UserError, label::Naming};

use super::{Error, records::NewPrompt};

/// A prompt that has a custom id, as a refusal names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// 0-based position in the job.
    pub(crate) position: u64,
    /// Line of the client's file; 0 for none.
    pub(crate) line: u64,
}

/// The refusal of a custom id that two prompts have.
pub(crate) fn taken(custom_id: &str, one: Holder, other: Holder) -> UserError {
    let (first, second) = (one.min(other), one.max(other));
    let line = |holder: Holder| match holder.line {
        0 => String::new(),
        line => format!(" (line {line})"),
    };
    let field = format!("prompts[{}].custom_id", second.position);
    let message = format!(
        "{field}{} is {custom_id:?}, and so is prompts[{}].custom_id{}; accepted: each custom id once in a job",
        line(second),
        first.position,
        line(first)
    );
    UserError::invalid(field, message)
}

/// The refusal of a chunk of which a custom id is another prompt's, given the prompts of the job that have one of the chunk's
/// ids, some of them the chunk's own: id, position and line.
pub(super) fn taken_of(prompts: &[NewPrompt], found: Vec<(String, i64, Option<i64>)>) -> Error {
    for (id, position, line) in found {
        let has_id = |prompt: &&NewPrompt| prompt.naming.custom_id.as_ref() == Some(&id);
        let holder = Holder {
            position: u64::try_from(position).unwrap_or_default(),
            line: line.and_then(|line| u64::try_from(line).ok()).unwrap_or_default(),
        };
        let other = prompts.iter().filter(has_id).find(|prompt| prompt.position != holder.position);
        if let Some(other) = other {
            return taken(&id, holder, Holder::of(other.position, &other.naming)).into();
        }
    }
    Error::Corrupt("prompts were not kept, and no custom id is another's".to_owned())
}

impl Holder {
    /// A prompt at a position.
    pub(crate) fn of(position: u64, naming: &Naming) -> Self {
        Self { position, line: naming.line.unwrap_or(0) }
    }
}
