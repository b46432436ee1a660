//! Changes of messages of the protocol, field by field, as the descriptor has them.

use std::collections::HashMap;

use mutatis::Rng;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

use super::{
    bytes,
    material::{Material, once_in, pick},
};

/// The types of a target. The first byte of an input names one by its number.
#[derive(Debug)]
pub struct Messages(Vec<MessageDescriptor>);

const UNSIGNED: [u64; 10] =
    [0, 1, 2, 3, 64, 1024, 10_001, u32::MAX as u64, i64::MAX as u64, u64::MAX];
const SIGNED: [i64; 9] =
    [0, 1, 2, -1, i32::MAX as i64, i32::MIN as i64, 253_402_300_800, i64::MAX, i64::MIN];
const DOUBLES: [f64; 10] =
    [0.0, -0.0, 0.5, 1.0, -1.0, 1e308, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324];
const TEXTS: [&str; 22] = [
    "",
    " ",
    "a",
    "\0",
    "\u{1b}[2J",
    "a\nb",
    "\u{202e}x",
    "\u{200b}",
    "\u{9b}",
    "é狗🙂",
    "e\u{301}",
    "0190a000-0000-7000-8000-000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "i18446744073709551615",
    "v1.2",
    "../x",
    "demo",
    "base",
    "sr256",
    "ddim",
    "dpmsolver++",
    "2026-02-31",
];

impl Messages {
    /// The types with these names, without the package.
    ///
    /// # Panics
    /// If the protocol does not have one.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        let pool =
            DescriptorPool::decode(darkroom_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let find = |name: &&str| {
            let full = format!("darkroom.v1.{name}");
            pool.get_message_by_name(&full).unwrap_or_else(|| panic!("there is no {full}"))
        };
        Self(names.iter().map(find).collect())
    }

    /// Which type an input has, and its bytes.
    #[must_use]
    pub fn split<'a>(&self, input: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let (number, message) = input.split_first()?;
        Some((usize::from(*number) % self.0.len(), message))
    }

    /// Changes a message, and sometimes its type.
    pub(super) fn change(
        &self,
        rng: &mut Rng,
        material: &Material<'_>,
        input: &[u8],
    ) -> Option<Vec<u8>> {
        if once_in(rng, 24) {
            return Some([&[rng.gen_u8()], input.get(1..)?].concat());
        }
        let (number, bytes) = self.split(input)?;
        let descriptor = self.0.get(number)?;
        let mut message = DynamicMessage::decode(descriptor.clone(), bytes).ok()?;
        let rounds = 1 + rng.gen_u8() % 3;
        for _ in 0..rounds {
            field(rng, material, &mut message, 4);
        }
        Some([&[input[0]], &message.encode_to_vec()[..]].concat())
    }

    /// The name of a type.
    #[must_use]
    pub fn name(&self, number: u8) -> &str {
        self.0.get(usize::from(number)).map_or("", MessageDescriptor::name)
    }

    /// Bytes of a message in which every field has a value, with the number of its type in front.
    #[must_use]
    pub fn full(&self, number: u8) -> Option<Vec<u8>> {
        let descriptor = self.0.get(usize::from(number))?;
        let message = filled(descriptor, 6);
        Some([&[number], &message.encode_to_vec()[..]].concat())
    }
}

fn filled(descriptor: &MessageDescriptor, depth: u8) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    if depth > 0 {
        for field in descriptor.fields() {
            let one = plain(&field.kind(), depth);
            let value = if field.is_map() {
                let text = Value::String("value".to_owned());
                Value::Map(HashMap::from([(MapKey::String("key".to_owned()), text)]))
            } else if field.is_list() {
                Value::List(vec![one])
            } else {
                one
            };
            message.set_field(&field, value);
        }
    }
    message
}

fn plain(kind: &Kind, depth: u8) -> Value {
    match kind {
        Kind::Message(inner) => Value::Message(filled(inner, depth - 1)),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::String => Value::String("a text".to_owned()),
        Kind::Double => Value::F64(0.5),
        _ => random(&mut None, kind).unwrap_or_else(|| kind.default_value()),
    }
}

