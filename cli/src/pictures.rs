//! A folder of pictures: writable before anything is queued, written whole or not at all, nothing else's file replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};

use crate::failure::{self, Result};

/// What to do with a file that has a picture's name and other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Number on behind the pictures that are there.
    NumberOn,
    /// Fail, naming the file.
    Refuse,
    /// Replace it.
    Overwrite,
}

/// A folder that takes pictures.
pub(crate) struct Folder {
    path: PathBuf,
    taken: Taken,
    /// Added to every index.
    offset: u64,
}

impl Folder {
    /// Makes the folder if it is not there and proves that it can be written.
    pub(crate) fn open(path: &Path, taken: Taken) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| failure::file("out", "make the folder", path, &error))?;
        let probe = tempfile::NamedTempFile::new_in(path).and_then(|mut file| {
            io::Write::write_all(&mut file, &[0; 4096])?;
            file.as_file().sync_all()
        });
        probe.map_err(|error| failure::file("out", "write to the folder", path, &error))?;
        Ok(Self { path: path.to_owned(), taken, offset: 0 })
    }

    /// Decides the names: by index, unless [`Taken::NumberOn`] and one of `count` names is taken by a picture that
    /// `same` does not know for the one to come.
    pub(crate) fn number(&mut self, count: u64, same: impl Fn(u64, &Path) -> bool) -> Result<()> {
        if self.taken != Taken::NumberOn {
            return Ok(());
        }
        let there = self.numbers()?;
        let strange =
            there.iter().any(|&number| number < count && !same(number, &self.path.join(name(number))));
        if strange {
            self.offset = there.iter().max().map_or(0, |highest| highest + 1);
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let unreadable = |error| failure::file("out", "read the folder", &self.path, &error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.file_name();
            let stem = file.to_str().and_then(|file| file.strip_suffix(".png"));
            numbers.extend(stem.filter(|stem| stem.len() >= 6).and_then(|stem| stem.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Where image `index` goes.
    pub(crate) fn path_of(&self, index: u64) -> PathBuf {
        self.path.join(name(self.offset + index))
    }

    /// Where a picture of a name of its own goes.
    pub(crate) fn path_named(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether a picture is there already, byte for byte.
    pub(crate) fn has_named(&self, name: &str, sha256: &str) -> bool {
        fs::read(self.path_named(name)).is_ok_and(|bytes| Digest::of(&bytes).to_string() == sha256)
    }

    /// As [`write`](Self::write), under a name of its own. There is no numbering on.
    pub(crate) fn write_named(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        self.put(self.path_named(name), None, bytes)
    }

    /// Writes image `index` under its name, through a temporary file beside it, and returns where it is.
    pub(crate) fn write(&self, index: u64, bytes: &[u8]) -> Result<PathBuf> {
        self.put(self.path_of(index), Some(index), bytes)
    }

    fn put(&self, path: PathBuf, index: Option<u64>, bytes: &[u8]) -> Result<PathBuf> {
        let unwritable = |error: io::Error| failure::file("out", "write", &path, &error);
        let mut file = tempfile::Builder::new()
            .prefix(".darkroom-")
            .suffix(".part")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&self.path)
            .map_err(unwritable)?;
        io::Write::write_all(&mut file, bytes).map_err(unwritable)?;
        file.as_file().sync_all().map_err(unwritable)?;
        if self.taken == Taken::Overwrite {
            file.persist(&path).map_err(|error| unwritable(error.error))?;
            return Ok(path);
        }
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                self.meet(index, &path, bytes)
            }
            Err(error) => Err(unwritable(error.error)),
        }
    }

    /// The name is taken: by these bytes, which is well, or by others.
    fn meet(&self, index: Option<u64>, path: &Path, bytes: &[u8]) -> Result<PathBuf> {
        if fs::read(path).is_ok_and(|there| there == bytes) {
            return Ok(path.to_owned());
        }
        if let (Taken::NumberOn, Some(index)) = (self.taken, index) {
            let next = self.numbers()?.iter().max().map_or(0, |highest| highest + 1);
            let later =
                Self { path: self.path.clone(), taken: self.taken, offset: next.saturating_sub(index) };
            return later.write(index, bytes);
        }
        let mut failure = UserError::new(
            Code::AlreadyExists,
            "FILE_EXISTS",
            format!(
                "{} holds something else; name another folder with --out, or replace such files with --overwrite",
                path.display()
            ),
        );
        failure.field = Some("out".to_owned());
        Err(failure)
    }
}

fn name(number: u64) -> String {
    format!("{number:06}.png")
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
    fn a_picture_never_silently_replaces_another() {
        let place = tempfile::tempdir().expect("folder");
        for (taken, stays) in [(Taken::NumberOn, true), (Taken::Refuse, true), (Taken::Overwrite, false)] {
            let out = place.path().join(format!("{taken:?}"));
            let folder = Folder::open(&out, taken).expect("made");
            fs::write(out.join("000000.png"), b"mine").expect("written");
            let written = folder.write(0, b"other");
            assert_eq!(fs::read(out.join("000000.png")).expect("there") == b"mine", stays);
            match taken {
                Taken::NumberOn => assert_eq!(written.expect("elsewhere"), out.join("000001.png")),
                Taken::Refuse => assert_eq!(written.expect_err("refused").reason, "FILE_EXISTS"),
                Taken::Overwrite => assert_eq!(written.expect("replaced"), out.join("000000.png")),
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused_at_once() {
        let place = tempfile::tempdir().expect("folder");
        fs::write(place.path().join("file"), b"").expect("written");
        let error =
            Folder::open(&place.path().join("file/out"), Taken::Refuse).map(|_| ()).expect_err("no folder");
        assert_eq!((error.field.as_deref(), error.code), (Some("out"), Code::InvalidArgument));
    }
}
