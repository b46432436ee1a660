//! CSV and TSV: headers, quotes, separators, and columns.

use darkroom_prompts::{Format, Options};

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
    assert_eq!(texts("prompt\na red circle\n", "a.csv"), lines(&[(2, "a red circle")]), "one column");
    refused("prompt,caption\na,b\n", "a.csv", &["line 1: ", "\"prompt\" and \"caption\"", "--column"]);
    refused("name,what\na,b\n", "a.csv", &["line 1: ", "\"name\", \"what\"", "--column"]);
    refused("prompt,tag,Tag\na,b,c\n", "a.csv", &["line 1: ", "\"tag\" occurs twice"]);
}

#[test]
fn a_column_that_is_asked_for_is_the_prompt_and_the_others_are_labels() {
    let (prompts, _) =
        read_with("prompt,caption\na,b\n".as_bytes(), "a.csv", column("Caption")).expect("it is there");
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
    assert_eq!((first.negative.as_deref(), first.images, first.seed), (Some("blur"), 3, Some(u64::MAX)));
    assert_eq!(
        (first.style.as_deref(), first.image.as_deref(), first.mask.as_deref()),
        (Some("ink"), Some("a.png"), Some("b.png"))
    );
    assert_eq!((first.custom_id.as_str(), first.labels.len()), ("x-1", 1));
    let said_nothing = darkroom_prompts::Prompt { line: 3, text: "b".to_owned(), ..Default::default() };
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
    let (prompts, notes) = read_with(table.as_bytes(), "a.csv", Options::default()).expect("a table");
    assert_eq!(prompts[0].negative, None);
    let notes: Vec<_> = notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("\"negative_prompt\"") && notes[0].contains("`negative`"), "{notes:?}");
    assert!(notes[1].contains("`custom_id`") && notes[2].contains("column 4 has no name"), "{notes:?}");
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
    assert_eq!(texts("sep=;\nprompt;tag\na, b;d\n", "a.csv"), lines(&[(3, "a, b")]), "Excel's first line");
    let (prompts, _) = read_with(
        "prompt,x\na\n".as_bytes(),
        "a",
        Options { column: Some("prompt,x".to_owned()), ..forced(Format::Tsv) },
    )
    .expect("tabs only");
    assert_eq!(prompts[0].text, "a");
    let tsv = "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology-inspired concepts with multiple meanings\nthe letter \"A\"\tAbstract\tBasic\t\n";
    let prompts = read(tsv, "PartiPrompts.tsv");
    assert_eq!((prompts[0].labels.len(), prompts[1].labels.len()), (3, 2), "an empty cell is no label");
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
            refused(format!("\n{header}\na,b\n"), name, &["line 2: ", "table's header", "--format"]);
        }
        let (prompts, _) = read_with(header.as_bytes(), "a.txt", forced(Format::Text)).expect("asked for");
        assert_eq!(prompts[0].text, header);
    }
    refused("# a table\nprompt,category\na,b\n", "a.txt", &["line 2: ", "table's header", "--format"]);
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
