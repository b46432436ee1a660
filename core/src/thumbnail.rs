//! How large the pictures are that a farm makes for a look at a job: previews and tiles of sheets.

use std::ops::RangeInclusive;

use crate::error::UserError;

/// Longer edges of previews, pixels. Few, so that an output has few previews.
pub const EDGES: [u32; 6] = [16, 32, 64, 128, 256, 512];
/// Edges of a sheet's tiles, pixels.
pub const TILE_EDGES: RangeInclusive<u32> = 16..=128;

/// Checks the longer edge of a preview; 0 is a picture with all its pixels.
///
/// # Errors
/// `max_edge` if it is none of [`EDGES`].
pub fn check_edge(max_edge: u32) -> Result<(), UserError> {
    if max_edge == 0 || EDGES.contains(&max_edge) {
        return Ok(());
    }
    let edges: Vec<_> = EDGES.iter().map(ToString::to_string).collect();
    let message =
        format!("max_edge is {max_edge}; accepted: {}, or 0 for all pixels", edges.join(", "));
    Err(UserError::invalid("max_edge", message))
}

/// Checks the edge of a sheet's tiles.
///
/// # Errors
/// `tile` if it is outside [`TILE_EDGES`]; the message also accepts 0, which means `default`.
pub fn check_tile(tile: u32, default: u32) -> Result<(), UserError> {
    if TILE_EDGES.contains(&tile) {
        return Ok(());
    }
    let (least, most) = (TILE_EDGES.start(), TILE_EDGES.end());
    let message = format!("tile is {tile}; accepted: {least} to {most}, or 0 for {default}");
    Err(UserError::invalid("tile", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_checked_by_their_names() {
        for edge in [0, 16, 512] {
            assert_eq!(check_edge(edge), Ok(()));
        }
        for edge in [1, 15, 48, 513, u32::MAX] {
            assert_eq!(check_edge(edge).expect_err("refused").field.as_deref(), Some("max_edge"));
        }
        assert_eq!((check_tile(16, 64), check_tile(128, 64)), (Ok(()), Ok(())));
        for tile in [0, 15, 129] {
            assert_eq!(check_tile(tile, 64).expect_err("refused").field.as_deref(), Some("tile"));
        }
    }
}
