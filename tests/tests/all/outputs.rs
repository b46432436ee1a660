//! Pictures in every output format, with the real command: named by their format, rendered again
//! from their own metadata, and used again if nothing changed.

use std::{fs, process::Command};

use darkroom_artifacts::picture;
use darkroom_core::output::Format;
use darkroom_tests::{
    command::Darkroom,
    farm::{Farm, Renderer},
};

#[test]
fn a_picture_of_every_format_is_rendered_again_from_its_own_metadata() {
    let folder = tempfile::tempdir().expect("folder");
    let mut lossless = Vec::new();
    for (asked, format, path) in [
        ("png", Format::Png, "out/000000.png"),
        ("webp", Format::WebP, "out/000000.webp"),
        ("jpeg:85", Format::Jpeg, "out/000000.jpg"),
    ] {
        let render = || {
            Darkroom::render(folder.path())
                .args(["-o", "out", "--seed", "3", "--output-format", asked, "ein Kreis über 青い"])
                .run()
        };
        let ended = render();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stdout.trim(), path, "{ended:?}");
        assert_eq!(render().stdout.trim(), path, "the same picture has the same name");
        let bytes = fs::read(folder.path().join(path)).expect("written");
        assert_eq!(Format::of_bytes(&bytes), Some(format), "{asked}");
        if format != Format::Jpeg {
            lossless.push(picture::decode(&bytes).expect("a picture").rgb);
        }
        let again = Darkroom::rerender(folder.path()).args(["--json", path]).run().json();
        assert_eq!(
            (&again["identical"], &again["identical_bytes"], &again["different_pixels"]),
            (&true.into(), &true.into(), &0_u64.into()),
            "{asked}: {again}"
        );
        assert_eq!(again["prompt"], "ein Kreis über 青い", "{asked}");
    }
    assert!(lossless[0] == lossless[1], "a WebP has the pixels of a PNG");

    let saved = Command::new("convert")
        .args(["out/000000.jpg", "-quality", "20", "saved.jpg"])
        .current_dir(folder.path())
        .status();
    assert!(saved.expect("ImageMagick").success());
    let ended = Darkroom::rerender(folder.path()).args(["saved.jpg"]).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("pixels differ of"), "{ended:?}");
    assert!(ended.stdout.contains("of 255 levels, on average by"), "{ended:?}");

    let wrong = |format: &str| {
        Darkroom::render(folder.path()).args(["--output-format", format, "a ring"]).run()
    };
    wrong("gif").refused(2, &["output-format", "accepted: png, png:LEVEL"]);
    wrong("webp:80").refused(2, &["output-format", "WebPs are stored lossless"]);
}

#[test]
fn a_preview_is_named_by_its_own_format() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let submit = ["--json", "submit", "-n", "2", "--size", "64", "--output-format", "jpeg"];
    let said = farm.command(submit).args(["a ring"]).run().json();
    let job = said["job"]["id"].as_str().expect("an id");
    assert_eq!(farm.command(["watch", job]).run().code, Some(0), "{}", farm.log());
    // Base is the last stage here: its output is the JPEG itself.
    let cases: [(&[&str], Format); 4] = [
        (&[], Format::Jpeg),
        (&["--stage", "base"], Format::Jpeg),
        (&["--max-edge", "16"], Format::Png),
        (&["--max-edge", "32", "--name", "{job}-{index}.jpg"], Format::Png),
    ];
    for (flags, format) in cases {
        let paths = farm.command(["get", job]).args(flags).run().paths(folder.path());
        assert_eq!(paths.len(), 2, "{flags:?}");
        for path in paths {
            assert!(path.extension().is_some_and(|of| of == format.extension()), "{path:?}");
            let bytes = fs::read(&path).expect("written");
            assert_eq!(Format::of_bytes(&bytes), Some(format), "{path:?}");
        }
    }
}
