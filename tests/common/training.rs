//! A tiny model on a tiny dataset, which trains in a second, and what a run writes down.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    fs,
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::{hrm, ok};

/// 64 training puzzles in batches of 16: 4 steps an epoch. On the CPU.
pub const TINY: &str = "data_path=data global_batch_size=16 epochs=8 eval_interval=4 lr=2e-3 lr_warmup_steps=5 \
                        arch.hidden_size=16 arch.num_heads=2 arch.H_layers=1 arch.L_layers=1 arch.L_cycles=1 \
                        arch.halt_max_steps=3 --threads 1 --device cpu";

/// A folder with the dataset `data` in it.
pub fn bench_of(test_rows: usize) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let flags = "build-dataset --output-dir data --subsample-size 64 --hint --threads 1";
    ok(hrm(folder.path()).args(flags.split(' ')).args(["--test-rows", &test_rows.to_string()]))?;
    Ok(folder)
}

pub fn bench() -> Result<TempDir> {
    bench_of(20)
}

/// `hrm train` with the tiny model; later words win.
pub fn train(folder: &Path, more: &str) -> Command {
    let mut command = hrm(folder);
    command.arg("train").args(TINY.split_whitespace()).args(more.split_whitespace());
    command
}

/// [`bench`] with the tiny model trained in `run`: 32 steps, checkpoints of steps 16 and 32.
pub fn trained() -> Result<TempDir> {
    let folder = bench()?;
    ok(&mut train(folder.path(), "checkpoint_path=run"))?;
    Ok(folder)
}

/// `hrm train --resume` of that run.
pub fn resume(folder: &Path, more: &str) -> Command {
    let mut command = hrm(folder);
    command.args(["train", "--resume", "run", "--threads", "1", "--device", "cpu"]).args(more.split_whitespace());
    command
}

/// All lines of metrics.jsonl.
pub fn lines(run: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(run.join("metrics.jsonl"))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Those of steps: what was trained and measured.
pub fn figures(run: &Path) -> Result<Vec<Value>> {
    let mut lines = lines(run)?;
    lines.retain(|line| line.get("step").is_some());
    Ok(lines)
}

#[cfg(unix)]
pub fn send(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that is not waited for yet.
    unsafe { libc::kill(child.id() as i32, signal) };
}
