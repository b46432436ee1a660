use serde::Deserialize;

use super::*;

/// The results of the `sentencepiece` library for texts with one model.
#[derive(Deserialize)]
struct Recorded {
    texts: Vec<String>,
    /// Without the end token.
    ids: Vec<Vec<u32>>,
    end: u32,
}

/// Compares a model with the recorded ids, at three lengths: no limit, that of T5, and one that
/// many texts just fit or just exceed.
fn assert_gives(bytes: &[u8], recorded: &Recorded, name: &str) {
    const PAD: u32 = 0;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spiece.model"), bytes).unwrap();
    assert_eq!(recorded.texts.len(), recorded.ids.len());
    for length in [77, 8] {
        let tokenizer = Tokenizer::load(folder.path(), Some(length), PAD).unwrap();
        let mut cut = 0;
        for (text, row) in recorded.texts.iter().zip(&recorded.ids) {
            let kept = row.len().min(length - 1);
            let padding = length - 1 - kept;
            let real = [&row[..kept], &[recorded.end]].concat();
            let expected = Tokens {
                ids: [&real[..], &vec![PAD; padding]].concat(),
                mask: [vec![1; kept + 1], vec![0; padding]].concat(),
                count: kept + 1,
                truncated: row.len() - kept,
                unknown_words: Vec::new(),
            };
            let got = tokenizer.encode(text).unwrap();
            assert_eq!(
                Tokens { unknown_words: Vec::new(), ..got },
                expected,
                "{name} at {length}: {text:?}"
            );
            assert_eq!(tokenizer.ids(text, false).unwrap(), real, "{name} at {length}: {text:?}");
            let whole = [&row[..], &[recorded.end]].concat();
            assert_eq!(tokenizer.ids(text, true).unwrap(), whole, "{name}: {text:?}");
            cut += usize::from(kept < row.len());
        }
        assert!(cut > 0, "{name} at {length}: no text was cut");
    }
}

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/example/tokenizer")
}

#[test]
fn what_does_not_fit_is_counted() {
    let tokenizer = Tokenizer::load(&example(), Some(5), 0).unwrap();
    let short = tokenizer.encode("a red circle").unwrap();
    assert_eq!((short.count, short.truncated), (4, 0), "three words and the end");
    assert_eq!(short.mask, [1, 1, 1, 1, 0]);
    let long = tokenizer.encode("a red circle above a blue square").unwrap();
    assert_eq!((long.count, long.truncated), (5, 3));
    assert_eq!(long.ids.last(), Some(&1), "the end stays");
}

#[test]
fn unknown_words_are_named_once_as_written() {
    let tokenizer = Tokenizer::load(&example(), None, 0).unwrap();
    let tokens = tokenizer.encode("a Ünder red circle, Ünder 狗!").unwrap();
    assert_eq!(tokens.unknown_words, ["Ünder", "狗!"]);
    assert!(tokenizer.encode("a red dog").unwrap().unknown_words.is_empty());
}

#[test]
fn a_sentencepiece_model_pads_and_cuts_as_the_library_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let length = expected["length"].as_u64().unwrap() as usize;
    let tokenizer = Tokenizer::load(&folder, Some(length), 0).unwrap();
    for row in expected["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(serde_json::json!(tokens.ids), row["ids"], "{text:?}");
        assert_eq!(serde_json::json!(tokens.mask), row["mask"], "{text:?}");
        let (cut, whole) =
            (tokenizer.ids(text, false).unwrap(), tokenizer.ids(text, true).unwrap());
        assert_eq!(
            (cut.len(), whole.len()),
            (tokens.count, tokens.count + tokens.truncated),
            "{text:?}"
        );
        assert_eq!((cut.last(), whole.last()), (Some(&1), Some(&1)), "{text:?}");
    }
    assert_eq!(tokenizer.encode("龘 rides").unwrap().unknown_words, ["龘"]);
}

