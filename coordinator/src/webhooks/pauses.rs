//! How long an event waits for its next try.

use std::time::Duration;

use darkroom_core::backoff::varied;

/// The pause after a failed try, of which the first is 1. The last pause is repeated. Receivers that
/// failed together are not tried again at one moment: a pause varies by half. `random` is any number.
pub(super) fn pause_after(tries: u32, pauses: &[Duration], random: u128) -> Duration {
    let at = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    let pause = pauses.get(at).or(pauses.last()).copied().unwrap_or_default();
    varied(pause, random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::Options, store::webhooks::TRIED_FOR};

    #[test]
    fn pauses_grow_and_the_last_is_repeated() {
        let pauses = Options::default().webhook_pauses;
        let longest = |tries| pause_after(tries, &pauses, 999).as_secs_f64();
        let shortest = |tries| pause_after(tries, &pauses, 0);
        assert_eq!(shortest(1), Duration::from_millis(2500));
        assert!((4.99..5.0).contains(&longest(1)), "{}", longest(1));
        for tries in 1..pauses.len() as u32 {
            assert!(longest(tries) < shortest(tries + 1).as_secs_f64() * 1.01, "{tries}");
        }
        let last = pauses.last().copied().expect("some");
        assert_eq!(shortest(1000), last / 2);
        assert_eq!(shortest(u32::MAX), last / 2);
        assert_eq!(pause_after(0, &[], 7), Duration::ZERO);
    }

    #[test]
    fn an_event_is_tried_a_bounded_number_of_times() {
        let pauses = Options::default().webhook_pauses;
        let (mut tries, mut time) = (0, Duration::ZERO);
        while time <= TRIED_FOR {
            tries += 1;
            time += pause_after(tries, &pauses, 0);
        }
        assert!((20..40).contains(&tries), "{tries}");
    }
}
