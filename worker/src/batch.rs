//! How many images a batch may have: as configured, or learned from how long the stage takes.
//!
//! A batch shares the overhead of its steps, but its first image has to wait for its last. So
//! batches grow until one takes about [`TARGET_SECONDS`] or reaches the limit that the rule sets
//! for memory. The times come from real batches and cost nothing. Times, and caps that were lowered
//! because memory ran out, are stored per pool and device class in a small file, so that the next
//! start knows them at once.
//!
//! On a GPU, a stage without measurements is tried before the worker takes work ([`try_out`]).
//! There a fixed number of images shares each pass of the network, and fewer images take as long,
//! so a batch is at least one pass; whether a pass fits into the card's memory is better found out
//! with made-up pictures. On a CPU the rule decides until the first batch was measured. A batch of
//! n images there takes about n times as long as one, so little could be gained, and a trial would
//! delay the first picture.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use darkroom_queue::stage_loop::BatchFault;
use darkroom_runtime::files;
use serde::{Deserialize, Serialize};

/// Most seconds that a batch should take.
pub const TARGET_SECONDS: f64 = 4.0;

/// Most seconds for the trials of all stages at a start.
pub const TRIAL_SECONDS: f64 = 2.0;

/// Weight of the newest batch in the mean.
const NEWEST: f64 = 0.3;

/// Name of the file in the cache folder.
const FILE_NAME: &str = "batch-caps.json";

/// Largest batch for pictures with this edge, by rule. It limits memory and latency before anything
/// was measured.
#[must_use]
pub fn rule(size: u32) -> usize {
    match size {
        0..=96 => 8,
        97..=384 => 4,
        _ => 2,
    }
}

/// Limits on the number of images in a batch that do not depend on measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Fewer images take as long as this many.
    pub least: usize,
    /// More images would only delay the first one.
    pub most: usize,
}

impl Room {
    /// For pictures of edge `size`, if each image takes its own time.
    #[must_use]
    pub fn by_rule(size: u32) -> Self {
        Self { least: 1, most: rule(size) }
    }

    /// For stages in which this many images share each pass, and one image takes as long as all of
    /// them.
    #[must_use]
    pub fn of_passes(images: usize) -> Self {
        Self { least: images, most: images }
    }
}

/// What was measured for one pool on one class of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    /// Mean seconds of model time per image.
    seconds_per_image: Option<f64>,
    /// Batches with more rows ran out of memory.
    most_rows: Option<usize>,
}

/// The caps of all pools that a worker serves.
#[derive(Debug)]
pub struct Caps {
    fixed: Option<usize>,
    file: Option<PathBuf>,
    known: BTreeMap<String, Known>,
    saved: BTreeMap<String, Known>,
}

impl Caps {
    /// Caps that are `fixed`, or learned and stored in folder `cache`, if there is one. An
    /// unreadable cache counts as empty.
    #[must_use]
    pub fn new(fixed: Option<usize>, cache: Option<&Path>) -> Self {
        let file = cache.map(|folder| folder.join(FILE_NAME));
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let known: BTreeMap<String, Known> =
            text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { fixed, file, saved: known.clone(), known }
    }

    /// The cap for a pool (named with its device class).
    #[must_use]
    pub fn cap(&self, pool: &str, room: Room) -> usize {
        let known = self.known.get(pool).copied().unwrap_or_default();
        let learned = || {
            let seconds = known.seconds_per_image.filter(|seconds| *seconds > 0.0);
            let by_time = seconds.map_or(usize::MAX, |seconds| (TARGET_SECONDS / seconds) as usize);
            by_time.clamp(room.least, room.most)
        };
        let by_memory = known.most_rows.map_or(usize::MAX, |rows| rows.max(room.least));
        self.fixed.unwrap_or_else(learned).min(by_memory).max(1)
    }

    /// Whether a trial would help: nothing is configured, and nothing is known about this pool.
    #[must_use]
    pub fn is_open(&self, pool: &str) -> bool {
        self.fixed.is_none() && !self.known.contains_key(pool)
    }

