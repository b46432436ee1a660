//! Problems that prevent a farm from using its SQLite file. Each has its own sentence, which names
//! the file. (A damaged one and one of a newer version are in `recovery.rs`.)

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    Error,
    roles::{Maintenance as _, WorkerHealth as _},
    sqlite::SqliteStore,
};
use darkroom_core::{error::UserError, id::WorkerId};
use darkroom_test_servers::disk::SmallDisk;
use sqlx::Connection as _;

async fn refusal(path: &Path) -> UserError {
    let error = SqliteStore::open(path).await.expect_err("refused");
    assert!(!matches!(error, Error::Database(_) | Error::Unavailable(_)), "{error:?}");
    let error = error.to_user();
    assert!(
        !error.message.contains('\n') && !error.message.contains("the log"),
        "{}",
        error.message
    );
    error
}

async fn made(path: &Path) {
    SqliteStore::open(path).await.expect("opens").close().await;
}

#[tokio::test]
async fn a_file_that_another_process_has_locked_is_said_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("farm.sqlite");
    made(&path).await;
    let url = format!("sqlite://{}", path.to_str().expect("UTF-8"));
    let mut other = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    sqlx::raw_sql("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .expect("locks");
    let began = Instant::now();
    let error = refusal(&path).await;
    assert!(
        error.message.contains("farm.sqlite is locked by another process"),
        "{}",
        error.message
    );
    assert_eq!(error.code.exit_code(), 3);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    other.close().await.expect("closes");
    made(&path).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_to_be_read_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("farm.sqlite");
    // Root ignores permissions, but cannot write to a read-only disk.
    let disk = SmallDisk::mount(folder.path(), 4096);
    made(&path).await;
    match &disk {
        Some(disk) => disk.make_read_only(),
        None if fs::metadata(&path).expect("there").uid() == 0 => return,
        None => {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("permissions");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500))
                .expect("permissions");
        }
    }
    let error = refusal(&path).await;
    assert!(error.message.contains("farm.sqlite is read-only for this user"), "{}", error.message);
    assert_eq!(error.code.exit_code(), 3);
    if disk.is_none() {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_told_with_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["nowhere/farm.sqlite", "a-folder"] {
        fs::create_dir_all(folder.path().join("a-folder")).expect("made");
        let error = refusal(&folder.path().join(name)).await;
        assert!(
            error.message.contains(&format!("{name} cannot be opened or made")),
            "{}",
            error.message
        );
        assert_eq!(error.code.exit_code(), 3);
    }
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_to_be_at_the_start_and_later() {
    // At the start: no room for the tables.
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path(), 64) else { return };
    let error = refusal(&folder.path().join("farm.sqlite")).await;
    assert!(error.message.contains("is full") && error.reason == "DISK_FULL", "{error:?}");
    drop(disk);

    // Later: existing data stays, and freed room is used.
    let folder = tempfile::tempdir().expect("a folder");
    let _disk = SmallDisk::mount(folder.path(), 16 << 10).expect("mounted");
    let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("opens");
    let ballast = folder.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 64 << 20]);
    let mut failed = None;
    for number in 0..20_000 {
        let worker = WorkerId(format!("{number}-{}", "x".repeat(200)));
        if let Err(error) = store.command_drain(&worker).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("there is no room");
    assert!(matches!(error, Error::Full) && error.retryable(), "{error:?}");
    fs::remove_file(&ballast).expect("removed");
    store.command_drain(&WorkerId("later".to_owned())).await.expect("there is room again");
    store.close().await;
}
