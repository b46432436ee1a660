//! JSON arrays, and COCO captions with their samples.

use darkroom_prompts::{Options, Prompt, Sample};

use crate::{lines, read, read_with, refused, refused_with, texts};

/// A file with `images` images of five captions each, in shuffled order.
fn coco(images: u64, reversed: bool) -> String {
    let mut annotations: Vec<_> = (0..images * 5)
        .map(|id| {
            format!(
                "{{\"image_id\": {}, \"id\": {id}, \"caption\": \"caption {id}\"}}",
                id % images
            )
        })
        .collect();
    if reversed {
        annotations.reverse();
    }
    format!(
        "{{\"info\": {{\"year\": 2014, \"a\": \"]}}\"}}, \"images\": [{{\"id\": 1, \"file_name\": \"a.jpg\"}}],\n\"licenses\": [],\n\"annotations\": [{}], \"type\": \"captions\"}}",
        annotations.join(",\n")
    )
}

fn sample(prompts: Option<u64>, per_image: Option<u64>, seed: u64) -> Options {
    Options { sample: Sample { prompts, per_image, seed }, ..Options::default() }
}

fn chosen(file: &str, options: Options) -> Vec<Prompt> {
    read_with(file.as_bytes(), "captions_val2014.json", options).expect("a sample").0
}

fn ids(prompts: &[Prompt]) -> Vec<&str> {
    prompts.iter().map(|prompt| prompt.custom_id.as_str()).collect()
}

#[test]
fn arrays_of_strings_and_objects_give_prompts_with_their_lines() {
    let json = "\u{feff}[\n  \"a [red] circle\",\n  {\"prompt\": \"b\", \"seed\": 1},\n\n  \"c, \\\"d\\\"\" ]\n";
    let expected = lines(&[(2, "a [red] circle"), (3, "b"), (5, "c, \"d\"")]);
    for name in ["a.json", "A.JSON", "", "a.dat"] {
        assert_eq!(texts(json, name), expected, "{name}");
    }
    assert_eq!(texts("[\"a\",\"b\"]", "a.json"), lines(&[(1, "a"), (1, "b")]));
    let (prompts, notes) =
        read_with(json.as_bytes(), "a.jsonl", Options::default()).expect("one meaning");
    assert_eq!((prompts.len(), notes.len()), (3, 1));
    refused(json, "a.txt", &["line 1: ", "JSON", "--format json"]);
    for (json, words) in [
        ("[]", ["no prompts", "accepted"]),
        ("[\"a\", ]", ["line 1: ", "JSON"]),
        ("[\"a\" \"b\"]", ["line 1: ", "a comma"]),
        ("[\"a\"", ["line 1: ", "the end of the file"]),
        ("[\n\"a", ["line 2: ", "cut short"]),
        ("[\"a\"]\n[\"b\"]", ["line 2: ", "nothing after"]),
        ("[\"a\", 5]", ["line 1: ", "it is 5"]),
        ("[\"a\", null]", ["line 1: ", "it is null"]),
        ("[\"a\",\n[\"b\"]]", ["line 2: ", "not a string"]),
        ("[{\"prompt\": \"a\"},\n{\"promt\": \"b\"}]", ["line 2: ", "promt"]),
        ("[{]}", ["line 1: ", "JSON"]),
        ("[,\"a\"]", ["line 1: ", "JSON"]),
        ("{\n\"prompt\": \"a\"\n}", ["line 2: ", "one JSON object"]),
        ("{\"prompts\": [\"a\"]}", ["line 1: ", "\"prompts\" is unknown"]),
        ("{\n\"data\": [\"a\"]\n}", ["annotations", "\"data\""]),
        ("a red circle", ["line 1: ", "--format text"]),
        ("", ["no prompts", "accepted"]),
    ] {
        if json.starts_with("{\"prompts\"") {
            // On one line it is the same as JSON lines.
            refused_with(json, "a.json", Options::default(), &words);
        } else {
            refused(json, "a.json", &words);
        }
    }
}

#[test]
fn coco_captions_are_told_by_their_content_and_name_annotation_and_image() {
    let file = coco(3, false);
    for name in ["captions_val2014.json", "captions", ""] {
        let prompts = read(&file, name);
        assert_eq!(prompts.len(), 15);
        assert_eq!((prompts[4].text.as_str(), prompts[4].custom_id.as_str()), ("caption 4", "4"));
        assert_eq!((prompts[4].labels["image_id"].as_str(), prompts[4].line), ("1", 7));
    }
    assert_eq!(read(file.replace('\n', " "), "a.json").len(), 15, "on one line");
    let first = "{\"annotations\": [{\"image_id\": \"x-1\", \"id\": 5, \"caption\": \"a\\ncat\"}], \"images\": [{\"a\": [[{}]]}]}";
    let prompts = read(first, "a.json");
    assert_eq!(
        (prompts[0].text.as_str(), prompts[0].labels["image_id"].as_str()),
        ("a\ncat", "x-1")
    );
    refused(&file, "a.txt", &["line 1: ", "COCO", "--format coco"]);
    refused(&file, "a.csv", &["line 1: ", "COCO", "--format coco"]);
}

