//! What a stage's configuration says about the jobs that may use it. The part that accepts jobs
//! must know this, but knows neither networks nor schedules. What cannot be read stays unknown;
//! loading the stage then reports the error.

use std::{io::Read as _, path::Path};

use darkroom_core::cascade::StageSpec;
use serde_json::Value;

/// Length of a schedule if its configuration gives none, as in the reference's classes.
const TRAIN_TIMESTEPS: u32 = 1000;

/// Largest configuration that is read, bytes.
const MOST: u64 = 16 << 20;

/// Fills in the values of the configurations below `folder`. Values in cascade.toml have priority.
pub(crate) fn complete(stage: &mut StageSpec, folder: &Path) {
    stage.size_multiple = stage.size_multiple.or_else(|| size_multiple(folder));
    stage.train_timesteps =
        stage.train_timesteps.or_else(|| train_timesteps(&folder.join("scheduler")));
    stage.noise_timesteps = stage.sampling.noise_level.and_then(|_| {
        stage.noise_timesteps.or_else(|| train_timesteps(&folder.join("image_noising_scheduler")))
    });
}

/// The number that a picture's edges must be multiples of. Both classes of network halve the edges
/// between their levels; the Efficient U-Net also before the first level.
fn size_multiple(folder: &Path) -> Option<u32> {
    let config = read(&folder.join("unet/config.json"))?;
    let levels = u32::try_from(config.get("block_out_channels")?.as_array()?.len()).ok()?;
    let halvings = match config.get("_class_name").and_then(Value::as_str) {
        Some("EfficientUNet2DModel") => levels,
        _ => levels.checked_sub(1)?,
    };
    2_u32.checked_pow(halvings)
}

/// The number of training timesteps of a schedule.
fn train_timesteps(folder: &Path) -> Option<u32> {
    let config = read(&folder.join("scheduler_config.json"))?;
    match config.get("num_train_timesteps") {
        None | Some(Value::Null) => Some(TRAIN_TIMESTEPS),
        Some(count) => {
            count.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0)
        }
    }
}

/// A JSON object, with or without a byte order mark.
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
