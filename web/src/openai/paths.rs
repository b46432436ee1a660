//! Where the routes of this API are.

/// Where all of them begin.
pub(crate) const API: &str = "/v1";
/// Makes pictures from a text.
pub(crate) const GENERATIONS: &str = "/v1/images/generations";
/// Files of many requests, and of their results.
pub(crate) const FILES: &str = "/v1/files";
/// Makes pictures from a picture and a text.
pub(crate) const EDITS: &str = "/v1/images/edits";
