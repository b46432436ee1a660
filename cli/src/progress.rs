//! Progress of a job on a terminal: a bar per stage with images a second, and the time left. Silent elsewhere.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use darkroom_proto::v1;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::view;

/// Bars for one job, on standard error.
pub(crate) struct Progress {
    screen: MultiProgress,
    status: ProgressBar,
    stages: BTreeMap<usize, ProgressBar>,
}

impl Progress {
    /// Bars, or silence when not `wanted` or standard error is no terminal.
    pub(crate) fn new(wanted: bool) -> Self {
        let target = if wanted && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let screen = MultiProgress::with_draw_target(target);
        let status = screen.add(ProgressBar::new_spinner());
        status.set_style(style("{spinner} {msg}", ProgressStyle::default_spinner()));
        status.enable_steady_tick(Duration::from_millis(120));
        Self { screen, status, stages: BTreeMap::new() }
    }

    /// One line about what happens now.
    pub(crate) fn say(&self, message: &str) {
        self.status.set_message(message.to_owned());
    }

    /// Shows a job as it stands.
    pub(crate) fn show(&mut self, job: &v1::Job) {
        for (position, stage) in job.stages.iter().enumerate() {
            let screen = &self.screen;
            let status = &self.status;
            let bar = self.stages.entry(position).or_insert_with(|| {
                let bar = screen.insert_before(status, ProgressBar::new(stage.total));
                bar.set_style(style(
                    "{prefix:<8} {wide_bar} {pos}/{len} {msg}",
                    ProgressStyle::default_bar(),
                ));
                bar.set_prefix(stage.stage.clone());
                bar
            });
            bar.set_length(stage.total);
            bar.set_position(stage.done);
            bar.set_message(if stage.done < stage.total && stage.images_per_second > 0.0 {
                format!("{:.2}/s", stage.images_per_second)
            } else {
                String::new()
            });
        }
        let mut line = match &job.eta {
            Some(eta) => format!("about {} left", view::span(view::duration_seconds(eta))),
            None if job.waiting_for.is_empty() => "rendering".to_owned(),
            None => String::new(),
        };
        if let Some(late) = &job.deadline_missed_by {
            line += &format!(", {} after its deadline", view::span(view::duration_seconds(late)));
        }
        if !job.waiting_for.is_empty() {
            let before = if line.is_empty() { "" } else { "; " };
            line += &format!("{before}waiting: {}", job.waiting_for);
        }
        self.say(&line);
    }

    /// Writes a line to standard output without tearing the bars.
    pub(crate) fn print(&self, line: &str) {
        self.screen.suspend(|| println!("{line}"));
    }

    /// Writes a line to standard error without tearing the bars.
    pub(crate) fn note(&self, line: &str) {
        self.screen.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bars away.
    pub(crate) fn end(&self) {
        for bar in self.stages.values() {
            bar.finish_and_clear();
        }
        self.status.finish_and_clear();
    }
}

fn style(template: &str, fallback: ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(fallback)
}
