//! What `Debug` shows of secrets: nothing. A message may end up in a log or in the message of a
//! panic, and who writes `{:?}` does not think of what is in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::v1;

/// A secret in a JSON form: written and read like what it holds, and not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(transparent)]
pub struct Hidden<T>(pub T);

impl<T: Default + PartialEq> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == T::default() { "none" } else { "…" })
    }
}

/// `Debug` of messages whose secret fields are not shown. The generator leaves it out for them.
macro_rules! hides {
    ($($name:ident { $($shown:ident)* } hides { $($hidden:ident)* })*) => {$(
        impl fmt::Debug for v1::$name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A new field does not compile until it is listed.
                let Self { $($shown,)* $($hidden,)* } = self;
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Hidden($hidden.clone())))*
                    .finish()
            }
        }
    )*};
}

hides! {
    CreateKeyResponse { key } hides { secret }
    RotateKeyResponse { key old } hides { secret }
    PoolKeys { stage digest } hides { results_key tasks_key }
    SignImageResponse { expires_at size_bytes sha256 format } hides { url }
    CreateWebhookResponse { webhook } hides { secret }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const SECRET: &str = "dk_0123456789ab_planted";

    /// The bytes of [`SECRET`], as `Debug` would list them, and as base64.
    fn assert_hides(shown: &str) {
        let numbers = format!("{:?}", SECRET.as_bytes());
        for word in [SECRET, numbers.trim_matches(['[', ']']), "planted", "ZGtfMDEyMzQ1"] {
            assert!(!shown.contains(word), "{shown}");
        }
        assert!(shown.contains('…'), "{shown}");
    }

    #[test]
    fn secrets_are_not_shown_by_the_debug_of_messages_and_forms() {
        let secret = || SECRET.to_owned();
        let create = v1::CreateKeyResponse { secret: secret(), ..Default::default() };
        let rotate = v1::RotateKeyResponse { secret: secret(), ..Default::default() };
        let sign = v1::SignImageResponse { url: secret(), ..Default::default() };
        let hook = v1::CreateWebhookResponse { secret: secret(), ..Default::default() };
        let pool = v1::PoolKeys {
            results_key: secret().into_bytes(),
            tasks_key: secret().into_bytes(),
            ..Default::default()
        };
        let join = v1::JoinResponse { pools: vec![pool.clone()], ..Default::default() };
        for shown in [
            format!("{create:?}"),
            format!("{rotate:?}"),
            format!("{sign:?}"),
            format!("{hook:?}"),
            format!("{:?}", json::CreateWebhookResponse::from(&hook)),
            format!("{pool:?}"),
            format!("{join:#?}"),
            format!("{:?}", json::CreateKeyResponse::from(&create)),
            format!("{:?}", json::RotateKeyResponse::from(&rotate)),
            format!("{:?}", json::SignImageResponse::from(&sign)),
            format!("{:?}", json::PoolKeys::from(&pool)),
            format!("{:?}", json::JoinResponse::from(&join)),
            format!("{:?}", json::Image::from(v1::Image::default()).linked(&sign)),
        ] {
            assert_hides(&shown);
        }
        let none = format!("{:?}", v1::CreateKeyResponse::default());
        assert!(none.contains("secret: none"), "{none}");
    }

    #[test]
    fn a_form_says_the_secret_to_those_who_asked_for_it() {
        let create = v1::CreateKeyResponse { secret: SECRET.to_owned(), ..Default::default() };
        let form = json::CreateKeyResponse::from(&create);
        let text = serde_json::to_string(&form).expect("written");
        assert!(text.contains(&format!("\"secret\":\"{SECRET}\"")), "{text}");
        let read: json::CreateKeyResponse = serde_json::from_str(&text).expect("read");
        assert_eq!(v1::CreateKeyResponse::from(read), create);
    }
}
