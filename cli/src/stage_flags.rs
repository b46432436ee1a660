//! Sampling flags: `--steps 20` for every stage, `--steps base=20` for one. A value for one stage
//! overrides a value for all, and a later value overrides an earlier one.

use std::str::FromStr;

use clap::Args;
use darkroom_core::{
    error::UserError,
    sampling::{Sampler, check_value},
    settings::StageRequest,
};
use darkroom_proto::v1;

use crate::failure::Result;

/// A flag's value, for one stage or for all stages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PerStage<T> {
    stage: Option<String>,
    value: T,
}

impl<T: FromStr> FromStr for PerStage<T> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (stage, value) = match text.split_once('=') {
            Some((stage, value)) => (Some(stage.to_owned()), value),
            None => (None, text),
        };
        let value = value.parse().map_err(|_| {
            format!(
                "{value:?} is not a valid value; accepted: VALUE for all stages, or STAGE=VALUE"
            )
        })?;
        Ok(Self { stage, value })
    }
}

/// Timesteps as the command line lists them: `999,500,0`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timesteps(Vec<u32>);

impl FromStr for Timesteps {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.split(',')
            .map(|one| one.trim().parse())
            .collect::<std::result::Result<_, _>>()
            .map(Self)
    }
}

/// The sampling flags of `render` and `submit`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StageFlags {
    /// Denoising steps, 1 to 1000: STEPS for all stages, or STAGE=STEPS for one [default: the
    /// cascade's]
    #[arg(long, value_name = "[STAGE=]STEPS")]
    pub(crate) steps: Vec<PerStage<u32>>,
    /// Guidance weight, 1 (none) to 100 [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]WEIGHT", allow_hyphen_values = true)]
    pub(crate) guidance: Vec<PerStage<f64>>,
    /// Where the guidance weight applies; other steps take half the time: constant, 200..800
    /// (timesteps), 20%..80% (of the steps), or oscillating:5:1 (the first five steps, then weight
    /// 1 and the guidance weight in turn) [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]WHERE")]
    pub(crate) guidance_schedule: Vec<PerStage<String>>,
    #[arg(long, value_name = "[STAGE=]SAMPLER", help = Sampler::names())]
    pub(crate) sampler: Vec<PerStage<String>>,
    /// DeepFloyd IF's lists of timesteps by name: fast27, smart27, smart50, smart100, smart185,
    /// super27, super40 or super100 [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]NAME")]
    pub(crate) preset: Vec<PerStage<String>>,
    /// Training timesteps to visit, in falling order: 999,500,0 [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]LIST", conflicts_with = "preset")]
    pub(crate) timesteps: Vec<PerStage<Timesteps>>,
    /// How steps are spread over the training timesteps: leading, linspace, trailing, or configured
    /// (in the scheduler file) [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]SPACING")]
    pub(crate) spacing: Vec<PerStage<String>>,
    /// Share of fresh noise in ddim, 0 to 1 [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]ETA", allow_hyphen_values = true)]
    pub(crate) eta: Vec<PerStage<f64>>,
    /// What keeps predicted pictures within bounds: off, static:RANGE, dynamic:PERCENTILE:MAX
    /// (dynamic:99.5:1.5), or configured (in the scheduler file) [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]HOW")]
    pub(crate) thresholding: Vec<PerStage<String>>,
    /// Noise level that is added to a super-resolution stage's input, 0 to 999 [default: the
    /// cascade's]
    #[arg(long, value_name = "[STAGE=]LEVEL")]
    pub(crate) noise_level: Vec<PerStage<u32>>,
    /// How much noise is added to the image before a stage starts from it: above 0, at most 1
    /// (noise alone) [default: 0.7 in the first stage, or 1 with a mask; 0.8 in the others]
    #[arg(long, value_name = "[STAGE=]STRENGTH", allow_hyphen_values = true)]
    pub(crate) strength: Vec<PerStage<f64>>,
    /// Compute the network's deeper features only every N steps and reuse them in between: faster,
    /// and slightly different. 1 (no reuse) to 100 [default: the cascade's]
    #[arg(long, value_name = "[STAGE=]STEPS")]
    pub(crate) cache_interval: Vec<PerStage<u32>>,
}

