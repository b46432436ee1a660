//! How the final picture is stored: the file format, and how hard or how closely it is coded.
//!
//! It belongs to the final stage's output alone. The stages before do not know it, so jobs that
//! differ in nothing else share their work.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::UserError, extent::Extent};

/// Default quality of JPEG.
pub const DEFAULT_QUALITY: u8 = 90;
/// Highest compression level of a PNG.
pub const MAX_LEVEL: u8 = 9;
/// What the text form accepts.
const ACCEPTED: &str = "png, png:LEVEL (0 to 9), jpeg, jpeg:QUALITY (1 to 100) or webp (lossless)";

/// A file format of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// PNG: lossless, 8-bit RGB.
    #[default]
    Png,
    /// JPEG: lossy, baseline.
    Jpeg,
    /// WebP, in its lossless form.
    WebP,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::WebP];

    /// Its name in requests, files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    /// Extension of its files, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// Longest edge that it holds, pixels.
    #[must_use]
    pub fn max_edge(self) -> u32 {
        match self {
            Self::Png => i32::MAX as u32,
            Self::Jpeg => u16::MAX as u32,
            // The format has room for one more, which not all decoders read.
            Self::WebP => (1 << 14) - 1,
        }
    }

    /// The format of files with this extension (without a dot, in small letters).
    #[must_use]
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The format of the picture that is stored under a key.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        Self::of_extension(key.rsplit_once('.')?.1)
    }

    /// The format of a file, by its first bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the final picture is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "OutputRequest", into = "OutputRequest")]
pub enum Output {
    /// A PNG.
    Png {
        /// 0 (not compressed) to 9 (smallest). `None`: compressed for speed, as it always was.
        level: Option<u8>,
    },
    /// A JPEG.
    Jpeg {
        /// 1 (smallest) to 100 (closest). From 90 on, colour has the full resolution (4:4:4);
        /// below, half of it in both directions (4:2:0).
        quality: u8,
    },
    /// A lossless WebP.
    WebP,
}

impl Output {
    /// Its file format.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::Png { .. } => Format::Png,
            Self::Jpeg { .. } => Format::Jpeg,
            Self::WebP => Format::WebP,
        }
    }

    /// Whether it is what pictures are stored as where nothing is asked for. It is then written
    /// nowhere, so that digests from before there was a choice stay.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a picture that is too big for its format. `field` is what asked for the format.
    ///
    /// # Errors
    /// One sentence, with the longest edge.
    pub fn check_extent(self, field: &str, extent: Extent) -> Result<(), UserError> {
        let (format, longest) = (self.format(), self.format().max_edge());
        if extent.width.max(extent.height) <= longest {
            return Ok(());
        }
        let message = format!(
            "{field} is {format}, which cannot hold a picture of {extent} pixels; accepted: edges of at most {longest} \
             pixels, or png"
        );
        Err(UserError::invalid(field, message))
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::Png { level: None }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Png { level: Some(level) } => write!(f, "png:{level}"),
            Self::Jpeg { quality } => write!(f, "jpeg:{quality}"),
            Self::Png { level: None } | Self::WebP => f.write_str(self.format().name()),
        }
    }
}

/// What a user asks for; `None` and an empty format take the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputRequest {
    /// `png`, `jpeg` or `webp`; empty: `png`.
    pub format: String,
    /// Compression level of a PNG, 0 to 9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<u32>,
    /// Quality of a JPEG, 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u32>,
}

