//! Changes of JPEGs and WebPs: segments and chunks, with their lengths put right.

use mutatis::Rng;

use super::{
    bytes,
    material::{Material, once_in, pick},
};

/// Changes a segment of a JPEG; `None` if it is none.
pub(super) fn jpeg(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut rest = input.strip_prefix(b"\xff\xd8")?;
    let mut segments: Vec<(u8, Vec<u8>)> = Vec::new();
    while let [0xff, marker, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
        let (data, tail) = after.split_at_checked(length)?;
        segments.push((*marker, data.to_vec()));
        rest = tail;
        // What follows the begin of a scan is its bits.
        if *marker == 0xda {
            break;
        }
    }
    let mut scan = rest.to_vec();
    let inside = Material { others: &[], ..*material };
    let at = rng.gen_index(segments.len())?;
    match rng.gen_u8() % 10 {
        0 => drop(segments.remove(at)),
        1 => segments.insert(at, segments[at].clone()),
        2 => {
            let other = rng.gen_index(segments.len())?;
            segments.swap(at, other);
        }
        3 => {
            segments[at].0 =
                *pick(rng, &[0xc0, 0xc1, 0xc2, 0xc4, 0xda, 0xdb, 0xdd, 0xe1, 0xee, 0xfe])?
        }
        4 => bytes::change(rng, &inside, &mut scan),
        _ => bytes::change(rng, &inside, &mut segments[at].1),
    }
    let mut out = b"\xff\xd8".to_vec();
    for (marker, data) in segments {
        let length = u16::try_from(data.len() + 2).ok()?;
        out.extend([0xff, marker]);
        out.extend(length.to_be_bytes());
        out.extend(data);
    }
    out.extend(scan);
    Some(out)
}

/// Changes a chunk of a WebP; `None` if it is none.
pub(super) fn webp(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut rest = input.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WEBP")?;
    let mut chunks: Vec<([u8; 4], Vec<u8>)> = Vec::new();
    while let Some((name, after)) = rest.split_first_chunk() {
        let (length, after) = after.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = after.get(..length)?;
        chunks.push((*name, data.to_vec()));
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    let inside = Material { others: &[], ..*material };
    let at = rng.gen_index(chunks.len())?;
    match rng.gen_u8() % 9 {
        0 => drop(chunks.remove(at)),
        1 => chunks.insert(at, chunks[at].clone()),
        2 => {
            let other = rng.gen_index(chunks.len())?;
            chunks.swap(at, other);
        }
        3 => {
            chunks[at].0 =
                **pick(rng, &[b"VP8X", b"VP8L", b"VP8 ", b"EXIF", b"ANIM", b"ANMF", b"ALPH"])?
        }
        _ => bytes::change(rng, &inside, &mut chunks[at].1),
    }
    let mut body = b"WEBP".to_vec();
    for (name, data) in chunks {
        body.extend(name);
        body.extend((data.len() as u32).to_le_bytes());
        let odd = data.len() % 2 == 1;
        body.extend(data);
        body.extend(odd.then_some(0));
    }
    let size = if once_in(rng, 12) { rng.gen_u32() } else { body.len() as u32 };
    Some([b"RIFF", &size.to_le_bytes()[..], &body].concat())
}
