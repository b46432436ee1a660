//! `get --name`: files are named by the names of a job's prompts, or none is written.

use std::{collections::BTreeMap, fs, path::Path};

use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_tests::farm::{Farm, Renderer};

fn prompt(text: &str, custom_id: &str, tag: &str) -> v1::Prompt {
    let labels = BTreeMap::from([("tag".to_owned(), tag.to_owned())]);
    v1::Prompt {
        text: text.to_owned(),
        custom_id: custom_id.to_owned(),
        labels,
        seed: Some(7),
        ..Default::default()
    }
}

/// Submits a job of 64 pixels over gRPC, waits for its end, and returns its id.
async fn rendered(farm: &Farm, prompts: Vec<v1::Prompt>) -> String {
    let mut client =
        FarmClient::connect(format!("http://{}", farm.address)).await.expect("connects");
    let settings = v1::Settings { size: 64, ..Default::default() };
    let spec = v1::JobSpec { settings: Some(settings), ..Default::default() };
    let request = v1::SubmitJobRequest { spec: Some(spec), prompts };
    let job = client.submit_job(request).await.expect("accepted").into_inner().job.expect("a job");
    let watch = v1::WatchJobRequest { id: job.id.clone(), ..Default::default() };
    let mut events = client.watch_job(watch).await.expect("watches").into_inner();
    while events.message().await.expect("an event").is_some() {}
    job.id
}

fn files(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("a name")
    };
    let mut names: Vec<_> = fs::read_dir(folder).expect("a folder").map(name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_named_by_a_template_and_fetched_once() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let prompts = vec![
        v1::Prompt { images: 2, line: 2, ..prompt("a red circle", "cat, the first", "animal") },
        v1::Prompt { line: 3, ..prompt("a blue star", "漢字", "sign") },
    ];
    let id = rendered(&farm, prompts).await;
    let get = |arguments: &[&str]| {
        farm.command(
            ["--json", "get", &id, "-o", "out"].into_iter().chain(arguments.iter().copied()),
        )
        .run()
    };
    let named = ["--name", "{label:tag} {custom_id}-{seed}_{index:03}"];
    let first = get(&named).json();
    assert_eq!(first["fetched"], 3);
    let expected = [
        "animal cat, the first-7_000.png",
        "animal cat, the first-8_001.png",
        "sign 漢字-7_002.png",
    ];
    assert_eq!(files(&folder.join("out")), expected);
    assert_eq!(first["pictures"][2]["custom_id"], "漢字");
    assert_eq!(first["pictures"][2]["path"], format!("out/{}", expected[2]));
    // The second time, only missing files are fetched.
    assert_eq!(get(&named).json()["fetched"], 0);
    fs::remove_file(folder.join("out").join(expected[1])).expect("removed");
    assert_eq!(get(&named).json()["fetched"], 1);
    // A different file with that name stays.
    fs::write(folder.join("out").join(expected[0]), "mine").expect("written");
    let again = ["get", id.as_str(), "-o", "out"].into_iter().chain(named);
    farm.command(again).run().refused(3, &[expected[0], "something else"]);
    assert_eq!(fs::read(folder.join("out").join(expected[0])).expect("there"), b"mine");

    // Listings have the names too.
    let listed = farm.images(&id);
    assert_eq!(
        (&listed[0]["custom_id"], &listed[0]["labels"]["tag"], &listed[0]["line"]),
        (&"cat, the first".into(), &"animal".into(), &2.into())
    );
    let table = farm.command(["ls", &id]).run().stdout;
    assert!(table.lines().nth(2).expect("a line").contains("漢字"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_name_every_picture_writes_nothing() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = temporary.path();
    let farm = Farm::start(folder, Renderer::Fake);
    let prompts = vec![
        prompt("a red circle", "cat", "one"),
        prompt("a red star", "CAT", "con"),
        v1::Prompt { labels: BTreeMap::new(), line: 9, ..prompt("a red ring", "../up", "") },
        prompt("a red cross", "", "one"),
    ];
    let id = rendered(&farm, prompts).await;
    let cases: [(&str, &[&str]); 11] = [
        ("{custom_id}", &["image 1", "\"CAT.png\"", "image 0"]),
        ("{index}-{custom_id}", &["image 2 (line 9)", "../up", "'/'"]),
        ("{seed}", &["image 1", "\"7.png\"", "image 0"]),
        ("{seed}-{line}", &["image 0", "no line"]),
        ("{index}{label:tag}", &["image 2 (line 9)", "no label \"tag\""]),
        ("{index}{label:tog}", &["image 0", "no label \"tog\""]),
        ("{label:tag}", &["image 1", "con is a device"]),
        ("same", &["image 1", "image 0"]),
        ("{cusotm_id}", &["{cusotm_id}", "{custom_id}", "accepted"]),
        ("../{index}", &["'/'", "accepted"]),
        ("-{index}", &["image 0", "begins with '-'"]),
    ];
    for (template, words) in cases {
        let name = format!("--name={template}");
        farm.command(["get", &id, "-o", "out", &name]).run().refused(2, words);
        assert!(!folder.join("out").exists(), "{template}: not even the folder");
    }
    fs::create_dir(folder.join("out")).expect("made");
    farm.command(["get", &id, "-o", "out", "--name", "{custom_id}"]).run().refused(2, &["image 1"]);
    assert_eq!(files(&folder.join("out")), Vec::<String>::new());
    // The same pictures, with a template that works for all of them.
    assert_eq!(
        farm.command(["get", &id, "-o", "out", "--name", "{index}-{seed}"]).run().code,
        Some(0)
    );
    assert_eq!(files(&folder.join("out")), ["0-7.png", "1-7.png", "2-7.png", "3-7.png"]);
}
