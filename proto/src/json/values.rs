//! Values that JSON has no type for: large numbers, times, bytes.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, Visitor},
};

use super::{FromWire, IntoWire};
use crate::hidden::Hidden;

/// The limit below which floating point can represent every whole number exactly.
const LARGEST_EXACT: u64 = 1 << 53;

/// A 64-bit number: written as a number up to 2⁵³, as a string of digits above, and read from
/// either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct U64(pub u64);

impl Serialize for U64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 > LARGEST_EXACT {
            serializer.collect_str(&self.0)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for U64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = U64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a whole number from 0 to 18446744073709551615, or a string of its digits",
                )
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<U64, E> {
                Ok(U64(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<U64, E> {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits);
                number
                    .map(U64)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

impl From<u64> for U64 {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<U64> for u64 {
    fn from(number: U64) -> Self {
        number.0
    }
}

/// A time in an answer: seconds since 1970, exact to the microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

/// A time in a request: read from seconds since 1970 or from an RFC 3339 text
/// (`2026-01-31T12:00:00Z`); written as seconds where they are exact, and as a text otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub prost_types::Timestamp);

/// Seconds since 1970.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "exact to the microsecond until the year 2242")]
pub fn unix_seconds(time: &prost_types::Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) * 1e-9
}

/// The length of a time in seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for 272 years")]
pub fn duration_seconds(duration: &prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) * 1e-9
}

/// The first and the last second that RFC 3339 can express: years 1 to 9999.
const FIRST: f64 = -62_135_596_800.0;
const LAST: f64 = 253_402_300_799.0;

/// The time, to the microsecond; `None` outside the years 1 to 9999.
#[expect(clippy::cast_possible_truncation, reason = "in range, as checked")]
fn timestamp(seconds: f64) -> Option<prost_types::Timestamp> {
    if !(FIRST..=LAST).contains(&seconds) {
        return None;
    }
    let whole = seconds.floor();
    // At this size, a number has room for six digits after the point.
    let micros = ((seconds - whole) * 1e6).round() as i64;
    let (seconds, micros) = (whole as i64 + micros / 1_000_000, micros % 1_000_000);
    Some(prost_types::Timestamp { seconds, nanos: micros as i32 * 1000 })
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = unix_seconds(&self.0);
        match timestamp(seconds) {
            Some(same) if same == self.0 => serializer.serialize_f64(seconds),
            _ => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Told;

        impl Visitor<'_> for Told {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970, or a time such as \"2026-01-31T12:00:00Z\"")
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Time, E> {
                let unexpected = serde::de::Unexpected::Float(seconds);
                timestamp(seconds).map(Time).ok_or_else(|| E::invalid_value(unexpected, &self))
            }

            #[expect(clippy::cast_precision_loss, reason = "RFC 3339 times are below 2⁵³ seconds")]
            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Time, E> {
                self.visit_f64(seconds as f64)
            }

            #[expect(clippy::cast_precision_loss, reason = "RFC 3339 times are below 2⁵³ seconds")]
            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Time, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                let unexpected = serde::de::Unexpected::Str(text);
                text.parse().map(Time).map_err(|_| E::invalid_value(unexpected, &self))
            }
        }

        deserializer.deserialize_any(Told)
    }
}

/// Bytes, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("not base64: {error}")))
    }
}

macro_rules! the_same {
    ($($type:ty),*) => {$(
        impl FromWire<$type> for $type {
            fn from_wire(wire: $type) -> Self {
                wire
            }
        }

        impl IntoWire<$type> for $type {
            fn into_wire(self) -> $type {
                self
            }
        }
    )*};
}

the_same!(String, bool, u32, f64, BTreeMap<String, String>);

impl FromWire<u64> for U64 {
    fn from_wire(wire: u64) -> Self {
        Self(wire)
    }
}

impl IntoWire<u64> for U64 {
    fn into_wire(self) -> u64 {
        self.0
    }
}

impl FromWire<prost_types::Timestamp> for Seconds {
    fn from_wire(wire: prost_types::Timestamp) -> Self {
        Self(unix_seconds(&wire))
    }
}

impl IntoWire<prost_types::Timestamp> for Seconds {
    fn into_wire(self) -> prost_types::Timestamp {
        timestamp(self.0).unwrap_or_default()
    }
}

impl FromWire<prost_types::Timestamp> for Time {
    fn from_wire(wire: prost_types::Timestamp) -> Self {
        Self(wire)
    }
}

impl IntoWire<prost_types::Timestamp> for Time {
    fn into_wire(self) -> prost_types::Timestamp {
        self.0
    }
}

impl FromWire<Vec<u8>> for Bytes {
    fn from_wire(wire: Vec<u8>) -> Self {
        Self(wire)
    }
}

impl IntoWire<Vec<u8>> for Bytes {
    fn into_wire(self) -> Vec<u8> {
        self.0
    }
}

impl<W, F: FromWire<W>> FromWire<W> for Hidden<F> {
    fn from_wire(wire: W) -> Self {
        Self(F::from_wire(wire))
    }
}

impl<W, F: IntoWire<W>> IntoWire<W> for Hidden<F> {
    fn into_wire(self) -> W {
        self.0.into_wire()
    }
}

impl<W, F: FromWire<W>> FromWire<Option<W>> for Option<F> {
    fn from_wire(wire: Option<W>) -> Self {
        wire.map(F::from_wire)
    }
}

impl<W, F: IntoWire<W>> IntoWire<Option<W>> for Option<F> {
    fn into_wire(self) -> Option<W> {
        self.map(F::into_wire)
    }
}

impl<W, F: FromWire<W>> FromWire<Vec<W>> for Vec<F> {
    fn from_wire(wire: Vec<W>) -> Self {
        wire.into_iter().map(F::from_wire).collect()
    }
}

impl<W, F: IntoWire<W>> IntoWire<Vec<W>> for Vec<F> {
    fn into_wire(self) -> Vec<W> {
        self.into_iter().map(F::into_wire).collect()
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Bytes, Seconds, Time, U64};

    macro_rules! inline {
        ($type:ident, $schema:tt) => {
            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        };
    }

    inline!(U64, {
        "description": "a whole number below 2^64; above 2^53 a string of its digits",
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+$"}],
    });
    inline!(Seconds, {"description": "seconds since 1970", "type": "number"});
    inline!(Time, {
        "description": "seconds since 1970, or an RFC 3339 time",
        "anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}],
    });
    inline!(Bytes, {"type": "string", "contentEncoding": "base64"});
}
