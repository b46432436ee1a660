//! The content of `unet/config.json` for a `UNet2DConditionModel`, checked against what this
//! implementation supports.
//!
//! Every key of the class in diffusers 0.42 is known here. Values that DeepFloyd IF does not use
//! are refused by name. Keys that IF's blocks ignore are accepted, and listed if they are set.

use serde_json::json;

use super::Interface;
use crate::config::{ConfigFile, EDGE, EPSILON, LAYERS, LEVELS, SCALE, WIDTH};
use crate::error::LoadError;
use crate::layers::Activation;

/// The architecture of one network.
#[derive(Clone, Debug)]
pub(crate) struct UNetConfig {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) sample_size: Option<(usize, usize)>,
    pub(crate) center_input_sample: bool,
    pub(crate) conv_in_kernel: usize,
    pub(crate) conv_out_kernel: usize,
    pub(crate) levels: Vec<Level>,
    pub(crate) mid: Option<Mid>,
    pub(crate) resnet: ResnetStyle,
    pub(crate) resnet_out_scale_factor: f64,
    pub(crate) time: TimeStyle,
    pub(crate) text: TextStyle,
    pub(crate) class_is_timestep: bool,
}

/// One resolution, from full size down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) channels: usize,
    pub(crate) layers: usize,
    /// Width of a head on the way down.
    pub(crate) head_dim: usize,
    /// Width of a head on the way up. The reference gives the up blocks a list of widths in its
    /// original order, not reversed.
    pub(crate) head_dim_up: usize,
    pub(crate) only_cross: bool,
    pub(crate) attends_down: bool,
    pub(crate) attends_up: bool,
}

/// The middle block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mid {
    pub(crate) only_cross: bool,
    pub(crate) scale_factor: f64,
}

/// What all resnet blocks share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetStyle {
    pub(crate) activation: Activation,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) scale_shift: bool,
    pub(crate) skip_time_act: bool,
    pub(crate) time_width: usize,
    /// The name, among the weights, of the layer that projects the time's vector.
    pub(crate) time_projection: &'static str,
}

/// How the timestep becomes a vector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeStyle {
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    /// Width of the sinusoid.
    pub(crate) sinusoid: usize,
    /// Applied to time + class + pooled text.
    pub(crate) joint_activation: Option<Activation>,
    /// Applied only to the time's vector.
    pub(crate) post_activation: Option<Activation>,
}

/// How the text is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextStyle {
    /// Width of the encoder's output if it is projected, otherwise `None`.
    pub(crate) encoder_dim: Option<usize>,
    pub(crate) cross_dim: usize,
    pub(crate) norm: CrossNorm,
    /// Heads of the attention pooling; absent without `addition_embed_type`.
    pub(crate) pooling_heads: Option<usize>,
}

impl TextStyle {
    /// Width of the text that the caller passes.
    pub(crate) fn input_dim(&self) -> usize {
        self.encoder_dim.unwrap_or(self.cross_dim)
    }
}

/// `cross_attention_norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrossNorm {
    None,
    Layer,
    Group,
}

