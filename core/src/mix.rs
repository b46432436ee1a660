//! How many images of a job pass each stage and how much work they are there, where some prompts
//! have settings of their own.

use serde::{Deserialize, Serialize};

use crate::{id::StageName, settings::Settings};

/// The sums over images with settings of their own; the others use the job's settings. It
/// grows with the number of stages, not with the number of settings. Empty: no image has its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Images with settings of their own.
    images: u64,
    /// The stages that some of them pass, in order.
    stages: Vec<StageSum>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StageSum {
    stage: StageName,
    /// Images that pass it.
    images: u64,
    /// Network passes of all of them together.
    passes: f64,
}

/// The sums over a job's images in one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageLoad {
    /// The stage.
    pub stage: StageName,
    /// Images that pass it.
    pub images: u64,
    /// Network passes of an image, on average.
    pub passes: f64,
}

impl Mix {
    /// Whether every image has the job's settings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images == 0
    }

    /// Counts images that have these settings instead of the job's. All settings of a job begin
    /// with the same stage.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn add(&mut self, settings: &Settings, images: u64) {
        self.images += images;
        for (position, stage) in settings.stages.iter().enumerate() {
            let passes = stage.sampling.passes() * images as f64;
            match self.stages.get_mut(position) {
                Some(sum) => {
                    sum.images += images;
                    sum.passes += passes;
                }
                None => {
                    self.stages.push(StageSum { stage: stage.stage.clone(), images, passes });
                }
            }
        }
    }

    /// Every stage that some image passes, in order, of a job of `images` images in all whose own
    /// settings are `own`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn loads(&self, own: &Settings, images: u64) -> Vec<StageLoad> {
        let others = images.saturating_sub(self.images);
        let of_job = own.stages.iter().map(|stage| StageLoad {
            stage: stage.stage.clone(),
            images: others,
            passes: stage.sampling.passes(),
        });
        let mut loads: Vec<StageLoad> = of_job.collect();
        for (position, sum) in self.stages.iter().enumerate() {
            let Some(load) = loads.get_mut(position) else {
                let passes = sum.passes / sum.images.max(1) as f64;
                loads.push(StageLoad { stage: sum.stage.clone(), images: sum.images, passes });
                continue;
            };
            let all = load.images + sum.images;
            if all > 0 {
                load.passes = (load.passes * load.images as f64 + sum.passes) / all as f64;
            }
            load.images = all;
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::Output,
        sampling::{Sampler, Sampling},
        settings::StageSettings,
        start::Start,
    };

    fn settings(steps: &[u32]) -> Settings {
        let stage = |(position, steps): (usize, &u32)| StageSettings {
            stage: format!("s{position}").try_into().expect("a name"),
            size: 64,
            extent: None,
            sampling: Sampling::plain(Sampler::Ddim, *steps),
        };
        let stages = steps.iter().enumerate().map(stage).collect();
        Settings { start: Start::Noise, fit: None, output: Output::default(), stages }
    }

    fn loads(mix: &Mix, own: &Settings, images: u64) -> Vec<(String, u64, f64)> {
        let loads = mix.loads(own, images).into_iter();
        loads.map(|load| (load.stage.to_string(), load.images, load.passes)).collect()
    }

    #[test]
    fn an_image_counts_in_the_stages_that_it_passes_and_weighs_what_it_takes_there() {
        let own = settings(&[10, 4]);
        let mut mix = Mix::default();
        assert!(mix.is_empty());
        let of = |name: &str, images, passes| (name.to_owned(), images, passes);
        assert_eq!(loads(&mix, &own, 8), [of("s0", 8, 10.0), of("s1", 8, 4.0)]);
        mix.add(&settings(&[30]), 2);
        assert_eq!(loads(&mix, &own, 8), [of("s0", 8, 15.0), of("s1", 6, 4.0)]);
        mix.add(&settings(&[10, 4, 7]), 3);
        mix.add(&settings(&[10, 4, 1]), 3);
        let all = [of("s0", 8, 15.0), of("s1", 6, 4.0), of("s2", 6, 4.0)];
        assert_eq!(loads(&mix, &own, 8), all, "none has the job's any more");
        let text = serde_json::to_string(&mix).expect("JSON");
        assert_eq!(serde_json::from_str::<Mix>(&text).expect("reads"), mix);
    }

    #[test]
    fn a_stage_that_no_image_passes_is_told_with_none() {
        let mut mix = Mix::default();
        mix.add(&settings(&[3]), 5);
        let own = settings(&[10, 4]);
        let of = |name: &str, images, passes| (name.to_owned(), images, passes);
        assert_eq!(loads(&mix, &own, 5), [of("s0", 5, 3.0), of("s1", 0, 4.0)]);
    }
}
