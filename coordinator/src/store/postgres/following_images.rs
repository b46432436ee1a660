//! Images that have yet to follow a command, with the locks that their moves need.

use std::collections::BTreeMap;

use darkroom_core::{id::JobId, text_state::TextState};

use super::{
    Error, Tx,
    both::{following_images::Chunk, row_types::ProgressRow},
    moves,
    progress::{LockedJob, LockedJobs},
    rows::number,
    texts,
};
use crate::store::{
    change::{Applied, Move},
    row::row,
};

row! {
    /// An image that has yet to follow, and the texts that it needs.
    pub(super) struct FollowingImage {
        idx: i64,
        text_embedding: i64,
        negative_embedding: Option<i64>,
        style_embedding: Option<i64>,
        encoded: bool,
    }
}

impl FollowingImage {
    pub(super) fn idx(&self) -> i64 {
        self.idx
    }

    /// The texts that it needs.
    fn texts(&self) -> impl Iterator<Item = i64> {
        [Some(self.text_embedding), self.negative_embedding, self.style_embedding]
            .into_iter()
            .flatten()
    }
}

row! {
    /// An image as it is under its job's lock, and how many stages it passes.
    struct LockedImage {
        stages: i64,
        ..image: ProgressRow,
    }
}

/// A job whose images follow, locked with the texts that they need.
pub(super) struct Followed {
    /// The job, and those that need texts which are wanted again.
    pub(super) jobs: LockedJobs,
    seq: i64,
    unencoded: BTreeMap<i64, TextState>,
}

impl Followed {
    /// Locks texts, of which a cancel needs none, and then jobs. Texts that were given up are
    /// wanted again.
    pub(super) async fn lock(tx: &mut Tx, chunk: &Chunk) -> Result<Self, Error> {
        let Chunk { seq, change, ref images } = *chunk;
        let doubtful = images.iter().filter(|image| !image.encoded && change.needs_texts());
        let doubtful: Vec<i64> = doubtful.flat_map(FollowingImage::texts).collect();
        let unencoded = texts::lock_unencoded(tx, &doubtful).await?;
        let dead = unencoded.iter().filter(|(_, state)| **state == TextState::Dead);
        let revived = texts::revive(tx, &dead.map(|(id, _)| *id).collect::<Vec<_>>()).await?;
        let waiting = texts::jobs_of(tx, &revived).await?;
        let seqs = waiting.iter().map(|(job, _)| *job).chain([seq]);
        let mut jobs = LockedJobs::lock(tx, seqs).await?;
        texts::want_in_jobs(&mut jobs, &waiting);
        Ok(Self { jobs, seq, unencoded })
    }

    /// Moves of a chunk's images, as they are under the job's lock.
    pub(super) async fn moves(&self, tx: &mut Tx, chunk: &Chunk) -> Result<Vec<Move>, Error> {
        let by_index: BTreeMap<i64, &FollowingImage> =
            chunk.images.iter().map(|image| (image.idx, image)).collect();
        let rows: Vec<LockedImage> = sqlx::query_as(
            "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                    coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = i.job AND v.variant = i.variant),
                             (SELECT json_array_length(settings::json -> 'stages') FROM jobs WHERE seq = $1))::bigint
                        AS stages
             FROM unnest($2::bigint[]) AS wanted (idx)
             CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i",
        )
        .bind(self.seq)
        .bind(by_index.keys().copied().collect::<Vec<_>>())
        .fetch_all(&mut **tx)
        .await?;
        let mut moves = Vec::with_capacity(rows.len());
        for LockedImage { image: row, stages } in rows {
            let Some(image) = by_index.get(&row.idx) else { continue };
            let waits = image.texts().any(|text| self.unencoded.contains_key(&text));
            let from = row.progress()?;
            let event = chunk.change.event(!waits);
            moves.extend(Move::by((row.job, row.idx), from, &event, number(stages)?));
        }
        Ok(moves)
    }

    pub(super) async fn apply(&mut self, tx: &mut Tx, moves: &[Move]) -> Result<Applied, Error> {
        moves::apply(tx, &mut self.jobs, moves).await
    }

    /// Ends the job, if its images are all terminal.
    pub(super) async fn finish(&mut self, tx: &mut Tx) -> Result<Vec<JobId>, Error> {
        if !self.jobs.get(self.seq).is_some_and(LockedJob::complete) {
            return Ok(Vec::new());
        }
        let ended = moves::finish(tx, &self.jobs, &[self.seq]).await?;
        if let Some(job) = self.jobs.get_mut(self.seq).filter(|_| !ended.is_empty()) {
            job.raise();
        }
        Ok(ended)
    }
}
