//! CSV and TSV: headers, quotes, separators, and columns.

use darkroom_prompts::{Format, Labels, Options};

use crate::{forced, lines, read, read_with, refused, refused_with, texts};

fn column(name: &str) -> Options {
    Options { column: Some(name.to_owned()), ..Options::default() }
}

#[test]
fn the_column_of_prompts_is_guessed_where_it_is_plain() {
    for header in [
        "prompt,tag",
        "Prompts,tag",
        "CAPTION,tag",
        "captions,tag",
        "Text,tag",
        " prompt ,tag",
        "\"prompt\",tag",
    ] {
        assert_eq!(texts(format!("{header}\na,b\n"), "a.csv"), lines(&[(2, "a")]), "{header}");
    }
    assert_eq!(
        texts("prompt\na red circle\n", "a.csv"),
        lines(&[(2, "a red circle")]),
        "one column"
    );
    refused(
        "prompt,caption\na,b\n",
        "a.csv",
        &["line 1: ", "\"prompt\" and \"caption\"", "--column"],
    );
    refused("name,what\na,b\n", "a.csv", &["line 1: ", "\"name\", \"what\"", "--column"]);
    refused("prompt,tag,Tag\na,b,c\n", "a.csv", &["line 1: ", "\"tag\" occurs twice"]);
}

#[test]
fn a_column_that_is_asked_for_is_the_prompt_and_the_others_are_labels() {
    let (prompts, _) = read_with("prompt,caption\na,b\n".as_bytes(), "a.csv", column("Caption"))
        .expect("it is there");
    assert_eq!((prompts[0].text.as_str(), prompts[0].labels["prompt"].as_str()), ("b", "a"));
    refused_with(
        "prompt,tag\na,b\n",
        "a.csv",
        column("what"),
        &["column is \"what\"", "\"prompt\", \"tag\""],
    );
    refused_with("a\nb\n", "a.txt", column("what"), &["column", "read as text"]);
}

#[test]
fn columns_with_names_of_fields_are_those_fields() {
    let table = "Prompt,Negative,IMAGES,seed,style,image,mask,custom_id,tag\n\
                 a,blur,3,18446744073709551615,ink,a.png,b.png,x-1,t\n\
                 b,, 0 ,,,,,,\n";
    let prompts = read(table, "a.csv");
    let first = &prompts[0];
    assert_eq!(
        (first.negative.as_deref(), first.images, first.seed),
        (Some("blur"), 3, Some(u64::MAX))
    );
    assert_eq!(
        (first.style.as_deref(), first.image.as_deref(), first.mask.as_deref()),
        (Some("ink"), Some("a.png"), Some("b.png"))
    );
    assert_eq!((first.custom_id.as_str(), first.labels.len()), ("x-1", 1));
    let said_nothing =
        darkroom_prompts::Prompt { line: 3, text: "b".to_owned(), ..Default::default() };
    assert_eq!(prompts[1], said_nothing);
    for (cell, says) in [
        ("-1", "-1"),
        ("1.0", "1.0"),
        ("1e3", "1e3"),
        ("+3", "+3"),
        ("three", "three"),
        ("10001", "10001"),
        ("99999999999", "99999999999"),
    ] {
        refused(
            format!("prompt,images\na,{cell}\n"),
            "a.csv",
            &["line 2: ", "images is", says, "accepted: "],
        );
    }
    refused("prompt,seed\na,18446744073709551616\n", "a.csv", &["line 2: ", "seed is"]);
    refused("prompt,custom_id\na,x\nb,y\nc,x\n", "a.csv", &["line 4: ", "\"x\"", "line 2"]);
}

#[test]
fn columns_that_other_tools_call_so_get_a_note() {
    let table = "prompt,negative_prompt,id,\na,blur,7,x\n";
    let (prompts, notes) =
        read_with(table.as_bytes(), "a.csv", Options::default()).expect("a table");
    assert_eq!(prompts[0].negative, None);
    let notes: Vec<_> = notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes[0].contains("\"negative_prompt\"") && notes[0].contains("`negative`"),
        "{notes:?}"
    );
    assert!(
        notes[1].contains("`custom_id`") && notes[2].contains("column 4 has no name"),
        "{notes:?}"
    );
    assert_eq!(prompts[0].labels.len(), 2);
}

