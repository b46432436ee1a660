//! A pool, tasks and results for unit tests.
//!
//! The samples of `darkroom_suites` have the types of this crate's library, which is not the copy
//! that unit tests are compiled with.

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{ImageId, JobId, StageName, WorkerId},
};
use uuid::Uuid;

use crate::task::{EncodeBody, Outcome, PoolId, Subject, Task, TaskBody, TaskKey, TaskResult};

/// A pool of stage `stage`.
pub(super) fn pool(stage: &str) -> PoolId {
    let stage = StageName::try_from(stage.to_owned()).expect("a stage's name");
    PoolId { stage, digest: Digest::of(b"pool") }
}

fn key(index: u64) -> TaskKey {
    let image = ImageId { job: JobId(Uuid::from_u128(7)), index };
    TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 1 }
}

/// Task number `index`, of an image of one job.
pub(super) fn task(index: u64) -> Task {
    let body = EncodeBody { text: format!("text {index}"), prefix: format!("t/{index}/") };
    Task {
        key: key(index),
        compatibility: "same".to_owned(),
        suspect: false,
        body: TaskBody::Encode(body),
        traceparent: None,
        warrant: None,
        seal: None,
    }
}

/// A successful result of task number `index`.
pub(super) fn done(index: u64) -> TaskResult {
    let artifact = ArtifactRef { key: "t/x".to_owned(), sha256: Digest::of(b"x"), size: 1 };
    TaskResult {
        key: key(index),
        worker: WorkerId("w".to_owned()),
        place: "host/fake".to_owned(),
        device_class: "fake".to_owned(),
        alone: true,
        seconds: 0.5,
        batch: 1,
        outcome: Outcome::Done { artifact, notes: vec!["a note".to_owned()] },
        warrant: None,
        signature: None,
    }
}
