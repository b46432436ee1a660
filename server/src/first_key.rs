//! The file of the first key. It is written before the record gets the key, so that no crash can
//! leave a farm with a key that nobody has: whoever starts next finds the file, and the record gets
//! the key of it.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use darkroom_coordinator::{
    add_first_key, fresh_key,
    store::{Store, keys::FoundKey},
};
use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    scope::Scope,
    shown::shown_path,
};
use darkroom_runtime::files::{self, NotOwn, Unread};

/// Most bytes of a file with a key.
const MOST: u64 = 4096;

/// Makes the first key of the farm, unless it has an admin key. Returns why it made none although
/// there is no admin key: the key in the file has ended. It is not replaced, because whoever
/// removed its rights must not give them back by a restart.
///
/// # Errors
/// One sentence: the file cannot be written or is not ours, or the record cannot be written.
pub(crate) async fn make(store: &dyn Store, file: &Path) -> Result<Option<UserError>, UserError> {
    let has_admin_key = store.has_admin_key().await.map_err(|error| error.to_user())?;
    if has_admin_key {
        tracing::info!("the farm has an admin key, so no first key is made");
        return Ok(None);
    }
    let (key, written) = match read(file)? {
        Some(key) => (key, false),
        None => new_in(file)?,
    };
    if !written
        && let Some(found) = store.find_key(key.id()).await.map_err(|error| error.to_user())?
        && !counts_now(store, &found).await?
    {
        return Ok(Some(ended(file, &found)));
    }
    let added = add_first_key(store, &key).await;
    if let Ok(Some(added)) = &added {
        tracing::info!(key = %added.id, file = %shown_path(file), "the farm's first key is in this file");
        return Ok(None);
    }
    // Another coordinator was first, or it is not known: only what was written here is removed.
    if written && matches!(added, Ok(None)) {
        fs::remove_file(file).map_err(|error| not_written(file, &error))?;
        tracing::info!("another coordinator has made the first key");
    }
    added.map(|_| None).map_err(|error| error.to_user())
}

/// Whether another start with the same file has added this key meanwhile.
async fn counts_now(store: &dyn Store, found: &FoundKey) -> Result<bool, UserError> {
    let admin = found.key.scopes.contains(&Scope::Admin);
    Ok(admin && store.has_admin_key().await.map_err(|error| error.to_user())?)
}

/// What to do about a file whose key is one of the farm's and makes no others.
fn ended(file: &Path, found: &FoundKey) -> UserError {
    let FoundKey { key, now_ms } = found;
    let why = if key.revoked_ms.is_some() {
        "was revoked"
    } else if key.expired(*now_ms) {
        "has expired"
    } else {
        "may not make others"
    };
    let message = format!(
        "the farm has no admin key, and key {} in first-key-file {} {why}; remove the file and \
         start again, which makes a new first key",
        key.id,
        shown_path(file)
    );
    UserError {
        field: Some("first-key-file".to_owned()),
        ..UserError::new(Code::FailedPrecondition, "FIRST_KEY_ENDED", message)
    }
}

