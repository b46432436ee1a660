//! A few threads that split one operation, in any division of the pieces.
//!
//! Every piece of work gives the same bits on any thread, so the number of threads changes no
//! result. Between operations, workers spin for some microseconds, because the next operation
//! follows at once, and then they sleep.

#![expect(
    unsafe_code,
    reason = "workers borrow the caller's closure for one call, which waits for all of them"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use super::threads::OneThread;

/// How often a worker looks for the next operation before it sleeps: some tens of microseconds.
const SPINS: u32 = 4000;

/// Most threads that are ever used.
const MOST: usize = 256;

/// The work of one call, as workers see it.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Job {
    /// Valid until `left` is 0, because the caller waits for that.
    work: *const Work<'static>,
    pieces: usize,
    /// The next piece to take.
    next: AtomicUsize,
    /// Workers that may still use the job.
    left: AtomicUsize,
    panicked: AtomicBool,
}

struct Worker {
    /// The address of the current job; 0 for none.
    job: AtomicUsize,
    thread: Thread,
}

struct Pool {
    workers: Vec<&'static Worker>,
}

/// The process's threads, created when needed. The holder of the lock uses them; other callers run
/// alone meanwhile.
fn pool() -> &'static Mutex<Pool> {
    static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Mutex::new(Pool { workers: Vec::new() }))
}

/// Calls `work` once for each of `0..pieces`, on this thread and on up to `threads − 1` others.
///
/// # Panics
/// When a piece panics.
pub(crate) fn run(threads: usize, pieces: usize, work: &Work<'_>) {
    let helpers = threads.min(MOST).min(pieces).saturating_sub(1);
    let guard = match pool().try_lock() {
        Ok(guard) if helpers > 0 => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) if helpers > 0 => {
            pool().clear_poison();
            Some(PoisonError::into_inner(poisoned))
        }
        _ => None,
    };
    let Some(mut pool) = guard else {
        (0..pieces).for_each(work);
        return;
    };
    while pool.workers.len() < helpers {
        match start_worker() {
            Some(worker) => pool.workers.push(worker),
            None => break,
        }
    }
    let helpers = helpers.min(pool.workers.len());
    // SAFETY: only the lifetime is forgotten. `job.left` below keeps this call from returning while
    // a worker holds it.
    let work: &'static Work<'static> =
        unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
    let job = Job {
        work,
        pieces,
        next: AtomicUsize::new(0),
        left: AtomicUsize::new(helpers),
        panicked: AtomicBool::new(false),
    };
    let address = std::ptr::from_ref(&job).expose_provenance();
    for worker in &pool.workers[..helpers] {
        worker.job.store(address, Ordering::Release);
        worker.thread.unpark();
    }
    let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_pieces(&job)));
    // No piece is left, so workers that have not joined yet need not join.
    for worker in &pool.workers[..helpers] {
        if worker.job.compare_exchange(address, 0, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            job.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let mut spins = 0;
    while job.left.load(Ordering::Acquire) > 0 {
        spins += 1;
        if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    drop(pool);
    if let Err(panic) = finished {
        std::panic::resume_unwind(panic);
    }
    assert!(!job.panicked.load(Ordering::Relaxed), "a piece of parallel work panicked");
}

fn take_pieces(job: &Job) {
    loop {
        let piece = job.next.fetch_add(1, Ordering::Relaxed);
        if piece >= job.pieces {
            return;
        }
        // SAFETY: the caller of `run`, who owns the closure, waits until `left` is 0, so it is
        // alive here.
        unsafe { (*job.work)(piece) };
    }
}

fn start_worker() -> Option<&'static Worker> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let main = move || {
        // For the lifetime of this thread.
        std::mem::forget(OneThread::enter());
        let worker: &'static Worker = Box::leak(Box::new(Worker {
            job: AtomicUsize::new(0),
            thread: std::thread::current(),
        }));
        if send.send(worker).is_err() {
            return;
        }
        loop {
            let mut spins = 0;
            let address = loop {
                match worker.job.swap(0, Ordering::Acquire) {
                    0 if spins < SPINS => {
                        spins += 1;
                        std::hint::spin_loop();
                    }
                    0 => std::thread::park(),
                    address => break address,
                }
            };
            // SAFETY: `run` put the address of a job on its stack there and waits until `left` is
            // 0.
            let job = unsafe { &*std::ptr::with_exposed_provenance::<Job>(address) };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_pieces(job))).is_err()
            {
                job.panicked.store(true, Ordering::Relaxed);
            }
            job.left.fetch_sub(1, Ordering::Release);
        }
    };
    std::thread::Builder::new().name("kernels".to_owned()).spawn(main).ok()?;
    receive.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            for pieces in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                run(threads, pieces, &|piece| {
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|count| count.load(Ordering::Relaxed) == 1),
                    "{threads} {pieces}"
                );
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_live_on() {
        let panics =
            std::panic::catch_unwind(|| run(2, 8, &|piece| assert!(piece != 5, "piece five")));
        assert!(panics.is_err());
        let done = AtomicUsize::new(0);
        run(2, 8, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 8);
    }
}
