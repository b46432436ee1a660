//! How a job's images failed, by code.

use super::U64;

super::requests! {
    /// Asks how a job's images failed.
    SummarizeFailuresRequest { job_id: String, }
}

super::answers! {
    /// The images whose last failure has one code.
    FailureSummary {
        code: String,
        images_dead: U64,
        images_not_dead: U64,
        at_least: bool,
        first_index: U64,
        last_index: U64,
        example_index: U64,
        example: String,
    }

    /// A job's failures by code.
    SummarizeFailuresResponse {
        failures: Vec<FailureSummary>,
        more_codes: bool,
    }
}
