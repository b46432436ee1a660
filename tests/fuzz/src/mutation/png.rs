//! Changes of PNGs: chunks, with their lengths and checksums put right, and what is compressed in
//! them.

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use mutatis::Rng;

use super::{
    bytes,
    material::{Material, once_in, pick},
};

const BEGIN: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Most bytes that are unpacked.
const MOST: u64 = 1 << 18;

type Chunk = ([u8; 4], Vec<u8>);

const KINDS: [&[u8; 4]; 18] = [
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"gAMA",
    b"iCCP", b"sRGB", b"cHRM", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"sBIT",
];
const KEYWORDS: [&str; 8] = [
    "darkroom.prompt",
    "darkroom.seed",
    "darkroom.settings",
    "darkroom.cascade_digest",
    "parameters",
    "Comment",
    "",
    "a keyword that is longer than the seventy-nine characters which the standard of PNG allows",
];

/// Changes a PNG; `None` if it is none.
pub(super) fn change(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut chunks = parse(input.strip_prefix(BEGIN)?);
    let inside = Material { others: &[], ..*material };
    let at = rng.gen_index(chunks.len())?;
    match rng.gen_u8() % 14 {
        0 => drop(chunks.remove(at)),
        1 => chunks.insert(at, chunks[at].clone()),
        2 => {
            let other = rng.gen_index(chunks.len())?;
            chunks.swap(at, other);
        }
        3 => chunks[at].0 = **pick(rng, &KINDS)?,
        4 => {
            let theirs = parse(pick(rng, material.others)?.strip_prefix(BEGIN)?);
            chunks.insert(at, pick(rng, &theirs)?.clone());
        }
        5 | 6 => chunks.insert(at.max(1), text(rng, &inside)?),
        7 | 8 => header(rng, &mut chunks.first_mut()?.1),
        9 | 10 => {
            let (_, data) = chunks.iter_mut().find(|(kind, _)| kind == b"IDAT")?;
            *data = repacked(rng, &inside, data)?;
        }
        _ => bytes::change(rng, &inside, &mut chunks[at].1),
    }
    Some(written(&chunks))
}

fn parse(mut rest: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((kind, after)) = after.split_first_chunk() else { break };
        let Some((data, after)) = after.split_at_checked(length) else { break };
        chunks.push((*kind, data.to_vec()));
        rest = after.get(4..).unwrap_or_default();
    }
    chunks
}

fn written(chunks: &[Chunk]) -> Vec<u8> {
    let mut out = BEGIN.to_vec();
    for (kind, data) in chunks {
        out.extend((data.len() as u32).to_be_bytes());
        let begin = out.len();
        out.extend(kind);
        out.extend(data);
        let sum = crc32fast::hash(&out[begin..]);
        out.extend(sum.to_be_bytes());
    }
    out
}

/// Sizes, depth, colours, interlacing.
fn header(rng: &mut Rng, data: &mut [u8]) {
    let sizes = [0, 1, 2, 8, 9, 64, 8192, 8193, 65_536, 0x7fff_ffff, u32::MAX];
    let small = [0_u8, 1, 2, 3, 4, 6, 8, 16, 255];
    let at = usize::from(rng.gen_u8() % 7);
    if at < 2 {
        let size = *pick(rng, &sizes).unwrap_or(&0);
        if let Some(place) = data.get_mut(4 * at..4 * at + 4) {
            place.copy_from_slice(&size.to_be_bytes());
        }
    } else if let Some(place) = data.get_mut(6 + at) {
        *place = *pick(rng, &small).unwrap_or(&0);
    }
}

/// A chunk of text, of any of the three kinds, sometimes one that inflates to much.
fn text(rng: &mut Rng, material: &Material<'_>) -> Option<Chunk> {
    let keyword = *pick(rng, &KEYWORDS)?;
    let mut value = b"{\"a\": 1}".to_vec();
    bytes::change(rng, material, &mut value);
    if once_in(rng, 6) {
        value = vec![b'x'; usize::from(rng.gen_u8()) << 13];
    }
    let mut data = keyword.as_bytes().to_vec();
    data.push(0);
    let kind = match rng.gen_u8() % 3 {
        0 => {
            data.extend(value.get(..4096).unwrap_or(&value));
            *b"tEXt"
        }
        1 => {
            data.push(0);
            data.extend(deflated(&value)?);
            *b"zTXt"
        }
        _ => {
            data.extend([1, 0, 0, 0]);
            data.extend(deflated(&value)?);
            *b"iTXt"
        }
    };
    Some((kind, data))
}

fn deflated(plain: &[u8]) -> Option<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(plain).ok()?;
    packed.finish().ok()
}

/// The pixels, changed as they lie under their compression.
fn repacked(rng: &mut Rng, material: &Material<'_>, data: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    ZlibDecoder::new(data).take(MOST).read_to_end(&mut plain).ok()?;
    bytes::change(rng, material, &mut plain);
    deflated(&plain)
}
