//! What a worker does now, in the words of the worker and the farm.

use crate::open_name::open_names;

open_names! {
    /// What a worker does now. Any state that does not say otherwise takes tasks.
    WorkerState {
        /// It takes tasks.
        Working = "working",
        /// It takes no new tasks, finishes its own, and leaves.
        Draining = "draining",
        /// It gets no tasks for some time.
        SetAside = "set aside",
    }
}

impl WorkerState {
    /// Whether it takes tasks.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        !matches!(self, Self::Draining | Self::SetAside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_as_it_came() {
        for text in ["working", "draining", "set aside", "", "Working", "a state of tomorrow"] {
            let state = WorkerState::from(text);
            assert_eq!(state.name(), text);
            assert_eq!(String::from(state.clone()), text);
            let known = matches!(text, "working" | "draining" | "set aside");
            assert_eq!(WorkerState::KNOWN.contains(&state), known, "{text}");
        }
    }

    #[test]
    fn a_worker_in_a_state_of_tomorrow_takes_tasks() {
        let takes = |text: &str| WorkerState::from(text).takes_tasks();
        assert!(takes("working") && takes("a state of tomorrow"));
        assert!(!takes("draining") && !takes("set aside"));
    }
}