#[test]
fn what_is_no_coco_captions_file_is_refused() {
    let with =
        |annotation: &str| format!("{{\"images\": [],\n\"annotations\": [\n{annotation}\n]}}");
    for (annotation, words) in [
        ("{\"image_id\": 1, \"id\": 2, \"bbox\": [1, 2]}", ["line 3: ", "\"bbox\" is unknown"]),
        ("{\"image_id\": 1, \"id\": 2}", ["line 3: ", "no `caption`"]),
        ("{\"image_id\": 1, \"caption\": \"a\"}", ["line 3: ", "no `id`"]),
        ("{\"id\": 1, \"caption\": \"a\"}", ["line 3: ", "no `image_id`"]),
        ("{\"image_id\": 1.5, \"id\": 2, \"caption\": \"a\"}", ["line 3: ", "image_id is 1.5"]),
        ("{\"image_id\": 1, \"id\": true, \"caption\": \"a\"}", ["line 3: ", "id is true"]),
        ("{\"image_id\": 1, \"id\": 2, \"caption\": null}", ["line 3: ", "no `caption`"]),
        ("{\"image_id\": 1, \"id\": 2, \"caption\": \" \"}", ["line 3: ", "empty"]),
        (
            "{\"image_id\": 1, \"id\": 2, \"id\": 3, \"caption\": \"a\"}",
            ["line 3: ", "\"id\" occurs twice"],
        ),
        ("\"a caption\"", ["line 3: ", "the annotation is"]),
        (
            "{\"image_id\": 1, \"id\": 2, \"caption\": \"a\"},\n{\"image_id\": 1, \"id\": 2, \"caption\": \"b\"}",
            ["line 4: ", "line 3"],
        ),
        ("", ["no prompts", "accepted"]),
    ] {
        refused(with(annotation), "a.json", &words);
    }
    refused("{\"images\": [],\n\"info\": {}}", "a.json", &["annotations"]);
    // The same file is refused with the same sentence each time.
    let keys = "{\"images\": 1, \"f\": 1, \"e\": 2, \"d\": 3,\n\"c\": 4, \"b\": 5, \"a\": 6}";
    let sorted = r#"its keys: "a", "b", "c", "d", "e", "f", "images")"#;
    refused(keys, "a.json", &["annotations", sorted]);
    refused(
        "{\"images\": [],\n\"annotations\": [], \"annotations\": []}",
        "a.json",
        &["line 2: ", "occurs twice"],
    );
    refused("{\"images\": [],\n\"annotations\": {}}", "a.json", &["line 2: ", "not expected here"]);
    refused("{\"images\": [],\n\"annotations\": [", "a.json", &["line 2: ", "the end of the file"]);
    let (_, notes) = read_with(
        "{\"info\": {},\n\"more\": 5,\n\"annotations\": [{\"image_id\": 1, \"id\": 2, \"caption\": \"a\"}]}"
            .as_bytes(),
        "a.json",
        Options::default(),
    )
    .expect("captions");
    assert_eq!((notes.len(), notes[0].line), (1, Some(2)));
    assert!(notes[0].message.contains("\"more\""), "{notes:?}");
}

#[test]
fn a_sample_is_the_same_however_the_file_is_ordered_and_comes_in_the_files_order() {
    let (file, reversed) = (coco(200, false), coco(200, true));
    let taken = chosen(&file, sample(Some(30), Some(1), 7));
    assert_eq!(taken.len(), 30);
    let images: std::collections::BTreeSet<_> =
        taken.iter().map(|prompt| &prompt.labels["image_id"]).collect();
    assert_eq!(images.len(), 30, "one caption an image");
    assert!(taken.is_sorted_by_key(|prompt| prompt.line), "in the file's order");
    let mut again = chosen(&reversed, sample(Some(30), Some(1), 7));
    again.reverse();
    assert_eq!(ids(&again), ids(&taken));
    let other = chosen(&file, sample(Some(30), Some(1), 8));
    assert_ne!(ids(&other), ids(&taken), "another seed");
    let larger = chosen(&file, sample(Some(31), Some(1), 7));
    assert!(taken.iter().all(|prompt| larger.contains(prompt)), "a larger sample contains it");
}

#[test]
fn samples_without_one_of_the_numbers_and_at_their_ends() {
    let file = coco(40, false);
    assert_eq!(chosen(&file, sample(None, Some(1), 0)).len(), 40);
    assert_eq!(chosen(&file, sample(None, Some(2), 0)).len(), 80);
    assert_eq!(chosen(&file, sample(None, Some(9), 0)).len(), 200);
    assert_eq!(chosen(&file, sample(Some(33), None, 0)).len(), 33);
    let two = chosen(&file, sample(Some(33), Some(2), 0));
    let mut of_image = std::collections::BTreeMap::new();
    two.iter().for_each(|prompt| *of_image.entry(&prompt.labels["image_id"]).or_insert(0) += 1);
    assert_eq!(
        (two.len(), of_image.len(), of_image.values().filter(|count| **count == 1).count()),
        (33, 17, 1)
    );
    let all = read_with(file.as_bytes(), "a.json", sample(Some(201), None, 0)).expect("all of it");
    assert_eq!((all.0.len(), all.1.len()), (200, 1));
    assert!(all.1[0].message.contains("200 prompts, not 201"), "{:?}", all.1);
    refused_with(&file, "a.json", sample(Some(0), None, 0), &["sample is 0", "1000000"]);
    refused_with(&file, "a.json", sample(Some(5), Some(0), 0), &["per-image is 0"]);
    refused_with(
        "a\nb\n",
        "a.txt",
        sample(Some(1), None, 0),
        &["sample is for COCO captions", "text"],
    );
    refused_with(
        "{\"images\": [], \"annotations\": []}",
        "a.json",
        sample(Some(1), None, 0),
        &["no captions"],
    );
    let bad = file.replace("\"caption 199\"", "5");
    refused_with(bad, "a.json", sample(Some(1), Some(1), 0), &["line ", "caption is 5"]);
}

/// The rule is documented, and these were chosen by a few lines of Python that follow it.
#[test]
fn the_rule_of_samples_does_not_change() {
    let taken = chosen(&coco(1000, false), sample(Some(5), Some(1), 0));
    assert_eq!(ids(&taken), ["212", "378", "524", "725", "4351"]);
}
