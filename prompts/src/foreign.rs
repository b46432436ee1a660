//! Files without prompts, recognised by their first bytes, so that the error can name what they
//! are.

use crate::Error;

/// A kind of file that has no prompts.
struct Kind {
    /// What its files begin with.
    magic: &'static [u8],
    /// What it is, with the article.
    what: &'static str,
    /// What to do with it.
    advice: &'static str,
}

const fn kind(magic: &'static [u8], what: &'static str, advice: &'static str) -> Kind {
    Kind { magic, what, advice }
}

const UNPACK: &str = "unpack it first";
const TABLE: &str = "export the table as CSV";
const PICTURE: &str = "pictures go into --image, or into the field `image` of a prompt";
const DATA: &str = "export its texts as CSV or JSON lines";

const KINDS: &[Kind] = &[
    kind(b"\x89PNG\r\n\x1a\n", "a PNG picture", PICTURE),
    kind(b"\xff\xd8\xff", "a JPEG picture", PICTURE),
    kind(b"GIF8", "a GIF picture", PICTURE),
    kind(b"BM", "a BMP picture", PICTURE),
    kind(b"II*\0", "a TIFF picture", PICTURE),
    kind(b"MM\0*", "a TIFF picture", PICTURE),
    kind(b"%PDF-", "a PDF document", "copy its text into a text file"),
    kind(b"{\\rtf", "an RTF document", "save it as plain text"),
    kind(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.xls, .doc)", TABLE),
    kind(b"PAR1", "a Parquet file", DATA),
    kind(b"ARROW1", "an Arrow file", DATA),
    kind(b"FEA1", "a Feather file", DATA),
    kind(b"SQLite format 3\0", "an SQLite database", DATA),
    kind(b"\x89HDF\r\n\x1a\n", "an HDF5 file", DATA),
    kind(b"\x93NUMPY", "a NumPy file", DATA),
    kind(b"\x7fELF", "a program", "name a file of prompts"),
    kind(b"BZh", "compressed with bzip2", "unpack it with `bunzip2`, or use gzip or zstd"),
    kind(b"\xfd7zXZ\0", "compressed with xz", "unpack it with `unxz`, or use gzip or zstd"),
    kind(b"\x04\"M\x18", "compressed with lz4", "unpack it with `unlz4`, or use gzip or zstd"),
    kind(b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    kind(b"Rar!\x1a\x07", "a RAR archive", UNPACK),
];

/// Refuses files that begin like something other than text.
pub(crate) fn check(head: &[u8]) -> Result<(), Error> {
    match name(head) {
        Some((what, advice)) => {
            Err(Error::File(format!("it is {what}, not a file of prompts; {advice}")))
        }
        None => Ok(()),
    }
}

fn name(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
        return Some(if has(b"[Content_Types].xml") || has(b"_rels/") || has(b"docProps/") {
            ("an Office document (.xlsx, .docx)", TABLE)
        } else if has(b"opendocument") {
            ("an OpenDocument file (.ods, .odt)", TABLE)
        } else {
            ("a ZIP archive", UNPACK)
        });
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some(("a WebP picture", PICTURE));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    // A pickle of protocol 2 to 5 begins with a byte that no UTF-8 text begins with, followed by
    // its version.
    if matches!(head, [0x80, 2..=5, ..]) {
        return Some(("a Python pickle", DATA));
    }
    // Two letters alone could begin a prompt; the header of a bitmap also has zeros in bytes 6 to
    // 9.
    let is = |magic: &[u8]| {
        head.starts_with(magic) && (magic != b"BM" || head.get(6..10) == Some(&[0; 4]))
    };
    // Letters alone could begin a prompt; the next bytes of such a file are not text.
    let letters =
        |magic: &[u8]| magic.is_ascii() && !magic.starts_with(b"%PDF") && !magic.starts_with(b"{");
    KINDS
        .iter()
        .find(|kind| is(kind.magic) && !(letters(kind.magic) && is_text(head)))
        .map(|kind| (kind.what, kind.advice))
}

/// Whether these are the first bytes of UTF-8 text. The last character may be cut.
fn is_text(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    whole && !head.contains(&0)
}
