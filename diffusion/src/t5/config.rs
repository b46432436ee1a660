//! The content of `text_encoder/config.json`, and the distance buckets of the relative bias.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::config::{ConfigFile, EPSILON, LAYERS, WIDTH};
use crate::error::LoadError;

/// The shape of a T5 v1.1 encoder.
#[derive(Clone, Debug)]
pub(crate) struct T5Config {
    pub(crate) vocab: usize,
    pub(crate) d_model: usize,
    pub(crate) d_ff: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) layers: usize,
    pub(crate) buckets: usize,
    pub(crate) max_distance: usize,
    pub(crate) eps: f64,
    pub(crate) pad_token: u32,
    /// The token that ends every text.
    pub(crate) end_token: u32,
}

/// Most tokens of a vocabulary. The largest published ones have a quarter of a million.
const VOCABULARY: RangeInclusive<usize> = 1..=crate::tokenizer::MAX_VOCABULARY;

/// Keys that do not affect the encoder's computation: for the decoder, for training, about the
/// origin of the weights, and transformers' own notes. All of them occur in published
/// configurations of T5 v1.1, Flan-T5 and DeepFloyd IF.
const WITHOUT_EFFECT: &[&str] = &[
    "add_cross_attention",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout_rate",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "n_positions",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_decoder_layers",
    "num_return_sequences",
    "output_past",
    "prefix",
    "problem_type",
    "repetition_penalty",
    "scale_decoder_outputs",
    "sep_token_id",
    "task_specific_params",
    "suppress_tokens",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "typical_p",
    "use_cache",
];

/// Keys of older transformers that do not affect it either, as long as they have their usual
/// values.
const DEFAULTS: &[(&str, bool)] = &[
    ("is_decoder", false),
    ("output_attentions", false),
    ("output_hidden_states", false),
    ("output_scores", false),
    ("remove_invalid_values", false),
    ("return_dict", true),
    ("return_dict_in_generate", false),
    ("torchscript", false),
    ("use_bfloat16", false),
];

impl T5Config {
    pub(crate) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        config.only("model_type", &json!("t5"))?;
        read_feed_forward(config)?;
        WITHOUT_EFFECT.iter().for_each(|key| config.passed_over(key));
        for (key, value) in DEFAULTS {
            config.only(key, &json!(*value))?;
        }
        for key in ["pruned_heads", "quantization_config"] {
            let is_empty =
                config.get(key).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
            if !is_empty || config.get(key).is_some_and(|value| !value.is_object()) {
                return Err(config.refuse(key, "none, or no such key"));
            }
        }
        let vocab = config.count("vocab_size", 32_128, VOCABULARY)?;
        let buckets = config.count("relative_attention_num_buckets", 32, 4..=4096)?;
        if !buckets.is_multiple_of(2) {
            return Err(
                config.refuse("relative_attention_num_buckets", "an even number from 4 to 4096")
            );
        }
        // Distances up to a quarter of the buckets have one bucket each. The rest of the range is
        // divided by what is beyond.
        let nearest = buckets / 4 + 1;
        let token = |key: &str, default: usize| config.count(key, default, 0..=vocab - 1);
        Ok(Self {
            vocab,
            d_model: config.count("d_model", 512, WIDTH)?,
            d_ff: config.count("d_ff", 2048, WIDTH)?,
            heads: config.count("num_heads", 8, 1..=1024)?,
            head_dim: config.count("d_kv", 64, 1..=8192)?,
            layers: config.count("num_layers", 6, LAYERS)?,
            buckets,
            max_distance: config.count(
                "relative_attention_max_distance",
                128,
                nearest..=1 << 20,
            )?,
            eps: config.number("layer_norm_epsilon", 1e-6, EPSILON)?,
            pad_token: token("pad_token_id", 0)? as u32,
            end_token: token("eos_token_id", 1)? as u32,
        })
    }

    /// The bucket of a distance from query to key. Each direction has half of the buckets: half of
    /// these are for single distances, and half for wider and wider ranges up to the greatest
    /// distance. Computed in f32 like the reference, because rounding decides at the borders of the
    /// ranges.
    pub(super) fn bucket(&self, distance: i64) -> i64 {
        let side = (self.buckets / 2) as i64;
        let first = if distance > 0 { side } else { 0 };
        let (distance, single) = (distance.abs(), side / 2);
        if distance < single {
            return first + distance;
        }
        let range = (self.max_distance as f64 / single as f64).ln();
        let position =
            (distance as f32 / single as f32).ln() / range as f32 * (side - single) as f32;
        first + (single + position as i64).min(side - 1)
    }
}