#[test]
fn hostile_texts_are_cut_to_77_ids_of_sentencepiece_with_the_end_token_last() {
    #[derive(Deserialize)]
    struct Hostile {
        texts: Vec<String>,
        /// By model: ids, separated by blanks.
        ids: std::collections::BTreeMap<String, Vec<String>>,
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
    let hostile = std::fs::read(folder.join("hostile.json")).unwrap();
    let hostile: Hostile = serde_json::from_slice(&hostile).unwrap();
    assert!(hostile.ids.len() >= 6 && hostile.texts.len() >= 600);
    let mut recorded = Recorded { texts: hostile.texts, ids: Vec::new(), end: 1 };
    for (name, rows) in &hostile.ids {
        let ids = |row: &String| row.split_whitespace().map(|id| id.parse().unwrap()).collect();
        recorded.ids = rows.iter().map(ids).collect();
        assert_gives(&std::fs::read(folder.join(name)).unwrap(), &recorded, name);
    }
}

/// `tools/check-spiece.sh FILE` runs this. `DARKROOM_SPIECE` names a `spiece.model`, for
/// example T5's own, and `DARKROOM_SPIECE_IDS` the output of `tools/reference/spiece_ids.py`
/// for it. Without a model nothing is tested.
#[test]
fn a_supplied_sentencepiece_model_gives_the_ids_of_the_library() {
    let Some(model) = std::env::var_os("DARKROOM_SPIECE") else { return };
    let ids =
        std::env::var_os("DARKROOM_SPIECE_IDS").expect("DARKROOM_SPIECE_IDS is needed as well");
    let recorded: Recorded = serde_json::from_slice(&std::fs::read(ids).unwrap()).unwrap();
    assert!(recorded.texts.len() >= 600);
    assert_gives(&std::fs::read(&model).unwrap(), &recorded, &model.to_string_lossy());
}

/// Loads the example's tokenizer.json with a change.
fn changed(
    change: impl Fn(&mut serde_json::Value),
    length: Option<usize>,
) -> Result<Tokenizer, String> {
    let text = std::fs::read(example().join("tokenizer.json")).unwrap();
    let mut file = serde_json::from_slice(&text).unwrap();
    change(&mut file);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::load(folder.path(), length, 0).map_err(|error| error.to_string())
}

#[test]
fn ids_and_lengths_beyond_any_vocabulary_are_refused_before_they_are_made_room_for() {
    type Change = fn(&mut serde_json::Value);
    let cases: &[(&str, Change)] = &[
        ("added_tokens[0].id is 2147483648", |file| {
            file["added_tokens"] =
                serde_json::json!([{"id": 2_147_483_648_u64, "content": "<x>", "special": true}]);
        }),
        ("model.vocab[\"b\"] is 2147483648", |file| {
            file["model"] = serde_json::json!({"type": "WordLevel", "unk_token": "a",
                    "vocab": {"a": 0, "b": 2_147_483_648_u64}});
        }),
        ("model.vocab[\"b\"] is -1", |file| {
            file["model"] =
                serde_json::json!({"type": "BPE", "merges": [], "vocab": {"a": 0, "b": -1}});
        }),
        ("padding.pad_id is 4294967295", |file| {
            file["padding"]["pad_id"] = serde_json::json!(u32::MAX)
        }),
        ("padding.strategy.Fixed is 4294967295", |file| {
            file["padding"]["strategy"] = serde_json::json!({"Fixed": u32::MAX});
        }),
        ("padding.pad_to_multiple_of is 4294967295", |file| {
            file["padding"]["pad_to_multiple_of"] = serde_json::json!(u32::MAX);
        }),
        ("truncation.max_length is 4294967295", |file| {
            file["truncation"]["max_length"] = serde_json::json!(u32::MAX);
        }),
        ("post_processor.special_tokens[\"</s>\"].ids[0] is 2147483648", |file| {
            file["post_processor"]["special_tokens"]["</s>"]["ids"] =
                serde_json::json!([2_147_483_648_u64]);
        }),
    ];
    for (words, change) in cases {
        let error = changed(*change, None).err().unwrap_or_else(|| panic!("{words} was accepted"));
        assert!(error.contains(words) && error.contains("accepted: "), "{words}: {error}");
    }
    for length in [0, 1, 2049, u32::MAX as usize, usize::MAX] {
        let error = changed(|_| {}, Some(length)).err().unwrap();
        assert!(
            error.contains(&length.to_string()) && error.contains("accepted: 2 to 2048"),
            "{error}"
        );
    }
    assert!(changed(|_| {}, Some(2048)).is_ok());
}

/// A file as T5's converters write it.
fn like_t5(file: &mut serde_json::Value) {
    file["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Strip", "strip_left": false, "strip_right": true},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]});
    file["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]});
}

/// A file as CLIP's converters write it.
fn like_clip(file: &mut serde_json::Value) {
    let split = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    *file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true}]},
            "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 0],
                "cls": ["<|endoftext|>", 0], "trim_offsets": false, "add_prefix_space": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>",
                "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false,
                "vocab": {"<|endoftext|>": 0, "r": 1, "e": 2, "d</w>": 3, "re": 4, "red</w>": 5},
                "merges": ["r e", "re d</w>"]}});
}

