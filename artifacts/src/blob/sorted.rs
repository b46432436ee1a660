//! Lists a folder in the order of the keys, from any key on. `object_store` lists a folder in no
//! order, so there a listing could not go on.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use futures::{Stream, stream};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{Listed, unfinished::is_unfinished};
use crate::error::Error;

/// Files that are looked up before they are asked for.
const AHEAD: usize = 64;

/// The files below `prefix` in a store's folder whose keys come after `after`. Follows no links.
pub(super) fn list(
    folder: &Path,
    prefix: &str,
    after: &str,
) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
    let (folder, prefix, after) = (folder.join(prefix), prefix.to_owned(), after.to_owned());
    let (send, mut receive) = mpsc::channel(AHEAD);
    spawn_blocking(move || {
        let mut found = |one| send.blocking_send(Ok(one)).is_ok();
        if let Err(error) = walk(folder, &prefix, &after, &mut found) {
            // If nobody listens any more, nobody needs to know.
            let _ = send.blocking_send(Err(Error::of_io(&prefix, &error)));
        }
    });
    stream::poll_fn(move |context| receive.poll_recv(context))
}

/// Passes on what lies in a folder and below it. Returns whether more is wanted.
fn walk(
    folder: PathBuf,
    prefix: &str,
    after: &str,
    found: &mut impl FnMut(Listed) -> bool,
) -> io::Result<bool> {
    for name in names(&folder)? {
        let key = format!("{prefix}{name}");
        let wanted = match name.strip_suffix('/') {
            // All that lies below it comes before.
            Some(_) if *key < *after && !after.starts_with(&key) => true,
            Some(below) => walk(folder.join(below), &key, after, found)?,
            None if *key <= *after => true,
            None => match fs::symlink_metadata(folder.join(&name)) {
                Ok(file) => found(listed(key, &file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error),
            },
        };
        if !wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names in a folder, in order; those of folders end in `/`, which decides where they stand.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        // Keys are text.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if kind.is_dir() {
            names.push(name + "/");
        } else if kind.is_file() && !is_unfinished(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn listed(key: String, file: &fs::Metadata) -> Listed {
    let micros = file.mtime() * 1_000_000 + file.mtime_nsec() / 1000;
    Listed { key, size: file.len(), modified_unix_seconds: file.mtime(), mark: micros.to_string() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::TryStreamExt as _;

    use crate::{ArtifactStore, test_stores::on_s3};

    #[tokio::test]
    async fn a_listing_goes_on_behind_any_key_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (_s3, bucket) = on_s3();
        let local = ArtifactStore::local(folder.path()).unwrap();
        for store in [local, bucket, ArtifactStore::in_memory()] {
            let mut keys =
                ["t/a-b", "t/a.png", "t/a/1/x", "t/a/1/y", "t/a/2", "t/a0", "t/b/z", "t/c"];
            for key in keys.into_iter().chain(["s/z", "u/a"]) {
                store.write_mark(key, Bytes::from_static(b"12345")).await.unwrap();
            }
            keys.sort_unstable();
            let after = async |key: &str| -> Vec<String> {
                let listed = store.list_after("t/", key).map_ok(|one| one.key);
                listed.try_collect().await.unwrap()
            };
            assert_eq!(after("").await, keys, "{}", store.name());
            for (position, key) in keys.iter().enumerate() {
                assert_eq!(after(key).await, keys[position + 1..], "{} {key}", store.name());
            }
            // The key may be gone by then.
            assert_eq!(after("t/a/1/xx").await, after("t/a/1/x").await, "{}", store.name());
            let one = store.list_after("t/", "t/b/z").try_next().await.unwrap().unwrap();
            assert_eq!((one.key.as_str(), one.size), ("t/c", 5));
        }
        std::fs::write(folder.path().join("t/d#1"), "cut off").unwrap();
        let local = ArtifactStore::local(folder.path()).unwrap();
        let listed: Vec<_> = local.list_after("t/", "t/c").try_collect().await.unwrap();
        assert_eq!(listed, []);
        let nothing: Vec<_> = local.list_after("missing/", "").try_collect().await.unwrap();
        assert_eq!(nothing, []);
    }
}
