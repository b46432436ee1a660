//! Masks as painting programs write them, with the real command and the demo cascade's network: the
//! parts painted anew are those that a user sees as strokes.

use std::{fs, path::Path, process::Command};

use darkroom_artifacts::picture::{self, encode_rgb};
use darkroom_tests::farm::{Farm, Renderer};

/// Edge of the pictures, in pixels.
const EDGE: usize = 64;

/// Writes a file with ImageMagick. `$` stands for a space within an argument.
fn convert(folder: &Path, arguments: &str, name: &str) {
    let words = arguments.split(' ').map(|word| word.replace('$', " "));
    let done = Command::new("convert").args(words).arg(name).current_dir(folder).output();
    let done = done.expect("convert runs");
    assert!(done.status.success(), "{arguments}: {done:?}");
}

/// The columns of the picture that have changed.
fn changed_columns(before: &[u8], after: &Path) -> Vec<usize> {
    let after = picture::decode(&fs::read(after).expect("written")).expect("a PNG").rgb;
    let differs = |at: usize| before[3 * at..3 * at + 3] != after[3 * at..3 * at + 3];
    (0..EDGE).filter(|x| (0..EDGE).filter(|y| differs(y * EDGE + x)).count() > EDGE / 4).collect()
}

#[test]
fn strokes_of_every_kind_are_painted_anew_and_the_rest_stays() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Model);
    let rgb: Vec<u8> = (0..EDGE * EDGE)
        .flat_map(|at| [(at % EDGE * 4) as u8, (at / EDGE * 4) as u8, 90])
        .collect();
    fs::write(folder.join("photo.png"), encode_rgb(64, 64, &rgb, &[]).expect("a picture"))
        .expect("written");
    // A stroke over the right half. If its edge is soft, a few columns on both sides may be either.
    for (name, arguments, soft) in [
        ("white.png", "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63", 0),
        ("red.png", "-size 64x64 xc:black -fill red -draw rectangle$32,0$63,63", 0),
        (
            "grey.png",
            "-size 64x64 xc:black -fill gray(70%) -draw rectangle$32,0$63,63 -type Grayscale",
            0,
        ),
        (
            "bits.png",
            "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63 -monochrome -define png:bit-depth=1",
            0,
        ),
        ("deep.png", "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63 -depth 16", 0),
        (
            "palette.png",
            "-size 64x64 xc:black -fill yellow -draw rectangle$32,0$63,63 -type Palette",
            0,
        ),
        ("clear.png", "-size 64x64 xc:none -fill white -draw rectangle$32,0$63,63", 0),
        ("red-clear.png", "-size 64x64 xc:none -fill red -draw rectangle$32,0$63,63", 0),
        (
            "half-clear.png",
            "-size 64x64 xc:none -fill rgba(255,255,255,0.6) -draw rectangle$32,0$63,63",
            0,
        ),
        ("soft.png", "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63 -blur 0x3", 2),
        (
            "soft-clear.png",
            "-size 64x64 xc:none -fill white -draw rectangle$32,0$63,63 -channel RGBA -blur 0x3",
            2,
        ),
        ("edges.jpg", "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63 -quality 40", 2),
        (
            "red-edges.jpg",
            "-size 64x64 xc:black -fill red -draw rectangle$32,0$63,63 -quality 60",
            2,
        ),
        (
            "lossy.webp",
            "-size 64x64 xc:black -fill white -draw rectangle$32,0$63,63 -quality 60",
            2,
        ),
    ] {
        convert(folder, arguments, name);
        let ran = farm
            .command([
                "render",
                "--seed",
                "5",
                "--size",
                "64",
                "--steps",
                "2",
                "--image",
                "photo.png",
                "--mask",
                name,
                "-o",
                name.split('.').next().expect("a name"),
                "a blue star",
            ])
            .run();
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
        let changed = changed_columns(&rgb, &ran.paths(folder).remove(0));
        assert!(
            (32 + soft..EDGE).filter(|x| changed.contains(x)).count() > 24,
            "{name}: {changed:?}"
        );
        assert!(changed.iter().all(|x| *x >= 32 - soft), "{name}: {changed:?}");
    }
}

#[test]
fn what_is_no_mask_is_refused_with_a_command_that_makes_one() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    convert(folder, "-size 64x64 gradient:red-blue", "photo.png");
    for (name, arguments, words) in [
        (
            "faint.png",
            "-size 64x64 xc:black -fill gray(40%) -draw rectangle$32,0$63,63",
            &["dark everywhere", "less than half bright"][..],
        ),
        (
            "faint-clear.png",
            "-size 64x64 xc:none -fill rgba(255,255,255,0.3) -draw rectangle$32,0$63,63",
            &["dark", "transparent", "-alpha extract"],
        ),
        (
            "black-clear.png",
            "-size 64x64 xc:none -fill black -draw rectangle$32,0$63,63",
            &["dark and transparent", "-alpha extract"],
        ),
        (
            "red-white.png",
            "-size 64x64 xc:white -fill red -draw rectangle$32,0$63,63",
            &["strokes in colour on white", "-fuzz"],
        ),
        (
            "red-white.jpg",
            "-size 64x64 xc:white -fill red -draw rectangle$32,0$63,63 -quality 80",
            &["strokes in colour on white"],
        ),
        (
            "hole.png",
            "-size 64x64 gradient:red-blue -alpha set -region 20x20+10+10 -alpha transparent",
            &["many colours", "transparent"],
        ),
        ("small.png", "-size 32x32 xc:white", &["32x32", "accepted: 64x64"]),
    ] {
        convert(folder, arguments, name);
        let submit =
            ["submit", "--size", "64", "--image", "photo.png", "--mask", name, "a blue star"];
        farm.command(submit).run().refused(2, &[&[name, "accepted: "], words].concat());
    }
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was queued");
}
