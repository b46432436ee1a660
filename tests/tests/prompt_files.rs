//! `darkroom submit --batch` with files as people have them: read as they are meant, or refused with nothing queued.

use std::{fs, io::Write as _, path::Path};

use darkroom_tests::{
    command::Darkroom,
    farm::{Farm, Renderer},
};

/// Submits and gives the texts of the job's images, in order.
fn texts(farm: &Farm, arguments: &[&str]) -> Vec<String> {
    let submit = ["submit", "--size", "64", "--batch"];
    let ended = farm.command(submit.iter().chain(arguments).copied()).run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    prompts(farm, ended.stdout.trim())
}

fn prompts(farm: &Farm, job: &str) -> Vec<String> {
    let images = farm.images(job);
    images.iter().map(|image| image["prompt"].as_str().expect("a prompt").to_owned()).collect()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).expect("written");
}

#[test]
fn files_of_every_kind_make_the_same_job() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let expected = ["a red circle, big", "a \"blue\" square"];
    let table = "Prompts,Category\r\n\"a red circle, big\",Colors\r\n\"a \"\"blue\"\" square\",Colors\r\n";
    let json = "{\"prompt\": \"a red circle, big\"}\n{\"prompt\": \"a \\\"blue\\\" square\"}\n";
    write(folder, "t.csv", table);
    write(folder, "UPPER.JSONL", json);
    write(
        folder,
        "a.json",
        "[\"a red circle, big\",\n {\"prompt\": \"a \\\"blue\\\" square\", \"images\": 0}]",
    );
    write(
        folder,
        "coco.json",
        "{\"images\": [], \"annotations\": [{\"image_id\": 1, \"id\": 7, \"caption\": \"a red circle, big\"}, {\"image_id\": 1, \"id\": 8, \"caption\": \"a \\\"blue\\\" square\"}]}",
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(table.as_bytes()).expect("written");
    write(folder, "t.CSV.GZ", gzip.finish().expect("finished"));
    write(folder, "t.zst", zstd::encode_all(json.as_bytes(), 1).expect("compressed"));
    let wide: Vec<u8> =
        format!("\u{feff}{}", expected.join("\r")).encode_utf16().flat_map(u16::to_le_bytes).collect();
    write(folder, "wide.txt", wide);
    for arguments in [
        &["t.csv"][..],
        &["UPPER.JSONL"],
        &["a.json"],
        &["coco.json"],
        &["t.CSV.GZ"],
        &["t.zst"],
        &["wide.txt"],
        &["t.csv", "--column", "prompts"],
        &["coco.json", "--sample", "2", "--per-image", "2"],
    ] {
        assert_eq!(texts(&farm, arguments), expected, "{arguments:?}");
    }
    for (input, arguments) in
        [(json, &["-"][..]), (table, &["-", "--format", "csv"]), (json, &["/dev/stdin"])]
    {
        let submit = ["submit", "--size", "64", "--batch"];
        let ended = farm.command(submit.iter().chain(arguments).copied()).input(input.as_bytes()).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(prompts(&farm, ended.stdout.trim()), expected, "{arguments:?}");
    }
}

#[test]
fn what_could_be_meant_otherwise_is_refused_and_nothing_is_queued() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let table = "Prompts,Category\na red circle,Colors\n";
    let gen_eval =
        "{\"tag\": \"t\", \"include\": [{\"class\": \"bench\", \"count\": 1}], \"prompt\": \"a bench\"}\n";
    for (name, bytes, arguments, words) in [
        ("t.txt", table.as_bytes(), &[][..], &["t.txt, line 1", "table's header", "--format csv"][..]),
        ("h.csv", b"a red circle,Colors\n", &[], &["h.csv, line 1", "--column"]),
        ("g.jsonl", gen_eval.as_bytes(), &[], &["g.jsonl, line 1", "\"tag\"", "--labels"]),
        ("n.jsonl", b"{\"prompt\": \"a\\u0000\"}\n", &[], &["n.jsonl, line 1", "U+0000"]),
        ("l.txt", b"good\ncaf\xe9\n", &[], &["l.txt, line 2", "0xE9", "iconv"]),
        ("p.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &[], &["p.png", "a PNG picture"]),
        ("b.txt", "\u{200b}\n\u{feff}\n\u{a0}\n".as_bytes(), &[], &["b.txt", "no prompts"]),
        (
            "t.csv",
            table.as_bytes(),
            &["--column", "what"],
            &["column is \"what\"", "\"Prompts\", \"Category\""],
        ),
        ("t.csv", table.as_bytes(), &["--format", "yaml"], &["format is \"yaml\"", "text, jsonl"]),
        ("t.csv", table.as_bytes(), &["--sample", "5"], &["sample", "COCO captions"]),
        ("t.csv", table.as_bytes(), &["--sample-seed", "5"], &["sample-seed", "--sample N"]),
    ] {
        write(folder, name, bytes);
        let submit = ["submit", "--size", "64", "--batch", name];
        farm.command(submit.iter().chain(arguments).copied()).run().refused(2, words);
    }
    let submit = ["submit", "--size", "64", "--batch", "-"];
    farm.command(submit)
        .input(table.as_bytes())
        .run()
        .refused(2, &["standard input, line 1", "--format csv"]);
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was queued");
    let kept = texts(&farm, &["g.jsonl", "--labels"]);
    assert_eq!(kept, ["a bench"]);
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    fs::create_dir(folder.join("in")).expect("made");
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::File::create(folder.join("big.txt")).and_then(|file| file.set_len(5 << 30)).expect("sparse");
    for (name, says) in
        [("in", "a folder"), ("pipe", "a pipe"), ("/dev/zero", "a device"), ("big.txt", "5120 MiB")]
    {
        farm.command(["submit", "--batch", name]).run().refused(2, &[name, says, "accepted: "]);
    }
    let zeros = Darkroom::under("exec \"$@\" < /dev/zero", folder);
    let ended = zeros.args(["--farm", &farm.address, "submit", "--batch", "-"]).run();
    ended.refused(2, &["standard input, line 1", "NUL"]);
    let inside = Darkroom::under("exec \"$@\" < .", folder);
    let ended = inside.args(["--farm", &farm.address, "submit", "--batch", "-"]).run();
    ended.refused(2, &["standard input is a folder"]);
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was queued");
}

#[test]
fn remarks_on_a_file_name_its_lines() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    write(folder, "c.txt", "# my prompts\n\na red circle\n--prompt \"x\" --steps 20\n");
    let submit = |more: &[&str]| {
        farm.command(["submit", "--size", "64", "--batch", "c.txt"].iter().chain(more).copied()).run()
    };
    let ended = submit(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("note: c.txt: line 1 begins with #"), "{ended:?}");
    assert!(ended.stderr.contains("note: c.txt: line 4 has another tool's options"), "{ended:?}");
    assert_eq!(prompts(&farm, ended.stdout.trim()).len(), 3);
    let ended = submit(&["--comments"]);
    assert!(!ended.stderr.contains("begins with #"), "{ended:?}");
    assert_eq!(prompts(&farm, ended.stdout.trim()).len(), 2);
    let ended = farm.command(["--json", "submit", "--size", "64", "--batch", "c.txt"]).run();
    assert_eq!(ended.json()["batch_notes"].as_array().map(Vec::len), Some(2), "{ended:?}");
}
