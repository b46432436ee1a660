//! The farm's messages as lines for people.

use darkroom_core::shown::shown;
use darkroom_proto::{
    json::{Named as _, duration_seconds},
    v1,
};

use crate::{forecast, span::span};

/// One line about a job.
pub(crate) fn job_line(job: &v1::Job) -> String {
    let name = job.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
    let state = job.state().name();
    let mut line = format!("{}  {state:<9}  {}/{}", shown(&job.id), job.images_done, job.images);
    if job.images_dead > 0 {
        line += &format!("  {} failed", job.images_dead);
    }
    if job.images_cancelled > 0 {
        line += &format!("  {} cancelled", job.images_cancelled);
    }
    if !name.is_empty() {
        line += &format!("  {}", shown(name));
    }
    match job.spec.as_ref().and_then(|spec| spec.deadline.as_ref()) {
        Some(deadline) if !terminal(job.state()) => line += &format!("  deadline {deadline}"),
        _ => {}
    }
    if !job.pictures_removed_by.is_empty() {
        let at = job.pictures_removed_at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let by = shown(&job.pictures_removed_by);
        line += &format!("  (its pictures were removed{at} by {by})");
    }
    if !job.end_reason.is_empty() {
        line += &format!("  ({})", shown(&job.end_reason));
    }
    line
}

/// Several lines about a job.
pub(crate) fn job_text(job: &v1::Job) -> String {
    let mut text = job_line(job);
    for stage in &job.stages {
        text += &format!("\n  {:<8} {}/{}", shown(&stage.stage), stage.done, stage.total);
        if stage.stopped > 0 {
            text += &format!(", {} ended before", stage.stopped);
        }
        if stage.dispatched > 0 {
            text += &format!(", {} with workers", stage.dispatched);
        }
        if stage.images_per_second > 0.0 {
            text += &format!(", {:.2} images/s", stage.images_per_second);
        }
        text += &forecast::stage_left(job.forecast.as_ref(), &stage.stage);
    }
    if let Some(eta) = &job.eta {
        text += &format!("\n  about {} left", span(duration_seconds(eta)));
    }
    if let Some(late) = &job.deadline_missed_by {
        text +=
            &format!("\n  its deadline will be missed by about {}", span(duration_seconds(late)));
    }
    if !job.waiting_for.is_empty() {
        text += &format!("\n  waiting: {}", shown(&job.waiting_for));
    }
    if let Some(check) =
        job.forecast_check.as_ref().map(forecast::check_text).filter(|text| !text.is_empty())
    {
        text += &format!("\n  {check}");
    }
    let labels = job.spec.iter().flat_map(|spec| &spec.labels);
    for (key, value) in labels {
        text += &format!("\n  label: {}={}", shown(key), shown(value));
    }
    for note in &job.notes {
        text += &format!("\n  note: {}", shown(note));
    }
    text
}

/// One line about the images whose last failure has one code.
pub(crate) fn failure_line(failure: &v1::FailureSummary) -> String {
    let least = if failure.at_least { "at least " } else { "" };
    let mut line = format!("{}  {least}{} dead", shown(&failure.code), failure.images_dead);
    if failure.images_not_dead > 0 {
        line += &format!("  {least}{} not dead", failure.images_not_dead);
    }
    let (first, last) = (failure.first_index, failure.last_index);
    line += &if first == last {
        format!("  image {first}")
    } else {
        format!("  images {first} to {last}")
    };
    line + &format!("  (image {}: {})", failure.example_index, shown(&failure.example))
}

fn terminal(state: v1::JobState) -> bool {
    matches!(state, v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled)
}
