//! An event as it is sent: its body in OpenAI's form, and the headers of the Standard Webhooks
//! specification, by which the receiver knows that this farm sent it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, header, header::InvalidHeaderValue};
use serde::Serialize;
use sha2::Sha256;

use crate::store::webhooks::Delivery;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// How a secret begins.
const PREFIX: &str = "whsec_";

/// A secret as receivers get it.
pub(crate) fn secret_text(secret: &[u8; 32]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret))
}

/// An event, ready to be signed.
pub(super) struct Message {
    id: String,
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    object: &'a str,
    created_at: i64,
    #[serde(rename = "type")]
    kind: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
}

impl Message {
    /// The same bytes in each try.
    pub(super) fn of(delivery: &Delivery) -> Self {
        let event = Event {
            id: &delivery.event,
            object: "event",
            created_at: delivery.created_ms.div_euclid(1000),
            kind: &delivery.kind,
            data: Data { id: &delivery.data },
        };
        let body = serde_json::to_vec(&event).expect("texts and numbers have a JSON");
        Self { id: delivery.event.clone(), body }
    }

    /// The headers that this is sent with at a time, seconds since 1970.
    pub(super) fn headers(&self, secret: &[u8], now: u64) -> Result<HeaderMap, InvalidHeaderValue> {
        let signature = format!("v1,{}", STANDARD.encode(sign(secret, &self.id, now, &self.body)));
        Ok(HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (
                header::USER_AGENT,
                HeaderValue::from_static(concat!("darkroom/", env!("CARGO_PKG_VERSION"))),
            ),
            (ID, HeaderValue::try_from(&self.id)?),
            (TIMESTAMP, HeaderValue::from(now)),
            (SIGNATURE, HeaderValue::try_from(signature)?),
        ]))
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }
}

fn sign(secret: &[u8], id: &str, now: u64, body: &[u8]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    hmac.update(format!("{id}.{now}.").as_bytes());
    hmac.update(body);
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use darkroom_core::webhook::WebhookId;

    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let body = br#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(STANDARD.encode(signed), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_event_has_openais_form_and_its_headers_sign_its_bytes() {
        let delivery = Delivery {
            row: 1,
            webhook: WebhookId::fresh(),
            seq: 1,
            url: "https://example.com/".to_owned(),
            event: "evt_1".to_owned(),
            kind: "job.completed".to_owned(),
            data: "0193-\"x\"".to_owned(),
            created_ms: 1_796_054_400_999,
            tries: 3,
        };
        let message = Message::of(&delivery);
        let headers = message.headers(&[7; 32], 1_796_054_500).expect("headers");
        let text = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert_eq!(text("webhook-id"), "evt_1");
        assert_eq!(text("webhook-timestamp"), "1796054500");
        assert_eq!(text("content-type"), "application/json");
        assert!(text("user-agent").starts_with("darkroom/"));
        let body = message.into_body();
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"id":"evt_1","object":"event","created_at":1796054400,"type":"job.completed","data":{"id":"0193-\"x\""}}"#
        );
        let right = STANDARD.encode(sign(&[7; 32], "evt_1", 1_796_054_500, &body));
        assert_eq!(text("webhook-signature"), format!("v1,{right}"));
        assert_eq!(secret_text(&[0; 32]), format!("whsec_{}=", "A".repeat(43)));
    }
}
