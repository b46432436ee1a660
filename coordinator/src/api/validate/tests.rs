use darkroom_core::prompt::TextPreparation;
use darkroom_suites::cascade;

use super::*;

pub(super) fn cascades(preparation: TextPreparation) -> Cascades {
    let mut cascade = cascade::without_files(2);
    cascade.spec.encoder.text_preparation = preparation;
    Cascades::new(vec![cascade])
}

fn draft(preparation: TextPreparation, spec: v1::JobSpec) -> Draft {
    Draft::new(Some(spec), &cascades(preparation)).expect("a good spec")
}

fn added(preparation: TextPreparation, prompt: v1::Prompt) -> Result<NewPrompt, UserError> {
    let mut draft = draft(preparation, v1::JobSpec { images_per_prompt: 3, ..Default::default() });
    draft
        .add(vec![prompt], &Inputs::default(), &CancellationToken::new())
        .map(|mut prompts| prompts.remove(0))
}

fn prompt(text: &str) -> v1::Prompt {
    v1::Prompt { text: text.to_owned(), ..Default::default() }
}

#[test]
fn a_prompt_or_style_of_which_cleaning_leaves_nothing_is_refused_and_a_negative_prompt_is_empty_then()
 {
    for text in [".hidden", "a.b.c.org", "www://example.org/a"] {
        let refused = added(TextPreparation::IfClean, prompt(text)).expect_err(text);
        assert_eq!(refused.field.as_deref(), Some("prompts[0].text"));
        let styled = v1::Prompt { style: text.to_owned(), ..prompt("a cat") };
        assert_eq!(
            added(TextPreparation::IfClean, styled).expect_err(text).field.as_deref(),
            Some("prompts[0].style")
        );
        let negative = v1::Prompt { negative: text.to_owned(), ..prompt("a cat") };
        let negative = added(TextPreparation::IfClean, negative).expect("the empty text");
        assert_eq!(negative.negative_embedding.expect("guided").prepared, "");
        added(TextPreparation::LowercaseStrip, prompt(text)).expect("nothing is removed");
    }
}

#[test]
fn what_is_absent_empty_zero_or_blank_has_one_meaning() {
    let plain = added(TextPreparation::LowercaseStrip, prompt("a cat")).expect("plain");
    assert_eq!((plain.images, plain.negative.as_str(), &plain.naming), (3, "", &Naming::default()));
    assert!(plain.style_embedding.is_none());
    for blank in ["", " ", "\u{FEFF}", "\u{200B}\n", "\u{A0}\u{3000}\u{AD}"] {
        let same = v1::Prompt {
            negative: blank.to_owned(),
            style: blank.to_owned(),
            custom_id: blank.replace('\n', ""),
            ..prompt("a cat")
        };
        let same = added(TextPreparation::LowercaseStrip, same).expect(blank);
        assert_eq!(
            (same.images, same.negative.as_str(), &same.naming),
            (3, "", &Naming::default())
        );
        assert_eq!(same.negative_embedding, plain.negative_embedding);
        assert!(same.style_embedding.is_none() && same.extras == Extras::default());
        let spec = v1::JobSpec {
            name: blank.replace('\n', ""),
            tenant: blank.replace('\n', ""),
            ..Default::default()
        };
        let job = draft(TextPreparation::None, spec).job;
        assert_eq!(
            (job.name.as_str(), job.tenant.as_str(), job.requested.images_per_prompt),
            ("", "default", 1)
        );
    }
    // A blank negative prompt is the empty text even without preparation.
    let negative = v1::Prompt { negative: " ".to_owned(), ..prompt(" a ") };
    let new = added(TextPreparation::None, negative).expect("accepted");
    assert_eq!(new.negative_embedding.expect("guided").prepared, "");
    assert_eq!(new.text_embedding.prepared, " a ", "a visible text does not change");
    let seeded = v1::Prompt { seed: Some(0), ..prompt("a") };
    assert_eq!(
        added(TextPreparation::None, seeded).expect("accepted").first_seed,
        0,
        "0 is a seed"
    );
}

#[test]
fn custom_ids_of_a_message_clash_and_of_a_forecast_all_do() {
    let named = |id: &str, line| v1::Prompt { custom_id: id.to_owned(), line, ..prompt("a") };
    let inputs = Inputs::default();
    let mut stored = draft(TextPreparation::None, v1::JobSpec::default());
    let clash = stored
        .add(
            vec![named("a", 5), prompt("b"), prompt("c"), named("a", 9)],
            &inputs,
            &CancellationToken::new(),
        )
        .expect_err("twice");
    assert_eq!(clash.field.as_deref(), Some("prompts[3].custom_id"));
    assert_eq!(
        clash.message,
        "prompts[3].custom_id (line 9) is \"a\", and so is prompts[0].custom_id (line 5); accepted: each custom id once \
         in a job"
    );
    let mut stored = draft(TextPreparation::None, v1::JobSpec::default());
    let mut forecast = draft(TextPreparation::None, v1::JobSpec::default()).counting();
    for draft in [&mut stored, &mut forecast] {
        draft
            .add(vec![named("a", 0), named("A", 0)], &inputs, &CancellationToken::new())
            .expect("case tells them apart");
    }
    stored
        .add(vec![named("a", 0)], &inputs, &CancellationToken::new())
        .expect("the record says so");
    let clash = forecast
        .add(vec![named("b", 0), named("a", 0)], &inputs, &CancellationToken::new())
        .expect_err("twice");
    assert!(
        clash.message.starts_with("prompts[3].custom_id is \"a\", and so is prompts[0].custom_id;"),
        "{}",
        clash.message
    );
}
