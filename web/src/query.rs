//! Reads the query of a URL into the form of a request.
//!
//! `page_size=50&state=done&state=failed&label=shoot%3Dsummer`: every value is a text, and the form
//! says what it should be. Lists repeat their name, in the singular or as the field is called;
//! labels are `KEY=VALUE`.

use std::borrow::Cow;

use darkroom_core::{
    error::{Code, UserError},
    shown::{shortened, shown},
};
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::words::told;

/// Most parameters of a query.
const MOST: usize = 2_000;

/// How much of the library's sentence is repeated, bytes.
const LONGEST_CAUSE: usize = 400;

/// Names in the singular, and the fields that they stand for.
const SINGULAR: [(&str, &str); 2] = [("state", "states"), ("label", "labels")];

/// Reads a query. An error names the wrong parameter.
///
/// # Errors
/// If a parameter is not known or cannot be read.
pub(crate) fn read<T: DeserializeOwned>(query: &str) -> Result<T, UserError> {
    let mut fields: Vec<(Cow<'_, str>, Texts<'_>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).take(MOST + 1) {
        let name = match SINGULAR.iter().find(|(singular, _)| *singular == name) {
            Some((_, field)) => Cow::Borrowed(*field),
            None => name,
        };
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, texts)) => texts.0.push(value),
            None => fields.push((name, Texts(vec![value]))),
        }
    }
    let parameters: usize = fields.iter().map(|(_, texts)| texts.0.len()).sum();
    if parameters > MOST {
        return Err(UserError::new(
            Code::InvalidArgument,
            "INVALID_QUERY",
            format!("the query has more than {MOST} parameters; accepted: at most {MOST}"),
        ));
    }
    let fields = MapDeserializer::new(fields.into_iter());
    serde_path_to_error::deserialize(fields).map_err(|error: serde_path_to_error::Error<Error>| {
        let path = error.path().to_string();
        let field = Some(path).filter(|path| ![".", "?"].contains(&path.as_str()));
        // Names come from outside, and the library quotes them as they are.
        let field = field.map(|field| told(&field));
        let cause = error.into_inner().to_string();
        let cause = shown(&cause);
        let cause = shortened(&cause, LONGEST_CAUSE);
        let message = match &field {
            Some(field) => format!("{field} cannot be read: {cause}"),
            None => format!("the query cannot be read: {cause}"),
        };
        UserError { field, ..UserError::new(Code::InvalidArgument, "INVALID_QUERY", message) }
    })
}

/// All values of one parameter.
struct Texts<'a>(Vec<Cow<'a, str>>);

/// One value.
struct Text<'a>(Cow<'a, str>);

impl<'a> Texts<'a> {
    fn one(self) -> Result<Text<'a>, Error> {
        let count = self.0.len();
        let mut texts = self.0.into_iter();
        match (texts.next(), count) {
            (Some(text), 1) => Ok(Text(text)),
            _ => Err(Error::custom(format!("it is given {count} times; accepted: once"))),
        }
    }
}

