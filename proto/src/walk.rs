//! Checks an encoded message without decoding it: is it well formed, and is every repeated field
//! within its limit?
//!
//! The walk reads each byte once, allocates nothing unless it refuses, and follows the descriptor.
//! It is stricter than protobuf in two ways that do not affect real encoders. It refuses groups. It
//! also refuses a second submessage in a field that holds one, because a decoder would merge the
//! two, and with them the elements that were counted separately.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::{
    FILE_DESCRIPTOR_SET,
    bounds::{DEFAULT_ELEMENTS, MAX_DEPTH, MAX_ELEMENTS, limit_of},
};

/// Why a message is not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not a message of its type.
    Malformed(&'static str),
    /// A field has too many elements.
    TooMany {
        /// Path of the field, starting at the message.
        field: String,
        /// Its limit.
        limit: u32,
        /// Advice for the user.
        advice: &'static str,
    },
    /// All its repeated fields together have too many elements.
    TooManyInAll,
    /// Messages are nested too deeply.
    TooDeep,
}

/// How the values of a field look on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    /// Strings and bytes.
    Bytes,
    /// A message: its index in the tables.
    Message(u16),
}

/// One field of a message.
#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    kind: Kind,
    /// For a repeated field, its limit and advice.
    repeated: Option<(u32, &'static str)>,
    /// Index of its counter within a message. Fields that are not counted have none.
    slot: Option<u8>,
}

/// One type of message.
#[derive(Debug)]
struct MessageType {
    fields: Vec<Field>,
}

/// Counted fields of one message.
const SLOTS: usize = 16;

/// The walk's tables of the protocol.
#[derive(Debug)]
pub(crate) struct Tables {
    types: Vec<MessageType>,
    by_name: HashMap<String, u16>,
    requests: Vec<String>,
}

impl Tables {
    /// The tables of [`FILE_DESCRIPTOR_SET`].
    pub(crate) fn get() -> &'static Self {
        static TABLES: LazyLock<Tables> = LazyLock::new(|| {
            let descriptors = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET);
            Tables::new(&descriptors.expect("the build script wrote the descriptors"))
        });
        &TABLES
    }

    fn new(descriptors: &FileDescriptorSet) -> Self {
        let mut messages = Vec::new();
        let mut requests = Vec::new();
        for file in &descriptors.file {
            collect(file.package(), &file.message_type, &mut messages);
            let methods = file.service.iter().flat_map(|service| &service.method);
            requests.extend(
                methods.map(|method| method.input_type().trim_start_matches('.').to_owned()),
            );
        }
        let by_name: HashMap<_, _> = messages
            .iter()
            .enumerate()
            .map(|(place, (name, _))| (name.clone(), u16::try_from(place).expect("few messages")))
            .collect();
        let types = messages
            .iter()
            .map(|(name, message)| MessageType::new(name, message, &by_name))
            .collect();
        Self { types, by_name, requests }
    }

    /// Whether a type is the request or response of a method.
    pub(crate) fn is_request(&self, name: &str) -> bool {
        self.requests.iter().any(|request| request == name)
    }

    /// Walks an encoded message of the type `name` (with its package).
    pub(crate) fn check(&self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(place) = self.by_name.get(name) else {
            return Err(Refusal::Malformed("its type is not part of the protocol"));
        };
        let mut walk = Walk { tables: self, left: MAX_ELEMENTS };
        walk.message(*place, bytes, MAX_DEPTH)
    }

    #[cfg(test)]
    pub(crate) fn repeated_fields(&self) -> impl Iterator<Item = String> {
        self.by_name.iter().filter(|(name, _)| name.starts_with("darkroom.")).flat_map(
            |(name, place)| {
                let short = name.rsplit('.').next().unwrap_or_default().to_owned();
                let fields = &self.types[usize::from(*place)].fields;
                let repeated = fields.iter().filter(|field| field.repeated.is_some());
                repeated.map(move |field| format!("{short}.{}", field.name))
            },
        )
    }
}

/// All messages of a file by their full names, including nested ones.
fn collect<'a>(
    scope: &str,
    messages: &'a [DescriptorProto],
    all: &mut Vec<(String, &'a DescriptorProto)>,
) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, all);
        all.push((name, message));
    }
}

impl MessageType {
    fn new(name: &str, message: &DescriptorProto, by_name: &HashMap<String, u16>) -> Self {
        let short = name.rsplit('.').next().unwrap_or_default();
        let mut slots = 0..u8::try_from(SLOTS).expect("few slots");
        let mut field = |field: &FieldDescriptorProto| {
            let kind = kind(field, by_name);
            let is_repeated = field.label() == Label::Repeated;
            let limit =
                || limit_of(&format!("{short}.{}", field.name())).unwrap_or((DEFAULT_ELEMENTS, ""));
            let counted = is_repeated || matches!(kind, Kind::Message(_));
            Field {
                number: u32::try_from(field.number()).expect("fields have positive numbers"),
                name: field.name().to_owned(),
                kind,
                repeated: is_repeated.then(limit),
                slot: counted.then(|| slots.next().expect("a message has at most 16 such fields")),
            }
        };
        let mut fields: Vec<_> = message.field.iter().map(&mut field).collect();
        fields.sort_by_key(|field| field.number);
        Self { fields }
    }

