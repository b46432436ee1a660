//! Files of writes to a local folder that never ended, because their process was killed. They have
//! the name of their object, `#` and a number, and no listing shows them.

use std::{fs, io, path::Path, time::Duration};

use tokio::task::spawn_blocking;

use super::ArtifactStore;
use crate::error::Error;

impl ArtifactStore {
    /// Removes what writes below these prefixes left when they were cut off, if it is `older`.
    /// Returns how many files. A bucket shows none: its lifecycle rules abort uploads.
    /// Before each file it asks whether to `stop`, because there may be millions of folders.
    ///
    /// # Errors
    /// If a folder cannot be read, or a file not removed.
    pub async fn remove_unfinished(
        &self,
        prefixes: &[String],
        older: Duration,
        stop: impl Fn() -> bool + Send + 'static,
    ) -> Result<u64, Error> {
        let Some(folder) = self.folder() else { return Ok(0) };
        let below: Vec<_> = prefixes.iter().map(|prefix| folder.join(prefix)).collect();
        let removing = spawn_blocking(move || {
            below.iter().try_fold(0, |all, folder| Ok(all + remove(folder, older, &stop)?))
        });
        let removed = removing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(|error| Error::of_io(self.name(), &error))
    }
}

/// Removes such files in a folder and in the folders below it. Follows no links.
fn remove(folder: &Path, older: Duration, stop: &dyn Fn() -> bool) -> io::Result<u64> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        if stop() {
            break;
        }
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            removed += remove(&entry.path(), older, stop)?;
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_unfinished) {
            match remove_if(&entry, older) {
                // A write that ended meanwhile has given its file the object's name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => removed += u64::from(done?),
            }
        }
    }
    Ok(removed)
}

/// Removes a file that is old enough. Returns whether it was.
fn remove_if(entry: &fs::DirEntry, older: Duration) -> io::Result<bool> {
    let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
    if age > older {
        fs::remove_file(entry.path())?;
    }
    Ok(age > older)
}

/// Whether this is the name of an unfinished write.
pub(super) fn is_unfinished(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_write_left_goes_when_it_is_old_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ArtifactStore::local(folder.path()).expect("a store");
        let files = ["tasks/a/b.png", "tasks/a/b.png#1", "tasks/c#x.png", "elsewhere/a#1"];
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, "x").expect("written");
        }
        let prefixes = ["tasks/", "missing/"].map(str::to_owned);
        let until = async |older, stop: fn() -> bool| {
            store.remove_unfinished(&prefixes, older, stop).await.expect("removes")
        };
        let remove = async |older| until(older, || false).await;
        assert_eq!(remove(Duration::from_secs(3600)).await, 0, "it may still be written");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(until(Duration::from_millis(1), || true).await, 0, "it was told to stop");
        assert_eq!(remove(Duration::from_millis(1)).await, 1);
        for (position, file) in files.into_iter().enumerate() {
            assert_eq!(folder.path().join(file).exists(), position != 1, "{file}");
        }
        let memory = ArtifactStore::in_memory();
        assert_eq!(
            memory.remove_unfinished(&prefixes, Duration::ZERO, || false).await.expect("none"),
            0
        );
    }
}
