//! How many images share a forward pass, such that an image has the same bytes alone and in any
//! batch.
//!
//! This crate's CPU kernels compute each row separately, so any number of rows can share a pass.
//! libtorch chooses kernels, splits sums and divides work among threads by the shape of a whole
//! batch, so the same row has other last bits in a batch of another size. With libtorch, every
//! forward pass of a network on a class of device therefore has one fixed number of images: a call
//! with more images runs several passes, and a call with fewer is padded with zero rows. See
//! docs/adr/0002-same-bytes.md.

use crate::device::Placement;
use crate::engine::Engine;

/// With fewer parameters than this, a few pictures do not keep a large GPU busy, and many pictures
/// cost little more.
const LIGHT: usize = 64_000_000;

const SMALL: usize = 128 * 128;
const MEDIUM: usize = 512 * 512;

impl Engine {
    /// Images per forward pass for a picture of this many pixels and a network with this many
    /// parameters. With guidance each image has two rows.
    ///
    /// On a CPU one image keeps the cores busy. On an H200 (docs/performance.md) the demo's base
    /// draws 3.4 times as many pictures per second with 32 per pass as with 4, and a network of
    /// IF-I-M's size a third more with 8 than with 4. With even more, the other pictures gain less
    /// than the time that a single picture waits.
    fn images_per_pass(self, pixels: usize, parameters: usize) -> usize {
        if self.gpu().is_none() {
            return 1;
        }
        match (pixels, parameters < LIGHT) {
            (..=SMALL, true) => 32,
            (..=SMALL, false) => 8,
            (..=MEDIUM, true) => 8,
            (..=MEDIUM, false) | (_, true) => 2,
            (_, false) => 1,
        }
    }

    /// Whether one image takes as long as a full pass of [`Placement::images_per_pass`].
    pub(crate) fn pads_passes(self) -> bool {
        self.gpu().is_some()
    }

    /// How many groups of [`Placement::images_per_pass`] may share a pass if rows are independent.
    /// Small pictures share one, so that weights are read once for all of them.
    pub(crate) fn groups_per_pass(self, pixels: usize) -> usize {
        const PIXELS: usize = 8 * 64 * 64;
        if self.rows_are_independent() { (PIXELS / pixels.max(1)).max(1) } else { 1 }
    }

    /// Rows per pass of the text encoder on a GPU, padded if there are fewer texts; on the host,
    /// where each lane takes [`Self::texts_per_lane`], one.
    pub(crate) fn texts_per_pass(self) -> usize {
        if self.pads_passes() { 8 } else { 1 }
    }

    /// Whether threads of the host encode different texts.
    pub(crate) fn encodes_in_lanes(self) -> bool {
        self.gpu().is_none()
    }

    /// Texts that may share a lane's pass: several, if rows are independent.
    pub(crate) fn texts_per_lane(self) -> usize {
        if self.rows_are_independent() { 8 } else { 1 }
    }

    /// How many texts share a pass, for an encoder's description.
    pub(crate) fn describe_texts(self) -> &'static str {
        match self {
            Self::CpuKernels => "texts=any",
            Self::Cuda(_) | Self::CudaKernels(_) => "texts=8",
            Self::Cpu => "texts=1",
        }
    }

    /// The rule in words, for manifests: for a light network, then for others.
    fn describe_images(self) -> &'static str {
        match self {
            Self::CpuKernels => "images=any",
            Self::Cuda(_) | Self::CudaKernels(_) => "images=32/8@128²,8/2@512²,2/1",
            Self::Cpu => "images=1",
        }
    }
}

impl Placement {
    /// Images per forward pass for a picture of this many pixels and a network with this many
    /// parameters; fewer are padded.
    pub(crate) fn images_per_pass(self, pixels: usize, parameters: usize) -> usize {
        let wanted = self.images_override.filter(|_| self.engine.pads_passes());
        wanted
            .map_or_else(|| self.engine.images_per_pass(pixels, parameters), |images| images.max(1))
    }

    /// How many images share a pass, for manifests.
    pub(crate) fn describe_images(self) -> String {
        match self.images_override.filter(|_| self.engine.pads_passes()) {
            Some(images) => format!("images={images}"),
            None => self.engine.describe_images().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn on(engine: Engine) -> Placement {
        Placement::new(engine, Kind::BFloat16)
    }

    #[test]
    fn the_rule_is_what_is_told_of_it() {
        for engine in [Engine::Cuda(0), Engine::CudaKernels(0)] {
            let card = on(engine);
            let rule = |pixels: usize| {
                [1, LIGHT]
                    .map(|parameters| card.images_per_pass(pixels * pixels, parameters).to_string())
                    .join("/")
            };
            let told = format!("images={}@128²,{}@512²,{}", rule(128), rule(512), rule(1024));
            assert_eq!(card.describe_images(), told);
            assert_eq!([rule(64), rule(129), rule(513)], [rule(128), rule(512), rule(1024)]);
        }
    }

    #[test]
    fn another_number_of_images_counts_on_a_gpu_alone() {
        let measured = |engine| Placement { images_override: Some(5), ..on(engine) };
        let of = |engine| {
            let placement = measured(engine);
            (placement.images_per_pass(64, 1), placement.describe_images())
        };
        assert_eq!(of(Engine::CudaKernels(0)), (5, "images=5".to_owned()));
        assert_eq!(of(Engine::Cpu), (1, "images=1".to_owned()));
        assert_eq!(of(Engine::CpuKernels), (1, "images=any".to_owned()));
    }

    #[test]
    fn rows_share_a_pass_freely_only_where_they_are_independent() {
        for engine in [Engine::Cpu, Engine::CpuKernels, Engine::Cuda(0), Engine::CudaKernels(0)] {
            let free = engine.groups_per_pass(16 * 16) > 1;
            assert_eq!(free, engine.rows_are_independent(), "{engine:?}");
            assert_eq!(engine.texts_per_lane() > 1, engine.rows_are_independent(), "{engine:?}");
            assert!(!engine.encodes_in_lanes() || engine.texts_per_pass() == 1, "{engine:?}");
        }
    }
}
