//! The disks that the farm writes to. While one is full, nothing is dispatched and nothing new is
//! accepted, so that what is under way can still be stored and committed. The rest goes on, and so
//! does work as soon as there is room again.
//!
//! A folder's disk is full below its floor. Object storage and the disk of a database server cannot
//! be asked; they are full when a write is refused for lack of room.

mod floor;
mod storage;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_artifacts::ArtifactStore;
use darkroom_core::{
    error::{Code, UserError},
    shown::shown_path,
};
use darkroom_queue::task::PoolId;
use darkroom_runtime::disk::Space;
use tokio::{
    sync::{Notify, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout},
};

pub(crate) use self::storage::Probe;
use self::{
    floor::{Floor, Lack},
    storage::Storage,
};
use crate::{error::Error, options::Options, store};

/// A look that is younger than this is used again.
const YOUNG: Duration = Duration::from_millis(50);
/// A disk that does not answer within this time is as it was.
const PATIENCE: Duration = Duration::from_secs(1);
/// After the record's disk was full, work is tried again this much later.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// The disks, and what is known about their room.
#[derive(Debug)]
pub(crate) struct Disks {
    folders: Vec<Folder>,
    floor: Option<u64>,
    /// Where artifacts are, for people.
    storage: String,
    known: Mutex<Known>,
    /// The permit to ask the system.
    asking: Arc<Semaphore>,
    /// Somebody found no room: look now.
    suspected: Notify,
    /// How often the farm's disks became full or free, or their sentence changed.
    turns: AtomicU64,
}

/// A folder of this machine that the farm writes to.
#[derive(Clone, Debug)]
struct Folder {
    /// What lies there, in words.
    holds: &'static str,
    path: PathBuf,
    /// Whether outputs are stored there.
    of_outputs: bool,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    /// The folder whose disk is full, by its place in the list.
    short: Option<(usize, Lack)>,
    /// Bytes that outputs of dispatched tasks may take.
    room: Option<u64>,
    /// The record found no room and is tried again then.
    record_again: Option<Instant>,
    storage: Storage,
    /// Why no work is dispatched.
    full: Option<String>,
}

impl Disks {
    pub(crate) fn new(options: &Options, artifacts: &ArtifactStore) -> Self {
        let record = options.record_folder.clone().map(|path| Folder {
            holds: "job store",
            path,
            of_outputs: false,
        });
        let outputs = artifacts.folder().map(|path| Folder {
            holds: "artifacts",
            path: path.to_owned(),
            of_outputs: true,
        });
        Self {
            // Outputs first: they fill a disk that holds both.
            folders: outputs.into_iter().chain(record).collect(),
            floor: options.disk_floor,
            storage: artifacts.name().to_owned(),
            known: Mutex::default(),
            asking: Arc::new(Semaphore::new(1)),
            suspected: Notify::new(),
            turns: AtomicU64::new(0),
        }
    }

    /// Why no work is dispatched, if a disk is full: one sentence.
    pub(crate) fn full(&self) -> Option<String> {
        self.known().full.clone()
    }

    /// The refusal of what would need room, if a disk is full.
    pub(crate) fn refuse(&self) -> Result<(), Error> {
        let Some(full) = self.full() else { return Ok(()) };
        let message = format!("{full}; nothing was changed, try again when there is room");
        let refusal = UserError {
            retry_after: Some(store::error::FULL_AGAIN),
            ..UserError::new(Code::ResourceExhausted, "DISK_FULL", message)
        };
        Err(Error::Store(store::Error::Refused(refusal)))
    }

    /// Changes whenever the answer of [`full`](Self::full) does.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Notes that a write failed, if that was for lack of room.
    pub(crate) fn note(&self, error: &Error) {
        match error {
            Error::Store(store::Error::Full) => {
                self.known().record_again = Some(Instant::now() + RECORD_AGAIN);
            }
            Error::Artifacts(darkroom_artifacts::Error::NoSpace { .. }) => {
                self.known().storage.told(Instant::now());
            }
            _ => return,
        }
        self.suspected.notify_one();
    }

    /// Bytes that outputs of dispatched tasks may take.
    pub(crate) fn room(&self) -> u64 {
        self.known().room.unwrap_or(u64::MAX)
    }

    /// Looks at the disks of the folders, unless somebody has just done that. Whether that changed
    /// what is known.
    pub(crate) async fn look(&self) -> bool {
        if self.known().looked.is_some_and(|at| at.elapsed() < YOUNG) {
            return false;
        }
        let Ok(turn) = Arc::clone(&self.asking).try_acquire_owned() else { return false };
        let folders = self.folders.clone();
        // On another thread, and on one only: a network mount may not answer.
        let looking = spawn_blocking(move || {
            let spaces: Vec<_> = folders.iter().map(|folder| Space::at(&folder.path)).collect();
            drop(turn);
            spaces
        });
        let Ok(Ok(spaces)) = timeout(PATIENCE, looking).await else { return false };
        self.take_in(&spaces)
    }

