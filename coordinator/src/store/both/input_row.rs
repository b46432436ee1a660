//! What a stage of an image needs, as columns, and the task made of it.

use darkroom_core::{
    artifact::ArtifactRef,
    id::{ImageId, JobId},
    image_state::ImageProgress,
    settings::Settings,
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};

use super::{
    Error,
    row_types::ProgressRow,
    rows::{HashColumn, Int, artifact, image_seed, number},
};
use crate::store::{
    records::{Dispatched, Extras, RenderWork, Work},
    row::row,
};

/// The columns of [`InputRow`], except its image's key and its low-resolution picture, from the
/// tables that [`input_joins`] calls `p`, `t`, `n` and `s`.
macro_rules! input_columns {
    () => {
        "p.text, p.negative, p.first_index, p.first_seed, p.text_embedding, p.negative_embedding, p.style_embedding,
         p.variant AS prompt_variant, p.extras, t.key AS text_key, t.sha256 AS text_sha256, t.size AS text_size,
         n.key AS negative_key, n.sha256 AS negative_sha256, n.size AS negative_size,
         s.key AS style_key, s.sha256 AS style_sha256, s.size AS style_size,
         (SELECT r.no_reuse FROM jobs AS r WHERE r.seq = p.job) AS no_reuse,
         (SELECT r.tenant FROM jobs AS r WHERE r.seq = p.job AND r.sealed) AS seal"
    };
}
pub(in super::super) use input_columns;

/// The texts of prompt `p`; one that is not encoded is NULL.
macro_rules! input_joins {
    () => {
        "LEFT JOIN embeddings AS t ON t.id = p.text_embedding AND t.state = 'done'
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding AND n.state = 'done'
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding AND s.state = 'done'
        "
    };
}
pub(in super::super) use input_joins;

row! {
    /// What a stage of an image needs.
    pub(in super::super) struct InputRow {
        text: String,
        negative: String,
        first_index: i64,
        first_seed: i64,
        #[allow(dead_code, reason = "SQLite has it from elsewhere")]
        pub(in super::super) text_embedding: i64,
        pub(in super::super) negative_embedding: Option<i64>,
        pub(in super::super) style_embedding: Option<i64>,
        #[allow(dead_code, reason = "SQLite has it from elsewhere")]
        pub(in super::super) prompt_variant: Option<Int>,
        extras: Option<String>,
        text_key: Option<String>,
        text_sha256: Option<HashColumn>,
        text_size: Option<i64>,
        negative_key: Option<String>,
        negative_sha256: Option<HashColumn>,
        negative_size: Option<i64>,
        style_key: Option<String>,
        style_sha256: Option<HashColumn>,
        style_size: Option<i64>,
        no_reuse: bool,
        seal: Option<String>,
        =/// What the stage before has stored; none before the first.
        pub(in super::super) low_res: Option<ArtifactRef>,
    }
}

impl InputRow {
    /// Whether all its texts are.
    pub(in super::super) fn encoded(&self) -> bool {
        self.text_key.is_some()
            && (self.negative_embedding.is_none() || self.negative_key.is_some())
            && (self.style_embedding.is_none() || self.style_key.is_some())
    }
}

row! {
    /// An image that can be dispatched, with what its stage needs.
    pub(in super::super) struct ReadyRow {
        low_res_key: Option<String>,
        low_res_sha256: Option<HashColumn>,
        low_res_size: Option<i64>,
        ..pub(in super::super) image: ProgressRow,
        ..pub(in super::super) input: InputRow,
    }
}

impl ReadyRow {
    /// The task of the image, now that it is dispatched.
    pub(in super::super) fn dispatched(
        self,
        job: JobId,
        pool: &PoolId,
        settings: &Settings,
    ) -> Result<Dispatched, Error> {
        let mut image = self.image.progress()?;
        image.dispatch += 1;
        let mut needed = self.input;
        needed.low_res = input(self.low_res_key, self.low_res_sha256, self.low_res_size)?;
        dispatched_image(job, pool, settings, (self.image.idx, &image), needed)
    }
}

/// An artifact whose columns may all be NULL.
fn input(
    key: Option<String>,
    sha256: Option<HashColumn>,
    size: Option<i64>,
) -> Result<Option<ArtifactRef>, Error> {
    let columns = key.zip(sha256).zip(size);
    columns.map(|((key, sha256), size)| artifact(key, &sha256, size)).transpose()
}

/// The image's task, with the dispatch number that it gets now.
pub(in super::super) fn dispatched_image(
    job: JobId,
    pool: &PoolId,
    settings: &Settings,
    (idx, image): (i64, &ImageProgress),
    row: InputRow,
) -> Result<Dispatched, Error> {
    let text_embedding = input(row.text_key, row.text_sha256, row.text_size)?;
    let work = RenderWork {
        cascade: pool.digest,
        settings: settings.clone(),
        stage: image.stage,
        prompt: row.text,
        negative: row.negative,
        seed: image_seed(row.first_seed, row.first_index, idx),
        text_embedding: text_embedding
            .ok_or_else(|| Error::Corrupt("embedding without key".to_owned()))?,
        negative_embedding: input(row.negative_key, row.negative_sha256, row.negative_size)?,
        style_embedding: input(row.style_key, row.style_sha256, row.style_size)?,
        extras: Extras::from_json(row.extras.as_deref())?,
        low_res: row.low_res,
        no_reuse: row.no_reuse,
        seal: row.seal,
    };
    Ok(Dispatched {
        key: TaskKey {
            subject: Subject::Image(ImageId { job, index: number(idx)? }),
            generation: image.generation,
            dispatch: image.dispatch,
        },
        suspect: image.suspect,
        work: Work::Render(Box::new(work)),
    })
}
