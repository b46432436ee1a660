//! What a file is, by its first bytes. Its name does not matter.

use darkroom_core::shown::shown;

use super::Error;

/// Supported formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Png,
    Jpeg,
    WebP,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        }
    }

    /// The beginning of a command that rewrites a file of this kind, upright and without special
    /// features.
    pub(super) fn convert(self) -> &'static str {
        match self {
            Self::Png => "convert in.png -auto-orient -strip",
            Self::Jpeg => "convert in.jpg -auto-orient -strip",
            Self::WebP => "convert in.webp -auto-orient -strip",
        }
    }

    pub(super) fn damaged(self, what: &str) -> Error {
        // Libraries' words may have line ends, and quote the file.
        let (name, what) = (self.name(), shown(what.trim()));
        Error(format!("is a damaged {name}: {what}; accepted: a whole {name}"))
    }

    /// An intact file of an unsupported variety.
    pub(super) fn unusual(self, what: &str) -> Error {
        Error(format!(
            "is a {} {what}; accepted: what `{} out.png` makes",
            self.name(),
            self.convert()
        ))
    }
}

/// The name of an unsupported kind of file, and how to convert it.
type Other = (&'static str, &'static str);

const CONVERT_GIF: &str = "`convert 'in.gif[0]' -coalesce out.png`";
const CONVERT_TIFF: &str = "`convert 'in.tif[0]' -auto-orient -colorspace sRGB -strip out.png`";
const CONVERT_HEIF: &str = "`convert in.heic -strip out.png` or `heif-convert in.heic out.png`";
const CONVERT_AVIF: &str = "`convert in.avif -strip out.png` or `avifdec in.avif out.png`";
const CONVERT_JP2: &str = "`convert in.jp2 -strip out.png`";
const CONVERT_PDF: &str = "`pdftoppm -png -singlefile -r 150 in.pdf out`";

/// First bytes of unsupported files.
const OTHERS: &[(&[u8], Other)] = &[
    (b"GIF87a", ("a GIF", CONVERT_GIF)),
    (b"GIF89a", ("a GIF", CONVERT_GIF)),
    (b"II*\0", ("a TIFF, or a camera's raw file", CONVERT_TIFF)),
    (b"MM\0*", ("a TIFF, or a camera's raw file", CONVERT_TIFF)),
    (b"II+\0", ("a BigTIFF", CONVERT_TIFF)),
    (b"MM\0+", ("a BigTIFF", CONVERT_TIFF)),
    (b"BM", ("a BMP", "`convert in.bmp out.png`")),
    (b"\0\0\x01\0", ("an icon (ICO)", "`convert 'in.ico[0]' out.png`")),
    (b"8BPS", ("a Photoshop file (PSD)", "`convert 'in.psd[0]' -colorspace sRGB out.png`")),
    (b"\xff\x0a", ("a JPEG XL", "`djxl in.jxl out.png`")),
    (b"\0\0\0\x0cJXL ", ("a JPEG XL", "`djxl in.jxl out.png`")),
    (b"\0\0\0\x0cjP  ", ("a JPEG 2000", CONVERT_JP2)),
    (b"\xff\x4f\xff\x51", ("a JPEG 2000", CONVERT_JP2)),
    (b"\x8aMNG", ("an MNG", "`convert 'in.mng[0]' out.png`")),
    (b"%PDF", ("a PDF", CONVERT_PDF)),
    (b"%!PS", ("a PostScript file", "an export as PNG")),
    (b"\xc5\xd0\xd3\xc6", ("a PostScript file", "an export as PNG")),
    (b"\x76\x2f\x31\x01", ("an OpenEXR", "an export as PNG, in sRGB")),
    (b"#?RADIANCE", ("a Radiance HDR", "an export as PNG, in sRGB")),
    (b"qoif", ("a QOI", "an export as PNG")),
    (b"DDS ", ("a DDS texture", "an export as PNG")),
    (b"gimp xcf", ("a GIMP file (XCF)", "an export as PNG")),
    (b"P1", ("a PBM", "`convert in.pbm out.png`")),
    (b"P2", ("a PGM", "`convert in.pgm out.png`")),
    (b"P3", ("a PPM", "`convert in.ppm out.png`")),
    (b"P4", ("a PBM", "`convert in.pbm out.png`")),
    (b"P5", ("a PGM", "`convert in.pgm out.png`")),
    (b"P6", ("a PPM", "`convert in.ppm out.png`")),
    (b"\x1f\x8b", ("a gzip file", "the picture in it")),
    (b"\x28\xb5\x2f\xfd", ("a zstd file", "the picture in it")),
    (b"PK\x03\x04", ("a ZIP archive", "the picture in it")),
    (b"\x1a\x45\xdf\xa3", ("a video", "a still picture from it")),
    (
        b"version https://git-lfs",
        ("a Git LFS pointer, not the picture itself", "what `git lfs pull` fetches"),
    ),
];

/// Brands of the ISO media container, and their names.
const BRANDS: &[(&[u8], Other)] = &[
    (b"avif", ("an AVIF", CONVERT_AVIF)),
    (b"avis", ("an AVIF", CONVERT_AVIF)),
    (b"heic", ("a HEIC", CONVERT_HEIF)),
    (b"heix", ("a HEIC", CONVERT_HEIF)),
    (b"heim", ("a HEIC", CONVERT_HEIF)),
    (b"heis", ("a HEIC", CONVERT_HEIF)),
    (b"hevc", ("a HEIC", CONVERT_HEIF)),
    (b"hevx", ("a HEIC", CONVERT_HEIF)),
    (b"mif1", ("a HEIF", CONVERT_HEIF)),
    (b"msf1", ("a HEIF", CONVERT_HEIF)),
    (b"crx ", ("a camera's raw file (CR3)", "an export as JPEG or PNG")),
];

/// How many bytes are searched for the type of a text file.
const TEXT: usize = 4096;

/// The format of a supported file; otherwise the error with its kind and how to convert it.
pub(super) fn of(bytes: &[u8]) -> Result<Kind, Error> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        // Apple's tools for phones write a variety that no other decoder can read.
        return if bytes.get(12..16) == Some(b"CgBI") {
            Err(refused((
                "a PNG as Apple packs it into apps (CgBI)",
                "`pngcrush -revert-iphone-optimizations in.png out.png`",
            )))
        } else {
            Ok(Kind::Png)
        };
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Kind::Jpeg);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok(Kind::WebP);
    }
    Err(other(bytes).map_or_else(unknown, refused))
}

fn refused((name, help): Other) -> Error {
    let help =
        if help.starts_with('`') { format!(", as {help} makes") } else { format!(": {help}") };
    Error(format!("is {name}; accepted: PNG, JPEG or WebP{help}"))
}

fn unknown() -> Error {
    Error("is no picture that can be read; accepted: PNG, JPEG or WebP".to_owned())
}

fn other(bytes: &[u8]) -> Option<Other> {
    if bytes.is_empty() {
        return Some(("empty", "a whole file"));
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        let brands = bytes.get(8..bytes.len().min(64)).unwrap_or_default();
        let known = brands
            .chunks_exact(4)
            .find_map(|brand| BRANDS.iter().find(|(known, _)| *known == brand));
        return Some(known.map_or(("a video", "a still picture from it"), |(_, other)| *other));
    }
    if let Some((_, other)) = OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(*other);
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT)]).to_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('<') && start.contains("<svg") {
        return Some(("an SVG, which has no pixels", "`rsvg-convert -w 1024 -o out.png in.svg`"));
    }
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return Some(("a web page", "the picture itself, downloaded"));
    }
    None
}
