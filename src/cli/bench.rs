//! `hrm bench`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    GlobalArgs,
    args::{checkpoints::compute_dtype, output::ForceArg},
    table::{Table, cells},
    ui::{JsonArg, Ui},
    work::foretell,
};
use crate::{
    bench, config,
    dtype::Dtype,
    escape::shell_word,
    model::{Dims, ModelConfig},
    runtime::{self, Backend, device_name},
    say,
    store::write_bytes,
};

/// More of them tell nothing new.
const MOST_STEPS: i64 = 100_000;

/// Measure training or inference speed on this machine
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The model has random weights and the puzzles are random: no checkpoint and no dataset is needed. A training step is that \
of `hrm train`; `infer` runs a batch through all halt_max_steps segments. The rates are shown beside that of a large \
matrix product on the same machine.

Examples:
  hrm bench train --batch-size 384,768
  hrm bench infer --batch-size 103,1030 --json speed.json"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Milliseconds of a training step
    Train(SpeedArgs),
    /// Puzzles a second through all segments
    Infer(SpeedArgs),
}

#[derive(clap::Args, Debug)]
struct SpeedArgs {
    /// Model to measure, as for `hrm train`: arch.preset=NAME or arch.KEY=VALUE [default: arch.preset=sudoku]
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Batch sizes to measure [default: 384,768 to train and 91,1000 to infer on a GPU; 8 on a CPU]
    #[arg(long, value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(i64).range(1..=1 << 20))]
    batch_size: Vec<i64>,
    /// Timed steps (train) or batches (infer) [default: 20, on a CPU 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS))]
    steps: Option<u32>,
    /// Untimed steps before them [default: 5, on a CPU 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=MOST_STEPS))]
    warm: Option<u32>,
    /// Compute in this dtype instead of the preset's
    #[arg(long, value_name = "bf16|f32", value_parser = compute_dtype())]
    dtype: Option<Dtype>,
    /// train: record one step of the first batch size (weights, batch, draws, loss, gradients) for
    /// scripts/torch_reference.py
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArg,
    #[command(flatten)]
    json: JsonArg,
}

pub fn run(args: BenchArgs, global: &GlobalArgs) -> Result<()> {
    let (training, args) = match args.what {
        What::Train(args) => (true, args),
        What::Infer(args) => (false, args),
    };
    let ui = Ui::new(&args.json);
    let hyper = config::resolve(None, &args.overrides)?.config;
    let mut model = ModelConfig::new(&hyper.arch, Dims::sudoku())?;
    if let Some(dtype) = args.dtype {
        model.forward_dtype = dtype;
    }
    if let Some(path) = &args.dump {
        ensure!(training, "--dump records a training step: use it with `hrm bench train`");
        args.force.check(path, &args.json).context("--dump")?;
    }
    let backend = Backend::from(global.init()?);
    let device = backend.device;
    let gpu = device.is_cuda();
    let sizes = match (args.batch_size.is_empty(), gpu, training) {
        (false, ..) => args.batch_size,
        (_, false, _) => vec![8],
        (_, true, true) => vec![384, 768],
        (_, true, false) => vec![91, 1000],
    };
    let steps = args.steps.unwrap_or(if gpu { 20 } else { 3 }) as usize;
    let warm = args.warm.unwrap_or(if gpu { 5 } else { 1 }) as usize;
    if let Some(path) = &args.dump {
        let recorded = bench::record_step(&model, &hyper, sizes[0], global.seed.unwrap_or(0), backend)?;
        write_bytes(path, args.force.existing(), &recorded)?;
        let command = format!("python3 scripts/torch_reference.py check {}", shell_word(path));
        say!(ui, "recorded one step in {}: {command}", path.display());
    }
    let rate = bench::matmul_rate(device, model.forward_dtype);
    say!(
        ui,
        "matrix products in {}: {:.2} TFLOP/s on {}",
        model.forward_dtype.short_name(),
        rate / 1e12,
        device_name(device)
    );
    let timing = bench::Timing { warm, steps, rate };
    let per_row = if training { model.flops_per_train_row() } else { model.flops_per_row() };
    let rows = sizes.iter().sum::<i64>() as f64 * (warm + steps) as f64;
    foretell(&ui, per_row * rows, rate);
    let unit = if training { "step" } else { "batch" };
    let time = format!("ms/{unit}");
    let headings = ["batch", &time, "puzzles/s", "TFLOP/s", "of matmul rate", "peak memory"];
    let mut table = Table::headed(headings, &[]);
    let measure = |rows| {
        if training {
            bench::train(&model, &hyper, rows, backend, timing)
        } else {
            bench::infer(&model, rows, backend, timing)
        }
    };
    // A size that does not fit into memory does not take the others' numbers with it.
    let mut failed = None;
    let measured = sizes.into_iter().map(measure).map_while(|line| line.map_err(|e| failed = Some(e)).ok());
    let lines: Vec<bench::Measured> = measured.collect();
    for line in &lines {
        table.row(cells![
            line.batch_size,
            format!("{:.2}", line.ms),
            format!("{:.1}", line.puzzles_per_s),
            format!("{:.2}", line.tflop_per_s),
            format!("{:.1}%", 100.0 * line.share_of_matmul_rate),
            line.peak_memory_gib.map_or_else(|| "-".into(), |g| format!("{g:.2} GiB"))
        ]);
    }
    table.print(&ui);
    if let Some(e) = failed {
        return Err(e);
    }
    ui.emit(&json!({
        "device": device_name(device),
        "version": runtime::long_version(),
        "dtype": model.forward_dtype.short_name(),
        "matmul_tflop_per_s": rate / 1e12,
        "results": lines,
    }))
}
