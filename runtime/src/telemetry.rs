//! Logs: to standard error, for people or as JSON lines, filtered by `DARKROOM_LOG`.
//!
//! In fields, characters that control a terminal or that a reader cannot see are escaped. Colours
//! are used only on terminals. If a line cannot be written, it is lost without an error.

use std::{
    fmt::{Debug, Result as Written},
    io::{self, Write},
};

use darkroom_core::shown::{shown, shown_json};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    filter::ParseError,
    fmt::{
        self, MakeWriter,
        format::{FormatFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::terminal;

/// Name of the environment variable with the filter, in tracing's own syntax:
/// `info,darkroom_worker=debug`.
pub const FILTER: &str = "DARKROOM_LOG";

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is malformed.
    #[error(
        "{FILTER} is {text:?}, which is not a filter: {source}; \
         accepted: levels by module, like info,darkroom_worker=debug"
    )]
    Filter {
        /// Its value.
        text: String,
        /// Why it was refused.
        source: ParseError,
    },
}

/// Starts logging for the process; later calls change nothing. `default` is used if `DARKROOM_LOG`
/// is not set.
///
/// # Errors
/// If `DARKROOM_LOG` is set and malformed.
pub fn init(default: &str, format: Format) -> Result<(), Error> {
    let text = std::env::var(FILTER).ok().filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|source| Error::Filter { text, source })?;
    let registry = tracing_subscriber::registry().with(filter);
    // A second initialisation is no error, because tests share a process.
    let _ = match format {
        Format::Human => registry.with(human(io::stderr, terminal::colours_on_stderr())).try_init(),
        Format::Json => registry.with(json(io::stderr)).try_init(),
    };
    Ok(())
}

fn human<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    let layer = fmt::layer().log_internal_errors(false).with_writer(writer).with_ansi(colours);
    layer.with_target(false).fmt_fields(ShownFields)
}

fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fmt::layer().log_internal_errors(false).json().with_writer(ShownJson(writer))
}

/// Fields for people, with escapes.
struct ShownFields;

impl<'w> FormatFields<'w> for ShownFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> Written {
        let mut line = FieldLine { writer, is_empty: true, written: Ok(()) };
        fields.record(&mut line);
        line.written
    }
}

struct FieldLine<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    written: Written,
}

impl Visit for FieldLine<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Fields that come with the `log` crate's records.
        if self.written.is_err() || field.name().starts_with("log.") {
            return;
        }
        let value = format!("{value:?}");
        let (value, before) = (shown(&value), if self.is_empty { "" } else { " " });
        self.is_empty = false;
        self.written = match field.name() {
            "message" => write!(self.writer, "{before}{value}"),
            name => write!(self.writer, "{before}{}={value}", name.trim_start_matches("r#")),
        };
    }
}

/// Any maker of writers, for lines of JSON; hidden characters become escapes.
struct ShownJson<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for ShownJson<W> {
    type Writer = ShownJsonLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        ShownJsonLine(self.0.make_writer())
    }
}

struct ShownJsonLine<W>(W);

impl<W: Write> Write for ShownJsonLine<W> {
    /// A whole line comes in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(shown_json(&text).as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use darkroom_core::shown::is_hidden;

    use super::*;

    const HOSTILE: &str = "\u{1b}[31m\nforged\u{9b}1m\u{7f}\u{202e}\u{200b}\u{e0041}";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged<L>(layer: impl FnOnce(Kept) -> L) -> String
    where
        L: Layer<tracing_subscriber::Registry> + Send + Sync + 'static,
    {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(layer(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("task", worker.id = HOSTILE);
            let _inside = span.enter();
            tracing::warn!(%HOSTILE, debug = ?HOSTILE, text = HOSTILE, count = 3, "said {HOSTILE}");
        });
        let bytes = kept.0.lock().expect("whole").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn nothing_in_a_log_is_obeyed_by_a_terminal() {
        let text = logged(|kept| human(move || kept.clone(), false));
        let line = text.strip_suffix('\n').expect("a line");
        assert!(!line.contains(is_hidden), "{line:?}");
        let escaped = shown(HOSTILE);
        let at = "WARN task{worker.id=";
        for part in [at, &format!(": said {escaped}"), &format!("HOSTILE={escaped}"), "count=3"] {
            assert!(line.contains(part), "{part:?} in {line:?}");
        }
        let colours = logged(|kept| human(move || kept.clone(), true));
        assert!(colours.contains("\u{1b}[33m") && !colours.contains("\u{1b}[31m"), "{colours:?}");
    }

    #[test]
    fn json_stays_json_and_means_the_same() {
        let text = logged(|kept| json(move || kept.clone()));
        let line = text.strip_suffix('\n').expect("a line");
        assert!(!line.contains(is_hidden), "{line:?}");
        let document: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(document["fields"]["text"], HOSTILE);
        assert_eq!(document["spans"][0]["worker.id"], HOSTILE);
    }
}
