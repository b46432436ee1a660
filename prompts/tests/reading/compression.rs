//! gzip and zstd: recognised by content, limited in size, and refused if damaged. Also files that
//! are not text at all.

use std::io::Write as _;

use darkroom_prompts::{Limits, Options};
use flate2::{Compression, write::GzEncoder};

use crate::{lines, read_with, refused, refused_with, texts};

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).expect("written");
    encoder.finish().expect("finished")
}

fn zstd(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("set");
    encoder.write_all(bytes.as_ref()).expect("written");
    encoder.finish().expect("finished")
}

#[test]
fn every_format_can_be_compressed_and_extensions_count_in_any_case() {
    type Pack = fn(&str) -> Vec<u8>;
    let packs: [(Pack, [&str; 3]); 2] = [
        (|text| gzip(text), [".gz", ".GZ", ".gzip"]),
        (|text| zstd(text), [".zst", ".ZST", ".zstd"]),
    ];
    for (pack, extensions) in packs {
        for extension in extensions {
            let name = |name: &str| format!("{name}{extension}");
            let expected = lines(&[(1, "a")]);
            assert_eq!(texts(pack("a\n"), &name("a.txt")), expected);
            assert_eq!(texts(pack("\u{feff}a\r\n"), &name("a")), expected);
            assert_eq!(texts(pack("{\"prompt\": \"a\"}"), &name("a.JSONL")), expected);
            assert_eq!(texts(pack("prompt,tag\na,b\n"), &name("a.csv")), lines(&[(2, "a")]));
            assert_eq!(texts(pack("prompt\ttag\na\tb\n"), &name("a.tsv")), lines(&[(2, "a")]));
            assert_eq!(texts(pack("[\"a\"]"), &name("a.json")), expected);
            refused(pack("prompt,tag\na,b\n"), &name("a.txt"), &["line 1: ", "--format csv"]);
        }
        assert_eq!(texts(pack("a"), ""), lines(&[(1, "a")]), "from a pipe");
        assert_eq!(
            texts([pack("a\nb"), pack("c\n"), pack("d")].concat(), "a.txt.gz"),
            lines(&[(1, "a"), (2, "bc"), (3, "d")])
        );
        refused(pack(""), "a.txt", &["no prompts"]);
    }
}

#[test]
fn a_file_that_is_only_named_compressed_is_read_with_a_note() {
    let (prompts, notes) =
        read_with("a\n".as_bytes(), "a.txt.gz", Options::default()).expect("text");
    assert_eq!((prompts.len(), notes.len()), (1, 1));
    assert!(notes[0].message.contains("not"), "{notes:?}");
}

#[test]
fn damaged_and_cut_data_is_refused() {
    let long: String = (0..20_000).map(|number| format!("prompt number {number}\n")).collect();
    for (packed, name) in [(gzip(&long), "gzip"), (zstd(&long), "zstd")] {
        for cut in [packed.len() - 1, packed.len() / 2, 20] {
            refused(&packed[..cut], "a.txt", &[name, "cut short"]);
        }
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        let error = read_with(flipped.as_slice(), "a.txt", Options::default())
            .expect_err("damaged")
            .to_string();
        assert!(error.contains(name) || error.contains("line "), "{error}");
        refused([packed, b"and more".to_vec()].concat(), "a.txt", &[name]);
    }
    refused(gzip(gzip("a")), "a.txt.gz", &["compressed twice"]);
    refused(gzip(zstd("a")), "a.txt.gz", &["compressed twice"]);
}

#[test]
fn what_a_small_file_unpacks_to_is_bounded() {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let bounded = Options { limits, ..Options::default() };
    let bomb = "\n".repeat(64 << 20);
    for packed in [gzip(&bomb), zstd(&bomb)] {
        assert!(packed.len() < 100_000);
        refused_with(packed, "a.txt", bounded.clone(), &["more than 1 MiB when it is unpacked"]);
    }
    // A frame whose header asks for a window of 2 GiB: magic, descriptor, window descriptor
    // (exponent 21), an empty block.
    let wide: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    refused(wide, "a.txt.zst", &["window", "128 MiB", "--long"]);
}

#[test]
fn files_that_are_no_text_are_refused_by_what_they_are() {
    let tar = [b"a.txt".as_slice(), &[0; 252], b"ustar\0", &[0; 249]].concat();
    let files: [(&[u8], &str); 22] = [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG picture"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG picture"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP picture"),
        (b"GIF89a\x01\0\x01\0", "a GIF picture"),
        (b"BM\x36\0\0\0\0\0\0\0\x36", "a BMP picture"),
        (b"II*\0\x08\0\0\0", "a TIFF picture"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"{\\rtf1\\ansi a prompt}", "an RTF document"),
        (b"PK\x03\x04\x14\0\x06\0[Content_Types].xml", "an Office document"),
        (
            b"PK\x03\x04\x14\0\0\0mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "an OpenDocument",
        ),
        (b"PK\x03\x04\x14\0\0\0prompts.txt", "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
        (b"PAR1\x15\x04\x15\0", "a Parquet file"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x80\x04\x95", "a Python pickle"),
        (b"\x7fELF\x02\x01\x01\0", "a program"),
        (b"BZh91AY&SY\xff", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7-Zip archive"),
        (&tar, "a tar archive"),
    ];
    for (bytes, what) in files {
        for name in ["a.txt", "a.jsonl", "a.csv", ""] {
            refused(bytes, name, &["it is ", what]);
        }
        refused(gzip(bytes), "a.txt.gz", &["it is ", what]);
    }
    for text in [
        "BMW in fog",
        "PAR1 of the course",
        "BZh is a prompt",
        "GIF89a in neon letters",
        "MM or II",
    ] {
        assert_eq!(texts(text, "a.txt"), lines(&[(1, text)]), "a prompt");
    }
    for (text, what) in [
        ("<!DOCTYPE html>\n<html>", "a web page"),
        ("<HTML lang=en>", "a web page"),
        ("<?xml version=\"1.0\"?>", "XML"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS"),
    ] {
        for name in ["a.txt", "a.csv", "a.jsonl", "a.json", ""] {
            refused(text, name, &["line 1: ", what, "--format text"]);
        }
    }
}
