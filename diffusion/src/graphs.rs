//! Records a network's pass once and replays it at every step: on a GPU that is one launch instead
//! of a thousand.
//!
//! A recording is for one shape of question. It reads its own tensors (picture, time, text, deeper
//! features), into which those of each step are copied, and writes its own tensors, which are
//! copied out. Anything else that a pass read would be frozen into the recording. So a recording is
//! used only after it gave the bits of an ordinary pass twice, at two different steps. If one fails
//! or differs, its model makes no more recordings and runs operation by operation, with a warning.
//! See docs/adr/0018-cuda-graphs.md.

use std::cell::RefCell;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::cuda;
use crate::device::Placement;
use crate::layers::Torch;
use crate::unet::{Conditioning, Network};

/// Ordinary passes of a shape before it is recorded: shapes that are used once are not worth it.
const PASSES_BEFORE: usize = 2;
/// Most recordings of one model; the least recently used is dropped.
const MOST: usize = 4;
/// Most shapes whose passes are counted.
const MOST_COUNTED: usize = 16;
/// Steps at which a recording is compared with an ordinary pass.
const CHECKS: usize = 2;
/// Most pixels of all rows of a pass. With more, a launch takes less time than the work that it
/// starts, and the memory that a recording keeps is too expensive.
const MOST_PIXELS: i64 = 512 * 512;

/// The input of a network in one pass.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    /// `[rows, channels, height, width]`, channels-last.
    pub(crate) x: &'a Tensor,
    pub(crate) timestep: u32,
    pub(crate) conditioning: &'a Conditioning,
    /// Features of another step to reuse.
    pub(crate) deep: Option<&'a Tensor>,
    /// Whether the features of this step are kept.
    pub(crate) keeps_deep: bool,
}

/// The recordings of one model.
pub(crate) struct Graphs {
    recorder: Recorder,
    state: RefCell<State>,
}

enum Recorder {
    /// Every pass is an ordinary one; this is the reason.
    None(String),
    Cuda(cuda::Recorder),
    #[cfg(test)]
    Test(tests::Twin),
}

enum Recording {
    Cuda(cuda::Recording),
    #[cfg(test)]
    Test(tests::Twin),
}

#[derive(Default)]
struct State {
    /// In order of use; the last one was used most recently.
    kept: Vec<Recorded>,
    counted: Vec<(Shape, usize)>,
    /// Why the model makes no further recordings.
    given_up: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    x: Vec<i64>,
    kind: Kind,
    text_length: i64,
    uses_deep: bool,
}

struct Recorded {
    /// Dropped first: it waits until the device no longer uses the tensors.
    recording: Recording,
    shape: Shape,
    own: Own,
    /// The conditioning that `own` has.
    conditioned: Option<Arc<()>>,
    output: Tensor,
    deep: Tensor,
    checks_left: usize,
}

/// The tensors that a recording reads.
struct Own {
    x: Tensor,
    time: Tensor,
    conditioning: Conditioning,
    deep: Option<Tensor>,
}

impl Graphs {
    /// The recordings for a network with this placement; `eager` turns them off.
    pub(crate) fn new(placement: Placement, eager: bool) -> Self {
        let none = |reason: &str| Recorder::None(reason.to_owned());
        let recorder = match placement.engine.gpu() {
            Some(_) if eager => none("graphs are turned off"),
            Some(index) => match cuda::Recorder::new(index) {
                Ok(recorder) => Recorder::Cuda(recorder),
                Err(reason) => {
                    tracing::warn!(
                        reason,
                        "no CUDA graphs, so every operation is launched separately"
                    );
                    Recorder::None(reason)
                }
            },
            None => none("it is not on a GPU"),
        };
        Self { recorder, state: RefCell::default() }
    }

