//! What every request passes before anything else, and every answer after: any web page can make a
//! browser send requests to a port on its machine or network, and must gain nothing by it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use darkroom_farm_api::authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use crate::{
    paths::{LINKS, is_below},
    problem::Refusal,
    public_url::PublicUrl,
    words::{told, told_header},
};

/// What a browser says of where a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which browsers may reach the farm, beside `localhost` and IP addresses.
///
/// A page of a stranger can make its own name resolve to the farm's address; its requests then have
/// that name as `Host`, and never an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    names: Vec<String>,
    /// The origin of the page behind a proxy.
    origin: Option<String>,
}

impl Hosts {
    /// These names, in upper or lower case, without ports; and the address behind a proxy.
    pub(crate) fn new(names: impl IntoIterator<Item = String>, public: Option<&PublicUrl>) -> Self {
        let named = names.into_iter().chain(public.map(|public| public.host().to_owned()));
        let names = named.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect();
        Self { names, origin: public.map(|public| public.origin().to_owned()) }
    }

    fn has(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = bare.unwrap_or(&host).parse::<IpAddr>().is_ok();
        is_address
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.names.contains(&host)
    }
}

/// Lets a request pass, or refuses it.
pub(crate) async fn pass(hosts: Arc<Hosts>, request: Request, next: Next) -> Response {
    let checked = checked(&hosts, request.method(), request.uri(), request.headers());
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether a request may pass.
pub(crate) fn checked(
    hosts: &Hosts,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let authority = authority(uri, headers).unwrap_or_default();
    let host = parts(&authority).map_or(authority.as_str(), |(host, _)| host);
    if parts(&authority).is_none() || !hosts.has(host) {
        let host = told(host);
        return Err(Refusal::http(
            StatusCode::MISDIRECTED_REQUEST,
            "HOST",
            format!(
                "the request is for host {host:?}; accepted: an IP address, localhost, and names \
                 given with --http-host; behind a proxy, start the farm with --public-url"
            ),
        ));
    }
    // Whoever has a link may show its picture anywhere.
    if is_below(uri.path(), LINKS) {
        return Ok(());
    }
    let foreign = |what: String| {
        Err(Refusal::http(
            StatusCode::FORBIDDEN,
            "FOREIGN_ORIGIN",
            format!("the request comes from {what}; accepted: the page of this farm, and programs"),
        ))
    };
    let reads = [Method::GET, Method::HEAD].contains(method);
    let navigates = reads
        && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && !uri.path().starts_with("/api/");
    if let Some(site) = headers.get(SITE).filter(|_| !navigates)
        && site != "same-origin"
        && site != "none"
    {
        return foreign("a page of another site".to_owned());
    }
    if let Some(origin) = headers.get(header::ORIGIN)
        && !reads
        && !is_own(origin, &authority)
        && hosts.origin.as_deref().is_none_or(|own| origin != own)
    {
        return foreign(format!("origin {:?}", told_header(origin)));
    }
    Ok(())
}

/// Whether a page of this farm's own address sent the request. The scheme may differ where a proxy
/// ends TLS.
fn is_own(origin: &HeaderValue, authority: &str) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let (rest, port) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some(("https", rest)) => (rest, 443),
        _ => return false,
    };
    let whole = |authority: &str| {
        let (host, own) = parts(authority)?;
        Some((host.to_ascii_lowercase(), own.unwrap_or(port)))
    };
    let own = whole(authority);
    own.is_some() && whole(rest) == own
}

/// The host and the port of an authority: `[::1]:7878` as `[::1]` and 7878.
fn parts(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        Some(_) => return None,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let is_name = !host.is_empty() && !host.contains(['@', '/', '?', '#', '\\']);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    is_name.then_some((host, port))
}

/// Gives every answer the headers that keep other pages out.
pub(crate) async fn harden(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, headers: &[(&str, &str)]) -> Result<(), (u16, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        let public = "https://studio.example.com".parse().expect("an address");
        let hosts = Hosts::new(["Farm.example.com.".to_owned()], Some(&public));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let uri = path.parse().expect("a path");
        checked(&hosts, &method, &uri, &map).map_err(|refusal| {
            let status = refusal.into_response().status();
            (status.as_u16(), String::new())
        })
    }

    #[test]
    fn only_names_of_the_farm_and_addresses_are_hosts() {
        for own in [
            "localhost",
            "LOCALHOST:7878",
            "a.localhost",
            "127.0.0.1:7878",
            "[::1]:7878",
            "192.0.2.7",
            "farm.example.com",
            "FARM.example.com.:443",
            "studio.example.com",
        ] {
            assert_eq!(check("GET", "/", &[("host", own)]), Ok(()), "{own}");
        }
        assert_eq!(check("GET", "http://localhost/", &[]), Ok(()), "HTTP/2 has no Host");
        for other in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "farm.example.com.evil.example",
            "localhost.evil.example:7878",
            "xfarm.example.com",
            "1.2.3",
            "user@localhost",
            "localhost:80@evil.example",
            "localhost:x",
            "localhost:99999",
            "localhost:+80",
            "127.0.0.1:1/x",
            "[::1]evil.example",
            "x[::1]",
            "[::1",
            ":80",
        ] {
            let refused = check("GET", "/", &[("host", other)]);
            assert_eq!(refused.expect_err(other).0, 421, "{other}");
        }
        assert!(check("GET", "/", &[]).is_err(), "no host at all");
        let two = [("host", "localhost"), ("host", "localhost")];
        assert!(check("GET", "/", &two).is_err(), "two hosts");
    }

    #[test]
    fn writes_come_from_the_page_or_from_programs() {
        let host = ("host", "127.0.0.1:7878");
        let from = |origin| check("POST", "/api/v1/jobs", &[host, ("origin", origin)]);
        assert_eq!(check("POST", "/api/v1/jobs", &[host]), Ok(()), "a program");
        assert_eq!(from("http://127.0.0.1:7878"), Ok(()));
        for other in [
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:7879",
            "http://localhost:7878",
            "http://evil.example",
            "file://127.0.0.1:7878",
            "http://127.0.0.1:7878.evil.example",
            "",
        ] {
            assert_eq!(from(other).expect_err(other).0, 403, "{other}");
        }
        let proxied = [("host", "farm.example.com"), ("origin", "https://farm.example.com")];
        assert_eq!(check("POST", "/api/v1/jobs", &proxied), Ok(()));
        // A proxy that does not pass the name on.
        assert_eq!(from("https://studio.example.com"), Ok(()));
        assert!(from("http://studio.example.com").is_err());
    }

    #[test]
    fn pages_of_other_sites_cannot_read_but_may_lead_here() {
        let host = ("host", "localhost");
        let site = |site, path| check("GET", path, &[host, ("sec-fetch-site", site)]);
        for own in ["same-origin", "none"] {
            assert_eq!(site(own, "/api/v1/events"), Ok(()));
        }
        for other in ["cross-site", "same-site"] {
            assert!(site(other, "/api/v1/events").is_err());
            assert!(site(other, "/assets/a.js").is_err());
            let clicked = [host, ("sec-fetch-site", other), ("sec-fetch-mode", "navigate")];
            assert_eq!(check("GET", "/jobs/x", &clicked), Ok(()), "a link in a chat");
            assert!(check("GET", "/api/v1/farm", &clicked).is_err());
            assert!(check("POST", "/jobs", &clicked).is_err());
            assert_eq!(site(other, "/links/x"), Ok(()), "a shared picture");
            for no_link in ["/linksx", "/links", "/links.js", "/linksx/y"] {
                assert!(site(other, no_link).is_err(), "{no_link}");
            }
        }
    }
}
