/// Every method of the protocol.
pub static CALLS: &[Call] = &[
    farm::SUBMIT_JOB,
    farm::SUBMIT_JOB_STREAM,
    farm::UPLOAD_INPUT,
    farm::FORECAST_JOB,
    farm::GET_JOB,
    farm::LIST_JOBS,
    farm::WATCH_JOB,
    farm::CANCEL_JOB,
    farm::DELETE_JOB,
    farm::PAUSE_JOB,
    farm::RESUME_JOB,
    farm::RETRY_JOB,
    farm::CANCEL_IMAGES,
    farm::RETRY_IMAGES,
    farm::LIST_IMAGES,
    farm::SUMMARIZE_FAILURES,
    farm::GET_IMAGE,
    farm::GET_IMAGE_MAP,
    farm::FETCH_IMAGE,
    farm::FETCH_SHEET,
    farm::SIGN_IMAGE,
    farm::FETCH_MANIFEST,
    farm::LIST_WORKERS,
    farm::DRAIN_WORKER,
    farm::LIST_CASCADES,
    farm::WATCH_FARM,
    farm::DESCRIBE_QUEUE,
    farm::FARM_HISTORY,
    farm::LIST_USAGE,
    farm::GET_FARM,
    farm::CREATE_WEBHOOK,
    farm::LIST_WEBHOOKS,
    farm::DELETE_WEBHOOK,
    encoder::ENCODE,
    admin::CREATE_KEY,
    admin::LIST_KEYS,
    admin::REVOKE_KEY,
    admin::ROTATE_KEY,
    admin::SET_TENANT,
    admin::GET_TENANT,
    admin::LIST_TENANTS,
    admin::SET_RETENTION,
    admin::GET_RETENTION,
    admin::CLEAN_FARM,
    admin::LIST_AUDIT,
    members::JOIN,
];

