//! The cookie of a browser's session.

use darkroom_core::{error::UserError, session::Session};
use http::{HeaderMap, Uri, header};

/// How its name begins.
const NAME: &str = "darkroom_session";

/// The host and port that a request is for; none if it names none, or two.
#[must_use]
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, None) = (hosts.next()?, hosts.next()) else { return None };
    host.to_str().ok().map(str::to_owned)
}

/// The cookie under which a browser keeps its session.
///
/// Browsers send the cookies of one port to every other port of the host, so the port is part of
/// the name: farms on one machine do not end each other's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    secure: bool,
}

impl Cookie {
    /// The cookie at this authority (`farm:7878`). `secure`: the browser speaks TLS.
    #[must_use]
    pub fn at(authority: &str, secure: bool) -> Self {
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        // With this prefix, no other host and no page without TLS can set it.
        let prefix = if secure { "__Host-" } else { "" };
        let name = match port {
            Some(port) if !port.is_empty() => format!("{prefix}{NAME}_{port}"),
            _ => format!("{prefix}{NAME}"),
        };
        Self { name, secure }
    }

    /// The session that a request shows, if it has one.
    ///
    /// # Errors
    /// UNAUTHENTICATED, if it is malformed.
    pub fn read(&self, headers: &HeaderMap) -> Result<Option<Session>, UserError> {
        // HTTP/2 may split the header.
        let cookies =
            headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = cookies.flat_map(|cookies| cookies.split(';'));
        let sessions = cookies.filter_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == self.name && !value.is_empty()).then(|| value.parse::<Session>())
        });
        // Another port of the host can plant a cookie of this name beside ours.
        let mut malformed = None;
        for session in sessions {
            match session {
                Ok(session) => return Ok(Some(session)),
                Err(error) => malformed = Some(error),
            }
        }
        malformed.map_or(Ok(None), Err)
    }

    /// The `Set-Cookie` value that makes a browser keep the session for this many seconds.
    #[must_use]
    pub fn keep(&self, session: &Session, seconds: u64) -> String {
        self.set(&session.expose(), seconds)
    }

    /// The `Set-Cookie` value that makes a browser delete the cookie.
    #[must_use]
    pub fn forget(&self) -> String {
        self.set("", 0)
    }

    fn set(&self, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = &self.name;
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new("0123456789ab".parse().expect("an id"), 1_800_000_000, |_| [7; 32])
    }

    fn sent(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn a_cookie_comes_back_to_the_port_that_set_it() {
        let cookie = Cookie::at("127.0.0.1:7878", false);
        let kept = cookie.keep(&session(), 60);
        let pair = kept.split(';').next().expect("a pair");
        assert!(kept.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"), "{kept}");
        let planted = format!("darkroom_session_7878=x; darkroom_session_7878=; {pair}");
        for cookies in [&[pair][..], &["a=b", pair], &[&format!("a=b; {pair}; c=d")], &[&planted]] {
            let read = cookie.read(&sent(cookies)).expect("reads").expect("a session");
            assert_eq!(read.expose(), session().expose());
        }
        for other in ["127.0.0.1:7879", "127.0.0.1", "[::1]"] {
            let read = Cookie::at(other, false).read(&sent(&[pair])).expect("reads");
            assert!(read.is_none(), "{other}");
        }
        assert!(cookie.read(&sent(&[])).expect("reads").is_none());
        let forgotten = cookie.forget();
        let pair = forgotten.split(';').next().expect("a pair");
        assert!(cookie.read(&sent(&[pair])).expect("reads").is_none());
        assert!(cookie.read(&sent(&["darkroom_session_7878=x"])).is_err());
    }

    #[test]
    fn under_tls_nobody_else_can_set_it() {
        let kept = Cookie::at("farm.example.com", true).keep(&session(), 60);
        assert!(kept.starts_with("__Host-darkroom_session=ds_"), "{kept}");
        assert!(kept.ends_with("; Secure"), "{kept}");
    }
}