    /// Learns from a batch that ran.
    pub fn ran(&mut self, pool: &str, rows: usize, seconds: f64) {
        if rows == 0 || !seconds.is_finite() {
            return;
        }
        let newest = seconds / rows as f64;
        let known = self.known.entry(pool.to_owned()).or_default();
        let mean = known.seconds_per_image.unwrap_or(newest);
        known.seconds_per_image = Some(mean + NEWEST * (newest - mean));
        self.save_if_changed();
    }

    /// Learns that this many rows do not fit. Ignored if at least `least` rows are always computed,
    /// because then a smaller batch does not help.
    pub fn ran_out_of_memory(&mut self, pool: &str, rows: usize, least: usize) {
        if rows <= least && least > 1 {
            return;
        }
        let known = self.known.entry(pool.to_owned()).or_default();
        known.most_rows = Some((rows / 2).clamp(1, known.most_rows.unwrap_or(usize::MAX)));
        self.save_if_changed();
    }

    /// Saves if something changed by more than a fifth: the file is a hint, not a record.
    fn save_if_changed(&mut self) {
        let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 0.2 * b,
            (a, b) => a.is_none() && b.is_none(),
        };
        let same = |(pool, known): (&String, &Known)| {
            self.saved.get(pool).is_some_and(|saved| {
                saved.most_rows == known.most_rows
                    && close(saved.seconds_per_image, known.seconds_per_image)
            })
        };
        let Some(file) = self.file.as_ref().filter(|_| !self.known.iter().all(same)) else {
            return;
        };
        if let Err(error) = save(file, &self.known) {
            tracing::debug!(%error, "batch caps could not be saved");
        }
        self.saved = self.known.clone();
    }
}

/// Finds a first cap for a pool without measurements. It tries batches of the least number of
/// images, then twice, four times as many and so on, up to the most. It stops when one takes as
/// long as a batch should, when memory runs out, or when [`TRIAL_SECONDS`] since `begun` are over.
/// `trial` returns the seconds that a batch of this many images would take; `None` ends the trials
/// without a result.
pub fn try_out(
    caps: &mut Caps,
    (pool, room): (&str, Room),
    begun: Instant,
    mut trial: impl FnMut(usize) -> Result<Option<f64>, BatchFault>,
) {
    if !caps.is_open(pool) {
        return;
    }
    let mut measured = None;
    let counts = std::iter::successors(Some(room.least), |rows| Some(rows * 2))
        .take_while(|rows| *rows <= room.most);
    for rows in counts {
        if begun.elapsed().as_secs_f64() > TRIAL_SECONDS {
            break;
        }
        match trial(rows) {
            Ok(Some(seconds)) => measured = Some((rows, seconds)),
            Ok(None) => return,
            Err(BatchFault::OutOfMemory { .. }) => {
                if room.least > 1 {
                    tracing::warn!(
                        pool,
                        rows,
                        "one pass of this stage does not fit into the device's free memory"
                    );
                }
                caps.ran_out_of_memory(pool, rows, room.least);
                break;
            }
            Err(fault) => {
                tracing::debug!(
                    ?fault,
                    rows,
                    "a trial failed, so batches are as large as the rule allows"
                );
                return;
            }
        }
        if measured.is_some_and(|(_, seconds)| seconds >= TARGET_SECONDS) {
            break;
        }
    }
    if let Some((rows, seconds)) = measured {
        caps.ran(pool, rows, seconds);
        tracing::info!(
            pool,
            batch.cap = caps.cap(pool, room),
            batch.rows = rows,
            batch.seconds = seconds,
            "batches tried"
        );
    }
}

fn save(file: &Path, known: &BTreeMap<String, Known>) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    files::replace(file, &serde_json::to_vec_pretty(known)?)
}

#[cfg(test)]
mod tests {
    use darkroom_core::failure_code::FailureCode;

    use super::*;

    fn by(size: u32) -> Room {
        Room::by_rule(size)
    }

