//! A folder of pictures. It is checked for write access before anything is queued. Files are
//! written completely or not at all, and no other file is replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use darkroom_artifacts::picture::MAX_FILE_BYTES;
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    output::Format,
};

use darkroom_runtime::{
    files::{self, Named},
    terminal::shown_path,
};
use tempfile::NamedTempFile;

use crate::failure::{self, Result};

/// Reason of an error: another file has the name.
const TAKEN: &str = "FILE_EXISTS";
/// Files with greater numbers are not ours: nobody renders that many pictures.
const MOST_PICTURES: u64 = 999_999_999_999;
/// How many names are tried when others keep taking them.
const TRIES: u64 = 1000;

/// What to do if a file with other bytes has a picture's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Continue numbering after the existing pictures.
    NumberOn,
    /// Fail, and name the file.
    Refuse,
    /// Replace it.
    Overwrite,
}

/// A folder for pictures.
pub(crate) struct Folder {
    path: PathBuf,
    taken: Taken,
    /// Added to every index.
    offset: u64,
    /// Of the pictures that have numbers for names.
    format: Format,
}

impl Folder {
    /// Creates the folder if necessary, and checks that it can be written.
    pub(crate) fn open(path: &Path, taken: Taken) -> Result<Self> {
        fs::create_dir_all(path)
            .map_err(|error| failure::file("out", "make the folder", path, &error))?;
        let folder = Self { path: path.to_owned(), taken, offset: 0, format: Format::Png };
        let probe = folder.draft(&[0; 4096]);
        probe.map_err(|error| failure::file("out", "write to the folder", path, &error))?;
        Ok(folder)
    }

    /// Says what the pictures are that get numbers for names.
    pub(crate) fn hold(&mut self, format: Format) {
        self.format = format;
    }