#[test]
fn quotes_are_those_of_rfc_4180_and_broken_ones_are_refused_with_their_line() {
    let table = "prompt,tag\n\"a, \"\"b\"\"\nc\",d\ne \"f\" g,\"\"\n\"\"\"h\"\"\",i\n\n  \n,\nj,k";
    let expected = lines(&[(2, "a, \"b\"\nc"), (4, "e \"f\" g"), (5, "\"h\""), (9, "j")]);
    assert_eq!(texts(table, "a.csv"), expected);
    refused("prompt,tag\na,b\n\"c,d\ne,f\n", "a.csv", &["line 3: ", "never closes"]);
    refused("prompt,tag\n\"a\nb\" c,d\n", "a.csv", &["line 3: ", "follows a cell's closing quote"]);
    refused("prompt,tag\na, \"b, c\"\n", "a.csv", &["line 2: ", "blank stands before"]);
    refused("prompt,tag\na, b, c\n", "a.csv", &["line 2: ", "3 cells", "accepted: 2", "quotes"]);
    refused("prompt,tag\na\n", "a.csv", &["line 2: ", "1 cells"]);
    refused("prompt\na, b\n", "a.csv", &["line 2: ", "2 cells"]);
    refused("prompt,tag\n", "a.csv", &["no prompts"]);
    refused("", "a.csv", &["no prompts"]);
    refused("\n\n", "a.csv", &["no prompts"]);
}

#[test]
fn separators_follow_the_header_where_it_shows_them() {
    let expected = lines(&[(2, "a, b"), (3, "c")]);
    for (table, name) in [
        ("prompt\ttag\na, b\td\nc\te\n", "a.tsv"),
        ("prompt\ttag\na, b\td\nc\te\n", "a.TAB"),
        ("prompt\ttag\na, b\td\nc\te\n", "a.csv"),
        ("prompt;tag\na, b;d\nc;e\n", "a.csv"),
        ("tag;prompt;x,y\nd;a, b;f\ne;c;g\n", "a.csv"),
        ("prompt,tag\n\"a, b\",d\nc,e\n", "a.tsv"),
    ] {
        assert_eq!(texts(table, name), expected, "{table:?}");
    }
    assert_eq!(
        texts("sep=;\nprompt;tag\na, b;d\n", "a.csv"),
        lines(&[(3, "a, b")]),
        "Excel's first line"
    );
    let (prompts, _) = read_with(
        "prompt,x\na\n".as_bytes(),
        "a",
        Options { column: Some("prompt,x".to_owned()), ..forced(Format::Tsv) },
    )
    .expect("tabs only");
    assert_eq!(prompts[0].text, "a");
    let tsv = "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology-inspired concepts with multiple meanings\nthe letter \"A\"\tAbstract\tBasic\t\n";
    let prompts = read(tsv, "PartiPrompts.tsv");
    assert_eq!(
        (prompts[0].labels.len(), prompts[1].labels.len()),
        (3, 2),
        "an empty cell is no label"
    );
    assert_eq!(prompts[1].text, "the letter \"A\"");
}

#[test]
fn headers_in_text_are_refused_and_lists_of_words_are_not() {
    for header in [
        "Prompts,Category",
        "prompt\tcategory",
        "prompt;category",
        "prompt|category",
        "id,prompt",
        "\"prompt\",\"category\"",
        ",prompt,category",
        "image,caption",
        "Prompt, Category",
        "prompt",
        "Captions",
    ] {
        for name in ["a.txt", "a", ""] {
            refused(
                format!("\n{header}\na,b\n"),
                name,
                &["line 2: ", "table's header", "--format"],
            );
        }
        let (prompts, _) =
            read_with(header.as_bytes(), "a.txt", forced(Format::Text)).expect("asked for");
        assert_eq!(prompts[0].text, header);
    }
    refused(
        "# a table\nprompt,category\na,b\n",
        "a.txt",
        &["line 2: ", "table's header", "--format"],
    );
    refused("a cat\nid\tcaption\n", "", &["line 2: ", "table's header", "--format"]);
    assert_eq!(texts("a cat\ntext, glow\ntext\n", "a.txt").len(), 3);
    for prompt in [
        "a red circle, text, 4k",
        "a sign with the text, big",
        "prompt engineering",
        "a cat, a dog",
        "the text reads: hello",
        "a, b",
        "text, text",
    ] {
        assert_eq!(texts(format!("{prompt}\n"), "a.txt"), lines(&[(1, prompt)]));
    }
}