    /// The network's answer, and its deeper features, which are valid only if the question keeps
    /// them.
    pub(crate) fn pass(
        &self,
        network: &Network,
        question: &Question<'_>,
    ) -> Torch<(Tensor, Tensor)> {
        let ordinary =
            || network.forward(question.x, question.timestep, question.conditioning, question.deep);
        let mut state = self.state.borrow_mut();
        if matches!(self.recorder, Recorder::None(_))
            || state.given_up.is_some()
            || pixels(question.x) > MOST_PIXELS
        {
            return ordinary();
        }
        let shape = Shape::of(question);
        if let Some(recorded) = state.find(&shape) {
            match recorded.pass(network, question, ordinary) {
                Ok(answer) => return Ok(answer),
                Err(reason) => {
                    state.give_up(&shape, &reason);
                    // If the device itself is broken, this reports it.
                    return ordinary();
                }
            }
        }
        let answer = ordinary()?;
        if state.count(&shape) > PASSES_BEFORE {
            match self.record(network, question) {
                Ok(recorded) => state.keep(recorded),
                Err(reason) => state.give_up(&shape, &reason),
            }
        }
        Ok(answer)
    }

    /// How many recordings it has, or why it makes none.
    pub(crate) fn kept(&self) -> Result<usize, String> {
        let state = self.state.borrow();
        match (&self.recorder, &state.given_up) {
            (Recorder::None(reason), _) | (_, Some(reason)) => Err(reason.clone()),
            _ => Ok(state.kept.len()),
        }
    }

    /// Memory ran out: drops all recordings, for good. Returns whether there were any.
    pub(crate) fn give_back(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if state.kept.is_empty() {
            return false;
        }
        tracing::warn!(
            graphs = state.kept.len(),
            "memory ran out, so this model's graphs are dropped and it makes no more"
        );
        state.drop_all("memory ran out");
        true
    }

    fn record(&self, network: &Network, question: &Question<'_>) -> Result<Recorded, String> {
        let mut own = Own::like(question).map_err(|error| error.to_string())?;
        own.fill(question, true).map_err(|error| error.to_string())?;
        let pass = || network.forward_at(&own.x, &own.time, &own.conditioning, own.deep.as_ref());
        let ((output, deep), recording) = match &self.recorder {
            Recorder::None(reason) => return Err(reason.clone()),
            Recorder::Cuda(recorder) => {
                let (result, recording) = recorder.record(pass)?;
                (result, Recording::Cuda(recording))
            }
            #[cfg(test)]
            Recorder::Test(twin) => (twin.record(pass)?, Recording::Test(*twin)),
        };
        let conditioned = Some(question.conditioning.identity());
        Ok(Recorded {
            recording,
            shape: Shape::of(question),
            own,
            conditioned,
            output,
            deep,
            checks_left: CHECKS,
        })
    }
}

impl State {
    /// A recording of this shape, which is now the most recently used.
    fn find(&mut self, shape: &Shape) -> Option<&mut Recorded> {
        let place = self.kept.iter().position(|recorded| &recorded.shape == shape)?;
        let recorded = self.kept.remove(place);
        self.kept.push(recorded);
        self.kept.last_mut()
    }

    fn keep(&mut self, recorded: Recorded) {
        self.counted.retain(|(shape, _)| shape != &recorded.shape);
        if self.kept.len() >= MOST {
            self.kept.remove(0);
        }
        self.kept.push(recorded);
    }

    /// Counts one more pass of a shape.
    fn count(&mut self, shape: &Shape) -> usize {
        let before = self.counted.iter().position(|(known, _)| known == shape);
        let count = before.map_or(0, |place| self.counted.remove(place).1) + 1;
        if self.counted.len() >= MOST_COUNTED {
            self.counted.remove(0);
        }
        self.counted.push((shape.clone(), count));
        count
    }

    fn give_up(&mut self, shape: &Shape, reason: &str) {
        tracing::warn!(
            reason,
            rows.shape = ?shape.x,
            "a graph failed, so from now on this model launches every operation separately"
        );
        self.drop_all(reason);
    }

    fn drop_all(&mut self, reason: &str) {
        self.given_up = Some(reason.to_owned());
        self.kept.clear();
        self.counted.clear();
    }
}

impl Shape {
    /// Everything that can vary between questions to one network; all other extents follow from
    /// these.
    fn of(question: &Question<'_>) -> Self {
        let text = &question.conditioning.text;
        Self {
            x: question.x.size(),
            kind: question.x.kind(),
            text_length: text
                .first()
                .and_then(|(keys, _)| keys.size().get(1).copied())
                .unwrap_or(0),
            uses_deep: question.deep.is_some(),
        }
    }
}