/// Methods of `darkroom.v1.Farm`.
pub mod farm {
    use super::{Call, Class, Scope};
    /// `/darkroom.v1.Farm/SubmitJob`.
    pub const SUBMIT_JOB: Call = Call { path: "/darkroom.v1.Farm/SubmitJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/SubmitJobStream`.
    pub const SUBMIT_JOB_STREAM: Call = Call { path: "/darkroom.v1.Farm/SubmitJobStream", class: Class::Long, scope: Scope::Submit, receives_stream: true, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/UploadInput`.
    pub const UPLOAD_INPUT: Call = Call { path: "/darkroom.v1.Farm/UploadInput", class: Class::Long, scope: Scope::Submit, receives_stream: true, sends_stream: false, gathers: true, compressed: false };
    /// `/darkroom.v1.Farm/ForecastJob`.
    pub const FORECAST_JOB: Call = Call { path: "/darkroom.v1.Farm/ForecastJob", class: Class::Long, scope: Scope::Read, receives_stream: true, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/GetJob`.
    pub const GET_JOB: Call = Call { path: "/darkroom.v1.Farm/GetJob", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListJobs`.
    pub const LIST_JOBS: Call = Call { path: "/darkroom.v1.Farm/ListJobs", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/WatchJob`.
    pub const WATCH_JOB: Call = Call { path: "/darkroom.v1.Farm/WatchJob", class: Class::Lasting, scope: Scope::Read, receives_stream: false, sends_stream: true, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/CancelJob`.
    pub const CANCEL_JOB: Call = Call { path: "/darkroom.v1.Farm/CancelJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/DeleteJob`.
    pub const DELETE_JOB: Call = Call { path: "/darkroom.v1.Farm/DeleteJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/PauseJob`.
    pub const PAUSE_JOB: Call = Call { path: "/darkroom.v1.Farm/PauseJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ResumeJob`.
    pub const RESUME_JOB: Call = Call { path: "/darkroom.v1.Farm/ResumeJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/RetryJob`.
    pub const RETRY_JOB: Call = Call { path: "/darkroom.v1.Farm/RetryJob", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/CancelImages`.
    pub const CANCEL_IMAGES: Call = Call { path: "/darkroom.v1.Farm/CancelImages", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/RetryImages`.
    pub const RETRY_IMAGES: Call = Call { path: "/darkroom.v1.Farm/RetryImages", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListImages`.
    pub const LIST_IMAGES: Call = Call { path: "/darkroom.v1.Farm/ListImages", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/SummarizeFailures`.
    pub const SUMMARIZE_FAILURES: Call = Call { path: "/darkroom.v1.Farm/SummarizeFailures", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/GetImage`.
    pub const GET_IMAGE: Call = Call { path: "/darkroom.v1.Farm/GetImage", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/GetImageMap`.
    pub const GET_IMAGE_MAP: Call = Call { path: "/darkroom.v1.Farm/GetImageMap", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/FetchImage`.
    pub const FETCH_IMAGE: Call = Call { path: "/darkroom.v1.Farm/FetchImage", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: true, gathers: false, compressed: true };
    /// `/darkroom.v1.Farm/FetchSheet`.
    pub const FETCH_SHEET: Call = Call { path: "/darkroom.v1.Farm/FetchSheet", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: true, gathers: false, compressed: true };
    /// `/darkroom.v1.Farm/SignImage`.
    pub const SIGN_IMAGE: Call = Call { path: "/darkroom.v1.Farm/SignImage", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/FetchManifest`.
    pub const FETCH_MANIFEST: Call = Call { path: "/darkroom.v1.Farm/FetchManifest", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: true, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListWorkers`.
    pub const LIST_WORKERS: Call = Call { path: "/darkroom.v1.Farm/ListWorkers", class: Class::Short, scope: Scope::Operate, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/DrainWorker`.
    pub const DRAIN_WORKER: Call = Call { path: "/darkroom.v1.Farm/DrainWorker", class: Class::Short, scope: Scope::Operate, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListCascades`.
    pub const LIST_CASCADES: Call = Call { path: "/darkroom.v1.Farm/ListCascades", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/WatchFarm`.
    pub const WATCH_FARM: Call = Call { path: "/darkroom.v1.Farm/WatchFarm", class: Class::Lasting, scope: Scope::Read, receives_stream: false, sends_stream: true, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/DescribeQueue`.
    pub const DESCRIBE_QUEUE: Call = Call { path: "/darkroom.v1.Farm/DescribeQueue", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/FarmHistory`.
    pub const FARM_HISTORY: Call = Call { path: "/darkroom.v1.Farm/FarmHistory", class: Class::Short, scope: Scope::Operate, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListUsage`.
    pub const LIST_USAGE: Call = Call { path: "/darkroom.v1.Farm/ListUsage", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/GetFarm`.
    pub const GET_FARM: Call = Call { path: "/darkroom.v1.Farm/GetFarm", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/CreateWebhook`.
    pub const CREATE_WEBHOOK: Call = Call { path: "/darkroom.v1.Farm/CreateWebhook", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/ListWebhooks`.
    pub const LIST_WEBHOOKS: Call = Call { path: "/darkroom.v1.Farm/ListWebhooks", class: Class::Short, scope: Scope::Read, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Farm/DeleteWebhook`.
    pub const DELETE_WEBHOOK: Call = Call { path: "/darkroom.v1.Farm/DeleteWebhook", class: Class::Short, scope: Scope::Submit, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
}

/// Methods of `darkroom.v1.Encoder`.
pub mod encoder {
    use super::{Call, Class, Scope};
    /// `/darkroom.v1.Encoder/Encode`.
    pub const ENCODE: Call = Call { path: "/darkroom.v1.Encoder/Encode", class: Class::Short, scope: Scope::Operate, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
}

/// Methods of `darkroom.v1.Admin`.
pub mod admin {
    use super::{Call, Class, Scope};
    /// `/darkroom.v1.Admin/CreateKey`.
    pub const CREATE_KEY: Call = Call { path: "/darkroom.v1.Admin/CreateKey", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/ListKeys`.
    pub const LIST_KEYS: Call = Call { path: "/darkroom.v1.Admin/ListKeys", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/RevokeKey`.
    pub const REVOKE_KEY: Call = Call { path: "/darkroom.v1.Admin/RevokeKey", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/RotateKey`.
    pub const ROTATE_KEY: Call = Call { path: "/darkroom.v1.Admin/RotateKey", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/SetTenant`.
    pub const SET_TENANT: Call = Call { path: "/darkroom.v1.Admin/SetTenant", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/GetTenant`.
    pub const GET_TENANT: Call = Call { path: "/darkroom.v1.Admin/GetTenant", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/ListTenants`.
    pub const LIST_TENANTS: Call = Call { path: "/darkroom.v1.Admin/ListTenants", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/SetRetention`.
    pub const SET_RETENTION: Call = Call { path: "/darkroom.v1.Admin/SetRetention", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/GetRetention`.
    pub const GET_RETENTION: Call = Call { path: "/darkroom.v1.Admin/GetRetention", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/CleanFarm`.
    pub const CLEAN_FARM: Call = Call { path: "/darkroom.v1.Admin/CleanFarm", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
    /// `/darkroom.v1.Admin/ListAudit`.
    pub const LIST_AUDIT: Call = Call { path: "/darkroom.v1.Admin/ListAudit", class: Class::Short, scope: Scope::Admin, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
}

/// Methods of `darkroom.v1.Members`.
pub mod members {
    use super::{Call, Class, Scope};
    /// `/darkroom.v1.Members/Join`.
    pub const JOIN: Call = Call { path: "/darkroom.v1.Members/Join", class: Class::Short, scope: Scope::Member, receives_stream: false, sends_stream: false, gathers: false, compressed: false };
}
