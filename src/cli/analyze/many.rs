//! Many puzzles through one checkpoint: which, and the run that is written down as it goes.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::Device;

use crate::{
    analysis::{
        identity::{PuzzlesIdentity, RunsIdentity},
        runs::{Item, PuzzleRun, run_puzzles},
    },
    checkpoint::Checkpoint,
    cli::{
        GlobalArgs,
        sources::{
            TestPuzzles, WeightsArg, compute_dtype, device_name, load_checkpoint, load_checkpoints, test_puzzles,
        },
        study::{Output, OutputArgs, batch_size, interrupted},
        ui::Ui,
        viz::weights_name,
    },
    dtype::Dtype,
    journal::run_batches,
    model::{Dims, Model},
    say,
    signals::stop_flag,
};

/// States are compared bit by bit with those of so many segments before.
pub const LONGEST_CYCLE: usize = 4;

/// `--count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Rows(usize),
    All,
}

impl std::str::FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(n)) if n > 0 => Ok(Self::Rows(n)),
            _ => Err("give a number from 1, or `all`".to_owned()),
        }
    }
}

/// How puzzles go through a model.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Segments to run, also beyond the model's own number [default: the checkpoint's arch.halt_max_steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    pub segments: Option<u32>,
    /// Puzzles that go through the model together [default: 64, on a GPU what fills it]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub batch_size: Option<u64>,
    /// Number format of the forward pass [default: the checkpoint's]
    #[arg(long, value_name = "bf16|f32", value_parser = compute_dtype())]
    pub dtype: Option<Dtype>,
    #[command(flatten)]
    pub weights: WeightsArg,
}

/// Which test puzzles and which checkpoint.
#[derive(clap::Args, Clone, Debug)]
pub struct ManyArgs {
    /// A run folder, a step_N folder, a .safetensors file or upstream's [default: the newest]
    #[arg(long, visible_alias = "checkpoints", value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// Dataset folder whose test split is taken [default: the checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    pub data_path: Option<PathBuf>,
    /// How many test puzzles; with --resume also more or fewer than the folder has
    #[arg(long, value_name = "N|all", default_value = "200")]
    pub count: Count,
    /// Their first row, from 0
    #[arg(long, value_name = "ROW", default_value_t = 0)]
    pub first: usize,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Several checkpoints on the same test puzzles.
#[derive(clap::Args, Clone, Debug)]
pub struct SeveralArgs {
    /// Checkpoints: run folders, step_N folders, .safetensors files or upstream's; separated by commas or repeated
    #[arg(long, visible_alias = "checkpoint", value_name = "PATH[,PATH...]", value_delimiter = ',')]
    checkpoints: Vec<PathBuf>,
    /// Dataset folder whose test split is taken [default: the last checkpoint's, else the bundled rows]
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
}

impl SeveralArgs {
    /// The checkpoints, all of the puzzles' kind, and the puzzles.
    pub fn open(&self, ui: &Ui, weights: WeightsArg) -> Result<(Vec<Checkpoint>, TestPuzzles)> {
        let checkpoints = load_checkpoints(ui, &self.checkpoints, weights)?;
        let last = checkpoints.last().context("no checkpoint given")?;
        let puzzles = test_puzzles(ui, self.data_path.as_deref(), last)?;
        checkpoints.iter().try_for_each(|checkpoint| puzzles.check_kind(checkpoint))?;
        Ok((checkpoints, puzzles))
    }
}

impl RunArgs {
    /// Loads the weights for those puzzles.
    pub fn load(&self, checkpoint: &Checkpoint, puzzles: &TestPuzzles, device: Device) -> Result<Model> {
        Model::load(checkpoint, Dims::from(puzzles.dataset.meta()), device, self.dtype)
    }

    /// How many segments to run.
    pub fn segments(&self, model: &Model) -> Result<usize> {
        Ok(match self.segments {
            Some(n) => usize::try_from(n)?,
            None => usize::try_from(model.config().halt_max_steps)?,
        })
    }
}

/// A model with the puzzles that it was run on.
#[derive(Debug)]
pub struct Many {
    pub checkpoint: Checkpoint,
    pub model: Model,
    pub items: Vec<Item>,
    pub runs: Vec<PuzzleRun>,
    pub output: Output,
    pub origin: String,
}

impl Many {
    /// A picture's last line.
    pub fn sources(&self) -> String {
        format!("Puzzles: {} · Weights: {}", self.rows(), weights_name(&self.checkpoint))
    }

    fn rows(&self) -> String {
        let first = self.items.first().map_or(0, |i| i.index);
        format!("test rows {first} to {} of {}", first + self.items.len().saturating_sub(1), self.origin)
    }

