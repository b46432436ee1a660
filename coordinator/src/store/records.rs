//! Inputs and results of the record, in the domain's types.

mod images;
mod jobs;
mod submits;
mod tasks;

pub(super) use self::submits::{labels_from_json, labels_json, naming};
pub use self::{
    images::{
        Example, FailureCount, Failures, ImageFailure, ImageOrder, ImagePage, ImageQuery,
        ImageRecord, Output, Seen,
    },
    jobs::{
        Around, Changes, Commanded, JobEnd, JobPage, JobPosition, JobQuery, JobRecord, Manifest,
        Pace, PicturesRemoved, StageCounters, Submitted,
    },
    submits::{
        Canonical, Extras, Input, NewJob, NewPrompt, PreparedText, Remark, Requested, Variant,
    },
    tasks::{
        Committed, Death, Discard, Dispatched, Fate, Onward, Release, RenderWork, Report,
        RunningCoordinator, Term, Work, compatibility,
    },
};
