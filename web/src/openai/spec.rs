//! The job that an order becomes, and the farm's refusals of it in the words of this API.

use darkroom_core::error::UserError;
use darkroom_proto::v1;
use uuid::Uuid;

use super::{
    form::Inputs,
    order::{Format, Order},
};

/// The label of a job that holds the fingerprint of its request.
pub(super) const REQUEST: &str = "openai.request";
/// The label of a job that holds the client's own user.
pub(super) const USER: &str = "openai.user";
/// Longest name of a job, characters.
const NAME: usize = 60;

/// The job of an order: one prompt, with a name for this one request.
pub(super) fn job(
    order: &Order,
    inputs: &Inputs,
    cascade: &v1::Cascade,
    fingerprint: &str,
) -> v1::SubmitJobRequest {
    let mut labels = vec![(REQUEST.to_owned(), fingerprint.to_owned())];
    if !order.user.trim().is_empty() {
        labels.push((USER.to_owned(), order.user.clone()));
    }
    let spec = v1::JobSpec {
        client_request_id: format!("openai-{}", Uuid::new_v4().simple()),
        cascade: cascade.digest.clone(),
        name: name(&order.prompt),
        priority: v1::Priority::Interactive.into(),
        settings: Some(settings(order, inputs, cascade)),
        images_per_prompt: order.pictures,
        seed: order.seed,
        // The answer has all pictures or none.
        max_failed_images: Some(0),
        labels: labels.into_iter().collect(),
        ..Default::default()
    };
    let prompt = v1::Prompt {
        text: order.prompt.clone(),
        negative: order.negative.clone(),
        image: inputs.image.clone(),
        mask: inputs.mask.clone(),
        ..Default::default()
    };
    v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt] }
}

pub(super) fn settings(order: &Order, inputs: &Inputs, cascade: &v1::Cascade) -> v1::Settings {
    let start = match (inputs.image.as_str(), inputs.mask.as_str()) {
        ("", _) => v1::Start::Noise,
        (_, "") => v1::Start::Picture,
        _ => v1::Start::Masked,
    };
    let format = match order.format {
        Format::Png => v1::PictureFormat::Png,
        Format::Jpeg => v1::PictureFormat::Jpeg,
        Format::Webp => v1::PictureFormat::Webp,
    };
    let output =
        v1::Output { format: format.into(), quality: order.jpeg_quality, ..Default::default() };
    let mut settings =
        v1::Settings { start: start.into(), output: Some(output), ..Default::default() };
    let running = order.size.put(&mut settings, cascade);
    let stages = cascade.stages.iter().take(running).map(|stage| v1::StageSettings {
        stage: stage.name.clone(),
        steps: order.steps.or_else(|| order.quality.steps(stage)),
        guidance_scale: order.guidance,
        ..Default::default()
    });
    settings.stages =
        stages.filter(|stage| stage.steps.is_some() || stage.guidance_scale.is_some()).collect();
    settings
}

/// The prompt's first words.
fn name(prompt: &str) -> String {
    let mut name = String::new();
    for word in prompt.split(|letter: char| letter.is_whitespace() || letter.is_control()) {
        if name.chars().count() + 1 + word.chars().count() > NAME {
            break;
        }
        if !name.is_empty() && !word.is_empty() {
            name.push(' ');
        }
        name.push_str(word);
    }
    name
}

/// A refusal of the farm's, with the parameter's name instead of the field's.
pub(super) fn in_parameters(error: UserError) -> UserError {
    let Some(field) = &error.field else { return error };
    let Some(parameter) = parameter(field) else { return error };
    let message = error.message.replace(field.as_str(), parameter);
    // Core names fields from `settings` on.
    let short = field.strip_prefix("spec.").unwrap_or(field);
    let message = message.replace(short, parameter);
    // A size is one parameter here.
    let message = message.replacen("width and height are", "size is", 1);
    UserError { field: Some(parameter.to_owned()), message, ..error }
}

