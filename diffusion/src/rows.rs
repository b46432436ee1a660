//! How many images share a forward pass, so that an image has the same bytes alone and in any batch.
//!
//! This crate's own kernels compute each row by itself, and any number may share a pass. libtorch picks kernels, splits sums and hands work to threads by the shape of a whole batch, so the same row gives
//! other last bits in a batch of another size. There, every forward pass of a class of device therefore has one fixed number
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

/// Groups of [`images_per_forward`] that may share a pass where a row's bits are its own: small pictures do, so that
/// weights are read once for all of them.
pub(crate) fn groups_per_forward(placement: Placement, pixels: usize) -> usize {
    const PIXELS: usize = 8 * 64 * 64;
    if placement.kernels { (PIXELS / pixels.max(1)).max(1) } else { 1 }
}

/// Texts in one forward pass of the encoder.
pub(crate) fn texts_per_forward(placement: Placement) -> usize {
    if placement.device.is_cuda() { 8 } else { 1 }
}

/// Texts that may share a pass on the host: where a row's bits are its own, some.
pub(crate) fn texts_per_pass(placement: Placement) -> usize {
    if placement.kernels { 8 } else { 1 }
}

/// The same of texts, for what is told of an encoder.
pub(crate) fn describe_texts(placement: Placement) -> &'static str {
    match placement {
        Placement { kernels: true, .. } => "texts=any",
        Placement { device: Device::Cuda(_), .. } => "texts=8",
        _ => "texts=1",
    }
}

/// The row plan in words, for manifests.
pub(crate) fn describe(placement: Placement) -> &'static str {
    match placement {
        Placement { kernels: true, .. } => "images=any",
        Placement { device: Device::Cuda(_), .. } => "images=4@128²,2@512²,1",
        _ => "images=1",
    }
}
