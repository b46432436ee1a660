//! Whether a colour profile is sRGB, judged by its description.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

/// How many bytes of a profile are searched: its description is near the beginning.
const LOOKED_AT: u64 = 64 << 10;

/// Whether a profile's description names something other than sRGB.
pub(super) fn is_other(profile: &[u8]) -> bool {
    let profile = &profile[..profile.len().min(LOOKED_AT as usize)];
    let has = |words: &[u8]| profile.windows(words.len()).any(|window| window == words);
    !profile.is_empty() && !has(b"sRGB") && !has(b"s\0R\0G\0B")
}

/// The same for a PNG's iCCP chunk: a name, a zero, a zero, and the compressed profile. Only the
/// part that is searched is decompressed.
pub(super) fn is_other_packed(chunk: &[u8]) -> bool {
    let Some(end) = chunk.iter().take(80).position(|byte| *byte == 0) else { return false };
    if chunk[..end].windows(4).any(|window| window == b"sRGB") {
        return false;
    }
    let mut profile = Vec::new();
    let packed = chunk.get(end + 2..).unwrap_or_default();
    // Data that cannot be decompressed are not a profile.
    let _ = ZlibDecoder::new(packed).take(LOOKED_AT).read_to_end(&mut profile);
    is_other(&profile)
}