    fn field(&self, number: u32) -> Option<&Field> {
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(place)
    }
}

fn kind(field: &FieldDescriptorProto, by_name: &HashMap<String, u16>) -> Kind {
    match field.r#type() {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed64,
        Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed32,
        Type::String | Type::Bytes => Kind::Bytes,
        Type::Message | Type::Group => {
            let name = field.type_name().trim_start_matches('.');
            Kind::Message(*by_name.get(name).expect("every type has a descriptor"))
        }
        _ => Kind::Varint,
    }
}

/// One walk.
struct Walk<'a> {
    tables: &'a Tables,
    /// Number of further elements that are allowed.
    left: u32,
}

impl Walk<'_> {
    fn message(&mut self, place: u16, bytes: &[u8], depth: u32) -> Result<(), Refusal> {
        let depth = depth.checked_sub(1).ok_or(Refusal::TooDeep)?;
        let message = &self.tables.types[usize::from(place)];
        let mut counts = [0_u32; SLOTS];
        let mut rest = bytes;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let number =
                u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
            let number = number.ok_or(Refusal::Malformed("a field number is out of range"))?;
            let value = value(&mut rest, key & 7)?;
            let Some(field) = message.field(number) else { continue };
            let elements = field.elements(&value)?;
            if let Some(slot) = field.slot {
                let count = &mut counts[usize::from(slot)];
                *count = count.saturating_add(elements);
                match field.repeated {
                    Some((limit, advice)) if *count > limit => {
                        return Err(Refusal::TooMany { field: field.name.clone(), limit, advice });
                    }
                    // Decoded numbers take only a few times the memory of their bytes.
                    Some(_) if !matches!(field.kind, Kind::Message(_) | Kind::Bytes) => {}
                    Some(_) => {
                        self.left = self.left.checked_sub(elements).ok_or(Refusal::TooManyInAll)?;
                    }
                    None if *count > 1 => {
                        return Err(Refusal::TooMany {
                            field: field.name.clone(),
                            limit: 1,
                            advice: "",
                        });
                    }
                    None => {}
                }
            }
            if let (Kind::Message(inner), Value::Bytes(bytes)) = (field.kind, value) {
                let place =
                    field.repeated.and(field.slot).map(|slot| counts[usize::from(slot)] - 1);
                self.message(inner, bytes, depth)
                    .map_err(|refusal| refusal.within(&field.name, place))?;
            }
        }
        Ok(())
    }
}

impl Refusal {
    /// Adds the enclosing message to the path. `place` is the index of an element in a list.
    fn within(self, outer: &str, place: Option<u32>) -> Self {
        match self {
            Self::TooMany { field, limit, advice } => {
                let place = place.map(|place| format!("[{place}]")).unwrap_or_default();
                Self::TooMany { field: format!("{outer}{place}.{field}"), limit, advice }
            }
            other => other,
        }
    }
}

/// A value as it is on the wire.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint,
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

impl Field {
    /// How many elements a value adds; an error if it is not of the field's kind.
    fn elements(&self, value: &Value<'_>) -> Result<u32, Refusal> {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        match (self.kind, value) {
            (Kind::Varint, Value::Varint)
            | (Kind::Fixed64, Value::Fixed64)
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Bytes | Kind::Message(_), Value::Bytes(_)) => Ok(1),
            // Packed: the last byte of every varint has no high bit, so those bytes are counted.
            (Kind::Varint, Value::Bytes(packed)) if self.repeated.is_some() => {
                Ok(count(packed.iter().filter(|byte| **byte < 0x80).count()))
            }
            (Kind::Fixed64, Value::Bytes(packed)) if self.repeated.is_some() => {
                Ok(count(packed.len() / 8))
            }
            (Kind::Fixed32, Value::Bytes(packed)) if self.repeated.is_some() => {
                Ok(count(packed.len() / 4))
            }
            _ => Err(Refusal::Malformed("a field holds a value of another kind")),
        }
    }
}

fn value<'a>(rest: &mut &'a [u8], wire_type: u64) -> Result<Value<'a>, Refusal> {
    match wire_type {
        0 => varint(rest).map(|_| Value::Varint),
        1 => take(rest, 8).map(|_| Value::Fixed64),
        2 => {
            let length = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
            take(rest, length).map(Value::Bytes)
        }
        5 => take(rest, 4).map(|_| Value::Fixed32),
        3 | 4 => Err(Refusal::Malformed("it has a group, which this protocol does not use")),
        _ => Err(Refusal::Malformed("a field has a wire type that does not exist")),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refusal> {
    let (taken, left) =
        rest.split_at_checked(length).ok_or(Refusal::Malformed("it ends too early"))?;
    *rest = left;
    Ok(taken)
}

/// A number of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Result<u64, Refusal> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, left) = rest.split_first().ok_or(Refusal::Malformed("it ends too early"))?;
        *rest = left;
        if shift == 63 && *byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Refusal::Malformed("a number has more than 64 bits"))
}

#[cfg(test)]
mod tests;
