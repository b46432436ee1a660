//! What `text_encoder/config.json` says, and the distance buckets of the relative bias.

use serde_json::json;

use crate::config::ConfigFile;
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
    /// Ends every text.
    pub(crate) end_token: u32,
}

impl T5Config {
    pub(crate) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        config.only("model_type", &json!("t5"))?;
        if config.text("feed_forward_proj")? != Some("gated-gelu") {
            return Err(config.refuse("feed_forward_proj", "gated-gelu (T5 v1.1)"));
        }
        let count = |key: &str, default: usize| -> Result<usize, LoadError> {
            match config.count(key)?.unwrap_or(default) {
                0 => Err(config.refuse(key, "a number above 0")),
                count => Ok(count),
            }
        };
        Ok(Self {
            vocab: count("vocab_size", 32_128)?,
            d_model: count("d_model", 512)?,
            d_ff: count("d_ff", 2048)?,
            heads: count("num_heads", 8)?,
            head_dim: count("d_kv", 64)?,
            layers: count("num_layers", 6)?,
            buckets: match count("relative_attention_num_buckets", 32)? {
                buckets if buckets >= 4 && buckets % 2 == 0 => buckets,
                _ => {
                    return Err(
                        config.refuse("relative_attention_num_buckets", "an even number of at least 4")
                    );
                }
            },
            max_distance: count("relative_attention_max_distance", 128)?,
            eps: config.number("layer_norm_epsilon")?.unwrap_or(1e-6),
            pad_token: config.count("pad_token_id")?.unwrap_or(0) as u32,
            end_token: config.count("eos_token_id")?.unwrap_or(1) as u32,
        })
    }

    /// The bucket of a distance from query to key: half the buckets for each direction, of those half for single
    /// distances and half for ever wider ranges up to the greatest distance. In f32 as the reference, whose rounding
    /// decides at the ranges' borders.
    pub(super) fn bucket(&self, distance: i64) -> i64 {
        let side = (self.buckets / 2) as i64;
        let first = if distance > 0 { side } else { 0 };
        let (distance, single) = (distance.abs(), side / 2);
        if distance < single {
            return first + distance;
        }
        let range = (self.max_distance as f64 / single as f64).ln();
        let position = (distance as f32 / single as f32).ln() / range as f32 * (side - single) as f32;
        first + (single + position as i64).min(side - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_references() {
        let config = ConfigFile::from_value(json!({"feed_forward_proj": "gated-gelu"}));
        let config = T5Config::read(&config).unwrap();
        // T5Attention._relative_position_bucket of transformers for 32 buckets and a greatest distance of 128.
        let distances =
            [-200, -128, -127, -64, -33, -16, -12, -9, -8, -7, -1, 0, 1, 7, 8, 11, 12, 20, 64, 128];
        let expected = [15, 15, 15, 14, 12, 10, 9, 8, 8, 7, 1, 0, 17, 23, 24, 24, 25, 26, 30, 31];
        assert_eq!(distances.map(|distance| config.bucket(distance)), expected);
    }

    #[test]
    fn other_feed_forwards_are_refused_by_name() {
        let config = ConfigFile::from_value(json!({"feed_forward_proj": "relu"}));
        let error = T5Config::read(&config).unwrap_err().to_string();
        assert!(error.contains("feed_forward_proj") && error.contains("gated-gelu"), "{error}");
    }
}