    /// Waits until somebody found no room.
    pub(crate) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// Whether object storage is to be probed now. `cards`: a worker says that it finds no room.
    pub(crate) fn wants_probe(&self, cards: bool) -> bool {
        self.known().storage.wants_probe(cards, Instant::now())
    }

    /// Takes in what workers say of object storage, and the result of a probe if there was one.
    /// Whether that changed what is known.
    pub(crate) fn look_at_storage(&self, cards: bool, probe: Option<Probe>) -> bool {
        let mut known = self.known();
        known.storage.look(cards, probe, Instant::now());
        self.conclude(&mut known)
    }

    fn take_in(&self, spaces: &[io::Result<Space>]) -> bool {
        let mut known = self.known();
        known.looked = Some(Instant::now());
        let before = known.short.take();
        let mut room = None;
        for (place, (folder, space)) in self.folders.iter().zip(spaces).enumerate() {
            // A folder that is gone is found by those who use it.
            let Ok(space) = space else { continue };
            let floor = Floor::of(self.floor, space);
            let full_before = before.filter(|(before, _)| *before == place).map(|(_, lack)| lack);
            if let Some(lack) = floor.lack(space, full_before.is_some()) {
                let lack = full_before.filter(|before| lack.is_much_like(*before)).unwrap_or(lack);
                known.short.get_or_insert((place, lack));
            }
            if folder.of_outputs {
                room = Some(floor.room(space));
            }
        }
        known.room = room;
        self.conclude(&mut known)
    }

    /// Says why nothing is dispatched now, and logs when that begins and ends. Whether it changed.
    fn conclude(&self, known: &mut Known) -> bool {
        let full = match known.short {
            Some((place, lack)) => self.folders.get(place).map(|folder| {
                format!(
                    "the disk that holds the {} ({}) is full: {lack}",
                    folder.holds,
                    shown_path(&folder.path)
                )
            }),
            None if known.record_again.is_some_and(|again| again > Instant::now()) => {
                Some("the disk that holds the job store is full".to_owned())
            }
            None if known.storage.is_full() => {
                Some(format!("the artifact store {} has no space left", self.storage))
            }
            None => None,
        };
        if full == known.full {
            return false;
        }
        match (&known.full, &full) {
            (None, Some(why)) => tracing::warn!("no work is dispatched: {why}"),
            (Some(_), None) => tracing::info!("there is room again; work is dispatched"),
            _ => {}
        }
        known.full = full;
        self.turns.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic under the lock leaves no partial change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the outputs of dispatched tasks will take of a disk, by pool.
#[derive(Debug, Default)]
pub(crate) struct Expected(HashMap<PoolId, Line>);

/// The tasks of a pool that are dispatched, or may be at any moment.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    tasks: u64,
    bytes: u64,
}

impl Expected {
    /// Forgets pools that no worker serves: nothing of theirs is stored.
    pub(crate) fn keep(&mut self, served: impl Fn(&PoolId) -> bool) {
        self.0.retain(|pool, _| served(pool));
    }

    /// How many tasks the pool's queue may have, of `wanted`, so that all that is dispatched can be
    /// stored. Each output takes at most `each` bytes. The caller then says with
    /// [`reserve`](Self::reserve) how many of them are dispatched.
    pub(crate) fn fitting(&self, room: u64, pool: &PoolId, (wanted, each): (u64, u64)) -> u64 {
        let others: u64 =
            self.0.iter().filter(|(other, _)| *other != pool).map(|(_, line)| line.bytes).sum();
        let fitting = room.saturating_sub(others) / each.max(1);
        // Above the floor, one task at a time is always possible: otherwise work would stand still
        // without a full disk.
        wanted.min(fitting.max(1))
    }

    /// Records how many tasks of the pool are dispatched, or may be before the next pass.
    pub(crate) fn reserve(&mut self, pool: &PoolId, tasks: u64, each: u64) {
        self.0.insert(pool.clone(), Line { tasks, bytes: tasks.saturating_mul(each) });
    }

