//! The life of a text that is to be encoded, as a pure function: `wanted ⇄ dispatched → done`, or
//! `dead`.
//!
//! Jobs share texts, so a text knows no job. Only [`transition`] decides what a result, a loss or a
//! new job does to a text. Only [`outlook`] decides what the texts of a prompt mean for its images.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::UserError,
    retry::{self, Failure, Verdict},
};

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextState {
    /// It may be dispatched.
    Wanted,
    /// It is with the queue or an encoder.
    Dispatched,
    /// Its embedding is stored.
    Done,
    /// It failed for good. A retry, or a new job with this text, tries again.
    Dead,
}

impl TextState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Wanted, Self::Dispatched, Self::Done, Self::Dead];

    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Dispatched => "dispatched",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Whether no encoder needs to work on it: its embedding is stored, or it failed for good.
    #[must_use]
    pub fn settled(self) -> bool {
        matches!(self, Self::Done | Self::Dead)
    }
}

impl fmt::Display for TextState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TextState {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            let accepted = "wanted, dispatched, done, dead";
            UserError::invalid("states", format!("text state is {name:?}; accepted: {accepted}"))
        })
    }
}

/// How far a text has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextProgress {
    /// Its state.
    pub state: TextState,
    /// Raised each time its task is handed to the queue.
    pub dispatch: u64,
    /// Failures that counted.
    pub failures: u32,
    /// Devices on which they happened, each once.
    pub places: Vec<String>,
    /// It failed in a shared batch, or its encoder died: it runs alone.
    pub suspect: bool,
}

/// What happens to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEvent<'a> {
    /// Its task goes to the queue.
    Dispatch,
    /// An encoder stored its embedding.
    Encoded {
        /// Dispatch of the task.
        dispatch: u64,
    },
    /// The task itself failed, or the encoder that held it died.
    Failed {
        /// Dispatch of the task.
        dispatch: u64,
        /// Where and how.
        failure: Failure<'a>,
    },
    /// The task was drained, interrupted, taken back or lost by the queue. It counts as no failure.
    Returned {
        /// Dispatch of the task.
        dispatch: u64,
    },
    /// Its embedding is gone from storage.
    Lost,
    /// It failed for good before, and a retry or another job needs it now.
    Revived,
}

/// Why an event changes nothing. The result that carried it is discarded and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextRefusal {
    /// Nobody waits for its embedding: it is stored, or the text failed for good.
    Settled,
    /// It is not dispatched, or it was dispatched again since.
    StaleDispatch,
    /// Its state does not allow this.
    OtherState,
}

/// The state of `text` after `event`.
///
/// # Errors
/// Why the event changes nothing.
pub fn transition(text: &TextProgress, event: &TextEvent<'_>) -> Result<TextProgress, TextRefusal> {
    use TextState as S;
    let mut next = text.clone();
    match *event {
        TextEvent::Dispatch => {
            next.state = expect(text, S::Wanted, S::Dispatched)?;
            next.dispatch += 1;
        }
        TextEvent::Encoded { dispatch } => {
            if text.state.settled() {
                return Err(TextRefusal::Settled);
            }
            // Otherwise whoever kept an old result could bring back an embedding that turned out to
            // be unusable.
            held(text, dispatch)?;
            (next.state, next.suspect) = (S::Done, false);
        }
        TextEvent::Failed { dispatch, failure } => {
            held(text, dispatch)?;
            let verdict = retry::charge(&mut next.failures, &mut next.places, failure);
            next.suspect = true;
            next.state = if verdict == Verdict::Dead { S::Dead } else { S::Wanted };
        }
        TextEvent::Returned { dispatch } => {
            held(text, dispatch)?;
            next.state = S::Wanted;
        }
        TextEvent::Lost => next.state = expect(text, S::Done, S::Wanted)?,
        TextEvent::Revived => {
            next.state = expect(text, S::Dead, S::Wanted)?;
            next.failures = 0;
            next.places.clear();
            next.suspect = false;
        }
    }
    Ok(next)
}

fn expect(text: &TextProgress, now: TextState, next: TextState) -> Result<TextState, TextRefusal> {
    if text.state == now { Ok(next) } else { Err(TextRefusal::OtherState) }
}

fn held(text: &TextProgress, dispatch: u64) -> Result<(), TextRefusal> {
    let holds = text.state == TextState::Dispatched && text.dispatch == dispatch;
    if holds { Ok(()) } else { Err(TextRefusal::StaleDispatch) }
}

/// What the texts of a prompt mean for its images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outlook {
    /// At least one is not encoded yet.
    #[default]
    Waits,
    /// All are encoded.
    Encoded,
    /// At least one failed for good, so the images cannot be rendered.
    Dead,
}

