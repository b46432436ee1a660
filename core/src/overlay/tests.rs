use super::*;

fn cascade() -> CascadeSpec {
    CascadeSpec::parse(
        r#"
        format = 1
        name = "tiny"
        [encoder]
        folder = "e"
        tokenizer = "t"
        max_length = 8
        [[stages]]
        name = "base"
        folder = "base"
        size = 64
        size_multiple = 8
        sampler = "ddpm"
        steps = 9
        guidance_scale = 3.0
        [[stages]]
        name = "sr256"
        folder = "sr256"
        size = 256
        sampler = "ddim"
        steps = 4
        guidance_scale = 1.0
        noise_level = 50
        [[stages]]
        name = "sr1024"
        folder = "sr1024"
        size = 1024
        sampler = "ddim"
        steps = 2
        guidance_scale = 1.0
        noise_level = 9
        "#,
    )
    .expect("valid")
}

fn stage(json: &str) -> StageRequest {
    serde_json::from_str(json).expect("a stage request")
}

fn asked(size: u32, stages: &[&str]) -> SettingsRequest {
    let stages = stages.iter().map(|json| stage(json)).collect();
    SettingsRequest { size, stages, ..SettingsRequest::default() }
}

fn overlaid(job: &SettingsRequest, prompt: &SettingsRequest) -> Result<Settings, UserError> {
    Settings::resolve(job, &cascade()).expect("the job is valid by itself");
    Settings::overlaid(job, prompt, &cascade())
}

#[test]
fn a_prompt_that_asks_for_nothing_has_its_jobs_settings() {
    let mut job = asked(
        256,
        &[
            r#"{"stage": "sr256", "steps": 7, "eta": 0.5}"#,
            r#"{"stage": "base", "preset": "smart27", "guidance_scale": 1.0}"#,
        ],
    );
    (job.width, job.height) = (384, 256);
    let nothing = SettingsRequest::default();
    assert_eq!(overlaid(&job, &nothing), Settings::resolve(&job, &cascade()));
    let again = SettingsRequest { stages: job.stages.clone(), ..nothing };
    assert_eq!(overlaid(&job, &again), Settings::resolve(&job, &cascade()), "nor what it repeats");
}

