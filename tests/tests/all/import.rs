//! `darkroom model import`: folders that the reference's `save_pretrained` wrote become a cascade
//! that renders. A wrong folder is refused in one sentence, and nothing is created.

use std::{
    fs,
    path::{Path, PathBuf},
};

use darkroom_tests::{
    command::{Darkroom, Ended},
    demo_cascade,
    lacking::Lacking,
};
use nix::errno::Errno;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/fixtures")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to)
        } else {
            fs::copy(&path, &to).map(drop).expect("copied")
        }
    }
}

/// A private folder with the pipelines `if-i` and `if-ii`.
fn hub() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    copy(&fixtures().join("hub"), folder.path());
    folder
}

fn import(folder: &Path, arguments: &[&str]) -> Ended {
    Darkroom::new(folder).args(["model", "import"]).args(arguments).run()
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// Whether Darkroom uses its own kernels on this machine. For them it packs wide convolutions,
/// which needs more memory.
fn this_cpu_runs_the_kernels() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Replaces the first `from` in a file's bytes by `to`, of the same length.
fn patch(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).expect("read");
    let place = bytes.windows(from.len()).position(|window| window == from).expect("there");
    bytes[place..place + to.len()].copy_from_slice(to);
    fs::write(path, bytes).expect("written");
}

#[test]
fn weights_in_memory_are_told_by_device_and_number_format() {
    let folder = tempfile::tempdir().expect("folder");
    let info = |flags: &[&str]| {
        Darkroom::new(folder.path())
            .args(flags)
            .args(["model", "info"])
            .args([demo_cascade()])
            .run()
    };
    let told = info(&["--json"]).json();
    let encoder = &told["encoder"];
    assert_eq!(
        encoder["memory_bytes_on"]["this_cpu"], encoder["memory_bytes"],
        "it has no convolutions"
    );
    for stage in told["stages"].as_array().expect("stages") {
        assert_eq!(stage["memory_bytes_on"]["gpu"], stage["memory_bytes"]);
        for format in ["f32", "bf16"] {
            let on =
                |device: &str| stage["memory_bytes_on"][device][format].as_u64().expect("a number");
            let (plain, packed) = (on("gpu"), on("this_cpu"));
            if this_cpu_runs_the_kernels() {
                assert!(packed > plain && packed < plain * 16 / 9, "{format} of {stage}");
            } else {
                assert_eq!(packed, plain, "{format} of {stage}");
            }
        }
    }

    let table = info(&[]).stdout;
    let line = |part: &str| {
        table.lines().find(|line| line.trim_start().starts_with(part)).expect("a line")
    };
    assert!(line("encode").contains("weights in memory: on a GPU or this CPU f32 "), "{table}");
    let apart = "weights in memory: on a GPU f32 ";
    assert_eq!(line("base").contains(apart), this_cpu_runs_the_kernels(), "{table}");
}

/// A weights file with this header.
fn weights(header: &str, data: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let padded = format!("{header:width$}", width = header.len().next_multiple_of(8));
    (padded.len() as u64).to_le_bytes().into_iter().chain(padded.into_bytes()).chain(data).collect()
}

/// Converts weights from fp16 to bf16. Both have 16 bits, so every tensor keeps its place.
fn in_bf16(file: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    let (header, data) = file[8..].split_at(usize::try_from(length).expect("small"));
    let header = std::str::from_utf8(header).expect("JSON").replace("\"F16\"", "\"BF16\"");
    let halves = data.chunks_exact(2).flat_map(|half| {
        let half = u32::from(u16::from_le_bytes([half[0], half[1]]));
        // The exponent's bias is 15 in f16 and 127 in f32.
        let magnitude = f32::from_bits((half & 0x7fff) << 13) * 2_f32.powi(112);
        let [_, _, low, high] = (magnitude.to_bits() | ((half & 0x8000) << 16)).to_le_bytes();
        [low, high]
    });
    weights(&header, halves)
}

