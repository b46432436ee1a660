//! Changes of bytes that know no format: bits, numbers, pieces, words.

#![expect(clippy::ptr_arg, reason = "all changes of bytes have one type")]

use mutatis::Rng;

use super::material::{Material, once_in, pick};

/// Numbers at the ends of ranges.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    16,
    63,
    64,
    127,
    128,
    255,
    256,
    1000,
    4095,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Numbers as texts have them.
pub(super) const WRITTEN: [&str; 26] = [
    "0",
    "-0",
    "1",
    "-1",
    "00",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-1e-999",
    "0.5",
    "NaN",
    "1_000",
];

/// One change, of any input.
pub fn change(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let kinds: [fn(&mut Rng, &Material<'_>, &mut Vec<u8>); 14] = [
        bit, byte, number, nudge, digits, remove, repeat, insert, word, word, over, cut, splice,
        swap,
    ];
    if let Some(kind) = pick(rng, &kinds) {
        kind(rng, material, input);
    }
}

fn place(rng: &mut Rng, input: &[u8]) -> usize {
    rng.gen_index(input.len() + 1).unwrap_or(0)
}

/// A piece of the input, mostly a short one.
fn piece(rng: &mut Rng, input: &[u8]) -> std::ops::Range<usize> {
    let from = place(rng, input);
    let most = if once_in(rng, 4) { input.len() } else { 16 };
    let length = 1 + rng.gen_index(most.max(1)).unwrap_or(0);
    from..input.len().min(from + length)
}

fn bit(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    if let Some(at) = rng.gen_index(input.len()) {
        input[at] ^= 1 << (rng.gen_u8() & 7);
    }
}

fn byte(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let new = rng.gen_u8();
    match rng.gen_index(input.len()) {
        Some(at) => input[at] = new,
        None => input.push(new),
    }
}

/// Overwrites one to eight bytes with a number, in either order.
fn number(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let Some(at) = rng.gen_index(input.len()) else { return };
    let number = *pick(rng, &NUMBERS).unwrap_or(&0);
    let width = 1 << (rng.gen_u8() % 4);
    let mut bytes = number.to_le_bytes()[..width].to_vec();
    if rng.gen_bool() {
        bytes.reverse();
    }
    for (old, new) in input[at..].iter_mut().zip(bytes) {
        *old = new;
    }
}

/// Adds a little to a byte.
fn nudge(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    if let Some(at) = rng.gen_index(input.len()) {
        input[at] = input[at].wrapping_add(rng.gen_u8() % 9).wrapping_sub(4);
    }
}

/// Replaces a number that is written in digits.
fn digits(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let begin = place(rng, input);
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(from) = input[begin..].iter().position(is_digit).map(|at| begin + at) else {
        return number(rng, material, input);
    };
    let length = input[from..].iter().take_while(|byte| is_digit(byte)).count();
    let new = pick(rng, &WRITTEN).copied().unwrap_or("0");
    input.splice(from..from + length, new.bytes());
}

fn remove(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let piece = piece(rng, input);
    input.drain(piece);
}

/// Repeats a piece, sometimes very often.
fn repeat(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let piece = piece(rng, input);
    let bytes = input[piece.clone()].to_vec();
    if bytes.is_empty() {
        return;
    }
    let times = if once_in(rng, 8) {
        material.most / bytes.len()
    } else {
        usize::from(rng.gen_u8() % 4) + 1
    };
    let room = material.most.saturating_sub(input.len()) / bytes.len();
    let new = bytes.repeat(times.min(room));
    input.splice(piece.end..piece.end, new);
}

fn insert(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let mut new = vec![0; 1 + usize::from(rng.gen_u8() % 16)];
    rng.gen_bytes(&mut new);
    let at = place(rng, input);
    input.splice(at..at, new);
}

fn word(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let at = place(rng, input);
    match pick(rng, material.words) {
        Some(word) => drop(input.splice(at..at, word.iter().copied())),
        None => insert(rng, material, input),
    }
}

/// Writes a word over what is there.
fn over(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let at = place(rng, input);
    let Some(word) = pick(rng, material.words) else { return bit(rng, material, input) };
    let end = input.len().min(at + word.len());
    input.splice(at..end, word.iter().copied());
}

fn cut(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let length = place(rng, input);
    input.truncate(length);
}

/// Puts a piece of another input in.
fn splice(rng: &mut Rng, material: &Material<'_>, input: &mut Vec<u8>) {
    let Some(other) = pick(rng, material.others) else { return insert(rng, material, input) };
    let theirs = piece(rng, other);
    let ours = if rng.gen_bool() { piece(rng, input) } else { place(rng, input)..input.len() };
    input.splice(ours, other[theirs].iter().copied());
}

/// Exchanges two pieces of the same length.
fn swap(rng: &mut Rng, _: &Material<'_>, input: &mut Vec<u8>) {
    let (one, other) = (piece(rng, input), place(rng, input));
    for (offset, at) in one.enumerate() {
        if other + offset < input.len() {
            input.swap(at, other + offset);
        }
    }
}
