//! What a job's images start from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::UserError;

/// What an image starts from. It is the same for all images of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Noise alone: text to picture.
    #[default]
    Noise,
    /// A low-resolution picture, which a super-resolution stage enlarges.
    LowRes,
    /// A picture, to which noise is added as the stage's strength says.
    Picture,
    /// A picture and a mask of the part that is painted anew.
    Masked,
}

impl Start {
    const ALL: [Self; 4] = [Self::Noise, Self::LowRes, Self::Picture, Self::Masked];

    /// Its name in requests, files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::LowRes => "low-res",
            Self::Picture => "picture",
            Self::Masked => "masked",
        }
    }

    /// Whether every prompt brings a picture.
    #[must_use]
    pub fn takes_picture(self) -> bool {
        self != Self::Noise
    }

    /// Whether every prompt brings a mask.
    #[must_use]
    pub fn takes_mask(self) -> bool {
        self == Self::Masked
    }

    /// Whether stages start from a noised picture, and so have a strength.
    #[must_use]
    pub fn has_strength(self) -> bool {
        matches!(self, Self::Picture | Self::Masked)
    }

    /// Strength of a stage for which none is requested: the value of IF's pipelines.
    #[must_use]
    pub fn default_strength(self, super_resolution: bool) -> Option<f64> {
        match (self, super_resolution) {
            (Self::Noise | Self::LowRes, _) => None,
            (_, true) => Some(0.8),
            (Self::Picture, false) => Some(0.7),
            (Self::Masked, false) => Some(1.0),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Start {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|start| start.name() == name).ok_or_else(|| {
            let message =
                format!("settings.start is {name:?}; accepted: noise, low-res, picture, masked");
            UserError::invalid("settings.start", message)
        })
    }
}
