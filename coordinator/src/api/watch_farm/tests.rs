use std::path::Path;

use darkroom_artifacts::ArtifactStore;
use darkroom_queue::memory::MemoryQueue;

use super::*;
use crate::{Coordinator, Handle, Options, store::sqlite::SqliteStore};

async fn started(folder: &Path) -> Handle {
    let store = SqliteStore::open(&folder.join("farm.sqlite")).await.expect("opens");
    let (queue, artifacts) = (Arc::new(MemoryQueue::default()), ArtifactStore::in_memory());
    let started =
        Coordinator::start(Options::default(), Arc::new(store), queue, artifacts, Vec::new());
    started.await.expect("starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_client_that_is_gone_nothing_is_read_on_and_nothing_after_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let handle = started(folder.path()).await;
    let farm = handle.farm();
    let audience = Audience { tenant: None, workers: true };
    let mut watcher = Watcher::new(farm, audience, None);
    let (sender, receiver) = mpsc::channel(BUFFER);
    drop(receiver);
    assert!(!watcher.catch_up(&sender).await.expect("ends"));
    assert!(watcher.reset_due, "no event was made of the present state");
    watcher.reset_due = false;
    watcher.cursor.as_mut().expect("a new one").listed = None;
    assert!(!watcher.catch_up(&sender).await.expect("ends"));
    assert!(watcher.workers_due && !watcher.caught_up, "no event was made of the changes");

    let (sender, mut receiver) = mpsc::channel(BUFFER);
    handle.shared.stop.cancel();
    assert!(!watcher.catch_up(&sender).await.expect("ends"));
    assert!(watcher.workers_due && receiver.try_recv().is_err(), "it stops");
    drop(watcher);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_cursor_of_another_record_or_of_changes_that_nobody_knows_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let handle = started(folder.path()).await;
    let farm = handle.farm();
    let bounds = ChangeBounds { era: "era".to_owned(), settled: 5, next: 7, forgotten: 3 };
    for (text, is_known) in [
        ("c.era.6.1", true),
        ("c.other.6.1", false),
        ("c.era.8.1", false),
        ("c.era.4.0", true),
        // A job was deleted of which nothing is left.
        ("c.era.3.9", false),
    ] {
        let audience = Audience { tenant: None, workers: true };
        let cursor = text.parse().expect("a cursor");
        let mut watcher = Watcher::new(farm.clone(), audience, Some(cursor));
        let begun = watcher.begin(&bounds);
        assert_eq!((begun.to_string() == text, watcher.reset_due), (is_known, !is_known), "{text}");
    }
    handle.shutdown().await;
}

#[test]
fn the_end_of_a_watch_waits_for_nobody() {
    let (sender, mut receiver) = mpsc::channel(BUFFER);
    let error = || UserError::new(Code::Unavailable, "UNAVAILABLE", "the record is away");
    end(&sender, error());
    assert!(matches!(receiver.try_recv(), Ok(Err(told)) if told == error()));
    sender.try_send(Ok(v1::FarmEvent::default())).expect("room for one");
    end(&sender, error());
    assert!(matches!(receiver.try_recv(), Ok(Ok(_))));
    assert!(receiver.try_recv().is_err(), "its client did not read");
}

#[test]
fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
    for text in ["c.era.12.0", "c.era.18446744073709551615.7", "l.era.3.9223372036854775807"] {
        let cursor: Cursor = text.parse().expect("a cursor");
        assert_eq!(cursor.to_string(), text);
    }
    let long = format!("c.{}.1.1", "e".repeat(200));
    for wrong in ["c", "c.era.1", "x.era.1.1", "c.era.-1.1", "c.era.1.1.1", "l.era.1.", &long] {
        let error = wrong.parse::<Cursor>().expect_err(wrong);
        assert_eq!(error.field.as_deref(), Some("cursor"));
        assert!(error.message.len() < 300, "{error}");
    }
}
