//! A cascade's folder: `cascade.toml` is read, every file that it depends on is hashed, and its
//! paths are known.
//!
//! If the folder has a `SHA256SUMS` file (as `sha256sum` writes it), every file in that list must
//! exist and have that hash. So a truncated download is reported before a model is built from it.
//!
//! Which files are read at all, and which links are followed, is decided in `model_files`.

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
    shown::shown_path,
};
use sha2::{Digest as _, Sha256};

use crate::{
    model_files::{ModelFolder, unreadable},
    stage_config,
};

/// Name of the optional list of hashes in a cascade's folder.
pub const SUMS_FILE_NAME: &str = "SHA256SUMS";

/// Files that belong to a model: configuration, weights, tokenizers. Other files beside them are
/// ignored.
const EXTENSIONS: [&str; 4] = ["json", "safetensors", "model", "txt"];

/// Most files that [`SUMS_FILE_NAME`] may list.
const MAX_LISTED: usize = 10_000;

/// A cascade on disk.
#[derive(Clone, Debug)]
pub struct CascadeBundle {
    root: PathBuf,
    cascade: Cascade,
    /// Keeps a cache from deleting the folder while a clone of this bundle exists.
    _in_use: Option<Arc<File>>,
}

impl CascadeBundle {
    /// Reads `cascade.toml` and hashes the files it names, on as many threads as there are cores.
    ///
    /// # Errors
    /// One sentence that names the wrong folder, key or file.
    pub fn load(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        let mut paths = model_files(folder, &spec)?;
        let spec = complete(spec, folder)?;
        let expected = read_sums(folder)?;
        if expected.len() > MAX_LISTED {
            return Err(UserError::invalid(
                SUMS_FILE_NAME,
                format!(
                    "{SUMS_FILE_NAME} has {} lines; accepted: at most {MAX_LISTED}",
                    expected.len()
                ),
            ));
        }
        if let Some(absent) = expected.keys().find(|path| !folder.join(path).is_file()) {
            let name = folder.join(absent);
            return Err(not_found(format!(
                "{} is listed in {SUMS_FILE_NAME} but is missing",
                shown_path(&name)
            )));
        }
        paths.extend(
            expected.keys().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>(),
        );
        let mut files = hash_all(folder, &paths)?;
        for (path, wanted) in &expected {
            if files[path] != *wanted {
                return Err(UserError::new(
                    Code::FailedPrecondition,
                    "WRONG_HASH",
                    format!(
                        "{} is damaged: its SHA-256 is {}, but {SUMS_FILE_NAME} has {wanted}; \
                         fetch it again",
                        shown_path(&folder.join(path)),
                        files[path],
                    ),
                ));
            }
        }
        let folders: Vec<_> = named_folders(&spec)
            .map(|(_, name)| format!("{}/", name.trim_end_matches('/')))
            .collect();
        files.retain(|path, _| {
            folders.iter().any(|folder| path.starts_with(folder)) && is_model_file(Path::new(path))
        });
        Ok(Self { root: folder.to_owned(), cascade: Cascade { spec, files }, _in_use: None })
    }

    /// The same, but if `SHA256SUMS` lists every model file, its hashes are believed and nothing is
    /// hashed. This is fast for cascades of any size. Use it to show what a cascade is, never to
    /// render.
    ///
    /// # Errors
    /// As for [`Self::load`], except for files that differ from the list.
    pub fn recorded(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        let paths = model_files(folder, &spec)?;
        let spec = complete(spec, folder)?;
        let recorded = read_sums(folder)?;
        let files: Option<BTreeMap<_, _>> = paths
            .into_iter()
            .map(|path| recorded.get(&path).map(|digest| (path, *digest)))
            .collect();
        match files {
            Some(files) => Ok(Self {
                root: folder.to_owned(),
                cascade: Cascade { spec, files },
                _in_use: None,
            }),
            None => Self::load(folder),
        }
    }

    /// Reads only `cascade.toml`: a bundle for fakes, whose digest covers no files.
    ///
    /// # Errors
    /// One sentence that names the wrong file or key.
    pub fn describe(folder: &Path) -> Result<Self, UserError> {
        let spec = read_spec(folder)?;
        Ok(Self::without_files(Cascade { spec, files: BTreeMap::new() }))
    }

