//! How the guidance weight changes over a stage's steps, and its text form. The text form is the
//! same wherever it is written: the command line, `cascade.toml`, the wire, a picture's recipe.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    limits::{MAX_GUIDANCE_SCALE, MAX_STEPS, MAX_TIMESTEP},
    passes::is_guided,
};
use crate::error::UserError;

/// At which steps the guidance weight applies. With weight 1 a step computes only the conditional
/// half, at half the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GuidanceSchedule {
    /// `constant`: the weight at every step.
    #[default]
    Constant,
    /// `FROM..TO`: the weight at training timesteps FROM to TO, both included; 1 elsewhere
    /// (Kynkäänniemi et al. 2024).
    Timesteps {
        /// The lowest timestep.
        from: u32,
        /// The highest timestep.
        to: u32,
    },
    /// `FROM%..TO%`: the weight at the steps from FROM per cent up to, but not including, TO per
    /// cent of all; 1 elsewhere. Step i of n stands at 100·i/n, so `0%..100%` is all of them.
    Steps {
        /// Per cent, 0 to below `to`.
        from: f64,
        /// Per cent, at most 100.
        to: f64,
    },
    /// `oscillating:FIRST:LOW`: the weight at the first FIRST steps, then LOW and the weight in
    /// turn, LOW first (Ho et al. 2022, Imagen Video).
    Oscillating {
        /// Steps before the oscillation.
        first: u32,
        /// The low weight, 1 (no guidance) to [`MAX_GUIDANCE_SCALE`].
        low: f64,
    },
}

const ACCEPTED: &str = "constant, FROM..TO of timesteps 0 to 999 (200..800), FROM%..TO% of the steps (20%..80%), or \
                        oscillating:FIRST:LOW with FIRST steps before it and a low weight from 1 to 100 (oscillating:5:1)";

impl GuidanceSchedule {
    /// Whether any step may have a weight other than 1 when `scale` is the stage's weight.
    #[must_use]
    pub fn guided(self, scale: f64) -> bool {
        is_guided(scale) || matches!(self, Self::Oscillating { low, .. } if is_guided(low))
    }

    /// The weight of every step of a run that visits `timesteps`, when `scale` is the stage's
    /// weight.
    #[must_use]
    pub fn weights(self, scale: f64, timesteps: &[f64]) -> Vec<f64> {
        let steps = timesteps.len() as f64;
        let weight = |(index, timestep): (usize, &f64)| match self {
            Self::Constant => scale,
            Self::Timesteps { from, to }
                if (f64::from(from)..f64::from(to) + 1.0).contains(timestep) =>
            {
                scale
            }
            // Computed as shares, not per cent: 100·i/n and i/n round differently, and the steps of
            // existing pictures must not move.
            Self::Steps { from, to }
                if (from / 100.0..to / 100.0).contains(&(index as f64 / steps)) =>
            {
                scale
            }
            Self::Timesteps { .. } | Self::Steps { .. } => 1.0,
            Self::Oscillating { first, low } => match index.checked_sub(first as usize) {
                Some(after) if after.is_multiple_of(2) => low,
                _ => scale,
            },
        };
        timesteps.iter().enumerate().map(weight).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "constant" {
            return Some(Self::Constant);
        }
        if let Some(rest) = text.strip_prefix("oscillating:") {
            let (first, low) = rest.split_once(':')?;
            let (first, low) = (first.parse().ok()?, low.parse().ok()?);
            let fits = first <= MAX_STEPS && (1.0..=MAX_GUIDANCE_SCALE).contains(&low);
            return fits.then_some(Self::Oscillating { first, low });
        }
        let (from, to) = text.split_once("..")?;
        if let (Some(from), Some(to)) = (from.strip_suffix('%'), to.strip_suffix('%')) {
            let (from, to) = (from.parse::<f64>().ok()?, to.parse::<f64>().ok()?);
            return (from >= 0.0 && from < to && to <= 100.0).then_some(Self::Steps { from, to });
        }
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to && to <= MAX_TIMESTEP).then_some(Self::Timesteps { from, to })
    }
}

impl FromStr for GuidanceSchedule {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        Self::parse(text).ok_or_else(|| {
            let message = format!("guidance_schedule is {text:?}; accepted: {ACCEPTED}");
            UserError::invalid("guidance_schedule", message)
        })
    }
}

impl fmt::Display for GuidanceSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Timesteps { from, to } => write!(f, "{from}..{to}"),
            Self::Steps { from, to } => write!(f, "{from}%..{to}%"),
            Self::Oscillating { first, low } => write!(f, "oscillating:{first}:{low}"),
        }
    }
}

