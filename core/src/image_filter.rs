//! Which images of a job a command is about: index ranges, states, error codes, labels, text.

use std::{collections::BTreeSet, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{error::UserError, image_state::ImageState, prompt_filter::PromptFilter};

/// Most index ranges of a filter.
pub const MAX_RANGES: usize = 1000;
/// Most error codes of a filter.
pub const MAX_CODES: usize = 100;
/// Longest error code, in characters.
pub const MAX_CODE: usize = 64;

/// Selects images of a job. An image is selected if it meets every given condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFilter {
    /// In order, without overlap; empty: every index.
    ranges: Vec<Range<u64>>,
    /// Empty: any.
    states: BTreeSet<ImageState>,
    /// Images with any of these codes; if empty, images with any code or without one.
    codes: BTreeSet<String>,
    prompts: PromptFilter,
}

/// The part of a filter's indices that is looked at in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Indices, in order, without overlap.
    pub ranges: Vec<Range<u64>>,
    /// Where the next step begins; `None` after the last.
    pub next: Option<u64>,
}

impl ImageFilter {
    /// A filter over index ranges (first and last, both included), states, error codes and prompts.
    /// An empty field sets no condition.
    ///
    /// # Errors
    /// The field (`ranges[0].first`, `error_codes`) that breaks a limit.
    pub fn new(
        ranges: &[(u64, u64)],
        states: impl IntoIterator<Item = ImageState>,
        codes: Vec<String>,
        prompts: PromptFilter,
    ) -> Result<Self, UserError> {
        if codes.len() > MAX_CODES {
            let count = codes.len();
            let message = format!("error_codes has {count} entries; accepted: at most {MAX_CODES}");
            return Err(UserError::invalid("error_codes", message));
        }
        for (position, code) in codes.iter().enumerate() {
            let characters = code.chars().count();
            if !(1..=MAX_CODE).contains(&characters) {
                let field = format!("error_codes[{position}]");
                let message =
                    format!("{field} has {characters} characters; accepted: 1 to {MAX_CODE}");
                return Err(UserError::invalid(field, message));
            }
        }
        Ok(Self {
            ranges: merged(ranges)?,
            states: states.into_iter().collect(),
            codes: codes.into_iter().collect(),
            prompts,
        })
    }

    /// Whether it sets no condition at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
            && self.states.is_empty()
            && self.codes.is_empty()
            && self.prompts.is_empty()
    }

    /// The same filter for a job of `images` images: its ranges are those that are looked at.
    ///
    /// # Errors
    /// `ranges` if an index is not one of the job's.
    pub fn within(mut self, images: u64) -> Result<Self, UserError> {
        if let Some(last) = self.ranges.last().filter(|range| range.end > images) {
            let message = format!(
                "ranges end at image {}; accepted: indices below {images}, the job's number of images",
                last.end - 1
            );
            return Err(UserError::invalid("ranges", message));
        }
        if self.ranges.is_empty() {
            self.ranges.push(0..images);
        }
        Ok(self)
    }

    /// The next at most `most` indices from `from` on.
    #[must_use]
    pub fn window(&self, from: u64, most: u64) -> Window {
        let (mut ranges, mut left) = (Vec::new(), most.max(1));
        for range in self.ranges.iter().filter(|range| range.end > from) {
            let start = range.start.max(from);
            if left == 0 {
                return Window { ranges, next: Some(start) };
            }
            let end = range.end.min(start + left);
            left -= end - start;
            ranges.push(start..end);
            if end < range.end {
                return Window { ranges, next: Some(end) };
            }
        }
        Window { ranges, next: None }
    }

    /// The states that are meant, of those in `among`.
    #[must_use]
    pub fn states_among(&self, among: &[ImageState]) -> Vec<ImageState> {
        let meant = |state: &&ImageState| self.states.is_empty() || self.states.contains(*state);
        among.iter().filter(meant).copied().collect()
    }

    /// The states that were named.
    #[must_use]
    pub fn states(&self) -> &BTreeSet<ImageState> {
        &self.states
    }

    /// The accepted error codes; if empty, any code or none.
    #[must_use]
    pub fn codes(&self) -> &BTreeSet<String> {
        &self.codes
    }

    /// The prompts that are meant.
    #[must_use]
    pub fn prompts(&self) -> &PromptFilter {
        &self.prompts
    }

    /// Whether an index is meant.
    #[must_use]
    pub fn has_index(&self, index: u64) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(&index))
    }
}