impl UNetConfig {
    pub(crate) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        let levels = read_levels(config)?;
        let resnet = ResnetStyle {
            activation: Activation::read(config, "act_fn")?.unwrap_or(Activation::Silu),
            groups: config.count("norm_num_groups", 32, WIDTH)?,
            eps: config.number("norm_eps", 1e-5, EPSILON)?,
            scale_shift: match config.text("resnet_time_scale_shift")? {
                None | Some("default") => false,
                Some("scale_shift") => true,
                Some(_) => {
                    return Err(config.refuse("resnet_time_scale_shift", "default, scale_shift"));
                }
            },
            skip_time_act: config.flag("resnet_skip_time_act")?.unwrap_or(false),
            time_width: config.count("time_embedding_dim", levels[0].channels * 4, WIDTH)?,
            time_projection: "time_emb_proj",
        };
        let this = Self {
            in_channels: config.count("in_channels", 4, WIDTH)?,
            out_channels: config.count("out_channels", 4, WIDTH)?,
            sample_size: read_sample_size(config)?,
            center_input_sample: config.flag("center_input_sample")?.unwrap_or(false),
            conv_in_kernel: read_kernel(config, "conv_in_kernel")?,
            conv_out_kernel: read_kernel(config, "conv_out_kernel")?,
            mid: read_mid(config)?,
            resnet,
            resnet_out_scale_factor: config.number("resnet_out_scale_factor", 1.0, SCALE)?,
            time: TimeStyle {
                flip_sin_to_cos: config.flag("flip_sin_to_cos")?.unwrap_or(true),
                freq_shift: config.number("freq_shift", 0.0, 0.0..=1.0)?,
                sinusoid: levels[0].channels,
                joint_activation: Activation::read(config, "time_embedding_act_fn")?,
                post_activation: Activation::read(config, "timestep_post_act")?,
            },
            text: read_text(config)?,
            class_is_timestep: match config.text("class_embed_type")? {
                None => false,
                Some("timestep") => true,
                Some(_) => return Err(config.refuse("class_embed_type", "timestep or null")),
            },
            levels,
        };
        refuse_other_paths(config)?;
        this.check(config)?;
        Ok(this)
    }

    pub(crate) fn interface(&self) -> Interface {
        Interface {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            text_dim: self.text.input_dim(),
            takes_noise_level: self.class_is_timestep,
            sample_size: self.sample_size,
            size_multiple: 1 << (self.levels.len() - 1),
        }
    }

    fn check(&self, config: &ConfigFile) -> Result<(), LoadError> {
        let groups = self.resnet.groups;
        if self.levels.iter().any(|level| !level.channels.is_multiple_of(groups)) {
            return Err(
                config.refuse("norm_num_groups", "a divisor of every entry of block_out_channels")
            );
        }
        // The frequencies are spread over half of the sinusoid's width minus this number.
        if (self.time.sinusoid / 2) as f64 <= self.time.freq_shift {
            let accepted = "less than half of the first entry of block_out_channels";
            return Err(config.refuse("freq_shift", accepted));
        }
        let deepest = self.levels.last().filter(|_| self.mid.is_some());
        let downward = || self.levels.iter().filter(|level| level.attends_down).chain(deepest);
        let upward = || self.levels.iter().filter(|level| level.attends_up);
        let divides = |width: usize, channels: usize| channels.is_multiple_of(width);
        if !downward().all(|level| divides(level.head_dim, level.channels))
            || !upward().all(|level| divides(level.head_dim_up, level.channels))
        {
            return Err(config.refuse(
                "attention_head_dim",
                "a divisor of the channels of every attending block",
            ));
        }
        match self.text.norm {
            CrossNorm::Group if !self.text.cross_dim.is_multiple_of(32) => Err(config
                .refuse("cross_attention_norm", "group_norm with a cross_attention_dim divisible by 32")),
            CrossNorm::Layer
                if downward().chain(upward()).any(|level| level.channels != self.text.cross_dim) =>
            {
                Err(config.refuse(
                    "cross_attention_norm",
                    "layer_norm where cross_attention_dim equals the channels of every attending block",
                ))
            }
            _ => Ok(()),
        }
    }
}

fn read_levels(config: &ConfigFile) -> Result<Vec<Level>, LoadError> {
    let channels =
        config.required("block_out_channels", config.counts("block_out_channels", &WIDTH)?)?;
    let count = channels.len();
    if !LEVELS.contains(&count) {
        let accepted = format!("{} to {} levels", LEVELS.start(), LEVELS.end());
        return Err(config.refuse("block_out_channels", accepted));
    }
    let attends = |key: &str, plain: &str, cross: &str| -> Result<Vec<bool>, LoadError> {
        let names = config.required(key, config.texts(key)?)?;
        let accepted = format!("{count} entries, each {plain} or {cross}");
        if names.len() != count || names.iter().any(|name| name != plain && name != cross) {
            return Err(config.refuse(key, accepted));
        }
        Ok(names.iter().map(|name| name == cross).collect())
    };
    let down =
        attends("down_block_types", "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")?;
    let up = attends("up_block_types", "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")?;
    let layers = config.counts_per_level("layers_per_block", count, 2, &LAYERS)?;
    let head_dims = config.counts_per_level("attention_head_dim", count, 8, &WIDTH)?;
    let only_cross = read_only_cross(config, count)?;
    Ok((0..count)
        .map(|index| Level {
            channels: channels[index],
            layers: layers[index],
            head_dim: head_dims[index],
            head_dim_up: head_dims[count - 1 - index],
            only_cross: only_cross[index],
            attends_down: down[index],
            attends_up: up[count - 1 - index],
        })
        .collect())
}

fn read_only_cross(config: &ConfigFile, levels: usize) -> Result<Vec<bool>, LoadError> {
    let accepted = format!("true, false, or a list of {levels} of them");
    match config.get("only_cross_attention") {
        None => Ok(vec![false; levels]),
        Some(serde_json::Value::Bool(flag)) => Ok(vec![*flag; levels]),
        Some(value) => {
            let flags: Option<Vec<bool>> = value
                .as_array()
                .and_then(|items| items.iter().map(serde_json::Value::as_bool).collect());
            flags
                .filter(|flags| flags.len() == levels)
                .ok_or_else(|| config.refuse("only_cross_attention", accepted))
        }
    }
}