    /// Whether something of this pool is dispatched, or may be.
    pub(crate) fn is_at_work(&self, pool: &PoolId) -> bool {
        self.0.get(pool).is_some_and(|line| line.tasks > 0)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::{digest::Digest, id::StageName};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn disks(folders: &[(&'static str, bool)], floor: u64) -> Disks {
        let folder = |(holds, of_outputs): &(&'static str, bool)| Folder {
            holds,
            path: PathBuf::from("/farm").join(holds),
            of_outputs: *of_outputs,
        };
        Disks {
            folders: folders.iter().map(folder).collect(),
            floor: Some(floor),
            storage: "s3://bucket".to_owned(),
            known: Mutex::default(),
            asking: Arc::new(Semaphore::new(1)),
            suspected: Notify::new(),
            turns: AtomicU64::new(0),
        }
    }

    fn free(mebibytes: u64) -> io::Result<Space> {
        Ok(Space {
            free_bytes: mebibytes * MIB,
            total_bytes: 1 << 40,
            free_files: 0,
            total_files: 0,
        })
    }

    #[test]
    fn the_first_full_disk_is_told_until_it_has_room_and_each_turn_once() {
        let disks = disks(&[("artifacts", true), ("job store", false)], 100 * MIB);
        assert!(!disks.take_in(&[free(100), free(100)]));
        assert_eq!(disks.room(), 50 * MIB);
        disks.refuse().expect("there is room");

        assert!(disks.take_in(&[free(99), free(100)]));
        let why = "the disk that holds the artifacts (/farm/artifacts) is full: 99 MiB free, 100 MiB needed";
        assert_eq!(disks.full().as_deref(), Some(why));
        let refusal = disks.refuse().expect_err("full").to_user();
        assert_eq!((refusal.code, &*refusal.reason), (Code::ResourceExhausted, "DISK_FULL"));
        assert!(
            refusal.message.starts_with(why)
                && refusal.retry_after == Some(store::error::FULL_AGAIN)
        );

        assert!(!disks.take_in(&[free(95), free(100)]), "much the same");
        assert!(!disks.take_in(&[free(109), free(100)]), "not enough to go on");
        assert_eq!(disks.turns(), 1);
        assert!(disks.take_in(&[free(110), free(3)]), "the other one");
        assert!(disks.full().expect("full").contains("job store (/farm/job store)"));
        assert!(disks.take_in(&[free(110), free(110)]));
        assert_eq!((disks.full(), disks.turns()), (None, 3));
    }

    #[test]
    fn a_folder_that_cannot_be_asked_is_not_full() {
        let disks = disks(&[("artifacts", true)], 100 * MIB);
        assert!(!disks.take_in(&[Err(io::ErrorKind::NotFound.into())]));
        assert_eq!((disks.full(), disks.room()), (None, u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_without_room_is_tried_again_after_a_while() {
        let disks = disks(&[], 100 * MIB);
        disks.note(&Error::other("something else"));
        assert!(!disks.take_in(&[]));
        disks.note(&store::Error::Full.into());
        assert!(disks.take_in(&[]));
        assert_eq!(disks.full().as_deref(), Some("the disk that holds the job store is full"));
        tokio::time::advance(RECORD_AGAIN).await;
        assert!(disks.take_in(&[]));
        assert_eq!(disks.full(), None);
    }

    #[test]
    fn no_more_is_dispatched_than_can_be_stored() {
        let pool = |stage: &str| PoolId {
            stage: StageName::try_from(stage.to_owned()).expect("a name"),
            digest: Digest::of(b"cascade"),
        };
        let (sr, base) = (pool("sr"), pool("base"));
        let mut expected = Expected::default();
        assert_eq!(expected.fitting(100, &sr, (8, 10)), 8);
        assert_eq!(expected.fitting(100, &base, (16, 5)), 16, "sr has nothing to do");
        expected.reserve(&sr, 8, 10);
        assert_eq!(expected.fitting(100, &base, (8, 5)), 4, "80 are promised");
        expected.reserve(&base, 4, 5);
        assert_eq!(expected.fitting(100, &sr, (16, 10)), 8, "20 are promised");
        assert_eq!(expected.fitting(60, &sr, (16, 10)), 4, "others wrote something");
        assert_eq!(expected.fitting(100, &base, (16, 5)), 4, "8 of sr are still there");
        // Its workers went.
        expected.keep(|pool| pool != &sr);
        assert!(expected.is_at_work(&base) && !expected.is_at_work(&sr));
        assert_eq!(expected.fitting(100, &base, (16, 5)), 16);
        let mut expected = Expected::default();
        assert_eq!(expected.fitting(5, &sr, (8, 10)), 1, "one alone always");
        expected.reserve(&sr, 1, 10);
        assert_eq!(expected.fitting(5, &base, (8, 10)), 1, "in each pool");
        assert_eq!(expected.fitting(u64::MAX, &base, (8, 10)), 8, "no limit");
    }
}
