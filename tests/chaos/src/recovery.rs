//! The farm's recovery times: from the end of a fault until the next image passes a stage.

use std::time::Duration;

/// Times from the end of a fault to the next progress.
#[derive(Clone, Debug, Default)]
pub struct Recoveries(Vec<Duration>);

impl Recoveries {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time within which this share (0 to 1) of the recoveries ended; `None` if there were
    /// none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get(((last as f64) * share).ceil() as usize).copied()
    }

    /// Number of recoveries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let mut times = Recoveries::default();
        assert_eq!(times.quantile(0.5), None);
        for seconds in [4, 1, 3, 2, 5] {
            times.add(Duration::from_secs(seconds));
        }
        assert_eq!(times.quantile(0.5), Some(Duration::from_secs(3)));
        assert_eq!(times.quantile(0.99), Some(Duration::from_secs(5)));
    }
}
