//! How many images share a forward pass, so that an image has the same bytes alone and in any batch.
//!
//! libtorch picks kernels, splits sums and hands work to threads by the shape of a whole batch, so the same row gives
//! other last bits in a batch of another size. Every forward pass of a class of device therefore has one fixed number
//! of images; a call with more runs several, one with fewer is padded with zero rows. See docs/adr/0002-same-bytes.md.

use tch::Device;

use crate::device::Placement;

/// Images in one forward pass for a picture of this many pixels. With guidance each has two rows.
///
/// On a CPU one image fills the cores. On a GPU small pictures leave it idle, and four together cost little more.
pub(crate) fn images_per_forward(placement: Placement, pixels: usize) -> usize {
    match placement.device {
        Device::Cuda(_) if pixels <= 128 * 128 => 4,
        Device::Cuda(_) if pixels <= 512 * 512 => 2,
        _ => 1,
    }
}

/// Texts in one forward pass of the encoder.
pub(crate) fn texts_per_forward(placement: Placement) -> usize {
    if placement.device.is_cuda() { 8 } else { 1 }
}

/// The row plan in words, for manifests.
pub(crate) fn describe(placement: Placement) -> &'static str {
    if placement.device.is_cuda() { "images=4@128²,2@512²,1" } else { "images=1" }
}