#[test]
fn a_first_line_is_a_header_where_rows_of_its_width_follow_or_all_its_names_are_columns() {
    for text in [
        "cat, text\ndog, sign\nsun, drawing\n",
        "cat, text\n\n\"dog, with\na hat\", sign\nsun, drawing\n",
        "cat, text\ndog, sign\nsun, moon\nsea, sky\na star\n",
        "cat,text\ndog,sign\n",
        "cat,text\na dog, running,sign\nthe sun, low,drawing\nmoon\n",
        "cat;text\na dog, running;sign\n",
        "cat\ttext\na dog, running\tsign\na sun\tdrawing",
        "cat|text\ndog|sign\n",
        "style,my_text,text\na\n",
        "id,text\na cat\n",
        "Prompt, Category\na red circle, round, big, Colors\n",
        "text,image_path",
        "text\na red circle\na blue star\n",
        "caption\ncircle\nstar\n",
    ] {
        for name in ["a.txt", "a", ""] {
            refused(text, name, &["line 1: ", "table's header", "--format"]);
        }
    }
    for text in [
        "cat, text",
        "cat, text\n",
        "cat, text\na red circle\na blue star\n",
        "image, text\na red circle\na blue star\n",
        "cat, text\ndog, sign\na red circle\na blue star\n",
        "cat, text\ndog, sign\nsun, moon\na red circle\na blue star\n",
        "cat, text\na dog, a sign, big\na sun, a drawing, small\n",
        "cat,text\na red circle\na blue star\n",
        "cat,text",
        "cat\ttext\na red circle\na blue, round star\n",
        "cat;text\na dog, a sign\n",
        "cat|text\n\"a dog|sign\n",
        "text\nlogo\nbanner\n",
        "text",
    ] {
        for name in ["a.txt", "a", ""] {
            assert!(!texts(text, name).is_empty(), "{text:?}");
            assert_eq!(texts(text, name)[0].0, 1, "{text:?}");
        }
    }
    // The same holds far from the first line.
    assert_eq!(texts("a cat\ncat,text\na red circle\n", "a.txt").len(), 3);
    refused("a cat\ncat,text\ndog,sign\n", "a.txt", &["line 2: ", "table's header"]);
}

/// A product feed: it has more columns than a prompt may have labels, and some are too long.
fn feed() -> String {
    let names: Vec<_> = (0..28).map(|number| format!("attribute {number}")).collect();
    let cells: Vec<_> = (0..28).map(|number| format!("v{number}")).collect();
    format!(
        "sku,title,text,{},image,Note,note\n1,Mug,a mug,{},mug.png,x,y\n2,Cup,a cup,{},cup.png,x,y\n",
        names.join(","),
        cells.join(","),
        "d".repeat(1500) + &",".repeat(27)
    )
}

fn with_labels(labels: Labels) -> Options {
    Options { labels, ..Options::default() }
}