#[test]
fn tokenizers_of_t5_and_clip_are_accepted() {
    let t5 = changed(like_t5, Some(20)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(t5.encode("a  red circle ").unwrap().count, 4);
    let clip = changed(like_clip, Some(8)).unwrap_or_else(|error| panic!("{error}"));
    let red = clip.encode(" Red ").unwrap();
    assert_eq!((&red.ids[..3], red.count), (&[0, 5, 0][..], 3));
}

/// The table of characters of a spiece.model, which tokenizer.json has in base64.
fn charsmap() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
    let bytes = std::fs::read(folder.join("spiece.model")).unwrap();
    sentencepiece::charsmap_of(&bytes)
}

#[test]
fn a_table_of_characters_is_accepted_whole_and_refused_where_it_leads_out_of_itself() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let with = |table: &[u8]| {
        let text = STANDARD.encode(table);
        changed(
            |file| {
                file["normalizer"] = serde_json::json!({"type": "Precompiled",
                        "precompiled_charsmap": text});
            },
            Some(20),
        )
    };
    let table = charsmap();
    assert!(table.len() > 1000, "{} bytes", table.len());
    let tokenizer = with(&table).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(tokenizer.encode("ａ red circle").unwrap().count, 4, "the wide a is an a");

    let refused = |table: &[u8], says: &str| {
        let error = with(table).err().unwrap_or_else(|| panic!("accepted: {says}"));
        assert!(error.contains("precompiled_charsmap") && error.contains(says), "{error}");
    };
    let table_of = |units: &[u32], replacements: &[u8]| {
        let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(units.len() as u32).to_le_bytes()[..], &units, replacements].concat()
    };
    refused(&table_of(&[1 << 10], b"x\0"), "leads out of its own table");
    // A byte whose replacement begins behind the end.
    let mut units = [0_u32; 512];
    units[0] = 256 << 10;
    units[256 ^ 97] = 97 | 1 << 8 | (97 << 10);
    units[256] = 1 << 31 | 9;
    refused(&table_of(&units, b"x\0"), "leads out of its own table");
    units[256] = 1 << 31;
    assert!(with(&table_of(&units, b"x\0")).is_ok());
    let long = [&b"x".repeat(65)[..], b"\0"].concat();
    refused(&table_of(&units, &long), "by 65 bytes");
    refused(&table[..table.len() / 2], "is broken");
    refused(&table_of(&vec![0; 2 << 20], b""), "accepted: at most 4194304");
}

