//! Changes of prompt files, which may be compressed: then what is inside is changed.

use std::io::{Read as _, Write as _};

use mutatis::Rng;

use super::{
    bytes, json, lines,
    material::{Material, once_in},
};

/// Most bytes that are unpacked.
const MOST: u64 = 1 << 20;

/// Changes the options or the file.
pub(super) fn change(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let (options, file) = input.split_first()?;
    if once_in(rng, 6) {
        return Some([&[rng.gen_u8()], file].concat());
    }
    let others: Vec<Vec<u8>> =
        material.others.iter().filter_map(|other| Some(other.get(1..)?.to_vec())).collect();
    let inside = Material { others: &others, ..*material };
    let changed = if file.starts_with(b"\x1f\x8b") && !once_in(rng, 4) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(file).take(MOST).read_to_end(&mut plain).ok()?;
        gzip(&packed_file(rng, &inside, plain)?)?
    } else if file.starts_with(b"\x28\xb5\x2f\xfd") && !once_in(rng, 4) {
        let mut plain = Vec::new();
        zstd::Decoder::new(file).ok()?.take(MOST).read_to_end(&mut plain).ok()?;
        zstd::encode_all(&packed_file(rng, &inside, plain)?[..], 1).ok()?
    } else {
        let changed = plain_file(rng, &inside, file.to_vec())?;
        match rng.gen_u8() % 24 {
            0 => gzip(&changed)?,
            1 => zstd::encode_all(&changed[..], 1).ok()?,
            _ => changed,
        }
    };
    Some([&[*options], &changed[..]].concat())
}

/// A change of what is compressed; sometimes it becomes much, which is small once compressed.
fn packed_file(rng: &mut Rng, material: &Material<'_>, file: Vec<u8>) -> Option<Vec<u8>> {
    let changed = plain_file(rng, material, file)?;
    let times = if once_in(rng, 10) { (1 << 20) / changed.len().max(1) } else { 1 };
    Some(changed.repeat(times))
}

fn plain_file(rng: &mut Rng, material: &Material<'_>, mut file: Vec<u8>) -> Option<Vec<u8>> {
    let formed = match rng.gen_u8() % 3 {
        0 => json::document(rng, material, &file),
        1 => lines::documents(rng, material, &file),
        _ => None,
    };
    if formed.is_some() {
        return formed;
    }
    bytes::change(rng, material, &mut file);
    Some(file)
}

fn gzip(plain: &[u8]) -> Option<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(plain).ok()?;
    packed.finish().ok()
}