#[test]
fn a_stages_setting_that_a_prompt_does_not_name_is_its_jobs() {
    let job = asked(0, &[r#"{"stage": "base", "preset": "smart27", "guidance_scale": 5.0}"#]);
    let prompt = asked(0, &[r#"{"stage": "base", "cache_interval": 3}"#]);
    let base = overlaid(&job, &prompt).expect("valid").stages.remove(0).sampling;
    assert_eq!((base.preset.as_deref(), base.guidance_scale), (Some("smart27"), 5.0));
    assert_eq!((base.cache_interval, base.steps), (3, 27));
    // As a job's steps drop the cascade's preset, a prompt's drop its job's.
    let prompt = asked(0, &[r#"{"stage": "base", "steps": 5}"#]);
    let base = overlaid(&job, &prompt).expect("valid").stages.remove(0).sampling;
    assert_eq!((base.preset, base.steps, base.guidance_scale), (None, 5, 5.0));
    assert!(base.timesteps.is_empty());
}

#[test]
fn another_size_keeps_the_shape_and_passes_its_own_stages() {
    let extents = |settings: &Settings| -> Vec<(u32, u32)> {
        let extent = |extent: Extent| (extent.width, extent.height);
        settings.stages.iter().map(|stage| extent(stage.extent())).collect()
    };
    let wide =
        SettingsRequest { width: 1536, ..asked(1024, &[r#"{"stage": "sr1024", "steps": 3}"#]) };
    let smaller = overlaid(&wide, &asked(256, &[])).expect("valid");
    assert_eq!(extents(&smaller), [(96, 64), (384, 256)], "what sr1024 is asked is dropped");
    let flat = SettingsRequest { height: 128, ..asked(256, &[]) };
    let flat = overlaid(&wide, &flat).expect("valid");
    assert_eq!(extents(&flat), [(96, 32), (384, 128)]);
    let small = SettingsRequest { width: 384, ..asked(256, &[r#"{"stage": "base", "steps": 3}"#]) };
    let larger = overlaid(&small, &asked(1024, &[r#"{"stage": "sr1024", "steps": 5}"#]));
    let larger = larger.expect("valid");
    assert_eq!(extents(&larger), [(96, 64), (384, 256), (1536, 1024)]);
    assert_eq!((larger.stages[0].sampling.steps, larger.stages[2].sampling.steps), (3, 5));
}

#[test]
fn an_output_format_replaces_the_jobs_whole() {
    let output = |text: &str| text.parse().expect("an output");
    let job = SettingsRequest { output: output("jpeg:80"), ..asked(0, &[]) };
    let told = |prompt: &SettingsRequest| overlaid(&job, prompt).expect("valid").output.to_string();
    assert_eq!(told(&asked(64, &[])), "jpeg:80", "the job's stays");
    for other in ["png", "png:9", "jpeg:90", "webp"] {
        let prompt = SettingsRequest { output: output(other), ..asked(0, &[]) };
        assert_eq!(told(&prompt), other);
    }
    let mut webp = SettingsRequest { output: output("webp"), ..asked(0, &[]) };
    webp.output.quality = Some(90);
    let error = overlaid(&job, &webp).expect_err("a WebP has no quality");
    assert_eq!(error.field.as_deref(), Some("settings.output.quality"));
}

#[test]
fn what_a_prompt_may_not_say_is_refused_with_its_own_place() {
    let job = asked(256, &[r#"{"stage": "sr256", "steps": 7}"#]);
    let begun = SettingsRequest { start_stage: "sr256".to_owned(), ..job.clone() };
    let with = |change: fn(&mut SettingsRequest)| {
        let mut request = SettingsRequest::default();
        change(&mut request);
        request
    };
    for (job, prompt, field, says) in [
        (&job, with(|p| p.start = "picture".to_owned()), "settings.start", "start alike"),
        (&job, with(|p| p.start_stage = "sr256".to_owned()), "settings.start_stage", "start alike"),
        (&job, with(|p| p.fit = "pad".to_owned()), "settings.fit", "start alike"),
        (&job, asked(65, &[]), "settings.size", "64, 256, 1024"),
        (&begun, asked(64, &[]), "settings.size", "begins with stage sr256; accepted: 256, 1024"),
        (&job, with(|p| p.width = 5000), "settings.width", "four times the area"),
        (
            &job,
            asked(0, &[r#"{"stage": "base"}"#, r#"{"stage": "sr256", "steps": 0}"#]),
            "settings.stages[1].steps",
            "settings.stages[1].steps is 0",
        ),
        (
            &job,
            asked(64, &[r#"{"stage": "sr256", "steps": 2}"#]),
            "settings.stages[0].stage",
            "accepted: base",
        ),
        (
            &job,
            asked(0, &[r#"{"stage": "base"}"#, r#"{"stage": "base"}"#]),
            "settings.stages[1].stage",
            "at most once",
        ),
    ] {
        let error = overlaid(job, &prompt).expect_err(says);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    let odd = SettingsRequest { width: 1000, height: 1024, ..SettingsRequest::default() };
    let mut whole = cascade();
    whole.stages[0].size_multiple = None;
    let error = Settings::overlaid(&odd, &asked(64, &[]), &whole).expect_err("62.5 pixels");
    assert!(error.message.contains("1000 pixels (at size 1024) are no whole number"), "{error}");
}

#[test]
fn a_strength_that_leaves_no_step_is_refused() {
    let job = SettingsRequest { start: "picture".to_owned(), ..SettingsRequest::default() };
    let prompt = asked(0, &[r#"{"stage": "sr256", "steps": 1, "strength": 0.5}"#]);
    let error = overlaid(&job, &prompt).expect_err("no step left");
    assert!(error.message.contains("leaves no step of the 1 steps of stage sr256"), "{error}");
}
