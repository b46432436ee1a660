//! How a predicted clean picture is kept within bounds, and the text form of that, which is the
//! same everywhere.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::UserError;

/// Largest bound of a picture's values.
const MAX_BOUND: f64 = 1000.0;

/// What is done to the clean picture that a step predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Thresholding {
    /// `configured`: as in the stage's scheduler file.
    #[default]
    Configured,
    /// `off`: nothing.
    Off,
    /// `static:RANGE`: clamped to −RANGE…RANGE.
    Static {
        /// Above 0.
        range: f64,
    },
    /// `dynamic:PERCENTILE:MAX`, from Imagen (section 2.3): clamped to −s…s and divided by s. s is
    /// that percentile of the picture's magnitudes, at least 1 and at most MAX.
    Dynamic {
        /// 0 to 100; the paper uses 99.5.
        percentile: f64,
        /// At least 1; 1 is the same as a clamp to −1…1.
        max: f64,
    },
}

const ACCEPTED: &str = "configured, off, static:RANGE with a range above 0 (static:1), or dynamic:PERCENTILE:MAX with a percentile \
                        from 0 to 100 and a maximum from 1 to 1000 (dynamic:99.5:1.5)";

impl Thresholding {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "configured" => return Some(Self::Configured),
            "off" => return Some(Self::Off),
            _ => {}
        }
        if let Some(range) = text.strip_prefix("static:") {
            let range = range.parse::<f64>().ok()?;
            return (range > 0.0 && range <= MAX_BOUND).then_some(Self::Static { range });
        }
        let (percentile, max) = text.strip_prefix("dynamic:")?.split_once(':')?;
        let (percentile, max) = (percentile.parse().ok()?, max.parse().ok()?);
        let fits = (0.0..=100.0).contains(&percentile) && (1.0..=MAX_BOUND).contains(&max);
        fits.then_some(Self::Dynamic { percentile, max })
    }
}

impl FromStr for Thresholding {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        Self::parse(text).ok_or_else(|| {
            UserError::invalid(
                "thresholding",
                format!("thresholding is {text:?}; accepted: {ACCEPTED}"),
            )
        })
    }
}

impl fmt::Display for Thresholding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("configured"),
            Self::Off => f.write_str("off"),
            Self::Static { range } => write!(f, "static:{range}"),
            Self::Dynamic { percentile, max } => write!(f, "dynamic:{percentile}:{max}"),
        }
    }
}

impl TryFrom<String> for Thresholding {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        text.parse()
    }
}

impl From<Thresholding> for String {
    fn from(thresholding: Thresholding) -> Self {
        thresholding.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_read_back() {
        for (text, thresholding) in [
            ("configured", Thresholding::Configured),
            ("off", Thresholding::Off),
            ("static:0.75", Thresholding::Static { range: 0.75 }),
            ("dynamic:99.5:1.5", Thresholding::Dynamic { percentile: 99.5, max: 1.5 }),
        ] {
            assert_eq!(text.parse(), Ok(thresholding));
            assert_eq!(thresholding.to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "on",
            "static",
            "static:0",
            "static:-1",
            "static:NaN",
            "static:inf",
            "dynamic",
            "dynamic:95",
            "dynamic:101:2",
            "dynamic:-1:2",
            "dynamic:95:0.5",
            "dynamic:95:inf",
            "dynamic:NaN:2",
            "dynamic:95:2:3",
        ] {
            let error = text.parse::<Thresholding>().expect_err(text);
            assert!(error.message.contains("accepted: configured, off"), "{error}");
        }
    }
}
