//! Measures where a stage's time goes, by kind of operation, on the thread that renders.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Conditioning,
    Convolution,
    Normalisation,
    Linear,
    Attention,
    Network,
    Noise,
    Sampler,
}

/// In the order of [`Part`].
const NAMES: [&str; 8] = [
    "text and noise level",
    "convolutions",
    "normalisation and activation",
    "linear layers",
    "attention",
    "rest of the network",
    "noise on the host",
    "sampler and copies",
];

thread_local! {
    static SPENT: [Cell<Duration>; 8] = const { [const { Cell::new(Duration::ZERO) }; 8] };
    /// The time of operations inside the one that is being measured.
    static INSIDE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Measures an operation. Operations measured inside it count there, not here.
pub(crate) fn timed<T>(part: Part, operation: impl FnOnce() -> T) -> T {
    let outside = INSIDE.replace(Duration::ZERO);
    let begun = Instant::now();
    let result = operation();
    let all = begun.elapsed();
    let own = all.saturating_sub(INSIDE.get());
    SPENT.with(|spent| spent[part as usize].set(spent[part as usize].get() + own));
    INSIDE.set(outside + all);
    result
}

/// What this thread has spent on each kind of operation since the last call, by name.
pub fn take() -> Vec<(&'static str, Duration)> {
    SPENT.with(|spent| NAMES.iter().zip(spent).map(|(name, time)| (*name, time.take())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_inside_counts_once() {
        take();
        let begun = Instant::now();
        timed(Part::Network, || {
            timed(Part::Convolution, || while begun.elapsed() < Duration::from_millis(20) {});
        });
        let spent = take();
        let of = |name: &str| spent.iter().find(|(known, _)| *known == name).unwrap().1;
        assert!(
            of("convolutions") >= Duration::from_millis(19)
                && of("rest of the network") < of("convolutions")
        );
        assert!(take().iter().all(|(_, time)| time.is_zero()));
    }
}