/// Renames a folder's files of the variant `fp16`; an index lists its shards.
fn write_set_again(
    folder: &Path,
    rename: impl Fn(&str) -> String,
    convert: impl Fn(&[u8]) -> Vec<u8>,
) {
    let paths = fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path());
    for path in paths.collect::<Vec<_>>() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !name.contains("fp16") {
            continue;
        }
        let bytes = fs::read(&path).expect("read");
        let bytes = if name.ends_with(".json") {
            rename(&String::from_utf8(bytes).expect("JSON")).into_bytes()
        } else {
            convert(&bytes)
        };
        fs::write(path.with_file_name(rename(name)), bytes).expect("written");
    }
}

/// Renders the only picture with an imported cascade.
fn rendered(folder: &Path, cascade: &str, size: &str) -> Vec<u8> {
    let render = [
        "render",
        "a cat",
        "--cascade",
        cascade,
        "--size",
        size,
        "--seed",
        "5",
        "--steps",
        "3",
        "-o",
        "out",
        "-q",
    ];
    let render = Darkroom::new(folder).args(render).run();
    let pictures = render.paths(folder);
    assert!(pictures.len() == 1 && pictures[0].is_file(), "{render:?}");
    fs::read(&pictures[0]).expect("a picture")
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

fn names(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("a name")).collect();
    names.sort();
    names
}

#[test]
fn published_folders_become_a_cascade_that_renders() {
    let hub = hub();
    let ended = Darkroom::new(hub.path())
        .args(["--json", "model", "import", "if-ii", "if-i", "-o", "made/tiny", "--name", "tiny"])
        .run();
    let report = ended.json();
    let parts: Vec<_> = report["parts"].as_array().expect("parts").iter().collect();
    let of = |key: &str| parts.iter().map(|part| part[key].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("part"),
        ["encode", "base", "sr16"],
        "stages are in order, even if the folders are not"
    );
    assert_eq!(of("variant"), ["fp16", "fp32", "fp16"], "the file without a variant is preferred");
    assert_eq!(parts[1]["other_variants"], json!(["fp16"]));
    let stage = &parts[1];
    let parameters = stage["parameters"].as_u64().expect("a number");
    assert_eq!(stage["stored_bytes"]["F32"], parameters * 4);
    assert_eq!(stage["memory_bytes"]["f32"], parameters * 4);
    let bf16 = stage["memory_bytes"]["bf16"].as_u64().expect("a number");
    assert!(bf16 > parameters * 2 && bf16 < parameters * 4, "some layers stay in f32");
    assert_eq!(stage["memory_bytes_on"]["gpu"], stage["memory_bytes"]);
    let declined = report["declined"].to_string();
    for part in
        ["if-i/safety_checker", "if-i/watermarker", "if-ii/safety_checker", "if-ii/watermarker"]
    {
        assert!(declined.contains(part), "{part} in {declined}");
    }

    let made = hub.path().join("made/tiny");
    let digest = report["digest"].as_str().expect("a digest");
    let info =
        Darkroom::new(hub.path()).args(["--json", "model", "info", "made/tiny"]).run().json();
    assert_eq!(info["digest"], digest);
    assert_eq!(info["encoder"]["parameters"], parts[0]["parameters"]);
    assert!(made.join("licences/if-i/LICENSE.md").is_file(), "the licence is copied too");
    assert_eq!(
        fs::read_dir(hub.path().join("made")).expect("listed").count(),
        1,
        "no draft is left"
    );

    assert!(
        has(&rendered(hub.path(), "made/tiny", "16"), digest),
        "the picture names its cascade, and the files match its digest"
    );
}

