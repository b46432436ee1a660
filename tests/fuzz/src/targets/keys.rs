//! Keys, as callers send them and files hold them.

use darkroom_core::key::{Key, KeyId};

use super::messages::refusal;
use crate::verdict::Verdict;

/// A key, or the id of one. Neither its refusal nor what is shown of it repeats the secret.
pub(super) fn keys(data: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(data);
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!(id.to_string(), text);
        return Verdict::accepted("id");
    }
    match text.parse::<Key>() {
        Ok(key) => {
            assert_eq!(key.expose(), text, "what is read is written the same");
            let secret = text.rsplit('_').next().unwrap_or_default();
            for shown in [key.to_string(), format!("{key:?}"), format!("{:?}", key.hash())] {
                assert!(!shown.contains(secret), "the secret is shown: {shown}");
            }
            assert!(key.hash().is_of(&key));
            Verdict::accepted("key")
        }
        Err(error) => {
            assert!(text.len() < 20 || !error.message.contains(&*text), "it is repeated: {error}");
            refusal(&error, data)
        }
    }
}
