//! Tasks, results and cards for tests that use a queue.

use std::collections::BTreeMap;

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{ImageId, JobId, StageName, WorkerId},
    worker_state::WorkerState,
};
use darkroom_queue::task::{
    EncodeBody, Lease, Outcome, PoolId, Subject, Task, TaskBody, TaskKey, TaskResult, WorkerCard,
};
use uuid::Uuid;

/// A pool of stage `stage` for tests.
#[must_use]
pub fn pool(stage: &str) -> PoolId {
    let stage = StageName::try_from(stage.to_owned()).expect("a valid stage name");
    PoolId { stage, digest: Digest::of(b"suite") }
}

/// Task number `index`, of an image of one job.
#[must_use]
pub fn task(index: u64) -> Task {
    let job = JobId(Uuid::from_u128(7));
    Task {
        key: TaskKey {
            subject: Subject::Image(ImageId { job, index }),
            generation: 1,
            dispatch: 1,
        },
        compatibility: "same".to_owned(),
        suspect: false,
        body: TaskBody::Encode(EncodeBody {
            text: format!("text {index}"),
            prefix: format!("t/{index}/"),
        }),
        traceparent: None,
        warrant: None,
        seal: None,
    }
}

/// Task number `index` as a suspect.
#[must_use]
pub fn suspect(index: u64) -> Task {
    Task { suspect: true, ..task(index) }
}

/// A successful result for a lease.
#[must_use]
pub fn done(lease: &Lease) -> TaskResult {
    let artifact = ArtifactRef { key: "t/x".to_owned(), sha256: Digest::of(b"x"), size: 1 };
    TaskResult {
        key: lease.task.key,
        worker: lease.worker.clone(),
        place: "host/fake".to_owned(),
        device_class: "fake".to_owned(),
        alone: true,
        seconds: 0.5,
        batch: 1,
        outcome: Outcome::Done { artifact, notes: vec!["a note".to_owned()] },
        warrant: lease.task.warrant,
        signature: None,
    }
}

/// A card for worker `id` that serves no pool.
#[must_use]
pub fn card(id: &str) -> WorkerCard {
    WorkerCard {
        id: WorkerId(id.to_owned()),
        host: "host".to_owned(),
        device: "fake".to_owned(),
        device_class: "fake".to_owned(),
        pools: BTreeMap::new(),
        leased: 0,
        done: 0,
        busy: 0.0,
        state: WorkerState::Working,
        trouble: String::new(),
        failed: 0,
        memory: None,
        version: String::new(),
        seen_seconds_ago: 0.0,
    }
}
