//! Pictures to start from, as files, with the demo cascade's real networks and with the fake
//! renderer.

use std::{fs, path::Path};

use darkroom_artifacts::picture::{self, Picture, encode_rgb};
use darkroom_core::{
    digest::Digest,
    picture_text::{PARAMETERS, Recipe},
};
use darkroom_tests::{
    command::Darkroom,
    demo_cascade,
    farm::{Farm, Renderer},
};
use serde_json::json;

fn read(path: &Path) -> Picture {
    picture::decode(&fs::read(path).expect("written")).expect("a PNG")
}

fn write(path: &Path, width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb: Vec<u8> = rows.flat_map(|(x, y)| pixel(x, y)).collect();
    fs::write(path, encode_rgb(width, height, &rgb, &[]).expect("a picture")).expect("written");
}

/// The only picture of a render.
fn one(farm: &Farm, folder: &Path, arguments: &[&str]) -> std::path::PathBuf {
    let render = ["render", "--seed", "5"].into_iter().chain(arguments.iter().copied());
    farm.command(render).run().paths(folder).remove(0)
}

/// Mean distance of two pictures' values.
fn distance(one: &Picture, other: &Picture) -> f64 {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let sum: u64 =
        one.rgb.iter().zip(&other.rgb).map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
    sum as f64 / one.rgb.len() as f64
}

/// The picture at a quarter of its size: each pixel is the mean of sixteen.
fn quarter(big: &Picture) -> Picture {
    let (width, height) = (big.width / 4, big.height / 4);
    let mean = |x: u32, y: u32, channel: u32| {
        let at = |dx: u32, dy: u32| {
            big.rgb[(3 * ((4 * y + dy) * big.width + 4 * x + dx) + channel) as usize]
        };
        let sum: u32 = (0..16).map(|i| u32::from(at(i % 4, i / 4))).sum();
        u8::try_from(sum / 16).expect("a byte")
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb = pixels.flat_map(|(x, y)| (0..3).map(move |channel| mean(x, y, channel))).collect();
    Picture { width, height, rgb, text: Vec::new() }
}

#[test]
fn pictures_are_enlarged_changed_painted_over_and_rendered_again() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Model);
    let prompt = "a red circle on a white background";
    let small = one(&farm, folder, &["--size", "64", "-o", "small", prompt]);

    // Only a super-resolution stage, on a picture of the user's.
    let image = small.to_str().expect("a path");
    let from = ["--from", "sr256", "--size", "256", "--image", image];
    let large = one(&farm, folder, &[&from[..], &["-o", "large", prompt]].concat());
    assert_eq!((read(&large).width, read(&large).height), (256, 256));
    let shrunk = distance(&quarter(&read(&large)), &read(&small));
    assert!(shrunk < 20.0, "it is the same picture, larger: {shrunk}");

    // Its recipe names the picture that it started from. Without that file, it cannot be rendered
    // again.
    let rerender = |arguments: &[&str]| {
        Darkroom::new(folder)
            .env("DARKROOM_CASCADE", demo_cascade())
            .args(["--json", "rerender", large.to_str().expect("a path")])
            .args(arguments)
            .run()
    };
    let missing: serde_json::Value =
        serde_json::from_str(rerender(&[]).stderr.trim()).expect("a document");
    assert_eq!(missing["error"]["field"], "image");
    let other = rerender(&["--image", large.to_str().expect("a path")]);
    assert_eq!(other.code, Some(2), "another picture: {other:?}");
    assert_eq!(rerender(&["--image", image]).json()["identical"], true);

    // With more strength, the result differs more from the picture that it started from.
    let changed = |strength: &str, out: &str| {
        one(
            &farm,
            folder,
            &["--size", "64", "--image", image, "--strength", strength, "-o", out, "a blue star"],
        )
    };
    let (little, much) = (changed("0.2", "little"), changed("1", "much"));
    let (near, far) =
        (distance(&read(&little), &read(&small)), distance(&read(&much), &read(&small)));
    assert!(near < far, "{near} of {far}");

    // The part that the mask keeps does not change by a byte; the rest does.
    let mask = folder.join("mask.png");
    write(&mask, 64, 64, |x, _| if x < 32 { [0; 3] } else { [255; 3] });
    let painted = one(
        &farm,
        folder,
        &[
            "--size",
            "64",
            "--image",
            image,
            "--mask",
            mask.to_str().expect("a path"),
            "-o",
            "painted",
            "a blue star",
        ],
    );
    let (before, after) = (read(&small), read(&painted));
    let differs = |at: usize| before.rgb[3 * at..3 * at + 3] != after.rgb[3 * at..3 * at + 3];
    let (kept, new): (Vec<usize>, Vec<usize>) = (0..64 * 64).partition(|at| at % 64 < 32);
    assert_eq!(kept.into_iter().filter(|at| differs(*at)).count(), 0, "kept pixels changed");
    assert!(new.into_iter().filter(|at| differs(*at)).count() > 500, "half of it is painted anew");
}