macro_rules! one {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.one()?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Texts<'_> {
    type Error = Error;

    one! {
        deserialize_any deserialize_bool deserialize_u32 deserialize_u64 deserialize_f64
        deserialize_str deserialize_string deserialize_identifier
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.0.into_iter().map(Text)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(self.0.len());
        for text in self.0 {
            let Some((key, value)) = text.split_once('=') else {
                let text = shown(&text);
                return Err(Error::custom(format!("{text:?}; accepted: KEY=VALUE")));
            };
            if pairs.iter().any(|(known, _)| known == key) {
                let key = shown(key);
                return Err(Error::custom(format!("key {key:?} is given twice; accepted: once")));
            }
            pairs.push((key.to_owned(), value.to_owned()));
        }
        visitor.visit_map(MapDeserializer::new(pairs.into_iter()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct
        struct enum ignored_any
    }
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Forms that take several types: large numbers, times and words.
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        match (self.0.parse::<u64>(), self.0.parse::<f64>()) {
            (Ok(number), _) if digits => visitor.visit_u64(number),
            (_, Ok(number)) if number.is_finite() && !digits => visitor.visit_f64(number),
            _ => visitor.visit_str(&self.0),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &*self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => {
                let other = shown(other);
                Err(Error::custom(format!("{other:?}; accepted: true, false")))
            }
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.0.parse().map_err(|_| {
            let text = shown(&self.0).into_owned();
            Error::custom(format!("{text:?}; accepted: a whole number from 0 to {}", u32::MAX))
        })?;
        visitor.visit_u32(number)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.parse::<f64>() {
            Ok(number) if number.is_finite() => visitor.visit_f64(number),
            _ => {
                let text = shown(&self.0).into_owned();
                Err(Error::custom(format!("{text:?}; accepted: a number")))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(&self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0.into_owned())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(&self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Texts<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> IntoDeserializer<'de, Error> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use darkroom_proto::{json, v1};

    use super::*;

    fn jobs(query: &str) -> Result<v1::ListJobsRequest, UserError> {
        read::<json::ListJobsRequest>(query).map(Into::into)
    }

    #[test]
    fn a_query_says_what_the_message_says() {
        let read = jobs(
            "page_size=50&state=done&state=failed&label=shoot%3Dsummer&label=a=b%3Dc&name=a+b&\
             created_from=1767225600&created_to=2026-01-31T12:00:00Z&oldest_first=true",
        )
        .expect("reads");
        let expected = v1::ListJobsRequest {
            page_size: 50,
            states: vec![v1::JobState::Done.into(), v1::JobState::Failed.into()],
            labels: [("shoot".into(), "summer".into()), ("a".into(), "b=c".into())].into(),
            name: "a b".into(),
            created_from: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            created_to: Some(prost_types::Timestamp { seconds: 1_769_860_800, nanos: 0 }),
            oldest_first: true,
            ..Default::default()
        };
        assert_eq!(read, expected);
        assert_eq!(jobs("").expect("reads"), v1::ListJobsRequest::default());
        let images: json::ListImagesRequest =
            super::read("start_index=18446744073709551615").expect("reads");
        assert_eq!(v1::ListImagesRequest::from(images).start_index, u64::MAX);
    }

    #[test]
    fn a_wrong_parameter_is_named_with_what_is_accepted() {
        for (query, field, part) in [
            (
                "page_size=many",
                Some("page_size"),
                "page_size cannot be read: \"many\"; accepted: a whole number from 0 to 4294967295",
            ),
            ("page_size=-1", Some("page_size"), "\"-1\"; accepted: a whole number from 0 to"),
            ("page_size=4294967296", Some("page_size"), "accepted: a whole number from 0 to"),
            ("page_size=1&page_size=2", Some("page_size"), "it is given 2 times; accepted: once"),
            ("oldest_first=yes", Some("oldest_first"), "\"yes\"; accepted: true, false"),
            ("label=x", Some("labels"), "\"x\"; accepted: KEY=VALUE"),
            ("label=x=1&label=x=2", Some("labels"), "key \"x\" is given twice"),
            ("created_from=soon", Some("created_from"), "expected seconds since 1970"),
            ("created_from=inf", Some("created_from"), "expected seconds since 1970"),
            ("state=finished", Some("states[0]"), "finished"),
            ("size=3", Some("size"), "unknown field"),
        ] {
            let error = jobs(query).expect_err(query);
            assert_eq!(error.reason, "INVALID_QUERY");
            assert_eq!(error.field.as_deref(), field, "{error}");
            assert!(error.message.contains(part), "{query}: {error}");
        }
        let error = jobs("a%1Bb=1").expect_err("unknown");
        assert!(!error.message.contains('\u{1b}'), "{error}");
        for long in [format!("{}=1", "%1B".repeat(4096)), format!("page_size={}", "x".repeat(4096))]
        {
            let error = jobs(&long).expect_err("long");
            assert!(error.message.len() < 600, "{} bytes", error.message.len());
            assert!(error.field.expect("a name").len() < 120);
        }
        let many = "state=done&".repeat(MOST + 1);
        assert!(jobs(&many).expect_err("many").message.contains("more than 2000 parameters"));
    }
}
