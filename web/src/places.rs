//! Where things are: the beginnings of paths, and the address that a request is for.

use http::{HeaderMap, Uri, header};

/// Where all routes of the API begin.
pub(crate) const API: &str = "/api/v1";
/// Where links of the farm's begin.
pub(crate) const LINKS: &str = "/links";

/// The host and port that a request is for.
pub(crate) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, None) = (hosts.next()?, hosts.next()) else { return None };
    host.to_str().ok().map(str::to_owned)
}