#[test]
fn parts_that_could_run_without_end_or_panic_are_refused_by_name() {
    use serde_json::json;
    type Change = fn(&mut serde_json::Value);
    let cases: &[(&str, Change)] = &[
        ("normalizer.pattern is \"{\\\"Regex\\\":\\\"(a+)+$\\\"}\"", |file| {
            file["normalizer"] =
                json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": " "});
        }),
        ("normalizer.normalizers[1].content is ", |file| {
            let grow =
                json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(99)});
            file["normalizer"] =
                json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, grow]});
        }),
        ("normalizer.pattern is \"{\\\"String\\\":\\\"\\\"}\"", |file| {
            file["normalizer"] =
                json!({"type": "Replace", "pattern": {"String": ""}, "content": "b"});
        }),
        ("normalizer.prepend is ", |file| {
            file["normalizer"] = json!({"type": "Prepend", "prepend": "a".repeat(1 << 20)});
        }),
        ("normalizer.normalizers[15] is one part too many", |file| {
            let blank = json!({"type": "Prepend", "prepend": "▁"});
            file["normalizer"] = json!({"type": "Sequence", "normalizers": vec![blank; 99]});
        }),
        ("normalizer is \"Nmt\"; accepted, as in tokenizers of T5 and CLIP: ", |file| {
            file["normalizer"] = json!({"type": "Nmt"});
        }),
        ("model.vocab has a token of 1025 bytes; accepted: at most 1024", |file| {
            let vocabulary = file["model"]["vocab"].as_array_mut().expect("pieces");
            vocabulary.push(json!(["a".repeat(1025), -9.0]));
        }),
        ("post_processor.single has the sequence \"A\" twice; accepted: each once", |file| {
            let text = json!({"Sequence": {"id": "A", "type_id": 0}});
            file["post_processor"] = json!({"type": "TemplateProcessing", "special_tokens": {},
                    "single": [text, text], "pair": []});
        }),
        ("normalizer has no type", |file| {
            file["normalizer"] = json!({"pattern": {"Regex": "(a+)+$"}, "content": " "});
        }),
        ("pre_tokenizer.pretokenizers[0].pattern is ", |file| {
            let split = json!({"type": "Split", "pattern": {"Regex": "((a{999}){999}){999}"},
                    "behavior": "Removed", "invert": false});
            file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split]});
        }),
        ("pre_tokenizer is \"UnicodeScripts\"", |file| {
            file["pre_tokenizer"] = json!({"type": "UnicodeScripts"});
        }),
        ("decoder.decoders[0].pattern is ", |file| {
            let replace = json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""});
            file["decoder"] = json!({"type": "Sequence", "decoders": [replace]});
        }),
        ("decoder is \"CTC\"", |file| file["decoder"] = json!({"type": "CTC"})),
        ("post_processor.single is too long", |file| {
            let piece = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
            file["post_processor"]["single"] = json!(vec![piece; 100_000]);
        }),
        ("post_processor.special_tokens[\"</s>\"].ids is too long", |file| {
            file["post_processor"]["special_tokens"]["</s>"]["ids"] = json!(vec![1; 100_000]);
        }),
        (
            "post_processor.single has the token \"<x>\"; accepted: those of special_tokens",
            |file| {
                let piece = json!({"SpecialToken": {"id": "<x>", "type_id": 0}});
                file["post_processor"]["single"] = json!([piece]);
            },
        ),
        ("post_processor.single has the sequence \"B\"; accepted: A", |file| {
            let piece = json!({"Sequence": {"id": "B", "type_id": 0}});
            file["post_processor"]["single"] = json!([piece]);
        }),
        ("post_processor adds 16 tokens to a text of at most 8", |file| {
            let piece = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
            file["post_processor"]["single"] = json!(vec![piece; 16]);
        }),
        ("added_tokens[0].content has 1025 bytes", |file| {
            file["added_tokens"] = json!([{"id": 0, "content": "a".repeat(1025), "special": true,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": true}]);
        }),
        ("model.type is \"WordPiece\"", |file| file["model"]["type"] = json!("WordPiece")),
        ("model.merges[0] is \"\\\"re d\\\"\"", |file| {
            like_clip(file);
            file["model"]["merges"] = json!(["re d"]);
        }),
        ("model.merges[0] is ", |file| {
            like_clip(file);
            file["model"]["merges"] = json!([["red</w>", "red</w>"]]);
        }),
        ("model.continuing_subword_prefix is ", |file| {
            like_clip(file);
            file["model"]["continuing_subword_prefix"] = json!("##");
        }),
        ("model.dropout is ", |file| {
            like_clip(file);
            file["model"]["dropout"] = json!(0.5);
        }),
        ("truncation.stride is 3", |file| {
            file["truncation"] = json!({"direction": "Right", "max_length": 3, "stride": 3,
                    "strategy": "LongestFirst"});
        }),
    ];
    for (words, change) in cases {
        let error =
            changed(*change, Some(8)).err().unwrap_or_else(|| panic!("{words} was accepted"));
        assert!(error.contains(words), "{words}: {error}");
        let says = error.contains("accepted: ") || error.contains("accepted, as in");
        assert!(says && error.lines().count() == 1 && error.len() < 700, "{error}");
    }

    // One part twice: the first would be built, and only the last would be seen.
    let text = std::fs::read_to_string(example().join("tokenizer.json")).unwrap();
    let twice = text.replacen(
        '{',
        r#"{"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},"#,
        1,
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), twice).unwrap();
    let error = Tokenizer::load(folder.path(), None, 0).err().unwrap().to_string();
    assert!(error.contains("duplicate field `normalizer`"), "{error}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_tokenizer_and_strangers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read(example().join("tokenizer.json")).unwrap();
    std::fs::write(&path, [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
    let tokenizer = Tokenizer::load(folder.path(), Some(5), 0).unwrap();
    let plain = Tokenizer::load(&example(), Some(5), 0).unwrap();
    assert_eq!(tokenizer.encode("a red circle").unwrap(), plain.encode("a red circle").unwrap());
    let refused = |bytes: &[u8], words: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer");
    refused(b"", "empty");
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(&utf16, "UTF-16");
    std::fs::remove_file(&path).unwrap();
    let model = folder.path().join("spiece.model");
    std::fs::write(&model, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap().to_string();
    assert!(error.contains("spiece.model") && error.contains("Git LFS pointer"), "{error}");
    std::os::unix::fs::symlink("gone", &path).unwrap();
    let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("link to gone"), "the link is the one that was meant: {said}");
}

#[test]
fn a_missing_tokenizer_is_named() {
    let error = Tokenizer::load(Path::new("/nowhere"), None, 0).err().unwrap();
    assert!(error.to_string().contains("/nowhere/tokenizer.json"), "{error}");
}
