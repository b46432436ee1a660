//! Compares the reading of pictures with ImageMagick: files that it writes are read as it reads
//! them, and the commands that errors suggest produce the right picture. `tools/setup-servers.sh`
//! installs ImageMagick.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use darkroom_artifacts::input::{Given, Use};
use darkroom_core::extent::Extent;

/// A folder with a picture `source.png` of 64x32 pixels: red, but blue in its upper left quarter
/// and green in its lower right quarter.
struct Studio(tempfile::TempDir);

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

impl Studio {
    fn new() -> Self {
        let studio = Self(tempfile::tempdir().expect("folder"));
        studio.convert(&[
            "-size",
            "64x32",
            "xc:red",
            "-fill",
            "blue",
            "-draw",
            "rectangle 0,0 31,15",
            "-fill",
            "#00ff00",
            "-draw",
            "rectangle 32,16 63,31",
            "source.png",
        ]);
        studio
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Whether it succeeded.
    fn tries(&self, arguments: &[&str]) -> bool {
        let ran = Command::new("convert").args(arguments).current_dir(self.0.path()).output();
        ran.expect("ImageMagick is missing; tools/setup-servers.sh installs it").status.success()
    }

    fn convert(&self, arguments: &[&str]) {
        assert!(self.tries(arguments), "convert {arguments:?}");
    }

    /// Runs a command as it was printed.
    fn run(&self, command: &str) {
        let ran = Command::new("sh")
            .args(["-c", command])
            .current_dir(self.0.path())
            .output()
            .expect("a shell");
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn decode(&self, name: &str) -> Result<Given, String> {
        Given::decode(&fs::read(self.path(name)).expect("written"))
            .map_err(|error| error.to_string())
    }

    fn given(&self, name: &str) -> Given {
        self.decode(name).unwrap_or_else(|error| panic!("{name} {error}"))
    }
}

/// The commands in a message, in order.
fn commands(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// A picture's pixels, laid on white.
fn pixels(given: &Given) -> Vec<[u8; 3]> {
    let extent = given.pixels.extent;
    let tensor = given.pixels.for_stage(Use::Picture, extent, None).expect("there is memory");
    let area = extent.area() as usize;
    (0..area)
        .map(|at| {
            [0, 1, 2].map(|channel| {
                darkroom_artifacts::picture::to_byte(tensor.data[channel * area + at])
            })
        })
        .collect()
}

fn near(one: [u8; 3], other: [u8; 3], off: u8) -> bool {
    one.iter().zip(other).all(|(one, other)| one.abs_diff(other) <= off)
}

/// The colours of the four quarters, in reading order.
fn quarters(given: &Given) -> [[u8; 3]; 4] {
    let Extent { width, height } = given.pixels.extent;
    let pixels = pixels(given);
    [(1, 1), (3, 1), (1, 3), (3, 3)]
        .map(|(x, y)| pixels[(y * height / 4 * width + x * width / 4) as usize])
}

fn assert_quarters(given: &Given, expected: [[u8; 3]; 4], what: &str) {
    let seen = quarters(given);
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(near(*seen, expected, 60), "{what}: {seen:?}, expected {expected:?}");
    }
}

/// EXIF data with an orientation, in a JPEG's segment.
fn with_orientation(jpeg: &Path, orientation: u8) {
    let bytes = fs::read(jpeg).expect("written");
    let exif =
        [b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[orientation][..], &[0; 6]]
            .concat();
    let length = u16::try_from(exif.len() + 2).expect("short").to_be_bytes();
    fs::write(jpeg, [&bytes[..2], b"\xff\xe1", &length, &exif, &bytes[2..]].concat())
        .expect("written");
}

#[test]
fn what_imagemagick_writes_is_read() {
    let studio = Studio::new();
    for (name, arguments, off) in [
        ("one.png", &["-colors", "2", "-monochrome"][..], 0),
        ("grey.png", &["-colorspace", "Gray"], 0),
        ("grey16.png", &["-colorspace", "Gray", "-depth", "16"], 0),
        ("deep.png", &["-depth", "16", "-define", "png:color-type=2"], 0),
        ("palette.png", &["-define", "png:color-type=3"], 0),
        ("alpha.png", &["-alpha", "set", "-channel", "A", "-evaluate", "set", "50%"], 1),
        (
            "greyalpha.png",
            &["-colorspace", "Gray", "-alpha", "set", "-channel", "A", "-evaluate", "set", "50%"],
            1,
        ),
        ("interlaced.png", &["-interlace", "PNG"], 0),
        ("base.jpg", &["-quality", "90"], 4),
        ("progressive.jpg", &["-quality", "90", "-interlace", "JPEG"], 4),
        ("grey.jpg", &["-colorspace", "Gray"], 4),
        ("sampled.jpg", &["-sampling-factor", "4:1:1"], 90),
        ("full.jpg", &["-sampling-factor", "4:4:4"], 4),
        ("lossy.webp", &["-quality", "90"], 90),
        ("lossless.webp", &["-define", "webp:lossless=true"], 0),
        (
            "alpha.webp",
            &[
                "-alpha",
                "set",
                "-channel",
                "A",
                "-evaluate",
                "set",
                "50%",
                "-define",
                "webp:lossless=true",
            ],
            1,
        ),
    ] {
        studio.convert(&[&["source.png"], arguments, &[name]].concat());
        // What ImageMagick reads from that file, laid on white.
        studio.convert(&[
            name,
            "-background",
            "white",
            "-alpha",
            "remove",
            "-alpha",
            "off",
            "-depth",
            "8",
            "seen.png",
        ]);
        let (read, seen) = (pixels(&studio.given(name)), pixels(&studio.given("seen.png")));
        assert_eq!(read.len(), seen.len(), "{name}");
        let (at, worst) = read
            .iter()
            .zip(&seen)
            .map(|(one, other)| {
                (0..3).map(|channel| one[channel].abs_diff(other[channel])).max().unwrap_or(0)
            })
            .enumerate()
            .max_by_key(|(_, off)| *off)
            .expect("pixels");
        assert!(worst <= off, "{name}: off by {worst} at {at}");
    }
}

#[test]
fn orientations_are_those_of_imagemagick() {
    let studio = Studio::new();
    for orientation in 1..=8 {
        studio.convert(&["source.png", "-quality", "95", "in.jpg"]);
        with_orientation(&studio.path("in.jpg"), orientation);
        studio.convert(&["in.jpg", "-auto-orient", "-strip", "upright.png"]);
        let (given, upright) = (studio.given("in.jpg"), studio.given("upright.png"));
        assert_eq!((given.orientation, upright.orientation), (orientation, 1));
        assert_eq!(given.pixels.extent, upright.pixels.extent);
        assert_quarters(&given, quarters(&upright), &format!("orientation {orientation}"));
        // In a PNG's eXIf chunk, as ImageMagick keeps it.
        studio.convert(&["in.jpg", "kept.png"]);
        let kept = studio.given("kept.png");
        if kept.orientation == orientation {
            assert_quarters(
                &kept,
                quarters(&upright),
                &format!("orientation {orientation} in a PNG"),
            );
        }
    }
}

#[test]
fn the_advice_for_other_formats_gives_the_right_picture() {
    let studio = Studio::new();
    let upright = [BLUE, RED, RED, GREEN];
    // Turned to the right, as orientation 6 says.
    let turned = [RED, BLUE, GREEN, RED];
    for (name, arguments, expected, needed) in [
        ("in.gif", &[][..], upright, true),
        ("in.tif", &["-orient", "RightTop"], turned, true),
        ("in.bmp", &[], upright, true),
        ("in.ppm", &[], upright, true),
        ("in.ico", &[], upright, true),
        // These need tools that are not installed everywhere.
        ("in.heic", &[], upright, false),
        ("in.avif", &[], upright, false),
        ("in.jp2", &[], upright, false),
    ] {
        let wrote = studio.tries(&[&["source.png"], arguments, &[name]].concat());
        assert!(wrote || !needed, "{name}");
        if !wrote {
            continue;
        }
        let refused = studio.decode(name).expect_err(name);
        let printed = commands(&refused);
        assert!(printed[0].contains(name), "{refused}");
        studio.run(printed[0]);
        assert_quarters(&studio.given("out.png"), expected, name);
    }
    // A GIF whose first picture is smaller than the whole.
    studio.convert(&[
        "-size",
        "64x32",
        "xc:red",
        "(",
        "source.png",
        "-crop",
        "8x8+0+0",
        ")",
        "-loop",
        "0",
        "in.gif",
    ]);
    let refused = studio.decode("in.gif").expect_err("a GIF");
    studio.run(commands(&refused)[0]);
    assert_quarters(&studio.given("out.png"), [RED; 4], "animation");
    // A CMYK JPEG that lies on its side.
    for orientation in [1, 6] {
        studio.convert(&["source.png", "-colorspace", "CMYK", "-quality", "95", "in.jpg"]);
        with_orientation(&studio.path("in.jpg"), orientation);
        let refused = studio.decode("in.jpg").expect_err("CMYK");
        assert!(refused.contains("CMYK"), "{refused}");
        studio.run(commands(&refused)[0]);
        assert_quarters(
            &studio.given("out.png"),
            if orientation == 6 { turned } else { upright },
            "CMYK",
        );
    }
}

#[test]
fn the_advice_for_masks_gives_the_right_mask() {
    let studio = Studio::new();
    let strokes = ["-draw", "rectangle 10,10 40,20"];
    let painted = |name: &str| {
        let given = studio.given(name);
        given.pixels.check_mask().unwrap_or_else(|why| panic!("{name} {why}"));
        let mask = given.pixels.for_stage(Use::Mask, given.pixels.extent, None).expect("a mask");
        [(25, 15), (25, 25)].map(|(x, y): (usize, usize)| mask.data[y * 64 + x] == 1.0)
    };
    let (stroke, ground) = ([true, false], [false, true]);
    for (name, ground_colour, paint, says, expected) in [
        ("black on clear", "none", "black", "dark and transparent", &[stroke, ground][..]),
        (
            "faint white on clear",
            "none",
            "rgba(255,255,255,0.4)",
            "dark and transparent",
            &[stroke, ground],
        ),
        ("red on white", "white", "red", "colour on white", &[stroke]),
        ("blue on white", "white", "blue", "colour on white", &[stroke]),
    ] {
        let canvas = format!("xc:{ground_colour}");
        let fill = ["-fill", paint];
        studio
            .convert(&[&["-size", "64x32", &canvas][..], &fill, &strokes, &["mask.png"]].concat());
        let why = studio.given("mask.png").pixels.check_mask().expect_err(name).to_string();
        assert!(why.contains(says), "{name}: {why}");
        let printed = commands(&why);
        assert_eq!(printed.len(), expected.len(), "{why}");
        for (command, expected) in printed.into_iter().zip(expected) {
            studio.run(command);
            assert_eq!(painted("out.png"), *expected, "{name}: {command}");
        }
    }
    // A picture with a hole.
    studio.convert(&[
        "source.png",
        "-alpha",
        "set",
        "-region",
        "31x11+10+10",
        "-alpha",
        "transparent",
        "mask.png",
    ]);
    let why = studio.given("mask.png").pixels.check_mask().expect_err("a photo").to_string();
    assert!(why.contains("many colours"), "{why}");
    let printed = commands(&why);
    for (command, expected) in printed.into_iter().zip([stroke, ground]) {
        studio.run(command);
        assert_eq!(painted("out.png"), expected, "{command}");
    }
    // Masks that need no advice.
    for (ground, paint, name) in [
        ("none", "white", "in.png"),
        ("none", "red", "in.png"),
        ("none", "rgba(255,0,0,0.6)", "in.png"),
        ("black", "red", "in.png"),
        ("black", "red", "in.jpg"),
        ("black", "white", "in.jpg"),
        ("black", "gray70", "in.png"),
        ("none", "red", "in.webp"),
    ] {
        let canvas = format!("xc:{ground}");
        studio.convert(
            &[&["-size", "64x32", &canvas, "-fill", paint][..], &strokes, &[name]].concat(),
        );
        assert_eq!(painted(name), stroke, "{paint} on {ground} in {name}");
    }
    studio.convert(&[
        "-size",
        "64x32",
        "xc:black",
        "-fill",
        "white",
        "-draw",
        "rectangle 10,10 40,20",
        "-monochrome",
        "in.png",
    ]);
    assert_eq!(painted("in.png"), stroke, "one bit");
}
