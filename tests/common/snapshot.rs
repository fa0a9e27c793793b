//! What commands print, compared whole with a file of tests/snapshots, so that wording lives in one place.
//!
//! ```ignore
//! let mut said = Transcript::new(folder.path());
//! let output = said.ok(hrm(folder.path()).args(["runs", "checkpoints"]))?;    // must succeed
//! said.fails(hrm(folder.path()).args(["train", "data_path=nowhere"]))?;       // must fail
//! said.matches("runs_are_listed");    // with tests/snapshots/<test program>__runs_are_listed.snap
//! ```
//!
//! `INSTA_UPDATE=always cargo test --release --test PROGRAM` accepts what is printed now; `git diff` then shows it.
//! Without it a snapshot that is missing or differs is a failure, and nothing is written (.cargo/config.toml).
//! Folders, times, rates, dates, hashes, ports and versions are replaced by their kind in brackets;
//! [`Transcript::measured`] replaces all that a model computed, [`Transcript::hide`] what else varies.

use std::{fmt::Write, fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use super::Output;

/// Patterns that are replaced everywhere, in this order.
const VARIES: [(&str, &str); 13] = [
    (r"\.tmp\w{6}\b", "[temp]"),
    (r"\.\w{6}\.part\b", ".[temp].part"),
    (r"\b[0-9a-f]{32,64}\b", "[hash]"),
    (r"\b(127\.0\.0\.\d+|localhost):\d+", "$1:[port]"),
    (r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?)?", "[date]"),
    (r"\b[\d.,]+k? (\w+)/s\b", "[rate] $1/s"),
    (r"\b\d+(\.\d+)? ?(ms|s|seconds?|min|minutes?|h|hours?)\b", "[time]"),
    (r"\bhrm \d+\.\d+\.\d+\b", "hrm [version]"),
    (r"\blibtorch \d+\.\d+\.\d+\b", "libtorch [version]"),
    (r"\bpid \d+", "pid [pid]"),
    (r"(ACTV1) [a-z]+-[a-z]+", "$1 [name]"),
    // Of training: how long it will take, and where it is every ten seconds.
    (r"(?m)^work +.* TFLOP.*", "work [work]"),
    (r"(?m)^step +\d+/.*\n", ""),
];

/// Figures that a model computed: they depend on the processor, and with them the width of columns. Commands, errors and
/// warnings keep theirs: there they are given.
const MEASURED: [(&str, &str); 5] = [
    (r"(?m)(^(?:\$ |error: |warning: ).*$)|-?\b\d+\.\d+(?:e-?\d+)?\b", "$1\u{e000}"),
    (r"(?m)^((?:\$ |error: |warning: ).*)\u{e000}$", "$1"),
    ("\u{e000}", "#"),
    (r"\b\d+ %", "# %"),
    (r"(\S) {2,}", "$1 "),
];

/// Commands and what they printed; other messages too.
#[derive(Default)]
#[must_use = "compare it with `matches`"]
pub struct Transcript {
    folder: String,
    text: String,
    hidden: Vec<(String, String)>,
    measured: bool,
}

impl Transcript {
    /// Of commands in a temporary folder, which is shown as `[dir]`; without one: `Transcript::default()`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.display().to_string(), ..Self::default() }
    }

    /// Shows what a regular expression matches as something else (`$1` is its first group).
    pub fn hide(mut self, pattern: &str, shown: &str) -> Self {
        self.hidden.push((pattern.to_owned(), shown.to_owned()));
        self
    }

    /// Shows decimal numbers and percentages as `#`: what a model computes differs between processors.
    pub fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Runs a command that must succeed.
    pub fn ok(&mut self, command: &mut Command) -> Result<Output> {
        let (success, output) = self.run(command)?;
        ensure!(success, "{command:?} failed:\n{}", output.stderr);
        Ok(output)
    }

    /// Runs a command that must fail with an error of its own; what it wrote to standard error.
    pub fn fails(&mut self, command: &mut Command) -> Result<String> {
        let (success, output) = self.run(command)?;
        ensure!(!success, "{command:?} succeeded");
        ensure!(output.stderr.contains("error:"), "{command:?} ended without an error message:\n{}", output.stderr);
        Ok(output.stderr)
    }

    /// Any other text under a headline, the message of a library's error, say.
    pub fn add(&mut self, what: &str, text: &str) {
        let separator = if self.text.is_empty() { "" } else { "\n" };
        let _ = write!(self.text, "{separator}{what}\n{text}");
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// The words of a picture, without the numbers at its axes.
    pub fn add_svg(&mut self, path: &Path) -> Result<()> {
        let svg = fs::read_to_string(path)?;
        let elements = svg.split("<text").skip(1).filter_map(|part| part.split_once('>')?.1.split_once('<'));
        let words =
            elements.map(|(text, _)| text.trim()).filter(|text| text.trim_start_matches('−').parse::<f64>().is_err());
        self.add(&format!("texts of {}", path.display()), &words.collect::<Vec<_>>().join("\n"));
        Ok(())
    }

    fn run(&mut self, command: &mut Command) -> Result<(bool, Output)> {
        for (name, value) in [("CUDA_VISIBLE_DEVICES", ""), ("OMP_NUM_THREADS", "1")] {
            if command.get_envs().all(|(given, _)| given != name) {
                command.env(name, value);
            }
        }
        command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
        let ran = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = Output { stdout: text(&ran.stdout), stderr: text(&ran.stderr) };
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
        let line = words.iter().fold(format!("$ {program}"), |line, word| match word.contains([' ', '\n']) {
            _ if word.is_empty() => line + " ''",
            true => format!("{line} '{word}'"),
            false => format!("{line} {word}"),
        });
        let json = words.windows(2).any(|pair| pair == ["--json", "-"]) && !output.stdout.is_empty();
        let stdout = if json { "[json]\n" } else { &output.stdout };
        let ended = match ran.status.code() {
            Some(0) => String::new(),
            Some(code) => format!("[exit {code}]\n"),
            None => format!("[{}]\n", ran.status),
        };
        self.add(&line, &format!("{stdout}{}{ended}", output.stderr));
        Ok((ran.status.success(), output))
    }

    /// Compares with tests/snapshots/<test program>__<name>.snap.
    #[track_caller]
    pub fn matches(self, name: &str) {
        let text = self.text.replace(env!("CARGO_BIN_EXE_hrm"), "hrm");
        let text = if self.folder.is_empty() { text } else { text.replace(&self.folder, "[dir]") };
        let text = text.replace(env!("CARGO_MANIFEST_DIR"), "[clone]");
        let text = text.replace(&*std::env::temp_dir().to_string_lossy(), "[tmp]");
        let mut settings = insta::Settings::new();
        settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        for (pattern, shown) in &self.hidden {
            settings.add_filter(pattern, shown);
        }
        for (pattern, shown) in VARIES.iter().chain(MEASURED.iter().filter(|_| self.measured)) {
            settings.add_filter(pattern, *shown);
        }
        let program = env!("CARGO_CRATE_NAME");
        // Shown only where the comparison fails.
        eprintln!("to accept what is printed now: INSTA_UPDATE=always cargo test --release --test {program} {name}");
        settings.bind(|| insta::assert_snapshot!(format!("{program}__{name}"), text));
    }
}