#[test]
fn a_users_picture_of_256_pixels_is_enlarged_to_1024() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let mine = folder.join("mine.png");
    write(&mine, 256, 256, |x, y| {
        let inside = x.abs_diff(128).pow(2) + y.abs_diff(128).pow(2) < 80 * 80;
        if inside { [220, 30, 30] } else { [255; 3] }
    });
    let render =
        ["render", "--seed", "5", "--from", "sr1024", "--image", "mine.png", "--steps", "1"];
    let pictures = Darkroom::new(folder)
        .env("DARKROOM_CASCADE", demo_cascade())
        .args(render)
        .args(["-o", "large", "a red circle on a white background"])
        .run()
        .paths(folder);
    assert_eq!(pictures.len(), 1);
    let large = read(&pictures[0]);
    assert_eq!((large.width, large.height), (1024, 1024));
    let shrunk = distance(&quarter(&large), &read(&mine));
    assert!(shrunk < 40.0, "it is the same picture, larger: {shrunk}");

    let pairs = large.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
    let recipe = Recipe::from_pairs(pairs).expect("a whole recipe");
    assert_eq!(recipe.image, Some(Digest::of(&fs::read(&mine).expect("read"))));
    let settings = serde_json::to_value(&recipe.settings).expect("JSON");
    assert_eq!(settings["start"], "low-res");
    let stages = settings["stages"].as_array().expect("stages");
    let told = |key: &str| stages.iter().map(|stage| stage[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("stage"), ["sr1024"], "no other stage ran");
    assert_eq!((told("size"), told("steps")), (vec![json!(1024)], vec![json!(1)]));
    let line = large.text(PARAMETERS).expect("a line for people");
    assert!(line.contains("Size: 1024x1024"), "{line}");
}

#[test]
fn a_picture_need_not_be_square_and_may_have_a_style() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Model);
    let arguments = ["--size", "256", "--width", "256", "--height", "128", "a green ring"];
    let wide = one(&farm, folder, &arguments);
    assert_eq!((read(&wide).width, read(&wide).height), (256, 128));
    let styled = one(&farm, folder, &[&arguments[..], &["--style", "a yellow star"]].concat());
    assert_ne!(read(&styled).rgb, read(&wide).rgb, "the style has an effect");
    assert_eq!(read(&styled).text("darkroom.style"), Some("a yellow star"));
    let jobs = farm.command(["--json", "ls"]).run().json_lines();
    assert_eq!((&jobs[0]["width"], &jobs[0]["height"]), (&256.into(), &128.into()));
    let refused =
        farm.command(["render", "--size", "256", "--width", "256", "--height", "200", "a"]).run();
    refused.refused(2, &["256x200", "stage base", "multiples of 32"]);
}