    #[test]
    fn a_slow_stage_gets_small_batches_and_the_next_start_knows() {
        let folder = tempfile::tempdir().unwrap();
        let mut caps = Caps::new(None, Some(folder.path()));
        assert_eq!(caps.cap("base", by(64)), rule(64), "nothing known yet");
        caps.ran("base", 4, 8.0);
        assert_eq!(caps.cap("base", by(64)), 2);
        caps.ran("sr", 2, 0.02);
        assert_eq!(caps.cap("sr", by(256)), rule(256), "never beyond the rule");
        caps.ran("last", 1, 9.0);
        assert_eq!(caps.cap("last", by(1024)), 1);
        let next = Caps::new(None, Some(folder.path()));
        assert_eq!((next.cap("base", by(64)), next.cap("last", by(1024))), (2, 1));
    }

    #[test]
    fn want_of_memory_is_remembered_and_binds_configured_caps_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut caps = Caps::new(Some(16), Some(folder.path()));
        assert_eq!(caps.cap("base", by(64)), 16);
        caps.ran_out_of_memory("base", 16, 1);
        assert_eq!(caps.cap("base", by(64)), 8);
        caps.ran_out_of_memory("base", 1, 1);
        assert_eq!(caps.cap("base", by(64)), 1);
        assert_eq!(Caps::new(Some(16), Some(folder.path())).cap("base", by(64)), 1);
        // If images share a pass, an old memory shortage must not lower the cap: each image would
        // then pay for a whole pass.
        caps.ran_out_of_memory("sr", 64, 32);
        caps.ran_out_of_memory("sr", 32, 32);
        assert_eq!(Caps::new(None, Some(folder.path())).cap("sr", Room::of_passes(32)), 32);
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(Caps::new(None, Some(folder.path())).cap("base", by(64)), rule(64));
    }

    #[test]
    fn a_trial_grows_until_time_memory_or_the_rule_ends_it() {
        let tried = |outcomes: &[Result<Option<f64>, BatchFault>], room: Room| {
            let (mut caps, mut rows_tried) = (Caps::new(None, None), Vec::new());
            try_out(&mut caps, ("pool", room), Instant::now(), |rows| {
                rows_tried.push(rows);
                outcomes[rows_tried.len() - 1].clone()
            });
            (rows_tried, caps.cap("pool", room), caps.is_open("pool"))
        };
        let fast = [Ok(Some(0.5)), Ok(Some(0.6)), Ok(Some(0.8)), Ok(Some(1.2))];
        assert_eq!(tried(&fast, by(64)), (vec![1, 2, 4, 8], 8, false));
        let slow = [Ok(Some(1.5)), Ok(Some(2.8)), Ok(Some(5.6))];
        assert_eq!(tried(&slow, by(64)), (vec![1, 2, 4], 2, false), "1.4 s an image");
        let small = [Ok(Some(0.5)), Ok(Some(0.6)), Err(BatchFault::OutOfMemory { least: 1 })];
        assert_eq!(tried(&small, by(64)), (vec![1, 2, 4], 2, false), "four do not fit");
        assert_eq!(tried(&[Ok(None)], by(256)), (vec![1], rule(256), true), "not worth it here");
        let card = Room::of_passes(32);
        assert_eq!(tried(&[Ok(Some(0.4))], card), (vec![32], 32, false));
        assert_eq!(
            tried(&[Ok(Some(9.0))], card),
            (vec![32], 32, false),
            "half as many would take as long"
        );
        let full = [Err(BatchFault::OutOfMemory { least: 32 })];
        assert_eq!(tried(&full, card), (vec![32], 32, true), "half as many would take as much");
        let broken = [Err(BatchFault::Failed { code: FailureCode::Torch, message: String::new() })];
        assert_eq!(tried(&broken, by(1024)), (vec![1], rule(1024), true));
    }

    #[test]
    fn nothing_is_tried_where_something_is_known_or_configured_or_time_is_over() {
        let never = |_| -> Result<Option<f64>, BatchFault> { panic!("nothing to try") };
        try_out(&mut Caps::new(Some(2), None), ("pool", by(64)), Instant::now(), never);
        let mut caps = Caps::new(None, None);
        caps.ran("pool", 1, 0.1);
        try_out(&mut caps, ("pool", by(64)), Instant::now(), never);
        if let Some(long_ago) = Instant::now().checked_sub(std::time::Duration::from_secs(3)) {
            try_out(&mut Caps::new(None, None), ("pool", by(64)), long_ago, never);
        }
    }
}
