//! Every format that pictures are stored in: its bytes, which may never change, and its text, read
//! here and by ImageMagick. `tools/setup-servers.sh` installs that.

use std::{fs, path::Path, process::Command};

use darkroom_artifacts::{
    picture::{self, Difference, MAX_RECIPE_BYTES, Raster, recipe_bytes},
    tensor::FloatTensor,
};
use darkroom_core::{
    digest::Digest,
    output::{Format, Output, OutputRequest},
    picture_text::{DEVICE_CLASS, PARAMETERS, PROMPT},
};

const WIDTH: usize = 37;
const HEIGHT: usize = 23;

/// A picture with slopes, edges and noise, of no multiple of eight.
fn tensor() -> FloatTensor {
    let mut random = 1_u32;
    let mut value = |channel: usize, y: usize, x: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (random >> 24) as f32 / 255.0 - 0.5;
        let slope = (x * (channel + 1)) as f32 / WIDTH as f32 - y as f32 / HEIGHT as f32;
        let edge = if (x / 9 + y / 7) % 2 == channel % 2 { 0.4 } else { -0.4 };
        (0.5 * slope + edge + 0.1 * noise).clamp(-1.0, 1.0)
    };
    let mut data = Vec::new();
    for channel in 0..3 {
        for y in 0..HEIGHT {
            data.extend((0..WIDTH).map(|x| value(channel, y, x)));
        }
    }
    FloatTensor { shape: vec![3, HEIGHT, WIDTH], data }
}

fn text() -> Vec<(String, String)> {
    [
        (PROMPT, "ein Kreis über 青い四角 \"🙂\"\nzweite Zeile"),
        ("darkroom.negative_prompt", ""),
        (PARAMETERS, "ein Kreis über 青い四角\nSeed: 7, Size: 37x23"),
        (DEVICE_CLASS, "cpu-test"),
    ]
    .map(|(keyword, text)| (keyword.to_owned(), text.to_owned()))
    .to_vec()
}

fn output(text: &str) -> Output {
    text.parse::<OutputRequest>().and_then(|request| request.resolve("output")).expect(text)
}

fn sorted(mut text: Vec<(String, String)>) -> Vec<(String, String)> {
    text.sort();
    text
}

/// Bytes that were made once and stay, by their SHA-256.
const PINNED: [(&str, &str); 9] = [
    ("png", "2f1f9d2ee377ab5aa2b65c2035883b7a20020d37b3916949594929f4c55e7dd2"),
    ("png:0", "9195ea164c86f4c900294d4794d1c6dde971086228dfedb9f1769fb741bfa875"),
    ("png:1", "113d4e5d73b23308dbe02d700650774c70a388364b3b3ebe7011bc858e4a2365"),
    ("png:9", "15b2353451a968602bfaab894b2cb278bea8ef98aea50b8f5ee4826c128a655a"),
    ("jpeg:1", "cc5632f393648f006d5969dd79d43b2b92a429b61257dbb7168ac0ec2e1b96a0"),
    ("jpeg:89", "370719b6ea0055633b76fb371dce670134417639c7dcadb774f6b44b544d8e72"),
    ("jpeg:90", "3ba7996007cf4c57881c6321e4d1592d792910cc857a989c85193a48a3f405e8"),
    ("jpeg:100", "3a5e77a33891945cbe54011e4fecacb71860f2ed111aff334a59ad564f5103db"),
    ("webp", "c9fed9d9a639fe31f7c9a127897d9e403c3142ad89984e2b7d87926489a0c194"),
];

/// Whoever stored a picture must get the same bytes from another machine and another version. A
/// codec whose new version changes them needs a new name for what it makes.
#[test]
fn bytes_that_were_made_once_stay() {
    let found = PINNED.map(|(asked, _)| {
        let bytes = picture::encode_to(output(asked), &tensor(), &text()).expect(asked);
        (asked, Digest::of(&bytes).to_string())
    });
    assert_eq!(found, PINNED.map(|(asked, sha256)| (asked, sha256.to_owned())));
    let plain = picture::encode(&tensor(), &text()).expect("a PNG");
    assert_eq!(picture::encode_to(Output::default(), &tensor(), &text()).expect("one"), plain);
}

#[test]
fn pixels_and_text_come_back_from_every_format() {
    let whole = Raster::of(&tensor()).expect("a picture");
    for (asked, most, mean) in [
        ("png", 0, 0.0),
        ("png:0", 0, 0.0),
        ("png:5", 0, 0.0),
        ("webp", 0, 0.0),
        ("jpeg:100", 8, 1.0),
        ("jpeg:90", 60, 8.0),
        ("jpeg:80", 130, 30.0),
    ] {
        let output = output(asked);
        let bytes = picture::encode_to(output, &tensor(), &text()).expect(asked);
        assert_eq!(Format::of_bytes(&bytes), Some(output.format()), "{asked}");
        let read = picture::decode(&bytes).expect(asked);
        assert_eq!((read.width as usize, read.height as usize), (WIDTH, HEIGHT), "{asked}");
        assert_eq!(sorted(read.text), sorted(text()), "{asked}");
        assert_eq!(sorted(picture::read_text(&bytes).expect(asked)), sorted(text()), "{asked}");
        let difference = Difference::of(&whole.rgb, &read.rgb);
        assert!(difference.largest <= most && difference.mean <= mean, "{asked}: {difference:?}");
        for end in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 3] {
            picture::decode(&bytes[..end]).expect_err("cut short");
        }
    }
}

