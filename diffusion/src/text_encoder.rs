//! Turns texts into embeddings: the tokenizer and the T5 encoder together. On the host several
//! threads encode different texts, several per pass if that does not change their bytes. On a GPU
//! there are passes of eight.

mod lanes;

use std::path::Path;

use darkroom_core::shown::shown_path;
use tch::{Kind, Tensor};

use crate::config::ConfigFile;
use crate::device::{LoadOptions, Placement, place_network};
use crate::error::{LoadError, RenderError};
use crate::host::HostTensor;
use crate::t5::{Keys, T5Config, T5Encoder};
use crate::tokenizer::{Tokenizer, Tokens};
use crate::weights::{Weights, WeightsSurvey};

use lanes::{Lanes, Plan};

/// The name of weights files, without the extension.
const STEM: &str = "model";

/// A text encoder in memory. It belongs to one thread at a time.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    encoder: T5Encoder,
    placement: Placement,
    plan: Plan,
    /// On the host.
    lanes: Option<Lanes>,
}

/// The content of the folders of an encoder and a tokenizer, by configuration and headers alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderSurvey {
    /// Width of an embedding.
    pub dimension: usize,
    /// Number of tokens that the encoder knows.
    pub vocabulary: usize,
    /// Number of tokens that the tokenizer may give.
    pub tokens: usize,
    /// The encoder's weights.
    pub weights: WeightsSurvey,
    /// Unknown keys of its configuration.
    pub unknown_keys: Vec<String>,
}

/// One text's embedding, and what the tokenizer did to the text.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedText {
    /// `[length, dimension]`, padding positions included: the networks attend to all of them.
    pub embedding: HostTensor,
    /// How many positions are real tokens, with the end token.
    pub tokens: usize,
    /// How many tokens were cut off.
    pub truncated_tokens: usize,
    /// Words, as written, with a part that is not in the vocabulary.
    pub unknown_words: Vec<String>,
}

impl TextEncoder {
    /// Loads a T5 v1.1 encoder and its tokenizer. Every text is padded or cut to `max_length`
    /// tokens.
    pub fn load(
        text_encoder_dir: &Path,
        tokenizer_dir: &Path,
        max_length: usize,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        Self::load_with_length(text_encoder_dir, tokenizer_dir, Some(max_length), options)
    }

    /// The same; if `max_length` is absent, the tokenizer's own file sets the length.
    pub(crate) fn load_with_length(
        text_encoder_dir: &Path,
        tokenizer_dir: &Path,
        max_length: Option<usize>,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let placement = place_network(options)?;
        let _no_grad = tch::no_grad_guard();
        let file = ConfigFile::open(&text_encoder_dir.join("config.json"))?;
        let config = T5Config::read(&file)?;
        let tokenizer = Tokenizer::load(tokenizer_dir, max_length, config.pad_token)?;
        check_fit(&tokenizer, tokenizer_dir, &config, text_encoder_dir)?;
        let weights = Weights::open(text_encoder_dir, STEM, placement)?;
        let encoder = T5Encoder::load(config, weights, placement)?;
        let plan = Plan::new(usize::try_from(tch::get_num_threads()).unwrap_or(1));
        let lanes = if placement.engine.encodes_in_lanes() {
            let started = Lanes::start(&encoder, plan, placement.engine.texts_per_lane());
            Some(started.map_err(|source| LoadError::read(text_encoder_dir, source))?)
        } else {
            None
        };
        let this = Self { tokenizer, encoder, placement, plan, lanes };
        tracing::info!(device.class = this.row_class(), texts = plan.texts, "text encoder loaded");
        Ok(this)
    }

