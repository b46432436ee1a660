//! What a user asks of some images of a job.

use std::{fmt, str::FromStr};

use crate::{
    error::{Code, UserError},
    image_filter::ImageFilter,
    image_state::{ImageEvent, ImageState},
    job_state::JobEvent,
};

/// A command to some images of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageCommand {
    /// They are not rendered.
    Cancel,
    /// Those that are dead or cancelled run again.
    Retry,
}

impl ImageCommand {
    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    /// The states that it changes.
    #[must_use]
    pub fn states(self) -> &'static [ImageState] {
        use ImageState as S;
        match self {
            Self::Cancel => &[S::Waiting, S::Ready, S::Dispatched],
            Self::Retry => &[S::Dead, S::Cancelled],
        }
    }

    /// What it does to an image whose embeddings are committed or not.
    #[must_use]
    pub fn event(self, encoded: bool) -> ImageEvent<'static> {
        match self {
            Self::Cancel => ImageEvent::Cancel,
            Self::Retry => ImageEvent::Retry { encoded },
        }
    }

    /// What it does to the job.
    #[must_use]
    pub fn job_event(self) -> JobEvent {
        match self {
            Self::Cancel => JobEvent::CancelImages,
            Self::Retry => JobEvent::RetryImages,
        }
    }

    /// Refuses a filter that names no condition, or a state that the command does not change.
    ///
    /// # Errors
    /// `filter` or `filter.states`.
    pub fn check(self, filter: &ImageFilter) -> Result<(), UserError> {
        let accepted: Vec<_> = self.states().iter().map(|state| state.name()).collect();
        let accepted = accepted.join(", ");
        if filter.is_empty() {
            let message = format!(
                "filter is empty; accepted: index ranges, states, error codes, labels or text; to \
                 name all images, give all states ({accepted})"
            );
            return Err(UserError::invalid("filter", message));
        }
        let other = filter.states().iter().find(|state| !self.states().contains(state));
        other.map_or(Ok(()), |state| {
            let message =
                format!("filter.states has {state}; accepted in this command: {accepted}");
            Err(UserError::invalid("filter.states", message))
        })
    }
}

impl fmt::Display for ImageCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ImageCommand {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        [Self::Cancel, Self::Retry].into_iter().find(|command| command.name() == name).ok_or_else(
            || {
                let message = format!("image command is {name:?}; accepted: cancel, retry");
                UserError::new(Code::InvalidArgument, "INVALID_FIELD", message)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image_state::ImageProgress, prompt_filter::PromptFilter};

    fn of_states(states: &[ImageState]) -> ImageFilter {
        ImageFilter::new(&[], states.iter().copied(), vec![], PromptFilter::default())
            .expect("a filter")
    }

    #[test]
    fn a_command_changes_the_states_that_it_names_and_no_others() {
        for command in [ImageCommand::Cancel, ImageCommand::Retry] {
            assert_eq!(command.name().parse(), Ok(command));
            for state in ImageState::ALL {
                let image = ImageProgress {
                    state,
                    stage: 0,
                    generation: 1,
                    dispatch: 1,
                    failures: 0,
                    places: Vec::new(),
                    suspect: false,
                };
                let changed =
                    crate::image_state::transition(&image, &command.event(true), 1).is_ok();
                assert_eq!(changed, command.states().contains(&state), "{command} of {state}");
            }
        }
        assert!("pause".parse::<ImageCommand>().is_err());
    }

    #[test]
    fn an_empty_filter_and_a_state_of_another_kind_are_refused() {
        let check = |states: &[ImageState]| ImageCommand::Cancel.check(&of_states(states));
        assert_eq!(check(&[]).expect_err("empty").field.as_deref(), Some("filter"));
        let other = check(&[ImageState::Ready, ImageState::Done]).expect_err("done");
        assert_eq!(other.field.as_deref(), Some("filter.states"));
        assert!(other.message.contains("done") && other.message.contains("dispatched"), "{other}");
        assert_eq!(check(&[ImageState::Waiting]), Ok(()));
    }
}