fn read_mid(config: &ConfigFile) -> Result<Option<Mid>, LoadError> {
    let key = "mid_block_type";
    let scale_factor = config.number("mid_block_scale_factor", 1.0, SCALE)?;
    // A single `only_cross_attention` also applies to the middle block; a list does not.
    let inherited =
        config.get("only_cross_attention").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let only_cross = config.flag("mid_block_only_cross_attention")?.unwrap_or(inherited);
    match config.text(key)? {
        None => Ok(None),
        Some("UNetMidBlock2DSimpleCrossAttn") => Ok(Some(Mid { only_cross, scale_factor })),
        Some(_) => Err(config.refuse(key, "UNetMidBlock2DSimpleCrossAttn or null")),
    }
}

fn read_text(config: &ConfigFile) -> Result<TextStyle, LoadError> {
    let encoder_dim = config.optional_count("encoder_hid_dim", WIDTH)?;
    match (config.text("encoder_hid_dim_type")?, encoder_dim) {
        (None, _) | (Some("text_proj"), Some(_)) => {}
        (Some("text_proj"), None) => {
            return Err(config.refuse("encoder_hid_dim", "the encoder's width"));
        }
        (Some(_), _) => return Err(config.refuse("encoder_hid_dim_type", "text_proj or null")),
    }
    let norm = match config.text("cross_attention_norm")? {
        None => CrossNorm::None,
        Some("layer_norm") => CrossNorm::Layer,
        Some("group_norm") => CrossNorm::Group,
        Some(_) => {
            return Err(config.refuse("cross_attention_norm", "group_norm, layer_norm or null"));
        }
    };
    let heads = config.count("addition_embed_type_num_heads", 64, WIDTH)?;
    let cross_dim = config.count("cross_attention_dim", 1280, WIDTH)?;
    let pooling_heads = match config.text("addition_embed_type")? {
        None => None,
        Some("text") if encoder_dim.unwrap_or(cross_dim) % heads == 0 => Some(heads),
        Some("text") => {
            return Err(
                config.refuse("addition_embed_type_num_heads", "a divisor of the text's width")
            );
        }
        Some(_) => return Err(config.refuse("addition_embed_type", "text or null")),
    };
    Ok(TextStyle { encoder_dim, cross_dim, norm, pooling_heads })
}

fn read_kernel(config: &ConfigFile, key: &str) -> Result<usize, LoadError> {
    match config.count(key, 3, 1..=31)? {
        size if size % 2 == 1 => Ok(size),
        _ => Err(config.refuse(key, "an odd number from 1 to 31")),
    }
}

fn read_sample_size(config: &ConfigFile) -> Result<Option<(usize, usize)>, LoadError> {
    match config.get("sample_size") {
        None => Ok(None),
        Some(serde_json::Value::Array(_)) => {
            match config.counts("sample_size", &EDGE)?.as_deref() {
                Some([height, width]) => Ok(Some((*height, *width))),
                _ => Err(config.refuse("sample_size", "a number, [height, width] or null")),
            }
        }
        Some(_) => Ok(config.optional_count("sample_size", EDGE)?.map(|size| (size, size))),
    }
}

