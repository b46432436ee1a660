//! What a stage's configuration says of the jobs that can be asked of it: who accepts jobs must know it, and knows
//! neither networks nor schedules. What cannot be read stays unknown: whoever loads the stage then says what is wrong.

use std::path::Path;

use darkroom_core::cascade::StageSpec;
use serde_json::Value;

/// Length of a schedule whose configuration does not say one, as the reference's classes have it.
const TRAIN_TIMESTEPS: u32 = 1000;

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

fn read(file: &Path) -> Option<Value> {
    let value: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    value.is_object().then_some(value)
}