/// A new key in a new file; or that of another start, which has made the file meanwhile.
fn new_in(file: &Path) -> Result<(Key, bool), UserError> {
    let key = fresh_key()?;
    match write_new(file, &key) {
        Ok(()) => Ok((key, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let theirs = read(file)?.ok_or_else(|| not_written(file, &error))?;
            Ok((theirs, false))
        }
        Err(error) => Err(not_written(file, &error)),
    }
}

/// The key of a file that an earlier start has left; `None` if there is no file. A file of somebody
/// else could hold a key that they know.
fn read(file: &Path) -> Result<Option<Key>, UserError> {
    let refused = |why: &str| {
        UserError::invalid(
            "first-key-file",
            format!(
                "first-key-file is {}, which {why}; accepted: a file that does not exist yet",
                shown_path(file)
            ),
        )
    };
    let bytes = match files::read_own(file, MOST) {
        Ok(bytes) => bytes,
        Err(NotOwn::Others) => return Err(refused("others can read or write")),
        Err(NotOwn::Unread(Unread::NoFile(_))) => return Err(refused("is no regular file")),
        Err(NotOwn::Unread(Unread::Io(error))) if error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(refused(&format!("is not read: {error}"))),
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    text.trim().parse().map(Some).map_err(|_| refused("exists and holds no key"))
}

/// Writes a file that only its owner can read, and never over one that exists. It gets its name
/// when it is complete.
fn write_new(file: &Path, key: &Key) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new()
        .prefix(".darkroom-key-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    writeln!(new, "{}", key.expose())?;
    new.as_file().sync_all()?;
    new.persist_noclobber(file).map_err(|failed| failed.error)?;
    File::open(folder)?.sync_all()
}

fn not_written(file: &Path, error: &io::Error) -> UserError {
    UserError {
        field: Some("first-key-file".to_owned()),
        ..UserError::new(
            Code::FailedPrecondition,
            "KEY_FILE",
            format!("first-key-file {} cannot be written: {error}", shown_path(file)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use darkroom_coordinator::store::{
        keys::{KeyQuery, Proof, Rotation},
        roles::Keys as _,
        sqlite::SqliteStore,
    };

    use super::*;

    async fn store(folder: &Path) -> SqliteStore {
        SqliteStore::open(&folder.join("farm.sqlite")).await.expect("a record")
    }

    async fn keys(store: &SqliteStore) -> usize {
        let all = KeyQuery { ended: true, limit: 10, ..KeyQuery::default() };
        store.list_keys(&all).await.expect("lists").len()
    }

    #[tokio::test]
    async fn the_first_key_is_in_a_file_of_its_owner_alone_and_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, other) = (folder.path().join("key"), folder.path().join("other"));
        let store = store(folder.path()).await;
        make(&store, &file).await.expect("made");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        let key: Key = fs::read_to_string(&file).expect("read").trim().parse().expect("a key");
        let found = store.find_key(key.id()).await.expect("asks").expect("there").key;
        assert!(matches!(found.proof, Proof::Secret(hash) if hash.is_of(&key)));
        for again in [&file, &other] {
            make(&store, again).await.expect("nothing to do");
        }
        assert!(!other.exists());
        assert_eq!(keys(&store).await, 1);
    }

    #[tokio::test]
    async fn a_start_that_broke_off_after_the_file_is_continued_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        let key = fresh_key().expect("random");
        write_new(&file, &key).expect("written");
        let store = store(folder.path()).await;
        make(&store, &file).await.expect("made");
        assert!(store.find_key(key.id()).await.expect("asks").is_some());
        assert_eq!(keys(&store).await, 1);
    }

    #[tokio::test]
    async fn a_key_that_has_ended_is_not_brought_back_and_the_operator_is_told_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        let store = store(folder.path()).await;
        make(&store, &file).await.expect("made");
        let id = |text: &str| text.trim().parse::<Key>().expect("a key").id().clone();
        let first = fs::read_to_string(&file).expect("read");
        // A key that takes its place: the first one ends, and nothing is to be done.
        let fresh = fresh_key().expect("random");
        let rotation =
            Rotation { id: fresh.id().clone(), secret: fresh.hash(), keep_ms: 1, expiry: None };
        store.rotate_key(&id(&first), &rotation).await.expect("rotated");
        assert_eq!(make(&store, &file).await, Ok(None));
        store.revoke_key(fresh.id()).await.expect("revoked");
        let expired = make(&store, &file).await.expect("told").expect("none is made");
        store.revoke_key(&id(&first)).await.expect("revoked");
        let revoked = make(&store, &file).await.expect("told").expect("none is made");
        for (told, why) in [(expired, "has expired"), (revoked, "was revoked")] {
            assert_eq!(told.field.as_deref(), Some("first-key-file"));
            let says = format!("key {} in first-key-file", id(&first));
            for word in [&says, why, "remove the file and start again"] {
                assert!(told.message.contains(word), "{told}");
            }
        }
        assert_eq!(fs::read_to_string(&file).expect("read"), first, "it is not written over");
        assert_eq!(keys(&store).await, 2);
        fs::remove_file(&file).expect("removed");
        assert_eq!(make(&store, &file).await, Ok(None));
        assert_ne!(fs::read_to_string(&file).expect("read"), first);
        assert!(store.has_admin_key().await.expect("asks"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_neither_used_nor_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path()).await;
        let path = |name: &str| folder.path().join(name);
        let key = fresh_key().expect("random").expose();
        for (name, mode, content) in
            [("readable", 0o644, key.as_str()), ("writable", 0o620, &key), ("text", 0o600, "hello")]
        {
            fs::write(path(name), content).expect("written");
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("set");
        }
        symlink(path("nowhere"), path("dangling")).expect("linked");
        symlink(path("text"), path("link")).expect("linked");
        fs::create_dir(path("folder")).expect("made");
        for name in ["readable", "writable", "text", "dangling", "link", "folder"] {
            let error = make(&store, &path(name)).await.expect_err(name);
            assert_eq!(error.field.as_deref(), Some("first-key-file"), "{name}");
            assert!(error.message.contains("accepted: "), "{error}");
        }
        assert_eq!(fs::read_to_string(path("text")).expect("read"), "hello");
        assert!(!path("nowhere").exists());
        let error = make(&store, &path("absent/key")).await.expect_err("no folder");
        assert!(error.message.contains("cannot be written"), "{error}");
        assert_eq!(keys(&store).await, 0);
    }
}