    /// What every summary begins with.
    pub fn head(&self, title: &str, pictures: Vec<String>, arrays: Vec<String>) -> Head {
        Head {
            title: title.to_owned(),
            pictures,
            arrays,
            checkpoint: self.checkpoint.path.display().to_string(),
            step: self.checkpoint.step,
            data: self.rows(),
            dtype: self.model.config().forward_dtype.short_name(),
        }
    }
}

/// The first keys of a summary.
#[derive(Debug, Serialize)]
pub struct Head {
    pub title: String,
    pub pictures: Vec<String>,
    /// numpy's files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<String>,
    pub checkpoint: String,
    pub step: Option<u64>,
    pub data: String,
    pub dtype: &'static str,
}

/// The rows that were asked for, with their solutions.
pub fn items(puzzles: &TestPuzzles, first: usize, count: Count) -> Result<Vec<Item>> {
    let there = puzzles.set()?.len();
    let last = match count {
        Count::All => there,
        Count::Rows(n) => first.saturating_add(n).min(there),
    };
    // A first row that is not there is told as that.
    let rows: Vec<usize> = if first < there { (first..last).collect() } else { vec![first] };
    puzzles.rows("--first", &rows)
}

/// Runs the puzzles that were asked for, on with what the folder holds where that is wanted.
pub fn run_many(ui: &Ui, global: &GlobalArgs, args: &ManyArgs, output: &OutputArgs, default: &str) -> Result<Many> {
    let checkpoint = load_checkpoint(ui, args.checkpoint.as_deref(), args.run.weights)?;
    let puzzles = test_puzzles(ui, args.data_path.as_deref(), &checkpoint)?;
    puzzles.check_kind(&checkpoint)?;
    let items = items(&puzzles, args.first, args.count)?;
    if let Count::Rows(n) = args.count
        && items.len() < n
    {
        say!(ui, "fewer test puzzles than asked for: the {} from row {} on", items.len(), args.first);
    }
    let runtime = global.init()?;
    let model = args.run.load(&checkpoint, &puzzles, runtime.device)?;
    let output = output.open(default)?;
    let stop = stop_flag("stopping after this batch");
    let asked = PuzzlesIdentity::Rows { data: puzzles.identity()?, first: args.first };
    let runs = run_items(ui, &model, &checkpoint, &items, &args.run, &output, "runs.jsonl", &asked, &stop)?;
    Ok(Many { checkpoint, model, items, runs, output, origin: puzzles.origin })
}

/// Runs any puzzles; `puzzles` says which, for the journal.
#[allow(clippy::too_many_arguments, reason = "each is one thing of the run")]
pub fn run_items(
    ui: &Ui,
    model: &Model,
    checkpoint: &Checkpoint,
    items: &[Item],
    args: &RunArgs,
    output: &Output,
    name: &str,
    puzzles: &PuzzlesIdentity,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<PuzzleRun>> {
    let segments = args.segments(model)?;
    let asked = RunsIdentity {
        weights: checkpoint.weights_digest(),
        puzzles: puzzles.clone(),
        segments,
        dtype: model.config().forward_dtype.short_name(),
    };
    let (mut journal, mut done) = output.journal::<_, PuzzleRun>(name, &asked)?;
    // Of an earlier run of more puzzles the first are used, and the file stays as it is.
    done.truncate(items.len());
    if !done.is_empty() {
        say!(ui, "{} of {} puzzles were run already", done.len(), items.len());
    }
    if let Some(k) = done.iter().zip(items).position(|(run, item)| !run.fits(item, segments)) {
        bail!(
            "{}: line {} is not the run of puzzle {}: --force begins anew",
            output.path(name).display(),
            k + 2,
            items[k].index
        );
    }
    let before = done.len();
    let bar = ui.progress(items.len() as u64, "run", "puzzles");
    bar.set_position(before as u64);
    let (mut reached, mut solved) = (before, done.iter().filter(|r| r.solved()).count());
    let started = Instant::now();
    let compute = |batch: &[Item]| run_puzzles(model, batch, segments, LONGEST_CYCLE);
    let found = run_batches(items, batch_size(args.batch_size, model), Some(&mut journal), done, compute, |found| {
        reached += found.len();
        solved += found.iter().filter(|r| r.solved()).count();
        bar.inc(found.len() as u64);
        bar.set_message(format!("· exact {:.1} %", 100.0 * solved as f64 / reached as f64));
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    if found.stopped {
        bail!(interrupted(ui, found.results.len(), items.len(), output.folder()));
    }
    let seconds = started.elapsed().as_secs_f64();
    if found.results.len() > before {
        let n = found.results.len() - before;
        say!(
            ui,
            "{n} puzzles x {segments} segments in {seconds:.1} s, {:.1} puzzles/s ({} on {})",
            n as f64 / seconds.max(1e-9),
            model.config().forward_dtype.short_name(),
            device_name(model.device())
        );
    }
    Ok(found.results)
}

/// A share as text.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// An interval of shares as text.
pub fn between(interval: &crate::eval::stats::Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
}
