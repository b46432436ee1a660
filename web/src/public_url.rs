//! The address by which browsers reach a farm behind a proxy.

use http::{Uri, uri::Scheme};
use serde::Deserialize;

use darkroom_core::shown::shown;

/// `https://farm.example.com`: a scheme, a host and maybe a port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl {
    /// As browsers send it in `Origin`.
    origin: String,
    host: String,
    secure: bool,
}

impl PublicUrl {
    /// As browsers send it in `Origin`: `https://farm.example.com`.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Its host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether browsers speak TLS with it.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{:?} is not the address of a farm; accepted: https://HOST[:PORT] or \
                 http://HOST[:PORT], without a path",
                shown(text)
            )
        };
        let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        // A port that is none is left out by the parser.
        let rest = authority.as_str().strip_prefix(authority.host());
        let is_whole = rest.is_some_and(|rest| rest.is_empty() || authority.port_u16().is_some());
        let plain = is_whole && !authority.host().is_empty();
        if !plain || !["", "/"].contains(&uri.path()) || uri.query().is_some() {
            return Err(wrong());
        }
        // Browsers leave the scheme's own port out.
        let usual = if secure { 443 } else { 80 };
        let port = authority.port_u16().filter(|port| *port != usual);
        let host = authority.host().to_ascii_lowercase();
        let scheme = if secure { "https" } else { "http" };
        let origin = match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Ok(Self { origin, host, secure })
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        for (text, origin, host, secure) in [
            ("https://farm.example.com", "https://farm.example.com", "farm.example.com", true),
            ("https://Farm.example.com:443/", "https://farm.example.com", "farm.example.com", true),
            ("http://farm:8080", "http://farm:8080", "farm", false),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", "[2001:db8::1]", true),
        ] {
            let url: PublicUrl = text.parse().expect(text);
            assert_eq!((url.origin(), url.host(), url.is_secure()), (origin, host, secure));
        }
        for wrong in [
            "",
            "farm.example.com",
            "//farm",
            "https://",
            "ftp://farm",
            "https://farm/path",
            "https://farm?x",
            "https://user@farm",
            "https://farm:99999",
        ] {
            let said = wrong.parse::<PublicUrl>().expect_err(wrong);
            assert!(said.contains("accepted: https://HOST"), "{said}");
        }
    }
}
