//! How long work takes at least, told before it begins.

use std::time::Duration;

use anyhow::{Context, Result};
use tch::Device;

use super::ui::Ui;
use crate::{
    bench,
    checkpoint::Checkpoint,
    model::{Model, ModelConfig},
    say,
};

/// Shorter work needs no announcement.
const SHORT: Duration = Duration::from_secs(30);

/// Tells how long matrix products of `flops` take at `rate` a second, unless that is short.
pub fn foretell(ui: &Ui, flops: f64, rate: f64) {
    let least = least_time(flops, rate);
    if least > SHORT {
        say!(
            ui,
            "work        at most {:.2} TFLOP; all of it takes at least {} at this machine's {:.2} TFLOP/s",
            flops / 1e12,
            indicatif::HumanDuration(least),
            rate / 1e12
        );
    }
}

/// As [`Duration::from_secs_f64`]; what is beyond it is its longest.
pub fn least_time(flops: f64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(flops / rate).unwrap_or(Duration::MAX)
}

/// [`foretell`] for a model's work. The machine is measured only where the work may be long.
pub fn foretell_work(ui: &Ui, model: &Model, flops: f64) {
    if least_time(flops, fastest(model.device())) > SHORT / 30 {
        foretell(ui, flops, bench::matmul_rate(model.device(), model.config().forward_dtype));
    }
}

/// FLOP/s that no such device exceeds by much.
fn fastest(device: Device) -> f64 {
    if device.is_cuda() { 1e15 } else { 1e12 }
}

/// [`foretell_work`] for runs of puzzles through each of several checkpoints, with `segments` or each model's own.
pub fn foretell_runs(ui: &Ui, subjects: &[(Checkpoint, Model)], segments: Option<u32>, puzzles: usize) -> Result<()> {
    let of = |config: &ModelConfig| match segments {
        Some(n) => config.flops_per_segment() * f64::from(n),
        None => config.flops_per_row(),
    };
    let (_, first) = subjects.first().context("no checkpoint given")?;
    foretell_work(ui, first, puzzles as f64 * subjects.iter().map(|(_, model)| of(model.config())).sum::<f64>());
    Ok(())
}
