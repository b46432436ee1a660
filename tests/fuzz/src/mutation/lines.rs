//! Changes of files of lines: JSON lines, manifests, entries of a queue.

use mutatis::Rng;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    bytes, json,
    material::{Material, once_in, pick},
};

/// Changes a file of JSON lines: one line, or their order.
pub(super) fn documents(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> =
        input.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = rng.gen_index(lines.len())?;
    match rng.gen_u8() % 8 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let other = rng.gen_index(lines.len())?;
            lines.swap(at, other);
        }
        3 => {
            let other = pick(rng, material.others)?;
            let theirs: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
            lines.insert(at, pick(rng, &theirs)?.to_vec());
        }
        _ => {
            let inside = Material { others: &[], ..*material };
            let mut line = json::document(rng, &inside, &lines[at])?;
            line.retain(|byte| *byte != b'\n');
            line.push(b'\n');
            lines[at] = line;
        }
    }
    Some(lines.concat())
}

/// Changes a manifest, and mostly puts the hash of its last line right.
pub(super) fn manifest(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let changed = documents(rng, material, input)?;
    if once_in(rng, 4) {
        return Some(changed);
    }
    let body = changed.strip_suffix(b"\n").unwrap_or(&changed);
    let end = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (above, last) = changed.split_at(end);
    let mut totals: Value = serde_json::from_slice(last).ok()?;
    let hash: String = Sha256::digest(above).iter().map(|byte| format!("{byte:02x}")).collect();
    totals.as_object_mut()?.insert("sha256_above".to_owned(), hash.into());
    Some([above, totals.to_string().as_bytes(), b"\n"].concat())
}

/// Changes an entry: two lines of any text, and a document.
pub(super) fn entry(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> =
        input.splitn(3, |byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if parts.len() == 3 && !once_in(rng, 4) {
        let inside = Material { others: &[], ..*material };
        parts[2] = json::document(rng, &inside, &parts[2])?;
    } else {
        let at = rng.gen_index(parts.len())?;
        bytes::change(rng, material, &mut parts[at]);
    }
    Some(parts.join(&b'\n'))
}