/// Options of the class that IF does not use, and options that IF's blocks ignore.
fn refuse_other_paths(config: &ConfigFile) -> Result<(), LoadError> {
    config.only("time_embedding_type", &json!("positional"))?;
    config.only("class_embeddings_concat", &json!(false))?;
    config.only("attention_type", &json!("default"))?;
    for key in ["num_attention_heads", "num_class_embeds", "time_cond_proj_dim"] {
        config.only(key, &json!(null))?;
    }
    for (key, default) in [
        ("dropout", json!(0.0)),
        ("downsample_padding", json!(1)),
        ("dual_cross_attention", json!(false)),
        ("use_linear_projection", json!(false)),
        ("upcast_attention", json!(false)),
        ("transformer_layers_per_block", json!(1)),
        ("reverse_transformer_layers_per_block", json!(null)),
        ("addition_time_embed_dim", json!(null)),
        ("projection_class_embeddings_input_dim", json!(null)),
    ] {
        config.without_effect(key, &default);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn example() -> Value {
        json!({
            "_class_name": "UNet2DConditionModel", "in_channels": 3, "out_channels": 6, "sample_size": 16,
            "block_out_channels": [32, 64], "layers_per_block": 1, "attention_head_dim": 8, "norm_num_groups": 8,
            "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
            "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": 64,
            "cross_attention_norm": "group_norm", "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4, "encoder_hid_dim": 32, "only_cross_attention": true,
        })
    }

    fn read(change: Value) -> Result<UNetConfig, LoadError> {
        let mut value = example();
        for (key, change) in change.as_object().unwrap() {
            value[key] = change.clone();
        }
        UNetConfig::read(&ConfigFile::from_value(value))
    }

    #[test]
    fn defaults_are_the_reference_classs() {
        let config = read(json!({})).unwrap();
        assert_eq!(config.resnet.activation, Activation::Silu);
        assert_eq!(config.resnet.time_width, 128);
        assert!(!config.resnet.scale_shift && config.time.flip_sin_to_cos);
        assert!(config.mid.unwrap().only_cross, "one flag also applies to the middle block");
        assert!(
            config.levels[1].attends_down
                && config.levels[1].attends_up
                && !config.levels[0].attends_up
        );
        assert!(
            !read(json!({"only_cross_attention": [true, true]})).unwrap().mid.unwrap().only_cross
        );
    }

    #[test]
    fn values_off_the_path_are_refused_by_name() {
        for (key, value) in [
            ("act_fn", json!("tanh")),
            ("down_block_types", json!(["DownBlock2D", "SimpleCrossAttnDownBlock2D"])),
            ("up_block_types", json!(["SimpleCrossAttnUpBlock2D"])),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("class_embed_type", json!("projection")),
            ("class_embeddings_concat", json!(true)),
            ("addition_embed_type", json!("text_time")),
            ("encoder_hid_dim_type", json!("image_proj")),
            ("time_embedding_type", json!("fourier")),
            ("time_cond_proj_dim", json!(8)),
            ("num_attention_heads", json!(4)),
            ("num_class_embeds", json!(10)),
            ("attention_type", json!("gated")),
            ("cross_attention_norm", json!("rms_norm")),
            ("cross_attention_norm", json!("layer_norm_typo")),
            ("resnet_time_scale_shift", json!("ada_group")),
            ("norm_num_groups", json!(7)),
            ("attention_head_dim", json!([8, 7])),
            ("attention_head_dim", json!([8])),
            ("layers_per_block", json!([1, 0])),
            ("conv_in_kernel", json!(2)),
            ("sample_size", json!([1, 2, 3])),
            ("cross_attention_dim", json!([64, 64])),
            ("only_cross_attention", json!([true])),
        ] {
            let error = read(json!({ key: value })).unwrap_err();
            assert!(
                matches!(&error, LoadError::Unsupported { key: found, .. } if found == key),
                "{key}: {error}"
            );
        }
    }

    #[test]
    fn no_number_is_too_small_or_too_large() {
        let wrong = |key: &str, value: Value| {
            let error = read(json!({ key: value })).unwrap_err();
            assert!(
                matches!(&error, LoadError::Unsupported { key: found, .. } if found == key),
                "{key}: {error}"
            );
        };
        for key in ["norm_eps", "resnet_out_scale_factor", "mid_block_scale_factor"] {
            for value in
                [json!(0), json!(-1), json!(1e9), json!("NaN"), json!("Infinity"), json!(true)]
            {
                wrong(key, value);
            }
        }
        for value in [json!(-1), json!(1e9), json!("NaN")] {
            wrong("freq_shift", value);
        }
        for key in [
            "in_channels",
            "out_channels",
            "sample_size",
            "conv_in_kernel",
            "conv_out_kernel",
            "norm_num_groups",
            "layers_per_block",
            "attention_head_dim",
            "time_embedding_dim",
            "encoder_hid_dim",
            "cross_attention_dim",
            "addition_embed_type_num_heads",
        ] {
            for value in
                [json!(0), json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX), json!("3")]
            {
                wrong(key, value);
            }
        }
        for value in
            [json!([]), json!([0, 64]), json!([32, u64::MAX]), json!([-32, 64]), json!(vec![8; 13])]
        {
            wrong("block_out_channels", value);
        }
        wrong("sample_size", json!([16, u32::MAX]));
        wrong("layers_per_block", json!([1, u32::MAX]));
        let narrow = json!({"block_out_channels": [2, 64], "norm_num_groups": 2, "freq_shift": 1});
        let error = read(narrow).unwrap_err().to_string();
        assert!(error.contains("`freq_shift` is 1"), "it would divide by zero: {error}");
    }

    #[test]
    fn a_layer_norm_on_text_needs_equal_widths() {
        assert!(read(json!({"cross_attention_norm": "layer_norm"})).is_ok());
        assert!(
            read(json!({"cross_attention_norm": "layer_norm", "cross_attention_dim": 32})).is_err()
        );
    }

    #[test]
    fn what_the_blocks_ignore_is_listed_only_if_it_is_set() {
        let mut value = example();
        value["dual_cross_attention"] = json!(true);
        value["dropout"] = json!(0);
        value["made_up"] = json!(1);
        let config = ConfigFile::from_value(value);
        UNetConfig::read(&config).unwrap();
        assert_eq!(config.ignored_keys(), ["dual_cross_attention", "made_up"]);
    }
}
