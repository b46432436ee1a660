//! A cascade's folder: `cascade.toml` read, every file it stands for hashed, its paths known.
//!
//! If the folder holds a `SHA256SUMS` file (as `sha256sum` writes it), every file listed there must be there and
//! have that hash, so that a truncated download is named before a model is built from it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use darkroom_core::{
    cascade::{Cascade, CascadeSpec, FILE_NAME},
    digest::Digest,
    error::{Code, UserError},
};
use sha2::{Digest as _, Sha256};

use crate::stage_config;

/// Name of the optional list of hashes in a cascade's folder.
pub const SUMS_FILE_NAME: &str = "SHA256SUMS";

/// What counts as part of a model: configuration, weights, tokenizers. Other files may lie beside them.
const EXTENSIONS: [&str; 4] = ["json", "safetensors", "model", "txt"];

/// Deepest folder below the cascade's own that is looked into.
const MAX_DEPTH: usize = 8;

/// A cascade on disk.
#[derive(Clone, Debug)]
pub struct CascadeBundle {
    root: PathBuf,
    cascade: Cascade,
    /// Keeps a cache from deleting the folder while a clone of this bundle lives.
    _in_use: Option<Arc<File>>,
}

impl CascadeBundle {
    /// Reads `cascade.toml` and hashes the files it names, on as many threads as there are cores.
    ///
    /// # Errors
    /// One sentence naming the folder, key or file at fault.
    pub fn load(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        let mut paths = model_files(folder, &spec)?;
        let spec = complete(spec, folder)?;
        let expected = read_sums(folder)?;
        if let Some(absent) = expected.keys().find(|path| !folder.join(path).is_file()) {
            let name = folder.join(absent);
            return Err(not_found(format!(
                "{} is listed in {SUMS_FILE_NAME} but is missing",
                name.display()
            )));
        }
        paths.extend(expected.keys().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>());
        let mut files = hash_all(folder, &paths)?;
        for (path, wanted) in &expected {
            if files[path] != *wanted {
                return Err(UserError::new(
                    Code::FailedPrecondition,
                    "WRONG_HASH",
                    format!(
                        "{} is damaged: its SHA-256 is {}, expected {wanted} as {SUMS_FILE_NAME} says; fetch it again",
                        folder.join(path).display(),
                        files[path],
                    ),
                ));
            }
        }
        let folders: Vec<_> =
            named_folders(&spec).map(|(_, name)| format!("{}/", name.trim_end_matches('/'))).collect();
        files.retain(|path, _| {
            folders.iter().any(|folder| path.starts_with(folder)) && is_model_file(Path::new(path))
        });
        Ok(Self { root: folder.to_owned(), cascade: Cascade { spec, files }, _in_use: None })
    }

    /// The same, believing `SHA256SUMS` where it lists every model file, and hashing where it does not: quick for
    /// cascades of any size, good for showing what a cascade is and for nothing that renders.
    ///
    /// # Errors
    /// As [`Self::load`], but for files that are not what the list says.
    pub fn recorded(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        let paths = model_files(folder, &spec)?;
        let spec = complete(spec, folder)?;
        let recorded = read_sums(folder)?;
        let files: Option<BTreeMap<_, _>> =
            paths.into_iter().map(|path| recorded.get(&path).map(|digest| (path, *digest))).collect();
        match files {
            Some(files) => {
                Ok(Self { root: folder.to_owned(), cascade: Cascade { spec, files }, _in_use: None })
            }
            None => Self::load(folder),
        }
    }

    /// Reads `cascade.toml` alone: a bundle for fakes, whose digest covers no files.
    ///
    /// # Errors
    /// One sentence naming the file or key at fault.
    pub fn describe(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        Ok(Self::without_files(Cascade { spec, files: BTreeMap::new() }))
    }

    /// The bundles, if no two have one name: users submit to names.
    ///
    /// # Errors
    /// One sentence naming both.
    pub fn distinct(bundles: Vec<Self>) -> Result<Vec<Self>, UserError> {
        for (position, bundle) in bundles.iter().enumerate() {
            let name = &bundle.cascade.spec.name;
            if let Some(other) = bundles[..position].iter().find(|other| &other.cascade.spec.name == name) {
                return Err(UserError::invalid(
                    "cascade",
                    format!(
                        "{} and {} are both called {name:?}; accepted: cascades of distinct names",
                        other.root.display(),
                        bundle.root.display()
                    ),
                ));
            }
        }
        Ok(bundles)
    }

    /// A bundle for fakes: a cascade whose files are never read.
    #[must_use]
    pub fn without_files(cascade: Cascade) -> Self {
        Self { root: PathBuf::new(), cascade, _in_use: None }
    }

    /// A bundle in a cache's folder, whose files have been verified, and the lock that keeps them there.
    pub(crate) fn in_cache(root: PathBuf, cascade: Cascade, in_use: File) -> Self {
        Self { root, cascade, _in_use: Some(Arc::new(in_use)) }
    }

    /// Whether there are files at all; a fake's cascade has none.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.root.as_os_str().is_empty()
    }

    /// The cascade.
    #[must_use]
    pub fn cascade(&self) -> &Cascade {
        &self.cascade
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the text encoder.
    #[must_use]
    pub fn encoder_folder(&self) -> PathBuf {
        self.root.join(&self.cascade.spec.encoder.folder)
    }

    /// Folder of the tokenizer.
    #[must_use]
    pub fn tokenizer_folder(&self) -> PathBuf {
        self.root.join(&self.cascade.spec.encoder.tokenizer)
    }

    /// Folder of stage number `position`, if there is one.
    #[must_use]
    pub fn stage_folder(&self, position: usize) -> Option<PathBuf> {
        self.cascade.spec.stages.get(position).map(|stage| self.root.join(&stage.folder))
    }
}