/// The feed-forward is gated by GELU in its tanh form, as in T5 v1.1. `feed_forward_proj` must say
/// so, and the two keys that transformers prefers to it must not contradict.
fn read_feed_forward(config: &ConfigFile) -> Result<(), LoadError> {
    const ACCEPTED: &str = "gated-gelu (T5 v1.1 and Flan-T5; T5 v1.0 has another feed-forward)";
    match config.text("feed_forward_proj")? {
        Some("gated-gelu") => {}
        // Without the key, the reference uses T5 v1.0's.
        Some(_) | None => return Err(config.refuse("feed_forward_proj", ACCEPTED)),
    }
    // `gelu` is the exact form, with the error function; these are names of the tanh form.
    match config.text("dense_act_fn")? {
        None | Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => {}
        Some(_) => {
            return Err(config
                .refuse("dense_act_fn", "gelu_new (beside feed_forward_proj gated-gelu) or null"));
        }
    }
    config.only("is_gated_act", &json!(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_references() {
        let config = ConfigFile::from_value(json!({"feed_forward_proj": "gated-gelu"}));
        let config = T5Config::read(&config).unwrap();
        // T5Attention._relative_position_bucket of transformers, for 32 buckets and a greatest
        // distance of 128.
        let distances =
            [-200, -128, -127, -64, -33, -16, -12, -9, -8, -7, -1, 0, 1, 7, 8, 11, 12, 20, 64, 128];
        let expected = [15, 15, 15, 14, 12, 10, 9, 8, 8, 7, 1, 0, 17, 23, 24, 24, 25, 26, 30, 31];
        assert_eq!(distances.map(|distance| config.bucket(distance)), expected);
    }

    fn read(change: Value) -> Result<T5Config, LoadError> {
        let mut value = json!({"model_type": "t5", "feed_forward_proj": "gated-gelu"});
        for (key, change) in change.as_object().unwrap() {
            value[key] = change.clone();
        }
        T5Config::read(&ConfigFile::from_value(value))
    }

    fn refused(key: &str, value: Value) -> String {
        match read(json!({ key: value.clone() })) {
            Err(error @ LoadError::Unsupported { .. }) => {
                let error = error.to_string();
                assert!(error.contains(&format!("`{key}` is {value}")), "{key}: {error}");
                error
            }
            other => panic!("{key} {value}: {other:?}"),
        }
    }

    #[test]
    fn other_feed_forwards_are_refused_by_name() {
        for name in ["relu", "gelu", "gated-silu", "gated-relu", "silu", "gated-gelu_new", ""] {
            assert!(refused("feed_forward_proj", json!(name)).contains("accepted: gated-gelu"));
        }
        let v1_0 = ConfigFile::from_value(json!({"model_type": "t5"}));
        assert!(
            T5Config::read(&v1_0)
                .unwrap_err()
                .to_string()
                .contains("`feed_forward_proj` is absent")
        );
        // transformers prefers these two to feed_forward_proj.
        for name in ["relu", "gelu", "silu", "quick_gelu"] {
            assert!(refused("dense_act_fn", json!(name)).contains("accepted: gelu_new"));
        }
        assert!(refused("is_gated_act", json!(false)).contains("accepted: true"));
        for agreeing in [
            json!({"dense_act_fn": "gelu_new", "is_gated_act": true}),
            json!({"dense_act_fn": null, "is_gated_act": null}),
        ] {
            assert!(read(agreeing).is_ok());
        }
    }

    #[test]
    fn no_number_is_too_small_or_too_large() {
        for key in [
            "vocab_size",
            "d_model",
            "d_ff",
            "num_heads",
            "d_kv",
            "num_layers",
            "relative_attention_num_buckets",
            "relative_attention_max_distance",
        ] {
            for value in
                [json!(0), json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX), json!("3")]
            {
                refused(key, value);
            }
        }
        for value in [json!(0), json!(-1), json!(1e9), json!("NaN"), json!("Infinity")] {
            refused("layer_norm_epsilon", value);
        }
        for key in ["pad_token_id", "eos_token_id"] {
            for value in [json!(-1), json!(32_128), json!(1_u64 << 31), json!(u64::MAX), json!([1])]
            {
                refused(key, value);
            }
        }
        refused("relative_attention_num_buckets", json!(7));
        refused("relative_attention_max_distance", json!(8));
        refused("quantization_config", json!({"load_in_8bit": true}));
        refused("is_decoder", json!(true));
    }

    #[test]
    fn keys_of_published_configurations_are_known_and_others_are_not() {
        let published = [
            // google/t5-v1_1-xxl, google/flan-t5-xl, DeepFloyd/t5-v1_1-xxl, and t5-small's notes.
            json!({"architectures": ["T5ForConditionalGeneration"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
                "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
                "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-6, "model_type": "t5",
                "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24, "output_past": true, "pad_token_id": 0,
                "relative_attention_num_buckets": 32, "tie_word_embeddings": false, "use_cache": true,
                "vocab_size": 32128}),
            json!({"n_positions": 512, "task_specific_params": {"summarization": {"num_beams": 4}},
                "transformers_version": "4.23.1", "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu"}),
            json!({"_name_or_path": "./t5-v1_1-xxl/", "dense_act_fn": "gelu_new", "is_gated_act": true,
                "torch_dtype": "float32", "classifier_dropout": 0.0, "feed_forward_proj": "gated-gelu"}),
        ];
        for config in published {
            let config = ConfigFile::from_value(config);
            T5Config::read(&config).unwrap();
            assert!(config.unknown_keys().is_empty(), "{:?}", config.unknown_keys());
        }
        let config = ConfigFile::from_value(
            json!({"feed_forward_proj": "gated-gelu", "num_hidden_layers": 3}),
        );
        T5Config::read(&config).unwrap();
        assert_eq!(config.unknown_keys(), ["num_hidden_layers"]);
    }
}
