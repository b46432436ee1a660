//! What was last known of the leadership.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::store::records::Term;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How often another holder looks whether it is free.
const LOOK: Duration = Duration::from_millis(500);

/// What was last known of the leadership, so that asking often costs nothing.
#[derive(Debug, Default)]
pub(super) struct Leadership(Mutex<Option<Known>>);

#[derive(Clone, Debug)]
struct Known {
    holder: String,
    term: Option<Term>,
    asked: Instant,
}

impl Leadership {
    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an answer, and when it was asked for.
    pub(super) fn remember(&self, holder: &str, term: Option<Term>, asked: Instant) {
        *self.known() = Some(Known { holder: holder.to_owned(), term, asked });
    }

    /// The answer of a moment ago, if that is soon enough.
    pub(super) fn fresh(&self, holder: &str) -> Option<Option<Term>> {
        let known = self.known();
        let known = known.as_ref().filter(|known| known.holder == holder)?;
        let lasts = if known.term.is_some() { RENEW } else { LOOK };
        (known.asked.elapsed() < lasts).then_some(known.term)
    }

    /// Forgets the answer: it proved wrong.
    pub(super) fn forget(&self) {
        *self.known() = None;
    }
}
