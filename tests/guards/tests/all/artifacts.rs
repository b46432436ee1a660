//! The guards of stored artifacts and manifests.

use std::{fs, os::unix::fs::MetadataExt as _};

use bytes::Bytes;
use darkroom_artifacts::{
    ArtifactStore, CascadeBundle, cascade_store,
    manifest::{self, Header, ImageLine, ImageOutcome, Writer},
};
use darkroom_core::{digest::Digest, guard::Guard};
use darkroom_guards::red;

const CASCADE: &str = r#"
    format = 1
    name = "tiny"
    [encoder]
    folder = "text_encoder"
    tokenizer = "tokenizer"
    max_length = 20
    [[stages]]
    name = "base"
    folder = "base"
    size = 16
    sampler = "ddim"
    steps = 4
    guidance_scale = 3.1
"#;

#[tokio::test]
async fn damaged_bytes_are_taken_for_an_earlier_runs_output() {
    red(Guard::HashChecked, "damaged bytes are used again", || async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ArtifactStore::local(folder.path()).expect("a store");
        let stored =
            store.put_content("tasks/x/", "png", Bytes::from("picture")).await.expect("stores");
        fs::write(folder.path().join(&stored.key), "pictuRe").expect("the disk lies");
        let found = store.find_content("tasks/x/", "png").await.expect("looks");
        assert!(found.is_none(), "damaged bytes are used again");
    })
    .await;
}

#[tokio::test]
async fn a_stored_object_is_written_again() {
    red(Guard::CreatedOnce, "written over", || async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ArtifactStore::local(folder.path()).expect("a store");
        let put = async || {
            store.put_content("tasks/x/", "png", Bytes::from("picture")).await.expect("stores")
        };
        let stored = put().await;
        // Held open, so that no other file gets its inode number.
        let first = fs::File::open(folder.path().join(&stored.key)).expect("it lies there");
        put().await;
        let now = fs::metadata(folder.path().join(&stored.key)).expect("it lies there");
        assert_eq!(
            now.ino(),
            first.metadata().expect("its number").ino(),
            "written over while others read it"
        );
    })
    .await;
}

#[tokio::test]
async fn a_damaged_file_of_a_cascade_is_taken_for_published() {
    red(Guard::PublishedWhole, "stays as it is", || async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ArtifactStore::local(&folder.path().join("store")).expect("a store");
        let model = folder.path().join("cascade");
        let files = [
            ("cascade.toml", CASCADE),
            ("text_encoder/config.json", "{}"),
            ("text_encoder/model.safetensors", "encoder"),
            ("tokenizer/tokenizer.json", "{}"),
            ("base/unet/config.json", "{}"),
            ("base/unet/diffusion_pytorch_model.safetensors", "weights"),
        ];
        for (file, text) in files {
            let path = model.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let bundle = CascadeBundle::load(&model).expect("a cascade");
        let digest = cascade_store::publish(&store, &bundle).await.expect("publishes").digest;
        let name = format!("store/cascades/{digest}/files/{}.safetensors", Digest::of(b"weights"));
        fs::write(folder.path().join(&name), "weightS").expect("the disk lies");
        cascade_store::publish(&store, &bundle).await.expect("publishes");
        let stored = fs::read(folder.path().join(&name)).expect("it lies there");
        assert_eq!(stored, b"weights", "what is damaged stays as it is");
    })
    .await;
}

#[tokio::test]
async fn a_manifest_that_was_changed_passes_for_whole() {
    red(Guard::ManifestHash, "a changed manifest passes", || async {
        let header = Header {
            format: 1,
            job: "0190".to_owned(),
            generation: 1,
            cascade: "demo".to_owned(),
            cascade_digest: Digest::of(b"c"),
            labels: std::collections::BTreeMap::new(),
            settings: serde_json::json!({"stages": []}),
        };
        let image = ImageLine {
            index: 0,
            prompt: "a red circle".to_owned(),
            negative: String::new(),
            style: None,
            image: None,
            mask: None,
            custom_id: None,
            labels: [].into(),
            line: None,
            settings: None,
            seed: 7,
            state: ImageOutcome::Done,
            key: Some("tasks/x/0.png".to_owned()),
            size: Some(100),
            sha256: Some(Digest::of(b"picture")),
            removed: None,
            device_class: "fake".to_owned(),
            dispatches: 3,
            worker: "w".to_owned(),
            seconds: [("base".to_owned(), 0.25)].into(),
            error: None,
        };
        let mut writer = Writer::new(Vec::new(), &header).expect("writes");
        writer.image(image).expect("writes");
        let whole = String::from_utf8(writer.finish().expect("writes").0).expect("text");
        manifest::verify(whole.as_bytes(), drop).expect("whole");
        let changed = whole.replace("a red circle", "a blue circle");
        assert!(
            manifest::verify(changed.as_bytes(), drop).is_err(),
            "a changed manifest passes for whole"
        );
    })
    .await;
}
