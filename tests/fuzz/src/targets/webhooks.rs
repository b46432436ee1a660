//! Addresses of webhooks, and ids.

use darkroom_core::webhook::WebhookId;
use darkroom_runtime::outgoing::{AllowedAddresses, Host, Target, is_public};

use super::messages::refusal;
use crate::verdict::Verdict;

/// An address. What is accepted is read as the same again, has no user, and is allowed no more than
/// the address that it names.
pub(super) fn webhooks(data: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(data);
    if let Ok(id) = text.parse::<WebhookId>() {
        assert_eq!(id.to_string(), text);
        return Verdict::accepted("id");
    }
    let target = match Target::parse("url", &text) {
        Ok(target) => target,
        Err(error) => return refusal(&error, data),
    };
    let normal = target.as_str();
    let again = Target::parse("url", normal).unwrap_or_else(|error| panic!("{error}: {normal}"));
    assert!(again == target && again.as_str() == normal, "{normal}");
    assert!(!target.shown().contains(['@', '/', '#', ' ']), "{}", target.shown());
    match target.host() {
        Host::Name(name) => {
            assert!(name.parse::<std::net::IpAddr>().is_err(), "{name} is an address");
            Verdict::accepted(if target.is_https() { "https" } else { "http" })
        }
        Host::Address(address) => {
            assert_eq!(AllowedAddresses::Public.allows(*address), is_public(*address));
            Verdict::accepted(format_args!("address {}", is_public(*address)))
        }
    }
}
