//! Threads on the host that each encode different texts.
//!
//! A text's matrices are small. Two threads that share one text wait for each other at every
//! operation; two threads with different texts do not. With this crate's kernels a row's bits
//! depend on that row alone, so a few texts share a pass. With libtorch a text is always computed
//! alone, by the same number of threads. Either way, other texts do not change its bytes.

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

/// Most texts that are encoded at the same time on a machine with many cores; further cores help
/// with each of these.
const MOST: usize = 4;

/// How many texts are encoded at the same time, and with how many threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) texts: usize,
    pub(crate) threads_each: usize,
}

impl Plan {
    /// For this many threads in all. If a text's bytes depend on threads, they depend only on
    /// `threads_each`, which is 1 below eight.
    pub(crate) fn new(threads: usize) -> Self {
        let threads_each = (threads / MOST).max(1);
        Self { texts: (threads / threads_each).max(1), threads_each }
    }
}

/// The threads. They end when this is dropped.
pub(super) struct Lanes {
    work: Option<mpsc::SyncSender<Text>>,
    threads: Vec<JoinHandle<()>>,
    /// Most texts per pass.
    most: usize,
}

/// Texts that share a pass, and where the first embedding goes; the others follow it.
struct Text {
    position: usize,
    tokens: Vec<Tokens>,
    reply: mpsc::Sender<(usize, Result<EncodedText, RenderError>)>,
}

impl Lanes {
    /// Starts the threads, each with a share of the encoder.
    pub(super) fn start(encoder: &T5Encoder, plan: Plan, most: usize) -> std::io::Result<Self> {
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
                        // The lock is held while this lane waits; the other lanes wait for the lock
                        // instead.
                        let next = texts.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(text) = next else { return };
                        for (offset, result) in
                            together(&encoder, &text.tokens).into_iter().enumerate()
                        {
                            // Nobody waits for the result any more, so the work is dropped.
                            let _ = text.reply.send((text.position + offset, result));
                        }
                    }
                };
                threads
                    .push(std::thread::Builder::new().name(format!("encoder-{lane}")).spawn(run)?);
                let _ = is_ready.recv();
            }
            Ok(())
        })?;
        Ok(Self { work: Some(work), threads, most })
    }

    /// How many of these texts share a pass, such that all threads have work.
    fn share(&self, count: usize) -> usize {
        count.div_ceil(self.threads.len().max(1)).clamp(1, self.most)
    }

    /// Encodes every text, in order.
    pub(super) fn encode(&self, texts: Vec<Tokens>) -> Result<Vec<EncodedText>, RenderError> {
        let gone = || RenderError::Torch("a thread of the text encoder ended".to_owned());
        let count = texts.len();
        let (reply, results) = mpsc::channel();
        let work = self.work.as_ref().ok_or_else(gone)?;
        let mut position = 0;
        let mut texts = texts.into_iter();
        loop {
            let tokens: Vec<Tokens> = texts.by_ref().take(self.share(count)).collect();
            let taken = tokens.len();
            if taken == 0 {
                break;
            }
            work.send(Text { position, tokens, reply: reply.clone() }).map_err(|_| gone())?;
            position += taken;
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
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

/// Encodes texts in one pass if their lengths allow that, otherwise one by one. The keys and values
/// of padding are left out.
fn together(encoder: &T5Encoder, texts: &[Tokens]) -> Vec<Result<EncodedText, RenderError>> {
    let real: Option<Vec<i64>> = texts.iter().map(real_positions).collect();
    let length = texts.first().map_or(0, |tokens| tokens.ids.len());
    match real {
        Some(real) if texts.iter().all(|tokens| tokens.ids.len() == length) => {
            match pass(encoder, texts, &Keys::First(&real)) {
                Ok(states) => texts
                    .iter()
                    .enumerate()
                    .map(|(row, tokens)| encoded(&states.f_select(0, row as i64)?, tokens, row))
                    .collect(),
                Err(_) if texts.len() > 1 => {
                    texts.iter().map(|tokens| alone(encoder, tokens)).collect()
                }
                Err(error) => vec![Err(error)],
            }
        }
        _ => texts.iter().map(|tokens| alone(encoder, tokens)).collect(),
    }
}

fn alone(encoder: &T5Encoder, tokens: &Tokens) -> Result<EncodedText, RenderError> {
    let states = match real_positions(tokens) {
        Some(real) => pass(encoder, std::slice::from_ref(tokens), &Keys::First(&[real]))?,
        None => {
            let mask: Vec<i64> = tokens.mask.iter().map(|real| i64::from(*real)).collect();
            let mask = Tensor::f_from_slice(&mask)?.f_unsqueeze(0)?;
            pass(encoder, std::slice::from_ref(tokens), &Keys::Masked(&mask))?
        }
    };
    encoded(&states.f_select(0, 0)?, tokens, 0)
}

/// How many positions are real, if there are any and they come first.
fn real_positions(tokens: &Tokens) -> Option<i64> {
    let real = tokens.mask.iter().take_while(|real| **real == 1).count();
    (real > 0 && tokens.mask[real..].iter().all(|real| *real == 0)).then_some(real as i64)
}

/// Encodes texts of one length, `[texts, length, dimension]`.
fn pass(encoder: &T5Encoder, texts: &[Tokens], keys: &Keys<'_>) -> Result<Tensor, RenderError> {
    let ids: Vec<i64> =
        texts.iter().flat_map(|tokens| &tokens.ids).map(|id| i64::from(*id)).collect();
    Ok(encoder.forward(&Tensor::f_from_slice(&ids)?.f_view([texts.len() as i64, -1])?, keys)?)
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
