//! Prompt to picture with the demo cascade's real networks.

use std::{fs, path::Path};

use darkroom_artifacts::picture;
use darkroom_core::{
    picture_text::{PARAMETERS, Recipe},
    sampling::Preset,
};
use darkroom_tests::{
    command::Darkroom,
    demo_cascade,
    farm::{Farm, Renderer},
};
use serde_json::json;

const PROMPT: &str =
    "A red circle above a blue square, on a \"white\" background; it's $5 & großartig";

fn render(folder: &Path, arguments: &[&str]) -> Darkroom {
    Darkroom::new(folder).env("DARKROOM_CASCADE", demo_cascade()).args(["render"]).args(arguments)
}

#[test]
fn a_prompt_becomes_pictures_that_tell_how_to_render_them_again() {
    let folder = tempfile::tempdir().expect("folder");
    let ended = render(
        folder.path(),
        &["-n", "2", "--seed", "40", "--size", "64", "--negative", "a star", PROMPT],
    )
    .run();
    let paths = ended.paths(folder.path());
    assert_eq!(
        paths,
        ["renders/000000.png", "renders/000001.png"].map(|path| folder.path().join(path))
    );
    assert!(
        ended.stderr.contains("note: "),
        "words that the model does not know are reported: \
        {ended:?}"
    );
    for (path, seed) in paths.iter().zip([40, 41]) {
        let picture = picture::decode(&fs::read(path).expect("written")).expect("a PNG");
        assert_eq!((picture.width, picture.height), (64, 64));
        let pairs = picture.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
        let recipe = Recipe::from_pairs(pairs).expect("a whole recipe");
        assert_eq!(
            (recipe.prompt.as_str(), recipe.negative.as_str(), recipe.seed),
            (PROMPT, "a star", seed)
        );
    }

    // The same command again gives the same picture and no new file; another prompt gets the next
    // number.
    let again =
        render(folder.path(), &["--seed", "40", "--size", "64", "--negative", "a star", PROMPT])
            .run();
    assert_eq!(again.paths(folder.path()), paths[..1]);
    let other = render(folder.path(), &["--seed", "40", "--size", "64", "a blue star"]).run();
    assert_eq!(other.paths(folder.path()), [folder.path().join("renders/000002.png")]);

    // A picture is the same alone, in a batch, and from its own metadata.
    let rerendered = Darkroom::new(folder.path())
        .env("DARKROOM_CASCADE", demo_cascade())
        .args(["--json", "rerender", "renders/000001.png"])
        .run()
        .json();
    assert_eq!(rerendered["identical"], true, "{rerendered}");
    assert_eq!(rerendered["same_cascade"], true, "{rerendered}");
}

#[test]
fn every_sampling_setting_is_told_recorded_rendered_and_rendered_again() {
    let folder = tempfile::tempdir().expect("folder");
    let sampled = |out: &str, flags: &[&str]| {
        let document =
            render(folder.path(), &["--seed", "3", "--size", "64", "-o", out, "a red circle"]);
        let document = document.args(flags).args(["--json"]).run().json();
        let path = folder.path().join(document["pictures"][0]["path"].as_str().expect("a path"));
        let picture = picture::decode(&fs::read(&path).expect("written")).expect("a PNG");
        let pairs = picture.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
        let recipe = Recipe::from_pairs(pairs).expect("a whole recipe");
        let recorded = serde_json::to_value(&recipe.settings.stages[0]).expect("JSON");
        (document["job"]["settings"][0].clone(), recorded, picture.rgb, path)
    };
    let listed =
        ["--sampler", "sde-dpmsolver++", "--timesteps", "base=900,600,300,9", "--guidance", "3"];
    let more = ["--guidance-schedule", "oscillating:1:1", "--thresholding", "base=dynamic:90:1.1"];
    let (told, recorded, rgb, path) = sampled("listed", &[&listed[..], &more].concat());
    for (key, value) in [
        ("sampler", json!("sde-dpmsolver++")),
        ("steps", json!(4)),
        ("timesteps", json!([900, 600, 300, 9])),
        ("guidance_scale", json!(3.0)),
        ("guidance_schedule", json!("oscillating:1:1")),
        ("thresholding", json!("dynamic:90:1.1")),
    ] {
        assert_eq!((&told[key], &recorded[key]), (&value, &value), "{key}");
    }
    assert_ne!(rgb, sampled("constant", &listed).2, "schedule and thresholding count");

    let spread =
        ["--sampler", "ddim", "--eta", "0.7", "--spacing", "base=trailing", "--steps", "3"];
    let (told, recorded, rgb, other) = sampled("spread", &spread);
    assert_eq!((&told["eta"], &recorded["spacing"]), (&json!(0.7), &json!("trailing")));
    assert_ne!(rgb, sampled("leading", &[&spread[..], &["--spacing", "base=leading"]].concat()).2);
    for path in [path, other] {
        let again = Darkroom::new(folder.path()).env("DARKROOM_CASCADE", demo_cascade());
        let again = again.args(["--json", "rerender"]).args([&path]).run().json();
        assert_eq!(
            (&again["identical"], &again["same_cascade"]),
            (&json!(true), &json!(true)),
            "{again}"
        );
    }
}

