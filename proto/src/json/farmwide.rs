//! The whole farm: its changes, its queue, its history, and the tenants' usage.

use super::{Job, QuotaUsage, Quotas, Seconds, Time, U64, Worker};

super::requests! {
    /// Asks for the changes of all jobs, or of one tenant's.
    WatchFarmRequest {
        tenant: String,
        cursor: String,
    }

    /// Asks for the work of every pool.
    DescribeQueueRequest {}

    /// Asks for the history of the pools.
    FarmHistoryRequest {
        from: Option<Time>,
        to: Option<Time>,
        stage: String,
        cascade_digest: String,
        step_seconds: u32,
    }

    /// Asks for a page of tenants' days.
    ListUsageRequest {
        tenant: String,
        from_day: String,
        to_day: String,
        page_size: u32,
        page_token: String,
    }
}

super::answers! {
    /// All workers at one moment.
    WorkerSnapshot {
        workers: Vec<Worker>,
    }

    /// The work of every pool.
    DescribeQueueResponse {
        pools: Vec<QueuePool>,
    }

    /// The work of one pool.
    QueuePool {
        stage: String,
        cascade: String,
        cascade_digest: String,
        ready: U64,
        dispatched: U64,
        leased: U64,
        oldest_seconds: Option<f64>,
        work_seconds: Option<f64>,
        workers: U64,
        batch_fill: Option<f64>,
        images_per_second: f64,
    }

    /// The history of the pools.
    FarmHistoryResponse {
        pools: Vec<PoolHistory>,
    }

    /// The history of one pool.
    PoolHistory {
        stage: String,
        cascade_digest: String,
        points: Vec<HistoryPoint>,
    }

    /// One step of a pool's history.
    HistoryPoint {
        at: Option<Seconds>,
        done: U64,
        failed: U64,
        device_seconds: f64,
        batches: f64,
        reused: U64,
        minutes: u32,
        ready: Option<f64>,
        dispatched: Option<f64>,
        leased: Option<f64>,
        workers: Option<f64>,
        oldest_seconds: Option<f64>,
    }

    /// A page of tenants' days.
    ListUsageResponse {
        days: Vec<TenantDay>,
        next_page_token: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        quotas: Option<Quotas>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<QuotaUsage>,
    }

    /// What a tenant's jobs used on one day.
    TenantDay {
        tenant: String,
        day: String,
        device_seconds: f64,
        tasks_done: U64,
        tasks_failed: U64,
    }
}

super::reports! {
    /// What changed in the farm.
    FarmEvent {
        jobs: Vec<Job>,
        /// Absent: the workers have not changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        workers: Option<WorkerSnapshot>,
        cursor: String,
        reset: bool,
        caught_up: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        deleted_jobs: Vec<String>,
    }
}
