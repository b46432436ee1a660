//! The fields of a request, whether they came as JSON or as a form. Every field is read once, and
//! what nobody reads is refused by its name.

use std::ops::RangeInclusive;

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Answer;
use serde_json::{Map, Value};

use crate::words::told;

/// Fields by name.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    /// A form has texts alone, which may stand for numbers.
    is_form: bool,
}

impl Fields {
    /// Those of a JSON object.
    pub(super) fn of_json(values: Map<String, Value>) -> Self {
        Self { values, is_form: false }
    }

    /// Those of a form, none so far.
    pub(super) fn of_form() -> Self {
        Self { values: Map::new(), is_form: true }
    }

    /// Adds a field of a form.
    pub(super) fn add(&mut self, name: String, text: String) -> Answer<()> {
        if self.values.contains_key(&name) {
            let name = told(&name);
            return Err(UserError::invalid(
                name.clone(),
                format!("{name} is given twice; accepted: once"),
            ));
        }
        self.values.insert(name, Value::String(text));
        Ok(())
    }

    /// A field as it came. Null, and an empty text of a form, count as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let value = self.values.remove(name)?;
        let absent = value.is_null() || (self.is_form && value.as_str() == Some(""));
        Some(value).filter(|_| !absent)
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Answer<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a text")),
        }
    }

    /// One of these words.
    pub(super) fn word<W: Copy>(
        &mut self,
        name: &str,
        accepted: &[(&str, W)],
    ) -> Answer<Option<W>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = accepted.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, word)| Some(*word)).ok_or_else(|| {
            let words: Vec<_> = accepted.iter().map(|(word, _)| *word).collect();
            wrong(name, &value, &words.join(", "))
        })
    }

    /// A whole number.
    pub(super) fn whole(
        &mut self,
        name: &str,
        accepted: RangeInclusive<u32>,
    ) -> Answer<Option<u32>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = if self.is_form { digits(&value) } else { value.as_u64() };
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.filter(|number| accepted.contains(number)).map(Some).ok_or_else(|| {
            let (first, last) = accepted.into_inner();
            wrong(name, &value, &format!("a whole number from {first} to {last}"))
        })
    }

    /// A seed, which many readers of JSON cannot hold as a number.
    pub(super) fn seed(&mut self, name: &str) -> Answer<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = digits(&value).or(value.as_u64());
        number.map(Some).ok_or_else(|| {
            let accepted =
                format!("a whole number from 0 to {}, or a text of its digits", u64::MAX);
            wrong(name, &value, &accepted)
        })
    }

    /// A number.
    pub(super) fn number(
        &mut self,
        name: &str,
        accepted: RangeInclusive<f64>,
    ) -> Answer<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = value.as_str().filter(|_| self.is_form);
        let number = text.map_or(value.as_f64(), |text| text.parse().ok());
        number.filter(|number| accepted.contains(number)).map(Some).ok_or_else(|| {
            let (first, last) = accepted.into_inner();
            wrong(name, &value, &format!("a number from {first} to {last}"))
        })
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &str) -> Answer<Option<bool>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = value.as_str().filter(|_| self.is_form);
        let flag = match text.map(str::to_ascii_lowercase).as_deref() {
            None => value.as_bool(),
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => None,
        };
        flag.map(Some).ok_or_else(|| wrong(name, &value, "true, false"))
    }

    /// Refuses what is left. `accepted`: the names of all fields.
    pub(super) fn finish(self, accepted: &[&str]) -> Answer<()> {
        let Some(name) = self.values.keys().next() else { return Ok(()) };
        let name = told(name);
        Err(UserError {
            field: Some(name.clone()),
            ..UserError::new(
                Code::InvalidArgument,
                "UNKNOWN_PARAMETER",
                format!(
                    "{name} is not a parameter of this route; accepted: {}",
                    accepted.join(", ")
                ),
            )
        })
    }
}

