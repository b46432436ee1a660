//! Runs a target on one input, and notices a panic, too much memory and too much time.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use crate::{MEMORY, targets::Target, verdict::Verdict};

thread_local! {
    /// The panics of a thread that runs a target, since it began.
    static PANICS: RefCell<Option<Vec<Panic>>> = const { RefCell::new(None) };
}

/// A panic, caught or not.
#[derive(Clone, Debug)]
struct Panic {
    ours: bool,
    text: String,
}

/// Runs `target` on one input.
///
/// # Errors
/// Why the input breaks a promise, in one paragraph.
pub fn run(target: &Target, input: &[u8]) -> Result<Verdict, String> {
    listen();
    let _alone = alone();
    let (most, most_time) = (target.most_memory(input.len()), target.most_time());
    let mut ran = once(target, input)?;
    if ran.memory > most || ran.time > most_time {
        // The first input of all makes tables that stay.
        ran = once(target, input)?;
    }
    let Ran { verdict, memory, time } = ran;
    let length = input.len();
    if memory > most {
        return Err(format!(
            "it took {memory} bytes of memory for an input of {length} bytes; allowed: {most}"
        ));
    }
    if time > most_time {
        return Err(format!(
            "it took {time:?} for an input of {length} bytes; allowed: {most_time:?}"
        ));
    }
    Ok(verdict)
}

/// What was measured while a target read an input.
struct Ran {
    verdict: Verdict,
    memory: usize,
    time: Duration,
}

fn once(target: &Target, input: &[u8]) -> Result<Ran, String> {
    PANICS.set(Some(Vec::new()));
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let begin = processor_time();
    let verdict = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let time = processor_time().saturating_sub(begin);
    let memory = MEMORY.peak_usage().saturating_sub(before);
    let panics = PANICS.take().unwrap_or_default();
    // A decoder of somebody else may panic where we catch it; our own code may not.
    if let Some(ours) = panics.iter().find(|panic| panic.ours) {
        return Err(ours.text.clone());
    }
    let verdict = verdict.map_err(|_| {
        panics.last().map_or_else(|| "it panicked".to_owned(), |panic| panic.text.clone())
    })?;
    Ok(Ran { verdict, memory, time })
}

/// What the processor has spent on this thread. Other work on the machine does not count.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// One input at a time in a process, because the memory of all threads is counted together.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what panics say, instead of printing it.
fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("a panic without a message");
            let theirs = place.contains("/registry/src/") || place.starts_with("/rustc/");
            let kept = PANICS.with_borrow_mut(|panics| match panics {
                Some(all) => {
                    all.push(Panic { ours: !theirs, text: format!("panic at {place}: {message}") });
                    true
                }
                None => false,
            });
            if !kept {
                before(info);
            }
        }));
    });
}
