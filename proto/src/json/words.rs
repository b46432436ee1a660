//! Enums as words.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::{FromWire, IntoWire};
use crate::v1;

/// An enum whose values have names.
pub trait Named: Copy + Into<i32> + TryFrom<i32> + 'static {
    /// The values that have a name, in the order in which messages list them.
    const NAMES: &'static [(Self, &'static str)];
    /// The name for a value that has none here: unspecified, or of a newer version.
    const OTHER: &'static str = "unknown";

    /// Its name, on screen and in JSON.
    fn name(self) -> &'static str {
        name_of::<Self>(self.into()).unwrap_or(Self::OTHER)
    }
}

fn name_of<E: Named>(number: i32) -> Option<&'static str> {
    E::NAMES.iter().find(|(value, _)| Into::<i32>::into(*value) == number).map(|(_, name)| *name)
}

macro_rules! named {
    ($($enum:ident: $($value:ident $name:literal),*;)*) => {$(
        impl Named for v1::$enum {
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$value, $name)),*];
        }
    )*};
}

named! {
    JobState: Unspecified "unknown", Receiving "receiving", Active "active", Paused "paused", Done "done",
        Failed "failed", Cancelled "cancelled";
    ImageState: Unspecified "unknown", Waiting "waiting", Ready "ready", Dispatched "dispatched", Done "done",
        Dead "dead", Cancelled "cancelled";
    Priority: Batch "batch", Interactive "interactive";
    Start: Noise "noise", LowRes "low-res", Picture "picture", Masked "masked";
    AttemptOutcome: Done "done", Failed "failed", Died "died", InputMissing "input-missing",
        Interrupted "interrupted", Returned "returned";
    SheetTile: Empty "empty", Filled "filled", Later "later", Lost "lost";
    MemberKind: Unspecified "unknown", Worker "worker", Encoder "encoder";
    Fit: Crop "crop", Pad "pad", Stretch "stretch", Exact "exact";
    Scope: Unspecified "unknown", Read "read", Submit "submit", Operate "operate", Admin "admin",
        Member "member";
    Sharing: Unspecified "default", Shared "shared", Sealed "sealed";
    RetentionSubject: Unspecified "unknown", Jobs "jobs", Pictures "pictures",
        Intermediates "intermediates", Embeddings "embeddings", Inputs "inputs",
        Previews "previews", Files "files";
    PictureFormat: Png "png", Jpeg "jpeg", Webp "webp";
}

/// A value of an enum: written by its name, or as a number if it has none; read from either.
pub struct Word<E>(i32, PhantomData<E>);

impl<E: Named> Word<E> {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl<E: Named> From<E> for Word<E> {
    fn from(value: E) -> Self {
        Self(value.into(), PhantomData)
    }
}

impl<E> Clone for Word<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Word<E> {}

impl<E> Default for Word<E> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}

impl<E> PartialEq for Word<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<E> Eq for Word<E> {}

impl<E: Named> fmt::Debug for Word<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of::<E>(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<E: Named> Serialize for Word<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match name_of::<E>(self.0) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_i32(self.0),
        }
    }
}

impl<'de, E: Named> Deserialize<'de> for Word<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<E>(PhantomData<E>);

        impl<E: Named> Names<E> {
            fn number<T: TryInto<i32>, R: serde::de::Error>(
                &self,
                number: T,
                unexpected: serde::de::Unexpected<'_>,
            ) -> Result<Word<E>, R> {
                let number = number.try_into().map_err(|_| R::invalid_value(unexpected, self))?;
                Ok(Word(number, PhantomData))
            }
        }

        impl<E: Named> Visitor<'_> for Names<E> {
            type Value = Word<E>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: Vec<_> = E::NAMES.iter().map(|(_, name)| *name).collect();
                write!(f, "one of {}", names.join(", "))
            }

            fn visit_str<R: serde::de::Error>(self, text: &str) -> Result<Word<E>, R> {
                let found = E::NAMES.iter().find(|(_, name)| *name == text);
                let unexpected = serde::de::Unexpected::Str(text);
                found
                    .map(|(value, _)| Word::from(*value))
                    .ok_or_else(|| R::invalid_value(unexpected, &self))
            }

            fn visit_i64<R: serde::de::Error>(self, number: i64) -> Result<Word<E>, R> {
                self.number(number, serde::de::Unexpected::Signed(number))
            }

            fn visit_u64<R: serde::de::Error>(self, number: u64) -> Result<Word<E>, R> {
                self.number(number, serde::de::Unexpected::Unsigned(number))
            }
        }

        deserializer.deserialize_any(Names(PhantomData))
    }
}

impl<E> FromWire<i32> for Word<E> {
    fn from_wire(wire: i32) -> Self {
        Self(wire, PhantomData)
    }
}

impl<E> IntoWire<i32> for Word<E> {
    fn into_wire(self) -> i32 {
        self.0
    }
}

#[cfg(feature = "schema")]
impl<E: Named> schemars::JsonSchema for Word<E> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        std::any::type_name::<E>().into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<_> = E::NAMES.iter().map(|(_, name)| *name).collect();
        schemars::json_schema!({
            "description": "a name, or the number of a value of a newer version",
            "anyOf": [{"type": "string", "enum": names}, {"type": "integer"}],
        })
    }
}
