use darkroom_suites::cascade;

use super::*;

/// Two stages, the first of four steps.
fn cascade() -> CascadeSpec {
    cascade::spec(2)
}

fn steps(steps: u32) -> v1::Settings {
    let stage = v1::StageSettings {
        stage: "base".to_owned(),
        steps: Some(steps),
        ..v1::StageSettings::default()
    };
    v1::Settings { stages: vec![stage], ..v1::Settings::default() }
}

struct Job {
    overrides: Overrides,
    requested: SettingsRequest,
    made: Made,
}

impl Job {
    fn new() -> Self {
        let requested = SettingsRequest::default();
        let settings = Settings::resolve(&requested, &cascade()).expect("valid");
        let made = Made::of_job(&settings, &cascade());
        Self { overrides: Overrides::default(), requested, made }
    }

    fn ask(&mut self, asked: &v1::Settings) -> Result<Made, UserError> {
        let job = (&self.made, &self.requested);
        self.overrides.of_prompt("prompts[3]", Some(asked), job, &cascade())
    }
}

#[test]
fn what_comes_to_the_same_has_one_number_and_what_comes_to_the_jobs_has_none() {
    let mut job = Job::new();
    let number = |made: Made| made.variant().map(|variant| variant.number);
    assert_eq!(number(job.ask(&v1::Settings::default()).expect("valid")), None);
    assert_eq!(number(job.ask(&steps(4)).expect("valid")), None, "the default, said aloud");
    assert_eq!(number(job.ask(&steps(5)).expect("valid")), Some(1));
    let small = v1::Settings { size: 64, ..v1::Settings::default() };
    assert_eq!(number(job.ask(&small).expect("valid")), Some(2));
    let spelled = v1::Settings { width: 256, height: 256, ..steps(5) };
    assert_eq!(number(job.ask(&spelled).expect("valid")), Some(1), "the same in other words");
    assert_eq!(number(job.ask(&steps(5)).expect("valid")), Some(1));
    for (settings, images) in [(small, 3), (steps(5), 2)] {
        let made = job.ask(&settings).expect("valid");
        job.overrides.count(&made, images);
    }
    let own = job.made.clone();
    job.overrides.count(&own, 9);
    let loads = job.overrides.mix().loads(&own.settings, 5);
    assert_eq!(loads.iter().map(|load| load.images).collect::<Vec<_>>(), [5, 2]);
}

#[test]
fn a_job_has_a_limited_number_of_different_settings() {
    let mut job = Job::new();
    let guided = |step: usize| {
        let mut settings = steps(5);
        settings.stages[0].guidance_scale = Some(2.0 + step as f64 / 100.0);
        settings
    };
    for step in 0..MAX_VARIANTS {
        job.ask(&guided(step)).expect("accepted");
    }
    let error = job.ask(&guided(MAX_VARIANTS)).expect_err("one too many");
    assert_eq!(error.field.as_deref(), Some("prompts[3].settings"));
    assert!(error.message.contains("the job has 1000 different settings already"), "{error}");
    job.ask(&guided(7)).expect("known settings are still accepted");
}

#[test]
fn a_job_has_limited_bytes_of_different_settings() {
    let mut job = Job::new();
    let mut asked = 0;
    let error = loop {
        let mut settings = steps(0);
        settings.stages[0].steps = None;
        settings.stages[0].sampler = Some("ddpm".to_owned());
        settings.stages[0].timesteps = (0..990).rev().filter(|step| *step != asked).collect();
        match job.ask(&settings) {
            Ok(_) => asked += 1,
            Err(error) => break error,
        }
        assert!(asked < 900, "4 kB each");
    };
    assert!(asked > 100 && error.message.contains("at most 1048576"), "{asked}: {error}");
}

#[test]
fn a_field_at_fault_is_named_below_its_prompt() {
    let mut job = Job::new();
    let with = |change: fn(&mut v1::Settings)| {
        let mut settings = steps(5);
        change(&mut settings);
        settings
    };
    for (settings, field, says) in [
        (
            steps(0),
            "prompts[3].settings.stages[0].steps",
            "prompts[3].settings.stages[0].steps is 0",
        ),
        (with(|s| s.size = 65), "prompts[3].settings.size", "prompts[3].settings.size is 65"),
        (
            with(|s| s.width = 9),
            "prompts[3].settings.width",
            "prompts[3]: width and height are 9x256",
        ),
        (with(|s| s.fit = 2), "prompts[3].settings.fit", "prompts[3].settings.fit is \"pad\""),
        (
            with(|s| s.stages[0].noise_level = Some(3)),
            "prompts[3].settings.stages[0].noise_level",
            "prompts[3]: stage base has no low-resolution input",
        ),
    ] {
        let error = job.ask(&settings).expect_err(says);
        assert_eq!(error.field.as_deref(), Some(field));
        assert!(error.message.starts_with(says), "{error}");
    }
}
