//! A render runs exactly the network passes that the cost model counts.

use darkroom_core::sampling::{GuidanceSchedule, REUSING_PASS, Sampler};

use super::*;
use crate::device::{DeviceChoice, DtypeChoice};
use crate::unet::counted;

fn model() -> StageModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/example/base");
    let options = LoadOptions {
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::F32,
        ..LoadOptions::default()
    };
    StageModel::load(&folder, "base", &options).unwrap()
}

/// The passes of one image, as the network saw them: rows, with a smaller weight if features were
/// reused.
fn ran(model: &StageModel, sampling: &Sampling) -> f64 {
    let filled = |shape: Vec<usize>| HostTensor { data: vec![0.1; shape.iter().product()], shape };
    let text = filled(vec![10, model.describe().text_dim]);
    let row = RowInput {
        negative: Some(text.clone()),
        text,
        low_res: None,
        init_image: sampling.strength.map(|_| filled(vec![3, 16, 16])),
        mask: None,
        seed: 3,
    };
    let settings = SamplerSettings { sampling: sampling.clone(), width: 16, height: 16 };
    counted::take();
    model.render(&settings, &[row], &mut |_| ControlFlow::Continue(())).unwrap();
    counted::take()
        .iter()
        .map(|(rows, reused)| *rows as f64 * if *reused { REUSING_PASS } else { 1.0 })
        .sum()
}

const SAMPLERS: [Sampler; 4] =
    [Sampler::Ddpm, Sampler::Ddim, Sampler::DpmSolverPlusPlus, Sampler::SdeDpmSolverPlusPlus];

#[test]
fn a_render_runs_the_passes_that_the_cost_model_counts() {
    let model = model();
    let listed = vec![930, 790, 655, 512, 380, 260, 130, 7];
    for sampler in SAMPLERS {
        for (scale, schedule) in [
            (1.0, "constant"),
            (3.0, "constant"),
            (3.0, "25%..75%"),
            (3.0, "0%..58%"),
            (3.0, "200..800"),
            (3.0, "oscillating:2:1"),
            (1.0, "oscillating:1:2"),
        ] {
            let guidance_schedule: GuidanceSchedule = schedule.parse().unwrap();
            for cache_interval in [1, 2, 3] {
                for (timesteps, strength) in
                    [(listed.clone(), None), (Vec::new(), None), (listed.clone(), Some(0.7))]
                {
                    let spread = timesteps.is_empty();
                    if spread && matches!(guidance_schedule, GuidanceSchedule::Timesteps { .. }) {
                        // The cost model does not know the timesteps in this case; see the next
                        // test.
                        continue;
                    }
                    let sampling = Sampling {
                        timesteps,
                        strength,
                        guidance_scale: scale,
                        guidance_schedule,
                        cache_interval,
                        ..Sampling::plain(sampler, 8)
                    };
                    let (ran, counted) = (ran(&model, &sampling), sampling.passes());
                    assert!(
                        (ran - counted).abs() < 1e-9,
                        "{ran} ran, {counted} counted: {sampling:?}"
                    );
                }
            }
        }
    }
}

/// If timesteps are not listed, the cost model knows only their number and assumes that they are
/// evenly spread. So it may be off by one step at each end of the interval.
#[test]
fn of_spread_timesteps_the_cost_model_is_off_by_a_step_at_each_end_at_most() {
    let model = model();
    for sampler in SAMPLERS {
        for schedule in ["200..800", "0..399", "333..999"] {
            let sampling = Sampling {
                guidance_scale: 3.0,
                guidance_schedule: schedule.parse().unwrap(),
                ..Sampling::plain(sampler, 20)
            };
            let (ran, counted) = (ran(&model, &sampling), sampling.passes());
            assert!((ran - counted).abs() <= 2.0, "{ran} ran, {counted} counted: {sampling:?}");
            assert!((ran - 40.0).abs() > 2.0, "some steps are not guided");
        }
    }
}
