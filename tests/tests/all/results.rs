//! Results that are lost, damaged, saved again by other programs, or have names that are not valid
//! text.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use darkroom_artifacts::picture;
use darkroom_tests::{
    command::Darkroom,
    demo_cascade,
    farm::{Farm, Renderer},
    hostile,
};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

/// A job of three small pictures that is done.
fn done(farm: &Farm) -> String {
    let job = farm
        .command(["submit", "-n", "3", "--size", "64", "--seed", "5", "a red circle"])
        .run()
        .stdout;
    let job = job.trim().to_owned();
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    job
}

/// Paths of a job's pictures in the farm's storage, by index.
fn stored(farm: &Farm, folder: &Path, job: &str) -> Vec<PathBuf> {
    let key =
        |image: &Value| folder.join("state/artifacts").join(image["key"].as_str().expect("a key"));
    farm.images(job).iter().map(key).collect()
}

#[test]
fn lost_and_damaged_pictures_are_listed_and_the_others_fetched() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = done(&farm);
    let stored = stored(&farm, folder.path(), &job);
    let whole = fs::read(&stored[1]).expect("stored");
    fs::remove_file(&stored[0]).expect("lost");
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    fs::write(&stored[1], bytes).expect("damaged");

    let ended = farm.command(["get", &job, "-o", "out"]).run();
    ended.refused(1, &["2 pictures", &job, "the others are here"]);
    assert_eq!(ended.stdout, "out/000002.png\n");
    for (index, says) in [(0, "is missing"), (1, "is corrupt")] {
        let told = ended.stderr.lines().any(|line| {
            line.starts_with(&format!("missing: image {index}: ")) && line.contains(says)
        });
        assert!(told, "{ended:?}");
    }
    let ended = farm.command(["--json", "get", &job, "-o", "out"]).run();
    assert_eq!(ended.code, Some(1));
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(document["pictures"].as_array().map(Vec::len), Some(1));
    let missing = document["missing"].as_array().expect("a list");
    let reasons: Vec<_> =
        missing.iter().map(|one| (one["index"].as_u64(), one["reason"].as_str())).collect();
    assert_eq!(reasons, [(Some(0), Some("ARTIFACT_MISSING")), (Some(1), Some("ARTIFACT_CORRUPT"))]);

    let ended = farm.command(["--json", "verify", &job]).run();
    assert_eq!(ended.code, Some(3));
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(
        (document["whole"].as_bool(), document["faults"].as_array().map(Vec::len)),
        (Some(false), Some(2))
    );

    // Once it is put back, it is fetched. An existing damaged file or a pipe prevents only its own
    // picture.
    fs::write(&stored[1], &whole).expect("mended");
    nix::unistd::mkfifo(&folder.path().join("out/000000.png"), nix::sys::stat::Mode::S_IRWXU)
        .expect("made");
    fs::write(folder.path().join("out/000002.png"), "damaged").expect("written");
    let ended = farm.command(["get", &job, "-o", "out"]).run();
    ended.refused(1, &["2 pictures"]);
    assert_eq!(ended.stdout, "out/000001.png\n");
    assert!(fs::read(folder.path().join("out/000001.png")).expect("there") == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_render_whose_picture_is_lost_lists_it() {
    let address = hostile::serve().await;
    let folder = tempfile::tempdir().expect("folder");
    let render = move |json: &'static [&'static str]| {
        let run = Darkroom::new(folder.path())
            .args(["--farm", &address])
            .args(json)
            .args(["render", "a red circle"]);
        run.run()
    };
    let (document, words) =
        tokio::task::spawn_blocking(move || (render(&["--json"]), render(&[]))).await.expect("ran");
    assert_eq!((document.code, words.code), (Some(1), Some(1)), "{document:?} {words:?}");
    let document: Value = serde_json::from_str(&document.stdout).expect("JSON");
    assert_eq!(
        (&document["pictures"], &document["missing"][0]["index"]),
        (&serde_json::json!([]), &0.into())
    );
    assert!(
        words.stderr.starts_with("missing: image 0: ")
            || words.stderr.contains("\nmissing: image 0: "),
        "{words:?}"
    );
}

