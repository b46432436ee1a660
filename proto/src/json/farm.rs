//! Workers, cascades, and the farm itself.

use super::{Seconds, StageSettings, U64};
use crate::v1;

super::requests! {
    /// Asks for the workers.
    ListWorkersRequest {}

    /// Asks a worker, or all of a host, to drain.
    DrainWorkerRequest {
        worker: String,
        host: String,
    }

    /// Asks for the cascades.
    ListCascadesRequest {}

    /// Asks for the farm itself.
    GetFarmRequest {}
}

super::answers! {
    /// A worker.
    Worker {
        id: String,
        host: String,
        device: String,
        device_class: String,
        cascade_digest: String,
        state: String,
        tasks_leased: U64,
        tasks_done: U64,
        busy: f64,
        last_seen: Option<Seconds>,
        aside_reason: String,
        aside_until: Option<Seconds>,
        trouble: String,
        stages: Vec<WorkerStage>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<DeviceMemory>,
        #[serde(skip_serializing_if = "super::is_default")]
        tasks_failed: U64,
        #[serde(skip_serializing_if = "super::is_default")]
        blamed_images: U64,
        #[serde(skip_serializing_if = "super::is_default")]
        version: String,
    }

    /// Memory of a worker's device.
    DeviceMemory {
        used_bytes: U64,
        total_bytes: U64,
    }

    /// A running coordinator.
    Coordinator {
        id: String,
        leads: bool,
        last_seen: Option<Seconds>,
        answers: bool,
    }

    /// A stage that a worker serves.
    WorkerStage {
        stage: String,
        batch_cap: u32,
        seconds_per_image: f64,
        running: u32,
        mean_batch: f64,
    }

    /// The workers.
    ListWorkersResponse {
        workers: Vec<Worker>,
    }

    /// The workers that got the drain command.
    DrainWorkerResponse {
        workers: Vec<Worker>,
    }

    /// A cascade.
    Cascade {
        name: String,
        digest: String,
        description: String,
        stages: Vec<CascadeStage>,
    }

    /// A stage of a cascade.
    CascadeStage {
        name: String,
        size: u32,
        #[serde(skip_serializing_if = "super::is_default")]
        size_multiple: u32,
        #[serde(skip_serializing_if = "super::is_default")]
        train_timesteps: u32,
        #[serde(skip_serializing_if = "super::is_default")]
        noise_timesteps: u32,
        defaults: Option<StageSettings>,
    }

    /// The cascades.
    ListCascadesResponse {
        cascades: Vec<Cascade>,
    }
}

super::form! {
    /// The farm itself, in the form that `--json` has always had: cascades only by name.
    GetFarmResponse {
        id: String,
        version: String,
        lease_seconds: f64,
        cascades: Vec<String>,
        jobs_overlooked: U64,
        troubles: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        coordinators: Vec<Coordinator>,
        #[serde(skip_serializing_if = "String::is_empty")]
        storage: String,
    }
}

impl From<v1::GetFarmResponse> for GetFarmResponse {
    fn from(message: v1::GetFarmResponse) -> Self {
        let v1::GetFarmResponse {
            farm_id,
            lease_seconds,
            cascades,
            version,
            jobs_overlooked,
            troubles,
            coordinators,
            storage,
        } = message;
        Self {
            id: farm_id,
            version,
            lease_seconds,
            cascades: cascades.into_iter().map(|cascade| cascade.name).collect(),
            jobs_overlooked: U64(jobs_overlooked),
            troubles,
            coordinators: coordinators.into_iter().map(Into::into).collect(),
            storage,
        }
    }
}

impl From<&v1::GetFarmResponse> for GetFarmResponse {
    fn from(message: &v1::GetFarmResponse) -> Self {
        message.clone().into()
    }
}