#[test]
fn the_bf16_sets_are_taken_by_name_and_render() {
    let hub = hub();
    for part in ["if-i/text_encoder", "if-i/unet", "if-ii/unet"] {
        write_set_again(&hub.path().join(part), |name| name.replace("fp16", "bf16"), in_bf16);
    }
    let arguments =
        ["--json", "model", "import", "if-i", "if-ii", "-o", "made", "--variant", "bf16"];
    let report = Darkroom::new(hub.path()).args(arguments).run().json();
    let others = [json!(["fp16"]), json!(["fp32", "fp16"]), json!(["fp16"])];
    let parts = report["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), others.len());
    for (part, others) in parts.iter().zip(&others) {
        assert_eq!((&part["variant"], &part["other_variants"]), (&json!("bf16"), others));
        let bytes = part["parameters"].as_u64().expect("a number") * 2;
        assert_eq!(part["stored_bytes"], json!({"BF16": bytes}), "{part}");
    }
    let made = hub.path().join("made");
    let index = "model.safetensors.index.bf16.json";
    let shards = [1, 2].map(|shard| format!("model.bf16-0000{shard}-of-00002.safetensors"));
    assert_eq!(names(&made.join("text_encoder")), ["config.json", &shards[0], &shards[1], index]);
    for stage in ["base", "sr16"] {
        let file = "diffusion_pytorch_model.bf16.safetensors";
        assert_eq!(names(&made.join(stage).join("unet")), ["config.json", file], "no other set");
    }
    assert!(has(&rendered(hub.path(), "made", "16"), report["digest"].as_str().expect("a digest")));
}

#[test]
fn a_folder_of_t5_alone_gives_the_encoder_of_a_pipeline_that_has_none() {
    let hub = hub();
    let t5 = hub.path().join("t5-v1_1-tiny");
    let (encoder, tokenizer) =
        (hub.path().join("if-i/text_encoder"), hub.path().join("if-i/tokenizer"));
    write_set_again(&encoder, |name| name.replace(".fp16", ""), <[u8]>::to_vec);
    fs::create_dir(&t5).expect("made");
    for folder in [encoder, tokenizer] {
        for name in names(&folder).iter().filter(|name| !name.contains("fp16")) {
            fs::rename(folder.join(name), t5.join(name)).expect("moved");
        }
        fs::remove_dir_all(folder).expect("removed");
    }
    import(hub.path(), &["if-i", "if-ii", "-o", "made"]).refused(3, &["text encoder", "T5"]);

    let arguments = ["--json", "model", "import", "t5-v1_1-tiny", "if-i", "if-ii", "-o", "made"];
    let report = Darkroom::new(hub.path()).args(arguments).run().json();
    assert_eq!(report["name"], "if-i", "named after stage I, in any order of folders");
    let encoder = &report["parts"][0];
    assert_eq!((&encoder["part"], &encoder["variant"]), (&json!("encode"), &json!("fp32")));
    assert!(
        encoder["stored_bytes"]["F16"].is_u64(),
        "the set without a variant, in any format: {encoder}"
    );
    let made = hub.path().join("made");
    let index = "model.safetensors.index.json";
    let shards = [1, 2].map(|shard| format!("model-0000{shard}-of-00002.safetensors"));
    assert_eq!(names(&made.join("text_encoder")), ["config.json", &shards[0], &shards[1], index]);
    assert_eq!(names(&made.join("tokenizer")), ["spiece.model", "tokenizer_config.json"]);
    assert!(has(&rendered(hub.path(), "made", "16"), report["digest"].as_str().expect("a digest")));
}

#[test]
fn what_is_not_run_and_what_licences_ask_is_said_in_words() {
    let hub = hub();
    let ended =
        import(hub.path(), &["if-i", "-o", "out", "--variant", "fp16", "--variant", "base=fp32"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in [
        "if-i/safety_checker: not run",
        "if-i/watermarker: not run",
        "inference filters",
        "LICENSE-MODEL",
        "also there: fp16",
        "does not compute in fp16",
    ] {
        assert!(ended.stdout.contains(words), "{words:?} is not in {}", ended.stdout);
    }
    assert!(
        hub.path().join("if-i/cascade.toml").metadata().is_err(),
        "the given folder is left as it is"
    );
}

#[test]
fn a_cache_is_read_by_its_snapshot_and_large_files_are_linked() {
    let hub = hub();
    let cache = hub.path().join("models--Owner--If-I-Tiny");
    fs::create_dir_all(cache.join("snapshots")).expect("made");
    fs::create_dir_all(cache.join("refs")).expect("made");
    fs::create_dir_all(cache.join("blobs")).expect("made");
    fs::write(cache.join("refs/main"), "abc").expect("written");
    fs::rename(hub.path().join("if-i"), cache.join("snapshots/abc")).expect("moved");
    let config = cache.join("snapshots/abc/unet/config.json");
    fs::rename(&config, cache.join("blobs/1")).expect("moved");
    std::os::unix::fs::symlink("../../../blobs/1", &config).expect("linked");
    let ended = import(hub.path(), &["models--Owner--If-I-Tiny"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let made = hub.path().join("if-i-tiny/base/unet/config.json");
    assert!(
        made.is_file() && !made.is_symlink(),
        "named after the repository; small files are copied"
    );
}

#[test]
fn weights_are_copied_where_there_are_no_links_and_laid_out_in_place_where_no_folder_is_renamed() {
    let hub = hub();
    let name = "diffusion_pytorch_model-00001-of-00003.safetensors";
    let file = hub.path().join("if-i/unet").join(name);
    // As large as a file that is linked: the header has that length, mostly blanks.
    let bytes = fs::read(&file).expect("read");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let mut large = ((header + (2 << 20)) as u64).to_le_bytes().to_vec();
    large.extend(&bytes[8..8 + header]);
    large.resize(large.len() + (2 << 20), b' ');
    large.extend(&bytes[8 + header..]);
    fs::write(&file, large).expect("written");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400))
        .expect("changed");

    let lacking = Lacking::nothing(hub.path()).call("link", Errno::EPERM);
    let import = |lacking: &Lacking, out: &str| {
        lacking
            .on(Darkroom::new(hub.path()).args(["--json", "model", "import", "if-i", "-o", out]))
            .run()
            .json()
    };
    assert_eq!(
        import(&lacking, "named")["symbolic_links"],
        1,
        "a symbolic link is enough if the system has them"
    );
    let lacking = lacking
        .call("symlink", Errno::EPERM)
        .call("chmod", Errno::EPERM)
        .call("rename", Errno::EPERM);
    let report = import(&lacking, "bare");
    assert_eq!((&report["hard_links"], &report["symbolic_links"]), (&json!(0), &json!(0)));
    let made = hub.path().join("bare/base/unet").join(name);
    let found = fs::symlink_metadata(&made).expect("there");
    assert!(found.is_file() && fs::read(&made).expect("read") == fs::read(&file).expect("read"));
    let mode =
        |path: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).expect("there"));
    assert_eq!(mode(&made), mode(&hub.path().join("bare/cascade.toml")), "as every new file");
    assert_eq!(rendered(hub.path(), "bare", "8"), rendered(hub.path(), "named", "8"));
    let drafts = names(hub.path()).into_iter().filter(|name| name.starts_with(".import"));
    assert_eq!(drafts.count(), 0);
}

#[test]
fn broken_models_are_refused_in_one_sentence_and_nothing_is_made() {
    type Break = fn(&Path);
    let cases: &[(&str, Break, &[&str])] = &[
        (
            "a truncated shard",
            |hub| {
                let shard =
                    hub.join("if-i/unet/diffusion_pytorch_model-00002-of-00003.safetensors");
                let bytes = fs::read(&shard).expect("read");
                fs::write(shard, &bytes[..bytes.len() - 100]).expect("written");
            },
            &["00002-of-00003", "do not hold the tensors"],
        ),
        (
            "a missing shard",
            |hub| {
                fs::remove_file(
                    hub.join("if-i/unet/diffusion_pytorch_model-00003-of-00003.safetensors"),
                )
                .expect("removed");
            },
            &["00003-of-00003", "cannot read"],
        ),
        (
            "an index that names a tensor its file lacks",
            |hub| {
                edit(
                    &hub.join("if-i/unet/diffusion_pytorch_model.safetensors.index.json"),
                    |index| {
                        index["weight_map"]["made.up.weight"] =
                            json!("diffusion_pytorch_model-00001-of-00003.safetensors");
                    },
                );
            },
            &["made.up.weight", "00001-of-00003"],
        ),
        (
            "shards without an index",
            |hub| {
                let unet = hub.join("if-i/unet");
                fs::remove_file(unet.join("diffusion_pytorch_model.safetensors.index.json"))
                    .expect("removed");
                fs::remove_file(unet.join("diffusion_pytorch_model.fp16.safetensors"))
                    .expect("removed");
            },
            &["diffusion_pytorch_model.safetensors.index.json", "missing"],
        ),
        (
            "NaN in a weight",
            |hub| {
                let file = hub.join("if-ii/unet/diffusion_pytorch_model.fp16.safetensors");
                let mut bytes = fs::read(&file).expect("read");
                let last = bytes.len() - 2;
                bytes[last..].copy_from_slice(&[0, 0x7e]);
                fs::write(file, bytes).expect("written");
            },
            &["if-ii/unet", "not finite"],
        ),
        (
            "integers for weights",
            |hub| {
                patch(
                    &hub.join("if-ii/unet/diffusion_pytorch_model.fp16.safetensors"),
                    b"\"F16\"",
                    b"\"I16\"",
                )
            },
            &["I16", "accepted: F32, F16, BF16"],
        ),
        (
            "a configuration of another shape",
            |hub| {
                edit(&hub.join("if-i/unet/config.json"), |config| {
                    config["block_out_channels"] = json!([4, 8])
                })
            },
            &["has shape", "expected"],
        ),
        (
            "a configuration value that is not supported",
            |hub| {
                edit(&hub.join("if-i/unet/config.json"), |config| config["act_fn"] = json!("tanh"))
            },
            &["act_fn", "tanh", "accepted"],
        ),
        (
            "an unknown key in a configuration",
            |hub| edit(&hub.join("if-i/unet/config.json"), |config| config["made_up"] = json!(1)),
            &["made_up", "--ignore-unknown-keys"],
        ),
        (
            "an unknown key in a schedule",
            |hub| {
                edit(&hub.join("if-ii/scheduler/scheduler_config.json"), |config| {
                    config["made_up"] = json!(1)
                });
            },
            &["scheduler.made_up", "if-ii"],
        ),
        (
            "a tokenizer with more tokens than the encoder knows",
            |hub| {
                fs::copy(
                    fixtures().join("spiece/bytes.model"),
                    hub.join("if-i/tokenizer/spiece.model"),
                )
                .expect("copied");
            },
            &["tokens", "knows 144", "do not belong together"],
        ),
        (
            "a tokenizer without the end token",
            |hub| {
                let file = hub.join("if-i/tokenizer/tokenizer.json");
                fs::copy(fixtures().join("example/tokenizer/tokenizer.json"), &file)
                    .expect("copied");
                edit(&file, |tokenizer| tokenizer["post_processor"] = Value::Null);
            },
            &["end token 1", "do not belong together"],
        ),
        (
            "a pickle",
            |hub| {
                let unet = hub.join("if-ii/unet");
                fs::rename(
                    unet.join("diffusion_pytorch_model.fp16.safetensors"),
                    unet.join("diffusion_pytorch_model.bin"),
                )
                .expect("renamed");
            },
            &["diffusion_pytorch_model.bin", "pickle", "safe_serialization=True"],
        ),
        (
            "a pointer of Git LFS",
            |hub| {
                let file = hub.join("if-ii/unet/diffusion_pytorch_model.fp16.safetensors");
                fs::write(
                    file,
                    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                )
                .expect("written");
            },
            &["Git LFS pointer"],
        ),
        (
            "a latent pipeline",
            |hub| fs::create_dir(hub.join("if-ii/vae")).expect("made"),
            &["latent", "vae/"],
        ),
        (
            "no tokenizer",
            |hub| fs::remove_dir_all(hub.join("if-i/tokenizer")).expect("removed"),
            &["tokenizer", "spiece.model"],
        ),
        (
            "no encoder",
            |hub| fs::remove_dir_all(hub.join("if-i/text_encoder")).expect("removed"),
            &["text encoder", "T5"],
        ),
        (
            "text of another width",
            |hub| {
                for part in ["text_encoder", "tokenizer"] {
                    fs::remove_dir_all(hub.join("if-i").join(part)).expect("removed");
                    copy(&fixtures().join("example").join(part), &hub.join("if-i").join(part));
                }
            },
            &["width 8", "gives width 32"],
        ),
        (
            "two stages that start",
            |hub| {
                fs::remove_dir_all(hub.join("if-ii/unet")).expect("removed");
                copy(&hub.join("if-i/unet"), &hub.join("if-ii/unet"));
            },
            &["starts with one stage", "2 do"],
        ),
    ];
    for (what, spoil, words) in cases {
        let hub = hub();
        spoil(hub.path());
        let ended = import(hub.path(), &["if-i", "if-ii", "-o", "out"]);
        assert_ne!(ended.code, Some(0), "{what} was accepted");
        ended.refused(3, words);
        assert!(!hub.path().join("out").exists(), "{what}: something was made");
    }
    let hub = hub();
    fs::create_dir_all(hub.path().join("full/x")).expect("made");
    import(hub.path(), &["if-i", "-o", "full"]).refused(2, &["full", "accepted"]);
    import(hub.path(), &["if-ii", "-o", "out"]).refused(3, &["starts with one stage", "0 do"]);
    import(hub.path(), &["absent"]).refused(3, &["absent"]);
    import(hub.path(), &["if-i/LICENSE.md"]).refused(2, &["is a file", "accepted"]);
    import(hub.path(), &["if-i", "--variant", "bf16"])
        .refused(3, &["bf16", "accepted: fp32, fp16"]);
    edit(&hub.path().join("if-i/unet/config.json"), |config| config["made_up"] = json!(1));
    let taken = import(hub.path(), &["if-i", "--ignore-unknown-keys", "-o", "out"]);
    assert!(taken.code == Some(0) && taken.stdout.contains("Taken as not there"), "{taken:?}");
}

/// A cascade's folder whose encoder has `layers` layers of width 1024 in bf16: 21 MB each.
fn large_encoder(folder: &Path, layers: usize) {
    let tensors = (0..layers).flat_map(|layer| {
        let name = |part: &str| format!("encoder.block.{layer}.layer.{part}.weight");
        let mut tensors: Vec<_> = ["q", "k", "v", "o"]
            .map(|part| (name(&format!("0.SelfAttention.{part}")), vec![1024, 1024]))
            .into();
        tensors.push((name("0.layer_norm"), vec![1024]));
        tensors.push((name("1.layer_norm"), vec![1024]));
        tensors.push((name("1.DenseReluDense.wi_0"), vec![2048, 1024]));
        tensors.push((name("1.DenseReluDense.wi_1"), vec![2048, 1024]));
        tensors.push((name("1.DenseReluDense.wo"), vec![1024, 2048]));
        tensors
    });
    let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    let rest = [
        ("shared.weight", vec![144, 1024]),
        ("encoder.final_layer_norm.weight", vec![1024]),
        (bias, vec![32, 16]),
    ];
    let (mut header, mut bytes) = (serde_json::Map::new(), 0_usize);
    for (name, shape) in tensors.chain(rest.map(|(name, shape)| (name.to_owned(), shape))) {
        let end = bytes + 2 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [bytes, end]}));
        bytes = end;
    }
    let header = Value::Object(header).to_string();
    // Small bf16 numbers that differ enough.
    let pattern: Vec<u8> = (0..=254_u8).flat_map(|low| [low, 0x3c]).collect();
    let data = pattern.iter().copied().cycle().take(bytes);
    let file = weights(&header, data);
    for part in ["text_encoder", "tokenizer"] {
        fs::create_dir_all(folder.join(part)).expect("made");
    }
    fs::write(folder.join("text_encoder/model.safetensors"), file).expect("written");
    fs::copy(
        fixtures().join("hub/if-i/tokenizer/spiece.model"),
        folder.join("tokenizer/spiece.model"),
    )
    .expect("copied");
    let config = json!({"model_type": "t5", "feed_forward_proj": "gated-gelu", "vocab_size": 144, "d_model": 1024,
        "d_ff": 2048, "d_kv": 64, "num_heads": 16, "num_layers": layers, "eos_token_id": 1});
    fs::write(folder.join("text_encoder/config.json"), config.to_string()).expect("written");
    fs::write(
        folder.join("cascade.toml"),
        "format = 1\nname = \"large\"\n[encoder]\nfolder = \"text_encoder\"\ntokenizer = \"tokenizer\"\nmax_length = 77\n\
         [[stages]]\nname = \"base\"\nfolder = \"base\"\nsize = 64\nsampler = \"ddpm\"\nsteps = 2\nguidance_scale = 1.0\n",
    )
    .expect("written");
}

