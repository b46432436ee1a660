//! A line of the results of a batch.

use bytes::Bytes;
use darkroom_core::{digest::Digest, error::UserError};
use darkroom_farm_api::Outgoing;
use darkroom_proto::problem::Problem;
use serde::Serialize;

use super::{
    super::{
        answer::{text, written},
        dialect::{Told, status},
    },
    ids::Named,
    plan::Work,
};

/// Why a request without a picture has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// The batch was cancelled.
    Cancelled,
    /// Its time was over.
    Expired,
    /// Somebody cancelled or deleted its job.
    JobGone,
}

/// How a result is told apart from others.
#[derive(Serialize)]
pub(super) struct Name {
    id: String,
    custom_id: String,
    #[serde(skip)]
    request: String,
}

/// A result without pictures.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    name: &'a Name,
    response: Option<Response<'a>>,
    error: Option<Why>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: &'a str,
    body: Told,
}

#[derive(Serialize)]
struct Why {
    code: &'static str,
    message: &'static str,
}

impl Name {
    /// The same each time.
    pub(super) fn of(work: &Work, line: u64, custom_id: String) -> Self {
        let whole = format!("{} {line}", Named::Batch.show(work.batch.id));
        let digest = Digest::of(whole.as_bytes()).to_string();
        let (id, request) = digest.split_at(32);
        Self { id: format!("batch_req_{id}"), custom_id, request: format!("req_{request}") }
    }

    /// The line of a request that was refused or failed.
    pub(super) fn refusal(&self, error: &UserError) -> String {
        let status_code = status(&Problem::from(error));
        let response = Response { status_code, request_id: &self.request, body: Told::from(error) };
        written(&Line { name: self, response: Some(response), error: None })
    }

    /// The line of a request that was never done.
    pub(super) fn unfinished(&self, why: Unfinished) -> String {
        let (code, message) = match why {
            Unfinished::Cancelled => {
                ("batch_cancelled", "the batch was cancelled before this request was done")
            }
            Unfinished::Expired => {
                ("batch_expired", "the batch's time was over before this request was done")
            }
            Unfinished::JobGone => {
                ("request_cancelled", "the pictures of this request were cancelled or deleted")
            }
        };
        written(&Line { name: self, response: None, error: Some(Why { code, message }) })
    }

    /// The line of a request with its answer.
    pub(super) fn answer(&self, body: Vec<Outgoing<Bytes>>) -> Vec<Outgoing<Bytes>> {
        let name = written(self);
        let begin = format!(
            "{},\"response\":{{\"status_code\":200,\"request_id\":{},\"body\":",
            &name[..name.len() - 1],
            written(&self.request)
        );
        let mut parts = vec![text(begin)];
        parts.extend(body);
        parts.push(text("},\"error\":null}".to_owned()));
        parts
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, TryStreamExt as _, stream};

    use super::*;

    fn name() -> Name {
        Name { id: "batch_req_1".into(), custom_id: "a \"b\"".into(), request: "req_1".into() }
    }

    async fn joined(parts: Vec<Outgoing<Bytes>>) -> String {
        let parts: Vec<Bytes> =
            stream::iter(parts).flatten().try_collect().await.expect("no error");
        String::from_utf8(parts.concat()).expect("text")
    }

    #[tokio::test]
    async fn a_result_has_the_shape_of_openais() {
        let body = vec![text("{\"data\":[]}")];
        let line: serde_json::Value =
            serde_json::from_str(&joined(name().answer(body)).await).expect("JSON");
        assert_eq!(
            line,
            serde_json::json!({
                "id": "batch_req_1", "custom_id": "a \"b\"", "error": null,
                "response": {"status_code": 200, "request_id": "req_1", "body": {"data": []}},
            })
        );
        let refused = name().refusal(&UserError::invalid("n", "n is 0"));
        let line: serde_json::Value = serde_json::from_str(&refused).expect("JSON");
        assert_eq!(line["response"]["status_code"], 400);
        assert_eq!(line["response"]["body"]["error"]["param"], "n");
        let expired = name().unfinished(Unfinished::Expired);
        let line: serde_json::Value = serde_json::from_str(&expired).expect("JSON");
        assert_eq!(
            (&line["response"], &line["error"]["code"]),
            (&serde_json::Value::Null, &"batch_expired".into())
        );
    }
}
