//! Threads that each encode one text at a time, on the host.
//!
//! A text's matrices are small: two threads that share one text wait for each other at every operation, and two
//! threads with a text each do not. And a text that is always computed alone, by the same number of threads, has the
//! same bytes whatever else is encoded beside it.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use tch::Tensor;

use super::{EncodedText, encoded};
use crate::device;
use crate::error::RenderError;
use crate::t5::{Keys, T5Encoder};
use crate::tokenizer::Tokens;

/// Most texts that are encoded at a time on a machine of many cores; further ones help with each of these.
const MOST: usize = 4;

/// How many texts are encoded at a time, and by how many threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) texts: usize,
    pub(crate) threads_each: usize,
}

impl Plan {
    /// For so many threads in all. A text's bytes depend on `threads_each` alone, which is 1 below eight.
    pub(crate) fn new(threads: usize) -> Self {
        let threads_each = (threads / MOST).max(1);
        Self { texts: (threads / threads_each).max(1), threads_each }
    }
}

/// The threads. They end when this is dropped.
pub(super) struct Lanes {
    work: Option<mpsc::SyncSender<Text>>,
    threads: Vec<JoinHandle<()>>,
}

/// A text to encode, and where its embedding goes.
struct Text {
    position: usize,
    tokens: Tokens,
    reply: mpsc::Sender<(usize, Result<EncodedText, RenderError>)>,
}

impl Lanes {
    /// Starts the threads on shares of an encoder.
    pub(super) fn start(encoder: &T5Encoder, plan: Plan) -> std::io::Result<Self> {
        let (work, texts) = mpsc::sync_channel::<Text>(plan.texts);
        let texts = Arc::new(Mutex::new(texts));
        let mut threads = Vec::with_capacity(plan.texts);
        device::with_threads_elsewhere(plan.threads_each, |own| -> std::io::Result<()> {
            for lane in 0..plan.texts {
                let (encoder, texts) = (encoder.share(), Arc::clone(&texts));
                let (ready, is_ready) = mpsc::channel();
                let run = move || {
                    own.take();
                    let _ = ready.send(());
                    let _no_grad = tch::no_grad_guard();
                    loop {
                        // The lock is held while this lane waits: the others wait for the lock instead.
                        let next = texts.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(text) = next else { return };
                        let result = one(&encoder, &text.tokens);
                        // Nobody waits any more: the work is dropped.
                        let _ = text.reply.send((text.position, result));
                    }
                };
                threads.push(std::thread::Builder::new().name(format!("encoder-{lane}")).spawn(run)?);
                let _ = is_ready.recv();
            }
            Ok(())
        })?;
        Ok(Self { work: Some(work), threads })
    }

    /// Encodes every text, in order.
    pub(super) fn encode(&self, texts: Vec<Tokens>) -> Result<Vec<EncodedText>, RenderError> {
        let gone = || RenderError::Torch("a thread of the text encoder ended".to_owned());
        let count = texts.len();
        let (reply, results) = mpsc::channel();
        let work = self.work.as_ref().ok_or_else(gone)?;
        for (position, tokens) in texts.into_iter().enumerate() {
            work.send(Text { position, tokens, reply: reply.clone() }).map_err(|_| gone())?;
        }
        drop(reply);
        let mut encoded: Vec<Option<EncodedText>> = vec![None; count];
        for (position, result) in results {
            encoded[position] = Some(result.map_err(|error| match error {
                RenderError::NonFinite { .. } => RenderError::NonFinite { row: position },
                other => other,
            })?);
        }
        encoded.into_iter().collect::<Option<_>>().ok_or_else(gone)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Encodes one text by itself: its padding's keys and values are left out.
fn one(encoder: &T5Encoder, tokens: &Tokens) -> Result<EncodedText, RenderError> {
    let ids: Vec<i64> = tokens.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::f_from_slice(&ids)?.f_unsqueeze(0)?;
    let mask: Vec<i64> = tokens.mask.iter().map(|real| i64::from(*real)).collect();
    let real = mask.iter().take_while(|real| **real == 1).count();
    let states = if real > 0 && mask[real..].iter().all(|real| *real == 0) {
        encoder.forward(&ids, &Keys::First(real as i64))?
    } else {
        encoder.forward(&ids, &Keys::Masked(&Tensor::f_from_slice(&mask)?.f_unsqueeze(0)?))?
    };
    encoded(&states.f_select(0, 0)?, tokens, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_cores_take_a_text_each_and_many_share_four() {
        let plan = |threads| {
            let Plan { texts, threads_each } = Plan::new(threads);
            (texts, threads_each)
        };
        assert_eq!([0, 1, 2, 4, 7].map(plan), [(1, 1), (1, 1), (2, 1), (4, 1), (7, 1)]);
        assert_eq!([8, 9, 16, 30].map(plan), [(4, 2), (4, 2), (4, 4), (4, 7)]);
    }
}