    /// Checks everything that [`Self::load`] checks, except the weights' values, from headers.
    /// `variant` names a set of weights (`fp16`, `bf16`, `fp32`); if absent, the preferred one is
    /// used.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn survey(
        text_encoder_dir: &Path,
        tokenizer_dir: &Path,
        variant: Option<&str>,
    ) -> Result<EncoderSurvey, LoadError> {
        let file = ConfigFile::open(&text_encoder_dir.join("config.json"))?;
        let config = T5Config::read(&file)?;
        let tokenizer = Tokenizer::load(tokenizer_dir, None, config.pad_token)?;
        check_fit(&tokenizer, tokenizer_dir, &config, text_encoder_dir)?;
        let (dimension, vocabulary) = (config.d_model, config.vocab);
        let weights = Weights::survey(text_encoder_dir, STEM, variant)?;
        let weights = T5Encoder::survey(config, weights)?;
        let unknown_keys = file.unknown_keys();
        Ok(EncoderSurvey {
            dimension,
            vocabulary,
            tokens: tokenizer.vocabulary(),
            weights,
            unknown_keys,
        })
    }

    /// The width of an embedding.
    pub fn dimension(&self) -> usize {
        self.encoder.config().d_model
    }

    /// The class of device within which a text always has the same embedding, bit for bit.
    pub fn row_class(&self) -> String {
        let class = self.placement.class_with(self.plan.threads_each);
        format!("{class}/{}", self.placement.engine.describe_texts())
    }

    /// Encodes every text, in order. Texts are taken as they are: lower-casing and cleaning happen
    /// before.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<EncodedText>, RenderError> {
        let _no_grad = tch::no_grad_guard();
        let tokens: Vec<Tokens> = texts
            .iter()
            .map(|text| {
                self.tokenizer.encode(text).map_err(|message| RenderError::invalid("text", message))
            })
            .collect::<Result<_, _>>()?;
        tokens.iter().try_for_each(|tokens| self.check(tokens))?;
        if let Some(lanes) = &self.lanes {
            return lanes.encode(tokens);
        }
        let mut done = Vec::with_capacity(texts.len());
        for group in tokens.chunks(self.placement.engine.texts_per_pass()) {
            let states = self.forward(group)?;
            for (position, tokens) in group.iter().enumerate() {
                done.push(encoded(&states.f_select(0, position as i64)?, tokens, done.len())?);
            }
        }
        Ok(done)
    }

    pub(crate) fn tokenize(&self, text: &str) -> Result<Tokens, RenderError> {
        self.tokenizer.encode(text).map_err(|message| RenderError::invalid("text", message))
    }

    fn check(&self, tokens: &Tokens) -> Result<(), RenderError> {
        let vocab = self.encoder.config().vocab;
        match tokens.ids.iter().find(|id| **id as usize >= vocab) {
            None => Ok(()),
            Some(id) => {
                let message =
                    format!("the tokenizer gave id {id}, but the encoder knows {vocab} tokens");
                Err(RenderError::invalid("text", message))
            }
        }
    }

    /// A fixed number of rows. Rows beyond the texts are padding tokens that are not masked, so
    /// that no row is empty.
    fn forward(&self, group: &[Tokens]) -> Result<Tensor, RenderError> {
        let length = group.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0);
        let rows = self.placement.engine.texts_per_pass();
        let mut ids = vec![i64::from(self.encoder.config().pad_token); rows * length];
        let mut mask = vec![1_i64; rows * length];
        for (row, tokens) in group.iter().enumerate() {
            for (position, (id, real)) in tokens.ids.iter().zip(&tokens.mask).enumerate() {
                ids[row * length + position] = i64::from(*id);
                mask[row * length + position] = i64::from(*real);
            }
            // Texts of one tokenizer file are padded to one length; without padding, rows have
            // different lengths.
            mask[row * length + tokens.ids.len()..(row + 1) * length].fill(0);
        }
        let tensor = |values: &[i64]| {
            Tensor::f_from_slice(values)?
                .f_reshape([rows as i64, length as i64])?
                .f_to_kind(Kind::Int64)?
                .f_to_device(self.placement.device())
        };
        Ok(self.encoder.forward(&tensor(&ids)?, &Keys::Masked(&tensor(&mask)?))?)
    }
}

/// A text's last hidden state, `[length, dimension]`, with the tokenizer's notes; `row` is its
/// position in the call.
fn encoded(state: &Tensor, tokens: &Tokens, row: usize) -> Result<EncodedText, RenderError> {
    let embedding = HostTensor::from_tensor(state)?;
    if !embedding.is_finite() {
        return Err(RenderError::NonFinite { row });
    }
    Ok(EncodedText {
        embedding,
        tokens: tokens.count,
        truncated_tokens: tokens.truncated,
        unknown_words: tokens.unknown_words.clone(),
    })
}

/// A tokenizer with ids that the encoder does not have, or without its end token, is for another
/// encoder.
fn check_fit(
    tokenizer: &Tokenizer,
    tokenizer_dir: &Path,
    config: &T5Config,
    text_encoder_dir: &Path,
) -> Result<(), LoadError> {
    let refuse = |message| Err(LoadError::Tokenizer { path: tokenizer_dir.to_owned(), message });
    let encoder = shown_path(text_encoder_dir);
    if tokenizer.vocabulary() > config.vocab {
        return refuse(format!(
            "it has {} tokens, and the encoder in {encoder} knows {}: they do not belong together",
            tokenizer.vocabulary(),
            config.vocab
        ));
    }
    let ids = tokenizer.ids("a", true).unwrap_or_default();
    match ids.last() {
        Some(last) if *last == config.end_token => Ok(()),
        _ => refuse(format!(
            "it ends the text \"a\" in ids {ids:?}, without the end token {} of the encoder in {encoder}: they do not belong together",
            config.end_token
        )),
    }
}
