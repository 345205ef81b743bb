//! The log of agent and controller, on standard error. Commands for a person at a terminal use `checkpoint_keeper_terminal::say`.

use std::fmt;
use std::panic::PanicHookInfo;
use std::str::FromStr;

use checkpoint_keeper_core::name::{is_unsafe, printable};
use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// How the beginning of our crates' names reads, by which filters know them.
const OURS: &str = "checkpoint_keeper";

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogArguments {
    /// Write log lines as text or as JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Log what is at least as severe: error, warn, info, debug, trace or off; libraries are added as
    /// in info,kube=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogFilter,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    Text,
    /// An object of JSON in each line
    Json,
}

/// What is logged: a level for our own code, and levels for libraries that are named.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

/// That a text is no filter.
#[derive(Debug, thiserror::Error)]
#[error("is no level, nor a level and libraries' levels as in info,kube=debug")]
pub struct NoFilter;

impl FromStr for LogFilter {
    type Err = NoFilter;

    fn from_str(text: &str) -> Result<Self, NoFilter> {
        let given: Targets = text.parse().map_err(|_| NoFilter)?;
        // A word that is no level would be a library's name, of which everything is logged.
        let is_named_alone = text.split(',').any(|part| {
            part.trim().is_empty() || (!part.contains('=') && part.trim().parse::<LevelFilter>().is_err())
        });
        let ours = given.default_level().filter(|_| !is_named_alone).ok_or(NoFilter)?;
        // Libraries log each attempt; what matters of that is logged here once.
        let targets = Targets::new()
            .with_target(OURS, ours)
            .with_targets(given.iter().map(|(name, level)| (name.to_owned(), level)));
        Ok(Self { text: text.to_owned(), targets })
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Begins to log to standard error, panics too.
pub(crate) fn start(arguments: &LogArguments) {
    // Another one can only be there already in a test, and serves as well.
    let _ = tracing::dispatcher::set_global_default(log_to(arguments, std::io::stderr));
    std::panic::set_hook(Box::new(log_panic));
}

fn log_to(
    arguments: &LogArguments,
    writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
) -> tracing::Dispatch {
    let targets = arguments.log_level.targets.clone();
    let log =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(writer);
    match arguments.log_format {
        LogFormat::Text => log.event_format(TextLine(Format::default())).finish().with(targets).into(),
        LogFormat::Json => {
            let format = JsonLine(Format::default().json().flatten_event(true));
            log.fmt_fields(JsonFields::new()).event_format(format).finish().with(targets).into()
        }
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("with no message");
    tracing::error!(thread = thread.name(), place, "a thread panicked: {what}");
}

/// A line of text. What comes from outside can neither act on the terminal nor begin a line.
struct TextLine(Format<Full>);

impl<S: Subscriber + for<'span> LookupSpan<'span>> FormatEvent<S, DefaultFields> for TextLine {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = formatted(&self.0, context, event)?;
        writeln!(writer, "{}", printable(line.trim_end()))
    }
}

/// An object of JSON in one line, for which the same holds.
struct JsonLine(Format<Json>);

impl<S: Subscriber + for<'span> LookupSpan<'span>> FormatEvent<S, JsonFields> for JsonLine {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = formatted(&self.0, context, event)?;
        // All of it that is not ASCII stands in strings, where it may be written so.
        for character in line.trim_end().chars() {
            if is_unsafe(character) {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                writer.write_char(character)?;
            }
        }
        writeln!(writer)
    }
}

fn formatted<S, N>(
    format: &impl FormatEvent<S, N>,
    context: &FmtContext<'_, S, N>,
    event: &Event<'_>,
) -> Result<String, fmt::Error>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    let mut line = String::new();
    format.format_event(context, Writer::new(&mut line), event)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log_format: LogFormat, log_level: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let arguments = LogArguments { log_format, log_level: log_level.parse().unwrap() };
        tracing::dispatcher::with_default(&log_to(&arguments, move || writer.clone()), log);
        let written = written.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    const EVIL: &str = "a\nERROR forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{e0041}\t.tar";

    #[test]
    fn what_comes_from_outside_stays_in_its_line_and_does_nothing_to_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, "info", || {
                tracing::warn!(subject = EVIL, shown = %EVIL, debug = ?EVIL, "cannot read {EVIL}");
            });
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_unsafe), "{line:?}");
            assert!(line.contains("forged") && line.contains("cannot read a"), "{line}");
            if format == LogFormat::Json {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(object["subject"], EVIL);
                assert_eq!(object["level"], "WARN");
                assert_eq!(object["message"], format!("cannot read {EVIL}"));
            }
        }
    }

    #[test]
    fn a_level_is_about_our_own_code_and_libraries_are_asked_for_by_name() {
        let log = || {
            tracing::error!(target: "kube_client::client", "library");
            tracing::debug!(target: "checkpoint_keeper_agent::api", "detail");
            tracing::warn!(target: "checkpoint_keeper", "problem");
        };
        let words = |level: &str| {
            let text = logged(LogFormat::Text, level, log);
            text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(words("info"), ["problem"]);
        assert_eq!(words("debug"), ["detail", "problem"]);
        assert_eq!(words("warn,kube_client=info"), ["library", "problem"]);
        assert_eq!(words("off"), [""; 0]);
        for wrong in ["", "inof", "info,kube", "kube=debug", "info,kube=loud", "info,"] {
            assert!(wrong.parse::<LogFilter>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let text = logged(LogFormat::Text, "info", || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let caught = std::panic::catch_unwind(|| panic!("{EVIL}"));
            std::panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("ERROR") && text.contains("a thread panicked: a\\nERROR forged"), "{text}");
        assert!(text.contains("logging.rs:"), "{text}");
    }
}
