//! The size of pictures: `auto`, or `WIDTHxHEIGHT`.

use darkroom_core::error::UserError;
use darkroom_farm_api::Answer;
use darkroom_proto::v1;
use serde::Serialize;

use crate::words::told;

/// Longest edge that is read. The farm's own limits are lower.
const LONGEST: u32 = 65_536;

/// A size as a client asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) enum Size {
    /// That of the cascade's last stage.
    #[default]
    Auto,
    /// Width and height in pixels.
    Pixels(u32, u32),
}

impl Size {
    /// Reads `auto` or `1024x1536`.
    pub(super) fn read(text: &str) -> Answer<Self> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let edge = |text: &str| {
            let number = text.parse().ok().filter(|edge| (1..=LONGEST).contains(edge));
            number.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let edges = text.split_once('x').and_then(|(width, height)| edge(width).zip(edge(height)));
        edges.map(|(width, height)| Self::Pixels(width, height)).ok_or_else(|| {
            let message = format!(
                "size is {:?}; accepted: WIDTHxHEIGHT in pixels (each 1 to {LONGEST}), like \
                 1024x1024, or auto",
                told(text)
            );
            UserError::invalid("size", message)
        })
    }

    /// Puts it into settings, and returns how many of the cascade's stages run.
    ///
    /// A picture that is not as large as a stage's square ends with the stage whose area is nearest
    /// to its own; of two that are as near, the later one.
    pub(super) fn put(self, settings: &mut v1::Settings, cascade: &v1::Cascade) -> usize {
        let Self::Pixels(width, height) = self else { return cascade.stages.len() };
        let area = f64::from(width) * f64::from(height);
        let away = |stage: &v1::CascadeStage| (area / f64::from(stage.size).powi(2)).ln().abs();
        let stages = cascade.stages.iter().enumerate();
        let nearest = stages.rev().min_by(|(_, a), (_, b)| away(a).total_cmp(&away(b)));
        let Some((last, stage)) = nearest else { return 0 };
        settings.size = stage.size;
        if (width, height) != (stage.size, stage.size) {
            (settings.width, settings.height) = (width, height);
        }
        last + 1
    }
}

/// The size that a job's pictures have.
pub(super) fn of_job(job: &v1::Job) -> String {
    of_settings(job.effective_settings.as_ref())
}

/// The size of pictures with these settings, every default filled in.
pub(super) fn of_settings(settings: Option<&v1::Settings>) -> String {
    let (width, height) = settings.map_or((0, 0), |settings| {
        if settings.width == 0 {
            (settings.size, settings.size)
        } else {
            (settings.width, settings.height)
        }
    });
    format!("{width}x{height}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_auto_or_two_edges() {
        assert_eq!(Size::read("auto"), Ok(Size::Auto));
        assert_eq!(Size::read("1024x1536"), Ok(Size::Pixels(1024, 1536)));
        for wrong in [
            "", "1024", "x", "1024x", "x1024", "0x64", "64X64", "+64x64", "64x64x64", "64 x 64",
            "65537x64",
        ] {
            let error = Size::read(wrong).expect_err(wrong);
            assert_eq!(
                error.message,
                format!(
                    "size is {wrong:?}; accepted: WIDTHxHEIGHT in pixels (each 1 to 65536), like \
                     1024x1024, or auto"
                )
            );
        }
    }

    #[test]
    fn a_picture_ends_with_the_stage_whose_area_is_nearest() {
        let stage = |size| v1::CascadeStage { size, ..Default::default() };
        let cascade =
            v1::Cascade { stages: [64, 256, 1024].map(stage).to_vec(), ..Default::default() };
        let put = |size: Size| {
            let mut settings = v1::Settings::default();
            let stages = size.put(&mut settings, &cascade);
            (stages, settings.size, settings.width, settings.height)
        };
        assert_eq!(put(Size::Auto), (3, 0, 0, 0));
        assert_eq!(put(Size::Pixels(1024, 1024)), (3, 1024, 0, 0));
        assert_eq!(put(Size::Pixels(256, 256)), (2, 256, 0, 0));
        assert_eq!(put(Size::Pixels(64, 64)), (1, 64, 0, 0));
        assert_eq!(put(Size::Pixels(1536, 1024)), (3, 1024, 1536, 1024));
        assert_eq!(put(Size::Pixels(512, 512)), (3, 1024, 512, 512), "as near to 256 as to 1024");
        assert_eq!(put(Size::Pixels(320, 192)), (2, 256, 320, 192));
        assert_eq!(
            Size::Pixels(8, 8).put(&mut v1::Settings::default(), &v1::Cascade::default()),
            0
        );
    }
}
