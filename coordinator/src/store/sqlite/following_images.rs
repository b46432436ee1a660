//! Images that have yet to follow a command, and their moves. There is one writer, so what it has
//! read stays true.

use darkroom_core::id::JobId;

use super::{
    Error, Tx,
    both::{following_images::Chunk, row_types::ProgressRow},
    moves,
    progress::LockedJobs,
    rows::number,
};
use crate::store::{
    change::{Applied, Move},
    row::row,
};

row! {
    /// An image that has yet to follow, and how many stages it passes.
    pub(super) struct FollowingImage {
        encoded: bool,
        stages: i64,
        ..image: ProgressRow,
    }
}

impl FollowingImage {
    pub(super) fn idx(&self) -> i64 {
        self.image.idx
    }

    /// Its prompt, if that has texts which are not encoded.
    pub(super) fn unencoded_prompt(&self) -> Option<i64> {
        Some(self.image.prompt).filter(|_| !self.encoded)
    }
}

/// A job whose images follow.
pub(super) struct Followed {
    pub(super) jobs: LockedJobs,
    seq: i64,
}

impl Followed {
    /// Texts are wanted again by [`revive_of_job`](super::texts::revive_of_job) and
    /// [`revive_of_images`](super::texts::revive_of_images).
    pub(super) async fn lock(tx: &mut Tx, chunk: &Chunk) -> Result<Self, Error> {
        Ok(Self { jobs: LockedJobs::lock(tx, [chunk.seq]).await?, seq: chunk.seq })
    }

    /// Moves of a chunk's images.
    pub(super) async fn moves(&self, _: &mut Tx, chunk: &Chunk) -> Result<Vec<Move>, Error> {
        let mut moves = Vec::with_capacity(chunk.images.len());
        for FollowingImage { image, encoded, stages } in &chunk.images {
            let (at, from) = ((self.seq, image.idx), image.progress()?);
            moves.extend(Move::by(at, from, &chunk.change.event(*encoded), number(*stages)?));
        }
        Ok(moves)
    }

    pub(super) async fn apply(&mut self, tx: &mut Tx, moves: &[Move]) -> Result<Applied, Error> {
        Ok(moves::apply(tx, moves).await?.applied)
    }

    /// Ends the job, if its images are all terminal.
    pub(super) async fn finish(&mut self, tx: &mut Tx) -> Result<Vec<JobId>, Error> {
        let ended = moves::finish(tx, &[self.seq]).await?;
        if !ended.is_empty() {
            moves::raise_versions(tx, &[self.seq]).await?;
        }
        Ok(ended)
    }
}
