//! How long to wait before another try: twice as long after each failure, up to a maximum. Pure:
//! the caller sleeps, and passes a random number where pauses should vary.

use std::time::Duration;

/// Growing pauses after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The pause after the first failure, and the longest one.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The pause after another failure.
    pub fn pause(&mut self) -> Duration {
        let pause = self.after(self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The pause after the next failure, when `failures` came before it.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let factor = 2_u32.checked_pow(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// Something succeeded: the next failure starts again with the first pause.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Between half of a pause and all of it, so that callers that failed together do not all retry at
/// the same moment. `random` is any number.
#[must_use]
pub fn varied(pause: Duration, random: u128) -> Duration {
    let thousandths = u32::try_from(random % 1000).unwrap_or(0);
    pause / 2 + pause / 2 * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.after(u32::MAX), LONGEST);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
    }

    #[test]
    fn a_varied_pause_is_between_half_and_all_of_it() {
        let of = |random: u128| varied(LONGEST, random);
        assert_eq!((of(0), of(500)), (LONGEST / 2, LONGEST * 3 / 4));
        assert!(of(999) < LONGEST && of(999) > of(500));
        assert_eq!(of(1_000), of(0), "any number will do");
    }
}