#[test]
fn each_stages_own_settings_are_told_by_the_farm_recorded_and_rendered_again() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Model);
    let base = ["--sampler", "base=ddpm", "--preset", "base=fast27"];
    let sr256 = ["--sampler", "sr256=ddim", "--steps", "sr256=2", "--noise-level", "sr256=200"];
    let submit = farm.command(["submit", "--seed", "3", "--size", "256", "a red circle"]);
    let job = submit.args(base).args(sr256).run();
    assert_eq!(job.code, Some(0), "{job:?}");
    let job = job.stdout.trim().to_owned();
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    let told = farm.job(&job)["settings"].clone();

    let path = farm.command(["get", &job, "-o", "out"]).run().paths(folder.path()).remove(0);
    let picture = picture::decode(&fs::read(&path).expect("written")).expect("a PNG");
    assert_eq!((picture.width, picture.height), (256, 256));
    let pairs = picture.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
    let recipe = Recipe::from_pairs(pairs).expect("a whole recipe");
    let recorded = serde_json::to_value(&recipe.settings.stages).expect("JSON");
    let lengths = [&told, &recorded].map(|stages| stages.as_array().map(Vec::len));
    assert_eq!(lengths, [Some(2), Some(2)], "the stages up to 256 pixels");
    let fast27 = Preset::find("fast27").expect("a preset").timesteps;
    for (stage, key, value) in [
        (0, "stage", json!("base")),
        (0, "sampler", json!("ddpm")),
        (0, "preset", json!("fast27")),
        (0, "steps", json!(27)),
        (0, "timesteps", json!(fast27)),
        (0, "noise_level", json!(null)),
        (1, "stage", json!("sr256")),
        (1, "sampler", json!("ddim")),
        (1, "preset", json!(null)),
        (1, "steps", json!(2)),
        (1, "noise_level", json!(200)),
    ] {
        assert_eq!(
            (&told[stage][key], &recorded[stage][key]),
            (&value, &value),
            "stage {stage}, {key}"
        );
    }
    let line = picture.text(PARAMETERS).expect("a line for people");
    for words in ["base: ddpm 27 steps (fast27)", "sr256: ddim 2 steps guidance 1 noise level 200"]
    {
        assert!(line.contains(words), "{words:?} is not in {line:?}");
    }

    let again = Darkroom::new(folder.path()).env("DARKROOM_CASCADE", demo_cascade());
    let again = again.args(["--json", "rerender"]).args([&path]).run().json();
    assert_eq!(again["identical"], true, "{again}");
}

#[test]
fn a_picture_of_1024_pixels_is_rendered_again_to_the_last_pixel() {
    let folder = tempfile::tempdir().expect("folder");
    let document = render(folder.path(), &["--seed", "1", "-o", "out", "a large green ring"]);
    let document = document.args(["--json"]).run().json();
    assert_eq!(document["job"]["state"], "done");
    let path = folder.path().join(document["pictures"][0]["path"].as_str().expect("a path"));
    let bytes = fs::read(&path).expect("written");
    let whole = picture::decode(&bytes).expect("a PNG");
    assert_eq!((whole.width, whole.height), (1024, 1024));

    let rerender = || {
        Darkroom::new(folder.path())
            .env("DARKROOM_CASCADE", demo_cascade())
            .args(["rerender"])
            .args([&path])
            .run()
    };
    let same = rerender();
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.contains("identical"), "{same:?}");

    // A change of one pixel is noticed.
    let mut rgb = whole.rgb.clone();
    rgb[1000] ^= 1;
    fs::write(&path, picture::encode_rgb(1024, 1024, &rgb, &whole.text).expect("a PNG"))
        .expect("written");
    let changed = rerender();
    assert_eq!(changed.code, Some(1), "{changed:?}");
    assert!(changed.stdout.contains("1 pixels differ"), "{changed:?}");
}

#[test]
fn a_farm_renders_for_clients_and_both_agree_with_a_render_of_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let arguments =
        ["--seed", "5", "-n", "3", "--size", "64", "a small blue square", "a red heart"];
    let alone = render(folder.path(), &arguments).args(["-o", "alone"]).run().paths(folder.path());

    let farm = Farm::start(folder.path(), Renderer::Model);
    let job = farm.command(["submit"]).args(arguments).run();
    assert_eq!(job.code, Some(0), "{job:?}");
    let job = job.stdout.trim().to_owned();
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    let there = farm.command(["get", &job, "-o", "farm"]).run().paths(folder.path());
    assert_eq!(there.len(), 6);
    for (one, other) in alone.iter().zip(&there) {
        assert!(
            fs::read(one).expect("one") == fs::read(other).expect("other"),
            "{one:?} {other:?}"
        );
    }
}

