//! The content of `unet/config.json` for an `EfficientUNet2DModel`.

use super::super::Interface;
use super::super::config::ResnetStyle;
use crate::config::{ConfigFile, EDGE, EPSILON, LAYERS, LEVELS, WIDTH};
use crate::error::LoadError;
use crate::layers::Activation;

/// The architecture of one network. Level i works at 1/2^(i+1) of the picture's size.
#[derive(Clone, Debug)]
pub(crate) struct EfficientConfig {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) conv_in_channels: usize,
    pub(crate) levels: Vec<EfficientLevel>,
    pub(crate) resnet: ResnetStyle,
    pub(crate) head_dim: usize,
    pub(crate) self_attention: bool,
    pub(crate) text_dim: usize,
    /// Width of the sinusoids for time and noise level.
    pub(crate) sinusoid: usize,
    sample_size: usize,
}

/// One resolution, from half the picture's size down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EfficientLevel {
    pub(crate) channels: usize,
    /// Residual blocks on the way down, and as many on the way up.
    pub(crate) layers: usize,
}

impl EfficientConfig {
    pub(crate) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        let width = |key: &str, default: usize| config.count(key, default, WIDTH);
        let channels =
            config.counts("block_out_channels", &WIDTH)?.unwrap_or_else(|| vec![32, 64, 128]);
        if !LEVELS.contains(&channels.len()) {
            let accepted = format!("{} to {} levels", LEVELS.start(), LEVELS.end());
            return Err(config.refuse("block_out_channels", accepted));
        }
        let layers = match config.get("layers_per_block") {
            None if channels.len() == 3 => vec![1, 2, 2],
            None => {
                let accepted = "a whole number, or a list with one for each of block_out_channels";
                return Err(config.refuse("layers_per_block", accepted));
            }
            Some(_) => config.counts_per_level("layers_per_block", channels.len(), 0, &LAYERS)?,
        };
        let this = Self {
            in_channels: width("in_channels", 6)?,
            out_channels: width("out_channels", 3)?,
            conv_in_channels: width("conv_in_channels", 16)?,
            levels: channels
                .iter()
                .zip(layers)
                .map(|(channels, layers)| EfficientLevel { channels: *channels, layers })
                .collect(),
            resnet: ResnetStyle {
                activation: Activation::Silu,
                groups: width("norm_num_groups", 4)?,
                eps: config.number("norm_eps", 1e-5, EPSILON)?,
                scale_shift: true,
                skip_time_act: true,
                time_width: width("time_embedding_dim", 128)?,
                time_projection: "emb_proj",
            },
            head_dim: width("attention_head_dim", 32)?,
            self_attention: config.flag("self_attention")?.unwrap_or(true),
            text_dim: width("cross_attention_dim", 128)?,
            sinusoid: width("time_projection_dim", 64)?,
            sample_size: config.count("sample_size", 256, EDGE)?,
        };
        this.check(config)?;
        Ok(this)
    }

    fn check(&self, config: &ConfigFile) -> Result<(), LoadError> {
        let groups = self.resnet.groups;
        let divides = |level: &EfficientLevel| level.channels.is_multiple_of(groups);
        if !self.levels.iter().all(divides) || !(2 * self.conv_in_channels).is_multiple_of(groups) {
            let accepted =
                "a divisor of every entry of block_out_channels and of twice conv_in_channels";
            return Err(config.refuse("norm_num_groups", accepted));
        }
        if self.levels.last().is_some_and(|level| !level.channels.is_multiple_of(self.head_dim)) {
            return Err(
                config.refuse("attention_head_dim", "a divisor of the lowest level's channels")
            );
        }
        if !self.sinusoid.is_multiple_of(2) {
            return Err(config.refuse("time_projection_dim", "an even number"));
        }
        // The reference class has no other keys.
        match config.ignored_keys().first() {
            Some(key) => {
                Err(config.refuse(key, "no such key; the reference class has none of that name"))
            }
            None => Ok(()),
        }
    }

    /// Width of the input of a level from above.
    pub(crate) fn width_before(&self, level: usize) -> usize {
        if level == 0 { self.conv_in_channels } else { self.levels[level - 1].channels }
    }

    pub(crate) fn time_width(&self) -> usize {
        self.resnet.time_width
    }

    pub(crate) fn interface(&self) -> Interface {
        Interface {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            text_dim: self.text_dim,
            takes_noise_level: true,
            sample_size: Some((self.sample_size, self.sample_size)),
            size_multiple: 1 << self.levels.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_the_reference_classs() {
        let config = EfficientConfig::read(&ConfigFile::from_value(json!({}))).unwrap();
        assert_eq!(config.levels.iter().map(|level| level.layers).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!((config.width_before(0), config.width_before(2)), (16, 64));
        assert_eq!(config.interface().size_multiple, 8);
    }

    #[test]
    fn no_number_is_too_small_or_too_large() {
        let wrong = |key: &str, value: serde_json::Value| {
            let config = ConfigFile::from_value(json!({ key: value }));
            let error = EfficientConfig::read(&config).unwrap_err();
            assert!(
                matches!(&error, LoadError::Unsupported { key: found, .. } if found == key),
                "{key}: {error}"
            );
        };
        for value in [json!(0), json!(-1), json!(1e9), json!("NaN"), json!("Infinity")] {
            wrong("norm_eps", value);
        }
        for key in [
            "in_channels",
            "out_channels",
            "conv_in_channels",
            "norm_num_groups",
            "time_embedding_dim",
            "attention_head_dim",
            "cross_attention_dim",
            "time_projection_dim",
            "sample_size",
            "layers_per_block",
        ] {
            for value in
                [json!(0), json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX), json!("3")]
            {
                wrong(key, value);
            }
        }
        for value in [json!([0, 64]), json!([32, u64::MAX]), json!(vec![8; 13])] {
            wrong("block_out_channels", value);
        }
    }

    #[test]
    fn values_that_cannot_run_are_refused_by_name() {
        for (key, value) in [
            ("block_out_channels", json!([])),
            ("layers_per_block", json!([1, 2])),
            ("norm_num_groups", json!(5)),
            ("attention_head_dim", json!(48)),
            ("time_projection_dim", json!(63)),
            ("self_attention", json!("yes")),
            ("made_up", json!(1)),
        ] {
            let error =
                EfficientConfig::read(&ConfigFile::from_value(json!({ key: value }))).unwrap_err();
            assert!(
                matches!(&error, LoadError::Unsupported { key: found, .. } if found == key),
                "{key}: {error}"
            );
        }
    }
}
