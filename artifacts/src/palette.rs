//! Palettes of PNGs.

/// What is wrong with a picture's palette. The library expands a palette without looking at its
/// length, and panics.
pub(crate) fn fault(info: &png::Info<'_>) -> Option<String> {
    let palette = info.palette.as_deref()?;
    let fits = palette.len().is_multiple_of(3) && (3..=768).contains(&palette.len());
    (!fits).then(|| {
        let bytes = palette.len();
        format!("its palette has {bytes} bytes, where each of 1 to 256 colours takes three")
    })
}

#[cfg(test)]
mod tests {
    use crate::{picture, test_pictures::chunk};

    /// A picture of one pixel, with a palette of this many bytes.
    fn indexed(bytes: usize) -> Vec<u8> {
        // One row of one byte, after the byte of its filter; not compressed.
        let pixels = [0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0, 0, 2, 0, 1];
        let parts = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0]),
            chunk(b"PLTE", &vec![7; bytes]),
            chunk(b"IDAT", &pixels),
            chunk(b"IEND", &[]),
        ];
        parts.concat()
    }

    #[test]
    fn a_palette_of_broken_colours_is_refused_before_it_is_used() {
        for bytes in [3, 6, 768] {
            let picture = picture::decode(&indexed(bytes)).expect("whole colours");
            assert_eq!(picture.rgb, [7, 7, 7], "{bytes}");
        }
        // Some lengths are refused by the library itself.
        for bytes in [1, 2, 4, 13, 766, 767, 769, 771] {
            let error = picture::decode(&indexed(bytes)).expect_err("broken").to_string();
            let told = [format!("has {bytes} bytes"), "Chunk length wrong".to_owned()];
            assert!(told.iter().any(|told| error.contains(told)), "{bytes}: {error}");
        }
        let error = picture::decode(&indexed(13)).expect_err("broken").to_string();
        assert!(error.contains("has 13 bytes"), "{error}");
    }
}
