//! What a stage's configuration says of the jobs that can be asked of it: who accepts jobs must know it, and knows
//! neither networks nor schedules. What cannot be read stays unknown: whoever loads the stage then says what is wrong.

use std::{io::Read as _, path::Path};

use darkroom_core::cascade::StageSpec;
use serde_json::Value;

/// Length of a schedule whose configuration does not say one, as the reference's classes have it.
const TRAIN_TIMESTEPS: u32 = 1000;

/// Most bytes of a configuration that are read.
const MOST: u64 = 16 << 20;

/// Fills in what the configurations below `folder` say; what cascade.toml says itself holds.
pub(crate) fn complete(stage: &mut StageSpec, folder: &Path) {
    stage.size_multiple = stage.size_multiple.or_else(|| size_multiple(folder));
    stage.train_timesteps = stage.train_timesteps.or_else(|| train_timesteps(&folder.join("scheduler")));
    stage.noise_timesteps = stage.noise_level.and_then(|_| {
        stage.noise_timesteps.or_else(|| train_timesteps(&folder.join("image_noising_scheduler")))
    });
}

/// What a picture's edges must be multiples of. Both classes of network halve them between their levels; the Efficient
/// U-Net once more before the first.
fn size_multiple(folder: &Path) -> Option<u32> {
    let config = read(&folder.join("unet/config.json"))?;
    let levels = u32::try_from(config.get("block_out_channels")?.as_array()?.len()).ok()?;
    let halvings = match config.get("_class_name").and_then(Value::as_str) {
        Some("EfficientUNet2DModel") => levels,
        _ => levels.checked_sub(1)?,
    };
    2_u32.checked_pow(halvings)
}

/// How many training timesteps a schedule has.
fn train_timesteps(folder: &Path) -> Option<u32> {
    let config = read(&folder.join("scheduler_config.json"))?;
    match config.get("num_train_timesteps") {
        None | Some(Value::Null) => Some(TRAIN_TIMESTEPS),
        Some(count) => count.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0),
    }
}

/// A JSON object, with or without a byte order mark in front.
fn read(file: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    if !std::fs::metadata(file).ok()?.is_file() {
        return None;
    }
    std::fs::File::open(file).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let value: Value = serde_json::from_slice(text).ok()?;
    value.is_object().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("\u{feff}{text}")).unwrap();
        };
        write("unet/config.json", r#"{"block_out_channels": [8, 8, 8]}"#);
        write("scheduler/scheduler_config.json", r#"{"num_train_timesteps": 40}"#);
        assert_eq!(size_multiple(folder.path()), Some(4));
        assert_eq!(train_timesteps(&folder.path().join("scheduler")), Some(40));
    }
}
