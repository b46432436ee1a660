//! The counters of a job that an image counts in. Both backends use it to add and subtract.

use darkroom_core::image_state::{ImageProgress, ImageState};

/// One of the counters of a job. Counters of a stage have its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    Ready(usize),
    Dispatched(usize),
    Passed(usize),
    Stopped(usize),
    Done,
    Dead,
    Cancelled,
}

/// How many images a job has, and how many of them are done or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) done: i64,
    pub(super) dead: i64,
    pub(super) images: i64,
}

/// Counts a change of an image that passes this many stages: subtracts its old counters and adds
/// its new ones.
pub(super) fn moved(
    (from, to): (&ImageProgress, &ImageProgress),
    stages: usize,
    mut add: impl FnMut(Counter, i64),
) {
    count(from, stages, |counter| add(counter, -1));
    count(to, stages, |counter| add(counter, 1));
}

fn count(image: &ImageProgress, stages: usize, mut add: impl FnMut(Counter)) {
    match image.state {
        ImageState::Waiting => {}
        ImageState::Ready => add(Counter::Ready(image.stage)),
        ImageState::Dispatched => add(Counter::Dispatched(image.stage)),
        ImageState::Done => add(Counter::Done),
        ImageState::Dead => add(Counter::Dead),
        ImageState::Cancelled => add(Counter::Cancelled),
    }
    let passed = image.stage + usize::from(image.state == ImageState::Done);
    (0..passed).for_each(|stage| add(Counter::Passed(stage)));
    if matches!(image.state, ImageState::Dead | ImageState::Cancelled) {
        (image.stage..stages).for_each(|stage| add(Counter::Stopped(stage)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_counts_in_its_state_and_in_every_stage_that_it_has_passed() {
        let image = |state, stage| ImageProgress {
            state,
            stage,
            generation: 0,
            dispatch: 0,
            failures: 0,
            places: Vec::new(),
            suspect: false,
        };
        let mut counted = Vec::new();
        let (from, to) = (image(ImageState::Dispatched, 1), image(ImageState::Done, 1));
        moved((&from, &to), 2, |counter, by| counted.push((counter, by)));
        let expected = [
            (Counter::Dispatched(1), -1),
            (Counter::Passed(0), -1),
            (Counter::Done, 1),
            (Counter::Passed(0), 1),
            (Counter::Passed(1), 1),
        ];
        assert_eq!(counted, expected);

        let mut counted = Vec::new();
        let (from, to) = (image(ImageState::Ready, 1), image(ImageState::Cancelled, 1));
        moved((&from, &to), 3, |counter, by| counted.push((counter, by)));
        let expected = [
            (Counter::Ready(1), -1),
            (Counter::Passed(0), -1),
            (Counter::Cancelled, 1),
            (Counter::Passed(0), 1),
            (Counter::Stopped(1), 1),
            (Counter::Stopped(2), 1),
        ];
        assert_eq!(counted, expected);
    }
}