#[test]
fn names_that_are_not_utf8_are_no_trouble_in_json_or_words() {
    let folder = tempfile::tempdir().expect("folder");
    let name = OsStr::from_bytes(b"out-\xff\xfe");
    let render = |json: &[&str]| {
        Darkroom::render(folder.path()).args(json).args(["--seed", "1", "a"]).arg_out(name).run()
    };
    let document = render(&["--json"]).json();
    let picture = &document["pictures"][0];
    assert_eq!(picture["path"], "out-\u{fffd}\u{fffd}/000000.png");
    assert_eq!(picture["path_bytes"], "6f75742dfffe2f3030303030302e706e67");
    let ended = render(&[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out-\\xff\\xfe/000000.png\n"));

    let file = folder.path().join(name).join("000000.png");
    let again = Darkroom::rerender(folder.path()).args(["--json"]).args([&file]).run().json();
    assert_eq!(again["identical"], true);
    assert!(again["file_bytes"].as_str().is_some_and(|bytes| bytes.contains("fffe")), "{again}");

    // A farm's state cannot be there; the start says so.
    let state = Darkroom::new(folder.path())
        .args(["--state"])
        .args([OsStr::from_bytes(b"state-\xff")])
        .args(["render", "--renderer", "fake", "a", "--cascade"])
        .args([demo_cascade()]);
    state.run().refused(3, &["state-\\xff", "not UTF-8"]);

    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = done(&farm);
    let got =
        farm.command(["--json", "get", &job]).arg_out(OsStr::from_bytes(b"got\x80")).run().json();
    assert_eq!(got["pictures"][2]["path_bytes"], "676f74802f3030303030322e706e67");
}

trait ArgOut {
    fn arg_out(self, path: &OsStr) -> Self;
}

impl ArgOut for Darkroom {
    fn arg_out(self, path: &OsStr) -> Self {
        self.args(["-o".as_ref(), path])
    }
}

#[test]
fn a_file_with_the_highest_number_is_no_trouble() {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("out")).expect("made");
    for name in ["18446744073709551615.png", "18446744073709551614.png", "000000.png"] {
        fs::write(folder.path().join("out").join(name), "mine").expect("written");
    }
    let ended = Darkroom::render(folder.path()).args(["-o", "out", "a"]).run();
    assert_eq!(ended.paths(folder.path()), [folder.path().join("out/000001.png")]);
}

/// A rendered picture, and the output of `rerender` for a file.
struct Rendered {
    folder: tempfile::TempDir,
}

impl Rendered {
    fn new(prompt: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let ended = Darkroom::render(folder.path()).args(["-o", "out", prompt]).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rerender(&self, file: &str) -> darkroom_tests::command::Ended {
        Darkroom::rerender(self.folder.path()).args(["--json", file]).run()
    }
}

#[test]
fn a_picture_that_imagemagick_saved_again_is_rendered_again() {
    let rendered = Rendered::new("ein Kreis über 青い四角");
    // ImageMagick 6 drops iTXt, so it gets the text in the form that it would write: tEXt in UTF-8.
    let whole = picture::decode(&fs::read(rendered.path("out/000000.png")).expect("read"))
        .expect("a picture");
    let plain = picture::encode_rgb(whole.width, whole.height, &whole.rgb, &[]).expect("encoded");
    let mut with_text = plain[..33].to_vec();
    for (keyword, text) in &whole.text {
        with_text.extend(chunk([b"tEXt", keyword.as_bytes(), &[0], text.as_bytes()].concat()));
    }
    with_text.extend(&plain[33..]);
    fs::write(rendered.path("text.png"), with_text).expect("written");
    for (name, options) in [
        ("plain.png", &[][..]),
        ("deep.png", &["-depth", "16"]),
        ("alpha.png", &["-alpha", "on"]),
        ("interlaced.png", &["-interlace", "PNG"]),
        ("zipped.png", &["-define", "png:compression-level=9"]),
    ] {
        let mut convert = Command::new("convert");
        convert.arg(rendered.path("text.png")).args(options).arg(rendered.path(name));
        assert!(convert.status().expect("ImageMagick").success(), "{name}");
        let document = rendered.rerender(name).json();
        assert_eq!(
            (&document["identical"], &document["prompt"]),
            (&true.into(), &"ein Kreis über 青い四角".into()),
            "{name}"
        );
    }
}

#[test]
fn what_is_no_picture_or_too_big_is_refused_after_bounded_reading() {
    let rendered = Rendered::new("a red circle");
    fs::File::create(rendered.path("huge.png"))
        .and_then(|file| file.set_len(5 << 30))
        .expect("made");
    nix::unistd::mkfifo(&rendered.path("fifo.png"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    for (file, says) in [
        ("huge.png", "5368709120 bytes"),
        ("fifo.png", "a pipe"),
        ("/dev/zero", "a device"),
        ("out", "a folder"),
    ] {
        let ended = rendered.rerender(file);
        assert_eq!(ended.code, Some(2), "{file}: {ended:?}");
        assert!(
            ended.stderr.contains(says) && ended.stderr.contains("accepted"),
            "{file}: {ended:?}"
        );
    }
}

#[test]
fn text_that_inflates_to_a_gibibyte_takes_no_memory() {
    let rendered = Rendered::new("a red circle");
    let bytes = fs::read(rendered.path("out/000000.png")).expect("read");
    let text = picture::decode(&bytes).expect("a picture").text;
    // One decompression bomb beside the recipe, which is still read, and one in its place, which is
    // refused.
    for (keyword, code) in [("Comment", 0), ("darkroom.prompt", 2)] {
        let mut bomb = bytes[..33].to_vec();
        bomb.extend(ztxt(keyword));
        if code == 0 {
            bomb.extend(&bytes[33..]);
        } else {
            let others: Vec<_> =
                text.iter().filter(|(found, _)| found != keyword).cloned().collect();
            let plain = picture::decode(&bytes).expect("a picture");
            let without = picture::encode_rgb(plain.width, plain.height, &plain.rgb, &others)
                .expect("encoded");
            bomb.extend(&without[33..]);
        }
        assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
        fs::write(rendered.path("bomb.png"), bomb).expect("written");
        let ended = Darkroom::rerender(rendered.folder.path()).args(["bomb.png"]).run();
        assert_eq!(ended.code, Some(code), "{keyword}: {ended:?}");
    }
    // Covers all processes that this one started.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).expect("told").max_rss();
    assert!(peak < 1 << 20, "{peak} KiB");
}

/// A chunk whose text is one letter, repeated for a gibibyte.
fn ztxt(keyword: &str) -> Vec<u8> {
    let mut body = [b"zTXt", keyword.as_bytes(), &[0, 0]].concat();
    let mut deflated = flate2::write::ZlibEncoder::new(&mut body, flate2::Compression::best());
    let letters = vec![b'a'; 1 << 20];
    for _ in 0..1 << 10 {
        deflated.write_all(&letters).expect("deflated");
    }
    deflated.finish().expect("deflated");
    chunk(body)
}

/// A chunk of a PNG, from its name and data.
fn chunk(body: Vec<u8>) -> Vec<u8> {
    let mut check = flate2::Crc::new();
    check.update(&body);
    let length = u32::try_from(body.len() - 4).expect("short").to_be_bytes();
    [&length[..], &body, &check.sum().to_be_bytes()].concat()
}
