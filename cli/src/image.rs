//! `darkroom image`: one image, and what became of its latest attempts.

use darkroom_core::shown::shown;
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};

use crate::{args::ImageArgs, client::Client, failure::Result, jobs, output};

/// Prints the image and its attempts.
pub(crate) async fn show(client: &Client, args: &ImageArgs, as_json: bool) -> Result<()> {
    let answer = client.image(&args.job, args.index).await?;
    if as_json {
        return output::json(&json::GetImageResponse::from(answer));
    }
    if let Some(image) = &answer.image {
        output::line(&jobs::image_line(image))?;
    }
    answer.attempts.iter().try_for_each(|attempt| output::line(&attempt_line(attempt)))
}

/// One line about an attempt.
fn attempt_line(attempt: &v1::Attempt) -> String {
    let mut line = format!("  {:<8}  {:<13}", shown(&attempt.stage), attempt.outcome().name());
    if let Some(time) = &attempt.ended_at {
        line += &format!("  {time}");
    }
    if attempt.seconds > 0.0 {
        line += &format!("  {:.2} s", attempt.seconds);
    }
    let place = [&attempt.worker, &attempt.place].into_iter().find(|name| !name.is_empty());
    if let Some(place) = place {
        line += &format!("  {}", shown(place));
    }
    if !attempt.device_class.is_empty() {
        line += &format!("  {}", shown(&attempt.device_class));
    }
    if !attempt.reason.is_empty() {
        line += &format!("  [{}: {}]", shown(&attempt.reason), shown(&attempt.message));
    }
    if attempt.counted {
        line += "  (counts as a failure)";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_says_what_is_known_of_it_and_no_more() {
        let done = v1::Attempt {
            stage: "base".to_owned(),
            outcome: v1::AttemptOutcome::Done.into(),
            worker: "w-1".to_owned(),
            place: "gpu/cuda:0".to_owned(),
            device_class: "h200".to_owned(),
            seconds: 0.25,
            ended_at: Some(prost_types::Timestamp { seconds: 1_764_378_000, nanos: 0 }),
            ..Default::default()
        };
        let line = attempt_line(&done);
        assert_eq!(line, "  base      done           2025-11-29T01:00:00Z  0.25 s  w-1  h200");
        let died = v1::Attempt {
            stage: "sr256".to_owned(),
            outcome: v1::AttemptOutcome::Died.into(),
            place: "gpu/cuda:0".to_owned(),
            reason: "worker_died".to_owned(),
            message: "the worker died\u{1b}[2J".to_owned(),
            counted: true,
            ..Default::default()
        };
        let line = attempt_line(&died);
        assert!(
            line.starts_with("  sr256     died           gpu/cuda:0  [worker_died: "),
            "{line}"
        );
        assert!(line.ends_with("  (counts as a failure)") && !line.contains('\u{1b}'), "{line}");
    }
}
