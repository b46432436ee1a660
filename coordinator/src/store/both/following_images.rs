//! Images of a job that a user's command is about to change.

use darkroom_core::{image_command::ImageCommand, image_state::ImageEvent};

use super::super::following::FollowingImage;

/// How images change.
#[derive(Clone, Copy)]
pub(in super::super) enum Change {
    /// They follow a command.
    Follow(ImageCommand),
    /// They run again, because their pictures are lost.
    Rerender,
}

impl Change {
    /// Whether it depends on the texts of the images.
    #[allow(dead_code, reason = "only Postgres locks texts")]
    pub(in super::super) fn needs_texts(self) -> bool {
        !matches!(self, Self::Follow(ImageCommand::Cancel))
    }

    /// The event for an image, whose texts are encoded or not.
    pub(in super::super) fn event(self, encoded: bool) -> ImageEvent<'static> {
        match self {
            Self::Follow(command) => command.event(encoded),
            Self::Rerender => ImageEvent::Lost { encoded },
        }
    }
}

/// Images of one job that change together.
pub(in super::super) struct Chunk {
    /// Their job.
    pub(in super::super) seq: i64,
    pub(in super::super) change: Change,
    pub(in super::super) images: Vec<FollowingImage>,
}

/// Columns of a [`FollowingImage`] and their tables, behind the images `i` of job `$1`.
macro_rules! following_images {
    ($images:literal, $rest:literal) => {
        concat!(
            sql!(
                sqlite: concat!(
                    "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures,
                            i.hosts AS places, i.suspect, p.encoded = 1 AS encoded, ",
                    stages_of!("i"),
                    " AS stages FROM "
                ),
                postgres:
                    "SELECT i.idx, p.text_embedding, p.negative_embedding, p.style_embedding,
                            t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE)
                                AS encoded
                     FROM ",
            ),
            $images,
            " JOIN prompts AS p ON p.job = $1 AND p.position = i.prompt ",
            sql!(
                sqlite: "",
                postgres:
                    "JOIN embeddings AS t ON t.id = p.text_embedding
                     LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
                     LEFT JOIN embeddings AS s ON s.id = p.style_embedding ",
            ),
            $rest
        )
    };
}
pub(super) use following_images;
