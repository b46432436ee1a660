//! Why a call has no answer from the farm, as the source of its [`Status`].

use std::{error::Error, fmt, sync::Arc};

use darkroom_core::error::{Code, UserError};
use tonic::{ConnectError, Status, TimeoutExpired};

use super::{Answer, connect::Failure};
use crate::tls::Fault;

/// What went wrong at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no connection.
    Unreachable(String),
    /// The connection, or one call on it, broke.
    Broken(String),
    /// The call ended without a status: a proxy cut it.
    Cut,
    /// No answer in time.
    Late,
    /// A proxy answered, or a web server.
    Http(Answer),
    /// A server of another kind listens there.
    Stranger(String),
    /// There is no TLS connection that can be trusted.
    Tls(Fault),
}

/// What went wrong at the address that was called and at the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Every address that has a problem now. The first is the one that was called.
    pub at: Vec<(String, Kind)>,
    /// Another address may work, so a retry makes sense.
    pub others: bool,
}

impl Kind {
    /// Whether the same call may succeed soon.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Cut | Self::Late => true,
            Self::Http(answer) => answer.passes(),
            Self::Tls(fault) => fault.passes(),
            Self::Stranger(_) => false,
        }
    }

    /// Translates an error of the transport.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut last = error;
        let mut connecting = false;
        loop {
            if last.is::<TimeoutExpired>() {
                return Self::Late;
            }
            if let Some(Failure::Tls(fault)) = last.downcast_ref() {
                return Self::Tls(fault.clone());
            }
            connecting |= last.is::<ConnectError>();
            match last.source() {
                Some(source) => last = source,
                None => break,
            }
        }
        let text = last.to_string();
        if let Some(fault) = Fault::of_alert(&text) {
            return Self::Tls(fault);
        }
        let reason = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        if connecting { Self::Unreachable(reason) } else { Self::Broken(reason) }
    }

    fn sentence(&self, address: &str) -> String {
        let advice = "start one with `darkroom up`, or name another with --farm";
        match self {
            Self::Unreachable(why) => {
                format!("the farm at {address} cannot be reached ({why}); {advice}")
            }
            Self::Broken(why) => {
                format!(
                    "the farm at {address} cannot be reached (the connection broke: {why}); {advice}"
                )
            }
            Self::Cut => format!(
                "the farm at {address} cannot be reached (the farm, or a proxy in front of it, cuts off the answers); try again in \
                 a while"
            ),
            Self::Late => format!("the farm at {address} does not answer in time; {advice}"),
            Self::Http(answer) => answer.sentence(address),
            Self::Stranger(what) => {
                format!("{address} is no farm: {what}; name the farm's address with --farm")
            }
            Self::Tls(fault) => {
                format!("the farm at {address} cannot be reached over TLS: {fault}")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "{why}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::Cut => write!(f, "the answer was cut off"),
            Self::Late => write!(f, "no answer in time"),
            Self::Http(answer) => write!(f, "{answer}"),
            Self::Stranger(what) => write!(f, "no farm: {what}"),
            Self::Tls(fault) => write!(f, "no TLS: {fault}"),
        }
    }
}

impl Trouble {
    /// The trouble behind a status, if the status did not come from the farm.
    #[must_use]
    pub fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }

    /// Whether the same call may succeed soon.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.others || self.at.iter().any(|(_, kind)| kind.passes())
    }

    /// The same for a user: one sentence with the address, what is there, and what to do.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let reason = match self.at.as_slice() {
            [(_, Kind::Http(_))] => "PROXY_ANSWERED",
            [(_, Kind::Stranger(_))] => "NOT_A_FARM",
            [(_, Kind::Tls(_))] => "TLS_FAILED",
            _ => "FARM_UNREACHABLE",
        };
        let code = if self.passes() { Code::Unavailable } else { Code::FailedPrecondition };
        UserError::new(code, reason, self.to_string())
    }

    pub(super) fn into_status(self) -> Status {
        let code =
            if self.passes() { tonic::Code::Unavailable } else { tonic::Code::FailedPrecondition };
        let mut status = Status::new(code, self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_slice() {
            [(address, kind)] => write!(f, "{}", kind.sentence(address)),
            several => {
                let each: Vec<_> =
                    several.iter().map(|(address, kind)| format!("{address} ({kind})")).collect();
                write!(
                    f,
                    "none of the farm's addresses can be used: {}; start a farm there, or name another with --farm",
                    each.join(", ")
                )
            }
        }
    }
}