/// Every folder that `cascade.toml` names, with the key that names it.
fn named_folders(spec: &CascadeSpec) -> impl Iterator<Item = (String, &str)> {
    let encoder = [
        ("encoder.folder".to_owned(), spec.encoder.folder.as_str()),
        ("encoder.tokenizer".to_owned(), spec.encoder.tokenizer.as_str()),
    ];
    let stages = spec.stages.iter().enumerate();
    encoder
        .into_iter()
        .chain(stages.map(|(position, stage)| (format!("stages[{position}].folder"), stage.folder.as_str())))
}

/// With what the stages' configurations say, and the defaults checked against that.
fn complete(mut spec: CascadeSpec, folder: &Path) -> Result<CascadeSpec, UserError> {
    for stage in &mut spec.stages {
        stage_config::complete(stage, &folder.join(&stage.folder));
    }
    match (0..spec.stages.len()).try_for_each(|position| spec.defaults(position).map(drop)) {
        Ok(()) => Ok(spec),
        Err(error) => Err(in_file(&folder.join(FILE_NAME), error)),
    }
}

/// The model files of all folders that `cascade.toml` names, by path below the cascade's own.
fn model_files(folder: &Path, spec: &CascadeSpec) -> Result<Vec<String>, UserError> {
    let mut paths = Vec::new();
    for (key, name) in named_folders(spec) {
        check_inside(&key, name)?;
        let before = paths.len();
        list(&folder.join(name), name.trim_end_matches('/'), &mut paths, 0)?;
        if paths.len() == before {
            return Err(not_found(format!("folder {} has no model files", folder.join(name).display())));
        }
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

pub(crate) fn check_inside(key: &str, name: &str) -> Result<(), UserError> {
    let path = Path::new(name);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if inside && path.components().next().is_some() {
        return Ok(());
    }
    Err(UserError::invalid(
        key,
        format!("{FILE_NAME}: {key} is {name:?}; accepted: a folder below the cascade's own, without '..'"),
    ))
}

pub(crate) fn is_model_file(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| EXTENSIONS.contains(&e))
}

fn list(folder: &Path, name: &str, paths: &mut Vec<String>, depth: usize) -> Result<(), UserError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let file = entry.file_name();
        let Some(file) = file.to_str().filter(|file| !file.starts_with('.')) else { continue };
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        if path.is_dir() && depth < MAX_DEPTH {
            list(&path, &name, paths, depth + 1)?;
        } else if is_model_file(&path) {
            paths.push(name);
        }
    }
    Ok(())
}

/// Reads lines of `hash  path`, as `sha256sum` writes them. No file, no expectations.
fn read_sums(folder: &Path) -> Result<BTreeMap<String, Digest>, UserError> {
    let path = folder.join(SUMS_FILE_NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let wrong = || {
                let message = format!(
                    "{} line {}: accepted: 64 hexadecimal digits, two spaces and a path below the folder",
                    path.display(),
                    number + 1
                );
                UserError::invalid(SUMS_FILE_NAME, message)
            };
            let (digest, name) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let name = name.trim_start().trim_start_matches('*').trim_start_matches("./");
            check_inside(SUMS_FILE_NAME, name).map_err(|_| wrong())?;
            Ok((name.to_owned(), digest.parse().map_err(|_| wrong())?))
        })
        .collect()
}

pub(crate) fn hash_all(folder: &Path, paths: &[String]) -> Result<BTreeMap<String, Digest>, UserError> {
    let next = AtomicUsize::new(0);
    let hashed = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = folder.join(path);
            let digest = hash_file(&file).map_err(|error| unreadable(&file, &error))?;
            hashed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), digest);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| {
                Err(UserError::new(Code::Internal, "PANIC", "hashing a cascade's files panicked"))
            })
        })
    })?;
    Ok(hashed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            read => hasher.update(&chunk[..read]),
        }
    }
}

fn not_found(message: String) -> UserError {
    UserError::new(Code::NotFound, "CASCADE_INCOMPLETE", message)
}

fn read_spec(folder: &Path) -> Result<CascadeSpec, UserError> {
    let toml = folder.join(FILE_NAME);
    let text = std::fs::read_to_string(&toml).map_err(|error| unreadable(&toml, &error))?;
    CascadeSpec::parse(&text).map_err(|error| in_file(&toml, error))
}

fn in_file(toml: &Path, error: UserError) -> UserError {
    UserError { message: format!("{}: {}", toml.display(), error.message), ..error }
}

fn unreadable(path: &Path, error: &io::Error) -> UserError {
    match error.kind() {
        io::ErrorKind::NotFound => not_found(format!("{} is missing; a cascade needs it", path.display())),
        _ => UserError::new(
            Code::FailedPrecondition,
            "UNREADABLE",
            format!("{} cannot be read: {error}", path.display()),
        ),
    }
}

#[cfg(test)]
mod tests {
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
        let recorded =
            |folder: &tempfile::TempDir| CascadeBundle::recorded(folder.path()).unwrap().cascade().digest();
        assert_eq!(recorded(&folder), digest, "what the list says");
        std::fs::remove_file(folder.path().join(SUMS_FILE_NAME)).unwrap();
        assert_eq!(recorded(&folder), digest, "what the files are, without a list");
        assert_eq!(
            CascadeBundle::load(folder.path()).unwrap().cascade().digest(),
            digest,
            "sums are no content"
        );
        std::fs::write(folder.path().join(SUMS_FILE_NAME), &sums).unwrap();

        std::fs::write(folder.path().join(FILES[3]), "truncat").unwrap();
        let error = refused(&folder);
        for part in
            [FILES[3], &Digest::of(b"truncat").to_string(), &Digest::of(FILES[3].as_bytes()).to_string()]
        {
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
}