    /// The bundles, if their names are distinct, because users submit to names.
    ///
    /// # Errors
    /// One sentence that names both folders.
    pub fn distinct(bundles: Vec<Self>) -> Result<Vec<Self>, UserError> {
        for (position, bundle) in bundles.iter().enumerate() {
            let name = &bundle.cascade.spec.name;
            if let Some(other) =
                bundles[..position].iter().find(|other| &other.cascade.spec.name == name)
            {
                return Err(UserError::invalid(
                    "cascade",
                    format!(
                        "{} and {} are both called {name:?}; accepted: cascades of distinct names",
                        shown_path(&other.root),
                        shown_path(&bundle.root)
                    ),
                ));
            }
        }
        Ok(bundles)
    }

    /// A bundle for fakes, whose files are never read.
    #[must_use]
    pub fn without_files(cascade: Cascade) -> Self {
        Self { root: PathBuf::new(), cascade, _in_use: None }
    }

    /// A bundle in a cache's folder. Its files have been verified, and the lock keeps them there.
    pub(crate) fn in_cache(root: PathBuf, cascade: Cascade, in_use: File) -> Self {
        Self { root, cascade, _in_use: Some(Arc::new(in_use)) }
    }

    /// Whether it has files; a fake's cascade has none.
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
    encoder.into_iter().chain(
        stages
            .map(|(position, stage)| (format!("stages[{position}].folder"), stage.folder.as_str())),
    )
}

/// Adds what the stages' configurations say, and checks the defaults against that.
fn complete(mut spec: CascadeSpec, folder: &Path) -> Result<CascadeSpec, UserError> {
    for stage in &mut spec.stages {
        stage_config::complete(stage, &folder.join(&stage.folder));
    }
    match (0..spec.stages.len()).try_for_each(|position| spec.sampling(position).map(drop)) {
        Ok(()) => Ok(spec),
        Err(error) => Err(in_file(&folder.join(FILE_NAME), error)),
    }
}

/// The model files of all folders in `cascade.toml`, by path below the cascade's folder.
fn model_files(folder: &Path, spec: &CascadeSpec) -> Result<Vec<String>, UserError> {
    let mut paths = Vec::new();
    let inside = ModelFolder::new(folder).map_err(|error| unreadable(folder, &error))?;
    for (key, name) in named_folders(spec) {
        check_inside(&key, name)?;
        let before = paths.len();
        inside.list(name.trim_end_matches('/'), is_model_file, &mut paths)?;
        if paths.len() == before {
            return Err(not_found(format!(
                "folder {} has no model files",
                shown_path(&folder.join(name))
            )));
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
        format!(
            "{FILE_NAME}: {key} is {name:?}; accepted: a folder below the cascade's own, without '..'"
        ),
    ))
}

pub(crate) fn is_model_file(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|e| EXTENSIONS.contains(&e))
}

/// Reads lines of `hash  path`, as `sha256sum` writes them. Without the file nothing is expected.
fn read_sums(folder: &Path) -> Result<BTreeMap<String, Digest>, UserError> {
    let path = folder.join(SUMS_FILE_NAME);
    if path.symlink_metadata().is_err() {
        return Ok(BTreeMap::new());
    }
    let inside = ModelFolder::new(folder).map_err(|error| unreadable(folder, &error))?;
    let text = inside.text(SUMS_FILE_NAME)?;
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let wrong = || {
                let message = format!(
                    "{} line {}: accepted: 64 hexadecimal digits, two spaces and a path below the folder",
                    shown_path(&path),
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

pub(crate) fn hash_all(
    folder: &Path,
    paths: &[String],
) -> Result<BTreeMap<String, Digest>, UserError> {
    let next = AtomicUsize::new(0);
    let hashed = Mutex::new(BTreeMap::new());
    let inside = ModelFolder::new(folder).map_err(|error| unreadable(folder, &error))?;
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let digest = inside.open(path).and_then(|file| {
                hash(file).map_err(|error| unreadable(&folder.join(path), &error))
            })?;
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

/// The hash of as many bytes as the file had at first.
fn hash(file: File) -> io::Result<Digest> {
    let length = file.metadata()?.len();
    let mut file = file.take(length);
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
    let inside = ModelFolder::new(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unreadable(&toml, &error),
        _ => unreadable(folder, &error),
    })?;
    let text = inside.text(FILE_NAME)?;
    CascadeSpec::parse(&text).map_err(|error| in_file(&toml, error))
}

fn in_file(toml: &Path, error: UserError) -> UserError {
    UserError { message: format!("{}: {}", shown_path(toml), error.message), ..error }
}

#[cfg(test)]
mod tests;
