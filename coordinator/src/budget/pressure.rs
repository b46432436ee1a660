//! What to remove when more is stored than the budget allows, and in which order. Pure: it knows
//! numbers, not objects.

use std::collections::VecDeque;

use crate::options::Budget;

/// A kind of what may be removed, in the order in which it goes: first what is large and needed
/// least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    /// Outputs of earlier stages of ended jobs. A retry makes them again.
    Intermediates,
    /// Previews and sheets. They are made again when somebody looks.
    Previews,
    /// Embeddings of texts that no job needs. A job that needs one has it encoded again.
    Embeddings,
    /// Finished pictures. They are what was asked for, so they go only if the user says so.
    Pictures,
}

impl Step {
    /// What a budget allows to remove, in order.
    fn of(budget: Budget) -> VecDeque<Self> {
        let pictures = budget.pictures.then_some(Self::Pictures);
        [Self::Intermediates, Self::Previews, Self::Embeddings]
            .into_iter()
            .chain(pictures)
            .collect()
    }

    /// Its name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Intermediates => "intermediates",
            Self::Previews => "previews and sheets",
            Self::Embeddings => "unused embeddings",
            Self::Pictures => "pictures",
        }
    }
}

/// After a removal this share of the budget is free, so that not every picture sets off the next.
const BELOW: u64 = 20;

/// Removal that goes on until enough is gone or nothing is left that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Bytes above the budget.
    over: u64,
    /// Bytes that must still go.
    left: u64,
    /// The next steps.
    steps: VecDeque<Step>,
}

impl Pressure {
    /// The removal that a budget asks for while `held` bytes are stored; none if they fit.
    pub(crate) fn of(budget: Budget, held: u64) -> Option<Self> {
        if held <= budget.bytes {
            return None;
        }
        let over = held - budget.bytes;
        let left = over.saturating_add(budget.bytes / BELOW);
        Some(Self { over, left, steps: Step::of(budget) })
    }

    /// What to remove next, and how many bytes of it at most. `None`: it is over.
    pub(crate) fn next(&self) -> Option<(Step, u64)> {
        self.steps.front().filter(|_| self.left > 0).map(|step| (*step, self.left))
    }

    /// Of the next step, this many bytes were removed. If that was nothing, there are none left,
    /// and the step after it is next.
    pub(crate) fn removed(&mut self, bytes: u64) {
        if bytes == 0 {
            self.steps.pop_front();
        }
        self.left = self.left.saturating_sub(bytes);
        self.over = self.over.saturating_sub(bytes);
    }

    /// Whether everything that may go is gone, and that was not enough.
    pub(crate) fn failed(&self) -> bool {
        self.steps.is_empty() && self.over > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { bytes: 1000, pictures: false };

    /// Removes from what there is of each step until that is enough. Returns what was removed, in
    /// order.
    fn work_off(held: u64, there: &[(Step, u64)]) -> (Vec<(Step, u64)>, bool) {
        work_off_for(BUDGET, held, there)
    }

    fn work_off_for(budget: Budget, held: u64, there: &[(Step, u64)]) -> (Vec<(Step, u64)>, bool) {
        let mut pressure = Pressure::of(budget, held).expect("too much");
        let mut there = there.to_vec();
        let mut gone: Vec<(Step, u64)> = Vec::new();
        for _ in 0..100 {
            let Some((step, most)) = pressure.next() else { return (gone, pressure.failed()) };
            let left = there.iter_mut().find(|(of, left)| *of == step && *left > 0);
            // In chunks, as objects are.
            let bytes = left.map_or(0, |(_, left)| {
                let bytes = most.min(*left).min(40);
                *left -= bytes;
                bytes
            });
            pressure.removed(bytes);
            match gone.last_mut().filter(|(of, _)| *of == step) {
                Some((_, sum)) => *sum += bytes,
                None if bytes > 0 => gone.push((step, bytes)),
                None => {}
            }
        }
        panic!("it does not end: {pressure:?}");
    }

    #[test]
    fn what_fits_asks_for_nothing() {
        assert_eq!(Pressure::of(BUDGET, 1000), None);
        assert_eq!(Pressure::of(Budget { bytes: u64::MAX, ..BUDGET }, u64::MAX), None);
    }

    #[test]
    fn intermediates_go_first_and_no_more_than_needed() {
        use Step::{Intermediates, Previews};
        let there = [(Previews, 60), (Intermediates, 100)];
        assert_eq!(work_off(1040, &there), (vec![(Intermediates, 90)], false), "down to 950");
        let both = vec![(Intermediates, 100), (Previews, 50)];
        assert_eq!(work_off(1100, &there), (both, false));
    }

    #[test]
    fn pictures_go_last_and_only_if_the_user_says_so() {
        use Step::{Embeddings, Intermediates, Pictures, Previews};
        let there = [(Pictures, 500), (Embeddings, 30), (Previews, 60), (Intermediates, 100)];
        let all = vec![(Intermediates, 100), (Previews, 60), (Embeddings, 30)];
        assert_eq!(work_off(1200, &there), (all, true), "pictures stay");
        let all = vec![(Intermediates, 100), (Previews, 60), (Embeddings, 30), (Pictures, 60)];
        assert_eq!(work_off_for(Budget { pictures: true, ..BUDGET }, 1200, &there), (all, false));
    }

    #[test]
    fn when_nothing_is_left_that_may_go_and_it_is_still_too_much_it_failed() {
        use Step::{Intermediates, Previews};
        let there = [(Previews, 60), (Intermediates, 100)];
        let all = vec![(Intermediates, 100), (Previews, 60)];
        assert_eq!(work_off(1160, &there), (all.clone(), false), "it fits again, if barely");
        assert_eq!(work_off(1161, &there), (all, true));
        assert_eq!(work_off(1001, &[]), (Vec::new(), true));
    }
}
