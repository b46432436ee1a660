//! How a picture of one shape is made to fit another: which part of it is used, and where that part
//! goes.
//!
//! Only whole numbers are used, so that every machine cuts at the same pixel. All stages of a job
//! have the same shape, so they all see the same part of the picture.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::UserError, extent::Extent};

/// How a picture of another shape is made to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Scaled until it covers the shape. What sticks out is cut off equally on both sides.
    #[default]
    Crop,
    /// Scaled until it lies within the shape. The rest is black; with a mask, the rest is painted
    /// anew.
    Pad,
    /// Scaled to the shape, its proportions changed.
    Stretch,
    /// Refused unless it already has the shape.
    Exact,
}

impl Fit {
    const ALL: [Self; 4] = [Self::Crop, Self::Pad, Self::Stretch, Self::Exact];

    /// Its name in requests, files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Pad => "pad",
            Self::Stretch => "stretch",
            Self::Exact => "exact",
        }
    }

    /// Says what is done to a picture of `picture` pixels to make one of `target` pixels. The text
    /// follows the picture's name. `None` if nothing is done.
    #[must_use]
    pub fn remark(self, picture: Extent, target: Extent) -> Option<String> {
        let Placement { from, to } = Placement::of(Some(self), picture, target);
        let used = Extent { width: from.width, height: from.height };
        let lies = Extent { width: to.width, height: to.height };
        let done = if used != picture {
            format!(
                "is {picture}: the {used} in its middle are used, the rest is cut off (fit crop)"
            )
        } else if lies != target {
            format!("is {picture}: it fills {lies} of {target}, the rest is black (fit pad)")
        } else if self == Self::Stretch && !picture.has_shape_of(target) {
            format!("is {picture}: its proportions change to those of {target} (fit stretch)")
        } else if used.width < target.width || used.height < target.height {
            return Some(format!("is {picture}, smaller than {target}: it is enlarged"));
        } else {
            return None;
        };
        let enlarged = used.width < lies.width || used.height < lies.height;
        Some(if enlarged { format!("{done}, and it is enlarged") } else { done })
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fit {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|fit| fit.name() == name).ok_or_else(|| {
            let message = format!("settings.fit is {name:?}; accepted: crop, pad, stretch, exact");
            UserError::invalid("settings.fit", message)
        })
    }
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Columns left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Its columns, at least one.
    pub width: u32,
    /// Its rows, at least one.
    pub height: u32,
}

impl Window {
    fn middle(of: Extent, width: u32, height: u32) -> Self {
        Self { x: (of.width - width) / 2, y: (of.height - height) / 2, width, height }
    }
}

/// Which part of a picture is used, and which part of the target it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The part of the picture.
    pub from: Window,
    /// The part of the target.
    pub to: Window,
}

impl Placement {
    /// Without a fit, the whole picture fills the whole target. Jobs from before fits existed have
    /// pictures of the target's shape.
    #[must_use]
    pub fn of(fit: Option<Fit>, picture: Extent, target: Extent) -> Self {
        let whole = |extent: Extent| Window::middle(extent, extent.width, extent.height);
        let mut placement = Self { from: whole(picture), to: whole(target) };
        match fit {
            Some(Fit::Crop) => placement.from = inside(picture, target),
            Some(Fit::Pad) => placement.to = inside(target, picture),
            Some(Fit::Stretch | Fit::Exact) | None => {}
        }
        placement
    }
}