/// The parameter that a field of a job comes from.
fn parameter(field: &str) -> Option<&'static str> {
    let is = |part: &str| field.ends_with(part);
    Some(match field {
        "spec.cascade" => "model",
        "spec.seed" => "seed",
        _ if field.starts_with("spec.labels") => "user",
        _ if is(".width") || is(".height") || is(".size") => "size",
        _ if is(".steps") || is(".strength") => "steps",
        _ if is(".guidance_scale") => "guidance",
        _ if is("output.quality") => "output_compression",
        _ if is("output.format") => "output_format",
        "prompts[0].text" => "prompt",
        "prompts[0].negative" => "negative_prompt",
        "prompts[0].image" => "image",
        "prompts[0].mask" => "mask",
        "prompts[0].custom_id" => "custom_id",
        _ if field.starts_with("prompts[0].labels") => "user",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{fields::Fields, order::Endpoint};

    fn cascade() -> v1::Cascade {
        let stage = |(name, size, steps): (&str, u32, u32)| v1::CascadeStage {
            name: name.into(),
            size,
            defaults: Some(v1::StageSettings { steps: Some(steps), ..Default::default() }),
            train_timesteps: 1000,
            ..Default::default()
        };
        let stages = [("base", 64, 20), ("sr256", 256, 4), ("sr1024", 1024, 4)].map(stage);
        v1::Cascade { digest: "d1".into(), stages: stages.to_vec(), ..Default::default() }
    }

    fn of(json: &str, inputs: &Inputs) -> (v1::JobSpec, v1::Prompt) {
        let fields = Fields::of_json(serde_json::from_str(json).expect("an object"));
        let order = Order::read(fields, Endpoint::Generations).expect("an order");
        let v1::SubmitJobRequest { spec, mut prompts } = job(&order, inputs, &cascade(), "f1");
        (spec.expect("a spec"), prompts.pop().expect("a prompt"))
    }

    fn steps(spec: &v1::JobSpec) -> Vec<(String, Option<u32>, Option<f64>)> {
        let stages = spec.settings.iter().flat_map(|settings| &settings.stages);
        stages.map(|stage| (stage.stage.clone(), stage.steps, stage.guidance_scale)).collect()
    }

    #[test]
    fn an_order_becomes_an_interactive_job_of_one_prompt() {
        let asked = r#"{"prompt": "a\nfox  in snow", "n": 3, "seed": 0, "user": "u1",
                        "negative_prompt": "rain", "output_format": "jpeg", "output_compression": 70}"#;
        let (spec, prompt) = of(asked, &Inputs::default());
        assert_eq!((prompt.text.as_str(), prompt.negative.as_str()), ("a\nfox  in snow", "rain"));
        assert_eq!((spec.name.as_str(), spec.cascade.as_str()), ("a fox in snow", "d1"));
        assert_eq!((spec.images_per_prompt, spec.seed), (3, Some(0)));
        assert_eq!(spec.priority(), v1::Priority::Interactive);
        assert_eq!((&spec.labels[REQUEST][..], &spec.labels[USER][..]), ("f1", "u1"));
        let settings = spec.settings.clone().expect("settings");
        let output = settings.output.expect("an output");
        assert_eq!((output.format(), output.quality), (v1::PictureFormat::Jpeg, Some(70)));
        assert_eq!(steps(&spec), [], "the cascade's own");
        let again = of(asked, &Inputs::default()).0;
        assert_ne!(again.client_request_id, spec.client_request_id);
    }

    #[test]
    fn steps_count_before_quality_in_all_stages_that_run() {
        let of = |json| steps(&of(json, &Inputs::default()).0);
        let name = str::to_owned;
        assert_eq!(
            of(r#"{"prompt": "a", "quality": "high", "size": "256x256"}"#),
            [(name("base"), Some(40), None), (name("sr256"), Some(8), None)]
        );
        assert_eq!(
            of(r#"{"prompt": "a", "quality": "high", "steps": 5, "guidance": 2, "size": "64x64"}"#),
            [(name("base"), Some(5), Some(2.0))]
        );
    }

    #[test]
    fn a_job_starts_from_what_the_request_brings() {
        let start = |image: &str, mask: &str| {
            let inputs = Inputs { image: image.into(), mask: mask.into() };
            let (spec, prompt) = of(r#"{"prompt": "a"}"#, &inputs);
            assert_eq!((prompt.image, prompt.mask), (image.to_owned(), mask.to_owned()));
            spec.settings.expect("settings").start()
        };
        assert_eq!(start("", ""), v1::Start::Noise);
        assert_eq!(start("aa", ""), v1::Start::Picture);
        assert_eq!(start("aa", "bb"), v1::Start::Masked);
    }

    #[test]
    fn a_name_is_the_prompts_first_words() {
        assert_eq!(name(&"word ".repeat(50)), "word ".repeat(12).trim_end());
        assert_eq!(name(&"x".repeat(100)), "");
        assert_eq!(name("\u{7}a\tb"), "a b");
    }

    #[test]
    fn a_refusal_names_the_parameter() {
        let told = |field: &str, message: &str| {
            let error = in_parameters(UserError::invalid(field, message));
            (error.field.unwrap_or_default(), error.message)
        };
        assert_eq!(
            told("prompts[0].text", "prompts[0].text has 5000 characters; accepted: at most 4096"),
            ("prompt".into(), "prompt has 5000 characters; accepted: at most 4096".into())
        );
        assert_eq!(
            told(
                "spec.settings.stages[1].steps",
                "spec.settings.stages[1].steps is 2000; accepted: 1"
            ),
            ("steps".into(), "steps is 2000; accepted: 1".into())
        );
        assert_eq!(
            told("spec.settings.width", "width and height are 100x100, which does not fit"),
            ("size".into(), "size is 100x100, which does not fit".into())
        );
        assert_eq!(told("tenant", "tenant is x"), ("tenant".into(), "tenant is x".into()));
    }
}