#[test]
fn loading_takes_at_most_a_tenth_more_memory_than_the_weights() {
    let folder = tempfile::tempdir().expect("folder");
    large_encoder(folder.path(), 12);
    for dtype in ["bf16", "f32"] {
        let load = Darkroom::new(folder.path())
            .args([
                "--json", "model", "info", ".", "--load", "encode", "--device", "cpu", "--dtype",
                dtype,
            ])
            .run()
            .json();
        let number = |key: &str| load[key].as_u64().expect("a number") as f64;
        let share = number("peak_resident_bytes") / number("weights_bytes");
        assert!(share < 1.1, "{dtype}: {share:.3} of the weights: {load}");
        assert!(share > 0.9, "{dtype}: nothing was loaded: {load}");
    }
}

/// Puts a byte order mark in front of a file.
fn mark(path: &Path) {
    let bytes = fs::read(path).expect("read");
    fs::write(path, [b"\xef\xbb\xbf", &bytes[..]].concat()).expect("written");
}

#[test]
fn files_as_other_programs_write_them_become_a_cascade_that_renders() {
    let hub = hub();
    let encoder = hub.path().join("if-i/text_encoder");
    // An index with the name of diffusers 0.30, and a byte order mark in every JSON file.
    fs::rename(
        encoder.join("model.safetensors.index.fp16.json"),
        encoder.join("model.safetensors.fp16.index.json"),
    )
    .expect("renamed");
    // One file, with the usual name of T5 downloads.
    let unet = hub.path().join("if-ii/unet");
    fs::rename(
        unet.join("diffusion_pytorch_model.fp16.safetensors"),
        unet.join("pytorch_model.fp16.safetensors"),
    )
    .expect("renamed");
    let mut marked = 0;
    let mut folders = vec![hub.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                mark(&path);
                marked += 1;
            }
        }
    }
    assert!(marked > 10);
    let ended = Darkroom::new(hub.path())
        .args(["--json", "model", "import", "if-i", "if-ii", "-o", "made"])
        .run();
    let report = ended.json();
    let variants: Vec<_> =
        report["parts"].as_array().expect("parts").iter().map(|part| &part["variant"]).collect();
    assert_eq!(variants, ["fp16", "fp32", "fp16"]);
    mark(&hub.path().join("made/cascade.toml"));
    let digest = report["digest"].as_str().expect("a digest");
    assert!(
        has(&rendered(hub.path(), "made", "16"), digest),
        "a byte order mark in cascade.toml changes nothing either"
    );
}