impl Error for Trouble {}

/// Whether the same call may succeed later. RESOURCE_EXHAUSTED, which a full farm sends, does not
/// pass by itself.
#[must_use]
pub fn passes(status: &Status) -> bool {
    match Trouble::of(status) {
        Some(trouble) => trouble.passes(),
        None => matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded),
    }
}

/// Whether a message was too large for this side or the other. The farm's own refusals carry
/// details; this one comes from the transport and has none.
#[must_use]
pub fn refused_as_too_large(status: &Status) -> bool {
    let text = status.message();
    status.details().is_empty()
        && matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted)
        && ["length too large", "larger than max", "size limit"]
            .iter()
            .any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn trouble(kinds: &[Kind], others: bool) -> Trouble {
        let at = kinds.iter().zip(1..).map(|(kind, port)| (format!("farm:{port}"), kind.clone()));
        Trouble { at: at.collect(), others }
    }

    fn http(status: u16) -> Kind {
        let response = Response::builder().status(status).body(()).expect("a response");
        Kind::Http(Answer::of(&response).expect("no gRPC"))
    }

    #[test]
    fn a_status_keeps_its_trouble() {
        let trouble = trouble(&[http(502)], false);
        let status = trouble.clone().into_status();
        assert_eq!(Trouble::of(&status), Some(&trouble));
        assert!(passes(&status) && status.code() == tonic::Code::Unavailable);
        assert_eq!(Trouble::of(&Status::unavailable("the farm's own")), None);
    }

    #[test]
    fn a_call_is_tried_again_while_any_address_may_do_better() {
        let stranger = Kind::Stranger("a Redis server".to_owned());
        assert!(!trouble(&[http(404)], false).passes());
        assert!(!trouble(&[stranger.clone(), http(404)], false).passes());
        assert!(trouble(&[stranger.clone(), Kind::Cut], false).passes());
        assert!(trouble(&[stranger], true).passes());
    }

    #[test]
    fn several_addresses_are_all_named() {
        let kinds = [Kind::Unreachable("connection refused".to_owned()), http(404), Kind::Late];
        let error = trouble(&kinds, false).to_user();
        for words in [
            "farm:1 (connection refused)",
            "farm:2 (answers HTTP 404",
            "farm:3 (no answer in time)",
        ] {
            assert!(error.message.contains(words), "{error}");
        }
        assert_eq!(error.code, Code::Unavailable);
    }

    #[test]
    fn the_farms_own_limits_are_not_the_transports() {
        let transport = Status::out_of_range(
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
        );
        assert!(refused_as_too_large(&transport));
        assert!(refused_as_too_large(&Status::resource_exhausted(
            "Received message larger than max (9 vs. 8)"
        )));
        assert!(!refused_as_too_large(&Status::resource_exhausted("the farm is full")));
        let details = bytes::Bytes::from_static(b"details");
        let own = Status::with_details(tonic::Code::ResourceExhausted, "larger than max", details);
        assert!(!refused_as_too_large(&own));
    }

    #[test]
    fn a_timeout_is_told_from_a_broken_connection() {
        let late: Box<dyn Error + Send + Sync> = Box::new(TimeoutExpired(()));
        assert_eq!(Kind::of(&*late), Kind::Late);
        let refused = std::io::Error::from_raw_os_error(111);
        let connect: Box<dyn Error + Send + Sync> = Box::new(ConnectError(Box::new(refused)));
        assert_eq!(Kind::of(&*connect), Kind::Unreachable("connection refused".to_owned()));
        let broken: Box<dyn Error + Send + Sync> = Box::new(std::io::Error::other("reset"));
        assert_eq!(Kind::of(&*broken), Kind::Broken("reset".to_owned()));
    }
}
