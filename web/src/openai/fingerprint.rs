//! What makes two requests the same: the key, the fields as they were understood, and the hashes of
//! the files. Not the bytes, because a client may write the same request differently each time: the
//! boundary of a form is random.

use darkroom_core::digest::Digest;
use darkroom_farm_api::Caller;
use serde::Serialize;

use super::{form::Inputs, order::Order};

/// Whatever a request means, with who sent it.
#[derive(Serialize)]
struct Meant<'a> {
    version: u32,
    key: Option<&'a str>,
    tenant: Option<&'a str>,
    order: &'a Order,
    image: &'a str,
    mask: &'a str,
}

/// The fingerprint of a request: the SHA-256, in hex, of what it means.
pub(super) fn fingerprint(caller: &Caller, order: &Order, inputs: &Inputs) -> String {
    let (key, tenant) = (caller.key(), caller.tenant());
    let Inputs { image, mask } = inputs;
    let meant = Meant { version: 1, key, tenant, order, image, mask };
    // Texts and finite numbers always have a JSON form.
    Digest::of(&serde_json::to_vec(&meant).unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use darkroom_farm_api::Scope;

    use super::*;
    use crate::openai::{fields::Fields, order::Endpoint};

    fn order(json: &str) -> Order {
        let fields = Fields::of_json(serde_json::from_str(json).expect("an object"));
        Order::read(fields, Endpoint::Generations).expect("an order")
    }

    fn caller(key: &str) -> Caller {
        Caller::of(Some("studio".into()), [Scope::Submit], Some(key.into()))
    }

    #[test]
    fn a_fingerprint_is_of_what_a_request_means_and_not_of_how_it_is_written() {
        let of = |json| fingerprint(&caller("k"), &order(json), &Inputs::default());
        let first = of(r#"{"prompt": "a fox", "n": 2, "seed": 7}"#);
        assert_eq!(first.len(), 64);
        for same in [
            r#"{"seed":7,"n":2,"prompt":"a fox"}"#,
            r#"{"prompt": "a \u0066ox", "n": 2, "seed": "7", "size": "auto", "user": null}"#,
        ] {
            assert_eq!(of(same), first, "{same}");
        }
        for other in [
            r#"{"prompt": "a fox", "n": 2}"#,
            r#"{"prompt": "a fox ", "n": 2, "seed": 7}"#,
            r#"{"prompt": "a fox", "n": 3, "seed": 7}"#,
            r#"{"prompt": "a fox", "n": 2, "seed": 7, "response_format": "url"}"#,
        ] {
            assert_ne!(of(other), first, "{other}");
        }
    }

    #[test]
    fn keys_and_files_tell_requests_apart() {
        let order = order(r#"{"prompt": "a fox"}"#);
        let with = |image: &str, mask: &str| Inputs { image: image.into(), mask: mask.into() };
        let of = |key, inputs: &Inputs| fingerprint(&caller(key), &order, inputs);
        let first = of("k", &with("aa", "bb"));
        assert_eq!(of("k", &with("aa", "bb")), first);
        for (key, inputs) in [
            ("l", with("aa", "bb")),
            ("k", with("aa", "")),
            ("k", with("ab", "bb")),
            ("k", with("aa", "cc")),
            ("k", with("aab", "b")),
        ] {
            assert_ne!(of(key, &inputs), first, "{key} {inputs:?}");
        }
    }
}
