//! What the routes of files and batches share: listings and lifetimes.

use std::time::Duration;

use darkroom_core::error::UserError;
use darkroom_farm_api::{Answer, batches::Page};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{super::fields::Fields, ids::Named};

/// How long a client may ask a file to be kept, seconds: an hour to thirty days, as OpenAI has it.
const KEPT: std::ops::RangeInclusive<u32> = 3_600..=2_592_000;

/// The query of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    after: String,
    order: String,
    pub(super) purpose: String,
}

/// A part of a listing.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl ListQuery {
    /// The page that it asks for, with one more to see whether there is one.
    pub(super) fn page(&self, named: Named, (usual, most): (u32, u32)) -> Answer<Page> {
        let limit = self.limit.unwrap_or(usual);
        if !(1..=most).contains(&limit) {
            let message = format!("limit is {limit}; accepted: a whole number from 1 to {most}");
            return Err(UserError::invalid("limit", message));
        }
        let oldest_first = match self.order.as_str() {
            "" | "desc" => false,
            "asc" => true,
            other => {
                let other = crate::words::told(other);
                let message = format!("order is {other:?}; accepted: asc, desc");
                return Err(UserError::invalid("order", message));
            }
        };
        let after = Some(&self.after).filter(|after| !after.is_empty());
        let after = after.map(|after| named.read(after)).transpose()?;
        Ok(Page { after, limit: limit + 1, oldest_first })
    }
}

impl<T> List<T> {
    pub(super) fn of(mut data: Vec<T>, page: &Page, id: impl Fn(&T) -> String) -> Self {
        let most = page.limit.saturating_sub(1) as usize;
        let has_more = data.len() > most;
        data.truncate(most);
        let (first_id, last_id) = (data.first().map(&id), data.last().map(&id));
        Self { object: "list", data, first_id, last_id, has_more }
    }
}

/// How long to keep a file, as the client asks in `{"anchor": "created_at", "seconds": N}`.
pub(super) fn expiry(name: &str, value: Value) -> Answer<Duration> {
    let Value::Object(object) = value else {
        return Err(super::super::fields::wrong(
            name,
            &value,
            "an object with anchor \"created_at\" and seconds",
        ));
    };
    lifetime(name, object)
}

/// Reads the fields of the object of [`expiry`]. A form sends them as separate parts.
pub(super) fn lifetime(name: &str, object: Map<String, Value>) -> Answer<Duration> {
    let within = |error: UserError| UserError {
        field: Some(name.to_owned()),
        message: format!("{name}: {}", error.message),
        ..error
    };
    let mut fields = Fields::of_json(object);
    fields.word("anchor", &[("created_at", ())]).map_err(within)?;
    let seconds = fields.whole("seconds", KEPT).map_err(within)?;
    fields.finish(&["anchor", "seconds"]).map_err(within)?;
    let seconds = seconds.ok_or_else(|| {
        let (first, last) = KEPT.into_inner();
        let message = format!("{name}: seconds is missing; accepted: {first} to {last}");
        UserError::invalid(name, message)
    })?;
    Ok(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_asks_for_one_more_than_it_shows() {
        let query = ListQuery { limit: Some(2), ..Default::default() };
        let page = query.page(Named::File, (20, 100)).expect("a page");
        assert_eq!((page.limit, page.oldest_first, page.after), (3, false, None));
        let list = List::of(vec![1, 2, 3], &page, i32::to_string);
        assert_eq!((list.data.len(), list.has_more), (2, true));
        assert_eq!((list.first_id.as_deref(), list.last_id.as_deref()), (Some("1"), Some("2")));
        let list = List::of(vec![1, 2], &page, i32::to_string);
        assert_eq!((list.data.len(), list.has_more), (2, false));
        for wrong in [
            ListQuery { limit: Some(0), ..Default::default() },
            ListQuery { limit: Some(101), ..Default::default() },
            ListQuery { order: "up".into(), ..Default::default() },
            ListQuery { after: "batch_1".into(), ..Default::default() },
        ] {
            wrong.page(Named::File, (20, 100)).expect_err("refused");
        }
    }

    #[test]
    fn a_file_is_kept_for_an_hour_to_thirty_days() {
        let of = |value| expiry("expires_after", value).map(|kept| kept.as_secs());
        assert_eq!(of(json!({"anchor": "created_at", "seconds": 3600})), Ok(3600));
        assert_eq!(of(json!({"seconds": 2_592_000})), Ok(2_592_000));
        for (wrong, part) in [
            (json!({"anchor": "created_at"}), "seconds is missing"),
            (json!({"seconds": 3599}), "seconds is 3599; accepted: a whole number from 3600"),
            (json!({"seconds": 2_592_001}), "to 2592000"),
            (json!({"anchor": "now", "seconds": 3600}), "anchor is \"now\"; accepted: created_at"),
            (json!({"seconds": 3600, "x": 1}), "x is not a parameter"),
            (json!(3600), "expires_after is 3600"),
        ] {
            let error = of(wrong).expect_err(part);
            assert!(error.message.contains(part), "{error}");
            assert_eq!(error.field.as_deref(), Some("expires_after"));
        }
    }
}
