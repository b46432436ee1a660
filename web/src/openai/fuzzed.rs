//! What the fuzz targets use of this API.

use bytes::Bytes;
use darkroom_core::error::UserError;

pub(crate) use super::form::{Files, read_form, whole};
use super::{
    fields::Fields,
    mask,
    order::{Endpoint, Order},
};

/// Reads the fields of a request for edits, and says how many pictures are asked for.
pub(crate) fn order(fields: Fields) -> Result<u32, UserError> {
    Order::read(fields, Endpoint::Edits).map(|order| order.pictures)
}

/// Converts a mask to strokes, as a PNG.
///
/// # Errors
/// The refusal that the client gets.
pub fn mask(file: &[u8]) -> Result<Bytes, UserError> {
    let file = Bytes::copy_from_slice(file);
    let mib = mask::memory(&file)?;
    mask::converted(&file, mib)
}
