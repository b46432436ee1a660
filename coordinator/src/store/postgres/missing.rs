//! Inputs that a worker did not find: whose outputs they were, and making those run again.

use std::collections::{BTreeSet, HashMap, HashSet};

use darkroom_core::{id::ImageId, image_state::Producer};
use darkroom_queue::task::Subject;
use uuid::Uuid;

use super::{
    Error, Tx,
    progress::LockedJobs,
    rows::{column, stage_column},
    texts,
};
use crate::store::cause::Cause;

/// The inputs that a bulk of results misses, and the texts behind them, locked.
#[derive(Default)]
pub(super) struct Missing {
    /// Texts whose artifact was missed, by image and key.
    texts: HashMap<(ImageId, String), BTreeSet<i64>>,
    /// Outputs of the stage before: (image, stage that missed it, key).
    before: HashSet<(ImageId, usize, String)>,
    /// The jobs that need those texts, each with the text.
    pub(super) jobs: Vec<(i64, i64)>,
    /// Texts to be encoded again.
    lost: BTreeSet<i64>,
    /// Outputs to be forgotten: (job, index, first stage).
    stale: Vec<(i64, i64, i16)>,
}

impl Missing {
    /// Finds and locks what the causes miss; mostly nothing. Before any job is locked.
    pub(super) async fn find(tx: &mut Tx, causes: &[Cause<'_>]) -> Result<Self, Error> {
        let mut missing = Self::default();
        let missed: Vec<(ImageId, &str)> = causes
            .iter()
            .filter_map(|cause| match cause.key.subject {
                Subject::Image(image) => Some((image, cause.missing()?)),
                Subject::Text(_) => None,
            })
            .collect();
        if missed.is_empty() {
            return Ok(missing);
        }
        let jobs: Vec<Uuid> = missed.iter().map(|(image, _)| image.job.0).collect();
        let indexes: Vec<i64> = missed.iter().map(|(image, _)| column(image.index)).collect();
        let keys: Vec<&str> = missed.iter().map(|(_, key)| *key).collect();
        let rows: Vec<(i64, Option<i64>, Option<i16>)> = sqlx::query_as(
            "SELECT m.number, e.id, o.stage
             FROM unnest($1::uuid[], $2::bigint[], $3::text[]) WITH ORDINALITY AS m (job, idx, key, number)
             JOIN jobs AS j ON j.id = m.job
             CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = j.seq AND i.idx = m.idx OFFSET 0) AS i
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
             LEFT JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding) AND e.key = m.key
             LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx AND o.key = m.key",
        )
        .bind(jobs)
        .bind(indexes)
        .bind(keys)
        .fetch_all(&mut **tx)
        .await?;
        for (number, text, stage) in rows {
            let position = usize::try_from(number - 1).unwrap_or(0);
            let Some((image, key)) = missed.get(position).copied() else { continue };
            if let Some(text) = text {
                missing.texts.entry((image, key.to_owned())).or_default().insert(text);
            }
            if let Some(stage) = stage {
                let after = usize::try_from(stage).unwrap_or(0) + 1;
                missing.before.insert((image, after, key.to_owned()));
            }
        }
        let texts: BTreeSet<i64> = missing.texts.values().flatten().copied().collect();
        let texts: Vec<i64> = texts.into_iter().collect();
        if !texts.is_empty() {
            sqlx::query("SELECT FROM embeddings WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE")
                .bind(&texts)
                .execute(&mut **tx)
                .await?;
            missing.jobs = texts::jobs_of(tx, &texts).await?;
        }
        Ok(missing)
    }

    /// Whose output the missing key was; `None` if it is no input of the image's stage (any more).
    pub(super) fn producer(&self, image: ImageId, stage: usize, key: &str) -> Option<Producer> {
        if self.before.contains(&(image, stage, key.to_owned())) {
            return Some(Producer::StageBefore);
        }
        self.texts.contains_key(&(image, key.to_owned())).then_some(Producer::Encoder)
    }

    /// The image goes back to its producer; `row` is its job and index, `stage` where it stands then.
    pub(super) fn rewind(
        &mut self,
        producer: Producer,
        (image, key): (ImageId, &str),
        row: (i64, i64),
        stage: usize,
    ) {
        match producer {
            Producer::Encoder => {
                self.lost.extend(self.texts.get(&(image, key.to_owned())).into_iter().flatten());
            }
            Producer::StageBefore => self.stale.push((row.0, row.1, stage_column(stage))),
        }
    }

    /// Writes what the rewinds mean for texts and outputs; the jobs that need the texts are locked.
    pub(super) async fn forget(&self, tx: &mut Tx, jobs: &mut LockedJobs) -> Result<(), Error> {
        if !self.stale.is_empty() {
            sqlx::query(
                "DELETE FROM outputs AS o
                 USING unnest($1::bigint[], $2::bigint[], $3::smallint[]) AS s (job, idx, stage)
                 WHERE o.job = s.job AND o.idx = s.idx AND o.stage >= s.stage",
            )
            .bind(self.stale.iter().map(|(job, ..)| *job).collect::<Vec<_>>())
            .bind(self.stale.iter().map(|(_, idx, _)| *idx).collect::<Vec<_>>())
            .bind(self.stale.iter().map(|(.., stage)| *stage).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
        }
        if self.lost.is_empty() {
            return Ok(());
        }
        let lost: Vec<i64> = sqlx::query_scalar(
            "UPDATE embeddings SET state = 'wanted' WHERE id = ANY ($1) AND state = 'done' RETURNING id",
        )
        .bind(self.lost.iter().copied().collect::<Vec<_>>())
        .fetch_all(&mut **tx)
        .await?;
        for (job, text) in self.jobs.iter().filter(|(_, text)| lost.contains(text)) {
            if let Some(job) = jobs.get_mut(*job) {
                job.encode(-1);
                job.want(*text);
            }
        }
        // What was given up after it had been lost is told once more.
        texts::spread_dead_again(tx, &self.lost.iter().copied().collect::<Vec<_>>()).await
    }
}
