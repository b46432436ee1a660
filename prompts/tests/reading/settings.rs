//! Settings of single prompts: what files may say, and what they may not.

use darkroom_core::settings::SettingsRequest;
use darkroom_prompts::{Labels, Options};

use crate::{read, read_with, refused, refused_with};

fn settings(json: &str) -> SettingsRequest {
    serde_json::from_str(json).expect("settings")
}

#[test]
fn an_object_and_columns_say_the_same() {
    let expected = settings(
        r#"{"size": 256, "width": 384, "output": {"format": "jpeg", "quality": 80}, "stages": [
            {"stage": "base", "steps": 20, "guidance_scale": 7.5, "sampler": "ddim"},
            {"stage": "sr256", "timesteps": [900, 500, 0]}]}"#,
    );
    let line = r#"{"prompt": "a", "settings": {"size": 256, "width": 384,
        "output": {"format": "jpeg", "quality": 80}, "stages": [{"stage": "base", "steps": 20,
        "guidance_scale": 7.5, "sampler": "ddim"}, {"stage": "sr256", "timesteps": [900, 500, 0]}]}}"#;
    let json = format!("{}\n{{\"prompt\": \"b\"}}", line.replace('\n', " "));
    let table = "prompt,settings.size,Settings.Width,settings.base.steps,settings.base.guidance_scale,\
                 settings.base.sampler,settings.sr256.timesteps,settings.height,settings.output\n\
                 a,256,384, 20 ,7.5,ddim,\"900, 500 0\",,jpeg:80\n\
                 b,,,,,,,,\n";
    for prompts in [read(json, "a.jsonl"), read(table, "a.csv")] {
        assert_eq!(prompts[0].settings.as_ref(), Some(&expected));
        assert_eq!(prompts[1].settings, None);
        assert!(prompts.iter().all(|prompt| prompt.labels.is_empty()));
    }
    let null = read(r#"{"prompt": "a", "settings": null}"#, "a.jsonl");
    assert_eq!(null[0].settings, None);
}

#[test]
fn what_is_no_setting_is_refused_with_what_there_is() {
    for (json, words) in [
        (r#"{"prompt": "a", "settings": 3}"#, ["settings is 3", "stages"]),
        (r#"{"prompt": "a", "settings": {"steps": 3}}"#, ["unknown field `steps`", "stages"]),
        (r#"{"prompt": "a", "settings": {"size": "256"}}"#, ["settings cannot be read", "size"]),
        (r#"{"prompt": "a", "settings": {"size": 1, "size": 2}}"#, ["duplicate field", "size"]),
        (r#"{"prompt": "a", "settings": {"start": "picture"}}"#, ["settings.start is", "alike"]),
        (r#"{"prompt": "a", "settings": {"fit": "pad"}}"#, ["settings.fit is", "alike"]),
        (
            r#"{"prompt": "a", "settings": {"stages": [{"stage": "base", "stepps": 3}]}}"#,
            ["unknown field `stepps`", "steps"],
        ),
    ] {
        refused(json, "a.jsonl", &["line 1: ", words[0], words[1], "accepted: "]);
    }
    for (table, words) in [
        ("prompt,settings.steps\na,3\n", ["line 1: ", "\"settings.steps\" is no setting"]),
        ("prompt,settings.base.stepps\na,3\n", ["line 1: ", "guidance_scale"]),
        ("prompt,settings..steps\na,3\n", ["line 1: ", "is no setting"]),
        ("prompt,settings.size\na,1.5\n", ["line 2: ", "settings.size is \"1.5\""]),
        ("prompt,settings.output\na,gif\n", ["line 2: ", "settings.output is \"gif\""]),
        ("prompt,settings.base.eta\na,NaN\n", ["line 2: ", "settings.base.eta is \"NaN\""]),
        ("prompt,settings.base.steps\na,-1\n", ["line 2: ", "settings.base.steps is \"-1\""]),
        ("prompt,settings.b.timesteps\na,9 x\n", ["line 2: ", "settings.b.timesteps is \"x\""]),
        ("prompt,settings.size,Settings.Size\na,1,2\n", ["line 1: ", "occurs twice"]),
    ] {
        refused(table, "a.csv", &[words[0], words[1], "accepted: "]);
    }
}

#[test]
fn what_was_a_label_stays_one_where_it_is_asked_for_or_is_no_object() {
    let named =
        Options { labels: Labels::Only(vec!["settings.size".to_owned()]), ..Options::default() };
    let (prompts, _) =
        read_with("prompt,settings.size\na,huge\n".as_bytes(), "a.csv", named).expect("a table");
    assert_eq!(prompts[0].labels["settings.size"], "huge");
    assert_eq!(prompts[0].settings, None);
    let none = Options { labels: Labels::None, ..Options::default() };
    let (prompts, _) =
        read_with("prompt,settings.size,x\na,64,y\n".as_bytes(), "a.csv", none).expect("a table");
    assert_eq!(prompts[0].settings.as_ref().map(|own| own.size), Some(64), "a field, no label");
    let prompts = read("prompt,settings\na,studio\n", "a.csv");
    assert_eq!(prompts[0].labels["settings"], "studio");
    let all = || Options { labels: Labels::All, ..Options::default() };
    let json = r#"{"prompt": "a", "settings": "studio"}"#;
    let (prompts, _) = read_with(json.as_bytes(), "a.jsonl", all()).expect("lines");
    assert_eq!(prompts[0].labels["settings"], "studio");
    refused_with(r#"{"prompt": "a", "settings": {"iso": 100}}"#, "a.jsonl", all(), &["iso"]);
}