#[test]
fn what_cannot_be_started_from_is_refused_before_anything_is_queued() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let grey = |value: u8| move |_: u32, _: u32| [value; 3];
    write(&folder.join("square.png"), 1024, 1024, |x, y| [(x % 256) as u8, (y % 256) as u8, 7]);
    write(&folder.join("wide.png"), 1024, 512, grey(9));
    write(&folder.join("small.png"), 64, 64, grey(255));
    write(&folder.join("black.png"), 1024, 1024, grey(0));
    write(&folder.join("white.png"), 1024, 1024, grey(255));
    write(&folder.join("odd.png"), 100, 70, grey(9));
    fs::write(folder.join("photo.jpg"), b"\xff\xd8\xff\xe0").expect("written");
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::File::create(folder.join("vast.png"))
        .and_then(|file| file.set_len(5 << 30))
        .expect("a file");
    for (code, words, arguments) in [
        (3, &["absent.png"][..], &["--image", "absent.png"][..]),
        (2, &["photo.jpg", "is a damaged JPEG", "accepted"], &["--image", "photo.jpg"]),
        (2, &["is a folder", "accepted: a file"], &["--image", "state"]),
        (2, &["is a device"], &["--image", "/dev/zero"]),
        (2, &["pipe is a pipe"], &["--image", "square.png", "--mask", "pipe"]),
        (2, &["vast.png has 5368709120 bytes"], &["--image", "vast.png"]),
        (2, &["--image <FILE>"], &["--image", ""]),
        (2, &["mask", "without an image"], &["--mask", "white.png"]),
        (
            2,
            &["small.png", "64x64", "square.png", "accepted: 1024x1024"],
            &["--image", "square.png", "--mask", "small.png"],
        ),
        (2, &["black.png", "dark everywhere"], &["--image", "square.png", "--mask", "black.png"]),
        (2, &["square.png", "many colours"], &["--image", "white.png", "--mask", "square.png"]),
        (
            2,
            &["odd.png has 100x70 pixels", "no picture of that shape", "--fit crop"],
            &["--image", "odd.png", "--fit", "exact"],
        ),
        (
            2,
            &["wide.png has 1024x512 pixels", "the shape of 1024x1024"],
            &["--image", "wide.png", "--fit", "exact", "--width", "1024", "--height", "1024"],
        ),
        (
            2,
            &["64x64", "accepted: 256x256"],
            &["--image", "small.png", "--from", "sr1024", "--fit", "exact"],
        ),
        (2, &["fit is pad", "--image FILE"], &["--fit", "pad"]),
        (2, &["sr512", "sr256, sr1024"], &["--image", "small.png", "--from", "sr512"]),
        (2, &["image is missing"], &["--from", "sr256"]),
        (2, &["strength", "starts from no picture"], &["--strength", "0.5"]),
        (
            2,
            &["strength", "accepted: above 0"],
            &["--strength", "base=1.5", "--image", "square.png"],
        ),
        (
            2,
            &["mask", "--from"],
            &["--image", "small.png", "--mask", "small.png", "--from", "sr256"],
        ),
        (2, &["width", "quarter to four times"], &["--width", "64", "--height", "64"]),
        (2, &["style", "none runs"], &["--style", "ink", "--size", "64"]),
    ] {
        farm.command(["submit", "a cat"].into_iter().chain(arguments.iter().copied()))
            .run()
            .refused(code, words);
    }
    fs::write(
        folder.join("p.jsonl"),
        "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"image\": \"photo.jpg\"}\n",
    )
    .expect("written");
    farm.command(["submit", "--batch", "p.jsonl"])
        .run()
        .refused(2, &["p.jsonl, line 2", "photo.jpg"]);
    fs::write(
        folder.join("p.jsonl"),
        "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"image\": \"square.png\"}\n",
    )
    .expect("written");
    farm.command(["submit", "--batch", "p.jsonl"])
        .run()
        .refused(2, &["prompts[0].image is missing"]);
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was accepted");
}

#[test]
fn a_batch_sends_each_picture_once_and_takes_the_shape_of_the_first() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    fs::create_dir(folder.join("in")).expect("made");
    write(&folder.join("in/wide.png"), 1024, 512, |x, _| [(x % 256) as u8, 0, 0]);
    write(&folder.join("in/other.png"), 1024, 512, |_, y| [(y % 256) as u8, 0, 0]);
    write(&folder.join("in/white.png"), 1024, 512, |_, _| [255; 3]);
    let line = |image: &str| {
        format!(
            "{{\"prompt\": \"a\", \"seed\": 1, \"image\": \"{image}\", \"mask\": \"white.png\"}}\n"
        )
    };
    let lines = [line("wide.png"), line("other.png"), line("wide.png")].concat();
    fs::write(folder.join("in/p.jsonl"), lines).expect("written");
    let id = farm.command(["submit", "--batch", "in/p.jsonl"]).run().stdout.trim().to_owned();
    assert_eq!(farm.command(["watch", &id]).run().code, Some(0));
    let stored = fs::read_dir(folder.join("state/artifacts/inputs")).expect("a folder").count();
    assert_eq!(stored, 3, "each file once");
    let images = farm.images(&id);
    assert_eq!(images[0]["sha256"], images[2]["sha256"], "equal prompts, seeds and pictures");
    assert_ne!(images[0]["sha256"], images[1]["sha256"], "another picture");
    assert_ne!(images[0]["image"], images[1]["image"]);
    let paths = farm.command(["get", &id, "-o", "out"]).run();
    assert_eq!(paths.code, Some(0), "{paths:?}");
    let written = read(&folder.join("out/000000.png"));
    assert_eq!((written.width, written.height), (1024, 512));
    assert_eq!(farm.command(["verify", &id]).run().code, Some(0));
}

/// A PNG with EXIF data about its orientation.
fn turned(png: &[u8], orientation: u8) -> Vec<u8> {
    let exif =
        [b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[orientation][..], &[0; 6]]
            .concat();
    let crc = !exif.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    [&png[..33], &[0, 0, 0, 26], &exif, &crc.to_be_bytes(), &png[33..]].concat()
}

