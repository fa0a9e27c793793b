//! What a command prints: text for people, one JSON document for programs, progress bars.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    io::{self, Write},
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context, Result};
use clap::builder::{OsStringValueParser, TypedValueParser};
use indicatif::ProgressBar;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

pub use crate::terminal::{only_errors, silent};
use crate::{
    escape::{one_line, printable},
    json::to_json,
    store::{Existing, check_output, write_bytes},
    terminal::progress_bar,
};

/// Where `--json` writes: a file, or `-` for standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTarget {
    Stdout,
    File(PathBuf),
}

impl JsonTarget {
    fn parse(text: OsString) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdout);
        }
        let path = PathBuf::from(text);
        check_output(&path, Existing::Replace).map_err(|e| e.to_string())?;
        Ok(Self::File(path))
    }
}

/// The flag that every reporting command takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct JsonArg {
    /// Write the results as JSON to FILE, in place of a file that is there; `-` is standard output, and all text then
    /// goes to standard error
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(JsonTarget::parse))]
    pub json: Option<JsonTarget>,
}

/// Prints for a command. Text goes to standard output, or to standard error when the JSON takes standard output.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    json: Option<JsonTarget>,
}

impl Ui {
    pub fn new(json: &JsonArg) -> Self {
        Self { json: json.json.clone() }
    }

    /// One line of text for people. A reader that went away (`| head -1`) is no error, and the work goes on: its files
    /// and its JSON are still wanted. Any other failure is kept for [`lost_output`].
    pub fn say(&self, line: fmt::Arguments<'_>) {
        if silent() {
            return;
        }
        let text = line.to_string();
        let text = printable(&text);
        match self.json {
            Some(JsonTarget::Stdout) => {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }
            _ => {
                if let Err(e) = unless_broken_pipe(writeln!(io::stdout().lock(), "{text}")) {
                    let _ = LOST.set(e);
                }
            }
        }
    }

    /// Writes the command's JSON document where `--json` asked for it; nothing without the flag.
    pub fn emit<T: Serialize>(&self, value: &T) -> Result<()> {
        match self.json.as_ref().filter(|_| !silent()) {
            None => Ok(()),
            Some(JsonTarget::Stdout) => {
                let text = to_json(value)?;
                unless_broken_pipe(io::stdout().lock().write_all(&text))
                    .context("cannot write the JSON results to standard output")
            }
            Some(JsonTarget::File(path)) => {
                write_bytes(path, Existing::Replace, &to_json(value)?).context("cannot write the JSON results")
            }
        }
    }

    /// A progress bar on standard error with rate and time to go; silent when that is no terminal.
    pub fn progress(&self, len: u64, what: &str, unit: &str) -> ProgressBar {
        progress_bar(len, what, unit)
    }
}

/// Shows the library's warnings as [`warn`] does, each of them once.
struct Warnings(Mutex<BTreeSet<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(BTreeSet::new()));

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.enabled(record.metadata()) && told.insert(record.args().to_string()) {
            warn(*record.args());
        }
    }

    fn flush(&self) {}
}

/// Has the library's warnings shown; where another program, which uses this as a library, shows them already, they stay
/// with it.
pub fn show_warnings() {
    if log::set_logger(&WARNINGS).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// A warning on standard error.
pub fn warn(line: fmt::Arguments<'_>) {
    if silent() {
        return;
    }
    complain(format_args!("warning: {line}"));
}

/// A line on standard error, even of a process that is [`silent`].
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", one_line(&line.to_string()));
}

/// Writes a generated document to standard output. A broken pipe is no error.
pub fn print_document(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    unless_broken_pipe(out.write_all(bytes).and_then(|()| out.flush())).context("cannot write to standard output")
}

/// A line of bars, one for each equal part of `values`: its mean, between the smallest and the largest of them. Empty
/// where there are fewer values than bars.
pub fn sparkline(values: &[f64], bars: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(part) = values.len().checked_div(bars).filter(|&n| n > 0) else { return String::new() };
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let means: Vec<f64> = values.chunks(part).take(bars).map(mean).collect();
    let (low, high) = means.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    let level = |x: &f64| if high > low { ((x - low) / (high - low) * 7.0).round() as usize } else { 0 };
    means.iter().map(|x| LEVELS[level(x).min(7)]).collect()
}

static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why text for standard output was lost (a full disk, say), if any was.
pub fn lost_output() -> Option<&'static io::Error> {
    LOST.get()
}

fn unless_broken_pipe(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
}

/// `say!(ui, "text {x}")`: one line for people.
#[doc(hidden)]
#[macro_export]
macro_rules! say {
    ($ui:expr, $($arg:tt)*) => { $ui.say(format_args!($($arg)*)) };
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn a_sparkline_falls_with_its_values() {
        assert_eq!(sparkline(&[8.0, 6.0, 4.0, 4.0, 1.0, 1.0], 3), "█▅▁");
        assert_eq!(sparkline(&[2.0; 4], 2), "▁▁");
        assert_eq!(sparkline(&[1.0], 2), "");
        assert_eq!(sparkline(&[f64::NAN, 1.0], 2).chars().count(), 2);
        assert_eq!(sparkline(&[1.0], 0), "");
    }
}
