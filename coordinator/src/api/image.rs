//! One image with the outcomes of its attempts.

use darkroom_core::id::StageName;
use darkroom_farm_api::Caller;
use darkroom_proto::v1;

use super::{Farm, access::Sight, convert};
use crate::{
    error::Error,
    store::{
        attempt::{Attempt, AttemptOutcome},
        limits::timestamp,
    },
};

impl Farm {
    pub(super) async fn image(
        &self,
        caller: &Caller,
        request: v1::GetImageRequest,
    ) -> Result<v1::GetImageResponse, Error> {
        let (id, index) = (self.job_of(caller, "job_id", &request.job_id).await?, request.index);
        let stages = self.stage_names.of(self.front.as_ref(), id).await?;
        let (image, attempts) =
            tokio::try_join!(self.front.image(id, index), self.front.attempts(id, index))?;
        let sight = Sight::of(caller);
        let attempts = attempts.into_iter().map(|one| attempt(sight, &stages, one)).collect();
        let image = Some(convert::image(sight, &stages, image));
        Ok(v1::GetImageResponse { image, attempts })
    }
}

/// An attempt at an image of a job whose stages have these names, as the caller may see it.
fn attempt(sight: Sight, stages: &[StageName], attempt: Attempt) -> v1::Attempt {
    let outcome = match attempt.outcome {
        AttemptOutcome::Done => v1::AttemptOutcome::Done,
        AttemptOutcome::Failed => v1::AttemptOutcome::Failed,
        AttemptOutcome::Died => v1::AttemptOutcome::Died,
        AttemptOutcome::InputMissing => v1::AttemptOutcome::InputMissing,
        AttemptOutcome::Interrupted => v1::AttemptOutcome::Interrupted,
        AttemptOutcome::Returned => v1::AttemptOutcome::Returned,
    };
    v1::Attempt {
        stage: stages.get(attempt.stage).map_or_else(String::new, ToString::to_string),
        generation: attempt.generation,
        dispatch: attempt.dispatch,
        outcome: outcome.into(),
        counted: attempt.counted,
        worker: sight.of_worker(attempt.worker),
        place: sight.of_worker(attempt.place),
        device_class: attempt.device_class,
        seconds: attempt.seconds,
        ended_at: attempt.ended_ms.map(timestamp),
        reason: attempt.reason,
        message: attempt.message,
    }
}
