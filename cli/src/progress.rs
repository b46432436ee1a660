//! Progress of a job. On a terminal: a bar per stage with images per second and the time left.
//! Elsewhere: only a line when the reason why the job waits changes.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    time::Duration,
};

use console::Term;
use darkroom_core::shown::shown;
use darkroom_proto::{json::duration_seconds, v1};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::{failure::Result, output, span::span};

/// Most bars: a cascade has fewer stages.
const MOST_BARS: usize = 64;

/// Bars for one job, on standard error.
pub(crate) struct Progress {
    screen: MultiProgress,
    status: ProgressBar,
    stages: BTreeMap<usize, ProgressBar>,
    /// If there are no bars: the last printed reason why the job waits.
    waited_for: Option<String>,
}

impl Progress {
    /// Bars if standard error is a terminal that can move its cursor, lines elsewhere, and nothing
    /// unless `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let bars = wanted && !dumb && io::stderr().is_terminal();
        let target = if bars {
            ProgressDrawTarget::term_like(Box::new(Patient(Term::buffered_stderr())))
        } else {
            ProgressDrawTarget::hidden()
        };
        Self::on(target, (wanted && !bars).then(String::new))
    }

    fn on(target: ProgressDrawTarget, waited_for: Option<String>) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let status = screen.add(ProgressBar::new_spinner());
        status.set_style(style("{spinner} {msg}", ProgressStyle::default_spinner()));
        status.enable_steady_tick(Duration::from_millis(120));
        Self { screen, status, stages: BTreeMap::new(), waited_for }
    }

    /// One line about what happens now.
    pub(crate) fn say(&self, message: &str) {
        self.status.set_message(shown(message).into_owned());
    }

    /// Shows the present state of a job.
    pub(crate) fn show(&mut self, job: &v1::Job) {
        for (position, stage) in job.stages.iter().take(MOST_BARS).enumerate() {
            let screen = &self.screen;
            let status = &self.status;
            let bar = self.stages.entry(position).or_insert_with(|| {
                let bar = screen.insert_before(status, ProgressBar::new(stage.total));
                bar.set_style(style(
                    "{prefix:<8} {wide_bar} {pos}/{len} {msg}",
                    ProgressStyle::default_bar(),
                ));
                bar.set_prefix(shown(&stage.stage).into_owned());
                bar
            });
            // Images that ended before cannot fill it any more.
            let total = stage.total.saturating_sub(stage.stopped);
            bar.set_length(total);
            bar.set_position(stage.done);
            bar.set_message(if stage.done < total && stage.images_per_second > 0.0 {
                format!("{:.2}/s", stage.images_per_second)
            } else {
                String::new()
            });
        }
        let mut line = match &job.eta {
            Some(eta) => format!("about {} left", span(duration_seconds(eta))),
            None if job.waiting_for.is_empty() => "rendering".to_owned(),
            None => String::new(),
        };
        if let Some(late) = &job.deadline_missed_by {
            line += &format!(", {} after its deadline", span(duration_seconds(late)));
        }
        if !job.waiting_for.is_empty() {
            let before = if line.is_empty() { "" } else { "; " };
            line += &format!("{before}waiting: {}", job.waiting_for);
        }
        self.say(&line);
        if let Some(told) = self.waited_for.as_mut().filter(|told| **told != job.waiting_for) {
            told.clone_from(&job.waiting_for);
            if !told.is_empty() {
                output::tell(&format!("waiting: {}", shown(told)));
            }
        }
    }

    /// Writes a line to standard output without breaking the bars.
    pub(crate) fn print(&self, line: &str) -> Result<()> {
        self.screen.suspend(|| output::line(line))
    }

    /// Writes a line to standard error without breaking the bars.
    pub(crate) fn note(&self, line: &str) {
        self.screen.suspend(|| output::tell(line));
    }

    /// Removes the bars.
    pub(crate) fn end(&self) {
        for bar in self.stages.values() {
            bar.finish_and_clear();
        }
        self.status.finish_and_clear();
    }
}

/// A terminal that may have gone away. Bars that cannot be drawn are ignored. (indicatif panics in
/// some of these cases.)
#[derive(Debug)]
struct Patient<T>(T);

impl<T: TermLike> TermLike for Patient<T> {
    fn width(&self) -> u16 {
        self.0.width()
    }

    fn height(&self) -> u16 {
        self.0.height()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        let _ = self.0.move_cursor_up(n);
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        let _ = self.0.move_cursor_down(n);
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        let _ = self.0.move_cursor_right(n);
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        let _ = self.0.move_cursor_left(n);
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        let _ = self.0.write_line(line);
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let _ = self.0.write_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let _ = self.0.clear_line();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

fn style(template: &str, fallback: ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal whose other end is closed.
    #[derive(Debug)]
    struct Gone;

    fn gone() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(5))
    }

    impl TermLike for Gone {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            gone()
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            gone()
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            gone()
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            gone()
        }

        fn write_line(&self, _: &str) -> io::Result<()> {
            gone()
        }

        fn write_str(&self, _: &str) -> io::Result<()> {
            gone()
        }

        fn clear_line(&self) -> io::Result<()> {
            gone()
        }

        fn flush(&self) -> io::Result<()> {
            gone()
        }
    }

    #[test]
    fn bars_on_a_terminal_that_is_gone_are_no_trouble() {
        let mut progress =
            Progress::on(ProgressDrawTarget::term_like(Box::new(Patient(Gone))), None);
        let stage =
            v1::StageProgress { stage: "base".to_owned(), total: 2, done: 1, ..Default::default() };
        progress.show(&v1::Job { stages: vec![stage], ..v1::Job::default() });
        progress.say("rendering");
        progress.status.tick();
        progress.note("a note");
        progress.end();
    }
}
