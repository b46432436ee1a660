//! Schedules and timesteps, compared with numbers from diffusers 0.42.

use serde_json::{Value, json};

use super::*;

fn schedule(config: Value) -> Schedule {
    Schedule::from_config(&ConfigFile::from_value(config)).unwrap()
}

fn refused(config: Value) -> String {
    match Schedule::from_config(&ConfigFile::from_value(config)) {
        Err(LoadError::Unsupported { key, .. }) => key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_share_of_the_picture_left_is_the_references() {
    let times = [0, 1, 250, 500, 750, 998, 999];
    for (config, expected) in [
        (
            json!({"beta_schedule": "linear"}),
            [
                0.99989998,
                0.99978006,
                0.52142298,
                0.077796653,
                0.0033001585,
                4.1181942e-05,
                4.0358304e-05,
            ],
        ),
        (
            json!({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
            [
                0.99914998,
                0.99829602,
                0.6737923,
                0.27633247,
                0.056169804,
                0.0047166958,
                0.0046600951,
            ],
        ),
        (
            json!({"beta_schedule": "squaredcos_cap_v2"}),
            [
                0.99995869,
                0.99991256,
                0.84588802,
                0.49228504,
                0.14317866,
                2.4287663e-06,
                2.428735e-09,
            ],
        ),
        (
            json!({"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": true}),
            [0.99995887, 0.99991274, 0.84588122, 0.49226505, 0.1431556, 2.2778138e-06, 0.0],
        ),
    ] {
        let schedule = schedule(config.clone());
        for (time, expected) in times.iter().zip(expected) {
            let got = schedule.alphas_cumprod[*time];
            // The reference rounds to f32 in between; see the docs of the module.
            let tolerance = if *time >= 998 { 2e-5 } else { 3e-6 };
            assert!(
                (got - expected).abs() <= tolerance * expected,
                "{config} at {time}: {got} for {expected}"
            );
        }
    }
    let trained: Vec<f64> = (1..=10).map(|step| 0.01 * f64::from(step)).collect();
    let schedule = schedule(json!({"num_train_timesteps": 10, "trained_betas": trained}));
    assert!((schedule.alphas_cumprod[1] - 0.99 * 0.98).abs() < 1e-15);
    assert_eq!(
        (schedule.alpha_cumprod(-1), schedule.alpha_cumprod(2)),
        (1.0, schedule.alphas_cumprod[2])
    );
}

#[test]
fn ddpm_and_ddim_space_their_timesteps_as_the_reference() {
    let leading = json!({"timestep_spacing": "leading", "steps_offset": 1});
    for (config, expected) in [
        (leading, vec![vec![1], vec![667, 334, 1], vec![853, 711, 569, 427, 285, 143, 1]]),
        (
            json!({"timestep_spacing": "linspace"}),
            vec![vec![0], vec![999, 500, 0], vec![999, 832, 666, 500, 333, 166, 0]],
        ),
        (
            json!({"timestep_spacing": "trailing"}),
            vec![vec![999], vec![999, 666, 332], vec![999, 856, 713, 570, 428, 285, 142]],
        ),
    ] {
        for (steps, expected) in [1, 3, 7].into_iter().zip(expected) {
            let of_class = |class: &str| {
                let mut config = config.clone();
                config["_class_name"] = json!(class);
                schedule(config)
            };
            assert_eq!(
                ddpm_timesteps(&of_class("DDPMScheduler"), None, steps).unwrap(),
                expected,
                "{config}"
            );
            assert_eq!(
                ddim_timesteps(&of_class("DDIMScheduler"), None, steps).unwrap(),
                expected,
                "{config}"
            );
            // Another class does not take over the spacing.
            let leading: Vec<u32> =
                (0..steps as u32).rev().map(|index| index * (1000 / steps as u32)).collect();
            assert_eq!(
                ddim_timesteps(&of_class("DDPMScheduler"), None, steps).unwrap(),
                leading,
                "{config}"
            );
        }
    }
}

/// numpy computed the hash (FNV-1a's arithmetic on whole timesteps) of all lists, spaced as in the
/// reference, but without the −1 that the reference visits last for 62 of the counts.
#[test]
fn trailing_timesteps_are_numpys_for_every_count_of_steps() {
    let schedule =
        schedule(json!({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing"}));
    let of = |steps| ddpm_timesteps(&schedule, None, steps).unwrap();
    assert_eq!(of(48)[..6], [999, 978, 957, 936, 916, 895]);
    let mut hash = 0x811c_9dc5_u32;
    for steps in 1..=1000 {
        let timesteps = of(steps);
        assert_eq!(timesteps.len(), steps);
        hash = timesteps
            .iter()
            .fold(hash, |hash, timestep| (hash ^ timestep).wrapping_mul(0x0100_0193));
    }
    assert_eq!(hash, 0xf9c9_de65);
}

#[test]
fn dpm_solver_spaces_its_timesteps_below_the_clip() {
    let of = |spacing: &str, clip: f64| {
        schedule(json!({
            "_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "squaredcos_cap_v2",
            "timestep_spacing": spacing, "lambda_min_clipped": clip,
            "steps_offset": u32::from(spacing == "leading"),
        }))
    };
    for (spacing, clip, expected) in [
        ("leading", -5.1, vec![869, 745, 621, 497, 373, 249, 125]),
        ("leading", -1e9, vec![876, 751, 626, 501, 376, 251, 126]),
        ("linspace", -5.1, vec![995, 853, 711, 569, 426, 284, 142]),
        ("linspace", -1e9, vec![999, 856, 714, 571, 428, 285, 143]),
        ("trailing", -5.1, vec![995, 852, 709, 566, 424, 281, 138]),
        ("trailing", -1e9, vec![999, 856, 713, 570, 428, 285, 142]),
    ] {
        assert_eq!(
            dpm_timesteps(&of(spacing, clip), None, 7).unwrap(),
            expected,
            "{spacing} {clip}"
        );
    }
    // A stage's own DDPM file keeps its clipping but not its spacing.
    let stage = schedule(json!({
        "_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading",
        "lambda_min_clipped": -5.1,
    }));
    assert_eq!(dpm_timesteps(&stage, None, 3).unwrap(), [995, 663, 332]);
    assert!(stage.ignored_keys.is_empty(), "the clip is a key that one sampler obeys");
}

#[test]
fn a_spacing_that_is_asked_for_replaces_the_configured_one() {
    let of = |class: &str| {
        schedule(json!({
            "_class_name": class, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace",
            "lambda_min_clipped": -5.1,
        }))
    };
    for (spacing, others, solver) in [
        (Spacing::Leading, [750, 500, 250, 0], [796, 597, 398, 199]),
        (Spacing::Linspace, [999, 666, 333, 0], [995, 746, 498, 249]),
        (Spacing::Trailing, [999, 749, 499, 249], [995, 745, 495, 245]),
    ] {
        for class in ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"] {
            let (schedule, spacing) = (of(class), Some(spacing));
            assert_eq!(ddpm_timesteps(&schedule, spacing, 4).unwrap(), others, "{class}");
            assert_eq!(ddim_timesteps(&schedule, spacing, 4).unwrap(), others, "{class}");
            assert_eq!(dpm_timesteps(&schedule, spacing, 4).unwrap(), solver, "{class}");
        }
    }
}

#[test]
fn an_offset_counts_in_its_own_class_whether_or_not_a_spacing_is_written() {
    let schedule = schedule(json!({"_class_name": "DDIMScheduler", "steps_offset": 1}));
    assert_eq!(ddim_timesteps(&schedule, None, 4).unwrap(), [751, 501, 251, 1]);
    assert_eq!(ddpm_timesteps(&schedule, None, 4).unwrap(), [750, 500, 250, 0]);
}

#[test]
fn impossible_step_counts_and_lists_are_refused() {
    let schedule = schedule(json!({}));
    assert!(
        ddpm_timesteps(&schedule, None, 0).is_err()
            && ddpm_timesteps(&schedule, None, 1001).is_err()
    );
    assert!(
        dpm_timesteps(&schedule, None, 0).is_err() && dpm_timesteps(&schedule, None, 1000).is_err()
    );
    assert!(check_custom(&[999, 500, 0], 1000).is_ok());
    for list in [&[][..], &[5, 5], &[5, 6], &[1000, 5]] {
        assert!(check_custom(list, 1000).is_err(), "{list:?}");
    }
}

#[test]
fn no_number_is_too_small_or_too_large() {
    for key in [
        "beta_start",
        "beta_end",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "clip_sample_range",
    ] {
        for value in [json!(0), json!(-1), json!(1e9), json!("NaN"), json!("Infinity")] {
            assert_eq!(refused(json!({ key: value })), key);
        }
    }
    for key in ["num_train_timesteps", "steps_offset", "solver_order"] {
        for value in [json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX), json!("3")] {
            assert_eq!(refused(json!({ key: value })), key);
        }
    }
    for value in [json!(1e9), json!("NaN"), json!("Infinity")] {
        assert_eq!(refused(json!({"lambda_min_clipped": value})), "lambda_min_clipped");
    }
    // The default, as Python writes it.
    let cut = schedule(json!({"lambda_min_clipped": "-Infinity"})).config.dpm.lambda_min_clipped;
    assert_eq!(cut, f64::NEG_INFINITY);
    for betas in [json!([0.0, 0.1]), json!([0.1, 1.0]), json!([0.1, -0.1]), json!(["NaN", 0.1])] {
        assert_eq!(
            refused(json!({"num_train_timesteps": 2, "trained_betas": betas})),
            "trained_betas"
        );
    }
    let nothing_left = json!({"beta_start": 0.9, "beta_end": 0.9});
    assert_eq!(refused(nothing_left), "beta_end");
}

#[test]
fn options_that_are_not_run_are_refused_by_name() {
    for (key, value) in [
        ("_class_name", json!("EulerDiscreteScheduler")),
        ("beta_schedule", json!("sigmoid")),
        ("beta_end", json!(1.5)),
        ("trained_betas", json!([0.1, 0.2])),
        ("prediction_type", json!("flow_prediction")),
        ("variance_type", json!("fixed_large_log")),
        ("timestep_spacing", json!("karras")),
        ("use_karras_sigmas", json!(true)),
        ("algorithm_type", json!("dpmsolver")),
        ("solver_type", json!("heun")),
        ("solver_order", json!(3)),
        ("final_sigmas_type", json!("one")),
        ("clip_sample_range", json!(0)),
        ("num_train_timesteps", json!(1)),
    ] {
        assert_eq!(refused(json!({ key: value })), key);
    }
    assert_eq!(refused(json!({"thresholding": true, "sample_max_value": 0.5})), "sample_max_value");
    let ratio = json!({"thresholding": true, "dynamic_thresholding_ratio": 95});
    assert_eq!(refused(ratio), "dynamic_thresholding_ratio");
}

#[test]
fn keys_that_no_sampler_reads_are_listed() {
    let schedule =
        schedule(json!({"_diffusers_version": "0.42.1", "skip_prk_steps": true, "sigma_data": 1}));
    assert_eq!(schedule.ignored_keys, ["sigma_data", "skip_prk_steps"]);
}