#[test]
fn pictures_of_any_size_need_no_flags() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let pixel = |x: u32, y: u32| [(x % 256) as u8, (y % 256) as u8, 7];
    write(&folder.join("phone.png"), 4032, 3024, pixel);
    write(&folder.join("odd.png"), 1000, 750, pixel);
    write(&folder.join("tiny.png"), 20, 11, pixel);
    write(&folder.join("lying.png"), 1024, 512, pixel);
    let lying = fs::read(folder.join("lying.png")).expect("written");
    fs::write(folder.join("lying.png"), turned(&lying, 6)).expect("written");
    for (name, extent, notes) in [
        ("phone.png", (1024, 768), &[][..]),
        ("odd.png", (1024, 768), &["odd.png is 1000x750, smaller than 1024x768: it is enlarged"]),
        ("tiny.png", (1152, 640), &["tiny.png is 20x11, smaller than 1152x640: it is enlarged"]),
        (
            "lying.png",
            (512, 1024),
            &["lying.png is turned as its EXIF orientation 6 says: 1024x512 becomes 512x1024"],
        ),
    ] {
        let ran =
            farm.command(["render", "--seed", "5", "--image", name, "-o", "out", "a cat"]).run();
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
        for note in notes {
            assert!(ran.stderr.contains(note), "{name}: {}", ran.stderr);
        }
        let picture = read(&ran.paths(folder).remove(0));
        assert_eq!((picture.width, picture.height), extent, "{name}");
        let settings: serde_json::Value =
            serde_json::from_str(picture.text("darkroom.settings").expect("settings"))
                .expect("JSON");
        assert_eq!(settings["fit"], "crop");
    }
    // Square, as requested: a note says what is cut off, and the recipe has the fit.
    for (fit, says) in [
        (
            "crop",
            "odd.png is 1000x750: the 750x750 in its middle are used, the rest is cut off (fit crop)",
        ),
        ("pad", "it fills 1024x768 of 1024x1024, the rest is black (fit pad)"),
        ("stretch", "its proportions change"),
    ] {
        let ran = farm
            .command([
                "render", "--seed", "5", "--image", "odd.png", "--fit", fit, "--width", "1024",
                "a cat",
            ])
            .run();
        assert_eq!(ran.code, Some(0), "{fit}: {ran:?}");
        assert!(ran.stderr.contains(says), "{fit}: {}", ran.stderr);
    }
    // The notes also appear when the job is viewed later, each only once.
    let submit = ["submit", "--image", "odd.png", "--width", "1024", "a cat", "a dog"];
    let ran = farm.command(submit).run();
    assert_eq!(ran.stderr.matches("in its middle are used").count(), 1, "{ran:?}");
    let cut = "image 0 and 1 other: the picture is 1000x750: the 750x750 in its middle are used";
    let status = farm.command(["status", ran.stdout.trim()]).run();
    assert!(status.stdout.contains(cut), "{status:?}");
    let job = farm.job(ran.stdout.trim());
    assert!(job["notes"][0].as_str().is_some_and(|note| note.starts_with(cut)), "{job}");
    // A low-resolution picture too.
    let ran = farm.command(["render", "--from", "sr1024", "--image", "phone.png", "a cat"]).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let picture = read(&ran.paths(folder).remove(0));
    assert_eq!((picture.width, picture.height), (1152, 864));
}

#[test]
fn a_photo_is_rendered_again_from_its_own_file() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let fake = [("DARKROOM_RENDERER", "fake")];
    let run = |arguments: &[&str]| {
        fake.iter()
            .fold(Darkroom::new(folder), |command, (name, value)| command.env(name, value))
            .env("DARKROOM_CASCADE", demo_cascade())
            .args(arguments)
            .run()
    };
    write(&folder.join("cat.png"), 300, 200, |x, y| [(x % 256) as u8, (y % 256) as u8, 7]);
    let cat = fs::read(folder.join("cat.png")).expect("written");
    fs::write(folder.join("cat.png"), turned(&cat, 8)).expect("written");
    // Strokes on a transparent background, in the upright orientation.
    let mask: Vec<u8> =
        (0..200 * 300).flat_map(|at| if at % 200 < 50 { [255; 4] } else { [0; 4] }).collect();
    let mask = darkroom_artifacts::picture::encode_rgba(200, 300, &mask).expect("a mask");
    fs::write(folder.join("mask.png"), mask).expect("written");
    let start = ["--image", "cat.png", "--mask", "mask.png"];
    let made = run(&[&["render", "--seed", "5"][..], &start, &["-o", "out", "a cat"]].concat());
    let path = made.paths(folder).remove(0);
    let path = path.to_str().expect("a path");
    assert_eq!(
        run(&[&["--json", "rerender", path][..], &start].concat()).json()["identical"],
        true
    );
    let other = run(&["rerender", path, "--image", "mask.png", "--mask", "mask.png"]);
    other.refused(2, &["mask.png, which is stored as SHA-256", "accepted: the picture stored as"]);
}
