//! What a picture's edges must be multiples of, as a network's configuration says: who accepts jobs must know it, and
//! knows no networks.

use std::path::Path;

use serde_json::Value;

/// Read from `unet/config.json` of a stage's folder. Both classes of network halve the picture's edges between their
/// levels; the Efficient U-Net once more before the first. `None` where there is nothing that can be read: whoever loads
/// the network then says what is wrong.
pub(crate) fn read(stage_folder: &Path) -> Option<u32> {
    let text = std::fs::read(stage_folder.join("unet/config.json")).ok()?;
    let config: Value = serde_json::from_slice(&text).ok()?;
    let levels = u32::try_from(config.get("block_out_channels")?.as_array()?.len()).ok()?;
    let halvings = match config.get("_class_name").and_then(Value::as_str) {
        Some("EfficientUNet2DModel") => levels,
        _ => levels.checked_sub(1)?,
    };
    2_u32.checked_pow(halvings)
}
