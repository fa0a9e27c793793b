//! Processes that a test starts, and what it sees of them.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A process that ends when it is dropped, by a test that fails, say; its children with it. What it prints is kept.
pub struct Started(Option<Child>);

impl Started {
    pub fn new(command: &mut Command) -> Result<Self> {
        Ok(Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)))
    }

    pub fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Waits for its end.
    pub fn wait_with_output(mut self) -> Result<Output> {
        Ok(self.0.take().context("it runs")?.wait_with_output()?)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            for pid in children(child.id()).unwrap_or_default() {
                signal(pid, libc::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that was free a moment ago.
pub fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Processes whose parent this is.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold anything: the fields follow the last bracket.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        if done()? {
            return Ok(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{what}: not within five minutes")
}

/// Whether the run has logged steps: the file is written in blocks.
pub fn at_work(folder: &Path) -> Result<bool> {
    Ok(fs::read_to_string(folder.join("run/metrics.jsonl")).is_ok_and(|text| text.contains("train/lm_loss")))
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a process that this test started.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}
