//! Where things are: the beginnings of paths.

/// Where all routes of the API begin.
pub(crate) const API: &str = "/api/v1";
/// Where links of the farm's begin.
pub(crate) const LINKS: &str = "/links";

/// Whether a path lies below the place with this one.
pub(crate) fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}