/// The number that a text's digits stand for.
fn digits(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The refusal of a field's value.
pub(super) fn wrong(name: &str, value: &Value, accepted: &str) -> UserError {
    let value = value.to_string();
    let message = format!("{name} is {}; accepted: {accepted}", told(&value));
    UserError::invalid(name, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_json(value: Value) -> Fields {
        Fields::of_json(serde_json::from_value(value).expect("an object"))
    }

    fn of_form(fields: &[(&str, &str)]) -> Fields {
        let mut form = Fields::of_form();
        for (name, text) in fields {
            form.add((*name).to_owned(), (*text).to_owned()).expect("each once");
        }
        form
    }

    #[test]
    fn json_has_types_and_a_form_has_texts_that_stand_for_them() {
        let json =
            json!({"n": 3, "guidance": 7.5, "stream": true, "user": null, "seed": 7, "q": "a"});
        let form = [
            ("n", "3"),
            ("guidance", "7.5"),
            ("stream", "true"),
            ("user", ""),
            ("seed", "7"),
            ("q", "a"),
        ];
        for mut fields in [of_json(json), of_form(&form)] {
            assert_eq!(fields.whole("n", 1..=10), Ok(Some(3)));
            assert_eq!(fields.number("guidance", 1.0..=100.0), Ok(Some(7.5)));
            assert_eq!(fields.flag("stream"), Ok(Some(true)));
            assert_eq!(fields.text("user"), Ok(None));
            assert_eq!(fields.seed("seed"), Ok(Some(7)));
            assert_eq!(fields.word("q", &[("a", 1), ("b", 2)]), Ok(Some(1)));
            assert_eq!(fields.text("absent"), Ok(None));
            assert_eq!(fields.finish(&[]), Ok(()));
        }
        let most = of_json(json!({"seed": u64::MAX.to_string()})).seed("seed");
        assert_eq!(most, Ok(Some(u64::MAX)), "as a text, which every reader holds");
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_is_accepted() {
        let said = |error: Answer<Option<u32>>| error.expect_err("wrong").message;
        for (value, shown) in [
            (json!(0), "0"),
            (json!(11), "11"),
            (json!(-1), "-1"),
            (json!(1.5), "1.5"),
            (json!("3"), "\"3\""),
            (json!([1]), "[1]"),
            (json!(u64::MAX), "18446744073709551615"),
        ] {
            let message = said(of_json(json!({"n": value})).whole("n", 1..=10));
            assert_eq!(message, format!("n is {shown}; accepted: a whole number from 1 to 10"));
        }
        for text in ["+3", " 3", "3.0", "three"] {
            assert!(of_form(&[("n", text)]).whole("n", 1..=10).is_err(), "{text}");
        }
        let error = of_json(json!({"q": "ultra"})).word("q", &[("low", ()), ("high", ())]);
        assert_eq!(error.expect_err("wrong").message, "q is \"ultra\"; accepted: low, high");
        let error = of_json(json!({"stream": "true"})).flag("stream").expect_err("a text");
        assert_eq!(error.message, "stream is \"true\"; accepted: true, false");
        for number in ["NaN", "inf", "0.5"] {
            assert!(of_form(&[("g", number)]).number("g", 1.0..=100.0).is_err(), "{number}");
        }
        let error = of_json(json!({"text": "x".repeat(5000)})).whole("text", 0..=1);
        assert!(error.expect_err("long").message.len() < 200, "not all of it is repeated");
    }

    #[test]
    fn an_unknown_field_is_refused_by_its_name_even_if_it_is_null() {
        let error = of_json(json!({"colour": null})).finish(&["prompt", "n"]).expect_err("unknown");
        assert_eq!(error.message, "colour is not a parameter of this route; accepted: prompt, n");
        assert_eq!(error.field.as_deref(), Some("colour"));
        let mut form = of_form(&[("n", "1")]);
        let error = form.add("n".to_owned(), "2".to_owned()).expect_err("twice");
        assert_eq!(error.message, "n is given twice; accepted: once");
    }
}