fn merged(ranges: &[(u64, u64)]) -> Result<Vec<Range<u64>>, UserError> {
    if ranges.len() > MAX_RANGES {
        let message =
            format!("ranges has {} entries; accepted: at most {MAX_RANGES}", ranges.len());
        return Err(UserError::invalid("ranges", message));
    }
    let mut ordered = Vec::with_capacity(ranges.len());
    for (position, (first, last)) in ranges.iter().enumerate() {
        // Indices lie far below; a range that ends at the largest number has no end to exclude.
        if first > last || *last == u64::MAX {
            let field = format!("ranges[{position}]");
            let message =
                format!("{field} is {first} to {last}; accepted: a first index up to the last one");
            return Err(UserError::invalid(field, message));
        }
        ordered.push(*first..last + 1);
    }
    ordered.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ordered.len());
    for range in ordered {
        match merged.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_ranges(ranges: &[(u64, u64)]) -> ImageFilter {
        ImageFilter::new(ranges, [], Vec::new(), PromptFilter::default()).expect("a filter")
    }

    #[test]
    fn ranges_are_put_in_order_and_joined() {
        let filter = of_ranges(&[(10, 20), (3, 3), (21, 25), (15, 17), (4, 4)]);
        assert_eq!(filter.ranges, [3..5, 10..26]);
        assert!(filter.has_index(3) && filter.has_index(25) && !filter.has_index(5));
    }

    #[test]
    fn what_breaks_a_limit_is_refused_by_field() {
        let field = |ranges: &[(u64, u64)], codes: Vec<String>| {
            let refused = ImageFilter::new(ranges, [], codes, PromptFilter::default());
            refused.expect_err("refused").field.expect("a field")
        };
        assert_eq!(field(&[(0, 1), (3, 2)], vec![]), "ranges[1]");
        assert_eq!(field(&[(0, u64::MAX)], vec![]), "ranges[0]");
        assert_eq!(field(&[(0, 1); 1001], vec![]), "ranges");
        assert_eq!(field(&[], vec!["a".to_owned(), String::new()]), "error_codes[1]");
        assert_eq!(field(&[], vec!["a".to_owned(); 101]), "error_codes");
        let outside = of_ranges(&[(0, 3), (9, 9)]).within(9).expect_err("outside");
        assert_eq!(outside.field.as_deref(), Some("ranges"));
        assert!(of_ranges(&[(0, 3), (9, 9)]).within(10).is_ok());
    }

    #[test]
    fn only_a_filter_without_conditions_is_empty() {
        assert!(ImageFilter::default().is_empty());
        let of = |states: &[ImageState], codes: &[&str], text: &str| {
            let prompts = PromptFilter::new([].into(), text).expect("a filter");
            let codes = codes.iter().map(|&code| code.to_owned()).collect();
            ImageFilter::new(&[], states.iter().copied(), codes, prompts).expect("a filter")
        };
        assert!(of(&[], &[], " ").is_empty());
        assert!(!of_ranges(&[(0, 0)]).is_empty());
        assert!(!of(&[ImageState::Dead], &[], "").is_empty());
        assert!(!of(&[], &["panic"], "").is_empty());
        assert!(!of(&[], &[], "cat").is_empty());
    }

    #[test]
    fn no_named_state_means_every_state() {
        let both = [ImageState::Dead, ImageState::Cancelled];
        assert_eq!(of_ranges(&[]).states_among(&both), both);
        let dead = ImageFilter::new(&[], [ImageState::Dead], vec![], PromptFilter::default());
        assert_eq!(dead.expect("a filter").states_among(&both), [ImageState::Dead]);
    }

    proptest! {
        #[test]
        fn windows_visit_every_index_once_and_in_order(
            ranges in prop::collection::vec((0_u64..60, 0_u64..9), 0..12),
            most in 1_u64..20,
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(first, more)| (*first, first + more)).collect();
            let filter = of_ranges(&ranges).within(70).expect("inside");
            let expected: Vec<u64> = (0..70).filter(|index| {
                ranges.is_empty() || ranges.iter().any(|(first, last)| (first..=last).contains(&index))
            }).collect();
            let (mut seen, mut from) = (Vec::new(), Some(0));
            while let Some(start) = from {
                let window = filter.window(start, most);
                let indices: Vec<u64> = window.ranges.into_iter().flatten().collect();
                prop_assert!(indices.len() as u64 <= most);
                prop_assert!(!indices.is_empty());
                seen.extend(indices);
                from = window.next;
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
