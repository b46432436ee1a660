//! How many images share a forward pass, so that an image has the same bytes alone and in any batch.
//!
//! This crate's own kernels for CPUs compute each row by itself, and any number may share a pass. libtorch picks kernels,
//! splits sums and hands work to threads by the shape of a whole batch, so the same row gives other last bits in a batch of
//! another size. There, every forward pass of a network on a class of device therefore has one fixed number of images; a call with more runs several, one with fewer is padded with zero rows. See docs/adr/0002-same-bytes.md.

use tch::Device;

use crate::device::Placement;

/// Networks with fewer parameters leave a large GPU idle at a few pictures, and many cost little more.
const LIGHT: usize = 64_000_000;

/// Images in one forward pass for a picture of this many pixels, by a network of so many parameters. With guidance each
/// has two rows.
///
/// On a CPU one image fills the cores. On an H200 (docs/performance.md) the demo's base draws 3.4 times as many pictures a second
/// at 32 in a pass as at 4, a network of IF-I-M's size a third more at 8 than at 4; beyond, one picture by itself waits for
/// more than the others gain.
pub(crate) fn images_per_forward(placement: Placement, pixels: usize, parameters: usize) -> usize {
    if !placement.device.is_cuda() {
        return 1;
    }
    let by_rule = match (pixels, parameters < LIGHT) {
        (..=SMALL, true) => 32,
        (..=SMALL, false) => 8,
        (..=MEDIUM, true) => 8,
        (..=MEDIUM, false) | (_, true) => 2,
        (_, false) => 1,
    };
    placement.images_per_pass.map_or(by_rule, |images| images.max(1))
}

const SMALL: usize = 128 * 128;
const MEDIUM: usize = 512 * 512;

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

/// The row plan in words, for manifests: of a light network, then of others.
pub(crate) fn describe(placement: Placement) -> String {
    match placement {
        Placement { kernels: true, .. } => "images=any".to_owned(),
        Placement { device: Device::Cuda(_), images_per_pass: Some(images), .. } => {
            format!("images={images}")
        }
        Placement { device: Device::Cuda(_), .. } => "images=32/8@128²,8/2@512²,2/1".to_owned(),
        _ => "images=1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn the_rule_is_what_is_told_of_it() {
        let on = |device| Placement {
            device,
            kind: Kind::BFloat16,
            kernels: false,
            images_per_pass: None,
            cuda_kernels: true,
            disturbed: None,
        };
        let card = on(Device::Cuda(0));
        let rule = |pixels: usize| {
            [1, LIGHT]
                .map(|parameters| images_per_forward(card, pixels * pixels, parameters).to_string())
                .join("/")
        };
        assert_eq!(describe(card), format!("images={}@128²,{}@512²,{}", rule(128), rule(512), rule(1024)));
        assert_eq!([rule(64), rule(129), rule(513)], [rule(128), rule(512), rule(1024)]);
        let measured = Placement { images_per_pass: Some(5), ..card };
        assert_eq!((images_per_forward(measured, 64, 1), describe(measured)), (5, "images=5".to_owned()));
        assert_eq!(
            (images_per_forward(on(Device::Cpu), 64, 1), describe(on(Device::Cpu))),
            (1, "images=1".to_owned())
        );
    }
}
