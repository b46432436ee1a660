//! The driver for any stable compiler: mutates the corpus with a fixed seed, for a number of
//! inputs.
//!
//! It sees no coverage. Instead it keeps an input that is answered in a new way: accepted with
//! another shape, or refused with another sentence, values apart. Such inputs are mutated further.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    fs::File,
    hash::{Hash as _, Hasher as _},
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use mutatis::Session;

use crate::{corpus, measure, mutation::change, targets::Target, verdict::Verdict};

/// Most inputs that are kept beside the corpus.
const MOST_KEPT: usize = 2000;
/// Most kinds of answers that are told apart.
const MOST_KINDS: usize = 20_000;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Mutated inputs; those of the corpus come before, as they are.
    pub count: u64,
    /// Another seed makes other inputs.
    pub seed: u64,
    /// A file that always holds the latest input, for an end that nobody catches.
    pub latest: Option<&'a File>,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Inputs, with those of the corpus.
    pub inputs: u64,
    /// Of them accepted.
    pub accepted: u64,
    /// Files of the corpus.
    pub files: usize,
    /// Inputs that were kept.
    pub kept: usize,
    /// How long it took.
    pub time: Duration,
}

/// An input that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its bytes.
    pub input: Vec<u8>,
    /// What was broken.
    pub why: String,
}

/// Why a run ended early.
#[derive(Debug)]
pub enum End {
    /// A promise was broken.
    Failed(Failure),
    /// A file could not be read or written.
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Tries a target.
///
/// # Errors
/// The first input that breaks a promise, or a file that cannot be used.
pub fn run(target: &Target, options: &Options<'_>) -> Result<Tally, End> {
    let begin = Instant::now();
    let files: Vec<Vec<u8>> = corpus::of(target.name)?.into_iter().map(|file| file.bytes).collect();
    let mut tried = Tried { target, latest: options.latest, kinds: BTreeSet::new(), accepted: 0 };
    for file in &files {
        tried.check(file)?;
    }
    let corpus = files.len();
    let mut pool = if files.is_empty() { vec![Vec::new()] } else { files };
    let mut session = Session::new().seed(seed(target, options.seed));
    for _ in 0..options.count {
        let mut input = base(&mut session, &pool, corpus);
        change(&mut session, target.form, &target.material(&pool), &mut input);
        if tried.check(&input)? && pool.len() < corpus + MOST_KEPT {
            pool.push(input);
        }
    }
    Ok(Tally {
        inputs: corpus as u64 + options.count,
        accepted: tried.accepted,
        files: corpus,
        kept: pool.len() - corpus.max(1),
        time: begin.elapsed(),
    })
}

/// Half of the inputs begin with a file of the corpus, half with any input.
fn base(session: &mut Session, pool: &[Vec<u8>], corpus: usize) -> Vec<u8> {
    let among = if session.generate().unwrap_or(true) { corpus.max(1) } else { pool.len() };
    let place = session.generate::<u32>().unwrap_or(0) as usize % among;
    pool.get(place).cloned().unwrap_or_default()
}

fn seed(target: &Target, seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (target.name, seed).hash(&mut hasher);
    hasher.finish()
}

struct Tried<'a> {
    target: &'a Target,
    latest: Option<&'a File>,
    kinds: BTreeSet<String>,
    accepted: u64,
}

impl Tried<'_> {
    /// Tries an input; true if it was answered in a new way.
    fn check(&mut self, input: &[u8]) -> Result<bool, End> {
        if let Some(latest) = self.latest {
            latest.set_len(input.len() as u64)?;
            latest.write_all_at(input, 0)?;
        }
        let verdict = measure::run(self.target, input)
            .map_err(|why| End::Failed(Failure { input: input.to_vec(), why }))?;
        if matches!(verdict, Verdict::Accepted(_)) {
            self.accepted += 1;
        }
        let is_new = self.kinds.len() < MOST_KINDS && self.kinds.insert(verdict.kind());
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::Form;

    const FRAGILE: Target = Target {
        name: "fragile",
        run: |data| {
            assert!(!data.windows(2).any(|pair| pair == b"\xff\xff"), "two of them");
            Verdict::accepted(data.len().min(8))
        },
        form: Form::Bytes,
        words: &[],
        most: 64,
        ..crate::targets::ALL[0]
    };

    #[test]
    fn a_broken_promise_ends_the_run_with_the_input_and_the_same_seed_finds_the_same() {
        let found = |seed| match run(&FRAGILE, &Options { count: 200_000, seed, latest: None }) {
            Err(End::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        };
        let failure = found(1);
        assert!(
            failure.why.contains("two of them") && failure.why.contains("drive.rs"),
            "{failure:?}"
        );
        assert!(failure.input.windows(2).any(|pair| pair == b"\xff\xff"));
        assert_eq!(found(1), failure);
        assert_ne!(found(2).input, failure.input);
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let greedy = Target {
            run: |data| Verdict::accepted(vec![1_u8; 2 << 20].len() + data.len()),
            ..FRAGILE
        };
        let why = measure::run(&greedy, b"x").unwrap_err();
        assert!(why.contains("bytes of memory for an input of 1 bytes"), "{why}");
        let slow = Target {
            run: |_| {
                let begin = Instant::now();
                while begin.elapsed() < FRAGILE.most_time() * 2 {}
                Verdict::accepted("")
            },
            ..FRAGILE
        };
        let why = measure::run(&slow, b"").unwrap_err();
        assert!(why.contains("allowed: 5s"), "{why}");
    }
}