impl OutputRequest {
    /// Checks every value. `path` names the request in errors, as `settings.output`.
    ///
    /// # Errors
    /// The first field at fault.
    pub fn resolve(&self, path: &str) -> Result<Output, UserError> {
        let format = match self.format.as_str() {
            "" => Format::Png,
            name => {
                Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
                    let field = format!("{path}.format");
                    let message = format!("{field} is {name:?}; accepted: png, jpeg or webp");
                    UserError::invalid(field, message)
                })?
            }
        };
        let misplaced = |key: &str, value: u32, why: &str| {
            let field = format!("{path}.{key}");
            let message =
                format!("{field} is {value}, but the format is {format}; accepted: {why}");
            Err(UserError::invalid(field, message))
        };
        match (format, self.compression_level, self.quality) {
            (Format::WebP, _, Some(quality)) => {
                misplaced("quality", quality, "no quality, since WebPs are stored lossless")
            }
            (Format::Png, _, Some(quality)) => {
                misplaced("quality", quality, "no quality, or jpeg as the format")
            }
            (Format::Jpeg | Format::WebP, Some(level), _) => {
                misplaced("compression_level", level, "no compression level, or png as the format")
            }
            (Format::Png, None, None) => Ok(Output::Png { level: None }),
            (Format::Png, Some(level), None) => {
                let level = within(path, "compression_level", level, 0, MAX_LEVEL)?;
                Ok(Output::Png { level: Some(level) })
            }
            (Format::Jpeg, None, quality) => {
                let quality = quality.unwrap_or(DEFAULT_QUALITY.into());
                Ok(Output::Jpeg { quality: within(path, "quality", quality, 1, 100)? })
            }
            (Format::WebP, None, None) => Ok(Output::WebP),
        }
    }
}

fn within(path: &str, key: &str, value: u32, least: u8, most: u8) -> Result<u8, UserError> {
    u8::try_from(value).ok().filter(|value| (least..=most).contains(value)).ok_or_else(|| {
        let field = format!("{path}.{key}");
        let message = format!("{field} is {value}; accepted: {least} to {most}");
        UserError::invalid(field, message)
    })
}

impl From<Output> for OutputRequest {
    /// What asks for the same again.
    fn from(output: Output) -> Self {
        let (compression_level, quality) = match output {
            Output::Png { level } => (level.map(u32::from), None),
            Output::Jpeg { quality } => (None, Some(u32::from(quality))),
            Output::WebP => (None, None),
        };
        Self { format: output.format().name().to_owned(), compression_level, quality }
    }
}

impl TryFrom<OutputRequest> for Output {
    type Error = UserError;

    fn try_from(request: OutputRequest) -> Result<Self, UserError> {
        request.resolve("output")
    }
}

impl OutputRequest {
    /// The text form: `png`, `png:9`, `jpeg`, `jpeg:90`, `webp`. `jpg` is read as `jpeg`. `field`
    /// is what names the text in errors.
    ///
    /// # Errors
    /// One sentence with all that is accepted.
    pub fn parse(field: &str, text: &str) -> Result<Self, UserError> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let wrong = |why: &str| {
            UserError::invalid(field, format!("{field} is {text:?}{why}; accepted: {ACCEPTED}"))
        };
        let format = match name {
            "png" => Format::Png,
            "jpeg" | "jpg" => Format::Jpeg,
            "webp" => Format::WebP,
            _ => return Err(wrong("")),
        };
        let digits = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
        let number = match number {
            None => None,
            Some(number) => Some(digits(number).ok_or_else(|| wrong(""))?),
        };
        let (compression_level, quality) = match (format, number) {
            (Format::Png, level) => (level, None),
            (Format::Jpeg, quality) => (None, quality),
            (Format::WebP, None) => (None, None),
            (Format::WebP, Some(_)) => return Err(wrong(", but WebPs are stored lossless")),
        };
        let request = Self { format: format.name().to_owned(), compression_level, quality };
        request.resolve(field).map_err(|_| wrong(""))?;
        Ok(request)
    }
}

