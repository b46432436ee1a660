//! Which files a cascade's folder may have: regular files of a bounded size, in the folder itself.
//!
//! A folder comes from anywhere, and what is in it is published for others to fetch. So a link may
//! leave it only for weights, whose bytes must begin as weights do; a pipe, a device or a file
//! without end is never read.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use darkroom_core::{
    error::{Code, UserError},
    shown::shown_path,
};
use nix::fcntl::OFlag;

/// Extension of weights.
const WEIGHTS: &str = "safetensors";
/// Most bytes of a file of weights. Published ones are split at 10 GB, or have up to 45.
const MOST_WEIGHTS: u64 = 256 << 30;
/// Most bytes of another file. The largest published tokenizer has 35 MB.
const MOST_TEXT: u64 = 256 << 20;
/// Most bytes of `cascade.toml`, and of a list of hashes.
const MOST_LIST: u64 = 1 << 20;
/// Longest header of a file of weights.
const MOST_HEADER: u64 = 100_000_000;

/// How many levels below a named folder are searched, and how many files may be there.
const MAX_DEPTH: usize = 8;
const MAX_FILES: usize = 10_000;

/// A cascade's folder, as links in it are followed.
pub(crate) struct ModelFolder {
    folder: PathBuf,
    /// Without links.
    real: PathBuf,
}

