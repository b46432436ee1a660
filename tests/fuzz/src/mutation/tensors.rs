//! Changes of safetensors files: the JSON of the header, with its length put right.

use mutatis::Rng;

use super::{
    bytes, json,
    material::{Material, once_in},
};

pub(super) fn change(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(*input.first_chunk()?)).ok()?;
    let (header, data) = input.get(8..)?.split_at_checked(length)?;
    let inside = Material { others: &[], ..*material };
    let header = if once_in(rng, 6) {
        let mut raw = header.to_vec();
        bytes::change(rng, &inside, &mut raw);
        raw
    } else {
        json::document(rng, &inside, header.trim_ascii_end())?
    };
    let mut data = data.to_vec();
    if once_in(rng, 6) {
        bytes::change(rng, &inside, &mut data);
    }
    Some([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}
