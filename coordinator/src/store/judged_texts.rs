//! Decides the changes that a bulk of results and losses makes to texts. The backend writes them.

use std::collections::HashMap;

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    text_state::{TextProgress, transition},
};
use darkroom_queue::task::Subject;

use super::{
    cause::{Cause, Settled},
    change::TextEnd,
    records::{Discard, Fate},
};

/// A text while a bulk is judged: as read, and with its changes.
pub(super) struct JudgedText<'a> {
    /// Its row.
    pub(super) id: i64,
    pub(super) from: TextProgress,
    pub(super) to: TextProgress,
    /// `None` while it has not changed.
    pub(super) end: Option<TextEnd<'a>>,
}

impl<'a> JudgedText<'a> {
    pub(super) fn new(id: i64, from: TextProgress) -> Self {
        Self { id, to: from.clone(), from, end: None }
    }

    /// Its embedding, if this bulk brought one.
    pub(super) fn encoded(&self) -> Option<(&'a ArtifactRef, &'a [String])> {
        match self.end {
            Some(TextEnd::Encoded { artifact, notes }) => Some((artifact, notes)),
            _ => None,
        }
    }

    /// Code and message of its failure, if this bulk made it fail.
    pub(super) fn failure(&self) -> Option<(&'a str, &'a str)> {
        match self.end {
            Some(TextEnd::Failed { code, message }) => Some((code.name(), message)),
            _ => None,
        }
    }

    fn judge(&mut self, cause: &Cause<'a>) -> Fate {
        let (event, end) = cause.text_event(self.to.suspect);
        match transition(&self.to, &event) {
            Ok(next) => {
                (self.to, self.end) = (next, Some(end));
                Fate::Applied
            }
            Err(refusal) => Fate::Discarded(refusal.into()),
        }
    }
}

/// The texts of these causes.
pub(super) fn texts_of(causes: &[Cause<'_>]) -> Vec<Digest> {
    let text = |cause: &Cause<'_>| match cause.key.subject {
        Subject::Text(digest) => Some(digest),
        Subject::Image(_) => None,
    };
    causes.iter().filter_map(text).collect()
}

/// Judges the causes in order. Returns their fates, and the changed texts in the order of their
/// rows.
pub(super) fn judge<'a>(
    mut texts: HashMap<Digest, JudgedText<'a>>,
    causes: &[Cause<'a>],
) -> (Settled, Vec<JudgedText<'a>>) {
    let mut settled = Settled::default();
    for cause in causes {
        let fate = match cause.key.subject {
            Subject::Text(digest) => match texts.get_mut(&digest) {
                Some(text) => text.judge(cause),
                None => Fate::Discarded(Discard::UnknownText),
            },
            Subject::Image(_) => Fate::Discarded(Discard::WrongPool),
        };
        settled.changed += u64::from(fate == Fate::Applied);
        settled.fates.push(fate);
    }
    let mut changed: Vec<_> = texts.into_values().filter(|text| text.end.is_some()).collect();
    changed.sort_unstable_by_key(|text| text.id);
    (settled, changed)
}
