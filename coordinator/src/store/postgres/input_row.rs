//! What a stage of an image needs, where it goes straight on or waits for its texts.

use darkroom_core::artifact::ArtifactRef;

use super::both::input_row::InputRow;

impl InputRow {
    /// With what the stage before has stored just now.
    pub(super) fn after(mut self, artifact: &ArtifactRef) -> Self {
        self.low_res = Some(artifact.clone());
        self
    }

    /// The number of the settings that the image has of its own.
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