impl ModelFolder {
    /// A folder that exists.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: folder.to_owned(), real: fs::canonicalize(folder)? })
    }

    /// Adds the files below a folder in it that `wanted` names, by path below the cascade's folder.
    ///
    /// # Errors
    /// One sentence: a folder leaves the cascade's, or is a link to another; or there are too many
    /// files.
    pub(crate) fn list(
        &self,
        name: &str,
        wanted: impl Fn(&Path) -> bool,
        paths: &mut Vec<String>,
    ) -> Result<(), UserError> {
        let first = self.folder.join(name);
        let real = fs::canonicalize(&first).map_err(|error| unreadable(&first, &error))?;
        if !real.starts_with(&self.real) {
            return Err(leaves(&first, &real));
        }
        let mut left = vec![(first, name.to_owned(), 0)];
        while let Some((folder, name, depth)) = left.pop() {
            let failed = |error| unreadable(&folder, &error);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let file = entry.file_name();
                let Some(file) = file.to_str().filter(|file| !file.starts_with('.')) else {
                    continue;
                };
                let (path, name) = (entry.path(), format!("{name}/{file}"));
                let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
                if kind.is_symlink() && path.is_dir() {
                    return Err(refused(
                        &path,
                        "a link to a folder; accepted: folders, files, and links to files",
                    ));
                }
                if kind.is_dir() && depth < MAX_DEPTH {
                    left.push((path, name, depth + 1));
                } else if wanted(&path) {
                    paths.push(name);
                }
                if paths.len() > MAX_FILES || left.len() > MAX_FILES {
                    return Err(refused(
                        &self.folder,
                        &format!(
                            "a folder of more than {MAX_FILES} files or folders, which no cascade has"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Opens a file by its path below the folder.
    ///
    /// # Errors
    /// One sentence: what the file is instead, or where its link leads.
    pub(crate) fn open(&self, name: &str) -> Result<File, UserError> {
        let path = self.folder.join(name);
        let is_weights = Path::new(name).extension().is_some_and(|end| end == WEIGHTS);
        let most = if is_weights { MOST_WEIGHTS } else { MOST_TEXT };
        let (file, real) = open(&path, most)?;
        let is_inside = real.starts_with(&self.real);
        if !(is_inside || is_weights && begins_as_weights(&file, &path)?) {
            return Err(leaves(&path, &real));
        }
        Ok(file)
    }

    /// The text of a small file in the folder: `cascade.toml`, or a list of hashes.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub(crate) fn text(&self, name: &str) -> Result<String, UserError> {
        let path = self.folder.join(name);
        let (file, real) = open(&path, MOST_LIST)?;
        if !real.starts_with(&self.real) {
            return Err(leaves(&path, &real));
        }
        let mut text = String::new();
        file.take(MOST_LIST)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(&path, &error))?;
        Ok(text)
    }
}

/// Opens a regular file of at most `most` bytes, and waits for nothing. Also returns where the
/// opened file is, without links.
fn open(path: &Path, most: u64) -> Result<(File, PathBuf), UserError> {
    let failed = |error| unreadable(path, &error);
    // Opening a device can have side effects, so the path is checked first.
    check(path, &fs::metadata(path).map_err(failed)?, most)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    // The path may have changed since.
    check(path, &file.metadata().map_err(failed)?, most)?;
    let real = place_of(&file, path).map_err(failed)?;
    Ok((file, real))
}

/// Where an opened file is. Asked of the file and not of its path, because a link in the path may
/// lead elsewhere by now.
fn place_of(file: &File, path: &Path) -> io::Result<PathBuf> {
    if let Ok(real) = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        return Ok(real);
    }
    // Without /proc: the path must still lead to the opened file, by no link.
    let real = fs::canonicalize(path)?;
    let (found, opened) = (fs::symlink_metadata(&real)?, file.metadata()?);
    if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) {
        return Ok(real);
    }
    Err(io::Error::other("it was replaced while it was opened"))
}

fn check(path: &Path, found: &Metadata, most: u64) -> Result<(), UserError> {
    let kind = found.file_type();
    let what = if kind.is_file() {
        if found.len() <= most {
            return Ok(());
        }
        let length = found.len();
        return Err(refused(path, &format!("{length} bytes long; accepted: at most {most}")));
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(refused(path, &format!("{what}; accepted: a file")))
}

/// Whether a file begins with the length of a header, and a header.
fn begins_as_weights(file: &File, path: &Path) -> Result<bool, UserError> {
    use std::os::unix::fs::FileExt as _;
    let mut head = [0; 9];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(unreadable(path, &error)),
        Ok(()) => {
            let [length @ .., first] = head;
            Ok(u64::from_le_bytes(length) <= MOST_HEADER && first == b'{')
        }
    }
}

fn refused(path: &Path, what: &str) -> UserError {
    let message = format!("{} is {what}", shown_path(path));
    UserError::new(Code::FailedPrecondition, "UNUSABLE_FILE", message)
}

fn leaves(path: &Path, real: &Path) -> UserError {
    refused(
        path,
        &format!(
            "a link to {}, outside of the cascade's folder; accepted there: weights \
             (.{WEIGHTS}); copy the file into the folder",
            shown_path(real)
        ),
    )
}

/// Why a cascade's file cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> UserError {
    match error.kind() {
        io::ErrorKind::NotFound => UserError::new(
            Code::NotFound,
            "CASCADE_INCOMPLETE",
            format!("{} is missing; a cascade needs it", shown_path(path)),
        ),
        _ => UserError::new(
            Code::FailedPrecondition,
            "UNREADABLE",
            format!("{} cannot be read: {error}", shown_path(path)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn a_link_that_is_turned_while_it_is_opened_leads_nowhere_else() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(inside.path().join("own.json"), "own").unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let folder = ModelFolder::new(inside.path()).unwrap();
        let stop = AtomicBool::new(false);
        let (mut own, mut refused) = (0_u32, 0_u32);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Each change is one rename, so the link always leads somewhere.
                let (link, next) = (inside.path().join("link.json"), inside.path().join("next"));
                let targets = [inside.path().join("own.json"), outside.path().join("secret")];
                while !stop.load(Ordering::Relaxed) {
                    for target in &targets {
                        symlink(target, &next).unwrap();
                        fs::rename(&next, &link).unwrap();
                    }
                }
            });
            while own < 2000 || refused < 2000 {
                let Ok(mut file) = folder.open("link.json") else {
                    refused += 1;
                    continue;
                };
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                if text != "own" {
                    stop.store(true, Ordering::Relaxed);
                }
                assert_eq!(text, "own", "a file elsewhere was opened");
                own += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
