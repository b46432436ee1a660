//! `darkroom submit --batch` with typical files: each is read as intended, or refused with nothing
//! queued.

use std::{fs, io::Write as _, path::Path};

use darkroom_tests::{
    command::Darkroom,
    farm::{Farm, Renderer},
};

/// Submits, and returns the texts of the job's images, in order.
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
    let table =
        "Prompts,Category\r\n\"a red circle, big\",Colors\r\n\"a \"\"blue\"\" square\",Colors\r\n";
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
    let wide: Vec<u8> = format!("\u{feff}{}", expected.join("\r"))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
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
        let ended =
            farm.command(submit.iter().chain(arguments).copied()).input(input.as_bytes()).run();
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
    let gen_eval = "{\"tag\": \"t\", \"include\": [{\"class\": \"bench\", \"count\": 1}], \"prompt\": \"a bench\"}\n";
    for (name, bytes, arguments, words) in [
        (
            "t.txt",
            table.as_bytes(),
            &[][..],
            &["t.txt, line 1", "table's header", "--format csv"][..],
        ),
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
    fs::File::create(folder.join("big.txt"))
        .and_then(|file| file.set_len(5 << 30))
        .expect("sparse");
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
        farm.command(["submit", "--size", "64", "--batch", "c.txt"].iter().chain(more).copied())
            .run()
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

/// A typical product feed of a shop: thirty columns, one of which names pictures that are
/// elsewhere.
fn feed(rows: usize) -> String {
    let names: Vec<_> = (0..26).map(|number| format!("g:attribute_{number}")).collect();
    let mut feed = format!("id,title,text,image,{}\n", names.join(","));
    for row in 0..rows {
        let cells: Vec<_> = (0..26).map(|number| format!("{row}/{number}")).collect();
        feed +=
            &format!("{row},Mug {row},\"a mug, number {row}\",mug-{row}.jpg,{}\n", cells.join(","));
    }
    feed
}

#[test]
fn of_a_wide_table_the_columns_that_are_asked_for_become_labels() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    write(folder, "feed.csv", feed(3));
    let submit = |more: &[&str]| {
        farm.command(["submit", "--size", "64", "--batch", "feed.csv"].iter().chain(more).copied())
            .run()
    };
    // Its pictures are not here, and then it has too many columns. Each message has advice that
    // works.
    submit(&[]).refused(
        2,
        &[
            "feed.csv, line 2",
            "labels has 28 labels",
            "\"id\", \"title\", \"g:attribute_0\" and 25 more",
            "--label-columns",
        ],
    );
    submit(&["--no-labels"]).refused(
        2,
        &[
            "feed.csv, line 2",
            "mug-0.jpg",
            "`image` names a picture to start from",
            "--label-columns image",
        ],
    );
    for (flags, keys) in [
        (&["--label-columns", "image"][..], &["image"][..]),
        (&["--label-columns", "image,id"], &["id", "image"]),
        (
            &["--label-columns", "ID", "--label-columns=Image,g:attribute_9"],
            &["g:attribute_9", "id", "image"],
        ),
    ] {
        let ended = submit(flags);
        assert_eq!(ended.code, Some(0), "{flags:?}: {ended:?}");
        let images = farm.images(ended.stdout.trim());
        assert_eq!((images.len(), &images[2]["prompt"]), (3, &"a mug, number 2".into()));
        let labels = images[2]["labels"].as_object().expect("labels");
        assert_eq!(labels.keys().collect::<Vec<_>>(), keys, "{flags:?}");
        assert_eq!(images[2]["labels"]["image"], "mug-2.jpg");
    }
    for (flags, words) in [
        (&["--label-columns", "sku"][..], &["label-columns has \"sku\"", "\"id\", \"title\""][..]),
        (&["--label-columns", "id,,image"], &["a blank name"]),
        (&["--label-columns", "id", "--no-labels"], &["cannot be used with"]),
        (&["--labels", "--no-labels"], &["cannot be used with"]),
    ] {
        submit(flags).refused(2, words);
    }
    write(folder, "captions.csv", "image,caption\n000001.jpg,a red circle\n");
    let submit = |more: &[&str]| {
        farm.command(
            ["submit", "--size", "64", "--batch", "captions.csv"].iter().chain(more).copied(),
        )
        .run()
    };
    submit(&[]).refused(
        2,
        &[
            "captions.csv, line 2",
            "000001.jpg",
            "relative to the file of prompts",
            "--label-columns image",
        ],
    );
    let ended = submit(&["--label-columns", "image"]);
    assert_eq!(farm.images(ended.stdout.trim())[0]["labels"]["image"], "000001.jpg", "{ended:?}");
}

