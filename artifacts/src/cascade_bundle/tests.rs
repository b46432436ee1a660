use super::*;

const TOML: &str = r#"
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
        guidance_scale = 3.0
    "#;
const FILES: [&str; 5] = [
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "base/unet/diffusion_pytorch_model.safetensors",
    "base/scheduler/scheduler_config.json",
];

fn cascade() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), TOML).unwrap();
    for file in FILES {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    folder
}

fn refused(folder: &tempfile::TempDir) -> UserError {
    CascadeBundle::load(folder.path()).expect_err("refused")
}

#[test]
fn every_model_file_is_hashed_by_its_path() {
    let folder = cascade();
    std::fs::write(folder.path().join("base/README.md"), "not a model").unwrap();
    std::fs::write(folder.path().join("base/.hidden.json"), "not a model").unwrap();
    let bundle = CascadeBundle::load(folder.path()).unwrap();
    let expected: BTreeMap<_, _> =
        FILES.iter().map(|file| ((*file).to_owned(), Digest::of(file.as_bytes()))).collect();
    assert_eq!(bundle.cascade().files, expected);
    assert_eq!(bundle.stage_folder(0), Some(folder.path().join("base")));
    assert_eq!(bundle.stage_folder(1), None);
}

#[test]
fn what_sizes_must_divide_by_is_read_from_the_network_and_changes_no_digest() {
    let folder = cascade();
    let before = CascadeBundle::load(folder.path()).unwrap();
    assert_eq!(before.cascade().spec.stages[0].size_multiple, None, "no configuration");
    for (class, multiple) in [("UNet2DConditionModel", 4), ("EfficientUNet2DModel", 8)] {
        let config = format!(r#"{{"_class_name": "{class}", "block_out_channels": [8, 16, 32]}}"#);
        std::fs::write(folder.path().join("base/unet/config.json"), config).unwrap();
        let bundle = CascadeBundle::load(folder.path()).unwrap();
        assert_eq!(bundle.cascade().spec.stages[0].size_multiple, Some(multiple));
        let mut without = bundle.cascade().clone();
        without.spec.stages[0].size_multiple = None;
        assert_eq!(without.digest(), bundle.cascade().digest());
    }
}

#[test]
fn how_long_a_schedule_is_is_read_from_its_configuration_and_changes_no_digest() {
    let folder = cascade();
    let file = folder.path().join("base/scheduler/scheduler_config.json");
    let spec = |text: &str| {
        std::fs::write(&file, text).unwrap();
        CascadeBundle::load(folder.path()).map(|bundle| bundle.cascade().clone())
    };
    for (text, length) in
        [(r#"{"num_train_timesteps": 40}"#, Some(40)), ("{}", Some(1000)), ("damaged", None)]
    {
        let mut cascade = spec(text).unwrap();
        assert_eq!(cascade.spec.stages[0].train_timesteps, length, "{text}");
        let digest = cascade.digest();
        cascade.spec.stages[0].train_timesteps = None;
        assert_eq!(cascade.digest(), digest);
    }
    let error = spec(r#"{"num_train_timesteps": 3}"#).expect_err("the default has 4 steps");
    assert!(error.message.contains("stages[0].steps is 4; accepted: 1 to 3"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = cascade();
    std::fs::remove_dir_all(folder.path().join("base")).unwrap();
    let error = refused(&folder);
    assert!(error.message.contains("base is missing") && error.code == Code::NotFound, "{error}");
    std::fs::create_dir(folder.path().join("base")).unwrap();
    assert!(refused(&folder).message.contains("base has no model files"));
    std::fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
    assert!(refused(&folder).message.contains("cascade.toml is missing"));
}

#[test]
fn wrong_sums_name_file_expected_and_found() {
    let folder = cascade();
    let sums = FILES.map(|file| format!("{}  {file}\n", Digest::of(file.as_bytes()))).concat();
    std::fs::write(folder.path().join(SUMS_FILE_NAME), &sums).unwrap();
    let digest = CascadeBundle::load(folder.path()).unwrap().cascade().digest();
    let recorded = |folder: &tempfile::TempDir| {
        CascadeBundle::recorded(folder.path()).unwrap().cascade().digest()
    };
    assert_eq!(recorded(&folder), digest, "what the list says");
    std::fs::remove_file(folder.path().join(SUMS_FILE_NAME)).unwrap();
    assert_eq!(recorded(&folder), digest, "what the files are, without a list");
    assert_eq!(
        CascadeBundle::load(folder.path()).unwrap().cascade().digest(),
        digest,
        "the list of hashes is not part of the digest"
    );
    std::fs::write(folder.path().join(SUMS_FILE_NAME), &sums).unwrap();

    std::fs::write(folder.path().join(FILES[3]), "truncat").unwrap();
    let error = refused(&folder);
    for part in [
        FILES[3],
        &Digest::of(b"truncat").to_string(),
        &Digest::of(FILES[3].as_bytes()).to_string(),
    ] {
        assert!(error.message.contains(part), "{error}");
    }
    std::fs::remove_file(folder.path().join(FILES[3])).unwrap();
    let error = refused(&folder);
    assert!(error.message.contains(FILES[3]) && error.message.contains("missing"), "{error}");
    std::fs::write(folder.path().join(SUMS_FILE_NAME), "abc  x\n").unwrap();
    assert!(refused(&folder).message.contains("line 1"));
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    for name in ["../base", "/etc", "base/../../x", "", "."] {
        let folder = cascade();
        let toml = TOML.replace("folder = \"base\"", &format!("folder = {name:?}"));
        std::fs::write(folder.path().join(FILE_NAME), toml).unwrap();
        let error = refused(&folder);
        assert_eq!(error.field.as_deref(), Some("stages[0].folder"), "{error}");
    }
}

/// The same folder with a change, loaded within the test's own time.
fn with(change: impl FnOnce(&Path)) -> Result<CascadeBundle, UserError> {
    let folder = cascade();
    change(folder.path());
    CascadeBundle::load(folder.path())
}

#[test]
fn links_leave_the_folder_for_weights_only() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| outside.path().join(name);
    std::fs::write(at("weights"), [&2_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    std::fs::write(at("secret"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("folder/config.json"), "{}").unwrap();
    let linked = |to: PathBuf, name: &'static str| {
        with(move |folder| {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            symlink(to, link).unwrap();
        })
    };
    linked(at("weights"), "text_encoder/model.safetensors").expect("a link to weights");
    linked("config.json".into(), "text_encoder/other.json").expect("a link within");
    for (to, name) in [
        (at("secret"), "base/unet/config.json"),
        (at("secret"), "tokenizer/tokenizer.json"),
        (at("secret"), "tokenizer/merges.txt"),
        (at("secret"), "text_encoder/model.safetensors"),
        (at("weights"), "tokenizer/spiece.model"),
        (at("secret"), FILE_NAME),
        (at("secret"), SUMS_FILE_NAME),
    ] {
        let error = linked(to, name).err().unwrap_or_else(|| panic!("{name} was read"));
        assert!(
            error.message.contains("outside of the cascade's folder")
                && error.message.contains(name)
                && !error.message.contains("root:x:0"),
            "{error}"
        );
    }
    let error = linked(at("folder"), "base/more").expect_err("a folder elsewhere");
    assert!(error.message.contains("base/more is a link to a folder"), "{error}");
    let error = linked("..".into(), "base/loop").expect_err("a loop");
    assert!(error.message.contains("base/loop is a link to a folder"), "{error}");
    let error = with(|folder| {
        std::fs::rename(folder.join("tokenizer"), at("moved")).unwrap();
        symlink(at("moved"), folder.join("tokenizer")).unwrap();
    })
    .expect_err("a named folder elsewhere");
    assert!(error.message.contains("outside of the cascade's folder"), "{error}");
}

#[test]
fn files_without_end_are_refused_before_they_are_read() {
    let begun = std::time::Instant::now();
    for (name, what) in [
        ("tokenizer/more.txt", "a pipe"),
        ("text_encoder/model.safetensors", "a pipe"),
        (SUMS_FILE_NAME, "a pipe"),
        (FILE_NAME, "a pipe"),
        ("base/unet/config.json", "a folder"),
    ] {
        let error = with(|folder| {
            let path = folder.join(name);
            let _ = std::fs::remove_file(&path);
            if what == "a pipe" {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            } else {
                std::fs::create_dir(&path).unwrap();
            }
        });
        // A folder that is named like a file has no files, and is none.
        let Err(error) = error else {
            assert_eq!(what, "a folder");
            continue;
        };
        assert!(error.message.contains(&format!("{name} is {what}")), "{error}");
    }
    for name in ["tokenizer/more.txt", "base/unet/config.json", SUMS_FILE_NAME, FILE_NAME] {
        let error = with(|folder| {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(name))
                .unwrap();
            file.set_len(20 << 30).unwrap();
        })
        .expect_err("sparse");
        assert!(error.message.contains("21474836480 bytes long; accepted: "), "{error}");
        let error = with(|folder| {
            let _ = std::fs::remove_file(folder.join(name));
            std::os::unix::fs::symlink("/dev/zero", folder.join(name)).unwrap();
        })
        .expect_err("a device");
        assert!(error.message.contains(name), "{error}");
    }
    let error = with(|folder| {
        for number in 0..=10_000 {
            std::fs::write(folder.join(format!("base/{number}.json")), "").unwrap();
        }
    })
    .expect_err("many");
    assert!(error.message.contains("more than 10000 files"), "{error}");
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}
