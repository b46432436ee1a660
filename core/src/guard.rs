//! The guards that keep the farm's promises, and how a test takes one out to see what happens.
//!
//! In a normal build every guard stands: [`stands`] is a constant and [`text`] returns its
//! argument, so a shipped program contains nothing of this. With the feature `failpoints`, which
//! only tests and lints turn on, a guard's test takes that guard out of its own process and expects
//! the fault that the guard prevents. `docs/guards.md` lists them all.

macro_rules! guards {
    ($($(#[$what:meta])+ $name:ident,)+) => {
        /// A check without which work would be lost, doubled or wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Guard {
            $($(#[$what])+ $name,)+
        }

        #[cfg(feature = "failpoints")]
        impl Guard {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

guards! {
    // Images and jobs.
    /// A success commits only in the generation of its image.
    CommitGeneration,
    /// A success commits only at the stage where its image stands.
    CommitStage,
    /// Done, dead and cancelled images change only by a retry.
    TerminalStays,
    /// Results, returns and losses name the dispatch that they are about.
    DispatchMatches,
    /// Only results that a member of the pool signed are read.
    ResultSigned,
    /// An output lies under the prefix of its own task.
    OutputOwn,
    /// A worker runs only tasks that its farm sealed.
    TaskSealed,
    /// A key of another type than the farm's is deleted and rebuilt.
    WrongTypeDeleted,
    /// A failure in a shared batch counts against nobody.
    AloneCounts,
    /// A worker's death counts only while the task ran alone, as a suspect.
    DeathAlone,
    /// An interruption counts against nobody.
    InterruptionIsFree,
    /// Nothing commits to a job that is not live.
    JobLive,
    /// An image's UPDATE names the row as it was read.
    ImageExpected,
    /// Counters come from the rows that an UPDATE returned.
    CountersFromRows,
    /// Cancel, pause, resume and retry name the job's state.
    JobExpected,
    /// A job's end names the states that may end.
    EndExpected,
    /// A dispatched text is not dispatched again.
    TextOnce,
    /// Only active jobs are dispatched.
    ActiveOnly,
    /// The sweep ends jobs that should have ended.
    OverlookedSwept,
    /// Nothing is dispatched while a disk is full.
    DiskFloor,
    // Commands to some images, and pictures that are lost.
    /// A command to some images belongs to a generation of its job.
    CommandGeneration,
    /// A job does not end while commands to its images are followed.
    EndAfterCommands,
    /// A picture is lost in the generation in which that was found, and in no later one.
    LostGeneration,
    /// Only the latest attempts of an image are kept.
    AttemptsBounded,
    // Submits.
    /// A job's facts are cached only after all its prompts have come.
    PlanWhole,
    /// A request id stands for one job.
    RequestIdOnce,
    /// The same request id with other content is refused.
    RequestIdContent,
    /// Only a job that is being received takes more prompts.
    ReceivingOnly,
    /// Only submits that nothing was added to for some time are swept.
    IdleOnly,
    /// An accepted submit is on disk before its answer.
    AcceptDurable,
    // Leadership and the sweep.
    /// A leader's transaction names its term.
    TermChecked,
    /// Nobody becomes leader before the current leader's time is over.
    LeadExpires,
    /// A task is lost only when two passes did not find it.
    TwoPasses,
    /// Entries that SQL does not expect are removed.
    UnexpectedRemoved,
    /// Results are acknowledged after their commit.
    AckAfterCommit,
    // The queue.
    /// A heartbeat renews only what is pending with its worker.
    HeartbeatOwner,
    /// Only the holder completes.
    CompleteOwner,
    /// Only the holder hands back.
    HandBackOwner,
    /// Only silent leases are reaped.
    ReapIdle,
    /// The farm decides how long a lease lasts, not a coordinator.
    LeaseAgreed,
    /// Nothing is reaped within one lease after Redis was unreachable.
    ReapPause,
    /// A consumer that has pending entries is not deleted.
    ConsumerEmpty,
    /// A missing group is created at the beginning of its stream.
    GroupAtStart,
    /// A suspect is leased alone.
    SuspectAlone,
    /// A pool accepts a limited number of entries.
    PoolLimit,
    /// A worker's id is new for each process.
    FreshWorker,
    // Workers.
    /// The heartbeat stops when the model does.
    StallStops,
    /// Storage faults interrupt a task instead of failing it.
    StorageInterrupts,
    /// A drain hands back what it does not finish.
    DrainHandsBack,
    /// The request to drain is repeated until the worker leaves.
    DrainKept,
    // Artifacts, manifests, watchers.
    /// The hash of everything read is compared with the stored one.
    HashChecked,
    /// A stored file of a cascade is read whole before it is trusted.
    PublishedWhole,
    /// Bytes under a key are created, not overwritten.
    CreatedOnce,
    /// An image's seed is part of its task's digest.
    SeedInDigest,
    /// A manifest states the hash of its lines.
    ManifestHash,
    /// A manifest is written by one process at a time.
    ManifestClaim,
    /// A manifest is recorded for its generation only.
    ManifestGeneration,
    /// Of a job's changes, only those are forgotten that later changes of the same images replace.
    PruneStale,
    /// A watcher registers before it queries.
    WatchFirst,
    /// A reader of all jobs goes on from where nothing can appear any more.
    ChangesSettled,
    // Removal.
    /// An object that a row names is not marked for removal.
    ReferencedStays,
    /// Nobody begins to name an object between the look-up and the mark.
    MarkAlone,
    /// A result that names an object on its way out of storage is not believed.
    LeavingRefused,
    /// A task is dispatched under another prefix while something under its own is on its way out.
    LeavingAvoided,
    /// A removed key stays recorded until nobody can store or report it any more.
    TombstoneStays,
    /// Nothing is deleted while storage knows of later removals than the record.
    RemovalsAgreed,
    /// One pass of the cleaner runs at a time in a process.
    CleansAlone,
    /// Only what storage has confirmed counts as deleted.
    DeletedForSure,
    /// Outputs are removed only of jobs that have ended and were not retried since.
    RetryKeeps,
    // Batches.
    /// A step of a batch is recorded by the runner that has it.
    BatchHolder,
    /// A step of a batch names the state in which its runner read it.
    BatchExpected,
    /// A batch whose runner's lease is not over is taken by nobody else.
    BatchLease,
    /// A file that an open batch reads is not deleted.
    FileRead,
    // Callers.
    /// A call without a caller is refused.
    CallerKnown,
}

pub use state::{all_stand, stands, text};

#[cfg(not(feature = "failpoints"))]
mod state {
    use super::Guard;

    /// Whether a guard is active: always, except in its own test.
    #[must_use]
    #[inline(always)]
    pub const fn stands(_guard: Guard) -> bool {
        true
    }

    /// Whether every guard is active: always, except in the guards' tests.
    #[must_use]
    #[inline(always)]
    pub const fn all_stand() -> bool {
        true
    }

    /// A statement or script. The guard's own test replaces `part` of it by `instead`.
    #[must_use]
    #[inline(always)]
    pub const fn text(
        _guard: Guard,
        text: &'static str,
        _part: &str,
        _instead: &str,
    ) -> &'static str {
        text
    }
}

#[cfg(feature = "failpoints")]
mod state {
    use std::sync::{Mutex, PoisonError};

    use super::Guard;

    static OUT: Mutex<Option<Guard>> = Mutex::new(None);

    fn out() -> Option<Guard> {
        *OUT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a guard is active.
    #[must_use]
    pub fn stands(guard: Guard) -> bool {
        out() != Some(guard)
    }

    /// Whether every guard is active.
    #[must_use]
    pub fn all_stand() -> bool {
        out().is_none()
    }

    /// A statement or script. While the guard is out, `part` of it is replaced by `instead`.
    ///
    /// # Panics
    /// If the text does not contain `part`: it was changed, and the test would take nothing out.
    #[must_use]
    pub fn text(guard: Guard, text: &'static str, part: &str, instead: &str) -> &'static str {
        assert!(text.contains(part), "{guard:?}: there is no {part:?} to take out");
        if stands(guard) {
            return text;
        }
        // The text is leaked: a statement lives as long as its process, and a test makes few.
        Box::leak(text.replace(part, instead).into_boxed_str())
    }

    /// A guard that stays out until this value is dropped.
    #[derive(Debug)]
    pub struct TakenOut(());

    impl Guard {
        /// Takes the guard out of this process.
        ///
        /// # Panics
        /// If another guard is out already.
        #[must_use]
        pub fn take_out(self) -> TakenOut {
            let mut out = OUT.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(out.is_none(), "{out:?} is out already");
            *out = Some(self);
            TakenOut(())
        }
    }

    impl Drop for TakenOut {
        fn drop(&mut self) {
            *OUT.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

#[cfg(feature = "failpoints")]
pub use state::TakenOut;
