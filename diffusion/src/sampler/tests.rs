//! Plans and steps where the reference traces do not reach.

use serde_json::json;
use tch::{Device, Kind};

use super::*;
use crate::config::ConfigFile;

fn schedule(config: serde_json::Value) -> Schedule {
    Schedule::from_config(&ConfigFile::from_value(config)).unwrap()
}

fn options(sampler: Sampler) -> PlanOptions {
    PlanOptions {
        sampler,
        steps: 4,
        timesteps: None,
        spacing: None,
        guidance_scale: 1.0,
        guidance_schedule: GuidanceSchedule::Constant,
        eta: 0.0,
        thresholding: None,
        has_variance: false,
    }
}

fn noise(seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([1, 3, 4, 4], (Kind::Float, Device::Cpu))
}

#[test]
fn a_perfect_prediction_ends_in_the_clean_picture_with_every_sampler() {
    let clean = noise(1).clamp(-1.0, 1.0);
    let config = json!({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "lambda_min_clipped": -5.1});
    for sampler in [Sampler::Ddpm, Sampler::Ddim, Sampler::DpmSolverPp, Sampler::SdeDpmSolverPp] {
        let plan = SamplerPlan::new(&schedule(config.clone()), &options(sampler)).unwrap();
        let mut x = noise(2);
        let mut history = History::default();
        for index in 0..plan.timesteps.len() {
            let guided = Guided { mean: clean.copy(), variance: None };
            x = plan.step(index, &x, &guided, Some(&noise(3)), &mut history).unwrap();
        }
        assert!((&x - &clean).abs().max().double_value(&[]) < 1e-6, "{sampler:?}");
    }
}

#[test]
fn a_static_clip_is_not_for_dpm_solver() {
    let config = json!({"clip_sample": true, "clip_sample_range": 0.5});
    let of = |sampler| SamplerPlan::new(&schedule(config.clone()), &options(sampler)).unwrap().thresholding;
    assert_eq!(of(Sampler::Ddpm), Thresholding::Static { range: 0.5 });
    assert_eq!(of(Sampler::Ddim), Thresholding::Static { range: 0.5 });
    assert_eq!(of(Sampler::DpmSolverPp), Thresholding::Off);
    assert_eq!(of(Sampler::SdeDpmSolverPp), Thresholding::Off);
    let given = Thresholding::Dynamic { ratio: 0.9, max: 2.0 };
    let options = PlanOptions { thresholding: Some(given), ..options(Sampler::DpmSolverPp) };
    assert_eq!(SamplerPlan::new(&schedule(config.clone()), &options).unwrap().thresholding, given);
    let wrong = PlanOptions { thresholding: Some(Thresholding::Dynamic { ratio: 0.9, max: 0.5 }), ..options };
    let error = SamplerPlan::new(&schedule(config), &wrong).unwrap_err();
    assert!(matches!(error, RenderError::Invalid { field: "thresholding", .. }), "{error}");
}

#[test]
fn only_steps_that_use_noise_ask_for_it() {
    let plan = |config, options| SamplerPlan::new(&schedule(config), &options).unwrap();
    let draws = |plan: SamplerPlan| (0..4).map(|index| plan.draws_noise(index)).collect::<Vec<_>>();
    assert_eq!(draws(plan(json!({}), options(Sampler::Ddpm))), [true, true, true, false], "none at t = 0");
    assert_eq!(draws(plan(json!({}), options(Sampler::Ddim))), [false; 4]);
    let noisy = PlanOptions { eta: 1.0, ..options(Sampler::Ddim) };
    assert_eq!(draws(plan(json!({}), noisy)), [true, true, true, false]);
    assert_eq!(draws(plan(json!({}), options(Sampler::DpmSolverPp))), [false; 4]);
    assert_eq!(draws(plan(json!({}), options(Sampler::SdeDpmSolverPp))), [true, true, true, false]);
    let until_the_end = plan(json!({"final_sigmas_type": "sigma_min"}), options(Sampler::SdeDpmSolverPp));
    assert_eq!(draws(until_the_end), [true; 4]);
}

#[test]
fn settings_that_cannot_run_are_refused_by_name() {
    let field = |config, options: PlanOptions| match SamplerPlan::new(&schedule(config), &options) {
        Err(RenderError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(json!({}), PlanOptions { steps: 0, ..options(Sampler::Ddpm) }), "steps");
    assert_eq!(field(json!({}), PlanOptions { eta: 1.5, ..options(Sampler::Ddim) }), "eta");
    let list = Some(vec![5, 9]);
    assert_eq!(field(json!({}), PlanOptions { timesteps: list, ..options(Sampler::Ddim) }), "timesteps");
    assert_eq!(field(json!({"variance_type": "learned_range"}), options(Sampler::Ddpm)), "sampler");
}