fn pixels(x: &Tensor) -> i64 {
    let size = x.size();
    size.iter().product::<i64>() / size.get(1).copied().unwrap_or(1).max(1)
}

impl Recorded {
    fn pass(
        &mut self,
        network: &Network,
        question: &Question<'_>,
        ordinary: impl FnOnce() -> Torch<(Tensor, Tensor)>,
    ) -> Result<(Tensor, Tensor), String> {
        let said = |error: tch::TchError| error.to_string();
        let identity = question.conditioning.identity();
        let is_there = self.conditioned.as_ref().is_some_and(|known| Arc::ptr_eq(known, &identity));
        // Until the copies are made, it holds neither this conditioning nor the last one.
        self.conditioned = None;
        self.own.fill(question, !is_there).map_err(said)?;
        self.conditioned = Some(identity);
        self.replay(network)?;
        if self.checks_left == 0 {
            let deep =
                if question.keeps_deep { copy(&self.deep) } else { Ok(self.deep.shallow_clone()) };
            return Ok((copy(&self.output).map_err(said)?, deep.map_err(said)?));
        }
        let answer = ordinary().map_err(said)?;
        let same = same_bits(&answer.0, &self.output).map_err(said)?
            && same_bits(&answer.1, &self.deep).map_err(said)?;
        if !same {
            return Err("its result differs from an ordinary pass's".to_owned());
        }
        self.checks_left -= 1;
        Ok(answer)
    }

    /// Computes the recording's output from its input.
    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "a recording of CUDA's needs no network any more")
    )]
    fn replay(&mut self, network: &Network) -> Result<(), String> {
        match &self.recording {
            Recording::Cuda(recording) => recording.replay(),
            #[cfg(test)]
            Recording::Test(twin) => {
                let Own { x, time, conditioning, deep } = &self.own;
                let again = || network.forward_at(x, time, conditioning, deep.as_ref());
                twin.replay(again, (&mut self.output, &mut self.deep))
            }
        }
    }
}

impl Own {
    fn like(question: &Question<'_>) -> Torch<Self> {
        let Conditioning { embedding, text, .. } = question.conditioning;
        let text = text.iter().map(|(key, value)| Ok((key.f_empty_like()?, value.f_empty_like()?)));
        let embedding = embedding.as_ref().map(Tensor::f_empty_like).transpose()?;
        Ok(Self {
            x: question.x.f_empty_like()?,
            time: Tensor::f_zeros([1], (Kind::Float, question.x.device()))?,
            conditioning: Conditioning::new(embedding, text.collect::<Torch<_>>()?),
            deep: question.deep.map(Tensor::f_empty_like).transpose()?,
        })
    }

    /// Copies the question's tensors in; the conditioning only if it changed.
    fn fill(&mut self, question: &Question<'_>, conditioning: bool) -> Torch<()> {
        self.x.f_copy_(question.x)?;
        let _ = self.time.f_fill_(f64::from(question.timestep))?;
        if let (Some(own), Some(deep)) = (&mut self.deep, question.deep) {
            own.f_copy_(deep)?;
        }
        if !conditioning {
            return Ok(());
        }
        if let (Some(own), Some(embedding)) =
            (&mut self.conditioning.embedding, &question.conditioning.embedding)
        {
            own.f_copy_(embedding)?;
        }
        for (own, (key, value)) in
            self.conditioning.text.iter_mut().zip(&question.conditioning.text)
        {
            own.0.f_copy_(key)?;
            own.1.f_copy_(value)?;
        }
        Ok(())
    }
}

fn copy(tensor: &Tensor) -> Torch<Tensor> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

/// Whether two tensors have the same bits; equal NaNs count as the same.
fn same_bits(a: &Tensor, b: &Tensor) -> Torch<bool> {
    let bits = |tensor: &Tensor| match tensor.kind() {
        Kind::BFloat16 | Kind::Half => tensor.f_view_dtype(Kind::Int16),
        Kind::Float => tensor.f_view_dtype(Kind::Int),
        _ => Ok(tensor.shallow_clone()),
    };
    Ok(a.size() == b.size() && a.kind() == b.kind() && bits(a)?.f_equal(&bits(b)?)?)
}

#[cfg(test)]
mod tests;
