//! What ended jobs leave in storage beside their pictures.

use darkroom_core::{artifact::ArtifactRef, id::JobId};

/// The place of an ended job in the order in which jobs ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// When it ended, as the database counts.
    pub ended: i64,
    /// Its number in the record, for jobs that ended at the same time.
    pub seq: i64,
}

/// An ended job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// Its id.
    pub id: JobId,
    /// When it ended.
    pub end: End,
}

/// What of an ended job is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Outputs that only a retry of the job could use.
    Intermediates,
    /// Finished pictures.
    Pictures,
}

/// An output of an ended job that is still stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Index of its image.
    pub index: u64,
    /// Position of its stage among the image's stages.
    pub stage: usize,
    /// What is stored.
    pub artifact: ArtifactRef,
}
