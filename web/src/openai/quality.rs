//! The quality of pictures: how many denoising steps each stage takes.

use darkroom_proto::v1;
use serde::Serialize;

/// Most steps of a stage.
const MOST_STEPS: u32 = 1000;
/// Fewest steps that halving leaves, so that a stage which starts from a picture, and runs only some
/// of its steps, still runs one.
const FEWEST_STEPS: u32 = 2;

/// A quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) enum Quality {
    /// Half of each stage's steps.
    Low,
    /// The cascade's own settings.
    #[default]
    Medium,
    /// Twice each stage's steps.
    High,
}

impl Quality {
    /// The words that clients use.
    pub(super) const WORDS: [(&str, Self); 6] = [
        ("auto", Self::Medium),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("standard", Self::Medium),
        ("hd", Self::High),
    ];

    /// The word of answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The steps of a stage; none: as the cascade has it.
    pub(super) fn steps(self, stage: &v1::CascadeStage) -> Option<u32> {
        let usual = stage.defaults.as_ref().and_then(|defaults| defaults.steps)?;
        let most = match stage.train_timesteps {
            0 => MOST_STEPS,
            timesteps => timesteps.min(MOST_STEPS),
        };
        match self {
            Self::Medium => None,
            Self::Low => Some(usual.div_ceil(2).max(FEWEST_STEPS)).filter(|steps| *steps < usual),
            Self::High => Some(usual.saturating_mul(2).min(most)).filter(|steps| *steps > usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quality_halves_or_doubles_the_steps_within_what_the_stage_can_do() {
        let stage = |steps, train_timesteps| v1::CascadeStage {
            defaults: Some(v1::StageSettings { steps: Some(steps), ..Default::default() }),
            train_timesteps,
            ..Default::default()
        };
        let steps = |steps, train| {
            let stage = stage(steps, train);
            [Quality::Low, Quality::Medium, Quality::High].map(|quality| quality.steps(&stage))
        };
        assert_eq!(steps(20, 1000), [Some(10), None, Some(40)]);
        assert_eq!(steps(5, 1000), [Some(3), None, Some(10)]);
        assert_eq!(steps(3, 1000), [Some(2), None, Some(6)]);
        assert_eq!(steps(2, 1000), [None, None, Some(4)], "halving leaves two");
        assert_eq!(steps(1, 1000), [None, None, Some(2)]);
        assert_eq!(steps(60, 100), [Some(30), None, Some(100)]);
        assert_eq!(steps(100, 100), [Some(50), None, None], "no more timesteps");
        assert_eq!(steps(700, 0), [Some(350), None, Some(1000)], "not known");
        let unknown = v1::CascadeStage::default();
        assert_eq!(Quality::High.steps(&unknown), None);
    }

    #[test]
    fn every_word_of_a_client_is_one_of_three_qualities() {
        let names = Quality::WORDS.map(|(word, quality)| (word, quality.name()));
        assert_eq!(
            names,
            [
                ("auto", "medium"),
                ("low", "low"),
                ("medium", "medium"),
                ("high", "high"),
                ("standard", "medium"),
                ("hd", "high"),
            ]
        );
    }
}