impl TryFrom<String> for GuidanceSchedule {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        text.parse()
    }
}

impl From<GuidanceSchedule> for String {
    fn from(schedule: GuidanceSchedule) -> Self {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_guided_where_the_schedule_says() {
        // Ten steps at timesteps 950, 850, … 50.
        let timesteps: Vec<f64> = (0..10).map(|index| 950.0 - 100.0 * f64::from(index)).collect();
        let guided = |text: &str, scale| {
            let schedule = text.parse::<GuidanceSchedule>().unwrap();
            let weights = schedule.weights(scale, &timesteps);
            weights
                .iter()
                .map(|weight| if is_guided(*weight) { '2' } else { '1' })
                .collect::<String>()
        };
        assert_eq!(
            [guided("constant", 3.0), guided("constant", 1.0)],
            ["2222222222", "1111111111"]
        );
        assert_eq!(
            [guided("20%..70%", 3.0), guided("20%..70%", 1.0)],
            ["1122222111", "1111111111"]
        );
        assert_eq!([guided("0..499", 3.0), guided("250..849", 3.0)], ["1111122222", "1122222211"]);
        // Four steps with the weight, then low, high, low, high, low, high.
        assert_eq!(
            [guided("oscillating:4:1", 3.0), guided("oscillating:4:2", 3.0)],
            ["2222121212", "2222222222"]
        );
        assert_eq!(
            [guided("oscillating:40:1", 3.0), guided("oscillating:4:1", 1.0)],
            ["2222222222", "1111111111"]
        );
    }

    #[test]
    fn each_schedule_weighs_its_steps() {
        let timesteps = [900.0, 700.0, 500.0, 300.0, 100.0];
        let weights = |schedule: GuidanceSchedule| schedule.weights(5.0, &timesteps);
        assert_eq!(weights(GuidanceSchedule::Constant), [5.0; 5]);
        let of = |from, to| weights(GuidanceSchedule::Timesteps { from, to });
        assert_eq!(of(300, 700), [1.0, 5.0, 5.0, 5.0, 1.0], "both ends are in");
        assert_eq!(of(301, 699), [1.0, 1.0, 5.0, 1.0, 1.0]);
        let of = |from, to| weights(GuidanceSchedule::Steps { from, to });
        assert_eq!(of(20.0, 60.0), [1.0, 5.0, 5.0, 1.0, 1.0], "the end is not in");
        assert_eq!(of(0.0, 100.0), [5.0; 5]);
        let of = |first, low| weights(GuidanceSchedule::Oscillating { first, low });
        assert_eq!(of(2, 1.0), [5.0, 5.0, 1.0, 5.0, 1.0]);
        assert_eq!(of(0, 2.0), [2.0, 5.0, 2.0, 5.0, 2.0]);
        assert_eq!(of(9, 2.0), [5.0; 5]);
    }

    #[test]
    fn text_forms_read_back() {
        use GuidanceSchedule as G;
        for (text, schedule) in [
            ("constant", G::Constant),
            ("0..999", G::Timesteps { from: 0, to: 999 }),
            ("12.5%..99.9%", G::Steps { from: 12.5, to: 99.9 }),
            ("oscillating:7:1.5", G::Oscillating { first: 7, low: 1.5 }),
        ] {
            assert_eq!(text.parse(), Ok(schedule));
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "always",
            "5",
            "9..5",
            "0..1000",
            "-1..5",
            "1.5..7",
            "50%..50%",
            "0%..101%",
            "-1%..5%",
            "NaN%..5%",
            "0%..NaN%",
            "5%..90",
            "oscillating",
            "oscillating:5",
            "oscillating:1001:1",
            "oscillating:5:0.5",
            "oscillating:5:NaN",
            "oscillating:5:inf",
            "oscillating:-1:2",
            " constant",
        ] {
            let error = text.parse::<GuidanceSchedule>().expect_err(text);
            assert!(error.message.contains("accepted: constant"), "{error}");
        }
    }

    #[test]
    fn a_low_weight_alone_needs_the_negative_text_too() {
        assert!(!GuidanceSchedule::Constant.guided(1.0));
        assert!(GuidanceSchedule::Timesteps { from: 0, to: 5 }.guided(2.0));
        assert!(GuidanceSchedule::Oscillating { first: 2, low: 3.0 }.guided(1.0));
        assert!(!GuidanceSchedule::Oscillating { first: 2, low: 1.0 }.guided(1.0));
    }
}
