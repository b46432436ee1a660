use serde_json::{Value, json};

use super::*;

fn read(value: Value, endpoint: Endpoint) -> Answer<Order> {
    Order::read(Fields::of_json(serde_json::from_value(value).expect("an object")), endpoint)
}

fn generation(more: Value) -> Answer<Order> {
    let mut fields = json!({"prompt": "a fox"});
    let Value::Object(more) = more else { panic!("an object") };
    fields.as_object_mut().expect("an object").extend(more);
    read(fields, Endpoint::Generations)
}

fn refused(more: Value) -> (String, String) {
    let error = generation(more).expect_err("refused");
    (error.field.unwrap_or_default(), error.message)
}

#[test]
fn defaults_are_filled_in_so_that_saying_them_changes_nothing() {
    let short = generation(json!({})).expect("short");
    let long = generation(json!({
        "n": 1, "size": "auto", "quality": "standard", "response_format": "b64_json",
        "output_format": "png", "output_compression": 40, "stream": false, "partial_images": 0,
        "model": null, "user": null, "background": "opaque", "moderation": "low",
        "style": "vivid",
    }));
    assert_eq!(long.expect("long"), short);
    assert_eq!((short.pictures, short.delivery), (1, Delivery::Inline));
}

#[test]
fn compression_is_the_quality_of_jpeg_and_nothing_else() {
    let quality = |format: &str, level: u32| {
        let asked = json!({"output_format": format, "output_compression": level});
        generation(asked).expect("read").jpeg_quality
    };
    assert_eq!(quality("jpeg", 0), Some(1));
    assert_eq!(quality("jpeg", 85), Some(85));
    assert_eq!((quality("png", 50), quality("webp", 50)), (None, None));
}

#[test]
fn what_cannot_be_done_is_refused_by_name_and_value() {
    for (asked, field, said) in [
        (json!({"n": 0}), "n", "n is 0; accepted: a whole number from 1 to 10"),
        (json!({"n": 11}), "n", "n is 11; accepted: a whole number from 1 to 10"),
        (
            json!({"background": "transparent"}),
            "background",
            "background is \"transparent\"; accepted: auto, opaque",
        ),
        (
            json!({"quality": "max"}),
            "quality",
            "quality is \"max\"; accepted: auto, low, medium, high, standard, hd",
        ),
        (
            json!({"output_format": "gif"}),
            "output_format",
            "output_format is \"gif\"; accepted: png, jpeg, webp",
        ),
        (
            json!({"size": 1024}),
            "size",
            "size is 1024; accepted: WIDTHxHEIGHT in pixels, like \"1024x1024\", or \"auto\"",
        ),
        (
            json!({"n": 2, "stream": true}),
            "n",
            "n is 2 and stream is true, but events do not say which picture they show; \
             accepted: n 1, or stream false",
        ),
        (
            json!({"response_format": "url", "stream": true}),
            "response_format",
            "response_format is \"url\" and stream is true, but a stream sends the picture \
             itself; accepted: b64_json, or stream false",
        ),
        (
            json!({"prompt": " "}),
            "prompt",
            "prompt is missing or blank; accepted: a text of 1 to 4096 characters",
        ),
        (json!({"guidance": 0.5}), "guidance", "guidance is 0.5; accepted: a number from 1 to 100"),
    ] {
        assert_eq!(refused(asked), (field.to_owned(), said.to_owned()));
    }
    let (field, said) = refused(json!({"user": "x\ny"}));
    assert_eq!(field, "user");
    assert_eq!(said, "user has U+000A, which cannot be printed; accepted: printable characters");
    let (_, said) = refused(json!({"user": "x".repeat(1025)}));
    assert_eq!(said, "user has 1025 characters; accepted: at most 1024");
}

#[test]
fn an_unknown_parameter_is_refused_by_name_and_each_route_has_its_own() {
    let (field, said) = refused(json!({"frame_count": 4}));
    assert_eq!(field, "frame_count");
    assert!(said.starts_with("frame_count is not a parameter of this route; accepted: prompt,"));
    assert_eq!(refused(json!({"input_fidelity": "high"})).0, "input_fidelity");
    assert_eq!(refused(json!({"image": "a.png"})).0, "image");
    let edit = json!({"prompt": "a fox", "input_fidelity": "high"});
    assert!(read(edit, Endpoint::Edits).is_ok());
}

#[test]
fn the_newer_name_of_the_user_counts_before_the_older() {
    let user = |asked| generation(asked).expect("read").user;
    assert_eq!(user(json!({"user": "a"})), "a");
    assert_eq!(user(json!({"user": "a", "safety_identifier": "b"})), "b");
    assert_eq!(user(json!({"user": "a", "safety_identifier": ""})), "a");
}
