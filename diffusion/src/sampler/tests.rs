//! Plans and steps that the reference traces do not cover.

use darkroom_core::sampling::GuidanceSchedule;
use serde_json::json;
use tch::{Device, Kind};

use super::*;
use crate::config::ConfigFile;

fn schedule(config: serde_json::Value) -> Schedule {
    Schedule::from_config(&ConfigFile::from_value(config)).unwrap()
}

fn sampling(sampler: Sampler) -> Sampling {
    Sampling::plain(sampler, 4)
}

fn plan(config: serde_json::Value, sampling: &Sampling) -> Result<SamplerPlan, RenderError> {
    SamplerPlan::new(&schedule(config), PlanOptions { sampling, has_variance: false })
}

fn noise(seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([1, 3, 4, 4], (Kind::Float, Device::Cpu))
}

#[test]
fn a_perfect_prediction_ends_in_the_clean_picture_with_every_sampler() {
    let clean = noise(1).clamp(-1.0, 1.0);
    let config = json!({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "lambda_min_clipped": -5.1});
    for sampler in
        [Sampler::Ddpm, Sampler::Ddim, Sampler::DpmSolverPlusPlus, Sampler::SdeDpmSolverPlusPlus]
    {
        let plan = plan(config.clone(), &sampling(sampler)).unwrap();
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
    let of = |sampler| plan(config.clone(), &sampling(sampler)).unwrap().limit;
    assert_eq!(of(Sampler::Ddpm), Limit::Static { range: 0.5 });
    assert_eq!(of(Sampler::Ddim), Limit::Static { range: 0.5 });
    assert_eq!(of(Sampler::DpmSolverPlusPlus), Limit::Off);
    assert_eq!(of(Sampler::SdeDpmSolverPlusPlus), Limit::Off);
    let with = |percentile, max| Sampling {
        thresholding: Thresholding::Dynamic { percentile, max },
        ..sampling(Sampler::DpmSolverPlusPlus)
    };
    let given = plan(config.clone(), &with(90.0, 2.0)).unwrap().limit;
    assert_eq!(given, Limit::Dynamic { ratio: 0.9, max: 2.0 });
    let error = plan(config.clone(), &with(90.0, 0.5)).unwrap_err();
    assert!(matches!(error, RenderError::Invalid { field: "thresholding", .. }), "{error}");
}

#[test]
fn only_steps_that_use_noise_ask_for_it() {
    let plan = |config, sampling: &Sampling| plan(config, sampling).unwrap();
    let draws = |plan: SamplerPlan| (0..4).map(|index| plan.draws_noise(index)).collect::<Vec<_>>();
    let none_at_0 = [true, true, true, false];
    assert_eq!(draws(plan(json!({}), &sampling(Sampler::Ddpm))), none_at_0);
    assert_eq!(draws(plan(json!({}), &sampling(Sampler::Ddim))), [false; 4]);
    let noisy = Sampling { eta: 1.0, ..sampling(Sampler::Ddim) };
    assert_eq!(draws(plan(json!({}), &noisy)), none_at_0);
    assert_eq!(draws(plan(json!({}), &sampling(Sampler::DpmSolverPlusPlus))), [false; 4]);
    let stochastic = sampling(Sampler::SdeDpmSolverPlusPlus);
    assert_eq!(draws(plan(json!({}), &stochastic)), none_at_0);
    let until_the_end = plan(json!({"final_sigmas_type": "sigma_min"}), &stochastic);
    assert_eq!(draws(until_the_end), [true; 4]);
}

#[test]
fn settings_that_cannot_run_are_refused_by_name() {
    let field = |config, sampling: Sampling| match plan(config, &sampling) {
        Err(RenderError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(json!({}), Sampling { steps: 0, ..sampling(Sampler::Ddpm) }), "steps");
    assert_eq!(field(json!({}), Sampling { eta: 1.5, ..sampling(Sampler::Ddim) }), "eta");
    assert_eq!(
        field(json!({}), Sampling { cache_interval: 0, ..sampling(Sampler::Ddim) }),
        "cache_interval"
    );
    assert_eq!(
        field(json!({}), Sampling { timesteps: vec![5, 9], ..sampling(Sampler::Ddim) }),
        "timesteps"
    );
    let backwards = GuidanceSchedule::Steps { from: 60.0, to: 20.0 };
    let backwards = Sampling { guidance_schedule: backwards, ..sampling(Sampler::Ddim) };
    assert_eq!(field(json!({}), backwards), "guidance_schedule");
    assert_eq!(
        field(json!({"variance_type": "learned_range"}), sampling(Sampler::Ddpm)),
        "sampler"
    );
}

fn plain() -> Sampling {
    Sampling::plain(Sampler::DpmSolverPlusPlus, 25)
}

fn left_out(steps: u32, strength: f64) -> Result<usize, RenderError> {
    steps_left_out(&Sampling { steps, strength: Some(strength), ..plain() })
}

#[test]
fn the_steps_left_out_are_those_of_the_reference() {
    for (steps, strength, expected) in
        [(50, 0.7, 15), (10, 0.7, 3), (100, 0.29, 72), (25, 1.0, 0), (3, 0.34, 2), (5, 0.2, 4)]
    {
        assert_eq!(left_out(steps, strength).unwrap(), expected, "{steps} {strength}");
    }
    let listed = Sampling { timesteps: vec![900, 600, 300, 0], strength: Some(0.5), ..plain() };
    assert_eq!(steps_left_out(&listed).unwrap(), 2, "a list's length counts, not `steps`");
    assert_eq!(steps_left_out(&plain()).unwrap(), 0);
}

#[test]
fn a_strength_that_leaves_nothing_to_do_is_refused() {
    for (steps, strength) in [(25, 0.0), (25, -0.5), (25, 1.01), (25, f64::NAN), (25, 0.03)] {
        let error = left_out(steps, strength).unwrap_err();
        assert!(matches!(error, RenderError::Invalid { field: "strength", .. }), "{error}");
    }
    let message = left_out(25, 0.03).unwrap_err().to_string();
    assert_eq!(
        message,
        "strength: 0.03 leaves none of 25 steps; accepted: at least one step's share, 1/25"
    );
}