/// A value of a kind; without a source of randomness, 1.
fn random(rng: &mut Option<&mut Rng>, kind: &Kind) -> Option<Value> {
    let mut place = |length: usize| match rng {
        Some(rng) => rng.gen_index(length),
        None => Some(1),
    };
    Some(match kind {
        Kind::Bool => Value::Bool(place(2)? == 1),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(UNSIGNED[place(UNSIGNED.len())?] as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(UNSIGNED[place(UNSIGNED.len())?]),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            Value::I32(SIGNED[place(SIGNED.len())?] as i32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(SIGNED[place(SIGNED.len())?]),
        Kind::Double => Value::F64(DOUBLES[place(DOUBLES.len())?]),
        Kind::Float => Value::F32(DOUBLES[place(DOUBLES.len())?] as f32),
        Kind::String => Value::String(TEXTS[place(TEXTS.len())?].to_owned()),
        Kind::Bytes => Value::Bytes(TEXTS[place(TEXTS.len())?].as_bytes().to_vec().into()),
        Kind::Enum(names) => {
            let last = names.values().map(|value| value.number()).max().unwrap_or(0);
            let number = place(usize::try_from(last).unwrap_or(0) + 3)?;
            Value::EnumNumber(i32::try_from(number).unwrap_or(-1) - 1)
        }
        Kind::Message(_) => return None,
    })
}

/// Changes one field of a message, or of one inside it.
fn field(rng: &mut Rng, material: &Material<'_>, message: &mut DynamicMessage, depth: u8) {
    let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    let Some(chosen) = pick(rng, &fields) else { return };
    if once_in(rng, 8) {
        message.clear_field(chosen);
        return;
    }
    let kind = chosen.kind();
    let slot = message.get_field_mut(chosen);
    match slot {
        Value::List(items) => list(rng, material, items, &kind, depth),
        Value::Map(entries) => {
            let key = pick(rng, &TEXTS).copied().unwrap_or_default().to_owned();
            let value = pick(rng, &TEXTS).copied().unwrap_or_default().to_owned();
            let many = if once_in(rng, 8) { 70 } else { 0 };
            let numbered = (0..many).map(|number| (format!("{key}{number}"), value.clone()));
            let all = numbered.chain([(key.clone(), value.clone())]);
            entries.extend(all.map(|(key, value)| (MapKey::String(key), Value::String(value))));
        }
        one => single(rng, material, one, &kind, depth),
    }
}

fn list(rng: &mut Rng, material: &Material<'_>, items: &mut Vec<Value>, kind: &Kind, depth: u8) {
    let at = rng.gen_index(items.len());
    match (rng.gen_u8() % 6, at) {
        (0, Some(at)) => drop(items.remove(at)),
        (1, Some(at)) => {
            let times = if once_in(rng, 6) { 300 } else { 1 };
            let item = items[at].clone();
            items.splice(at..at, std::iter::repeat_n(item, times));
        }
        (2 | 3, Some(at)) => single(rng, material, &mut items[at], kind, depth),
        _ => {
            let mut new = kind.default_value();
            single(rng, material, &mut new, kind, depth);
            items.push(new);
        }
    }
}

fn single(rng: &mut Rng, material: &Material<'_>, value: &mut Value, kind: &Kind, depth: u8) {
    match value {
        Value::Message(inner) if depth > 0 => field(rng, material, inner, depth - 1),
        Value::String(text) if !once_in(rng, 3) => {
            let mut raw = text.clone().into_bytes();
            let inside = Material { others: &[], most: 1 << 11, ..*material };
            bytes::change(rng, &inside, &mut raw);
            *text = String::from_utf8_lossy(&raw).into_owned();
        }
        _ => {
            if let Some(new) = random(&mut Some(rng), kind) {
                *value = new;
            }
        }
    }
}
