//! Changes of protobuf messages whose type is not known here: fields, numbers, nested messages.

use mutatis::Rng;

use super::{
    bytes,
    material::{Material, once_in, pick},
};

/// A field: its number and its value.
#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

const VARINTS: [u64; 12] =
    [0, 1, 2, 3, 4, 5, 6, 127, 128, u32::MAX as u64, i64::MAX as u64, u64::MAX];
const FLOATS: [f32; 8] =
    [0.0, -0.0, 1.0, -1e30, f32::MAX, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Changes a message; `None` if it is none.
pub(super) fn change(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut fields = parse(input)?;
    let at = rng.gen_index(fields.len())?;
    match rng.gen_u8() % 12 {
        0 => drop(fields.remove(at)),
        1 => fields.insert(at, fields[at].clone()),
        2 => {
            let other = rng.gen_index(fields.len())?;
            fields.swap(at, other);
        }
        3 => fields[at].number = 1 + u64::from(rng.gen_u8() % 40),
        4 => {
            let theirs = parse(pick(rng, material.others)?)?;
            fields.insert(at, pick(rng, &theirs)?.clone());
        }
        5 => fields.truncate(at.max(1)),
        _ => value(rng, material, &mut fields[at].value),
    }
    Some(written(&fields))
}

fn value(rng: &mut Rng, material: &Material<'_>, value: &mut Value) {
    match value {
        Value::Varint(number) => *number = *pick(rng, &VARINTS).unwrap_or(&0),
        Value::Fixed64(raw) => rng.gen_bytes(raw),
        Value::Fixed32(raw) => *raw = pick(rng, &FLOATS).unwrap_or(&0.0).to_le_bytes(),
        Value::Bytes(raw) => {
            let inside = Material { others: &[], ..*material };
            match change(rng, &inside, raw) {
                Some(changed) if !once_in(rng, 3) => *raw = changed,
                _ => bytes::change(rng, &inside, raw),
            }
        }
    }
}

fn parse(mut rest: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            1 => Value::Fixed64(*taken(&mut rest, 8)?.first_chunk()?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(taken(&mut rest, length)?.to_vec())
            }
            5 => Value::Fixed32(*taken(&mut rest, 4)?.first_chunk()?),
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value });
    }
    Some(fields)
}

fn taken<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = taken(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn written(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, value } in fields {
        let (kind, raw): (u64, &[u8]) = match value {
            Value::Varint(_) => (0, &[]),
            Value::Fixed64(raw) => (1, raw),
            Value::Bytes(raw) => (2, raw),
            Value::Fixed32(raw) => (5, raw),
        };
        put(&mut out, number << 3 | kind);
        match value {
            Value::Varint(number) => put(&mut out, *number),
            Value::Bytes(raw) => put(&mut out, raw.len() as u64),
            Value::Fixed64(_) | Value::Fixed32(_) => {}
        }
        out.extend(raw);
    }
    out
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message =
            b"\x08\x96\x01\x12\x03abc\x1d\0\0\x80\x3f\x21\x01\x02\x03\x04\x05\x06\x07\x08";
        assert_eq!(written(&parse(message).unwrap()), message);
        assert!(parse(b"\x0b").is_none() && parse(b"\x12\x05ab").is_none());
    }
}