#[test]
fn a_file_that_is_no_picture_of_ours_is_not_rendered_again() {
    let folder = tempfile::tempdir().expect("folder");
    let rerender = |name: &str| {
        Darkroom::new(folder.path())
            .env("DARKROOM_CASCADE", demo_cascade())
            .args(["rerender", name])
            .run()
    };
    fs::write(folder.path().join("text.png"), "no picture").expect("written");
    rerender("text.png").refused(2, &["text.png", "accepted"]);
    let plain = picture::encode_rgb(8, 8, &[7; 192], &[]).expect("a PNG");
    fs::write(folder.path().join("plain.png"), plain).expect("written");
    rerender("plain.png").refused(2, &["plain.png", "darkroom.", "accepted"]);
    rerender("absent.png").refused(3, &["absent.png"]);
}

#[test]
fn the_reference_traces_pass_and_one_changed_weight_is_seen() {
    let folder = tempfile::tempdir().expect("folder");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/fixtures/example");
    let cascade = folder.path().join("cascade");
    let copied = std::process::Command::new("cp").arg("-r").args([&example, &cascade]).status();
    assert!(copied.expect("cp runs").success());
    let check = || {
        let traces = ["base.ddpm", "base.dpmsolver++", "sr1.ddim", "text_encoder"]
            .map(|name| cascade.join(format!("{name}.trace.safetensors")));
        let command =
            Darkroom::new(folder.path()).args(["--json", "model", "check", "--device", "cpu"]);
        command.args([&cascade]).args(traces).run()
    };
    let right = check().json();
    assert_eq!(
        (&right["passed"], right["traces"].as_array().map(Vec::len)),
        (&true.into(), Some(4))
    );

    let weights = cascade.join("sr1/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&2.5_f32.to_le_bytes());
    fs::write(&weights, bytes).expect("written");
    let wrong = check();
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stdout.contains("\"pass\":false"), "{wrong:?}");

    let command = Darkroom::new(folder.path()).args(["model", "check"]).args([&cascade]);
    command.args(["absent.safetensors"]).run().refused(3, &["absent.safetensors"]);
    let info =
        Darkroom::new(folder.path()).args(["--json", "model", "info"]).args([demo_cascade()]).run();
    assert_eq!(info.json()["stages"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_cascades_tokenizer_answers_line_by_line_as_sentencepiece_does() {
    let folder = tempfile::tempdir().expect("folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/fixtures");
    let cascade = folder.path().join("cascade");
    fs::create_dir_all(cascade.join("tokenizer")).expect("made");
    fs::copy(demo_cascade().join("cascade.toml"), cascade.join("cascade.toml")).expect("copied");
    fs::copy(fixtures.join("spiece/spiece.model"), cascade.join("tokenizer/spiece.model"))
        .expect("copied");
    let hostile = fs::read(fixtures.join("spiece/hostile.json")).expect("read");
    let hostile: serde_json::Value = serde_json::from_slice(&hostile).expect("JSON");
    let texts = hostile["texts"].as_array().expect("texts");
    let lines: Vec<String> = texts.iter().map(ToString::to_string).collect();
    let tokenize = |flags: &[&str], input: &str| {
        let command =
            Darkroom::new(folder.path()).args(["model", "tokenize"]).args([&cascade]).args(flags);
        command.input(input.as_bytes()).run()
    };
    let told = tokenize(&["--json", "--whole"], &lines.join("\n")).stdout;
    let expected = hostile["ids"]["spiece.model"].as_array().expect("ids");
    assert_eq!(told.lines().count(), expected.len());
    for (line, (text, ids)) in told.lines().zip(texts.iter().zip(expected)) {
        let ids = ids
            .as_str()
            .expect("ids")
            .split_whitespace()
            .chain(["1"])
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(line, format!("[{ids}]"), "{text}");
    }
    let long = "a red circle above a blue square ".repeat(8);
    let cut = tokenize(&[], &format!("{long}\n\n")).stdout;
    let cut: Vec<Vec<&str>> = cut.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!((cut.len(), cut[0].len(), cut[0].last()), (2, 32, Some(&"1")), "{cut:?}");
    assert_eq!(cut[1], ["1"]);
    let whole = tokenize(&["--whole"], &long).stdout;
    assert!(whole.split(' ').count() > 56, "{whole}");
    let prepared = tokenize(&["--prepare"], " A Red CIRCLE ").stdout;
    assert_eq!(prepared, tokenize(&[], "a red circle").stdout);
    let refused = tokenize(&["--json"], "\"fine\"\nnot fine");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("line 2") && refused.stderr.contains("JSON string"),
        "{refused:?}"
    );
}