fn only(names: &[&str]) -> Options {
    with_labels(Labels::Only(names.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn of_a_table_with_too_many_columns_those_that_are_named_become_labels() {
    let feed = feed();
    let words = ["line 1: ", "\"note\" occurs twice"];
    refused(&feed, "a.csv", &words);
    let wide = feed.replace(",Note,note", ",,").replace(",x,y\n", ",,\n");
    refused(
        wide,
        "a.csv",
        &[
            "line 2: labels has 30 labels; accepted: at most 16; the table's other columns are kept as labels: ",
            "\"sku\", \"title\", \"attribute 0\" and 27 more; --label-columns NAME,NAME,… keeps only those, --no-labels none",
        ],
    );
    let (prompts, notes) =
        read_with(feed.as_bytes(), "a.csv", only(&["SKU", "title"])).expect("few labels");
    assert_eq!(notes, []);
    let seen: Vec<_> =
        prompts[0].labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(seen, [("sku", "1"), ("title", "Mug")]);
    assert_eq!(
        (prompts[1].image.as_deref(), prompts.len()),
        (Some("cup.png"), 2),
        "fields stay fields"
    );
    let (prompts, _) = read_with(feed.as_bytes(), "a.csv", only(&["image"])).expect("a label");
    assert_eq!(
        (prompts[0].image.as_deref(), prompts[0].labels["image"].as_str()),
        (None, "mug.png")
    );
    let (prompts, notes) =
        read_with(feed.as_bytes(), "a.csv", with_labels(Labels::None)).expect("no labels");
    assert_eq!((prompts[0].labels.len(), notes.len()), (0, 0));
    assert_eq!(prompts[0].image.as_deref(), Some("mug.png"));
    // A label that is too long gets the same advice; one that was requested by name gets its own.
    let long = ["line 3: ", "1500 characters", "--label-columns NAME,NAME,…", "--no-labels"];
    refused("prompt,a,b\nx,y,z\nx,y,\"".to_owned() + &"d".repeat(1500) + "\"\n", "a.csv", &long);
    refused_with(
        &feed,
        "a.csv",
        only(&["attribute 0"]),
        &["line 3: ", "1500", "--label-columns without it"],
    );
    let many: Vec<_> = (0..17).map(|number| format!("attribute {number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (names, words) in [
        (&["what"][..], ["label-columns has \"what\"", "\"sku\", \"title\", \"text\""]),
        (&["sku", "Note"], ["\"note\" occurs twice", "accepted"]),
        (&["text"], ["label-columns has \"text\"", "holds the prompts"]),
        (&["sku", "sku"], ["\"sku\" twice", "accepted"]),
        (&["sku", " "], ["a blank name", "accepted"]),
        (&many, ["17 names", "at most 16"]),
    ] {
        refused_with(&feed, "a.csv", only(names), &words);
    }
    let options = Options { column: Some("title".to_owned()), ..only(&["title"]) };
    refused_with(&feed, "a.csv", options, &["\"title\"", "--column"]);
}

#[test]
fn keys_of_objects_are_kept_or_left_out_as_they_are_named() {
    let line =
        r#"{"prompt": "a", "tag": "t", "image": "cat.png", "score": 1.5, "labels": {"k": "v"}}"#;
    let named = |names: &[&str]| {
        let (prompts, notes) =
            read_with(line.as_bytes(), "a.jsonl", only(names)).expect("an object");
        let labels: Vec<_> = prompts[0].labels.keys().cloned().collect();
        (labels.join(" "), prompts[0].image.clone(), notes)
    };
    assert_eq!(named(&["tag"]), ("k tag".to_owned(), Some("cat.png".to_owned()), vec![]));
    assert_eq!(named(&["image", "score"]).0, "image k score");
    assert_eq!(named(&["image"]).1, None);
    let (labels, _, notes) = named(&["tga"]);
    assert_eq!((labels.as_str(), notes.len()), ("k", 1));
    assert!(notes[0].message.contains("no prompt has a value for the key \"tga\""), "{notes:?}");
    let (prompts, notes) =
        read_with(line.as_bytes(), "a.jsonl", with_labels(Labels::None)).expect("fields");
    assert_eq!((prompts[0].labels.len(), notes.len()), (1, 0), "what the file calls labels stays");
    refused(line, "a.jsonl", &["\"tag\" is unknown", "--labels", "--label-columns", "--no-labels"]);
    let many: String = (0..17).map(|number| format!(", \"k{number}\": 1")).collect();
    let many = format!("{{\"prompt\": \"a\"{many}}}");
    refused_with(
        &many,
        "a.jsonl",
        with_labels(Labels::All),
        &["17 labels", "--label-columns NAME,NAME,…"],
    );
    let (prompts, _) =
        read_with(many.as_bytes(), "a.jsonl", only(&["k3", "k16"])).expect("two of them");
    assert_eq!(prompts[0].labels.len(), 2);
    let coco = r#"{"annotations": [{"image_id": 1, "id": 2, "caption": "a", "bbox": [], "split": "val"}]}"#;
    for (options, count) in [(only(&["split"]), 2), (with_labels(Labels::None), 1)] {
        let (prompts, notes) = read_with(coco.as_bytes(), "a.json", options).expect("captions");
        assert_eq!((prompts[0].labels.len(), notes.len()), (count, 0));
    }
    let (_, notes) = read_with("a\n".as_bytes(), "a.txt", only(&["k"])).expect("text");
    assert!(notes[0].message.contains("--label-columns changes nothing"), "{notes:?}");
}

#[test]
fn labels_of_columns_are_bounded() {
    let wide = |columns: usize| {
        let names: Vec<_> = (0..columns).map(|number| format!("c{number}")).collect();
        format!("prompt,{0}\na,{0}\n", names.join(","))
    };
    assert_eq!(read(wide(16), "a.csv")[0].labels.len(), 16);
    refused(wide(17), "a.csv", &["line 2: ", "labels", "17", "16"]);
    refused(format!("prompt,{}\na,b\n", "k".repeat(65)), "a.csv", &["line 2: ", "65"]);
    refused(format!("prompt,k\na,{}\n", "v".repeat(1025)), "a.csv", &["line 2: ", "1025"]);
    assert_eq!(read(format!("prompt,k\na,{}\n", "é".repeat(1024)), "a.csv").len(), 1);
    refused(format!("prompt,custom_id\na,{}\n", "v".repeat(129)), "a.csv", &["line 2: ", "129"]);
}
