//! What the tests of datasets share: golden files, and the real binary in a folder of its own.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod processes;
pub mod snapshot;
pub mod solver;
pub mod tensors;
pub mod training;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A file or folder of tests/golden.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

pub fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// The binary, to be run in `folder`.
pub fn hrm(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hrm"));
    command.current_dir(folder);
    // A shell that runs the tests in its background ignores Ctrl-C for them, and hrm leaves ignored what was ignored.
    at_start(&mut command, libc::SIGINT, libc::SIG_DFL);
    command
}

/// How the process meets a signal when it starts: `libc::SIG_IGN` or `libc::SIG_DFL`.
pub fn at_start(command: &mut Command, signal: i32, action: libc::sighandler_t) {
    // SAFETY: signal is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::signal(signal, action);
            Ok(())
        });
    }
}

/// Waits until something is true while a child runs; a child that has ended, or two minutes, is an error, with what it
/// said. A child that is given up is killed.
pub fn until(child: &mut Child, said: impl Fn() -> String, mut done: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !done() {
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            bail!("{ended:?}: {}", said());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether a process has a handler for a signal.
pub fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
    caught.and_then(|bits| u64::from_str_radix(bits, 16).ok()).is_some_and(|bits| bits >> (signal - 1) & 1 == 1)
}

/// Bytes of a file; 0 where there is none.
pub fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command that must succeed.
pub fn ok(command: &mut Command) -> Result<Output> {
    let output = run(command)?;
    ensure!(output.0, "{command:?} failed:\n{}", output.1.stderr);
    Ok(output.1)
}

/// Runs a command that must fail with an error of its own, and returns what it wrote to standard error.
pub fn fails(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    ensure!(!output.0, "{command:?} succeeded");
    ensure!(output.1.stderr.contains("error:"), "{command:?} ended without an error message:\n{}", output.1.stderr);
    Ok(output.1.stderr)
}

fn run(command: &mut Command) -> Result<(bool, Output)> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), Output { stdout: text(&output.stdout), stderr: text(&output.stderr) }))
}

/// The sorted names in a folder, hidden ones included.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let list = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut found =
        list.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