    /// Decides the names: by index, unless [`Taken::NumberOn`] and one of `count` names is taken by
    /// a picture that `same` does not know for the one to come.
    pub(crate) fn number(&mut self, count: u64, same: impl Fn(u64, &Path) -> bool) -> Result<()> {
        if self.taken != Taken::NumberOn {
            return Ok(());
        }
        let there = self.numbers()?;
        let strange =
            there.iter().any(|&number| number < count && !same(number, &self.numbered(number)));
        if strange {
            self.offset = behind(&there);
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let unreadable = |error| failure::file("out", "read the folder", &self.path, &error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.file_name();
            numbers.extend(file.to_str().and_then(|file| number_of(file, self.format)));
        }
        Ok(numbers)
    }

    /// The path of a picture with its own name.
    pub(crate) fn path_named(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether a picture with its own name is already there, byte for byte.
    pub(crate) fn has_named(&self, name: &str, sha256: &str) -> bool {
        files::read(&self.path_named(name), MAX_FILE_BYTES)
            .is_ok_and(|bytes| Digest::of(&bytes).to_string() == sha256)
    }

    /// Like [`write`](Self::write), with its own name. Numbering does not continue.
    pub(crate) fn write_named(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        self.put(self.path_named(name), None, bytes)
    }

    /// Writes image `index` under its name, through a temporary file beside it, and returns its
    /// path.
    pub(crate) fn write(&self, index: u64, bytes: &[u8]) -> Result<PathBuf> {
        let number = self.offset.saturating_add(index);
        self.put(self.numbered(number), Some(number), bytes)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.path.join(name(number, self.format))
    }

    /// `number` is the number in the name, if it has one; higher ones are tried if the name exists.
    fn put(&self, path: PathBuf, number: Option<u64>, bytes: &[u8]) -> Result<PathBuf> {
        let unwritable = |error: io::Error| failure::file("out", "write", &path, &error);
        let draft = self.draft(bytes).map_err(unwritable)?.into_temp_path();
        if self.taken == Taken::Overwrite {
            files::name_over(&draft, &path).map_err(unwritable)?;
            return Ok(path);
        }
        if files::name_new(&draft, &path).map_err(unwritable)? == Named::Done {
            return Ok(path);
        }
        // The name exists, with these bytes, which is fine, or with others.
        if files::read(&path, MAX_FILE_BYTES).is_ok_and(|there| there == bytes) {
            return Ok(path);
        }
        let (Taken::NumberOn, Some(number)) = (self.taken, number) else {
            return Err(taken(&path));
        };
        let first = behind(&self.numbers()?).max(number);
        for number in first..first.saturating_add(TRIES) {
            let path = self.numbered(number);
            if files::name_new(&draft, &path).map_err(unwritable)? == Named::Done {
                return Ok(path);
            }
        }
        Err(taken(&path))
    }

    /// A file with these bytes beside the pictures, under a temporary name. It is deleted unless it
    /// gets another name.
    fn draft(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut draft = tempfile::Builder::new()
            .prefix(".darkroom-")
            .suffix(".part")
            // The umask decides, as for every new file.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(&self.path)?;
        io::Write::write_all(&mut draft, bytes)?;
        files::sync(draft.as_file())?;
        Ok(draft)
    }
}

fn taken(path: &Path) -> UserError {
    let mut failure = UserError::new(
        Code::AlreadyExists,
        TAKEN,
        format!(
            "{} holds something else; choose another place with --out, or replace what is there \
             with --overwrite",
            shown_path(path)
        ),
    );
    failure.field = Some("out".to_owned());
    failure
}

/// Whether an error means that a picture's name belongs to another file.
pub(crate) fn is_taken(failure: &UserError) -> bool {
    failure.reason == TAKEN
}

fn name(number: u64, format: Format) -> String {
    format!("{number:06}.{}", format.extension())
}

/// The number in a picture's file name; `None` for any other name, or another spelling of the
/// number.
fn number_of(file: &str, format: Format) -> Option<u64> {
    let number = file.strip_suffix(format.extension())?.strip_suffix('.')?.parse().ok()?;
    (number <= MOST_PICTURES && name(number, format) == file).then_some(number)
}

/// The next number after all of these.
fn behind(numbers: &[u64]) -> u64 {
    numbers.iter().max().map_or(0, |highest| highest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn pictures_are_named_by_index_and_leave_nothing_else_behind() {
        let place = tempfile::tempdir().expect("folder");
        let out = place.path().join("a/b");
        let folder = Folder::open(&out, Taken::NumberOn).expect("made");
        assert_eq!(folder.write(3, b"three").expect("written"), out.join("000003.png"));
        assert_eq!(names(&out), ["000003.png"]);
    }

    #[test]
    fn another_render_numbers_on_and_the_same_one_does_not() {
        let place = tempfile::tempdir().expect("folder");
        let mut folder = Folder::open(place.path(), Taken::NumberOn).expect("made");
        folder.write(0, b"old").expect("written");

        folder.number(2, |_, _| true).expect("read");
        assert_eq!(folder.write(0, b"old").expect("the same"), place.path().join("000000.png"));

        folder.number(2, |_, _| false).expect("read");
        assert_eq!(folder.write(0, b"new").expect("written"), place.path().join("000001.png"));
        assert_eq!(fs::read(place.path().join("000000.png")).expect("kept"), b"old");
    }

    #[test]
    fn pictures_of_other_formats_are_named_and_counted_by_their_own() {
        let place = tempfile::tempdir().expect("folder");
        for (format, first, second) in [
            (Format::Png, "000000.png", "000001.png"),
            (Format::Jpeg, "000000.jpg", "000001.jpg"),
            (Format::WebP, "000000.webp", "000001.webp"),
        ] {
            let mut folder = Folder::open(place.path(), Taken::NumberOn).expect("made");
            folder.hold(format);
            folder.number(1, |_, _| false).expect("read");
            assert_eq!(folder.write(0, b"one").expect("written"), place.path().join(first));
            folder.number(1, |_, _| false).expect("read");
            assert_eq!(folder.write(0, b"two").expect("written"), place.path().join(second));
        }
        assert_eq!(names(place.path()).len(), 6);
    }

    #[test]
    fn a_picture_never_silently_replaces_another() {
        let place = tempfile::tempdir().expect("folder");
        for (taken, stays) in
            [(Taken::NumberOn, true), (Taken::Refuse, true), (Taken::Overwrite, false)]
        {
            let out = place.path().join(format!("{taken:?}"));
            let folder = Folder::open(&out, taken).expect("made");
            fs::write(out.join("000000.png"), b"mine").expect("written");
            let written = folder.write(0, b"other");
            assert_eq!(fs::read(out.join("000000.png")).expect("there") == b"mine", stays);
            match taken {
                Taken::NumberOn => assert_eq!(written.expect("elsewhere"), out.join("000001.png")),
                Taken::Refuse => assert_eq!(written.expect_err("refused").reason, TAKEN),
                Taken::Overwrite => assert_eq!(written.expect("replaced"), out.join("000000.png")),
            }
        }
    }

    #[test]
    fn files_with_names_like_numbers_are_no_trouble() {
        for strange in [
            "18446744073709551615.png",
            "18446744073709551614.png",
            "99999999999999999999999.png",
            "+00007.png",
            "0000007.png",
            "\u{0661}\u{0662}\u{0663}\u{0664}\u{0665}\u{0666}.png",
            "1000000000000.png",
        ] {
            let place = tempfile::tempdir().expect("folder");
            fs::write(place.path().join(strange), b"mine").expect("written");
            let mut folder = Folder::open(place.path(), Taken::NumberOn).expect("made");
            folder.number(2, |_, _| false).expect("read");
            for index in [0, 1] {
                let path = folder.write(index, b"new").expect("written");
                assert_eq!(path, place.path().join(name(index, Format::Png)), "{strange}");
            }
            fs::write(place.path().join("000002.png"), b"mine").expect("written");
            let path = folder.write(2, b"newer").expect("written");
            assert_eq!(path, place.path().join("000003.png"), "{strange}");
            assert_eq!(fs::read(place.path().join(strange)).expect("kept"), b"mine");
        }
        let place = tempfile::tempdir().expect("folder");
        for highest in ["999999999999.png", "1000000000000.png"] {
            fs::write(place.path().join(highest), b"mine").expect("written");
        }
        let mut folder = Folder::open(place.path(), Taken::NumberOn).expect("made");
        folder.number(u64::MAX, |_, _| false).expect("read");
        let path = folder.write(0, b"new").expect("written behind all");
        assert_eq!(path, place.path().join("1000000000001.png"));
    }

    #[test]
    fn a_name_that_something_other_than_a_file_has_is_not_waited_for() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::open(place.path(), Taken::NumberOn).expect("made");
        nix::unistd::mkfifo(&place.path().join("000000.png"), nix::sys::stat::Mode::S_IRWXU)
            .expect("made");
        assert!(!folder.has_named("000000.png", "hash"));
        assert_eq!(folder.write(0, b"new").expect("elsewhere"), place.path().join("000001.png"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused_at_once() {
        let place = tempfile::tempdir().expect("folder");
        fs::write(place.path().join("file"), b"").expect("written");
        let error = Folder::open(&place.path().join("file/out"), Taken::Refuse)
            .map(|_| ())
            .expect_err("no folder");
        assert_eq!((error.field.as_deref(), error.code), (Some("out"), Code::InvalidArgument));
    }
}
