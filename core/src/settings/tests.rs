//! What a request is resolved to, and which requests are refused.

use super::*;
use crate::{
    digest::Digest,
    sampling::{GuidanceSchedule, Sampler, Spacing, Thresholding},
};

fn cascade(stage: &str) -> CascadeSpec {
    let text = format!(
        r#"
        format = 1
        name = "tiny"
        [encoder]
        folder = "text_encoder"
        tokenizer = "tokenizer"
        max_length = 20
        [[stages]]
        name = "base"
        folder = "base"
        size = 16
        guidance_scale = 3.0
        {stage}
        "#
    );
    CascadeSpec::parse(&text).expect("valid")
}

fn resolve(stage: &str, wanted: StageRequest) -> Result<Sampling, UserError> {
    resolved(stage, wanted).map(|stage| stage.sampling)
}

fn resolved(stage: &str, wanted: StageRequest) -> Result<StageSettings, UserError> {
    let wanted = StageRequest { stage: "base".to_owned(), ..wanted };
    let request = SettingsRequest { stages: vec![wanted], ..SettingsRequest::default() };
    Settings::resolve(&request, &cascade(stage)).map(|mut settings| settings.stages.remove(0))
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const DDPM: &str = "sampler = \"ddpm\"\n steps = 9";
const LISTED: &str = "sampler = \"ddpm\"\n preset = \"fast27\"";

#[test]
fn a_preset_comes_to_its_timesteps_and_keeps_its_name() {
    let stage = resolve(DDPM, StageRequest { preset: text("super27"), ..Default::default() })
        .expect("valid");
    assert_eq!((stage.steps, stage.preset.as_deref()), (27, Some("super27")));
    assert_eq!(stage.timesteps[..3], [999, 991, 982]);
    // Effective settings may be sent back as a request.
    let again = stage.as_request(&StageName::try_from("base".to_owned()).expect("a name"));
    assert_eq!(resolve(DDPM, again), Ok(stage));
}

#[test]
fn what_lies_beyond_a_stages_schedule_is_refused_with_what_it_has() {
    let short = "sampler = \"ddpm\"\n steps = 9\n train_timesteps = 40";
    let refused = |wanted| resolve(short, wanted).expect_err("refused").message;
    let steps = |sampler, steps| StageRequest {
        sampler: text(sampler),
        steps: Some(steps),
        ..Default::default()
    };
    let listed = |timesteps| StageRequest { timesteps, ..Default::default() };
    assert_eq!(
        refused(listed(vec![40, 3])),
        "settings.stages[0].timesteps has 40; accepted: timesteps of 39 to 0, by the schedule of stage base"
    );
    assert_eq!(
        refused(StageRequest { preset: text("fast27"), ..Default::default() }),
        "settings.stages[0].preset is \"fast27\", which has 999; accepted: timesteps of 39 to 0, by the schedule of \
         stage base"
    );
    assert_eq!(
        refused(steps("ddim", 41)),
        "settings.stages[0].steps is 41; accepted: 1 to 40, by the schedule of stage base"
    );
    assert!(refused(steps("dpmsolver++", 40)).contains("steps is 40; accepted: 1 to 39"));
    for wanted in [listed(vec![39, 0]), steps("ddim", 40), steps("sde-dpmsolver++", 39)] {
        resolve(short, wanted).expect("it has as many");
    }
    resolve(DDPM, listed(vec![999, 3])).expect("nothing is known of its schedule");
}

#[test]
fn a_noise_level_beyond_the_noising_schedule_is_refused() {
    let more = "sampler = \"ddpm\"\n steps = 9\n[[stages]]\n name = \"sr\"\n folder = \"sr\"\n size = 32\n \
                sampler = \"ddpm\"\n steps = 9\n guidance_scale = 1.0\n noise_level = 9\n noise_timesteps = 50";
    let of = |level| {
        let wanted = StageRequest {
            stage: "sr".to_owned(),
            noise_level: Some(level),
            ..StageRequest::default()
        };
        Settings::resolve(
            &SettingsRequest { stages: vec![wanted], ..Default::default() },
            &cascade(more),
        )
    };
    assert_eq!(of(49).expect("valid").stages[1].sampling.noise_level, Some(49));
    assert_eq!(
        of(50).expect_err("refused").message,
        "settings.stages[0].noise_level is 50; accepted: 0 to 49, by the noising schedule of stage sr"
    );
}

#[test]
fn the_cost_of_more_steps_than_there_can_be_takes_no_memory() {
    let mut settings = {
        let cascade = cascade("sampler = \"ddpm\"\nsteps = 9");
        Settings::resolve(&SettingsRequest::default(), &cascade).unwrap()
    };
    let sampling = &mut settings.stages[0].sampling;
    sampling.steps = 1000;
    let most = sampling.passes();
    sampling.steps = u32::MAX;
    assert_eq!(sampling.passes(), most);
}

#[test]
fn passes_are_of_the_steps_that_run_as_each_is_guided_and_uses_features_again() {
    let ddpm = "sampler = \"ddpm\"\n steps = 20";
    let plain = resolve(ddpm, StageRequest::default()).expect("valid");
    let of = |change: &dyn Fn(&mut Sampling)| {
        let mut settings = plain.clone();
        change(&mut settings);
        // Sums of eighteen hundredths differ in the last bit.
        (settings.passes() * 1e9).round() / 1e9
    };
    let schedule = |text: &str| text.parse::<GuidanceSchedule>().expect("valid");
    assert_eq!([of(&|_| {}), of(&|s| s.guidance_scale = 1.0)], [40.0, 20.0]);
    assert_eq!(
        of(&|s| s.guidance_schedule = schedule("200..800")),
        32.0,
        "as many rows as were counted in a run"
    );
    // With a picture to start from, only the last steps run, and the schedule applies to those.
    let strength = |s: &mut Sampling, strength| s.strength = Some(strength);
    assert_eq!(
        [of(&|s| strength(s, 0.5)), of(&|s| strength(s, 0.49)), of(&|s| strength(s, 0.04))],
        [20.0, 18.0, 0.0]
    );
    let strength_and = |text: &str, listed: &[u32]| {
        of(&|s| {
            (s.strength, s.guidance_schedule) = (Some(0.5), schedule(text));
            if !listed.is_empty() {
                (s.steps, s.timesteps) = (listed.len() as u32, listed.to_vec());
            }
        })
    };
    assert_eq!(
        [strength_and("500..999", &[]), strength_and("0..249", &[])],
        [10.0, 15.0],
        "of timesteps below 500"
    );
    assert_eq!(strength_and("0%..50%", &[]), 15.0);
    assert_eq!(
        [strength_and("0..99", &[900, 600, 300, 0]), strength_and("301..999", &[900, 600, 300, 0])],
        [3.0, 2.0]
    );
    // Reused features: 10 whole passes and 10 others, 7 and 13, 1 and 19.
    let every = |interval| of(&|s| s.cache_interval = interval);
    assert_eq!([every(2), every(3), every(100)], [23.6, 18.68, 8.84]);
    let both = |text: &str| of(&|s| (s.cache_interval, s.guidance_schedule) = (2, schedule(text)));
    // Whole at even steps, and at step 15, the first without guidance.
    assert_eq!(both("0%..75%"), 21.88);
    assert_eq!(both("oscillating:0:1"), 30.0, "no step has the shape of the one before");
}

#[test]
fn other_steps_another_sampler_or_a_spacing_drop_the_cascades_list() {
    let of = |wanted| {
        let stage = resolve(LISTED, wanted).expect("valid");
        (stage.sampler, stage.steps, stage.preset.is_some(), stage.timesteps.len())
    };
    assert_eq!(of(StageRequest::default()), (Sampler::Ddpm, 27, true, 27));
    assert_eq!(
        of(StageRequest { steps: Some(5), ..Default::default() }),
        (Sampler::Ddpm, 5, false, 0)
    );
    assert_eq!(
        of(StageRequest { sampler: text("ddim"), ..Default::default() }),
        (Sampler::Ddim, 27, false, 0)
    );
    assert_eq!(
        of(StageRequest { spacing: text("trailing"), ..Default::default() }),
        (Sampler::Ddpm, 27, false, 0)
    );
    let same =
        StageRequest { sampler: text("ddpm"), spacing: text("configured"), ..Default::default() };
    assert_eq!(of(same), (Sampler::Ddpm, 27, true, 27));
    let listed = StageRequest { timesteps: vec![9, 3], ..Default::default() };
    assert_eq!(of(listed), (Sampler::Ddpm, 2, false, 2));
}

#[test]
fn eta_stays_with_ddim() {
    let ddim = "sampler = \"ddim\"\n steps = 9\n eta = 0.5";
    assert_eq!(resolve(ddim, StageRequest::default()).expect("valid").eta, 0.5);
    let other = StageRequest { sampler: text("sde-dpmsolver++"), ..Default::default() };
    assert_eq!(resolve(ddim, other).expect("valid").eta, 0.0);
}

#[test]
fn values_that_do_not_go_together_are_refused_by_field() {
    let wanted = StageRequest::default;
    for (field, says, wanted) in [
        ("sampler", "\"euler\"", StageRequest { sampler: text("euler"), ..wanted() }),
        ("preset", "fast27, smart27", StageRequest { preset: text("fast28"), ..wanted() }),
        (
            "preset",
            "ddim",
            StageRequest { preset: text("fast27"), sampler: text("ddim"), ..wanted() },
        ),
        (
            "timesteps",
            "ddim",
            StageRequest { timesteps: vec![5], sampler: text("ddim"), ..wanted() },
        ),
        ("timesteps", "has 1000", StageRequest { timesteps: vec![1000, 5], ..wanted() }),
        ("timesteps", "5 and then 5", StageRequest { timesteps: vec![5, 5], ..wanted() }),
        (
            "timesteps",
            "preset",
            StageRequest { timesteps: vec![5], preset: text("fast27"), ..wanted() },
        ),
        (
            "steps",
            "2 timesteps",
            StageRequest { timesteps: vec![5, 2], steps: Some(3), ..wanted() },
        ),
        ("spacing", "leading", StageRequest { spacing: text("karras"), ..wanted() }),
        (
            "spacing",
            "timesteps",
            StageRequest { spacing: text("trailing"), timesteps: vec![5], ..wanted() },
        ),
        ("eta", "ddim", StageRequest { eta: Some(0.5), ..wanted() }),
        ("eta", "1.5", StageRequest { eta: Some(1.5), sampler: text("ddim"), ..wanted() }),
        ("eta", "NaN", StageRequest { eta: Some(f64::NAN), sampler: text("ddim"), ..wanted() }),
        ("guidance_schedule", "9..1", StageRequest { guidance_schedule: text("9..1"), ..wanted() }),
        ("thresholding", "on", StageRequest { thresholding: text("on"), ..wanted() }),
        ("noise_level", "base", StageRequest { noise_level: Some(5), ..wanted() }),
    ] {
        let error = resolve(DDPM, wanted).expect_err(says);
        let path = format!("settings.stages[0].{field}");
        assert_eq!(error.field.as_deref(), Some(path.as_str()), "{error}");
        assert!(error.message.contains(says) && error.message.contains("accepted:"), "{error}");
        assert!(field == "noise_level" || error.message.starts_with(&path), "{error}");
    }
}

#[test]
fn settings_that_differ_anywhere_are_hashed_apart() {
    let digest = |stage: &StageSettings| stage.hash(FieldHasher::new("t")).finish();
    let stage = resolved(DDPM, StageRequest::default()).expect("valid");
    let name = |name: &str| StageName::try_from(name.to_owned()).expect("a name");
    let changed = |change: &dyn Fn(&mut Sampling)| {
        let mut stage = stage.clone();
        change(&mut stage.sampling);
        stage
    };
    let others: Vec<StageSettings> = vec![
        stage.clone(),
        StageSettings { stage: name("other"), ..stage.clone() },
        StageSettings { size: 17, ..stage.clone() },
        StageSettings { extent: Some(Extent::square(16)), ..stage.clone() },
        changed(&|s| s.sampler = Sampler::SdeDpmSolverPlusPlus),
        changed(&|s| s.steps = 8),
        changed(&|s| s.preset = text("fast27")),
        changed(&|s| s.timesteps = vec![12, 3]),
        changed(&|s| s.timesteps = vec![1, 23]),
        changed(&|s| s.spacing = Spacing::Leading),
        changed(&|s| s.eta = f64::MIN_POSITIVE),
        changed(&|s| s.guidance_scale = 3.0 + f64::EPSILON * 2.0),
        changed(&|s| s.guidance_schedule = GuidanceSchedule::Timesteps { from: 1, to: 2 }),
        changed(&|s| s.guidance_schedule = GuidanceSchedule::Steps { from: 1.0, to: 2.0 }),
        changed(&|s| s.guidance_schedule = GuidanceSchedule::Oscillating { first: 1, low: 2.0 }),
        changed(&|s| s.thresholding = Thresholding::Off),
        changed(&|s| s.thresholding = Thresholding::Static { range: 1.0 }),
        changed(&|s| s.thresholding = Thresholding::Dynamic { percentile: 1.0, max: 1.0 }),
        changed(&|s| s.strength = Some(1.0)),
        changed(&|s| s.cache_interval = 2),
        changed(&|s| s.noise_level = Some(0)),
    ];
    let digests: std::collections::BTreeSet<Digest> = others.iter().map(digest).collect();
    assert_eq!(digests.len(), others.len());
}