impl StageFlags {
    /// Checks each value as far as it needs no cascade.
    pub(crate) fn check(&self) -> Result<()> {
        let number = |flag: &PerStage<f64>| Some(flag.value);
        let count = |flag: &PerStage<u32>| Some(flag.value);
        let word = |flag: &PerStage<String>| Some(flag.value.clone());
        let no = StageRequest::default;
        let list = |flag: &PerStage<Timesteps>| flag.value.0.clone();
        let asked = (self.steps.iter().map(|flag| StageRequest { steps: count(flag), ..no() }))
            .chain(
                self.guidance
                    .iter()
                    .map(|flag| StageRequest { guidance_scale: number(flag), ..no() }),
            )
            .chain(
                self.guidance_schedule
                    .iter()
                    .map(|flag| StageRequest { guidance_schedule: word(flag), ..no() }),
            )
            .chain(self.sampler.iter().map(|flag| StageRequest { sampler: word(flag), ..no() }))
            .chain(self.preset.iter().map(|flag| StageRequest { preset: word(flag), ..no() }))
            .chain(self.timesteps.iter().map(|flag| StageRequest { timesteps: list(flag), ..no() }))
            .chain(self.spacing.iter().map(|flag| StageRequest { spacing: word(flag), ..no() }))
            .chain(self.eta.iter().map(|flag| StageRequest { eta: number(flag), ..no() }))
            .chain(
                self.thresholding
                    .iter()
                    .map(|flag| StageRequest { thresholding: word(flag), ..no() }),
            )
            .chain(
                self.noise_level
                    .iter()
                    .map(|flag| StageRequest { noise_level: count(flag), ..no() }),
            )
            .chain(self.strength.iter().map(|flag| StageRequest { strength: number(flag), ..no() }))
            .chain(
                self.cache_interval
                    .iter()
                    .map(|flag| StageRequest { cache_interval: count(flag), ..no() }),
            );
        // Named as by the farm, which checks them again beside the stage's other values.
        let path = |key: &str| format!("spec.settings.stages.{key}");
        asked.into_iter().try_for_each(|value| check_value(&value, &path))
    }

    /// The settings that these flags request for a cascade with `stages`. Flags for all stages
    /// apply to the stages that pictures of `size` pass, starting with stage `from`. The farm
    /// checks the values.
    pub(crate) fn settings(
        &self,
        size: u32,
        from: Option<&str>,
        stages: &[v1::CascadeStage],
    ) -> Result<v1::Settings> {
        let end = stages
            .iter()
            .position(|stage| stage.size == size)
            .map_or(stages.len(), |last| last + 1);
        let begin =
            stages[..end].iter().position(|stage| Some(stage.name.as_str()) == from).unwrap_or(0);
        let passed: Vec<&v1::CascadeStage> = stages[begin..end].iter().collect();
        self.check_names(&passed)?;
        let settings = (begin..).zip(&passed).map(|(position, stage)| v1::StageSettings {
            stage: stage.name.clone(),
            sampler: pick(&self.sampler, &stage.name),
            steps: self.steps_of(&stage.name),
            preset: pick(&self.preset, &stage.name),
            timesteps: pick(&self.timesteps, &stage.name).map_or_else(Vec::new, |list| list.0),
            spacing: pick(&self.spacing, &stage.name),
            eta: pick(&self.eta, &stage.name),
            guidance_scale: pick(&self.guidance, &stage.name),
            guidance_schedule: pick(&self.guidance_schedule, &stage.name),
            thresholding: pick(&self.thresholding, &stage.name),
            noise_level: if position == 0 {
                pick_special(&self.noise_level, &stage.name)
            } else {
                pick(&self.noise_level, &stage.name)
            },
            strength: pick(&self.strength, &stage.name),
            cache_interval: pick(&self.cache_interval, &stage.name),
        });
        let stages = settings.filter(|stage| *stage != named(&stage.stage)).collect();
        Ok(v1::Settings { size, stages, ..v1::Settings::default() })
    }

    /// Timesteps for this stage override steps for all stages.
    fn steps_of(&self, stage: &str) -> Option<u32> {
        let listed = pick_special(&self.preset, stage).is_some()
            || pick_special(&self.timesteps, stage).is_some();
        if listed { pick_special(&self.steps, stage) } else { pick(&self.steps, stage) }
    }

