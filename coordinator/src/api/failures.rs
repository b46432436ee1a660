//! How a job's images failed.

use darkroom_farm_api::Caller;
use darkroom_proto::v1;

use super::Farm;
use crate::{error::Error, store::records::FailureCount};

impl Farm {
    pub(super) async fn failures(
        &self,
        caller: &Caller,
        request: v1::SummarizeFailuresRequest,
    ) -> Result<v1::SummarizeFailuresResponse, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let failures = self.front.failures(id).await?;
        Ok(v1::SummarizeFailuresResponse {
            failures: failures.counts.into_iter().map(summary).collect(),
            more_codes: failures.more,
        })
    }
}

fn summary(count: FailureCount) -> v1::FailureSummary {
    v1::FailureSummary {
        code: count.code.into(),
        images_dead: count.dead,
        images_not_dead: count.not_dead,
        at_least: count.at_least,
        first_index: count.first,
        last_index: count.last,
        example_index: count.example.index,
        example: count.example.message,
    }
}