impl FromStr for OutputRequest {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        Self::parse("output", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Output, UserError> {
        text.parse::<OutputRequest>()?.resolve("output")
    }

    #[test]
    fn texts_are_read_and_written() {
        for (text, output, written) in [
            ("png", Output::default(), "png"),
            ("png:0", Output::Png { level: Some(0) }, "png:0"),
            ("png:9", Output::Png { level: Some(9) }, "png:9"),
            ("jpeg", Output::Jpeg { quality: 90 }, "jpeg:90"),
            ("jpg:1", Output::Jpeg { quality: 1 }, "jpeg:1"),
            ("jpeg:100", Output::Jpeg { quality: 100 }, "jpeg:100"),
            ("webp", Output::WebP, "webp"),
        ] {
            assert_eq!(asked(text), Ok(output), "{text}");
            assert_eq!(output.to_string(), written);
            assert_eq!(asked(written), Ok(output));
        }
        for text in
            ["", "PNG", "gif", "png:", "png:10", "png:-1", "png:+1", "jpeg:0", "jpeg:101", "jpeg:x"]
        {
            let error = asked(text).expect_err(text);
            assert!(error.message.contains("accepted: png, png:LEVEL"), "{error}");
        }
        let error = asked("webp:80").expect_err("lossy");
        assert!(error.message.contains("WebPs are stored lossless"), "{error}");
    }

    #[test]
    fn each_value_that_cannot_be_is_refused_by_its_field() {
        let request = |format: &str, compression_level, quality| OutputRequest {
            format: format.to_owned(),
            compression_level,
            quality,
        };
        for (request, message) in [
            (
                request("gif", None, None),
                "settings.output.format is \"gif\"; accepted: png, jpeg or webp",
            ),
            (
                request("", Some(10), None),
                "settings.output.compression_level is 10; accepted: 0 to 9",
            ),
            (
                request("png", None, Some(80)),
                "settings.output.quality is 80, but the format is png; accepted: no quality, or jpeg as the format",
            ),
            (
                request("jpeg", Some(3), None),
                "settings.output.compression_level is 3, but the format is jpeg; accepted: no compression level, or png \
                 as the format",
            ),
            (request("jpeg", None, Some(0)), "settings.output.quality is 0; accepted: 1 to 100"),
            (
                request("jpeg", None, Some(101)),
                "settings.output.quality is 101; accepted: 1 to 100",
            ),
            (
                request("webp", None, Some(80)),
                "settings.output.quality is 80, but the format is webp; accepted: no quality, since WebPs are stored \
                 lossless",
            ),
            (
                request("webp", Some(1), None),
                "settings.output.compression_level is 1, but the format is webp; accepted: no compression level, or png \
                 as the format",
            ),
        ] {
            let error = request.resolve("settings.output").expect_err(message);
            assert_eq!(error.message, message);
            let field = message.split(' ').next().map(str::to_owned);
            assert_eq!(error.field, field);
        }
    }

    #[test]
    fn json_reads_back_and_holds_no_value_that_cannot_be() {
        for (output, json) in [
            (Output::default(), r#"{"format":"png"}"#),
            (Output::Png { level: Some(7) }, r#"{"format":"png","compression_level":7}"#),
            (Output::Jpeg { quality: 85 }, r#"{"format":"jpeg","quality":85}"#),
            (Output::WebP, r#"{"format":"webp"}"#),
        ] {
            assert_eq!(serde_json::to_string(&output).expect("writes"), json);
            assert_eq!(serde_json::from_str::<Output>(json).expect("reads"), output);
        }
        for json in [
            r#"{"format":"jpeg","quality":0}"#,
            r#"{"format":"png","compression_level":10}"#,
            r#"{"format":"webp","quality":80}"#,
            r#"{"format":"png","lossy":true}"#,
        ] {
            serde_json::from_str::<Output>(json).expect_err(json);
        }
    }

    #[test]
    fn formats_are_told_apart_by_key_and_by_content() {
        assert_eq!(Format::of_key("tasks/ab/cd.jpg"), Some(Format::Jpeg));
        assert_eq!(Format::of_key("tasks/ab/cd.webp"), Some(Format::WebP));
        assert_eq!(Format::of_key("tasks/ab/cd.safetensors"), None);
        assert_eq!(Format::of_key("png"), None);
        assert_eq!(Format::of_bytes(b"RIFF\0\0\0\0WEBPVP8L"), Some(Format::WebP));
        assert_eq!(Format::of_bytes(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(Format::of_bytes(b"\xff\xd8\xff\xe0"), Some(Format::Jpeg));
        assert_eq!(Format::of_bytes(b""), None);
    }

    #[test]
    fn a_picture_that_its_format_cannot_hold_is_refused() {
        let wide = Extent { width: 16_384, height: 64 };
        let error = Output::WebP.check_extent("settings.output.format", wide).expect_err("webp");
        assert!(error.message.contains("at most 16383 pixels"), "{error}");
        Output::Jpeg { quality: 9 }.check_extent("f", wide).expect("a JPEG holds it");
        Output::WebP.check_extent("f", Extent::square(16_383)).expect("the longest");
        let wider = Extent { width: 65_536, height: 1 };
        Output::Jpeg { quality: 9 }.check_extent("f", wider).expect_err("JPEG");
        Output::default().check_extent("f", wider).expect("a PNG holds it");
    }
}
