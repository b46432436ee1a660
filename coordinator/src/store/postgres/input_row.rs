//! The inputs of an image's next stage, for images that are dispatched at once.

use darkroom_core::artifact::ArtifactRef;

use super::both::input_row::InputRow;

impl InputRow {
    /// The inputs after the preceding stage stored its output.
    pub(super) fn after(mut self, artifact: &ArtifactRef) -> Self {
        self.low_res = Some(artifact.clone());
        self
    }

    /// The number of the image's own settings.
    pub(super) fn variant(&self) -> Option<i32> {
        self.prompt_variant
    }

    /// The texts that it needs.
    pub(super) fn texts(&self) -> impl Iterator<Item = i64> {
        [Some(self.text_embedding), self.negative_embedding, self.style_embedding]
            .into_iter()
            .flatten()
    }
}
