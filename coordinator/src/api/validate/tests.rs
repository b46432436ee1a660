use darkroom_core::cascade::CascadeSpec;

use super::*;

fn cascades(preparation: &str) -> Cascades {
    let spec = format!(
        r#"
        format = 1
        name = "tiny"
        [encoder]
        folder = "text_encoder"
        tokenizer = "tokenizer"
        max_length = 20
        text_preparation = "{preparation}"
        [[stages]]
        name = "base"
        folder = "base"
        size = 64
        sampler = "ddim"
        steps = 4
        guidance_scale = 3.0
        [[stages]]
        name = "sr256"
        folder = "sr256"
        size = 256
        sampler = "ddpm"
        steps = 2
        guidance_scale = 1.0
        noise_level = 50
        "#
    );
    let spec = CascadeSpec::parse(&spec).expect("a cascade");
    Cascades::new(vec![Cascade { spec, files: [].into() }])
}

fn draft(preparation: &str, spec: v1::JobSpec) -> Draft {
    Draft::new(Some(spec), &cascades(preparation)).expect("a good spec")
}

fn added(preparation: &str, prompt: v1::Prompt) -> Result<NewPrompt, UserError> {
    let mut draft = draft(preparation, v1::JobSpec { images_per_prompt: 3, ..Default::default() });
    draft
        .add(vec![prompt], &Inputs::default(), &CancellationToken::new())
        .map(|mut prompts| prompts.remove(0))
}

fn prompt(text: &str) -> v1::Prompt {
    v1::Prompt { text: text.to_owned(), ..Default::default() }
}

#[test]
fn a_prompt_or_style_of_which_cleaning_leaves_nothing_is_refused_and_a_negative_prompt_is_empty_then() {
    for text in [".hidden", "a.b.c.org", "www://example.org/a"] {
        let refused = added("if-clean", prompt(text)).expect_err(text);
        assert_eq!(refused.field.as_deref(), Some("prompts[0].text"));
        let styled = v1::Prompt { style: text.to_owned(), ..prompt("a cat") };
        assert_eq!(added("if-clean", styled).expect_err(text).field.as_deref(), Some("prompts[0].style"));
        let negative = v1::Prompt { negative: text.to_owned(), ..prompt("a cat") };
        let negative = added("if-clean", negative).expect("the empty text");
        assert_eq!(negative.negative_embedding.expect("guided").prepared, "");
        added("lowercase-strip", prompt(text)).expect("nothing is taken out");
    }
}

#[test]
fn what_is_absent_empty_zero_or_blank_has_one_meaning() {
    let plain = added("lowercase-strip", prompt("a cat")).expect("plain");
    assert_eq!((plain.images, plain.negative.as_str(), &plain.naming), (3, "", &Naming::default()));
    assert!(plain.style_embedding.is_none());
    for blank in ["", " ", "\u{FEFF}", "\u{200B}\n", "\u{A0}\u{3000}\u{AD}"] {
        let same = v1::Prompt {
            negative: blank.to_owned(),
            style: blank.to_owned(),
            custom_id: blank.replace('\n', ""),
            ..prompt("a cat")
        };
        let same = added("lowercase-strip", same).expect(blank);
        assert_eq!((same.images, same.negative.as_str(), &same.naming), (3, "", &Naming::default()));
        assert_eq!(same.negative_embedding, plain.negative_embedding);
        assert!(same.style_embedding.is_none() && same.extras == Extras::default());
        let spec = v1::JobSpec {
            name: blank.replace('\n', ""),
            tenant: blank.replace('\n', ""),
            ..Default::default()
        };
        let job = draft("none", spec).job;
        assert_eq!(
            (job.name.as_str(), job.tenant.as_str(), job.requested.images_per_prompt),
            ("", "default", 1)
        );
    }
    // Without preparation too, a blank negative prompt is the empty text.
    let negative = v1::Prompt { negative: " ".to_owned(), ..prompt(" a ") };
    let new = added("none", negative).expect("accepted");
    assert_eq!(new.negative_embedding.expect("guided").prepared, "");
    assert_eq!(new.text_embedding.prepared, " a ", "what can be seen stays as it is");
    let seeded = v1::Prompt { seed: Some(0), ..prompt("a") };
    assert_eq!(added("none", seeded).expect("accepted").first_seed, 0, "0 is a seed");
}

#[test]
fn custom_ids_of_a_message_clash_and_of_a_forecast_all_do() {
    let named = |id: &str, line| v1::Prompt { custom_id: id.to_owned(), line, ..prompt("a") };
    let inputs = Inputs::default();
    let mut stored = draft("none", v1::JobSpec::default());
    let clash = stored
        .add(vec![named("a", 5), prompt("b"), prompt("c"), named("a", 9)], &inputs, &CancellationToken::new())
        .expect_err("twice");
    assert_eq!(clash.field.as_deref(), Some("prompts[3].custom_id"));
    assert_eq!(
        clash.message,
        "prompts[3].custom_id (line 9) is \"a\", and so is prompts[0].custom_id (line 5); accepted: each custom id once \
         in a job"
    );
    let mut stored = draft("none", v1::JobSpec::default());
    let mut forecast = draft("none", v1::JobSpec::default()).counting();
    for draft in [&mut stored, &mut forecast] {
        draft
            .add(vec![named("a", 0), named("A", 0)], &inputs, &CancellationToken::new())
            .expect("case tells them apart");
    }
    stored.add(vec![named("a", 0)], &inputs, &CancellationToken::new()).expect("the record says so");
    let clash = forecast
        .add(vec![named("b", 0), named("a", 0)], &inputs, &CancellationToken::new())
        .expect_err("twice");
    assert!(
        clash.message.starts_with("prompts[3].custom_id is \"a\", and so is prompts[0].custom_id;"),
        "{}",
        clash.message
    );
}
