//! Custom ids are unique within their job.

use darkroom_core::{error::UserError, label::Naming};

use super::{Error, records::NewPrompt, row::row};

/// A prompt with a custom id, for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// 0-based position in the job.
    pub(crate) position: u64,
    /// Line of the client's file; 0 for none.
    pub(crate) line: u64,
}

row! {
    /// A prompt that has a custom id, as SQL gives it.
    pub(super) struct HolderRow {
        custom_id: String,
        position: i64,
        line: Option<i64>,
    }
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

/// The refusal of a chunk with a custom id that another prompt has. Takes all prompts of the job
/// with one of the chunk's ids, including the chunk's own.
pub(super) fn taken_of(prompts: &[NewPrompt], found: Vec<HolderRow>) -> Error {
    for HolderRow { custom_id, position, line } in found {
        let has_id = |prompt: &&NewPrompt| prompt.naming.custom_id.as_ref() == Some(&custom_id);
        let holder = Holder {
            position: u64::try_from(position).unwrap_or_default(),
            line: line.and_then(|line| u64::try_from(line).ok()).unwrap_or_default(),
        };
        let other = prompts.iter().filter(has_id).find(|prompt| prompt.position != holder.position);
        if let Some(other) = other {
            return taken(&custom_id, holder, Holder::of(other.position, &other.naming)).into();
        }
    }
    Error::Corrupt("prompts were not kept, but no custom id is a duplicate".to_owned())
}

impl Holder {
    /// A prompt at a position.
    pub(crate) fn of(position: u64, naming: &Naming) -> Self {
        Self { position, line: naming.line.unwrap_or(0) }
    }
}