#[test]
fn levels_and_qualities_change_the_size_of_a_file() {
    let data = (0..3 * 128 * 128).map(|i| ((i % 128) as f32 / 64.0 - 1.0).powi(3)).collect();
    let tensor = FloatTensor { shape: vec![3, 128, 128], data };
    let size = |asked: &str| picture::encode_to(output(asked), &tensor, &[]).expect(asked).len();
    assert!(size("png:0") > 3 * 128 * 128 && size("png:1") < size("png:0"));
    assert!(size("png:9") <= size("png:1") && size("png:9") < size("png"));
    assert!(size("jpeg:10") < size("jpeg:89") && size("jpeg:89") < size("jpeg:100"));
}

#[test]
fn a_recipe_too_long_for_its_format_is_refused_and_a_png_holds_it() {
    let with = |prompt: usize| {
        let mut text = text();
        text[0].1 = "p".repeat(prompt);
        text
    };
    let longest = with(MAX_RECIPE_BYTES - recipe_bytes(&with(0)));
    let longer = with(60_000);
    for asked in ["jpeg", "webp"] {
        let bytes = picture::encode_to(output(asked), &tensor(), &longest).expect("the longest");
        assert_eq!(sorted(picture::read_text(&bytes).expect("read")), sorted(longest.clone()));
        let error = picture::encode_to(output(asked), &tensor(), &longer).expect_err("too long");
        assert!(error.to_string().contains("accepted: at most 59000"), "{error}");
    }
    for asked in ["png", "png:6"] {
        let bytes = picture::encode_to(output(asked), &tensor(), &longer).expect("a PNG");
        assert_eq!(picture::read_text(&bytes).expect("read"), longer);
    }
}

#[test]
fn an_edge_that_a_format_cannot_have_is_refused() {
    let line = |width: usize| FloatTensor { shape: vec![3, 1, width], data: vec![0.0; 3 * width] };
    for (asked, longest) in [("jpeg", 65_535), ("webp", 16_383)] {
        let bytes = picture::encode_to(output(asked), &line(longest), &[]).expect("the longest");
        assert_eq!(picture::decode(&bytes).expect("read").width as usize, longest);
        picture::encode_to(output(asked), &line(longest + 1), &[]).expect_err(asked);
    }
}

/// What ImageMagick prints.
fn identify(folder: &Path, arguments: &[&str]) -> String {
    let ran = Command::new("identify").args(arguments).current_dir(folder).output();
    let ran = ran.expect("ImageMagick is missing; tools/setup-servers.sh installs it");
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

fn convert(folder: &Path, arguments: &[&str]) {
    let ran = Command::new("convert").args(arguments).current_dir(folder).output();
    let ran = ran.expect("ImageMagick is missing; tools/setup-servers.sh installs it");
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn other_programs_show_the_line_for_people_and_keep_the_recipe() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    for (asked, name) in [("jpeg", "one.jpg"), ("webp", "one.webp"), ("png:3", "one.png")] {
        let bytes = picture::encode_to(output(asked), &tensor(), &text()).expect(asked);
        fs::write(at(name), bytes).expect("written");
    }
    let sampling = identify(folder.path(), &["-format", "%[jpeg:sampling-factor]", "one.jpg"]);
    assert_eq!(sampling, "1x1,1x1,1x1");
    // It prints the bytes of what is not plain text.
    let comment = identify(folder.path(), &["-format", "%[EXIF:UserComment]", "one.jpg"]);
    let line = text()[2].1.clone();
    let bytes = b"UNICODE\0".iter().copied().chain(line.encode_utf16().flat_map(u16::to_be_bytes));
    let bytes: Vec<_> = bytes.map(|byte| byte.to_string()).collect();
    assert_eq!(comment, bytes.join(", "));
    let software = identify(folder.path(), &["-format", "%[EXIF:Software]", "one.jpg"]);
    assert_eq!(software, "Darkroom");
    // Lossless from a lossless one, and from a JPEG: the recipe comes along in EXIF.
    for (from, to) in [
        ("one.jpg", "again.jpg"),
        ("one.jpg", "again.webp"),
        ("one.webp", "from-webp.webp"),
        ("one.jpg", "from-jpeg.png"),
    ] {
        convert(folder.path(), &[from, "-define", "webp:lossless=true", to]);
        let read = picture::decode(&fs::read(at(to)).expect("written")).expect(to);
        assert_eq!(sorted(read.text), sorted(text()), "{from} {to}");
    }
    let pixels = |name: &str| picture::decode(&fs::read(at(name)).expect("there")).expect(name).rgb;
    assert_eq!(pixels("from-webp.webp"), pixels("one.webp"));
    assert_eq!(pixels("one.png"), pixels("one.webp"));
    // Stripped, it is a picture without a recipe.
    convert(folder.path(), &["one.jpg", "-strip", "bare.jpg"]);
    let bare = picture::decode(&fs::read(at("bare.jpg")).expect("written")).expect("a picture");
    assert_eq!(bare.text, []);
}