#[test]
fn parts_of_a_cache_and_what_downloads_leave_are_named_for_what_they_are() {
    let hub = hub();
    let cache = hub.path().join("models--Owner--If-I-Tiny");
    for part in ["snapshots", "refs", "blobs", ".no_exist/abc"] {
        fs::create_dir_all(cache.join(part)).expect("made");
    }
    fs::write(cache.join("refs/main"), "abc\n").expect("written");
    fs::rename(hub.path().join("if-i"), cache.join("snapshots/abc")).expect("moved");
    fs::write(cache.join("snapshots/.DS_Store"), "x").expect("written");
    let given = |path: &str, words: &[&str]| {
        let ended = import(hub.path(), &[path, "-o", "out"]);
        assert_ne!(ended.code, Some(0), "{path} was accepted");
        ended.refused(3, words);
        assert!(!hub.path().join("out").exists(), "{path}: something was made");
    };
    for part in ["blobs", "refs", ".no_exist", ".no_exist/abc"] {
        let path = format!("models--Owner--If-I-Tiny/{part}");
        given(&path, &[part.split('/').next().expect("one"), "cache", "accepted", "snapshots"]);
    }
    given(".", &["several models", "models--Owner--If-I-Tiny"]);

    let ended = import(hub.path(), &["models--Owner--If-I-Tiny/snapshots", "-o", "from-snapshots"]);
    assert_eq!(ended.code, Some(0), "the snapshot that refs/main names: {ended:?}");
    let ended =
        import(hub.path(), &["models--Owner--If-I-Tiny/snapshots/abc", "-o", "from-snapshot"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    fs::write(cache.join("refs/main"), "def").expect("written");
    given("models--Owner--If-I-Tiny", &["\"def\"", "refs/main", "abc"]);
    fs::remove_file(cache.join("refs/main")).expect("removed");
    let ended = import(hub.path(), &["models--Owner--If-I-Tiny", "-o", "from-only"]);
    assert_eq!(ended.code, Some(0), "there is only one: {ended:?}");

    // A file that was downloaded only in part.
    let snapshot = cache.join("snapshots/abc");
    let shard = snapshot.join("unet/diffusion_pytorch_model-00002-of-00003.safetensors");
    fs::rename(&shard, cache.join("blobs/77.incomplete")).expect("moved");
    std::os::unix::fs::symlink("../../../blobs/77", &shard).expect("linked");
    given(
        "models--Owner--If-I-Tiny",
        &["00002-of-00003", "link to ../../../blobs/77", "77.incomplete"],
    );
    let config = snapshot.join("unet/config.json");
    fs::remove_file(&config).expect("removed");
    std::os::unix::fs::symlink("../../../blobs/78", &config).expect("linked");
    given(
        "models--Owner--If-I-Tiny",
        &["unet/config.json", "link to ../../../blobs/78", "not there"],
    );
}

#[test]
fn a_configuration_that_is_not_obeyed_is_refused_by_its_key() {
    type Break = fn(&mut Value);
    let cases: &[(&str, Break, &[&str])] = &[
        (
            "text_encoder",
            |t5| t5["dense_act_fn"] = json!("relu"),
            &["`dense_act_fn` is \"relu\"", "accepted: gelu_new"],
        ),
        (
            "text_encoder",
            |t5| t5["is_gated_act"] = json!(false),
            &["`is_gated_act` is false", "accepted: true"],
        ),
        (
            "text_encoder",
            |t5| t5["feed_forward_proj"] = json!("relu"),
            &["`feed_forward_proj` is \"relu\""],
        ),
        ("text_encoder", |t5| t5["made_up"] = json!(1), &["`made_up`", "--ignore-unknown-keys"]),
        (
            "text_encoder",
            |t5| t5["layer_norm_epsilon"] = json!(-1),
            &["`layer_norm_epsilon` is -1"],
        ),
        (
            "text_encoder",
            |t5| t5["num_layers"] = json!(u64::MAX),
            &["`num_layers` is 18446744073709551615"],
        ),
        (
            "unet",
            |unet| unet["resnet_out_scale_factor"] = json!(0),
            &["`resnet_out_scale_factor` is 0", "0.01 to 100"],
        ),
        ("unet", |unet| unet["norm_eps"] = json!(-1), &["`norm_eps` is -1", "1e-12 to 0.1"]),
        (
            "unet",
            |unet| unet["num_class_embeds"] = json!(4),
            &["`num_class_embeds` is 4", "accepted: null, or no such key"],
        ),
    ];
    for (part, spoil, words) in cases {
        let hub = hub();
        edit(&hub.path().join("if-i").join(part).join("config.json"), spoil);
        import(hub.path(), &["if-i", "-o", "out"]).refused(3, words);
        assert!(!hub.path().join("out").exists(), "{words:?}: something was made");
    }
    let hub = hub();
    edit(&hub.path().join("if-i/text_encoder/config.json"), |t5| t5["made_up"] = json!(1));
    let taken = import(hub.path(), &["if-i", "--ignore-unknown-keys", "-o", "out"]);
    assert!(taken.code == Some(0) && taken.stdout.contains("made_up"), "{taken:?}");
}
