//! The states of a job's images in runs of alike neighbours.

use darkroom_core::image_state::ImageState;

/// Images per read of a map.
pub const MAP_PART: u32 = 65_536;

/// Neighbouring images in one state and stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRun {
    /// Index of the first.
    pub first: u64,
    /// Number of images.
    pub count: u64,
    /// Their state.
    pub state: ImageState,
    /// Position of their stage; 0 for images that wait for their texts or are done.
    pub stage: usize,
}

/// A part of a job's map, or its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapPart {
    /// The job's version at that moment.
    pub version: u64,
    /// Number of images of the job.
    pub images: u64,
    /// In order of index.
    pub runs: Vec<MapRun>,
}

/// Runs in order, with touching equal ones joined.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<MapRun>);

impl Runs {
    /// Adds a run after the present ones.
    pub(crate) fn push(&mut self, mut run: MapRun) {
        if matches!(run.state, ImageState::Waiting | ImageState::Done) {
            run.stage = 0;
        }
        match self.0.last_mut() {
            Some(last)
                if (last.state, last.stage) == (run.state, run.stage)
                    && last.first + last.count == run.first =>
            {
                last.count += run.count;
            }
            _ if run.count > 0 => self.0.push(run),
            _ => {}
        }
    }

    /// Adds the part of a run from `start` up to, but not including, `end`.
    fn push_within(&mut self, run: MapRun, (start, end): (u64, u64)) {
        let first = run.first.max(start);
        let behind = (run.first + run.count).min(end);
        self.push(MapRun { first, count: behind.saturating_sub(first), ..run });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_vec(self) -> Vec<MapRun> {
        self.0
    }
}

/// The parts of runs within a range, joined. The runs may come in any order.
pub(super) fn joined(mut runs: Vec<MapRun>, range: (u64, u64)) -> Vec<MapRun> {
    runs.sort_unstable_by_key(|run| run.first);
    let mut joined = Runs::default();
    for run in runs {
        joined.push_within(run, range);
    }
    joined.into_vec()
}

/// Runs of images that come in any order.
pub(super) fn of_images(images: Vec<(u64, ImageState, usize)>) -> Vec<MapRun> {
    let run = |(first, state, stage)| MapRun { first, count: 1, state, stage };
    joined(images.into_iter().map(run).collect(), (0, u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_alike_become_one_run() {
        use ImageState::{Done, Ready, Waiting};
        let runs = of_images(vec![
            (5, Ready, 1),
            (0, Done, 2),
            (1, Done, 2),
            (3, Done, 2),
            (6, Waiting, 1),
            (7, Waiting, 0),
            (4, Ready, 0),
        ]);
        let run = |first, count, state, stage| MapRun { first, count, state, stage };
        let expected = [
            run(0, 2, Done, 0),
            run(3, 1, Done, 0),
            run(4, 1, Ready, 0),
            run(5, 1, Ready, 1),
            run(6, 2, Waiting, 0),
        ];
        assert_eq!(runs, expected, "waiting and done images have no stage");
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let run = |first| MapRun { first, count: 256, state: ImageState::Done, stage: 1 };
        let expected = MapRun { first: 300, count: 300, state: ImageState::Done, stage: 0 };
        assert_eq!(joined([512, 0, 768, 256].map(run).to_vec(), (300, 600)), [expected]);
    }
}