/// The largest part in the middle of `outer` that has the proportions of `shape`.
fn inside(outer: Extent, shape: Extent) -> Window {
    let scaled = |edge: u32, to: u32, from: u32| {
        let (edge, to, from) = (u64::from(edge), u64::from(to), u64::from(from).max(1));
        u32::try_from((2 * edge * to + from) / (2 * from)).unwrap_or(u32::MAX)
    };
    let wider = u64::from(outer.width) * u64::from(shape.height)
        > u64::from(shape.width) * u64::from(outer.height);
    if wider {
        let width = scaled(outer.height, shape.width, shape.height).clamp(1, outer.width.max(1));
        Window::middle(outer, width, outer.height)
    } else {
        let height = scaled(outer.width, shape.height, shape.width).clamp(1, outer.height.max(1));
        Window::middle(outer, outer.width, height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(width: u32, height: u32) -> Extent {
        Extent { width, height }
    }

    fn windows(fit: Fit, picture: (u32, u32), target: (u32, u32)) -> [(u32, u32, u32, u32); 2] {
        let placement =
            Placement::of(Some(fit), extent(picture.0, picture.1), extent(target.0, target.1));
        [placement.from, placement.to]
            .map(|window| (window.x, window.y, window.width, window.height))
    }

    #[test]
    fn crop_cuts_both_sides_pad_fills_both_and_stretch_uses_everything() {
        assert_eq!(
            windows(Fit::Crop, (4032, 3024), (64, 64)),
            [(504, 0, 3024, 3024), (0, 0, 64, 64)]
        );
        assert_eq!(windows(Fit::Crop, (750, 1000), (64, 64)), [(0, 125, 750, 750), (0, 0, 64, 64)]);
        assert_eq!(windows(Fit::Pad, (1000, 500), (64, 64)), [(0, 0, 1000, 500), (0, 16, 64, 32)]);
        assert_eq!(windows(Fit::Pad, (500, 1000), (64, 64)), [(0, 0, 500, 1000), (16, 0, 32, 64)]);
        assert_eq!(windows(Fit::Stretch, (9, 5), (64, 32)), [(0, 0, 9, 5), (0, 0, 64, 32)]);
    }

    #[test]
    fn a_picture_of_the_shape_is_used_whole_by_every_fit() {
        for fit in Fit::ALL {
            assert_eq!(
                windows(fit, (1000, 750), (1024, 768)),
                [(0, 0, 1000, 750), (0, 0, 1024, 768)],
                "{fit}"
            );
            assert_eq!(fit.remark(extent(2048, 1024), extent(64, 32)), None);
        }
    }

    #[test]
    fn the_narrowest_pictures_keep_a_pixel() {
        for fit in [Fit::Crop, Fit::Pad] {
            for (picture, target) in
                [((16384, 1), (1, 16384)), ((1, 1), (1024, 64)), ((3, 16384), (64, 64))]
            {
                for (x, y, width, height) in windows(fit, picture, target) {
                    assert!(width >= 1 && height >= 1 && x < 16384 && y < 16384);
                }
            }
        }
    }

    #[test]
    fn every_stage_sees_the_same_part() {
        let picture = extent(4001, 2999);
        let parts = [64, 256, 1024]
            .map(|edge| Placement::of(Some(Fit::Crop), picture, extent(edge, edge / 2)).from);
        assert_eq!((parts[0], parts[1]), (parts[1], parts[2]));
    }

    #[test]
    fn what_is_done_to_a_picture_is_said() {
        let square = extent(1024, 1024);
        let says =
            |fit: Fit, width, height| fit.remark(extent(width, height), square).unwrap_or_default();
        assert!(says(Fit::Crop, 4032, 3024).contains("the 3024x3024 in its middle are used"));
        assert!(says(Fit::Crop, 1000, 750).ends_with("cut off (fit crop), and it is enlarged"));
        assert!(
            says(Fit::Pad, 1000, 750).contains("it fills 1024x768 of 1024x1024, the rest is black")
        );
        assert!(says(Fit::Stretch, 4000, 3000).contains("its proportions change"));
        assert_eq!(says(Fit::Crop, 512, 512), "is 512x512, smaller than 1024x1024: it is enlarged");
        assert_eq!(says(Fit::Crop, 2048, 2048), "");
    }

    #[test]
    fn a_fit_is_known_by_its_name() {
        for fit in Fit::ALL {
            assert_eq!(fit.name().parse(), Ok(fit));
        }
        let error = "fill".parse::<Fit>().expect_err("unknown");
        assert!(error.message.contains("crop, pad, stretch, exact"), "{error}");
    }
}
