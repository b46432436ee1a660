//! What a farm says of a key, with what its user can do next.

use std::time::{Duration, SystemTime};

use darkroom_core::{error::UserError, key::EXPIRES_METADATA};
use http::HeaderMap;

use super::{Credential, Source};
use crate::peer::Address;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// From when on users are warned of the end of their key, and from when on in stronger words.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const VERY_SOON: Duration = Duration::from_secs(3 * 24 * 3600);

/// The farm's refusal of a call, with what to do about the key that it was made with.
#[must_use]
pub(crate) fn advise(
    refusal: UserError,
    address: &Address,
    used: Option<&Credential>,
) -> UserError {
    let login = format!("`darkroom login --farm {address}`");
    let from = |used: &Credential| format!("the key {} from {}", used.key.id(), used.source);
    let message = match (refusal.reason.as_str(), used) {
        // The farm looked for a key of the certificate that the client has shown.
        ("NO_KEY", _) if refusal.message.contains("client certificate") => format!(
            "the farm at {address} asks for a key, and none of its keys belongs to the client certificate; ask for one \
             (`darkroom key create --certificate SUBJECT`), or run {login}"
        ),
        ("NO_KEY", _) => format!(
            "the farm at {address} asks for a key; run {login}, or set DARKROOM_KEY, or name a file with --key-file"
        ),
        ("UNKNOWN_KEY", Some(used)) => format!(
            "the farm at {address} does not accept {}: it was revoked, or belongs to another farm; {}",
            from(used),
            another(used, &login)
        ),
        ("EXPIRED_KEY", Some(used)) => format!(
            "{} has expired at the farm at {address}; {}",
            from(used),
            another(used, &login)
        ),
        ("MALFORMED_KEY", Some(used)) => format!(
            "the farm at {address} cannot read {}; a proxy may have changed it: {}",
            from(used),
            another(used, &login)
        ),
        ("SCOPE", Some(used)) => format!(
            "{}; the key is from {}: ask whoever runs the farm for one with that scope",
            refusal.message, used.source
        ),
        _ => return refusal,
    };
    UserError { message, ..refusal }
}

fn another(used: &Credential, login: &str) -> String {
    match &used.source {
        Source::Login => format!("ask for another key and run {login}"),
        Source::File(_) => "put another key into that file".to_owned(),
        Source::Variable => "set another key there".to_owned(),
        Source::State(_) | Source::Own => "stop that farm and start it again".to_owned(),
    }
}

/// A key that ends soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Whether it ends in three days or less.
    pub urgent: bool,
    /// What to tell whoever uses it.
    pub sentence: String,
}

impl Ending {
    /// What to say of the key that a call was made with, if by the metadata of the answer it does
    /// not work for long any more.
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime, used: &Credential) -> Option<Self> {
        let seconds = headers.get(EXPIRES_METADATA)?.to_str().ok()?.parse().ok()?;
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let left = end.duration_since(now).unwrap_or_default();
        (left <= SOON).then(|| {
            let urgent = left <= VERY_SOON;
            Self { urgent, sentence: sentence(left, urgent, used) }
        })
    }
}

fn sentence(left: Duration, urgent: bool, used: &Credential) -> String {
    let left = match left.as_secs() / DAY.as_secs() {
        0 => "in less than a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    };
    let (id, source) = (used.key.id(), &used.source);
    if urgent {
        format!(
            "the key {id} from {source} ends {left}, and then the farm refuses every call: get another one now, with \
             `darkroom key rotate {id}` or from whoever runs the farm"
        )
    } else {
        format!(
            "the key {id} from {source} ends {left}; `darkroom key rotate {id}` makes another one"
        )
    }
}
