//! The samplers and spacings of a stage, by the names that the field uses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::UserError;

/// The samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020).
    #[serde(rename = "ddpm")]
    Ddpm,
    /// Deterministic at eta 0 (Song et al. 2021).
    #[serde(rename = "ddim")]
    Ddim,
    /// Second-order multistep (Lu et al. 2022).
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
    /// The same, with fresh noise at every step (Lu et al. 2022, appendix B).
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
}

/// How a sampler spreads its steps over the training timesteps (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// As in the stage's scheduler file; without one, the sampler's own.
    #[default]
    Configured,
    /// In equal strides from the first timestep up. Never reaches the last one.
    Leading,
    /// From the first timestep to the last.
    Linspace,
    /// In equal strides from the last timestep down. Best when there are few steps.
    Trailing,
}

impl Sampler {
    const ALL: [Self; 4] =
        [Self::Ddpm, Self::Ddim, Self::DpmSolverPlusPlus, Self::SdeDpmSolverPlusPlus];

    /// Its name in files, on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::DpmSolverPlusPlus => "dpmsolver++",
            Self::SdeDpmSolverPlusPlus => "sde-dpmsolver++",
        }
    }

    /// The names of all samplers, for a sentence.
    #[must_use]
    pub fn names() -> String {
        Self::listed(|_| true)
    }

    /// The names of samplers that take a list of timesteps, for a sentence.
    pub(crate) fn names_with_timesteps() -> String {
        Self::listed(Self::takes_timesteps)
    }

    fn listed(which: fn(Self) -> bool) -> String {
        let names: Vec<_> =
            Self::ALL.into_iter().filter(|sampler| which(*sampler)).map(Self::name).collect();
        match names.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            names => names.concat(),
        }
    }

    /// Whether it is one of the two kinds of DPM-Solver++.
    pub(crate) fn is_dpm_solver(self) -> bool {
        matches!(self, Self::DpmSolverPlusPlus | Self::SdeDpmSolverPlusPlus)
    }

    /// Whether it takes a list of timesteps. DDIM's reference class takes none, so there would be
    /// nothing to compare with.
    #[must_use]
    pub fn takes_timesteps(self) -> bool {
        self != Self::Ddim
    }
}

impl Spacing {
    const ALL: [Self; 4] = [Self::Configured, Self::Leading, Self::Linspace, Self::Trailing];

    /// Its name in files, on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sampler {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        let unknown = || named("sampler", name, &Self::ALL.map(Self::name));
        Self::ALL.into_iter().find(|sampler| sampler.name() == name).ok_or_else(unknown)
    }
}

impl FromStr for Spacing {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        let unknown = || named("spacing", name, &Self::ALL.map(Self::name));
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(unknown)
    }
}

pub(super) fn named(field: &str, name: &str, accepted: &[&str]) -> UserError {
    UserError::invalid(field, format!("{field} is {name:?}; accepted: {}", accepted.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_listed_as_a_sentence_does() {
        assert_eq!(Sampler::names(), "ddpm, ddim, dpmsolver++ or sde-dpmsolver++");
        assert_eq!(Sampler::names_with_timesteps(), "ddpm, dpmsolver++ or sde-dpmsolver++");
    }
}
