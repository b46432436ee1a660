//! Messages of any type of the descriptor: full ones, ones that differ in a field, random ones.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// The path to a field: from the outermost message, each message's type and the field in it.
#[derive(Clone, Debug)]
pub(super) struct Path(Vec<(String, String)>);

impl Path {
    /// Whether `place` (`Type.field.field`) names this field or one that contains it.
    pub(super) fn is_below(&self, place: &str) -> bool {
        (0..self.0.len()).any(|start| {
            let fields: Vec<_> = self.0[start..].iter().map(|(_, field)| field.as_str()).collect();
            let path = format!("{}.{}", self.0[start].0, fields.join("."));
            path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// A message in which every field has a value.
pub(super) fn full(message: &MessageDescriptor) -> DynamicMessage {
    filled(message, 0)
}

fn filled(message: &MessageDescriptor, salt: u32) -> DynamicMessage {
    let mut full = DynamicMessage::new(message.clone());
    for field in message.fields() {
        full.set_field(&field, field_value(&field, salt));
    }
    full
}

/// A value for a field, derived from `salt`.
fn field_value(field: &FieldDescriptor, salt: u32) -> Value {
    let one = || value(&field.kind(), field.number() + salt);
    if field.is_map() {
        let text = format!("text {salt}");
        return Value::Map(HashMap::from([(
            MapKey::String("key".to_owned()),
            Value::String(text),
        )]));
    }
    if field.is_list() { Value::List(vec![one()]) } else { one() }
}

fn value(kind: &Kind, salt: u32) -> Value {
    match kind {
        Kind::Bool => Value::Bool(salt.is_multiple_of(2)),
        Kind::Uint32 => Value::U32(100 + salt),
        Kind::Uint64 => Value::U64(1000 + u64::from(salt)),
        Kind::Int64 => Value::I64(1_700_000_000 + i64::from(salt)),
        Kind::Int32 => Value::I32(1000 * i32::try_from(salt).expect("small")),
        Kind::Double => Value::F64(0.5 + f64::from(salt)),
        Kind::String => Value::String(format!("text {salt}")),
        Kind::Bytes => Value::Bytes(vec![u8::try_from(salt).expect("small")].into()),
        Kind::Enum(names) => {
            let numbers: Vec<_> =
                names.values().map(|value| value.number()).filter(|number| *number > 0).collect();
            Value::EnumNumber(numbers[salt as usize % numbers.len()])
        }
        Kind::Message(message) => Value::Message(filled(message, salt)),
        other => panic!("the protocol has a {other:?} now; give it a value"),
    }
}

/// For each field of the message and of its submessages: the message with that field changed.
pub(super) fn changed(message: &DynamicMessage) -> Vec<(Path, DynamicMessage)> {
    use prost_reflect::ReflectMessage as _;
    let descriptor = message.descriptor();
    let mut all = Vec::new();
    for field in descriptor.fields() {
        let here = (descriptor.name().to_owned(), field.name().to_owned());
        match field.kind() {
            Kind::Message(inner) if inner.package_name() == "darkroom.v1" && !field.is_map() => {
                let there = message.get_field(&field);
                let there = match there.as_list() {
                    Some(list) => list.first().and_then(Value::as_message).cloned(),
                    None => there.as_message().cloned(),
                };
                for (path, changed) in changed(&there.unwrap_or_else(|| full(&inner))) {
                    let changed = Value::Message(changed);
                    let changed =
                        if field.is_list() { Value::List(vec![changed]) } else { changed };
                    let mut whole = message.clone();
                    whole.set_field(&field, changed);
                    all.push((Path([vec![here.clone()], path.0].concat()), whole));
                }
            }
            _ => {
                let before = message.get_field(&field);
                let mut others = (0..).map(|salt| field_value(&field, salt));
                let other =
                    others.find(|value| *value != *before).expect("they differ by their salt");
                let mut whole = message.clone();
                whole.set_field(&field, other);
                all.push((Path(vec![here]), whole));
            }
        }
    }
    all
}

/// Random messages, the same for the same seed.
pub(super) struct Random {
    state: u64,
    /// Times have nanoseconds, and are anywhere in the years 1 to 9999.
    pub(super) nanos: bool,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, nanos: true }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("small")].clone()
    }

    /// A message with some fields absent.
    pub(super) fn message(&mut self, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        if descriptor.full_name() == "google.protobuf.Timestamp" {
            let (seconds, nanos) = self.time();
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            return message;
        }
        for field in descriptor.fields() {
            if self.below(4) == 0 {
                continue;
            }
            let value = if field.is_map() {
                let entries = (0..self.below(4))
                    .map(|_| (MapKey::String(self.text()), Value::String(self.text())));
                Value::Map(entries.collect())
            } else if field.is_list() {
                Value::List((0..self.below(4)).map(|_| self.value(&field.kind())).collect())
            } else {
                self.value(&field.kind())
            };
            message.set_field(&field, value);
        }
        message
    }

    fn time(&mut self) -> (i64, i32) {
        let below = |random: &mut Self, end: u64| i64::try_from(random.below(end)).expect("small");
        if self.nanos {
            let seconds = below(self, 315_537_897_600) - 62_135_596_800;
            return (seconds, i32::try_from(self.below(1_000_000_000)).expect("small"));
        }
        (below(self, 4_102_444_800), 1000 * i32::try_from(self.below(1_000_000)).expect("small"))
    }

    fn text(&mut self) -> String {
        let texts = [
            "",
            "a red circle",
            "\"\\\n\t",
            "größer 🎨",
            "null",
            "18446744073709551615",
            "\u{0}\u{7f}\u{2028}",
        ];
        let numbered = format!("text {}", self.below(100));
        self.one_of(&[texts.as_slice(), &[numbered.as_str()]].concat()).to_owned()
    }

    fn value(&mut self, kind: &Kind) -> Value {
        const EXACT: u64 = 1 << 53;
        match kind {
            Kind::Bool => Value::Bool(self.below(2) == 0),
            Kind::Uint32 => {
                let any = u32::try_from(self.below(1 << 32)).expect("in range");
                Value::U32(self.one_of(&[0, 1, u32::MAX, any]))
            }
            Kind::Uint64 => {
                let any = self.next();
                Value::U64(self.one_of(&[0, 1, EXACT - 1, EXACT, EXACT + 1, u64::MAX, any]))
            }
            Kind::Int64 => Value::I64(self.one_of(&[0, 1, 90, -5])),
            Kind::Int32 => Value::I32(self.one_of(&[0, 1, 500_000_000])),
            // JSON has no form for numbers that are not finite.
            Kind::Double => {
                Value::F64(self.one_of(&[0.0, 1.0, 0.1, -2.5, 1e300, 5e-324, f64::MAX, 1.0 / 3.0]))
            }
            Kind::String => Value::String(self.text()),
            Kind::Bytes => {
                let length = self.below(5);
                Value::Bytes(
                    (0..length).map(|_| self.next().to_le_bytes()[0]).collect::<Vec<_>>().into(),
                )
            }
            Kind::Enum(names) => {
                let known = names.values().map(|value| value.number());
                // Includes values of a newer version.
                Value::EnumNumber(self.one_of(&known.chain([99, -1]).collect::<Vec<_>>()))
            }
            Kind::Message(message) => Value::Message(self.message(message)),
            other => panic!("the protocol has a {other:?} now; give it a value"),
        }
    }
}