/// What the texts of a prompt mean for its images; `texts` are all texts that it has.
#[must_use]
pub fn outlook(texts: impl IntoIterator<Item = TextState>) -> Outlook {
    let mut outlook = Outlook::Encoded;
    for text in texts {
        match text {
            TextState::Dead => return Outlook::Dead,
            TextState::Done => {}
            TextState::Wanted | TextState::Dispatched => outlook = Outlook::Waits,
        }
    }
    outlook
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> TextProgress {
        TextProgress {
            state: TextState::Wanted,
            dispatch: 3,
            failures: 0,
            places: Vec::new(),
            suspect: false,
        }
    }

    fn after(text: &TextProgress, events: &[TextEvent<'_>]) -> TextProgress {
        events.iter().fold(text.clone(), |text, event| transition(&text, event).expect("fits"))
    }

    fn failed(dispatch: u64, place: &str, alone: bool) -> TextEvent<'_> {
        let failure = Failure { place, alone, live_places: 1, death_limit: None };
        TextEvent::Failed { dispatch, failure }
    }

    #[test]
    fn an_embedding_counts_for_the_dispatch_that_made_it_and_only_once() {
        let encoded = |dispatch| TextEvent::Encoded { dispatch };
        let text = after(&wanted(), &[TextEvent::Dispatch]);
        let done = after(&text, &[encoded(4)]);
        assert_eq!(done.state, TextState::Done);
        assert_eq!(transition(&done, &encoded(4)), Err(TextRefusal::Settled));
        let taken_back = after(&text, &[TextEvent::Returned { dispatch: 4 }]);
        let lost = after(&done, &[TextEvent::Lost]);
        let again = after(&lost, &[TextEvent::Dispatch]);
        for text in [taken_back, lost, again] {
            let replayed = transition(&text, &encoded(4));
            assert_eq!(replayed, Err(TextRefusal::StaleDispatch), "{text:?}");
        }
    }

    #[test]
    fn a_failure_or_return_of_another_dispatch_is_refused() {
        let text = after(&wanted(), &[TextEvent::Dispatch]);
        for event in [failed(3, "a", true), TextEvent::Returned { dispatch: 5 }] {
            assert_eq!(transition(&text, &event), Err(TextRefusal::StaleDispatch));
        }
        let free = after(&text, &[TextEvent::Returned { dispatch: 4 }]);
        assert_eq!(
            transition(&free, &failed(4, "a", true)),
            Err(TextRefusal::StaleDispatch),
            "nobody holds it"
        );
    }

    #[test]
    fn five_failures_alone_are_death_and_company_is_none() {
        let mut text = wanted();
        for round in 1..=5 {
            let dispatch = text.dispatch + 1;
            text = after(&text, &[TextEvent::Dispatch, failed(dispatch, "a", false)]);
            assert_eq!((text.failures, text.state), (round - 1, TextState::Wanted), "in company");
            let dispatch = text.dispatch + 1;
            text = after(&text, &[TextEvent::Dispatch, failed(dispatch, "a", true)]);
            assert_eq!((text.failures, text.places.len(), text.suspect), (round, 1, true));
        }
        assert_eq!(text.state, TextState::Dead);
        let encoded = TextEvent::Encoded { dispatch: text.dispatch };
        assert_eq!(transition(&text, &encoded), Err(TextRefusal::Settled));
        let revived = after(&text, &[TextEvent::Revived]);
        assert_eq!(revived, TextProgress { dispatch: text.dispatch, ..wanted() }, "it begins anew");
    }

    #[test]
    fn a_suspect_runs_alone_until_it_is_encoded() {
        let suspect = after(&wanted(), &[TextEvent::Dispatch, failed(4, "a", false)]);
        let returned = after(&suspect, &[TextEvent::Dispatch, TextEvent::Returned { dispatch: 5 }]);
        assert!(suspect.suspect && returned.suspect, "an interruption clears nobody");
        let encoded = TextEvent::Encoded { dispatch: 6 };
        let lost = after(&returned, &[TextEvent::Dispatch, encoded, TextEvent::Lost]);
        assert!(!lost.suspect, "it was encoded");
    }

    #[test]
    fn only_an_embedding_can_be_lost_and_only_a_dead_text_revived() {
        for state in TextState::ALL {
            let text = TextProgress { state, ..wanted() };
            let lost = transition(&text, &TextEvent::Lost).map(|next| next.state);
            let revived = transition(&text, &TextEvent::Revived).map(|next| next.state);
            let only = |wanted| {
                if state == wanted { Ok(TextState::Wanted) } else { Err(TextRefusal::OtherState) }
            };
            assert_eq!((lost, revived), (only(TextState::Done), only(TextState::Dead)), "{state}");
        }
    }

    #[test]
    fn a_dead_text_decides_and_one_that_is_missing_delays() {
        use TextState as S;
        assert_eq!(outlook([S::Done, S::Done]), Outlook::Encoded);
        assert_eq!(outlook([S::Done, S::Wanted, S::Done]), Outlook::Waits);
        assert_eq!(outlook([S::Dispatched]), Outlook::Waits);
        assert_eq!(outlook([S::Wanted, S::Dead, S::Done]), Outlook::Dead);
    }

    #[test]
    fn names_parse_back() {
        for state in TextState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert!("encoded".parse::<TextState>().is_err());
    }

    proptest! {
        #[test]
        fn a_text_that_keeps_failing_alone_dies(places in prop::collection::vec(0_u8..3, 10)) {
            let mut text = wanted();
            for place in places.iter().map(|place| format!("h{place}")) {
                let Ok(dispatched) = transition(&text, &TextEvent::Dispatch) else { break };
                text = after(&dispatched, &[failed(dispatched.dispatch, &place, true)]);
            }
            prop_assert_eq!(text.state, TextState::Dead);
        }
    }
}
