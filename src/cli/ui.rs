//! What a command prints: text for people, one JSON document for programs, progress bars.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Where `--json` writes: a file, or `-` for standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTarget {
    Stdout,
    File(PathBuf),
}

impl FromStr for JsonTarget {
    type Err = std::convert::Infallible;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(if s == "-" { Self::Stdout } else { Self::File(s.into()) })
    }
}

/// The flag that every reporting command takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct JsonArg {
    /// Write the results as JSON to FILE; `-` is standard output, and all text then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<JsonTarget>,
}

/// A command's mouth. Text goes to standard output, or to standard error when the JSON takes standard output.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    json: Option<JsonTarget>,
}

impl Ui {
    pub fn new(json: &JsonArg) -> Self {
        Self { json: json.json.clone() }
    }

    /// One line of text for people. A broken pipe ends the process quietly with success.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        let done = match self.json {
            Some(JsonTarget::Stdout) => writeln!(io::stderr().lock(), "{line}"),
            _ => writeln!(io::stdout().lock(), "{line}"),
        };
        exit_on_broken_pipe(done);
    }

    /// Writes the command's JSON document where `--json` asked for it; nothing without the flag.
    pub fn emit<T: Serialize>(&self, value: &T) -> Result<()> {
        match &self.json {
            None => Ok(()),
            Some(JsonTarget::Stdout) => {
                let text = serde_json::to_string_pretty(value)?;
                exit_on_broken_pipe(writeln!(io::stdout().lock(), "{text}"));
                Ok(())
            }
            Some(JsonTarget::File(path)) => {
                let at = || format!("{}: cannot write the JSON results", path.display());
                let mut file = BufWriter::new(File::create(path).with_context(at)?);
                serde_json::to_writer_pretty(&mut file, value).with_context(at)?;
                writeln!(file).and_then(|()| file.flush()).with_context(at)
            }
        }
    }

    /// A progress bar on standard error with rate and time to go; silent when that is no terminal.
    pub fn progress(&self, len: u64, what: &str, unit: &str) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
        let style = format!(
            "{what} {{bar:30}} {{human_pos}}/{{human_len}} {unit} · {{per_sec}} · {{elapsed}} · {{eta}} to go {{msg}}"
        );
        bar.set_style(ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }
}

/// A warning on standard error.
pub fn warn(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "warning: {line}");
}

/// Writes a generated document to standard output. A broken pipe ends the process quietly with success.
pub fn print_document(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    let done = out.write_all(bytes).and_then(|()| out.flush());
    if done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return Ok(());
    }
    done.context("cannot write to standard output")
}

fn exit_on_broken_pipe(result: io::Result<()>) {
    if let Err(e) = result
        && e.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// `say!(ui, "text {x}")`: one line for people.
#[macro_export]
macro_rules! say {
    ($ui:expr, $($arg:tt)*) => { $ui.say(format_args!($($arg)*)) };
}