    fn check_names(&self, stages: &[&v1::CascadeStage]) -> Result<()> {
        let given = [
            ("--steps", names(&self.steps)),
            ("--guidance", names(&self.guidance)),
            ("--guidance-schedule", names(&self.guidance_schedule)),
            ("--sampler", names(&self.sampler)),
            ("--preset", names(&self.preset)),
            ("--timesteps", names(&self.timesteps)),
            ("--spacing", names(&self.spacing)),
            ("--eta", names(&self.eta)),
            ("--thresholding", names(&self.thresholding)),
            ("--noise-level", names(&self.noise_level)),
            ("--strength", names(&self.strength)),
            ("--cache-interval", names(&self.cache_interval)),
        ];
        for (flag, names) in given {
            for name in names {
                if !stages.iter().any(|stage| stage.name == name) {
                    let accepted: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
                    return Err(UserError::invalid(
                        flag,
                        format!(
                            "{flag} names the stage {name:?}; accepted: {}",
                            accepted.join(", ")
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn named(stage: &str) -> v1::StageSettings {
    v1::StageSettings { stage: stage.to_owned(), ..v1::StageSettings::default() }
}

fn names<T>(flags: &[PerStage<T>]) -> Vec<&str> {
    flags.iter().filter_map(|flag| flag.stage.as_deref()).collect()
}

fn pick<T: Clone>(flags: &[PerStage<T>], stage: &str) -> Option<T> {
    pick_special(flags, stage).or_else(|| {
        flags.iter().rev().find(|flag| flag.stage.is_none()).map(|flag| flag.value.clone())
    })
}

fn pick_special<T: Clone>(flags: &[PerStage<T>], stage: &str) -> Option<T> {
    flags
        .iter()
        .rev()
        .find(|flag| flag.stage.as_deref() == Some(stage))
        .map(|flag| flag.value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages() -> Vec<v1::CascadeStage> {
        [("base", 64), ("sr256", 256), ("sr1024", 1024)]
            .map(|(name, size)| v1::CascadeStage {
                name: name.to_owned(),
                size,
                ..v1::CascadeStage::default()
            })
            .into()
    }

    #[test]
    fn a_flag_for_one_stage_wins_over_one_for_all() {
        let flags = StageFlags {
            steps: vec!["base=7".parse().expect("valid"), "5".parse().expect("valid")],
            noise_level: vec!["9".parse().expect("valid")],
            ..StageFlags::default()
        };
        let settings = flags.settings(256, None, &stages()).expect("known stages");
        let seen: Vec<_> =
            settings.stages.iter().map(|s| (s.stage.as_str(), s.steps, s.noise_level)).collect();
        assert_eq!(seen, [("base", Some(7), None), ("sr256", Some(5), Some(9))]);
    }

    #[test]
    fn timesteps_for_one_stage_win_over_steps_for_all() {
        let flags = StageFlags {
            steps: vec!["5".parse().expect("valid")],
            preset: vec!["base=smart50".parse().expect("valid")],
            timesteps: vec!["sr256=900, 500,3".parse().expect("valid")],
            ..StageFlags::default()
        };
        let settings = flags.settings(0, None, &stages()).expect("known stages");
        let seen: Vec<_> = settings
            .stages
            .iter()
            .map(|s| (s.preset.as_deref(), s.timesteps.as_slice(), s.steps))
            .collect();
        let expected: [(_, &[u32], _); 3] =
            [(Some("smart50"), &[], None), (None, &[900, 500, 3], None), (None, &[], Some(5))];
        assert_eq!(seen, expected);
        assert!("9,x".parse::<PerStage<Timesteps>>().is_err());
    }

    #[test]
    fn flags_go_to_the_stages_that_run() {
        let flags = StageFlags {
            noise_level: vec!["9".parse().expect("valid")],
            strength: vec!["0.5".parse().expect("valid"), "sr1024=1".parse().expect("valid")],
            ..StageFlags::default()
        };
        let settings = flags.settings(0, Some("sr256"), &stages()).expect("known stages");
        let seen: Vec<_> =
            settings.stages.iter().map(|s| (s.stage.as_str(), s.noise_level, s.strength)).collect();
        assert_eq!(seen, [("sr256", Some(9), Some(0.5)), ("sr1024", Some(9), Some(1.0))]);
    }

    #[test]
    fn values_that_no_stage_takes_are_refused_without_a_cascade() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            stages: StageFlags,
        }
        let check = |flag: &str| {
            let line = Line::try_parse_from(["", flag]).expect("parses");
            line.stages.check()
        };
        for (flag, key) in [
            ("--steps=base=0", "steps"),
            ("--steps=1001", "steps"),
            ("--guidance=0.5", "guidance_scale"),
            ("--guidance=nan", "guidance_scale"),
            ("--guidance-schedule=often", "guidance_schedule"),
            ("--sampler=euler", "sampler"),
            ("--preset=slow", "preset"),
            ("--timesteps=1,2", "timesteps"),
            ("--spacing=wide", "spacing"),
            ("--eta=1.5", "eta"),
            ("--thresholding=on", "thresholding"),
            ("--noise-level=1000", "noise_level"),
            ("--strength=0", "strength"),
            ("--cache-interval=0", "cache_interval"),
        ] {
            let field = check(flag).expect_err(flag).field;
            assert_eq!(field, Some(format!("spec.settings.stages.{key}")), "{flag}");
        }
        for flag in [
            "--steps=base=1000",
            "--guidance=1",
            "--guidance-schedule=20%..80%",
            "--sampler=ddim",
            "--preset=super100",
            "--timesteps=base=999,0",
            "--spacing=trailing",
            "--eta=1",
            "--thresholding=dynamic:99.5:1.5",
            "--noise-level=999",
            "--strength=0.01",
            "--cache-interval=100",
        ] {
            assert_eq!(check(flag), Ok(()), "{flag}");
        }
    }

    #[test]
    fn no_flags_ask_for_nothing() {
        let settings =
            StageFlags::default().settings(0, None, &stages()).expect("nothing to refuse");
        assert!(settings.stages.is_empty());
    }

    #[test]
    fn an_unknown_stage_is_refused_with_those_there_are() {
        let flags =
            StageFlags { steps: vec!["sr512=7".parse().expect("valid")], ..StageFlags::default() };
        let error = flags.settings(0, None, &stages()).expect_err("unknown stage");
        assert_eq!(
            error.message,
            "--steps names the stage \"sr512\"; accepted: base, sr256, sr1024"
        );
    }
}
