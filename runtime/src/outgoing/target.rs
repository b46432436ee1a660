//! Where a request goes: an address of `http://` or `https://`, taken apart.

use std::{fmt, net::IpAddr};

use darkroom_core::{error::UserError, webhook::MAX_URL};
use url::Url;

/// The server of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, which is resolved at each request.
    Name(String),
    /// An IP address in the URL itself, in any notation.
    Address(IpAddr),
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: Host,
    port: u16,
}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// One sentence about the field, which does not repeat a password.
    pub fn parse(field: &str, text: &str) -> Result<Self, UserError> {
        let wrong = |what: &str| {
            let accepted = format!(
                "http://HOST/PATH or https://HOST/PATH of at most {MAX_URL} bytes, without user, \
                 password and fragment"
            );
            UserError::invalid(field, format!("{field} {what}; accepted: {accepted}"))
        };
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        if text.len() > MAX_URL {
            return Err(wrong(&format!("has {} bytes", text.len())));
        }
        // `Url::parse` would silently drop some of these characters.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("has spaces or control characters"));
        }
        let url = Url::parse(text).map_err(|error| wrong(&format!("is no address: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("is neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has a user or a password"));
        }
        if url.fragment().is_some() {
            return Err(wrong("has a fragment"));
        }
        if url.as_str().len() > MAX_URL {
            return Err(wrong(&format!("has {} bytes, escaped", url.as_str().len())));
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(name.to_owned()),
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(address.into()),
            None => return Err(wrong("names no host")),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("names port 0"))?;
        Ok(Self { url, host, port })
    }

    /// The address in its normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The server.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub(super) fn path(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The server for an error. A path or a query may hold a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        self.authority()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, UserError> {
        Target::parse("url", text)
    }

    #[test]
    fn an_address_is_taken_apart() {
        let target = parse("https://Hooks.Example.com/a/b?key=1").expect("an address");
        assert!(target.is_https());
        assert_eq!(target.host(), &Host::Name("hooks.example.com".to_owned()));
        assert_eq!((target.port(), target.path().as_str()), (443, "/a/b?key=1"));
        assert_eq!(target.authority(), "hooks.example.com");
        assert!(!format!("{target:?}").contains("key"), "{target:?}");
        let plain = parse("http://[::1]:8080").expect("an address");
        assert_eq!(plain.host(), &Host::Address("::1".parse().expect("an address")));
        assert_eq!((plain.port(), plain.path().as_str()), (8080, "/"));
        assert_eq!(plain.authority(), "[::1]:8080");
    }

    #[test]
    fn an_ipv4_address_in_any_form_is_one() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.0.0.1./",
            "http://１２７.0.0.1/",
        ] {
            let host = parse(text).expect(text).host().clone();
            assert_eq!(host, Host::Address("127.0.0.1".parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused_in_one_sentence() {
        for text in [
            "",
            "hooks.example.com",
            "/hook",
            "ftp://example.com/",
            "file:///etc/passwd",
            "data:text/plain,x",
            "http://",
            "https://user@example.com/",
            "https://user:s3cr@example.com/",
            "https://:s3cr@example.com/",
            "https://example.com/#part",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://exa mple.com/",
            "https://example.com/\r\nx: y",
            "https://example.com/\ta",
            &format!("https://example.com/{}", "a".repeat(MAX_URL)),
            &format!("https://example.com/{}", "é".repeat(MAX_URL / 3)),
        ] {
            let refused = parse(text).expect_err(text);
            assert_eq!(refused.field.as_deref(), Some("url"));
            assert!(refused.message.contains("; accepted: http://HOST"), "{refused}");
            assert!(!refused.message.contains("s3cr") && refused.message.len() < 400, "{refused}");
        }
    }
}