#[test]
fn a_first_line_is_taken_for_a_header_where_a_table_follows_and_else_for_a_prompt() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    write(folder, "list.txt", "cat, text\na red circle\nblue, green and yellow stars\n");
    assert_eq!(texts(&farm, &["list.txt"])[0], "cat, text");
    write(folder, "table.txt", "cat, text\ntabby,a red circle\nlion,a blue star\n");
    let submit = ["submit", "--size", "64", "--batch", "table.txt"];
    farm.command(submit).run().refused(2, &["table.txt, line 1", "table's header", "--format csv"]);
    assert_eq!(texts(&farm, &["table.txt", "--format", "csv"]), ["a red circle", "a blue star"]);
    assert_eq!(texts(&farm, &["table.txt", "--format", "text"])[0], "cat, text");
}

#[test]
fn a_dry_run_tells_the_notes_on_the_file_in_json_too() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    write(folder, "c.txt", "# my prompts\na red circle\n");
    let run = |json: &[&'static str]| {
        let submit = ["submit", "--dry-run", "--size", "64", "--batch", "c.txt"];
        farm.command(json.iter().copied().chain(submit)).run()
    };
    let document = run(&["--json"]).json();
    assert_eq!(document["images"], 2);
    let notes = document["batch_notes"].as_array().expect("notes");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].as_str().is_some_and(|note| note.starts_with("c.txt: line 1 begins with #")),
        "{notes:?}"
    );
    assert!(run(&[]).stderr.contains("note: c.txt: line 1 begins with #"));
    let submit = ["--json", "submit", "--dry-run", "--size", "64", "a red circle"];
    assert_eq!(farm.command(submit).run().json()["batch_notes"], serde_json::json!([]));
}

#[test]
fn pictures_of_what_is_piped_in_lie_where_the_command_runs() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    fs::create_dir(folder.join("in")).expect("made");
    let png = |value: u8| {
        darkroom_artifacts::picture::encode_rgb(64, 64, &[value; 3 * 64 * 64], &[])
            .expect("a picture")
    };
    write(folder, "here.png", png(9));
    write(folder, "in/there.png", png(80));
    let input = "{\"prompt\": \"a\", \"image\": \"here.png\"}\n{\"prompt\": \"b\", \"image\": \"in/there.png\"}\n";
    let digest = |value| darkroom_core::digest::Digest::of(&png(value)).to_string();
    for path in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let submit = ["submit", "--size", "64", "--batch", path];
        let ended = farm.command(submit).input(input.as_bytes()).run();
        assert_eq!(ended.code, Some(0), "{path}: {ended:?}");
        let images = farm.images(ended.stdout.trim());
        let named: Vec<_> =
            images.iter().map(|image| image["image"].as_str().expect("a picture")).collect();
        assert_eq!(named, [digest(9), digest(80)], "{path}");
        let absent =
            farm.command(submit).input(b"{\"prompt\": \"a\", \"image\": \"there.png\"}\n").run();
        absent.refused(
            2,
            &[
                "standard input, line 1",
                "there.png",
                "relative to the folder where the command runs",
            ],
        );
    }
    // A prompt file's pictures are beside the file, wherever the command runs.
    write(folder, "in/p.jsonl", "{\"prompt\": \"a\", \"image\": \"there.png\"}\n");
    assert_eq!(texts(&farm, &["in/p.jsonl"]), ["a"]);
}

#[test]
fn a_large_batch_is_kept_where_tmpdir_says_and_an_empty_one_is_unset() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    // More prompts than are kept in memory.
    let line = |number| format!("{number} {}\n", "red circle ".repeat(300));
    write(folder, "big.txt", (0..4_000).map(line).collect::<String>());
    let submit = |tmpdir: &str| {
        farm.command(["submit", "--dry-run", "--size", "64", "--batch", "big.txt"])
            .env("TMPDIR", tmpdir)
            .run()
    };
    let ended = submit("");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("4000 images"), "{ended:?}");
    let ended = submit("not/there");
    ended.refused(3, &["cannot keep prompts in not/there", "no such file"]);
    let left =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The peak memory of a running process, in MiB; `None` once it has ended.
fn peak_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib >> 10)
}

#[test]
fn a_million_lines_from_a_pipe_take_no_more_memory_than_a_thousand() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let peak = |lines: u32| {
        let script =
            format!("exec \"$@\" < <(seq -f 'a red circle beside %.0f blue stars' {lines})");
        let submit =
            ["--farm", &farm.address, "submit", "--dry-run", "--size", "64", "--batch", "-"];
        let mut running = Darkroom::under(&script, folder).args(submit).start();
        let mut peak = 0;
        while !running.ended() {
            peak = peak_mib(running.pid()).map_or(peak, |now| now.max(peak));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let ended = running.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.starts_with(&format!("{lines} images")), "{ended:?}");
        peak
    };
    let few = peak(1_000);
    let many = peak(1_000_000);
    assert!(few > 0 && many < few + 48, "{few} MiB for a thousand lines, {many} MiB for a million");
}
